"""requests and httpx with and without the kernel against real servers: nginx, aiohttp, and Python's own."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import iokernel
import iokernel.compat.httpx
import iokernel.compat.requests
import pytest
import requests
from support.aiohttp_server import AiohttpServer
from support.fixtures import or_skip
from support.nginx import Nginx

INSIDE = """
    root .; keepalive_requests 3; client_max_body_size 1m; gzip on; gzip_min_length 10; gzip_types *;
    location = /old { return 301 /page.txt; }
    location = /teapot { return 418 "short and stout"; }
    location = /basic { auth_basic realm; auth_basic_user_file users; return 200 "in"; }
    location = /put { return 200 "$request_method $content_length"; }
    location = /cut { limit_rate 1k; return 200 "never"; }
"""
PAGE = "".join(f"line {number}\n" for number in range(5000))


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    with or_skip(Nginx)(INSIDE) as made:
        (made.folder / "page.txt").write_text(PAGE)
        (made.folder / "folder").mkdir()
        (made.folder / "users").write_text("me:{PLAIN}secret\n")
        yield made


@pytest.fixture(scope="module")
def aiohttp_server() -> Iterator[AiohttpServer]:
    with AiohttpServer() as made:
        yield made


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[::-1])


class Handler11(Handler):
    protocol_version = "HTTP/1.1"


@pytest.fixture(scope="module")
def python_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """One of HTTP/1.0 and one of HTTP/1.1."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "page.txt").write_text(PAGE)
    with ExitStack() as stack:
        urls = []
        for handler in (Handler, Handler11):

            def make(*given: Any, kind: type[Handler] = handler, folder: Path = folder) -> Handler:
                return kind(*given, directory=str(folder))

            server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make)
            server.daemon_threads = True
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            urls.append(f"http://127.0.0.1:{server.server_address[1]}")
        yield urls


def clients() -> list[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    compat = iokernel.compat
    return [
        ("requests", requests.Session, compat.requests.Session),
        ("httpx", lambda: httpx.Client(follow_redirects=True), lambda: compat.httpx.Client(follow_redirects=True)),
    ]


def shown(reply: Any) -> Any:
    kept = ("content-type", "content-length", "content-encoding", "transfer-encoding", "content-range", "location")
    headers = {name: reply.headers.get(name) for name in kept}
    return reply.status_code, headers, reply.content, [one.status_code for one in reply.history]


def send(client: Any, method: str, url: str, body: Any) -> Any:
    """A request with a body, which the libraries call by different names."""
    return client.request(method.upper(), url, **{"content" if isinstance(client, httpx.Client) else "data": body})


def both_ways(name: str, play: Callable[[Any], Any]) -> None:
    """Fails unless it comes to the same."""
    theirs, ours = next((one, other) for client, one, other in clients() if client == name)
    outcomes = []
    for make in (theirs, ours):
        with make() as client:
            try:
                outcomes.append(play(client))
            except (requests.RequestException, httpx.HTTPError) as error:
                outcomes.append(type(error))
    assert outcomes[1] == outcomes[0]


@pytest.mark.parametrize("name", ["requests", "httpx"])
def test_nginx(name: str, nginx: Nginx) -> None:
    url = nginx.url

    def pages(client: Any) -> Any:
        ranged = client.get(url + "/page.txt", headers={"Range": "bytes=7-20", "Accept-Encoding": "identity"})
        paths = ("/page.txt", "/old", "/folder", "/none", "/teapot", "/page.txt", "/page.txt")
        return [shown(ranged), *(shown(client.get(url + path)) for path in paths)]

    both_ways(name, pages)
    both_ways(name, lambda client: shown(client.get(url + "/basic", auth=("me", "secret"))))
    both_ways(name, lambda client: shown(client.get(url + "/basic", auth=("me", "wrong"))))
    both_ways(name, lambda client: shown(send(client, "put", url + "/put", b"x" * 1000)))
    both_ways(name, lambda client: shown(client.head(url + "/page.txt")))
    # Refused by its length, before it has come.
    both_ways(name, lambda client: send(client, "post", url + "/put", b"x" * 1_100_000).status_code)
    # nginx hangs up after three requests on a connection.
    both_ways(name, lambda client: [client.get(url + "/teapot").status_code for _ in range(20)])
    both_ways(name, lambda client: send(client, "post", url + "/page.txt", b"").status_code)


@pytest.mark.parametrize("name", ["requests", "httpx"])
def test_python(name: str, python_servers: list[str]) -> None:
    for url in python_servers:
        both_ways(name, lambda client, url=url: [shown(client.get(url + "/page.txt")) for _ in range(3)])
        both_ways(name, lambda client, url=url: [shown(send(client, "post", url + "/", b"abc")) for _ in range(3)])
        both_ways(name, lambda client, url=url: client.get(url + "/none").status_code)


@pytest.mark.parametrize("name", ["requests", "httpx"])
def test_aiohttp(name: str, aiohttp_server: AiohttpServer) -> None:
    url = aiohttp_server.url
    both_ways(name, lambda client: shown(client.get(url + "/stream?count=50&size=9999")))
    both_ways(name, lambda client: [client.get(f"{url}/{number}").json()["target"] for number in range(20)])
    theirs = {"files": {"f": ("n.txt", b"x" * 200_000)}}
    both_ways(name, lambda client: client.post(url + "/upload", **theirs).status_code)
    ours = clients()[name == "httpx"][2]
    with ours() as client:
        assert send(client, "put", url + "/upload", iter([b"x" * 70_000] * 20)).json()["bytes"] == 1_400_000


def test_unix_sockets(nginx: Nginx) -> None:
    path = nginx.unix_url.removeprefix("http+unix://")
    with httpx.Client(transport=iokernel.compat.httpx.Transport(uds=path)) as client:
        assert client.get("http://any.host/teapot").status_code == 418
    with iokernel.open(nginx.unix_url) as api:
        assert api.call("GET", "/teapot")[0] == 418


async def test_the_environment_names_proxies(aiohttp_server: AiohttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As httpx has it: by HTTP_PROXY, unless NO_PROXY names the host."""
    monkeypatch.setenv("HTTP_PROXY", aiohttp_server.url)
    monkeypatch.setenv("NO_PROXY", "near.test")
    async with iokernel.compat.httpx.AsyncClient() as client:
        assert (await client.get("http://far.test/x")).json()["headers"][0] == ["Host", "far.test"]
        with pytest.raises(httpx.ConnectError):
            await client.get("http://near.test/x", timeout=10)
    with iokernel.compat.httpx.Client() as sync, iokernel.compat.requests.Session() as session:
        for client in (sync, session):
            assert client.get("http://far.test/x").json()["headers"][0] == ["Host", "far.test"]
