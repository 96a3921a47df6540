"""PostgreSQL: what endpoints of `postgres://` have beside what every endpoint has.

db = iokernel.open("postgres://app@db.internal/shop")     # or iokernel.pg.open, which type checkers know better
db.call("select id, name from users where id = $1", 7)    # blocks; Rows
await db("select id, name from users where id = $1", 7)   # inside of an event loop

with db.transaction() as tx:                              # or async with
    tx.call("update accounts set balance = balance - $1 where id = $2", 10, 1)

with db.stream("select * from events") as rows:           # as they come; or async with, async for
    for row in rows: ...
db.copy_from("copy events from stdin", open("events.tsv", "rb"))
db.copy_rows("copy events from stdin", [(1, "begun", datetime.now(UTC)), (2, None, None)])
for piece in db.copy_to("copy events to stdout"): ...

Values:

| PostgreSQL                                | Python                                                              |
|-------------------------------------------|---------------------------------------------------------------------|
| boolean, integers, floats, text, bytea    | bool, int, float, str, bytes                                        |
| numeric                                   | decimal.Decimal, with its trailing zeros                            |
| date, time, timestamp                     | datetime.date, datetime.time, datetime.datetime without a zone      |
| time with time zone                       | datetime.time with its offset                                       |
| timestamp with time zone                  | datetime.datetime in UTC; given: in any zone                        |
| interval                                  | Interval; given: also datetime.timedelta                            |
| uuid                                      | uuid.UUID                                                           |
| ranges; multiranges                       | Range; a list of them                                               |
| arrays, composites                        | list; given: also tuple                                             |
| enums, json, jsonb, inet, everything else | str, PostgreSQL's text                                              |

What Python's types cannot hold is a str in PostgreSQL's ISO spelling, and may be given as such: `infinity` and
`-infinity`, years before 1 and after 9999 (`0044-03-15 BC`), the time `24:00:00`.
"""

from __future__ import annotations

import operator
from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from ._endpoint import Endpoint, Lease, _Requests
from ._errors import BadRequest, ConfigError, RemoteError
from ._future import AioFuture, Future
from ._kernel import default_kernel
from ._pg_stream import Copy as Copy
from ._pg_stream import RowStream as RowStream
from ._pg_stream import copy_from, copy_from_async
from ._pg_text import copied, copied_async
from ._pg_values import Interval as Interval
from ._pg_values import Range as Range
from .loops import running_loop

if TYPE_CHECKING:
    from ._endpoint import Route
    from ._pg_stream import Source

ISOLATION = ("read uncommitted", "read committed", "repeatable read", "serializable")


class Row(Sequence[Any]):
    """One row: values by position (`row[0]`), or by the name of their column (`row["id"]`, the first of that name)."""

    __slots__ = ("_at", "_values")

    def __init__(self, values: list[Any], at: dict[str, int]) -> None:
        self._values, self._at = values, at

    def __getitem__(self, key: Any) -> Any:
        """Raises KeyError for a name that no column has, and IndexError for a position."""
        return self._values[self._at[key] if isinstance(key, str) else key]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __contains__(self, value: object) -> bool:
        return value in self._values

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row):
            return self._values == other._values
        return self._values == list(other) if isinstance(other, (list, tuple)) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self._values))

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column; `default` where there is no such column."""
        at = self._at.get(name)
        return default if at is None else self._values[at]

    def dict(self) -> dict[str, Any]:
        """The values by the names of their columns."""
        return {name: self._values[at] for name, at in self._at.items()}

    def __repr__(self) -> str:
        return f"<iokernel.pg.Row {self.dict()!r}>"


class Rows(Sequence[Row]):
    """What a statement came to: its rows, and what the server says of it."""

    __slots__ = ("_at", "_columns", "_rows", "notices", "tag")

    def __init__(self, reply: list[Any]) -> None:
        self.tag: str = reply[0]
        """The server's word: `SELECT 2`, `INSERT 0 1`, `CREATE TABLE`."""
        self._columns: list[list[str]] = reply[1]
        self._rows: list[list[Any]] = reply[2]
        self.notices: list[list[str]] = reply[3] if len(reply) > 3 else []
        """What the server said beside it, `[code, text]` each: `["00000", "NOTICE: hello"]`."""
        self._at: dict[str, int] | None = None

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return [name for name, _ in self._columns]

    @property
    def types(self) -> list[str]:
        """The types of the columns, as pg_type calls them."""
        return [kind for _, kind in self._columns]

    @property
    def affected(self) -> int:
        """How many rows were read, inserted, updated, deleted or copied; 0 for other statements."""
        last = self.tag.rpartition(" ")[2]
        return int(last) if last.isdigit() else 0

    def _places(self) -> dict[str, int]:
        if self._at is None:
            self._at = {}
            for at, (name, _) in enumerate(self._columns):
                self._at.setdefault(name, at)
        return self._at

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        places = self._places()
        if isinstance(at, slice):
            return [Row(values, places) for values in self._rows[at]]
        return Row(self._rows[at], places)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        places = self._places()
        for values in self._rows:
            yield Row(values, places)

    def one(self) -> Row:
        """The only row. Raises ValueError if there is none, or more than one."""
        if len(self._rows) != 1:
            raise ValueError(f"rows: {len(self._rows)}: expected one")
        return self[0]

    def scalar(self) -> Any:
        """The first value of the first row; None if there is no row."""
        return self._rows[0][0] if self._rows else None

    def lists(self) -> list[list[Any]]:
        """The rows as lists."""
        return self._rows

    def dicts(self) -> list[dict[str, Any]]:
        """The rows as dicts. Of columns of one name, the last is kept."""
        names = self.columns
        return [dict(zip(names, values)) for values in self._rows]

    def columnar(self) -> dict[str, list[Any]]:
        """The values of each column, by its name."""
        return {name: list(map(operator.itemgetter(at), self._rows)) for at, name in enumerate(self.columns)}

    def __repr__(self) -> str:
        return f"<iokernel.pg.Rows {self.tag!r} {', '.join(self.columns)}>"


