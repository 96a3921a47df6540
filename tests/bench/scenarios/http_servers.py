"""HTTP servers: hello world from one worker under wrk, and fast requests while one in ten computes.

The servers take turns, each alone under load; figures are medians. Beside requests a second, the processor time that a
server has had for each request is told, which a busy machine disturbs less.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from harness import ROOT, Bench, Result, Row, Sample, Unavailable, rate, ratio, span
from support.net import free_port

CONNECTIONS = 64
LOAD_S = 3
STARTS_S = 20.0
HERE = Path(__file__).resolve().parent.parent

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{ listen 127.0.0.1:{port}; location / {{ default_type text/plain; return 200 "Hello, world!"; }} }}
}}
"""
BJOERN = "import bjoern, hello, sys; bjoern.run(hello.wsgi, '127.0.0.1', int(sys.argv[1]))"


def nginx(port: int, folder: str) -> list[str]:
    if not shutil.which("nginx"):
        raise Unavailable("nginx is not installed (Debian: nginx-light)")
    path = Path(folder, "config")
    path.write_text(NGINX.format(folder=folder, port=port))
    return ["nginx", "-p", folder, "-c", str(path)]


def module(name: str, *arguments: str) -> Callable[[int, str], list[str]]:
    """A server that is a Python package; {port} stands for its port."""

    def command(port: int, _: str) -> list[str]:
        package = name.partition(".")[0]
        if subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False).returncode:
            raise Unavailable(f"{package} is not installed: tests/setup.sh bench")
        return [sys.executable, "-m", name, *(argument.format(port=port) for argument in arguments)]

    return command


def bjoern(port: int, _: str) -> list[str]:
    module("bjoern")(port, _)
    return [sys.executable, "-c", BJOERN, str(port)]


def ours(app: str, *options: str) -> Callable[[int, str], list[str]]:
    return module("iokernel", "serve", f"hello:{app}", "--bind", "127.0.0.1:{port}", "--log-level", "error", *options)


GRANIAN = ("--host", "127.0.0.1", "--port", "{port}", "--workers", "1", "--no-ws", "--log-level", "error")
GRANIAN_WSGI = (*GRANIAN, "--interface", "wsgi", "--runtime-mode", "st", "hello:wsgi", "--blocking-threads")
GRANIAN_ASGI = (*GRANIAN, "--interface", "asgi", "--runtime-mode", "st", "hello:asgi", "--loop", "uvloop")
UVICORN = ("--port", "{port}", "--no-access-log", "--log-level", "error", "--http", "httptools", "--loop", "uvloop")
GUNICORN = ("-b", "127.0.0.1:{port}", "--log-level", "error", "hello:wsgi")
SERVERS: dict[str, Callable[[int, str], list[str]]] = {
    "nginx": nginx,
    "bjoern": bjoern,
    "granian WSGI": module("granian", *GRANIAN_WSGI, "1"),
    "granian WSGI, 4 threads": module("granian", *GRANIAN_WSGI, "4"),
    "granian ASGI": module("granian", *GRANIAN_ASGI),
    "uvicorn": module("uvicorn", *UVICORN, "hello:asgi"),
    "gunicorn sync": module("gunicorn", *GUNICORN),
    "gunicorn gthread": module("gunicorn", *GUNICORN, "--threads", "4"),
    "WSGI": ours("wsgi"),
    "WSGI, 4 threads": ours("wsgi", "--threads", "4"),
    "ASGI": ours("asgi"),
    "WSGI, cffi": ours("wsgi"),
    "ASGI, cffi": ours("asgi"),
}


