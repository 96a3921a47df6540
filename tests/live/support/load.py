"""Load that goes on while something is done to the servers, and the checks of what came of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Self, TypeVar

import iokernel

from .net import wait_for
from .resp import Resp

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE_S = 5.0
"""Of each request: longer than a failover, so that requests wait for its end instead of failing."""

FATES = ("not_sent", "maybe_executed", "replied")


@dataclass(frozen=True)
class Acked:
    """One write that was acknowledged. Times are `time.monotonic`'s."""

    number: int
    began: float
    at: float


@dataclass(frozen=True)
class Failed:
    number: int
    began: float
    at: float
    error: BaseException


def untyped(errors: Iterable[BaseException]) -> list[BaseException]:
    """The errors that do not say what became of the request."""
    return [
        error
        for error in errors
        if not isinstance(error, iokernel.Error) or not error.status or error.fate not in FATES
    ]


def not_executed(error: BaseException) -> bool:
    """By its own word, the request was executed nowhere: it was not sent, or the server refused it."""
    return isinstance(error, iokernel.Error) and error.fate in ("not_sent", "replied")


def summary(errors: Iterable[BaseException]) -> str:
    """`3 ConnectionLost maybe_executed, 1 Timeout not_sent`"""
    counts = Counter(f"{type(error).__name__} {getattr(error, 'fate', '-')}" for error in errors)
    return ", ".join(f"{count} {what}" for what, count in counts.most_common()) or "none"


def percentile(values: Sequence[float], share: float) -> float:
    """Of any values; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


class Load:
    """Tasks that go round in `turn` until the end of `async with`, then finish what they have begun."""

    def __init__(self, tasks: int, pause_s: float) -> None:
        self._count = tasks
        self._pause_s = pause_s
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False
        self.broken: list[BaseException] = []

    async def turn(self, task: int) -> None:
        raise NotImplementedError

    async def _go_round(self, task: int) -> None:
        await asyncio.sleep(self._pause_s * task / self._count)
        while not self._over:
            try:
                await self.turn(task)
            except Exception as error:
                self.broken.append(error)
            await asyncio.sleep(self._pause_s)

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._go_round(task)) for task in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), DEADLINE_S + 10)
        assert not self.broken, f"the load itself broke: {self.broken[:3]!r}"


class Writes(Load):
    """`SET w:<n> <n>`, each number once."""

    def __init__(self, endpoint: iokernel.Endpoint, tasks: int = 50, pause_s: float = 0.02) -> None:
        super().__init__(tasks, pause_s)
        self._endpoint = endpoint
        self._next = 0
        self.acked: list[Acked] = []
        self.failed: list[Failed] = []

    async def turn(self, task: int) -> None:
        number, began = self._next, time.monotonic()
        self._next += 1
        try:
            await self._endpoint("SET", f"w:{number}", number, timeout=DEADLINE_S)
        except Exception as error:
            self.failed.append(Failed(number, began, time.monotonic(), error))
        else:
            self.acked.append(Acked(number, began, time.monotonic()))

    def first_after(self, when: float, timeout: float = 10.0) -> float:
        """When the first write after `when` was acknowledged; waits for it, in a thread beside the loop."""
        wait_for("a write", lambda: bool(self.acked) and self.acked[-1].at > when, timeout)
        return min(ack.at for ack in self.acked if ack.at > when)


class Reads(Load):
    """Reads back what `Writes` wrote: a value is the key's own, or not there yet."""

    def __init__(self, endpoint: iokernel.Endpoint, writes: Writes, tasks: int = 10, pause_s: float = 0.02) -> None:
        super().__init__(tasks, pause_s)
        self._endpoint = endpoint
        self._writes = writes
        self.found = self.missing = 0
        self.wrong: list[tuple[int, Any]] = []
        self.failed: list[Failed] = []
        self.times: list[float] = []

    async def turn(self, task: int) -> None:
        if not self._writes.acked:
            return
        number, began = self._writes.acked[-1].number, time.monotonic()
        try:
            value = await self._endpoint("GET", f"w:{number}", timeout=DEADLINE_S)
        except Exception as error:
            self.failed.append(Failed(number, began, time.monotonic(), error))
            return
        self.times.append(time.monotonic() - began)
        if value is None:
            self.missing += 1
        elif value == b"%d" % number:
            self.found += 1
        else:
            self.wrong.append((number, value))


def present(address: str, numbers: Sequence[int]) -> set[int]:
    """Which of the numbers that `Writes` wrote a node holds, asked on a connection of our own."""
    held: set[int] = set()
    with Resp(address) as conn:
        for at in range(0, len(numbers), 500):
            part = numbers[at : at + 500]
            values = conn("MGET", *(f"w:{number}" for number in part))
            for number, value in zip(part, values, strict=True):
                if value is not None:
                    assert value == b"%d" % number, f"w:{number} holds {value!r}"
                    held.add(number)
    return held


