"""redis-py's asyncio side over the kernel.

    import redis.asyncio
    from iokernel.compat.redis.asyncio import ConnectionPool

    cache = redis.asyncio.Redis(connection_pool=ConnectionPool.from_url("redis://cache.internal/0"))

One pool may serve several loops, one after another or at the same time in different threads.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any, ClassVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, MaxConnectionsError, RedisError, ResponseError, TimeoutError

from iokernel import _errors

from ._base import BaseConnection
from ._commands import Batch, Command, Need
from ._pool import CONNECTIONS_MAX, Owner, claim
from ._replies import failure
from ._source import CONNECT_TIMEOUT_S, FIRST_LOOK_S, Source, divided, is_refused, seconds
from ._topics import Topics

__all__ = ["BlockingConnectionPool", "Connection", "ConnectionPool"]


class Connection(BaseConnection):
    """What redis-py sees of the kernel, in the loop that it runs in."""

    retry_class: ClassVar[Any] = Retry
    backoff_class: ClassVar[Any] = NoBackoff

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sent: deque[tuple[Command | Batch, list[asyncio.Future[Any]]]] = deque()
        self._got: deque[Any] = deque()
        self._listening: Listening | None = None

    # Connecting

    async def connect(self) -> None:
        """Returns once the server is there; with the pool's `retry`."""
        if self._epoch != self.source.epoch:
            await self.retry.call_with_retry(self._connect, lambda error: self.disconnect(nowait=True))

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        await self.connect()

    async def _connect(self) -> None:
        again = self._epoch >= 0
        try:
            await connected(self.source)
        except _errors.Timeout:
            raise TimeoutError("Timeout connecting to server") from None
        except _errors.Error as error:
            raise failure(error, self._host_error()) from None
        self._epoch = self.source.epoch
        if again and self._listening is not None:
            return  # Streams outlive connections.
        for callback in self._callbacks():
            task = callback(self)
            if isinstance(task, Awaitable):
                await task

    async def on_connect(self) -> None:
        """The handshake is the kernel's."""

    async def disconnect(self, nowait: bool = False, **_: Any) -> None:
        """Forgets everything that is under way, and the lease. The shared connection stays for the others."""
        self._close()

    def _close(self) -> None:
        self._reset()
        for _, futures in self._sent:
            for future in futures:
                future.cancel()
        self._sent.clear()
        self._got.clear()
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
        self.drop_lease()

    async def check_health(self) -> None:
        """The kernel's heartbeat does this."""

    async def re_auth(self) -> None:
        return

    async def process_invalidation_messages(self) -> None:
        return

    # Sending

    async def send_command(self, *args: Any, **kwargs: Any) -> None:
        """Sends a command at once."""
        if self._epoch != self.source.epoch:
            await self.connect()
        await self._send(self._packer(args))

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """Sends what `pack_command` or `pack_commands` gave."""
        if not isinstance(command, Batch):
            raise RedisError("over iokernel only what pack_command or pack_commands gave can be sent")
        if self._epoch != self.source.epoch:
            await self.connect()
        if len(command) == 1:
            await self._send(command[0])
        elif command:
            await self._send_batch(command)

    async def _send(self, command: Command) -> None:
        need = command.need
        if need in (Need.TOPICS, Need.MONITOR) and self._listening is None:
            self._listening = Listening(self.source)
        if self._listening is not None:
            await self._listening.send(command, min(seconds(self.socket_timeout), CONNECT_TIMEOUT_S))
            return
        if need is not Need.SHARED and need is not Need.WAITS:
            await self._hold(need is not Need.TRANSACTION)
        self._sent.append((command, [self._ask(*command.words)]))

    async def _send_batch(self, batch: Batch) -> None:
        need = batch.need()
        if need is Need.STICKY:
            await self._hold(True)
            for command in batch:
                self._sent.append((command, [self._ask(*command.words)]))
            return
        if need is not Need.SHARED:
            await self._hold(False)
        commands = [command.words for command in batch]
        self._sent.append((batch, [self._ask(*part) for part in divided(commands, True)]))

    def _ask(self, *request: Any) -> asyncio.Future[Any]:
        lease = self._lease
        target = self.source.endpoint if lease is None else lease
        try:
            future: asyncio.Future[Any] = target(*request, timeout=seconds(self.socket_timeout))
        except _errors.Error as error:
            raise self._failure(error) from None
        return future

    async def _hold(self, sticky: bool) -> None:
        """Takes a lease, if there is none."""
        if self._lease is None:
            timeout = self.socket_connect_timeout
            try:
                self._lease = await self.source.endpoint.lease(math.inf if timeout is None else timeout)
            except _errors.Error as error:
                raise self._failure(error) from None
        self._sticky |= sticky

    # Reading

    async def can_read(self) -> bool:
        """Whether a reply or a message is there."""
        return bool(self._got) or (self._listening is not None and self._listening.has_news)

    can_read_destructive = can_read

    async def read_response(
        self,
        disable_decoding: bool = False,
        timeout: float | None = None,
        *,
        disconnect_on_error: bool = True,
        push_request: bool | None = False,
    ) -> Any:
        """The reply to the oldest command, or the next message. None if a given `timeout` passes."""
        try:
            if self._listening is not None:
                limit = self.socket_timeout if timeout is None else timeout
                try:
                    value = await self._listening.take(seconds(limit))
                except Quiet:
                    if timeout is not None:
                        return None
                    raise TimeoutError(f"Timeout reading from {self._host_error()}") from None
            else:
                value = self._got.popleft() if self._got else await self._next()
            if isinstance(value, Exception) and not isinstance(value, _errors.RemoteError):
                raise self._failure(value)
            response = self._replies.give(value, disable_decoding)
        except BaseException:
            if disconnect_on_error:
                self._close()
            raise
        if self._listening is not None and push_request and self.protocol == 3 and isinstance(response, list):
            response = self._parser.pubsub_push_handler_func(response)
            if isinstance(response, Awaitable):
                response = await response
        if isinstance(response, ResponseError):
            raise response from None
        return response

    async def _next(self) -> Any:
        """The oldest reply; of a batch, the others are kept for the next calls."""
        if not self._sent:
            raise TimeoutError(f"Timeout reading from {self._host_error()}")
        sent, futures = self._sent.popleft()
        try:
            if isinstance(sent, Batch):
                for future in futures:
                    self._got.extend(await self._reply(future))
                if self._lease is not None and not self._sticky and (sent.is_transaction or sent.need() is Need.WAITS):
                    self.drop_lease()
                return self._got.popleft()
            reply: Any
            try:
                reply = await self._reply(futures[0])
            except _errors.RemoteError as error:
                reply = error
            if self._lease is not None:
                self._answered(sent, reply)
            return reply
        except _errors.Error as error:
            raise self._failure(error) from None
        finally:
            for future in futures:
                future.cancel()

    async def _reply(self, future: asyncio.Future[Any]) -> Any:
        """A reply; where redis-py would wait without limit, this fails once the server turns out to be down."""
        if self.socket_timeout is not None:
            return await future
        watch = Watch(self.source, future)
        try:
            return await future
        except asyncio.CancelledError:
            if watch.error is not None:
                raise watch.error from None
            raise
        finally:
            watch.stop()

    def _failure(self, error: Exception) -> Exception:
        if isinstance(error, (_errors.ConnectionLost, _errors.Unavailable)):
            self.source.lost()
        return failure(error, self._host_error())


