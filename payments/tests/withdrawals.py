"""Withdrawals on ports in memory: how they come into a state, and whether the books agree."""

from datetime import timedelta

from payments.domain.withdrawal import Withdrawal
from shared_kernel.domain.requests import MpesaRequest
from tests.in_memory import WithdrawalBench

LONG = timedelta(hours=60)


def debited(bench: WithdrawalBench) -> Withdrawal:
    """Its payout was taken by M-Pesa, and nothing was heard of it."""
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts.append(bench.mpesa.takes)
    bench.drive(withdrawal)
    return withdrawal


def paid(bench: WithdrawalBench) -> Withdrawal:
    """Booked on the claim."""
    withdrawal = bench.withdrawal()
    bench.drive(withdrawal)
    return withdrawal


def payout_of(bench: WithdrawalBench, withdrawal: Withdrawal, number: int = -1) -> MpesaRequest:
    payout: MpesaRequest = bench.now(withdrawal).payouts[number]
    return payout


def statuses(bench: WithdrawalBench) -> list[str]:
    return [record.after for record in bench.world.audit if record.action == "transaction.status"]


def nothing_moved(bench: WithdrawalBench) -> bool:
    return not bench.world.entries and not bench.deriv.book and not bench.deriv.debits and not bench.mpesa.sent


def in_transit(bench: WithdrawalBench) -> tuple[int, int]:
    """USD and KES cents that wait for the customer."""
    return -bench.world.balance("in-transit usd"), -bench.world.balance("in-transit")


def books_agree(bench: WithdrawalBench) -> bool:
    """The ledger's float legs are what the providers' books say."""
    came = sum(amount.amount for _, amount, _ in bench.deriv.debits)
    left = sum(amount.amount for _, amount, _ in bench.deriv.book)
    out = sum(amount.amount for amount in bench.mpesa.paid_out.values())
    return bench.world.balance("deriv") == came - left and bench.world.balance("utility") == -out
