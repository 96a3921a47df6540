"""PEP 249 over PostgreSQL: `iokernel.compat.dbapi.connect("postgres://app@db.internal/shop")`.

A connection is a session of its own: one lease of an endpoint that all connections with the same URL share. Statements
run in a transaction that the first of them begins, unless `autocommit` is on. Parameters are `%s` or `%(name)s`, as
psycopg's.
"""

from __future__ import annotations

import datetime
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload
from urllib.parse import quote, urlencode

from .. import _errors
from .._endpoint import Lease
from .._kernel import default_kernel
from ..pg import PgEndpoint, PgLease, Rows

if TYPE_CHECKING:
    from typing import Self

    from ._server_cursor import ServerCursor

    Request = list[Any] | dict[str, str]

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


_CLASSES = {
    "0A": "NotSupportedError",
    **dict.fromkeys(("21", "22"), "DataError"),
    "23": "IntegrityError",
    **dict.fromkeys(("24", "25", "2B", "2D", "XX"), "InternalError"),
    **dict.fromkeys(("08", "40", "53", "54", "55", "57", "58"), "OperationalError"),
}
"""By the first two characters of SQLSTATE; ProgrammingError for the rest."""


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


_TO_SAVEPOINT = re.compile(r"\bROLLBACK\s.*\bTO\b", re.IGNORECASE | re.DOTALL)
_PLACES = re.compile(r"%(?:\((?P<name>[^)]*)\))?(?P<what>.)?", re.DOTALL)


def placed(statement: str, parameters: Sequence[Any] | Mapping[str, Any], put: Callable[[Any], str]) -> str:
    """A statement with what `put` makes of the parameters in place of `%s` or `%(name)s`. `%%` is a percent sign."""
    named: Any = parameters
    places: dict[str, str] = {}
    count = 0

    def place(found: re.Match[str]) -> str:
        nonlocal count
        name, what = found["name"], found["what"]
        if name is None and what == "%":
            return "%"
        if what not in ("s", "b", "t"):
            raise ProgrammingError(f"statement: {found[0]!r}: expected %s, %(name)s, or %% for a percent sign")
        if (name is not None) != isinstance(parameters, Mapping):
            expected = "a mapping for %(name)s, a sequence for %s"
            raise ProgrammingError(f"parameters: {type(parameters).__name__}: expected {expected}")
        if name is None:
            if count == len(parameters):
                raise ProgrammingError(f"parameters: {len(parameters)}: the statement has more places")
            count += 1
            return put(named[count - 1])
        if name not in places:
            if name not in named:
                raise ProgrammingError(f"parameters: none is called {name!r}, which the statement has")
            places[name] = put(named[name])
        return places[name]

    text = _PLACES.sub(place, statement)
    if not isinstance(parameters, Mapping) and count != len(parameters):
        raise ProgrammingError(f"parameters: {len(parameters)}: the statement has {count} places")
    return text


def numbered(statement: str, parameters: Sequence[Any] | Mapping[str, Any]) -> tuple[str, list[Any]]:
    """A statement with `%s` or `%(name)s` as one with `$1`, and its parameters in order."""
    values: list[Any] = []

    def put(value: Any) -> str:
        values.append(value)
        return f"${len(values)}"

    return placed(statement, parameters, put), values


def connect(url: str, *, autocommit: bool = False, **options: Any) -> Connection:
    """A session at `url`; `options` are the endpoint's. Raises OperationalError if there is none to be had."""
    return Connection._at(url, autocommit, options)


def address(
    user: str | None, password: str | None, host: str | None, port: Any, database: str | None, query: Mapping[str, Any]
) -> str:
    """The URL of these. A host that is a path is the folder of a unix socket."""
    login = quote(user or "", safe="")
    if password:
        login += ":" + quote(password, safe="")
    login += "@" if login else ""
    if host and host.startswith("/"):
        query = {"dbname": database, **query} if database else query
        place, scheme = f"{host}/.s.PGSQL.{port or 5432}", "postgres+unix"
    else:
        host = f"[{host}]" if host and ":" in host else host or "127.0.0.1"
        place, scheme = f"{host}{f':{port}' if port else ''}/{quote(database or '', safe='')}", "postgres"
    return f"{scheme}://{login}{place}{'?' + urlencode(query, quote_via=quote) if query else ''}"


