"""Requests and replies in threads."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import iokernel
import pytest
from support.servers import RedisServer


def test_first_program(url: str) -> None:
    with iokernel.open(url) as cache:
        assert cache.call("SET", "greeting", "hello") == "OK"
        assert cache.call("GET", "greeting") == b"hello"
        assert cache.call("GET", "nothing") is None
        assert cache.call("INCRBY", "n", 41) == 41


@pytest.mark.parametrize(
    ("given", "got"),
    [
        ("text é 漢", "text é 漢".encode()),
        (b"\0\xff bytes", b"\0\xff bytes"),
        (bytearray(b"array"), b"array"),
        (memoryview(b"view"), b"view"),
        ("", b""),
        (0, b"0"),
        (-1, b"-1"),
        (127, b"127"),
        (128, b"128"),
        (-32, b"-32"),
        (-33, b"-33"),
        (2**31, b"2147483648"),
        (-(2**31) - 1, b"-2147483649"),
        (2**63, b"9223372036854775808"),
        (-(2**63), b"-9223372036854775808"),
        (2**64 - 1, b"18446744073709551615"),
        (1.5, b"1.5"),
        ("x" * 31, b"x" * 31),
        ("x" * 32, b"x" * 32),
        ("x" * 300, b"x" * 300),
        (b"x" * 70_000, b"x" * 70_000),
        ("\udcff", b"\xff"),
    ],
)
def test_arguments(redis: iokernel.Endpoint, given: Any, got: bytes) -> None:
    redis.call("SET", "key", given)
    assert redis.call("GET", "key") == got


def test_arguments_that_redis_has_no_form_for(redis: iokernel.Endpoint) -> None:
    for bad in (object(), None, [1], {"a": 1}, 1j):
        with pytest.raises(iokernel.BadRequest) as caught:
            redis.call("SET", "key", bad)
        assert caught.value.fate == "not_sent"
    with pytest.raises(ValueError, match="empty"):
        redis.call()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("string", b"Hello World"),
        ("integer", 12345),
        ("double", pytest.approx(3.141)),
        ("null", None),
        ("array", [0, 1, 2]),
        ("set", {0, 1, 2}),
        ("map", {0: False, 1: True, 2: False}),
        ("bignum", 1234567999999999999999999999999999999),
        ("true", True),
        ("false", False),
        ("verbatim", "This is a verbatim\nstring"),
    ],
)
def test_replies_of_every_type(redis: iokernel.Endpoint, name: str, value: Any) -> None:
    with redis.lease() as conn:
        assert conn.call("DEBUG", "PROTOCOL", name) == value


def test_attributes(url: str) -> None:
    with iokernel.open(url, attributes=True) as endpoint:
        reply = endpoint.call("DEBUG", "PROTOCOL", "attrib")
        assert isinstance(reply, iokernel.Attributed)
        assert reply.attributes == {b"key-popularity": [b"key:123", 90]}


def test_batch(redis: iokernel.Endpoint) -> None:
    replies = redis.call(["SET", "a", 1], ["LPUSH", "a", "x"], ["GET", "a"])
    assert replies == ["OK", iokernel.RemoteError(replies[1].message, code="WRONGTYPE"), b"1"]
    assert isinstance(replies[1], iokernel.RemoteError)
    assert replies[1].fate == "replied"


def test_remote_error(redis: iokernel.Endpoint) -> None:
    redis.call("SET", "text", "abc")
    with pytest.raises(iokernel.RemoteError) as caught:
        redis.call("INCR", "text")
    error = caught.value
    assert (error.code, error.fate, error.status_name) == ("ERR", "replied", "REMOTE")
    assert error.message == "value is not an integer or out of range"
    assert str(error) == f"ERR {error.message}"
    assert error.endpoint == redis.url
    assert error.peer


def test_timeouts(redis: iokernel.Endpoint) -> None:
    with pytest.raises(TimeoutError) as caught:
        redis.call("BLPOP", "nothing", 0, timeout=0.05)
    assert isinstance(caught.value, iokernel.Timeout)
    assert caught.value.fate == "maybe_executed"
    with pytest.raises(iokernel.Timeout) as early:
        redis.call("PING", timeout=-1)
    assert early.value.fate == "not_sent"
    assert redis.call("PING", timeout=math.inf) == "PONG"
    assert redis.call("PING", timeout=1e9) == "PONG"
    with pytest.raises(ValueError, match="expected seconds"):
        redis.call("PING", timeout="1s")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected seconds"):
        redis.call("PING", timeout=math.nan)


def test_unavailable(free_port: int) -> None:
    with iokernel.open(f"redis://127.0.0.1:{free_port}") as endpoint:
        with pytest.raises(iokernel.Error) as caught:
            endpoint.call("PING", timeout=0.2)
        assert caught.value.fate == "not_sent"
        with pytest.raises(iokernel.Unavailable, match="refused"):
            endpoint.wait_ready(0.2)
        assert endpoint.state["state"] != "up"


def test_connection_lost(redis_server: RedisServer) -> None:
    with iokernel.open(redis_server.url) as endpoint:
        endpoint.wait_ready(5)
        waiting = endpoint("BLPOP", "nothing", 0)
        deadline = time.monotonic() + 5
        while not any(row["cmd"] == "blpop" for row in redis_server.clients()):
            assert time.monotonic() < deadline
        redis_server.kill()
        with pytest.raises(ConnectionError) as caught:
            waiting.result(5)
        assert isinstance(caught.value, iokernel.ConnectionLost)
        assert caught.value.fate == "maybe_executed"
        redis_server.start()
        assert endpoint.call("PING", timeout=10) == "PONG"


def test_a_reply_that_is_there_takes_no_time(redis: iokernel.Endpoint) -> None:
    waiting, deadline = redis("ECHO", "hello"), time.monotonic() + 10
    while True:
        try:
            assert waiting.result(0) == b"hello"
            return
        except iokernel.Timeout:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_futures(redis: iokernel.Endpoint) -> None:
    futures = [redis("INCR", "n") for _ in range(1000)]
    assert [future.result(10) for future in futures] == list(range(1, 1001))
    assert futures[0].done()
    assert futures[0].exception() is None
    failing = redis("LPUSH", "n", 1)
    assert isinstance(failing.exception(10), iokernel.RemoteError)
    waiting = redis("BLPOP", "nothing", 0)
    with pytest.raises(iokernel.Timeout):
        waiting.result(0.05)
    assert not waiting.done()
    assert waiting.cancel()
    assert waiting.cancelled()
    assert not waiting.cancel()
    with pytest.raises(iokernel.Cancelled):
        waiting.result()


def test_cancelling_frees_the_connection(redis: iokernel.Endpoint, shared_redis_server: RedisServer) -> None:
    waiting = redis("BLPOP", "nothing", 0)
    with pytest.raises(iokernel.Timeout):
        waiting.result(0.05)
    waiting.cancel()
    deadline = time.monotonic() + 5
    while any(row["cmd"] == "blpop" for row in shared_redis_server.clients()):
        assert time.monotonic() < deadline


def test_send(redis: iokernel.Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        redis.send("INCR", "n")
    assert redis.call("GET", "n") == b"100"
    with pytest.raises(iokernel.BadRequest):
        redis.send("SET", "n", object())
    redis.send("LPUSH", "n", 1)
    redis.call("PING")
    assert "WRONGTYPE" in caplog.text


def test_threads_share_an_endpoint(redis: iokernel.Endpoint, shared_redis_server: RedisServer) -> None:
    def work(_: int) -> None:
        for _ in range(100):
            redis.call("INCR", "n")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert redis.call("GET", "n") == b"800"
    assert len(shared_redis_server.clients()) == 1


def test_channels_end_with_their_threads(redis: iokernel.Endpoint) -> None:
    for _ in range(300):
        thread = threading.Thread(target=redis.call, args=("INCR", "n"))
        thread.start()
        thread.join()
    assert redis.call("GET", "n") == b"300"


def test_a_future_outlives_its_thread(redis: iokernel.Endpoint) -> None:
    futures = []
    thread = threading.Thread(target=lambda: futures.append(redis("PING")))
    thread.start()
    thread.join()
    assert futures[0].result(5) == "PONG"


@pytest.mark.parametrize("mebibytes", [1, 16, 64])
def test_large_values(redis: iokernel.Endpoint, mebibytes: int) -> None:
    value = bytes(range(256)) * (mebibytes << 12)
    assert redis.call("SET", "large", value) == "OK"
    assert redis.call("GET", "large") == value


def test_more_than_the_ring_holds(redis: iokernel.Endpoint) -> None:
    value = b"x" * 100_000
    futures = [redis("SET", f"key{index}", value) for index in range(200)]
    futures += [redis("GET", f"key{index}") for index in range(200)]
    replies = [future.result(20) for future in futures]
    assert replies == ["OK"] * 200 + [value] * 200


def test_too_large(redis: iokernel.Endpoint) -> None:
    before, large, after = redis("PING"), redis("SET", "k", b"x" * (130 << 20)), redis("PING")
    assert (before.result(5), after.result(5)) == ("PONG", "PONG")
    with pytest.raises(iokernel.BadRequest):
        large.result(5)


def test_use_after_close(url: str) -> None:
    endpoint = iokernel.open(url)
    endpoint.close()
    endpoint.close()
    assert endpoint.closed
    for use in (lambda: endpoint.call("PING"), lambda: endpoint("PING"), lambda: endpoint.state, endpoint.wait_ready):
        with pytest.raises(iokernel.Closed):
            use()


def test_close_ends_what_is_under_way(url: str) -> None:
    endpoint = iokernel.open(url)
    waiting = endpoint("BLPOP", "nothing", 0)
    with pytest.raises(iokernel.Timeout):
        waiting.result(0.05)
    endpoint.close()
    with pytest.raises(iokernel.Closed):
        waiting.result(5)


def test_wrong_options(url: str) -> None:
    with pytest.raises(iokernel.ConfigError) as caught:
        iokernel.open(url, heartbeat="5")
    error = caught.value
    assert (error.key, error.value, error.expected) == ("heartbeat", "5", "a time such as 250ms, 5s, 2m or 1h")
    for wrong in ({"hartbeat": "5s"}, {"max_inflight": -1}, {"raw": "yes"}, {"timeout": 1.5}, {"a&b=c": "d"}):
        with pytest.raises(iokernel.BadRequest):
            iokernel.open(url, **wrong)
    with pytest.raises(iokernel.ConfigError, match="gopher"):
        iokernel.open("gopher://x")
    with pytest.raises(iokernel.ConfigError, match="url"):
        iokernel.open(b"redis://x")  # type: ignore[arg-type]
    with pytest.raises(iokernel.ConfigError):
        iokernel.Kernel(nme="x")


def test_options_join_the_query(url: str) -> None:
    with iokernel.open(f"{url}?heartbeat=5s", client_name="a-b", raw=False, db=None) as endpoint:
        assert endpoint.call("CLIENT", "GETNAME") == b"a-b"


def test_state(redis: iokernel.Endpoint) -> None:
    redis.wait_ready(5)
    state = redis.state
    assert state["state"] == "up"
    assert state["conns"] == 1


def test_one_way_requests_of_a_thread_that_ends(redis: iokernel.Endpoint) -> None:
    for _ in range(100):
        thread = threading.Thread(target=redis.send, args=("INCR", "n"))
        thread.start()
        thread.join()
    assert redis.call("GET", "n") == b"100"


def test_an_error_keeps_nothing_of_its_callers_alive(redis: iokernel.Endpoint) -> None:
    class Local:
        pass

    def caller() -> weakref.ref[Local]:
        local = Local()
        redis.call("LPUSH", "list", "x")
        with pytest.raises(iokernel.RemoteError):
            redis.call("GET", "list")
        with pytest.raises(iokernel.RemoteError):
            redis("GET", "list").result()
        return weakref.ref(local)

    gc.collect()
    gc.disable()
    try:
        assert caller()() is None
    finally:
        gc.enable()
