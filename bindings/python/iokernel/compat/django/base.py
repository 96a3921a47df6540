"""The backend: where Django looks for its `DatabaseWrapper`."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from django.conf import settings  # type: ignore[import-untyped,unused-ignore]
from django.core.exceptions import ImproperlyConfigured  # type: ignore[import-untyped,unused-ignore]
from django.db.backends.postgresql import base, features, introspection, operations  # type: ignore[import-untyped,unused-ignore]
from django.db.backends.postgresql.psycopg_any import (  # type: ignore[import-untyped,unused-ignore]
    IsolationLevel,
    get_adapters_template,
    is_psycopg3,
)
from django.utils.asyncio import async_unsafe  # type: ignore[import-untyped,unused-ignore]

from .. import dbapi
from .._server_cursor import spare_name
from .connection import Connection, Cursor, ServerCursor, composed

if not is_psycopg3:
    raise ImproperlyConfigured("iokernel.compat.django: psycopg 3 is not installed, whose values Django uses")

NOT_OURS = frozenset(
    ("client_encoding", "context", "cursor_factory", "prepare_threshold", "dbname", "user", "password", "host", "port")
)
"""What Django tells psycopg, and is no option of an endpoint."""


class DatabaseFeatures(features.DatabaseFeatures):  # type: ignore[misc,unused-ignore]
    uses_server_side_binding = True
    django_test_expected_failures = ()


class DatabaseOperations(operations.DatabaseOperations):  # type: ignore[misc,unused-ignore]
    def compose_sql(self, sql: str, params: Any) -> str:
        with self.connection.cursor() as cursor:
            return composed(cursor.connection, sql, params)


class DatabaseIntrospection(introspection.DatabaseIntrospection):  # type: ignore[misc,unused-ignore]
    def get_table_description(self, cursor: Any, table_name: str) -> Any:
        """Descriptions of columns come without lengths and precisions: those are in the catalog."""
        found = super().get_table_description(cursor, table_name)
        cursor.execute(
            """
            SELECT attname, atttypid::int8, CASE WHEN attlen > 0 THEN attlen END, atttypmod - 4, typname
            FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
            WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
            """,
            [self.connection.ops.quote_name(table_name)],
        )
        columns = {name: rest for name, *rest in cursor.fetchall()}
        return [described(line, *columns[line.name]) for line in found]


def described(line: Any, oid: int, length: int | None, modifier: int, kind: str) -> Any:
    has_length = kind in ("varchar", "bpchar") and modifier >= 0
    has_precision = kind == "numeric" and modifier >= 0
    return line._replace(
        type_code=oid,
        display_size=modifier if has_length else length,
        internal_size=length,
        precision=modifier >> 16 if has_precision else None,
        scale=modifier & 0xFFFF if has_precision else None,
    )


class DatabaseWrapper(base.DatabaseWrapper):  # type: ignore[misc,unused-ignore]
    features_class = DatabaseFeatures
    introspection_class = DatabaseIntrospection
    ops_class = DatabaseOperations

    def get_connection_params(self) -> dict[str, Any]:
        given = super().get_connection_params()
        if self.settings_dict["OPTIONS"].get("pool"):
            raise ImproperlyConfigured("OPTIONS: pool: expected none, as the endpoint keeps connections")
        options = {name: value for name, value in given.items() if name not in NOT_OURS}
        # Of the startup packet, so that a session that is given back and taken again has them.
        told = [options.get("options", ""), f"-c TimeZone={self.timezone_name}"]
        if level := self.isolation_level_name():
            told.append(f"-c default_transaction_isolation={level}")
        options["options"] = " ".join(filter(None, told))
        return {"url": self.url_of(given, options)}

    def url_of(self, given: dict[str, Any], options: dict[str, Any]) -> str:
        words = {name: str(value).lower() if isinstance(value, bool) else value for name, value in options.items()}
        login = given.get("user"), given.get("password"), given.get("host"), given.get("port")
        return dbapi.address(*login, given.get("dbname"), words)

    def isolation_level_name(self) -> str | None:
        given = self.settings_dict["OPTIONS"].get("isolation_level")
        if given is None:
            self.isolation_level = IsolationLevel.READ_COMMITTED
            return None
        try:
            self.isolation_level = IsolationLevel(given)
        except ValueError:
            raise ImproperlyConfigured(
                f"Invalid transaction isolation level {given} specified. Use one of the psycopg.IsolationLevel values."
            ) from None
        return str(self.isolation_level.name.lower().replace("_", r"\ "))

    @async_unsafe  # type: ignore[untyped-decorator,unused-ignore]
    def get_new_connection(self, conn_params: dict[str, Any]) -> Connection:
        made = Connection._at(conn_params["url"], True, {})
        made.adapt(get_adapters_template(settings.USE_TZ, self.timezone))
        made.timezone_name = self.timezone_name
        made.isolation_level = self.isolation_level if "isolation_level" in self.settings_dict["OPTIONS"] else None
        return made

    @property
    def pool(self) -> None:
        """The kernel keeps connections; Django has no pool to care for."""
        return

    def close_pool(self) -> None:
        """Closes what is connected to this database, which is to be copied or dropped."""
        dbapi.close_all(self.get_connection_params()["url"])

    def ensure_timezone(self) -> bool:
        return self.connection is not None and self._configure_timezone(self.connection)

    def _configure_timezone(self, connection: Connection) -> bool:
        if connection.timezone_name == self.timezone_name:
            return False
        with connection.cursor() as cursor:
            cursor.execute(self.ops.set_time_zone_sql(), [self.timezone_name])
        connection.timezone_name = self.timezone_name
        return True

    @async_unsafe  # type: ignore[untyped-decorator,unused-ignore]
    def create_cursor(self, name: str | None = None) -> Cursor:
        # In autocommit mode a cursor of the server is used outside of transactions.
        made: Any = (
            ServerCursor(self.connection, name, withhold=self.connection.autocommit)
            if name
            else Cursor(self.connection)
        )
        made.zone = self.timezone or ZoneInfo(self.timezone_name)
        made.has_zones = settings.USE_TZ
        return made  # type: ignore[no-any-return]

    @async_unsafe  # type: ignore[untyped-decorator,unused-ignore]
    def chunked_cursor(self) -> Any:
        self.ensure_connection()
        return self._cursor(name=spare_name(self.connection, "_django_curs_"))
