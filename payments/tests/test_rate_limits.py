"""How often a customer may ask for a quote, have their phone prompted, and withdraw."""

from datetime import timedelta
from uuid import uuid4

import pytest
import time_machine
from django.db import connection

from identity.tests.factories import a_customer
from payments.models import Transaction
from payments.tests.factories import a_float, a_quote, todays_rate
from payments.tests.test_api import Caller, twin
from payments.tests.withdrawing import Withdrawer, a_payout_float, an_offer
from shared_kernel.infrastructure.persistence import now
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db
CODE = "abCD_123"


@pytest.fixture(autouse=True)
def _open_for_business():
    todays_rate()
    a_float()
    a_payout_float()


@pytest.fixture
def caller() -> Caller:
    return Caller()


def too_many(answer):
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
    assert int(answer["Retry-After"]) >= 1
    return True


def deposits(caller, count):
    return [caller.deposit(a_quote(caller.customer.id).id) for _ in range(count)]


def test_quotes_are_asked_for_as_often_as_the_limit_says(caller, limits):
    limits(quotes_user=3)
    assert [caller.quote().status_code for _ in range(3)] == [201] * 3
    assert too_many(caller.quote())
    assert Caller().quote().status_code == 201


def test_a_customer_has_their_phone_prompted_as_often_as_the_limit_says_and_nothing_is_left_of_the_rest(caller, limits):
    limits(deposits_user=2)
    assert [answer.status_code for answer in deposits(caller, 2)] == [202] * 2
    answer = deposits(caller, 1)[0]

    assert too_many(answer)
    assert int(answer["Retry-After"]) > 3000
    assert Transaction.objects.count() == 2
    assert deposits(Caller(), 1)[0].status_code == 202


def test_the_place_of_one_that_has_become_old_is_free_to_the_second(caller, limits):
    limits(deposits_user=2)
    deposits(caller, 2)
    older = Transaction.objects.filter(pk=Transaction.objects.order_by("pk")[0].pk)

    with time_machine.travel(now(), tick=False):
        hour_ago = now() - timedelta(hours=1)
        older.update(created_at=hour_ago + timedelta(seconds=1))
        assert deposits(caller, 1)[0]["Retry-After"] == "1"
        older.update(created_at=hour_ago)
        assert [answer.status_code for answer in deposits(caller, 2)] == [202, 429]


def test_a_deposit_that_came_to_nothing_has_prompted_the_phone_and_counts(caller, limits):
    limits(deposits_user=2)
    deposits(caller, 2)
    Transaction.objects.update(status="FAILED", priority=9)

    assert too_many(deposits(caller, 1)[0])


def test_a_repeat_counts_for_nothing_and_has_its_answer_whatever_the_limit(caller, limits):
    limits(deposits_user=2)
    quote, key = a_quote(caller.customer.id).id, str(uuid4())
    first = caller.deposit(quote, key)
    for _ in range(4):
        assert caller.deposit(quote, key).json() == first.json()
    assert deposits(caller, 1)[0].status_code == 202
    assert too_many(deposits(caller, 1)[0])

    again = caller.deposit(quote, key)
    assert (again.status_code, again["Idempotency-Replayed"], again.json()) == (202, "true", first.json())


def test_what_is_refused_for_another_reason_prompts_nobody_and_counts_for_nothing(caller, limits):
    limits(deposits_user=2)
    stranger = a_customer()
    for _ in range(4):
        assert caller.deposit(a_quote(stranger.id).id).status_code == 404
    assert [answer.status_code for answer in deposits(caller, 3)] == [202, 202, 429]


def test_withdrawals_and_their_codes_have_limits_of_their_own(limits):
    limits(withdrawals_user=1, withdrawal_codes_user=2)
    caller = Withdrawer()
    assert [caller.verify(uuid4()).status_code for _ in range(3)] == [404, 404, 429]  # each may ask Deriv

    answers = [caller.withdraw(an_offer(caller.id), CODE) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 429], answers[0].content


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_many_at_once_are_no_more_than_the_limit(caller, limits):
    limits(deposits_user=3)
    orders = [(twin(caller), a_quote(caller.customer.id).id) for _ in range(12)]

    answers = at_once(*[lambda who=who, quote=quote: who.deposit(quote) for who, quote in orders])

    assert [answer.status_code for answer in answers].count(202) == Transaction.objects.count() == 3
    assert {answer.status_code for answer in answers} <= {202, 429, 503}
