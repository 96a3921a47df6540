"""WebSockets with strangers, both ways: the packages `websockets` and `wsproto`."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import iokernel
import iokernel.http
import pytest
from support.load import ended
from support.raw_http import Raw
from support.serving import Served
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

PATIENCE_S = 20
MESSAGE_BYTES_MAX = 8 << 20
DICE = random.Random(6455)
MESSAGES: list[str | bytes] = [
    "",
    b"",
    "Grüße, 世界 \U0001f600",
    *(bytes(size) for size in (1, 125, 126, 127, 65_535, 65_536)),
    "text" * 20_000,
    DICE.randbytes(MESSAGE_BYTES_MAX - 1),
]


def answer(conn: ServerConnection) -> None:
    """Sends back what comes, and has words of its own."""
    for message in conn:
        match message:
            case "close":
                conn.close(4001, "as you wish")
            case "abort":
                conn.socket.shutdown(socket.SHUT_RDWR)
            case "fragments":
                conn.send(iter(["one ", "two ", "", "three"]))
            case "ping":
                conn.send("a pong" if conn.ping(b"are you there").wait(PATIENCE_S) else "no pong")
            case _:
                conn.send(message)


def forbid(conn: ServerConnection, request: Any) -> Any:
    return conn.respond(HTTPStatus.FORBIDDEN, "not you") if request.path == "/forbidden" else None


def choose(_: ServerConnection, offered: Any) -> Any:
    return "chat.v1" if "chat.v1" in offered else None


@pytest.fixture(scope="module")
def theirs() -> Iterator[str]:
    """A server of the package `websockets`."""
    options: dict[str, Any] = {"process_request": forbid, "select_subprotocol": choose, "max_size": None}
    with serve(answer, "127.0.0.1", 0, **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join(5)


@pytest.fixture(scope="module")
def api(theirs: str) -> Iterator[iokernel.http.HttpEndpoint]:
    with iokernel.http.open(theirs) as made:
        yield made


@pytest.fixture(scope="module")
def ours() -> Iterator[Served]:
    """An application behind our server, which sends back what comes."""
    with Served("from support.http_app import app", "--max-request", str(MESSAGE_BYTES_MAX)) as made:
        yield made


# Our client


@pytest.mark.parametrize("compress", [True, False])
def test_messages_of_every_size_come_back(api: iokernel.http.HttpEndpoint, compress: bool) -> None:
    with api.websocket("/", compress=compress) as chat:
        assert ("permessage-deflate" in chat.headers.get("sec-websocket-extensions", "")) == compress
        for message in MESSAGES:
            chat.send(message)
            assert chat.receive(PATIENCE_S) == message
    assert chat.close_code == 1000


def test_fragments_pings_and_a_subprotocol(api: iokernel.http.HttpEndpoint) -> None:
    with api.websocket("/", protocols=["chat.v2", "chat.v1"]) as chat:
        assert chat.protocol == "chat.v1"
        for said, heard in (("fragments", "one two three"), ("ping", "a pong")):
            chat.send(said)
            assert chat.receive(PATIENCE_S) == heard
        chat.ping(b"and you?")
        chat.send("still here")
        assert chat.receive(PATIENCE_S) == "still here"


def test_how_it_ends_is_told(api: iokernel.http.HttpEndpoint) -> None:
    with api.websocket("/") as chat:
        chat.send("close")
        assert list(chat) == []
        assert (chat.close_code, chat.close_reason) == (4001, "as you wish")
        with pytest.raises(iokernel.Closed, match="4001"):
            chat.send("too late")
    with api.websocket("/") as chat:
        chat.send("abort")
        with pytest.raises(iokernel.ConnectionLost):
            chat.receive(PATIENCE_S)
        assert chat.close_code == 1006
    with pytest.raises(iokernel.http.StatusError) as caught:
        api.websocket("/forbidden")
    assert caught.value.code == "403"


def test_threads_that_send_while_another_receives(api: iokernel.http.HttpEndpoint) -> None:
    """Each message is whole, and those of one thread keep their order."""
    threads, each = 6, 100
    heard: list[list[int]] = [[] for _ in range(threads)]
    with api.websocket("/") as chat:

        def talk(thread: int) -> None:
            for number in range(each):
                chat.send(f"{thread} {number} " + "x" * (number * 97 % 5000))

        talkers = [threading.Thread(target=talk, args=(thread,)) for thread in range(threads)]
        for talker in talkers:
            talker.start()
        for _ in range(threads * each):
            thread, number, rest = chat.receive(PATIENCE_S).split(" ")
            assert rest == "x" * (int(number) * 97 % 5000)
            heard[int(thread)].append(int(number))
        for talker in talkers:
            talker.join(PATIENCE_S)
    assert heard == [list(range(each))] * threads


async def test_many_sockets_of_one_loop(theirs: str) -> None:
    async with iokernel.http.open(theirs, pool=100) as api:

        async def one(number: int) -> int:
            async with api.websocket(f"/{number}") as chat:
                for turn in range(10):
                    await chat.send(f"{number} {turn}")
                for turn in range(10):
                    assert await chat.receive(PATIENCE_S) == f"{number} {turn}"
            assert chat.close_code is not None
            return chat.close_code

        assert await ended(one(number) for number in range(100)) == [1000] * 100


# Our server


@pytest.fixture
def join(ours: Served) -> Callable[..., Any]:
    def made(**options: Any) -> Any:
        return connect(f"ws://127.0.0.1:{ours.port}/chat", max_size=None, open_timeout=PATIENCE_S, **options)

    return made


@pytest.mark.parametrize("compression", ["deflate", None])
def test_a_client_hears_its_own_words(join: Callable[..., Any], compression: str | None) -> None:
    with join(compression=compression) as chat:
        assert [each.name for each in chat.protocol.extensions] == ["permessage-deflate"] * bool(compression)
        for message in MESSAGES:
            chat.send(message)
            assert chat.recv(PATIENCE_S) == message
        chat.send(iter(["one ", "two ", "", "three"]))
        assert chat.recv(PATIENCE_S) == "one two three"
        assert chat.ping(b"are you there").wait(PATIENCE_S)
    assert chat.protocol.close_code == 1000


def test_how_a_client_is_left(join: Callable[..., Any]) -> None:
    with join(subprotocols=["chat.v2", "chat.v1"]) as chat:
        assert chat.subprotocol == "chat.v2"
        chat.send("close")
        with pytest.raises(ConnectionClosed) as caught:
            chat.recv(PATIENCE_S)
        assert caught.value.rcvd is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "as you wish")
    with join() as chat:
        chat.close(4002, "enough")
        assert chat.protocol.close_code == 4002, "our server repeats what it was told"


@pytest.mark.parametrize("compression", ["deflate", None])
def test_a_message_beyond_the_limit_ends_it(join: Callable[..., Any], compression: str | None) -> None:
    """Also one that is small on the wire."""
    with join(compression=compression) as chat, pytest.raises(ConnectionClosed) as caught:
        chat.send(bytes(MESSAGE_BYTES_MAX + 1))
        chat.recv(PATIENCE_S)
    assert caught.value.rcvd is not None and caught.value.rcvd.code == CloseCode.MESSAGE_TOO_BIG


async def test_many_clients_of_our_server(ours: Served) -> None:
    """A kernel at both ends."""
    async with iokernel.http.open(f"http://127.0.0.1:{ours.port}", pool=100) as api:

        async def one(number: int) -> list[Any]:
            async with api.websocket("/chat") as chat:
                await asyncio.gather(*(chat.send(f"{number} {turn}") for turn in range(10)))
                return [await chat.receive(PATIENCE_S) for _ in range(10)]

        heard = await ended(one(number) for number in range(100))
    assert heard == [[f"{number} {turn}" for turn in range(10)] for number in range(100)]


# wsproto knows no sockets: it says frame by frame what we want said


def exchange(conn: Raw, side: WSConnection, wanted: int) -> list[Any]:
    """So many events of the other side, what it splits a message into as one."""
    found: list[Any] = []
    whole = True
    while len(found) < wanted:
        data = conn.conn.recv(65_536)
        side.receive_data(data or None)
        for event in side.events():
            if isinstance(event, Message) and not whole:
                event = dataclasses.replace(event, data=found.pop().data + event.data)
            found.append(event)
            whole = not isinstance(event, Message) or event.message_finished
        if not data:
            break
    return found


@contextmanager
def joined(ours: Served, *extensions: Any) -> Iterator[tuple[Raw, WSConnection]]:
    side = WSConnection(ConnectionType.CLIENT)
    with Raw(f"127.0.0.1:{ours.port}") as conn:
        conn.send(side.send(Request(host="localhost", target="/chat", extensions=list(extensions))))
        [accepted] = exchange(conn, side, 1)
        assert isinstance(accepted, AcceptConnection) and bool(accepted.extensions) == bool(extensions)
        yield conn, side


@pytest.mark.parametrize("extensions", [[], [PerMessageDeflate()]])
def test_a_ping_between_the_fragments_of_a_client(ours: Served, extensions: list[Any]) -> None:
    with joined(ours, *extensions) as (conn, side):
        conn.send(side.send(TextMessage("Grü", message_finished=False)))
        conn.send(side.send(Ping(b"between")))
        [pong] = exchange(conn, side, 1)
        assert isinstance(pong, Pong) and pong.payload == b"between"
        conn.send(side.send(TextMessage("", message_finished=False)) + side.send(TextMessage("ße")))
        [message] = exchange(conn, side, 1)
        assert isinstance(message, TextMessage) and message.data == "Grüße"
        conn.send(side.send(BytesMessage(b"x" * 300_000)) + side.send(CloseConnection(4003, "bye")))
        [message, closed] = exchange(conn, side, 2)
        assert bytes(message.data) == b"x" * 300_000
        assert isinstance(closed, CloseConnection) and closed.code == 4003
        assert conn.rest() == b""


UNMASKED = b"\x81\x02hi"
RESERVED = b"\xf1\x80\x00\x00\x00\x00"
NO_UTF8 = b"\x81\x81\x00\x00\x00\x00\xff"
LONG_PING = b"\x89\xfe\x00\x7e\x00\x00\x00\x00" + bytes(126)
LONE_PIECE = b"\x80\x80\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("section", "frame", "code"),
    [
        ("5.1", UNMASKED, 1002),
        ("5.2", RESERVED, 1002),
        ("5.4", LONE_PIECE, 1002),
        ("5.5", LONG_PING, 1002),
        ("8.1", NO_UTF8, 1007),
    ],
)
def test_a_client_that_breaks_the_protocol_is_told_and_left(
    ours: Served, section: str, frame: bytes, code: int
) -> None:
    with joined(ours) as (conn, side):
        conn.send(frame)
        [closed] = exchange(conn, side, 1)
        assert isinstance(closed, CloseConnection) and closed.code == code, section
        conn.send(side.send(closed.response()))
        assert conn.rest() == b""


@contextmanager
def hosting(act: Callable[[Raw, WSConnection], None]) -> Iterator[iokernel.http.HttpEndpoint]:
    """A server that accepts one WebSocket and does what `act` does with it."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            conn, _ = listening.accept()
            conn.settimeout(PATIENCE_S)
            with conn:
                side = WSConnection(ConnectionType.SERVER)
                raw = Raw.__new__(Raw)
                raw.conn, raw._buffer = conn, b""
                exchange(raw, side, 1)
                raw.send(side.send(AcceptConnection(extensions=[PerMessageDeflate()])))
                act(raw, side)
        except BaseException as failure:
            failures.append(failure)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=run)
        thread.start()
        with iokernel.http.open(f"http://127.0.0.1:{listening.getsockname()[1]}") as api:
            yield api
        thread.join(PATIENCE_S)
    assert not failures, failures


