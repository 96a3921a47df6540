"""Endpoints through proxies that tunnel: tinyproxy by CONNECT, microsocks by SOCKS5."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator

import iokernel
import iokernel.http
import pytest
from support import net
from support.fixtures import or_skip
from support.http_app import digest_of
from support.real_tunnels import Microsocks, Tinyproxy, Tunnel
from support.servers import RedisServer
from support.serving import Served

KINDS = [Tinyproxy, Microsocks]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served("from support.http_app import app") as made:
        yield made


@pytest.fixture(params=KINDS)
def tunnel(request: pytest.FixtureRequest) -> Iterator[Tunnel]:
    with or_skip(request.param)("me", "secret") as made:
        yield made


def api_of(server: Served, proxy: str, host: str = "127.0.0.1", **options: object) -> iokernel.http.HttpEndpoint:
    return iokernel.http.open(f"http://{host}:{server.port}", proxy=proxy, **options)


async def test_http_passes(server: Served, tunnel: Tunnel) -> None:
    """Requests are the server's as they are: nothing of the proxy is in them."""
    with api_of(server, tunnel.url, pool=20) as api:
        told = await asyncio.gather(*(api.post(f"/n/{number}", body=b"x" * number) for number in range(100)))
        assert [each.json()["size"] for each in told] == list(range(100))
        assert not {"proxy-authorization", "via"} & {name for name, _ in told[0].json()["headers"]}
        made = hashlib.sha256()
        async with api.stream("GET", "/bytes?size=5000000") as reply:
            async for piece in reply:
                made.update(piece)
        assert made.hexdigest() == digest_of(5_000_000)
        async with api.websocket("/chat") as chat:
            await chat.send("hello")
            assert await chat.receive(20) == "hello"


def test_the_proxy_looks_names_up_or_we_do(server: Served, tunnel: Tunnel) -> None:
    ways = {Tinyproxy: ["http"], Microsocks: ["socks5", "socks5h"]}[type(tunnel)]
    for way in ways:
        url = tunnel.url.replace(tunnel.scheme, way, 1)
        with api_of(server, url, host="localhost") as api:
            assert ["host", f"localhost:{server.port}"] in api.get("/x").json()["headers"]


def test_redis_passes(shared_redis_server: RedisServer, tunnel: Tunnel) -> None:
    with iokernel.open(shared_redis_server.url, proxy=tunnel.url) as cache:
        assert [cache.call("SET", "through", number, timeout=10) for number in range(50)] == ["OK"] * 50
        assert cache.call("GET", "through") == b"49"
        with cache.subscribe("SUBSCRIBE", "news") as news:
            assert cache.call("PUBLISH", "news", "hello") == 1
            assert news.get(10)


def test_who_does_not_know_the_password_gets_nowhere(server: Served, tunnel: Tunnel) -> None:
    for login in ("", "me:wrong@"):
        proxy = tunnel.url.replace("me:secret@", login)
        why = "40[17]|wants credentials|does not take this user and password"
        with api_of(server, proxy, when_down="fail") as api, pytest.raises(iokernel.Unavailable, match=why) as caught:
            api.post("/x", body=b"x", timeout=10)
        assert caught.value.fate == "not_sent" and "wrong" not in str(caught.value)


def test_where_the_proxy_gets_nowhere(tunnel: Tunnel) -> None:
    nobody = f"http://127.0.0.1:{net.free_port()}"
    with iokernel.http.open(nobody, proxy=tunnel.url, when_down="fail") as api:
        with pytest.raises(iokernel.Unavailable) as caught:
            api.get("/", timeout=10)
        assert caught.value.fate == "not_sent" and str(tunnel.port) in str(caught.value), caught.value


def test_a_proxy_that_dies_and_comes_back(server: Served, tunnel: Tunnel) -> None:
    with api_of(server, tunnel.url, backoff="10ms", max_backoff="50ms") as api:
        assert api.get("/x").status == 200
        with api.stream("GET", "/pieces?count=100000000&size=1000") as reply:
            assert reply.receive(10)
            tunnel.kill()
            with pytest.raises(iokernel.ConnectionLost):
                reply.read()
        with pytest.raises(iokernel.Unavailable) as caught:
            api.get("/x", timeout=0.3)
        assert caught.value.fate == "not_sent" and str(tunnel.port) in str(caught.value), caught.value
        tunnel.start()
        assert api.post("/x", body=b"abc", timeout=20).json()["size"] == 3
