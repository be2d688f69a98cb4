"""Signing in from a device that is new to the account: the password alone lets nobody in."""

from base64 import b32decode

import pytest

from identity import models
from identity.domain.totp import totp
from identity.facade import step_up
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.test_codes import code_in, made, other_than
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("signed_in", "sms")]


@pytest.fixture
def thief() -> Browser:
    """Whoever knows the password."""
    return Browser()


def tokens(browser: Browser) -> set[str]:
    return {name for name, morsel in browser.cookies.items() if name.startswith("penpay_") and morsel.value}


def test_a_new_device_is_asked_for_a_code_and_gets_no_cookie_and_no_place_before(customer, thief, sms):
    answer = thief.sign_in(customer.email, device="new")

    assert (answer.status_code, answer.json()["code"]) == (403, "device_code_required")
    assert tokens(thief) == set()
    assert models.Device.objects.count() == models.Session.objects.count() == 1
    assert [phone for phone, _ in sms] == [customer.phone]
    assert "sign in on a new device" in sms[0][1]
    assert "a code was sent by SMS" in answer.json()["detail"]
    assert AuditLog.objects.filter(action="user.device_code_required").count() == 1

    assert thief.sign_in(customer.email, device="new", code=code_in(sms[0][1])).status_code == 200
    assert tokens(thief) == {"penpay_access", "penpay_refresh", "penpay_device"}


def test_a_wrong_password_and_nobody_trigger_no_sms_even_with_a_code(customer, thief, sms):
    assert thief.sign_in(customer.email, "wrong password").status_code == 401
    assert thief.sign_in(customer.email, "wrong password", code="123456").status_code == 401
    assert thief.sign_in("nobody@example.org").status_code == 401
    assert sms == []
    assert not models.PhoneVerification.objects.exists()


def test_the_device_that_its_cookie_shows_needs_no_code(customer, signed_in, sms):
    signed_in.post("auth/logout")
    assert signed_in.sign_in(customer.email).status_code == 200
    assert sms == []


def test_the_id_that_a_device_claims_is_worth_nothing(customer, thief):
    assert thief.sign_in(customer.email, device="phone-1").json()["code"] == "device_code_required"
    thief.cookies["penpay_device"] = f"{models.Device.objects.get().id}.{'x' * 43}"
    assert thief.sign_in(customer.email, device="phone-1").json()["code"] == "device_code_required"


def test_the_very_first_device_needs_none_and_one_after_all_were_removed_does(sms):
    customer = a_customer(password=PASSWORD)
    first, second = Browser(), Browser()
    assert first.sign_in(customer.email, device="first").status_code == 200
    assert first.delete("me/devices/first").status_code == 204
    assert second.sign_in(customer.email, device="second").json()["code"] == "device_code_required"
    assert [phone for phone, _ in sms] == [customer.phone]


def test_without_a_verified_phone_none_is_asked_for(thief, customer, sms):
    models.User.objects.update(phone_verified_at=None)
    assert thief.sign_in(customer.email, device="new").status_code == 200
    assert sms == []


def test_five_wrong_codes_lock_out_even_the_right_one(customer, thief, sms):
    thief.sign_in(customer.email, device="new")
    right = code_in(sms[-1][1])
    for _ in range(5):
        answer = thief.sign_in(customer.email, device="new", code=other_than(right))
        assert (answer.status_code, answer.json()["code"]) == (422, "wrong_code")
    assert thief.sign_in(customer.email, device="new", code=right).json()["code"] == "no_open_code"
    assert tokens(thief) == set()
    assert AuditLog.objects.filter(action="user.device_code_refused").count() == 6


def test_a_code_signs_in_once(customer, thief, sms):
    thief.sign_in(customer.email, device="new")
    code = code_in(sms[-1][1])
    assert thief.sign_in(customer.email, device="new", code=code).status_code == 200
    assert Browser().sign_in(customer.email, device="other", code=code).json()["code"] == "no_open_code"


def test_a_code_of_one_device_or_purpose_is_none_of_another(customer, thief, sms):
    thief.sign_in(customer.email, device="new")
    code = code_in(sms[-1][1])
    assert Browser().sign_in(customer.email, device="other", code=code).json()["code"] == "wrong_code"
    for purpose in ("step_up", "reset_password", "new_phone"):
        others = made(customer, purpose)
        if others != code:
            assert thief.sign_in(customer.email, device="new", code=others).json()["code"] == "wrong_code"


def test_codes_are_not_sent_without_end(customer, thief, sms):
    answers = [thief.sign_in(customer.email, device="new").status_code for _ in range(5)]
    assert answers == [403, 403, 403, 429, 429]
    assert len(sms) == 3


@pytest.mark.parametrize("phone_verified_at", [now(), None])
def test_where_an_authenticator_is_in_use_only_its_code_lets_a_new_device_in(customer, thief, sms, phone_verified_at):
    before = made(customer, "new_device", asker="new")
    secret = b32decode(step_up.enrol_totp(customer.id).secret)
    step = int(now().timestamp()) // 30
    step_up.confirm_totp(customer.id, totp(secret, step - 1))
    models.User.objects.update(phone_verified_at=phone_verified_at)

    answer = thief.sign_in(customer.email, device="new")
    assert (answer.status_code, answer.json()["code"]) == (403, "device_code_required")
    assert "your authenticator" in answer.json()["detail"]
    assert "SMS" not in answer.json()["detail"]
    assert sms == []
    assert AuditLog.objects.filter(action="user.device_code_required").count() == 1
    if before not in {totp(secret, step), totp(secret, step + 1)}:
        assert thief.sign_in(customer.email, device="new", code=before).json()["code"] == "wrong_code"

    assert thief.sign_in(customer.email, device="new", code=totp(secret, step)).status_code == 200
    assert Browser().sign_in(customer.email, device="x", code=totp(secret, step)).json()["code"] == "wrong_code"


def test_the_device_limit_is_told_only_after_the_code(customer, thief):
    assert Browser().enrol(customer.email, device="second").status_code == 200
    assert "devices" not in thief.sign_in(customer.email, device="third").json()
    assert thief.enrol(customer.email, device="third").json()["code"] == "device_limit_reached"


def test_a_reset_password_does_not_let_a_new_device_in(customer, thief, told):
    Browser().post("auth/password-reset", {"identifier": customer.email})
    code = code_in(told()[0][1])
    body = {"identifier": customer.email, "code": code, "password": "nine herons over Lamu"}
    assert thief.post("auth/password-reset/confirm", body).status_code == 204
    answer = thief.sign_in(customer.email, "nine herons over Lamu", device="new")
    assert answer.json()["code"] == "device_code_required"


@pytest.mark.parametrize("code", ["", "12345", "abcdef", 123456, None])
def test_what_is_no_code_is_not_counted_as_a_try(customer, thief, code):
    thief.sign_in(customer.email, device="new")
    assert thief.sign_in(customer.email, device="new", code=code).status_code == 400
    assert models.PhoneVerification.objects.get().attempts == 0
