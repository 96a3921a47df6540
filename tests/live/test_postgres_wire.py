"""PostgreSQL over a bad network, under callers that do not wait, and under a program that hangs."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import iokernel
import pytest
from iokernel.pg import PgEndpoint
from support.asker import ask_once
from support.fixtures import or_skip
from support.load import summary, untyped
from support.net import wait_for
from support.postgres import PostgresServer
from support.program import Program
from support.proxy import Proxy

IS_SOAK = os.environ.get("IOKERNEL_SOAK", "") not in ("", "0")
QUERIES = 100_000 if IS_SOAK else 5_000
TASKS = 200
HANG_S = 30 if IS_SOAK else 5
SIDES = ("to_server", "to_client")

STEP = 1 if IS_SOAK else 4
"""How many bytes lie between two cuts among the server's settings, which are three quarters of its greeting."""
SCRAM_BYTES = 250
"""More than either side says until the password is accepted."""

FAST = {"backoff": "2ms", "max_backoff": "5ms", "timeout": "20s"}
"""Who is cut off again and again must not wait for long."""


@pytest.fixture
def kernel() -> Iterator[iokernel.Kernel]:
    with iokernel.Kernel(name="pg-wire") as kernel:
        yield kernel


@pytest.fixture
def proxy(shared_postgres_server: PostgresServer, make_proxy: Callable[..., Proxy]) -> Proxy:
    return make_proxy(shared_postgres_server.address)


@pytest.fixture
def url(shared_postgres_server: PostgresServer, proxy: Proxy) -> str:
    return shared_postgres_server.url.replace(shared_postgres_server.address, proxy.address)


def rule(proxy: Proxy, side: str, **rules: Any) -> None:
    (proxy.to_server if side == "to_server" else proxy.to_client)(**rules)


def passed(proxy: Proxy) -> dict[str, int]:
    """How many bytes went each way until now."""
    stats = proxy.stats()
    return {side: stats[f"bytes_{side}"] for side in SIDES}


def how_to_cut(at: int) -> str:
    return "reset" if at % 2 else "close"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", SIDES)
def test_a_handshake_that_is_cut_at_any_byte_is_tried_again(
    kernel: iokernel.Kernel, proxy: Proxy, url: str, side: str
) -> None:
    with kernel.open(url, **FAST) as db:
        db.wait_ready(20)
        whole = passed(proxy)[side]
        places = [*range(min(SCRAM_BYTES, whole)), *range(SCRAM_BYTES, whole, STEP)]
        for at in places:
            rule(proxy, side, cut_at=at, cut_how=how_to_cut(at))
            begun = proxy.stats()["accepted"]
            proxy.end()
            # The second that comes after the end shows that the first was cut.
            wait_for("attempts", lambda: proxy.stats()["accepted"] >= begun + 2)  # noqa: B023
            asked = db("select $1::int4", at)
            rule(proxy, side)
            assert asked.result(20).scalar() == at, "nothing of it was sent, so that it waits for the next conn"
        assert db.state["conns"] == 1
    print(f"cut at {len(places)} of {whole} bytes {side} of a handshake")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", SIDES)
