"""Private instances of the real servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from . import net
from .process import Process, program
from .resp import Resp


class RedisServer(Process):
    """A redis-server on a free loopback port, without persistence, in a temp folder of its own.

    `users` maps a name to its ACL rules (`{"app": "on >secret ~* &* +@all"}`); `options` are more arguments for
    redis-server (`["--maxclients", "10"]`). With `unixsocket=True` it also listens on `unix_address`. `host` is any
    address of ours, `run_in` what its command line begins with (`["ip", "netns", "exec", name]`). With `keeps=True` its
    settings are in a file that CONFIG REWRITE changes: started again, it is what it was.
    """

    def __init__(
        self,
        *,
        unixsocket: bool = False,
        password: str | None = None,
        users: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
        port: int | None = None,
        host: str = "127.0.0.1",
        run_in: Sequence[str] = (),
        keeps: bool = False,
    ) -> None:
        self._program = [*run_in, program("redis-server", "redis-server")]
        super().__init__()
        self.host = host
        self._file = self.folder / "redis.conf" if keeps else None
        self._fixed_port = port
        self._password = password
        self._arguments = ["--bind", host, "--save", "", "--repl-diskless-sync-delay", "0"]
        self._arguments += ["--enable-debug-command", "yes", "--dir", str(self.folder)]
        if not host.startswith("127."):
            self._arguments += ["--protected-mode", "no"]
        self._unix = self.folder / "redis.sock" if unixsocket else None
        if self._unix:
            self._arguments += ["--unixsocket", str(self._unix)]
        if password:
            self._arguments += ["--requirepass", password]
        for name, rules in (users or {}).items():
            self._arguments += ["--user", name, *rules.split()]
        self._arguments += options
        self.port = 0
        try:
            self._start_on_free_port()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def unix_address(self) -> str:
        assert self._unix, "pass unixsocket=True"
        return f"unix:{self._unix}"

    @property
    def url(self) -> str:
        return f"redis://{self._credentials}{self.address}"

    @property
    def unix_url(self) -> str:
        assert self._unix, "pass unixsocket=True"
        return f"redis+unix://{self._credentials}{self._unix}"

    @property
    def _credentials(self) -> str:
        return f":{quote(self._password, safe='')}@" if self._password else ""

    def cli(self, *command: str | bytes | int | float) -> Any:
        """One command on a fresh connection of our own."""
        with self.conn() as conn:
            return conn(*command)

    def conn(self) -> Resp:
        """A connection of our own, authenticated."""
        conn = Resp(self.address)
        if self._password:
            conn("AUTH", self._password)
        return conn

    def clients(self) -> list[dict[str, str]]:
        """CLIENT LIST, our own asking connection left out. One asker at a time."""
        lines = self.cli("CLIENT", "LIST").decode().splitlines()
        rows = [dict(pair.split("=", 1) for pair in line.split()) for line in lines]
        return [row for row in rows if row["cmd"] != "client|list"]

    def start(self) -> None:
        """After stop or kill: again on the same port."""
        self.spawn(self._command())
        try:
            net.wait_for("redis-server", lambda: not self.running or self._is_ready())
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{net.tail(self.log)}") from None
        if not self.running:
            raise RuntimeError(f"redis-server ended\n{net.tail(self.log)}")

    def _command(self) -> list[str]:
        arguments = ["--port", str(self.port), *self._arguments]
        if self._file is None:
            return [*self._program, *arguments]
        if not self._file.exists():
            self._file.write_text(settings(arguments))
        return [*self._program, str(self._file)]

    def _is_ready(self) -> bool:
        """By its own word: on our port might listen somebody else."""
        return b"eady to accept connections" in self.log.read_bytes()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _start_on_free_port(self) -> None:
        """Another program may take the port between our look and the server's bind: then try another."""
        for attempts_left in reversed(range(1 if self._fixed_port else 3)):
            self.port = self._fixed_port or net.free_port()
            try:
                self.start()
                return
            except RuntimeError:
                if not attempts_left:
                    raise
                if self._file:
                    self._file.unlink()


def settings(arguments: Sequence[str]) -> str:
    """`["--port", "1", "--save", ""]` as a file has it."""
    lines: list[list[str]] = []
    for word in arguments:
        if word.startswith("--"):
            lines.append([word[2:]])
        else:
            lines[-1].append(word if word and " " not in word else f'"{word}"')
    return "".join(" ".join(line) + "\n" for line in lines)
