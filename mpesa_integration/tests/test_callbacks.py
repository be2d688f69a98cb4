"""M-Pesa's callbacks at their URL: what is let in, what is stored, what it starts. None of them credits anything."""

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections
from django.test import Client

from mpesa_integration import models
from mpesa_integration.domain.callback import CallbackKind
from mpesa_integration.domain.request import callback_token
from mpesa_integration.facade import Received, callbacks, mpesa
from mpesa_integration.tests.factories import a_callback, a_stored_request, conclude, kes, server_database, stored
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.outcome import Accepted, Done
from shared_kernel.domain.requests import RequestStatus
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.models import AuditLog, DomainEvent

pytestmark = pytest.mark.django_db(transaction=True)

SAFARICOM = "196.201.214.200"


@pytest.fixture(autouse=True)
def _addresses(settings):
    settings.MPESA_CALLBACK_ALLOWED_IPS = ["127.0.0.1", "196.201.214.0/24"]
    settings.TRUSTED_PROXY_COUNT = 0


def url_of(request, kind="s"):
    return f"/cb/{kind}/{callback_token(blind_index, request.id)}"


def post(request, body, *, client=None, url="", **extra):
    return (client or Client()).post(url or url_of(request), body, content_type="application/json", **extra)


def an_accepted_request(**given):
    request = a_stored_request(**given)
    number = request.phone.number[3:]
    conclude(request, Accepted({"CheckoutRequestID": f"ws_CO_22112026092409117{number}", "MerchantRequestID": "1-2"}))
    return request


def events():
    return list(DomainEvent.objects.filter(type="MpesaCallbackReceived"))


def audited(action):
    return list(AuditLog.objects.filter(action=action).values_list("why", flat=True))


def test_a_callback_is_stored_answered_and_starts_the_asking_and_nothing_else():
    request = an_accepted_request()

    answer = post(request, a_callback(request), REMOTE_ADDR=SAFARICOM)

    assert (answer.status_code, answer.json()) == (200, {"ResultCode": 0, "ResultDesc": "Accepted"})
    (event,) = events()
    assert event.payload["request_id"] == str(request.id)
    assert event.aggregate_id == request.transaction_id
    assert stored(request).status is RequestStatus.ACCEPTED
    (claim,) = stored(request).claims
    assert (claim.result_code, claim.amount, claim.receipt, claim.agrees) == ("0", kes(1500), "UKV7RT61SV", True)
    row = models.MpesaCallback.objects.get()
    assert (row.body, row.peer, row.verdict) == (a_callback(request).decode(), SAFARICOM, "agrees")
    assert AuditLog.objects.count() == 0


def test_body_and_headers_are_encrypted_and_cookies_are_not_kept():
    request = an_accepted_request()

    post(request, a_callback(request), HTTP_USER_AGENT="Apache-HttpClient", HTTP_COOKIE="penpay_access=secret")

    with connection.cursor() as cursor:
        cursor.execute("SELECT body, headers FROM mpesa_callbacks")
        body, headers = cursor.fetchone()
    assert body.startswith("v1.")
    assert headers.startswith("v1.")
    row = models.MpesaCallback.objects.get()
    assert "Apache-HttpClient" in row.headers
    assert "penpay_access" not in row.headers


def test_a_good_callback_takes_three_statements(django_assert_num_queries):
    request, client = an_accepted_request(), Client()
    post(an_accepted_request(phone=Phone("254711000001")), a_callback(request), client=client)

    with django_assert_num_queries(3 + 2):  # BEGIN and COMMIT are counted
        assert callbacks.receive(
            Received(
                kind=CallbackKind.STK,
                token=callback_token(blind_index, request.id),
                body=a_callback(request),
                headers="{}",
                peer="127.0.0.1",
                at=mpesa.clock(),
            )
        )


def test_a_callback_before_the_answer_is_kept_for_the_attempt_that_its_token_names():
    request = a_stored_request()

    assert post(request, a_callback(request)).status_code == 200

    (claim,) = stored(request).claims
    assert claim.agrees
    assert len(events()) == 1
    assert stored(request).checkout_request_id == ""  # an id learnt from a claim proves nothing


@server_database
def test_fifty_of_the_same_at_once_are_stored_once_counted_fifty_times_and_start_the_asking_once():
    request, start = an_accepted_request(), threading.Barrier(50)
    body = a_callback(request)

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


def test_a_different_outcome_is_another_claim_and_starts_the_asking_again():
    request = an_accepted_request()

    post(request, a_callback(request, code=1032))
    post(request, a_callback(request))

    assert [claim.result_code for claim in stored(request).claims] == ["1032", "0"]
    assert len(events()) == 2


