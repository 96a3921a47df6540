"""The same program with another Python thread computing: whoever gives the GIL up for a moment waits for it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from harness import PATHS, Bench, Row, Sample, ratio, span

DEPTH = 256
SECONDS = 0.4


@contextmanager
def computing() -> Iterator[None]:
    """A thread that only computes, for as long as this lasts."""
    stop = threading.Event()

    def compute() -> None:
        number = 0
        while not stop.is_set():
            for _ in range(1000):
                number += 1

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def each(turn: Callable[[], int]) -> float:
    """Seconds per message of turns repeated for a while."""
    started, messages = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        messages += turn()
    return (time.perf_counter() - started) / messages


def both(turn: Callable[[], int]) -> Sample:
    quiet = each(turn)
    with computing():
        busy = each(turn)
    return {"quiet": quiet, "busy": busy}


def blocking(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel

    service = iokernel.open(url)
    service.wait_ready(5)

    def turn() -> int:
        for future in [service("GET", "key") for _ in range(DEPTH)]:
            future.result()
        return DEPTH

    yield {}
    while True:
        yield both(turn)


def tasks(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel

    service = iokernel.open(url)
    service.wait_ready(5)

    async def one() -> None:
        for _ in range(4):
            await service("GET", "key")

    async def crowd() -> None:
        await asyncio.gather(*(one() for _ in range(500)))

    with asyncio.Runner() as runner:

        def turn() -> int:
            runner.run(crowd())
            return 2000

        yield {}
        while True:
            yield both(turn)


def pipeline(port: int, **_: Any) -> Iterator[Sample]:
    import hiredis  # noqa: F401
    import redis

    client = redis.Redis(port=port)

    def turn() -> int:
        pipe = client.pipeline(transaction=False)
        for _ in range(DEPTH):
            pipe.get("key")
        return len(pipe.execute())

    yield {}
    while True:
        yield both(turn)


SIDES = {"blocking": blocking, "tasks": tasks, "redis-py": pipeline}


def rows(bench: Bench) -> list[Row]:
    ours = [f"{side}:{path}" for side in ("blocking", "tasks") for path in PATHS]
    found = bench.compare("beside_computing", [*ours, "redis-py"])
    peer = found["redis-py"]
    theirs = ratio(peer.median("busy"), peer.median("quiet"))
    made = []
    for side in ours:
        what = side.replace("blocking:", f"{DEPTH} futures, ").replace("tasks:", "500 tasks, ")
        quiet, busy = found[side].median("quiet"), found[side].median("busy")
        made.append(
            Row(
                f"another thread computing, {what}: per message, against quiet",
                f"{span(busy)} / {span(quiet)}",
                f"{theirs:.1f}x redis-py pipeline" if theirs else peer.missing,
                ratio(busy, quiet),
                must=10,
                aim=5,
                at_least=False,
                note=found[side].missing,
                samples={"ours": found[side].samples, "peer": peer.samples},
            )
        )
    return made
