"""Names, records, files and the program itself change who the peers are, under load and without a failed request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import iokernel
import pytest
from support import net
from support.load import Load, meanwhile, percentile, table
from support.names import Bind, renamed_into_place
from support.servers import RedisServer

TTL_S = 1
MARGIN_S = 1.0
"""Beyond the TTL: for the question, the new connection, and a machine that is busy."""

MakeServer = Callable[..., RedisServer]


@pytest.fixture
def pair(make_redis_server: MakeServer) -> Iterator[tuple[RedisServer, RedisServer]]:
    """Two servers at one port of two addresses, as a name's address alone says which is meant."""
    old = make_redis_server(host="127.0.0.2")
    new = make_redis_server(host="127.0.0.3", port=old.port)
    for name, server in (("old", old), ("new", new)):
        server.cli("SET", "who", name)
    yield old, new


@pytest.fixture
async def kernel(bind: Bind, tmp_path: Path) -> AsyncIterator[iokernel.Kernel]:
    """Asks our name server alone: its file of hosts is empty."""
    hosts = tmp_path / "hosts"
    hosts.write_text("")
    with iokernel.Kernel(name="names", resolv_conf=bind.resolv_conf, hosts=hosts) as made:
        yield made


class Asks(Load):
    """Who answers? No request may fail."""

    def __init__(self, endpoint: iokernel.Endpoint) -> None:
        super().__init__(tasks=20, pause_s=0.005)
        self._endpoint = endpoint
        self.answers: list[tuple[float, float, str]] = []

    async def turn(self, task: int) -> None:
        began = time.monotonic()
        who = await self._endpoint("GET", "who", timeout=5)
        self.answers.append((began, time.monotonic(), who.decode()))

    def last(self, who: str) -> float:
        """When the last request began that this server answered; 0 if it answered none."""
        return max((began for began, _, answered in self.answers if answered == who), default=0.0)

    def first(self, who: str) -> float:
        return min((began for began, _, answered in self.answers if answered == who), default=float("inf"))

    def since(self, when: float) -> set[str]:
        return {who for began, _, who in self.answers if began >= when}


def ours(server: RedisServer) -> int:
    """How many of our connections a server has."""
    return sum(row["name"] == "ours" for row in server.clients())


async def moved(load: Asks, changed: float, title: str, within_s: float) -> None:
    """All traffic has gone from the old server to the new one in that time after the change."""
    while load.first("new") > time.monotonic() or load.last("old") > time.monotonic() - 0.5:
        assert time.monotonic() - changed < within_s + 5, f"still served: {load.since(time.monotonic() - 0.3)}"
        await asyncio.sleep(0.01)
    took = [at - began for began, at, _ in load.answers]
    with table(title, "first of new, s", "last of old, s", "requests", "p99 ms", "longest ms") as add:
        first, last = load.first("new") - changed, load.last("old") - changed
        add([first, last, len(took), percentile(took, 0.99) * 1000, max(took) * 1000])
    assert last <= within_s


async def closed(server: RedisServer) -> None:
    """What is not needed any more was closed, once it had drained."""
    await meanwhile(net.wait_for, "the old connection's end", lambda: ours(server) == 0, 5)


# DNS


@pytest.mark.parametrize("peers", ["one", "all"])
async def test_a_name_that_changes(
    bind: Bind, kernel: iokernel.Kernel, pair: tuple[RedisServer, RedisServer], peers: str
) -> None:
    old, new = pair
    bind.set("cache", "A", [old.host], ttl=TTL_S)
    endpoint = kernel.open(
        f"redis://{bind.full('cache')}:{old.port}", peers=peers, role="any", min_ttl="1s", client_name="ours"
    )
    await endpoint.ready(5)
    async with Asks(endpoint) as load:
        await asyncio.sleep(1.5)
        assert load.since(0) == {"old"} and ours(old) == 1
        await meanwhile(bind.set, "cache", "A", [new.host], TTL_S)
        await moved(load, time.monotonic(), f"a name changes, peers={peers}", TTL_S + MARGIN_S)
        await closed(old)
        assert ours(new) == 1


async def test_a_request_under_way_is_answered_by_the_old_server(
    bind: Bind, kernel: iokernel.Kernel, pair: tuple[RedisServer, RedisServer]
) -> None:
    old, new = pair
    bind.set("cache", "A", [old.host], ttl=TTL_S)
    endpoint = kernel.open(f"redis://{bind.full('cache')}:{old.port}", min_ttl="1s", drain="10s", client_name="ours")
    await endpoint.ready(5)
    waiting = endpoint("BLPOP", "list", 20)
    await asyncio.sleep(0.2)
    bind.set("cache", "A", [new.host], ttl=TTL_S)
    deadline = time.monotonic() + 5
    while await endpoint("GET", "who") != b"new":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert not waiting.done()
    old.cli("LPUSH", "list", "at last")
    assert await asyncio.wait_for(waiting, 5) == [b"list", b"at last"]
    await closed(old)


