"""Signing in when all places for devices are taken: what is told to whom, and how somebody gets in all the same."""

from base64 import b32decode

import pytest

from identity import models
from identity.domain.totp import STEP_S, totp
from identity.facade import step_up
from identity.tests.clients import Browser
from identity.tests.test_codes import code_in, other_than
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sms")]


@pytest.fixture
def tablet(customer, signed_in) -> Browser:
    """Their other device: all places are taken."""
    tablet = Browser()
    assert tablet.enrol(customer.email, device="tablet").status_code == 200
    return tablet


@pytest.fixture
def third(tablet) -> Browser:
    return Browser()


@pytest.fixture
def code(customer, third, sms) -> str:
    """The one that was sent for the third device."""
    third.sign_in(customer.email, device="third")
    return code_in(sms[-1][1])


def test_a_right_code_is_told_the_devices_and_stays_good_until_one_was_removed(customer, signed_in, third, code):
    answer = third.sign_in(customer.email, device="third", code=code)
    assert (answer.status_code, answer.json()["code"]) == (409, "device_limit_reached")
    assert [(d["id"], d["name"]) for d in answer.json()["devices"]] == [
        ("phone-1", "Amina's phone"), ("tablet", "Amina's phone"),
    ]  # fmt: skip
    assert "replace_device" in answer.json()["detail"]
    assert not third.is_signed_in()

    signed_in.steps_up()
    assert signed_in.delete("me/devices/tablet").status_code == 204
    assert third.sign_in(customer.email, device="third", code=code).status_code == 200


def test_so_does_the_code_of_an_authenticator(customer, signed_in, third):
    secret = b32decode(step_up.enrol_totp(customer.id).secret)
    step = int(now().timestamp()) // STEP_S
    step_up.confirm_totp(customer.id, totp(secret, step - 1))
    answer = third.sign_in(customer.email, device="third", code=totp(secret, step))
    assert answer.json()["code"] == "device_limit_reached"
    signed_in.steps_up()
    signed_in.delete("me/devices/tablet")
    assert third.sign_in(customer.email, device="third", code=totp(secret, step)).status_code == 200
    assert Browser().sign_in(customer.email, device="x", code=totp(secret, step)).json()["code"] == "wrong_code"


def test_who_has_none_of_the_devices_at_hand_replaces_one(customer, signed_in, tablet, third, code):
    answer = third.sign_in(customer.email, device="third", code=code, replace_device="tablet")

    assert answer.status_code == 200
    assert third.is_signed_in()
    assert signed_in.is_signed_in()
    assert not tablet.is_signed_in()
    assert tablet.post("auth/refresh").status_code == 401
    assert [d["id"] for d in third.get("me/devices").json()["items"]] == ["phone-1", "third"]
    assert AuditLog.objects.get(action="device.revoked").why == "replaced when signing in"


def test_the_password_alone_is_told_no_device_and_replaces_none(customer, tablet, third):
    for more in ({}, {"replace_device": "tablet"}):
        answer = third.sign_in(customer.email, device="third", **more)
        assert (answer.status_code, answer.json()["code"]) == (403, "device_code_required")
        assert "devices" not in answer.json()
    assert third.sign_in(customer.email, "wrong password", device="third", replace_device="tablet").status_code == 401
    assert tablet.is_signed_in()


def test_nor_does_a_wrong_code(customer, tablet, third, code):
    answer = third.sign_in(customer.email, device="third", code=other_than(code), replace_device="tablet")
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_code")
    assert "devices" not in answer.json()
    assert tablet.is_signed_in()


def test_where_there_is_no_second_factor_nobody_is_told_the_devices_or_replaces_one(customer, tablet, third):
    models.User.objects.update(phone_verified_at=None)
    for more in ({}, {"replace_device": "tablet"}):
        answer = third.sign_in(customer.email, device="third", **more)
        assert (answer.status_code, answer.json()["code"]) == (409, "device_limit_reached")
        assert "devices" not in answer.json()
    assert tablet.is_signed_in()


def test_replacing_a_device_that_is_none_leaves_the_code_good(customer, tablet, third, code):
    for name in ("nothing", "phone-1' OR 1=1"):
        answer = third.sign_in(customer.email, device="third", code=code, replace_device=name)
        assert (answer.status_code, answer.json()["code"]) == (404, "device_not_found")
    assert tablet.is_signed_in()
    assert third.sign_in(customer.email, device="third", code=code, replace_device="tablet").status_code == 200


def test_a_known_device_replaces_none(customer, signed_in, tablet):
    assert signed_in.sign_in(customer.email, replace_device="tablet").status_code == 200
    assert tablet.is_signed_in()


@pytest.mark.parametrize("strange", [None, 5, "", "x" * 65, ["tablet"]])
def test_what_is_no_name_of_a_device_is_refused(customer, third, code, strange):
    answer = third.post(
        "auth/login",
        {
            "identifier": customer.email, "password": "x", "code": code, "replace_device": strange,
            "device": {"id": "third", "name": "n", "platform": "ios"},
        },
    )  # fmt: skip
    assert answer.status_code == 400
    assert {error["field"] for error in answer.json()["errors"]} == {"replace_device"}
