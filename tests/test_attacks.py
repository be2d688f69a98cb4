"""What a customer may send, with something hostile in each place of it, one place at a time, over the whole API.

The other attacks stand with what they attack: tokens, CSRF and replays in identity/tests/test_api.py, guessing and
races in identity/tests, images in test_kyc_images.py, sizes in test_limits.py, somebody else's ids in test_access.py.
"""

import json
import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection, transaction
from django.utils import timezone

from deriv_integration.facade import deriv
from identity.api import deriv_login
from identity.facade import deriv_logins
from identity.models import User
from identity.tests.clients import FORM, Browser, a_form
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.images import a_photo
from identity.tests.test_kyc import FIELDS
from payments.models import ExchangeRate
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.facade import limiter
from tests.test_limits import DOCUMENT, SOME_ID, operations

pytestmark = pytest.mark.django_db

MARK = "zq7kx"
OVERREACHING = {
    "id": SOME_ID, "user": SOME_ID, "user_id": SOME_ID, "is_staff": True, "is_superuser": True, "is_active": True,
    "status": "COMPLETED", "kyc_status": "VERIFIED", "tier": "full", "rate": "1.0", "margin": "0", "you_get": "1000000",
    "balance": "1000000", "phone_verified_at": "2026-01-01T00:00:00Z", "token_epoch": 0, "stepped_up_at": "2099-01-01",
}  # fmt: skip
GOOD: dict[str, Any] = {
    "identifier": "nobody@example.com",
    "password": "a long enough passphrase",
    "old_password": PASSWORD,
    "code": "123456",
    "verification_code": "A1b2C3d4",
    "phone": "+254712000999",
    "email": "somebody@example.com",
    "full_name": "Wanjiku Kamau",
    "device": {"id": "phone-9", "name": "A phone", "platform": "android"},
    "replace_device": "phone-1",
    "address": {"line1": "Moi Avenue 1", "city": "Nairobi", "postal_code": "00100", "country": "KE"},
    "platform": "ws_v3",
    "token": "a1-0123456789abcdefghij",
    "quote_id": SOME_ID,
    "type": "deposit",
    "amount": {"amount": "1300.00", "currency": "KES"},
    "min_payout": {"amount": "1000.00", "currency": "KES"},
    "Idempotency-Key": "0123456789abcdef0123456789abcdef",
    "id": SOME_ID,
    "cursor": "abc",
    "limit": "10",
    "from": "2026-01-01",
    "to": "2026-12-31",
    "status": "COMPLETED",
    "currency": "KES",
    "format": "json",
    **FIELDS,
}
FILES, PHOTO = {"front", "back", "selfie"}, a_photo()


def hostile(url: str) -> dict[str, str]:
    """By what each is after."""
    return {
        "sql_quote": f"{MARK}' OR '1'='1",
        "sql_double": f'{MARK}") UNION SELECT password FROM users -- ',
        "sql_stacked": f"{MARK}; DROP TABLE users; --",
        "sql_backslash": f"{MARK}\\' OR 1=1 #",
        "header": f"{MARK}\r\nSet-Cookie: planted={MARK}\r\n\r\n<html>",
        "format": f"{MARK}%s%n{{0.__class__}}${{jndi:ldap://x}}{{{{7*7}}}}",
        "nul": f"{MARK}\x00",
        "path": f"../../../../etc/passwd%00{MARK}",
        "html": f"<script>alert('{MARK}')</script>",
        "formula": f"=cmd|'/c {MARK}'!A0",
        "surrogate": f"{MARK}\ud800",
        "bidi": f"{MARK}\u202e\u0000\ufeff",
        "long": MARK * 2_000,
        "url": f"{url}/{MARK}",
        "bare": f"//{url.removeprefix('http://')}/{MARK}",
        "userinfo": f"http://api.example.com@{url.removeprefix('http://')}/{MARK}",
        "gopher": f"gopher://{url.removeprefix('http://')}/_{MARK}",
        "file": f"file:///etc/passwd?{MARK}",
    }


