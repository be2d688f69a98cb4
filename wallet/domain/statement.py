"""A customer's statement: which period it is of, and what each of its lines is called in the customer's words."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone

from shared_kernel.domain.errors import Unprocessable
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Currency, Money

KENYA = timezone(timedelta(hours=3), "EAT")  # the whole year round
LONGEST = timedelta(days=366)
USUAL = timedelta(days=30)


class PeriodInFuture(Unprocessable):
    """Nothing can be told of what has not happened yet."""


class PeriodBackwards(Unprocessable):
    """It ends before it begins."""


class PeriodTooLong(Unprocessable):
    """More than `LONGEST` in one statement."""


class StatementTooLong(Unprocessable):
    """More lines than one document holds."""


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` (included) to `end` (not included), both in UTC."""

    start: datetime
    end: datetime

    @classmethod
    def of(cls, first: date | None, last: date | None, *, at: datetime) -> "Period":
        """From days (Kenya's, the last one included as far as it has passed at `at`) or exact times.

        Without `last` it ends at `at`, without `first` it is of the 30 days before its end. Raises `PeriodInFuture`,
        `PeriodBackwards`, `PeriodTooLong`.
        """
        end = at if last is None else _end_of(last)
        if end > (at if isinstance(last, datetime) else _end_of(at.astimezone(KENYA).date())):
            raise PeriodInFuture("`to` is in the future: leave it out for a statement up to now")
        end = min(end, at)
        start = end - USUAL if first is None else _start_of(first)
        if start >= at:
            raise PeriodInFuture("`from` is in the future: give a day that has begun")
        if start >= end:
            raise PeriodBackwards("`from` has to be before `to`: exchange the two")
        if end - start > LONGEST:
            raise PeriodTooLong(f"ask for at most {LONGEST.days} days at once: one statement for each year")
        return cls(start, end)

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last day, in Kenya."""
        last = self.end - timedelta(microseconds=1)
        return self.start.astimezone(KENYA).date(), last.astimezone(KENYA).date()


def _start_of(given: date) -> datetime:
    return given if isinstance(given, datetime) else datetime.combine(given, time(), KENYA).astimezone(UTC)


def _end_of(given: date) -> datetime:
    return given if isinstance(given, datetime) else _start_of(given) + timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Holder:
    """Whose statement it is, as far as it may be shown: `name` and `phone` are masked, `number` is the user id."""

    name: str
    phone: str
    number: str


@dataclass(frozen=True, slots=True)
class Total:
    """One currency of a statement. A balance is what is held less what is owed: it may be below zero."""

    opening: Money
    money_in: Money
    money_out: Money

    @property
    def currency(self) -> Currency:
        """Of all its amounts."""
        return self.opening.currency

    @property
    def closing(self) -> Money:
        """What the lines make of the opening balance."""
        return self.opening + self.money_in - self.money_out


@dataclass(frozen=True, slots=True)
class Line:
    """One line: `change` is above zero for money in, `balance` what it leads to. Booked `at`, happened `value_at`."""

    at: datetime
    value_at: datetime
    description: str
    transaction: TransactionId | None
    change: Money
    balance: Money

    @property
    def money_in(self) -> Money | None:
        """None for a line of money out."""
        return self.change if self.change.amount > 0 else None

    @property
    def money_out(self) -> Money | None:
        """Above zero; None for a line of money in."""
        return Money(-self.change.amount, self.change.currency) if self.change.amount < 0 else None


# By a journal's purpose: what it is called where money came in, and where it went out.
WORDS = {
    "deposit_received": ("Received from M-Pesa", ""),
    "deposit_excess": ("", "Set aside for you: more than was asked for"),
    "deposit_sent": ("", "Sent to your Deriv account"),
    "deposit_sent_undone": ("Came back from Deriv", ""),
    "deposit_refunded": ("", "Returned to your M-Pesa"),
    "deposit_refunded_undone": ("Return to your M-Pesa did not go through", ""),
    "deposit_reversed": ("", "Payment taken back by M-Pesa"),
    "deposit_owed": ("", "Payment taken back by M-Pesa after it was passed on: you owe it"),
    "withdrawal_debited": ("Received from your Deriv account", ""),
    "withdrawal_exchanged": ("Exchanged from your dollars", "Exchanged to shillings"),
    "withdrawal_exchanged_undone": ("Exchange to shillings taken back", "Exchange from your dollars taken back"),
    "withdrawal_paid": ("", "Paid to your M-Pesa"),
    "withdrawal_paid_undone": ("Payment to your M-Pesa did not go through", ""),
    "credit_back_sent": ("", "Returned to your Deriv account"),
    "debit_reverted": ("", "Taken back by Deriv"),
    "debit_owed": ("", "Taken back by Deriv after it was paid to you: you owe it"),
    "uncovered": ("", "Paid to you a second time: you owe it"),
    "payout_short": ("", "Set aside for you: not paid yet"),
    "payout_short_undone": ("No longer set aside", ""),
    "payout_over": ("More was paid to you than was due", ""),
    "payout_over_undone": ("", "No more was paid to you than was due"),
    "suspense_matched": ("Payment found and credited to you", ""),
    "receivable_recovered": ("Paid back by you", ""),
    "receivable_written_off": ("No longer owed by you", ""),
}


def description(purpose: str, change: Money, exchanged: Money | None = None) -> str:
    """What the customer calls it, with what it was exchanged to or from. A purpose without words is a correction."""
    into, out = WORDS.get(purpose, ("", ""))
    text = (into if change.amount > 0 else out) or "Correction"
    return f"{text}: {exchanged.decimal:,.2f} {exchanged.currency}" if exchanged else text
