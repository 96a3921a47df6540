"""ASGI 3.0: requests and WebSockets of listeners through an application, in one event loop.

`Cycle` is one request with its response, `Socket` one WebSocket; their `receive` and `send` are what the application is
given. `Server` makes them of what a channel hands over.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from .._channel import Completion
from .._errors import RemoteError
from .._records import FLAG_QUIET, KIND_DONE, KIND_END, KIND_GONE, KIND_PUSH, KIND_REQUEST, OP_CREDIT, OP_REPLY, OP_SEND
from .._values import pack
from ._engine import AsgiBase, CycleBase, Resumed, step_done
from ._wire import AHEAD_BYTES, CREDIT_BYTES, FAILURE, PIECE_BYTES, PLAIN, content_length

if TYPE_CHECKING:
    from .._aio import LoopChannel
    from .._kernel import Kernel

log = logging.getLogger("iokernel.serve")

Message = dict[str, Any]
Application = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Any]

FRESH, STARTED, OPEN, OVER = range(4)
TASKS_TAKE_CONTEXTS = sys.version_info >= (3, 11)
TASKS_ARE_EAGER = sys.version_info >= (3, 12)

VERSIONS = {"version": "3.0", "spec_version": "2.5"}
HTTP_EXTENSIONS: Message = {
    "http.response.trailers": {},
    "http.response.pathsend": {},
    "http.response.early_hint": {},
}
WEBSOCKET_EXTENSIONS: Message = {"websocket.http.response": {}}

NORMAL, GOING_AWAY, NO_STATUS, ABNORMAL, INTERNAL_ERROR = 1000, 1001, 1005, 1006, 1011


class ClientGone(ConnectionError):
    """Something was sent to a client that has left (ASGI: an OSError)."""


class Talk:
    """What comes and goes beside the first message of a request: pieces, their window, the end."""

    __slots__ = (
        "_ahead", "_error", "_loop", "_taken", "_waiters",
        "ended", "gone", "has_left", "is_body_over", "last", "pieces", "trailers",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ahead = 0
        self._error: Any = None
        self._waiters: list[asyncio.Future[None]] = []
        self._taken = 0
        self.pieces: deque[Completion] = deque()
        self.ended = False
        self.gone = False
        self.has_left = False
        """The client has ended its side of the connection. It may still read, so what is sent goes."""
        self.trailers: list[Any] | None = None
        """What goes behind the body of a response; None: nothing."""
        self.is_body_over = False
        """Trailers are all that is to come of the response."""
        self.last: Any = None
        """What came with the end: trailers, or the code and reason of a close."""

    def news(self) -> None:
        """Wakes everyone who waits."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def change(self) -> None:
        """Waits until something is other than it was."""
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def completion(self, done: Completion) -> None:
        if done.kind == KIND_PUSH:
            self.pieces.append(done)
        elif done.kind == KIND_END:
            self.ended, self.last = True, done.value()
        else:
            self.gone = True
        self.news()

    def take(self, channel: LoopChannel, tag: int, endpoint: int) -> Completion:
        """The next piece; what it took of the window is given back in portions."""
        done = self.pieces.popleft()
        self._taken += len(done.payload) or 1
        if not (self.ended or self.gone) and (self._taken >= CREDIT_BYTES or not self.pieces):
            channel.submit(OP_CREDIT, FLAG_QUIET, endpoint, 0, tag, b"", tag=self._taken)
            self._taken = 0
        return done

    async def send(self, channel: LoopChannel, tag: int, endpoint: int, piece: Any) -> None:
        """Sends a piece; waits while too much is under way. Raises ClientGone."""
        payload = pack(piece)
        self._ahead += len(payload)
        channel.submit(OP_SEND, 0, endpoint, 0, tag, payload, sink=_Ack(self, len(payload)))
        await self.until(AHEAD_BYTES)

    async def until(self, most: int) -> None:
        """Waits until no more than so many bytes are under way."""
        while self._ahead > most and self._error is None and not self.gone:
            await self.change()
        if self.gone:
            raise ClientGone("the client has left")
        if self._error is not None:
            raise self._error


