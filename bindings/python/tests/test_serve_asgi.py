"""ASGI 3.0: every kind of scope and message, in order and out of it, with a client that stays and one that leaves."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.net import wait_for
from support.serving import Served, read_all, rss_bytes
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

HEAD = '{"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}'

APP = """
import asyncio, contextvars, json, os

told = {}
context = contextvars.ContextVar("context", default="none")

def start(status=200, headers=(), **more):
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}

def body(content=b"", more=False):
    return {"type": "http.response.body", "body": content, "more_body": more}

async def whole(send, content, status=200):
    await send(start(status))
    await send(body(content))

async def read(receive):
    found = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        found += message.get("body", b"")
        if not message.get("more_body"):
            return found

async def scope(scope, receive, send):
    shown = {}
    for key, value in scope.items():
        shown[key] = value
    shown["headers"] = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
    shown["kinds"] = [type(one).__name__ for one in (scope["headers"], scope["headers"][0], scope["client"])]
    shown["raw_path"], shown["query_string"] = scope["raw_path"].decode(), scope["query_string"].decode()
    await whole(send, json.dumps(shown).encode())

async def echo(scope, receive, send):
    await whole(send, await read(receive))

async def echo_pieces(scope, receive, send):
    await send(start())
    while True:
        message = await receive()
        await send(body(message["body"], True))
        if not message["more_body"]:
            break
    await send(body())

async def count(scope, receive, send):
    total = 0
    while True:
        message = await receive()
        total += len(message["body"])
        if not message["more_body"]:
            break
    await whole(send, str(total).encode())

async def task(scope, receive, send):
    "The current task is one and the same before and after the first wait, and does what tasks do."
    before = asyncio.current_task()
    names = [before.get_name()] if scope["query_string"] == b"early" else []
    before.set_name("mine")
    context.set(scope["query_string"].decode())
    called = []
    before.add_done_callback(lambda _: told.setdefault("callbacks", []).append("called"))
    await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    after = asyncio.current_task()
    same = [before is after, after in asyncio.all_tasks(), after.get_name(), context.get(), after.done()]
    await whole(send, json.dumps(same).encode())

async def sync_task(scope, receive, send):
    "As above, in a handler that never waits."
    task = asyncio.current_task()
    seen = [context.get(), task is not None]
    context.set("left behind")
    task.add_done_callback(lambda task: told.setdefault("sync_callbacks", []).append(task.exception() is None))
    await whole(send, json.dumps(seen).encode())

async def timeouts(scope, receive, send):
    results = []
    try:
        await asyncio.wait_for(asyncio.sleep(10), 0.01)
    except asyncio.TimeoutError:
        results.append("timeout")
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0.001))
    waiter = asyncio.create_task(receive())
    results.append((await waiter)["type"])
    await whole(send, json.dumps(results).encode())

async def cancels_itself(scope, receive, send):
    asyncio.current_task().cancel()
    try:
        await asyncio.sleep(1)
    except asyncio.CancelledError:
        await whole(send, b"cancelled")

async def background(scope, receive, send):
    await whole(send, b"sent")
    await asyncio.sleep(0.3)
    told["background"] = told.get("background", 0) + 1

async def disconnect(scope, receive, send):
    await read(receive)
    message = await receive()
    told["disconnect"] = message["type"]
    await send(start())
    for _ in range(10):
        try:
            await send(body(b"x", True))
            await asyncio.sleep(0.05)
        except OSError:
            told["error"] = "OSError"

async def after_the_end(scope, receive, send):
    await read(receive)
    waiting = asyncio.create_task(receive())
    await asyncio.sleep(0)
    await whole(send, b"x")
    told["after"] = [(await waiting)["type"], (await receive())["type"]]
    try:
        await send(body(b"y"))
    except RuntimeError as error:
        told["after"].append(str(error))

async def raises(scope, receive, send):
    raise ValueError("on purpose")

async def raises_later(scope, receive, send):
    await asyncio.sleep(0)
    raise ValueError("on purpose")

