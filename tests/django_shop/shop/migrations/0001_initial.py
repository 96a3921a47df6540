# ruff: noqa: RUF012
import uuid

import django.contrib.postgres.fields
import django.contrib.postgres.fields.hstore
import django.contrib.postgres.fields.ranges
import django.db.models.deletion
import django.db.models.functions.text
from django.contrib.postgres.operations import HStoreExtension
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        HStoreExtension(),
        migrations.CreateModel(
            name="Customer",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=50)),
                ("email", models.EmailField(max_length=254, unique=True)),
                ("born", models.DateField(null=True)),
                ("since", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("at", models.DateTimeField()),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="orders", to="shop.customer"
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Item",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("count", models.IntegerField(default=1)),
                ("order", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="shop.order")),
            ],
        ),
        migrations.CreateModel(
            name="Product",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.UUIDField(default=uuid.uuid4, unique=True)),
                ("title", models.CharField(max_length=50)),
                ("words", models.TextField(default="")),
                (
                    "kind",
                    models.CharField(choices=[("fruit", "Fruit"), ("tool", "Tool")], default="fruit", max_length=10),
                ),
                ("size", models.SmallIntegerField(choices=[(1, "Small"), (2, "Large")], default=1)),
                ("price", models.DecimalField(decimal_places=2, default=0, max_digits=10)),
                ("weight", models.FloatField(null=True)),
                ("stock", models.CharField(default="0", max_length=10)),
                ("sold", models.BigIntegerField(default=0)),
                ("on_sale", models.BooleanField(default=False)),
                ("made", models.DateTimeField(null=True)),
                ("day", models.DateField(null=True)),
                ("hour", models.TimeField(null=True)),
                ("takes", models.DurationField(null=True)),
                ("picture", models.BinaryField(null=True)),
                ("address", models.GenericIPAddressField(null=True)),
                ("more", models.JSONField(default=dict)),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=20), default=list, size=None
                    ),
                ),
                (
                    "grid",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=django.contrib.postgres.fields.ArrayField(
                            base_field=models.IntegerField(null=True), size=None
                        ),
                        null=True,
                        size=None,
                    ),
                ),
                (
                    "moments",
                    django.contrib.postgres.fields.ArrayField(base_field=models.DateTimeField(), null=True, size=None),
                ),
                ("years", django.contrib.postgres.fields.ranges.IntegerRangeField(null=True)),
                ("prices", django.contrib.postgres.fields.ranges.DecimalRangeField(null=True)),
                ("sold_during", django.contrib.postgres.fields.ranges.DateTimeRangeField(null=True)),
                ("facts", django.contrib.postgres.fields.hstore.HStoreField(null=True)),
                ("related", models.ManyToManyField(to="shop.product")),
            ],
        ),
        migrations.AddField(
            model_name="order",
            name="products",
            field=models.ManyToManyField(through="shop.Item", to="shop.product"),
        ),
        migrations.AddField(
            model_name="item",
            name="product",
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, to="shop.product"),
        ),
    ]
