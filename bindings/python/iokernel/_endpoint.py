"""Endpoints: services that requests go to."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from . import _tracing
from ._errors import BadRequest, Closed, error_for
from ._future import AioFuture, Future
from ._native import accelerator
from ._records import (
    FLAG_IDEMPOTENT,
    FLAG_QUIET,
    FLAG_ROUTE,
    FLAG_TRACE,
    OP_CLOSE,
    OP_LEASE,
    OP_PEERS,
    OP_RELEASE,
    OP_REQUEST,
    OP_STATE,
    route_key,
    timeout_ms,
)
from ._values import cannot_pack, pack
from .loops import needed_loop, running_loop

if TYPE_CHECKING:
    from ._aio import LoopChannel
    from ._channel import Channel, Waiter
    from ._exchange import Exchange
    from ._kernel import Kernel
    from ._stream import Subscription, Watch

    Route = int | str | bytes

E = TypeVar("E", bound="Endpoint")


if TYPE_CHECKING or accelerator is None:

    class CallerBase:
        """What the accelerator has its own of."""

        __slots__ = ("_key", "_number")
        _number: int
        _key: int

        def _begin(self, future_class: type[AioFuture], arguments: tuple[Any, ...]) -> AioFuture | None:
            return None

else:
    CallerBase = accelerator.Caller


def _context(trace: str | None) -> bytes:
    """What stands in front of a request's payload."""
    if trace is None and _tracing.source is not None:
        trace = _tracing.source()
    return b"" if trace is None else _tracing.context_bytes(trace)


def _traced(
    channel: Channel,
    flags: int,
    number: int,
    ms: int,
    key: int,
    args: tuple[Any, ...],
    waiter: Waiter,
    trace: str | None,
) -> int:
    """Queues one request that has a trace context, or would have one if there were any. Its tag."""
    context = _context(trace)
    if not context:
        return channel.request(flags, number, ms, key, args, waiter)
    try:
        payload = context + pack(args)
    except Exception as error:
        raise cannot_pack(error) from None
    return channel.submit(OP_REQUEST, flags | FLAG_TRACE, number, ms, key, payload, waiter)