async def raises_in_the_middle(scope, receive, send):
    await send(start())
    await send(body(b"first", True))
    raise ValueError("on purpose")

async def raises_at_the_end(scope, receive, send):
    await whole(send, b"fine")
    raise ValueError("behind")

async def returns(scope, receive, send):
    return

async def returns_after_start(scope, receive, send):
    await send(start())

async def returns_in_the_middle(scope, receive, send):
    await send(start())
    await send(body(b"first", True))

async def body_first(scope, receive, send):
    try:
        await send(body(b"x"))
    except RuntimeError as error:
        await whole(send, str(error).encode())

async def start_twice(scope, receive, send):
    await send(start())
    try:
        await send(start())
    except RuntimeError as error:
        await send(body(str(error).encode()))

async def unknown(scope, receive, send):
    try:
        await send({"type": "http.response.nonsense"})
    except RuntimeError as error:
        await whole(send, str(error).encode())

async def bad_status(scope, receive, send):
    try:
        await send(start(1000))
    except RuntimeError as error:
        await whole(send, str(error).encode())

async def no_headers(scope, receive, send):
    await send({"type": "http.response.start", "status": 204})
    await send({"type": "http.response.body"})

async def kinds_of_bytes(scope, receive, send):
    await send(start(200, ([b"x-list", b"1"], (b"x-tuple", b"2"))))
    await send(body(bytearray(b"one "), True))
    await send(body(memoryview(b"two "), True))
    await send(body(b"three"))

async def injects(scope, receive, send):
    await send(start(200, [(b"x-a", b"1\\r\\nx-b: 2")]))
    await send(body(b"x"))

async def big(scope, receive, send):
    await whole(send, b"x" * 3_000_000)

async def trailers(scope, receive, send):
    await send(start(200, [(b"trailer", b"x-sum")], trailers=True))
    await send(body(b"content"))
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"7")], "more_trailers": True})
    await send({"type": "http.response.trailers", "headers": [(b"x-more", b"8")]})

async def path(scope, receive, send):
    await send(start(200, [(b"content-type", b"application/octet-stream")]))
    await send({"type": "http.response.pathsend", "path": os.path.abspath("big")})

async def no_path(scope, receive, send):
    await send(start())
    try:
        await send({"type": "http.response.pathsend", "path": os.path.abspath("missing")})
    except FileNotFoundError:
        await send(body(b"missing"))

async def hints(scope, receive, send):
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
    await whole(send, b"hinted")

async def flood(scope, receive, send):
    await send(start())
    for number in range(1, 1001):
        await send(body(b"x" * 65536, True))
        told["flood"] = number
    await send(body())

async def tell(scope, receive, send):
    await whole(send, json.dumps(told).encode())

async def state(scope, receive, send):
    scope["state"]["mine"] = scope["state"].get("mine", 0) + 1
    scope["state"]["shared"].append(1)
    await whole(send, json.dumps(scope["state"]).encode())

async def lifespan(scope, receive, send):
    scope["state"]["shared"] = []
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            print("shut down", flush=True)
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return

async def websocket(scope, receive, send):
    path = scope["path"][1:]
    message = await receive()
    assert message == {"type": "websocket.connect"}, message
    if path == "refuse":
        return await send({"type": "websocket.close", "code": 4000})
    if path == "deny":
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"no")]})
        return await send({"type": "websocket.http.response.body", "body": b"denied"})
    if path == "raise":
        raise ValueError("on purpose")
    if path == "too_early":
        try:
            await send({"type": "websocket.send", "text": "x"})
        except RuntimeError as error:
            told["too_early"] = str(error)
    accept = {"type": "websocket.accept", "headers": [(b"x-hello", b"world")]}
    if scope["subprotocols"]:
        accept["subprotocol"] = scope["subprotocols"][-1]
    await send(accept)
    if path == "scope":
        shown = {key: value for key, value in scope.items() if key not in ("headers", "raw_path", "query_string")}
        await send({"type": "websocket.send", "text": json.dumps(shown)})
    if path == "raise_later":
        raise ValueError("on purpose")
    if path == "return":
        return
    if path == "close":
        return await send({"type": "websocket.close", "code": 4001, "reason": "enough"})
    if path == "both":
        try:
            await send({"type": "websocket.send", "text": "x", "bytes": b"x"})
        except RuntimeError as error:
            return await send({"type": "websocket.close", "code": 4002, "reason": str(error)[:100]})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            told["websocket"] = [message["code"], message["reason"]]
            try:
                await send({"type": "websocket.send", "text": "too late"})
            except OSError:
                told["websocket"].append("OSError")
            return
        if message.get("text") == "flood":
            for number in range(1, 501):
                await send({"type": "websocket.send", "bytes": b"x" * 65536})
                told["websocket_flood"] = number
            continue
        kind = "text" if message.get("text") is not None else "bytes"
        await send({"type": "websocket.send", kind: message[kind]})

