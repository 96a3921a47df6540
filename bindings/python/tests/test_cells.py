"""Counters, sums, gauges and histograms, alone and from many threads."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import iokernel
import pytest


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[iokernel.Kernel]:
    """A kernel whose metrics are its own."""
    with iokernel.Kernel(metrics=str(tmp_path / "metrics")) as kernel:
        yield kernel


def test_a_counter_counts_whole_numbers(kernel: iokernel.Kernel) -> None:
    counter = kernel.counter("orders_total", "Orders.", shop="berlin")
    counter.inc()
    counter.inc(41)
    counter.inc(0)
    assert counter.value == 42
    assert counter.labels == {"shop": "berlin"} and counter.name == "orders_total"
    with pytest.raises(ValueError, match="only grows"):
        counter.inc(-1)
    for wrong in (0.5, "1", None):
        with pytest.raises(TypeError):
            counter.inc(wrong)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        counter.inc(1 << 64)
    assert counter.value == 42


def test_the_same_series_is_the_same_object(kernel: iokernel.Kernel) -> None:
    one = kernel.counter("orders", shop="a", kind=1)
    assert kernel.counter("orders", kind="1", shop="a") is one
    assert kernel.counter("orders", labels={"shop": "a"}, kind=1) is one
    other = kernel.counter("orders", shop="b", kind=1)
    one.inc()
    assert (one.value, other.value) == (1, 0)
    name = kernel.counter("orders", labels={"name": "x", "help": "y", "kind": "ä&="})
    assert name.labels == {"name": "x", "help": "y", "kind": "ä&="}


def test_a_sum_adds_numbers_that_are_finite(kernel: iokernel.Kernel) -> None:
    total = kernel.sum("spent", unit="seconds")
    total.inc(0.25)
    total.inc()
    assert total.value == 1.25
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError):
            total.inc(wrong)
    assert total.value == 1.25


def test_a_gauge_goes_up_and_down(kernel: iokernel.Kernel) -> None:
    gauge = kernel.gauge("depth", merge="max")
    gauge.set(3)
    gauge.inc(0.5)
    gauge.dec()
    assert gauge.value == 2.5
    with gauge.track_inflight():
        assert gauge.value == 3.5
    with pytest.raises(ValueError):
        gauge.inc(math.nan)
    gauge.set(math.nan)
    assert math.isnan(gauge.value)

    flying = kernel.gauge("flying")

    @flying.track_inflight()
    def work() -> float:
        return flying.value

    assert [work(), work(), flying.value] == [1, 1, 0]


def buckets_of(kernel: iokernel.Kernel, spec: dict[str, str]) -> list[int]:
    """The words of a histogram, its sum left out."""
    import ctypes

    from iokernel._cells import find_cells

    address, count = find_cells(kernel._open(), spec)
    return list((ctypes.c_uint64 * count).from_address(address))[:-1]


def test_a_histogram_counts_each_value_once(kernel: iokernel.Kernel) -> None:
    histogram = kernel.histogram("size", buckets=(1, 2, 4, math.inf))
    assert histogram.buckets == (1.0, 2.0, 4.0)
    for value in (-5, 1, 1.5, 2, 4, 4.1, 1e300):
        histogram.observe(value)
    for wrong in (math.nan, math.inf, -math.inf):
        with pytest.raises(ValueError):
            histogram.observe(wrong)
    with pytest.raises(TypeError):
        histogram.observe("x")  # type: ignore[arg-type]
    spec = {"kind": "histogram", "name": "size", "buckets": "1,2,4"}
    assert buckets_of(kernel, spec) == [2, 2, 1, 2]


async def test_times_are_observed(kernel: iokernel.Kernel) -> None:
    histogram = kernel.histogram("took", unit="seconds", buckets=[1000.0])

    @histogram.time()
    def work(n: int) -> int:
        if n:
            raise KeyError(n)
        return 7

    @histogram.time()
    async def rest(n: int) -> int:
        await asyncio.sleep(0)
        return n

    assert work(0) == 7 and await rest(3) == 3
    with pytest.raises(KeyError):
        work(1)
    with histogram.time():
        pass
    assert buckets_of(kernel, {"kind": "histogram", "name": "took_seconds", "buckets": "1000"}) == [4, 0]


def test_wrong_descriptions_say_what_was_expected(kernel: iokernel.Kernel) -> None:
    with pytest.raises(iokernel.ConfigError, match="name"):
        kernel.counter("a b")
    with pytest.raises(iokernel.ConfigError, match="label"):
        kernel.counter("a", labels={"0": "x"})
    with pytest.raises(iokernel.ConfigError, match="buckets"):
        kernel.histogram("a", buckets=(2, 1))
    with pytest.raises(iokernel.ConfigError, match="merge"):
        kernel.gauge("a", merge="mean")
    kernel.counter("a")
    with pytest.raises(iokernel.ConfigError, match="it is a counter"):
        kernel.gauge("a")


def test_a_full_area_says_so(kernel: iokernel.Kernel) -> None:
    with pytest.raises(iokernel.Overloaded, match="no room"):
        for at in range(1000):
            kernel.histogram(f"h{at}", buckets=range(120))


def test_counters_outlive_their_kernel(kernel: iokernel.Kernel) -> None:
    counter = kernel.counter("orders")
    kernel.close()
    counter.inc(3)
    assert counter.value == 3
    assert kernel.counter("orders") is counter
    with pytest.raises(iokernel.Closed):
        kernel.counter("others")


def test_no_thread_loses_a_count(kernel: iokernel.Kernel) -> None:
    threads, rounds = 8, 200_000 if sys.implementation.name == "cpython" else 20_000
    counter, gauge = kernel.counter("c"), kernel.gauge("g")
    histogram = kernel.histogram("h", buckets=(1,))
    start = threading.Barrier(threads)

    def work() -> None:
        start.wait()
        inc = counter.inc
        for _ in range(rounds):
            inc()
        for _ in range(rounds // 10):
            gauge.inc()
            histogram.observe(1)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(before)
    assert counter.value == threads * rounds, "also of threads that have ended"
    assert gauge.value == threads * (rounds // 10)
    assert buckets_of(kernel, {"kind": "histogram", "name": "h", "buckets": "1"}) == [threads * (rounds // 10), 0]


def test_a_child_counts_in_cells_of_its_own(kernel: iokernel.Kernel) -> None:
    counter, gauge = kernel.counter("c"), kernel.gauge("g")
    counter.inc(5)
    gauge.set(7)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        counter.inc(2)
        os.write(write, f"{counter.value} {gauge.value}".encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(read, 100) == b"2 0.0"
    os.close(read)
    os.close(write)
    assert (counter.value, gauge.value) == (5, 7)


def test_the_default_kernel_counts(script: Callable[..., str]) -> None:
    said = script("""
import iokernel
orders = iokernel.counter("orders_total", "How many.", shop="a")
orders.inc()
iokernel.gauge("depth", merge="min").set(1)
with iokernel.histogram("took", unit="seconds").time():
    orders.inc()
with iokernel.marker("all", id=1):
    print(orders.value, orders)
""")
    assert said == "2 <iokernel.Counter orders_total{shop='a'}>\n"
