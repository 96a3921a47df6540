"""The process behind `fakes.Fake`, which documents the script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from base64 import b64decode, b64encode
from typing import Any

from . import worker
from .worker_reader import Ended, Reader

Script = dict[str, list[dict[str, Any]]]
OK = [{"bytes": b64encode(b"+OK\r\n").decode(), "wait_ms": 0, "then": ""}]


class Commands(Reader):
    """Reads RESP commands: arrays of bulk strings, or a line of words."""

    async def next(self) -> list[bytes]:
        line = await self._line()
        if not line.startswith(b"*"):
            return line.split()
        return [await self._bulk() for _ in range(int(line[1:]))]

    async def _bulk(self) -> bytes:
        length = int((await self._line())[1:])
        return (await self._take(length + 2))[:-2]


class FakeWorker:
    def __init__(self, answers: Script, greeting: str, listen: str) -> None:
        self._answers = answers
        self._greeting = b64decode(greeting)
        self._listener = worker.Listener(listen, self._serve)
        self._commands: list[list[bytes]] = []
        self._conns: set[socket.socket] = set()
        self._accepted = 0

    def start(self) -> str:
        self._listener.start()
        return self._listener.address

    def handle(self, order: dict[str, Any]) -> Any:
        match order["do"]:
            case "answers":
                self._answers = order["answers"]
                return None
            case "push":
                for conn in self._conns:
                    conn.send(b64decode(order["bytes"]))
                return len(self._conns)
            case "commands":
                return [[b64encode(word).decode() for word in command] for command in self._commands]
            case "accepted":
                return self._accepted
            case unknown:
                raise ValueError(f"unknown order {unknown!r}")

    async def _serve(self, conn: socket.socket) -> None:
        self._accepted += 1
        self._conns.add(conn)
        worker.no_delay(conn)
        how = "close"
        try:
            how = await self._speak(conn, {key: list(says) for key, says in self._answers.items()})
        except (Ended, OSError):
            pass
        finally:
            self._conns.discard(conn)
            worker.finish(conn, how)

    async def _speak(self, conn: socket.socket, script: Script) -> str:
        """Until an answer ends the conn; how it ends."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(conn, self._greeting)
        commands = Commands(conn)
        while True:
            command = await commands.next()
            self._commands.append(command)
            say = answer_to(command, script)
            await asyncio.sleep(say["wait_ms"] / 1000)
            await loop.sock_sendall(conn, b64decode(say["bytes"]))
            if say["then"]:
                return str(say["then"])


def answer_to(command: list[bytes], script: Script) -> dict[str, Any]:
    """Takes the next answer of the longest key that the command begins with; a key's last answer stays."""
    words = b" ".join(command).decode(errors="replace").upper() + " "
    keys = [key for key in script if not key or words.startswith(key.upper() + " ")]
    says = script[max(keys, key=len)] if keys else OK
    return says.pop(0) if len(says) > 1 else says[0]


async def main() -> None:
    made = FakeWorker(**json.loads(sys.argv[1]))
    await worker.obey(made.start, made.handle)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
