"""Addresses, ports and waiting."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

# Below the range from which the system takes the ports of outgoing connections, so that none of these is in our way.
PORTS = range(12_000, 32_000)

_given: set[int] = set()


def free_port() -> int:
    """A loopback TCP port that nobody listens on, and that this process was not given before."""
    for port in random.sample(PORTS, 200):
        if port not in _given and _can_bind(port):
            _given.add(port)
            return port
    raise OSError("no free TCP port on 127.0.0.1")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def connect(address: str, timeout: float = 5.0) -> socket.socket:
    """A blocking socket connected to `host:port` or `unix:/path`."""
    if address.startswith("unix:"):
        conn = socket.socket(socket.AF_UNIX)
        conn.settimeout(timeout)
        conn.connect(address.removeprefix("unix:"))
        return conn
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout)


def wait_for(what: str, condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Asks again every few milliseconds; the error names what did not come."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout} s")
        time.sleep(0.005)


def tail(path: Path, lines: int = 20) -> str:
    """The end of a log, for error messages."""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"
