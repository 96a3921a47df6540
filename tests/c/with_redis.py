"""with_redis.py EXPECTED PROGRAM ARGUMENT...: runs a program beside a private redis-server.

The argument `URL` becomes the server's. Succeeds if the program does and a line of its output holds EXPECTED as a word.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "live"))

from support.process import Missing
from support.servers import RedisServer

SKIPPED = 77


def main(expected: str, *command: str) -> int:
    try:
        server = RedisServer()
    except Missing as missing:
        print(missing)
        return SKIPPED
    with server:
        given = [server.url if word == "URL" else word for word in command]
        done = subprocess.run(given, capture_output=True, text=True, timeout=60)
    print(done.stdout, done.stderr, sep="")
    return done.returncode or int(expected not in re.findall(r"\w+", done.stdout))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
