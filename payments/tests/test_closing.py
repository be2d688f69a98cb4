"""An account is not closed while money of it is on its way."""

from functools import partial

import pytest
from django.apps import apps
from django.db import connection

from identity.facade import account
from payments import models
from payments.domain.eligibility import AccountFrozen
from payments.domain.transaction import TransactionStatus as S
from payments.tests.factories import a_float, a_quote, a_stored_deposit, kes, usd
from payments.tests.test_api import Caller
from payments.tests.withdrawing import owes
from shared_kernel.domain.identifiers import UserId
from shared_kernel.infrastructure.persistence import new_id, now
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db
User, DerivLogin = map(apps.get_model, ("identity.User", "identity.DerivLogin"))


@pytest.mark.parametrize("status", [S.CREATED, S.MPESA_CONFIRMED, S.NEEDS_ATTENTION])
def test_it_is_refused_while_a_payment_is_open(status):
    a_float()
    caller = Caller()
    a_stored_deposit(status, user=caller.id)
    caller.browser.steps_up()

    answer = caller.post("me/close", {})

    assert (answer.status_code, answer.json()["code"]) == (409, "account_in_use")
    assert caller.browser.is_signed_in()
    assert DerivLogin.objects.get().active_for_id == caller.id


def refused(caller):
    caller.browser.steps_up()
    answer = caller.post("me/close", {})
    assert (answer.status_code, answer.json()["code"]) == (409, "account_in_use")
    assert User.objects.get(pk=caller.id).is_active


@pytest.mark.parametrize("owed", [kes(1), usd(1)], ids=["KES", "USD"])
def test_who_owes_does_not_close(owed):
    caller = Caller()
    owes(caller, owed)

    refused(caller)


def test_it_is_refused_while_money_lies_in_suspense():
    a_float()
    caller = Caller()
    deposit = a_stored_deposit(S.COMPLETED, user=caller.id)
    at = now()
    models.OrphanMovement(
        id=new_id(), provider="mpesa", account="174379", movement="UKM0000009", amount=5000, currency="KES",
        transaction_id=deposit.id, moved_at=at, found_at=at, owner="finance",
    ).save()  # fmt: skip

    refused(caller)

    models.OrphanMovement.objects.update(settled_at=at)
    assert caller.post("me/close", {}).status_code == 204


def test_it_is_refused_while_an_ended_payment_is_watched():
    a_float()
    caller = Caller()
    deposit = a_stored_deposit(S.COMPLETED, user=caller.id)
    models.Transaction.objects.filter(pk=deposit.id).update(next_step_at=now())

    refused(caller)


def test_it_is_closed_once_all_have_ended_whatever_others_have_open():
    a_float()
    caller, other = Caller(), Caller()
    a_stored_deposit(S.COMPLETED, user=caller.id)
    a_stored_deposit(S.CREATED, user=other.id)
    caller.browser.steps_up()

    assert caller.post("me/close", {}).status_code == 204


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
def test_of_a_deposit_and_the_closing_at_once_one_is_refused():
    a_float()
    for _ in range(4):
        caller = Caller()
        quote = a_quote(caller.id).id

        deposit, closed = at_once(partial(caller.deposit, quote), partial(account.close, UserId(caller.id)))

        is_open = models.Transaction.objects.filter(user_id=caller.id).exists()
        assert User.objects.get(pk=caller.id).is_active is is_open
        if is_open:
            assert closed.code == "account_in_use"
        else:
            assert deposit.json()["code"] in {AccountFrozen.code, "not_authenticated"}
