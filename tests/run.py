"""Runs the test suites named on the command line and ends with one line: N passed, N failed, N skipped.

Each suite is a command whose output streams by; its own closing line is read and added up. A suite that cannot run,
or that ran no test, counts as one failure: silence must never look like success.

The suites of the interpreted languages, which mostly wait, run two at a time; each one's output comes at its end.

A test that fails runs once more, alone where its runner can do that: other tests load the machine, and a few measure
time; where its runner cannot do that, all of them run once more. What failed, at its first or second try, is named
again at the end.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON_SUITES = ["tests/live", "bindings/python/tests"]


@dataclass(frozen=True)
class Count:
    """What one closing line, or all of them, said."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


Read = Callable[[str], Count]


@dataclass(frozen=True)
class Step:
    """One command; with `read`, it is a test runner whose output is counted. `again` runs only what failed. A step that
    is `optional` counts as skipped where its program is not installed. One that `repeats` runs whole once more."""

    command: list[str]
    read: Read | None = None
    again: list[str] | None = None
    optional: bool = False
    repeats: bool = False

    @property
    def is_missing(self) -> bool:
        return self.optional and shutil.which(self.command[0]) is None


# How pytest, nextest, ctest, TAP and minitest name what failed, and pytest why.
FAILED = re.compile(
    r"^(?:(?:FAILED|ERROR) \S+::|E {3}|\s+(?:FLAKY|FAIL|TIMEOUT|SIG\w+) .*\[|.*\*\*\*(?:Failed|Timeout|Exception)"
    r"|not ok |(?:Failure|Error):$|\w+#test_\w+)"
)
MOST_TOLD = 60
MOST_AGAIN = 5

told: list[str] = []


def main() -> int:
    total = Count()
    # Started in the background, it was told to ignore it; and the programs of the tests would be, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    names = sys.argv[1:]
    together = [name for name in names if name in LANGUAGES] if len(names) > 1 else []
    for name in names:
        if name not in together:
            total += suite(name, SUITES[name]())
        elif name == together[0]:
            total += side_by_side(together)
    if told:
        say("failed, at the first try or at both:")
        print("\n".join(list(dict.fromkeys(told))[:MOST_TOLD]))
    print(total, flush=True)
    return 1 if total.failed or not total.passed else 0


def side_by_side(names: list[str]) -> Count:
    """Each suite by a process of this program."""

    def alone(name: str) -> str:
        command = [sys.executable, __file__, name]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout

    total = Count()
    with ThreadPoolExecutor(2) as pool:
        for name, output in zip(names, pool.map(alone, names), strict=True):
            print(output, end="", flush=True)
            told.extend(line for line in output.splitlines() if FAILED.match(line))
            count = read_scenarios("".join(output.splitlines()[-1:]))
            total += fault(f"{name}: no test ran") if count == Count() else count
    return total


def suite(name: str, steps: list[Step]) -> Count:
    """All steps of one suite, up to the first that fails without saying which test did."""
    total = Count()
    for step in steps:
        say(f"{name}: {' '.join(step.command)}")
        if step.is_missing:
            say(f"{name}: going on without: {step.command[0]}")
            total += Count(skipped=1)
            continue
        code, output = run(step.command)
        count = step.read(output) if step.read else Count()
        told.extend(line for line in output.splitlines() if step.read and FAILED.match(line))
        if step.read and step.repeats and 0 < count.failed <= MOST_AGAIN:
            say(f"{name}, all again: {' '.join(step.command)}")
            code, output = run(step.command)
            count = step.read(output)
            told.extend(line for line in output.splitlines() if FAILED.match(line))
        if step.read and step.again and 0 < count.failed <= MOST_AGAIN:
            say(f"{name}, again: {' '.join(step.again)}")
            code, output = run(step.again)
            second = step.read(output)
            told.extend(line for line in output.splitlines() if FAILED.match(line))
            count += Count(second.passed, second.failed - count.failed, second.skipped)
        if step.read and count == Count():
            count = fault(f"{name}: no test ran")
        elif code and not count.failed:
            count += fault(f"{name}: exit status {code}")
        total += count
        if code and not step.read:
            break
    say(f"{name}: {total}")
    return total