async def test_a_name_that_is_removed_keeps_its_last_good_set(
    bind: Bind, kernel: iokernel.Kernel, pair: tuple[RedisServer, RedisServer]
) -> None:
    old, _ = pair
    bind.set("cache", "A", [old.host], ttl=TTL_S)
    endpoint = kernel.open(f"redis://{bind.full('cache')}:{old.port}", min_ttl="1s", client_name="ours")
    await endpoint.ready(5)
    async with Asks(endpoint) as load:
        await meanwhile(bind.set, "cache", "A", [], TTL_S)
        await asyncio.sleep(2 * TTL_S + MARGIN_S)
        assert load.since(0) == {"old"}
    # Nor is the set forgotten when its connections go, or when the name server goes too.
    bind.kill()
    old.cli("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await asyncio.sleep(0.05)
    assert await endpoint("GET", "who", timeout=5) == b"old"


async def test_a_server_that_is_gone_before_its_name_changes(
    bind: Bind, kernel: iokernel.Kernel, pair: tuple[RedisServer, RedisServer]
) -> None:
    """Requests wait for the name to change: they were not sent anywhere."""
    old, new = pair
    bind.set("cache", "A", [old.host], ttl=TTL_S)
    endpoint = kernel.open(f"redis://{bind.full('cache')}:{old.port}", min_ttl="1s", max_backoff="200ms")
    await endpoint.ready(5)
    old.kill()
    waiting = [endpoint("GET", "who", timeout=10) for _ in range(20)]
    await asyncio.sleep(0.3)
    bind.set("cache", "A", [new.host], ttl=TTL_S)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(answer == b"new" or isinstance(answer, iokernel.ConnectionLost) for answer in answers), answers
    assert b"new" in answers


# SRV


async def test_srv_records_with_weights_and_priorities(
    bind: Bind, kernel: iokernel.Kernel, make_redis_server: MakeServer
) -> None:
    heavy, light, reserve = (make_redis_server() for _ in range(3))
    for name, server in (("heavy", heavy), ("light", light), ("reserve", reserve)):
        server.cli("SET", "who", name)
    bind.set("here", "A", ["127.0.0.1"], ttl=TTL_S)
    records = [f"{priority} {weight} {server.port} {bind.full('here')}." for priority, weight, server in (
        (1, 30, heavy), (1, 10, light), (2, 10, reserve)
    )]  # fmt: skip
    for name in ("db", "_redis._tcp.db"):
        bind.set(name, "SRV", records, ttl=TTL_S)
    endpoint = kernel.open(f"redis+srv://{bind.full('db')}", role="any", min_ttl="1s", max_backoff="200ms")
    await endpoint.ready(5)
    await until_up(endpoint, 2)
    async with Asks(endpoint) as load:
        await asyncio.sleep(1.5)
        served = [who for _, _, who in load.answers]
        share = served.count("heavy") / len(served)
        print(f"weight 30 of 40 served {share:.0%} of {len(served)} requests")
        assert set(served) == {"heavy", "light"}
        assert 0.6 < share < 0.9
    heavy.kill()
    light.kill()
    deadline = time.monotonic() + 10
    while await ask(endpoint) != b"reserve":
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    # Those that come back are preferred again; those that are removed are not.
    light.start()
    light.cli("SET", "who", "light")
    for name in ("db", "_redis._tcp.db"):
        bind.set(name, "SRV", records[1:], ttl=TTL_S)
    while await ask(endpoint) != b"light":
        assert time.monotonic() < deadline + 10
        await asyncio.sleep(0.02)


async def ask(endpoint: iokernel.Endpoint) -> bytes | None:
    try:
        who: bytes = await endpoint("GET", "who", timeout=2)
    except iokernel.Error:
        return None
    return who


async def until_up(endpoint: iokernel.Endpoint, count: int) -> None:
    deadline = time.monotonic() + 5
    while sum(peer["state"] == "up" for peer in endpoint.state["peers"]) < count:
        assert time.monotonic() < deadline, endpoint.state["peers"]
        await asyncio.sleep(0.01)


# Files, and the program itself


async def test_a_file_renamed_into_place(pair: tuple[RedisServer, RedisServer], tmp_path: Path) -> None:
    old, new = pair
    path = tmp_path / "peers"
    renamed_into_place(path, f"{old.address}\n")
    with (
        iokernel.Kernel(name="file") as kernel,
        kernel.open(f"redis+file://{path}", role="any", client_name="ours") as endpoint,
    ):
        await endpoint.ready(5)
        async with Asks(endpoint) as load:
            await asyncio.sleep(0.5)
            renamed_into_place(path, f"# moved\n{new.address}\n")
            await moved(load, time.monotonic(), "a file is renamed into place", 2.0)
            await closed(old)
            # What cannot be read, or is gone, changes nothing.
            renamed_into_place(path, "no port\n")
            await asyncio.sleep(1.5)
            path.unlink()
            await asyncio.sleep(1.5)
            assert load.since(time.monotonic() - 3) == {"new"}


async def test_the_program_moves_traffic(pair: tuple[RedisServer, RedisServer]) -> None:
    old, new = pair
    with (
        iokernel.Kernel(name="app") as kernel,
        kernel.open("redis+app://cache", role="any", client_name="ours") as endpoint,
    ):
        early = endpoint("GET", "who", timeout=5)
        await asyncio.sleep(0.1)
        assert not early.done(), "asked before anybody was told of"
        endpoint.set_peers([old.address])
        assert await early == b"old"
        async with Asks(endpoint) as load:
            await asyncio.sleep(0.5)
            endpoint.set_peers([old.address, new.address])
            await asyncio.sleep(0.5)
            assert load.since(time.monotonic() - 0.2) == {"old", "new"}
            endpoint.set_peers([{"address": new.address, "weight": 2}])
            await moved(load, time.monotonic(), "the program tells other peers", 1.0)
            await closed(old)
