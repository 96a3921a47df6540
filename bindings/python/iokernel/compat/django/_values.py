"""What Django expects of the values of columns that differ from the kernel's."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache, partial
from struct import pack
from typing import Any

from psycopg.types.hstore import HstoreLoader
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from ... import pg

Decode = Callable[[Any], Any]
MULTIRANGES = frozenset(
    ("int4multirange", "int8multirange", "nummultirange", "tsmultirange", "tstzmultirange", "datemultirange")
)


@lru_cache(256)
def decoders_of(types: tuple[str, ...], zone: tzinfo, has_zones: bool) -> list[tuple[int, Decode]]:
    """For those columns of these types whose values differ: the position, and what makes Django's value of ours."""
    found = ((at, decoder_of(kind, zone, has_zones)) for at, kind in enumerate(types))
    return [(at, decode) for at, decode in found if decode is not None]


def decoder_of(kind: str, zone: tzinfo, has_zones: bool) -> Decode | None:
    """`kind` is a name of pg_type, where that of an array begins with `_`."""
    if kind.startswith("_"):
        element = decoder_of(kind[1:], zone, has_zones)
        return element and partial(in_lists, element)
    if kind == "timestamptz":
        return partial(moment, zone, has_zones)
    if kind.endswith("range"):
        bound = partial(moment, zone, has_zones) if kind == "tstzrange" else None
        return partial(range_of, bound) if kind not in MULTIRANGES else None
    if kind in MULTIRANGES:
        bound = partial(moment, zone, has_zones) if kind == "tstzmultirange" else None
        return lambda value: Multirange(map(partial(range_of, bound), value))
    others: dict[str, Decode] = {"interval": interval, "json": json.loads, "hstore": hstore, "float4": single}
    return others.get(kind)


def in_lists(decode: Decode, value: Any) -> Any:
    if isinstance(value, list):
        return [in_lists(decode, one) for one in value]
    return None if value is None else decode(value)


def moment(zone: tzinfo, has_zones: bool, value: Any) -> Any:
    """Of the zone; without one where Django works without zones. Infinities stay what they are."""
    if not isinstance(value, datetime):
        return value
    there = value.astimezone(zone)
    return there if has_zones else there.replace(tzinfo=None)


def interval(value: pg.Interval) -> timedelta:
    """A year is 365 days and a month 30, as psycopg has them."""
    years, months = divmod(abs(value.months), 12)
    days = (365 * years + 30 * months) * (-1 if value.months < 0 else 1)
    return timedelta(days=days + value.days, microseconds=value.microseconds)


def single(value: float) -> float:
    """The shortest number that is the same in single precision, as PostgreSQL's text has it."""
    for digits in range(6, 9):
        short = float(f"{value:.{digits}g}")
        if pack("f", short) == pack("f", value):
            return short
    return value


def range_of(bound: Decode | None, value: Any) -> Any:
    if not isinstance(value, pg.Range):
        return value
    if value.empty:
        return Range(empty=True)
    lower, upper = (one if bound is None or one is None else bound(one) for one in (value.lower, value.upper))
    return Range(lower, upper, value.bounds)


def hstore(value: str) -> dict[str, str | None]:
    return HstoreLoader(0).load(value.encode())
