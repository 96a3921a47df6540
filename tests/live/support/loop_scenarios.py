"""What every event loop shows, as coroutines over a few tools that each framework brings; see loop_program.py."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

import iokernel

REQUESTS = 10_000
TICK_S = 0.01


class Tools(Protocol):
    """What a framework does in its own way."""

    name: str

    async def sleep(self, seconds: float) -> None: ...

    async def together(self, calls: list[Callable[[], Awaitable[Any]]]) -> None:
        """Runs all of them at the same time, to their ends."""

    def beside(self, call: Callable[[], Awaitable[Any]]) -> AbstractAsyncContextManager[Any]:
        """Runs it for as long as the `async with`."""

    async def is_cut_off(self, seconds: float, call: Callable[[], Awaitable[Any]]) -> bool:
        """Runs it, and cancels it after so long. False if it had ended before."""


async def many(db: iokernel.Endpoint, tools: Tools) -> str:
    """Ten thousand requests at a time: each has its own reply, and a timer of the loop goes on."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + TICK_S
            await tools.sleep(TICK_S)
            late.append(time.perf_counter() - due)

    async def ask(number: int) -> None:
        assert await db("ECHO", number) == b"%d" % number

    began = time.perf_counter()
    async with tools.beside(tick):
        await tools.sleep(2 * TICK_S)
        await tools.together([partial(ask, number) for number in range(REQUESTS)])
        took = time.perf_counter() - began
        await tools.sleep(2 * TICK_S)
    assert len(late) >= 3, late
    assert max(late) < 5, late
    return f"{REQUESTS / took:,.0f} requests/s, timer at most {max(late) * 1000:.0f} ms late, {len(late)} ticks"


async def idle(db: iokernel.Endpoint, tools: Tools) -> str:
    """With a connection open and a subscription standing, the program uses no CPU time."""
    await db("PING")
    async with db.subscribe("SUBSCRIBE", f"idle:{tools.name}"):
        before = time.process_time()
        await tools.sleep(1)
        used_ms = (time.process_time() - before) * 1000
    assert used_ms < 20, used_ms
    return f"{used_ms:.1f} ms in a second"


async def cancel(db: iokernel.Endpoint, tools: Tools) -> None:
    """Who awaits a reply is cancelled, and so is the request; the next one has its own reply."""
    key = f"cancel:{tools.name}"

    async def wait() -> None:
        await db("BLPOP", key, 0)

    assert await tools.is_cut_off(0.1, wait)
    deadline = time.monotonic() + 5
    while await _is_blocked(db):
        assert time.monotonic() < deadline
        await tools.sleep(0.02)
    assert await db("RPUSH", key, "x") == 1
    assert await db("LLEN", key) == 1
    assert await db("ECHO", "mine") == b"mine"


async def _is_blocked(db: iokernel.Endpoint) -> bool:
    rows: str = await db("CLIENT", "LIST")
    return "cmd=blpop" in rows


async def timeout(db: iokernel.Endpoint, tools: Tools) -> None:
    """A deadline ends the request, and its late reply is nobody's."""
    key = f"timeout:{tools.name}"
    try:
        await db("BLPOP", key, 0, timeout=0.1)
    except iokernel.Timeout as error:
        assert isinstance(error, TimeoutError) and error.fate == "maybe_executed", error
    else:
        raise AssertionError("no timeout")
    assert await db("RPUSH", key, "x") == 1
    assert await db("LLEN", key) == 1


async def errors(db: iokernel.Endpoint, tools: Tools) -> None:
    """What the peer refuses, and what cannot be sent."""
    for request, kind, fate in ((("NOSUCH",), iokernel.RemoteError, "replied"), ((), iokernel.BadRequest, "not_sent")):
        try:
            await db(*request)
        except kind as error:
            assert error.fate == fate, error
        else:
            raise AssertionError(f"{request} was no error")


