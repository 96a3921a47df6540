"""Real clients at our server: curl, Python's, aiohttp's, Chromium, and one that pipelines."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import shutil
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from playwright.sync_api import Page, sync_playwright
from support.curl import curl
from support.fixtures import or_skip
from support.http_app import BLOCK, digest_of
from support.raw_http import Raw, request
from support.serving import Served

BODY = BLOCK * 2
DIGEST = hashlib.sha256(BODY).hexdigest()
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with Served("from support.http_app import app", "--health", "/healthz", "--max-request", "8MiB") as made:
        yield made


@pytest.fixture(scope="module")
def url(server: Served) -> str:
    return f"http://127.0.0.1:{server.port}"


def curled(*arguments: str, data: bytes | None = None) -> bytes:
    return or_skip(curl)(*arguments, data=data).output


def test_curl_gets_and_posts(url: str) -> None:
    told = json.loads(curled(f"{url}/a%20b/?c=d&e", "-H", "X-A: 1", "-H", "X-A: 2"))
    assert (told["method"], told["target"], told["version"]) == ("GET", "/a%20b/?c=d&e", "1.1")
    assert [value for name, value in told["headers"] if name == "x-a"] == ["1", "2"]
    posted = json.loads(curled(f"{url}/", "--data-binary", "@-", data=BODY))
    assert (posted["method"], posted["size"], posted["sha256"]) == ("POST", len(BODY), DIGEST)
    assert json.loads(curled(f"{url}/", "-X", "OPTIONS", "--request-target", "*"))["target"] == "*"
    assert hashlib.sha256(curled(f"{url}/bytes?size=3000000")).hexdigest() == digest_of(3_000_000)


def test_curl_uploads_what_it_does_not_know_the_length_of(url: str) -> None:
    """`-T -` is chunked, and curl waits for its 100 first."""
    done = or_skip(curl)("-v", "-T", "-", f"{url}/", "-H", "Expect: 100-continue", data=BODY)
    told = json.loads(done.output)
    assert (told["method"], told["size"], told["sha256"]) == ("PUT", len(BODY), DIGEST)
    assert ["transfer-encoding", "chunked"] in told["headers"]
    assert "HTTP/1.1 100 Continue" in done.talk


def test_curl_is_refused_before_it_sends_too_much(url: str) -> None:
    done = or_skip(curl)(
        "-v", f"{url}/", "-H", "Expect: 100-continue", "--expect100-timeout", "15", "--data-binary", "@-", data=BODY * 5
    )
    assert "HTTP/1.1 413" in done.talk and "100 Continue" not in done.talk
    assert "upload completely sent" not in done.talk


def test_curl_keeps_a_connection_for_what_has_no_body(url: str) -> None:
    """What the application gives with 204, 304 or to HEAD is not sent; curl says "Excess found" if it is."""
    count = ["-w", "%{num_connects} %{http_code}\n", "-o", "/dev/null"]
    wanted = ["/status/204", "/status/304", "/status/200", "/status/205", "/x"]
    arguments = [part for path in wanted for part in (*count, f"{url}{path}")]
    done = or_skip(curl)("-v", *arguments)
    assert done.output.decode().split("\n")[:-1] == ["1 204", "0 304", "0 200", "0 205", "0 200"]
    assert "Excess" not in done.talk
    done = or_skip(curl)("-v", "--head", *count, f"{url}/bytes?size=1000", *count, f"{url}/status/200")
    assert done.output.decode().split() == ["1", "200", "0", "200"]
    assert "Excess" not in done.talk and "Content-Length: 1000" in done.talk


def test_curl_speaks_the_old_version(url: str) -> None:
    """Without chunks: what has no length ends with the connection."""
    output = curled("--http1.0", "-i", f"{url}/pieces?count=3&size=5")
    head, _, body = output.partition(b"\r\n\r\n")
    assert body == b"x" * 15
    assert b"transfer-encoding" not in head.lower() and b"connection: close" in head.lower()
    twice = ["-w", "%{num_connects}", f"{url}/status/200"]
    assert curled("--http1.0", *twice, *twice) == b"a body\n1" * 2
    kept = ["-H", "Connection: keep-alive", *twice]
    assert curled("--http1.0", *kept, *twice) == b"a body\n1a body\n0"


def test_curl_asks_for_health_and_for_nothing(url: str) -> None:
    assert json.loads(curled(f"{url}/healthz"))["status"] == "ok"
    assert curled("--head", "-w", "%{http_code}", "-o", "/dev/null", f"{url}/healthz") == b"200"
    counts = json.loads(curled(f"{url}/counts"))
    assert (
        json.loads(curled(f"{url}/healthz", f"{url}/counts").partition(b"\n")[2])["requests"] == counts["requests"] + 1
    )


def test_pythons_client(server: Served) -> None:
    client = server.client()
    client.connect()
    socket = client.sock
    for _ in range(3):
        client.request("POST", "/", iter([b"ab", b"cde"] * 3), encode_chunked=True)
        told = json.loads(client.getresponse().read())
        assert (told["size"], told["method"]) == (15, "POST")
        client.request("GET", "/pieces?count=10&size=1000", headers={"Connection": "keep-alive"})
        response = client.getresponse()
        assert [len(response.read(4096)) for _ in range(4)] == [4096, 4096, 1808, 0]
        client.request("HEAD", "/bytes?size=5")
        assert (head := client.getresponse()).read() == b"" and head.headers["Content-Length"] == "5"
        assert client.sock is socket, "one connection for all of it"
    client.close()
    old = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    old.putrequest("GET", "/status/200", skip_host=True)
    old.endheaders()
    assert old.getresponse().status == 400, "a request of HTTP/1.1 without a Host"
    old.close()


async def test_aiohttps_client(url: str) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=20)) as session:

        async def one(number: int) -> Any:
            async with session.post(f"{url}/n/{number}", data=b"%d" % number) as reply:
                return await reply.json()

        told = await asyncio.gather(*(one(number) for number in range(200)))
        assert [each["target"] for each in told] == [f"/n/{number}" for number in range(200)]
        assert len({tuple(each["client"]) for each in told}) <= 20

        async def pieces() -> Any:
            for at in range(0, len(BODY), 50_000):
                yield BODY[at : at + 50_000]

        async with session.put(f"{url}/", data=pieces()) as reply:
            assert (await reply.json())["sha256"] == DIGEST
        async with session.get(f"{url}/bytes?size=3000000") as reply:
            made = hashlib.sha256()
            async for data in reply.content.iter_any():
                made.update(data)
            assert made.hexdigest() == digest_of(3_000_000)
        async with session.get(f"{url}/gated") as reply:
            assert await reply.content.readline() == b"first\n"
            async with session.get(f"{url}/open") as other:
                assert other.status == 200
            assert await reply.content.readline() == b"second\n"


def test_requests_that_are_pipelined_are_answered_in_their_order(server: Served) -> None:
    """Whole in one write, though the application is done with later ones first."""
    asked = [request("GET", f"/slow?ms={ms}") + request("GET", f"/turn/{ms}") for ms in (150, 0, 100, 50, 0)]
    asked += [request("POST", f"/p/{size}", body=b"x" * size) for size in range(1, 50)]
    with Raw(f"127.0.0.1:{server.port}") as conn:
        conn.send(b"".join(asked) + request("HEAD", "/status/200") + request("GET", "/last", "Connection: close"))
        for ms in (150, 0, 100, 50, 0):
            assert conn.reply().body == b"slow\n"
            assert json.loads(conn.reply().body)["target"] == f"/turn/{ms}"
        for size in range(1, 50):
            told = json.loads(conn.reply().body)
            assert (told["target"], told["size"]) == (f"/p/{size}", size)
        assert conn.reply("HEAD").status == 200
        last = conn.reply()
        assert json.loads(last.body)["target"] == "/last" and last.get("connection") == "close"
        assert conn.rest() == b""


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[Page]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian: chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        made = browser.new_page()
        made.goto(f"{url}/page")
        yield made
        browser.close()


def test_a_browser_loads_and_fetches(page: Page) -> None:
    assert page.title() == "page"
    told = page.evaluate("""async () => {
        const conns = new Set(), sizes = [];
        for (let n = 0; n < 20; n++) {
            const odd = n % 2, how = odd ? {method: "POST", body: "x".repeat(n)} : {};
            const told = await (await fetch("/n/" + n, how)).json();
            conns.add(told.client[1]); sizes.push(told.size);
        }
        const empty = [];
        for (const status of [204, 205, 304, 404])
            empty.push((await (await fetch("/status/" + status)).arrayBuffer()).byteLength);
        return {conns: conns.size, sizes, empty};
    }""")
    assert told["conns"] == 1, "one after another on one connection"
    assert told["sizes"] == [number if number % 2 else 0 for number in range(20)]
    assert told["empty"] == [0, 0, 0, len(b"a body\n")]


def test_a_browser_downloads_and_uploads(page: Page) -> None:
    told = page.evaluate("""async () => {
        const hex = async bytes => {
            const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
            return [...digest].map(byte => byte.toString(16).padStart(2, "0")).join("");
        };
        const bytes = await (await fetch("/bytes?size=5000000")).arrayBuffer();
        const upload = await (await fetch("/up", {method: "PUT", body: bytes})).json();
        const target = async n => (await (await fetch("/n/" + n)).json()).target;
        const together = await Promise.all([...Array(30).keys()].map(target));
        return {down: await hex(bytes), up: upload.sha256, together};
    }""")
    assert told["down"] == told["up"] == digest_of(5_000_000)
    assert told["together"] == [f"/n/{number}" for number in range(30)]


def test_a_browser_streams(page: Page) -> None:
    told = page.evaluate("""async () => {
        const reader = (await fetch("/gated")).body.getReader(), text = data => new TextDecoder().decode(data.value);
        const first = text(await reader.read());
        await fetch("/open");
        const second = text(await reader.read());
        const events = await new Promise(done => {
            const heard = [], source = new EventSource("/events?count=50");
            source.onmessage = event => { heard.push(event.lastEventId + " " + event.data); };
            source.onerror = () => { source.close(); done(heard); };
        });
        return {first, second, events};
    }""")
    assert (told["first"], told["second"]) == ("first\n", "second\n")
    assert told["events"] == [f"{number} event {number}" for number in range(50)]


def test_a_browser_chats(page: Page) -> None:
    told = page.evaluate("""() => new Promise((done, failed) => {
        const socket = new WebSocket("ws://" + location.host + "/chat", ["chat.v2", "chat.v1"]), heard = [];
        const big = "é".repeat(300000);
        socket.binaryType = "arraybuffer";
        socket.onopen = () => ["hello", big, new Uint8Array(100000), "close"].forEach(message => socket.send(message));
        socket.onmessage = event => heard.push(event.data === big ? "big" : event.data.byteLength ?? event.data);
        socket.onclose = ({code, reason}) =>
            done({heard, code, reason, protocol: socket.protocol, extensions: socket.extensions});
    })""")
    assert told["heard"] == ["hello", "big", 100_000]
    assert (told["code"], told["reason"], told["protocol"]) == (4001, "as you wish", "chat.v2")
    assert "permessage-deflate" in told["extensions"]
