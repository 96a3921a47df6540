"""A worker: one process with a kernel of its own, which serves the application until it is told to leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from .. import _kernel
from .._aio import LoopChannel
from .._channel import Channel, Completion
from .._errors import Error, Timeout
from .._kernel import Kernel
from .._native import ThreadChannel
from .._records import OP_CLOSE, OP_LISTEN
from . import _asgi, _forwarded, _wsgi
from ._lifespan import Lifespan, StartupFailed
from ._load import NoApplication, is_asgi, load
from ._options import Options, listener_url

log = logging.getLogger("iokernel.serve")

READY, BEAT, REPLACE, CHANGED = b"r", b".", b"x", b"c"
"""What a worker tells its master: it serves, it lives, it wants another in its place, its source is not what it was."""
BOOT_FAILED = 3
"""The exit status of a worker that never served."""
BEATS_PER_TIMEOUT = 4
RELOAD_LOOK_S = 0.5
LOOK_S = 0.1
"""How soon a worker that leaves sees that it shall not wait any longer."""
LAST_MOMENT_S = 0.5
"""How long the threads and tasks that are left have once the clients are gone."""


class Worker:
    """Serves on sockets that listen already. `tell`: how the master is told things."""

    last_comers_s = 0.1
    """How much later than the master, which lets nobody new begin to connect, a worker closes its door: by then whoever
    has begun is there."""

    def __init__(self, options: Options, number: int, sockets: Sequence[Any], tell: Callable[[bytes], object]) -> None:
        self.options, self.number, self.sockets, self.tell = options, number, sockets, tell
        name = options.name if options.workers == 1 else f"{options.name}-{number}"
        self.kernel = Kernel(name=name, admin=options.admin)
        _kernel.use_as_default(self.kernel)

    def load(self) -> Any:
        """The application. None if it cannot be had, and why is in the log."""
        try:
            return load(self.options.app, self.options.app_dir, self.options.factory)
        except NoApplication as error:
            log.error("%s", error)
        except Exception:
            log.exception("%s: the application cannot be imported", self.options.app)
        return None

    def run(self, app: Any) -> int:
        """Serves until it is told to leave. Its exit status: 0, or BOOT_FAILED."""
        asgi = is_asgi(app) if self.options.interface == "auto" else self.options.interface == "asgi"
        serving: AsgiServing | WsgiServing = AsgiServing(self, app) if asgi else WsgiServing(self, app)
        try:
            return serving.run()
        except Error as error:
            log.error("%s", error)
            return BOOT_FAILED
        finally:
            with contextlib.suppress(Error):
                self.kernel.close()

    def signals(self, hear: Callable[[int], object]) -> None:
        """Signals that Leaving knows are heard."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda number, _: hear(number))
        # Its master's to take: a terminal sends it to both.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def listen(self, form: str, channel: Channel) -> list[_Listening]:
        """Begins to listen on all sockets, which from then on are the kernel's alone."""
        listening = []
        for each in self.sockets:
            url = listener_url(each.fileno(), form, self.options)
            listening.append(sink := _Listening(each))
            channel.submit(OP_LISTEN, 0, 0, 0, 0, url.encode(), sink=sink)
        return listening

    def watch_sources(self) -> None:
        """With --reload, the master is told when a source file of a module changes."""
        if not self.options.reload:
            return
        baseline: dict[str, float] = {}
        changed_since(baseline)

        def watch() -> None:
            while True:
                time.sleep(RELOAD_LOOK_S)
                path = changed_since(baseline)
                if path is not None:
                    log.info("%s has changed", path)
                    self.tell(CHANGED)

        threading.Thread(target=watch, name="reload", daemon=True).start()

    def requests_max(self) -> int:
        """After how many requests it is replaced; 0 for never."""
        most = self.options.max_requests
        return most and most + random.randint(0, self.options.max_requests_jitter)

    def wants_replacement(self) -> None:
        self.tell(REPLACE)

    @property
    def beat_s(self) -> float | None:
        """How often the master is told that this worker lives; None: it does not ask."""
        return self.options.timeout / BEATS_PER_TIMEOUT if self.options.timeout else None