class _Requests(CallerBase):
    """What endpoints and leases have in common: requests."""

    __slots__ = ("_kernel",)
    _kernel: Kernel
    _thread_future: type[Future] = Future
    _loop_future: type[AioFuture] = AioFuture

    def _open(self) -> int:
        """The number of the endpoint, when `_number` is 0: it is closed, or not open in this process yet."""
        raise NotImplementedError

    def _routed(self, route: Route) -> int:
        """The key of a route."""
        raise NotImplementedError

    def call(
        self,
        *args: Any,
        timeout: float | None = None,
        idempotent: bool = False,
        route: Route | None = None,
        trace: str | None = None,
    ) -> Any:
        """One request, blocking until its reply: `call("GET", "key")`. The GIL is free meanwhile.

        Arguments are None, bool, int, float, str, bytes and lists or dicts of them, as the protocol takes them. Lists
        as arguments are a batch, sent at once and answered by one list: `call(["SET", "a", 1], ["GET", "a"])`; errors
        in it are RemoteError elements.

        `timeout` is in seconds; None means the endpoint's own (`timeout=30s`), `math.inf` none. `idempotent` says that
        the request may be sent again when its fate is in doubt. `route` (an int, str or bytes): requests of one route
        go to one peer, for as long as the peers stay the same. `trace` is the W3C `traceparent` of the span that the
        request is a part of; without one, `iokernel.trace_from` decides. Raises an `iokernel.Error` with its `fate`.
        Ctrl-C interrupts it and cancels the request.
        """
        number = self._number or self._open()
        channel = self._kernel.thread_channel()
        future = Future(channel)
        ms = 0 if timeout is None else timeout_ms(timeout)
        flags, key = FLAG_IDEMPOTENT if idempotent else 0, self._key
        if route is not None:
            flags, key = flags | FLAG_ROUTE, self._routed(route)
        if trace is None and _tracing.source is None:
            tag = channel.request(flags, number, ms, key, args, future)
        else:
            tag = _traced(channel, flags, number, ms, key, args, future, trace)
        try:
            channel.wait(future._is_done)
        except BaseException:
            if channel.cancel(tag) and not channel.ended:
                channel.send()
            raise
        if future._error is not None:
            try:
                raise future._error
            finally:
                del future  # Whose error's traceback names this frame: a cycle that would keep every caller's locals.
        return future._value

    def _call(
        self,
        *args: Any,
        timeout: float | None = None,
        idempotent: bool = False,
        route: Route | None = None,
        trace: str | None = None,
    ) -> Any:
        """One request; returns at once. Arguments, options and errors as `call`.

        Inside of an event loop the result is awaited there: `await cache("GET", "key")`. It is an `asyncio.Future` of
        asyncio's loops, a Deferred in Twisted; cancelling it, or the scope of trio that awaits it, cancels the request.
        Elsewhere it is an `iokernel.Future`, whose `result()` blocks; in greenlets it gives way to the others.
        """
        number = self._number or self._open()
        ms = 0 if timeout is None else timeout_ms(timeout)
        flags, key = FLAG_IDEMPOTENT if idempotent else 0, self._key
        if route is not None:
            flags, key = flags | FLAG_ROUTE, self._routed(route)
        loop = running_loop()
        if loop is None:
            channel = self._kernel.thread_channel()
            future = self._thread_future(channel)
            if trace is None and _tracing.source is None:
                future._tag = channel.request(flags, number, ms, key, args, future)
            else:
                future._tag = _traced(channel, flags, number, ms, key, args, future, trace)
            channel.send()
            if accelerator is not None:
                self._remember(channel)
            return future
        watched = self._kernel.loop_channel(loop)
        return self._ask(self._loop_future, watched, (flags, number, ms, key, args), trace)

    def _ask(
        self,
        kind: type[AioFuture],
        channel: LoopChannel,
        request: tuple[int, int, int, int, tuple[Any, ...]],
        trace: str | None,
    ) -> Any:
        """Queues one request of a loop: flags, endpoint, timeout, key, arguments. What awaits its reply."""
        make = channel.make_future
        waiting: Any = kind(loop=channel.loop) if make is None else make(kind)
        waiting._iok_channel = channel
        if trace is None and _tracing.source is None:
            waiting._iok_tag = channel.request(*request, waiting)
        else:
            waiting._iok_tag = _traced(channel, *request, waiting, trace)
        if accelerator is not None and make is None:
            self._remember(channel)
        return waiting

    if TYPE_CHECKING or accelerator is None:
        __call__ = _call

        def _remember(self, channel: Channel) -> None: ...

    def send(self, *args: Any, route: Route | None = None, trace: str | None = None) -> None:
        """One request whose reply nobody waits for. A failure is logged by the logger `iokernel`."""
        number = self._number or self._open()
        flags, key = (FLAG_QUIET, self._key) if route is None else (FLAG_QUIET | FLAG_ROUTE, self._routed(route))
        try:
            payload = pack(args)
        except Exception as error:
            raise cannot_pack(error) from None
        context = _context(trace)
        if context:
            flags, payload = flags | FLAG_TRACE, context + payload
        loop = running_loop()
        channel = self._kernel.thread_channel() if loop is None else self._kernel.loop_channel(loop)
        channel.submit(OP_REQUEST, flags, number, 0, key, payload)
        if loop is None:
            channel.send()


