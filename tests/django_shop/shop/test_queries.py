"""What the ORM asks for."""

import datetime
from decimal import Decimal

from django.conf import settings
from django.contrib.postgres.aggregates import ArrayAgg, StringAgg
from django.contrib.postgres.expressions import ArraySubquery
from django.contrib.postgres.search import SearchQuery, SearchRank, SearchVector
from django.db import connection
from django.db.models import (
    Avg,
    Case,
    CharField,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FloatField,
    Max,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import Cast, Coalesce, Concat, ExtractYear, Greatest, Now, Rank, TruncMonth, Upper
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from .models import Customer, Item, Order, Product


def when(day):
    made = datetime.datetime(2024, 1 + day // 28, 1 + day % 28, 12)
    return timezone.make_aware(made) if settings.USE_TZ else made


class QueriesTest(TestCase):
    @classmethod
    def setUpTestData(cls):
        cls.ada, cls.bob = Customer.objects.bulk_create(
            [Customer(name="Ada", email="ada@x.org"), Customer(name="Bob", email="bob@x.org")]
        )
        Product.objects.bulk_create(
            [
                Product(
                    name=f"Product {at:03}",
                    kind="tool" if at % 3 else "fruit",
                    price=Decimal(at) / 4,
                    stock=at,
                    more={"at": at, "odd": bool(at % 2)},
                    tags=[f"t{at % 5}"],
                )
                for at in range(100)
            ]
        )
        cls.products = list(Product.objects.order_by("name"))
        for at in range(10):
            order = Order.objects.create(customer=cls.ada if at % 2 else cls.bob, at=when(at * 5))
            Item.objects.bulk_create(
                Item(order=order, product=one, count=at + 1) for one in cls.products[at * 10 : at * 10 + 3]
            )

    def test_aggregates(self):
        found = Product.objects.aggregate(n=Count("*"), total=Sum("price"), mean=Avg("stock"), most=Max("name"))
        self.assertEqual(found, {"n": 100, "total": Decimal("1237.50"), "mean": 49.5, "most": "Product 099"})
        by_kind = Product.objects.values("kind").annotate(n=Count("id"), names=ArrayAgg("name", order_by="name"))
        by_kind = {one["kind"]: one for one in by_kind.filter(n__gt=33)}
        self.assertEqual((by_kind["fruit"]["n"], by_kind["tool"]["n"]), (34, 66))
        self.assertEqual(by_kind["fruit"]["names"][:2], ["Product 000", "Product 003"])
        self.assertEqual(
            Product.objects.filter(stock__lt=3).aggregate(all=StringAgg("name", ", ", order_by="-name"))["all"],
            "Product 002, Product 001, Product 000",
        )
        filtered = Product.objects.aggregate(
            odd=Count("id", filter=Q(more__odd=True)), none=Sum("stock", filter=Q(pk=0))
        )
        self.assertEqual(filtered, {"odd": 50, "none": None})
        self.assertEqual(Product.objects.aggregate(n=Sum("stock", default=0) + 1)["n"], 4951)

    def test_expressions(self):
        found = (
            Product.objects.annotate(
                label=Case(
                    When(stock__lt=10, then=Value("few")), When(stock__lt=50, then=Value("some")), default=Value("many")
                ),
                number=Case(When(kind="tool", then=1), default=0),
                half=ExpressionWrapper(F("stock") / 2.0, output_field=FloatField()),
                twice=F("stock") * 2 + 1,
                text=Concat("kind", Value(": "), Upper("name"), output_field=CharField()),
                least=Coalesce(F("weight"), Value(1.5)),
                most=Greatest("stock", 50),
                asked=Cast(F("stock"), CharField()),
            )
            .filter(number=1, label="some")
            .order_by("stock")
        )
        one = found.first()
        self.assertEqual((one.stock, one.label, one.number, one.half, one.twice), (10, "some", 1, 5.0, 21))
        self.assertEqual((one.text, one.least, one.most, one.asked), ("tool: PRODUCT 010", 1.5, 50, "10"))
        self.assertEqual(Product.objects.filter(stock__gt=F("price") * 3).count(), 99)
        self.assertEqual(Product.objects.annotate(n=Value(None, output_field=CharField())).first().n, None)

    def test_equal_values_are_equal_expressions(self):
        label = Concat("kind", Value(": "), "name", Value(": "), output_field=CharField())
        found = Product.objects.annotate(label=label).values("label").annotate(n=Count("id")).order_by("label")
        self.assertEqual(found.first(), {"label": "fruit: Product 000: ", "n": 1})
        names = Product.objects.order_by(Coalesce("name", Value(""))).distinct().filter(stock__lt=2)
        self.assertEqual([one.stock for one in names], [0, 1])

    def test_subqueries_and_windows(self):
        last = Order.objects.filter(customer=OuterRef("pk")).order_by("-at")
        found = Customer.objects.annotate(
            last=Subquery(last.values("at")[:1]), ids=ArraySubquery(last.values("id")), some=Exists(last)
        ).order_by("name")
        self.assertEqual(
            [(one.last, len(one.ids), one.some) for one in found], [(when(45), 5, True), (when(40), 5, True)]
        )
        ranked = Product.objects.annotate(rank=Window(Rank(), partition_by="kind", order_by=F("price").desc()))
        self.assertEqual(ranked.filter(rank=1).count(), 2)
        union = (
            Product.objects.filter(stock=1)
            .values_list("name", "stock")
            .union(Customer.objects.values_list("name", Value(7)))
        )
        self.assertEqual(set(union), {("Product 001", 1), ("Ada", 7), ("Bob", 7)})

    def test_joins_and_prefetching(self):
        with CaptureQueriesContext(
            connection,
        ) as asked:
            orders = Order.objects.select_related("customer").prefetch_related("products").order_by("at")
            self.assertEqual(
                [(one.customer.name, len(one.products.all())) for one in orders][:2], [("Bob", 3), ("Ada", 3)]
            )
        self.assertEqual(len(asked), 2)
        self.assertIn("shop_order", asked[0]["sql"])
        spent = Customer.objects.annotate(spent=Sum(F("orders__item__count") * F("orders__item__product__price")))
        self.assertEqual([one.spent for one in spent.order_by("name")], [Decimal("1447.50"), Decimal("1068.75")])
        self.assertEqual(Customer.objects.filter(orders__products__name="Product 010").get(), self.ada)
        distinct = Product.objects.order_by("kind", "-stock").distinct("kind").values_list("stock", flat=True)
        self.assertEqual(list(distinct), [99, 98])

    def test_dates(self):
        months = (
            Order.objects.annotate(month=TruncMonth("at")).values("month").annotate(n=Count("id")).order_by("month")
        )
        self.assertEqual([one["n"] for one in months], [6, 4])
        self.assertEqual(Order.objects.annotate(year=ExtractYear("at")).values_list("year").distinct().get(), (2024,))
        self.assertEqual(len(Order.objects.dates("at", "month")), 2)
        soon = Order.objects.annotate(gone=Now() - F("at"), later=F("at") + datetime.timedelta(days=1)).earliest("at")
        self.assertGreater(soon.gone, datetime.timedelta(days=1))
        self.assertEqual(soon.later, when(0) + datetime.timedelta(days=1))

    def test_search(self):
        found = Product.objects.annotate(
            rank=SearchRank(SearchVector("name", config="english"), SearchQuery("product 042", config="english"))
        ).order_by("-rank")
        self.assertEqual(found.first().name, "Product 042")

    def test_many_at_once(self):
        made = Product.objects.bulk_create(
            [Product(name=f"Bulk {at}", facts={"a": str(at)}) for at in range(1500)], 400
        )
        self.assertTrue(all(one.pk for one in made))
        for one in made:
            one.stock, one.price = 5, Decimal("1.25")
        self.assertEqual(Product.objects.bulk_update(made, ["stock", "price"], batch_size=500), 1500)
        self.assertEqual(Product.objects.filter(name__startswith="Bulk", stock=5, price=1.25).count(), 1500)
        Customer.objects.bulk_create([Customer(name="Zed", email="ada@x.org")], ignore_conflicts=True)
        self.assertEqual(Customer.objects.get(email="ada@x.org").name, "Ada")
        Customer.objects.bulk_create(
            [Customer(name="Ada L.", email="ada@x.org")],
            update_conflicts=True,
            unique_fields=["email"],
            update_fields=["name"],
        )
        self.assertEqual(Customer.objects.get(email="ada@x.org").name, "Ada L.")
        self.assertEqual(Product.objects.filter(name__startswith="Bulk").delete()[0], 1500)
        self.assertEqual(
            Product.objects.in_bulk([made[0].pk, self.products[0].pk]), {self.products[0].pk: self.products[0]}
        )

    def test_get_or_create_and_the_rest(self):
        self.assertFalse(Customer.objects.get_or_create(email="ada@x.org")[1])
        made, is_new = Customer.objects.update_or_create(email="c@x.org", defaults={"name": "Cy"})
        self.assertTrue(is_new)
        made.name = "Cyd"
        made.save()
        self.assertEqual(Customer.objects.filter(pk=made.pk).update(born=datetime.date(1990, 1, 1)), 1)
        made.delete()
        self.assertEqual(Customer.objects.filter(email="c@x.org").exists(), False)
        self.assertEqual(Customer.objects.filter(name__in=[]).count(), 0)
        with self.assertRaises(Customer.DoesNotExist):
            Customer.objects.get(pk=-1)
        product = self.products[0]
        product.related.add(*self.products[1:4])
        self.assertEqual(product.related.count(), 3)
        self.assertIn("Scan", Product.objects.filter(pk=1).explain())
        self.assertEqual(str(Product.objects.filter(stock=1, name="a'b").query).count("a'b"), 1)
