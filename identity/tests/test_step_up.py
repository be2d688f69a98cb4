"""Stepping up over REST, what needs it, and the authenticator that does it without an SMS."""

import re
from base64 import b32decode
from datetime import timedelta

import pytest
from django.db import connection

from identity import models
from identity.domain.totp import STEP_S, totp
from identity.tests.clients import Browser
from identity.tests.factories import a_customer, a_phone
from identity.tests.test_codes import code_in, other_than
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db

NEEDS_STEP_UP = [
    ("post", "me/phone", {"phone": "0722000001"}),
    ("post", "me/email", {"email": "new@example.org"}),
    ("post", "me/close", {}),
    ("post", "me/totp", {}),
    ("delete", "me/totp", None),
    ("post", "me/totp/confirm", {"code": "123456"}),
    ("post", "me/deriv-login", {"platform": "ws_v3", "token": "a-token"}),
    ("delete", "me/deriv-login", None),
]


def send(browser: Browser, method: str, path: str, body):
    return browser.post(path, body) if method == "post" else browser.delete(path)


def step_up(browser: Browser, code: str):
    return browser.post("auth/step-up", {"code": code})


@pytest.fixture
def sent(signed_in, sms) -> str:
    """The code that the customer was sent."""
    assert signed_in.post("auth/step-up").status_code == 202
    return code_in(sms[-1][1])


@pytest.mark.parametrize(("method", "path", "body"), NEEDS_STEP_UP)
def test_without_a_step_up_it_is_refused_with_what_to_do_and_nothing_happens(signed_in, sms, method, path, body):
    answer = send(signed_in, method, path, body)
    assert (answer.status_code, answer.json()["code"]) == (403, "step_up_required")
    assert "auth/step-up" in answer.json()["detail"]
    assert sms == []
    assert models.User.objects.get().is_active
    assert models.DerivLogin.objects.get().revoked_at is None


@pytest.mark.parametrize(("method", "path", "body"), NEEDS_STEP_UP)
def test_a_step_up_is_over_after_five_minutes(signed_in, method, path, body):
    models.Session.objects.update(stepped_up_at=now() - timedelta(minutes=5))
    assert send(signed_in, method, path, body).json()["code"] == "step_up_required"
    models.Session.objects.update(stepped_up_at=now() + timedelta(minutes=1))  # nothing that was ever stored
    assert send(signed_in, method, path, body).json()["code"] == "step_up_required"


def test_the_code_by_sms_steps_this_session_up_and_no_other(customer, signed_in, sent, sms):
    assert sms[-1][0] == customer.phone
    models.Session.objects.create(
        user_id=customer.id, device=models.Device.objects.get(), token_epoch=0, created_at=now(), expires_at=now()
    )
    assert step_up(signed_in, sent).status_code == 204
    assert models.Session.objects.exclude(stepped_up_at=None).count() == 1
    assert signed_in.post("me/email", {"email": "new@example.org"}).status_code == 202
    assert AuditLog.objects.filter(action="user.stepped_up", target_id=str(customer.id)).count() == 1


def test_a_step_up_outlives_a_refresh_and_not_the_session(customer, signed_in, sent):
    step_up(signed_in, sent)
    signed_in.post("auth/refresh")
    assert signed_in.delete("me/deriv-login").status_code == 204
    signed_in.post("auth/logout")
    signed_in.sign_in(customer.email)
    assert signed_in.post("me/close").json()["code"] == "step_up_required"


def test_a_code_steps_up_once(signed_in, sent):
    step_up(signed_in, sent)
    models.Session.objects.update(stepped_up_at=None)
    assert step_up(signed_in, sent).json()["code"] == "no_open_code"
    assert models.Session.objects.get().stepped_up_at is None