def fault(why: str) -> Count:
    say(why)
    return Count(failed=1)


def say(text: str) -> None:
    print(f"== {text}", flush=True)


def run(command: list[str]) -> tuple[int, str]:
    """The exit status and the output, which is also shown while it comes."""
    lines: list[str] = []
    try:
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except OSError as error:
        return 127, str(error)
    assert child.stdout
    for line in child.stdout:
        print(line, end="", flush=True)
        lines.append(line)
    return child.wait(), "".join(lines)


def numbers(pattern: str, output: str) -> list[int]:
    return [int(number) for number in re.findall(pattern, output, re.MULTILINE)]


def words(output: str, line: str, **parts: str) -> Count:
    """Adds up `12 passed, 1 failed` in every line that `line` matches; `parts` say which words count as what."""
    found = "\n".join(re.findall(line, output, re.MULTILINE))
    return Count(**{part: sum(numbers(rf"(\d+) (?:{word})\b", found)) for part, word in parts.items()})


def read_nextest(output: str) -> Count:
    return words(output, r"^ *Summary .*$", passed="passed", failed="failed|timed out|exec failed", skipped="skipped")


def read_cargo(output: str) -> Count:
    return words(output, r"^test result: .*$", passed="passed", failed="failed", skipped="ignored")


def read_pytest(output: str) -> Count:
    return words(
        output,
        r"^=*\s*\d+ \w+.* in [\d.]+s.*$",
        passed="passed|xfailed",
        failed="failed|errors?|xpassed",
        skipped="skipped",
    )


def read_ctest(output: str) -> Count:
    failed = sum(numbers(r"^\d+% tests passed, (\d+) tests? failed out of \d+", output))
    total = sum(numbers(r"^\d+% tests passed, \d+ tests? failed out of (\d+)", output))
    skipped = len(re.findall(r"\*\*\*Skipped", output))
    return Count(total - failed - skipped, failed, skipped)


def read_scenarios(output: str) -> Count:
    return words(output, r"^\d+ passed, \d+ failed, \d+ skipped$", passed="passed", failed="failed", skipped="skipped")


def read_tap(output: str) -> Count:
    """Also `prove -v`. A file that skips itself is one test skipped."""
    skipped = len(re.findall(r"^(?:ok \d+|1\.\.0)\b.*# *SKIP", output, re.MULTILINE | re.IGNORECASE))
    whole = len(re.findall(r"^1\.\.0\b.*# *SKIP", output, re.MULTILINE | re.IGNORECASE))
    passed = len(re.findall(r"^ok \d+", output, re.MULTILINE)) - (skipped - whole)
    return Count(passed, len(re.findall(r"^not ok \d+(?!.*# *TODO)", output, re.MULTILINE)), skipped)


def read_minitest(output: str) -> Count:
    line = r"^\d+ runs, \d+ assertions, \d+ failures, \d+ errors, \d+ skips$"
    count = words(output, line, passed="runs", failed="failures|errors", skipped="skips")
    return Count(count.passed - count.failed - count.skipped, count.failed, count.skipped)


def read_node(output: str) -> Count:
    """Its spec reporter begins the lines with another sign than TAP does."""
    found = {word: sum(numbers(rf"^\S {word} (\d+)$", output)) for word in ("pass", "fail", "skipped")}
    return Count(found["pass"], found["fail"], found["skipped"])


def rust() -> list[Step]:
    """nextest where it is installed: it bounds each test's time. It runs no doc tests, so cargo does these."""
    if not shutil.which("cargo-nextest"):
        return [Step(["cargo", "test", "--workspace", "--locked", "--no-fail-fast"], read_cargo)]
    nextest = ["cargo", "nextest", "run", "--workspace", "--locked", "--no-fail-fast", "--status-level", "fail"]
    nextest += ["--retries", "1"]
    return [Step(nextest, read_nextest), Step(["cargo", "test", "--doc", "--workspace", "--locked"])]


