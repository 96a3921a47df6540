"""The endpoint behind a pool: its URL from redis-py's arguments, opened at its first use."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from redis.exceptions import ConnectionError, DataError, RedisError

import iokernel
from iokernel import _errors
from iokernel._endpoint import Endpoint, Lease

from ._tls import tls_options

_SOCKET_TIMEOUT: float | None = None
"""redis-py's own default, where it has one."""
_RESP_VERSION = 2
with contextlib.suppress(ImportError):
    from redis._defaults import DEFAULT_SOCKET_TIMEOUT as _SOCKET_TIMEOUT
with contextlib.suppress(ImportError):
    from redis.utils import DEFAULT_RESP_VERSION as _RESP_VERSION

BATCH_COMMANDS_MAX = 4096
"""Longer pipelines that are no transactions leave as several requests."""
FIRST_LOOK_S = 0.1
"""How long a request waits before it is asked whether the server is down."""
CONNECT_TIMEOUT_S = 30.0
"""Where redis-py would wait for a connection without limit."""

if TYPE_CHECKING:
    Target = Endpoint | Lease


def resp_version(protocol: Any) -> int:
    """redis-py's `protocol`, with its own default and complaints."""
    if protocol is None:
        return int(_RESP_VERSION)
    try:
        version = int(protocol)
    except ValueError:
        raise ConnectionError("protocol must be an integer") from None
    if version not in (2, 3):
        raise ConnectionError("protocol must be either 2 or 3")
    return version


def seconds(value: Any) -> float:
    """redis-py's timeouts: None is without limit."""
    return math.inf if value is None else float(value)


class Source:
    """What the connections of one pool share: one endpoint."""

    def __init__(self, kwargs: dict[str, Any], secure: bool = False) -> None:
        refuse_unknown(kwargs)
        self.tls = tls_options(kwargs) if secure else None
        self.host = str(kwargs.get("host", "localhost"))
        self.port = int(kwargs.get("port", 6379))
        self.path = kwargs.get("path") or ""
        self.db = int(kwargs.get("db") or 0)
        self.resp3 = resp_version(kwargs.get("protocol")) == 3
        self.socket_timeout = kwargs.get("socket_timeout", _SOCKET_TIMEOUT)
        self.connect_timeout = kwargs.get("socket_connect_timeout", _SOCKET_TIMEOUT)
        if self.connect_timeout is None:
            self.connect_timeout = self.socket_timeout
        self.epoch = 0
        """Counts losses, so that every connection looks again whether the server is there."""
        self._kwargs = kwargs
        self._kernel: iokernel.Kernel | None = kwargs.get("kernel")
        self._endpoint: Endpoint | None = None
        self._heard: Endpoint | None = None
        """The endpoint whose failures so far somebody has heard of."""
        self._lock = threading.Lock()

    @property
    def error_name(self) -> str:
        """What redis-py calls the server in its errors."""
        return self.path or f"{self.host}:{self.port}"

    def url(self) -> str:
        """The endpoint's URL, with the credentials of this moment."""
        credentials = self._credentials()
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "redis" if self.tls is None else "rediss"
        where = f"{scheme}+unix://{credentials}{quote(self.path)}" if self.path else ""
        return where or f"{scheme}://{credentials}{host}:{self.port}"

    def _credentials(self) -> str:
        user, password = self._kwargs.get("username"), self._kwargs.get("password")
        provider = self._kwargs.get("credential_provider")
        if provider is not None:
            given = tuple(provider.get_credentials())
            user, password = (None, given[0]) if len(given) == 1 else (given[0], given[1])
        if not user and not password:
            return ""
        return f"{quote(str(user or ''), safe='')}:{quote(str(password or ''), safe='')}@"

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"db": self.db or None, "protocol": 3 if self.resp3 else 2}
        options["client_name"] = self._kwargs.get("client_name")
        options["max_backoff"] = "500ms"
        options.update(self.tls or {})
        options.update(self._kwargs.get("endpoint_options") or {})
        return options

    @property
    def endpoint(self) -> Endpoint:
        """Opened at the first look; network comes later."""
        endpoint = self._endpoint
        if endpoint is None or endpoint.closed:
            with self._lock:
                endpoint = self._endpoint
                if endpoint is None or endpoint.closed:
                    kernel = self._kernel or iokernel.default_kernel()
                    try:
                        endpoint = self._endpoint = kernel.open(self.url(), **self._options())
                    except _errors.ConfigError as error:
                        raise RedisError(str(error)) from error
        return endpoint

    def close(self) -> None:
        """Closes the server's connection; the next use opens it again."""
        with self._lock:
            endpoint, self._endpoint = self._endpoint, None
        self.epoch += 1
        if endpoint is not None:
            endpoint.close()

    def forked(self) -> None:
        """In a forked child: a lock that another thread of the parent held is of no use."""
        self._lock = threading.Lock()

    # Being up

    def lost(self) -> None:
        """A request found the server gone."""
        self.epoch += 1

    def attempts(self) -> int | None:
        """None if the endpoint is up, else how many attempts to connect have failed that somebody has heard of."""
        endpoint = self.endpoint
        state = endpoint.state
        heard, self._heard = self._heard is endpoint, endpoint
        if state["state"] == "up":
            return None
        return int(state["attempts"]) if heard else 0

    def connect(self) -> None:
        """Returns once the endpoint is up. Raises as soon as an attempt made meanwhile has failed."""
        endpoint, before = self.endpoint, self.attempts()
        if before is None:
            return
        deadline = time.monotonic() + min(seconds(self.connect_timeout), CONNECT_TIMEOUT_S)
        pause = 0.001
        while time.monotonic() < deadline:
            try:
                endpoint.wait_ready(pause)
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

    # Requests of threads

    def ask(self, target: Target, commands: Sequence[Sequence[Any]], batch: bool, timeout: float) -> list[Any]:
        """Sends commands and waits for their replies. A batch is as few requests as may be."""
        requests = divided(commands, batch)
        if iokernel.loops.running_loop() is not None:
            replies = [target.call(*request, timeout=timeout) for request in requests]
        else:
            futures = [target(*request, timeout=timeout) for request in requests]
            try:
                replies = [self._result(future) for future in futures]
            except BaseException:
                for future in futures:
                    future.cancel()
                raise
        return [reply for part in replies for reply in part] if batch else replies

    def _result(self, future: iokernel.Future) -> Any:
        """A reply; fails early if the server turns out to be down."""
        wait = FIRST_LOOK_S
        before: int | None = None
        while True:
            try:
                return future.result(wait)
            except _errors.Timeout:
                if future.done():
                    return future.result()
            state = self.endpoint.state
            if before is None:
                before = state["attempts"]
            elif is_refused(state, before):
                future.cancel()
                raise _errors.Unavailable(state["last_error"], status=-303)
            wait = min(wait * 2, 1.0)