class Endpoint(_Requests):
    """A service, alive in the background from `iokernel.open` until `close()`. Any thread, any loop.

    In a forked child it opens itself again at its first use.
    """

    __slots__ = ("__weakref__", "_closed", "_told", "_url")

    def __init__(self, kernel: Kernel, url: str) -> None:
        self._kernel = kernel
        self._url = url
        self._closed = False
        self._told: bytes | None = None
        self._key = 0
        self._number = kernel.open_number(url)

    @property
    def url(self) -> str:
        """The URL, without password and options."""
        from ._kernel import shown

        return shown(self._url)

    @property
    def kernel(self) -> Kernel:
        """The kernel that it lives in."""
        return self._kernel

    @property
    def number(self) -> int:
        """Its number in the kernel."""
        return self._number or self._open()

    def _forked(self) -> None:
        self._number = 0

    def _open(self) -> int:
        if self._closed:
            raise Closed("the endpoint is closed", status=-103, fate="not_sent", endpoint=self.url)
        if self._number == 0:
            self._number = self._kernel.open_number(self._url)
            if self._told is not None:
                self._kernel.block(OP_PEERS, self._number, self._told)
        return self._number

    def _routed(self, route: Route) -> int:
        return route_key(route)

    def subscribe(self, *request: Any, timeout: float | None = None, buffer: int = 65536) -> Subscription:
        """A request that keeps giving: `subscribe("SUBSCRIBE", "news")`, `subscribe("MONITOR")`.

        The Subscription is iterable, async-iterable, and a (sync and async) context manager. Outside of a loop this
        waits until the peer has accepted; inside of one, `await` it, enter it or iterate over it for that. `timeout`
        is in seconds, for being accepted; `buffer` is how many messages may wait in it unread before more are dropped
        and counted.
        """
        from ._stream import Subscription

        return Subscription(self, request, timeout, buffer)

    def exchange(self, *request: Any, timeout: float | None = None, route: Route | None = None) -> Exchange:
        """A request whose messages go both ways, where the protocol has such: `exchange("GET", "/big")`.

        Returns at once. The Exchange is iterable, async-iterable, and a (sync and async) context manager; `send` and
        `finish` take what goes to the peer, `accepted` waits for the beginning of its answer. `timeout` is in seconds,
        for that beginning.
        """
        from ._exchange import Exchange

        return Exchange(self, request, timeout, route)

    def watch(self, buffer: int = 1024) -> Watch:
        """How it is, as `state` has it: at once, and again after every change of its state, its peers or their roles.

        A Watch is used as a Subscription is: iterable, async-iterable, closable, a context manager. When more than
        `buffer` states wait in it unread, the oldest are dropped and counted in `lost`.
        """
        from ._stream import Watch

        return Watch(self._kernel, self._open(), buffer)

    def set_peers(self, peers: Iterable[str | Mapping[str, Any]]) -> None:
        """Tells the peers of an endpoint opened as `scheme+app://label`: the whole set, each time.

        Each is `"host:port"`, or a dict with `address` and, where wanted, `weight`, `priority` and `role` (`"primary"`
        or `"replica"`). Those that are gone drain; those that come are connected before traffic moves. Raises
        BadRequest, and changes nothing, if one of them is wrong or the endpoint finds its peers by itself.
        """
        if isinstance(peers, (str, bytes, Mapping)):
            raise cannot_pack(TypeError(f"{type(peers).__name__}: expected a list of peers"))
        try:
            told = pack([dict(peer) if isinstance(peer, Mapping) else peer for peer in peers])
        except Exception as error:
            raise cannot_pack(error) from None
        self._kernel.block(OP_PEERS, self._open(), told)
        self._told = told

    def lease(self, timeout: float | None = None, route: Route | None = None) -> Lease:
        """A connection of one's own, for `with` or `async with`: transactions and what else changes a connection.

        `timeout` is in seconds, for getting it. `route`: to the peer that requests of that route go to.
        """
        return Lease(self, timeout, route)

    def wait_ready(self, timeout: float | None = None) -> None:
        """Blocks until the endpoint is up. Raises Unavailable after `timeout` seconds (None: the endpoint's own)."""
        self._kernel.wait_until_up(self._open(), timeout)

    async def ready(self, timeout: float | None = None) -> None:
        """`wait_ready` for event loops."""
        await self._kernel.until_up(self._open(), timeout)

    @property
    def state(self) -> dict[str, Any]:
        """How it is: `state` (`"up"`, `"degraded"`, `"connecting"`, `"down"`), `description`, `conns`, `queued`,
        `inflight`, `last_error` and more; `peers` has a dict of each: `name`, `state`, `role`, `latency_us`, ..."""
        state: dict[str, Any] = self._kernel.block(OP_STATE, self._open(), b"").value()
        return state

    def close(self) -> None:
        """Closes it; what is under way fails with Closed. Closing twice is harmless."""
        self._closed = True
        number, self._number = self._number, 0
        if not number or self._kernel.closed:
            return
        try:
            self._kernel.block(OP_CLOSE, number, b"")
        except Closed:
            return

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    def __enter__(self: E) -> E:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self: E) -> E:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<iokernel.Endpoint {self.url}{' closed' if self._closed else ''}>"

    def __reduce__(self) -> Any:
        from . import open

        return (open, (self._url,))


