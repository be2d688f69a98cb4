"""Calls in the initiator's name against the simulator, over real HTTP, and its callbacks back to us."""

import json
import re
import time
from dataclasses import replace
from datetime import timedelta

import httpx
import pytest

from mpesa_integration import models
from mpesa_integration.facade import mpesa
from mpesa_integration.infrastructure import daraja, http
from mpesa_integration.tests.factories import (
    PHONE,
    a_leg,
    a_stored_leg,
    a_stored_request,
    conclude,
    kes,
    server_database,
    stored,
)
from mpesa_integration.tests.test_codes import needs_contract, sample
from mpesa_integration.tests.test_daraja import bare, until
from mpesa_integration.tests.test_result_callbacks import LEGS, RECEIPT
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import Blame, Leg, RequestStatus
from shared_kernel.infrastructure.persistence import now, unit_of_work

pytestmark = pytest.mark.django_db(transaction=True)

CALL_OF = {Leg.B2C_PAYOUT: "b2c", Leg.B2C_REFUND: "b2c", Leg.REVERSAL: "reversal", Leg.STATUS_QUERY: "status"}
legs = pytest.mark.parametrize("leg", LEGS)


def send(request, within: float = 10):
    return mpesa.send(request, give_up_at=time.monotonic() + within)


def sent(leg, **given):
    """A stored attempt that the simulator took."""
    request = a_stored_leg(leg, **(LEGS[leg] | given))
    outcome = send(request)
    assert isinstance(outcome, Accepted), outcome
    conclude(request, outcome)
    return request


@pytest.fixture
def provider(mpesa_simulator, live_server, settings):
    settings.MPESA_CALLBACK_BASE_URL = live_server.url
    mpesa_simulator.drift = "mixed"
    mpesa_simulator.result_s = 0.02
    yield mpesa_simulator
    heard = -1
    while heard != (heard := len(mpesa_simulator.callbacks.answered)):  # what comes after the test finds no database
        time.sleep(0.05)


def claims(request, number=1):
    return until(lambda: (found := stored(request).claims) and len(found) >= number and found)


# --- what is said, and what an answer is taken for -------------------------------------------------------------------


@needs_contract
@pytest.mark.parametrize(
    ("leg", "given", "name", "path"),
    [
        (Leg.B2C_PAYOUT, {}, "b2c_v3_request", "/mpesa/b2c/v3/paymentrequest"),
        (Leg.B2C_REFUND, {}, "b2c_v3_request", "/mpesa/b2c/v3/paymentrequest"),
        (Leg.REVERSAL, {"about": RECEIPT}, "reversal_request", "/mpesa/reversal/v1/request"),
        (
            Leg.STATUS_QUERY,
            {"about": RECEIPT},
            "transaction_status_request_by_receipt",
            "/mpesa/transactionstatus/v1/query",
        ),
        (
            Leg.STATUS_QUERY,
            {"about": "a" * 32},
            "transaction_status_request_by_originator_id",
            "/mpesa/transactionstatus/v1/query",
        ),
        (None, {}, "account_balance_request", "/mpesa/accountbalance/v1/query"),
    ],
)
def test_a_request_has_the_samples_fields_to_the_letter(mpesa_simulator, monkeypatch, leg, given, name, path):
    said = []

    def heard(*call):
        said.append(call)
        return http.send(*call)

    monkeypatch.setattr(daraja, "send", heard)
    outcome = mpesa.ask_balance("600992") if leg is None else send(a_leg(leg, **given))

    assert isinstance(outcome, Accepted), outcome
    where, content = next((call[2], call[4]) for call in said if call[1] == "POST")
    body, example = json.loads(content), json.loads(sample(f"{name}.json"))
    assert where == path
    assert body.keys() == example.keys()
    assert all(isinstance(value, str) for value in body.values())
    fixed = {"CommandID", "IdentifierType", "RecieverIdentifierType"} & example.keys()
    assert {key: body[key] for key in fixed} == {key: example[key] for key in fixed}
    assert body["ResultURL"] != body["QueueTimeOutURL"]
    texts = {"Remarks", "Occasion", "Occassion"} & body.keys()
    assert all(re.fullmatch(r"[A-Za-z0-9 -]+", body[key]) for key in texts)


