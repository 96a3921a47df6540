"""Python's values as PostgreSQL's text, and rows of them as COPY has them; see `pg`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import islice
from typing import Any
from uuid import UUID

from ._errors import BadRequest
from ._native import accelerator
from ._pg_values import Interval, Range

copy_lines: Any = getattr(accelerator, "copy_lines", None)
"""The same in C, where there is the accelerator."""
PART_BYTES = 64 << 10
"""About as much text as is made at once."""
ROWS_MAX = 4096
"""At most so many rows at once, however small they are."""

_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})
_QUOTED = re.compile(r'(["\\])')


def _timedelta(value: timedelta) -> str:
    rest = value - timedelta(days=value.days)
    return f"{value.days} days {rest // timedelta(microseconds=1)} us"


def _range(value: Range) -> str:
    if value.empty:
        return "empty"
    lower, upper = ("" if bound is None else _quoted(bound) for bound in (value.lower, value.upper))
    return f"{value.bounds[0]}{lower},{upper}{value.bounds[1]}"


def _array(values: Sequence[Any]) -> str:
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    return _array(value) if isinstance(value, (list, tuple)) else _quoted(value)


def _quoted(value: Any) -> str:
    return '"' + _QUOTED.sub(r"\\\1", text_of(value)) + '"'


_PLAIN: dict[type, Callable[[Any], str]] = {
    int: int.__repr__,  # Not str: that of an enum is its name.
    float: float.__repr__,
    bool: str,
    Decimal: str,
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    UUID: str,
    timedelta: _timedelta,
    Interval: lambda value: f"{value.months} mons {value.days} days {value.microseconds} us",
}
"""Types whose text has nothing that COPY would have to escape."""

_TEXTS: dict[type, Callable[[Any], str]] = {
    **_PLAIN,
    str: str.__str__,
    bytes: lambda value: rf"\x{value.hex()}",
    bytearray: lambda value: rf"\x{value.hex()}",
    memoryview: lambda value: rf"\x{value.hex()}",
    Range: _range,
    list: _array,
    tuple: _array,
}


def text_of(value: Any) -> str:
    """A value, which is not None, as PostgreSQL reads it. Lists are arrays."""
    write = _TEXTS.get(type(value))
    if write is not None:
        return write(value)
    for kind, write in _TEXTS.items():
        if isinstance(value, kind):
            return write(value)
    raise _wrong(f"{type(value).__name__}: expected a type that has one of PostgreSQL's, or str")


def _wrong(text: str) -> BadRequest:
    return BadRequest(f"rows: {text}", code="BADREQUEST", status=-107, fate="maybe_executed")


def _field(value: Any) -> str:
    return r"\N" if value is None else text_of(value).translate(_ESCAPES)


def _column(values: tuple[Any, ...]) -> Iterable[str]:
    """The fields of one column."""
    kinds = set(map(type, values))
    if len(kinds) == 1:
        (kind,) = kinds
        if kind is str and not _SPECIAL.search("".join(values)):
            return values
        plain = _PLAIN.get(kind)
        if plain is not None:
            return map(plain, values)
    return map(_field, values)


def _lines(rows: list[Sequence[Any]]) -> bytes:
    widths = set(map(len, rows))
    if len(widths) > 1:
        raise _wrong(f"of {' and '.join(map(str, sorted(widths)))} values: expected as many in each")
    if copy_lines is not None:
        made: bytes = copy_lines(rows, _field)
        return made
    return _by_columns(rows)


def _by_columns(rows: list[Sequence[Any]]) -> bytes:
    """Column by column, as most columns have values of one type."""
    if not rows[0]:
        return b"\n" * len(rows)
    columns = map(_column, zip(*rows))
    return ("\n".join(map("\t".join, zip(*columns))) + "\n").encode()


class _Parts:
    """How many rows are written at once: about as many as PART_BYTES take."""

    def __init__(self) -> None:
        self.count = 64

    def text(self, rows: list[Sequence[Any]]) -> bytes:
        made = _lines(rows)
        self.count = max(1, min(len(rows) * PART_BYTES // len(made), ROWS_MAX))
        return made


def copied(rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Rows as the text that COPY reads, in pieces."""
    parts, left = _Parts(), iter(rows)
    while some := list(islice(left, parts.count)):
        yield parts.text(some)


async def copied_async(rows: AsyncIterable[Sequence[Any]]) -> AsyncIterator[bytes]:
    """The same of rows that come as they like."""
    parts = _Parts()
    some: list[Sequence[Any]] = []
    async for row in rows:
        some.append(row)
        if len(some) >= parts.count:
            yield parts.text(some)
            some = []
    if some:
        yield parts.text(some)
