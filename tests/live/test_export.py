"""What is counted, as those read it who are made for it: Prometheus, its lint and its parsers, statsd, Graphite."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric, parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from support import net
from support.process import Process
from support.program import ROOT, Program
from support.servers import RedisServer

OPENMETRICS = "application/openmetrics-text"
read_openmetrics: Callable[[str], Iterable[Metric]] = openmetrics_parser.text_string_to_metric_families
# Tells the admin endpoint's port; at each line makes a hundred requests, or, with `stall`, lets nobody have the GIL.
COUNTING = """
import ctypes, iokernel, json

config, url = json.loads(sys.argv[1]), sys.argv[2]
kernel = iokernel.Kernel(**config)
cache = kernel.open(url)
cache.wait_ready(5)
calls = 0
print(json.dumps({"calls": calls}), flush=True)
for line in sys.stdin:
    if len(sys.argv) > 3:
        ctypes.PyDLL(None).usleep(int(float(sys.argv[3]) * 1e6))
    for _ in range(100):
        cache.call("ECHO", "x")
        calls += 1
    print(json.dumps({"calls": calls}), flush=True)
kernel.close()
print(json.dumps({"closed": True}), flush=True)
"""


def counting(server: RedisServer, *more: str, **config: Any) -> Program:
    return Program(COUNTING, json.dumps(config), server.url, *more)


def call(program: Program) -> int:
    """A hundred more requests: how many there were."""
    program.go_on()
    return int(program.hear()["calls"])


def scrape(admin: str, accept: str = "") -> tuple[str, str]:
    """The content type and the text of /metrics."""
    conn = http.client.HTTPConnection(admin, timeout=5)
    try:
        conn.request("GET", "/metrics", headers={"Accept": accept} if accept else {})
        answer = conn.getresponse()
        assert answer.status == 200
        return answer.headers["Content-Type"], answer.read().decode()
    finally:
        conn.close()


def total(families: Iterable[Metric], sample: str, **labels: str) -> float:
    """The sum of all samples of a name with these labels."""
    found = [one for family in families for one in family.samples if one.name == sample]
    return sum(one.value for one in found if labels.items() <= one.labels.items())


def counted(admin: str, sample: str, **labels: str) -> float:
    return total(parser.text_string_to_metric_families(scrape(admin)[1]), sample, **labels)


@pytest.fixture
def admin() -> str:
    return f"127.0.0.1:{net.free_port()}"


def test_both_formats_are_read_to_the_end_by_their_parsers(shared_redis_server: RedisServer, admin: str) -> None:
    name = 'a"b\\c\nd'
    with counting(shared_redis_server, admin=admin, name=name) as program:
        program.hear()
        calls = call(program)
        kind, text = scrape(admin)
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        plain = list(parser.text_string_to_metric_families(text))
        kind, open_text = scrape(admin, f"{OPENMETRICS};version=1.0.0,text/plain;q=0.5")
        assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
        opened = list(read_openmetrics(open_text))
        lint(text)

    assert total(plain, "iokernel_requests_total", status="ok", kernel=name) == calls
    assert total(opened, "iokernel_requests_total", status="ok", kernel=name) == calls
    assert total(plain, "iokernel_request_seconds_count") == calls
    assert total(opened, "iokernel_request_seconds_bucket", le="+Inf") == calls
    assert {family.name for family in plain} == {family.name for family in opened}
    units = {family.unit for family in opened if family.name.endswith("_seconds")}
    assert units == {"seconds"}
    assert "iokernel_export_families_dropped" not in text


def lint(text: str) -> None:
    """Prometheus' own tool finds nothing to complain of."""
    if shutil.which("promtool") is None:
        return
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + done.stdout


