"""The process behind `http_script.HttpScript`, which documents the script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import sys
from base64 import b64decode, b64encode
from typing import Any

from . import worker
from .worker_reader import Ended, Reader

Turns = list[list[dict[str, Any]]]


class Requests(Reader):
    """Reads HTTP/1.1 requests."""

    async def head(self) -> tuple[str, str, list[tuple[str, str]]]:
        lines = (await self._line(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ")
        pairs = (line.partition(":") for line in lines[1:])
        return method, target, [(name, value.strip()) for name, _, value in pairs]

    async def some(self) -> None:
        """Waits for the first byte of what comes next."""
        if not self._buffer:
            await self._more()

    async def body(self, headers: list[tuple[str, str]]) -> bytes:
        given = {name.lower(): value for name, value in headers}
        if "chunked" in given.get("transfer-encoding", ""):
            return await self._chunks()
        return await self._take(int(given.get("content-length", 0)))

    async def echo(self) -> None:
        """Sends back what comes, until its end."""
        loop = asyncio.get_running_loop()
        while True:
            await loop.sock_sendall(self._conn, bytes(self._buffer))
            self._buffer.clear()
            await self._more_or_end()
            if not self._buffer:
                return

    async def _more_or_end(self) -> None:
        with contextlib.suppress(Ended):
            await self._more()

    async def _chunks(self) -> bytes:
        whole = bytearray()
        while size := int((await self._line()).partition(b";")[0], 16):
            whole += await self._take(size)
            await self._line()
        while await self._line():
            pass
        return bytes(whole)


class Script:
    def __init__(self, listen: str, idle_ms: float) -> None:
        self._idle_ms = idle_ms
        self._answers: dict[str, Turns] = {}
        self._listener = worker.Listener(listen, self._serve)
        self._asked: list[dict[str, Any]] = []
        self._conns = self._open = 0

    def start(self) -> str:
        self._listener.start()
        return self._listener.address

    def handle(self, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "answers":
                self._answers = order["answers"]
            case "asked":
                return self._asked
            case "conns":
                return self._conns
            case "open":
                return self._open
            case "forget":
                self._asked, self._conns = [], 0
            case unknown:
                raise ValueError(f"unknown order {unknown!r}")
        return None

    async def _serve(self, conn: socket.socket) -> None:
        self._conns += 1
        self._open += 1
        number = self._conns
        if conn.family != socket.AF_UNIX:
            worker.no_delay(conn)
        how = "close"
        try:
            reader = Requests(conn)
            while not (how := await self._one(conn, reader, number)):
                pass
        except (TimeoutError, Ended, OSError, ValueError):
            how = "close"
        finally:
            self._open -= 1
            worker.finish(conn, how)

    async def _one(self, conn: socket.socket, reader: Requests, number: int) -> str:
        """One request and its answer; how the conn ends, if it does."""
        if self._idle_ms:
            # As near to the moment in which a client may ask again as can be, before and after it.
            await asyncio.wait_for(reader.some(), (self._idle_ms + random.uniform(-1, 1)) / 1000)
        method, target, headers = await reader.head()
        asked = {"method": method, "target": target, "headers": headers, "body": "", "conn": number}
        path = target.partition("?")[0]
        if not path.startswith("/unread"):
            asked["body"] = b64encode(await reader.body(headers)).decode()
        self._asked.append(asked)
        turns = self._answers.get(path)
        loop = asyncio.get_running_loop()
        if turns is None:
            await loop.sock_sendall(conn, echo(asked, method))
        for say in (turns.pop(0) if len(turns) > 1 else turns[0]) if turns else ():
            await asyncio.sleep(say["wait_ms"] / 1000)
            said = b64decode(say["bytes"])
            await loop.sock_sendall(conn, said.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else said)
            if say["then"] == "echo":
                await reader.echo()
                return "close"
            if say["then"]:
                return str(say["then"])
        closes = any(name.lower() == "connection" and "close" in value.lower() for name, value in headers)
        return "close" if closes else ""


def echo(asked: dict[str, Any], method: str) -> bytes:
    body = json.dumps(asked).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    return head if method == "HEAD" else head + body


async def main() -> None:
    made = Script(**json.loads(sys.argv[1]))
    await worker.obey(made.start, made.handle)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
