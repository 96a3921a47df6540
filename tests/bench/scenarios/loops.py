"""100 GETs in flight in every loop that Python has, beside the client that its users take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from harness import PATHS, Bench, Row, Sample, timed_rate, versus

TASKS = 100
# So many GETs of each task that a side takes about half a second.
GETS, PEER_GETS = 300, 40

Ask = Callable[[], Awaitable[Any]]


async def ask_often(ask: Ask, gets: int) -> None:
    for _ in range(gets):
        assert len(await ask()) == 100


def opened(url: str) -> Any:
    import iokernel

    service = iokernel.open(url)
    service.wait_ready(5)
    return service


def asyncio_rates(loop: asyncio.AbstractEventLoop, ask: Ask, gets: int) -> Iterator[Sample]:
    async def crowd() -> Sample:
        started = time.perf_counter()
        await asyncio.gather(*(ask_often(ask, gets) for _ in range(TASKS)))
        return timed_rate(TASKS * gets, started)

    yield {}
    while True:
        yield loop.run_until_complete(crowd())


def redis_py_asyncio(port: int) -> Ask:
    import redis.asyncio as redis

    client = redis.Redis(host="127.0.0.1", port=port, max_connections=TASKS)
    return lambda: client.get("key")


def uvloop_ours(url: str, **_: Any) -> Iterator[Sample]:
    import uvloop

    service = opened(url)
    return asyncio_rates(uvloop.new_event_loop(), lambda: service("GET", "key"), GETS)


def uvloop_peer(port: int, **_: Any) -> Iterator[Sample]:
    import uvloop

    return asyncio_rates(uvloop.new_event_loop(), redis_py_asyncio(port), PEER_GETS)


def tornado_rates(ask: Ask, gets: int) -> Iterator[Sample]:
    from tornado.gen import multi
    from tornado.ioloop import IOLoop

    async def crowd() -> Sample:
        started = time.perf_counter()
        await multi([ask_often(ask, gets) for _ in range(TASKS)])
        return timed_rate(TASKS * gets, started)

    loop = IOLoop(make_current=False)
    yield {}
    while True:
        yield loop.run_sync(crowd)


def tornado_ours(url: str, **_: Any) -> Iterator[Sample]:
    service = opened(url)
    return tornado_rates(lambda: service("GET", "key"), GETS)


def tornado_peer(port: int, **_: Any) -> Iterator[Sample]:
    return tornado_rates(redis_py_asyncio(port), PEER_GETS)


def anyio_ours(backend: str) -> Callable[..., Iterator[Sample]]:
    def side(url: str, **_: Any) -> Iterator[Sample]:
        import anyio

        service = opened(url)

        async def crowd() -> Sample:
            started = time.perf_counter()
            async with anyio.create_task_group() as group:
                for _ in range(TASKS):
                    group.start_soon(ask_often, lambda: service("GET", "key"), GETS)
            return timed_rate(TASKS * GETS, started)

        yield {}
        while True:
            yield anyio.run(crowd, backend=backend)

    return side


def anyio_peer(backend: str) -> Callable[..., Iterator[Sample]]:
    def side(port: int, **_: Any) -> Iterator[Sample]:
        import anyio
        import coredis

        async def crowd() -> Sample:
            async with coredis.Redis(host="127.0.0.1", port=port, max_connections=TASKS) as client:
                await client.ping()
                started = time.perf_counter()
                async with anyio.create_task_group() as group:
                    for _ in range(TASKS):
                        group.start_soon(ask_often, lambda: client.get("key"), PEER_GETS)
                return timed_rate(TASKS * PEER_GETS, started)

        yield {}
        while True:
            yield anyio.run(crowd, backend=backend)

    return side


def twisted_rates(connected: Callable[[], Awaitable[Ask]], gets: int) -> Iterator[Sample]:
    """Its reactor runs once, but may be interrupted."""
    from twisted.internet import epollreactor

    epollreactor.install()
    from twisted.internet import reactor
    from twisted.internet.defer import ensureDeferred, gatherResults

    looped: Any = reactor
    told: list[Any] = []

    def run(call: Callable[[], Any]) -> Any:
        looped.callWhenRunning(lambda: ensureDeferred(call()).addBoth(told.append).addBoth(lambda _: looped.crash()))
        looped.run()
        outcome = told.pop()
        if hasattr(outcome, "raiseException"):
            outcome.raiseException()
        return outcome

    async def connect() -> Ask:
        return await connected()

    ask = run(connect)

    async def crowd() -> Sample:
        started = time.perf_counter()
        await gatherResults([ensureDeferred(ask_often(ask, gets)) for _ in range(TASKS)])
        return timed_rate(TASKS * gets, started)

    yield {}
    while True:
        yield run(crowd)


def twisted_ours(url: str, **_: Any) -> Iterator[Sample]:
    service = opened(url)

    async def connected() -> Ask:
        return lambda: service("GET", "key")

    return twisted_rates(connected, GETS)


def twisted_peer(port: int, **_: Any) -> Iterator[Sample]:
    async def connected() -> Ask:
        import txredisapi

        # Its connections pipeline; replies are text unless told otherwise.
        client = await txredisapi.ConnectionPool("127.0.0.1", port, poolsize=10, charset=None)
        return lambda: client.get("key")

    return twisted_rates(connected, PEER_GETS)


def gevent_rates(ask: Callable[[], Any], gets: int) -> Iterator[Sample]:
    import gevent

    def often() -> None:
        for _ in range(gets):
            assert len(ask()) == 100

    yield {}
    while True:
        started = time.perf_counter()
        gevent.joinall([gevent.spawn(often) for _ in range(TASKS)], raise_error=True)
        yield timed_rate(TASKS * gets, started)


def gevent_ours(url: str, **_: Any) -> Iterator[Sample]:
    from gevent import monkey

    monkey.patch_all()
    service = opened(url)
    return gevent_rates(lambda: service.call("GET", "key"), GETS)


def gevent_peer(port: int, **_: Any) -> Iterator[Sample]:
    from gevent import monkey

    monkey.patch_all()
    import redis

    client = redis.Redis(port=port, max_connections=TASKS)
    return gevent_rates(lambda: client.get("key"), PEER_GETS)


def eventlet_rates(ask: Callable[[], Any], gets: int) -> Iterator[Sample]:
    import eventlet

    def often() -> None:
        for _ in range(gets):
            assert len(ask()) == 100

    yield {}
    while True:
        started = time.perf_counter()
        for greenlet in [eventlet.spawn(often) for _ in range(TASKS)]:
            greenlet.wait()
        yield timed_rate(TASKS * gets, started)


def eventlet_ours(url: str, **_: Any) -> Iterator[Sample]:
    import eventlet

    eventlet.monkey_patch()
    service = opened(url)
    return eventlet_rates(lambda: service.call("GET", "key"), GETS)


def eventlet_peer(port: int, **_: Any) -> Iterator[Sample]:
    import eventlet

    eventlet.monkey_patch()
    import redis

    client = redis.Redis(port=port, max_connections=TASKS)
    return eventlet_rates(lambda: client.get("key"), PEER_GETS)


PEERS = {
    "uvloop": "redis-py",
    "tornado": "redis-py",
    "anyio-asyncio": "coredis",
    "anyio-trio": "coredis",
    "twisted": "txredisapi",
    "gevent": "redis-py",
    "eventlet": "redis-py",
}
SIDES = {
    "uvloop": uvloop_ours,
    "uvloop-peer": uvloop_peer,
    "tornado": tornado_ours,
    "tornado-peer": tornado_peer,
    "anyio-asyncio": anyio_ours("asyncio"),
    "anyio-asyncio-peer": anyio_peer("asyncio"),
    "anyio-trio": anyio_ours("trio"),
    "anyio-trio-peer": anyio_peer("trio"),
    "twisted": twisted_ours,
    "twisted-peer": twisted_peer,
    "gevent": gevent_ours,
    "gevent-peer": gevent_peer,
    "eventlet": eventlet_ours,
    "eventlet-peer": eventlet_peer,
}


def rows(bench: Bench) -> list[Row]:
    made = []
    for loop, peer in PEERS.items():
        ours = {path: f"{loop}:{path}" for path in PATHS}
        found = bench.compare("loops", [*ours.values(), f"{loop}-peer"])
        for path, side in ours.items():
            what = f"{loop}, 100 in flight, {path}: {peer}"
            made.append(versus(what, found[side], found[f"{loop}-peer"], must=1, aim=3, peer_name=peer))
    return made
