"""Two books held against each other, movement by movement: a provider's, and the float legs of our ledger.

A movement is known by one id in both: the provider's own. What takes another one back is `<id>:reverted`, whatever id
it has itself; M-Pesa's charge for a payment is `<receipt>:fee`, for it comes under the payment's receipt.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from payments.domain.orphan import Provider
from shared_kernel.domain.errors import Conflict, Forbidden, NotFound, Unavailable, Unprocessable
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import Leg as RequestLeg

EAT = timezone(timedelta(hours=3), "EAT")  # whose midnight ends a day of either provider
REVERSED_WITHIN = timedelta(days=30)  # how long what a provider proved is watched for being taken back
SKEW = timedelta(minutes=2)  # how far a provider's clock may be from ours
BANDS = (("0-1 days", 2), ("2-7 days", 8), ("8-30 days", 31), ("over 30 days", 10**6))  # below so many days

# After so long an attempt whose outcome is open is a difference of its own: by then the saga has asked many times.
EXPECTED_WITHIN: Mapping[RequestLeg, timedelta] = {
    RequestLeg.STK_PUSH: timedelta(hours=48),  # Pull still shows it as long
    RequestLeg.DERIV_CREDIT: timedelta(hours=24),
    RequestLeg.DERIV_DEBIT: timedelta(hours=24),
    RequestLeg.DERIV_CREDIT_BACK: timedelta(hours=24),
    RequestLeg.B2C_PAYOUT: timedelta(hours=24),
    RequestLeg.B2C_REFUND: timedelta(hours=24),
    RequestLeg.REVERSAL: timedelta(hours=24),
}


class PeriodNotOver(Unprocessable):
    """A day that has not begun can't be reconciled."""


class AccountUnknown(NotFound):
    """No such shortcode or agent of ours."""


class BookUnreadable(Unavailable):
    """The provider's book could not be read: nothing was learnt about the money, and nothing changed."""


class StatementRefused(Unprocessable):
    """A statement file that can't be trusted as a whole; `lines` names each bad line. Nothing of it was taken."""

    def __init__(self, name: str, lines: Sequence[str]) -> None:
        super().__init__(f"{name} was refused, and nothing of it was imported: {'; '.join(lines[:20])}")
        self.lines = tuple(lines)


class RunsOverlap(Conflict):
    """Another run opened the same break at this moment: this one stored nothing, and can be run again."""


class BreakNotFound(NotFound):
    """No such break."""


class BreakNotOpen(Conflict):
    """It was closed, or is not at this point any more."""


class NothingToPost(Unprocessable):
    """Only what a provider's book shows, and our ledger lacks, can be taken into suspense."""


class ReasonMissing(Unprocessable):
    """Whoever resolves a break says why."""


class SamePerson(Forbidden):
    """Who proposes can't approve."""


class Result(StrEnum):
    """What became of one movement."""

    MATCHED = "matched"
    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    DIFFERENT_AMOUNT = "different_amount"
    REVERTED = "reverted"  # the provider took back what our ledger still holds


class BreakKind(StrEnum):
    """All that a difference can be."""

    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    DIFFERENT_AMOUNT = "different_amount"
    REVERTED = "reverted"
    OVERDUE = "overdue"  # an attempt whose outcome is open past its time


class BreakStatus(StrEnum):
    """Where a break stands."""

    OPEN = "open"
    PROPOSED = "proposed"  # one person wants to post it; another one has to approve
    RESOLVED = "resolved"  # by a person
    MATCHED = "matched"  # by a later run


class Resolution(StrEnum):
    """All that a person can make of a break."""

    EXPLAINED = "explained"  # nothing is posted
    INTO_SUSPENSE = "into_suspense"  # what the provider's book shows is posted; by two people


class FloatAccountKind(StrEnum):
    """The ledger's accounts that a provider keeps a book of, too."""

    MPESA_WORKING = "mpesa_working"
    MPESA_UTILITY = "mpesa_utility"
    MPESA_CHARGES_PAID = "mpesa_charges_paid"
    DERIV_AGENT = "deriv_agent"


@dataclass(frozen=True, slots=True)
class Movement:
    """One line of a provider's book. `amount` is signed: above zero it came in. `reverses` is what it takes back."""

    id: str
    amount: Money
    at: datetime
    reference: str = field(default="", repr=False)
    reverses: str = ""

    @property
    def known_as(self) -> str:
        """The id that both books know it by."""
        return f"{self.reverses}:reverted" if self.reverses else self.id


