"""What a program can see of its services, and what the I/O thread does when the program does nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import Any

import iokernel
import pytest
from support.load import meanwhile
from support.net import wait_for
from support.program import Program
from support.sentinels import SentinelSet, leads
from support.servers import RedisServer

MakeServer = Callable[..., RedisServer]
State = dict[str, Any]


@pytest.fixture
async def kernel() -> AsyncIterator[iokernel.Kernel]:
    with iokernel.Kernel(name="state") as made:
        yield made


class Watcher:
    """Takes what a watch tells, and waits for what is expected of it."""

    def __init__(self, watch: iokernel.Watch) -> None:
        self._watch = watch
        self.seen: list[State] = []

    async def until(self, what: str, wanted: Callable[[State], bool], timeout: float = 15) -> State:
        end = time.monotonic() + timeout
        while True:
            left = end - time.monotonic()
            try:
                state: State = await asyncio.wait_for(anext(self._watch), max(left, 0.001))
            except TimeoutError:
                shown = [(each["state"], roles(each)) for each in self.seen[-10:]]
                raise AssertionError(f"{what}: not told within {timeout} s, but {shown}") from None
            self.seen.append(state)
            if wanted(state):
                return state

    def states(self) -> list[str]:
        """The states one after another, each once."""
        told = [state["state"] for state in self.seen]
        return [state for at, state in enumerate(told) if at == 0 or told[at - 1] != state]


def is_state(name: str) -> Callable[[State], bool]:
    return lambda state: bool(state["state"] == name)


def roles(state: State) -> dict[str, str]:
    return {peer["name"]: peer["role"] for peer in state["peers"]}


def grows(versions: Iterable[int]) -> bool:
    listed = list(versions)
    return listed == sorted(listed)


# watch()


async def test_a_watch_tells_every_state(kernel: iokernel.Kernel, make_redis_server: MakeServer) -> None:
    servers = [make_redis_server(), make_redis_server()]
    for server in servers:
        server.stop()
    names = [server.address for server in servers]
    endpoint = kernel.open("redis://" + ",".join(names), role="any", backoff="20ms", max_backoff="100ms")
    async with endpoint.watch() as watch:
        told = Watcher(watch)
        first = await told.until("a first state", lambda _: True)
        assert first["state"] in ("connecting", "down") and first["url"].startswith("redis://")
        assert sorted(peer["name"] for peer in first["peers"]) in ([], sorted(names))
        await meanwhile(servers[0].start)
        await meanwhile(servers[1].start)
        up = await told.until("up", lambda state: state["state"] == "up" and up_count(state) == 2)
        assert {peer["name"] for peer in up["peers"]} == set(names)
        assert all(peer["conns"] >= 1 and peer["weight"] >= 0 for peer in up["peers"])
        servers[0].kill()
        degraded = await told.until("degraded", is_state("degraded"))
        [gone] = [peer for peer in degraded["peers"] if peer["state"] != "up"]
        assert gone["name"] == servers[0].address and gone["last_error"]
        servers[1].kill()
        down = await told.until("down", is_state("down"))
        assert down["last_error"]
        for server in servers:
            await meanwhile(server.start)
        await told.until("up again", lambda state: state["state"] == "up" and up_count(state) == 2)
        assert grows(state["version"] for state in told.seen)
        shown = told.states()
        shown = shown[shown.index("up") :]
        assert shown.index("degraded") < shown.index("down") and shown[-1] == "up", shown
        assert await endpoint("PING") == "PONG"
        assert endpoint.state["state"] == "up"
        assert sum(peer["requests"] for peer in endpoint.state["peers"]) >= 1


def up_count(state: State) -> int:
    return sum(peer["state"] == "up" for peer in state["peers"])


async def test_a_watch_tells_who_is_primary(sentinel_set: SentinelSet, kernel: iokernel.Kernel) -> None:
    servers = sentinel_set
    endpoint = kernel.open(servers.url)
    async with endpoint.watch() as watch:
        told = Watcher(watch)
        old = await meanwhile(servers.primary)
        await told.until("the primary", lambda state: roles(state).get(old.address) == "primary")
        old.kill()

        def another(state: State) -> bool:
            return any(role == "primary" for name, role in roles(state).items() if name != old.address)

        now = await told.until("another primary", another)
        [name] = [name for name, role in roles(now).items() if role == "primary" and name != old.address]
        await meanwhile(wait_for, "its own word", partial(leads, servers.node(name)))
        await told.until("up", lambda state: state["state"] in ("up", "degraded"))
        await meanwhile(servers.settle)
        assert await endpoint("SET", "key", 1) == "OK"


# require=true


async def test_what_is_required_makes_the_kernel_ready(kernel: iokernel.Kernel, make_redis_server: MakeServer) -> None:
    one, other, spare = make_redis_server(), make_redis_server(), make_redis_server()
    other.stop()
    spare.stop()
    first = kernel.open(one.url, require=True)
    second = kernel.open(other.url, require=True, max_backoff="100ms")
    kernel.open(spare.url)
    await first.ready(5)
    with pytest.raises(iokernel.Unavailable):
        await kernel.ready(0.2)
    state = kernel.state
    assert state["ready"] is False
    assert len(state["missing"]) == 1 and other.address in state["missing"][0]
    shown = {each["endpoint"]: each for each in state["endpoints"]}
    assert shown[first.number]["state"] == "up" and shown[first.number]["required"] is True
    assert sum(each["required"] for each in shown.values()) == 2
    assert second.state["required"] is True

    waiting = asyncio.ensure_future(kernel.ready(10))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await meanwhile(other.start)
    await waiting
    assert kernel.state["ready"] is True and kernel.state["missing"] == []
    other.kill()
    end = time.monotonic() + 5
    while kernel.state["ready"]:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def test_readiness_in_threads(make_redis_server: MakeServer) -> None:
    server = make_redis_server()
    server.stop()
    with iokernel.Kernel(name="threads") as kernel:
        kernel.open(server.url, require=True, max_backoff="100ms")
        with pytest.raises(iokernel.Unavailable):
            kernel.wait_ready(0.2)
        later = threading.Timer(0.3, server.start)
        later.start()
        kernel.wait_ready(10)
        later.join()
        assert kernel.state["ready"] is True


# max_app_silence

STALLED = """
import asyncio, json, sys, time
import iokernel

