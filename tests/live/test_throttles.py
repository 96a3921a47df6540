"""Limits are kept where they count: at the server, whose arrivals and requests in hand are counted there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import iokernel
import pytest
from support.counter import Counter
from support.load import ended, percentile

MakeCounter = Callable[..., Counter]


@pytest.fixture
async def kernel() -> AsyncIterator[iokernel.Kernel]:
    with iokernel.Kernel(name="throttles") as made:
        yield made


def incr(endpoint: iokernel.Endpoint, name: str, timeout: float = 10) -> asyncio.Future[int]:
    future: asyncio.Future[int] = endpoint("INCRBY", name, 1, timeout=timeout)
    return future


@pytest.mark.parametrize("option", ["rate", "peer_rate"])
async def test_a_rate_and_its_burst_are_kept(kernel: iokernel.Kernel, make_counter: MakeCounter, option: str) -> None:
    rate, burst, seconds = 500, 100, 2.0
    server = make_counter()
    options = {option: f"{rate}/s", option.replace("rate", "burst"): burst}
    endpoint = kernel.open(server.url, **options)
    await endpoint.ready(5)
    requests = [incr(endpoint, f"id:{number}") for number in range(int(burst + rate * seconds * 1.5))]
    await asyncio.sleep(seconds + 0.2)
    arrived = server.seen().arrived
    within = [at for at in arrived if at - arrived[0] <= seconds]
    assert len(within) == pytest.approx(burst + rate * seconds, rel=0.10)
    assert len([at for at in arrived if at - arrived[0] <= 0.1]) == pytest.approx(burst + rate * 0.1, rel=0.25)
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)


@pytest.mark.parametrize("option", ["max_inflight", "peer_inflight"])
async def test_no_more_than_max_inflight_are_at_the_server(
    kernel: iokernel.Kernel, make_counter: MakeCounter, option: str
) -> None:
    server = make_counter(delay_ms=5)
    endpoint = kernel.open(server.url, **{option: 7})
    await endpoint.ready(5)
    await asyncio.gather(*(incr(endpoint, f"id:{number}") for number in range(500)))
    seen = server.seen()
    assert seen.inflight_max == 7
    assert len(seen.executed) == 500


async def test_max_inflight_is_of_the_endpoint_and_peer_inflight_of_each_peer(
    kernel: iokernel.Kernel, make_counter: MakeCounter
) -> None:
    servers = [make_counter(delay_ms=5) for _ in range(3)]
    url = "redis://" + ",".join(server.address for server in servers)
    endpoint = kernel.open(url, role="any", peer_inflight=4, max_inflight=9)
    await endpoint.ready(5)
    most = 0
    requests = [incr(endpoint, f"id:{number}") for number in range(600)]
    while not all(request.done() for request in requests):
        most = max(most, endpoint.state["inflight"])
        await asyncio.sleep(0.002)
    await asyncio.gather(*requests)
    assert 0 < most <= 9
    each = [server.seen().inflight_max for server in servers]
    assert max(each) <= 4, each
    assert sum(len(server.seen().executed) for server in servers) == 600


async def test_overload_is_refused_at_once(kernel: iokernel.Kernel, make_counter: MakeCounter) -> None:
    server = make_counter(delay_ms=2000)
    endpoint = kernel.open(server.url, max_inflight=5, max_queue=10)
    await endpoint.ready(5)
    accepted = [incr(endpoint, f"id:{number}") for number in range(5)]
    await asyncio.sleep(0.1)
    accepted += [incr(endpoint, f"id:{number}") for number in range(5, 15)]
    await asyncio.sleep(0.1)
    took: list[float] = []
    for number in range(200):
        began = time.perf_counter()
        with pytest.raises(iokernel.Overloaded) as caught:
            await incr(endpoint, f"over:{number}")
        took.append(time.perf_counter() - began)
        assert caught.value.fate == "not_sent"
    assert percentile(took, 0.5) < 0.001
    assert endpoint.state["queued"] == 10
    assert await asyncio.gather(*accepted) == [1] * 15
    assert not [name for name in server.seen().executed if name.startswith("over")]


async def test_deadlines_count_in_the_queue(kernel: iokernel.Kernel, make_counter: MakeCounter) -> None:
    server = make_counter(delay_ms=1000)
    endpoint = kernel.open(server.url, max_inflight=1)
    await endpoint.ready(5)
    first = incr(endpoint, "first")
    began = time.monotonic()
    late = await ended(incr_late(endpoint, number) for number in range(50))
    took = time.monotonic() - began
    assert all(isinstance(each, iokernel.Timeout) and each.fate == "not_sent" for each in late), late[:3]
    assert 0.2 <= took < 0.9
    assert await first == 1
    assert set(server.seen().executed) == {"first"}


async def incr_late(endpoint: iokernel.Endpoint, number: int) -> int:
    return await incr(endpoint, f"late:{number}", timeout=0.2)


async def test_deadlines_count_while_a_rate_holds_back(kernel: iokernel.Kernel, make_counter: MakeCounter) -> None:
    server = make_counter()
    endpoint = kernel.open(server.url, rate="10/s", burst=1)
    await endpoint.ready(5)
    outcomes = await ended(incr_late(endpoint, number) for number in range(50))
    errors = [each for each in outcomes if isinstance(each, BaseException)]
    assert len(outcomes) - len(errors) in (2, 3, 4), "one at once, one each 100 ms"
    assert all(isinstance(each, iokernel.Timeout) and each.fate == "not_sent" for each in errors)
    assert len(server.seen().executed) == len(outcomes) - len(errors)


async def test_an_adaptive_limit_follows_a_server_that_slows_down(
    kernel: iokernel.Kernel, make_counter: MakeCounter
) -> None:
    server = make_counter(delay_ms=2)
    endpoint = kernel.open(server.url, adaptive=True, max_inflight=400)
    await endpoint.ready(5)
    over = False

    async def ask(task: int) -> None:
        turn = 0
        while not over:
            await incr(endpoint, f"id:{task}:{turn}", timeout=30)
            turn += 1

    async def inflight(seconds: float) -> float:
        seen = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            seen.append(endpoint.state["inflight"])
            await asyncio.sleep(0.01)
        return percentile(seen, 0.5)

    tasks = [asyncio.create_task(ask(task)) for task in range(400)]
    await asyncio.sleep(1.5)
    quick = await inflight(0.5)
    await asyncio.to_thread(server.slow, 60)
    await asyncio.sleep(2.0)
    slow = await inflight(0.7)
    await asyncio.to_thread(server.slow, 2)
    over = True
    await asyncio.wait_for(asyncio.gather(*tasks), 60)
    print(f"in flight: {quick} while the server took 2 ms, {slow} while it took 60 ms")
    assert slow < quick * 0.7
