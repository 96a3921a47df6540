"""What readers of HTTP take apart differently: to our server, through proxies to it, and to our client.

`support/http_cases.py` has the messages. None may be read as more requests than whoever sent it meant, or answer
another request than its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import iokernel
import iokernel.http
import pytest
from support.fixtures import or_skip
from support.haproxy import HAProxy
from support.http_cases import REQUESTS, RESPONSES, Case, Response
from support.nginx import Nginx
from support.raw_http import Raw, request

PATIENCE_S = 20
SILENCE_S = 0.3
"""After so long, a proxy waits for more of a request."""
AT_ONCE = 12
STAMP = "x-stamp"
"""A header with a number of its own for each request that a proxy has read."""


class Recorder:
    """Our server: answers each request with its target, and knows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, list[str]], bytes]] = []
        self._listener = iokernel.listen("http://127.0.0.1:0")
        self._thread = threading.Thread(target=self._listener.serve, args=(self._answer,))
        self._thread.start()
        self.address = self._listener.url.removeprefix("http://")

    def _answer(self, asked: iokernel.Request) -> Any:
        [method, target, headers, _, _], body = asked.args
        named: dict[str, list[str]] = {}
        for name, value in headers:
            named.setdefault(name.decode().lower(), []).append(value.decode("latin-1"))
        self.asked.append((method, target, named, body or b""))
        return [200, [], target.encode()]

    def close(self) -> None:
        self._listener.close()
        self._thread.join(5)


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.close()


@pytest.fixture
def server(recorder: Recorder) -> Recorder:
    """It was asked nothing yet."""
    recorder.asked.clear()
    return recorder


def wire(case: Case, number: int) -> bytes:
    """With targets that tell whose they are."""
    marked = re.sub(r"(?<= )(http://a)?([TS])(?=[ #x\x01\r])", rf"\1/\2-{number}", case.wire)
    return lengthened(case.wire, marked).encode("latin-1")


def lengthened(before: str, after: str) -> str:
    """Where a request stands within a body, its length has changed with its target."""
    head, empty, body = after.partition("\r\n\r\n")
    added = len(body) - len(before.partition("\r\n\r\n")[2])
    if not added:
        return after
    told = re.search(r"Content-Length: (\d+)$", head)
    if told and int(told[1]) + added == len(body):
        return f"{head[: told.start(1)]}{len(body)}{empty}{body}"
    size, line, rest = body.partition("\r\n")
    if rest.startswith("GET /S") and size.isalnum():
        return f"{head}{empty}{int(size, 16) + added:x}{line}{rest}"
    return after


@pytest.mark.parametrize("case", REQUESTS, ids=str)
def test_our_server_reads_them_in_one_way(case: Case, server: Recorder) -> None:
    sent = wire(case, 1)
    with Raw(server.address) as conn:
        replies = conn.send(sent).end().replies()
    read = [f"{method} {body.decode('latin-1')}" for method, _, _, body in server.asked]
    assert all(target.endswith("/T-1") for _, target, _, _ in server.asked), server.asked
    if isinstance(case.expected, int):
        assert [reply.status for reply in replies] == [case.expected]
        assert replies[-1].get("connection") == "close" and not read
    else:
        expected = [each.replace(" S ", " /S-1 ") for each in case.expected]
        assert read == expected
        assert [(reply.status, reply.body.endswith(b"/T-1")) for reply in replies] == [(200, True)] * len(expected)


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_what_a_proxy_lets_through_is_read_as_it_was_meant(kind: str, server: Recorder) -> None:
    """The proxy stamps each request that it reads, and keeps its connections to us for those of others."""
    with before(kind, server.address) as proxy:
        room = asyncio.Semaphore(AT_ONCE)

        async def try_one(number: int, case: Case) -> None:
            async with room:
                replied = await said(proxy, wire(case, number))
                assert not re.search(rf"/[AST]-(?!{number}(?!\d))", replied), f"{case}: another's answer: {replied!r}"
                after = await said(proxy, request("GET", f"/A-{number}"))
                assert after.endswith(f"/A-{number}"), f"after {case}: {after!r}"

        outcomes = await asyncio.gather(
            *(try_one(number, case) for number, case in enumerate(REQUESTS)), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if outcome is not None]
        assert not failures, failures
    stamps = [stamp for _, _, headers, _ in server.asked for stamp in headers.get(STAMP, [])]
    assert len(stamps) == len(set(stamps)) == len(server.asked), "a request that the proxy knows nothing of"
    for method, target, headers, _ in server.asked:
        meant = headers["x-meant"][0].split(" ")
        assert [method, target.removeprefix("http://a")] == [meant[0], meant[1].removeprefix("http://a")]
    passed = {target.removeprefix("http://a") for _, target, _, _ in server.asked}
    rights = [number for number, case in enumerate(REQUESTS) if not isinstance(case.expected, int)]
    assert {f"/T-{number}" for number in rights} <= passed, "what is right passes"
    assert {f"/A-{number}" for number in range(len(REQUESTS))} <= passed


