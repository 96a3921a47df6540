"""The proxy, the fakes and the servers do what the other tests trust them to do."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from support import fakes, net
from support.fakes import Fake, Say
from support.proxy import Proxy
from support.resp import RedisError, Resp
from support.servers import RedisServer

MakeProxy = Callable[..., Proxy]
MakeFake = Callable[..., Fake]
DATA = bytes(range(256)) * 40


@pytest.fixture(params=["tcp", "unix"])
def echo(request: pytest.FixtureRequest, tmp_path: object) -> Iterator[str]:
    """The address of a server that sends back what it reads, and FIN for FIN."""
    address = "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/echo"
    family = socket.AF_INET if request.param == "tcp" else socket.AF_UNIX
    with socket.socket(family) as listening:
        listening.bind(("127.0.0.1", 0) if request.param == "tcp" else address.removeprefix("unix:"))
        listening.listen()
        threading.Thread(target=serve_echo, args=[listening], daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}" if request.param == "tcp" else address
        listening.shutdown(socket.SHUT_RDWR)


def serve_echo(listening: socket.socket) -> None:
    while True:
        try:
            conn, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=echo_one, args=[conn], daemon=True).start()


def echo_one(conn: socket.socket) -> None:
    with conn:
        try:
            while data := conn.recv(65536):
                conn.sendall(data)
        except OSError:
            pass


def read(conn: socket.socket, count: int) -> bytes:
    """So many bytes, or fewer if the stream ends before."""
    parts = b""
    while len(parts) < count and (part := conn.recv(count - len(parts))):
        parts += part
    return parts


def echoed(conn: socket.socket, data: bytes = DATA) -> bytes:
    conn.sendall(data)
    return read(conn, len(data))


def is_reset(conn: socket.socket) -> bool:
    try:
        return bool(conn.recv(1)) and False
    except ConnectionResetError:
        return True


def test_forwards_everything_both_ways(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA
        conn.shutdown(socket.SHUT_WR)
        assert conn.recv(1) == b""
    net.wait_for("the conn to end", lambda: proxy.stats()["open"] == 0)
    stats = proxy.stats()
    assert (stats["accepted"], stats["bytes_to_server"], stats["bytes_to_client"]) == (1, len(DATA), len(DATA))


def test_listens_on_a_unix_socket_too(echo: str, make_proxy: MakeProxy, tmp_path: object) -> None:
    proxy = make_proxy(echo, listen=f"unix:{tmp_path}/proxy")
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA


def test_delay_and_jitter(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    proxy.to_client(delay_ms=60, jitter_ms=20)
    with net.connect(proxy.address) as conn:
        started = time.monotonic()
        assert echoed(conn) == DATA
        assert time.monotonic() - started >= 0.06
        proxy.clear()
        assert echoed(conn) == DATA


@pytest.mark.parametrize(
    "rule", [{"split": 1}, {"split": 7, "gap_ms": 0.1}, {"chop": 5}, {"chop": 300, "jitter_ms": 1}]
)
def test_pieces(echo: str, make_proxy: MakeProxy, rule: dict[str, float]) -> None:
    proxy = make_proxy(echo)
    proxy.both(**rule)
    with net.connect(proxy.address) as conn:
        data = DATA[:1000]
        assert echoed(conn, data) == data
    pieces = rule.get("split") or rule["chop"]
    assert proxy.stats()["writes_to_client"] >= 1000 / pieces


def test_coalesce(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    proxy.to_server(coalesce_ms=300)
    with net.connect(proxy.address) as conn:
        for _ in range(5):
            conn.sendall(b"piece")
            time.sleep(0.002)
        assert read(conn, 25) == b"piece" * 5
    assert proxy.stats()["writes_to_server"] < 5


def test_corrupts_one_byte(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    proxy.to_client(corrupt_at=1000, split=300)
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA[:1000] + bytes([DATA[1000] ^ 0xFF]) + DATA[1001:]


@pytest.mark.parametrize("at", [0, 1, 1000])
def test_cuts_towards_the_client(echo: str, make_proxy: MakeProxy, at: int) -> None:
    proxy = make_proxy(echo)
    proxy.to_client(cut_at=at)
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA[:at]


@pytest.mark.parametrize("at", [0, 1000])
def test_cuts_towards_the_server(echo: str, make_proxy: MakeProxy, at: int) -> None:
    proxy = make_proxy(echo)
    proxy.to_server(cut_at=at, cut_how="half")
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA[:at]
    assert proxy.stats()["bytes_to_server"] == at


def test_cuts_into_silence(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    proxy.to_client(cut_at=10, cut_how="silence")
    with net.connect(proxy.address) as conn:
        conn.settimeout(0.2)
        conn.sendall(DATA)
        assert read(conn, 10) == DATA[:10]
        with pytest.raises(TimeoutError):
            conn.recv(1)


def test_resets(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA
        proxy.end("reset")
        assert is_reset(conn)
    proxy.to_client(cut_at=5, cut_how="reset")
    with net.connect(proxy.address) as conn:
        conn.sendall(DATA)
        with pytest.raises(ConnectionResetError):
            read(conn, len(DATA))


def test_closes_and_half_closes(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA
        proxy.half_close("client")
        assert conn.recv(1) == b""
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA
        proxy.end()
        assert conn.recv(1) == b""


def test_black_hole(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    with net.connect(proxy.address, timeout=0.2) as conn:
        assert echoed(conn) == DATA
        proxy.both(hold=True)
        conn.sendall(b"swallowed")
        with pytest.raises(TimeoutError):
            conn.recv(1)
        conn.settimeout(5)
        proxy.clear()
        assert read(conn, 9) == b"swallowed"


def test_modes(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    proxy.mode("silent")
    with net.connect(proxy.address, timeout=0.1) as conn:
        conn.sendall(b"hello?")
        with pytest.raises(TimeoutError):
            conn.recv(1)
    proxy.mode("http")
    with net.connect(proxy.address) as conn:
        conn.sendall(b"PING\r\n")
        assert read(conn, 12) == b"HTTP/1.1 400"
    proxy.mode("drop")
    with net.connect(proxy.address) as conn:
        assert conn.recv(1) == b""


def test_refuses_and_listens_again(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    proxy.listen(False)
    with pytest.raises(ConnectionRefusedError):
        net.connect(proxy.address)
    proxy.listen(True)
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA


def test_upstream_that_is_not_there(echo: str, make_proxy: MakeProxy, free_port: int) -> None:
    proxy = make_proxy(f"127.0.0.1:{free_port}")
    # It may come before the call that connects has returned.
    with pytest.raises(ConnectionResetError), net.connect(proxy.address) as conn:
        conn.recv(1)
    assert proxy.stats()["failed"] == 1
    proxy.upstream(echo)
    with net.connect(proxy.address) as conn:
        assert echoed(conn) == DATA


def test_large_stream_through_small_pieces(echo: str, make_proxy: MakeProxy) -> None:
    proxy = make_proxy(echo)
    proxy.both(chop=30_000)
    data = hashlib.shake_128(b"seed").digest(4 << 20)
    with net.connect(proxy.address) as conn:
        sender = threading.Thread(target=conn.sendall, args=[data])
        sender.start()
        assert read(conn, len(data)) == data
        sender.join()


def test_wrong_orders_are_told(echo: str, make_proxy: MakeProxy) -> None:
    with pytest.raises(ValueError, match="dely_ms"):
        make_proxy(echo).to_client(dely_ms=5)


def test_fake_answers_by_its_script(make_fake: MakeFake) -> None:
    fake = make_fake(
        {"HELLO": b"-NOPROTO x\r\n", "GET": [b"$1\r\n1\r\n", b"$1\r\n2\r\n"], "QUIT": Say(b"+BYE\r\n", then="close")}
    )
    with Resp(fake.address) as client:
        with pytest.raises(RedisError, match="NOPROTO"):
            client("HELLO", 3)
        assert [client("GET", "k") for _ in range(3)] == [b"1", b"2", b"2"]
        assert client("PING") == b"OK"
        assert client("quit") == b"BYE"
        with pytest.raises(ConnectionError):
            client.receive()
    assert fake.commands()[:2] == [[b"HELLO", b"3"], [b"GET", b"k"]]
    assert fake.accepted() == 1


def test_fake_greets_waits_and_pushes(make_fake: MakeFake) -> None:
    fake = make_fake({"": Say(b"+LATE\r\n", wait_ms=50)}, greeting=b"+HI\r\n")
    with Resp(fake.address) as client:
        assert client.receive() == b"HI"
        started = time.monotonic()
        assert client("ANY") == b"LATE"
        assert time.monotonic() - started >= 0.05
        assert fake.push(b"+NEWS\r\n") == 1
        assert client.receive() == b"NEWS"


def test_fakes_without_a_script() -> None:
    with fakes.silent() as fake, net.connect(fake.address, timeout=0.1) as conn:
        conn.sendall(b"PING\r\n")
        with pytest.raises(TimeoutError):
            conn.recv(1)
    with fakes.http() as fake, net.connect(fake.address) as conn:
        conn.sendall(b"PING\r\n")
        assert read(conn, 1000).startswith(b"HTTP/1.1 400")


def test_redis_server_lives_dies_and_returns(redis_server: RedisServer) -> None:
    assert redis_server.cli("SET", "k", "v") == b"OK"
    with redis_server.conn() as client:
        assert client("GET", "k") == b"v"
        redis_server.kill()
        with pytest.raises(ConnectionError):
            client("GET", "k")
    redis_server.start()
    assert redis_server.cli("GET", "k") is None


def test_redis_server_pauses(redis_server: RedisServer) -> None:
    with Resp(redis_server.address, timeout=0.2) as client:
        redis_server.pause()
        with pytest.raises(TimeoutError):
            client("PING")
    redis_server.cont()
    assert redis_server.cli("PING") == b"PONG"


def test_redis_server_options(make_redis_server: Callable[..., RedisServer]) -> None:
    server = make_redis_server(
        unixsocket=True, password="p:w", users={"app": "on >x ~* +@all"}, options=["--maxclients", "50"]
    )
    assert server.url.startswith("redis://:p%3Aw@127.0.0.1:")
    assert server.cli("CONFIG", "GET", "maxclients") == [b"maxclients", b"50"]
    with Resp(server.unix_address) as client:
        with pytest.raises(RedisError, match="NOAUTH"):
            client("PING")
        assert client("AUTH", "app", "x") == b"OK"
        assert [row["user"] for row in server.clients()] == ["app"]
