"""The master: holds the sockets, keeps as many workers as it was told, replaces those that end and, on SIGHUP, all of
them one by one, without a client that notices."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ._options import Address, Options, parse_address
from ._worker import BOOT_FAILED, CHANGED, READY, REPLACE, Worker, die_with_parent, setup_log

log = logging.getLogger("iokernel.serve")

BACKLOG = 1024
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.1, 5.0
STEADY_S = 10.0
"""A worker that has served for so long died of something else than its start."""
KILL_AFTER_S = 5.0
"""How long beyond the time to drain a worker has to be gone."""
LAST_COMERS_S = 0.1
"""From the moment in which nobody new may begin to connect until the door is closed."""
SIGNALS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU,
)  # fmt: skip


@dataclass
class Slot:
    """The place of one worker: its sockets, of which each worker in it has a copy, and who is there."""

    number: int
    sockets: list[socket.socket]
    failures: int = 0
    start_at: float | None = 0.0
    """When the next worker is to be started; None while there is one."""
    dropped: bool = False
    bar_at: float | None = None
    """When nobody new is let in any more; None for never, and afterwards."""


@dataclass
class Child:
    """A worker as its master sees it."""

    pid: int
    slot: Slot
    pipe: int
    heard: float
    ready: bool = False
    began: float = field(default_factory=time.monotonic)
    kill_at: float | None = None
    """When it is killed if it is still there; None while it may stay."""
    replaces: Child | None = None
    replaced: bool = False


class Master:
    """The process that was started. `run` returns its exit status; in a worker it raises SystemExit."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._addresses = [parse_address(each) for each in options.bind]
        self._slots: list[Slot] = []
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._signals: deque[int] = deque()
        self._to_reload: deque[Slot] = deque()
        self._ending = False
        self._was_ready = False
        self._status = 0

    # Sockets

    def _open_sockets(self) -> None:
        for number in range(self.options.workers):
            self._slots.append(Slot(number, [self._socket(address, number) for address in self._addresses]))

    def _socket(self, address: Address, number: int) -> socket.socket:
        """TCP has a socket for each place, among which the system shares the clients out evenly; it stays open from one
        worker to the next, so nobody in its queue is lost. Other sockets are shared by all."""
        at = self._addresses.index(address)
        if number and not address.is_tcp:
            return self._slots[0].sockets[at].dup()
        if number:
            port = self._slots[0].sockets[at].getsockname()[1]
            address = Address(host=address.host, port=port)
        return address.bind(int(self.options.listener.get("backlog", BACKLOG)), reuse_port=address.is_tcp)

    # The life

    def run(self) -> int:
        options = self.options
        setup_log(options.log_level)
        try:
            self._open_sockets()
        except OSError as error:
            log.error("%s: cannot listen: %s", ", ".join(options.bind), error.strerror or error)
            return 1
        wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._signals.append(number))
        self._selector.register(wake, selectors.EVENT_READ)
        if options.pid:
            with open(options.pid, "w") as file:
                file.write(f"{os.getpid()}\n")
        try:
            self._say_where()
            while not (self._ending and not self._children):
                self._turn(wake)
        finally:
            self._clean_up()
        return self._status

    def _say_where(self) -> None:
        scheme = "https" if self.options.is_secure else "http"
        for made in self._slots[0].sockets:
            name = made.getsockname()
            if isinstance(name, tuple):
                host = f"[{name[0]}]" if ":" in name[0] else name[0]
                log.info("serving %s on %s://%s:%s", self.options.app, scheme, host, name[1])
            else:
                shown = name.decode().replace("\0", "@") if isinstance(name, bytes) else name
                log.info("serving %s on unix:%s", self.options.app, shown)

    def _turn(self, wake: int) -> None:
        for key, _ in self._selector.select(self._until()):
            if key.fd == wake:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            else:
                self._hear(key.data)
        while self._signals:
            self._signal(self._signals.popleft())
        self._reap()
        self._see_to_times()
        self._reload_next()

    def _until(self) -> float | None:
        """Seconds until something is due."""
        now = time.monotonic()
        due = [slot.start_at for slot in self._slots if slot.start_at is not None and not self._ending]
        due += [slot.bar_at for slot in self._slots if slot.bar_at is not None]
        due += [child.kill_at for child in self._children.values() if child.kill_at is not None]
        if self.options.timeout:
            due += [child.heard + self.options.timeout for child in self._children.values() if child.ready]
        return max(min(due) - now, 0) if due else None

    def _clean_up(self) -> None:
        if os.getpid() != self._pid:
            return
        for address in self._addresses:
            if address.path and not address.path.startswith("@"):
                with contextlib.suppress(OSError):
                    os.unlink(address.path)
        if self.options.pid:
            with contextlib.suppress(OSError):
                os.unlink(self.options.pid)

    # Workers

    _pid = os.getpid()

    def _start(self, slot: Slot, replaces: Child | None = None) -> None:
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        master = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become_worker(slot, ours, theirs, master)
        os.close(theirs)
        slot.start_at = None
        child = self._children[pid] = Child(pid, slot, ours, time.monotonic(), replaces=replaces)
        self._selector.register(ours, selectors.EVENT_READ, child)

    def _become_worker(self, slot: Slot, ours: int, theirs: int, master: int) -> None:
        """In the child. Does not return."""
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        die_with_parent()
        if os.getppid() != master:
            sys.exit(0)
        self._selector.close()
        os.close(ours)
        for child in self._children.values():
            os.close(child.pipe)
        for other in self._slots:
            if other is not slot:
                for made in other.sockets:
                    made.close()

        def tell(what: bytes) -> None:
            with contextlib.suppress(OSError):
                os.write(theirs, what)

        worker = Worker(self.options, slot.number, slot.sockets, tell)
        app = worker.load()
        sys.exit(BOOT_FAILED if app is None else worker.run(app))

    def _hear(self, child: Child) -> None:
        try:
            told = os.read(child.pipe, 4096)
        except BlockingIOError:
            return
        child.heard = time.monotonic()
        if not told:
            self._selector.unregister(child.pipe)
            return
        if READY in told and not child.ready:
            self._is_ready(child)
        if CHANGED in told:
            self._signals.append(signal.SIGHUP)
        if REPLACE in told and not child.replaced and not self._ending:
            log.info("worker %d is replaced", child.pid)
            child.replaced = True
            self._start(child.slot, replaces=child)

    def _is_ready(self, child: Child) -> None:
        child.ready = True
        if child.replaces is not None and child.replaces.pid in self._children:
            # The one that takes over is there: no balancer need be told.
            self._ask_to_leave(child.replaces, signal.SIGHUP)
        child.replaces = None
        log.info("worker %d serves", child.pid)
        if not self._was_ready and all(any(one.ready for one in self._in(slot)) for slot in self._slots):
            self._was_ready = True
            notify("READY=1")

    def _in(self, slot: Slot) -> list[Child]:
        return [child for child in self._children.values() if child.slot is slot]

    def _ask_to_leave(self, child: Child, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, number)
        delay = self.options.delay if number == signal.SIGTERM else 0.0
        drain = 0.0 if number == signal.SIGQUIT else self.options.drain
        kill_at = time.monotonic() + delay + drain + KILL_AFTER_S
        child.kill_at = kill_at if child.kill_at is None else min(child.kill_at, kill_at)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: Child, status: int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(child.pipe)
        os.close(child.pipe)
        slot = child.slot
        if status and (child.kill_at is None or status != -signal.SIGKILL):
            how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
            log.error("worker %d ended %s", child.pid, how)
        others = [one for one in self._in(slot) if one.kill_at is None]
        if self._ending or slot.dropped or others:
            return self._forget_if_dropped(slot)
        if status == BOOT_FAILED and not self._was_ready:
            log.error("the first worker could not serve: giving up")
            self._status = BOOT_FAILED
            return self._end(signal.SIGQUIT)
        served = child.ready and time.monotonic() - child.began >= STEADY_S
        slot.failures = 0 if served or child.kill_at is not None else slot.failures + 1
        wait = min(BACKOFF_MIN_S * 2 ** (slot.failures - 1), BACKOFF_MAX_S) if slot.failures else 0.0
        slot.start_at = time.monotonic() + wait
        return None

    def _forget_if_dropped(self, slot: Slot) -> None:
        if slot.dropped and not self._in(slot):
            self._close(slot)
            self._slots.remove(slot)

    def _close(self, slot: Slot) -> None:
        slot.bar_at = None
        for made in slot.sockets:
            made.close()

    def _bar(self, slot: Slot) -> None:
        """Nobody new comes in. Its worker takes who has begun to connect, and has the last copies of the sockets."""
        for address, made in zip(self._addresses, slot.sockets):
            if address.is_tcp:
                drop_syns(made)
            elif self._ending and address.path and not address.path.startswith("@"):
                with contextlib.suppress(OSError):
                    os.unlink(address.path)
        self._close(slot)

    def _see_to_times(self) -> None:
        now = time.monotonic()
        for slot in self._slots:
            if not self._ending and slot.start_at is not None and slot.start_at <= now:
                self._start(slot)
            if slot.bar_at is not None and slot.bar_at <= now:
                self._bar(slot)
        for child in list(self._children.values()):
            silent = self.options.timeout and child.ready and now - child.heard > self.options.timeout
            if silent and child.kill_at is None:
                log.error("worker %d was stuck for %g s, and is killed", child.pid, self.options.timeout)
                child.kill_at = now
            if child.kill_at is not None and child.kill_at <= now:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
                child.kill_at = now + KILL_AFTER_S

    # Signals

    def _signal(self, number: int) -> None:
        if number == signal.SIGHUP and not self._ending:
            log.info("all workers are replaced")
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            self._to_reload = deque(self._slots)
        elif number == signal.SIGTTIN and not self._ending:
            taken = {slot.number for slot in self._slots}
            free = next(at for at in range(len(taken) + 1) if at not in taken)
            self._slots.append(Slot(free, [self._socket(address, free or 1) for address in self._addresses]))
        elif number == signal.SIGTTOU and len(self._slots) > 1:
            slot = self._slots[-1]
            slot.dropped, slot.start_at = True, None
            slot.bar_at = time.monotonic() + self.options.delay
            for child in self._in(slot):
                self._ask_to_leave(child, signal.SIGTERM)
        elif number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._end(number)

    def _end(self, number: int) -> None:
        if not self._ending:
            log.info("leaving on %s", signal.Signals(number).name)
            notify("STOPPING=1")
        elif number == signal.SIGINT:
            number = signal.SIGQUIT
        self._ending = True
        for slot in self._slots:
            if number == signal.SIGQUIT:
                self._close(slot)
            else:
                slot.bar_at = time.monotonic() + (self.options.delay if number == signal.SIGTERM else 0.0)
        ask = {signal.SIGINT: signal.SIGUSR1}.get(signal.Signals(number), number)
        for child in self._children.values():
            self._ask_to_leave(child, ask if child.ready else signal.SIGQUIT)

    def _reload_next(self) -> None:
        """Replaces the worker of one place at a time."""
        starting = [child for child in self._children.values() if child.replaces is not None]
        if starting or self._ending:
            return
        while self._to_reload:
            slot = self._to_reload.popleft()
            current = [child for child in self._in(slot) if child.kill_at is None]
            if slot.dropped:
                continue
            slot.failures = 0
            self._start(slot, replaces=current[0] if current else None)
            if not self._to_reload:
                notify("READY=1")
            return


def drop_syns(listening: socket.socket) -> None:
    """The system drops the first segment of whoever connects from here on, who tries again a second later; handshakes
    that have begun are finished, and may be accepted (socket(7), SO_ATTACH_FILTER)."""
    # Load the byte of a segment that has its flags (RFC 9293, 3.1); give nothing of it if SYN is one, else all.
    steps = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    with contextlib.suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", len(steps), ctypes.addressof(code)))


def notify(text: str) -> None:
    """Tells the service manager (sd_notify(3)); nobody where there is none."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
        told.sendto(text.encode(), "\0" + path[1:] if path.startswith("@") else path)


def main(arguments: Sequence[str]) -> int:
    """`iokernel serve`."""
    from ._options import parse

    options = parse(arguments)
    master = Master(options)
    master._pid = os.getpid()
    return master.run()
