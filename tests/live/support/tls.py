"""Peers that speak TLS, and a program of ours that answers over it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Self

import iokernel

from . import net
from .certs import Authority
from .process import Process, program
from .servers import RedisServer


class SecureRedis(RedisServer):
    """A redis-server that listens on `tls_port` as well, with a certificate for localhost and 127.0.0.1."""

    def __init__(self, authority: Authority, cert: str, *options: str, clients: str = "no") -> None:
        self.tls_port = net.free_port()
        given = ["--tls-port", str(self.tls_port), "--tls-cert-file", cert, "--tls-key-file", cert]
        given += ["--tls-ca-cert-file", authority.ca, "--tls-auth-clients", clients, *options]
        super().__init__(options=given)

    @property
    def tls_url(self) -> str:
        return f"rediss://127.0.0.1:{self.tls_port}"


class Stunnel(Process):
    """stunnel between a plain port and one with TLS; `lines` are those of its service."""

    def __init__(self, lines: Sequence[str]) -> None:
        command = program("stunnel4", "stunnel4")
        super().__init__()
        self.port = net.free_port()
        conf = self.folder / "stunnel.conf"
        head = ["foreground = yes", "syslog = no", "pid =", "[service]", f"accept = 127.0.0.1:{self.port}"]
        conf.write_text("\n".join([*head, *lines]) + "\n")
        self.spawn([command, str(conf)])
        try:
            net.wait_for("stunnel", self._answers)
        except BaseException:
            self.close()
            raise

    def _answers(self) -> bool:
        assert self.running, net.tail(self.log)
        return b"Configuration successful" in self.log.read_bytes()


class Serving:
    """A listener whose requests `answer` answers, in a thread, with a kernel of its own."""

    def __init__(self, url: str, answer: Callable[[list[Any]], Any], admin: str = "", **options: Any) -> None:
        self._stack = ExitStack()
        observed: dict[str, Any] = {"admin": admin} if admin else {}
        self.kernel = self._stack.enter_context(iokernel.Kernel(name="serving", **observed))
        self._answer = answer
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(url, options), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)
        if self._failed:
            raise self._failed

    _failed: Exception | None = None

    def _serve(self, url: str, options: dict[str, Any]) -> None:
        try:
            self.listener = self.kernel.listen(url, **options)
        except Exception as error:
            self._failed = error
            return
        finally:
            self._ready.set()
        for request in self.listener:
            request.reply(self._answer(request.args))

    @property
    def port(self) -> int:
        return int(self.listener.url.partition("?")[0].rstrip("/").rpartition(":")[2])

    @property
    def tls(self) -> dict[str, Any]:
        """What `state` says of its TLS."""
        tls: dict[str, Any] = self.listener.state["tls"]
        return tls

    def close(self) -> None:
        self._stack.close()
        self._thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
