"""TLS with real peers: theirs are Redis, nginx, openssl, curl, stunnel and Python's ssl."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, TypeVar

import iokernel
import pytest
import redis
import redis.asyncio
from iokernel.compat.redis import ConnectionPool
from iokernel.compat.redis.asyncio import ConnectionPool as AsyncConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry
from support import net
from support.asker import Admin
from support.certs import Authority
from support.fixtures import or_skip
from support.nginx import Nginx
from support.openssl import SServer, s_client
from support.process import program
from support.proxy import Proxy
from support.resp import Resp
from support.serving import WSGI, Served
from support.tls import SecureRedis, Serving, Stunnel
from support.tunnels import Tunnels

T = TypeVar("T")
REFUSED, PROTOCOL = -305, -304
QUICK = {"backoff": "10ms", "max_backoff": "50ms"}
CLIENT_WANTED = "the peer wants a certificate of ours (tls_cert=)"


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with Authority() as made:
        yield made


@pytest.fixture(scope="module")
def cert(authority: Authority) -> str:
    """For localhost and 127.0.0.1."""
    return authority.issue()


@pytest.fixture
def kernel() -> Iterator[iokernel.Kernel]:
    with iokernel.Kernel(name="tls") as made:
        yield made


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Starts what ends with the test: `start(SecureRedis, authority, cert)`."""
    with ExitStack() as stack:
        yield lambda make, *args, **options: stack.enter_context(or_skip(make)(*args, **options))


def refusal(endpoint: iokernel.Endpoint, *request: Any) -> iokernel.Unavailable:
    with pytest.raises(iokernel.Unavailable) as refused:
        endpoint.call(*(request or ("PING",)), timeout=10)
    return refused.value


def echo(args: list[Any]) -> list[Any]:
    """An answer that says what was asked."""
    (method, target, *_), body = args
    return [200, {"X-Asked": f"{method} {target}"}, body or b"hello"]


# Redis


def test_redis_over_tls(kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority, cert: str) -> None:
    server = start(SecureRedis, authority, cert)
    cache = kernel.open(server.tls_url, tls_ca=authority.ca)
    large = os.urandom(3 << 20)
    assert cache.call("SET", "large", large) == "OK"
    assert cache.call("GET", "large") == large
    pending = [cache("INCR", "counter") for _ in range(5000)]
    assert [future.result(20) for future in pending] == list(range(1, 5001))
    with cache.subscribe("SUBSCRIBE", "news") as news:
        cache.call("PUBLISH", "news", "rain")
        assert next(iter(news)) == ["message", b"news", b"rain"]
    with Resp(server.address) as plain:
        clients = plain("CLIENT", "LIST").decode().splitlines()
    assert sum(f":{server.tls_port} " in line for line in clients) == 1, clients
    told = cache.state["tls"]
    assert told["verify"] == "full" and told["handshakes"] == 1 and told["failures"] == 0 and told["version"] == "1.3"
    assert told["cipher"].startswith("TLS13_") and told["last_error"] == ""


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_redis_wants_a_certificate(
    kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority, cert: str, version: str
) -> None:
    server = start(SecureRedis, authority, cert, "--tls-protocols", f"TLSv{version}", clients="yes")
    bare = refusal(kernel.open(server.tls_url, tls_ca=authority.ca, **QUICK))
    assert bare.status == REFUSED and bare.fate == "not_sent"
    with Authority() as other:
        wrong = refusal(kernel.open(server.tls_url, tls_ca=authority.ca, tls_cert=other.issue(), **QUICK))
    expired = refusal(kernel.open(server.tls_url, tls_ca=authority.ca, tls_cert=authority.issue(expired=True), **QUICK))
    if version == "1.3":
        assert CLIENT_WANTED in str(bare)
        assert "does not take our certificate: UnknownCA" in str(wrong)
        assert "does not take our certificate: CertificateExpired" in str(expired)
    else:
        assert "wants a certificate of ours (tls_cert=)" in str(bare)
    known = kernel.open(server.tls_url, tls_ca=authority.ca, tls_cert=authority.issue("client"))
    assert known.call("PING") == "PONG"
    assert known.state["tls"]["version"] == version


