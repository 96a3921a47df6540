"""Kernels: an I/O thread each, with the channels of this process's threads and loops."""

from __future__ import annotations

import math
import os
import re
import threading
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import _channel, _stack
from ._aio import LoopChannel
from ._cells import BUCKETS, KEPT_MAX, Counter, Gauge, Histogram, Labels, Sum, describe, make
from ._channel import Channel, Completion, Names
from ._errors import ConfigError, Error, Unavailable, error_for
from ._future import AioFuture, Future
from ._lib import ffi, last_error, lib
from ._markers import Marker, marker_text
from ._native import ThreadChannel
from ._records import FLAG_UNTIL_UP, OP_OPEN, OP_STATE, timeout_ms
from .loops import native_local, running_hub, running_loop

if TYPE_CHECKING:
    from ._endpoint import Endpoint, Lease
    from ._stream import Watch
    from .listener import Listener
    from .loops import Loop
    from .loops._hub import Hub, HubChannel

_kernels: weakref.WeakSet[Kernel] = weakref.WeakSet()

_area_numbers: dict[str | None, int] = {None: 0}
"""A number for each place that metrics were ever counted in; 0: this process's own."""


def option_text(key: str, value: Any) -> str:
    """An option's value as configuration has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, os.PathLike)):
        return str(value)
    if isinstance(value, timedelta):
        return f"{round(value.total_seconds() * 1000)}ms"
    raise ConfigError(
        f'{key}: "{value!r}": expected a str, int, bool or timedelta, as in heartbeat="5s"',
        code="BADCONFIG",
        status=-105,
    )


def query(options: dict[str, Any]) -> str:
    """Options as `key=value&key=value`. None leaves an option out."""
    given = {key: option_text(key, value) for key, value in options.items() if value is not None}
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in given.items())


def with_options(url: str, options: dict[str, Any]) -> str:
    """A URL whose query has these options too."""
    if not isinstance(url, str):
        raise ConfigError(f'url: "{url!r}": expected a str', code="BADCONFIG", status=-105)
    more = query(options)
    if not more:
        return url
    joint = "" if url.endswith(("?", "&")) else "&" if "?" in url else "?"
    return f"{url}{joint}{more}"


class Outcome:
    """Takes the completion of an operation of which more than the value matters."""

    def __init__(self) -> None:
        self.done: Completion | None = None

    def completion(self, done: Completion) -> None:
        self.done = done

    def is_done(self) -> bool:
        return self.done is not None


class _Local(native_local()):  # type: ignore[misc]
    """What each thread has of a kernel. The channels are closed when their thread ends."""

    channel: Channel | None = None
    loop: LoopChannel | None = None
    spare: Channel | None = None
    shared: HubChannel | None = None
    """That of the thread's greenlets."""


