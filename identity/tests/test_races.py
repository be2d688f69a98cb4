"""Things that happen at the same moment, over real commits. SQLite has one writer at a time: nothing to see there."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Barrier
from typing import Any

import pytest
from django.db import OperationalError, connection, connections

from identity import models
from identity.application.auth import SignIn
from identity.domain.kyc_snapshot import Gender, IdentityDocumentTaken, IdType, KycFacts, KycUnderReview, Side
from identity.domain.session import RefreshInFlight, RefreshTokenReused, SessionEnded
from identity.domain.user import AlreadyRegistered, DerivLoginTaken, DeviceLimitReached, Email
from identity.facade import BindDerivLogin, Register, SubmitKyc, auth, kyc_submissions, registration
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer, a_phone
from identity.tests.images import a_photo
from identity.tests.test_kyc import submit
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.infrastructure.persistence import lock_lost, now

pytestmark = [
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


def test_of_six_devices_that_enrol_at_once_two_get_in():
    customer = a_customer(password=PASSWORD)
    results = at_once([partial(sign_in, customer, f"device-{i}") for i in range(6)])
    refused = [result for result in results if isinstance(result, DeviceLimitReached)]
    assert len(refused) == 4
    assert set(models.Device.objects.values_list("slot", flat=True)) == {1, 2}
    assert models.Session.objects.count() == 2


def test_one_device_that_signs_in_six_times_at_once_takes_one_place():
    customer = a_customer(password=PASSWORD)
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
        BindDerivLogin(user_id=customer.id, platform=DerivPlatform.WS_V3, token="a-token") for customer in customers
    ]
    results = at_once([partial(deriv.logins.bind, command) for command in commands])
    assert sum(isinstance(result, DerivLoginTaken) for result in results) == 3
    assert models.DerivLogin.objects.count() == 1


def test_twelve_guesses_of_a_code_at_once_are_five_tries(sms):
    customer = a_customer(phone_verified=False)
    registration.send_phone_code(customer.id)
    code = sms[-1][1].split("code: ")[1][:6]
    wrong = f"{(int(code) + 1) % 10**6:06d}"
    at_once([lambda: registration.confirm_phone(customer.id, wrong) for _ in range(12)])
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
    assert models.KycSnapshot.objects.count() == models.KycDocument.objects.count() == 1
    assert models.KycImage.objects.count() == 2


def test_one_document_submitted_by_six_customers_at_once_is_one_customers():
    customers = [a_customer(kyc_status="none") for _ in range(6)]
    results = at_once([submitting(customer, "12345678") for customer in customers])
    assert sum(isinstance(result, IdentityDocumentTaken) for result in results) == 5
    assert models.KycSnapshot.objects.get().user_id == models.KycDocument.objects.get().user_id
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
        assert browser.sign_in(customer.email, device=f"device-{device}").status_code == 200
        browsers.append(browser)

    answers = at_once([partial(submit, browser) for browser in browsers])

    assert sorted(answer.status_code for answer in answers) == [202, 409]
    [refused] = [answer.json()["code"] for answer in answers if answer.status_code == 409]
    assert refused == ("kyc_under_review" if same_customer else "identity_document_taken")
    assert models.KycSnapshot.objects.count() == 1
