"""PostgreSQL: one connection for everybody, exact values, errors that harm nobody else, leases, restarts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import iokernel
import pytest
from support import net
from support.certs import Authority
from support.fixtures import or_skip
from support.postgres import PostgresServer


@pytest.fixture
def kernel() -> Iterator[iokernel.Kernel]:
    with iokernel.Kernel(name="postgres") as kernel:
        yield kernel


@pytest.fixture
def db(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> Iterator[iokernel.Endpoint]:
    """An endpoint in a kernel of its own, so that nobody else's connections are seen."""
    with kernel.open(shared_postgres_server.url, application_name="ours") as endpoint:
        endpoint.wait_ready(10)
        yield endpoint


def told(rows: Any) -> list[Any]:
    """A reply as it is on the ring."""
    return [rows.tag, [[name, kind] for name, kind in zip(rows.columns, rows.types, strict=True)], rows.lists()]


def test_a_statement_and_its_parameters(db: iokernel.Endpoint) -> None:
    columns = [["id", "int4"], ["name", "text"]]
    sql = "select * from (values (1, 'a'), ($1::int4, $2::text)) as t(id, name)"
    for name in ("b", None, "ü"):
        assert told(db.call(sql, 2, name)) == ["SELECT 2", columns, [[1, "a"], [2, name]]]
    assert told(db.call("create table if not exists one (id int4 primary key)")) == ["CREATE TABLE", [], []]
    assert told(db.call("insert into one values ($1)", 7)) == ["INSERT 0 1", [], []]
    assert told(db.call("delete from one")) == ["DELETE 1", [], []]
    assert told(db.call("")) == ["", [], []]


def test_parameters_that_do_not_fit_are_refused_by_number(db: iokernel.Endpoint) -> None:
    for _ in range(2):
        with pytest.raises(iokernel.BadRequest, match=r"parameter 2: .*int4") as refused:
            db.call("select $1::text, $2::int4", "x", 2.5)
        assert refused.value.fate == "not_sent"
        with pytest.raises(iokernel.BadRequest, match="1 parameters were given: the statement has 2"):
            db.call("select $1::text, $2::int4", "x")
    assert db.call("select $1::text, $2::int4", "x", 2).lists() == [["x", 2]]


def test_errors_have_their_code_and_what_the_server_says(db: iokernel.Endpoint) -> None:
    db.call("create table if not exists keys (id int4 primary key)")
    db.call("insert into keys values (1) on conflict do nothing")
    with pytest.raises(iokernel.RemoteError) as failed:
        db.call("insert into keys values (1)")
    assert failed.value.code == "23505"
    assert 'ERROR: duplicate key value violates unique constraint "keys_pkey"' in str(failed.value)
    assert "DETAIL: Key (id)=(1) already exists." in str(failed.value)
    with pytest.raises(iokernel.RemoteError) as failed:
        db.call("select nothing")
    assert failed.value.code == "42703" and "POSITION: 8" in str(failed.value)
    # Only the end of the transaction finds it.
    db.call("create table if not exists late (id int4 unique deferrable initially deferred)")
    with pytest.raises(iokernel.RemoteError) as failed:
        db.call("insert into late values (1), (1)")
    assert failed.value.code == "23505"


async def test_a_thousand_at_once_share_one_connection_and_no_error(
    db: iokernel.Endpoint, shared_postgres_server: PostgresServer
) -> None:
    def ask(number: int) -> Any:
        if number % 10 == 3:
            return db("select 1 / $1::int4", 0)
        if number % 10 == 4:
            return db(f"select no_column from a_table_{number}")
        return db("select $1::int4 + 1", number)

    answers = await asyncio.gather(*map(ask, range(1000)), return_exceptions=True)
    for number, answer in enumerate(answers):
        if number % 10 in (3, 4):
            assert isinstance(answer, iokernel.RemoteError)
            assert answer.code == ("22012" if number % 10 == 3 else "42P01")
        else:
            assert told(answer) == ["SELECT 1", [["?column?", "int4"]], [[number + 1]]]
    assert len(shared_postgres_server.conns("ours")) == 1


