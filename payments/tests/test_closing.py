"""An account is not closed while money of it is on its way."""

from functools import partial

import pytest
from django.apps import apps
from django.db import connection

from identity.facade import account
from payments import models
from payments.domain.eligibility import AccountFrozen
from payments.domain.transaction import TransactionStatus as S
from payments.tests.factories import a_float, a_quote, a_stored_deposit
from payments.tests.test_api import Caller
from shared_kernel.domain.identifiers import UserId
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
