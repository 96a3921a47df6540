"""A channel: submissions gathered for one call, completions copied out at once and given to who waits for them.

One thread at a time uses a channel. Finalizers, which run in any thread, leave what they want in `drop`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from . import _context
from ._errors import Error, error_for
from ._lib import calls, ffi, last_error, lib
from ._records import (
    BRIEF,
    COMPLETION,
    COMPLETION_BYTES,
    DONE_WORD,
    ENCODING_BYTES,
    ENCODING_TEXT,
    FLAG_MORE,
    FLAG_QUIET,
    FLAG_UNTIL_UP,
    KIND_DONE,
    KIND_TICK,
    OP_CANCEL,
    OP_REQUEST,
    OP_STATE,
    PADDING,
    SUBMISSION,
    SUBMISSION_BYTES,
)
from ._values import cannot_pack, decode, packer

log = logging.getLogger("iokernel")

OK, FULL, TIMED_OUT, INTERRUPTED, TOO_LARGE = 0, -201, -202, -205, -108
QUIET_TAG = 1 << 62
"""Tags from here on belong to requests that nobody waits for."""
FLUSH_EVERY = 64
"""Requests of one turn after which the kernel is given them without waiting for the turn's end."""
WAIT_SLICE_MS = 1000
"""The longest single sleep, so that a signal that another thread took is handled soon."""
SETTLE_MS = 1000
"""How long a channel that closes waits for its one-way submissions to be written."""
UNSENT_BYTES_MAX = 4 << 20
"""A thread that submits faster than the kernel takes is held when it has left this much."""


exiting = False
"""The interpreter ends."""


def park_at_exit() -> None:
    """Keeps a daemon thread from seeing how the interpreter ends, as the interpreter itself does."""
    while exiting and threading.current_thread().daemon:
        time.sleep(3600)


class Waiter(Protocol):
    """Who waits for one reply."""

    def set_result(self, value: Any, /) -> None: ...
    def set_exception(self, error: Any, /) -> None: ...


class Sink(Protocol):
    """Who takes every completion of a tag, or of a listener."""

    def completion(self, done: Completion) -> None: ...


class Names(dict[int, str]):
    """The URLs of a kernel's endpoints by their numbers, and a number for the area of its metrics."""

    area = 0


class Completion:
    """One completion, its payload whole."""

    __slots__ = ("encoding", "endpoint", "fate", "kind", "payload", "peer", "status", "tag")

    def __init__(
        self, kind: int, endpoint: int, status: int, tag: int, peer: int, fate: int, encoding: int, payload: bytes
    ) -> None:
        self.kind = kind
        self.endpoint = endpoint
        self.status = status
        self.tag = tag
        self.peer = peer
        self.fate = fate
        self.encoding = encoding
        self.payload = payload

    def value(self) -> Any:
        return decode(self.encoding, self.payload)

    def error(self, names: dict[int, str]) -> Error:
        try:
            said = self.value()
        except Exception:
            said = None
        return error_for(self.status, self.fate, names.get(self.endpoint), self.peer, said)


class _Answers:
    """Waits for so many answers, whatever they are."""

    def __init__(self, missing: int) -> None:
        self._missing = missing

    def are_there(self) -> bool:
        return self._missing <= 0

    def set_result(self, value: Any, /) -> None:
        self._missing -= 1

    set_exception = set_result


