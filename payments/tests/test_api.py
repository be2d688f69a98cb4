"""The REST edge of payments: what is accepted; every refusal says why, moves nothing and leaves no half row."""

import json
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from django.apps import apps
from django.db import connection
from django.db.models import Sum

from identity.tests.clients import API, Browser
from identity.tests.factories import PASSWORD, a_customer
from payments import models
from payments.domain.transaction import TransactionStatus as S
from payments.tests.factories import a_float, a_quote, a_stored_deposit, todays_rate
from shared_kernel.infrastructure.persistence import new_id, now
from shared_kernel.models import AuditLog, DomainEvent, IdempotencyKey
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db
DerivLogin, MpesaRequest, LedgerEntry = map(
    apps.get_model, ("identity.DerivLogin", "mpesa_integration.MpesaRequest", "wallet.LedgerEntry")
)
real_commits = pytest.mark.django_db(transaction=True)
one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")


class Caller:
    """A signed-in customer's browser."""

    def __init__(self, **customer: Any) -> None:
        self.customer = a_customer(password=PASSWORD, **customer)
        self.browser = Browser()
        assert self.browser.sign_in(self.customer.email).status_code == 200

    @property
    def id(self) -> UUID:
        return self.customer.id

    def post(self, path: str, body: Any, type: str = "application/json", **headers: str) -> Any:
        """`body` as JSON unless it is text or bytes already."""
        raw = body if isinstance(body, str | bytes) else json.dumps(body)
        token = {"X-CSRFToken": self.browser.cookies["csrftoken"].value}
        return self.browser.http.post(API + path, raw, type, headers=token | headers)

    def quote(self, amount: Any = "1300.00", currency: Any = "KES", type: Any = "deposit", **more: Any) -> Any:
        return self.post("quotes", {"type": type, "amount": {"amount": amount, "currency": currency}, **more})

    def deposit(self, quote: Any, key: str | None = None, **more: Any) -> Any:
        key = str(uuid4()) if key is None else key
        return self.post("deposits", {"quote_id": str(quote), **more}, **({"Idempotency-Key": key} if key else {}))

    def get(self, path: str) -> Any:
        return self.browser.get(path)


@pytest.fixture(autouse=True)
def _open_for_business():
    todays_rate()
    a_float()


@pytest.fixture
def caller() -> Caller:
    return Caller()


def everything() -> dict[str, Any]:
    """What a command may write, as numbers."""
    return {
        "transactions": models.Transaction.objects.count(),
        "events": DomainEvent.objects.count(),
        "audit": AuditLog.objects.filter(target_type="transaction").count(),
        "reservations": models.FloatReservation.objects.count(),
        "reserved": models.FloatAccount.objects.aggregate(sum=Sum("reserved"))["sum"] or 0,
        "keys": IdempotencyKey.objects.count(),
        "quotes": models.Quote.objects.count(),
        "quotes used": models.Quote.objects.exclude(transaction_id=None).count(),
        "entries": LedgerEntry.objects.count(),
        "prompts": MpesaRequest.objects.count(),
    }


@contextmanager
def nothing_moves():
    before = everything()
    yield
    assert everything() == before


def refused(answer, status, code):
    """A problem document that says what to do; answers its fields' errors."""
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), document
    assert answer["Content-Type"] == "application/problem+json"
    assert document["detail"]
    return {(error["field"], error["code"]) for error in document.get("errors", [])}


def plain(value) -> bool:
    """No float anywhere in it."""
    match value:
        case dict():
            return all(plain(inner) for inner in value.values())
        case list():
            return all(plain(inner) for inner in value)
    return not isinstance(value, float)


# --- quotes -----------------------------------------------------------------------------------------------------------


