"""Accounts, entries and journals. An entry names the account debited, the account credited, one amount: it balances."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Literal, TypeAlias
from uuid import UUID, uuid5

from shared_kernel.domain.errors import Conflict, NotFound, Unprocessable
from shared_kernel.domain.identifiers import EntryId, JournalId, TransactionId, UserId
from shared_kernel.domain.money import Currency, CurrencyMismatch, Money

ACCOUNTS = UUID("0192f3c1-6c1d-7a55-9a3e-5d0b64c8a1e7")  # namespace of account ids: never to be changed
REBOOKED_MOST = 3  # how often one movement at a provider can be undone and booked anew


class InvalidEntry(Unprocessable):
    """An entry of nothing, or from an account to itself."""


class InTransitOverdrawn(Conflict):
    """More would leave a customer's in-transit account than is in it."""


class AlreadyPosted(Conflict):
    """This step, or the reversal of this entry, is in the ledger already."""


class ProviderKeyUsed(Conflict):
    """This movement at the provider is in the ledger already."""


class NothingToUndo(Conflict):
    """No such journal of this Transaction stands in the ledger."""


class EntryNotFound(NotFound):
    """No entry with that id."""


class Side(Enum):
    """The side on which an account grows."""

    DEBIT = "debit"
    CREDIT = "credit"


class AccountKind(StrEnum):
    """The chart of accounts; each kind exists once for each currency, and for each owner where it has owners."""

    MPESA_WORKING = "mpesa_working"  # owner: shortcode; where customers' payments arrive
    MPESA_UTILITY = "mpesa_utility"  # owner: shortcode; where payouts leave
    MPESA_CHARGES_PAID = "mpesa_charges_paid"  # owner: shortcode
    DERIV_AGENT = "deriv_agent"  # owner: the agent credential's name
    BANK = "bank"
    CASH_IN_TRANSIT = "cash_in_transit"
    CUSTOMER_RECEIVABLE = "customer_receivable"  # owner: user id
    CUSTOMER_IN_TRANSIT = "customer_in_transit"  # owner: user id; never below zero
    SUSPENSE = "suspense"
    FX_POSITION = "fx_position"
    FX_MARGIN = "fx_margin"
    FX_GAIN_LOSS = "fx_gain_loss"
    MPESA_FEES = "mpesa_fees"
    BANK_CHARGES = "bank_charges"
    LOSSES = "losses"
    ROUNDING = "rounding"
    OWNERS_FUNDING = "owners_funding"
    OPENING_BALANCES = "opening_balances"

    @property
    def normal_side(self) -> Side:
        """Debit for assets and expenses, credit for liabilities, income and equity."""
        return Side.DEBIT if self in DEBIT_KINDS else Side.CREDIT

    @property
    def may_be_overdrawn(self) -> bool:
        """Whether its balance may be below zero. House accounts may: the provider, not we, stops them."""
        return self is not AccountKind.CUSTOMER_IN_TRANSIT


FloatKind: TypeAlias = Literal["mpesa_working", "mpesa_utility", "deriv_agent"]  # our money at a provider

DEBIT_KINDS = frozenset(
    {
        AccountKind.MPESA_WORKING,
        AccountKind.MPESA_UTILITY,
        AccountKind.MPESA_CHARGES_PAID,
        AccountKind.DERIV_AGENT,
        AccountKind.BANK,
        AccountKind.CASH_IN_TRANSIT,
        AccountKind.CUSTOMER_RECEIVABLE,
        AccountKind.FX_POSITION,
        AccountKind.MPESA_FEES,
        AccountKind.BANK_CHARGES,
        AccountKind.LOSSES,
        AccountKind.ROUNDING,
    }
)


@dataclass(frozen=True, slots=True)
class Account:
    """One account in one currency; `owner` is empty for the house's own."""

    kind: AccountKind
    currency: Currency
    owner: str = ""

    @property
    def id(self) -> UUID:
        """Derived from the name, so that it is known without asking the database."""
        return _account_id(self.kind, self.currency, self.owner)

    def __str__(self) -> str:
        return " ".join(part for part in (self.kind, self.owner, self.currency) if part)


@lru_cache(maxsize=65536)
def _account_id(kind: str, currency: str, owner: str) -> UUID:
    return uuid5(ACCOUNTS, f"{kind}/{currency}/{owner}")


def mpesa_working(shortcode: str) -> Account:
    """Where customers' payments to `shortcode` arrive."""
    return Account(AccountKind.MPESA_WORKING, Currency.KES, shortcode)


