"""gevent: what blocks in a greenlet lets the others go on, whether the program was monkey-patched or not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gevent  # type: ignore[import-untyped,unused-ignore]
from gevent import monkey
from gevent._hub_local import get_hub_if_exists  # type: ignore[import-untyped,unused-ignore]

from . import native_local
from ._hub import Hub

_here = native_local()()


def hub() -> GeventHub | None:
    """The hub of this thread, if it has one, or is to have one because what blocks was patched."""
    own = get_hub_if_exists()
    if own is None:
        if not monkey.is_module_patched("socket"):
            return None
        own = gevent.get_hub()
    known: GeventHub | None = getattr(_here, "hub", None)
    if known is None or known.own is not own:
        known = _here.hub = GeventHub(own)
    return known if known.is_alive() else None


class GeventHub(Hub):
    """A hub of gevent."""

    def greenlet(self) -> Any:
        return self.own

    def watch(self, fd: int, callback: Callable[[], None]) -> Any:
        watcher = self.own.loop.io(fd, 1)
        watcher.start(callback)
        return watcher

    def unwatch(self, watch: Any, forked: bool) -> None:
        with contextlib.suppress(ValueError):  # The hub was destroyed before.
            watch.stop()
            watch.close()

    def soon(self, callback: Callable[[], None]) -> None:
        self.own.loop.run_callback(callback)

    def later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], Any]:
        timer = self.own.loop.timer(seconds)
        timer.start(callback, update=True)
        take_back: Callable[[], Any] = timer.close
        return take_back

    def give_way(self) -> None:
        self.own.switch()

    def is_alive(self) -> bool:
        return self.own.loop is not None and not self.own.dead
