"""From where a withdrawal may be ordered: a session that stepped up, on a device that is no stranger to the account."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.db import connection

from identity.facade import payout_sessions
from payments import models
from payments.facade import withdrawals
from payments.tests.withdrawing import V3, Withdrawer
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import new_id, now
from wallet.tests.threads import at_once

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("open_for_business")]
User, Session, Device = map(apps.get_model, ("identity.User", "identity.Session", "identity.Device"))
SMALL, LARGE = "10.00", "40.00"  # at 127.04 KES, on either side of the setting below


@pytest.fixture(autouse=True)
def large(monkeypatch) -> None:
    """Payouts of 5,000 KES and more are large."""
    stricter = replace(payout_sessions, large=Money(5_000_00, Currency.KES))
    monkeypatch.setattr("payments.api.withdrawals", replace(withdrawals, sessions=stricter))


@pytest.fixture
def caller(at_deriv) -> Withdrawer:
    return Withdrawer(V3)


def refused(answer: Any, code: str) -> Any:
    assert (answer.status_code, answer.json()["code"]) == (403, code), answer.json()
    assert not models.Transaction.objects.exists()
    assert not models.FloatReservation.objects.exists()
    return answer.json()


def an_older_device(caller: Withdrawer, *, days: int = 30) -> None:
    """The account had one before that of this session; since removed."""
    own = Device.objects.get(user_id=caller.id)
    at = own.created_at - timedelta(days=days)
    Device.objects.create(
        id=new_id(), user_id=caller.id, client_id="old", name="old", platform="ios", secret_hash="ab" * 32, slot=None,
        created_at=at, last_seen_at=at, revoked_at=at,
    )  # fmt: skip


@pytest.mark.parametrize("stale", [None, timedelta(minutes=5), timedelta(days=1)])
def test_without_a_fresh_step_up_it_is_refused_with_what_to_do_and_the_quote_stays_good(caller, at_deriv, stale):
    quote, code = caller.coded(at_deriv, SMALL)
    Session.objects.update(stepped_up_at=stale and now() - stale)

    problem = refused(caller.withdraw(quote, code), "step_up_required")

    assert "auth/step-up" in problem["detail"]
    caller.browser.steps_up()
    assert caller.withdraw(quote, code).status_code == 202


def test_asking_deriv_for_the_code_needs_no_step_up(caller):
    quote = caller.offer(SMALL)
    Session.objects.update(stepped_up_at=None)
    assert caller.verify(quote).status_code == 202


def test_a_repeat_of_what_was_accepted_needs_none_either(caller, at_deriv):
    quote, code = caller.coded(at_deriv, SMALL)
    first = caller.withdraw(quote, code, key="k")
    Session.objects.update(stepped_up_at=None)
    again = caller.withdraw(quote, code, key="k")
    assert (again.status_code, again.json()) == (202, first.json())


def test_another_sessions_step_up_is_none_of_this_one(caller, at_deriv):
    quote, code = caller.coded(at_deriv, SMALL)
    mine = Session.objects.get(user_id=caller.id)
    Session.objects.create(
        user_id=caller.id, device_id=mine.device_id, token_epoch=0, created_at=now(),
        expires_at=now() + timedelta(days=1), stepped_up_at=now(),
    )  # fmt: skip
    Session.objects.filter(pk=mine.pk).update(stepped_up_at=None)
    refused(caller.withdraw(quote, code), "step_up_required")


def test_a_large_payout_from_a_new_device_waits_and_is_told_until_when(caller, at_deriv):
    an_older_device(caller)
    quote = caller.offer(LARGE)

    for answer in (caller.verify(quote), caller.withdraw(quote)):
        problem = refused(answer, "device_too_new")
        may_at = Device.objects.get(slot=1).created_at + timedelta(days=1)
        assert datetime.fromisoformat(problem["may_at"]) == may_at.replace(microsecond=0)


def test_a_small_one_does_not_wait_nor_does_a_device_of_yesterday_or_an_accounts_first(caller, at_deriv):
    an_older_device(caller)
    quote, code = caller.coded(at_deriv, SMALL)
    assert caller.withdraw(quote, code).status_code == 202

    Device.objects.filter(slot=1).update(created_at=now() - timedelta(days=1, seconds=1))
    assert caller.verify(caller.offer(LARGE)).status_code in {202, 429}  # not before the next minute

    first = Withdrawer(V3, deriv_account="CR100009")
    assert first.verify(first.offer(LARGE)).status_code != 403


def test_a_large_payout_waits_after_a_change_of_phone_too_and_is_told_so(caller, at_deriv):
    changed_at = now() - timedelta(hours=23)
    User.objects.filter(pk=caller.id).update(phone_changed_at=changed_at)
    quote = caller.offer(LARGE)
    problem = refused(caller.withdraw(quote), "device_too_new")
    assert "phone number" in problem["detail"]
    assert datetime.fromisoformat(problem["may_at"]) == (changed_at + timedelta(days=1)).replace(microsecond=0)

    an_older_device(caller)  # the device is new as well, and by later: that counts
    may_at = Device.objects.get(slot=1).created_at + timedelta(days=1)
    problem = refused(caller.withdraw(quote), "device_too_new")
    assert datetime.fromisoformat(problem["may_at"]) == may_at.replace(microsecond=0)

    Device.objects.filter(slot=1).update(created_at=now() - timedelta(days=2))
    assert caller.withdraw(quote).json()["code"] == "device_too_new"
    User.objects.filter(pk=caller.id).update(phone_changed_at=now() - timedelta(days=1, seconds=1))
    assert caller.verify(quote).status_code == 202


def test_small_ones_from_a_new_device_come_to_no_more_than_a_large_one(caller):
    an_older_device(caller)
    for _ in range(3):  # 1,270 KES each
        assert caller.withdraw(caller.offer(SMALL)).status_code == 202
    quote = caller.offer(SMALL)

    for answer in (caller.verify(quote), caller.withdraw(quote)):
        assert (answer.status_code, answer.json()["code"]) == (403, "device_too_new")
    assert "less than 1190.00 KES" in answer.json()["detail"]
    assert models.Transaction.objects.count() == 3
    assert caller.withdraw(caller.offer("9.00")).status_code == 202

    Device.objects.filter(slot=1).update(created_at=now() - timedelta(days=1, seconds=1))
    assert caller.withdraw(quote).status_code == 202


def test_what_failed_or_was_ordered_from_a_known_device_or_long_ago_is_not_in_the_sum(caller):
    for _ in range(3):  # from the account's first device
        assert caller.withdraw(caller.offer(SMALL)).status_code == 202
    an_older_device(caller)
    for row in [caller.withdraw(caller.offer(SMALL)).json()["transaction"] for _ in range(3)]:
        models.Transaction.objects.filter(pk=row["id"]).update(status="FAILED", next_step_at=None)
    for row in [caller.withdraw(caller.offer(SMALL)).json()["transaction"] for _ in range(3)]:
        models.Transaction.objects.filter(pk=row["id"]).update(created_at=now() - timedelta(days=1))

    assert caller.withdraw(caller.offer(SMALL)).status_code == 202


def test_a_device_that_is_enrolled_anew_or_another_new_one_begins_no_new_sum(caller):
    an_older_device(caller)
    for _ in range(3):
        assert caller.withdraw(caller.offer(SMALL)).status_code == 202
    Device.objects.filter(slot=1).update(created_at=now())  # after what was ordered

    answer = caller.withdraw(caller.offer(SMALL))

    assert (answer.status_code, answer.json()["code"]) == (403, "device_too_new")


def test_after_a_change_of_phone_the_sum_is_over_all_devices(caller):
    User.objects.filter(pk=caller.id).update(phone_changed_at=now())
    for _ in range(3):
        assert caller.withdraw(caller.offer(SMALL)).status_code == 202

    assert caller.withdraw(caller.offer(SMALL)).json()["code"] == "device_too_new"


@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
@pytest.mark.django_db(transaction=True)
def test_many_small_ones_at_once_come_to_no_more_either(caller):
    an_older_device(caller)
    quotes = [caller.offer(SMALL) for _ in range(6)]
    twins = [caller.twin() for _ in quotes]

    answers = at_once(*[lambda t=t, q=q: t.withdraw(q) for t, q in zip(twins, quotes, strict=True)])

    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [403] * 3
    assert models.Transaction.objects.count() == 3


def test_a_session_that_ended_meanwhile_orders_nothing(caller, at_deriv):
    quote, code = caller.coded(at_deriv, SMALL)
    caller.post("auth/logout", {})
    assert caller.withdraw(quote, code).status_code == 401
    assert not models.Transaction.objects.exists()


def test_over_rest_the_code_by_sms_lets_the_order_in(caller, at_deriv, settings, tmp_path):
    settings.SMS_URL = f"file://{tmp_path / 'sms.jsonl'}"
    quote, code = caller.coded(at_deriv, SMALL)
    Session.objects.update(stepped_up_at=None)
    refused(caller.withdraw(quote, code), "step_up_required")

    assert caller.post("auth/step-up", {}).status_code == 202
    sent = (tmp_path / "sms.jsonl").read_text().split("code: ")[-1][:6]
    assert caller.post("auth/step-up", {"code": sent}).status_code == 204

    assert caller.withdraw(quote, code).status_code == 202