@legs
@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({"fault": "lost_answer_before_effect"}, Unknown),
        ({"fault": "lost_answer_after_effect"}, Unknown),
        ({"fault": "http_500_before"}, Unknown),
        ({"fault": "http_500_after"}, Unknown),
        ({"fault": "waf_html"}, Unknown),
        ({"fault": "rate_limited"}, NotSent),
        ({"fault": "answer_with", "body": {"ResponseCode": "0"}}, Unknown),
        ({"fault": "answer_with", "body": {"ResponseCode": "1", "ConversationID": "AG_1"}}, Unknown),
        ({"fault": "answer_with", "body": {"ResponseCode": "0", "ConversationID": 5}}, Unknown),
        ({"fault": "answer_with", "body": ""}, Unknown),
        ({"fault": "answer_with", "body": "[" * 10_000}, Unknown),
        ({"fault": "answer_with", "status": 429, "body": ""}, NotSent),
        ({"fault": "answer_with", "status": 401, "body": ""}, NotSent),
    ],
    ids=str,
)
def test_whatever_is_not_surely_yes_or_no_is_unknown_and_is_sent_once(mpesa_simulator, leg, order, expected):
    mpesa_simulator.faults.arm({"call": CALL_OF[leg], **order})
    request = a_leg(leg, **LEGS[leg])

    assert isinstance(send(request), expected)
    token_was_refused = order.get("status") == 401
    assert mpesa_simulator.calls[CALL_OF[leg]] == (2 if token_was_refused else 1)


def test_an_acceptance_of_another_payment_says_nothing_about_ours(mpesa_simulator):
    body = {"ResponseCode": "0", "ConversationID": "AG_1", "OriginatorConversationID": "another"}
    mpesa_simulator.faults.arm({"call": "b2c", "fault": "answer_with", "body": body})

    assert bare(send(a_leg(Leg.B2C_PAYOUT))) == Unknown("another_request")


@server_database
def test_a_repeated_payout_is_unknown_never_refused_and_paid_once(provider):
    request = sent(Leg.B2C_PAYOUT)

    assert bare(send(request)) == Unknown("500.002.1001")
    until(lambda: provider.books.movements)
    time.sleep(0.1)
    assert [m["amount"] for m in provider.books.movements if m["kind"] == "b2c"] == ["1500.00"]


@legs
def test_past_its_time_nothing_is_written(mpesa_simulator, leg):
    assert bare(send(a_leg(leg, **LEGS[leg]), within=-1)) == NotSent("send_before_passed")
    assert CALL_OF[leg] not in mpesa_simulator.calls


@legs
def test_no_call_is_made_while_a_transaction_is_open(mpesa_simulator, leg):
    request = a_leg(leg, **LEGS[leg])
    with unit_of_work(), pytest.raises(RuntimeError, match="transaction"):
        send(request)
    assert mpesa_simulator.calls == {}


@server_database
def test_no_secret_and_no_number_is_logged(provider, caplog, settings):
    caplog.set_level("DEBUG")
    request = sent(Leg.B2C_PAYOUT)
    claims(request)

    for secret in (PHONE.number, settings.MPESA_INITIATOR_PASSWORD, "SecurityCredential", provider.token, "/cb/b/"):
        assert secret not in caplog.text


# --- and what comes back ---------------------------------------------------------------------------------------------


@server_database
def test_a_payout_is_paid_and_claimed_with_its_receipt(provider):
    request = sent(Leg.B2C_PAYOUT, amount=kes(1234))

    (claim,) = claims(request)

    (payment,) = [m for m in provider.books.movements if m["kind"] == "b2c"]
    assert (claim.result_code, claim.amount, claim.agrees) == ("0", kes(1234), True)
    assert (claim.receipt, payment["reference"]) == (payment["id"], request.reference)