def test_a_quote_says_what_is_paid_what_is_got_and_until_when(caller):
    answer = caller.quote("1300.00")

    offer = answer.json()
    assert answer.status_code == 201
    assert offer | {"id": "", "expires_at": ""} == {
        "id": "",
        "type": "deposit",
        "rate": "131.9605",
        "margin": "2.4605",
        "you_send": {"amount": "1300.00", "currency": "KES"},
        "you_get": {"amount": "9.85", "currency": "USD"},
        "expires_at": "",
    }
    assert plain(offer)
    row = models.Quote.objects.get(pk=offer["id"])
    assert (row.user_id, row.send_amount, row.get_amount, row.transaction_id) == (caller.id, 130000, 985, None)
    assert not models.Transaction.objects.exists()


@pytest.mark.parametrize("amount", ["0", "0.00", "-1", "-1300.00", "-0.01"])
def test_an_amount_that_is_not_positive_is_refused(caller, amount):
    with nothing_moves():
        assert refused(caller.quote(amount), 400, "invalid_request") == {("amount.amount", "not_positive")}


@pytest.mark.parametrize("amount", ["1300.50", "1300.01", "99.99"])
def test_cents_are_refused_for_m_pesa_moves_whole_shillings(caller, amount):
    with nothing_moves():
        refused(caller.quote(amount), 422, "whole_shillings_only")


@pytest.mark.parametrize("amount", ["250001.00", "9.00", "10.00", "99999999999.00"])
def test_an_amount_outside_the_limits_is_refused(caller, amount):
    with nothing_moves():
        refused(caller.quote(amount), 422, "limit_exceeded")


@pytest.mark.parametrize(
    "amount",
    [
        "1" + "0" * 30,
        "1300.001",
        "1,300",
        "1300,00",
        "1e3",
        "+5",
        " 5",
        "5 ",
        "",
        "0x10",
        "١٣٠٠",
        "NaN",
        "Infinity",
        ".5",
    ],
)
def test_a_text_that_is_no_amount_is_refused(caller, amount):
    with nothing_moves():
        assert refused(caller.quote(amount), 400, "invalid_request") == {("amount.amount", "invalid_amount")}


@pytest.mark.parametrize("amount", [1300, 1300.0, 10**30, 1e30, True, None, [], {}])
def test_an_amount_that_is_no_text_is_refused(caller, amount):
    with nothing_moves():
        assert refused(caller.quote(amount), 400, "invalid_request") == {("amount.amount", "not_a_string")}


@pytest.mark.parametrize("money", ["1300.00", 1300, 1300.5, ["1300.00"], True])
def test_money_that_is_no_object_is_refused(caller, money):
    with nothing_moves():
        answer = caller.post("quotes", {"type": "deposit", "amount": money})
        assert refused(answer, 400, "invalid_request") == {("amount", "invalid")}


def test_another_currency_than_a_deposit_s_is_refused(caller):
    with nothing_moves():
        refused(caller.quote("10.00", "USD"), 422, "wrong_currency")


@pytest.mark.parametrize("currency", ["EUR", "kes", "", 404, None])
def test_a_currency_that_penpay_does_not_know_is_refused(caller, currency):
    with nothing_moves():
        errors = refused(caller.quote("10.00", currency), 400, "invalid_request")
        assert errors == {("amount.currency", "invalid_currency")}


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {("type", "required"), ("amount", "required")}),
        ({"type": "deposit", "amount": {"amount": "5"}}, {("amount.currency", "required")}),
        ({"type": "transfer", "amount": {"amount": "1300", "currency": "KES"}}, {("type", "invalid_choice")}),
        (
            {"type": "deposit", "amount": {"amount": "1300", "currency": "KES", "rate": "1"}, "rate": "1"},
            {("rate", "unknown_field"), ("amount.rate", "unknown_field")},
        ),
    ],
)
def test_fields_that_are_missing_or_unknown_are_named(caller, body, errors):
    with nothing_moves():
        assert refused(caller.post("quotes", body), 400, "invalid_request") == errors


BODIES = [
    ("", 400, "invalid_request"),
    ("amount=1300", 400, "malformed_json"),
    ("<html>", 400, "malformed_json"),
    (b"\xff\xfe", 400, "malformed_json"),
    ('{"quote_id": NaN}', 400, "malformed_json"),
    ('{"type": "deposit", "type": "deposit"}', 400, "malformed_json"),
    ("[" * 10_000 + "]" * 10_000, 400, "malformed_json"),
    ("[]", 400, "invalid_request"),
    ('"deposit"', 400, "invalid_request"),
    ("null", 400, "invalid_request"),
    ('{"note": "' + "x" * 70_000 + '"}', 413, "body_too_large"),
]


