"""p99 of ordinary GETs alone, and while 4 BLPOPs, a SUBSCRIBE and a WATCH transaction are at work beside them.

A process of its own pushes and publishes all the time, in both cases, so that both see the same machine.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import Bench, Row, Sample, ratio, span

GETS = 2000
FEED = """
import sys, time
sys.path.insert(0, sys.argv[2])
from support.resp import Resp
with Resp(sys.argv[1]) as feed:
    while True:
        for n in range(4):
            feed("LPUSH", f"list:{n}", "x")
            feed("LTRIM", f"list:{n}", 0, 9)
        feed("PUBLISH", "news", "x")
        feed("INCR", "watched")
        time.sleep(0.005)
"""


def p99(service: Any) -> float:
    times = []
    for _ in range(GETS):
        started = time.perf_counter()
        service.call("GET", "key")
        times.append(time.perf_counter() - started)
    return sorted(times)[GETS * 99 // 100]


class Work:
    """What the others do, each in its own thread, until `stop`."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.done = dict.fromkeys(("pops", "messages", "transactions"), 0)
        self._stop = threading.Event()
        jobs = [lambda n=n: self._pop(n) for n in range(4)]
        self._threads = [threading.Thread(target=job) for job in [*jobs, self._listen, self._transact]]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _pop(self, number: int) -> None:
        while not self._stop.is_set():
            if self.service.call("BLPOP", f"list:{number}", 1):
                self.done["pops"] += 1

    def _listen(self) -> None:
        with self.service.subscribe("SUBSCRIBE", "news") as stream:
            while not self._stop.is_set():
                stream.get(5)
                self.done["messages"] += 1

    def _transact(self) -> None:
        while not self._stop.is_set():
            with self.service.lease() as lease:
                lease.call("WATCH", "watched")
                lease.call("GET", "watched")
                lease.call("MULTI")
                lease.call("INCR", "done")
                lease.call("EXEC")
            self.done["transactions"] += 1
            time.sleep(0.005)


def iokernel(url: str, port: int, **_: Any) -> Iterator[Sample]:
    import iokernel

    live = str(Path(__file__).resolve().parents[2] / "live")
    feed = subprocess.Popen([sys.executable, "-c", FEED, f"127.0.0.1:{port}", live])
    try:
        service = iokernel.open(url)
        service.wait_ready(5)
        yield {}
        while True:
            alone = p99(service)
            work = Work(service)
            time.sleep(0.05)
            beside = p99(service)
            work.stop()
            assert all(work.done.values()), work.done
            yield {"alone": alone, "beside": beside, **work.done}
    finally:
        feed.kill()
        feed.wait()


SIDES = {"iokernel": iokernel}


def rows(bench: Bench) -> list[Row]:
    ours = bench.compare("lanes", ["iokernel"])["iokernel"]
    alone, beside = ours.median("alone"), ours.median("beside")
    return [
        Row(
            "GET p99 beside 4 BLPOPs, SUBSCRIBE and WATCH: alone",
            span(beside),
            f"{span(alone)} alone",
            ratio(beside, alone),
            note=ours.missing,
            samples={"ours": ours.samples},
        )
    ]
