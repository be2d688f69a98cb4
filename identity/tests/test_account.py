"""Changes of an account over REST: who may make them, what ends with them, and who is told."""

from datetime import timedelta

import pytest
from django.db import connection

from identity import models
from identity.domain.ports import SmsUnavailable
from identity.facade import account, notices
from identity.infrastructure.sms import MemorySms
from identity.infrastructure.tokens import Argon2idHasher
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer, a_phone
from identity.tests.test_codes import code_in, made, other_than
from shared_kernel.domain.events import Event
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog, DomainEvent

pytestmark = pytest.mark.django_db
NEW = "nine herons over Lamu"


@pytest.fixture
def elsewhere(customer, signed_in, sms) -> Browser:
    """The same customer's other device."""
    tablet = Browser()
    assert tablet.enrol(customer.email, device="tablet").status_code == 200
    return tablet


def actions() -> set[str]:
    return set(AuditLog.objects.values_list("action", flat=True))


def is_over_for(browser: Browser) -> bool:
    return not browser.is_signed_in() and browser.post("auth/refresh").status_code == 401


# the password


def change(browser: Browser, old: str = PASSWORD, new: str = NEW, **more):
    return browser.post("me/password", {"old_password": old, "password": new, **more})


def test_the_old_password_allows_a_new_one_and_ends_the_other_sessions(customer, signed_in, elsewhere, told):
    thief = signed_in.twin()
    assert change(signed_in).status_code == 204

    assert is_over_for(elsewhere)
    assert models.User.objects.get().token_epoch == 1  # and whatever token is not known of
    assert signed_in.is_signed_in()  # the session that did it
    assert signed_in.post("auth/refresh").status_code == 204
    assert thief.post("auth/refresh").status_code == 401
    assert Browser().sign_in(customer.email).status_code == 401
    assert signed_in.sign_in(customer.email, NEW).status_code == 200
    assert {to for to, text in told() if text.startswith("Your PenPay password was changed.")} == {
        customer.phone.number,
        customer.email,
    }
    assert "user.password_changed" in actions()


def test_a_wrong_old_password_changes_nothing(customer, signed_in, elsewhere, told):
    models.Notice.objects.update(sent_at=now())  # of the second device
    answer = change(signed_in, old="not the password")
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_password")
    assert elsewhere.is_signed_in()
    assert told() == []
    assert [row.why for row in AuditLog.objects.filter(action="user.password_refused")] == ["wrong password"]


def test_the_sixth_try_of_the_old_password_ends_the_session_before_it_is_looked_at(customer, signed_in):
    for _ in range(5):
        assert change(signed_in, old="not the password").json()["code"] == "wrong_password"
    answer = change(signed_in)
    assert (answer.status_code, answer.json()["code"]) == (401, "session_ended")
    assert is_over_for(signed_in)
    assert signed_in.sign_in(customer.email).status_code == 200  # with the old one


def test_a_right_old_password_forgives_the_wrong_ones_before_it(signed_in):
    for old, new in ((PASSWORD, NEW), (NEW, PASSWORD)):
        for _ in range(4):
            change(signed_in, old="not the password")
        assert change(signed_in, old, new).status_code == 204


@pytest.mark.parametrize("weak", ["short", "password123", "penpay-2026", "Otieno.2026"])
def test_a_weak_new_password_is_refused_and_is_no_try_of_the_old_one(signed_in, weak):
    for _ in range(6):
        assert change(signed_in, new=weak).json()["code"] == "weak_password"


# the reset


def ask(identifier: str):
    return Browser().post("auth/password-reset", {"identifier": identifier})


def reset(identifier: str, code: str, password: str = NEW, **more):
    body = {"identifier": identifier, "code": code, "password": password, **more}
    return Browser().post("auth/password-reset/confirm", body)


