"""What customers and staff read of payments: tables in, plain data out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count, Max, OuterRef, Q, QuerySet, Subquery

from payments import models
from shared_kernel.facade import budgets, now
from shared_kernel.models import AuditLog
from wallet.facade import AccountBalance, accounts

# the statuses whose reason the customer is told
TOLD = {"FAILED", "REJECTED", "EXPIRED", "REFUND_PENDING", "REFUNDED", "CREDIT_BACK_PENDING", "REVERSED"}

OPEN = (
    "CREATED",
    "UNDER_REVIEW",
    "AWAITING_MPESA",
    "MPESA_CONFIRMED",
    "DERIV_TRANSFER_SENT",
    "REFUND_PENDING",
    "DERIV_DEBIT_SENT",
    "DERIV_DEBITED",
    "RATE_LOCKED",
    "MPESA_DISBURSING",
    "CREDIT_BACK_PENDING",
    "NEEDS_ATTENTION",
)  # the statuses that something or somebody still has to move on from
FLOATS = ("mpesa_working", "mpesa_utility", "mpesa_charges_paid", "deriv_agent")
SEEN_WITHIN = timedelta(days=2)  # what a provider said before is of no use now
MOST_AHEAD = 10_000  # rows that are counted: whoever waits behind so many is told a day either way


def open_by_status() -> dict[str, int]:
    """How many Transactions stand in each open status; an index range, for the ended ones are never counted."""
    counted = models.Transaction.objects.filter(status__in=OPEN).values("status").annotate(number=Count("pk"))
    return dict.fromkeys(OPEN, 0) | dict(counted.values_list("status", "number"))


def attention_reasons(most: int = 50) -> list[tuple[str, int]]:
    """Why Transactions stand before a person, and how many for each reason; the commonest first, an index range."""
    waiting = models.Transaction.objects.filter(status="NEEDS_ATTENTION").values_list("failure_code")
    return list(waiting.annotate(number=Count("pk")).order_by("-number", "failure_code")[:most])


def transactions_of(
    user_id: UUID,
    *,
    type: str | None = None,
    status: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> QuerySet[models.Transaction]:
    """A customer's Transactions, to be paged by `created_at` and `id`."""
    rows = models.Transaction.objects.filter(user_id=user_id)
    wanted = {"type": type, "status": status, "created_at__gte": since, "created_at__lt": until}
    return rows.filter(**{name: value for name, value in wanted.items() if value is not None})


def transaction_of(user_id: UUID, id: UUID) -> models.Transaction | None:
    """One of the customer's own Transactions."""
    return models.Transaction.objects.filter(pk=id, user_id=user_id).first()


def unfinished_of(user_id: UUID) -> tuple[int, datetime | None]:
    """How many of a customer's Transactions have a step to come, or a person to decide; and when the last of all
    changed.

    One SELECT, not locked: whoever holds the users row knows that no other begins.
    """
    to_come = Q(status__in=OPEN) | Q(next_step_at__isnull=False)
    found = models.Transaction.objects.filter(user_id=user_id).aggregate(
        unfinished=Count("pk", filter=to_come), last=Max("updated_at")
    )
    return found["unfinished"], found["last"]


def in_suspense_of(user_id: UUID) -> int:
    """How many movements of a customer's Transactions lie in suspense; one SELECT, from those that do."""
    mine = models.Transaction.objects.filter(user_id=user_id).values("pk")
    return models.OrphanMovement.objects.filter(settled_at=None, transaction_id__in=mine).count()


def standing(id: UUID) -> dict[str, str] | None:
    """Where any Transaction stands, for staff: `type`, `status`, `attention_from`, `failure_code`; None: none."""
    names = ("type", "status", "attention_from", "failure_code")
    found = models.Transaction.objects.filter(pk=id).values_list(*names).first()
    return None if found is None else dict(zip(names, found, strict=True))


def timelines(ids: Sequence[UUID]) -> dict[UUID, list[dict[str, Any]]]:
    """Each Transaction's changes of status, oldest first, from the audit log; one SELECT."""
    rows = AuditLog.objects.filter(
        target_type="transaction", target_id__in=[str(id) for id in ids], action="transaction.status"
    ).order_by("seq")
    found: dict[UUID, list[dict[str, Any]]] = {id: [] for id in ids}
    for target, after, at in rows.values_list("target_id", "after", "at"):
        found[UUID(target)].append({"status": after, "at": at})
    return found


def expected_by(row: models.Transaction) -> datetime | None:
    """When the customer may expect it: what was promised, or later if its next step waits for a provider's budget.

    None where nothing more is to be expected by itself. At most one SELECT, bounded, and one look at the budget, which
    neither raises nor blocks: for one Transaction, not for lists, and outside of any unit of work.
    """
    if row.status not in OPEN or row.next_step_at is None or row.expected_by is None:
        return None
    at = now()
    if not row.lane or row.held_at or row.next_step_at > at:
        return row.expected_by
    wait = budgets.wait_s(row.lane, _ahead(row, at))
    return max(row.expected_by, at + timedelta(seconds=wait)) if wait else row.expected_by


