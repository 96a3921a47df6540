"""The markers of tasks: which one goes with what the running task submits."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._markers import Slot

used = False
"""A task of this process has entered a marker."""


class Entry:
    """One marker that a task is in, and the one around it."""

    __slots__ = ("area", "around", "marker", "place", "serial", "slot", "thread")

    def __init__(self, marker: Any, area: int, slot: Slot, place: int, serial: int, around: Entry | None) -> None:
        self.marker = marker
        self.area = area
        self.slot = slot
        self.place = place
        self.serial = serial
        self.around = around
        self.thread = threading.get_ident()


entered: ContextVar[Entry | None] = ContextVar("iokernel_marker", default=None)


def current(area: int) -> int:
    """The number to submit here with; 0 leaves it to the library, which knows the thread's own."""
    entry = entered.get()
    while entry is not None and (entry.area != area or not entry.serial):
        entry = entry.around
    if entry is None:
        return 0
    if entry.thread != threading.get_ident():
        # A thread that was given a task's context may be in a marker of its own.
        from ._markers import thread_number

        return 0 if thread_number(area) else entry.serial
    return entry.serial
