"""Metrics of the real prometheus_client in cells. Each program is a process of its own: installing is for good."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("prometheus_client")

Script = Callable[..., str]

READ = """
import ctypes
import iokernel
import prometheus_client as client
import iokernel.prometheus
from iokernel._cells import find_cells

def words(**spec):
    address, count = find_cells(iokernel.default_kernel()._open(), spec)
    return list((ctypes.c_uint64 * count).from_address(address))

def numbers(**spec):
    address, count = find_cells(iokernel.default_kernel()._open(), spec)
    return list((ctypes.c_double * count).from_address(address))
"""


def test_metrics_made_before_and_after_are_in_cells(script: Script) -> None:
    script(
        READ
        + """
before = client.Counter("before_total", "Before.", ["shop"])
before.labels("a").inc(3)
plain = client.Gauge("plain", "Plain.")
plain.set(-2.5)
took = client.Histogram("took_seconds", "Took.", buckets=(0.1, 1))
took.observe(0.05)
took.observe(5)
size = client.Summary("size", "Size.")
size.observe(10)
state = client.Enum("state", "State.", states=["on", "off"])
info = client.Info("build", "Build.")
info.info({"version": "1"})
iokernel.prometheus.install()
iokernel.prometheus.install()
after = client.Counter("after", "After.")
after.inc()
after.inc(0.5)
before.labels("a").inc()
before.labels("b").inc()
plain.inc(0.5)
took.observe(0.5)
size.observe(5)
size.observe(float("nan"))
state.state("off")

assert numbers(kind="sum", name="before", **{"label.shop": "a"}) == [4]
assert numbers(kind="sum", name="before", **{"label.shop": "b"}) == [1]
assert numbers(kind="sum", name="after") == [1.5]
assert numbers(kind="gauge", name="plain") == [-2]
histogram = dict(kind="histogram", name="took_seconds", buckets="0.1,1")
assert words(**histogram)[:3] == [1, 1, 1] and numbers(**histogram)[3] == 5.55
summary = dict(kind="histogram", name="size", buckets="1.7976931348623157e+308")
assert words(**summary)[:2] == [3, 0] and numbers(**summary)[2] == 15

text = client.generate_latest().decode()
for line in ('before_total{shop="a"} 4.0', "after_total 1.5", "plain -2.0", 'took_seconds_bucket{le="+Inf"} 3.0',
             'took_seconds_bucket{le="0.1"} 1.0', "took_seconds_count 3.0", "took_seconds_sum 5.55", "size_count 3.0",
             "size_sum 15.0", 'state{state="off"} 1.0', 'build_info{version="1"} 1.0'):
    assert line in text.splitlines(), (line, text)
after.reset()
assert "after_total 0.0" in client.generate_latest().decode()
"""
    )


def test_modes_of_gauges(script: Script) -> None:
    script(
        READ
        + """
iokernel.prometheus.install()
for mode, merge in dict(livesum="sum", max="max", livemin="min", all="sum", mostrecent="max").items():
    gauge = client.Gauge("g_" + mode, "G.", multiprocess_mode=mode)
    gauge.set(4)
    assert numbers(kind="gauge", name="g_" + mode, merge=merge) == [4], mode
"""
    )


def test_what_cells_cannot_take_stays_as_it_was(script: Script) -> None:
    script(
        READ
        + """
import logging
logging.disable(logging.CRITICAL)
iokernel.prometheus.install()
long = client.Counter("l", "L.", ["x"])
long.labels("y" * 2000).inc(2)
wide = client.Histogram("w", "W.", buckets=range(200))
wide.observe(3)
text = client.generate_latest().decode()
assert 'l_total{x="' + "y" * 2000 + '"} 2.0' in text
assert "w_count 1.0" in text
"""
    )


def test_a_registry_and_a_kernel_of_ones_own(script: Script) -> None:
    script(
        READ
        + """
registry = client.CollectorRegistry()
mine = client.Counter("mine", "Mine.", registry=registry)
mine.inc(7)
iokernel.prometheus.install(iokernel.default_kernel(), registry)
assert numbers(kind="sum", name="mine") == [7]
mine.inc()
assert numbers(kind="sum", name="mine") == [8]
assert "mine_total 8.0" in client.generate_latest(registry).decode()
"""
    )


def test_forked_workers_count_on(script: Script) -> None:
    script(
        READ
        + """
import os
requests = client.Counter("requests", "Requests.")
requests.inc(100)
iokernel.prometheus.install()
for _ in range(5):
    pid = os.fork()
    if not pid:
        requests.inc(2)
        requests.inc(1)
        os._exit(0)
    os.waitpid(pid, 0)
assert numbers(kind="sum", name="requests") == [100], "the parent's own"
pid = os.fork()
if not pid:
    os._exit(int(requests._value.get()))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 15, "a block that is taken over holds what was counted in it"
"""
    )
