"""pytest fixtures over this package. A conftest.py imports those it wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ParamSpec, TypeVar

import pytest

from . import net
from .fakes import Fake
from .process import Missing
from .proxy import Proxy
from .servers import RedisServer

P = ParamSpec("P")
T = TypeVar("T")


def or_skip(make: Callable[P, T]) -> Callable[P, T]:
    """Calls `make`; a program that is not installed skips the test and says which."""

    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return make(*args, **kwargs)
        except Missing as missing:
            pytest.skip(str(missing))

    return call


@pytest.fixture
def free_port() -> int:
    return net.free_port()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server of this test's own: it may be killed, paused and filled."""
    with or_skip(RedisServer)() as server:
        yield server


@pytest.fixture(scope="session")
def shared_redis_server() -> Iterator[RedisServer]:
    """One server for tests that neither harm it nor mind what others left in it."""
    with or_skip(RedisServer)() as server:
        yield server


@pytest.fixture
def make_redis_server() -> Iterator[Callable[..., RedisServer]]:
    """Servers with options; all end with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(or_skip(RedisServer)(**options))


@pytest.fixture
def make_proxy() -> Iterator[Callable[..., Proxy]]:
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Proxy(*args, **options))


@pytest.fixture
def make_fake() -> Iterator[Callable[..., Fake]]:
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Fake(*args, **options))


@pytest.fixture
def proxy(redis_server: RedisServer, make_proxy: Callable[..., Any]) -> Proxy:
    """A fault proxy in front of `redis_server`."""
    made: Proxy = make_proxy(redis_server.address)
    return made
