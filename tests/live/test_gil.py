"""A program in one C call that holds the GIL: its connection lives on, because heartbeats need no interpreter.

12 seconds; 60 with IOKERNEL_SOAK=1. The test is the process that watches the server meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from support.program import Program
from support.servers import RedisServer

STALL_S = 60 if os.environ.get("IOKERNEL_SOAK", "") not in ("", "0") else 12
HEARTBEAT_S = 5
# What the server counts in whole seconds may be 20 % more than the heartbeat.
SILENT_S_MAX = HEARTBEAT_S * 1.2

# PyDLL keeps the GIL: for so long, no other Python thread runs, and the thread that counts proves it.
STALLED = """
import ctypes, iokernel, json, threading, time

url, seconds = sys.argv[1], int(sys.argv[2])
service = iokernel.open(url, heartbeat="5s", client_name="stalled")
service.wait_ready(5)
service.call("SET", "key", "before")
ticks = 0

def tick():
    global ticks
    while True:
        ticks += 1
        time.sleep(0.01)

threading.Thread(target=tick, daemon=True).start()
print(json.dumps({"ready": True}), flush=True)
sys.stdin.readline()
counted, started = ticks, time.monotonic()
ctypes.PyDLL(None).sleep(seconds)
print(json.dumps({
    "stalled_s": time.monotonic() - started,
    "ticks": ticks - counted,
    "value": service.call("GET", "key").decode(),
}), flush=True)
sys.stdin.readline()
"""


class Watch:
    """Asks the server for its clients every quarter of a second, until `stop`."""

    def __init__(self, server: RedisServer, name: str) -> None:
        self.samples: list[list[dict[str, str]]] = []
        self._server, self._name = server, name
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.25):
            self.samples.append([row for row in self._server.clients() if row["name"] == self._name])

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def test_a_c_call_that_holds_the_gil_costs_no_heartbeat(make_redis_server: Callable[..., RedisServer]) -> None:
    server = make_redis_server(options=["--timeout", str(HEARTBEAT_S + 3)])
    with Program(STALLED, server.url, str(STALL_S)) as program:
        assert program.hear() == {"ready": True}
        [before] = [row["id"] for row in server.clients() if row["name"] == "stalled"]
        watch = Watch(server, "stalled")
        try:
            program.go_on()
            told = program.hear()
        finally:
            watch.stop()
        after = [row["id"] for row in server.clients() if row["name"] == "stalled"]

    assert told["stalled_s"] >= STALL_S
    assert told["ticks"] <= 2, "the call let other Python threads run"
    assert told["value"] == "before"
    assert len(watch.samples) > STALL_S
    assert after == [before]
    assert {row["id"] for sample in watch.samples for row in sample} == {before}
    assert all(watch.samples), "the connection was gone for a while"
    assert max(int(row["idle"]) for sample in watch.samples for row in sample) <= SILENT_S_MAX
