"""Who asks for a reset has codes of their own: strangers take nothing from a device that is known. And codes that a
worker sends go out in the end, whatever failed before.
"""

from datetime import timedelta

import pytest

from identity import models
from identity.domain.credentials import SignInBusy
from identity.domain.ports import EmailUnavailable, SmsUnavailable, TooManyTexts
from identity.facade import account, registration
from identity.infrastructure.email import DjangoEmail
from identity.infrastructure.sms import MemorySms
from identity.infrastructure.tokens import Argon2Passwords
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.test_codes import code_in, other_than
from shared_kernel.domain.events import Event, PasswordResetAsked, UserRegistered
from shared_kernel.infrastructure.persistence import now

pytestmark = pytest.mark.django_db
NEW = "nine herons over Lamu"


def ask(browser: Browser, customer) -> None:
    assert browser.post("auth/password-reset", {"identifier": customer.email}).status_code == 202


def confirm(browser: Browser, customer, code: str):
    return browser.post("auth/password-reset/confirm", {"identifier": customer.email, "code": code, "password": NEW})


def test_five_wrong_codes_of_a_stranger_leave_a_known_devices_code_good(customer, signed_in, told):
    ask(signed_in, customer)
    [(_, text)] = told()
    stranger = Browser()
    for _ in range(5):
        assert confirm(stranger, customer, other_than(code_in(text))).json()["code"] == "reset_refused"

    assert confirm(signed_in, customer, code_in(text)).status_code == 204


def test_a_code_that_a_stranger_asks_for_leaves_a_known_devices_code_good(customer, signed_in, told):
    ask(signed_in, customer)
    [(_, text)] = told()
    ask(Browser(), customer)
    assert len(told()) == 1

    assert confirm(signed_in, customer, code_in(text)).status_code == 204
    assert not models.EmailVerification.objects.filter(open=True).exists()  # the stranger's is closed with it


def test_strangers_use_up_their_own_codes_and_not_a_known_devices(customer, signed_in, told, clock):
    by_strangers = 0
    for _ in range(12):
        event = PasswordResetAsked(user_id=customer.id, occurred_at=now())
        clock.shift(timedelta(minutes=3, seconds=21))
        account.send_reset_codes([event])
    by_strangers = models.EmailVerification.objects.count()
    assert by_strangers == 10

    ask(signed_in, customer)
    clock.shift(1)
    assert [to for to, _ in told()][-1] == customer.email
    assert models.EmailVerification.objects.count() == 11


def test_a_code_that_could_not_be_sent_for_long_is_sent_to_nobody_any_more(customer, signed_in, told, clock):
    ask(signed_in, customer)
    clock.shift(timedelta(minutes=30))
    assert told() == []

    ask(signed_in, customer)
    clock.shift(timedelta(minutes=29))
    assert len(told()) == 1


def test_a_known_devices_code_is_worth_nothing_elsewhere_and_a_strangers_nothing_on_it(customer, signed_in, told):
    ask(signed_in, customer)
    [(_, of_device)] = told()
    ask(Browser(), customer)
    [(_, of_stranger)] = told()
    if code_in(of_device) != code_in(of_stranger):
        assert confirm(Browser(), customer, code_in(of_device)).json()["code"] == "reset_refused"
        assert confirm(signed_in, customer, code_in(of_stranger)).json()["code"] == "reset_refused"
    assert confirm(Browser(), customer, code_in(of_stranger)).status_code == 204


def test_a_cookie_of_another_customers_device_makes_a_stranger(customer, signed_in, told):
    other = a_customer(password=PASSWORD, email_verified_at=now())
    ask(signed_in, other)
    assert [to for to, _ in told()] == [other.email]
    assert models.EmailVerification.objects.get().asker == ""


def test_two_known_devices_have_a_code_each(customer, signed_in, sms, told):
    tablet = Browser()
    assert tablet.enrol(customer.email, device="tablet").status_code == 200
    models.Notice.objects.update(sent_at=now())
    ask(signed_in, customer)
    ask(tablet, customer)
    texts = [text for _, text in told()]
    assert len(texts) == 2
    assert confirm(signed_in, customer, code_in(texts[0])).status_code == 204
    assert confirm(tablet, customer, code_in(texts[1])).json()["code"] == "reset_refused"  # closed by the change


