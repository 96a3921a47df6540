"""redis-py's calls, written down once and made in several ways: the outcomes are compared.

A scenario is a generator: it yields calls and is sent what each gave.

    def strings(r: Recorder) -> Scenario:
        yield r.set("key", 1)
        dump = yield r.dump("key")
        yield r.restore("other", 0, dump)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call of a client's method. `look`: how its outcome is compared."""

    name: str
    make: Callable[[Any], Any]
    shown: str
    look: str = "exact"


Scenario = Generator[Call, Any, None]


class Recorder:
    """`r.set("key", 1)` is the call, not its result."""

    def __getattr__(self, name: str) -> Callable[..., Call]:
        def call(*args: Any, **kwargs: Any) -> Call:
            return Call(name, lambda client: getattr(client, name)(*args, **kwargs), f"{name}{args}{kwargs or ''}")

        return call

    def do(self, name: str, make: Callable[[Any], Any]) -> Call:
        """A chain of calls that begins with the method `name`."""
        return Call(name, make, f"do:{name}")


def loose(call: Call) -> Call:
    """Compares only what kind of thing comes out."""
    return replace(call, look="loose")


def ignored(call: Call) -> Call:
    """Compares nothing: the outcome depends on what the server happens to do."""
    return replace(call, look="ignored")


def with_sets(call: Call) -> Call:
    """Compares lists at any depth in any order: RESP3 has sets there, whose order is not kept."""
    return replace(call, look="with_sets")


def unordered(call: Call) -> Call:
    """Compares a list's members in any order."""
    return replace(call, look="unordered")


@dataclass
class Outcome:
    """What a call gave, for people and for comparing."""

    call: Call
    value: Any = None
    error: BaseException | None = None

    def key(self) -> Any:
        if self.call.look == "ignored":
            return None
        if self.error is not None:
            return ("raised", canonical(self.error))
        if self.call.look == "loose":
            return type(self.value).__name__
        if self.call.look == "with_sets":
            return canonical(_as_sets(self.value))
        value = canonical(self.value)
        return sorted(map(repr, value)) if self.call.look == "unordered" else value


def _as_sets(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *sorted((_as_sets(member) for member in value), key=repr)]
    if isinstance(value, dict):
        return {key: _as_sets(member) for key, member in value.items()}
    return value


def canonical(value: Any) -> Any:
    """Values with their types, comparable whatever they are."""
    if isinstance(value, BaseException):
        return (type(value).__name__, tuple(canonical(argument) for argument in value.args))
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *(canonical(member) for member in value)]
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(repr(canonical(member)) for member in value)]
    if isinstance(value, dict):
        return ["dict", *sorted(repr((canonical(key), canonical(member))) for key, member in value.items())]
    return f"{type(value).__name__}:{value!r}"


def play(client: Any, scenario: Callable[[Recorder], Scenario]) -> list[Outcome]:
    """Every call of a scenario, made with a client of threads."""
    outcomes: list[Outcome] = []
    for call, outcome in _steps(scenario, outcomes):
        try:
            value = call.make(client)
            outcome.value = list(value) if isinstance(value, Iterator) else value
        except Exception as error:
            outcome.error = error
    return outcomes


async def play_async(client: Any, scenario: Callable[[Recorder], Scenario]) -> list[Outcome]:
    """The same with a client of asyncio."""
    outcomes: list[Outcome] = []
    for call, outcome in _steps(scenario, outcomes):
        try:
            value = call.make(client)
            if inspect.isawaitable(value):
                value = await value
            elif hasattr(value, "__aiter__"):
                value = [member async for member in value]
            outcome.value = value
        except Exception as error:
            outcome.error = error
    return outcomes


def _steps(
    scenario: Callable[[Recorder], Scenario], outcomes: list[Outcome]
) -> Generator[tuple[Call, Outcome], None, None]:
    steps = scenario(Recorder())
    try:
        call = next(steps)
        while True:
            outcome = Outcome(call)
            outcomes.append(outcome)
            yield call, outcome
            call = steps.send(outcome.value)
    except StopIteration:
        return


def differences(plain: list[Outcome], ours: list[Outcome]) -> list[str]:
    """Where two ways of making the same calls came to different outcomes."""
    found = []
    for left, right in zip(plain, ours, strict=True):
        if left.key() != right.key():
            found.append(f"{left.call.shown}\n  plain: {left.key()}\n  ours:  {right.key()}")
    return found