class Kernel:
    """An I/O thread with everything it owns: `Kernel(name="web-1")`. Usually the default one is enough.

    Any thread may use it. In a forked child it starts anew, with no connection of the parent's, at its first use.
    As a context manager it closes itself. Raises ConfigError for options that the library does not know.

    `stack` lets the admin endpoint's `/stack` ask this process's threads where they are, by a signal (`stack_signal`,
    SIGURG by default). It is on where `admin` is given.
    """

    def __init__(self, *, stack: bool | None = None, **config: Any) -> None:
        self._stack = bool(config.get("admin")) if stack is None else stack
        self._config = query(config)
        self._mortal: weakref.WeakSet[Endpoint | Lease] = weakref.WeakSet()
        self._closed = False
        place = config.get("metrics")
        self._area = _area_numbers.setdefault(None if place is None else str(place), len(_area_numbers))
        self._series: dict[tuple[Any, ...], Any] = {}
        self._reset()
        _kernels.add(self)
        self._open()

    def _reset(self) -> None:
        self._handle: Any = None
        self._lock = threading.RLock()
        self._local = _Local()
        self._loops: list[LoopChannel] = []
        self.spare_channels: list[Channel] = []
        """What leases were taken by that do not end with a thread: see `compat.dbapi`."""
        self.spare_threads: list[Any] = []
        """What exchanges that are over have left for others: see `_exchange._Threads`."""
        self.names = Names()
        self.names.area = self._area

    def _open(self) -> Any:
        with self._lock:
            if self._closed:
                raise error_for(-103, 1, text="the kernel is closed")
            if self._handle is None:
                out = ffi.new("iok_kernel **")
                status = lib.iok_kernel_open(self._config.encode(), out)
                if status:
                    raise error_for(status, 1, text=last_error())
                self._handle = out[0]
                if self._stack:
                    _stack.begin(self._handle)
            return self._handle

    def _open_channel(self, config: str = "") -> Any:
        out = ffi.new("iok_channel **")
        status = lib.iok_channel_open(self._handle or self._open(), config.encode(), out)
        if status:
            raise error_for(status, 1, text=last_error())
        return out[0]

    # Channels

    def thread_channel(self) -> Channel:
        """The channel of this thread, for what blocks."""
        hub = running_hub()
        if hub is not None:
            shared = self._hub_channel(hub)
            if not shared.busy:
                return shared
        local = self._local
        channel: Channel | None = local.channel
        if channel is None or channel.ended:
            channel = local.channel = ThreadChannel(self._open_channel(), self.names)
        if channel.busy:
            # A signal handler or finalizer runs inside of this thread's channel.
            channel = local.spare
            if channel is None or channel.ended:
                channel = local.spare = ThreadChannel(self._open_channel(), self.names)
        return channel

    def _hub_channel(self, hub: Hub) -> HubChannel:
        channel: HubChannel | None = self._local.shared
        if channel is None or channel.hub is not hub or channel.ended:
            from .loops._hub import HubChannel

            if channel is not None:
                channel.close()
            channel = self._local.shared = HubChannel(self._open_channel(), self.names, hub)
        return channel

    def own_channel(self, loop: Loop | None) -> Channel:
        """A channel for one object of a loop, or of this thread."""
        if loop is not None:
            return self.new_loop_channel(loop)
        return self.with_hub(ThreadChannel(self._open_channel(), self.names))

    def with_hub(self, channel: Channel) -> Channel:
        """The same channel, watched by the hub of this thread if it has one."""
        hub = running_hub()
        if hub is None or channel.ended:
            return channel
        from .loops._hub import HubChannel

        return channel if isinstance(channel, HubChannel) else HubChannel(channel.detach(), self.names, hub)

    def new_loop_channel(self, loop: Loop, handle: Any = None) -> LoopChannel:
        """Another channel of a running loop; of this handle, if there is one."""
        kind: type[LoopChannel] = getattr(loop, "channel_class", LoopChannel)
        return kind(handle or self._open_channel(), self.names, loop)

    def spare_channel(self) -> Channel:
        """A channel of no thread in particular; its rings are small, for there may be many."""
        return ThreadChannel(self._open_channel("ring=512KiB"), self.names, record_max=1 << 17)

    def loop_channel(self, loop: Loop) -> LoopChannel:
        """The channel of a running loop."""
        channel: LoopChannel | None = self._local.loop
        if channel is None or channel.loop is not loop or channel.ended:
            channel = self._local.loop = self._find_loop_channel(loop)
        return channel

    def _find_loop_channel(self, loop: Loop) -> LoopChannel:
        with self._lock:
            for stale in [channel for channel in self._loops if channel.ended or channel.loop.is_closed()]:
                self._loops.remove(stale)
                stale.close()
            for channel in self._loops:
                if channel.loop is loop:
                    return channel
            channel = self.new_loop_channel(loop)
            self._loops.append(channel)
            return channel

    def submit(self, op: int, flags: int, endpoint: int, timeout: float | None, key: int, payload: bytes) -> Any:
        """One operation for who runs here: a future of the running loop, or of this thread."""
        loop = running_loop()
        ms = timeout_ms(timeout)
        if loop is None:
            channel = self.thread_channel()
            future = Future(channel)
            future._tag = channel.submit(op, flags, endpoint, ms, key, payload, future)
            channel.send()
            return future
        watched = self.loop_channel(loop)
        make = watched.make_future
        waiting: Any = AioFuture(loop=loop) if make is None else make(AioFuture)
        waiting._iok_channel = watched
        waiting._iok_tag = watched.submit(op, flags, endpoint, ms, key, payload, waiting)
        return waiting

    def block(self, op: int, endpoint: int, payload: bytes, channel: Channel | None = None) -> Completion:
        """One operation, waiting for its end. Raises if it failed."""
        if channel is None:
            channel = self.thread_channel()
        outcome = Outcome()
        channel.submit(op, 0, endpoint, 0, 0, payload, sink=outcome)
        channel.wait(outcome.is_done)
        done = outcome.done
        assert done is not None
        if done.status:
            raise done.error(self.names)
        return done

    def wait_until_up(self, endpoint: int, timeout: float | None) -> None:
        """Blocks until an endpoint is up; 0: every one that must be."""
        channel = self.thread_channel()
        future = Future(channel)
        tag = channel.submit(OP_STATE, FLAG_UNTIL_UP, endpoint, timeout_ms(timeout), 0, b"", future)
        try:
            channel.wait(future._is_done)
        except BaseException:
            if channel.cancel(tag) and not channel.ended:
                channel.send()
            raise
        _raise_unavailable(future._error)

    async def until_up(self, endpoint: int, timeout: float | None) -> None:
        """`wait_until_up` for event loops."""
        try:
            await self.submit(OP_STATE, FLAG_UNTIL_UP, endpoint, timeout, 0, b"")
        except Error as error:
            _raise_unavailable(error)

    def remember(self, one: Endpoint | Lease) -> None:
        """Something whose number means nothing in a forked child."""
        self._mortal.add(one)

    def open_number(self, url: str) -> int:
        """Opens a service. Its number."""
        number = self.block(OP_OPEN, 0, url.encode("utf-8", "surrogateescape")).endpoint
        self.names[number] = shown(url)
        return number

    # The surface

    def open(self, url: str, **options: Any) -> Endpoint:
        """Opens a service; see `iokernel.open`."""
        made_of = with_options(url, options)
        endpoint = _endpoint_class(made_of)(self, made_of)
        self.remember(endpoint)
        return endpoint

    def listen(self, url: str, **options: Any) -> Listener:
        """Opens a listener; see `iokernel.listen`."""
        from .listener import Listener

        return Listener(self, with_options(url, options))

    # Metrics. Names: `[a-zA-Z_:][a-zA-Z0-9_:]*`. Labels come by their names, or, where one is called `help`, `unit`,
    # `labels`, `merge` or `buckets`, in `labels`. The same name and labels give the same object.

    def counter(
        self,
        name: str,
        /,
        help: str = "",
        unit: str = "",
        *,
        labels: Labels = None,
        **more: object,
    ) -> Counter:
        """A counter of whole numbers: `kernel.counter("orders", shop="berlin").inc()`. A `_total` at the end of the
        name is left out, as exporters add it; a `unit` is added where it is missing.

        Raises ConfigError for a wrong name, unit or label; Overloaded if there is no room for another series. Beyond
        1000 series of a name, all are one, with the label `overflow="true"`.
        """
        one: Counter = self._one(describe("counter", name, help, unit, labels, more))
        return one

    def sum(
        self,
        name: str,
        /,
        help: str = "",
        unit: str = "",
        *,
        labels: Labels = None,
        **more: object,
    ) -> Sum:
        """A counter of what is no whole number, such as seconds; see `counter`."""
        one: Sum = self._one(describe("sum", name, help, unit, labels, more))
        return one

    def gauge(
        self,
        name: str,
        /,
        help: str = "",
        unit: str = "",
        *,
        merge: str = "sum",
        labels: Labels = None,
        **more: object,
    ) -> Gauge:
        """What goes up and down: `kernel.gauge("depth").set(3)`. `merge`: how the gauges of several processes make
        one: `"sum"`, `"max"` or `"min"`. See `counter`."""
        one: Gauge = self._one({**describe("gauge", name, help, unit, labels, more), "merge": merge})
        return one

    def histogram(
        self,
        name: str,
        /,
        help: str = "",
        unit: str = "",
        *,
        buckets: Sequence[float] = BUCKETS,
        labels: Labels = None,
        **more: object,
    ) -> Histogram:
        """How values are distributed: `kernel.histogram("render", unit="seconds").observe(0.2)`. `buckets`: upper
        bounds, growing, 128 at most. See `counter`."""
        one: Histogram = self._one(describe("histogram", name, help, unit, labels, more), tuple(buckets))
        return one

    def _one(self, spec: dict[str, str], edges: tuple[float, ...] = ()) -> Any:
        key = (edges, *(part for part in spec.items() if part[0] != "help"))
        one = self._series.get(key)
        if one is None:
            one = make(self._handle or self._open(), spec, edges)
            if len(self._series) < KEPT_MAX:
                self._series[key] = one
        return one

    def marker(self, text: str, /, **fields: object) -> Marker:
        """What the program is doing: `with kernel.marker("render invoice", id=7):` shows `render invoice id=7` (56
        bytes at most) to whoever asks, and with each request submitted meanwhile. Make one once to enter it often."""
        return Marker(self, marker_text(text, fields))

    def _marker_slot(self) -> int:
        """The address of this thread's slot."""
        out = ffi.new("void **")
        status = lib.iok_marker_slot(self._handle or self._open(), out)
        if status:
            raise error_for(status, 1, text=last_error())
        return int(ffi.cast("uintptr_t", out[0]))

    @property
    def state(self) -> dict[str, Any]:
        """How it is: `ready` (every endpoint opened with `require=True` is up), `missing` (the URLs of those that are
        not), and `endpoints`, each with its `endpoint` (a number), `url`, `state` and `required`."""
        state: dict[str, Any] = self.block(OP_STATE, 0, b"").value()
        return state

    def watch(self, buffer: int = 1024) -> Watch:
        """`state` at once, and again after every change; used as `Endpoint.watch`."""
        from ._stream import Watch

        return Watch(self, 0, buffer)

    def wait_ready(self, timeout: float | None = None) -> None:
        """Blocks until every endpoint opened with `require=True` is up.

        Raises Unavailable after `timeout` seconds (None: waits for as long as it takes).
        """
        self._open()
        self.wait_until_up(0, math.inf if timeout is None else timeout)

    async def ready(self, timeout: float | None = None) -> None:
        """`wait_ready` for event loops."""
        self._open()
        await self.until_up(0, math.inf if timeout is None else timeout)

    def close(self, drain: float = 0.0) -> None:
        """Closes every endpoint and ends the I/O thread. Requests under way may finish for `drain` seconds.

        What is left then fails with Closed. Closing twice is harmless. Any thread.
        """
        with self._lock:
            self._closed = True
            handle, self._handle = self._handle, None
        if handle is None:
            return
        if self._stack:
            _stack.end(handle)
        status = lib.iok_kernel_close(handle, min(int(drain * 1000), 0x7FFFFFFF))
        channel = self._local.channel
        if channel is not None and not channel.busy:
            while channel.poll():
                pass
        if status not in (0, -102, -104):
            raise error_for(status, 0, text=last_error())

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    def __enter__(self) -> Kernel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        config = re.sub(r"(^|&)(otlp_headers)=[^&]*", r"\1\2=***", self._config)
        return f"<iokernel.Kernel {config} {state}>" if config else f"<iokernel.Kernel {state}>"

    def __del__(self) -> None:
        try:
            self.close()
        except (Error, AttributeError, TypeError):
            return

    def _forked(self) -> None:
        """In a forked child: nothing of the parent's is touched; everything opens again at its first use."""
        self._reset()
        for one in self._mortal:
            one._forked()


