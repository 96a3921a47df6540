"""Each binding beside the clients that the users of its language would pick: `bindings/LANGUAGE/bench`, one server for
all. The rows of 100 GETs in flight, as Ruby also has them in fibers, have the must and the aim; others are shown."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

from harness import ROOT, Bench, Row, Unavailable, rate, ratio, span

NO_OP, MANY, ONE = "no-op, 256 outstanding", "GET, 100 in flight", "GET, one at a time"
FIBERS = "GET, 100 fibers"
LONGEST_S = 300

Said = dict[str, dict[str, dict[str, Any]]]
"""What a program said: for each case, and each side of it, the figures."""


def compiled(bench: Bench) -> list[str]:
    source = ROOT / "bindings" / "cpp" / "bench" / "bench.cpp"
    return [str(bench.compiled(source, "c++", "-std=c++20", *bench.library(), "-lhiredis"))]


def interpreted(*command: str) -> Callable[[Bench], list[str]]:
    return lambda _: list(command)


LANGUAGES: dict[str, Callable[[Bench], list[str]]] = {
    "Ruby": interpreted("ruby", "bindings/ruby/bench/bench.rb"),
    "Lua 5.4": interpreted("lua5.4", "bindings/lua/bench/bench.lua"),
    "LuaJIT": interpreted("luajit", "bindings/lua/bench/bench.lua"),
    "Perl": interpreted("perl", "bindings/perl/bench/bench.pl"),
    "Node": interpreted("node", "bindings/node/bench/bench.js"),
    "C++": compiled,
}


def rows(bench: Bench) -> list[Row]:
    made: list[Row] = []
    with bench.server() as server:
        for language, command in LANGUAGES.items():
            try:
                made += judged(language, said(command(bench), server.url))
            except Unavailable as why:
                made.append(Row(language, "-", "-", note=str(why)))
    return made


def said(command: list[str], url: str) -> Said:
    environment = {**os.environ, "IOK_REDIS": url}
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(str(error)) from None
    if done.returncode:
        raise Unavailable(f"{command[-1]}: {[*done.stderr.strip().splitlines(), 'no word'][0]}")
    found: Said = {}
    for line in done.stdout.splitlines():
        figures = json.loads(line)
        found.setdefault(figures["case"], {})[figures["side"]] = figures
    return found


def judged(language: str, found: Said) -> list[Row]:
    made = [
        Row(
            f"{language}, {case}: {side}",
            f"{rate(mine['per_second'])}, {span(mine['cpu_ns'] / 1e9)} CPU",
            f"{rate(other['per_second'])} {peer}",
            ratio(mine["per_second"], other["per_second"]),
            must=1,
            aim=3,
            samples={"ours": mine, "peer": other},
        )
        for case in (MANY, FIBERS)
        for ours, peers in [sides(found.get(case, {}))]
        for side, mine in ours.items()
        for peer, other in peers.items()
    ]
    if not made:
        made.append(Row(f"{language}, {MANY}", "-", "-", note="no other client, or none that pipelines here"))
    ours, peers = sides(found.get(ONE, {}))
    for side, mine in ours.items():
        others = ", ".join(f"{span(other['p50_us'] / 1e6)} {peer}" for peer, other in peers.items())
        p50 = span(mine["p50_us"] / 1e6)
        made.append(Row(f"{language}, {ONE}, p50: {side}", p50, others, mine["p50_us"], "us", samples=found[ONE]))
    for side, mine in found.get(NO_OP, {}).items():
        cost = rate(mine["per_second"])
        made.append(Row(f"{language}, {NO_OP}: {side}", cost, "", mine["cpu_ns"], "ns CPU", samples={"ours": mine}))
    return made


def sides(case: dict[str, dict[str, Any]]) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Ours, and the others."""
    ours = {side: figures for side, figures in case.items() if side.startswith("iokernel")}
    return ours, {side: figures for side, figures in case.items() if side not in ours}
