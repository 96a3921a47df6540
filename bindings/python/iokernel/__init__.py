"""iokernel: all the networking of a program in one I/O thread that its interpreter cannot stall.

import iokernel

cache = iokernel.open("redis://cache.internal")     # returns at once
cache.call("SET", "greeting", "hello")              # blocking; the GIL is free meanwhile

async def handler():
    return await cache("GET", "greeting")           # the same endpoint inside asyncio
"""

from __future__ import annotations

import atexit
from typing import Any

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
from ._future import Future
from ._kernel import Kernel, close_default, default_kernel
from ._stream import Subscription, Watch
from ._tracing import trace_from
from ._values import Attributed
from .listener import Listener, Request

__version__ = "0.1.0"

__all__ = [
    "Attributed",
    "BadRequest",
    "Cancelled",
    "Closed",
    "ConfigError",
    "ConnectionLost",
    "Endpoint",
    "Error",
    "Future",
    "Kernel",
    "Lease",
    "Listener",
    "Overloaded",
    "RemoteError",
    "Request",
    "Subscription",
    "Timeout",
    "Unavailable",
    "Watch",
    "default_kernel",
    "listen",
    "open",
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


atexit.register(close_default)
