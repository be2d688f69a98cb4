"""What the edges' base takes, refuses and answers, through real requests to a view of its own."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError
from django.http import HttpRequest
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from rest_framework.exceptions import Throttled
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from shared_kernel.api.answers import Page, accepted, idempotency_key
from shared_kernel.api.bodies import MAX_BODY, Body, IdField, MoneyField, PhoneField, TextField
from shared_kernel.api.context import client_address, identify
from shared_kernel.domain.errors import TooManyRequests, Unprocessable
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.money import Currency, Money
from shared_kernel.facade import current_context

PHONE = "0712345678"
ID = "0198c8a0-0000-7000-8000-000000000001"


class FloatLow(Unprocessable):
    """A rule of this test's."""


class TooFast(TooManyRequests):
    """Another."""


class Orders(APIView):
    authentication_classes: Any = []
    permission_classes: Any = []
    seen: list[dict[str, Any]] = []

    class OrderBody(Body):
        amount = MoneyField(currencies=[Currency.KES])
        phone = PhoneField(required=False)
        quote_id = IdField(required=False)
        note = TextField(required=False, max_length=20)

    def post(self, request: Request) -> Response:
        self.seen.append(self.OrderBody.read(request))
        identify(request, "user:7", "device:3")
        key = idempotency_key(request, f"{current_context().actor}:orders")
        return accepted({"key": key.key, "scope": key.scope}, location="/orders/1", replayed=key.key == "again")


class Failing(APIView):
    authentication_classes: Any = []
    permission_classes: Any = []
    error: Exception = RuntimeError("password=hunter2")

    def get(self, request: Request) -> Response:
        raise self.error


urlpatterns = [path("api/v1/orders", Orders.as_view()), path("api/v1/failing", Failing.as_view())]
handler400 = "shared_kernel.api.problems.bad_request"
handler404 = "shared_kernel.api.problems.page_not_found"
handler500 = "shared_kernel.api.problems.server_error"


@pytest.fixture(autouse=True)
def _own_urls():
    with override_settings(ROOT_URLCONF=__name__, SECURE_SSL_REDIRECT=False):
        Orders.seen = []
        yield


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)


def order(client: Client, body: Any, *, content_type: str = "application/json", **headers: str) -> Any:
    raw = body if isinstance(body, bytes | str) else json.dumps(body)
    return client.post(
        "/api/v1/orders", data=raw, content_type=content_type, headers={"Idempotency-Key": "k", **headers}
    )


def kes(amount: Any = "1300.00", **more: Any) -> dict[str, Any]:
    return {"amount": amount, "currency": "KES", **more}


def is_a_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.headers["Content-Type"] == "application/problem+json", response.content
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["status"], document["code"]) == (status, status, code)
    assert document["type"].endswith(code)
    assert document["detail"]
    assert document["title"]
    assert document["request_id"] == response.headers["X-Request-ID"]
    return document


def test_a_good_body_becomes_domain_types(client):
    response = order(client, {"amount": kes(), "phone": PHONE, "quote_id": ID, "note": "tea"})

    assert response.status_code == 202
    assert response.headers["Location"] == "/orders/1"
    assert "Idempotency-Replayed" not in response.headers
    assert response.json() == {"key": "k", "scope": "user:7:orders"}
    assert Orders.seen == [
        {"amount": Money(130000, Currency.KES), "phone": Phone("254712345678"), "quote_id": UUID(ID), "note": "tea"}
    ]


