"""Money at a provider that no Transaction of ours explains: in suspense until people settle it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Money


class Provider(StrEnum):
    """Whose book shows it."""

    MPESA = "mpesa"
    DERIV = "deriv"


@dataclass(frozen=True, slots=True)
class Orphan:
    """One movement in a provider's book: `account` is our shortcode or agent there, `movement` the provider's id.

    `amount` is signed: above zero it came in. `transaction` is the one whose reference it carries, if any: a second
    payment under one reference, say.
    """

    id: UUID
    provider: Provider
    account: str
    movement: str
    amount: Money
    moved_at: datetime
    found_at: datetime
    reference: str = field(default="", repr=False)
    transaction: TransactionId | None = None

    @property
    def provider_key(self) -> str:
        """The ledger's unique key of this movement."""
        return f"{self.provider}:{self.account}:{self.movement}"


class OrphanBook(Protocol):
    """`orphan_movements`; joins the caller's unit of work."""

    def known(self, provider: Provider, account: str, movements: Collection[str]) -> set[str]:
        """Those that were found before; one SELECT."""

    def add(self, orphans: Sequence[Orphan]) -> None:
        """One INSERT."""

    def mark(self, settled: Mapping[str, datetime | None]) -> list[UUID]:
        """By provider key: since when each is settled, None for open. Those that it changed; one SELECT, one UPDATE."""
