"""requests and urllib3 with their own sockets against the same over the kernel: the same outcome, the same requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import iokernel.compat.requests
import iokernel.compat.urllib3
import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from support.http_answers import Outcome, answers, compare, seen
from support.http_script import HttpScript
from support.requests_scenarios import SCENARIOS, Kit, Place, hole, tried
from support.tunnels import Tunnels

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


@dataclass
class Scene:
    place: Place
    server: HttpScript
    other: HttpScript

    def play(self, name: str, kit: Kit) -> Outcome:
        self.server.answers(answers(self.other.address))
        self.server.forget()
        self.other.forget()
        result = tried(lambda: SCENARIOS[name](kit, self.place))
        return Outcome(result, (*seen(self.server.asked()), "and elsewhere", *seen(self.other.asked())))


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        other = stack.enter_context(HttpScript())
        server = stack.enter_context(HttpScript())
        tunnels = stack.enter_context(Tunnels())
        url, held = hole()
        for one in held:
            stack.callback(one.close)
        yield Scene(Place(server.url, other.url, "http://127.0.0.1:1", url, tunnels.address), server, other)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def theirs() -> Kit:
    return Kit(requests.Session, HTTPAdapter, urllib3.PoolManager, urllib3.ProxyManager)


def ours() -> Kit:
    compat = iokernel.compat
    return Kit(
        compat.requests.Session, compat.requests.Adapter, compat.urllib3.PoolManager, compat.urllib3.ProxyManager
    )


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_outcome(name: str, scene: Scene) -> None:
    expected, got = scene.play(name, theirs()), scene.play(name, ours())
    compare(name, expected, got, DIFFERS)
