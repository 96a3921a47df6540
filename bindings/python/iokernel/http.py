"""HTTP: what endpoints of `http://`, `https://` and `http+unix://` have beside `call`.

api = iokernel.open("https://api.internal/v1")      # or iokernel.http.open, which type checkers know better
api.get("/users", params={"page": 2}).json()        # blocks outside of event loops
(await api.get("/users", params={"page": 2})).json()  # inside of one, the same is awaited

with api.stream("GET", "/export") as reply:         # async with, async for
    for piece in reply: ...
"""

from __future__ import annotations

import contextlib
import json as _json
from collections.abc import Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlencode

from ._channel import Completion
from ._endpoint import Endpoint
from ._errors import BadRequest, Closed, ConfigError, RemoteError
from ._exchange import Exchange
from ._future import AioFuture
from ._kernel import default_kernel
from ._records import FLAG_IDEMPOTENT, FLAG_ROUTE, KIND_END, route_key, timeout_ms
from .loops import running_loop

if TYPE_CHECKING:
    from ._endpoint import Route

    Pairs = Iterable[tuple[str | bytes, str | bytes]]
    HeadersGiven = Mapping[str, str | bytes | list[str]] | Pairs
    Fields = Mapping[str, Any] | Iterable[tuple[str, Any]]

AGENT = "iokernel/0.1.0"
"""What requests call themselves, unless they have a User-Agent of their own (RFC 9110, 10.1.5)."""
GOODBYE_S = 5.0
"""How long a WebSocket that closes waits for its peer's last word."""
LOST = 1006
"""The code of a WebSocket that was never closed (RFC 6455, 7.1.5)."""

_SAFE = "!#$%&'()*+,/:;=?@[]~"
_WITH_AGENT = [["User-Agent", AGENT]]

S = TypeVar("S", bound="Stream")


