"""Clients and servers that mean ill: thousands of slow ones, heads and bodies without end, bombs. Memory is bounded,
and others are served as if nothing was.

Times are printed, and none is asserted. All kinds of slow clients come together; with IOKERNEL_SOAK=1 also each alone.
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from support.endless import Endless, Slow, room_for
from support.load import table
from support.memory import Memory
from support.net import wait_for
from support.program import Program
from support.raw_http import Raw, Reply, request
from support.serving import Served, rss_bytes

IS_SOAK = os.environ.get("IOKERNEL_SOAK", "") not in ("", "0")
SLOW_CLIENTS = 5000
APP = "from support.http_app import app"
TIMEOUT_S = 4
OPTIONS = [f"--{what}-timeout={TIMEOUT_S}s" for what in ("head", "body", "idle", "send")]
MIB = 1 << 20

POLITE = """
import asyncio, iokernel.http, json, threading, time

api = iokernel.http.open(sys.argv[1])
over = threading.Event()
times, wrong = [], []

async def ask(task):
    while not over.is_set():
        began = time.perf_counter()
        try:
            reply = await api.post(f"/polite/{task}", body=b"abc", timeout=60)
            if (reply.status, reply.json()["size"]) != (200, 3):
                wrong.append(f"{reply.status} {reply.text}")
        except iokernel.Error as error:
            wrong.append(str(error))
        times.append(time.perf_counter() - began)
        await asyncio.sleep(0.005)

async def main():
    await api.get("/warm")
    print(json.dumps({"ready": True}), flush=True)
    await asyncio.gather(*(ask(task) for task in range(8)))

def listen():
    sys.stdin.readline()
    over.set()

threading.Thread(target=listen).start()
asyncio.run(main())
times.sort()
p50, p99 = (1000 * times[int(share * (len(times) - 1))] for share in (0.5, 0.99))
print(json.dumps({"answered": len(times) - len(wrong), "wrong": wrong[:3], "p50_ms": p50, "p99_ms": p99}), flush=True)
"""


HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc"
READ = request("GET", "/bytes?size=20000000")
Kind = tuple[int, bytes, bytes]
"""How many, what they say at once, what they say byte by byte."""
KINDS: dict[str, Kind] = {
    "silent": (SLOW_CLIENTS, b"", b""),
    "slow heads": (SLOW_CLIENTS, HEAD, b"x" * 1000),
    "bodies that stop": (SLOW_CLIENTS, BODY, b""),
    "readers of nothing": (SLOW_CLIENTS // 10, READ, b""),
}
EACH_BYTES_MAX = {READ: 3 * MIB // 2}
"""What a client may take of our memory; others 32 KiB."""
RUNS: dict[str, list[Kind]] = {
    "all together": [(count // 3, start, rest) for count, start, rest in KINDS.values()],
}
if IS_SOAK:
    RUNS |= {name: [kind] for name, kind in KINDS.items()}


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def polite_requests(url: str) -> Iterator[dict[str, Any]]:
    """Another program asks as usual until the end of the `with`; what it tells of that."""
    told: dict[str, Any] = {}
    with Program(POLITE, url) as polite:
        polite.hear()
        yield told
        polite.go_on()
        told |= polite.hear()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("run", RUNS)
def test_thousands_of_slow_clients(run: str) -> None:
    kinds = RUNS[run]
    clients = sum(count for count, _, _ in kinds)
    room_for(clients)
    with Served(APP, *OPTIONS) as server, ExitStack() as stack:
        [worker], url = server.workers, f"http://127.0.0.1:{server.port}"
        with polite_requests(url) as alone:
            time.sleep(0.5)
        files, began = descriptors(worker), time.monotonic()
        with polite_requests(url) as beside, Memory(worker) as memory:
            for count, start, rest in kinds:
                stack.enter_context(Slow(server.port, count, start, rest))
            wait_for("most of them", lambda: descriptors(worker) - files > clients / 2, TIMEOUT_S)
            # Those of the polite are no more than a few.
            wait_for("their end", lambda: descriptors(worker) < files + 50, 60)
            gone = time.monotonic() - began
    with table(f"requests beside {clients} slow clients, {run}", "", "answered", "p50 ms", "p99 ms") as add:
        for name, told in (("alone", alone), ("beside", beside)):
            add([name, told["answered"], told["p50_ms"], told["p99_ms"]])
    print(f"{memory.more / MIB:.1f} MiB more, gone after {gone:.1f} s")
    assert not beside["wrong"] and beside["answered"] > 50, beside
    assert memory.more < sum(count * EACH_BYTES_MAX.get(start, 32 << 10) for count, start, _ in kinds)


# What has no end, at our server

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served(APP, "--max-request", "8MiB") as made:
        yield made


@pytest.mark.parametrize(
    ("what", "start", "piece", "statuses"),
    [
        ("a method", b"", b"G", {400, 414, 501}),
        ("a target", b"GET /", b"x" * 1000, {414}),
        ("a header", b"GET / HTTP/1.1\r\nHost: a\r\nA: ", b"x" * 1000, {431}),
        ("headers", b"GET / HTTP/1.1\r\nHost: a\r\n", b"A: b\r\n", {431}),
        ("empty lines", b"", b"\r\n", {400}),
        ("an extension of a chunk", CHUNKED + b"5;a=", b"x" * 1000, {400, 413, 431}),
        ("extensions of chunks", CHUNKED, b"1;" + b"x" * 500 + b"\r\na\r\n", {400, 413, 431}),
        ("a size of a chunk", CHUNKED, b"0", {400}),
        ("a trailer", CHUNKED + b"0\r\nA: ", b"x" * 1000, {400, 431}),
        ("trailers", CHUNKED + b"0\r\n", b"A: b\r\n", {400, 431}),
        ("a body", CHUNKED, b"400\r\n" + b"x" * 1024 + b"\r\n", {413, 200}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_end_is_refused(what: str, start: bytes, piece: bytes, statuses: set[int], server: Served) -> None:
    [worker] = server.workers
    memory = rss_bytes(worker)
    with Raw(f"127.0.0.1:{server.port}") as conn:
        reply = refused(conn, start, piece)
        assert reply.status in statuses, reply
        assert conn.rest() == b""
    assert rss_bytes(worker) - memory < 16 * MIB
    assert server.get("/other").status == 200


def refused(conn: Raw, start: bytes, piece: bytes) -> Reply:
    """What is answered while we go on and on."""
    conn.send(start)
    many, sent = piece * max(1, 65_536 // len(piece)), 0
    conn.conn.settimeout(0.01)
    while sent < 64 * MIB:
        try:
            conn.conn.send(many)
            sent += len(many)
        except (TimeoutError, ConnectionError):
            break
        try:
            if conn.conn.recv(1, 0x2):  # MSG_PEEK
                break
        except TimeoutError:
            continue
    conn.conn.settimeout(20)
    return conn.reply()


# What has no end, at our client

CLIENT = """
import iokernel.http, json

