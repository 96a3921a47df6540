"""A private nginx."""

from __future__ import annotations

from . import net
from .process import Process, program

CONF = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
  server {{
    listen 127.0.0.1:{port};
    listen unix:{folder}/nginx.sock;
    {inside}
  }}
}}
"""


class Nginx(Process):
    """One worker, with `inside` in its one server: `location / { return 200 "hello"; }`."""

    def __init__(self, inside: str) -> None:
        command = program("nginx", "nginx-light")
        super().__init__()
        self.port = net.free_port()
        conf = self.folder / "nginx.conf"
        # Its workers may be of another user, who has to get to the socket.
        self.folder.chmod(0o755)
        conf.write_text(CONF.format(port=self.port, folder=self.folder, inside=inside))
        self.spawn([command, "-p", str(self.folder), "-c", str(conf)])
        try:
            net.wait_for("nginx", self._answers)
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        assert self.running, net.tail(self.log)
        try:
            net.connect(f"127.0.0.1:{self.port}", 1).close()
        except OSError:
            return False
        return True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def unix_url(self) -> str:
        return f"http+unix://{self.folder}/nginx.sock"
