"""The master and its workers: signals, replacement without a client that notices, sockets that are passed on."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.certs import Authority
from support.net import free_port, wait_for
from support.program import ROOT
from support.serving import ASGI, WSGI, Load, Served, read_all


@pytest.mark.parametrize("source", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_sigterm_under_load_loses_nothing(source: str) -> None:
    with Served(source, "--workers", "2", "--delay", "0.5", "--health", "/healthz") as served:
        load = Load(served)
        try:
            wait_for("answers", lambda: load.answers > 200)
            assert served.get("/healthz").status == 200
            served.signal(signal.SIGTERM)
            wait_for("the health path's no", lambda: served.get("/healthz").status == 503)
            assert served.wait() == 0
        finally:
            load.stop()
        assert (load.refused, load.errors) == (6, [])


@pytest.mark.parametrize("source", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_requests_under_way_finish(source: str) -> None:
    with Served(source) as served:
        with served.connect() as conn:
            conn.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
            time.sleep(0.2)
            served.signal(signal.SIGTERM)
            answer = read_all(conn)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"Connection: close" in answer
        assert served.wait() == 0


def test_requests_that_do_not_finish_in_time_are_dropped() -> None:
    with Served(ASGI, "--drain", "0.2") as served, served.connect() as conn:
        conn.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(0.2)
        served.signal(signal.SIGTERM)
        assert read_all(conn) == b""
        assert served.wait() == 0
        assert "had not finished" in served.text()


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGINT])
def test_leaving_at_once(number: signal.Signals) -> None:
    """SIGQUIT, or SIGINT twice, as from an impatient terminal."""
    source = WSGI.replace("time.sleep(1)", "time.sleep(15)")
    with Served(source, "--drain", "60") as served, served.connect() as conn:
        conn.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(0.2)
        served.signal(number)
        if number == signal.SIGINT:
            time.sleep(0.3)
            assert served.running
            served.signal(number)
        assert served.wait(10) == 0


@pytest.mark.parametrize("source", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_sighup_replaces_all_workers_and_no_client_notices(source: str) -> None:
    with Served(source, "--workers", "2") as served:
        wait_for("both", lambda: served.text().count(" serves") == 2)
        before = set(served.workers)
        load = Load(served)
        try:
            for round_number in range(1, 3):
                served.signal(signal.SIGHUP)
                wait_for("the others", lambda: served.text().count(" serves") == 2 + 2 * round_number, 30)  # noqa: B023
            wait_for("the first ones' end", lambda: not before & set(served.workers), 30)
            reached = load.answers
            wait_for("answers", lambda: load.answers > reached + 100)
        finally:
            load.stop()
        assert load.errors == [] and load.refused == 0


def test_an_application_is_read_anew_and_one_that_is_broken_changes_nothing() -> None:
    with Served(WSGI) as served:
        file = served.folder / "app.py"
        file.write_text(WSGI.replace("str(os.getpid()).encode()", "b'second version, longer'"))
        served.signal(signal.SIGHUP)
        wait_for("the second version", lambda: served.get("/").body == b"second version, longer")
        file.write_text("def app(:")
        served.signal(signal.SIGHUP)
        wait_for("the error", lambda: "SyntaxError" in served.text())
        wait_for("the end of it", lambda: "ended with status 3" in served.text())
        assert served.get("/").body == b"second version, longer"


def test_source_files_are_watched() -> None:
    with Served(WSGI, "--reload") as served:
        (served.folder / "app.py").write_text(WSGI.replace("str(os.getpid()).encode()", "b'second version, longer'"))
        wait_for("the second version", lambda: served.get("/").body == b"second version, longer", 30)


def test_a_worker_that_dies_is_replaced() -> None:
    with Served(WSGI) as served:
        (first,) = served.workers
        os.kill(first, signal.SIGKILL)
        wait_for("another", lambda: served.text().count(" serves") == 2)
        assert int(served.get("/").body) != first
        assert "ended by SIGKILL" in served.text()


@pytest.mark.parametrize(
    ("app", "says"),
    [
        ("nothing:app", "there is no module 'nothing'"),
        ("app:nothing", "'app' has no 'nothing'"),
        ("app:os", "expected a callable"),
        ("app:x+y", "expected module:name"),
        ("app:fails()", "ZeroDivisionError"),
    ],
)
def test_an_application_that_cannot_be_had(app: str, says: str) -> None:
    with Served(f"{WSGI}\ndef fails(): 1 / 0\n", app=app) as served:
        assert served.wait() == 3
        assert says in served.text()


def test_applications_that_are_made() -> None:
    source = """
    def create(name="default"):
        def app(environ, start_response):
            start_response("200 OK", [])
            return [name.encode()]
        return app
    create_app = create
    """
    for app, options, body in [
        ("app:create('given')", (), b"given"),
        ("app:create(name='named')", (), b"named"),
        ("app:create", ("--factory",), b"default"),
        ("app", (), b"default"),
    ]:
        with Served(source, *options, app=app) as served:
            assert served.get("/").body == body


def test_a_worker_is_replaced_after_its_requests() -> None:
    with Served(WSGI, "--max-requests", "100") as served:
        load = Load(served, 2, 1)
        try:
            wait_for("four", lambda: served.text().count(" serves") >= 4, 30)
        finally:
            load.stop()
        assert load.errors == [] and load.refused == 0


def test_a_worker_that_is_stuck_is_killed() -> None:
    with Served(ASGI, "--timeout", "0.5") as served:
        (first,) = served.workers
        with served.connect() as conn:
            conn.sendall(b"GET /stuck HTTP/1.1\r\nHost: h\r\n\r\n")
            wait_for("another", lambda: served.text().count(" serves") == 2)
        assert "was stuck" in served.text() and int(served.get("/").body) != first
    source = WSGI.replace("time.sleep(1)", "time.sleep(60)")
    with Served(source, "--timeout", "0.5") as served, served.connect() as conn:
        time.sleep(1)
        assert served.text().count(" serves") == 1, "an idle one is not stuck"
        conn.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_for("another", lambda: served.text().count(" serves") == 2)


def test_more_and_fewer_workers() -> None:
    with Served(WSGI) as served:
        served.signal(signal.SIGTTIN)
        wait_for("two", lambda: served.text().count(" serves") == 2)
        pids = {served.get("/").body for _ in range(100)}
        assert len(pids) == 2
        served.signal(signal.SIGTTOU)
        wait_for("one", lambda: len(served.workers) == 1)
        assert {served.get("/").body for _ in range(20)} == {str(served.workers[0]).encode()}


def test_clients_are_shared_out_evenly() -> None:
    with Served(WSGI, "--workers", "2") as served:
        wait_for("both", lambda: served.text().count(" serves") == 2)
        clients = [served.client() for _ in range(100)]
        for client in clients:
            client.request("GET", "/")
        pids = [client.getresponse().read() for client in clients]
        for client in clients:
            client.close()
        assert len(set(pids)) == 2 and 20 < pids.count(pids[0]) < 80


def test_unix_sockets_and_several_addresses(tmp_path: Path) -> None:
    path = tmp_path / "serve.sock"
    with Served(WSGI, "--bind", f"unix:{path}", "--pid", "pid", "--access-log", "access") as served:
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as conn:
                conn.settimeout(20)
                conn.connect(str(path))
                conn.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                assert str(served.workers[0]).encode() in read_all(conn)
        assert served.get("/x?y=1", User_Agent="tests").status == 200
        assert int((served.folder / "pid").read_text()) == served.pid
        wait_for("the access log", lambda: '"GET /x?y=1 HTTP/1.1" 200' in (served.folder / "access").read_text())
        served.signal(signal.SIGTERM)
        assert served.wait() == 0
        assert not path.exists() and not (served.folder / "pid").exists()


def test_an_address_that_is_taken_is_an_error() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)), Served(WSGI, bind=f"127.0.0.1:{port}") as served:
        assert served.wait() == 1
        assert "cannot listen: Address already in use" in served.text()


class Manager(Served):
    """Started as systemd starts a service: with sockets passed on, and a socket to be told at."""

    def __init__(self, *options: str) -> None:
        self.socket = socket.create_server(("127.0.0.1", free_port()))
        super().__init__(WSGI, *options, bind="")
        self.port = self.socket.getsockname()[1]

    def start(self, command: list[str], env: dict[str, str], **more: object) -> None:
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.settimeout(20)
        self.told.bind(str(self.folder / "notify"))
        fd = self.socket.fileno()
        script = f'exec 3<&{fd}; export LISTEN_PID=$$ LISTEN_FDS=1 NOTIFY_SOCKET=$PWD/notify; exec "$@"'
        super().start(["bash", "-c", script, "-", *command], env, pass_fds=[fd])


def test_sockets_of_a_service_manager() -> None:
    with Manager("--workers", "2") as served:
        assert served.told.recv(100) == b"READY=1"
        assert int(served.get("/").body) in served.workers
        served.signal(signal.SIGHUP)
        assert served.told.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert served.told.recv(100) == b"READY=1"
        served.signal(signal.SIGTERM)
        assert served.told.recv(100) == b"STOPPING=1"
        assert served.wait() == 0
        served.told.close()
        # The socket is the manager's: it listens on, for the next start.
        with socket.create_connection(("127.0.0.1", served.port), 5):
            served.socket.close()


def test_the_health_path_answers_while_the_program_hangs_in_c() -> None:
    hang_s = 60 if os.environ.get("IOKERNEL_SOAK") else 5
    source = f"""
    from support.hang import hang

    async def app(scope, receive, send):
        if scope["type"] == "http":
            hang({hang_s})
            await send({{"type": "http.response.start", "status": 200, "headers": []}})
            await send({{"type": "http.response.body", "body": b"done"}})
    """
    with Served(source, "--health", "/healthz") as served, served.connect(120) as conn:
        conn.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        started, answers = time.monotonic(), 0
        time.sleep(0.5)
        while time.monotonic() - started < hang_s - 1:
            assert served.get("/healthz").status in (200, 503)
            answers += 1
            time.sleep(0.02)
        assert answers > 20
        assert b"done" in read_all(conn)


FORWARDED = """
import json

