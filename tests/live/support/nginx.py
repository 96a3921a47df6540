"""A private nginx."""

from __future__ import annotations

import os
import signal

from . import net
from .process import Process, program

CONF = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log {access_log};
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  {around}
  server {{
    listen 127.0.0.1:{port};
    listen unix:{folder}/nginx.sock;
    {inside}
  }}
}}
"""


class Nginx(Process):
    """One worker, with `inside` in its one server: `location / { return 200 "hello"; }`, and `around` beside that, such
    as `upstream`. With `logs=True` each request is a line in the file `access`, in its folder."""

    def __init__(self, inside: str, *, around: str = "", logs: bool = False) -> None:
        command = program("nginx", "nginx-light")
        super().__init__()
        self.port = net.free_port()
        conf = self.folder / "nginx.conf"
        # Its workers may be of another user, who has to get to the socket.
        self.folder.chmod(0o755)
        log = "access" if logs else "off"
        text = CONF.format(port=self.port, folder=self.folder, inside=inside, around=around, access_log=log)
        conf.write_text(text)
        self.serve([command, "-p", str(self.folder), "-c", str(conf)], self.address)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reload(self) -> None:
        """A new worker takes over; the old one finishes what it has begun, and closes what is idle."""
        os.kill(self.pid, signal.SIGHUP)

    def logged(self) -> list[str]:
        """The access log: requests are there when they are over."""
        return (self.folder / "access").read_text().splitlines()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    @property
    def unix_url(self) -> str:
        return f"http+unix://{self.folder}/nginx.sock"
