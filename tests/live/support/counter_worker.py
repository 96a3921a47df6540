"""The process behind `counter.Counter`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter, deque
from typing import Any

from . import worker

Handle = asyncio.TimerHandle


class Server:
    def __init__(self, delay_ms: float, idle_ms: float, jitter_ms: float) -> None:
        self.delay = delay_ms / 1000
        self.idle, self.jitter = idle_ms / 1000, jitter_ms / 1000
        self._listening = worker.listening_socket("127.0.0.1:0")
        self._task: asyncio.Task[asyncio.Server] | None = None
        self.forget()

    def forget(self) -> None:
        self.executed: Counter[str] = Counter()
        self.arrived: list[float] = []
        self.inflight = self.inflight_max = 0
        self.conns = self.hung_up = 0

    def start(self) -> str:
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(loop.create_server(lambda: Conn(self), sock=self._listening))
        return worker.name_of(self._listening, "127.0.0.1:0")

    def handle(self, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "slow":
                self.delay = order["delay_ms"] / 1000
                return None
            case "forget":
                return self.forget()
            case "seen":
                return {
                    "executed": self.executed,
                    "arrived": self.arrived,
                    "inflight_max": self.inflight_max,
                    "conns": self.conns,
                    "hung_up": self.hung_up,
                }
            case unknown:
                raise ValueError(f"unknown order {unknown!r}")


class Conn(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._answers: deque[Handle] = deque()
        self._idle: Handle | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        worker.no_delay(transport.get_extra_info("socket"))
        self._server.conns += 1
        self._rest()

    def connection_lost(self, _: Exception | None) -> None:
        if self._idle:
            self._idle.cancel()
        for answer in self._answers:
            answer.cancel()
            self._server.inflight -= 1
        self._answers.clear()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (command := self._command()) is not None:
            self._execute(command)
        self._rest()

    def _command(self) -> list[bytes] | None:
        """The next whole command: an array of bulk strings."""
        lines = self._buffer.split(b"\r\n")
        count = int(lines[0][1:]) if len(lines) > 1 else 0
        if len(lines) <= 2 * count + 1 or not count:
            return None
        # No argument here holds a line end.
        self._buffer = b"\r\n".join(lines[2 * count + 1 :])
        return lines[2 : 2 * count + 1 : 2]

    def _execute(self, command: list[bytes]) -> None:
        server, name = self._server, command[0].upper()
        if name == b"INCRBY":
            key = command[1].decode()
            server.arrived.append(time.monotonic())
            server.executed[key] += 1
            server.inflight += 1
            server.inflight_max = max(server.inflight_max, server.inflight)
            # The loop keeps the order of equal times only by chance: an answer is never due before the one ahead.
            due = self._loop.time() + server.delay
            if self._answers:
                due = max(due, self._answers[-1].when() + 1e-6)
            self._answers.append(self._loop.call_at(due, self._answer, b":%d\r\n" % server.executed[key]))
        elif name == b"HELLO":
            self._transport.write(b"-NOPROTO unsupported protocol version\r\n")
        else:
            self._transport.write(b"+PONG\r\n" if name == b"PING" else b"+OK\r\n")

    def _answer(self, reply: bytes) -> None:
        self._answers.popleft()
        self._server.inflight -= 1
        self._transport.write(reply)

    def _rest(self) -> None:
        """It was heard from: the time until we hang up begins anew."""
        server = self._server
        if self._idle:
            self._idle.cancel()
        if server.idle:
            span = server.idle + random.uniform(-server.jitter, server.jitter)
            self._idle = self._loop.call_later(span, self._hang_up)

    def _hang_up(self) -> None:
        self._server.hung_up += 1
        self._transport.close()


async def main() -> None:
    made = Server(**json.loads(sys.argv[1]))
    await worker.obey(made.start, made.handle)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
