"""The admin endpoint: who may ask, what is answered, and what clients that mean no good cost."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import iokernel
import pytest
from support.fakes import Say
from support.net import wait_for
from support.program import Program
from support.servers import RedisServer

# What a well-behaved client may wait for, on a machine that is busy with other things.
SOON_S = 2.0
PATHS = ["/requests", "/state", "/config", "/healthz", "/readyz", "/metrics", "/stack", "/slow"]
SECRET = "S3CR3T"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float = 10) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = connect(self._path, self.timeout or 10)


def connect(path: str, timeout: float = 10) -> socket.socket:
    plug = socket.socket(socket.AF_UNIX)
    try:
        plug.settimeout(timeout)
        plug.connect(path)
    except OSError:
        plug.close()
        raise
    return plug


def ask(path: str, what: str, method: str = "GET") -> http.client.HTTPResponse:
    """One question on a connection of its own; the body is read."""
    connection = UnixConnection(path)
    with contextlib.closing(connection):
        connection.request(method, what)
        answer = connection.getresponse()
        answer.body = answer.read()  # type: ignore[attr-defined]
        return answer


def ask_json(path: str, what: str) -> Any:
    answer = ask(path, what)
    assert answer.status == 200
    assert answer.getheader("Content-Type") == "application/json"
    return json.loads(answer.body)  # type: ignore[attr-defined]


def everything(plug: socket.socket) -> bytes:
    """What comes until the other side closes."""
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while more := plug.recv(1 << 16):
            heard += more
    return heard


def talk(path: str, sent: bytes) -> bytes:
    with connect(path) as plug:
        plug.sendall(sent)
        return everything(plug)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "admin.sock")


@pytest.fixture
def kernel(path: str) -> Iterator[iokernel.Kernel]:
    with iokernel.Kernel(name="admin", admin=f"unix:{path}") as made:
        yield made


def test_every_path_has_an_answer(kernel: iokernel.Kernel, path: str) -> None:
    connection = UnixConnection(path)
    with contextlib.closing(connection):
        for what in PATHS:
            connection.request("GET", what)
            answer = connection.getresponse()
            body = answer.read()
            assert answer.status in (200, 503), (what, body)
            assert answer.getheader("Cache-Control") == "no-store"
            assert answer.getheader("X-Content-Type-Options") == "nosniff"
            assert int(answer.getheader("Content-Length") or -1) == len(body)
            if answer.getheader("Content-Type") == "application/json":
                json.loads(body)
            connection.request("HEAD", what)
            answer = connection.getresponse()
            assert answer.status in (200, 503)
            assert answer.read() == b""
        plug = connection.sock
    assert plug, "one connection was enough"


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_curl_asks(kernel: iokernel.Kernel, path: str) -> None:
    command = ["curl", "-sS", "--fail", "--unix-socket", path, "http://localhost/state"]
    done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    assert json.loads(done.stdout)["kernel"]["name"] == "admin"


def test_arguments_are_shown_where_they_are_kept_and_asked_for_and_no_secret(
    kernel: iokernel.Kernel, path: str, make_fake: Callable[..., Any]
) -> None:
    late = Say(b"+late\r\n", wait_ms=60_000)
    silent = make_fake({"HELLO": b"-ERR unknown command\r\n", "GET": late, "AUTH": late, "CONFIG": late})
    shows = kernel.open(f"redis://{silent.address}", show_arguments=True)
    hides = kernel.open(f"redis://{silent.address}")
    waits = [shows("GET", "which-key"), shows("CONFIG", "SET", "requirepass", "hush-1"), hides("GET", "hidden-key")]
    waits.append(shows(["GET", "of-batch"], ["CONFIG", "SET", "requirepass", "hush-2"]))
    wait_for("the requests", lambda: ask_json(path, "/requests")["count"] == len(waits))
    assert (shows.state["requests"], hides.state["requests"]) == (3, 1), "each endpoint tells its own"
    asked = ask_json(path, "/requests?arguments=true")["requests"]
    assert [one.get("arguments") for one in asked] == [["which-key"], None, None, None]
    assert all("arguments" not in one for one in ask_json(path, "/requests")["requests"])
    assert "hush" not in json.dumps(asked) and "hidden-key" not in json.dumps(asked)


def test_when_a_peer_was_heard_is_told_once_it_was(
    kernel: iokernel.Kernel, redis_server: RedisServer, make_fake: Callable[..., Any]
) -> None:
    mute = kernel.open(f"redis://{make_fake({'HELLO': Say(b'', wait_ms=60_000)}).address}")
    service = kernel.open(redis_server.url)
    service.call("PING")
    assert service.state["heard_ms"] < 5000
    wait_for("the conn", lambda: mute.state["state"] == "connecting")
    assert "heard_ms" not in mute.state


def test_the_state_is_what_the_program_hears(
    kernel: iokernel.Kernel, path: str, make_redis_server: Callable[..., RedisServer]
) -> None:
    server = make_redis_server()
    service = kernel.open(server.url, require=True)
    service.wait_ready(10)
    listener = kernel.listen("redis://127.0.0.1:0")
    service.call("PING")
    told = ask_json(path, "/state")
    assert told["kernel"]["pid"] == os.getpid()
    assert told["kernel"]["admin"] == f"unix:{path}"
    assert (told["kernel"]["ready"], told["kernel"]["missing"]) == (True, [])
    assert told["kernel"]["uptime_ms"] >= 0
    assert [each["kind"] for each in told["endpoints"]] == ["service", "listener"]
    assert told["channels"][0].keys() == {"channel", "live", "backlog"}
    heard = service.state
    for key in ("endpoint", "url", "state", "required", "conns", "version", "description", "last_error"):
        assert told["endpoints"][0][key] == heard[key], key
    [peer] = told["endpoints"][0]["peers"]
    assert (peer["name"], peer["state"]) == (f"127.0.0.1:{server.port}", "up")
    assert peer["requests"] >= 1
    config = ask_json(path, "/config")
    assert config["kernel"] == {"name": "admin", "admin": f"unix:{path}"}
    assert [each["url"] for each in config["endpoints"]] == [each["url"] for each in told["endpoints"]]
    server.stop()
    wait_for("the endpoint to be missed", lambda: ask_json(path, "/state")["kernel"]["missing"] == [heard["url"]])
    assert not ask_json(path, "/state")["kernel"]["ready"]
    listener.close()


def test_no_answer_has_a_secret(path: str) -> None:
    with iokernel.Kernel(admin=f"unix:{path}") as kernel:
        for url in (
            f"redis://user:{SECRET}@127.0.0.1:1/0",
            f"redis://:{SECRET}@127.0.0.1:1,127.0.0.1:2/0",
            f"redis://127.0.0.1:1?password={SECRET}&username=u",
            f"redis+sentinel://127.0.0.1:1/name?sentinel_password={SECRET}",
        ):
            with contextlib.suppress(iokernel.ConfigError):
                service = kernel.open(url)
                service.send("AUTH", SECRET)
        assert len(ask_json(path, "/config")["endpoints"]) >= 3
        for what in PATHS:
            answer = ask(path, what)
            assert SECRET.encode() not in answer.body, what  # type: ignore[attr-defined]
        for what in ("/state", "/config"):
            assert b"***" in ask(path, what).body  # type: ignore[attr-defined]


def test_what_cannot_be_asked_is_told_so(kernel: iokernel.Kernel, path: str) -> None:
    answer = ask(path, "/nothing")
    assert answer.status == 404
    assert b"/state" in answer.body  # type: ignore[attr-defined]
    answer = ask(path, "/state", method="POST")
    assert (answer.status, answer.getheader("Allow")) == (405, "GET, HEAD")
    answer = ask(path, "/state?colour=red")
    assert answer.status == 400
    assert answer.body == b'colour: "red": expected no options\n'  # type: ignore[attr-defined]
    assert ask(path, "/state?%ff=1").status == 400
    head = b"GET /state HTTP/1.1\r\nHost: h\r\n"
    for sent, wanted in (
        (head + b"Content-Length: 5\r\n\r\nhello", b"413"),
        (head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"413"),
        (b"GET /state HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00", b"400"),
        (b"GET /" + b"a" * 100_000, b"414"),
        (head + b"".join(b"x-%d: y\r\n" % at for at in range(10_000)) + b"\r\n", b"431"),
        (head + b"Connection: close\r\n\r\n", b"200"),
        (b"GET /state HTTP/1.0\r\n\r\n", b"200"),
    ):
        assert talk(path, sent).startswith(b"HTTP/1.1 " + wanted), sent[:80]


def test_questions_may_be_sent_ahead(kernel: iokernel.Kernel, path: str) -> None:
    paths = [PATHS[at % 3] if at % 4 else f"/nothing/{at}" for at in range(200)]
    sent = b"".join(b"GET %s HTTP/1.1\r\nHost: h\r\n\r\n" % each.encode() for each in paths)
    heard = talk(path, sent + b"GET /last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    assert heard.count(b"HTTP/1.1 ") == 201
    told = [line for line in heard.splitlines() if line.startswith((b"/nothing/", b"/last"))]
    assert [int(line.split(b":")[0].rpartition(b"/")[2]) for line in told[:-1]] == list(range(0, 200, 4))
    assert told[-1].startswith(b"/last:")


def test_over_tcp_the_host_must_be_ours() -> None:
    with iokernel.Kernel(admin="127.0.0.1:0") as kernel:
        address = listening_port()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", address, timeout=10)) as connection:
            for host, wanted in (("localhost", 200), (f"127.0.0.1:{address}", 200), ("evil.example", 421)):
                connection.request("GET", "/state", headers={"Host": host})
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == wanted, body
            connection.request("GET", "/state")
            told = json.loads(connection.getresponse().read())
            assert told["kernel"]["admin"] == f"127.0.0.1:{address}"
        with pytest.raises(iokernel.Error, match=r'admin: "127.0.0.1:\d+": Address already in use'):
            iokernel.Kernel(admin=f"127.0.0.1:{address}")
        assert not kernel.closed


def listening_port() -> int:
    """Of the one TCP socket of this process that listens."""
    own = {os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if fd_exists(fd)}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    [port] = [int(row[1].split(":")[1], 16) for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]
    return port


def fd_exists(fd: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{fd}")


def test_a_socket_is_its_owners_alone_and_goes_with_the_kernel(path: str) -> None:
    before = os.umask(0)
    try:
        kernel = iokernel.Kernel(admin=f"unix:{path}")
    finally:
        os.umask(before)
    found = os.stat(path)
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    with connect(path) as idle:
        assert ask(path, "/healthz").status in (200, 503)
        with pytest.raises(iokernel.Error, match=r'admin: "unix:.*": Address already in use'):
            iokernel.Kernel(admin=f"unix:{path}")
        kernel.close()
        assert everything(idle) == b""
    assert not os.path.exists(path)


def test_addresses_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(iokernel.Error, match=r'admin: "unix:.*/none/a.sock": No such file or directory'):
        iokernel.Kernel(admin=f"unix:{tmp_path}/none/a.sock")
    for wrong in ("example.org:80", "unix:", "nowhere", "127.0.0.1"):
        with pytest.raises(iokernel.ConfigError, match=rf'admin: "{wrong}": expected unix:/path'):
            iokernel.Kernel(admin=wrong)
    with pytest.raises(iokernel.Error, match="admin:"):
        iokernel.Kernel(admin=f"unix:/tmp/{'x' * 200}")


def test_an_abstract_socket_leaves_no_file(tmp_path: Path) -> None:
    with iokernel.Kernel(admin=f"unix:@iokernel-test-{os.getpid()}"):
        assert ask(f"\0iokernel-test-{os.getpid()}", "/readyz").status == 200


def test_auto_is_a_folder_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / f"iokernel-{os.geteuid()}"
    with iokernel.Kernel(admin="auto"), iokernel.Kernel(admin="auto"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert sorted(each.name for each in folder.iterdir()) == [f"{os.getpid()}-2.sock", f"{os.getpid()}.sock"]
        told = ask_json(str(folder / f"{os.getpid()}.sock"), "/state")
        assert told["kernel"]["admin"] == f"unix:{folder}/{os.getpid()}.sock"
    assert list(folder.iterdir()) == []


DEFAULT = """
import iokernel, json, os
listener = iokernel.listen("redis://127.0.0.1:0")
print(json.dumps({"there": os.path.exists(sys.argv[1].replace("%p", str(os.getpid())))}), flush=True)
"""


def test_the_environment_gives_the_default_kernel_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{tmp_path}/%p.sock"
    monkeypatch.setenv("IOKERNEL_ADMIN", f"unix:{path}")
    with Program(DEFAULT, path) as program:
        assert program.hear() == {"there": True}
    assert list(tmp_path.iterdir()) == []


FORKING = """
import iokernel, json, os, time
path = sys.argv[1]
kernel = iokernel.Kernel(admin=f"unix:{path}")
kernel.listen("redis://127.0.0.1:0")
children = []
for _ in range(2):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        kernel.listen("redis://127.0.0.1:0")
        os.write(writer, b"." if os.path.exists(path) else b"!")
        kernel.close()
        os._exit(0 if os.path.exists(path) else 1)
    assert os.read(reader, 1) == b"."
    children.append(os.waitpid(pid, 0)[1])
