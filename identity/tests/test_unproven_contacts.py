"""A phone number or an address that nobody proved is kept for nobody: whoever is its owner can have it in the end."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import connection

from identity import models
from identity.domain.contact import Email
from identity.domain.user import AlreadyRegistered
from identity.facade import Register, registration
from identity.infrastructure.persistence import email_index, phone_index
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, ACustomer, a_customer, a_phone
from identity.tests.test_codes import code_in
from identity.tests.test_races import at_once
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def squatter(*, age: timedelta = DAY, **columns: Any) -> ACustomer:
    """Somebody who registered a while ago with whatever contacts, and proved none."""
    unproven: dict[str, Any] = {
        "phone_verified": False,
        "kyc_status": "none",
        "deriv_account": None,
        "password": PASSWORD,
    }
    return a_customer(**unproven | {"created_at": now() - age} | columns)


def register(phone: str, email: str = "owner@example.org"):
    body = {"phone": phone, "email": email, "password": PASSWORD, "full_name": "Amina Otieno"}
    return Browser().post("auth/register", body)


def row_of(customer) -> models.User:
    return models.User.objects.get(pk=customer.id)


def lost(customer) -> list[str]:
    rows = AuditLog.objects.filter(action="user.contact_lost", target_id=str(customer.id))
    return [row.why for row in rows]


def test_a_number_that_was_registered_and_never_proven_is_its_owners_to_register():
    other = squatter()
    browser = Browser()
    assert browser.sign_in(other.email).status_code == 200

    answer = register(other.phone.number)

    assert answer.status_code == 201
    assert models.User.objects.get(phone_index=phone_index(other.phone)).pk != other.id
    assert (row_of(other).phone, row_of(other).phone_index, row_of(other).is_active) == ("", None, True)
    assert len(lost(other)) == 1
    me = browser.get("me").json()  # what is left to them is the address
    assert (me["phone"], me["phone_verified"], me["email"]) == ("", False, other.email)
    assert browser.post("me/phone-verification").json()["code"] == "phone_already_verified"
    assert Browser().sign_in(other.phone.number).status_code == 200  # the owner's account, by the owner's password


def test_the_same_for_an_address():
    other = squatter()
    assert register(a_phone(), other.email).status_code == 201
    assert models.User.objects.get(email_index=email_index(Email(other.email))).pk != other.id
    assert (row_of(other).email, row_of(other).email_index) == ("", None)
    assert row_of(other).phone == other.phone.number


def test_an_account_that_loses_both_has_ended_and_is_to_be_forgotten():
    other = squatter()
    browser = Browser()
    assert browser.sign_in(other.email).status_code == 200
    assert register(other.phone.number, other.email).status_code == 201
    row = row_of(other)
    assert (row.is_active, row.phone, row.email) == (False, "", "")
    assert row.erase_after is not None
    assert row.erase_after <= now()
    assert not browser.is_signed_in()
    assert models.Session.objects.get(user_id=other.id).ended_at is not None
    assert AuditLog.objects.filter(action="user.closed", target_id=str(other.id)).count() == 1


def test_who_registered_today_still_has_the_time_to_prove_it():
    other = squatter(age=DAY - timedelta(minutes=5))
    answer = register(other.phone.number)
    assert (answer.status_code, answer.json()["code"]) == (409, "already_registered")
    assert lost(other) == []


def test_what_is_proven_stays_and_only_the_rest_goes_which_is_told(told):
    other = squatter(phone_verified=True, phone_verified_at=now(), kyc_status="verified")
    assert register(other.phone.number).status_code == 409
    assert register(a_phone(), other.email).status_code == 201
    assert (row_of(other).phone, row_of(other).email, row_of(other).is_active) == (other.phone.number, "", True)
    assert [to for to, text in told() if "never verified" in text] == [other.phone.number]


def test_where_one_contact_is_proven_the_other_is_not_taken_either():
    other, proven = squatter(), a_customer(email_verified_at=now())
    assert register(other.phone.number, proven.email).status_code == 409
    assert row_of(other).phone == other.phone.number
    assert lost(other) == []


@pytest.mark.parametrize(
    "more",
    [{"kyc_status": "verified"}, {"deriv_account": ""}, {"frozen_at": now()}, {"is_staff": True}],
    ids=["documents", "deriv", "frozen", "staff"],
)
def test_what_more_is_known_of_or_is_under_review_or_staffs_stays(more):
    other = squatter(**more)
    for phone, email in ((other.phone.number, "owner@example.org"), (a_phone(), other.email)):
        assert register(phone, email).status_code == 409
    assert row_of(other).phone == other.phone.number


def test_a_closed_accounts_unproven_number_is_no_claim_either():
    kept = now() + 1000 * DAY
    other = squatter(is_active=False, closed_at=now(), email_verified_at=now(), erase_after=kept)
    assert register(other.phone.number).status_code == 201
    assert row_of(other).erase_after == kept


def test_a_code_that_came_to_it_takes_a_contact_at_once_from_who_never_proved_it(customer, signed_in, sms):
    other = squatter(age=timedelta(minutes=1))
    signed_in.steps_up()
    assert signed_in.post("me/phone", {"phone": other.phone.number}).status_code == 202
    assert row_of(other).phone == other.phone.number  # asking takes nothing
    assert signed_in.post("me/phone/confirm", {"code": code_in(sms[-1][1])}).status_code == 204
    assert row_of(customer).phone == other.phone.number
    assert row_of(other).phone_index is None
    assert len(lost(other)) == 1


def test_the_own_unproven_address_is_no_new_one():
    unproven = a_customer(password=PASSWORD)
    browser = Browser()
    assert browser.sign_in(unproven.email).status_code == 200
    browser.steps_up()
    assert browser.post("me/email", {"email": unproven.email}).json()["code"] == "contact_taken"


def test_a_code_to_prove_that_was_open_proves_nothing_once_the_number_is_anothers(sms):
    other = squatter()
    registration.send_phone_code(other.id)
    assert register(other.phone.number).status_code == 201
    browser = Browser()
    assert browser.sign_in(other.email).status_code == 200
    answer = browser.post("me/phone-verification/confirm", {"code": code_in(sms[0][1])})
    assert answer.status_code == 409
    assert row_of(other).phone_verified_at is None


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
@pytest.mark.usefixtures("everybody_may_try")
@pytest.mark.django_db(transaction=True)
def test_of_ten_who_take_a_number_over_at_once_one_has_it():
    other = squatter()
    bodies = [
        Register(phone=other.phone, email=Email(f"owner-{n}@example.org"), password=PASSWORD, full_name="Amina Otieno")
        for n in range(10)
    ]
    results = at_once([partial(registration.register, body) for body in bodies])
    assert sum(isinstance(result, AlreadyRegistered) for result in results) == 9
    assert models.User.objects.filter(phone_index=phone_index(other.phone)).count() == 1
    assert models.User.objects.count() == 2
    assert len(lost(other)) == 1


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
@pytest.mark.usefixtures("everybody_may_try")
@pytest.mark.django_db(transaction=True)
def test_of_a_proof_and_a_takeover_at_once_one_counts(sms):
    other = squatter()
    registration.send_phone_code(other.id)
    body = Register(phone=other.phone, email=Email("o@example.org"), password=PASSWORD, full_name="Amina Otieno")
    proven, _ = at_once(
        [partial(registration.confirm_phone, other.id, code_in(sms[0][1])), partial(registration.register, body)]
    )
    owner = models.User.objects.get(phone_index=phone_index(other.phone))
    assert (owner.pk == other.id) is (proven is None)
    assert (owner.phone_verified_at is not None) is (proven is None)
