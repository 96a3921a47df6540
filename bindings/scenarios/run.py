"""Runs the shared scenarios in the languages named, each beside a redis-server of its own.

    run.py ruby node            prints their TAP, writes build/scenarios/LANG.json, ends: N passed, N failed, N skipped
    run.py --only fork node     that one alone; --last-failed: those that failed at the last run
    run.py --table              writes what the last runs said into the table of README.md
    run.py --check              fails if the table says something else

A language's runner is `bindings/LANG/tests/scenarios.*`. It reads the scenarios from the file in IOK_SCENARIOS (the
same as MessagePack: IOK_SCENARIOS_MSGPACK), finds Redis at IOK_REDIS and the library at IOKERNEL_LIBRARY, and prints
one line of TAP for each scenario, in order. What it does not say anything about has failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped,unused-ignore]

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "live"))

import table  # noqa: E402
from support.process import Missing  # noqa: E402
from support.servers import RedisServer  # noqa: E402

FILE = Path(__file__).resolve().parent / "scenarios.json"
BUILD = ROOT / "build" / "scenarios"
LIMIT_S = 240
"""The time that all scenarios of one language have."""

Scenario = dict[str, Any]


@dataclass(frozen=True)
class Language:
    """How a language's runner is started.

    `runner` is its path in `bindings`, `command` what stands before it. `probe` prints the version of the interpreter,
    and fails where it, or a library that the runner needs, is missing: then every scenario is skipped. `compile` makes
    a program from the runner, which is run instead; `{lib}` and `{out}` are filled in. `is_kept`: the README tells of
    what it says.
    """

    runner: str
    command: Sequence[str]
    probe: Sequence[str]
    compile: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    is_kept: bool = True


CPP = ["c++", "-std=c++20", "-O2", "-Iinclude", "-L{lib}", "-Wl,-rpath,{lib}", "-o", "{out}"]

LANGUAGES = {
    "ruby": Language("ruby/tests/scenarios.rb", ["ruby"], ["ruby", "-rffi", "-rmsgpack", "-e", "puts RUBY_VERSION"]),
    "lua": Language("lua/tests/scenarios.lua", ["lua5.4"], ["lua5.4", "-v"]),
    "luajit": Language("lua/tests/scenarios.lua", ["luajit"], ["luajit", "-v"]),
    "perl": Language(
        "perl/tests/scenarios.pl",
        ["perl", "-Ibindings/perl/lib"],
        ["perl", "-MFFI::Platypus", "-MData::MessagePack", "-e", "printf '%vd', $^V"],
    ),
    "node": Language("node/tests/scenarios.js", ["node"], ["node", "--version"]),
    "cpp": Language(
        "cpp/tests/scenarios.cpp", [], ["c++", "-dumpfullversion"], [*CPP, "{runner}", "-liokernel", "-pthread"]
    ),
    "python": Language(
        "python/tests/scenarios.py",
        [sys.executable],
        [sys.executable, "-c", "import platform; print(platform.python_version())"],
        env={"PYTHONPATH": "bindings/python"},
    ),
}


def listed() -> list[Scenario]:
    scenarios: list[Scenario] = json.loads(FILE.read_text())["scenarios"]
    return scenarios


class Verdicts:
    """What a runner's output says of each scenario: `"pass"`, `"fail"` or `"skip"`, and why."""

    LINE = re.compile(r"(not )?ok\b *(\d+)? *-? *(.*?)(?: +# *(.*))?")

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._last = -1
        self.found: dict[str, dict[str, str]] = {}

    def line(self, text: str) -> None:
        found = self.LINE.fullmatch(text)
        if not found:
            return
        failed, number, name, note = found.groups()
        wrong = self._wrong(number, name)
        if wrong or failed:
            self.say(name, "fail", wrong or note or "")
        elif (note or "").upper().startswith("SKIP"):
            self.say(name, "skip", note[4:].strip(" :"))
        else:
            self.say(name, "pass")

    def _wrong(self, number: str | None, name: str) -> str:
        """What is not as agreed in a line of this number and name."""
        if name not in self._names:
            return "there is no scenario of this name"
        if name in self.found:
            return "it was told twice"
        at = self._names.index(name)
        is_late, self._last = at < self._last, max(at, self._last)
        if is_late:
            return "it was told out of order"
        if number is not None and int(number) != at + 1:
            return f"it is scenario {at + 1}, not {number}"
        return ""

    def end(self, fault: str) -> None:
        """Nothing more comes. What was not told has failed; with a fault, the last one has failed in any case."""
        missing = [name for name in self._names if name not in self.found]
        for name in missing:
            self.say(name, "fail", fault or "nothing was told of it")
        if fault and not self.count("fail"):
            self.say(self._names[-1], "fail", f"at the end: {fault}")
        self.found = {name: self.found[name] for name in [*self._names, *self.found] if name in self.found}

    def skip_all(self, reason: str) -> None:
        for name in self._names:
            self.say(name, "skip", reason)

    def say(self, name: str, result: str, reason: str = "") -> None:
        self.found[name] = {"result": result, "reason": reason}

    def count(self, result: str) -> int:
        return sum(verdict["result"] == result for verdict in self.found.values())

    def __str__(self) -> str:
        return f"{self.count('pass')} passed, {self.count('fail')} failed, {self.count('skip')} skipped"


