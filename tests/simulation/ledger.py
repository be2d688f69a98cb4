"""The wallet's `LedgerBook` in memory, under the real journals: kept by account, so that a posting costs no search."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from shared_kernel.domain.identifiers import EntryId, TransactionId
from shared_kernel.domain.money import Currency, Money
from tests.simulation.store import Store
from wallet.application.posting import Posting
from wallet.domain.ledger import (
    Account,
    AlreadyPosted,
    Entry,
    EntryNotFound,
    InTransitOverdrawn,
    Journal,
    PostedEntry,
    ProviderKeyUsed,
    Side,
    settlements_of,
)

MORE = "ledger"  # its place at the unit of work's end


@dataclass(frozen=True, slots=True)
class Written:
    """A journal as it stands in the ledger."""

    journal: Journal
    posted: tuple[PostedEntry, ...]


class Book:
    """Journals are collected in a unit of work and written, or refused, at its end."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.by_entry = store.table("ledger_entries")  # by id
        self.references = store.table("ledger_entries.reference")
        self.keys = store.table("ledger_entries.provider_key")  # to the entry
        self.reversals = store.table("ledger_entries.reverses")
        self.credits = store.table("ledger_balances")  # credits minus debits
        self.journals = store.table("ledger_journals")  # by Transaction
        self.pending: list[Journal] = []
        self.last_id = 1 << 96

    def new_id(self) -> UUID:
        self.last_id += 1
        return UUID(int=self.last_id)

    def append(self, journal: Journal) -> None:
        assert self.store.is_open
        if MORE not in self.store.at_end:
            self.pending.clear()
            self.store.at_end[MORE] = self._write
        self.pending.append(journal)

    def entries(self, ids: Sequence[EntryId]) -> list[PostedEntry]:
        if absent := [id for id in ids if id not in self.by_entry]:
            raise EntryNotFound(f"no ledger entry {absent[0]}")
        return [self.by_entry[id] for id in ids]

    def posted(self, provider_keys: Collection[str]) -> set[str]:
        collected = {entry.provider_key for journal in self.collected() for entry in journal.entries}
        return {key for key in provider_keys if key in self.keys or key in collected}

    def standing(self, transaction: TransactionId, purpose: str) -> list[PostedEntry]:
        written = [w for w in self.journals.get(transaction, ()) if w.journal.purpose == purpose]
        for each in reversed(written):
            if left := [posted for posted in each.posted if posted.id not in self.reversals]:
                return left
        return []

    def settlement_of(self, name: str) -> str:
        return settlements_of(name)[0]  # none is undone here

    def journals_of(self, transaction: TransactionId, purpose: str) -> int:
        written = [w.journal for w in self.journals.get(transaction, ())]
        return sum(j.purpose == purpose for j in written) + sum(
            j.purpose == purpose and j.transaction == transaction for j in self.collected()
        )

    def balance(self, account: Account) -> Money:
        credits: int = self.credits.get(account, 0)
        for journal in self.collected():
            for entry in journal.entries:
                credits += (entry.credit == account) * entry.amount.amount - (
                    entry.debit == account
                ) * entry.amount.amount
        return Money(credits if account.kind.normal_side is Side.CREDIT else -credits, account.currency)

    def balances(self, accounts: Collection[Account]) -> dict[Account, Money]:
        return {account: self.balance(account) for account in accounts}

    def collected(self) -> list[Journal]:
        return self.pending if MORE in self.store.at_end else []

    def _write(self) -> None:
        changed: list[Account] = []
        for journal in self.pending:
            self._write_journal(journal, changed)
        for account in changed:
            if not account.kind.may_be_overdrawn and self.credits[account] < 0:
                raise InTransitOverdrawn(f"{account} is {self.credits[account]}")

    def _write_journal(self, journal: Journal, changed: list[Account]) -> None:
        put, reference = self.store.put, journal.reference
        known = self.journals.get(journal.transaction, ())
        if journal.undoing:
            undone = {w.journal.id for w in known if w.journal.purpose == journal.undoing}
            reference = f"{reference}:{1 + len(undone)}"
        posted = []
        for number, entry in enumerate(journal.entries, 1):
            self._refuse(entry, f"{reference}:{number}")
            each = PostedEntry(EntryId(self.new_id()), f"{reference}:{number}", entry, journal.transaction)
            put(self.by_entry, each.id, each)
            put(self.references, each.reference, each.id)
            if entry.provider_key:
                put(self.keys, entry.provider_key, each)
            if entry.reverses:
                put(self.reversals, entry.reverses, each.id)
            put(self.credits, entry.debit, self.credits.get(entry.debit, 0) - entry.amount.amount)
            put(self.credits, entry.credit, self.credits.get(entry.credit, 0) + entry.amount.amount)
            changed += (entry.debit, entry.credit)
            posted.append(each)
        put(self.journals, journal.transaction, (*known, Written(journal, tuple(posted))))
        if journal.transaction is not None:
            self.store.touched.add(journal.transaction)

    def _refuse(self, entry: Entry, reference: str) -> None:
        if entry.provider_key and entry.provider_key in self.keys:
            raise ProviderKeyUsed(f"{entry.provider_key} was posted before")
        if reference in self.references or entry.reverses in self.reversals:
            raise AlreadyPosted(f"{reference} was posted before")


class Ledger(Posting):
    """The wallet's own journals over the book in memory."""

    def __init__(self, store: Store) -> None:
        book = Book(store)
        super().__init__(book=book, new_id=book.new_id)


def trial_balance(book: Book) -> dict[Currency, int]:
    """The sum over all accounts, of each currency."""
    sums: dict[Currency, int] = {}
    for account, credits in book.credits.items():
        sums[account.currency] = sums.get(account.currency, 0) + credits
    return sums
