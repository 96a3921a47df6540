"""Connections, transactions, cursors: what applications do below the ORM."""

# ruff: noqa: RUF012 - attributes of Django's classes

import contextlib
import io
import threading

import psycopg
from django.core.management import call_command
from django.db import IntegrityError, OperationalError, ProgrammingError, connection, models, transaction
from django.test import TestCase, TransactionTestCase, override_settings

from .models import Customer, Product


def customer(name):
    return Customer.objects.create(name=name, email=f"{name}@x.org")


def names():
    return list(Customer.objects.order_by("name").values_list("name", flat=True))


class TransactionsTest(TransactionTestCase):
    available_apps = ["shop"]

    def test_atomic_and_savepoints(self):
        heard = []
        with transaction.atomic():
            customer("a")
            transaction.on_commit(lambda: heard.append("committed"))
            with contextlib.suppress(KeyError), transaction.atomic():
                customer("b")
                raise KeyError
            with self.assertRaises(IntegrityError), transaction.atomic():
                customer("a")
            point = transaction.savepoint()
            customer("c")
            transaction.savepoint_rollback(point)
            customer("d")
            self.assertEqual(heard, [])
        self.assertEqual((names(), heard), (["a", "d"], ["committed"]))
        with contextlib.suppress(KeyError), transaction.atomic():
            customer("e")
            raise KeyError
        with transaction.atomic():
            customer("f")
            transaction.set_rollback(True)
        self.assertEqual(names(), ["a", "d"])

    def test_a_transaction_that_failed(self):
        with self.assertRaises(transaction.TransactionManagementError), transaction.atomic():
            customer("a")
            with contextlib.suppress(IntegrityError):
                customer("a")
            names()
        self.assertEqual(names(), [])

    def test_without_autocommit(self):
        transaction.set_autocommit(False)
        try:
            customer("a")
            transaction.rollback()
            customer("b")
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        self.assertEqual(names(), ["b"])

    def test_rows_are_locked(self):
        customer("a")
        found = []

        def beside():
            try:
                with transaction.atomic():
                    found.append(list(Customer.objects.select_for_update(skip_locked=True)))
                with transaction.atomic():
                    found.append(Customer.objects.select_for_update(nowait=True).get())
            except OperationalError as error:
                found.append(error.__cause__.sqlstate)
            finally:
                connection.close()

        with transaction.atomic():
            Customer.objects.select_for_update(of=("self",), no_key=True).get()
            thread = threading.Thread(target=beside)
            thread.start()
            thread.join()
        self.assertEqual(found, [[], "55P03"])
        with self.assertRaises(transaction.TransactionManagementError):
            list(Customer.objects.select_for_update())

    def test_rows_come_in_pieces(self):
        Customer.objects.bulk_create(Customer(name=f"{at:04}", email=f"{at}@x.org") for at in range(500))

        def cursors():
            with connection.cursor() as cursor:
                cursor.execute("select count(*) from pg_cursors")
                return cursor.fetchone()[0]

        for block in (contextlib.nullcontext(), transaction.atomic()):
            with block:
                rows = Customer.objects.order_by("name").filter(name__gte="0001").iterator(chunk_size=100)
                self.assertEqual(next(rows).name, "0001")
                self.assertEqual(cursors(), 1)
                self.assertEqual(len(list(rows)), 498)
                self.assertEqual(cursors(), 0)
                left = Customer.objects.values_list("id").iterator(chunk_size=10)
                next(left)
                left.close()
                self.assertEqual(cursors(), 0)

    def test_a_connection_that_is_lost(self):
        with connection.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            (pid,) = cursor.fetchone()
            with self.assertRaises(OperationalError):
                cursor.execute("select pg_terminate_backend(%s)", [pid])
                cursor.execute("select 1")
        self.assertFalse(connection.is_usable())
        connection.close_if_unusable_or_obsolete()
        customer("a")
        self.assertEqual(names(), ["a"])
        connection.close()
        self.assertEqual(names(), ["a"])

    def test_errors_have_their_cause(self):
        customer("a")
        with self.assertRaises(IntegrityError) as refused:
            customer("a")
        self.assertIsInstance(refused.exception.__cause__, psycopg.errors.UniqueViolation)
        self.assertEqual(refused.exception.__cause__.sqlstate, "23505")
        self.assertIn("shop_customer_email_key", str(refused.exception))
        with self.assertRaises(ProgrammingError) as refused, connection.cursor() as cursor:
            cursor.execute("select * from nothing")
        self.assertIsInstance(refused.exception.__cause__, psycopg.errors.UndefinedTable)

    def test_tables_are_made_and_changed(self):
        class Made(models.Model):
            name = models.CharField(max_length=10, db_default="it's")

            class Meta:
                app_label = "shop"
                db_table = "made"

        with connection.schema_editor() as editor:
            editor.create_model(Made)
            longer = models.TextField(null=True, db_comment="it's all")
            longer.set_attributes_from_name("name")
            longer.model = Made
            editor.alter_field(Made, Made._meta.get_field("name"), longer)
            editor.add_index(Made, models.Index(models.F("name").desc(), name="made_name"))
            editor.delete_model(Made)
        with self.assertRaises(KeyError), connection.schema_editor() as editor:
            editor.create_model(Made)
            raise KeyError
        self.assertNotIn("made", connection.introspection.table_names())