class _Listening:
    """Waits for a listener to be there."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self.done: Completion | None = None
        self.then: Callable[[], object] = lambda: None

    def completion(self, done: Completion) -> None:
        self.done = done
        # The kernel has a copy.
        self._socket.close()
        self.then()

    def is_done(self) -> bool:
        return self.done is not None

    def number(self, kernel: Kernel) -> int:
        """The listener's. Raises what was wrong with it."""
        assert self.done is not None
        if self.done.status:
            raise self.done.error(kernel.names)
        return self.done.endpoint


class Leaving:
    """How a worker was told to leave: SIGTERM, once its balancer has seen it; SIGUSR1, as soon as those have come who
    began to connect; SIGHUP, as another one has taken its place, whose socket is the same; SIGQUIT, at once."""

    def __init__(self, worker: Worker, told: Callable[[], object]) -> None:
        self.delay_s, self.drain_s = worker.options.delay + worker.last_comers_s, worker.options.drain
        self._last_comers_s = worker.last_comers_s
        self.is_quick = False
        self._told = told
        worker.signals(self._hear)

    def _hear(self, number: int) -> None:
        if number != signal.SIGTERM:
            self.delay_s = self._last_comers_s if number == signal.SIGUSR1 else 0.0
        self.is_quick |= number == signal.SIGQUIT
        self._told()


def _close(kernel: Kernel, numbers: Sequence[int], leaving: Leaving) -> list[Any]:
    """Begins to close listeners. Futures, of the running loop or of this thread."""
    drain_s, delay_ms = max(leaving.drain_s, 0.001), int(leaving.delay_s * 1000)
    return [kernel.submit(OP_CLOSE, 0, number, drain_s, delay_ms, b"") for number in numbers]


class WsgiServing:
    """WSGI: the main thread takes signals, the others requests."""

    def __init__(self, worker: Worker, app: Any) -> None:
        self._worker, self._app = worker, app
        self._asked = threading.Event()

    def run(self) -> int:
        worker, options = self._worker, self._worker.options
        self._leaving = Leaving(worker, self._asked.set)
        self._worker.watch_sources()
        server, numbers = self._begin()
        threads = [
            threading.Thread(target=server.work, name=f"request-{at}", daemon=True) for at in range(options.threads)
        ]
        for thread in threads:
            thread.start()
        worker.tell(READY)
        while not self._asked.wait(worker.beat_s):
            if not server.is_stuck(options.timeout):
                worker.tell(BEAT)
        self._leave(numbers)
        server.end()
        until = time.monotonic() + LAST_MOMENT_S
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))
        return 0

    def _begin(self) -> tuple[_wsgi.Server, list[int]]:
        """The server, and the numbers of its listeners."""
        worker, options, kernel = self._worker, self._worker.options, self._worker.kernel
        base = _wsgi.base_environ(options.threads, options.workers, "https" if options.is_secure else "http")
        channel = ThreadChannel(kernel._open_channel(), kernel.names)
        server = _wsgi.Server(_wsgi.Start, channel, self._app, base)
        server.prepare(kernel, worker.requests_max(), worker.wants_replacement)
        _forwarded.adjust_environs(server, options)
        numbers = []
        for listening in worker.listen("cgi", channel):
            channel.wait(listening.is_done)
            numbers.append(listening.number(kernel))
        return server, numbers

    def _leave(self, numbers: Sequence[int]) -> None:
        for closing in _close(self._worker.kernel, numbers, self._leaving):
            while not closing.done() and not self._leaving.is_quick:
                with contextlib.suppress(Timeout):
                    closing.result(LOOK_S)
            if closing.done() and closing.exception() is not None:
                log.warning("%s", closing.exception())


