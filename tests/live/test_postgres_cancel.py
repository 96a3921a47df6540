"""What nobody waits for any more is stopped in the server, by a word on a connection of its own, and nobody else is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator

import iokernel
import pytest
from iokernel.pg import PgEndpoint
from support.certs import Authority
from support.fixtures import or_skip
from support.net import wait_for
from support.pgbouncer import Pgbouncer
from support.postgres import PostgresServer
from support.proxy import Proxy

SLEEP = "select pg_sleep(60)"


@pytest.fixture
def kernel() -> Iterator[iokernel.Kernel]:
    with iokernel.Kernel(name="pg-cancel") as kernel:
        yield kernel


@pytest.fixture
def url(shared_postgres_server: PostgresServer) -> str:
    return shared_postgres_server.url


def running(server: PostgresServer) -> int:
    """Statements that sleep at this moment, asked without us."""
    return int(server.cli("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")[0][0])


def wait_until_stopped(server: PostgresServer) -> None:
    wait_for("the end of the statement", lambda: running(server) == 0)


def test_a_late_statement_is_stopped(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer, url: str) -> None:
    with kernel.open(url, pool=1) as db:
        with pytest.raises(iokernel.Timeout) as late:
            db.call(SLEEP, timeout=0.2)
        assert late.value.fate == "maybe_executed"
        assert db.call("select 1", timeout=10).scalar() == 1, "on the same connection"
        wait_until_stopped(shared_postgres_server)
        assert db.state["conns"] == 1


def test_neighbours_of_a_cancelled_statement_have_their_own_answers(kernel: iokernel.Kernel, url: str) -> None:
    with kernel.open(url, pool=1) as db:
        slow = db(SLEEP)
        behind = [db("select $1::int4, pg_sleep(0.001)::text", number) for number in range(200)]
        slow.cancel()
        assert [future.result(20).lists()[0][0] for future in behind] == list(range(200))


def test_the_transaction_of_a_cancelled_statement_has_failed(
    kernel: iokernel.Kernel, shared_postgres_server: PostgresServer, url: str
) -> None:
    with kernel.open(url) as db, db.lease() as lease:
        lease.call("begin")
        with pytest.raises(iokernel.Timeout):
            lease.call(SLEEP, timeout=0.2)
        with pytest.raises(iokernel.RemoteError) as failed:
            lease.call("select 1", timeout=10)
        assert failed.value.code == "25P02"
        lease.call("rollback")
        assert lease.call("select 2", timeout=10).scalar() == 2
        wait_until_stopped(shared_postgres_server)


async def test_who_leaves_a_transaction_leaves_no_statement_behind(
    kernel: iokernel.Kernel, shared_postgres_server: PostgresServer, url: str
) -> None:
    """Its locks would stay until the statement ends."""
    with kernel.open(url) as db:
        assert isinstance(db, PgEndpoint)
        db.call("create table if not exists locked (n int)")

        async def work() -> None:
            async with db.transaction() as transaction:
                await transaction("lock table locked in access exclusive mode")
                await transaction(SLEEP)

        task = asyncio.create_task(work())
        await asyncio.to_thread(wait_for, "the statement", lambda: running(shared_postgres_server) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_until_stopped, shared_postgres_server)
        assert (await db("select count(*) from locked", timeout=10)).scalar() == 0


async def test_a_stream_that_is_left_is_stopped(
    kernel: iokernel.Kernel, shared_postgres_server: PostgresServer, url: str
) -> None:
    with kernel.open(url) as db:
        assert isinstance(db, PgEndpoint)
        rows = db.stream("select n, pg_sleep(0.001) from generate_series(1, 1000000) n")
        async for row in rows:
            assert row["n"] == 1
            break
        rows.close()
        await asyncio.to_thread(wait_until_stopped, shared_postgres_server)


def test_the_word_is_said_over_tls(kernel: iokernel.Kernel) -> None:
    with Authority() as authority, or_skip(PostgresServer)(authority=authority) as server:
        db = kernel.open(server.url, sslmode="verify-full", sslrootcert=authority.ca)
        with pytest.raises(iokernel.Timeout):
            db.call(SLEEP, timeout=0.3)
        wait_until_stopped(server)
        assert db.call("select 1", timeout=10).scalar() == 1


def test_the_word_goes_through_pgbouncer(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> None:
    with or_skip(Pgbouncer)(shared_postgres_server) as bouncer, kernel.open(bouncer.url, prepare=False) as db:
        with pytest.raises(iokernel.Timeout):
            db.call(SLEEP, timeout=0.5)
        wait_until_stopped(shared_postgres_server)
        assert db.call("select 1", timeout=10).scalar() == 1


def test_a_word_that_cannot_be_said_holds_nobody_up(
    kernel: iokernel.Kernel, make_proxy: Callable[..., Proxy], shared_postgres_server: PostgresServer, url: str
) -> None:
    """The statement runs on to its end then, and nothing is lost."""
    proxy = make_proxy(shared_postgres_server.address)
    through = url.replace(shared_postgres_server.address, proxy.address)
    with kernel.open(through, pool=1, connect_timeout="200ms") as db:
        db.wait_ready(10)
        proxy.listen(False)
        slow = db("select pg_sleep(1)")
        behind = db("select 2")
        slow.cancel()
        assert behind.result(10).scalar() == 2


async def test_cancels_under_load_harm_nobody(kernel: iokernel.Kernel, url: str) -> None:
    """Statements that are long enough to be stopped, among those of others, on one connection."""
    dice = random.Random(7)
    with kernel.open(url, pool=1) as db:

        async def one(number: int) -> None:
            if number % 40 == 0:
                asked = db("select $1::int4, pg_sleep(0.05)::text", number)
                await asyncio.sleep(dice.choice([0, 0.002, 0.03, 0.06]))
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
            else:
                assert (await db("select $1::int4, pg_sleep(0.0002)::text", number, timeout=60)).lists()[0][0] == number

        async def ask(numbers: Iterator[int]) -> None:
            for number in numbers:
                await one(number)

        numbers = iter(range(2_000))
        await asyncio.gather(*(ask(numbers) for _ in range(20)))
        assert db.state["conns"] == 1
