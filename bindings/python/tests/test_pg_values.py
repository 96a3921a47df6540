"""Values of PostgreSQL on their way to MessagePack and back."""

import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack
import pytest
from iokernel._values import pack, unpack
from iokernel.pg import Interval, Range


def received(kind: int, form: str, *numbers: int) -> Any:
    return unpack(msgpack.packb(msgpack.ExtType(kind, struct.pack(form, *numbers))))


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1.50"),
        Decimal("-Infinity"),
        date(1, 1, 1),
        date(9999, 12, 31),
        time(1, 2, 3, 4),
        time(1, 2, 3, 4, timezone(timedelta(hours=-3, minutes=-30))),
        datetime(2024, 2, 29, 1, 2, 3, 999999),
        datetime(2024, 2, 29, tzinfo=UTC),
        Interval(1, -2, 3),
        UUID(int=5),
        Range(1, 5),
        Range(None, Decimal("1.5"), "(]"),
        Range(empty=True),
        [Range(1, 2), None],
        [date(2000, 1, 1), [1, "a"]],
    ],
    ids=repr,
)
def test_what_is_packed_comes_back(value: Any) -> None:
    back = unpack(pack(value))
    assert back == value
    assert type(back) is type(value)
    assert str(back) == str(value)


def test_times_in_any_zone_are_utc() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    back = unpack(pack(datetime(2024, 1, 1, 5, 30, tzinfo=east)))
    assert back == datetime(2024, 1, 1, tzinfo=UTC)
    assert back.utcoffset() == timedelta(0)


def test_a_timedelta_is_an_interval() -> None:
    assert unpack(pack(timedelta(days=-1, microseconds=5))) == Interval(0, -1, 5)
    assert Interval(0, 1, 5).timedelta() == timedelta(days=1, microseconds=5)
    with pytest.raises(ValueError, match="no months"):
        Interval(1).timedelta()


@pytest.mark.parametrize(
    ("kind", "form", "numbers", "text"),
    [
        (17, ">i", [2**31 - 1], "infinity"),
        (17, ">i", [-(2**31)], "-infinity"),
        (17, ">i", [-719163], "0001-12-31 BC"),
        (17, ">i", [-735160], "0044-03-15 BC"),
        (17, ">i", [2932897], "10000-01-01"),
        (17, ">i", [2145042905], "5874897-12-31"),
        (18, ">q", [86_400_000_000], "24:00:00"),
        (19, ">qi", [86_400_000_000, -12_600], "24:00:00-03:30:00"),
        (20, ">q", [2**63 - 1], "infinity"),
        (20, ">q", [2**63 - 2], "294247-01-10 04:00:54.775806"),
        (21, ">q", [-(2**63)], "-infinity"),
        (21, ">q", [-62135596800000001], "0001-12-31 23:59:59.999999+00 BC"),
    ],
)
def test_what_python_cannot_hold_is_text(kind: int, form: str, numbers: list[int], text: str) -> None:
    assert received(kind, form, *numbers) == text


def test_a_multirange_is_a_list() -> None:
    inner = pack(Range(1, 5))
    assert unpack(msgpack.packb(msgpack.ExtType(25, b"\x91" + inner))) == [Range(1, 5)]


def test_bounds_are_judged() -> None:
    with pytest.raises(ValueError, match="expected one of"):
        Range(1, 2, "x")
    with pytest.raises(ValueError, match="no bounds"):
        Range(1, empty=True)
