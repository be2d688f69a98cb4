"""Treasury movements: what staff move of the house's own money, and the entries that each kind makes by construction.

A kind says which accounts may give and which may take: always Dr the one that takes / Cr the one that gives. What
travels between two places outside has two legs, each posted when its own side has confirmed it:

    sent        Dr cash in transit / Cr the account that gave
    arrived     Dr the account that took / Cr cash in transit; Dr charges / Cr cash in transit, for what was kept on
                the way; Dr losses / Cr cash in transit, for what of it, or all of it, will never arrive

An FX close-out is sent like the others. It arrives in the other currency, where the FX position stands between. With
1000 USD sold to customers for 131,000 KES (131.00), 600 USD are bought at the bank for 77,400 KES (129.00):

    sent        Dr cash in transit KES 77,400 / Cr bank KES
    arrived     Dr bank USD 600 / Cr FX position USD        400 dollars are still to be bought back
                Dr FX position KES 77,400 / Cr cash in transit KES
                Dr FX position KES 1,200 / Cr FX gain/loss  600 × (131 - 129)

Then the position holds 400 USD at 52,400 KES, which is 131.00 each: their average cost. A loss goes the other way
round. Each currency balances for itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from enum import StrEnum
from uuid import UUID

from shared_kernel.domain.errors import Conflict, Forbidden, NotFound, Unprocessable
from shared_kernel.domain.money import Currency, Money
from wallet.domain.ledger import Account, AccountKind as A, Entry, house
from wallet.domain.statement import KENYA

KES, USD = Currency.KES, Currency.USD


class MovementRefused(Unprocessable):
    """Not a treasury movement of that kind."""


class VoucherRefused(Unprocessable):
    """What is to show the movement is missing, or is not of the form in which that place gives it."""


class ReasonMissing(Unprocessable):
    """Whoever moves the house's money, or refuses to, says who they are and why."""


class DoesNotAddUp(Unprocessable):
    """What arrived, was kept on the way and is lost are not what was sent."""


class OwesLess(Conflict):
    """A customer does not owe as much as is to be recovered or written off."""


class MovementExplained(Conflict):
    """A customer's Transaction explains this movement outside, or may: its saga posts it."""


class AlreadyOpened(Conflict):
    """This account has its opening balance."""


class RebookedTooOften(Conflict):
    """This movement was booked and undone too often."""


class SamePerson(Forbidden):
    """Who proposes can't approve."""


class MovementNotFound(NotFound):
    """No such treasury movement."""


class MovementNotOpen(Conflict):
    """It is not at this point."""


class Kind(StrEnum):
    """All that treasury moves."""

    TOP_UP_MPESA = "top_up_mpesa"
    SETTLEMENT = "settlement"  # M-Pesa to the bank
    MPESA_TRANSFER = "mpesa_transfer"  # working, utility, charges paid; of one shortcode or of two
    TOP_UP_AGENT = "top_up_agent"
    AGENT_WITHDRAWAL = "agent_withdrawal"  # Deriv to the bank
    AGENT_TRANSFER = "agent_transfer"
    FX_CLOSE_OUT = "fx_close_out"
    OWNERS_FUNDING = "owners_funding"
    OWNERS_WITHDRAWAL = "owners_withdrawal"
    OPENING_BALANCE = "opening_balance"
    MPESA_CHARGE = "mpesa_charge"  # by itself, as the statement shows it
    BANK_CHARGE = "bank_charge"
    RECEIVABLE_RECOVERED = "receivable_recovered"
    RECEIVABLE_WRITTEN_OFF = "receivable_written_off"
    REVERSAL = "reversal"  # of another treasury movement, as a whole


@dataclass(frozen=True, slots=True)
class Rule:
    """`gives` is credited, `takes` debited; through cash in transit with two legs if `in_transit`.

    `charges` is where goes what was kept on the way; None: nothing can be.
    """

    gives: frozenset[A]
    takes: frozenset[A]
    currencies: frozenset[Currency]
    in_transit: bool = False
    charges: A | None = None


MPESA = frozenset({A.MPESA_WORKING, A.MPESA_UTILITY, A.MPESA_CHARGES_PAID})
_BANK, AGENT, _OWED = frozenset({A.BANK}), frozenset({A.DERIV_AGENT}), frozenset({A.CUSTOMER_RECEIVABLE})
_OWNER = frozenset({A.OWNERS_FUNDING})
_KES, _USD, _BOTH = frozenset({KES}), frozenset({USD}), frozenset({KES, USD})
OUTSIDE = _BANK | MPESA | AGENT  # whose book somebody else keeps, too

