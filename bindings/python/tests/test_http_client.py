"""Endpoints of HTTP: requests, streams, WebSockets, tunnels; in threads and in loops."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import iokernel
import iokernel.http
import pytest
from iokernel.http import HttpEndpoint, StatusError
from support.aiohttp_server import AiohttpServer
from support.fakes import Say
from support.http_answers import GZIPPED, TEXT
from support.http_script import HttpScript, chunked, ok
from support.net import wait_for
from support.tunnels import Tunnels

ANSWERS = {
    "/hi": ok(b"hello", "X-A: 1", "x-a: 2", "Set-Cookie: a=b", "Set-Cookie: c=d", "Content-Type: text/plain"),
    "/latin": ok("grüß".encode("latin-1"), "Content-Type: text/plain; charset=ISO-8859-1"),
    "/odd": ok(b"\xff", "Content-Type: text/plain; charset=nonsense"),
    "/gzip": ok(GZIPPED, "Content-Encoding: gzip"),
    "/404": ok(b"nowhere", status="404 Not Found"),
    "/trailers": chunked(b"bo", b"dy", trailers=["X-Sum: 9"]),
    "/late": Say(ok(b"late"), wait_ms=3000),
    "/slow": [Say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab"), Say(b"cd", wait_ms=100)],
    "/cut": [Say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"), Say(wait_ms=30, then="close")],
    "/attach": Say(b"HTTP/1.1 101 Up\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\nhello ", then="echo"),
    "/403": ok(b"no", status="403 Forbidden"),
}


@pytest.fixture(scope="module")
def server() -> Iterator[HttpScript]:
    with HttpScript(ANSWERS) as made:
        yield made


@pytest.fixture(scope="module")
def aiohttp_server() -> Iterator[AiohttpServer]:
    with AiohttpServer() as made:
        yield made


@pytest.fixture
def api(server: HttpScript) -> Iterator[HttpEndpoint]:
    with iokernel.http.open(server.url) as endpoint:
        yield endpoint


@pytest.fixture
def site(aiohttp_server: AiohttpServer) -> Iterator[HttpEndpoint]:
    with iokernel.http.open(aiohttp_server.url) as endpoint:
        yield endpoint


def test_the_scheme_chooses_the_class(server: HttpScript, url: str) -> None:
    with iokernel.open(server.url) as api:
        assert isinstance(api, HttpEndpoint)
    with iokernel.open(url) as other:
        assert not isinstance(other, HttpEndpoint)
    with pytest.raises(iokernel.ConfigError):
        iokernel.http.open(url)


def test_a_response(api: HttpEndpoint) -> None:
    reply = api.get("/hi")
    assert (reply.status, reply.reason, reply.version, reply.ok) == (200, "OK", 11, True)
    assert (reply.body, reply.text) == (b"hello", "hello")
    assert reply.headers["X-A"] == "1, 2" == reply.headers.get("x-a")
    assert reply.headers.get_all("set-cookie") == ["a=b", "c=d"]
    assert "X-B" not in reply.headers and len(reply.headers) == 4
    assert reply.headers.raw[0] == [b"X-A", b"1"]
    assert (api.get("/latin").text, api.get("/odd").text) == ("grüß", "\ufffd")
    assert not reply.trailers and api.get("/trailers").trailers["x-sum"] == "9"
    with pytest.raises(StatusError) as caught:
        api.get("/404").raise_for_status()
    assert caught.value.response is not None and caught.value.response.body == b"nowhere"
    assert (caught.value.code, str(caught.value)) == ("404", "404 Not Found")
    assert api.get("/hi").raise_for_status().status == 200


async def test_the_same_in_a_loop(api: HttpEndpoint) -> None:
    reply = await api.get("/hi")
    assert (reply.status, reply.body, (await reply) is reply) == (200, b"hello", True)
    replies = await asyncio.gather(*(api.get("/hi") for _ in range(50)))
    assert [reply.body for reply in replies] == [b"hello"] * 50
    assert (await api.post("/echo", json=[1])).json()["method"] == "POST"
    with pytest.raises(iokernel.Timeout):
        await api.get("/late", timeout=0.1)
    task = asyncio.ensure_future(api.get("/late"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def asked(reply: Any) -> tuple[str, dict[str, str]]:
    told = reply.json()
    return told["target"], {name: value for name, value in told["headers"] if name != "Host"}


def test_requests_say_what_is_given(api: HttpEndpoint) -> None:
    default = {"User-Agent": iokernel.http.AGENT, "Accept-Encoding": "gzip, deflate, br, zstd"}
    assert asked(api.get("/a")) == ("/a", default)
    assert asked(api.get("/ä b?x=%20", params={"q": ["ü", 1]})) == ("/%C3%A4%20b?x=%20&q=%C3%BC&q=1", default)
    plain = asked(api.get("/a", decode=False, headers={"user-agent": "me", "X-Two": ["1", "2"]}))
    assert plain == ("/a", {"user-agent": "me", "X-Two": "2"})
    _, headers = asked(api.post("/a", json={"a": "ü"}))
    assert (headers["Content-Type"], headers["Content-Length"]) == ("application/json", "14")
    _, headers = asked(api.put("/a", data={"a": "ü b"}, headers=[("Content-Type", "mine")]))
    assert (headers["Content-Type"], headers["Content-Length"]) == ("mine", "10")
    _, headers = asked(api.patch("/a", body="ü"))
    assert headers["Content-Length"] == "2" and "Content-Type" not in headers
    assert asked(api.post("/a", body=b"abc", expect=True))[1]["Expect"] == "100-continue"
    assert [api.request(method, "/a").json()["method"] for method in ("DELETE", "OPTIONS", "X-MINE")] == [
        "DELETE",
        "OPTIONS",
        "X-MINE",
    ]
    assert api.head("/hi").headers["content-length"] == "5"


def test_what_is_wrong_is_refused(api: HttpEndpoint) -> None:
    for wrong in (
        lambda: api.get("no-slash"),
        lambda: api.get("/", headers={"X": "a\r\nY: b"}),
        lambda: api.get("/", headers={"Content-Length": "5"}),
        lambda: api.post("/", body=b"x", json=1),
        lambda: api.get("/", headers={"X": 1}),  # type: ignore[dict-item]
        lambda: api.request("GE T", "/"),
        lambda: api.get("/", timeout="soon"),
    ):
        with pytest.raises(iokernel.BadRequest):
            wrong()


def test_bodies_are_decoded_or_not(api: HttpEndpoint) -> None:
    assert api.get("/gzip").body == TEXT
    assert api.get("/gzip", decode=False).body == GZIPPED
    with api.stream("GET", "/gzip") as reply:
        assert (reply.read(), "content-encoding" in reply.headers) == (TEXT, False)


# Streams


def test_a_stream_in_a_thread(api: HttpEndpoint) -> None:
    with api.stream("GET", "/slow") as reply:
        assert (reply.status, reply.headers["content-length"], reply.closed) == (200, "4", False)
        assert list(reply) == [b"ab", b"cd"]
    assert reply.closed and reply.result() is None
    with api.stream("GET", "/trailers") as reply:
        assert (reply.read(), reply.trailers["x-sum"]) == (b"body", "9")
        with pytest.raises(iokernel.Closed):
            reply.receive()
        assert reply.receive(default=None) is None
    with api.stream("GET", "/cut") as reply:
        assert next(reply) == b"ab"
        with pytest.raises(iokernel.ConnectionLost):
            next(reply)
    with pytest.raises(StatusError), api.stream("GET", "/404") as reply:
        reply.raise_for_status()
    waiting = api.stream("GET", "/late")
    with pytest.raises(iokernel.Timeout):
        waiting.accepted(0.05)
    with pytest.raises(RuntimeError, match="has not begun"):
        print(waiting.status)
    waiting.close()


async def test_a_stream_in_a_loop(api: HttpEndpoint) -> None:
    async with api.stream("GET", "/slow") as reply:
        assert reply.status == 200
        assert [piece async for piece in reply] == [b"ab", b"cd"]
    with pytest.raises(iokernel.Timeout):
        await api.stream("GET", "/late", timeout=0.05)
    reply = await api.stream("GET", "/trailers")
    assert (await reply.read(), reply.trailers["x-sum"]) == (b"body", "9")
    async with api.stream("GET", "/cut") as reply:
        assert await reply.receive() == b"ab"
        with pytest.raises(iokernel.ConnectionLost):
            await reply.receive()
    with pytest.raises(RuntimeError):
        next(api.stream("GET", "/hi"))


def test_bodies_go_in_pieces(site: HttpEndpoint) -> None:
    with site.stream("PUT", "/upload", body=True) as upload:
        for _ in range(100):
            upload.send(b"x" * 50_000)
        upload.finish()
        assert json.loads(upload.accepted().read())["bytes"] == 5_000_000
    with site.stream("PUT", "/upload", body=True, headers={"Content-Length": "3"}) as upload:
        upload.send("ab")
        with pytest.raises(iokernel.BadRequest):
            upload.finish()
    with site.stream("POST", "/duplex", body=True) as talk:
        for word in (b"one", b"two"):
            talk.send(word)
            assert talk.receive(5) == word.upper()
        talk.finish()
        assert talk.read() == b""


async def test_bodies_go_in_pieces_from_a_loop(site: HttpEndpoint) -> None:
    async with site.stream("PUT", "/upload", body=True) as upload:
        for _ in range(100):
            await upload.send(b"x" * 50_000)
        await upload.finish()
        assert json.loads(await (await upload).read())["bytes"] == 5_000_000


def test_what_is_not_taken_is_not_read(site: HttpEndpoint, aiohttp_server: AiohttpServer) -> None:
    with site.stream("GET", "/stream") as endless:
        next(endless)
        before = -1
        while before != (before := aiohttp_server.counts()["streamed"]):
            time.sleep(0.2)
        # The window, and what the system's sockets hold.
        assert before < 32 << 20
        for _ in range(1000):
            next(endless)
        wait_for("more of it", lambda: aiohttp_server.counts()["streamed"] > before)
    wait_for("its end at the server", lambda: aiohttp_server.counts()["open"] == 0)


def test_what_does_not_go_out_holds_its_sender(site: HttpEndpoint) -> None:
    piece = b"x" * (1 << 20)
    with site.stream("PUT", "/upload", params={"pause": 30}, body=True) as upload, pytest.raises(iokernel.Timeout):
        for _ in range(200):
            upload.send(piece, timeout=0.5)


def test_what_nobody_holds_is_cancelled(site: HttpEndpoint, aiohttp_server: AiohttpServer) -> None:
    forgotten = site.stream("GET", "/stream")
    next(forgotten)
    del forgotten
    gc.collect()
    wait_for("its end at the server", lambda: aiohttp_server.counts()["open"] == 0)


def test_one_thread_sends_while_another_receives(site: HttpEndpoint) -> None:
    with site.stream("POST", "/duplex", body=True) as talk:
        got: list[bytes] = []
        reader = threading.Thread(target=lambda: got.extend(talk))
        reader.start()
        for _ in range(200):
            talk.send(b"x" * 10_000)
        talk.finish()
        reader.join(20)
        assert not reader.is_alive() and sum(map(len, got)) == 2_000_000


def test_how_far_a_request_is(api: HttpEndpoint) -> None:
    with iokernel.http.open("http://127.0.0.1:1") as nowhere, nowhere.exchange("GET", "/") as waiting:
        assert waiting.underway() == (False, None)
    with api.exchange("GET", "/late") as waiting:
        wait_for("the request to be written", lambda: waiting.underway()[0])
        has_conn, ago = waiting.underway()
        assert has_conn and 0 <= ago < 60


async def test_how_far_a_request_is_in_a_loop(api: HttpEndpoint) -> None:
    async with api.exchange("GET", "/hi") as one:
        await one.accepted()
        assert one.head[0] == 200
        assert await one.receive() == b"hello"
        assert await one.result() is None
        assert (await one.underway())[0]


def test_a_stream_outlives_the_thread_that_made_it(api: HttpEndpoint) -> None:
    made: list[Any] = []
    maker = threading.Thread(target=lambda: made.append(api.stream("GET", "/slow").accepted()))
    maker.start()
    maker.join()
    assert made.pop().read() == b"abcd"


def test_many_streams_of_one_thread(site: HttpEndpoint) -> None:
    streams = [site.stream("GET", "/stream", params={"count": 20, "size": 10_000}) for _ in range(50)]
    assert [len(stream.read()) for stream in reversed(streams)] == [200_000] * 50
    assert len(site.kernel.spare_threads) >= 50


def test_closing_from_another_thread_ends_a_wait(api: HttpEndpoint) -> None:
    stream = api.stream("GET", "/late")
    closer = threading.Timer(0.1, stream.close)
    closer.start()
    with pytest.raises(iokernel.Closed):
        stream.accepted(20)
    closer.join()


# Upgrades


def test_upgrades_and_tunnels(api: HttpEndpoint, server: HttpScript) -> None:
    with api.stream("POST", "/attach", upgrade="tcp") as lane:
        assert lane.status == 101
        assert lane.receive(5) == b"hello "
        lane.send(b"world")
        assert lane.receive(5) == b"world"
        lane.finish()
        assert list(lane) == []
    with api.stream("GET", "/403", upgrade="tcp") as refused:
        assert (refused.status, refused.read()) == (403, b"no")
    with Tunnels() as tunnels, iokernel.http.open(f"http://{tunnels.address}") as proxy:
        with proxy.connect(server.address) as tunnel:
            assert tunnel.status == 200
            tunnel.send(b"GET /hi HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"".join(tunnel).endswith(b"\r\n\r\nhello")
        with iokernel.http.open(server.url, proxy=f"http://{tunnels.address}") as through:
            assert through.get("/hi").body == b"hello"
        with iokernel.http.open(server.url, proxy=f"socks5h://{tunnels.address}") as through:
            assert through.get("/hi").body == b"hello"
        assert len(tunnels.asked()) == 3


# WebSockets


def test_a_websocket_in_a_thread(site: HttpEndpoint, aiohttp_server: AiohttpServer) -> None:
    with site.websocket("/chat", protocols=["chat.v1"]) as chat:
        assert (chat.protocol, chat.close_code) == ("chat.v1", None)
        for message in ("grüß", b"\x00\xff", "", "x" * 200_000, b"y" * 3_000_000):
            chat.send(message)
            assert chat.receive(10) == message
        chat.ping(b"there?")
        with pytest.raises(iokernel.Timeout):
            chat.receive(0.1)
        with pytest.raises(iokernel.BadRequest):
            chat.send([5])
            chat.finish()
    assert (chat.close_code, chat.closed) == (1000, True)
    wait_for("its end at the server", lambda: aiohttp_server.counts()["open"] == 0)
    assert aiohttp_server.counts()["close_code"] == 1000
    with pytest.raises(iokernel.Closed):
        chat.send("more")


def test_a_websocket_that_the_peer_closes(site: HttpEndpoint) -> None:
    with site.websocket("/chat", compress=False) as chat:
        chat.send("one")
        chat.send("close")
        assert list(chat) == ["one"]
        assert (chat.close_code, chat.close_reason) == (4001, "as you wish")
        with pytest.raises(iokernel.Closed, match="4001 as you wish"):
            chat.receive()
    with site.websocket("/chat") as chat:
        chat.send("abort")
        with pytest.raises(iokernel.ConnectionLost):
            list(chat)
        assert chat.close_code == 1006


def test_what_is_no_websocket(api: HttpEndpoint) -> None:
    with pytest.raises(StatusError) as caught:
        api.websocket("/403")
    assert caught.value.response is not None and caught.value.response.status == 403
    with pytest.raises(iokernel.BadRequest):
        api.websocket("/403", protocols=["not a token"])


async def test_a_websocket_in_a_loop(site: HttpEndpoint, aiohttp_server: AiohttpServer) -> None:
    async with site.websocket("/chat") as chat:

        async def speak() -> None:
            for index in range(100):
                await chat.send(str(index))
            await chat.send("close")

        speaker = asyncio.ensure_future(speak())
        assert [message async for message in chat] == [str(index) for index in range(100)]
        await speaker
        assert chat.close_code == 4001
    chat = await site.websocket("/chat")
    await chat.close(4002, "enough")
    await chat.close()
    for _ in range(500):
        if aiohttp_server.counts()["close_code"] == 4002:
            break
        await asyncio.sleep(0.01)
    assert aiohttp_server.counts()["close_code"] == 4002


# In general


def test_the_child_of_a_fork_has_its_own(server: HttpScript, script: Callable[..., str]) -> None:
    source = """
import os, sys, iokernel
api = iokernel.open(sys.argv[1])
assert api.get("/hi").body == b"hello"
with api.stream("GET", "/slow") as reply:
    pid = os.fork()
    if pid == 0:
        with api.stream("GET", "/slow") as other:
            os._exit(0 if other.read() == b"abcd" and api.get("/hi").body == b"hello" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert reply.read() == b"abcd"
api.close()
print("ok")
"""
    assert script(source, server.url) == "ok\n"
