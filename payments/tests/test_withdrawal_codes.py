"""One-time codes over HTTP and both of Deriv's platforms: what sends one, what refuses, and what a bad one leads to."""

import logging

import pytest
from django.db import connection

from payments import models
from payments.domain.transaction import TransactionStatus as S
from payments.tests.factories import a_float, todays_rate
from payments.tests.test_api import refused
from payments.tests.withdrawing import (
    BOB,
    REST,
    V3,
    DerivTransfer,
    LedgerEntry,
    Withdrawer,
    a_payout_float,
    drive,
    everything,
    nothing_moves,
    stored_with,
)
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import DomainEvent
from wallet.facade import snapshot, verify_ledger
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)
one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
faces = pytest.mark.parametrize("face", [V3, REST], ids=["ws_v3", "rest"])


@pytest.fixture(autouse=True)
def _open_for_business(at_deriv):
    todays_rate()
    a_payout_float()
    a_float()
    at_deriv.simulator.pending_s = 0.05


# --- the one-time code ------------------------------------------------------------------------------------------------


@faces
def test_deriv_sends_a_code_for_this_quote_and_says_until_when_it_is_good(face, at_deriv):
    caller = Withdrawer(face)
    quote = caller.offer()

    with nothing_moves(at_deriv):
        answer = caller.verify(quote)

    assert answer.status_code == 202
    told = answer.json()
    assert set(told) == {"expires_at", "next_request_at"}
    assert now().isoformat() < told["next_request_at"] < told["expires_at"]
    [code] = at_deriv.simulator.codes.sent
    assert (code.customer.loginid, code.value in answer.content.decode()) == ("CR100001", False)
    assert models.Quote.objects.get(pk=quote).agent == face.agent
    if face is REST:
        assert (code.agent, code.amount, code.currency) == (7001, 10_00, "USD")


def test_a_second_code_too_soon_is_429_with_the_seconds_to_wait(at_deriv):
    at_deriv.simulator.codes.pause_s = 60
    caller = Withdrawer(REST)
    quote = caller.offer()
    assert caller.verify(quote).status_code == 202

    with nothing_moves(at_deriv):
        again = caller.verify(quote)

    refused(again, 429, "code_too_soon")
    assert 1 <= int(again["Retry-After"]) <= 61
    assert len(at_deriv.simulator.codes.sent) == 1


def test_deriv_s_own_rate_limit_on_v3_is_429_too(at_deriv):
    caller = Withdrawer(V3)
    at_deriv.arm("error", "code", code="RateLimit", count=1)

    answer = caller.verify(caller.offer())

    refused(answer, 429, "code_too_soon")
    assert int(answer["Retry-After"]) >= 1


V3_ASKS = ["withdrawal_locked", "cashier_locked", "documents_expired", "PaymentAgentJustification"]
REST_ASKS = ["WalletFundsInsufficient", "ClientWithdrawDisabled", "DailyWithdrawalAmountLimit", "NoClientWallet"]


@pytest.mark.parametrize(
    ("face", "obstacle"), [*[(V3, status) for status in V3_ASKS], *[(REST, code) for code in REST_ASKS]]
)
def test_why_deriv_does_not_let_them_withdraw_is_told_in_words(face, obstacle, at_deriv):
    caller = Withdrawer(face)
    if face is V3:
        at_deriv.customer(status=[obstacle])
    else:
        at_deriv.arm("error", "code", platform="rest", code=obstacle, count=1)
    quote = caller.offer()

    with nothing_moves(at_deriv):
        answer = caller.verify(quote)

    refused(answer, 422, "withdrawal_refused")
    words = {"WalletFundsInsufficient": "balance", "PaymentAgentJustification": "why", "documents_expired": "documents"}
    assert words.get(obstacle, "Deriv") in answer.json()["detail"]
    assert not at_deriv.simulator.codes.sent


@faces
@pytest.mark.parametrize("fault", ["lost_answer_before_effect", "http_500_before", "wrong_response_before", "down"])
def test_a_deriv_that_does_not_answer_is_503_and_the_quote_is_still_good(face, fault, at_deriv):
    caller = Withdrawer(face)
    quote = caller.offer()
    at_deriv.arm(fault, "connect" if fault == "down" else "code", platform=face.platform, count=1)

    with nothing_moves(at_deriv):
        refused(caller.verify(quote), 503, "deriv_unavailable")

    at_deriv.simulator.faults.clear()
    assert caller.verify(quote).status_code == 202