async def app(scope_, receive, send):
    if scope_["type"] == "lifespan":
        return await lifespan(scope_, receive, send)
    if scope_["type"] == "websocket":
        return await websocket(scope_, receive, send)
    await globals()[scope_["path"].split("/")[1]](scope_, receive, send)
"""


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served(APP, "--loop", request.param, "--max-request", "1GiB") as served:
        (served.folder / "big").write_bytes(bytes(range(256)) * 20_000)
        yield served
        served.stop()
        assert "shut down" in served.text() and "was never" not in served.text()


def told(served: Served, key: str) -> object:
    """What the application has told of itself."""
    wait_for(key, lambda: key in json.loads(served.get("/tell").body))
    return json.loads(served.get("/tell").body)[key]


def test_a_scope_has_what_asgi_asks_for(served: Served) -> None:
    shown = json.loads(served.request("POST", "/scope/caf%C3%A9?a=%20", b"x", X_One="1").body)
    expected = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/scope/café",
        "raw_path": "/scope/caf%C3%A9",
        "query_string": "a=%20",
        "root_path": "",
        "server": ["127.0.0.1", served.port],
        "kinds": ["list", "tuple", "tuple"],
    }
    assert {key: shown.get(key) for key in expected} == expected
    assert ["x-one", "1"] in shown["headers"] and ["host", f"127.0.0.1:{served.port}"] in shown["headers"]
    assert shown["client"][0] == "127.0.0.1" and "http.response.pathsend" in shown["extensions"]


def test_bodies_come_whole_or_in_pieces(served: Served) -> None:
    client = served.client()
    for size in (0, 1, 1000, 65536, 65537, 300_000):
        for path in ("/echo", "/echo_pieces"):
            client.request("POST", path, b"z" * size)
            assert client.getresponse().read() == b"z" * size, (path, size)
    client.close()
    answer = served.request("POST", "/echo", iter([b"a" * 70_000, b"b" * 70_000]), Transfer_Encoding="chunked")
    assert answer.body == b"a" * 70_000 + b"b" * 70_000


def test_the_task_of_a_request_is_one_from_its_first_step_on(served: Served) -> None:
    for query in ("first", "early", "third"):
        assert json.loads(served.get(f"/task?{query}").body) == [True, True, "mine", query, False]
    assert told(served, "callbacks") == ["called"] * 3
    for _ in range(3):
        assert json.loads(served.get("/sync_task").body) == ["none", True], "contexts are apart"
    wait_for("callbacks", lambda: told(served, "sync_callbacks") == [True] * 3)
    assert json.loads(served.get("/timeouts").body) == ["timeout", "http.request"]
    assert served.get("/cancels_itself").body == b"cancelled"


def test_what_runs_on_behind_a_response_runs_to_its_end(served: Served) -> None:
    assert served.get("/background").body == b"sent"
    assert told(served, "background") == 1


def test_a_client_that_leaves_is_noticed(served: Served) -> None:
    with served.connect() as conn:
        conn.sendall(b"GET /disconnect HTTP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(0.1)
    assert told(served, "disconnect") == "http.disconnect"
    assert told(served, "error") == "OSError"


def test_a_client_that_only_stops_sending_gets_its_response(served: Served) -> None:
    with served.connect() as conn:
        conn.sendall(b"GET /disconnect HTTP/1.1\r\nHost: h\r\n\r\n")
        conn.shutdown(socket.SHUT_WR)
        assert read_all(conn).count(b"\r\nx\r\n") == 10


def test_a_response_that_is_over_is_over(served: Served) -> None:
    assert served.get("/after_the_end").body == b"x"
    first, second, error = told(served, "after")  # type: ignore[misc]
    assert (first, second) == ("http.disconnect", "http.disconnect") and "after the end" in error


@pytest.mark.parametrize("path", ["raises", "raises_later", "returns", "returns_after_start"])
def test_a_failure_is_a_500(served: Served, path: str) -> None:
    answer = served.get(f"/{path}")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")


def test_a_failure_is_logged_once(served: Served) -> None:
    before = served.text().count("ValueError: on purpose")
    served.get("/raises")
    served.get("/raises_later")
    wait_for("the log", lambda: served.text().count("ValueError: on purpose") == before + 2)
    assert served.get("/raises_at_the_end").body == b"fine"
    wait_for("the log", lambda: "ValueError: behind" in served.text())


@pytest.mark.parametrize("path", ["raises_in_the_middle", "returns_in_the_middle"])
def test_a_response_that_stops_in_the_middle_is_seen_to_be_incomplete(served: Served, path: str) -> None:
    with pytest.raises(http.client.IncompleteRead) as caught:
        served.get(f"/{path}")
    assert caught.value.partial == b"first"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("body_first", "expected 'http.response.start' first"),
        ("start_twice", "expected 'http.response.body'"),
        ("unknown", "'http.response.nonsense'"),
        ("bad_status", "from 200 to 999"),
    ],
)
def test_messages_out_of_order_are_refused(served: Served, path: str, says: str) -> None:
    answer = served.get(f"/{path}")
    assert answer.status == 200 and says in answer.text


def test_responses_as_they_may_be_sent(served: Served) -> None:
    assert (served.get("/no_headers").status, served.get("/no_headers").body) == (204, b"")
    kinds = served.get("/kinds_of_bytes")
    assert (kinds.headers["x-list"], kinds.headers["x-tuple"], kinds.body) == ("1", "2", b"one two three")
    big = served.get("/big")
    assert (len(big.body), big.headers["content-length"]) == (3_000_000, "3000000")
    assert served.request("HEAD", "/big").headers["content-length"] == "3000000"
    assert (served.get("/injects").status, served.get("/injects").headers["x-b"]) == (500, None)


def test_extensions_of_a_response(served: Served) -> None:
    raw = served.raw(b"GET /trailers HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert raw.endswith(b"0\r\nx-sum: 7\r\nx-more: 8\r\n\r\n"), raw
    answer = served.get("/path")
    assert (answer.body, answer.headers["content-length"]) == (bytes(range(256)) * 20_000, "5120000")
    assert served.get("/no_path").body == b"missing"
    raw = served.raw(b"GET /hints HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n"), raw
    fds = Path(f"/proc/{served.workers[0]}/fd")
    wait_for("files to be closed", lambda: not [fd for fd in fds.iterdir() if fd.readlink().name == "big"])


def test_a_slow_reader_holds_the_application_and_memory_is_bounded(served: Served) -> None:
    before = rss_bytes(served.workers[0])
    with served.connect() as conn:
        conn.sendall(b"GET /flood HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        seen = -1
        while seen != (seen := int(str(told(served, "flood")))):
            time.sleep(0.2)
        assert seen < 500, "of 1000 pieces"
        assert rss_bytes(served.workers[0]) - before < 16 << 20
        assert len(read_all(conn)) > 65_536_000
    assert told(served, "flood") == 1000


def test_a_large_upload_needs_little_memory(served: Served) -> None:
    count, piece = 64 << 20, b"y" * (1 << 20)
    most = before = rss_bytes(served.workers[0])

    def pieces() -> Iterator[bytes]:
        nonlocal most
        for _ in range(count // len(piece)):
            most = max(most, rss_bytes(served.workers[0]))
            yield piece

    assert served.request("PUT", "/count", pieces(), Content_Length=str(count)).body == str(count).encode()
    assert most - before < 16 << 20, f"{(most - before) >> 20} MiB"


def test_the_state_of_a_lifespan_is_every_request_s_own_copy(served: Served) -> None:
    first, second = (json.loads(served.get("/state").body) for _ in range(2))
    assert (first["mine"], second["mine"]) == (1, 1)
    assert len(second["shared"]) == len(first["shared"]) + 1


def web(served: Served, path: str, **options: object) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{served.port}/{path}", open_timeout=20, **options)  # type: ignore[arg-type]


def test_messages_of_a_websocket_come_back_as_they_were(served: Served) -> None:
    with web(served, "echo") as socket_:
        for message in ("Hello", "", "ä" * 50_000, b"bytes", b"", b"\0" * 200_000):
            socket_.send(message)
            assert socket_.recv(20) == message
        assert socket_.ping().wait(20), "the kernel answers"
        assert socket_.response is not None and socket_.response.headers["x-hello"] == "world"
        socket_.close(4321, "done here")
    assert told(served, "websocket") == [4321, "done here", "OSError"]


def test_the_scope_of_a_websocket(served: Served) -> None:
    with web(served, "scope", subprotocols=["one", "two"]) as socket_:
        assert socket_.subprotocol == "two"
        shown = json.loads(socket_.recv(20))
    assert (shown["type"], shown["scheme"], shown["path"], shown["subprotocols"]) == (
        "websocket",
        "ws",
        "/scope",
        ["one", "two"],
    )
    assert "websocket.http.response" in shown["extensions"]


def test_websockets_that_are_not_accepted(served: Served) -> None:
    for path, status, body in [
        ("refuse", 403, b""),
        ("deny", 401, b"denied"),
        ("raise", 500, b"Internal Server Error\n"),
    ]:
        with pytest.raises(InvalidStatus) as caught:
            web(served, path)
        response = caught.value.response
        assert (response.status_code, response.body or b"") == (status, body), path
    with web(served, "too_early"):
        assert "expected 'websocket.accept'" in str(told(served, "too_early"))


@pytest.mark.parametrize(("path", "code"), [("close", 4001), ("return", 1000), ("raise_later", 1011), ("both", 4002)])
def test_codes_with_which_the_server_closes(served: Served, path: str, code: int) -> None:
    with web(served, path) as socket_:
        with pytest.raises(ConnectionClosed):
            socket_.recv(20)
        assert socket_.close_code == code
        if path == "close":
            assert socket_.close_reason == "enough"


def test_a_websocket_that_is_cut_is_1006(served: Served) -> None:
    with web(served, "echo") as socket_:
        socket_.socket.shutdown(socket.SHUT_RDWR)
        wait_for("the disconnect", lambda: told(served, "websocket") == [1006, "", "OSError"])


def test_a_websocket_that_is_not_read_holds_the_application(served: Served) -> None:
    with web(served, "echo", max_queue=1, compression=None) as socket_:
        socket_.send("flood")
        seen = -1
        while seen != (seen := int(str(told(served, "websocket_flood")))):
            time.sleep(0.3)
        assert seen < 400, "of 500 messages"
        for _ in range(500):
            assert len(socket_.recv(20)) == 65536


def test_a_startup_that_fails_ends_the_server() -> None:
    source = """
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
    """
    with Served(source) as served:
        assert served.wait() == 3
        assert "no database" in served.text()


@pytest.mark.parametrize(("mode", "serves"), [("auto", True), ("off", True), ("on", False)])
def test_an_application_that_knows_no_lifespan(mode: str, serves: bool) -> None:
    source = """
    async def app(scope, receive, send):
        assert scope["type"] == "http", scope["type"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})
    """
    with Served(source, "--lifespan", mode) as served:
        if serves:
            assert served.get("/").body == b"x"
        else:
            assert served.wait() == 3