def test_a_callback_for_a_paid_attempt_changes_nothing_on_it():
    request = an_accepted_request()
    conclude(request, Done("UKV7RT61SV"))

    assert post(request, a_callback(request, code=1032)).status_code == 200

    assert stored(request).status is RequestStatus.DONE
    assert len(events()) == 1


@pytest.mark.parametrize(
    "forged",
    [
        {"amount": 1501},
        {"amount": "1500.001"},
        {"amount": None, "CallbackMetadata": {}},
        {"receipt": "short"},
        {"receipt": "lower7case"},
        {"CheckoutRequestID": "ws_CO_another"},
        {"MerchantRequestID": "another"},
        {"CallbackMetadata": {"Item": [{"Name": "Amount"}, {"Value": 5}, 7]}},
        {"CallbackMetadata": {"Item": None}},
        {"CallbackMetadata": [1500]},
    ],
    ids=str,
)
def test_what_does_not_agree_with_the_attempt_is_a_claim_that_disagrees_and_is_audited(forged):
    request = an_accepted_request()

    assert post(request, a_callback(request, **forged)).status_code == 200

    assert [claim.agrees for claim in stored(request).claims] == [False]
    assert audited("mpesa.callback_suspect") == ["disagrees"]
    assert len(events()) == 1  # asked about


def test_a_receipt_that_another_deposit_has_does_not_agree():
    first, second = an_accepted_request(), an_accepted_request(phone=Phone("254711000001"))
    conclude(first, Done("UKV7RT61SV"))

    post(second, a_callback(second, receipt="UKV7RT61SV"))

    assert [claim.agrees for claim in stored(second).claims] == [False]


DEEP = b'{"Body":' * 10_000 + b"1" + b"}" * 10_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>hello</body></html>",
        b"[]",
        b"null",
        b"5",
        b'{"Body": null}',
        b'{"Body": {"stkCallback": []}}',
        b'{"Body": {"stkCallback": {}}}',
        b'{"Body": {"stkCallback": {"CheckoutRequestID": 5, "ResultCode": 0}}}',
        b'{"Body": {"stkCallback": {"CheckoutRequestID": "ws", "ResultCode": true}}}',
        b'{"Body": {"stkCallback": {"CheckoutRequestID": "ws", "ResultCode": NaN}}}',
        b'{"Body": {"stkCallback": {"CheckoutRequestID": "ws", "ResultCode": 1, "ResultCode": 0}}}',
        b'{"Body": {"stkCallback": {"CheckoutRequestID": "ws", "ResultCode": "\\ud800"}}}',
        b'{"Body": {"stkCallback": {"CheckoutRequestID": "ws", "ResultCode": ' + b"9" * 5000 + b"}}}",
        b"\xff\xfe\x00",
        DEEP[:60_000],
        b"[" * 10_000,
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
def test_what_cannot_be_read_is_stored_and_answered_and_claims_nothing(body):
    request = an_accepted_request()

    assert post(request, body).status_code == 200

    row = models.MpesaCallback.objects.get()
    assert row.verdict == "unreadable"
    assert stored(request).claims == []
    assert events() == []
    assert audited("mpesa.callback_suspect") == ["unreadable"]


def test_bytes_that_are_no_text_are_kept_as_they_came():
    from base64 import b64decode

    request = an_accepted_request()

    post(request, b"\xff\xfe\x00")

    kind, _, body = models.MpesaCallback.objects.get().body.partition(":")
    assert (kind, b64decode(body)) == ("base64", b"\xff\xfe\x00")


@pytest.mark.parametrize("amount", ["1500", "1500.00", 1500, 1500.0])
@pytest.mark.parametrize("code", [0, "0"])
def test_numbers_as_text_and_text_as_numbers_are_read(amount, code):
    request = an_accepted_request()

    post(request, a_callback(request, code=code, amount=amount))

    (claim,) = stored(request).claims
    assert (claim.amount, claim.agrees) == (kes(1500), True)


def test_an_amount_that_would_take_for_ever_is_no_amount():
    request = an_accepted_request()

    started = time.monotonic()
    post(request, a_callback(request).replace(b'"Value": 1500', b'"Value": 1E+999999999'))

    assert time.monotonic() - started < 1
    assert [claim.agrees for claim in stored(request).claims] == [False]


def test_more_than_64_kib_is_refused_unread_and_audited():
    request = an_accepted_request()

    assert post(request, b" " * 1024 * 1024).status_code == 413

    assert models.MpesaCallback.objects.count() == 0
    assert audited("mpesa.callback_refused") == ["too_large"]
    assert post(request, a_callback(request).ljust(64 * 1024)).status_code == 200


