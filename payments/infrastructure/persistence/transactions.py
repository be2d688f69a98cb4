"""`transactions` over Django, in groups: one statement a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction as database
from django.db.models import Q

from payments import models
from payments.domain.deposit import Deposit
from payments.domain.transaction import Hold, Outflow, Transaction, TransactionStatus, TransactionType
from payments.domain.withdrawal import Withdrawal
from shared_kernel.domain.budgets import MPESA_LANE, deriv_lane
from shared_kernel.domain.identifiers import DerivTransferId, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.ports import AuditLog, OutboxRepository, transition_records
from shared_kernel.domain.requests import DerivLogin, DerivPlatform
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.rows import insert, locked, update

# Money in an unknown or late state first, then what goes back, then what is paid and on its way, then what was only
# asked for; last what has ended and is looked at once more.
PRIORITY = {
    TransactionStatus.DERIV_TRANSFER_SENT: 1,
    TransactionStatus.DERIV_DEBIT_SENT: 1,
    TransactionStatus.MPESA_DISBURSING: 1,
    TransactionStatus.REFUND_PENDING: 2,
    TransactionStatus.CREDIT_BACK_PENDING: 2,
    TransactionStatus.MPESA_CONFIRMED: 3,
    TransactionStatus.DERIV_DEBITED: 3,
    TransactionStatus.RATE_LOCKED: 3,
    TransactionStatus.AWAITING_MPESA: 4,
    TransactionStatus.CREATED: 5,
}
ENDED = 6
BEHIND = timedelta(seconds=30)
FINISHED = 9  # nothing is left to do by itself: the dispatcher never reads these rows
AT_DERIV = frozenset(
    {
        TransactionStatus.MPESA_CONFIRMED,
        TransactionStatus.DERIV_TRANSFER_SENT,
        TransactionStatus.DERIV_DEBIT_SENT,
        TransactionStatus.CREDIT_BACK_PENDING,
    }
)  # whose next step is a call on the agent's budget


class VersionConflict(RuntimeError):
    """A row changed although it was locked: somebody wrote around the repository."""


@dataclass(frozen=True)
class DjangoTransactionRepository:
    """`transactions`, with the outbox and the audit log."""

    outbox: OutboxRepository
    audit: AuditLog

    def get_many(self, ids: Sequence[TransactionId], type: TransactionType) -> list[Any]:
        return [to_domain(row) for row in locked(models.Transaction, "type = %s", ids, type)]

    def save_many(self, transactions: Sequence[Transaction]) -> None:
        fresh = [t for t in transactions if t.version == 0]
        known = [t for t in transactions if t.version > 0]
        for transaction in transactions:
            transaction.version += 1
        insert([to_row(t) for t in fresh])
        if update([to_row(t) for t in known], CHANGING, "old.version = new.version - 1") != len(known):
            raise VersionConflict("a Transaction changed although it was locked")
        for transaction in transactions:
            self.outbox.append(transaction.pull_events())
            self.audit.append(transition_records("transaction", transaction.id, transaction.pull_transitions()))

    def claim_due(
        self, lane: str, *, at: datetime, lease: timedelta, most: int
    ) -> dict[TransactionId, TransactionType]:
        """The dispatcher's pick among what waits for `lane`: due rows by priority, then by turn, leased for `lease`.

        A customer's k-th open Transaction waits as if it had come k half minutes later. Commits its own transaction.
        What has ended and waits for another look hours later is not read: there is a day's worth of it.
        """
        free = Q(leased_until=None) | Q(leased_until__lte=at)
        open_or_due = Q(priority__lt=ENDED) | Q(priority=ENDED, turn_at__lte=at)
        with database.atomic(durable=True):
            rows = (
                models.Transaction.objects.select_for_update(
                    skip_locked=connection.features.has_select_for_update_skip_locked
                )
                .filter(free, open_or_due, lane=lane, next_step_at__lte=at)
                .order_by("priority", "turn_at")
            )
            found = {TransactionId(id): TransactionType(type) for id, type in rows.values_list("id", "type")[:most]}
            if found:
                models.Transaction.objects.filter(pk__in=list(found)).update(leased_until=at + lease)
        return found

    def lanes(self) -> list[str]:
        """Those that anything unfinished waits for; reads the index alone."""
        rows = models.Transaction.objects.filter(priority__lt=FINISHED)
        return list(rows.order_by().values_list("lane", flat=True).distinct())


def to_row(transaction: Transaction) -> models.Transaction:
    """The aggregate as a row; its requests are the integrations'."""
    t = transaction
    priority = FINISHED if t.next_step_at is None else PRIORITY.get(t.status, ENDED)
    return models.Transaction(
        id=t.id,
        type=t.type,
        lane=lane_of(t),
        user_id=t.user_id,
        quote_id=t.quote_id,
        status=t.status,
        version=t.version,
        step_version=t.step_version,
        amount=t.amount.amount,
        currency=t.amount.currency,
        payout_amount=t.payout.amount,
        payout_currency=t.payout.currency,
        mid=t.rate.mid,
        rate=t.rate.rate,
        rate_source=t.rate.source,
        rate_locked_at=t.rate.locked_at,
        rate_expires_at=t.rate.expires_at,
        min_payout=t.min_payout.amount if t.min_payout else None,
        phone=t.phone.number,
        phone_index=blind_index("transactions.phone", t.phone.number),
        platform=t.login.platform,
        deriv_account=t.login.account,
        deriv_currency=t.login.currency,
        agent=t.agent,
        login_checked_at=t.login_checked_at,
        confirmed_at=t.confirmed_at,
        expected_by=t.expected_by,
        failure_code=t.failure_code[:64],
        failure_detail=t.failure_detail[:255],
        attention_from=t.attention_from or "",
        deriv_transfer_id=t.deriv_transfer_id or "",
        credit_back_id=(t.credit_back_id or "") if isinstance(t, Withdrawal) else "",
        mpesa_receipt=t.mpesa_receipt,
        outflow=t.outflow,
        paid_amount=t.paid.amount if isinstance(t, Deposit) and t.paid else None,
        refund_by_b2c=isinstance(t, Deposit) and t.refund_by_b2c,
        held_by=t.hold.owner if t.hold else "",
        held_why=t.hold.why[:255] if t.hold else "",
        held_at=t.hold.since if t.hold else None,
        priority=priority,
        behind=t.behind,
        ordered_while_waiting=isinstance(t, Withdrawal) and t.ordered_while_waiting,
        turn_at=t.next_step_at and t.next_step_at + (t.behind * BEHIND if priority < ENDED else timedelta(0)),
        next_step_at=t.next_step_at,
        leased_until=None,
        attempts=t.attempts,
        failures=t.failures,
        created_at=t.created_at,
        updated_at=t.updated_at,
    )


