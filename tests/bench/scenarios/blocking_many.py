"""A blocking program with 100 GETs in flight: as 100 futures, as one batch, and as redis-py's pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from harness import PATHS, Bench, Row, Sample, timed_rate, versus

DEPTH = 100
TURNS = 200


def futures(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel

    service = iokernel.open(url)
    service.wait_ready(5)
    yield {}
    while True:
        started = time.perf_counter()
        for _ in range(TURNS):
            replies = [future.result() for future in [service("GET", "key") for _ in range(DEPTH)]]
        assert len(replies[-1]) == 100
        yield timed_rate(TURNS * DEPTH, started)


def batch(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel

    service = iokernel.open(url)
    service.wait_ready(5)
    yield {}
    while True:
        started = time.perf_counter()
        for _ in range(TURNS):
            replies = service.call(*(["GET", "key"] for _ in range(DEPTH)))
        assert len(replies[-1]) == 100
        yield timed_rate(TURNS * DEPTH, started)


def redis_py(port: int, **_: Any) -> Iterator[Sample]:
    import hiredis  # noqa: F401
    import redis

    client = redis.Redis(port=port)
    client.ping()
    yield {}
    while True:
        started = time.perf_counter()
        for _ in range(TURNS):
            pipeline = client.pipeline(transaction=False)
            for _ in range(DEPTH):
                pipeline.get("key")
            replies = pipeline.execute()
        assert len(replies[-1]) == 100
        yield timed_rate(TURNS * DEPTH, started)


SIDES = {"futures": futures, "batch": batch, "redis-py": redis_py}


def rows(bench: Bench) -> list[Row]:
    ours = [f"{side}:{path}" for side in ("futures", "batch") for path in PATHS]
    found = bench.compare("blocking_many", [*ours, "redis-py"])
    peer = found["redis-py"]
    return [
        versus(
            f"blocking, 100 in flight, {side.replace(':', ', ')}: redis-py pipeline",
            found[side],
            peer,
            must=2,
            aim=8,
            peer_name="redis-py",
        )
        for side in ours
    ]
