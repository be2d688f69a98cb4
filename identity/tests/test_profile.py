"""`PATCH me`: name and address, and when the name is fixed."""

import pytest
from django.db import connection

from identity import models
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db
HOME = {"line": "12 Moi Avenue", "town": "Nairobi", "county": "Nairobi", "postal_code": "00100", "country": "KE"}


def signed_in(**customer) -> Browser:
    browser = Browser()
    built = a_customer(password=PASSWORD, **{"deriv_account": None, "kyc_status": "none"} | customer)
    assert browser.sign_in(built.email).status_code == 200
    return browser


def told() -> list[tuple[str, dict[str, str]]]:
    rows = AuditLog.objects.filter(action__in=["user.renamed", "user.address_changed"]).order_by("seq")
    return list(rows.values_list("action", "details"))


def test_a_new_name_and_address_are_kept_encrypted_and_audited():
    browser = signed_in()

    answer = browser.patch("me", {"full_name": " Amina  Atieno Otieno ", "address": HOME})

    assert answer.status_code == 200
    assert answer.json() == browser.get("me").json()
    assert (answer.json()["full_name"], answer.json()["address"]) == ("Amina Atieno Otieno", HOME)
    assert told() == [("user.renamed", {}), ("user.address_changed", {"country": "KE"})]
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM user_profile JOIN user_address ON user_address.user_id = user_profile.user_id")
        raw = repr(cursor.fetchall())
        cursor.execute("SELECT * FROM audit_logs")
        raw += repr(cursor.fetchall())
    assert not any(part in raw for part in ("Atieno", "Moi", "Nairobi", "00100"))


def test_an_address_is_added_to_the_former_ones_and_the_same_one_is_not():
    browser = signed_in()

    browser.patch("me", {"address": HOME})
    browser.patch("me", {"address": HOME | {"line": " 12  Moi Avenue"}})
    moved = browser.patch("me", {"address": {"line": "P.O. Box 7", "country": "UG"}})

    assert moved.json()["address"] == {
        "line": "P.O. Box 7", "town": "", "county": "", "postal_code": "", "country": "UG",
    }  # fmt: skip
    assert [row.line for row in models.Address.objects.order_by("created_at")] == ["12 Moi Avenue", "P.O. Box 7"]
    assert len(told()) == 2


def test_what_is_not_sent_stays_and_the_same_name_again_is_no_change():
    browser = signed_in(kyc_status="verified")
    before = browser.get("me").json()

    assert browser.patch("me", {}).json() == before
    assert browser.patch("me", {"full_name": before["full_name"]}).json() == before
    assert told() == []


@pytest.mark.parametrize("status", ["submitted", "verified", "expired"])
def test_a_name_that_documents_stand_for_is_fixed_and_nothing_else_is_changed(status):
    browser = signed_in(kyc_status=status)

    answer = browser.patch("me", {"full_name": "Somebody Else", "address": HOME})

    assert (answer.status_code, answer.json()["code"]) == (409, "name_is_verified")
    assert ("wait" if status == "submitted" else "support") in answer.json()["detail"]
    assert browser.get("me").json()["full_name"] == "Amina Wanjiru Otieno"
    assert browser.get("me").json()["address"] is None
    assert told() == []
    assert browser.patch("me", {"address": HOME}).status_code == 200


def test_after_a_rejection_the_name_may_be_put_right():
    assert signed_in(kyc_status="rejected").patch("me", {"full_name": "Amina W. Otieno"}).status_code == 200


def test_a_name_stays_that_of_the_bound_deriv_login():
    browser = signed_in(deriv_account="")

    other = browser.patch("me", {"full_name": "Juma Odhiambo"})
    same = browser.patch("me", {"full_name": "Otieno Amina"})

    assert (other.status_code, other.json()["code"]) == (422, "deriv_name_mismatch")
    assert same.status_code == 200


@pytest.mark.parametrize("body", [{"full_name": "Somebody Else"}, {"address": HOME}])
def test_of_a_frozen_account_nothing_is_changed(body):
    answer = signed_in(frozen_at=now()).patch("me", body)

    assert (answer.status_code, answer.json()["code"]) == (409, "account_frozen")
    assert told() == []


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        ({"full_name": "Amina"}, 422, "invalid_name"),
        ({"full_name": "=HYPERLINK(1) Otieno"}, 422, "invalid_name"),
        ({"full_name": "Amina\u202e Otieno"}, 422, "invalid_name"),
        ({"full_name": None}, 400, "invalid_request"),
        ({"full_name": 7}, 400, "invalid_request"),
        ({"address": {"town": "Nairobi"}}, 400, "invalid_request"),
        ({"address": HOME | {"line": "+254"}}, 422, "invalid_address"),
        ({"address": HOME | {"line": "Moi\tAvenue\x07"}}, 422, "invalid_address"),
        ({"address": HOME | {"country": "ZZ"}}, 422, "invalid_address"),
        ({"address": HOME | {"since": "2020"}}, 400, "invalid_request"),
        ({"address": "12 Moi Avenue"}, 400, "invalid_request"),
        ({"kyc": {"status": "verified"}}, 400, "invalid_request"),
        ({"email": "other@example.org"}, 400, "invalid_request"),
    ],
)
def test_what_is_wrong_is_refused(body, status, expected):
    answer = signed_in().patch("me", body)

    assert (answer.status_code, answer.json()["code"]) == (status, expected)
    assert told() == []


def test_it_takes_a_sign_in_and_the_csrf_header():
    stranger, browser = Browser(), signed_in()
    plain = browser.http.patch("/api/v1/me", {"full_name": "Some Body"}, "application/json")

    assert stranger.patch("me", {"full_name": "Some Body"}).status_code == 401
    assert (plain.status_code, plain.json()["code"]) == (403, "csrf_failed")
