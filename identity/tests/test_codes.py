"""One-time codes by e-mail, and what binds a code: its purpose, its target, and who asked."""

import json
import re
from datetime import timedelta
from urllib.parse import urlencode

import pytest
from django.db import connection

from identity import models
from identity.application.codes import FOR
from identity.domain.contact import Email
from identity.domain.ports import EmailUnavailable
from identity.domain.verification import CHANNELS, Channel, CodesAskedTooOften, NoOpenCode, Purpose, WrongCode
from identity.facade import codes, registration
from identity.infrastructure.email import DjangoEmail
from identity.tests.factories import PASSWORD, a_customer
from shared_kernel.domain.events import UserRegistered
from shared_kernel.infrastructure import persistence
from shared_kernel.infrastructure.logs import redact
from shared_kernel.infrastructure.persistence import now, unit_of_work
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db


def code_in(text: str) -> str:
    return re.search(r"\b(\d{6})\b", text)[1]


def other_than(given: str) -> str:
    return f"{(int(given) + 1) % 10**6:06d}"


def made(customer, purpose=Purpose.STEP_UP, target=None, asker="") -> str:
    with unit_of_work():
        return code_in(codes.make(customer.id, purpose, target or customer.phone, asker=asker, at=now()).text)


def submitted(customer, code, purpose=Purpose.STEP_UP, asker=""):
    with unit_of_work():
        return codes.submit(customer.id, purpose, code, asker=asker, at=now())


@pytest.mark.parametrize("purpose", list(Purpose))
def test_no_message_with_a_code_is_legible_where_it_gets_into_a_log(customer, purpose):
    target = customer.phone if Channel.SMS in CHANNELS[purpose] else Email(customer.email)
    with unit_of_work():
        text = codes.make(customer.id, purpose, target, at=now()).text

    assert code_in(text) not in redact(text)
    assert code_in(text) not in redact(json.dumps({"message": text}))
    assert code_in(text) not in redact(urlencode({"to": "x", "message": text}))
    assert FOR[purpose] in redact(text)


@pytest.fixture
def customer():
    return a_customer(password=PASSWORD)


def test_the_code_from_the_email_proves_the_address(customer, signed_in, mails):
    answer = signed_in.post("me/email-verification")
    assert answer.status_code == 202
    assert set(answer.json()) == {"expires_at"}
    [mail] = mails
    assert (mail.to, mail.cc, mail.bcc) == ([customer.email], [], [])
    assert "confirm your e-mail address" in mail.body

    assert signed_in.post("me/email-verification/confirm", {"code": code_in(mail.body)}).status_code == 204

    assert signed_in.get("me").json()["email_verified"] is True
    again = signed_in.post("me/email-verification")
    assert (again.status_code, again.json()["code"]) == (409, "email_already_verified")
    assert AuditLog.objects.filter(action="user.email_verified", target_id=str(customer.id)).count() == 1


def test_five_wrong_codes_lock_out_even_the_right_one(signed_in, mails):
    signed_in.post("me/email-verification")
    right = code_in(mails[0].body)
    wrong = [signed_in.post("me/email-verification/confirm", {"code": other_than(right)}) for _ in range(5)]
    assert [answer.json()["tries_left"] for answer in wrong] == [4, 3, 2, 1, 0]
    assert signed_in.post("me/email-verification/confirm", {"code": right}).json()["code"] == "no_open_code"
    assert signed_in.get("me").json()["email_verified"] is False
    assert AuditLog.objects.filter(action="user.email_code_refused").count() == 5


def test_neither_code_nor_address_is_in_the_database_or_a_log(customer, signed_in, mails, caplog):
    caplog.set_level(0)
    signed_in.post("me/email-verification")
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM user_email_verification")
        stored = repr(cursor.fetchall())
    for secret in (code_in(mails[0].body), customer.email):
        assert secret not in stored
        assert secret not in caplog.text


def test_no_message_is_sent_in_a_unit_of_work(signed_in, mails, monkeypatch):
    seen = []
    monkeypatch.setattr(DjangoEmail, "send", lambda *_: seen.append(persistence._open.get()))
    assert signed_in.post("me/email-verification").status_code == 202
    assert seen == [None]


def test_a_code_that_could_not_be_sent_is_a_503_and_counts(signed_in, monkeypatch):
    def down(*_):
        raise EmailUnavailable("e-mails can't be sent at the moment: try again later")

    monkeypatch.setattr(DjangoEmail, "send", down)
    answer = signed_in.post("me/email-verification")
    assert (answer.status_code, answer.json()["code"]) == (503, "email_unavailable")
    assert models.EmailVerification.objects.count() == 1


def test_what_was_made_is_good_once(customer):
    code = made(customer)
    assert submitted(customer, code) == customer.phone
    assert isinstance(submitted(customer, code), NoOpenCode)


@pytest.mark.parametrize("other", [purpose for purpose in Purpose if purpose is not Purpose.STEP_UP])
def test_a_code_of_one_purpose_is_none_of_another(customer, other):
    target = Email(customer.email) if other in {Purpose.PROVE_EMAIL, Purpose.NEW_EMAIL} else customer.phone
    code, others = made(customer), made(customer, other, target)
    if code != others:
        assert isinstance(submitted(customer, code, other), WrongCode)
    assert submitted(customer, others, other) == target


def test_a_stored_code_moved_to_another_purpose_target_or_id_is_wrong(customer):
    code = made(customer)
    models.PhoneVerification.objects.update(purpose=Purpose.NEW_DEVICE)
    assert isinstance(submitted(customer, code, Purpose.NEW_DEVICE), WrongCode)

    code = made(customer)
    row = models.PhoneVerification.objects.get(purpose=Purpose.STEP_UP)
    row.phone = "254700000001"
    row.save()
    assert isinstance(submitted(customer, code), WrongCode)


def test_a_code_is_only_the_askers(customer):
    code = made(customer, asker="session 1")
    assert isinstance(submitted(customer, code, asker="session 2"), WrongCode)
    assert submitted(customer, code, asker="session 1") == customer.phone


def test_a_code_for_a_new_target_closes_the_one_before(customer):
    first = made(customer, Purpose.NEW_PHONE)
    second = made(customer, Purpose.NEW_PHONE, a_customer().phone)
    if first != second:
        assert isinstance(submitted(customer, first, Purpose.NEW_PHONE), WrongCode)


def test_an_expired_code_is_none(customer):
    code = made(customer)
    models.PhoneVerification.objects.update(expires_at=now() - timedelta(seconds=1))
    assert isinstance(submitted(customer, code), NoOpenCode)


def test_each_purpose_has_its_own_limit(customer):
    for _ in range(3):
        made(customer)
    with pytest.raises(CodesAskedTooOften):
        made(customer)
    made(customer, Purpose.NEW_DEVICE)


def test_reset_codes_of_both_channels_are_one_purpose(customer):
    by_sms, by_email = (
        made(customer, Purpose.RESET_PASSWORD),
        made(customer, Purpose.RESET_PASSWORD, Email(customer.email)),
    )
    if by_sms != by_email:
        assert isinstance(submitted(customer, by_sms, Purpose.RESET_PASSWORD), WrongCode)
    made(customer, Purpose.RESET_PASSWORD)
    with pytest.raises(CodesAskedTooOften):
        made(customer, Purpose.RESET_PASSWORD, Email(customer.email))


def test_the_first_code_after_registration_goes_to_the_phone_once(sms):
    customer = a_customer(phone_verified=False)
    event = UserRegistered(user_id=customer.id, occurred_at=now())
    registration.send_codes([event, event])
    assert [phone for phone, _ in sms] == [customer.phone]
