"""The command line of `iokernel serve`."""

from __future__ import annotations

import argparse
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

LISTEN_FDS_START = 3
"""The first descriptor that a service manager passes on (sd_listen_fds(3))."""

HOSTS = {"": "0.0.0.0", "*": "0.0.0.0", "localhost": "127.0.0.1"}

LISTENER_OPTIONS = {
    "backlog": ("COUNT", "connections that the system keeps while they wait to be accepted"),
    "max_conns": ("COUNT", "connections at a time, in each worker"),
    "max_head": ("SIZE", "bytes of a request's line and headers"),
    "max_headers": ("COUNT", "headers of a request"),
    "max_request": ("SIZE", "bytes of a request's body, and of a message of WebSocket"),
    "stream_above": ("SIZE", "longer bodies are given to the application as they come"),
    "window": ("SIZE", "bytes of a body that come ahead of the application"),
    "head_timeout": ("TIME", "from the first byte of a head to its last"),
    "idle_timeout": ("TIME", "between two requests of a connection"),
    "body_timeout": ("TIME", "between two bytes of a body"),
    "health": ("PATH", "a path that the I/O thread answers by itself, also while the application hangs"),
    "access_log": ("FILE", "a line for each request; - for the standard output"),
    "access_format": ("FORMAT", "combined, common or json"),
    "server": ("TEXT", "the Server header; empty for none"),
    "proxy_protocol": ("WORD", "off, on, v1 or v2: who connects begins with a header of the PROXY protocol"),
    "tls_cert": ("FILE", "certificate chain, as PEM: the listeners speak TLS; several with commas, chosen by name"),
    "tls_key": ("FILE", "private key, as PEM, if it is not in the file of the chain"),
    "tls_client_ca": ("FILE", "clients must show a certificate that one of these has signed"),
}
"""Options of listeners that have a switch of their own."""


@dataclass
class Options:
    """What the command line says."""

    app: str
    bind: list[str] = field(default_factory=list)
    workers: int = 1
    threads: int = 1
    interface: str = "auto"
    factory: bool = False
    app_dir: str = "."
    loop: str = "auto"
    lifespan: str = "auto"
    root_path: str = ""
    forwarded_allow_ips: str = "127.0.0.1,::1"
    drain: float = 30.0
    delay: float = 0.0
    timeout: float = 0.0
    max_requests: int = 0
    max_requests_jitter: int = 0
    pid: str | None = None
    admin: str | None = None
    name: str = "serve"
    reload: bool = False
    log_level: str = "info"
    listener: dict[str, str] = field(default_factory=dict)

    @property
    def is_secure(self) -> bool:
        """The listeners speak TLS."""
        return "tls_cert" in self.listener


def parse(arguments: Sequence[str]) -> Options:
    """The command line. Prints what is wrong with it and exits with 2."""
    parser = _parser()
    given = vars(parser.parse_args(arguments))
    listener = {key: given.pop(key) for key in LISTENER_OPTIONS}
    pairs = dict(pair.split("=", 1) for pair in given.pop("option"))
    given["listener"] = {key: value for key, value in {**listener, **pairs}.items() if value is not None}
    options = Options(**given)
    options.bind = options.bind or _default_bind()
    for address in options.bind:
        try:
            parse_address(address)
        except ValueError as error:
            parser.error(f"--bind: {error}")
    if "tls_cert" not in options.listener and any(key.startswith("tls_") for key in options.listener):
        parser.error("--tls-key, --tls-client-ca: expected --tls-cert with them")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iokernel serve",
        description="Serves a WSGI or an ASGI application over HTTP.",
        epilog="Sizes are as in 64KiB, times as in 30s or 500ms. docs/serve.md has more about all of it.",
    )
    parser.add_argument("app", help="module:name, or module:create() to call it")
    parser.add_argument(
        "--bind", action="append", default=[], metavar="ADDRESS",
        help="host:port, unix:/path or fd://3; may be given several times (127.0.0.1:8000, or what systemd passes on)",
    )  # fmt: skip
    parser.add_argument("--workers", type=_positive, default=1, metavar="COUNT", help="processes (1)")
    parser.add_argument("--threads", type=_positive, default=1, metavar="COUNT", help="of a worker for WSGI (1)")
    parser.add_argument("--interface", choices=["auto", "wsgi", "asgi"], default="auto", help="told apart by itself")
    parser.add_argument("--factory", action="store_true", help="the name is a function that makes the application")
    parser.add_argument("--app-dir", default=".", metavar="FOLDER", help="where the module is looked for first (.)")
    parser.add_argument("--loop", choices=["auto", "asyncio", "uvloop"], default="auto", help="uvloop if it is there")
    parser.add_argument("--lifespan", choices=["auto", "on", "off"], default="auto", help="of ASGI")
    parser.add_argument("--root-path", default="", metavar="PATH", help="where the application is mounted by a proxy")
    parser.add_argument(
        "--forwarded-allow-ips", default=os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1"), metavar="LIST",
        help="whose X-Forwarded-For and -Proto are believed: addresses, networks, * for everyone, empty for nobody",
    )  # fmt: skip
    parser.add_argument("--drain", type=_seconds, default=30.0, metavar="SECONDS", help="for requests to finish (30)")
    parser.add_argument(
        "--delay", type=_seconds, default=0.0, metavar="SECONDS",
        help="on SIGTERM, how long the health path says no before nobody is let in any more (0)",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=_seconds, default=0.0, metavar="SECONDS",
        help="a worker that has been stuck for so long is killed and replaced (0: never)",
    )  # fmt: skip
    parser.add_argument(
        "--max-requests", type=int, default=0, metavar="COUNT", help="of a worker; then it is replaced (0)"
    )
    parser.add_argument("--max-requests-jitter", type=int, default=0, metavar="COUNT", help="at most so many more")
    parser.add_argument("--pid", metavar="FILE", help="where the master's pid is written")
    parser.add_argument("--admin", metavar="ADDRESS", help="the kernels' admin endpoint: auto, or an address")
    parser.add_argument("--name", default="serve", help="the kernels' name (serve)")
    parser.add_argument("--reload", action="store_true", help="new workers when a source file changes")
    levels = ["debug", "info", "warning", "error"]
    parser.add_argument("--log-level", choices=levels, default="info", help="of the server's own log (info)")
    for key, (what, text) in LISTENER_OPTIONS.items():
        parser.add_argument(f"--{key.replace('_', '-')}", dest=key, metavar=what, help=text)
    parser.add_argument(
        "--option", action="append", default=[], type=_pair, metavar="KEY=VALUE", help="any other option of listeners"
    )
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 or more")
    return number


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m)?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r}: expected seconds, or a time as in 500ms")
    return float(found[1]) * {"ms": 0.001, "m": 60.0}.get(found[2], 1.0)


