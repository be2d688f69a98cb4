"""Events on their way from the outbox to their subscribers: published in order, delivered at least once.

The relay publishes what is committed, in messages of one type that travel through the broker; a worker delivers each
message to the subscribers of its type. A subscriber is one of three kinds:

- a plain callable is a *wake*: the status of the rows decides what it does, so that once more is harmless, and a timer
  on the rows does the same if the event is lost with the broker;
- a `Lasting` one decides by status as well, but no timer stands behind it: its events are published again until they
  were delivered;
- a `Keyed` one acts once for each event: its key commits with its effect, and its events are published again, too.

An event that fails is delivered again after a while, and parked after its retries; it holds nobody up. One whose
subscriber says when to come again (a ceiling that is reached, a provider that is away) is put off by so long, which for
a day is no retry.
"""

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.errors import TooManyRequests, Unavailable
from shared_kernel.domain.events import Event
from shared_kernel.domain.ports import (
    ActingAs,
    AuditLog,
    AuditRecord,
    Broker,
    Clock,
    Context,
    IdempotencyKeys,
    Letter,
    OutboxQueue,
    ParkedEvents,
    Selection,
    UnitOfWork,
)

log = logging.getLogger(__name__)

BATCH = 500  # events that the relay publishes in one transaction and one round trip
GROUP = 100  # events in one message, and so in one group of steps
RETRIES = 8  # of a failing event, over some ten minutes; then it is parked
LONGEST_WAIT_S = 300
LEAST_PUT_OFF_S, MOST_PUT_OFF_S = 10, 86_400  # whatever a subscriber says
CONFIRM_WITHIN = timedelta(
    minutes=5
)  # for events that a subscriber must not miss: published again if not delivered by then
REPLAYED_AT_ONCE = 1000

Handler: TypeAlias = Callable[[Sequence[Event]], None]


@dataclass(frozen=True)
class Lasting:
    """A subscriber that must not miss an event, and to which the same event again is harmless."""

    handle: Handler

    def __call__(self, events: Sequence[Event]) -> None:
        self.handle(events)


@dataclass(frozen=True)
class Keyed:
    """A subscriber that acts at most once for each event. `handle` runs in the unit of work that consumes the keys.

    `step` names it for ever: another name would act again on a replay.
    """

    step: str
    handle: Handler


Subscriber: TypeAlias = Handler | Lasting | Keyed
Subscriptions: TypeAlias = Mapping[type[Event], Sequence[Subscriber]]


@dataclass(frozen=True)
class Relay:
    """Publishes the outbox. Any number may run: one works, the others leave at once, and no order is lost."""

    outbox: OutboxQueue
    broker: Broker
    subscriptions: Callable[[], Subscriptions]
    hold_at: int = 0  # messages: while so many wait for a worker, events gather in the outbox, for larger groups

    def drain(self) -> int:
        """Publishes until nothing waits, or enough does; how many.

        Raises what the broker raises: those events go next time.
        """
        followed = self.subscriptions()
        confirm = {kind.__name__ for kind, followers in followed.items() if must_arrive(followers)}
        nobody = {name for name, kind in Event.types.items() if not followed.get(kind)}
        total = 0
        while not self.hold_at or self.broker.waiting() < self.hold_at:
            with self.outbox.claim(BATCH, confirm, CONFIRM_WITHIN) as letters:
                self.broker.publish(messages([letter for letter in letters or () if letter.type not in nobody]))
            if letters is None:
                return total
            total += len(letters)
            # Looked at after the claim's lock is given up: whoever found it taken has left its events to us.
            if not letters or (len(letters) < BATCH and not self.outbox.waiting()):
                return total
        return total


def must_arrive(followers: Sequence[Subscriber]) -> bool:
    """Whether an event with these subscribers is published again until it was delivered."""
    return any(isinstance(follower, Lasting | Keyed) for follower in followers)


def messages(letters: Iterable[Letter], most: int = GROUP) -> list[list[Letter]]:
    """Groups of one type, as large as may be while the events of each aggregate stay in order."""
    groups: list[list[Letter]] = []
    open_group: dict[str, int] = {}
    last_group: dict[UUID, int] = {}
    for letter in letters:
        group = open_group.get(letter.type, -1)
        if group < 0 or len(groups[group]) >= most or group < last_group.get(letter.aggregate_id, 0):
            group = open_group[letter.type] = len(groups)
            groups.append([])
        groups[group].append(letter)
        last_group[letter.aggregate_id] = group
    return groups


def retry_after(failures: int) -> timedelta | None:
    """How long an event waits that failed so often; None: no more, it is parked. Jitter parts what failed together."""
    if failures > RETRIES:
        return None
    return timedelta(seconds=min(LONGEST_WAIT_S, 2.0**failures) * random.uniform(0.5, 1.5))  # noqa: S311


def put_off(error: Exception) -> timedelta | None:
    """How long whoever raised this asked to be left alone; None: they did not. Jitter as in `retry_after`."""
    wait = error.extra.get("retry_after") if isinstance(error, TooManyRequests | Unavailable) else None
    if not isinstance(wait, int | float) or isinstance(wait, bool):
        return None
    return timedelta(seconds=min(max(LEAST_PUT_OFF_S, wait), MOST_PUT_OFF_S) * random.uniform(1.0, 1.1))  # noqa: S311