RULES: Mapping[Kind, Rule] = {
    Kind.TOP_UP_MPESA: Rule(_BANK, MPESA, _KES, True, A.BANK_CHARGES),
    Kind.SETTLEMENT: Rule(MPESA, _BANK, _KES, True, A.MPESA_FEES),
    Kind.MPESA_TRANSFER: Rule(MPESA, MPESA, _KES, True, A.MPESA_FEES),
    Kind.TOP_UP_AGENT: Rule(_BANK, AGENT, _USD, True, A.BANK_CHARGES),
    Kind.AGENT_WITHDRAWAL: Rule(AGENT, _BANK, _USD, True, A.BANK_CHARGES),
    Kind.AGENT_TRANSFER: Rule(AGENT, AGENT, _USD, True, A.BANK_CHARGES),  # Deriv's, as of what leaves for the bank
    Kind.FX_CLOSE_OUT: Rule(_BANK, _BANK, _BOTH, True),
    Kind.OWNERS_FUNDING: Rule(_OWNER, _BANK, _BOTH),
    Kind.OWNERS_WITHDRAWAL: Rule(_BANK, _OWNER, _BOTH),
    Kind.OPENING_BALANCE: Rule(frozenset({A.OPENING_BALANCES}), OUTSIDE, _BOTH),
    Kind.MPESA_CHARGE: Rule(MPESA, frozenset({A.MPESA_FEES}), _KES),
    Kind.BANK_CHARGE: Rule(_BANK, frozenset({A.BANK_CHARGES}), _BOTH),
    Kind.RECEIVABLE_RECOVERED: Rule(_OWED, _BANK | {A.MPESA_WORKING}, _BOTH),
    Kind.RECEIVABLE_WRITTEN_OFF: Rule(_OWED, frozenset({A.LOSSES}), _BOTH),
}


class Leg(StrEnum):
    """The journals of a movement."""

    WHOLE = "whole"
    SENT = "sent"
    ARRIVED = "arrived"


class Status(StrEnum):
    """Where a treasury movement stands; `NEXT` says where it can go."""

    DRAFT = "draft"  # written down by a command, whose user nobody has identified: nobody's proposal yet
    PROPOSED = "proposed"
    REJECTED = "rejected"
    POSTED = "posted"
    IN_TRANSIT = "in_transit"
    ARRIVING = "arriving"  # one person has seen it arrive
    ARRIVED = "arrived"
    REVERSED = "reversed"


