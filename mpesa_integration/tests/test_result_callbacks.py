"""Results, time-out notices, confirmations and balances at their URLs: what they claim, and what they start."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections
from django.test import Client

from mpesa_integration import models
from mpesa_integration.domain.callback import RESULT_OF, CallbackKind
from mpesa_integration.domain.request import callback_token
from mpesa_integration.facade import mpesa
from mpesa_integration.tests.factories import (
    a_callback,
    a_result,
    a_stored_leg,
    a_stored_request,
    an_accepted_leg,
    conclude,
    kes,
    parameters,
    said,
    server_database,
    stored,
)
from mpesa_integration.tests.test_callbacks import DEEP, audited, events
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.outcome import Done
from shared_kernel.domain.requests import Blame, Leg, RequestStatus
from shared_kernel.infrastructure.encryption import blind_index

pytestmark = pytest.mark.django_db(transaction=True)

RECEIPT = "UKV7RT61SV"
LEGS: dict[Leg, dict[str, Any]] = {
    Leg.B2C_PAYOUT: {},
    Leg.B2C_REFUND: {},
    Leg.REVERSAL: {"about": RECEIPT},
    Leg.STATUS_QUERY: {"about": "a" * 32},
}
legs = pytest.mark.parametrize("leg", LEGS)


@pytest.fixture(autouse=True)
def _addresses(settings):
    settings.MPESA_CALLBACK_ALLOWED_IPS = ["127.0.0.1"]
    settings.TRUSTED_PROXY_COUNT = 0


def token_of(request, kind):
    return callback_token(blind_index, request.id, kind)


def post(request, body, *, late=False, kind=None, token=None):
    kind = kind or (RESULT_OF[request.leg].timeout if late else RESULT_OF[request.leg])
    token = token or token_of(request, kind)
    return Client().post(f"/cb/{kind}/{token}", body, content_type="application/json")


def an_attempt(leg, **given):
    return an_accepted_leg(leg, **(LEGS[leg] | given))


@legs
def test_a_result_is_a_claim_of_its_own_attempt_and_wakes_its_transaction(leg):
    request = an_attempt(leg)

    answer = post(request, a_result(request))

    assert (answer.status_code, answer.json()) == (200, {"ResultCode": 0, "ResultDesc": "Accepted"})
    (claim,) = stored(request).claims
    assert (claim.result_code, claim.amount, claim.agrees) == ("0", kes(1500), True)
    assert claim.receipt == "SG632NMUAB"
    (event,) = events()
    assert (event.aggregate_id, event.payload["request_id"]) == (request.transaction_id, str(request.id))
    assert stored(request).status is RequestStatus.ACCEPTED  # a claim decides nothing


@legs
def test_a_result_before_the_answer_agrees_for_its_token_names_the_attempt(leg):
    request = a_stored_leg(leg, **LEGS[leg])

    post(request, a_result(request))

    assert [claim.agrees for claim in stored(request).claims] == [True]
    assert stored(request).conversation_id == ""


@legs
def test_result_and_time_out_urls_are_two_secrets_and_neither_serves_the_other(leg):
    request = an_attempt(leg)
    kind = RESULT_OF[leg]

    assert token_of(request, kind) != token_of(request, kind.timeout)
    assert post(request, a_result(request), kind=kind, token=token_of(request, kind.timeout)).status_code == 404
    assert post(request, a_result(request), kind=kind.timeout, token=token_of(request, kind)).status_code == 404
    others = set(CallbackKind) - {kind}
    assert {post(request, a_result(request), kind=k, token=token_of(request, kind)).status_code for k in others} == {
        404
    }
    assert stored(request).claims == []
    assert events() == []
    assert set(audited("mpesa.callback_refused")) == {"no_attempt"}


@legs
@pytest.mark.parametrize("form", ["flat", "enveloped"])
def test_a_time_out_notice_is_no_failure_and_starts_the_asking(leg, form):
    request = an_attempt(leg)
    notice = {"ConversationID": request.conversation_id, "ResultCode": 1, "ResultDesc": "timed out"}

    assert (
        post(request, json.dumps({"Result": notice} if form == "enveloped" else notice), late=True).status_code == 200
    )

    (claim,) = stored(request).claims
    assert (claim.result_code, claim.agrees, claim.blame) == ("timeout", True, Blame.NONE)
    assert len(events()) == 1


def test_the_same_bytes_as_a_notice_and_as_a_result_are_two_claims():
    request = an_attempt(Leg.B2C_PAYOUT)
    body = a_result(request, code=1)

    post(request, body, late=True)
    post(request, body)

    assert [claim.result_code for claim in stored(request).claims] == ["timeout", "1"]
    assert len(events()) == 2


@pytest.mark.parametrize(
    ("code", "blame"),
    [
        (1, Blame.FLOAT),
        ("2040", Blame.RECIPIENT),
        ("SFC_IC0003", Blame.RECIPIENT),
        (25, Blame.OURS),
        (15, Blame.NONE),
        (17, Blame.NONE),
        (77, Blame.NONE),
    ],
)
def test_a_payouts_failure_says_whose_matter_it_is(code, blame):
    request = an_attempt(Leg.B2C_PAYOUT)

    post(request, a_result(request, code=code))

    (claim,) = stored(request).claims
    assert (claim.result_code, claim.blame, claim.agrees) == (str(code), blame, True)
    assert (claim.amount, claim.receipt) == (None, "")


def test_an_answer_about_a_payment_carries_fate_receipt_and_fee():
    request = an_attempt(Leg.STATUS_QUERY)

    post(request, a_result(request))

    (claim,) = stored(request).claims
    assert (claim.fate, claim.receipt, claim.fee, claim.is_done) == ("Completed", "SG632NMUAB", kes(5), True)


@pytest.mark.parametrize("fate", ["Declined", "Cancelled", "Expired"])
def test_an_answer_that_it_was_never_made_is_a_proof_of_death_only_for_the_payment_asked_about(fate):
    own, other = an_attempt(Leg.STATUS_QUERY), an_attempt(Leg.STATUS_QUERY)
    facts = said(own) | {"TransactionStatus": fate}

    post(own, a_result(own, **parameters(**facts)))
    post(other, a_result(other, **parameters(**(facts | {"OriginatorConversationID": "b" * 32}))))

    assert [claim.is_dead for claim in stored(own).claims] == [True]
    assert [claim.is_dead for claim in stored(other).claims] == [False]


def test_a_payment_asked_about_by_its_receipt_may_have_that_receipt_here():
    paid = a_stored_request()
    conclude(paid, Done(RECEIPT))
    question = an_attempt(Leg.STATUS_QUERY, about=RECEIPT, transaction=paid.transaction_id)

    post(question, a_result(question))

    assert [claim.is_done for claim in stored(question).claims] == [True]


def test_a_payout_asked_about_twice_is_proven_twice_by_one_receipt():
    payout = an_attempt(Leg.B2C_PAYOUT)
    post(payout, a_result(payout))
    conclude(payout, Done("SG632NMUAB"))

    for attempt in (1, 2):
        question = an_attempt(
            Leg.STATUS_QUERY, about=payout.reference, transaction=payout.transaction_id, attempt=attempt
        )
        post(question, a_result(question))
        assert [claim.is_done for claim in stored(question).claims] == [True]


# --- lies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "forged",
    [
        {"TransactionAmount": 1501},
        {"TransactionAmount": "1500.001"},
        {"TransactionAmount": True},
        {"TransactionAmount": None},
        {"TransactionReceipt": "short"},
        {"TransactionReceipt": None},
        {"ReceiverPartyPublicName": "254705912645 - JOHN DOE"},
        {"ReceiverPartyPublicName": "0705912645 - JOHN DOE"},
    ],
    ids=str,
)
def test_a_forged_success_disagrees_is_audited_and_asked_about(forged):
    request = an_attempt(Leg.B2C_PAYOUT)

    assert post(request, a_result(request, **parameters(**(said(request) | forged)))).status_code == 200

    assert [claim.agrees for claim in stored(request).claims] == [False]
    assert audited("mpesa.callback_suspect") == ["disagrees"]
    assert len(events()) == 1
    assert stored(request).receipt == ""


@pytest.mark.parametrize("name", ["2547 ***** 126", "94c2c311d522da950619227b3361752a", "", "JOHN DOE", 5])
def test_a_masked_receiver_is_not_compared(name):
    request = an_attempt(Leg.B2C_PAYOUT)

    post(request, a_result(request, **parameters(**(said(request) | {"ReceiverPartyPublicName": name}))))

    assert [claim.agrees for claim in stored(request).claims] == [True]


@legs
@pytest.mark.parametrize("ids", [{"ConversationID": "AG_another"}, {"ConversationID": "AG_x", "ResultCode": 2040}])
def test_a_forged_end_without_the_attempts_ids_disagrees(leg, ids):
    request = an_attempt(leg)

    post(request, a_result(request, **ids))

    assert [claim.agrees for claim in stored(request).claims] == [False]


def test_a_forged_failure_and_the_true_success_are_two_claims_and_neither_decides():
    request = an_attempt(Leg.B2C_PAYOUT)

    post(request, a_result(request, code=2040))
    post(request, a_result(request))

    assert [(claim.result_code, claim.agrees) for claim in stored(request).claims] == [("2040", True), ("0", True)]
    assert stored(request).status is RequestStatus.ACCEPTED
    assert len(events()) == 2


def test_a_receipt_that_was_seen_on_another_payout_does_not_agree_twice():
    first, second = an_attempt(Leg.B2C_PAYOUT), an_attempt(Leg.B2C_PAYOUT, phone=Phone("254711000001"))

    post(first, a_result(first))
    post(second, a_result(second))

    assert [claim.agrees for claim in stored(first).claims] == [True]
    assert [claim.agrees for claim in stored(second).claims] == [False]


def test_more_messages_to_follow_is_no_end():
    request = an_attempt(Leg.B2C_PAYOUT)

    assert post(request, a_result(request, ResultType="1")).status_code == 200

    assert stored(request).claims == []
    assert events() == []
    assert models.MpesaCallback.objects.get().verdict == "not_final"


def test_a_parameter_that_stands_twice_with_two_values_says_nothing():
    request = an_attempt(Leg.B2C_PAYOUT)
    pairs = parameters(**said(request))["ResultParameters"]["ResultParameter"]
    twice = [*pairs, {"Key": "Transaction Amount", "Value": 9}]

    post(request, a_result(request, ResultParameters={"ResultParameter": twice}))

    assert [claim.amount for claim in stored(request).claims] == [None]
    assert [claim.agrees for claim in stored(request).claims] == [False]


def test_one_bare_parameter_is_read_like_a_list_of_one():
    request = an_attempt(Leg.B2C_PAYOUT)

    bare = {"Key": "TransactionAmount", "Value": "1500.00"}

    post(request, a_result(request, ResultParameters={"ResultParameter": bare}))

    assert [claim.amount for claim in stored(request).claims] == [kes(1500)]


@server_database
def test_fifty_equal_results_at_once_are_one_claim_counted_fifty_times():
    request, start = an_attempt(Leg.B2C_PAYOUT), threading.Barrier(50)
    body = a_result(request)

    def go(_):
        start.wait()
        try:
            return post(request, body).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(50) as threads:
        statuses = list(threads.map(go, range(50)))

    assert statuses == [200] * 50
    assert models.MpesaCallback.objects.get().times == 50
    assert len(events()) == 1
    assert len(stored(request).claims) == 1


# --- what can't be read ----------------------------------------------------------------------------------------------

HOSTILE = [
    b"",
    b"<html><body>hello</body></html>",
    b"[]",
    b"null",
    b"\xff\xfe\x00",
    DEEP[:60_000],
    b"[" * 10_000,
    b'{"Result": {"ResultCode": 1, "ResultCode": 0, "ConversationID": "AG"}}',
    b'{"Result": {"ResultCode": NaN, "ConversationID": "AG"}}',
]
BAD_RESULTS = [
    b"{}",
    b'{"Result": null}',
    b'{"Result": []}',
    b'{"Result": [{}, {}]}',
    b'{"Result": {}}',
    b'{"Result": {"ResultCode": 0}}',
    b'{"Result": {"ResultCode": true, "ConversationID": "AG"}}',
    b'{"Result": {"ResultCode": "0", "ConversationID": 5}}',
    b'{"Result": {"ResultCode": [], "ConversationID": "AG"}}',
    b'{"Result": {"ResultCode": 1, "Result Code": 0, "ConversationID": "AG"}}',
    b'{"Result": {"ResultCode": ' + b"9" * 5000 + b', "ConversationID": "AG"}}',
]


@legs
@pytest.mark.parametrize("body", HOSTILE + BAD_RESULTS, ids=lambda body: body[:60].decode("latin-1"))
def test_a_result_that_cannot_be_read_is_stored_and_answered_and_claims_nothing(leg, body):
    request = an_attempt(leg)

    assert post(request, body).status_code == 200

    assert models.MpesaCallback.objects.get().verdict == "unreadable"
    assert stored(request).claims == []
    assert events() == []
    assert audited("mpesa.callback_suspect") == ["unreadable"]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: body[:60].decode("latin-1"))
def test_a_notice_that_cannot_be_read_claims_nothing(body):
    request = an_attempt(Leg.B2C_PAYOUT)

    assert post(request, body, late=True).status_code == 200

    assert stored(request).claims == []
    assert events() == []


@legs
@pytest.mark.parametrize(
    "given",
    [None, [], {}, "text", 5, {"ResultParameter": None}, {"ResultParameter": [5, {}, {"Key": 5}, {"Key": "a"}]}],
)
def test_a_success_without_its_parameters_is_no_success_of_a_payment(leg, given):
    request = an_attempt(leg)

    assert post(request, a_result(request, ResultParameters=given)).status_code == 200

    agrees = leg is Leg.REVERSAL  # moved by its ids alone: Transaction Status tells what became of the payment
    assert [claim.agrees for claim in stored(request).claims] == [agrees]


@pytest.mark.parametrize("kind", sorted(set(CallbackKind) - {CallbackKind.STK}))
def test_a_mebibyte_is_refused_unread_on_every_kind(kind):
    answer = Client().post(f"/cb/{kind}/{'0' * 40}", b" " * 1024 * 1024, content_type="application/json")

    assert answer.status_code == 413
    assert models.MpesaCallback.objects.count() == 0
    assert audited("mpesa.callback_refused") == ["too_large"]


# --- C2B -------------------------------------------------------------------------------------------------------------


def a_confirmation(reference, amount: object = "1500.00", receipt: object = RECEIPT, **fields):
    body = {
        "TransactionType": "Pay Bill", "TransID": receipt, "TransTime": "20260706121325", "TransAmount": amount,
        "BusinessShortCode": mpesa.shortcode(), "BillRefNumber": reference, "MSISDN": "2547 ***** 126",
    }  # fmt: skip
    return json.dumps(body | fields)


def confirm(body, kind=CallbackKind.CONFIRMATION, shortcode=None):
    token = callback_token(blind_index, shortcode or mpesa.shortcode(), kind)
    return Client().post(f"/cb/{kind}/{token}", body, content_type="application/json")


def test_a_confirmation_is_a_claim_of_the_push_with_its_reference_and_wakes_it():
    request = a_stored_request()

    answer = confirm(a_confirmation(request.reference.lower()))

    assert (answer.status_code, answer.json()["ResultCode"]) == (200, 0)
    (claim,) = stored(request).claims
    assert (claim.result_code, claim.amount, claim.receipt, claim.agrees) == ("0", kes(1500), RECEIPT, True)
    assert [event.aggregate_id for event in events()] == [request.transaction_id]
    assert stored(request).status is RequestStatus.SENDING


def test_a_confirmation_beside_its_callback_is_the_same_payment():
    request = a_stored_request()

    Client().post(
        f"/cb/s/{callback_token(blind_index, request.id)}",
        a_callback(request, receipt=RECEIPT),
        content_type="application/json",
    )
    confirm(a_confirmation(request.reference))

    assert [claim.agrees for claim in stored(request).claims] == [True, True]


@pytest.mark.parametrize("changed", [{"amount": "1501.00"}, {"BusinessShortCode": "600000"}])
def test_a_confirmation_of_something_else_disagrees(changed):
    request = a_stored_request()

    confirm(a_confirmation(request.reference, **changed))

    assert [claim.agrees for claim in stored(request).claims] == [False]
    assert audited("mpesa.callback_suspect") == ["disagrees"]


@pytest.mark.parametrize("reference", ["NOBODYSREFNO", "", "x" * 5000, 5, None, "'; DROP TABLE users"])
def test_a_confirmation_without_an_attempt_is_stored_and_audited(reference):
    assert confirm(a_confirmation(reference)).status_code == 200

    row = models.MpesaCallback.objects.get()
    assert (row.verdict, row.receipt, row.amount) == ("unmatched", RECEIPT, 150_000)
    assert audited("mpesa.callback_suspect") == ["unmatched"]
    assert events() == []


@pytest.mark.parametrize(
    "body",
    [
        *HOSTILE,
        b"{}",
        b'{"TransID": 5, "TransAmount": "1.00", "BillRefNumber": "A"}',
        b'{"TransID": "UKV7RT61SV", "TransAmount": "1E+999999999", "BillRefNumber": "A"}',
        b'{"TransID": "UKV7RT61SV", "TransAmount": -5, "BillRefNumber": "A"}',
    ],
    ids=lambda body: body[:60].decode("latin-1"),
)
def test_a_confirmation_that_cannot_be_read_is_stored_and_audited(body):
    assert confirm(body).status_code == 200

    assert models.MpesaCallback.objects.get().verdict == "unreadable"
    assert audited("mpesa.callback_suspect") == ["unreadable"]


def test_a_payout_is_never_confirmed_by_what_came_in():
    request = an_attempt(Leg.B2C_PAYOUT)

    confirm(a_confirmation(request.reference))

    assert stored(request).claims == []


@pytest.mark.parametrize(
    "body", [*HOSTILE, b"{}", b'{"TransID": "UKV7RT61SV"}'], ids=lambda body: body[:60].decode("latin-1")
)
def test_a_validation_is_stored_and_accepted_whatever_it_holds(body):
    answer = confirm(body, CallbackKind.VALIDATION)

    assert (answer.status_code, answer.json()) == (200, {"ResultCode": "0", "ResultDesc": "Accepted"})
    assert models.MpesaCallback.objects.get().verdict == "stored"
    assert events() == []
    assert audited("mpesa.callback_suspect") == []


def test_the_token_of_another_shortcode_or_kind_is_404():
    token = callback_token(blind_index, mpesa.shortcode(), CallbackKind.VALIDATION)

    assert confirm(a_confirmation("A"), shortcode="600000").status_code == 404
    assert Client().post(f"/cb/c/{token}", a_confirmation("A"), content_type="application/json").status_code == 404
    assert Client().post("/cb/c/é", a_confirmation("A"), content_type="application/json").status_code == 404
    assert set(audited("mpesa.callback_refused")) == {"no_attempt"}
