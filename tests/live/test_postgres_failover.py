"""Writes go on when a standby takes the place of its primary, and each happens once, where its answer says.

Streaming replication is asynchronous here, as it is by default: what a primary acknowledged right before it died may
be lost with it, and no client can help that (PostgreSQL 15 documentation, 27.2.5). So each row is stamped by the server
that inserts it, and what is counted as lost is what the new primary acknowledged itself.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator

import iokernel
import pytest
from support.fixtures import or_skip
from support.load import DEADLINE_S, Failed, Load, meanwhile, not_executed, summary, table, until, untyped
from support.net import free_port, wait_for
from support.postgres import PostgresServer

IS_SOAK = os.environ.get("IOKERNEL_SOAK", "") not in ("", "0")
ROUNDS = 10 if IS_SOAK else 1
WAYS = ("kill", "stop", "demote", "read only")

FIRST_WRITE_S = 10.0
"""Far more than the 2 s that writes may take to go on after a promotion: that is printed, and machines are busy."""

STEADY_S = 0.5
"""How long the load goes on before a promotion, and after the first write that follows it."""

INSERT = "insert into written values ($1, inet_server_port()) returning by"

SELECT = """select (select n from written where n = $1), inet_server_port(),
    not (pg_is_in_recovery() or current_setting('default_transaction_read_only')::bool)"""

KNOWN_S = 2.0
"""After so long a time it is known who is promoted, on a busy machine too: heartbeats go each 200 ms."""


class Inserts(Load):
    """Rows with a number each, which nothing forbids to be there twice, and the port of the server that inserts it."""

    def __init__(self, endpoint: iokernel.Endpoint, tasks: int = 30, pause_s: float = 0.01) -> None:
        super().__init__(tasks, pause_s)
        self._endpoint = endpoint
        self._next = 0
        self.acked: list[tuple[int, int, float]] = []
        """Number, the port of the server that acknowledged it, and when."""
        self.failed: list[Failed] = []

    async def turn(self, task: int) -> None:
        number, began = self._next, time.monotonic()
        self._next += 1
        try:
            rows = await self._endpoint(INSERT, number, timeout=DEADLINE_S)
        except Exception as error:
            self.failed.append(Failed(number, began, time.monotonic(), error))
        else:
            self.acked.append((number, rows.scalar(), time.monotonic()))

    def first_at(self, server: PostgresServer) -> float | None:
        """When a server acknowledged its first row."""
        return min((at for _, port, at in self.acked if port == server.port), default=None)


class Reads(Load):
    """Reads back from a standby what was written: a row is the asked one, or not there yet."""

    def __init__(self, endpoint: iokernel.Endpoint, writes: Inserts, tasks: int = 5, pause_s: float = 0.01) -> None:
        super().__init__(tasks, pause_s)
        self._endpoint = endpoint
        self._writes = writes
        self.found = self.missing = 0
        self.by: Counter[int] = Counter()
        self.wrong: list[object] = []
        self.strays: list[float] = []
        """When a server that takes writes has answered."""
        self.failed: list[Failed] = []

    async def turn(self, task: int) -> None:
        if not self._writes.acked:
            return
        number, began = self._writes.acked[-1][0], time.monotonic()
        try:
            [[found, port, takes]] = (await self._endpoint(SELECT, number, timeout=DEADLINE_S)).lists()
        except Exception as error:
            self.failed.append(Failed(number, began, time.monotonic(), error))
            return
        self.by[port] += 1
        self.found += found == number
        self.missing += found is None
        if found not in (number, None):
            self.wrong.append((number, found, port))
        if takes:
            self.strays.append(time.monotonic())


def rows_of(server: PostgresServer) -> list[tuple[int, int]]:
    """The number of each row, and the port of the server that inserted it."""
    return [(int(number), int(port)) for number, port in server.cli("select n, by from written")]


def left_behind(server: PostgresServer) -> list[tuple[int, int]]:
    """What is in a server that was killed. It is started where nobody looks for it."""
    port, server.port = server.port, free_port()
    try:
        server.start()
        return rows_of(server)
    finally:
        server.stop()
        server.port = port


def fail(how: str, old: PostgresServer, new: PostgresServer) -> float:
    """Takes the primary away and promotes the standby. When that was done, by time.monotonic()."""
    match how:
        case "kill":
            old.kill()
        case "stop":
            old.pause()
        case "demote":
            # The standby has everything before the primary ends (PostgreSQL 15 documentation, 27.2.5).
            old.stop()
        case "read only":
            old.cli("alter system set default_transaction_read_only = on")
            old.cli("select pg_reload_conf()")
    new.promote()
    return time.monotonic()


def recover(how: str, old: PostgresServer, new: PostgresServer) -> list[tuple[int, int]]:
    """Makes the old primary a standby of the new one. What was in it before that."""
    rows: list[tuple[int, int]] = []
    match how:
        case "kill":
            rows = left_behind(old)
        case "stop":
            # It believes to be primary still, and its sockets are full of what was asked of it.
            old.cont()
            time.sleep(STEADY_S)
            rows = rows_of(old)
        case "read only":
            rows = rows_of(old)
    if how == "demote":
        old.demote(new)
    else:
        old.follow(new)
    return rows


def knows_both(endpoint: iokernel.Endpoint) -> bool:
    """Whether an endpoint has seen who is the primary and who the standby: else it cannot see who is promoted."""
    return sorted(peer["role"] for peer in endpoint.state["peers"]) == ["primary", "replica"]


@pytest.fixture
def servers() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    with or_skip(PostgresServer)() as primary, PostgresServer(follows=primary) as standby:
        primary.cli("create table written (n int4, by int4)")
        wait_for("the standby", lambda: standby.cli("select to_regclass('written') is not null") == [["t"]])
        yield primary, standby


@pytest.mark.timeout(60 + ROUNDS * 30)
@pytest.mark.parametrize("how", WAYS)
async def test_each_write_happens_once_when_a_standby_is_promoted(
    servers: tuple[PostgresServer, PostgresServer], how: str
) -> None:
    old, new = servers
    url = old.url.replace(old.address, f"{old.address},{new.address}")
    columns = "round", "first write s", "acked by old", "by new", "by old after it", "failed", "errors"
    with (
        iokernel.Kernel(name="pg-failover") as kernel,
        table(f"{how}: a standby is promoted; the first write after the promotion", *columns) as add,
    ):
        primary = kernel.open(url, role="primary", heartbeat="200ms")
        standbys = kernel.open(url, role="replica", heartbeat="200ms")
        await primary.ready(10)
        await standbys.ready(10)
        for number in range(ROUNDS):
            await until("both roles", lambda: knows_both(primary) and knows_both(standbys), 20)
            async with Inserts(primary) as writes, Reads(standbys, writes) as reads:
                await until("the load", lambda: writes.acked and reads.found)
                began = time.monotonic()
                await until("some load", lambda: time.monotonic() > began + STEADY_S)  # noqa: B023
                promoted = await meanwhile(fail, how, old, new)
                await until("a write", lambda: writes.first_at(new), FIRST_WRITE_S + DEADLINE_S)  # noqa: B023
                first = writes.first_at(new)
                assert first is not None
                await until("more writes", lambda: time.monotonic() > first + STEADY_S)  # noqa: B023
                behind = await meanwhile(recover, how, old, new)
                reads_before = reads.by[old.port]
                await until("reads of the new standby", lambda: reads.by[old.port] > reads_before, 20)  # noqa: B023
            failed = [each.error for each in writes.failed]
            by_old = [(n, at) for n, port, at in writes.acked if port == old.port]
            by_new = [n for n, port, _ in writes.acked if port == new.port]
            late = [at - promoted for _, at in by_old if at > promoted]
            add([number, first - promoted, len(by_old), len(by_new), len(late), len(failed), summary(failed)])
            check(writes, await meanwhile(rows_of, new), behind, new)
            assert first - promoted <= FIRST_WRITE_S
            assert max(late, default=0) < KNOWN_S, "the old primary is written to still"
            assert not reads.wrong, reads.wrong[:3]
            strays = [at - promoted for at in reads.strays if at > promoted + KNOWN_S]
            assert not strays, f"reads of a primary, so long after its promotion: {strays[:3]}"
            assert not untyped(each.error for each in reads.failed)
            await meanwhile(new.cli, "truncate written")
            old, new = new, old


def check(writes: Inserts, rows: list[tuple[int, int]], behind: list[tuple[int, int]], new: PostgresServer) -> None:
    """`rows` of the new primary, and those left `behind` in the old one."""
    for where in (rows, behind):
        twice = [number for number, count in Counter(number for number, _ in where).items() if count > 1]
        assert not twice, f"inserted twice: {twice[:5]}"
    acked = Counter(number for number, _, _ in writes.acked)
    assert all(count == 1 for count in acked.values()), "acknowledged twice"
    inserted_by: dict[int, set[int]] = {}
    for number, port in rows + behind:
        inserted_by.setdefault(number, set()).add(port)
    replayed = [number for number, ports in inserted_by.items() if len(ports) > 1]
    assert not replayed, f"inserted by both servers: {replayed[:5]}"
    wrong = [(n, port) for n, port, _ in writes.acked if inserted_by.get(n, {port}) != {port}]
    assert not wrong, f"acknowledged by one server, inserted by the other: {wrong[:5]}"
    lost = {number for number, port, _ in writes.acked if port == new.port} - {number for number, _ in rows}
    assert not lost, f"acknowledged by the new primary and not there: {sorted(lost)[:5]}"
    errors = [each.error for each in writes.failed]
    assert not untyped(errors), untyped(errors)[:3]
    never = [each for each in writes.failed if not_executed(each.error) and each.number in inserted_by]
    assert not never, f"there, though their errors say that they were not executed: {never[:3]}"


def test_of_two_that_call_themselves_primary_the_one_promoted_last_is_written_to() -> None:
    """Whoever opens an endpoint has not seen the promotion: timelines tell."""
    with or_skip(PostgresServer)() as old, PostgresServer(follows=old) as new:
        wait_for(
            "streaming",
            lambda: old.cli("select count(*) from pg_stat_replication where state = 'streaming'") == [["1"]],
        )
        new.promote()
        auth = old.url.partition("//")[2].partition("@")[0]
        for hosts in (f"{old.address},{new.address}", f"{new.address},{old.address}"):
            with iokernel.Kernel(name="two") as kernel:
                db = kernel.open(f"postgres://{auth}@{hosts}/postgres", role="primary", heartbeat="100ms")
                wait_for("both", lambda: {peer["state"] for peer in db.state["peers"]} == {"up", "superseded"})  # noqa: B023
                ports = {db.call("select inet_server_port()", timeout=10).scalar() for _ in range(20)}
                assert ports == {new.port}
                time.sleep(0.5)
                assert db.call("select inet_server_port()", timeout=10).scalar() == new.port