def wsgi(environ, start_response):
    start_response("200 OK", [])
    keys = ["REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "SCRIPT_NAME", "PATH_INFO"]
    return [json.dumps([environ[key] for key in keys]).encode()]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    told = [*scope["client"], scope["scheme"], scope["root_path"], scope["path"]]
    told[1] = str(told[1])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(told).encode()})
"""


@pytest.mark.parametrize("app", ["wsgi", "asgi"])
def test_who_a_proxy_says_the_client_is(app: str) -> None:
    def told(served: Served, **headers: str) -> list[str]:
        shown: list[str] = json.loads(served.get("/root/x", **headers).body)
        return shown

    forwarded = {"X_Forwarded_For": "9.9.9.9, 1.2.3.4, 10.0.0.7", "X_Forwarded_Proto": "https"}
    with Served(
        FORWARDED, "--root-path", "/root", "--forwarded-allow-ips", "127.0.0.1,10.0.0.0/8", app=f"app:{app}"
    ) as it:
        path = "/x" if app == "wsgi" else "/root/x"
        assert told(it, **forwarded) == ["1.2.3.4", "0", "https", "/root", path]
        assert told(it, X_Forwarded_For="[2001:db8::1]:4711")[:3] == ["2001:db8::1", "4711", "http"]
        assert told(it)[0] == "127.0.0.1"
    with Served(FORWARDED, "--forwarded-allow-ips", "10.0.0.0/8", app=f"app:{app}") as served:
        shown = told(served, **forwarded)
        assert (shown[0], shown[2:]) == ("127.0.0.1", ["http", "", "/root/x"])


@pytest.mark.parametrize("source", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_tls(source: str) -> None:
    with Authority() as authority:
        cert = authority.issue()
        trusted = ssl.create_default_context(cafile=authority.ca)
        with Served(source, "--tls-cert", cert, "--tls-key", cert) as served:
            client = http.client.HTTPSConnection("127.0.0.1", served.port, timeout=20, context=trusted)
            client.request("GET", "/")
            assert int(client.getresponse().read()) in served.workers
            client.close()
            assert f"https://127.0.0.1:{served.port}" in served.text()


def test_the_command_line_says_what_is_wrong() -> None:
    for arguments, says in [
        (["app:app", "--bind", "nonsense"], "'nonsense': expected host:port, unix:/path or fd://3"),
        (["app:app", "--workers", "0"], "expected 1 or more"),
        (["app:app", "--drain", "long"], "'long': expected seconds"),
        (["app:app", "--tls-key", "x"], "expected --tls-cert with them"),
        ([], "app"),
    ]:
        command = [sys.executable, "-m", "iokernel", "serve", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and says in done.stderr, done.stderr
    with Served(WSGI, "--max-head", "1") as served:
        assert served.wait() == 3
        assert "max_head" in served.text() and "256" in served.text()


def test_the_documentation_lists_every_option_and_its_applications_are_served() -> None:
    text = (ROOT / "docs" / "serve.md").read_text()
    table = set(re.findall(r"`(--[a-z-]+)", "\n".join(re.findall(r"^\| `.*?\|", text, re.MULTILINE))))
    command = [sys.executable, "-m", "iokernel", "serve", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    known = set(re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE))
    assert table == known
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block
    for app in ("wsgi", "asgi"):
        with Served(block[1], "--lifespan", "auto", app=f"app:{app}") as served:
            assert served.get("/").body == b"Hello, world!\n"