def test_a_server_that_pings_between_its_fragments() -> None:
    def act(conn: Raw, side: WSConnection) -> None:
        conn.send(side.send(TextMessage("one ", message_finished=False)) + side.send(Ping(b"between")))
        [pong] = exchange(conn, side, 1)
        assert isinstance(pong, Pong) and pong.payload == b"between"
        conn.send(side.send(TextMessage("two")) + side.send(Pong(b"nobody asked")) + side.send(BytesMessage(b"three")))
        [message, closed] = exchange(conn, side, 2)
        assert (message.data, closed.code, closed.reason) == ("four", 4004, "done")
        conn.send(side.send(closed.response()))

    with hosting(act) as api, api.websocket("/") as chat:
        assert [chat.receive(PATIENCE_S), chat.receive(PATIENCE_S)] == ["one two", b"three"]
        chat.send("four")
        chat.close(4004, "done")
        assert chat.close_code == 4004


@pytest.mark.parametrize("frame", [b"\x81\x82\x00\x00\x00\x00hi", b"\xb1\x00", b"\x81\x01\xff", b"\x80\x00"])
def test_a_server_that_breaks_the_protocol_is_lost(frame: bytes) -> None:
    codes: list[int] = []

    def act(conn: Raw, side: WSConnection) -> None:
        conn.send(frame)
        codes.extend(event.code for event in exchange(conn, side, 1) if isinstance(event, CloseConnection))

    with hosting(act) as api, api.websocket("/") as chat:
        with pytest.raises(iokernel.ConnectionLost) as caught:
            chat.receive(PATIENCE_S)
        assert (caught.value.code, chat.close_code) == ("PROTOCOL", iokernel.http.LOST)
    assert codes == [1007 if frame == b"\x81\x01\xff" else 1002]
