"""COPY of PostgreSQL: us, asyncpg and psycopg, each on one connection; rows of an int, a text and a timestamp.

In: `rows` are tuples of Python's values, which each side writes as it does best; `blocks` are bytes that are ready.
Out: to a sink that counts bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import datetime, timedelta
from typing import Any

from harness import Bench, Row, Sample, Unavailable, timed_rate, versus
from support.postgres import PostgresServer
from support.process import Missing

ROWS = 200_000
SETUP = "create unlogged table copied (id int, name text, at timestamp);"
BLOCK_BYTES = 64 << 10
IN = "copy copied from stdin"
OUT = "copy copied to stdout"


class Server(PostgresServer):
    def __init__(self, rows: int) -> None:
        super().__init__(auth="trust", settings={"shared_buffers": "512MB", "max_wal_size": "4GB"})
        made = "select g, 'name ' || g, timestamp '2024-01-01' + g * interval '1 second' from generate_series"
        self.cli(f"{SETUP} insert into copied {made}(1, {rows}) g; analyze copied")


def records(rows: int) -> list[tuple[int, str, datetime]]:
    start = datetime(2024, 1, 1)
    return [(at, f"name {at}", start + timedelta(seconds=at)) for at in range(1, rows + 1)]


def blocks(rows: int) -> list[bytes]:
    text = "".join(f"{at}\t{name}\t{when}\n" for at, name, when in records(rows)).encode()
    return [text[start : start + BLOCK_BYTES] for start in range(0, len(text), BLOCK_BYTES)]


def given(work: str, rows: int) -> Any:
    """What is copied in."""
    return {"in rows": records, "in blocks": blocks}.get(work, lambda _: None)(rows)


def timed(rows: int, empty: Callable[[], Any], copy: Callable[[], int]) -> Iterator[Sample]:
    """One COPY for each run; `copy` says how many rows, or bytes, there were."""
    yield {}
    while True:
        empty()
        started = time.perf_counter()
        count = copy()
        sample = timed_rate(rows, started)
        if count < rows:
            raise AssertionError(f"{count} of {rows} rows")
        yield sample


def looped(rows: int, make: Callable[[], Coroutine[Any, Any, Any]]) -> Iterator[Sample]:
    """`make` gives the two coroutine functions of `timed`."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        empty, copy = runner.run(make())
        yield from timed(rows, lambda: runner.run(empty()), lambda: runner.run(copy()))


def iokernel(url: str, work: str, rows: int, **_: Any) -> Iterator[Sample]:
    import iokernel.pg

    db = iokernel.pg.open(url)
    db.wait_ready(5)
    data = given(work, rows)

    def copy() -> int:
        if work == "in rows":
            return int(db.copy_rows(IN, data).affected)
        if work == "in blocks":
            return int(db.copy_from(IN, data).affected)
        binary = " (format binary)" if work == "out binary" else ""
        return sum(map(len, db.copy_to(OUT + binary)))

    yield from timed(rows, lambda: data and db.call("truncate copied"), copy)


def iokernel_asyncio(url: str, work: str, rows: int, **_: Any) -> Iterator[Sample]:
    import iokernel.pg

    db = iokernel.pg.open(url)
    db.wait_ready(5)
    data = given(work, rows)

    async def empty() -> None:
        if data:
            await db("truncate copied")

    async def copy() -> int:
        if work == "in rows":
            return int((await db.copy_rows(IN, data)).affected)
        if work == "in blocks":
            return int((await db.copy_from(IN, data)).affected)
        binary = " (format binary)" if work == "out binary" else ""
        return sum([len(piece) async for piece in db.copy_to(OUT + binary)])

    async def make() -> Any:
        return empty, copy

    yield from looped(rows, make)


def asyncpg(url: str, work: str, rows: int, **_: Any) -> Iterator[Sample]:
    import asyncpg

    data = given(work, rows)

    async def make() -> Any:
        conn = await asyncpg.connect(url)

        async def empty() -> None:
            if data:
                await conn.execute("truncate copied")

        async def source() -> AsyncIterator[bytes]:
            for block in data:
                yield block

        async def copy() -> int:
            if work == "in rows":
                return int((await conn.copy_records_to_table("copied", records=data)).split()[-1])
            if work == "in blocks":
                return int((await conn.copy_to_table("copied", source=source())).split()[-1])
            size = 0

            async def sink(piece: bytes) -> None:
                nonlocal size
                size += len(piece)

            form = "binary" if work == "out binary" else "text"
            await conn.copy_from_query("select * from copied", output=sink, format=form)
            return size

        return empty, copy

    yield from looped(rows, make)


def psycopg(url: str, work: str, rows: int, binary: bool = False, **_: Any) -> Iterator[Sample]:
    import psycopg

    data = given(work, rows)
    conn = psycopg.connect(url, autocommit=True)

    def copy() -> int:
        cursor = conn.cursor()
        if data:
            with cursor.copy(IN + (" (format binary)" if binary else "")) as copying:
                if binary:
                    copying.set_types(["int4", "text", "timestamp"])
                for one in data:
                    copying.write_row(one) if work == "in rows" else copying.write(one)
            return cursor.rowcount
        with cursor.copy(OUT + (" (format binary)" if work == "out binary" else "")) as copying:
            return sum(map(len, copying))

    yield from timed(rows, lambda: data and conn.execute("truncate copied"), copy)


def psycopg_binary(**given: Any) -> Iterator[Sample]:
    return psycopg(binary=True, **given)


SIDES = {
    "iokernel": iokernel,
    "iokernel-asyncio": iokernel_asyncio,
    "asyncpg": asyncpg,
    "psycopg": psycopg,
    "psycopg-binary": psycopg_binary,
}


def rows(bench: Bench) -> list[Row]:
    made: list[Row] = []
    count = bench.rows or ROWS
    for work in ("in rows", "in blocks", "out text", "out binary"):
        sides = [side for side in SIDES if side != "psycopg-binary" or work == "in rows"]
        try:
            found = bench.compare("pg_copy", sides, server=lambda: Server(count), work=work, rows=count)
        except Missing as missing:
            raise Unavailable(str(missing)) from None
        what = f"COPY {work}, {count:,} rows"
        made.append(versus(f"{what}: asyncpg", found["iokernel-asyncio"], found["asyncpg"], peer_name="asyncpg"))
        for side in sides[3:]:
            made.append(versus(f"{what}: {side}", found["iokernel"], found[side], peer_name=side))
    return made
