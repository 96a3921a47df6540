"""`iokernel serve` under test: a master with its workers, an application given as source, clients that count errors."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

from .net import free_port, tail, wait_for
from .process import Process
from .program import ROOT

STARTS_S = 30.0

WSGI = """
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""

ASGI = """
import asyncio, os, time

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    if scope["path"] == "/stuck":
        time.sleep(60)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


class Served(Process):
    """A server whose application is `source`, as the module `app`. `options` are of the command line."""

    def __init__(
        self,
        source: str,
        *options: str,
        app: str = "app:app",
        bind: str | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        (self.folder / "app.py").write_text(textwrap.dedent(source))
        self.port = free_port() if bind is None else 0
        self.address = f"127.0.0.1:{self.port}" if bind is None else bind
        command = [sys.executable, "-m", "iokernel", "serve", app, *options]
        if self.address:
            command += ["--bind", self.address]
        self.start(command, env or {})

    def start(self, command: list[str], env: dict[str, str], **more: Any) -> None:
        path = os.pathsep.join([str(ROOT / "bindings" / "python"), str(ROOT / "tests" / "live")])
        environment = {**os.environ, "PYTHONPATH": path, **env}
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more
            )
        try:
            wait_for("the server", lambda: self.serves() or not self.running, STARTS_S)
        except TimeoutError as error:
            self.close()
            raise TimeoutError(f"{error}\n{tail(self.log)}") from None

    def serves(self) -> bool:
        """Every worker that was asked for serves, as the log has it."""
        return " serves" in self.text()

    def text(self) -> str:
        """The log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    @property
    def workers(self) -> list[int]:
        """The pids of the workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 30.0) -> int:
        """Its exit status."""
        assert self._child is not None
        return self._child.wait(timeout)

    def connect(self, timeout: float = 20.0) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def client(self, timeout: float = 20.0) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout)

    def get(self, path: str = "/", **headers: str) -> Answer:
        return self.request("GET", path, None, **headers)

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request on a connection of its own. `_` in names of headers is `-`."""
        client = self.client()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            client.request(method, path, body, named, encode_chunked=named.get("Transfer-Encoding") == "chunked")
            return Answer(client.getresponse())
        finally:
            client.close()

    def raw(self, request: bytes, timeout: float = 20.0) -> bytes:
        """Everything that comes for some bytes until the server closes; give `Connection: close`."""
        with self.connect(timeout) as conn:
            conn.sendall(request)
            return read_all(conn)


class Answer:
    """A response that was read."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.reason = response.reason
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()


def read_all(conn: socket.socket) -> bytes:
    found = []
    while piece := conn.recv(1 << 20):
        found.append(piece)
    return b"".join(found)


def rss_bytes(pid: int) -> int:
    """The memory of a process that is in use, anonymous alone: files that are mapped do not count."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"{pid} has no RssAnon")


class Load:
    """Clients that ask without a pause, some on a connection that is kept, some each time on one of its own."""

    def __init__(self, served: Served, kept: int = 4, fresh: int = 2) -> None:
        self._served = served
        self._goes_on = True
        self.answers = 0
        self.refused = 0
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(at < kept,)) for at in range(kept + fresh)]
        for thread in self._threads:
            thread.start()

    def _run(self, keeps: bool) -> None:
        client = self._served.client()
        try:
            while self._goes_on:
                if client.sock is None:
                    try:
                        client.connect()
                    except ConnectionRefusedError:
                        self.refused += 1
                        return
                try:
                    client.request("GET", "/", headers={} if keeps else {"Connection": "close"})
                    response = client.getresponse()
                    response.read()
                except (OSError, http.client.HTTPException) as error:
                    self.errors.append(f"{error!r} keeps={keeps}")
                    client.close()
                    continue
                if response.status != 200:
                    self.errors.append(f"{response.status} keeps={keeps}")
                self.answers += 1
        finally:
            client.close()

    def stop(self) -> None:
        self._goes_on = False
        for thread in self._threads:
            thread.join(30)
