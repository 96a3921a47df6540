"""The program `iokernel`: what it says of kernels whose programs work, hang, or are not there."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import iokernel._lib
import pytest
from support import net
from support.process import Process
from support.program import ROOT, Program

COMMAND = Path(iokernel._lib.path).resolve().parent / "iokernel"
# Names have at most 15 bytes.
WHO = f"c{os.getpid()}"

# One kernel for each address. Hangs in C, with the GIL, until it reads a line; a request is in flight meanwhile.
SOURCE = """
import ctypes, iokernel, json, os
config = json.loads(sys.argv[1])
kernels = [iokernel.Kernel(**one) for one in config["kernels"]]
service = kernels[0].open(config["url"], require=True) if config["url"] else None
if config["up"]:
    service.wait_ready(10)
print(json.dumps({"pid": os.getpid()}), flush=True)
getchar = ctypes.PyDLL(None).getchar
def hang_here():
    while getchar() not in (10, -1): pass
waiting = service("BLPOP", "nothing", "0") if config["up"] else None
if config["up"]:
    while service.state["inflight"] == 0: pass
hang_here()
print(json.dumps({"hung": True}), flush=True)
hang_here()
"""

# Computes in C, with the GIL, for years.
BUSY = """
import iokernel, json, os, re
kernel = iokernel.Kernel(**json.loads(sys.argv[1]))
print(json.dumps({"pid": os.getpid()}), flush=True)
re.match("(a+)+$", "a" * 60 + "b")
"""


def run(*arguments: str | Path, command: tuple[str | Path, ...] = (COMMAND,)) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "IOKERNEL_LIBRARY": iokernel._lib.path, "PYTHONPATH": str(ROOT / "bindings/python")}
    # A busy machine may take long to answer; nothing below waits for it in vain but once.
    patience = () if "--timeout" in arguments or arguments[:1] == ("completion",) else ("--timeout", "10s")
    whole = [*command, *arguments, *patience]
    return subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=60, check=False)


def say(*arguments: str | Path) -> str:
    done = run(*arguments)
    assert done.returncode == 0, (arguments, done)
    return done.stdout


def start(*kernels: dict[str, Any], url: str = "", up: bool = False) -> Program:
    return Program(SOURCE, json.dumps({"kernels": kernels, "url": url, "up": up}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def hung(folder: Path, shared_redis_server: Any) -> Iterator[int]:
    """The pid of a program that hangs in C for as long as the tests run."""
    kernel = {"name": f"{WHO}-hung", "admin": f"unix:{folder}/hung.sock"}
    with start(kernel, url=shared_redis_server.url, up=True) as program:
        yield program.hear()["pid"]
        program.go_on()
        assert program.hear() == {"hung": True}


def test_a_program_that_hangs_is_found_by_path_pid_and_name(hung: int, folder: Path) -> None:
    path = folder / "hung.sock"
    for target in (str(path), f"unix:{path}", str(hung), f"{WHO}-hung", f"name:{WHO}-hung"):
        state = json.loads(say("state", target, "--json"))
        assert (state["kernel"]["pid"], state["kernel"]["name"]) == (hung, f"{WHO}-hung"), target
    relative = subprocess.run([COMMAND, "state", "./hung.sock"], cwd=folder, capture_output=True, text=True, check=True)
    assert f"pid {hung}" in relative.stdout


def test_a_program_that_hangs_tells_what_it_does(hung: int, shared_redis_server: Any) -> None:
    requests = say("requests", str(hung))
    assert "1 in flight" in requests and "BLPOP" in requests, requests
    number = json.loads(say("state", str(hung), "--json"))["endpoints"][0]["endpoint"]
    answer = json.loads(say("requests", str(hung), "--json", "--limit", "1", "--endpoint", str(number)))
    assert [one["command"] for one in answer["requests"]] == ["BLPOP"]
    state = say("state", str(hung))
    assert "main thread: busy" in state and shared_redis_server.url in state, state
    assert "hang_here" in say("stack", str(hung))
    assert "iokernel_" in say("metrics", str(hung))
    assert say("metrics", "--openmetrics", str(hung)).endswith("# EOF\n")
    assert "slow" in say("slow", str(hung))


def test_health_is_an_exit_status(folder: Path) -> None:
    kernel = {"name": f"{WHO}-busy", "admin": f"unix:{folder}/busy.sock", "busy_limit": "100ms"}
    with Program(BUSY, json.dumps(kernel)) as program:
        pid = program.hear()["pid"]
        try:
            net.wait_for("busy", lambda: run("health", str(pid)).returncode == 1)
            done = run("health", str(pid))
            assert (done.returncode, done.stderr) == (1, "")
            assert "busy" in done.stdout and "ready" in done.stdout
            told = json.loads(run("health", str(pid), "--json").stdout)
            assert told["healthz"]["main_busy_ms"] >= 100
            assert told["readyz"]["ready"] is True
        finally:
            os.kill(pid, signal.SIGKILL)
    with start({"name": f"{WHO}-fine", "admin": f"unix:{folder}/fine.sock"}) as program:
        program.hear()
        done = run("health", folder / "fine.sock")
        assert done.returncode == 0, done
    url = f"redis://127.0.0.1:{net.free_port()}"
    with start({"name": f"{WHO}-gone", "admin": f"unix:{folder}/missing.sock"}, url=url) as program:
        program.hear()
        done = run("health", folder / "missing.sock")
        assert done.returncode == 1, done
        assert url in done.stdout


def test_tcp_abstract_and_auto_are_found_too(folder: Path) -> None:
    port = net.free_port()
    kernels = [
        {"name": f"{WHO}-tcp", "admin": f"127.0.0.1:{port}"},
        {"name": f"{WHO}-abs", "admin": f"unix:@{WHO}"},
        {"name": f"{WHO}-auto", "admin": "auto"},
    ]
    with start(*kernels) as program:
        pid = program.hear()["pid"]
        for target in (f"127.0.0.1:{port}", f"localhost:{port}", f"@{WHO}", f"unix:@{WHO}"):
            assert f"pid {pid}" in say("state", target), target
        listed = {one["name"]: one for one in json.loads(say("list", "--json"))["kernels"] if one["pid"] == pid}
        assert set(listed) == {one["name"] for one in kernels}
        assert listed[f"{WHO}-tcp"]["address"] == f"127.0.0.1:{port}"
        assert listed[f"{WHO}-abs"]["address"] == f"unix:@{WHO}"
        for name in listed:
            assert name in say("state", name)
            assert name in say("state", listed[name]["address"])
        assert f"{WHO}-auto" in say("list")

        # Of several, none is taken by chance.
        for which in ([str(pid)], []):
            done = run("health", *which)
            assert done.returncode == 2, done
            assert all(one["name"] in done.stderr for one in kernels), done.stderr


def test_nothing_found_names_what_was_tried(folder: Path) -> None:
    free = net.free_port()
    for target, parts in {
        "nobody-of-this-name": ["nobody-of-this-name", "was not found"],
        str(folder / "nothing.sock"): ["nothing.sock", "iokernel list"],
        f"127.0.0.1:{free}": [str(free), "nobody listens"],
        str(os.getpid()): [str(os.getpid()), "admin="],
        "4194999": ["4194999", "no such process"],
    }.items():
        done = run("state", target)
        assert (done.returncode, done.stdout) == (3, ""), done
        assert all(part in done.stderr for part in parts), done.stderr


def test_a_stranger_is_no_kernel_and_is_not_asked() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        done = run("state", address, "--timeout", "100ms")
        assert done.returncode == 3
        assert address in done.stderr and "100ms" in done.stderr and "--timeout" in done.stderr
    with Process() as other:
        other.spawn([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(net.free_port())])
        net.wait_for("a listener", lambda: "Serving" in other.log.read_text() or other.running)
        done = run("state", str(other.pid))
        assert done.returncode == 3
        assert "no iokernel" in done.stderr
        assert "GET" not in other.log.read_text()


def test_wrong_usage_has_its_own_status() -> None:
    for arguments, word in (
        ([], "Usage"),
        (["tpo"], "tpo"),
        (["state", "--timeout", "2"], "500ms"),
        (["state", ""], "TARGET"),
        (["top", "--json"], "state --json"),
    ):
        done = run(*arguments) if "--timeout" in arguments else run(*arguments, "--timeout", "1s")
        assert done.returncode == 2, (arguments, done)
        assert word in done.stderr, (arguments, done.stderr)


def test_a_reader_that_leaves_is_no_fault(hung: int) -> None:
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$1" metrics "$2" | true', "-", COMMAND, str(hung)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_know_every_command(shell: str) -> None:
    script = say("completion", shell)
    for word in ("top", "requests", "stack", "metrics", "health", "state", "slow", "list", "timeout"):
        assert word in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)


def test_bash_completes_commands() -> None:
    script = say("completion", "bash") + "\nCOMP_WORDS=(iokernel re); COMP_CWORD=1; _iokernel iokernel re iokernel"
    done = subprocess.run(
        ["bash", "-c", script + '; echo "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["requests"]


def test_top_without_a_terminal_is_one_frame(hung: int, shared_redis_server: Any) -> None:
    for arguments in (["--once"], []):
        frame = say("top", str(hung), "--interval", "50ms", *arguments)
        assert "\x1b" not in frame
        assert all(
            part in frame for part in (f"{WHO}-hung", "main thread", shared_redis_server.url, "REQ/S", "BLPOP")
        ), frame


class Terminal:
    """`iokernel` in a terminal of its own; `screen` is all that it wrote."""

    def __init__(self, *arguments: str, rows: int = 24, columns: int = 80, **environment: str) -> None:
        self._master, slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        given = {**os.environ, "TERM": "xterm", **environment}
        if "NO_COLOR" not in environment:
            given.pop("NO_COLOR", None)
        self.child = subprocess.Popen([COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=given)
        self.screen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def settings(self) -> list[Any]:
        return termios.tcgetattr(self._slave)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def until(self, text: str) -> None:
        """Reads on until `text` comes; what came before is forgotten."""
        self.screen = ""
        end = time.monotonic() + 20
        while text not in self.screen:
            assert time.monotonic() < end, f"{text!r} did not come: {self.screen[-3000:]!r}"
            if select.select([self._master], [], [], 0.1)[0]:
                self.screen += os.read(self._master, 1 << 16).decode(errors="replace")

    def ends(self) -> int:
        """Its exit status. The terminal must be as it was."""
        self.until("\x1b[?1049l")
        status = self.child.wait(20)
        assert self.settings() == self.before
        return status

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._master)
        os.close(self._slave)


def test_top_draws_obeys_and_gives_the_terminal_back(hung: int) -> None:
    with Terminal("top", str(hung), "--interval", "50ms") as terminal:
        terminal.until("BLPOP")
        assert terminal.settings() != terminal.before
        terminal.press("s")
        terminal.until("hang_here")
        terminal.press("r")
        terminal.until("in flight")
        terminal.press("\x1b[A")
        terminal.press("o")
        terminal.until("REQ/S")
        terminal.resize(5, 40)
        os.kill(terminal.child.pid, signal.SIGWINCH)
        terminal.until("\x1b[H")
        terminal.until("\x1b[H")
        terminal.until("\x1b[H")
        lines = terminal.screen.split("\x1b[J")[0].split("\r\n")
        assert len(lines) <= 5, lines
        terminal.press("q")
        assert terminal.ends() == 0


@pytest.mark.parametrize("how", ["ctrl-c", "SIGTERM"])
def test_top_gives_the_terminal_back_however_it_ends(hung: int, how: str) -> None:
    with Terminal("top", str(hung), "--interval", "50ms") as terminal:
        terminal.until("\x1b[1m")
        if how == "ctrl-c":
            terminal.press("\x03")
        else:
            terminal.child.send_signal(signal.SIGTERM)
        assert terminal.ends() == (0 if how == "ctrl-c" else 128 + signal.SIGTERM)


def test_top_is_without_colours_where_they_are_not_wanted(hung: int) -> None:
    with Terminal("top", str(hung), "--interval", "50ms", NO_COLOR="1") as terminal:
        terminal.until("BLPOP")
        drawn = terminal.screen
        terminal.press("q")
        terminal.ends()
    assert not any(code in drawn for code in ("\x1b[1m", "\x1b[2m", "\x1b[31m"))


def test_top_outlives_the_kernel_and_finds_the_next(folder: Path) -> None:
    kernel = {"name": f"{WHO}-again", "admin": f"unix:{folder}/again.sock"}
    with start(kernel) as program:
        first = program.hear()["pid"]
        terminal = Terminal("top", f"{WHO}-again", "--interval", "50ms")
        terminal.until(f"pid {first}")
    with terminal:
        terminal.until("no answer for")
        with start(kernel) as program:
            terminal.until(f"pid {program.hear()['pid']}")
            terminal.press("q")
            assert terminal.ends() == 0


PYTHON = (sys.executable, "-m", "iokernel")


def test_the_entry_point_of_python_is_the_program(hung: int, folder: Path) -> None:
    for arguments in (["list"], ["requests", str(hung), "--json"], ["health", str(hung)], ["state", "nobody"]):
        ours, theirs = run(*arguments, command=PYTHON), run(*arguments)
        assert ours.returncode == theirs.returncode, arguments
        assert ours.stdout.split()[:1] == theirs.stdout.split()[:1], arguments
    completion = run("completion", "fish", command=PYTHON)
    assert completion.stdout == say("completion", "fish")
    listed = run("--help", "--timeout", "1s", command=PYTHON).stdout
    assert say("--help") in listed
    assert "doctor" in listed


def test_the_entry_point_says_where_it_looked_for_the_program(folder: Path) -> None:
    alone, copy = folder / "alone", folder / "copy"
    alone.mkdir()
    library = alone / "libiokernel.so"
    library.symlink_to(iokernel._lib.path)
    shutil.copytree(ROOT / "bindings/python/iokernel", copy / "iokernel", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "IOKERNEL_LIBRARY": str(library), "PYTHONPATH": str(copy)}
    done = subprocess.run([*PYTHON, "top"], env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done
    assert all(part in done.stderr for part in (str(alone / "iokernel"), str(copy), "cargo build")), done.stderr
    version = subprocess.run([*PYTHON, "--version"], env=environment, capture_output=True, text=True, check=True)
    assert version.stdout.startswith("iokernel ")


ALONE = """
import ctypes, iokernel, json, os, sys
kernel = iokernel.Kernel(name="alone", metrics=sys.argv[1] or None)
kernel.counter("jobs").inc(5)
print(json.dumps({}), flush=True)
ctypes.PyDLL(None).sleep(60)
"""


def test_counters_of_a_program_that_cannot_be_asked_are_read_from_its_memory() -> None:
    with Program(ALONE, "") as program:
        program.hear()
        assert "jobs_total 5\n" in say("metrics", str(program.pid))
        assert say("metrics", str(program.pid), "--openmetrics").endswith("# EOF\n")
        os.kill(program.pid, signal.SIGKILL)
    name = f"{WHO}-cells"
    try:
        with Program(ALONE, name) as program:
            program.hear()
            assert "jobs_total 5\n" in say("metrics", name)
            os.kill(program.pid, signal.SIGKILL)
        assert "jobs_total 5\n" in say("metrics", name), "what the dead counted stays"
    finally:
        Path(f"/dev/shm/iokernel-{name}").unlink(missing_ok=True)
