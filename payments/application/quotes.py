"""Quotes: what a deposit or withdrawal will cost and give, before anything is asked of the customer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from payments.domain.eligibility import must_be_usable
from payments.domain.limits import Limits
from payments.domain.ports import RateSource, UserDirectory
from payments.domain.quote import Quote, QuoteBook, QuoteExpired, QuoteNotFound, QuoteUsed
from payments.domain.transaction import TransactionType
from shared_kernel.domain.errors import Unprocessable
from shared_kernel.domain.identifiers import QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.ports import UnitOfWork


class WrongCurrency(Unprocessable):
    """A deposit is quoted in KES, a withdrawal in USD."""


class AmountTooSmall(Unprocessable):
    """It would buy nothing."""


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
        `KycRequired`, `DerivLoginExpired`, `DerivLoginLost`.
        """
        is_deposit = command.type is TransactionType.DEPOSIT
        if command.amount.currency is not (Currency.KES if is_deposit else Currency.USD):
            name = "a deposit is quoted in KES" if is_deposit else "a withdrawal is quoted in USD"
            raise WrongCurrency(f"{name}: give the amount that you want to send")
        with self.unit_of_work():
            customer = self.users.customer(command.user_id)
            must_be_usable(customer, by_token=not is_deposit)
            rate = self.rates.lock(command.type, at=command.at)
            gets = rate.buy(command.amount) if is_deposit else rate.sell(command.amount)
            kes, usd = (command.amount, gets) if is_deposit else (gets, command.amount)
            self.limits.check_quote(customer.tier, kes, usd, at=command.at)
            if gets.amount <= 0:
                raise AmountTooSmall("the amount is too small to give anything")
            # refuses a negative margin before anything is offered
            _ = rate.split_deposit(command.amount) if is_deposit else rate.split_withdrawal(command.amount)
            quote = Quote(
                command.id,
                command.user_id,
                command.type,
                command.amount,
                gets,
                rate,
                command.at,
                command.at + (self.ttl if is_deposit else self.lock),  # a one-time code may take its time to arrive
            )
            self.book.add(quote)
        return quote

    def accept(
        self, id: QuoteId, user: UserId, type: TransactionType, transaction: TransactionId, *, at: datetime
    ) -> Quote:
        """The quote, with its rate locked from now on; joins the caller's unit of work.

        Raises `QuoteNotFound`, `QuoteExpired`, `QuoteUsed`.
        """
        quote = _usable(self.book.take(id, transaction), user, type, at)
        rate = quote.rate
        locked = LockedRate(rate.base, rate.quote, rate.mid, rate.rate, rate.source, at, at + self.lock)
        return replace(quote, rate=locked, transaction_id=transaction)

    def look_at(self, id: QuoteId, user: UserId, type: TransactionType, *, at: datetime) -> Quote:
        """The quote, not accepted by this; joins the caller's unit of work. Raises as `accept` does."""
        return _usable(self.book.take(id, None), user, type, at)

    def agent_of(self, quote: Quote, choose: Callable[[], str]) -> str:
        """The agent credential that a withdrawal's one-time code and its debit share; joins the unit of work."""
        if quote.agent:
            return quote.agent
        agent = choose()
        self.book.name_agent(quote.id, agent)
        return agent


def _usable(quote: Quote | None, user: UserId, type: TransactionType, at: datetime) -> Quote:
    if quote is None or quote.user_id != user or quote.type is not type:
        raise QuoteNotFound("no such quote: ask for a new one")
    if quote.transaction_id is not None:
        raise QuoteUsed("this quote was accepted before: ask for a new one")
    if at >= quote.expires_at:
        raise QuoteExpired("this quote has expired: ask for a new one")
    return quote
