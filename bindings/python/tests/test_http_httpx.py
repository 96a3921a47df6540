"""httpx with its own sockets against httpx over the kernel, in threads and in loops: the same outcomes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import iokernel.compat.httpx
import pytest
from support import differential
from support.differential import Scene
from support.http_answers import compare
from support.httpx_scenarios import SCENARIOS, play, play_async

# Where we differ on purpose, and why.
DIFFERS = {
    "get /both-framings": "a response with two framings may have been smuggled (RFC 9112, 6.3)",
    "get /many-heads": "a response has at most 256 header fields",
    "bodies_of_another_length": "httpx lets an exception of h11 through to the program",
}


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with differential.scene() as made:
        yield made


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
