"""The unit of work over Django, and the outbox, the audit log and the idempotency keys that write into it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

from django.db import DatabaseError, IntegrityError, OperationalError, connection, models as django_models, transaction
from django.utils import timezone
from uuid_utils.compat import uuid7

from shared_kernel import models
from shared_kernel.domain.errors import Conflict, Unprocessable
from shared_kernel.domain.events import Event
from shared_kernel.domain.identifiers import IdempotencyKey
from shared_kernel.domain.ports import AuditRecord, Context

new_id: Callable[[], UUID] = uuid7
now = timezone.now

_context: ContextVar[Context] = ContextVar("penpay_context", default=Context())
_open: ContextVar["Work | None"] = ContextVar("penpay_unit_of_work", default=None)
_woken: list[Callable[[], None]] = []


class IdempotencyKeyReused(Unprocessable):
    """The key was used before with another body."""


class IdempotencyInFlight(Conflict):
    """The first request with this key is still running."""


def current_context() -> Context:
    """Who is acting in this thread or task."""
    return _context.get()


@contextmanager
def acting_as(context: Context) -> Iterator[None]:
    """Sets the `Context` for what happens inside; edges (middleware, tasks, commands) call it."""
    token = _context.set(context)
    try:
        yield
    finally:
        _context.reset(token)


@dataclass
class Work:
    """What one unit of work has collected: rows by model, and callables to run before they are written."""

    rows: dict[type[django_models.Model], list[django_models.Model]] = field(default_factory=dict)
    at_end: dict[str, Callable[[], None]] = field(default_factory=dict)

    def add(self, rows: Iterable[django_models.Model]) -> None:
        """Collects rows to be inserted at the end, one multi-row INSERT a table."""
        for row in rows:
            self.rows.setdefault(type(row), []).append(row)

    def flush(self) -> None:
        for last_step in self.at_end.values():
            last_step()
        for model, rows in self.rows.items():
            model._default_manager.bulk_create(rows)


@contextmanager
def unit_of_work() -> Iterator[None]:
    """One durable database transaction (nesting raises `RuntimeError`); what was collected in it is written before it commits."""
    with transaction.atomic(durable=True):
        work = Work()
        token = _open.set(work)
        try:
            yield
            work.flush()
        finally:
            _open.reset(token)
        if models.DomainEvent in work.rows:
            for wake in _woken:
                transaction.on_commit(wake, robust=True)


def on_outbox_commit(wake: Callable[[], None]) -> None:
    """Has `wake` called after each commit that holds events. It must not block and its errors are swallowed (best effort)."""
    _woken.append(wake)


def current_work() -> Work:
    """The open unit of work. Raises `RuntimeError` outside of one: such a row would not commit with its state."""
    work = _open.get()
    if work is None:
        raise RuntimeError("this writes into the caller's unit of work, and none is open")
    return work


@dataclass(frozen=True)
class DjangoOutboxRepository:
    """Events into `domain_events`, in the caller's unit of work."""

    def append(self, events: Iterable[Event]) -> None:
        context = asdict(current_context())
        current_work().add(
            models.DomainEvent(
                id=new_id(),
                type=type(event).__name__,
                aggregate_id=event.aggregate_id,
                payload=event.to_payload(),
                context=context,
                occurred_at=event.occurred_at,
            )
            for event in events
        )


@dataclass(frozen=True)
class DjangoAuditLog:
    """Records into `audit_logs`, in the caller's unit of work, with the current `Context`."""

    def append(self, records: Iterable[AuditRecord]) -> None:
        who = current_context()
        current_work().add(
            models.AuditLog(
                action=record.action,
                target_type=record.target_type,
                target_id=record.target_id,
                before=record.before,
                after=record.after,
                why=record.why[:255],
                details=record.details,
                actor=who.actor,
                device=who.device,
                address=who.address,
                request_id=who.request_id,
                at=record.at,
            )
            for record in records
        )


def fingerprint(intent: dict[str, Any]) -> str:
    """SHA-256 (hex) of the intent in canonical JSON."""
    return hashlib.sha256(json.dumps(intent, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class DjangoIdempotencyKeys:
    """`idempotency_keys`: the INSERT comes first, so that of concurrent claims exactly one goes on and the rest wait for it."""

    def claim(self, key: IdempotencyKey, intent: dict[str, Any], *, result: UUID) -> UUID:
        row = models.IdempotencyKey(
            scope=key.scope, key=key.key, fingerprint=fingerprint(intent), result=result, created_at=now()
        )
        try:
            with transaction.atomic():  # a savepoint: a duplicate must not end the unit of work
                row.save(force_insert=True)
        except IntegrityError:
            first = models.IdempotencyKey.objects.filter(scope=key.scope, key=key.key).first()
            if first is None:
                raise IdempotencyInFlight("the same request is still running: repeat it in a moment") from None
            if first.fingerprint != row.fingerprint:
                raise IdempotencyKeyReused("this Idempotency-Key was used with another body: take a new key") from None
            assert first.result is not None
            return first.result
        except OperationalError as waited:
            if lock_lost(waited):
                raise IdempotencyInFlight("the same request is still running: repeat it in a moment") from waited
            raise
        return result

    def answer(self, key: IdempotencyKey, answer: str) -> None:
        """Stores the answer to repeat, in the commit of the effect."""
        models.IdempotencyKey.objects.filter(scope=key.scope, key=key.key).update(answer=answer)

    def answer_of(self, key: IdempotencyKey) -> str:
        """The answer stored for a claimed key; empty when it is unknown."""
        row = models.IdempotencyKey.objects.filter(scope=key.scope, key=key.key).values_list("answer", flat=True).first()
        return row or ""

    def consume(self, step: str, events: Sequence[UUID]) -> set[UUID]:
        known = {
            UUID(key)
            for key in models.IdempotencyKey.objects.filter(
                scope=f"event:{step}", key__in=[str(event) for event in events]
            ).values_list("key", flat=True)
        }
        fresh = [event for event in dict.fromkeys(events) if event not in known]
        models.IdempotencyKey.objects.bulk_create(  # a concurrent consumer's duplicate raises: the loser's effect rolls back
            models.IdempotencyKey(scope=f"event:{step}", key=str(event), fingerprint="", created_at=now())
            for event in fresh
        )
        return set(fresh)


def lock_lost(error: DatabaseError) -> bool:
    """Whether the database gave up waiting for a lock (MySQL 1205, deadlock 1213, NOWAIT 3572; SQLite busy)."""
    return bool(error.args) and (error.args[0] in {1205, 1213, 3572} or "locked" in str(error.args[0]))


def in_transaction() -> bool:
    """Whether a database transaction is open in this thread; provider adapters refuse to call inside one."""
    return connection.in_atomic_block