class _Ack:
    """Waits for a piece to be taken over."""

    __slots__ = ("_talk", "_weight")

    def __init__(self, talk: Talk, weight: int) -> None:
        self._talk, self._weight = talk, weight

    def completion(self, done: Completion) -> None:
        talk = self._talk
        talk._ahead -= self._weight
        if done.status and talk._error is None:
            error = done.error({})
            talk._error = ClientGone(str(error)) if done.status in (-111, -302) else RuntimeError(str(error))
        talk.news()


class Cycle(CycleBase):
    """One request with its response. `_receive` and `_send` are for what is not over at once."""

    __slots__ = ("_talk",)
    _talk: Talk

    @property
    def _server(self) -> Server:
        server: Server = self.channel._server
        return server

    def _talks(self) -> Talk:
        """The request's further messages; from here on it is told of them."""
        try:
            talk = self._talk
        except AttributeError:
            server = self._server
            talk = self._talk = Talk(server.loop)
            server.live[self.tag] = self
        return talk

    def completion(self, done: Completion) -> None:
        talk = self._talks()
        if done.kind == KIND_GONE:
            self.gone = True
        elif done.kind == KIND_END and (self.told or talk.ended or self.body is not True):
            talk.has_left = True
        talk.completion(done)

    # Receiving

    async def _receive(self) -> Message:
        if self.gone or self.stage == OVER:
            return {"type": "http.disconnect"}
        if not self.told:
            if self.body is not True:
                body, self.body, self.told = self.body, None, True
                return {"type": "http.request", "body": body, "more_body": False}
            message = await self._receive_piece(self._talks())
            if message is not None:
                return message
        talk = self._talks()
        self.slowly = True
        while not (talk.has_left or self.gone or self.stage == OVER):
            await talk.change()
        return {"type": "http.disconnect"}

    async def _receive_piece(self, talk: Talk) -> Message | None:
        while not (talk.pieces or talk.ended or self.gone or self.stage == OVER):
            await talk.change()
        if talk.pieces:
            found = []
            while talk.pieces:
                found.append(talk.take(self.channel, self.tag, self.endpoint).payload)
            self.told = talk.ended
            return {"type": "http.request", "body": b"".join(found), "more_body": not talk.ended}
        if talk.ended:
            self.told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return None

    # Sending

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self.stage == OVER:
            raise RuntimeError(f"{kind!r} after the end of the response")
        if self.gone:
            raise ClientGone("the client has left")
        if self.stage == FRESH:
            return self._start(kind, message)
        talk = getattr(self, "_talk", None)
        is_body_over = talk is not None and talk.is_body_over
        if kind == "http.response.body" and not is_body_over:
            return await self._send_body(message.get("body", b""), bool(message.get("more_body", False)))
        if kind == "http.response.pathsend" and self.stage == STARTED:
            return await self._send_path(message["path"])
        if kind == "http.response.trailers" and is_body_over:
            return self._send_trailers(message)
        expected = "http.response.trailers" if is_body_over else "http.response.body"
        raise RuntimeError(f"{kind!r}: expected {expected!r} here")

    def _start(self, kind: str, message: Message) -> None:
        if kind == "http.response.early_hint":
            headers = [(b"link", link) for link in message.get("links", ())]
            return self._reply([103, headers, None])
        if kind != "http.response.start":
            raise RuntimeError(f"{kind!r}: expected 'http.response.start' first")
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise RuntimeError(f"status: {status!r}: expected a number from 200 to 999")
        self.status, self.headers = status, [tuple(pair) for pair in message.get("headers", ())]
        if message.get("trailers", False):
            self._talks().trailers, self.slowly = [], True
        self.stage = STARTED
        return None

    def _reply(self, value: list[Any]) -> None:
        self.channel.submit(OP_REPLY, FLAG_QUIET, self.endpoint, 0, 0, pack(value), tag=self.tag)

    def _begin(self) -> None:
        self._talks()
        self._reply([self.status, self.headers, True])
        self.stage = OPEN

    async def _send_body(self, body: Any, more: bool) -> None:
        talk = getattr(self, "_talk", None)
        trails = talk is not None and talk.trailers is not None
        if self.stage == STARTED and not more and not trails:
            if len(body) <= PIECE_BYTES:
                self._reply([self.status, self.headers, body])
                return self._over()
            if content_length(self.headers) is None:
                self.headers = [*self.headers, (b"content-length", b"%d" % len(body))]
        if self.stage == STARTED:
            self._begin()
        view = memoryview(body)
        for at in range(0, len(view), PIECE_BYTES):
            await self._talks().send(self.channel, self.tag, self.endpoint, view[at : at + PIECE_BYTES])
        if not more and trails:
            self._talks().is_body_over = True
        elif not more:
            self._finish(None)
        return None

    async def _send_path(self, path: str) -> None:
        """The file of that path, from the disk to the wire by the system (extension `http.response.pathsend`)."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            length = os.fstat(fd).st_size
            if content_length(self.headers) is None:
                self.headers = [*self.headers, (b"content-length", b"%d" % length)]
            self._begin()
            if length:
                talk = self._talks()
                span = {"fd": fd, "offset": 0, "length": length}
                await talk.send(self.channel, self.tag, self.endpoint, span)
                await talk.until(0)
        finally:
            os.close(fd)
        self._finish(None)

    def _send_trailers(self, message: Message) -> None:
        trailers = self._talks().trailers
        assert trailers is not None
        trailers += [tuple(pair) for pair in message.get("headers", ())]
        if not message.get("more_trailers", False):
            self._finish(trailers)

    def _finish(self, last: Any) -> None:
        self.channel.submit(OP_SEND, FLAG_QUIET, self.endpoint, 0, self.tag, pack(last))
        self._over()

    def _over(self) -> None:
        self.stage = OVER
        server = self._server
        if server.live.pop(self.tag, None) is not None:
            self._talks().news()

    # The end

    def fail(self) -> None:
        """The application raised, or returned too early."""
        if self.gone or self.stage == OVER:
            return
        if self.stage == OPEN:
            # The client is shown that something is missing.
            self._finish(RemoteError("the application failed", code="ERR"))
        else:
            self._reply([500, PLAIN, FAILURE])
            self._over()


CONNECTING, CONNECTED, DENYING, CLOSED = range(4)


class Socket:
    """One WebSocket."""

    def __init__(self, server: Server, cycle: Any) -> None:
        self._server, self._channel = server, server.channel
        self._tag, self._endpoint = cycle.tag, cycle.endpoint
        self._talk = Talk(server.loop)
        self._stage = CONNECTING
        self._was_told = False
        self._denial: Message | None = None
        self._code: tuple[int, str] | None = None
        server.live[self._tag] = self

    def completion(self, done: Completion) -> None:
        self._talk.completion(done)

    async def receive(self) -> Message:
        """`websocket.connect`, then what comes, at last `websocket.disconnect`."""
        if not self._was_told:
            self._was_told = True
            return {"type": "websocket.connect"}
        talk = self._talk
        while not (talk.pieces or talk.ended or talk.gone or self._stage == CLOSED):
            await talk.change()
        if talk.pieces and self._stage == CONNECTED:
            value = talk.take(self._channel, self._tag, self._endpoint).value()
            return {"type": "websocket.receive", "text" if isinstance(value, str) else "bytes": value}
        code, reason = self._ending()
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    def _ending(self) -> tuple[int, str]:
        if self._code is not None:
            return self._code
        if self._talk.last is not None:
            code, reason = self._talk.last
            return code, reason
        return ABNORMAL, ""

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if self._stage == CLOSED:
            raise RuntimeError(f"{kind!r} after the end of the WebSocket")
        if self._talk.gone or (self._talk.ended and kind != "websocket.close"):
            raise ClientGone("the client has left")
        if self._stage == CONNECTED:
            return await self._send_connected(kind, message)
        if self._stage == DENYING or kind.startswith("websocket.http.response."):
            return await self._deny(kind, message)
        if kind == "websocket.accept":
            return self._accept(message)
        if kind == "websocket.close":
            self._reply([403, [], None])
            return self._close(ABNORMAL, "")
        raise RuntimeError(f"{kind!r}: expected 'websocket.accept', 'websocket.close' or a response first")

    def _accept(self, message: Message) -> None:
        headers = [tuple(pair) for pair in message.get("headers") or ()]
        for name, _ in headers:
            if name.lower() == b"sec-websocket-protocol":
                raise RuntimeError("sec-websocket-protocol: give it as 'subprotocol'")
        if message.get("subprotocol"):
            headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
        self._reply([101, headers, True])
        self._stage = CONNECTED

    async def _send_connected(self, kind: str, message: Message) -> None:
        if kind == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if (text is None) == (data is None):
                raise RuntimeError("'websocket.send': expected either 'text' or 'bytes'")
            value = text if data is None else bytes(data)
            return await self._talk.send(self._channel, self._tag, self._endpoint, value)
        if kind == "websocket.close":
            code, reason = message.get("code", NORMAL), message.get("reason") or ""
            self._submit([code, reason])
            return self._close(code, reason)
        raise RuntimeError(f"{kind!r}: expected 'websocket.send' or 'websocket.close'")

    async def _deny(self, kind: str, message: Message) -> None:
        """A response where the client asked for a WebSocket (extension `websocket.http.response`)."""
        if self._stage == CONNECTING and kind == "websocket.http.response.start":
            headers = [tuple(pair) for pair in message.get("headers") or ()]
            self._denial = {"status": message["status"], "headers": headers, "begun": False}
            self._stage = DENYING
            return None
        if self._denial is None or kind != "websocket.http.response.body":
            raise RuntimeError(f"{kind!r}: expected a response, its start first")
        body, more = message.get("body", b""), message.get("more_body", False)
        if not more and not self._denial["begun"] and len(body) <= PIECE_BYTES:
            self._reply([self._denial["status"], self._denial["headers"], body])
            return self._close(ABNORMAL, "")
        if not self._denial["begun"]:
            self._denial["begun"] = True
            self._reply([self._denial["status"], self._denial["headers"], True])
        if body:
            await self._talk.send(self._channel, self._tag, self._endpoint, body)
        if not more:
            self._submit(None)
            self._close(ABNORMAL, "")
        return None

    def _reply(self, value: list[Any]) -> None:
        self._channel.submit(OP_REPLY, FLAG_QUIET, self._endpoint, 0, 0, pack(value), tag=self._tag)

    def _submit(self, value: Any) -> None:
        self._channel.submit(OP_SEND, FLAG_QUIET, self._endpoint, 0, self._tag, pack(value))

    def _close(self, code: int, reason: str) -> None:
        self._stage, self._code = CLOSED, (code, reason)
        self._server.live.pop(self._tag, None)
        self._talk.news()

    def finish(self, failed: bool) -> None:
        """The application is done with it, well or not."""
        if self._stage == CLOSED or self._talk.gone:
            self._server.live.pop(self._tag, None)
            return None
        if self._stage == CONNECTED:
            code = INTERNAL_ERROR if failed else NORMAL
            if not self._talk.ended:
                self._submit([code, ""])
            return self._close(code, "")
        if self._denial is not None and self._denial["begun"]:
            self._submit(RemoteError("the application failed", code="ERR"))
        else:
            self._reply([500, PLAIN, FAILURE])
        return self._close(ABNORMAL, "")


class RequestTask(asyncio.Task):  # type: ignore[type-arg]
    """The task of a request whose first step is taken before it is a task of its loop.

    While that step runs, it has only its identity, which is all that most of the time is asked of it: `made` by the
    first call of anything else, or when the coroutine waits for something, it goes on as any other task.
    """

    _server: Server
    _resumed: Any = None

    def made(self) -> Any:
        """Becomes a task. Its coroutine as it goes on."""
        if self._resumed is None:
            server = self._server
            resumed = self._resumed = Resumed(server.coroutine)
            server.is_made = True
            if TASKS_TAKE_CONTEXTS:
                self.__init__(resumed, loop=server.loop, context=server.context)  # type: ignore[misc]
            else:
                server.context.run(self.__init__, resumed, loop=server.loop)  # type: ignore[misc]
        return self._resumed


def _made_first(name: str) -> Any:
    method = getattr(asyncio.Task, name)

    def call(self: RequestTask, *args: Any, **named: Any) -> Any:
        self.made()
        return method(self, *args, **named)

    call.__name__, call.__doc__ = name, method.__doc__
    return call


for _name in (
    "add_done_callback", "remove_done_callback", "cancel", "cancelled", "done", "result", "exception", "get_coro",
    "get_loop", "get_name", "set_name", "get_stack", "print_stack", "__repr__", "__await__", "__iter__",
):  # fmt: skip
    setattr(RequestTask, _name, _made_first(_name))


class Server(AsgiBase):
    """Takes the requests of a loop's channel."""

    kernel: Kernel
    channel: LoopChannel

    def __init__(
        self, kernel: Kernel, channel: LoopChannel, app: Application, state: Message | None = None, root_path: str = ""
    ) -> None:
        self.kernel, self.channel, self.app, self.loop = kernel, channel, app, channel.loop
        self.cycle_class = Cycle
        self.base = {"asgi": VERSIONS, "root_path": root_path}
        self.state, self.extensions = state, HTTP_EXTENSIONS
        self.live: dict[int, Any] = {}
        self.tasks: set[asyncio.Task[Any]] = set()
        if not TASKS_ARE_EAGER and not self.loop.get_debug():
            self.enter, self.leave = asyncio.tasks._enter_task, asyncio.tasks._leave_task
            self.copy_context = contextvars.copy_context
            self.task_class = type("RequestTask", (RequestTask,), {"_server": self})
        channel.listener = self
        self.attach(channel)

    def limit(self, most: int, reached: Callable[[], object]) -> None:
        """`reached` is called after so many requests, never for 0."""
        self._most, self._limit = most, reached

    def completion(self, done: Completion) -> None:
        """What the channel hands over, but for whole requests."""
        if done.kind == KIND_REQUEST:
            return self.take(self.channel, done.tag, done.endpoint, done.payload)
        found = self.live.get(done.tag)
        if done.kind == KIND_GONE:
            self.live.pop(done.tag, None)
        if done.kind != KIND_DONE and found is not None:
            found.completion(done)
        elif done.kind == KIND_DONE and done.status and not self.channel.ended:
            log.warning("a response was not sent: %s", done.error(self.kernel.names))
        return None

    def _spawn(self, cycle: Any, scope: Message) -> None:
        """Begins what the accelerator does not."""
        if scope["type"] == "websocket":
            scope["extensions"] = dict(WEBSOCKET_EXTENSIONS)
            socket = Socket(self, cycle)
            return self._begin(self._run_socket(socket, scope))
        self.live[cycle.tag] = cycle
        return self._begin(self._run(cycle, scope))

    def _begin(self, coroutine: Any) -> None:
        if TASKS_ARE_EAGER:
            task = asyncio.Task(coroutine, loop=self.loop, eager_start=True)  # type: ignore[call-arg,unused-ignore]
            if task.done():
                return
        else:
            task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return

    async def _run(self, cycle: Any, scope: Message) -> None:
        try:
            await self.app(scope, cycle.receive, cycle.send)
        except Exception as error:
            self._failed(cycle, error)
        else:
            self._returned(cycle)

    async def _run_socket(self, socket: Socket, scope: Message) -> None:
        failed = True
        try:
            await self.app(scope, socket.receive, socket.send)
            failed = False
        except ClientGone:
            log.debug("a client has left its WebSocket")
        except Exception as error:
            log.error("WebSocket %s failed", scope["path"], exc_info=error)
        finally:
            socket.finish(failed)

    def _stepped(self, cycle: Any, task: Any, yielded: Any, error: BaseException | None) -> None:
        """The first step of a request's task was taken, and was not all, or not well."""
        if error is not None and not isinstance(error, Exception):
            raise error
        if task is None or task._resumed is None:
            if error is not None:
                return self._failed(cycle, error)
            if yielded is step_done:
                return self._returned(cycle)
        resumed = task.made()
        if error is not None or yielded is step_done:
            resumed.outcome = (None, error)
        else:
            resumed.first = yielded
        if cycle.stage != OVER:
            cycle._talks()
        self.tasks.add(task)

        def over(task: asyncio.Task[Any]) -> None:
            self.tasks.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                self._failed(cycle, error)
            else:
                self._returned(cycle)

        task.add_done_callback(over)
        return None

    def _returned(self, cycle: Any) -> None:
        if cycle.stage != OVER and not cycle.gone:
            log.error("the application returned before its response was complete")
            cycle.fail()
        self.live.pop(cycle.tag, None)

    def _failed(self, cycle: Any, error: BaseException) -> None:
        if isinstance(error, ClientGone):
            log.debug("a client has left before it had its response")
        else:
            log.error("a request failed", exc_info=error)
        cycle.fail()
        self.live.pop(cycle.tag, None)