def test_a_code_to_the_verified_address_sets_a_new_password_and_ends_all_sessions(customer, signed_in, told):
    assert ask(customer.phone.number).status_code == 202
    [(to, text)] = told()
    assert (to, "set a new password" in text) == (customer.email, True)

    assert reset(customer.phone.number, code_in(text)).status_code == 204

    assert is_over_for(signed_in)
    assert signed_in.sign_in(customer.email, NEW).status_code == 200
    assert {to for to, text in told() if "set anew by a code" in text} == {customer.phone.number, customer.email}
    assert reset(customer.phone.number, code_in(text)).json()["code"] == "reset_refused"  # once


@pytest.mark.parametrize("named", ["email", "phone"])
def test_a_stolen_sim_gets_no_code_while_there_is_a_verified_address(customer, told, named):
    identifier = customer.email if named == "email" else customer.phone.number
    ask(identifier)
    assert [to for to, _ in told()] == [customer.email]
    models.User.objects.update(email_verified_at=None)
    ask(identifier)
    assert [to for to, _ in told()] == [customer.phone.number]
    models.User.objects.update(phone_verified_at=None)
    ask(identifier)
    assert told() == []


@pytest.mark.parametrize("who", ["nobody@example.org", "0799999999", "neither", "closed", "staff"])
def test_whoever_is_asked_for_the_answer_is_the_same_and_so_is_the_work(customer, who, told):
    others = {"closed": a_customer(is_active=False), "staff": a_customer(is_staff=True)}
    known, unknown = ask(customer.email), ask(others[who].email if who in others else who)
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content) == (202, b"")
    assert dict(known.headers).keys() == dict(unknown.headers).keys()
    assert AuditLog.objects.filter(action="user.password_reset_asked").count() == 2
    assert [to for to, _ in told()] == [customer.email]


@pytest.mark.parametrize("identifier", ["nobody@example.org", "neither", None])
def test_a_reset_of_nobody_is_refused_like_a_wrong_code_and_computes_the_hash(customer, identifier, told, monkeypatch):
    ask(customer.email)
    right = code_in(told()[0][1])
    hashed: list[str] = []
    real = Argon2idHasher.encode

    def counted(self, password, salt):
        hashed.append(password)
        return real(self, password, salt)

    monkeypatch.setattr(Argon2idHasher, "encode", counted)

    wrong = reset(customer.email, other_than(right))
    refused = reset(identifier or a_customer(email_verified_at=now()).email, right)

    assert (wrong.status_code, wrong.json()["code"]) == (422, "reset_refused")
    assert wrong.json() | {"request_id": ""} == refused.json() | {"request_id": ""}
    assert hashed == [NEW, NEW]
    assert AuditLog.objects.filter(action="user.reset_refused").count() == 2


def test_five_wrong_codes_of_a_reset_lock_the_right_one(customer, told):
    ask(customer.email)
    right = code_in(told()[0][1])
    for _ in range(5):
        assert reset(customer.email, other_than(right)).json()["code"] == "reset_refused"
    assert reset(customer.email, right).json()["code"] == "reset_refused"
    assert Browser().sign_in(customer.email).status_code == 200  # with the old password


def test_too_many_resets_send_no_more_and_say_nothing(customer, told):
    sent = []
    for _ in range(5):
        assert ask(customer.email).status_code == 202
        sent += told()
    assert len(sent) == 3


def test_an_event_that_comes_twice_sends_one_code(customer, told):
    ask(customer.email)
    assert len(told()) == 1
    assert told() == []


def test_a_reset_made_of_the_owners_name_is_refused_and_the_code_stays_good(customer, told):
    ask(customer.email)
    code = code_in(told()[0][1])
    assert reset(customer.email, code, "Amina.Otieno.1").json()["code"] == "weak_password"
    assert reset(customer.email, code).status_code == 204