@pytest.mark.parametrize("path", ["quotes", "deposits"])
@pytest.mark.parametrize(("body", "status", "code"), BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_no_object_of_json_is_refused(caller, path, body, status, code):
    with nothing_moves():
        refused(caller.post(path, body, **{"Idempotency-Key": "a-key"}), status, code)


@pytest.mark.parametrize("path", ["quotes", "deposits"])
@pytest.mark.parametrize("type", ["text/plain", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(caller, path, type):
    with nothing_moves():
        refused(caller.post(path, "{}", type, **{"Idempotency-Key": "a-key"}), 415, "unsupported_media_type")


@pytest.mark.parametrize("path", ["quotes", "deposits"])
def test_a_form_with_a_file_is_refused(caller, path):
    with nothing_moves():
        answer = caller.post(path, "--x--", "multipart/form-data; boundary=x", **{"Idempotency-Key": "a-key"})
        refused(answer, 415, "unsupported_media_type")  # nobody has read it, not even for a CSRF token


@pytest.mark.parametrize("ended", [True, False])
def test_without_a_rate_that_is_valid_no_quote_is_given(caller, ended):
    if ended:
        models.ExchangeRate.objects.update(valid_until=now() - timedelta(seconds=1))
    else:
        models.ExchangeRate.objects.update(valid_from=now() + timedelta(hours=1))
    with nothing_moves():
        refused(caller.quote(), 503, "rate_stale")


def test_the_newest_rate_that_ran_out_does_not_bring_an_older_one_back(caller):
    todays_rate(valid_from=now() - timedelta(minutes=2), valid_until=now() - timedelta(minutes=1))
    with nothing_moves():
        refused(caller.quote(), 503, "rate_stale")


def test_a_customer_without_a_verified_identity_gets_no_quote():
    unknown = Caller(kyc_status="none", tier="none")
    with nothing_moves():
        refused(unknown.quote(), 403, "kyc_required")


@pytest.mark.parametrize("path", ["quotes", "deposits"])
def test_nobody_gets_in_without_signing_in_or_without_the_csrf_token(caller, path):
    with nothing_moves():
        refused(Browser().post(path, {}), 401, "not_authenticated")
        answer = caller.browser.http.post(API + path, "{}", "application/json", headers={"Idempotency-Key": "k"})
        refused(answer, 403, "csrf_failed")


# --- deposits ---------------------------------------------------------------------------------------------------------


def test_a_deposit_is_accepted_and_told_in_full(caller):
    quote = caller.quote().json()["id"]

    answer = caller.deposit(quote)

    deposit = answer.json()["transaction"]
    assert (answer.status_code, answer["Location"]) == (202, f"/api/v1/transactions/{deposit['id']}")
    assert "Idempotency-Replayed" not in answer
    assert deposit["timeline"] == [{"status": "CREATED", "at": deposit["created_at"]}]
    told = {name: deposit[name] for name in ("type", "status", "amount", "payout", "locked_rate", "failure")}
    assert told == {
        "type": "deposit",
        "status": "CREATED",
        "amount": {"amount": "1300.00", "currency": "KES"},
        "payout": {"amount": "9.85", "currency": "USD"},
        "locked_rate": "131.9605",
        "failure": None,
    }
    assert plain(deposit)
    assert caller.get(f"transactions/{deposit['id']}").json() == deposit


def test_one_command_leaves_one_of_each_row_in_its_commit(caller):
    quote = caller.quote().json()["id"]
    before = everything()

    id = caller.deposit(quote).json()["transaction"]["id"]

    after = everything()
    one_more = ("transactions", "events", "audit", "reservations", "keys", "quotes used")
    assert {name: after[name] - before[name] for name in before if after[name] != before[name]} == {
        **dict.fromkeys(one_more, 1), "reserved": 985,
    }  # fmt: skip
    assert str(models.Quote.objects.get(pk=quote).transaction_id) == id
    row = models.Transaction.objects.get(pk=id)
    assert (row.phone, row.user_id, row.agent) == (caller.customer.phone.number, caller.id, "CR900001")
    audit = AuditLog.objects.get(target_id=id)
    assert (audit.actor, bool(audit.request_id)) == (f"user:{caller.id}", True)


def test_what_is_stored_of_a_deposit_holds_no_personal_data_in_clear(caller):
    caller.deposit(a_quote(caller.id).id)

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM transactions")
        stored = repr(cursor.fetchall())
    assert caller.customer.phone.number[3:] not in stored
    assert caller.customer.deriv_login.account not in stored


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {("quote_id", "required")}),
        ({"quote_id": "1"}, {("quote_id", "invalid_id")}),
        ({"quote_id": 1}, {("quote_id", "invalid_id")}),
        ({"quote_id": None}, {("quote_id", "null")}),
        ({"quote_id": str(uuid4()), "amount": "1"}, {("amount", "unknown_field")}),
        ({"quote_id": str(uuid4()), "phone": "0712345678"}, {("phone", "unknown_field")}),
    ],
)
def test_a_body_that_is_not_a_deposit_s_is_refused(caller, body, errors):
    with nothing_moves():
        answer = caller.post("deposits", body, **{"Idempotency-Key": "a-key"})
        assert refused(answer, 400, "invalid_request") == errors


