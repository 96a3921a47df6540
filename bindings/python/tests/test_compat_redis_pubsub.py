"""redis-py's pub/sub over the kernel, against redis-py's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from iokernel.compat.redis import ConnectionPool
from iokernel.compat.redis import asyncio as compat_asyncio
from support import net
from support.servers import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(users={"poor": "on >p ~* +@all resetchannels &open"}) as server:
        yield server


QUIET_S = 0.15


def messages(pubsub: Any, **options: Any) -> list[Any]:
    """All that is there, and that comes before it is quiet for a while."""
    found = []
    until = time.monotonic() + QUIET_S
    while time.monotonic() < until:
        message = pubsub.get_message(timeout=QUIET_S, **options)
        if message is not None:
            found.append(message)
            until = time.monotonic() + QUIET_S
    return found


def session(client: redis.Redis) -> list[Any]:
    """One conversation, with all that it gave."""
    pubsub = client.pubsub()
    seen: list[Any] = [pubsub.get_message()]
    pubsub.subscribe("a", "b", "a")
    seen += messages(pubsub)
    pubsub.psubscribe("a*", **{"h*": print})
    pubsub.ssubscribe("shard")
    seen += messages(pubsub)
    for channel in ("a", "b", "ab", "none"):
        seen.append(client.publish(channel, f"to {channel}"))
        seen += messages(pubsub)
    client.spublish("shard", b"\x01")
    seen += messages(pubsub)
    pubsub.unsubscribe("a", "unknown")
    client.publish("a", "gone")
    seen += messages(pubsub)
    pubsub.ping()
    seen += messages(pubsub)
    pubsub.ping("words")
    seen += messages(pubsub)
    pubsub.subscribe("a")
    pubsub.unsubscribe("b")
    seen += messages(pubsub)
    pubsub.punsubscribe("h*")
    pubsub.unsubscribe()
    pubsub.sunsubscribe()
    pubsub.punsubscribe()
    seen += messages(pubsub)
    seen += [pubsub.subscribed, pubsub.get_message(timeout=0.01)]
    pubsub.subscribe("again")
    seen += messages(pubsub, ignore_subscribe_messages=True)
    pubsub.close()
    return seen


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_session_is_the_same(server: RedisServer, protocol: int, decode: bool) -> None:
    options: dict[str, Any] = {"protocol": protocol, "decode_responses": decode}
    with redis.ConnectionPool.from_url(server.url, **options) as plain:
        expected = session(redis.Redis(connection_pool=plain))
    with ConnectionPool.from_url(server.url, **options) as pool:
        assert session(redis.Redis(connection_pool=pool)) == expected


@pytest.mark.parametrize("protocol", [2, 3])
def test_many_subscribers_share_one_connection(server: RedisServer, protocol: int) -> None:
    with ConnectionPool.from_url(server.url, protocol=protocol) as pool:
        r = redis.Redis(connection_pool=pool)
        subscribers = [r.pubsub(ignore_subscribe_messages=True) for _ in range(20)]
        for number, pubsub in enumerate(subscribers):
            pubsub.subscribe("all", f"own:{number}")
        assert len(server.clients()) == (2 if protocol == 2 else 1)
        for round_ in range(50):
            r.publish("all", round_)
        for pubsub in subscribers:
            assert [message["data"] for message in messages(pubsub)] == [str(n).encode() for n in range(50)]
            pubsub.close()


def test_a_thread_runs_the_handlers(server: RedisServer) -> None:
    with ConnectionPool.from_url(server.url) as pool:
        r = redis.Redis(connection_pool=pool)
        got: list[Any] = []
        enough = threading.Event()

        def handle(message: Any) -> None:
            got.append(message["data"])
            if len(got) == 3:
                enough.set()

        pubsub = r.pubsub()
        pubsub.subscribe(first=handle)
        thread = pubsub.run_in_thread(sleep_time=0.5, daemon=True)
        r.publish("first", 1)
        began = time.monotonic()
        pubsub.subscribe(second=handle)
        r.publish("second", 2)
        r.publish("first", 3)
        assert enough.wait(10)
        assert time.monotonic() - began < 5
        assert sorted(got) == [b"1", b"2", b"3"]
        thread.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_listen_in_another_thread_ends_with_close(server: RedisServer) -> None:
    with ConnectionPool.from_url(server.url) as pool:
        r = redis.Redis(connection_pool=pool)
        pubsub = r.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe("news")
        got: list[Any] = []
        ended: list[BaseException | None] = []

        def listen() -> None:
            try:
                for message in pubsub.listen():
                    got.append(message["data"])
                ended.append(None)
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=listen)
        thread.start()
        r.publish("news", "one")
        net.wait_for("the message", lambda: got == [b"one"])
        pubsub.close()
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("protocol", [2, 3])
def test_messages_survive_a_reconnect(protocol: int) -> None:
    with RedisServer() as server, ConnectionPool.from_url(server.url, protocol=protocol) as pool:
        r = redis.Redis(connection_pool=pool)
        pubsub = r.pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe("news")
        r.publish("news", "before")
        assert [message["data"] for message in messages(pubsub)] == [b"before"]
        server.kill()
        server.start()
        net.wait_for("the subscription", lambda: server.cli("PUBSUB", "NUMSUB", "news")[1] == 1)
        server.cli("PUBLISH", "news", "after")
        assert [message["data"] for message in messages(pubsub)] == [b"after"]
        pubsub.close()


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_refused_subscription_is_an_error(server: RedisServer, protocol: int) -> None:
    where: dict[str, Any] = {"host": "127.0.0.1", "port": server.port, "username": "poor", "password": "p"}
    outcomes = []
    for kind in (redis.ConnectionPool, ConnectionPool):
        with kind(**where, protocol=protocol) as pool:
            pubsub = redis.Redis(connection_pool=pool).pubsub()
            pubsub.subscribe("open", "secret")
            with pytest.raises(redis.exceptions.NoPermissionError) as raised:
                pubsub.get_message(timeout=5)
            outcomes.append((raised.value.args, pubsub.get_message(timeout=0.05)))
            pubsub.close()
    assert outcomes[0] == outcomes[1]


async def messages_async(pubsub: Any) -> list[Any]:
    found = []
    until = time.monotonic() + QUIET_S
    while time.monotonic() < until:
        message = await pubsub.get_message(timeout=QUIET_S)
        if message is not None:
            found.append(message)
            until = time.monotonic() + QUIET_S
    return found


async def session_async(client: Any) -> list[Any]:
    pubsub = client.pubsub()
    seen: list[Any] = []
    await pubsub.subscribe("a", "b")
    await pubsub.psubscribe("a*")
    seen += await messages_async(pubsub)
    for channel in ("a", "b", "ab", "none"):
        seen.append(await client.publish(channel, f"to {channel}"))
        seen += await messages_async(pubsub)
    await pubsub.unsubscribe("a", "unknown")
    seen += await messages_async(pubsub)
    await pubsub.ping()
    seen += await messages_async(pubsub)
    await pubsub.unsubscribe()
    await pubsub.punsubscribe()
    seen += await messages_async(pubsub)
    await pubsub.aclose()
    return seen


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_an_asyncio_session_is_the_same(server: RedisServer, protocol: int, decode: bool) -> None:
    options: dict[str, Any] = {"protocol": protocol, "decode_responses": decode}
    async with redis.asyncio.ConnectionPool.from_url(server.url, **options) as plain:
        expected = await session_async(redis.asyncio.Redis(connection_pool=plain))
    async with compat_asyncio.ConnectionPool.from_url(server.url, **options) as pool:
        assert await session_async(redis.asyncio.Redis(connection_pool=pool)) == expected
