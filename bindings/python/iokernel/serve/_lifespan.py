"""The lifespan of an ASGI application: it begins before the first request and ends after the last one."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger("iokernel.serve")


class StartupFailed(Exception):
    """The application said that it cannot serve."""


class Lifespan:
    """One application's. `mode`: on (a failure is one), off, or auto (an application that does not know it goes on)."""

    def __init__(self, app: Any, mode: str) -> None:
        self._app, self._mode = app, mode
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None
        self.state: dict[str, Any] = {}
        """What the application has put there; each request has a copy."""

    async def startup(self) -> None:
        """Raises StartupFailed."""
        if self._mode == "off":
            return
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        self._task = asyncio.get_running_loop().create_task(self._run(scope))
        await self._inbox.put({"type": "lifespan.startup"})
        await self._started

    async def shutdown(self) -> None:
        if self._task is None or self._task.done():
            return
        await self._inbox.put({"type": "lifespan.shutdown"})
        await self._stopped
        await asyncio.wait([self._task], timeout=1)

    async def _run(self, scope: dict[str, Any]) -> None:
        error: Exception | None = None
        try:
            await self._app(scope, self._inbox.get, self._send)
        except Exception as raised:
            error = raised
        if not self._started.done():
            if self._mode == "on" or isinstance(error, StartupFailed):
                log.error("the application's lifespan failed", exc_info=error)
                self._started.set_exception(StartupFailed("the application did not complete its startup"))
            else:
                log.debug("the application knows no lifespan: %r", error)
                self._started.set_result(None)
        elif error is not None and not self._stopped.done():
            log.error("the application's lifespan failed", exc_info=error)
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def _send(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "lifespan.startup.complete" and not self._started.done():
            self._started.set_result(None)
        elif kind == "lifespan.startup.failed" and not self._started.done():
            why = message.get("message") or "no reason was given"
            self._started.set_exception(StartupFailed(f"the application's startup failed: {why}"))
        elif kind in ("lifespan.shutdown.complete", "lifespan.shutdown.failed") and not self._stopped.done():
            if kind.endswith("failed"):
                log.error("the application's shutdown failed: %s", message.get("message", ""))
            self._stopped.set_result(None)
        else:
            raise RuntimeError(f"{kind!r}: unexpected in a lifespan")
