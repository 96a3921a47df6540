"""A client's request at one of our listeners, with its further messages both ways."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from ._channel import Completion
from ._errors import Closed, ConnectionLost, Error, RemoteError, Timeout
from ._records import KIND_END, KIND_PUSH, OP_CREDIT, OP_SEND
from ._values import cannot_pack, pack
from .loops import Loop, needed_loop, running_loop

if TYPE_CHECKING:
    from .listener import Listener

SEND_AHEAD_BYTES = 256 << 10
"""What may be sent before the kernel has said that it is on its way."""
CREDIT_BYTES = 64 << 10
"""What is taken of a stream that has more in store is given back in portions of this."""
LOOK_S = 0.25
"""How soon a thread that waits for pieces sees that another one closed the listener."""


class Request:
    """A client's request. Exactly one of `reply`, `error` and `begin`, from any thread.

    Where the protocol has requests whose messages go both ways, what else comes is iterated over (`for`, `async for`),
    and a reply may come in parts: `begin`, `send` as often as needed, `finish`. Memory is bounded: what comes and is
    not taken fills the listener's `window`, what is sent and does not go out makes `send` wait.
    """

    __slots__ = ("_begun", "_listener", "_lost", "_settled", "_stream", "_tag", "args", "last_word", "peer")

    def __init__(self, listener: Listener, tag: int, peer: int, args: Any) -> None:
        self.args = args
        """What the client asked, such as `["GET", "key"]`; arguments are str or bytes as the protocol has them."""
        self.peer = peer
        """The number of the client's connection."""
        self.last_word: Any = None
        """What came with the end of the client's messages, where the protocol has such a word."""
        self._listener = listener
        self._tag = tag
        self._settled = self._begun = self._lost = False
        self._stream: _Stream | None = None

    @property
    def gone(self) -> bool:
        """True if nobody waits for a reply any more: it was given, or the client has left."""
        return self._settled

    def reply(self, value: Any) -> None:
        """Answers. Raises BadRequest for a value that the protocol cannot carry, Closed after the listener's end.

        A client that has left meanwhile is no error.
        """
        payload = _packed(value)
        if self._settled:
            return
        self._settled = True
        self._listener._reply(self._tag, payload)

    def error(self, code: str, message: str) -> None:
        """Answers with an error: `error("ERR", "unknown command")`. After `begin` it shows the client that the reply is
        not complete, as far as the protocol can."""
        error = RemoteError(message, code=code)
        if not self._begun:
            return self.reply(error)
        if not self._settled:
            self._settled = True
            self._listener._live.pop(self._tag, None)
            self._listener._submit(OP_SEND, _packed(error), self._tag, 0)
        return None

    # A reply in parts

    def begin(self, value: Any) -> None:
        """Begins a reply of which more follows by `send`, until `finish`. Raises as `reply` does."""
        payload = _packed(value)
        if self._settled:
            return
        self._begun = True
        self._listener._reply(self._tag, payload, is_last=False)

    def send(self, value: Any, timeout: float | None = None) -> Any:
        """Sends one more part, or a message of a lane. Blocks while too much is under way; inside of a loop, await it.

        `timeout` is in seconds; when they are over, Timeout is raised, and what was sent still goes. Raises
        ConnectionLost if the client has left, BadRequest for what the protocol does not have here.
        """
        stream = self._streams()
        stream.submit(_packed(value))
        return stream.when(lambda: stream.unsent <= SEND_AHEAD_BYTES, timeout)

    def finish(self, last: Any = None, timeout: float | None = None) -> Any:
        """Ends the reply; `last` is its last part, where the protocol has one. Waits until everything sent is on its
        way."""
        stream = self._streams()
        stream.submit(_packed(last))
        self._settled = True
        self._listener._live.pop(self._tag, None)
        return stream.when(lambda: stream.unsent <= 0, timeout)

    # What else comes

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        stream = self._streams()
        stream.block(stream.has_news)
        if stream.pieces:
            return stream.take()
        self._raise_lost()
        raise StopIteration

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        stream = self._streams()
        await stream.until(stream.has_news, None)
        if stream.pieces:
            return stream.take()
        self._raise_lost()
        raise StopAsyncIteration

    def _raise_lost(self) -> None:
        if self._stream is not None and not self._stream.ended:
            raise self._left()

    def _left(self) -> Error:
        if self._listener.closed:
            return Closed("the listener is closed", status=-103)
        return ConnectionLost("the client has left", status=-302, fate="maybe_executed", endpoint=self._listener.url)

    # What the listener hands over

    def _streams(self) -> _Stream:
        if self._stream is None:
            self._stream = _Stream(self)
        return self._stream

    def _completion(self, done: Completion) -> None:
        stream = self._streams()
        if done.kind == KIND_PUSH:
            stream.pieces.append(done)
        elif done.kind == KIND_END:
            stream.ended, self.last_word = True, done.value()
        else:
            return self._lose()
        stream.news()
        return None

    def _lose(self) -> None:
        """The client has left."""
        self._settled = self._lost = True
        if self._stream is not None:
            self._stream.news()

    def __repr__(self) -> str:
        return f"<iokernel.Request {self.args!r}>"


