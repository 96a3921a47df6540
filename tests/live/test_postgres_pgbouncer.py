"""Behind pgbouncer in transaction mode, where each transaction gets another of two connections to the server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import iokernel
import pytest
from iokernel.pg import PgEndpoint
from support.fixtures import or_skip
from support.net import wait_for
from support.pgbouncer import Pgbouncer
from support.postgres import PostgresServer

POOL = 2
CLIENTS = 6


@pytest.fixture
def kernel() -> Iterator[iokernel.Kernel]:
    with iokernel.Kernel(name="pgbouncer") as kernel:
        yield kernel


@pytest.fixture
def bouncer(shared_postgres_server: PostgresServer) -> Iterator[Pgbouncer]:
    with or_skip(Pgbouncer)(shared_postgres_server, pool=POOL) as made:
        yield made


@pytest.fixture
def db(kernel: iokernel.Kernel, bouncer: Pgbouncer) -> Iterator[PgEndpoint]:
    with kernel.open(bouncer.url, prepare=False) as endpoint:
        assert isinstance(endpoint, PgEndpoint)
        yield endpoint


def ask(db: iokernel.Endpoint, number: int) -> Any:
    if number % 10 == 3:
        return db("select 1 / $1::int4", 0)
    if number % 10 == 4:
        return db("select no_column")
    return db(f"select $1::int4, 'of {number % 7}', pg_backend_pid()", number)


def check(number: int, answer: Any) -> None:
    if number % 10 in (3, 4):
        assert isinstance(answer, iokernel.RemoteError)
        assert answer.code == ("22012" if number % 10 == 3 else "42703")
    else:
        assert answer.lists()[0][:2] == [number, f"of {number % 7}"]


async def test_a_thousand_at_once_and_errors_among_them(db: PgEndpoint) -> None:
    answers = await asyncio.gather(*(ask(db, number) for number in range(1000)), return_exceptions=True)
    for number, answer in enumerate(answers):
        check(number, answer)
    assert db.state["conns"] == 1


async def test_many_clients_share_two_conns_to_the_server(kernel: iokernel.Kernel, bouncer: Pgbouncer) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(kernel.open(bouncer.url, prepare=False)) for _ in range(CLIENTS)]
        answers = await asyncio.gather(
            *(ask(clients[number % CLIENTS], number) for number in range(1000)), return_exceptions=True
        )
    processes = set()
    for number, answer in enumerate(answers):
        check(number, answer)
        if not isinstance(answer, BaseException):
            processes.add(answer[0][2])
    assert 1 <= len(processes) <= POOL


def test_a_transaction_keeps_one_conn_to_the_server(db: PgEndpoint) -> None:
    db.call("create table if not exists pinned (i int4)")
    db.call("truncate pinned")
    pid = "select pg_backend_pid()"
    with db.transaction() as one:
        own = one.call(pid).scalar()
        others = set()
        for number in range(10):
            one.call("insert into pinned values ($1)", number)
            assert one.call(pid).scalar() == own
            others.add(db.call(pid).scalar())
        assert own not in others, "the transaction has its conn to itself"
        with db.transaction() as other:
            assert other.call(pid).scalar() != own
            waits = db("select count(*) from pinned")
            with pytest.raises(TimeoutError):
                waits.result(0.3)
        assert waits.result(20).scalar() == 0, "a conn is free, and the other transaction is not committed"
    assert db.call("select count(*) from pinned").scalar() == 10
    with pytest.raises(ZeroDivisionError), db.transaction() as one:
        one.call("truncate pinned")
        raise ZeroDivisionError
    assert db.call("select count(*) from pinned").scalar() == 10


def test_a_server_that_restarts_behind_it(kernel: iokernel.Kernel, postgres_server: PostgresServer) -> None:
    with or_skip(Pgbouncer)(postgres_server) as bouncer, kernel.open(bouncer.url, prepare=False) as db:
        assert db.call("select 1", timeout=20).scalar() == 1
        running = db("select pg_sleep(60)")
        asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'"
        wait_for("the query", lambda: postgres_server.cli(asleep) == [["1"]])
        postgres_server.restart()
        with pytest.raises(iokernel.Error) as lost:
            running.result(20)
        assert lost.value.fate in ("maybe_executed", "replied")

        def answers() -> bool:
            try:
                return bool(db.call("select 1", timeout=20).scalar() == 1)
            except iokernel.Error:
                return False

        wait_for("the server", answers, 20)


async def test_names_of_statements_never_stand_for_another(kernel: iokernel.Kernel, bouncer: Pgbouncer) -> None:
    """Without `prepare=false`: what another client has prepared is never executed in place of a statement."""
    with ExitStack() as stack:
        clients = [stack.enter_context(kernel.open(bouncer.url)) for _ in range(CLIENTS)]
        missing = 0
        for first in range(0, 1000, 50):
            numbers = range(first, first + 50)
            answers = await asyncio.gather(*(ask(clients[n % CLIENTS], n) for n in numbers), return_exceptions=True)
            for number, answer in zip(numbers, answers, strict=True):
                if isinstance(answer, iokernel.RemoteError) and answer.code == "26000":
                    missing += 1
                else:
                    check(number, answer)
    print(f"1000 queries with prepared statements behind pgbouncer: {missing} were told that theirs is missing")


def test_a_statement_that_another_conn_has_prepared_is_missing(
    kernel: iokernel.Kernel, bouncer: Pgbouncer, db: PgEndpoint
) -> None:
    """Without `prepare=false`: it is prepared once more outside of transactions; inside, an error says what to do."""
    asked = "select pg_backend_pid()"
    with kernel.open(bouncer.url) as preparing, preparing.lease() as lease, ExitStack() as stack:
        with db.transaction() as one:
            free = one.call(asked).scalar()
            prepared = lease.call(asked).scalar()
            two = stack.enter_context(db.transaction())
            assert two.call(asked).scalar() == prepared != free
        lease.call("begin")
        with pytest.raises(iokernel.RemoteError) as failed:
            lease.call(asked)
        assert failed.value.code == "26000"
        hint = "HINT: is there a pooler in transaction mode? Open the endpoint with prepare=false"
        assert hint in str(failed.value)
        lease.call("rollback")
        assert lease.call(asked).scalar() == free
