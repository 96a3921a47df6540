"""`/stack`: where a program's threads are, asked through the admin endpoint while they hang."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support import net
from support.program import Program

PRELUDE = """
import ctypes, faulthandler, json, os, re, signal, sys, threading, time
import iokernel
C = ctypes.PyDLL(None, use_errno=True)
def tell(**told):
    sys.stdout.write(json.dumps(told) + "\\n")
    sys.stdout.flush()
def caught():
    status = open("/proc/self/status").read()
    return bool(int(re.search(r"SigCgt:\\t(\\w+)", status)[1], 16) >> (signal.SIGURG - 1) & 1)
"""


class Admin(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))

    def ask(self, path: str = "/stack") -> tuple[int, Any]:
        try:
            self.request("GET", path)
            reply = self.getresponse()
            body = reply.read()
        finally:
            self.close()
        return reply.status, json.loads(body) if reply.status == 200 else body.decode()

    def stack(self, path: str = "/stack") -> dict[str, Any]:
        """An answer without error; a busy machine may let a thread miss its time."""
        told: dict[str, Any] = {}
        for _ in range(20):
            status, told = self.ask(path)
            assert status == 200, told
            if "not answered" not in told.get("error", ""):
                break
            time.sleep(0.05)
        return told


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin"


def functions(told: dict[str, Any]) -> list[str]:
    return [frame["function"] for frame in told["python"]]


def hangs_in(admin: Admin, function: str) -> dict[str, Any]:
    """The answer once the main thread is in a function."""
    found: dict[str, Any] = {}

    def look() -> bool:
        found.update(admin.stack())
        return function in functions(found["main"])

    net.wait_for(f"the program to be in {function}", look, 20)
    return found


REGEX = (
    PRELUDE
    + """
kernel = iokernel.Kernel(admin="unix:" + sys.argv[1])
def hang_here():
    re.match(r"(a+)+b", "a" * 60)
tell(pid=os.getpid())
hang_here()
"""
)


def test_a_c_call_that_holds_the_gil_is_named(path: Path) -> None:
    with Program(REGEX, str(path)) as program:
        pid = program.hear()["pid"]
        told = hangs_in(Admin(path), "hang_here")
        os.kill(pid, 9)
    main = told["main"]
    assert told["pid"] == main["tid"] == pid
    assert functions(main) == ["match", "hang_here", "<module>"]
    assert main["python"][0]["file"].endswith(".py") and main["python"][0]["line"] > 0
    assert " in hang_here\n" in main["text"]
    assert any("sre_" in frame for frame in main["native"]), main["native"]
    assert main["state"] == "R"
    names = {thread["name"] for thread in told["threads"]}
    assert "iokernel" in names and len(told["threads"]) == 2


READ = (
    PRELUDE
    + """
kernel = iokernel.Kernel(admin="unix:" + sys.argv[1])
def waits_for_good():
    return C.read(0, ctypes.create_string_buffer(3), 3)
tell()
tell(read=waits_for_good())
"""
)


def test_a_wait_in_the_system_is_named_and_goes_on(path: Path) -> None:
    with Program(READ, str(path)) as program:
        program.hear()
        admin = Admin(path)
        told = hangs_in(admin, "waits_for_good")
        # It may still be leaving the handler of the ask before.
        assert told["main"]["state"] in "SR"
        assert any("read" in frame for frame in told["main"]["native"]), told
        for _ in range(20):
            admin.stack()
        program.go_on()
        assert program.hear() == {"read": 3}, "the call was interrupted"


BLOCKED = (
    PRELUDE
    + """
kernel = iokernel.Kernel(admin="unix:" + sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
tell()
sys.stdin.readline()
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGURG})
tell()
sys.stdin.readline()
"""
)


def test_a_thread_that_blocks_the_signal_says_so(path: Path) -> None:
    with Program(BLOCKED, str(path)) as program:
        program.hear()
        told = Admin(path).stack()
        assert told["error"] == told["main"]["error"] == "the thread blocks SIGURG"
        assert told["main"]["python"] == told["main"]["native"] == []
        assert told["main"]["state"] in "RS"
        program.go_on()
        program.hear()
        assert "error" not in Admin(path).stack()


OWN = (
    PRELUDE
    + """
heard = []
def handler(number, frame):
    heard.append(number)
