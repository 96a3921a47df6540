"""Markers: what the program is doing, for those who ask while it does.

A marker is entered by writing into the thread's slot of shared memory: no call into the library, no system call.
Outside of event loops the slot itself says what goes with the thread's requests. Where tasks take turns on a
thread, a context variable does (see _context.py).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from typing import TYPE_CHECKING, Any

from . import _context
from ._context import Entry, entered
from ._errors import Error
from ._native import accelerator
from .loops import running_loop

if TYPE_CHECKING:
    from ._kernel import Kernel

SLOT_BYTES, PLACES, TEXT_BYTES = 1024, 15, 56
_ACTIVE = 1 << 63
_COUNT_MASK = (1 << 26) - 1
_ORDERS = [[(first + at) % PLACES for at in range(PLACES)] for first in range(PLACES)]
_TURNS = ("trio", "gevent", "eventlet", "curio")
"""Modules with which tasks take turns on a thread outside of asyncio's loops."""

_always_context = False


class Slot:
    """A thread's slot, written by that thread alone. The shape is that of `iok_markers` in the header."""

    def __init__(self, address: int) -> None:
        self._memory = (ctypes.c_char * SLOT_BYTES).from_address(address) if address else bytearray(SLOT_BYTES)
        self._bytes = memoryview(self._memory).cast("B")
        self._words = self._bytes.cast("Q")
        self._halves = self._bytes.cast("I")
        if not address:
            self._halves[0] = 1
        self.tid = self._halves[0]

    def is_own(self) -> bool:
        """False in a forked child, where the words are another slot's."""
        return self._halves[0] == self.tid

    @property
    def current(self) -> int:
        return self._halves[1]

    @current.setter
    def current(self, serial: int) -> None:
        self._halves[1] = serial

    def enter(self, text: bytes) -> tuple[int, int]:
        """Takes the place that was left first. The place and its serial; -1 and 0 if none is left."""
        words = self._words
        last = self._halves[2]
        count = (last + 1) & _COUNT_MASK or 1
        for place in _ORDERS[count % PLACES]:
            at = 8 + 8 * place
            if not words[at] & _ACTIVE:
                break
        else:
            self._halves[3] += 1
            return -1, 0
        self._halves[2] = serial = (last & ~_COUNT_MASK) | count
        words[at] = 0
        self._bytes[at * 8 + 8 : at * 8 + 8 + len(text)] = text
        words[at] = serial | len(text) << 32 | _ACTIVE
        return place, serial

    def leave(self, place: int, serial: int) -> None:
        if place >= 0:
            at = 8 + 8 * place
            head = self._words[at]
            if head & 0xFFFFFFFF == serial:
                self._words[at] = head & ~_ACTIVE


class _Thread(threading.local):
    """What a thread has of each area: its slot, and the markers it is in."""

    def __init__(self) -> None:
        self.slots: dict[int, Slot] = {}
        self.stacks: dict[int, list[tuple[Any, int, int]]] = {}


_thread = _Thread()


def _slot_of(marker: Any) -> Slot:
    area: int = marker._area
    slot = _thread.slots.get(area)
    if slot is None or not slot.is_own():
        slot = _thread.slots[area] = Slot(marker._claim())
        # Those that a fork left behind have no place here.
        _thread.stacks[area] = [(one, -1, 0) for one, _, _ in _thread.stacks.get(area, ())]
    return slot


def thread_number(area: int) -> int:
    """The number that this thread's own slot says."""
    slot = _thread.slots.get(area)
    return slot.current if slot is not None and slot.is_own() else 0


class _PureMarker:
    """Entering and leaving where there is no accelerator."""

    def _prepare(self, area: int, text: bytes) -> None:
        self._area = area
        self._text = text

    def __enter__(self) -> Any:
        if _takes_turns():
            return self._enter_context()
        slot = _slot_of(self)
        place, serial = slot.enter(self._text)
        _thread.stacks[self._area].append((self, place, serial))
        if serial:
            slot.current = serial
        return self

    def __exit__(self, *_: object) -> None:
        if not (self._exit_context() if _takes_turns() else self._leave()):
            # It was entered in the other way: before a loop began, or inside of one that has ended.
            self._leave() or self._exit_context()

    def _leave(self) -> bool:
        stack = _thread.stacks.get(self._area, [])
        for at in range(len(stack) - 1, -1, -1):
            if stack[at][0] is self:
                _, place, serial = stack.pop(at)
                slot = _slot_of(self)
                slot.leave(place, serial)
                slot.current = next((serial for _, _, serial in reversed(stack) if serial), 0)
                return True
        return False

    def _enter_context(self) -> Any:
        raise NotImplementedError

    def _exit_context(self) -> bool:
        raise NotImplementedError


def _takes_turns() -> bool:
    return _always_context or running_loop() is not None


_Base: Any = _PureMarker if accelerator is None or TYPE_CHECKING else accelerator.Marker


class Marker(_Base):  # type: ignore[misc,unused-ignore]
    """What the program is doing while it is inside: `with kernel.marker("render invoice", id=7):`.

    It is shown by the admin endpoint for as long as it lasts, and goes with each request that is submitted meanwhile.
    It may be nested, entered again (also inside of itself) and used by many threads and tasks at the same time. A
    thread shows 15 at a time: what is beyond is not shown. `text`: what is shown, 56 bytes at most.
    """

    def __init__(self, kernel: Kernel, text: str) -> None:
        whole = text.encode("utf-8", "replace").replace(b"\0", b" ")
        cut = whole[:TEXT_BYTES].decode("utf-8", "ignore")
        self.text: str = cut
        self._kernel = kernel
        self._area: int = kernel.names.area
        self._entries: set[Entry] = set()
        self._text = cut.encode()
        self._prepare(self._area, self._text)
        if not _always_context and any(name in sys.modules for name in _TURNS):
            _use_contexts_always()

    if TYPE_CHECKING:

        def __enter__(self) -> Marker:
            return self

        def __exit__(self, *_: object) -> None: ...

    def _claim(self) -> int:
        """This thread's slot; 0 if there is none: then nothing is shown of it."""
        with contextlib.suppress(Error):
            return self._kernel._marker_slot()
        return 0

    def _enter_context(self) -> Marker:
        slot = _slot_of(self)
        place, serial = slot.enter(self._text)
        entry = Entry(self, self._area, slot, place, serial, entered.get())
        self._entries.add(entry)
        if not _context.used:
            _context.used = True
            if accelerator is not None:
                accelerator.contexts(_context.current)
        entered.set(entry)
        return self

    def _exit_context(self) -> bool:
        """Leaves the marker that this context entered last; if it has none, one that another context has left open."""
        entry = top = entered.get()
        while entry is not None and entry not in self._entries:
            entry = entry.around
        if entry is None:
            if not self._entries:
                return False
            entry = next(iter(self._entries))
        self._entries.discard(entry)
        entry.slot.leave(entry.place, entry.serial)
        entry.serial = 0
        if entry is top:
            entered.set(entry.around)
        return True

    def __repr__(self) -> str:
        return f"<iokernel.Marker {self.text!r}>"


def _use_contexts_always() -> None:
    global _always_context
    _always_context = True
    if accelerator is not None:
        accelerator.always_contexts()


def marker_text(text: str, fields: dict[str, Any]) -> str:
    """`render invoice id=7`"""
    return " ".join([text, *(f"{name}={value}" for name, value in fields.items())])
