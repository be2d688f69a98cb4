"""A deposit's way back: the reversal, the refund by B2C that people allowed, and what else comes late; and holds."""

from datetime import timedelta

import pytest

from payments.domain.deposit import Deposit
from payments.domain.transaction import OtherWayOpen, TransactionStatus as S
from payments.tests.giving_back import LONG, paid, refused, reversals, went_back
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.requests import (
    Blame,
    Leg,
    MpesaClaim,
    RequestStatus,
)
from tests.in_memory import FEE, Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


# --- the reversal -----------------------------------------------------------------------


def test_a_reversal_is_proven_by_the_same_once_more_and_posted_once(bench: Bench) -> None:
    deposit = refused(bench)

    bench.sweep(deposit, until=LONG)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_detail) == (S.REFUNDED, "Your Deriv account is disabled.")
    assert [(r.attempt, r.about, r.amount) for r in reversals(bench)] == [(1, "UKM0000001", deposit.amount)] * 2
    assert went_back(bench)
    assert not bench.world.reserved


def test_a_reversals_success_is_a_claim_and_gives_nothing_back_in_the_books(bench: Bench) -> None:
    deposit = refused(bench)
    bench.mpesa.reversals = [bench.mpesa.takes] * 1000

    bench.sweep(deposit, until=timedelta(seconds=20))
    bench.mpesa.forges(bench.now(deposit).at_mpesa(Leg.REVERSAL)[0])
    bench.drive(deposit)

    assert bench.now(deposit).status is S.REFUND_PENDING
    assert -bench.world.balance("in-transit") == deposit.amount.amount


def test_a_lost_answer_is_followed_by_the_same_reversal_until_m_pesa_says_that_it_is_made(bench: Bench) -> None:
    deposit = refused(bench)
    bench.mpesa.reversals = [bench.mpesa.reverses_in_silence]

    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert len({request.reference for request in reversals(bench)}) == 1
    assert [request.fence for request in reversals(bench)] == [1, 2]
    assert went_back(bench)


@pytest.mark.parametrize("answer", [Unknown("timeout"), Refused("500.001.1001")])
def test_a_refusal_of_the_repeat_speaks_only_for_itself(bench: Bench, answer: Outcome) -> None:
    deposit = refused(bench)
    bench.mpesa.reversals = [bench.mpesa.reverses_in_silence, answer]

    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert went_back(bench)


def test_a_reversal_that_stays_unknown_comes_before_a_person_and_nothing_else_leaves(bench: Bench) -> None:
    deposit = refused(bench)
    bench.mpesa.reversals = [Unknown("timeout")] * 1000

    bench.sweep(deposit, until=LONG)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code, ended.attention_from) == (
        S.NEEDS_ATTENTION, "payment_unknown", S.REFUND_PENDING,
    )  # fmt: skip
    assert {request.leg for request in bench.mpesa.sent} == {Leg.REVERSAL}
    with pytest.raises(OtherWayOpen):
        ended.allow_refund_by_b2c(at=bench.world.now)


def test_a_reversal_of_what_was_reversed_before_we_asked_is_posted_and_a_case(bench: Bench) -> None:
    deposit = refused(bench)
    bench.mpesa.reversed.add("UKM0000001")

    bench.sweep(deposit, until=LONG)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code, ended.attention_from) == (
        S.NEEDS_ATTENTION, "reversed_by_others", S.REFUNDED,
    )  # fmt: skip
    assert went_back(bench)


def test_a_reversal_that_can_not_leave_for_a_day_comes_before_a_person(bench: Bench) -> None:
    deposit = refused(bench)
    bench.mpesa.reversals = [NotSent("initiator_stopped", retry_after_s=300)] * 1000

    bench.sweep(deposit, until=LONG)
    assert (bench.now(deposit).status, bench.now(deposit).failure_code) == (S.NEEDS_ATTENTION, "payment_not_sent")

    bench.mpesa.reversals = []
    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.REFUNDED
    assert went_back(bench)


def test_the_receipt_is_looked_for_in_m_pesas_book_and_a_person_is_shown_its_absence(bench: Bench) -> None:
    deposit = refused(bench)
    [payment], bench.mpesa.book = bench.mpesa.book, []

    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).failure_code == "receipt_not_found"
    assert not reversals(bench)

    bench.mpesa.book = [payment]
    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.REFUNDED
    assert went_back(bench)