def test_an_exchange_that_is_cut_at_any_byte_ends_with_its_fate(
    kernel: iokernel.Kernel, shared_postgres_server: PostgresServer, proxy: Proxy, url: str, side: str
) -> None:
    table = f"cut_{side}"
    insert = f"insert into {table} values ($1) returning n, 'inserted'"
    shared_postgres_server.cli(f"drop table if exists {table}; create table {table} (n int4)")

    def exchange(db: iokernel.Endpoint, number: int) -> list[list[Any]]:
        rows: list[list[Any]] = db.call(insert, number).lists()
        return rows

    before = passed(proxy)[side]
    with kernel.open(url, **FAST) as db:
        db.wait_ready(20)
        greeted = passed(proxy)[side] - before
        assert exchange(db, -1) == [[-1, "inserted"]]
        whole = passed(proxy)[side] - before
    fates: Counter[str] = Counter()
    ended: dict[int, str] = {}
    for at in range(greeted, whole + 1):
        rule(proxy, side, cut_at=at, cut_how=how_to_cut(at))
        with kernel.open(url, **FAST) as db:
            db.wait_ready(20)
            try:
                assert exchange(db, at) == [[at, "inserted"]]
                ended[at] = "replied"
            except iokernel.ConnectionLost as lost:
                ended[at] = str(lost.fate)
            rule(proxy, side)
            assert db.call("select 7", timeout=20).scalar() == 7, "it recovers"
        fates[ended[at]] += 1
    rows = Counter(int(number) for [number] in shared_postgres_server.cli(f"select n from {table}"))
    assert max(rows.values()) == 1, "inserted twice"
    assert all(rows[at] == 1 for at, fate in ended.items() if fate == "replied"), "acknowledged and not there"
    assert all(rows[at] == 0 for at, fate in ended.items() if fate == "not_sent"), "there, though it was not sent"
    assert set(fates) <= {"replied", "maybe_executed", "not_sent"} and fates["maybe_executed"]
    assert ended[whole] == "replied", "the cut comes behind it"
    print(
        f"cut at each of {whole - greeted} bytes {side} of an exchange: {dict(fates)}, {sum(rows.values()) - 1} there"
    )


def test_everything_works_in_single_bytes(kernel: iokernel.Kernel, proxy: Proxy, url: str) -> None:
    proxy.both(split=1)
    with kernel.open(url) as db, db.subscribe("LISTEN", "bytes") as stream:
        assert isinstance(db, PgEndpoint)
        db.call("drop table if exists bytes")
        db.call("create table bytes (n int4 primary key, t text, b bytea, a int4[])")
        for number in range(20):
            row = [number, "ü" * number, bytes(range(number)), [number, None]]
            sql = "insert into bytes values ($1, $2, $3, $4) returning *"
            assert db.call(sql, *row).lists() == [row]
        with pytest.raises(iokernel.RemoteError) as failed:
            db.call("insert into bytes values (1)")
        assert failed.value.code == "23505"
        replies = db.call(["select 1"], ["select 1 / 0"], {"simple": "select 2; select 3"})
        assert replies[0].scalar() == 1 and replies[1].code == "22012"
        assert [reply.scalar() for reply in replies[2]] == [2, 3]
        with db.transaction() as transaction:
            transaction.call("delete from bytes where n > $1", 4)
            assert db.call("select count(*) from bytes").scalar() == 20
        assert db.call("select count(*) from bytes").scalar() == 5
        db.call("select pg_notify('bytes', 'one by one')")
        assert next(iter(stream))[2] == "one by one"
        assert db.call("select repeat('x', 20000)").scalar() == "x" * 20000
    stats = proxy.stats()
    assert stats["writes_to_client"] == stats["bytes_to_client"] > 20000


