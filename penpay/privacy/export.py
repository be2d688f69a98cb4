"""All that is stored of one customer, as one JSON document, written while it is read: a page of rows at a time."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from django.apps import apps
from django.db import models

from penpay.privacy.document import kept
from penpay.privacy.inventory import INVENTORY
from penpay.privacy.model import NOT_SHOWN, By, Path, Personal
from shared_kernel.facade import EncryptedField, now
from shared_kernel.infrastructure.encryption import legible

FORMAT = 1
PAGE = 200  # rows, or Transactions whose rows are read at once

Write: TypeAlias = Callable[[str], object]


def export(user: UUID, write: Write, inventory: Mapping[str, Any] = INVENTORY) -> dict[str, int]:
    """Writes the document; how many rows of each table it has.

    `{"format", "subject", "made_at", "tables": {"<table>": {"why", "kept", "rows": [...]}}}`: ids and times as text
    (RFC 3339), amounts in minor units. An encrypted text that no key opens is told as such.
    """
    rows: dict[str, int] = {}
    head = {"format": FORMAT, "subject": str(user), "made_at": now()}
    write(_json(head)[:-1] + ', "tables": {')
    for label, entry in inventory.items():
        if not isinstance(entry, Personal):
            continue
        model = apps.get_model(label)
        about = {"why": entry.why, "kept": kept(entry.kept)}
        write(f"{', ' if rows else ''}{_json(model._meta.db_table)}: {_json(about)[:-1]}" + ', "rows": [')
        rows[model._meta.db_table] = 0
        for row in rows_of(user, model, entry):
            write(f"{',' if rows[model._meta.db_table] else ''}\n{_json(_shown(row, entry))}")
            rows[model._meta.db_table] += 1
        write("]}")
    write("}}\n")
    return rows


def rows_of(user: UUID, model: type[models.Model], entry: Personal) -> Iterator[models.Model]:
    """The customer's rows of one table, by its paths and then its key."""
    for path in entry.of:
        fixed = {name: value.format(user=user) for name, value in path.fixed.items()}
        if path.by in {By.TRANSACTION, By.TRANSACTION_TEXT}:
            for ids in _transactions(user):
                named = [str(id) for id in ids] if path.by is By.TRANSACTION_TEXT else ids
                yield from _pages(model._default_manager.filter(**{f"{path.lookup}__in": named}, **fixed))
        else:
            yield from _pages(model._default_manager.filter(**_mine(user, path), **fixed))


def _mine(user: UUID, path: Path) -> dict[str, Any]:
    if path.by is By.PREFIX:
        return {f"{path.lookup}__startswith": f"{user}:"}
    return {path.lookup: user if path.by is By.USER else str(user)}


def _transactions(user: UUID) -> Iterator[list[UUID]]:
    mine = apps.get_model("payments.Transaction")._default_manager.filter(user_id=user).order_by("pk")
    page = list(mine.values_list("pk", flat=True)[:PAGE])
    while page:
        yield page
        page = list(mine.filter(pk__gt=page[-1]).values_list("pk", flat=True)[:PAGE])


def _pages(rows: "models.QuerySet[Any]") -> Iterator[models.Model]:
    rows = rows.order_by("pk")
    page = list(rows[:PAGE])
    while page:
        yield from page
        page = list(rows.filter(pk__gt=page[-1].pk)[:PAGE])


def _shown(row: models.Model, entry: Personal) -> dict[str, Any]:
    shown = {}
    for name, datum in entry.data.items():
        if datum.kind in NOT_SHOWN:
            continue
        column = row._meta.get_field(name)
        assert isinstance(column, models.Field)
        is_encrypted = isinstance(column, EncryptedField)
        shown[name] = legible(row, name) if is_encrypted else getattr(row, column.attname)
    return shown


def _json(value: Any) -> str:
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return value.hex() if isinstance(value, bytes) else str(value)
