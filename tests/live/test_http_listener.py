"""What a listener of HTTP does by itself: sockets it is given or shares, files, limits, the access log, leaving."""

from __future__ import annotations

import calendar
import hashlib
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import iokernel
import pytest
from support import listening
from support.curl import curl
from support.fixtures import or_skip
from support.net import wait_for
from support.program import Program
from support.raw_http import Gone, Raw, request

Handler = Callable[[iokernel.Request], Any]


def serving(
    handler: Handler, url: str = "http://127.0.0.1:0", **options: Any
) -> AbstractContextManager[iokernel.Listener]:
    return listening.serving(handler, url, **options)


def hello(asked: iokernel.Request) -> Any:
    return [200, [], b"hello\n"]


def address(listener: iokernel.Listener) -> str:
    return listener.url.removeprefix("http://")


# Sockets

WORKER = """
import iokernel, json, os, threading
listener = iokernel.listen(f"http://127.0.0.1:{sys.argv[1]}?reuse_port=true")
print(json.dumps({"port": int(listener.url.rpartition(":")[2])}), flush=True)
threading.Thread(target=listener.serve, args=(lambda asked: [200, [], b"%d" % os.getpid()],), daemon=True).start()
sys.stdin.read()
"""


def test_processes_share_a_port(free_port: int) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(Program(WORKER, str(free_port))) for _ in range(3)]
        assert {worker.hear()["port"] for worker in workers} == {free_port}
        address = f"127.0.0.1:{free_port}"

        def ask() -> int:
            with Raw(address) as conn:
                return int(conn.send(request("GET", "/")).reply().body)

        counts = Counter(ask() for _ in range(200))
        assert set(counts) == {worker.pid for worker in workers}
        assert max(counts.values()) < 140, "the system shares them out"
        with pytest.raises(iokernel.Error, match=r"[Ii]n use"):
            iokernel.listen(f"http://{address}")


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_a_socket_that_it_is_given(family: socket.AddressFamily, tmp_path: Path) -> None:
    """It listens on a duplicate: the program's own socket stays what it is."""
    with socket.socket(family) as given:
        given.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "web"))
        with pytest.raises(iokernel.Error, match=f"fd={given.fileno()}: not a socket that listens"):
            iokernel.listen(f"http://localhost?fd={given.fileno()}")
        given.listen(16)
        name = given.getsockname()
        there = f"127.0.0.1:{name[1]}" if family == socket.AF_INET else f"unix:{name}"
        for _ in range(2):
            with serving(hello, f"http://localhost?fd={given.fileno()}"), Raw(there) as conn:
                assert conn.send(request("GET", "/")).reply().body == b"hello\n"
        assert given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        # Nobody accepts any more, but the system still does.
        Raw(there).close()


# Files


@pytest.fixture
def made_file(tmp_path: Path) -> Iterator[tuple[Path, bytes]]:
    content = hashlib.shake_128(b"file").digest(20 << 20)
    path = tmp_path / "file"
    path.write_bytes(content)
    yield path, content


def test_files_are_sent_as_they_are(made_file: tuple[Path, bytes]) -> None:
    path, content = made_file
    parts = [(0, 0), (0, 1), (0, len(content)), (12_345, 6_789_012), (len(content) - 1, 1)]

    def answer(asked: iokernel.Request) -> Any:
        offset, length = (int(number) for number in asked.args[0][1][1:].split("-"))
        return [200, [], {"fd": file.fileno(), "offset": offset, "length": length}]

    with path.open("rb") as file, serving(answer) as listener:

        def fetch(part: tuple[int, int]) -> None:
            offset, length = part
            head, *twice = (f"{listener.url}/{offset}-{length}" for _ in range(3))
            assert or_skip(curl)(*twice).output == content[offset : offset + length] * 2
            told = or_skip(curl)("--head", head).output.decode()
            assert f"Content-Length: {length}\r\n" in told

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(fetch, parts * 3))


def test_files_among_other_pieces(made_file: tuple[Path, bytes]) -> None:
    path, content = made_file

    def answer(asked: iokernel.Request) -> None:
        asked.begin([200, [], True])
        asked.send(b"before")
        asked.send({"fd": file.fileno(), "offset": 5, "length": 3_000_000})
        asked.send(b"between")
        asked.send({"fd": file.fileno(), "length": 7})
        asked.finish()

    def serve() -> None:
        for asked in listener:
            answer(asked)

    with path.open("rb") as file, iokernel.listen("http://127.0.0.1:0") as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        expected = b"before" + content[5:3_000_005] + b"between" + content[:7]
        assert or_skip(curl)(listener.url).output == expected
        old = or_skip(curl)("--http1.0", listener.url).output
        assert old == expected, "without chunks"
        listener.close()
        thread.join(5)


