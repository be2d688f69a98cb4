"""Many writers at once. SQLite has one writer at a time, so there is nothing to see there."""

import random

import pytest
from django.db import connection

from shared_kernel.infrastructure.persistence import current_work, unit_of_work
from wallet.domain.ledger import AlreadyPosted, InTransitOverdrawn, ProviderKeyUsed
from wallet.facade import ledger, verify_ledger
from wallet.infrastructure.persistence import forget_accounts
from wallet.models import LedgerAccount, LedgerBalance, LedgerEntry
from wallet.tests.factories import MPESA, a_customer, a_deposit, a_received_deposit, held, kes, receive, send
from wallet.tests.threads import at_once

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]


@pytest.fixture(autouse=True)
def _no_account_is_known():
    forget_accounts()


def test_sixteen_writers_to_the_same_house_accounts_lose_nothing_and_never_deadlock():
    def write():
        for _ in range(25):
            a_received_deposit(kes(1))

    assert at_once(*[write] * 16) == [None] * 16

    assert ledger.balance(MPESA) == kes(16 * 25)
    assert LedgerBalance.objects.filter(account_id=MPESA.id).count() > 1
    assert verify_ledger().findings == []


def test_groups_over_the_same_customers_in_any_order_never_deadlock():
    customers = [a_customer() for _ in range(30)]
    with unit_of_work():
        for customer in customers:
            receive(a_deposit(), customer, kes(10_000))

    def write(seed):
        order = random.Random(seed)
        for _ in range(15):
            with unit_of_work():
                for customer in order.sample(customers, 12):
                    if order.random() < 0.5:
                        receive(a_deposit(), customer, kes(order.randint(1, 50)))
                    else:
                        send(a_deposit(), customer, kes(order.randint(10, 50)))

    assert at_once(*[lambda seed=seed: write(seed) for seed in range(8)]) == [None] * 8

    assert verify_ledger().findings == []


def test_an_account_that_many_need_for_the_first_time_is_opened_once():
    customer = a_customer()

    def write():
        with unit_of_work():
            receive(a_deposit(), customer, kes(5))

    assert at_once(*[write] * 12) == [None] * 12

    assert LedgerAccount.objects.count() == 2
    assert ledger.balance(held(customer)) == kes(60)


def test_money_in_transit_leaves_once_however_many_want_it():
    _, customer = a_received_deposit(kes(1300))

    def take():
        with unit_of_work():
            send(a_deposit(), customer, kes(1300))

    results = at_once(*[take] * 8)

    assert results.count(None) == 1
    assert sum(isinstance(result, InTransitOverdrawn) for result in results) == 7
    assert ledger.balance(held(customer)) == kes(0)
    assert verify_ledger().findings == []


def test_one_step_that_fifty_post_at_once_is_posted_once():
    deposit, customer = a_deposit(), a_customer()

    def write():
        with unit_of_work():
            receive(deposit, customer, kes(1300))

    results = at_once(*[write] * 50)

    assert results.count(None) == 1
    assert sum(isinstance(result, AlreadyPosted | ProviderKeyUsed) for result in results) == 49
    assert LedgerEntry.objects.count() == 1
    assert ledger.balance(held(customer)) == kes(1300)


def test_writers_side_by_side_do_not_wait_for_each_other():
    """While one unit of work is open after its balances were written, another one posts to the same house account."""
    a_received_deposit(kes(1))

    with unit_of_work():
        receive(a_deposit(), a_customer(), kes(1))
        for step in list(current_work().at_end.values()):
            step()
        current_work().at_end.clear()
        others = at_once(lambda: a_received_deposit(kes(1)), lambda: a_received_deposit(kes(1)))

    assert not any(isinstance(result, Exception) for result in others)
    assert ledger.balance(MPESA) == kes(4)
