"""A RESP2 client of our own in a few lines, so that tests trust neither iokernel nor another client."""

from __future__ import annotations

from typing import Any, Self

from .net import connect


class RedisError(Exception):
    """The server answered with an error."""


class Resp:
    """One blocking connection. Replies: bytes, int, None, list; simple strings are bytes too."""

    def __init__(self, address: str, timeout: float = 10.0) -> None:
        self._conn = connect(address, timeout)
        self._file = self._conn.makefile("rb")

    def __call__(self, *command: str | bytes | int | float) -> Any:
        self.send(*command)
        return self.receive()

    def send(self, *command: str | bytes | int | float) -> None:
        parts = [part if isinstance(part, bytes) else str(part).encode() for part in command]
        frame = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._conn.sendall(b"*%d\r\n%s" % (len(parts), frame))

    def receive(self) -> Any:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError(f"connection closed after {line!r}")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise RedisError(rest.decode(errors="replace"))
        if kind == b"$":
            return self._file.read(int(rest) + 2)[:-2] if rest != b"-1" else None
        if kind == b"*":
            return [self.receive() for _ in range(int(rest))] if rest != b"-1" else None
        return int(rest) if kind == b":" else rest

    def close(self) -> None:
        self._file.close()
        self._conn.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