def _ahead(row: models.Transaction, at: datetime) -> int:
    """How many rows of its lane the dispatcher picks before it, up to `MOST_AHEAD`: ranges of one index, nothing else.

    By `turn_at`, for the index has no `next_step_at`: a more urgent one that is due and lets others go first is missed.
    """
    more_urgent = Q(priority__in=range(row.priority), turn_at__lte=at)
    earlier = Q(priority=row.priority, turn_at__lt=row.turn_at)
    return models.Transaction.objects.filter(more_urgent | earlier, lane=row.lane).order_by()[:MOST_AHEAD].count()


@dataclass(frozen=True, slots=True)
class FloatPosition:
    """One of our accounts at a provider: what the ledger says it holds, and what of it is promised, in minor units.

    `seen` is what the provider said last, within `SEEN_WITHIN`, at `seen_at`, and `difference` that less what the
    ledger said when it was asked. `drifts_since`: for so long nothing in flight explains a difference.
    """

    account: AccountBalance
    ledger: int
    reserved: int
    seen: int | None = None
    seen_at: datetime | None = None
    difference: int | None = None
    drifts_since: datetime | None = None

    @property
    def available(self) -> int:
        """What may still be promised: a reservation is kept until its leg is posted or proven dead."""
        return self.ledger - self.reserved


def float_positions() -> list[FloatPosition]:
    """All provider sub-accounts, by kind and owner; four SELECTs."""
    reserved = dict(models.FloatAccount.objects.values_list("account", "reserved"))
    seen = {(row.sub_account, row.account): row for row in newest_balances()}
    drifting = {
        (kind, account): since
        for account, kinds, since in models.BalanceDrift.objects.filter(over_at=None)
        .exclude(alerted_at=None)
        .values_list("account", "sub_account", "since")
        for kind in kinds.split("+")
    }
    return [
        _position(account, reserved, seen.get((account.kind, account.owner)), drifting)
        for account in accounts(kinds=FLOATS)
    ]


def _position(
    account: AccountBalance,
    reserved: dict[str, int],
    row: models.ProviderBalance | None,
    drifting: dict[tuple[str, str], datetime],
) -> FloatPosition:
    position = FloatPosition(account, -account.credit_balance, reserved.get(_float_name(account), 0))
    since = drifting.get((account.kind, account.owner))
    if row is None or row.amount is None:
        return replace(position, drifts_since=since)
    difference = row.amount - row.ledger
    return replace(position, seen=row.amount, seen_at=row.as_of, difference=difference, drifts_since=since)


def newest_balances() -> list[models.ProviderBalance]:
    """What each provider said last, within `SEEN_WITHIN`, of each account; one SELECT."""
    mine = {name: OuterRef(name) for name in ("provider", "account", "sub_account")}
    newest = models.ProviderBalance.objects.filter(**mine).exclude(as_of=None).order_by("-as_of").values("as_of")[:1]
    return list(models.ProviderBalance.objects.filter(as_of__gte=now() - SEEN_WITHIN, as_of=Subquery(newest)))


def _float_name(account: AccountBalance) -> str:
    """By which reservations know it; those of M-Pesa are made of the account that payouts leave."""
    return {"mpesa_utility": f"mpesa:{account.owner}", "deriv_agent": account.owner}.get(account.kind, "")


def transaction_json(
    row: models.Transaction, timeline: Iterable[dict[str, Any]], *, expected: datetime | None = None
) -> dict[str, Any]:
    """A Transaction as the API shows it; `expected` is `expected_by` where that was asked, else what was promised."""
    expected = expected or (row.expected_by if row.status in OPEN and row.next_step_at else None)
    failure = (
        {"code": row.failure_code, "detail": row.failure_detail} if row.status in TOLD and row.failure_code else None
    )
    return {
        "id": str(row.id),
        "type": row.type,
        "status": row.status,
        "amount": money(row.amount, row.currency),
        "payout": money(row.payout_amount, row.payout_currency),
        "locked_rate": decimal(row.rate),
        "expected_by": time(expected) if expected else None,
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "failure": failure,
        "timeline": [{"status": step["status"], "at": time(step["at"])} for step in timeline],
    }


def money(amount: int, currency: str) -> dict[str, str]:
    """Minor units as the API writes money; both currencies have two decimals."""
    return {"amount": f"{amount // 100}.{amount % 100:02d}", "currency": currency}


def decimal(value: Decimal) -> str:
    """Without trailing zeros, never in exponent form."""
    return f"{value.normalize():f}"


def time(at: datetime) -> str:
    """RFC 3339 in UTC."""
    return at.isoformat().replace("+00:00", "Z")


def suspense_by_age(at: datetime, bands: Sequence[tuple[str, int]]) -> list[tuple[str, str, int, int]]:
    """Money of no Transaction that nobody has settled, by age: band, currency, how many movements, and their sum in
    minor units (above zero: it came in); the youngest first. `bands` are names and below how many days.
    """
    cases, given = "", []
    for place, (_, below) in enumerate(bands[:-1]):
        cases += f" WHEN found_at > %s THEN {place}"
        given.append(connection.ops.adapt_datetimefield_value(at - timedelta(days=below)))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT CASE{cases} ELSE {len(bands) - 1} END AS band, currency, COUNT(*), SUM(amount) "  # noqa: S608
            "FROM orphan_movements WHERE settled_at IS NULL GROUP BY band, currency ORDER BY band, currency",
            given,
        )
        return [(bands[band][0], currency, count, int(sum)) for band, currency, count, sum in cursor.fetchall()]
