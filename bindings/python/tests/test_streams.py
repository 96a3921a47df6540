"""Subscriptions and leases."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time

import iokernel
import pytest
from support.servers import RedisServer


def message(*parts: str) -> list[object]:
    kind, *rest = parts
    return [kind, *(part.encode() for part in rest)]


def test_subscription(redis: iokernel.Endpoint) -> None:
    with redis.subscribe("SUBSCRIBE", "news") as news:
        assert redis.call("PUBLISH", "news", "one") == 1
        redis.call("PUBLISH", "news", "two")
        assert news.get(5) == message("message", "news", "one")
        for got in news:
            assert got == message("message", "news", "two")
            break
        with pytest.raises(iokernel.Timeout):
            news.get(0.05)
        assert news.lost == 0
    assert news.closed
    assert list(news) == []
    with pytest.raises(iokernel.Closed):
        news.get(1)


def test_closing_ends_it_at_the_peer(redis: iokernel.Endpoint) -> None:
    with redis.subscribe("PSUBSCRIBE", "n*"):
        assert redis.call("PUBSUB", "NUMPAT") == 1
    deadline = time.monotonic() + 5
    while redis.call("PUBSUB", "NUMPAT"):
        assert time.monotonic() < deadline
    forgotten = redis.subscribe("SUBSCRIBE", "news")
    del forgotten
    gc.collect()
    while redis.call("PUBSUB", "CHANNELS"):
        assert time.monotonic() < deadline


def test_subscription_that_is_none(redis: iokernel.Endpoint) -> None:
    with pytest.raises(iokernel.BadRequest):
        redis.subscribe("GET", "key")
    with pytest.raises(iokernel.BadRequest):
        redis.call("SUBSCRIBE", "news")


def test_monitor(redis: iokernel.Endpoint) -> None:
    with redis.subscribe("MONITOR") as monitor:
        redis.call("SET", "seen", 1)
        line = monitor.get(5)
        assert "seen" in (line if isinstance(line, str) else line.decode())


def test_subscription_outlives_its_connection(redis_server: RedisServer) -> None:
    with iokernel.open(redis_server.url) as endpoint, endpoint.subscribe("SUBSCRIBE", "news") as news:
        redis_server.restart()
        endpoint.wait_ready(10)
        deadline = time.monotonic() + 10
        while not endpoint.call("PUBLISH", "news", "again"):
            assert time.monotonic() < deadline
        assert news.get(5) == message("message", "news", "again")
        assert news.reconnects == 1


def test_unread_messages_are_counted(redis: iokernel.Endpoint) -> None:
    with redis.subscribe("SUBSCRIBE", "news", buffer=10) as news:
        for index in range(30):
            redis.call("PUBLISH", "news", index)
        got = [news.get(5) for _ in range(10)]
        assert got[-1] == message("message", "news", "9")
        deadline = time.monotonic() + 5
        while news.lost < 20:
            redis.call("PING")
            assert time.monotonic() < deadline


def test_the_kernel_counts_what_it_dropped(redis: iokernel.Endpoint) -> None:
    with redis.subscribe("SUBSCRIBE", "news") as news:
        publisher = iokernel.Kernel()
        other = publisher.open(redis._url)
        value = b"x" * 100_000
        assert [reply.result(20) for reply in [other("PUBLISH", "news", value) for _ in range(200)]] == [1] * 200
        got = 0
        deadline = time.monotonic() + 10
        while got + news.lost < 200:
            assert time.monotonic() < deadline
            with contextlib.suppress(iokernel.Timeout):
                news.get(0.1)
                got += 1
        assert news.lost > 0
        publisher.close()


async def test_async_subscription(redis: iokernel.Endpoint) -> None:
    async with redis.subscribe("SUBSCRIBE", "a", "b") as both:
        await redis("PUBLISH", "a", "1")
        await redis("PUBLISH", "b", "2")
        got = []
        async for one in both:
            got.append(one)
            if len(got) == 2:
                break
        assert got == [message("message", "a", "1"), message("message", "b", "2")]
    with pytest.raises(StopAsyncIteration):
        await both.__anext__()


async def test_awaited_subscription(redis: iokernel.Endpoint) -> None:
    news = await redis.subscribe("SUBSCRIBE", "news")
    task = asyncio.ensure_future(news.__anext__())
    await asyncio.sleep(0)
    await redis("PUBLISH", "news", "1")
    assert await task == message("message", "news", "1")
    waiting = asyncio.ensure_future(news.__anext__())
    await asyncio.sleep(0)
    news.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    with pytest.raises(iokernel.BadRequest):
        await redis.subscribe("GET", "key")


def test_lease(redis: iokernel.Endpoint) -> None:
    with redis.lease() as conn:
        conn.call("WATCH", "key")
        redis.call("SET", "key", "changed")
        conn.call("MULTI")
        conn.call("SET", "key", "mine")
        assert conn.call("EXEC") is None
        assert conn.call("CLIENT", "ID") != redis.call("CLIENT", "ID")
    assert redis.call("GET", "key") == b"changed"
    with pytest.raises(iokernel.Closed):
        conn.call("PING")


def test_lease_with_pipelining(redis: iokernel.Endpoint) -> None:
    with redis.lease() as conn:
        futures = [conn(*command) for command in (["MULTI"], ["INCR", "n"], ["INCR", "n"], ["EXEC"])]
        assert [future.result(5) for future in futures][-1] == [1, 2]


async def test_async_lease(redis: iokernel.Endpoint) -> None:
    async with redis.lease() as conn:
        await conn("MULTI")
        conn("INCR", "n")
        assert await conn("EXEC") == [1]


async def test_cancelled_leases_are_given_back(url: str) -> None:
    with iokernel.open(url, lanes=2) as endpoint:
        for delay in (0, 0.0005, 0.001, 0.002, 0.004):

            async def hold() -> None:
                async with endpoint.lease() as conn:
                    await conn("PING")

            tasks = [asyncio.ensure_future(hold()) for _ in range(10)]
            await asyncio.sleep(delay)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async with endpoint.lease(timeout=5) as conn:
            assert await conn("PING") == "PONG"
        deadline = time.monotonic() + 5
        while endpoint.state["leases"]:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
