"""`make demo`: a private redis-server that drops idle clients, and a program that stalls for three seconds.

The stall is one C call that holds the interpreter's lock, as a hard regular expression does: nothing else in the
process can run, no heartbeat of any Python client. The connection of iokernel lives through it; the other client's
does not.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "live"))

import iokernel
import redis
from support.process import Missing
from support.servers import RedisServer

ROOT = Path(__file__).resolve().parent.parent
STALL_SECONDS = 3.0


def main() -> None:
    try:
        server = RedisServer(options=["--timeout", "1"])
    except Missing as missing:
        sys.exit(f"demo: {missing}")
    with server:
        c_programs(server)
        first_steps(server)
        stall(server)


def c_programs(server: RedisServer) -> None:
    for name in ["one_request", "pipeline", "pubsub"]:
        words = ["SET", "greeting", "hello"] if name == "one_request" else []
        title(f"C: {name} {' '.join(words)}")
        subprocess.run([ROOT / "build" / "c" / "examples" / name, server.url, *words], check=True)


def first_steps(server: RedisServer) -> None:
    title("Python: one endpoint, blocking and inside asyncio")
    with iokernel.open(server.url) as cache:
        print("call: ", cache.call("GET", "greeting"))
        print("await:", asyncio.run(many(cache)))


async def many(cache: iokernel.Endpoint) -> list[object]:
    return list(await asyncio.gather(*(cache("INCR", "demo") for _ in range(5))))


def stall(server: RedisServer) -> None:
    title(f"Python: {STALL_SECONDS:.0f} seconds inside one C call; the server drops who is idle for one")
    ours = iokernel.open(server.url, heartbeat="300ms")
    theirs = redis.Redis(port=server.port)
    before = ours.call("CLIENT", "ID"), theirs.client_id()
    stalled = hold_the_lock()
    after = ours.call("CLIENT", "ID"), theirs.client_id()
    print(f"stalled for {stalled:.1f} s")
    for name, was, now in zip(["iokernel", "redis-py"], before, after, strict=True):
        print(f"{name}: connection {was} before, {now} after:", "the same" if was == now else "it was dropped")
    theirs.close()
    ours.close()


def hold_the_lock() -> float:
    """A regular expression that backtracks for about STALL_SECONDS: twice as long for each letter."""
    letters, took = 18, 0.0
    while took < STALL_SECONDS / 3:
        letters += 1
        took = backtrack(letters)
    return backtrack(letters + 2)


def backtrack(letters: int) -> float:
    started = time.monotonic()
    re.match(r"(a+)+$", "a" * letters + "b")
    return time.monotonic() - started


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


if __name__ == "__main__":
    main()