print(json.dumps({"pid": os.getpid(), "children": children}), flush=True)
sys.stdin.readline()
"""


def test_the_parent_answers_for_forked_children(path: str) -> None:
    with Program(FORKING, path) as program:
        told = program.hear()
        assert told["children"] == [0, 0]
        assert ask_json(path, "/state")["kernel"]["pid"] == told["pid"]


ORPHAN = """
import iokernel, json, os, time
path = sys.argv[1]
kernel = iokernel.Kernel(admin=f"unix:{path}")
kernel.listen("redis://127.0.0.1:0")
os.kill(os.getpid(), 9)
"""


AT_ONCE = """
import iokernel, json, os
path, ready, go, over = sys.argv[1], os.pipe(), os.pipe(), os.pipe()
for _ in range(12):
    if os.fork() == 0:
        os.write(ready[1], b".")
        os.read(go[0], 1)
        try:
            kernel = iokernel.Kernel(admin=f"unix:{path}")
        except iokernel.Error as error:
            os._exit(2 if "Address already in use" in str(error) else 3)
        os.read(over[0], 1)
        kernel.close()
        os._exit(0)
for _ in range(12):
    os.read(ready[0], 1)
os.write(go[1], b"." * 12)
told = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(11)]
print(json.dumps({"told": told}), flush=True)
sys.stdin.readline()
os.write(over[1], b".")
print(json.dumps({"last": os.waitstatus_to_exitcode(os.wait()[1])}), flush=True)
"""


def test_of_many_processes_at_once_one_has_the_address(path: str) -> None:
    with Program(ORPHAN, path) as program, pytest.raises(RuntimeError, match="-9"):
        program.hear()
    with Program(AT_ONCE, path) as program:
        assert program.hear() == {"told": [2] * 11}
        assert ask_json(path, "/state")["kernel"]["admin"] == f"unix:{path}"
        program.go_on()
        assert program.hear() == {"last": 0}
    assert not os.path.exists(path)


def test_the_socket_of_a_dead_process_is_replaced(path: str) -> None:
    with Program(ORPHAN, path) as program, pytest.raises(RuntimeError, match="-9"):
        program.hear()
    assert os.path.exists(path)
    with iokernel.Kernel(admin=f"unix:{path}"):
        assert ask_json(path, "/state")["kernel"]["pid"] == os.getpid()


def test_hostile_clients_keep_nobody_waiting(
    kernel: iokernel.Kernel, path: str, make_redis_server: Callable[..., RedisServer]
) -> None:
    service = kernel.open(make_redis_server().url)
    service.wait_ready(10)
    with contextlib.ExitStack() as stack:
        # Each asks for more than its socket holds, and reads none of it.
        for _ in range(5):
            deaf = stack.enter_context(connect(path, 0.2))
            with contextlib.suppress(TimeoutError):
                for _ in range(300):
                    deaf.sendall(b"GET /state HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
        slow = stack.enter_context(connect(path))
        for _ in range(200):
            stack.enter_context(connect(path))
        halves = [stack.enter_context(connect(path)) for _ in range(70)]
        for each in halves:
            with contextlib.suppress(BrokenPipeError):
                each.sendall(b"GET /state HTTP/1.1\r\nx: ")
        for at in range(20):
            started = time.monotonic()
            assert ask_json(path, "/state")["kernel"]["name"] == "admin"
            assert service.call("ECHO", str(at)) == str(at).encode()
            assert time.monotonic() - started < SOON_S
        # The ones that are idle make room: no more than so many are kept.
        assert everything(slow) == b""
        open_fds = [fd for fd in os.listdir("/proc/self/fd") if fd_exists(fd)]
        ours = 2 * 64 + 5 + 200 + 70
        assert len(open_fds) < ours + 100


def test_a_head_may_come_byte_by_byte_but_not_for_ever(kernel: iokernel.Kernel, path: str) -> None:
    with connect(path, 20) as quick, connect(path, 20) as slow:
        started = time.monotonic()
        slow.sendall(b"GET /state HTT")
        for byte in b"GET /readyz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n":
            quick.sendall(bytes([byte]))
            time.sleep(0.002)
        assert everything(quick).startswith(b"HTTP/1.1 200")
        assert everything(slow).startswith(b"HTTP/1.1 408")
        assert 4 < time.monotonic() - started < 15


STALLED = """
import ctypes, iokernel, json, time
kernel = iokernel.Kernel(name="stalled", admin=f"unix:{sys.argv[1]}")
kernel.listen("redis://127.0.0.1:0")
print(json.dumps({"ready": True}), flush=True)
ctypes.PyDLL(None).sleep(2)
print(json.dumps({"slept": True}), flush=True)
sys.stdin.readline()
"""


def test_it_answers_while_a_c_call_holds_the_gil(path: str) -> None:
    with Program(STALLED, path) as program:
        assert program.hear() == {"ready": True}
        time.sleep(0.2)
        started, waits = time.monotonic(), []
        while time.monotonic() - started < 1.2:
            asked = time.monotonic()
            for what in ("/state", "/requests", "/config", "/healthz", "/readyz", "/metrics", "/slow"):
                assert ask(path, what).status in (200, 503)
            waits.append((time.monotonic() - asked) / 7)
        ended = time.monotonic()
        assert program.hear() == {"slept": True}
        assert time.monotonic() - ended > 0.1, "the call was over before the last answer"
        assert sorted(waits)[len(waits) // 2] < 0.05
