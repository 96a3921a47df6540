"""What the worker processes share: a control pipe, a listener, sockets and their ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

Serve = Callable[[socket.socket], Awaitable[None]]
HTTP_ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nBad Request\n"


class Listener:
    """Accepts on one address; can stop and start again there."""

    def __init__(self, address: str, serve: Serve) -> None:
        self.address = address
        self._serve = serve
        self._socket: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        self._socket = listening_socket(self.address)
        self.address = name_of(self._socket, self.address)
        self._keep(self._accept(self._socket))

    def stop(self) -> None:
        if self._socket:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while listening is self._socket:
                conn, _ = await asyncio.get_running_loop().sock_accept(listening)
                conn.setblocking(False)
                self._keep(self._serve(conn))

    def _keep(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def listening_socket(address: str) -> socket.socket:
    family, target = taken_apart(address)
    if family == socket.AF_UNIX:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(address.removeprefix("unix:"))
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(target)
    made.listen(512)
    made.setblocking(False)
    return made


def name_of(listening: socket.socket, address: str) -> str:
    return (
        address
        if listening.family == socket.AF_UNIX
        else "{}:{}".format(address.rpartition(":")[0], listening.getsockname()[1])
    )


def taken_apart(address: str) -> tuple[socket.AddressFamily, Any]:
    """`unix:/path`, `127.0.0.1:80` or `[::1]:80` as the socket module wants it."""
    if address.startswith("unix:"):
        return socket.AF_UNIX, address.removeprefix("unix:")
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    return family, (host.strip("[]"), int(port))


async def connected(address: str) -> socket.socket:
    """A non-blocking socket connected to `address`, without Nagle's algorithm."""
    family, target = taken_apart(address)
    made = socket.socket(family)
    made.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(made, target)
    except BaseException:
        made.close()
        raise
    return made


def no_delay(conn: socket.socket) -> None:
    if conn.family != socket.AF_UNIX:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def finish(conn: socket.socket, how: str) -> None:
    """Closes with FIN, or with RST for "reset"."""
    if how == "reset":
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def half_close(conn: socket.socket) -> None:
    with contextlib.suppress(OSError):
        conn.shutdown(socket.SHUT_WR)


async def be_silent(conn: socket.socket) -> None:
    """Reads and answers nothing until the client ends."""
    while await asyncio.get_running_loop().sock_recv(conn, 65536):
        pass


async def speak_http(conn: socket.socket) -> None:
    """Answers each thing it reads with the same HTTP refusal."""
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(conn, 65536):
        await loop.sock_sendall(conn, HTTP_ANSWER)


async def obey(start: Callable[[], str], handle: Callable[[dict[str, Any]], Any]) -> None:
    """Says where we listen, then answers orders until our input ends."""
    answer(start)
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        answer(partial(handle, json.loads(line)))


def answer(make: Callable[[], Any]) -> None:
    try:
        reply = {"ok": make()}
    except (ValueError, TypeError, KeyError, OSError) as error:
        reply = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(reply), flush=True)
