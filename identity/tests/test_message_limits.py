"""Texts and mails have an end, and nobody uses up what somebody else needs: codes, step-ups and notices count apart."""

from contextlib import suppress
from datetime import timedelta

import pytest

from identity.domain.notice import NoticeKind
from identity.facade import accounts, notices
from identity.models import Notice
from identity.tests.clients import HOME, a_browser, refused
from identity.tests.factories import PASSWORD, a_customer
from shared_kernel.application.delivery import Delivery, Lasting, Relay, Subscriptions, retry_after
from shared_kernel.domain.errors import TooManyRequests
from shared_kernel.domain.events import NoticeDue
from shared_kernel.domain.rate_limits import Counter
from shared_kernel.facade import limiter
from shared_kernel.infrastructure.outbox import DjangoOutboxQueue
from shared_kernel.infrastructure.persistence import DjangoIdempotencyKeys, acting_as, now, unit_of_work
from shared_kernel.models import DomainEvent

pytestmark = pytest.mark.django_db


def signed(customer, address=HOME):
    browser = a_browser(address)
    assert browser.sign_in(customer.email).status_code == 200
    return browser


# --- asking for codes ------------------------------------------------------------------------------------------------


def test_a_customer_who_asks_for_codes_without_end_keeps_no_neighbour_from_theirs(sms):
    greedy, neighbour = signed(a_customer(password=PASSWORD)), signed(a_customer(password=PASSWORD))
    answers = [greedy.post("auth/step-up") for _ in range(70)]

    assert [answer.json().get("code") for answer in answers[3:]] == ["codes_asked_too_often"] * 17 + [
        "too_many_requests"
    ] * 50
    assert neighbour.post("auth/step-up").status_code == 202
    assert len(sms) == 4


def test_codes_for_all_purposes_are_asked_for_as_often_as_the_limit_says(limits, sms):
    limits(codes_user=3)
    browser = signed(a_customer(password=PASSWORD))
    browser.steps_up()
    asked = [
        browser.post("auth/step-up"),
        browser.post("me/email-verification"),
        browser.post("me/phone", {"phone": "0712345678"}),
        browser.post("auth/step-up"),
    ]
    assert [answer.status_code for answer in asked] == [202, 202, 202, 429]
    assert refused(asked[-1])


# --- texts -----------------------------------------------------------------------------------------------------------


def test_whoever_knows_a_password_uses_up_no_step_up_and_no_notice(customer, clock, sms, told):
    own, thief = signed(customer), a_browser("41.90.0.7")
    codes = []
    for number in range(16):
        codes.append(thief.sign_in(customer.email, device=f"thief-{number}").json()["code"])
        clock.shift(timedelta(minutes=3, seconds=21))
    assert "too_many_texts" in codes or "codes_asked_too_often" in codes

    assert own.post("auth/refresh").status_code == 204
    assert own.post("auth/step-up").status_code == 202


def test_a_flood_of_what_strangers_can_have_sent_stops_neither_step_ups_nor_notices(customer, limits, sms, told):
    limits(sms_anybody_phone=2, sms_anybody_all=3)
    own = signed(customer)
    for number in range(2):
        answer = a_browser().sign_in(customer.phone.number, device=f"thief-{number}")
        assert answer.json()["code"] == "device_code_required"
    code = sms[-1][1].split("code: ")[1][:6]
    for number in range(2):
        squatter = a_customer(password=PASSWORD, phone_verified_at=None)
        answer = signed(squatter, f"41.90.0.{number}").post("me/phone-verification")
    assert refused(answer, "too_many_texts")

    assert own.post("auth/step-up").status_code == 202
    assert a_browser("41.90.9.9").sign_in(customer.phone.number, device="thief-1", code=code).status_code == 200
    assert customer.phone.number in [to for to, _ in told()], "the notice of the new device"
    assert refused(a_browser().sign_in(customer.phone.number, device="thief-3"), "too_many_texts")


def test_step_ups_have_a_ceiling_of_their_own_and_notices_another(customer, limits, sms):
    limits(sms_session_phone=1, sms_notice_all=1)
    own = signed(customer)
    assert own.post("auth/step-up").status_code == 202
    assert refused(own.post("auth/step-up"), "too_many_texts")
    assert a_browser().sign_in(customer.phone.number, device="new").json()["code"] == "device_code_required"
    assert len(sms) == 2


