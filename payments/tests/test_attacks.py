"""Attempts to make a deposit pay twice, lose money, guess, or stall; each was found by reading against the promises."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from payments.domain.transaction import Transaction, TransactionStatus as S
from shared_kernel.domain.outcome import NotSent, Outcome, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import MpesaPayment, MpesaRequest, RequestStatus
from tests.in_memory import Bench

LONG = timedelta(hours=60)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def reference_of(bench: Bench, deposit: Transaction) -> str:
    return bench.now(deposit).payments[0].reference


def pays(bench: Bench, deposit: Transaction) -> None:
    bench.mpesa.pays(reference_of(bench, deposit), deposit.amount)


# --- two workers on one deposit -------------------------------------------------------------------------------------


def test_a_second_worker_whose_query_comes_back_later_disturbs_nothing(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.world.tick(seconds=8)
    pays(bench, deposit)
    bench.mpesa.calls_back(deposit.id)
    ask, slow = bench.mpesa.query, [True]

    def query(request: MpesaRequest) -> Outcome:
        answer = ask(request)
        if slow and slow.pop():  # while this one's answer travels, another worker does it all
            bench.drive(deposit)
        return answer

    bench.mpesa.query = query  # type: ignore[method-assign]
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED
    assert len(bench.deriv.sent) == 1


def test_a_second_worker_does_not_put_off_a_transfer_that_is_under_way(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.world.tick(seconds=8)
    pays(bench, deposit)
    bench.mpesa.calls_back(deposit.id)
    bench.deriv.answers = [Unknown("timeout")]
    ask, slow = bench.mpesa.payments, [True]

    def payments(request: MpesaRequest) -> Sequence[MpesaPayment] | Unreadable:
        answer = ask(request)
        if slow and slow.pop():
            bench.drive(deposit)
        return answer

    bench.mpesa.payments = payments  # type: ignore[method-assign]
    prompt = next(iter(bench.world.prompts.values()))
    prompt.status = RequestStatus.UNKNOWN
    bench.drive(deposit)

    left = bench.now(deposit)
    assert left.status is S.DERIV_TRANSFER_SENT
    assert left.next_step_at is not None
    assert left.next_step_at - bench.world.now == bench.timing.nth(bench.timing.deriv_asks_s, 0)


# --- absences ---------------------------------------------------------------------------------------------------------


def test_a_prompt_that_went_out_late_is_not_closed_by_two_readings_in_one_minute(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [NotSent("connect", retry_after_s=1780), Unknown("timeout")]
    bench.drive(deposit)
    bench.sweep(deposit, until=timedelta(seconds=1790), stop=lambda t: len(bench.mpesa.pushed) == 2)
    assert len(bench.mpesa.pushed) == 2  # only now was the customer asked

    for _ in range(3):
        bench.world.tick(seconds=15)
        bench.mpesa.calls_back(deposit.id, code="1037")  # a claim, whoever made it
        bench.drive(deposit)

    assert bench.now(deposit).status is S.AWAITING_MPESA


def test_two_readings_count_only_a_quarter_of_an_hour_apart_also_after_the_book_was_down(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers, bench.mpesa.book_is_down = [Unknown("timeout")], True
    bench.drive(deposit)
    bench.sweep(deposit, until=timedelta(hours=2))

    bench.mpesa.book_is_down = False
    for _ in range(3):
        bench.world.tick(seconds=1)
        bench.mpesa.calls_back(deposit.id, code="1037")
        bench.drive(deposit)

    assert bench.now(deposit).status is S.AWAITING_MPESA
    bench.sweep(deposit, until=timedelta(minutes=40))
    assert bench.now(deposit).status is S.FAILED


# --- late proof -----------------------------------------------------------------------------------------------------


def failed(bench: Bench) -> Transaction:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.settled[reference_of(bench, deposit)] = Refused("1037")
    bench.sweep(deposit, until=timedelta(minutes=1))
    assert bench.now(deposit).status is S.FAILED
    return deposit


@pytest.mark.parametrize("down", [False, True])
def test_a_payment_proven_by_the_query_alone_after_the_failure_is_never_dropped(bench: Bench, down: bool) -> None:
    deposit = failed(bench)
    bench.world.tick(minutes=1)
    pays(bench, deposit)
    [late], bench.mpesa.book, bench.mpesa.book_is_down = bench.mpesa.book, [], down  # the book lags behind

    bench.mpesa.calls_back(deposit.id, agrees=False)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert bench.mpesa.busy_phones([deposit.phone]) == set()

    bench.mpesa.book, bench.mpesa.book_is_down = [late], False
    bench.saga.resume(deposit.id, why="asked M-Pesa")
    bench.drive(deposit)
    assert bench.now(deposit).status is S.COMPLETED


def test_a_success_that_the_query_denies_fails_only_once_the_book_was_read_twice(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.settled[reference_of(bench, deposit)] = Refused("1037")

    bench.mpesa.calls_back(deposit.id, code="0")
    bench.drive(deposit)
    assert bench.now(deposit).status is S.AWAITING_MPESA
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.FAILED
    assert bench.world.now - deposit.created_at >= timedelta(minutes=30)
    assert any(record.action == "mpesa.claim_contradicts_proof" for record in bench.world.audit)
    assert not bench.world.entries


def test_a_success_that_comes_after_the_failure_and_that_the_query_denies_comes_before_a_person(bench: Bench) -> None:
    deposit = failed(bench)

    bench.world.tick(seconds=1)
    bench.mpesa.calls_back(deposit.id, code="0")
    bench.drive(deposit)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert bench.mpesa.busy_phones([deposit.phone]) == set()


def test_a_success_that_the_query_denies_and_the_book_shows_is_credited(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    pays(bench, deposit)
    bench.mpesa.settled[reference_of(bench, deposit)] = Refused("1037")

    bench.mpesa.calls_back(deposit.id, code="0")
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED


def test_a_payment_of_a_prompt_that_was_refused_at_the_door_is_looked_for_in_the_book(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Refused("500.001.1001")]
    bench.mpesa.query = lambda request: Unknown("no_checkout_request_id")  # type: ignore[method-assign]
    bench.drive(deposit)
    assert bench.now(deposit).status is S.FAILED

    pays(bench, deposit)
    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED


def test_a_success_after_the_failure_that_the_book_does_not_show_yet_comes_before_a_person(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Unknown("timeout")]
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.FAILED

    bench.world.tick(seconds=5)
    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION


def test_a_prompt_that_somebody_answered_is_not_sent_once_more(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [NotSent("500.003.02")]
    bench.drive(deposit)
    pays(bench, deposit)
    bench.mpesa.calls_back(deposit.id)

    bench.sweep(deposit, until=LONG)

    assert len(bench.mpesa.pushed) == 1
    assert bench.now(deposit).status is S.COMPLETED


# --- stalls -----------------------------------------------------------------------------------------------------------


def test_a_prompt_whose_query_was_down_for_hours_still_fails_by_the_query_and_frees_the_phone(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    reference = reference_of(bench, deposit)
    bench.mpesa.settled[reference] = Unknown("503")
    bench.sweep(deposit, until=timedelta(hours=3))
    bench.mpesa.settled[reference] = Refused("1032")

    bench.sweep(deposit, until=timedelta(hours=1))

    assert bench.now(deposit).status is S.FAILED
    assert bench.mpesa.busy_phones([deposit.phone]) == set()


def test_a_prompt_shown_to_a_person_is_asked_about_both_ways_when_it_is_resumed(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    asked: list[Any] = []
    ask, read = bench.mpesa.query, bench.mpesa.payments
    bench.mpesa.query = lambda request: (asked.append("query"), ask(request))[1]  # type: ignore[func-returns-value,method-assign]
    bench.mpesa.payments = lambda request: (asked.append("book"), read(request))[1]  # type: ignore[func-returns-value,method-assign]

    bench.saga.resume(deposit.id, why="asked M-Pesa")
    bench.drive(deposit)

    assert asked == ["query", "book"]
    assert bench.now(deposit).status is S.NEEDS_ATTENTION
