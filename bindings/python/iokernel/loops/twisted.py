"""Twisted: in the thread of its reactor, a request gives a Deferred. Await it in a coroutine, yield it in
inlineCallbacks, add callbacks to it; cancelling it cancels the request.

This is so once `twisted.internet.reactor` was imported, from before the reactor runs until it has stopped. In other
threads (`deferToThread`) requests are those of threads. Under the asyncio reactor, tasks of asyncio have asyncio's
futures, and everything else has Deferreds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python import threadable
from twisted.python.failure import Failure

from .._channel import Channel
from .._future import AioFuture
from ._bridge import BridgeChannel, BridgedLoop

log = logging.getLogger("iokernel")

FIRED_MAX = 256
"""Deferreds that have their results before timers and other descriptors have their turn."""

_loop: ReactorLoop | None = None


def running() -> ReactorLoop | None:
    """The reactor's loop in its thread. The reactor may not run yet: then it will run in the main thread."""
    global _loop
    thread = threadable.ioThread or threading.main_thread().ident
    if thread != threading.get_ident():
        return None
    if _loop is None:
        _loop = ReactorLoop(sys.modules["twisted.internet.reactor"])
    if _loop.is_closed():
        return None
    host = asyncio._get_running_loop()
    if host is not None and not (_loop.reactor.running and asyncio.current_task(host) is None):
        return None  # A task of asyncio's, or a loop that is not the reactor's.
    return _loop


def _after_fork() -> None:
    """A reactor that runs, with what it watches, is the parent's; one that did not run yet may run in the child."""
    global _loop
    if _loop is not None and _loop.reactor.running:
        _loop.leave()
    else:
        _loop = None


os.register_at_fork(after_in_child=_after_fork)


class Reply(Deferred[Any]):
    """A reply under way: a Deferred with the methods that a channel calls."""

    def __init__(self, loop: ReactorLoop, becomes: Callable[[Any], Any] | None = None) -> None:
        super().__init__(_cancelled)
        self._loop = loop
        self._becomes = becomes
        self._is_settled = False
        self._iok_channel: Channel | None = None
        self._iok_tag = 0

    def done(self) -> bool:
        """True once it has a result, or is about to have it."""
        return self.called or self._is_settled

    def set_result(self, value: Any, /) -> None:
        self._settle(value if self._becomes is None else self._becomes(value))

    def set_exception(self, error: BaseException, /) -> None:
        self._settle(Failure(error))  # type: ignore[no-untyped-call]

    def _settle(self, outcome: Any) -> None:
        self._is_settled = True
        self._loop.settled(self, outcome)


def _cancelled(reply: Any) -> None:
    if reply._iok_channel is not None and not reply._is_settled:
        reply._iok_channel.cancel(reply._iok_tag)


class _Reader:
    """What a reactor watches."""

    def __init__(self, loop: ReactorLoop, fd: int, callback: Callable[[], Any]) -> None:
        self._loop, self._fd, self._callback = loop, fd, callback

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        self._callback()
        self._loop.fire()

    def connectionLost(self, reason: Any) -> None:
        """The reactor has stopped, and watches nothing any more."""
        self._loop.close()

    def logPrefix(self) -> str:
        return "iokernel"


class ReactorLoop(BridgedLoop):
    """A reactor, as a channel needs it. Everything but `call_soon_threadsafe` is for its thread."""

    channel_class = BridgeChannel

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._readers: dict[int, _Reader] = {}
        self._ends: list[Callable[[], None]] = []
        self._settled: deque[tuple[Reply, Any]] = deque()
        self._is_closed = bool(getattr(reactor, "_startedBefore", False)) and not reactor.running
        if not self._is_closed:
            reactor.addSystemEventTrigger("after", "shutdown", self.close)

    def close(self) -> None:
        """The reactor has stopped: so does what was under way in it."""
        ends, self._ends = self._ends, []
        for callback in ends:
            callback()
        self._is_closed = True
        self.fire()

    def leave(self) -> None:
        """It is another process's: nobody here is told anything."""
        self._is_closed = True
        self._ends.clear()
        self._settled.clear()

    def settled(self, reply: Reply, outcome: Any) -> None:
        """Its callbacks, which may do anything, run when the channel is done with what has come."""
        if not self._settled and not self._is_closed:
            self.reactor.callLater(0, self.fire)
        self._settled.append((reply, outcome))

    def fire(self) -> None:
        """Runs callbacks, as many as a turn may have."""
        for _ in range(min(len(self._settled), FIRED_MAX)):
            reply, outcome = self._settled.popleft()
            if not reply.called:
                reply.callback(outcome)
        if self._settled:
            if self._is_closed:
                self.fire()
            else:
                self.reactor.callLater(0, self.fire)

    def add_reader(self, fd: int, callback: Callable[[], Any], /) -> None:
        reader = self._readers[fd] = _Reader(self, fd, callback)
        self.reactor.addReader(reader)

    def remove_reader(self, fd: int, /) -> None:
        self.reactor.removeReader(self._readers.pop(fd))

    def call_soon(self, callback: Callable[..., Any], /, *args: Any) -> None:
        self.reactor.callLater(0, callback, *args)

    def call_soon_threadsafe(self, callback: Callable[..., Any], /, *args: Any) -> None:
        self.reactor.callFromThread(callback, *args)

    def time(self) -> float:
        return float(self.reactor.seconds())

    def call_at(self, when: float, callback: Callable[..., Any], /, *args: Any) -> _Timer:
        return _Timer(self.reactor.callLater(max(when - self.time(), 0), callback, *args))

    def create_future(self) -> Reply:
        return Reply(self)

    def request_future(self, kind: type[AioFuture]) -> Reply:
        return Reply(self, kind.becomes)

    def at_end(self, callback: Callable[[], None]) -> None:
        self._ends.append(callback)

    def is_closed(self) -> bool:
        return self._is_closed

    def tasks(self) -> _Tasks:
        return _Tasks()


class _Timer:
    """A delayed call that may be cancelled after it was made."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()


class _Tasks:
    """Coroutines that run beside."""

    def __init__(self) -> None:
        self._running: set[Deferred[None]] = set()

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(self, *raised: Any) -> None:
        for task in list(self._running):
            task.cancel()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = ensureDeferred(coroutine)
        self._running.add(task)

        def ended(outcome: Any) -> None:
            self._running.discard(task)

        task.addBoth(ended)
