"""The REST edge over real commits: cookies, CSRF, tokens, codes, devices, and the Deriv login."""

import re
import time
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from identity import models
from identity.domain.ports import AccessClaims
from identity.infrastructure.tokens import Argon2idHasher, JwtAccessTokens
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer, a_phone
from shared_kernel.infrastructure.persistence import new_id, now
from shared_kernel.models import AuditLog, DomainEvent

pytestmark = pytest.mark.django_db
REGISTER = {
    "phone": "0712 345 678",
    "email": "Amina@Example.org",
    "password": PASSWORD,
    "full_name": "Amina Wanjiru Otieno",
}


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def customer():
    return a_customer(password=PASSWORD)


@pytest.fixture
def signed_in(customer) -> Browser:
    browser = Browser()
    assert browser.sign_in(customer.email).status_code == 200
    return browser


def audited(action: str) -> list[AuditLog]:
    return list(AuditLog.objects.filter(action=action).order_by("seq"))


def code(answer) -> str:
    return answer.json()["code"]


# signing up


def test_a_new_account_is_stored_encrypted_with_its_event_and_audit_row(browser):
    answer = browser.post("auth/register", REGISTER)

    assert answer.status_code == 201
    user = answer.json()["user"]
    assert user | {"id": "", "created_at": ""} == {
        "id": "",
        "phone": "+254712345678",
        "phone_verified": False,
        "email": "amina@example.org",
        "email_verified": False,
        "full_name": "Amina Wanjiru Otieno",
        "address": None,
        "kyc": {"status": "none", "tier": "none"},
        "deriv_login_bound": False,
        "created_at": "",
    }
    assert [str(event.aggregate_id) for event in DomainEvent.objects.filter(type="UserRegistered")] == [user["id"]]
    assert [row.target_id for row in audited("user.registered")] == [user["id"]]
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM users JOIN user_profile ON users.id = user_id")
        stored = repr(cursor.fetchall())
    assert not re.search(r"712345678|amina|otieno", stored, re.IGNORECASE)
    assert "argon2$argon2id$v=19$m=19456,t=2,p=1$" in stored


@pytest.mark.parametrize("form", ["+254712345678", "254712345678", "712345678", "0712-345-678"])
def test_one_phone_is_one_account_in_whatever_form(browser, form):
    browser.post("auth/register", REGISTER)
    answer = browser.post("auth/register", REGISTER | {"phone": form, "email": "other@example.org"})
    assert (answer.status_code, code(answer)) == (409, "already_registered")
    assert models.User.objects.count() == models.Profile.objects.count() == 1


def test_one_email_address_is_one_account_in_whatever_case(browser):
    browser.post("auth/register", REGISTER)
    answer = browser.post("auth/register", REGISTER | {"phone": a_phone(), "email": "AMINA@example.ORG"})
    assert (answer.status_code, code(answer)) == (409, "already_registered")


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"phone": "0212345678"}, "phone", "invalid_phone"),
        ({"phone": 254712345678}, "phone", "invalid_phone"),
        ({"phone": None}, "phone", "null"),
        ({"email": "amina"}, "email", "invalid_email"),
        ({"email": ["a@example.org"]}, "email", "invalid_email"),
        ({"password": 12345678901234}, "password", "invalid"),
        ({"full_name": ""}, "full_name", "blank"),
        ({"is_staff": True}, "is_staff", "unknown_field"),
        ({"kyc_status": "verified"}, "kyc_status", "unknown_field"),
    ],
)
def test_a_field_that_is_wrong_is_named_and_nothing_is_stored(browser, change, field, expected):
    answer = browser.post("auth/register", REGISTER | change)
    assert answer.status_code == 400
    assert [(e["field"], e["code"]) for e in answer.json()["errors"]] == [(field, expected)]
    assert not models.User.objects.exists()


@pytest.mark.parametrize(
    "password",
    [
        "zq7",
        "password123",
        "0712345678x"[:10],
        "amina@example.org",
        "penpay-2026",
        "Otieno.2026",
        "712345678xyz",
        "x" * 129,
    ],
)
def test_a_weak_password_is_refused(browser, password):
    answer = browser.post("auth/register", REGISTER | {"password": password})
    assert (answer.status_code, code(answer)) == (422, "weak_password")
    assert password not in answer.content.decode()
    assert not models.User.objects.exists()


