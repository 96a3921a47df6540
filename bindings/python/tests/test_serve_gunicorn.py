"""gunicorn with our worker classes."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import pytest
from support.net import wait_for
from support.serving import ASGI, WSGI, Load, Served, read_all


class Gunicorn(Served):
    """gunicorn's master with workers of ours."""

    def __init__(self, source: str, *options: str, worker: str = "Worker", env: dict[str, str] | None = None) -> None:
        self._worker = worker
        super().__init__(source, *options, env=env)

    def start(self, command: list[str], env: dict[str, str], **more: Any) -> None:
        options = command[command.index("app:app") + 1 :]
        kind = f"iokernel.serve.gunicorn.{self._worker}"
        super().start([sys.executable, "-m", "gunicorn", "app:app", "-k", kind, *options], env, **more)

    def serves(self) -> bool:
        try:
            self.connect(1).close()
        except OSError:
            return False
        return "Booting worker" in self.text()

    def all_serve(self, workers: int) -> None:
        """Until each worker has answered: one that gunicorn has only just forked takes no signals."""
        seen: set[int] = set()

        def have_answered() -> bool:
            clients = [self.client() for _ in range(10)]
            for client in clients:
                client.request("GET", "/")
            seen.update(int(client.getresponse().read()) for client in clients)
            for client in clients:
                client.close()
            return len(seen & set(self.workers)) >= workers

        wait_for("all workers", have_answered, 30)


@pytest.mark.parametrize(
    ("source", "worker", "options"),
    [
        (WSGI, "Worker", ()),
        (WSGI, "WsgiWorker", ("--threads", "3", "--preload")),
        (ASGI, "Worker", ("--preload",)),
        (ASGI, "AsgiWorker", ()),
    ],
)
def test_it_serves_and_reloads_and_leaves(source: str, worker: str, options: tuple[str, ...]) -> None:
    with Gunicorn(source, "--workers", "2", *options, worker=worker) as served:
        served.all_serve(2)
        before = set(served.workers)
        served.signal(signal.SIGHUP)
        wait_for("others", lambda: len(served.workers) == 2 and not before & set(served.workers), 30)
        served.all_serve(2)
        with served.connect() as conn:
            conn.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n")
            time.sleep(0.3)
            served.signal(signal.SIGTERM)
            assert read_all(conn).startswith(b"HTTP/1.1 200 OK\r\n")
        assert served.wait() == 0
        assert "Traceback" not in served.text(), served.text()


def test_a_reload_under_load_loses_nothing() -> None:
    with Gunicorn(WSGI, "--workers", "2") as served:
        served.all_serve(2)
        before = set(served.workers)
        load = Load(served, 3, 1)
        try:
            served.signal(signal.SIGHUP)
            wait_for("others", lambda: len(served.workers) == 2 and not before & set(served.workers), 30)
            reached = load.answers
            wait_for("answers", lambda: load.answers > reached + 100)
        finally:
            load.stop()
        assert load.errors == [] and load.refused == 0


def test_max_requests_and_a_worker_that_is_stuck() -> None:
    with Gunicorn(WSGI, "--max-requests", "50", "--timeout", "60") as served:
        pids = set()
        client = served.client()
        for _ in range(150):
            client.request("GET", "/")
            pids.add(client.getresponse().read())
        client.close()
        assert len(pids) >= 2 and "Autorestarting" in served.text()
    with Gunicorn(ASGI, "--timeout", "2") as served, served.connect() as conn:
        (first,) = served.workers
        conn.sendall(b"GET /stuck HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_for("another", lambda: served.workers and first not in served.workers, 30)
        assert "WORKER TIMEOUT" in served.text()


def test_settings_of_gunicorn_and_options_of_ours() -> None:
    environment = {"IOKERNEL_LISTENER": "health=/healthz&server=ours", "SCRIPT_NAME": "/mounted"}
    source = WSGI.replace(
        "str(os.getpid())", "str([environ[key] for key in ('SCRIPT_NAME', 'PATH_INFO', 'REMOTE_ADDR')])"
    )
    with Gunicorn(source, "--access-logfile", "access", "--limit-request-fields", "20", env=environment) as served:
        answer = served.get("/mounted/x", X_Forwarded_For="1.2.3.4")
        assert (answer.text, answer.headers["Server"]) == ("['/mounted', '/x', '1.2.3.4']", "ours")
        assert served.get("/healthz").status == 200
        assert served.get("/", **{f"X_{at}": "x" for at in range(30)}).status == 431
        wait_for("the access log", lambda: '"GET /mounted/x HTTP/1.1" 200' in (served.folder / "access").read_text())


def test_an_application_that_cannot_start_ends_gunicorn() -> None:
    source = """
    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
    """
    with Gunicorn(source) as served:
        assert served.wait() == 3
        assert "no database" in served.text()
