"""Us and the others side by side: the budgets of the design that concern what there is, in one table.

    make bench                                    everything
    .venv/bin/python tests/bench/run.py --only blocking --runs 3

Each side runs in a process of its own; sides of one comparison take turns against one server; figures are medians. The
status is 0 whatever the verdicts are, as long as every row was measured or says why not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import Bench, Row, Unavailable
from scenarios import (
    app_cpu,
    asyncio_tasks,
    beside_computing,
    blocking_many,
    blocking_one,
    cells,
    core_c,
    http_clients,
    http_servers,
    lanes,
    languages,
    loops,
    observed,
    pg,
    pg_copy,
    timing_truth,
)

SCENARIOS: dict[str, Callable[[Bench], list[Row]]] = {
    "asyncio": asyncio_tasks.rows,
    "blocking-many": blocking_many.rows,
    "blocking-one": blocking_one.rows,
    "computing": beside_computing.rows,
    "cpu": app_cpu.rows,
    "cells": cells.rows,
    "ring": core_c.ring,
    "noop": core_c.noop,
    "get": core_c.get_depth,
    "stalls": core_c.stalls,
    "memory": core_c.memory,
    "lanes": lanes.rows,
    "languages": languages.rows,
    "loops": loops.rows,
    "timers": core_c.timers,
    "truth": timing_truth.rows,
    "http-clients": http_clients.rows,
    "hanging": observed.hanging,
    "scrape": observed.scrape,
    "http-servers": http_servers.hello,
    "http-burning": http_servers.burning,
    "pg": pg.rows,
    "pg-copy": pg_copy.rows,
}


def main() -> int:
    options = parse()
    started, load = time.monotonic(), os.getloadavg()[0]
    cpus = len(os.sched_getaffinity(0))
    rows: list[Row] = []
    with Bench(options.runs, options.rows) as bench:
        for name, scenario in SCENARIOS.items():
            if options.only and not any(word in name for word in options.only):
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            rows += measured(name, scenario, bench)
    about = (
        f"{cpus} processors, {platform.machine()}, Python {platform.python_version()}, {options.runs} runs each, "
        f"{time.monotonic() - started:.0f} s; load average at the start {load:.2f}, at the end {os.getloadavg()[0]:.2f}"
    )
    noisy = load > cpus / 2
    print(markdown(rows) if options.markdown else table(rows))
    print(f"\n{about}{': the machine was busy, figures are provisional' if noisy else ''}")
    if options.json:
        found = {"about": about, "noisy": noisy, "rows": [row.as_json() for row in rows]}
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if rows and all(row.judged is not None or row.note for row in rows) else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", metavar="NAME", help=f"part of a name of: {', '.join(SCENARIOS)}")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each side (5)")
    parser.add_argument("--rows", type=int, help=f"rows of each COPY ({pg_copy.ROWS})")
    parser.add_argument("--json", metavar="FILE", help="write rows and samples to this file too")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    return parser.parse_args()


def measured(name: str, scenario: Callable[[Bench], list[Row]], bench: Bench) -> list[Row]:
    """A scenario that cannot run becomes a row that says why."""
    try:
        return scenario(bench)
    except Unavailable as why:
        return [Row(name, "-", "-", note=str(why))]
    except Exception as error:
        traceback.print_exc()
        return [Row(name, "-", "-", note=f"failed: {error!r}"[:200])]


def bound(row: Row, value: float | None) -> str:
    return "" if value is None else f"{'>=' if row.at_least else '<='} {value:g}{joined(row.unit)}"


def joined(unit: str) -> str:
    return unit if unit in ("x", "%") else f" {unit}"


def cells(row: Row) -> list[str]:
    found = "-" if row.judged is None else f"{row.judged:.3g}{joined(row.unit)}"
    return [row.budget, row.ours, row.peer, found, bound(row, row.must), bound(row, row.aim), row.verdict]


HEAD = ["budget", "ours", "against", "found", "must", "aim", "verdict"]


def table(rows: list[Row]) -> str:
    lines = [HEAD, *(cells(row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(HEAD))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "-" * len(text[0]))
    notes = [f"{row.budget}: {row.note}" for row in rows if row.note]
    return "\n".join([*text, *([""] if notes else []), *notes])


def markdown(rows: list[Row]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *(cells(row) for row in rows)]
    text = [f"| {' | '.join(line)} |".replace(">=", "≥").replace("<=", "≤") for line in lines]
    notes = [f"- {row.budget}: {row.note}" for row in rows if row.note]
    return "\n".join([*text, *([""] if notes else []), *notes])


if __name__ == "__main__":
    sys.exit(main())
