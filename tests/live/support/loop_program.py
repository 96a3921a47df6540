"""Shows in a framework's loop what loop_scenarios.py has: `python loop_program.py trio REDIS-URL`. Prints TAP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import iokernel

from support.loop_scenarios import SCENARIOS, everything, told

Main = Callable[[], Coroutine[Any, Any, Any]]
ROUNDS = 20


class Asyncio:
    """asyncio's own loop. uvloop's and Tornado's run the same tasks."""

    name = "asyncio"

    def run(self, main: Main) -> None:
        async def whole() -> None:
            await main()

        asyncio.run(whole())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def together(self, calls: list[Main]) -> None:
        await asyncio.gather(*(call() for call in calls))

    @contextlib.asynccontextmanager
    async def beside(self, call: Main) -> Any:
        task = asyncio.ensure_future(call())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def is_cut_off(self, seconds: float, call: Main) -> bool:
        try:
            await asyncio.wait_for(call(), seconds)
        except asyncio.TimeoutError:  # noqa: UP041 - PyPy is a Python 3.9
            return True
        return False


class Uvloop(Asyncio):
    name = "uvloop"

    def run(self, main: Main) -> None:
        import uvloop

        loop = uvloop.new_event_loop()
        try:
            loop.run_until_complete(main())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()


class Tornado(Asyncio):
    name = "tornado"

    def run(self, main: Main) -> None:
        from tornado.ioloop import IOLoop

        async def whole() -> None:
            await main()

        loop = IOLoop(make_current=False)
        try:
            loop.run_sync(whole)
        finally:
            loop.close()

    async def sleep(self, seconds: float) -> None:
        import tornado.gen

        await tornado.gen.sleep(seconds)


class Trio:
    name = "trio"

    def run(self, main: Main) -> None:
        import trio

        trio.run(main)

    async def sleep(self, seconds: float) -> None:
        import trio

        await trio.sleep(seconds)

    async def together(self, calls: list[Main]) -> None:
        import trio

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)

    @contextlib.asynccontextmanager
    async def beside(self, call: Main) -> Any:
        import trio

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            yield
            nursery.cancel_scope.cancel()

    async def is_cut_off(self, seconds: float, call: Main) -> bool:
        import trio

        with trio.move_on_after(seconds) as scope:
            await call()
        return scope.cancelled_caught


class Anyio:
    """anyio over asyncio, or over trio."""

    def __init__(self, backend: str) -> None:
        self.name = f"anyio-{backend}"
        self._backend = backend

    def run(self, main: Main) -> None:
        import anyio

        anyio.run(main, backend=self._backend)

    async def sleep(self, seconds: float) -> None:
        import anyio

        await anyio.sleep(seconds)

    async def together(self, calls: list[Main]) -> None:
        import anyio

        async with anyio.create_task_group() as group:
            for call in calls:
                group.start_soon(call)

    @contextlib.asynccontextmanager
    async def beside(self, call: Main) -> Any:
        import anyio

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            yield
            group.cancel_scope.cancel()

    async def is_cut_off(self, seconds: float, call: Main) -> bool:
        import anyio

        with anyio.move_on_after(seconds) as scope:
            await call()
        return bool(scope.cancelled_caught)


class Twisted:
    """Coroutines of Twisted, that await Deferreds. `reactor`: which one, such as `asyncio`."""

    def __init__(self, reactor: str) -> None:
        self.name = f"twisted-{reactor}"
        getattr(__import__(f"twisted.internet.{reactor}reactor").internet, f"{reactor}reactor").install()

    def run(self, main: Main) -> None:
        """A reactor cannot run again once it has stopped: it crashes, as that is called."""
        from twisted.internet import reactor
        from twisted.internet.defer import ensureDeferred

        looped: Any = reactor
        failed: list[Any] = []

        def begin() -> None:
            ensureDeferred(main()).addErrback(failed.append).addCallback(lambda _: looped.crash())

        looped.callWhenRunning(begin)
        looped.run()
        if failed:
            failed[0].raiseException()

    async def sleep(self, seconds: float) -> None:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        looped: Any = reactor
        await deferLater(looped, seconds)

    async def together(self, calls: list[Main]) -> None:
        from twisted.internet.defer import ensureDeferred, gatherResults

        await gatherResults([ensureDeferred(call()) for call in calls])

    @contextlib.asynccontextmanager
    async def beside(self, call: Main) -> Any:
        from twisted.internet.defer import CancelledError, ensureDeferred

        task: Any = ensureDeferred(call())
        task.addErrback(lambda failure: failure.trap(CancelledError))
        try:
            yield
        finally:
            task.cancel()

    async def is_cut_off(self, seconds: float, call: Main) -> bool:
        from twisted.internet import reactor
        from twisted.internet.defer import TimeoutError, ensureDeferred

        looped: Any = reactor
        try:
            await ensureDeferred(call()).addTimeout(seconds, looped)
        except TimeoutError:
            return True
        return False