def _packed(value: Any) -> bytes:
    try:
        return pack(value)
    except Exception as error:
        raise cannot_pack(error) from None


class _Stream:
    """The further messages of a request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._taken = 0
        self._refused: Error | None = None
        self._waiters: list[tuple[Loop, Any]] = []
        self._event = threading.Event()
        self.pieces: deque[Completion] = deque()
        self.ended = False
        self.unsent = 0

    # Receiving

    def has_news(self) -> bool:
        return bool(self.pieces) or self.ended or self._request._lost

    def take(self) -> Any:
        """The next message; what it took of the window is given back in portions."""
        done, request = self.pieces.popleft(), self._request
        self._taken += len(done.payload) or 1
        if not request._lost and (self._taken >= CREDIT_BYTES or not self.pieces):
            taken, self._taken = self._taken, 0
            request._listener._submit(OP_CREDIT, b"", request._tag, taken)
        return done.value()

    # Sending

    def submit(self, payload: bytes) -> None:
        request, weight = self._request, len(payload)
        self._check()
        if request._settled:
            raise Closed("the reply is over", status=-103, fate="not_sent")
        if not request._begun:
            raise Closed("the reply has not begun: expected begin() before", status=-107, fate="not_sent")
        channel = request._listener._usable()
        self.unsent += weight
        channel.submit(OP_SEND, 0, request._listener._number, 0, request._tag, payload, sink=_Ack(self, weight))
        if running_loop() is None:
            channel.send()
            # What is on its way is told of one by one: it is heard in any case.
            channel.poll()

    def acknowledged(self, weight: int, done: Completion) -> None:
        self.unsent -= weight
        if done.status and self._refused is None:
            self._refused = done.error(self._request._listener._kernel.names)
        self.news()

    def _check(self) -> None:
        if self._refused is not None:
            raise self._refused
        if self._request._lost:
            raise self._request._left()

    # Waiting

    def news(self) -> None:
        """Something is other than it was."""
        self._event.set()
        for loop, waiter in self._waiters:
            loop.call_soon_threadsafe(_wake, waiter)
        self._waiters.clear()

    def when(self, done: Callable[[], bool], timeout: float | None) -> Any:
        def is_over() -> bool:
            return done() or self._refused is not None or self._request._lost

        if running_loop() is not None:
            return self._when(done, is_over, timeout)
        self.block(is_over, timeout)
        return None if done() else self._check()

    async def _when(self, done: Callable[[], bool], is_over: Callable[[], bool], timeout: float | None) -> None:
        await self.until(is_over, timeout)
        if not done():
            self._check()

    def block(self, done: Callable[[], bool], timeout: float | None = None) -> None:
        """Waits in a thread: the one that takes what comes for the listener takes it here, others are told by it."""
        listener = self._request._listener
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done():
            left = LOOK_S if deadline is None else min(deadline - time.monotonic(), LOOK_S)
            if left <= 0:
                raise Timeout(f"nothing happened within {timeout} s; the request goes on", status=-202)
            if listener._loop is None and listener._is_owner():
                listener._channel.wait(done, left)
            else:
                channel = listener._usable()
                if not channel.wait(done, 0.0) and not done():
                    self._event.clear()
                    if not done():
                        self._wait(channel, done, left)

    def _wait(self, channel: Any, done: Callable[[], bool], left: float) -> None:
        """In another thread than the listener's: sends are acknowledged here, pieces come there."""
        if self.unsent > 0:
            channel.wait(done, left)
        else:
            self._event.wait(left)

    async def until(self, done: Callable[[], bool], timeout: float | None) -> None:
        loop = needed_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not done():
            waiter = loop.create_future()
            self._waiters.append((loop, waiter))
            timer = None if deadline is None else loop.call_at(deadline, _wake, waiter)
            await waiter
            if timer is not None:
                timer.cancel()
            if deadline is not None and loop.time() >= deadline and not done():
                raise Timeout(f"nothing happened within {timeout} s; the request goes on", status=-202)


class _Ack:
    """Waits for a message to be on its way."""

    __slots__ = ("_stream", "_weight")

    def __init__(self, stream: _Stream, weight: int) -> None:
        self._stream, self._weight = stream, weight

    def completion(self, done: Completion) -> None:
        self._stream.acknowledged(self._weight, done)


def _wake(waiter: Any) -> None:
    if not waiter.done():
        waiter.set_result(None)