def test_a_file_that_shrinks_ends_its_response_and_nothing_else(made_file: tuple[Path, bytes]) -> None:
    """A length was promised: what is missing shows by the end of the connection."""
    path, content = made_file

    def answer(asked: iokernel.Request) -> Any:
        if asked.args[0][1] == "/file":
            return [200, [], {"fd": file.fileno(), "length": len(content)}]
        return [200, [], b"fine"]

    with path.open("rb") as file, serving(answer) as listener, Raw(address(listener)) as other:
        with Raw(address(listener)) as conn:
            # What the sockets hold is far less than the file: it is under way when the file shrinks.
            conn.send(request("GET", "/file") + request("GET", "/behind"))
            assert conn.conn.recv(1000).startswith(b"HTTP/1.1 200")
            os.truncate(path, 10)
            rest = conn.rest()
            assert len(rest) < len(content) and b"fine" not in rest
        assert other.send(request("GET", "/other")).reply().body == b"fine"


# Limits


@pytest.mark.parametrize(
    ("what", "sent", "status"),
    [
        ("head", b"GET / HTTP/1.1\r\nHost: ", 408),
        ("body", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel", 408),
        ("idle", b"", None),
    ],
)
def test_clients_that_take_too_long(what: str, sent: bytes, status: int | None) -> None:
    options = {f"{each}_timeout": "100ms" if each == what else "1h" for each in ("head", "body", "idle")}
    with serving(hello, **options) as listener, Raw(address(listener)) as conn:
        assert conn.send(request("GET", "/first")).reply().status == 200
        conn.send(sent)
        if status:
            assert conn.reply().status == status
        assert conn.rest() == b""


def test_more_clients_than_may_be(free_port: int) -> None:
    with serving(hello, max_conns=3) as listener, ExitStack() as stack:
        conns = [stack.enter_context(Raw(address(listener))) for _ in range(3)]
        assert [conn.send(request("GET", "/")).reply().status for conn in conns] == [200] * 3
        with Raw(address(listener)) as fourth, pytest.raises((Gone, ConnectionError)):
            fourth.send(request("GET", "/")).reply()
        conns[0].close()

        def served() -> bool:
            with Raw(address(listener)) as fourth:
                try:
                    return fourth.send(request("GET", "/")).reply().status == 200
                except (Gone, ConnectionError):
                    return False

        wait_for("a free place", served)
        assert [conn.send(request("GET", "/")).reply().status for conn in conns[1:]] == [200] * 2


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("above", "status"), [("2MiB", 413), ("64KiB", 200)])
def test_an_answer_reaches_a_client_that_still_sends(chunked: bool, above: str, status: int) -> None:
    """A refusal, or a program's answer to what it does not read: that our end is over is no reason for the client's
    system to throw it away (RFC 9112, 9.6)."""
    head = ["Transfer-Encoding: chunked"] if chunked else ["Content-Length: 1048576"]
    piece = b"10000\r\n" + bytes(0x10000) + b"\r\n" if chunked else bytes(0x10000)
    options = {"max_request": "1MiB" if chunked or status == 200 else "1000000", "stream_above": above}
    with serving(hello, **options) as listener:
        for _ in range(20):
            with Raw(address(listener)) as conn:
                conn.send(request("POST", "/", *head))
                for _ in range(100):
                    conn.send(piece)
                assert conn.reply().status == status
                assert conn.rest() == b""


# The access log


def asked_by_curl(url: str) -> None:
    """A few requests of all kinds."""
    or_skip(curl)(f"{url}/first?a=b", f"{url}/second", "-A", "agent/1", "-e", "http://from.test/")
    or_skip(curl)(f"{url}/posted", "-d", "abc", "-A", "agent/2")
    or_skip(curl)("--head", f"{url}/head", "-A", 'quo"ted\\')
    or_skip(curl)(f"{url}/none", "--http1.0", "-H", "User-Agent:")
    or_skip(curl)(f"{url}/bad", "-H", "Host: a/b")


def logged(asked: iokernel.Request) -> Any:
    return [404 if asked.args[0][1] == "/second" else 200, [], asked.args[0][1].encode()]


