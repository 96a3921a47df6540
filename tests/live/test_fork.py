"""Children of a Python program, made in every way there is: each works at once, and the parent notices nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from support import net
from support.program import ROOT
from support.servers import RedisServer

SOAK = bool(os.environ.get("IOKERNEL_SOAK"))

Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs a program from a file, as multiprocessing needs it; its output."""

    def run(source: str, *arguments: str, timeout: float = 100) -> str:
        path = tmp_path / "program.py"
        path.write_text(source)
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "bindings" / "python")}
        command = [sys.executable, str(path), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    return run


LOAD = """
import os, sys, threading, iokernel
cache = iokernel.open(sys.argv[1])
rounds = int(sys.argv[2])
own = cache.call("CLIENT", "ID")
over = False
counts = [0, 0]
def load(number):
    while not over:
        word = f"{number}:{counts[number]}:" + "x" * (counts[number] % 5000)
        assert cache.call("ECHO", word) == word.encode()
        counts[number] += 1
threads = [threading.Thread(target=load, args=(number,)) for number in range(2)]
for thread in threads:
    thread.start()
def child(round):
    key = f"child:{round}"
    assert cache.call("SET", key, round) == "OK"
    assert cache.call("GET", key) == str(round).encode()
    assert cache.call("CLIENT", "ID") != own
for round in range(rounds):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child(round)
            code = 0
        finally:
            if round % 10 or code:
                os._exit(code)
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0, round
over = True
for thread in threads:
    thread.join(20)
    assert not thread.is_alive()
assert min(counts) > 0
assert cache.call("CLIENT", "ID") == own
print(cache.call("DBSIZE"))
"""


@pytest.mark.timeout(700)
def test_forks_under_load_harm_neither_side(redis_server: RedisServer, run: Run) -> None:
    rounds = 5000 if SOAK else 1000
    assert run(LOAD, redis_server.url, str(rounds), timeout=600 if SOAK else 110) == f"{rounds}\n"


DESCRIPTORS = """
import gc, os, subprocess, sys, tempfile
def listed(path="/proc/self/fd"):
    found = []
    for name in os.listdir(path):
        try:
            found.append((int(name), os.readlink(f"{path}/{name}")))
        except OSError:
            continue
    # Counters stay shared with the parent: their file is the one that a child keeps.
    return sorted(one for one in found if not one[1].startswith(("/proc/", "/memfd:iokernel-metrics")))
def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout
before = listed()
import iokernel
cache = iokernel.open(sys.argv[1])
listener = iokernel.listen("redis://127.0.0.1:0")
pending = cache("BLPOP", "nothing-here", 0)
assert cache.call("PING") == "PONG"
assert len(listed()) > len(before) + 4
for close_fds in (True, False):
    out = run("ls", "-l", "/proc/self/fd", close_fds=close_fds)
    assert not any(kind in out for kind in ("socket:", "anon_inode", "memfd")), out
pid = os.fork()
if pid == 0:
    try:
        assert listed() == before, listed()
        files = [tempfile.TemporaryFile() for _ in range(40)]
        stale = pending
        del pending, listener
        gc.collect()
        assert cache.call("PING") == "PONG"
        cache.kernel.close()
        del cache, stale
        gc.collect()
        for number, file in enumerate(files):
            file.write(b"%d" % number)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            assert file.read() == b"%d" % number
    except BaseException:
        import traceback
        traceback.print_exc()
        os._exit(1)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert not pending.done()
assert cache.call("PING") == "PONG"
print("fine")
"""


def test_a_child_has_no_descriptor_of_the_parents(redis_server: RedisServer, run: Run) -> None:
    assert run(DESCRIPTORS, redis_server.url) == "fine\n"


EXEC = """
import os, sys
kinds = ("socket:", "anon_inode", "memfd")
def ours():
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            pass
    return [link for link in links if any(kind in link for kind in kinds)]
if len(sys.argv) > 2:
    import iokernel
    assert not ours(), ours()
    assert iokernel.open(sys.argv[1]).call("GET", "key") == b"before"
    print("fine")
else:
    import iokernel
    cache = iokernel.open(sys.argv[1])
    cache.call("SET", "key", "before")
    pending = cache("BLPOP", "nothing-here", 0)
    assert ours()
    os.execv(sys.executable, [sys.executable, *sys.argv, "again"])
"""


def test_exec_in_place(redis_server: RedisServer, run: Run) -> None:
    assert run(EXEC, redis_server.url) == "fine\n"
    net.wait_for("the first program's connections to end", lambda: not redis_server.clients())


POOLS = """
import concurrent.futures, multiprocessing, sys, iokernel
cache = iokernel.open(sys.argv[1]) if __name__ == "__main__" else None
def begin(url):
    global cache
    if cache is None:
        cache = iokernel.open(url)
def work(key):
    return cache.call("INCR", key), cache.call("CLIENT", "ID")
if __name__ == "__main__":
    url, how = sys.argv[1:]
    own = cache.call("CLIENT", "ID")
    context = multiprocessing.get_context(how)
    with context.Pool(2, begin, (url,)) as pool:
        got = pool.map(work, ["pool"] * 20, chunksize=1)
    assert sorted(number for number, _ in got) == list(range(1, 21)), got
    assert own not in {id for _, id in got}
    with concurrent.futures.ProcessPoolExecutor(2, context, begin, (url,)) as pool:
        got = list(pool.map(work, ["executor"] * 20))
    assert sorted(number for number, _ in got) == list(range(1, 21)), got
    assert own not in {id for _, id in got}
    assert cache.call("CLIENT", "ID") == own
    print("fine")
"""


@pytest.mark.parametrize("how", ["fork", "forkserver", "spawn"])
def test_pools_of_processes(how: str, redis_server: RedisServer, run: Run) -> None:
    assert run(POOLS, redis_server.url, how) == "fine\n"


ASYNCIO = """
import asyncio, os, sys, iokernel
cache = iokernel.open(sys.argv[1])
async def parent():
    own = await cache("CLIENT", "ID")
    pending = cache("BLPOP", "list", 0)
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            return own, None
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            assert await cache("ECHO", "parent") == b"parent"
    await cache("RPUSH", "list", "element")
    assert await asyncio.wait_for(pending, 10) == [b"list", b"element"]
    assert await cache("CLIENT", "ID") == own
    return own, "fine"
async def child(own):
    assert await cache("CLIENT", "ID") != own
    assert await asyncio.gather(*(cache("ECHO", str(n)) for n in range(50))) == [b"%d" % n for n in range(50)]
def main():
    me = os.getpid()
    try:
        own, said = asyncio.run(parent())
    except BaseException:
        if os.getpid() == me:
            raise
        own, said = None, None
    if os.getpid() == me:
        print(said)
        return
    code = 1
    try:
        asyncio._set_running_loop(None)
        asyncio.run(child(own))
        code = 0
    finally:
        os._exit(code)
main()
"""


def test_forks_inside_of_a_loop(redis_server: RedisServer, run: Run) -> None:
    assert run(ASYNCIO, redis_server.url) == "fine\n"


APP = """
import os, sys
sys.path.insert(0, {path!r})
import iokernel
cache = iokernel.open({url!r}, client_name="web")
OWN = cache.call("CLIENT", "ID")
def app(environ, start_response):
    number, id = cache.call("INCR", "visits"), cache.call("CLIENT", "ID")
    body = f"{{os.getpid()}} {{os.getppid()}} {{number}} {{id}} {{OWN}}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""


class Site:
    """gunicorn --preload with two workers."""

    def __init__(self, folder: Path, url: str) -> None:
        (folder / "web.py").write_text(APP.format(path=str(ROOT / "bindings" / "python"), url=url))
        self.port = net.free_port()
        command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--chdir", str(folder)]
        command += ["--no-control-socket"] if _has_control_socket() else []
        self.log = folder / "log"
        with self.log.open("wb") as log:
            bind = ["--bind", f"127.0.0.1:{self.port}", "web:app"]
            self.child = subprocess.Popen([*command, *bind], cwd=folder, stdout=log, stderr=log)

    def get(self) -> list[int]:
        """Process, parent, number of the visit, connection, the parent's connection."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=10) as reply:
            return [int(word) for word in reply.read().split()]

    def answers(self) -> bool:
        try:
            return bool(self.get())
        except OSError:
            return False

    def workers(self, count: int, besides: frozenset[int] = frozenset()) -> dict[int, int]:
        """The connection of each worker, once so many have answered."""
        seen: dict[int, int] = {}

        def look() -> bool:
            if self.answers():
                process, _, _, conn, own = self.get()
                assert seen.setdefault(process, conn) == conn != own
            return len(seen.keys() - besides) >= count

        net.wait_for(f"{count} workers", look, 30)
        return seen

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *error: object) -> None:
        self.child.terminate()
        try:
            assert self.child.wait(20) == 0
        finally:
            self.child.kill()
            self.child.wait()


