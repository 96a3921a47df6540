"""The connection of threads: redis-py's `Connection` over an endpoint."""

from __future__ import annotations

import contextlib
import math
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, ClassVar

from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError
from redis.retry import Retry

from iokernel import _errors
from iokernel._channel import Channel
from iokernel._lib import lib

from ._base import BaseConnection
from ._commands import Batch, Command, Need
from ._replies import CLOSED_BY_SERVER, failure
from ._source import CONNECT_TIMEOUT_S, Source, seconds
from ._topics import Topics

_LOOK_S = 1.0
"""How soon a thread that waits for messages sees that another one disconnected it."""
_OWN: Any = object()
"""No timeout was given: the connection's own."""


class Connection(BaseConnection):
    """What redis-py sees of the kernel. One thread at a time uses it, except for pub/sub."""

    retry_class: ClassVar[Any] = Retry
    backoff_class: ClassVar[Any] = NoBackoff
    like_hiredis: ClassVar[bool] = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sent: deque[Command | Batch] = deque()
        """Sent as redis-py sees it: each goes out when its reply is read."""
        self._got: deque[Any] = deque()
        """What is left of a batch's replies."""
        self._listening: Listening | None = None

    def __del__(self) -> None:
        try:
            self.disconnect()
        except Exception:
            return

    # Connecting

    def connect(self) -> None:
        """Returns once the server is there; with the pool's `retry`."""
        if self._epoch != self.source.epoch:
            self.retry.call_with_retry(self._connect, lambda error: self.disconnect())

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        self.connect()

    def _connect(self) -> None:
        again = self._epoch >= 0
        try:
            self.source.connect()
        except _errors.Timeout:
            raise TimeoutError("Timeout connecting to server") from None
        except _errors.Error as error:
            raise failure(error, self._host_error()) from None
        self._epoch = self.source.epoch
        if again and self._listening is not None:
            return  # Streams outlive connections.
        for callback in self._callbacks():
            callback(self)

    def on_connect(self) -> None:
        """The handshake is the kernel's."""

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Forgets everything that is under way, and the lease. The shared connection stays for the others."""
        self._reset()
        self._sent.clear()
        self._got.clear()
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        self.drop_lease()

    def check_health(self) -> None:
        """The kernel's heartbeat does this."""

    def re_auth(self) -> None:
        return

    # Sending

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        """Takes a command; it goes out when its reply is read, or looked for."""
        if self._epoch != self.source.epoch:
            self.connect()
        self._send(self._packer(args))

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Takes what `pack_command` or `pack_commands` gave."""
        if not isinstance(command, Batch):
            raise RedisError("over iokernel only what pack_command or pack_commands gave can be sent")
        if self._epoch != self.source.epoch:
            self.connect()
        if len(command) == 1:
            self._send(command[0])
        elif command:
            self._sent.append(command)

    def _send(self, command: Command) -> None:
        if command.need in (Need.TOPICS, Need.MONITOR) and self._listening is None:
            self._listening = Listening(self.source)
        if self._listening is None:
            self._sent.append(command)
        else:
            self._listening.send(command, min(seconds(self.socket_timeout), CONNECT_TIMEOUT_S))

    # Reading

    def can_read(self, timeout: float | None = 0) -> bool:
        """Whether a reply or a message is there, waiting `timeout` seconds for it."""
        if self._listening is not None:
            return self._listening.wait(seconds(timeout))
        if self._sent and not self._got:
            self._fetch(seconds(self.socket_timeout))
        return bool(self._got)

    def read_response(
        self,
        disable_decoding: bool = False,
        *,
        timeout: Any = _OWN,
        disconnect_on_error: bool = True,
        push_request: bool = False,
    ) -> Any:
        """The reply to the oldest command, or the next message. Raises as redis-py's connections do."""
        limit = self.socket_timeout if timeout is _OWN else timeout
        try:
            value = self._next(seconds(limit))
            if isinstance(value, Exception) and not isinstance(value, _errors.RemoteError):
                raise failure(value, self._host_error())
            response = self._replies.give(value, disable_decoding)
        except BaseException:
            if disconnect_on_error:
                self.disconnect()
            raise
        if self._listening is not None and push_request and self.protocol == 3 and isinstance(response, list):
            response = self._parser.pubsub_push_handler_func(response)
        if isinstance(response, ResponseError):
            try:
                raise response
            finally:
                del response
        return response

    def _next(self, timeout: float) -> Any:
        if self._got:
            return self._got.popleft()
        if self._listening is not None:
            return self._listening.take(timeout, self._host_error())
        if not self._sent:
            raise TimeoutError(f"Timeout reading from {self._host_error()}")
        self._fetch(timeout)
        return self._got.popleft()

    def _fetch(self, timeout: float) -> None:
        """Sends the oldest command or batch and waits for its replies."""
        sent = self._sent.popleft()
        try:
            if isinstance(sent, Batch):
                self._got.extend(self._batch(sent, timeout))
            else:
                self._got.append(self._single(sent, timeout))
        except _errors.Error as error:
            if isinstance(error, (_errors.ConnectionLost, _errors.Unavailable)):
                self.source.lost()
            raise failure(error, self._host_error()) from None

    def _single(self, command: Command, timeout: float) -> Any:
        if command.need is Need.TRANSACTION or command.need is Need.STICKY or command.need is Need.LEAVES:
            self._hold(command.need is not Need.TRANSACTION)
        reply: Any
        try:
            reply = self._ask([command.words], False, timeout)[0]
        except _errors.RemoteError as error:
            reply = error
        if self._lease is not None:
            self._answered(command, reply)
        return reply

    def _batch(self, batch: Batch, timeout: float) -> list[Any]:
        need = batch.need()
        commands = [command.words for command in batch]
        if need is Need.STICKY:
            self._hold(True)
            replies = []
            for command in batch:
                replies.append(self._single(command, timeout))
            return replies
        if need is not Need.SHARED:
            self._hold(False)
        replies = self._ask(commands, True, timeout)
        if self._lease is not None and not self._sticky and (need is Need.WAITS or batch.is_transaction):
            self.drop_lease()
        return replies

    def _ask(self, commands: list[list[Any]], batch: bool, timeout: float) -> list[Any]:
        while True:
            lease = self._lease
            target = self.source.endpoint if lease is None else lease
            try:
                return self.source.ask(target, commands, batch, timeout)
            except _errors.Closed:
                # The lease went with the thread that took it. A watch is lost with it; other state is only missing.
                if lease is None or not self._sticky or self._multi:
                    raise
                self.drop_lease()

    def _hold(self, sticky: bool) -> None:
        """Takes a lease, if there is none."""
        if self._lease is None:
            timeout = self.socket_connect_timeout
            self._lease = self.source.endpoint.lease(math.inf if timeout is None else timeout).acquire()
        self._sticky |= sticky


