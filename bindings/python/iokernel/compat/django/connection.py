"""Connections and cursors that Django's backend of PostgreSQL takes for psycopg's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timezone, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from django.db.backends.postgresql.base import CursorMixin  # type: ignore[import-untyped,unused-ignore]
from psycopg import sql
from psycopg.adapt import AdaptersMap, Dumper, PyFormat, Transformer

from .. import dbapi
from .._server_cursor import ServerCursor as DbapiServerCursor
from ._values import decoders_of

if TYPE_CHECKING:
    from ...pg import PgLease, Rows


BYTES = (bytes, bytearray, memoryview, psycopg.Binary)


def plain(value: Any) -> bytes:
    return bytes(value.obj if isinstance(value, psycopg.Binary) else value)


class Bytes(Dumper):
    """Bytes where they are a part of something: psycopg's own writing of them would ask its connection how."""

    oid = psycopg.postgres.types["bytea"].oid

    def dump(self, obj: Any) -> bytes:
        return b"\\x" + plain(obj).hex().encode()


class Connection(dbapi.Connection):
    """A session, with psycopg's exceptions. To psycopg it is a context without a connection, whose `adapters` it asks
    how values are written."""

    connection = None
    adapters: Any
    timezone_name = ""
    isolation_level: Any = None
    Warning = psycopg.Warning
    Error = psycopg.Error
    InterfaceError = psycopg.InterfaceError
    DatabaseError = psycopg.DatabaseError
    DataError = psycopg.DataError
    OperationalError = psycopg.OperationalError
    IntegrityError = psycopg.IntegrityError
    InternalError = psycopg.InternalError
    ProgrammingError = psycopg.ProgrammingError
    NotSupportedError = psycopg.NotSupportedError

    def __init__(self, session: PgLease, autocommit: bool) -> None:
        super().__init__(session, autocommit)
        self._transformer: Any = None

    def adapt(self, template: AdaptersMap) -> None:
        """Writes values as the template does."""
        self.adapters = AdaptersMap(template)
        for kind in BYTES:
            self.adapters.register_dumper(kind, Bytes)

    @classmethod
    def _refused(cls, message: str, sqlstate: str) -> Exception:
        try:
            return psycopg.errors.lookup(sqlstate)(message)
        except KeyError:
            category = dbapi._CLASSES.get(sqlstate[:2], "ProgrammingError")
            refusal: Any = getattr(cls, category)(message)
            refusal.sqlstate = sqlstate
            return refusal  # type: ignore[no-any-return]

    def _not_committed(self) -> None:
        """No error to Django, which keeps an account of its own."""

    @property
    def info(self) -> Info:
        """What Django asks of the server."""
        return Info(self)

    def cursor(self) -> Cursor:  # type: ignore[override]
        self._held()
        return Cursor(self)

    def written(self, value: Any) -> tuple[Any, str]:
        """What is sent for a value, and the cast that tells its type, as psycopg's parameters have types."""
        if value is None:
            return None, ""
        if isinstance(value, BYTES):
            return plain(value), "::bytea"
        if self._transformer is None:
            self._transformer = Transformer(self)
        (text,) = self._transformer.dump_sequence([value], [PyFormat.TEXT])
        (oid,) = self._transformer.types or (0,)
        return None if text is None else bytes(text).decode(), self._cast(oid)

    def _cast(self, oid: int) -> str:
        info = self.adapters.types.get(oid) if oid else None
        if info is None:
            return ""
        return f"::{info.regtype}{'[]' if oid == info.array_oid else ''}"


class Info:
    """The part of psycopg's `ConnectionInfo` that Django reads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    encoding = "utf-8"

    @property
    def server_version(self) -> int:
        return int(self.parameter_status("server_version_num"))

    def parameter_status(self, name: str) -> str:
        """A setting of the session."""
        with self._connection.cursor() as cursor:
            row = cursor.execute("SELECT current_setting(%s)", [name]).fetchone()
        return str(row[0]) if row else ""


def composed(connection: Connection, statement: str, parameters: Any) -> str:
    """A statement with its parameters written into it, for those in which PostgreSQL takes none."""
    if parameters is None:
        return statement
    return placed(statement, parameters, lambda value: sql.quote(value, connection))


def placed(statement: str, parameters: Any, put: Callable[[Any], str]) -> str:
    try:
        return dbapi.placed(statement, parameters, put)
    except dbapi.ProgrammingError as error:
        raise psycopg.ProgrammingError(str(error)) from None


class Column(NamedTuple):
    """One of a description."""

    name: str
    type_code: str
    display_size: None = None
    internal_size: None = None
    precision: None = None
    scale: None = None
    null_ok: None = None


class Cursor(CursorMixin, dbapi.Cursor):  # type: ignore[misc,unused-ignore]
    """Values as psycopg gives them to Django."""

    connection: Connection
    zone: tzinfo = timezone.utc
    has_zones = True

    @property
    def description(self) -> Any:
        found = super().description
        return found and [Column(name, kind) for name, kind, *_ in found]

    def _request(self, statement: Any, parameters: Sequence[Any] | Mapping[str, Any] | None) -> Any:
        if isinstance(statement, sql.Composable):
            statement = statement.as_string(self.connection)
        if parameters is None:
            # A script perhaps, or the name of a savepoint: nothing to remember.
            return {"simple": statement}
        values: list[Any] = []
        places: dict[tuple[Any, str], str] = {}
        is_query = statement.startswith(("SELECT", "(SELECT"))

        def put(value: Any) -> str:
            sent, cast = self.connection.written(value)
            # The same value is the same parameter, so that an expression of SELECT is known again in GROUP BY.
            # Elsewhere a parameter has the type of its column.
            found = places.get((sent, cast)) if is_query else None
            if found is None:
                values.append(sent)
                found = places[sent, cast] = f"${len(values)}{cast}"
            return found

        return [placed(statement, parameters, put), *values]

    def _take(self, rows: Rows) -> None:
        for at, decode in decoders_of(tuple(rows.types), self.zone, self.has_zones):
            for row in rows.lists():
                if row[at] is not None:
                    row[at] = decode(row[at])
        super()._take(rows)


class ServerCursor(Cursor, DbapiServerCursor):  # type: ignore[misc,unused-ignore]
    """The same in pieces."""
