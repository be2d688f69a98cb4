"""A deposit's credit that comes late, and Deriv's repeatable requests; on ports in memory."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from payments.domain.transaction import TransactionStatus as S
from payments.tests.giving_back import LONG, paid, reversals
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.outcome import Absent, Found, NotSent, Outcome, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import (
    DerivPlatform,
    DerivTransfer,
    Leg,
    RequestStatus,
)
from tests.in_memory import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- late credits -----------------------------------------------------------------------


@pytest.mark.parametrize("effect", [False, True])
def test_a_credit_that_turns_up_against_a_give_back_is_owed_and_nothing_more_leaves(bench: Bench, effect: bool) -> None:
    deposit = paid(bench)
    bench.mpesa.reversals = [bench.mpesa.reverses_in_silence if effect else Unknown("timeout")]

    def late(transfer: DerivTransfer) -> Outcome:
        bench.world.tick(minutes=1)
        bench.deriv.answers = [Unknown("timeout")] * 2  # the other attempts; all three are proven dead
        bench.sweep(deposit, until=LONG, stop=lambda d: bool(d.at_mpesa(Leg.REVERSAL)))
        return bench.deriv.books(transfer)

    bench.deriv.answers = [late]
    bench.drive(deposit)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "credited_and_refunded")
    assert bench.world.balance("receivable usd") == deposit.payout.amount
    for _ in range(3):
        bench.resume(deposit)
        bench.sweep(deposit, until=timedelta(hours=3))
    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert len(reversals(bench)) == 1  # to ask once more would be to do it
    assert len(bench.deriv.book) == 1


def test_a_credit_that_turns_up_before_anything_went_back_completes(bench: Bench) -> None:
    deposit = paid(bench)
    bench.mpesa.reversals = [NotSent("connect", retry_after_s=900)]

    def late(transfer: DerivTransfer) -> Outcome:
        bench.world.tick(minutes=1)
        bench.deriv.answers = [Unknown("timeout")] * 2
        bench.sweep(deposit, until=LONG, stop=lambda d: bool(d.at_mpesa(Leg.REVERSAL)))
        return bench.deriv.books(transfer)

    bench.deriv.answers = [late]
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    assert not bench.mpesa.reversed
    assert bench.world.balance("in-transit") == 0
    assert bench.world.balance("receivable usd") == 0


@pytest.mark.parametrize("gone", [False, True])
def test_a_closed_credit_that_the_agents_book_shows_later_is_posted(bench: Bench, gone: bool) -> None:
    deposit = paid(bench)
    bench.deriv.answers = [Unknown("timeout")] * 3
    bench.mpesa.reversals = [] if gone else [NotSent("connect", retry_after_s=900)] * 50
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG, stop=lambda d: bool(d.at_mpesa(Leg.REVERSAL)))
    bench.sweep(deposit, until=timedelta(minutes=10))
    assert bench.now(deposit).status is (S.REFUNDED if gone else S.REFUND_PENDING)
    bench.deriv.books(bench.deriv.sent[0])

    for _ in range(2):
        bench.saga.look_again([deposit.id])
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is (S.NEEDS_ATTENTION if gone else S.COMPLETED)
    assert bench.world.balance("deriv") == -deposit.payout.amount
    assert bench.world.balance("receivable usd") == (deposit.payout.amount if gone else 0)
    assert bool(bench.mpesa.reversed) == gone


def test_one_that_can_not_be_looked_at_again_is_told_at_the_end_and_the_others_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned, other = paid(bench), bench.deposit(phone="254712345679")
    bench.drive(poisoned)
    asked: list[UUID] = []
    saga = bench.saga
    whole = type(saga).whole

    def breaks(saga: Any, ids: Sequence[UUID]) -> Any:
        asked.extend(ids)
        if poisoned.id in ids:
            raise ValueError("poison")
        return whole(saga, ids)

    monkeypatch.setattr(type(saga), "whole", breaks)
    with pytest.raises(StepsFailed) as failed:
        saga.look_again([poisoned.id, other.id])

    assert set(failed.value.errors) == {poisoned.id}
    assert other.id in asked


@pytest.mark.parametrize("platform", DerivPlatform)
def test_an_entry_of_an_older_attempt_is_posted_once_and_its_attempt_says_so(
    bench: Bench, platform: DerivPlatform
) -> None:
    deposit = paid(bench, platform)
    bench.deriv.answers, bench.deriv.lookups = [Unknown("timeout")], [Found(("8000",), reverted=True)]
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert [t.status for t in bench.now(deposit).transfers] == [RequestStatus.CLOSED, RequestStatus.DONE]
    bench.deriv.book.append((bench.deriv.sent[0].reference, deposit.payout, "9500"))

    for _ in range(3):
        bench.saga.look_again([deposit.id])

    ended = bench.now(deposit)
    assert [(t.status, t.provider_transaction_id) for t in ended.transfers] == [
        (RequestStatus.DONE, "9500"),
        (RequestStatus.DONE, ended.deriv_transfer_id),
    ]
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "credited_twice")
    assert bench.world.frozen
    assert bench.world.balance("deriv") == -2 * deposit.payout.amount


# --- Deriv's REST -----------------------------------------------------------------------


def test_on_rest_the_very_same_request_goes_again_after_a_minute_and_has_one_effect(bench: Bench) -> None:
    deposit = paid(bench, DerivPlatform.REST)
    bench.deriv.answers = [bench.deriv.books_in_silence]
    bench.deriv.lookups = [Absent(proven=False, repeatable=True)] * 6

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    assert len({transfer.reference for transfer in bench.deriv.sent}) == 1
    assert bench.deriv.sent[-1].fence == 2
    assert len(bench.deriv.book) == 1


def test_on_rest_a_refusal_of_the_repeat_is_no_refusal_of_the_first(bench: Bench) -> None:
    deposit = paid(bench, DerivPlatform.REST)
    bench.deriv.answers = [bench.deriv.books_in_silence, Refused("AccountDisabled")]
    bench.deriv.lookups = [*([Absent(proven=False, repeatable=True)] * 6), Unreadable("down")]

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    assert not bench.mpesa.sent


def test_on_rest_an_entry_reverted_before_it_was_seen_is_followed_by_a_new_attempt(bench: Bench) -> None:
    deposit = paid(bench, DerivPlatform.REST)
    bench.deriv.answers, bench.deriv.lookups = [Unknown("timeout")], [Found(("9000",), reverted=True)]
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    first, second = bench.now(deposit).transfers
    assert (first.status, second.status) == (RequestStatus.CLOSED, RequestStatus.DONE)
    assert first.reference != second.reference
    assert bench.now(deposit).status is S.COMPLETED