@pytest.mark.parametrize(
    ("amount", "field", "code"),
    [
        (kes(1300.5), "amount.amount", "not_a_string"),
        (kes(1300), "amount.amount", "not_a_string"),
        (kes(10**30), "amount.amount", "not_a_string"),
        (kes(True), "amount.amount", "not_a_string"),
        (kes(None), "amount.amount", "not_a_string"),
        (kes(str(10**30)), "amount.amount", "invalid_amount"),
        (kes("1300.001"), "amount.amount", "invalid_amount"),
        (kes("1e3"), "amount.amount", "invalid_amount"),
        (kes("NaN"), "amount.amount", "invalid_amount"),
        (kes("١٣"), "amount.amount", "invalid_amount"),
        (kes("1300.00\n"), "amount.amount", "invalid_amount"),
        (kes(" 1300"), "amount.amount", "invalid_amount"),
        (kes(""), "amount.amount", "invalid_amount"),
        (kes("0.00"), "amount.amount", "not_positive"),
        (kes("-5"), "amount.amount", "not_positive"),
        (kes() | {"currency": "USD"}, "amount.currency", "invalid_currency"),
        (kes() | {"currency": ["KES"]}, "amount.currency", "invalid_currency"),
        (kes() | {"currency": "kes"}, "amount.currency", "invalid_currency"),
        ({"currency": "KES"}, "amount.amount", "required"),
        ({"amount": "5"}, "amount.currency", "required"),
        (kes(fee="1.00"), "amount.fee", "unknown_field"),
        ("1300.00", "amount", "invalid"),
        (1300, "amount", "invalid"),
        (1300.5, "amount", "invalid"),
        (None, "amount", "null"),
        ([], "amount", "invalid"),
    ],
)
def test_an_amount_that_is_not_exact_and_positive_is_refused_by_field(client, amount, field, code):
    document = is_a_problem(order(client, {"amount": amount}), 400, "invalid_request")

    assert [(error["field"], error["code"]) for error in document["errors"]] == [(field, code)]
    assert document["errors"][0]["detail"]
    assert Orders.seen == []


@pytest.mark.parametrize(
    ("extra", "field", "code"),
    [
        ({"is_staff": True}, "is_staff", "unknown_field"),
        ({"phone": "0812345678"}, "phone", "invalid_phone"),
        ({"phone": 712345678}, "phone", "invalid_phone"),
        ({"phone": "0" * 60_000}, "phone", "invalid_phone"),
        ({"quote_id": "1"}, "quote_id", "invalid_id"),
        ({"quote_id": 1}, "quote_id", "invalid_id"),
        ({"quote_id": ID.replace("-", "")}, "quote_id", "invalid_id"),
        ({"quote_id": f"urn:uuid:{ID}"}, "quote_id", "invalid_id"),
        ({"quote_id": None}, "quote_id", "null"),
        ({"note": 5}, "note", "invalid"),
        ({"note": 5.5}, "note", "invalid"),
        ({"note": "x" * 21}, "note", "max_length"),
    ],
)
def test_a_field_that_is_wrong_or_unknown_is_named(client, extra, field, code):
    document = is_a_problem(order(client, {"amount": kes(), **extra}), 400, "invalid_request")

    assert [(error["field"], error["code"]) for error in document["errors"]] == [(field, code)]
    assert Orders.seen == []


def test_a_hundred_unknown_fields_are_not_all_repeated(client):
    response = order(client, {"amount": kes()} | {f"{n:03}" + "x" * 200: n for n in range(100)})

    assert len(response.content) < 6000
    assert len(is_a_problem(response, 400, "invalid_request")["errors"]) == 20


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("{", id="cut off"),
        pytest.param("<html>", id="HTML"),
        pytest.param("amount=1", id="a form"),
        pytest.param('{"amount": NaN}', id="NaN"),
        pytest.param('{"amount": -Infinity}', id="Infinity"),
        pytest.param('{"note": "a", "note": "b"}', id="a key twice"),
        pytest.param('{"amount": {"amount": "1.00", "amount": "9.00", "currency": "KES"}}', id="a key twice, deeper"),
        pytest.param("[" * 10_000 + "]" * 10_000, id="nested 10,000 deep"),
        pytest.param('{"a":' * 10_000 + "1" + "}" * 10_000, id="objects 10,000 deep"),
        pytest.param('{"note": ' + "[" * 40 + "]" * 40 + "}", id="nested 40 deep"),
        pytest.param(b'{"note": "\xff"}', id="not UTF-8"),
        pytest.param('{"note": "a"}'.encode("utf-16"), id="UTF-16"),
        pytest.param('{"note": "\\ud800"}', id="half a surrogate pair"),
        pytest.param('{"\\udc00": 1}', id="half a surrogate pair as a key"),
        pytest.param('{"note": "a\\u0000b"}', id="NUL"),
        pytest.param('{"note": "a\x00b"}', id="raw NUL"),
        pytest.param("9" * 5000, id="a number of 5,000 digits"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
    ],
)
def test_what_is_not_one_clear_json_text_is_refused(client, body):
    is_a_problem(order(client, body), 400, "malformed_json")
    assert Orders.seen == []