@dataclass(frozen=True, slots=True)
class Book:
    """What a provider's book of one account of ours shows from `since` on, up to the end of the period."""

    provider: Provider
    account: str
    kind: FloatAccountKind
    since: datetime
    movements: Sequence[Movement]
    incoming_only: bool = False  # Pull shows what came in, and nothing else
    digest: str = ""  # of the file that it was read from

    def would_show(self, leg: "Leg") -> bool:
        """Whether a movement behind this leg would be in it: of this account, and not from before it begins."""
        is_of_it = leg.kind is self.kind and leg.account == self.account
        return is_of_it and leg.moved_after >= self.since and (leg.amount.amount > 0 or not self.incoming_only)


@dataclass(frozen=True, slots=True)
class Leg:
    """A float leg of the ledger. `amount` is signed as in `Movement`; `id` is the one that the provider knows it by.

    `reference` is set where that id was never learnt: a deposit that the query alone had proven.
    """

    id: str
    provider_key: str
    kind: FloatAccountKind
    account: str
    amount: Money
    effective_at: datetime
    recorded_at: datetime
    transaction: TransactionId | None = None
    purpose: str = ""
    reference: str = ""

    @property
    def moved_after(self) -> datetime:
        """The provider can't have moved it before its Transaction was born; an orphan took effect when it moved."""
        return self.effective_at if self.transaction is None else born(self.transaction) - SKEW


@dataclass(frozen=True, slots=True)
class Item:
    """One movement and what became of it: `theirs` and `ours` are what each book says."""

    result: Result
    id: str
    at: datetime
    theirs: Money | None
    ours: Money | None
    transaction: TransactionId | None = None
    provider_key: str = ""
    purpose: str = ""  # of the leg that was taken back
    movement: str = ""  # the provider's own id of it, where it has one
    reference: str = ""  # what the provider shows of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A difference, until a later run finds it gone or a person resolves it; one for each movement and kind."""

    id: UUID
    kind: BreakKind
    provider: Provider
    account: str
    sub_account: FloatAccountKind
    known_as: str
    movement: str
    at: datetime
    opened_at: datetime
    theirs: Money | None = None
    ours: Money | None = None
    transaction: TransactionId | None = None
    provider_key: str = ""
    reference: str = ""
    owner: str = "finance"
    status: BreakStatus = BreakStatus.OPEN
    resolution: Resolution | None = None
    resolved_by: str = ""
    why: str = ""
    resolved_at: datetime | None = None
    approved_by: str = ""
    closed_at: datetime | None = None

    @property
    def name(self) -> tuple[str, BreakKind]:
        """What there is one of, in one account's book."""
        return self.known_as, self.kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run over one account's book found, by `Result`; `unchecked` legs are such as this book can't show."""

    id: UUID
    provider: Provider
    account: str
    sub_account: FloatAccountKind
    since: datetime
    until: datetime
    read_since: datetime  # how far back the book was read: so far what was taken back later was seen
    source: str  # `api` or the file's name
    digest: str
    counts: Mapping[str, int]
    opened: int
    closed: int
    still_open: int
    unchecked: int
    at: datetime
    by: str = ""
    repeated: bool = False


class BreakBook(Protocol):
    """`reconciliation_breaks` and `reconciliation_runs`; everything joins the caller's unit of work."""

    def of(self, provider: Provider, account: str, sub_account: FloatAccountKind) -> list[Break]:
        """Those that are neither resolved nor matched, locked; one SELECT."""

    def closed(
        self, provider: Provider, account: str, sub_account: FloatAccountKind, names: Sequence[str]
    ) -> list[Break]:
        """Those about the movements known by these names that are resolved or matched, locked; one SELECT."""

    def get(self, id: UUID) -> Break:
        """Locked. Raises `BreakNotFound`."""

    def shown(self, provider: Provider, movement: str) -> list[Break]:
        """The open ones about what the provider's book calls that, locked; one SELECT."""

    def add(self, breaks: Sequence[Break]) -> None:
        """One INSERT. Raises `RunsOverlap`."""

    def save(self, breaks: Sequence[Break]) -> None:
        """What changes of a break; one UPDATE."""

    def reported(
        self, provider: Provider, account: str, digest: str, since: datetime, until: datetime
    ) -> Report | None:
        """What a run over the very same file and all of this time found."""

    def report(self, report: Report) -> None:
        """One INSERT."""


