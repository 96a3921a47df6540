"""PostgreSQL from Python: rows, batches, transactions, in threads and in loops."""

from __future__ import annotations

import asyncio
import datetime
import enum
import uuid
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from zoneinfo import ZoneInfo

import iokernel
import iokernel._pg_text
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


VALUES = {
    "int8": -5,
    "text": "a\tb\\c\nd\r\\N 'ü' \"",
    "bool": True,
    "float8": 0.1,
    "numeric": Decimal("1.50"),
    "bytea": b"\0\\\xff",
    "date": datetime.date(2024, 2, 29),
    "time": datetime.time(1, 2, 3, 4),
    "timetz": datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    "timestamp": datetime.datetime(999, 2, 3, 4, 5, 6, 7),
    "timestamptz": datetime.datetime(2024, 2, 29, 23, tzinfo=datetime.timezone.utc),
    "interval": iokernel.pg.Interval(-14, 3, -7),
    "uuid": uuid.UUID(int=7),
    "tstzrange": iokernel.pg.Range(None, datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc), "()"),
    "int4range": iokernel.pg.Range(empty=True),
    "text[]": ["a,b", None, 'c"d\\', "NULL", "", "{x}\t"],
    "int4[]": [[1, None], [3, 4]],
    "bytea[]": [b"\1", b""],
    "numrange[]": [iokernel.pg.Range(Decimal(1), None)],
}


@pytest.fixture(params=["C", "Python"])
def written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are written as text by the accelerator, or without it."""
    if request.param == "Python":
        monkeypatch.setattr("iokernel._pg_text.copy_lines", None)
    elif iokernel._pg_text.copy_lines is None:
        pytest.skip("there is no accelerator")


@pytest.mark.usefixtures("written")
def test_rows_of_values_are_copied(db: iokernel.pg.PgEndpoint) -> None:
    kinds = ", ".join(f"c{at} {kind}" for at, kind in enumerate(VALUES))
    db.call({"simple": f"drop table if exists copied; create table copied (id int, {kinds})"})
    values = list(VALUES.values())
    rows = [[at, *(None if at % 5 == 1 else value for value in values)] for at in range(10)]
    assert db.copy_rows("copy copied from stdin", rows).affected == 10
    assert db.call("select * from copied order by id").lists() == rows
    wanted = datetime.timedelta(days=-1, microseconds=5)
    assert db.copy_rows("copy copied (c11) from stdin", iter([(wanted,)])).affected == 1
    assert db.call("select c11 from copied where id is null").scalar().timedelta() == wanted
    for wrong, why in (([(1, "a"), (2,)], "of 1 and 2 values"), ([(object(), "a")], "object: expected a type")):
        with pytest.raises(iokernel.BadRequest, match=why):
            db.copy_rows("copy things from stdin", wrong)
    with pytest.raises(iokernel.RemoteError, match="line 2"):
        db.copy_rows("copy things from stdin", [(1, "a"), ("x", "b")])
    assert db.call("select count(*) from things").scalar() == 0
    assert db.copy_rows("copy things from stdin", ()).affected == 0
    db.call({"simple": "drop table if exists bare; create table bare ()"})
    assert db.copy_rows("copy bare from stdin", [(), []]).affected == 2


MOMENTS = [
    datetime.datetime.min,
    datetime.datetime.max,
    datetime.datetime(1969, 12, 31, 23, 59, 59, 999999),
    datetime.datetime(2024, 2, 29, 1, 2, 3),
    datetime.datetime(1900, 3, 1, 0, 0, 0, 10),
]
ZONES = [
    None,
    datetime.timezone.utc,
    datetime.timezone(datetime.timedelta(hours=-3, minutes=-30)),
    ZoneInfo("Asia/Tokyo"),
]


@pytest.mark.usefixtures("written")
def test_moments_and_numbers_are_copied(db: iokernel.pg.PgEndpoint) -> None:
    db.call(
        {"simple": "drop table if exists ones; create table ones (a timestamp, b timestamptz, c numeric, d float8)"}
    )
    inner = [one for one in MOMENTS if 1 < one.year < 9999]
    rows = [(one, None, None, None) for one in MOMENTS]
    rows += [(None, one.replace(tzinfo=zone), None, None) for one in inner for zone in ZONES[1:]]
    rows += [(None, None, number, None) for number in (0, -1, 2**63 - 1, -(2**63), 2**63, 10**30)]
    rows += [(None, None, None, number) for number in (0.0, -0.0, 1e300, 5e-324, 0.1, 1e16, float("inf"))]
    assert db.copy_rows("copy ones from stdin", rows).affected == len(rows)
    assert db.call("select * from ones").lists() == [list(row) for row in rows]


class Word(str):
    """A str that says something else of itself."""

    def __str__(self) -> str:
        return "not this"


@pytest.mark.usefixtures("written")
def test_values_of_classes_of_the_program_are_copied(db: iokernel.pg.PgEndpoint) -> None:
    color = enum.IntEnum("color", {"RED": 7})
    assert db.copy_rows("copy things from stdin", [(color(7), Word("x\ty")), (True + 7, "ü" * 40_000)]).affected == 2
    assert db.call("select id, length(name) from things order by id").lists() == [[7, 3], [8, 40_000]]

    rows: list[list[object]] = [[1, "a"], [2, object()], [3, "c"]]
    with pytest.raises(iokernel.BadRequest, match="expected a type"):
        db.copy_rows("copy things from stdin", rows)
    with pytest.raises(UnicodeEncodeError):
        db.copy_rows("copy things from stdin", [(9, "\ud800")])
    with pytest.raises(TypeError):
        db.copy_rows("copy things from stdin", [7])  # type: ignore[list-item]


def test_rows_of_all_sizes_are_copied(db: iokernel.pg.PgEndpoint) -> None:
    rows = [(at, "x" * (at % 50) + ("y" * 300_000 if at % 5000 == 0 else "")) for at in range(20_000)]
    assert db.copy_rows("copy things from stdin", rows).affected == 20_000
    assert db.call("select sum(length(name)) from things").scalar() == sum(len(name) for _, name in rows)


async def test_rows_that_come_as_they_like_are_copied(db: iokernel.pg.PgEndpoint) -> None:
    async def come() -> AsyncIterator[tuple[int, str]]:
        for at in range(3000):
            if at % 1000 == 0:
                await asyncio.sleep(0)
            yield at, f"name {at}"

    assert (await db.copy_rows("copy things from stdin", come())).affected == 3000
    assert (await db.copy_rows("copy things from stdin", [(3000, None)])).affected == 1
    assert (await db("select count(name) from things")).scalar() == 3000


def test_a_buffer_that_is_filled_again_is_copied_as_it_was(db: iokernel.pg.PgEndpoint) -> None:
    buffer = bytearray(8)

    def fill() -> Iterator[memoryview]:
        for at in range(20_000):
            buffer[:] = b"%07d\n" % at
            yield memoryview(buffer)

    assert db.copy_from("copy things (id) from stdin", fill()).affected == 20_000
    assert db.call("select sum(id) from things").scalar() == 20_000 * 19_999 // 2
