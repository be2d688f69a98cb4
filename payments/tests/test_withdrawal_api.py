"""The REST edge of withdrawals, as a customer and as an attacker: each refusal says why, and leaves nothing."""

from datetime import timedelta
from uuid import uuid4

import pytest

from payments import models
from payments.domain.transaction import TransactionStatus as S
from payments.tests.factories import a_float, a_quote, kes, todays_rate, usd
from payments.tests.stored_withdrawals import a_withdrawal
from payments.tests.test_api import BODIES, a_limit, plain, refused
from payments.tests.withdrawing import (
    DerivLogin,
    User,
    Withdrawer,
    a_payout_float,
    an_offer,
    nothing_moves,
    owes,
    recovers,
)
from shared_kernel.infrastructure.persistence import now

pytestmark = pytest.mark.django_db
PATHS = ["withdrawals/verification", "withdrawals"]
CODE = "abCD_123"


@pytest.fixture(autouse=True)
def _open_for_business():
    todays_rate()
    a_payout_float()


@pytest.fixture
def caller() -> Withdrawer:
    return Withdrawer()


def the_command(caller, path, quote):
    """Either command about this quote."""
    return caller.verify(quote) if path == PATHS[0] else caller.withdraw(quote, CODE)


# --- quotes -----------------------------------------------------------------------------------------------------------


def test_a_quote_in_dollars_says_what_the_phone_gets_in_whole_shillings(caller):
    answer = caller.quote("10.00", "USD", type="withdrawal")

    offer = answer.json()
    assert answer.status_code == 201
    assert offer | {"id": "", "expires_at": ""} == {
        "id": "",
        "type": "withdrawal",
        "rate": "127.0395",
        "margin": "2.4605",
        "you_send": {"amount": "10.00", "currency": "USD"},
        "you_get": {"amount": "1270.00", "currency": "KES"},
        "expires_at": "",
    }
    assert plain(offer)
    assert not models.Transaction.objects.exists()


@pytest.mark.parametrize("currency", ["KES", "kes", "EUR", None])
def test_another_currency_than_dollars_is_refused(caller, currency):
    known = currency == "KES"
    with nothing_moves():
        answer = caller.quote("10.00", currency, type="withdrawal")
        refused(answer, *((422, "wrong_currency") if known else (400, "invalid_request")))


@pytest.mark.parametrize(
    ("amount", "code"),
    [
        ("10.001", "invalid_amount"),
        ("1e30", "invalid_amount"),
        ("1" + "0" * 30, "invalid_amount"),
        ("ten", "invalid_amount"),
        ("", "invalid_amount"),
        ("NaN", "invalid_amount"),
        ("0", "not_positive"),
        ("0.00", "not_positive"),
        ("-10.00", "not_positive"),
        (10, "not_a_string"),
        (10.5, "not_a_string"),
        (1e30, "not_a_string"),
        (None, "not_a_string"),
    ],
)
def test_what_is_no_amount_of_dollars_is_refused(caller, amount, code):
    with nothing_moves():
        answer = caller.quote(amount, "USD", type="withdrawal")
        assert refused(answer, 400, "invalid_request") == {("amount.amount", code)}


@pytest.mark.parametrize(
    ("dollars", "limit"),
    [
        ("0.01", "provider:mpesa_b2c"),  # 1 shilling: M-Pesa pays out 10 at least
        ("0.07", "provider:mpesa_b2c"),
        ("0.99", "provider:deriv_transfer"),  # a dollar at least
        ("1970.00", "provider:mpesa_stk"),  # above 250,000 shillings, which M-Pesa moves neither way
    ],
)
def test_an_amount_that_a_provider_or_the_tier_does_not_move_is_not_offered(caller, dollars, limit):
    with nothing_moves():
        answer = caller.quote(dollars, "USD", type="withdrawal")
        refused(answer, 422, "limit_exceeded")
    assert answer.json()["limit"] == limit


def test_an_amount_beyond_what_can_be_counted_is_refused(caller):
    with nothing_moves():
        refused(caller.quote("99999999999.00", "USD", type="withdrawal"), 422, "invalid_amount")


def test_more_than_deriv_moves_at_once_is_not_offered_though_m_pesa_would(caller):
    todays_rate(mid=100, valid_from=now() - timedelta(minutes=1))
    with nothing_moves():
        answer = caller.quote("2000.01", "USD", type="withdrawal")
        refused(answer, 422, "limit_exceeded")
        assert answer.json()["limit"] == "provider:deriv_transfer"
    assert caller.quote("2000.00", "USD", type="withdrawal").status_code == 201


