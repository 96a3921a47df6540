"""A proxy that tunnels: HTTP CONNECT and SOCKS5 on one port. In a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from .process import Worker


class Tunnels:
    """Tunnels to wherever it is asked to; `names` maps a host that it is asked for to the address that it means.

    With `user` and `password` it wants to hear them (Basic, RFC 1929), and refuses who does not know them.
    """

    def __init__(self, names: Mapping[str, str] | None = None, user: str = "", password: str = "") -> None:
        config = {"names": dict(names or {}), "user": user, "password": password}
        self._worker = Worker("tunnels_worker", config)

    @property
    def address(self) -> str:
        return self._worker.address

    def asked(self) -> list[str]:
        """What it was asked to tunnel to, `how host:port`: `connect`, or `socks`."""
        asked: list[str] = self._worker.ask("asked")
        return asked

    def forget(self) -> None:
        self._worker.ask("forget")

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
