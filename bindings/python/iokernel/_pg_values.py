"""Values of PostgreSQL between Python and MessagePack's ext types 16 to 25; see `pg`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

NUMERIC, DATE, TIME, TIMETZ, TIMESTAMP, TIMESTAMPTZ, INTERVAL, UUID_EXT, RANGE, MULTIRANGE = range(16, 26)

_EMPTY, _LOWER_INCLUSIVE, _UPPER_INCLUSIVE, _LOWER_INFINITE, _UPPER_INFINITE = 1, 2, 4, 8, 16

_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")
_TIMETZ = struct.Struct(">qi")
_INTERVAL = struct.Struct(">iiq")

_EPOCH = datetime(1970, 1, 1)
_EPOCH_UTC = datetime(1970, 1, 1, tzinfo=timezone.utc)
_EPOCH_ORDINAL = _EPOCH.toordinal()
_MICROSECOND = timedelta(microseconds=1)
_DAY = 86_400_000_000
_INT32_ENDS = {2**31 - 1: "infinity", -(2**31): "-infinity"}
_INT64_ENDS = {2**63 - 1: "infinity", -(2**63): "-infinity"}


@dataclass(frozen=True, order=True)
class Interval:
    """Months, days and microseconds, which do not add up: months and days differ in length."""

    months: int = 0
    days: int = 0
    microseconds: int = 0

    def timedelta(self) -> timedelta:
        """The same with days of 24 hours. Raises ValueError if there are months, which have no length."""
        if self.months:
            raise ValueError(f"{self}: expected no months, which have no length")
        return timedelta(days=self.days, microseconds=self.microseconds)


@dataclass(frozen=True)
class Range:
    """From `lower` to `upper`; None is no bound. `bounds` says which of them belong to it: `[]`, `[)`, `(]`, `()`."""

    lower: Any = None
    upper: Any = None
    bounds: str = "[)"
    empty: bool = False

    def __post_init__(self) -> None:
        if self.bounds not in ("[]", "[)", "(]", "()"):
            raise ValueError(f"bounds: {self.bounds!r} given, expected one of [] [) (] ()")
        if self.empty and (self.lower is not None or self.upper is not None):
            raise ValueError("a range that is empty has no bounds")


def _date_text(days: int) -> tuple[str, str]:
    """A day of the proleptic Gregorian calendar, and its era."""
    # A calendar repeats itself after 400 years, which are 146,097 days.
    cycle, rest = divmod(days + _EPOCH_ORDINAL - 1, 146_097)
    day = date.fromordinal(rest + 1)
    year = day.year + 400 * cycle
    return f"{year if year > 0 else 1 - year:04}-{day.month:02}-{day.day:02}", "" if year > 0 else " BC"


def _time_text(us: int) -> str:
    seconds, fraction = divmod(us, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _date(data: bytes) -> date | str:
    (days,) = _INT32.unpack(data)
    try:
        return date.fromordinal(days + _EPOCH_ORDINAL)
    except (ValueError, OverflowError):
        return _INT32_ENDS.get(days) or "".join(_date_text(days))


def _time_of(us: int, zone: timezone | None = None) -> time:
    seconds, fraction = divmod(us, 1_000_000)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, fraction, zone)


def _time(data: bytes) -> time | str:
    (us,) = _INT64.unpack(data)
    return _time_of(us) if us < _DAY else _time_text(us)


def _timetz(data: bytes) -> time | str:
    us, east_s = _TIMETZ.unpack(data)
    if us < _DAY:
        return _time_of(us, timezone(timedelta(seconds=east_s)))
    sign, offset = "-" if east_s < 0 else "+", abs(east_s)
    return f"{_time_text(us)}{sign}{offset // 3600:02}:{offset // 60 % 60:02}:{offset % 60:02}"


def _timestamp(data: bytes, epoch: datetime = _EPOCH, offset: str = "") -> datetime | str:
    (us,) = _INT64.unpack(data)
    try:
        return epoch + timedelta(microseconds=us)
    except OverflowError:
        days, rest = divmod(us, _DAY)
        day, era = _date_text(days)
        return _INT64_ENDS.get(us) or f"{day} {_time_text(rest)}{offset}{era}"


def _timestamptz(data: bytes) -> datetime | str:
    return _timestamp(data, _EPOCH_UTC, "+00")


def _numeric(data: bytes) -> Decimal:
    return Decimal(data.decode())


def _uuid(data: bytes) -> UUID:
    return UUID(bytes=data)


def _interval(data: bytes) -> Interval:
    return Interval(*_INTERVAL.unpack(data))


_DECODERS: dict[int, Callable[[bytes], Any]] = {
    NUMERIC: _numeric,
    DATE: _date,
    TIME: _time,
    TIMETZ: _timetz,
    TIMESTAMP: _timestamp,
    TIMESTAMPTZ: _timestamptz,
    INTERVAL: _interval,
    UUID_EXT: _uuid,
}


def decode(kind: int, data: bytes, unpack: Callable[[bytes], Any]) -> Any:
    """The value of an ext of this kind, which is one of those above."""
    decoder = _DECODERS.get(kind)
    if decoder:
        return decoder(data)
    if kind == MULTIRANGE:
        return unpack(data)
    flags, lower, upper = unpack(data)
    if flags & _EMPTY:
        return Range(empty=True)
    bounds = ("[" if flags & _LOWER_INCLUSIVE else "(") + ("]" if flags & _UPPER_INCLUSIVE else ")")
    return Range(lower, upper, bounds)


def _range(value: Range, pack: Callable[[Any], bytes]) -> bytes:
    flags = _EMPTY if value.empty else 0
    if not value.empty:
        flags |= _LOWER_INFINITE if value.lower is None else _LOWER_INCLUSIVE * (value.bounds[0] == "[")
        flags |= _UPPER_INFINITE if value.upper is None else _UPPER_INCLUSIVE * (value.bounds[1] == "]")
    return pack([flags, value.lower, value.upper])


def encode(value: Any, pack: Callable[[Any], bytes]) -> tuple[int, bytes] | None:
    """The kind and the payload of the ext of a value; None for a value that is for somebody else."""
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            return TIMESTAMP, _INT64.pack((value.replace(tzinfo=None) - _EPOCH) // _MICROSECOND)
        return TIMESTAMPTZ, _INT64.pack((value - _EPOCH_UTC) // _MICROSECOND)
    if isinstance(value, date):
        return DATE, _INT32.pack(value.toordinal() - _EPOCH_ORDINAL)
    if isinstance(value, time):
        us = ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
        offset = value.utcoffset()
        if offset is None:
            return TIME, _INT64.pack(us)
        return TIMETZ, _TIMETZ.pack(us, offset // timedelta(seconds=1))
    if isinstance(value, Decimal):
        return NUMERIC, str(value).encode()
    if isinstance(value, UUID):
        return UUID_EXT, value.bytes
    if isinstance(value, timedelta):
        rest = value - timedelta(days=value.days)
        return INTERVAL, _INTERVAL.pack(0, value.days, rest // _MICROSECOND)
    if isinstance(value, Interval):
        return INTERVAL, _INTERVAL.pack(value.months, value.days, value.microseconds)
    if isinstance(value, Range):
        return RANGE, _range(value, pack)
    return None
