"""What treasury still has to do: movements that wait, and what lies in cash in transit, with its age."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime
from uuid import UUID

from django.db.models import Exists, OuterRef, Sum

from wallet import models
from wallet.queries.finance import accounts

OPEN = ("draft", "proposed", "in_transit", "arriving")
ON_THE_WAY = ("in_transit", "arriving")
MOST = 500


@dataclass(frozen=True, slots=True)
class OpenMovement:
    """One that is not at its end; amounts in minor units. `days` since it was proposed, or sent."""

    id: UUID
    kind: str
    status: str
    amount: int
    currency: str
    source: str
    target: str
    reference: str
    day: date
    by: str
    days: int


@dataclass(frozen=True, slots=True)
class InTransit:
    """Cash in transit of one currency, in minor units: what the ledger holds, and what the movements on their way make
    of it. They differ while something else was posted there.
    """

    currency: str
    ledger: int
    movements: int


def open_movements(at: datetime) -> list[OpenMovement]:
    """The oldest `MOST`, by status and id."""
    rows = models.TreasuryMovement.objects.filter(status__in=OPEN).order_by("id")[:MOST]
    return [
        OpenMovement(
            id=row.id, kind=row.kind, status=row.status, amount=row.amount, currency=row.currency,
            source=_name(row.source_kind, row.source_owner), target=_name(row.target_kind, row.target_owner),
            reference=row.reference, day=row.day, by=row.by or row.drafted_by,
            days=(at - (row.approved_at or row.at)).days,
        )
        for row in rows
    ]  # fmt: skip


def cash_in_transit() -> list[InTransit]:
    """Each currency that has any; two SELECTs."""
    held = {account.currency: -account.credit_balance for account in accounts(kinds=["cash_in_transit"])}
    on_the_way = models.TreasuryMovement.objects.filter(status__in=ON_THE_WAY)
    moving = dict(on_the_way.values("currency").annotate(sum=Sum("amount")).values_list("currency", "sum"))
    return [InTransit(name, held.get(name, 0), int(moving.get(name, 0))) for name in sorted({*held, *moving})]


def orphans_settled(provider_keys: Collection[str]) -> set[str]:
    """Those movements outside that lay in suspense and were settled, by whatever journal stands; one SELECT."""
    names = {f"orphan:{key}{again}:1": key for key in provider_keys for again in ("", ":2", ":3", ":4")}
    reversed_ = models.LedgerEntry.objects.filter(reverses=OuterRef("id"))
    rows = models.LedgerEntry.objects.filter(~Exists(reversed_), reference__in=list(names))
    return {names[reference] for reference in rows.values_list("reference", flat=True)}


def _name(kind: str, owner: str) -> str:
    return f"{kind}:{owner}" if owner else kind