if "before" in sys.argv:
    signal.signal(signal.SIGURG, handler)
kernel = iokernel.Kernel(admin="unix:" + sys.argv[1])
if "after" in sys.argv:
    signal.signal(signal.SIGURG, handler)
def rounds():
    for line in sys.stdin:
        os.kill(os.getpid(), signal.SIGURG)
        signal.raise_signal(signal.SIGURG)
        tell(heard=len(heard), caught=caught())
        if len(heard) >= 4 or "neither" in sys.argv:
            break
tell()
rounds()
kernel.close()
signal.raise_signal(signal.SIGURG)
tell(heard=len(heard), caught=caught())
"""
)


@pytest.mark.parametrize("when", ["before", "after", "neither"])
def test_the_programs_own_handler_is_left_alone(path: Path, when: str) -> None:
    with Program(OWN, str(path), when) as program:
        program.hear()
        admin = Admin(path)
        if when == "after":
            assert admin.stack()["error"] == "the program has another handler for SIGURG"
        else:
            assert "rounds" in functions(hangs_in(admin, "rounds")["main"])
        each = 0 if when == "neither" else 2
        program.go_on()
        assert program.hear() == {"heard": each, "caught": True}
        if each:
            admin.stack()
            program.go_on()
            assert program.hear() == {"heard": 4, "caught": True}
        assert program.hear() == {"heard": 5 if each else 0, "caught": bool(each)}


THREADS = (
    PRELUDE
    + """
sys.setswitchinterval(1e-5)
kernel = iokernel.Kernel(admin="unix:" + sys.argv[1])
def spins():
    told.append(threading.get_native_id())
    while not over:
        sum(range(100))
told, over = [], False
threads = [threading.Thread(target=spins) for _ in range(3)]
for thread in threads:
    thread.start()
while len(told) < 3:
    time.sleep(0.01)
tell(tids=told)
sys.stdin.readline()
over = True
"""
)


def test_each_thread_can_be_asked(path: Path) -> None:
    with Program(THREADS, str(path)) as program:
        tids = program.hear()["tids"]
        admin = Admin(path)
        for tid in tids:
            told = admin.stack(f"/stack?thread={tid}")
            assert told["thread"]["tid"] == tid
            assert "spins" in functions(told["thread"]), told
        told = admin.stack("/stack?threads=all")
        assert {thread["tid"] for thread in told["threads"]} >= {*tids, told["pid"]}
        assert told["main"]["tid"] == told["pid"]
        kernels = [thread for thread in told["threads"] if thread["name"] == "iokernel"]
        assert [thread["error"] for thread in kernels] == ["the thread blocks SIGURG"]
        assert admin.ask("/stack?thread=1")[0] == 400
        assert admin.ask("/stack?thread=x")[0] == 400
        assert admin.ask("/stack?thraed=1")[0] == 400
        program.go_on()


BUSY = (
    PRELUDE
    + """
kernel = iokernel.Kernel(admin="unix:" + sys.argv[1])
fds = len(os.listdir("/proc/self/fd"))
def works():
    until, forks = time.monotonic() + float(sys.argv[2]), 0
    while time.monotonic() < until:
        assert sum(n * n for n in range(2000)) == 2664667000
        assert len([bytes(n) for n in range(2000)]) == 2000
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        forks += 1
        if forks % 20 == 0:
            import subprocess
            subprocess.run(["true"], check=True)
    return forks
tell()
forks = works()
tell(forks=forks, fds=len(os.listdir("/proc/self/fd")) - fds)
"""
)


def test_a_hundred_asks_a_second_harm_nobody(path: Path) -> None:
    seconds = 3.0
    answers: list[dict[str, Any]] = []

    def ask(until: float) -> None:
        admin = Admin(path)
        while time.monotonic() < until:
            status, told = admin.ask()
            assert status == 200
            answers.append(told)
            time.sleep(0.015)

    with Program(BUSY, str(path), str(seconds + 1)) as program:
        program.hear()
        askers = [threading.Thread(target=ask, args=(time.monotonic() + seconds,)) for _ in range(2)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        told = program.hear()
    whole = [one for one in answers if "error" not in one]
    assert told["forks"] > 10
    assert told["fds"] <= 1, "descriptors were left behind"
    assert len(answers) > 50
    assert len(whole) > len(answers) / 2, [one.get("error") for one in answers]
    assert all("<module>" in functions(one["main"]) for one in whole if one["main"]["python"])
    assert sum("works" in functions(one["main"]) for one in whole) > len(whole) / 2


CHILDREN = (
    PRELUDE
    + """
