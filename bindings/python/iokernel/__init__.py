"""iokernel: all the networking of a program in one I/O thread that its interpreter cannot stall.

import iokernel

cache = iokernel.open("redis://cache.internal")     # returns at once
cache.call("SET", "greeting", "hello")              # blocking; the GIL is free meanwhile

async def handler():
    return await cache("GET", "greeting")           # the same endpoint inside asyncio
"""

from __future__ import annotations

import atexit
from collections.abc import Mapping, Sequence
from typing import Any

from . import http, pg
from ._cells import BUCKETS, Counter, Gauge, Histogram, Sum
from ._endpoint import Endpoint, Lease
from ._errors import (
    BadRequest,
    Cancelled,
    Closed,
    ConfigError,
    ConnectionLost,
    Error,
    Overloaded,
    RemoteError,
    Timeout,
    Unavailable,
)
from ._exchange import Exchange
from ._future import Future
from ._kernel import Kernel, close_default, default_kernel
from ._markers import Marker
from ._request import Request
from ._stream import Subscription, Watch
from ._tracing import trace_from
from ._values import Attributed
from .listener import Listener

__version__ = "0.1.0"

__all__ = [
    "Attributed",
    "BadRequest",
    "Cancelled",
    "Closed",
    "ConfigError",
    "ConnectionLost",
    "Counter",
    "Endpoint",
    "Error",
    "Exchange",
    "Future",
    "Gauge",
    "Histogram",
    "Kernel",
    "Lease",
    "Listener",
    "Marker",
    "Overloaded",
    "RemoteError",
    "Request",
    "Subscription",
    "Sum",
    "Timeout",
    "Unavailable",
    "Watch",
    "counter",
    "default_kernel",
    "gauge",
    "histogram",
    "http",
    "listen",
    "marker",
    "open",
    "pg",
    "trace_from",
]


def open(url: str, **options: Any) -> Endpoint:
    """Opens a service in the default kernel and returns at once; names, connections, heartbeats live from here on.

    Options are those of the URL's query: `open("redis://host", heartbeat="5s", max_inflight=200)`. Sizes and times
    carry their unit. Raises ConfigError (with `key`, `value`, `expected`) for a URL or an option that is wrong; that
    the peer cannot be reached is seen by requests, `wait_ready` and `state`.
    """
    return default_kernel().open(url, **options)


def listen(url: str, **options: Any) -> Listener:
    """Listens in the default kernel: `listen("redis://127.0.0.1:0")`. `url` of the result has the port.

    Raises ConfigError for a URL or option that is wrong, Error if the system refuses the address.
    """
    return default_kernel().listen(url, **options)


def counter(
    name: str, /, help: str = "", unit: str = "", *, labels: Mapping[str, object] | None = None, **more: object
) -> Counter:
    """A counter of the default kernel; see `Kernel.counter`. It goes on counting whatever becomes of the kernel."""
    return default_kernel().counter(name, help, unit, labels=labels, **more)


def gauge(
    name: str,
    /,
    help: str = "",
    unit: str = "",
    *,
    merge: str = "sum",
    labels: Mapping[str, object] | None = None,
    **more: object,
) -> Gauge:
    """A gauge of the default kernel; see `Kernel.gauge`."""
    return default_kernel().gauge(name, help, unit, merge=merge, labels=labels, **more)


def histogram(
    name: str,
    /,
    help: str = "",
    unit: str = "",
    *,
    buckets: Sequence[float] = BUCKETS,
    labels: Mapping[str, object] | None = None,
    **more: object,
) -> Histogram:
    """A histogram of the default kernel; see `Kernel.histogram`."""
    return default_kernel().histogram(name, help, unit, buckets=buckets, labels=labels, **more)


def marker(text: str, /, **fields: object) -> Marker:
    """What the program is doing, shown by the default kernel: `with iokernel.marker("render invoice", id=7):`."""
    return default_kernel().marker(text, **fields)


atexit.register(close_default)
