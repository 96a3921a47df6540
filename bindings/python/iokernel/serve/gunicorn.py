"""Worker classes of gunicorn: `gunicorn -k iokernel.serve.gunicorn.Worker app:app`.

`Worker` tells WSGI and ASGI apart by itself; `WsgiWorker` and `AsgiWorker` do not. gunicorn's own settings hold as far
as they are about what a worker does: threads, timeout, graceful_timeout, max_requests, keepalive, limit_request_line,
limit_request_field_size, limit_request_fields, forwarded_allow_ips, proxy_protocol, accesslog, certfile, keyfile,
ca_certs. Any other option of our listeners is given by `listener_options` of a class of your own, or by the environment
variable IOKERNEL_LISTENER, as in `health=/healthz&window=1MiB`.
"""

from __future__ import annotations

import logging
import os
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from gunicorn.workers import base  # type: ignore[import-untyped,unused-ignore]

from ._options import Options
from ._worker import BEAT, BOOT_FAILED, CHANGED
from ._worker import Worker as Serving

BEAT_S = 1.0
"""How often gunicorn is told that the worker lives, as its own workers do."""


class Worker(base.Worker):  # type: ignore[misc]
    """Serves WSGI or ASGI, whichever the application is."""

    interface: ClassVar[str] = "auto"
    listener_options: ClassVar[Mapping[str, str]] = {}

    def init_signals(self) -> None:
        """Its signals are heard from `run` on; until then they end it, as gunicorn's own do."""
        super().init_signals()
        signal.set_wakeup_fd(-1)

    def run(self) -> None:
        logger = logging.getLogger("iokernel")
        if not logger.handlers:
            logger.handlers, logger.propagate = self.log.error_log.handlers, False
            logger.setLevel(self.log.error_log.level)
        self.notify()
        serving = _Serving(self, self._options())
        status = serving.run(self.wsgi)
        if status == BOOT_FAILED:
            sys.exit(status)

    def _options(self) -> Options:
        cfg = self.cfg
        return Options(
            app="",
            workers=cfg.workers,
            threads=cfg.threads,
            interface=self.interface,
            root_path=getattr(cfg, "root_path", "") or os.environ.get("SCRIPT_NAME", ""),
            forwarded_allow_ips=_listed(cfg.forwarded_allow_ips),
            drain=float(cfg.graceful_timeout),
            timeout=float(self.timeout or 0),
            max_requests=self.max_requests if self.max_requests != sys.maxsize else 0,
            admin=os.environ.get("IOKERNEL_ADMIN"),
            name=cfg.proc_name,
            listener=self._listener(),
        )

    def _listener(self) -> dict[str, str]:
        cfg = self.cfg
        line, field_size, fields = cfg.limit_request_line, cfg.limit_request_field_size, cfg.limit_request_fields
        found = {
            "idle_timeout": f"{max(float(cfg.keepalive), 0.001)}s",
            "max_headers": str(fields),
            "max_head": str(min(max(line + fields * field_size, 64 << 10), 1 << 20)),
        }
        if cfg.accesslog:
            found["access_log"] = cfg.accesslog
        if cfg.proxy_protocol and cfg.proxy_protocol != "off":
            found["proxy_protocol"] = {"auto": "on", True: "on"}.get(cfg.proxy_protocol, cfg.proxy_protocol)
        files = {"tls_cert": cfg.certfile, "tls_key": cfg.keyfile}
        if cfg.ca_certs and cfg.cert_reqs:
            files["tls_client_ca"] = cfg.ca_certs
            found["tls_client"] = "optional" if cfg.cert_reqs == ssl.CERT_OPTIONAL else "require"
        found.update({key: value for key, value in files.items() if value})
        return {**found, **self.listener_options, **dict(parse_qsl(os.environ.get("IOKERNEL_LISTENER", "")))}


class WsgiWorker(Worker):
    """Serves WSGI."""

    interface = "wsgi"


class AsgiWorker(Worker):
    """Serves ASGI."""

    interface = "asgi"


def _listed(addresses: Any) -> str:
    return addresses if isinstance(addresses, str) else ",".join(str(one) for one in addresses)


class _Lent:
    """A socket that stays gunicorn's."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def fileno(self) -> int:
        number: int = self._socket.fileno()
        return number

    def close(self) -> None:
        return


class _Serving(Serving):
    """A worker whose master is gunicorn's."""

    last_comers_s = 0.0
    """The socket is its master's, too, and nobody new is kept from it."""

    def __init__(self, worker: Worker, options: Options) -> None:
        super().__init__(options, worker.age, [_Lent(each) for each in worker.sockets], self._told)
        self._worker = worker
        self._leave: Callable[[int], object] = lambda _: None

    def _told(self, what: bytes) -> None:
        worker = self._worker
        if what == BEAT:
            worker.notify()
        if what == CHANGED or not worker.alive or worker.ppid != os.getppid():
            self._leave(signal.SIGHUP)

    @property
    def beat_s(self) -> float | None:
        return BEAT_S

    def wants_replacement(self) -> None:
        """gunicorn starts another when this one has ended."""
        self._worker.log.info("Autorestarting worker after %d requests.", self.options.max_requests)
        os.kill(os.getpid(), signal.SIGTERM)

    def requests_max(self) -> int:
        return self.options.max_requests

    def signals(self, hear: Callable[[int], object]) -> None:
        self._leave = hear
        signal.signal(signal.SIGTERM, lambda number, _: hear(number))
        for number in (signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, lambda *_: hear(signal.SIGQUIT))
