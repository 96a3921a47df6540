"""What is of the connections rather than of commands: threads, forks, losses, timeouts, transactions, MONITOR."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
import redis.exceptions
from iokernel.compat.redis import BlockingConnectionPool, ConnectionPool
from redis.backoff import ConstantBackoff
from redis.retry import Retry
from support import net
from support.servers import RedisServer

Client = Callable[..., "redis.Redis"]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer(unixsocket=True) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Client]:
    pools = []

    def make(**options: Any) -> redis.Redis:
        pools.append(ConnectionPool.from_url(server.url, **options))
        return redis.Redis(connection_pool=pools[-1])

    yield make
    for pool in pools:
        pool.disconnect()


def test_two_hundred_threads_share_one_connection(server: RedisServer, client: Client) -> None:
    r = client()
    seen: set[int] = set()
    barrier = threading.Barrier(200)
    asking = threading.Lock()

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(20):
            r.set(f"key:{number}", f"{number}:{turn}")
            assert r.get(f"key:{number}") == f"{number}:{turn}".encode()
        if number % 40 == 0:
            with asking:
                seen.add(len(server.clients()))

    with ThreadPoolExecutor(200) as threads:
        list(threads.map(work, range(200)))
    assert seen == {1}


def test_pipelines_of_threads_do_not_mix(client: Client) -> None:
    r = client()

    def work(number: int) -> None:
        for _ in range(30):
            pipeline = r.pipeline(transaction=number % 2 == 0)
            for index in range(20):
                pipeline.echo(f"{number}:{index}")
            assert pipeline.execute() == [f"{number}:{index}".encode() for index in range(20)]

    with ThreadPoolExecutor(20) as threads:
        list(threads.map(work, range(20)))


def test_watch_sees_a_change(server: RedisServer, client: Client) -> None:
    r = client()
    r.set("n", 1)
    with r.pipeline() as pipeline:
        pipeline.watch("n")
        value = int(pipeline.get("n"))  # type: ignore[arg-type]
        assert len(server.clients()) == 2, "only the watch has a connection of its own"
        r.incr("n")
        pipeline.multi()
        pipeline.set("n", value + 1)
        with pytest.raises(redis.WatchError, match=r"Watched variable changed\."):
            pipeline.execute()
    with r.pipeline() as pipeline:
        pipeline.watch("n")
        pipeline.multi()
        pipeline.incr("n")
        assert pipeline.execute() == [3]
    with r.pipeline() as pipeline:
        pipeline.watch("n")
    r.incr("n")
    assert r.transaction(lambda p: p.multi() or p.incr("n"), "n") == [5]


def test_transactions_of_threads_are_serial(client: Client) -> None:
    r = client()
    r.set("n", 0)

    def add(pipeline: Any) -> None:
        value = int(pipeline.get("n"))
        pipeline.multi()
        pipeline.set("n", value + 1)

    def work(_: int) -> None:
        for _ in range(10):
            r.transaction(add, "n")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert r.get("n") == b"80"


def test_blocking_commands_of_threads_wait_beside_each_other(client: Client) -> None:
    r = client(socket_timeout=None)
    with ThreadPoolExecutor(10) as threads:
        waiting = [threads.submit(r.blpop, [f"list:{index}"], 0) for index in range(10)]
        time.sleep(0.05)
        assert r.ping()
        for index in range(10):
            r.rpush(f"list:{index}", index)
        for index, future in enumerate(waiting):
            assert future.result(10) == (f"list:{index}".encode(), str(index).encode())


def test_a_read_timeout_is_a_timeout_error(client: Client) -> None:
    r = client(socket_timeout=0.1)
    with pytest.raises(redis.exceptions.TimeoutError, match=r"Timeout reading from 127\.0\.0\.1:\d+"):
        r.blpop(["nothing"], 0)
    assert r.ping()


def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    port = net.free_port()
    url = f"redis://127.0.0.1:{port}"
    with pytest.raises(redis.exceptions.ConnectionError) as plain:
        redis.Redis(connection_pool=redis.ConnectionPool.from_url(url)).ping()
    with ConnectionPool.from_url(url) as pool:
        for _ in range(2):
            with pytest.raises(redis.exceptions.ConnectionError) as ours:
                redis.Redis(connection_pool=pool).ping()
            assert ours.value.args == plain.value.args
        with RedisServer(port=port) as server:
            assert redis.Redis(connection_pool=pool).ping()
            server.kill()
            with pytest.raises(redis.exceptions.ConnectionError):
                redis.Redis(connection_pool=pool).ping()


def test_without_timeouts_a_lost_server_is_an_error_too(server: RedisServer, client: Client) -> None:
    r = client(socket_timeout=None)
    assert r.ping()
    server.kill()
    with pytest.raises(redis.exceptions.ConnectionError):
        r.ping()
    with ThreadPoolExecutor(1) as threads, pytest.raises(redis.exceptions.ConnectionError):
        threads.submit(r.blpop, ["nothing"], 0).result(20)


def test_retries_ride_out_a_restart(server: RedisServer, client: Client) -> None:
    r = client(retry=Retry(ConstantBackoff(0.1), 50))
    assert r.ping()
    server.kill()
    back = threading.Timer(0.5, server.start)
    back.start()
    assert r.ping()
    back.join()


def test_credentials_and_databases(server: RedisServer) -> None:
    users = {"app": "on >pa:ss/wörd ~* &* +@all", "poor": "on >p ~a* +get"}
    with RedisServer(password="sec ret", users=users) as locked:
        where = {"host": "127.0.0.1", "port": locked.port}
        for protocol in (2, 3):
            good = ConnectionPool(**where, username="app", password="pa:ss/wörd", db=3, protocol=protocol)
            with good as pool:
                r = redis.Redis(connection_pool=pool)
                assert r.acl_whoami() in ("app", b"app")
                assert r.set("in3", 1)
                assert "db3" in r.info("keyspace")
            cases: list[dict[str, Any]] = [
                {"password": "wrong"},
                {"username": "nobody", "password": "x"},
                {"password": "sec ret", "db": 99},
            ]
            for case in cases:
                with pytest.raises(redis.RedisError) as plain:
                    redis.Redis(connection_pool=redis.ConnectionPool(**where, **case, protocol=protocol)).ping()
                with (
                    ConnectionPool(**where, **case, protocol=protocol) as pool,
                    pytest.raises(redis.RedisError) as ours,
                ):
                    redis.Redis(connection_pool=pool).ping()
                assert (type(ours.value), ours.value.args) == (type(plain.value), plain.value.args)
            pool = ConnectionPool(**where, username="poor", password="p", protocol=protocol)
            with pool, pytest.raises(redis.exceptions.NoPermissionError):
                redis.Redis(connection_pool=pool).set("a", 1)


def test_unix_sockets_names_and_encodings(server: RedisServer) -> None:
    path = server.unix_address.removeprefix("unix:")
    for pool in (
        ConnectionPool.from_url(f"unix://{path}?db=2", client_name="me", encoding="latin-1", decode_responses=True),
        ConnectionPool(path=path, db=2, client_name="me", encoding="latin-1", decode_responses=True),
    ):
        with pool:
            r = redis.Redis(connection_pool=pool)
            assert r.set("grüße", "ü")
            assert r.get("grüße") == "ü"
            assert r.client_getname() == "me"
    with server.conn() as conn:
        conn("SELECT", "2")
        assert conn("GET", "grüße".encode("latin-1")) == "ü".encode("latin-1")


def test_encoding_errors(client: Client) -> None:
    plain = client()
    plain.set("bad", b"\xff")
    with pytest.raises(UnicodeDecodeError):
        client(decode_responses=True).get("bad")
    assert client(decode_responses=True, encoding_errors="replace").get("bad") == "\ufffd"


def test_fork_in_the_middle(server: RedisServer, client: Client) -> None:
    r = client()
    pubsub = r.pubsub()
    pubsub.subscribe("channel")
    assert r.set("side", "parent")
    child = os.fork()
    if not child:
        code = 1
        try:
            assert r.get("side") == b"parent"
            assert r.pipeline().set("side", "child").get("side").execute() == [True, b"child"]
            code = 0
        finally:
            os._exit(code)
    assert r.get("side") in (b"parent", b"child")
    assert os.waitpid(child, 0)[1] == 0
    assert r.get("side") == b"child"
    r.publish("channel", "still here")
    pubsub.get_message(timeout=5)
    assert (pubsub.get_message(timeout=5) or {})["data"] == b"still here"
    pubsub.close()


def test_disconnect_closes_and_reopens(server: RedisServer, client: Client) -> None:
    r = client()
    assert r.ping() and len(server.clients()) == 1
    r.connection_pool.disconnect(inuse_connections=False)
    assert len(server.clients()) == 1
    r.connection_pool.disconnect()
    net.wait_for("the connection's end", lambda: not server.clients())
    assert r.ping()
    r.connection_pool.close()
    net.wait_for("the connection's end", lambda: not server.clients())


def test_a_pool_that_is_dropped_closes_its_connection(server: RedisServer) -> None:
    r = redis.Redis(connection_pool=ConnectionPool.from_url(server.url))
    assert r.ping()
    del r
    net.wait_for("the connection's end", lambda: not server.clients())


def test_limits_of_the_pool_hold(server: RedisServer) -> None:
    with ConnectionPool.from_url(server.url, max_connections=1) as pool:
        held = pool.get_connection()
        with pytest.raises(redis.exceptions.ConnectionError, match="Too many connections"):
            redis.Redis(connection_pool=pool).ping()
        pool.release(held)
        assert redis.Redis(connection_pool=pool).ping()
    with BlockingConnectionPool.from_url(server.url, max_connections=2, timeout=5) as blocking:
        r = redis.Redis(connection_pool=blocking)
        with ThreadPoolExecutor(10) as threads:
            assert all(threads.map(lambda _: r.ping(), range(100)))


def test_state_of_a_connection_stays_with_it(server: RedisServer, client: Client) -> None:
    r = client()
    with r.client() as single:
        first = single.client_id()
        single.client_setname("mine")
        assert single.client_id() != first, "it has a connection of its own since"
        single.select(5)
        single.set("in5", 1)
        assert single.client_getname() in ("mine", b"mine")
    other = client()
    assert other.get("in5") is None
    assert other.client_getname() is None
    with server.conn() as conn:
        conn("SELECT", "5")
        assert conn("GET", "in5") == b"1"


def test_quit_and_reset(client: Client) -> None:
    r = client(protocol=2)
    assert r.execute_command("QUIT")
    assert r.ping()
    assert r.execute_command("RESET") == "RESET"
    assert r.ping()


def test_monitor(server: RedisServer, client: Client) -> None:
    r = client()
    with r.monitor() as monitor:
        r.set("seen", 'quo"ted')
        server.cli("GET", "other")
        assert monitor.next_command()["command"] == 'SET seen quo"ted'
        assert monitor.next_command()["command"] == "GET other"
    assert r.ping()


def test_locks(client: Client) -> None:
    r = client()
    count = []

    def work(_: int) -> None:
        with r.lock("lock", timeout=30, sleep=0.005):
            count.append(len(count))

    with ThreadPoolExecutor(5) as threads:
        list(threads.map(work, range(20)))
    assert count == list(range(20))
    lock = r.lock("lock", timeout=30)
    assert lock.acquire() and lock.owned() and lock.extend(10) and lock.reacquire()
    lock.release()
    with pytest.raises(redis.exceptions.LockError):
        lock.release()


def test_inside_of_a_running_loop(client: Client) -> None:
    import asyncio

    r = client()

    async def main() -> None:
        assert r.set("a", 1)
        assert r.pipeline().get("a").incr("a").execute() == [b"1", 2]

    asyncio.run(main())


def test_out_of_memory_and_read_only(server: RedisServer, client: Client) -> None:
    r = client()
    r.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        r.set("a", 1)
    r.config_set("maxmemory", 0)
    with RedisServer() as primary:
        r.replicaof("127.0.0.1", primary.port)
        net.wait_for("the replica", lambda: r.info("replication")["master_link_status"] == "up")
        with pytest.raises(redis.exceptions.ReadOnlyError):
            r.set("a", 1)


@pytest.mark.parametrize(
    "options",
    [
        {"cache_config": object(), "protocol": 3},
        {"redis_connect_func": print},
        {"connection_class": redis.SSLConnection, "ssl_ciphers": "ALL"},
        {"ssl": True, "ssl_password": "secret"},
        {"ssl": True, "ssl_validate_ocsp": True},
        {"ssl": True, "ssl_ca_data": "-----BEGIN CERTIFICATE-----"},
    ],
    ids=["cache", "connect_func", "ciphers", "password", "ocsp", "ca_data"],
)
def test_what_cannot_be_had_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(redis.RedisError, match="not supported over iokernel"):
        ConnectionPool(**options)


def test_the_repr_shows_no_secrets() -> None:
    pool = ConnectionPool.from_url("redis://user:secret@127.0.0.1:1/2")
    assert "secret" not in repr(pool)
    assert repr(redis.Redis(connection_pool=pool))