class Headers(Mapping[str, str]):
    """Header fields, found whatever the case of their names. Several of one name are joined by `", "`."""

    __slots__ = ("_found", "raw")

    def __init__(self, raw: list[list[bytes]]) -> None:
        self.raw = raw
        """Name and value of each, as they came."""
        self._found: dict[str, str] | None = None

    def _all(self) -> dict[str, str]:
        if self._found is None:
            found: dict[str, str] = {}
            for name, value in self.raw:
                key, text = name.decode("latin-1").lower(), value.decode("latin-1")
                found[key] = f"{found[key]}, {text}" if key in found else text
            self._found = found
        return self._found

    def __getitem__(self, name: str) -> str:
        return self._all()[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def get_all(self, name: str) -> list[str]:
        """Each value of a name on its own, as Set-Cookie needs it."""
        wanted = name.lower().encode("latin-1")
        return [value.decode("latin-1") for given, value in self.raw if given.lower() == wanted]

    def __repr__(self) -> str:
        return f"Headers({self._all()!r})"


class StatusError(RemoteError):
    """A response whose status says that the request failed (400 to 599), or no WebSocket came of it: `response`."""

    def __init__(self, message: str, response: Response | None = None, **fields: Any) -> None:
        super().__init__(message, **fields)
        self.response = response


class Head:
    """What a response begins with."""

    head: Any
    """`[status, headers, body, reason, version, ...]`"""
    _headers: Headers

    @property
    def status(self) -> int:
        """The status code: 200."""
        status: int = self.head[0]
        return status

    @property
    def reason(self) -> str:
        """What the server wrote beside the status."""
        reason: str = self.head[3]
        return reason

    @property
    def version(self) -> int:
        """11 for HTTP/1.1, 10 for HTTP/1.0."""
        version: int = self.head[4]
        return version

    @property
    def headers(self) -> Headers:
        """The header fields."""
        try:
            return self._headers
        except AttributeError:
            self._headers = headers = Headers(self.head[1])
            return headers

    @property
    def ok(self) -> bool:
        """The status is below 400."""
        return self.status < 400


class Response(Head):
    """A complete response. Awaiting it gives it itself, so that code need not know whether it came in a loop."""

    def __init__(self, reply: list[Any]) -> None:
        self.head = reply

    @property
    def body(self) -> bytes:
        """The body, whole."""
        body: bytes = self.head[2]
        return body

    @property
    def trailers(self) -> Headers:
        """The fields that came after the body (RFC 9110, 6.5)."""
        return Headers(self.head[5] or [])

    @property
    def text(self) -> str:
        """The body as text, in the charset that Content-Type names, or UTF-8. What is none is replaced by U+FFFD."""
        try:
            return self.body.decode(_charset(self.headers.get("content-type", "")), "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises ValueError for what is none."""
        return _json.loads(self.body)

    def raise_for_status(self) -> Response:
        """Itself, or StatusError for a status of 400 and above."""
        if self.status >= 400:
            raise status_error(self)
        return self

    def __await__(self) -> Generator[Any, None, Response]:
        return self
        yield

    def __repr__(self) -> str:
        return f"<iokernel.http.Response {self.status} {self.reason}, {len(self.body)} bytes>"


def status_error(response: Response) -> StatusError:
    """The error of a response."""
    return StatusError(
        response.reason or "no reason was given", response, code=str(response.status), status=-301, fate="replied"
    )


def _charset(content_type: str) -> str:
    if "charset" not in content_type.lower():
        return "utf-8"
    from email.message import Message

    message = Message()
    message["content-type"] = content_type
    return message.get_content_charset("utf-8")


class _Reply(AioFuture):
    """Becomes a Response."""

    __slots__ = ()
    becomes = Response

    def set_result(self, reply: Any, /) -> None:
        _settle(self, Response(reply))


_settle = AioFuture.set_result


def open(url: str, **options: Any) -> HttpEndpoint:
    """`iokernel.open` for URLs of HTTP alone."""
    endpoint = default_kernel().open(url, **options)
    if not isinstance(endpoint, HttpEndpoint):
        endpoint.close()
        raise ConfigError(f'url: "{endpoint.url}": expected http://, https:// or http+unix://')
    return endpoint


class HttpEndpoint(Endpoint):
    """An HTTP service. Paths of requests are below the path of its URL.

    Outside of event loops the methods block and give what they are about. Inside of one they return at once; what they
    return is awaited.
    """

    __slots__ = ()

    def request(
        self,
        method: str,
        target: str,
        *,
        params: Fields | None = None,
        headers: HeadersGiven | None = None,
        body: bytes | bytearray | memoryview | str | None = None,
        data: Fields | None = None,
        json: Any = None,
        timeout: float | None = None,
        idempotent: bool = False,
        decode: bool = True,
        expect: bool = False,
        route: Route | None = None,
        trace: str | None = None,
    ) -> Response:
        """One request and its complete response. Redirects are responses like others.

        `target`: a path, with or without a query, to which `params` are added. `headers`: a mapping, or pairs where a
        name comes twice. At most one of `body` (bytes, or text as UTF-8), `data` (fields of a form) and `json`.
        `decode`: asks for gzip, deflate, br and zstd, and takes them off. `expect`: a body is sent when the server has
        said that it wants it (100-continue), or after a second. `timeout` is in seconds, for all of it. What is
        idempotent by its method (GET, HEAD, OPTIONS, TRACE, PUT, DELETE) is sent again when a connection is lost;
        `idempotent` says that of others. `route`, `trace`: as in `Endpoint.call`.

        Raises an `iokernel.Error` with its `fate`; a response larger than `max_reply` is a ConnectionLost.
        """
        asked = _asked(method, target, params, headers, body, data, json, decode, expect)
        if timeout is None and route is None and trace is None and not idempotent:
            begun: Any = self._begin(_Reply, asked)
            if begun is not None:
                return begun  # type: ignore[no-any-return]
        loop = running_loop()
        if loop is None:
            return Response(self.call(*asked, timeout=timeout, idempotent=idempotent, route=route, trace=trace))
        flags, key = FLAG_IDEMPOTENT if idempotent else 0, 0
        if route is not None:
            flags, key = flags | FLAG_ROUTE, route_key(route)
        number, ms = self._number or self._open(), 0 if timeout is None else timeout_ms(timeout)
        awaited: Response = self._ask(_Reply, self._kernel.loop_channel(loop), (flags, number, ms, key, asked), trace)
        return awaited

    def get(self, target: str, **options: Any) -> Response:
        """`request("GET", target, ...)`."""
        return self.request("GET", target, **options)

    def head(self, target: str, **options: Any) -> Response:
        """`request("HEAD", target, ...)`."""
        return self.request("HEAD", target, **options)

    def post(self, target: str, **options: Any) -> Response:
        """`request("POST", target, ...)`."""
        return self.request("POST", target, **options)

    def put(self, target: str, **options: Any) -> Response:
        """`request("PUT", target, ...)`."""
        return self.request("PUT", target, **options)

    def patch(self, target: str, **options: Any) -> Response:
        """`request("PATCH", target, ...)`."""
        return self.request("PATCH", target, **options)

    def delete(self, target: str, **options: Any) -> Response:
        """`request("DELETE", target, ...)`."""
        return self.request("DELETE", target, **options)

    def options(self, target: str, **options: Any) -> Response:
        """`request("OPTIONS", target, ...)`."""
        return self.request("OPTIONS", target, **options)

    def stream(
        self,
        method: str,
        target: str,
        *,
        params: Fields | None = None,
        headers: HeadersGiven | None = None,
        body: bytes | bytearray | memoryview | str | bool | None = None,
        data: Fields | None = None,
        json: Any = None,
        timeout: float | None = None,
        decode: bool = True,
        expect: bool = False,
        upgrade: str | None = None,
        route: Route | None = None,
    ) -> Stream:
        """One request whose response comes in pieces, of any length: `with api.stream("GET", "/export") as reply`.

        With `body=True` the body goes in pieces too: `send` each, and `finish`. It is chunked, unless there is a header
        Content-Length. `upgrade` names a protocol to switch to; once the server has switched (status 101) the
        connection is the program's: bytes both ways. `timeout` is in seconds, until the response begins. Other options
        as `request` has them.
        """
        asked = _asked(method, target, params, headers, body, data, json, decode, expect)
        if upgrade is not None:
            asked[4]["upgrade"] = upgrade
        return Stream(self, asked, timeout, route)

    def connect(self, to: str, *, headers: HeadersGiven | None = None, timeout: float | None = None) -> Stream:
        """A tunnel through this server: `connect("db.internal:5432")` (RFC 9110, 9.3.6). Bytes both ways once its
        `status` is of 200 to 299."""
        return Stream(self, ("CONNECT", to, _headers(headers), None, {}), timeout)

    def websocket(
        self,
        target: str,
        *,
        params: Fields | None = None,
        headers: HeadersGiven | None = None,
        protocols: Iterable[str] = (),
        compress: bool = True,
        timeout: float | None = None,
    ) -> WebSocket:
        """A WebSocket: `with api.websocket("/chat") as chat` (RFC 6455).

        Outside of loops this waits until it stands; inside of one, enter it or await it for that. `protocols` are the
        subprotocols to choose from, the best first; `compress` offers permessage-deflate (RFC 7692). Raises StatusError
        if the server answers with something else.
        """
        options = {"upgrade": "websocket", "protocols": list(protocols), "compress": compress}
        asked = ("GET", _target(target, params), _headers(headers), None, options)
        socket = WebSocket(self, asked, timeout)
        if running_loop() is None:
            socket.__enter__()
        return socket


class _NotYet:
    """Stands for the head of a response that has not begun."""

    def __getitem__(self, _: int) -> Any:
        raise RuntimeError("the response has not begun: wait for it with `accepted()`")


_NOT_YET: Any = _NotYet()


def _asked(
    method: str, target: str, params: Any, headers: Any, body: Any, data: Any, json: Any, decode: bool, expect: bool
) -> tuple[str, str, Any, Any, Any]:
    """`[method, target, headers, body, options]`, as the kernel takes it."""
    if params is not None or not target.isascii() or " " in target:
        target = _target(target, params)
    kind = None
    if data is not None or json is not None:
        if (body is not None) + (data is not None) + (json is not None) > 1:
            raise BadRequest("body: expected at most one of body, data and json")
        kind = "application/x-www-form-urlencoded" if json is None else "application/json"
        body = urlencode(data, doseq=True) if json is None else _json.dumps(json, separators=(",", ":"))
    given = _WITH_AGENT if headers is None and kind is None else _headers(headers, kind)
    return method, target, given, body, {"decode": decode, "expect": True} if expect else {"decode": decode}


def _target(target: str, params: Any) -> str:
    if not target.isascii() or " " in target:
        target = quote(target, safe=_SAFE)
    if params:
        joint = "&" if "?" in target else "?"
        target = f"{target}{joint}{urlencode(params, doseq=True)}"
    return target


def _headers(given: Any, kind: str | None = None) -> list[Any]:
    """Pairs; those that every request has are added where they are missing."""
    pairs: list[Any] = []
    for name, value in given.items() if isinstance(given, Mapping) else given or ():
        if isinstance(value, (list, tuple)):
            pairs += ((name, one) for one in value)
        else:
            pairs.append((name, value))
    names = {_text(name).lower() for name, _ in pairs}
    if kind is not None and "content-type" not in names:
        pairs.append(("Content-Type", kind))
    if "user-agent" not in names:
        pairs.append(("User-Agent", AGENT))
    return pairs


def _text(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name


class Stream(Exchange, Head):
    """A request whose response comes in pieces; iterate over it. See `HttpEndpoint.stream`.

    `status`, `headers`, `reason` and `version` are there once the response has begun. Entering it (`with`,
    `async with`) waits for that; not so where the body is to be sent in pieces: there `accepted()` does. `trailers` are
    there at the end.
    """

    def __init__(
        self, endpoint: Endpoint, asked: tuple[Any, ...], timeout: float | None, route: Route | None = None
    ) -> None:
        self._waits = asked[3] is not True
        super().__init__(endpoint, asked, timeout, route)
        self.head = _NOT_YET

    @property
    def trailers(self) -> Headers:
        """The fields that came after the body; none before its end."""
        return Headers(self._value if isinstance(self._value, list) else [])

    def read(self) -> Any:
        """The rest of the body, whole. Blocks outside of loops; inside of one, await it."""
        if running_loop() is None:
            return b"".join(self)
        return self._read()

    async def _read(self) -> bytes:
        return b"".join([piece async for piece in self])

    def raise_for_status(self: S) -> S:
        """Itself, or StatusError for a status of 400 and above; the body was not read then."""
        if self.status >= 400:
            raise status_error(Response([self.status, self.headers.raw, b"", self.reason, self.version, None]))
        return self

    def __enter__(self: S) -> S:
        if self._waits:
            self._settle()
        return self

    def _settle(self) -> None:
        try:
            self.accepted()
        except BaseException:
            self.close()
            raise

    async def __aenter__(self: S) -> S:
        if self._waits:
            try:
                await self.accepted()
            except BaseException:
                self.close()
                raise
        return self


class WebSocket(Stream):
    """Messages both ways: str is a text message, bytes a binary one. See `HttpEndpoint.websocket`.

    Iterate over what comes, or `receive` it; `send` what goes, from another thread or task if need be. The kernel
    answers pings and sends its own, whatever the program is doing (`heartbeat=`, `max_silence=`). Iteration ends when
    the peer has closed it; a connection that is lost without that raises ConnectionLost.
    """

    def _completion(self, done: Completion) -> None:
        if done.kind == KIND_END and done.value()[0] == LOST:
            self.last_word = [LOST, ""]
            return  # What it was lost by follows.
        super()._completion(done)

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the server has chosen."""
        return self.headers.get("sec-websocket-protocol")

    @property
    def close_code(self) -> int | None:
        """The code that the peer closed it with (1005: none, 1006: it was lost); None while it is open."""
        if self.last_word:
            code: int = self.last_word[0]
            return code
        return None if self._error is None else LOST

    @property
    def close_reason(self) -> str:
        """What the peer said about that."""
        return self.last_word[1] if self.last_word else ""

    def accepted(self, timeout: float | None = None) -> Any:
        accepted = super().accepted(timeout)
        return self._checked() if running_loop() is None else self._accepted(accepted)

    async def _accepted(self, accepted: Any) -> WebSocket:
        await accepted
        return self._checked()

    def _checked(self) -> WebSocket:
        if self.status == 101:
            return self
        response = Response([self.status, self.headers.raw, b"", self.reason, self.version, None])
        Exchange.close(self)
        raise status_error(response)

    def _gone(self) -> Any:
        if self._error is None and self.last_word:
            return Closed(f"the peer has closed it: {self.close_code} {self.close_reason}".rstrip(), status=-103)
        return super()._gone()

    def ping(self, payload: bytes = b"") -> Any:
        """Sends a ping of at most 125 bytes. What comes back shows in no way but that the connection lives."""
        return self.send({"ping": payload})

    def close(self, code: int = 1000, reason: str = "", timeout: float = GOODBYE_S) -> Any:
        """Closes it: says why, and waits for the peer's last word for `timeout` seconds. Inside of a loop, await it.
        Messages that came before can still be taken. Twice is harmless."""
        if not self._over and self._is_accepted:
            with contextlib.suppress(Closed, BadRequest):  # The peer was first.
                self._submit([code, reason])
        if running_loop() is None:
            if self._is_accepted:
                self._users.block(lambda: self._over, timeout)
            return Exchange.close(self)
        return self._closed_later(timeout)

    async def _closed_later(self, timeout: float) -> None:
        try:
            if self._is_accepted:
                await self._users.until(lambda: self._over, timeout)
        finally:
            Exchange.close(self)

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aexit__(self, *_: object) -> None:
        await self.close()
