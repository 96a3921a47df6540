"""PostgreSQL: us on one connection, asyncpg's pool of ten, psycopg's pipeline on one, each at its best."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from harness import Bench, Row, Sample, Unavailable, ratio, span, timed_rate, versus
from support.postgres import PostgresServer
from support.process import Missing

KEYS = 10_000
SETUP = f"""
create table items (id int primary key, name text not null, at timestamp not null);
insert into items select id, 'name ' || id, timestamp '2024-01-01' + id * interval '1 second'
from generate_series(1, {KEYS}) id;
create table log (id int, name text, at timestamp);
analyze items;
"""
ROWS = 1000
STATEMENTS = {
    "select 1": "select 1",
    "key": "select id, name, at from items where id = $1",
    "rows": f"select id, name, at from items where id > $1 order by id limit {ROWS}",
    "insert": "insert into log values ($1, 'a name', '2024-01-01')",
}
SECONDS = 0.5


class Server(PostgresServer):
    def __init__(self) -> None:
        super().__init__(auth="trust", settings={"synchronous_commit": "off", "shared_buffers": "128MB"})
        self.cli(SETUP)


def arguments(work: str, number: int) -> tuple[int, ...]:
    return () if work == "select 1" else (number % (KEYS - ROWS) + 1,)


def checked(work: str, number: int, rows: Any) -> None:
    if work == "key" and (len(rows) != 1 or rows[0][0] != arguments(work, number)[0]):
        raise AssertionError(f"{number}: {rows}")
    if work == "rows" and (len(rows) != ROWS or rows[0][0] != arguments(work, number)[0] + 1):
        raise AssertionError(f"{number}: {len(rows)} rows")


async def crowd(one: Callable[[int], Awaitable[Any]], tasks: int, work: str) -> Sample:
    """All tasks at once, each asking one time after another; how many a second, and how long one takes."""
    done, until = 0, time.perf_counter() + SECONDS
    spans: list[float] = []

    async def task(number: int) -> None:
        nonlocal done
        while True:
            began = time.perf_counter()
            if began > until:
                return
            number += tasks
            checked(work, number, await one(number))
            spans.append(time.perf_counter() - began)
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(task(number) for number in range(tasks)))
    return {**timed_rate(done, started), "p50": sorted(spans)[len(spans) // 2]}


def looped(make: Callable[[], Awaitable[Callable[[int], Awaitable[Any]]]], tasks: int, work: str) -> Iterator[Sample]:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        one = runner.run(make())  # type: ignore[arg-type]
        runner.run(crowd(one, tasks, work))
        yield {}
        while True:
            yield runner.run(crowd(one, tasks, work))


def iokernel(url: str, work: str, tasks: int, **_: Any) -> Iterator[Sample]:
    import iokernel.pg

    db = iokernel.pg.open(url)
    db.wait_ready(5)
    statement = STATEMENTS[work]

    async def make() -> Callable[[int], Awaitable[Any]]:
        return lambda number: db(statement, *arguments(work, number))

    yield from looped(make, tasks, work)


def asyncpg(url: str, work: str, tasks: int, resets: bool = True, **_: Any) -> Iterator[Sample]:
    import asyncpg

    async def nothing(_: Any) -> None:
        return

    async def make() -> Callable[[int], Awaitable[Any]]:
        more = {} if resets else {"reset": nothing}
        pool = await asyncpg.create_pool(url, min_size=10, max_size=10, **more)
        statement = STATEMENTS[work]
        return lambda number: pool.fetch(statement, *arguments(work, number))

    yield from looped(make, tasks, work)


def asyncpg_bare(**given: Any) -> Iterator[Sample]:
    return asyncpg(resets=False, **given)


def psycopg(url: str, work: str, tasks: int, **_: Any) -> Iterator[Sample]:
    """One connection in pipeline mode: so many statements are sent as tasks are wanted, then all are fetched."""
    import psycopg

    statement = STATEMENTS[work].replace("$1", "%s")
    conn = psycopg.connect(url, autocommit=True, prepare_threshold=0)

    def measure() -> Sample:
        done, started = 0, time.perf_counter()
        spans = []
        with conn.pipeline():
            while (began := time.perf_counter()) < started + SECONDS:
                numbers = range(done, done + tasks)
                cursors = [conn.cursor(binary=True).execute(statement, arguments(work, number)) for number in numbers]
                for number, cursor in zip(numbers, cursors, strict=True):
                    checked(work, number, cursor.rowcount if work == "insert" else cursor.fetchall())
                done += tasks
                spans.append(time.perf_counter() - began)
        return {**timed_rate(done, started), "p50": sorted(spans)[len(spans) // 2]}

    measure()
    yield {}
    while True:
        yield measure()


SIDES = {"iokernel": iokernel, "asyncpg": asyncpg, "asyncpg-bare": asyncpg_bare, "psycopg": psycopg}


def rows(bench: Bench) -> list[Row]:
    made: list[Row] = []
    for work, tasks in (("key", 100), ("key", 10), ("key", 1), ("select 1", 100), ("insert", 100), ("rows", 10)):
        try:
            found = bench.compare("pg", list(SIDES), server=Server, work=work, tasks=tasks)
        except Missing as missing:
            raise Unavailable(str(missing)) from None
        ours, pool, bare, pipeline = (found[side] for side in SIDES)
        what = f"PostgreSQL, {work}, {tasks} at a time"
        many = tasks == 100
        must = 1.5 if work == "rows" else 4 if many else None
        made.append(
            versus(f"{what}: asyncpg pool(10)", ours, pool, must=must, aim=8 if many else None, peer_name="asyncpg")
        )
        made.append(versus(f"{what}: the same without reset", ours, bare, peer_name="asyncpg"))
        must, aim = (None, 1) if work == "rows" else (1.5, 3) if many else (None, None)
        made.append(versus(f"{what}: psycopg pipeline", ours, pipeline, must=must, aim=aim, peer_name="psycopg"))
        if tasks == 1:
            p50, other = ours.median("p50"), bare.median("p50")
            made.append(
                Row(
                    f"{what}: p50 of asyncpg",
                    span(p50),
                    f"{span(other)} asyncpg",
                    ratio(p50, other),
                    must=1.2,
                    at_least=False,
                )
            )
    return made