FRAMEWORKS: dict[str, Callable[[], Any]] = {
    "asyncio": Asyncio,
    "uvloop": Uvloop,
    "tornado": Tornado,
    "trio": Trio,
    "anyio-asyncio": partial(Anyio, "asyncio"),
    "anyio-trio": partial(Anyio, "trio"),
    "twisted-epoll": partial(Twisted, "epoll"),
    "twisted-select": partial(Twisted, "select"),
    "twisted-asyncio": partial(Twisted, "asyncio"),
}

BETWEEN = ("reopened", "threads", "exits")
"""What is shown by more than one run."""


def reopened(db: iokernel.Endpoint, framework: Any) -> None:
    """Loops one after the other: each works, and nothing of those before is left."""

    async def main() -> None:
        assert await db("PING") == "PONG"
        async with db.lease() as conn:
            await conn("PING")

    framework.run(main)
    before = descriptors()
    for _ in range(ROUNDS):
        framework.run(main)
    # What is left of the last loop goes when the next one needs a channel.
    assert descriptors() <= before + 2, (before, descriptors())
    assert len(db.kernel._loops) <= 2, db.kernel._loops


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads(db: iokernel.Endpoint, framework: Any) -> None:
    """Two threads with a loop each, at the same time (Twisted: the reactor's, and one that blocks)."""
    failed: list[BaseException] = []

    async def main() -> None:
        async def add() -> None:
            for _ in range(20):
                await db("INCR", f"threads:{framework.name}")

        await framework.together([add] * 25)

    def loop() -> None:
        with noted(failed):
            framework.run(main)

    def blocking() -> None:
        with noted(failed):
            futures = [db("INCR", f"threads:{framework.name}") for _ in range(500)]
            assert all(future.result(10) for future in futures)

    other = threading.Thread(target=blocking if framework.name.startswith("twisted") else loop)
    if framework.name.startswith("twisted"):
        # Which thread is the reactor's is known once it runs.
        from twisted.internet import reactor

        looped: Any = reactor
        looped.callWhenRunning(other.start)
    else:
        other.start()
    loop()
    other.join()
    if failed:
        raise failed[0]
    assert db.call("GET", f"threads:{framework.name}") == b"1000"


@contextlib.contextmanager
def noted(failed: list[BaseException]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        failed.append(error)


def exits(db: iokernel.Endpoint, framework: Any) -> None:
    """A loop that ends with requests under way ends, and the next one works."""

    waiting: list[Any] = []

    async def begin() -> None:
        waiting.extend(db("BLPOP", f"exits:{framework.name}", 0) for _ in range(10))
        subscription = db.subscribe("SUBSCRIBE", f"exits:{framework.name}")
        await subscription

    began = time.monotonic()
    framework.run(begin)
    assert time.monotonic() - began < 5
    for one in waiting:
        # Twisted's reactor was only interrupted, as it cannot run twice: there they are under way.
        if framework.name.startswith("twisted"):
            one.addErrback(lambda _: None).cancel()
        elif framework.name != "tornado":
            # A loop that is closed without shutting down its async generators tells nobody.
            assert isinstance(one.exception(), iokernel.Closed)

    async def main() -> None:
        assert await db("PING") == "PONG"

    framework.run(main)


def main() -> None:
    name, url, *wanted = sys.argv[1:]
    framework = FRAMEWORKS[name]()
    with iokernel.open(url) as db:
        single = [one for one in SCENARIOS if not wanted or one in wanted]
        framework.run(partial(everything, db, framework, single))
        for one in BETWEEN:
            if not wanted or one in wanted:
                with told(one):
                    globals()[one](db, framework)


if __name__ == "__main__":
    main()
