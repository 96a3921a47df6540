"""A program that computes for ten seconds without letting its interpreter go, and what becomes of its connections.

500 asyncio tasks use one server; then one C call, a catastrophic regular expression, holds the GIL for about ten
seconds. The server drops clients that are silent for four. This process watches the server meanwhile: the program
itself can see nothing. Once with iokernel, once with redis-py (asyncio, hiredis), for comparison.

    make demo
    .venv/bin/python examples/demo.py --seconds 6 --listener

Ends with status 0 only if everything it says about iokernel was seen. `--listener` (the default where redis-server is
not installed) has iokernel's own listener as the server, in a process of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import queue
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "bindings" / "python"))

TASKS = 500
HEARTBEAT_S = 1
SERVER_TIMEOUT_S = 4
SAMPLE_S = 0.1
ROUNDS = 20
PEER = "redis-py"


# The program: one process for each client, told by lines on its input when to do what.


def program(client: str, address: str, seconds: float) -> None:
    host, port = address.rsplit(":", 1)
    asyncio.run({"iokernel": with_iokernel, PEER: with_redis_py}[client](host, int(port), seconds))


async def with_iokernel(host: str, port: int, seconds: float) -> None:
    import iokernel

    service = iokernel.open(f"redis://{host}:{port}", heartbeat=f"{HEARTBEAT_S}s", client_name="iokernel")
    await service.ready(5)
    await service("SET", "key", b"x" * 100)
    await story(lambda: service("GET", "key"), seconds)
    service.close()


async def with_redis_py(host: str, port: int, seconds: float) -> None:
    import hiredis  # noqa: F401
    import redis.asyncio as redis

    # A connection for each task, as it takes to have all of them ask at once; the check is due every second.
    client = redis.Redis(
        host=host, port=port, max_connections=TASKS, client_name=PEER, health_check_interval=HEARTBEAT_S
    )
    await client.set("key", b"x" * 100)
    await story(lambda: client.get("key"), seconds)
    await client.aclose()


async def story(get: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Work, one long C call, work again. What the program saw goes to the watching process."""
    text, warm = long_call(seconds), await crowd(get, 1)
    before = await crowd(get, ROUNDS)
    tell(rate=TASKS * ROUNDS / before["seconds"], failed=before["failed"] + warm["failed"])
    sys.stdin.readline()
    started = time.perf_counter()
    re.search(PATTERN, text)
    stalled = time.perf_counter() - started
    tell(stalled=stalled)
    after = await crowd(get, 1)
    tell(again=after["seconds"], failed=after["failed"])
    sys.stdin.readline()


async def crowd(get: Callable[[], Awaitable[Any]], rounds: int) -> dict[str, Any]:
    """All tasks at once."""

    async def task() -> None:
        for _ in range(rounds):
            if len(await get()) != 100:
                raise ValueError("another value")

    started = time.perf_counter()
    ends = await asyncio.gather(*(task() for _ in range(TASKS)), return_exceptions=True)
    return {"seconds": time.perf_counter() - started, "failed": sum(end is not None for end in ends)}


PATTERN = r"(a+)+$"


def long_call(seconds: float) -> str:
    """A text on which the pattern takes so long: each further `a` doubles its time, each further copy adds as much."""
    length, took = 10, 0.0
    while took < 0.05:
        length += 1
        started = time.perf_counter()
        re.search(PATTERN, "a" * length + "b")
        took = time.perf_counter() - started
    copies = 4
    started = time.perf_counter()
    re.search(PATTERN, ("a" * length + "b") * copies)
    return ("a" * length + "b") * round(copies * seconds / (time.perf_counter() - started))


def tell(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


# The listener as the server: any client, any command we care to answer.


def serve() -> None:
    import iokernel

    listener = iokernel.listen("redis://127.0.0.1:0")
    values: dict[bytes, bytes] = {}

    def answer(request: iokernel.Request) -> Any:
        match [request.args[0].upper(), *request.args[1:]]:
            case [b"GET", key]:
                return values.get(key)
            case [b"SET", key, value, *_]:
                values[key] = value
                return "OK"
            case _:
                raise iokernel.RemoteError("not served by this demo", code="ERR")

    tell(address=listener.url.removeprefix("redis://"))
    listener.serve(answer)


# Watching: this process, which nothing stalls.


class Redis:
    """A private redis-server that drops whoever is silent for too long, and what it says of its clients."""

    name = "redis-server"
    drops = True

    def __init__(self, stack: contextlib.ExitStack) -> None:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="iok-demo-"))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder]
        command += ["--timeout", str(SERVER_TIMEOUT_S)]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        stack.callback(end, child)
        self.address = f"127.0.0.1:{port}"
        self._asked = 0

    def clients(self, name: str) -> list[dict[str, Any]]:
        """Our connections: their ids, how long they were silent, what they cost the server."""
        rows = [dict(pair.split("=", 1) for pair in line.split()) for line in self._ask("CLIENT LIST").splitlines()]
        return [
            {"id": row["id"], "silent_s": int(row["idle"]), "bytes": int(row.get("tot-mem", 0))}
            for row in rows
            if row["name"] == name
        ]

    def counts(self) -> dict[str, int]:
        """Since its start: heartbeats answered, connections accepted."""
        pings = re.search(r"cmdstat_ping:calls=(\d+)", self._ask("INFO commandstats"))
        accepted = re.search(r"total_connections_received:(\d+)", self._ask("INFO stats"))
        return {"pings": int(pings[1]) if pings else 0, "accepted": int(accepted[1]) - self._asked if accepted else 0}

    def _ask(self, command: str) -> str:
        """On a connection for this question alone, as the server would drop ours too."""
        self._asked += 1
        with connected(self.address) as conn, conn.makefile("rb") as file:
            conn.sendall(command.encode() + b"\r\n")
            size = int(file.readline()[1:])
            return file.read(size).decode()