api = iokernel.http.open(sys.argv[1], max_reply="1MiB", pool=4)
assert api.get("/fine").body == b"fine"

def memory():
    for line in open("/proc/self/status"):
        if line.startswith("VmHWM"):
            return int(line.split()[1])

def ask(path, streams):
    try:
        if not streams:
            return f"whole: {len(api.get(path, timeout=60).body)}"
        with api.stream("GET", path) as reply:
            some = sum(len(reply.receive(20)) for _ in range(20))
            return "a stream of which some was taken"
    except iokernel.Error as error:
        return f"{type(error).__name__} {error.fate}: {error.message}"

for path in sys.argv[2:]:
    for streams in (False, True):
        before = memory()
        outcome = ask(path, streams)
        fine = [api.get("/fine", timeout=60).body for _ in range(3)] == [b"fine"] * 3
        more = memory() - before
        print(json.dumps({"outcome": outcome, "fine": fine, "more_kib": more}), flush=True)
        sys.stdin.readline()
"""

OK = b"HTTP/1.1 200 OK\r\n"
ZEROS = gzip.compress(bytes((512 if IS_SOAK else 64) * MIB), 9)
BOMB = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZEROS) + ZEROS
CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {
    "/status": (b"HTTP/1.1 200 ", b"x" * 1000),
    "/header": (OK + b"A: ", b"x" * 1000),
    "/headers": (OK, b"A: b\r\n"),
    "/interim": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "/extension": (CHUNKS + b"5;a=", b"x" * 1000),
    "/extensions": (CHUNKS, b"1;" + b"x" * 500 + b"\r\na\r\n"),
    "/size": (CHUNKS, b"0"),
    "/trailers": (CHUNKS + b"0\r\n", b"A: b\r\n"),
    "/body": (CHUNKS, b"400\r\n" + b"x" * 1024 + b"\r\n"),
    "/until-the-end": (OK + b"\r\n", b"x" * 1000),
    "/bomb": (BOMB, b""),
}
GOES_ON = {"/body", "/until-the-end", "/bomb", "/extensions"}
"""Streams that may be of any length."""


def test_what_has_no_end_is_not_read() -> None:
    with Endless(ENDLESS) as server, Program(CLIENT, server.url, *ENDLESS) as client:
        for path in ENDLESS:
            for streams in (False, True):
                told = client.hear()
                wanted = "a stream of which some" if streams and path in GOES_ON else "ConnectionLost"
                assert told["outcome"].startswith(wanted), (path, told)
                assert told["fine"], f"{path}: what others ask for is answered"
                assert told["more_kib"] < 16 << 10, (path, told)
                assert server.sent < 32 * MIB, f"{path}: it is read on and on"
                client.go_on()