@faces
def test_a_login_whose_token_is_gone_has_to_be_bound_again(face, at_deriv):
    caller = Withdrawer(face)
    quote = caller.offer()
    caller.bind("")
    with nothing_moves(at_deriv):
        refused(caller.verify(quote), 409, "deriv_login_missing")

    caller.bind("revoked-at-deriv")
    before, books = everything(), at_deriv.simulator.control.books()
    refused(caller.verify(quote), 422, "deriv_token_refused")
    assert everything() | {"events": 0} == before | {"events": 0}, "but for the notice that the login is lost"
    assert at_deriv.simulator.control.books() == books
    assert not at_deriv.simulator.codes.sent


@faces
def test_a_token_of_somebody_else_at_deriv_sends_no_code(face, at_deriv):
    caller = Withdrawer(face)
    caller.bind(BOB[face.platform].token)
    quote = caller.offer()

    with nothing_moves(at_deriv):
        refused(caller.verify(quote), 422, "withdrawal_refused")

    assert not at_deriv.simulator.codes.sent


# --- what a code leads to ---------------------------------------------------------------------------------------------


@pytest.fixture
def callbacks(mpesa_simulator, live_server, settings):
    """M-Pesa's results reach us."""
    settings.MPESA_CALLBACK_BASE_URL = live_server.url
    return mpesa_simulator


@faces
def test_with_the_right_code_dollars_come_and_the_own_phone_is_paid(face, at_deriv, callbacks):
    caller = Withdrawer(face)
    callbacks.set_customer(caller.customer.phone.number)
    quote, code = caller.coded(at_deriv)

    id = caller.withdrawn(quote, code)
    drive(id, S.COMPLETED)

    told = caller.get(f"transactions/{id}").json()
    assert [step["status"] for step in told["timeline"]] == [
        "CREATED", "DERIV_DEBIT_SENT", "DERIV_DEBITED", "RATE_LOCKED", "MPESA_DISBURSING", "COMPLETED",
    ]  # fmt: skip
    assert (told["payout"]["amount"], told["locked_rate"], told["failure"]) == ("1270.00", "127.0395", None)
    assert [(m["kind"], m["amount"]) for m in at_deriv.simulator.control.books()] == [("withdrawal", "10.00")]
    paid = [(m["to"], float(m["amount"])) for m in callbacks.books.movements if m["to"] != "safaricom"]  # its fee
    assert paid == [(caller.customer.phone.number, 1270.0)]
    with snapshot():
        assert verify_ledger().findings == []


def nothing_came_of(id, at_deriv, words="code", movements=0):
    """It failed in the customer's words, and nothing is left of it anywhere: the code last of all."""
    row = models.Transaction.objects.get(pk=id)
    assert (row.status, row.next_step_at, row.confirmed_at) == (S.FAILED, None, None)
    assert words in row.failure_detail
    assert len(at_deriv.simulator.control.books()) == movements
    assert not LedgerEntry.objects.filter(transaction_id=id).exists()
    assert not models.FloatReservation.objects.filter(pk=id, released_at=None).exists()
    assert DerivTransfer.objects.get(transaction_id=id).verification_code == ""


def a_wrong_one(caller, at_deriv):
    quote, code = caller.coded(at_deriv)
    return quote, code[:-1] + ("1" if code[-1] == "0" else "0")


def an_expired_one(caller, at_deriv):
    quote, code = caller.coded(at_deriv)
    at_deriv.simulator.clock.advance(3601)
    return quote, code


def somebody_elses(caller, at_deriv):
    _, code = Withdrawer(BOB[caller.face.platform]).coded(at_deriv)
    return caller.offer(), code


def one_of_the_other_platforms_form(caller, at_deriv):
    quote, _ = caller.coded(at_deriv)
    return quote, "123456" if caller.face is V3 else "abCD1234"


@faces
@pytest.mark.parametrize("bad", [a_wrong_one, an_expired_one, somebody_elses, one_of_the_other_platforms_form])
def test_a_code_that_is_not_good_ends_the_withdrawal_with_the_reason(face, bad, at_deriv):
    caller = Withdrawer(face)
    quote, code = bad(caller, at_deriv)

    id = caller.withdrawn(quote, code)
    drive(id, S.FAILED)

    nothing_came_of(id, at_deriv)
    told = caller.get(f"transactions/{id}").json()
    assert [step["status"] for step in told["timeline"]] == ["CREATED", "DERIV_DEBIT_SENT", "FAILED"]
    assert "code" in told["failure"]["detail"]
    assert told["expected_by"] is None
    refused(caller.withdraw(quote, code), 409, "quote_used")
    again, good = caller.coded(at_deriv)  # a new quote and a new code, and all is well
    drive(caller.withdrawn(again, good), S.RATE_LOCKED, S.MPESA_DISBURSING, S.DERIV_DEBITED)


