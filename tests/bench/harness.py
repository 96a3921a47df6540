"""What scenarios are made of: servers, placements, sides that run in processes of their own, and rows of the table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "live"))

from support.servers import RedisServer  # noqa: E402

VALUE_BYTES = 100
# The binding's two call paths, as sides name them.
PATHS = ("extension", "cffi")
SIDE_STARTS_S = 20
SIDE_RUNS_S = 60

Sample = dict[str, float]


class Unavailable(Exception):
    """This side cannot run here; the text says why, and the table repeats it."""


@dataclass(frozen=True)
class Placement:
    """Which processors the program (with its I/O thread) and the server may use. Empty: all."""

    name: str
    program: tuple[int, ...] = ()
    server: tuple[int, ...] = ()


def placements() -> list[Placement]:
    """Unpinned, and where there are two processors: all on one, and the server on one of its own."""
    cpus = sorted(os.sched_getaffinity(0))
    one, other = (cpus[0],), (cpus[-1],)
    return [Placement("one core", one, one), Placement("two cores", one, other), Placement("unpinned")][
        0 if len(cpus) > 1 else 2 :
    ]


@dataclass
class Row:
    """One line of the table. `judged` is what `must` and `aim` are about, in `unit`."""

    budget: str
    ours: str
    peer: str
    judged: float | None = None
    unit: str = "x"
    must: float | None = None
    aim: float | None = None
    at_least: bool = True
    note: str = ""
    samples: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        if self.judged is None:
            return "not measured"
        if self.must is None:
            return "shown"
        return "aim met" if self._meets(self.aim) else "met" if self._meets(self.must) else "MISSED"

    def _meets(self, bound: float | None) -> bool:
        if bound is None or self.judged is None:
            return False
        return self.judged >= bound if self.at_least else self.judged <= bound

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


class Side:
    """A side of a scenario in its own interpreter. Ends when `close` closes its input."""

    def __init__(self, scenario: str, name: str, given: dict[str, Any]) -> None:
        self.name = name
        command = [sys.executable, str(HERE / "side.py"), scenario, name, json.dumps(given)]
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def run(self) -> Sample:
        """One measurement."""
        assert self._child.stdin
        self._child.stdin.write("go\n")
        self._child.stdin.flush()
        return self._answer()

    def _answer(self) -> Sample:
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = [*self._errors.read().strip().splitlines()[-1:], "no word"][0]
            raise Unavailable(f"{self.name} ended: {last}")
        answer: dict[str, Any] = json.loads(line)
        if "unavailable" in answer:
            raise Unavailable(answer["unavailable"])
        return answer

    def close(self) -> None:
        assert self._child.stdin and self._child.stdout
        self._child.stdin.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()
        self._errors.close()


@dataclass
class Result:
    """What one side gave: its samples, or why there are none."""

    samples: list[Sample] = field(default_factory=list)
    missing: str = ""

    def median(self, key: str) -> float | None:
        values = [sample[key] for sample in self.samples if key in sample]
        return statistics.median(values) if values else None


class Bench:
    """What every scenario needs. One server at a time; sides take turns, so that a busy minute hits all of them."""

    def __init__(self, runs: int, rows: int | None = None) -> None:
        self.runs = runs
        self.rows = rows
        self._stack = ExitStack()
        self.build = ROOT / "build" / "bench"
        self.build.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def server(self, placement: Placement | None = None) -> RedisServer:
        """A private server with the key that all scenarios ask for. The caller closes it."""
        server = RedisServer(options=["--enable-debug-command", "yes"])
        pin(server.pid, placement.server if placement else ())
        server.cli("SET", "key", "x" * VALUE_BYTES)
        return server

    def compare(
        self,
        scenario: str,
        sides: Sequence[str],
        placement: Placement | None = None,
        server: Callable[[], Any] | None = None,
        **given: Any,
    ) -> dict[str, Result]:
        """Runs all sides in turn against one server, `runs` times after one that does not count. `server` makes another
        one than Redis, with a `url` and a `port`."""
        cpus = placement.program if placement else ()
        results = {name: Result() for name in sides}
        with server() if server else self.server(placement) as made, ExitStack() as stack:
            live: list[Side] = []
            for name in sides:
                try:
                    side = Side(scenario, name, {"url": made.url, "port": made.port, "cpus": cpus, **given})
                except Unavailable as why:
                    results[name].missing = str(why)
                    continue
                stack.callback(side.close)
                live.append(side)
            for round_number in range(self.runs + 1):
                for side in list(live):
                    try:
                        sample = side.run()
                    except Unavailable as why:
                        results[side.name].missing = str(why)
                        live.remove(side)
                        continue
                    if round_number:
                        results[side.name].samples.append(sample)
        return results

    def program(self, name: str, *libraries: str) -> Path:
        """A C program of this folder, compiled. With no `libraries` it is linked with ours."""
        return self.compiled(HERE / f"{name}.c", "cc", "-std=c11", *(libraries or self.library()))

    def compiled(self, source: Path, compiler: str, standard: str, *libraries: str) -> Path:
        path = self.build / source.stem
        command = [compiler, standard, "-O2", "-Wall", "-Wextra", f"-I{ROOT / 'include'}", str(source)]
        try:
            built = subprocess.run([*command, "-o", str(path), *libraries], capture_output=True, text=True)
        except OSError as error:
            raise Unavailable(str(error)) from None
        if built.returncode:
            first = built.stderr.strip().splitlines()[0] if built.stderr else "not compiled"
            raise Unavailable(f"{source.name}: {first}")
        return path

    def library(self) -> tuple[str, ...]:
        """What links a program in `build` with ours. Its SONAME is what the loader looks for; a build tree has only the
        plain name."""
        library = Path(os.environ.get("IOKERNEL_LIBRARY") or ROOT / "target" / "release" / "libiokernel.so")
        link = self.build / "libiokernel.so.0"
        link.unlink(missing_ok=True)
        link.symlink_to(library.resolve())
        return (str(library), "-pthread", "-Wl,-rpath,$ORIGIN")


def pin(pid: int, cpus: Sequence[int]) -> None:
    """All threads that the process has."""
    for thread in os.listdir(f"/proc/{pid}/task") if cpus else ():
        os.sched_setaffinity(int(thread), cpus)


def run_program(command: Sequence[str | Path], runs: int = 1, timeout: float = SIDE_RUNS_S) -> Sample:
    """A C program's `name value unit` lines."""
    environment = {**os.environ, "RUNS": str(runs)}
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=timeout, env=environment
    )
    if done.returncode:
        raise Unavailable(f"{Path(command[0]).name}: {done.stderr.strip() or done.returncode}")
    lines = [line.split() for line in done.stdout.splitlines()]
    return {words[0]: float(words[1]) for words in lines if len(words) == 3}


def ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over is not None and under else None


def rate(value: float | None) -> str:
    """Requests per second."""
    if value is None:
        return "-"
    return f"{value / 1e6:.2f} M/s" if value >= 1e6 else f"{value / 1e3:.1f} k/s"


def span(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def versus(
    budget: str,
    ours: Result,
    peer: Result,
    key: str = "rate",
    *,
    must: float | None = None,
    aim: float | None = None,
    peer_name: str = "",
) -> Row:
    """A row of rates: ours over the peer's."""
    mine, theirs = ours.median(key), peer.median(key)
    missing = "; ".join(filter(None, (ours.missing, peer.missing)))
    return Row(
        budget,
        rate(mine),
        f"{rate(theirs)} {peer_name}".strip(),
        ratio(mine, theirs),
        must=must,
        aim=aim,
        note=missing,
        samples={"ours": ours.samples, "peer": peer.samples},
    )


def timed_rate(operations: int, started: float) -> Sample:
    return {"rate": operations / (time.perf_counter() - started)}
