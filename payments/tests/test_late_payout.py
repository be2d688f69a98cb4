"""What of a payout comes late, twice, or against what was made of it meanwhile; on ports in memory."""

from datetime import timedelta

import pytest

from payments.domain.transaction import TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from payments.tests.withdrawals import LONG, books_agree, debited, in_transit, paid, payout_of
from shared_kernel.domain.outcome import NotSent, Unknown
from shared_kernel.domain.requests import Blame, Leg
from tests.in_memory import WithdrawalBench


@pytest.fixture
def bench() -> WithdrawalBench:
    return WithdrawalBench()


def asked(bench: WithdrawalBench) -> int:
    return len([request for request in bench.mpesa.sent if request.leg is Leg.STATUS_QUERY])


# --- what comes late -----------------------------------------------------------------------


def given_up(bench: WithdrawalBench) -> Withdrawal:
    """Its payout is proven dead; its credit-back does not leave yet."""
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    bench.deriv.answers = [bench.deriv.debits_login, NotSent("connect", retry_after_s=300)]
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.CREDIT_BACK_PENDING
    return withdrawal


def pays_late(bench: WithdrawalBench, withdrawal: Withdrawal) -> None:
    request = payout_of(bench, withdrawal, 0)
    bench.mpesa.refused.clear()
    bench.world.tick(seconds=5)
    bench.mpesa.pays_out(request)
    bench.drive(withdrawal)


def test_a_late_success_before_the_credit_back_left_completes_and_nothing_goes_back(bench: WithdrawalBench) -> None:
    withdrawal = given_up(bench)

    pays_late(bench, withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert not bench.deriv.book
    assert books_agree(bench)
    assert in_transit(bench) == (0, 0)


@pytest.mark.parametrize("effect", [False, True])
def test_a_late_success_against_a_credit_back_that_may_be_out_is_owed_and_no_other_is_sent(
    bench: WithdrawalBench, effect: bool
) -> None:
    withdrawal = given_up(bench)
    bench.deriv.answers, bench.deriv.is_down = [bench.deriv.books_in_silence if effect else Unknown("timeout")], True
    bench.sweep(withdrawal, until=timedelta(minutes=6))

    pays_late(bench, withdrawal)
    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "paid_and_credited_back")
    assert bench.world.balance("receivable") == 1270_00

    bench.deriv.is_down = False
    for _ in range(3):  # a person may send it back as often as they like
        bench.saga.resume(withdrawal.id, why="looked into it")
        bench.drive(withdrawal)
        bench.sweep(withdrawal, until=timedelta(hours=2))
        if bench.now(withdrawal).status is not S.NEEDS_ATTENTION:
            break
    assert len(bench.deriv.book) == effect
    assert books_agree(bench)
    assert bench.now(withdrawal).status is (S.REVERSED if effect else S.NEEDS_ATTENTION)


def test_a_late_success_after_the_credit_back_is_owed_and_re_opens_the_case(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.REVERSED

    pays_late(bench, withdrawal)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.attention_from) == (S.NEEDS_ATTENTION, S.REVERSED)
    assert bench.world.balance("receivable") == 1270_00
    assert books_agree(bench)


def test_a_late_success_that_m_pesa_does_not_confirm_is_asked_about_in_time_and_holds_the_credit_back(
    bench: WithdrawalBench,
) -> None:
    withdrawal = given_up(bench)
    before, bench.mpesa.status_is_down = asked(bench), True
    bench.world.tick(minutes=10)  # the credit-back is due

    bench.mpesa.forges(payout_of(bench, withdrawal))
    bench.drive(withdrawal)

    assert asked(bench) == before + 1  # not a burst
    assert not bench.deriv.book
    bench.mpesa.status_is_down = False
    bench.sweep(withdrawal, until=LONG)
    assert bench.now(withdrawal).status is S.REVERSED
    assert books_agree(bench)


def test_a_success_of_the_first_attempt_after_the_second_left_is_taken_and_the_second_is_owed(
    bench: WithdrawalBench,
) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.FLOAT, "1"), bench.mpesa.takes]
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=6), stop=lambda w: len(w.payouts) == 2)

    pays_late(bench, withdrawal)
    assert bench.now(withdrawal).status is S.COMPLETED
    bench.mpesa.pays_out(payout_of(bench, withdrawal, 1))
    bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    assert bench.world.balance("receivable") == 1270_00
    assert books_agree(bench)


def test_a_forged_success_of_the_second_attempt_does_not_undo_what_the_first_one_paid(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.FLOAT, "1"), bench.mpesa.takes]
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=6), stop=lambda w: len(w.payouts) == 2)
    pays_late(bench, withdrawal)
    second = payout_of(bench, withdrawal, 1)
    bench.mpesa.refused[second.reference] = Blame.FLOAT

    bench.mpesa.forges(second)
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert len(bench.mpesa.paid_out) == 1
    assert books_agree(bench)
    assert bench.world.balance("receivable") == 0


def test_a_success_of_a_payout_that_a_person_already_looks_at_is_taken_by_proof(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    bench.sweep(withdrawal, until=LONG)
    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION

    bench.world.tick(seconds=1)
    bench.mpesa.pays_out(payout_of(bench, withdrawal))
    bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert payout_of(bench, withdrawal).code == "confirmed"
    assert books_agree(bench)


def test_a_contradiction_after_completion_is_asked_about_and_changes_nothing_but_by_proof(
    bench: WithdrawalBench,
) -> None:
    withdrawal = paid(bench)
    bench.world.tick(hours=1)

    bench.mpesa.forges(payout_of(bench, withdrawal), "2040", blame=Blame.RECIPIENT)
    bench.drive(withdrawal)

    assert asked(bench) == 1
    assert bench.now(withdrawal).status is S.COMPLETED
    assert not bench.deriv.book


def test_contradictions_without_end_come_before_a_person_and_never_stall(bench: WithdrawalBench) -> None:
    withdrawal = paid(bench)
    bench.mpesa.status_is_down = True

    for _ in range(30):
        bench.world.tick(seconds=20)
        bench.mpesa.forges(payout_of(bench, withdrawal), "2040")
        bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    assert asked(bench) <= 30
    assert books_agree(bench)


def test_a_payout_never_leaves_while_another_one_is_known_to_have_been_made(bench: WithdrawalBench) -> None:
    """The second was booked on a lie, the first turns out to be paid, the lie is found out, a person resumes."""
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.FLOAT, "1"), bench.mpesa.takes]
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=6), stop=lambda w: len(w.payouts) == 2)
    second = payout_of(bench, withdrawal, 1)
    bench.mpesa.refused[second.reference] = Blame.FLOAT
    bench.mpesa.forges(second)
    bench.drive(withdrawal)
    bench.mpesa.refused.pop(payout_of(bench, withdrawal, 0).reference)
    bench.world.tick(seconds=5)
    bench.mpesa.pays_out(payout_of(bench, withdrawal, 0))
    bench.drive(withdrawal)
    bench.saga.resume(withdrawal.id, why="the customer owes one of them")
    bench.sweep(withdrawal, until=LONG)

    for _ in range(3):
        if bench.now(withdrawal).status is S.NEEDS_ATTENTION:
            bench.resume(withdrawal)
            bench.sweep(withdrawal, until=timedelta(hours=2))

    assert len(bench.mpesa.paid_out) == 1
    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    assert bench.now(withdrawal).failure_code == "money_has_left"
    assert books_agree(bench)
