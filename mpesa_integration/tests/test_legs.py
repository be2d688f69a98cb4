"""Attempts of the legs by which money leaves: their names and limits, what stays unknown, and the database's guard."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from django.db import OperationalError, connections
from uuid_utils.compat import uuid7

from mpesa_integration import models
from mpesa_integration.domain.callback import RESULT_OF
from mpesa_integration.domain.request import OutflowOpen, conclude as apply
from mpesa_integration.facade import mpesa
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
from shared_kernel.domain.money import InvalidAmount
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Refused, Unknown
from shared_kernel.domain.requests import Leg, RequestStatus as S
from shared_kernel.infrastructure.persistence import unit_of_work

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OUTFLOWS = [Leg.B2C_PAYOUT, Leg.B2C_REFUND, Leg.REVERSAL]
rows = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("outcome", [Refused("x"), NotSent("x")])
@pytest.mark.parametrize("before", [S.SENDING, S.UNKNOWN])
def test_after_a_sending_without_a_known_outcome_no_answer_to_another_makes_it_dead_or_unsent(before, outcome):
    request = replace(a_leg(Leg.B2C_PAYOUT), status=before, fence=2, was_unknown=True)

    apply(request, outcome, fence=2, at=AT)

    assert (request.status, request.code) == (S.UNKNOWN, "x")


def test_an_unknown_sending_is_remembered_whatever_comes_after():
    request = a_leg(Leg.B2C_PAYOUT)
    apply(request, Unknown("timeout"), fence=1, at=AT)
    request.status, request.fence = S.SENDING, 2

    apply(request, Refused("400.002.02"), fence=2, at=AT)

    assert (request.status, request.was_unknown, request.code) == (S.UNKNOWN, True, "400.002.02")


def test_a_payout_that_was_accepted_is_not_refused_by_the_answer_to_its_repetition():
    request = replace(a_leg(Leg.B2C_PAYOUT), status=S.ACCEPTED, fence=2)

    apply(request, Refused("x"), fence=2, at=AT)

    assert request.status is S.ACCEPTED


@pytest.mark.parametrize("leg", [*OUTFLOWS, Leg.STATUS_QUERY])
def test_a_reference_is_unique_for_each_leg_and_attempt_and_fits_the_wire(leg):
    transaction = uuid7()
    first, again, second = (a_leg(leg, transaction=transaction, attempt=n) for n in (1, 1, 2))

    assert first.reference == again.reference != second.reference
    assert re.fullmatch("[A-Za-z0-9_-]{32}", first.reference)
    of_one = {a_leg(other, transaction=transaction).reference for other in set(RESULT_OF) - {Leg.ACCOUNT_BALANCE}}
    assert len(of_one) == 5


@pytest.mark.parametrize(
    ("leg", "shillings", "fits"),
    [
        (Leg.STK_PUSH, 1, True),
        (Leg.B2C_PAYOUT, 9, False),
        (Leg.B2C_PAYOUT, 10, True),
        (Leg.B2C_REFUND, 9, False),
        (Leg.B2C_PAYOUT, 250_000, True),
        (Leg.B2C_PAYOUT, 250_001, False),
        (Leg.REVERSAL, 1, True),
        (Leg.REVERSAL, 250_001, False),
    ],
)
def test_each_leg_has_the_limits_of_its_call(leg, shillings, fits):
    if fits:
        assert a_leg(leg, amount=kes(shillings)).amount == kes(shillings)
    else:
        with pytest.raises(InvalidAmount):
            a_leg(leg, amount=kes(shillings))


@pytest.mark.parametrize(
    ("leg", "about", "shortcode"),
    [
        (Leg.STK_PUSH, "", "174379"),
        (Leg.REVERSAL, "UKV7RT61SV", "174379"),
        (Leg.B2C_PAYOUT, "", "600992"),
        (Leg.B2C_REFUND, "", "600992"),
        (Leg.STATUS_QUERY, "UKV7RT61SV", "174379"),
        (Leg.STATUS_QUERY, "a" * 32, "600992"),
    ],
)
def test_a_leg_has_its_usual_shortcode_unless_one_is_given(leg, about, shortcode, settings):
    settings.MPESA_SHORTCODE, settings.MPESA_B2C_SHORTCODE = "174379", "600992"

    assert a_leg(leg, about=about).shortcode == shortcode
    assert a_leg(leg, about=about, shortcode="600001").shortcode == "600001"


# --- the rows --------------------------------------------------------------------------------------------------------


@rows
@pytest.mark.parametrize("leg", [*OUTFLOWS, Leg.STATUS_QUERY])
def test_an_attempt_of_any_leg_is_read_back_equal(leg):
    request = a_stored_leg(leg, about="UKV7RT61SV")

    conclude(request, Accepted({"ConversationID": "AG_1"}))

    assert vars(stored(request)) == vars(request)
    assert request.conversation_id == "AG_1"


@rows
def test_a_payout_holds_no_phone():
    a_stored_leg(Leg.B2C_PAYOUT)

    with unit_of_work():
        assert mpesa.busy_phones([PHONE]) == set()
    a_stored_request()


@rows
@pytest.mark.parametrize("first", OUTFLOWS)
@pytest.mark.parametrize("outcome", [None, Accepted({"ConversationID": "AG"}), Unknown("timeout"), NotSent("busy")])
def test_while_money_may_leave_by_one_attempt_the_database_takes_no_other(first, outcome):
    request = a_stored_leg(first)
    if outcome:
        conclude(request, outcome)

    for other in OUTFLOWS:
        with pytest.raises(OutflowOpen):
            a_stored_leg(other, transaction=request.transaction_id, attempt=2)
    a_stored_leg(Leg.STATUS_QUERY, transaction=request.transaction_id, about=request.reference)
    a_stored_leg(Leg.B2C_PAYOUT)  # of another Transaction


@rows
@pytest.mark.parametrize("outcome", [Refused("400.002.02"), Done("SG632NMUAB")])
def test_an_attempt_that_is_dead_or_done_makes_room(outcome):
    request = a_stored_leg(Leg.B2C_PAYOUT)

    conclude(request, outcome)

    a_stored_leg(Leg.B2C_PAYOUT, transaction=request.transaction_id, attempt=2)


@rows
@server_database
def test_of_a_payout_and_give_backs_at_the_same_moment_one_is_stored():
    start, transaction = threading.Barrier(6), uuid7()

    def go(number):
        start.wait()
        try:
            a_stored_leg(OUTFLOWS[number % 3], transaction=transaction, attempt=number + 1)
        except (OutflowOpen, OperationalError) as error:
            return type(error)
        finally:
            connections.close_all()
        return None

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(go, range(6)))

    assert results.count(None) == 1
    assert models.MpesaRequest.objects.count() == 1


@rows
def test_a_payout_sent_again_after_a_sender_vanished_stays_unknown_when_it_is_refused():
    request = a_stored_leg(Leg.B2C_PAYOUT)  # its sender never said what became of it
    again = replace(request, fence=2, status=S.SENDING)
    with unit_of_work():
        mpesa.record([again])

    conclude(again, Refused("400.002.02"))

    read = stored(request)
    assert (read.status, read.code, read.was_unknown) == (S.UNKNOWN, "400.002.02", True)


@rows
def test_a_payout_sent_again_after_it_surely_never_left_can_be_refused():
    request = a_stored_leg(Leg.B2C_PAYOUT)
    conclude(request, NotSent("500.003.02"))
    again = replace(request, fence=2, status=S.SENDING)
    with unit_of_work():
        mpesa.record([again])

    conclude(again, Refused("400.002.02"))

    assert (stored(request).status, stored(request).was_unknown) == (S.REFUSED, False)


@rows
def test_what_the_saga_decides_about_a_payout_is_stored():
    request = a_stored_leg(Leg.B2C_PAYOUT)

    with unit_of_work():
        mpesa.save([replace(request, status=S.DONE, receipt="SG632NMUAB", was_unknown=True)])

    read = stored(request)
    assert (read.status, read.receipt, read.was_unknown) == (S.DONE, "SG632NMUAB", True)
    assert models.MpesaRequest.objects.get().open_outflow is None


@rows
def test_the_attempts_of_all_legs_come_oldest_first_each_once_with_its_own_claims():
    first = a_stored_leg(Leg.B2C_PAYOUT)
    about = {"transaction": first.transaction_id, "about": first.reference}
    asked = [a_stored_leg(Leg.STATUS_QUERY, attempt=number, **about) for number in (1, 2)]
    for number, request in enumerate([first, *asked, first, *asked]):
        models.MpesaCallback.objects.create(
            id=uuid7(), request_id=request.id, kind="b", received_at=AT + timedelta(seconds=number), peer="",
            last_received_at=AT, sha256=f"{number:064}", verdict="agrees", result_code=str(number),
        )  # fmt: skip

    with unit_of_work():
        found = mpesa.requests_of([first.transaction_id])[first.transaction_id]

    assert [r.id for r in found] == [first.id, asked[0].id, asked[1].id]
    assert [[c.result_code for c in r.claims] for r in found] == [["0", "3"], ["1", "4"], ["2", "5"]]
