"""What workers that are servers read from their clients."""

from __future__ import annotations

import asyncio
import socket


class Ended(Exception):
    """The client ended its stream."""


class Reader:
    """Bytes of one client, in pieces as they are wanted. Raises Ended at the end."""

    def __init__(self, conn: socket.socket) -> None:
        self._conn = conn
        self._buffer = bytearray()

    async def _line(self, end: bytes = b"\r\n") -> bytes:
        """Up to `end`, which is left out."""
        while (at := self._buffer.find(end)) < 0:
            await self._more()
        return (await self._take(at + len(end)))[: -len(end)]

    async def _take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            await self._more()
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken

    async def _more(self) -> None:
        data = await asyncio.get_running_loop().sock_recv(self._conn, 1 << 18)
        if not data:
            raise Ended
        self._buffer += data
