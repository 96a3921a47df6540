"""The hot paths of both servers in Python, where the accelerator was not built; _accel_wsgi.h and _accel_asgi.h have
the same names and say more."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .._channel import Channel
from .._records import FLAG_QUIET, OP_REPLY
from .._values import pack, unpack
from ._wire import PIECE_BYTES, wire_headers

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

NOBODY, WAITING, TAKING, RUNNING = range(4)
PULSE_S = 0.001
QUIET_PULSES = 50
WAIT_S = 1.0

FRESH, STARTED, OPEN, OVER = range(4)


class StartBase:
    """start_response of one request."""

    __slots__ = ("endpoint", "environ", "headers", "reply", "sent", "server", "status", "tag")

    def __init__(self, server: Any, tag: int, endpoint: int, environ: dict[str, Any]) -> None:
        self.server, self.tag, self.endpoint, self.environ = server, tag, endpoint, environ
        self.status: str | None = None
        self.headers: Any = None
        self.reply: Any = None
        self.sent = False

    def __call__(self, status: str, headers: Any, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None or self.status is not None or type(status) is not str or type(headers) is not list:
            self._restart(status, headers, exc_info)
        else:
            self.status, self.headers = status, headers
        write: Callable[[bytes], None] = self.write
        return write

    def _restart(self, status: Any, headers: Any, exc_info: Any) -> None:
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        raise NotImplementedError


class WsgiBase:
    """The loop of a WSGI server. Threads take turns with its channel under a lock."""

    def __init__(self, start_class: Any, channel: Channel, app: Any, base: dict[str, Any]) -> None:
        self._start_class, self.channel, self.app, self.base = start_class, channel, app, base
        self.stash: deque[tuple[int, int, dict[str, Any]]] = deque()
        self.adjust: Callable[[dict[str, Any]], object] | None = None
        self.adjusts_all = False
        self.pulse = self.doing = self.served = self._most = 0
        self._leader = 0
        self._lock = threading.Lock()
        self._call = threading.Condition(self._lock)
        self._closing = False
        self._limit: Callable[[], object] = lambda: None

    # For the class that is derived from this

    def _input(self, tag: int, endpoint: int, body: Any) -> Any:
        raise NotImplementedError

    def _respond(self, start: Any, result: Any) -> None:
        raise NotImplementedError

    def _failed(self, start: Any, error: BaseException) -> None:
        raise NotImplementedError

    # Leading

    def _leads(self) -> bool:
        return self._leader == threading.get_ident()

    def lead(self) -> bool:
        """Whether this thread leads from here on: if nobody else does."""
        with self._lock:
            if not self._leader:
                self._leader, self.doing = threading.get_ident(), TAKING
            return self._leads()

    def step_back(self) -> None:
        """Leads no more."""
        with self._lock:
            if self._leads():
                self._leader, self.doing = 0, NOBODY
            self._call.notify_all()

    def end(self) -> None:
        """Everyone who runs or stands by returns soon. Any thread."""
        with self._lock:
            self._closing = True
            self._call.notify_all()

    def stand_by(self) -> bool:
        """True once this thread leads; False when all ends."""
        last, quiet = self.pulse, 0
        with self._lock:
            while not self._closing:
                if self.doing == NOBODY or (quiet and self.doing == RUNNING):
                    self._leader, self.doing = threading.get_ident(), TAKING
                    return True
                self._call.wait(PULSE_S if quiet < QUIET_PULSES else PULSE_S * QUIET_PULSES)
                quiet = quiet + 1 if self.pulse == last else 0
                last = self.pulse
        return False

    def _is_doing(self, doing: int) -> bool:
        """Notes what the leader does. False if this thread leads no more."""
        with self._lock:
            if self._leads():
                self.doing = doing
            return self._leads()

    # Requests

    def run(self) -> None:
        """Serves for as long as this thread leads."""
        try:
            while self._leads() and not self._closing and not self.channel.ended:
                if self.stash or self._receive(WAIT_S):
                    self._serve(*self.stash.popleft())
        finally:
            self.step_back()

    def pump(self, timeout_ms: int) -> int:
        """Takes what has come for others, as the leader; requests are put aside."""
        self._is_doing(TAKING)
        self._receive(timeout_ms / 1000)
        self._is_doing(RUNNING)
        return len(self.stash)

    def _receive(self, timeout_s: float) -> bool:
        """Takes what has come, sleeping until there is something. True if there are requests."""
        channel = self.channel
        if not channel.poll() and not self.stash and not channel.ended:
            channel.flush()
            self._is_doing(WAITING)
            channel._sleep(time.monotonic() + timeout_s)
            self._is_doing(TAKING)
            self.pulse += 1
            channel.poll()
        return bool(self.stash)

    def request(self, tag: int, endpoint: int, payload: bytes) -> None:
        """A request that the channel has handed over."""
        head, body = unpack(payload)
        environ = {**self.base, **head}
        if self.adjust is not None and (
            self.adjusts_all or "HTTP_X_FORWARDED_FOR" in environ or "HTTP_X_FORWARDED_PROTO" in environ
        ):
            self.adjust(environ)
        if body is not None:
            environ["wsgi.input"] = self._input(tag, endpoint, body)
        self.stash.append((tag, endpoint, environ))

    def _serve(self, tag: int, endpoint: int, environ: dict[str, Any]) -> None:
        start = self._start_class(self, tag, endpoint, environ)
        self.pulse += 1
        self._is_doing(RUNNING)
        try:
            result = self.app(environ, start)
            if not self._answer(start, result):
                self._respond(start, result)
        except Exception as error:
            self._failed(start, error)
        self._is_doing(TAKING)
        self.served += 1
        if self.served == self._most:
            self._limit()

    def _answer(self, start: Any, result: Any) -> bool:
        """Replies at once with what is whole."""
        if start.status is None or start.sent or type(result) not in (list, tuple) or len(result) > 1:
            return False
        body = result[0] if result else b""
        if type(body) is not bytes or len(body) > PIECE_BYTES or not self._is_doing(TAKING):
            return False
        payload = pack([start.status, wire_headers(start.headers), body])
        self.channel.submit(OP_REPLY, FLAG_QUIET, start.endpoint, 0, 0, payload, tag=start.tag)
        return True


class CycleBase:
    """One request with its response."""

    __slots__ = ("body", "channel", "endpoint", "gone", "headers", "slowly", "stage", "status", "tag", "told")

    def __init__(self, channel: Any, tag: int, endpoint: int, body: Any) -> None:
        self.channel, self.tag, self.endpoint, self.body = channel, tag, endpoint, body
        self.stage = FRESH
        self.status: Any = None
        self.headers: Any = None
        self.told = self.gone = self.slowly = False

    async def receive(self) -> dict[str, Any]:
        return await self._receive()

    async def send(self, message: dict[str, Any]) -> None:
        await self._send(message)

    async def _receive(self) -> dict[str, Any]:
        raise NotImplementedError

    async def _send(self, message: dict[str, Any]) -> None:
        raise NotImplementedError


class AsgiBase:
    """Makes requests' cycles and scopes."""

    cycle_class: Any
    app: Any
    base: dict[str, Any]
    state: dict[str, Any] | None
    extensions: dict[str, Any]
    loop: AbstractEventLoop
    adjust: Callable[[dict[str, Any]], object] | None = None
    adjusts_all = False
    served = _most = 0
    _limit: Callable[[], object]
    # Of the accelerator, which takes the first step of a request's task by itself.
    task_class: Any = None
    enter: Any
    leave: Any
    copy_context: Any
    coroutine: Any = None
    context: Any = None
    is_made = False

    def attach(self, channel: Any) -> None:
        channel._server = self

    def _spawn(self, cycle: Any, scope: dict[str, Any]) -> None:
        raise NotImplementedError

    def take(self, channel: Any, tag: int, endpoint: int, payload: bytes) -> None:
        """A request that the channel has handed over."""
        head, body = unpack(payload)
        scope = {**self.base, **head, "extensions": dict(self.extensions)}
        scope["headers"] = [tuple(pair) for pair in scope["headers"]]
        scope["client"] = scope["client"] and tuple(scope["client"])
        scope["server"] = tuple(scope["server"])
        if self.state is not None:
            scope["state"] = dict(self.state)
        if self.adjust is not None and (
            self.adjusts_all or any(name.startswith(b"x-forwarded-") for name, _ in scope["headers"])
        ):
            self.adjust(scope)
        self._spawn(self.cycle_class(channel, tag, endpoint, b"" if body is None else body), scope)
        self.served += 1
        if self.served == self._most:
            self._limit()


class Resumed:
    """A coroutine whose first step was taken outside of its task; only the accelerator does that."""

    def __init__(self, coroutine: Any) -> None:
        self.coroutine = coroutine
        self.first: Any = None
        self.outcome: Any = None