def main() -> int:
    parser = argparse.ArgumentParser(description="The shared scenarios, language by language.")
    parser.add_argument("languages", nargs="*", metavar="LANG", help=", ".join(LANGUAGES))
    parser.add_argument("--only", action="append", metavar="NAME", help="this scenario; may be given more than once")
    parser.add_argument("--last-failed", action="store_true", help="the scenarios that failed at the last run")
    parser.add_argument("--program", metavar="PATH", help="run this instead of the language's runner; keep no result")
    parser.add_argument("--table", action="store_true", help="write the table of README.md")
    parser.add_argument("--check", action="store_true", help="fail if the table of README.md says something else")
    asked = parser.parse_args()
    unknown = set(asked.languages) - set(LANGUAGES)
    if unknown or not (asked.languages or asked.table or asked.check):
        parser.error(f"{' '.join(sorted(unknown)) or 'nothing'}: expected of {', '.join(LANGUAGES)}")
    scenarios = listed()
    names = [scenario["name"] for scenario in scenarios]
    if set(asked.only or ()) - set(names):
        parser.error(f"--only {' '.join(asked.only)}: expected of {', '.join(names)}")

    def wanted(language: str) -> list[Scenario]:
        chosen = failed(language, names) if asked.last_failed else asked.only or names
        return [scenario for scenario in scenarios if scenario["name"] in chosen]

    if asked.program:
        other = Language(str(Path(asked.program).resolve()), [], ["true"], is_kept=False)
        LANGUAGES.update((name, other) for name in asked.languages)
    status = run_all({language: wanted(language) for language in asked.languages}) if asked.languages else 0
    if asked.table:
        table.write(ROOT / "README.md", BUILD, list(LANGUAGES), names)
    if asked.check and not table.is_fresh(ROOT / "README.md", BUILD, list(LANGUAGES), names):
        print("README.md: the table of scenarios is not what the last run said: run.py --table writes it")
        status = 1
    return status


def run_all(wanted: Mapping[str, Sequence[Scenario]]) -> int:
    total = dict.fromkeys(("pass", "fail", "skip"), 0)
    for language, scenarios in wanted.items():
        verdicts = run(language, scenarios)
        for result in total:
            total[result] += verdicts.count(result)
        for name, verdict in verdicts.found.items():
            if verdict["result"] == "fail":
                print(f"# {language}: {name}: {verdict['reason'] or 'it failed'}", flush=True)
        print(f"# {language}: {verdicts}", flush=True)
    print(f"{total['pass']} passed, {total['fail']} failed, {total['skip']} skipped", flush=True)
    return 1 if total["fail"] else 0


def run(name: str, scenarios: Sequence[Scenario]) -> Verdicts:
    """These scenarios in one language."""
    language, verdicts = LANGUAGES[name], Verdicts([scenario["name"] for scenario in scenarios])
    if not scenarios:
        return verdicts
    version, lacking = probe(language.probe)
    print(f"# {name} {version}", flush=True)
    try:
        if lacking:
            raise Missing(lacking)
        with RedisServer() as redis:
            verdicts.end(tell(name, language, scenarios, redis.url, verdicts))
    except Missing as missing:
        verdicts.skip_all(str(missing))
    if language.is_kept:
        keep(name, version, verdicts)
    return verdicts