def test_an_unknown_field_of_a_quote_is_named(caller):
    with nothing_moves():
        answer = caller.quote("10.00", "USD", type="withdrawal", rate="200")
        assert refused(answer, 400, "invalid_request") == {("rate", "unknown_field")}


# --- both commands: who may, and for which quote ----------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("who", "status", "code"),
    [
        ({"phone_verified": False}, 403, "phone_not_verified"),
        ({"frozen": True}, 403, "account_frozen"),
        ({"owes": kes(1)}, 403, "customer_owes"),
        ({"owes": usd(1)}, 403, "customer_owes"),
        ({"kyc_status": "rejected"}, 403, "kyc_required"),
        ({"tier": "none"}, 403, "kyc_required"),
        ({"deriv_account": None}, 409, "deriv_login_missing"),
        ({"other_name": True}, 409, "deriv_login_missing"),
    ],
)
def test_who_may_not_withdraw_is_told_what_to_do_and_nobody_is_asked(path, who, status, code, at_deriv):
    caller = Withdrawer(**{name: value for name, value in who.items() if name not in {"frozen", "other_name", "owes"}})
    if who.get("frozen"):
        User.objects.filter(pk=caller.id).update(frozen_at=now())
    if who.get("other_name"):
        DerivLogin.objects.filter(user_id=caller.id).update(name_matches=False)
    if who.get("owes"):
        owes(caller, who["owes"])
    quote = an_offer(caller.id)

    with nothing_moves(at_deriv):
        refused(the_command(caller, path, quote), status, code)

    assert not at_deriv.simulator.codes.sent


def test_recovery_frees_who_owed_without_any_other_act(caller):
    owes(caller, kes(1271))
    told = caller.get("limits").json()["withdrawal"]
    assert (told["left_today"]["amount"], told["left_this_month"]["amount"]) == ("0.00", "0.00")
    assert "taken back" in told["why"]
    assert caller.get("limits").json()["deposit"]["why"] == "your verification level is standard"
    refused(caller.withdraw(an_offer(caller.id), CODE), 403, "customer_owes")

    for amount in (kes(1270), kes(1)):  # the first part is not enough
        refused(caller.withdraw(an_offer(caller.id), CODE), 403, "customer_owes")
        recovers(caller, amount)

    assert caller.withdraw(an_offer(caller.id), CODE).status_code == 202
    assert "verification level" in caller.get("limits").json()["withdrawal"]["why"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("over", "status", "code"),
    [
        ({"expires_at": now() - timedelta(minutes=1)}, 409, "quote_expired"),
        ({"transaction_id": uuid4()}, 409, "quote_used"),
        ({"user": uuid4()}, 404, "quote_not_found"),
        ({"type": "deposit"}, 404, "quote_not_found"),
    ],
)
def test_a_quote_that_is_not_this_customer_s_to_use_now_is_refused(caller, path, over, status, code, at_deriv):
    quote = an_offer(**{"user": caller.id} | over)

    with nothing_moves(at_deriv):
        refused(the_command(caller, path, quote), status, code)

    assert not at_deriv.simulator.codes.sent
    assert models.Quote.objects.get(pk=quote).agent == ""


@pytest.mark.parametrize("path", PATHS)
def test_somebody_elses_quote_is_refused_as_one_that_is_not_there(caller, path):
    answers = [the_command(caller, path, quote) for quote in (an_offer(uuid4()), uuid4())]

    told = [answer.json() | {"request_id": ""} for answer in answers]
    assert told[0] == told[1]
    assert told[0]["status"] == 404


def test_a_withdrawal_s_quote_makes_no_deposit(caller):
    quote = an_offer(caller.id)
    with nothing_moves():
        refused(caller.deposit(quote), 404, "quote_not_found")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("id", ["", "1", 1, None, [], {}, "x" * 400, "' OR 1=1 --"])
def test_an_id_that_is_none_is_refused(caller, path, id):
    with nothing_moves():
        answer = caller.post(path, {"quote_id": id, "verification_code": CODE}, **{"Idempotency-Key": "k"})
        assert ("quote_id", "invalid_id" if id is not None else "null") in refused(answer, 400, "invalid_request")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("body", "status", "code"), BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_no_object_of_json_is_refused(caller, path, body, status, code):
    with nothing_moves():
        refused(caller.post(path, body, **{"Idempotency-Key": "a-key"}), status, code)


