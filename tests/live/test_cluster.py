"""A cluster whose slots move and whose primaries change, under load: no wrong answer, no lost count, no flood."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import iokernel
import pytest
from support.cluster import Cluster, commands_served
from support.load import Counts, meanwhile, percentile, summary, table, untyped
from support.net import wait_for
from support.sentinels import leads
from support.servers import RedisServer

SOAK = bool(os.environ.get("IOKERNEL_SOAK"))
KEYS = [f"key{number}" for number in range(300)]
SLOTS_MOVED = 150 if SOAK else 50
REDIRECTS_MAX = 0.05
"""Redirects for each request, while slots move: one for each slot that moved and each request under way would do."""


@pytest.fixture
async def kernel() -> AsyncIterator[iokernel.Kernel]:
    with iokernel.Kernel(name="cluster") as made:
        yield made


@pytest.fixture
async def endpoint(cluster: Cluster, kernel: iokernel.Kernel) -> AsyncIterator[iokernel.Endpoint]:
    with kernel.open(cluster.url, client_name="ours") as opened:
        await opened.ready(10)
        yield opened


@asynccontextmanager
async def counting(cluster: Cluster, endpoint: iokernel.Endpoint, title: str) -> AsyncIterator[Counts]:
    """Load, its figures and what must hold of it."""
    before = await meanwhile(cluster.redirects)
    with table(title, "requests", "answers", "p99 ms", "MOVED", "ASK", "errors") as add:
        async with Counts(endpoint, KEYS) as load:
            yield load
        after = await meanwhile(cluster.redirects)
        # A node that was started anew counts from 0.
        redirects = {code: max(0, after[code] - before[code]) for code in after}
        errors = [each.error for each in load.failed]
        p99 = percentile(load.times, 0.99) * 1000
        add([load.requests, load.answers, p99, redirects["MOVED"], redirects["ASK"], summary(errors)])
    assert load.answers > 1000
    assert not load.wrong, load.wrong[:5]
    assert not untyped(errors), untyped(errors)[:3]
    assert sum(redirects.values()) <= 100 + REDIRECTS_MAX * load.requests


def keys_of(cluster: Cluster, node: RedisServer) -> list[str]:
    """The keys of the load of which a primary holds the counter or the value."""
    slots = next(known.slots for known in cluster.known() if known.address == node.address)
    with cluster.nodes[0].conn() as conn:
        return [key for key in KEYS if {conn("CLUSTER", "KEYSLOT", f"{kind}:{key}") for kind in "cv"} & slots]


# Under load


async def test_slots_move_back_and_forth(cluster: Cluster, endpoint: iokernel.Endpoint) -> None:
    async with counting(cluster, endpoint, "slots on the move") as load:
        a, b, _ = await meanwhile(cluster.primaries)
        # Slots in which keys of the load lie.
        slots = [await meanwhile(cluster.slot, f"c:{key}") for key in keys_of(cluster, a)][:SLOTS_MOVED]
        for _ in range(3 if SOAK else 2):
            await meanwhile(cluster.move, slots, b)
            await meanwhile(cluster.move, slots, a)
        await asyncio.sleep(0.5)
    # Without doubt there is nothing to forgive: nobody was killed here.
    assert not load.failed, summary(each.error for each in load.failed)
    await meanwhile(cluster.settle)


async def test_planned_failovers(cluster: Cluster, endpoint: iokernel.Endpoint) -> None:
    async with counting(cluster, endpoint, "CLUSTER FAILOVER"):
        for _ in range(6 if SOAK else 3):
            primary = random.choice(await meanwhile(cluster.primaries))
            await meanwhile(cluster.fail_over, await meanwhile(cluster.replica_of, primary))
            await asyncio.sleep(0.3)
            await meanwhile(cluster.settle)


async def test_killed_primaries(cluster: Cluster, endpoint: iokernel.Endpoint) -> None:
    async with counting(cluster, endpoint, "kill -9 of a primary") as load:
        for _ in range(5 if SOAK else 1):
            primary = random.choice(await meanwhile(cluster.primaries))
            replica = await meanwhile(cluster.replica_of, primary)
            load.may_lose(await meanwhile(keys_of, cluster, primary))
            primary.kill()
            await meanwhile(wait_for, "a promotion", partial(leads, replica), 15)
            answers = load.answers
            await asyncio.sleep(1)
            assert load.answers > answers
            await meanwhile(cluster.settle)


async def test_slots_move_while_primaries_change(cluster: Cluster, endpoint: iokernel.Endpoint) -> None:
    async with counting(cluster, endpoint, "slots on the move, and CLUSTER FAILOVER"):
        for _ in range(4 if SOAK else 2):
            a, b, _ = await meanwhile(cluster.primaries)
            slots = [await meanwhile(cluster.slot, f"c:{key}") for key in keys_of(cluster, a)][:20]
            await meanwhile(cluster.move, slots, b)
            await meanwhile(cluster.fail_over, await meanwhile(cluster.replica_of, b))
            await meanwhile(cluster.settle)


# What a cluster can and cannot do


async def test_keys_of_one_tag_are_in_one_slot(endpoint: iokernel.Endpoint) -> None:
    assert await endpoint("MSET", "{user:1}name", "ada", "{user:1}age", 36) == "OK"
    assert await endpoint("MGET", "{user:1}name", "{user:1}age") == [b"ada", b"36"]
    replies = await endpoint(["MULTI"], ["INCR", "{user:1}age"], ["GET", "{user:1}age"], ["EXEC"])
    assert replies[-1] == [37, b"37"]


async def test_keys_of_two_slots_are_refused(cluster: Cluster, endpoint: iokernel.Endpoint) -> None:
    assert cluster.slot("a") != cluster.slot("b")
    for request in (["MGET", "a", "b"], [["MULTI"], ["SET", "a", 1], ["SET", "b", 1], ["EXEC"]]):
        with pytest.raises(iokernel.BadRequest) as caught:
            await endpoint(*request)
        assert caught.value.code == "CROSSSLOT"
        assert caught.value.fate == "not_sent"
    assert await endpoint("MGET", "{a}1", "{a}2") == [None, None]


async def test_what_would_concern_every_node_is_refused(endpoint: iokernel.Endpoint) -> None:
    for request in (["KEYS", "*"], ["DBSIZE"], ["FLUSHALL"], ["SCAN", 0]):
        with pytest.raises(iokernel.BadRequest) as caught:
            await endpoint(*request)
        assert caught.value.code == "FANOUT", request
        assert caught.value.fate == "not_sent"


async def test_replicas_are_read(cluster: Cluster, kernel: iokernel.Kernel, endpoint: iokernel.Endpoint) -> None:
    for key in KEYS:
        assert await endpoint("SET", key, key) == "OK"
    before = {node.port: gets(node) for node in cluster.nodes}
    with kernel.open(cluster.url, role="replica") as replica:
        await replica.ready(10)
        for key in KEYS:
            deadline = asyncio.get_running_loop().time() + 5
            while await replica("GET", key) != key.encode():
                assert asyncio.get_running_loop().time() < deadline
    # A write ends at its primary, though the URL names a replica alone.
    one = cluster.replica_of(cluster.primaries()[0])
    with kernel.open(f"redis+cluster://{one.address}", role="replica", timeout="5s") as replica:
        for key in KEYS[:8]:
            assert await replica("SET", key, key) == "OK"
    primaries = {node.port for node in cluster.primaries()}
    served = {port: gets(cluster.node(f"127.0.0.1:{port}")) - count for port, count in before.items()}
    assert all(served[port] == 0 for port in primaries), served
    assert all(served[port] for port in served if port not in primaries), served


def gets(node: RedisServer) -> int:
    return int(commands_served(node).get("get", {"calls": 0})["calls"])


# Topics


async def heard(
    stream: iokernel.Subscription, publish: Callable[[str], Awaitable[object]], timeout: float = 20
) -> object:
    """Publishes until something comes: what is said while a subscription is being restored is lost."""
    waiting = asyncio.ensure_future(anext(stream))
    deadline = asyncio.get_running_loop().time() + timeout
    number = 0
    while not waiting.done():
        assert asyncio.get_running_loop().time() < deadline, "nothing was heard"
        try:
            await publish(f"said {number}")
        except iokernel.Error:
            await asyncio.sleep(0.05)
        number += 1
        await asyncio.wait([waiting], timeout=0.05)
    return waiting.result()


@pytest.mark.parametrize("how", ["planned", "kill"])
async def test_topics_are_restored_after_a_failover(cluster: Cluster, endpoint: iokernel.Endpoint, how: str) -> None:
    """Ordinary topics go anywhere; sharded ones live with their slot."""
    owner = await meanwhile(lambda: cluster.owner(cluster.slot("sharded")))
    async with (
        endpoint.subscribe("SUBSCRIBE", "plain") as plain,
        endpoint.subscribe("SSUBSCRIBE", "sharded") as sharded,
    ):
        assert await heard(plain, lambda text: endpoint("PUBLISH", "plain", text)) == ["message", b"plain", b"said 0"]
        first = await heard(sharded, lambda text: endpoint("SPUBLISH", "sharded", text))
        assert first == ["smessage", b"sharded", b"said 0"]
        replica = await meanwhile(cluster.replica_of, owner)
        if how == "planned":
            await meanwhile(cluster.fail_over, replica)
        else:
            owner.kill()
            await meanwhile(wait_for, "a promotion", partial(leads, replica), 15)
        again = await heard(sharded, lambda text: endpoint("SPUBLISH", "sharded", text))
        assert isinstance(again, list) and again[:2] == ["smessage", b"sharded"]
        again = await heard(plain, lambda text: endpoint("PUBLISH", "plain", text))
        assert isinstance(again, list) and again[:2] == ["message", b"plain"]
    await meanwhile(cluster.settle)
