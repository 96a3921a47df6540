"""What clients say that their requests took while their program stalls, beside the truth."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Self

from .asker import quantile
from .process import Worker
from .servers import RedisServer
from .wire import Wire

COUNT_MAX = 250
"""Requests of one run: the slow-request log keeps a few more."""


@dataclass
class Truth:
    """What was measured and what was so, in seconds, of the same requests."""

    measured: list[float] = field(default_factory=list)
    true: list[float] = field(default_factory=list)

    def add(self, measured: dict[str, float], true: dict[int, float]) -> None:
        for number, seconds in measured.items():
            self.measured.append(seconds)
            self.true.append(true[int(number)])

    def error(self, share: float) -> float:
        """A quantile of what the measures were off by."""
        off = [abs(one - other) for one, other in zip(self.measured, self.true, strict=True)]
        return quantile(off, share)

    def samples(self) -> list[tuple[float, float]]:
        """What was measured, and what was so."""
        return list(zip(self.measured, self.true, strict=True))

    def __str__(self) -> str:
        return f"p50 {self.error(0.5) * 1000:.3g} ms, p99 {self.error(0.99) * 1000:.3g} ms"


@dataclass
class Client:
    """A client's measures: by the time around its calls, and, where it has any, by stamps of its own."""

    around: Truth = field(default_factory=Truth)
    stamps: Truth = field(default_factory=Truth)
    buckets: dict[float, int] = field(default_factory=dict)
    """Of a histogram: how many took up to so many seconds."""
    stalls: int = 0

    def histogram(self, share: float) -> tuple[float, float]:
        """Between which bounds a quantile lies."""
        below, wanted = 0.0, share * len(self.stamps.true)
        for bound, count in sorted(self.buckets.items()):
            if count >= wanted:
                return below, bound
            below = bound
        raise ValueError("more than any bound")


class Stalling:
    """Clients in processes of their own, which stall for `stall_s` at a time. Before each server is an observer."""

    def __init__(self, clients: Sequence[str], stall_s: float) -> None:
        self.found = {name: Client() for name in clients}
        self._stall_s = stall_s
        self._next = 1
        self._wires: dict[str, Wire] = {}
        self._workers: dict[str, Worker] = {}
        with ExitStack() as stack:
            redis = stack.enter_context(Wire(stack.enter_context(RedisServer()).address))
            http = redis
            if "aiohttp" in clients:
                http = stack.enter_context(Wire(stack.enter_context(Worker("echo_http", {})).address))
            for name in clients:
                wire = self._wires[name] = http if name == "aiohttp" else redis
                config = {"client": name, "address": wire.address}
                self._workers[name] = stack.enter_context(Worker("stalling_worker", config))
            self._stack = stack.pop_all()

    def run(self, name: str, count: int) -> None:
        """So many requests more."""
        assert count <= COUNT_MAX
        first, self._next = self._next, self._next + count
        self._wires[name].seen()
        told = self._workers[name].ask("run", first=first, count=count, stall_s=self._stall_s)
        true, client = self._wires[name].seen(), self.found[name]
        client.stalls += told["stalls"]
        client.around.add(told["around"], true)
        client.stamps.add(told.get("stamps", {}), true)
        for bound, grown in told.get("buckets", []):
            client.buckets[bound] = client.buckets.get(bound, 0) + grown

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