def test_a_name_of_one_word_is_refused(browser):
    answer = browser.post("auth/register", REGISTER | {"full_name": "Amina"})
    assert (answer.status_code, code(answer)) == (422, "invalid_name")


# signing in


@pytest.mark.parametrize("form", ["email", "phone", "local"])
def test_a_customer_signs_in_with_phone_or_email(customer, browser, form):
    given = {"email": customer.email.upper(), "phone": customer.phone.number, "local": "0" + customer.phone.number[3:]}
    answer = browser.sign_in(given[form])
    assert answer.status_code == 200
    assert answer.json()["user"]["id"] == str(customer.id)
    assert answer.json()["device"] == {"id": "phone-1", "name": "Amina's phone", "platform": "android"}
    assert browser.is_signed_in()


def test_tokens_are_in_cookies_that_scripts_and_other_sites_cannot_use(customer, browser):
    answer = browser.sign_in(customer.email)

    flags = {
        name: (m["httponly"], m["samesite"], bool(m["secure"]), m["path"], m["domain"])
        for name, m in answer.cookies.items()
        if name.startswith("penpay_")
    }
    secure = django_settings.SECURE_COOKIES
    assert flags == {
        "penpay_access": (True, "Strict", secure, "/", ""),
        "penpay_refresh": (True, "Strict", secure, "/api/v1/auth", ""),
        "penpay_device": (True, "Strict", secure, "/api/v1/auth", ""),
    }
    assert answer["Cache-Control"] == "no-store"
    body = answer.content.decode()
    assert not any(answer.cookies[name].value in body for name in flags)


def test_the_database_holds_no_token_that_could_be_used(signed_in):
    given = [signed_in.cookies[name].value for name in ("penpay_access", "penpay_refresh", "penpay_device")]
    secrets = [given[0], given[1], given[2].partition(".")[2]]
    with connection.cursor() as cursor:
        stored = ""
        for table in ("sessions", "refresh_tokens", "devices", "users", "audit_logs", "domain_events"):
            cursor.execute(f"SELECT * FROM {table}")
            stored += repr(cursor.fetchall())
    assert not any(secret in stored for secret in secrets)


def test_signing_in_leaves_audit_rows_without_personal_data(customer, browser):
    browser.sign_in(customer.email)
    browser.sign_in(customer.email, "wrong password")
    browser.sign_in("nobody@example.org")

    assert [row.target_id for row in audited("user.login")] == [str(customer.id)]
    assert [row.target_id for row in audited("device.added")] == [str(customer.id)]
    assert [(r.target_id, r.why) for r in audited("user.login_failed")] == [
        (str(customer.id), "wrong password"),
        ("unknown", "unknown user"),
    ]
    assert "@" not in repr(list(AuditLog.objects.values_list()))


@pytest.mark.parametrize("identifier", ["nobody@example.org", "0799999999", "neither of the two", "' OR 1=1 --"])
def test_nobody_is_answered_like_somebody_with_a_wrong_password(customer, browser, identifier):
    wrong, nobody = browser.sign_in(customer.email, "wrong password"), browser.sign_in(identifier)
    assert wrong.status_code == nobody.status_code == 401
    assert wrong.json() | {"request_id": ""} == nobody.json() | {"request_id": ""}
    assert code(nobody) == "invalid_credentials"
    assert not models.Session.objects.exists()


@pytest.mark.parametrize("identifier", ["nobody@example.org", "0799999999", "neither of the two"])
def test_nobody_costs_the_same_work_as_somebody(customer, browser, identifier, monkeypatch):
    browser.sign_in("nobody@example.org")  # makes the hash that nobody has
    work, verify = [], Argon2idHasher.verify

    def counted(hasher, password, encoded):
        work.append(encoded.rpartition("$")[0].rpartition("$")[0])  # algorithm and cost, without salt and hash
        return verify(hasher, password, encoded)

    monkeypatch.setattr(Argon2idHasher, "verify", counted)
    for name in (customer.email, identifier):
        browser.sign_in(name, "wrong password")

    somebody, nobody = work
    assert nobody == somebody
    assert somebody.startswith("argon2$argon2id$")