def test_what_is_wrong_with_a_server_is_told_at_once_and_it_is_tried_again(
    kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority
) -> None:
    server = start(SecureRedis, authority, authority.issue("elsewhere.test", expired=True))
    cache = kernel.open(server.tls_url, tls_ca=authority.ca, **QUICK)
    begun = time.monotonic()
    error = refusal(cache)
    assert error.status == REFUSED and "certificate expired at 2021-02-03T00:00:00Z" in str(error)
    assert time.monotonic() - begun < 9, "it does not wait for its deadline"
    assert "expired" in cache.state["last_error"] and cache.state["tls"]["failures"] >= 1
    named = authority.issue("elsewhere.test")
    server.cli("CONFIG", "SET", "tls-cert-file", named, "tls-key-file", named)
    net.wait_for("another error", lambda: "elsewhere.test" in cache.state["last_error"])
    assert "is not for 127.0.0.1, but for elsewhere.test" in str(refusal(cache))
    assert kernel.open(server.tls_url, tls_ca=authority.ca, tls_server_name="elsewhere.test").call("PING") == "PONG"
    blind = kernel.open(server.tls_url, tls_verify=False)
    assert blind.call("PING") == "PONG"
    assert blind.state["tls"]["verify"] == "none"
    good = authority.issue()
    server.cli("CONFIG", "SET", "tls-cert-file", good, "tls-key-file", good)
    net.wait_for("the server", lambda: cache.state["state"] == "up")
    assert cache.call("PING") == "PONG"
    with Authority() as other:
        stranger = refusal(kernel.open(server.tls_url, tls_ca=other.ca))
    assert "issued by nobody whom we believe" in str(stranger)


def test_a_name_that_is_spread_over_its_addresses_is_still_whose_certificate_is_wanted(
    kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority
) -> None:
    server = start(SecureRedis, authority, authority.issue("localhost"))
    cache = kernel.open(f"rediss://localhost:{server.tls_port}", tls_ca=authority.ca, role="primary")
    assert cache.call("PING") == "PONG"
    assert [peer["name"] for peer in cache.state["peers"] if peer["state"] == "up"] == [f"127.0.0.1:{server.tls_port}"]
    assert "not for 127.0.0.1, but for localhost" in str(refusal(kernel.open(server.tls_url, tls_ca=authority.ca)))


def test_the_platforms_roots(start: Callable[..., Any], authority: Authority, cert: str) -> None:
    """`SSL_CERT_FILE` is where they are, for this program too."""
    server = start(SecureRedis, authority, cert)
    code = "import iokernel, sys; print(iokernel.open(sys.argv[1]).call('PING', timeout=10))"

    def run(**found: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, server.tls_url]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**os.environ, "SSL_CERT_DIR": "", **found}
        )

    assert run(SSL_CERT_FILE=authority.ca).stdout == "PONG\n"
    empty = authority.folder / "empty.pem"
    empty.touch()
    lacking = run(SSL_CERT_FILE=str(empty)).stderr
    assert "ConfigError: tls_ca" in lacking and "this system has none" in lacking, lacking


def test_sentinel_over_tls(
    kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority, cert: str, tmp_path: Path
) -> None:
    primary = start(SecureRedis, authority, cert, clients="yes")
    client = authority.issue("client")
    port = net.free_port()
    conf = tmp_path / "sentinel.conf"
    lines = ["port 0", f"tls-port {port}", f"tls-cert-file {cert}", f"tls-key-file {cert}", "bind 127.0.0.1"]
    lines += [f"tls-ca-cert-file {authority.ca}", "tls-replication yes", f"dir {tmp_path}"]
    conf.write_text("\n".join([*lines, f"sentinel monitor m 127.0.0.1 {primary.tls_port} 1"]) + "\n")
    with open(tmp_path / "log", "wb") as log:
        command = [program("redis-server", "redis-server"), str(conf), "--sentinel"]
        sentinel = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        cache = kernel.open(f"rediss+sentinel://127.0.0.1:{port}/m", tls_ca=authority.ca, tls_cert=client, **QUICK)
        cache.wait_ready(20)
        assert cache.call("SET", "a", "b") == "OK"
        assert cache.state["peers"][0]["name"] == f"127.0.0.1:{primary.tls_port}"
        stranger = kernel.open(f"rediss+sentinel://127.0.0.1:{port}/m", tls_ca=authority.ca, **QUICK)
        net.wait_for("its reason", lambda: CLIENT_WANTED in stranger.state["last_error"])
    finally:
        sentinel.kill()
        sentinel.wait()


