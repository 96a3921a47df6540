"""A scripted HTTP/1.1 server: says what a test wrote for a path, and tells what it was asked."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from .fakes import Say, pack
from .process import Worker

Answer = bytes | Say | Sequence[Say] | Sequence[Sequence[Say]]
"""What is said to one request: one thing after another, each after its `wait_ms`. Or a list of such, one for each."""


@dataclass(frozen=True)
class Asked:
    """A request as it came: names of headers as they were written, in their order."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    conn: int
    """Which connection it came on, counted from 1."""

    def all(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header.lower() == name.lower()]


class HttpScript:
    """Answers each request by its path, without the query, from a process of its own:

        HttpScript({"/late": Say(ok(b"hi"), wait_ms=500), "/cut": [Say(b"HTTP/1.1 200 OK\\r\\n"), Say(then="reset")]})

    A path whose answers are a list of lists is answered by one after another; its last stays. `/unread...` is answered
    without its body being read; what follows `Say(then="echo")` comes back as it is; any path without an answer is
    answered by an echo: status 200, and as body what was asked, as JSON. Conns stay open unless an answer ends them or
    the client asks for that, or `idle_ms` is given: then they are closed after so much silence, give or take 1 ms.
    """

    def __init__(
        self, answers: Mapping[str, Answer] | None = None, listen: str = "127.0.0.1:0", idle_ms: float = 0
    ) -> None:
        self._worker = Worker("http_script_worker", {"listen": listen, "idle_ms": idle_ms})
        self.answers(answers or {})

    @property
    def address(self) -> str:
        return self._worker.address

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def answers(self, answers: Mapping[str, Answer]) -> None:
        """Replaces the script."""
        self._worker.ask("answers", answers={path: _listed(answer) for path, answer in answers.items()})

    def asked(self) -> list[Asked]:
        """Every request since its start or `forget` that came to its end, of all conns, in the order of that."""
        return [read_asked(one) for one in self._worker.ask("asked")]

    def conns(self) -> int:
        """How many connected since its start or `forget`."""
        count: int = self._worker.ask("conns")
        return count

    def open_conns(self) -> int:
        count: int = self._worker.ask("open")
        return count

    def forget(self) -> None:
        self._worker.ask("forget")

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def read_asked(told: dict[str, Any]) -> Asked:
    headers = [(name, value) for name, value in told["headers"]]
    return Asked(told["method"], told["target"], headers, b64decode(told["body"]), told["conn"])


def ok(body: bytes = b"", *lines: str, status: str = "200 OK") -> bytes:
    """A whole response with a Content-Length."""
    head = [f"HTTP/1.1 {status}", *lines, f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def chunked(*chunks: bytes, lines: Sequence[str] = (), trailers: Sequence[str] = ()) -> bytes:
    """A whole response in chunks."""
    head = ["HTTP/1.1 200 OK", *lines, "Transfer-Encoding: chunked", "", ""]
    parts = [b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks]
    tail = "\r\n".join(["0", *trailers, "", ""])
    return "\r\n".join(head).encode("latin-1") + b"".join(parts) + tail.encode("latin-1")


def _listed(answer: Answer) -> list[list[dict[str, Any]]]:
    if isinstance(answer, bytes | Say):
        return [[pack(answer)]]
    turns = [[one] if isinstance(one, Say) else one for one in answer]
    if all(isinstance(one, Say) for one in answer):
        return [[pack(say) for turn in turns for say in turn]]
    return [[pack(say) for say in turn] for turn in turns]