# --- the refund by B2C -----------------------------------------------------------------------


def reversal_refused(bench: Bench) -> Deposit:
    deposit = refused(bench)
    bench.mpesa.reversals = [bench.mpesa.refuses_reversal] * 1000
    bench.sweep(deposit, until=LONG)
    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "refund_refused:R000002")
    return deposit


def allowed(bench: Bench) -> Deposit:
    """Two persons saw that the reversal is dead, and allowed a refund by B2C."""
    deposit = reversal_refused(bench)
    with bench.world.unit_of_work():
        row = bench.saga.one(deposit.id)
        for reversal in row.at_mpesa(Leg.REVERSAL):
            reversal.status = RequestStatus.CLOSED
            row.change(reversal)
        row.allow_refund_by_b2c(at=bench.world.now)
        bench.saga.save([row], ())
    return deposit


def test_a_refused_reversal_comes_before_a_person_and_a_refusal_alone_allows_no_b2c(bench: Bench) -> None:
    deposit = reversal_refused(bench)

    with pytest.raises(OtherWayOpen):
        bench.now(deposit).allow_refund_by_b2c(at=bench.world.now)
    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)

    assert not bench.mpesa.paid_out
    assert len({request.reference for request in reversals(bench)}) == 1


def test_a_refund_by_b2c_goes_out_once_it_is_allowed_is_booked_on_the_claim_and_confirmed(bench: Bench) -> None:
    deposit = allowed(bench)

    bench.resume(deposit)
    assert bench.now(deposit).status is S.REFUNDED
    bench.sweep(deposit, until=LONG)

    [refund] = bench.now(deposit).at_mpesa(Leg.B2C_REFUND)
    assert (refund.phone, refund.amount, refund.code) == (deposit.phone, deposit.amount, "confirmed")
    assert bench.world.balance("fees") == FEE.amount
    assert went_back(bench)
    assert bench.now(deposit).next_step_at is None


@pytest.mark.parametrize("shillings", [1200, 1400])
@pytest.mark.parametrize("is_forged", [False, True])
def test_a_refund_by_b2c_of_another_amount_is_posted_as_paid_and_comes_before_a_person(
    bench: Bench, shillings: int, is_forged: bool
) -> None:
    deposit = allowed(bench)
    paid_back = Money(shillings * 100, Currency.KES)
    bench.mpesa.payouts = [bench.mpesa.takes if is_forged else bench.mpesa.pays_out_another(paid_back)]
    bench.resume(deposit)
    if is_forged:
        [refund] = bench.now(deposit).at_mpesa(Leg.B2C_REFUND)
        bench.mpesa.paid_out[refund.reference] = paid_back
        bench.world.tick(seconds=1)
        bench.mpesa.forges(refund)
        bench.drive(deposit)
        assert bench.now(deposit).status is S.REFUNDED
        bench.sweep(deposit, until=LONG)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "refunded_another_amount")
    assert bench.world.balance("utility") == -paid_back.amount
    assert bench.world.balance("in-transit") == 0
    assert bench.world.balance("suspense") == paid_back.amount - deposit.amount.amount
    assert ended.next_step_at is None


def test_a_refund_by_b2c_that_was_booked_on_a_lie_is_undone_shown_and_made_again(bench: Bench) -> None:
    deposit = allowed(bench)
    bench.mpesa.payouts = [bench.mpesa.takes]
    bench.resume(deposit)
    [refund] = bench.now(deposit).at_mpesa(Leg.B2C_REFUND)
    bench.mpesa.refused[refund.reference] = Blame.FLOAT
    bench.world.tick(seconds=1)
    bench.mpesa.forges(refund)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.REFUNDED

    bench.sweep(deposit, until=LONG)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code, ended.attention_from) == (
        S.NEEDS_ATTENTION, "refund_denied", S.REFUND_PENDING,
    )  # fmt: skip
    assert -bench.world.balance("in-transit") == deposit.amount.amount
    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.REFUNDED
    assert went_back(bench)


def test_a_refund_by_b2c_waits_for_a_person_while_the_reversal_is_in_doubt_again(bench: Bench) -> None:
    deposit = allowed(bench)
    reversal = bench.now(deposit).at_mpesa(Leg.REVERSAL)[0]
    bench.world.tick(seconds=1)
    bench.mpesa.forges(reversal)  # its success is claimed after all
    bench.drive(deposit)
    assert bench.now(deposit).failure_code == "reversal_contradictory"

    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)

    assert not bench.mpesa.paid_out
    assert bench.now(deposit).status is S.NEEDS_ATTENTION