def _has_control_socket() -> bool:
    text = subprocess.run([sys.executable, "-m", "gunicorn", "--help"], capture_output=True, text=True, check=False)
    return "--no-control-socket" in text.stdout


def test_gunicorn_preload(redis_server: RedisServer, tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    with Site(tmp_path, redis_server.url) as site:
        net.wait_for("gunicorn", site.answers, 30)
        first = site.workers(2)
        assert len(set(first.values())) == 2, "each worker has a connection of its own"
        _, parent, _, _, own = site.get()
        assert parent == site.child.pid
        mine = [row for row in redis_server.clients() if int(row["id"]) == own]
        assert [row["cmd"] for row in mine] == ["client|id"], "nobody used the parent's connection"
        victim = next(iter(first))
        os.kill(victim, signal.SIGKILL)
        after = site.workers(1, frozenset(first))
        assert victim not in after
        assert [row["id"] for row in redis_server.clients() if int(row["id"]) == own]
    assert "Traceback" not in site.log.read_text(), site.log.read_text()


def test_a_socket_server_that_forks(redis_server: RedisServer, run: Run) -> None:
    """A child for each client, as socketserver makes them, while clients of our own listener are served."""
    assert run(FORKING, redis_server.url) == "fine\n"


FORKING = """
import socket, socketserver, sys, threading, iokernel
cache = iokernel.open(sys.argv[1])
own = cache.call("CLIENT", "ID")
listener = iokernel.listen("redis://127.0.0.1:0")
threading.Thread(target=listener.serve, args=(lambda request: request.args,), daemon=True).start()
ours = iokernel.open(listener.url)
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"%d" % cache.call("CLIENT", "ID"))
with socketserver.ForkingTCPServer(("127.0.0.1", 0), Handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen = set()
    for number in range(20):
        with socket.create_connection(server.server_address, 10) as conn:
            seen.add(int(conn.makefile().read()))
        assert ours.call("ECHO", str(number))[1] in (str(number), str(number).encode())
    server.shutdown()
assert len(seen) == 20 and own not in seen
assert cache.call("CLIENT", "ID") == own
print("fine")
"""