@pytest.mark.parametrize("body", ["", "{}", "[]", "null", '"x"', "5", "1e999999999", "[[]]"])
def test_json_that_is_no_order_is_refused(client, body):
    is_a_problem(order(client, body), 400, "invalid_request")
    assert Orders.seen == []


def test_a_body_over_64_kib_is_refused_and_one_of_64_kib_is_read(client):
    body = json.dumps({"amount": kes()}).encode()

    is_a_problem(order(client, body + b" " * (MAX_BODY - len(body) + 1)), 413, "body_too_large")
    assert Orders.seen == []
    assert order(client, body + b" " * (MAX_BODY - len(body))).status_code == 202


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", "x"],
)
def test_another_content_type_is_refused(client, content_type):
    is_a_problem(order(client, json.dumps({"amount": kes()}), content_type=content_type), 415, "unsupported_media_type")
    assert Orders.seen == []


def test_json_with_a_charset_is_read(client):
    assert order(client, {"amount": kes()}, content_type="application/json; charset=utf-8").status_code == 202


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "", "*/*"])
def test_the_answer_is_json_whatever_was_asked_for(client, accept):
    assert order(client, {"amount": kes()}, Accept=accept).headers["Content-Type"] == "application/json"


def test_an_order_without_a_key_is_refused(client):
    is_a_problem(order(client, {"amount": kes()}, **{"Idempotency-Key": ""}), 400, "idempotency_key_missing")


@pytest.mark.parametrize("key", ["a b", "é", "x" * 129])
def test_a_key_that_is_not_visible_ascii_is_refused(client, key):
    is_a_problem(order(client, {"amount": kes()}, **{"Idempotency-Key": key}), 422, "invalid_idempotency_key")


def test_a_repeated_answer_says_so(client):
    response = order(client, {"amount": kes()}, **{"Idempotency-Key": "again"})

    assert response.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize(
    ("error", "status", "code", "retry_after"),
    [
        (FloatLow("wait", expected_by="2026-11-22"), 422, "float_low", None),
        (TooFast("slow down", retry_after=2.4), 429, "too_fast", "2"),
        (Throttled(wait=0.2), 429, "throttled", "1"),
        (OperationalError(1205, "Lock wait timeout exceeded"), 503, "busy", "1"),
        (OperationalError(1213, "Deadlock found"), 503, "busy", "1"),
        (OperationalError("database is locked"), 503, "busy", "1"),
        (OperationalError(2006, "server has gone away"), 503, "busy", "1"),
    ],
)
def test_a_foreseen_error_has_its_status_and_code(client, monkeypatch, error, status, code, retry_after):
    monkeypatch.setattr(Failing, "error", error)

    response = client.get("/api/v1/failing")

    document = is_a_problem(response, status, code)
    assert response.headers.get("Retry-After") == retry_after
    assert document.get("expected_by") == getattr(error, "extra", {}).get("expected_by")


@pytest.mark.parametrize(
    "error", [RuntimeError("password=hunter2"), OperationalError(1054, "password=hunter2"), KeyError("x")]
)
def test_an_unforeseen_error_tells_nothing_of_its_cause(client, monkeypatch, error):
    monkeypatch.setattr(Failing, "error", error)

    response = client.get("/api/v1/failing")

    is_a_problem(response, 500, "internal_error")
    assert b"hunter2" not in response.content
    assert b"Traceback" not in response.content


def test_what_is_not_there_is_a_problem_too(client):
    is_a_problem(client.get("/api/v1/nothing"), 404, "not_found")
    assert is_a_problem(client.get("/api/v1/orders"), 405, "method_not_allowed")
    is_a_problem(client.get("/api/v1/orders", headers={"Host": "evil.example"}), 400, "bad_request")


