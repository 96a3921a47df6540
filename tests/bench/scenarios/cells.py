"""What it costs the program's thread to count, to observe and to say what it does; beside prometheus_client's."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from harness import PATHS, Bench, Result, Row, Sample, ratio

ROUNDS = 200_000


def cost_ns(work: Callable[[int], object]) -> float:
    """CPU nanoseconds of one round, the loop around it left out."""

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            pass

    def measure(body: Callable[[int], object]) -> int:
        started = time.thread_time_ns()
        body(ROUNDS)
        return time.thread_time_ns() - started

    return (measure(work) - measure(loop)) / ROUNDS


def ours(**_: Any) -> Iterator[Sample]:
    """Our own counter, histogram and marker."""
    import iokernel

    counter, histogram = iokernel.counter("bench_count"), iokernel.histogram("bench_time")
    marker = iokernel.marker("bench")

    def mark(rounds: int) -> None:
        for _ in range(rounds):
            with marker:
                pass

    yield {}
    while True:
        yield {
            "inc": cost_ns(calling(counter.inc)),
            "observe": cost_ns(giving(histogram.observe)),
            "mark": cost_ns(mark),
        }


def calling(method: Callable[[], object]) -> Callable[[int], None]:
    def work(rounds: int) -> None:
        for _ in range(rounds):
            method()

    return work


def giving(method: Callable[[float], object]) -> Callable[[int], None]:
    def work(rounds: int) -> None:
        for _ in range(rounds):
            method(0.2)

    return work


def client() -> Iterator[Sample]:
    import prometheus_client

    counter = prometheus_client.Counter("bench_count", "Counts.")
    histogram = prometheus_client.Histogram("bench_time", "Times.")
    yield {}
    while True:
        yield {"inc": cost_ns(calling(counter.inc)), "observe": cost_ns(giving(histogram.observe))}


def plain(**_: Any) -> Iterator[Sample]:
    """prometheus_client in one process."""
    yield from client()


def multiprocess(**_: Any) -> Iterator[Sample]:
    """prometheus_client for prefork workers: a file for each."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        yield from client()


def bridged(**_: Any) -> Iterator[Sample]:
    """prometheus_client over our cells."""
    import iokernel.prometheus

    iokernel.prometheus.install()
    yield from client()


SIDES = {"ours": ours, "plain": plain, "multiprocess": multiprocess, "bridged": bridged}
WHAT = {"inc": "counter increment", "observe": "histogram observation", "mark": "marker entered and left"}


def row(what: str, mine: Result, peer: Result | None, name: str) -> Row:
    cost, theirs = mine.median(what), peer.median(what) if peer else None
    judged = ratio(theirs, cost) if peer else None
    return Row(
        f"{WHAT[what]} from Python, {name}",
        "-" if cost is None else f"{cost:.0f} ns",
        "-" if theirs is None else f"{theirs:.0f} ns",
        judged if peer else cost,
        unit="x" if peer else "ns",
        note="; ".join(filter(None, (mine.missing, peer.missing if peer else ""))),
        samples={"ours": mine.samples, "peer": peer.samples if peer else []},
    )


def rows(bench: Bench) -> list[Row]:
    names = [*(f"ours:{path}" for path in PATHS), "plain", "multiprocess", "bridged:extension"]
    found = bench.compare("cells", names)
    table = []
    for path in PATHS:
        mine = found[f"ours:{path}"]
        for what in ("inc", "observe"):
            for peer in ("plain", "multiprocess"):
                table.append(row(what, mine, found[peer], f"{path}, beside prometheus_client {peer}"))
        table.append(row("mark", mine, None, path))
    mine = found["bridged:extension"]
    for peer in ("plain", "multiprocess"):
        table.append(row("inc", mine, found[peer], f"prometheus_client's own class over cells, beside {peer}"))
    return table
