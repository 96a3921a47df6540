"""Django over iokernel: the tests of a small shop, by our backend and by Django's own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support.fixtures import or_skip
from support.postgres import PostgresServer
from support.program import ROOT

OURS, THEIRS = "iokernel.compat.django", "django.db.backends.postgresql"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with or_skip(PostgresServer)() as made:
        yield made


def manage(server: PostgresServer, engine: str, *words: str, **more: str) -> Any:
    found = {**os.environ, "ENGINE": engine, "PGPORT": str(server.port), "PGPASSWORD": server.password, **more}
    found["PYTHONPATH"] = str(ROOT / "bindings" / "python")
    # Warnings of what is not ours are theirs to heed.
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "manage.py", *words]
    return subprocess.run(
        command, cwd=ROOT / "tests" / "django_shop", env=found, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("zones", ["1", "0"])
def test_the_tests_of_a_project_pass_with_both(server: PostgresServer, zones: str) -> None:
    counts = []
    for engine in (OURS, THEIRS):
        done = manage(server, engine, "test", "--noinput", USE_TZ=zones)
        assert done.returncode == 0, f"{engine}\n{done.stdout}{done.stderr}"
        counts += re.findall(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
    assert counts[0] == counts[1] and int(counts[0]) >= 25
    assert server.cli("select datname from pg_database where datname like 'test%'") == [], "they are dropped"


def test_migrations_give_the_same_tables(server: PostgresServer) -> None:
    """Forwards by each, looked at by the other; backwards by ours."""
    said = []
    for engine, other, database in ((OURS, THEIRS, "ours"), (THEIRS, OURS, "theirs")):
        server.cli(f"create database {database}")
        done = manage(server, engine, "migrate", "--noinput", PGDATABASE=database)
        assert done.returncode == 0, done.stdout + done.stderr
        said.append(manage(server, other, "inspectdb", PGDATABASE=database).stdout)
        said.append(manage(server, engine, "inspectdb", PGDATABASE=database).stdout)
    assert "class ShopProduct(models.Model)" in said[0]
    assert all(one == said[0] for one in said)
    shown = manage(server, OURS, "showmigrations", PGDATABASE="theirs")
    assert "[X] 0002_grown" in shown.stdout and "[ ]" not in shown.stdout
    done = manage(server, OURS, "sqlmigrate", "shop", "0002", PGDATABASE="ours")
    assert done.stdout == manage(server, THEIRS, "sqlmigrate", "shop", "0002", PGDATABASE="ours").stdout != ""
    done = manage(server, OURS, "flush", "--noinput", PGDATABASE="ours")
    assert done.returncode == 0, done.stderr
    check = (
        "import django.db as d; c = d.connection.cursor(); c.execute('select %s', ['it works']); print(c.fetchone())"
    )
    assert "it works" in manage(server, OURS, "shell", "-c", check, PGDATABASE="ours").stdout


def test_options_that_are_none(server: PostgresServer) -> None:
    program = """
import django
from django.conf import settings
base = {"ENGINE": "iokernel.compat.django", "NAME": "x", "USER": "x", "HOST": "127.0.0.1", "PORT": "1"}
for number, options in enumerate(({"pool": True}, {"isolation_level": 17}, {"no_such_option": 1})):
    if not number:
        settings.configure(DATABASES={"default": base})
        django.setup()
    from django.db import connections
    connection = connections.create_connection("default")
    connection.settings_dict["OPTIONS"] = options
    try:
        connection.ensure_connection()
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    kinds = [line.split()[0] for line in lines]
    assert kinds == ["ImproperlyConfigured", "ImproperlyConfigured", "ProgrammingError"], done.stdout + done.stderr
    assert "pool" in lines[0] and "isolation" in lines[1] and "no_such_option" in lines[2]
