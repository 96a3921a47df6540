"""Requests whose messages go both ways, at a listener of HTTP: bodies in pieces, WebSockets, other protocols' lanes."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from typing import Any

import iokernel
import pytest
from support.serving import read_all
from websockets.sync.client import connect

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


def port_of(listener: iokernel.Listener) -> int:
    return int(listener.url.rpartition(":")[2])


@contextmanager
def serving(handler: Callable[[iokernel.Request], Any], apart: bool = False, **options: Any) -> Iterator[int]:
    """One thread takes requests and handles them itself, or starts a thread for each."""
    listener = iokernel.listen("http://127.0.0.1:0", **options)
    others: list[threading.Thread] = []

    def hand_out() -> None:
        for request in listener:
            others.append(threading.Thread(target=handler, args=(request,)))
            others[-1].start()

    thread = threading.Thread(target=hand_out) if apart else threading.Thread(target=listener.serve, args=(handler,))
    thread.start()
    try:
        yield port_of(listener)
    finally:
        listener.close()
        for one in [thread, *others]:
            one.join(10)
            assert not one.is_alive()


def upload(port: int, body: bytes) -> http.client.HTTPResponse:
    """Reads while it sends: what an echo gives back would fill every buffer on the way."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    client.putrequest("POST", "/path")
    client.putheader("Content-Length", str(len(body)))
    client.endheaders()
    sending = threading.Thread(target=client.send, args=(body,))
    sending.start()
    try:
        response = client.getresponse()
        response.read_all = response.read()  # type: ignore[attr-defined]
        sending.join()
    finally:
        client.close()
    return response


def echo(request: iokernel.Request) -> None:
    (method, target, _headers, _version, _client), body = request.args
    assert (method, target) == ("POST", "/path")
    request.begin([200, {"Content-Type": "text/plain"}, True])
    pieces = request if body is True else [body or b""]
    for piece in pieces:
        request.send(piece)
    request.finish()


@pytest.mark.parametrize("apart", [False, True], ids=["here", "apart"])
def test_pieces_both_ways_in_threads(apart: bool) -> None:
    with serving(echo, apart, window="128KiB") as port:
        for size in (0, 1000, 5_000_000):
            body = os.urandom(size)
            assert upload(port, body).read_all == body  # type: ignore[attr-defined]


@asynccontextmanager
async def serving_async(handler: Callable[[iokernel.Request], Any]) -> AsyncIterator[int]:
    async with iokernel.listen("http://127.0.0.1:0") as listener:
        task = asyncio.create_task(listener.serve(handler))
        yield port_of(listener)
    await task


async def test_pieces_both_ways_in_a_loop() -> None:
    async def handler(request: iokernel.Request) -> None:
        request.begin([200, [], True])
        async for piece in request:
            await request.send(piece)
        await request.finish()

    async with serving_async(handler) as port:
        bodies = [os.urandom(2_000_000) for _ in range(3)]
        uploads = [asyncio.to_thread(upload, port, body) for body in bodies]
        assert [one.read_all for one in await asyncio.gather(*uploads)] == bodies  # type: ignore[attr-defined]


def test_trailers_and_an_error_in_the_middle() -> None:
    def handler(request: iokernel.Request) -> None:
        if request.args[0][1] == "/fails":
            request.begin([200, {}, True])
            request.send(b"first")
            return request.error("ERR", "on purpose")
        pieces = list(request)
        assert sum(map(len, pieces)) == 100_000
        request.begin([200, {"Trailer": "x-sum"}, True])
        request.send(repr(request.last_word).encode())
        return request.finish([["x-sum", "7"]])

    with serving(handler) as port, socket.create_connection(("127.0.0.1", port), 20) as conn:
        head = b"PUT / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        conn.sendall(head + b"186A0\r\n" + b"x" * 100_000 + b"\r\n0\r\nx-their: 1\r\n\r\n")
        answer = read_all(conn)
        assert b"[[b'x-their', b'1']]" in answer and answer.endswith(b"0\r\nx-sum: 7\r\n\r\n")
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
            client.request("GET", "/fails")
            with pytest.raises(http.client.IncompleteRead):
                client.getresponse().read()


def test_websockets_are_lanes_of_messages() -> None:
    words: list[Any] = []

    def handler(request: iokernel.Request) -> None:
        request.begin([101, {}, True])
        for message in request:
            request.send(message * 2)
        words.append(request.last_word)

    with serving(handler) as port, connect(f"ws://127.0.0.1:{port}/") as lane:
        for message in ("text", b"bytes", "ä" * 100_000):
            lane.send(message)
            assert lane.recv(20) == message * 2
        lane.close(4000, "enough")
        while not words:
            time.sleep(0.01)
    assert words == [[4000, "enough"]]


