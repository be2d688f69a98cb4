"""While a customer owes, no payout leaves; what is theirs goes back to them all the same, and recovery frees them."""

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest

from payments.domain.transaction import TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from payments.tests.test_taken_back import m_pesa_reverses, received, refused
from payments.tests.withdrawals import LONG, books_agree, debited, in_transit, paid, payout_of
from shared_kernel.domain.identifiers import JournalId, UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import NotSent
from shared_kernel.domain.requests import Blame, Leg
from tests.in_memory import CUSTOMER, Bench, Crash, SagaBench, WithdrawalBench
from wallet.domain.ledger import AccountKind, Entry, Journal, customer_receivable, house

KES, USD = Currency.KES, Currency.USD
SOMEBODY_ELSE = UserId(UUID(int=78))


@pytest.fixture
def bench() -> WithdrawalBench:
    return WithdrawalBench()


def moves(bench: SagaBench[Withdrawal], cents: int, currency: Currency, customer: UserId = CUSTOMER) -> None:
    """What a customer owes, more or less of it."""
    owed, bank = customer_receivable(customer, currency), house(AccountKind.BANK, currency)
    debit, credit = (owed, bank) if cents > 0 else (bank, owed)
    id = bench.ledger.new_id()
    entry = Entry(debit, credit, Money(abs(cents), currency))
    with bench.world.unit_of_work():
        bench.ledger.book.append(Journal(JournalId(id), "receivable", f"test:{id}", (entry,), bench.world.now))


def dies_after_call(where: str) -> None:
    if where == "after call":
        raise Crash(where)


def sent(bench: WithdrawalBench) -> int:
    return len([request for request in bench.mpesa.sent if request.leg is Leg.B2C_PAYOUT])


@pytest.mark.parametrize("currency", Currency)
def test_a_payout_does_not_leave_while_the_customer_owes_a_cent_and_goes_on_once_it_is_settled(
    bench: WithdrawalBench, currency: Currency
) -> None:
    withdrawal = bench.withdrawal()
    moves(bench, 1, currency)

    bench.drive(withdrawal)
    bench.resume(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    waits = bench.now(withdrawal)
    assert (waits.status, waits.failure_code, waits.attention_from) == (S.NEEDS_ATTENTION, "customer_owes", S.RATE_LOCKED)
    assert not bench.mpesa.sent
    assert bench.world.reserved
    assert in_transit(bench) == (0, 1270_00)
    moves(bench, -1, currency)
    bench.resume(withdrawal)
    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)


def test_a_payout_that_surely_did_not_leave_is_not_sent_again_to_who_owes_by_now(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [NotSent("connect")]
    bench.drive(withdrawal)
    moves(bench, 500, USD)

    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).failure_code == "customer_owes"
    assert sent(bench) == 1


def test_who_owes_nothing_is_paid_although_another_one_of_the_group_owes(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    moves(bench, 500, USD, SOMEBODY_ELSE)
    moves(bench, -500, USD)  # we owe it to them

    bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.COMPLETED


@pytest.mark.parametrize("state", [debited, paid])
def test_a_debit_that_is_owed_stops_the_customers_next_payout(
    bench: WithdrawalBench, state: Callable[[WithdrawalBench], Withdrawal]
) -> None:
    bench.saga.debit_reverted(state(bench).id, "7000")
    before, following = sent(bench), bench.withdrawal()

    bench.drive(following)

    assert bench.now(following).failure_code == "customer_owes"
    assert sent(bench) == before


def test_a_payment_that_is_owed_stops_the_customers_payouts() -> None:
    deposits = Bench()
    deposit = received(deposits)
    deposits.drive(deposit)
    m_pesa_reverses(deposits, deposit)
    withdrawals = WithdrawalBench(world=deposits.world)
    withdrawal = withdrawals.withdrawal()

    withdrawals.drive(withdrawal)

    assert withdrawals.now(withdrawal).failure_code == "customer_owes"
    assert sent(withdrawals) == 0


def test_what_one_of_a_group_turns_out_to_owe_stops_the_others_payout_in_the_same_commit(
    bench: WithdrawalBench,
) -> None:
    """A payout turns up after its credit-back, while one before it and one behind it are about to be paid."""
    before_it = bench.withdrawal()
    bench.mpesa.payouts = [NotSent("connect", retry_after_s=600)]
    bench.drive(before_it)
    first = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    bench.drive(first)
    assert bench.now(first).status is S.REVERSED
    second = bench.withdrawal()
    bench.mpesa.payouts = [NotSent("connect")]
    bench.drive(second)
    before = sent(bench)
    bench.mpesa.refused.clear()
    bench.world.tick(seconds=600)
    bench.mpesa.pays_out(payout_of(bench, first))
    bench.crash_point = dies_after_call
    bench.drive(first)  # M-Pesa's answer is there, and nobody has looked at it

    bench.drive(before_it, first, second)

    assert bench.now(first).failure_code == "paid_and_credited_back"
    assert bench.world.balance("receivable") == 1270_00
    assert bench.now(before_it).status is S.COMPLETED
    assert bench.now(second).failure_code == "customer_owes"
    assert sent(bench) == before + 1


# --- what is theirs goes back -----------------------------------------------------------------------------------------


def test_a_withdrawal_that_m_pesa_could_not_pay_goes_back_to_who_owes(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    moves(bench, 500, USD)

    bench.mpesa.declines(Blame.RECIPIENT)(payout_of(bench, withdrawal))
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.REVERSED
    assert in_transit(bench) == (0, 0)


def test_a_deposit_that_deriv_refuses_goes_back_to_who_owes() -> None:
    bench = Bench()
    moves(bench, 500, USD)
    deposit = received(bench)

    refused(bench, deposit)
    bench.sweep(deposit, until=timedelta(hours=1))

    assert bench.now(deposit).status is S.REFUNDED
    assert bench.world.balance("in-transit") == 0