def test_a_batch_has_its_errors_in_their_places(db: iokernel.Endpoint) -> None:
    replies = db.call(["select 1"], ["select 1 / 0"], ["select $1::int4", "x"], {"simple": "select 2; select 3"})
    assert told(replies[0]) == ["SELECT 1", [["?column?", "int4"]], [[1]]]
    assert replies[1].code == "22012"
    assert replies[2].code == "22P02"
    assert [reply.lists() for reply in replies[3]] == [[[2]], [[3]]]
    replies = db.call(["select $1::bool", "t", 1], ["select 4"])
    assert replies[0].code == "BADREQUEST" and replies[1].lists() == [[4]]


def test_the_simple_protocol_takes_scripts(db: iokernel.Endpoint) -> None:
    sql = "create table if not exists s (i int4); insert into s values (1); select i from s limit 1"
    replies = db.call({"simple": sql})
    assert [told(reply) for reply in replies[1:]] == [["INSERT 0 1", [], []], ["SELECT 1", [["i", "int4"]], [[1]]]]
    with pytest.raises(iokernel.RemoteError) as failed:
        db.call({"simple": "insert into s values (2); select 1 / 0"})
    assert failed.value.code == "22012"
    assert db.call("select count(*) from s where i = 2").lists() == [[0]], "a script is one transaction"


def test_what_changes_the_connection_needs_a_lease(db: iokernel.Endpoint) -> None:
    for sql in ("begin", "  START transaction", "commit", "set work_mem = '1MB'", "listen x", "create temp table t ()"):
        with pytest.raises(iokernel.Error, match="lease") as refused:
            db.call(sql)
        assert refused.value.code == "NEEDSLEASE"
    with pytest.raises(iokernel.Error, match="lease"):
        db.call({"simple": "select 1; begin"})
    with pytest.raises(iokernel.BadRequest, match="COPY"):
        db.call("copy s from stdin")


def test_a_lease_has_its_transaction(db: iokernel.Endpoint, shared_postgres_server: PostgresServer) -> None:
    db.call("create table if not exists bank (id int4, amount int4)")
    db.call("truncate bank")
    with db.lease() as lease:
        lease.call("begin")
        lease.call("insert into bank values ($1, $2)", 1, 100)
        assert db.call("select count(*) from bank").lists() == [[0]]
        lease.call("commit")
    assert db.call("select amount from bank").lists() == [[100]]
    with db.lease() as lease:
        lease.call("begin")
        lease.call("delete from bank")
        with pytest.raises(iokernel.RemoteError):
            lease.call("select 1 / 0")
        with pytest.raises(iokernel.RemoteError) as failed:
            lease.call("select 1")
        assert failed.value.code == "25P02"
    assert db.call("select amount from bank").lists() == [[100]], "what was not committed is rolled back"
    with db.lease() as lease:
        lease.call("set application_name = 'theirs'")
        lease.call("create temp table mine (i int4)")
        assert lease.call("select count(*) from mine").lists() == [[0]]
    net.wait_for("clean", lambda: not shared_postgres_server.conns("theirs"))
    with db.lease() as lease:
        assert lease.call("show application_name").lists() == [["ours"]]
        assert lease.call("select to_regclass('mine')").lists() == [[None]]


def test_a_table_that_changes_is_learnt_anew(db: iokernel.Endpoint) -> None:
    db.call("drop table if exists changing")
    db.call("create table changing (a int4)")
    db.call("insert into changing values (1)")
    assert told(db.call("select * from changing"))[1:] == [[["a", "int4"]], [[1]]]
    db.call("alter table changing add b text default 'x'")
    assert told(db.call("select * from changing"))[1:] == [[["a", "int4"], ["b", "text"]], [[1, "x"]]]
    db.call("alter table changing drop a")
    assert told(db.call("select * from changing"))[1:] == [[["b", "text"]], [["x"]]]
    # A name that the server has forgotten.
    db.call({"simple": "select 1"})
    with db.lease() as lease:
        assert lease.call("select 5").lists() == [[5]]
        lease.call("deallocate all")
        assert lease.call("select 5").lists() == [[5]]


