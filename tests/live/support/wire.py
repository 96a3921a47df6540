"""An observer on the wire before a server: when each request arrived and its reply left, packet by packet."""

from __future__ import annotations

from typing import Self

from .process import Worker

DELAY_MS = (2.0, 20.0)
"""Each reply is held back for some time in between, so that there is something to measure."""


def mark(number: int) -> str:
    """By this text in a request and in its reply, the observer knows them."""
    return f"truth-{number};"


class Wire:
    """Stands before `upstream` (`host:port`) on `address`, in a process of its own.

    The system stamps packets as they arrive from clients and leave for them, whoever has the processor then: what is
    measured so is the server's time as somebody at the server's network card sees it.
    """

    def __init__(self, upstream: str, *, seed: int = 1) -> None:
        self._worker = Worker("wire_worker", {"upstream": upstream, "seed": seed})

    @property
    def address(self) -> str:
        return self._worker.address

    def seen(self) -> dict[int, float]:
        """For each marked request since the last time: seconds from its arrival until its reply left."""
        told: dict[str, float] = self._worker.ask("seen")
        return {int(number): seconds for number, seconds in told.items()}

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