def test_an_event_of_before_askers_were_told_is_a_strangers():
    stored = PasswordResetAsked(user_id=a_customer().id, occurred_at=now()).to_payload()
    del stored["asker"]
    event = Event.from_payload("PasswordResetAsked", stored)
    assert isinstance(event, PasswordResetAsked)
    assert event.asker == ""


# what could not be sent


def down(*_):
    raise EmailUnavailable("e-mails can't be sent at the moment: try again later")


def test_a_reset_code_that_could_not_be_sent_is_made_anew_and_sent(customer, mails, monkeypatch):
    event = PasswordResetAsked(user_id=customer.id, occurred_at=now())
    with monkeypatch.context() as patch:
        patch.setattr(DjangoEmail, "send", down)
        for _ in range(8):  # as often as a worker tries: they don't use the codes up either
            with pytest.raises(EmailUnavailable):
                account.send_reset_codes([event])

    account.send_reset_codes([event])
    account.send_reset_codes([event])

    [mail] = mails
    assert confirm(Browser(), customer, code_in(mail.body)).status_code == 204


def test_asks_that_waited_while_nothing_could_be_sent_have_one_code_together(customer, mails, monkeypatch):
    events = [PasswordResetAsked(user_id=customer.id, occurred_at=now()) for _ in range(4)]
    with monkeypatch.context() as patch:
        patch.setattr(DjangoEmail, "send", down)
        for event in events:
            with pytest.raises(EmailUnavailable):
                account.send_reset_codes([event])
    account.send_reset_codes(events)
    assert len(mails) == 1


@pytest.mark.parametrize("why", [SmsUnavailable, TooManyTexts])
def test_a_first_code_that_could_not_be_sent_is_made_anew_and_sent(sms, monkeypatch, why):
    customer = a_customer(phone_verified=False)
    event = UserRegistered(user_id=customer.id, occurred_at=now())

    def refused(*_):
        raise why("not now")

    with monkeypatch.context() as patch:
        patch.setattr(MemorySms, "send", refused)
        for _ in range(8):
            with pytest.raises(why):
                registration.send_codes([event])

    registration.send_codes([event, event])

    assert [phone for phone, _ in sms] == [customer.phone]
    registration.confirm_phone(customer.id, code_in(sms[0][1]))
    assert models.User.objects.get(pk=customer.id).phone_verified_at is not None


@pytest.mark.parametrize("sent", [False, True])
def test_a_worker_that_dies_between_storing_and_sending_has_sent_at_its_next_try(sms, monkeypatch, sent):
    customer = a_customer(phone_verified=False)
    event = UserRegistered(user_id=customer.id, occurred_at=now())
    real = MemorySms.send

    def dies(self, *given):
        if sent:
            real(self, *given)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(MemorySms, "send", dies)
        with pytest.raises(SystemExit):
            registration.send_codes([event])

    registration.send_codes([event])

    assert len(sms) == 1 + sent
    registration.confirm_phone(customer.id, code_in(sms[-1][1]))  # the last one is good


def test_a_code_that_the_customer_asked_for_meanwhile_stands_for_the_first(sms):
    customer = a_customer(phone_verified=False)
    registration.send_phone_code(customer.id)
    registration.send_codes([UserRegistered(user_id=customer.id, occurred_at=now())])
    assert len(sms) == 1


# a server with too much to do


@pytest.mark.parametrize("where", ["hash", "matches"])
def test_a_busy_server_is_no_try_of_the_old_password(signed_in, monkeypatch, where):
    def busy(*_, **__):
        raise SignInBusy("many", retry_after=1)

    body = {"old_password": PASSWORD, "password": NEW}
    with monkeypatch.context() as patch:
        patch.setattr(Argon2Passwords, where, busy)
        for _ in range(7):
            assert signed_in.post("me/password", body).json()["code"] == "sign_in_busy"
    assert models.Session.objects.get().password_tries == 0
    assert signed_in.post("me/password", body).status_code == 204


def test_who_proved_the_old_password_hashes_the_new_one_in_a_turn_that_no_stranger_takes(signed_in, monkeypatch):
    asked = []
    real = Argon2Passwords.hash

    def hash(self, password, **how):
        asked.append(how)
        return real(self, password, **how)

    monkeypatch.setattr(Argon2Passwords, "hash", hash)
    assert signed_in.post("me/password", {"old_password": PASSWORD, "password": NEW}).status_code == 204
    assert asked == [{"known": True}]
