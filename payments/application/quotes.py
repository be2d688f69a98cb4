"""Quotes: what a deposit will cost and give, before anything is asked of the customer."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Protocol

from payments.domain.limits import Limits
from payments.domain.ports import RateSource, UserDirectory
from payments.domain.transaction import TransactionType
from shared_kernel.domain.errors import Conflict, NotFound, Unprocessable
from shared_kernel.domain.identifiers import QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.ports import UnitOfWork


class QuoteNotFound(NotFound):
    """No such quote, or somebody else's."""


class QuoteExpired(Conflict):
    """Too late: the rate may have changed."""


class QuoteUsed(Conflict):
    """It was accepted before, by another request."""


class WrongCurrency(Unprocessable):
    """A deposit is quoted in KES."""


class AmountTooSmall(Unprocessable):
    """It would buy nothing."""


class WithdrawalsNotOpen(Unprocessable):
    """Withdrawals are not offered yet."""


@dataclass(frozen=True, slots=True)
class Quote:
    """An offer: `you_send` for `you_get` at `rate`, to be accepted before `expires_at`."""

    id: QuoteId
    user_id: UserId
    type: TransactionType
    you_send: Money
    you_get: Money
    rate: LockedRate
    created_at: datetime
    expires_at: datetime
    transaction_id: TransactionId | None = None

    @property
    def margin(self) -> Decimal:
        """What the customer pays above the middle rate, in KES for one USD."""
        return self.rate.rate - self.rate.mid


@dataclass(frozen=True, slots=True)
class CreateQuote:
    """A customer asks what `amount` would give."""

    id: QuoteId
    user_id: UserId
    type: TransactionType
    amount: Money
    at: datetime


class QuoteBook(Protocol):
    """The quotes' rows; both join the caller's unit of work."""

    def add(self, quote: Quote) -> None: ...

    def take(self, id: QuoteId, transaction: TransactionId) -> Quote | None:
        """The quote, now marked as used by `transaction` unless it was used before; `transaction_id` is what it
        was before.
        """


@dataclass(frozen=True)
class Quotes:
    """Gives quotes and takes them back."""

    book: QuoteBook
    rates: RateSource
    limits: Limits
    users: UserDirectory
    unit_of_work: UnitOfWork
    ttl: timedelta
    lock: timedelta

    def create(self, command: CreateQuote) -> Quote:
        """An offer. Raises `RateStale`, `LimitExceeded`, `WholeShillingsOnly`, `WrongCurrency`, `AmountTooSmall`,
        `WithdrawalsNotOpen`.
        """
        if command.type is not TransactionType.DEPOSIT:
            raise WithdrawalsNotOpen("withdrawals are not offered yet")
        if command.amount.currency is not Currency.KES:
            raise WrongCurrency("a deposit is quoted in KES: give the amount that you want to pay")
        with self.unit_of_work():
            tier = self.users.customer(command.user_id).tier
            rate = self.rates.lock(at=command.at)
            gets = rate.buy(command.amount)
            self.limits.check_quote(tier, command.amount, gets, at=command.at)
            if gets.amount <= 0:
                raise AmountTooSmall("the amount is too small to buy a cent")
            rate.split_deposit(command.amount)  # refuses a negative margin before anything is offered
            quote = Quote(
                command.id,
                command.user_id,
                command.type,
                command.amount,
                gets,
                rate,
                command.at,
                command.at + self.ttl,
            )
            self.book.add(quote)
        return quote

    def accept(
        self, id: QuoteId, user: UserId, type: TransactionType, transaction: TransactionId, *, at: datetime
    ) -> Quote:
        """The quote, with its rate locked from now on; joins the caller's unit of work.

        Raises `QuoteNotFound`, `QuoteExpired`, `QuoteUsed`.
        """
        quote = self.book.take(id, transaction)
        if quote is None or quote.user_id != user or quote.type is not type:
            raise QuoteNotFound("no such quote: ask for a new one")
        if quote.transaction_id is not None:
            raise QuoteUsed("this quote was accepted before: ask for a new one")
        if at >= quote.expires_at:
            raise QuoteExpired("this quote has expired: ask for a new one")
        rate = quote.rate
        locked = LockedRate(rate.base, rate.quote, rate.mid, rate.rate, rate.source, at, at + self.lock)
        return Quote(
            quote.id, user, type, quote.you_send, quote.you_get, locked, quote.created_at, quote.expires_at, transaction
        )