class Listener:
    """Our own listener in another process. What its connections did, the system says (ss): it lists no clients."""

    name = "iokernel.listen"
    drops = False

    def __init__(self, stack: contextlib.ExitStack) -> None:
        child = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
        stack.callback(end, child)
        assert child.stdout
        stack.callback(child.stdout.close)
        self.address: str = json.loads(child.stdout.readline())["address"]
        self._ids: set[str] = set()

    def clients(self, _: str) -> list[dict[str, Any]]:
        if not shutil.which("ss"):
            return []
        port = self.address.rsplit(":", 1)[1]
        command = ["ss", "-tinHO", "state", "established", f"sport = :{port}"]
        found = []
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            peer, silent = line.split()[3], re.search(r"lastrcv:(\d+)", line)
            self._ids.add(peer)
            found.append({"id": peer, "silent_s": int(silent[1]) / 1000 if silent else 0, "bytes": 0})
        return found

    def counts(self) -> dict[str, int]:
        return {"accepted": len(self._ids)}


def end(child: subprocess.Popen[Any]) -> None:
    child.terminate()
    try:
        child.wait(5)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def connected(address: str) -> socket.socket:
    host, port = address.rsplit(":", 1)
    for _ in range(200):
        with contextlib.suppress(OSError):
            return socket.create_connection((host, int(port)), 10)
        time.sleep(0.02)
    raise SystemExit("redis-server did not start")


class Watched:
    """One client's run of the story: what the server, the program and the I/O thread saw."""

    def __init__(self, server: Redis | Listener, client: str, seconds: float) -> None:
        self.client = client
        self.missing = ""
        with contextlib.closing(Program(client, server.address, seconds)) as program:
            try:
                self._watch(server, program)
            except Ended as why:
                self.missing = str(why)

    def _watch(self, server: Redis | Listener, program: Program) -> None:
        self.program = program.hear() or {}
        self.before, before, used = server.clients(self.client), server.counts(), io_thread(program.pid)
        program.go_on()
        self.samples: list[list[dict[str, Any]]] = []
        while not (told := program.hear(SAMPLE_S)):
            self.samples.append(server.clients(self.client))
        self.program |= told
        self.io_thread = {key: value - used[key] for key, value in io_thread(program.pid).items()}
        during = server.counts()
        told = program.hear() or {}
        self.failed = self.program["failed"] + told["failed"]
        self.program |= told
        self.after, after = server.clients(self.client), server.counts()
        self.end = self.samples[-1]
        self.heartbeats = during["pings"] - before["pings"] if "pings" in during else None
        self.opened_again = after["accepted"] - before["accepted"]
        program.go_on()

    @property
    def silent_s(self) -> float:
        """The longest silence of any connection that the server saw."""
        return max((row["silent_s"] for sample in self.samples for row in sample), default=0)

    @property
    def kept(self) -> int:
        """Connections from before that are still the same ones."""
        return len({row["id"] for row in self.before} & {row["id"] for row in self.after})


class Ended(Exception):
    """The program ended before its story did."""


class Program:
    """The process of one client; what it tells is heard by a thread, so that watching never waits for it."""

    def __init__(self, client: str, address: str, seconds: float) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [sys.executable, __file__, "program", client, address, str(seconds)]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self.pid = self._child.pid
        self._heard: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._child.stdout
        for line in self._child.stdout:
            self._heard.put(line)
        self._heard.put("")

    def hear(self, patience: float = 60) -> dict[str, Any] | None:
        """The next thing that it tells; None if that took too long."""
        try:
            line = self._heard.get(timeout=patience)
        except queue.Empty:
            return None
        if not line:
            self._errors.seek(0)
            raise Ended((self._errors.read().strip().splitlines() or ["it ended without a word"])[-1])
        told: dict[str, Any] = json.loads(line)
        return told

    def go_on(self) -> None:
        assert self._child.stdin
        self._child.stdin.write("go\n")
        self._child.stdin.flush()

    def close(self) -> None:
        end(self._child)
        self._errors.close()