class Prometheus(Process):
    """A prometheus server that scrapes one target ten times a second."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.address = f"127.0.0.1:{net.free_port()}"
        jobs = f"[{{job_name: program, static_configs: [{{targets: ['{target}']}}]}}]"
        config = self.folder / "prometheus.yml"
        config.write_text(f"global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}\nscrape_configs: {jobs}\n")
        data = f"--storage.tsdb.path={self.folder / 'data'}"
        self.spawn(["prometheus", f"--config.file={config}", data, f"--web.listen-address={self.address}"])

    def query(self, what: str) -> float | None:
        """The value of an expression that has one; None if it has none yet."""
        url = f"http://{self.address}/api/v1/query?query={urllib.parse.quote(what)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(result[0]["value"][1]) if result else None


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: prometheus)")
def test_a_prometheus_server_scrapes_what_was_counted(shared_redis_server: RedisServer, admin: str) -> None:
    prometheus = Prometheus(admin)
    try:
        with counting(shared_redis_server, admin=admin) as program:
            program.hear()
            calls = call(program)
            wanted = 'sum(iokernel_requests_total{status="ok"})'
            net.wait_for("Prometheus to have scraped", lambda: prometheus.query(wanted) == calls, timeout=30)
            assert prometheus.query("up") == 1
            assert prometheus.query('sum(iokernel_request_seconds_bucket{le="+Inf"})') == calls
    except TimeoutError as error:
        raise AssertionError(f"{error}\n{net.tail(prometheus.log)}") from error
    finally:
        prometheus.close()


STATSD = ROOT / "build" / "statsd" / "node_modules" / "statsd" / "bin" / "statsd"
# What the daemon made of what it received, each time it flushes.
BACKEND = """
exports.init = (started, config, events) => {
  events.on('flush', (stamp, of) => console.log(JSON.stringify({counters: of.counters, gauges: of.gauges})));
  return true;
};
"""


class Statsd(Process):
    """The statsd daemon; its log has a line for each flush."""

    def __init__(self) -> None:
        super().__init__()
        self.port = net.free_port()
        backend = self.folder / "backend.js"
        backend.write_text(BACKEND)
        config = {"port": self.port, "address": "127.0.0.1", "mgmt_port": net.free_port(), "flushInterval": 100}
        file = self.folder / "config.js"
        file.write_text(json.dumps({**config, "mgmt_address": "127.0.0.1", "backends": [str(backend)]}))
        self.spawn(["node", str(STATSD), str(file)])
        net.wait_for("statsd to flush", self.flushes)

    def flushes(self) -> list[dict[str, dict[str, float]]]:
        lines = self.log.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]

    def counter(self, pattern: str) -> float:
        """All that was ever counted by the names that match."""
        of = [flush["counters"] for flush in self.flushes()]
        return sum(value for counters in of for name, value in counters.items() if re.fullmatch(pattern, name))


@pytest.mark.skipif(
    shutil.which("node") is None or not STATSD.exists(), reason="node or statsd is missing: run tests/setup.sh"
)
def test_a_statsd_daemon_counts_exactly_what_was_counted(shared_redis_server: RedisServer) -> None:
    daemon = Statsd()
    target = {"statsd": f"127.0.0.1:{daemon.port}", "statsd_interval": "50ms", "statsd_prefix": "app"}
    try:
        with counting(shared_redis_server, **target) as program:
            program.hear()
            for _ in range(5):
                calls = call(program)
                time.sleep(0.08)
            ok = r"app\.iokernel_requests\.endpoint\..*\.status\.ok"
            net.wait_for("the daemon to have all", lambda: daemon.counter(ok) >= calls)
            # Counted after the last tick, told when the kernel closes.
            calls = call(program)
        net.wait_for("the daemon to have the last", lambda: daemon.counter(ok) >= calls)
        time.sleep(0.3)
        assert daemon.counter(ok) == calls
        assert daemon.counter(r"app\.iokernel_request_seconds\..*\.count") == calls
        assert daemon.counter(r"statsd\.bad_lines_seen") == 0
        gauges = daemon.flushes()[-1]["gauges"]
        median = [value for name, value in gauges.items() if re.fullmatch(r"app\.iokernel_request_.*\.p50", name)]
        assert len(median) == 1 and 0 < median[0] < 1
    finally:
        daemon.close()


SO_TIMESTAMPNS = 35


def arrivals(receiver: socket.socket, until: float) -> Iterator[tuple[float, bytes]]:
    """When the system received each datagram, by its own clock, and what it says."""
    while (left := until - time.monotonic()) > 0:
        receiver.settimeout(left)
        try:
            packet, [(_, _, stamp)], _, _ = receiver.recvmsg(65536, 1024)
        except TimeoutError:
            return
        seconds, ns = int.from_bytes(stamp[:8], sys.byteorder), int.from_bytes(stamp[8:16], sys.byteorder)
        yield seconds + ns / 1e9, packet


def intervals_kept(server: RedisServer) -> tuple[int, float]:
    """While a call holds the GIL for two seconds: how many ticks of 100 ms are missing, and how far they are off."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        target = {"statsd": f"127.0.0.1:{receiver.getsockname()[1]}", "statsd_packet": 65507}
        with counting(server, "2", statsd_interval="100ms", statsd_tags="datadog", **target) as program:
            program.hear()
            time.sleep(0.15)
            begun = time.monotonic()
            program.go_on()
            ticks = [stamp for stamp, packet in arrivals(receiver, begun + 1.9) if b"channels" in packet]
            program.hear()
            assert time.monotonic() > begun + 2, "the call ended too early"
    passed = round((ticks[-1] - ticks[0]) / 0.1) + 1
    phases = [stamp - at * 0.1 for at, stamp in enumerate(ticks)]
    middle = statistics.median(phases)
    off = statistics.median(abs(phase - middle) for phase in phases)
    drift = abs(statistics.median(phases[-5:]) - statistics.median(phases[:5]))
    return max(passed, 17) - len(ticks), max(off, drift)


