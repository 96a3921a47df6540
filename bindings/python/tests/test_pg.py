"""PostgreSQL from Python: rows, batches, transactions, in threads and in loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import iokernel
import iokernel.pg
import pytest
from support.fixtures import or_skip
from support.postgres import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with or_skip(PostgresServer)() as made:
        yield made


@pytest.fixture
def db(server: PostgresServer) -> Iterator[iokernel.pg.PgEndpoint]:
    with iokernel.pg.open(server.url) as made:
        made.call("drop table if exists things")
        made.call("create table things (id int primary key, name text)")
        yield made


def test_rows_are_found_by_position_and_by_name(db: iokernel.pg.PgEndpoint) -> None:
    rows = db.call("select i as id, i * i as square, 'n' || i as name, 0 as id from generate_series(1, 3) i")
    assert (len(rows), rows.columns, rows.types) == (
        3,
        ["id", "square", "name", "id"],
        ["int4", "int4", "text", "int4"],
    )
    assert [row["square"] for row in rows] == [1, 4, 9]
    first = rows[0]
    assert (first[0], first["id"], first["name"], first[-1]) == (1, 1, "n1", 0)
    assert first == [1, 1, "n1", 0] and first == (1, 1, "n1", 0) and len(first) == 4
    assert first.dict() == {"id": 1, "square": 1, "name": "n1"} and first.get("none", 5) == 5
    with pytest.raises(KeyError):
        first["none"]
    assert rows[1:] == [rows[1], rows[2]]
    assert rows.columnar()["square"] == [1, 4, 9]
    assert db.call("select 1 as a, 2 as b").dicts() == [{"a": 1, "b": 2}]
    assert rows.tag == "SELECT 3" and rows.affected == 3
    with pytest.raises(ValueError, match="rows: 3"):
        rows.one()
    assert db.call("select 7").one()[0] == db.call("select 7").scalar() == 7
    assert db.call("select 7 where false").scalar() is None


def test_what_changes_something_has_no_rows(db: iokernel.pg.PgEndpoint) -> None:
    done = db.call("insert into things values ($1, $2), ($3, $4)", 1, "a", 2, None)
    assert (done.tag, done.affected, list(done), done.columns) == ("INSERT 0 2", 2, [], [])
    assert db.call("insert into things values (3, 'c') returning id")[0]["id"] == 3


def test_a_batch_has_the_errors_of_those_that_failed(db: iokernel.pg.PgEndpoint) -> None:
    first, second, third = db.call(["select $1::int", 1], ["select 1 / 0"], ["select $1::text", "x"])
    assert (first.scalar(), third.scalar()) == (1, "x")
    assert isinstance(second, iokernel.RemoteError) and second.code == "22012"


def test_several_statements_in_one_text(db: iokernel.pg.PgEndpoint) -> None:
    replies = db.call({"simple": "select 1; insert into things values (1, 'x'); select name from things"})
    assert [reply.tag for reply in replies] == ["SELECT 1", "INSERT 0 1", "SELECT 1"]
    assert replies[2].scalar() == "x"


def test_futures_of_threads(db: iokernel.pg.PgEndpoint) -> None:
    futures = [db("select $1::int", number) for number in range(100)]
    assert [future.result(10).scalar() for future in futures] == list(range(100))
    failing = db("select 1 / 0")
    with pytest.raises(iokernel.RemoteError):
        failing.result(10)


async def test_in_a_loop(server: PostgresServer) -> None:
    db = iokernel.pg.open(server.url)
    rows = await asyncio.gather(*(db("select $1::int as number", number) for number in range(200)))
    assert [found[0]["number"] for found in rows] == list(range(200))
    assert (await db("select 1", timeout=5)).scalar() == 1
    async with db.transaction("serializable", read_only=True) as tx:
        assert (await tx("show transaction_isolation")).scalar() == "serializable"
        with pytest.raises(iokernel.RemoteError) as refused:
            await tx("create table never (a int)")
        assert refused.value.code == "25006"
        with pytest.raises(iokernel.RemoteError, match="rolled back"):
            await tx.__aexit__(None, None, None)
    db.close()


def test_a_transaction_is_committed_or_rolled_back(db: iokernel.pg.PgEndpoint) -> None:
    with db.transaction() as tx:
        tx.call("insert into things values (1, 'kept')")
        assert db.call("select count(*) from things").scalar() == 0, "others do not see it"
    with pytest.raises(KeyError), db.transaction() as tx:
        tx.call("insert into things values (2, 'not kept')")
        raise KeyError
    assert db.call("select id from things").lists() == [[1]]
    # What failed in it, though nobody cared, is not committed silently.
    with pytest.raises(iokernel.RemoteError, match="25P02"), db.transaction() as tx:
        assert isinstance(tx.call(["select 1 / 0"], ["select 1"])[0], iokernel.RemoteError)
    assert db.call("select 1").scalar() == 1
    with pytest.raises(iokernel.BadRequest, match="isolation"):
        db.transaction("snapshot")


def test_savepoints(db: iokernel.pg.PgEndpoint) -> None:
    with db.transaction() as tx:
        with pytest.raises(iokernel.RemoteError), tx.savepoint():
            tx.call("insert into things values (1, 'not kept')")
            tx.call("select 1 / 0")
        with tx.savepoint():
            tx.call("insert into things values (2, 'kept')")
    assert db.call("select id from things").lists() == [[2]]


def test_other_urls_are_refused() -> None:
    with pytest.raises(iokernel.ConfigError, match="expected postgres"):
        iokernel.pg.open("redis://127.0.0.1:1")


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_every_age_is_told_as_the_server_spells_it(db: iokernel.pg.PgEndpoint, kind: str) -> None:
    """Dates from the first that Python has to the last, whose texts agree."""
    asked = f"""select d::{kind}, to_char(d, 'YYYY-MM-DD"T"HH24:MI:SS') from
        generate_series('0001-01-01 00:00'::timestamp, '9999-12-31 23:00', '97 days 5 hours 7 min 3 sec') d"""
    with db.transaction() as tx:
        tx.call("set local timezone = 'UTC'")
        rows = tx.call(asked).lists()
    assert len(rows) > 37_000
    for value, text in rows:
        assert value.isoformat()[:19] == text[: 10 if kind == "date" else 19]


@pytest.mark.parametrize("kind", ["date", "timestamp", "timestamptz"])
def test_what_python_has_no_date_for_is_text(db: iokernel.pg.PgEndpoint, kind: str) -> None:
    for text in ("infinity", "-infinity", "0044-03-15 BC", "10000-01-01"):
        value = db.call(f"select $1::text::{kind}", text).scalar()
        assert isinstance(value, str)
        assert db.call(f"select $1::{kind} = $2::text::{kind}", value, text).scalar() is True
