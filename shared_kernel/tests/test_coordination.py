"""Leases and calls side by side, on the real database."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from django.db import connection

from shared_kernel.domain.ports import Context
from shared_kernel.infrastructure.coordination import DjangoLeases, ThreadsSideBySide
from shared_kernel.infrastructure.persistence import acting_as, current_context, unit_of_work

pytestmark = pytest.mark.django_db(transaction=True)
MINUTE = timedelta(minutes=1)
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_of_many_who_ask_at_once_one_gets_the_lease():
    together = Barrier(12)

    def ask(number):
        together.wait()
        try:
            return DjangoLeases().acquire("mpesa.token", f"holder {number}", MINUTE)
        finally:
            connection.close()

    with ThreadPoolExecutor(12) as threads:
        first, second = (list(threads.map(ask, range(12))) for _ in range(2))

    assert first.count(True) == 1
    assert second.count(True) == 1  # nobody but the first holder, who prolongs it
    assert first == second


def test_a_lease_that_ran_out_is_taken_over_and_its_former_holder_cannot_give_it_up():
    assert DjangoLeases(lambda: START).acquire("lease", "frozen", MINUTE)
    later = DjangoLeases(lambda: START + MINUTE)

    assert not DjangoLeases(lambda: START + MINUTE / 2).acquire("lease", "other", MINUTE)
    assert later.acquire("lease", "other", MINUTE)
    later.release("lease", "frozen")

    assert not later.acquire("lease", "third", MINUTE)


def test_a_lease_that_was_given_up_is_free_at_once():
    leases = DjangoLeases(lambda: START)
    leases.acquire("lease", "first", MINUTE)

    leases.release("lease", "first")

    assert leases.acquire("lease", "second", MINUTE)


def test_a_lease_is_refused_inside_a_transaction():
    with unit_of_work(), pytest.raises(RuntimeError):
        DjangoLeases().acquire("lease", "holder", MINUTE)


def test_calls_run_side_by_side_in_order_with_the_callers_context_and_leave_no_connection_open():
    together = Barrier(5, timeout=10)  # passed only if all five run at once
    connections = []

    def call(number):
        together.wait()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        connections.append(connection.connection)
        return number, current_context().actor

    with acting_as(Context(actor="user:1")):
        results = ThreadsSideBySide(max_workers=5).map(call, range(5))

    assert results == [(number, "user:1") for number in range(5)]
    assert len(connections) == 5


def test_a_forked_child_makes_threads_of_its_own():
    side_by_side = ThreadsSideBySide(max_workers=2)
    side_by_side.map(str, [1, 2])

    child = os.fork()
    if child == 0:
        os._exit(0 if side_by_side.map(str, [1, 2]) == ["1", "2"] else 1)

    assert os.waitpid(child, 0)[1] == 0
