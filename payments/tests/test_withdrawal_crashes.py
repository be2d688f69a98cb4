"""A withdrawal whose process dies at every point, and whose workers step on each other's toes."""

from collections.abc import Callable

import pytest

from payments.domain.transaction import TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from payments.tests.withdrawals import LONG, books_agree, in_transit
from shared_kernel.domain.outcome import Lookup, NotSent, Outcome
from shared_kernel.domain.requests import Blame, DerivPlatform, DerivTransfer, Leg, MpesaRequest
from tests.in_memory import Crash, WithdrawalBench


def crash_at(n: int) -> Callable[[str], None]:
    left = [n]

    def point(where: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash(where)

    return point


POINTS = range(1, 25)  # of the longest of these stories


@pytest.mark.parametrize("n", POINTS)
@pytest.mark.parametrize("platform", list(DerivPlatform))
def test_a_crash_at_any_point_debits_and_pays_once_and_the_sweeper_ends_it(n: int, platform: DerivPlatform) -> None:
    bench = WithdrawalBench(platform=platform)
    withdrawal = bench.withdrawal()
    bench.crash_point = crash_at(n)

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert len(bench.deriv.debits) == len([t for t in bench.deriv.sent if t.leg is Leg.DERIV_DEBIT]) <= 1
    assert books_agree(bench)
    if bench.deriv.debits and bench.mpesa.paid_out:
        assert ended.status is S.COMPLETED
        assert in_transit(bench) == (0, 0)
    elif bench.deriv.debits:  # the payout was never sent, which M-Pesa can't prove: a person looks
        assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "payment_unknown")
    else:  # it died before the debit could leave; REST never proves an absence
        assert ended.status is (S.FAILED if platform is DerivPlatform.WS_V3 else S.NEEDS_ATTENTION)
    assert len(bench.mpesa.paid_out) <= 1


@pytest.mark.parametrize("n", POINTS)
@pytest.mark.parametrize("platform", list(DerivPlatform))
def test_a_crash_at_any_point_of_the_way_back_gives_back_once(n: int, platform: DerivPlatform) -> None:
    bench = WithdrawalBench(platform=platform)
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    bench.crash_point = crash_at(n)

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert len(bench.deriv.book) <= 1
    assert not bench.mpesa.paid_out
    assert books_agree(bench)
    if bench.deriv.debits and bench.mpesa.refused:
        assert ended.status is S.REVERSED
        assert in_transit(bench) == (0, 0)
    else:
        assert ended.status in {S.FAILED, S.NEEDS_ATTENTION}


def test_the_crash_points_reach_past_the_end_of_each_story() -> None:
    """Else some point of the two tests above was never died at."""
    for platform in DerivPlatform:
        bench, seen = WithdrawalBench(platform=platform), [0]
        bench.crash_point = lambda where, seen=seen: seen.__setitem__(0, seen[0] + 1)  # type: ignore[misc]
        bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
        withdrawal = bench.withdrawal()
        bench.drive(withdrawal)
        assert bench.now(withdrawal).status is S.REVERSED
        assert seen[0] < POINTS.stop


CALLS = ("deriv.send", "deriv.find", "mpesa.send")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_a_second_worker_during_any_call_has_no_second_effect(call: str, before: bool, fails: bool) -> None:
    bench = WithdrawalBench()
    withdrawal = bench.withdrawal()
    if fails:
        bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    port, name = call.split(".")
    provider = getattr(bench, port)
    real, depth = getattr(provider, name), [0]

    def watched(*args: object, **kwargs: object) -> Outcome | Lookup:
        depth[0] += 1
        if before and depth[0] < 4:
            bench.drive(withdrawal)
        answer: Outcome | Lookup = real(*args, **kwargs)
        if not before and depth[0] < 4:
            bench.drive(withdrawal)
        return answer

    setattr(provider, name, watched)
    bench.drive(withdrawal)
    setattr(provider, name, real)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is (S.REVERSED if fails else S.COMPLETED)
    assert len(bench.deriv.debits) == 1
    assert len(bench.deriv.book) == fails
    assert len(bench.mpesa.paid_out) == (not fails)
    assert books_agree(bench)
    assert in_transit(bench) == (0, 0)


def sleeps(bench: WithdrawalBench, withdrawal: Withdrawal, answers: Callable[[], Outcome]) -> Callable[..., Outcome]:
    """A sender that falls asleep: the others bring the Transaction as far as they can, then its answer comes."""

    def answer(request: DerivTransfer | MpesaRequest) -> Outcome:
        bench.world.tick(minutes=1)
        bench.sweep(withdrawal, until=LONG)
        return answers()

    return answer


def test_a_sleeping_payer_that_says_not_sent_after_it_was_given_up_opens_no_second_attempt() -> None:
    bench = WithdrawalBench()
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [sleeps(bench, withdrawal, lambda: NotSent("send_before_passed"))]

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).failure_code == "payment_unknown"  # it was unknown: a late word does not undo that
    assert len([r for r in bench.mpesa.sent if r.leg is Leg.B2C_PAYOUT]) == 1


def test_a_sleeping_credit_back_that_took_effect_after_it_was_closed_is_posted_and_freezes_the_credential() -> None:
    bench = WithdrawalBench()
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    sent: list[DerivTransfer] = []

    def asleep(transfer: DerivTransfer) -> Outcome:
        sent.append(transfer)
        return sleeps(bench, withdrawal, lambda: bench.deriv.books(transfer))(transfer)

    bench.deriv.answers = [bench.deriv.debits_login, asleep]
    bench.drive(withdrawal)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "credited_back_twice")
    assert books_agree(bench)
    assert bench.world.balance("receivable usd") == withdrawal.amount.amount
    assert "CR900001" in bench.world.frozen
