"""Our client against real servers: nginx with its keep-alive limits and codings, Python's, and haproxy in between."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import iokernel
import iokernel.http
import pytest
from support import net
from support.aiohttp_server import AiohttpServer
from support.fixtures import or_skip
from support.haproxy import HAProxy
from support.nginx import Nginx

REQUESTS_PER_CONN = 3
LONG = "\n".join(f"add_header X-Long-{number} {'x' * 4000};" for number in range(12))
INSIDE = f"""
    root .; keepalive_requests {REQUESTS_PER_CONN}; client_max_body_size 100k;
    gzip on; gzip_min_length 10; gzip_types *;
    location = /conn {{ return 200 "$connection $connection_requests"; }}
    location = /bye {{ return 444; }}
    location = /none {{ return 204; }}
    location = /last {{ keepalive_timeout 0; return 200 "last"; }}
    location = /long {{ {LONG} return 200 "long"; }}
    location = /longer {{ {LONG} {LONG.replace("Long", "Longer")} return 200 "longer"; }}
    location /app/ {{ proxy_pass http://APP/; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    location /old/ {{ proxy_pass http://APP/; proxy_http_version 1.0; proxy_buffering off; }}
"""
PAGE = "".join(f"line {number}\n" for number in range(5000))


@pytest.fixture(scope="module")
def site() -> Iterator[AiohttpServer]:
    with AiohttpServer() as made:
        yield made


@pytest.fixture(scope="module")
def nginx(site: AiohttpServer) -> Iterator[Nginx]:
    with or_skip(Nginx)(INSIDE.replace("APP", site.address), logs=True) as made:
        (made.folder / "page.txt").write_text(PAGE)
        yield made


@pytest.fixture
def api(nginx: Nginx) -> Iterator[iokernel.http.HttpEndpoint]:
    with iokernel.http.open(nginx.url, pool=4) as made:
        yield made


def times_asked(nginx: Nginx, method: str, path: str) -> int:
    return sum(f'"{method} {path} HTTP/1.1"' in line for line in nginx.logged())


def test_connections_are_used_as_long_as_the_server_keeps_them(api: iokernel.http.HttpEndpoint) -> None:
    seen: Counter[str] = Counter()
    for number in range(30):
        reply = api.request("POST" if number % 2 else "GET", "/conn", body=b"x" if number % 2 else None)
        conn, turn = reply.text.split()
        seen[conn] += 1
        assert int(turn) == seen[conn] <= REQUESTS_PER_CONN
    assert len(seen) == 30 / REQUESTS_PER_CONN, "one after another, so that no second connection was needed"


async def test_a_hundred_at_once_share_the_pool(api: iokernel.http.HttpEndpoint) -> None:
    replies = await asyncio.gather(*(api.post("/conn", body=b"x") for _ in range(100)))
    turns = Counter(reply.text.split()[0] for reply in replies)
    assert max(turns.values()) == REQUESTS_PER_CONN and sum(turns.values()) == 100


def test_a_server_that_hangs_up_instead_of_an_answer(api: iokernel.http.HttpEndpoint, nginx: Nginx) -> None:
    for method in ("GET", "POST"):
        before = times_asked(nginx, method, "/bye")
        with pytest.raises(iokernel.ConnectionLost) as caught:
            api.request(method, "/bye", timeout=10)
        assert caught.value.fate == "maybe_executed"
        asked = times_asked(nginx, method, "/bye") - before
        assert asked == 1 if method == "POST" else asked > 1, "what may be repeated is, and nothing else"
        assert api.get("/conn").status == 200


def test_responses_without_a_body_leave_nothing_for_the_next(api: iokernel.http.HttpEndpoint) -> None:
    page = api.get("/page.txt", decode=False)
    tag = {"If-None-Match": page.headers["etag"]}
    assert [api.get("/none").status for _ in range(REQUESTS_PER_CONN - 1)] == [204, 204], "the rest of this connection"
    for _ in range(REQUESTS_PER_CONN):
        assert (api.get("/page.txt", headers=tag).status, api.get("/none").status) == (304, 204)
        head = api.head("/page.txt", decode=False)
        assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(PAGE)))
        assert api.get("/conn").text.split()[1] == "1", "they were the last three of one connection"
        assert [api.get("/last").headers["connection"] for _ in range(2)] == ["close", "close"]


def test_codings_ranges_and_files(api: iokernel.http.HttpEndpoint) -> None:
    packed = api.get("/page.txt", headers={"Accept-Encoding": "gzip"}, decode=False)
    assert packed.headers["content-encoding"] == "gzip" and len(packed.body) < len(PAGE) / 2
    assert api.get("/page.txt").text == PAGE
    part = api.get("/page.txt", headers={"Range": "bytes=7-20"}, decode=False)
    assert (part.status, part.text) == (206, PAGE[7:21])
    with api.stream("GET", "/page.txt") as reply:
        assert b"".join(reply).decode() == PAGE


def test_heads_of_many_sizes(api: iokernel.http.HttpEndpoint) -> None:
    reply = api.get("/long")
    assert (reply.text, len(reply.headers["x-long-11"])) == ("long", 4000)
    with pytest.raises(iokernel.ConnectionLost, match="head"):
        api.get("/longer", timeout=10)
    assert api.get("/conn", headers={"X-Long": "x" * 5000}).status == 200
    assert api.get("/conn", headers={"X-Long": "x" * 50_000}).status == 400
    assert api.get("/conn").status == 200


def test_bodies_that_are_waited_for_and_bodies_that_are_refused(api: iokernel.http.HttpEndpoint) -> None:
    assert api.put("/app/upload", body=b"x" * 90_000, expect=True).json()["bytes"] == 90_000
    with api.stream("PUT", "/app/upload", body=True, expect=True) as upload:
        for _ in range(9):
            upload.send(b"x" * 10_000)
        upload.finish()
        assert upload.accepted().status == 200 and b'"bytes": 90000' in upload.read()
    assert api.put("/app/upload", body=b"x" * 200_000, expect=True).status == 413
    # Without asking first: the server answers and hangs up while the body is still on its way.
    try:
        assert api.post("/app/upload", body=b"x" * 20_000_000).status == 413
    except iokernel.ConnectionLost as error:
        assert error.fate == "maybe_executed"
    assert api.get("/conn").status == 200


def test_a_server_behind_that_knows_only_the_old_version(api: iokernel.http.HttpEndpoint) -> None:
    for _ in range(3):
        assert len(api.get("/old/stream?count=20&size=5000").body) == 100_000
        assert api.get("/app/anything").json()["target"] == "/anything"


def test_a_unix_socket(nginx: Nginx) -> None:
    with iokernel.http.open(nginx.unix_url) as api:
        assert [api.get("/conn").status for _ in range(10)] == [200] * 10
        assert api.get("/page.txt").text == PAGE


async def test_no_request_fails_while_the_server_reloads() -> None:
    """The old worker closes what is idle, and that may meet a request: what can be repeated never fails by it."""
    outcomes: Counter[str] = Counter()
    with or_skip(Nginx)("location / { return 200 ok; }") as nginx, iokernel.http.open(nginx.url, pool=8) as api:
        over = asyncio.Event()

        async def work(number: int) -> None:
            while not over.is_set():
                method = "POST" if number % 4 == 0 else "GET"
                try:
                    assert (await api.request(method, "/", timeout=20)).status == 200
                    outcomes[method] += 1
                except iokernel.ConnectionLost as error:
                    outcomes[f"{method} {error.fate}"] += 1

        tasks = [asyncio.create_task(work(number)) for number in range(16)]
        for _ in range(8):
            await asyncio.sleep(0.1)
            nginx.reload()
        await asyncio.sleep(0.2)
        over.set()
        await asyncio.gather(*tasks)
    assert set(outcomes) <= {"GET", "POST", "POST maybe_executed"}, outcomes
    assert outcomes["GET"] > 100 and outcomes["POST"] > 20, outcomes


class Old(http.server.BaseHTTPRequestHandler):
    """HTTP/1.0: each response ends with its connection, and only a part of them says how long it is."""

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/known":
            self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello" if self.path == "/known" else b"hello" * 10_000)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body[::-1])


def test_pythons_own_server_of_the_old_version() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Old) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        with iokernel.http.open(f"http://127.0.0.1:{server.server_address[1]}", pool=2) as api:
            for _ in range(5):
                assert (api.get("/known").body, api.get("/known").version) == (b"hello", 10)
                assert len(api.get("/unknown").body) == 50_000
                assert (api.head("/known").body, api.post("/", body=b"abc").body) == (b"", b"cba")
        server.shutdown()
        thread.join(5)


def test_haproxy_in_between(nginx: Nginx) -> None:
    """It closes idle connections after a moment, and answers by itself where it refuses."""
    front = """
      http-request deny deny_status 403 if { path /forbidden }
      http-request return status 200 content-type text/plain string "its own" if { path /own }
      http-request redirect location /conn if { path /moved }
      use_backend nowhere if { path_beg /nowhere }
    """
    back = f"""
      option http-server-close
      server one {nginx.address}
    backend nowhere
      server none 127.0.0.1:{net.free_port()}
    """
    defaults = "  timeout http-keep-alive 20ms\n  compression algo gzip\n  compression type text/plain"
    with (
        or_skip(HAProxy)(back, front=front, defaults=defaults) as haproxy,
        iokernel.http.open(haproxy.url, pool=2) as api,
    ):
        statuses = [api.get(path).status for path in ("/forbidden", "/own", "/moved", "/nowhere", "/conn")]
        assert statuses == [403, 200, 302, 503, 200]
        assert api.get("/page.txt").text == PAGE
        assert (api.head("/page.txt").status, api.get("/none").status) == (200, 204)
        assert api.get("/conn").text.split()[1] == "1", "each with a connection of its own behind"
        for _ in range(20):
            # About the time at which it hangs up.
            threading.Event().wait(0.02)
            assert api.get("/conn").status == 200
