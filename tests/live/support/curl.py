"""curl, run to its end."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from .process import program


@dataclass(frozen=True)
class Curled:
    """What it wrote: headers and bodies of all responses as they came, and its talk (`-v`)."""

    output: bytes
    talk: str


def curl(*arguments: str, data: bytes | None = None) -> Curled:
    """Fails as curl does: with the status 28 after twenty seconds, for instance."""
    command = [program("curl", "curl"), "--silent", "--show-error", "--max-time", "20", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    talk = done.stderr.decode(errors="replace")
    assert done.returncode == 0, f"curl ended with {done.returncode}: {talk}"
    return Curled(done.stdout, talk)