def keep(name: str, version: str, verdicts: Verdicts) -> None:
    """Stores what was said; of scenarios that did not run, what was said before."""
    BUILD.mkdir(parents=True, exist_ok=True)
    before = last(name) if version else {}
    known = {scenario["name"] for scenario in listed()}
    told = {**{scenario: before[scenario] for scenario in before if scenario in known}, **verdicts.found}
    said = {"language": name, "version": version, "scenarios": told}
    (BUILD / f"{name}.json").write_text(json.dumps(said, indent=2, ensure_ascii=False) + "\n")


def last(name: str) -> dict[str, dict[str, str]]:
    """What the last run of a language said."""
    file = BUILD / f"{name}.json"
    said: dict[str, dict[str, str]] = json.loads(file.read_text())["scenarios"] if file.exists() else {}
    return said


def failed(name: str, scenarios: Sequence[str]) -> Sequence[str]:
    """What to run once more; everything, if the runner told of a scenario that there is not."""
    found = [scenario for scenario, verdict in last(name).items() if verdict["result"] == "fail"]
    return found if set(found) <= set(scenarios) else scenarios


def probe(command: Sequence[str]) -> tuple[str, str]:
    """The version of an interpreter, and what is missing."""
    if shutil.which(command[0]) is None:
        return "", f"{command[0]} is not installed"
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    said = (done.stdout or done.stderr).strip().splitlines()
    if done.returncode:
        return "", f"{command[0]}: {said[0] if said else f'exit status {done.returncode}'}"
    return re.sub(r"^\D*([\d.]+).*", r"\1", said[0] if said else ""), ""


def tell(name: str, language: Language, scenarios: Sequence[Scenario], redis: str, verdicts: Verdicts) -> str:
    """Runs a language's runner; its verdicts go there. What went wrong beside them."""
    runner = ROOT / "bindings" / language.runner
    if not runner.is_file():
        return f"bindings/{language.runner} does not exist"
    with tempfile.TemporaryDirectory(prefix="iok-scenarios-") as folder:
        text, packed = Path(folder) / "scenarios.json", Path(folder) / "scenarios.msgpack"
        text.write_text(json.dumps({"scenarios": scenarios}, ensure_ascii=False))
        packed.write_bytes(msgpack.packb({"scenarios": scenarios}))
        command = [*language.command, str(runner)]
        if language.compile:
            command = [str(BUILD / name)]
            fault = compiled(language.compile, runner, command[0])
            if fault:
                return fault
        env = {
            "IOK_SCENARIOS": str(text),
            "IOK_SCENARIOS_MSGPACK": str(packed),
            "IOK_REDIS": redis,
            "IOKERNEL_LIBRARY": str(library()),
        }
        with running(command, {**os.environ, **env, **language.env}) as child:
            return listen(child, verdicts)


def library() -> Path:
    target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
    return Path(os.environ.get("IOKERNEL_LIBRARY") or target / "release" / "libiokernel.so").resolve()


def compiled(command: Sequence[str], runner: Path, out: str) -> str:
    """Makes a program of the runner. What went wrong."""
    lib = BUILD / "lib"
    lib.mkdir(parents=True, exist_ok=True)
    for link in (lib / "libiokernel.so", lib / "libiokernel.so.0"):
        link.unlink(missing_ok=True)
        link.symlink_to(library())
    words = [word.format(lib=lib, runner=runner, out=out) for word in command]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    print(done.stderr, end="", flush=True)
    return f"it does not compile: {done.stderr.strip().splitlines()[0]}" if done.returncode else ""


@contextlib.contextmanager
def running(command: Sequence[str], env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A child in a process group of its own, all of which ends with the `with`, or when the time is over."""
    child = subprocess.Popen(
        command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip

    def kill() -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    clock = threading.Timer(LIMIT_S, kill)
    clock.start()
    try:
        yield child
    finally:
        clock.cancel()
        kill()
        child.wait()


def listen(child: subprocess.Popen[str], verdicts: Verdicts) -> str:
    """Shows the output as it comes. What went wrong beside what it says."""
    assert child.stdout is not None
    for line in child.stdout:
        print(line, end="", flush=True)
        verdicts.line(line.rstrip("\n"))
    status = child.wait()
    if status == -signal.SIGKILL:
        return f"it was killed: by the time, {LIMIT_S} s, or by somebody else"
    return f"exit status {status}" if status else ""


if __name__ == "__main__":
    sys.exit(main())
