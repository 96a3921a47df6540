"""A blocking program with one GET in flight, in every placement, with values of three sizes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from harness import PATHS, Bench, Result, Row, Sample, placements, ratio, span

SIZES = {"100 B": (100, 1500), "16 KiB": (16 << 10, 600), "64 KiB": (64 << 10, 300)}


def p50s(get: Callable[[str], Any]) -> Sample:
    found = {}
    for name, (size, count) in SIZES.items():
        times = []
        for _ in range(count):
            started = time.perf_counter()
            value = get(name)
            times.append(time.perf_counter() - started)
        assert len(value) == size
        found[name] = statistics.median(times)
    return found


def iokernel(url: str, **_: Any) -> Iterator[Sample]:
    import iokernel

    service = iokernel.open(url)
    service.wait_ready(5)
    for name, (size, _count) in SIZES.items():
        service.call("SET", name, b"x" * size)
    yield {}
    while True:
        yield p50s(lambda name: service.call("GET", name))


def redis_py(port: int, **_: Any) -> Iterator[Sample]:
    import hiredis  # noqa: F401
    import redis

    client = redis.Redis(port=port)
    for name, (size, _count) in SIZES.items():
        client.set(name, b"x" * size)
    yield {}
    while True:
        yield p50s(client.get)


SIDES = {"iokernel": iokernel, "redis-py": redis_py}


def rows(bench: Bench) -> list[Row]:
    made = []
    for placement in placements():
        found = bench.compare("blocking_one", [*(f"iokernel:{path}" for path in PATHS), "redis-py"], placement)
        for path in PATHS:
            for size in SIZES if path == PATHS[0] else ["100 B"]:
                made.append(
                    row(f"{size}, {placement.name}, {path}", size, found[f"iokernel:{path}"], found["redis-py"])
                )
    return sorted(made, key=lambda row: [f" {size}," in row.budget for size in SIZES], reverse=True)


def row(what: str, size: str, ours: Result, peer: Result) -> Row:
    mine, theirs = ours.median(size), peer.median(size)
    return Row(
        f"blocking, one in flight, {what}: p50",
        span(mine),
        f"{span(theirs)} redis-py",
        ratio(mine, theirs),
        must=1.2,
        aim=0.6 if size == "100 B" else 0.9,
        at_least=False,
        note="; ".join(filter(None, (ours.missing, peer.missing))),
        samples={"ours": ours.samples, "peer": peer.samples},
    )
