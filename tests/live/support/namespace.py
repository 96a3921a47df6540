"""A network of its own behind a cable that can be cut: packets vanish, and nobody says so."""

from __future__ import annotations

import atexit
import os
import random
import subprocess
from collections.abc import Sequence
from typing import Self

from .process import Missing, program


class Namespace:
    """A network namespace joined to ours by a veth pair. `host` is its address; `run_in` begins a command there.

    The addresses are from 198.18.0.0/15, which RFC 2544 keeps for tests.
    """

    def __init__(self) -> None:
        self._ip = program("ip", "iproute2")
        if os.geteuid():
            raise Missing("network namespaces need root: blackholes are not tested")
        number = random.randrange(1 << 15)
        base = number * 4
        prefix = f"198.{18 + (base >> 16)}.{base >> 8 & 255}"
        self.ours, self.host = f"{prefix}.{base & 255 | 1}", f"{prefix}.{base & 255 | 2}"
        self.name, outside, inside = f"iok{number}", f"iok{number}a", f"iok{number}b"
        if _run(self._ip, "netns", "add", self.name, check=False):
            raise Missing("ip netns add is not permitted here: blackholes are not tested")
        atexit.register(self.close)
        try:
            _run(self._ip, "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self.name)
            _run(self._ip, "addr", "add", f"{self.ours}/30", "dev", outside)
            _run(self._ip, "link", "set", outside, "up")
            self._inside("addr", "add", f"{self.host}/30", "dev", inside)
            self._inside("link", "set", inside, "up")
            self._inside("link", "set", "lo", "up")
        except BaseException:
            self.close()
            raise

    @property
    def run_in(self) -> Sequence[str]:
        return [self._ip, "netns", "exec", self.name]

    def _inside(self, *words: str) -> None:
        _run(self._ip, "-n", self.name, *words)

    def cut(self) -> None:
        """From here on, nothing that is sent from inside arrives: no answer, no reset, no unreachable."""
        self._inside("route", "add", "blackhole", f"{self.ours}/32")

    def mend(self) -> None:
        self._inside("route", "del", "blackhole", f"{self.ours}/32")

    def close(self) -> None:
        """Whatever runs inside must have ended."""
        atexit.unregister(self.close)
        _run(self._ip, "netns", "del", self.name, check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _run(*command: str, check: bool = True) -> int:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
    return done.returncode
