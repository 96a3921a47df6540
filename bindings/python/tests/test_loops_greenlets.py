"""What blocks in a greenlet gives way to the others: gevent and eventlet, monkey-patched and not. What is shown is in
support/greenlet_program.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fixtures import or_skip
from support.greenlet_program import SCENARIOS
from support.servers import RedisServer
from support.tap import Told


@pytest.fixture(
    scope="module",
    params=[(name, how) for name in ("gevent", "eventlet") for how in ("plain", "patched")],
    ids="-".join,
)
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    with or_skip(RedisServer)() as server:
        yield Told("greenlet_program.py", *request.param, server.url)


@pytest.mark.parametrize("scenario", [one.__name__ for one in SCENARIOS])
def test_greenlets(told: Told, scenario: str) -> None:
    told.check(scenario)


def test_end(told: Told) -> None:
    assert told.code == 0, told.output