_endpoints: dict[tuple[Any, ...], PgEndpoint] = {}
_lock = threading.Lock()


def shared(url: str, options: dict[str, Any]) -> PgEndpoint:
    """The endpoint of all connections with this URL and these options."""
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


def close_all(url: str) -> None:
    """Closes the endpoints of this URL, whatever their options, and with them the connections that are left."""
    with _lock:
        found = [key for key in _endpoints if key[1].partition("?")[0] == url.partition("?")[0]]
        closed = [_endpoints.pop(key) for key in found]
    for endpoint in closed:
        endpoint.close()


class Session(PgLease):
    """A lease that outlives the thread that took it, as connections in pools do."""

    __slots__ = ()

    def acquire(self) -> Lease:
        """Waits for the connection."""
        # Leases end with their channel, which is kept for those to come.
        spares = self._kernel.spare_channels
        try:
            channel = spares.pop()
        except IndexError:
            channel = self._kernel.spare_channel()
        try:
            held = self._acquire_by(channel)
        except _errors.Error:
            spares.append(channel)
            raise
        except BaseException:
            channel.close()
            raise
        spares.append(channel)
        return held


class Connection:
    """One session. Closed without a commit, it forgets what it has not committed."""

    Warning: type[Exception] = Warning
    Error: type[Exception] = Error
    InterfaceError: type[Exception] = InterfaceError
    DatabaseError: type[Exception] = DatabaseError
    DataError: type[Exception] = DataError
    OperationalError: type[Exception] = OperationalError
    IntegrityError: type[Exception] = IntegrityError
    InternalError: type[Exception] = InternalError
    ProgrammingError: type[Exception] = ProgrammingError
    NotSupportedError: type[Exception] = NotSupportedError

    @classmethod
    def _at(cls, url: str, autocommit: bool, options: dict[str, Any]) -> Self:
        try:
            session = Session(shared(url, options), None)
            session.acquire()
        except _errors.Error as error:
            raise cls._translated(error) from error
        return cls(session, autocommit)

    @classmethod
    def _translated(cls, error: _errors.Error) -> Exception:
        if isinstance(error, _errors.RemoteError):
            return cls._refused(error.message, error.code or "")
        return (cls.ProgrammingError if isinstance(error, _errors.BadRequest) else cls.OperationalError)(str(error))

    @classmethod
    def _refused(cls, message: str, sqlstate: str) -> Exception:
        """What an answer of the server with this SQLSTATE is raised as."""
        refusal: Exception = getattr(cls, _CLASSES.get(sqlstate[:2], "ProgrammingError"))(message, sqlstate)
        return refusal

    def __init__(self, session: PgLease, autocommit: bool) -> None:
        """`session`: a lease that is held."""
        self._autocommit = autocommit
        self._in_transaction = False
        self._ends = 0
        """How many transactions, or parts of them, have ended: the cursors of the server may have ended with them."""
        self._names: set[str] = set()
        self._lock: Any = threading.RLock()
        self._session: PgLease | None = session

    @property
    def autocommit(self) -> bool:
        """Each statement is a transaction of its own. Changed outside of a transaction alone."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, on: bool) -> None:
        if self._in_transaction and on != self._autocommit:
            raise self.ProgrammingError("autocommit: a transaction is under way: commit it or roll it back first")
        self._autocommit = on

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._session is None

    @overload
    def cursor(self) -> Cursor: ...
    @overload
    def cursor(self, name: str, *, withhold: bool = False) -> ServerCursor: ...
    def cursor(self, name: str | None = None, *, withhold: bool = False) -> Cursor:
        """A cursor, with which statements are executed. With a name it is one of the server, which keeps the rows until
        they are fetched: until the end of the transaction, or longer if `withhold`."""
        self._held()
        if not name:
            return Cursor(self)
        from ._server_cursor import ServerCursor

        return ServerCursor(self, name, withhold)

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
            raise self.InterfaceError("the connection is closed")
        return self._session

    def _call(self, session: PgLease, *requests: Any) -> Any:
        """The answer of the session."""
        return session.call(*requests)

    def _end(self, word: str) -> None:
        with self._lock:
            session = self._held()
            if not self._in_transaction:
                return
            self._in_transaction = False
            self._ends += 1
            rows: Rows = self._asked(session, [word])
            if word == "COMMIT" and rows.tag != word:
                self._not_committed()

    def _not_committed(self) -> None:
        raise self._refused("it was rolled back, because a statement in it had failed", "25P02")

    def _ask(self, *requests: Request) -> list[Any]:
        """What each request came to: Rows, a list of them for a script, or an error."""
        with self._lock:
            session = self._held()
            if not self._in_transaction and not self._autocommit:
                self._asked(session, ["BEGIN"])
                self._in_transaction = True
            if len(requests) == 1:
                return [self._asked(session, requests[0])]
            try:
                answers: list[Any] = self._call(session, *requests)
            except _errors.Error as error:
                raise self._translated(error) from error
            return answers

    def _asked(self, session: PgLease, request: Request) -> Any:
        is_script = isinstance(request, dict)
        try:
            answer = self._call(session, request) if is_script else self._call(session, *request)
        except _errors.Error as error:
            raise self._translated(error) from error
        if isinstance(request, dict):
            for rows in answer:
                self._heard(request["simple"], rows.tag)
        else:
            self._heard(request[0], answer.tag)
        return answer

    def _heard(self, text: str, tag: str) -> None:
        """The program may begin and end transactions by statements of its own."""
        if tag in ("COMMIT", "ROLLBACK"):
            self._ends += 1
            self._in_transaction = self._in_transaction and bool(_TO_SAVEPOINT.search(text))
        elif tag in ("BEGIN", "START TRANSACTION"):
            self._in_transaction = True

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
        self._next: list[Rows] = []
        self._described: list[Any] | None = None
        self.rowcount = -1
        """Rows that the last statement gave or changed; -1 where there was none."""
        self._closed = False

    @property
    def description(self) -> list[Any] | None:
        """Of each column its name and its type, and five times None (PEP 249); None for statements without rows."""
        if self._described is None and self._rows is not None and self._rows.columns:
            rows = self._rows
            self._described = [
                (name, kind, None, None, None, None, None) for name, kind in zip(rows.columns, rows.types)
            ]
        return self._described

    def execute(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> Cursor:
        """Executes one statement. Without `parameters`, percent signs in it are what they are, and there may be several
        statements with `;` between them, each of whose rows come after `nextset()`."""
        self._open()
        request = self._request(statement, parameters)
        self._forget()
        (answer,) = self.connection._ask(request)
        if isinstance(answer, list):
            self._next = answer
            self.nextset()
        else:
            self._take(answer)
        return self

    def nextset(self) -> bool | None:
        """Goes on to what the next statement of a script gave; None after the last."""
        self._open()
        if not self._next:
            return None
        self._take(self._next.pop(0))
        return True

    def _request(self, statement: str, parameters: Sequence[Any] | Mapping[str, Any] | None) -> Request:
        if parameters is not None:
            text, values = numbered(statement, parameters)
            return [text, *values]
        # Perhaps more than one, which only the simple protocol takes.
        return {"simple": statement} if ";" in statement.rstrip().rstrip(";") else [statement]

    def _forget(self) -> None:
        self._rows, self._at, self.rowcount, self._next, self._described = None, 0, -1, [], None

    def _take(self, rows: Rows) -> None:
        self._rows, self._at, self.rowcount, self._described = rows, 0, rows.affected, None

    def executemany(self, statement: str, sets: Sequence[Sequence[Any] | Mapping[str, Any]]) -> Cursor:
        """Executes one statement with each set of parameters; all are sent at once."""
        self._open()
        requests = [self._request(statement, parameters) for parameters in sets]
        self._forget()
        self.rowcount = 0
        if not requests:
            return self
        for answer in self.connection._ask(*requests):
            if isinstance(answer, _errors.Error):
                raise self.connection._translated(answer) from answer
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

    @property
    def closed(self) -> bool:
        """True after `close()`."""
        return self._closed

    def _open(self) -> None:
        if self._closed:
            raise self.connection.InterfaceError("the cursor is closed")

    def _given(self) -> list[list[Any]]:
        self._open()
        if self._rows is None or not self._rows.columns:
            raise self.connection.ProgrammingError("there are no rows: execute a statement that gives some")
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
