"""What posting and treasury ask of the world."""

from collections.abc import Collection, Sequence
from typing import Protocol
from uuid import UUID

from shared_kernel.domain.identifiers import EntryId, TransactionId
from shared_kernel.domain.money import Money
from wallet.domain.ledger import Account, Journal, PostedEntry
from wallet.domain.treasury import Movement


class LedgerBook(Protocol):
    """The ledger's store."""

    def append(self, journal: Journal) -> None:
        """Into the caller's unit of work, written at its end together with the balances that it changes.

        A provider key whose entry was undone as never moved is written as the next of `keys_of`. That end raises
        `InTransitOverdrawn`, `AlreadyPosted`, `ProviderKeyUsed`; nothing of the unit of work is kept.
        """

    def entries(self, ids: Sequence[EntryId]) -> list[PostedEntry]:
        """Entries that are in the ledger, in the order of `ids`. Raises `EntryNotFound`."""

    def posted(self, provider_keys: Collection[str]) -> set[str]:
        """Those that some entry carries which stands, as any of `keys_of`: what was undone by an entry without a
        provider key had never moved. One SELECT. Includes what this unit of work collected.
        """

    def standing(self, transaction: TransactionId, purpose: str) -> list[PostedEntry]:
        """The newest journal of that purpose that nothing reversed, in its order; empty if there is none.

        Not what this unit of work collected: that is written, and then standing, at its end.
        """

    def settlement_of(self, name: str) -> str:
        """The reference of the journal that settles what lies in suspense under that name: of the one that stands, so
        that no second one can be written, else the first that was never used; one SELECT. Raises `AlreadyPosted` when
        all of them were used and undone.
        """

    def journals_of(self, transaction: TransactionId, purpose: str) -> int:
        """How many journals of that purpose a Transaction has. Includes what this unit of work collected."""

    def balance(self, account: Account) -> Money:
        """On the account's normal side; zero for one that was never used. Includes what this unit of work collected."""

    def balances(self, accounts: Collection[Account]) -> dict[Account, Money]:
        """As `balance`, of each of these; one SELECT."""

    def collected(self) -> Sequence[Journal]:
        """What this unit of work will write at its end; asks nothing."""


class TreasuryBook(Protocol):
    """`treasury_movements`, and the entries that belong to them; everything joins the caller's unit of work."""

    def add(self, movement: Movement) -> None:
        """One INSERT."""

    def save(self, movement: Movement) -> None:
        """What changes of it; one UPDATE."""

    def get(self, id: UUID) -> Movement:
        """Locked. Raises `MovementNotFound`."""

    def one_at_a_time(self) -> None:
        """Until this unit of work ends no other one approves: what was checked stays true until it commits."""

    def standing(self, movement: Movement) -> list[PostedEntry]:
        """The entries of a movement that nothing reversed, oldest first."""

    def undone(self, provider_keys: Collection[str]) -> set[str]:
        """Those of these keys whose entry was reversed as never moved."""

    def in_suspense(self, provider_key: str) -> PostedEntry | None:
        """The entry by which that movement outside lies in suspense, under whichever of its keys; None if it does not,
        or was settled.
        """

    def is_opened(self, account: Account) -> bool:
        """Whether it has an opening balance that stands."""
