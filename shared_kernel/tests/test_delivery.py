"""From the outbox to the subscribers, on the real database. The broker is a list: what it does is not asked here."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from threading import Barrier, Event, Thread
from uuid import UUID

import pytest
from django.db import connection, transaction
from django.utils import timezone
from hypothesis import given, strategies as st

from shared_kernel import models
from shared_kernel.application.delivery import (
    BATCH,
    CONFIRM_WITHIN,
    GROUP,
    RETRIES,
    Delivery,
    Relay,
    messages,
    put_off,
    retry_after,
)
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.ports import Context, Letter
from shared_kernel.infrastructure.outbox import DjangoOutboxQueue
from shared_kernel.infrastructure.persistence import (
    DjangoIdempotencyKeys,
    DjangoOutboxRepository,
    acting_as,
    new_id,
    unit_of_work,
)
from shared_kernel.tests import subscribers
from shared_kernel.tests.subscribers import attention, callback, ended

pytestmark = pytest.mark.django_db(transaction=True)


@dataclass
class ListBroker:
    """Keeps what is published; `fails` raises after the messages have gone."""

    sent: list[list[Letter]] = field(default_factory=list)
    fails: bool = False

    def publish(self, messages):
        self.sent += messages
        if self.fails:
            raise ConnectionError

    def waiting(self):
        return len(self.sent)

    @property
    def letters(self):
        return [letter for message in self.sent for letter in message]


def a_relay(broker, *, after=timedelta()):
    return Relay(
        DjangoOutboxQueue(retry_after, lambda: timezone.now() + after), broker, lambda: subscribers.SUBSCRIPTIONS
    )


def a_delivery(broker=None):
    queue = DjangoOutboxQueue(lambda failures: None if failures > RETRIES else timedelta())
    keys = DjangoIdempotencyKeys()
    return Delivery(queue, broker or ListBroker(), keys, unit_of_work, acting_as, lambda: subscribers.SUBSCRIPTIONS)


def commit(*events, context=None):
    with acting_as(context or Context()), unit_of_work():
        DjangoOutboxRepository().append(events)
    return events


def noted(action="test.noted"):
    return Counter(models.AuditLog.objects.filter(action=action).values_list("target_id", flat=True))


def only_mysql():
    if connection.vendor != "mysql":
        pytest.skip("SQLite has one writer at a time")


def in_thread(work):
    def run():
        try:
            work()
        finally:
            connection.close()

    thread = Thread(target=run)
    thread.start()
    return thread


# --- what commits together -------------------------------------------------------------------------------------------


def test_while_enough_messages_wait_for_workers_events_gather_in_the_outbox():
    commit(*(callback() for _ in range(5)))
    broker = ListBroker(sent=[[], []])
    relay = Relay(DjangoOutboxQueue(retry_after), broker, lambda: subscribers.SUBSCRIPTIONS, hold_at=2)

    held = relay.drain()
    broker.sent.clear()
    published = relay.drain()

    assert (held, published, len(broker.letters)) == (0, 5, 5)


def test_an_event_and_its_audit_row_are_invisible_after_a_rollback():
    def work():
        with unit_of_work():
            subscribers.note([attention()])
            DjangoOutboxRepository().append([callback()])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()

    assert not models.DomainEvent.objects.exists()
    assert not models.AuditLog.objects.exists()


def test_units_of_work_do_not_nest():
    with unit_of_work(), pytest.raises(RuntimeError), unit_of_work():
        pass


def test_an_event_outside_of_a_unit_of_work_is_refused():
    with pytest.raises(RuntimeError):
        DjangoOutboxRepository().append([callback()])


# --- the relay -------------------------------------------------------------------------------------------------------


def test_an_event_that_commits_after_its_successors_is_not_skipped():
    only_mysql()
    inserted, go_on = Event(), Event()

    def late():
        with transaction.atomic():
            models.DomainEvent(
                id=new_id(), type="MpesaCallbackReceived", aggregate_id=new_id(), payload=callback().to_payload(),
                occurred_at=timezone.now(),
            ).save()  # fmt: skip
            inserted.set()
            go_on.wait(timeout=10)

    thread = in_thread(late)
    inserted.wait(timeout=10)
    commit(callback())
    early, broker = ListBroker(), ListBroker()

    a_relay(early).drain()
    go_on.set()
    thread.join()
    a_relay(broker).drain()

    first, second = models.DomainEvent.objects.order_by("seq")
    assert [letter.id for letter in early.letters] == [second.id]
    assert [letter.id for letter in broker.letters] == [first.id]


def test_several_relays_publish_each_event_once_and_each_aggregates_events_in_order():
    only_mysql()
    aggregates, broker, done = [new_id() for _ in range(20)], ListBroker(), Event()

    def relays():
        while not done.is_set():
            a_relay(broker).drain()

    threads = [in_thread(relays) for _ in range(4)]
    for _ in range(60):
        commit(*(kind(transaction_id=id) for id in aggregates for kind in (callback, attention, ended)))
    done.set()
    for thread in threads:
        thread.join()
    a_relay(broker).drain()

    order = dict(models.DomainEvent.objects.values_list("id", "seq"))
    for aggregate in aggregates:
        seqs = [order[letter.id] for letter in broker.letters if letter.aggregate_id == aggregate]
        assert seqs == sorted(seqs)
        assert len(seqs) == 180
    assert len(broker.letters) == len(order)


def test_a_relay_that_finds_another_at_work_leaves_at_once_and_its_events_to_the_other():
    only_mysql()
    commit(callback())
    publishing, go_on = Event(), Event()

    class Slow(ListBroker):
        def publish(self, messages):
            super().publish(messages)
            publishing.set()
            go_on.wait(timeout=10)

    slow, other = Slow(), ListBroker()
    thread = in_thread(a_relay(slow).drain)
    publishing.wait(timeout=10)
    commit(callback())

    assert a_relay(other).drain() == 0
    go_on.set()
    thread.join()

    assert len(slow.letters) == 2
    assert not other.letters


def test_a_crash_between_publishing_and_marking_publishes_again():
    commit(callback(), callback())
    broker = ListBroker(fails=True)

    with pytest.raises(ConnectionError):
        a_relay(broker).drain()
    broker.fails = False
    a_relay(broker).drain()

    assert list(Counter(letter.id for letter in broker.letters).values()) == [2, 2]


def test_unpublished_events_are_published_however_old_they_are():
    commit(callback())
    broker = ListBroker()

    a_relay(broker, after=timedelta(days=400)).drain()

    assert len(broker.letters) == 1


def test_more_than_a_batch_is_published_in_one_drain():
    commit(*(callback() for _ in range(2 * BATCH + 1)))
    broker = ListBroker()

    assert a_relay(broker).drain() == 2 * BATCH + 1
    assert max(len(message) for message in broker.sent) <= GROUP


def test_an_event_that_must_arrive_is_published_again_until_it_was_delivered():
    commit(attention(), ended(), callback())
    lost, again, late = ListBroker(), ListBroker(), ListBroker()

    a_relay(lost).drain()  # and the broker loses all that it had
    a_relay(again, after=CONFIRM_WITHIN / 2).drain()
    assert not again.sent
    a_relay(again, after=CONFIRM_WITHIN * 1.1).drain()
    for message in again.sent:
        a_delivery().deliver(message)
    a_relay(late, after=CONFIRM_WITHIN * 3).drain()

    assert sorted(letter.type for letter in again.letters) == ["AttentionNeeded", "TransactionEnded"]
    assert not late.sent


def test_an_event_that_nobody_follows_is_marked_and_not_sent():
    commit(callback())
    broker = ListBroker()
    relay = replace(a_relay(broker), subscriptions=dict)

    assert relay.drain() == 1
    assert not broker.sent
    assert not models.DomainEvent.objects.filter(published_at=None).exists()


letters = st.lists(
    st.builds(
        Letter,
        id=st.uuids(),
        type=st.sampled_from(["a", "b", "c"]),
        aggregate_id=st.sampled_from([UUID(int=number) for number in range(4)]),
        payload=st.just("{}"),
        context=st.just(Context()),
    )
)


@given(letters, st.integers(1, 5))
def test_grouping_loses_nothing_keeps_each_aggregates_order_and_one_type_a_message(letters, most):
    grouped = messages(letters, most)

    flat = [letter for group in grouped for letter in group]
    assert Counter(map(id, flat)) == Counter(map(id, letters))
    assert all(len({letter.type for letter in group}) == 1 and len(group) <= most for group in grouped)
    for aggregate in {letter.aggregate_id for letter in letters}:
        assert [a for a in flat if a.aggregate_id == aggregate] == [a for a in letters if a.aggregate_id == aggregate]


# --- delivery --------------------------------------------------------------------------------------------------------


def published(*events, context=None):
    commit(*events, context=context)
    broker = ListBroker()
    a_relay(broker).drain()
    return broker.letters


def test_a_keyed_subscriber_acts_once_however_often_the_event_is_delivered():
    letters = published(attention(), attention())

    for _ in range(3):
        a_delivery().deliver(letters)
    a_delivery().deliver(letters[:1])

    assert noted() == {str(letter.aggregate_id): 1 for letter in letters}


def test_a_keyed_subscriber_acts_once_when_two_workers_deliver_at_the_same_moment():
    only_mysql()
    letters = published(attention(), attention())
    start = Barrier(4)

    def deliver():
        start.wait(timeout=10)
        a_delivery().deliver(letters)

    for thread in [in_thread(deliver) for _ in range(4)]:
        thread.join()

    assert noted() == {str(letter.aggregate_id): 1 for letter in letters}
    assert not models.DomainEvent.objects.filter(attempts__gt=0).exists()


def test_a_poison_event_is_parked_alone_with_its_traceback_and_without_personal_data():
    good, poison = [attention() for _ in range(5)], attention("poison")
    letters = published(*good[:3], poison, *good[3:])

    a_delivery().deliver(letters)
    assert noted() == {str(event.aggregate_id): 1 for event in good}
    for _ in range(RETRIES + 3):
        broker = ListBroker()
        a_relay(broker, after=timedelta(seconds=1)).drain()
        for message in broker.sent:
            a_delivery().deliver(message)

    (parked,) = models.DomainEvent.objects.filter(parked_at__isnull=False)
    assert parked.aggregate_id == poison.aggregate_id
    assert parked.attempts == RETRIES + 1
    assert "Traceback" in parked.error
    assert "Poisoned: cannot digest [phone] of" in parked.error
    assert noted() == {str(event.aggregate_id): 1 for event in good}


def test_an_event_that_this_version_cannot_read_harms_itself_alone():
    unreadable, good = published(attention(), attention())

    a_delivery().deliver([replace(unreadable, payload=json.dumps({"unheard": "of"})), good])
    a_delivery().deliver([replace(unreadable, type="FromTheFuture")])

    assert noted() == {str(good.aggregate_id): 1}
    assert models.DomainEvent.objects.get(id=unreadable.id).attempts == 2


def test_a_message_that_ended_its_worker_is_split_and_the_event_that_does_it_again_is_parked():
    letters = published(attention(), attention())
    broker = ListBroker()

    a_delivery(broker).deliver(letters, redelivered=True)
    assert broker.sent == [[letters[0]], [letters[1]]]
    assert not noted()

    DjangoOutboxQueue(retry_after).starting(letters[0].id)
    for _ in range(RETRIES):
        DjangoOutboxQueue(retry_after).starting(letters[0].id)
    a_delivery(broker).deliver(letters[:1], redelivered=True)
    a_delivery(broker).deliver(letters[1:], redelivered=True)

    assert noted() == {str(letters[1].aggregate_id): 1}
    assert models.DomainEvent.objects.get(id=letters[0].id).parked_at


def test_in_a_group_each_customers_rows_name_that_customer():
    first, second = Context("user:1", request_id="one"), Context("user:2", request_id="two")
    letters = [*published(callback(), context=first), *published(callback(), context=second)]

    a_delivery().deliver(letters)

    rows = models.AuditLog.objects.filter(action="test.seen").values_list("target_id", "actor", "request_id")
    assert set(rows) == {
        (str(letters[0].aggregate_id), "user:1", "one"),
        (str(letters[1].aggregate_id), "user:2", "two"),
    }


def due_again():
    """In how many seconds each event is due again."""
    times = models.DomainEvent.objects.order_by("seq").values_list("next_attempt_at", flat=True)
    return [(at - timezone.now()).total_seconds() for at in times if at]


def test_an_event_whose_subscriber_says_when_to_come_again_is_put_off_by_that_long_and_is_no_retry():
    first, good, second = published(attention("full7200"), attention(), attention("full1"))

    for _ in range(RETRIES + 3):
        a_delivery().deliver([first, good, second])

    hours, moment = due_again()
    assert 7190 <= hours <= 7920
    assert 9 <= moment <= 11, "however soon it says"
    assert noted() == {str(good.aggregate_id): 1}
    assert list(models.DomainEvent.objects.values_list("attempts", "parked_at").distinct()) == [(0, None)]
    assert "no room" in models.DomainEvent.objects.get(id=first.id).error
    early, late = ListBroker(), ListBroker()
    a_relay(early, after=timedelta(seconds=7000)).drain()
    a_relay(late, after=timedelta(seconds=8000)).drain()
    assert [letter.id for letter in early.letters] == [second.id]
    assert first.id in [letter.id for letter in late.letters], "nothing is lost"


def test_for_a_day_an_event_is_put_off_and_then_it_has_its_retries_and_is_parked():
    letters = published(attention("full7200"))

    def deliver_after(age):
        at_once = DjangoOutboxQueue(
            lambda failures: None if failures > RETRIES else timedelta(), lambda: timezone.now() + age
        )
        replace(a_delivery(), outbox=at_once).deliver(letters)
        return models.DomainEvent.objects.get()

    assert deliver_after(timedelta(hours=23, minutes=59)).attempts == 0
    for number in range(1, RETRIES + 2):
        event = deliver_after(timedelta(days=1, seconds=1))
        assert (event.attempts, event.parked_at is not None) == (number, number > RETRIES)
    assert deliver_after(timedelta()).next_attempt_at is None, "what is parked stays so"


def test_no_event_is_put_off_for_much_longer_than_a_day_at_once():
    waits = [put_off(Unavailable("away", retry_after=10**9)) for _ in range(20)]
    assert all(wait and timedelta(days=1) <= wait <= timedelta(days=1.1) for wait in waits)


@pytest.mark.parametrize("wait", [None, "soon", True])
def test_who_does_not_say_in_seconds_when_to_come_again_is_retried_as_ever(wait):
    assert put_off(Unavailable("away", **({} if wait is None else {"retry_after": wait}))) is None
    assert put_off(ValueError("wrong")) is None


def test_failures_wait_longer_each_time_and_end():
    waits = [retry_after(failures) for failures in range(1, RETRIES + 2)]

    assert waits.pop() is None
    assert all(0.5 * min(300, 2**n) <= wait.total_seconds() <= 1.5 * min(300, 2**n) for n, wait in enumerate(waits, 1))
