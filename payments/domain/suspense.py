"""Suspense settled by people: what lies there, and what two of them agree becomes of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from payments.domain.orphan import Provider
from shared_kernel.domain.errors import Conflict, Forbidden, NotFound, Unprocessable
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Currency, Money

ORPHANS = frozenset({"suspense_in", "suspense_out"})
DIFFERENCES = frozenset({"payout_short", "payout_over"})  # undone with the payment that they stand beside
PURPOSES = ORPHANS | DIFFERENCES | {"deposit_excess", "duplicate_sent"}  # of the journals that bring money there


class ItemNotFound(NotFound):
    """Nothing lies in suspense by that name, or not any more."""


class SettlementNotFound(NotFound):
    """No such settlement."""


class SettlementOpen(Conflict):
    """Somebody proposed what becomes of it already: approve or reject that first."""


class SettlementClosed(Conflict):
    """It was approved or rejected before."""


class SamePerson(Forbidden):
    """Who proposes can't approve."""


class ReasonMissing(Unprocessable):
    """Whoever decides about money says why."""


class WrongWay(Unprocessable):
    """Money that came in is matched or returned, or recovers a loss; what left is recovered or written off."""


class NotProven(Unprocessable):
    """No book of the provider that was read shows such a movement: a person's word settles nothing."""


class SagaRefuses(Conflict):
    """The Transaction is not at a point where its saga could take this money."""


class SettlementKind(StrEnum):
    """All that can become of it."""

    MATCHED = "matched"  # came in: it was this Transaction's, whose saga goes on with it
    RETURNED = "returned"  # came in: it went back, by a movement that proves it
    LOSS_RECOVERED = "loss_recovered"  # came in: it is what was written off before
    RECOVERED = "recovered"  # left: it came back, by a movement that proves it
    WRITTEN_OFF = "written_off"  # left: it is a loss


PROVEN = frozenset({SettlementKind.RETURNED, SettlementKind.RECOVERED})
CAME_IN = frozenset({SettlementKind.MATCHED, SettlementKind.RETURNED, SettlementKind.LOSS_RECOVERED})
LOSS = "loss:"  # before the name of what was written off: a loss is recovered once


class SettlementStatus(StrEnum):
    """Where a settlement stands."""

    PROPOSED = "proposed"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuspenseItem:
    """One entry that brought money into suspense, or took it out of there, as the ledger has it.

    `name` is what the ledger settles it by, once. `amount` is signed: above zero it came in. `key` is the provider key
    of an orphan's movement, the first one that it can have; `transaction` the one whose excess or double booking it is,
    or whose reference it carries.
    """

    seq: int
    name: str
    purpose: str
    amount: Money
    moved_at: datetime
    booked_at: datetime
    key: str = ""
    transaction: TransactionId | None = None
    owner: str = "finance"
    settlement: UUID | None = None  # that was proposed and is not decided

    @property
    def provider(self) -> Provider:
        """Where it moved: each currency is at home at one of them."""
        return Provider.MPESA if self.amount.currency is Currency.KES else Provider.DERIV

    @property
    def account(self) -> str:
        """An orphan's shortcode or agent; empty for what else lies there."""
        return self.key.split(":", 2)[1] if self.purpose in ORPHANS else ""

    @property
    def movement(self) -> str:
        """The provider's own id of the payment, where all of a payment lies here; else empty."""
        if self.purpose in ORPHANS:
            return self.key.split(":", 2)[2]
        last = self.name.rpartition(":")[2]
        return last if self.purpose in {"deposit_excess", "duplicate_sent"} and last != "difference" else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """`by` proposes, `decided_by` approves or rejects. `movement` is the provider's id of what proves it; `proof` the
    name of the opposite item in suspense, or the break, that holds this movement, or of the loss that is recovered.
    """

    id: UUID
    item: str
    kind: SettlementKind
    amount: Money
    by: str
    why: str
    at: datetime
    transaction: TransactionId | None = None
    movement: str = ""
    proof: str = ""
    status: SettlementStatus = SettlementStatus.PROPOSED
    decided_by: str = ""
    decided_at: datetime | None = None

    @property
    def lost(self) -> str:
        """The name of what was written off, if that is recovered."""
        return self.proof.removeprefix(LOSS) if self.kind is SettlementKind.LOSS_RECOVERED else ""

    @property
    def claims(self) -> list[str]:
        """The names that no other settlement may have."""
        return [name for name in (self.item, self.proof) if name]


@dataclass(frozen=True, slots=True)
class Loss:
    """An outflow that two people wrote off: `amount` is above zero, `moved_at` when it left."""

    name: str
    amount: Money
    moved_at: datetime


class SuspenseBook(Protocol):
    """The ledger's suspense with what people propose about it; everything joins the caller's unit of work."""

    def items(self, names: Collection[str]) -> list[SuspenseItem]:
        """Those of these that lie there; one SELECT."""

    def page(self, *, after: int = 0, most: int = 100) -> list[SuspenseItem]:
        """What lies there, the oldest first, from after the entry with that `seq`; one SELECT."""

    def lost(self, name: str) -> Loss | None:
        """What was written off by that name, if the ledger holds it so."""

    def was_settled(self, name: str) -> bool:
        """Whether the orphan of that provider key lay in suspense, and does not any more."""

    def was_returned(self, name: str) -> bool:
        """Whether what the ledger brought there by that name went back to where it came from, and stays there."""

    def add(self, settlement: Settlement) -> None:
        """Raises `SettlementOpen`."""

    def get(self, id: UUID) -> Settlement:
        """Locked. Raises `SettlementNotFound`."""

    def decide(self, settlement: Settlement) -> list[UUID]:
        """Stores the decision. What was rejected frees its names; of what was approved the orphans are settled, whose
        ids it answers.
        """


def opposite(amount: Money) -> Money:
    """The same the other way."""
    return Money(-amount.amount, amount.currency)


def keys_of(provider: Provider, accounts: Sequence[str], movement: str) -> list[str]:
    """The provider keys that one movement may have."""
    return [f"{provider}:{account}:{movement}" for account in accounts]
