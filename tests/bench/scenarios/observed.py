"""A program in one C call that holds the GIL for ten seconds, asked for everything; and what a scrape costs."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from harness import Bench, Row, Sample, Unavailable, span
from support.asker import PATHS, PER_SECOND, Admin, Asked, ask, ask_once, ask_steadily, quantile
from support.program import Program
from support.statsd import StatsdServer, deviations

HANG_S = 10
INTERVAL_S = 0.1
SERIES = 1000
SCRAPES = 100

HANGING = """
import iokernel, json
from support.hang import hang
url, admin, statsd, seconds = sys.argv[1:]
kernel = iokernel.Kernel(admin=f"unix:{admin}", statsd=statsd, statsd_interval="100ms")
service = kernel.open(url)
service.wait_ready(5)
waits = [service("BLPOP", f"nothing:{n}", 0, timeout=600) for n in range(20)]
print(json.dumps({}), flush=True)
sys.stdin.readline()
hang(float(seconds))
print(json.dumps({}), flush=True)
"""


def hanging(bench: Bench) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, bench.server() as server, StatsdServer() as statsd:
        admin = os.path.join(folder, "admin")
        with Program(HANGING, server.url, admin, statsd.address, str(HANG_S)) as program:
            program.hear()
            # A stack's first names are read from files.
            for path in PATHS:
                ask_once(admin, path)
            program.go_on()
            time.sleep(2 * INTERVAL_S)
            asked = ask_steadily(admin, lambda: not program.has_told())
            program.hear()
            ticks = statsd.ticks(INTERVAL_S / 2)
    return [*paths(asked), exporter(ticks)]


def paths(asked: list[Asked]) -> Iterator[Row]:
    rate = len(asked) / (asked[-1].at - asked[0].at)
    for path in ["all", *PATHS]:
        took = [one.took_s for one in asked if path in (one.path, "all")]
        p50, p99 = quantile(took, 0.5), quantile(took, 0.99)
        what = "all paths" if path == "all" else path
        yield Row(
            f"{what} while one C call holds the GIL, {PER_SECOND} questions a second: p99",
            f"{span(p99)}, p50 {span(p50)}",
            "-",
            p99 * 1000,
            "ms",
            50,
            10,
            at_least=False,
            note=f"{len(took)} answers, {rate:.0f} a second" if path == "all" else "",
            samples={"ours": took},
        )


def exporter(ticks: list[float]) -> Row:
    off, missing = deviations(ticks, INTERVAL_S)
    p50, p99 = (quantile([abs(one) for one in off], share) for share in (0.5, 0.99))
    return Row(
        "statsd each 100 ms while one C call holds the GIL: deviation, p99",
        f"{span(p99)}, p50 {span(p50)}",
        "-",
        p99 * 1000,
        "ms",
        5,
        1,
        at_least=False,
        note=f"{len(ticks)} ticks, {missing} did not come",
        samples={"ours": off},
    )


def iokernel(**_: Any) -> Iterator[Sample]:
    """The processor time of this process, of which only the I/O thread does anything, and the time of a scrape."""
    import iokernel

    with tempfile.TemporaryDirectory() as folder:
        admin = os.path.join(folder, "admin")
        with iokernel.Kernel(admin=f"unix:{admin}") as kernel:
            for number in range(SERIES):
                kernel.counter("orders", help="Orders that were taken.", shop=str(number)).inc(number + 1)
            thread = io_thread()
            yield {}
            while True:
                yield scrapes(admin, thread)


def io_thread() -> str:
    for thread in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{thread}/comm") as name:
            if name.read().startswith("iokernel"):
                return thread
    raise Unavailable("no thread is called iokernel")


def scrapes(admin: str, thread: str) -> Sample:
    with closing(Admin(admin)) as conn:
        size = len(ask(conn, "/metrics").body)
        before = cpu_s(thread)
        took = [ask(conn, "/metrics").took_s for _ in range(SCRAPES)]
        return {"took": quantile(took, 0.5), "cpu": (cpu_s(thread) - before) / SCRAPES, "bytes": size}


def cpu_s(thread: str) -> float:
    """What a thread has had of a processor (proc_pid_schedstat, its first number, in nanoseconds)."""
    with open(f"/proc/self/task/{thread}/schedstat") as told:
        return int(told.read().split()[0]) / 1e9


def generated(**_: Any) -> Iterator[Sample]:
    """prometheus_client's text of as many counters, made in the interpreter: no server, no request."""
    from prometheus_client import CollectorRegistry, Counter, generate_latest

    registry = CollectorRegistry()
    orders = Counter("orders", "Orders that were taken.", ["shop"], registry=registry)
    for number in range(SERIES):
        orders.labels(str(number)).inc(number + 1)
    yield {}
    while True:
        took = []
        for _ in range(SCRAPES):
            started = time.perf_counter()
            text = generate_latest(registry)
            took.append(time.perf_counter() - started)
        yield {"took": quantile(took, 0.5), "bytes": len(text)}


SIDES = {"iokernel": iokernel, "prometheus_client": generated}


def scrape(bench: Bench) -> list[Row]:
    found = bench.compare("observed", list(SIDES))
    ours, peer = found["iokernel"], found["prometheus_client"]
    took, cpu, size = (ours.median(key) for key in ("took", "cpu", "bytes"))
    return [
        Row(
            f"scrape of /metrics with {SERIES:,} counters",
            f"{span(took)}, of the I/O thread's CPU {span(cpu)}",
            f"{span(peer.median('took'))} prometheus_client, its text alone",
            took and took * 1000,
            "ms",
            20,
            5,
            at_least=False,
            note="; ".join(filter(None, (ours.missing, peer.missing, size and f"{size / 1000:.0f} kB"))),
            samples={"ours": ours.samples, "peer": peer.samples},
        )
    ]