class Server:
    """One server in its own process group."""

    def __init__(self, name: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.port = free_port()
        path = os.pathsep.join([str(HERE), str(ROOT / "bindings" / "python")])
        environment = {**os.environ, "PYTHONPATH": path, "IOKERNEL_PURE": "1" if name.endswith("cffi") else ""}
        command = SERVERS[name](self.port, self._folder.name)
        self._child = subprocess.Popen(
            command, env=environment, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + STARTS_S
        while not self._serves():
            if self._child.poll() is not None or time.monotonic() > until:
                self.close()
                raise Unavailable(f"{name} did not start")
            time.sleep(0.05)

    def _serves(self) -> bool:
        try:
            client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=1)
            client.request("GET", "/")
            return client.getresponse().read() == b"Hello, world!"
        except OSError:
            return False
        finally:
            client.close()

    def cpu_s(self) -> float:
        """What all its threads have had of a processor (proc_pid_schedstat)."""
        found = 0.0
        for pid in self._pids():
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += int((task / "schedstat").read_text().split()[0]) / 1e9
        return found

    def _pids(self) -> list[int]:
        found = [self._child.pid]
        for pid in found:
            found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def close(self) -> None:
        for pid in reversed(self._pids() if self._child.poll() is None else []):
            os.kill(pid, 9)
        self._child.wait()
        self._folder.cleanup()


@contextmanager
def started(names: list[str], results: dict[str, Result]) -> Iterator[dict[str, Server]]:
    """All servers that can be had; why not, for the others."""
    with ExitStack() as stack:
        live = {}
        for name in names:
            try:
                live[name] = Server(name)
            except Unavailable as why:
                results[name].missing = str(why)
                continue
            stack.callback(live[name].close)
        yield live


def in_turns(bench: Bench, names: list[str], measure: Callable[[Server], Sample]) -> dict[str, Result]:
    results = {name: Result() for name in names}
    with started(names, results) as live:
        for round_number in range(bench.runs + 1):
            for name, server in live.items():
                sample = measure(server)
                if round_number:
                    results[name].samples.append(sample)
    return results


def wrk(server: Server) -> Sample:
    if not shutil.which("wrk"):
        raise Unavailable("wrk is not installed (Debian: wrk)")
    before = server.cpu_s()
    url = f"http://127.0.0.1:{server.port}/"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LOAD_S}s", "--latency", url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after = server.cpu_s()
    if "Non-2xx" in said or "Socket errors" in said:
        raise Unavailable(f"errors under load: {said}")
    count, p99 = re.search(r"(\d+) requests in", said), re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    second = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert count and p99 and second
    return {
        "rate": float(second[1]),
        "p99": float(p99[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[p99[2]],
        "cpu": (after - before) / int(count[1]),
    }


def about(result: Result) -> str:
    cpu, p99 = result.median("cpu"), result.median("p99")
    return f"{rate(result.median('rate'))}, CPU {span(cpu)}, p99 {span(p99)}" if cpu else "-"


def hello(bench: Bench) -> list[Row]:
    names = [name for name in SERVERS if "4 threads" not in name or name.startswith("WSGI")]
    results = in_turns(bench, names, wrk)
    bounds: list[tuple[str, str, float | None, float | None]] = [
        ("WSGI", "granian WSGI", 1.0, None),
        ("WSGI", "bjoern", None, 1.0),
        ("WSGI", "nginx", None, None),
        ("WSGI", "gunicorn sync", None, None),
        ("WSGI", "gunicorn gthread", None, None),
        ("ASGI", "granian ASGI", 1.0, 1.5),
        ("ASGI", "uvicorn", 2.0, None),
        ("ASGI", "nginx", None, None),
        ("WSGI, 4 threads", "WSGI", None, None),
        ("WSGI, cffi", "WSGI", None, None),
        ("ASGI, cffi", "ASGI", None, None),
    ]
    rows = []
    for mine, peer, must, aim in bounds:
        found = ratio(results[mine].median("rate"), results[peer].median("rate"))
        rows.append(
            Row(
                f"hello world, {mine} against {peer}, {CONNECTIONS} connections",
                about(results[mine]),
                f"{about(results[peer])} {peer}",
                found,
                must=must,
                aim=aim if aim is not None else must,
                note="; ".join(filter(None, (results[mine].missing, results[peer].missing))),
                samples={"ours": results[mine].samples, "peer": results[peer].samples},
            )
        )
    return rows


CLIENTS = 4
PAUSE_S = 0.02
BURNING_S = 4.0


def burning_load(server: Server) -> Sample:
    """Clients that pause between their requests, of which one in ten computes: how long the others take."""
    took: list[float] = []

    def client(seed: int) -> None:
        choose = random.Random(seed)
        conn = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        conn.connect()
        conn.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until = time.monotonic() + BURNING_S
        while time.monotonic() < until:
            burns = choose.random() < 0.1
            started_at = time.perf_counter()
            conn.request("GET", "/burn" if burns else "/")
            conn.getresponse().read()
            if not burns:
                took.append(time.perf_counter() - started_at)
            time.sleep(PAUSE_S * choose.random() * 2)
        conn.close()

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took.sort()
    return {"p99": took[int(len(took) * 0.99)], "p50": took[len(took) // 2], "rate": len(took) / BURNING_S}


def burning(bench: Bench) -> list[Row]:
    names = ["WSGI, 4 threads", "WSGI", "granian WSGI, 4 threads", "granian WSGI", "gunicorn gthread", "bjoern"]
    results = in_turns(bench, names, burning_load)
    mine = results["WSGI, 4 threads"]
    return [
        Row(
            f"fast requests while one in ten computes for 20 ms: p99 with 4 threads against {peer}",
            f"{span(mine.median('p99'))}, p50 {span(mine.median('p50'))}",
            f"{span(results[peer].median('p99'))}, p50 {span(results[peer].median('p50'))} {peer}",
            ratio(mine.median("p99"), results[peer].median("p99")),
            must=1.0,
            aim=0.7,
            at_least=False,
            note="; ".join(filter(None, (mine.missing, results[peer].missing))),
            samples={"ours": mine.samples, "peer": results[peer].samples},
        )
        for peer in names[1:]
    ]