def test_a_closed_account_and_staff_do_not_sign_in_here(browser):
    closed = a_customer(password=PASSWORD, is_active=False)
    staff = a_customer(password=PASSWORD, is_staff=True)
    assert [code(browser.sign_in(who.email)) for who in (closed, staff)] == ["invalid_credentials"] * 2


def test_a_third_device_is_refused_with_the_two_that_are_in(customer, sms):
    phone, tablet, third = Browser(), Browser(), Browser()
    phone.sign_in(customer.email, device="phone")
    tablet.enrol(customer.email, device="tablet")

    answer = third.enrol(customer.email, device="third")

    assert (answer.status_code, code(answer)) == (409, "device_limit_reached")
    assert [d["id"] for d in answer.json()["devices"]] == ["phone", "tablet"]
    assert not third.is_signed_in()
    assert models.Device.objects.count() == 2

    phone.steps_up()
    assert phone.delete("me/devices/tablet").status_code == 204
    assert not tablet.is_signed_in()
    assert third.enrol(customer.email, device="third").status_code == 200
    assert [d["id"] for d in third.get("me/devices").json()["items"]] == ["phone", "third"]


def test_a_known_device_signs_in_again_without_taking_another_place(customer, signed_in):
    first = signed_in.twin()
    assert signed_in.sign_in(customer.email).status_code == 200
    assert models.Device.objects.count() == 1
    assert signed_in.is_signed_in()
    assert not first.is_signed_in()  # one session for each device


def test_another_device_is_removed_after_a_step_up_only_and_ones_own_without(customer, sms):
    phone, tablet = Browser(), Browser()
    phone.sign_in(customer.email, device="phone")
    tablet.enrol(customer.email, device="tablet")

    answer = phone.delete("me/devices/tablet")
    assert (answer.status_code, code(answer)) == (403, "step_up_required")
    assert tablet.is_signed_in()
    assert models.Device.objects.filter(revoked_at=None).count() == 2

    assert phone.delete("me/devices/phone").status_code == 204
    assert not phone.is_signed_in()


def test_another_customers_device_is_not_there(customer, signed_in):
    other = a_customer(password=PASSWORD)
    theirs = Browser()
    theirs.sign_in(other.email, device="theirs")
    answer = signed_in.delete("me/devices/theirs")
    assert (answer.status_code, code(answer)) == (404, "device_not_found")
    assert theirs.is_signed_in()


def test_a_device_cookie_of_somebody_else_recognises_nobody(customer, signed_in):
    other = a_customer(password=PASSWORD)
    signed_in.sign_in(other.email)
    assert models.Device.objects.filter(user_id=other.id).count() == 1
    assert models.Device.objects.filter(user_id=customer.id, revoked_at=None).count() == 1


# CSRF


@pytest.mark.parametrize(
    "path", ["auth/register", "auth/login", "auth/refresh", "auth/logout", "auth/logout-all", "me/phone-verification"]
)
def test_an_unsafe_request_without_the_csrf_header_does_nothing(signed_in, path):
    answer = signed_in.post(path, csrf=False)
    assert (answer.status_code, code(answer)) == (403, "csrf_failed")
    assert signed_in.is_signed_in()


def test_a_csrf_header_that_is_not_the_cookies_is_refused(signed_in):
    answer = signed_in.http.post("/api/v1/auth/logout", headers={"X-CSRFToken": "x" * 32})
    assert (answer.status_code, code(answer)) == (403, "csrf_failed")
    assert signed_in.is_signed_in()


# access tokens


def forged(signed_in: Browser, *, key: Any = "", algorithm: str = "HS256", kid: str | None = "demo", **claims):
    first = bytes.fromhex(django_settings.JWT_SIGNING_KEYS.split(",")[0].split(":")[1])
    good = jwt.decode(signed_in.cookies["penpay_access"].value, options={"verify_signature": False})
    payload = {name: value for name, value in (good | claims).items() if value is not None}
    headers = {"kid": kid} if kid else {}
    return jwt.encode(payload, first if key == "" else key, algorithm=algorithm, headers=headers)


