"""Small requests beside whatever else goes on, each of which must be answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Self

from .raw_http import Raw, Reply


class Asking:
    """Sends `request` again and again on one connection until the end of the `with`. What `is_good` says no to, and
    what ends it early, is in `bad`."""

    def __init__(self, address: str, request: bytes, is_good: Callable[[Reply], bool], every_s: float) -> None:
        self.times_ms: list[float] = []
        self.bad: list[object] = []
        self._address, self._request, self._is_good, self._every_s = address, request, is_good, every_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with Raw(self._address, 60) as conn:
                while not self._over.wait(self._every_s):
                    began = time.perf_counter()
                    reply = conn.send(self._request).reply()
                    self.times_ms.append(1000 * (time.perf_counter() - began))
                    if not self._is_good(reply):
                        self.bad.append(reply)
        except Exception as error:
            self.bad.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)
