"""The DB-API that SQLAlchemy's asyncio dialect uses: `dbapi`, whose answers are awaited.

SQLAlchemy runs its own code in a greenlet, out of which `await_only` waits in the loop. A connection is a lease as
elsewhere, and belongs to no loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only

from .. import _errors
from ..pg import PgLease
from . import dbapi
from .dbapi import (  # noqa: F401 - what SQLAlchemy looks for in a DB-API's module
    BINARY,
    DATETIME,
    NUMBER,
    ROWID,
    STRING,
    Binary,
    DatabaseError,
    DataError,
    Date,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Time,
    Timestamp,
    Warning,
    apilevel,
    paramstyle,
    threadsafety,
)


def connect(
    url: str,
    *,
    autocommit: bool = False,
    async_creator_fn: Callable[[], Awaitable[PgLease]] | None = None,
    **options: Any,
) -> Connection:
    """A session at `url`. `async_creator_fn` gives a lease that is held."""
    try:
        session: Any = await_only(async_creator_fn() if async_creator_fn else PgLease(dbapi.shared(url, options), None))
    except _errors.Error as error:
        raise Connection._translated(error) from error
    return Connection(session, autocommit)


class Cursor(dbapi.Cursor):
    """It has all its rows, so that nothing of it waits for the server."""

    server_side = False

    async def _async_soft_close(self) -> None:
        return


class Connection(dbapi.Connection, AdaptedConnection):
    """One session, whose statements are awaited; the tasks that share it take turns."""

    def __init__(self, session: PgLease, autocommit: bool) -> None:
        super().__init__(session, autocommit)
        self._connection: Any = session
        self._lock = _Turns()

    def cursor(self, name: str | None = None, *, withhold: bool = False) -> Any:
        self._held()
        return super().cursor(name, withhold=withhold) if name else Cursor(self)

    def _call(self, session: PgLease, *requests: Any) -> Any:
        return await_only(session(*requests))

    def close(self) -> None:
        """Gives the session back, without waiting: also where no loop runs. What it was asked last is cancelled."""
        session, self._session, self._in_transaction = self._session, None, False
        if session is not None:
            session.release()

    terminate = close


class _Turns:
    """A lock between tasks."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def __enter__(self) -> None:
        await_only(self._lock.acquire())

    def __exit__(self, *_: object) -> None:
        self._lock.release()
