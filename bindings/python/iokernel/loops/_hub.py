"""Greenlets: they block, and give way to the others of their thread meanwhile. All of a thread share one channel, which
its hub watches."""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from greenlet import getcurrent  # type: ignore[import-untyped,unused-ignore]

from .._channel import UNSENT_BYTES_MAX, Channel, Names, Sink, Waiter
from .._exchange import not_in_loops, too_late
from .._native import ThreadChannel

T = TypeVar("T")

WAKES_MAX = 256
"""Greenlets that are woken before timers and other descriptors have their turn."""


class Hub:
    """What takes turns with greenlets: gevent's hub, or eventlet's."""

    def __init__(self, own: Any) -> None:
        self.own = own
        self.sleepers: set[Sleeper] = set()
        """Those who wait for more than one reply: each completion may be what they wait for."""

    def watch(self, fd: int, callback: Callable[[], None]) -> Any:
        """Calls, as long as it is readable. Gives what `unwatch` takes."""
        raise NotImplementedError

    def unwatch(self, watch: Any, forked: bool) -> None:
        """`forked`: in a child of the process that watched, whose system objects are not to be touched."""
        raise NotImplementedError

    def soon(self, callback: Callable[[], None]) -> None:
        """Calls in the hub's next turn."""
        raise NotImplementedError

    def later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], Any]:
        """Calls in the hub after so long. Gives what takes that back."""
        raise NotImplementedError

    def give_way(self) -> None:
        """Lets the others go on until somebody switches here."""
        raise NotImplementedError

    def is_alive(self) -> bool:
        raise NotImplementedError

    def greenlet(self) -> Any:
        """That of the hub."""
        raise NotImplementedError

    def may_give_way(self) -> bool:
        """False in the hub itself: others cannot go on before it does."""
        return getcurrent() is not self.greenlet() and self.is_alive()

    def look(self) -> None:
        """Something has changed: wakes those who wait for that."""
        for sleeper in self.sleepers:
            if sleeper.is_over():
                self.soon(sleeper.wake)


class Sleeper:
    """A greenlet that waits until something is so."""

    def __init__(self, channel: HubChannel, done: Callable[[], bool]) -> None:
        self._channel = channel
        self._done = done
        self.greenlet: Any = None
        self.is_late = False

    def is_over(self) -> bool:
        return self._done() or bool(self._channel.ended)

    def wake(self) -> None:
        """In the hub: switches to it until it waits for something else. One that waits no more is left alone."""
        if self.greenlet is not None:
            self.greenlet.switch()

    def expire(self) -> None:
        """Its time is over."""
        self.is_late = True
        self.wake()


class Awaited:
    """Stands for who waits for a reply, and knows which greenlets sleep for it."""

    __slots__ = ("_channel", "sleepers", "waiter")

    def __init__(self, channel: HubChannel, waiter: Waiter) -> None:
        self._channel = channel
        self.waiter = waiter
        self.sleepers: list[Sleeper] = []

    def set_result(self, value: Any, /) -> None:
        self.waiter.set_result(value)
        self._channel.settled(self)

    def set_exception(self, error: Any, /) -> None:
        self.waiter.set_exception(error)
        self._channel.settled(self)


_channels: weakref.WeakSet[HubChannel] = weakref.WeakSet()


