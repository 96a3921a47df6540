"""urllib3 whose connections are the kernel's: `iokernel.compat.urllib3.PoolManager()` in the place of urllib3's own.

Pools, retries, redirects, decoding and exceptions are urllib3's. What it calls a connection is the right to one request
at a time; which socket serves that, kept alive or fresh, is the kernel's business.
"""

from __future__ import annotations

import io
import ssl
from base64 import b64decode
from collections.abc import Mapping
from http.client import HTTPMessage, RemoteDisconnected, ResponseNotReady
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import urllib3
from urllib3 import exceptions
from urllib3.poolmanager import PoolManager as _PoolManager
from urllib3.poolmanager import ProxyManager as _ProxyManager
from urllib3.response import HTTPResponse as _HTTPResponse
from urllib3.util import SKIP_HEADER, SKIPPABLE_HEADERS, Timeout, Url
from urllib3.util.request import body_to_chunks

from iokernel._errors import ConnectionLost, Error, Unavailable
from iokernel._errors import Timeout as KernelTimeout
from iokernel._exchange import Exchange

from ._http import CONNECT_S, Fields, Origin, begin, is_of_tls, origin_url, run, send_all

__all__ = ["HTTPConnectionPool", "HTTPSConnectionPool", "PoolManager", "ProxyManager", "SOCKSProxyManager"]

_DEFAULT: Any = Timeout.DEFAULT_TIMEOUT
_IS_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
AGENT = f"python-urllib3/{urllib3.__version__}"  # type: ignore[attr-defined]