def test_wrong_codes_are_counted_and_audited_and_step_nobody_up(signed_in, sent):
    answers = [step_up(signed_in, other_than(sent)) for _ in range(5)]
    assert [answer.json()["tries_left"] for answer in answers] == [4, 3, 2, 1, 0]
    assert step_up(signed_in, sent).json()["code"] == "no_open_code"
    assert models.Session.objects.get().stepped_up_at is None
    for _ in range(20):
        step_up(signed_in, sent)
    refused = AuditLog.objects.filter(action="user.step_up_refused")
    assert refused.count() == 5, "with no code open nothing was tried, and a session could fill the log"


def test_the_password_is_no_code(signed_in, sent):
    assert signed_in.post("auth/step-up", {"password": "x"}).status_code == 400
    assert step_up(signed_in, "seven geese").status_code == 400
    assert models.Session.objects.get().stepped_up_at is None


def test_a_code_of_one_session_is_none_of_another(customer, signed_in, sent):
    phone = signed_in.twin()
    signed_in.sign_in(customer.email)  # ends the session that asked
    assert step_up(phone, sent).status_code == 401
    assert step_up(signed_in, sent).json()["code"] == "wrong_code"


def test_too_many_codes_have_to_wait(signed_in, sms):
    assert [signed_in.post("auth/step-up").status_code for _ in range(4)] == [202, 202, 202, 429]
    assert len(sms) == 3


def test_who_has_no_verified_phone_is_sent_it_by_email_and_who_has_neither_is_told(customer, signed_in, sms, mails):
    models.User.objects.update(phone_verified_at=None)
    assert signed_in.post("auth/step-up").status_code == 202
    assert [mail.to for mail in mails] == [[customer.email]]
    assert step_up(signed_in, code_in(mails[0].body)).status_code == 204

    models.User.objects.update(email_verified_at=None)
    answer = signed_in.post("auth/step-up")
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_verified")
    assert sms == []


# the authenticator


@pytest.fixture
def secret(signed_in) -> bytes:
    """Of an authenticator that is in use."""
    signed_in.steps_up()
    secret = b32decode(signed_in.post("me/totp").json()["secret"])
    assert signed_in.post("me/totp/confirm", {"code": code_now(secret, -1)}).status_code == 204
    models.Session.objects.update(stepped_up_at=None)
    return secret


