"""The process of one side: sets up, says that it is ready, then measures once for each line of its input.

usage: side.py SCENARIO SIDE JSON
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent.parent / "bindings" / "python"), str(HERE.parent / "live")]


def main() -> None:
    scenario, name, given = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if cpus := given.pop("cpus", ()):
        os.sched_setaffinity(0, cpus)
    name, _, path = name.partition(":")
    try:
        choose(path)
        side = importlib.import_module(f"scenarios.{scenario}").SIDES[name](**given)
        say(next(side))
        for _ in sys.stdin:
            say(next(side))
    except Exception as error:
        say({"unavailable": f"{type(error).__name__}: {error}"[:300]})


def choose(path: str) -> None:
    """Which of the binding's two paths is measured: "extension" or "cffi"."""
    if path == "cffi":
        os.environ["IOKERNEL_PURE"] = "1"
    elif path == "extension":
        from iokernel import _native

        if _native.accelerator is None:
            raise RuntimeError(_native.why_pure)


def say(answer: object) -> None:
    print(json.dumps(answer or {}), flush=True)


if __name__ == "__main__":
    main()
