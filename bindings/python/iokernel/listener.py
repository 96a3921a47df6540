"""Listeners: clients connect to us, and their requests come as records."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from ._aio import LoopChannel
from ._channel import Channel, Completion
from ._errors import Closed, Error, RemoteError
from ._native import ThreadChannel
from ._records import FLAG_QUIET, KIND_DONE, KIND_GONE, KIND_REQUEST, OP_CLOSE, OP_LISTEN, OP_REPLY, OP_STATE
from ._values import cannot_pack, pack

if TYPE_CHECKING:
    from ._kernel import Kernel

log = logging.getLogger("iokernel")

CLOSING_LOOK_S = 0.25
"""How soon a thread that waits for requests sees that another one closed its listener."""


class Request:
    """A client's request. Exactly one of `reply` and `error`, once, from any thread."""

    __slots__ = ("_listener", "_settled", "_tag", "args", "peer")

    def __init__(self, listener: Listener, tag: int, peer: int, args: list[Any]) -> None:
        self.args = args
        """What the client asked, such as `["GET", "key"]`; arguments are str or bytes as the protocol has them."""
        self.peer = peer
        """The number of the client's connection."""
        self._listener = listener
        self._tag = tag
        self._settled = False

    @property
    def gone(self) -> bool:
        """True if nobody waits for a reply any more: it was given, or the client has left."""
        return self._settled

    def reply(self, value: Any) -> None:
        """Answers. Raises BadRequest for a value that the protocol cannot carry, Closed after the listener's end.

        A client that has left meanwhile is no error.
        """
        try:
            payload = pack(value)
        except Exception as error:
            raise cannot_pack(error) from None
        if self._settled:
            return
        self._settled = True
        self._listener._reply(self._tag, payload)

    def error(self, code: str, message: str) -> None:
        """Answers with an error: `error("ERR", "unknown command")`."""
        self.reply(RemoteError(message, code=code))

    def __repr__(self) -> str:
        return f"<iokernel.Request {self.args!r}>"


class Listener:
    """Where clients connect; made by `iokernel.listen`.

    Iterate over it in one thread (`for request in listener`), in one loop (`async for`), or let `serve` do it. It has a
    channel of its own, so slow handlers hold up nobody else's replies.
    """

    def __init__(self, kernel: Kernel, url: str) -> None:
        self._kernel = kernel
        self._queue: deque[Request] = deque()
        self._live: dict[int, Request] = {}
        self._waiting: asyncio.Future[None] | None = None
        self._closed = False
        self._loop = asyncio._get_running_loop()
        self._owner = threading.get_ident()
        if self._loop is None:
            self._channel = ThreadChannel(kernel._open_channel(), kernel.names)
        else:
            self._channel = LoopChannel(kernel._open_channel(), kernel.names, self._loop)
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
        elif done.kind == KIND_GONE:
            gone = self._live.pop(done.tag, None)
            if gone is not None:
                gone._settled = True
            return
        elif done.kind == KIND_DONE:
            if self._channel.ended:
                self._closed = True
            elif done.status:
                log.warning("a reply was not sent: %s", done.error(self._kernel.names))
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(None)

    def _reply(self, tag: int, payload: bytes) -> None:
        self._live.pop(tag, None)
        if self._closed:
            raise Closed("the listener is closed", status=-103, fate="not_sent", endpoint=self.url)
        running = asyncio._get_running_loop()
        if running is self._loop and threading.get_ident() == self._owner and not self._channel.busy:
            channel: Channel = self._channel
        elif running is None:
            channel = self._kernel.thread_channel()
        else:
            channel = self._kernel.loop_channel(running)
        channel.submit(OP_REPLY, FLAG_QUIET, self._number, 0, 0, payload, tag=tag)
        channel._loose.add(self._number)
        if running is None:
            channel.send()

    # In a thread

    def _has_news(self) -> bool:
        return bool(self._queue) or self._closed

    def __iter__(self) -> Iterator[Request]:
        return self

    def __next__(self) -> Request:
        if self._loop is not None:
            raise RuntimeError("made inside of an event loop: iterate with `async for`")
        self._owner = threading.get_ident()
        while not self._queue:
            if self._closed:
                self._channel.close()
                raise StopIteration
            self._channel.wait(self._has_news, CLOSING_LOOK_S)
        return self._queue.popleft()

    # In a loop

    def __aiter__(self) -> AsyncIterator[Request]:
        return self

    async def __anext__(self) -> Request:
        self._adopt(asyncio.get_running_loop())
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            if self._waiting is not None and not self._waiting.done():
                raise RuntimeError("another task waits for this listener")
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        return self._queue.popleft()

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        """A listener made outside of the loop is watched by the loop that first iterates over it."""
        if self._loop is loop:
            return
        if self._loop is not None:
            raise RuntimeError("this listener belongs to another event loop")
        channel = LoopChannel(self._channel.detach(), self._kernel.names, loop)
        channel.listener = self
        self._channel, self._loop, self._owner = channel, loop, threading.get_ident()

    def serve(self, handler: Callable[[Request], Any]) -> Any:
        """Gives every request to `handler`, until the listener is closed.

        What the handler returns is the reply; a RemoteError it raises is the client's error, any other exception is
        logged and becomes `ERR`. A handler may also call `request.reply` itself. Outside of a loop this blocks; inside
        of one it returns a coroutine, and handlers that are coroutine functions run side by side.
        """
        if asyncio._get_running_loop() is not None:
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
        tasks: set[asyncio.Task[None]] = set()
        try:
            async for request in self:
                try:
                    value = handler(request)
                except Exception as error:
                    _failed(request, error)
                    continue
                if inspect.isawaitable(value):
                    task = asyncio.ensure_future(_later(request, value))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                else:
                    _answer(request, value)
        finally:
            for task in tasks:
                task.cancel()

    def close(self) -> None:
        """Stops listening and drops its clients. Any thread. Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        waiting = self._waiting
        here = asyncio._get_running_loop()
        if waiting is not None and self._loop is not None:

            def wake() -> None:
                if not waiting.done():
                    waiting.set_result(None)

            if here is self._loop:
                wake()
            elif not self._loop.is_closed():
                self._loop.call_soon_threadsafe(wake)
        if not self._kernel.closed and not self._channel.ended:
            with contextlib.suppress(Closed):
                self._kernel.block(OP_CLOSE, self._number, b"")
        if here is self._loop and threading.get_ident() == self._owner:
            self._channel.close()

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


def _answer(request: Request, value: Any) -> None:
    if request.gone:
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