def test_an_authenticator_that_waits_for_its_first_code_outlives_no_change(customer, signed_in, told):
    signed_in.steps_up()
    assert signed_in.post("me/totp").status_code == 201
    assert change(signed_in).status_code == 204
    assert not models.TotpFactor.objects.exists()

    signed_in.steps_up()
    assert signed_in.post("me/totp").status_code == 201
    ask(customer.email)
    [code] = [code_in(text) for _, text in told() if "code: " in text]
    assert reset(customer.email, code, PASSWORD).status_code == 204
    assert not models.TotpFactor.objects.exists()


def test_an_authenticator_in_use_outlives_a_reset(customer, told):
    models.TotpFactor.objects.create(user_id=customer.id, secret="GEZDGNBV", created_at=now(), confirmed_at=now())
    ask(customer.email)
    assert reset(customer.email, code_in(told()[0][1])).status_code == 204
    assert models.TotpFactor.objects.filter(user_id=customer.id).exists()


# phone and e-mail


def test_a_new_phone_is_proven_by_a_code_and_the_old_one_is_told(customer, signed_in, elsewhere, sms, told):
    new = a_phone()
    signed_in.steps_up()
    assert signed_in.post("me/phone", {"phone": f"+{new}"}).status_code == 202
    assert sms[-1][0].number == new
    assert signed_in.get("me").json()["phone"] == f"+{customer.phone.number}"  # nothing has changed yet

    assert signed_in.post("me/phone/confirm", {"code": code_in(sms[-1][1])}).status_code == 204

    assert signed_in.get("me").json()["phone"] == f"+{new}"
    assert signed_in.get("me").json()["phone_verified"] is True
    changed_at = models.User.objects.get().phone_changed_at
    assert changed_at is not None
    assert now() - changed_at < timedelta(minutes=1)
    assert is_over_for(elsewhere)
    assert {to for to, text in told() if "phone number of your PenPay account was changed" in text} == {
        customer.phone.number,
        customer.email,
    }
    assert "user.phone_changed" in actions()
    assert Browser().sign_in(customer.phone.number).status_code == 401
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM users")
        assert new[3:] not in repr(cursor.fetchall())


def test_a_change_uses_the_step_up_of_its_session_up(signed_in, mails):
    signed_in.steps_up()
    signed_in.post("me/email", {"email": "new@example.org"})
    assert signed_in.post("me/email/confirm", {"code": code_in(mails[0].body)}).status_code == 204
    assert signed_in.post("me/phone", {"phone": a_phone()}).json()["code"] == "step_up_required"


def test_a_new_email_is_proven_by_a_code_and_the_old_one_is_told(customer, signed_in, elsewhere, mails, told):
    signed_in.steps_up()
    assert signed_in.post("me/email", {"email": "New@Example.org"}).status_code == 202
    assert [mail.to for mail in mails] == [["new@example.org"]]
    assert signed_in.post("me/email/confirm", {"code": code_in(mails[0].body)}).status_code == 204
    assert signed_in.get("me").json()["email"] == "new@example.org"
    assert is_over_for(elsewhere)
    assert {to for to, text in told() if "e-mail address" in text} == {customer.phone.number, customer.email}


def test_a_phone_of_somebody_else_is_refused_without_saying_whose(signed_in, sms):
    other = a_customer()
    signed_in.steps_up()
    answer = signed_in.post("me/phone", {"phone": other.phone.number})
    assert (answer.status_code, answer.json()["code"]) == (409, "contact_taken")
    assert str(other.id) not in answer.content.decode()
    assert sms == []


def test_a_phone_that_somebody_else_takes_meanwhile_is_refused(customer, signed_in, sms):
    new = a_phone()
    signed_in.steps_up()
    signed_in.post("me/phone", {"phone": new})
    a_customer(phone=new)
    answer = signed_in.post("me/phone/confirm", {"code": code_in(sms[-1][1])})
    assert (answer.status_code, answer.json()["code"]) == (409, "contact_taken")
    assert signed_in.get("me").json()["phone"] == f"+{customer.phone.number}"
    assert signed_in.is_signed_in()
    assert not DomainEvent.objects.filter(type="NoticeDue").exists()


