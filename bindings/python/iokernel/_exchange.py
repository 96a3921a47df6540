"""Exchanges: requests whose messages go both ways."""

from __future__ import annotations

import contextlib
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ._channel import Channel, Completion
from ._errors import Closed, Error, Timeout
from ._records import (
    FLAG_ROUTE,
    KIND_ACCEPTED,
    KIND_DONE,
    KIND_END,
    KIND_PUSH,
    OP_CREDIT,
    OP_SEND,
    OP_STATE,
    OP_STREAM,
    route_key,
    timeout_ms,
)
from ._values import cannot_pack, pack
from .loops import Loop, running_hub, running_loop

if TYPE_CHECKING:
    from ._endpoint import Endpoint, Route
    from ._kernel import Kernel
    from .loops._hub import Greenlets

T = TypeVar("T")
Self = TypeVar("Self", bound="Exchange")

_RAISES: Any = object()
SEND_AHEAD_BYTES = 256 << 10
"""What may be sent on before the kernel has said that it is on its way."""
WAIT_SLICE_S = 1.0
"""The longest single sleep, so that a signal that another thread took is handled soon."""
SPARES_MAX = 64
"""Channels that are kept for exchanges to come."""
CREDIT_BYTES = 64 << 10
"""What is taken of a stream that has more in store is given back in portions of this."""