@server_database
@pytest.mark.parametrize("drift", ["none", "old_keys", "repeated_key", "texts"])
def test_an_answer_about_a_payout_is_proof_of_it_however_it_is_spelt(provider, drift):
    provider.drift = drift
    payout = sent(Leg.B2C_PAYOUT)
    paid = claims(payout)[0]

    question = sent(Leg.STATUS_QUERY, about=payout.reference, transaction=payout.transaction_id)
    (claim,) = claims(question)

    assert (claim.is_done, claim.receipt, claim.amount, claim.fee) == (True, paid.receipt, kes(1500), kes(5))


@server_database
@pytest.mark.parametrize(("receives", "code"), [("unregistered", "2040"), ("over_wallet", "8"), ("over_day", "4")])
def test_a_refused_recipient_is_a_claim_and_dead_only_by_the_answer_of_a_question(provider, receives, code):
    provider.customers.at(PHONE.number).receives = receives
    payout = sent(Leg.B2C_PAYOUT)

    (claim,) = claims(payout)
    assert (claim.result_code, claim.blame, claim.agrees) == (code, Blame.RECIPIENT, True)
    assert stored(payout).status is RequestStatus.ACCEPTED

    question = sent(Leg.STATUS_QUERY, about=payout.reference, transaction=payout.transaction_id)
    assert [claim.is_dead for claim in claims(question)] == [True]


@server_database
def test_a_float_too_low_is_ours_and_waits(provider):
    provider.accounts.balances[f"{provider.b2c_shortcode}/utility"] = 0

    (claim,) = claims(sent(Leg.B2C_PAYOUT))

    assert (claim.result_code, claim.blame) == ("1", Blame.FLOAT)


@server_database
def test_a_payment_that_m_pesa_does_not_know_is_neither_made_nor_dead(provider):
    (claim,) = claims(sent(Leg.STATUS_QUERY, about="f" * 32))

    assert (claim.is_done, claim.is_dead, claim.result_code) == (False, False, "1")


@server_database
def test_a_time_out_notice_and_the_late_success_are_two_claims(provider):
    provider.faults.arm({"call": "b2c", "fault": "timeout_then_success", "after_s": 0.05})

    found = claims(sent(Leg.B2C_PAYOUT), 2)

    assert [claim.result_code for claim in found] == ["timeout", "0"]
    assert all(claim.agrees for claim in found)


@server_database
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_forged_failure_stands_beside_the_truth_and_the_question_decides(provider, when):
    provider.faults.arm({"call": "b2c", "fault": "forged_failure", "when": when})
    payout = sent(Leg.B2C_PAYOUT)

    assert {claim.result_code for claim in claims(payout, 2)} == {"2040", "0"}
    question = sent(Leg.STATUS_QUERY, about=payout.reference, transaction=payout.transaction_id)
    assert [claim.is_done for claim in claims(question)] == [True]


@server_database
def test_a_success_with_another_amount_disagrees(provider):
    provider.faults.arm({"call": "b2c", "fault": "wrong_amount", "amount": 9})

    assert [claim.agrees for claim in claims(sent(Leg.B2C_PAYOUT))] == [False]


@server_database
def test_an_answer_with_another_amount_tells_that_amount(provider):
    payout = sent(Leg.B2C_PAYOUT)
    claims(payout)
    provider.faults.arm({"call": "status", "fault": "wrong_amount"})

    (claim,) = claims(sent(Leg.STATUS_QUERY, about=payout.reference, transaction=payout.transaction_id))

    assert claim.is_done
    assert claim.amount == payout.amount + Money(1_00, Currency.KES)


@server_database
def test_a_result_that_overtakes_the_answer_is_there_when_it_comes(provider):
    provider.faults.arm({"call": "b2c", "fault": "callback_before_answer"})
    request = a_stored_leg(Leg.B2C_PAYOUT)

    outcome = send(request)

    assert [claim.agrees for claim in stored(request).claims] == [True]
    conclude(request, outcome)
    assert stored(request).conversation_id


