"""The process behind `tunnels.Tunnels`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from base64 import b64encode
from typing import Any

from . import worker


class Refused(Exception):
    """The client is not let through."""


class TunnelsWorker:
    def __init__(self, names: dict[str, str], user: str, password: str) -> None:
        self._names, self._user, self._password = names, user, password
        self._asked: list[str] = []

    def handle(self, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "asked":
                return self._asked
            case "forget":
                self._asked = []
                return None
            case unknown:
                raise ValueError(f"unknown order {unknown!r}")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.readexactly(1)
            host, port = await (self._socks if first == b"\x05" else self._connect)(reader, writer)
            there, back = await asyncio.open_connection(self._names.get(host, host), port)
            writer.write(b"\x05\x00\x00\x01" + bytes(6) if first == b"\x05" else b"HTTP/1.1 200 Go on\r\n\r\n")
            await asyncio.gather(pump(reader, back), pump(there, writer))
        except (Refused, OSError, asyncio.IncompleteReadError, ValueError, asyncio.CancelledError):
            pass  # Also when the process ends.
        finally:
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        target = head.split(" ")[1]
        self._asked.append(f"connect {target}")
        wanted = b64encode(f"{self._user}:{self._password}".encode()).decode()
        if self._user and f"basic {wanted}".lower() not in head.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            raise Refused
        host, _, port = target.rpartition(":")
        return host.strip("[]"), int(port)

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
        methods = await reader.readexactly((await reader.readexactly(1))[0])
        method = 2 if self._user else 0
        if method not in methods:
            writer.write(b"\x05\xff")
            raise Refused
        writer.write(bytes([5, method]))
        if self._user:
            await reader.readexactly(1)
            words = [await reader.readexactly((await reader.readexactly(1))[0]) for _ in range(2)]
            known = words == [self._user.encode(), self._password.encode()]
            writer.write(bytes([1, not known]))
            if not known:
                raise Refused
        kind = (await reader.readexactly(4))[3]
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, await reader.readexactly(size))
        port: int = struct.unpack("!H", await reader.readexactly(2))[0]
        self._asked.append(f"socks {host}:{port}")
        return host, port


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def main() -> None:
    made = TunnelsWorker(**json.loads(sys.argv[1]))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await worker.obey(lambda: f"127.0.0.1:{port}", made.handle)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