def _endpoint_class(url: str) -> type[Endpoint]:
    """What endpoints of a scheme are."""
    from ._endpoint import Endpoint

    scheme = url.partition(":")[0].partition("+")[0].lower()
    if scheme in ("http", "https"):
        from .http import HttpEndpoint

        return HttpEndpoint
    if scheme in ("postgres", "postgresql"):
        from .pg import PgEndpoint

        return PgEndpoint
    return Endpoint


def shown(url: str) -> str:
    """A URL without its query and password."""
    before = url.partition("?")[0]
    scheme, joint, rest = before.partition("//")
    authority, slash, path = rest.partition("/")
    credentials, at, host = authority.rpartition("@")
    user = credentials.partition(":")[0]
    return f"{scheme}{joint}{user}{':***@' if at else ''}{host}{slash}{path}"


def _raise_unavailable(error: BaseException | None) -> None:
    """A wait that timed out says why the endpoint is not up."""
    if error is None:
        return
    if isinstance(error, Error) and error.status == -202:
        raise Unavailable(error.message, code=error.code, status=-303, fate="not_sent", endpoint=error.endpoint)
    try:
        raise error
    finally:
        del error


_default: Kernel | None = None
_default_lock = threading.Lock()


def default_kernel() -> Kernel:
    """The kernel of `iokernel.open` and `iokernel.listen`, started at their first call.

    The environment variable IOKERNEL_ADMIN gives it an admin endpoint, as `Kernel(admin=...)` does.
    """
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            _default = Kernel(name="iokernel", admin=os.environ.get("IOKERNEL_ADMIN") or None)
        return _default


def use_as_default(kernel: Kernel) -> None:
    """From here on, `iokernel.open` and `iokernel.listen` are this kernel's."""
    global _default
    with _default_lock:
        _default = kernel


def close_default(drain: float = 0.2) -> None:
    """At exit: what is under way may finish for a moment."""
    _channel.exiting = True
    kernel = _default
    if kernel is not None and not kernel.closed:
        try:
            kernel.close(drain)
        except Error:
            return


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    _stack.forget()
    for kernel in list(_kernels):
        kernel._forked()


os.register_at_fork(after_in_child=_after_fork)
