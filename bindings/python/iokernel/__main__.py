"""The command line, as `iokernel` or `python -m iokernel`.

`serve`, `doctor` and `--version` are this binding's and are answered here. Everything else is the program `iokernel`'s,
which takes this process's place.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

_PROGRAM = "iokernel"
_HERE = """\
Answered by the binding for Python:
  serve APP        serves a WSGI or an ASGI application; `serve --help` has the options
  doctor [URL...]  what is installed, whether it works, what a URL leads to
  --version        the version of the binding
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line. Its exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if given[:1] == ["--version"]:
            from . import __version__

            print(f"iokernel {__version__}")
            return 0
        if given[:1] == ["doctor"]:
            from .doctor import main as look

            return look(_doctor_urls(given[1:]))
        if given[:1] == ["serve"]:
            from .serve._master import main as serve

            return serve(given[1:])
    except ImportError as error:
        print(f"iokernel cannot be used: {error}", file=sys.stderr)
        return 1
    if given[:1] in (["--help"], ["-h"]):
        return _help()
    return _become(given)


def _doctor_urls(given: list[str]) -> list[str]:
    parser = argparse.ArgumentParser(prog="iokernel doctor", description="what is installed, and whether it works")
    parser.add_argument("url", nargs="*", help="services to connect to, such as redis://localhost")
    urls: list[str] = parser.parse_args(given).url
    return urls


def _help() -> int:
    """What is answered here, and what the program answers."""
    print(_HERE, flush=True)
    program = _find()
    if program is None:
        return _missing()
    return subprocess.run([program, "--help"], check=False).returncode


def _become(given: list[str]) -> int:
    program = _find()
    if program is None:
        return _missing()
    try:
        os.execv(program, [_PROGRAM, *given])
    except OSError as error:
        print(f"iokernel: {program}: cannot be run: {error.strerror}", file=sys.stderr)
        return 2


def _candidates() -> list[Path]:
    """Where the program may be: beside the library, in this package, in the source tree that this file is in.

    Never along PATH, where this very command may be under the same name.
    """
    here = Path(__file__).resolve().parent
    found = []
    library = os.environ.get("IOKERNEL_LIBRARY")
    if library:
        folder = Path(library).absolute().parent
        # A library in /usr/local/lib has its program in /usr/local/bin.
        found += [folder / _PROGRAM, folder.parent / "bin" / _PROGRAM]
    found.append(here / _PROGRAM)
    for folder in here.parents:
        if (folder / "Cargo.toml").is_file():
            target = Path(os.environ.get("CARGO_TARGET_DIR") or folder / "target")
            found.append(target / "release" / _PROGRAM)
            break
    return found


def _find() -> Path | None:
    return next((path for path in _candidates() if path.is_file() and os.access(path, os.X_OK)), None)


def _missing() -> int:
    listed = ", ".join(str(path) for path in _candidates())
    print(
        f"iokernel: the program was not found ({listed}): build it with `cargo build --release`, or set"
        " IOKERNEL_LIBRARY to the path of a library that has it in its folder",
        file=sys.stderr,
    )
    return 2


if __name__ == "__main__":
    sys.exit(main())
