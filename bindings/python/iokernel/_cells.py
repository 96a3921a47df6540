"""Counters, sums, gauges and histograms: cells of shared memory that count without a call into the library."""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, TypeVar, cast
from urllib.parse import quote

from ._errors import error_for
from ._lib import ffi, last_error, lib
from ._native import accelerator

if accelerator is None or TYPE_CHECKING:
    from ._pure_cells import CounterCell, GaugeCell, HistogramCell, SumCell
else:
    CounterCell, SumCell = accelerator.CounterCell, accelerator.SumCell
    GaugeCell, HistogramCell = accelerator.GaugeCell, accelerator.HistogramCell

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""The bounds of a histogram that is given none: for times in seconds."""

KEPT_MAX = 10_000
"""Series whose objects a kernel keeps, so that asking for one again is quick."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Named:
    """What the kinds have in common."""

    _name = ""
    _labels: Mapping[str, str] = {}

    @property
    def name(self) -> str:
        """Its name, as given."""
        return self._name

    @property
    def labels(self) -> dict[str, str]:
        """Its labels."""
        return dict(self._labels)

    def __repr__(self) -> str:
        labels = ", ".join(f"{name}={value!r}" for name, value in self._labels.items())
        return f"<iokernel.{type(self).__name__} {self._name}{{{labels}}}>"


class Counter(CounterCell, _Named):
    """Counts whole numbers: `inc(n=1)`. Any thread; cheap enough for anywhere.

    It survives forks (a child counts in a cell of its own) and the kernel. `inc` raises ValueError for less than 0,
    TypeError for what is no whole number.
    """

    @property
    def value(self) -> int:
        """This process's part. It begins where a process that has ended, and whose cells this one took over, left it:
        only its growth, and the sum over all processes that `/metrics` shows, mean anything."""
        return self._value


class Sum(SumCell, _Named):
    """Adds up what is no whole number, such as seconds: `inc(0.25)`. As Counter, but for numbers from 0 on."""

    @property
    def value(self) -> float:
        """This process's part; see `Counter.value`."""
        return self._value


class Gauge(GaugeCell, _Named):
    """What goes up and down: `set(value)`, `inc(n=1)`, `dec(n=1)`. Any thread.

    Each process has its own, which begins at 0 and is gone when the process is; `merge` says what `/metrics` makes of
    them.
    """

    @property
    def value(self) -> float:
        """What it is in this process."""
        return self._value

    @contextlib.contextmanager
    def track_inflight(self) -> Iterator[None]:
        """One more while inside; also a decorator: `@gauge.track_inflight()`."""
        self.inc()
        try:
            yield
        finally:
            self.dec()


class Histogram(HistogramCell, _Named):
    """How values are distributed: `observe(value)`, or `with histogram.time():`. Any thread.

    `buckets`: the upper bounds, each inclusive. Raises ValueError for what is not finite.
    """

    _edges: tuple[float, ...] = ()

    @property
    def buckets(self) -> tuple[float, ...]:
        """The upper bounds; the last bucket, which has none, left out."""
        return self._edges

    def time(self) -> Timer:
        """Observes how long it takes, in seconds: `with histogram.time():`, or as a decorator, also of coroutine
        functions. What ends with an exception counts too."""
        return Timer(self)


class Timer:
    """One measure of a Histogram at a time; as a decorator, one for each call."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram
        self._start = 0.0

    def __enter__(self) -> Timer:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._histogram.observe(time.perf_counter() - self._start)

    def __call__(self, function: _Function) -> _Function:
        histogram = self._histogram
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed(*arguments: Any, **names: Any) -> Any:
                with Timer(histogram):
                    return await function(*arguments, **names)

        else:

            @functools.wraps(function)
            def timed(*arguments: Any, **names: Any) -> Any:
                with Timer(histogram):
                    return function(*arguments, **names)

        return cast(_Function, timed)


def find_cells(handle: Any, spec: Mapping[str, str]) -> tuple[int, int]:
    """The address of a series' first cell, and how many there are."""
    text = "&".join(f"{quote(key, safe='')}={quote(value, safe='', errors='replace')}" for key, value in spec.items())
    cells, count = ffi.new("uint64_t **"), ffi.new("uint32_t *")
    status = lib.iok_cells(handle, text.encode(), cells, count)
    if status:
        raise error_for(status, 1, text=last_error())
    return int(ffi.cast("uintptr_t", cells[0])), count[0]


def describe(
    kind: str, name: str, help: str, unit: str, labels: Mapping[str, object] | None, more: Mapping[str, object]
) -> dict[str, str]:
    """A series as `iok_cells` takes it."""
    both = {**(labels or {}), **more}
    given = {f"label.{label}": str(both[label]) for label in sorted(both)}
    return {"kind": kind, "name": name, "unit": unit, "help": help, **given}


_KINDS: dict[str, Any] = {"counter": Counter, "sum": Sum, "gauge": Gauge, "histogram": Histogram}


def make(handle: Any, spec: dict[str, str], edges: Sequence[float] = ()) -> Any:
    """The object of a series."""
    kind, name = spec["kind"], spec["name"]
    edges = tuple(float(edge) for edge in edges)
    if edges and edges[-1] == float("inf"):
        edges = edges[:-1]
    if kind == "histogram":
        spec["buckets"] = ",".join(repr(edge) for edge in edges)
    address, _ = find_cells(handle, spec)
    one = _KINDS[kind]()
    one._attach(address, edges)
    one._name = name
    one._labels = {key[6:]: value for key, value in spec.items() if key.startswith("label.")}
    if kind == "histogram":
        one._edges = edges
    return one
