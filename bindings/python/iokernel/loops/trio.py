"""trio: a system task watches the channel, another one submits at the end of a turn; what awaits a reply is a
checkpoint, and a cancel scope that ends it cancels the request. anyio over trio is the same.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import trio
from trio.lowlevel import (
    Abort,
    Task,
    TrioToken,
    checkpoint,
    current_task,
    current_trio_token,
    in_trio_run,
    in_trio_task,
    reschedule,
    spawn_system_task,
    wait_readable,
    wait_task_rescheduled,
)

from .._channel import Channel
from .._errors import Cancelled, Closed
from .._future import AioFuture
from ._bridge import BridgeChannel, BridgedLoop

log = logging.getLogger("iokernel")


class _Here(threading.local):
    """The run of this thread."""

    loop: TrioLoop | None = None
    forked: TrioToken | None = None
    """A run that a fork has copied: it is its parent's."""


_here = _Here()


def running() -> TrioLoop | None:
    """The loop of the task that asks."""
    if not in_trio_task():
        return None
    loop = _here.loop
    if loop is not None and not loop.is_closed():
        return loop
    token = current_trio_token()
    if token is _here.forked:
        return None
    _here.loop = loop = TrioLoop(token)
    return loop


def _after_fork() -> None:
    _here.loop = None
    _here.forked = current_trio_token() if in_trio_run() else None


os.register_at_fork(after_in_child=_after_fork)


class TrioFuture:
    """A reply under way in a trio run; tasks await it. When the last task that awaits it is cancelled, so is the
    request."""

    __slots__ = (
        "__weakref__",
        "_becomes",
        "_done",
        "_error",
        "_iok_channel",
        "_iok_tag",
        "_tasks",
        "_value",
    )

    def __init__(self, becomes: Callable[[Any], Any] | None = None) -> None:
        self._becomes = becomes
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._iok_channel: Channel | None = None
        self._iok_tag = 0
        self._tasks: list[Task] = []

    def done(self) -> bool:
        """True once there is a reply or an error."""
        return self._done

    def cancelled(self) -> bool:
        """True after `cancel()`."""
        return isinstance(self._error, Cancelled)

    def result(self) -> Any:
        """The reply. Raises what the request failed with; RuntimeError if it is still under way."""
        if not self._done:
            raise RuntimeError("the reply is not there yet: await it")
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # Whose error's traceback names this frame: a cycle.
        return self._value

    def exception(self) -> BaseException | None:
        """What the request failed with, or None."""
        if not self._done:
            raise RuntimeError("the reply is not there yet: await it")
        return self._error

    def cancel(self) -> bool:
        """Ends the request. False if it had ended."""
        if self._done:
            return False
        if self._iok_channel is not None:
            self._iok_channel.cancel(self._iok_tag)
        self.set_exception(Cancelled("cancelled by the program", status=-203, fate="maybe_executed"))
        return True

    def set_result(self, value: Any, /) -> None:
        self._value = value if self._becomes is None else self._becomes(value)
        self._settled()

    def set_exception(self, error: BaseException, /) -> None:
        self._error = error
        self._settled()

    def _settled(self) -> None:
        self._done = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            reschedule(task)

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from (checkpoint() if self._done else self._wait()).__await__()
        return self.result()

    async def _wait(self) -> None:
        task = current_task()

        def abort(_: Any) -> Abort:
            self._tasks.remove(task)
            if not self._tasks:
                self.cancel()
            return Abort.SUCCEEDED

        self._tasks.append(task)
        await wait_task_rescheduled(abort)

    def __repr__(self) -> str:
        state = "pending" if not self._done else "failed" if self._error else "done"
        return f"<iokernel.loops.trio.TrioFuture {state}>"


class TrioLoop(BridgedLoop):
    """One trio run, as a channel needs it. Everything but `call_soon_threadsafe` is for its thread."""

    channel_class = BridgeChannel

    def __init__(self, token: TrioToken) -> None:
        self._token = token
        self._soon: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._parked: Task | None = None
        self._watches: dict[int, trio.CancelScope] = {}
        self._ends: list[Callable[[], None]] = []
        self._is_closed = False
        try:
            spawn_system_task(self._run)
        except RuntimeError as error:
            raise Closed(f"this run of trio ends: {error}", status=-103, fate="not_sent") from None

    async def _run(self) -> None:
        try:
            while True:
                for _ in range(len(self._soon)):
                    callback, args = self._soon.popleft()
                    _guarded(callback, *args)
                if self._soon:
                    await checkpoint()
                else:
                    self._parked = current_task()
                    await wait_task_rescheduled(self._unpark)
        finally:
            for callback in self._ends:
                _guarded(callback)
            self._is_closed = True

    def _unpark(self, _: Any) -> Abort:
        self._parked = None
        return Abort.SUCCEEDED

    def call_soon(self, callback: Callable[..., Any], /, *args: Any) -> None:
        self._soon.append((callback, args))
        parked, self._parked = self._parked, None
        if parked is not None:
            reschedule(parked)

    def call_soon_threadsafe(self, callback: Callable[..., Any], /, *args: Any) -> None:
        self._token.run_sync_soon(_guarded, callback, *args)

    def add_reader(self, fd: int, callback: Callable[[], Any], /) -> None:
        scope = self._watches[fd] = trio.CancelScope()
        spawn_system_task(self._watch, fd, callback, scope)

    async def _watch(self, fd: int, callback: Callable[[], Any], scope: trio.CancelScope) -> None:
        with scope:
            while True:
                await wait_readable(fd)
                _guarded(callback)

    def remove_reader(self, fd: int, /) -> None:
        self._watches.pop(fd).cancel()

    def time(self) -> float:
        return trio.current_time()

    def call_at(self, when: float, callback: Callable[..., Any], /, *args: Any) -> trio.CancelScope:
        scope = trio.CancelScope()
        spawn_system_task(self._sleep, when, callback, args, scope)
        return scope

    async def _sleep(
        self, when: float, callback: Callable[..., Any], args: tuple[Any, ...], scope: trio.CancelScope
    ) -> None:
        with scope:
            await trio.sleep_until(when)
            _guarded(callback, *args)

    def create_future(self) -> TrioFuture:
        return TrioFuture()

    def request_future(self, kind: type[AioFuture]) -> TrioFuture:
        return TrioFuture(kind.becomes)

    def at_end(self, callback: Callable[[], None]) -> None:
        self._ends.append(callback)

    def is_closed(self) -> bool:
        return self._is_closed

    def tasks(self) -> _Tasks:
        return _Tasks()


class _Tasks:
    """Coroutines that run beside, in a nursery."""

    async def __aenter__(self) -> _Tasks:
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> bool | None:
        self._nursery.cancel_scope.cancel()
        return await self._manager.__aexit__(*raised)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            await coroutine

        self._nursery.start_soon(run)


def _guarded(callback: Callable[..., Any], /, *args: Any) -> None:
    """An exception in a system task would end the whole run."""
    try:
        callback(*args)
    except Exception:
        log.exception("a callback failed in trio")