@pytest.mark.parametrize(
    ("given", "kept"), [("abcd-1234.x_Y", True), ("short", False), ("x" * 65, False), ("a\tb<b>12345", False)]
)
def test_a_callers_request_id_is_kept_only_when_it_is_sane(client, given, kept):
    response = client.get("/api/v1/nothing", headers={"X-Request-ID": given})

    assert (response.headers["X-Request-ID"] == given) is kept
    assert kept or UUID(response.headers["X-Request-ID"]).version == 7


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "address"),
    [
        (0, "41.90.1.1", "196.201.214.200", "41.90.1.1"),
        (1, "10.0.0.2", "196.201.214.200, 41.90.1.1", "41.90.1.1"),
        (2, "10.0.0.2", "196.201.214.200, 41.90.1.1, 10.0.0.1", "41.90.1.1"),
        (2, "10.0.0.2", "41.90.1.1", "10.0.0.2"),
        (1, "10.0.0.2", "not an address", "10.0.0.2"),
        (1, "10.0.0.2", "196.201.214.200, 41.90.1.1:50123", "41.90.1.1"),
        (1, "10.0.0.2", "[2001:db8::7]:443", "2001:db8::7"),
        (1, "10.0.0.2", "[2001:db8::7]", "2001:db8::7"),
        (1, "10.0.0.2", "2001:db8::7", "2001:db8::7"),
        (1, "10.0.0.2", "[", "10.0.0.2"),
        (1, "10.0.0.2", ":80", "10.0.0.2"),
        (1, "10.0.0.2", "", "10.0.0.2"),
        (0, "::ffff:41.90.1.1", "", "41.90.1.1"),
        (0, "fe80::1%eth0", "", "fe80::1"),
        (0, "", "", ""),
    ],
)
def test_the_address_is_the_one_that_the_outermost_trusted_proxy_saw(proxies, peer, forwarded, address):
    request: HttpRequest = RequestFactory().get("/", REMOTE_ADDR=peer, HTTP_X_FORWARDED_FOR=forwarded)

    with override_settings(TRUSTED_PROXY_COUNT=proxies):
        assert client_address(request) == address


def test_who_acts_in_one_request_does_not_act_in_the_next(client):
    before = current_context()
    order(client, {"amount": kes()})

    assert current_context() is before


class Row:
    """Anything with `created_at` and `id` can be paged."""

    def __init__(self, at: datetime, id: UUID) -> None:
        self.created_at, self.id = at, id


def page(query: dict[str, str]) -> Page:
    return Page.of(Request(RequestFactory().get("/", query)))


def test_a_cursor_comes_back_as_the_row_that_it_was_made_of():
    rows = [
        Row(datetime(2026, 11, 22, 13, 0, 0, 123457, tzinfo=UTC) - timedelta(seconds=n), UUID(int=n)) for n in range(3)
    ]

    answer: Any = page({"limit": "2"}).answer(rows, lambda row: {"id": str(row.id)})  # type: ignore[type-var]

    assert [item["id"] for item in answer.data["items"]] == [str(UUID(int=0)), str(UUID(int=1))]
    assert page({"cursor": answer.data["next"]}).after == (rows[1].created_at, rows[1].id)
    assert page({}).answer(rows, lambda row: {}).data["next"] is None  # type: ignore[type-var]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "", "٣", "9" * 50])
def test_a_page_size_out_of_bounds_is_refused(limit):
    with pytest.raises(Exception, match="limit is 1 to 100"):
        page({"limit": limit})


def test_a_cursor_that_was_touched_is_refused():
    cursor = page({"limit": "1"}).answer([Row(datetime.now(UTC), UUID(int=1))] * 2, lambda row: {}).data["next"]  # type: ignore[type-var]

    for touched in (cursor[:-1], cursor[1:], "x", "a:b:c", "\x00"):
        with pytest.raises(Exception, match="unchanged"):
            page({"cursor": touched})
