"""The process behind `wire.Wire`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import socket
import sys
import time
from typing import Any

from . import timestamps, worker
from .wire import DELAY_MS

MARK = re.compile(rb"truth-(\d+);")
TAIL_BYTES = 32


Times = dict[int, int]
"""When each mark passed, in one direction: nanoseconds since 1970."""


class Marks:
    """Finds the marks in a stream that comes in pieces."""

    def __init__(self) -> None:
        self._tail = b""

    def note(self, times: Times, data: bytes, at_ns: int) -> None:
        """A mark passes with the piece that its end is in."""
        text, seen = self._tail + data, len(self._tail)
        times.update({int(found[1]): at_ns for found in MARK.finditer(text) if found.end() > seen})
        self._tail = text[-TAIL_BYTES:]


class WireWorker:
    def __init__(self, upstream: str, seed: int) -> None:
        self._upstream = upstream
        self._dice = random.Random(seed)
        self._listener = worker.Listener("127.0.0.1:0", self._serve)
        self._asked: Times = {}
        self._answered: Times = {}

    def start(self) -> str:
        self._listener.start()
        return self._listener.address

    def handle(self, order: dict[str, Any]) -> Any:
        if order["do"] != "seen":
            raise ValueError(f"unknown order {order['do']!r}")
        asked, answered = self._asked, self._answered
        self._asked, self._answered = {}, {}
        return {number: (at_ns - asked[number]) / 1e9 for number, at_ns in answered.items()}

    async def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            worker.no_delay(client)
            timestamps.stamp_all(client)
            with await worker.connected(self._upstream) as server:
                worker.no_delay(server)
                pumps = [asyncio.ensure_future(pump(client, server)) for pump in (self._requests, self._replies)]
                try:
                    await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for pump in pumps:
                        pump.cancel()

    async def _requests(self, client: socket.socket, server: socket.socket) -> None:
        data, marks = b"-", Marks()
        while data:
            data, at_ns = await arrived(client)
            marks.note(self._asked, data, at_ns or time.time_ns())
            await asyncio.get_running_loop().sock_sendall(server, data)

    async def _replies(self, client: socket.socket, server: socket.socket) -> None:
        """Each is held back on its own: what comes behind it is read meanwhile, and overtakes nothing."""
        loop = asyncio.get_running_loop()
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        giving = asyncio.ensure_future(self._give(client, held))
        try:
            while data := await loop.sock_recv(server, 1 << 16):
                held.put_nowait((loop.time() + self._dice.uniform(*DELAY_MS) / 1000, data))
        finally:
            giving.cancel()

    async def _give(self, client: socket.socket, held: asyncio.Queue[tuple[float, bytes]]) -> None:
        loop, marks = asyncio.get_running_loop(), Marks()
        while True:
            due, data = await held.get()
            await asyncio.sleep(due - loop.time())
            before_ns = time.time_ns()
            await loop.sock_sendall(client, data)
            # Without a packet's own stamp, what is known is that it left no sooner.
            marks.note(self._answered, data, timestamps.sent(client) or before_ns)


async def arrived(conn: socket.socket) -> tuple[bytes, int]:
    """The next bytes of a non-blocking socket, and when they came; 0 if the system does not tell."""
    while True:
        try:
            return timestamps.received(conn)
        except BlockingIOError:
            await readable(conn)


async def readable(conn: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_reader(conn, came.set)
    try:
        await came.wait()
    finally:
        loop.remove_reader(conn)


async def main() -> None:
    made = WireWorker(**json.loads(sys.argv[1]))
    await worker.obey(made.start, made.handle)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