def test_an_unknown_token_is_404_stored_and_audited():
    request = an_accepted_request()

    answer = post(request, a_callback(request), url="/cb/s/" + "0" * 40)

    assert answer.status_code == 404
    assert stored(request).claims == []
    assert events() == []
    assert audited("mpesa.callback_refused") == ["no_attempt"]
    assert models.MpesaCallback.objects.get().verdict == "no_attempt"


def test_foreign_addresses_fill_no_audit_log_and_are_told_the_same(limits):
    limits(foreign_callbacks_address=2, foreign_callbacks_all=3, api_address=1)
    request = an_accepted_request()

    for address in ("203.0.113.5", "203.0.113.6"):
        for _ in range(5):
            assert post(request, a_callback(request), REMOTE_ADDR=address).status_code == 404
    assert audited("mpesa.callback_refused") == ["foreign_address"] * 3
    for _ in range(5):  # M-Pesa's own are not counted
        assert post(request, a_callback(request)).status_code == 200


def test_a_foreign_address_is_404_and_audited_even_with_the_right_token():
    request = an_accepted_request()

    assert post(request, a_callback(request), REMOTE_ADDR="203.0.113.5").status_code == 404

    assert models.MpesaCallback.objects.count() == 0
    assert events() == []
    assert audited("mpesa.callback_refused") == ["foreign_address"]


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "status"),
    [
        (0, "203.0.113.5", SAFARICOM, 404),  # nobody may say for himself who he is
        (1, "10.0.0.1", SAFARICOM, 200),
        (1, "10.0.0.1", f"{SAFARICOM}, 203.0.113.5", 404),  # what the proxy saw stands last
        (1, "10.0.0.1", f"203.0.113.5, {SAFARICOM}", 200),
        (2, "10.0.0.1", f"{SAFARICOM}, 10.0.0.2", 200),
        (2, "10.0.0.1", f"{SAFARICOM}, 203.0.113.5, 10.0.0.2", 404),
        (1, "203.0.113.5", "", 404),
        (2, "203.0.113.5", SAFARICOM, 404),
        (0, "::ffff:196.201.214.200", "", 200),
        (0, "", "", 404),
    ],
)
def test_the_address_is_what_our_own_proxy_saw(settings, proxies, peer, forwarded, status):
    settings.TRUSTED_PROXY_COUNT = proxies
    request = an_accepted_request()
    extra = {"HTTP_X_FORWARDED_FOR": forwarded} if forwarded else {}

    assert post(request, a_callback(request), REMOTE_ADDR=peer, **extra).status_code == status


@pytest.mark.parametrize("kind", ["b", "bt", "t", "c", "v", "x", "S", "", "s/s"])
def test_a_token_is_good_for_its_own_kind_alone(kind):
    request = an_accepted_request()

    assert post(request, a_callback(request), url=url_of(request, kind)).status_code == 404
    assert events() == []


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch", "options"])
def test_only_post_is_answered(method):
    assert getattr(Client(), method)(url_of(an_accepted_request())).status_code == 404


def test_no_session_no_cookie_and_no_csrf_are_needed():
    request = an_accepted_request()

    answer = post(request, a_callback(request), client=Client(enforce_csrf_checks=True))

    assert answer.status_code == 200
    assert not answer.cookies


def test_a_url_with_a_token_is_never_logged_whatever_happens(caplog, monkeypatch, settings):
    caplog.set_level(logging.DEBUG)
    request = an_accepted_request()
    token = callback_token(blind_index, request.id)
    client = Client(raise_request_exception=False)

    post(request, a_callback(request), client=client)
    post(request, b" " * 70_000, client=client)
    post(request, a_callback(request), client=client, REMOTE_ADDR="203.0.113.5")
    post(request, a_callback(request), client=client, url=f"/cb/s/{token}/")
    post(request, a_callback(request), client=client, url=f"/cb/{token}")
    client.get(f"/cb/s/{token}")
    monkeypatch.setattr(type(callbacks.callbacks), "attempt_of", broken)
    assert post(request, a_callback(request), client=client).status_code == 500

    assert token not in caplog.text
    assert caplog.records


def broken(*_):
    raise ZeroDivisionError


def test_what_was_not_stored_is_not_answered_as_accepted():
    """A provider that repeats then repeats."""
    request = an_accepted_request()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(callbacks.callbacks), "add", broken)
        answer = post(request, a_callback(request), client=Client(raise_request_exception=False))

    assert answer.status_code == 500
    assert events() == []
    assert post(request, a_callback(request)).status_code == 200
    assert len(events()) == 1