def test_cluster_over_tls(kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority, cert: str) -> None:
    """One node that serves everything, and tells its TLS port."""
    options = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", str(net.free_port())]
    node = start(SecureRedis, authority, cert, *options)
    node.cli("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    net.wait_for("the cluster", lambda: b"cluster_state:ok" in node.cli("CLUSTER", "INFO"))
    cache = kernel.open(f"rediss+cluster://localhost:{node.tls_port}", tls_ca=authority.ca)
    pending = [cache("SET", f"key:{at}", at) for at in range(100)]
    assert {future.result(20) for future in pending} == {"OK"}
    assert node.cli("DBSIZE") == 100


def test_a_server_without_tls(kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority) -> None:
    server = start(SecureRedis, authority, authority.issue())
    silent = kernel.open(f"rediss://{server.address}", tls_ca=authority.ca, connect_timeout="300ms", **QUICK)
    net.wait_for("its reason", lambda: "does it speak TLS?" in silent.state["last_error"])
    with Serving("http://127.0.0.1:0", echo) as plain, pytest.raises(iokernel.ConnectionLost) as spoken:
        kernel.open(f"https://127.0.0.1:{plain.port}", tls_ca=authority.ca).call("GET", "/", timeout=10)
    assert spoken.value.status == PROTOCOL and spoken.value.fate == "not_sent"
    assert "the peer does not speak TLS" in str(spoken.value)


def test_redis_py_over_tls(start: Callable[..., Any], authority: Authority, cert: str) -> None:
    """What redis-py's own connections do with the same arguments, ours do."""
    server = start(SecureRedis, authority, cert, clients="yes")
    client, where = authority.issue("client"), {"host": "localhost", "port": server.tls_port}
    good = {"ssl_ca_certs": authority.ca, "ssl_certfile": client, "ssl_keyfile": client}
    named = {**good, "host": "127.0.0.1"}
    other = authority.issue("elsewhere.test")
    elsewhere = start(SecureRedis, authority, other)

    def outcome(pool: type[redis.ConnectionPool], **given: Any) -> str:
        with closing(pool(**{**where, **given, "retry": Retry(NoBackoff(), 0)})) as made:
            try:
                with redis.Redis(connection_pool=made) as cache:
                    return str(cache.ping())
            except redis.ConnectionError as error:
                return f"{type(error).__name__}: {error}"

    cases: list[tuple[dict[str, Any], str]] = [
        (good, "True"),
        (named, "True"),
        ({**good, "ssl_cert_reqs": "none"}, "True"),
        ({"ssl_ca_certs": authority.ca}, "certificate"),
        ({**good, "port": elsewhere.tls_port}, "elsewhere.test"),
        ({**good, "port": elsewhere.tls_port, "ssl_check_hostname": False}, "True"),
        ({"ssl_certfile": client, "ssl_keyfile": client, "ssl_cert_reqs": None}, "True"),
        ({"ssl_certfile": client, "ssl_keyfile": client}, "issued by nobody"),
        ({**good, "ssl_min_version": ssl.TLSVersion.TLSv1_3}, "True"),
    ]
    for given, told in cases:
        ours = outcome(ConnectionPool, ssl=True, **given)
        theirs = outcome(redis.ConnectionPool, connection_class=redis.SSLConnection, **given)
        assert told in ours and ours.startswith(theirs[:4]), (given, ours, theirs)
    query = "&".join(f"{key}={value}" for key, value in good.items())
    with closing(ConnectionPool.from_url(f"rediss://localhost:{server.tls_port}/3?{query}")) as pool:
        assert redis.Redis(connection_pool=pool).client_info()["db"] == 3

    async def asks() -> bool:
        url = f"rediss://localhost:{server.tls_port}?{query}"
        async with redis.asyncio.Redis.from_pool(AsyncConnectionPool.from_url(url)) as cache:
            return bool(await cache.ping())

    assert asyncio.run(asks())


# Services over HTTP


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_openssl_sees_name_protocol_and_resumption(
    kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority, cert: str, version: str
) -> None:
    flag = f"-tls{version.replace('.', '_')}"
    server = start(SServer, cert, flag, "-alpn", "http/1.1")
    api = kernel.open(f"https://localhost:{server.port}", tls_ca=authority.ca)
    pages = []
    for _ in range(3):
        status, _, page, *_ = api.call("GET", "/", timeout=10)
        assert status == 200
        pages.append(page.decode())
    assert f"TLSv{version}" in pages[0]
    assert ["New, " in pages[0], "Reused, " in pages[1], "Reused, " in pages[2]] == [True] * 3, pages
    told = api.state["tls"]
    assert (told["version"], told["alpn"], told["handshakes"], told["resumed"]) == (version, "http/1.1", 3, 2)
    if version == "1.2":
        strict = refusal(
            kernel.open(f"https://localhost:{server.port}", tls_ca=authority.ca, tls_min="1.3"), "GET", "/"
        )
        assert "none of our versions of TLS" in str(strict)


def test_nginx_over_tls(
    kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority, cert: str, tmp_path: Path
) -> None:
    port = net.free_port()
    large = os.urandom(8 << 20)
    (authority.folder / "large").write_bytes(large)
    inside = f"""listen 127.0.0.1:{port} ssl; ssl_certificate {cert}; ssl_certificate_key {cert};
    ssl_client_certificate {authority.ca}; ssl_verify_client optional; ssl_session_tickets off; client_max_body_size 9m;
    location /who {{ return 200 "$ssl_client_verify $ssl_server_name $ssl_alpn_protocol"; }}
    location /large {{ alias {authority.folder}/large; }}"""
    start(Nginx, inside)
    api = kernel.open(f"https://localhost:{port}", tls_ca=authority.ca, tls_cert=authority.issue("client"), pool=4)
    assert api.call("GET", "/who")[2] == b"SUCCESS localhost http/1.1"
    anonymous = kernel.open(f"https://127.0.0.1:{port}", tls_ca=authority.ca)
    assert anonymous.call("GET", "/who")[2] == b"NONE  http/1.1", "an address is no name to ask for"
    pending = [api("GET", "/large", timeout=60) for _ in range(4)]
    assert all(future.result(60)[2] == large for future in pending)
    pending = [api("GET", "/who", timeout=60) for _ in range(2000)]
    assert {future.result(60)[0] for future in pending} == {200}
    assert api.state["tls"]["handshakes"] <= 8, "conns are kept"


def test_through_proxies(kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority) -> None:
    with Serving("https://127.0.0.1:0", echo, tls_cert=authority.issue("api.test")) as server:
        tunnels = start(Tunnels, names={"api.test": "127.0.0.1"})
        for scheme in ("http", "socks5h"):
            url = f"https://api.test:{server.port}"
            api = kernel.open(url, tls_ca=authority.ca, proxy=f"{scheme}://{tunnels.address}")
            assert "GET /through" in str(api.call("GET", "/through")[1])
        wrong = kernel.open(f"https://127.0.0.1:{server.port}", tls_ca=authority.ca, proxy=f"http://{tunnels.address}")
        assert "not for 127.0.0.1, but for api.test" in str(refusal(wrong, "GET", "/"))
        assert server.tls["handshakes"] == 2


def served(context: ssl.SSLContext, talk: Callable[[ssl.SSLSocket], None]) -> tuple[int, threading.Thread]:
    """Python's ssl serves one conn."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listener, suppress(OSError):
            conn, _ = listener.accept()
            with context.wrap_socket(conn, server_side=True) as secure:
                secure.settimeout(10)
                talk(secure)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return listener.getsockname()[1], thread


@pytest.mark.parametrize("how", ["close_notify", "FIN", "RST"])
@pytest.mark.parametrize("framing", ["until close", "chunked", "length"])
def test_what_is_cut_off_is_not_taken_for_the_whole(
    kernel: iokernel.Kernel, authority: Authority, cert: str, how: str, framing: str
) -> None:
    """A body whose end is that of the connection is whole only if TLS says that nothing was cut off (RFC 9112, 9.8)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert)
    heads = {"until close": "Connection: close", "chunked": "Transfer-Encoding: chunked", "length": "Content-Length: 9"}
    body = {"until close": b"what came", "chunked": b"9\r\nwhat came\r\n", "length": b"what"}[framing]

    def talk(conn: ssl.SSLSocket) -> None:
        conn.recv(4096)
        conn.sendall(f"HTTP/1.1 200 OK\r\n{heads[framing]}\r\n\r\n".encode() + body)
        if how == "close_notify":
            with suppress(OSError):
                conn.unwrap()
        elif how == "RST":
            time.sleep(0.1)
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    port, thread = served(context, talk)
    api = kernel.open(f"https://127.0.0.1:{port}", tls_ca=authority.ca)
    if (framing, how) == ("until close", "close_notify"):
        assert api.call("GET", "/", timeout=10)[2] == b"what came"
    else:
        with pytest.raises(iokernel.ConnectionLost) as lost:
            api.call("POST", "/", {}, b"x", timeout=10)
        assert lost.value.fate == "maybe_executed"
        if (framing, how) == ("until close", "FIN"):
            assert "no close_notify" in str(lost.value)
    thread.join(10)


