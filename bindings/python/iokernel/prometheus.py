"""Existing `prometheus_client` metrics in shared cells.

    import iokernel.prometheus
    iokernel.prometheus.install()

From then on every Counter, Gauge, Histogram and Summary of `prometheus_client`, those made before included, counts in
cells of the kernel: `/metrics` of the admin endpoint shows them also while the program hangs, and sums them over prefork
workers (without PROMETHEUS_MULTIPROC_DIR, without files per process). `generate_latest()` still shows what this process
has; Info, Enum, custom collectors and gauges with `set_function` stay there alone.

Modes of gauges: `sum` and `livesum` become `merge="sum"`, `max` and `livemax` `"max"`, `min` and `livemin` `"min"`. A gauge
counts for as long as its process lives, whatever the mode. `all` and `liveall` (a series for each pid) become `"sum"`,
`mostrecent` and `livemostrecent` become `"max"`. A Summary is shown as a histogram of one bucket.

A metric that the kernel cannot take (its area is full, its name is none of the classic ones) stays as it was, and a
warning is logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import prometheus_client
from prometheus_client import metrics, values
from prometheus_client.registry import CollectorRegistry

from ._cells import Counter, Gauge, describe, find_cells
from ._errors import Error
from ._kernel import Kernel, default_kernel

__all__ = ["install"]

log = logging.getLogger("iokernel")

_ALL = (1.7976931348623157e308,)
"""The one bound of a summary, below which everything is."""
_MODES = {"max": "max", "livemax": "max", "mostrecent": "max", "livemostrecent": "max", "min": "min", "livemin": "min"}

_CARRIED = (metrics.Counter, metrics.Gauge, metrics.Histogram, metrics.Summary)

_lock = threading.Lock()
_kernel: Kernel | None = None
_plain: Any = None
"""The class of values that was there before."""
_histogram_before: Any = None
"""How histograms were made before."""


class _Value:
    """What `prometheus_client` asks of a value, over some cell."""

    _multiprocess = False
    _exemplar: Any = None

    def inc(self, amount: float) -> None:
        raise NotImplementedError

    def set(self, value: float, timestamp: float | None = None) -> None:
        raise NotImplementedError

    def get(self) -> float:
        raise NotImplementedError

    def set_exemplar(self, exemplar: Any) -> None:
        self._exemplar = exemplar

    def get_exemplar(self) -> Any:
        return self._exemplar


class _Number(_Value):
    """The bits of a double. A gauge's methods fit: the client has seen to it that what counts only grows."""

    def __init__(self, cell: Any) -> None:
        self._cell = cell
        self._add = cell.inc

    def inc(self, amount: float) -> None:
        try:
            self._add(amount)
        except ValueError as error:
            # The client takes what is no finite number; a sum would never recover from it.
            log.debug("not counted: %s", error)

    def set(self, value: float, timestamp: float | None = None) -> None:
        self._cell.set(value)

    def get(self) -> float:
        value: float = self._cell._value
        return value


