"""The end of a Python program, signals in its waits, and a system that refuses: bounded, quiet, with statuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import iokernel
import pytest
from support.program import ROOT, Program
from support.servers import RedisServer

NO_FILES_STATUS = -403
CLOSE_S = 4.0
"""Two seconds of grace, and a machine that is busy."""


@pytest.fixture
def hole() -> Iterator[str]:
    """The URL of an address that never answers: a listener whose backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        for one in fill:
            one.close()


@pytest.fixture
def stuck(tmp_path: Path) -> str:
    """A resolv.conf whose server never answers."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 192.0.2.1\noptions timeout:30 attempts:5\n")
    return str(path)


UNDER_WAY = """
import atexit, os, sys, threading, time, weakref, iokernel
url, hole, stuck, how = sys.argv[1:]
kernel = iokernel.Kernel(resolv_conf=stuck)
good, silent, lost = kernel.open(url), kernel.open(hole), kernel.open("redis://nowhere.example.com")
nobody = kernel.open("redis://192.0.2.1:6379")
good.wait_ready(10)
lease = good.lease().acquire()
pending = [one("BLPOP", "nothing-here", 0) for one in (good, silent, lost, nobody)]
news = good.subscribe("SUBSCRIBE", "news")
def forever():
    try:
        good.call("BLPOP", "nothing-here", 0)
    except iokernel.Error:
        pass
for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.1)
start = time.monotonic()
def close():
    kernel.close(0.1)
    if time.monotonic() - start > 4:
        print("slow", time.monotonic() - start)
class Late:
    def __del__(self):
        close()
if how == "twice":
    close()
    close()
elif how == "threads":
    closers = [threading.Thread(target=close) for _ in range(8)]
    for closer in closers:
        closer.start()
    for closer in closers:
        closer.join()
elif how == "atexit":
    atexit.register(close)
elif how == "finalizer":
    late = Late()
    sys.late = late
elif how == "weakref":
    late = Late()
    weakref.finalize(late, kernel.close)
elif how == "child":
    pid = os.fork()
    if pid == 0:
        close()
        close()
        del kernel, good, silent, lost, nobody, lease, pending, news
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert good.call("PING") == "PONG"
    close()
"""


@pytest.mark.parametrize("how", ["twice", "threads", "atexit", "finalizer", "weakref", "child", "nothing"])
def test_a_close_is_bounded_whatever_is_under_way(redis_server: RedisServer, hole: str, stuck: str, how: str) -> None:
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'bindings' / 'python')!r})\n"
    command = [sys.executable, "-c", path + UNDER_WAY, redis_server.url, hole, stuck, how]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, timeout=40, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - start < 20


def test_a_close_in_this_process(redis_server: RedisServer, hole: str, stuck: str) -> None:
    kernel = iokernel.Kernel(resolv_conf=stuck)
    pending = [kernel.open(url)("BLPOP", "nothing", 0) for url in (redis_server.url, hole, "redis://nowhere.example")]
    start = time.monotonic()
    kernel.close(0.2)
    kernel.close(0.2)
    assert time.monotonic() - start < 0.2 + CLOSE_S
    for future in pending:
        with pytest.raises(iokernel.Closed):
            future.result(5)


WAITING = """
import json, sys, time, iokernel
cache = iokernel.open(sys.argv[1])
cache.wait_ready(10)
for _ in range(5):
    print(json.dumps({"waiting": True}), flush=True)
    try:
        cache.call("BLPOP", "nothing-here", 0)
    except KeyboardInterrupt:
        print(json.dumps({"at": time.monotonic()}), flush=True)
    assert cache.call("PING") == "PONG"
"""


def test_ctrl_c_interrupts_a_call_at_once(redis_server: RedisServer) -> None:
    with Program(WAITING, redis_server.url) as program:
        took = []
        for _ in range(5):
            program.hear()
            time.sleep(0.2)
            start = time.monotonic()
            os.kill(program._child.pid, signal.SIGINT)
            took.append(program.hear()["at"] - start)
    assert min(took) < 0.1, took


def io_threads(process: int) -> list[dict[str, str]]:
    """The status of each thread of a kernel."""
    found = []
    for folder in Path(f"/proc/{process}/task").iterdir():
        rows = (line.partition(":") for line in (folder / "status").read_text().splitlines())
        status = {name: value.strip() for name, _, value in rows}
        if status["Name"] == "masked":
            found.append(status)
    return found


def test_the_thread_of_a_kernel_takes_no_signals(redis_server: RedisServer) -> None:
    with iokernel.Kernel(name="masked") as kernel:
        assert kernel.open(redis_server.url).call("PING") == "PONG"
        [status] = io_threads(os.getpid())
        blocked = int(status["SigBlk"], 16)
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            assert blocked >> (number - 1) & 1, number


STORM = """
import signal, sys, iokernel
cache = iokernel.open(sys.argv[1])
seen = {}
def handler(number, _):
    seen[number] = seen.get(number, 0) + 1
timers = {
    signal.SIGALRM: signal.ITIMER_REAL,
    signal.SIGPROF: signal.ITIMER_PROF,
    signal.SIGVTALRM: signal.ITIMER_VIRTUAL,
}
for number, timer in timers.items():
    signal.signal(number, handler)
    signal.setitimer(timer, 0.0005, 0.0005)
for turn in range(3000):
    word = f"{turn}:" + "x" * (turn % 3000)
    assert cache.call("ECHO", word) == word.encode()
cache.call("BLPOP", "nothing-here", 0.2)
for timer in timers.values():
    signal.setitimer(timer, 0)
assert seen[signal.SIGALRM] > 10 and seen[signal.SIGPROF] > 1, seen
print("fine")
"""


def test_storms_of_timers_break_no_call(redis_server: RedisServer) -> None:
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'bindings' / 'python')!r})\n"
    command = [sys.executable, "-c", path + STORM, redis_server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr


NO_FILES = """
import os, resource, socket, sys, time, iokernel
url = sys.argv[1]
good = iokernel.open(url)
assert good.call("PING") == "PONG"
listener = iokernel.listen("redis://127.0.0.1:0")
import threading
threading.Thread(target=listener.serve, args=(lambda request: request.args,), daemon=True).start()
port = int(listener.url.rpartition(":")[2])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
client = socket.socket()
client.settimeout(10)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
def refused(what):
    try:
        what()
    except iokernel.Error as error:
        return error
    raise AssertionError("not refused")
NO_FILES = int(sys.argv[2])
assert refused(iokernel.Kernel).status == NO_FILES
assert refused(lambda: iokernel.listen("redis://127.0.0.1:0")).status == NO_FILES
other = iokernel.open(url, backoff="5ms", max_backoff="50ms")
error = refused(lambda: other.call("PING", timeout=0.3))
assert error.fate == "not_sent" and "Too many open files" in str(error), error
assert good.call("PING") == "PONG"
client.connect(("127.0.0.1", port))
client.sendall(b"*1\\r\\n$4\\r\\nPING\\r\\n")
time.sleep(0.3)
assert good.call("PING") == "PONG"
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert client.recv(100)
other.wait_ready(10)
assert other.call("PING") == "PONG"
iokernel.Kernel().close()
print("fine")
"""


def test_without_descriptors_there_are_errors_and_then_a_recovery(redis_server: RedisServer) -> None:
    path = f"import sys; sys.path.insert(0, {str(ROOT / 'bindings' / 'python')!r})\n"
    command = [sys.executable, "-c", path + NO_FILES, redis_server.url, str(NO_FILES_STATUS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