def test_a_quote_that_is_not_there_is_not_found(caller):
    with nothing_moves():
        refused(caller.deposit(uuid4()), 404, "quote_not_found")


def test_somebody_else_s_quote_is_not_found_and_stays_theirs(caller):
    other = a_quote(new_id())
    with nothing_moves():
        refused(caller.deposit(other.id), 404, "quote_not_found")
    other.refresh_from_db()
    assert other.transaction_id is None


def test_a_withdrawal_s_quote_buys_no_deposit(caller):
    quote = a_quote(caller.id, type="withdrawal", send_currency="USD", get_currency="KES")
    with nothing_moves():
        refused(caller.deposit(quote.id), 404, "quote_not_found")


def test_an_expired_quote_is_refused(caller):
    quote = a_quote(caller.id, expires_at=now())
    with nothing_moves():
        refused(caller.deposit(quote.id), 409, "quote_expired")


def test_a_quote_is_good_to_its_last_moment_and_no_longer(caller):
    quote = caller.quote().json()
    with time_machine.travel(quote["expires_at"], tick=False), nothing_moves():
        refused(caller.deposit(quote["id"]), 409, "quote_expired")


def test_a_used_quote_is_refused(caller):
    quote = a_quote(caller.id).id
    assert caller.deposit(quote).status_code == 202
    with nothing_moves():
        refused(caller.deposit(quote), 409, "quote_used")


def test_without_an_idempotency_key_nothing_is_done(caller):
    quote = a_quote(caller.id).id
    with nothing_moves():
        refused(caller.deposit(quote, key=""), 400, "idempotency_key_missing")


@pytest.mark.parametrize("key", ["x" * 129, "a key", "ключ", "a\tb"])
def test_an_idempotency_key_that_is_none_is_refused(caller, key):
    quote = a_quote(caller.id).id
    with nothing_moves():
        refused(caller.deposit(quote, key), 422, "invalid_idempotency_key")


@pytest.mark.parametrize("key", ["x" * 128, "k", "~!@#$%^&*()"])
def test_an_idempotency_key_is_up_to_128_visible_characters(caller, key):
    assert caller.deposit(a_quote(caller.id).id, key).status_code == 202


def test_a_repeated_request_gets_the_first_answer_again_word_for_word(caller):
    quote = a_quote(caller.id).id
    first = caller.deposit(quote, "a-key")
    models.Transaction.objects.update(status="COMPLETED")  # meanwhile
    models.Quote.objects.update(expires_at=now() - timedelta(days=1))

    with nothing_moves():
        again = caller.deposit(quote, "a-key")

    assert (again.status_code, again["Idempotency-Replayed"]) == (202, "true")
    assert (again.content, again["Location"]) == (first.content, first["Location"])


