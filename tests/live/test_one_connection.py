"""However many tasks ask, one connection serves them; what blocks or owns one has its own, and is in nobody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import iokernel
import pytest
from support.servers import RedisServer

TASKS = 300
POPS = 4


@pytest.fixture
async def service(redis_server: RedisServer) -> AsyncIterator[iokernel.Endpoint]:
    """An endpoint in a kernel of its own, so that nobody else's connections are seen."""
    with iokernel.Kernel(name="one") as kernel, kernel.open(redis_server.url, client_name="ours") as endpoint:
        await endpoint.ready(5)
        yield endpoint


def ours(server: RedisServer) -> list[str]:
    """The last commands of our connections."""
    return [row["cmd"] for row in server.clients() if row["name"] == "ours"]


async def test_hundreds_of_tasks_share_one_connection(redis_server: RedisServer, service: iokernel.Endpoint) -> None:
    async def task(number: int) -> None:
        for turn in range(5):
            assert await service("SET", f"key:{number}", f"{number}:{turn}") == "OK"
            assert await service("GET", f"key:{number}") == f"{number}:{turn}".encode()

    tasks = [asyncio.create_task(task(number)) for number in range(TASKS)]
    seen = []
    while not all(each.done() for each in tasks):
        seen.append(len(await asyncio.to_thread(ours, redis_server)))
    await asyncio.gather(*tasks)

    assert seen and set(seen) == {1}
    assert redis_server.cli("DBSIZE") == TASKS


async def test_what_blocks_or_owns_a_connection_is_in_nobodys_way(
    redis_server: RedisServer, service: iokernel.Endpoint
) -> None:
    pops = [asyncio.ensure_future(service("BLPOP", f"list:{number}", 0)) for number in range(POPS)]
    async with service.subscribe("SUBSCRIBE", "news") as news, service.lease() as lease:
        await lease("WATCH", "watched")
        assert await lease("MULTI") == "OK"
        assert await lease("INCR", "watched") == "QUEUED"

        async def task(number: int) -> None:
            await service("SET", f"key:{number}", number)
            assert await service("GET", f"key:{number}") == b"%d" % number

        await asyncio.wait_for(asyncio.gather(*(task(number) for number in range(TASKS))), 10)
        assert not any(pop.done() for pop in pops)
        # One for the pops each, one for the lease, one for all the rest: with RESP3 the subscription needs none.
        assert len(ours(redis_server)) == POPS + 2

        assert await lease("EXEC") == [1]
        await asyncio.to_thread(redis_server.cli, "PUBLISH", "news", "rain")
        assert await asyncio.wait_for(anext(news), 5) == ["message", b"news", b"rain"]
        for number in range(POPS):
            await service("LPUSH", f"list:{number}", number)
        replies = await asyncio.wait_for(asyncio.gather(*pops), 5)
    assert replies == [[f"list:{number}".encode(), b"%d" % number] for number in range(POPS)]


async def test_a_transaction_learns_that_what_it_watches_has_changed(service: iokernel.Endpoint) -> None:
    async with service.lease() as lease:
        await lease("WATCH", "watched")
        await service("SET", "watched", "by another")
        await lease("MULTI")
        await lease("SET", "watched", "by us")
        assert await lease("EXEC") is None
    assert await service("GET", "watched") == b"by another"