async def connected(source: Source) -> None:
    """Returns once the endpoint is up. Raises as soon as an attempt made meanwhile has failed."""
    endpoint, before = source.endpoint, source.attempts()
    if before is None:
        return
    deadline = time.monotonic() + min(seconds(source.connect_timeout), CONNECT_TIMEOUT_S)
    pause = 0.001
    while time.monotonic() < deadline:
        try:
            await endpoint.ready(pause)
            return
        except _errors.Unavailable as error:
            if error.status != -303:
                raise
            error.__traceback__ = None
        pause = min(pause * 2, 0.05)
        state = endpoint.state
        if is_refused(state, before):
            raise _errors.Unavailable(state["last_error"], status=-303)
    raise _errors.Timeout("Timeout connecting to server", status=-202)


class Watch:
    """Looks now and then whether the server of a request that may wait forever is still there."""

    def __init__(self, source: Source, future: asyncio.Future[Any]) -> None:
        self.error: _errors.Error | None = None
        self._source = source
        self._future = future
        self._before: int | None = None
        self._pause = FIRST_LOOK_S
        self._timer = future.get_loop().call_later(self._pause, self._look)

    def _look(self) -> None:
        state = self._source.endpoint.state
        if self._before is None:
            self._before = state["attempts"]
        elif is_refused(state, self._before):
            self.error = _errors.Unavailable(state["last_error"], status=-303)
            self._future.cancel()
            return
        self._pause = min(self._pause * 2, 1.0)
        self._timer = self._future.get_loop().call_later(self._pause, self._look)

    def stop(self) -> None:
        self._timer.cancel()