async def subscription(db: iokernel.Endpoint, tools: Tools) -> None:
    """Every message in order; `close` ends the iteration; who waits for the next one may be cut off."""
    channel = f"news:{tools.name}"
    async with db.subscribe("SUBSCRIBE", channel) as news:
        for number in range(1000):
            db.send("PUBLISH", channel, number)
        seen: list[int] = []
        async for message in news:
            seen.append(int(message[-1]))
            if len(seen) == 1000:
                break
        assert seen == list(range(1000))

        async def wait() -> None:
            await news.__anext__()

        assert await tools.is_cut_off(0.05, wait)
        await db("PUBLISH", channel, "after")
        assert (await news.__anext__())[-1] == b"after"
    assert [message async for message in news] == []


async def lease(db: iokernel.Endpoint, tools: Tools) -> None:
    """A connection of one's own: WATCH, MULTI and EXEC beside others, and it sees their changes."""
    key = f"lease:{tools.name}"
    await db("SET", key, 1)
    async with db.lease() as conn:
        await conn("WATCH", key)
        await db("INCR", key)
        await conn("MULTI")
        await conn("INCR", key)
        assert await conn("EXEC") is None
        assert (await conn(["MULTI"], ["INCR", key], ["EXEC"]))[-1] == [3]
    async with db.lease() as conn:
        assert await conn("GET", key) == b"3"
    try:
        await conn("GET", key)
    except iokernel.Closed:
        return
    raise AssertionError("the lease was given back")


async def leases_come_back(db: iokernel.Endpoint, tools: Tools) -> None:
    """A lease that comes when who waited for it was cut off is given back: all can be had again."""
    with iokernel.open(db._url, lanes=2) as small:
        for _ in range(20):

            async def take() -> None:
                async with small.lease():
                    await tools.sleep(5)

            await tools.is_cut_off(0.002, take)

        async def use() -> None:
            async with small.lease(timeout=10) as conn:
                assert await conn("PING") == "PONG"

        await tools.together([use] * 4)
        await tools.sleep(0.05)  # What is given back is on its way.


async def lost(db: iokernel.Endpoint, tools: Tools) -> None:
    """The connection is killed under a request: its error says what is known, and the next one works."""
    async with db.lease() as conn:
        number = await conn("CLIENT", "ID")

        async def kill() -> None:
            await tools.sleep(0.05)
            assert await db("CLIENT", "KILL", "ID", number) == 1

        async def wait() -> None:
            try:
                await conn("BLPOP", f"lost:{tools.name}", 0)
            except iokernel.ConnectionLost as error:
                assert error.fate == "maybe_executed", error
            else:
                raise AssertionError("not lost")

        await tools.together([kill, wait])
    assert await db("ECHO", "again") == b"again"


async def ready(db: iokernel.Endpoint, tools: Tools) -> None:
    """`ready` waits for an endpoint to be up, and says why it is not."""
    await db.ready(5)
    with iokernel.open("redis://127.0.0.1:1") as nowhere:
        try:
            await nowhere.ready(0.1)
        except iokernel.Unavailable:
            return
        raise AssertionError("nobody is there")


async def large(db: iokernel.Endpoint, tools: Tools) -> None:
    """Values larger than the ring, side by side, and more requests than it holds."""
    values = [bytes([65 + at]) * (3 << 20) for at in range(4)]

    async def there_and_back(at: int) -> None:
        key = f"large:{tools.name}:{at}"
        await db("SET", key, values[at])
        assert await db("GET", key) == values[at]
        await db("DEL", key)

    await tools.together([partial(there_and_back, at) for at in range(4)])


async def listener(db: iokernel.Endpoint, tools: Tools) -> None:
    """A listener serves in the loop, its handlers side by side."""

    async def answer(request: iokernel.Request) -> Any:
        await tools.sleep(0.01)
        return request.args[-1]

    web = iokernel.listen("redis://127.0.0.1:0")

    async def serve() -> None:
        await web.serve(answer)

    async with tools.beside(serve):
        with iokernel.open(web.url) as back:

            async def ask(number: int) -> None:
                assert await back("ECHO", number) in (number, b"%d" % number, str(number))

            began = time.perf_counter()
            await tools.together([partial(ask, number) for number in range(100)])
            assert time.perf_counter() - began < 100 * 0.01 * 0.9, "one after the other"
        web.close()


