"""Cells and markers of real families of processes, read through the admin endpoint as whoever asks would read them."""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import iokernel
import pytest
from prometheus_client import parser
from support.fakes import Say
from support.program import Program

SOAK = bool(os.environ.get("IOKERNEL_SOAK"))


class Admin:
    """The admin endpoint at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"unix:{path}"

    def get(self, target: str) -> str:
        conn = http.client.HTTPConnection("localhost", timeout=10)
        conn.sock = socket.socket(socket.AF_UNIX)
        conn.sock.settimeout(10)
        try:
            conn.sock.connect(str(self.path))
            conn.request("GET", target)
            answer = conn.getresponse()
            body = answer.read().decode()
            assert answer.status == 200, body
            return body
        finally:
            conn.close()

    def json(self, target: str) -> Any:
        return json.loads(self.get(target))

    def sample(self, name: str, **labels: str) -> float | None:
        """The value of one sample of /metrics."""
        for family in parser.text_string_to_metric_families(self.get("/metrics")):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    return Admin(tmp_path / "admin.sock")


@pytest.fixture
def kernel(admin: Admin, tmp_path: Path) -> Iterator[iokernel.Kernel]:
    """A kernel with an area of its own."""
    with iokernel.Kernel(admin=admin.url, metrics=str(tmp_path / "metrics"), stack=False) as kernel:
        yield kernel


def fork(body: Any) -> int:
    """A child that does `body` and leaves at once."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        finally:
            os._exit(code)
    return pid


def test_workers_that_are_killed_have_counted(kernel: iokernel.Kernel, admin: Admin) -> None:
    orders = kernel.counter("orders", shop="a")
    depth = kernel.gauge("depth")
    took = kernel.histogram("took", unit="seconds", buckets=(0.1, 1))
    spent = kernel.sum("spent", unit="seconds")
    read, write = os.pipe()

    def work() -> None:
        for _ in range(1000):
            orders.inc()
        depth.set(1)
        took.observe(0.5)
        spent.inc(0.25)
        os.write(write, b".")
        time.sleep(100)

    workers = [fork(work) for _ in range(50)]
    try:
        done = b""
        while len(done) < 50:
            done += os.read(read, 100)
        orders.inc(7)
        assert admin.sample("orders_total", shop="a") == 50_007
        assert admin.sample("depth") == 50
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        for pid in workers:
            os.waitpid(pid, 0)
        os.close(read)
        os.close(write)
    assert admin.sample("orders_total", shop="a") == 50_007
    assert admin.sample("depth") == 0, "gauges go with their process"
    assert admin.sample("took_seconds_bucket", le="1") == 50
    assert admin.sample("took_seconds_sum") == 25
    assert admin.sample("spent_seconds_total") == 12.5


GENERATIONS = """
import iokernel, json, os
kernel = iokernel.Kernel(admin=sys.argv[1], metrics=sys.argv[2], stack=False)
served = kernel.counter("served")
def tell():
    pages = int(open("/proc/self/statm").read().split()[1])
    fds, area = len(os.listdir("/proc/self/fd")), os.stat(sys.argv[2]).st_size
    print(json.dumps({"kib": pages * os.sysconf("SC_PAGE_SIZE") // 1024, "fds": fds, "area": area}), flush=True)
for line in sys.stdin:
    for _ in range(int(sys.argv[3])):
        pids = []
        for _ in range(4):
            pid = os.fork()
            if pid == 0:
                served.inc()
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == 0
    tell()
"""


def test_generations_come_and_go(admin: Admin, tmp_path: Path) -> None:
    rounds = 1250 if SOAK else 250
    with Program(GENERATIONS, admin.url, str(tmp_path / "metrics"), str(rounds)) as program:
        program.go_on()
        first = program.hear()
        program.go_on()
        last = program.hear()
        assert last["area"] <= first["area"] + (4 << 19), "blocks are used again"
        assert last["fds"] <= first["fds"] + 2
        assert last["kib"] <= first["kib"] + 8192
        assert admin.sample("served_total") == 2 * rounds * 4
        took = []
        for _ in range(20):
            started = time.perf_counter()
            admin.get("/metrics")
            took.append((time.perf_counter() - started) * 1000)
    print(f"{8 * rounds} generations: a scrape takes {statistics.median(took):.1f} ms, {max(took):.1f} at most")
    assert min(took) < 100


def count_in(name: str, rounds: int) -> None:
    """A process that multiprocessing has started from nothing."""
    with iokernel.Kernel(metrics=name) as kernel:
        counter = kernel.counter("rounds", by="spawn")
        for _ in range(rounds):
            counter.inc()


def test_processes_that_are_no_family_share_a_named_area(admin: Admin) -> None:
    name = f"test-{os.getpid()}"
    place = Path(f"/dev/shm/iokernel-{name}")
    try:
        with iokernel.Kernel(admin=admin.url, metrics=name, stack=False):
            context = multiprocessing.get_context("spawn")
            workers = [context.Process(target=count_in, args=(name, 1000 * at)) for at in (1, 2, 3)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(60)
                assert worker.exitcode == 0
            assert admin.sample("rounds_total", by="spawn") == 6000
    finally:
        place.unlink(missing_ok=True)


HANGING = """
import ctypes, iokernel, json, threading
kernel = iokernel.Kernel(admin=sys.argv[1], metrics=sys.argv[2], stack=False)
service = kernel.open(sys.argv[3])
service.wait_ready(10)
orders = kernel.counter("orders")

async def tasks():
    import asyncio
    async def one(at):
        with kernel.marker("task", at=at):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            return await service("GET", f"task {at}")
    waiting = [asyncio.create_task(one(at)) for at in range(3)]
    bare = service("GET", "bare")
    await asyncio.sleep(0.1)
    hang()

def hang():
    orders.inc(41)
    print(json.dumps({}), flush=True)
    ctypes.PyDLL(None).usleep(60_000_000)

with kernel.marker("outer"):
    with kernel.marker("render invoice", id=7):
        kept = service("GET", "one")
        orders.inc()
    if sys.argv[4] == "tasks":
        import asyncio
        asyncio.run(tasks())
    else:
        more = service("GET", "two")
        service.send("GET", "three")
        hang()
"""


@pytest.mark.parametrize("how", ["thread", "tasks"])
def test_what_hangs_says_what_it_did(admin: Admin, tmp_path: Path, make_fake: Any, how: str) -> None:
    silent = make_fake({"HELLO": b"-ERR unknown command\r\n", "GET": Say(b"+late\r\n", wait_ms=60_000)})
    arguments = (admin.url, str(tmp_path / "metrics"), f"redis://{silent.address}", how)
    with Program(HANGING, *arguments) as program:
        try:
            program.hear()
            time.sleep(0.3)
            assert admin.sample("orders_total") == 42
            requests = admin.json("/requests")["requests"]
            markers = [request["marker"] for request in requests if request["command"] == "GET"]
            inside = admin.json("/state")["main"]["markers"]
            if how == "tasks":
                assert sorted(markers) == ["outer", "render invoice id=7", "task at=0", "task at=1", "task at=2"]
                assert inside == ["outer", "task at=0", "task at=1", "task at=2"]
            else:
                assert sorted(markers) == ["outer", "outer", "render invoice id=7"]
                assert inside == ["outer"]
        finally:
            program._child.kill()
