"""What readers of HTTP take apart differently: to our server, through proxies to it, and to our client.

`tests/corpus` has the messages. None may be read as more requests than whoever sent it meant, or answer another request
than its own.
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
from support import corpus
from support.corpus import Case
from support.fixtures import or_skip
from support.haproxy import HAProxy
from support.nginx import Nginx
from support.raw_http import Raw, Reply, request

PATIENCE_S = 20
SILENCE_S = 0.3
"""After so long, a proxy waits for more of a request."""
AT_ONCE = 16
STAMP = "X-Stamp"
"""A number of its own for each request that a proxy has read: told to us, and told with the response that it takes for
that request's."""
REQUESTS = corpus.requests()
RESPONSES = corpus.responses()


class Recorder:
    """Our server: knows what it was asked, and answers with the stamp."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, list[str], bytes | None]] = []
        """Method, target, stamps, body."""
        self._listener = iokernel.listen("http://127.0.0.1:0?stream_above=2MiB&max_request=1MiB")
        self._thread = threading.Thread(target=self._listener.serve, args=(self._answer,))
        self._thread.start()
        self.address = self._listener.url.removeprefix("http://")

    def _answer(self, asked: iokernel.Request) -> Any:
        [method, target, headers, _, _], body = asked.args
        stamps = [value.decode() for name, value in headers if name.lower() == STAMP.lower().encode()]
        self.asked.append((method, target, stamps, body))
        return [200, [["X-Read", stamp] for stamp in stamps], target.encode()]

    def close(self) -> None:
        self._listener.close()
        self._thread.join(5)


@pytest.fixture
def server() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.close()


def test_our_server_reads_them_in_one_way(server: Recorder) -> None:
    failures = []
    for case in REQUESTS:
        server.asked.clear()
        replies = replies_to(server.address, case)
        read = [shown(*each) for each in server.asked]
        served = [outcome for outcome in case.outcomes if not re.fullmatch(r"\d+|end|wait", outcome)]
        refused = [int(outcome) for outcome in case.outcomes if outcome.isdigit()]
        statuses = [reply.status for reply in replies]
        if read != served or statuses != [200] * len(served) + refused:
            failures.append(f"{case}: read {read}, said {statuses}")
        if refused and replies[-1].get("connection") != "close":
            failures.append(f"{case}: the connection is kept")
    assert not failures, "\n".join(failures)


def shown(method: str, target: str, _: list[str], body: bytes | None) -> str:
    """As the corpus has it."""
    return f"{method} {target}" + ("" if body is None else f" '{body.decode('latin-1')}'")


def replies_to(address: str, case: Case) -> list[Reply]:
    """Until the connection ends, at our end of it at the latest. Interim responses are left out."""
    with Raw(address) as conn:
        with contextlib.suppress(ConnectionError):
            conn.send(case.wire).end()
        found = []
        for outcome in case.outcomes:
            if outcome in ("end", "wait"):
                break
            reply = conn.reply(outcome.partition(" ")[0])
            while reply.status < 200:
                reply = conn.reply(outcome.partition(" ")[0])
            found.append(reply)
        assert conn.rest() == b"", f"{case}: more than was asked for"
    return found


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_what_a_proxy_lets_through_is_read_as_it_was_meant(kind: str, server: Recorder) -> None:
    """It keeps its connections to us for the requests of others, and each of its responses is its own request's."""
    follow_ups = 0
    with before(kind, server.address) as proxy:
        room = asyncio.Semaphore(AT_ONCE)

        async def try_one(number: int, case: Case) -> None:
            nonlocal follow_ups
            async with room:
                replied = await said(proxy, case.wire, SILENCE_S)
                assert astray(replied) == [], f"{case}: {replied!r}"
                after = await said(proxy, request("GET", f"/after/{number}", "Connection: close"))
                assert after.endswith(f"/after/{number}") and astray(after) == [], f"after {case}: {after!r}"
                follow_ups += 1

        tries = [try_one(number, case) for number, case in enumerate(REQUESTS)]
        failures = [outcome for outcome in await asyncio.gather(*tries, return_exceptions=True) if outcome]
    assert not failures, "\n".join(str(failure) for failure in failures)
    assert follow_ups == len(REQUESTS)
    stamps = [stamp for _, _, stamps, _ in server.asked for stamp in stamps]
    assert len(stamps) == len(set(stamps)) == len(server.asked), "a request that the proxy knows nothing of"
    assert len(server.asked) > len(REQUESTS) + 40, "some of the corpus passes"


def astray(replied: str) -> list[tuple[str, str]]:
    """Responses of another request than the proxy takes them for: of which they are, and of which it takes them for."""
    heads = re.findall(r"HTTP/1\.1 200 .*?\r\n\r\n", replied, re.DOTALL)
    pairs = [(stamped(head, "X-Read"), stamped(head, STAMP)) for head in heads]
    return [(read, meant) for read, meant in pairs if read != meant]


