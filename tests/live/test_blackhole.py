"""One of three peers falls into a black hole: no reset, no answer. Who is not there costs only what was on its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import iokernel
import pytest
from support.load import Failed, Load, meanwhile, percentile, summary, table, untyped
from support.namespace import Namespace
from support.servers import RedisServer

HEARTBEAT_S, SILENCE_S = 0.3, 0.5
MARGIN_S = 0.5
"""For a machine that is busy with other things."""


class Pings(Load):
    """Requests that any peer may serve; each says which did."""

    def __init__(self, endpoint: iokernel.Endpoint) -> None:
        super().__init__(tasks=30, pause_s=0.01)
        self._endpoint = endpoint
        self.served: list[tuple[float, float, bytes]] = []
        self.failed: list[Failed] = []

    async def turn(self, task: int) -> None:
        began = time.monotonic()
        try:
            who = await self._endpoint("GET", "who", timeout=5)
        except Exception as error:
            self.failed.append(Failed(task, began, time.monotonic(), error))
        else:
            self.served.append((began, time.monotonic(), who))

    def times(self, since: float, until: float) -> list[float]:
        """Of the requests that began in that time."""
        return [at - began for began, at, _ in self.served if since <= began < until]


def states(endpoint: iokernel.Endpoint) -> dict[str, str]:
    return {peer["name"]: peer["state"] for peer in endpoint.state["peers"]}


@pytest.mark.timeout(60)
async def test_a_peer_in_a_black_hole(namespace: Namespace, make_redis_server: Callable[..., RedisServer]) -> None:
    far = make_redis_server(host=namespace.host, run_in=namespace.run_in)
    servers = [make_redis_server(), make_redis_server(), far]
    for number, server in enumerate(servers):
        server.cli("SET", "who", number)
    url = "redis://" + ",".join(server.address for server in servers)
    options = {"heartbeat": "300ms", "max_silence": "500ms", "connect_timeout": "1s", "max_backoff": "500ms"}
    with iokernel.Kernel(name="blackhole") as kernel, kernel.open(url, role="any", **options) as endpoint:
        await endpoint.ready(10)
        while set(states(endpoint).values()) != {"up"}:
            await asyncio.sleep(0.01)
        async with Pings(endpoint) as load:
            await asyncio.sleep(1.0)
            began = load.served[0][0]
            assert {who for _, _, who in load.served} == {b"0", b"1", b"2"}
            assert not load.failed
            cut = time.monotonic()
            await meanwhile(namespace.cut)
            while states(endpoint)[far.address] == "up":
                assert time.monotonic() - cut < 10
                await asyncio.sleep(0.005)
            noticed = time.monotonic()
            await asyncio.sleep(1.5)
            gone = time.monotonic()
            assert endpoint.state["state"] == "degraded"
            await meanwhile(namespace.mend)
            while states(endpoint)[far.address] != "up":
                assert time.monotonic() - gone < 20
                await asyncio.sleep(0.005)
            back = time.monotonic()
            await asyncio.sleep(0.5)
        spans = {"before": (began, cut), "unnoticed": (cut, noticed), "noticed": (noticed, gone)}
        with table("one of three peers in a black hole, ms", "when", "served", "p50", "p99") as add:
            for name, (since, until) in spans.items():
                times = load.times(since, until)
                add([name, len(times), percentile(times, 0.5) * 1000, percentile(times, 0.99) * 1000])
        errors = [each.error for each in load.failed]
        print(f"noticed after {noticed - cut:.3f} s, back after {back - gone:.3f} s; failed: {summary(errors)}")

        assert noticed - cut <= HEARTBEAT_S + SILENCE_S + MARGIN_S
        assert not untyped(errors)
        # Only what was given to that peer before it was noticed, and a task can have one request under way there.
        assert all(cut - 1 <= each.began <= noticed for each in load.failed), summary(errors)
        assert {getattr(error, "fate", "") for error in errors} <= {"maybe_executed"}
        assert len(load.failed) <= 30
        # Those that remain serve as before: what is given to them waits for nobody.
        near = [at - began for began, at, who in load.served if who != b"2" and cut <= began < gone]
        assert percentile(near, 0.5) < max(0.02, 5 * percentile(load.times(began, cut), 0.5))
        assert not [who for since, _, who in load.served if who == b"2" and noticed <= since < gone]
        assert [who for since, _, who in load.served if who == b"2" and since >= back]
