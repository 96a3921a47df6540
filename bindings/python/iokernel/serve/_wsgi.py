"""WSGI (PEP 3333): requests of listeners through an application, by one thread or several."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .._channel import Channel, Completion
from .._errors import Error, RemoteError
from .._records import FLAG_QUIET, KIND_DONE, KIND_END, KIND_GONE, KIND_PUSH, KIND_REQUEST, OP_CREDIT, OP_REPLY, OP_SEND
from .._values import pack
from ._engine import StartBase, WsgiBase
from ._wire import AHEAD_BYTES, CREDIT_BYTES, FAILURE, PIECE_BYTES, PLAIN, content_length, wire_headers

if TYPE_CHECKING:
    from .._kernel import Kernel

log = logging.getLogger("iokernel.serve")

RUNNING = 3
"""What `doing` says while the application runs."""


PUMP_MS = 1000
LEAD_LOOK_S = 0.05
"""How soon a thread that waits for a body sees that nobody takes what comes."""


class Gone(ConnectionError):
    """The client has left before it had its response."""


class Reply:
    """A response that goes in pieces, through the channel of the thread that makes it."""

    def __init__(self, kernel: Kernel, tag: int, endpoint: int) -> None:
        self._channel: Channel = kernel.thread_channel()
        self._names = kernel.names
        self._tag, self._endpoint = tag, endpoint
        self._unsent = 0
        self._error: Error | None = None

    def whole(self, status: Any, headers: Any, body: bytes) -> None:
        """All of it."""
        self._channel.submit(
            OP_REPLY, FLAG_QUIET, self._endpoint, 0, 0, pack([status, wire_headers(headers), body]), tag=self._tag
        )
        self._channel.send()

    def begin(self, status: Any, headers: Any) -> None:
        """Its beginning: pieces follow."""
        self.whole(status, headers, True)  # type: ignore[arg-type]

    def send(self, piece: Any) -> None:
        """A piece of the body, bytes or a span of a file; waits while too much is under way. Raises Gone."""
        if isinstance(piece, (bytes, bytearray, memoryview)) and len(piece) > PIECE_BYTES:
            view = memoryview(piece)
            for at in range(0, len(view), PIECE_BYTES):
                self._send(view[at : at + PIECE_BYTES])
        else:
            self._send(piece)

    def _send(self, piece: Any) -> None:
        payload = pack(piece)
        weight = len(payload)
        self._unsent += weight
        self._channel.submit(OP_SEND, 0, self._endpoint, 0, self._tag, payload, sink=_Ack(self, weight))
        self._channel.send()
        self._until(AHEAD_BYTES)

    def _until(self, most: int) -> None:
        # What has been taken over is told of one by one: it is heard in any case.
        self._channel.poll()
        if self._unsent > most:
            self._channel.wait(lambda: self._unsent <= most or self._error is not None)
        if self._error is not None:
            raise Gone(f"the response cannot go on: {self._error}") from None

    def settle(self) -> None:
        """Waits until everything has been taken over by the kernel."""
        self._until(0)

    def finish(self) -> None:
        """Nothing more follows."""
        self._channel.submit(OP_SEND, FLAG_QUIET, self._endpoint, 0, self._tag, pack(None))
        self._channel.send()

    def abort(self) -> None:
        """The client is shown that something is missing: its connection is closed."""
        payload = pack(RemoteError("the application failed", code="ERR"))
        self._channel.submit(OP_SEND, FLAG_QUIET, self._endpoint, 0, self._tag, payload)
        self._channel.send()


class _Ack:
    """Waits for a piece to be taken over."""

    __slots__ = ("_reply", "_weight")

    def __init__(self, reply: Reply, weight: int) -> None:
        self._reply, self._weight = reply, weight

    def completion(self, done: Completion) -> None:
        self._reply._unsent -= self._weight
        if done.status and self._reply._error is None:
            self._reply._error = done.error(self._reply._names)


class Start(StartBase):
    """start_response of one request."""

    __slots__ = ()

    def write(self, data: bytes) -> None:
        """The old way to send a body (PEP 3333: the write() callable)."""
        if not isinstance(data, bytes):
            raise TypeError(f"write: {type(data).__name__}: expected bytes")
        self.server._write(self, data)

    def _restart(self, status: Any, headers: Any, exc_info: Any) -> None:
        """What is no plain first call."""
        if exc_info is not None:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise AssertionError("start_response was called already, and without exc_info")
        if not isinstance(status, str):
            raise TypeError(f"status: {type(status).__name__}: expected a str, as in '200 OK'")
        self.status, self.headers = status, list(headers)


class FileWrapper:
    """`wsgi.file_wrapper`: a file that is sent by the system where it is a real one."""

    def __init__(self, filelike: Any, block_size: int = 8192) -> None:
        self.filelike = filelike
        self.block_size = block_size
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.filelike.read(self.block_size):
            yield piece

    def span(self) -> tuple[int, int, int] | None:
        """Descriptor, offset and bytes of what is left of a regular file; None if it is none."""
        try:
            fd = self.filelike.fileno()
            offset = self.filelike.tell()
            about = os.fstat(fd)
        except (AttributeError, OSError, ValueError):
            return None
        if not stat.S_ISREG(about.st_mode):
            return None
        return fd, offset, max(about.st_size - offset, 0)


class NoInput(io.RawIOBase):
    """`wsgi.input` of a request without a body: one for all of them, so nobody can close it."""

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        return

    def readinto(self, _: Any) -> int:
        return 0

    def read(self, _: int | None = -1, /) -> bytes:
        return b""

    def readline(self, _: int | None = -1, /) -> bytes:
        return b""

    def readlines(self, _: int | None = -1, /) -> list[bytes]:
        return []


class Input(io.RawIOBase):
    """`wsgi.input` of a body that comes in pieces. Reading blocks until there is something, with the GIL free."""

    def __init__(self, server: Server, tag: int, endpoint: int) -> None:
        self._server, self._tag, self._endpoint = server, tag, endpoint
        self._pieces: deque[bytes] = deque()
        self._at = 0
        self._has_ended = self._is_gone = False
        self._taken = 0
        self._news = threading.Event()

    def readable(self) -> bool:
        return True

    # What the channel hands over

    def completion(self, done: Completion) -> None:
        if done.kind == KIND_PUSH:
            self._pieces.append(done.payload)
        elif done.kind == KIND_END:
            self._has_ended = True
        else:
            self._is_gone = True
        self._news.set()

    def _is_there(self) -> bool:
        return bool(self._pieces) or self._has_ended or self._is_gone

    def _more(self) -> bool:
        """Waits for a piece. False at the end. Raises Gone if the client has left before."""
        if not self._pieces and not self._has_ended:
            if not self._is_gone:
                self._server._wait(self)
            if not self._pieces and self._is_gone:
                raise Gone("the client left within its request")
        return bool(self._pieces)

    # Reading

    def _take(self, most: int) -> bytes:
        """At most so much of the first piece."""
        piece = self._pieces[0]
        start, left = self._at, len(piece) - self._at
        if most < left:
            self._at += most
            return piece[start : start + most]
        self._pieces.popleft()
        self._at = 0
        self._taken += len(piece)
        if not self._has_ended and (self._taken >= CREDIT_BYTES or not self._pieces):
            self._server._credit(self._tag, self._endpoint, self._taken)
            self._taken = 0
        return piece[start:] if start else piece

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view) or not self._more():
            return 0
        piece = self._take(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, fewer only at the end; all that is left for a negative number or None."""
        left = sys.maxsize if size is None or size < 0 else size
        found: list[bytes] = []
        while left and self._more():
            found.append(self._take(left))
            left -= len(found[-1])
        return found[0] if len(found) == 1 else b"".join(found)

    def readline(self, size: int | None = -1, /) -> bytes:
        left = sys.maxsize if size is None or size < 0 else size
        found: list[bytes] = []
        while left and self._more():
            piece = self._pieces[0]
            end = piece.find(b"\n", self._at)
            taken = self._take(min(left, (end + 1 if end >= 0 else len(piece)) - self._at))
            found.append(taken)
            left -= len(taken)
            if taken.endswith(b"\n"):
                break
        return b"".join(found)