@server_database
def test_a_lost_answer_still_leads_to_the_payout_by_its_own_url(provider):
    provider.faults.arm({"call": "b2c", "fault": "lost_answer_after_effect"})
    request = a_stored_leg(Leg.B2C_PAYOUT)
    conclude(request, send(request))

    assert (stored(request).status, stored(request).was_unknown) == (RequestStatus.UNKNOWN, True)
    assert [claim.agrees for claim in claims(request)] == [True]


@server_database
def test_a_locked_initiator_stops_itself(provider):
    provider.initiator.locked = True

    (claim,) = claims(sent(Leg.B2C_PAYOUT))

    assert (claim.result_code, claim.blame) == ("8006", Blame.CREDENTIAL)
    assert bare(send(a_stored_leg(Leg.B2C_PAYOUT))) == NotSent("initiator_stopped", 300, alert=True)


def a_deposit(provider, **given):
    """An STK push that was paid; its receipt."""
    request = a_stored_request(**given)
    conclude(request, mpesa.send(request, give_up_at=time.monotonic() + 10))
    receipt = until(lambda: [m["id"] for m in provider.books.movements if m["reference"] == request.reference])[0]
    return request, receipt


@server_database
def test_a_reversal_takes_a_payment_back_once_and_says_so_the_second_time(provider):
    deposit, receipt = a_deposit(provider)
    provider.accounts.balances[f"{provider.shortcode}/utility"] = 10_000

    first = sent(Leg.REVERSAL, about=receipt, transaction=deposit.transaction_id)
    (claim,) = claims(first)
    assert (claim.result_code, claim.amount, claim.agrees) == ("0", kes(1500), True)
    conclude(first, Done(""))
    second = sent(Leg.REVERSAL, about=receipt, transaction=deposit.transaction_id, attempt=2)

    assert [(claim.result_code, claim.agrees) for claim in claims(second)] == [("R000001", True)]
    assert len([m for m in provider.books.movements if m.get("kind") == "reversal"]) == 1


@server_database
def test_a_reversal_of_what_never_was_is_our_own_fault(provider):
    (claim,) = claims(sent(Leg.REVERSAL, about="UKV0000009"))

    assert (claim.result_code, claim.blame) == ("R000002", Blame.OURS)


@server_database
def test_a_deposit_is_proven_by_its_receipt(provider):
    deposit, receipt = a_deposit(provider)

    (claim,) = claims(sent(Leg.STATUS_QUERY, about=receipt, transaction=deposit.transaction_id))

    assert (claim.is_done, claim.receipt) == (True, receipt)


# --- balances, C2B, what a shortcode received ------------------------------------------------------------------------


@server_database
def test_a_balance_is_asked_for_and_kept(provider):
    assert isinstance(mpesa.ask_balance(provider.b2c_shortcode), Accepted)

    held = until(lambda: mpesa.balances(provider.b2c_shortcode))

    assert {name: amount for name, (amount, _) in held.items()} == {
        "Working Account": kes(1_000_000),
        "Float Account": kes(0),
        "Utility Account": kes(10_000_000),
        "Charges Paid Account": kes(0),
        "Organization Settlement Account": kes(0),
    }
    row = models.MpesaRequest.objects.get()
    assert (row.leg, row.transaction_id, row.amount, row.status) == ("account_balance", None, 0, "accepted")
    assert row.conversation_id
    assert models.MpesaCallback.objects.get().verdict == "agrees"