class _Count(_Value):
    """A whole number."""

    def __init__(self, cell: Any) -> None:
        self._cell = cell
        self._before = 0

    def inc(self, amount: float) -> None:
        self._cell.inc(int(amount))

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Counters of the client can be reset. Cells only grow, so that only what is shown here begins anew."""
        self._before = self._cell._value - int(value)

    def get(self) -> float:
        return float(self._cell._value - self._before)


def _gauge_at(address: int) -> Any:
    one = Gauge()
    one._attach(address, ())
    return one


def _count_at(address: int) -> Any:
    one = Counter()
    one._attach(address, ())
    return one


def _address(kind: str, name: str, help_text: str, labels: Mapping[str, str], **more: str) -> int:
    kernel = _kernel or default_kernel()
    address, _ = find_cells(kernel._open(), {**describe(kind, name, help_text, "", labels, {}), **more})
    return address


def _distribution(
    name: str, help_text: str, labels: Mapping[str, str], bounds: Sequence[float]
) -> tuple[_Value, list[_Value]]:
    """The sum and the buckets of a histogram, the last one, without a bound, included."""
    finite = [bound for bound in bounds if bound != float("inf")]
    edges = ",".join(repr(float(bound)) for bound in finite)
    address = _address("histogram", name, help_text, labels, buckets=edges)
    buckets: list[_Value] = [_Count(_count_at(address + 8 * at)) for at in range(len(finite) + 1)]
    return _Number(_gauge_at(address + 8 * len(buckets))), buckets


def _cell_value(
    typ: str,
    metric_name: str,
    name: str,
    labelnames: Iterable[str],
    labelvalues: Iterable[str],
    help_text: str,
    multiprocess_mode: str = "",
    **_: Any,
) -> _Value:
    labels = dict(zip(labelnames, labelvalues))
    if typ == "summary":
        total, buckets = _distribution(metric_name, help_text, labels, _ALL)
        return buckets[0] if name.endswith("_count") else total
    if typ == "gauge":
        merge = _MODES.get(multiprocess_mode, "sum")
        return _Number(_gauge_at(_address("gauge", metric_name, help_text, labels, merge=merge)))
    return _Number(_gauge_at(_address("sum", metric_name, help_text, labels)))


def _value_class(*arguments: Any, **names: Any) -> Any:
    """What stands in for `prometheus_client.values.ValueClass`."""
    if arguments[0] not in ("counter", "gauge", "summary"):
        return _plain(*arguments, **names)
    try:
        return _cell_value(*arguments, **names)
    except Error as error:
        log.warning("a metric stays in its process: %s", error)
        return _plain(*arguments, **names)


def _histogram_init(self: Any) -> None:
    """What stands in for `Histogram._metric_init`: all of its values are cells of one series."""
    labels = dict(zip(self._labelnames, self._labelvalues))
    try:
        total, buckets = _distribution(self._name, self._documentation, labels, self._upper_bounds)
    except Error as error:
        log.warning("a metric stays in its process: %s", error)
        _histogram_before(self)
        return
    self._sum, self._buckets, self._created = total, buckets, time.time()


def _leaves(metric: Any) -> Iterator[Any]:
    """A metric without labels, or those of all of its labels' values."""
    if metric._is_parent():
        with metric._lock:
            children = list(metric._metrics.values())
        for child in children:
            yield from _leaves(child)
    else:
        yield metric


def _carry(leaf: Any) -> None:
    """Gives a metric that was made before its cells, and them what it has counted."""
    names = [name for name in ("_value", "_count", "_sum") if hasattr(leaf, name)]
    before = {name: getattr(leaf, name) for name in names}
    buckets = getattr(leaf, "_buckets", ())
    if any(isinstance(value, _Value) for value in before.values()):
        return
    created = getattr(leaf, "_created", None)
    leaf._metric_init()
    if created is not None:
        leaf._created = created
    pairs = [(getattr(leaf, name), value) for name, value in before.items()]
    for value, old in [*pairs, *zip(getattr(leaf, "_buckets", ()), buckets)]:
        if old.get():
            value.inc(old.get())
        value.set_exemplar(old.get_exemplar())


def install(kernel: Kernel | None = None, registry: CollectorRegistry = prometheus_client.REGISTRY) -> None:
    """Has the metrics of `prometheus_client` count in the cells of `kernel` (the default one where none is given).

    Metrics that were made before are those of `registry`, with what they have counted. A program that forks workers
    calls it once, before it does. Called again, it takes the metrics of another registry too; a kernel that is given
    then has those that are made from there on.
    """
    global _kernel, _plain, _histogram_before
    with _lock:
        _kernel = kernel or default_kernel()
        if _plain is None:
            _plain = values.ValueClass
            values.ValueClass = _value_class  # type: ignore[misc,assignment]
            _histogram_before = metrics.Histogram._metric_init
            metrics.Histogram._metric_init = _histogram_init  # type: ignore[method-assign]
        for collector in list(registry._collector_to_names):
            if isinstance(collector, _CARRIED):
                for leaf in _leaves(collector):
                    _carry(leaf)
