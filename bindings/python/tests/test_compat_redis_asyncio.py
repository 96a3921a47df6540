"""redis.asyncio over the kernel: tasks, cancelling, loops, transactions, losses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from iokernel.compat.redis.asyncio import BlockingConnectionPool, ConnectionPool
from support import net
from support.servers import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def test_three_hundred_tasks_share_one_connection(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)

        async def work(number: int) -> None:
            for turn in range(20):
                await r.set(f"key:{number}", f"{number}:{turn}")
                assert await r.get(f"key:{number}") == f"{number}:{turn}".encode()

        await asyncio.gather(*(work(number) for number in range(300)))
        assert len(server.clients()) == 1
    await asyncio.to_thread(net.wait_for, "the connection's end", lambda: not server.clients())


async def test_pipelines_of_tasks_do_not_mix(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)

        async def work(number: int) -> None:
            for _ in range(5):
                pipeline = r.pipeline(transaction=number % 2 == 0)
                for index in range(20):
                    pipeline.echo(f"{number}:{index}")
                assert await pipeline.execute() == [f"{number}:{index}".encode() for index in range(20)]

        await asyncio.gather(*(work(number) for number in range(50)))


async def test_transactions_of_tasks_are_serial(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)
        await r.set("n", 0)

        async def add(pipeline: Any) -> None:
            value = int(await pipeline.get("n"))
            pipeline.multi()
            pipeline.set("n", value + 1)

        async def work() -> None:
            for _ in range(5):
                await r.transaction(add, "n")

        await asyncio.gather(*(work() for _ in range(8)))
        assert await r.get("n") == b"40"


async def test_cancelling_leaves_nothing_behind(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url, socket_timeout=None) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)
        for index in range(50):
            waiting = asyncio.ensure_future(r.blpop(["nothing"], 0))
            asked = asyncio.ensure_future(r.echo(f"lost {index}"))
            await asyncio.sleep(0)
            asked.cancel()
            if index % 2:
                await asyncio.sleep(0.001)
            waiting.cancel()
            assert await r.echo(f"mine {index}") == f"mine {index}".encode()
            await asyncio.gather(waiting, asked, return_exceptions=True)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(r.blpop(["nothing"], 0), 0.05)
        assert await r.ping()


def test_one_pool_serves_loop_after_loop(server: RedisServer) -> None:
    pool = ConnectionPool.from_url(server.url)
    r = redis.asyncio.Redis(connection_pool=pool)

    async def main() -> None:
        assert await r.incr("n")
        async with r.pipeline() as pipeline:
            await pipeline.watch("n")
            pipeline.multi()
            pipeline.incr("n")
            await pipeline.execute()

    for _ in range(3):
        asyncio.run(main())
    assert server.cli("GET", "n") == b"6"


async def test_a_timeout_and_a_loss_are_redis_py_s_errors(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url, socket_timeout=0.1) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)
        with pytest.raises(redis.exceptions.TimeoutError, match=r"Timeout reading from 127\.0\.0\.1:\d+"):
            await r.blpop(["nothing"], 0)
        assert await r.ping()
    async with ConnectionPool.from_url(server.url, socket_timeout=None) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)
        assert await r.ping()
        waiting = asyncio.ensure_future(r.blpop(["nothing"], 0))
        await asyncio.sleep(0.05)
        await asyncio.to_thread(server.kill)
        with pytest.raises(redis.exceptions.ConnectionError):
            await waiting
        for _ in range(2):
            with pytest.raises(redis.exceptions.ConnectionError):
                await r.ping()
        await asyncio.to_thread(server.start)
        await asyncio.sleep(1)
        assert await r.ping()


async def test_tasks_wait_for_messages_while_others_ask(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url, protocol=3) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)
        got: list[Any] = []

        async def listen() -> None:
            async with r.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe("news")
                async for message in pubsub.listen():
                    got.append(message["data"])
                    if message["data"] == b"end":
                        return

        listeners = [asyncio.ensure_future(listen()) for _ in range(20)]
        while (await r.pubsub_numsub("news"))[0][1] < 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await r.publish("news", "one")
        await r.publish("news", "end")
        await asyncio.wait_for(asyncio.gather(*listeners), 10)
        assert sorted(got) == [b"end"] * 20 + [b"one"] * 20
        assert len(server.clients()) == 1


async def test_monitor(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)
        async with r.monitor() as monitor:
            await r.set("seen", "value")
            assert (await monitor.next_command())["command"] == "SET seen value"


async def test_limits_of_the_pool_hold(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url, max_connections=1) as pool:
        held = await pool.get_connection()
        with pytest.raises(redis.exceptions.ConnectionError, match="Too many connections"):
            await redis.asyncio.Redis(connection_pool=pool).ping()
        await pool.release(held)
    blocking = BlockingConnectionPool.from_url(server.url, max_connections=2, timeout=5)
    r = redis.asyncio.Redis(connection_pool=blocking)
    assert all(await asyncio.gather(*(r.ping() for _ in range(100))))
    await blocking.disconnect()


async def test_locks(server: RedisServer) -> None:
    async with ConnectionPool.from_url(server.url) as pool:
        r = redis.asyncio.Redis(connection_pool=pool)
        count: list[int] = []

        async def work() -> None:
            async with r.lock("lock", timeout=30, sleep=0.005):
                seen = len(count)
                await asyncio.sleep(0)
                count.append(seen)

        await asyncio.gather(*(work() for _ in range(20)))
        assert count == list(range(20))
