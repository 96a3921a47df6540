"""A server that counts what reaches it, is as slow as it is told, and hangs up when it is bored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from .process import Worker


@dataclass(frozen=True)
class Seen:
    """What a `Counter` has seen since its start or `forget`."""

    executed: dict[str, int]
    arrived: list[float]
    inflight_max: int
    conns: int
    hung_up: int


class Counter:
    """Speaks as much RESP2 as `INCRBY id 1` needs, in a process of its own.

    Each execution is logged by its id before it is answered. `delay_ms`: how long each command takes, beside others;
    answers keep their order. `idle_ms`: silence after which a connection is closed, give or take `jitter_ms`.
    """

    def __init__(self, *, delay_ms: float = 0, idle_ms: float = 0, jitter_ms: float = 0) -> None:
        config = {"delay_ms": delay_ms, "idle_ms": idle_ms, "jitter_ms": jitter_ms}
        self._worker = Worker("counter_worker", config)

    @property
    def address(self) -> str:
        return self._worker.address

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    def slow(self, delay_ms: float) -> None:
        self._worker.ask("slow", delay_ms=delay_ms)

    def forget(self) -> None:
        self._worker.ask("forget")

    def seen(self) -> Seen:
        """Arrival times are of CLOCK_MONOTONIC, which `time.monotonic` reads too."""
        told: dict[str, Any] = self._worker.ask("seen")
        return Seen(**told)

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
