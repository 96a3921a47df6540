"""pytest fixtures over this package. A conftest.py imports those it wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, ParamSpec, TypeVar

import pytest

from . import net
from .cluster import Cluster
from .counter import Counter
from .fakes import Fake
from .names import Bind
from .namespace import Namespace
from .postgres import PostgresServer
from .process import Missing
from .proxy import Proxy
from .sentinels import SentinelSet
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
def postgres_server() -> Iterator[PostgresServer]:
    """A server of this test's own."""
    with or_skip(PostgresServer)() as server:
        yield server


@pytest.fixture(scope="session")
def shared_postgres_server() -> Iterator[PostgresServer]:
    """One server for tests that neither harm it nor mind what others left in it."""
    with or_skip(PostgresServer)() as server:
        yield server


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


@pytest.fixture
def make_counter() -> Iterator[Callable[..., Counter]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Counter(**options))


@pytest.fixture
def sentinel_set() -> Iterator[SentinelSet]:
    """Three servers and three sentinels of this test's own."""
    with or_skip(SentinelSet)() as made:
        yield made


@pytest.fixture(scope="module")
def shared_cluster() -> Iterator[Cluster]:
    """One cluster for the tests of a module; each leaves it whole."""
    with or_skip(Cluster)() as made:
        yield made


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """Whole, and empty."""
    shared_cluster.settle()
    for node in shared_cluster.primaries():
        node.cli("FLUSHALL")
    return shared_cluster


@pytest.fixture
def bind() -> Iterator[Bind]:
    with or_skip(Bind)() as made:
        yield made


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    with or_skip(Namespace)() as made:
        yield made
