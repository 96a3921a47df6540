"""Cells without the accelerator: the words themselves, through views of the shared memory.

`view[0] += n` is not interrupted by another thread of CPython 3.10 and later: the interpreter changes threads at calls and
backward jumps only. Elsewhere a lock keeps counts whole.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import operator
import sys
import threading
from bisect import bisect_left
from typing import Any, SupportsFloat, SupportsIndex

_has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
_IS_WHOLE = sys.implementation.name == "cpython" and sys.version_info >= (3, 10) and _has_gil
_lock: Any = contextlib.nullcontext() if _IS_WHOLE else threading.RLock()


def _finite(name: str, value: SupportsFloat) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name}: {value!r}: expected a finite number")
    return float(value)


def _grows(name: str, below: bool) -> None:
    if below:
        raise ValueError(f"{name}: below 0: what counts only grows")


class _Cells:
    """The cells at an address, as words and as numbers."""

    _words: memoryview
    _numbers: memoryview

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
            if n != 1:
                n = operator.index(n)
                _grows("inc", n < 0)
                if n >> 63:
                    raise OverflowError(f"inc: {n}: expected less than 2**63")
            self._words[0] += n  # type: ignore[operator]
    else:

        def inc(self, n: SupportsIndex = 1, /) -> None:
            """Counts n more, a whole number from 0 on. Any thread."""
            n = operator.index(n)
            _grows("inc", n < 0)
            if n >> 63:
                raise OverflowError(f"inc: {n}: expected less than 2**63")
            with _lock:
                self._words[0] += n

    @property
    def _value(self) -> int:
        return self._words[0]


class SumCell(_Cells):
    """A sum's cell."""

    def inc(self, n: SupportsFloat = 1, /) -> None:
        """Adds n, a finite number from 0 on. Any thread."""
        number = _finite("inc", n)
        _grows("inc", number < 0)
        with _lock:
            self._numbers[0] += number  # type: ignore[operator]

    @property
    def _value(self) -> float:
        number: float = self._numbers[0]  # type: ignore[assignment]
        return number


class GaugeCell(_Cells):
    """A gauge's cell."""

    def inc(self, n: SupportsFloat = 1, /) -> None:
        """Goes up by n. Any thread."""
        number = _finite("inc", n)
        with _lock:
            self._numbers[0] += number  # type: ignore[operator]

    def dec(self, n: SupportsFloat = 1, /) -> None:
        """Goes down by n. Any thread."""
        number = _finite("dec", n)
        with _lock:
            self._numbers[0] -= number  # type: ignore[operator]

    def set(self, value: SupportsFloat, /) -> None:
        """Is so much from here on. Any thread."""
        self._numbers[0] = value  # type: ignore[call-overload]

    @property
    def _value(self) -> float:
        number: float = self._numbers[0]  # type: ignore[assignment]
        return number


class HistogramCell(_Cells):
    """A histogram's cells."""

    def observe(self, value: SupportsFloat, /) -> None:
        """Counts a finite value. Any thread."""
        number = _finite("observe", value)
        at = bisect_left(self._bounds, number)
        with _lock:
            self._words[at] += 1
        with _lock:
            self._numbers[-1] += number  # type: ignore[operator]
