"""Rows that have outlived their retention, deleted in batches with an audit row each; and the kernel's own of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Model, Q, QuerySet

from shared_kernel.domain.ports import AuditRecord
from shared_kernel.infrastructure.persistence import DjangoAuditLog, now, unit_of_work
from shared_kernel.models import IdempotencyKey, RateLimitCounter

PAGE = 500
EVENT_KEYS = ("event:", "event;")  # from and below: the scopes that begin with the first; ";" is next after ":"
MONEY_STEPS = (
    "event:payments.",
    "event:wallet.",
)  # steps of the contexts that move money; a step is named after its own


@dataclass(frozen=True)
class Expired:
    """Rows that nothing needs after `settings.RETENTION_DAYS[name]`; `rows` is given the moment before which they
    ended. `delete` takes their keys and may delete what hangs on them first.
    """

    name: str
    rows: Callable[[datetime], QuerySet[Any]]
    delete: Callable[[Sequence[Any]], object]

    def count(self) -> int:
        """How many there are now."""
        return self.rows(self._before()).count()

    def purge_some(self) -> int:
        """Deletes up to `PAGE` of them, in a commit of its own; how many, 0 once none is left."""
        before = self._before()
        with unit_of_work():
            keys = list(self.rows(before).order_by("pk").values_list("pk", flat=True)[:PAGE])
            if keys:
                self.delete(keys)
                details = {"rows": len(keys), "before": before.isoformat()}
                record = AuditRecord("retention.purged", "retention", self.name, now(), details=details)
                DjangoAuditLog().append([record])
        return len(keys)

    def _before(self) -> datetime:
        return now() - timedelta(days=settings.RETENTION_DAYS[self.name])


def rows_of(model: type[Model]) -> Callable[[Sequence[Any]], object]:
    """A `delete` for rows on which nothing hangs."""
    return lambda keys: model._default_manager.filter(pk__in=keys).delete()


def _old_keys(before: datetime) -> QuerySet[IdempotencyKey]:
    """Marks of consumed events. A key that a customer sent, or that a step of money left, is never among them."""
    first, below = EVENT_KEYS
    of_money = Q()
    for step in MONEY_STEPS:
        of_money |= Q(scope__startswith=step)
    return IdempotencyKey.objects.filter(scope__gte=first, scope__lt=below, created_at__lt=before).exclude(of_money)


expired_keys = Expired("idempotency_keys", _old_keys, rows_of(IdempotencyKey))


def _old_counters(before: datetime) -> QuerySet[RateLimitCounter]:
    return RateLimitCounter.objects.filter(expires_at__lt=before)


expired_counters = Expired("rate_limit_counters", _old_counters, rows_of(RateLimitCounter))
