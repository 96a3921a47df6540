"""PostgreSQL: rows as they come, COPY both ways, and what is left early."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import iokernel
import pytest
from iokernel.pg import PgEndpoint
from support import net
from support.postgres import PostgresServer

MANY = 1_000_000


@pytest.fixture
def db(shared_postgres_server: PostgresServer) -> Iterator[PgEndpoint]:
    with iokernel.Kernel(name="streams") as kernel:
        endpoint = kernel.open(shared_postgres_server.url, application_name="streams", window="256KiB")
        assert isinstance(endpoint, PgEndpoint)
        with endpoint:
            endpoint.wait_ready(10)
            endpoint.call({"simple": "drop table if exists copied; create table copied (id int8, name text)"})
            yield endpoint


def own_memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_rows_come_one_by_one_and_many_at_a_time(db: PgEndpoint) -> None:
    sql = "select g as id, 'n' || g as name from generate_series(1, $1::int4) g"
    with db.stream(sql, 5) as stream:
        assert (stream.columns, stream.types) == (["id", "name"], ["int4", "text"])
        rows = list(stream)
        assert [row["name"] for row in rows] == ["n1", "n2", "n3", "n4", "n5"]
        assert stream.tag == "SELECT 5"
    with db.stream(sql, 0) as stream:
        assert list(stream) == [] and stream.columns == ["id", "name"]
    total = 0
    with db.stream(sql, 10_000) as stream:
        for batch in stream.batches():
            total += sum(batch.columnar()["id"])
            assert batch.columns == ["id", "name"]
    assert total == 10_000 * 10_001 // 2
    with db.stream("delete from copied") as stream:
        assert list(stream) == [] and stream.tag == "DELETE 0" and stream.columns == []


def test_the_conn_of_a_stream_is_used_again(db: PgEndpoint) -> None:
    pids = {row[0] for _ in range(5) for row in db.stream("select pg_backend_pid()")}
    assert len(pids) == 1
    assert db.call("select pg_backend_pid()").scalar() not in pids


def test_a_million_rows_stay_within_the_window(db: PgEndpoint) -> None:
    before, most, count = own_memory_bytes(), 0, 0
    began = time.monotonic()
    with db.stream("select g, repeat('x', 100) from generate_series(1, $1::int4) g", MANY) as stream:
        for batch in stream.batches():
            count += len(batch)
            if count % 1000 < len(batch):
                most = max(most, own_memory_bytes() - before)
    print(f"{count} rows of 100 bytes streamed in {time.monotonic() - began:.2f} s, {most >> 10} KiB more in memory")
    assert count == MANY
    assert most < 24 << 20


def test_a_reader_that_rests_holds_the_server(db: PgEndpoint, shared_postgres_server: PostgresServer) -> None:
    waits = "select wait_event from pg_stat_activity where application_name = 'streams' and query like '%g, repeat%'"
    before = own_memory_bytes()
    with db.stream("select g, repeat('x', 1000) from generate_series(1, $1::int4) g", MANY) as stream:
        next(iter(stream))
        net.wait_for("the server waits", lambda: ["ClientWrite"] in shared_postgres_server.cli(waits))
        time.sleep(0.5)
        assert own_memory_bytes() - before < 24 << 20
        assert db.call("select 1").scalar() == 1, "nobody else waits"
        assert sum(1 for _ in zip(range(5000), stream, strict=False)) == 5000


def test_a_stream_left_early_leaves_nothing(db: PgEndpoint, shared_postgres_server: PostgresServer) -> None:
    for _ in range(3):
        with db.stream("select g, repeat('x', 1000) from generate_series(1, 1000000) g") as stream:
            for row in stream:
                if row[0] == 10:
                    break
    for _ in db.stream("select generate_series(1, 1000000)"):
        break
    net.wait_for("the conns to be gone", lambda: len(shared_postgres_server.conns("streams")) == 1)
    assert db.call("select 1").scalar() == 1
    assert [row[0] for row in db.stream("select 2")] == [2]


async def test_streams_in_loops(db: PgEndpoint) -> None:
    sql = "select g from generate_series(1, $1::int4) g"
    async with db.stream(sql, 20_000) as stream:
        assert stream.columns == ["g"]
        assert sum([row[0] async for row in stream]) == 20_000 * 20_001 // 2
    assert sum([len(batch) async for batch in db.stream(sql, 3000).batches()]) == 3000
    streams = [db.stream(sql, 1000 * number) for number in range(1, 20)]

    async def count(stream: iokernel.pg.RowStream) -> int:
        return len([row async for row in stream])

    assert await asyncio.gather(*map(count, streams)) == [1000 * number for number in range(1, 20)]
    with pytest.raises(iokernel.RemoteError):
        async with db.stream("select 1 / $1::int4", 0) as stream:
            _ = [row async for row in stream]


def test_errors_of_streams_are_typed(db: PgEndpoint) -> None:
    with pytest.raises(iokernel.RemoteError) as failed:
        _ = db.stream("select no_column").columns
    assert failed.value.code == "42703"
    rows: list[iokernel.pg.Row] = []
    with pytest.raises(iokernel.RemoteError) as failed:
        rows.extend(db.stream("select 1000000 / (50000 - g) from generate_series(1, 100000) g"))
    assert failed.value.code == "22012"
    with pytest.raises(iokernel.BadRequest, match="parameter 1"):
        list(db.stream("select $1::int4", 2.5))
    for sql, what in (("begin", "changes the session"), ("copy copied to stdout", "copy_to")):
        with pytest.raises(iokernel.BadRequest, match=what):
            list(db.stream(sql))
    with pytest.raises(iokernel.BadRequest, match="as a stream"):
        db.call({"stream": ["select 1"]})
    with pytest.raises(iokernel.BadRequest, match="copy_from"):
        db.call("copy copied from stdin")
    with db.lease() as lease, pytest.raises(iokernel.BadRequest, match="stream"):
        lease.call({"copy": "copy copied from stdin"})


def test_a_killed_server_ends_a_stream(shared_postgres_server: PostgresServer, db: PgEndpoint) -> None:
    stream = db.stream("select g, repeat('x', 1000), pg_backend_pid() from generate_series(1, 1000000) g")
    pid = next(iter(stream))[2]
    shared_postgres_server.cli(f"select pg_terminate_backend({pid})")
    with pytest.raises(iokernel.Error) as lost:
        for _ in stream:
            pass
    assert lost.value.fate in ("maybe_executed", "replied")
    assert db.call("select 1").scalar() == 1


def test_copy_takes_bytes_files_and_iterables(db: PgEndpoint) -> None:
    sources = (
        b"1\ta\n2\tb\n",
        "3\tc\n",
        io.BytesIO(b"4\td\n"),
        io.StringIO("5\te\n"),
        [b"6", b"\tf\n7\t", "g\n"],
        (b"%d\th\n" % number for number in range(8, 11)),
        b"",
    )
    assert [db.copy_from("copy copied from stdin", source).affected for source in sources] == [2, 1, 1, 1, 2, 3, 0]
    assert db.copy_from("COPY copied FROM STDIN WITH (format csv)", b"11,i\n").tag == "COPY 1"
    assert db.call("select array_agg(id order by id) from copied").scalar() == list(range(1, 12))
    copy = db.copy_to("copy (select * from copied order by id limit 2) to stdout")
    assert (b"".join(copy), copy.tag, copy.format) == (b"1\ta\n2\tb\n", "COPY 2", "text")
    binary = b"".join(db.copy_to("copy copied to stdout (format binary)"))
    assert db.copy_from("copy copied from stdin (format binary)", binary).affected == 11


def test_copy_that_fails_copies_nothing_and_keeps_the_conn(db: PgEndpoint) -> None:
    pid = [row[0] for row in db.stream("select pg_backend_pid()")]

    def breaks() -> Iterator[bytes]:
        yield b"1\ta\n" * 100_000
        raise KeyError("the source")

    with pytest.raises(KeyError, match="the source"):
        db.copy_from("copy copied from stdin", breaks())
    for _ in range(50):
        with pytest.raises(ZeroDivisionError):
            db.copy_from("copy copied from stdin", (b"%d" % (1 // zero) for zero in (0,)))
    for source in (b"x\ty\n", b"1\ta\n" * 500_000 + b"x\ty\n" + b"1\ta\n" * 500_000):
        with pytest.raises(iokernel.RemoteError) as failed:
            db.copy_from("copy copied from stdin", source)
        assert failed.value.code == "22P02" and "CONTEXT: COPY copied, line" in str(failed.value)
    with pytest.raises(iokernel.RemoteError) as failed:
        db.copy_from("copy nowhere from stdin", b"1\n")
    assert failed.value.code == "42P01"
    with pytest.raises(iokernel.BadRequest, match="source: int"):
        db.copy_from("copy copied from stdin", 7)
    assert db.call("select count(*) from copied").scalar() == 0
    assert [row[0] for row in db.stream("select pg_backend_pid()")] == pid
    with pytest.raises(iokernel.BadRequest, match=r"expected COPY .* FROM STDIN"):
        db.copy_from("copy copied to stdout", b"1\ta\n")
    with pytest.raises(iokernel.BadRequest, match=r"expected COPY .* TO STDOUT"):
        list(db.copy_to("copy copied from stdin"))
    with pytest.raises(iokernel.BadRequest, match="one statement"):
        db.copy_from("select 1", b"")
    with pytest.raises(iokernel.RemoteError):
        list(db.copy_to("copy (select 1 / (id - 5) from generate_series(1, 9) id) to stdout"))


async def test_copy_in_loops(db: PgEndpoint) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(1000):
            yield b"%d\tx\n" % number
            if number % 100 == 0:
                await asyncio.sleep(0)

    assert (await db.copy_from("copy copied from stdin", lines())).affected == 1000
    assert (await db.copy_from("copy copied from stdin", b"1\tx\n")).affected == 1
    text = b"".join([piece async for piece in db.copy_to("copy copied to stdout")])
    assert text.count(b"\n") == 1001

    async def never() -> AsyncIterator[bytes]:
        yield b"5\tx\n" * 20_000
        await asyncio.sleep(60)

    async def breaks() -> AsyncIterator[bytes]:
        yield b"5\tx\n" * 20_000
        raise KeyError("the source")

    with pytest.raises(KeyError):
        await db.copy_from("copy copied from stdin", breaks())
    copying = asyncio.ensure_future(db.copy_from("copy copied from stdin", never()))
    await asyncio.sleep(0.3)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert (await db("select count(*) from copied")).scalar() == 1001


def test_a_million_rows_are_copied_in_and_out(db: PgEndpoint) -> None:
    line = b"%d\ta name of some length\n"
    began = time.monotonic()
    copied = db.copy_from("copy copied from stdin", (line % number for number in range(MANY)))
    taken = time.monotonic()
    count = sum(piece.count(b"\n") for piece in db.copy_to("copy copied to stdout"))
    print(f"{MANY} rows copied in within {taken - began:.2f} s, out within {time.monotonic() - taken:.2f} s")
    assert copied.affected == count == MANY
    assert db.call("select sum(id) from copied").scalar() == MANY * (MANY - 1) // 2


def test_words_of_libpq(shared_postgres_server: PostgresServer) -> None:
    url = shared_postgres_server.url
    with iokernel.Kernel(name="words") as kernel:
        for word in ("any", "read-write", "primary", "prefer-standby"):
            with kernel.open(url, target_session_attrs=word, connect_timeout=10) as db:
                assert db.call("select 1", timeout=10).scalar() == 1
        for word in ("read-only", "standby"):
            with kernel.open(url, target_session_attrs=word) as db, pytest.raises(iokernel.Error, match="no replica"):
                db.call("select 1", timeout=1)
        for options, what in (
            ({"target_session_attrs": "master"}, "prefer-standby"),
            ({"target_session_attrs": "any", "role": "any"}, "not both"),
            ({"connect_timeout": 0}, "1 or more"),
            ({"connect_timeout": "soon"}, "a time such as"),
            ({"load_balance_hosts": "random"}, "a known option"),
        ):
            with pytest.raises(iokernel.ConfigError, match=what):
                kernel.open(url, **options)
