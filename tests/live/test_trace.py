"""Spans of requests at a collector, and the slow-request log.

The collector is the test's own HTTP server; what it is sent is read by OpenTelemetry's own classes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import iokernel
import iokernel.opentelemetry
import pytest
from google.protobuf import json_format  # type: ignore[import-untyped]
from iokernel._records import FLAG_TRACE, OP_LEASE, OP_REQUEST, OP_STREAM
from opentelemetry import context, trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanPb
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from support.counter import Counter
from support.net import wait_for
from support.program import Program
from support.servers import RedisServer

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

Reply = tuple[int, dict[str, str], bytes]
MakeCounter = Callable[..., Counter]


def hexed(octets: bytes) -> str:
    """OTLP's JSON has ids in hexadecimal where that of protobuf has base64, which is how they were read here."""
    return base64.b64encode(octets).decode()


class Span:
    def __init__(self, span: SpanPb, resource: dict[str, Any]) -> None:
        self.pb = span
        self.resource = resource
        self.trace, self.parent, self.id = hexed(span.trace_id), hexed(span.parent_span_id), hexed(span.span_id)
        self.attributes = values(span.attributes)
        self.events = {event.name: event.time_unix_nano for event in span.events}


def values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class Collector:
    """Takes spans over HTTP/1.1. `replies` are given first, each once; None hangs up instead. Then all is well."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Span] = []
        self.asked: list[tuple[str, dict[str, str], float]] = []
        self.conns: dict[tuple[str, int], socket.socket] = {}
        self.replies: list[Reply | None] = []
        self.delay = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.take(self)

            def log_message(self, *_: Any) -> None: ...

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def take(self, asked: BaseHTTPRequestHandler) -> None:
        body = asked.rfile.read(int(asked.headers["Content-Length"]))
        self.asked.append((asked.path, dict(asked.headers.items()), time.monotonic()))
        self.conns[asked.client_address] = asked.connection
        time.sleep(self.delay)
        said = self.replies.pop(0) if self.replies else (200, {}, b"{}")
        if said is None:
            self.hang_up()
        else:
            if said[0] == 200:
                self._read(body)
            self._answer(asked, *said)

    def _answer(self, asked: BaseHTTPRequestHandler, status: int, headers: dict[str, str], reply: bytes) -> None:
        asked.send_response(status)
        for name, value in headers.items():
            asked.send_header(name, value)
        asked.send_header("Content-Length", str(len(reply)))
        asked.end_headers()
        asked.wfile.write(reply)

    def _read(self, body: bytes) -> None:
        for group in json_format.Parse(body, ExportTraceServiceRequest()).resource_spans:
            resource = values(group.resource.attributes)
            for scope in group.scope_spans:
                assert scope.scope.name == "iokernel"
                self.spans += [Span(span, resource) for span in scope.spans]

    def wait(self, count: int) -> list[Span]:
        wait_for(f"{count} spans", lambda: len(self.spans) >= count)
        return self.spans

    def hang_up(self) -> None:
        for conn in self.conns.values():
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._server.shutdown()
        self.hang_up()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def kernel_for(url: str, **options: Any) -> iokernel.Kernel:
    return iokernel.Kernel(name="trace", otlp=url, otlp_interval="20ms", **options)


@pytest.fixture
def kernel(collector: Collector) -> Iterator[iokernel.Kernel]:
    with kernel_for(collector.url, otlp_service="shop", otlp_headers="x-api-key=hush%20hush") as made:
        yield made


def test_a_span_tells_what_the_request_was(
    collector: Collector, kernel: iokernel.Kernel, shared_redis_server: RedisServer
) -> None:
    redis = kernel.open(shared_redis_server.url)
    before = time.time_ns()
    with kernel.marker("pay"):
        redis.call("SET", "trace", "x", trace=TRACEPARENT)
    after = time.time_ns()
    [span] = collector.wait(1)
    host, _, port = shared_redis_server.address.rpartition(":")
    assert (span.trace, span.parent, len(bytes.fromhex(span.id))) == (TRACE, PARENT, 8)
    assert (span.pb.name, span.pb.kind, span.pb.status.code) == (
        "SET",
        SpanPb.SPAN_KIND_CLIENT,
        Status.STATUS_CODE_UNSET,
    )
    assert span.attributes == {
        "db.system.name": "redis",
        "db.operation.name": "SET",
        "server.address": host,
        "server.port": int(port),
        "network.peer.address": "127.0.0.1",
        "network.peer.port": int(port),
        "iokernel.fate": "replied",
        "iokernel.marker": "pay",
    }
    assert span.resource["service.name"] == "shop"
    assert span.resource["process.pid"] == os.getpid()
    slack = 5_000_000
    stamps = [span.events[name] for name in ("queued", "sent", "first_byte")]
    moments = [before - slack, span.pb.start_time_unix_nano, *stamps, span.pb.end_time_unix_nano, after + slack]
    assert moments == sorted(moments)
    path, headers, _ = collector.asked[0]
    assert path == "/v1/traces"
    assert headers["Content-Type"] == "application/json"
    assert headers["x-api-key"] == "hush hush"
    assert "hush" not in repr(kernel)


def test_only_sampled_requests_with_a_context_have_spans(
    collector: Collector, kernel: iokernel.Kernel, shared_redis_server: RedisServer
) -> None:
    redis = kernel.open(shared_redis_server.url)
    redis.call("PING")
    redis.call("PING", trace=TRACEPARENT[:-2] + "00")
    with redis.lease() as lease:
        lease.call("ECHO", "x", trace=TRACEPARENT)
    redis("ECHO", "y", trace=TRACEPARENT).result(5)
    large = "z" * 1_000_000
    assert redis.call("ECHO", large, trace=TRACEPARENT) == large.encode()
    redis.send("ECHO", "w", trace=TRACEPARENT)
    assert [span.pb.name for span in collector.wait(4)] == ["ECHO"] * 4
    assert len({span.id for span in collector.spans}) == 4


def test_errors_are_told(collector: Collector, kernel: iokernel.Kernel, shared_redis_server: RedisServer) -> None:
    redis = kernel.open(shared_redis_server.url)
    redis.call("SET", "text", "x")
    with pytest.raises(iokernel.RemoteError):
        redis.call("LPUSH", "text", "x", trace=TRACEPARENT)
    with pytest.raises(iokernel.Unavailable):
        kernel.open("redis://127.0.0.1:1").call("GET", "a", timeout=0.05, trace=TRACEPARENT)
    remote, own = collector.wait(2)
    assert remote.pb.status.code == Status.STATUS_CODE_ERROR
    assert remote.pb.status.message.startswith("Operation against a key")
    assert remote.attributes["db.response.status_code"] == remote.attributes["error.type"] == "WRONGTYPE"
    assert own.attributes["error.type"] == "UNAVAILABLE"
    assert "db.response.status_code" not in own.attributes
    assert own.attributes["iokernel.fate"] == "not_sent"
    assert list(own.events) == ["queued"]


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "x",
        TRACEPARENT.upper(),
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        "ff" + TRACEPARENT[2:],
        TRACEPARENT + "-x",
        TRACEPARENT + "\n",
        7,
    ],
)
def test_what_is_no_traceparent_is_refused(kernel: iokernel.Kernel, wrong: Any) -> None:
    redis = kernel.open("redis://127.0.0.1:1")
    for call in (redis.call, redis, redis.send):
        with pytest.raises(iokernel.BadRequest, match="trace: "):
            call("PING", trace=wrong)


@pytest.mark.parametrize(
    ("op", "payload", "said"),
    [
        (OP_REQUEST, b"\1" * 25 + b"\0" * 6, "31 bytes"),
        (OP_REQUEST, b"\0" * 16 + b"\1" * 9 + b"\0" * 7, "trace id"),
        (OP_REQUEST, b"\1" * 16 + b"\0" * 8 + b"\1" + b"\0" * 7, "parent span id"),
        (OP_REQUEST, b"\1" * 26 + b"\0" * 6, "version 1"),
        (OP_STREAM, b"\1" * 25 + b"\0" * 7, "IOK_FLAG_TRACE"),
        (OP_LEASE, b"\1" * 25 + b"\0" * 7, "IOK_FLAG_TRACE"),
    ],
)
def test_a_record_whose_context_is_none_is_refused(kernel: iokernel.Kernel, op: int, payload: bytes, said: str) -> None:
    redis = kernel.open("redis://127.0.0.1:1")
    with pytest.raises(iokernel.BadRequest, match=said) as refused:
        kernel.submit(op, FLAG_TRACE, redis.number, None, 0, payload).result(5)
    assert refused.value.code == "BADRECORD"


def test_a_version_to_come_is_read_as_far_as_it_is_known(
    collector: Collector, kernel: iokernel.Kernel, shared_redis_server: RedisServer
) -> None:
    kernel.open(shared_redis_server.url).call("PING", trace="42" + TRACEPARENT[2:] + "-more")
    assert collector.wait(1)[0].trace == TRACE


def test_the_current_span_of_opentelemetry_is_the_parent(
    collector: Collector, kernel: iokernel.Kernel, shared_redis_server: RedisServer
) -> None:
    redis = kernel.open(shared_redis_server.url)
    redis("PING").result(5)  # The accelerator's own path, if there is one, from here on.
    parent = trace.NonRecordingSpan(trace.SpanContext(int(TRACE, 16), int(PARENT, 16), False, trace.TraceFlags(1)))
    iokernel.opentelemetry.install()
    try:
        redis("PING").result(5)
        token = context.attach(trace.set_span_in_context(parent))
        redis("ECHO", "x").result(5)
        redis.call("ECHO", "x")
        context.detach(token)
    finally:
        iokernel.trace_from(None)
    redis("PING").result(5)
    assert [(span.pb.name, span.trace, span.parent) for span in collector.wait(2)] == [("ECHO", TRACE, PARENT)] * 2
    with pytest.raises(TypeError, match="trace_from"):
        iokernel.trace_from(TRACEPARENT)  # type: ignore[arg-type]


STALLS = """
import ctypes, iokernel, json, os, time

