"""What rests, or waits for a budget: a look at it finds what there is, and comes to an end; on ports in memory."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from payments.domain.deposit import Deposit
from payments.domain.transaction import NEXT, Outflow, TransactionStatus as S, TransactionType
from payments.tests.factories import CHOSEN
from payments.tests.giving_back import LONG, paid
from shared_kernel.domain.budgets import MPESA_LANE
from shared_kernel.domain.outcome import NotSent, Refused, Unknown
from shared_kernel.domain.requests import DerivPlatform, RequestStatus
from tests.in_memory import AGENT, CUSTOMER, Bench, InMemoryTransactions, WithdrawalBench


@pytest.fixture
def bench() -> Bench:
    return Bench()


def refused(bench: Bench, deposit: Deposit) -> None:
    """The query says that the customer cancelled."""
    bench.mpesa.settled[reference(bench, deposit)] = Refused("1032", "cancelled")
    bench.sweep(deposit, until=timedelta(hours=1))
    assert (bench.now(deposit).status, bench.now(deposit).payment.status) == (S.FAILED, RequestStatus.REFUSED)


def not_found(bench: Bench, deposit: Deposit) -> None:
    """The prompt's answer was lost, and the book showed nothing."""
    bench.sweep(deposit, until=LONG)
    assert (bench.now(deposit).status, bench.now(deposit).payment.status) == (S.FAILED, RequestStatus.CLOSED)


def pending(bench: Bench, deposit: Deposit) -> None:
    """It never came to an end at M-Pesa."""
    bench.sweep(deposit, until=LONG)
    assert (bench.now(deposit).status, bench.now(deposit).payment.status) == (S.NEEDS_ATTENTION, RequestStatus.ACCEPTED)


def reference(bench: Bench, deposit: Deposit) -> str:
    return str(bench.now(deposit).payment.reference)


Ending = Callable[[Bench, Deposit], None]


def ended(bench: Bench, how: Ending) -> Deposit:
    if how is not_found:
        bench.mpesa.answers = [Unknown("timeout")]
    deposit = bench.deposit()
    bench.drive(deposit)
    how(bench, deposit)
    assert bench.now(deposit).next_step_at is None
    return deposit


@pytest.mark.parametrize("how", [refused, not_found, pending])
def test_a_payment_that_the_book_shows_after_all_is_taken(bench: Bench, how: Ending) -> None:
    deposit = ended(bench, how)
    said = dict(bench.mpesa.settled)
    bench.mpesa.pays(reference(bench, deposit), deposit.amount)
    bench.mpesa.settled = said  # the query goes on saying what it said
    bench.mpesa.is_silent = True  # so that what goes back is still on its way

    bench.saga.look_again([deposit.id])

    assert bench.now(deposit).is_paid
    assert bench.world.balance("mpesa") == deposit.amount.amount
    assert bench.now(deposit).status in {S.COMPLETED, S.REFUND_PENDING}


@pytest.mark.parametrize("how", [refused, not_found, pending])
def test_one_that_is_looked_at_again_in_vain_comes_to_rest_again(bench: Bench, how: Ending) -> None:
    deposit = ended(bench, how)
    status = bench.now(deposit).status

    bench.saga.look_again([deposit.id])
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).next_step_at is None
    assert bench.now(deposit).status is status


def test_one_that_expired_with_a_timer_comes_to_rest(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.world.tick(hours=2)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.EXPIRED

    bench.saga.look_again([deposit.id])
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).next_step_at is None


def test_a_withdrawal_that_failed_and_is_looked_at_again_in_vain_comes_to_rest_again() -> None:
    bench = WithdrawalBench()
    bench.deriv.answers = [Refused("InsufficientBalance")]
    withdrawal = bench.withdrawal()
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.FAILED

    bench.saga.look_again([withdrawal.id])
    bench.sweep(withdrawal, until=LONG)

    assert (bench.now(withdrawal).status, bench.now(withdrawal).next_step_at) == (S.FAILED, None)


def test_a_repeatable_request_that_never_gets_through_comes_before_a_person_who_may_have_it_sent_once_more(
    bench: Bench,
) -> None:
    deposit = paid(bench, DerivPlatform.REST)
    bench.deriv.answers = [Unknown("timeout"), *([NotSent("connect")] * 1000)]

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert (bench.now(deposit).status, bench.now(deposit).failure_code) == (S.NEEDS_ATTENTION, "transfer_unknown")
    assert not bench.mpesa.sent
    assert not bench.deriv.book
    bench.deriv.answers = []
    bench.resume(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.COMPLETED
    assert len(bench.deriv.book) == 1


# --- budgets ----------------------------------------------------------------------------------------------------------


class Plenty:
    """A hand, and the budgets it is from: enough of the lanes that were asked for, and nothing of any other."""

    good_for_s = 10.0

    def __init__(self) -> None:
        self.permits: dict[str, int] = {}

    def hand(self, wanted: Mapping[str, tuple[int, int]], *, from_queue: bool = False) -> Any:
        self.permits = dict.fromkeys(wanted, 100)
        return self

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...

    def left(self, lane: str, *, reads: bool = False) -> int:
        return self.permits.get(lane, 0)

    def take(self, lane: str, *, reads: bool = False) -> bool:
        self.permits[lane] = self.left(lane) - 1
        return self.permits[lane] >= 0


def test_an_agent_that_the_settings_name_no_longer_is_asked_and_says_so_itself(bench: Bench) -> None:
    deposit = paid(bench)
    bench.world.transactions[deposit.id].agent = "CR000009"
    bench.deriv.answers = [NotSent("agent_unknown")]
    saga = replace(bench.saga, budgets=Plenty())  # type: ignore[arg-type]

    saga.drive([deposit.id])

    assert [transfer.agent for transfer in bench.deriv.sent] == ["CR000009"]
    assert bench.now(deposit).next_step_at > bench.world.now  # and it does not spin in the queue


def test_an_agent_with_an_empty_budget_waits_in_the_queue(bench: Bench) -> None:
    deposit, empty = paid(bench), Plenty()
    empty.left = lambda lane, *, reads=False: 100 * (lane == MPESA_LANE)  # type: ignore[method-assign]
    saga = replace(bench.saga, budgets=empty)  # type: ignore[arg-type]

    saga.drive([deposit.id])

    assert not bench.deriv.sent
    assert (bench.now(deposit).status, bench.now(deposit).agent) == (S.MPESA_CONFIRMED, AGENT)


# --- who is frozen ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(NEXT[TransactionType.WITHDRAWAL]))
def test_wherever_one_turn_may_lead_to_a_payout_it_is_known_who_is_frozen(status: S) -> None:
    bench = WithdrawalBench()
    withdrawal = bench.withdrawal()
    withdrawal.status = status
    withdrawal.outflow = CHOSEN.get(status, Outflow.NONE)
    with bench.world.unit_of_work():
        InMemoryTransactions(bench.world).save_many([withdrawal])
    bench.users.frozen_users.add(CUSTOMER)

    with bench.world.unit_of_work():
        [read] = bench.saga.load([withdrawal.id], ())
        assert read.stopped() == "account_frozen"
