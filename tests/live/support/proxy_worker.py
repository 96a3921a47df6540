"""The process behind `proxy.Proxy`, which documents the rules."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import worker


@dataclass
class Rules:
    delay_ms: float = 0
    jitter_ms: float = 0
    split: int = 0
    chop: int = 0
    gap_ms: float = 0
    coalesce_ms: float = 0
    corrupt_at: int = -1
    cut_at: int = -1
    cut_how: str = "close"
    hold: bool = False


@dataclass
class Direction:
    """The rules of one direction of all conns, and what passed."""

    rules: Rules = field(default_factory=Rules)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    bytes: int = 0
    writes: int = 0

    def set(self, rules: dict[str, Any]) -> None:
        self.rules = Rules(**rules)
        self.changed.set()
        self.changed = asyncio.Event()

    async def passable(self) -> None:
        while self.rules.hold:
            await self.changed.wait()


class End(Exception):
    """This conn ends, on both sides, as `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Pump:
    """Moves one direction of one conn."""

    def __init__(self, source: socket.socket, sink: socket.socket, direction: Direction, dice: random.Random) -> None:
        self._source, self._sink, self._direction, self._dice = source, sink, direction, dice
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)
        self._offset = 0
        self._silenced = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read())
            tasks.create_task(self._write())

    async def _read(self) -> None:
        """Reading goes on while earlier pieces wait for their time: a delay is no bandwidth limit."""
        loop = asyncio.get_running_loop()
        data = b"-"
        while data:
            await self._direction.passable()
            try:
                data = await loop.sock_recv(self._source, 65536)
            except ConnectionResetError:
                raise End("reset") from None
            await self._queue.put((loop.time() + self._direction.rules.delay_ms / 1000 + self._jitter(), data))

    def _jitter(self) -> float:
        return self._direction.rules.jitter_ms * self._dice.random() / 1000

    async def _write(self) -> None:
        while True:
            due, data = await self._queue.get()
            await asyncio.sleep(due - asyncio.get_running_loop().time())
            data, ended = await self._gather(data)
            for number, piece in enumerate(self._pieces(data)):
                if number:
                    await asyncio.sleep(self._direction.rules.gap_ms / 1000 + self._jitter())
                await self._forward(piece)
            if ended:
                await self._direction.passable()
                return worker.half_close(self._sink)

    async def _gather(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes to write next, and whether the stream ends after them."""
        ended = not data
        if (wait_ms := self._direction.rules.coalesce_ms) and not ended:
            await asyncio.sleep(wait_ms / 1000)
            while not ended and not self._queue.empty():
                _, more = self._queue.get_nowait()
                data, ended = data + more, not more
        return data, ended

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        while data:
            rules = self._direction.rules
            size = rules.split or (self._dice.randint(1, rules.chop) if rules.chop else len(data))
            yield data[:size]
            data = data[size:]

    async def _forward(self, piece: bytes) -> None:
        await self._direction.passable()
        rules = self._direction.rules
        start, end = self._offset, self._offset + len(piece)
        if start <= rules.corrupt_at < end:
            at = rules.corrupt_at - start
            piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
        if 0 <= rules.cut_at < end:
            await self._send(piece[: max(rules.cut_at - start, 0)])
            self._cut(rules.cut_how)
        else:
            await self._send(piece)

    def _cut(self, how: str) -> None:
        if how == "half":
            worker.half_close(self._sink)
        if how in ("half", "silence"):
            self._silenced = True
        else:
            raise End(how)

    async def _send(self, piece: bytes) -> None:
        self._offset += len(piece)
        if not piece or self._silenced:
            return
        try:
            await asyncio.get_running_loop().sock_sendall(self._sink, piece)
        except (ConnectionResetError, BrokenPipeError):
            raise End("reset") from None
        self._direction.bytes += len(piece)
        self._direction.writes += 1


@dataclass(eq=False)
class Conn:
    client: socket.socket
    server: socket.socket | None = None
    task: asyncio.Task[None] | None = None
    how: str = "close"

    def end(self, how: str) -> None:
        self.how = how
        if self.task:
            self.task.cancel()

    def half_close(self, side: str) -> None:
        conn = {"client": self.client, "server": self.server}[side]
        if conn:
            worker.half_close(conn)

    def finish(self) -> None:
        for conn in (self.client, self.server):
            if conn:
                worker.finish(conn, self.how)


class ProxyWorker:
    def __init__(self, upstream: str, listen: str, seed: int) -> None:
        self._upstream = upstream
        self._listener = worker.Listener(listen, self._serve)
        self._dice = random.Random(seed)
        self._directions = {"to_server": Direction(), "to_client": Direction()}
        self._mode = "forward"
        self._conns: set[Conn] = set()
        self._accepted = self._failed = 0

    def start(self) -> str:
        self._listener.start()
        return self._listener.address

    def handle(self, order: dict[str, Any]) -> Any:
        match order.pop("do"):
            case "rules":
                return self._directions[order["direction"]].set(order["rules"])
            case "mode":
                self._mode = order["mode"]
            case "listen":
                return self._listener.start() if order["on"] else self._listener.stop()
            case "upstream":
                self._upstream = order["address"]
            case "end":
                for conn in self._conns:
                    conn.end(order["how"])
            case "half_close":
                for conn in self._conns:
                    conn.half_close(order["side"])
            case "stats":
                return self._stats()
            case unknown:
                raise ValueError(f"unknown order {unknown!r}")
        return None

    def _stats(self) -> dict[str, int]:
        counts = {"accepted": self._accepted, "open": len(self._conns), "failed": self._failed}
        for name, direction in self._directions.items():
            counts |= {f"bytes_{name}": direction.bytes, f"writes_{name}": direction.writes}
        return counts

    async def _serve(self, client: socket.socket) -> None:
        self._accepted += 1
        worker.no_delay(client)
        conn = Conn(client, task=asyncio.current_task())
        self._conns.add(conn)
        try:
            await self._speak(conn)
        except* End as ends:
            conn.how = first(ends).how
        except* OSError:
            conn.how = "reset"
        finally:
            self._conns.discard(conn)
            conn.finish()

    async def _speak(self, conn: Conn) -> None:
        match self._mode:
            case "forward":
                await self._forward(conn)
            case "silent":
                await worker.be_silent(conn.client)
            case "http":
                await worker.speak_http(conn.client)

    async def _forward(self, conn: Conn) -> None:
        try:
            conn.server = server = await worker.connected(self._upstream)
        except OSError:
            self._failed += 1
            raise
        worker.no_delay(server)
        to_server, to_client = self._directions["to_server"], self._directions["to_client"]
        async with asyncio.TaskGroup() as pumps:
            pumps.create_task(Pump(conn.client, server, to_server, self._dice).run())
            pumps.create_task(Pump(server, conn.client, to_client, self._dice).run())


def first(group: BaseExceptionGroup[End]) -> End:
    error = group.exceptions[0]
    return first(error) if isinstance(error, BaseExceptionGroup) else error


async def main() -> None:
    made = ProxyWorker(**json.loads(sys.argv[1]))
    await worker.obey(made.start, made.handle)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
