"""The unit of work over Django, and the outbox, the audit log and the idempotency keys that write into it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, OperationalError, connection, models as django_models, transaction
from django.db.models.constants import OnConflict
from django.utils import timezone
from uuid_utils.compat import uuid7

from shared_kernel import models
from shared_kernel.domain.errors import Conflict, Unprocessable
from shared_kernel.domain.events import Event
from shared_kernel.domain.identifiers import IdempotencyKey
from shared_kernel.domain.ports import AuditRecord, Context
from shared_kernel.infrastructure.rows import insert

new_id: Callable[[], UUID] = uuid7
now = timezone.now

NOBODY = Context()
CLAIM_WAIT_S = 1

_context: ContextVar[Context] = ContextVar("penpay_context", default=NOBODY)
_each: ContextVar[Mapping[str, Context] | None] = ContextVar("penpay_context_of_each", default=None)
_open: ContextVar["Work | None"] = ContextVar("penpay_unit_of_work", default=None)
_woken: list[Callable[[], None]] = []


class IdempotencyKeyReused(Unprocessable):
    """The key was used before with another body."""


class IdempotencyInFlight(Conflict):
    """The first request with this key is still running."""


def current_context(target: object = None) -> Context:
    """Who is acting in this thread or task; where a group is worked on, for `target` (an aggregate's id)."""
    each = _each.get()
    return each.get(str(target), _context.get()) if each else _context.get()


def current_target() -> str:
    """The id of the one aggregate that is worked on for an event; empty for a group, and outside of a delivery."""
    each = _each.get() or {}
    return next(iter(each)) if len(each) == 1 else ""


@contextmanager
def acting_as(context: Context, each: Mapping[str, Context] | None = None) -> Iterator[None]:
    """Sets the `Context` for what happens inside; edges (middleware, tasks, commands) call it.

    `each` says for single aggregates, by their id as text, on whose behalf they are worked on in a group.
    """
    token, each_token = _context.set(context), _each.set(each)
    try:
        yield
    finally:
        _each.reset(each_token)
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
        for rows in self.rows.values():
            insert(rows)


@contextmanager
def unit_of_work() -> Iterator[None]:
    """One durable database transaction; what was collected in it is written before it commits.

    Nesting raises `RuntimeError`.
    """
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
    """Has `wake` called after each commit that holds events. It must not block; its errors are swallowed."""
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
        current_work().add(
            models.DomainEvent(
                id=new_id(),
                type=type(event).__name__,
                aggregate_id=event.aggregate_id,
                payload=event.to_payload(),
                context=current_context(event.aggregate_id).plain(),
                occurred_at=event.occurred_at,
            )
            for event in events
        )


@dataclass(frozen=True)
class DjangoAuditLog:
    """Records into `audit_logs`, in the caller's unit of work, with the current `Context`."""

    def append(self, records: Iterable[AuditRecord]) -> None:
        current_work().add(_audit_row(record, current_context(record.target_id)) for record in records)


def _audit_row(record: AuditRecord, who: Context) -> models.AuditLog:
    return models.AuditLog(
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


def fingerprint(intent: dict[str, Any]) -> str:
    """SHA-256 (hex) of the intent in canonical JSON."""
    return hashlib.sha256(json.dumps(intent, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class DjangoIdempotencyKeys:
    """`idempotency_keys`: the INSERT comes first, so that of concurrent claims one goes on and the rest wait for it."""

    def claim(self, key: IdempotencyKey, intent: dict[str, Any], *, result: UUID) -> UUID:
        wanted = fingerprint(intent)
        try:
            if _insert_if_new(key, wanted, result):
                return result
        except OperationalError as waited:
            if lock_lost(waited):
                raise IdempotencyInFlight("the same request is still running: repeat it in a moment") from waited
            raise
        first = models.IdempotencyKey.objects.filter(scope=key.scope, key=key.key).first()
        if first is None or first.result is None:
            raise IdempotencyInFlight("the same request is still running: repeat it in a moment")
        if first.fingerprint != wanted:
            raise IdempotencyKeyReused("this Idempotency-Key was used with another body: take a new key")
        known: UUID = first.result
        return known

    def answer(self, key: IdempotencyKey, answer: str) -> None:
        """Stores the answer to repeat, in the commit of the effect."""
        name = connection.ops.quote_name("key")
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE idempotency_keys SET answer = %s WHERE scope = %s AND {name} = %s",  # noqa: S608 - our own names
                [answer, key.scope, key.key],
            )

    def answer_of(self, key: IdempotencyKey) -> str:
        """The answer stored for a claimed key; empty when it is unknown."""
        rows = models.IdempotencyKey.objects.filter(scope=key.scope, key=key.key)
        return rows.values_list("answer", flat=True).first() or ""

    def consume(self, step: str, events: Sequence[UUID]) -> set[UUID]:
        known = {
            UUID(key)
            for key in models.IdempotencyKey.objects.filter(
                scope=f"event:{step}", key__in=[str(event) for event in events]
            ).values_list("key", flat=True)
        }
        fresh = sorted(set(events) - known)  # in one order everywhere, so that two consumers never deadlock
        models.IdempotencyKey.objects.bulk_create(  # a concurrent consumer's duplicate raises: its effect rolls back
            models.IdempotencyKey(scope=f"event:{step}", key=str(event), fingerprint="", created_at=now())
            for event in fresh
        )
        return set(fresh)


def _insert_if_new(key: IdempotencyKey, fingerprint: str, result: UUID) -> bool:
    """Whether the row is new. Waits for a concurrent claim to end, `CLAIM_WAIT_S` at most on MySQL and MariaDB.

    INSERT IGNORE needs no savepoint, for a duplicate is no error; all that it could truncate has been measured before.
    """
    row = models.IdempotencyKey(
        scope=key.scope, key=key.key, fingerprint=fingerprint, result=result, answer="", created_at=now()
    )
    fields = [field for field in row._meta.concrete_fields if not field.primary_key]
    insert = connection.ops.insert_statement(on_conflict=OnConflict.IGNORE)
    columns = ", ".join(connection.ops.quote_name(str(field.column)) for field in fields)
    values = [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]
    places = ", ".join(["%s"] * len(fields))
    patient = connection.vendor == "mysql" and settings.LOCK_WAIT_S > CLAIM_WAIT_S
    with connection.cursor() as cursor:
        if patient:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [CLAIM_WAIT_S])
        try:
            cursor.execute(f"{insert} idempotency_keys ({columns}) VALUES ({places})", values)
            return bool(cursor.rowcount == 1)
        finally:
            if patient:
                cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [settings.LOCK_WAIT_S])


def lock_lost(error: DatabaseError) -> bool:
    """Whether the database gave up waiting for a lock (MySQL 1205, deadlock 1213, NOWAIT 3572; SQLite busy)."""
    return bool(error.args) and (error.args[0] in {1205, 1213, 3572} or "locked" in str(error.args[0]))


def in_transaction() -> bool:
    """Whether a database transaction is open in this thread; provider adapters refuse to call inside one."""
    return connection.in_atomic_block


def in_unit_of_work() -> bool:
    """Whether a unit of work is open in this thread or task; a test's own transaction is none."""
    return _open.get() is not None