def test_statsd_intervals_are_kept_while_a_c_call_holds_the_gil(shared_redis_server: RedisServer) -> None:
    missing, off = intervals_kept(shared_redis_server)
    if missing or off >= 0.005:
        missing, off = intervals_kept(shared_redis_server)
    assert missing == 0
    assert off < 0.005


class Carbon(Process):
    """A receiver of lines over TCP, in a process of its own. `silent`: one that never reads."""

    SOURCE = """
import socket, sys, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
if sys.argv[2] == "silent":
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
while True:
    conn, _ = listener.accept()
    print("conn", flush=True)
    while sys.argv[2] == "silent":
        time.sleep(1)
    for line in conn.makefile():
        print(line, end="", flush=True)
"""

    def __init__(self, how: str = "reads") -> None:
        super().__init__()
        self.port = net.free_port()
        self._how = how
        self.start()

    def start(self) -> None:
        self.spawn([sys.executable, "-c", self.SOURCE, str(self.port), self._how])

    def lines(self) -> list[str]:
        text = self.log.read_text()
        return [line for line in text.splitlines() if line != "conn"] if text.endswith("\n") else []

    def told(self, path: str) -> list[int]:
        """The values of the paths that match, in their order."""
        words = [line.split(" ") for line in self.lines()]
        return [int(value) for name, value, _ in words if re.fullmatch(path, name)]


def test_graphite_hears_of_everything_and_again_after_it_was_killed(
    shared_redis_server: RedisServer, admin: str
) -> None:
    carbon = Carbon()
    target = {"graphite": f"localhost:{carbon.port}", "graphite_interval": "50ms", "graphite_prefix": "app"}
    ok = r"app\.iokernel_requests;endpoint=redis:.*;kernel=.*;status=ok"
    try:
        with counting(shared_redis_server, admin=admin, graphite_tags=True, **target) as program:
            program.hear()
            calls = call(program)
            net.wait_for("the count", lambda: carbon.told(ok)[-1:] == [calls])
            told = carbon.lines()
            carbon.kill()
            calls = call(program)
            net.wait_for("an error", lambda: counted(admin, "iokernel_push_errors_total", exporter="graphite") > 1)
            carbon.start()
            net.wait_for("the count after the start", lambda: carbon.told(ok)[-1:] == [calls])
            assert counted(admin, "iokernel_push_sent_total", exporter="graphite") > 1
    finally:
        carbon.close()
    assert all(re.fullmatch(r"app\.[^ ]+ -?[0-9.e+-]+ [0-9]{10}", line) for line in told)
    assert abs(int(told[-1].rsplit(" ", 1)[1]) - time.time()) < 60


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_a_graphite_receiver_that_never_reads_costs_nothing(shared_redis_server: RedisServer, admin: str) -> None:
    carbon = Carbon("silent")
    target = {"graphite": f"127.0.0.1:{carbon.port}", "graphite_interval": "10ms"}

    def dropped() -> float:
        return counted(admin, "iokernel_push_dropped_total", exporter="graphite")

    try:
        with counting(shared_redis_server, admin=admin, **target) as program:
            program.hear()
            net.wait_for("texts to be dropped", lambda: dropped() > 10, timeout=20)
            before, resident = dropped(), resident_bytes(program.pid)
            net.wait_for("more of them", lambda: dropped() > before + 50)
            assert resident_bytes(program.pid) < resident + (4 << 20)
            assert call(program) == 100
    finally:
        carbon.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid"])
