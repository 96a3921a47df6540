"""The table of README.md that says which language shows which scenario.

It stands between two comments. A language that did not run (its interpreter was missing) keeps the column it has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

BEGIN, END = "<!-- scenarios -->", "<!-- end of scenarios -->"
TITLES = {
    "ruby": "Ruby",
    "lua": "Lua",
    "luajit": "LuaJIT",
    "perl": "Perl",
    "node": "Node",
    "cpp": "C++",
    "python": "Python",
}
PASS, FAIL, SKIP = "✓", "✗", "\N{EN DASH}"

Column = dict[str, str]
"""For each scenario `PASS`, `FAIL`, or, where it was skipped, the reason."""


def write(readme: Path, results: Path, languages: Sequence[str], names: Sequence[str]) -> None:
    before, shown, after = parts(readme)
    columns = {**parse(shown), **last_run(results)}
    readme.write_text(f"{before}{render(columns, languages, names)}{after}")


def is_fresh(readme: Path, results: Path, languages: Sequence[str], names: Sequence[str]) -> bool:
    _, shown, _ = parts(readme)
    columns = parse(shown)
    return shown == render({**columns, **last_run(results)}, languages, names)


def parts(readme: Path) -> tuple[str, str, str]:
    """What stands before, in and behind the place of the table."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    shown, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{readme.name}: expected the lines {BEGIN} and {END}")
    return before + begin, shown, end + after


def last_run(results: Path) -> dict[str, Column]:
    """The columns of the languages that ran."""
    columns: dict[str, Column] = {}
    for file in results.glob("*.json"):
        said = json.loads(file.read_text())
        if said["version"]:
            columns[said["language"]] = {name: cell(**verdict) for name, verdict in said["scenarios"].items()}
    return columns


def cell(result: str, reason: str) -> str:
    return {"pass": PASS, "fail": FAIL}.get(result) or reason or "no reason was given"


def render(columns: Mapping[str, Column], languages: Sequence[str], names: Sequence[str]) -> str:
    shown = [language for language in languages if language in columns]
    if not shown:
        return "\n"
    reasons: list[str] = []

    def text(value: str) -> str:
        if value in (PASS, FAIL):
            return value
        if value not in reasons:
            reasons.append(value)
        return f"{SKIP}<sup>{reasons.index(value) + 1}</sup>"

    lines = [["scenario", *(TITLES[language] for language in shown)], ["---"] * (len(shown) + 1)]
    lines += [[name, *(text(columns[language].get(name, FAIL)) for language in shown)] for name in names]
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    notes = "".join(f"{number}. {reason}\n" for number, reason in enumerate(reasons, 1))
    return f"\n{rows}\n{notes}" if notes else f"\n{rows}"


def parse(shown: str) -> dict[str, Column]:
    """What `render` made."""
    notes = dict(re.findall(r"^(\d+)\. (.*)$", shown, re.MULTILINE))
    rows = [[part.strip() for part in line.strip("|").split("|")] for line in shown.splitlines() if line[:1] == "|"]
    languages = {title: language for language, title in TITLES.items()}
    columns: dict[str, Column] = {}
    for at, title in enumerate(rows[0][1:] if rows else [], 1):
        columns[languages[title]] = {row[0]: reason(row[at], notes) for row in rows[2:]}
    return columns


def reason(text: str, notes: Mapping[str, str]) -> str:
    number = re.search(r"\d+", text)
    return notes.get(number[0], "") if number else text