def test_a_token_like_ours_is_let_in_so_that_the_refusals_below_mean_something(signed_in):
    signed_in.cookies["penpay_access"] = forged(signed_in)
    assert signed_in.is_signed_in()


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "none", "key": None},
        {"algorithm": "HS512"},
        {"key": b"x" * 32},
        {"kid": "unknown"},
        {"kid": None},
        {"aud": "somebody-else"},
        {"aud": None},
        {"iss": "somebody-else"},
        {"typ": "refresh"},
        {"typ": None},
        {"exp": int(time.time()) - 1},
        {"exp": None},
        {"nbf": int(time.time()) + 86_400},
        {"jti": None},
        {"sid": str(uuid4())},
        {"sid": "x"},
        {"sub": str(uuid4())},
        {"did": str(uuid4())},
        {"did": None},
    ],
    ids=str,
)
def test_a_token_that_is_not_exactly_ours_is_nobodys(signed_in, change):
    signed_in.cookies["penpay_access"] = forged(signed_in, **change)
    answer = signed_in.get("me")
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "e30.e30.", "ey" * 3000, "é", "\x00"])
def test_garbage_in_the_cookie_is_nobody(browser, token):
    header = f"penpay_access={token}".encode().decode("latin-1")  # as it comes over the wire: no client would write it
    assert browser.http.get("/api/v1/me", headers={"Cookie": header}).status_code == 401


def test_a_key_that_left_the_ring_signs_for_nobody_and_an_older_one_still_reads(signed_in, settings):
    old = settings.JWT_SIGNING_KEYS
    settings.JWT_SIGNING_KEYS = f"new:{'ab' * 32},{old}"
    assert signed_in.is_signed_in()
    assert jwt.get_unverified_header(JwtAccessTokens().issue(AccessClaims(new_id(), new_id(), new_id()), at=now()))[
        "kid"
    ] == ("new")
    settings.JWT_SIGNING_KEYS = f"new:{'ab' * 32}"
    assert not signed_in.is_signed_in()


def test_the_access_token_says_who_and_nothing_about_them(customer, signed_in):
    claims = jwt.decode(signed_in.cookies["penpay_access"].value, options={"verify_signature": False})
    assert set(claims) == {"iss", "aud", "exp", "nbf", "jti", "typ", "sub", "sid", "did"}
    assert claims["sub"] == str(customer.id)
    assert claims["exp"] - claims["nbf"] == 300


@pytest.mark.parametrize("path", ["me", "me/kyc", "me/devices", "me/deriv-login"])
def test_a_signed_in_request_costs_at_most_two_queries(signed_in, path):
    signed_in.patch("me", {"address": {"line": "12 Moi Avenue"}})
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert signed_in.get(path).status_code == 200
    assert len(queries) <= 2


def test_who_is_asking_ends_in_the_audit_row(customer, signed_in):
    signed_in.post("auth/logout-all")
    [row] = audited("user.sessions_ended")
    assert row.actor == f"user:{customer.id}"
    assert row.device == str(models.Device.objects.get().id)
    assert row.request_id


# the end of a session


def test_access_stops_at_once_on_logout(signed_in):
    thief = signed_in.twin()
    answer = signed_in.post("auth/logout")
    assert answer.status_code == 204
    assert {name for name, m in answer.cookies.items() if m["max-age"] == 0} == {"penpay_access", "penpay_refresh"}
    assert not thief.is_signed_in()
    assert thief.post("auth/refresh").status_code == 401
    assert len(audited("user.logout")) == 1


def test_logout_works_with_the_refresh_token_alone_and_without_any(signed_in, browser):
    thief = signed_in.twin()
    del signed_in.cookies["penpay_access"]
    assert signed_in.post("auth/logout").status_code == 204
    assert not thief.is_signed_in()
    assert browser.post("auth/logout").status_code == 204