NEXT: Mapping[Status, frozenset[Status]] = {
    Status.DRAFT: frozenset({Status.PROPOSED, Status.REJECTED}),
    Status.PROPOSED: frozenset({Status.POSTED, Status.IN_TRANSIT, Status.REJECTED}),
    Status.REJECTED: frozenset(),
    Status.POSTED: frozenset({Status.REVERSED}),
    Status.IN_TRANSIT: frozenset({Status.ARRIVING, Status.REVERSED}),
    Status.ARRIVING: frozenset({Status.ARRIVED, Status.IN_TRANSIT}),
    Status.ARRIVED: frozenset({Status.REVERSED}),
    Status.REVERSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Voucher:
    """What shows a movement: the provider's transaction id or the bank's reference, and the day in Kenya.

    Of what moves nowhere outside (a write-off, an opening balance) it is the document that says so.
    """

    reference: str
    day: date

    @property
    def at(self) -> datetime:
        """When it took effect, as far as a day tells: not before this."""
        return datetime.combine(self.day, time(), KENYA).astimezone(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """`amount` leaves `source`; `got` reaches `target` where it is of the other currency. `by` and `approved_by`, and
    `arrival_by` and `arrival_approved_by`, are two different people. `charge` was kept on the way, and what is `lost`
    will never arrive; of all of it `arrival` is the document that says so.
    """

    id: UUID
    kind: Kind
    amount: Money
    source: Account
    target: Account
    voucher: Voucher
    why: str
    at: datetime
    got: Money | None = None
    reverses: UUID | None = None
    status: Status = Status.PROPOSED
    drafted_by: str = ""
    by: str = ""
    approved_by: str = ""
    approved_at: datetime | None = None
    arrival: Voucher | None = None
    charge: int = field(default=0)  # in minor units of `amount`
    lost: int = 0  # likewise
    arrival_by: str = ""
    arrival_approved_by: str = ""
    closed_by: str = ""  # who rejected it
    closed_why: str = ""
    closed_at: datetime | None = None

    @property
    def in_transit(self) -> bool:
        """Whether it has two legs."""
        return self.kind in RULES and RULES[self.kind].in_transit

    @property
    def is_within(self) -> bool:
        """Whether it is a transfer within one shortcode, where one receipt shows both legs."""
        return self.kind is Kind.MPESA_TRANSFER and self.source.owner == self.target.owner

    @property
    def is_lost(self) -> bool:
        """Whether nothing of it arrives."""
        return self.lost == self.amount.amount

    @property
    def first_leg(self) -> Leg:
        """What its approval posts."""
        return Leg.SENT if self.in_transit else Leg.WHOLE

    @property
    def as_seen(self) -> str:
        """All that can change of it before it is approved, so that what is approved is what was looked at."""
        arrival = f"{self.arrival.reference} {self.arrival.day} {self.charge} {self.lost}" if self.arrival else ""
        return f"{self.status}|{self.by}|{arrival}|{self.arrival_by}"

    def moved_to(self, status: Status, **changed: object) -> "Movement":
        """Raises `MovementNotOpen`."""
        if status not in NEXT[self.status]:
            raise MovementNotOpen(f"it is {self.status}: it can't become {status}")
        return replace(self, status=status, **changed)  # type: ignore[arg-type]

    def entries(self, leg: Leg, booking: "Booking", result: Money | None = None) -> tuple[Entry, ...]:
        """Of one leg. `result` is what an FX close-out realised, in KES."""
        first, *others = self._entries(leg, booking.provider_key, result)
        if not booking.from_suspense:
            return (first, *others)
        suspense = house(A.SUSPENSE, first.amount.currency)
        takes = self.outside(leg) == first.debit
        return (replace(first, debit=suspense) if takes else replace(first, credit=suspense), *others)

    def is_shown_by(self, entry: Entry, leg: Leg) -> bool:
        """Whether the movement outside that `entry` booked is this leg: on its account, its way, and all of it."""
        [ours, *_] = self._entries(leg, None, None)
        outside = self.outside(leg)
        same_way = entry.debit == outside if outside == ours.debit else entry.credit == outside
        return same_way and entry.amount == ours.amount

    def moves_outside(self, leg: Leg) -> Money:
        """By how much our account outside changes with it: above zero it comes in."""
        [ours, *_] = self._entries(leg, None, None)
        return ours.amount if self.outside(leg) == ours.debit else Money(-ours.amount.amount, ours.amount.currency)

    def purpose(self, leg: Leg) -> str:
        """Of its journal."""
        return str(self.kind) if leg is Leg.WHOLE else f"{self.kind}_{leg}"

    def _entries(self, leg: Leg, provider_key: str | None, result: Money | None) -> tuple[Entry, ...]:
        transit = house(A.CASH_IN_TRANSIT, self.amount.currency)
        match leg:
            case Leg.WHOLE:
                return (Entry(self.target, self.source, self.amount, provider_key),)
            case Leg.SENT:
                return (Entry(transit, self.source, self.amount, provider_key),)
        if self.is_lost:
            return (Entry(house(A.LOSSES, self.amount.currency), transit, self.amount),)
        if self.got is not None:
            return self._exchanged(self.got, transit, provider_key, result)
        currency, given_up = self.amount.currency, [(RULES[self.kind].charges, self.charge), (A.LOSSES, self.lost)]
        arrived = Money(self.amount.amount - self.charge - self.lost, currency)
        gone = (
            Entry(house(kind, currency), transit, Money(minor, currency)) for kind, minor in given_up if kind and minor
        )
        return (Entry(self.target, transit, arrived, provider_key), *gone)

    def _exchanged(
        self, got: Money, transit: Account, provider_key: str | None, result: Money | None
    ) -> tuple[Entry, ...]:
        taken, given = house(A.FX_POSITION, got.currency), house(A.FX_POSITION, self.amount.currency)
        entries = (Entry(self.target, taken, got, provider_key), Entry(given, transit, self.amount))
        position, gains = house(A.FX_POSITION, KES), house(A.FX_GAIN_LOSS, KES)
        if not result:
            return entries
        won = (
            Entry(position, gains, result) if result.amount > 0 else Entry(gains, position, Money(-result.amount, KES))
        )
        return (*entries, won)

    def provider_key(self, leg: Leg) -> str | None:
        """The movement outside that the leg is, in the form that sagas and reconciliation use; None for none.

        A transfer within one shortcode has one receipt for both its legs: the one that arrives says so.
        """
        outside, voucher = self.outside(leg), self.arrival if leg is Leg.ARRIVED else self.voucher
        if outside is None or voucher is None or self.kind is Kind.OPENING_BALANCE:
            return None
        provider, place = {A.BANK: ("bank", outside.currency), A.DERIV_AGENT: ("deriv", outside.owner)}.get(
            outside.kind, ("mpesa", outside.owner)
        )
        key = f"{provider}:{place}:{voucher.reference}"
        if self.kind in {Kind.MPESA_CHARGE, Kind.BANK_CHARGE}:
            return f"{key}:fee"
        return self.other_side(key) if leg is Leg.ARRIVED and self.is_within else key

    def other_side(self, provider_key: str) -> str:
        """The second key of a receipt that shows both legs; `plain_key` is the first one."""
        return f"{provider_key}:arrived"

    def outside(self, leg: Leg) -> Account | None:
        """Our account outside that the leg moves; None for none."""
        if leg is Leg.ARRIVED and self.is_lost:
            return None
        accounts = {Leg.SENT: [self.source], Leg.ARRIVED: [self.target], Leg.WHOLE: [self.source, self.target]}[leg]
        return next((account for account in accounts if account.kind in OUTSIDE), None)


def plain_key(provider_key: str) -> str:
    """What recovery and reconciliation call the movement outside, whichever side of a transfer it is here."""
    return provider_key.removesuffix(":arrived")


@dataclass(frozen=True, slots=True)
class Booking:
    """How a leg gets into the ledger: its journal's reference; its provider key; or `from_suspense`, for there the
    movement outside was booked before, when nobody had explained it.
    """

    reference: str
    provider_key: str | None = None
    from_suspense: bool = False
