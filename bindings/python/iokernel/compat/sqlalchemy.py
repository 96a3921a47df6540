"""SQLAlchemy over iokernel: `create_engine("postgresql+iokernel://app@db.internal/shop")`; `create_async_engine` of the
same URL for asyncio.

The URL's query has options of the endpoint (`?sslmode=verify-full`). SQLAlchemy's pool decides how many sessions there
are; each is a lease, and its conn is made, kept and watched in the I/O thread. Types are told by casts, as the server
infers those of parameters (SQLAlchemy: `render_bind_cast`).
"""

from __future__ import annotations

import importlib
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import types, util
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql import base, json, ranges
from sqlalchemy.dialects.postgresql.array import ARRAY
from sqlalchemy.dialects.postgresql.types import BIT, OID, REGCLASS

from ..pg import Interval, Range
from ._server_cursor import spare_name


class _String(types.String):
    render_bind_cast = True


class _Integer(types.Integer):
    render_bind_cast = True


class _SmallInteger(types.SmallInteger):
    render_bind_cast = True


class _BigInteger(types.BigInteger):
    render_bind_cast = True


class _Boolean(types.Boolean):
    render_bind_cast = True


class _Date(types.Date):
    render_bind_cast = True

    def bind_processor(self, dialect: Any) -> Any:
        return lambda value: value.date() if isinstance(value, datetime) else value


class _Time(types.Time):
    render_bind_cast = True


class _DateTime(types.DateTime):
    render_bind_cast = True


class _LargeBinary(types.LargeBinary):
    render_bind_cast = True

    def bind_processor(self, dialect: Any) -> Any:
        return None


class _Number:
    """numeric is Decimal and float8 is float already; the other is wanted now and then."""

    render_bind_cast = True
    asdecimal: bool

    def bind_processor(self, dialect: Any) -> Any:
        return None

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        if not self.asdecimal:
            return lambda value: None if value is None else float(value)
        if coltype in ("float4", "float8"):
            text = f"%.{self._effective_decimal_return_scale}f"  # type: ignore[attr-defined]
            return lambda value: None if value is None else Decimal(text % value)
        return lambda value: Decimal(value) if isinstance(value, int) else value


class _Numeric(_Number, types.Numeric):  # type: ignore[type-arg,misc,unused-ignore]
    pass


class _Float(_Number, types.Float):  # type: ignore[type-arg,misc,unused-ignore]
    pass


class _Interval(base.INTERVAL):
    render_bind_cast = True

    @classmethod
    def adapt_emulated_to_native(cls, interval: Any, **kw: Any) -> _Interval:  # type: ignore[override,unused-ignore]
        return _Interval(precision=interval.second_precision)

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return lambda value: value.timedelta() if isinstance(value, Interval) and not value.months else value


class _Enum(base.ENUM):
    render_bind_cast = True


class _Array(ARRAY):  # type: ignore[type-arg,unused-ignore]
    render_bind_cast = True


class _Bit(BIT):
    render_bind_cast = True


class _Oid(OID):
    render_bind_cast = True


class _Regclass(REGCLASS):
    render_bind_cast = True


class _Json(json.JSON):
    render_bind_cast = True


class _Jsonb(json.JSONB):
    render_bind_cast = True


class _JsonIntIndex(types.JSON.JSONIntIndexType):
    __visit_name__ = "json_int_index"
    render_bind_cast = True


class _JsonStrIndex(types.JSON.JSONStrIndexType):
    __visit_name__ = "json_str_index"
    render_bind_cast = True


def _to_range(value: Any) -> Any:
    return Range(value.lower, value.upper, value.bounds, value.empty) if isinstance(value, ranges.Range) else value


def _from_range(value: Any) -> Any:
    if not isinstance(value, Range):
        return value
    return ranges.Range(value.lower, value.upper, bounds=value.bounds, empty=value.empty)  # type: ignore[arg-type,unused-ignore]


class _SingleRange(ranges.AbstractSingleRangeImpl[Any]):
    render_bind_cast = True

    def bind_processor(self, dialect: Any) -> Any:
        return _to_range

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return _from_range


class _MultiRange(ranges.AbstractMultiRangeImpl[Any]):
    render_bind_cast = True

    def bind_processor(self, dialect: Any) -> Any:
        return lambda value: [_to_range(one) for one in value] if isinstance(value, (list, tuple)) else value

    def result_processor(self, dialect: Any, coltype: Any) -> Any:
        return lambda value: None if value is None else ranges.MultiRange(map(_from_range, value))


class _ExecutionContext(base.PGExecutionContext):
    def create_server_side_cursor(self) -> Any:
        connection: Any = self._dbapi_connection
        return connection.cursor(spare_name(connection))


