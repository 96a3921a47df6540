"""The same endpoints inside of asyncio."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable

import iokernel
import pytest
from support.servers import RedisServer


async def test_many_awaits_share_one_connection(redis: iokernel.Endpoint, shared_redis_server: RedisServer) -> None:
    async def work() -> int:
        for _ in range(10):
            last: int = await redis("INCR", "n")
        return last

    assert max(await asyncio.gather(*(work() for _ in range(300)))) == 3000
    assert len(shared_redis_server.clients()) == 1


async def test_future(redis: iokernel.Endpoint) -> None:
    future = redis("PING")
    assert isinstance(future, asyncio.Future)
    assert not future.done()
    assert await future == "PONG"
    with pytest.raises(iokernel.RemoteError):
        await redis("INCR", "a", "b")
    with pytest.raises(iokernel.BadRequest):
        redis("SET", "a", object())


async def test_cancelling_a_task_cancels_its_request(
    redis: iokernel.Endpoint, shared_redis_server: RedisServer
) -> None:
    task = asyncio.ensure_future(redis("BLPOP", "list", 0))
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(redis("BLPOP", "list", 0), 0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    deadline = time.monotonic() + 5
    while any(row["cmd"] == "blpop" for row in shared_redis_server.clients()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert await redis("RPUSH", "list", "x") == 1
    assert await redis("LLEN", "list") == 1


async def test_cancelled_before_it_was_sent(redis: iokernel.Endpoint) -> None:
    futures = [redis("INCR", "n") for _ in range(10)]
    for future in futures[::2]:
        future.cancel()
    assert len([await future for future in futures[1::2]]) == 5


async def test_timeout(redis: iokernel.Endpoint) -> None:
    with pytest.raises(TimeoutError):
        await redis("BLPOP", "list", 0, timeout=0.05)


async def test_blocking_inside_of_a_loop(redis: iokernel.Endpoint) -> None:
    future = redis("PING")
    assert redis.call("PING") == "PONG"
    assert await future == "PONG"


async def test_ready(redis: iokernel.Endpoint, free_port: int) -> None:
    await redis.ready(5)
    async with iokernel.open(f"redis://127.0.0.1:{free_port}") as nowhere:
        with pytest.raises(iokernel.Unavailable):
            await nowhere.ready(0.1)


async def test_send(redis: iokernel.Endpoint) -> None:
    for _ in range(10):
        redis.send("INCR", "n")
    assert await redis("GET", "n") == b"10"


async def test_large_values_side_by_side(redis: iokernel.Endpoint) -> None:
    values = [bytes([65 + index]) * (3 << 20) for index in range(8)]
    await asyncio.gather(*(redis("SET", f"k{index}", value) for index, value in enumerate(values)))
    assert await asyncio.gather(*(redis("GET", f"k{index}") for index in range(8))) == values


async def test_more_than_the_ring_holds(redis: iokernel.Endpoint) -> None:
    replies = await asyncio.gather(*(redis("ECHO", b"%06d" % index + b"x" * 1000) for index in range(5000)))
    assert [int(reply[:6]) for reply in replies] == list(range(5000))


async def test_closed_kernel(url: str) -> None:
    kernel = iokernel.Kernel()
    endpoint = kernel.open(url)
    waiting = endpoint("BLPOP", "nothing", 0)
    await asyncio.sleep(0.05)
    kernel.close()
    with pytest.raises(iokernel.Closed):
        await asyncio.wait_for(waiting, 5)


def test_loops_one_after_the_other(redis: iokernel.Endpoint) -> None:
    async def main() -> None:
        assert await redis("PING") == "PONG"

    for _ in range(20):
        asyncio.run(main())
    for _ in range(20):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
    assert len([channel for channel in redis.kernel._loops if not channel.ended]) <= 1


def test_a_loop_closed_with_requests_under_way(redis: iokernel.Endpoint) -> None:
    async def begin() -> None:
        for _ in range(10):
            redis("BLPOP", "nothing", 0)

    async def main() -> None:
        assert await redis("PING") == "PONG"

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    gc.collect()
    asyncio.run(main())


def test_two_loops_in_two_threads(redis: iokernel.Endpoint) -> None:
    async def main() -> None:
        for _ in range(20):
            await asyncio.gather(*(redis("INCR", "n") for _ in range(50)))

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redis.call("GET", "n") == b"2000"


async def test_an_idle_loop_sleeps(redis: iokernel.Endpoint) -> None:
    await redis("PING")
    turns = 0
    loop = asyncio.get_running_loop()
    selector = loop._selector  # type: ignore[attr-defined]
    select: Callable[..., object] = selector.select

    def counting(timeout: float | None = None) -> object:
        nonlocal turns
        turns += 1
        return select(timeout)

    selector.select = counting
    try:
        await asyncio.sleep(0.3)
    finally:
        del selector.select
    assert turns < 10


async def test_future_of_a_thread_is_not_awaited_in_a_loop(redis: iokernel.Endpoint) -> None:
    future = await asyncio.to_thread(redis, "BLPOP", "nothing", 1)
    with pytest.raises(RuntimeError, match="event loop"):
        await future
    assert future.result(5) is None
