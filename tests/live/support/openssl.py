"""openssl's own server and client."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from . import net
from .process import Process, program


class SServer(Process):
    """`openssl s_server` that answers every GET with a page of what was agreed on (`-www`), and then closes."""

    def __init__(self, cert: str, *options: str) -> None:
        command = program("openssl", "openssl")
        super().__init__()
        self.port = net.free_port()
        address = f"127.0.0.1:{self.port}"
        self.spawn([command, "s_server", "-accept", address, "-cert", cert, "-key", cert, "-www", *options])
        try:
            net.wait_for("s_server", self._answers)
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        assert self.running, net.tail(self.log)
        return b"ACCEPT" in self.log.read_bytes()


def s_client(port: int, *options: str, said: str = "Q\n", timeout: float = 20) -> str:
    """What `openssl s_client` tells of one conn to 127.0.0.1."""
    command: Sequence[str] = [program("openssl", "openssl"), "s_client", "-connect", f"127.0.0.1:{port}", *options]
    done = subprocess.run(command, input=said, capture_output=True, text=True, errors="replace", timeout=timeout)
    return done.stdout + done.stderr
