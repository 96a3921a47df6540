"""POSTs that leave in the very moment in which the server closes the connection: each fails with its fate or is
answered, none is sent twice."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import iokernel
import iokernel.http
from support.http_script import HttpScript

POSTS = 10_000 if os.environ.get("IOKERNEL_SOAK") else 1_500
TASKS = 25
IDLE_MS = 8


async def test_no_post_is_sent_twice() -> None:
    outcomes: Counter[str] = Counter()
    lost: list[int] = []
    with HttpScript(idle_ms=IDLE_MS) as server, iokernel.http.open(server.url, pool=TASKS) as api:

        async def work(first: int) -> None:
            for number in range(first, POSTS, TASKS):
                try:
                    reply = await api.post(f"/{number}", body=b"x", timeout=30)
                except iokernel.ConnectionLost as error:
                    outcomes[str(error.fate)] += 1
                    lost.append(number)
                else:
                    assert reply.status == 200
                    outcomes["answered"] += 1
                # The reply took some of the time after which the server leaves.
                await asyncio.sleep((IDLE_MS - 1 + number % 20 / 10) / 1000)

        await asyncio.gather(*(work(first) for first in range(TASKS)))
        seen = Counter(int(asked.target[1:]) for asked in server.asked())
        conns = server.conns()
    assert sum(outcomes.values()) == POSTS
    assert set(outcomes) <= {"answered", "maybe_executed"}, "what was not sent is sent again by itself"
    assert max(seen.values()) == 1, "a POST was executed twice"
    assert set(range(POSTS)) - set(seen) <= set(lost), "a POST was answered that nobody has seen"
    assert conns > TASKS, "the server never left: nothing was tried"
