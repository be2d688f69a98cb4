"""What the providers say that our accounts hold, held against the ledger; and a drift between the two."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payments.domain.orphan import Provider
from payments.domain.reconciliation import FloatAccountKind
from shared_kernel.domain.money import Currency

DRIFTS_AFTER = 2  # looks in a row: one may fall between a movement and its entry
M = FloatAccountKind
M_PESAS: Mapping[FloatAccountKind, str] = {  # by M-Pesa's names
    M.MPESA_WORKING: "Working Account",
    M.MPESA_UTILITY: "Utility Account",
    M.MPESA_CHARGES_PAID: "Charges Paid Account",
}
# What is held against each other as one: M-Pesa may move money between a shortcode's working and utility account.
TOGETHER: Sequence[tuple[FloatAccountKind, ...]] = (
    (M.MPESA_WORKING, M.MPESA_UTILITY),
    (M.MPESA_CHARGES_PAID,),
    (M.DERIV_AGENT,),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One account at one moment, in minor units. `ledger` is what ours says when the provider is asked, `coming` and
    `going` what is sent and not booked here, by then or until it answers. `amount` is None while that is awaited.
    """

    id: UUID
    provider: Provider
    account: str
    sub_account: FloatAccountKind
    currency: Currency
    asked_at: datetime
    ledger: int
    coming: int
    going: int
    question: UUID | None = None
    amount: int | None = None
    as_of: datetime | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """Accounts that are held against the ledger as one, at one moment."""

    looks: Sequence[Look]

    @property
    def first(self) -> Look:
        return self.looks[0]

    @property
    def sub_accounts(self) -> str:
        """Their names."""
        return "+".join(look.sub_account for look in self.looks)

    @property
    def name(self) -> str:
        """Of what there is at most one open drift."""
        return name_of(self.first.provider, self.first.account, self.sub_accounts)

    @property
    def as_of(self) -> datetime:
        """When the provider told."""
        assert self.first.as_of is not None
        return self.first.as_of

    @property
    def difference(self) -> int:
        """Theirs less ours."""
        return sum((look.amount or 0) - look.ledger for look in self.looks)

    @property
    def unexplained(self) -> int:
        """How much of the difference nothing in flight explains; zero: no drift. Attempts that may have moved are the
        shortcode's, whichever of its accounts they move on, so that the largest sum of the group counts, once.
        """
        coming, going = max(look.coming for look in self.looks), max(look.going for look in self.looks)
        if self.difference > coming:
            return self.difference - coming
        return min(self.difference + going, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """From the first look that found it, `since`, until one that did not, `over_at`."""

    id: UUID
    provider: Provider
    account: str
    sub_accounts: str
    currency: Currency
    since: datetime
    looks: int
    difference: int
    unexplained: int
    seen_at: datetime
    alerted_at: datetime | None = None
    over_at: datetime | None = None

    @property
    def name(self) -> str:
        """Of what it is the one that is open."""
        return name_of(self.provider, self.account, self.sub_accounts)


class BalanceBook(Protocol):
    """`provider_balances` and `balance_drifts`; everything joins the caller's unit of work."""

    def add(self, looks: Sequence[Look]) -> None:
        """One INSERT."""

    def awaited(self, since: datetime) -> list[Look]:
        """Those asked about since then that were not answered, locked; one SELECT."""

    def answered(self, looks: Sequence[Look]) -> None:
        """Stores amount, moment, and what was in flight until then; one UPDATE."""

    def open_drift(self, name: str) -> Drift | None:
        """Locked."""

    def open_beside(self, names: Collection[str]) -> list[Drift]:
        """Open drifts of anything else, locked; one SELECT, of not too many."""

    def save(self, drift: Drift) -> None:
        """A new one, or what became of a known one."""


def together(looks: Sequence[Look]) -> list[Seen]:
    """The answered looks of one asking as they are held against the ledger. A group of which one account is missing is
    left out: what lies on the others says nothing.
    """
    by_kind = {look.sub_account: look for look in looks}
    return [Seen([by_kind[kind] for kind in kinds]) for kinds in TOGETHER if by_kind.keys() >= set(kinds)]


def names_of(provider: Provider, account: str) -> list[str]:
    """Of what is held against the ledger there, as `Seen.name` has them."""
    groups = [kinds for kinds in TOGETHER if (kinds[0] in M_PESAS) is (provider is Provider.MPESA)]
    return [name_of(provider, account, "+".join(kinds)) for kinds in groups]


def name_of(provider: Provider, account: str, sub_accounts: str) -> str:
    """Of what there is at most one open drift."""
    return f"{provider}:{account}:{sub_accounts}"
