"""`provider_balances` and `balance_drifts` over Django."""

from collections.abc import Collection, Sequence
from datetime import datetime

from payments import models
from payments.domain.balances import Drift, Look
from payments.domain.orphan import Provider
from payments.domain.reconciliation import FloatAccountKind
from shared_kernel.domain.money import Currency
from shared_kernel.infrastructure.rows import insert, update

MOST_AWAITED = 500
MOST_CLOSED = 100  # by one look: the next one goes on


class DjangoBalanceBook:
    """Joins the caller's unit of work."""

    def add(self, looks: Sequence[Look]) -> None:
        insert([to_row(look) for look in looks])

    def awaited(self, since: datetime) -> list[Look]:
        rows = models.ProviderBalance.objects.select_for_update().filter(as_of=None, asked_at__gte=since)
        return [to_look(row) for row in rows.order_by("asked_at", "pk")[:MOST_AWAITED]]

    def answered(self, looks: Sequence[Look]) -> None:
        update([to_row(look) for look in looks], ["amount", "as_of", "coming", "going"])

    def open_drift(self, name: str) -> Drift | None:
        row = models.BalanceDrift.objects.select_for_update().filter(open_as=name).first()
        return None if row is None else to_drift(row)

    def open_beside(self, names: Collection[str]) -> list[Drift]:
        rows = models.BalanceDrift.objects.select_for_update().filter(over_at=None).exclude(open_as__in=list(names))
        return [to_drift(row) for row in rows.order_by("since", "pk")[:MOST_CLOSED]]

    def save(self, drift: Drift) -> None:
        row = models.BalanceDrift(
            id=drift.id,
            provider=drift.provider,
            account=drift.account,
            sub_account=drift.sub_accounts,
            currency=drift.currency,
            since=drift.since,
            looks=drift.looks,
            difference=drift.difference,
            unexplained=drift.unexplained,
            seen_at=drift.seen_at,
            alerted_at=drift.alerted_at,
            over_at=drift.over_at,
            open_as=drift.name if drift.over_at is None else None,
        )
        changes = ["looks", "difference", "unexplained", "seen_at", "alerted_at", "over_at", "open_as"]
        if not update([row], changes):
            insert([row])


def to_row(look: Look) -> models.ProviderBalance:
    return models.ProviderBalance(
        id=look.id,
        provider=look.provider,
        account=look.account,
        sub_account=look.sub_account,
        currency=look.currency,
        question=look.question,
        asked_at=look.asked_at,
        ledger=look.ledger,
        coming=look.coming,
        going=look.going,
        amount=look.amount,
        as_of=look.as_of,
    )


def to_look(row: models.ProviderBalance) -> Look:
    return Look(
        id=row.id,
        provider=Provider(row.provider),
        account=row.account,
        sub_account=FloatAccountKind(row.sub_account),
        currency=Currency(row.currency),
        question=row.question,
        asked_at=row.asked_at,
        ledger=row.ledger,
        coming=row.coming,
        going=row.going,
        amount=row.amount,
        as_of=row.as_of,
    )


def to_drift(row: models.BalanceDrift) -> Drift:
    return Drift(
        id=row.id,
        provider=Provider(row.provider),
        account=row.account,
        sub_accounts=row.sub_account,
        currency=Currency(row.currency),
        since=row.since,
        looks=row.looks,
        difference=row.difference,
        unexplained=row.unexplained,
        seen_at=row.seen_at,
        alerted_at=row.alerted_at,
        over_at=row.over_at,
    )
