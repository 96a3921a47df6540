"""A scripted peer: says what a test wrote for it. Runs in a process of its own."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .process import Worker


@dataclass(frozen=True)
class Say:
    """One answer: after `wait_ms` these bytes, then, if `then` says so, "close" or "reset"."""

    bytes: bytes = b""
    wait_ms: float = 0
    then: str = ""

    def packed(self) -> dict[str, Any]:
        return {"bytes": b64encode(self.bytes).decode(), "wait_ms": self.wait_ms, "then": self.then}


Answers = Mapping[str, Say | bytes | Sequence[Say | bytes]]


class Fake:
    """Speaks RESP as far as reading commands goes, and answers each by its first words, in upper case:

        Fake({"HELLO": b"-NOPROTO no such version\\r\\n", "GET SLOW": Say(b"$1\\r\\nx\\r\\n", wait_ms=500)})

    The longest key that a command begins with wins; the key "" answers everything else (without it: `+OK`). A list
    gives one answer after another, per conn; its last stays. `greeting` is said to whoever connects. Commands are
    answered in turn, so a late answer delays those behind it, as a real server's would.
    """

    def __init__(self, answers: Answers | None = None, *, greeting: bytes = b"", listen: str = "127.0.0.1:0") -> None:
        config = {"answers": packed(answers or {}), "greeting": b64encode(greeting).decode(), "listen": listen}
        self._worker = Worker("fake_worker", config)

    @property
    def address(self) -> str:
        return self._worker.address

    def answers(self, answers: Answers) -> None:
        """Replaces the script, for conns to come."""
        self._worker.ask("answers", answers=packed(answers))

    def push(self, message: bytes) -> int:
        """Says something unasked on every open conn; how many there were."""
        count: int = self._worker.ask("push", bytes=b64encode(message).decode())
        return count

    def commands(self) -> list[list[bytes]]:
        """Every command so far, of all conns, in the order of arrival."""
        return [[b64decode(word) for word in command] for command in self._worker.ask("commands")]

    def accepted(self) -> int:
        """How many connected so far."""
        count: int = self._worker.ask("accepted")
        return count

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def packed(answers: Answers) -> dict[str, list[dict[str, Any]]]:
    return {key: [pack(say) for say in listed(says)] for key, says in answers.items()}


def listed(says: Say | bytes | Sequence[Say | bytes]) -> Sequence[Say | bytes]:
    return [says] if isinstance(says, bytes | Say) else says


def pack(say: Say | bytes) -> dict[str, Any]:
    return (say if isinstance(say, Say) else Say(say)).packed()


def silent(**options: Any) -> Fake:
    """Accepts, reads, and never says a word."""
    return Fake({"": b""}, **options)


def http(**options: Any) -> Fake:
    """A web server where somebody expected something else."""
    return Fake(
        {"": Say(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", then="close")},
        **options,
    )
