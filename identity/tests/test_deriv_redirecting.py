"""Whose Deriv account deposits go to is what a thief would change: it is told, and no new device may."""

from typing import Any

import pytest

from identity import models
from identity.facade import payout_sessions
from identity.tests.clients import Browser
from identity.tests.test_api import bind
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sms")]
WAIT = payout_sessions.wait


@pytest.fixture
def owner(customer, signed_in, deriv) -> Browser:
    """Somebody whose CR1234 is bound, on their first device."""
    signed_in.steps_up()
    models.DerivLogin.objects.all().delete()
    deriv.holds("a-token", "CR1234")
    deriv.holds("b-token", "CR5678")
    assert bind(signed_in).status_code == 201
    return signed_in


def new_device(customer: Any) -> Browser:
    browser = Browser()
    browser.enrol(customer.email)
    browser.steps_up()
    return browser


def told(kind: str) -> list[str]:
    return sorted(models.Notice.objects.filter(kind=kind).values_list("channel", flat=True))


def bound() -> str:
    return models.DerivLogin.objects.exclude(active_for=None).get().account


def test_each_account_that_is_bound_or_let_go_is_told_on_both_channels(owner):
    assert told("deriv_login_bound") == ["email", "sms"]

    assert bind(owner).status_code == 201  # the same one with a new token
    assert len(told("deriv_login_bound")) == 2
    assert bind(owner, "b-token").status_code == 201
    assert len(told("deriv_login_bound")) == 4
    assert owner.delete("me/deriv-login").status_code == 204
    assert told("deriv_login_unbound") == ["email", "sms"]


def test_a_new_device_sends_no_deposit_elsewhere_before_it_has_waited(customer, owner):
    thief = new_device(customer)

    answer = bind(thief, "b-token")

    assert (answer.status_code, answer.json()["code"]) == (403, "device_too_new")
    assert answer.json()["may_at"]
    assert bound() == "CR1234"
    assert bind(thief).status_code == 201, "the same account, whose token may have run out"
    assert thief.delete("me/deriv-login").status_code == 204
    assert bind(thief, "b-token").json()["code"] == "device_too_new", "letting go first is no way round"
    assert [row.why for row in AuditLog.objects.filter(action="deriv_login.refused")] == ["device_too_new"] * 2

    models.Device.objects.update(created_at=now() - WAIT)
    assert bind(thief, "b-token").status_code == 201


def test_after_a_change_of_the_phone_every_device_waits(owner):
    models.User.objects.update(phone_changed_at=now())
    assert bind(owner, "b-token").json()["code"] == "device_too_new"

    models.User.objects.update(phone_changed_at=now() - WAIT)
    assert bind(owner, "b-token").status_code == 201


def test_a_first_account_waits_for_nothing(customer, deriv):
    models.DerivLogin.objects.all().delete()
    models.User.objects.update(phone_changed_at=now())
    deriv.holds("a-token", "CR1234")
    browser = Browser()
    browser.sign_in(customer.email)
    browser.steps_up()

    assert bind(browser).status_code == 201