def _pair(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r}: expected KEY=VALUE")
    return text


def _default_bind() -> list[str]:
    count = passed_on()
    return [f"fd://{LISTEN_FDS_START + at}" for at in range(count)] if count else ["127.0.0.1:8000"]


def passed_on() -> int:
    """How many sockets a service manager has passed on to this process (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    try:
        return int(os.environ.get("LISTEN_FDS", "0"))
    except ValueError:
        return 0


@dataclass(frozen=True)
class Address:
    """Where to listen: a host and a port, the path of a unix socket, or a descriptor."""

    host: str = ""
    port: int = 0
    path: str = ""
    fd: int = -1

    @property
    def is_tcp(self) -> bool:
        return not self.path and self.fd < 0

    def bind(self, backlog: int, reuse_port: bool) -> socket.socket:
        """A socket that listens there."""
        if self.fd >= 0:
            return socket.socket(fileno=os.dup(self.fd))
        if self.path:
            return _bind_unix(self.path, backlog)
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind((self.host, self.port))
            made.listen(backlog)
        except BaseException:
            made.close()
            raise
        return made

    def __str__(self) -> str:
        if self.fd >= 0:
            return f"fd://{self.fd}"
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _bind_unix(path: str, backlog: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    name = "\0" + path[1:] if path.startswith("@") else path
    try:
        try:
            made.bind(name)
        except OSError:
            if path.startswith("@") or not _is_abandoned(path):
                raise
            os.unlink(path)
            made.bind(name)
        made.listen(backlog)
    except BaseException:
        made.close()
        raise
    return made


def _is_abandoned(path: str) -> bool:
    """A socket file that nobody listens on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.setblocking(False)
        try:
            asked.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def parse_address(text: str) -> Address:
    """`host:port`, `[::1]:port`, `:port`, `port`, `unix:/path`, `unix:@name` or `fd://3`. Raises ValueError."""
    if text.startswith("unix:"):
        path = text[5:]
        if path.startswith("//"):
            path = path[2:]
        if path:
            return Address(path=path)
    elif text.startswith("fd://") and text[5:].isdigit():
        return Address(fd=int(text[5:]))
    else:
        host, _, port = text.rpartition(":")
        if port.isdigit() and int(port) < 65536:
            host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
            return Address(
                host={"": "0.0.0.0", "*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host), port=int(port)
            )
    raise ValueError(f"{text!r}: expected host:port, unix:/path or fd://3")


def listener_url(fd: int, form: str, options: Options) -> str:
    """The URL by which a worker listens on a socket that is there already."""
    given: dict[str, Any] = {**options.listener, "form": form, "fd": fd}
    scheme = "https" if options.is_secure else "http"
    pairs = "&".join(f"{quote(key, safe='')}={quote(str(value), safe='')}" for key, value in given.items())
    return f"{scheme}://localhost?{pairs}"
