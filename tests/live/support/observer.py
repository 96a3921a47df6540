"""Watches from outside who is primary: asks every node each few milliseconds, and listens to every sentinel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from .net import wait_for
from .process import Worker

POLL_MS = 5
"""How often each node is asked: a promotion is seen this much late at most, when the machine is not busy."""


class Observer:
    """In a process of its own, so that neither the load nor the GIL delays its clock. Times are `time.monotonic`'s."""

    def __init__(self, nodes: Sequence[str], sentinels: Sequence[str] = ()) -> None:
        self._worker = Worker("observer_worker", {"nodes": list(nodes), "sentinels": list(sentinels)})
        wait_for("what every node is", lambda: len({node for _, node, _ in self.events()}) >= len(nodes))

    def events(self) -> list[tuple[float, str, str]]:
        """`(when, node, role)` for each change, "gone" among the roles; `(when, node, "told")` by a sentinel."""
        told: list[Any] = self._worker.ask("events")
        return [(when, node, what) for when, node, what in told]

    def promotion(self, since: float, but: str = "", timeout: float = 30.0) -> tuple[float, str]:
        """When, after `since`, a node became primary, and which; not `but`, which was and may say so again."""
        found: list[tuple[float, str]] = []

        def seen() -> bool:
            found[:] = [
                (at, node) for at, node, what in self.events() if at > since and what == "master" and node != but
            ]
            return bool(found)

        wait_for("a promotion", seen, timeout)
        return found[0]

    def told(self, since: float, of: str) -> float:
        """When the first sentinel told that this node is the primary."""
        found: list[float] = []

        def seen() -> bool:
            found[:] = [at for at, node, what in self.events() if at > since and (node, what) == (of, "told")]
            return bool(found)

        wait_for("word of a sentinel", seen, 20)
        return found[0]

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
