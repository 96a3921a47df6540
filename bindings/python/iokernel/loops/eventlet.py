"""eventlet: what blocks in a green thread lets the others go on, whether the program was monkey-patched or not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import eventlet.hubs  # type: ignore[import-untyped,unused-ignore]
import eventlet.patcher  # type: ignore[import-untyped,unused-ignore]

from . import native_local
from ._hub import Hub

_here = native_local()()
_forked: Any = None
"""A hub that a fork has copied: what it watches by is its parent's too."""


def _own() -> Any:
    return getattr(eventlet.hubs._threadlocal, "hub", None)


def hub() -> EventletHub | None:
    """The hub of this thread, if it has one, or is to have one because what blocks was patched."""
    own = _own()
    if own is None:
        if not eventlet.patcher.is_monkey_patched("socket"):
            return None
        own = eventlet.hubs.get_hub()
    if own is _forked:
        return None
    known: EventletHub | None = getattr(_here, "hub", None)
    if known is None or known.own is not own:
        known = _here.hub = EventletHub(own)
    return known if known.is_alive() else None


def _after_fork() -> None:
    global _forked
    _forked = _own()


os.register_at_fork(after_in_child=_after_fork)


class EventletHub(Hub):
    """A hub of eventlet."""

    def greenlet(self) -> Any:
        return self.own.greenlet

    def watch(self, fd: int, callback: Callable[[], None]) -> Any:
        def readable(_: int) -> None:
            # An exception here would end the watch.
            try:
                callback()
            except Exception as error:
                self.soon(partial(_raise, error))

        eventlet.hubs.notify_opened(fd)
        return self.own.add(self.own.READ, fd, readable, _ignore, None)

    def unwatch(self, watch: Any, forked: bool) -> None:
        with contextlib.suppress(KeyError):  # The hub has dropped it.
            if forked:
                del self.own.listeners[self.own.READ][watch.fileno]
            else:
                self.own.remove(watch)

    def soon(self, callback: Callable[[], None]) -> None:
        self.own.schedule_call_global(0, callback)

    def later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], Any]:
        take_back: Callable[[], Any] = self.own.schedule_call_global(seconds, callback).cancel
        return take_back

    def give_way(self) -> None:
        self.own.switch()

    def is_alive(self) -> bool:
        return not self.own.stopping


def _raise(error: Exception) -> None:
    raise error


def _ignore(_: Any) -> None:
    """The descriptor is the channel's, and nobody else closes it."""
