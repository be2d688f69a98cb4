"""The kernel's read side: how the outbox is doing, which events are parked, and which seal holds a row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connection

from shared_kernel import models

MOST = 100_000  # counting stops here: a reader wants to know "how bad", and a scrape must stay cheap


@dataclass(frozen=True, slots=True)
class OutboxState:
    """`waiting` events (at most `MOST`), the `oldest` of them, and how many are `parked` for a person."""

    waiting: int
    oldest: datetime | None
    parked: int


def outbox_state() -> OutboxState:
    """Three short reads over indexes."""
    waiting = models.DomainEvent.objects.filter(published_at=None)
    parked = models.DomainEvent.objects.filter(parked_at__isnull=False, discarded_at=None)
    return OutboxState(waiting[:MOST].count(), oldest_waiting(), parked[:MOST].count())


def oldest_waiting() -> datetime | None:
    """When the event that waits longest for the relay happened; `None` when nothing waits."""
    waiting = models.DomainEvent.objects.filter(published_at=None)  # one condition: more would walk the whole table
    return waiting.order_by("seq").values_list("occurred_at", flat=True).first()


def seals_of_rows(chain: str, seqs: Sequence[int]) -> dict[int, tuple[int, str]]:
    """Number and hash of the seal of each of these rows of the table `chain`; those not sealed yet are left out."""
    if not seqs:
        return {}
    table, marks = connection.ops.quote_name(chain), ", ".join(["%s"] * len(seqs))
    seal = "SELECT id FROM seals WHERE chain = %s AND last_seq >= r.seq ORDER BY last_seq LIMIT 1"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT r.seq, s.number, s.hash FROM {table} r JOIN seals s ON s.id = ({seal}) "  # noqa: S608
            f"WHERE r.seq IN ({marks}) AND s.first_seq <= r.seq",
            [chain, *seqs],
        )
        return {seq: (number, hash) for seq, number, hash in cursor.fetchall()}


def parked_events(most: int) -> list[dict[str, Any]]:
    """The parked events that nobody has discarded, oldest first; `error` is the last line of the traceback."""
    rows = models.DomainEvent.objects.filter(parked_at__isnull=False, discarded_at=None).order_by("seq")
    fields = ("id", "type", "aggregate_id", "occurred_at", "parked_at", "attempts", "error")
    return [row | {"error": row["error"].strip().rpartition("\n")[2]} for row in rows.values(*fields)[:most]]


def event(id: UUID) -> dict[str, Any] | None:
    """All that is known of one event, its traceback included."""
    row = models.DomainEvent.objects.filter(id=id).values().first()
    return dict(row) if row else None


def events_of(aggregate_id: UUID) -> list[dict[str, Any]]:
    """An aggregate's events as they are stored, with what became of their delivery, in their order."""
    return [dict(row) for row in models.DomainEvent.objects.filter(aggregate_id=aggregate_id).order_by("seq").values()]


def audit_of(targets: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """The audit rows of these targets (type, id), in the order in which they were written; one SELECT."""
    wanted = set(targets)
    rows = models.AuditLog.objects.filter(
        target_type__in={type for type, _ in wanted}, target_id__in={id for _, id in wanted}
    )
    return [dict(row) for row in rows.order_by("seq").values() if (row["target_type"], row["target_id"]) in wanted]
