"""Which of the two call paths this process uses: the accelerator in C, or cffi alone.

The environment variable `IOKERNEL_PURE=1` selects the latter. `why_pure` says why it was taken otherwise.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from ._channel import Channel, Names, Waiter
from ._lib import ffi, lib
from ._values import unpack

why_pure = ""
accelerator: Any = None

if os.environ.get("IOKERNEL_PURE", "") not in ("", "0"):
    why_pure = "IOKERNEL_PURE is set"
else:
    try:
        accelerator = importlib.import_module("iokernel._accel")
    except ImportError as error:
        why_pure = f"there is no accelerator here ({error})"

_FUNCTIONS = ("iok_reserve", "iok_commit", "iok_flush", "iok_wait", "iok_poll", "iok_advance")

if accelerator is None or TYPE_CHECKING:
    ThreadChannel = Channel
else:
    accelerator.bind({name: int(ffi.cast("uintptr_t", ffi.addressof(lib, name))) for name in _FUNCTIONS}, unpack)

    class ThreadChannel(accelerator.Core, Channel):
        """A channel whose hot path is in C: `request`, `poll`, `_wait` and `_bell`."""

        def __init__(self, handle: Any, names: Names, record_max: int = 1 << 18) -> None:
            Channel.__init__(self, handle, names, record_max)
            self._attach(int(ffi.cast("uintptr_t", handle)))

        def _request_slow(
            self, flags: int, endpoint: int, timeout_ms: int, key: int, arguments: tuple[Any, ...], waiter: Waiter
        ) -> int:
            return Channel.request(self, flags, endpoint, timeout_ms, key, arguments, waiter)

        def _take(self, tag: int) -> Waiter | None:
            waiter: Waiter | None = self._take_slot(tag)
            return Channel._take(self, tag) if waiter is None else waiter

        def _take_all(self) -> list[Waiter]:
            return [*self._take_slots(), *Channel._take_all(self)]

        def detach(self) -> Any:
            self._attach(0)
            return Channel.detach(self)
