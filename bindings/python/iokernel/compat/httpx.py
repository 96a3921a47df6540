"""httpx over the kernel: `httpx.Client(transport=iokernel.compat.httpx.Transport())`.

Or `Client()` and `AsyncClient()` of this module, which take what httpx's take, proxies and the environment included.
Redirects, cookies, authentication and decoding stay httpx's. The transports take its timeouts, limits and proxies, and
raise its exceptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import httpx

from iokernel._errors import BadRequest, ConnectionLost, Error, Timeout, Unavailable
from iokernel._exchange import Exchange

from ._http import (
    Enough,
    Fields,
    Origin,
    Steps,
    begin,
    is_of_tls,
    origin_url,
    run,
    run_in_loop,
    send_all,
    send_one,
    unix_url,
)

__all__ = ["AsyncClient", "AsyncTransport", "Client", "Transport"]

ORIGINS_MAX = 100
"""Endpoints that a transport keeps; the one that was unused for longest goes first."""
PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Between attempts to connect (`retries=`), as httpx has them."""

_PORTS = {"http": 80, "https": 443}


class _Base:
    """What both transports have: options, origins, requests."""

    def __init__(
        self,
        verify: Any = True,
        cert: Any = None,
        trust_env: bool = True,
        http1: bool = True,
        http2: bool = False,
        limits: httpx.Limits = httpx.Limits(max_connections=100, max_keepalive_connections=20),  # noqa: B008
        proxy: Any = None,
        uds: str | None = None,
        local_address: str | None = None,
        retries: int = 0,
        socket_options: Iterable[Any] | None = None,
    ) -> None:
        if local_address is not None:
            raise ValueError(f"local_address: {local_address!r}: expected None: the kernel lets the system choose")
        if not http1:
            raise ValueError("http1: False: expected True: the kernel speaks HTTP/1.1")
        self._proxy = httpx.Proxy(proxy) if isinstance(proxy, (str, httpx.URL)) else proxy
        self._uds = uds
        self._retries = retries
        self._limits = limits
        self._tls = _tls_options(verify, cert, trust_env)
        self._origins: OrderedDict[tuple[str, str, int], Origin] = OrderedDict()
        self._lock = threading.Lock()

    def _origin(self, url: httpx.URL) -> Origin:
        if url.scheme not in _PORTS:
            raise httpx.UnsupportedProtocol(
                f"Request URL has an unsupported protocol '{url.scheme}://'."
                if url.scheme
                else "Request URL is missing an 'http://' or 'https://' protocol."
            )
        key = url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]
        with self._lock:
            origin = self._origins.get(key)
            if origin is None:
                origin = self._origins[key] = self._open(*key)
                if len(self._origins) > ORIGINS_MAX:
                    self._origins.popitem(last=False)
            self._origins.move_to_end(key)
            return origin

    def _open(self, scheme: str, host: str, port: int) -> Origin:
        expiry = self._limits.keepalive_expiry
        options: dict[str, Any] = dict(self._tls) if scheme == "https" else {}
        options["lane_idle"] = None if expiry is None else f"{max(round(expiry * 1000), 1)}ms"
        if self._uds is not None:
            return Origin(unix_url(self._uds), options)
        if self._proxy is None:
            return Origin(origin_url(scheme, host, port), options)
        proxy = self._proxy.url
        if self._forwards(scheme):
            port = proxy.port or _PORTS[proxy.scheme]
            return Origin(origin_url(proxy.scheme, proxy.host, port), {**options, **self._proxy_tls()})
        if proxy.scheme == "https":
            raise httpx.UnsupportedProtocol(
                "https:// through a proxy of https://: the kernel tunnels through http://, "
                "socks5:// and socks5h:// alone"
            )
        user, _, password = self._credentials().partition(":")
        at = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user or password else ""
        default = _PORTS.get(proxy.scheme, 1080)
        address = origin_url(proxy.scheme, proxy.host, proxy.port or default)
        return Origin(origin_url(scheme, host, port), {**options, "proxy": address.replace("://", f"://{at}", 1)})

    def _proxy_tls(self) -> dict[str, Any]:
        return self._tls if self._proxy is not None and self._proxy.url.scheme == "https" else {}

    def _forwards(self, scheme: str) -> bool:
        """The proxy is asked for the resource, and not for a tunnel."""
        return self._proxy is not None and scheme == "http" and self._proxy.url.scheme in _PORTS

    def _credentials(self) -> str:
        auth = self._proxy.auth if self._proxy is not None else None
        return "" if auth is None else f"{auth[0]}:{auth[1]}"

    def _asked(self, request: httpx.Request, whole: bytes | None) -> tuple[Any, ...]:
        """What the kernel is asked for. `whole`: the body, or None where it comes in pieces."""
        fields = Fields(request.headers.raw)
        if str(fields.options.get("upgrade", "")).lower() == "websocket":
            raise httpx.UnsupportedProtocol("WebSockets are opened by an endpoint's `websocket`")
        target = request.url.raw_path
        if self._forwards(request.url.scheme):
            target = b"%s://%s%s" % (request.url.raw_scheme, request.url.netloc, target)
            fields.pairs[:0] = self._for_proxy()
        if request.method == "CONNECT":
            target = request.url.raw_path.lstrip(b"/")
        body: Any = True if whole is None else whole or None
        if whole == b"" and request.headers.get("content-length") == "0":
            body = b""
        return request.method, target, fields.pairs, body, fields.options

    def _for_proxy(self) -> list[tuple[bytes, bytes]]:
        assert self._proxy is not None
        pairs = list(self._proxy.headers.raw)
        if self._proxy.auth is not None:
            name, value = httpx.BasicAuth(*self._proxy.auth)._auth_header, b"Proxy-Authorization"
            pairs.insert(0, (value, name.encode()))
        return pairs

    def _translated(self, error: Error, request: httpx.Request | None) -> Exception:
        """httpx's exception for the kernel's error."""
        kind: type[httpx.TransportError]
        if isinstance(error, Timeout):
            kinds = {"CONNECT": httpx.ConnectTimeout, "WRITE": httpx.WriteTimeout}
            kind = kinds.get(error.code, httpx.ReadTimeout)
        elif is_of_tls(error):
            kind = httpx.ConnectError
        elif isinstance(error, Unavailable):
            tunnels = self._proxy is not None and "proxy" in error.message
            kind = httpx.ConnectTimeout if error.code == "NOANSWER" else httpx.ConnectError
            if tunnels and "Connection refused" not in error.message and kind is httpx.ConnectError:
                kind = httpx.ProxyError
        elif isinstance(error, BadRequest):
            kind = httpx.LocalProtocolError
        elif isinstance(error, ConnectionLost):
            by_peer = error.code == "PROTOCOL" or "closed the conn" in error.message
            kind = httpx.RemoteProtocolError if by_peer else httpx.ReadError
        else:
            kind = httpx.NetworkError
        return kind(error.message, request=request)

    def _response(self, exchange: Exchange, stream: Any) -> httpx.Response:
        status, headers, _, reason, version = exchange.head
        extensions = {
            "http_version": b"HTTP/1.1" if version == 11 else b"HTTP/1.0",
            "reason_phrase": reason.encode("latin-1", "replace"),
            "network_stream": stream.network,
        }
        pairs = [(name, value) for name, value in headers]
        return httpx.Response(status, headers=pairs, stream=stream, extensions=extensions)