def _rows(reply: Any) -> Any:
    """Rows; a list of them, with errors among them, for several statements."""
    if not isinstance(reply, list):
        return reply
    if len(reply) in (3, 4) and isinstance(reply[0], str):
        return Rows(reply)
    return [_rows(one) for one in reply]


class _Reply(AioFuture):
    """Becomes Rows."""

    __slots__ = ()
    becomes = staticmethod(_rows)

    def set_result(self, reply: Any, /) -> None:
        _settle(self, _rows(reply))


_settle = AioFuture.set_result


class _ThreadReply(Future):
    """The same for threads."""

    __slots__ = ("_made",)

    def result(self, timeout: float | None = None) -> Any:
        """The Rows, waiting for them. Raises what the statement failed with."""
        try:
            return self._made
        except AttributeError:
            self._made: Any = _rows(super().result(timeout))
            return self._made


class _Statements(_Requests):
    """Statements, of endpoints and transactions."""

    __slots__ = ()
    _thread_future = _ThreadReply
    _loop_future = _Reply

    def call(
        self,
        *args: Any,
        timeout: float | None = None,
        idempotent: bool = False,
        route: Route | None = None,
        trace: str | None = None,
    ) -> Any:
        """One statement and its parameters, `$1` the first of them; blocks until its Rows are there.

        Lists as arguments are a batch, each with a statement of its own, sent at once: a list of Rows, with the errors
        of those that failed among them. `{"simple": "..."}`: several statements in one text, by the simple protocol.
        The rest as `Endpoint.call`.
        """
        return _rows(super().call(*args, timeout=timeout, idempotent=idempotent, route=route, trace=trace))

    def __call__(
        self,
        *args: Any,
        timeout: float | None = None,
        idempotent: bool = False,
        route: Route | None = None,
        trace: str | None = None,
    ) -> Any:
        """One statement; returns at once. Arguments, options and errors as `call`.

        Inside of an event loop the result is awaited; elsewhere its `result()` blocks.
        """
        if timeout is None and route is None and trace is None and not idempotent:
            begun = self._begin(_Reply, args)
            if begun is not None:
                return begun
        return self._call(*args, timeout=timeout, idempotent=idempotent, route=route, trace=trace)


def open(url: str, **options: Any) -> PgEndpoint:
    """`iokernel.open` for URLs of PostgreSQL alone."""
    endpoint = default_kernel().open(url, **options)
    if not isinstance(endpoint, PgEndpoint):
        endpoint.close()
        raise ConfigError(f'url: "{endpoint.url}": expected postgres:// or postgresql://')
    return endpoint


