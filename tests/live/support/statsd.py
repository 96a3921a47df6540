"""A statsd server that notes when datagrams arrived, by the system's clock, and adds up what they say."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from typing import Self

from .timestamps import received, stamp_all


class StatsdServer:
    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        stamp_all(self._socket)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._told: list[tuple[int, bytes]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                data, at_ns = received(self._socket)
            except TimeoutError:
                continue
            self._told.append((at_ns, data))

    def ticks(self, apart_s: float) -> list[float]:
        """When the first datagram of each tick arrived, in seconds; ticks are at least `apart_s` apart."""
        found: list[float] = []
        for at_ns, _ in self._told.copy():
            if not found or at_ns / 1e9 - found[-1] >= apart_s:
                found.append(at_ns / 1e9)
        return found

    def counters(self) -> Counter[str]:
        """The sums of all counters, by name and tags."""
        sums: Counter[str] = Counter()
        for _, data in self._told.copy():
            for line in data.decode().splitlines():
                name, _, rest = line.partition(":")
                value, kind, *tags = rest.split("|")
                if kind == "c":
                    sums["|".join([name, *tags])] += round(float(value))
        return sums

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def deviations(ticks: list[float], interval_s: float) -> tuple[list[float], int]:
    """How far each tick was from its place on the line of whole intervals, in seconds, and how many did not come."""
    numbers = [round((at - ticks[0]) / interval_s) for at in ticks]
    offsets = [at - number * interval_s for at, number in zip(ticks, numbers, strict=True)]
    line = sorted(offsets)[len(offsets) // 2]
    return [offset - line for offset in offsets], numbers[-1] + 1 - len(set(numbers))