def test_a_code_for_one_number_confirms_no_other(customer, signed_in, sms):
    first, second = a_phone(), a_phone()
    signed_in.steps_up()
    signed_in.post("me/phone", {"phone": first})
    code = code_in(sms[-1][1])
    signed_in.post("me/phone", {"phone": second})
    if code != code_in(sms[-1][1]):
        assert signed_in.post("me/phone/confirm", {"code": code}).json()["code"] == "wrong_code"
    assert signed_in.get("me").json()["phone"] == f"+{customer.phone.number}"


def test_a_code_for_a_new_phone_is_only_the_asking_sessions(signed_in, elsewhere, sms):
    signed_in.steps_up()
    signed_in.post("me/phone", {"phone": a_phone()})
    assert elsewhere.post("me/phone/confirm", {"code": code_in(sms[-1][1])}).json()["code"] == "wrong_code"


def test_a_reset_code_of_before_is_worth_nothing_once_the_phone_has_changed(customer, signed_in, sms):
    reset_code = made(customer, "reset_password")
    signed_in.steps_up()
    new = a_phone()
    signed_in.post("me/phone", {"phone": new})
    signed_in.post("me/phone/confirm", {"code": code_in(sms[-1][1])})
    assert not models.PhoneVerification.objects.filter(open=True).exists()
    assert reset(new, reset_code).json()["code"] == "reset_refused"
    assert reset(customer.email, reset_code).json()["code"] == "reset_refused"


def test_a_reset_code_that_stayed_open_to_an_old_phone_is_worth_nothing(customer):
    code = made(customer, "reset_password")
    models.User.objects.filter(pk=customer.id).update(phone_verified_at=None)
    assert reset(customer.email, code).json()["code"] == "reset_refused"


def test_a_frozen_account_changes_no_contact(customer, signed_in, sms):
    signed_in.steps_up()
    models.User.objects.update(frozen_at=now())
    for path, body in (("me/phone", {"phone": a_phone()}), ("me/email", {"email": "x@example.org"}), ("me/close", {})):
        assert signed_in.post(path, body).json()["code"] == "account_frozen"
    assert models.User.objects.get().is_active


@pytest.mark.parametrize(
    "email", ["a@b.org\r\nBcc: x@y.org", "a@b.org\nX: y", "a@b.org, c@d.org", "A <a@b.org>", ["a"]]
)
def test_an_email_field_carries_no_header(signed_in, mails, email):
    signed_in.steps_up()
    assert signed_in.post("me/email", {"email": email}).status_code == 400
    assert mails == []


# the end


def test_a_closed_account_is_over_at_once_and_told(customer, signed_in, elsewhere, told):
    thief = signed_in.twin()
    signed_in.steps_up()

    answer = signed_in.post("me/close")

    assert answer.status_code == 204
    assert {name for name, m in answer.cookies.items() if m["max-age"] == 0} == {"penpay_access", "penpay_refresh"}
    assert is_over_for(thief)
    assert is_over_for(elsewhere)
    assert Browser().sign_in(customer.email).status_code == 401
    login = models.DerivLogin.objects.get()
    assert (login.token, login.active_for_id) == ("", None)
    assert {to for to, text in told() if text.startswith("Your PenPay account was closed.")} == {
        customer.phone.number,
        customer.email,
    }
    ask(customer.email)
    assert told() == []
    assert "user.closed" in actions()


def test_a_closed_account_is_not_closed_again(customer, signed_in):
    signed_in.steps_up()
    signed_in.post("me/close")
    with pytest.raises(Exception, match="no such customer"):
        account.close(customer.id)


# notices


