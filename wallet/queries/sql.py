"""Plain SQL over MySQL, MariaDB and SQLite: how ids and times go in and come out."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection

MOST = 500  # rows of one page


def select(sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
    """All rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def literal(id: UUID) -> str:
    """Bytes in SQL: as a parameter MySQL would read them as text."""
    return f"X'{id.hex}'"


def marks(values: Collection[Any]) -> str:
    """The placeholders of an IN."""
    return ", ".join(["%s"] * len(values))


def stored(at: datetime) -> Any:
    """A time as the columns hold it, to compare them with."""
    return connection.ops.adapt_datetimefield_value(at)


def as_uuid(value: bytes) -> UUID:
    """From a column of sixteen bytes."""
    return UUID(bytes=bytes(value))


def as_time(value: datetime | str) -> datetime:
    """Columns hold UTC: MySQL gives a naive datetime, SQLite a text."""
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).replace(tzinfo=UTC)
