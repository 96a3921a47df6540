"""Bodies far larger than the memory that they may take: 64 MiB each way in both roles, 1 GiB with IOKERNEL_SOAK=1.
Others are served meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.aiohttp_server import AiohttpServer
from support.asking import Asking
from support.http_app import BLOCK, digest_of
from support.load import percentile, table
from support.memory import Memory
from support.program import Program
from support.raw_http import Raw, request
from support.serving import Served

IS_SOAK = os.environ.get("IOKERNEL_SOAK", "") not in ("", "0")
SIZE = (1 << 30) if IS_SOAK else (64 << 20)
MIB = 1 << 20
MORE_BYTES_MAX = 24 * MIB
"""What one large body may take: windows, buffers, and what an interpreter's allocator keeps of them."""


def others(address: str) -> Asking:
    small = request("POST", "/other", body=b"abc")
    return Asking(address, small, lambda reply: bool(json.loads(reply.body)["size"] == 3), 0.005)


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served("from support.http_app import app", "--max-request", "2GiB") as made:
        made.get("/warm")
        yield made


def upload(conn: Raw) -> str:
    """In chunks; the digest of what was sent."""
    conn.send(request("PUT", "/up", "Transfer-Encoding: chunked"))
    piece = b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
    for _ in range(SIZE // len(BLOCK)):
        conn.send(piece)
    told = json.loads(conn.send(b"0\r\n\r\n").reply().body)
    assert told["size"] == SIZE
    digest: str = told["sha256"]
    return digest


def download(conn: Raw, pause_s: float = 0.0) -> str:
    """The digest of what came. With a pause, the reader is slow at first."""
    conn.send(request("GET", f"/bytes?size={SIZE}", "Connection: close"))
    made, left, head = hashlib.sha256(), SIZE, b""
    for _ in range(20 if pause_s else 0):
        time.sleep(pause_s)
        head += conn.conn.recv(1000)
    while b"\r\n\r\n" not in head:
        head += conn.conn.recv(1000)
    data = head.partition(b"\r\n\r\n")[2]
    while data:
        made.update(data)
        left -= len(data)
        data = conn.conn.recv(1 << 18)
    assert left == 0
    return made.hexdigest()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("what", "act"),
    [("upload", upload), ("download", download), ("slow reader", lambda conn: download(conn, 0.05))],
)
def test_at_our_server(what: str, act: Callable[[Raw], str], server: Served) -> None:
    [worker] = server.workers
    address = f"127.0.0.1:{server.port}"
    began = time.perf_counter()
    with Memory(worker) as memory, others(address) as beside, Raw(address, 60) as conn:
        assert act(conn) == digest_of(SIZE)
    show(f"{what} of {SIZE // MIB} MiB at our server", began, memory.more, beside.times_ms)
    assert not beside.bad, beside.bad[:3]
    assert beside.times_ms, "others were served meanwhile"
    assert memory.more < MORE_BYTES_MAX


def show(title: str, began: float, more: int, times_ms: list[float]) -> None:
    with table(title, "s", "MiB more", "others", "p50 ms", "p99 ms") as add:
        figures = percentile(times_ms, 0.5), percentile(times_ms, 0.99)
        add([time.perf_counter() - began, more / MIB, len(times_ms), *figures])


CLIENT = """
import hashlib, iokernel.http, json, threading, time

from support.http_app import BLOCK

act, url, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
api = iokernel.http.open(url)
assert api.get("/warm").status == 200
print(json.dumps({"ready": True}), flush=True)
sys.stdin.readline()
over, times, bad = threading.Event(), [], []

def ask():
    while not over.wait(0.005):
        began = time.perf_counter()
        try:
            if api.get("/other", timeout=60).json()["target"] != "/other":
                bad.append("another answer")
        except iokernel.Error as error:
            bad.append(str(error))
        times.append(1000 * (time.perf_counter() - began))

other = threading.Thread(target=ask)
other.start()
if act == "upload":
    with api.stream("PUT", "/upload", body=True) as stream:
        for _ in range(size // len(BLOCK)):
            stream.send(BLOCK)
        stream.finish()
        moved = json.loads(stream.accepted().read())["bytes"]
else:
    with api.stream("GET", f"/stream?count={size // 65536}&size=65536") as stream:
        if act == "slow reader":
            time.sleep(1)
        moved = sum(len(piece) for piece in stream)
over.set()
other.join()
print(json.dumps({"moved": moved, "bad": bad[:3], "times_ms": times}), flush=True)
sys.stdin.readline()
"""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("act", ["upload", "download", "slow reader"])
def test_at_our_client(act: str) -> None:
    with AiohttpServer() as site, Program(CLIENT, act, site.url, str(SIZE)) as program:
        program.hear()
        began = time.perf_counter()
        with Memory(program.pid) as memory:
            program.go_on()
            told: dict[str, Any] = program.hear()
        show(f"{act} of {SIZE // MIB} MiB at our client", began, memory.more, told["times_ms"])
        program.go_on()
    assert told["moved"] == SIZE and not told["bad"], told
    assert told["times_ms"], "others were served meanwhile"
    assert memory.more < MORE_BYTES_MAX