def test_what_is_less_than_m_pesa_pays_out_comes_before_a_person_and_fails_no_step(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, Money(5_00, Currency.KES))
    bench.mpesa.calls_back(deposit.id, agrees=False)
    bench.mpesa.reversals = [bench.mpesa.refuses_reversal]
    bench.drive(deposit)
    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)
    with bench.world.unit_of_work():
        row = bench.saga.one(deposit.id)
        row.at_mpesa(Leg.REVERSAL)[0].status = RequestStatus.CLOSED
        row.change(row.at_mpesa(Leg.REVERSAL)[0])
        row.allow_refund_by_b2c(at=bench.world.now)
        bench.saga.save([row], ())

    bench.resume(deposit)

    assert bench.now(deposit).failure_code == "amount_not_payable"
    assert bench.now(deposit).failures == 0


def test_an_unknown_refund_by_b2c_is_asked_about_and_never_made_twice(bench: Bench) -> None:
    deposit = allowed(bench)
    bench.mpesa.payouts = [bench.mpesa.pays_out_in_silence]

    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert len(bench.now(deposit).at_mpesa(Leg.B2C_REFUND)) == 1
    assert went_back(bench)


# --- holds -----------------------------------------------------------------------


def hold(bench: Bench, deposit: Deposit) -> None:
    bench.saga.hold(deposit.id, owner="mary", why="sanctions hit")


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("hours", [2, 24 * 9])
def test_a_held_deposit_takes_its_proof_and_sends_nothing_past_every_deadline(
    bench: Bench, down: bool, hours: int
) -> None:
    deposit = paid(bench)
    bench.deriv.answers = [NotSent("connect")] if down else []
    if down:
        bench.drive(deposit)
    hold(bench, deposit)

    bench.drive(deposit)
    bench.world.tick(hours=hours)
    bench.drive(deposit)

    held = bench.now(deposit)
    assert held.status is (S.DERIV_TRANSFER_SENT if down else S.MPESA_CONFIRMED)
    assert -bench.world.balance("in-transit") == deposit.amount.amount
    assert not bench.deriv.book
    assert not bench.mpesa.sent
    bench.saga.release(deposit.id, why="a false hit")
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is (S.REFUNDED if hours > 24 else S.COMPLETED)  # as its deadline has it


def test_a_held_give_back_stays_and_its_unknown_reversal_is_not_repeated_until_release(bench: Bench) -> None:
    deposit = refused(bench)
    bench.mpesa.reversals = [bench.mpesa.reverses_in_silence]
    bench.sweep(deposit, until=timedelta(seconds=5))
    assert len(reversals(bench)) == 1
    hold(bench, deposit)

    bench.sweep(deposit, until=LONG)
    assert len(reversals(bench)) == 1
    assert bench.now(deposit).status is S.REFUND_PENDING

    bench.saga.release(deposit.id, why="a false hit")
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.REFUNDED
    assert went_back(bench)


def test_a_proof_is_taken_while_held(bench: Bench) -> None:
    deposit = paid(bench)
    bench.deriv.answers = [bench.deriv.books_in_silence]
    bench.drive(deposit)
    hold(bench, deposit)

    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    assert [record.action for record in bench.world.audit if record.why == "sanctions hit"] == ["transaction.held"]


def test_what_was_paid_too_much_stays_in_suspense_when_the_rest_goes_back(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, Money(1500_00, Currency.KES))
    bench.mpesa.calls_back(deposit.id, agrees=False)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.NEEDS_ATTENTION

    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert reversals(bench)[0].amount == deposit.amount
    assert -bench.world.balance("suspense") == 200_00


def test_a_reversal_that_is_done_is_not_undone_by_what_callbacks_say_later(bench: Bench) -> None:
    deposit = refused(bench)
    bench.sweep(deposit, until=LONG)
    reversal = bench.now(deposit).at_mpesa(Leg.REVERSAL)[0]
    sent = len(bench.mpesa.sent)

    for code in ("0", "R000002", "2040", "timeout"):
        bench.world.tick(seconds=5)
        bench.mpesa.tells(reversal, MpesaClaim(code, bench.world.now))
        bench.drive(deposit)

    assert bench.now(deposit).status is S.REFUNDED
    assert len(bench.mpesa.sent) == sent