def test_a_notice_that_could_not_be_sent_is_sent_later_and_then_forgets_to_whom(customer, signed_in, told, monkeypatch):
    def down(*_):
        raise SmsUnavailable("later")

    change(signed_in)
    events = [Event.from_payload(row.type, row.payload) for row in DomainEvent.objects.filter(type="NoticeDue")]
    with monkeypatch.context() as patch:
        patch.setattr(MemorySms, "send", down)
        with pytest.raises(SmsUnavailable):
            notices.send(events)
    assert models.Notice.objects.exclude(sent_at=None).get().channel == "email"

    assert [to for to, _ in told()] == [customer.phone.number]
    assert told() == []
    assert {row.target for row in models.Notice.objects.all()} == {""}


def test_events_and_audit_rows_hold_no_personal_data(customer, signed_in, sms, told):
    change(signed_in)
    ask(customer.email)
    signed_in.steps_up()
    signed_in.post("me/phone", {"phone": a_phone()})
    signed_in.post("me/phone/confirm", {"code": code_in(sms[-1][1])})
    kept = repr(list(DomainEvent.objects.values_list())) + repr(list(AuditLog.objects.values_list()))
    for secret in (customer.email, customer.phone.number[3:], NEW, PASSWORD):
        assert secret not in kept


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("me/password", {"old_password": PASSWORD, "password": NEW, "token_epoch": 0}),
        ("me/phone", {"phone": "0722000001", "phone_verified": True}),
        ("me/phone/confirm", {"code": "123456", "phone": "0722000001"}),
        ("me/email", {"email": "x@example.org", "is_staff": True}),
        ("me/email/confirm", {"code": "123456", "email": "x@example.org"}),
        ("me/email-verification/confirm", {"code": "123456", "email": "x@example.org"}),
        ("auth/password-reset", {"identifier": "x@example.org", "channel": "email"}),
        (
            "auth/login",
            {"identifier": "x", "password": "x", "device": {"name": "x", "platform": "x"}, "is_staff": True},
        ),
        ("auth/password-reset/confirm", {"identifier": "x", "code": "123456", "password": NEW, "is_staff": True}),
    ],
)
def test_a_field_too_many_is_refused(customer, signed_in, path, body):
    signed_in.steps_up()
    answer = signed_in.post(path, body)
    assert answer.status_code == 400
    assert {error["code"] for error in answer.json()["errors"]} == {"unknown_field"}
    assert signed_in.sign_in(customer.email).status_code == 200


# an account under review


@pytest.fixture
def frozen(customer, signed_in):
    """Signed in before it was frozen."""
    models.User.objects.update(frozen_at=now(), phone_verified_at=None)
    return signed_in


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("me/password", {"old_password": PASSWORD, "password": NEW}),
        ("me/phone-verification", {}),
        ("me/phone-verification/confirm", {"code": "123456"}),
    ],
)
def test_under_review_neither_the_password_nor_what_is_verified_changes(frozen, sms, path, body):
    before = models.User.objects.values("password", "phone_verified_at", "token_epoch").get()

    answer = frozen.post(path, body)

    assert (answer.status_code, answer.json()["code"]) == (409, "account_frozen")
    assert models.User.objects.values("password", "phone_verified_at", "token_epoch").get() == before
    assert sms == []


def test_nor_by_a_code_of_before_and_nobody_is_told_why(customer, told):
    body = {"identifier": customer.email, "password": NEW}
    Browser().post("auth/password-reset", {"identifier": customer.email})
    code = code_in(told()[0][1])
    before = models.User.objects.get().password
    models.User.objects.update(frozen_at=now())

    answer = Browser().post("auth/password-reset/confirm", body | {"code": code})

    assert (answer.status_code, answer.json()["code"]) == (422, "reset_refused")
    assert models.User.objects.get().password == before
    assert [row.why for row in AuditLog.objects.filter(action="user.reset_refused")] == ["not open"]


def test_nor_is_a_code_to_reset_sent(customer, told):
    models.User.objects.update(frozen_at=now())
    assert Browser().post("auth/password-reset", {"identifier": customer.email}).status_code == 202
    assert told() == []
