"""Private instances of PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from . import net
from .certs import Authority
from .process import Missing, Process

SERVERS = Path("/usr/lib/postgresql")
OWNER = "postgres"


def programs() -> Path:
    """The folder of the newest server's programs, which Debian keeps out of PATH."""
    found = sorted(SERVERS.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise Missing("PostgreSQL's server is not installed (Debian: postgresql)")
    return found[-1].parent


def unprivileged() -> list[str]:
    """What a command line begins with, as the server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups", "--"]


class PostgresServer(Process):
    """A server on a free loopback port in a temp folder of its own; the user is `app`, who may do everything.

    `auth` is how users show who they are (`trust`, `md5`, `scram-sha-256`, `password`); `settings` are parameters of
    postgresql.conf. `authority` makes it speak TLS, as `localhost` and 127.0.0.1. `follows` makes it a standby of
    another, with that one's users and passwords: it streams what the other writes, and serves reads.
    """

    user = "app"

    def __init__(
        self,
        *,
        password: str = "a secret/ü",
        auth: str = "scram-sha-256",
        settings: Mapping[str, Any] | None = None,
        authority: Authority | None = None,
        follows: PostgresServer | None = None,
    ) -> None:
        self._programs = programs()
        super().__init__()
        self.password: str = follows.password if follows else password
        self.port = 0
        self._settings = {"fsync": "off", "listen_addresses": "127.0.0.1", **(settings or {})}
        try:
            if follows is None:
                self._make(auth)
            else:
                self._copy(follows)
            if authority is not None:
                self._settings |= {"ssl": "on", **self._certify(authority)}
            self.start()
        except BaseException:
            self.close()
            raise

    def _make(self, auth: str) -> None:
        secret = self.folder / "pw"
        secret.write_text(self.password)
        if os.geteuid() == 0:
            for path in (self.folder, secret):
                shutil.chown(path, OWNER, OWNER)
        make = [str(self._programs / "initdb"), "-D", str(self.folder / "data"), "-U", self.user, "-A", auth]
        make += ["-E", "UTF8", "--locale=C.UTF-8", "--no-sync", f"--pwfile={secret}"]
        if auth == "md5":
            make += ["-c", "password_encryption=md5"] if self.version >= 16 else []
        done = subprocess.run([*unprivileged(), *make], capture_output=True, text=True, cwd=self.folder)
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stdout}{done.stderr}")

    def _copy(self, primary: PostgresServer) -> None:
        """A copy of all that the other has, which goes on to follow it."""
        data = self.folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        if os.geteuid() == 0:
            shutil.chown(self.folder, OWNER, OWNER)
        copy = [str(self._programs / "pg_basebackup"), "-D", str(data), "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        copy += ["-h", "127.0.0.1", "-p", str(primary.port), "-U", self.user]
        found = {**os.environ, "PGPASSWORD": self.password}
        done = subprocess.run([*unprivileged(), *copy], capture_output=True, text=True, cwd=self.folder, env=found)
        if done.returncode:
            raise RuntimeError(f"pg_basebackup: {done.stdout}{done.stderr}")

    def _certify(self, authority: Authority) -> dict[str, str]:
        """The files of a certificate and its key, which nobody but the server may read."""
        path = Path(shutil.copy(authority.issue(), self.folder / "server.pem"))
        path.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(path, OWNER, OWNER)
        return {"ssl_cert_file": str(path), "ssl_key_file": str(path)}

    @property
    def version(self) -> int:
        return int(self._programs.parts[-2])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgres://{self.user}:{quote(self.password, safe='')}@{self.address}/{database}"

    def start(self) -> None:
        """After stop or kill: again on the same port."""
        for attempts_left in reversed(range(20)):
            self.port = self.port or net.free_port()
            self.spawn([*unprivileged(), str(self._programs / "postgres"), *self._arguments()])
            net.wait_for("postgres", lambda: not self.running or self._is_ready())
            if self.running:
                return
            said = self.log.read_text()
            # The processes of a killed server take a moment to leave.
            if not attempts_left or ("still in use" not in said and "could not bind" not in said):
                raise RuntimeError(f"postgres ended\n{said}")

    def _arguments(self) -> list[str]:
        arguments = ["-D", str(self.folder / "data"), "-p", str(self.port), "-k", str(self.folder)]
        for name, value in self._settings.items():
            arguments += ["-c", f"{name}={value}"]
        return arguments

    def _is_ready(self) -> bool:
        return b"ready to accept " in self.log.read_bytes()

    def stop(self) -> None:
        """The fast way: whoever is connected is sent away."""
        if self.running:
            self._tell(signal.SIGCONT)
        self._end(signal.SIGINT, patience=5.0)

    def restart(self) -> None:
        self.stop()
        self.start()

    def follow(self, primary: PostgresServer) -> None:
        """Whatever it was: forgets all it had, copies the other, and starts as its standby."""
        self.stop()
        self._copy(primary)
        self.start()

    def demote(self, primary: PostgresServer) -> None:
        """Starts as a standby of the other, which had all that this one had when it was stopped."""
        words = {"host": "127.0.0.1", "port": primary.port, "user": self.user, "password": self.password}
        told = " ".join(f"{key}=''{value}''" for key, value in words.items())
        data = self.folder / "data"
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{told}'\n")
        (data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """Makes a standby take writes, and returns when it does."""
        assert self.cli("select pg_promote()") == [["t"]]

    def children(self) -> list[int]:
        """The processes of the server beside its first, one for each connection among them."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def kill(self) -> None:
        """kill -9 for all of its processes, as when the machine goes."""
        if self.running:
            self.pause()
            for pid in self.children():
                os.kill(pid, signal.SIGKILL)
        super().kill()

    def pause(self) -> None:
        """SIGSTOP for all of its processes."""
        super().pause()
        self._tell(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT for all of them."""
        self._tell(signal.SIGCONT)
        super().cont()

    def _tell(self, what: signal.Signals) -> None:
        for pid in self.children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, what)

    def cli(self, sql: str, *, database: str = "postgres") -> list[list[str]]:
        """What psql says, row by row."""
        command = [str(self._programs / "psql"), "-XAtq", "-F", "\t", "-h", "127.0.0.1", "-p", str(self.port)]
        command += ["-U", self.user, "-d", database, "-v", "ON_ERROR_STOP=1", "-c", sql]
        found = {**os.environ, "PGPASSWORD": self.password, "PGAPPNAME": "psql"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=found)
        if done.returncode:
            raise RuntimeError(done.stderr)
        return [line.split("\t") for line in done.stdout.splitlines()]

    def conns(self, application: str = "iokernel") -> Sequence[int]:
        """The processes that serve those of this name."""
        rows = self.cli(f"select pid from pg_stat_activity where application_name = '{application}' order by pid")
        return [int(pid) for [pid] in rows]