def test_the_same_key_with_another_body_is_refused(caller):
    caller.deposit(a_quote(caller.id).id, "a-key")
    other = a_quote(caller.id).id
    with nothing_moves():
        refused(caller.deposit(other, "a-key"), 422, "idempotency_key_reused")


def test_a_key_is_each_customer_s_own(caller):
    other = Caller()

    answers = [one.deposit(a_quote(one.id).id, "a-key") for one in (caller, other)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert len({answer.json()["transaction"]["id"] for answer in answers}) == 2


def test_a_refusal_keeps_no_key_so_that_the_same_request_succeeds_once_the_reason_is_gone(caller):
    quote = a_quote(caller.id).id
    models.FloatAccount.objects.update_or_create(account="CR900001", defaults={"reserved": 10**12})
    with nothing_moves():
        refused(caller.deposit(quote, "a-key"), 503, "float_too_low")
    models.FloatAccount.objects.update(reserved=0)

    assert caller.deposit(quote, "a-key").status_code == 202


CUSTOMERS = [
    ({"phone_verified": False}, 403, "phone_not_verified"),
    ({"kyc_status": "none"}, 403, "kyc_required"),
    ({"kyc_status": "rejected"}, 403, "kyc_required"),
    ({"kyc_status": "expired"}, 403, "kyc_required"),
    ({"deriv_account": None}, 409, "deriv_login_missing"),
]


@pytest.mark.parametrize(("customer", "status", "code"), CUSTOMERS, ids=lambda given: str(given))
def test_a_customer_who_may_not_deposit_is_told_why(customer, status, code):
    caller = Caller(**customer) if customer.get("phone_verified", True) else _unverified()
    quote = a_quote(caller.id).id
    with nothing_moves():
        refused(caller.deposit(quote), status, code)


def _unverified() -> Caller:
    caller = Caller()
    caller.customer.row.phone_verified_at = None
    caller.customer.row.save()
    return caller


def test_a_customer_who_was_frozen_meanwhile_moves_nothing(caller):
    caller.customer.row.frozen_at = now()
    caller.customer.row.save()
    quote = a_quote(caller.id).id
    with nothing_moves():
        refused(caller.deposit(quote), 403, "account_frozen")


def test_a_deriv_account_in_another_name_is_no_login(caller):
    DerivLogin.objects.filter(user_id=caller.id).update(name_matches=False)
    quote = a_quote(caller.id).id
    with nothing_moves():
        refused(caller.deposit(quote), 409, "deriv_login_missing")


def test_a_float_that_is_too_low_is_no_fault_of_the_request(caller):
    quote = a_quote(caller.id, send_amount=100_00, get_amount=10_000_000_00).id
    models.FloatAccount.objects.create(account="CR900001", reserved=100_000_00)
    with nothing_moves():
        refused(caller.deposit(quote), 503, "float_too_low")


def test_a_rate_that_runs_out_after_the_quote_does_not_take_the_quote_away(caller):
    quote = caller.quote().json()["id"]
    models.ExchangeRate.objects.update(valid_until=now())

    assert caller.deposit(quote).status_code == 202


# --- limits -----------------------------------------------------------------------------------------------------------


def a_limit(tier="standard", *, most=250_000, day=500_000, month=5_000_000):
    models.LimitRule.objects.create(
        subject=f"tier:{tier}", currency="KES", minimum=10_00, maximum=most * 100, per_day=day * 100,
        per_month=month * 100, valid_from=now() - timedelta(seconds=1),
    )  # fmt: skip


def test_more_than_the_limit_at_once_is_refused_also_when_it_was_lowered_after_the_quote(caller):
    quote = caller.quote("5000.00").json()["id"]
    a_limit(most=4_999)
    with nothing_moves():
        refused(caller.deposit(quote), 422, "limit_exceeded")


@pytest.mark.parametrize("limit", [{"day": 2_000}, {"month": 2_000}])
def test_more_than_is_left_of_the_day_or_month_is_refused_and_the_rest_still_goes(caller, limit):
    a_limit(**limit)
    assert caller.deposit(a_quote(caller.id).id).status_code == 202  # 1,300
    too_much, just_right = a_quote(caller.id, send_amount=701_00), a_quote(caller.id, send_amount=700_00)

    with nothing_moves():
        refused(caller.deposit(too_much.id), 422, "limit_exceeded")

    assert caller.deposit(just_right.id).status_code == 202


def test_what_failed_unpaid_does_not_count_and_what_may_still_be_paid_does(caller):
    a_limit(day=2_000)
    a_stored_deposit(S.FAILED, user=caller.id)
    assert caller.deposit(a_quote(caller.id).id).status_code == 202
    second = a_quote(caller.id).id
    with nothing_moves():
        refused(caller.deposit(second), 422, "limit_exceeded")


def test_somebody_else_s_deposits_use_up_nothing(caller):
    a_limit(day=1_300)
    a_stored_deposit(S.COMPLETED, user=new_id())

    assert caller.deposit(a_quote(caller.id).id).status_code == 202


@one_writer
@real_commits
def test_of_commands_at_the_same_moment_no_more_pass_than_the_limit_allows():
    caller = Caller()
    a_limit(day=3_000)
    quotes = [a_quote(caller.id).id for _ in range(6)]

    answers = at_once(*[lambda id=id: twin(caller).deposit(id) for id in quotes])

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses.count(202) == 2
    assert set(statuses) <= {202, 422, 503}  # 503: waited too long for the customer's row
    assert models.Transaction.objects.count() == models.FloatReservation.objects.count() == 2
    assert models.Quote.objects.exclude(transaction_id=None).count() == 2
    assert IdempotencyKey.objects.count() == 2


@one_writer
@real_commits
def test_of_commands_for_one_quote_at_the_same_moment_one_passes():
    caller = Caller()
    quote = a_quote(caller.id).id

    answers = at_once(*[lambda: twin(caller).deposit(quote)] * 6)

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"quote_used"}
    assert models.Transaction.objects.count() == DomainEvent.objects.count() == 1