def code_now(secret: bytes, off: int = 0) -> str:
    return totp(secret, int(now().timestamp()) // STEP_S + off)


def test_the_secret_is_shown_once_and_encrypted_at_rest(signed_in):
    signed_in.steps_up()
    answer = signed_in.post("me/totp")
    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    secret = answer.json()["secret"]
    assert len(b32decode(secret)) == 20
    assert answer.json()["otpauth_uri"].startswith(f"otpauth://totp/PenPay?secret={secret}&issuer=PenPay")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM totp_factors")
        assert secret not in repr(cursor.fetchall())
        cursor.execute("SELECT * FROM audit_logs")
        assert secret not in repr(cursor.fetchall())
    assert secret not in signed_in.get("me").content.decode()


def test_an_authenticator_counts_only_once_its_first_code_has_come(signed_in):
    signed_in.steps_up()
    secret = b32decode(signed_in.post("me/totp").json()["secret"])
    assert step_up(signed_in, code_now(secret)).json()["code"] == "no_open_code"
    assert signed_in.post("me/totp/confirm", {"code": other_than(code_now(secret))}).json()["code"] == "wrong_code"
    assert signed_in.post("me/totp/confirm", {"code": code_now(secret)}).status_code == 204
    assert signed_in.post("me/totp/confirm", {"code": code_now(secret, 1)}).json()["code"] == "totp_not_found"
    assert step_up(signed_in, code_now(secret, 1)).status_code == 204


def test_the_first_code_comes_within_ten_minutes_or_never(signed_in):
    signed_in.steps_up()
    secret = b32decode(signed_in.post("me/totp").json()["secret"])
    models.TotpFactor.objects.update(created_at=now() - timedelta(minutes=10))
    answer = signed_in.post("me/totp/confirm", {"code": code_now(secret)})
    assert (answer.status_code, answer.json()["code"]) == (404, "totp_not_found")
    assert "POST me/totp" in answer.json()["detail"]
    assert models.TotpFactor.objects.get().confirmed_at is None

    secret = b32decode(signed_in.post("me/totp").json()["secret"])
    assert signed_in.post("me/totp/confirm", {"code": code_now(secret)}).status_code == 204


def test_a_code_of_the_authenticator_steps_up_once(signed_in, secret):
    code = code_now(secret)
    assert step_up(signed_in, code).status_code == 204
    models.Session.objects.update(stepped_up_at=None)
    assert step_up(signed_in, code).json()["code"] == "wrong_code"
    assert models.Session.objects.get().stepped_up_at is None


def test_five_wrong_codes_lock_the_authenticator(signed_in, secret):
    wrong = other_than(code_now(secret))
    for _ in range(5):
        assert step_up(signed_in, wrong).json()["code"] == "wrong_code"
    locked = step_up(signed_in, code_now(secret))
    assert (locked.status_code, locked.json()["code"]) == (429, "totp_locked")
    assert int(locked["Retry-After"]) > 800


@pytest.mark.parametrize("phone_verified_at", [now(), None])
def test_while_an_authenticator_is_in_use_no_code_is_sent_to_step_up(signed_in, secret, sms, mails, phone_verified_at):
    models.User.objects.update(phone_verified_at=phone_verified_at)
    answer = signed_in.post("auth/step-up")
    assert (answer.status_code, answer.json()["code"]) == (409, "authenticator_in_use")
    assert "authenticator" in answer.json()["detail"]
    assert "support" in answer.json()["detail"]
    assert sms == mails == []


def test_a_code_by_sms_of_before_is_not_taken_once_an_authenticator_is_in_use(signed_in, sent, secret):
    if sent != code_now(secret):
        assert step_up(signed_in, sent).json()["code"] == "wrong_code"
    assert models.Session.objects.get().stepped_up_at is None
    assert step_up(signed_in, code_now(secret)).status_code == 204


def test_enrolling_over_one_that_is_in_use_is_refused(signed_in, secret):
    signed_in.steps_up()
    assert signed_in.post("me/totp").json()["code"] == "totp_already_enrolled"
    assert b32decode(models.TotpFactor.objects.get().secret) == secret


def test_removing_forgets_the_secret_and_is_told(customer, signed_in, secret, told):
    assert any("authenticator app was added" in text for _, text in told())
    signed_in.steps_up()
    assert signed_in.delete("me/totp").status_code == 204
    assert not models.TotpFactor.objects.exists()
    assert signed_in.delete("me/totp").json()["code"] == "totp_not_found"
    assert {to for to, text in told() if "was removed" in text} == {customer.phone.number, customer.email}


def test_another_customers_authenticator_is_none_of_mine(signed_in, secret):
    other = a_customer(password="seven geese over Kisumu", phone=a_phone())
    theirs = Browser()
    theirs.sign_in(other.email)
    assert step_up(theirs, code_now(secret)).json()["code"] == "no_open_code"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("auth/step-up", {"code": "123456", "user_id": "x"}),
        ("auth/step-up", {"stepped_up_at": "2030-01-01T00:00:00Z"}),
        ("me/totp/confirm", {"code": "123456", "confirmed_at": "2030-01-01T00:00:00Z"}),
    ],
)
def test_a_field_too_many_is_refused(signed_in, path, body):
    signed_in.steps_up()
    answer = signed_in.post(path, body)
    assert answer.status_code == 400
    assert {error["code"] for error in answer.json()["errors"]} == {"unknown_field"}


def test_no_code_is_in_the_log_or_the_database(signed_in, sent, caplog):
    caplog.set_level(0)
    step_up(signed_in, other_than(sent))
    assert not re.search(sent, caplog.text)
    with connection.cursor() as cursor:
        cursor.execute("SELECT code_hash, phone, purpose FROM user_phone_verification")
        assert sent not in repr(cursor.fetchall())
