"""A small HTTP/1.1 server in a process of its own: the reply to `GET /text` is the text."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from . import worker


class Conn(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport, self._buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            text = head.split(b" ", 2)[1][1:]
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))


def refuse(order: dict[str, Any]) -> None:
    raise ValueError(f"unknown order {order['do']!r}")


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Conn, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await worker.obey(lambda: f"127.0.0.1:{port}", refuse)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
