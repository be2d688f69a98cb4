"""Quotes: what a deposit will cost and give, before anything is asked of the customer."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from payments.domain.limits import Limits
from payments.domain.ports import RateSource, UserDirectory
from payments.domain.quote import Quote, QuoteBook, QuoteExpired, QuoteNotFound, QuoteUsed
from payments.domain.transaction import TransactionType
from shared_kernel.domain.errors import Unprocessable
from shared_kernel.domain.identifiers import QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.ports import UnitOfWork


class WrongCurrency(Unprocessable):
    """A deposit is quoted in KES."""


class AmountTooSmall(Unprocessable):
    """It would buy nothing."""


class WithdrawalsNotOpen(Unprocessable):
    """Withdrawals are not offered yet."""


@dataclass(frozen=True, slots=True)
class CreateQuote:
    """A customer asks what `amount` would give."""

    id: QuoteId
    user_id: UserId
    type: TransactionType
    amount: Money
    at: datetime


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
        `KycRequired`, `WithdrawalsNotOpen`.
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
