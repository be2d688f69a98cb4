"""`seals` and the rows under them, read as their columns are stored, past the models: in one SELECT a page."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import DatabaseError, IntegrityError, connection

from shared_kernel import models
from shared_kernel.domain.seals import (
    BEFORE_ALL,
    KINDS,
    Layout,
    LayoutUnknown,
    RowsStillOpen,
    Seal,
    SealTaken,
    Unsealed,
    mark,
    seq_of,
)
from shared_kernel.infrastructure.persistence import lock_lost

_SEAL = "chain, number, layout, first_seq, last_seq, row_count, marks, sealed_at, hash"


@dataclass(frozen=True)
class SealedTable:
    """A table of which every row is sealed: its layouts by number, and the column that says when a row was recorded."""

    name: str
    layouts: Mapping[int, Layout]
    recorded: str


AUDIT_LOGS = SealedTable(
    "audit_logs",
    {
        1: (
            ("seq", "plain"), ("action", "plain"), ("target_type", "plain"), ("target_id", "plain"),
            ("before", "plain"), ("after", "plain"), ("why", "plain"), ("details", "document"), ("actor", "plain"),
            ("device", "plain"), ("address", "plain"), ("request_id", "plain"), ("at", "moment"),
        )
    },
    "at",
)  # fmt: skip

_tables: dict[str, SealedTable] = {}


def keep_sealed(table: SealedTable) -> None:
    """Has the table's rows sealed. For `AppConfig.ready`."""
    _tables[table.name] = table


def sealed_tables() -> list[str]:
    """The names of the chains, each that of its table."""
    return sorted(_tables)


