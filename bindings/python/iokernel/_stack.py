"""Lets the admin endpoint's `/stack` show Python frames: faulthandler writes those of the thread that is asked.

faulthandler's handler is C, runs on that very thread, needs no GIL, and looks at no other thread's frames.
"""

from __future__ import annotations

import contextlib
import faulthandler
from typing import Any

from ._errors import Error, error_for
from ._lib import ffi, last_error, lib

#: The signal for which faulthandler is registered, 0 for none.
_registered = 0


def _check(status: int) -> None:
    if status:
        raise error_for(status, 1, text=last_error())


def begin(handle: Any) -> None:
    """Opens the door to this process's stacks for a kernel. Any thread. Without it, `/stack` says what is missing."""
    with contextlib.suppress(Error, OSError):
        _open(handle)


def _open(handle: Any) -> None:
    global _registered
    signal, fd = ffi.new("int32_t *"), ffi.new("int32_t *")
    _check(lib.iok_stack_open(handle, signal, fd))
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal[0], file=fd[0], all_threads=False, chain=False)
        _registered = signal[0]
    _check(lib.iok_stack_arm(handle, 0))


def end(handle: Any) -> None:
    """Before the kernel is closed."""
    restored = ffi.new("bool *")
    if lib.iok_stack_close(handle, restored) == 0 and restored[0]:
        forget()


def forget() -> None:
    """Takes faulthandler's handler away. In a forked child: the descriptor that it would write to is closed."""
    global _registered
    signal, _registered = _registered, 0
    if signal:
        faulthandler.unregister(signal)
