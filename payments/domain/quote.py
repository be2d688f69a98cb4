"""A quote: what was offered to a customer, used by at most one Transaction."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from payments.domain.transaction import TransactionType
from shared_kernel.domain.errors import Conflict, NotFound
from shared_kernel.domain.identifiers import QuoteId, TransactionId, UserId
from shared_kernel.domain.money import LockedRate, Money


class QuoteNotFound(NotFound):
    """No such quote, or somebody else's."""


class QuoteExpired(Conflict):
    """Too late: the rate may have changed."""


class QuoteUsed(Conflict):
    """It was accepted before, by another request."""


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
    agent: str = ""  # of a withdrawal, from when its one-time code was asked for: the code is good for this agent

    @property
    def margin(self) -> Decimal:
        """What the customer pays above the middle rate, or gets below it, in KES for one USD."""
        return abs(self.rate.rate - self.rate.mid)


class QuoteBook(Protocol):
    """The quotes' rows; both join the caller's unit of work."""

    def add(self, quote: Quote) -> None: ...

    def take(self, id: QuoteId, transaction: TransactionId | None) -> Quote | None:
        """The quote, locked, and now marked as used by `transaction` (if one is given) unless it was used before;
        `transaction_id` is what it was before.
        """

    def name_agent(self, id: QuoteId, agent: str) -> None:
        """Keeps the agent credential that its one-time code is good for."""