def to_domain(row: models.Transaction) -> Transaction:
    """The row as an aggregate; its requests are attached by the saga."""
    sends, gets = Currency(row.currency), Currency(row.payout_currency)
    is_deposit = row.type == TransactionType.DEPOSIT
    base, quote = (gets, sends) if is_deposit else (sends, gets)
    known: dict[str, Any] = {
        "id": TransactionId(row.id),
        "user_id": UserId(row.user_id),
        "quote_id": QuoteId(row.quote_id),
        "status": TransactionStatus(row.status),
        "version": row.version,
        "step_version": row.step_version,
        "amount": Money(row.amount, sends),
        "payout": Money(row.payout_amount, gets),
        "min_payout": None if row.min_payout is None else Money(row.min_payout, gets),
        "rate": LockedRate(base, quote, row.mid, row.rate, row.rate_source, row.rate_locked_at, row.rate_expires_at),
        "phone": Phone(row.phone),
        "login": DerivLogin(DerivPlatform(row.platform), row.deriv_account, row.deriv_currency),
        "agent": row.agent,
        "login_checked_at": row.login_checked_at,
        "confirmed_at": row.confirmed_at,
        "expected_by": row.expected_by,
        "failure_code": row.failure_code,
        "failure_detail": row.failure_detail,
        "attention_from": TransactionStatus(row.attention_from) if row.attention_from else None,
        "deriv_transfer_id": DerivTransferId(row.deriv_transfer_id) if row.deriv_transfer_id else None,
        "mpesa_receipt": row.mpesa_receipt,
        "outflow": Outflow(row.outflow),
        "hold": Hold(row.held_by, row.held_why, row.held_at) if row.held_at else None,
        "behind": row.behind,
        "next_step_at": row.next_step_at,
        "attempts": row.attempts,
        "failures": row.failures,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
    }
    if not is_deposit:
        return Withdrawal(
            credit_back_id=DerivTransferId(row.credit_back_id) if row.credit_back_id else None,
            ordered_while_waiting=row.ordered_while_waiting,
            **known,
        )
    paid = None if row.paid_amount is None else Money(row.paid_amount, sends)
    return Deposit(paid=paid, refund_by_b2c=row.refund_by_b2c, **known)


def lane_of(transaction: Transaction) -> str:
    """Whose budget the next step asks for, empty for nobody's: the sweeper picks by lane."""
    t = transaction
    is_new_withdrawal = t.status is TransactionStatus.CREATED and t.type is TransactionType.WITHDRAWAL
    if is_new_withdrawal or t.status is TransactionStatus.DERIV_DEBITED:
        return ""
    return deriv_lane(t.agent) if t.status in AT_DERIV else MPESA_LANE


CHANGING = (
    "status",
    "version",
    "lane",
    "payout_amount",
    "mid",
    "rate",
    "rate_source",
    "rate_locked_at",
    "rate_expires_at",
    "phone",
    "phone_index",
    "platform",
    "deriv_account",
    "deriv_currency",
    "agent",
    "credit_back_id",
    "mpesa_receipt",
    "outflow",
    "paid_amount",
    "refund_by_b2c",
    "held_by",
    "held_why",
    "held_at",
    "login_checked_at",
    "confirmed_at",
    "expected_by",
    "failure_code",
    "failure_detail",
    "attention_from",
    "deriv_transfer_id",
    "priority",
    "turn_at",
    "next_step_at",
    "leased_until",
    "attempts",
    "failures",
    "updated_at",
)
