"""Things that happen at the same moment, over real commits. SQLite has one writer at a time: nothing to see there."""

from base64 import b32decode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from identity import models
from identity.application.account import ResetRefused
from identity.application.auth import SignIn
from identity.domain.contact import Email
from identity.domain.credentials import SignInBusy
from identity.domain.device import DeviceLimitReached
from identity.domain.kyc_snapshot import Gender, IdentityDocumentTaken, IdType, KycFacts, KycUnderReview, Side
from identity.domain.ports import SignedIn
from identity.domain.session import RefreshInFlight, RefreshTokenReused, SessionEnded
from identity.domain.totp import totp
from identity.domain.user import AlreadyRegistered, DerivLoginTaken
from identity.domain.verification import CodesAskedTooOften, NoOpenCode
from identity.facade import (
    BindDerivLogin,
    Register,
    SubmitKyc,
    account,
    auth,
    kyc_submissions,
    registration,
    step_up,
)
from identity.infrastructure.persistence import phone_index
from identity.models import kyc as kyc_rows
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer, a_phone
from identity.tests.images import a_photo
from identity.tests.test_codes import code_in, made, other_than
from identity.tests.test_kyc import submit
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.infrastructure.persistence import lock_lost, new_id, now

pytestmark = [
    pytest.mark.usefixtures("everybody_may_try"),
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each call gave or refused; all start together, each on a connection of its own.

    One that waited too long for a lock (on a busy machine) is repeated, as its client would.
    """
    start = Barrier(len(calls))

    def run(call):
        try:
            start.wait()
            while True:
                try:
                    return call()
                except OperationalError as waited:
                    if not lock_lost(waited):
                        raise
        except DomainError as refused:
            return refused
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def sign_in(customer, device: str, cookie: str = ""):
    return auth.sign_in(
        SignIn(
            identifier=Email(customer.email),
            password=PASSWORD,
            device_cookie=cookie,
            client_id=device,
            device_name="x",
            platform="android",
        )
    )


def signed_in_as(customer) -> SignedIn:
    return auth.authenticate(sign_in(customer, "a").tokens.access)


def test_of_six_devices_that_enrol_at_once_two_get_in():
    customer = a_customer(password=PASSWORD, phone_verified=False)  # no code is asked for
    results = at_once([partial(sign_in, customer, f"device-{i}") for i in range(6)])
    refused = [result for result in results if isinstance(result, DeviceLimitReached)]
    assert len(refused) == 4
    assert set(models.Device.objects.values_list("slot", flat=True)) == {1, 2}
    assert models.Session.objects.count() == 2


def test_one_device_that_signs_in_six_times_at_once_takes_one_place():
    customer = a_customer(password=PASSWORD, phone_verified=False)
    results = at_once([lambda: sign_in(customer, "same") for _ in range(6)])
    assert not [result for result in results if isinstance(result, Exception)]
    assert models.Device.objects.filter(revoked_at=None).count() == 1
    assert models.Session.objects.filter(ended_at=None).count() == 1


def test_a_refresh_token_sent_eight_times_at_once_gives_one_successor_and_the_session_lives():
    customer = a_customer(password=PASSWORD)
    tokens = sign_in(customer, "a").tokens
    arrived_at = now()
    results = at_once(
        [lambda: auth.refresh(tokens.refresh, tokens.device or "", arrived_at=arrived_at) for _ in range(8)]
    )
    [turned] = [result for result in results if not isinstance(result, Exception)]
    assert {type(result) for result in results} - {type(turned)} == {RefreshInFlight}
    assert models.RefreshToken.objects.filter(used_at=None).count() == 1
    assert auth.authenticate(turned.access).id == customer.id
    auth.refresh(turned.refresh, tokens.device or "", arrived_at=now())


def test_a_spent_token_replayed_while_its_successor_is_used_ends_the_session_whoever_is_first():
    customer = a_customer(password=PASSWORD)
    first = sign_in(customer, "a").tokens
    device = first.device or ""
    second = auth.refresh(first.refresh, device, arrived_at=now())

    results = at_once(
        [
            lambda: auth.refresh(first.refresh, device, arrived_at=now()),
            lambda: auth.refresh(second.refresh, device, arrived_at=now()),
        ]
    )

    assert RefreshTokenReused in {type(result) for result in results}
    with pytest.raises(SessionEnded):
        auth.authenticate(second.access)
    assert models.Session.objects.filter(ended_at=None).count() == 0


def test_logout_and_refresh_at_once_leave_nobody_signed_in():
    customer = a_customer(password=PASSWORD)
    tokens = sign_in(customer, "a").tokens
    at_once(
        [
            lambda: auth.refresh(tokens.refresh, tokens.device or "", arrived_at=now()),
            lambda: auth.sign_out(tokens.access, tokens.refresh),
        ]
    )
    assert models.Session.objects.filter(ended_at=None).count() == 0


def test_of_six_registrations_of_one_phone_at_once_one_is_stored():
    phone = Phone(a_phone())
    commands = [
        Register(phone=phone, email=Email(f"a{i}@example.org"), password=PASSWORD, full_name="Amina Otieno")
        for i in range(6)
    ]
    results = at_once([partial(registration.register, command) for command in commands])
    assert sum(isinstance(result, AlreadyRegistered) for result in results) == 5
    assert models.User.objects.count() == models.Profile.objects.count() == models.Compliance.objects.count() == 1


def test_one_deriv_account_bound_by_four_customers_at_once_is_one_customers(deriv):
    deriv.holds("a-token", "CR77")
    customers = [a_customer(deriv_account=None) for _ in range(4)]
    commands = [
        BindDerivLogin(user_id=customer.id, session_id=new_id(), platform=DerivPlatform.WS_V3, token="a-token")
        for customer in customers
    ]
    results = at_once([partial(deriv.logins.bind, command) for command in commands])
    assert sum(isinstance(result, DerivLoginTaken) for result in results) == 3
    assert models.DerivLogin.objects.count() == 1


def test_fifty_guesses_of_a_code_at_once_are_five_tries(sms):
    customer = a_customer(phone_verified=False)
    registration.send_phone_code(customer.id)
    wrong = other_than(code_in(sms[-1][1]))
    results = at_once([lambda: registration.confirm_phone(customer.id, wrong) for _ in range(50)])
    assert sorted(type(result).__name__ for result in results) == ["NoOpenCode"] * 45 + ["WrongCode"] * 5
    assert models.PhoneVerification.objects.get().attempts == 5


def submitting(customer, number: str) -> Callable[[], Any]:
    today = now().date()
    facts = KycFacts(
        id_type=IdType.NATIONAL_ID, id_number=number, id_issued_on=today - timedelta(days=900),
        id_expires_on=today + timedelta(days=900), date_of_birth=today - timedelta(days=30 * 365), gender=Gender.MALE,
        nationality="KE", residence="KE",
    )  # fmt: skip
    photo = a_photo((300, 300))
    images = {Side.FRONT: photo, Side.SELFIE: photo}
    return partial(kyc_submissions.submit, SubmitKyc(user_id=customer.id, facts=facts, images=images))


def test_of_six_submissions_of_one_customer_at_once_one_is_kept():
    customer = a_customer(kyc_status="none")
    results = at_once([submitting(customer, f"1234567{i % 2}") for i in range(6)])
    assert sum(isinstance(result, KycUnderReview) for result in results) == 5
    assert kyc_rows.KycSnapshot.objects.count() == kyc_rows.KycDocument.objects.count() == 1
    assert kyc_rows.KycImage.objects.count() == 2


def test_one_document_submitted_by_six_customers_at_once_is_one_customers():
    customers = [a_customer(kyc_status="none") for _ in range(6)]
    results = at_once([submitting(customer, "12345678") for customer in customers])
    assert sum(isinstance(result, IdentityDocumentTaken) for result in results) == 5
    assert kyc_rows.KycSnapshot.objects.get().user_id == kyc_rows.KycDocument.objects.get().user_id
    assert models.Compliance.objects.filter(kyc_status="submitted").count() == 1


def test_guesses_at_once_are_counted_one_by_one():
    at_once([submitting(a_customer(kyc_status="none"), "12345678")])
    guesser = a_customer(kyc_status="none")
    results = at_once([submitting(guesser, "12345678") for _ in range(9)])
    assert sum(isinstance(result, IdentityDocumentTaken) for result in results) == 5


@pytest.mark.parametrize("same_customer", [True, False])
def test_over_http_one_submission_wins_and_the_others_are_told_so(same_customer):
    one = a_customer(password=PASSWORD, kyc_status="none")
    browsers = []
    for device in range(2):
        browser = Browser()
        customer = one if same_customer else a_customer(password=PASSWORD, kyc_status="none")
        enter = browser.enrol if device and same_customer else browser.sign_in
        assert enter(customer.email, device=f"device-{device}").status_code == 200
        browsers.append(browser)

    answers = at_once([partial(submit, browser) for browser in browsers])

    assert sorted(answer.status_code for answer in answers) == [202, 409]
    [refused] = [answer.json()["code"] for answer in answers if answer.status_code == 409]
    assert refused == ("kyc_under_review" if same_customer else "identity_document_taken")
    assert kyc_rows.KycSnapshot.objects.count() == 1


def test_fifty_guesses_of_a_step_up_at_once_are_five_tries_and_the_right_code_is_too_late(sms):
    who = signed_in_as(a_customer(password=PASSWORD))
    step_up.send_code(who)
    code = code_in(sms[-1][1])
    at_once([lambda: step_up.confirm(who, other_than(code)) for _ in range(50)])
    assert models.PhoneVerification.objects.get().attempts == 5
    with pytest.raises(NoOpenCode):
        step_up.confirm(who, code)
    assert models.Session.objects.get().stepped_up_at is None


def test_a_right_code_sent_ten_times_at_once_is_used_once(sms):
    who = signed_in_as(a_customer(password=PASSWORD))
    step_up.send_code(who)
    code = code_in(sms[-1][1])
    results = at_once([lambda: step_up.confirm(who, code) for _ in range(10)])
    assert results.count(None) == 1
    assert sum(isinstance(result, NoOpenCode) for result in results) == 9


def test_an_authenticators_code_sent_ten_times_at_once_is_used_once():
    who = signed_in_as(a_customer(password=PASSWORD))
    secret = b32decode(step_up.enrol_totp(who.id).secret)
    step = int(now().timestamp()) // 30
    step_up.confirm_totp(who.id, totp(secret, step - 1))
    results = at_once([lambda: step_up.confirm(who, totp(secret, step)) for _ in range(10)])
    assert results.count(None) == 1


def test_of_twenty_codes_asked_for_at_once_three_are_sent(sms):
    who = signed_in_as(a_customer(password=PASSWORD))
    results = at_once([lambda: step_up.send_code(who) for _ in range(20)])
    assert sum(isinstance(result, CodesAskedTooOften) for result in results) == 17
    assert len(sms) == 3
    assert models.PhoneVerification.objects.filter(open=True).count() == 1


def test_fifty_guesses_of_a_reset_code_at_once_are_five_tries():
    customer = a_customer(password=PASSWORD)
    right = made(customer, "reset_password")
    guess = partial(account.reset_password, customer.phone, other_than(right), "nine herons over Lamu")
    results = at_once([guess for _ in range(50)])
    assert {type(result) for result in results} <= {ResetRefused, SignInBusy}
    assert models.PhoneVerification.objects.get().attempts == 5 or any(isinstance(r, SignInBusy) for r in results)
    assert models.PhoneVerification.objects.get().attempts <= 5


def test_twenty_guesses_of_the_old_password_at_once_are_five_tries():
    customer = a_customer(password=PASSWORD)
    who = signed_in_as(customer)
    guess = partial(account.change_password, who, "not the password", "nine herons over Lamu")
    results = at_once([guess for _ in range(20)])
    assert sorted(type(result).__name__ for result in results) == ["SessionEnded"] * 15 + ["WrongPassword"] * 5
    assert models.Session.objects.get().ended_by == "password_guessed"


def test_a_phone_that_two_customers_want_at_once_is_one_customers(sms):
    phone = Phone(a_phone())
    pair = [signed_in_as(a_customer(password=PASSWORD)) for _ in range(2)]
    codes = []
    for who in pair:
        account.ask_for_phone(who, phone)
        codes.append(code_in(sms[-1][1]))
    results = at_once([partial(account.confirm_phone, who, code) for who, code in zip(pair, codes, strict=True)])
    assert sorted(type(result).__name__ for result in results) == ["ContactTaken", "NoneType"]
    assert models.User.objects.filter(phone_index=phone_index(phone)).count() == 1


def test_a_reset_and_a_change_of_phone_at_once_leave_one_account_that_is_consistent(sms):
    customer = a_customer(password=PASSWORD)
    who, new = signed_in_as(customer), Phone(a_phone())
    reset_code = made(customer, "reset_password")
    account.ask_for_phone(who, new)
    code = code_in(sms[-1][1])
    reset, changed = at_once(
        [
            partial(account.reset_password, customer.phone, reset_code, "nine herons over Lamu"),
            partial(account.confirm_phone, who, code),
        ]
    )
    assert (reset is None) != (changed is None)  # whoever came first closed the other's code
    row = models.User.objects.get(pk=customer.id)
    assert (row.phone == new.number) is (changed is None)
    assert not models.PhoneVerification.objects.filter(open=True).exists()
