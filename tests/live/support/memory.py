"""What memory a process takes while something is done to it."""

from __future__ import annotations

import threading
from typing import Self

from .serving import rss_bytes

LOOK_S = 0.02


class Memory:
    """Looks at a process again and again until the end of the `with`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._samples = [rss_bytes(pid)]
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            self._samples.append(rss_bytes(self._pid))

    @property
    def more(self) -> int:
        """The most bytes beyond what it had at first."""
        return max(self._samples) - self._samples[0]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(5)
