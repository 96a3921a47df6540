"""requests and urllib3 with their own sockets against the same over the kernel: the same outcome, the same requests."""

from __future__ import annotations

from collections.abc import Iterator

import iokernel.compat.requests
import iokernel.compat.urllib3
import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from support import differential
from support.differential import Scene
from support.http_answers import compare
from support.requests_scenarios import SCENARIOS, Kit, tried

# Where we differ on purpose, and why.
DIFFERS = {
    f"{how} {path}": why
    for how in ("get", "stream")
    for path, why in {
        "/103": "http.client takes an interim response for the final one (RFC 9110, 15.2)",
        "/cut-head": "http.client takes half of a head for the whole (RFC 9112, 8)",
        "/two-lengths": "what is malformed ends the connection; urllib3 lets the header through to requests",
        "/both-framings": "a response with two framings may have been smuggled (RFC 9112, 6.3)",
        "/bad-length": "a length of -2 is none (RFC 9112, 6.3)",
        "/no-colon": "http.client passes over what is no header field (RFC 9112, 5.1)",
    }.items()
}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with differential.scene() as made:
        yield made


def theirs() -> Kit:
    return Kit(requests.Session, HTTPAdapter, urllib3.PoolManager, urllib3.ProxyManager)


def ours() -> Kit:
    compat = iokernel.compat
    return Kit(
        compat.requests.Session, compat.requests.Adapter, compat.urllib3.PoolManager, compat.urllib3.ProxyManager
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_outcome(name: str, scene: Scene) -> None:
    outcomes = []
    for kit in (theirs(), ours()):
        scene.begin()
        outcomes.append(scene.outcome(tried(lambda: SCENARIOS[name](kit, scene.place))))  # noqa: B023
    compare(name, *outcomes, DIFFERS)