def stamped(head: str, name: str) -> str:
    found = re.search(rf"^{name}: (\S+)\r$", head, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else f"no {name}"


@contextlib.contextmanager
def before(kind: str, address: str) -> Iterator[str]:
    if kind == "nginx":
        inside = f"""
          location / {{
            proxy_pass http://ours; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering off; proxy_set_header {STAMP} $request_id;
            add_header {STAMP} $request_id always;
          }}
        """
        around = f"ignore_invalid_headers off; upstream ours {{ server {address}; keepalive 4; }}"
        with or_skip(Nginx)(inside, around=around) as nginx:
            yield nginx.address
    else:
        front = f"""
          unique-id-format %[uuid]
          unique-id-header {STAMP}
          http-response set-header {STAMP} %[unique-id]
        """
        with or_skip(HAProxy)(f"http-reuse always\n  server one {address}", front=front) as haproxy:
            yield haproxy.address


async def said(address: str, sent: bytes, silence_s: float = PATIENCE_S) -> str:
    """What comes until there is so much silence, or the end."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    found = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(sent)
        while data := await asyncio.wait_for(reader.read(65_536), silence_s):
            found += data
    writer.close()
    return found.decode("latin-1")


class Liar:
    """A server that says to a request what the case of its target has, as it is, and to any other its target."""

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
                lie, _, poisons = target.partition("?")
                if case := LIES.get(lie):
                    conn.sendall(case.wire + (POISON if poisons else b""))
                    ends = case.closes
                else:
                    text = f"HTTP/1.1 200 OK\r\nContent-Length: {len(target)}\r\n\r\n{target}"
                    conn.sendall(text.encode())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
LIES = {
    f"/lie/{number}": case
    for number, case in enumerate(RESPONSES)
    if case.outcomes[-1] != "wait" and "CONNECT" not in case.asked
}


@pytest.fixture(scope="module")
def liar() -> Iterator[Liar]:
    made = Liar()
    yield made
    made.close()


@pytest.mark.parametrize("pipeline", ["false", "true"])
@pytest.mark.parametrize("poison", ["", "?poison"])
def test_no_response_answers_another_request(pipeline: str, poison: str, liar: Liar) -> None:
    """With one connection at most, so that what follows would travel on the same one; also where another response
    follows that nobody has asked for."""
    failures = []
    with iokernel.http.open(f"http://{liar.address}", pool=1, pipeline=pipeline, backoff="1ms") as api:
        for target, case in LIES.items():
            if poison and (case.closes or case.outcomes[-1] == "lost" or "lane" in case.outcomes[0]):
                continue
            try:
                ask(api, target + poison, case, is_whole=not poison)
            except AssertionError as failure:
                failures.append(f"{case}: {failure}")
    assert not failures, "\n\n".join(failures)


def ask(api: iokernel.http.HttpEndpoint, target: str, case: Case, is_whole: bool) -> None:
    assert api.get("/before").text == "/before"
    wanted = case.outcomes[0] if case.outcomes[0][:1].isdigit() else None
    outcome = None
    try:
        outcome = asked(api, target, case)
    except iokernel.ConnectionLost as error:
        assert error.fate in ("maybe_executed", "replied"), error
    assert outcome == wanted or (not is_whole and outcome is None), f"{outcome}, not {wanted}"
    for number in range(3):
        after = api.get(f"/after/{number}", timeout=PATIENCE_S).text
        assert after == f"/after/{number}", f"the next was answered {after!r}"


def asked(api: iokernel.http.HttpEndpoint, target: str, case: Case) -> str:
    """What came of it, as the corpus has it."""
    method, _, upgrade = case.asked.partition(" ")
    if not upgrade:
        reply = api.request(method, target, timeout=PATIENCE_S)
        return f"{reply.status} '{reply.body.decode('latin-1')}'"
    with api.stream(method, target, upgrade="foo", timeout=PATIENCE_S) as lane:
        first = lane.receive(PATIENCE_S, b"").decode("latin-1")
        return f"{lane.status} lane '{first}'" if lane.status == 101 else f"{lane.status} '{first}'"


def test_no_stream_ends_whole_that_is_not(liar: Liar) -> None:
    failures = []
    with iokernel.http.open(f"http://{liar.address}", pool=1, backoff="1ms") as api:
        for target, case in LIES.items():
            whole = None
            if " " in case.asked:
                continue
            with contextlib.suppress(iokernel.ConnectionLost), api.stream(case.asked, target, decode=False) as reply:
                whole = f"{reply.status} '{reply.read().decode('latin-1')}'"
            wanted = case.outcomes[0] if case.outcomes[0][:1].isdigit() else None
            if whole != wanted:
                failures.append(f"{case}: {whole}, not {wanted}")
            assert api.get("/after", timeout=PATIENCE_S).text == "/after", case
    assert not failures, "\n".join(failures)