@dataclass(frozen=True)
class Delivery:
    """Hands the events of a message to the subscribers of their type."""

    outbox: OutboxQueue
    broker: Broker
    keys: IdempotencyKeys
    unit_of_work: UnitOfWork
    acting_as: ActingAs
    subscriptions: Callable[[], Subscriptions]

    def deliver(self, letters: Sequence[Letter], *, redelivered: bool = False) -> None:
        """The group at once; what fails again alone is put off or parked, and nothing else with it.

        `redelivered`: the broker had given this message to a worker that ended without finishing it. Its events go on
        alone, each in a message of its own, so that the one which ends its worker every time is parked and no other is.
        """
        if redelivered and len(letters) > 1:
            self.broker.publish([[letter] for letter in letters])
        elif not redelivered or self.outbox.starting(letters[0].id):
            self._deliver(letters)

    def _deliver(self, letters: Sequence[Letter]) -> None:
        failures: dict[UUID, Exception] = {}
        opened = {letter.id: event for letter in letters if (event := _opened(letter, failures))}
        readable = [letter for letter in letters if letter.id in opened]
        followers = self.subscriptions().get(type(opened[readable[0].id]), ()) if readable else ()
        for subscriber in followers:
            self._hand(subscriber, readable, opened, failures)
        if must_arrive(followers):
            self.outbox.delivered([letter.id for letter in readable if letter.id not in failures])
        for id, error in failures.items():
            self.outbox.failed(id, error, put_off(error))

    def _hand(
        self,
        subscriber: Subscriber,
        letters: Sequence[Letter],
        opened: Mapping[UUID, Event],
        failures: dict[UUID, Exception],
    ) -> None:
        try:
            each = {str(letter.aggregate_id): letter.context for letter in letters}
            with self.acting_as(common([letter.context for letter in letters]), each):
                if isinstance(subscriber, Keyed):
                    with self.unit_of_work():
                        fresh = self.keys.consume(subscriber.step, [letter.id for letter in letters])
                        if fresh:
                            subscriber.handle([opened[letter.id] for letter in letters if letter.id in fresh])
                else:
                    subscriber([opened[letter.id] for letter in letters])
        except StepsFailed as error:  # it did what it could for the others, and says for whom it could not
            failures |= {
                letter.id: error.errors[letter.aggregate_id]
                for letter in letters
                if letter.aggregate_id in error.errors
            }
        except Exception as error:  # noqa: BLE001 - whatever a subscriber raises must not hold up the others
            if len(letters) == 1:
                failures[letters[0].id] = error
                return
            log.warning("group_redone_one_by_one", extra={"event_type": letters[0].type, "size": len(letters)})
            for letter in letters:
                self._hand(subscriber, [letter], opened, failures)


def _opened(letter: Letter, failures: dict[UUID, Exception]) -> Event | None:
    try:
        return letter.open()
    except Exception as error:  # noqa: BLE001 - a letter that can't be read is its own problem only
        failures[letter.id] = error
        return None


def common(contexts: Sequence[Context]) -> Context:
    """Who is acting for a whole group: what all agree on. Nobody's name is lent to somebody else's rows."""
    actors, devices, addresses, request_ids = (
        {getattr(context, name) for context in contexts} for name in ("actor", "device", "address", "request_id")
    )
    return Context(
        actor=actors.pop() if len(actors) == 1 else "system:delivery",
        device=devices.pop() if len(devices) == 1 else "",
        address=addresses.pop() if len(addresses) == 1 else "",
        request_id=request_ids.pop() if len(request_ids) == 1 else "",
    )


@dataclass(frozen=True)
class DeadLetters:
    """What staff may do with events: deliver them again, or let a parked one rest. Each is an audit row."""

    outbox: ParkedEvents
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock

    def retry(self, ids: Sequence[UUID]) -> list[UUID]:
        """Those of `ids` that were parked or discarded, now due with all their retries before them."""
        with self.unit_of_work():
            return self._told("event.retried", self.outbox.release(ids))

    def discard(self, ids: Sequence[UUID], why: str) -> list[UUID]:
        """Those of `ids` that were parked, now discarded: they stay parked and are no longer listed."""
        with self.unit_of_work():
            return self._told("event.discarded", self.outbox.discard(ids, at=self.clock()), why)

    def replay(self, selected: Selection) -> Iterator[int]:
        """Has the selected events published again, but for parked ones; yields how many so far, after each commit."""
        replayed, after = 0, 0
        while True:
            with self.unit_of_work():
                count, after = self.outbox.republish(selected, after=after, most=REPLAYED_AT_ONCE)
                if not count:
                    self._note_replay(selected, replayed)
                    return
            replayed += count
            yield replayed

    def _note_replay(self, selected: Selection, replayed: int) -> None:
        if replayed:
            details = {name: str(value) for name, value in asdict(selected).items() if value} | {"events": replayed}
            target = str(selected.id or "domain_events")
            self.audit.append([AuditRecord("event.replayed", "event", target, self.clock(), details=details)])

    def _told(self, action: str, ids: list[UUID], why: str = "") -> list[UUID]:
        self.audit.append(AuditRecord(action, "event", str(id), self.clock(), why=why) for id in ids)
        return ids
