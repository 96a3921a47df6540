"""Listeners: clients connect to us, and their requests come as records."""

from __future__ import annotations

import contextlib
import inspect
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from ._channel import Channel, Completion
from ._errors import Closed, Error, RemoteError
from ._records import (
    FLAG_QUIET,
    KIND_DONE,
    KIND_END,
    KIND_GONE,
    KIND_PUSH,
    KIND_REQUEST,
    OP_CLOSE,
    OP_LISTEN,
    OP_REPLY,
    OP_STATE,
    timeout_ms,
)
from ._request import Request
from .loops import Loop, needed_loop, running_loop, tasks_of

if TYPE_CHECKING:
    from ._kernel import Kernel

log = logging.getLogger("iokernel")

CLOSING_LOOK_S = 0.25
"""How soon a thread that waits for requests sees that another one closed its listener."""


class Listener:
    """Where clients connect; made by `iokernel.listen`.

    Iterate over it in one thread (`for request in listener`), in one loop (`async for`), or let `serve` do it. It has a
    channel of its own, so slow handlers hold up nobody else's replies.
    """

    def __init__(self, kernel: Kernel, url: str) -> None:
        self._kernel = kernel
        self._queue: deque[Request] = deque()
        self._live: dict[int, Request] = {}
        self._waiting: Any = None
        self._closed = False
        self._loop = running_loop()
        self._owner = threading.get_ident()
        self._channel = kernel.own_channel(self._loop)
        self._channel.listener = self
        try:
            done = kernel.block(OP_LISTEN, 0, url.encode("utf-8", "surrogateescape"), self._channel)
        except BaseException:
            self._channel.close()
            raise
        self._number = done.endpoint
        self.url: str = done.value()
        """Where it listens, with the port that the system chose."""
        kernel.names[self._number] = self.url

    def completion(self, done: Completion) -> None:
        """What the channel hands over."""
        if done.kind == KIND_REQUEST:
            request = Request(self, done.tag, done.peer, done.value())
            self._live[done.tag] = request
            self._queue.append(request)
        elif done.kind in (KIND_GONE, KIND_PUSH, KIND_END):
            of = self._live.get(done.tag) if done.kind != KIND_GONE else self._live.pop(done.tag, None)
            if of is not None:
                of._completion(done)
            return
        elif done.kind == KIND_DONE:
            if self._channel.ended:
                self._is_left()
            elif done.status:
                log.warning("a reply was not sent: %s", done.error(self._kernel.names))
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _usable(self) -> Channel:
        """The channel of whoever runs here. Raises Closed after the end."""
        if self._closed:
            raise Closed("the listener is closed", status=-103, fate="not_sent", endpoint=self.url)
        running = running_loop()
        if running is self._loop and self._is_owner() and not self._channel.busy:
            return self._channel
        return self._kernel.thread_channel() if running is None else self._kernel.loop_channel(running)

    def _is_owner(self) -> bool:
        """This thread takes what comes."""
        return threading.get_ident() == self._owner

    def _submit(self, op: int, payload: bytes, key: int, tag: int) -> None:
        """What nobody waits for."""
        channel = self._usable()
        channel.submit(op, FLAG_QUIET, self._number, 0, key, payload, tag=tag)
        channel._loose.add(self._number)
        if running_loop() is None:
            channel.send()

    def _reply(self, tag: int, payload: bytes, is_last: bool = True) -> None:
        if is_last:
            self._live.pop(tag, None)
        self._submit(OP_REPLY, payload, 0, tag)

    # In a thread

    def _has_news(self) -> bool:
        return bool(self._queue) or self._closed

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        if self._loop is not None:
            raise RuntimeError("made inside of an event loop: iterate with `async for`")
        self._owner = threading.get_ident()
        self._adopt_greenlets()
        while not self._queue:
            if self._closed:
                self._channel.close()
                raise StopIteration
            self._channel.wait(self._has_news, CLOSING_LOOK_S)
        return self._queue.popleft()

    def _adopt_greenlets(self) -> None:
        """A listener made before there was a hub gives way to other greenlets from here on."""
        channel = self._kernel.with_hub(self._channel)
        if channel is not self._channel:
            channel.listener, self._channel = self, channel

    # In a loop

    def __aiter__(self) -> AsyncIterator[Request]:
        return self

    async def __anext__(self) -> Request:
        loop = needed_loop()
        self._adopt(loop)
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            if self._waiting is not None and not self._waiting.done():
                raise RuntimeError("another task waits for this listener")
            self._waiting = loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._queue.popleft()

    def _adopt(self, loop: Loop) -> None:
        """A listener made outside of the loop is watched by the loop that first iterates over it."""
        if self._loop is loop:
            return
        if self._loop is not None:
            raise RuntimeError("this listener belongs to another event loop")
        channel = self._kernel.new_loop_channel(loop, self._channel.detach())
        channel.listener = self
        self._channel, self._loop, self._owner = channel, loop, threading.get_ident()

    def serve(self, handler: Callable[[Request], Any]) -> Any:
        """Gives every request to `handler`, until the listener is closed.

        What the handler returns is the reply; a RemoteError it raises is the client's error, any other exception is
        logged and becomes `ERR`. A handler may also call `request.reply`, or `begin` and what follows, itself. Outside
        of a loop this blocks; inside of one it returns a coroutine, and handlers that are coroutine functions run side
        by side.
        """
        if running_loop() is not None:
            return self._serve(handler)
        for request in self:
            try:
                value = handler(request)
                if inspect.isawaitable(value):
                    raise TypeError("a coroutine as handler: call serve inside of a loop")
            except Exception as error:
                _failed(request, error)
            else:
                _answer(request, value)
        return None

    async def _serve(self, handler: Callable[[Request], Any]) -> None:
        async with tasks_of(needed_loop()) as tasks:
            async for request in self:
                try:
                    value = handler(request)
                except Exception as error:
                    _failed(request, error)
                    continue
                if inspect.isawaitable(value):
                    tasks.start(_later(request, value))
                else:
                    _answer(request, value)

    def close(self, drain: float | None = None, delay: float = 0.0) -> Any:
        """Stops listening and drops its clients. Any thread. Twice is harmless.

        With `drain` it leaves as politely as its protocol can: whoever asks about its health is told that it leaves;
        `delay` seconds later nobody is let in any more; what is under way has `drain` seconds to finish, and what is
        left then is dropped. In the thread that iterates over it (as from a signal's handler) this returns at once, and
        the iteration ends when everyone has left; any other thread blocks till then; inside of its loop, await it.
        """
        if drain is not None and not self._closed and not self._kernel.closed:
            return self._leave(timeout_ms(max(drain, 0.001)), int(delay * 1000))
        if self._closed:
            return None
        self._is_left()
        if not self._kernel.closed and not self._channel.ended:
            with contextlib.suppress(Closed):
                self._kernel.block(OP_CLOSE, self._number, b"")
        if running_loop() is self._loop and self._is_owner():
            self._channel.close()
        return None

    def _leave(self, drain_ms: int, delay_ms: int) -> Any:
        running = running_loop()
        mine = running is self._loop and self._is_owner()
        channel = self._channel if mine else self._kernel.thread_channel()
        left = _Left(self, running if mine else None)
        channel.submit(OP_CLOSE, 0, self._number, drain_ms, delay_ms, b"", sink=left)
        if not mine:
            channel.wait(left.is_over)
        elif running is None:
            channel._schedule()
        return left.future

    def _is_left(self) -> None:
        """Nothing comes any more: who waits is told."""
        self._closed = True
        for request in list(self._live.values()):
            request._lose()
        self._live.clear()
        waiting, loop = self._waiting, self._loop
        if waiting is None or loop is None:
            return

        def wake() -> None:
            if not waiting.done():
                waiting.set_result(None)

        if running_loop() is loop:
            wake()
        elif not loop.is_closed():
            loop.call_soon_threadsafe(wake)

    @property
    def state(self) -> dict[str, Any]:
        """How it is: `state` (`"up"`, `"leaving"`), `address`, `conns`, `requests`; over TLS, `tls`."""
        state: dict[str, Any] = self._kernel.block(OP_STATE, self._number, b"").value()
        return state

    @property
    def closed(self) -> bool:
        """True after `close()`, or when its loop or kernel has ended."""
        return self._closed

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Listener:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<iokernel.Listener {self.url}{' closed' if self._closed else ''}>"


class _Left:
    """Waits for everyone to have left a listener."""

    def __init__(self, listener: Listener, loop: Loop | None) -> None:
        self._listener = listener
        self.future: Any = None if loop is None else loop.create_future()
        self._over = False

    def is_over(self) -> bool:
        return self._over

    def completion(self, done: Completion) -> None:
        self._over = True
        if done.status:
            log.warning("%s", done.error(self._listener._kernel.names))
        self._listener._is_left()
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


def _answer(request: Request, value: Any) -> None:
    if request.gone or request._begun:
        return
    try:
        request.reply(value)
    except Error as error:
        _failed(request, error)


def _failed(request: Request, error: Exception) -> None:
    if isinstance(error, Closed) and not isinstance(error, RemoteError):
        return
    if isinstance(error, RemoteError):
        code, message = error.code or "ERR", error.message
    else:
        log.error("a request's handler failed: %r", request, exc_info=error)
        code, message = "ERR", "the handler failed"
    try:
        request.error(code, message)
    except Closed:
        return


async def _later(request: Request, value: Awaitable[Any]) -> None:
    try:
        result = await value
    except Exception as error:
        _failed(request, error)
    else:
        _answer(request, result)