@pytest.mark.parametrize("path", PATHS)
def test_a_field_that_nobody_asked_for_is_refused(caller, path):
    """Above all: where the money goes is never the request's to say."""
    body = {"quote_id": str(an_offer(caller.id)), "phone": "254700000000", "user_id": str(uuid4()), "agent": "CR1"}
    with nothing_moves():
        errors = refused(caller.post(path, body, **{"Idempotency-Key": "k"}), 400, "invalid_request")
        assert {("phone", "unknown_field"), ("user_id", "unknown_field"), ("agent", "unknown_field")} <= errors


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("limit", [{"most": 1_269}, {"day": 1_269}, {"month": 1_269}])
def test_a_limit_that_was_lowered_after_the_quote_holds(caller, path, limit, at_deriv):
    quote = an_offer(caller.id)
    a_limit(**limit)
    with nothing_moves(at_deriv):
        refused(the_command(caller, path, quote), 422, "limit_exceeded")
    assert not at_deriv.simulator.codes.sent


# --- reading ----------------------------------------------------------------------------------------------------------


def test_somebody_elses_withdrawal_is_not_found_as_if_it_were_not_there(caller):
    theirs = a_withdrawal("RATE_LOCKED")

    answers = [caller.get(f"transactions/{id}") for id in (theirs.id, uuid4())]

    told = [answer.json() | {"request_id": ""} for answer in answers]
    assert told[0] == told[1]
    assert (told[0]["status"], told[0]["code"]) == (404, "transaction_not_found")
    assert caller.get("transactions?type=withdrawal").json()["items"] == []


def test_withdrawals_are_listed_by_type_as_they_are_told_alone(caller):
    mine = [a_withdrawal(status, user=caller.id) for status in ("RATE_LOCKED", "COMPLETED")]
    a_float()
    deposit = caller.deposit(a_quote(caller.id).id).json()["transaction"]["id"]

    items = caller.get("transactions?type=withdrawal").json()["items"]

    assert [item["id"] for item in items] == [str(each.id) for each in reversed(mine)]
    assert [caller.get(f"transactions/{item['id']}").json() for item in items] == items
    assert {item["amount"]["currency"] + item["payout"]["currency"] for item in items} == {"USDKES"}
    assert [item["id"] for item in caller.get("transactions?type=deposit").json()["items"]] == [deposit]
    assert plain(items)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (S.FAILED, True),
        (S.EXPIRED, True),
        (S.REJECTED, True),
        (S.NEEDS_ATTENTION, False),  # what is wrong on our side is staff's to know
        (S.RATE_LOCKED, False),
    ],
)
def test_why_a_withdrawal_ended_is_told_and_what_only_staff_should_know_is_not(caller, status, told):
    one = a_withdrawal(status, user=caller.id, failure_code="debited_twice", failure_detail="In the customer's words.")

    failure = caller.get(f"transactions/{one.id}").json()["failure"]

    assert failure == ({"code": "debited_twice", "detail": "In the customer's words."} if told else None)


def test_limits_tell_what_is_left_of_withdrawals_apart_from_deposits(caller):
    caller.withdrawn(an_offer(caller.id), CODE)

    limits = caller.get("limits").json()

    assert set(limits) == {"deposit", "withdrawal"}
    assert limits["withdrawal"] == {
        "minimum": {"amount": "10.00", "currency": "KES"},
        "maximum": {"amount": "250000.00", "currency": "KES"},
        "left_today": {"amount": "498730.00", "currency": "KES"},
        "left_this_month": {"amount": "4998730.00", "currency": "KES"},
        "why": "your verification level is standard",
    }
    assert limits["deposit"]["left_today"]["amount"] == "500000.00"


@pytest.mark.parametrize("path", PATHS)
def test_nobody_gets_in_without_signing_in_or_without_the_csrf_token(caller, path):
    with nothing_moves():
        refused(type(caller.browser)().post(path, {}), 401, "not_authenticated")
        answer = caller.browser.http.post(f"/api/v1/{path}", "{}", "application/json", headers={"Idempotency-Key": "k"})
        refused(answer, 403, "csrf_failed")