@server_database
def test_the_newest_balance_counts_and_a_failed_question_changes_none(provider):
    mpesa.ask_balance(provider.b2c_shortcode)
    until(lambda: mpesa.balances(provider.b2c_shortcode))
    provider.accounts.balances[f"{provider.b2c_shortcode}/charges_paid"] = -1540
    mpesa.ask_balance(provider.b2c_shortcode)
    until(lambda: mpesa.balances(provider.b2c_shortcode)["Charges Paid Account"][0] == kes(-1540))
    provider.faults.arm({"call": "balance", "fault": "result_with", "code": 17})

    mpesa.ask_balance(provider.b2c_shortcode)

    until(lambda: models.MpesaCallback.objects.count() == 3)
    assert models.MpesaBalance.objects.count() == 10


@pytest.mark.parametrize(
    ("fault", "status"),
    [("rate_limited", "not_sent"), ("lost_answer_before_effect", "unknown"), ("waf_html", "unknown")],
)
def test_a_balance_that_could_not_be_asked_for_is_written_down(mpesa_simulator, fault, status):
    mpesa_simulator.faults.arm({"call": "balance", "fault": fault})

    outcome = mpesa.ask_balance("600992")

    assert isinstance(outcome, NotSent | Unknown)
    row = models.MpesaRequest.objects.get()
    assert (row.status, row.code) == (status, outcome.code)


@server_database
def test_a_confirmation_and_the_callback_of_one_payment_are_two_claims_with_one_receipt(provider):
    assert isinstance(mpesa.register_urls(provider.shortcode), Done)

    deposit, receipt = a_deposit(provider)

    found = claims(deposit, 2)
    assert [(claim.result_code, claim.receipt, claim.agrees) for claim in found] == [("0", receipt, True)] * 2
    assert set(models.MpesaCallback.objects.values_list("kind", flat=True)) == {"s", "c"}


def test_urls_are_registered_once(mpesa_simulator):
    assert isinstance(mpesa.register_urls(mpesa_simulator.shortcode), Done)
    assert isinstance(mpesa.register_urls(mpesa_simulator.shortcode), Refused)


@server_database
@pytest.mark.parametrize("zone", ["utc", "eat"])
def test_everything_that_a_shortcode_received_is_found_whoever_paid_it(provider, zone):
    provider.pull_zone = zone
    deposit, receipt = a_deposit(provider)
    order = {"phone": PHONE.number, "amount": 77, "reference": "NOBODY"}
    httpx.post(f"{provider.base_url}/_control/payments", json=order).raise_for_status()
    until(lambda: len(provider.books.movements) == 2)

    found = mpesa.received(provider.shortcode, now() - timedelta(hours=1), now())

    assert not isinstance(found, Unreadable)
    assert {(payment.reference, payment.amount) for payment in found} == {
        (deposit.reference, kes(1500)),
        ("NOBODY", kes(77)),
    }
    assert receipt in {payment.receipt for payment in found}


@pytest.mark.parametrize("fault", ["waf_html", "rate_limited", "lost_answer_before_effect"])
def test_a_window_that_could_not_be_read_is_not_empty(mpesa_simulator, fault):
    mpesa_simulator.faults.arm({"call": "pull", "fault": fault})

    assert isinstance(mpesa.received(mpesa_simulator.shortcode, now() - timedelta(hours=1), now()), Unreadable)


def test_one_row_that_cannot_be_read_makes_the_window_unreadable(mpesa_simulator):
    row = {"transactionId": "UKV7RT61SV", "trxDate": "soon", "billreference": "A", "amount": "1"}
    page = {"ResponseCode": "1000", "Response": [[row]]}
    mpesa_simulator.faults.arm({"call": "pull", "fault": "answer_with", "body": page, "count": 1})

    assert mpesa.received(mpesa_simulator.shortcode, now() - timedelta(hours=1), now()) == Unreadable("row")


def test_a_refund_and_a_payout_of_one_transaction_have_ids_of_their_own(mpesa_simulator):
    payout = a_leg(Leg.B2C_PAYOUT)
    refund = a_leg(Leg.B2C_REFUND, transaction=payout.transaction_id)

    assert isinstance(send(payout), Accepted)
    assert isinstance(send(replace(refund, phone=Phone("254711000001"))), Accepted)
