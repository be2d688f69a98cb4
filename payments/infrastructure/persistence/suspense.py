"""Suspense over Django: what the ledger brought there, and `suspense_settlements` with the names that they claim."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connection
from django.db.models import Q

from payments import models
from payments.domain.suspense import (
    ORPHANS,
    PURPOSES,
    Loss,
    Settlement,
    SettlementKind,
    SettlementNotFound,
    SettlementOpen,
    SettlementStatus,
    SuspenseItem,
)
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.rows import insert
from wallet.facade import AccountKind, house

_KEYED, _ALL = (", ".join(f"'{purpose}'" for purpose in sorted(purposes)) for purposes in (ORPHANS, PURPOSES))
# An orphan's name is its movement's first key, which its reference holds: its entry has another one if that was used
# by what was undone. `suspense_in:<name>:1`, else `<name>:1`.
_NAME = (
    f"CASE WHEN e.purpose IN ({_KEYED}) "
    "THEN SUBSTR(e.reference, LENGTH(e.purpose) + 2, LENGTH(e.reference) - LENGTH(e.purpose) - 3) "
    "ELSE SUBSTR(e.reference, 1, LENGTH(e.reference) - 2) END"
)
_ACCOUNTS = ", ".join(f"X'{house(AccountKind.SUSPENSE, currency).id.hex}'" for currency in Currency)
# Each side of suspense by the index of its account, but for what was undone, and what the ledger or people settled.
_SIDES = " UNION ALL ".join(
    f"""
    SELECT e.seq, {_NAME} AS name, e.purpose, {sign}e.amount AS amount, e.currency, e.effective_at, e.recorded_at,
        e.provider_key, e.transaction_id
    FROM ledger_entries e LEFT JOIN ledger_entries r ON r.reverses = e.id
    WHERE e.{side}_account_id IN ({_ACCOUNTS}) AND e.purpose IN ({_ALL}) AND e.reverses IS NULL AND r.id IS NULL
        AND {{condition}}
    """  # noqa: S608 - our own names
    for side, sign in (("credit", ""), ("debit", "-"))
)
_JOINED = {"mysql": "CONCAT('orphan:', i.name, '{}:1')", "sqlite": "'orphan:' || i.name || '{}:1'"}
PROVIDERS = ("mpesa:", "deriv:")  # how the names of orphans begin
_AGAIN = ("", ":2", ":3", ":4")  # a treasury movement that settled it may have been reversed: `settlements_of`
# Each reference joined by itself is one look into its unique index for each item. An IN of expressions of the item, or
# a subquery, may have MariaDB read all of the ledger instead.
_SETTLED = """
    LEFT JOIN ledger_entries d{n} ON d{n}.reference = {settled}
    LEFT JOIN ledger_entries u{n} ON u{n}.reverses = d{n}.id
"""
OPEN_ITEMS = """
    SELECT i.seq, i.name, i.purpose, i.amount, i.currency, i.effective_at, i.recorded_at, i.provider_key,
        i.transaction_id, s.id
    FROM ({sides}) AS i LEFT JOIN suspense_claims c ON c.name = i.name
    LEFT JOIN suspense_settlements s ON s.id = c.settlement_id {settled}
    WHERE (s.id IS NULL OR s.status = 'proposed') AND {none_stands}
"""


def open_items(condition: str = "1 = 1") -> str:
    """The SELECT of what lies in suspense, with a further condition over the entry `e`, whose parameters come twice."""
    joined = _JOINED[connection.vendor]
    settled = "".join(_SETTLED.format(n=n, settled=joined.format(again)) for n, again in enumerate(_AGAIN))
    none_stands = " AND ".join(f"(d{n}.id IS NULL OR u{n}.id IS NOT NULL)" for n in range(len(_AGAIN)))
    return OPEN_ITEMS.format(sides=_SIDES.format(condition=condition), settled=settled, none_stands=none_stands)


_LOST = """
    SELECT d.amount, d.currency, e.effective_at
    FROM ledger_entries d LEFT JOIN ledger_entries u ON u.reverses = d.id
    JOIN ledger_entries e ON e.reference = %s AND e.reverses IS NULL
    WHERE d.reference IN (%s, %s, %s, %s) AND d.purpose = 'suspense_written_off' AND u.id IS NULL LIMIT 1
"""


_RETURNED = """
    SELECT d.id FROM ledger_entries d LEFT JOIN ledger_entries u ON u.reverses = d.id
    WHERE d.reference IN (%s, %s, %s, %s) AND d.purpose IN ('suspense_returned', 'suspense_paired') AND u.id IS NULL
    LIMIT 1
