"""Child processes that end with us."""

from __future__ import annotations

import atexit
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

from . import net


class Missing(Exception):
    """A program that a test needs is not installed; fixtures turn this into a skip that says so."""


def program(name: str, package: str) -> str:
    """The path of a program, or Missing with the Debian package that brings it."""
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name} is not installed (Debian: {package})")
    return path


class Process:
    """A child with a temp folder and a log of its latest start in it. Ends at our exit at the latest."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="iok-"))
        self.log = self.folder / "log"
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        assert self._child is not None, "not running"
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def spawn(self, command: list[str]) -> None:
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self) -> None:
        """Asks it to end (SIGTERM), kills it if it takes longer than five seconds."""
        self._end(signal.SIGTERM, patience=5.0)

    def kill(self) -> None:
        """kill -9: the peer sees its connections reset or closed by the system, without a goodbye."""
        self._end(signal.SIGKILL, patience=5.0)

    def pause(self) -> None:
        """SIGSTOP: connections stay open and silent; the system still accepts and acknowledges for it."""
        assert self._child is not None, "not running"
        self._child.send_signal(signal.SIGSTOP)

    def cont(self) -> None:
        """SIGCONT: on it goes."""
        assert self._child is not None, "not running"
        self._child.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals, patience: float) -> None:
        child, self._child = self._child, None
        if child is None or child.poll() is not None:
            return
        child.send_signal(signal.SIGCONT)
        child.send_signal(how)
        try:
            child.wait(patience)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def serve(self, command: list[str], address: str) -> None:
        """Spawns a server and waits until it takes connections there. One that does not is closed."""
        self.spawn(command)
        try:
            net.wait_for(type(self).__name__, lambda: self.accepts(address))
        except BaseException:
            self.close()
            raise

    def accepts(self, address: str) -> bool:
        """Whether it takes connections there. Fails with its log if it has ended."""
        assert self.running, net.tail(self.log)
        try:
            net.connect(address, 1).close()
        except OSError:
            return False
        return True

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Worker:
    """A module of this package run by another interpreter, so that it shares no GIL with the program under test.

    It reads one JSON object a line and answers each with one: {"ok": ...} or {"error": ...}. It ends when we do: its
    input closes.
    """

    def __init__(self, module: str, config: dict[str, Any]) -> None:
        here = Path(__file__).resolve().parent.parent
        command = [sys.executable, "-m", f"support.{module}", json.dumps(config)]
        self._child = subprocess.Popen(command, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lock = threading.Lock()
        self.address: str = self._answer()

    def ask(self, do: str, **arguments: Any) -> Any:
        assert self._child.stdin is not None
        with self._lock:
            self._child.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._child.stdin.flush()
            return self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._child.args!r} ended with {self._child.wait(5)}")
        answer = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["ok"]

    def close(self) -> None:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
