"""Values come back as they were stored, and are found."""

import datetime
import uuid
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.conf import settings
from django.db.backends.postgresql.psycopg_any import DateTimeTZRange, NumericRange
from django.test import TestCase
from django.utils import timezone

from .models import Kind, Product, Size

UTC = datetime.UTC


def moment(day):
    made = datetime.datetime(2024, 2, day, 23, 30, 15, 123456)
    return made.replace(tzinfo=UTC) if settings.USE_TZ else made


GIVEN = {
    "key": uuid.UUID(int=7),
    "name": "Pear 100% 'ü' \\ \"x\"",
    "words": "much",
    "slug": "pear",
    "kind": Kind.TOOL,
    "size": Size.LARGE,
    "price": Decimal("12.50"),
    "weight": 0.1,
    "stock": 2**31 - 1,
    "sold": -(2**63),
    "on_sale": True,
    "made": moment(29),
    "day": datetime.date(2024, 2, 29),
    "hour": datetime.time(23, 59, 59, 999999),
    "takes": datetime.timedelta(days=-3, seconds=5, microseconds=7),
    "picture": b"\0\xff\\",
    "address": "2001:db8::1",
    "more": {"a": [1, None, {"b": "50%"}], "n": 2.5, "s": "text"},
    "tags": ["x", 'y "z"', "NULL", ""],
    "grid": [[1, None], [3, 4]],
    "moments": [moment(1), moment(2)],
    "years": NumericRange(1815, 1853),
    "prices": NumericRange(Decimal("1.5"), None, "[)"),
    "sold_during": DateTimeTZRange(moment(3), moment(4), "[)"),
    "facts": {"color": "green", "none": None, 'qu"ote': "a=>b"},
}


class FieldsTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.made = Product.objects.create(**GIVEN)
        Product.objects.create(name="Other")

    def test_each_comes_back(self):
        found = Product.objects.get(pk=self.made.pk)
        for name, value in GIVEN.items():
            with self.subTest(name):
                back = getattr(found, name)
                back = bytes(back) if name == "picture" else back
                self.assertEqual(back, value)
        other = Product.objects.get(name="Other")
        self.assertEqual((other.weight, other.picture, other.facts, other.tags, other.more), (None, None, None, [], {}))
        if settings.USE_TZ:
            self.assertEqual(found.made.tzinfo, UTC)
            self.assertEqual(found.moments[0].tzinfo, UTC)
            self.assertEqual(found.sold_during.lower.tzinfo, UTC)
        else:
            self.assertIsNone(found.made.tzinfo)

    def test_each_is_found(self):
        for name, value in GIVEN.items():
            with self.subTest(name):
                self.assertEqual(Product.objects.get(**{name: value}).pk, self.made.pk)
                self.assertEqual(Product.objects.filter(**{name: value}).values_list(name, flat=True).count(), 1)

    def test_each_is_updated(self):
        other = Product.objects.get(name="Other")
        for name, value in GIVEN.items():
            if name in ("key", "name"):
                continue
            with self.subTest(name):
                self.assertEqual(Product.objects.filter(pk=other.pk).update(**{name: value}), 1)
                other.refresh_from_db(fields=[name])
                back = getattr(other, name)
                self.assertEqual(bytes(back) if name == "picture" else back, value)

    def test_lookups(self):
        for lookup in (
            {"name__icontains": "PEAR 100%"},
            {"name__startswith": "Pear 100% '"},
            {"name__iendswith": '"X"'},
            {"name__regex": r"^P.*r \d+"},
            {"name__in": ["Pear 100% 'ü' \\ \"x\"", "nothing"]},
            {"size__in": [2, 3]},
            {"price__range": (12, Decimal("12.5"))},
            {"price__gt": 12.4},
            {"stock__gte": 2**31 - 1},
            {"sold__lt": -(2**62)},
            {"made__year": 2024},
            {"made__date": datetime.date(2024, 3, 1) if settings.USE_TZ else datetime.date(2024, 2, 29)},
            {"day__month": 2},
            {"day__week_day": 5},
            {"hour__hour": 23},
            {"takes__lt": datetime.timedelta(0)},
            {"address": "2001:DB8:0::1"},
            {"address__startswith": "2001"},
            {"more__a__0": 1},
            {"more__a__2__b": "50%"},
            {"more__s": "text"},
            {"more__n__gt": 2},
            {"more__has_key": "n"},
            {"more__has_any_keys": ["zz", "n"]},
            {"more__contains": {"s": "text"}},
            {"more__contained_by": GIVEN["more"], "size": 2},
            {"tags__contains": ["x"]},
            {"tags__overlap": ["q", ""]},
            {"tags__len": 4},
            {"tags__0": "x"},
            {"tags__1__startswith": "y"},
            {"grid__0__0": 1},
            {"moments__contains": [moment(2)]},
            {"years__contains": 1840},
            {"years__overlap": NumericRange(1850, 1900)},
            {"years__startswith": 1815},
            {"prices__upper_inf": True},
            {"sold_during__contains": moment(3)},
            {"facts__color": "green"},
            {"facts__contains": {"color": "green"}},
            {"facts__has_keys": ["color", "none"]},
        ):
            with self.subTest(lookup):
                self.assertEqual([one.pk for one in Product.objects.filter(**lookup)], [self.made.pk])

    def test_of_no_use_or_too_large(self):
        from django.db import DataError, IntegrityError, transaction

        for wrong, error in (
            ({"price": -1}, IntegrityError),
            ({"name": "OTHER"}, IntegrityError),
            ({"name": None}, IntegrityError),
            ({"slug": "x" * 51}, DataError),
            ({"price": Decimal(10**9)}, DataError),
            ({"words": "a\0b"}, DataError),
            ({"stock": 2**31}, DataError),
        ):
            with self.subTest(wrong), self.assertRaises(error), transaction.atomic():
                Product.objects.create(**{"name": "wrong", **wrong})

    def test_zones(self):
        if settings.USE_TZ:
            there = ZoneInfo("America/New_York")
            with timezone.override(there):
                self.assertEqual(Product.objects.get(made__hour=18).pk, self.made.pk)
                (day,) = Product.objects.datetimes("made", "day")
                self.assertEqual(day, datetime.datetime(2024, 2, 29, tzinfo=there))