# Listeners


def curl(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
    command = [program("curl", "curl"), "--silent", "--show-error", "--max-time", "50", *arguments]
    return subprocess.run(command, capture_output=True, timeout=timeout)


def test_curl_is_served(authority: Authority, cert: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(5 << 20))
    with large.open("rb") as held:

        def answer(args: list[Any]) -> Any:
            if args[0][1] == "/file":
                return [200, {}, {"fd": held.fileno(), "offset": 0, "length": 5 << 20}]
            return echo(args)

        with Serving("https://127.0.0.1:0", answer, tls_cert=cert, stream_above="16MiB") as server:
            url = f"https://localhost:{server.port}"
            for version in ("1.2", "1.3"):
                given = ["--cacert", authority.ca, f"--tlsv{version}", "--tls-max", version, "-w", "%{http_version}"]
                found = curl(*given, "-v", url + "/hello")
                assert found.stdout == b"hello1.1", found
                assert f"TLSv{version}".encode() in found.stderr and b"http/1.1" in found.stderr
            found = curl("--cacert", authority.ca, "--data-binary", f"@{large}", url + "/post")
            assert found.stdout == large.read_bytes(), found.stderr
            found = curl("--cacert", authority.ca, url + "/file")
            assert found.stdout == large.read_bytes(), "a span of a file, encrypted on its way"
            many = curl("--cacert", authority.ca, "-w", "%{num_connects}\n", url + "/[1-50]", "-o", "/dev/null")
            assert sum(map(int, many.stdout.split())) == 1, "one conn serves them all"
            plain = curl("-i", f"http://localhost:{server.port}/")
            assert plain.stdout.startswith(b"HTTP/1.1 400 ") and b"use https" in plain.stdout, plain
            strange = curl(url)
            assert b"certificate" in strange.stderr
            assert curl("--cacert", authority.ca, "--no-alpn", url + "/x").stdout == b"hello"


def test_clients_of_a_listener_are_asked_for_certificates(authority: Authority, cert: str) -> None:
    client = authority.issue("client")
    with Authority() as other:
        with Serving("https://127.0.0.1:0", echo, tls_cert=cert, tls_client_ca=authority.ca) as server:
            given = ["--cacert", authority.ca, f"https://localhost:{server.port}/"]
            assert curl("--cert", client, *given).stdout == b"hello"
            assert curl(*given).returncode != 0
            assert curl("--cert", other.issue(), *given).returncode != 0
            assert curl("--cert", authority.issue(expired=True), *given).returncode != 0
            told = server.tls
            assert (told["handshakes"], told["failures"]) == (1, 3)
            assert "certificate expired" in told["last_error"]
            # A client of TLS 1.3 hears of it when its request is on its way.
            with iokernel.Kernel(name="client") as kernel:
                for method in ("POST", "GET", "POST", "POST"):
                    bare = kernel.open(f"https://localhost:{server.port}", tls_ca=authority.ca)
                    refused = refusal(bare, method, "/", {}, b"x" if method == "POST" else None)
                    assert (refused.status, refused.fate) == (REFUSED, "not_sent")
                    assert CLIENT_WANTED in str(refused)
        with Serving(
            "https://127.0.0.1:0", echo, tls_cert=cert, tls_client_ca=authority.ca, tls_client="optional"
        ) as server:
            given = ["--cacert", authority.ca, f"https://localhost:{server.port}/"]
            assert curl("--cert", client, *given).stdout == b"hello" == curl(*given).stdout
            assert curl("--cert", other.issue(), *given).returncode != 0


def test_openssl_resumes_its_session_with_a_listener(authority: Authority, cert: str, tmp_path: Path) -> None:
    with Serving("rediss://127.0.0.1:0", lambda args: args, tls_cert=cert) as server:
        for version in ("-tls1_2", "-tls1_3"):
            kept = str(tmp_path / version)
            given = [version, "-CAfile", authority.ca, "-servername", "localhost", "-ign_eof"]
            first = s_client(server.port, *given, "-sess_out", kept, said="QUIT\r\n")
            assert "New, TLSv1" in first and "Verify return code: 0" in first and "+OK" in first, first
            second = s_client(server.port, *given, "-sess_in", kept, said="QUIT\r\n")
            assert "Reused, TLSv1" in second and "+OK" in second, second
        assert server.tls["resumed"] == 2
        old = s_client(server.port, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")
        assert "alert" in old and "New, (NONE)" in old, old


def test_pythons_ssl_is_served(authority: Authority, cert: str) -> None:
    with Serving("rediss://127.0.0.1:0", lambda args: args, tls_cert=cert) as server:
        context = ssl.create_default_context(cafile=authority.ca)
        with socket.create_connection(("127.0.0.1", server.port)) as conn:
            secure = context.wrap_socket(conn, server_hostname="localhost", suppress_ragged_eofs=False)
            secure.sendall(b"PING\r\n")
            assert secure.recv(100) == b"+PONG\r\n"
            secure.sendall(b"QUIT\r\n")
            assert secure.recv(100) == b"+OK\r\n"
            assert secure.recv(100) == b"", "its end is said, so that nothing can be cut off"
            secure.close()


def test_stunnel_on_either_side(
    kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority, cert: str
) -> None:
    redis = start(SecureRedis, authority, cert)
    before = start(Stunnel, [f"connect = {redis.address}", f"cert = {cert}"])
    cache = kernel.open(f"rediss://localhost:{before.port}", tls_ca=authority.ca)
    value = os.urandom(1 << 20)
    assert cache.call("SET", "a", value) == "OK" and cache.call("GET", "a") == value
    with Serving("rediss://127.0.0.1:0", lambda args: args, tls_cert=cert) as server:
        given = ["client = yes", f"connect = 127.0.0.1:{server.port}", f"CAfile = {authority.ca}"]
        behind = start(Stunnel, [*given, "verifyChain = yes", "checkHost = localhost"])
        with Resp(f"127.0.0.1:{behind.port}") as conn:
            assert conn("HELLO2", value) == [b"HELLO2", value]


def test_several_certificates_for_several_names(authority: Authority) -> None:
    files = ",".join(authority.issue(name) for name in ("one.test", "two.test"))
    with Serving("https://127.0.0.1:0", echo, tls_cert=files) as server:
        for name, shown in [("one.test", "one.test"), ("two.test", "two.test"), ("three.test", "one.test")]:
            at = ["--connect-to", f"{name}:443:127.0.0.1:{server.port}", "--cacert", authority.ca]
            found = curl(*at, f"https://{name}/")
            assert (found.stdout == b"hello") == (name == shown), found


def test_an_application_is_served(start: Callable[..., Any], authority: Authority, cert: str) -> None:
    """`iokernel serve`, with workers and clients' certificates."""
    files = ["--tls-cert", cert, "--tls-key", cert, "--tls-client-ca", authority.ca]
    served = start(Served, WSGI, *files, "--workers", "2")
    given = ["--cacert", authority.ca, f"https://localhost:{served.port}/[1-20]"]
    known = curl("--cert", authority.issue("client"), *given)
    assert known.stdout.isdigit(), known
    assert curl(*given).returncode != 0


def test_a_broken_reply_is_not_ended_as_if_it_were_whole(authority: Authority, cert: str) -> None:
    """A listener that goes in the middle of a reply whose end would be that of the connection (HTTP/1.0)."""
    context = ssl.create_default_context(cafile=authority.ca)
    with iokernel.Kernel(name="broken") as kernel:
        for answers in (True, False):
            listener = kernel.listen("https://127.0.0.1:0", tls_cert=cert)
            port = int(listener.url.rpartition(":")[2])
            conn = socket.create_connection(("127.0.0.1", port))
            with conn, context.wrap_socket(conn, server_hostname="localhost", suppress_ragged_eofs=False) as secure:
                secure.sendall(b"GET / HTTP/1.0\r\n\r\n")
                request = next(iter(listener))
                if answers:
                    request.reply([200, {}, b"whole"])
                    head, _, body = secure.recv(4096).partition(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 200") and body == b"whole" and secure.recv(1) == b""
                    listener.close()
                else:
                    listener.close()
                    with pytest.raises(ssl.SSLEOFError):
                        secure.recv(4096)


def test_who_is_in_the_middle_of_a_handshake_is_served_by_a_listener_that_leaves(
    authority: Authority, cert: str
) -> None:
    with Serving("https://127.0.0.1:0", echo, tls_cert=cert) as server, Proxy(f"127.0.0.1:{server.port}") as proxy:
        proxy.to_server(delay_ms=300)
        host, port = proxy.address.split(":")
        command = ["--cacert", authority.ca, "--connect-to", f"::{host}:{port}", "https://localhost/late"]
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(curl, *command)
            net.wait_for("the handshake", lambda: server.tls["pending"] == 1)
            leaving = pool.submit(server.listener.close, drain=10)
            assert asked.result(20).stdout == b"hello"
            leaving.result(20)


def test_over_a_unix_socket(kernel: iokernel.Kernel, authority: Authority, cert: str, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Serving(f"https+unix://{path}", echo, tls_cert=cert):
        api = kernel.open(f"https+unix://{path}", tls_ca=authority.ca, tls_server_name="localhost")
        assert api.call("GET", "/")[0] == 200
        with pytest.raises(iokernel.ConfigError, match=r"which .*/socket does not tell"):
            kernel.open(f"https+unix://{path}", tls_ca=authority.ca)


# Files that change


def test_a_certificate_is_renewed_under_load_and_no_request_fails(authority: Authority) -> None:
    """New conns use the new one; a file that is of no use changes nothing, and is told."""
    path = authority.issue("one.test", name="renewed.pem")
    good = Path(path).read_bytes()
    with Serving("https://127.0.0.1:0", echo, tls_cert=path) as server, ExitStack() as stack:
        failed: list[Exception] = []
        done = threading.Event()
        served = [0] * 4

        def ask(at: int) -> None:
            context = ssl.create_default_context(cafile=authority.ca)
            context.check_hostname = False
            while not done.is_set():
                try:
                    conn = socket.create_connection(("127.0.0.1", server.port))
                    with conn, context.wrap_socket(conn) as secure:
                        for _ in range(3):
                            secure.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                            assert secure.recv(4096).startswith(b"HTTP/1.1 200")
                            served[at] += 1
                except Exception as error:
                    failed.append(error)

        def shown() -> list[str]:
            text = ssl.get_server_certificate(("127.0.0.1", server.port))
            fresh = authority.folder / "shown.pem"
            fresh.write_text(text)
            told: Any = ssl._ssl._test_decode_cert(str(fresh))  # type: ignore[attr-defined]
            return [name for _, name in told["subjectAltName"]]

        pool = stack.enter_context(ThreadPoolExecutor())
        stack.callback(done.set)
        threads = [pool.submit(ask, at) for at in range(4)]
        assert shown() == ["one.test"]
        authority.issue("two.test", name="renewed.pem")
        net.wait_for("the new certificate", lambda: shown() == ["two.test"], 20)
        Path(path).write_bytes(good[:300])
        net.wait_for("its trouble", lambda: server.tls["files_error"], 20)
        told = server.tls
        assert "tls_cert" in told["files_error"] or "tls_key" in told["files_error"]
        assert (told["reloads"], told["reload_failures"]) == (1, 1)
        assert shown() == ["two.test"]
        authority.issue("three.test", name="renewed.pem")
        net.wait_for("the third certificate", lambda: shown() == ["three.test"], 20)
        assert server.tls["files_error"] == "" and server.tls["reloads"] == 2
        done.set()
        for thread in threads:
            thread.result(20)
        assert failed == [] and min(served) > 0, (failed, served)


# Peers that do wrong


def test_garbage_in_the_place_of_a_hello(authority: Authority, cert: str) -> None:
    with Serving("rediss://127.0.0.1:0", lambda args: args, tls_cert=cert) as server:
        for words in (b"PING\r\n", b"GET / HTTP/1.1\r\n\r\n", bytes(500), b"\x16\x03\x01\xff\xff" + bytes(70_000)):
            with socket.create_connection(("127.0.0.1", server.port)) as conn:
                conn.settimeout(20)
                with suppress(ConnectionError):
                    conn.sendall(words)
                    said = conn.recv(4096)
                    if words.startswith(b"PING"):
                        assert said == b"-ERR this port speaks TLS: use rediss://\r\n"
                    while said:
                        said = conn.recv(4096)
        net.wait_for("failures", lambda: server.tls["failures"] == 4)
        assert server.tls["pending"] == 0
        assert "PONG" in s_client(server.port, "-ign_eof", said="PING\r\nQUIT\r\n")


def test_a_hello_at_a_byte_a_time_has_its_time_and_no_more(authority: Authority, cert: str) -> None:
    with Serving("rediss://127.0.0.1:0", lambda args: args, tls_cert=cert, tls_timeout="1s") as server:
        with Proxy(f"127.0.0.1:{server.port}") as slow:
            slow.to_server(split=1, gap_ms=100)
            context = ssl.create_default_context(cafile=authority.ca)
            host, port = slow.address.split(":")
            with socket.create_connection((host, int(port))) as conn:
                conn.settimeout(20)
                with pytest.raises(OSError), context.wrap_socket(conn, server_hostname="localhost"):
                    pass
        assert "did not finish the handshake within 1s" in server.tls["last_error"]
        with Proxy(f"127.0.0.1:{server.port}") as quick:
            quick.both(split=1)
            host, port = quick.address.split(":")
            conn = socket.create_connection((host, int(port)))
            with conn, context.wrap_socket(conn, server_hostname="localhost") as secure:
                secure.sendall(b"PING\r\n")
                assert secure.recv(10) == b"+PONG\r\n"


def test_handshakes_that_are_cut_off_anywhere(
    kernel: iokernel.Kernel, start: Callable[..., Any], authority: Authority, cert: str
) -> None:
    """Each of them fails with a reason, and the next conn is as if there had been none."""
    server = start(SecureRedis, authority, cert)
    with Proxy(f"127.0.0.1:{server.tls_port}") as proxy:
        _, port = proxy.address.split(":")
        cache = kernel.open(f"rediss://localhost:{port}", tls_ca=authority.ca, backoff="1ms", max_backoff="2ms")

        def failures() -> int:
            return int(cache.state["tls"]["failures"])

        # A hello has about 250 bytes, its answer 700.
        places = (0, 1, 4, 5, 6, 50, 127, 130, 200)
        for direction, more in ((proxy.to_server, ()), (proxy.to_client, (300, 400, 500))):
            for how in ("close", "reset"):
                for at in (*places, *more):
                    direction(cut_at=at, cut_how=how)
                    before = failures()
                    proxy.end("reset")
                    while failures() == before:
                        time.sleep(0.002)
                    direction()
        net.wait_for("the server", lambda: cache.state["state"] == "up")
        assert cache.call("PING") == "PONG"


def test_two_thousand_who_say_nothing_leave_others_unharmed(authority: Authority, cert: str) -> None:
    with Serving("rediss://127.0.0.1:0", lambda args: args, tls_cert=cert, tls_pending=500) as server:
        served = iokernel.Kernel(name="client")
        with ExitStack() as stack:
            stack.enter_context(served)
            before = served.open(f"rediss://localhost:{server.port}", tls_ca=authority.ca)
            assert before.call("PING") == "PONG"
            silent = []
            for at in range(2000):
                conn = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
                if at % 2:
                    conn.sendall(b"\x16\x03\x01\x02\x00")
                silent.append(conn)
            assert before.call("PING") == "PONG"
            late = served.open(f"rediss://localhost:{server.port}", tls_ca=authority.ca)
            assert late.call("PING") == "PONG", "who has something to say is heard"
            net.wait_for("room", lambda: server.tls["pending"] <= 500)
            assert "tls_pending=" in server.tls["last_error"]


def test_a_storm_of_handshakes_delays_nobody(authority: Authority) -> None:
    """A request waits for a few handshakes at most, however many clients connect. Keys of RSA are the worst."""
    cert = authority.issue(rsa=True)
    code = """
import socket, ssl, sys, threading
context = ssl.create_default_context(cafile=sys.argv[2])
def storm():
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as conn:
                context.wrap_socket(conn, server_hostname="localhost").close()
        except OSError:
            pass
for _ in range(30):
    threading.Thread(target=storm, daemon=True).start()
sys.stdin.read()
"""
    with (
        Serving("rediss://127.0.0.1:0", lambda args: args, tls_cert=cert) as server,
        iokernel.Kernel(name="client") as kernel,
    ):
        cache = kernel.open(f"rediss://localhost:{server.port}", tls_ca=authority.ca)

        def median_ms(count: int) -> float:
            took = []
            for _ in range(count):
                begun = time.perf_counter()
                assert cache.call("PING", timeout=30) == "PONG"
                took.append((time.perf_counter() - begun) * 1000)
            return sorted(took)[count // 2]

        alone = median_ms(200)
        command = [sys.executable, "-c", code, str(server.port), authority.ca]
        with ExitStack() as stack:
            for _ in range(2):
                storm = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE))
                stack.callback(storm.kill)
            net.wait_for("the storm", lambda: server.tls["handshakes"] > 50, 60)
            first, begun = server.tls["handshakes"], time.monotonic()
            beside = median_ms(200)
            per_ms = (server.tls["handshakes"] - first) / (time.monotonic() - begun) / 1000
            pending = sorted(server.tls["pending"] for _ in range(21))[10]
        # So long would it wait for everyone who came before it.
        queue_ms = pending / per_ms
        print(f"PING: alone {alone:.2f} ms, beside {per_ms * 1000:.0f} handshakes/s {beside:.2f} ms; {queue_ms:.0f} ms")
        assert pending > 10, "it stormed"
        assert beside < queue_ms / 4, (alone, beside, queue_ms)


# Forks


def test_a_forked_child_connects_by_itself_and_the_parents_conn_lives(
    start: Callable[..., Any], authority: Authority, cert: str
) -> None:
    server = start(SecureRedis, authority, cert)
    code = f"""
import iokernel, os, sys
cache = iokernel.open("{server.tls_url}", tls_ca="{authority.ca}")
assert cache.call("SET", "a", "parent") == "OK"
child = os.fork()
if child == 0:
    try:
        assert cache.call("GET", "a", timeout=20) == b"parent"
        assert cache.state["tls"]["handshakes"] == 1
        os._exit(0)
    except BaseException as error:
        print(error, file=sys.stderr)
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
assert cache.call("GET", "a") == b"parent"
assert cache.state["tls"]["handshakes"] == 1
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# What is counted


def test_handshakes_are_counted(authority: Authority, cert: str, tmp_path: Path) -> None:
    admin, url = tmp_path / "admin", f"rediss://127.0.0.1:{net.free_port()}"
    with Serving(url, lambda args: args, admin=f"unix:{admin}", tls_cert=cert) as server:
        s_client(server.port, "-ign_eof", said="QUIT\r\n")
        with socket.create_connection(("127.0.0.1", server.port)) as conn:
            conn.sendall(b"no TLS at all\r\n")
            conn.settimeout(20)
            while conn.recv(100):
                pass
        with closing(Admin(str(admin))) as asked:
            asked.request("GET", "/metrics")
            text = asked.getresponse().read().decode()
        found = dict(re.findall(rf'^iokernel_tls_(\w+){{endpoint="{url}"[^}}]*}} (\d+)', text, re.MULTILINE))
        assert (found["handshakes_total"], found["failures_total"], found["resumed_total"]) == ("1", "1", "0"), text
        assert server.tls["handshakes"] == 1 and server.tls["failures"] == 1