def is_refused(state: dict[str, Any], attempts_before: int) -> bool:
    """Whether the endpoint is down, and an attempt since then has failed."""
    return state["state"] == "down" and state["attempts"] != attempts_before and bool(state["last_error"])


def divided(commands: Sequence[Sequence[Any]], batch: bool) -> Iterable[Sequence[Any]]:
    """The requests that commands make."""
    if not batch:
        return commands
    if len(commands) <= BATCH_COMMANDS_MAX or commands[0][0] == "MULTI":
        return [commands]
    return [commands[at : at + BATCH_COMMANDS_MAX] for at in range(0, len(commands), BATCH_COMMANDS_MAX)]


_REFUSED = {
    "cache": "client-side caching would need redis-py's own connections",
    "cache_config": "client-side caching would need redis-py's own connections",
    "redis_connect_func": "the handshake is iokernel's",
}


def refuse_unknown(kwargs: dict[str, Any]) -> None:
    """Refuses what cannot be had, instead of leaving it out silently."""
    for key, why in _REFUSED.items():
        if kwargs.get(key):
            raise RedisError(f"{key} is not supported over iokernel: {why}")
    if (kwargs.get("username") or kwargs.get("password")) and kwargs.get("credential_provider") is not None:
        raise DataError(
            "'username' and 'password' cannot be passed along with 'credential_"
            "provider'. Please provide only one of the following arguments: \n"
            "1. 'password' and (optional) 'username'\n"
            "2. 'credential_provider'"
        )
    maintenance = kwargs.get("maint_notifications_config")
    if maintenance is not None and maintenance.enabled is True:
        raise RedisError("maint_notifications_config is not supported over iokernel: the kernel follows servers itself")
    provider = kwargs.get("credential_provider")
    if provider is not None and hasattr(provider, "on_next"):
        raise RedisError("a streaming credential_provider is not supported over iokernel: its tokens need AUTH again")