def io_thread(pid: int) -> dict[str, float]:
    """How much processor time the I/O thread has used, and how often it woke."""
    for folder in Path(f"/proc/{pid}/task").iterdir():
        if (folder / "comm").read_text().strip() == "iokernel":
            woken = re.search(r"^voluntary_ctxt_switches:\s*(\d+)", (folder / "status").read_text(), re.MULTILINE)
            used = int((folder / "schedstat").read_text().split()[0]) / 1e6
            return {"cpu_ms": used, "wakes": int(woken[1]) if woken else 0}
    return {}


# The account.


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.{0 if seconds >= 0.01 else 1}f} ms" if seconds < 10 else f"{seconds:.1f} s"


def account(server: Redis | Listener, runs: list[Watched]) -> list[list[str]]:
    """The lines of the table; a line with one member is a heading."""

    def line(what: str, value: Callable[[Watched], object]) -> list[str]:
        return [what, *("not run" if run.missing else str(value(run)) for run in runs)]

    def heartbeats(run: Watched) -> str:
        return "-" if run.heartbeats is None else str(run.heartbeats)

    watched = bool(runs[0].before)
    seen_by_server = [
        ["what the server saw"],
        line("connections at work", lambda run: len(run.before)),
        line("  and what they cost it", lambda run: f"{sum(row['bytes'] for row in run.before) / 1024:.0f} KiB")
        if server.drops
        else [],
        line("heartbeats during the C call", heartbeats),
        line("longest silence of a connection", lambda run: f"{run.silent_s:.0f} s"),
        line("connections left at its end", lambda run: len(run.end)),
        line("connections opened anew", lambda run: run.opened_again),
        line("same connection before and after", lambda run: f"{run.kept} of {len(run.before)}"),
    ]
    return [
        ["what the program saw"],
        line("requests a second, 500 tasks", lambda run: f"{run.program['rate']:,.0f}"),
        line("one C call that held the GIL", lambda run: f"{run.program['stalled']:.1f} s"),
        line("then 500 replies more, all within", lambda run: ms(run.program["again"])),
        line("requests that failed", lambda run: run.failed),
        *(filter(None, seen_by_server) if watched else []),
        ["what the I/O thread did meanwhile"],
        line("times it woke", lambda run: run.io_thread.get("wakes", "no such thread")),
        line("processor time it took", lambda run: ms(run.io_thread["cpu_ms"] / 1000) if run.io_thread else "-"),
    ]


def show(rows: list[list[str]], heads: list[str]) -> None:
    print(f"\n{'':38}" + "".join(f"{head:>28}" for head in heads))
    for row in rows:
        print(f"\n{row[0]}" if len(row) == 1 else f"  {row[0]:36}" + "".join(f"{cell:>28}" for cell in row[1:]))
    print()


def claims(server: Redis | Listener, run: Watched, seconds: float) -> dict[str, bool]:
    """What this demonstration says of iokernel."""
    if run.missing:
        return {f"iokernel ran ({run.missing})": False}
    stalled = run.program["stalled"]
    made = {
        "one C call held the GIL for seconds": stalled > seconds / 4,
        "no request failed": run.failed == 0,
        "the I/O thread worked meanwhile": run.io_thread.get("wakes", 0) >= stalled / HEARTBEAT_S / 2,
    }
    if run.before:
        ids = {row["id"] for sample in [run.before, *run.samples, run.after] for row in sample}
        made |= {
            "one connection served 500 tasks": len(run.before) == 1,
            "the connection is the same after the call, and was never gone": len(ids) == 1 and all(run.samples),
            "the server never waited longer than a heartbeat for a sign of life": run.silent_s <= HEARTBEAT_S * 1.2 + 1,
        }
    if run.heartbeats is not None:
        made["heartbeats went on"] = run.heartbeats >= stalled / HEARTBEAT_S / 2
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10, help="how long the C call takes, about (10)")
    parser.add_argument("--listener", action="store_true", help="serve by iokernel.listen in any case")
    parser.add_argument("--alone", action="store_true", help="without redis-py beside it")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        kind = Listener if options.listener or not shutil.which("redis-server") else Redis
        server = kind(stack)
        print(
            f"{TASKS} asyncio tasks, one C call of about {options.seconds:g} s; the server: {server.name}", flush=True
        )
        if server.drops:
            print(f"It drops clients that are silent for more than {SERVER_TIMEOUT_S} s, a few at a time.")
        print(f"Both clients are to send a heartbeat every {HEARTBEAT_S} s (redis-py: health_check_interval).")
        runs = []
        for client in ["iokernel"] if options.alone else ["iokernel", PEER]:
            print(f"  {client} ...", flush=True)
            runs.append(Watched(server, client, options.seconds))
    made = claims(server, runs[0], options.seconds)
    if not runs[0].missing:
        show(account(server, runs), ["iokernel", "redis-py (asyncio, hiredis)"][: len(runs)])
    for run in runs[1:]:
        if run.missing:
            print(f"  {run.client} did not run: {run.missing}")
    for claim, seen in made.items():
        print(f"  {'seen' if seen else 'NOT SEEN'}: {claim}")
    return 0 if all(made.values()) else 1


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["program", name, address, seconds]:
            program(name, address, float(seconds))
        case ["serve"]:
            serve()
        case _:
            sys.exit(main())
