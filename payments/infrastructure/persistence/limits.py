"""`limit_rules`, and sums over `transactions`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django.db import connection

from payments.domain.limits import LimitRule, Moved
from payments.domain.transaction import UNPAID, TransactionStatus, TransactionType
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.rows import binary_mark, utc

NAIROBI = ZoneInfo("Africa/Nairobi")


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
        self, subject: str, user: UserId, type: TransactionType, currency: Currency, *, lately: datetime, at: datetime
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
        back = (
            f"SELECT COUNT(*) FROM transactions WHERE user_id = {mark} AND created_at >= %s "  # noqa: S608
            "AND outflow = 'give_back'"
        )
        under_way = f"SELECT COUNT(*) FROM transactions WHERE user_id = {mark} AND priority < 6"  # noqa: S608
        accepted = (
            "SELECT COUNT(*) AS many, MIN(created_at) AS since FROM transactions "  # noqa: S608
            f"WHERE user_id = {mark} AND type = %s AND created_at > %s"
        )
        week_begins = connection.ops.adapt_datetimefield_value(at - timedelta(days=7))
        rule = (
            "SELECT minimum, maximum, per_day, per_month FROM limit_rules "
            "WHERE subject = %s AND currency = %s AND valid_from <= %s ORDER BY valid_from DESC LIMIT 1"
        )
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT ({back}), ({under_way}), accepted.many, accepted.since, moved.today, "  # noqa: S608
                "moved.this_month, rule.minimum, rule.maximum, rule.per_day, rule.per_month "
                f"FROM ({sums}) AS moved JOIN ({accepted}) AS accepted ON 1 = 1 LEFT JOIN ({rule}) AS rule ON 1 = 1",
                [
                    user.bytes,
                    week_begins,
                    user.bytes,
                    day_begins,
                    user.bytes,
                    type,
                    currency,
                    month_begins,
                    *ENDED_UNPAID,
                    user.bytes,
                    type,
                    connection.ops.adapt_datetimefield_value(lately),
                    subject,
                    currency,
                    now,
                ],
            )
            given_back, unfinished, many, since, moved_today, moved_this_month, *limits = cursor.fetchone()
        least, most, day, month_ = (None if sum is None else Money(sum, currency) for sum in limits)
        moved = Moved(
            today=Money(int(moved_today), currency),
            this_month=Money(int(moved_this_month), currency),
            given_back=int(given_back),
            unfinished=int(unfinished),
            accepted=int(many),
            accepted_since=utc(since),
        )
        if least is None or most is None:
            return None, moved
        return LimitRule(subject, least, most, day, month_), moved

    def ordered_while_waiting(self, user: UserId, since: datetime) -> Money:
        places = ", ".join(["%s"] * len(ENDED_UNPAID))
        with connection.cursor() as cursor:  # by `transactions_of_user`
            cursor.execute(
                f"SELECT COALESCE(SUM(payout_amount), 0) FROM transactions WHERE user_id = {binary_mark()} "  # noqa: S608
                f"AND created_at > %s AND ordered_while_waiting AND status NOT IN ({places})",
                [user.bytes, connection.ops.adapt_datetimefield_value(since), *ENDED_UNPAID],
            )
            return Money(int(cursor.fetchone()[0]), Currency.KES)


OPEN = frozenset(
    {
        TransactionStatus.CREATED,
        TransactionStatus.UNDER_REVIEW,
        TransactionStatus.AWAITING_MPESA,
        TransactionStatus.DERIV_DEBIT_SENT,
    }
)  # not paid yet, but may be
ENDED_UNPAID = sorted(UNPAID - OPEN)
