"""Fixtures of the binding's tests: real servers, each private to the tests."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator

import iokernel
import pytest
from support.fixtures import (  # noqa: F401
    free_port,
    make_fake,
    make_redis_server,
    redis_server,
    shared_redis_server,
)
from support.servers import RedisServer


@pytest.fixture
def redis(shared_redis_server: RedisServer) -> Iterator[iokernel.Endpoint]:  # noqa: F811
    """An endpoint of an empty database."""
    shared_redis_server.cli("FLUSHALL")
    with iokernel.open(shared_redis_server.url) as endpoint:
        yield endpoint


@pytest.fixture
def url(shared_redis_server: RedisServer) -> str:  # noqa: F811
    return shared_redis_server.url


@pytest.fixture
def script() -> Callable[..., str]:
    """Runs a program in a Python of its own; its output. Fails if it does."""

    def run(source: str, *arguments: str, timeout: float = 30) -> str:
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", source, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout

    return run


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """What a test left to the collector fails in that test."""
    yield
    gc.collect()
    gc.freeze()  # what has survived is not looked at again, at the end of each test to come