class Exchange:
    """A request whose messages go both ways: what comes is iterated over, what goes is given to `send`.

    Made outside of event loops it blocks, and any thread may use it: one may send while another receives. Made inside
    of a loop it is used there, by any task, and what would block is awaited. Memory is bounded: what comes and is not
    taken fills the endpoint's `window`, what is sent and does not go out makes `send` wait.

        with endpoint.exchange("GET", "/big") as exchange:      # async with, async for, await exchange.send(...)
            for piece in exchange: ...

    `close()` (or the end of the `with`) cancels what is not over.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        request: tuple[Any, ...],
        timeout: float | None = None,
        route: Route | None = None,
        blocks: bool = False,
    ) -> None:
        """`blocks`: also where a loop is running."""
        self.head: Any = None
        """What the peer's answer began with; None before `accepted()`."""
        self.last_word: Any = None
        """What the peer said when it ended its messages, where the protocol has such a word."""
        self._over = True
        try:
            payload = pack(request)
        except Exception as error:
            raise cannot_pack(error) from None
        self._number, ms = endpoint._open(), timeout_ms(timeout)
        flags, key = (0, 0) if route is None else (FLAG_ROUTE, route_key(route))
        self._kernel = endpoint._kernel
        self._is_accepted = self._has_ended = self._is_closed = False
        self._value: Any = None
        self._error: Error | None = None
        self._refused: Error | None = None
        self._messages: deque[tuple[Any, int]] = deque()
        self._taken = self._unsent = 0
        loop = None if blocks else running_loop()
        self._users: _Threads | _Tasks | Greenlets = _users(self._kernel, loop)
        with self._users as channel:
            self._tag = channel.submit(OP_STREAM, flags, self._number, ms, key, payload, sink=_Sink(self))
            self._over = False

    # What the channel hands over

    def _completion(self, done: Completion) -> None:
        if done.kind == KIND_PUSH and not done.status:
            self._messages.append((done.value(), len(done.payload) or 1))
        elif done.kind == KIND_ACCEPTED:
            self.head, self._is_accepted = done.value(), True
        elif done.kind == KIND_END:
            self.last_word, self._has_ended = done.value(), True
        elif done.kind == KIND_DONE and not done.status:
            self._value, self._over = done.value(), True
        else:
            self._error = self._error or done.error(self._kernel.names)
            self._over = True
        self._users.news()
        if self._over:
            self._users.leave()

    def _sent(self, weight: int, done: Completion) -> None:
        self._unsent -= weight
        if done.status and self._refused is None:
            self._refused = done.error(self._kernel.names)
        self._users.news()

    def _gone(self) -> Error:
        return self._error or Closed("the exchange is over", status=-103)

    # Receiving

    def accepted(self: Self, timeout: float | None = None) -> Any:
        """Waits until the peer's answer has begun: `head` is what it began with. Raises what came instead.

        Blocks outside of loops; inside of one, await it. `timeout`: seconds to wait here; when they are over, Timeout
        is raised and the exchange goes on.
        """

        def is_there() -> bool:
            return self._is_accepted or self._over

        def take() -> Self:
            if not self._is_accepted and (self._error is not None or self._is_closed):
                raise self._gone()
            return self

        return self._users.when(is_there, take, timeout)

    def receive(self, timeout: float | None = None, default: Any = _RAISES) -> Any:
        """The next message. After the last one `default`, if it is given and nothing has failed; otherwise raises what
        ended the exchange, or Closed.

        Blocks outside of loops; inside of one, await it. `timeout` is in seconds (None: for ever), then Timeout.
        """

        def take() -> Any:
            if self._messages:
                return self._take()
            if default is _RAISES or self._error is not None:
                raise self._gone()
            return default

        return self._users.when(self._has_news, take, timeout)

    def _has_news(self) -> bool:
        return bool(self._messages) or self._has_ended or self._over

    def _take(self) -> Any:
        message, weight = self._messages.popleft()
        self._taken += weight
        if not self._over and (self._taken >= CREDIT_BYTES or not self._messages):
            credit, self._taken = self._taken, 0
            with self._users as channel:
                if not (self._over or channel.ended):
                    channel.submit(OP_CREDIT, 0, self._number, 0, self._tag, b"", tag=credit)
        return message

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._messages:
            self._users.block(self._has_news, None)
        if self._messages:
            return self._take()
        if self._error is not None:
            raise self._error
        raise StopIteration

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if not self._messages:
            await self._users.until(self._has_news, None)
        if self._messages:
            return self._take()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def result(self, timeout: float | None = None) -> Any:
        """What the exchange ended with, once it is over. Raises what it failed with. Blocks, or is awaited."""

        def take() -> Any:
            if self._error is not None:
                raise self._error
            return self._value

        return self._users.when(lambda: self._over, take, timeout)

    # Sending

    def send(self, value: Any, timeout: float | None = None) -> Any:
        """Sends one more message. Blocks while as much as may be sent ahead is under way; inside of a loop, await it.

        `timeout` is in seconds; when they are over, Timeout is raised, and what was sent still goes. Raises what ended
        the exchange, Closed if its peer wants no more of it, BadRequest for what the protocol does not have here.
        """
        self._submit(value)
        return self._users.when(lambda: self._unsent <= SEND_AHEAD_BYTES or self._over, self._check, timeout)

    def finish(self, last: Any = None, timeout: float | None = None) -> Any:
        """Says that nothing more will be sent; `last` is the last message, where the protocol has one. Waits until
        everything sent is on its way; what comes from the peer still comes."""
        self._submit(last)
        return self._users.when(lambda: self._unsent <= 0 or self._over, self._check, timeout)

    def _submit(self, value: Any) -> None:
        try:
            payload = pack(value)
        except Exception as error:
            raise cannot_pack(error) from None
        if self._over:
            raise self._gone()
        if self._refused is not None:
            raise self._refused
        with self._users as channel:
            if self._over:
                raise self._gone()
            weight = len(payload)
            self._unsent += weight
            channel.submit(OP_SEND, 0, self._number, 0, self._tag, payload, sink=_Ack(self, weight))

    def _check(self) -> None:
        if self._refused is not None and (not self._over or self._refused.code == "BADREQUEST"):
            raise self._refused
        if self._error is not None:
            raise self._error

    # How it is

    def underway(self) -> Any:
        """How far the request has come: `(has_connection, seconds)`, where seconds have passed since its last byte was
        written, or None. Blocks, or is awaited."""
        answer = _Answer(self._users)
        if not self._over:
            with self._users as channel:
                if not self._over:
                    channel.submit(OP_STATE, 0, self._number, 0, self._tag, b"", sink=answer)

        def take() -> tuple[bool, float | None]:
            told = answer.value or {"has_conn": self._is_accepted, "sent_ago_ns": None}
            ago_ns = told["sent_ago_ns"]
            return told["has_conn"], None if ago_ns is None else ago_ns / 1e9

        return self._users.when(lambda: answer.is_there or self._over, take, None)

    @property
    def closed(self) -> bool:
        """True once no more messages come, whatever was not taken yet."""
        return self._over

    # The end

    def close(self) -> None:
        """Cancels what is not over; messages that came before can still be taken. Twice is harmless."""
        if self._over:
            return
        with self._users as channel:
            if not self._over:
                self._over = self._is_closed = True
                channel.cancel(self._tag)
                self._users.news()
                self._users.leave()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __await__(self: Self) -> Generator[Any, None, Self]:
        self._users.only_in_loops()
        awaited: Generator[Any, None, Self] = self.accepted().__await__()
        return awaited

    async def __aenter__(self: Self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not self._over:
            self._over = True
            self._users.forget(self._tag)

    def __repr__(self) -> str:
        state = "over" if self._over else "accepted" if self._is_accepted else "waiting"
        return f"<iokernel.{type(self).__name__} {state}>"


class _Sink:
    """Lets go of an exchange that nobody holds any more."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = weakref.ref(exchange)

    def completion(self, done: Completion) -> None:
        exchange = self._exchange()
        if exchange is not None:
            exchange._completion(done)


class _Ack:
    """Waits for a message that was sent to be on its way."""

    def __init__(self, exchange: Exchange, weight: int) -> None:
        self._exchange = weakref.ref(exchange)
        self._weight = weight

    def completion(self, done: Completion) -> None:
        exchange = self._exchange()
        if exchange is not None:
            exchange._sent(self._weight, done)


class _Answer:
    """Waits for the answer to a question about an exchange."""

    def __init__(self, users: _Threads | _Tasks | Greenlets) -> None:
        self._users = users
        self.is_there = False
        self.value: Any = None

    def completion(self, done: Completion) -> None:
        self.is_there = True
        self.value = None if done.status else done.value()
        self._users.news()


def _users(kernel: Kernel, loop: Loop | None) -> _Threads | _Tasks | Greenlets:
    """Who uses an exchange that is made here."""
    if loop is not None:
        return _Tasks(kernel, loop)
    if running_hub() is None:
        return _Threads.of(kernel)
    from .loops._hub import Greenlets, HubChannel

    channel = kernel.thread_channel()
    return Greenlets(channel) if isinstance(channel, HubChannel) else _Threads.of(kernel)


class _Threads:
    """The threads that use one exchange: they share its channel, one at a time, and one of those that wait sleeps for
    all. With its channel it serves one exchange after another."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._channel: Channel = kernel.spare_channel()
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._has_sleeper = False
        self._is_left = False
        self._poll = select.poll()
        self._poll.register(self._channel.fd(), select.POLLIN)

    @classmethod
    def of(cls, kernel: Kernel) -> _Threads:
        """One that no exchange has."""
        while kernel.spare_threads:
            with contextlib.suppress(IndexError):  # Another thread was quicker.
                spare: _Threads = kernel.spare_threads.pop()
                if not spare._channel.ended:
                    return spare
        return cls(kernel)

    def __enter__(self) -> Channel:
        self._lock.acquire()
        return self._channel

    def __exit__(self, *_: object) -> None:
        try:
            if not self._channel.ended:
                self._channel.send()
        finally:
            self._release()

    def _release(self) -> None:
        is_free = self._is_left and not self._has_sleeper
        self._is_left = self._is_left and not is_free
        self._lock.release()
        if not is_free or self._kernel.closed or self._channel.ended:
            return
        if len(self._kernel.spare_threads) < SPARES_MAX:
            self._kernel.spare_threads.append(self)
        else:
            self._channel.close()

    def news(self) -> None:
        """Something has changed: whoever waits looks. The caller has the channel."""
        self._changed.notify_all()

    def leave(self) -> None:
        """The exchange is over. The caller has the channel."""
        self._is_left = True

    def forget(self, tag: int) -> None:
        """Nobody holds the exchange any more. From a finalizer, in any thread."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._channel.ended and not self._channel.busy:
                    self._channel.cancel(tag)
                    self._channel.send()
                    self._is_left = True
            finally:
                self._release()

    def when(self, done: Callable[[], bool], take: Callable[[], T], timeout: float | None) -> T:
        """What `take` gives once it is so."""
        if not self.block(done, timeout):
            raise too_late(timeout)
        return take()

    def block(self, done: Callable[[], bool], timeout: float | None) -> bool:
        """Waits until it is so. False if `timeout` seconds passed before."""
        if done():
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        self._lock.acquire()
        try:
            while not done():
                left = WAIT_SLICE_S if deadline is None else min(deadline - time.monotonic(), WAIT_SLICE_S)
                if left <= 0 and not self._look():
                    return done()
                if self._has_sleeper:
                    self._changed.wait(left)
                elif not self._look():
                    self._sleep(left)
            return True
        finally:
            # Who slept for the others sleeps no more: another has to.
            self._changed.notify_all()
            self._release()

    def _look(self) -> int:
        """Takes what has come, and submits what the ring had no room for. How much there was."""
        count = self._channel.poll()
        if self._channel.has_more() and not self._channel.ended:
            self._channel.send()
        return count

    def _sleep(self, left: float) -> None:
        self._has_sleeper = True
        self._lock.release()
        try:
            self._poll.poll(max(left, 0) * 1000 + 0.999)
        finally:
            self._lock.acquire()
            self._has_sleeper = False

    async def until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        raise not_in_loops()

    def only_in_loops(self) -> None:
        raise not_in_loops()


class _Tasks:
    """The tasks of a loop that use one exchange."""

    def __init__(self, kernel: Kernel, loop: Loop) -> None:
        self._channel: Channel = kernel.loop_channel(loop)
        self._loop = loop
        self._waiting: list[Any] = []

    def __enter__(self) -> Channel:
        self.only_in_loops()
        return self._channel

    def __exit__(self, *_: object) -> None:
        """The channel submits at the end of the loop's turn."""

    def news(self) -> None:
        for waiting in self._waiting:
            _wake(waiting)

    def leave(self) -> None:
        """The channel is the loop's."""

    def forget(self, tag: int) -> None:
        self._channel.drop(tag)

    def only_in_loops(self) -> None:
        if running_loop() is not self._loop:
            raise RuntimeError("made inside of an event loop: use it there")

    def block(self, done: Callable[[], bool], timeout: float | None) -> bool:
        raise RuntimeError("made inside of an event loop: iterate with `async for`")

    async def when(self, done: Callable[[], bool], take: Callable[[], T], timeout: float | None) -> T:
        if not done() and not await self.until(done, timeout):
            raise too_late(timeout)
        return take()

    async def until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        self.only_in_loops()
        deadline = None if timeout is None else self._loop.time() + timeout
        while not done():
            if deadline is not None and self._loop.time() >= deadline:
                return False
            waiting = self._loop.create_future()
            timer = None if deadline is None else self._loop.call_at(deadline, _wake, waiting)
            self._waiting.append(waiting)
            try:
                await waiting
            finally:
                self._waiting.remove(waiting)
                if timer is not None:
                    timer.cancel()
        return True


def _wake(waiting: Any) -> None:
    if not waiting.done():
        waiting.set_result(None)


def too_late(timeout: float | None) -> Timeout:
    return Timeout(f"nothing came within {timeout} s; the exchange goes on", status=-202)


def not_in_loops() -> RuntimeError:
    return RuntimeError("made outside of an event loop: it blocks, and has nothing to await")