@contextlib.contextmanager
def before(kind: str, address: str) -> Iterator[str]:
    if kind == "nginx":
        inside = f"""
          location / {{
            proxy_pass http://ours; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_set_header {STAMP} $request_id;
            proxy_set_header X-Meant "$request_method $request_uri";
          }}
        """
        around = f"ignore_invalid_headers off; upstream ours {{ server {address}; keepalive 4; }}"
        with or_skip(Nginx)(inside, around=around) as nginx:
            yield nginx.address
    else:
        front = f"""
          http-request set-header {STAMP} %[uuid]
          http-request set-header X-Meant "%[method] %[url]"
        """
        with or_skip(HAProxy)(f"http-reuse always\n  server one {address}", front=front) as haproxy:
            yield haproxy.address


async def said(address: str, sent: bytes) -> str:
    """What comes until there is silence, or the end."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    found = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(sent)
        while data := await asyncio.wait_for(reader.read(65_536), SILENCE_S if found else PATIENCE_S):
            found += data
            if sent.startswith(b"GET /A-") and found.partition(b"\r\n\r\n")[2]:
                break
    writer.close()
    return found.decode("latin-1")


class Liar:
    """A server of one connection after another: says to each request what the case of its target has, as it is, and to
    any other its target."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        buffer, ends = b"", False
        with conn, contextlib.suppress(OSError):
            while not ends:
                while b"\r\n\r\n" not in buffer:
                    data = conn.recv(65_536)
                    if not data:
                        return
                    buffer += data
                head, _, buffer = buffer.partition(b"\r\n\r\n")
                target = head.split(b" ")[1].decode()
                answer = LIES.get(target)
                text = f"HTTP/1.1 200 OK\r\nContent-Length: {len(target)}\r\n\r\n{target}"
                conn.sendall((text if answer is None else answer.wire).encode("latin-1"))
                ends = answer is not None and answer.ends

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


LIES = {f"/lie-{number}": case for number, case in enumerate(RESPONSES)}


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    made = Liar()
    yield made
    made.close()


@pytest.mark.parametrize("pipeline", ["false", "true"])
@pytest.mark.parametrize("target", LIES, ids=[str(case) for case in RESPONSES])
def test_no_response_answers_another_request(target: str, pipeline: str, liar: Liar) -> None:
    """With one connection at most, so that what follows would travel on the same one."""
    case: Response = LIES[target]
    with iokernel.http.open(f"http://{liar.address}", pool=1, pipeline=pipeline) as api:
        assert api.get("/before").text == "/before"
        try:
            reply = api.request(case.method, target, timeout=PATIENCE_S)
        except iokernel.ConnectionLost as error:
            assert case.expected is None, error
            assert error.fate in ("maybe_executed", "replied")
        else:
            assert f"{reply.status} {reply.text}" == case.expected
        for number in range(3):
            assert api.get(f"/after-{number}", timeout=PATIENCE_S).text == f"/after-{number}"


@pytest.mark.parametrize("target", LIES, ids=[str(case) for case in RESPONSES])
def test_no_stream_ends_whole_that_is_not(target: str, liar: Liar) -> None:
    case: Response = LIES[target]
    with iokernel.http.open(f"http://{liar.address}", pool=1) as api:
        try:
            with api.stream(case.method, target, timeout=PATIENCE_S, decode=False) as reply:
                whole = f"{reply.status} {reply.read().decode()}"
        except iokernel.ConnectionLost as error:
            assert case.expected is None, error
        else:
            assert whole == case.expected
        assert api.get("/after", timeout=PATIENCE_S).text == "/after"