def test_logout_all_ends_the_sessions_of_all_devices(customer, signed_in, sms):
    tablet = Browser()
    tablet.enrol(customer.email, device="tablet")
    assert signed_in.post("auth/logout-all").status_code == 204
    assert not tablet.is_signed_in()
    assert tablet.post("auth/refresh").status_code == 401
    assert Browser().post("auth/logout-all").status_code == 401


def test_access_stops_at_once_when_the_account_is_closed(customer, signed_in):
    models.User.objects.filter(pk=customer.id).update(is_active=False)
    assert not signed_in.is_signed_in()
    assert signed_in.post("auth/refresh").status_code == 401


def test_access_stops_with_the_device_alone_and_with_the_epoch_alone(customer, signed_in):
    models.User.objects.filter(pk=customer.id).update(token_epoch=1)
    assert not signed_in.is_signed_in()
    models.User.objects.filter(pk=customer.id).update(token_epoch=0)
    assert signed_in.is_signed_in()
    models.Device.objects.update(revoked_at=now(), slot=None)
    assert not signed_in.is_signed_in()
    assert signed_in.post("auth/refresh").status_code == 401


def test_a_session_ends_for_good_after_thirty_days(signed_in):
    models.Session.objects.update(expires_at=now() - timedelta(seconds=1))
    assert not signed_in.is_signed_in()
    assert signed_in.post("auth/refresh").status_code == 401


# refresh


def test_refresh_turns_both_tokens_over(signed_in):
    before = signed_in.twin()
    answer = signed_in.post("auth/refresh")
    assert (answer.status_code, answer.content) == (204, b"")
    changed = {name for name, m in answer.cookies.items() if m.value != before.cookies[name].value}
    assert changed == {"penpay_access", "penpay_refresh"}
    assert signed_in.is_signed_in()
    assert models.Session.objects.count() == 1


def test_a_spent_refresh_token_ends_its_whole_family(signed_in):
    thief = signed_in.twin()
    signed_in.post("auth/refresh")

    answer = thief.post("auth/refresh")

    assert (answer.status_code, code(answer)) == (401, "refresh_token_reused")
    assert not signed_in.is_signed_in()
    assert signed_in.post("auth/refresh").status_code == 401
    assert [row.why for row in audited("user.session_ended")] == ["refresh_reused"]


def test_a_refresh_token_on_another_device_ends_the_session(signed_in):
    thief = signed_in.twin()
    thief.cookies["penpay_device"] = f"{uuid4()}.{'x' * 43}"
    assert thief.post("auth/refresh").status_code == 401
    assert not signed_in.is_signed_in()


def test_an_old_refresh_token_is_too_old(signed_in):
    models.RefreshToken.objects.update(expires_at=now())
    assert code(signed_in.post("auth/refresh")) == "session_ended"


@pytest.mark.parametrize("token", ["", "x", "é", "x" * 4000])
def test_garbage_is_no_refresh_token(browser, token):
    browser.cookies["penpay_refresh"] = token
    assert browser.post("auth/refresh").status_code == 401


# the phone


@pytest.fixture
def unproven(sms) -> Browser:
    customer = a_customer(password=PASSWORD, phone_verified=False)
    browser = Browser()
    browser.sign_in(customer.email)
    return browser


def sent_code(sms) -> str:
    return re.search(r"\b(\d{6})\b", sms[-1][1])[1]


def confirm(browser: Browser, given: str):
    return browser.post("me/phone-verification/confirm", {"code": given})


def other_than(given: str) -> str:
    return f"{(int(given) + 1) % 10**6:06d}"


def test_the_code_from_the_sms_proves_the_phone(unproven, sms):
    assert unproven.post("me/phone-verification").status_code == 202
    assert confirm(unproven, sent_code(sms)).status_code == 204
    assert unproven.get("me").json()["phone_verified"] is True
    assert code(unproven.post("me/phone-verification")) == "phone_already_verified"


def test_five_wrong_codes_lock_out_even_the_right_one(unproven, sms):
    unproven.post("me/phone-verification")
    wrong = [confirm(unproven, other_than(sent_code(sms))) for _ in range(5)]
    assert [(a.status_code, code(a), a.json()["tries_left"]) for a in wrong] == [
        (422, "wrong_code", left) for left in (4, 3, 2, 1, 0)
    ]
    answer = confirm(unproven, sent_code(sms))
    assert (answer.status_code, code(answer)) == (409, "no_open_code")
    assert unproven.get("me").json()["phone_verified"] is False


