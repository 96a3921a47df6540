"""Python programs under test in interpreters of their own, told and heard line by line."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[3]


class Program:
    """Runs `source` with `arguments`. It tells JSON, an object a line, and goes on at each line it reads.

    It may import iokernel and this package.
    """

    def __init__(self, source: str, *arguments: str) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        paths = [str(ROOT / "bindings" / "python"), str(ROOT / "tests" / "live")]
        path = f"import sys; sys.path[:0] = {paths!r}\n"
        self._child = subprocess.Popen(
            [sys.executable, "-c", path + source, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    def hear(self) -> dict[str, Any]:
        """The next thing that it tells."""
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise RuntimeError(f"the program ended with {self._child.wait(10)}:\n{self._errors.read()}")
        told: dict[str, Any] = json.loads(line)
        return told

    def has_told(self) -> bool:
        """Whether `hear` would not wait, when everything that it told before was heard."""
        assert self._child.stdout
        return bool(select.select([self._child.stdout], [], [], 0)[0])

    def go_on(self) -> None:
        assert self._child.stdin
        self._child.stdin.write("go\n")
        self._child.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._errors.close()