class AsgiServing:
    """ASGI: one event loop in the main thread."""

    def __init__(self, worker: Worker, app: Any) -> None:
        self._worker, self._app = worker, app

    def run(self) -> int:
        status: int = _runner(self._worker.options.loop)(self._serve())
        return status

    async def _serve(self) -> int:
        loop = asyncio.get_running_loop()
        self._asked = asyncio.Event()
        self._leaving = Leaving(self._worker, lambda: loop.call_soon_threadsafe(self._asked.set))
        lifespan = Lifespan(self._app, self._worker.options.lifespan)
        try:
            await lifespan.startup()
        except StartupFailed as error:
            log.error("%s", error)
            return BOOT_FAILED
        try:
            self._worker.watch_sources()
            server, numbers = await self._begin(lifespan.state)
            self._worker.tell(READY)
            while not self._asked.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), self._worker.beat_s)
                self._worker.tell(BEAT)
            await self._leave(server, numbers)
        finally:
            await lifespan.shutdown()
        return 0

    async def _begin(self, state: dict[str, Any]) -> tuple[_asgi.Server, list[int]]:
        """The server, and the numbers of its listeners."""
        worker, options, kernel = self._worker, self._worker.options, self._worker.kernel
        channel = LoopChannel(kernel._open_channel(), kernel.names, asyncio.get_running_loop())
        server = _asgi.Server(kernel, channel, self._app, state, options.root_path)
        server.limit(worker.requests_max(), worker.wants_replacement)
        _forwarded.adjust_scopes(server, options)
        numbers = []
        for listening in worker.listen("scope", channel):
            # Not by waiting for the channel here, where requests would come inside of this task.
            there = asyncio.Event()
            listening.then = there.set
            if not listening.is_done():
                await there.wait()
            numbers.append(listening.number(kernel))
        return server, numbers

    async def _leave(self, server: _asgi.Server, numbers: Sequence[int]) -> None:
        """Until the clients are gone, and what their requests have left running behind them."""
        until = time.monotonic() + self._leaving.delay_s + self._leaving.drain_s
        closing = _close(self._worker.kernel, numbers, self._leaving)
        await self._wait(closing, until + LAST_MOMENT_S)
        for one in closing:
            if not one.done():
                one.cancel()
            elif one.exception() is not None:
                log.warning("%s", one.exception())
        await self._wait(server.tasks, max(until, time.monotonic() + LAST_MOMENT_S))
        for task in list(server.tasks):
            task.cancel()
        if server.tasks:
            await asyncio.wait(server.tasks, timeout=LAST_MOMENT_S)

    async def _wait(self, futures: Collection[Any], until: float) -> None:
        """Until all are done, the time is over, or nobody is to be waited for."""
        left = set(futures)
        while left and not self._leaving.is_quick and time.monotonic() < until:
            _, left = await asyncio.wait(left, timeout=min(LOOK_S, max(until - time.monotonic(), 0)))


def _runner(name: str) -> Callable[[Any], Any]:
    """What runs a coroutine in a loop of that kind."""
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise
        else:
            run: Callable[[Any], Any] = uvloop.run
            return run
    return asyncio.run


def die_with_parent() -> None:
    """The system asks this process to leave when its parent ends (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def setup_log(level: str) -> None:
    """The server's own log, on the standard error, unless somebody has set it up already."""
    logger = logging.getLogger("iokernel")
    logger.setLevel(level.upper())
    if not logger.handlers and not logging.getLogger().handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s [%(process)d] %(message)s"))
        logger.addHandler(handler)


def changed_since(baseline: dict[str, float]) -> str | None:
    """A source file of a module that is not as it was; `baseline` learns of those that are."""
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not path or not path.endswith(".py"):
            continue
        with contextlib.suppress(OSError):
            modified = os.stat(path).st_mtime
            if baseline.setdefault(path, modified) != modified:
                baseline[path] = modified
                return str(path)
    return None
