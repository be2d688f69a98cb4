"""Transactions, quotes, limits and float reservations over Django's ORM, in groups: one statement a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import connection, transaction as database
from django.db.models import Q

from payments import models
from payments.domain.limits import LimitRule, Moved
from payments.domain.ports import LedgerGateway
from payments.domain.quote import Quote
from payments.domain.transaction import NEXT, UNPAID, Transaction, TransactionStatus, TransactionType
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.identifiers import DerivTransferId, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.ports import AuditLog, OutboxRepository, transition_records
from shared_kernel.domain.requests import DerivLogin, DerivPlatform
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.rows import binary_mark, insert, locked, update

NAIROBI = ZoneInfo("Africa/Nairobi")
# Money in an unknown or late state first, then what is paid and on its way, then what was only asked for.
PRIORITY = {
    TransactionStatus.DERIV_TRANSFER_SENT: 1,
    TransactionStatus.MPESA_CONFIRMED: 2,
    TransactionStatus.AWAITING_MPESA: 3,
    TransactionStatus.CREATED: 4,
}
FINISHED = 9  # nothing is left to do by itself: the dispatcher never reads these rows


class FloatTooLow(Unavailable):
    """The agent account can't cover it now. Nothing was charged."""


class VersionConflict(RuntimeError):
    """A row changed although it was locked: somebody wrote around the repository."""


@dataclass(frozen=True)
class DjangoTransactionRepository:
    """`transactions`, with the outbox and the audit log."""

    outbox: OutboxRepository
    audit: AuditLog

    def get_many(self, ids: Sequence[TransactionId], type: TransactionType) -> list[Transaction]:
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

    def claim_due(self, *, at: datetime, lease: timedelta, most: int) -> list[TransactionId]:
        """The dispatcher's pick:
        due rows by priority, then age, leased for `lease`. Opens and commits its own transaction.
        """
        free = Q(leased_until=None) | Q(leased_until__lte=at)
        with database.atomic(durable=True):
            rows = (
                models.Transaction.objects.select_for_update(
                    skip_locked=connection.features.has_select_for_update_skip_locked
                )
                .filter(free, priority__lt=FINISHED, next_step_at__lte=at)
                .order_by("priority", "next_step_at")
            )
            ids = [TransactionId(id) for id in rows.values_list("id", flat=True)[:most]]
            if ids:
                models.Transaction.objects.filter(pk__in=ids).update(leased_until=at + lease)
        return ids


def to_row(transaction: Transaction) -> models.Transaction:
    """The aggregate as a row; its requests are the integrations'."""
    t = transaction
    return models.Transaction(
        id=t.id,
        type=t.type,
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
        priority=PRIORITY.get(t.status, FINISHED),
        next_step_at=t.next_step_at,
        leased_until=None,
        attempts=t.attempts,
        failures=t.failures,
        created_at=t.created_at,
        updated_at=t.updated_at,
    )


