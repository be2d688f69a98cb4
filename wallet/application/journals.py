"""How a journal is made: what all of `posting.py` has in common."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared_kernel.domain.identifiers import JournalId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.ports import IdSource
from wallet.domain.ledger import Account, Entry, Journal, NothingToUndo, PostedEntry
from wallet.domain.ports import LedgerBook

KES, USD = Currency.KES, Currency.USD
Line = tuple[Account, Account, Money]  # debit, credit, amount; of zero when there is nothing to post


@dataclass(frozen=True)
class Journals:
    """Journals into the ledger. A journal's `reference` is derived from what it is for: it can't be posted twice."""

    book: LedgerBook
    new_id: IdSource

    def _post(
        self,
        purpose: str,
        lines: Iterable[Line],
        transaction: TransactionId | None,
        which: str,
        *,
        at: datetime,
        provider_key: str | None = None,
    ) -> None:
        """`which` tells it from others of that purpose: of one Transaction, or of all where there is none."""
        about = f"{transaction}:{purpose}" if transaction else purpose
        self._append(purpose, f"{about}:{which}", entries_of(lines, provider_key), transaction, at)

    def _post_standing(
        self,
        purpose: str,
        lines: Iterable[Line],
        transaction: TransactionId,
        *,
        at: datetime,
        provider_key: str | None = None,
        undoing: str = "",
    ) -> None:
        """As `_post`, for what a Transaction has at most one of, until `undoing` takes it back."""
        undoing = undoing or f"{purpose}_undone"
        entries = entries_of(lines, provider_key)
        self._append(purpose, f"{transaction}:{purpose}", entries, transaction, at, undoing)

    def _undo(self, purpose: str, transaction: TransactionId, *, at: datetime, provider_key: str | None = None) -> None:
        """The standing journal of `purpose` mirrored. Raises `NothingToUndo`."""
        standing = self.book.standing(transaction, purpose)
        if not standing:
            raise NothingToUndo(f"{transaction}: no {purpose} stands in the ledger")
        self._undo_entries(purpose, standing, transaction, at, provider_key)

    def _undo_difference(self, transaction: TransactionId, *, at: datetime) -> None:
        """That between what was due and what was paid, if one stands: with the payment that it stands beside."""
        for purpose in ("payout_short", "payout_over"):
            if standing := self.book.standing(transaction, purpose):
                self._undo_entries(purpose, standing, transaction, at)

    def _undo_entries(
        self,
        purpose: str,
        standing: Sequence[PostedEntry],
        transaction: TransactionId,
        at: datetime,
        provider_key: str | None = None,
    ) -> None:
        """`provider_key` is that of the movement by which the provider took its own leg back."""
        undone = f"{purpose}_undone"
        reference = f"{transaction}:{undone}:{standing[0].id}"
        self._append(undone, reference, tuple(mirrored(p, provider_key) for p in standing), transaction, at)

    def _append(
        self,
        purpose: str,
        reference: str,
        entries: tuple[Entry, ...],
        transaction: TransactionId | None,
        at: datetime,
        undoing: str = "",
    ) -> None:
        id = JournalId(self.new_id())
        self.book.append(Journal(id, purpose, reference, entries, at, transaction, undoing))


def mirrored(posted: PostedEntry, provider_key: str | None) -> Entry:
    """What takes it back, and names it; the key goes to the entry that is a provider's movement."""
    entry = posted.entry
    key = provider_key if entry.provider_key else None
    return Entry(entry.credit, entry.debit, entry.amount, key, reverses=posted.id)


def entries_of(lines: Iterable[Line], provider_key: str | None) -> tuple[Entry, ...]:
    """The provider's movement stands behind the first line, which then can't be zero; other zeros are left out."""
    return tuple(
        Entry(debit, credit, amount, provider_key if number == 0 else None)
        for number, (debit, credit, amount) in enumerate(lines)
        if amount or (number == 0 and provider_key)
    )