def _tls_options(verify: Any, cert: Any, trust_env: bool) -> dict[str, Any]:
    """The kernel's options for httpx's."""
    options: dict[str, Any] = {}
    if verify is False:
        options["tls_verify"] = False
    elif isinstance(verify, str):
        options["tls_ca"] = verify
    elif verify is not True:
        raise TypeError(
            f"verify: {verify!r}: expected True, False or the path of a file of certificates: TLS is the "
            "kernel's, which has no ssl.SSLContext"
        )
    elif trust_env and os.environ.get("SSL_CERT_FILE"):
        options["tls_ca"] = os.environ["SSL_CERT_FILE"]
    if cert is not None:
        files = (cert, cert) if isinstance(cert, str) else cert
        if len(files) > 2:
            raise ValueError("cert: expected no password: the kernel reads keys that have none")
        options["tls_cert"], options["tls_key"] = files[0], files[-1]
    return options


def _times(request: httpx.Request) -> tuple[float | None, float | None, float | None, float | None]:
    times = request.extensions.get("timeout", {})
    return times.get("connect"), times.get("write"), times.get("read"), times.get("pool")


class Transport(_Base, httpx.BaseTransport):
    """A transport for `httpx.Client`; the arguments of `httpx.HTTPTransport`. Any thread.

    `verify` is True, False, or the path of a file of certificates; `local_address` and `socket_options` are the
    system's. The limit `max_connections` is of requests at a time, `keepalive_expiry` is kept by the kernel, and
    `max_keepalive_connections` has no counterpart.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        most = self._limits.max_connections
        self._places = None if most is None else threading.BoundedSemaphore(most)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        connect, write, read, pool = _times(request)
        origin = self._origin(request.url)
        if self._places is not None and not self._places.acquire(timeout=pool):
            raise httpx.PoolTimeout("no place within the limit max_connections was free in time", request=request)
        place = _Place(self._places)
        try:
            for pause in (*PAUSES_S[: self._retries], *(8.0,) * (self._retries - len(PAUSES_S)), None):
                try:
                    return self._send(request, origin, place, connect, write, read)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if pause is None or not isinstance(request.stream, httpx.ByteStream):
                        raise
                    time.sleep(pause)
        except BaseException:
            place.leave()
            raise
        raise AssertionError("the last attempt returns or raises")

    def _send(self, request: httpx.Request, origin: Origin, place: _Place, *times: float | None) -> httpx.Response:
        connect, write, read = times
        pieces: Any = request.stream
        whole = b"".join(pieces) if isinstance(pieces, httpx.ByteStream) else None
        exchange = origin.exchange(*self._asked(request, whole), blocks=True)
        try:
            if whole is None:
                run(send_all(exchange, pieces, connect, write))
            run(begin(exchange, connect, write, read))
        except Error as error:
            exchange.close()
            raise self._translated(error, request) from error
        except BaseException:
            exchange.close()
            raise
        return self._response(exchange, _Pieces(self, exchange, origin, place, read))

    def close(self) -> None:
        with self._lock:
            self._origins.clear()


class _Place:
    """One of so many requests at a time."""

    __slots__ = ("_places",)

    def __init__(self, places: Any) -> None:
        self._places = places

    def leave(self) -> None:
        places, self._places = self._places, None
        if places is not None:
            places.release()


class _Held:
    """What the body of a response holds until it is closed."""

    def __init__(self, transport: _Base, exchange: Exchange, origin: Origin, place: _Place, read: float | None) -> None:
        self._transport = transport
        self._exchange = exchange
        self._origin = origin
        self._place = place
        self._read = read
        self._is_lane = exchange.head[0] == 101

    def _let_go(self) -> None:
        self._exchange.close()
        self._place.leave()

    def __del__(self) -> None:
        self._place.leave()


class _Pieces(_Held, httpx.SyncByteStream):
    """The body of a response."""

    @property
    def network(self) -> _Network:
        return _Network(self)

    def __iter__(self) -> Iterator[bytes]:
        while not self._is_lane:
            try:
                piece = self._exchange.receive(self._read, None)
            except Error as error:
                raise self._transport._translated(error, None) from error
            if piece is None:
                return
            yield piece

    def close(self) -> None:
        self._let_go()


class _Network:
    """The connection after an upgrade (status 101, or CONNECT): bytes both ways."""

    def __init__(self, of: _Pieces) -> None:
        self._of = of
        self._rest = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._rest:
            try:
                self._rest = self._of._exchange.receive(timeout, b"")
            except Error as error:
                raise self._of._transport._translated(error, None) from error
        part, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return part

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._of._exchange.send(buffer, timeout=timeout)
        except Timeout as error:
            raise httpx.WriteTimeout(error.message) from error
        except Error as error:
            raise httpx.WriteError(error.message) from error

    def close(self) -> None:
        self._of.close()

    def get_extra_info(self, info: str) -> Any:
        return None


class AsyncTransport(_Base, httpx.AsyncBaseTransport):
    """A transport for `httpx.AsyncClient`, inside of asyncio's loops; see `Transport`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._places: weakref.WeakKeyDictionary[Any, asyncio.Semaphore] = weakref.WeakKeyDictionary()

    async def _place(self, request: httpx.Request, patience: float | None) -> _Place:
        most = self._limits.max_connections
        if most is None:
            return _Place(None)
        loop = asyncio.get_running_loop()
        places = self._places.get(loop)
        if places is None:
            places = self._places[loop] = asyncio.Semaphore(most)
        try:
            if places.locked():
                await asyncio.wait_for(places.acquire(), patience)
            else:
                await places.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("no place within the limit max_connections was free in time") from None
        return _Place(places)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if asyncio._get_running_loop() is None:
            raise RuntimeError("the transport lives in asyncio's loops; none is running here")
        connect, write, read, pool = _times(request)
        origin = self._origin(request.url)
        place = await self._place(request, pool)
        try:
            for pause in (*PAUSES_S[: self._retries], *(8.0,) * (self._retries - len(PAUSES_S)), None):
                try:
                    return await self._send(request, origin, place, connect, write, read)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    if pause is None or not isinstance(request.stream, httpx.ByteStream):
                        raise
                    await asyncio.sleep(pause)
        except BaseException:
            place.leave()
            raise
        raise AssertionError("the last attempt returns or raises")

    async def _send(
        self, request: httpx.Request, origin: Origin, place: _Place, *times: float | None
    ) -> httpx.Response:
        connect, write, read = times
        pieces: Any = request.stream
        whole = b"".join(pieces) if isinstance(pieces, httpx.ByteStream) else None
        exchange = origin.exchange(*self._asked(request, whole), blocks=False)
        try:
            if whole is None:
                await _send_all(exchange, pieces, connect, write)
            await run_in_loop(begin(exchange, connect, write, read))
        except Error as error:
            exchange.close()
            raise self._translated(error, request) from error
        except BaseException:
            exchange.close()
            raise
        return self._response(exchange, _AsyncPieces(self, exchange, origin, place, read))

    async def aclose(self) -> None:
        with self._lock:
            self._origins.clear()