class Kept:
    """A broker that keeps its messages until they are worked off."""

    def __init__(self):
        self.messages = []

    def publish(self, messages):
        self.messages += messages

    def waiting(self):
        return len(self.messages)


def work_off():
    """What relay and worker do about notices once a while."""
    queue, kept = DjangoOutboxQueue(retry_after), Kept()
    followed: Subscriptions = {NoticeDue: [Lasting(notices.send)]}  # as penpay/subscriptions.py has it
    Relay(queue, kept, lambda: followed).drain()
    for message in kept.messages:
        Delivery(queue, kept, DjangoIdempotencyKeys(), unit_of_work, acting_as, lambda: followed).deliver(message)


def tell_twice(customer):
    with unit_of_work():
        user = accounts.get(customer.id)
        for kind in (NoticeKind.TOTP_ADDED, NoticeKind.TOTP_REMOVED):
            notices.tell(user, kind, [customer.phone])
        accounts.save(user)


@pytest.fixture
def shifting(monkeypatch, clock):
    """The limiter goes by the clock of the test."""
    monkeypatch.setattr(limiter, "redis", None)
    return clock


@pytest.mark.django_db(transaction=True)
def test_a_notice_beyond_the_ceiling_is_sent_once_it_frees_up_and_is_never_parked(limits, sms, shifting):
    """The ordinary retries end after ten minutes."""
    customer = a_customer()
    limits(sms_notice_phone=1)
    tell_twice(customer)
    sent = []
    for _ in range(75):
        work_off()
        sent.append(len(sms))
        shifting.shift(timedelta(minutes=1))

    assert (sent[0], sent[55], sent[-1]) == (1, 1, 2)
    assert not Notice.objects.filter(sent_at=None).exists()
    assert not DomainEvent.objects.filter(parked_at__isnull=False).exists()
    assert not DomainEvent.objects.filter(next_attempt_at__isnull=False).exists()


@pytest.mark.django_db(transaction=True)
def test_a_notice_that_finds_no_room_for_a_day_is_parked(limits, sms, shifting):
    customer = a_customer()
    limits(sms_notice_phone=1)
    tell_twice(customer)
    begun, parked = now(), []
    while now() < begun + timedelta(hours=25):
        with suppress(TooManyRequests):  # something else is always first
            limiter.take(Counter("sms_notice.phone", customer.phone.number))
        work_off()
        parked.append(DomainEvent.objects.filter(parked_at__isnull=False).count())
        shifting.shift(timedelta(minutes=10 if now() < begun + timedelta(hours=23) else 1))

    assert parked[130] == 0, "for most of a day"
    assert DomainEvent.objects.filter(parked_at__isnull=False).count() == 2
    assert sms == []


# --- mails -----------------------------------------------------------------------------------------------------------


def test_mails_have_a_ceiling_as_texts_have(limits, mails):
    limits(mail_anybody_address=2, mail_anybody_all=3)
    browser = signed(a_customer(password=PASSWORD))
    answers = [browser.post("me/email-verification") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert refused(answers[-1], "too_many_mails")
    others = [signed(a_customer(password=PASSWORD)).post("me/email-verification") for _ in range(2)]
    assert [answer.status_code for answer in others] == [202, 429]
    assert len(mails) == 3


def test_mails_that_strangers_can_have_sent_stop_no_step_up_by_mail_and_no_notice(limits, mails, told):
    customer = a_customer(password=PASSWORD, phone_verified_at=None, email_verified_at=now())
    own = signed(customer)
    limits(mail_anybody_address=1, mail_anybody_all=1)
    a_browser().post("auth/password-reset", {"identifier": customer.email})
    told()
    assert refused(signed(a_customer(password=PASSWORD)).post("me/email-verification"), "too_many_mails")

    assert own.post("auth/step-up").status_code == 202
    own.steps_up()
    body = {"old_password": PASSWORD, "password": "nine herons over Nakuru"}
    assert own.post("me/password", body).status_code == 204
    assert customer.email in [to for to, _ in told()]