@dataclass
class _Count:
    """What is known of one counter."""

    value: int = 0
    doubts: int = 0
    recent: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=2000))


class Counts(Load):
    """Each task has keys of its own: `INCR c:<k>` must give one more than before, `GET v:<k>` what was set there.

    The key stands in its value, so that an answer that went astray shows. A request in doubt may have counted, once.
    `may_lose` names keys whose node was killed: it took acknowledged increments along that its replica had not seen.
    """

    LAG_S = 0.5
    """How much of what a killed node acknowledged last may be lost: far more than its replica lags behind."""

    def __init__(
        self, endpoint: iokernel.Endpoint, keys: Sequence[str], tasks: int = 30, pause_s: float = 0.01
    ) -> None:
        super().__init__(tasks, pause_s)
        self._endpoint = endpoint
        self._keys = keys
        self._turns = [0] * tasks
        self._counts = {key: _Count() for key in keys}
        self._values: dict[str, set[bytes | None]] = {key: {None} for key in keys}
        self._lost: dict[str, float] = {}
        self.requests = 0
        self.answers = 0
        self.wrong: list[str] = []
        self.failed: list[Failed] = []
        self.times: list[float] = []

    def may_lose(self, keys: Iterable[str]) -> None:
        """Call it right before the node is killed."""
        now = time.monotonic()
        for key in keys:
            self._lost[key] = now
            # What the replica had of the value is not known either: an older one may come back.
            self._values[key] = set()

    async def turn(self, task: int) -> None:
        mine = self._keys[task :: self._count]
        key = mine[self._turns[task] % len(mine)]
        self._turns[task] += 1
        value = f"{key}:{self._turns[task]}".encode()
        await self._count_one(key)
        await self._set(key, value)
        await self._get(key)

    async def _ask(self, *request: str | bytes) -> Any:
        self.requests += 1
        began = time.monotonic()
        try:
            answer = await self._endpoint(*request, timeout=DEADLINE_S)
        except Exception as error:
            self.failed.append(Failed(self.requests, began, time.monotonic(), error))
            raise
        self.answers += 1
        self.times.append(time.monotonic() - began)
        return answer

    async def _count_one(self, key: str) -> None:
        count = self._counts[key]
        try:
            value = await self._ask("INCR", f"c:{key}")
        except Exception as error:
            count.doubts += not not_executed(error)
            return
        low, high = count.value + 1, count.value + count.doubts + 1
        killed = self._lost.pop(key, None)
        if killed is not None:
            low = min(low, 1 + max((seen for at, seen in count.recent if at < killed - self.LAG_S), default=0))
        if not isinstance(value, int) or not low <= value <= high:
            self.wrong.append(f"INCR c:{key} gave {value!r}, not {low}..{high}")
            if not isinstance(value, int):
                return
        count.value, count.doubts = value, 0
        count.recent.append((time.monotonic(), value))

    async def _set(self, key: str, value: bytes) -> None:
        try:
            answer = await self._ask("SET", f"v:{key}", value)
        except Exception as error:
            if not not_executed(error) and self._values[key]:
                self._values[key].add(value)
            return
        if answer != "OK":
            self.wrong.append(f"SET v:{key} gave {answer!r}")
        self._values[key] = {value}

    async def _get(self, key: str) -> None:
        try:
            value = await self._ask("GET", f"v:{key}")
        except Exception:
            return
        expected = self._values[key]
        foreign = value is not None and not (isinstance(value, bytes) and value.startswith(f"{key}:".encode()))
        if foreign or (expected and value not in expected):
            self.wrong.append(f"GET v:{key} gave {value!r}, not one of {expected!r}")


async def meanwhile(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Something that blocks, done beside the loop."""
    return await asyncio.to_thread(work, *args, **kwargs)


async def until(what: str, condition: Callable[[], object], timeout: float = 10.0) -> None:
    """`net.wait_for` for loops."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout} s"
        await asyncio.sleep(0.005)


async def ended(tasks: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Every outcome, errors as values."""
    return await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def table(title: str, *columns: str) -> Any:
    """Collects rows of figures and prints them at the end, whatever the end is."""
    rows: list[Sequence[object]] = []
    try:
        yield rows.append
    finally:
        shown = [columns, *([f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
        widths = [max(len(row[at]) for row in shown) for at in range(len(columns))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in shown]
        print(f"\n{title}", *lines, sep="\n")
