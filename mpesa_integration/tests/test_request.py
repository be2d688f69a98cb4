"""What outcomes make of an attempt, in whatever order they come, and how the attempt is kept."""

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import import_module
from itertools import permutations

import pytest
from django.db import IntegrityError, OperationalError, connection, connections
from uuid_utils.compat import uuid7

from mpesa_integration import models
from mpesa_integration.domain.request import PromptOpen, callback_token, conclude as apply, token_hash
from mpesa_integration.facade import mpesa
from mpesa_integration.tests.factories import PHONE, a_request, a_stored_request, conclude, kes, server_database, stored
from shared_kernel.domain.identifiers import Phone, TransactionId
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Refused, Unknown
from shared_kernel.domain.requests import RequestStatus as S
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import unit_of_work

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ACCEPTED = Accepted({"CheckoutRequestID": "ws_CO_1", "MerchantRequestID": "1-2"}, '{"raw": 1}')


def test_the_facade_fits_the_port_of_payments_to_the_letter():
    port = import_module("payments.domain.ports").MpesaGateway

    asked = {name: method for name, method in vars(port).items() if inspect.isfunction(method) and name[0] != "_"}

    assert asked
    for name, method in asked.items():
        assert inspect.signature(getattr(type(mpesa), name)) == inspect.signature(method), name


# --- the rules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "fence", "outcome", "after"),
    [
        (S.SENDING, 2, ACCEPTED, S.ACCEPTED),
        (S.SENDING, 1, ACCEPTED, S.ACCEPTED),
        (S.SENDING, 2, NotSent("x"), S.NOT_SENT),
        (S.SENDING, 1, NotSent("x"), S.SENDING),
        (S.SENDING, 2, Refused("x"), S.REFUSED),
        (S.SENDING, 1, Refused("x"), S.SENDING),
        (S.SENDING, 1, Unknown("x"), S.UNKNOWN),
        (S.NOT_SENT, 1, Unknown("x"), S.UNKNOWN),
        (S.NOT_SENT, 1, ACCEPTED, S.ACCEPTED),
        (S.ACCEPTED, 2, NotSent("x"), S.ACCEPTED),
        (S.ACCEPTED, 2, Unknown("x"), S.ACCEPTED),
        (S.ACCEPTED, 2, Refused("x"), S.REFUSED),
        (S.UNKNOWN, 2, NotSent("x"), S.NOT_SENT),
        (S.UNKNOWN, 1, NotSent("x"), S.UNKNOWN),
        (S.REFUSED, 1, Unknown("x"), S.UNKNOWN),
        (S.REFUSED, 2, Unknown("x"), S.REFUSED),
        (S.REFUSED, 2, Done("UKV7RT61SV"), S.DONE),
        (S.CLOSED, 1, ACCEPTED, S.CLOSED),
        (S.CLOSED, 2, Unknown("x"), S.CLOSED),
        (S.CLOSED, 2, NotSent("x"), S.CLOSED),
        (S.CLOSED, 2, Refused("x"), S.CLOSED),
        (S.CLOSED, 1, Done(""), S.DONE),
        (S.DONE, 2, Refused("x"), S.DONE),
        (S.DONE, 2, NotSent("x"), S.DONE),
        (S.DONE, 2, Unknown("x"), S.DONE),
    ],
)
def test_an_outcome_counts_by_what_it_says_and_by_who_says_it(before, fence, outcome, after):
    request = replace(a_request(), status=before, fence=2)

    apply(request, outcome, fence=fence, at=AT)

    assert request.status is after


@pytest.mark.parametrize("order", list(permutations([ACCEPTED, Unknown("timeout"), Refused("x"), Done("UKV7RT61SV")])))
def test_whatever_came_before_or_after_a_proven_success_stays(order):
    request = a_request()

    for outcome in order:
        apply(request, outcome, fence=1, at=AT)

    assert request.status is S.DONE
    assert request.receipt == "UKV7RT61SV"


def test_an_accepted_answer_that_comes_late_still_brings_the_ids_to_a_closed_attempt():
    request = replace(a_request(), status=S.CLOSED)

    apply(request, ACCEPTED, fence=1, at=AT)

    assert request.checkout_request_id == "ws_CO_1"


def test_reference_and_callback_url_belong_to_one_attempt_and_never_change():
    transaction = uuid7()
    first, again, second = (a_request(transaction=transaction, attempt=n) for n in (1, 1, 2))

    assert first.reference == again.reference != second.reference
    assert len(first.reference) == 12
    assert first.reference.isalnum()
    assert first.reference.upper() == first.reference
    assert callback_token(blind_index, first.id) == callback_token(blind_index, first.id)
    assert callback_token(blind_index, first.id) != callback_token(blind_index, again.id)
    assert len(bytes.fromhex(callback_token(blind_index, first.id))) * 8 >= 128


# --- the rows --------------------------------------------------------------------------------------------------------

rows = pytest.mark.django_db(transaction=True)


@rows
def test_what_was_recorded_is_read_back_equal():
    request = a_stored_request()

    read = stored(request)

    assert vars(read) == vars(request)