def mpesa_utility(shortcode: str) -> Account:
    """Where `shortcode`'s payouts leave."""
    return Account(AccountKind.MPESA_UTILITY, Currency.KES, shortcode)


def mpesa_charges_paid(shortcode: str) -> Account:
    """What M-Pesa's charges to `shortcode` are taken from."""
    return Account(AccountKind.MPESA_CHARGES_PAID, Currency.KES, shortcode)


def deriv_agent(agent: str) -> Account:
    """Our payment agent account at Deriv."""
    return Account(AccountKind.DERIV_AGENT, Currency.USD, agent)


def customer_in_transit(customer: UserId, currency: Currency) -> Account:
    """What we hold for a customer between the two legs of a Transaction."""
    return Account(AccountKind.CUSTOMER_IN_TRANSIT, currency, str(customer))


def customer_receivable(customer: UserId, currency: Currency) -> Account:
    """What a customer owes us: money that left and that nothing in transit covered."""
    return Account(AccountKind.CUSTOMER_RECEIVABLE, currency, str(customer))


def float_account(kind: FloatKind, owner: str) -> Account:
    """Our money at a provider: `owner` is the shortcode, or the agent credential's name."""
    by_kind = {"mpesa_working": mpesa_working, "mpesa_utility": mpesa_utility, "deriv_agent": deriv_agent}
    return by_kind[kind](owner)


def house(kind: AccountKind, currency: Currency) -> Account:
    """An account of the house without an owner: FX position, margin, rounding, suspense, owner's funding and such."""
    return Account(kind, currency)


@dataclass(frozen=True, slots=True)
class Entry:
    """`amount` debited to one account and credited to another, all in one currency.

    `provider_key` names the provider's movement behind a float leg (provider, sub-account, its transaction id) and is
    unique over the whole ledger; once its entry was undone as never moved, it is written as the next of `keys_of`.
    `reverses` names the entry that this one takes back.
    """

    debit: Account
    credit: Account
    amount: Money
    provider_key: str | None = None
    reverses: EntryId | None = None

    def __post_init__(self) -> None:
        if self.amount.amount <= 0:
            raise InvalidEntry(f"an entry moves more than nothing, not {self.amount}")
        if self.debit == self.credit:
            raise InvalidEntry(f"an entry is between two accounts, not within {self.debit}")
        if not self.debit.currency == self.credit.currency == self.amount.currency:
            raise CurrencyMismatch(f"{self.amount} can't move from {self.credit} to {self.debit}")


@dataclass(frozen=True, slots=True)
class Journal:
    """Entries that belong together and commit together. `reference` is unique: the n-th entry has `reference:n`.

    What may be undone and then happen again names the `undoing` purpose: how many journals of it the Transaction has
    becomes a part of the reference when it is written, so that at most one of it stands at any time.
    """

    id: JournalId
    purpose: str
    reference: str
    entries: tuple[Entry, ...]
    at: datetime  # when it took effect at the provider, as far as that is known
    transaction: TransactionId | None = None
    undoing: str = ""


@dataclass(frozen=True, slots=True)
class PostedEntry:
    """An entry as the ledger holds it."""

    id: EntryId
    reference: str
    entry: Entry
    transaction: TransactionId | None


def changes(entries: Iterable[Entry]) -> dict[Account, int]:
    """By how many minor units each account's credits minus debits change; in sum zero for each currency."""
    sums: dict[Account, int] = {}
    for entry in entries:
        sums[entry.debit] = sums.get(entry.debit, 0) - entry.amount.amount
        sums[entry.credit] = sums.get(entry.credit, 0) + entry.amount.amount
    return sums


def keys_of(provider_key: str) -> list[str]:
    """The keys that one movement outside can have in the ledger, first one first: it may have been undone and rebooked,
    and the key of what was undone stays used.
    """
    return [provider_key, *(f"{provider_key}:{number}" for number in range(2, 2 + REBOOKED_MOST))]


def next_key(provider_key: str, stands: Mapping[str, bool]) -> str:
    """The first of its keys that was never used; `stands` says of each that was whether its entry stands, or was undone
    as never moved. Raises `ProviderKeyUsed` while one stands, or when all of them were used.
    """
    keys = keys_of(provider_key)
    free = next((key for key in keys if key not in stands), None)
    if free is None or any(stands.get(key) for key in keys):
        raise ProviderKeyUsed("this movement at the provider is in the ledger already")
    return free


def settlements_of(name: str) -> list[str]:
    """The references that a journal may have which settles what lies in suspense under that name, first one first."""
    return keys_of(f"orphan:{name}")