@one_writer
@real_commits
def test_a_request_that_is_sent_many_times_at_once_has_one_effect_and_one_answer():
    caller = Caller()
    quote = a_quote(caller.id).id

    answers = at_once(*[lambda: twin(caller).deposit(quote, "a-key")] * 12)

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.content for answer in answers if answer.status_code == 202}) == 1
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {"idempotency_in_flight"}
    assert everything()["transactions"] == everything()["events"] == everything()["reservations"] == 1


def twin(caller: Caller) -> Caller:
    """The same customer, as a thread of its own needs it."""
    other = object.__new__(Caller)
    other.customer, other.browser = caller.customer, caller.browser.twin()
    return other


def test_limits_tell_what_is_left_and_why(caller):
    caller.deposit(a_quote(caller.id).id)

    answer = caller.get("limits").json()

    assert answer == {
        "deposit": {
            "minimum": {"amount": "10.00", "currency": "KES"},
            "maximum": {"amount": "250000.00", "currency": "KES"},
            "left_today": {"amount": "498700.00", "currency": "KES"},
            "left_this_month": {"amount": "4998700.00", "currency": "KES"},
            "why": "your verification level is standard",
        },
        "withdrawal": {
            "minimum": {"amount": "10.00", "currency": "KES"},
            "maximum": {"amount": "250000.00", "currency": "KES"},
            "left_today": {"amount": "500000.00", "currency": "KES"},
            "left_this_month": {"amount": "5000000.00", "currency": "KES"},
            "why": "your verification level is standard",
        },
    }


def test_limits_of_a_customer_without_a_verified_identity_say_what_to_do():
    refused(Caller(kyc_status="none", tier="none").get("limits"), 403, "kyc_required")


def test_a_limit_that_was_used_up_leaves_nothing_and_not_less(caller):
    a_stored_deposit(S.COMPLETED, user=caller.id, shillings=250_000)
    a_limit(day=1_000)

    assert caller.get("limits").json()["deposit"]["left_today"]["amount"] == "0.00"


