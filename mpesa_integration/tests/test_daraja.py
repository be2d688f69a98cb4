"""The adapter against the simulator, over real HTTP: what each way a call can go is taken for."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections

from mpesa_integration import facade
from mpesa_integration.facade import mpesa
from mpesa_integration.infrastructure.daraja import DarajaClient
from mpesa_integration.infrastructure.persistence import DjangoTokens
from mpesa_integration.infrastructure.tokens import SharedToken
from mpesa_integration.tests.factories import PHONE, a_request, kes, server_database
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.money import InvalidAmount
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Refused, Unknown, Unreadable
from shared_kernel.infrastructure.coordination import DjangoLeases
from shared_kernel.infrastructure.persistence import now, unit_of_work

pytestmark = pytest.mark.django_db(transaction=True)

BUSY = "The transaction is being processed"


def push(request, *, within: float = 10):
    return mpesa.send(request, give_up_at=time.monotonic() + within)


def bare(outcome):
    """Without the raw answer."""
    return replace(outcome, answer="")


def pushed(simulator, **given):
    """An attempt that M-Pesa accepted, with its ids."""
    request = a_request(**given)
    outcome = push(request)
    assert isinstance(outcome, Accepted), outcome
    request.checkout_request_id = outcome.references["CheckoutRequestID"]
    request.merchant_request_id = outcome.references["MerchantRequestID"]
    return request


def until(condition, seconds: float = 5):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)
    return value


def decided(simulator, request):
    """Waits until the subscriber has done something about the prompt."""
    until(lambda: simulator.prompts[request.checkout_request_id].result is not None)
    return request


def test_a_push_is_accepted_with_both_ids_and_shows_the_payer_what_was_asked(mpesa_simulator):
    request = a_request(amount=kes(1500))

    outcome = push(request)

    assert isinstance(outcome, Accepted)
    prompt = mpesa_simulator.prompts[outcome.references["CheckoutRequestID"]]
    assert (prompt.phone, prompt.amount, prompt.reference) == (PHONE.number, 1500, request.reference)
    assert prompt.merchant_request_id == outcome.references["MerchantRequestID"]


def test_a_paid_prompt_is_done_and_stands_in_the_books_once(mpesa_simulator):
    request = decided(mpesa_simulator, pushed(mpesa_simulator))

    assert isinstance(mpesa.query(request), Done)
    assert [(m["reference"], m["amount"]) for m in mpesa_simulator.books.movements] == [(request.reference, "1500.00")]


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ("cancel", "1032"),
        ("wrong_pin", "2001"),
        ("no_funds", "1"),
        ("expire", "1019"),
        ("unreachable", "1037"),
        ("pin_locked", "8006"),
        ("over_limit", "4"),
        ("misconfigured", "SFC_IC0003"),
    ],
)
def test_what_the_subscriber_did_is_refused_in_the_customers_words_and_moves_nothing(mpesa_simulator, behaviour, code):
    mpesa_simulator.set_customer(PHONE.number, behaviour)
    request = decided(mpesa_simulator, pushed(mpesa_simulator))

    outcome = mpesa.query(request)

    assert isinstance(outcome, Refused)
    assert outcome.code == code
    assert outcome.reason
    assert mpesa_simulator.books.movements == []


def test_a_result_that_no_table_names_is_unknown(mpesa_simulator):
    mpesa_simulator.set_customer(PHONE.number, "system_error")

    assert bare(mpesa.query(decided(mpesa_simulator, pushed(mpesa_simulator)))) == Unknown("9999")


@pytest.mark.parametrize("form", ["4999", "error"])
def test_both_forms_of_pending_mean_not_decided(mpesa_simulator, form):
    mpesa_simulator.pending_form = form
    mpesa_simulator.set_customer(PHONE.number, "never")

    assert isinstance(mpesa.query(pushed(mpesa_simulator)), Accepted)


def test_an_ignored_prompt_is_pending_until_it_ends(mpesa_simulator):
    mpesa_simulator.prompt_lifetime_s = 0.4
    mpesa_simulator.set_customer(PHONE.number, "ignore")
    request = pushed(mpesa_simulator)

    assert isinstance(mpesa.query(request), Accepted)
    assert isinstance(mpesa.query(decided(mpesa_simulator, request)), Refused)


def test_without_the_providers_id_nothing_is_asked(mpesa_simulator):
    assert isinstance(mpesa.query(a_request()), Unknown)
    assert "stk_query" not in mpesa_simulator.calls


@pytest.mark.parametrize(
    "fault", ["lost_answer_before_effect", "lost_answer_after_effect", "http_500_before", "waf_html"]
)
def test_a_push_without_a_readable_answer_is_unknown_and_is_not_sent_again(mpesa_simulator, fault):
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": fault})
    request = a_request()

    assert isinstance(push(request), Unknown)
    assert mpesa_simulator.calls["stk_push"] == 1
    assert len(mpesa_simulator.prompts) == (1 if fault == "lost_answer_after_effect" else 0)


def test_an_effect_behind_an_error_is_unknown_and_found_by_pull(mpesa_simulator):
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": "http_500_after"})
    request = a_request()

    assert bare(push(request)) == Unknown("500.003.1001")
    until(lambda: mpesa_simulator.paid)
    assert [(p.reference, p.amount) for p in mpesa.payments(request)] == [(request.reference, kes(1500))]


def test_a_connection_that_was_refused_is_not_sent(mpesa_simulator, settings):
    push(a_request())  # so that there is a token
    daraja = mpesa.daraja
    assert isinstance(daraja, DarajaClient)
    daraja.token._known[f"{settings.MPESA_CONSUMER_KEY}@http://127.0.0.1:9"] = _a_token()
    settings.MPESA_BASE_URL = "http://127.0.0.1:9"

    assert bare(push(a_request())) == NotSent("not_connected", 5)


def _a_token():
    from mpesa_integration.infrastructure.tokens import Token

    return Token("any", now())


def test_without_a_token_nothing_is_sent_and_a_person_is_told(mpesa_simulator, settings):
    settings.MPESA_CONSUMER_SECRET = "wrong"

    outcome = push(a_request())

    assert bare(outcome) == NotSent("token:HTTP 400", 5, alert=True)
    assert "stk_push" not in mpesa_simulator.calls


def test_past_its_time_nothing_is_written(mpesa_simulator):
    assert bare(push(a_request(), within=-1)) == NotSent("send_before_passed")
    assert "stk_push" not in mpesa_simulator.calls


def test_the_time_is_looked_at_directly_before_writing_not_when_the_call_begins(mpesa_simulator):
    mpesa_simulator.faults.arm({"call": "token", "fault": "slow", "after_s": 0.3, "count": 1})

    assert bare(push(a_request(), within=0.2)) == NotSent("send_before_passed")
    assert "stk_push" not in mpesa_simulator.calls
    assert isinstance(push(a_request(phone=Phone("254711000001"))), Accepted)  # the connection was left in order


def test_no_call_is_made_while_a_transaction_is_open(mpesa_simulator):
    with unit_of_work():
        for call in (lambda: push(a_request()), lambda: mpesa.payments(a_request())):
            with pytest.raises(RuntimeError, match="transaction"):
                call()
    assert mpesa_simulator.calls == {}


def test_cents_are_refused_before_anything_is_sent(mpesa_simulator):
    with pytest.raises(InvalidAmount):
        a_request(amount=kes(1500) + kes(1).__class__(50, kes(1).currency))
    with pytest.raises(InvalidAmount):
        a_request(amount=kes(250_001))


# --- the provider's own guards ---------------------------------------------------------------------------------------


def test_a_second_prompt_to_a_busy_subscriber_is_refused(mpesa_simulator):
    mpesa_simulator.set_customer(PHONE.number, "never")
    pushed(mpesa_simulator)

    outcome = push(a_request())

    assert isinstance(outcome, Refused)
    assert outcome.code == "500.001.1001"
    assert "minute" in outcome.reason


def test_the_same_amount_within_two_minutes_is_refused_by_rule_17(mpesa_simulator):
    mpesa_simulator.duplicate_guard = True
    decided(mpesa_simulator, pushed(mpesa_simulator))

    second = decided(mpesa_simulator, pushed(mpesa_simulator))

    outcome = mpesa.query(second)
    assert isinstance(outcome, Refused)
    assert outcome.code == "17"
    assert len(mpesa_simulator.books.movements) == 1


def test_spike_arrest_is_not_sent_and_the_same_attempt_goes_again(mpesa_simulator):
    request = a_request()
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": "rate_limited", "count": 1})

    assert bare(push(request)) == NotSent("500.003.02", 5)
    assert isinstance(push(request), Accepted)
    assert len(mpesa_simulator.prompts) == 1


def test_the_rate_limit_is_the_providers_too(mpesa_simulator):
    mpesa_simulator.rate_per_s = 3
    outcomes = [push(a_request(phone=Phone(f"2547110000{i:02}"))) for i in range(12)]

    assert any(isinstance(outcome, NotSent) and outcome.code == "500.003.02" for outcome in outcomes)
    assert all(isinstance(outcome, NotSent | Accepted) for outcome in outcomes)


@pytest.mark.parametrize(("wrong", "code"), [("MPESA_PASSKEY", "500.001.1001"), ("MPESA_SHORTCODE", "500.001.1001")])
def test_a_wrong_passkey_or_shortcode_is_refused_as_our_own_fault(mpesa_simulator, settings, wrong, code):
    setattr(settings, wrong, "174000")

    outcome = push(a_request())

    assert isinstance(outcome, Refused)
    assert outcome.code == code
    assert "our side" in outcome.reason


def test_a_callback_url_that_the_provider_does_not_take_is_refused(mpesa_simulator, settings):
    settings.MPESA_CALLBACK_BASE_URL = "http://pay.example.co.ke"

    outcome = push(a_request())

    assert isinstance(outcome, Refused)
    assert outcome.code == "400.002.02"


# --- answers of every shape ------------------------------------------------------------------------------------------

IDS = {"MerchantRequestID": "1-2", "CheckoutRequestID": "ws_CO_1", "ResponseDescription": "", "CustomerMessage": ""}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, IDS | {"ResponseCode": 0}, Accepted),
        (200, IDS | {"ResponseCode": "1"}, Unknown),
        (200, IDS, Unknown),
        (200, {"ResponseCode": "0"}, Unknown),
        (200, {"ResponseCode": "0", "CheckoutRequestID": 5}, Unknown),
        (200, {"errorCode": "500.003.02", "errorMessage": "System is busy."}, NotSent),
        (200, {"errorCode": "400.002.02", "errorMessage": "Bad Request - Invalid Amount"}, Refused),
        (500, {"errorCode": "999.999", "errorMessage": "new"}, Unknown),
        (500, {"errorCode": "500.001.1001", "errorMessage": "Something new"}, Unknown),
        (200, "<html>hello</html>", Unknown),
        (200, "", Unknown),
        (200, [1], Unknown),
        (200, "null", Unknown),
        (400, "", Unknown),
        (404, "<html>", Unknown),
        (429, "", NotSent),
        (401, "", NotSent),
        (302, "", Unknown),
        (200, "[" * 10_000, Unknown),
        (200, '{"ResponseCode": "0", "ResponseCode": "0", "CheckoutRequestID": "a"}', Unknown),
    ],
)
def test_whatever_is_not_surely_yes_or_no_is_unknown(mpesa_simulator, status, body, expected):
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": "answer_with", "status": status, "body": body})

    assert isinstance(push(a_request()), expected)


def test_an_endless_answer_is_not_kept(mpesa_simulator):
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": "answer_with", "body": "x" * 5_000_000})

    assert isinstance(push(a_request()), Unknown)


OK = {"ResponseCode": "0", "ResponseDescription": "", "MerchantRequestID": "", "ResultDesc": ""}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, {"ResultCode": 0}, Done),
        (200, {"ResultCode": "0"}, Done),
        (200, {"ResultCode": "26"}, NotSent),
        (200, {"ResultCode": True}, Unknown),
        (200, {"ResultCode": "00"}, Unknown),
        (200, {"ResultCode": ""}, Unknown),
        (200, {}, Unknown),
        (200, {"ResultCode": "0", "ResponseCode": "1"}, Unknown),
        (200, {"ResultCode": "0", "CheckoutRequestID": "ws_CO_another"}, Unknown),
        (200, {"ResultCode": "1032", "CheckoutRequestID": "ws_CO_another"}, Unknown),
        (200, {"ResultCode": "0", "MerchantRequestID": "another"}, Unknown),
        (200, {"ResultCode": 1032}, Refused),
        (200, {"ResultCode": "not listed"}, Unknown),
    ],
)
def test_a_query_answer_counts_only_for_its_own_attempt(mpesa_simulator, status, body, expected):
    request = pushed(mpesa_simulator)
    answer = OK | {"CheckoutRequestID": request.checkout_request_id} | body
    mpesa_simulator.faults.arm({"call": "stk_query", "fault": "answer_with", "status": status, "body": answer})

    assert isinstance(mpesa.query(request), expected)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({"fault": "waf_html"}, Unknown),
        ({"fault": "http_500_before"}, Unknown),
        ({"fault": "lost_answer_before_effect"}, Unknown),
        ({"fault": "rate_limited"}, NotSent),
        ({"fault": "answer_with", "status": 400, "body": {"errorCode": "400.002.02", "errorMessage": ""}}, Unknown),
        (
            {
                "fault": "answer_with",
                "status": 500,
                "body": {"errorCode": "500.001.1001", "errorMessage": "Wrong credentials"},
            },
            Unknown,
        ),
    ],
)
def test_a_fault_of_the_query_itself_says_nothing_about_the_attempt(mpesa_simulator, order, expected):
    request = decided(mpesa_simulator, pushed(mpesa_simulator))
    mpesa_simulator.faults.arm({"call": "stk_query", **order})

    assert isinstance(mpesa.query(request), expected)


def test_a_slow_answer_ends_in_unknown(mpesa_simulator, monkeypatch):
    from mpesa_integration.infrastructure import http

    monkeypatch.setattr(http, "TIMEOUT", {**http.TIMEOUT, "read": 0.2})
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": "slow", "after_s": 1})

    assert bare(push(a_request())) == Unknown("timeout")


# --- the token -------------------------------------------------------------------------------------------------------


def another_process(settings):
    """The same deployment in another process: its own memory, the same rows."""
    return DarajaClient(facade.account, SharedToken(DjangoTokens(), DjangoLeases(), now), now)


def test_many_threads_that_need_a_token_fetch_one(mpesa_simulator):
    requests = [a_request(phone=Phone(f"25471100{i:04}")) for i in range(24)]
    start = threading.Barrier(24)

    def go(request):
        start.wait()
        return push(request)

    with ThreadPoolExecutor(24) as threads:
        outcomes = list(threads.map(go, requests))

    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert mpesa_simulator.calls["token"] == 1


@server_database
def test_of_many_processes_that_need_a_token_at_once_one_fetches_it(mpesa_simulator, settings):
    request, start = a_request(), threading.Barrier(8)
    request.checkout_request_id = "ws_CO_unknown"

    def go(daraja):
        start.wait()
        try:
            return bare(daraja.query(request))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(go, [another_process(settings) for _ in range(8)]))

    assert outcomes == [Unknown("400.002.02")] * 8  # it came through to the query itself
    assert mpesa_simulator.calls["token"] == 1


def test_two_processes_share_one_token(mpesa_simulator, settings):
    request, other = decided(mpesa_simulator, pushed(mpesa_simulator)), another_process(settings)

    assert isinstance(other.query(request), Done)
    assert mpesa_simulator.calls["token"] == 1


def test_a_superseded_token_is_replaced_once_however_many_threads_meet_it(mpesa_simulator):
    pushed(mpesa_simulator)
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": "token_superseded", "count": 1})
    requests = [a_request(phone=Phone(f"25471100{i:04}")) for i in range(16)]

    with ThreadPoolExecutor(16) as threads:
        outcomes = list(threads.map(push, requests))

    assert all(isinstance(outcome, Accepted) for outcome in outcomes)
    assert mpesa_simulator.calls["token"] == 2
    assert len(mpesa_simulator.prompts) == 17


def test_a_process_whose_token_was_replaced_by_another_takes_that_one(mpesa_simulator, settings):
    request, other = decided(mpesa_simulator, pushed(mpesa_simulator)), another_process(settings)
    assert isinstance(other.query(request), Done)
    mpesa_simulator.faults.arm({"call": "stk_query", "fault": "token_superseded", "count": 1})

    assert isinstance(other.query(request), Done)  # it fetched a new one
    assert isinstance(mpesa.query(request), Done)  # ours is refused, the shared one is read

    assert mpesa_simulator.calls["token"] == 2


def test_a_token_is_replaced_before_its_hour_is_over(mpesa_simulator):
    clock = [now()]
    tokens = SharedToken(DjangoTokens(), DjangoLeases(), lambda: clock[0])
    daraja = DarajaClient(facade.account, tokens, lambda: clock[0])
    request = decided(mpesa_simulator, pushed(mpesa_simulator))
    assert isinstance(daraja.query(request), Done)

    clock[0] += timedelta(minutes=56)
    mpesa_simulator.clock.advance(56 * 60)
    assert isinstance(daraja.query(request), Done)

    assert mpesa_simulator.calls == {"token": 2, "stk_push": 1, "stk_query": 2}  # none was refused on the way


def test_a_token_that_is_refused_again_is_not_sent(mpesa_simulator):
    pushed(mpesa_simulator)
    refusal = {"status": 404, "body": {"errorCode": "404.001.03", "errorMessage": "Invalid Access Token"}}
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": "answer_with", **refusal})

    assert bare(push(a_request())) == NotSent("404.001.03", 5, alert=True)
    assert mpesa_simulator.calls["stk_push"] == 3


def test_the_shared_token_is_encrypted_at_rest(mpesa_simulator):
    from django.db import connection

    pushed(mpesa_simulator)

    with connection.cursor() as cursor:
        cursor.execute("SELECT token FROM mpesa_tokens")
        (stored,) = cursor.fetchone()
    assert stored.startswith("v1.")
    assert mpesa_simulator.token not in stored


def test_threads_do_not_each_try_again_for_a_token_that_could_not_be_had(mpesa_simulator, settings):
    settings.MPESA_CONSUMER_SECRET = "wrong"
    requests = [a_request(phone=Phone(f"25471100{i:04}")) for i in range(16)]

    with ThreadPoolExecutor(16) as threads:
        outcomes = list(threads.map(push, requests))

    assert {type(outcome) for outcome in outcomes} == {NotSent}
    assert mpesa_simulator.calls["token"] <= 2


def test_no_secret_is_logged(mpesa_simulator, caplog):
    caplog.set_level("DEBUG")
    pushed(mpesa_simulator)

    for secret in (mpesa_simulator.token, mpesa_simulator.passkey, "/cb/s/", PHONE.number, "oauth"):
        assert secret not in caplog.text


# --- Pull ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zone", ["utc", "eat"])
def test_pull_finds_a_payment_by_its_reference_whatever_zone_its_times_are_in(mpesa_simulator, zone):
    mpesa_simulator.pull_zone = zone
    request = decided(mpesa_simulator, pushed(mpesa_simulator))

    payments = mpesa.payments(request)
    assert not isinstance(payments, Unreadable)
    (payment,) = payments

    assert payment.receipt == mpesa_simulator.books.movements[0]["id"]
    assert abs(payment.paid_at - datetime.now(UTC)) < timedelta(seconds=30)


def test_pull_shows_nothing_for_an_attempt_that_was_not_paid(mpesa_simulator):
    mpesa_simulator.set_customer(PHONE.number, "cancel")
    request = decided(mpesa_simulator, pushed(mpesa_simulator))
    decided(mpesa_simulator, pushed(mpesa_simulator, phone=Phone("254711000001")))

    assert mpesa.payments(request) == []


def test_pull_reads_every_page(mpesa_simulator):
    mine = a_request()
    for i in range(230):
        paid = mine if i == 229 else a_request(phone=Phone(f"25471100{i:04}"))
        assert isinstance(push(paid), Accepted)
    until(lambda: len(mpesa_simulator.paid) == 230)

    assert [payment.reference for payment in mpesa.payments(mine)] == [mine.reference]
    assert mpesa_simulator.calls["pull"] == 4


@pytest.mark.parametrize(
    "order",
    [
        {"fault": "waf_html"},
        {"fault": "rate_limited"},
        {"fault": "lost_answer_before_effect"},
        {"fault": "answer_with", "body": {"ResponseCode": "1000"}},
        {"fault": "answer_with", "body": {"ResponseCode": "9", "Response": [[]]}},
    ],
)
def test_a_book_that_could_not_be_read_to_its_end_is_no_absence(mpesa_simulator, order):
    request = decided(mpesa_simulator, pushed(mpesa_simulator))
    mpesa_simulator.faults.arm({"call": "pull", **order})

    assert isinstance(mpesa.payments(request), Unreadable)


def test_a_row_of_ours_that_cannot_be_read_is_no_absence(mpesa_simulator):
    request = decided(mpesa_simulator, pushed(mpesa_simulator))
    row = {"transactionId": "UKV7RT61SV", "trxDate": "soon", "billreference": request.reference, "amount": "1E+999999"}
    page = {"ResponseCode": 1000, "Response": row}
    mpesa_simulator.faults.arm({"call": "pull", "fault": "answer_with", "body": page, "count": 1})

    assert mpesa.payments(request) == Unreadable("row")
