"""Cells without the accelerator: the words themselves, through views of the shared memory.

`view[0] += n` is not interrupted by another thread of CPython 3.10 and later: the interpreter changes threads at calls
and backward jumps only. Elsewhere a lock keeps counts whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import operator
import sys
import threading
from bisect import bisect_left
from typing import Any, SupportsIndex

_has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
_IS_WHOLE = sys.implementation.name == "cpython" and sys.version_info >= (3, 10) and _has_gil
_lock: Any = contextlib.nullcontext() if _IS_WHOLE else threading.RLock()


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name}: {value!r}: expected a finite number")
    return float(value)


def _grows(name: str, below: bool) -> None:
    if below:
        raise ValueError(f"{name}: below 0: what counts only grows")


def _whole(n: SupportsIndex) -> int:
    more = operator.index(n)
    _grows("inc", more < 0)
    if more >> 63:
        raise OverflowError(f"inc: {n}: expected less than 2**63")
    return more


class _Cells:
    """The cells at an address, as words and as numbers."""

    _words: memoryview[int]
    _numbers: memoryview[float]

    def _attach(self, address: int, bounds: tuple[float, ...]) -> None:
        count = len(bounds) + 2 if bounds else 1
        raw = memoryview((ctypes.c_uint64 * count).from_address(address)).cast("B")
        self._words, self._numbers = raw.cast("Q"), raw.cast("d")
        self._bounds = bounds


class CounterCell(_Cells):
    """A counter's cell."""

    if _IS_WHOLE:

        def inc(self, n: SupportsIndex = 1, /) -> None:
            """Counts n more, a whole number from 0 on. Any thread."""
            more = 1 if n == 1 else _whole(n)
            self._words[0] += more
    else:

        def inc(self, n: SupportsIndex = 1, /) -> None:
            """Counts n more, a whole number from 0 on. Any thread."""
            more = _whole(n)
            with _lock:
                self._words[0] += more

    @property
    def _value(self) -> int:
        return self._words[0]


class SumCell(_Cells):
    """A sum's cell."""

    def inc(self, n: float = 1, /) -> None:
        """Adds n, a finite number from 0 on. Any thread."""
        number = _finite("inc", n)
        _grows("inc", number < 0)
        with _lock:
            self._numbers[0] += number

    @property
    def _value(self) -> float:
        return self._numbers[0]


class GaugeCell(_Cells):
    """A gauge's cell."""

    def inc(self, n: float = 1, /) -> None:
        """Goes up by n. Any thread."""
        number = _finite("inc", n)
        with _lock:
            self._numbers[0] += number

    def dec(self, n: float = 1, /) -> None:
        """Goes down by n. Any thread."""
        number = _finite("dec", n)
        with _lock:
            self._numbers[0] -= number

    def set(self, value: float, /) -> None:
        """Is so much from here on. Any thread."""
        self._numbers[0] = value

    @property
    def _value(self) -> float:
        return self._numbers[0]


class HistogramCell(_Cells):
    """A histogram's cells."""

    def observe(self, value: float, /) -> None:
        """Counts a finite value. Any thread."""
        number = _finite("observe", value)
        at = bisect_left(self._bounds, number)
        with _lock:
            self._words[at] += 1
        with _lock:
            self._numbers[-1] += number
