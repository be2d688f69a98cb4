"""The delivery side of `domain_events`: what the relay claims, and what became of each event."""

import json
import logging
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Case, QuerySet, TextField, Value, When
from django.db.models.functions import Cast

from shared_kernel import models
from shared_kernel.domain.ports import Clock, Context, Letter, Selection
from shared_kernel.infrastructure.logs import redact
from shared_kernel.infrastructure.persistence import now

log = logging.getLogger(__name__)

DUE_AT_ONCE = 100  # events that come round again leave most of a batch to the new ones
PUT_OFF_FOR = timedelta(days=1)  # from its occurrence on; after it an event that is put off uses up its retries
MOST_ERROR = 20_000  # characters of a traceback that are kept, the last ones
LEASE = "relay"


@dataclass(frozen=True)
class DjangoOutboxQueue:
    """Claims go by `published_at IS NULL` and never by a cursor: numbers are given before commits, and these overtake.

    `retry_after` tells from the number of failures how long an event waits, None to park it.
    """

    retry_after: Callable[[int], timedelta | None]
    clock: Clock = now

    @contextmanager
    def claim(self, most: int, confirm: Collection[str], within: timedelta) -> Iterator[list[Letter] | None]:
        for _ in range(2):
            with transaction.atomic(durable=True):
                if _alone():
                    yield from self._claimed(most, confirm, within)
                    return
            if not _made_lease():
                break
        yield None

    def _claimed(self, most: int, confirm: Collection[str], within: timedelta) -> Iterator[list[Letter]]:
        rows = {row[0]: row for row in _read(_due(self.clock()))[:DUE_AT_ONCE]}
        rows |= {row[0]: row for row in _read(_unpublished())[: most - len(rows)]}
        yield [_letter(*rows[seq]) for seq in sorted(rows)]
        if rows:
            at = self.clock()
            again = Case(When(type__in=sorted(confirm), then=Value(at + within))) if confirm else None
            models.DomainEvent.objects.filter(seq__in=rows).update(published_at=at, next_attempt_at=again)

    def waiting(self) -> bool:
        return _unpublished().exists()

    def starting(self, id: UUID) -> bool:
        return self._count(id, "its worker ended without finishing it, each time") is None

    def delivered(self, ids: Sequence[UUID]) -> None:
        models.DomainEvent.objects.filter(id__in=ids, parked_at=None).update(next_attempt_at=None)

    def failed(self, id: UUID, error: Exception, put_off: timedelta | None = None) -> None:
        connection.close_if_unusable_or_obsolete()  # the error may have been that the database went away
        text = "".join(traceback.format_exception(error))
        if put_off is not None and self._put_off(id, redact(text)[-MOST_ERROR:], put_off):
            log.info("event_put_off", extra={"event_id": str(id), "error": type(error).__name__})
            return
        parked = self._count(id, redact(text)[-MOST_ERROR:])
        log.log(
            logging.WARNING if parked is None else logging.ERROR,
            "event_failed" if parked is None else "event_parked",
            extra={"event_id": str(id), "error": type(error).__name__},
        )

    def _put_off(self, id: UUID, error: str, wait: timedelta) -> bool:
        """Whether it was: one that is a day old, or parked, is not. One UPDATE; what stays is to be found by `_due`."""
        at = self.clock()
        events = models.DomainEvent.objects.filter(id=id, parked_at=None, occurred_at__gt=at - PUT_OFF_FOR)
        return bool(events.update(next_attempt_at=at + wait, error=error))

    def _count(self, id: UUID, error: str) -> datetime | None:
        """Counts an attempt; since when the event is parked, if it is."""
        at = self.clock()
        with transaction.atomic(durable=True):
            event = models.DomainEvent.objects.select_for_update().filter(id=id).first()
            if event is None:
                return at
            event.attempts += 1
            event.error = error
            wait = self.retry_after(event.attempts)
            event.next_attempt_at = None if wait is None or event.parked_at else at + wait
            if wait is None:
                event.parked_at = event.parked_at or at
                event.published_at = event.published_at or at
            event.save(update_fields=["attempts", "error", "next_attempt_at", "parked_at", "published_at"])
        return event.parked_at


