"""A client's retry has one effect: keys are claimed first, in the commit of the effect."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread

import pytest
from django.db import connection, transaction
from django.utils import timezone

from shared_kernel import models
from shared_kernel.domain.identifiers import IdempotencyKey
from shared_kernel.infrastructure.persistence import (
    DjangoIdempotencyKeys,
    DjangoOutboxRepository,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    new_id,
    unit_of_work,
)
from shared_kernel.tests.subscribers import callback

pytestmark = pytest.mark.django_db(transaction=True)
KEY = IdempotencyKey("user:1 deposits", "a-key")
INTENT = {"quote_id": "0192f000-0000-7000-8000-000000000000"}
keys = DjangoIdempotencyKeys()


def only_mysql():
    if connection.vendor != "mysql":
        pytest.skip("in memory, SQLite refuses a second writer at once")


def command(key=KEY, intent=INTENT, *, work_s=0.0):
    """As a handler does it: claim, effect and answer in one commit; the result of the first claim."""
    mine = new_id()
    with unit_of_work():
        result = keys.claim(key, intent, result=mine)
        if result == mine:
            time.sleep(work_s)
            DjangoOutboxRepository().append([callback(mine)])
            keys.answer(key, f'{{"id": "{mine}"}}')
    return result


def test_fifty_duplicates_at_once_have_one_effect_and_answers_that_agree():
    only_mysql()
    together = Barrier(50)

    def ask(_):
        together.wait(timeout=30)
        try:
            return command(work_s=0.1)
        except IdempotencyInFlight as answer:
            return answer.status
        finally:
            connection.close()

    with ThreadPoolExecutor(50) as threads:
        answers = Counter(threads.map(ask, range(50)))

    (event,) = models.DomainEvent.objects.all()
    assert set(answers) <= {event.aggregate_id, 409}
    assert answers[event.aggregate_id] >= 1
    assert models.IdempotencyKey.objects.count() == 1
    assert keys.answer_of(KEY) == f'{{"id": "{event.aggregate_id}"}}'


def test_duplicates_of_a_command_that_fails_try_in_turn_until_one_succeeds():
    """The first rolls back, so that its key is free again; the waiters may meet in a deadlock, which is a 409."""
    only_mysql()
    together, failures = Barrier(10), iter(range(3))

    def ask(_):
        together.wait(timeout=30)
        mine = new_id()
        try:
            with unit_of_work():
                if keys.claim(KEY, INTENT, result=mine) == mine:
                    DjangoOutboxRepository().append([callback(mine)])
                    if next(failures, None) is not None:
                        raise ZeroDivisionError
            return "done"
        except (IdempotencyInFlight, ZeroDivisionError) as error:
            return type(error).__name__
        finally:
            connection.close()

    with ThreadPoolExecutor(10) as threads:
        answers = Counter(threads.map(ask, range(10)))

    assert set(answers) <= {"done", "IdempotencyInFlight", "ZeroDivisionError"}
    assert models.DomainEvent.objects.count() <= 1
    assert models.IdempotencyKey.objects.count() == models.DomainEvent.objects.count()


def test_a_claim_waits_a_second_for_the_first_and_then_says_so(settings):
    only_mysql()
    settings.LOCK_WAIT_S = 5
    claimed, go_on = Event(), Event()

    def hold():
        with transaction.atomic():
            keys.claim(KEY, INTENT, result=new_id())
            claimed.set()
            go_on.wait(timeout=10)
        connection.close()

    thread = Thread(target=hold)
    thread.start()
    claimed.wait(timeout=10)
    started = time.monotonic()

    with pytest.raises(IdempotencyInFlight):
        command()

    assert 0.5 < time.monotonic() - started < 2.5
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@SESSION.innodb_lock_wait_timeout")
        assert cursor.fetchone() == (5,)
    go_on.set()
    thread.join()


def test_the_same_key_with_another_intent_is_refused_and_moves_nothing():
    command()

    with pytest.raises(IdempotencyKeyReused):
        command(intent=INTENT | {"quote_id": "another"})

    assert models.DomainEvent.objects.count() == 1


def test_a_retry_gets_the_first_result_and_the_first_answer():
    first = command()

    assert command() == first
    assert keys.answer_of(KEY) == f'{{"id": "{first}"}}'
    assert keys.answer_of(IdempotencyKey(KEY.scope, "unused")) == ""


def test_keys_differ_by_scope_and_by_case():
    results = {
        command(),
        command(IdempotencyKey("user:2 deposits", KEY.key)),
        command(IdempotencyKey(KEY.scope, KEY.key.upper())),
    }

    assert len(results) == 3


def test_a_key_whose_effect_rolled_back_is_free():
    def failing():
        with unit_of_work():
            keys.claim(KEY, INTENT, result=new_id())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()

    assert command() == models.DomainEvent.objects.get().aggregate_id


def test_a_step_consumes_each_event_once_and_another_step_does_so_for_itself():
    first, second = new_id(), new_id()
    with unit_of_work():
        assert keys.consume("step", [first, first]) == {first}
    with unit_of_work():
        assert keys.consume("step", [first, second]) == {second}
        assert keys.consume("other", [first]) == {first}

    assert models.IdempotencyKey.objects.filter(created_at__lte=timezone.now()).count() == 3