class FloatLegs(Protocol):
    """The ledger's float legs; one SELECT each, in the caller's unit of work. What was undone as never moved is out."""

    def recorded(self, kind: FloatAccountKind, account: str, since: datetime, until: datetime) -> list[Leg]:
        """Those recorded in that time."""

    def under(self, provider_keys: Iterable[str]) -> list[Leg]:
        """Those with these keys."""


def matched(book: Book, theirs: Iterable[Movement], ours: Iterable[Leg]) -> list[Item]:
    """What became of each movement of `theirs` and each leg of `ours`. The two are those of the period, and whatever is
    known to belong to them; legs that lie before the book begins are left out.
    """
    legs, nameless = _by_id(ours), [leg for leg in ours if leg.reference]
    shown: dict[str, Movement] = {movement.known_as: movement for movement in theirs}
    items, used = [], set()
    for name, movement in shown.items():
        known = _legs_of(movement, legs, nameless)
        used |= {leg.provider_key for leg in known}
        if known or not _never_stood(movement, shown, legs):
            items.append(_item(name, movement, known, legs))
    for leg in ours:
        if leg.provider_key not in used and leg.id not in shown and book.would_show(leg):
            used.add(leg.provider_key)
            items.append(
                Item(Result.MISSING_THERE, leg.id, leg.recorded_at, None, leg.amount, leg.transaction, leg.provider_key)
            )
    return items


def _by_id(ours: Iterable[Leg]) -> dict[str, list[Leg]]:
    found: dict[str, list[Leg]] = {}
    for leg in ours:
        found.setdefault(leg.id, []).append(leg)
    return found


def _legs_of(movement: Movement, legs: Mapping[str, list[Leg]], nameless: list[Leg]) -> list[Leg]:
    """Mostly one; what was taken back, and was more than was due, has two."""
    known = legs.get(movement.known_as) or legs.get(movement.id, [])
    for leg in () if known else nameless:
        if (leg.reference, leg.amount) == (movement.reference.upper(), movement.amount):
            nameless.remove(leg)  # each payment has a leg of its own
            return [leg]
    return known


def _never_stood(movement: Movement, shown: Mapping[str, Movement], legs: Mapping[str, list[Leg]]) -> bool:
    """It came and went, and was never in our ledger: both together moved nothing."""
    other = movement.reverses or f"{movement.id}:reverted"
    there = shown.get(other)
    return there is not None and other not in legs and there.amount.amount == -movement.amount.amount


def _item(name: str, movement: Movement, known: Sequence[Leg], legs: Mapping[str, list[Leg]]) -> Item:
    result, total = Result.MISSING_HERE, None
    first = known[0] if known else None
    if known:
        total = Money(sum(leg.amount.amount for leg in known), known[0].amount.currency)
        result = Result.MATCHED if total == movement.amount else Result.DIFFERENT_AMOUNT
    elif movement.reverses and (stands := legs.get(movement.reverses)) and _takes_back(movement, stands):
        result, first = Result.REVERTED, stands[0]
    return Item(
        result,
        name,
        movement.at,
        movement.amount,
        total,
        first.transaction if first else None,
        first.provider_key if first else "",
        first.purpose if first else "",
        movement.id,
        movement.reference,
    )


def _takes_back(movement: Movement, stands: Sequence[Leg]) -> bool:
    """The whole of it: what takes back a part is no Transaction's, and a person looks at it."""
    return movement.amount.amount == -sum(leg.amount.amount for leg in stands)


def born(transaction: TransactionId) -> datetime:
    """When the Transaction was created, by its UUIDv7."""
    return datetime.fromtimestamp((transaction.int >> 80) / 1000, tz=UTC)


def band_of(found_at: datetime, *, at: datetime) -> str:
    """Of `BANDS`: how long money has been lying in suspense, or a break open."""
    return next(name for name, below in BANDS if (at - found_at).days < below)


def counted(items: Iterable[Item]) -> dict[str, int]:
    """How many of each result, zeros included."""
    counts = {str(result): 0 for result in Result}
    for item in items:
        counts[item.result] += 1
    return counts


def differences(items: Iterable[Item]) -> Iterator[tuple[Item, BreakKind]]:
    """Those that are none."""
    for item in items:
        if item.result is not Result.MATCHED:
            yield item, BreakKind(item.result)


def money(amount: int | None, currency: str) -> Money | None:
    """From two columns."""
    return None if amount is None else Money(amount, Currency(currency))
