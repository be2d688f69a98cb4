"""The wallet's `LedgerBook` in memory, under the real journals; it refuses what the database refuses."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from uuid import UUID

from shared_kernel.domain.identifiers import EntryId, TransactionId
from shared_kernel.domain.money import Currency, Money
from wallet.domain.ledger import (
    Account,
    AccountKind,
    AlreadyPosted,
    Entry,
    EntryNotFound,
    InTransitOverdrawn,
    Journal,
    PostedEntry,
    Side,
    changes,
    keys_of,
    next_key,
    settlements_of,
)

NAMES = {
    AccountKind.MPESA_WORKING: "mpesa",
    AccountKind.MPESA_UTILITY: "utility",
    AccountKind.MPESA_CHARGES_PAID: "charges paid",
    AccountKind.DERIV_AGENT: "deriv",
    AccountKind.CUSTOMER_IN_TRANSIT: "in-transit",
    AccountKind.CUSTOMER_RECEIVABLE: "receivable",
    AccountKind.FX_MARGIN: "margin",
    AccountKind.MPESA_FEES: "fees",
}
ONE_CURRENCY = {AccountKind.DERIV_AGENT}


class Line(tuple[str, str, Money, str, UUID]):  # noqa: SLOT001 - no tuple can have slots
    """One entry as tests read it: debit, credit, amount, provider key, Transaction; with the whole of it behind."""

    posted: PostedEntry
    journal: Journal

    def __deepcopy__(self, memo: object) -> "Line":
        return self  # nothing of it ever changes


class Store(Protocol):
    """What commits together."""

    entries: list[tuple[str, str, Money, str, UUID]]
    open: bool
    at_end: dict[str, Callable[[], None]]


@dataclass
class InMemoryBook:
    """Journals are collected in a unit of work and written, or refused, at its end."""

    store: Store
    collected: list[Journal] = field(default_factory=list)
    last_id: int = 1 << 96  # its own, so that the world's ids don't depend on what is posted

    def new_id(self) -> UUID:
        self.last_id += 1
        return UUID(int=self.last_id)

    def append(self, journal: Journal) -> None:
        assert self.store.open
        if "ledger" not in self.store.at_end:  # the first of this unit of work: what a failed one left is forgotten
            self.collected.clear()
            self.store.at_end["ledger"] = self._write
        self.collected.append(journal)

    def entries(self, ids: Sequence[EntryId]) -> list[PostedEntry]:
        known = {line.posted.id: line.posted for line in self._lines()}
        absent = [id for id in ids if id not in known]
        if absent:
            raise EntryNotFound(f"no ledger entry {absent[0]}")
        return [known[id] for id in ids]

    def posted(self, provider_keys: Collection[str]) -> set[str]:
        carried = {key for key, stands in self._used().items() if stands}
        carried |= {e.provider_key for j in self._open() for e in j.entries if e.provider_key}
        return {key for key in provider_keys if not carried.isdisjoint(keys_of(key))}

    def _used(self) -> dict[str, bool]:
        """The provider keys that an entry carries: whether it stands, or was undone as never moved."""
        entries = [line.posted for line in self._lines()]
        undone = {p.entry.reverses for p in entries if not p.entry.provider_key}
        return {p.entry.provider_key: p.id not in undone for p in entries if p.entry.provider_key}

    def standing(self, transaction: TransactionId, purpose: str) -> list[PostedEntry]:
        reversed_ = {line.posted.entry.reverses for line in self._lines()}
        found = [
            line
            for line in self._lines()
            if line.posted.transaction == transaction
            and line.journal.purpose == purpose
            and line.posted.id not in reversed_
        ]
        return [line.posted for line in found if line.journal.id == found[-1].journal.id]

    def settlement_of(self, name: str) -> str:
        undone = {line.posted.entry.reverses for line in self._lines()}
        stands = {line.posted.reference: line.posted.id not in undone for line in self._lines()}
        return next(one for one in settlements_of(name) if stands.get(f"{one}:1", True))

    def journals_of(self, transaction: TransactionId, purpose: str) -> int:
        written = [line.journal for line in self._lines()] + self._open()
        return len({j.id for j in written if j.transaction == transaction and j.purpose == purpose})

    def balance(self, account: Account) -> Money:
        written = [line.posted.entry for line in self._lines()]
        credits = changes([*written, *(e for j in self._open() for e in j.entries)]).get(account, 0)
        return Money(credits if account.kind.normal_side is Side.CREDIT else -credits, account.currency)

    def _open(self) -> list[Journal]:
        return self.collected if "ledger" in self.store.at_end else []

    def _lines(self) -> Iterator[Line]:
        return (line for line in self.store.entries if isinstance(line, Line))

    def _write(self) -> None:
        undone: dict[tuple[UUID | None, str], set[UUID]] = {}
        for line in self._lines():
            undone.setdefault((line.journal.transaction, line.journal.purpose), set()).add(line.journal.id)
        for journal in self.collected:
            number = 1 + len(undone.get((journal.transaction, journal.undoing), ()))
            self._write_journal(journal, f"{journal.reference}:{number}" if journal.undoing else journal.reference)
            undone.setdefault((journal.transaction, journal.purpose), set()).add(journal.id)
        self._refuse_overdrawn()

    def _write_journal(self, journal: Journal, reference: str) -> None:
        known = list(self._lines())
        used = self._used()
        references = {line.posted.reference for line in known}
        reversed_ = {line.posted.entry.reverses for line in known} - {None}
        for number, entry in enumerate(journal.entries, 1):
            if entry.provider_key in used:
                entry = replace(entry, provider_key=next_key(entry.provider_key, used))
            if f"{reference}:{number}" in references or entry.reverses in reversed_:
                raise AlreadyPosted(f"{reference} was posted before")
            self.store.entries.append(self._line(journal, f"{reference}:{number}", entry))

    def _line(self, journal: Journal, reference: str, entry: Entry) -> Line:
        about = journal.transaction or UUID(int=0)
        line = Line((name(entry.debit), name(entry.credit), entry.amount, entry.provider_key or "", about))
        line.posted = PostedEntry(EntryId(self.new_id()), reference, entry, journal.transaction)
        line.journal = journal
        return line

    def _refuse_overdrawn(self) -> None:
        for account, credits in changes(line.posted.entry for line in self._lines()).items():
            if credits < 0 and not account.kind.may_be_overdrawn:
                raise InTransitOverdrawn(f"{account} is {credits}")


def name(account: Account) -> str:
    """As in `in-transit`, `in-transit usd`, `fx kes`, `fx usd`; whose it is, is not said."""
    if account.kind is AccountKind.FX_POSITION:
        return f"fx {account.currency.lower()}"
    known = NAMES.get(account.kind, str(account.kind))
    return f"{known} usd" if account.currency is Currency.USD and account.kind not in ONE_CURRENCY else known
