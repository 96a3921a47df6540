"""Our server behind the proxies that stand before servers: nginx and haproxy, with connections that they keep."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
from collections.abc import Iterator
from typing import Any

import iokernel.http
import pytest
from support.fixtures import or_skip
from support.haproxy import HAProxy
from support.http_app import BLOCK, digest_of
from support.net import wait_for
from support.nginx import Nginx
from support.raw_http import Gone, Raw, request
from support.serving import Served

APP = "from support.http_app import app"
INSIDE = """
    client_max_body_size 0;
    location / {
        proxy_pass http://ours; proxy_http_version 1.1; proxy_buffering off; proxy_request_buffering off;
        proxy_set_header Connection $connection_header; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header Host $http_host;
    }
    location /buffered/ { proxy_pass http://ours/; proxy_set_header Connection ""; proxy_http_version 1.1; }
    location /old/ { proxy_pass http://ours/; }
"""
AROUND = """
    map $http_upgrade $connection_header { default upgrade; '' ''; }
    upstream ours { server 127.0.0.1:PORT; keepalive 8; keepalive_requests 100000; }
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served(APP, "--health", "/healthz") as made:
        yield made


@pytest.fixture(scope="module")
def nginx(server: Served) -> Iterator[str]:
    with or_skip(Nginx)(INSIDE, around=AROUND.replace("PORT", str(server.port))) as made:
        yield made.url


@pytest.fixture(scope="module")
def haproxy(server: Served) -> Iterator[str]:
    back = f"http-reuse always\n  server one 127.0.0.1:{server.port}"
    with or_skip(HAProxy)(back, front="option forwardfor") as made:
        yield made.url


@pytest.fixture(params=["nginx", "haproxy"])
def api(request: pytest.FixtureRequest) -> Iterator[iokernel.http.HttpEndpoint]:
    """Our own client, by that proxy."""
    with iokernel.http.open(request.getfixturevalue(request.param), pool=50) as made:
        yield made


def test_requests_of_every_kind_pass(api: iokernel.http.HttpEndpoint) -> None:
    conns = set()
    for number in range(30):
        told = api.request("POST" if number % 2 else "GET", f"/n/{number}?q", body=b"x" * number or None).json()
        assert (told["target"], told["size"]) == (f"/n/{number}?q", number)
        assert ["x-forwarded-for", "127.0.0.1"] in told["headers"]
        conns.add(told["client"][1])
        assert [api.get(f"/status/{status}").body for status in (204, 304, 404)] == [b"", b"", b"a body\n"]
        head = api.head("/bytes?size=1000")
        assert (head.body, head.headers["content-length"]) == (b"", "1000")
        assert len(api.get("/pieces?count=7&size=1000").body) == 7000
    assert len(conns) < 5, "the proxy keeps its connections"


def test_bodies_pass_both_ways_as_they_come(api: iokernel.http.HttpEndpoint) -> None:
    made = hashlib.sha256()
    with api.stream("GET", "/bytes?size=10000000") as reply:
        for piece in reply:
            made.update(piece)
    assert made.hexdigest() == digest_of(10_000_000)
    for length in ({"Content-Length": str(5 * len(BLOCK))}, {}):
        with api.stream("PUT", "/up", body=True, headers=length) as upload:
            for _ in range(5):
                upload.send(BLOCK)
            upload.finish()
            assert json.loads(upload.accepted().read())["sha256"] == digest_of(5 * len(BLOCK))


def test_a_piece_passes_before_there_is_another(api: iokernel.http.HttpEndpoint) -> None:
    with api.stream("GET", "/gated") as reply:
        assert reply.receive(20) == b"first\n"
        assert api.get("/open").status == 200
        assert reply.read() == b"second\n"


async def test_many_at_once_and_websockets_beside_them(api: iokernel.http.HttpEndpoint) -> None:
    async def ask(number: int) -> Any:
        return (await api.post(f"/n/{number}", body=b"x" * number)).json()["size"]

    async def chat(number: int) -> Any:
        async with api.websocket("/chat") as socket:
            for size in (1, 200, 70_000):
                await socket.send(f"{number} " * size)
                assert await socket.receive(20) == f"{number} " * size
        return socket.close_code

    sizes = asyncio.gather(*(ask(number) for number in range(300)))
    codes = asyncio.gather(*(chat(number) for number in range(20)))
    assert (await sizes, await codes) == (list(range(300)), [1000] * 20)


def test_what_a_proxy_does_not_stream(nginx: str) -> None:
    with iokernel.http.open(nginx) as api:
        for prefix in ("/buffered", "/old"):
            for _ in range(3):
                assert api.put(f"{prefix}/up", body=BLOCK * 3).json()["sha256"] == digest_of(3 * len(BLOCK))
                assert hashlib.sha256(api.get(f"{prefix}/bytes?size=3000000").body).hexdigest() == digest_of(3_000_000)
                assert [api.get(f"{prefix}/status/{status}").status for status in (204, 304)] == [204, 304]
        assert api.get("/old/x").json()["version"] == "1.0"


def test_a_client_that_leaves_is_seen_through_the_proxy(nginx: str, server: Served) -> None:
    """The stream ends in our application, too."""

    def open_streams() -> int:
        count: int = json.loads(server.get("/counts").body)["open"]
        return count

    with iokernel.http.open(nginx) as api, api.stream("GET", "/pieces?count=100000000&size=1000") as reply:
        assert reply.receive(20)
        assert open_streams() == 1
    wait_for("the end of the stream", lambda: open_streams() == 0, 20)


def test_haproxy_asks_for_health_and_closes_what_it_does_not_keep(server: Served) -> None:
    """By our health path, which says no before the server leaves."""
    with Served(APP, "--health", "/healthz", "--delay", "20") as leaving:
        back = f"""
          option http-server-close
          option httpchk
          http-check send meth GET uri /healthz ver HTTP/1.1 hdr Host health
          http-check expect status 200
          default-server check inter 20ms fall 2 rise 1
          server leaving 127.0.0.1:{leaving.port}
          server other 127.0.0.1:{server.port} backup
        """
        front = "http-response set-header X-Server %s\n  http-request set-header Connection close if { path /close }"
        with or_skip(HAProxy)(back, front=front) as haproxy, iokernel.http.open(haproxy.url) as api:

            def serves() -> str:
                reply = api.get("/x")
                assert reply.status == 200
                return reply.headers["x-server"]

            wait_for("the server's health", lambda: serves() == "leaving", 20)
            assert len({api.get("/x").json()["client"][1] for _ in range(10)}) == 10, "a connection for each"
            leaving.signal(signal.SIGTERM)  # It serves on, and says that it will not.
            wait_for("another server", lambda: serves() == "other", 20)
            assert [serves() for _ in range(50)] == ["other"] * 50
            leaving.signal(signal.SIGQUIT)


# The PROXY protocol


@pytest.fixture(scope="module")
def behind() -> Iterator[Served]:
    """A server that is told by who connects whose connection it is."""
    with Served(APP, "--proxy-protocol", "on") as made:
        yield made


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"])
def test_haproxy_tells_who_its_client_is(behind: Served, version: str) -> None:
    back = f"http-reuse always\n  server one 127.0.0.1:{behind.port} {version}"
    with or_skip(HAProxy)(back) as haproxy, Raw(haproxy.address) as conn:
        here = list(conn.conn.getsockname())
        for _ in range(3):
            told = json.loads(conn.send(request("POST", "/who", body=b"abc")).reply().body)
            assert (told["client"], told["size"]) == (here, 3)


V2 = b"\r\n\r\n\0\r\nQUIT\n"
V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.1") + b"\x15\xb3\x00\x50"
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") + bytes(16) + b"\x15\xb3\x00\x50"
HEADERS = {
    "v1": (b"PROXY TCP4 192.0.2.1 198.51.100.1 5555 80\r\n", ["192.0.2.1", 5555]),
    "v1 of IPv6": (b"PROXY TCP6 2001:db8::1 2001:db8::2 5555 80\r\n", ["2001:db8::1", 5555]),
    "v1 that knows nothing": (b"PROXY UNKNOWN\r\n", None),
    "v2": (V2 + b"\x21\x11\0\x0c" + V4, ["192.0.2.1", 5555]),
    "v2 with extensions": (V2 + b"\x21\x11\0\x12" + V4 + b"\x04\0\x03\0\0\0", ["192.0.2.1", 5555]),
    "v2 of IPv6": (V2 + b"\x21\x21\0\x24" + V6, ["2001:db8::1", 5555]),
    "v2 of the proxy's own": (V2 + b"\x20\0\0\0", None),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_the_proxy_protocol_in_any_pieces(behind: Served, name: str) -> None:
    header, client = HEADERS[name]
    for cut in (0, 1, 8, len(header)):
        with Raw(f"127.0.0.1:{behind.port}") as conn:
            conn.send(header[:cut])
            conn.send(header[cut:] + request("GET", "/a") + request("GET", "/b"))
            told = [json.loads(conn.reply().body) for _ in range(2)]
            here = list(conn.conn.getsockname())
        assert [each["target"] for each in told] == ["/a", "/b"]
        assert [each["client"] for each in told] == [client or here] * 2


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 5555\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 5555 80\n",
        b"PROXY TCP4 2001:db8::1 198.51.100.1 5555 80\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 5555 99999\r\n",
        b"PROXY " + b"x" * 200 + b"\r\n",
        V2 + b"\x21\x11\0\x04" + V4[:4],
        V2 + b"\x31\x11\0\x0c" + V4,
        V2 + b"\x21\x11\xff\xff" + V4,
    ],
)
def test_who_does_not_say_who_it_is_gets_nothing(behind: Served, start: bytes) -> None:
    before = json.loads(after_header(behind, request("GET", "/counts")))["requests"]
    with Raw(f"127.0.0.1:{behind.port}") as conn, pytest.raises((Gone, BrokenPipeError, ConnectionResetError)):
        conn.send(start + request("GET", "/secret") + b"x" * 200)
        conn.reply()
    assert json.loads(after_header(behind, request("GET", "/counts")))["requests"] == before + 1


def after_header(behind: Served, asked: bytes) -> bytes:
    with Raw(f"127.0.0.1:{behind.port}") as conn:
        return conn.send(HEADERS["v1"][0] + asked).reply().body