async def http(db: iokernel.Endpoint, tools: Tools) -> None:
    """A response becomes a Response, and a stream is iterated over, against a listener in a thread."""
    web = iokernel.listen("http://127.0.0.1:0")
    async with tools.beside(partial(_serve_http, web)):
        with iokernel.http.open(web.url) as api:
            response = await api.get("/x")
            assert (response.status, response.body) == (200, b"hello"), response
            async with api.stream("GET", "/y") as reply:
                pieces = [piece async for piece in reply]
            assert b"".join(pieces) == b"hello", pieces
        web.close()


async def _serve_http(web: iokernel.Listener) -> None:
    async for request in web:
        request.reply([200, {}, b"hello"])


async def markers(db: iokernel.Endpoint, tools: Tools) -> None:
    """Tasks that take turns are each in their own marker."""

    async def work(name: str) -> None:
        with db.kernel.marker(name):
            for _ in range(5):
                await db("PING")
                await tools.sleep(0.001)

    await tools.together([partial(work, f"job {at}") for at in range(10)])


async def fork(db: iokernel.Endpoint, tools: Tools) -> None:
    """A child that is forked inside of the loop opens its own and blocks; the parent notices nothing."""
    async with db.subscribe("SUBSCRIBE", f"fork:{tools.name}") as news:
        child = os.fork()
        if child == 0:
            _in_child(db)
        deadline = time.monotonic() + 20
        asked = 0
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            assert await db("ECHO", asked) == b"%d" % asked
            asked += 1
            await tools.sleep(0.01)
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                raise AssertionError("the child hangs")
        assert await db("GET", f"child:{child}") == b"was here"
        await db("PUBLISH", f"fork:{tools.name}", "parent")
        assert (await news.__anext__())[-1] == b"parent"


def _in_child(db: iokernel.Endpoint) -> None:
    code = 1
    try:
        assert db.call("ECHO", "child", timeout=5) == b"child"
        future: Any = db("SET", f"child:{os.getpid()}", "was here")
        assert isinstance(future, iokernel.Future), future
        assert future.result(5) == "OK"
        before = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - before < 0.1
        code = 0
    finally:
        os._exit(code)


async def blocking(db: iokernel.Endpoint, tools: Tools) -> None:
    """What blocks works inside of the loop as well, with replies of the loop under way."""
    waiting = db("PING")
    assert db.call("ECHO", "blocked") == b"blocked"
    assert await waiting == "PONG"
    assert db.state["state"] == "up"


async def closed(db: iokernel.Endpoint, tools: Tools) -> None:
    """A kernel that is closed ends what is under way in the loop."""
    kernel = iokernel.Kernel(name="closed")
    endpoint = kernel.open(db._url)

    async def wait() -> None:
        try:
            await endpoint("BLPOP", f"closed:{tools.name}", 0)
        except iokernel.Closed:
            return
        raise AssertionError("not closed")

    async def close() -> None:
        await tools.sleep(0.1)
        kernel.close()

    await tools.together([wait, close])


SCENARIOS: dict[str, Callable[[iokernel.Endpoint, Any], Awaitable[str | None]]] = {
    one.__name__: one
    for one in (
        many,
        idle,
        cancel,
        timeout,
        errors,
        subscription,
        lease,
        leases_come_back,
        lost,
        ready,
        large,
        listener,
        http,
        markers,
        blocking,
        closed,
        fork,
    )
}


async def everything(db: iokernel.Endpoint, tools: Tools, names: list[str]) -> None:
    """Runs scenarios one after the other, in one loop, and tells how they ended."""
    for name in names:
        try:
            note = await SCENARIOS[name](db, tools)
        except Exception as error:
            tell(name, error)
        else:
            tell(name, note)


def tell(name: str, outcome: str | BaseException | None) -> None:
    """One line of TAP."""
    if isinstance(outcome, BaseException):
        import traceback

        traceback.print_exception(outcome)
        print(f"not ok - {name} # {type(outcome).__name__}: {outcome}", flush=True)
    else:
        print(f"ok - {name}{f' # {outcome}' if outcome else ''}", flush=True)


@contextlib.contextmanager
def told(name: str) -> Any:
    """Tells how its block ended."""
    try:
        yield
    except Exception as error:
        tell(name, error)
    else:
        tell(name, None)