@pytest.fixture
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """A server that nobody here should ask anything: its URL, and what it was asked."""
    asked: list[bytes] = []
    server = socket.create_server(("127.0.0.1", 0))

    def listen() -> None:
        with suppress(OSError):
            while True:
                peer, _ = server.accept()
                asked.append(peer.recv(100))
                peer.close()

    threading.Thread(target=listen, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
    server.close()


@pytest.fixture
def customer(monkeypatch: pytest.MonkeyPatch, adapter_of: Any, limits: Any) -> Browser:
    """Signed in and stepped up, without rate limits; Deriv is the simulator, today has a rate."""
    limits(**{name.replace(".", "_"): 10**6 for name in limiter.limits})
    now = timezone.now()
    ExchangeRate.objects.create(
        mid=Decimal("129.5"), margin_bps=40, valid_from=now, valid_until=now + timedelta(days=1), set_by="a",
        approved_by="b",
    )  # fmt: skip
    at_simulator = replace(deriv, platforms={DerivPlatform.WS_V3: adapter_of()})
    monkeypatch.setattr(deriv_login, "deriv_logins", replace(deriv_logins, deriv=at_simulator))
    browser = Browser()
    assert browser.sign_in(a_customer(password=PASSWORD).email).status_code == 200
    browser.steps_up()
    return browser


def schema_of(operation: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The body's content type and its fields."""
    for kind, found in operation.get("requestBody", {}).get("content", {}).items():
        schema = found["schema"]
        return kind, DOCUMENT["components"]["schemas"].get(schema.get("$ref", "").split("/")[-1], schema)["properties"]
    return "", {}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where the texts of a body stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path


def with_at(body: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with `value` there."""
    head, *rest = path
    return {**body, head: with_at(body[head], tuple(rest), value) if rest else value}


def send(browser: Browser, method: str, path: str, kind: str, body: dict[str, Any], more: dict[str, str]) -> Any:
    """`more` are headers, such as a browser can send."""
    headers = {"X-CSRFToken": browser.cookies["csrftoken"].value, "Idempotency-Key": GOOD["Idempotency-Key"], **more}
    if kind == "multipart/form-data":
        parts = [
            (name, (f"{name}.jpg", PHOTO, "image/jpeg") if name in FILES else value.encode("utf-8", "surrogatepass"))
            for name, value in body.items()
        ]
        return browser.http.generic(method, path, a_form(*parts), FORM, headers=headers)
    return browser.http.generic(method, path, json.dumps(body), "application/json", headers=headers)


def attempts(
    operation: Mapping[str, Any], path: str, values: Mapping[str, str]
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, str]]]:
    """What, path, body and headers of each request: one hostile value in one place."""
    _, fields = schema_of(operation)
    body = {name: "" if name in FILES else GOOD[name] for name in fields}
    here = path.replace("{id}", SOME_ID)
    for what, value in values.items():
        for leaf in leaves({name: body[name] for name in body if name not in FILES}):
            yield f"{what} in {'.'.join(leaf)}", here, with_at(body, leaf, value), {}
        wire = value.encode("utf-8", "surrogatepass")
        for parameter in operation.get("parameters", []):
            name, place = parameter["name"], parameter["in"]
            if place == "query":
                yield f"{what} in ?{name}", f"{here}?{name}={quote(wire)}", body, {}
            elif place == "path":
                yield f"{what} in the path", path.replace("{id}", quote(wire, safe="")), body, {}
        printable = value.encode("ascii", "ignore").decode().replace("\r", "").replace("\n", "").replace("\0", "")
        for name in ("Idempotency-Key", "X-Request-ID", "User-Agent", "X-Forwarded-Host", "X-Forwarded-For", "Referer"):
            yield f"{what} in {name}", here, body, {name: printable}


OPERATIONS = [pytest.param(*each, id=each[2]["operationId"]) for each in operations()]
WITH_BODIES = [pytest.param(*each, id=each[2]["operationId"]) for each in operations() if schema_of(each[2])[0]]


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS)
def test_whatever_stands_in_whatever_place_is_data_and_nothing_else(
    customer, listener, caplog, method, path, operation
):
    url, asked = listener
    kind, _ = schema_of(operation)
    statements: list[str] = []

    def seen(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append(sql)
        return execute(sql, params, many, context)

    cookies = {name: morsel.value for name, morsel in customer.cookies.items()}
    statuses = set()
    caplog.set_level(logging.WARNING)
    with connection.execute_wrapper(seen):
        for what, where, body, headers in attempts(operation, path, hostile(url)):
            place = transaction.savepoint()
            answer = send(customer, method, where, kind, body, headers)
            transaction.savepoint_rollback(place)  # it may have ended the session
            for name, value in cookies.items():
                customer.cookies[name] = value

            statuses.add(answer.status_code)
            assert answer.status_code < 500, (what, answer.content[:300])
            assert "planted" not in answer.cookies, what
            assert all(MARK not in value for name, value in answer.headers.items() if name != "X-Request-ID"), what
            content = b"".join(answer.streaming_content) if answer.streaming else answer.content
            assert f"<script>alert('{MARK}".encode() not in content or "json" in answer.headers["Content-Type"], what
            assert b"root:" not in content, what

    assert [sql for sql in statements if MARK in sql] == []  # a value is a parameter, whatever is in it
    assert asked == []
    assert statuses - {429}, "nothing was tried"
    assert 403 not in statuses
    assert User.objects.exists()
    assert not [record for record in caplog.records if record.exc_info], caplog.text


@pytest.mark.parametrize(("method", "path", "operation"), WITH_BODIES)
def test_no_field_but_those_of_the_body_is_taken(customer, method, path, operation):
    kind, fields = schema_of(operation)
    body = {name: "" if name in FILES else GOOD[name] for name in fields}
    before = list(User.objects.order_by("pk").values())

    for name, value in OVERREACHING.items():
        if name in fields:
            continue
        value = str(value) if kind == "multipart/form-data" else value
        answer = send(customer, method, path, kind, {**body, name: value}, {})

        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), name
        assert name in [error["field"] for error in answer.json()["errors"]], name

    assert list(User.objects.order_by("pk").values()) == before


def test_a_page_of_another_site_sends_nothing_even_with_a_token_that_it_planted(customer):
    """A neighbour's page can set a cookie for our domain and knows its value; it cannot send our own Origin."""
    token = "A" * 32
    customer.cookies["csrftoken"] = token
    sent = {"X-CSRFToken": token}

    ours = customer.http.post("/api/v1/me/close", {}, "application/json", headers=sent)
    for origin in ("https://evil.example", "https://sub.testserver", "http://testserver:8080", "null"):
        answer = customer.http.post("/api/v1/me/close", {}, "application/json", headers=sent | {"Origin": origin})

        assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed"), origin
    assert ours.status_code == 204, "without a foreign Origin it is let in, so that the refusals above mean something"


def test_cookies_that_were_thrown_in_sign_nobody_in():
    mine, theirs = Browser(), Browser()
    mine.sign_in(a_customer(password=PASSWORD).email)
    theirs.sign_in(a_customer(password=PASSWORD).email)
    for thrown in ("", "x", "../..", mine.cookies["penpay_refresh"].value, mine.cookies["penpay_device"].value):
        victim = theirs.twin()
        victim.cookies["penpay_access"] = thrown
        assert victim.get("me").status_code == 401, thrown

    victim = theirs.twin()
    victim.cookies["penpay_refresh"] = mine.cookies["penpay_refresh"].value  # the thief's session on the owner's device
    assert victim.post("auth/refresh").status_code == 401


def test_no_cookie_of_ours_is_for_a_whole_domain():
    answer = Browser().sign_in(a_customer(password=PASSWORD).email)

    assert set(answer.cookies) >= {"penpay_access", "penpay_refresh", "penpay_device"}
    assert {morsel["domain"] for morsel in answer.cookies.values()} == {""}
