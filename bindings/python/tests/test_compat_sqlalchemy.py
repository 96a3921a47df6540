"""SQLAlchemy over iokernel: an application of its ORM, its reflection, its transactions."""

from __future__ import annotations

import datetime
import enum
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import ARRAY, JSON, DateTime, Engine, ForeignKey, Numeric, String, func, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from support.fixtures import or_skip
from support.net import wait_for
from support.postgres import PostgresServer
from support.program import ROOT


class Base(DeclarativeBase):
    pass


class Color(enum.Enum):
    RED = 1
    GREEN = 2


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    born: Mapped[datetime.date | None]
    seen: Mapped[datetime.datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    money: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    height: Mapped[float | None]
    color: Mapped[Color | None]
    data: Mapped[Any] = mapped_column(JSON, nullable=True)
    more: Mapped[Any] = mapped_column(postgresql.JSONB, nullable=True)
    tags: Mapped[list[str | None] | None] = mapped_column(ARRAY(String))
    span: Mapped[datetime.timedelta | None]
    key: Mapped[uuid.UUID | None]
    picture: Mapped[bytes | None]
    years: Mapped[Any] = mapped_column(postgresql.INT4RANGE, nullable=True)
    posts: Mapped[list[Post]] = relationship(back_populates="user")


class Post(Base):
    __tablename__ = "posts"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    words: Mapped[str]
    user: Mapped[User] = relationship(back_populates="posts")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with or_skip(PostgresServer)() as made:
        yield made


@pytest.fixture
def engine(server: PostgresServer) -> Iterator[Engine]:
    made = sqlalchemy.create_engine(server.url.replace("postgres://", "postgresql+iokernel://"))
    Base.metadata.create_all(made)
    yield made
    Base.metadata.drop_all(made)
    made.dispose()


def ada() -> User:
    return User(
        name="Ada 100%",
        born=datetime.date(1815, 12, 10),
        money=Decimal("12.50"),
        height=1.65,
        color=Color.GREEN,
        data={"a": [1, None]},
        more={"b": 2},
        tags=["x", None, "ü"],
        span=datetime.timedelta(days=1, seconds=3),
        key=uuid.UUID(int=7),
        picture=b"\0\1",
        years=postgresql.Range(1815, 1853),
        posts=[Post(words="hello"), Post(words="again")],
    )


def test_objects_come_back_as_they_were_stored(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(ada())
        session.commit()
    wanted = ada()
    with Session(engine) as session:
        found = session.scalars(select(User).where(User.name.like("Ada 100%"))).one()
        for column in User.__table__.columns:
            if column.name not in ("id", "seen"):
                assert getattr(found, column.name) == getattr(wanted, column.name), column.name
        assert found.seen.utcoffset() == datetime.timedelta(0)
        assert sorted(post.words for post in found.posts) == ["again", "hello"]
        assert session.scalar(select(User.more["b"].as_integer())) == 2
        assert session.scalar(select(User.id % 2)) == found.id % 2
        found.tags = []
        session.delete(found.posts[0])
        session.commit()
        assert session.scalar(select(func.count()).select_from(Post)) == 1
        assert session.scalars(select(User.tags)).one() == []


def test_many_are_inserted_and_updated(engine: Engine) -> None:
    with Session(engine) as session:
        session.add_all([User(name=f"user {at}", height=at / 2) for at in range(500)])
        session.commit()
        assert session.execute(sqlalchemy.update(User).values(height=User.height + 1)).rowcount == 500  # type: ignore[attr-defined]
        assert session.scalar(select(func.sum(User.height))) == sum(at / 2 + 1 for at in range(500))


def test_what_is_violated_is_an_integrity_error_and_the_session_goes_on(engine: Engine) -> None:
    with Session(engine) as session:
        session.add(User(name="one"))
        session.commit()
        session.add(User(name="one"))
        with pytest.raises(sqlalchemy.exc.IntegrityError) as refused:
            session.commit()
        assert refused.value.orig is not None and refused.value.orig.sqlstate == "23505"  # type: ignore[attr-defined]
        session.rollback()
        assert session.scalar(select(func.count()).select_from(User)) == 1


def test_savepoints_levels_and_autocommit(engine: Engine) -> None:
    with engine.connect() as conn:
        conn.execute(text("insert into users (name) values ('kept')"))
        part = conn.begin_nested()
        conn.execute(text("insert into users (name) values ('not kept')"))
        part.rollback()
        conn.commit()
        assert conn.execute(text("select name from users")).scalars().all() == ["kept"]
        assert conn.get_isolation_level() == "READ COMMITTED"
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as conn:
        assert conn.execute(text("show transaction_isolation")).scalar() == "serializable"
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("vacuum users"))


def test_what_there_is_can_be_reflected(engine: Engine) -> None:
    inspector = sqlalchemy.inspect(engine)
    assert set(inspector.get_table_names()) >= {"users", "posts"}
    assert [column["name"] for column in inspector.get_columns("posts")] == ["id", "user_id", "words"]
    assert inspector.get_foreign_keys("posts")[0]["referred_table"] == "users"
    table = sqlalchemy.Table("users", sqlalchemy.MetaData(), autoload_with=engine)
    assert isinstance(table.c.more.type, postgresql.JSONB)


def test_a_server_that_restarts_is_a_disconnect(server: PostgresServer) -> None:
    engine = sqlalchemy.create_engine(server.url.replace("postgres://", "postgresql+iokernel://"), pool_size=1)
    with engine.connect() as conn:
        conn.execute(text("select 1"))
    server.restart()

    def again() -> bool:
        try:
            with engine.connect() as conn:
                return bool(conn.execute(text("select 1")).scalar() == 1)
        except sqlalchemy.exc.OperationalError as error:
            assert error.connection_invalidated
            return False

    wait_for("it to be back", again)
    engine.dispose()


if os.environ.get("IOKERNEL_SOAK", "") not in ("", "0"):

    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize(("driver", "peer"), [("iokernel", "psycopg"), ("iokernel_async", "psycopg_async")])
    def test_its_own_tests_of_dialects_fail_where_they_fail_with_psycopg_alone(
        tmp_path: Path, driver: str, peer: str
    ) -> None:
        """Those that fail want to know more of PostgreSQL than `requirements.py` says."""
        (ours, passed), (theirs, _) = (own_tests(tmp_path / name, name) for name in (driver, peer))
        print(f"SQLAlchemy's own tests by {driver}: {passed} pass, {len(ours)} fail; by {peer} {len(theirs)} fail")
        assert passed > 1000 and ours - theirs == set()

    def own_tests(folder: Path, driver: str) -> tuple[set[str], int]:
        """The names of those that fail, and how many pass."""
        shutil.copytree(ROOT / "tests" / "sqlalchemy", folder)
        with or_skip(PostgresServer)(auth="trust") as server:
            server.cli("create schema test_schema; create schema test_schema_2")
            url = server.url.replace("postgres://", f"postgresql+{driver}://")
            path = os.pathsep.join([str(ROOT / "bindings" / "python"), str(folder)])
            command = [sys.executable, "-m", "pytest", "-q", "--dburi", url, "--maxfail", "1000"]
            found = {**os.environ, "PYTHONPATH": path}
            done = subprocess.run(command, cwd=folder, env=found, capture_output=True, text=True, check=False)
        names = re.findall(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
        passed = re.findall(r"(\d+) passed", done.stdout)
        return {name.replace(driver, "") for name in names}, int(passed[-1]) if passed else 0
