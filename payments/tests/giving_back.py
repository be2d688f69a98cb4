"""Deposits on ports in memory that are on their way back."""

from datetime import timedelta

from payments.domain.deposit import Deposit
from payments.domain.transaction import TransactionStatus as S
from shared_kernel.domain.outcome import Refused
from shared_kernel.domain.requests import (
    DerivPlatform,
    Leg,
    MpesaRequest,
)
from tests.in_memory import Bench

LONG = timedelta(hours=60)


def paid(bench: Bench, platform: DerivPlatform = DerivPlatform.WS_V3) -> Deposit:
    """The customer has paid, and the callback came; Deriv was not asked yet."""
    deposit = bench.deposit(platform=platform)
    bench.drive(deposit)
    bench.world.tick(seconds=8)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)
    bench.mpesa.calls_back(deposit.id)
    return deposit


def refused(bench: Bench) -> Deposit:
    """Deriv has refused for good: it waits for its give-back."""
    deposit = paid(bench)
    bench.deriv.answers = [Refused("PaymentAgentTransferError", "Your Deriv account is disabled.")]
    bench.drive(deposit)
    assert bench.now(deposit).status is S.REFUND_PENDING
    return deposit


def reversals(bench: Bench) -> list[MpesaRequest]:
    return [request for request in bench.mpesa.sent if request.leg is Leg.REVERSAL]


def went_back(bench: Bench) -> bool:
    """The customer has it again, once, and the ledger says the same."""
    came = sum(payment.amount.amount for payment in bench.mpesa.book)
    reversed_ = sum(p.amount.amount for p in bench.mpesa.book if p.receipt in bench.mpesa.reversed)
    out = sum(amount.amount for amount in bench.mpesa.paid_out.values())
    assert bench.world.balance("mpesa") == came - reversed_
    assert bench.world.balance("utility") == -out
    assert bench.world.balance("in-transit") == 0
    return reversed_ + out == came
