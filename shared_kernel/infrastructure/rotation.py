"""Every encrypted column from older keys to the newest one, and how far that has come (ADR 0026).

A value is stored with its key's id, so a row says itself whether its turn is still to come: whoever stops goes on where
they stopped. Which columns there are, the models say. A row is changed only if it still holds what was read (compare
and set), so that what others write meanwhile stays. Append-only tables are changed as the migrating user.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from django.apps import apps
from django.db import DatabaseError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

from shared_kernel.domain.ports import AuditRecord
from shared_kernel.infrastructure.append_only import append_only_tables, as_owner
from shared_kernel.infrastructure.encryption import DecryptionFailed, EncryptedField, decrypt, encrypt, key_ids
from shared_kernel.infrastructure.persistence import DjangoAuditLog, lock_lost, now, unit_of_work

PAGE = 200  # rows of a batch
MOST_BYTES = 1_000_000  # of one UPDATE: a server may refuse packets of 16 MB, and a raw message may have 90 kB
MOST_NAMED = 20  # values that cannot be read are named up to here, and counted beyond
TRIES = 5
NOT_ENCRYPTED = ""  # in place of a key id
READABLE_ID = re.compile(r"[\w-]{1,32}")

Progress: TypeAlias = Callable[[str, int], None]
"""Is told a column as `table.column`, and how many of its rows are done."""


class RowsKeptChanging(DatabaseError):
    """Others held the rows of one batch, time and again: run it once more."""


@dataclass(frozen=True, slots=True)
class Column:
    """One encrypted column; `key` is the column of the row's id. `guarded`: the runtime user can't change it."""

    table: str
    name: str
    key: str
    guarded: bool

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


@dataclass(frozen=True, slots=True)
class Held:
    """How many values of a column are under one key; `key_id` is empty for what is no ciphertext at all."""

    column: Column
    key_id: str
    count: int


@dataclass
class Rotated:
    """What a run did by column, and the values that it could not read: where, and why."""

    changed: dict[str, int] = field(default_factory=dict)
    unreadable: int = 0
    named: list[str] = field(default_factory=list)


def encrypted_columns() -> list[Column]:
    """All of them, of all apps, by table and name."""
    kept = append_only_tables()
    found = []
    for model in apps.get_models():
        pk = model._meta.pk
        table = model._meta.db_table
        for one in model._meta.concrete_fields:
            if isinstance(one, EncryptedField) and pk is not None:
                guarded = table in kept and one.column not in kept[table]
                found.append(Column(table, str(one.column), str(pk.column), guarded))
    return sorted(found, key=str)


def held() -> list[Held]:
    """By column and key; one SELECT a column, which reads all of it. Empty values are none."""
    found = []
    for column in encrypted_columns():
        name = connection.ops.quote_name(column.name)
        id = f"SUBSTR({name}, 4, INSTR(SUBSTR({name}, 4), '.') - 1)"
        sealed = f"SUBSTR({name}, 1, 3) = 'v1.' AND INSTR(SUBSTR({name}, 4), '.') > 1"
        rows = _rows(
            f"SELECT CASE WHEN {sealed} THEN HEX({id}) ELSE '' END, COUNT(*) FROM "  # noqa: S608 - our own names
            f"{connection.ops.quote_name(column.table)} WHERE {name} <> '' GROUP BY 1 ORDER BY 1"
        )
        found += [Held(column, _readable(in_hex), int(count)) for in_hex, count in rows]
    return found


def rotate(*, progress: Progress = lambda *_: None) -> Rotated:
    """Puts every value under the newest key, in batches by the rows' ids; each batch commits on its own.

    Values that no key opens stay as they are and are told. Raises `RowsKeptChanging`, with what was done kept.
    """
    newest, rotated = key_ids()[0], Rotated()
    _note("encryption_keys.rotation_started", newest)
    for column in encrypted_columns():
        done = 0
        for page in _pages(column, newest):
            done += _turn(column, page, rotated)
            progress(str(column), done)
        if done:
            rotated.changed[str(column)] = done
    _note("encryption_keys.rotated", newest, changed=rotated.changed, unreadable=rotated.unreadable)
    return rotated


def _note(action: str, newest: str, **details: Any) -> None:
    with unit_of_work():
        DjangoAuditLog().append([AuditRecord(action, "encryption_key", newest, now(), details=details)])


def _readable(in_hex: str) -> str:
    """A key id. What could be anything else, such as a text that was never encrypted, is not shown."""
    id = bytes.fromhex(in_hex).decode(errors="replace")
    return id if READABLE_ID.fullmatch(id) else NOT_ENCRYPTED


Row: TypeAlias = tuple[UUID, str]


def _pages(column: Column, newest: str) -> Iterator[list[Row]]:
    """The rows under another key than the newest; each page is read after the one before was dealt with."""
    after = ""
    while page := _page(column, newest, f"> X'{after}'"):
        yield page
        after = page[-1][0].hex


def _page(column: Column, newest: str, which: str) -> list[Row]:
    prefix = f"v1.{newest}."
    name, key = connection.ops.quote_name(column.name), connection.ops.quote_name(column.key)
    rows = _rows(
        f"SELECT {key}, {name} FROM {connection.ops.quote_name(column.table)} "  # noqa: S608 - our own names
        f"WHERE {key} {which} AND {name} <> '' AND HEX(SUBSTR({name}, 1, {len(prefix)})) <> %s "
        f"ORDER BY {key} LIMIT {PAGE}",
        prefix.encode().hex().upper(),
    )
    return [(UUID(bytes=bytes(id)), stored) for id, stored in rows]


def _turn(column: Column, page: Sequence[Row], rotated: Rotated) -> int:
    """How many of these rows are under the newest key now, by us."""
    changes = [(id, was, new) for id, was in page if (new := _under_newest(column, id, was, rotated))]
    with _writing(column) as by:
        return sum(_changed(column, part, by) for part in _parts(changes))


def _under_newest(column: Column, id: UUID, was: str, rotated: Rotated) -> str:
    place = f"{column}|{id}"
    try:
        plain = decrypt(was, place)
        new = encrypt(plain, place)
        if decrypt(new, place) != plain:
            raise DecryptionFailed(f"a value in {place} does not read the same under the newest key")
    except DecryptionFailed as error:
        rotated.unreadable += 1
        if len(rotated.named) < MOST_NAMED:
            rotated.named.append(str(error))
        return ""
    return new


Change: TypeAlias = tuple[UUID, str, str]


def _parts(changes: Sequence[Change]) -> Iterator[list[Change]]:
    part: list[Change] = []
    size = 0
    for change in changes:
        length = len(change[1]) + len(change[2])
        if part and size + length > MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(change)
        size += length
    if part:
        yield part


@contextmanager
def _writing(column: Column) -> Iterator[BaseDatabaseWrapper]:
    """Who may change it: of an append-only table nobody but its owner."""
    if not column.guarded:
        yield connection
        return
    with as_owner() as owner:
        yield owner


def _changed(column: Column, changes: Sequence[Change], by: BaseDatabaseWrapper) -> int:
    """One UPDATE, and so one transaction. Gives way to whoever holds one of the rows."""
    table, name, key = (by.ops.quote_name(part) for part in (column.table, column.name, column.key))
    id = "UNHEX(%s)" if by.vendor == "mysql" else "%s"
    first = f"SELECT {id} AS id, %s AS was, %s AS value"
    values = first + f" UNION ALL SELECT {id}, %s, %s" * (len(changes) - 1)
    same = f"old.{key} = new.id AND HEX(old.{name}) = HEX(new.was)"
    if by.vendor == "mysql":
        sql = f"UPDATE {table} AS old JOIN ({values}) AS new ON {same} SET old.{name} = new.value"  # noqa: S608
    else:
        sql = f"UPDATE {table} AS old SET {name} = new.value FROM ({values}) AS new WHERE {same}"  # noqa: S608
    parameters = [
        part
        for row_id, was, value in changes
        for part in (row_id.hex if by.vendor == "mysql" else row_id.bytes, was, value)
    ]
    for _ in range(TRIES):
        try:
            with by.cursor() as cursor:
                cursor.execute(sql, parameters)
                return int(cursor.rowcount)
        except DatabaseError as error:
            if not lock_lost(error):
                raise
    raise RowsKeptChanging(f"rows of {column} were held by others {TRIES} times: run it once more")


def _rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