class HTTPConnection:
    """One request at a time, as `urllib3.connection.HTTPConnection` has it."""

    scheme: ClassVar[str] = "http"
    default_port: ClassVar[int] = 80
    default_socket_options: ClassVar[list[Any]] = []

    is_verified = False
    proxy_is_verified: bool | None = None

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        timeout: Any = _DEFAULT,
        source_address: tuple[str, int] | None = None,
        blocksize: int = 16384,
        socket_options: Any = None,
        proxy: Url | None = None,
        proxy_config: Any = None,
        _socks_options: Mapping[str, Any] | None = None,
    ) -> None:
        if source_address is not None:
            raise ValueError(f"source_address: {source_address!r}: expected None: the kernel lets the system choose")
        self.host = host.rstrip(".")
        self._dns_host = host
        self.port = self.default_port if port is None else port
        self.timeout = Timeout.resolve_default_timeout(timeout)
        self.source_address = source_address
        self.blocksize = blocksize
        self.socket_options = socket_options
        self.proxy = proxy
        self.proxy_config = proxy_config
        self.origins: dict[str, Origin] = {}
        """Those of the pool."""
        self._socks = _socks_options
        self._tunnel: tuple[str, int, str] | None = None
        self._connect_timeout: float | None = None
        self._exchange: Exchange | None = None
        self._origin: Origin | None = None
        self._asked: tuple[str, str, dict[str, bool]] | None = None
        self._response: Body | None = None
        self._is_open = self._met_proxy = False

    def __str__(self) -> str:
        return f"{type(self).__name__}(host={self.host!r}, port={self.port!r})"

    # What the pool asks

    @property
    def is_closed(self) -> bool:
        return not self._is_open

    @property
    def is_connected(self) -> bool:
        return self._is_open

    @property
    def has_connected_to_proxy(self) -> bool:
        return self._met_proxy

    @property
    def proxy_is_forwarding(self) -> bool:
        return bool(self.proxy) and self._tunnel is None

    @property
    def proxy_is_tunneling(self) -> bool:
        return self._tunnel is not None

    def connect(self) -> None:
        """The kernel connects when there is a request."""
        self._is_open = True

    def set_tunnel(
        self, host: str, port: int | None = None, headers: Mapping[str, str] | None = None, scheme: str = "http"
    ) -> None:
        """Requests go through the proxy to there."""
        proxy = origin_url("http", self.host, self.port)
        for name, value in (headers or {}).items():
            if name.lower() != "proxy-authorization" or not value.startswith("Basic "):
                raise ValueError(
                    f"proxy header {name}: expected none but a Proxy-Authorization of Basic: the kernel "
                    "speaks with the proxy"
                )
            user, _, password = b64decode(value[6:]).decode("latin-1").partition(":")
            proxy = proxy.replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)
        self._tunnel = (host, 443 if port is None else port, proxy)

    def close(self) -> None:
        exchange, self._exchange = self._exchange, None
        response, self._response = self._response, None
        self._is_open = self._met_proxy = False
        self._tunnel = self._asked = None
        if exchange is not None:
            exchange.close()
        if response is not None:
            response.close()

    # A request

    def _options(self) -> dict[str, Any]:
        """Of the endpoint."""
        if self._tunnel is not None:
            return {"proxy": self._tunnel[2]}
        return {"proxy": self._socks["proxy"]} if self._socks else {}

    def _find_origin(self) -> Origin:
        scheme, options = self.scheme, self._options()
        if self.proxy is not None and self._tunnel is None:
            scheme = self.proxy.scheme or "http"
        host, port = self._tunnel[:2] if self._tunnel is not None else (self._dns_host, self.port)
        url = origin_url(scheme, host, port)
        key = repr((url, sorted(options.items())))
        origin = self.origins.get(key)
        if origin is None:
            origin = self.origins[key] = Origin(url, options)
        return origin

    def request(
        self,
        method: str,
        url: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        chunked: bool = False,
        preload_content: bool = True,
        decode_content: bool = True,
        enforce_content_length: bool = True,
    ) -> None:
        """Sends a request, as `urllib3.connection.HTTPConnection.request` does."""
        if self._exchange is not None:
            self._exchange.close()
        self._asked = (
            method,
            url,
            {
                "preload_content": preload_content,
                "decode_content": decode_content,
                "enforce_content_length": enforce_content_length,
            },
        )
        _check_method(method)
        chunks, length = body_to_chunks(body, method=method, blocksize=self.blocksize)
        fields, chunked = _fields(headers or {}, chunked, length, chunks is not None)
        self._connect_timeout = self.timeout
        self._origin = self._find_origin()
        self._is_open = True
        whole = (
            b"".join(map(_bytes, chunks)) if chunks is not None and isinstance(body, (bytes, bytearray, str)) else None
        )
        in_pieces = (chunks is not None and whole is None) or chunked
        sent = True if in_pieces else whole
        self._exchange = self._origin.exchange(method, url, fields.pairs, sent, fields.options, blocks=True)
        if in_pieces:
            run(send_all(self._exchange, map(_bytes, chunks or ()), self.timeout, self.timeout))

    def request_chunked(self, method: str, url: str, body: Any = None, headers: Any = None) -> None:
        self.request(method, url, body=body, headers=headers, chunked=True)

    def getresponse(self) -> Response:
        """Waits for the response to begin."""
        exchange, asked, origin = self._exchange, self._asked, self._origin
        if exchange is None or asked is None or origin is None:
            raise ResponseNotReady
        self._exchange = self._asked = None
        try:
            run(begin(exchange, self._connect_timeout, self._connect_timeout, self.timeout))
        except Error as error:
            exchange.close()
            raise self._translated(error) from error
        self._met_proxy = bool(self.proxy)
        self._response = Body(exchange, origin, asked[0], self.timeout)
        method, url, options = asked
        return Response(
            body=self._response,
            headers=self._response.headers,
            status=self._response.status,
            version=self._response.version,
            version_string=f"HTTP/{self._response.version / 10:.1f}",
            reason=self._response.reason,
            original_response=self._response,  # type: ignore[arg-type]
            request_method=method,
            request_url=url,
            sock_shutdown=lambda how: exchange.close(),
            **options,  # type: ignore[arg-type]
        )

    def _translated(self, error: Error) -> Exception:
        """What urllib3's connection would have raised."""
        this: Any = self
        self._is_open = False
        if (isinstance(error, KernelTimeout) and error.code == "CONNECT") or error.code == "NOANSWER":
            within = CONNECT_S if self._connect_timeout is None else self._connect_timeout
            text = f"Connection to {self.host} timed out. (connect timeout={within})"
            return exceptions.ConnectTimeoutError(this, text)
        if isinstance(error, KernelTimeout):
            return TimeoutError("timed out")
        if is_of_tls(error):
            kind = ssl.SSLCertVerificationError if "certificate" in error.message else ssl.SSLError
            return kind(1, error.message)
        if isinstance(error, Unavailable) and self._tunnel is not None:
            return OSError(f"Tunnel connection failed: {error.message}")
        if error.code == "NONAME":
            return exceptions.NameResolutionError(self.host, this, OSError(error.message))  # type: ignore[arg-type]
        if isinstance(error, Unavailable):
            text = f"Failed to establish a new connection: {error.message}"
            return exceptions.NewConnectionError(this, text)
        if isinstance(error, ConnectionLost) and "without a reply" in error.message:
            return RemoteDisconnected("Remote end closed connection without response")
        if isinstance(error, ConnectionLost) and error.status_name == "PROTOCOL":
            return exceptions.ProtocolError("Connection aborted.", error)
        return error


