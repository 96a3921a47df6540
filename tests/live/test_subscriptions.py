"""Subscriptions outlive the failover of the node that they were made at; test_cluster.py has those of clusters."""

from __future__ import annotations

import asyncio
import time

import iokernel
import pytest
from support.load import meanwhile
from support.net import wait_for
from support.sentinels import SentinelSet


async def next_after(stream: iokernel.Subscription, servers: SentinelSet, text: str) -> list[object]:
    """Publishes at whoever is primary, on a connection of our own, until the stream gives this text."""
    waiting = asyncio.ensure_future(anext(stream))
    deadline = time.monotonic() + 20
    while True:
        if waiting.done():
            message = waiting.result()
            assert isinstance(message, list)
            if message[2] == text.encode():
                return message
            waiting = asyncio.ensure_future(anext(stream))
        assert time.monotonic() < deadline, f"{text} was not heard"
        primary = await meanwhile(servers.primary)
        await meanwhile(primary.cli, "PUBLISH", "news", text)
        await asyncio.wait([waiting], timeout=0.05)


@pytest.mark.parametrize("how", ["planned", "kill"])
async def test_a_subscription_goes_on_at_the_new_primary(sentinel_set: SentinelSet, how: str) -> None:
    servers = sentinel_set
    with iokernel.Kernel(name="topics") as kernel, kernel.open(servers.url) as endpoint:
        await endpoint.ready(10)
        async with endpoint.subscribe("SUBSCRIBE", "news") as news:
            assert await next_after(news, servers, "before") == ["message", b"news", b"before"]
            old = await meanwhile(servers.primary)
            if how == "kill":
                old.kill()
            else:
                await meanwhile(servers.fail_over)
            await meanwhile(wait_for, "another primary", lambda: servers.primary() is not old, 20)
            assert await next_after(news, servers, "after") == ["message", b"news", b"after"]
            assert news.reconnects == 1
            new = await meanwhile(servers.primary)
            # Nobody listens at the old node any more, when it is a replica: it would hear everything twice.
            await meanwhile(servers.settle)
            assert (await meanwhile(new.cli, "PUBSUB", "NUMSUB", "news"))[1] == 1
            assert (await meanwhile(old.cli, "PUBSUB", "NUMSUB", "news"))[1] == 0
