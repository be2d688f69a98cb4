"""Posting: what the sagas prove, written as journals. Each method joins the caller's unit of work."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from shared_kernel.domain.identifiers import EntryId, UserId
from shared_kernel.domain.money import Currency, Money
from wallet.application.deposit_journals import DepositJournals
from wallet.application.suspense_journals import SuspenseJournals
from wallet.application.withdrawal_journals import WithdrawalJournals
from wallet.domain.ledger import (
    Account,
    AccountKind,
    Entry,
    Side,
    customer_receivable,
    deriv_agent,
    house,
    mpesa_utility,
)


@dataclass(frozen=True)
class Posting(DepositJournals, WithdrawalJournals, SuspenseJournals):
    """The ledger as the other contexts have it: all journals, what takes them back, and balances."""

    def post_opening(
        self,
        account: Account,
        amount: Money,
        *,
        reference: str,
        at: datetime,
        source: AccountKind = AccountKind.OWNERS_FUNDING,
        provider_key: str | None = None,
    ) -> None:
        """`amount` into `account` against owner's funding, or against `source` (opening balances)."""
        other = house(source, amount.currency)
        grows_by_debit = account.kind.normal_side is Side.DEBIT
        lines = [(account, other, amount) if grows_by_debit else (other, account, amount)]
        self._post("opening", lines, None, reference, at=at, provider_key=provider_key)

    def reverse(
        self, entries: Sequence[EntryId], *, at: datetime, provider_keys: Mapping[EntryId, str] | None = None
    ) -> None:
        """Takes entries of one Transaction back by mirrored ones that name them, in one journal.

        `provider_keys` are those of the movements that the provider made for it. An entry is reversed once: a repeat
        raises `AlreadyPosted` at the end of the unit of work. Raises `EntryNotFound`.
        """
        keys = provider_keys or {}
        posted = self.book.entries(entries)
        mirrored = tuple(
            Entry(p.entry.credit, p.entry.debit, p.entry.amount, keys.get(p.id), reverses=p.id) for p in posted
        )
        self._append("reversal", f"reversal:{posted[0].id}", mirrored, posted[0].transaction, at)

    def posted(self, provider_keys: Collection[str]) -> set[str]:
        """Those movements that are in the ledger, as whatever; one SELECT, exact up to this moment."""
        return self.book.posted(provider_keys)

    def balance(self, account: Account) -> Money:
        """On the account's normal side, exact up to this moment of the unit of work."""
        return self.book.balance(account)

    def owing(self, customers: Collection[UserId]) -> set[UserId]:
        """Those who owe us, in whatever currency; one SELECT, exact up to this moment of the unit of work.

        It stays true only where each of them is locked by all who post: see `newly_owing`.
        """
        owed = {customer_receivable(customer, currency): customer for customer in customers for currency in Currency}
        return {owed[account] for account, balance in self.book.balances(owed).items() if balance.amount > 0}

    def newly_owing(self) -> set[UserId]:
        """Those who will owe more by what this unit of work has posted so far; asks nothing."""
        return {
            UserId(UUID(entry.debit.owner))
            for journal in self.book.collected()
            for entry in journal.entries
            if entry.debit.kind is AccountKind.CUSTOMER_RECEIVABLE
        }

    def deriv_balance(self, agent: str) -> Money:
        """What the ledger says the agent account holds, in USD."""
        return self.book.balance(deriv_agent(agent))

    def mpesa_balance(self, shortcode: str) -> Money:
        """What the ledger says the utility account, where payouts leave, holds, in KES."""
        return self.book.balance(mpesa_utility(shortcode))