class IokernelDialect(base.PGDialect):
    """PostgreSQL's dialect over `iokernel.compat.dbapi`."""

    driver = "iokernel"
    supports_statement_cache = True
    supports_server_side_cursors = True
    execution_ctx_cls = _ExecutionContext
    default_paramstyle = "pyformat"
    supports_sane_multi_rowcount = True
    supports_native_json_deserialization = False

    colspecs = util.update_copy(
        base.PGDialect.colspecs,
        {
            types.String: _String,
            types.Integer: _Integer,
            types.SmallInteger: _SmallInteger,
            types.BigInteger: _BigInteger,
            types.Boolean: _Boolean,
            types.Date: _Date,
            types.Time: _Time,
            types.DateTime: _DateTime,
            types.LargeBinary: _LargeBinary,
            types.Numeric: _Numeric,
            types.Float: _Float,
            types.Interval: _Interval,
            base.INTERVAL: _Interval,
            types.Enum: _Enum,
            types.ARRAY: _Array,
            BIT: _Bit,
            OID: _Oid,
            REGCLASS: _Regclass,
            types.JSON: _Json,
            json.JSONB: _Jsonb,
            types.JSON.JSONIntIndexType: _JsonIntIndex,
            types.JSON.JSONStrIndexType: _JsonStrIndex,
            ranges.AbstractSingleRange: _SingleRange,
            ranges.AbstractMultiRange: _MultiRange,
        },
    )

    @classmethod
    def import_dbapi(cls) -> Any:
        from . import dbapi

        return dbapi

    @classmethod
    def get_async_dialect_cls(cls, url: Any) -> type[IokernelAsyncDialect]:
        return IokernelAsyncDialect

    @classmethod
    def load_provisioning(cls) -> None:
        """What SQLAlchemy's own tests want to know of a database."""
        importlib.import_module("sqlalchemy.dialects.postgresql.provision")

    def create_connect_args(self, url: Any) -> Any:
        """The endpoint's URL."""
        from . import dbapi

        password = None if url.password is None else str(url.password)
        return [dbapi.address(url.username, password, url.host, url.port, url.database, url.query)], {}

    def is_disconnect(self, error: Any, connection: Any, cursor: Any) -> bool:
        """The conn is gone, or the server sends everyone away (SQLSTATE 57P)."""
        from .dbapi import OperationalError

        state = getattr(error, "sqlstate", None)
        return isinstance(error, OperationalError) and (state is None or state[:3] in ("57P", "080"))

    def get_isolation_level_values(self, dbapi_connection: Any) -> Any:
        return ("AUTOCOMMIT", "READ COMMITTED", "READ UNCOMMITTED", "REPEATABLE READ", "SERIALIZABLE")

    def set_isolation_level(self, dbapi_connection: Any, level: Any) -> None:
        dbapi_connection.autocommit = level == "AUTOCOMMIT"
        if level != "AUTOCOMMIT":
            self._set(dbapi_connection, f"ISOLATION LEVEL {level.replace('_', ' ')}")

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        return bool(dbapi_conn.autocommit)

    def set_readonly(self, connection: Any, value: Any) -> None:
        self._set(connection, "READ ONLY" if value else "READ WRITE")

    def get_readonly(self, connection: Any) -> bool:
        return self._is_on(connection, "transaction_read_only")

    def set_deferrable(self, connection: Any, value: Any) -> None:
        self._set(connection, "DEFERRABLE" if value else "NOT DEFERRABLE")

    def get_deferrable(self, connection: Any) -> bool:
        return self._is_on(connection, "transaction_deferrable")

    def _set(self, connection: Any, what: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION {what}")
        connection.commit()

    def _is_on(self, connection: Any, what: str) -> bool:
        with connection.cursor() as cursor:
            return bool(cursor.execute(f"SHOW {what}").fetchone() == ("on",))


class IokernelAsyncDialect(IokernelDialect):
    """The same for `create_async_engine`."""

    is_async = True
    supports_statement_cache = True
    has_terminate = True

    @classmethod
    def import_dbapi(cls) -> Any:
        from . import _sqlalchemy_asyncio

        return _sqlalchemy_asyncio

    def do_terminate(self, dbapi_connection: Any) -> None:
        dbapi_connection.terminate()

    def get_driver_connection(self, connection: Any) -> Any:
        """The lease: `await lease("select ...")`."""
        return connection.driver_connection


dialect = IokernelDialect
registry.register("postgresql.iokernel", __name__, "IokernelDialect")
registry.register("postgresql.iokernel_async", __name__, "IokernelAsyncDialect")
