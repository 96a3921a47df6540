"""A client of HTTP/1.1 that writes the bytes that it is given, and reads responses strictly."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Self

from .net import connect


class Gone(Exception):
    """The server ended the connection where a response, or the rest of one, was due; `had` is what came of it."""

    def __init__(self, had: bytes) -> None:
        super().__init__(had[:200])
        self.had = had


@dataclass(frozen=True)
class Reply:
    """One response. Headers as they came, in their order."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        """The value of a header that comes at most once."""
        found = [value for header, value in self.headers if header.lower() == name.lower()]
        assert len(found) <= 1, f"{name} came {len(found)} times: {self.headers}"
        return found[0] if found else None


class Raw:
    """One connection to `host:port` or `unix:/path`."""

    def __init__(self, address: str, timeout: float = 20.0) -> None:
        self.conn = connect(address, timeout)
        if self.conn.family != socket.AF_UNIX:
            self.conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def send(self, data: bytes) -> Self:
        self.conn.sendall(data)
        return self

    def reply(self, method: str = "GET") -> Reply:
        """The next response to a request with that method, interim ones too. Raises Gone, ValueError for no HTTP."""
        head = self._until(b"\r\n\r\n")[:-4].decode("latin-1").split("\r\n")
        version, _, rest = head[0].partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0") or not rest[:3].isdigit():
            raise ValueError(f"no status line: {head[0]!r}")
        status = int(rest[:3])
        headers = [(name, value.strip()) for name, colon, value in (line.partition(":") for line in head[1:])]
        reply = Reply(status, headers, b"")
        return Reply(status, headers, self._body(reply, method))

    def _body(self, reply: Reply, method: str) -> bytes:
        """As long as RFC 9112, 6.3 says."""
        if method == "HEAD" or reply.status < 200 or reply.status in (204, 304):
            return b""
        coding, length = reply.get("transfer-encoding"), reply.get("content-length")
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise ValueError(f"framing: {reply.headers}")
            return self._chunks()
        return self.rest() if length is None else self._take(int(length))

    def _chunks(self) -> bytes:
        whole = bytearray()
        while size := int(self._until(b"\r\n").partition(b";")[0], 16):
            whole += self._take(size)
            if self._take(2) != b"\r\n":
                raise ValueError("no CRLF after a chunk")
        while self._until(b"\r\n") != b"\r\n":
            pass
        return bytes(whole)

    def rest(self) -> bytes:
        """Everything until the server ends the connection; a reset is an end, too."""
        while self._more():
            pass
        data, self._buffer = self._buffer, b""
        return data

    def replies(self, method: str = "GET") -> list[Reply]:
        """Every response until the connection ends, which may not be within one."""
        found = []
        while self._buffer or self._more():
            found.append(self.reply(method))
        return found

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more_or_gone()
        return self._take(self._buffer.index(end) + len(end))

    def _take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._more_or_gone()
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken

    def _more_or_gone(self) -> None:
        if not self._more():
            raise Gone(self._buffer)

    def _more(self) -> bool:
        try:
            data = self.conn.recv(1 << 18)
        except ConnectionResetError:
            return False
        self._buffer += data
        return bool(data)

    def end(self) -> Self:
        """Nothing more is sent; what comes can still be read."""
        self.conn.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        self.conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def request(method: str, target: str, *lines: str, body: bytes = b"", length: bool = True) -> bytes:
    """A whole request of HTTP/1.1 with a Host; Content-Length where there is a body, unless `length` is False."""
    head = [f"{method} {target} HTTP/1.1", "Host: localhost", *lines]
    if body and length:
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body