def test_without_prepared_statements(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> None:
    with kernel.open(shared_postgres_server.url, prepare=False) as db:
        for number in range(3):
            assert db.call("select $1::int4, $2", number, "x").lists() == [[number, "x"]]
        replies = db.call(*(["select $1::int4", number] for number in range(100)), *(["select 1"] for _ in range(3)))
        assert [reply.lists() for reply in replies[:100]] == [[[number]] for number in range(100)]
        assert db.call("select count(*) from pg_prepared_statements").lists() == [[0]]


def test_names_of_statements_are_bounded(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> None:
    with kernel.open(shared_postgres_server.url, statements=5) as db:
        for number in range(40):
            assert db.call(f"select {number}").lists() == [[number]]
        assert db.call("select count(*) from pg_prepared_statements").scalar() <= 6


def test_a_reply_that_is_too_large_fails_alone(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> None:
    with kernel.open(shared_postgres_server.url, max_reply="1MiB", application_name="small") as db:
        for sql in ("select repeat('x', 1000) from generate_series(1, 10000)", "select repeat('x', 5000000)"):
            pending = [db(sql), db("select 1")]
            with pytest.raises(iokernel.RemoteError, match="max_reply") as failed:
                pending[0].result(20)
            assert failed.value.code == "TOOLARGE"
            assert pending[1].result(20).lists() == [[1]]
        assert len(shared_postgres_server.conns("small")) == 1


def test_a_long_statement_is_no_silence(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> None:
    with kernel.open(shared_postgres_server.url, heartbeat="100ms", max_silence="200ms") as db:
        assert db.call("select pg_sleep(1.5)::text").lists() == [[""]]
        pid = db.call("select pg_backend_pid()").scalar()
        time.sleep(0.7)
        assert db.call("select pg_backend_pid()").scalar() == pid


@pytest.mark.parametrize(
    ("change", "code"),
    [(("app:", "app:not"), "28P01"), (("/postgres", "/nowhere"), "3D000"), (("app:", "nobody:"), "28P01")],
    ids=["password", "database", "user"],
)
def test_who_is_refused_is_told_why(
    kernel: iokernel.Kernel, shared_postgres_server: PostgresServer, change: tuple[str, str], code: str
) -> None:
    with kernel.open(shared_postgres_server.url.replace(*change)) as db, pytest.raises(iokernel.Error) as refused:
        db.call("select 1", timeout=10)
    assert code in str(refused.value)


@pytest.mark.parametrize("auth", ["md5", "password", "trust"])
def test_other_ways_to_authenticate(kernel: iokernel.Kernel, auth: str) -> None:
    with or_skip(PostgresServer)(auth=auth) as server:
        with kernel.open(server.url, cleartext=auth == "password") as db:
            assert db.call("select 1", timeout=20).lists() == [[1]]
        if auth == "password":
            with kernel.open(server.url) as db, pytest.raises(iokernel.Error, match="clear text"):
                db.call("select 1", timeout=20)
        socket = Path(server.folder) / f".s.PGSQL.{server.port}"
        url = f"postgres+unix://{server.url.partition('//')[2].partition('@')[0]}@{socket}?dbname=postgres"
        with kernel.open(url) as db:
            assert db.call("select 1", timeout=20).lists() == [[1]]


def test_tls_as_libpq_asks_for_it(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> None:
    asked = "select ssl, version from pg_stat_ssl where pid = pg_backend_pid()"
    with Authority() as authority, Authority() as stranger, or_skip(PostgresServer)(authority=authority) as server:
        for mode, options in (
            ("prefer", {}),
            ("require", {}),
            ("require", {"sslrootcert": authority.ca}),
            ("verify-ca", {"tls_ca": authority.ca}),
            ("verify-full", {"sslrootcert": authority.ca}),
        ):
            with kernel.open(server.url, sslmode=mode, **options) as db:
                assert db.call(asked, timeout=20).lists() == [[True, "TLSv1.3"]], (mode, options)
        with kernel.open(server.url, sslmode="disable") as db:
            assert db.call(asked, timeout=20).lists() == [[False, None]]
        for mode in ("verify-ca", "verify-full", "require"):
            with kernel.open(server.url, sslmode=mode, sslrootcert=stranger.ca) as db, pytest.raises(iokernel.Error):
                db.call("select 1", timeout=3)
    plain = shared_postgres_server.url
    with kernel.open(plain, sslmode="require") as db, pytest.raises(iokernel.Error, match="has no TLS"):
        db.call("select 1", timeout=3)


def test_a_killed_server_is_found_again(kernel: iokernel.Kernel, postgres_server: PostgresServer) -> None:
    with kernel.open(postgres_server.url) as db:
        assert db.call("select 1").lists() == [[1]]
        sleeping = db("select pg_sleep(60)")
        net.wait_for("the query", lambda: len(postgres_server.conns()) == 1)
        postgres_server.kill()
        with pytest.raises(iokernel.Error) as lost:
            sleeping.result(20)
        assert lost.value.fate in ("maybe_executed", "replied")
        started = threading.Thread(target=postgres_server.start)
        started.start()
        assert db.call("select 1", timeout=60).lists() == [[1]]
        started.join()
        assert db.call("select 1", timeout=60).lists() == [[1]]


def test_options_that_are_wrong_say_so(kernel: iokernel.Kernel) -> None:
    for url, what in (
        ("postgres://host/db", "user"),
        ("postgres://me@host/db?raw=true", "raw"),
        ("postgres://me@host/db?statements=0", "statements"),
        ("postgres://me@host/db?ssl=require", "ssl.*a known option.*application_name"),
        ("postgres://me@host/db?sslmode=maybe", "sslmode.*verify-full"),
        ("postgres://me@host/db?head_wait=soon", "head_wait.*a time"),
        ("postgres://me@host/db?dbname=other", "dbname"),
    ):
        with pytest.raises(iokernel.ConfigError, match=what):
            kernel.open(url)
    with pytest.raises(iokernel.ConfigError, match="no server"):
        kernel.listen("postgres://me@127.0.0.1:0")


def test_notifications_are_a_stream(db: iokernel.Endpoint, shared_postgres_server: PostgresServer) -> None:
    with db.subscribe("LISTEN", "News", 'a"b') as stream:
        db.call("select pg_notify('News', 'rain')")
        kind, channel, payload, _ = next(iter(stream))
        assert (kind, channel, payload) == ("notification", "News", "rain")
        shared_postgres_server.cli('notify "a""b", \'sun\'')
        assert next(iter(stream))[1:3] == ['a"b', "sun"]
        assert len(shared_postgres_server.conns("ours")) == 1


def test_writes_go_to_the_server_that_takes_them(kernel: iokernel.Kernel) -> None:
    def takes_writes(server: PostgresServer, yes: bool) -> None:
        server.cli(f"alter system set default_transaction_read_only = {'off' if yes else 'on'}")
        server.cli("select pg_reload_conf()")

    with or_skip(PostgresServer)(password="x") as one, PostgresServer(password="x") as other:
        takes_writes(one, False)
        url = f"postgres://app:x@{one.address},{other.address}/postgres"
        with kernel.open(url, role="primary", heartbeat="200ms") as db:
            db.call("create table written ()", timeout=20)
            assert other.cli("select count(*) from pg_class where relname = 'written'") == [["1"]]
            takes_writes(other, False)
            takes_writes(one, True)
            db.call("create table written ()", timeout=20)
            assert one.cli("select count(*) from pg_class where relname = 'written'") == [["1"]]


def test_a_long_statement_moves_the_others_to_another_connection(
    kernel: iokernel.Kernel, shared_postgres_server: PostgresServer
) -> None:
    """Up to `pool`; and when it is over, the others are closed."""
    with kernel.open(shared_postgres_server.url, application_name="growing", pool=3, lane_idle="300ms") as db:
        assert all(future.result(20).scalar() == 1 for future in [db("select 1") for _ in range(1000)])
        slow = [db("select pg_sleep(3)")]
        time.sleep(0.2)
        began = time.monotonic()
        assert db.call("select 2", timeout=20).scalar() == 2
        slow.append(db("select pg_sleep(3)"))
        time.sleep(0.2)
        assert db.call("select 3", timeout=20).scalar() == 3
        assert time.monotonic() - began < 2.5, "they did not wait"
        assert 2 <= len(shared_postgres_server.conns("growing")) <= 3
        for future in slow:
            future.result(20)
        net.wait_for("one connection", lambda: len(shared_postgres_server.conns("growing")) == 1)
        assert db.call("select 4", timeout=20).scalar() == 4


def test_one_more_connection_that_the_server_refuses_costs_nothing(kernel: iokernel.Kernel) -> None:
    with or_skip(PostgresServer)(settings={"max_connections": 4, "superuser_reserved_connections": 0}) as server:
        db = kernel.open(server.url, pool=8, lanes=8)
        with db.lease(20) as first, db.lease(20) as second, db.lease(20) as third:
            assert [lease.call("select 1", timeout=20).scalar() for lease in (first, second, third)] == [1, 1, 1]
            slow = db("select pg_sleep(1)")
            time.sleep(0.2)
            behind = [db("select $1::int4", number) for number in range(20)]
            assert [future.result(20).scalar() for future in behind] == list(range(20))
            slow.result(20)


def test_channel_binding(kernel: iokernel.Kernel, shared_postgres_server: PostgresServer) -> None:
    """The password is proven to the very server whose certificate TLS has shown, or to nobody."""
    with Authority() as authority, or_skip(PostgresServer)(authority=authority) as server:
        for binding in ("disable", "prefer", "require"):
            db = kernel.open(server.url, sslmode="require", channel_binding=binding)
            with db.lease(20) as first, db.lease(20) as second:
                assert [lease.call("select 1", timeout=20).scalar() for lease in (first, second)] == [1, 1]
        in_the_clear = kernel.open(server.url, sslmode="disable", channel_binding="require")
        with pytest.raises(iokernel.Error, match="channel_binding=require"):
            in_the_clear.call("select 1", timeout=5)
    with or_skip(PostgresServer)(auth="trust") as open_to_all:
        url = open_to_all.url
        with kernel.open(url, channel_binding="require") as db, pytest.raises(iokernel.Error, match="no SCRAM"):
            db.call("select 1", timeout=5)


def test_notices_come_with_the_reply_that_they_are_about(db: iokernel.Endpoint) -> None:
    raise_ = "do $$ begin raise notice 'hello %', 1; raise warning 'careful' using detail = 'of this'; end $$"
    said, quiet = db(raise_), db("select 1")
    assert said.result(20).notices == [
        ["00000", "NOTICE: hello 1\nCONTEXT: PL/pgSQL function inline_code_block line 1 at RAISE"],
        ["01000", "WARNING: careful\nDETAIL: of this\nCONTEXT: PL/pgSQL function inline_code_block line 1 at RAISE"],
    ]
    assert (quiet.result(20).scalar(), quiet.result(20).notices) == (1, [])
    first, second = db.call({"simple": f"{raise_}; select 2"}, timeout=20)
    assert len(first.notices) == 2 and second.notices == [] and second.scalar() == 2
    many = db.call("do $$ begin for n in 1..10000 loop raise notice '%', n; end loop; end $$", timeout=20)
    assert 100 < len(many.notices) < 10_000, "what is kept is bounded"
    assert db.call("select 3", timeout=20).scalar() == 3


def test_what_a_transaction_has_defined_is_forgotten_when_it_is_rolled_back(db: iokernel.Endpoint) -> None:
    for kind in ("numeric(5, 2)", "numeric(9, 4)", "text"):
        with db.lease() as lease:
            lease.call("begin", timeout=20)
            lease.call(f"create table fleeting (x {kind})", timeout=20)
            assert lease.call("select x from fleeting", timeout=20).types == [kind.partition("(")[0]]
            lease.call("rollback", timeout=20)
