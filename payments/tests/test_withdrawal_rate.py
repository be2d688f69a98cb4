"""At which rate a withdrawal is paid out, or that it goes back; on ports in memory."""

from datetime import timedelta
from decimal import Decimal

import pytest

from payments.domain.transaction import TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from payments.tests.withdrawals import LONG, books_agree, in_transit
from shared_kernel.domain.money import Currency, Money
from tests.in_memory import WithdrawalBench


@pytest.fixture
def bench() -> WithdrawalBench:
    return WithdrawalBench()


# --- the rate ---------------------------------------------------------------------------------------------------------


def test_the_quotes_rate_holds_for_its_time_whatever_today_says(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.rates.rate = Decimal("100")

    bench.drive(withdrawal)

    assert bench.mpesa.paid_out == {bench.now(withdrawal).payouts[0].reference: Money(1270_00, Currency.KES)}


def proven_late(bench: WithdrawalBench) -> Withdrawal:
    """The quote's rate no longer holds when the debit is proven."""
    withdrawal = bench.withdrawal()
    bench.deriv.answers, bench.deriv.is_down = [bench.deriv.debits_in_silence], True
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=40))
    bench.deriv.is_down = False
    return withdrawal


@pytest.mark.parametrize(("rate", "payout"), [("127.9", 1279), ("126.1", 1261), ("125.7", 1257)])
def test_later_todays_rate_is_locked_if_it_pays_what_was_accepted(
    bench: WithdrawalBench, rate: str, payout: int
) -> None:
    withdrawal, bench.rates.rate = proven_late(bench), Decimal(rate)

    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.payout, ended.rate.rate) == (
        S.COMPLETED,
        Money(payout * 100, Currency.KES),
        Decimal(rate),
    )
    assert books_agree(bench)
    assert in_transit(bench) == (0, 0)


def test_a_rate_that_pays_less_than_was_accepted_credits_back(bench: WithdrawalBench) -> None:
    withdrawal, bench.rates.rate = proven_late(bench), Decimal("125.6")

    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.REVERSED, "rate_moved")
    assert books_agree(bench)
    assert not bench.mpesa.sent
    assert not bench.world.reserved


def test_without_a_valid_rate_it_waits_and_credits_back_at_the_deadline(bench: WithdrawalBench) -> None:
    withdrawal, bench.rates.rate = proven_late(bench), None
    bench.sweep(withdrawal, until=timedelta(hours=20))
    assert bench.now(withdrawal).status is S.DERIV_DEBITED

    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.REVERSED, "no_rate")
    assert bench.world.now - ended.confirmed_at > timedelta(hours=24)
    assert books_agree(bench)


def test_a_rate_that_comes_before_the_deadline_is_locked(bench: WithdrawalBench) -> None:
    withdrawal, bench.rates.rate = proven_late(bench), None
    bench.sweep(withdrawal, until=timedelta(hours=3))

    bench.rates.rate = Decimal("127")
    bench.sweep(withdrawal, until=timedelta(hours=1))

    assert bench.now(withdrawal).status is S.COMPLETED