@faces
def test_a_code_is_good_for_one_withdrawal(face, at_deriv):
    caller = Withdrawer(face)
    quote, code = caller.coded(at_deriv)
    drive(caller.withdrawn(quote, code), S.DERIV_DEBITED, S.RATE_LOCKED, S.MPESA_DISBURSING)

    id = caller.withdrawn(caller.offer(), code)
    drive(id, S.FAILED)

    nothing_came_of(id, at_deriv, movements=1)


def test_a_code_on_rest_is_good_for_its_own_amount_alone(at_deriv):
    caller = Withdrawer(REST)
    _, code = caller.coded(at_deriv, "5.00")

    id = caller.withdrawn(caller.offer("50.00"), code)
    drive(id, S.FAILED)

    nothing_came_of(id, at_deriv)


@faces
def test_a_balance_that_is_too_low_ends_it_with_the_reason(face, at_deriv):
    caller = Withdrawer(face)
    quote, code = caller.coded(at_deriv, "60.00")  # of 50

    id = caller.withdrawn(quote, code)
    drive(id, S.FAILED)

    nothing_came_of(id, at_deriv, words="balance")


@faces
def test_a_token_that_is_gone_before_deriv_was_asked_ends_it_and_the_code_is_wiped(face, at_deriv):
    caller = Withdrawer(face)
    quote, code = caller.coded(at_deriv)
    id = caller.withdrawn(quote, code)
    caller.bind("")

    row = drive(id, S.EXPIRED)

    assert row.failure_code == "login_unbound"
    assert caller.get(f"transactions/{id}").json()["failure"]["detail"].startswith("Your Deriv account is no longer")
    assert not at_deriv.simulator.control.books()
    assert not models.FloatReservation.objects.filter(released_at=None).exists()
    assert DerivTransfer.objects.get().verification_code == ""


@one_writer
@faces
def test_of_two_withdrawals_at_once_for_one_balance_one_is_debited(face, at_deriv):
    caller = Withdrawer(face)
    codes = [caller.coded(at_deriv, "30.00") for _ in range(2)]  # of 50; on REST the second code replaces the first
    ids = [caller.withdrawn(quote, code) for quote, code in codes]

    at_once(*[lambda id=id: drive(id, S.FAILED, S.RATE_LOCKED, S.MPESA_DISBURSING) for id in ids])

    statuses = [models.Transaction.objects.get(pk=id).status for id in ids]
    assert statuses.count(S.FAILED) == 1
    assert [(m["kind"], m["amount"]) for m in at_deriv.simulator.control.books()] == [("withdrawal", "30.00")]
    assert at_deriv.simulator.bank.accounts["CR100001"].balance == 20_00
    nothing_came_of(ids[statuses.index(S.FAILED)], at_deriv, "balance" if face is V3 else "code", movements=1)


# --- what nobody may read ---------------------------------------------------------------------------------------------


@faces
def test_code_token_and_phone_stand_in_no_log_line_answer_event_or_plain_column(face, at_deriv, callbacks, caplog):
    caplog.set_level(logging.DEBUG)
    caller = Withdrawer(face)
    phone = caller.customer.phone.number
    good, bad = caller.coded(at_deriv), a_wrong_one(caller, at_deriv)
    good = caller.coded(at_deriv) if face is REST else good  # the newest is the good one
    answers = [caller.withdraw(*bad), caller.withdraw(*good), caller.withdraw(*good), caller.withdraw("no", good[1])]
    ids = [answer.json()["transaction"]["id"] for answer in answers[:2]]
    drive(ids[0], S.FAILED)
    caller.bind("secret-dead-token")
    answers += [caller.verify(caller.offer()), caller.get("transactions"), caller.get(f"transactions/{ids[1]}")]
    drive(ids[1], S.FAILED)  # by its dead token
    caller.bind(face.token)
    drive(caller.withdrawn(*caller.coded(at_deriv)), S.COMPLETED)
    codes = {code.value for code in at_deriv.simulator.codes.sent} | {bad[1]}

    told = "\n".join([caplog.text, *(answer.content.decode() for answer in answers)])
    secrets = [*codes, face.token, "secret-dead-token", phone, f"+{phone}", f"0{phone[3:]}", "jane@example.com"]
    assert caplog.records
    assert DomainEvent.objects.exists()
    for secret in secrets:
        assert secret not in told
        assert stored_with(secret) == []
    models.Quote.objects.update(agent=bad[1])
    assert stored_with(bad[1]) == ["quotes.agent"] * models.Quote.objects.count()  # it would have been seen