# All tests of the binding run with its C extension; with cffi alone, all but these, which take long.
ONE_WAY = (
    *("test_compat", "test_http_httpx", "test_http_real", "test_http_requests", "test_http_together"),
    *("test_serve_gunicorn", "test_serve_proxies", "test_serve_workers", "test_wheel"),
)


def python() -> list[Step]:
    """In several processes: most tests wait, for servers and for time to pass."""
    files = sorted((ROOT / "bindings/python/tests").glob("test_*.py"))
    both = [str(file.relative_to(ROOT)) for file in files if not file.name.startswith(ONE_WAY)]
    suites = list(filter(os.path.isdir, PYTHON_SUITES))
    return [pytest(suites), pytest(both, "IOKERNEL_PURE=1"), scenarios("python")]


def pytest(paths: list[str], *environment: str) -> Step:
    command = ["env", *environment, sys.executable, "-m", "pytest"]
    again = [*command, "--last-failed", "--last-failed-no-failures=none", *paths]
    return Step([*command, "-n", "4", "--dist", "worksteal", *paths], read_pytest, again)


def c() -> list[Step]:
    """Every program twice: as it is, and under AddressSanitizer."""
    ctest = ["ctest", "--output-on-failure", "--repeat", "until-pass:2", "--test-dir"]
    tests = [Step([*ctest, build], read_ctest) for build in ("build/c", "build/c-asan")]
    return [Step(["make", "--no-print-directory", "c"]), *tests]


def cpp() -> list[Step]:
    """As C's; and the scenarios."""
    ctest = ["ctest", "--output-on-failure", "--repeat", "until-pass:2", "--test-dir"]
    tests = [Step([*ctest, build], read_ctest) for build in ("build/cpp", "build/cpp-asan")]
    return [Step(["make", "--no-print-directory", "cpp"]), *tests, scenarios("cpp")]


def scenarios(language: str) -> Step:
    """The shared ones, beside a server of their own."""
    command = [sys.executable, "bindings/scenarios/run.py", language]
    return Step(command, read_scenarios, [*command, "--last-failed"])


RUBY = ["ruby", "-w", "-Ibindings/ruby/lib", "-Ibindings/ruby/tests", "-e"]
RUBY_TESTS = "Dir['./bindings/ruby/tests/*_test.rb'].each { require _1 }"

# The tests that a language has beside the scenarios.
LANGUAGES = {
    "ruby": [Step([*RUBY, RUBY_TESTS], read_minitest, optional=True)],
    "lua": [Step(["lua5.4", "bindings/lua/tests/run.lua"], read_tap, optional=True)],
    "luajit": [Step(["luajit", "bindings/lua/tests/run.lua"], read_tap, optional=True)],
    "perl": [
        Step(["perl", "-e", f"chdir 'bindings/perl'; {how}exec qw(prove -v -Ilib t)"], read_tap, optional=True)
        for how in ("", "$ENV{IOKERNEL_PURE_PERL} = 1; ")
    ],
    "node": [Step(["npm", "--prefix", "bindings/node", "test", "--silent"], read_node, optional=True)],
}


def binding(language: str) -> Callable[[], list[Step]]:
    return lambda: [scenarios(language), *(replace(step, repeats=True) for step in LANGUAGES[language])]


def table() -> list[Step]:
    """The README says of the scenarios what the runs before this one said."""
    return [Step([sys.executable, "bindings/scenarios/run.py", "--check"])]


SUITES: dict[str, Callable[[], list[Step]]] = {
    "rust": rust,
    "python": python,
    "c": c,
    "cpp": cpp,
    **{language: binding(language) for language in LANGUAGES},
    "table": table,
}

if __name__ == "__main__":
    sys.exit(main())
