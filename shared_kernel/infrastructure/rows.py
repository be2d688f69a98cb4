"""Many rows in one statement: INSERT and UPDATE of model rows, without what the ORM does for each single value.

A step's group writes hundreds of values a statement, and the ORM's own multi-row writes took most of a step's time.
Values are prepared by their fields (encryption, JSON, times), columns and placeholders once for each model.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from operator import attrgetter
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from django.db import connection, models

from shared_kernel.infrastructure.encryption import EncryptedField
from shared_kernel.models import UuidField

MOST_VALUES = 30_000  # of one statement: SQLite takes 32,766

M = TypeVar("M", bound=models.Model)
Prepare: TypeAlias = Callable[[models.Model], Any]


def insert(rows: Sequence[models.Model]) -> None:
    """New rows of one model, one statement for all of them (up to `MOST_VALUES`). Raises `IntegrityError`."""
    if not rows:
        return
    columns, marks, prepare = _plan(type(rows[0]), connection.vendor, None)
    places = f"({', '.join(marks)})"
    most = MOST_VALUES // len(columns)
    table = connection.ops.quote_name(rows[0]._meta.db_table)
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([places] * len(part))}",  # noqa: S608
                [value(row) for row in part for value in prepare],
            )


def same(source: object, names: Sequence[str]) -> dict[str, Any]:
    """What a row and its object have under the same names, for whichever of the two is made of the other."""
    return {name: getattr(source, name) for name in names}


def locked(model: type[M], condition: str, ids: Sequence[UUID], *parameters: Any) -> list[M]:
    """Rows by primary key and a further `condition` in SQL, locked in the order of their keys; one SELECT."""
    if not ids:
        return []
    columns, key, mark = _selected(model, connection.vendor)
    locking = " FOR UPDATE" if connection.features.has_select_for_update else ""
    where = f"{key} IN ({', '.join([mark] * len(ids))}) AND {condition} ORDER BY {key}{locking}"
    sql = f"SELECT {columns} FROM {connection.ops.quote_name(model._meta.db_table)} WHERE {where}"  # noqa: S608
    return list(model._default_manager.raw(sql, [*(id.bytes for id in ids), *parameters]))


@cache
def _selected(model: type[models.Model], vendor: str) -> tuple[str, str, str]:
    assert model._meta.pk is not None
    names = [connection.ops.quote_name(str(field.column)) for field in model._meta.concrete_fields]
    return ", ".join(names), connection.ops.quote_name(str(model._meta.pk.column)), binary_mark()


def update(rows: Sequence[models.Model], names: Sequence[str], where: str = "") -> int:
    """The columns `names` of known rows, found by primary key; how many were found.

    `where` is a further condition in SQL over `old` (the row as it is) and `new` (these values).
    """
    if not rows:
        return 0
    meta = rows[0]._meta
    assert meta.pk is not None
    columns, marks, prepare = _plan(type(rows[0]), connection.vendor, (meta.pk.name, *names))
    key, changed = columns[0], columns[1:]
    table = connection.ops.quote_name(meta.db_table)
    first = f"SELECT {', '.join(f'{mark} AS {column}' for mark, column in zip(marks, columns, strict=True))}"
    other = f" UNION ALL SELECT {', '.join(marks)}"
    condition = f"old.{key} = new.{key}{f' AND ({where})' if where else ''}"
    if connection.vendor == "mysql":
        sets = ", ".join(f"old.{column} = new.{column}" for column in changed)
        sql = f"UPDATE {table} AS old JOIN ({{values}}) AS new ON {condition} SET {sets}"  # noqa: S608 - our own names
    else:
        sets = ", ".join(f"{column} = new.{column}" for column in changed)
        sql = f"UPDATE {table} AS old SET {sets} FROM ({{values}}) AS new WHERE {condition}"  # noqa: S608 - our own names
    found, most = 0, min(MOST_VALUES // len(columns), 400)  # SQLite takes 500 terms of a compound SELECT
    for start in range(0, len(rows), most):
        part = rows[start : start + most]
        values = first + other * (len(part) - 1)
        with connection.cursor() as cursor:
            cursor.execute(sql.format(values=values), [value(row) for row in part for value in prepare])
            found += cursor.rowcount
    return found


def binary_mark() -> str:
    """The placeholder of a value in bytes, as a UUID's."""
    operations: Any = connection.ops
    mark: str = operations.binary_placeholder_sql(b"")
    return mark


@cache
def _plan(
    model: type[models.Model], vendor: str, names: tuple[str, ...] | None
) -> tuple[list[str], list[str], list[Prepare]]:
    """Quoted columns, their placeholders, and what prepares their values; without `names` all that we write."""
    fields: list[models.Field[Any, Any]] = [
        field
        for field in model._meta.concrete_fields
        if (field.name in names if names else not (isinstance(field, models.AutoField) or field.generated))
    ]
    if names:
        fields.sort(key=lambda field: names.index(field.name))
    binary = "UNHEX(%s)" if vendor == "mysql" else "%s"  # takes NULL, too, where `_binary` would not
    return (
        [connection.ops.quote_name(str(field.column)) for field in fields],
        [binary if isinstance(_target(field), UuidField) else "%s" for field in fields],
        [_prepare(field) for field in fields],
    )


def _target(field: "models.Field[Any, Any]") -> "models.Field[Any, Any]":
    """Whose values the column holds: for a foreign key the key that it names."""
    return field.target_field if isinstance(field, models.ForeignKey) else field


def _prepare(field: "models.Field[Any, Any]") -> Prepare:
    value = attrgetter(field.attname)
    if isinstance(field, EncryptedField):
        return lambda row: field.pre_save(row, True)
    if isinstance(_target(field), UuidField):
        part = attrgetter("hex" if connection.vendor == "mysql" else "bytes")
        return lambda row: None if (id := value(row)) is None else part(id)
    if isinstance(field, models.DateTimeField):
        return lambda row: _time(value(row))
    if isinstance(field, models.CharField | models.TextField | models.IntegerField):
        return value
    return lambda row: field.get_db_prep_save(value(row), connection)


def _time(at: datetime | None) -> Any:
    return None if at is None else connection.ops.adapt_datetimefield_value(at)


def utc(stored: Any) -> datetime | None:
    """A time as the driver gives it: naive in UTC from MySQL, text from SQLite."""
    if stored is None:
        return None
    at: datetime = datetime.fromisoformat(stored) if isinstance(stored, str) else stored
    return at.replace(tzinfo=UTC)
