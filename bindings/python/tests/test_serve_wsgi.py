"""WSGI: PEP 3333, from the environment of a request to the last byte of its response."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.net import wait_for
from support.serving import Served, read_all, rss_bytes

PLAIN = 'start_response("200 OK", [("Content-Type", "text/plain")])'

ENVIRON = """
import json

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    told = {key: value for key, value in environ.items() if isinstance(value, (str, bool, list, tuple))}
    told["body"] = environ["wsgi.input"].read().decode("latin-1")
    told["is_dict"] = type(environ) is dict
    return [json.dumps(told).encode()]
"""


@pytest.fixture(scope="module")
def environ() -> Iterator[Served]:
    with Served(ENVIRON) as served:
        yield served


def test_an_environment_has_what_pep_3333_asks_for(environ: Served) -> None:
    told = json.loads(
        environ.request("POST", "/caf%C3%A9/x%20y?a=1&b=%20", b"Hello", Content_Type="text/x", X_One="1").body
    )
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/café/x y".encode().decode("latin-1"),
        "QUERY_STRING": "a=1&b=%20",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "5",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(environ.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "RAW_URI": "/caf%C3%A9/x%20y?a=1&b=%20",
        "HTTP_X_ONE": "1",
        "HTTP_HOST": f"127.0.0.1:{environ.port}",
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "body": "Hello",
        "is_dict": True,
    }
    assert {key: told.get(key) for key in expected} == expected
    assert "HTTP_CONTENT_TYPE" not in told and "HTTP_CONTENT_LENGTH" not in told


def test_nothing_of_a_request_is_left_for_the_next_one(environ: Served) -> None:
    client = environ.client()
    for number in range(50):
        client.request("GET", f"/{number}", headers={f"X-{number % 7}": str(number), "X-Same": str(number % 3)})
        told = json.loads(client.getresponse().read())
        mine = {key: value for key, value in told.items() if key.startswith("HTTP_X_")}
        assert mine == {f"HTTP_X_{number % 7}": str(number), "HTTP_X_SAME": str(number % 3)}
        assert (told["PATH_INFO"], told["body"]) == (f"/{number}", "")
    client.close()


def test_headers_of_one_name_are_joined_and_bytes_are_latin_1(environ: Served) -> None:
    headers = b"X-A: 1\r\nX-A: 2\r\nCookie: a=1\r\nCookie: b=2\r\nX-U: caf\xc3\xa9\r\n"
    raw = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n" + headers + b"\r\n"
    told = json.loads(environ.raw(raw).partition(b"\r\n\r\n")[2])
    assert (told["HTTP_X_A"], told["HTTP_COOKIE"]) == ("1,2", "a=1; b=2")
    assert told["HTTP_X_U"].encode("latin-1") == b"caf\xc3\xa9"


def test_a_validated_application_has_nothing_to_complain_of() -> None:
    source = """
    from wsgiref.validate import validator

    def inner(environ, start_response):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) or 1 << 20)
        start_response("200 OK", [("Content-Type", "application/octet-stream"), ("X-Bytes", str(len(body)))])
        if environ["PATH_INFO"] == "/pieces":
            return iter([body[:7], body[7:]])
        return [body]

    app = validator(inner)
    """
    with Served(source, "--threads", "2") as served:
        client = served.client()
        bodies = [b"", b"x", b"y" * 1000, b"z" * 100_000, b"w" * 300_000]
        for number in range(100):
            body = bodies[number % 5]
            path = "/pieces" if number % 2 else "/"
            client.request("POST" if body else "GET", path, body or None)
            response = client.getresponse()
            assert (response.status, response.read()) == (200, body), number
        client.request("HEAD", "/")
        assert client.getresponse().read() == b""
        client.close()
        answer = served.request("POST", "/", iter([b"a" * 70_000, b"b" * 70_000]), Transfer_Encoding="chunked")
        assert answer.body == b"a" * 70_000 + b"b" * 70_000
        assert "Assertion" not in served.text(), served.text()


RESPONSES = """
import sys

closed = []

class Pieces:
    def __init__(self, pieces):
        self.pieces = iter(pieces)
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.pieces)
    def close(self):
        closed.append(1)

