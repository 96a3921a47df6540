"""Who a proxy says the client is and by which scheme it came (X-Forwarded-For, X-Forwarded-Proto), and the path that a
proxy has mounted the application at. Only what trusted peers say is believed."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Any

from ._options import Options


class Trust:
    """Whose headers are believed: addresses and networks, or everyone's. Unix sockets are trusted, as only this machine
    has them, unless nobody is."""

    def __init__(self, listed: str) -> None:
        words = [word.strip() for word in listed.split(",") if word.strip()]
        self.everyone = "*" in words
        self.nobody = not words
        self._networks = [ipaddress.ip_network(word, strict=False) for word in words if word != "*"]
        self.believes = lru_cache(maxsize=1024)(self._believes)

    def _believes(self, host: str) -> bool:
        if self.everyone:
            return True
        if not host:
            return not self.nobody
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks if network.version == address.version)

    def client(self, forwarded: str) -> tuple[str, int]:
        """The last address of X-Forwarded-For that is not a trusted proxy's own, and its port, if it is told."""
        hosts = [split_host(part.strip()) for part in forwarded.split(",") if part.strip()]
        if not hosts:
            return "", 0
        if self.everyone:
            return hosts[0]
        return next((one for one in reversed(hosts) if not self.believes(one[0])), hosts[0])


def split_host(text: str) -> tuple[str, int]:
    """`1.2.3.4`, `1.2.3.4:80`, `[::1]:80` or `::1` as a host and a port, 0 if there is none."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.lstrip(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    return host, int(port) if port.isdigit() else 0


def adjust_environs(server: Any, options: Options) -> None:
    """For WSGI."""
    trust, root = Trust(options.forwarded_allow_ips), options.root_path.rstrip("/")
    if trust.nobody and not root:
        return

    def adjust(environ: dict[str, Any]) -> None:
        if root:
            path = environ["PATH_INFO"]
            environ["SCRIPT_NAME"] = root
            if path == root or path.startswith(root + "/"):
                environ["PATH_INFO"] = path[len(root) :]
        if not trust.believes(environ["REMOTE_ADDR"]):
            return
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        if forwarded:
            host, port = trust.client(forwarded)
            if host:
                environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = host, str(port)
        scheme = environ.get("HTTP_X_FORWARDED_PROTO", "").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            environ["wsgi.url_scheme"] = scheme
            if scheme == "https":
                environ["HTTPS"] = "on"
            else:
                environ.pop("HTTPS", None)

    server.adjust, server.adjusts_all = adjust, bool(root)


def adjust_scopes(server: Any, options: Options) -> None:
    """For ASGI. The root path is in every scope already, and `path` has it in front (ASGI 2.4: HTTP scope)."""
    trust, root = Trust(options.forwarded_allow_ips), options.root_path.rstrip("/")
    if trust.nobody and not root:
        return

    def adjust(scope: dict[str, Any]) -> None:
        if root:
            path = scope["path"]
            if path != root and not path.startswith(root + "/"):
                scope["path"] = root + path
        client = scope["client"]
        if not trust.believes(client[0] if client else ""):
            return
        forwarded = _joined(scope["headers"], b"x-forwarded-for")
        host, port = trust.client(forwarded)
        if host:
            scope["client"] = (host, port)
        scheme = _joined(scope["headers"], b"x-forwarded-proto").rpartition(",")[2].strip().lower()
        if scheme in ("http", "https"):
            secure = {"http": "ws", "https": "wss"}
            scope["scheme"] = secure[scheme] if scope["type"] == "websocket" else scheme

    server.adjust, server.adjusts_all = adjust, bool(root)


def _joined(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    return ",".join(value.decode("latin-1") for name, value in headers if name == wanted)
