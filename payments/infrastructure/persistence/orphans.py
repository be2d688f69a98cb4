"""`orphan_movements` over Django."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from payments import models
from payments.domain.orphan import Orphan, Provider
from shared_kernel.infrastructure.rows import insert


@dataclass(frozen=True)
class DjangoOrphanBook:
    """Joins the caller's unit of work."""

    def known(self, provider: Provider, account: str, movements: Collection[str]) -> set[str]:
        rows = models.OrphanMovement.objects.filter(provider=provider, account=account, movement__in=list(movements))
        return set(rows.values_list("movement", flat=True))

    def add(self, orphans: Sequence[Orphan]) -> None:
        insert(
            [
                models.OrphanMovement(
                    id=orphan.id,
                    provider=orphan.provider,
                    account=orphan.account,
                    movement=orphan.movement,
                    amount=orphan.amount.amount,
                    currency=orphan.amount.currency,
                    reference=orphan.reference[:128],
                    transaction_id=orphan.transaction,
                    moved_at=orphan.moved_at,
                    found_at=orphan.found_at,
                    owner="finance",
                )
                for orphan in orphans
            ]
        )
