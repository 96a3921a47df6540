"""PEP 249 over PostgreSQL: `iokernel.compat.dbapi.connect("postgres://app@db.internal/shop")`.

A connection is a session of its own: one lease of an endpoint that all connections with the same URL share. Statements
run in a transaction that the first of them begins, unless `autocommit` is on. Parameters are `%s` or `%(name)s`, as
psycopg's.
"""

from __future__ import annotations

import datetime
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import _errors
from .._kernel import default_kernel
from ..pg import PgEndpoint, PgLease, Rows

apilevel = "2.0"
threadsafety = 2
"""Threads may share the module and connections, but not cursors."""
paramstyle = "pyformat"


class Warning(Exception):
    """Never raised: notices are not errors."""


class Error(Exception):
    """What every exception here is. `sqlstate`: the server's code, five characters; None where it has said nothing."""

    def __init__(self, message: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class InterfaceError(Error):
    """The program used a connection or a cursor wrongly."""


class DatabaseError(Error):
    """The server refused a statement, or could not be asked."""


class DataError(DatabaseError):
    """A value is wrong (SQLSTATE 21, 22)."""


class OperationalError(DatabaseError):
    """Nothing that the program did: the connection, the server, a timeout (SQLSTATE 08, 40, 53, 55, 57, 58)."""


class IntegrityError(DatabaseError):
    """A constraint is violated (SQLSTATE 23)."""


class InternalError(DatabaseError):
    """The transaction's state does not allow it (SQLSTATE 24, 25, 2D, XX)."""


class ProgrammingError(DatabaseError):
    """The statement is wrong (SQLSTATE 2F, 3D, 3F, 42, 44, ...)."""


class NotSupportedError(DatabaseError):
    """The server has no such feature (SQLSTATE 0A)."""


_CLASSES: dict[str, type[DatabaseError]] = {
    "0A": NotSupportedError,
    **dict.fromkeys(("21", "22"), DataError),
    "23": IntegrityError,
    **dict.fromkeys(("24", "25", "2B", "2D", "XX"), InternalError),
    **dict.fromkeys(("08", "40", "53", "54", "55", "57", "58"), OperationalError),
}


def _translated(error: _errors.Error) -> DatabaseError:
    if isinstance(error, _errors.RemoteError):
        state = error.code or ""
        return _CLASSES.get(state[:2], ProgrammingError)(error.message, state)
    if isinstance(error, _errors.BadRequest):
        return ProgrammingError(str(error))
    return OperationalError(str(error))


class _Kind(frozenset[str]):
    """A type object: equal to each of its type codes."""

    def __eq__(self, other: object) -> bool:
        return other in self if isinstance(other, str) else super().__eq__(other)

    __hash__ = frozenset.__hash__


STRING = _Kind(("text", "varchar", "bpchar", "char", "name", "json", "jsonb", "xml", "uuid"))
BINARY = _Kind(("bytea",))
NUMBER = _Kind(("int2", "int4", "int8", "float4", "float8", "numeric", "money"))
DATETIME = _Kind(("date", "time", "timetz", "timestamp", "timestamptz", "interval"))
ROWID = _Kind(("oid", "tid"))

Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
Binary = bytes


def DateFromTicks(ticks: float) -> datetime.date:
    return datetime.date.fromtimestamp(ticks)


def TimeFromTicks(ticks: float) -> datetime.time:
    return datetime.datetime.fromtimestamp(ticks).time()


def TimestampFromTicks(ticks: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ticks)


_TO_SAVEPOINT = re.compile(r"\s*ROLLBACK\s.*\bTO\b", re.IGNORECASE | re.DOTALL)
_PLACES = re.compile(r"%(?:\((?P<name>[^)]*)\))?(?P<what>.)?", re.DOTALL)


def numbered(statement: str, parameters: Sequence[Any] | Mapping[str, Any]) -> tuple[str, list[Any]]:
    """A statement with `%s` or `%(name)s` as one with `$1`, and its parameters in order. `%%` is a percent sign."""
    named: Any = parameters
    values: list[Any] = []
    places: dict[str, int] = {}

    def place(found: re.Match[str]) -> str:
        name, what = found["name"], found["what"]
        if name is None and what == "%":
            return "%"
        if what not in ("s", "b", "t"):
            raise ProgrammingError(f"statement: {found[0]!r}: expected %s, %(name)s, or %% for a percent sign")
        if (name is not None) != isinstance(parameters, Mapping):
            expected = "a mapping for %(name)s, a sequence for %s"
            raise ProgrammingError(f"parameters: {type(parameters).__name__}: expected {expected}")
        if name is None:
            if len(values) == len(parameters):
                raise ProgrammingError(f"parameters: {len(parameters)}: the statement has more places")
            values.append(named[len(values)])
            return f"${len(values)}"
        if name not in places:
            try:
                values.append(named[name])
            except KeyError:
                raise ProgrammingError(f"parameters: none is called {name!r}, which the statement has") from None
            places[name] = len(values)
        return f"${places[name]}"

    text = _PLACES.sub(place, statement)
    if not isinstance(parameters, Mapping) and len(values) != len(parameters):
        raise ProgrammingError(f"parameters: {len(parameters)}: the statement has {len(values)} places")
    return text, values


def connect(url: str, *, autocommit: bool = False, **options: Any) -> Connection:
    """A session at `url`; `options` are the endpoint's. Raises OperationalError if there is none to be had."""
    endpoint = _shared(url, options)
    return Connection(endpoint, autocommit)


_endpoints: dict[tuple[Any, ...], PgEndpoint] = {}
_lock = threading.Lock()


def _shared(url: str, options: dict[str, Any]) -> PgEndpoint:
    kernel = default_kernel()
    key = (id(kernel), url, *sorted((name, str(value)) for name, value in options.items()))
    with _lock:
        found = _endpoints.get(key)
        if found is None or found.closed:
            made = kernel.open(url, **options)
            if not isinstance(made, PgEndpoint):
                made.close()
                raise InterfaceError(f"url: {made.url}: expected postgres:// or postgresql://")
            found = _endpoints[key] = made
        return found


class Connection:
    """One session. Closed without a commit, it forgets what it has not committed."""

    Warning, Error, InterfaceError, DatabaseError = Warning, Error, InterfaceError, DatabaseError
    DataError, OperationalError, IntegrityError = DataError, OperationalError, IntegrityError
    InternalError, ProgrammingError, NotSupportedError = InternalError, ProgrammingError, NotSupportedError

    def __init__(self, endpoint: PgEndpoint, autocommit: bool) -> None:
        self._autocommit = autocommit
        self._in_transaction = False
        self._lock = threading.RLock()
        self._session: PgLease | None = PgLease(endpoint, None)
        try:
            self._session.acquire()
        except _errors.Error as error:
            raise _translated(error) from error

    @property
    def autocommit(self) -> bool:
        """Each statement is a transaction of its own. Changed outside of a transaction alone."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, on: bool) -> None:
        if self._in_transaction and on != self._autocommit:
            raise ProgrammingError("autocommit: a transaction is under way: commit it or roll it back first")
        self._autocommit = on

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._session is None

    def cursor(self) -> Cursor:
        """A cursor, with which statements are executed."""
        self._held()
        return Cursor(self)

    def commit(self) -> None:
        """Ends the transaction, if one is under way; its changes stay."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Ends the transaction, if one is under way; it changes nothing."""
        self._end("ROLLBACK")

    def close(self) -> None:
        """Gives the session back. Twice is harmless."""
        with self._lock:
            session, self._session, self._in_transaction = self._session, None, False
            if session is not None:
                session.release()

    def _held(self) -> PgLease:
        if self._session is None:
            raise InterfaceError("the connection is closed")
        return self._session

    def _end(self, word: str) -> None:
        with self._lock:
            session = self._held()
            if not self._in_transaction:
                return
            self._in_transaction = False
            rows = self._asked(session, word)
            if word == "COMMIT" and rows.tag != word:
                raise InternalError("it was rolled back, because a statement in it had failed", "25P02")

    def _ask(self, *requests: list[Any]) -> list[Any]:
        """What each request came to: Rows, or an error."""
        with self._lock:
            session = self._held()
            if not self._in_transaction and not self._autocommit:
                self._asked(session, "BEGIN")
                self._in_transaction = True
            if len(requests) == 1:
                return [self._asked(session, *requests[0])]
            try:
                answers: list[Any] = session.call(*requests)
            except _errors.Error as error:
                raise _translated(error) from error
            return answers

    def _asked(self, session: PgLease, *request: Any) -> Rows:
        try:
            rows: Rows = session.call(*request)
        except _errors.Error as error:
            raise _translated(error) from error
        # The program may begin and end transactions by statements of its own.
        if rows.tag in ("COMMIT", "ROLLBACK") and not _TO_SAVEPOINT.match(request[0]):
            self._in_transaction = False
        elif rows.tag in ("BEGIN", "START TRANSACTION"):
            self._in_transaction = True
        return rows

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Commits, or rolls back if the block raised; then closes."""
        try:
            if self._session is not None:
                self._end("COMMIT" if kind is None else "ROLLBACK")
        finally:
            self.close()


class Cursor:
    """Executes statements and gives their rows as tuples. For one thread at a time."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.lastrowid = None
        self._rows: Rows | None = None
        self._at = 0
        self.rowcount = -1
        """Rows that the last statement gave or changed; -1 where there was none."""
        self._closed = False

    @property
    def description(self) -> list[tuple[str, str, None, None, None, None, None]] | None:
        """Of each column its name and its type, and five times None (PEP 249); None for statements without rows."""
        if self._rows is None or not self._rows.columns:
            return None
        return [(name, kind, None, None, None, None, None) for name, kind in zip(self._rows.columns, self._rows.types)]

    def execute(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> Cursor:
        """Executes one statement. Without `parameters`, percent signs in it are what they are."""
        self._open()
        request = [statement]
        if parameters is not None:
            text, values = numbered(statement, parameters)
            request = [text, *values]
        self._rows, self._at, self.rowcount = None, 0, -1
        (rows,) = self.connection._ask(request)
        self._rows, self.rowcount = rows, rows.affected
        return self

    def executemany(self, statement: str, sets: Sequence[Sequence[Any] | Mapping[str, Any]]) -> Cursor:
        """Executes one statement with each set of parameters; all are sent at once."""
        self._open()
        requests = []
        for parameters in sets:
            text, values = numbered(statement, parameters)
            requests.append([text, *values])
        self._rows, self._at, self.rowcount = None, 0, 0
        if not requests:
            return self
        for answer in self.connection._ask(*requests):
            if isinstance(answer, _errors.Error):
                raise _translated(answer) from answer
            self.rowcount += answer.affected
        return self

    def fetchone(self) -> tuple[Any, ...] | None:
        """The next row; None after the last."""
        rows = self._given()
        if self._at == len(rows):
            return None
        self._at += 1
        return tuple(rows[self._at - 1])

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """At most `size` (or `arraysize`) rows."""
        rows = self._given()
        start = self._at
        self._at = min(start + (self.arraysize if size is None else size), len(rows))
        return [tuple(row) for row in rows[start : self._at]]

    def fetchall(self) -> list[tuple[Any, ...]]:
        """All the rows that are left."""
        rows = self._given()
        start, self._at = self._at, len(rows)
        return [tuple(row) for row in rows[start:]]

    def _open(self) -> None:
        if self._closed:
            raise InterfaceError("the cursor is closed")

    def _given(self) -> list[list[Any]]:
        self._open()
        if self._rows is None or not self._rows.columns:
            raise ProgrammingError("there are no rows: execute a statement that gives some")
        return self._rows.lists()

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        while (row := self.fetchone()) is not None:
            yield row

    def close(self) -> None:
        """It cannot be used any more."""
        self._rows, self._closed = None, True

    def setinputsizes(self, sizes: object) -> None:
        """Does nothing: the server tells the types."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Does nothing."""

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