@dataclass(frozen=True)
class DjangoSealBook:
    """`SealBook` over the tables that are `keep_sealed`."""

    def newest_layout(self, chain: str) -> int:
        return max(_tables[chain].layouts)

    def last_seq(self, chain: str) -> int:
        [(seq,)] = _rows(f"SELECT MAX(seq) FROM {_name(chain)}")  # noqa: S608 - our own names
        return BEFORE_ALL if seq is None else int(seq)

    def settled(self, chain: str, *, after: int, up_to: int, most: int) -> list[bytes]:
        """A locking read: READ COMMITTED locks the rows that it finds and no gap, so that INSERT goes on beside it.

        Nothing waits for its locks either: nobody may change such a row, and a foreign key to one asks for no lock that
        this one shuts out. It reads upwards, for a statement of many rows takes all their seqs first and stores the
        lowest first: who waits for that one passes none of the others over. InnoDB looks at the row above `up_to`, too,
        and may wait for it. On SQLite the unit of work holds the only write lock, so that all other rows are committed.
        """
        try:
            return self._marks(chain, self.newest_layout(chain), after, up_to, most, locking=True)
        except DatabaseError as error:
            if lock_lost(error):
                raise RowsStillOpen(f"a transaction holds a row of {chain} open: it is sealed next time") from error
            raise

    def marks(self, chain: str, layout: int, *, after: int, up_to: int, most: int) -> list[bytes]:
        return self._marks(chain, layout, after, up_to, most, locking=False)

    def unsealed(self, chain: str, *, after: int) -> Unsealed:
        table = _name(chain)
        [(count,)] = _rows(f"SELECT COUNT(*) FROM {table} WHERE seq > %s", after)  # noqa: S608 - our own names
        recorded = f"CAST({_name(_tables[chain].recorded)} AS CHAR)"
        first = f"SELECT seq, {recorded} FROM {table} WHERE seq > %s ORDER BY seq LIMIT 1"  # noqa: S608
        for seq, at in _rows(first, after):
            return Unsealed(count, seq, datetime.fromisoformat(at).replace(tzinfo=UTC))
        return Unsealed(0)

    def unsealed_since(self, chain: str) -> datetime | None:
        """When the oldest row was recorded that has no Seal; two index look-ups, however many rows wait."""
        last = "SELECT MAX(last_seq) FROM seals WHERE chain = %s"
        recorded = f"CAST({_name(_tables[chain].recorded)} AS CHAR)"
        where = f"seq > COALESCE(({last}), {BEFORE_ALL + 1}) ORDER BY seq LIMIT 1"
        for (at,) in _rows(f"SELECT {recorded} FROM {_name(chain)} WHERE {where}", chain):  # noqa: S608 - our own names
            return datetime.fromisoformat(at).replace(tzinfo=UTC)
        return None

    def head(self, chain: str) -> Seal | None:
        found = _rows(f"SELECT {_SEAL} FROM seals WHERE chain = %s ORDER BY number DESC LIMIT 1", chain)  # noqa: S608
        return _seal(found[0]) if found else None

    def seal(self, chain: str, number: int) -> Seal | None:
        return next(iter(self.seals(chain, after=number - 1, up_to=number, most=1)), None)

    def seals(self, chain: str, *, after: int, up_to: int, most: int) -> list[Seal]:
        where = "chain = %s AND number > %s AND number <= %s ORDER BY number LIMIT %s"
        found = _rows(f"SELECT {_SEAL} FROM seals WHERE {where}", chain, after, up_to, most)  # noqa: S608
        return [_seal(row) for row in found]

    def numbered(self, chain: str, numbers: Collection[int]) -> dict[int, Seal]:
        if not numbers:
            return {}
        where = f"chain = %s AND number IN ({_places(numbers)})"
        found = _rows(f"SELECT {_SEAL} FROM seals WHERE {where}", chain, *numbers)  # noqa: S608 - our own names
        return {seal.number: seal for seal in map(_seal, found)}

    def marks_of(self, chain: str, layout: int, seqs: Collection[int]) -> dict[int, bytes]:
        if not seqs:
            return {}
        found = self._marked(chain, layout, f"seq IN ({_places(seqs)})", *seqs)
        return {seq_of(mark): mark for mark in found}

    def add(self, seal: Seal) -> None:
        columns = {name: getattr(seal, name) for name in Seal.__slots__}
        try:
            models.Seal(**columns).save(force_insert=True)
        except IntegrityError as taken:
            raise SealTaken(f"{seal.chain} has a seal {seal.number} already") from taken

    def _marks(self, chain: str, number: int, after: int, up_to: int, most: int, *, locking: bool) -> list[bytes]:
        lock = " LOCK IN SHARE MODE" if locking and connection.vendor == "mysql" else ""
        return self._marked(chain, number, f"seq > %s AND seq <= %s ORDER BY seq LIMIT %s{lock}", after, up_to, most)

    def _marked(self, chain: str, number: int, where: str, *parameters: Any) -> list[bytes]:
        layout = _tables[chain].layouts.get(number)
        if layout is None:
            raise LayoutUnknown(f"{chain}: layout {number} is not known: a newer version of PenPay wrote this seal")
        found = _rows(f"SELECT {_columns(layout)} FROM {_name(chain)} WHERE {where}", *parameters)  # noqa: S608
        puts = [(place, put) for place, (_, kind) in enumerate(layout) if (put := KINDS[kind])]
        return [_mark(list(row), puts) for row in found]


def _mark(row: list[Any], puts: list[tuple[int, Any]]) -> bytes:
    for place, put in puts:
        row[place] = put(row[place])
    return mark(row)


def _columns(layout: Layout) -> str:
    """Times as texts: drivers differ in what they make of them, and it takes them long."""
    return ", ".join(f"CAST({_name(column)} AS CHAR)" if kind == "moment" else _name(column) for column, kind in layout)


def _seal(row: tuple[Any, ...]) -> Seal:
    chain, number, layout, first_seq, last_seq, row_count, marks, sealed_at, hash = row
    at = sealed_at if isinstance(sealed_at, datetime) else datetime.fromisoformat(sealed_at)
    return Seal(chain, number, layout, first_seq, last_seq, row_count, bytes(marks), at.replace(tzinfo=UTC), hash)


def _places(values: Collection[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _name(name: str) -> str:
    return connection.ops.quote_name(name)


def _rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())