@pytest.mark.timeout(600 if IS_SOAK else 120)
async def test_no_row_reaches_another_request(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> None:
    """Callers whose time is over, or who do not wait, leave answers behind that are nobody else's."""
    dice = random.Random(15)
    wrong: list[Any] = []
    errors: list[BaseException] = []
    counts: Counter[str] = Counter()

    async def one(db: iokernel.Endpoint, number: int) -> None:
        text = "select $1::int4, $2::text" + dice.choice(["", ", pg_sleep(0.001)::text", f", {number % 50}"])
        timeout = dice.choice([None, None, 0.0005, 0.002, 0.02])
        asked = db(text, number, f"of {number}", timeout=timeout)
        if dice.random() < 0.2:
            await asyncio.sleep(dice.choice([0, 0.0005, 0.003]))
            asked.cancel()
        try:
            rows = (await asked).lists()
        except asyncio.CancelledError:
            counts["cancelled"] += 1
        except iokernel.Timeout as error:
            counts["timed out"] += 1
            errors.append(error)
        else:
            counts["answered"] += 1
            if len(rows) != 1 or rows[0][:2] != [number, f"of {number}"]:
                wrong.append((number, rows))

    with kernel.open(shared_postgres_server.url, application_name="impatient", pool=1) as db:
        await db.ready(20)
        [process] = shared_postgres_server.conns("impatient")
        numbers = iter(range(QUERIES))

        async def ask() -> None:
            for number in numbers:
                await one(db, number)

        await asyncio.gather(*(ask() for _ in range(TASKS)))
        print(f"{QUERIES} queries of {TASKS} tasks: {dict(counts)}; errors: {summary(errors)}")
        assert not wrong, f"{len(wrong)} misrouted: {wrong[:3]}"
        assert sum(counts.values()) == QUERIES and all(counts[what] for what in ("answered", "cancelled", "timed out"))
        assert not untyped(errors)
        assert (await db("select pg_backend_pid()", timeout=20)).scalar() == process
        state = db.state
        assert (state["conns"], state["inflight"], state["requests"], state["queued"]) == (1, 0, 0, 0)
        assert list(shared_postgres_server.conns("impatient")) == [process]


HANGS = """
import iokernel, json, threading
from support.hang import hang

url, admin, seconds = sys.argv[1:]
kernel = iokernel.Kernel(name="pg-hang", admin=f"unix:{admin}")
db = kernel.open(url, heartbeat="200ms")
pid = db.call("select pg_backend_pid()").scalar()
pending = [db("select pg_sleep($1)::text, $2::int4", float(seconds) / 4, number) for number in range(2)]
print(json.dumps({"pid": pid}), flush=True)
took = hang(float(seconds))
# What is there has come meanwhile: nobody waits for it.
numbers = [future.result(0)[0][1] for future in pending]
told = {"took": took, "numbers": numbers, "pid": db.call("select pg_backend_pid()").scalar()}
print(json.dumps(told), flush=True)
"""


def test_a_program_that_hangs_keeps_its_conn(tmp_path: Path) -> None:
    """The server ends whoever is idle for a second. The program is in one C call for far longer."""
    admin = str(tmp_path / "admin.sock")
    with or_skip(PostgresServer)(settings={"idle_session_timeout": "1s"}) as server:
        with Program(HANGS, server.url, admin, str(HANG_S)) as program:
            pid = program.hear()["pid"]
            time.sleep(0.2)
            requests = ask_once(admin, "/requests").json()["requests"]
            assert len(requests) == 2, requests
            [service] = ask_once(admin, "/state").json()["endpoints"]
            assert (service["state"], service["inflight"]) == ("up", 2), service
            wait_for("both to end", lambda: not ask_once(admin, "/requests").json()["requests"], HANG_S)
            assert not program.has_told(), "it hangs still"
            assert list(server.conns()) == [pid]
            told = program.hear()
        assert told["took"] >= HANG_S
        assert told["numbers"] == [0, 1]
        assert told["pid"] == pid


FORKS = """
import iokernel, json, os

db = iokernel.open(sys.argv[1])
ask = "select pg_backend_pid(), $1::int4"
[[pid, _]] = db.call(ask, 0).lists()
slow = db("select pg_sleep(0.5)::text, pg_backend_pid()")
children = []
for number in range(4):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            seen = [db.call(ask, number).lists()[0] for _ in range(5)]
            with db.transaction() as transaction:
                transaction.call("create temp table own (i int4) on commit drop")
            os.write(writing, json.dumps(seen).encode())
        finally:
            os._exit(0)
    os.close(writing)
    children.append((child, reading))
seen = []
for child, reading in children:
    with os.fdopen(reading) as told:
        seen.append(json.loads(told.read() or "[]"))
    os.waitpid(child, 0)
print(json.dumps({"pid": pid, "slow": slow.result(20)[0][1], "after": db.call(ask, 9)[0][0], "seen": seen}), flush=True)
"""


def test_forked_children_have_conns_of_their_own(shared_postgres_server: PostgresServer) -> None:
    with Program(FORKS, shared_postgres_server.url) as program:
        told = program.hear()
    assert told["pid"] == told["slow"] == told["after"], "the parent's conn is the same"
    assert [{number for _, number in seen} for seen in told["seen"]] == [{0}, {1}, {2}, {3}]
    own = [{pid for pid, _ in seen} for seen in told["seen"]]
    assert all(len(pids) == 1 for pids in own)
    assert len({told["pid"]}.union(*own)) == 5, "nobody shares a conn with another process"
