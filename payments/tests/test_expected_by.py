"""When a customer may expect a Transaction that waits for a provider's budget: told by the queue, and never sooner."""

import time
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from payments import models, queries
from payments.tests.stored_withdrawals import a_withdrawal
from payments.tests.withdrawing import Withdrawer
from shared_kernel.domain.budgets import MPESA_LANE, deriv_lane
from shared_kernel.infrastructure.budgets import SharedBudgets
from shared_kernel.infrastructure.persistence import new_id, now

pytestmark = pytest.mark.django_db
LANE = deriv_lane("CR900001")


@pytest.fixture
def caller():
    return Withdrawer()


@pytest.fixture(autouse=True)
def budgets(monkeypatch):
    """Sixty calls a minute at the agent's, three quarters for money: none is left now. No limit at M-Pesa's."""
    rates = {LANE: 60, MPESA_LANE: None}
    own = SharedBudgets(rates, "", shares=1, monotonic=lambda: 0.0)
    with own.hand({LANE: (1_000, 0)}) as hand:
        while hand.take(LANE):
            pass
    monkeypatch.setattr(queries, "budgets", own)
    return own


def waiting(user=None, *, lane=LANE, priority=3, due_s=60, turn_s=None, status="DERIV_DEBIT_SENT", **over):
    """Due since `due_s`; its turn came with it unless `turn_s` says otherwise; it was promised for ten minutes ago."""
    at = now()
    given = {
        "lane": lane, "priority": priority, "next_step_at": at - timedelta(seconds=due_s),
        "turn_at": at - timedelta(seconds=due_s if turn_s is None else turn_s),
        "expected_by": at - timedelta(minutes=10),
    } | over  # fmt: skip
    return a_withdrawal(status, user=user, **given)


def told(caller, withdrawal):
    """`expected_by` as the API tells it, in seconds from now."""
    text = caller.get(f"transactions/{withdrawal.id}").json()["expected_by"]
    return text and (datetime.fromisoformat(text) - now()).total_seconds()


def in_s(ahead, budgets):
    return pytest.approx(budgets.wait_s(LANE, ahead), abs=2)


def test_it_is_told_by_how_many_the_dispatcher_picks_before_it(caller, budgets):
    mine = waiting(caller.id, due_s=60)
    for due_s in range(61, 101):
        waiting(due_s=due_s)  # earlier
    for _ in range(10):
        waiting(priority=1, due_s=1)  # more urgent

    assert told(caller, mine) == in_s(50, budgets)
    assert budgets.wait_s(LANE, 50) > budgets.wait_s(LANE, 0) + 60  # so that the number matters


def test_who_is_not_before_it_in_its_own_queue_does_not_count(caller, budgets):
    mine = waiting(caller.id, due_s=60)
    for _ in range(10):  # so that each kind would be noticed
        waiting(due_s=59)  # later
        waiting(priority=4, due_s=900)  # less urgent
        waiting(priority=1, due_s=-30)  # more urgent, and not due yet
        waiting(lane=MPESA_LANE, due_s=900)  # another queue
        waiting(lane=deriv_lane("CR900002"), priority=1, due_s=900)
        waiting(status="COMPLETED", priority=9, due_s=900)  # ended

    assert told(caller, mine) == in_s(0, budgets)


def test_a_customer_with_many_waits_behind_the_others(caller, budgets):
    mine = waiting(caller.id, due_s=120, turn_s=60)  # two were before it
    for _ in range(30):
        waiting(due_s=90)

    assert told(caller, mine) == in_s(30, budgets)


def test_a_pause_that_the_provider_asked_for_is_waited_for(caller, budgets):
    mine = waiting(caller.id)
    before = told(caller, mine)

    budgets.penalise(LANE, 300)

    assert told(caller, mine) >= before + 299


def test_what_was_promised_is_not_taken_back_for_something_sooner(caller, budgets):
    later = now() + timedelta(hours=1)
    mine = waiting(caller.id, expected_by=later)

    assert told(caller, mine) == pytest.approx(3600, abs=5)