class PgEndpoint(_Statements, Endpoint):
    """A PostgreSQL service. Statements of all callers share its connection; transactions have one of their own."""

    __slots__ = ()

    def lease(self, timeout: float | None = None, route: Route | None = None) -> PgLease:
        """A connection of one's own, whose replies are Rows; see `Endpoint.lease`."""
        return PgLease(self, timeout, route)

    def stream(self, sql: str, *args: Any, timeout: float | None = None, route: Route | None = None) -> RowStream:
        """One statement and its parameters, whose rows are wanted as they come, on a connection of its own.

        Returns at once. `for row in stream`, or `async for`; see RowStream. `timeout` is in seconds, for the beginning
        of the answer.
        """
        return RowStream(self, sql, args, timeout, route)

    def copy_to(self, sql: str, *, timeout: float | None = None, route: Route | None = None) -> Copy:
        """`COPY ... TO STDOUT`: an iterable of bytes, for `for` or `async for`. Returns at once.

        `timeout` is in seconds, for the beginning. Left early, its connection, which nobody else uses, is closed.
        """
        return Copy(self, sql, "out", timeout, route)

    def copy_from(self, sql: str, source: Source, *, timeout: float | None = None, route: Route | None = None) -> Any:
        """`COPY ... FROM STDIN` of everything that `source` has: bytes or str, a file, or an iterable of them.

        Blocks until the server has it all: Rows, whose `affected` says how many. Inside of a loop it is awaited, and
        `source` may be an async iterable, or a file with an async `read`. If the source raises, nothing is copied, and
        that is raised. `timeout` is in seconds, for the beginning.
        """
        copy = Copy(self, sql, "in", timeout, route)
        return copy_from(copy, source) if running_loop() is None else copy_from_async(copy, source)

    def copy_rows(
        self,
        sql: str,
        rows: Iterable[Sequence[Any]] | AsyncIterable[Sequence[Any]],
        *,
        timeout: float | None = None,
        route: Route | None = None,
    ) -> Any:
        """`COPY ... FROM STDIN`, in its text format, of rows of Python's values, each a sequence of as many as columns.

        Values as parameters have them, and lists are arrays: what is a composite or a multirange is given as str.
        The rest as `copy_from`.
        """
        source = copied(rows) if isinstance(rows, Iterable) else copied_async(rows)
        return self.copy_from(sql, source, timeout=timeout, route=route)

    def transaction(
        self,
        isolation: str | None = None,
        *,
        read_only: bool = False,
        deferrable: bool = False,
        timeout: float | None = None,
    ) -> Transaction:
        """A transaction on a connection of its own: committed at the end of the `with`, rolled back if that raises.

        `isolation`: "read committed", "repeatable read" or "serializable"; None for the server's default. `timeout`: of
        waiting for the connection, in seconds.
        """
        return Transaction(self, _begin_text(isolation, read_only, deferrable), timeout)


def _begin_text(isolation: str | None, read_only: bool, deferrable: bool) -> str:
    words = ["BEGIN"]
    if isolation is not None:
        level = isolation.replace("_", " ").lower()
        if level not in ISOLATION:
            expected = ", ".join(ISOLATION)
            raise BadRequest(
                f"isolation: {isolation!r}: expected one of {expected}", code="BADREQUEST", status=-107, fate="not_sent"
            )
        words.append(f"ISOLATION LEVEL {level.upper()}")
    if read_only:
        words.append("READ ONLY")
    if deferrable:
        words.append("DEFERRABLE")
    return " ".join(words)


class PgLease(_Statements, Lease):
    """A session: what a statement changes of it stays until the lease ends."""

    __slots__ = ()


class Transaction(PgLease):
    """A transaction. `tx.call(...)` and `tx(...)` as those of the endpoint."""

    __slots__ = ("_begin_words",)

    def __init__(self, endpoint: Endpoint, begin_words: str, timeout: float | None) -> None:
        super().__init__(endpoint, timeout)
        self._begin_words = begin_words

    def savepoint(self) -> Savepoint:
        """A part of it that can fail alone: rolled back if the `with` raises, kept otherwise."""
        return Savepoint(self)

    def __enter__(self) -> Transaction:
        self.acquire()
        try:
            self.call(self._begin_words)
        except BaseException:
            self.release()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        failed = raised[0] is not None
        try:
            if self._number:
                _committed(self.call("ROLLBACK" if failed else "COMMIT"), failed)
        except Exception:
            if not failed:
                raise
        finally:
            self.release()

    async def __aenter__(self) -> Transaction:
        await self._acquire()
        try:
            await self(self._begin_words)
        except BaseException:
            self.release()
            raise
        return self

    async def __aexit__(self, *raised: object) -> None:
        failed = raised[0] is not None
        try:
            if self._number:
                _committed(await self("ROLLBACK" if failed else "COMMIT"), failed)
        except Exception:
            if not failed:
                raise
        finally:
            self.release()


def _committed(rows: Rows, failed: bool) -> None:
    """A transaction in which a statement has failed is rolled back by COMMIT, and the server calls that no error."""
    if not failed and rows.tag != "COMMIT":
        text = "it was rolled back, because a statement in it had failed"
        raise RemoteError(text, code="25P02", status=-301, fate="replied")


class Savepoint:
    """A part of a transaction."""

    __slots__ = ("_name", "_transaction")

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._name = f"iok_{id(self):x}"

    def _last(self, kind: object) -> str:
        return f"{'RELEASE' if kind is None else 'ROLLBACK TO'} SAVEPOINT {self._name}"

    def __enter__(self) -> Transaction:
        self._transaction.call(f"SAVEPOINT {self._name}")
        return self._transaction

    def __exit__(self, kind: object, *_: object) -> None:
        self._transaction.call(self._last(kind))

    async def __aenter__(self) -> Transaction:
        await self._transaction(f"SAVEPOINT {self._name}")
        return self._transaction

    async def __aexit__(self, kind: object, *_: object) -> None:
        await self._transaction(self._last(kind))