class Quiet(Exception):
    """No message came in time."""


class Listening:
    """Topics over the channel of the running loop."""

    def __init__(self, source: Source) -> None:
        kernel = source.endpoint.kernel
        self._loop = asyncio.get_running_loop()
        self._waiting: list[asyncio.Future[None]] = []
        channel = kernel.loop_channel(self._loop)
        self._topics = Topics(channel, kernel.names, source.endpoint.number, source.resp3, self._news)
        self._closed = False

    @property
    def has_news(self) -> bool:
        return bool(self._topics.queue)

    def _news(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def send(self, command: Command, timeout: float) -> None:
        """Returns once the server has accepted, so that what is published from then on is received."""
        self._topics.send(command)
        if command.need is Need.SHARED:
            return
        deadline = time.monotonic() + timeout
        while self._topics.is_due and time.monotonic() < deadline and not self._closed:
            await self._wait(deadline)

    async def take(self, timeout: float) -> Any:
        """The next reply or message. Raises Quiet if there is none in time."""
        deadline = time.monotonic() + timeout
        while not self._topics.queue:
            if self._closed or self._topics.channel.ended:
                raise ConnectionError("Connection closed by server.")
            if time.monotonic() >= deadline:
                # What has come during this very turn counts.
                await asyncio.sleep(0)
                if not self._topics.queue:
                    raise Quiet
                break
            await self._wait(deadline)
        return self._topics.queue.popleft()

    async def _wait(self, deadline: float) -> None:
        future: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(future)
        timer = None
        if deadline != math.inf:
            timer = self._loop.call_later(max(deadline - time.monotonic(), 0), self._news)
        try:
            await future
        finally:
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        self._closed = True
        if not self._loop.is_closed():
            self._topics.close()
            self._news()


class LoopOwner(Owner):
    """A pool of loops that owns a source."""

    async def disconnect(self, inuse_connections: bool = True) -> None:
        """Disconnects the connections and, if those in use are meant too, the server's one."""
        base: Any = super()
        await base.disconnect(inuse_connections)
        if inuse_connections:
            self._source.close()

    async def aclose(self) -> None:
        """Disconnects everything; the next use connects again."""
        await self.disconnect()

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.disconnect()


class ConnectionPool(LoopOwner, redis.asyncio.ConnectionPool):
    """`redis.asyncio.Redis(connection_pool=ConnectionPool.from_url(url))`: redis-py over the kernel.

    Arguments as those of `iokernel.compat.redis.ConnectionPool`.
    """

    def __init__(self, connection_class: Any = None, max_connections: int | None = None, **kwargs: Any) -> None:
        chosen, self._source = claim(Connection, connection_class, kwargs)
        kwargs.pop("maint_notifications_config", None)
        super().__init__(connection_class=chosen, max_connections=max_connections or CONNECTIONS_MAX, **kwargs)

    async def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """A connection that is connected. Never waits for another one."""
        try:
            connection: Any = self._available_connections.pop()
        except IndexError:
            if len(self._in_use_connections) >= self.max_connections:
                raise MaxConnectionsError("Too many connections") from None
            connection = self.connection_class(**self.connection_kwargs)
        self._in_use_connections.add(connection)
        if connection._epoch != self._source.epoch:
            try:
                await connection.connect()
            except BaseException:
                await self.release(connection)
                raise
        return connection

    async def release(self, connection: Any) -> None:
        """Takes a connection back."""
        self._in_use_connections.remove(connection)
        if connection._sent or connection._got or connection._should_reconnect:
            connection._close()
        connection.relax()
        self._available_connections.append(connection)


class BlockingConnectionPool(LoopOwner, redis.asyncio.BlockingConnectionPool):
    """redis-py's pool that waits `timeout` seconds for one of `max_connections`, over the kernel."""

    def __init__(
        self, max_connections: int = 50, timeout: float | None = 20, connection_class: Any = None, **kwargs: Any
    ) -> None:
        chosen, self._source = claim(Connection, connection_class, kwargs)
        kwargs.pop("maint_notifications_config", None)
        super().__init__(max_connections=max_connections, timeout=timeout, connection_class=chosen, **kwargs)

    async def release(self, connection: Any) -> None:
        """Takes a connection back."""
        connection.relax()
        await super().release(connection)