def to_domain(row: models.Transaction) -> Transaction:
    """The row as an aggregate; its requests are attached by the saga."""
    base, quote = Currency(row.payout_currency), Currency(row.currency)
    return Transaction(
        id=TransactionId(row.id),
        type=TransactionType(row.type),
        user_id=UserId(row.user_id),
        quote_id=QuoteId(row.quote_id),
        status=TransactionStatus(row.status),
        version=row.version,
        step_version=row.step_version,
        amount=Money(row.amount, quote),
        payout=Money(row.payout_amount, base),
        rate=LockedRate(base, quote, row.mid, row.rate, row.rate_source, row.rate_locked_at, row.rate_expires_at),
        phone=Phone(row.phone),
        login=DerivLogin(DerivPlatform(row.platform), row.deriv_account, row.deriv_currency),
        agent=row.agent,
        login_checked_at=row.login_checked_at,
        confirmed_at=row.confirmed_at,
        expected_by=row.expected_by,
        failure_code=row.failure_code,
        failure_detail=row.failure_detail,
        attention_from=TransactionStatus(row.attention_from) if row.attention_from else None,
        deriv_transfer_id=DerivTransferId(row.deriv_transfer_id) if row.deriv_transfer_id else None,
        next_step_at=row.next_step_at,
        attempts=row.attempts,
        failures=row.failures,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


@dataclass(frozen=True)
class DjangoQuoteBook:
    """`quotes`."""

    def add(self, quote: Quote) -> None:
        models.Quote.objects.bulk_create(
            [
                models.Quote(
                    id=quote.id,
                    user_id=quote.user_id,
                    type=quote.type,
                    send_amount=quote.you_send.amount,
                    send_currency=quote.you_send.currency,
                    get_amount=quote.you_get.amount,
                    get_currency=quote.you_get.currency,
                    mid=quote.rate.mid,
                    rate=quote.rate.rate,
                    rate_source=quote.rate.source,
                    created_at=quote.created_at,
                    expires_at=quote.expires_at,
                )
            ]
        )

    def take(self, id: QuoteId, transaction: TransactionId) -> Quote | None:
        mark = binary_mark()
        locking = " FOR UPDATE" if connection.features.has_select_for_update else ""
        with connection.cursor() as cursor:
            cursor.execute(f"SELECT {QUOTE} FROM quotes WHERE id = {mark}{locking}", [id.bytes])  # noqa: S608 - our names
            row = cursor.fetchone()
            if row is None:
                return None
            user, kind, sent, send, got, get, mid, rate, source, created_at, expires_at, used_by = row
            if used_by is None:
                cursor.execute(
                    f"UPDATE quotes SET transaction_id = {mark} WHERE id = {mark}",  # noqa: S608 - our own names
                    [transaction.bytes, id.bytes],
                )
        type = TransactionType(kind)
        you_send, you_get = Money(sent, Currency(send)), Money(got, Currency(get))
        base, quote = (you_get, you_send) if type is TransactionType.DEPOSIT else (you_send, you_get)
        made, ends = as_utc(created_at), as_utc(expires_at)
        return Quote(
            id,
            UserId(UUID(bytes=bytes(user))),
            type,
            you_send,
            you_get,
            LockedRate(base.currency, quote.currency, Decimal(str(mid)), Decimal(str(rate)), source, made, ends),
            made,
            ends,
            TransactionId(UUID(bytes=bytes(used_by))) if used_by else None,
        )


QUOTE = (
    "user_id, type, send_amount, send_currency, get_amount, get_currency, mid, rate, rate_source, "
    "created_at, expires_at, transaction_id"
)


def as_utc(value: datetime | str) -> datetime:
    """A time as a raw cursor gives it: naive UTC, on SQLite as text."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC)


@dataclass(frozen=True)
class DjangoLimitBook:
    """`limit_rules`, and sums over `transactions`."""

    def rules(self, subjects: Sequence[str], *, at: datetime) -> Mapping[tuple[str, Currency], LimitRule]:
        places = ", ".join(["%s"] * len(subjects))
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT subject, currency, minimum, maximum, per_day, per_month FROM limit_rules "  # noqa: S608
                f"WHERE subject IN ({places}) AND valid_from <= %s ORDER BY valid_from LIMIT 1000",
                [*subjects, connection.ops.adapt_datetimefield_value(at)],
            )
            rows = cursor.fetchall()
        found = {}
        for subject, code, *amounts in rows:
            currency = Currency(code)
            least, most, day, month = (None if sum is None else Money(sum, currency) for sum in amounts)
            assert least is not None
            assert most is not None
            found[subject, currency] = LimitRule(subject, least, most, day, month)
        return found

    def standing(
        self, subject: str, user: UserId, type: TransactionType, currency: Currency, *, at: datetime
    ) -> tuple[LimitRule | None, Moved]:
        today = at.astimezone(NAIROBI).replace(hour=0, minute=0, second=0, microsecond=0)
        month = today.replace(day=1)
        day_begins, month_begins, now = (connection.ops.adapt_datetimefield_value(time) for time in (today, month, at))
        amount, code = (
            ("amount", "currency") if type is TransactionType.DEPOSIT else ("payout_amount", "payout_currency")
        )
        mark = binary_mark()
        places = ", ".join(["%s"] * len(ENDED_UNPAID))
        sums = (
            f"SELECT COALESCE(SUM(CASE WHEN created_at >= %s THEN {amount} END), 0) AS today, "  # noqa: S608
            f"COALESCE(SUM({amount}), 0) AS this_month FROM transactions WHERE user_id = {mark} AND type = %s "
            f"AND {code} = %s AND created_at >= %s AND status NOT IN ({places})"
        )
        rule = (
            "SELECT minimum, maximum, per_day, per_month FROM limit_rules "
            "WHERE subject = %s AND currency = %s AND valid_from <= %s ORDER BY valid_from DESC LIMIT 1"
        )
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT moved.today, moved.this_month, rule.minimum, rule.maximum, rule.per_day, rule.per_month "  # noqa: S608 - our own names
                f"FROM ({sums}) AS moved LEFT JOIN ({rule}) AS rule ON 1 = 1",
                [day_begins, user.bytes, type, currency, month_begins, *ENDED_UNPAID, subject, currency, now],
            )
            moved_today, moved_this_month, *limits = cursor.fetchone()
        least, most, day, month_ = (None if sum is None else Money(sum, currency) for sum in limits)
        moved = Moved(Money(int(moved_today), currency), Money(int(moved_this_month), currency))
        if least is None or most is None:
            return None, moved
        return LimitRule(subject, least, most, day, month_), moved


OPEN = frozenset(
    {TransactionStatus.CREATED, TransactionStatus.UNDER_REVIEW, TransactionStatus.AWAITING_MPESA}
)  # not paid yet, but may be
ENDED_UNPAID = sorted(UNPAID - OPEN)


@dataclass(frozen=True)
class DjangoFloatReservations:
    """`float_accounts` and `float_reservations`; the account's row is the lock."""

    ledger: LedgerGateway

    def reserve(
        self, account: str, transaction: TransactionId, amount: Money, *, at: datetime, beyond: bool = False
    ) -> None:
        if beyond and models.FloatReservation.objects.filter(pk=transaction, released_at=None).exists():
            return  # it has kept the one it had
        with connection.cursor() as cursor:  # one statement, so that first uses of an account can't block each other
            cursor.execute(PROMISE[connection.vendor], [account, amount.amount])
            reserved: int = cursor.lastrowid  # as MySQL's LAST_INSERT_ID(…) handed it out; 0 for an account's first row
            if connection.vendor != "mysql" or not reserved:
                cursor.execute("SELECT reserved FROM float_accounts WHERE account = %s", [account])
                [reserved] = cursor.fetchone()
        if not beyond and self.ledger.deriv_balance(account).amount < reserved:
            raise FloatTooLow("deposits of this amount are not possible right now: please try again later")
        row = models.FloatReservation(
            transaction_id=transaction, account=account, amount=amount.amount, created_at=at, released_at=None
        )
        if not (beyond and update([row], ["created_at", "released_at"])):
            insert([row])

    def release(self, transactions: Sequence[TransactionId], *, at: datetime) -> None:
        if not transactions:
            return
        ids = [id.bytes for id in transactions]
        held = f"transaction_id IN ({', '.join([binary_mark()] * len(ids))}) AND released_at IS NULL"
        with connection.cursor() as cursor:  # the account before its reservations, as `reserve` does
            cursor.execute(GIVE_UP[connection.vendor].format(held=held), ids)
            if cursor.rowcount:
                cursor.execute(
                    f"UPDATE float_reservations SET released_at = %s WHERE {held}",  # noqa: S608 - our own names
                    [connection.ops.adapt_datetimefield_value(at), *ids],
                )


PROMISE = {
    "mysql": "INSERT INTO float_accounts (account, reserved) VALUES (%s, %s) "
    "ON DUPLICATE KEY UPDATE reserved = LAST_INSERT_ID(reserved + VALUES(reserved))",
    "sqlite": "INSERT INTO float_accounts (account, reserved) VALUES (%s, %s) "
    "ON CONFLICT (account) DO UPDATE SET reserved = reserved + excluded.reserved",
}
HELD = "(SELECT account, SUM(amount) AS amount FROM float_reservations WHERE {held} GROUP BY account)"
GIVE_UP = {
    "mysql": f"UPDATE float_accounts AS a JOIN {HELD} AS r ON r.account = a.account "  # noqa: S608
    "SET a.reserved = a.reserved - r.amount",
    "sqlite": f"UPDATE float_accounts AS a SET reserved = reserved - r.amount FROM {HELD} AS r "  # noqa: S608
    "WHERE r.account = a.account",
}
CHANGING = (
    "status",
    "version",
    "login_checked_at",
    "confirmed_at",
    "expected_by",
    "failure_code",
    "failure_detail",
    "attention_from",
    "deriv_transfer_id",
    "priority",
    "next_step_at",
    "leased_until",
    "attempts",
    "failures",
    "updated_at",
)
assert set(NEXT) == set(TransactionStatus)
