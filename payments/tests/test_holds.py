"""A held withdrawal: nothing leaves, whatever is due; proofs are taken; what was due is due when it is released."""

from datetime import timedelta
from decimal import Decimal

import pytest

from payments.domain.transaction import AlreadyHeld, NotHeld, TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from payments.tests.withdrawals import LONG, books_agree, debited, in_transit, payout_of
from shared_kernel.domain.outcome import NotSent, Unknown
from shared_kernel.domain.requests import Blame, Leg
from tests.in_memory import WithdrawalBench


@pytest.fixture
def bench() -> WithdrawalBench:
    return WithdrawalBench()


def hold(bench: WithdrawalBench, withdrawal: Withdrawal) -> None:
    bench.saga.hold(withdrawal.id, owner="mary", why="law")


def release(bench: WithdrawalBench, withdrawal: Withdrawal) -> None:
    bench.saga.release(withdrawal.id, why="a false hit")
    bench.drive(withdrawal)


def payouts_sent(bench: WithdrawalBench) -> int:
    return len([request for request in bench.mpesa.sent if request.leg is Leg.B2C_PAYOUT])


@pytest.mark.parametrize("days", [0, 9])
def test_a_hold_before_the_debit_takes_its_proof_and_stops_what_follows(bench: WithdrawalBench, days: int) -> None:
    withdrawal = bench.withdrawal()
    hold(bench, withdrawal)
    bench.rates.rate = Decimal("100")  # pays less than was accepted, once the quote's rate no longer holds

    bench.drive(withdrawal)
    bench.world.tick(days=days)
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.DERIV_DEBITED
    assert in_transit(bench) == (withdrawal.amount.amount, 0)
    assert not payouts_sent(bench)
    assert not bench.deriv.book

    release(bench, withdrawal)
    assert bench.now(withdrawal).status is (S.REVERSED if days else S.COMPLETED)
    assert books_agree(bench)


def test_a_hold_while_a_payout_waits_keeps_it_and_its_float(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [NotSent("connect")]
    bench.drive(withdrawal)
    hold(bench, withdrawal)

    bench.world.tick(days=3)
    bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.MPESA_DISBURSING
    assert payouts_sent(bench) == 1
    assert bench.world.reserved
    release(bench, withdrawal)
    assert bench.now(withdrawal).status is S.COMPLETED  # at the rate that was locked
    assert len({r.reference for r in bench.mpesa.sent if r.leg is Leg.B2C_PAYOUT}) == 1


def test_an_unknown_payout_is_asked_about_and_completes_while_held(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.pays_out_in_silence]
    bench.drive(withdrawal)
    hold(bench, withdrawal)

    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)


def test_a_payout_proven_dead_while_held_is_not_given_back_until_release(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    hold(bench, withdrawal)

    bench.mpesa.declines(Blame.RECIPIENT)(payout_of(bench, withdrawal))
    bench.drive(withdrawal)
    bench.world.tick(days=3)
    bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.CREDIT_BACK_PENDING
    assert not bench.deriv.book
    release(bench, withdrawal)
    assert bench.now(withdrawal).status is S.REVERSED


def test_an_unknown_credit_back_is_looked_for_while_held_and_not_sent_again(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    bench.deriv.answers = [bench.deriv.debits_login, Unknown("timeout")]
    bench.drive(withdrawal)
    hold(bench, withdrawal)

    bench.sweep(withdrawal, until=timedelta(hours=2))
    sent = [transfer for transfer in bench.deriv.sent if transfer.leg is Leg.DERIV_CREDIT_BACK]
    assert len(sent) == 1
    assert bench.now(withdrawal).transfers[-1].status.is_dead  # its absence was proven meanwhile

    release(bench, withdrawal)
    assert bench.now(withdrawal).status is S.REVERSED
    assert books_agree(bench)


def test_a_hold_has_one_owner_and_is_told_to_the_audit(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    with pytest.raises(NotHeld):
        release(bench, withdrawal)
    hold(bench, withdrawal)
    with pytest.raises(AlreadyHeld):
        hold(bench, withdrawal)
    release(bench, withdrawal)

    told = [(r.action, r.why, r.details) for r in bench.world.audit if r.action.startswith("transaction.h")]
    assert told == [("transaction.held", "law", {"owner": "mary"})]
    assert [r.action for r in bench.world.audit].count("transaction.released") == 1