redis_url, otlp, traceparent = sys.argv[1:]
kernel = iokernel.Kernel(name="stalls", otlp=otlp, otlp_interval="10ms")
redis = kernel.open(redis_url)
redis.wait_ready(5)
begun = []
for _ in range(7):
    begun.append(time.time_ns())
    waiting = redis("INCRBY", "id:1", 1, trace=traceparent)
    ctypes.PyDLL(None).usleep(100_000)
    waiting.result(5)
print(json.dumps({"begun": begun}), flush=True)
sys.stdin.readline()
"""


def test_times_are_true_while_the_program_stalls(collector: Collector, make_counter: MakeCounter) -> None:
    delay_ms = 20
    server = make_counter(delay_ms=delay_ms)
    with Program(STALLS, server.url, collector.url, TRACEPARENT) as program:
        begun = program.hear()["begun"]
        spans = collector.wait(len(begun))
        # What was under way when the program began to stall was sent while it stalled: 100 ms a round.
        late = [span.pb.start_time_unix_nano - at for span, at in zip(spans, begun, strict=True)]
        took = [span.pb.end_time_unix_nano - span.pb.start_time_unix_nano for span in spans]
        middle = len(spans) // 2
        assert abs(sorted(late)[middle]) < 5e6, late
        assert abs(sorted(took)[middle] - delay_ms * 1e6) < 5e6, took


def test_a_collector_may_be_down_and_wrong_and_ask_for_patience(
    shared_redis_server: RedisServer, free_port: int
) -> None:
    with kernel_for(f"http://localhost:{free_port}/prefix/") as kernel:
        redis = kernel.open(shared_redis_server.url)
        redis.call("ECHO", "down", trace=TRACEPARENT)
        time.sleep(0.1)
        collector = Collector(free_port)
        try:
            assert collector.wait(1)[0].trace == TRACE
            assert collector.asked[0][0] == "/prefix/v1/traces"
            # Refused for good: dropped.
            collector.replies = [(500, {}, b"oops")]
            redis.call("ECHO", "dropped", trace=TRACEPARENT)
            wait_for("the refusal", lambda: not collector.replies)
            # Refused for the moment: sent again, no sooner than asked.
            collector.replies = [(503, {"Retry-After": "1", "Connection": "close"}, b"later"), (429, {}, b"")]
            redis.call("SET", "kept", "x", trace=TRACEPARENT)
            assert [span.pb.name for span in collector.wait(2)] == ["ECHO", "SET"]
            first, second, _ = (at for _, _, at in collector.asked[-3:])
            assert second - first >= 1.0
            # Slow, and partly successful.
            collector.delay = 0.3
            collector.replies = [(200, {}, json.dumps({"partialSuccess": {"rejectedSpans": "1"}}).encode())]
            redis.call("GET", "kept", trace=TRACEPARENT)
            redis.call("DEL", "kept", trace=TRACEPARENT)
            started = time.monotonic()
            assert redis.call("PING") == "PONG"
            assert time.monotonic() - started < 0.2
            assert [span.pb.name for span in collector.wait(4)][2:] == ["GET", "DEL"]
        finally:
            collector.close()


def test_one_conn_serves_all_and_a_closed_one_is_dialled_anew(
    collector: Collector, kernel: iokernel.Kernel, shared_redis_server: RedisServer
) -> None:
    redis = kernel.open(shared_redis_server.url)
    for count in range(1, 4):
        redis.call("PING", trace=TRACEPARENT)
        collector.wait(count)
    assert len(collector.conns) == 1
    # The collector ends a conn that is idle.
    collector.hang_up()
    redis.call("PING", trace=TRACEPARENT)
    collector.wait(4)
    assert len(collector.conns) == 2
    # It ends one just when it is used: that is not held against it.
    collector.replies = [None]
    redis.call("PING", trace=TRACEPARENT)
    collector.wait(5)
    assert len(collector.conns) == 3
    assert collector.asked[-1][2] - collector.asked[-2][2] < 0.1


def test_many_spans_come_in_batches_and_a_dead_collector_costs_bounded_memory(
    shared_redis_server: RedisServer, free_port: int, tmp_path: Path
) -> None:
    admin = tmp_path / "admin"
    with kernel_for(
        f"http://127.0.0.1:{free_port}", otlp_queue=600, otlp_headers="x-key=hush", admin=f"unix:{admin}"
    ) as kernel:
        redis = kernel.open(shared_redis_server.url)
        for _ in range(30):
            for future in [redis("PING", trace=TRACEPARENT) for _ in range(100)]:
                future.result(5)
        down = get(admin, "/state")["traces"]
        assert get(admin, "/config")["kernel"]["otlp_headers"] == "***"
        assert 600 <= down["queued"] <= 600 + 512
        assert down["queued"] + down["dropped"] == 3000
        assert f"127.0.0.1:{free_port}: Connection refused" in down["last_error"]
        collector = Collector(free_port)
        try:
            wait_for("the newer spans", lambda: get(admin, "/state")["traces"]["queued"] == 0)
            # Those that were under way, and those that waited.
            assert len(collector.spans) == down["queued"]
            told = get(admin, "/state")["traces"]
            assert told == {**down, "queued": 0, "sent": down["queued"]}
            assert len(collector.asked) <= 4
        finally:
            collector.close()


def test_closing_sends_what_waits(collector: Collector, shared_redis_server: RedisServer) -> None:
    kernel = iokernel.Kernel(name="closing", otlp=collector.url, otlp_interval="1h")
    kernel.open(shared_redis_server.url).call("PING", trace=TRACEPARENT)
    assert not collector.spans
    started = time.monotonic()
    kernel.close(drain=5)
    assert time.monotonic() - started < 2
    assert len(collector.spans) == 1


FORKS = """
import iokernel, json, os, time