def test_a_new_code_closes_the_one_before(unproven, sms):
    unproven.post("me/phone-verification")
    first = sent_code(sms)
    unproven.post("me/phone-verification")
    if first != sent_code(sms):
        assert code(confirm(unproven, first)) == "wrong_code"
    assert models.PhoneVerification.objects.filter(open=True).count() == 1
    assert confirm(unproven, sent_code(sms)).status_code == 204


def test_a_fourth_code_has_to_wait_and_the_answer_says_how_long(unproven, sms):
    assert [unproven.post("me/phone-verification").status_code for _ in range(4)] == [202, 202, 202, 429]
    answer = unproven.post("me/phone-verification")
    assert 0 < int(answer["Retry-After"]) <= 600
    assert len(sms) == 3


def test_a_code_is_too_old_after_five_minutes(unproven, sms):
    unproven.post("me/phone-verification")
    models.PhoneVerification.objects.update(expires_at=now())
    assert code(confirm(unproven, sent_code(sms))) == "no_open_code"


def test_one_customers_code_is_not_anothers(unproven, sms):
    other = a_customer(password=PASSWORD, phone_verified=False)
    theirs = Browser()
    theirs.sign_in(other.email)
    unproven.post("me/phone-verification")
    theirs.post("me/phone-verification")
    mine = re.search(r"\b(\d{6})\b", sms[0][1])[1]
    if mine != sent_code(sms):
        assert code(confirm(theirs, mine)) == "wrong_code"


@pytest.mark.parametrize("given", ["", "12345", "1234567", 123456, "12 456", "١٢٣٤٥٦", None])
def test_what_is_no_code_is_not_counted_as_a_try(unproven, sms, given):
    unproven.post("me/phone-verification")
    assert confirm(unproven, given).status_code == 400
    assert models.PhoneVerification.objects.get().attempts == 0


def test_no_code_is_in_the_log_or_the_database(unproven, sms, caplog):
    caplog.set_level(0)
    unproven.post("me/phone-verification")
    given = sent_code(sms)
    confirm(unproven, other_than(given))
    assert given not in caplog.text
    with connection.cursor() as cursor:
        cursor.execute("SELECT code_hash, phone FROM user_phone_verification")
        assert given not in repr(cursor.fetchall())


# Deriv


def bind(browser: Browser, token: str = "a-token", platform: str = "ws_v3"):
    return browser.post("me/deriv-login", {"platform": platform, "token": token})


@pytest.fixture
def unbound(deriv) -> Browser:
    customer = a_customer(password=PASSWORD, deriv_account=None)
    browser = Browser()
    browser.sign_in(customer.email)
    browser.steps_up()
    deriv.holds("a-token", "CR1234")
    return browser


def test_the_account_that_deriv_names_is_bound_and_its_token_never_shown(unbound):
    assert code(unbound.get("me/deriv-login")) == "deriv_login_not_found"
    answer = bind(unbound)
    assert answer.status_code == 201
    assert answer.json() == {"platform": "ws_v3", "account": "CR1234", "currency": "USD", "name": "AMINA OTIENO"}
    assert unbound.get("me/deriv-login").json() == answer.json() | {"state": "active", "expires_at": None}
    assert "a-token" not in (unbound.get("me").content + unbound.get("me/deriv-login").content).decode()
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM deriv_logins")
        assert not re.search("a-token|CR1234|OTIENO", repr(cursor.fetchall()))
    assert models.DerivLogin.objects.get().token == "a-token"
    assert [row.details["platform"] for row in audited("deriv_login.bound")] == ["ws_v3"]


