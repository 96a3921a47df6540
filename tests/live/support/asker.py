"""Asks an admin endpoint at a steady rate, as many monitors together would, and measures each answer."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

PATHS = ("/healthz", "/readyz", "/metrics", "/state", "/requests", "/config", "/slow", "/stack", "/")
PER_SECOND = 100


class Admin(http.client.HTTPConnection):
    """To a unix socket."""

    def __init__(self, path: str, timeout: float = 20) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Asked:
    """One question. `at` is `time.monotonic`'s, when it was asked."""

    path: str
    at: float
    took_s: float
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(conn: Admin, path: str) -> Asked:
    started = time.monotonic()
    conn.request("GET", path)
    answer = conn.getresponse()
    body = answer.read()
    return Asked(path, started, time.monotonic() - started, answer.status, body)


def ask_once(socket_path: str, path: str) -> Asked:
    with contextlib.closing(Admin(socket_path)) as conn:
        return ask(conn, path)


def ask_steadily(
    socket_path: str, going: Callable[[], bool], paths: Sequence[str] = PATHS, per_second: float = PER_SECOND
) -> list[Asked]:
    """Each path in turn on one connection, `per_second` altogether, for as long as it is `going`."""
    found: list[Asked] = []
    with contextlib.closing(Admin(socket_path)) as conn:
        started = time.monotonic()
        for number, path in enumerate(itertools.cycle(paths)):
            time.sleep(max(0.0, started + number / per_second - time.monotonic()))
            if not going():
                return found
            found.append(ask(conn, path))
    raise AssertionError("never")


def quantile(values: Sequence[float], share: float) -> float:
    """0.99 of a hundred values is the largest but one."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(asked: Sequence[Asked]) -> str:
    """p50 and p99 of each path, in milliseconds."""
    lines = [f"{'path':<10} {'answers':>7} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}"]
    for path in [*dict.fromkeys(one.path for one in asked), "all"]:
        took = [one.took_s * 1000 for one in asked if path in (one.path, "all")]
        figures = [quantile(took, 0.5), quantile(took, 0.99), max(took)]
        lines.append(f"{path:<10} {len(took):>7} " + " ".join(f"{figure:>8.2f}" for figure in figures))
    return "\n".join(lines)
