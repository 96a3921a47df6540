"""A primary, two replicas and three sentinels that watch over them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

from . import net
from .process import Process, program
from .resp import RedisError, Resp
from .servers import RedisServer, settings

NAME = "mymaster"
# One sentinel notices first and has the others' votes before they would stand for election themselves: three that
# notice in the same moment split the votes, try again seconds later, and often split them again.
DOWN_AFTER_MS = (800, 1500, 2200)
QUORUM = 1
# Sentinel looks for the promotion once a second while it fails over: on a busy machine that may take several looks.
FAILOVER_TIMEOUT_MS = 5000
# Sentinel's own periods, which no setting names. INFO (10 s by default) and hello (2 s) decide how soon a node that
# came back is made a replica, which is what a round of failover spends most of its time on. PING must come well before
# the first of DOWN_AFTER_MS, or a fresh primary is taken for dead before its first answer can count; and a replica of
# which there was no INFO for five PINGs is not promoted, while INFO comes once a second then.
PERIODS = {"INFO-PERIOD": 1000, "PUBLISH-PERIOD": 500, "PING-PERIOD": 300}


class Sentinel(Process):
    """One sentinel, with a settings file that it keeps its knowledge in."""

    def __init__(self, primary: RedisServer, down_after_ms: int) -> None:
        self._program = program("redis-server", "redis-server")
        super().__init__()
        self.port = net.free_port()
        self._file = self.folder / "sentinel.conf"
        # `sentinel` lines are no options of the command line.
        self._file.write_text(
            settings(["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)])
            + f"sentinel monitor {NAME} 127.0.0.1 {primary.port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {NAME} {down_after_ms}\n"
            f"sentinel failover-timeout {NAME} {FAILOVER_TIMEOUT_MS}\n"
            f"sentinel parallel-syncs {NAME} 2\n"
        )
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """After stop or kill: again, knowing what it knew."""
        self.spawn([self._program, str(self._file), "--sentinel"])
        net.wait_for("sentinel", lambda: b"Sentinel ID is" in self.log.read_bytes() and self._answers())
        for name, period in PERIODS.items():
            self.cli("SENTINEL", "DEBUG", name, period)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(self.cli("PING") == b"PONG")
        return False

    def cli(self, *command: str | int) -> Any:
        with Resp(self.address) as conn:
            return conn(*command)

    def primary(self) -> str:
        """Where it says that the primary is."""
        host, port = self.cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)
        return f"{host.decode()}:{port.decode()}"

    def replicas(self) -> list[dict[str, str]]:
        return [_fields(row) for row in self.cli("SENTINEL", "REPLICAS", NAME)]

    def others(self) -> list[dict[str, str]]:
        return [_fields(row) for row in self.cli("SENTINEL", "SENTINELS", NAME)]


class SentinelSet:
    """`nodes`: three servers, `sentinels`: three more. Any of them may be killed, paused and started again."""

    def __init__(self, options: Sequence[str] = ()) -> None:
        with ExitStack() as stack:
            first = stack.enter_context(RedisServer(keeps=True, options=options))
            follow = ["--replicaof", "127.0.0.1", str(first.port), *options]
            self.nodes = [first, *(stack.enter_context(RedisServer(keeps=True, options=follow)) for _ in range(2))]
            self.sentinels = [stack.enter_context(Sentinel(first, after)) for after in DOWN_AFTER_MS]
            net.wait_for("three sentinels that know of all", self._know_of_all, 20)
            self._stack = stack.pop_all()

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(each.address for each in self.sentinels)}/{NAME}"

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    def node(self, address: str) -> RedisServer:
        return next(node for node in self.nodes if node.address == address)

    def primary(self) -> RedisServer:
        """The node that is primary by the word of every sentinel that runs, and by its own."""
        net.wait_for("sentinels that agree", self._agreed, 20)
        return self.node(self._said()[0])

    def replicas(self) -> list[RedisServer]:
        primary = self.primary()
        return [node for node in self.nodes if node is not primary]

    def fail_over(self) -> None:
        """Asks a sentinel for a failover; returns while it goes on."""

        def accepted() -> bool:
            with contextlib.suppress(RedisError):  # NOGOODSLAVE, INPROG: it does not know enough yet.
                return bool(self.sentinels[0].cli("SENTINEL", "FAILOVER", NAME) == b"OK")
            return False

        net.wait_for("SENTINEL FAILOVER", accepted, 20)

    def settle(self, timeout: float = 30.0) -> None:
        """Until everything runs, both replicas follow the primary, and the sentinels know it."""
        for node in self.nodes:
            if not node.running:
                node.start()
        for sentinel in self.sentinels:
            if not sentinel.running:
                sentinel.start()
        net.wait_for("a primary with two replicas", self._is_whole, timeout)

    def _said(self) -> list[str]:
        return [sentinel.primary() for sentinel in self.sentinels if sentinel.running]

    def _agreed(self) -> bool:
        said = self._said()
        return len(set(said)) == 1 and leads(self.node(said[0]))

    def _know_of_all(self) -> bool:
        return all(len(sentinel.others()) == 2 and len(_well(sentinel)) == 2 for sentinel in self.sentinels)

    def _is_whole(self) -> bool:
        if not self._agreed() or not self._know_of_all():
            return False
        primary = self.primary()
        roles = [role(node) for node in self.nodes if node is not primary]
        return all(each[0] == "slave" and each[2] == primary.port and each[3] == "connected" for each in roles)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def role(node: RedisServer) -> list[Any]:
    """ROLE, its words as text; `["gone"]` if nobody answers."""
    try:
        with Resp(node.address, timeout=1.0) as conn:
            said: list[Any] = conn("ROLE")
    except OSError:
        return ["gone"]
    return [word.decode() if isinstance(word, bytes) else word for word in said]


def leads(node: RedisServer) -> bool:
    """It says that it is primary."""
    return bool(role(node)[0] == "master")


def _well(sentinel: Sentinel) -> list[str]:
    """The replicas that it takes for replicas in step, by what they said themselves.

    One of which it has heard last that it is a primary would, once promoted, be demoted by it at once.
    """
    return [
        row["name"]
        for row in sentinel.replicas()
        if (row["flags"], row["role-reported"], row["master-link-status"]) == ("slave", "slave", "ok")
    ]


def _fields(row: list[bytes]) -> dict[str, str]:
    words = [word.decode() for word in row]
    return dict(zip(words[::2], words[1::2], strict=True))
