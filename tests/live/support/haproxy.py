"""A private haproxy."""

from __future__ import annotations

from . import net
from .process import Process, program

CONF = """
global
  maxconn 2000
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  retries 0
{defaults}
frontend front
  bind 127.0.0.1:{port}
  {front}
  default_backend back
backend back
  {back}
"""


class HAProxy(Process):
    """One frontend with one backend: `back` has its servers (`server one 127.0.0.1:80`), `front` and `defaults` what
    else is to be said of them."""

    def __init__(self, back: str, *, front: str = "", defaults: str = "") -> None:
        command = program("haproxy", "haproxy")
        super().__init__()
        self.port = net.free_port()
        conf = self.folder / "haproxy.cfg"
        conf.write_text(CONF.format(port=self.port, back=back, front=front, defaults=defaults))
        self.serve([command, "-f", str(conf), "-db"], self.address)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"