async def test_another_protocol_is_a_lane_of_bytes() -> None:
    async def handler(request: iokernel.Request) -> None:
        request.begin([101, {"Upgrade": "shout"}, True])
        async for piece in request:
            await request.send(piece.upper())
        await request.finish()

    async with serving_async(handler) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: shout\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


def test_a_client_that_leaves_is_noticed() -> None:
    seen: list[BaseException] = []

    def receives(request: iokernel.Request) -> None:
        try:
            list(request)
        except iokernel.ConnectionLost as error:
            seen.append(error)

    def sends(request: iokernel.Request) -> None:
        request.begin([200, {}, True])
        try:
            while True:
                request.send(b"x" * 10_000)
        except iokernel.ConnectionLost as error:
            seen.append(error)

    def handler(request: iokernel.Request) -> None:
        receives(request) if request.args[0][0] == "PUT" else sends(request)
        assert request.gone

    with serving(handler) as port:
        for start in (
            b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nx",
            b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        ):
            count = len(seen)
            with socket.create_connection(("127.0.0.1", port), 20) as conn:
                conn.sendall(start)
                time.sleep(0.1)
            while len(seen) == count:
                time.sleep(0.01)


def test_sending_has_its_rules() -> None:
    def handler(request: iokernel.Request) -> None:
        with pytest.raises(iokernel.Closed, match=r"expected begin\(\) before"):
            request.send(b"x")
        request.begin([200, {}, True])
        with pytest.raises(iokernel.BadRequest):
            request.send(object())
        request.send({"nonsense": 1})
        with pytest.raises(iokernel.Error):
            for _ in range(100):
                request.send(b"x" * 100_000)
        assert not request.gone
        request.error("ERR", "the client sees that something is missing")
        with pytest.raises(iokernel.Error):
            request.finish()

    failures: list[BaseException] = []

    def caught(request: iokernel.Request) -> None:
        try:
            handler(request)
        except BaseException as error:
            failures.append(error)
            raise

    with serving(caught) as port, socket.create_connection(("127.0.0.1", port), 20) as conn:
        conn.sendall(GET)
        time.sleep(0.3)
    assert not failures, failures


def test_leaving_lets_what_is_under_way_finish() -> None:
    listener = iokernel.listen("http://127.0.0.1:0", health="/healthz")
    port = port_of(listener)

    def slow(request: iokernel.Request) -> list[Any]:
        time.sleep(0.5)
        return [200, {}, b"done"]

    thread = threading.Thread(target=listener.serve, args=(slow,))
    thread.start()
    with socket.create_connection(("127.0.0.1", port), 20) as conn:
        conn.sendall(GET)
        time.sleep(0.2)
        listener.close(drain=20)
        assert read_all(conn).endswith(b"done")
    thread.join(10)
    assert listener.closed and not thread.is_alive()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_leaving_from_a_signal_s_handler() -> None:
    listener = iokernel.listen("http://127.0.0.1:0", health="/healthz")
    port = port_of(listener)
    before = signal.signal(signal.SIGUSR2, lambda *_: listener.close(drain=20, delay=0.3))
    answers: list[bytes] = []

    def ask(path: str) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 20) as conn:
            conn.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            return read_all(conn)

    def client() -> None:
        answers.append(ask("/"))
        os.kill(os.getpid(), signal.SIGUSR2)
        while b" 503 " not in (found := ask("/healthz")):
            time.sleep(0.01)
        answers.extend([found, ask("/")])

    asks = threading.Thread(target=client)
    asks.start()
    try:
        for request in listener:
            request.reply([200, {}, b"served"])
    finally:
        signal.signal(signal.SIGUSR2, before)
        asks.join(10)
    assert len(answers) == 3 and answers[0].endswith(b"served") and answers[2].endswith(b"served")


async def test_leaving_a_loop() -> None:
    async def handler(request: iokernel.Request) -> list[Any]:
        await asyncio.sleep(0.3)
        return [200, {}, b"done"]

    listener = iokernel.listen("http://127.0.0.1:0")
    task = asyncio.create_task(listener.serve(handler))
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(listener))
    writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
    await asyncio.sleep(0.1)
    await listener.close(drain=20)
    assert (await reader.read()).endswith(b"done")
    await asyncio.wait_for(task, 10)
    writer.close()
    await writer.wait_closed()