# --- from the simulator, over real HTTP ------------------------------------------------------------------------------


@pytest.fixture
def provider(mpesa_simulator, live_server, settings):
    settings.MPESA_CALLBACK_BASE_URL = live_server.url
    return mpesa_simulator


def deposit(**given):
    request = a_stored_request(**given)
    conclude(request, mpesa.send(request, give_up_at=time.monotonic() + 10))
    return request


def claims_of(request, number=1, seconds=5):
    deadline = time.monotonic() + seconds
    while len(claims := stored(request).claims) < number and time.monotonic() < deadline:
        time.sleep(0.02)
    return [(claim.result_code, claim.agrees) for claim in claims]


@server_database
def test_the_simulators_callback_comes_in(provider):
    assert claims_of(deposit()) == [("0", True)]
    deadline = time.monotonic() + 5
    while not provider.callbacks.answered and time.monotonic() < deadline:  # the claim is committed before the answer
        time.sleep(0.01)
    assert [status for status, _ in provider.callbacks.answered] == [200]


@server_database
def test_a_callback_that_overtakes_the_answer_is_there_when_the_answer_comes(provider):
    provider.faults.arm({"call": "stk_push", "fault": "callback_before_answer"})
    request = a_stored_request()

    outcome = mpesa.send(request, give_up_at=time.monotonic() + 10)

    assert isinstance(outcome, Accepted)
    assert claims_of(request) == [("0", True)]
    conclude(request, outcome)
    assert isinstance(mpesa.query(stored(request)), Done)


@server_database
def test_a_callback_repeated_twenty_times_is_one_claim(provider):
    provider.faults.arm({"call": "stk_push", "fault": "duplicate_callback", "times": 20})
    request = deposit()

    deadline = time.monotonic() + 10
    while len(provider.callbacks.answered) < 20 and time.monotonic() < deadline:
        time.sleep(0.02)

    assert {status for status, _ in provider.callbacks.answered} == {200}
    assert claims_of(request) == [("0", True)]
    assert models.MpesaCallback.objects.get().times == 20
    assert len(events()) == 1


@server_database
def test_a_forged_failure_before_the_true_success_is_two_claims_and_the_query_decides(provider):
    provider.faults.arm({"call": "stk_push", "fault": "forged_failure"})
    request = deposit()

    assert sorted(claims_of(request, 2)) == [("0", True), ("1032", True)]
    assert isinstance(mpesa.query(stored(request)), Done)


@server_database
def test_a_forged_success_is_a_claim_that_the_query_denies(provider):
    provider.faults.arm({"call": "stk_push", "fault": "forged_success"})
    request = deposit()

    assert claims_of(request) == [("0", True)]
    assert not isinstance(mpesa.query(stored(request)), Done)
    assert provider.books.movements == []


@server_database
def test_a_callback_with_another_amount_disagrees(provider):
    provider.faults.arm({"call": "stk_push", "fault": "wrong_amount", "amount": 9})

    assert claims_of(deposit()) == [("0", False)]


@server_database
def test_late_and_lost_callbacks_leave_the_query_to_tell(provider):
    provider.faults.arm({"call": "stk_push", "fault": "late_callback", "after_s": 0.5, "count": 1})
    late = deposit()
    provider.faults.arm({"call": "stk_push", "fault": "lost_callback"})
    lost = deposit(phone=Phone("254711000001"))

    assert claims_of(late, seconds=0.2) == []
    assert claims_of(late) == [("0", True)]
    assert claims_of(lost, seconds=0.2) == []
    assert isinstance(mpesa.query(stored(lost)), Done)


@server_database
def test_a_callback_that_was_held_back_comes_after_the_next_one(provider):
    provider.faults.arm({"call": "stk_push", "fault": "out_of_order", "count": 1})
    first = deposit()
    time.sleep(0.1)
    second = deposit(phone=Phone("254711000001"))

    assert claims_of(second) == [("0", True)]
    assert claims_of(first) == [("0", True)]
    order = [json.loads(body)["Body"]["stkCallback"]["CheckoutRequestID"] for _, body in provider.callbacks.answered]
    assert order == [second.checkout_request_id, first.checkout_request_id]


@server_database
def test_a_lost_answer_still_leads_to_the_attempt_by_its_own_url(provider):
    provider.faults.arm({"call": "stk_push", "fault": "lost_answer_after_effect"})
    request = deposit()

    assert stored(request).status is RequestStatus.UNKNOWN
    assert claims_of(request) == [("0", True)]
