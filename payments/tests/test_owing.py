"""While a customer owes, no payout leaves; what is theirs goes back to them all the same, and recovery frees them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from payments.domain.transaction import TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from payments.facade import withdrawals
from payments.tests.factories import a_float, a_stored_withdrawal
from payments.tests.test_taken_back import m_pesa_reverses, received, refused
from payments.tests.withdrawals import LONG, debited, in_transit, paid, payout_of
from payments.tests.withdrawing import Withdrawer, owes, recovers
from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import NotSent
from shared_kernel.domain.requests import Blame, Leg
from shared_kernel.infrastructure.persistence import unit_of_work
from tests.in_memory import CUSTOMER, Bench, Crash, SagaBench, WithdrawalBench
from tests.in_memory_book import Line
from wallet.facade import FloatKind, ledger
from wallet.tests.threads import at_once

Transaction, MpesaRequest = apps.get_model("payments.Transaction"), apps.get_model("mpesa_integration.MpesaRequest")
real_commits = pytest.mark.django_db(transaction=True)
one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
KES, USD = Currency.KES, Currency.USD
SOMEBODY_ELSE = UserId(UUID(int=78))


@pytest.fixture
def bench() -> WithdrawalBench:
    return WithdrawalBench()


def owes_some(bench: SagaBench[Any], cents: int, currency: Currency, customer: UserId = CUSTOMER) -> None:
    """Money left that nothing covered."""
    kind: FloatKind = "mpesa_utility" if currency is KES else "deriv_agent"
    with bench.world.unit_of_work():
        bench.ledger.post_uncovered(
            TransactionId(bench.world.new_id()), customer, Money(cents, currency), paid_by=kind, owner="600997",
            provider_key=f"test:{bench.world.new_id()}", at=bench.world.now,
        )  # fmt: skip


def settles(bench: SagaBench[Any]) -> None:
    """Nobody owes anything any more."""
    owed = [line.posted.id for line in bench.world.entries if isinstance(line, Line) and "receivable" in line[0]]
    with bench.world.unit_of_work():
        bench.ledger.reverse(owed, at=bench.world.now)


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
    owes_some(bench, 1, currency)

    bench.drive(withdrawal)
    bench.resume(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    waits = bench.now(withdrawal)
    assert (waits.status, waits.failure_code, waits.attention_from) == (
        S.NEEDS_ATTENTION,
        "customer_owes",
        S.RATE_LOCKED,
    )
    assert not bench.mpesa.sent
    assert bench.world.reserved
    assert in_transit(bench) == (0, 1270_00)
    settles(bench)
    bench.resume(withdrawal)
    assert bench.now(withdrawal).status is S.COMPLETED


def test_a_payout_that_surely_did_not_leave_is_not_sent_again_to_who_owes_by_now(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [NotSent("connect")]
    bench.drive(withdrawal)
    owes_some(bench, 500, USD)

    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).failure_code == "customer_owes"
    assert sent(bench) == 1


def test_who_owes_nothing_is_paid_although_another_one_of_the_group_owes(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    owes_some(bench, 500, USD)
    settles(bench)
    owes_some(bench, 500, USD, SOMEBODY_ELSE)

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
    owes_some(bench, 500, USD)

    bench.mpesa.declines(Blame.RECIPIENT)(payout_of(bench, withdrawal))
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.REVERSED
    assert in_transit(bench) == (0, 0)


def test_a_deposit_that_deriv_refuses_goes_back_to_who_owes() -> None:
    bench = Bench()
    owes_some(bench, 500, USD)
    deposit = received(bench)

    refused(bench, deposit)
    bench.sweep(deposit, until=timedelta(hours=1))

    assert bench.now(deposit).status is S.REFUNDED
    assert bench.world.balance("in-transit") == 0


# --- in the database: what is asked, and under which lock -------------------------------------------------------------


@pytest.fixture
def customer() -> UserId:
    a_float()
    return UserId(Withdrawer().id)


def stood(withdrawal: Withdrawal) -> tuple[str, str, int]:
    """Its status, why, and how many payouts were intended."""
    row = Transaction.objects.get(pk=withdrawal.id)
    return row.status, row.failure_code, MpesaRequest.objects.filter(transaction_id=row.id, leg=Leg.B2C_PAYOUT).count()


def stops(where: str) -> None:
    """The process dies before M-Pesa is called."""
    if where == "before call":
        raise Crash(where)


def drive(*some: Withdrawal, crash_point: Callable[[str], None] = stops) -> None:
    with suppress(Crash):
        replace(withdrawals, crash_point=crash_point).drive([withdrawal.id for withdrawal in some])


@real_commits
@pytest.mark.parametrize("many", [1, 7])
def test_a_group_of_payouts_asks_once_who_is_frozen_and_once_who_owes(many: int) -> None:
    a_float()
    customers = [UserId(Withdrawer(deriv_account=f"CR2000{number}").id) for number in range(many + 1)]
    group = [a_stored_withdrawal(S.RATE_LOCKED, user=customer) for customer in customers]
    with CaptureQueriesContext(connection) as seen:
        drive(*group)

    asked = [query["sql"] for query in seen if query["sql"].startswith("SELECT") and "frozen_at" in query["sql"]]
    owing = [
        query["sql"] for query in seen if query["sql"].startswith("SELECT") and "SUM(credit_balance)" in query["sql"]
    ]
    assert (len(asked), len([sql for sql in owing if sql.count("X'") == 2 * len(group)])) == (1, 1)
    assert {stood(withdrawal) for withdrawal in group} == {("MPESA_DISBURSING", "", 1)}


@real_commits
def test_nobody_is_asked_about_where_nothing_is_about_to_leave(customer: UserId) -> None:
    withdrawal = a_stored_withdrawal(S.MPESA_DISBURSING, user=customer)
    Transaction.objects.filter(pk=withdrawal.id).update(next_step_at=withdrawal.created_at + timedelta(hours=1))
    with CaptureQueriesContext(connection) as seen:
        drive(withdrawal)

    assert not [query for query in seen if "frozen_at" in query["sql"] or "ledger_balances" in query["sql"]]


@one_writer
@real_commits
def test_what_is_posted_while_a_payout_is_decided_waits_for_its_commit(customer: UserId) -> None:
    """The payout was first: it may leave, and who owes next is not paid."""
    reverted = a_stored_withdrawal(S.RATE_LOCKED, user=customer)
    drive(reverted)
    entry = debit_of(reverted)
    payout = a_stored_withdrawal(S.RATE_LOCKED, user=customer)
    decided, posted = threading.Event(), threading.Event()
    waited: list[bool] = []

    def point(where: str) -> None:
        if where == "before commit":
            decided.set()
            waited.append(not posted.wait(0.7))
        stops(where)

    def post() -> None:
        assert decided.wait(10)
        withdrawals.debit_reverted(reverted.id, entry)
        posted.set()

    assert at_once(lambda: drive(payout, crash_point=point), post) == [None, None]

    assert waited == [True]
    assert ledger.owing([customer]) == {customer}
    assert stood(payout) == ("MPESA_DISBURSING", "", 1)


@one_writer
@real_commits
def test_a_payout_waits_for_what_is_being_posted_and_then_sees_it(customer: UserId) -> None:
    reverted = a_stored_withdrawal(S.RATE_LOCKED, user=customer)
    drive(reverted)
    payout = a_stored_withdrawal(S.RATE_LOCKED, user=customer)
    saved, driven = threading.Event(), threading.Event()
    waited: list[bool] = []

    @contextmanager
    def slowly() -> Iterator[None]:
        with unit_of_work():
            yield
            saved.set()
            waited.append(not driven.wait(0.7))

    def pay() -> None:
        assert saved.wait(10)
        drive(payout)
        driven.set()

    entry = debit_of(reverted)
    slow = replace(withdrawals, unit_of_work=slowly)
    assert at_once(lambda: slow.debit_reverted(reverted.id, entry), pay) == [None, None]

    assert waited == [True]
    assert stood(payout) == ("NEEDS_ATTENTION", "customer_owes", 0)


@real_commits
def test_once_the_debt_is_gone_a_person_sends_the_payout_on(customer: UserId) -> None:
    owes(Transaction(id=customer), Money(1, KES))
    payout = a_stored_withdrawal(S.RATE_LOCKED, user=customer)
    drive(payout)
    assert stood(payout) == ("NEEDS_ATTENTION", "customer_owes", 0)

    recovers(Transaction(id=customer), Money(1, KES))
    withdrawals.resume(payout.id, why="it was recovered")
    drive(payout)

    assert stood(payout) == ("MPESA_DISBURSING", "", 1)


def debit_of(withdrawal: Withdrawal) -> str:
    rows = apps.get_model("deriv_integration.DerivTransfer").objects.filter(transaction_id=withdrawal.id)
    return str(rows.values_list("provider_transaction_id", flat=True).get())
