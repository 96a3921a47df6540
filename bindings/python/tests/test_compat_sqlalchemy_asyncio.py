"""SQLAlchemy's asyncio over iokernel: an application of its ORM, its streams, its pool."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import iokernel.pg
import pytest
import sqlalchemy
from sqlalchemy import ForeignKey, String, func, select, text
from sqlalchemy.ext.asyncio import AsyncAttrs, AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload
from support.fixtures import or_skip
from support.postgres import PostgresServer

CURSORS = text("select count(*) from pg_cursors where name <> ''")


class Base(AsyncAttrs, DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    books: Mapped[list[Book]] = relationship(back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    title: Mapped[str]
    author: Mapped[Author] = relationship(back_populates="books")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with or_skip(PostgresServer)() as made:
        yield made


def engine_of(server: PostgresServer, **more: Any) -> AsyncEngine:
    return create_async_engine(server.url.replace("postgres://", "postgresql+iokernel://"), **more)


@pytest.fixture
async def engine(server: PostgresServer) -> AsyncIterator[AsyncEngine]:
    made = engine_of(server, pool_size=3, max_overflow=0, pool_timeout=0.5)
    async with made.begin() as conn:
        await conn.run_sync(Base.metadata.create_all)
    yield made
    async with made.begin() as conn:
        await conn.run_sync(Base.metadata.drop_all)
    await made.dispose()


async def pid_of(conn: AsyncConnection | AsyncSession) -> int:
    return int((await conn.execute(text("select pg_backend_pid()"))).scalar_one())


async def names(engine: AsyncEngine) -> list[str]:
    async with AsyncSession(engine) as session:
        return list(await session.scalars(select(Author.name).order_by(Author.name)))


async def test_objects_are_made_read_changed_and_deleted(engine: AsyncEngine) -> None:
    async with AsyncSession(engine, expire_on_commit=False) as session:
        session.add(Author(name="Ada 100%", books=[Book(title="Notes"), Book(title="Letters")]))
        await session.commit()
    async with AsyncSession(engine) as session:
        found = (await session.scalars(select(Author).options(selectinload(Author.books)))).one()
        assert (found.name, sorted(book.title for book in found.books)) == ("Ada 100%", ["Letters", "Notes"])
        found.name = "Ada"
        await session.delete(found.books[0])
        await session.commit()
        assert len(await found.awaitable_attrs.books) == 1
        assert await session.scalar(select(func.count()).select_from(Book)) == 1
        await session.delete(found)
        await session.commit()
    assert await names(engine) == []


async def test_transactions_and_savepoints(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        async with session.begin():
            session.add(Author(name="kept"))
            with contextlib.suppress(KeyError):
                async with session.begin_nested():
                    session.add(Author(name="not kept"))
                    await session.flush()
                    raise KeyError
        with pytest.raises(KeyError):
            async with session.begin():
                session.add(Author(name="not kept either"))
                await session.flush()
                assert await names(engine) == ["kept"], "another session does not see it"
                raise KeyError
    assert await names(engine) == ["kept"]


async def test_levels_and_autocommit(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        assert await conn.get_isolation_level() == "READ COMMITTED"
        await conn.execution_options(isolation_level="SERIALIZABLE")
        assert (await conn.execute(text("show transaction_isolation"))).scalar() == "serializable"
    async with engine.connect() as conn:
        await conn.execution_options(isolation_level="AUTOCOMMIT")
        await conn.execute(text("vacuum authors"))
    async with engine.connect() as conn:
        assert await conn.get_isolation_level() == "READ COMMITTED"


async def test_errors_are_those_of_the_db_api(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add_all([Author(name="one"), Author(name="one")])
        with pytest.raises(sqlalchemy.exc.IntegrityError) as refused:
            await session.commit()
        assert refused.value.orig is not None and refused.value.orig.sqlstate == "23505"  # type: ignore[attr-defined]
        await session.rollback()
        for statement, kind in (("selec", "ProgrammingError"), ("select 1 / 0", "DataError")):
            with pytest.raises(getattr(sqlalchemy.exc, kind)):
                await session.execute(text(statement))
            await session.rollback()
        assert await session.scalar(select(func.count()).select_from(Author)) == 0
    nobody = create_async_engine("postgresql+iokernel://x@127.0.0.1:1/x?connect_timeout=1s&timeout=1s")
    with pytest.raises(sqlalchemy.exc.OperationalError):
        async with nobody.connect():
            pass


async def test_rows_are_streamed(engine: AsyncEngine) -> None:
    query = text("select i, 'n' || i from generate_series(1, :last) i")
    async with engine.connect() as conn:
        async with conn.stream(query, {"last": 5000}) as result:
            assert result.keys() == ["i", "?column?"]
            assert (await result.fetchone()) == (1, "n1")
            assert [row[0] for row in await result.fetchmany(2)] == [2, 3]
            # Another statement between, and another stream beside.
            assert (await conn.execute(CURSORS)).scalar() == 1
            async with conn.stream(query, {"last": 3}) as other:
                assert [row[0] async for row in other] == [1, 2, 3]
            assert [row[0] async for row in result] == list(range(4, 5001))
        assert (await conn.execute(CURSORS)).scalar() == 0
        async with conn.stream(query, {"last": 5000}) as result:
            assert (await result.first()) == (1, "n1")
        async with conn.stream(query, {"last": 2}) as result:
            assert [row async for row in result.scalars()] == [1, 2]
    async with AsyncSession(engine) as session:
        session.add_all([Author(name=f"{at:04}") for at in range(1000)])
        await session.flush()
        found = await session.stream_scalars(select(Author).order_by(Author.name).execution_options(yield_per=100))
        sizes = [len(part) async for part in found.partitions()]
        assert sizes == [100] * 10
        with pytest.raises(sqlalchemy.exc.DataError):
            async for _ in await session.stream(text("select 1 / (10 - i) from generate_series(1, 20) i")):
                pass
        await session.rollback()
        assert await session.scalar(CURSORS) == 0


async def test_a_stream_may_end_with_its_savepoint(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        part = await conn.begin_nested()
        result = await conn.stream(text("select generate_series(1, 5000)"))
        assert await result.fetchone() == (1,)
        await part.rollback()
        await result.close()
        assert (await conn.execute(text("select 1"))).scalar() == 1, "the transaction goes on"


async def test_sessions_go_on_beside_one_another(engine: AsyncEngine) -> None:
    at_once = asyncio.Barrier(3)

    async def insert(at: int) -> int:
        async with AsyncSession(engine) as session, session.begin():
            pid = await pid_of(session)
            await at_once.wait()
            session.add(Author(name=f"author {at}"))
            await session.flush()
            await at_once.wait()
            return pid

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    assert len(set(await asyncio.gather(*map(insert, range(3))))) == 3
    async with engine.connect() as conn:
        before = ticks
        await conn.execute(text("select pg_sleep(0.2)"))
        assert ticks - before > 20, "the loop is not blocked"
    ticking.cancel()
    assert len(await names(engine)) == 3


async def test_tasks_that_share_a_connection_take_turns(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:

        async def ask(number: int) -> int:
            return int((await conn.execute(text("select :n + 0 * count(*) from pg_class"), {"n": number})).scalar_one())

        assert await asyncio.gather(*map(ask, range(20))) == list(range(20))


async def test_the_pool_gives_back_and_is_bounded(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        first = await pid_of(conn)
        await conn.execute(text("create temp table mine (a int)"))
    async with engine.connect() as conn:
        assert await pid_of(conn) == first
        assert (await conn.execute(text("select to_regclass('mine')"))).scalar() is None, "it was rolled back"
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(engine.connect())
        with pytest.raises(sqlalchemy.exc.TimeoutError):
            await engine.connect()
    async with engine.connect() as conn:
        raw = await conn.get_raw_connection()
        assert isinstance(raw.driver_connection, iokernel.pg.PgLease)
        assert (await raw.driver_connection("select $1::int4", 7)).scalar() == 7


@pytest.mark.parametrize("what", ["statement", "stream", "begin", "connect"])
async def test_a_task_that_is_cancelled_leaves_the_pool_clean(
    server: PostgresServer, engine: AsyncEngine, what: str
) -> None:
    begun = asyncio.Event()

    async def use() -> None:
        begun.set()
        async with AsyncSession(engine) as session:
            if what == "begin":
                await session.scalar(text("select 1"))
            elif what != "connect":
                session.add(Author(name="of a task that is cancelled"))
                await session.flush()
                slow = text("select pg_sleep(30), generate_series(1, 3)")
                await (session.execute(slow) if what == "statement" else session.stream(slow))
                raise AssertionError("it was not cancelled")

    if what in ("connect", "begin"):
        # Cancelled at every turn of the loop that it may be at.
        for turns in range(12):
            task = asyncio.create_task(use())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    else:
        task = asyncio.create_task(use())
        await begun.wait()
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert await names(engine) == []
    async with contextlib.AsyncExitStack() as stack:
        conns = [await stack.enter_async_context(engine.connect()) for _ in range(3)]
        assert len({await pid_of(conn) for conn in conns}) == 3


def test_an_engine_may_be_used_in_one_loop_after_another(server: PostgresServer) -> None:
    async def ask() -> int:
        async with engine.connect() as conn:
            return await pid_of(conn)

    engine = engine_of(server, pool_pre_ping=True)
    assert all(asyncio.run(ask()) for _ in range(3))
    asyncio.run(engine.dispose())


async def test_a_server_that_restarts_is_a_disconnect(server: PostgresServer) -> None:
    engine = engine_of(server, pool_size=1)
    async with engine.connect() as conn:
        await conn.execute(text("select 1"))
    await asyncio.to_thread(server.restart)
    for _ in range(100):
        try:
            async with engine.connect() as conn:
                assert (await conn.execute(text("select 1"))).scalar() == 1
                break
        except sqlalchemy.exc.OperationalError as error:
            assert error.connection_invalidated
            await asyncio.sleep(0.05)
    else:
        raise AssertionError("it never comes back")
    await engine.dispose()