"""


class DjangoSuspenseBook:
    """Joins the caller's unit of work."""

    def items(self, names: Collection[str]) -> list[SuspenseItem]:
        starts = [""], [f"{purpose}:" for purpose in sorted(ORPHANS)]
        references = [f"{start}{name}:1" for name in names for start in starts[name.startswith(PROVIDERS)]]
        if not references:
            return []
        condition = f"e.reference IN ({', '.join(['%s'] * len(references))})"
        found = _items(f"{open_items(condition)} ORDER BY i.seq", [*references, *references])
        return [item for item in found if item.name in names]

    def page(self, *, after: int = 0, most: int = 100) -> list[SuspenseItem]:
        return _items(f"{open_items('e.seq > %s')} ORDER BY i.seq LIMIT %s", [after, after, most])

    def lost(self, name: str) -> Loss | None:
        brought = f"suspense_out:{name}:1" if _is_key(name) else f"{name}:1"
        with connection.cursor() as cursor:
            cursor.execute(_LOST, [brought, *_settled_as(name)])
            row = cursor.fetchone()
        return row and Loss(name, Money(int(row[0]), Currency(row[1])), _time(row[2]))

    def was_settled(self, name: str) -> bool:
        of = _orphans([name])
        settled = of is not None and models.OrphanMovement.objects.filter(of, settled_at__isnull=False).exists()
        return settled and not self.items([name])

    def was_returned(self, name: str) -> bool:
        with connection.cursor() as cursor:
            cursor.execute(_RETURNED, _settled_as(name))
            return cursor.fetchone() is not None

    def add(self, settlement: Settlement) -> None:
        rows: list[Any] = [models.SuspenseClaim(name=n, settlement_id=settlement.id) for n in settlement.claims]
        try:
            insert([to_row(settlement)])
            insert(rows)
        except IntegrityError as error:
            if "suspense_claims" in str(error) or "PRIMARY" in str(error):
                raise SettlementOpen("another settlement was proposed about it, or with it as its proof") from error
            raise

    def get(self, id: UUID) -> Settlement:
        row = models.SuspenseSettlement.objects.select_for_update().filter(pk=id).first()
        if row is None:
            raise SettlementNotFound(f"no settlement {id}")
        return to_settlement(row)

    def decide(self, settlement: Settlement) -> list[UUID]:
        models.SuspenseSettlement.objects.filter(pk=settlement.id, status=SettlementStatus.PROPOSED).update(
            status=settlement.status, decided_by=settlement.decided_by, decided_at=settlement.decided_at
        )
        if settlement.status is SettlementStatus.REJECTED:
            models.SuspenseClaim.objects.filter(settlement_id=settlement.id).delete()
        elif of := _orphans(settlement.claims):
            rows = models.OrphanMovement.objects.filter(of, settled_at=None)
            ids = list(rows.select_for_update().values_list("id", flat=True))
            rows.update(settled_at=settlement.decided_at)
            return ids
        return []


def _items(sql: str, parameters: list[Any]) -> list[SuspenseItem]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows = list(cursor.fetchall())
    of = _orphans(row[1] for row in rows if row[2] in ORPHANS)
    known = models.OrphanMovement.objects.filter(of).defer("reference") if of else []
    orphans = {f"{orphan.provider}:{orphan.account}:{orphan.movement}": orphan for orphan in known}
    return [_item(orphans.get(row[1]), *row) for row in rows]


def _item(
    orphan: models.OrphanMovement | None, seq: int, name: str, purpose: str, amount: int, currency: str, moved_at: Any,
    booked_at: Any, key: str | None, transaction: bytes | None, settlement: bytes | None,
) -> SuspenseItem:  # fmt: skip
    of = orphan.transaction_id if orphan else transaction and UUID(bytes=bytes(transaction))
    return SuspenseItem(
        seq=seq,
        name=name,
        purpose=purpose,
        amount=Money(int(amount), Currency(currency)),
        moved_at=_time(moved_at),
        booked_at=_time(booked_at),
        key=name if purpose in ORPHANS else key or "",
        transaction=TransactionId(of) if of else None,
        owner=orphan.owner if orphan else "finance",
        settlement=UUID(bytes=bytes(settlement)) if settlement else None,
    )


def _settled_as(name: str) -> list[str]:
    """The references of the entries by which it can have been settled."""
    return [f"orphan:{name}{again}:1" for again in _AGAIN]


def _orphans(keys: Iterable[str]) -> Q | None:
    """Those rows of `orphan_movements` whose provider keys these are, each by its unique key; none of others."""
    of: Q | None = None
    for key in keys:
        if _is_key(key):
            provider, account, movement = key.split(":", 2)
            one = Q(provider=provider, account=account, movement=movement)
            of = one if of is None else of | one
    return of


def _is_key(name: str) -> bool:
    """Whether an item's name is a provider key, and no journal's reference."""
    return name.startswith(PROVIDERS)


def _time(value: datetime | str) -> datetime:
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).replace(tzinfo=UTC)


def to_row(settlement: Settlement) -> models.SuspenseSettlement:
    return models.SuspenseSettlement(
        id=settlement.id,
        item=settlement.item,
        kind=settlement.kind,
        amount=settlement.amount.amount,
        currency=settlement.amount.currency,
        transaction_id=settlement.transaction,
        movement=settlement.movement[:96],
        proof=settlement.proof,
        by=settlement.by,
        why=settlement.why,
        at=settlement.at,
        status=settlement.status,
        decided_by=settlement.decided_by,
        decided_at=settlement.decided_at,
    )


def to_settlement(row: models.SuspenseSettlement) -> Settlement:
    return Settlement(
        id=row.id,
        item=row.item,
        kind=SettlementKind(row.kind),
        amount=Money(row.amount, Currency(row.currency)),
        by=row.by,
        why=row.why,
        at=row.at,
        transaction=TransactionId(row.transaction_id) if row.transaction_id else None,
        movement=row.movement,
        proof=row.proof,
        status=SettlementStatus(row.status),
        decided_by=row.decided_by,
        decided_at=row.decided_at,
    )