@rows
def test_recording_and_concluding_a_group_takes_one_statement_each(django_assert_num_queries):
    requests = [a_request(phone=Phone(f"25471100{i:04}")) for i in range(20)]
    with unit_of_work():
        with django_assert_num_queries(1):
            mpesa.record(requests)
        with django_assert_num_queries(2):  # the rows as they are now, and the writing
            outcomes = [(r, Accepted({"CheckoutRequestID": f"ws_{r.id}"})) for r in requests]
            mpesa.requests_of([r.transaction_id for r in requests], outcomes)
        with django_assert_num_queries(1):
            found = mpesa.requests_of([r.transaction_id for r in requests])
        with django_assert_num_queries(1):
            mpesa.save([request for group in found.values() for request in group])
    assert {r.status for group in found.values() for r in group} == {S.ACCEPTED}


@rows
def test_a_phone_has_one_open_prompt_and_is_free_once_the_attempt_is_dead_or_done():
    request = a_stored_request()

    with pytest.raises(PromptOpen), unit_of_work():
        mpesa.record([a_request()])
    assert models.MpesaRequest.objects.count() == 1
    assert stored(request).status is S.SENDING

    with unit_of_work():
        assert mpesa.busy_phones([PHONE, Phone("254711000001")]) == {PHONE}
    conclude(request, Refused("1032"))
    with unit_of_work():
        assert mpesa.busy_phones([PHONE]) == set()
        mpesa.record([a_request()])


@rows
@server_database
def test_of_many_prompts_to_one_phone_at_the_same_moment_one_is_stored():
    start = threading.Barrier(8)

    def go(_):
        start.wait()
        try:
            a_stored_request()
        except (PromptOpen, OperationalError) as error:
            return type(error)
        finally:
            connections.close_all()
        return None

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(go, range(8)))

    assert results.count(None) == 1
    assert models.MpesaRequest.objects.count() == 1


@rows
@pytest.mark.parametrize("outcome", [ACCEPTED, Unknown("timeout"), NotSent("not_connected")])
def test_an_attempt_that_may_still_be_shown_keeps_the_phone(outcome):
    conclude(a_stored_request(), outcome)

    with unit_of_work():
        assert mpesa.busy_phones([PHONE]) == {PHONE}


@rows
def test_a_group_with_one_busy_phone_is_stored_not_at_all():
    a_stored_request()

    with pytest.raises(PromptOpen), unit_of_work():
        mpesa.record([a_request(phone=Phone("254711000001")), a_request()])

    assert models.MpesaRequest.objects.count() == 1


@rows
def test_an_attempt_goes_again_under_a_higher_fence_with_the_same_url():
    request = a_stored_request()
    conclude(request, NotSent("500.003.02"))
    before = models.MpesaRequest.objects.get().callback_hash

    again = replace(request, fence=2, status=S.SENDING, send_before=request.send_before + timedelta(minutes=1))
    with unit_of_work():
        mpesa.record([again])

    read = stored(request)
    assert (read.fence, read.status, read.send_before) == (2, S.SENDING, again.send_before)
    assert models.MpesaRequest.objects.get().callback_hash == before


@rows
def test_a_sender_that_slept_cannot_say_that_nothing_was_sent():
    request = a_stored_request()
    slept = replace(request)
    conclude(request, NotSent("500.003.02"))
    with unit_of_work():
        mpesa.record([replace(request, fence=2, status=S.SENDING)])

    conclude(slept, NotSent("send_before_passed"))
    assert stored(request).status is S.SENDING

    conclude(slept, Unknown("timeout"))
    assert stored(request).status is S.UNKNOWN


@rows
def test_the_receipt_of_another_attempt_is_refused_by_the_database():
    first, second = a_stored_request(), a_stored_request(phone=Phone("254711000001"))
    conclude(first, Done("UKV7RT61SV"))

    with pytest.raises(IntegrityError):
        conclude(second, Done("UKV7RT61SV"))

    assert stored(second).status is S.SENDING
    assert stored(first).receipt == "UKV7RT61SV"


@rows
def test_two_attempts_of_one_leg_with_one_number_are_refused_by_the_database():
    request = a_stored_request()

    with pytest.raises(IntegrityError), unit_of_work():
        mpesa.record([replace(a_request(transaction=request.transaction_id), phone=Phone("254711000001"))])


@rows
def test_nothing_personal_and_no_token_is_readable_in_the_rows():
    request = a_stored_request()
    conclude(request, Accepted({"CheckoutRequestID": "ws_CO_1708374149"}, '{"PhoneNumber": "254708374149"}'))

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM mpesa_requests")
        row = " ".join(str(value) for value in cursor.fetchone())
    for secret in ("708374149", callback_token(blind_index, request.id)):
        assert secret not in row
    assert token_hash(callback_token(blind_index, request.id)) in row
    assert models.MpesaRequest.objects.get().answer == '{"PhoneNumber": "254708374149"}'


@rows
def test_attempts_come_oldest_first_and_by_transaction():
    transaction, other = uuid7(), a_stored_request(phone=Phone("254711000009"))
    first = a_stored_request(transaction=transaction)
    conclude(first, Refused("1032"))
    second = a_stored_request(transaction=transaction, attempt=2)

    with unit_of_work():
        found = mpesa.requests_of([TransactionId(transaction), other.transaction_id, TransactionId(uuid7())])

    assert [r.id for r in found[TransactionId(transaction)]] == [first.id, second.id]
    assert [r.id for r in found[other.transaction_id]] == [other.id]
    assert len(found) == 2
    assert kes(1500) == second.amount
