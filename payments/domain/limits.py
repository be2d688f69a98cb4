"""What a customer may still move, and why: dated rules by tier and by provider, and what was moved already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from payments.domain.transaction import TransactionType
from shared_kernel.domain.errors import Conflict, Forbidden, Unavailable, Unprocessable
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.rate_limits import RateLimit, refusal

# A deposit must fit both legs and the ways back: its shillings may have to be refunded by B2C, its dollars come back
# as a withdrawal.
PROVIDER_LEGS = ("provider:mpesa_stk", "provider:mpesa_b2c", "provider:deriv_transfer")


NO_TIER = "none"  # of a customer whose identity was not verified yet


class KycRequired(Forbidden):
    """Money moves only for a customer whose identity was verified."""


class LimitExceeded(Unprocessable):
    """Above or below what may be moved; the detail says which limit and what is left."""


class GivenBackTooOften(Forbidden):
    """Too much of what this customer sent had to go back: a person looks at it first."""


class TooManyUnfinished(Conflict):
    """The customer has too many payments under way: each keeps some of our float."""


MOST_GIVEN_BACK = 3  # in seven days
MOST_UNFINISHED = 20


class LimitsMissing(Unavailable):
    """No limit is set for this tier or provider: nothing moves until staff set one."""


class WholeShillingsOnly(Unprocessable):
    """M-Pesa moves whole shillings."""


@dataclass(frozen=True, slots=True)
class LimitRule:
    """Between `minimum` and `maximum` at once; at most `per_day` and `per_month` (None: no such limit)."""

    subject: str
    minimum: Money
    maximum: Money
    per_day: Money | None = None
    per_month: Money | None = None

    def check_one(self, amount: Money) -> None:
        """Raises `LimitExceeded`."""
        if amount < self.minimum:
            raise LimitExceeded(f"the least that can be moved at once is {self.minimum}", limit=self.subject)
        if self.maximum < amount:
            raise LimitExceeded(f"the most that can be moved at once is {self.maximum}", limit=self.subject)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a customer has moved, or is moving, by type of Transaction: today and this month (East Africa Time)."""

    today: Money
    this_month: Money
    given_back: int = 0  # how many of either type went back in the last seven days
    unfinished: int = 0  # how many of either type are under way
    accepted: int = 0  # how many of this type were accepted lately, whatever became of them
    accepted_since: datetime | None = None  # when the first of these was


@dataclass(frozen=True, slots=True)
class Left:
    """What may still be moved; None where there is no such limit."""

    today: Money | None
    this_month: Money | None


class LimitBook(Protocol):
    """The rules and what was moved."""

    def rules(self, subjects: Sequence[str], *, at: datetime) -> Mapping[tuple[str, Currency], LimitRule]:
        """The newest valid rule of each subject and currency; one SELECT."""

    def standing(
        self, subject: str, user: UserId, type: TransactionType, currency: Currency, *, lately: datetime, at: datetime
    ) -> tuple[LimitRule | None, Moved]:
        """The newest valid rule of `subject`, sums over Transactions that moved money or still may, and how many were
        accepted since `lately`; one SELECT.
        """

    def ordered_while_waiting(self, user: UserId, since: datetime) -> Money:
        """The payouts (KES) ordered since then from sessions that had to wait, if they moved money or still may; one
        SELECT.
        """


@dataclass(frozen=True)
class Limits:
    """The checks; a command runs them while it holds the customer's row, so that two commands can't both pass.

    `rates`: how often a customer may deposit (`deposits.user`, for each has M-Pesa prompt their phone) and withdraw
    (`withdrawals.user`). Counted here and not with the other rate limits: what was accepted is in the books, so that
    neither a refused request nor a repeat is a try.
    """

    book: LimitBook
    rates: Mapping[str, RateLimit]

    def check_quote(self, tier: str, kes: Money, usd: Money, *, at: datetime) -> None:
        """Whether such a Transaction may be offered at all.

        Raises `LimitExceeded`, `WholeShillingsOnly`, `KycRequired`, `LimitsMissing`.
        """
        must_be_verified(tier)
        if kes.amount % 100:
            raise WholeShillingsOnly("M-Pesa moves whole shillings: leave out the cents")
        rules = self.book.rules([f"tier:{tier}", *PROVIDER_LEGS], at=at)
        for amount in (kes, usd):
            for (_, currency), rule in rules.items():
                if currency is amount.currency:
                    rule.check_one(amount)
        for needed in (f"tier:{tier}", *PROVIDER_LEGS):
            if not any(subject == needed for subject, _ in rules):
                raise LimitsMissing(f"no limit is set for {needed}")

    def check(self, user: UserId, tier: str, type: TransactionType, amount: Money, *, at: datetime) -> Moved:
        """Whether this customer may move `amount` now.

        Raises `LimitExceeded` with what is left, `GivenBackTooOften`, `TooManyUnfinished`, `TooManyRequests`,
        `KycRequired`, `LimitsMissing`.
        """
        rule, left, moved = self._left(user, tier, type, amount.currency, at=at)
        if type is TransactionType.DEPOSIT and moved.given_back >= MOST_GIVEN_BACK:
            raise GivenBackTooOften("several of your payments had to be returned: please contact support")
        rule.check_one(amount)
        for most, period in ((left.today, "today"), (left.this_month, "this month")):
            if most is not None and most < amount:
                raise LimitExceeded(f"you can move {most} more {period}", limit=rule.subject)
        if moved.unfinished >= MOST_UNFINISHED:
            raise TooManyUnfinished("wait until your payments that are under way have ended")
        rate = self._rate(type)
        if moved.accepted >= rate.most and moved.accepted_since is not None:
            raise refusal((moved.accepted_since + timedelta(seconds=rate.per_s) - at).total_seconds())
        return moved

    def _rate(self, type: TransactionType) -> RateLimit:
        return self.rates[f"{type}s.user"]

    def left(
        self, user: UserId, tier: str, type: TransactionType, currency: Currency = Currency.KES, *, at: datetime
    ) -> tuple[LimitRule, Left]:
        """The tier's rule, and what it leaves. Raises `KycRequired`, `LimitsMissing`."""
        rule, left, _ = self._left(user, tier, type, currency, at=at)
        return rule, left

    def _left(
        self, user: UserId, tier: str, type: TransactionType, currency: Currency, *, at: datetime
    ) -> tuple[LimitRule, Left, Moved]:
        must_be_verified(tier)
        lately = at - timedelta(seconds=self._rate(type).per_s)
        rule, moved = self.book.standing(f"tier:{tier}", user, type, currency, lately=lately, at=at)
        if rule is None:
            raise LimitsMissing(f"no limit is set for tier:{tier} in {currency}")
        return rule, Left(_rest(rule.per_day, moved.today), _rest(rule.per_month, moved.this_month)), moved


def must_be_verified(tier: str) -> None:
    """Raises `KycRequired` for a customer without a tier."""
    if tier == NO_TIER:
        raise KycRequired("complete the identity check first")


def _rest(most: Money | None, already: Money) -> Money | None:
    return None if most is None else Money(max(0, most.amount - already.amount), most.currency)
