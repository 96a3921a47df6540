"""The process behind `stalling.Stalling`: one client under test, in a program that stalls."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bindings" / "python"))

from .asker import ask_once
from .hang import hang
from .wire import mark

TASKS = 12
"""Requests at a time."""
PAUSE_S = 0.004
"""For so long, between two stalls, the program does what there is to do."""

Times = dict[int, float]
Take = Callable[[Iterator[int], float], tuple[Times, int]]
Told = dict[str, Any]
Turns = Generator[Told, Told, None]
"""Ready at its first turn; then it is sent an order each time, and gives what came of it."""


async def stall_loop(
    call: Callable[[str], Awaitable[Any]], numbers: Iterator[int], stall_s: float
) -> tuple[Times, int]:
    """Tasks that ask and take the time, in a loop that stalls. Seconds by number, and how many stalls there were."""
    times: Times = {}

    async def ask() -> None:
        for number in numbers:
            started = time.perf_counter()
            await call(mark(number))
            times[number] = time.perf_counter() - started

    tasks, stalls = [asyncio.create_task(ask()) for _ in range(TASKS)], 0
    while not all(task.done() for task in tasks):
        await asyncio.sleep(PAUSE_S)
        hang(stall_s)
        stalls += 1
    await asyncio.gather(*tasks)
    return times, stalls


def stall_threads(call: Callable[[str], Any], numbers: Iterator[int], stall_s: float) -> tuple[Times, int]:
    """The same with threads, of which the main one stalls."""
    times: Times = {}

    def ask() -> None:
        for number in numbers:
            started = time.perf_counter()
            call(mark(number))
            times[number] = time.perf_counter() - started

    threads, stalls = [threading.Thread(target=ask) for _ in range(TASKS)], 0
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        time.sleep(PAUSE_S)
        hang(stall_s)
        stalls += 1
    return times, stalls


class Iokernel:
    """Beside the time around each call, what the I/O thread's own stamps say: by the slow-request log, and /metrics.

    Requests are told apart in the log by their sizes, so each is a byte longer than the one before it.
    """

    def __init__(self, address: str) -> None:
        import iokernel

        self._folder = tempfile.TemporaryDirectory()
        self._admin = os.path.join(self._folder.name, "admin")
        self._kernel = iokernel.Kernel(admin=f"unix:{self._admin}")
        self.service = self._kernel.open(f"redis://{address}", slow="1ms")
        self.service.wait_ready(5)

    def measure(self, take: Take, numbers: range, stall_s: float) -> Told:
        buckets = self._buckets()
        around, stalls = take(iter(numbers), stall_s)
        slow = ask_once(self._admin, "/slow?limit=256").json()["slow"]
        rows = sorted((row for row in slow[: len(numbers)] if row["command"] == "ECHO"), key=lambda row: row["bytes"])
        assert len({row["bytes"] for row in rows}) == len(numbers), "a request is not in the log"
        stamps = {number: row["wire_ms"] / 1000 for number, row in zip(numbers, rows, strict=True)}
        grown = {bound: count - buckets.get(bound, 0) for bound, count in self._buckets().items()}
        return {"stamps": stamps, "around": around, "stalls": stalls, "buckets": list(grown.items())}

    def padded(self, text: str, first: int) -> str:
        return text + "." * (int(text[6:-1]) - first)

    def _buckets(self) -> dict[float, int]:
        """Of `iokernel_wire_seconds`: how many took up to so many seconds."""
        text = ask_once(self._admin, "/metrics").body.decode()
        found = re.findall(r'^iokernel_wire_seconds_bucket\{.*le="([^"]+)"\} (\d+)$', text, re.MULTILINE)
        return {float(bound): int(count) for bound, count in found if bound != "+Inf"}


def iokernel_asyncio(address: str) -> Turns:
    ours = Iokernel(address)

    def take(numbers: Iterator[int], stall_s: float) -> tuple[Times, int]:
        first = next(numbers)

        async def call(text: str) -> Any:
            return await ours.service("ECHO", ours.padded(text, first))

        return runner.run(stall_loop(call, itertools.chain([first], numbers), stall_s))

    with asyncio.Runner() as runner:
        order = yield {}
        while True:
            order = yield ours.measure(take, numbers_of(order), order["stall_s"])


def iokernel_threads(address: str) -> Turns:
    ours = Iokernel(address)

    def take(numbers: Iterator[int], stall_s: float) -> tuple[Times, int]:
        first = next(numbers)
        shared = Shared(itertools.chain([first], numbers))
        return stall_threads(lambda text: ours.service.call("ECHO", ours.padded(text, first)), shared, stall_s)

    order = yield {}
    while True:
        order = yield ours.measure(take, numbers_of(order), order["stall_s"])


def redis_asyncio(address: str) -> Turns:
    import hiredis  # noqa: F401
    import redis.asyncio as redis

    host, _, port = address.partition(":")

    async def measure(order: Told) -> Told:
        # A pool of as many conns as there are tasks, all of them connected before.
        client = redis.Redis(host=host, port=int(port), max_connections=TASKS)
        await asyncio.gather(*(client.ping() for _ in range(TASKS)))
        around, stalls = await stall_loop(client.echo, iter(numbers_of(order)), order["stall_s"])
        await client.aclose()
        return {"around": around, "stalls": stalls}

    with asyncio.Runner() as runner:
        order = yield {}
        while True:
            order = yield runner.run(measure(order))


def redis_threads(address: str) -> Turns:
    import hiredis  # noqa: F401
    import redis

    host, _, port = address.partition(":")
    client = redis.Redis(host=host, port=int(port))
    client.ping()
    order = yield {}
    while True:
        around, stalls = stall_threads(client.echo, Shared(iter(numbers_of(order))), order["stall_s"])
        order = yield {"around": around, "stalls": stalls}


def aiohttp(address: str) -> Turns:
    """Its own measure is that of its TraceConfig, from the start of a request to its end."""
    import aiohttp

    async def measure(order: Told) -> Told:
        times: Times = {}
        config = aiohttp.TraceConfig()
        config.on_request_start.append(started)
        config.on_request_end.append(ended)

        async with aiohttp.ClientSession(f"http://{address}", trace_configs=[config]) as session:

            async def call(text: str) -> None:
                trace = {"number": int(text[6:-1]), "times": times}
                async with session.get(f"/{text}", trace_request_ctx=trace) as answer:
                    await answer.read()

            await asyncio.gather(*(call(mark(-number)) for number in range(TASKS)))
            times.clear()
            _, stalls = await stall_loop(call, iter(numbers_of(order)), order["stall_s"])
        return {"around": times, "stalls": stalls}

    async def started(_: Any, context: Any, __: Any) -> None:
        context.began = time.perf_counter()

    async def ended(_: Any, context: Any, __: Any) -> None:
        of = context.trace_request_ctx
        of["times"][of["number"]] = time.perf_counter() - context.began

    with asyncio.Runner() as runner:
        order = yield {}
        while True:
            order = yield runner.run(measure(order))


class Shared(Iterator[int]):
    """Numbers for many threads."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers, self._lock = numbers, threading.Lock()

    def __next__(self) -> int:
        with self._lock:
            return next(self._numbers)


def numbers_of(order: Told) -> range:
    return range(order["first"], order["first"] + order["count"])


CLIENTS: dict[str, Callable[[str], Turns]] = {
    "iokernel asyncio": iokernel_asyncio,
    "iokernel threads": iokernel_threads,
    "redis-py asyncio": redis_asyncio,
    "redis-py threads": redis_threads,
    "aiohttp": aiohttp,
}


def main() -> None:
    """The control pipe of `process.Worker`, in the main thread: here it is that stalls."""
    config = json.loads(sys.argv[1])
    client = CLIENTS[config["client"]](config["address"])
    try:
        next(client)
        say(ok="")
        for line in sys.stdin:
            say(ok=client.send(json.loads(line)))
    except Exception as error:
        say(error=f"{type(error).__name__}: {error}")


def say(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