class CursorsTest(TestCase):
    def test_statements(self):
        with connection.cursor() as cursor:
            cursor.execute("select 1 as a, 'x%%' as b where 5 %% 3 = %s", [2])
            self.assertEqual([(column.name, column[0]) for column in cursor.description], [("a", "a"), ("b", "b")])
            self.assertEqual(cursor.fetchall(), [(1, "x%")])
            cursor.execute("select '100%', 1; select 2")
            self.assertEqual(cursor.fetchone(), ("100%", 1))
            self.assertTrue(cursor.nextset())
            self.assertEqual(cursor.fetchone(), (2,))
            cursor.execute("select %(a)s::int + %(a)s, %(b)s", {"a": 3, "b": "it's"})
            self.assertEqual(cursor.fetchone(), (6, "it's"))
            cursor.executemany(
                "insert into shop_customer (name, email, since) values (%s, %s, now())", [("a", "a"), ("b", "b")]
            )
            self.assertEqual(cursor.rowcount, 2)
            cursor.execute("update shop_customer set name = %s", ["c"])
            self.assertEqual(cursor.rowcount, 2)
            cursor.callproc("left", ["abc", 2])
            self.assertEqual(cursor.fetchone(), ("ab",))
            cursor.execute("select array[1, null], row_to_json(r), now() - now() from (select 1 as a) r")
            self.assertEqual(cursor.fetchone()[:2], ([1, None], {"a": 1}))
            cursor.execute("select generate_series(1, 5)")
            self.assertEqual((cursor.fetchone(), cursor.fetchmany(2), list(cursor)), ((1,), [(2,), (3,)], [(4,), (5,)]))
        raw = Customer.objects.raw("select id, name, %s as twice from shop_customer order by id", ["x"])
        self.assertEqual([(one.name, one.twice) for one in raw], [("c", "x")] * 2)

    def test_settings_of_the_session(self):
        with connection.cursor() as cursor:
            cursor.execute("show timezone")
            self.assertEqual(cursor.fetchone(), (connection.timezone_name,))
            with override_settings(TIME_ZONE="Asia/Tokyo", USE_TZ=False):
                cursor.execute("show timezone")
                self.assertEqual(cursor.fetchone(), ("Asia/Tokyo",))
        self.assertGreater(connection.pg_version, 130000)

    def test_what_there_is_can_be_described(self):
        said = io.StringIO()
        call_command("inspectdb", "shop_product", stdout=said)
        for line in (
            "name = models.CharField(max_length=100)",
            "price = models.DecimalField(max_digits=10, decimal_places=2)",
            "more = models.JSONField()",
            "key = models.UUIDField(unique=True)",
            "takes = models.DurationField(blank=True, null=True)",
        ):
            self.assertIn(line, said.getvalue())
        with connection.cursor() as cursor:
            found = connection.introspection.get_constraints(cursor, "shop_product")
        self.assertTrue(found["price_is_not_negative"]["check"])
        self.assertEqual(found["by_kind"]["orders"], ["ASC", "DESC"])

    def test_fixtures(self):
        customer("a")
        Product.objects.create(name="p", tags=["x"], more={"a": 1})
        said = io.StringIO()
        call_command("dumpdata", "shop", stdout=said)
        Customer.objects.all().delete()
        Product.objects.all().delete()
        with contextlib.ExitStack() as stack:
            import tempfile

            file = stack.enter_context(tempfile.NamedTemporaryFile("w", suffix=".json"))
            file.write(said.getvalue())
            file.flush()
            call_command("loaddata", file.name, verbosity=0)
        self.assertEqual((names(), Product.objects.get().tags), (["a"], ["x"]))
        customer("b")


class AdminTest(TestCase):
    def test_a_day_of_an_administrator(self):
        from django.contrib.auth.models import Group, Permission, User

        User.objects.create_superuser("root", "root@x.org", "secret")
        self.assertTrue(self.client.login(username="root", password="secret"))
        answer = self.client.post(
            "/admin/shop/customer/add/", {"name": "Ada", "email": "ada@x.org", "born": "1815-12-10"}
        )
        self.assertEqual(answer.status_code, 302, answer.content)
        self.assertEqual(names(), ["Ada"])
        Product.objects.create(name="Pear", price=2)
        answer = self.client.get("/admin/shop/product/?q=pea&kind__exact=fruit")
        self.assertContains(answer, "Pear")
        (one,) = Customer.objects.all()
        self.assertContains(self.client.get(f"/admin/shop/customer/{one.pk}/change/"), "1815-12-10")
        answer = self.client.post(f"/admin/shop/customer/{one.pk}/delete/", {"post": "yes"})
        self.assertEqual((answer.status_code, names()), (302, []))
        self.assertContains(self.client.get("/admin/"), "Ada")
        group = Group.objects.create(name="clerks")
        group.permissions.set(Permission.objects.filter(content_type__app_label="shop"))
        user = User.objects.create_user("clerk")
        user.groups.add(group)
        self.assertTrue(User.objects.get(username="clerk").has_perm("shop.change_product"))