redis_url, otlp, traceparent = sys.argv[1:]
kernel = iokernel.Kernel(name="forks", otlp=otlp, otlp_interval="150ms")
redis = kernel.open(redis_url)
redis.call("SET", "parent", 1, trace=traceparent)
child = os.fork()
if not child:
    redis.call("GET", "parent", trace=traceparent)
    time.sleep(0.35)
    os._exit(0)
os.waitpid(child, 0)
print(json.dumps({"parent": os.getpid(), "child": child}), flush=True)
sys.stdin.readline()
"""


def test_a_child_sends_its_own_spans_and_not_its_parents(
    collector: Collector, shared_redis_server: RedisServer
) -> None:
    with Program(FORKS, shared_redis_server.url, collector.url, TRACEPARENT) as program:
        told = program.hear()
        collector.wait(2)
        sent = sorted((span.pb.name, span.resource["process.pid"]) for span in collector.spans)
        assert sent == [("GET", told["child"]), ("SET", told["parent"])]


@pytest.mark.parametrize("wrong", ["https://127.0.0.1:4318", "127.0.0.1:4318", "http://u:hush@h"])
def test_a_collector_that_cannot_be_is_refused(wrong: str) -> None:
    with pytest.raises(iokernel.ConfigError, match="otlp") as refused:
        iokernel.Kernel(name="wrong", otlp=wrong)
    assert "hush" not in str(refused.value)


SLOW = """
import ctypes, iokernel, json

