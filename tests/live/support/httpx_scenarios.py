"""What users of httpx do, written down once: run with and without the kernel, in threads and in loops.

A scenario is a generator. It yields what a client does and is sent what came of it: a value, or `failure`'s name of
what was raised.
"""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from .http_answers import BIG, failure
from .requests_scenarios import PLAIN, Place


@dataclass(frozen=True)
class Do:
    """One request. `take`: how many bytes of its body are read, in pieces (None: all, -1: as it is on the wire)."""

    method: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)
    take: int | None = None
    stream: bool = False
    new: dict[str, Any] | None = None
    """Options of a client of its own."""


Scenario = Callable[[Place], Generator[Do, Any, Any]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(play: Scenario) -> Scenario:
    SCENARIOS[play.__name__] = play
    return play


def do(method: str, url: str, **options: Any) -> Do:
    return Do(method, url, options)


def shown(reply: httpx.Response) -> Any:
    return {
        "status": reply.status_code,
        "reason": reply.reason_phrase,
        "headers": [(name.lower(), value) for name, value in reply.headers.multi_items()],
        "body": reply.content,
        "text": reply.text,
        "history": [one.status_code for one in reply.history],
        "version": reply.http_version,
        "path": reply.url.path,
        "wire": reply.num_bytes_downloaded,
    }


def play(scenario: Generator[Do, Any, Any], client: httpx.Client, make: Callable[..., httpx.Client]) -> Any:
    """In a thread."""
    value = None
    try:
        while True:
            step = scenario.send(value)
            try:
                if step.new is not None:
                    with make(**step.new) as own:
                        value = _one(own, step)
                else:
                    value = _one(client, step)
            except Exception as error:
                value = failure(error)
    except StopIteration as end:
        return end.value


def _one(client: httpx.Client, step: Do) -> Any:
    if not step.stream:
        return shown(client.request(step.method, step.url, **step.options))
    with client.stream(step.method, step.url, **step.options) as reply:
        if step.take == -1:
            return b"".join(reply.iter_raw())
        if step.take is None:
            return [reply.status_code, list(reply.iter_lines())]
        return next(reply.iter_bytes(step.take))


async def play_async(
    scenario: Generator[Do, Any, Any], client: httpx.AsyncClient, make: Callable[..., httpx.AsyncClient]
) -> Any:
    """In a loop."""
    value = None
    try:
        while True:
            step = scenario.send(value)
            try:
                if step.new is not None:
                    async with make(**step.new) as own:
                        value = await _one_async(own, step)
                else:
                    value = await _one_async(client, step)
            except Exception as error:
                value = failure(error)
    except StopIteration as end:
        return end.value


async def _one_async(client: httpx.AsyncClient, step: Do) -> Any:
    options = dict(step.options)
    if isinstance(options.get("content"), Pieces):
        options["content"] = options["content"].again()
    if not step.stream:
        return shown(await client.request(step.method, step.url, **options))
    async with client.stream(step.method, step.url, **options) as reply:
        if step.take == -1:
            return b"".join([piece async for piece in reply.aiter_raw()])
        if step.take is None:
            return [reply.status_code, [line async for line in reply.aiter_lines()]]
        return await anext(reply.aiter_bytes(step.take))


class Pieces:
    """A body in pieces, for both kinds of client."""

    def __init__(self, *pieces: bytes, then: Exception | None = None) -> None:
        self._pieces, self._then = pieces, then

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if self._then is not None:
            raise self._then

    async def again(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._then is not None:
            raise self._then


def get(*paths: str, **options: Any) -> Scenario:
    """GETs one after another, each on the conn that the one before has left."""

    def run(place: Place) -> Generator[Do, Any, Any]:
        out = []
        for path in paths:
            out.append((yield do("GET", place.url + path, **options)))
        return out

    return run


for path in PLAIN:
    SCENARIOS[f"get {path}"] = get(path, "/hi", follow_redirects=True)


@scenario
def methods(place: Place) -> Generator[Do, Any, Any]:
    out = []
    for method in ("GET", "HEAD", "OPTIONS", "DELETE", "PUT", "POST", "PATCH", "PURGE"):
        reply = yield do(method, place.url + "/echo")
        out.append((reply["status"], len(reply["body"]) > 0))
    for path in ("/big", "/chunked", "/302"):
        out.append((yield do("HEAD", place.url + path)))
    out.append((yield do("GET", place.url + "/hi")))
    return out


@scenario
def targets(place: Place) -> Generator[Do, Any, Any]:
    yield do("GET", place.url + "/ünï/cödé?q=ä b&c=%20")
    yield do("GET", place.url + "/a b/%7Euser/..;x", params={"q": ["1", "ü"], "e": ""})
    yield do("GET", place.url)
    yield do("GET", place.url + "?only=query#fragment")


@scenario
def headers(place: Place) -> Generator[Do, Any, Any]:
    echo = place.url + "/echo"
    yield do("GET", echo, headers=[("x-Case", "As It Is"), ("X-Twice", "1"), ("X-Twice", "2"), ("User-Agent", "me")])
    yield do("GET", echo, headers={"Host": "elsewhere.test", "Connection": "close"})
    yield do("GET", echo, headers={"X-Bytes": b"\xff", "Accept-Encoding": "identity"})
    yield do("POST", echo, headers={"Content-Type": "a/b", "Content-Length": "3"}, content=b"abc")
    out = []
    for bad in ({"X-A": "a\r\nY: b"}, {"X\nB": "a"}, {"": "x"}):
        out.append((yield do("GET", echo, headers=bad)))
    return out


@scenario
def bodies(place: Place) -> Generator[Do, Any, Any]:
    echo = place.url + "/echo"
    for body in (
        {"data": {"a": ["1", "ü"], "b": "x y"}},
        {"content": b"bytes"},
        {"content": "täxt"},
        {"content": b""},
        {"json": {"a": [1, None, "ü"]}},
        {"files": {"f": ("näme.txt", io.BytesIO(b"\x00\xff"), "a/b"), "g": b"text"}, "data": {"field": "value"}},
        {"content": Pieces(b"one", b"", b"two")},
        {"content": Pieces()},
        {"content": Pieces(b"sized", b"."), "headers": {"Content-Length": "6"}},
    ):
        yield do("POST", echo, **body)
    yield do("POST", echo)
    return [
        (yield do("POST", echo, content=Pieces(b"begun", then=RuntimeError("the program's own")))),
    ]


@scenario
def bodies_of_another_length(place: Place) -> Generator[Do, Any, Any]:
    return [
        (yield do("POST", place.url + "/echo", content=Pieces(b"too much"), headers={"Content-Length": "3"})),
        (yield do("POST", place.url + "/echo", content=Pieces(b"12"), headers={"Content-Length": "3"})),
    ]


@scenario
def big_both_ways(place: Place) -> Generator[Do, Any, Any]:
    parts = [BIG[at : at + 7777] for at in range(0, len(BIG), 7777)]
    first = yield do("POST", place.url + "/echo", content=Pieces(*parts))
    second = yield do("POST", place.url + "/big", content=BIG)
    return first["status"], second["body"] == BIG


@scenario
def redirects(place: Place) -> Generator[Do, Any, Any]:
    out = []
    for status in (301, 302, 303, 307, 308):
        out.append((yield do("POST", f"{place.url}/{status}", data={"a": "b"}, follow_redirects=True)))
    out.append((yield do("GET", place.url + "/302")))
    auth = {"auth": ("user", "secret"), "follow_redirects": True}
    out.append((yield do("GET", place.url + "/away", **auth)))
    out.append((yield do("GET", place.url + "/302", **auth)))
    return [one if isinstance(one, str) else (one["status"], one["history"]) for one in out]


@scenario
def authentication(place: Place) -> Generator[Do, Any, Any]:
    yield do("GET", place.url + "/basic", auth=("ü", "p:w"))
    yield do("GET", place.url.replace("http://", "http://us%40er:pass@") + "/echo")
    return (yield do("GET", place.url + "/digest", auth=httpx.DigestAuth("user", "secret")))


@scenario
def cookies(place: Place) -> Generator[Do, Any, Any]:
    yield do("GET", place.url + "/cookies")
    yield do("GET", place.url + "/echo")
    yield do("GET", place.url + "/cookie-redirect", follow_redirects=True)


@scenario
def streams(place: Place) -> Generator[Do, Any, Any]:
    out = []
    for path, take in (
        ("/lines", None),
        ("/big", 1000),
        ("/big-chunked", 1000),
        ("/gzip", -1),
        ("/gzip", 100),
        ("/cut-length", None),
        ("/stalls", None),
        ("/chunked", -1),
    ):
        options = {"timeout": httpx.Timeout(5, read=0.3)}
        out.append((yield Do("GET", place.url + path, options, take=take, stream=True)))
    out.append((yield do("GET", place.url + "/hi")))
    return out


@scenario
def timeouts(place: Place) -> Generator[Do, Any, Any]:
    unread = {"content": b"x" * (32 << 20), "timeout": httpx.Timeout(30, write=0.5, read=1)}
    return [
        (yield do("GET", place.url + "/late", timeout=0.2)),
        (yield do("GET", place.url + "/stalls", timeout=httpx.Timeout(5, read=0.2))),
        (yield do("GET", place.hole, timeout=0.3)),
        (yield do("GET", place.hole, timeout=httpx.Timeout(30, connect=0.3))),
        (yield do("POST", place.url + "/unread-silent", **unread)),
        (yield do("GET", place.url + "/hi", timeout=None)),
    ]


@scenario
def nobody_there(place: Place) -> Generator[Do, Any, Any]:
    out = []
    for url in (place.closed, "http://no-such-name.invalid/", "http://", "//x", "nope://x", "http://[::1/", "/path"):
        out.append((yield do("GET", url)))
    return out


@scenario
def replied_before_the_body(place: Place) -> Generator[Do, Any, Any]:
    return (yield do("POST", place.url + "/unread-413", content=b"x" * 1000))


@scenario
def retries(place: Place) -> Generator[Do, Any, Any]:
    return (yield Do("GET", place.closed, new={"retries": 2}))


@scenario
def proxies(place: Place) -> Generator[Do, Any, Any]:
    out = []
    with_user = place.url.replace("http://", "http://me:secret@")
    for proxy, url in (
        (place.url, "http://far.test/x"),
        (with_user, "http://far.test/x"),
        (place.closed, "http://far.test/x"),
        (place.url, "http://far.test/cut-head"),
    ):
        out.append((yield Do("GET", url, new={"proxy": proxy})))
    out.append((yield Do("GET", "http://far.test/away", {"follow_redirects": True}, new={"proxy": place.url})))
    return out


@scenario
def connections_are_kept(place: Place) -> Generator[Do, Any, Any]:
    for _ in range(20):
        yield do("GET", place.url + "/hi")
    for _ in range(5):
        yield do("GET", place.url + "/closing")
