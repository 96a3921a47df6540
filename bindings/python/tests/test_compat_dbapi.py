"""PEP 249 over PostgreSQL."""

from __future__ import annotations

import datetime
import gc
import threading
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import iokernel.compat.dbapi as dbapi
import pytest
from support.fixtures import or_skip
from support.postgres import PostgresServer


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with or_skip(PostgresServer)() as made:
        yield made


@pytest.fixture
def conn(server: PostgresServer) -> Iterator[dbapi.Connection]:
    made = dbapi.connect(server.url)
    with made.cursor() as cursor:
        cursor.execute("drop table if exists things")
        cursor.execute("create table things (id int primary key, name text, price numeric)")
    made.commit()
    yield made
    made.close()


def names(conn: dbapi.Connection) -> list[Any]:
    return [name for (name,) in conn.cursor().execute("select name from things order by id")]


def test_what_the_module_says_of_itself() -> None:
    assert (dbapi.apilevel, dbapi.threadsafety, dbapi.paramstyle) == ("2.0", 2, "pyformat")
    assert issubclass(dbapi.IntegrityError, dbapi.DatabaseError) and issubclass(dbapi.DatabaseError, dbapi.Error)
    assert dbapi.Connection.IntegrityError is dbapi.IntegrityError
    assert dbapi.DateFromTicks(0).year in (1969, 1970) and dbapi.Binary(b"x") == b"x"


def test_parameters_by_place_and_by_name(conn: dbapi.Connection) -> None:
    cursor = conn.cursor()
    cursor.execute("insert into things values (%s, %s, %s)", (1, "50% off", Decimal("1.50")))
    assert (cursor.rowcount, cursor.description) == (1, None)
    cursor.execute("select name, price from things where id = %(id)s and name like '%%%%' or %(id)s < 0", {"id": 1})
    assert cursor.fetchone() == ("50% off", Decimal("1.50"))
    assert cursor.fetchone() is None
    assert cursor.execute("select 5 % 3").fetchall() == [(2,)], "without parameters a percent sign is one"
    assert cursor.execute("select 5 %% %s", (3,)).fetchall() == [(2,)]


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        ("select %s", ()),
        ("select %s", (1, 2)),
        ("select %(a)s", {"b": 1}),
        ("select %(a)s", (1,)),
        ("select %s", {"a": 1}),
        ("select 100%", (1,)),
        ("select %d", (1,)),
    ],
)
def test_parameters_that_do_not_match_are_refused(conn: dbapi.Connection, statement: str, parameters: Any) -> None:
    with pytest.raises(dbapi.ProgrammingError, match=r"parameters|statement"):
        conn.cursor().execute(statement, parameters)


def test_rows_are_fetched_in_pieces(conn: dbapi.Connection) -> None:
    cursor = conn.cursor().execute("select i, now() from generate_series(1, 10) i")
    assert cursor.description is not None
    assert [column[0] for column in cursor.description] == ["i", "now"]
    assert (cursor.description[0][1] == dbapi.NUMBER) and cursor.description[1][1] == dbapi.DATETIME
    assert cursor.rowcount == 10
    assert [row[0] for row in cursor.fetchmany(3)] == [1, 2, 3]
    assert len(cursor.fetchmany()) == 1
    assert isinstance(next(iter(cursor))[1], datetime.datetime)
    assert [row[0] for row in cursor.fetchall()] == [6, 7, 8, 9, 10]
    assert cursor.fetchall() == []
    cursor.execute("create temp table x (a int)")
    with pytest.raises(dbapi.ProgrammingError):
        cursor.fetchone()


def test_many_at_once(conn: dbapi.Connection) -> None:
    cursor = conn.cursor()
    cursor.executemany("insert into things values (%s, %s, 0)", [(at, f"n{at}") for at in range(500)])
    assert cursor.rowcount == 500
    conn.commit()
    with pytest.raises(dbapi.IntegrityError):
        cursor.executemany("insert into things values (%s, 'x', 0)", [(1000,), (1,), (1001,)])
    conn.rollback()
    assert len(names(conn)) == 500


