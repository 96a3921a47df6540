"""What the connections of threads and of asyncio have in common: redis-py's attributes, and the state of a lease."""

from __future__ import annotations

import copy
import os
import weakref
from collections.abc import Callable, Iterable
from logging import getLogger
from typing import Any, ClassVar

from redis._parsers import Encoder
from redis._parsers.base import BaseParser
from redis.exceptions import TimeoutError

from iokernel._endpoint import Lease

from ._commands import Batch, Command, Need, Packer
from ._replies import Replies
from ._source import Source


class Parser(BaseParser):
    """Stands where redis-py keeps its parser: it parses nothing, but holds the handlers of pushes."""

    def __init__(self) -> None:
        self.pubsub_push_handler_func: Callable[[Any], Any] = log_push

    def on_connect(self, connection: Any) -> None:
        return

    def on_disconnect(self) -> None:
        return

    def set_pubsub_push_handler(self, handler: Callable[[Any], Any]) -> None:
        self.pubsub_push_handler_func = handler

    def set_invalidation_push_handler(self, handler: Callable[[Any], Any]) -> None:
        return


def log_push(response: Any) -> Any:
    """What redis-py does with pushes that nobody handles."""
    getLogger("push_response").debug("Push response: %s", response)
    return response


class BaseConnection:
    """redis-py's view of a connection. Nothing of it is a socket: requests go to the pool's endpoint."""

    source_of_pool: ClassVar[Source | None] = None
    """Set by pools, in a class of their own."""
    retry_class: ClassVar[Any]
    backoff_class: ClassVar[Any]
    like_hiredis: ClassVar[bool] = False

    def __init__(self, **kwargs: Any) -> None:
        source = self.source = self.source_of_pool or Source(kwargs)
        self.pid = os.getpid()
        self.db = source.db
        if source.path:
            self.path = source.path
        else:
            self.host, self.port = source.host, source.port
        self.username, self.password = kwargs.get("username"), kwargs.get("password")
        self.client_name = kwargs.get("client_name")
        self.credential_provider = kwargs.get("credential_provider")
        self.socket_timeout = source.socket_timeout
        self.socket_connect_timeout = source.connect_timeout
        self.protocol = 3 if source.resp3 else 2
        self.legacy_responses = kwargs.get("legacy_responses", True)
        self.health_check_interval = 0
        """The kernel's heartbeat is independent of requests."""
        self.next_health_check = 0.0
        self.redis_connect_func = None
        self.driver_info = kwargs.get("driver_info")
        self.handshake_metadata: dict[Any, Any] = {}
        self.encoder = kwargs.get("encoder_class", Encoder)(
            kwargs.get("encoding", "utf-8"),
            kwargs.get("encoding_errors", "strict"),
            kwargs.get("decode_responses", False),
        )
        self._retry(kwargs)
        self._parser = Parser()
        self._packer = Packer(self.encoder, self.like_hiredis)
        self._replies = Replies(self.encoder)
        self._connect_callbacks: list[weakref.WeakMethod[Any]] = []
        self._should_reconnect = False
        self._epoch = -1
        """The source's, as of the last look; -1: not connected."""
        self._lease: Lease | None = None
        self._sticky = False
        self._multi = False
        self.himport_registry = kwargs.get("himport_registry")
        self._himport_prepared: dict[str, int] = {}
        self._himport_reconciled_revision = 0

    def _retry(self, kwargs: dict[str, Any]) -> None:
        """As redis-py's connections."""
        self.retry_on_timeout = kwargs.get("retry_on_timeout", False)
        errors = list(kwargs.get("retry_on_error") or [])
        if self.retry_on_timeout:
            errors.append(TimeoutError)
        self.retry_on_error = errors
        retry = kwargs.get("retry")
        if retry is None:
            self.retry = self.retry_class(self.backoff_class(), 1 if errors else 0)
        else:
            self.retry = copy.deepcopy(retry)
        if errors:
            self.retry.update_supported_errors(errors)

    def repr_pieces(self) -> list[tuple[str, Any]]:
        where = [("path", self.source.path)] if self.source.path else [("host", self.host), ("port", self.port)]
        pieces = [*where, ("db", self.db)]
        return [*pieces, ("client_name", self.client_name)] if self.client_name else pieces

    def __repr__(self) -> str:
        pieces = ",".join(f"{key}={value}" for key, value in self.repr_pieces())
        return f"<{BaseConnection.__module__.rpartition('.')[0]}.Connection({pieces})>"

    @property
    def is_connected(self) -> bool:
        return self._epoch >= 0

    @property
    def _sock(self) -> None:
        """There is no socket; some look whether there is one."""
        return None

    def register_connect_callback(self, callback: Any) -> None:
        """Calls a method, held weakly, after each connect."""
        method = weakref.WeakMethod(callback)
        if method not in self._connect_callbacks:
            self._connect_callbacks.append(method)

    def deregister_connect_callback(self, callback: Any) -> None:
        method = weakref.WeakMethod(callback)
        if method in self._connect_callbacks:
            self._connect_callbacks.remove(method)

    def _callbacks(self) -> list[Any]:
        self._connect_callbacks = [method for method in self._connect_callbacks if method() is not None]
        return [callback for method in self._connect_callbacks if (callback := method()) is not None]

    def set_parser(self, parser_class: Any) -> None:
        """The kernel parses."""

    def get_protocol(self) -> int:
        return self.protocol

    def mark_for_reconnect(self) -> None:
        self._should_reconnect = True

    def should_reconnect(self) -> bool:
        return self._should_reconnect

    def reset_should_reconnect(self) -> None:
        self._should_reconnect = False

    def set_re_auth_token(self, token: Any) -> None:
        """Streaming credentials are refused by the pool, so nobody sets tokens."""

    def extract_connection_details(self) -> str:
        return f"connected by iokernel to {self.source.error_name}" if self.is_connected else "not connected"

    def getpeername(self) -> str | None:
        return None

    get_resolved_ip = getpeername

    def _host_error(self) -> str:
        return self.source.error_name

    def pack_command(self, *args: Any) -> Batch:
        """Encodes the arguments; the protocol's framing is the kernel's."""
        return self._packer.all([args])

    def pack_commands(self, commands: Iterable[Any]) -> Batch:
        """Encodes commands that are to leave together."""
        return self._packer.all(commands)

    # Leases

    def _answered(self, command: Command, reply: Any) -> None:
        """Follows the state of the lease."""
        if command.name == "MULTI":
            self._multi = reply == "OK"
        elif command.name in ("EXEC", "DISCARD") or (command.name == "UNWATCH" and not self._multi):
            self._multi = False
            if not self._sticky:
                self.drop_lease()
        elif command.need is Need.LEAVES:
            self.drop_lease()

    def drop_lease(self) -> None:
        """Gives the lease back; the kernel cleans its connection."""
        lease, self._lease = self._lease, None
        self._sticky = self._multi = False
        if lease is not None:
            lease.release()

    def relax(self) -> None:
        """The pool has this Connection back: a transaction that was left open ends, other state stays as redis-py's."""
        if self._lease is not None and not self._sticky:
            self.drop_lease()

    def _reset(self) -> None:
        """What a disconnect forgets."""
        self._epoch = -1
        self._himport_prepared = {}
        self._himport_reconciled_revision = 0
        self._should_reconnect = False
