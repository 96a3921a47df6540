"""One field of each kind that Django has, and some of PostgreSQL's."""

# ruff: noqa: RUF012 - attributes of Django's classes

import uuid

from django.contrib.postgres.fields import (
    ArrayField,
    DateTimeRangeField,
    DecimalRangeField,
    HStoreField,
    IntegerRangeField,
)
from django.db import models
from django.db.models.functions import Lower


class Customer(models.Model):
    name = models.CharField(max_length=50)
    email = models.EmailField(unique=True)
    born = models.DateField(null=True)
    since = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return self.name


class Kind(models.TextChoices):
    FRUIT = "fruit", "Fruit"
    TOOL = "tool", "Tool"


class Size(models.IntegerChoices):
    SMALL = 1
    LARGE = 2


class Product(models.Model):
    key = models.UUIDField(default=uuid.uuid4, unique=True)
    name = models.CharField(max_length=100)
    words = models.TextField(default="")
    slug = models.SlugField(default="")
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.FRUIT)
    size = models.SmallIntegerField(choices=Size.choices, default=Size.SMALL)
    price = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    weight = models.FloatField(null=True)
    stock = models.PositiveIntegerField(default=0)
    sold = models.BigIntegerField(default=0)
    on_sale = models.BooleanField(default=False)
    made = models.DateTimeField(null=True)
    day = models.DateField(null=True)
    hour = models.TimeField(null=True)
    takes = models.DurationField(null=True)
    picture = models.BinaryField(null=True)
    address = models.GenericIPAddressField(null=True)
    more = models.JSONField(default=dict)
    tags = ArrayField(models.CharField(max_length=20), default=list)
    grid = ArrayField(ArrayField(models.IntegerField(null=True)), null=True)
    moments = ArrayField(models.DateTimeField(), null=True)
    years = IntegerRangeField(null=True)
    prices = DecimalRangeField(null=True)
    sold_during = DateTimeRangeField(null=True)
    facts = HStoreField(null=True)
    related = models.ManyToManyField("self")

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(price__gte=0), name="price_is_not_negative"),
            models.UniqueConstraint(Lower("name"), name="name_is_unique"),
        ]
        indexes = [models.Index(fields=["kind", "-price"], name="by_kind")]


class Order(models.Model):
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    products = models.ManyToManyField(Product, through="Item")
    at = models.DateTimeField()


class Item(models.Model):
    order = models.ForeignKey(Order, on_delete=models.CASCADE)
    product = models.ForeignKey(Product, on_delete=models.PROTECT)
    count = models.IntegerField(default=1)