def later(environ, start_response):
    start_response("200 OK", [])
    yield b"later"

def fails(environ, start_response):
    raise ValueError("on purpose")

def fails_in_the_middle(environ, start_response):
    start_response("200 OK", [])
    yield b"first"
    raise ValueError("on purpose")

def fails_and_starts_anew(environ, start_response):
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("on purpose")
    except ValueError:
        start_response("500 Oh No", [("X-Second", "2")], sys.exc_info())
    return [b"sorry"]

def starts_twice(environ, start_response):
    start_response("200 OK", [])
    start_response("200 OK", [])
    return [b""]

def too_late(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "100")])
    write(b"first")
    try:
        raise ValueError("too late")
    except ValueError:
        start_response("500 Oh No", [], sys.exc_info())
    return [b""]

def writes(environ, start_response):
    write = start_response("201 Made Up", [("X-A", "b")])
    write(b"one ")
    write(b"two ")
    return [b"three"]

def never_starts(environ, start_response):
    return [b"x"]

def text(environ, start_response):
    start_response("200 OK", [])
    return ["text"]

def nothing(environ, start_response):
    start_response("200 OK", [])
    return []

def empty_pieces(environ, start_response):
    start_response("200 OK", [("Content-Length", "4")])
    return Pieces([b"", b"ab", b"", b"cd"])

