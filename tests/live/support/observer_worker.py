"""The process behind `observer.Observer`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from typing import Any

from . import worker
from .observer import POLL_MS
from .resp import RedisError, Resp

ANSWER_S = 0.3
"""A node that leaves ROLE unanswered for so long is paused or cut off, and asked on a fresh connection."""


class Watchers:
    def __init__(self, nodes: list[str], sentinels: list[str]) -> None:
        self._nodes = nodes
        self._sentinels = sentinels
        self._events: list[tuple[float, str, str]] = []

    def start(self) -> str:
        for node in self._nodes:
            threading.Thread(target=self._poll, args=[node], daemon=True).start()
        for sentinel in self._sentinels:
            threading.Thread(target=self._listen, args=[sentinel], daemon=True).start()
        return ""

    def handle(self, order: dict[str, Any]) -> Any:
        if order["do"] != "events":
            raise ValueError(f"unknown order {order['do']!r}")
        return sorted(self._events)

    def _poll(self, node: str) -> None:
        was = ""
        while True:
            try:
                with Resp(node, timeout=ANSWER_S) as conn:
                    while True:
                        role = conn("ROLE")[0].decode()
                        if role != was:
                            self._events.append((time.monotonic(), node, role))
                            was = role
                        time.sleep(POLL_MS / 1000)
            except (OSError, RedisError):
                if was != "gone":
                    self._events.append((time.monotonic(), node, "gone"))
                    was = "gone"
                time.sleep(POLL_MS / 1000)

    def _listen(self, sentinel: str) -> None:
        while True:
            with contextlib.suppress(OSError, RedisError), Resp(sentinel, timeout=3600) as conn:
                conn("SUBSCRIBE", "+switch-master", "+promoted-slave")
                while message := conn.receive():
                    if message[0] == b"message":
                        self._told(message[2].decode().split(), message[1] == b"+switch-master")
            time.sleep(POLL_MS / 1000)

    def _told(self, words: list[str], switch: bool) -> None:
        """`name host port host port` of a switch: the latter is primary. `slave name host port @ ...` was promoted."""
        host, port = words[3:5] if switch else words[2:4]
        self._events.append((time.monotonic(), f"{host}:{port}", "told"))


async def main() -> None:
    made = Watchers(**json.loads(sys.argv[1]))
    await worker.obey(made.start, made.handle)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
