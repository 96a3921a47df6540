"""Pools of threads: redis-py's, with connections over one endpoint."""

from __future__ import annotations

import os
from typing import Any

import redis
from redis.exceptions import MaxConnectionsError, RedisError

from ._base import BaseConnection
from ._connection import Connection
from ._source import Source

CONNECTIONS_MAX = 1 << 31
"""Connections cost nothing here: unless the program sets a limit, there is none."""


def claim(base: type[Any], given: Any, kwargs: dict[str, Any]) -> tuple[type[Any], Source]:
    """The connection class of one pool, and what its connections share."""
    secure = bool(kwargs.pop("ssl", False))
    if given is not None and not issubclass(given, BaseConnection):
        if given.__name__ not in ("Connection", "SSLConnection", "UnixDomainSocketConnection"):
            raise RedisError(f"connection_class={given.__name__} is not supported over iokernel")
        secure |= given.__name__ == "SSLConnection"
    source = Source(kwargs, secure)
    return type(base.__name__, (base,), {"source_of_pool": source, "__module__": base.__module__}), source


class Owner:
    """A pool that owns a source."""

    _source: Source

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__}({self._source.error_name}, db={self._source.db})>"

    def __del__(self) -> None:
        try:
            self._source.close()
        except Exception:
            return


class ThreadOwner(Owner):
    """Such a pool of threads."""

    def reset(self) -> None:
        base: Any = super()
        base.reset()
        self._source.forked()

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Disconnects the connections and, if those in use are meant too, the server's one."""
        base: Any = super()
        # Older pools that block take no argument.
        base.disconnect(*(() if inuse_connections else (False,)))
        if inuse_connections:
            self._source.close()

    def close(self) -> None:
        """Disconnects everything; the next use connects again."""
        self.disconnect()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.disconnect()


class ConnectionPool(ThreadOwner, redis.ConnectionPool):
    """`redis.Redis(connection_pool=ConnectionPool.from_url(url))`: redis-py over the kernel.

    Takes what redis-py's pool takes. Without `max_connections` there is no limit, as all its connections share
    one of the server's. `ssl=True` beside `ssl_ca_certs` and its kin is TLS, as with `redis.Redis`. More: `kernel`, an
    `iokernel.Kernel` other than the default one, and `endpoint_options`, a dict of the endpoint's options such as
    `{"heartbeat": "5s"}`.
    """

    def __init__(self, connection_class: Any = None, max_connections: int | None = None, **kwargs: Any) -> None:
        chosen, self._source = claim(Connection, connection_class, kwargs)
        kwargs.pop("maint_notifications_config", None)
        super().__init__(connection_class=chosen, max_connections=max_connections or CONNECTIONS_MAX, **kwargs)

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """A connection that is connected. Never waits for another one."""
        if self.pid != os.getpid():
            self._checkpid()
        with self._lock:
            try:
                connection = self._available_connections.pop()
            except IndexError:
                if len(self._in_use_connections) >= self.max_connections:
                    raise MaxConnectionsError("Too many connections") from None
                connection = self.connection_class(**self.connection_kwargs)
            self._in_use_connections.add(connection)
        if connection._epoch != self._source.epoch:
            try:
                connection.connect()
            except BaseException:
                self.release(connection)
                raise
        return connection

    def release(self, connection: Any) -> None:
        """Takes a connection back."""
        if self.pid != os.getpid():
            self._checkpid()
        with self._lock:
            if connection not in self._in_use_connections:
                return
            self._in_use_connections.remove(connection)
            if not self.owns_connection(connection):
                connection.disconnect()
                return
        if connection._sent or connection._got or connection._should_reconnect:
            connection.disconnect()
        connection.relax()
        self._available_connections.append(connection)


class BlockingConnectionPool(ThreadOwner, redis.BlockingConnectionPool):
    """redis-py's pool that waits `timeout` seconds for one of `max_connections`, over the kernel."""

    def __init__(
        self, max_connections: int = 50, timeout: float | None = 20, connection_class: Any = None, **kwargs: Any
    ) -> None:
        chosen, self._source = claim(Connection, connection_class, kwargs)
        kwargs.pop("maint_notifications_config", None)
        base: Any = super()
        base.__init__(max_connections=max_connections, timeout=timeout, connection_class=chosen, **kwargs)

    def release(self, connection: Any) -> None:
        """Takes a connection back."""
        connection.relax()
        base: Any = super()
        base.release(connection)
