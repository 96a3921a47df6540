"""One C call that computes for so long and gives nobody the GIL meanwhile: a regular expression that goes astray.

A loop in Python would give it away every few milliseconds, and prove nothing.
"""

from __future__ import annotations

import re
import signal
import time


class _Over(Exception):
    """The time is."""


def hang(seconds: float) -> float:
    """How long it took. The main thread only: an alarm ends the search, which looks for signals now and then."""
    before = signal.signal(signal.SIGALRM, _end)
    started = time.perf_counter()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        re.match("(a+)+b", "a" * 100)
    except _Over:
        return time.perf_counter() - started
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    raise AssertionError("the search came to an end")


def _end(*_: object) -> None:
    raise _Over
