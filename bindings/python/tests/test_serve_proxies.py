"""Behind nginx and haproxy: while all workers are replaced, and again, no client sees an error."""

from __future__ import annotations

import signal

import pytest
from support.net import free_port, wait_for
from support.process import Missing, Process, program
from support.serving import ASGI, WSGI, Load, Served

NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/errors;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  upstream app {{ server 127.0.0.1:{behind}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
    }}
  }}
}}
"""

HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
  option redispatch
  retries 3
  retry-on conn-failure empty-response
frontend in
  bind 127.0.0.1:{port}
  default_backend app
backend app
  option httpchk GET /healthz
  server one 127.0.0.1:{behind} check inter 100ms fall 3
"""


class Proxy(Process):
    """nginx or haproxy before a server; haproxy before `another` one, too."""

    def __init__(self, name: str, behind: int, another: int | None = None) -> None:
        super().__init__()
        self.port = free_port()
        text = {"nginx": NGINX, "haproxy": HAPROXY}[name].format(folder=self.folder, port=self.port, behind=behind)
        if another is not None:
            text += f"  server two 127.0.0.1:{another} check inter 100ms fall 3\n"
        path = self.folder / "config"
        path.write_text(text)
        options = {"nginx": ["-p", str(self.folder), "-c", str(path)], "haproxy": ["-db", "-f", str(path)]}
        try:
            self.spawn([program(name, name), *options[name]])
        except Missing as missing:
            self.close()
            pytest.skip(str(missing))


class Fronted(Served):
    """What clients connect to is a proxy's port."""

    def before(self, name: str, another: int | None = None) -> Proxy:
        proxy = Proxy(name, self.port, another)
        self.port = proxy.port

        def answers() -> bool:
            try:
                return self.get("/").status == 200
            except OSError:
                return False

        wait_for(name, answers)
        return proxy


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
@pytest.mark.parametrize("source", [WSGI, ASGI], ids=["wsgi", "asgi"])
def test_replacing_workers_behind_a_proxy_is_seen_by_nobody(name: str, source: str) -> None:
    with Fronted(source, "--workers", "2", "--health", "/healthz") as served:
        wait_for("both", lambda: served.text().count(" serves") == 2)
        with served.before(name):
            load = Load(served, 4, 2)
            try:
                for round_number in range(1, 4):
                    served.signal(signal.SIGHUP)
                    wait_for("the others", lambda: served.text().count(" serves") == 2 + 2 * round_number, 30)  # noqa: B023
                reached = load.answers
                wait_for("answers", lambda: load.answers > reached + 100)
            finally:
                load.stop()
            assert load.errors == [] and load.refused == 0
            assert load.answers > 200


def test_a_balancer_moves_away_from_a_server_that_leaves() -> None:
    """One of two servers is told to leave, and answers until its balancer has seen that it is not ready."""
    with (
        Fronted(WSGI, "--health", "/healthz") as first,
        Served(WSGI, "--health", "/healthz", "--delay", "1") as second,
        first.before("haproxy", second.port),
    ):
        wait_for("both", lambda: len({first.get("/").body for _ in range(4)}) == 2)
        load = Load(first, 3, 2)
        try:
            wait_for("answers", lambda: load.answers > 100)
            second.signal(signal.SIGTERM)
            assert second.wait() == 0
            reached = load.answers
            wait_for("answers", lambda: load.answers > reached + 100)
        finally:
            load.stop()
        assert load.errors == [] and load.refused == 0
