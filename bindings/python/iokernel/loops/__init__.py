"""Which loop runs here. asyncio's own and those that ride on it (uvloop, Tornado, anyio) are used as they are; each of
the others has a file beside this one, which is imported once the program has loaded that framework.

A file has `running()`, the loop of this thread in which a reply is awaited, or `hub()`, which takes turns with the
greenlets of this thread; None where its framework does not run.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from .._native import accelerator

if TYPE_CHECKING:
    from ._hub import Hub

log = logging.getLogger("iokernel")

_FRAMEWORKS = {
    "trio": "trio",
    "twisted.internet.reactor": "twisted",
    "gevent.hub": "gevent",
    "eventlet.hubs": "eventlet",
}
"""What a program has loaded when it may run a framework's loop, and our file for it."""


class Loop(Protocol):
    """What a channel needs of a loop: a part of asyncio's. `future` gives what a request is awaited by."""

    def add_reader(self, fd: int, callback: Callable[[], Any], /) -> Any: ...
    def remove_reader(self, fd: int, /) -> Any: ...
    def call_soon(self, callback: Callable[..., Any], /, *args: Any) -> Any: ...
    def call_soon_threadsafe(self, callback: Callable[..., Any], /, *args: Any) -> Any: ...
    def call_at(self, when: float, callback: Callable[..., Any], /, *args: Any) -> Any: ...
    def time(self) -> float: ...
    def create_future(self) -> Any: ...
    def is_closed(self) -> bool: ...


_modules = sys.modules
_modules_seen = -1
_adopted: set[str] = set()
_finders: list[Callable[[], Loop | None]] = []
_hubs: list[Callable[[], Hub | None]] = []


def _look() -> None:
    """Modules have come: may another framework run from here on?"""
    global _modules_seen
    for name, ours in _FRAMEWORKS.items():
        if name in _modules and name not in _adopted:
            _adopted.add(name)
            try:
                module = importlib.import_module(f"{__name__}.{ours}")
            except ImportError as error:
                log.warning("%s is not supported in this version: %s", ours, error)
                continue
            if hasattr(module, "running"):
                _finders.append(module.running)
            else:
                _hubs.append(module.hub)
    _modules_seen = len(_modules)
    if accelerator is not None and not TYPE_CHECKING:
        only_trio = _adopted.isdisjoint(("twisted.internet.reactor",))
        accelerator.loops(_find if _finders else None, _told_by_trio() if only_trio else None, bool(_hubs))


def _told_by_trio() -> Any:
    """Where trio says that it runs in this thread, if it does so. None: it has to be asked."""
    return getattr(_modules.get("sniffio"), "thread_local", None) if "trio" in _adopted else None


def _find() -> Any:
    for find in _finders:
        loop = find()
        if loop is not None:
            return loop
    return asyncio._get_running_loop()


def _running_loop() -> Any:
    """The loop that runs in this thread and takes turns with who asks, or None."""
    if len(_modules) != _modules_seen:
        _look()
    return _find() if _finders else asyncio._get_running_loop()


if accelerator is None or TYPE_CHECKING:
    running_loop = _running_loop
else:
    accelerator.looks(asyncio._get_running_loop, _modules, _look)
    running_loop = accelerator.running_loop


def needed_loop() -> Any:
    """The loop that runs here, for what only a loop can do."""
    loop = running_loop()
    if loop is None:
        raise RuntimeError("no event loop runs in this thread")
    return loop


def tasks_of(loop: Any) -> Any:
    """An async context manager whose `start(coroutine)` runs it beside; what runs at its end is cancelled."""
    make = getattr(loop, "tasks", None)
    return _Tasks(loop) if make is None else make()


class _Tasks:
    """Those of asyncio's loops."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)


def running_hub() -> Hub | None:
    """What takes turns with the greenlet that asks, or None in a thread that has no other."""
    if len(_modules) != _modules_seen:
        _look()
    for find in _hubs:
        hub = find()
        if hub is not None:
            return hub
    return None


def native_local() -> type[Any]:
    """`threading.local` of threads, also where greenlets were given one of their own."""
    local: type[Any] = threading.local
    patcher = _modules.get("eventlet.patcher")
    if "gevent.monkey" in _modules:
        local = _modules["gevent.monkey"].get_original("threading", "local")
    elif patcher is not None and patcher.is_monkey_patched("thread"):
        local = patcher.original("threading").local
    return local
