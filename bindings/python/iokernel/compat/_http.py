"""What the clients of HTTP share: an endpoint for each origin, the phases of a request, and what their errors mean."""

from __future__ import annotations

import math
import time
import weakref
from collections.abc import Generator, Iterable
from typing import Any
from urllib.parse import quote

import iokernel
from iokernel._errors import BadRequest, Closed, ConnectionLost, Error, Timeout, Unavailable
from iokernel._exchange import Exchange

CONNECT_S = 15
"""One attempt to connect takes no longer, whatever the client would wait."""

_OPTIONS: dict[str, Any] = {
    # Clients have limits of their own, and repeat what they want to have repeated.
    "when_down": "fail",
    "pool": 4096,
    "retry_budget": "0%",
    "connect_timeout": f"{CONNECT_S}s",
}

Steps = Generator[Any, Any, Any]
"""What yields what an Exchange's method gave: outside of loops that is the value, inside of them it is awaited."""


class Origin:
    """The endpoint of one scheme, host and port. It is closed when nobody holds the origin any more."""

    __slots__ = ("__weakref__", "endpoint")

    def __init__(self, url: str, options: dict[str, Any]) -> None:
        self.endpoint = iokernel.open(url, **_OPTIONS, **options)
        weakref.finalize(self, _close, self.endpoint).atexit = False

    def exchange(self, *request: Any, blocks: bool) -> Exchange:
        """One request; its times are kept by the client. `blocks`: in whatever thread, a loop's included."""
        return Exchange(self.endpoint, request, timeout=math.inf, blocks=blocks)


class Fields:
    """Header fields that a client has, as the kernel takes them: framing and the ways of a connection are its own, and
    what asks for them is in `options`."""

    def __init__(self, given: Iterable[tuple[Any, Any]] = (), framed: bool = True) -> None:
        self.pairs: list[tuple[Any, Any]] = []
        self.options: dict[str, Any] = {"decode": False}
        self._framed = framed
        for name, value in given:
            self.add(name, value)

    def add(self, name: str | bytes, value: Any) -> None:
        """Takes one more. `framed` is False where a Content-Length means nothing: the body is chunked nonetheless."""
        lowered, text = _text(name).lower(), _text(value)
        if lowered == "expect" and text.lower() == "100-continue":
            self.options["expect"] = True
        elif lowered == "upgrade":
            self.options["upgrade"] = text
        elif lowered == "connection":
            words = (word.strip() for word in text.split(","))
            self.pairs += [(name, word) for word in words if word.lower() in ("close", "keep-alive")]
        elif lowered != "transfer-encoding" and (self._framed or lowered != "content-length"):
            self.pairs.append((name, value if isinstance(value, bytes) else text.encode("latin-1")))


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _close(endpoint: iokernel.Endpoint) -> None:
    try:
        endpoint.close()
    except Error:
        return


def origin_url(scheme: str, host: str, port: int) -> str:
    """The URL of an origin. `host`: a name or an address, IPv6 with or without brackets."""
    return f"{scheme}://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"


def unix_url(path: str) -> str:
    """The URL of a unix socket."""
    return f"http+unix://{quote(path, safe='/')}"


def run(steps: Steps) -> Any:
    """Takes steps outside of loops."""
    value = None
    try:
        while True:
            value = steps.send(value)
    except StopIteration as end:
        return end.value


async def run_in_loop(steps: Steps) -> Any:
    """Takes steps inside of a loop."""
    value: Any = None
    failure: BaseException | None = None
    try:
        while True:
            step = steps.send(value) if failure is None else steps.throw(failure)
            value = failure = None
            try:
                value = await step
            except BaseException as error:
                failure = error
    except StopIteration as end:
        return end.value


def least(*times: float | None) -> float | None:
    """The shortest of times, None being for ever."""
    return min((one for one in times if one is not None), default=None)


def begin(exchange: Exchange, connect: float | None, write: float | None, read: float | None) -> Steps:
    """Waits until the response has begun. Seconds: for a connection, for the request to be written, and then for the
    response. Raises the Timeout of the phase that took too long: its `code` is CONNECT, WRITE or READ."""
    started = time.monotonic()
    stalled: float | None = None
    wait = least(connect, write, read)
    while True:
        try:
            return (yield exchange.accepted(wait))
        except Timeout:
            if exchange.closed:
                raise
        has_conn, ago = yield exchange.underway()
        now = time.monotonic()
        if not has_conn:
            left = _left("CONNECT", connect, now - started)
            wait = least(left, write, read)
        elif ago is None:
            stalled = stalled or now
            wait = least(_left("WRITE", write, now - stalled), read)
        else:
            wait = _left("READ", read, ago)


def _left(phase: str, limit: float | None, passed: float) -> float | None:
    if limit is None:
        return None
    if passed >= limit:
        raise too_late(phase, limit)
    return limit - passed


def too_late(phase: str, limit: float | None) -> Timeout:
    """The Timeout of a phase."""
    fate = "not_sent" if phase == "CONNECT" else "maybe_executed"
    what = {"CONNECT": "no connection", "WRITE": "the request was not written", "READ": "no response"}[phase]
    return Timeout(f"{what} within {limit} s", code=phase, status=-202, fate=fate)


def is_of_tls(error: Error) -> bool:
    """The handshake failed: a certificate, mostly."""
    return error.message.startswith("TLS with ")


def send_all(exchange: Exchange, pieces: Iterable[bytes | str], connect: float | None, write: float | None) -> Steps:
    """Sends a body in pieces, as far as anybody wants it: a response may come before its end."""
    try:
        for piece in pieces:
            if piece:
                yield from send_one(exchange, piece, connect, write)
        yield from send_one(exchange, None, connect, write)
    except Enough:
        return


class Enough(Exception):
    """Nobody takes more of a body."""


def send_one(exchange: Exchange, piece: bytes | str | None, connect: float | None, write: float | None) -> Steps:
    """Sends one piece, or the end. Raises Enough where the response, or what came in its place, is to be looked at."""
    try:
        try:
            yield exchange.finish(timeout=write) if piece is None else exchange.send(piece, timeout=write)
        except Timeout:
            if exchange.closed:
                raise
            has_conn, _ = yield exchange.underway()
            if has_conn:
                raise too_late("WRITE", write) from None
            yield from begin(exchange, connect, write, write)
    except (Closed, ConnectionLost, Unavailable) as error:
        raise Enough from error
    except BadRequest as error:
        if error.code != "CLOSED":
            raise
        raise Enough from error
