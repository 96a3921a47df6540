"""The ring and the I/O thread from C: round trips, no-ops, GETs, memory, timers, and latency seen while stalling."""

from __future__ import annotations

import asyncio
import csv
import io
import random
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from harness import Bench, Result, Row, Sample, Unavailable, rate, ratio, run_program, span, versus


def ring(bench: Bench) -> list[Row]:
    core = bench.program("core")
    found = Result([run_program([core, "ring"]) for _ in range(bench.runs)])
    mine, bare = found.median("ring_round_trip"), found.median("eventfd_round_trip")
    return [
        Row(
            "ring round trip in C, idle: a bare eventfd ping-pong",
            span(mine and mine / 1e9),
            f"{span(bare and bare / 1e9)} eventfd",
            ratio(mine, bare),
            must=1.3,
            aim=1.0,
            at_least=False,
            samples={"ours": found.samples},
        )
    ]


def noop(bench: Bench) -> list[Row]:
    core = bench.program("core")
    found = Result([run_program([core, "noop"]) for _ in range(bench.runs)])
    speed = found.median("noop_1024")
    millions = speed / 1e6 if speed else None
    return [
        Row("1,024 outstanding no-ops in C", rate(speed), "-", millions, "M/s", 10, 25, samples={"ours": found.samples})
    ]


def redis_benchmark(port: int) -> Sample:
    """Its best figure for the same requests: GET of one key, 100 at once, one connection."""
    path = shutil.which("redis-benchmark")
    if path is None:
        raise Unavailable("redis-benchmark is not installed (Debian: redis-tools)")
    command = [path, "-p", str(port), "-c", "1", "-P", "100", "-n", "500000", "--csv", "GET", "key"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {"rate": float(next(csv.DictReader(io.StringIO(output)))["rps"])}


def get_depth(bench: Bench) -> list[Row]:
    core = bench.program("core")
    ours, benchmark, hiredis = Result(), Result(), Result()
    try:
        program = bench.program("hiredis", "-lhiredis")
    except Unavailable as why:
        hiredis.missing = f"libhiredis-dev is not installed ({why})"
    with bench.server() as server:
        for _ in range(bench.runs):
            sample = run_program([core, "get", server.url])
            ours.samples.append({"rate": sample["get_100"], "cpu_ns": sample["get_100_app_cpu"]})
            try:
                benchmark.samples.append(redis_benchmark(server.port))
            except Unavailable as why:
                benchmark.missing = str(why)
            if not hiredis.missing:
                sample = run_program([program, "127.0.0.1", str(server.port)])
                hiredis.samples.append({"rate": sample["get_100"], "cpu_ns": sample["get_100_app_cpu"]})
    name = "redis-benchmark"
    return [
        versus("GET, depth 100 in C: redis-benchmark -P 100", ours, benchmark, must=0.7, aim=1.0, peer_name=name),
        versus("GET, depth 100 in C: hiredis pipelining", ours, hiredis, peer_name="hiredis"),
    ]


def memory(bench: Bench) -> list[Row]:
    core = bench.program("core")
    with bench.server() as server:
        found = Result([run_program([core, "memory", server.url]) for _ in range(3)])
    rss, pss = found.median("memory_rss"), found.median("memory_pss")
    assert rss is not None and pss is not None
    return [
        Row(
            "memory added by an idle kernel with one endpoint",
            f"{rss / 1024:.2f} MiB RSS",
            "-",
            rss / 1024,
            "MiB",
            6,
            3,
            at_least=False,
            note=f"PSS {pss / 1024:.2f} MiB",
            samples={"ours": found.samples},
        )
    ]


def timers(bench: Bench) -> list[Row]:
    """Pending are requests to a peer that accepts and never says a word."""
    core = bench.program("core")
    silent = socket.create_server(("127.0.0.1", 0))
    options = "max_queue=200000&max_inflight=200000&max_silence=600s&connect_timeout=600s"
    url = f"redis://127.0.0.1:{silent.getsockname()[1]}?{options}"
    with closing(silent), bench.server() as server:
        found = Result([run_program([core, "deadlines", server.url, url], 3) for _ in range(3)])
    none, few, many = (
        found.median(f"io_cpu_{name}") for name in ("without_deadline", "with_deadline", "with_100000_pending")
    )
    assert none is not None and few is not None and many is not None
    return [
        Row(
            "100,000 pending deadlines: I/O thread's CPU per GET",
            f"{many / 1e3:.2f} us",
            f"{few / 1e3:.2f} us with none pending",
            many / few,
            note=f"{none / 1e3:.2f} us for GETs without a deadline",
            samples={"ours": found.samples},
        )
    ]


def stalling(port: int, **_: Any) -> Iterator[Sample]:
    """redis-py in a loop that another task stalls for 20 to 50 ms at a time."""
    import hiredis  # noqa: F401
    import redis.asyncio as redis

    async def gets(count: int, pause: float) -> float:
        times = []
        for _ in range(count):
            started = time.perf_counter()
            await client.get("key")
            times.append(time.perf_counter() - started)
            await asyncio.sleep(pause)
        return statistics.median(times)

    async def stall(seed: random.Random) -> None:
        while True:
            end = time.perf_counter() + seed.uniform(0.02, 0.05)
            while time.perf_counter() < end:
                pass
            await asyncio.sleep(0)

    async def measure() -> Sample:
        quiet = await gets(40, 0.002)
        staller = asyncio.create_task(stall(random.Random(1)))
        stalled = await gets(25, 0)
        staller.cancel()
        return {"quiet": quiet, "stalled": stalled}

    with asyncio.Runner() as runner:
        client = redis.Redis(port=port)
        yield {}
        while True:
            yield runner.run(measure())


SIDES = {"redis-py": stalling}


def stalls(bench: Bench) -> list[Row]:
    core = bench.program("core")
    peer = bench.compare("core_c", ["redis-py"])["redis-py"]
    with bench.server() as server:
        found = Result([run_program([core, "stall", server.url]) for _ in range(bench.runs)])
    errors = [abs(sample["stalled_stamped"] - sample["quiet_stamped"]) / 1e6 for sample in found.samples]
    theirs = [abs(sample["stalled"] - sample["quiet"]) for sample in peer.samples]
    error = statistics.median(errors)
    return [
        Row(
            "latency measured while the program stalls 20-50 ms: error of p50",
            f"{error:.3f} ms",
            f"{span(statistics.median(theirs))} redis-py" if theirs else peer.missing,
            error,
            "ms",
            1.0,
            0.1,
            at_least=False,
            samples={"ours": found.samples, "peer": peer.samples},
        )
    ]