def test_traffic_does_not_notice_a_receiver_that_is_not_there(
    shared_redis_server: RedisServer, admin: str, host: str, tmp_path: Path
) -> None:
    # Nobody answers for names: each lookup takes as long as it may.
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text(f"nameserver [127.0.0.1]:{net.free_port()}\n")
    nobody = f"{host}:{net.free_port()}"
    config = {"statsd": nobody, "graphite": nobody, "resolv_conf": str(resolv_conf), "admin": admin}
    with counting(shared_redis_server, statsd_interval="10ms", graphite_interval="10ms", **config) as program:
        program.hear()
        for _ in range(5):
            call(program)
        exporters = ["graphite"] if "nobody" in host else ["graphite", "statsd"]
        for exporter in exporters:
            # What is counted here was tried while the requests went on.
            def failed(of: str = exporter) -> bool:
                return counted(admin, "iokernel_push_errors_total", exporter=of) > 0

            net.wait_for(f"errors of {exporter}", failed)
        assert counted(admin, "iokernel_requests_total", status="ok") == 500
        assert counted(admin, "iokernel_requests_total") == 500
        assert counted(admin, "iokernel_failures_total") == 0


class Heard:
    """Receives datagrams, and adds up what they say that was counted of requests."""

    def __init__(self) -> None:
        self.count = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while packet := self._socket.recv(65536):
            found = re.findall(rb"requests\.endpoint\S*status\.ok:(\d+)\|c", packet)
            self.count += sum(int(count) for count in found)
        self._socket.close()

    def close(self) -> None:
        self._socket.sendto(b"", self._socket.getsockname())


def test_each_worker_tells_statsd_of_itself_and_one_tells_graphite_of_all(
    shared_redis_server: RedisServer, tmp_path: Path
) -> None:
    carbon, heard = Carbon(), Heard()
    target = {"statsd": heard.address, "graphite": f"127.0.0.1:{carbon.port}", "metrics": str(tmp_path / "area")}
    every = {"statsd_interval": "50ms", "graphite_interval": "50ms", "graphite_tags": True, "name": "worker"}
    ok = r"iokernel_requests;.*;status=ok"

    def wait_for(count: int) -> None:
        net.wait_for(f"{count} over UDP", lambda: heard.count >= count)
        net.wait_for(f"{count} over TCP", lambda: carbon.told(ok)[-1:] == [count])
        assert heard.count == count

    with ExitStack() as stack:
        stack.callback(carbon.close)
        stack.callback(heard.close)
        # Each has the cells of those before it, who are gone.
        for count in (100, 200):
            with counting(shared_redis_server, **target, **every) as worker:
                worker.hear()
                call(worker)
                wait_for(count)
        workers = [stack.enter_context(counting(shared_redis_server, **target, **every)) for _ in range(3)]
        for worker in workers:
            worker.hear()
        for worker in workers[:2]:
            call(worker)
        wait_for(400)
        # Whoever told Graphite of all is gone after one of these: another does.
        for at in range(2):
            workers[at].__exit__()
            call(workers[2])
            wait_for(500 + 100 * at)
