"""500 asyncio tasks that SET and GET values of 100 bytes at the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from harness import PATHS, VALUE_BYTES, Bench, Row, Sample, timed_rate, versus

TASKS = 500
VALUE = b"x" * VALUE_BYTES
# So many pairs of SET and GET that each side takes about half a second.
PAIRS = {"iokernel": 80, "floor": 120, "redis-py": 6, "glide": 15, "coredis": 5}


async def crowd(one: Callable[[int], Awaitable[None]], operations: int) -> Sample:
    """All tasks at once. They are made before the clock starts."""
    gate = asyncio.Event()

    async def task(number: int) -> None:
        await gate.wait()
        await one(number)

    tasks = [asyncio.create_task(task(number)) for number in range(TASKS)]
    await asyncio.sleep(0)
    started = time.perf_counter()
    gate.set()
    await asyncio.gather(*tasks)
    return timed_rate(operations, started)


def iokernel(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel

    pairs = PAIRS["iokernel"]
    service = iokernel.open(url)
    service.wait_ready(5)

    async def one(number: int) -> None:
        key = f"key:{number}"
        for _ in range(pairs):
            await service("SET", key, VALUE)
            if await service("GET", key) != VALUE:
                raise AssertionError(key)

    with asyncio.Runner() as runner:
        yield {}
        while True:
            yield runner.run(crowd(one, TASKS * pairs * 2))


def floor(**_: Any) -> Iterator[Sample]:
    """What asyncio itself costs: futures that the loop completes, all of a turn by one call."""
    pairs = PAIRS["floor"]
    waiting: list[asyncio.Future[bytes]] = []

    def complete() -> None:
        due = waiting.copy()
        waiting.clear()
        for future in due:
            future.set_result(VALUE)

    async def one(_: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(pairs * 2):
            future = loop.create_future()
            if not waiting:
                loop.call_soon(complete)
            waiting.append(future)
            await future

    with asyncio.Runner() as runner:
        yield {}
        while True:
            yield runner.run(crowd(one, TASKS * pairs * 2))


def pairs_of(client: Any, pairs: int) -> Callable[[int], Awaitable[None]]:
    """For the clients that have methods `set` and `get`."""

    async def one(number: int) -> None:
        key = f"key:{number}"
        for _ in range(pairs):
            await client.set(key, VALUE)
            if await client.get(key) != VALUE:
                raise AssertionError(key)

    return one


def redis_py(port: int, **_: Any) -> Iterator[Sample]:
    """A pool of as many connections as there are tasks, as it needs to have all of them ask at once."""
    import hiredis  # noqa: F401
    import redis.asyncio as redis

    pairs = PAIRS["redis-py"]
    with asyncio.Runner() as runner:
        one = pairs_of(redis.Redis(host="127.0.0.1", port=port, max_connections=TASKS), pairs)
        yield {}
        while True:
            yield runner.run(crowd(one, TASKS * pairs * 2))


def glide(port: int, **_: Any) -> Iterator[Sample]:
    from glide import GlideClient, GlideClientConfiguration, NodeAddress

    pairs = PAIRS["glide"]
    with asyncio.Runner() as runner:
        config = GlideClientConfiguration([NodeAddress("127.0.0.1", port)], request_timeout=10_000)
        one = pairs_of(runner.run(GlideClient.create(config)), pairs)
        yield {}
        while True:
            yield runner.run(crowd(one, TASKS * pairs * 2))


def coredis(port: int, **_: Any) -> Iterator[Sample]:
    import coredis

    pairs = PAIRS["coredis"]

    async def measure() -> Sample:
        async with coredis.Redis(host="127.0.0.1", port=port, max_connections=1) as client:
            await client.ping()
            return await crowd(pairs_of(client, pairs), TASKS * pairs * 2)

    with asyncio.Runner() as runner:
        yield {}
        while True:
            yield runner.run(measure())


SIDES = {"iokernel": iokernel, "floor": floor, "redis-py": redis_py, "glide": glide, "coredis": coredis}


def rows(bench: Bench) -> list[Row]:
    sides = {path: f"iokernel:{path}" for path in PATHS}
    found = bench.compare("asyncio_tasks", [*sides.values(), "floor", "redis-py", "glide", "coredis"])
    made = []
    for path, side in sides.items():
        ours, what = found[side], f"asyncio, 500 tasks, {path}"
        peer = found["redis-py"]
        made.append(versus(f"{what}: redis-py + hiredis, 500 conns", ours, peer, must=12, aim=25, peer_name="redis-py"))
        made.append(versus(f"{what}: valkey-glide", ours, found["glide"], must=4, aim=8, peer_name="glide"))
        made.append(versus(f"{what}: coredis, one conn", ours, found["coredis"], must=12, aim=30, peer_name="coredis"))
        floor = versus(f"{what}: bare futures, no I/O", ours, found["floor"], must=50, aim=90, peer_name="floor")
        floor.judged, floor.unit = floor.judged and floor.judged * 100, "%"
        made.append(floor)
    return made
