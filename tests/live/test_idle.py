"""A server hangs up at the very moment at which requests leave: each says what became of it, none is made twice."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import iokernel
import pytest
from support.counter import Counter
from support.load import not_executed, summary, table, untyped

IDLE_MS = 20
JITTER_MS = 1
ENDPOINTS = 40
REQUESTS = 10_000


@pytest.mark.timeout(120)
async def test_requests_that_meet_the_server_hanging_up(make_counter: Callable[..., Counter]) -> None:
    server = make_counter(idle_ms=IDLE_MS, jitter_ms=JITTER_MS)
    outcomes: dict[str, BaseException | int] = {}

    async def ask(endpoint: iokernel.Endpoint, number: int) -> None:
        # The first is late by chance, so that not all endpoints ask at once.
        await asyncio.sleep(random.random() * IDLE_MS / 1000)
        for turn in range(REQUESTS // ENDPOINTS):
            name, began = f"id:{number}:{turn}", time.monotonic()
            try:
                outcomes[name] = await endpoint("INCRBY", name, 1, timeout=5)
            except Exception as error:
                outcomes[name] = error
            due = began + (IDLE_MS + random.uniform(-1.5, 1.5)) / 1000
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    with iokernel.Kernel(name="idle") as kernel:
        endpoints = [kernel.open(f"{server.url}/{number}", backoff="1ms") for number in range(ENDPOINTS)]
        await asyncio.gather(*(endpoint.ready(10) for endpoint in endpoints))
        await asyncio.gather(*(ask(endpoint, number) for number, endpoint in enumerate(endpoints)))
    seen = server.seen()

    errors = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, BaseException)}
    columns = "requests", "hung up", "errors", "of those executed", "which"
    with table(f"requests at an idle timeout of {IDLE_MS} ms", *columns) as add:
        executed = sum(name in seen.executed for name in errors)
        add([len(outcomes), seen.hung_up, len(errors), executed, summary(errors.values())])
    assert len(outcomes) == REQUESTS
    assert seen.hung_up > REQUESTS / 20, "the server hardly ever hung up: nothing was tried"
    assert not untyped(errors.values()), untyped(errors.values())[:3]
    assert all(isinstance(error, (iokernel.ConnectionLost, iokernel.Unavailable)) for error in errors.values())
    twice = [name for name, count in seen.executed.items() if count > 1]
    assert not twice, twice[:5]
    never = [name for name, error in errors.items() if not_executed(error)]
    assert not [name for name in never if name in seen.executed], "said not to be sent, and was executed"
    done = [name for name, outcome in outcomes.items() if outcome == 1]
    assert all(seen.executed.get(name) == 1 for name in done)
    assert len(done) + len(errors) == REQUESTS