def test_a_deriv_account_of_another_customer_is_refused_even_after_they_let_it_go(unbound, deriv):
    other = a_customer(password=PASSWORD, deriv_account="cr1234")
    assert code(bind(unbound)) == "deriv_login_taken"
    theirs = Browser()
    theirs.sign_in(other.email)
    theirs.steps_up()
    assert theirs.delete("me/deriv-login").status_code == 204
    answer = bind(unbound)
    assert (answer.status_code, code(answer)) == (409, "deriv_login_taken")
    assert unbound.get("me/deriv-login").status_code == 404
    assert [row.why for row in audited("deriv_login.refused")] == ["deriv_login_taken"] * 2


@pytest.mark.parametrize(
    ("holder", "expected"),
    [
        ({"name": "Brian Otieno"}, "deriv_name_mismatch"),
        ({"is_virtual": True}, "deriv_login_unsuitable"),
        ({"currency": "EUR"}, "deriv_login_unsuitable"),
    ],
)
def test_an_account_that_is_not_the_customers_own_in_usd_is_refused(unbound, deriv, holder, expected):
    deriv.holds("b-token", "CR5678", **holder)
    answer = bind(unbound, "b-token")
    assert (answer.status_code, code(answer)) == (422, expected)
    assert not models.DerivLogin.objects.exists()


def test_nothing_is_bound_while_deriv_is_down_or_refuses_the_token(unbound, deriv):
    assert (bind(unbound, "unknown").status_code, code(bind(unbound, "unknown"))) == (422, "deriv_token_refused")
    deriv.goes_down()
    answer = bind(unbound)
    assert (answer.status_code, code(answer)) == (503, "deriv_unavailable")
    assert not models.DerivLogin.objects.exists()


def test_a_new_login_takes_the_place_of_the_old_whose_token_is_forgotten(unbound, deriv):
    bind(unbound)
    deriv.holds("b-token", "CR5678")
    assert bind(unbound, "b-token").json()["account"] == "CR5678"
    old = models.DerivLogin.objects.get(active_for=None)
    assert (old.token, old.revoked_at is None) == ("", False)
    assert bind(unbound).json()["account"] == "CR1234"  # and back
    assert models.DerivLogin.objects.count() == 2


def test_letting_go_forgets_the_token(unbound):
    bind(unbound)
    assert unbound.delete("me/deriv-login").status_code == 204
    assert unbound.get("me/deriv-login").status_code == 404
    assert models.DerivLogin.objects.get().token == ""
    assert code(unbound.delete("me/deriv-login")) == "deriv_login_not_found"


def test_a_frozen_customer_changes_no_deriv_login(unbound):
    models.User.objects.update(frozen_at=now())
    assert code(bind(unbound)) == "account_frozen"
    assert not models.DerivLogin.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"platform": "ws_v3"},
        {"platform": "mt5", "token": "x"},
        {"platform": "ws_v3", "token": ""},
        {"platform": "ws_v3", "token": "a\r\nb"},
        {"platform": "ws_v3", "token": "x" * 513},
        {"platform": "ws_v3", "token": "x", "account": "CR1"},
        [],
        "x",
    ],
    ids=str,
)
def test_a_malformed_binding_asks_deriv_nothing(unbound, deriv, body):
    deriv.goes_down()  # asking would be a 503
    assert unbound.post("me/deriv-login", body).status_code == 400


# whoever is not signed in


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "me"),
        ("get", "me/devices"),
        ("delete", "me/devices/x"),
        ("post", "me/phone-verification"),
        ("post", "me/phone-verification/confirm"),
        ("get", "me/deriv-login"),
        ("post", "me/deriv-login"),
        ("delete", "me/deriv-login"),
        ("post", "auth/logout-all"),
        ("post", "auth/step-up"),
        ("post", "me/email-verification"),
        ("post", "me/email-verification/confirm"),
        ("post", "me/password"),
        ("post", "me/phone"),
        ("post", "me/phone/confirm"),
        ("post", "me/email"),
        ("post", "me/email/confirm"),
        ("post", "me/close"),
        ("post", "me/totp"),
        ("delete", "me/totp"),
        ("post", "me/totp/confirm"),
    ],
)
def test_a_stranger_gets_401_as_a_problem_document(browser, method, path):
    answer = getattr(browser, method)(path)
    assert answer.status_code == 401
    assert answer["Content-Type"] == "application/problem+json"
