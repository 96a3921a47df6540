"""A server whose answer never ends, and clients that are slow on purpose, by the thousand."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
from collections.abc import Mapping
from typing import Self

SENT_BYTES_MAX = 256 << 20
"""Enough to see that nobody stops it."""


class Endless:
    """Says to a request for a path in `answers` its beginning, and then its piece again and again, until the client is
    gone. `sent` is how many bytes it said to the latest."""

    def __init__(self, answers: Mapping[str, tuple[bytes, bytes]]) -> None:
        self._answers = answers
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        self.sent = 0
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                conn, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn: socket.socket) -> None:
        with conn, contextlib.suppress(OSError):
            while head := conn.recv(65_536):
                answer = self._answers.get(head.split(b" ")[1].decode())
                if answer is None:
                    conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine")
                    continue
                start, piece = answer
                many = piece * max(1, 65_536 // max(1, len(piece)))
                self.sent = 0
                conn.sendall(start)
                while many and self.sent < SENT_BYTES_MAX:
                    conn.sendall(many)
                    self.sent += len(many)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


def room_for(sockets: int) -> None:
    """Raises what this process, and those it starts, may open."""
    wanted = sockets + 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        with contextlib.suppress(ValueError):  # Who may not raise the limit lives with it.
            hard = max(hard, wanted) if hard != resource.RLIM_INFINITY else hard
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Slow:
    """So many clients at `port`, which all say `start`, and then one byte of `rest` every `pace_s`. They read nothing,
    and their systems take little for them."""

    def __init__(self, port: int, count: int, start: bytes, rest: bytes = b"", pace_s: float = 0.3) -> None:
        self._rest, self._pace_s = rest, pace_s
        self._over = threading.Event()
        self._conns = [self._connected(port, start) for _ in range(count)]
        self._thread = threading.Thread(target=self._drip)
        self._thread.start()

    def _connected(self, port: int, start: bytes) -> socket.socket:
        conn = socket.socket()
        conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        conn.settimeout(20)
        conn.connect(("127.0.0.1", port))
        conn.sendall(start)
        return conn

    def _drip(self) -> None:
        for at in range(len(self._rest)):
            if self._over.wait(self._pace_s):
                return
            for conn in self._conns:
                with contextlib.suppress(OSError):
                    conn.send(self._rest[at : at + 1])

    def close(self) -> None:
        self._over.set()
        self._thread.join(5)
        for conn in self._conns:
            conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