# --- reading ----------------------------------------------------------------------------------------------------------


def test_somebody_else_s_transaction_is_not_found_as_if_it_were_not_there(caller):
    theirs = a_stored_deposit(S.COMPLETED)

    answers = [caller.get(f"transactions/{id}") for id in (theirs.id, uuid4())]

    for answer in answers:
        refused(answer, 404, "transaction_not_found")
    details = [answer.json() | {"request_id": ""} for answer in answers]
    assert details[0] == details[1]
    assert caller.get("transactions").json() == {"items": [], "next": None}


@pytest.mark.parametrize("id", ["1", "not-an-id", "../me"])
def test_an_id_that_is_none_is_not_found(caller, id):
    assert caller.get(f"transactions/{id}").status_code == 404


def test_the_list_is_newest_first_in_pages_without_gaps_or_repeats(caller):
    at = now() - timedelta(hours=1)
    ids = [a_stored_deposit(user=caller.id, at=at + timedelta(seconds=n // 2)).id for n in range(7)]
    a_stored_deposit()
    pages, cursor = [], ""
    while cursor is not None:
        page = caller.get(f"transactions?limit=3{f'&cursor={cursor}' if cursor else ''}").json()
        pages.append([item["id"] for item in page["items"]])
        cursor = page["next"]
        a_stored_deposit(user=caller.id)  # a new one does not shift the pages

    assert [len(page) for page in pages] == [3, 3, 1]
    assert [id for page in pages for id in page] == [str(id) for id in reversed(ids)]


def test_a_transaction_in_a_list_is_told_as_it_is_told_alone(caller):
    for status in (S.COMPLETED, S.FAILED, S.REFUND_PENDING):
        a_stored_deposit(status, user=caller.id)

    items = caller.get("transactions").json()["items"]

    assert [caller.get(f"transactions/{item['id']}").json() for item in items] == items
    assert [[step["status"] for step in item["timeline"]] for item in items] == [
        ["CREATED", "REFUND_PENDING"],
        ["CREATED", "FAILED"],
        ["CREATED", "MPESA_CONFIRMED", "COMPLETED"],
    ]
    assert plain(items)


def test_the_list_is_filtered_by_status_type_and_time(caller):
    at = now() - timedelta(days=2)
    old, new = a_stored_deposit(S.FAILED, user=caller.id, at=at), a_stored_deposit(user=caller.id)

    def listed(query):
        return [item["id"] for item in caller.get(f"transactions?{query}").json()["items"]]

    since = (now() - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert listed("status=FAILED") == [str(old.id)]
    assert listed("type=withdrawal") == []
    assert listed(f"from={since}") == [str(new.id)]
    assert listed(f"to={since}") == [str(old.id)]
    assert listed("type=deposit") == [str(new.id), str(old.id)]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "invalid_limit"),
        ("limit=101", "invalid_limit"),
        ("limit=ten", "invalid_limit"),
        ("cursor=abc", "invalid_cursor"),
        ("status=LOST", "invalid_request"),
        ("type=transfer", "invalid_request"),
        ("from=yesterday", "invalid_request"),
        ("user_id=1", "invalid_request"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(caller, query, code):
    refused(caller.get(f"transactions?{query}"), 400, code)


def test_why_a_deposit_ended_is_told_in_words_and_what_only_staff_should_know_is_not(caller):
    failed = a_stored_deposit(S.FAILED, user=caller.id)
    shown = a_stored_deposit(S.MPESA_CONFIRMED, user=caller.id)
    rows = models.Transaction.objects
    rows.filter(pk=failed.id).update(failure_code="1032", failure_detail="You cancelled the request.")
    rows.filter(pk=shown.id).update(status="NEEDS_ATTENTION", failure_code="credited_twice")

    told = {item["id"]: item["failure"] for item in caller.get("transactions").json()["items"]}

    assert told[str(failed.id)] == {"code": "1032", "detail": "You cancelled the request."}
    assert told[str(shown.id)] is None
