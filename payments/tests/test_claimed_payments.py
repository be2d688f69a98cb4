"""A payment by B2C that is booked on a claim: confirmed or denied afterwards, and its fee by M-Pesa's own answer only.

Each of these was found by the simulation (`tests/simulation`).
"""

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from payments.application.mpesa_payment import MOST_QUERIES, payment_step
from payments.application.saga import Timing
from payments.application.withdrawal import Payout
from payments.domain.transaction import Outflow, Transaction, TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from shared_kernel.domain.identifiers import Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.outcome import Outcome, Refused
from shared_kernel.domain.requests import (
    Blame,
    DerivLogin,
    DerivPlatform,
    Leg,
    MpesaClaim,
    MpesaRequest,
    RequestStatus,
)
from tests.in_memory import BEGIN, Bench, InMemoryLedger, World

LONG = timedelta(hours=60)
FEE = Money(13_00, Currency.KES)


@dataclass
class PaidOut:
    """A withdrawal whose payout M-Pesa took."""

    world: World = field(default_factory=World)
    timing: Timing = field(default_factory=Timing)

    def __post_init__(self) -> None:
        self.ledger = InMemoryLedger(self.world)
        rate = LockedRate(
            Currency.USD, Currency.KES, Decimal("129.5"), Decimal(127), "test", BEGIN, BEGIN + timedelta(hours=1)
        )
        sent = Money(10_00, Currency.USD)
        self.withdrawal = Withdrawal.create(
            TransactionId(UUID(int=1)), user_id=UserId(UUID(int=2)), quote_id=QuoteId(UUID(int=3)), amount=sent,
            rate=rate, min_payout=Money(1, Currency.KES), phone=Phone("254712345678"),
            login=DerivLogin(DerivPlatform.REST, "jane"), agent="1", at=BEGIN,
        )  # fmt: skip
        self.attempt = self.request(Leg.B2C_PAYOUT, 1)
        self.withdrawal.status, self.withdrawal.outflow = S.MPESA_DISBURSING, Outflow.PAYOUT
        self.withdrawal.confirmed_at, self.withdrawal.payments = BEGIN, [self.attempt]
        self.attempt.status = RequestStatus.ACCEPTED
        who = (self.withdrawal.id, self.withdrawal.user_id)
        with self.world.unit_of_work():
            self.ledger.post_withdrawal_debited(*who, sent, agent="1", provider_key="deriv:1:1", at=BEGIN)
        with self.world.unit_of_work():
            self.ledger.post_withdrawal_exchanged(*who, sent, split=rate.split_withdrawal(sent), at=BEGIN)

    def request(self, leg: Leg, attempt: int, about: str = "") -> MpesaRequest:
        id, payout = self.world.new_id(), self.withdrawal.payout
        return MpesaRequest(
            id=id, transaction_id=self.withdrawal.id, leg=leg, attempt=attempt, reference=f"{leg}{attempt}",  # type: ignore[arg-type]
            amount=payout, send_before=BEGIN, created_at=BEGIN, phone=self.withdrawal.phone, shortcode="600000",
            about=about,
        )  # fmt: skip

    def claimed(self, fee: Money | None = None) -> None:
        self.attempt.claims.append(MpesaClaim("0", self.world.now, self.attempt.amount, "UKB0000001", fee=fee))
        self.goes_on()

    def proven(self, fee: Money | None = None, fate: str = "Completed") -> None:
        query = self.request(Leg.STATUS_QUERY, len(self.withdrawal.payments), about=self.attempt.reference)
        claim = MpesaClaim("0", self.world.now, self.attempt.amount, "UKB0000001", fate=fate, fee=fee)
        query.claims.append(claim)
        self.withdrawal.payments.append(query)
        self.goes_on()

    def next_step(self) -> Any:
        unused: Any = None
        return payment_step(
            unused, Payout(self.ledger, self.timing), self.withdrawal, self.timing, due=False, send=False
        )

    def goes_on(self) -> None:
        step = self.next_step()
        assert step is not None
        with self.world.unit_of_work():
            assert step.intend(self.withdrawal, at=self.world.now) is None


def test_a_claim_tells_no_fee() -> None:
    paid = PaidOut()

    paid.claimed(fee=Money(99_00, Currency.KES))

    assert paid.withdrawal.status is S.COMPLETED
    assert paid.world.balance("utility") == -paid.withdrawal.payout.amount
    assert paid.world.balance("fees") == 0


@pytest.mark.parametrize("claimed_fee", [None, FEE, Money(99_00, Currency.KES)])
def test_the_fee_is_posted_once_when_the_payment_is_proven(claimed_fee: Money | None) -> None:
    paid = PaidOut()

    paid.claimed(fee=claimed_fee)
    paid.proven(fee=FEE)

    assert paid.world.balance("fees") == FEE.amount
    assert paid.withdrawal.status is S.COMPLETED


def test_the_fee_of_a_payment_that_was_proven_at_once_is_posted() -> None:
    paid = PaidOut()

    paid.proven(fee=FEE)

    assert paid.world.balance("fees") == FEE.amount


def test_a_payout_that_is_denied_keeps_its_float_again_for_it_is_paid_once_more() -> None:
    paid = PaidOut()
    paid.claimed()
    assert not paid.withdrawal.reserve_again

    paid.proven(fate="Declined")

    assert (paid.withdrawal.status, paid.withdrawal.failure_code) == (S.NEEDS_ATTENTION, "payout_denied")
    assert paid.withdrawal.reserve_again
    assert paid.world.balance("utility") == 0