async def _send_all(exchange: Exchange, pieces: Any, connect: float | None, write: float | None) -> None:
    """`send_all` for what is iterated over asynchronously."""

    def one(piece: bytes | None) -> Steps:
        return send_one(exchange, piece, connect, write)

    with contextlib.suppress(Enough):
        async for piece in pieces:
            if piece:
                await run_in_loop(one(piece))
        await run_in_loop(one(None))


class _AsyncPieces(_Held, httpx.AsyncByteStream):
    """The body of a response."""

    @property
    def network(self) -> _AsyncNetwork:
        return _AsyncNetwork(self)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._is_lane:
            try:
                piece = await self._exchange.receive(self._read, None)
            except Error as error:
                raise self._transport._translated(error, None) from error
            if piece is None:
                return
            yield piece

    async def aclose(self) -> None:
        self._let_go()


class _AsyncNetwork:
    """The connection after an upgrade: bytes both ways."""

    def __init__(self, of: _AsyncPieces) -> None:
        self._of = of
        self._rest = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not self._rest:
            try:
                self._rest = await self._of._exchange.receive(timeout, b"")
            except Error as error:
                raise self._of._transport._translated(error, None) from error
        part, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return part

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            await self._of._exchange.send(buffer, timeout=timeout)
        except Timeout as error:
            raise httpx.WriteTimeout(error.message) from error
        except Error as error:
            raise httpx.WriteError(error.message) from error

    async def aclose(self) -> None:
        self._of._let_go()

    def get_extra_info(self, info: str) -> Any:
        return None


class Client(httpx.Client):
    """`httpx.Client` over the kernel, proxies and the environment's included."""

    def _init_transport(self, transport: Any = None, **options: Any) -> httpx.BaseTransport:  # type: ignore[override]
        return transport if transport is not None else Transport(**options)

    def _init_proxy_transport(self, proxy: Any, **options: Any) -> httpx.BaseTransport:  # type: ignore[override]
        return Transport(proxy=proxy, **options)


class AsyncClient(httpx.AsyncClient):
    """`httpx.AsyncClient` over the kernel, proxies and the environment's included."""

    def _init_transport(self, transport: Any = None, **options: Any) -> httpx.AsyncBaseTransport:  # type: ignore[override]
        return transport if transport is not None else AsyncTransport(**options)

    def _init_proxy_transport(self, proxy: Any, **options: Any) -> httpx.AsyncBaseTransport:  # type: ignore[override]
        return AsyncTransport(proxy=proxy, **options)
