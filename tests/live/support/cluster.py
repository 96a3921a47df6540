"""A Redis Cluster of six nodes: three primaries with a replica each."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from . import net
from .process import program
from .resp import RedisError, Resp
from .servers import RedisServer

NODE_TIMEOUT_MS = 1000
SLOTS = 16384


@dataclass(frozen=True)
class Known:
    """A line of CLUSTER NODES."""

    id: str
    address: str
    flags: frozenset[str]
    primary: str
    linked: bool
    slots: frozenset[int]

    @property
    def is_primary(self) -> bool:
        return "master" in self.flags

    @property
    def is_well(self) -> bool:
        return self.linked and not self.flags & {"fail", "fail?", "handshake", "noaddr"}


class Cluster:
    """Any node may be killed, paused and started again; slots can be moved while it works."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            self.nodes = [stack.enter_context(self._node()) for _ in range(6)]
            command = [program("redis-cli", "redis-tools"), "--cluster", "create", *self.addresses]
            command += ["--cluster-replicas", "1", "--cluster-yes"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                raise RuntimeError(f"redis-cli --cluster create: {done.stdout}{done.stderr}")
            self._stack = stack.pop_all()
        try:
            self.settle()
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _node() -> RedisServer:
        options = ["--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)]
        options += ["--cluster-port", str(net.free_port()), "--cluster-allow-replica-migration", "no"]
        options += ["--cluster-replica-validity-factor", "0"]
        return RedisServer(options=options)

    @property
    def addresses(self) -> list[str]:
        return [node.address for node in self.nodes]

    @property
    def url(self) -> str:
        """Three of its nodes are enough to find the others."""
        return f"redis+cluster://{','.join(self.addresses[:3])}"

    def node(self, address: str) -> RedisServer:
        return next(node for node in self.nodes if node.address == address)

    def known(self, by: RedisServer | None = None) -> list[Known]:
        """The nodes and their slots, as one that runs sees them."""
        by = by or next(node for node in self.nodes if node.running)
        return [_known(line) for line in by.cli("CLUSTER", "NODES").decode().splitlines()]

    def primaries(self) -> list[RedisServer]:
        return [self.node(known.address) for known in self.known() if known.is_primary and known.is_well]

    def replica_of(self, primary: RedisServer) -> RedisServer:
        known = {each.address: each for each in self.known()}
        own = known[primary.address].id
        return self.node(next(each.address for each in known.values() if each.primary == own and each.is_well))

    def owner(self, slot: int) -> RedisServer:
        return self.node(next(known.address for known in self.known() if slot in known.slots))

    def slot(self, key: str) -> int:
        slot: int = self.nodes[0].cli("CLUSTER", "KEYSLOT", key)
        return slot

    def fail_over(self, replica: RedisServer) -> None:
        """A planned failover: no write is lost. Returns once the replica is primary."""

        def is_primary() -> bool:
            return any(each.address == replica.address and each.is_primary for each in self.known(replica))

        for _ in range(5):
            with contextlib.suppress(RedisError):
                replica.cli("CLUSTER", "FAILOVER")
            with contextlib.suppress(TimeoutError):
                return net.wait_for("CLUSTER FAILOVER", is_primary, 3)
        raise TimeoutError("CLUSTER FAILOVER: not within 15 s")

    def move(self, slots: Iterable[int], to: RedisServer) -> None:
        """Moves slots with their keys to a primary, one after another, while clients go on."""
        ids = {each.address: each.id for each in self.known()}
        owners = {slot: self.node(each.address) for each in self.known() for slot in each.slots}
        with ExitStack() as stack:
            conns = {node.address: stack.enter_context(node.conn()) for node in self.primaries()}
            for slot in slots:
                source = owners[slot]
                if source is not to:
                    _move(slot, conns[source.address], conns[to.address], ids[source.address], ids[to.address], to)
                    for conn in conns.values():
                        conn("CLUSTER", "SETSLOT", slot, "NODE", ids[to.address])

    def settle(self, timeout: float = 30.0) -> None:
        """Until all nodes run and see each other, every slot is served, and each primary has a replica in step."""
        for node in self.nodes:
            if not node.running:
                node.start()
        with contextlib.suppress(TimeoutError):
            return net.wait_for("a whole cluster", self._is_whole, timeout / 2)
        # Nodes whose views of a slot's owner differ may never agree by themselves: what an operator does then.
        fix = [program("redis-cli", "redis-tools"), "--cluster", "fix", self.nodes[0].address, "--cluster-yes"]
        subprocess.run(fix, capture_output=True, timeout=60, check=False)
        return net.wait_for("a whole cluster", self._is_whole, timeout)

    def _is_whole(self) -> bool:
        return all(self._sees_all(node) for node in self.nodes)

    def _sees_all(self, node: RedisServer) -> bool:
        try:
            with node.conn() as conn:
                said = conn("CLUSTER", "INFO") + conn("INFO", "replication")
        except (OSError, RedisError):
            return False
        known = self.known(node)
        primaries = [each for each in known if each.is_primary]
        replicas = {each.primary for each in known if not each.is_primary}
        return (
            b"cluster_state:ok" in said
            and (b"role:master" in said or b"master_link_status:up" in said)
            and len(known) == 6
            and all(each.is_well for each in known)
            and len(primaries) == 3
            and replicas == {each.id for each in primaries}
            and sum(len(each.slots) for each in primaries) == SLOTS
        )

    def redirects(self) -> dict[str, int]:
        """How often the nodes that run answered MOVED and ASK since their start."""
        total = {"MOVED": 0, "ASK": 0}
        for node in self.nodes:
            if node.running:
                for line in node.cli("INFO", "errorstats").decode().splitlines():
                    name, _, count = line.partition(":count=")
                    if (code := name.removeprefix("errorstat_")) in total:
                        total[code] += int(count)
        return total

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _move(slot: int, source: Resp, target: Resp, source_id: str, target_id: str, to: RedisServer) -> None:
    target("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    while keys := source("CLUSTER", "GETKEYSINSLOT", slot, 50):
        source("MIGRATE", to.host, to.port, "", 0, 5000, "REPLACE", "KEYS", *keys)
    # The new owner first: were it the other way round, a moment would come in which each names the other.
    target("CLUSTER", "SETSLOT", slot, "NODE", target_id)
    source("CLUSTER", "SETSLOT", slot, "NODE", target_id)


def _known(line: str) -> Known:
    own, address, flags, primary, _, _, _, link, *slots = line.split()
    ranges = [part.split("-") for part in slots if not part.startswith("[")]
    held: set[int] = set()
    for part in ranges:
        held.update(range(int(part[0]), int(part[-1]) + 1))
    return Known(own, address.split("@")[0], frozenset(flags.split(",")), primary, link == "connected", frozenset(held))


def commands_served(node: RedisServer) -> dict[str, dict[str, Any]]:
    """INFO commandstats: how often each command came."""
    served: dict[str, dict[str, Any]] = {}
    for line in node.cli("INFO", "commandstats").decode().splitlines():
        if line.startswith("cmdstat_"):
            name, _, rest = line.removeprefix("cmdstat_").partition(":")
            served[name] = dict(pair.split("=") for pair in rest.split(","))
    return served
