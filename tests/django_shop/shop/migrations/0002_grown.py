"""What a project does to its tables as it grows."""

# ruff: noqa: RUF012 - attributes of Django's classes

import django.db.models.functions
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models


def fill(apps, schema_editor):
    product = apps.get_model("shop", "Product")
    product.objects.bulk_create(
        [product(title=f"Product {at}", stock=str(at), price=at, more={"at": at}) for at in range(3)]
    )


def slugs(apps, schema_editor):
    product = apps.get_model("shop", "Product")
    for one in product.objects.iterator():
        one.slug = one.name.lower().replace(" ", "-")
        one.save(update_fields=["slug"])


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("shop", "0001_initial")]

    operations = [
        migrations.RunPython(fill, migrations.RunPython.noop),
        migrations.RenameField("product", "title", "name"),
        migrations.AddField("product", "slug", models.SlugField(default="")),
        migrations.AddField(
            "product", "gone", models.CharField(max_length=30, default="100% of 'it'", db_default="100% of 'it'")
        ),
        migrations.RunPython(slugs, migrations.RunPython.noop),
        migrations.AlterField("product", "name", models.CharField(max_length=100)),
        migrations.AlterField("product", "stock", models.PositiveIntegerField(default=0)),
        migrations.AddIndex("product", models.Index(fields=["kind", "-price"], name="by_kind")),
        AddIndexConcurrently("product", GinIndex(fields=["more"], name="by_more")),
        RemoveIndexConcurrently("product", "by_more"),
        migrations.AddConstraint(
            "product",
            models.CheckConstraint(condition=models.Q(("price__gte", 0)), name="price_is_not_negative"),
        ),
        migrations.AddConstraint(
            "product",
            models.UniqueConstraint(django.db.models.functions.Lower("name"), name="name_is_unique"),
        ),
        migrations.RunSQL(
            ["create view cheap as select id, name from shop_product where price < 1; comment on view cheap is '50%'"],
            ["drop view cheap"],
        ),
        migrations.RunSQL([("insert into shop_customer (name, email, since) values (%s, %s, now())", ["A%", "a@b"])]),
        migrations.RunPython(
            lambda apps, editor: apps.get_model("shop", "Product").objects.all().delete(), migrations.RunPython.noop
        ),
        migrations.RunSQL("delete from shop_customer; drop view cheap"),
        migrations.RemoveField("product", "gone"),
    ]
