"""Private instances of proxies that tunnel: tinyproxy (HTTP CONNECT) and microsocks (SOCKS5)."""

from __future__ import annotations

from . import net
from .process import Process, program

CONF = """
Port {port}
Listen 127.0.0.1
Timeout 60
LogLevel Connect
MaxClients 200
{login}
"""


class Tunnel(Process):
    """What both have in common. With `user` and `password` they want to hear them."""

    scheme = ""

    def __init__(self, user: str = "", password: str = "") -> None:
        super().__init__()
        self.user, self.password = user, password
        self.port = net.free_port()
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        """After stop or kill: again on the same port."""
        self.spawn(self.command())
        net.wait_for(type(self).__name__, lambda: self.accepts(f"127.0.0.1:{self.port}"))

    @property
    def url(self) -> str:
        """As `proxy=` has it."""
        login = f"{self.user}:{self.password}@" if self.user else ""
        return f"{self.scheme}://{login}127.0.0.1:{self.port}"


class Tinyproxy(Tunnel):
    scheme = "http"

    def command(self) -> list[str]:
        conf = self.folder / "tinyproxy.conf"
        login = f"BasicAuth {self.user} {self.password}" if self.user else ""
        conf.write_text(CONF.format(port=self.port, login=login))
        return [program("tinyproxy", "tinyproxy"), "-d", "-c", str(conf)]


class Microsocks(Tunnel):
    scheme = "socks5h"

    def command(self) -> list[str]:
        login = ["-u", self.user, "-P", self.password] if self.user else []
        return [program("microsocks", "microsocks"), "-i", "127.0.0.1", "-p", str(self.port), *login]