kernel = iokernel.Kernel(admin="unix:" + sys.argv[1])
def stray(numbers):
    files = [open(f"{sys.argv[1]}-{number}", "w+b", buffering=0) for number in range(20)]
    os.kill(os.getpid(), signal.SIGURG)
    signal.raise_signal(signal.SIGURG)
    assert all(os.fstat(file.fileno()).st_size == 0 for file in files), "a handler wrote to a stranger's file"
def in_child():
    os.read(begin, 1)
for number in range(3):
    begin, go = os.pipe()
    if os.fork() == 0:
        assert not caught()
        stray(number)
        own = iokernel.Kernel(admin=f"unix:{sys.argv[1]}.{number}")
        tell(pid=os.getpid())
        os.close(go)
        in_child()
        own.close()
        assert not caught()
        os._exit(0)
    os.close(begin)
def in_parent():
    sys.stdin.readline()
in_parent()
os.close(go)
"""
)


def test_children_have_doors_of_their_own(path: Path) -> None:
    with Program(CHILDREN, str(path)) as program:
        pids = {program.hear()["pid"] for _ in range(3)}
        children = [hangs_in(Admin(Path(f"{path}.{number}")), "in_child") for number in range(3)]
        assert {told["pid"] for told in children} == pids
        assert "in_parent" in functions(hangs_in(Admin(path), "in_parent")["main"])
        program.go_on()


NOTHING = (
    PRELUDE
    + """
kernel = iokernel.Kernel(admin="unix:" + sys.argv[1], stack=False)
tell(caught=caught())
sys.stdin.readline()
with iokernel.Kernel(), iokernel.Kernel(stack=True, stack_signal="RTMIN+7"):
    tell(caught=caught())
    sys.stdin.readline()
for bad in ("KILL", "SEGV", "11", "0", "CHLD", "RTMIN+99", ""):
    try:
        iokernel.Kernel(stack_signal=bad)
    except iokernel.ConfigError as error:
        assert "stack_signal" in str(error), error
    else:
        raise AssertionError(bad)
tell()
"""
)


def test_nothing_is_installed_unless_asked_for(path: Path) -> None:
    with Program(NOTHING, str(path)) as program:
        assert program.hear() == {"caught": False}
        admin = Admin(path)
        assert admin.stack()["error"] == "the program has not opened its stack"
        program.go_on()
        assert program.hear() == {"caught": False}
        told = admin.stack()
        assert "error" not in told and "<module>" in functions(told["main"]), "another kernel's signal serves as well"
        program.go_on()
        program.hear()


TWO = (
    PRELUDE
    + """
def waits(left):
    if left:
        return waits(left - 1)
    sys.stdin.readline()
for _ in range(2):
    kernels = [iokernel.Kernel(admin=f"unix:{sys.argv[1]}.{number}") for number in range(2)]
    tell(caught=caught())
    waits(20)
    kernels.pop().close()
    tell(caught=caught())
    waits(20)
    kernels.pop().close()
    tell(caught=caught())
    waits(0)
"""
)


def test_kernels_share_one_door(path: Path) -> None:
    paths = [Path(f"{path}.{number}") for number in range(2)]
    answers: list[dict[str, Any]] = []

    def ask(of: Path) -> None:
        for _ in range(30):
            answers.append(Admin(of).stack())

    with Program(TWO, str(path)) as program:
        for _ in range(2):
            assert program.hear() == {"caught": True}
            hangs_in(Admin(paths[1]), "waits")
            askers = [threading.Thread(target=ask, args=(one,)) for one in paths]
            for asker in askers:
                asker.start()
            for asker in askers:
                asker.join()
            program.go_on()
            assert program.hear() == {"caught": True}
            assert functions(hangs_in(Admin(paths[0]), "waits")["main"]).count("waits") == 21
            program.go_on()
            assert program.hear() == {"caught": False}
            program.go_on()
    assert len(answers) == 120
    whole = [one for one in answers if "error" not in one]
    assert len(whole) > 100, [one.get("error") for one in answers]
    assert all(functions(one["main"]).count("waits") == 21 for one in whole)
