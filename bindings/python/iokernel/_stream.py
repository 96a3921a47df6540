"""Subscriptions: requests that keep giving."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ._channel import Channel, Completion
from ._errors import Closed, Error, Timeout
from ._records import (
    KIND_ACCEPTED,
    KIND_DONE,
    KIND_LOST,
    OP_STREAM,
    OP_WATCH,
    timeout_ms,
)
from ._values import cannot_pack, pack
from .loops import running_loop

if TYPE_CHECKING:
    from ._endpoint import Endpoint
    from ._kernel import Kernel

Self = TypeVar("Self", bound="Subscription")


class Subscription:
    """Messages as they come, until `close()`.

    Iterable in the thread that made it (or, made inside of a loop, async-iterable there). It outlives lost
    connections: messages sent meanwhile are not delivered, `reconnects` counts. `lost` counts messages dropped because
    the program left too many unread.
    """

    def __init__(self, endpoint: Endpoint, request: tuple[Any, ...], timeout: float | None, buffer: int) -> None:
        try:
            payload = pack(request)
        except Exception as error:
            raise cannot_pack(error) from None
        number, ms = endpoint._open(), timeout_ms(timeout)
        self._begin(endpoint._kernel, OP_STREAM, number, ms, payload, buffer)

    def _begin(self, kernel: Kernel, op: int, number: int, ms: int, payload: bytes, buffer: int) -> None:
        self.lost = 0
        self.reconnects = -1
        self._closed = False
        self._error: Error | None = None
        self._messages: deque[Any] = deque()
        self._buffer = buffer
        self._waiting: Any = None
        self._names = kernel.names
        self._loop = running_loop()
        self._channel: Channel = kernel.thread_channel() if self._loop is None else kernel.loop_channel(self._loop)
        self._sink = _Sink(self)
        self._tag = self._channel.submit(op, 0, number, ms, 0, payload, sink=self._sink)
        if self._loop is None:
            try:
                self._channel.wait(self._is_settled)
            except BaseException:
                self.close()
                raise
            if self._error is not None:
                raise self._error

    def _is_settled(self) -> bool:
        return self.reconnects >= 0 or self._closed

    def _has_news(self) -> bool:
        return bool(self._messages) or self._closed

    def completion(self, done: Completion) -> None:
        """What the channel hands over."""
        if done.kind == KIND_ACCEPTED:
            self.reconnects += 1
        elif done.kind == KIND_LOST:
            self.lost += done.value()
        elif done.kind == KIND_DONE:
            if done.status and not self._closed:
                self._error = done.error(self._names)
            self._closed = True
        else:
            self._take(done.value())
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _take(self, message: Any) -> None:
        if len(self._messages) >= self._buffer:
            self.lost += 1
        else:
            self._messages.append(message)

    # In threads

    def get(self, timeout: float | None = None) -> Any:
        """The next message, waiting for it `timeout` seconds at most (None: for ever).

        Raises Timeout when the time is over; after the end, what ended it, or Closed.
        """
        self._only_here()
        if not self._messages and not self._channel.wait(self._has_news, timeout):
            raise Timeout(f"no message within {timeout} s", status=-202)
        if self._messages:
            return self._messages.popleft()
        raise self._error or _over()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._only_here()
        if not self._messages:
            self._channel.wait(self._has_news)
        if self._messages:
            return self._messages.popleft()
        if self._error is not None:
            raise self._error
        raise StopIteration

    def _only_here(self) -> None:
        if self._loop is not None:
            raise RuntimeError("made inside of an event loop: iterate with `async for`")

    # In loops

    async def _accepted(self: Self) -> Self:
        while not self._is_settled():
            await self._news()
        if self._error is not None and not self._messages:
            raise self._error
        return self

    async def _news(self) -> None:
        if self._loop is None:
            raise RuntimeError("made outside of an event loop: iterate with `for`")
        if self._waiting is not None and not self._waiting.done():
            raise RuntimeError("another task waits for this subscription")
        self._waiting = self._loop.create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def __await__(self: Self) -> Generator[Any, None, Self]:
        return self._accepted().__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        while not self._messages:
            if self._error is not None:
                raise self._error
            if self._closed:
                raise StopAsyncIteration
            await self._news()
        return self._messages.popleft()

    async def __aenter__(self: Self) -> Self:
        try:
            await self._accepted()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # The end

    def close(self) -> None:
        """Ends it. Messages that came before can still be taken. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._channel.cancel(self._tag) and self._loop is None:
            self._channel.send()
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    @property
    def closed(self) -> bool:
        """True once no more messages come."""
        return self._closed

    def __del__(self) -> None:
        try:
            if not self._closed:
                self._closed = True
                self._channel.drop(self._tag)
        except (AttributeError, TypeError):
            return


class Watch(Subscription):
    """How an endpoint (or a kernel) is: at once, and after every change, until `close()`.

    `lost` counts states that the program left unread for too long: the oldest go first.
    """

    def __init__(self, kernel: Kernel, number: int, buffer: int) -> None:
        self._begin(kernel, OP_WATCH, number, 0, b"", buffer)

    def _take(self, message: Any) -> None:
        if len(self._messages) >= self._buffer:
            self.lost += 1
            self._messages.popleft()
        self._messages.append(message)


class _Sink:
    """Lets go of a subscription that nobody holds any more."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = weakref.ref(subscription)

    def completion(self, done: Completion) -> None:
        subscription = self._subscription()
        if subscription is not None:
            subscription.completion(done)


def _over() -> Error:
    return Closed("the subscription has ended", status=-103)
