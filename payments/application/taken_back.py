"""What a provider takes back later, by its own book: a credit, a payment, a debit that had been proven and posted.

A watcher of the books finds it; here it is posted once, and the Transaction moves. Each function runs inside the
caller's unit of work, on a Transaction whose requests are attached, and has no effect a second time. Money that can
no longer be covered by what waits in transit is owed by the customer.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from payments.application.mpesa_payment import CONFIRMED, PaymentLeg
from payments.domain.deposit import Deposit
from payments.domain.ports import LedgerGateway
from payments.domain.transaction import Outflow, Transaction, TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from shared_kernel.domain.errors import Conflict
from shared_kernel.domain.identifiers import DerivTransferId
from shared_kernel.domain.money import Money
from shared_kernel.domain.requests import REVERTED, Leg, MpesaClaim, MpesaRequest, RequestStatus


class NothingTakenBack(Conflict):
    """This Transaction has no such posted movement that could have been taken back."""


@dataclass(frozen=True)
class TakenBack:
    """Posts it, and says what the Transaction does then."""

    ledger: LedgerGateway
    lies_there: Callable[[str], bool] = lambda name: True
    was_returned: Callable[[str], bool] = lambda name: False

    def credit(self, deposit: Deposit, entry: str, *, at: datetime) -> None:
        """Deriv reverted the credit `entry`: its journal is mirrored, and the deposit refunded. It is not sent anew:
        on v3 a second transfer could not be told from the first one in Deriv's book, and its rate is old.

        Raises `NothingTakenBack`.
        """
        credit = next((t for t in deposit.credits if t.provider_transaction_id == entry), None)
        if credit is None or (deposit.deriv_transfer_id != entry and credit.code != REVERTED):
            raise NothingTakenBack(f"{deposit.id} has no credit {entry} that stands")
        if credit.code == REVERTED:
            return
        credit.status, credit.code = RequestStatus.CLOSED, REVERTED
        deposit.change(credit)
        key = f"deriv:{credit.agent}:{entry}:reverted"
        had_completed = deposit.status is S.COMPLETED
        deposit.credit_reverted(at=at)
        if deposit.outflow is Outflow.GIVE_BACK:  # it stood against a give-back, so that the customer owed it
            self.ledger.post_suspense_in("deriv_agent", credit.agent, deposit.payout, provider_key=key, at=at)
            return
        self.ledger.undo_deposit_sent(deposit.id, provider_key=key, at=at)
        if had_completed:
            deposit.give_back("deriv_reverted", "Deriv took the deposit back. You will be refunded.", at=at)
        else:
            deposit.choose_refund(at=at)

    def payment(
        self, deposit: Deposit, receipt: str, amount: Money, reversal: PaymentLeg, *, movement: str = "", at: datetime
    ) -> None:
        """M-Pesa took the payment `receipt` back, by its `movement`. It may be the end of our own `reversal`; else,
        before Deriv could be paid, it ends the deposit, and afterwards the customer owes it.

        Raises `NothingTakenBack`.
        """
        prompt = deposit.payment
        if prompt is None or not deposit.is_paid:
            raise NothingTakenBack(f"{deposit.id} was not paid by {receipt}")
        if prompt.receipt not in {"", receipt}:
            self._second_payment(deposit, prompt, receipt, amount, movement, at=at)
            return
        reversals = deposit.at_mpesa(Leg.REVERSAL)
        if prompt.code == REVERTED or any(r.status is RequestStatus.DONE for r in reversals):
            return
        prompt.receipt = receipt
        deposit.change(prompt)
        if ours := next((r for r in reversals if r.status.may_take_effect), None):
            ours.status, ours.code = RequestStatus.DONE, CONFIRMED
            deposit.change(ours)
            claim = MpesaClaim("0", at, amount)
            reversal.paid(deposit, ours, claim, proven=True, at=at)
            return
        prompt.code = REVERTED
        key = f"mpesa:{prompt.shortcode}:{receipt}:reversed"
        if _may_be_out(deposit):
            self._post_reversed(deposit, prompt, amount, key, covered=False, at=at)
            deposit.need_attention("payment_reversed", at=at)
            return
        waits = min(amount, deposit.refundable)
        self._post_reversed(deposit, prompt, waits, key, covered=True, at=at)
        in_suspense = self.lies_there(f"{deposit.id}:deposit_excess:difference")
        if waits < amount:  # what was paid too much
            self._rest(deposit, prompt, amount - waits, f"{key}:excess", in_suspense=in_suspense, at=at)
        if deposit.status is not S.REFUND_PENDING:
            deposit.give_back("payment_reversed", "M-Pesa has returned this payment to you.", at=at)
        deposit.refunded(f"reversal of {receipt}"[:24], at=at)
        if waits < amount and not in_suspense:
            deposit.need_attention("returned_twice", at=at)

    def _second_payment(
        self, deposit: Deposit, prompt: MpesaRequest, receipt: str, amount: Money, movement: str, *, at: datetime
    ) -> None:
        """Beside the one that paid the deposit. People have returned it from suspense: the customer has it twice.

        While it lies there, it is settled by this very movement, and the key says so afterwards.
        """
        if not movement or not self.was_returned(f"{deposit.id}:deposit_excess:{receipt}"):
            raise NothingTakenBack(
                f"{deposit.id} was not paid by {receipt}, which nobody returned from suspense either"
            )
        key = f"mpesa:{prompt.shortcode}:{movement}"
        if self.ledger.posted([key]):
            return
        self.ledger.post_uncovered(
            deposit.id,
            deposit.user_id,
            amount,
            paid_by="mpesa_working",
            owner=prompt.shortcode,
            provider_key=key,
            at=at,
        )
        deposit.need_attention("returned_twice", at=at)

    def _rest(
        self, deposit: Deposit, prompt: MpesaRequest, rest: Money, key: str, *, in_suspense: bool, at: datetime
    ) -> None:
        """Out of suspense; where people have returned it from there by another way, the customer has it twice."""
        if in_suspense:
            self.ledger.post_suspense_returned(
                "mpesa_working", prompt.shortcode, rest, orphan=f"{deposit.id}:deposit_excess:difference",
                provider_key=key, at=at, transaction=deposit.id,
            )  # fmt: skip
            return
        self.ledger.post_uncovered(
            deposit.id, deposit.user_id, rest, paid_by="mpesa_working", owner=prompt.shortcode, provider_key=key, at=at
        )

    def _post_reversed(
        self, deposit: Deposit, prompt: MpesaRequest, amount: Money, key: str, *, covered: bool, at: datetime
    ) -> None:
        self.ledger.post_deposit_reversed(
            deposit.id, deposit.user_id, amount, shortcode=prompt.shortcode, provider_key=key, covered=covered, at=at
        )

    def debit(self, withdrawal: Withdrawal, entry: str, *, at: datetime) -> None:
        """Deriv reverted the debit `entry`: what waits goes with it, and what was, or may be, paid out is owed.

        Raises `NothingTakenBack`.
        """
        debit = withdrawal.debit
        if debit is None or debit.provider_transaction_id != entry:
            raise NothingTakenBack(f"{withdrawal.id} has no debit {entry}")
        if debit.code == REVERTED:
            return
        debit.status, debit.code = RequestStatus.CLOSED, REVERTED
        withdrawal.change(debit)
        stands, covered = withdrawal.attention_from or withdrawal.status, not _may_be_out(withdrawal)
        if covered and stands in {S.RATE_LOCKED, S.MPESA_DISBURSING}:
            self.ledger.undo_exchange(withdrawal.id, at=at)
        self.ledger.post_debit_reverted(
            withdrawal.id, withdrawal.user_id, withdrawal.amount, agent=debit.agent,
            provider_key=f"deriv:{debit.agent}:{entry}:reverted", covered=covered, at=at,
        )  # fmt: skip
        if not covered:
            withdrawal.need_attention("debit_reverted", at=at)
        elif stands is S.DERIV_DEBITED:
            withdrawal.never_debited(at=at)
        else:
            if withdrawal.status is not S.CREDIT_BACK_PENDING:
                withdrawal.credit_back("debit_reverted", "Deriv took the withdrawal back.", at=at)
            for back in withdrawal.at_deriv(Leg.DERIV_CREDIT_BACK):
                if back.status is RequestStatus.NOT_SENT:
                    back.status = RequestStatus.CLOSED
                    withdrawal.change(back)
            withdrawal.credited_back(DerivTransferId(f"{entry}:reverted"), at=at)


def _may_be_out(transaction: Transaction) -> bool:
    """Whether what was proven to have come left again, or may have: then nothing in transit covers it."""
    return transaction.has_left or any(request.status.may_take_effect for request in transaction.outgoing)