@pytest.mark.parametrize(
    "over",
    [
        {"lane": MPESA_LANE},  # no limit
        {"lane": "", "status": "DERIV_DEBITED"},  # calls nobody
        {"due_s": -30},  # waits for its own timer
        {"held_at": now(), "held_by": "compliance"},  # no queue is what it waits for, and why is not told
    ],
)
def test_where_no_budget_is_waited_for_what_was_promised_stands(caller, over):
    mine = waiting(caller.id, **over)

    assert told(caller, mine) == pytest.approx(-600, abs=5)


@pytest.mark.parametrize(
    "over",
    [
        {"status": "NEEDS_ATTENTION", "next_step_at": None, "turn_at": None, "priority": 9},
        {"status": "COMPLETED", "priority": 6},  # asked about once more
        {"status": "FAILED", "priority": 6},
        {"expected_by": None},
    ],
)
def test_where_nothing_is_to_be_expected_nothing_is_told(caller, over):
    assert told(caller, waiting(caller.id, **over)) is None


def many(number):
    """As many as wait before, by one statement."""
    [row] = models.Transaction.objects.filter(pk=waiting(due_s=900).id)
    rows = []
    for _ in range(number - 1):
        rows.append(models.Transaction(**{f.attname: getattr(row, f.attname) for f in row._meta.fields}))
        rows[-1].id, rows[-1].quote_id = new_id(), new_id()
    models.Transaction.objects.bulk_create(rows)


def test_no_more_than_a_bound_are_counted_by_one_statement(caller, budgets, monkeypatch):
    monkeypatch.setattr(queries, "MOST_AHEAD", 40)
    mine = waiting(caller.id)
    many(50)

    with CaptureQueriesContext(connection) as seen:
        assert told(caller, mine) == in_s(40, budgets)

    [counting] = [query["sql"] for query in seen if "COUNT" in query["sql"] and "priority" in query["sql"]]
    assert "LIMIT 40" in counting


@pytest.mark.django_db(transaction=True)  # ANALYZE commits
@pytest.mark.skipif(connection.vendor != "mysql", reason="the plan is MariaDB's")
def test_the_count_reads_ranges_of_the_dispatcher_s_index_and_no_row(caller):
    [row] = models.Transaction.objects.filter(pk=waiting(caller.id).id)
    many(2_000)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE transactions")
        cursor.fetchall()
    with CaptureQueriesContext(connection) as seen:
        queries.expected_by(row)
    [counting] = [query["sql"] for query in seen]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {counting}")
        names = [column[0] for column in cursor.description]
        plan = [dict(zip(names, found, strict=True)) for found in cursor.fetchall()]

    [reading] = [step for step in plan if step["table"] not in (None, "subquery", "<derived2>")]
    assert reading["key"] == "transactions_due"
    assert "Using index" in reading["Extra"]


def test_a_redis_that_is_gone_or_a_lane_that_no_setting_names_changes_the_estimate_alone(caller, monkeypatch):
    gone = SharedBudgets({LANE: 60}, "redis://127.0.0.1:9/0")
    monkeypatch.setattr(queries, "budgets", gone)
    mine, unnamed = waiting(caller.id), waiting(caller.id, lane=deriv_lane("CR4711"))

    began = time.monotonic()
    estimates = told(caller, mine), told(caller, unnamed)

    assert time.monotonic() - began < 2
    assert all(estimate > 0 for estimate in estimates)


def test_a_list_tells_what_was_promised_and_counts_nothing(caller):
    waiting(caller.id)
    with CaptureQueriesContext(connection) as seen:
        [item] = caller.get("transactions").json()["items"]

    assert datetime.fromisoformat(item["expected_by"]) < now()
    assert not [query for query in seen if "COUNT" in query["sql"] and "priority" in query["sql"]]
