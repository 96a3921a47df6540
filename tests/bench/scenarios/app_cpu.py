"""CPU time of the program's own thread for each message, submitted and completed, with 256 of them outstanding."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from harness import PATHS, Bench, Result, Row, Sample, run_program

OUTSTANDING = 256
TURNS = 200


def gets(url: str, **_: Any) -> Iterator[Sample]:
    """GETs of a blocking program, as futures. What it spins before it sleeps counts too."""
    import iokernel

    service = iokernel.open(url)
    service.wait_ready(5)
    yield {}
    while True:
        started = time.thread_time_ns()
        for _ in range(TURNS):
            for future in [service("GET", "key") for _ in range(OUTSTANDING)]:
                future.result()
        yield {"cpu_ns": (time.thread_time_ns() - started) / (TURNS * OUTSTANDING)}


def tasks(url: str, **_: Any) -> Iterator[Sample]:
    """GETs inside of an asyncio loop: futures included, tasks not."""
    import asyncio

    import iokernel

    service = iokernel.open(url)
    service.wait_ready(5)

    async def measure() -> Sample:
        started = time.thread_time_ns()
        for _ in range(TURNS):
            waiting = [service("GET", "key") for _ in range(OUTSTANDING)]
            for future in waiting:
                await future
        return {"cpu_ns": (time.thread_time_ns() - started) / (TURNS * OUTSTANDING)}

    with asyncio.Runner() as runner:
        yield {}
        while True:
            yield runner.run(measure())


SIDES = {"gets": gets, "tasks": tasks}


def row(what: str, found: Result, must: float | None, aim: float | None) -> Row:
    cost = found.median("cpu_ns")
    ours = "-" if cost is None else f"{cost:.0f} ns"
    return Row(
        f"program's CPU per message, 256 outstanding, {what}",
        ours,
        "-",
        cost,
        "ns",
        must,
        aim,
        at_least=False,
        note=found.missing,
        samples={"ours": found.samples},
    )


def rows(bench: Bench) -> list[Row]:
    found = bench.compare("app_cpu", [f"{side}:{path}" for side in SIDES for path in PATHS])
    core = bench.program("core")
    c = Result([{"cpu_ns": run_program([core, "noop"])["noop_256_app_cpu"]} for _ in range(bench.runs)])
    return [
        *(row(f"Python GET, {path}", found[f"gets:{path}"], 800, 300) for path in PATHS),
        *(row(f"Python asyncio GET, {path}", found[f"tasks:{path}"], None, None) for path in PATHS),
        row("C echo", c, 60, 40),
    ]