class _Wanted:
    """Waits for a lease; one that comes when nobody waits for it any more is given back."""

    def __init__(self, lease: Lease, number: int, future: Any = None) -> None:
        self._lease = lease
        self._number = number
        self._future = future
        self._come: Any = None

    def set_result(self, value: Any, /) -> None:
        if self._future is None or self._future.done():
            self._lease._give_back(self._number, value)
        else:
            self._come = value
            self._future.set_result(value)

    def set_exception(self, error: Any, /) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_exception(error)

    def leave(self) -> None:
        """Nobody waits any more."""
        self._future = None
        if self._come is not None:
            self._lease._give_back(self._number, self._come)


class Lease(_Requests):
    """A connection of one's own: `with endpoint.lease() as conn: conn.call("WATCH", "key")`.

    `call`, `conn(...)` and `send` as an endpoint's. Given back at the end, clean: what it had under way is cancelled.
    """

    __slots__ = ("__weakref__", "_endpoint", "_route", "_timeout")

    def __init__(self, endpoint: Endpoint, timeout: float | None, route: Route | None = None) -> None:
        self._endpoint = endpoint
        self._kernel = endpoint._kernel
        self._timeout = timeout
        self._route = (0, 0) if route is None else (FLAG_ROUTE, route_key(route))
        self._number = 0
        self._key = 0

    @property
    def endpoint(self) -> Endpoint:
        """Whose connection it is."""
        return self._endpoint

    def _forked(self) -> None:
        self._number = 0

    def _open(self) -> int:
        text = "the lease is not held: enter it with `with` or `async with`"
        raise error_for(-110, 1, self._endpoint.url, text=text)

    def _routed(self, route: Route) -> int:
        raise BadRequest(
            "route: a lease is bound to its peer: expected none", code="BADREQUEST", status=-107, fate="not_sent"
        )

    def _hold(self, number: int, lease: int) -> Lease:
        self._key, self._number = lease, number
        self._kernel.remember(self)
        return self

    def acquire(self) -> Lease:
        """Waits for the connection. It is lost when the thread ends."""
        return self._acquire_by(self._kernel.thread_channel())

    def _acquire_by(self, channel: Channel) -> Lease:
        """The lease ends with the channel."""
        number = self._endpoint._open()
        future = Future(channel)
        flags, key = self._route
        tag = channel.submit(OP_LEASE, flags, number, timeout_ms(self._timeout), key, b"", future)
        try:
            channel.wait(future._is_done)
        except BaseException:
            if channel.cancel(tag, _Wanted(self, number)) and not channel.ended:
                channel.send()
            raise
        return self._hold(number, future.result(math.inf))

    async def _acquire(self) -> Lease:
        number = self._endpoint._open()
        loop = needed_loop()
        channel = self._kernel.loop_channel(loop)
        waiting = loop.create_future()
        wanted = _Wanted(self, number, waiting)
        flags, key = self._route
        tag = channel.submit(OP_LEASE, flags, number, timeout_ms(self._timeout), key, b"", wanted)
        try:
            lease = await waiting
        except BaseException:
            wanted.leave()
            channel.cancel(tag, wanted)
            raise
        return self._hold(number, lease)

    def release(self) -> None:
        """Gives the connection back. Twice is harmless."""
        number, self._number = self._number, 0
        if number:
            self._give_back(number, self._key)

    def _give_back(self, number: int, lease: int) -> None:
        if self._kernel.closed or number != self._endpoint._number:
            return
        loop = running_loop()
        channel = self._kernel.thread_channel() if loop is None else self._kernel.loop_channel(loop)
        channel.submit(OP_RELEASE, FLAG_QUIET, number, 0, lease, b"")
        if loop is None:
            channel.send()

    def __enter__(self) -> Lease:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def __await__(self) -> Generator[Any, None, Lease]:
        return self._acquire().__await__()

    async def __aenter__(self) -> Lease:
        return await self._acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<iokernel.Lease of {self._endpoint.url}{'' if self._number else ', not held'}>"
