"""What posting asks of the world."""

from collections.abc import Collection, Sequence
from typing import Protocol

from shared_kernel.domain.identifiers import EntryId, TransactionId
from shared_kernel.domain.money import Money
from wallet.domain.ledger import Account, Journal, PostedEntry


class LedgerBook(Protocol):
    """The ledger's store."""

    def append(self, journal: Journal) -> None:
        """Into the caller's unit of work, written at its end together with the balances that it changes.

        That end raises `InTransitOverdrawn`, `AlreadyPosted`, `ProviderKeyUsed`; nothing of the unit of work is kept.
        """

    def entries(self, ids: Sequence[EntryId]) -> list[PostedEntry]:
        """Entries that are in the ledger, in the order of `ids`. Raises `EntryNotFound`."""

    def posted(self, provider_keys: Collection[str]) -> set[str]:
        """Those that some entry carries; one SELECT. Includes what this unit of work collected."""

    def standing(self, transaction: TransactionId, purpose: str) -> list[PostedEntry]:
        """The newest journal of that purpose that nothing reversed, in its order; empty if there is none.

        Not what this unit of work collected: that is written, and then standing, at its end.
        """

    def journals_of(self, transaction: TransactionId, purpose: str) -> int:
        """How many journals of that purpose a Transaction has. Includes what this unit of work collected."""

    def balance(self, account: Account) -> Money:
        """On the account's normal side; zero for one that was never used. Includes what this unit of work collected."""