class HTTPSConnection(HTTPConnection):
    """The same over TLS."""

    scheme: ClassVar[str] = "https"
    default_port: ClassVar[int] = 443

    def __init__(
        self,
        host: str,
        port: int | None = None,
        *,
        cert_reqs: Any = None,
        assert_hostname: Any = None,
        assert_fingerprint: str | None = None,
        server_hostname: str | None = None,
        ssl_context: Any = None,
        ca_certs: str | None = None,
        ca_cert_dir: str | None = None,
        ca_cert_data: Any = None,
        ssl_minimum_version: int | None = None,
        ssl_maximum_version: int | None = None,
        ssl_version: Any = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        key_password: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(host, port, **options)
        refused = {
            "ssl_context": ssl_context,
            "assert_fingerprint": assert_fingerprint,
            "ca_cert_dir": ca_cert_dir,
            "ca_cert_data": ca_cert_data,
            "key_password": key_password,
        }
        for name, value in refused.items():
            if value is not None:
                raise ValueError(f"{name}: expected None: the kernel takes ca_certs, cert_file and key_file")
        self.cert_reqs, self.assert_hostname = cert_reqs, assert_hostname
        self.ca_certs, self.cert_file, self.key_file = ca_certs, cert_file, key_file
        self.server_hostname = server_hostname
        self._verifies = cert_reqs not in (0, "CERT_NONE", "NONE")
        self.is_verified = self._verifies

    def _options(self) -> dict[str, Any]:
        name = self.server_hostname or (self.assert_hostname if isinstance(self.assert_hostname, str) else None)
        return {
            **super()._options(),
            "tls_verify": None if self._verifies else False,
            "tls_ca": self.ca_certs if self._verifies else None,
            "tls_cert": self.cert_file,
            "tls_key": self.key_file or self.cert_file,
            "tls_server_name": name,
        }


def _check_method(method: str) -> None:
    if not method or not _IS_TOKEN.issuperset(method):
        raise ValueError(f"Method cannot contain non-token characters {method!r}")


def _bytes(piece: bytes | str) -> bytes:
    return piece.encode() if isinstance(piece, str) else bytes(piece)


def _fields(headers: Mapping[str, str], chunked: bool, length: int | None, has_body: bool) -> tuple[Fields, bool]:
    """The header fields of a request in the order in which urllib3 writes them, and whether its body is chunked."""
    names = {_name(name).lower() for name in headers}
    if not chunked and "content-length" not in names:
        chunked = "transfer-encoding" in names or (length is None and has_body)
    fields = Fields(framed=not chunked)
    if "accept-encoding" not in names:
        fields.add("Accept-Encoding", "identity")
    if not chunked and "content-length" not in names and length is not None:
        fields.add("Content-Length", length)
    if "user-agent" not in names:
        fields.add("User-Agent", AGENT)
    for name, value in headers.items():
        if value != SKIP_HEADER:
            fields.add(name, value)
        elif _name(name).lower() not in SKIPPABLE_HEADERS:
            raise ValueError(f"urllib3.util.SKIP_HEADER only supports {sorted(SKIPPABLE_HEADERS)}")
    return fields, chunked


def _name(name: str | bytes) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else name


class Body(io.BufferedIOBase):
    """A response as `http.client` has it: what urllib3's HTTPResponse reads from."""

    def __init__(self, exchange: Exchange, origin: Origin, method: str, timeout: float | None) -> None:
        self._exchange = exchange
        self._origin = origin
        self._method = method
        self._timeout = timeout
        self._rest = b""
        self._count = 0
        self._is_over = False
        self.status, raw, _, self.reason, self.version = exchange.head
        self.headers = urllib3.HTTPHeaderDict()
        for name, value in raw:
            self.headers.add(name.decode("latin-1"), value.decode("latin-1"))
        self.fp: Body | None = self
        self._msg: HTTPMessage | None = None
        length = self.headers.get("content-length", "")
        self._left = int(length) if length.isdigit() and method != "HEAD" else None

    @property
    def msg(self) -> HTTPMessage:
        """The headers as cookie jars want them."""
        if self._msg is None:
            self._msg = HTTPMessage()
            for name, value in self.headers.iteritems():
                self._msg[name] = value
        return self._msg

    def getheader(self, name: str, default: str | None = None) -> str | None:
        return self.headers.get(name, default)

    def getheaders(self) -> list[tuple[str, str]]:
        return list(self.headers.iteritems())

    def isclosed(self) -> bool:
        """Everything was read, or nobody will."""
        return self.fp is None

    @property
    def closed(self) -> bool:
        return self.fp is None

    def readable(self) -> bool:
        return True

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.fp = None
        self._exchange.close()

    def readline(self, size: int | None = -1, /) -> bytes:
        """urllib3 looks for what follows the last chunk: the kernel has read it."""
        return b""

    def peek(self, size: int = 0, /) -> int:
        """How many bytes have come and were not read, waiting for the first; 0 at the end."""
        while not self._rest and not self._is_over:
            self._more()
        return len(self._rest)

    def _more(self) -> None:
        try:
            piece = self._exchange.receive(self._timeout, None)
        except ConnectionLost as error:
            if error.code == "PROTOCOL":
                raise exceptions.ProtocolError(f"Connection broken: {error.message}", error) from error
            if self._left is None:
                raise exceptions.ProtocolError("Response ended prematurely", error) from error
            raise exceptions.IncompleteRead(self._count, self._left) from error
        if piece is None:
            self._is_over = True
            return
        self._rest = piece
        self._count += len(piece)
        if self._left is not None:
            self._left -= len(piece)

    def _ended(self) -> None:
        self.close()

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly so many bytes, fewer only at the end; None or -1: the rest."""
        if self.fp is None:
            return b""
        if size is None or size < 0:
            parts = [self._rest]
            self._rest = b""
            while self.peek():
                parts.append(self._rest)
                self._rest = b""
            self._ended()
            return b"".join(parts)
        parts, wanted = [], size
        while wanted and self.peek():
            part, self._rest = self._rest[:wanted], self._rest[wanted:]
            parts.append(part)
            wanted -= len(part)
        if (self._is_over and not self._rest) or (self._left == 0 and not self._rest):
            self._ended()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def read1(self, size: int | None = -1, /) -> bytes:
        """What has come, waiting for the first of it."""
        if self.fp is None or not self.peek():
            self._ended()
            return b""
        size = len(self._rest) if size is None or size < 0 else size
        part, self._rest = self._rest[:size], self._rest[size:]
        return part

    def readinto(self, buffer: Any, /) -> int:
        part = self.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


class Response(_HTTPResponse):
    """urllib3's response; chunks are the pieces that the kernel hands over, as they come."""

    def _update_chunk_length(self) -> None:
        if self.chunk_left is None:
            body: Any = self._fp
            self.chunk_left = body.peek()

    def _handle_chunk(self, amt: int | None) -> bytes:
        assert self.chunk_left is not None and self._fp is not None
        chunk: bytes = self._fp.read(self.chunk_left if amt is None else min(amt, self.chunk_left))
        self.chunk_left = None
        return chunk


class _Pool:
    """What both pools have of the kernel: the endpoints that their connections share."""

    def _new_conn(self) -> Any:
        conn = super()._new_conn()  # type: ignore[misc]
        conn.origins = self.__dict__.setdefault("_iok_origins", {})
        return conn


class HTTPConnectionPool(_Pool, urllib3.HTTPConnectionPool):
    """Of one origin."""

    ConnectionCls = HTTPConnection  # type: ignore[assignment]


class HTTPSConnectionPool(_Pool, urllib3.HTTPSConnectionPool):
    """Of one origin."""

    ConnectionCls = HTTPSConnection  # type: ignore[assignment]


POOLS = {"http": HTTPConnectionPool, "https": HTTPSConnectionPool}


class PoolManager(_PoolManager):
    """`urllib3.PoolManager` over the kernel: `PoolManager().request("GET", "http://example.com/")`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.pool_classes_by_scheme = POOLS


class ProxyManager(_ProxyManager):
    """`urllib3.ProxyManager` over the kernel."""

    def __init__(self, proxy_url: str, *args: Any, **options: Any) -> None:
        super().__init__(proxy_url, *args, **options)
        self.pool_classes_by_scheme = POOLS


class SOCKSProxyManager(PoolManager):
    """`urllib3.contrib.socks.SOCKSProxyManager` over the kernel: `socks5://` and `socks5h://`, which has the proxy look
    names up."""

    def __init__(
        self, proxy_url: str, username: str | None = None, password: str | None = None, **options: Any
    ) -> None:
        parts = urlsplit(proxy_url)
        if parts.scheme not in ("socks5", "socks5h"):
            raise ValueError(f"Unable to determine SOCKS version from {proxy_url}")
        user, secret = username or parts.username, password or parts.password
        credentials = f"{quote(user, safe='')}:{quote(secret or '', safe='')}@" if user else ""
        address = origin_url(parts.scheme, parts.hostname or "", parts.port or 1080)
        proxy = address.replace("://", f"://{credentials}", 1)
        super().__init__(_socks_options={"proxy": proxy}, **options)
