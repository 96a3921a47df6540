"""What endpoints of many peers add: routes, telling the peers, watching, readiness."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import iokernel
import pytest
from iokernel import _records
from iokernel._channel import COMPLETION_BYTES, Completion
from iokernel._kernel import option_text
from support.servers import RedisServer

Make = Callable[..., RedisServer]


@pytest.fixture
def kernel() -> Iterator[iokernel.Kernel]:
    """One of this test's own, so that nobody else's endpoints are in its state."""
    with iokernel.Kernel(name="peers") as made:
        yield made


def states(watch: iokernel.Watch, wanted: str, timeout: float = 10) -> list[dict[str, Any]]:
    """What a watch says until the state `wanted`."""
    seen: list[dict[str, Any]] = []
    while not seen or seen[-1]["state"] != wanted:
        seen.append(watch.get(timeout))
    return seen


# Routes


def test_a_route_is_64_bits_that_are_the_same_everywhere() -> None:
    assert _records.route_key(7) == 7
    assert _records.route_key(-1) == 2**64 - 1
    assert _records.route_key(2**64 + 5) == 5
    assert _records.route_key(0) == 2**64 - 1, "0 would mean no key"
    assert _records.route_key("user:1") == _records.route_key(b"user:1") == 0x121A0CA4DD7A7BD4
    assert _records.route_key("") != 0
    with pytest.raises(iokernel.BadRequest, match="route"):
        _records.route_key(1.5)  # type: ignore[arg-type]


def test_requests_of_a_route_go_to_one_peer(kernel: iokernel.Kernel, make_redis_server: Make) -> None:
    servers = [make_redis_server() for _ in range(3)]
    names = [server.address for server in servers]
    with kernel.open("redis://" + ",".join(names), role="any", balance="hash") as endpoint:
        endpoint.wait_ready(5)
        while {peer["state"] for peer in endpoint.state["peers"]} != {"up"}:
            time.sleep(0.01)
        for index, server in enumerate(servers):
            server.cli("SET", "who", index)
        homes = {route: endpoint.call("GET", "who", route=route) for route in range(64)}
        assert set(homes.values()) == {b"0", b"1", b"2"}
        for route, home in homes.items():
            assert endpoint.call("GET", "who", route=route) == home
            assert endpoint("GET", "who", route=route).result(5) == home
            with endpoint.lease(timeout=5, route=route) as lease:
                assert lease.call("GET", "who") == home

        async def in_a_loop() -> None:
            for route, home in homes.items():
                assert await endpoint("GET", "who", route=route) == home

        asyncio.run(in_a_loop())


def test_a_lease_takes_no_route(redis: iokernel.Endpoint) -> None:
    with redis.lease() as lease, pytest.raises(iokernel.BadRequest, match="lease"):
        lease.call("PING", route=1)


# Telling the peers


def test_the_program_tells_the_peers(kernel: iokernel.Kernel, make_redis_server: Make) -> None:
    old, new = make_redis_server(), make_redis_server()
    with kernel.open("redis+app://cache", role="any") as endpoint:
        endpoint.set_peers([old.address])
        endpoint.wait_ready(5)
        assert endpoint.call("CONFIG", "GET", "port")[b"port"] == b"%d" % old.port
        endpoint.set_peers([{"address": new.address, "weight": 10, "priority": 1}])
        deadline = time.monotonic() + 5
        while endpoint.call("CONFIG", "GET", "port")[b"port"] != b"%d" % new.port:
            assert time.monotonic() < deadline
        while [peer["name"] for peer in endpoint.state["peers"]] != [new.address]:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("wrong", [["no port"], ["a:0"], [{"weight": 1}], [7], [{"address": "a:1", "role": "king"}]])
def test_peers_that_are_none_change_nothing(kernel: iokernel.Kernel, make_redis_server: Make, wrong: list[Any]) -> None:
    server = make_redis_server()
    with kernel.open("redis+app://cache", role="any") as endpoint:
        endpoint.set_peers([server.address])
        endpoint.wait_ready(5)
        with pytest.raises(iokernel.BadRequest):
            endpoint.set_peers(wrong)
        assert endpoint.call("PING") == "PONG"


def test_peers_are_a_list(redis: iokernel.Endpoint) -> None:
    with pytest.raises(iokernel.BadRequest, match="list of peers"):
        redis.set_peers("127.0.0.1:6379")
    with pytest.raises(iokernel.BadRequest):
        redis.set_peers([object()])  # type: ignore[list-item]


def test_peers_that_are_found_cannot_be_told(redis: iokernel.Endpoint, url: str) -> None:
    with pytest.raises(iokernel.BadRequest):
        redis.set_peers(["127.0.0.1:1"])
    assert redis.call("PING") == "PONG"


# Watching


def test_watch_sees_a_server_go_and_come(kernel: iokernel.Kernel, redis_server: RedisServer) -> None:
    with kernel.open(redis_server.url, max_backoff="200ms") as endpoint, endpoint.watch() as watch:
        assert states(watch, "up")[-1]["peers"][0]["name"] == redis_server.address
        redis_server.kill()
        gone = next(state for state in watch if state["state"] != "up")
        assert gone["version"] >= 0 and gone["last_error"]
        redis_server.start()
        states(watch, "up")
        assert watch.lost == 0
    assert watch.closed


async def test_watch_in_a_loop(kernel: iokernel.Kernel, redis_server: RedisServer) -> None:
    endpoint = kernel.open(redis_server.url)
    async with endpoint.watch() as watch:
        async for state in watch:
            if state["state"] == "up":
                break
        assert await endpoint("PING") == "PONG"
    endpoint.close()


def test_a_watch_keeps_the_newest(kernel: iokernel.Kernel, make_redis_server: Make) -> None:
    server = make_redis_server()
    with kernel.open("redis+app://cache", role="any") as endpoint, endpoint.watch(buffer=2) as watch:
        for _ in range(5):
            endpoint.set_peers([server.address])
            endpoint.wait_ready(5)
            endpoint.set_peers([])
        endpoint.set_peers([server.address])
        endpoint.wait_ready(5)
        time.sleep(0.1)
        latest = [watch.get(5)]
        while True:
            try:
                latest.append(watch.get(0.05))
            except iokernel.Timeout:
                break
        assert watch.lost > 0
        assert latest[-1]["state"] == "up"


def test_closing_the_endpoint_ends_the_watch(kernel: iokernel.Kernel, redis_server: RedisServer) -> None:
    endpoint = kernel.open(redis_server.url)
    watch = endpoint.watch()
    watch.get(5)
    endpoint.close()
    with pytest.raises(iokernel.Closed):
        while True:
            watch.get(5)


# Readiness


def test_kernel_state(kernel: iokernel.Kernel, redis_server: RedisServer) -> None:
    assert kernel.state["ready"] is True
    endpoint = kernel.open(redis_server.url, require=True)
    kernel.wait_ready(5)
    state = kernel.state
    assert state["ready"] is True and state["missing"] == []
    [shown] = state["endpoints"]
    assert (shown["endpoint"], shown["state"], shown["required"]) == (endpoint.number, "up", True)


def test_what_is_required_and_missing(kernel: iokernel.Kernel, free_port: int) -> None:
    kernel.open(f"redis://127.0.0.1:{free_port}?require=true")
    kernel.open("redis://127.0.0.1:1")
    with pytest.raises(iokernel.Unavailable):
        kernel.wait_ready(0.1)
    state = kernel.state
    assert state["ready"] is False
    assert len(state["missing"]) == 1 and str(free_port) in state["missing"][0]

    async def in_a_loop() -> None:
        with pytest.raises(iokernel.Unavailable):
            await kernel.ready(0.1)

    asyncio.run(in_a_loop())


def test_wait_ready_waits(kernel: iokernel.Kernel, redis_server: RedisServer) -> None:
    redis_server.stop()
    kernel.open(redis_server.url, require=True, max_backoff="100ms")
    later = threading.Timer(0.3, redis_server.start)
    later.start()
    kernel.wait_ready(10)
    assert kernel.state["ready"] is True
    later.join()


def test_watch_of_a_kernel(kernel: iokernel.Kernel, redis_server: RedisServer) -> None:
    with kernel.watch() as watch:
        assert watch.get(5)["endpoints"] == []
        kernel.open(redis_server.url, require=True)
        while not (state := watch.get(5))["endpoints"] or not state["ready"]:
            pass
        assert state["endpoints"][0]["state"] == "up"


# Ticks and options


class Heard:
    """A sink, and a listener, that should hear nothing."""

    def __init__(self) -> None:
        self.heard: list[Completion] = []

    def completion(self, done: Completion) -> None:
        self.heard.append(done)


def test_ticks_are_passed_over(kernel: iokernel.Kernel) -> None:
    channel = kernel.thread_channel()
    tick = _records.COMPLETION.pack(COMPLETION_BYTES, _records.KIND_TICK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    tick += bytes(COMPLETION_BYTES - len(tick))
    channel.listener = heard = Heard()
    channel._parts.append(b"a fragment whose rest comes after the tick")
    channel._rest = tick * 3
    channel._dispatch()
    assert heard.heard == [] and len(channel._parts) == 1 and channel._rest == b""
    channel._parts.clear()
    channel.listener = None


def test_a_program_that_polls_keeps_its_lease(kernel: iokernel.Kernel, redis_server: RedisServer) -> None:
    """With `max_app_silence`, ticks come; taking them is enough."""

    async def idle() -> None:
        endpoint = kernel.open(redis_server.url, max_app_silence="400ms")
        async with endpoint.lease(timeout=5) as lease:
            assert await lease("WATCH", "key") == "OK"
            await asyncio.sleep(1.5)
            assert await lease("MULTI") == "OK"
            assert await lease("EXEC") == []
        endpoint.close()

    asyncio.run(idle())


def test_options() -> None:
    assert option_text("require", True) == "true"
    assert option_text("pool", 2) == "2"
    assert option_text("drain", timedelta(seconds=1.5)) == "1500ms"
    assert option_text("retry_budget", "20%") == "20%"
    with pytest.raises(iokernel.ConfigError, match="timedelta"):
        option_text("drain", 1.5)


def test_an_option_of_many_peers(kernel: iokernel.Kernel, url: str) -> None:
    options = {"pool": 2, "balance": "least", "rate": "1000/s", "burst": 100, "peer_inflight": 50, "adaptive": True}
    with kernel.open(url, drain=timedelta(seconds=2), retry_budget="20%", **options) as endpoint:
        assert endpoint.call("PING") == "PONG"