class HubChannel(ThreadChannel):
    """Used by the greenlets of one thread. What they submit in one turn of the hub goes at once."""

    def __init__(self, handle: Any, names: Names, hub: Hub) -> None:
        super().__init__(handle, names)
        self.hub = hub
        self._process = os.getpid()
        self._awaited: dict[int, Awaited] = {}
        self._woken: deque[Sleeper] = deque()
        self._scheduled = self._blocks = False
        self._watch = hub.watch(self.fd(), partial(_readable, weakref.ref(self)))
        _channels.add(self)

    # Submitting

    def request(
        self, flags: int, endpoint: int, timeout_ms: int, key: int, arguments: tuple[Any, ...], waiter: Waiter
    ) -> int:
        tag: int = super().request(flags, endpoint, timeout_ms, key, arguments, self._await(waiter))
        return tag

    def submit(
        self,
        op: int,
        flags: int,
        endpoint: int,
        timeout_ms: int,
        key: int,
        payload: bytes,
        waiter: Waiter | None = None,
        tag: int = 0,
        sink: Sink | None = None,
    ) -> int:
        if waiter is not None:
            waiter = self._await(waiter)
        given: int = super().submit(op, flags, endpoint, timeout_ms, key, payload, waiter, tag, sink)
        return given

    def _await(self, waiter: Waiter) -> Waiter:
        if isinstance(waiter, Awaited):
            return waiter
        awaited = self._awaited[id(waiter)] = Awaited(self, waiter)
        return awaited

    def _schedule(self) -> None:
        if self.hub.is_alive():
            self._scheduled = True
            self.hub.soon(self._turn)

    def _turn(self) -> None:
        """Everything that the greenlets of a turn queued goes in one call."""
        self._scheduled = False
        if not self.ended:
            self.flush()
            self._bell()

    def send(self) -> None:
        if not self._scheduled:
            self._schedule()
        if self._unsent and not self.busy:
            self.wait(self._has_room)

    def _has_room(self) -> bool:
        return len(self._unsent) - self._unsent_at() <= UNSENT_BYTES_MAX

    # Completing

    def readable(self) -> None:
        """One run for each wake: while there is more, the descriptor stays readable."""
        super().poll()
        if self._unsent and not self.ended:
            self.flush()
            self._bell()
        self._wake()

    def poll(self) -> int:
        """Outside of the hub's turn: who is woken by what has come is woken in the next one."""
        count: int = super().poll()
        if count and self.hub.is_alive():
            self.hub.soon(self._wake)
        return count

    def _take(self, tag: int) -> Waiter | None:
        waiter = super()._take(tag)
        if isinstance(waiter, Awaited):
            # It may be cancelled by another greenlet than those who sleep for it.
            self.settled(waiter)
            if waiter.sleepers and self.hub.is_alive():
                self.hub.soon(self._wake)
        return waiter

    def settled(self, awaited: Awaited) -> None:
        """A reply has come: who sleeps for it is woken when the channel is done with what has come."""
        self._awaited.pop(id(awaited.waiter), None)
        self._woken += awaited.sleepers

    def _wake(self) -> None:
        """In the hub. A greenlet that raises here ends the turn: the others are woken in the next one."""
        self.hub.look()
        try:
            for _ in range(min(len(self._woken), WAKES_MAX)):
                self._woken.popleft().wake()
        finally:
            if self._woken:
                self.hub.soon(self._wake)

    # Waiting

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Gives way to the others until `done()`. False if `timeout` seconds passed before."""
        if self._blocks or self.busy or not self.hub.may_give_way():
            return super().wait(done, timeout)
        if timeout is not None and timeout <= 0:
            self.poll()
        if done() or self.ended or (timeout is not None and timeout <= 0):
            return done()
        sleeper = Sleeper(self, done)
        awaited = self._awaited.get(id(getattr(done, "__self__", None)))
        if awaited is not None:
            awaited.sleepers.append(sleeper)
        else:
            self.hub.sleepers.add(sleeper)
        try:
            return self._give_way(sleeper, timeout)
        finally:
            if awaited is not None:
                awaited.sleepers.remove(sleeper)
            else:
                self.hub.sleepers.discard(sleeper)

    def _give_way(self, sleeper: Sleeper, timeout: float | None) -> bool:
        take_back = None if timeout is None else self.hub.later(max(timeout, 0), sleeper.expire)
        sleeper.greenlet = getcurrent()
        try:
            while not (sleeper.is_over() or sleeper.is_late):
                self.hub.give_way()
            return sleeper._done()
        finally:
            sleeper.greenlet = None
            if take_back is not None:
                take_back()

    # Ending

    def _settle(self) -> None:
        self._blocks = self._scheduled = True
        super()._settle()

    def _end(self, status: int) -> None:
        if not self.ended:
            self.forget(self._process != os.getpid())
        super()._end(status)
        if self._process == os.getpid() and self.hub.is_alive():
            self.hub.soon(self._wake)

    def forget(self, forked: bool) -> None:
        """Watches no more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            self.hub.unwatch(watch, forked)


def _readable(channel: weakref.ref[HubChannel]) -> None:
    """What the hub calls; it does not keep the channel."""
    alive = channel()
    if alive is not None:
        alive.readable()


def _after_fork() -> None:
    for channel in _channels:
        channel.forget(forked=True)


os.register_at_fork(after_in_child=_after_fork)


class Greenlets:
    """The greenlets that use one exchange; its messages come by the channel of their thread."""

    def __init__(self, channel: HubChannel) -> None:
        self._channel = channel

    def __enter__(self) -> Channel:
        return self._channel

    def __exit__(self, *_: object) -> None:
        if not self._channel.ended:
            self._channel.send()

    def news(self) -> None:
        """Something has changed: whoever waits looks."""
        self._channel.hub.look()

    def leave(self) -> None:
        """The channel is everybody's."""

    def forget(self, tag: int) -> None:
        """Nobody holds the exchange any more. From a finalizer, in any thread."""
        self._channel.drop(tag)

    def only_in_loops(self) -> None:
        raise not_in_loops()

    def block(self, done: Callable[[], bool], timeout: float | None) -> bool:
        return done() or self._channel.wait(done, timeout)

    def when(self, done: Callable[[], bool], take: Callable[[], T], timeout: float | None) -> T:
        if not self.block(done, timeout):
            raise too_late(timeout)
        return take()

    async def until(self, done: Callable[[], bool], timeout: float | None) -> bool:
        raise not_in_loops()
