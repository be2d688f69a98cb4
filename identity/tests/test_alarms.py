"""What a customer is told of at once, on every verified channel: new devices, guessed codes, copied cookies."""

from base64 import b32decode
from datetime import timedelta

import pytest

from identity import models
from identity.domain.totp import STEP_S, totp
from identity.facade import step_up
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.test_codes import other_than
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sms")]


@pytest.fixture
def secret(customer) -> bytes:
    """Of an authenticator that is in use."""
    secret = b32decode(step_up.enrol_totp(customer.id).secret)
    step_up.confirm_totp(customer.id, totp(secret, int(now().timestamp()) // STEP_S - 1))
    models.Notice.objects.update(sent_at=now())  # that it was added
    return secret


def code_now(secret: bytes) -> str:
    return totp(secret, int(now().timestamp()) // STEP_S)


def both(customer) -> set[str]:
    return {customer.phone.number, customer.email}


def test_a_new_device_is_told_to_phone_and_address_and_the_first_or_a_known_one_is_not(customer, signed_in, told):
    signed_in.sign_in(customer.email)
    assert told() == []

    assert Browser().enrol(customer.email, device="new").status_code == 200

    messages = told()
    assert {to for to, _ in messages} == both(customer)
    assert all("on a device that is new" in text and "contact PenPay's support" in text for _, text in messages)
    assert told() == []


def test_a_refused_sign_in_on_a_new_device_tells_nothing(customer, signed_in, told):
    asked = Browser()
    asked.sign_in(customer.email, device="new")
    asked.sign_in(customer.email, device="new", code="000000")
    assert told() == []


def test_where_only_the_address_is_verified_it_is_told_there(told):
    customer = a_customer(password=PASSWORD, email_verified_at=now(), phone_verified=False)
    Browser().sign_in(customer.email, device="first")
    Browser().sign_in(customer.email, device="second")
    assert [to for to, _ in told()] == [customer.email]


def test_five_wrong_codes_of_a_stranger_are_told_and_lock_no_step_up(customer, signed_in, secret, told):
    stranger = Browser()
    for _ in range(5):
        assert told() == []
        answer = stranger.sign_in(customer.email, device="new", code=other_than(code_now(secret)))
        assert answer.json()["code"] == "wrong_code"

    assert stranger.sign_in(customer.email, device="new", code=code_now(secret)).json()["code"] == "totp_locked"
    messages = told()
    assert {to for to, _ in messages} == both(customer)
    assert all("Too many wrong codes" in text for _, text in messages)
    assert AuditLog.objects.get(action="totp.locked").details["use"] == "sign_in"
    assert signed_in.post("auth/step-up", {"code": code_now(secret)}).status_code == 204


def test_wrong_codes_of_a_step_up_lock_no_sign_in_and_are_told_too(customer, signed_in, secret, told):
    for _ in range(5):
        signed_in.post("auth/step-up", {"code": other_than(code_now(secret))})
    assert signed_in.post("auth/step-up", {"code": code_now(secret)}).json()["code"] == "totp_locked"
    assert {to for to, _ in told()} == both(customer)
    assert Browser().sign_in(customer.email, device="new", code=code_now(secret)).status_code == 200


def test_the_second_lock_is_longer_and_stored(customer, signed_in, secret):
    def lock() -> int:
        for _ in range(5):
            signed_in.post("auth/step-up", {"code": other_than(code_now(secret))})
        return int(signed_in.post("auth/step-up", {"code": "000000"})["Retry-After"])

    assert 800 < lock() <= 901
    models.TotpFactor.objects.update(step_up_locked_until=now() - timedelta(seconds=1))
    assert 1700 < lock() <= 1801


def test_a_refresh_token_that_comes_again_is_told_once_however_often_it_comes(customer, signed_in, told):
    thief = signed_in.twin()
    assert signed_in.post("auth/refresh").status_code == 204

    answers = [thief.twin().post("auth/refresh").json()["code"] for _ in range(3)]

    assert answers == ["refresh_token_reused", "session_ended", "session_ended"]
    messages = told()
    assert sorted(to for to, _ in messages) == sorted(both(customer))
    assert all("copied its cookies" in text for _, text in messages)
    assert models.Notice.objects.filter(kind="refresh_reused").count() == 2
    assert not signed_in.is_signed_in()