def test_what_is_said_of_a_payment_after_the_last_question_comes_before_a_person_and_is_not_looked_at_for_ever() -> (
    None
):
    paid = PaidOut()
    for number in range(MOST_QUERIES):
        paid.withdrawal.payments.append(paid.request(Leg.STATUS_QUERY, number, about=paid.attempt.reference))
    paid.withdrawal.status, paid.withdrawal.attempts = S.NEEDS_ATTENTION, 1
    paid.attempt.claims.append(MpesaClaim("0", paid.world.now, Money(1_00, Currency.KES), agrees=False))

    paid.goes_on()

    assert paid.next_step() is None
    assert paid.withdrawal.failure_code == "payment_contradictory"


# --- a refund by B2C --------------------------------------------------------------------------------------------------


def refunded_on_a_claim(bench: Bench) -> Transaction:
    """The rate ran out before the payment, the reversal is refused for good, a person allows a payment to the phone."""
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.answers = []
    bench.world.tick(minutes=40)
    reference = bench.now(deposit).payments[0].reference
    bench.mpesa.pays(reference, deposit.amount)
    send = bench.mpesa.send

    def refuse_reversals(request: MpesaRequest, *, give_up_at: float) -> Outcome:
        return Refused("400.002.02") if request.leg is Leg.REVERSAL else send(request, give_up_at=give_up_at)

    bench.mpesa.send = refuse_reversals  # type: ignore[method-assign]
    bench.sweep(deposit, until=timedelta(hours=1))
    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    with bench.world.unit_of_work():
        stored = bench.saga.one(deposit.id)
        stored.allow_refund_by_b2c(at=bench.world.now)
        stored.resume(why="two persons looked", at=bench.world.now)
        bench.saga.save([stored], ())
    return deposit


def test_a_refund_that_was_booked_on_a_claim_is_asked_about_within_the_day_and_stands_once_proven() -> None:
    bench = Bench()
    deposit = refunded_on_a_claim(bench)
    bench.drive(deposit)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.REFUNDED
    assert bench.now(deposit).next_step_at is not None

    bench.sweep(deposit, until=LONG)
    bench.drive(deposit)

    refund = bench.now(deposit).at_mpesa(Leg.B2C_REFUND)[-1]
    assert (bench.now(deposit).status, refund.code) == (S.REFUNDED, "confirmed")
    assert bench.world.balance("utility") == -deposit.amount.amount


def test_a_refund_that_was_booked_on_a_lie_is_taken_back_and_comes_before_a_person() -> None:
    bench = Bench()
    deposit = refunded_on_a_claim(bench)

    def lies(request: MpesaRequest) -> Outcome:
        answer = bench.mpesa.declines(Blame.RECIPIENT)(request)
        bench.world.prompts[request.id].claims.clear()
        bench.mpesa.tells(request, MpesaClaim("0", bench.world.now, request.amount, "UKB0000009"))
        return answer

    bench.mpesa.payouts = [lies]
    bench.drive(deposit)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.REFUNDED

    bench.sweep(deposit, until=LONG)
    bench.drive(deposit)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "refund_denied")
    assert bench.world.balance("utility") == 0
    assert bench.world.balance("in-transit") == -deposit.amount.amount
    bench.mpesa.payouts = []
    bench.saga.resume(deposit.id, why="pay it again")
    bench.drive(deposit)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.REFUNDED
    assert bench.world.balance("utility") == -deposit.amount.amount


def test_a_success_that_is_claimed_of_a_refused_reversal_comes_before_a_person_and_opens_no_second_way() -> None:
    bench = Bench()
    deposit = refunded_on_a_claim(bench)
    reversal = bench.now(deposit).at_mpesa(Leg.REVERSAL)[-1]
    bench.world.tick(seconds=1)
    bench.world.prompts[reversal.id].claims.append(MpesaClaim("0", bench.world.now, deposit.amount))

    bench.drive(deposit)

    assert (bench.now(deposit).status, bench.now(deposit).failure_code) == (S.NEEDS_ATTENTION, "reversal_contradictory")
    assert bench.now(deposit).at_mpesa(Leg.REVERSAL)[-1].status is RequestStatus.UNKNOWN
    bench.saga.resume(deposit.id, why="it was not reversed")
    bench.sweep(deposit, until=timedelta(hours=1))
    assert (bench.now(deposit).status, bench.now(deposit).failure_code) == (S.NEEDS_ATTENTION, "reversal_open")
    assert not bench.mpesa.reversed | bench.mpesa.paid_out.keys()


def test_a_failure_that_is_told_of_a_refused_reversal_says_nothing_new() -> None:
    bench = Bench()
    deposit = refunded_on_a_claim(bench)
    reversal = bench.now(deposit).at_mpesa(Leg.REVERSAL)[-1]
    bench.mpesa.is_silent = True
    bench.drive(deposit)  # the refund goes out
    bench.world.tick(seconds=1)
    bench.world.prompts[reversal.id].claims.append(MpesaClaim("1", bench.world.now))

    bench.drive(deposit)

    assert bench.now(deposit).status is S.REFUND_PENDING
    assert bench.now(deposit).at_mpesa(Leg.REVERSAL)[-1].status is RequestStatus.REFUSED