def _made_lease() -> bool:
    """Whether it was missing. In a commit of its own: relays must not wait here for the first one's publishing."""
    if models.Lease.objects.filter(name=LEASE).exists():
        return False
    models.Lease.objects.bulk_create([models.Lease(name=LEASE, expires_at=now())], ignore_conflicts=True)
    return True


def _alone() -> bool:
    """Whether this relay is the only one, until the transaction ends. SQLite has one writer at a time anyway."""
    return bool(models.Lease.objects.select_for_update(skip_locked=_skips()).filter(name=LEASE))


def _skips() -> bool:
    return bool(connection.features.has_select_for_update_skip_locked)


@dataclass(frozen=True)
class DjangoParkedEvents:
    """Staff's side of the delivery columns."""

    def count(self, selected: Selection) -> int:
        return _selected(selected).count()

    def release(self, ids: Sequence[UUID]) -> list[UUID]:
        found = self._parked(ids)
        models.DomainEvent.objects.filter(id__in=found).update(
            parked_at=None, discarded_at=None, published_at=None, next_attempt_at=None, attempts=0
        )
        return found

    def discard(self, ids: Sequence[UUID], *, at: datetime) -> list[UUID]:
        found = self._parked(ids, discarded_at=None)
        models.DomainEvent.objects.filter(id__in=found).update(discarded_at=at)
        return found

    def republish(self, selected: Selection, *, after: int, most: int) -> tuple[int, int]:
        events = _selected(selected).filter(seq__gt=after).order_by("seq").select_for_update()
        seqs = list(events.values_list("seq", flat=True)[:most])
        models.DomainEvent.objects.filter(seq__in=seqs).update(published_at=None, next_attempt_at=None, attempts=0)
        return len(seqs), seqs[-1] if seqs else after

    @staticmethod
    def _parked(ids: Sequence[UUID], **conditions: Any) -> list[UUID]:
        events = models.DomainEvent.objects.filter(id__in=ids, parked_at__isnull=False, **conditions)
        return list(events.order_by("seq").select_for_update().values_list("id", flat=True))


def _selected(selected: Selection) -> "QuerySet[models.DomainEvent]":
    """Those that a replay would publish again."""
    given = {
        "id": selected.id,
        "type": selected.type,
        "occurred_at__gte": selected.since,
        "occurred_at__lt": selected.until,
    }
    return models.DomainEvent.objects.filter(parked_at=None, **{name: value for name, value in given.items() if value})


# One condition each, so that no optimizer prefers to walk through the whole table: a parked event is neither.
def _unpublished() -> "QuerySet[models.DomainEvent]":
    return models.DomainEvent.objects.filter(published_at=None)


def _due(at: datetime) -> "QuerySet[models.DomainEvent]":
    """Published before, and neither delivered nor parked by the time that was set."""
    return models.DomainEvent.objects.filter(next_attempt_at__lte=at)


def _read(events: "QuerySet[models.DomainEvent]") -> Any:
    """Rows for `_letter`, of one snapshot and not locked: the lease keeps other relays out.

    A scan that skips locked rows can miss the first event of a transaction that commits meanwhile and take the second,
    and so turn their order. JSON stays text: taking it apart to put it together again would be half of the work.
    """
    rows = events.order_by("seq")
    rows = rows.annotate(payload_text=Cast("payload", TextField()), context_text=Cast("context", TextField()))
    return rows.values_list("seq", "id", "type", "aggregate_id", "payload_text", "context_text")


def _letter(seq: int, id: UUID, type: str, aggregate_id: UUID, payload: str, context: str) -> Letter:
    return Letter(id, type, aggregate_id, payload, _context(context))


@lru_cache(maxsize=1024)
def _context(text: str) -> Context:
    return Context.known(json.loads(text))
