"""Requests are awaited in every loop: asyncio, uvloop, Tornado, trio, anyio, Twisted. Each framework runs in a process
of its own, against a server of its own; what is shown there is in support/loop_scenarios.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fixtures import or_skip
from support.loop_program import BETWEEN, FRAMEWORKS
from support.loop_scenarios import SCENARIOS
from support.servers import RedisServer
from support.tap import Told


@pytest.fixture(scope="module", params=list(FRAMEWORKS))
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    with or_skip(RedisServer)() as server:
        yield Told("loop_program.py", request.param, server.url, options=("-W", "error"))


@pytest.mark.parametrize("scenario", [*SCENARIOS, *BETWEEN])
def test_loop(told: Told, scenario: str) -> None:
    told.check(scenario)


def test_end(told: Told) -> None:
    told.check_end()