def tell(**what):
    print(json.dumps(what), flush=True)

async def main(url):
    endpoint = iokernel.open(url, max_app_silence="500ms", heartbeat="100ms", client_name="stalled")
    await endpoint.ready(5)
    lease = await endpoint.lease(timeout=5)
    await lease("WATCH", "key")
    await asyncio.sleep(1.5)
    await lease("GET", "key")
    tell(ready=True)
    await asyncio.to_thread(sys.stdin.readline)
    time.sleep(3)  # The loop stands still: nothing is polled.
    tell(stalled=True)
    outcome = "held"
    try:
        await lease("GET", "key")
    except iokernel.Error as error:
        outcome = error.status_name
    again = await endpoint("PING", timeout=5)
    async with endpoint.lease(timeout=5) as fresh:
        await fresh("WATCH", "key")
        await asyncio.sleep(1.5)
        held = await fresh("GET", "key")
    tell(lease=outcome, again=again, held=held is None)
    await asyncio.to_thread(sys.stdin.readline)

asyncio.run(main(sys.argv[1]))
"""


def test_a_program_that_stops_polling_loses_its_leases(redis_server: RedisServer) -> None:
    """Its heartbeats stop too, so that those who watch it by them notice. It comes back by itself."""

    def idle() -> list[int]:
        return [int(row["idle"]) for row in redis_server.clients() if row["name"] == "stalled"]

    with Program(STALLED, redis_server.url) as program:
        assert program.hear() == {"ready": True}
        # While the program polls, heartbeats go out, and the lease is held though it is not used.
        assert len(idle()) == 2
        program.go_on()
        time.sleep(2.5)
        silent = idle()
        assert len(silent) == 1, "the lease's connection is not closed"
        assert silent[0] >= 1, "heartbeats go on though the program is stuck"
        assert program.hear() == {"stalled": True}
        told = program.hear()
        assert told.pop("lease") != "held"
        assert told == {"again": "PONG", "held": True}
        wait_for("heartbeats", lambda: set(idle()) == {0}, 5)
        program.go_on()


def test_a_program_in_threads_is_silent_only_when_it_takes_nothing(redis_server: RedisServer) -> None:
    with iokernel.Kernel(name="threads") as kernel:
        endpoint = kernel.open(redis_server.url, max_app_silence="400ms")
        with endpoint.lease(timeout=5) as lease:
            for _ in range(10):
                time.sleep(0.15)
                assert lease.call("PING") == "PONG"