class Server(WsgiBase):
    """Takes the requests of a channel. Made with the channel, the application, and what every environment has."""

    kernel: Kernel

    def prepare(self, kernel: Kernel, limit: int, limit_reached: Callable[[], object]) -> None:
        """`limit_reached` is called after so many requests, never for 0."""
        self.kernel = kernel
        self._most, self._limit = limit, limit_reached
        self._felt = (0, time.monotonic())
        self._inputs: dict[int, Input] = {}
        self._idle = threading.Lock()
        self.channel.listener = self

    # What the channel hands over

    def completion(self, done: Completion) -> None:
        if done.kind == KIND_REQUEST:
            self.request(done.tag, done.endpoint, done.payload)
        elif done.kind in (KIND_PUSH, KIND_END):
            found = self._inputs.get(done.tag)
            if found is not None:
                found.completion(done)
        elif done.kind == KIND_GONE:
            found = self._inputs.pop(done.tag, None)
            if found is not None:
                found.completion(done)
        elif done.kind == KIND_DONE and done.status and not self.channel.ended:
            log.warning("a response was not sent: %s", done.error(self.kernel.names))

    def _input(self, tag: int, endpoint: int, body: Any) -> Any:
        if body is not True:
            return io.BytesIO(body)
        found = self._inputs[tag] = Input(self, tag, endpoint)
        return found

    def _credit(self, tag: int, endpoint: int, taken: int) -> None:
        channel = self.kernel.thread_channel()
        channel.submit(OP_CREDIT, FLAG_QUIET, endpoint, 0, tag, b"", tag=taken)
        channel.send()

    def _wait(self, of: Input) -> None:
        """Until something has come for a body: this thread takes what comes, or another does."""
        while True:
            of._news.clear()
            if of._is_there():
                return
            if not self.lead():
                of._news.wait(LEAD_LOOK_S)
            elif self.channel.ended:
                raise Gone("the server has ended")
            elif self.pump(PUMP_MS) and self._idle.locked():
                # Requests have come too: who stands by takes them, and what comes for this one.
                self.step_back()
                of._news.wait(LEAD_LOOK_S)

    # Responses

    def _respond(self, start: Start, result: Any) -> None:
        """A response that is no list of one piece."""
        try:
            self._pieces(start, result)
        except Gone:
            log.debug("a client has left before it had its response")
        finally:
            self._inputs.pop(start.tag, None)
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def _pieces(self, start: Start, result: Any) -> None:
        span = result.span() if type(result) is FileWrapper else None
        if span is not None and start.status is not None and not start.sent:
            return self._send_file(start, result, span)
        is_whole = isinstance(result, (list, tuple)) and len(result) <= 1
        pieces = iter(result)
        first = b""
        for piece in pieces:
            if piece:
                first = _checked(piece)
                break
        if start.status is None:
            raise AssertionError("the application did not call start_response")
        if not start.sent:
            length = content_length(start.headers)
            if not first or is_whole or length == len(first):
                self._whole(start, first, length)
                for piece in pieces:
                    _checked(piece)
                return None
        self._write(start, first)
        for piece in pieces:
            if piece:
                start.reply.send(_checked(piece))
        start.reply.finish()
        return None

    def _whole(self, start: Start, body: bytes, length: int | None) -> None:
        start.sent = True
        reply = Reply(self.kernel, start.tag, start.endpoint)
        if len(body) <= PIECE_BYTES:
            return reply.whole(start.status, start.headers, body)
        if length is None:
            start.headers = [*start.headers, ("Content-Length", str(len(body)))]
        reply.begin(start.status, start.headers)
        reply.send(body)
        return reply.finish()

    def _send_file(self, start: Start, result: FileWrapper, span: tuple[int, int, int]) -> None:
        fd, offset, left = span
        length = content_length(start.headers)
        count = left if length is None else min(left, length)
        if length is None:
            start.headers = [*start.headers, ("Content-Length", str(count))]
        start.sent = True
        start.reply = reply = Reply(self.kernel, start.tag, start.endpoint)
        reply.begin(start.status, start.headers)
        if count:
            reply.send({"fd": fd, "offset": offset, "length": count})
            reply.settle()
        reply.finish()

    def _write(self, start: Start, data: bytes) -> None:
        if start.status is None:
            raise AssertionError("write() before start_response()")
        if not start.sent:
            start.sent = True
            start.reply = Reply(self.kernel, start.tag, start.endpoint)
            start.reply.begin(start.status, start.headers)
        if data:
            start.reply.send(data)

    def _failed(self, start: Start, error: BaseException) -> None:
        """The application raised."""
        self._inputs.pop(start.tag, None)
        if isinstance(error, Gone):
            log.debug("a client has left before it had its response")
            return
        environ = start.environ
        log.error("%s %s failed", environ.get("REQUEST_METHOD"), environ.get("RAW_URI"), exc_info=error)
        if not start.sent:
            start.sent = True
            Reply(self.kernel, start.tag, start.endpoint).whole(500, PLAIN, FAILURE)
        elif start.reply is not None:
            start.reply.abort()

    def is_stuck(self, timeout_s: float) -> bool:
        """All threads have been in one request each for so long. To be asked again and again, by one thread."""
        pulse, now = self.pulse, time.monotonic()
        if pulse != self._felt[0] or self.doing != RUNNING:
            self._felt = pulse, now
        return bool(timeout_s) and now - self._felt[1] > timeout_s

    # Threads

    def work(self) -> None:
        """The body of each thread, until the end."""
        while True:
            with self._idle:
                if not self.stand_by():
                    return
            try:
                self.run()
            except Exception:
                log.exception("a request could not be taken")


def _checked(piece: Any) -> bytes:
    if not isinstance(piece, bytes):
        raise TypeError(f"a piece of a response: {type(piece).__name__}: expected bytes")
    return piece


def base_environ(threads: int, processes: int, scheme: str, root_path: str = "") -> dict[str, Any]:
    """What every environment has, in places for what each request brings."""
    return {
        "REQUEST_METHOD": "",
        "SCRIPT_NAME": root_path,
        "PATH_INFO": "",
        "QUERY_STRING": "",
        "REQUEST_URI": "",
        "RAW_URI": "",
        "SERVER_NAME": "",
        "SERVER_PORT": "",
        "SERVER_PROTOCOL": "",
        "REMOTE_ADDR": "",
        "REMOTE_PORT": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": NoInput(),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": threads > 1,
        "wsgi.multiprocess": processes > 1,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "SERVER_SOFTWARE": "iokernel",
    }