def test_a_line_for_each_request(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with serving(logged, access_log=path) as listener:
        asked_by_curl(listener.url)
    pattern = r'(\S+) - - \[(\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d) \+0000\] "(.*)" (\d+) (\d+) "(.*)" "(.*)"'
    lines = [re.fullmatch(pattern, line) for line in path.read_text().splitlines()]
    assert all(lines), path.read_text()
    rows = [line.groups() for line in lines if line]
    assert {row[0] for row in rows} == {"127.0.0.1"}
    stamps = [calendar.timegm(time.strptime(row[1], "%d/%b/%Y:%H:%M:%S")) for row in rows]
    assert stamps == sorted(stamps) and abs(stamps[0] - time.time()) < 60
    assert [row[2:] for row in rows] == [
        ("GET /first?a=b HTTP/1.1", "200", "10", "http://from.test/", "agent/1"),
        ("GET /second HTTP/1.1", "404", "7", "http://from.test/", "agent/1"),
        ("POST /posted HTTP/1.1", "200", "7", "-", "agent/2"),
        ("HEAD /head HTTP/1.1", "200", "0", "-", r"quo\x22ted\x5C"),
        ("GET /none HTTP/1.0", "200", "5", "-", "-"),
        ("GET /bad HTTP/1.1", "400", rows[5][4], "-", rows[5][6]),
    ]


def test_the_same_as_json(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with serving(logged, access_log=path, access_format="json") as listener:
        asked_by_curl(listener.url)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(row["method"], row["target"], row["status"], row["bytes"]) for row in rows[:4]] == [
        ("GET", "/first?a=b", 200, 10),
        ("GET", "/second", 404, 7),
        ("POST", "/posted", 200, 7),
        ("HEAD", "/head", 200, 0),
    ]
    assert rows[3]["user_agent"] == 'quo"ted\\' and rows[4]["version"] == "1.0" and rows[5]["status"] == 400
    assert all(0 <= row["duration_ms"] < 60_000 and row["client"] == "127.0.0.1" for row in rows)


def test_a_log_that_is_put_aside(tmp_path: Path) -> None:
    """As logrotate does: what is there is renamed, and another file begins."""
    path, old = tmp_path / "log", tmp_path / "log.1"
    with serving(hello, access_log=path) as listener, Raw(address(listener)) as conn:
        asked = 0

        def ask() -> bool:
            nonlocal asked
            asked += 1
            assert conn.send(request("GET", f"/{asked}")).reply().status == 200
            return path.exists()

        wait_for("the log", ask)
        path.rename(old)
        wait_for("another log", ask)
        wait_for("its line", lambda: path.read_text())
    lines = old.read_text().splitlines() + path.read_text().splitlines()
    assert [line.split('"')[1] for line in lines] == [f"GET /{number} HTTP/1.1" for number in range(1, asked + 1)]


def test_nobody_waits_for_who_reads_the_log(tmp_path: Path) -> None:
    """Lines that a pipe does not take are lost, and counted in it."""
    path, asked = tmp_path / "pipe", 20_000
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    read = b""
    with serving(hello, access_log=path) as listener, Raw(address(listener)) as conn:

        def ask(count: int) -> None:
            conn.send(request("GET", "/" + "x" * 200) * count)
            assert [conn.reply().status for _ in range(count)] == [200] * count

        for _ in range(asked // 500):
            ask(500)
        while chunk := read_some(reader):
            read += chunk
        for _ in range(100):
            ask(1)
            read += read_some(reader)
    read += read_some(reader)
    os.close(reader)
    lines = read.decode().splitlines()
    lost = sum(int(found[1]) for line in lines if (found := re.fullmatch(r"# (\d+) lines were lost", line)))
    written = sum('"GET /xxx' in line for line in lines)
    assert lost > 0 and written > 100
    assert written + lost == asked + 100


def read_some(reader: int) -> bytes:
    try:
        return os.read(reader, 1 << 20)
    except BlockingIOError:
        return b""


# Leaving


def test_leaving_says_so_first_and_finishes_what_has_begun() -> None:
    """Requests that a client has sent already are answered in their order, however late the first is."""
    release = threading.Event()

    listener = iokernel.listen("http://127.0.0.1:0?health=/healthz")
    there = address(listener)

    def late(asked: iokernel.Request) -> None:
        release.wait(20)
        asked.reply([200, [], b"slow"])

    def serve() -> None:
        for asked in listener:
            target = asked.args[0][1]
            if target == "/slow":
                threading.Thread(target=late, args=(asked,)).start()
            else:
                asked.reply([200, [], target.encode()])

    thread = threading.Thread(target=serve)
    thread.start()
    with Raw(there) as conn, Raw(there) as health, Raw(there) as idle:
        assert idle.send(request("GET", "/idle")).reply().status == 200
        assert health.send(request("GET", "/healthz")).reply().status == 200
        conn.send(request("GET", "/slow") + request("GET", "/second") + request("GET", "/third"))
        leaving = threading.Thread(target=listener.close, args=(20, 0.5))
        leaving.start()

        def says_no() -> bool:
            with Raw(there) as probe:
                return probe.send(request("GET", "/healthz")).reply().status == 503

        wait_for("readiness to be off", says_no)
        assert idle.send(request("GET", "/still")).reply().body == b"/still", "who is let in is served"
        wait_for("the door to be closed", lambda: refused(there))
        release.set()
        assert [conn.reply().body for _ in range(3)] == [b"slow", b"/second", b"/third"]
        assert conn.rest() == idle.rest() == b""
        leaving.join(20)
    thread.join(5)
    assert not thread.is_alive() and not leaving.is_alive()


def refused(there: str) -> bool:
    try:
        Raw(there).close()
    except ConnectionRefusedError:
        return True
    return False
