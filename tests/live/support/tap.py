"""Programs that print TAP, run once for all tests that look at what they said."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .program import ROOT

HERE = Path(__file__).resolve().parent


class Told:
    """What a program of this folder said: `ok - NAME # NOTE` lines."""

    def __init__(
        self, program: str, *arguments: str, python: str = sys.executable, options: tuple[str, ...] = (), path: str = ""
    ):
        command = [python, *options, str(HERE / program), *arguments]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT / "bindings" / "python"), path]))}
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as child:
            try:
                self.output, _ = child.communicate(timeout=100)
            except subprocess.TimeoutExpired:
                child.kill()
                self.output = child.communicate()[0] + "\nit took too long, and was killed"
        self.code = child.returncode
        lines = re.findall(r"^(ok|not ok) - (\w+)(?: # (.*))?$", self.output, re.MULTILINE)
        self.outcomes = {name: (outcome, note) for outcome, name, note in lines}

    def check(self, name: str) -> None:
        """Fails if this was not shown."""
        outcome, note = self.outcomes.get(name, ("not shown", ""))
        if note.startswith("SKIP "):
            pytest.skip(note.removeprefix("SKIP "))
        assert outcome == "ok", f"{name}: {outcome} {note}\n{self.output}"
        if note:
            print(f"{name}: {note}")

    def check_end(self) -> None:
        """Fails if it ended badly, or said more than its outcomes."""
        assert self.code == 0, f"{self.code}\n{self.output}"
        others = [line for line in self.output.splitlines() if not re.match(r"(?:not )?ok - ", line)]
        assert not others, "\n".join(others)