class Channel:
    """The way of one thread, or of one event loop, to the kernel."""

    def __init__(self, handle: Any, names: Names, record_max: int = 1 << 18) -> None:
        self._handle = handle
        self._raw = calls.pointer(handle)
        self._cells = ffi.new("const void **"), ffi.new("size_t *")
        self._first, self._bytes = (calls.pointer(cell) for cell in self._cells)
        counts = ffi.new("size_t *"), ffi.new("size_t *")
        self._taken = [(cell, calls.pointer(cell)) for cell in counts]
        self._names = names
        self._area = names.area
        self._payload_max = record_max - SUBMISSION_BYTES
        self._pack = packer()
        self._submit_batch = calls.submit_batch
        self._out: list[bytes] = []
        self._append = self._out.append
        self._unsent = b""
        self._progress: tuple[int, tuple[Any, Any]] = (0, self._taken[0])
        self._next_tag = 0
        self._next_quiet = QUIET_TAG
        self._pending: dict[int, Waiter] = {}
        self._sinks: dict[int, Sink] = {}
        self._parts: list[bytes] = []
        self._rest = b""
        self._loose: set[int] = set()
        self._dropped: deque[int] = deque()
        self._scheduled = True
        self.listener: Sink | None = None
        self.busy = False
        self.ended = 0

    # Submitting

    def request(
        self, flags: int, endpoint: int, timeout_ms: int, key: int, arguments: tuple[Any, ...], waiter: Waiter
    ) -> int:
        """Queues one request; its reply goes to `waiter`. Returns its tag."""
        try:
            payload = self._pack(arguments)
        except Exception as error:
            raise cannot_pack(error) from None
        self._next_tag = tag = self._next_tag + 1
        size = SUBMISSION_BYTES + len(payload)
        if size > 65536 or self.ended:
            return self.submit(OP_REQUEST, flags, endpoint, timeout_ms, key, payload, waiter, tag)
        marker = _context.current(self._area) if _context.used else 0
        head = SUBMISSION.pack(size, OP_REQUEST, flags, endpoint, timeout_ms, tag, key, 0, marker)
        self._append(head + payload + PADDING[size & 7])
        self._pending[tag] = waiter
        if not self._scheduled:
            self._schedule()
        elif len(self._out) >= FLUSH_EVERY:
            self.flush()
        return tag

    def submit(
        self,
        op: int,
        flags: int,
        endpoint: int,
        timeout_ms: int,
        key: int,
        payload: bytes,
        waiter: Waiter | None = None,
        tag: int = 0,
        sink: Sink | None = None,
    ) -> int:
        """Queues one submission of any kind and size. Returns its tag."""
        if self.ended:
            raise self._ended_error()
        if not tag:
            if flags & FLAG_QUIET:
                self._loose.add(endpoint)
                self._next_quiet = tag = self._next_quiet + 1
            else:
                self._next_tag = tag = self._next_tag + 1
        total = len(payload)
        step = self._payload_max
        whole = total <= step
        marker = _context.current(self._area) if _context.used else 0
        records: list[bytes] = []
        for at in range(0, total or 1, step):
            part = payload if whole else payload[at : at + step]
            more = 0 if at + step >= total else FLAG_MORE
            size = SUBMISSION_BYTES + len(part)
            bytes_total = 0 if whole or at else total
            head = SUBMISSION.pack(size, op, flags | more, endpoint, timeout_ms, tag, key, bytes_total, marker)
            records += (head, part, PADDING[size & 7])
        self._out += records
        if waiter is not None:
            self._pending[tag] = waiter
        elif sink is not None:
            self._sinks[tag] = sink
        if not self._scheduled:
            self._schedule()
        return tag

    def _take(self, tag: int) -> Waiter | None:
        """Who waits for a tag; nobody does from here on."""
        return self._pending.pop(tag, None)

    def _take_all(self) -> list[Waiter]:
        waiting = list(self._pending.values())
        self._pending.clear()
        return waiting

    def _schedule(self) -> None:
        """Sees to it that what is queued is sent at the end of the turn."""

    def cancel(self, tag: int, instead: Waiter | None = None) -> bool:
        """Asks to end what is under way; who waited hears no more of it. `instead` takes what comes all the same."""
        if self._take(tag) is None and self._sinks.pop(tag, None) is None:
            return False
        if instead is not None:
            self._pending[tag] = instead
        if not self.ended:
            self._append(SUBMISSION.pack(SUBMISSION_BYTES, OP_CANCEL, 0, 0, 0, tag, 0, 0, 0))
            if not self._scheduled:
                self._schedule()
        return True

    def drop(self, tag: int) -> None:
        """Cancels at the next occasion. Any thread, also from a finalizer."""
        self._dropped.append(tag)

    def flush(self) -> None:
        """Submits what is queued, as much as fits."""
        while self._dropped:
            self.cancel(self._dropped.popleft())
        if self._unsent:
            self._submit_rest()
            if self._unsent:
                return
        out = self._out
        if out:
            cell, pointer = fresh = self._taken[0]
            cell[0] = 0
            self._progress = 0, fresh
            data = self._unsent = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            status = self._submit_batch(self._raw, data, len(data), pointer)
            if status == OK:
                self._unsent = b""
            else:
                self._refused(status)

    def _unsent_at(self) -> int:
        """How much of `_unsent` the ring has taken. A call that a signal's exception ended has counted in its cell."""
        start, (cell, _) = self._progress
        taken: int = cell[0]
        return start + taken

    def _submit_rest(self) -> None:
        data = self._unsent
        while (at := self._unsent_at()) < len(data):
            cell, pointer = fresh = self._taken[self._progress[1] is self._taken[0]]
            cell[0] = 0
            self._progress = at, fresh
            place = calls.pointer(ffi.from_buffer(data) + at) if at else data
            status = self._submit_batch(self._raw, place, len(data) - at, pointer)
            if status != OK:
                self._refused(status)
                return
        self._unsent = b""

    def _refused(self, status: int) -> None:
        """A record was not taken. FULL: it waits. Its own fault: it is left out. Otherwise the channel has ended."""
        if status == FULL:
            return
        if status != TOO_LARGE:
            self._end(status)
            return
        at = self._unsent_at()
        size, _, flags, endpoint, _, tag, _, _, _ = SUBMISSION.unpack_from(self._unsent, at)
        at += (size + 7) & ~7
        while flags & FLAG_MORE:
            size, _, flags, *_ = SUBMISSION.unpack_from(self._unsent, at)
            at += (size + 7) & ~7
        self._taken[0][0][0] = 0
        self._progress = at, self._taken[0]
        self._complete(Completion(KIND_DONE, endpoint, status, tag, 0, 1, 0, b""))
        self._submit_rest()

    def send(self) -> None:
        """Submits what is queued and wakes the kernel. A thread that is far ahead of it waits here."""
        self.flush()
        self._bell()
        if self._unsent:
            self._hold_back()

    def _hold_back(self) -> None:
        while len(self._unsent) - self._unsent_at() > UNSENT_BYTES_MAX and not self.ended:
            self._sleep(None)
            self.poll()
            self.flush()

    # Completing

    def poll(self) -> int:
        """Hands out what has completed: one run of the ring. Returns how many completions there were."""
        if self.busy:
            return 0
        self.busy = True
        try:
            if self._rest:
                self._dispatch()
            count: int = calls.poll(self._raw, self._first, self._bytes)
            if not count:
                self._poll_empty()
                return 0
            first, size = self._cells
            self._rest = ffi.buffer(first[0], size[0])[:]
            calls.advance(self._raw, size[0])
            self._dispatch()
        finally:
            self.busy = False
        return count

    def _poll_empty(self) -> None:
        """Nothing was there: has the channel ended?"""
        status = calls.channel_status(self._raw)
        if status != OK:
            self._end(status)

    def _dispatch(self) -> None:
        """Hands out `_rest`. The exception of a signal's handler (Ctrl-C) may come after any call: what was not handed
        out by then stays in `_rest`, and a record that is seen twice finds nobody waiting."""
        data = self._rest
        at, end = 0, len(data)
        find, forget, brief, parts = self._pending.get, self._pending.pop, BRIEF.unpack_from, self._parts
        try:
            while at < end:
                size, word, status, tag, encoding = brief(data, at)
                if word == DONE_WORD and not status and not parts and (waiter := find(tag)) is not None:
                    try:
                        if encoding == ENCODING_BYTES:
                            waiter.set_result(data[at + COMPLETION_BYTES : at + size])
                        elif encoding == ENCODING_TEXT:
                            text = data[at + COMPLETION_BYTES : at + size]
                            waiter.set_result(text.decode("utf-8", "surrogateescape"))
                        else:
                            waiter.set_result(decode(encoding, data[at + COMPLETION_BYTES : at + size]))
                    except Exception as error:
                        self._undeliverable(waiter, error)
                    forget(tag, None)
                else:
                    self._other(data, at, size)
                at += (size + 7) & ~7
        finally:
            self._rest = data[at:]

    def _undeliverable(self, waiter: Waiter, error: Exception) -> None:
        """The reply cannot be decoded, or its future was settled by somebody else."""
        try:
            waiter.set_exception(error)
        except Exception as second:
            log.debug("a reply found its future settled: %s", second)

    def _other(self, data: bytes, at: int, size: int) -> None:
        """Completions that are no plain replies."""
        if exiting:
            park_at_exit()
        _, kind, flags, endpoint, status, tag, peer, fate, encoding, _, _, _ = COMPLETION.unpack_from(data, at)
        if kind == KIND_TICK:
            return
        payload = data[at + COMPLETION_BYTES : at + size]
        if flags & FLAG_MORE:
            self._parts.append(payload)
            return
        if self._parts:
            self._parts.append(payload)
            payload = b"".join(self._parts)
            self._parts.clear()
        self._complete(Completion(kind, endpoint, status, tag, peer, fate, encoding, payload))

    def _complete(self, done: Completion) -> None:
        if done.kind == KIND_DONE:
            waiter = self._take(done.tag)
            if waiter is not None:
                try:
                    if done.status:
                        waiter.set_exception(done.error(self._names))
                    else:
                        waiter.set_result(done.value())
                except Exception as error:
                    self._undeliverable(waiter, error)
                return
            sink = self._sinks.pop(done.tag, None)
            if sink is None and self.listener is None and done.tag > QUIET_TAG and done.status:
                log.warning("a one-way request failed: %s", done.error(self._names))
                return
        else:
            sink = self._sinks.get(done.tag)
        sink = sink or self.listener
        if sink is not None:
            try:
                sink.completion(done)
            except Exception:
                log.exception("a completion could not be taken")

    # Waiting

    def has_more(self) -> bool:
        """Something waits to be submitted."""
        return bool(self._unsent or self._out or self._dropped)

    def fd(self) -> int:
        """Readable while completions wait, until `poll` gave 0."""
        return int(lib.iok_channel_fd(self._handle))

    def _bell(self) -> None:
        """Wakes the kernel if it sleeps. A batch has done so already; the accelerator writes records one by one."""

    def _wait(self, slice_ms: int) -> int:
        """The real wait; the GIL is free meanwhile. A status."""
        status: int = lib.iok_wait(self._handle, slice_ms)
        return status

    def _sleep(self, deadline: float | None) -> bool:
        """Sleeps until something has completed or there is room, a second at most. False: the deadline is over."""
        slice_ms = WAIT_SLICE_MS
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            slice_ms = min(slice_ms, int(left * 1000) + 1)
        status = self._wait(slice_ms)
        if status not in (OK, TIMED_OUT, INTERRUPTED):
            self._end(status)
        return True

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Sleeps until `done()`. False if `timeout` seconds passed before."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if self.busy:
            raise RuntimeError("this waits for a channel inside of which it is running: wait elsewhere")
        self.flush()
        while not done():
            if self.ended:
                return done()
            if not (self._rest or self._sleep(deadline)):
                self.poll()  # What came while nobody waited is there, however short the time.
                return done()
            self.poll()
            if self.has_more():
                self.flush()
        return True

    # Ending

    def _ended_error(self) -> Error:
        return error_for(self.ended, 1, text="" if self.ended == -103 else last_error())

    def _end(self, status: int) -> None:
        """The channel is of no use any more: whoever waits is told."""
        if self.ended:
            return
        park_at_exit()
        self.ended = status
        self._out.clear()
        self._unsent = b""
        for waiter in self._take_all():
            self._undeliverable(waiter, error_for(status, 2))
        sinks, self._sinks = self._sinks, {}
        for tag, sink in sinks.items():
            sink.completion(Completion(KIND_DONE, 0, status, tag, 0, 2, 0, b""))
        if self.listener is not None:
            self.listener.completion(Completion(KIND_DONE, 0, status, 0, 0, 0, 0, b""))

    def _settle(self) -> None:
        """One-way submissions are written before the channel goes: once their endpoints are up, they are."""
        answers = _Answers(len(self._loose))
        for endpoint in self._loose:
            self.submit(OP_STATE, FLAG_UNTIL_UP, endpoint, SETTLE_MS, 0, b"", answers)
        self.wait(answers.are_there, SETTLE_MS / 1000)

    def detach(self) -> Any:
        """Takes the handle away, for another object to use it. None if there is none."""
        handle, self._handle = self._handle, None
        self._raw = calls.pointer(ffi.NULL)
        return handle

    def close(self) -> None:
        """Ends everything under way. The thread that uses the channel, or the finalizer of its last user."""
        if self._handle is None:
            return
        if self._loose and not self.ended and not self.busy:
            self._settle()
        self._end(-103)
        lib.iok_channel_close(self.detach())

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:
            return
