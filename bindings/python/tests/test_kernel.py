"""Kernels, forks, signals, interpreter shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import iokernel
import pytest

Script = Callable[..., str]


def test_kernels_are_apart(url: str) -> None:
    with iokernel.Kernel(name="one") as one, iokernel.Kernel(name="two") as two:
        a, b = one.open(url), two.open(url)
        assert (a.call("PING"), b.call("PING")) == ("PONG", "PONG")
        one.close()
        with pytest.raises(iokernel.Closed):
            a.call("PING")
        assert b.call("PING") == "PONG"
    with pytest.raises(iokernel.Closed):
        two.open(url)
    two.close()
    a.close()


def test_close_wakes_a_thread_that_waits(url: str) -> None:
    kernel = iokernel.Kernel()
    endpoint = kernel.open(url)
    caught: list[BaseException] = []

    def work() -> None:
        try:
            endpoint.call("BLPOP", "nothing", 0)
        except iokernel.Error as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.1)
    kernel.close()
    thread.join(5)
    assert not thread.is_alive()
    assert isinstance(caught[0], iokernel.Closed)


def test_close_drains(url: str) -> None:
    kernel = iokernel.Kernel()
    future = kernel.open(url)("BLPOP", "nothing", 0.2)
    kernel.close(drain=5)
    assert future.result(1) is None


FORK = """
import os, sys, iokernel
cache = iokernel.open(sys.argv[1])
before = cache.call("CLIENT", "ID")
pending = cache("BLPOP", "nothing-here", 0)
pid = os.fork()
if pid == 0:
    code = 1
    try:
        assert cache.call("CLIENT", "ID") != before
        try:
            pending.result(1)
        except iokernel.Closed:
            pass
        with cache.lease() as conn:
            assert conn.call("PING") == "PONG"
        import asyncio
        async def main():
            assert await cache("PING") == "PONG"
        asyncio.run(main())
        if os.fork() == 0:
            assert cache.call("PING") == "PONG"
            os._exit(0)
        assert os.wait()[1] == 0
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
assert cache.call("CLIENT", "ID") == before
pending.cancel()
print("fine")
"""


def test_fork(script: Script, url: str) -> None:
    assert script(FORK, url) == "fine\n"


MULTIPROCESSING = """
import multiprocessing, sys, iokernel
cache = None
def work(key):
    return cache.call("INCR", key)
def begin(url):
    global cache
    cache = iokernel.open(url)
if __name__ == "__main__":
    begin(sys.argv[1])
    cache.call("DEL", "mp")
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert sorted(pool.map(work, ["mp"] * 20)) == list(range(1, 21))
    with multiprocessing.get_context("spawn").Pool(2, begin, (sys.argv[1],)) as pool:
        assert sorted(pool.map(work, ["mp"] * 20)) == list(range(21, 41))
    print(cache.call("GET", "mp"))
"""


def test_multiprocessing(tmp_path: os.PathLike[str], url: str) -> None:
    path = os.path.join(tmp_path, "program.py")
    with open(path, "w") as file:
        file.write(MULTIPROCESSING)
    done = subprocess.run([sys.executable, path, url], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "b'40'\n"), done.stderr


INTERRUPT = """
import sys, time, iokernel
cache = iokernel.open(sys.argv[1])
cache.wait_ready(5)
print("waiting", flush=True)
start = time.monotonic()
try:
    cache.call("BLPOP", "nothing-here", 0)
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert cache.call("PING") == "PONG"
"""


def test_ctrl_c(url: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPT, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "waiting\n"
    time.sleep(0.2)
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == "interrupted\n"
    assert time.monotonic() - start < 0.9, "only the periodic look saw the signal"
    _, errors = child.communicate(timeout=10)
    assert child.returncode == 0, errors


HANDLER = """
import signal, sys, iokernel
cache = iokernel.open(sys.argv[1])
seen = []
def handler(*_):
    seen.append(cache.call("PING"))
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
for _ in range(50):
    cache.call("BLPOP", "nothing-here", 0.02)
signal.setitimer(signal.ITIMER_REAL, 0)
assert len(seen) > 10 and set(seen) == {"PONG"}, seen
print("fine")
"""


def test_calls_inside_of_signal_handlers(script: Script, url: str) -> None:
    assert script(HANDLER, url) == "fine\n"


EXITS = {
    "nothing": "",
    "pending future": "future = cache('BLPOP', 'nothing-here', 0)",
    "subscription": "sub = cache.subscribe('SUBSCRIBE', 'news')",
    "lease": "lease = cache.lease().acquire()",
    "listener": "listener = iokernel.listen('redis://127.0.0.1:0')",
    "serving thread": """
import threading
listener = iokernel.listen('redis://127.0.0.1:0')
threading.Thread(target=listener.serve, args=(lambda r: r.args,), daemon=True).start()""",
    "daemon thread": """
import threading, time
threading.Thread(target=cache.call, args=('BLPOP', 'nothing-here', 0), daemon=True).start()
time.sleep(0.1)""",
    "finalizer": """
class Late:
    def __del__(self):
        try:
            self.cache.call('PING')
        except Exception:
            pass
late = Late()
late.cache = cache
sys.late = late""",
    "loop never closed": """
import asyncio
loop = asyncio.new_event_loop()
async def main():
    return await cache('PING')
assert loop.run_until_complete(main()) == 'PONG'
import warnings
warnings.simplefilter('ignore')""",
    "exit inside of a loop": """
import asyncio
async def main():
    await cache('PING')
    sys.exit(0)
asyncio.run(main())""",
}


@pytest.mark.parametrize("name", EXITS)
def test_exit_is_quick_and_silent(name: str, url: str) -> None:
    source = f"import sys, iokernel\ncache = iokernel.open(sys.argv[1])\n{EXITS[name]}"
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", source, url], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert time.monotonic() - start < 10


def test_doctor(script: Script, url: str) -> None:
    command = [sys.executable, "-m", "iokernel"]
    found = subprocess.run([*command, "doctor", url], capture_output=True, text=True, timeout=30, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "round trip" in found.stdout
    assert "redis 7" in found.stdout
    wrong = subprocess.run(
        [*command, "doctor", f"{url}?heartbeat=5"], capture_output=True, text=True, timeout=30, check=False
    )
    assert wrong.returncode == 1
    assert "heartbeat" in wrong.stdout
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=30, check=False)
    assert version.stdout.split()[1] == iokernel.__version__


STORM = """
import signal, sys, iokernel
cache = iokernel.open(sys.argv[1])
cache.call("SET", "key", b"x" * 100)
class Ring(BaseException):
    pass
armed = False
rings = 0
def handler(*_):
    global armed, rings
    if armed:
        armed = False
        rings += 1
        raise Ring
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
def until_done(work):
    global armed
    while True:
        try:
            try:
                armed = True
                return work()
            finally:
                armed = False
        except Ring:
            pass
for _ in range(60):
    futures = [until_done(lambda: cache("GET", "key")) for _ in range(200)]
    for future in futures:
        assert until_done(lambda: future.result(10)) == b"x" * 100
signal.setitimer(signal.ITIMER_REAL, 0)
assert rings
print("fine")
"""


def test_signals_that_raise_lose_no_reply(script: Script, url: str) -> None:
    assert script(STORM, url) == "fine\n"