def test_transactions(conn: dbapi.Connection, server: PostgresServer) -> None:
    cursor = conn.cursor()
    cursor.execute("insert into things values (1, 'a', 0)")
    with dbapi.connect(server.url) as other:
        assert names(other) == []
    conn.commit()
    cursor.execute("insert into things values (2, 'b', 0)")
    conn.rollback()
    assert names(conn) == ["a"]
    with pytest.raises(dbapi.DataError) as failed:
        cursor.execute("select 1 / 0")
    assert failed.value.sqlstate == "22012"
    with pytest.raises(dbapi.InternalError):
        cursor.execute("select 1")
    with pytest.raises(dbapi.InternalError, match="rolled back"):
        conn.commit()
    assert names(conn) == ["a"]
    with pytest.raises(dbapi.ProgrammingError, match="autocommit"):
        conn.autocommit = True
    conn.autocommit = False
    conn.commit()
    conn.autocommit = True
    cursor.execute("insert into things values (3, 'c', 0)")
    with dbapi.connect(server.url) as other:
        assert names(other) == ["a", "c"]
    cursor.execute("set application_name = 'mine'")
    assert cursor.execute("show application_name").fetchone() == ("mine",), "a session keeps its state"


def test_statements_of_transactions_are_heard(conn: dbapi.Connection) -> None:
    cursor = conn.cursor()
    cursor.execute("insert into things values (1, 'a', 0)")
    cursor.execute("savepoint one")
    cursor.execute("insert into things values (2, 'b', 0)")
    cursor.execute("rollback to savepoint one")
    cursor.execute("insert into things values (3, 'c', 0)")
    conn.commit()
    cursor.execute("insert into things values (4, 'd', 0)")
    cursor.execute("commit")
    cursor.execute("insert into things values (5, 'e', 0)")
    conn.rollback()
    assert names(conn) == ["a", "c", "d"]


def test_a_block_commits_or_rolls_back(conn: dbapi.Connection, server: PostgresServer) -> None:
    with dbapi.connect(server.url) as other:
        other.cursor().execute("insert into things values (1, 'a', 0)")
    with pytest.raises(KeyError), dbapi.connect(server.url) as other:
        other.cursor().execute("insert into things values (2, 'b', 0)")
        raise KeyError
    assert names(conn) == ["a"]
    assert other.closed
    with pytest.raises(dbapi.InterfaceError, match="closed"):
        other.cursor()
    other.close()


def test_errors_by_their_kind(conn: dbapi.Connection) -> None:
    for statement, kind in [
        ("selec 1", dbapi.ProgrammingError),
        ("select * from nothing", dbapi.ProgrammingError),
        ("insert into things values (null, 'x', 0)", dbapi.IntegrityError),
        ("select 'x'::int", dbapi.DataError),
    ]:
        with pytest.raises(kind):
            conn.cursor().execute(statement)
        conn.rollback()
    with pytest.raises(dbapi.OperationalError):
        dbapi.connect("postgres://x@127.0.0.1:1/x", connect_timeout="1s", timeout="1s")
    with pytest.raises(dbapi.InterfaceError):
        dbapi.connect("redis://127.0.0.1:1")