redis_url, admin = sys.argv[1:]
kernel = iokernel.Kernel(name="slow", admin=admin)
quick, slow = kernel.open(redis_url), kernel.open(redis_url + "?slow=50ms")
slow.wait_ready(5)
with kernel.marker("render invoice", id=7):
    waiting = [quick("BLPOP", "nothing", 0.2), slow("BLPOP", "nothing", 0.1), slow("PING")]
print(json.dumps({}), flush=True)
ctypes.PyDLL(None).usleep(900_000)
"""


def test_slow_requests_are_told_while_the_program_hangs(shared_redis_server: RedisServer, tmp_path: Path) -> None:
    admin = f"unix:{tmp_path}/admin"
    with Program(SLOW, shared_redis_server.url, admin) as program:
        program.hear()
        time.sleep(0.3)
        told = get(tmp_path / "admin", "/slow")
        [entry] = told["slow"]
        assert told["count"] == 1
        assert entry["url"] == shared_redis_server.url + "?slow=50ms"
        assert entry["peer"] == shared_redis_server.address
        assert (entry["command"], entry["status"], entry["fate"]) == ("BLPOP", "OK", "replied")
        assert entry["bytes"] == len(b"\x93\xa5BLPOP\xa7nothing\xcb") + 8
        assert 100 <= entry["total_ms"] < 300
        assert entry["queued_ms"] + entry["wire_ms"] == pytest.approx(entry["total_ms"], abs=20)
        assert entry["marker"] == "render invoice id=7"
        assert entry["ended"] == pytest.approx(time.time(), abs=1)


def get(path: Path, target: str) -> Any:
    """What the admin endpoint answers."""
    with socket.socket(socket.AF_UNIX) as conn:
        conn.settimeout(1)
        conn.connect(str(path))
        conn.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: conn.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer
    return json.loads(body)
