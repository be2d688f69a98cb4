"""Empties the database between tests with real commits: fast, and past the triggers, as only the migrating user may.

What migrations put into tables (limits, groups, content types) is remembered once and put back.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from shared_kernel.infrastructure import append_only

KEPT = {"django_migrations", "django_content_type", "auth_permission"}
_rows_of_migrations: dict[str, Sequence[tuple[Any, ...]]] = {}


def remember_rows_of_migrations() -> None:
    """To be called once, after `migrate` and before the first test."""
    _rows_of_migrations.clear()
    _tables.cache_clear()
    for table in _tables_with_rows():
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM {_name(table)}")
            _rows_of_migrations[table] = cursor.fetchall()


def reset_database() -> None:
    """Every table as `migrate` left it. Numbers given by the database start again only in append-only tables."""
    dirty = _tables_with_rows()
    if connection.vendor == "sqlite":
        with connection.constraint_checks_disabled(), transaction.atomic():
            append_only.remove()
            for table in dirty:
                _execute(connection, f"DELETE FROM {_name(table)}")
            _put_back(connection)
            append_only.install()
        return
    kept_by_triggers = append_only.append_only_tables()
    with append_only.as_owner() as owner:
        _execute(owner, "SET FOREIGN_KEY_CHECKS = 0")
        try:
            for table in dirty:
                _execute(owner, f"{'TRUNCATE TABLE' if table in kept_by_triggers else 'DELETE FROM'} {_name(table)}")
            _put_back(owner)
        finally:
            _execute(owner, "SET FOREIGN_KEY_CHECKS = 1")


def _put_back(by: BaseDatabaseWrapper) -> None:
    with by.cursor() as cursor:
        for table, rows in _rows_of_migrations.items():
            marks = ", ".join(["%s"] * len(rows[0]))
            cursor.executemany(f"INSERT INTO {_name(table)} VALUES ({marks})", rows)


def _tables_with_rows() -> list[str]:
    tables = _tables(connection.settings_dict["NAME"])
    with connection.cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"EXISTS (SELECT 1 FROM {_name(table)})" for table in tables))
        return [table for table, holds in zip(tables, cursor.fetchone(), strict=True) if holds]


@cache
def _tables(database: str) -> list[str]:
    return [table for table in connection.introspection.table_names() if table not in KEPT]


def _name(table: str) -> str:
    return connection.ops.quote_name(table)


def _execute(by: BaseDatabaseWrapper, sql: str) -> None:
    with by.cursor() as cursor:
        cursor.execute(sql)
