"""What a provider takes back days after it had proven it: each state, posted once, with nothing more leaving."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from payments.application.taken_back import NothingTakenBack
from payments.domain.deposit import Deposit
from payments.domain.transaction import TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from payments.tests.withdrawals import LONG, debited, in_transit, paid, payout_of
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Absent, NotSent, Refused, Unknown
from shared_kernel.domain.requests import Blame, DerivTransfer, Leg, RequestStatus
from tests.in_memory import CUSTOMER, Bench, WithdrawalBench

RECEIPT = "UKM0000001"


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def withdrawals() -> WithdrawalBench:
    return WithdrawalBench()


# --- deposits: Deriv reverts ------------------------------------------------------------------------------------------


def received(bench: Bench) -> Deposit:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.world.tick(seconds=8)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)
    bench.mpesa.calls_back(deposit.id)
    return deposit


def completed(bench: Bench) -> Deposit:
    deposit = received(bench)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.COMPLETED
    return deposit


def deriv_reverts(bench: Bench, deposit: Deposit, entry: str = "9000") -> None:
    bench.deriv.book = [line for line in bench.deriv.book if line[2] != entry]
    for _ in range(2):  # a watcher sees it at every run
        bench.saga.reverted(deposit.id, entry)


def test_a_credit_reverted_after_completion_is_mirrored_and_refunded(bench: Bench) -> None:
    deposit = completed(bench)
    bench.world.tick(days=5)

    deriv_reverts(bench, deposit)
    assert bench.now(deposit).status is S.REFUND_PENDING
    assert -bench.world.balance("in-transit") == deposit.amount.amount
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert bench.mpesa.reversed == {RECEIPT}
    for account in ("deriv", "in-transit", "mpesa", "fx usd", "fx kes", "margin", "rounding"):
        assert bench.world.balance(account) == 0
    assert len(bench.deriv.sent) == 1


def test_a_credit_reverted_while_a_person_looks_is_mirrored_and_goes_back_once_they_send_it_on(bench: Bench) -> None:
    deposit = received(bench)

    def books_twice(transfer: DerivTransfer) -> Unknown:
        bench.deriv.books(transfer)
        bench.deriv.books(transfer)
        return Unknown("dropped")

    bench.deriv.answers = [books_twice]
    bench.drive(deposit)
    bench.sweep(deposit, until=timedelta(minutes=1))
    assert bench.now(deposit).failure_code == "credited_twice"

    deriv_reverts(bench, deposit)

    ended = bench.now(deposit)
    assert (ended.status, ended.attention_from) == (S.NEEDS_ATTENTION, S.REFUND_PENDING)
    assert bench.world.balance("deriv") == -deposit.payout.amount  # the second one still stands
    assert not bench.mpesa.sent


def test_a_credit_that_stood_against_a_give_back_is_taken_back_into_suspense(bench: Bench) -> None:
    deposit = received(bench)
    bench.mpesa.reversals = [bench.mpesa.reverses_in_silence]

    def late(transfer: DerivTransfer) -> object:
        bench.world.tick(minutes=1)
        bench.deriv.answers = [Unknown("timeout")] * 2
        bench.sweep(deposit, until=LONG, stop=lambda d: bool(d.at_mpesa(Leg.REVERSAL)))
        return bench.deriv.books(transfer)

    bench.deriv.answers = [late]  # type: ignore[list-item]
    bench.drive(deposit)
    assert bench.now(deposit).failure_code == "credited_and_refunded"

    deriv_reverts(bench, deposit)
    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert bench.world.balance("deriv") == 0
    assert bench.world.balance("in-transit") == 0


def test_a_credit_that_is_not_ours_is_refused(bench: Bench) -> None:
    with pytest.raises(NothingTakenBack):
        bench.saga.reverted(completed(bench).id, "12345")


# --- deposits: M-Pesa reverses ----------------------------------------------------------------------------------------


def m_pesa_reverses(bench: Bench, deposit: Deposit, amount: Money | None = None) -> None:
    bench.mpesa.reversed.add(RECEIPT)
    for _ in range(2):
        bench.saga.payment_reversed(deposit.id, RECEIPT, amount or deposit.amount)


def never_sent(bench: Bench, deposit: Deposit) -> None:
    bench.deriv.answers = [NotSent("connect", retry_after_s=600)]
    bench.drive(deposit)


def refused(bench: Bench, deposit: Deposit) -> None:
    bench.deriv.answers = [Refused("disabled")]
    bench.drive(deposit)


def held(bench: Bench, deposit: Deposit) -> None:
    bench.saga.hold(deposit.id, owner="mary", why="law")
    bench.drive(deposit)


@pytest.mark.parametrize("state", [never_sent, refused, held])
def test_a_payment_reversed_before_deriv_was_paid_ends_the_deposit_and_nothing_leaves(
    bench: Bench, state: Callable[[Bench, Deposit], None]
) -> None:
    deposit = received(bench)
    state(bench, deposit)

    m_pesa_reverses(bench, deposit)
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert bench.world.balance("mpesa") == bench.world.balance("in-transit") == 0
    assert bench.world.balance("receivable") == 0
    assert not bench.deriv.book
    assert not bench.mpesa.sent
    assert not bench.world.reserved


@pytest.mark.parametrize("unknown", [False, True])
def test_a_payment_reversed_after_deriv_was_or_may_be_paid_is_owed_and_a_case(bench: Bench, unknown: bool) -> None:
    deposit = received(bench)
    bench.deriv.answers = [Unknown("timeout")] if unknown else []
    bench.deriv.lookups = [Absent(proven=False)] * (3 if unknown else 0)
    bench.drive(deposit)

    m_pesa_reverses(bench, deposit)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "payment_reversed")
    assert bench.world.balance("receivable") == deposit.amount.amount
    assert bench.world.balance("mpesa") == 0
    bench.deriv.answers = [Unknown("timeout")] * 3
    bench.saga.resume(deposit.id, why="looked")
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert not bench.mpesa.sent  # M-Pesa has it back: a reversal of ours would be posted a second time
    assert bench.world.balance("mpesa") == 0


def test_a_reversal_of_ours_that_m_pesas_book_shows_is_posted_as_ours(bench: Bench) -> None:
    deposit = received(bench)
    refused(bench, deposit)
    bench.mpesa.reversals = [Unknown("timeout")] * 1000
    bench.sweep(deposit, until=timedelta(seconds=5))
    bench.mpesa.reversed.add(RECEIPT)

    m_pesa_reverses(bench, deposit)

    ended = bench.now(deposit)
    assert ended.status is S.REFUNDED
    assert ended.at_mpesa(Leg.REVERSAL)[0].status is RequestStatus.DONE
    assert bench.world.balance("mpesa") == bench.world.balance("in-transit") == 0


def test_a_reversal_of_ours_that_is_done_is_not_posted_again(bench: Bench) -> None:
    deposit = received(bench)
    refused(bench, deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.REFUNDED

    m_pesa_reverses(bench, deposit)

    assert bench.now(deposit).status is S.REFUNDED
    assert bench.world.balance("mpesa") == 0


def test_a_reversed_payment_of_more_than_was_asked_takes_the_rest_out_of_suspense(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    more = Money(1500_00, Currency.KES)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, more)
    bench.mpesa.calls_back(deposit.id, agrees=False)
    bench.drive(deposit)

    m_pesa_reverses(bench, deposit, more)

    assert bench.now(deposit).status is S.REFUNDED
    for account in ("mpesa", "in-transit", "suspense"):
        assert bench.world.balance(account) == 0


def test_a_payment_that_was_never_proven_can_not_be_reversed(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)

    with pytest.raises(NothingTakenBack):
        bench.saga.payment_reversed(deposit.id, RECEIPT, deposit.amount)


# --- withdrawals: Deriv reverts the debit ----------------------------------------------------------------------------


def reverts(bench: WithdrawalBench, withdrawal: Withdrawal) -> None:
    bench.deriv.debits.clear()
    for _ in range(2):
        bench.saga.debit_reverted(withdrawal.id, "7000")


def nothing_left(bench: WithdrawalBench) -> bool:
    accounts = ("deriv", "fx usd", "fx kes", "margin", "rounding", "receivable usd")
    return in_transit(bench) == (0, 0) and all(bench.world.balance(account) == 0 for account in accounts)


def test_a_debit_reverted_before_the_exchange_fails_with_nothing_left(withdrawals: WithdrawalBench) -> None:
    withdrawal = withdrawals.withdrawal()
    withdrawals.saga.hold(withdrawal.id, owner="mary", why="law")
    withdrawals.drive(withdrawal)
    assert withdrawals.now(withdrawal).status is S.DERIV_DEBITED

    reverts(withdrawals, withdrawal)
    withdrawals.saga.release(withdrawal.id, why="done")
    withdrawals.drive(withdrawal)
    withdrawals.sweep(withdrawal, until=LONG)

    assert (withdrawals.now(withdrawal).status, withdrawals.now(withdrawal).failure_code) == (
        S.FAILED,
        "deriv_reverted",
    )
    assert nothing_left(withdrawals)
    assert not withdrawals.mpesa.sent
    assert not withdrawals.world.reserved


def frozen(bench: WithdrawalBench, withdrawal: Withdrawal) -> None:
    bench.users.frozen_users.add(CUSTOMER)
    bench.drive(withdrawal)
    assert bench.now(withdrawal).attention_from is S.RATE_LOCKED


def payout_not_sent(bench: WithdrawalBench, withdrawal: Withdrawal) -> None:
    bench.mpesa.payouts = [NotSent("connect", retry_after_s=600)]
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.MPESA_DISBURSING


def waits_for_float(bench: WithdrawalBench, withdrawal: Withdrawal) -> None:
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.FLOAT)]
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.RATE_LOCKED


def going_back(bench: WithdrawalBench, withdrawal: Withdrawal) -> None:
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    bench.deriv.answers = [bench.deriv.debits_login, NotSent("connect", retry_after_s=600)]
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.CREDIT_BACK_PENDING


@pytest.mark.parametrize("state", [frozen, payout_not_sent, waits_for_float, going_back])
def test_a_debit_reverted_after_the_exchange_and_before_a_payout_could_leave_is_mirrored(
    withdrawals: WithdrawalBench, state: Callable[[WithdrawalBench, Withdrawal], None]
) -> None:
    withdrawal = withdrawals.withdrawal()
    state(withdrawals, withdrawal)
    sent = len([r for r in withdrawals.mpesa.sent if r.leg is Leg.B2C_PAYOUT])

    reverts(withdrawals, withdrawal)
    withdrawals.users.frozen_users.clear()
    withdrawals.drive(withdrawal)
    withdrawals.sweep(withdrawal, until=LONG)

    assert withdrawals.now(withdrawal).status is S.REVERSED
    assert nothing_left(withdrawals)
    assert len([r for r in withdrawals.mpesa.sent if r.leg is Leg.B2C_PAYOUT]) == sent
    assert not withdrawals.deriv.book
    assert not withdrawals.world.reserved


@pytest.mark.parametrize("state", [debited, paid])
def test_a_debit_reverted_after_a_payout_left_or_may_have_is_owed_and_a_case(
    withdrawals: WithdrawalBench, state: Callable[[WithdrawalBench], Withdrawal]
) -> None:
    withdrawal = state(withdrawals)

    reverts(withdrawals, withdrawal)

    ended = withdrawals.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "debit_reverted")
    assert withdrawals.world.balance("receivable usd") == withdrawal.amount.amount
    assert withdrawals.world.balance("deriv") == 0


def test_a_debit_reverted_after_the_credit_back_is_owed(withdrawals: WithdrawalBench) -> None:
    withdrawal = withdrawals.withdrawal()
    withdrawals.mpesa.payouts = [withdrawals.mpesa.declines(Blame.RECIPIENT)]
    withdrawals.drive(withdrawal)
    assert withdrawals.now(withdrawal).status is S.REVERSED

    reverts(withdrawals, withdrawal)

    assert withdrawals.now(withdrawal).attention_from is S.REVERSED
    assert withdrawals.world.balance("receivable usd") == withdrawal.amount.amount
    assert in_transit(withdrawals) == (0, 0)


@pytest.mark.parametrize("blame", [Blame.FLOAT, Blame.RECIPIENT])
def test_an_unknown_payout_whose_debit_was_reverted_is_followed_by_nothing(
    withdrawals: WithdrawalBench, blame: Blame
) -> None:
    withdrawal = debited(withdrawals)
    reverts(withdrawals, withdrawal)
    withdrawals.mpesa.declines(blame)(payout_of(withdrawals, withdrawal))

    withdrawals.resume(withdrawal)
    withdrawals.sweep(withdrawal, until=LONG)

    assert not withdrawals.mpesa.paid_out
    assert not withdrawals.deriv.book
    assert withdrawals.now(withdrawal).failure_code == "debit_not_standing"


def test_a_payout_that_turns_up_after_deriv_took_the_debit_back_is_owed(withdrawals: WithdrawalBench) -> None:
    withdrawal = withdrawals.withdrawal()
    waits_for_float(withdrawals, withdrawal)
    reverts(withdrawals, withdrawal)
    assert withdrawals.now(withdrawal).status is S.REVERSED

    withdrawals.mpesa.refused.clear()
    withdrawals.world.tick(seconds=5)
    withdrawals.mpesa.pays_out(payout_of(withdrawals, withdrawal))
    withdrawals.drive(withdrawal)

    assert withdrawals.now(withdrawal).status is S.NEEDS_ATTENTION
    assert withdrawals.world.balance("receivable") == 1270_00
    assert in_transit(withdrawals) == (0, 0)
