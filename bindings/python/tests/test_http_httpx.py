"""httpx with its own sockets against httpx over the kernel, in threads and in loops: the same outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import iokernel.compat.httpx
import pytest
from support.http_answers import Outcome, answers, compare, seen
from support.http_script import HttpScript
from support.httpx_scenarios import SCENARIOS, play, play_async
from support.requests_scenarios import Place, hole
from support.tunnels import Tunnels

# Where we differ on purpose, and why.
DIFFERS = {
    "get /both-framings": "a response with two framings may have been smuggled (RFC 9112, 6.3)",
    "get /many-heads": "a response has at most 256 header fields",
    "bodies_of_another_length": "httpx lets an exception of h11 through to the program",
}


@dataclass
class Scene:
    place: Place
    server: HttpScript
    other: HttpScript

    def begin(self) -> None:
        self.server.answers(answers(self.other.address))
        self.server.forget()
        self.other.forget()

    def outcome(self, result: Any) -> Outcome:
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


def their_client(retries: int = 0, **options: Any) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(retries=retries) if retries else None, **options)


def our_client(retries: int = 0, **options: Any) -> httpx.Client:
    transport = iokernel.compat.httpx.Transport(retries=retries) if retries else None
    return iokernel.compat.httpx.Client(transport=transport, **options)


def their_async_client(retries: int = 0, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(retries=retries) if retries else None, **options)


def our_async_client(retries: int = 0, **options: Any) -> httpx.AsyncClient:
    transport = iokernel.compat.httpx.AsyncTransport(retries=retries) if retries else None
    return iokernel.compat.httpx.AsyncClient(transport=transport, **options)


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_same_outcome_in_a_thread(name: str, scene: Scene) -> None:
    outcomes = []
    for make in (their_client, our_client):
        scene.begin()
        with make() as client:
            outcomes.append(scene.outcome(play(SCENARIOS[name](scene.place), client, make)))
    compare(name, *outcomes, DIFFERS)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_same_outcome_in_a_loop(name: str, scene: Scene) -> None:
    outcomes = []
    for make in (their_async_client, our_async_client):
        scene.begin()
        async with make() as client:
            outcomes.append(scene.outcome(await play_async(SCENARIOS[name](scene.place), client, make)))
    compare(name, *outcomes, DIFFERS)