class Listening:
    """Topics with a channel of their own, because one thread subscribes while another one waits for messages."""

    def __init__(self, source: Source) -> None:
        kernel = source.endpoint.kernel
        self._channel = Channel(kernel._open_channel("ring=128KiB"), kernel.names, record_max=1 << 15)
        self._lock = threading.RLock()
        self._waiting = 0
        self._bell, self._ring = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._fds = lib.iok_channel_fd(self._channel._handle), self._bell
        self._topics = Topics(self._channel, kernel.names, source.endpoint.number, source.resp3, lambda: None)

    def send(self, command: Command, timeout: float) -> None:
        """Returns once the server has accepted, so that what is published from then on is received."""
        with self._lock:
            self._topics.send(command)
            self._channel.send()
        if command.need is not Need.SHARED:
            self._until(lambda: not self._topics.is_due, timeout)

    def wait(self, timeout: float) -> bool:
        """Whether there is something to take, after at most `timeout` seconds."""
        return self._until(lambda: bool(self._topics.queue), timeout)

    def _until(self, done: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        # Each thread needs a poller of its own.
        poller = select.poll()
        for fd in self._fds:
            poller.register(fd, select.POLLIN)
        while True:
            with self._lock:
                if self._channel.ended:
                    raise ConnectionError(CLOSED_BY_SERVER)
                self._drain()
                if done():
                    return True
                left = min(deadline - time.monotonic(), _LOOK_S)
                if left <= 0:
                    return False
                self._waiting += 1
            try:
                poller.poll(left * 1000)
            finally:
                self._waiting -= 1

    def _drain(self) -> None:
        """Takes what has come. Whoever else waits is told, as nothing is left that would wake it."""
        came = 0
        while count := self._channel.poll():
            came += count
        if self._channel._out or self._channel._unsent:
            self._channel.send()
        if came and self._waiting:
            os.write(self._ring, b"!")
        elif not self._waiting:
            with contextlib.suppress(BlockingIOError):
                os.read(self._bell, 64)

    def take(self, timeout: float, host: str) -> Any:
        """The next reply or message."""
        while self.wait(timeout):
            with self._lock:
                if self._topics.queue:
                    return self._topics.queue.popleft()
        raise TimeoutError(f"Timeout reading from {host}")

    def close(self) -> None:
        with self._lock:
            if self._channel.ended:
                return
            self._topics.close()
            self._channel.close()
            if self._waiting:
                os.write(self._ring, b"!")

    def __del__(self) -> None:
        os.close(self._bell)
        os.close(self._ring)