def exact(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return Pieces([b"ab"])

def latin(environ, start_response):
    start_response("200 OK", [("X-Name", "caf\\xe9")])
    return (b"x",)

def injects(environ, start_response):
    start_response("200 OK", [("X-Name", "a\\r\\nX-Other: b")])
    return [b"x"]

def big(environ, start_response):
    start_response("200 OK", [])
    return [b"x" * 3_000_000]

def how_many(environ, start_response):
    start_response("200 OK", [])
    return [str(len(closed)).encode()]

def no_content(environ, start_response):
    start_response("204 No Content", [])
    return [b"never seen"]

def app(environ, start_response):
    return globals()[environ["PATH_INFO"][1:]](environ, start_response)
"""


@pytest.fixture(scope="module")
def responses() -> Iterator[Served]:
    with Served(RESPONSES) as served:
        yield served


def test_start_response_as_it_may_be_called(responses: Served) -> None:
    assert responses.get("/later").body == b"later"
    again = responses.get("/fails_and_starts_anew")
    assert (again.status, again.reason, again.headers["X-First"], again.headers["X-Second"]) == (
        500,
        "Oh No",
        None,
        "2",
    )
    written = responses.get("/writes")
    assert (written.status, written.reason, written.headers["X-A"]) == (201, "Made Up", "b")
    assert written.body == b"one two three"
    for wrong in ("starts_twice", "never_starts", "text", "fails"):
        answer = responses.get(f"/{wrong}")
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n"), wrong
    assert responses.text().count("ValueError: on purpose") == 1
    assert "start_response was called already" in responses.text()


def test_bodies_as_they_may_be_returned(responses: Served) -> None:
    assert (responses.get("/nothing").body, responses.get("/nothing").headers["Content-Length"]) == (b"", "0")
    assert responses.get("/empty_pieces").body == b"abcd"
    assert responses.get("/exact").headers["Content-Length"] == "2"
    assert responses.get("/latin").headers["X-Name"] == "café"
    big = responses.get("/big")
    assert (big.body, big.headers["Content-Length"]) == (b"x" * 3_000_000, "3000000")
    none = responses.get("/no_content")
    assert (none.status, none.body, none.headers["Content-Length"]) == (204, b"", None)
    head = responses.request("HEAD", "/exact")
    assert (head.body, head.headers["Content-Length"]) == (b"", "2")


def test_what_the_application_returns_is_closed(responses: Served) -> None:
    before = int(responses.get("/how_many").body)
    responses.get("/empty_pieces")
    responses.get("/exact")
    assert int(responses.get("/how_many").body) == before + 2


def test_a_header_cannot_begin_another(responses: Served) -> None:
    answer = responses.get("/injects")
    assert (answer.status, answer.headers["X-Other"]) == (500, None)
    wait_for("the log", lambda: "has a control character in it" in responses.text())


def test_a_response_that_fails_in_the_middle_is_seen_to_be_incomplete(responses: Served) -> None:
    for path in ("/fails_in_the_middle", "/too_late"):
        with pytest.raises(http.client.IncompleteRead) as caught:
            responses.get(path)
        assert caught.value.partial == b"first"


STREAMING = """
import threading, time
go_on = threading.Event()
made = 0

def app(environ, start_response):
    global made
    path = environ["PATH_INFO"]
    if path == "/go":
        go_on.set()
    if path == "/pieces":
        def pieces():
            yield b"first"
            assert go_on.wait(20)
            yield b"second"
        start_response("200 OK", [("Content-Type", "text/plain")])
        return pieces()
    if path == "/flood":
        def flood():
            global made
            for made in range(1, 1001):
                yield b"x" * 65536
        start_response("200 OK", [])
        return flood()
    start_response("200 OK", [])
    return [str(made).encode()]
"""


def test_a_piece_is_sent_before_the_next_is_made_and_a_slow_reader_holds_the_application() -> None:
    with Served(STREAMING, "--threads", "2") as served:
        with served.connect() as conn:
            conn.sendall(b"GET /pieces HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            found = b""
            while b"first" not in found:
                found += conn.recv(4096)
            assert b"second" not in found
            served.get("/go")
            assert b"second" in read_all(conn)
        with served.connect() as conn:
            conn.sendall(b"GET /flood HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            seen = -1
            while seen != (seen := int(served.get("/").body)) or not seen:
                time.sleep(0.2)
            assert 0 < seen < 500, "of 1000 pieces"
            assert len(read_all(conn).partition(b"\r\n\r\n")[2]) > 65_536_000
        assert int(served.get("/").body) == 1000


def test_a_client_that_leaves_ends_the_response() -> None:
    source = """
    import time
    ended = False

    def app(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/ended":
            return [str(ended).encode()]
        def pieces():
            global ended
            try:
                while True:
                    yield b"x" * 10_000
            finally:
                ended = True
        return pieces()
    """
    with Served(source, "--threads", "2") as served:
        with served.connect() as conn:
            conn.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            conn.recv(4096)
        wait_for("the generator's end", lambda: served.get("/ended").body == b"True")
        assert "Traceback" not in served.text()


def test_nothing_is_left_of_responses_in_pieces() -> None:
    source = """
    import iokernel

    def app(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/left":
            return [str(len(iokernel.default_kernel().thread_channel()._sinks)).encode()]
        return iter([b"one", b"two"])
    """
    with Served(source) as served:
        client = served.client()
        for _ in range(300):
            client.request("GET", "/")
            assert client.getresponse().read() == b"onetwo"
        client.request("GET", "/left")
        assert int(client.getresponse().read()) < 10
        client.close()


UPLOADS = """
import hashlib, json, time

def app(environ, start_response):
    stream, path = environ["wsgi.input"], environ["PATH_INFO"]
    if path == "/lines":
        told = [stream.readline().decode(), stream.readline(3).decode(), len(stream.readlines())]
        told.append(stream.read(5).decode())
    elif path == "/iterated":
        told = sum(len(line) for line in stream)
    elif path == "/ignored":
        told = "ignored"
    else:
        digest, count = hashlib.sha256(), 0
        while piece := stream.read(50_000):
            digest.update(piece)
            count += len(piece)
        told = [count, digest.hexdigest()]
    start_response("200 OK", [])
    return [json.dumps(told).encode()]
"""


@pytest.fixture(scope="module")
def uploads() -> Iterator[Served]:
    with Served(UPLOADS, "--threads", "2", "--max-request", "1GiB") as served:
        yield served


def test_lines_of_a_long_body(uploads: Served) -> None:
    body = b"first line\n" + b"second\n" + b"z" * 200_000 + b"\nlast"
    told = json.loads(uploads.request("POST", "/lines", body).body)
    assert told == ["first line\n", "sec", 3, ""]
    assert json.loads(uploads.request("POST", "/iterated", body).body) == len(body)
    assert json.loads(uploads.request("POST", "/ignored", b"z" * 200_000).body) == "ignored"


def test_a_large_upload_needs_little_memory(uploads: Served) -> None:
    import hashlib
    import os

    count = (1024 if os.environ.get("IOKERNEL_SOAK") else 64) << 20
    piece = bytes(range(256)) * 4096
    digest = hashlib.sha256()
    most = before = rss_bytes(uploads.workers[0])

    def pieces() -> Iterator[bytes]:
        nonlocal most
        for _ in range(count // len(piece)):
            digest.update(piece)
            most = max(most, rss_bytes(uploads.workers[0]))
            yield piece

    answer = uploads.request("PUT", "/", pieces(), Content_Length=str(count))
    assert json.loads(answer.body) == [count, digest.hexdigest()]
    assert most - before < 16 << 20, f"{(most - before) >> 20} MiB"


def test_a_client_that_leaves_within_its_body_ends_the_request(uploads: Served) -> None:
    with uploads.connect() as conn:
        conn.sendall(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 200_000)
        time.sleep(0.1)
    for _ in range(3):
        assert json.loads(uploads.request("PUT", "/", b"y").body)[0] == 1
    assert "Traceback" not in uploads.text()


def test_files_are_sent_by_the_system() -> None:
    source = """
    import io
    with open("big", "wb") as file:
        file.write(bytes(range(256)) * 20_000)

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        file = io.BytesIO(b"in memory") if path == "/memory" else open("big", "rb")
        if path == "/middle":
            file.seek(1_000_000)
        length = [("Content-Length", "1000")] if path == "/middle" else []
        start_response("200 OK", [("Content-Type", "application/octet-stream"), *length])
        return environ["wsgi.file_wrapper"](file, 1024)
    """
    with Served(source) as served:
        whole = bytes(range(256)) * 20_000
        answer = served.get("/")
        assert (answer.body, answer.headers["Content-Length"]) == (whole, str(len(whole)))
        assert served.get("/middle").body == whole[1_000_000:1_001_000]
        assert served.get("/memory").body == b"in memory"
        assert served.request("HEAD", "/").headers["Content-Length"] == str(len(whole))
        fds = Path(f"/proc/{served.workers[0]}/fd")

        def is_closed() -> bool:
            try:
                return not [fd for fd in fds.iterdir() if fd.readlink().name == "big"]
            except FileNotFoundError:  # One that was closed while they were looked at.
                return False

        wait_for("files to be closed", is_closed)


def test_a_slow_request_holds_up_no_other_where_there_are_threads() -> None:
    source = """
    import threading
    go_on = threading.Event()
    names = set()

    def app(environ, start_response):
        names.add(threading.current_thread().name)
        if environ["PATH_INFO"] == "/slow":
            assert go_on.wait(30)
        elif environ["PATH_INFO"] == "/go":
            go_on.set()
        start_response("200 OK", [])
        return [str(environ["wsgi.multithread"]).encode()]
    """
    with Served(source, "--threads", "4") as served:
        answers: list[int] = []
        slow = [threading.Thread(target=lambda: answers.append(served.get("/slow").status)) for _ in range(3)]
        for thread in slow:
            thread.start()
        client = served.client()
        for _ in range(200):
            client.request("GET", "/")
            assert client.getresponse().read() == b"True"
        client.request("GET", "/go")
        client.getresponse().read()
        client.close()
        for thread in slow:
            thread.join(20)
        assert answers == [200, 200, 200]


UPLOAD = b"PUT / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 100000\r\n\r\n"


def test_an_upload_that_waits_holds_up_no_other(uploads: Served) -> None:
    with uploads.connect() as conn:
        conn.sendall(UPLOAD + b"x" * 50_000)
        for _ in range(50):
            assert json.loads(uploads.request("PUT", "/", b"y").body)[0] == 1
        conn.sendall(b"x" * 50_000)
        assert b"100000" in read_all(conn)
    # One thread, which reads a body while others' requests come.
    with Served(UPLOADS) as served, served.connect() as conn:
        conn.sendall(UPLOAD + b"x" * 70_000)
        other = threading.Thread(target=lambda: served.request("PUT", "/", b"y"))
        other.start()
        time.sleep(0.1)
        conn.sendall(b"x" * 30_000)
        assert b"100000" in read_all(conn)
        other.join(10)
        assert not other.is_alive()
