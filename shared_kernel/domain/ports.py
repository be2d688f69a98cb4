"""What the kernel and every context ask of the world: time, ids, a unit of work, outbox, audit, keys, leases."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias, TypeVar
from uuid import UUID

from shared_kernel.domain.events import Event, Transition
from shared_kernel.domain.identifiers import IdempotencyKey

Clock: TypeAlias = Callable[[], datetime]
"""The current time, aware, in UTC."""

IdSource: TypeAlias = Callable[[], UUID]
"""A new UUIDv7."""

UnitOfWork: TypeAlias = Callable[[], AbstractContextManager[None]]
"""One database transaction; nesting is an error.

What was collected (outbox, audit, ledger) is written at its end, one INSERT a table.
"""

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Context:
    """Who is acting: travels with commands, events and tasks; ends in every audit row and log line.

    `actor` is `user:<id>`, `staff:<id>`, `system:<what>` or `anonymous`; `address` the peer's IP.
    """

    actor: str = "system:unknown"
    device: str = ""
    address: str = ""
    request_id: str = ""

    @classmethod
    def known(cls, plain: Mapping[str, Any]) -> "Context":
        """From stored or sent fields; those that this version does not know are left out."""
        return cls(**{name: plain[name] for name in cls.__slots__ if name in plain})

    def plain(self) -> dict[str, str]:
        """JSON-ready fields, as `known` takes them."""
        return {name: getattr(self, name) for name in self.__slots__}


class OutboxRepository(Protocol):
    """Events to be published, written in the caller's unit of work."""

    def append(self, events: Iterable[Event]) -> None:
        """Collects the events; they commit with the state that raised them."""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the audit log:
    what was done to which target. `before`, `after`, `details` hold no personal data, or it masked.
    """

    action: str  # `transaction.status`, `user.login`, `mpesa.callback_refused`
    target_type: str
    target_id: str
    at: datetime
    before: str = ""
    after: str = ""
    why: str = ""
    details: dict[str, Any] = field(default_factory=dict)


class AuditLog(Protocol):
    """Append-only; written in the caller's unit of work, with the current `Context`."""

    def append(self, records: Iterable[AuditRecord]) -> None:
        """Collects the records; they commit with what they tell of."""


def transition_records(target_type: str, target_id: UUID, transitions: Iterable[Transition]) -> list[AuditRecord]:
    """The audit rows of an aggregate's changes of status; also its timeline."""
    return [
        AuditRecord(f"{target_type}.status", target_type, str(target_id), t.at, t.before, t.after, t.why)
        for t in transitions
    ]


class IdempotencyKeys(Protocol):
    """Insert-first keys, in the caller's unit of work, so that key, effect and answer commit together."""

    def claim(self, key: IdempotencyKey, intent: dict[str, Any], *, result: UUID) -> UUID:
        """The `result` of the first claim of this key: equal to the given one exactly when this claim is the first.

        `intent` is what a retry repeats (the customer's intent only, JSON-ready). Waits up to a second for a claim
        that is still running. Raises `IdempotencyKeyReused` (422) for another intent, `IdempotencyInFlight` (409).
        """

    def answer(self, key: IdempotencyKey, answer: str) -> None:
        """Stores the answer to repeat, in the commit of the effect."""

    def answer_of(self, key: IdempotencyKey) -> str:
        """The answer stored for a claimed key."""

    def consume(self, step: str, events: Sequence[UUID]) -> set[UUID]:
        """Those of `events` that `step` has not consumed before, now consumed:
        at most once each, in the commit of the effect.
        """


class Leases(Protocol):
    """Short exclusive rights by name, across processes; they run out by themselves. Not held in a transaction."""

    def acquire(self, name: str, holder: str, ttl: timedelta) -> bool:
        """Whether `holder` has the lease now, for `ttl`. Commits on its own."""

    def release(self, name: str, holder: str) -> None:
        """Gives it up, if still held."""


@dataclass(frozen=True, slots=True)
class Letter:
    """An event as it is stored and travels: `payload` is `Event.to_payload` as JSON, `context` says who caused it."""

    id: UUID
    type: str
    aggregate_id: UUID
    payload: str
    context: Context

    def open(self) -> Event:
        """Raises `KeyError` or `TypeError` for a type or a payload that this version does not understand."""
        return Event.from_payload(self.type, json.loads(self.payload))


class OutboxQueue(Protocol):
    """The delivery side of the outbox. Each call commits on its own."""

    def claim(
        self, most: int, confirm: Collection[str], within: timedelta
    ) -> AbstractContextManager[list[Letter] | None]:
        """The oldest unpublished events, in order; published once the block ends without an error.

        None while another relay is at it. Those of the types `confirm` are due again after `within` unless delivered.
        """

    def waiting(self) -> bool:
        """Whether there is anything new to claim."""

    def starting(self, id: UUID) -> bool:
        """Counts an attempt before it is made, for an event that may have ended its worker. False: now it is parked."""

    def delivered(self, ids: Sequence[UUID]) -> None:
        """They need not be published again."""

    def failed(self, id: UUID, error: Exception, put_off: timedelta | None = None) -> None:
        """Counts an attempt: the event is due again after a while, or parked with its traceback.

        With `put_off`: due again after that, and no attempt is counted while the event is less than a day old.
        """


@dataclass(frozen=True, slots=True)
class Selection:
    """Events by what is given of id, type, and time of occurrence from `since` to before `until`."""

    id: UUID | None = None
    type: str = ""
    since: datetime | None = None
    until: datetime | None = None


class ParkedEvents(Protocol):
    """What staff change about the delivery of events, in the caller's unit of work."""

    def count(self, selected: Selection) -> int:
        """How many `republish` would take in all."""

    def release(self, ids: Sequence[UUID]) -> list[UUID]:
        """Those of `ids` that are parked, now due at once, with no attempt counted."""

    def discard(self, ids: Sequence[UUID], *, at: datetime) -> list[UUID]:
        """Those of `ids` that are parked and not discarded, now discarded."""

    def republish(self, selected: Selection, *, after: int, most: int) -> tuple[int, int]:
        """Has the next `most` after `after` published again, but for parked ones; how many, and where it came to."""


class Broker(Protocol):
    """Where messages to the workers go."""

    def publish(self, messages: Sequence[Sequence[Letter]]) -> None:
        """All of them in this order, in one round trip. Raises what its client raises; some may have gone by then."""

    def waiting(self) -> int:
        """How many messages no worker has taken yet."""


class ActingAs(Protocol):
    """Sets who is acting inside; `each` says it for single aggregates, by their id as text."""

    def __call__(self, context: Context, each: Mapping[str, Context]) -> AbstractContextManager[None]: ...


class SideBySide(Protocol):
    """Makes calls side by side; handed in, so that a simulation can order them."""

    def map(self, call: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """The results in the order of `items`. `call` must not raise."""
