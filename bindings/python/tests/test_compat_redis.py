"""redis-py with its own sockets against redis-py over the kernel: every command, the same outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from iokernel.compat.redis import ConnectionPool
from iokernel.compat.redis import asyncio as compat_asyncio
from support.redis_py import Recorder, Scenario, differences, play, play_async
from support.redis_py_calls import DATA
from support.redis_py_server_calls import SERVER
from support.servers import RedisServer

SCENARIOS = DATA + SERVER
# Seen with several threads, forks or a server of one's own in the other tests, or not about commands at all.
ELSEWHERE = {
    "client": "test_compat_redis_client",
    "monitor": "test_compat_redis_client",
    "pubsub": "test_compat_redis_pubsub",
    "quit": "test_compat_redis_client",
    "reset": "test_compat_redis_client",
}
NOT_COVERED = {
    # No commands: the client's own parts.
    "close": "of the client",
    "execute_command": "used by all",
    "from_pool": "of the client",
    "from_url": "of the client",
    "get_cache": "of the client; caching is refused",
    "get_connection_kwargs": "of the client",
    "get_encoder": "of the client",
    "get_retry": "of the client",
    "load_external_module": "of the client",
    "parse_response": "used by all",
    "set_retry": "of the client",
    "keyspace_notifications": "pub/sub with names of its own",
    # Would end or break the server.
    "debug_segfault": "kills the server",
    "psync": "turns the connection into a replica's; refused",
    "sync": "turns the connection into a replica's; refused",
    # Internals of himport_*.
    "himport_discard_all_internal": "internal",
    "himport_discard_internal": "internal",
    "himport_prepare_internal": "internal",
    # Need Sentinel, which is out of scope.
    **{name: "Sentinel" for name in dir(redis.Redis) if name.startswith("sentinel_") and name != "sentinel_masters"},
    # Modules, which the server under test does not have.
    **dict.fromkeys(["bf", "cf", "cms", "ft", "json", "tdigest", "topk", "ts", "vset"], "module"),
    # Options whose types the server under test does not have.
    **dict.fromkeys(["argrep", "arop"], "needs enumerations of a newer server"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(options=["--databases", "16"]) as server:
        yield server


def fresh(server: RedisServer) -> None:
    for command in ("FLUSHALL", "SCRIPT FLUSH", "FUNCTION FLUSH", "CONFIG RESETSTAT", "ACL LOG RESET", "SLOWLOG RESET"):
        server.cli(*command.split())


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_threads_get_the_same(
    server: RedisServer, scenario: Callable[[Recorder], Scenario], protocol: int, decode: bool
) -> None:
    options: dict[str, Any] = {"protocol": protocol, "decode_responses": decode}
    fresh(server)
    with redis.Redis(connection_pool=redis.ConnectionPool.from_url(server.url, **options)) as client:
        plain = play(client, scenario)
        client.connection_pool.disconnect()
    fresh(server)
    with ConnectionPool.from_url(server.url, **options) as pool:
        ours = play(redis.Redis(connection_pool=pool), scenario)
    found = differences(plain, ours)
    assert not found, f"{len(found)} of {len(plain)} calls differ:\n" + "\n".join(found)


@pytest.mark.parametrize("decode", [False, True], ids=["bytes", "text"])
@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_asyncio_gets_the_same(
    server: RedisServer, scenario: Callable[[Recorder], Scenario], protocol: int, decode: bool
) -> None:
    options: dict[str, Any] = {"protocol": protocol, "decode_responses": decode}
    fresh(server)
    theirs = redis.asyncio.ConnectionPool.from_url(server.url, **options)
    plain = await play_async(redis.asyncio.Redis(connection_pool=theirs), scenario)
    await theirs.disconnect()
    fresh(server)
    async with compat_asyncio.ConnectionPool.from_url(server.url, **options) as pool:
        ours = await play_async(redis.asyncio.Redis(connection_pool=pool), scenario)
    found = differences(plain, ours)
    assert not found, f"{len(found)} of {len(plain)} calls differ:\n" + "\n".join(found)


def test_every_method_of_redis_py_is_tried() -> None:
    tried: set[str] = set(ELSEWHERE)

    class Dry:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            raise RuntimeError

    for scenario in SCENARIOS:
        tried |= {outcome.call.name for outcome in play(Dry(), scenario)}
    methods = {name for name in dir(redis.Redis) if not name.startswith("_") and callable(getattr(redis.Redis, name))}
    assert methods - tried == set(NOT_COVERED) & methods - tried, "not tried"
    assert not set(NOT_COVERED) & tried - {"execute_command"}, "tried, though said not to be"
