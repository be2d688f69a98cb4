"""`orphan_movements` over Django."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import or_
from uuid import UUID

from django.db.models import Q

from payments import models
from payments.domain.orphan import Orphan, Provider
from shared_kernel.infrastructure.rows import insert, update


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

    def mark(self, settled: Mapping[str, datetime | None]) -> list[UUID]:
        names = [dict(zip(("provider", "account", "movement"), key.split(":", 2), strict=True)) for key in settled]
        if not names:
            return []
        rows = models.OrphanMovement.objects.select_for_update().filter(reduce(or_, (Q(**name) for name in names)))
        changed = []
        for row in rows.order_by("pk"):
            at = settled[f"{row.provider}:{row.account}:{row.movement}"]
            if (at is None) != (row.settled_at is None):
                row.settled_at = at
                changed.append(row)
        update(changed, ("settled_at",))
        return [row.pk for row in changed]
