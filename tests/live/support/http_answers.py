"""What the scripted server of the differential tests says, and how what clients met there is compared."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import brotli  # type: ignore[import-untyped,unused-ignore]
import zstandard

from .fakes import Say
from .http_script import Answer, Asked, chunked, ok

TEXT = b"all work and no play makes jack a dull boy\n" * 50
GZIPPED = gzip.compress(TEXT, mtime=0)
BIG = bytes(range(256)) * (1 << 12)
"""1 MiB."""


def redirect(status: str, to: str, *lines: str) -> bytes:
    return ok(b"elsewhere", f"Location: {to}", *lines, status=status)


def lines_slowly() -> list[Say]:
    parts = [b"%x\r\n%s\r\n" % (len(line), line) for line in (b"one\ntw", b"o\nthree", b"\n")]
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [Say(head), *(Say(part, wait_ms=30) for part in parts), Say(b"0\r\n\r\n")]


def cut(head: bytes, how: str = "close") -> list[Say]:
    return [Say(head), Say(wait_ms=30, then=how)]


def answers(other: str) -> Mapping[str, Answer]:
    """`other`: the address of another server."""
    full = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nnot as much"
    part = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    deflated = zlib.compressobj(wbits=-15)
    raw_deflate = deflated.compress(TEXT) + deflated.flush()
    digest = 'WWW-Authenticate: Digest realm="r", nonce="n0", qop="auth", algorithm=MD5, opaque="o"'
    return {
        "/hi": ok(b"hello", "X-Multi: a", "Content-Type: text/plain; charset=latin-1", "x-multi: b"),
        "/umlaut": ok("grüß dich".encode("latin-1"), "Content-Type: text/plain; charset=latin-1", "X-Name: J\xfcrgen"),
        "/empty": ok(),
        "/json": ok(b'{"a": [1, "\xc3\xbc"]}', "Content-Type: application/json"),
        "/cookies": ok(b"", "Set-Cookie: a=1; Path=/", "Set-Cookie: b=2; Path=/echo; HttpOnly"),
        "/cookie-redirect": redirect("302 Found", "/echo", "Set-Cookie: c=3; Path=/"),
        **{f"/{status}": redirect(f"{status} R", "/echo?from=there") for status in (301, 302, 303, 307, 308)},
        "/304": b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 5\r\n\r\n",
        "/204": b"HTTP/1.1 204 No Content\r\n\r\n",
        "/away": redirect("302 Found", f"http://{other}/echo"),
        "/relative": redirect("302 Found", "echo/../echo?x=%20y#frag"),
        "/loop": redirect("302 Found", "/loop"),
        "/no-location": ok(b"", status="302 Found"),
        "/basic": ok(b"", 'WWW-Authenticate: Basic realm="r"', status="401 Unauthorized"),
        "/digest": [[Say(ok(b"who?", digest, status="401 Unauthorized"))], [Say(ok(b"you"))]],
        "/gzip": ok(GZIPPED, "Content-Encoding: gzip"),
        "/deflate": ok(zlib.compress(TEXT), "Content-Encoding: deflate"),
        "/raw-deflate": ok(raw_deflate, "Content-Encoding: deflate"),
        "/br": ok(brotli.compress(TEXT), "Content-Encoding: br"),
        "/zstd": ok(zstandard.compress(TEXT), "Content-Encoding: zstd"),
        "/two-codings": ok(brotli.compress(GZIPPED), "Content-Encoding: gzip, br"),
        "/bad-gzip": ok(b"this is no gzip at all", "Content-Encoding: gzip"),
        "/gzip-chunked": chunked(GZIPPED[:20], GZIPPED[20:], lines=["Content-Encoding: gzip"]),
        "/chunked": chunked(b"one", b"two" * 1000, b"three"),
        "/trailers": chunked(b"body", lines=["Trailer: X-Sum"], trailers=["X-Sum: 9"]),
        "/lines": lines_slowly(),
        "/until-close": [Say(b"HTTP/1.1 200 OK\r\n\r\nto the "), Say(b"end", wait_ms=20, then="close")],
        "/http10": Say(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", then="close"),
        "/closing": Say(ok(b"bye", "Connection: close"), then="close"),
        "/big": ok(BIG),
        "/big-chunked": chunked(*[BIG[at : at + 50_000] for at in range(0, len(BIG), 50_000)]),
        "/reason": ok(b"", status="299 Sehr gut, danke"),
        "/no-reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
        "/500": ok(b"broken", status="500 Internal Server Error"),
        "/100": b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"after"),
        "/103": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + ok(b"after"),
        "/cut-length": cut(full),
        "/cut-chunked": cut(part),
        "/cut-in-chunk": cut(part + b"ff\r\nhalf"),
        "/reset-body": cut(full, "reset"),
        "/cut-head": cut(b"HTTP/1.1 200 OK\r\nContent-Le"),
        "/nothing": Say(then="close"),
        "/reset": Say(then="reset"),
        "/garbage": Say(b"this is no HTTP at all\r\n\r\n", then="close"),
        "/ssh": Say(b"SSH-2.0-OpenSSH_9.2\r\n", then="close"),
        "/bad-chunk": Say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n", then="close"),
        "/two-lengths": Say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", then="close"),
        "/both-framings": Say(
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
            then="close",
        ),
        "/bad-length": Say(b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi", then="close"),
        "/no-colon": Say(b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 2\r\n\r\nhi", then="close"),
        "/huge-head": Say(ok(b"hi", "X-Huge: " + "x" * 200_000), then="close"),
        "/many-heads": Say(ok(b"hi", *(f"X-{index}: y" for index in range(400))), then="close"),
        "/late": Say(ok(b"late"), wait_ms=3000),
        "/stalls": [Say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), Say(b"-time", wait_ms=3000)],
        "/unread-413": Say(ok(b"too much", "Connection: close", status="413 Content Too Large"), then="close"),
        "/unread-silent": Say(wait_ms=3000, then="close"),
        "/503-503-200": [
            [Say(ok(b"no", status="503 Service Unavailable"))],
            [Say(ok(b"no", "Retry-After: 0", status="503 Service Unavailable"))],
            [Say(ok(b"yes"))],
        ],
        "/nothing-then-200": [[Say(then="close")], [Say(ok(b"yes"))]],
        "http://far.test/x": ok(b"from far"),
        "http://far.test/away": redirect("302 Found", "http://other.test/x"),
        "http://other.test/x": ok(b"from other"),
    }


FRAMING = ("host", "content-length", "transfer-encoding")
"""Compared apart from the order of the other fields: the kernel writes Host first, and what frames a body last."""


@dataclass(frozen=True)
class Outcome:
    """What a scenario came to, and what its servers saw."""

    result: Any
    asked: tuple[Any, ...]

    def parts(self) -> list[str]:
        """Of the result, so that a difference shows where it is."""
        if isinstance(self.result, (list, tuple)):
            return [repr(part) for part in self.result]
        return [repr(self.result)]


REPEATS = ("/nothing", "/reset", "/cut-head", "/garbage", "/ssh", "proxies", "retries", "pool_manager")
"""Paths that the kernel may ask for again, and scenarios that have some. A request that needs no second thought (GET,
HEAD, ...) is sent once more when the connection that it was given had been idle and ends without a word: its end may
have been on its way."""


def compare(name: str, expected: Outcome, got: Outcome, differs: Mapping[str, str]) -> None:
    """Fails if two outcomes are not the same, or those of `differs`, which names the reasons, are."""
    if name in differs:
        assert got.parts() != expected.parts(), f"{differs[name]}: it is the same by now"
        return
    assert got.parts() == expected.parts()
    if name.endswith(REPEATS):
        assert without_repeats(got.asked) == without_repeats(expected.asked)
    else:
        assert got.asked == expected.asked


def failure(error: BaseException) -> str:
    """An exception as scenarios compare it: by its type."""
    return f"raised {type(error).__module__.split('.')[0]}.{type(error).__name__}"


def seen(asked: list[Asked]) -> tuple[Any, ...]:
    """What was asked, without what differs from run to run."""
    return tuple(_one(one) for one in asked)


def without_repeats(asked: tuple[Any, ...]) -> tuple[Any, ...]:
    """Each of those that came several times in a row once."""
    return tuple(one for one, _ in groupby(asked))


def _one(asked: Asked) -> Any:
    headers = [(name, _steady(name, value)) for name, value in asked.headers]
    framing = sorted((name, value) for name, value in headers if name.lower() in FRAMING)
    others = [(name, value) for name, value in headers if name.lower() not in FRAMING]
    body = asked.body
    for value in asked.all("content-type"):
        if "boundary=" in value:
            body = body.replace(value.partition("boundary=")[2].encode(), b"BOUNDARY")
    return asked.method, asked.target, others, framing, body


def _steady(name: str, value: str) -> str:
    if name.lower() == "content-type":
        return re.sub("boundary=.*", "boundary=BOUNDARY", value)
    if name.lower() == "authorization":
        return re.sub('(cnonce|response)="[^"]*"', r'\1="..."', value)
    if name.lower() == "host":
        return re.sub(r"127\.0\.0\.1:\d+", "HOST", value)
    return value
