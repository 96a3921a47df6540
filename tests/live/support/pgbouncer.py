"""A private pgbouncer."""

from __future__ import annotations

import os
import shutil
from urllib.parse import quote

from . import net
from .postgres import OWNER, PostgresServer, unprivileged
from .process import Process, program

CONF = """
[databases]
postgres = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {pool}
max_client_conn = 100
{more}
"""


class Pgbouncer(Process):
    """Stands before a server, in transaction mode: each transaction gets one of `pool` connections to it."""

    def __init__(self, server: PostgresServer, *, pool: int = 2, more: str = "") -> None:
        command = program("pgbouncer", "pgbouncer")
        super().__init__()
        self.port = net.free_port()
        self._server = server
        users, conf = self.folder / "users", self.folder / "pgbouncer.ini"
        users.write_text('"{}" "{}"\n'.format(server.user, server.password.replace('"', '""')))
        conf.write_text(CONF.format(server=server.port, port=self.port, users=users, pool=pool, more=more))
        if os.geteuid() == 0:
            for path in (self.folder, users, conf):
                shutil.chown(path, OWNER, OWNER)
        self.serve([*unprivileged(), command, str(conf)], self.address)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"postgres://{self._server.user}:{quote(self._server.password, safe='')}@{self.address}/postgres"
