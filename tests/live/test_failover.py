"""Writes and reads go on through every kind of failover, and nothing that was acknowledged afterwards is lost."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable
from functools import partial

import iokernel
import pytest
from support.load import Reads, Writes, meanwhile, not_executed, present, summary, table, untyped
from support.net import wait_for
from support.observer import POLL_MS, Observer
from support.sentinels import SentinelSet, role
from support.servers import RedisServer

ROUNDS = 20 if os.environ.get("IOKERNEL_SOAK") else 6
WAYS = ("kill", "stop", "planned")

FIRST_WRITE_S = 2.0
"""How soon after a promotion writes must go on."""

ON_ITS_WAY_S = 0.050
"""What an answer that the old primary gave in time may take through sockets, ring and event loop until it is stamped
here, plus what our own observer is late (`POLL_MS`), on a machine that is busy with other things. An old primary that
is still written to is so for far longer: until it is stopped, or made a replica."""

assert ON_ITS_WAY_S > POLL_MS / 1000


@pytest.fixture
async def kernel() -> AsyncIterator[iokernel.Kernel]:
    with iokernel.Kernel(name="failover") as made:
        yield made


class Round:
    """One failover under load: what was acknowledged from where on, and is it there at the end?"""

    def __init__(self, writes: Writes, nodes: list[RedisServer]) -> None:
        self._writes = writes
        self._nodes = nodes
        self._acked, self._failed = len(writes.acked), len(writes.failed)
        self.began = time.monotonic()

    def check(self, primary: RedisServer, since: float) -> tuple[int, int, str]:
        """`since`: from when on nothing may be lost. Gives writes acknowledged from then on, errors, and which."""
        acked = [ack.number for ack in self._writes.acked[self._acked :] if ack.at > since]
        failed = self._writes.failed[self._failed :]
        lost = set(acked) - present(primary.address, acked)
        assert not lost, f"{len(lost)} of {len(acked)} acknowledged writes went to a demoted node: {sorted(lost)[:5]}"
        errors = [each.error for each in failed]
        assert not untyped(errors), untyped(errors)[:3]
        never = [each.number for each in failed if not_executed(each.error)]
        for node in self._nodes:
            assert not present(node.address, never), f"{node.address} holds writes that were said not to be sent"
        return len(acked), len(failed), summary(errors)


def begin(how: str, servers: SentinelSet, primary: RedisServer) -> None:
    match how:
        case "kill":
            primary.kill()
        case "stop":
            primary.pause()
        case "planned":
            servers.fail_over()


@pytest.mark.timeout(400 if ROUNDS > 6 else 120)
async def test_writes_survive_every_kind_of_failover(sentinel_set: SentinelSet, kernel: iokernel.Kernel) -> None:
    servers = sentinel_set
    endpoint, replica = kernel.open(servers.url), kernel.open(servers.url, role="replica")
    await endpoint.ready(10)
    await replica.ready(10)
    columns = "round", "way", "promoted", "told", "first write", "acked after", "failed", "errors"
    with (
        Observer(servers.addresses, [each.address for each in servers.sentinels]) as observer,
        table("failover by sentinel, seconds after it began; the first write after the promotion", *columns) as add,
    ):
        async with Writes(endpoint) as writes, Reads(replica, writes) as reads:
            for number in range(ROUNDS):
                how = WAYS[number % len(WAYS)]
                primary = await meanwhile(servers.primary)
                this = Round(writes, servers.nodes)
                await meanwhile(begin, how, servers, primary)
                promoted, node = await meanwhile(observer.promotion, this.began, primary.address)
                told = await meanwhile(observer.told, this.began, node)
                # Until a sentinel tells of a planned one, the old primary is not demoted, and nobody can know.
                known = max(promoted, told) if how == "planned" else promoted
                first = await meanwhile(writes.first_after, known)
                if how == "stop":
                    primary.cont()  # It believes to be primary still, and its sockets are full of what was asked of it.
                await meanwhile(servers.settle)
                now = await meanwhile(servers.primary)
                acked, failed, errors = await meanwhile(this.check, now, known + ON_ITS_WAY_S)
                add([number, how, promoted - this.began, told - this.began, first - known, acked, failed, errors])
                assert now.address == node
                assert first - known <= FIRST_WRITE_S
                assert acked
    assert not reads.wrong
    assert reads.found
    assert not untyped(each.error for each in reads.failed), summary(each.error for each in reads.failed)
    print(f"reads of a replica: {reads.found} found, {reads.missing} not there yet, {len(reads.failed)} failed")


@pytest.mark.timeout(120)
async def test_a_list_of_peers_finds_who_was_promoted(
    make_redis_server: Callable[..., RedisServer], kernel: iokernel.Kernel
) -> None:
    """`FAILOVER TO` loses nothing at all: the old primary waits for the new one, then refuses writes.

    There are no sentinels here: they would take a promotion that is not theirs for a fault, and undo it.
    """
    head = make_redis_server()
    nodes = [head, *(make_redis_server(options=["--replicaof", head.host, str(head.port)]) for _ in range(2))]
    await meanwhile(wait_for, "replicas", partial(in_step, head))
    endpoint = kernel.open("redis://" + ",".join(node.address for node in nodes))
    replica = kernel.open("redis://" + ",".join(node.address for node in nodes), role="replica")
    await endpoint.ready(10)
    await replica.ready(10)
    columns = "round", "promoted", "first write", "acked", "failed", "errors"
    with (
        Observer([node.address for node in nodes]) as observer,
        table("FAILOVER TO among a list of peers, seconds", *columns) as add,
    ):
        async with Writes(endpoint) as writes, Reads(replica, writes) as reads:
            for number in range(ROUNDS // 2):
                primary, target = nodes[number % 3], nodes[(number + 1) % 3]
                this = Round(writes, nodes)
                await meanwhile(primary.cli, "FAILOVER", "TO", target.host, target.port, "TIMEOUT", 5000)
                promoted, node = await meanwhile(observer.promotion, this.began, primary.address)
                assert node == target.address
                first = await meanwhile(writes.first_after, promoted)
                # FAILOVER tells the two of them alone; the third goes on following the old primary.
                third = nodes[(number + 2) % 3]
                await meanwhile(third.cli, "REPLICAOF", target.host, target.port)
                await meanwhile(wait_for, "replicas", partial(in_step, target), 20)
                acked, failed, errors = await meanwhile(this.check, target, this.began)
                add([number, promoted - this.began, first - promoted, acked, failed, errors])
                assert first - promoted <= FIRST_WRITE_S
    assert not reads.wrong
    assert reads.found
    assert not untyped(each.error for each in reads.failed)


def in_step(primary: RedisServer) -> bool:
    said = role(primary)
    return said[0] == "master" and len(said[2]) == 2
