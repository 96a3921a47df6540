"""`python -m iokernel doctor [url...]` and `python -m iokernel --version`."""

from __future__ import annotations

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """The command line. Its exit status."""
    parser = argparse.ArgumentParser(prog="iokernel")
    parser.add_argument("--version", action="store_true", help="the version of the binding")
    commands = parser.add_subparsers(dest="command")
    doctor = commands.add_parser("doctor", help="what is installed, whether it works, what a URL leads to")
    doctor.add_argument("url", nargs="*", help="services to connect to, such as redis://localhost")
    parsed = parser.parse_args(arguments)
    try:
        if parsed.version:
            from . import __version__

            print(f"iokernel {__version__}")
            return 0
        if parsed.command == "doctor":
            from .doctor import main as look

            return look(parsed.url)
    except ImportError as error:
        print(f"iokernel cannot be used: {error}", file=sys.stderr)
        return 1
    parser.print_help()
    return 2


if __name__ == "__main__":
    sys.exit(main())