def test_threads_share_a_connection(conn: dbapi.Connection) -> None:
    def insert(at: int) -> None:
        conn.cursor().execute("insert into things values (%s, 'x', 0)", (at,))

    threads = [threading.Thread(target=insert, args=(at,)) for at in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    conn.commit()
    assert len(names(conn)) == 20


def test_scripts_give_the_rows_of_each_statement(conn: dbapi.Connection) -> None:
    cursor = conn.cursor()
    cursor.execute("insert into things values (1, '100%;', 0); select name, price from things; select 2, now();")
    assert (cursor.rowcount, cursor.description) == (1, None)
    assert cursor.nextset() and cursor.fetchall() == [("100%;", Decimal(0))]
    assert cursor.nextset() and cursor.fetchone() is not None
    assert cursor.nextset() is None
    assert cursor.execute("select ';'").fetchall() == [(";",)]
    with pytest.raises(dbapi.DataError):
        cursor.execute("select 1; select 1 / 0")
    conn.rollback()
    assert names(conn) == []
    cursor.execute("insert into things values (2, 'b', 0); commit; insert into things values (3, 'c', 0)")
    conn.rollback()
    assert names(conn) == ["b", "c"], "the end of a script commits what came after its last COMMIT"


def test_rows_may_stay_in_the_server(conn: dbapi.Connection) -> None:
    def open_cursors() -> list[Any]:
        return conn.cursor().execute("select name from pg_cursors where name <> ''").fetchall()

    cursor = conn.cursor('mine "x"')
    assert cursor.execute("select i, 'n' || i from generate_series(1, %s) i", (1000,)) is cursor
    assert cursor.description is not None
    assert [column[:2] for column in cursor.description] == [("i", "int4"), ("?column?", "text")]
    assert (cursor.rowcount, open_cursors()) == (-1, [('mine "x"',)])
    assert cursor.fetchone() == (1, "n1")
    assert [row[0] for row in cursor.fetchmany(150)] == list(range(2, 152))
    assert [row[0] for row in cursor][-1] == 1000
    assert (cursor.fetchone(), cursor.fetchmany(2), cursor.fetchall()) == (None, [], [])
    cursor.execute("select generate_series(1, 3)")
    assert cursor.fetchall() == [(1,), (2,), (3,)]
    cursor.close()
    assert open_cursors() == []
    with pytest.raises(dbapi.ProgrammingError):
        conn.cursor("other").execute("selec 1")
    conn.rollback()
    with pytest.raises(dbapi.NotSupportedError):
        conn.cursor("other").executemany("select %s", [(1,)])
    with pytest.raises(dbapi.DataError):
        conn.cursor("other").execute("select 1 / (3 - i) from generate_series(1, 5) i").fetchall()
    conn.rollback()


def test_cursors_of_the_server_end_with_their_transaction(conn: dbapi.Connection) -> None:
    cursor = conn.cursor("short").execute("select generate_series(1, 500)")
    conn.commit()
    with pytest.raises(dbapi.Error) as gone:
        cursor.fetchone()
    assert gone.value.sqlstate == "34000"
    conn.rollback()
    cursor.close()
    cursor = conn.cursor("held", withhold=True).execute("select generate_series(1, 500)")
    assert cursor.fetchone() == (1,)
    conn.commit()
    assert cursor.fetchmany(500)[-1] == (500,)
    cursor.close()
    assert conn.cursor().execute("select count(*) from pg_cursors where name <> ''").fetchone() == (0,)
    conn.commit()
    conn.autocommit = True
    with pytest.raises(dbapi.Error) as none:
        conn.cursor("short").execute("select 1")
    assert none.value.sqlstate == "25P01"
    with conn.cursor("held", withhold=True) as held:
        assert held.execute("select 1").fetchall() == [(1,)]


def test_a_cursor_of_the_server_may_end_with_a_savepoint(conn: dbapi.Connection) -> None:
    plain = conn.cursor()
    for where in ("before", "after"):
        if where == "after":
            plain.execute("savepoint part")
        cursor = conn.cursor("mine").execute("select generate_series(1, 500)")
        if where == "before":
            plain.execute("savepoint part")
        plain.execute("rollback to savepoint part")
        cursor.close()
        assert plain.execute("select count(*) from pg_cursors where name <> ''").fetchone() == (0,), where
        conn.commit()


def test_a_connection_outlives_the_thread_that_made_it(server: PostgresServer) -> None:
    made: list[dbapi.Connection] = []
    for _ in range(3):
        thread = threading.Thread(target=lambda: made.append(dbapi.connect(server.url)))
        thread.start()
        thread.join()
    gc.collect()
    pids = {conn.cursor().execute("select pg_backend_pid()").fetchone() for conn in made}
    assert len(pids) == 3
    for conn in made:
        conn.close()
    with pytest.raises(dbapi.OperationalError):
        dbapi.connect("postgres://x@127.0.0.1:1/x", connect_timeout="1s", timeout="1s")
    with dbapi.connect(server.url) as conn:
        assert conn.cursor().execute("select 1").fetchone() == (1,)
