"""The deposit saga, from the customer's command to the ledger, its steps in their order from top to bottom.

What a step may find, and what happens then, is in `docs/failure-tables.md`. Nothing here is
guessed: an answer that is not known is asked about (`ConfirmPayment`, `FindPayment`, `AskDeriv`), never repeated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, assert_never
from uuid import UUID

from payments.application.deriv_credit import AskDeriv, CreditLeg, SendCredit, ready_for_credit
from payments.application.mpesa_payment import REVERSED_BEFORE, PaymentLeg, Rest, movement_of, payment_step
from payments.application.quotes import Quotes
from payments.application.saga import AtDeriv, Question, Timing, TransactionSaga, own, send_again, sender_gone
from payments.application.taken_back import TakenBack
from payments.domain.deposit import Deposit
from payments.domain.eligibility import own_phone, usable_login
from payments.domain.limits import Limits
from payments.domain.ports import DerivGateway, LedgerGateway, MpesaGateway
from payments.domain.transaction import (
    FINAL,
    OtherWayOpen,
    Outflow,
    TransactionNotFound,
    TransactionStatus as S,
    TransactionType,
)
from shared_kernel.application.runner import Answer, Step
from shared_kernel.domain.identifiers import DerivTransferId, IdempotencyKey, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown, Unreadable
from shared_kernel.domain.ports import AuditLog, AuditRecord, IdempotencyKeys
from shared_kernel.domain.requests import (
    REVERTED,
    SEND_WINDOW,
    DerivTransfer,
    Leg,
    MpesaClaim,
    MpesaPayment,
    MpesaRequest,
    RequestStatus,
)

CONTRADICTORY = "claims_disagree"  # an attempt's code: callbacks and query contradict each other, the book decides


# --- step 2: ask Deriv about the login, then the customer for the payment ---------------------------------------------


@dataclass(frozen=True)
class CheckLogin(AtDeriv, Step[Deposit, Question, Outcome]):
    """CREATED: before the customer is charged, Deriv is asked whether the login may be credited."""

    deriv: DerivGateway
    timing: Timing
    calls = 1

    def intend(self, transaction: Deposit, *, at: datetime) -> Question:
        return Question((transaction.login, transaction.agent, transaction.payout), at)

    def call(self, request: Question, *, give_up_at: float) -> Outcome:
        return self.deriv.check_login(*request.request)

    def conclude(self, transaction: Deposit, request: Question, outcome: Outcome, *, at: datetime) -> None:
        if transaction.status is not S.CREATED:
            return
        match outcome:
            case Done() | Accepted():
                transaction.login_is_good(at=at)
            case Refused(code, reason):
                transaction.reject(code, reason or "Deriv does not accept deposits to this account.", at=at)
            case Unknown() | NotSent():
                transaction.wait(at + self.timing.nth(self.timing.retries_s, transaction.attempts), at=at)
            case _:
                assert_never(outcome)


@dataclass(frozen=True)
class AskForPayment(Step[Deposit, MpesaRequest, Outcome]):
    """CREATED to AWAITING_MPESA: the STK push; one open prompt a phone, later deposits wait in CREATED."""

    mpesa: MpesaGateway
    timing: Timing
    calls = 1
    sends_money = True

    def intend(self, transaction: Deposit, *, at: datetime) -> MpesaRequest | None:
        if transaction.status is S.CREATED and transaction.prompt_busy:
            transaction.wait(at + self.timing.nth((2, 3, 5, 10), transaction.attempts), at=at)
            return None
        request = transaction.payment
        if request is None:
            request = self.mpesa.new_request(
                transaction.id, Leg.STK_PUSH, 1, transaction.phone, transaction.amount, at=at
            )
        else:
            send_again(request, at=at)
        transaction.ask_for_payment(request, until=request.send_before + self.timing.of(self.timing.answer_s), at=at)
        return request

    def call(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        return self.mpesa.send(request, give_up_at=give_up_at)

    def conclude(self, transaction: Deposit, request: MpesaRequest, outcome: Outcome, *, at: datetime) -> None:
        if transaction.status is not S.AWAITING_MPESA:
            return
        match outcome:
            case Done() | Accepted():
                transaction.wait(at + self.timing.nth(self.timing.queries_s, 0), at=at)
            case NotSent(retry_after_s=retry_after_s):
                retry = self.timing.nth(self.timing.retries_s, transaction.attempts)
                transaction.wait(at + max(retry, self.timing.of(retry_after_s)), at=at)
            case Refused(code, reason):
                if own(transaction.payments, request.id).status is RequestStatus.REFUSED:
                    transaction.fail(code, reason or "M-Pesa did not accept the request. Nothing was charged.", at=at)
            case Unknown():
                transaction.wait(at + self.timing.of(self.timing.pull_gap_s), at=at)
            case _:
                assert_never(outcome)


# --- step 3: a claim or a timer, then proof ---------------------------------------------------------------------------


@dataclass(frozen=True)
class TakePayment:
    """What proof of a payment does: posted for what was proven; anything but the asked amount goes before a person.

    With `suspense`, the name of what lies there, the payment is taken from there: it came in before it was known whose.
    """

    ledger: LedgerGateway
    audit: AuditLog
    suspense: str = ""
    not_there_for: timedelta = timedelta(0)  # nothing younger lies in suspense: it need not be looked for

    def take(
        self, transaction: Deposit, request: MpesaRequest, payments: Sequence[MpesaPayment], *, at: datetime
    ) -> None:
        """`payments` are the book's rows, empty when the STK query alone proves it (then the amount is the one
        asked for).

        What lies in suspense by now is not posted a second time: a person matches it. Such a payment is known by its
        receipt, and where only the query tells of one, by the receipt that its callback claimed.
        """
        keys: dict[str, str] = {}
        if not self.suspense and at - request.created_at >= self.not_there_for:
            claimed = {claim.receipt for claim in request.claims if claim.result_code == "0" and claim.receipt}
            receipts = {payment.receipt for payment in payments} or claimed
            keys = {f"mpesa:{request.shortcode}:{receipt}": receipt for receipt in receipts}
        elsewhere = {keys[key] for key in self.ledger.posted(keys)}
        fresh = [payment for payment in payments if payment.receipt not in elsewhere]
        if elsewhere and not fresh:
            transaction.need_attention("payment_in_suspense", at=at)
            return
        payments = fresh
        request.status = RequestStatus.DONE
        transaction.change(request)
        paid = payments[0].amount if payments else request.amount
        transaction.paid = paid
        if payments:
            request.receipt = payments[0].receipt
        # by the receipt where it is known, so that nobody else can post the same payment at this moment
        self._post(transaction, request, paid, request.receipt or str(request.id), at=at)
        for extra in payments[1:]:
            self._post(transaction, request, extra.amount, extra.receipt, at=at)
            self.ledger.post_excess(transaction.id, transaction.user_id, extra.amount, of=extra.receipt, at=at)
        if transaction.amount < paid:
            self.ledger.post_excess(transaction.id, transaction.user_id, paid - transaction.amount, at=at)
        self.tell(transaction, request, [c for c in request.claims if c.result_code != "0" or not c.agrees], at=at)
        if paid == transaction.amount and len(payments) < 2:
            transaction.confirm(at=at)
        else:
            transaction.confirmed_at = at
            reason = "paid_twice" if len(payments) > 1 else "amount_differs"
            transaction.give_back(reason, "The payment differs from the amount of this deposit.", at=at)
            transaction.need_attention(reason, at=at)

    def tell(
        self, transaction: Deposit, request: MpesaRequest, contradicted: Sequence[MpesaClaim], *, at: datetime
    ) -> None:
        """An audit row for claims that a proof contradicts."""
        if contradicted:
            self.audit.append(
                [
                    AuditRecord(
                        "mpesa.claim_contradicts_proof", "transaction", str(transaction.id), at,
                        details={"request": str(request.id), "claims": [claim.result_code for claim in contradicted]},
                    )
                ]
            )  # fmt: skip

    def _post(self, transaction: Deposit, request: MpesaRequest, paid: Money, name: str, *, at: datetime) -> None:
        if self.suspense:
            self.ledger.post_suspense_matched(transaction.id, transaction.user_id, paid, orphan=self.suspense, at=at)
            return
        key = f"mpesa:{request.shortcode}:{name}"
        self.ledger.post_deposit_received(
            transaction.id, transaction.user_id, paid, shortcode=request.shortcode, provider_key=key, at=at
        )


@dataclass(frozen=True)
class ConfirmPayment(Step[Deposit, Question, Outcome]):
    """AWAITING_MPESA to MPESA_CONFIRMED:
    M-Pesa is asked whether the prompt was paid. A callback only starts the asking.
    """

    mpesa: MpesaGateway
    payment: TakePayment
    timing: Timing
    calls = 1

    def intend(self, transaction: Deposit, *, at: datetime) -> Question:
        return Question(transaction.payment, at)

    def call(self, request: Question, *, give_up_at: float) -> Outcome:
        return self.mpesa.query(request.request)

    def conclude(self, transaction: Deposit, request: Question, outcome: Outcome, *, at: datetime) -> None:
        if transaction.is_paid:  # meanwhile, by another worker: its attempts are not even loaded
            return
        attempt = own(transaction.payments, request.request.id)
        transaction.asked(attempt, asked_at=request.asked_at, at=at)
        match outcome:
            case Done() if all(claim.agrees for claim in attempt.claims):
                self.payment.take(transaction, attempt, (), at=at)
            case Refused(code, reason) if all(claim.result_code != "0" for claim in attempt.claims):
                attempt.status, attempt.code = RequestStatus.REFUSED, code
                if transaction.status is S.AWAITING_MPESA:
                    transaction.fail(code, reason or "The payment was not made. Nothing was charged.", at=at)
                else:
                    transaction.rest(at=at)
            case Done() | Refused():  # other ids, another amount, or paid against not paid: M-Pesa's own book decides
                attempt.code = CONTRADICTORY
                if transaction.status is S.AWAITING_MPESA:
                    attempt.status = RequestStatus.UNKNOWN
                    if isinstance(outcome, Refused):  # then the book may still close it
                        attempt.code = outcome.code
                transaction.wait(at, at=at)
            case Accepted() | Unknown() | NotSent():
                self._wait(transaction, attempt, at=at)
            case _:
                assert_never(outcome)

    def _wait(self, transaction: Deposit, attempt: MpesaRequest, *, at: datetime) -> None:
        if transaction.status is not S.AWAITING_MPESA:
            self._ask_again(transaction, attempt, at=at)
            return
        waited = at - attempt.created_at
        if waited > self.timing.of(self.timing.pull_from_s):  # the book is next
            transaction.wait(at, at=at)
            return
        later = [s for s in self.timing.queries_s if self.timing.of(s) > waited]
        until = (
            attempt.created_at + self.timing.of(later[0]) if later else at + self.timing.of(self.timing.query_every_s)
        )
        transaction.wait(until, at=at)

    def _ask_again(self, transaction: Deposit, attempt: MpesaRequest, *, at: datetime) -> None:
        """A late success was asked about, and nothing learnt: it counts as asked, so that only a timer asks again."""
        claimed = [claim.received_at for claim in attempt.claims if claim.result_code == "0"]
        if not claimed:
            transaction.rest(at=at)
        elif at - max(claimed) > self.timing.of(self.timing.pull_from_s):
            transaction.need_attention("payment_contradictory", at=at)
        else:
            transaction.wait(at + self.timing.of(self.timing.query_every_s), at=at)


@dataclass(frozen=True)
class FindPayment(Step[Deposit, Question, Sequence[MpesaPayment] | Unreadable | Unknown]):
    """AWAITING_MPESA, when the prompt's answer was lost or the query does not settle it:
    M-Pesa's own book (Pull) is read.
    """

    mpesa: MpesaGateway
    payment: TakePayment
    timing: Timing
    calls = 1

    def intend(self, transaction: Deposit, *, at: datetime) -> Question:
        attempt = transaction.prompts[-1]
        if attempt.status in {RequestStatus.SENDING, RequestStatus.NOT_SENT}:  # its sender is gone, or was wrong
            sender_gone(transaction, attempt)
            transaction.wait(at + self.timing.of(self.timing.answer_s), at=at)
        return Question(attempt, at)

    def call(self, request: Question, *, give_up_at: float) -> Sequence[MpesaPayment] | Unreadable:
        return self.mpesa.payments(request.request)

    def conclude(
        self,
        transaction: Deposit,
        request: Question,
        outcome: Sequence[MpesaPayment] | Unreadable | Unknown,
        *,
        at: datetime,
    ) -> None:
        if transaction.is_paid:  # meanwhile, by another worker: its attempts are not even loaded
            return
        attempt = own(transaction.payments, request.request.id)
        counts = request.asked_at >= self._counts_from(attempt)
        transaction.asked(attempt, asked_at=request.asked_at, at=at)
        if isinstance(outcome, Unreadable | Unknown):
            self._wait_or_show(transaction, attempt, at=at)
        elif outcome:
            self.payment.take(transaction, attempt, outcome, at=at)
        elif attempt.status is RequestStatus.UNKNOWN:
            attempt.absences += counts
            if attempt.absences < 2:
                self._wait_or_show(transaction, attempt, at=at)
            elif attempt.code == CONTRADICTORY:
                transaction.need_attention("payment_contradictory", at=at)
            else:
                attempt.status = RequestStatus.CLOSED
                self.payment.tell(transaction, attempt, [c for c in attempt.claims if c.result_code == "0"], at=at)
                if transaction.status is S.AWAITING_MPESA:
                    transaction.fail("payment_not_received", "M-Pesa shows no payment. Nothing was charged.", at=at)
        else:
            self._wait_or_show(transaction, attempt, at=at)

    def _counts_from(self, attempt: MpesaRequest) -> datetime:
        """When a reading that does not show the payment counts: well after this sending, and after the last one."""
        since = attempt.send_before - SEND_WINDOW
        if attempt.absences and attempt.asked_at:
            since = max(since, attempt.asked_at)
        return since + self.timing.of(self.timing.pull_gap_s)

    def _wait_or_show(self, transaction: Deposit, attempt: MpesaRequest, *, at: datetime) -> None:
        if transaction.status is not S.AWAITING_MPESA:
            # no timer runs any more: a person has to look at a success that the book does not show (yet)
            if attempt.code == CONTRADICTORY or any(claim.result_code == "0" for claim in attempt.claims):
                transaction.need_attention("payment_contradictory", at=at)
            else:
                transaction.rest(at=at)
            return
        waited = at - attempt.created_at
        if attempt.status is RequestStatus.ACCEPTED and waited > self.timing.of(self.timing.pending_until_s):
            transaction.need_attention("payment_pending_too_long", at=at)
        elif waited > self.timing.of(self.timing.pull_until_s):
            transaction.need_attention("payment_not_readable", at=at)
        else:
            due = self._counts_from(attempt)
            transaction.wait(due if due > at else at + self.timing.of(self.timing.pull_gap_s), at=at)


# --- steps 4 and 5: Deriv ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DepositCredit(CreditLeg):
    """MPESA_CONFIRMED to DERIV_TRANSFER_SENT; then COMPLETED, REFUND_PENDING, or asking."""

    deriv: DerivGateway
    ledger: LedgerGateway
    leg: ClassVar[Leg] = Leg.DERIV_CREDIT

    def amount(self, transaction: Deposit) -> Money:
        return transaction.payout

    def is_too_late(self, transaction: Deposit, timing: Timing, *, at: datetime) -> bool:
        """Also for the first attempt: what was held for long is not converted at the old rate either."""
        return at - (transaction.confirmed_at or transaction.created_at) > timing.of(timing.give_back_after_s)

    def is_under_way(self, transaction: Deposit) -> bool:
        return transaction.status is S.DERIV_TRANSFER_SENT

    def sent(self, transaction: Deposit, transfer: DerivTransfer, *, until: datetime, at: datetime) -> None:
        transaction.send_to_deriv(transfer, until=until, at=at)

    def refused(self, transaction: Deposit, code: str, reason: str, *, at: datetime) -> None:
        reason = reason or "Deriv did not credit the deposit. You will be refunded."
        transaction.give_back(code, reason, at=at)

    def unreachable(self, transaction: Deposit, *, at: datetime) -> None:
        transaction.give_back("deriv_unavailable", "Deriv could not be reached. You will be refunded.", at=at)

    def booked(self, transaction: Deposit, transfer: DerivTransfer, references: Sequence[str], *, at: datetime) -> None:
        """Completes with the first reference; any other is a double booking: posted, the credential frozen, shown.

        Where the money went back meanwhile, the customer owes it.
        """
        known = transaction.deriv_transfer_id
        fresh = [reference for reference in dict.fromkeys(references) if reference != known]
        if known is None and fresh:
            self._first(transaction, transfer, fresh.pop(0), at=at)
        if fresh:  # what was posted before, as an orphan or for another attempt that shares the reference, is no news
            posted = self.ledger.posted([f"deriv:{transfer.agent}:{reference}" for reference in fresh])
            fresh = [reference for reference in fresh if f"deriv:{transfer.agent}:{reference}" not in posted]
        for second in fresh:
            self.ledger.post_duplicate_sent(
                transaction.id,
                transaction.payout,
                agent=transfer.agent,
                provider_key=f"deriv:{transfer.agent}:{second}",
                at=at,
            )
            if not transfer.provider_transaction_id:  # it was closed as absent, and took effect after all
                transfer.status, transfer.provider_transaction_id = RequestStatus.DONE, second
                transaction.change(transfer)
        if fresh:
            self.deriv.freeze(transfer.agent, f"{transaction.id} was booked more than once")
            transaction.need_attention("credited_twice", at=at)

    def _first(self, transaction: Deposit, transfer: DerivTransfer, reference: str, *, at: datetime) -> None:
        if (transfer.status, transfer.provider_transaction_id) != (RequestStatus.DONE, reference):
            transfer.status, transfer.provider_transaction_id = RequestStatus.DONE, reference
            transaction.change(transfer)
        key = f"deriv:{transfer.agent}:{reference}"
        try:
            transaction.choose(Outflow.PAYOUT, at=at)
        except OtherWayOpen:
            transaction.deriv_transfer_id = DerivTransferId(reference)
            self.ledger.post_uncovered(
                transaction.id, transaction.user_id, transaction.payout, paid_by="deriv_agent", owner=transfer.agent,
                provider_key=key, at=at,
            )  # fmt: skip
            transaction.need_attention("credited_and_refunded", at=at)
            return
        transaction.complete(DerivTransferId(reference), at=at)
        self.ledger.post_deposit_sent(
            transaction.id,
            transaction.user_id,
            transaction.rate.split_deposit(transaction.amount),
            transaction.payout,
            agent=transfer.agent,
            provider_key=key,
            at=at,
        )


# --- the way back: reversal first; a refund by B2C only where a person allowed it -------------------------------------


@dataclass(frozen=True)
class FindReceipt(Step[Deposit, Question, Sequence[MpesaPayment] | Unreadable | Unknown]):
    """REFUND_PENDING: a reversal names the payment's receipt, which the STK query does not tell: M-Pesa's book does."""

    mpesa: MpesaGateway
    timing: Timing
    calls = 1

    def intend(self, transaction: Deposit, *, at: datetime) -> Question | None:
        if transaction.payment is None:
            transaction.need_attention("receipt_not_found", at=at)
            return None
        return Question(transaction.payment, at)

    def call(self, request: Question, *, give_up_at: float) -> Sequence[MpesaPayment] | Unreadable:
        return self.mpesa.payments(request.request)

    def conclude(
        self,
        transaction: Deposit,
        request: Question,
        outcome: Sequence[MpesaPayment] | Unreadable | Unknown,
        *,
        at: datetime,
    ) -> None:
        prompt = own(transaction.payments, request.request.id)
        if transaction.status is not S.REFUND_PENDING or prompt.receipt:
            return
        transaction.asked(prompt, asked_at=request.asked_at, at=at)
        if not isinstance(outcome, Unreadable | Unknown) and outcome:
            prompt.receipt = outcome[0].receipt
            transaction.wait(at, at=at)
        elif at - prompt.created_at > self.timing.of(self.timing.pull_until_s):
            transaction.need_attention("receipt_not_found", at=at)
        else:
            transaction.wait(at + self.timing.nth(self.timing.retries_s, transaction.attempts), at=at)


@dataclass(frozen=True)
class Refund(PaymentLeg):
    """REFUND_PENDING to REFUNDED: what was paid goes back by the way it came."""

    def amount(self, transaction: Deposit) -> Money:
        return transaction.refundable

    def about(self, transaction: Deposit) -> str:
        return transaction.payment.receipt if transaction.payment else ""

    def is_under_way(self, transaction: Deposit) -> bool:
        return transaction.status is S.REFUND_PENDING

    def may_go(self, transaction: Deposit, *, at: datetime) -> bool:
        if transaction.payment is not None and transaction.payment.code == REVERTED:
            transaction.need_attention(
                "payment_reversed", at=at
            )  # M-Pesa itself took it back, and the customer owes it
            return False
        if any(not r.status.is_dead for r in transaction.at_mpesa(Leg.REVERSAL)) and self.leg is not Leg.REVERSAL:
            transaction.need_attention("reversal_open", at=at)
            return False
        transaction.choose(Outflow.GIVE_BACK, at=at)  # promise 1, once more, in the commit of the intent
        return True

    def sent(self, transaction: Deposit, request: MpesaRequest, *, until: datetime, at: datetime) -> None:
        transaction.sends(request, until=until, at=at)

    def paid(
        self, transaction: Deposit, attempt: MpesaRequest, claim: MpesaClaim, *, proven: bool, at: datetime
    ) -> None:
        key, paid = movement_of(attempt), claim.amount or attempt.amount
        if transaction.status in {S.REFUND_PENDING, S.NEEDS_ATTENTION} and not transaction.mpesa_receipt:
            self.ledger.post_deposit_refunded(
                transaction.id, transaction.user_id, paid, shortcode=attempt.shortcode,
                by="reversal" if attempt.leg is Leg.REVERSAL else "b2c", provider_key=key, at=at,
            )  # fmt: skip
            confirm_at = self.confirm_at(transaction, proven=proven, at=at)
            transaction.refunded(claim.receipt or str(attempt.id), confirm_at=confirm_at, at=at)
            if transaction.deriv_transfer_id:
                transaction.need_attention("credited_and_refunded", at=at)
            elif paid != attempt.amount:
                due = attempt.amount
                self.ledger.post_difference(transaction.id, transaction.user_id, due=due, paid=paid, at=at)
                transaction.need_attention("refunded_another_amount", at=at)
            elif claim.result_code == REVERSED_BEFORE and attempt.fence == 1:
                transaction.need_attention("reversed_by_others", at=at)  # not by us: the first that we asked for
        else:  # it went back twice: the customer owes it
            self.ledger.post_uncovered(
                transaction.id, transaction.user_id, paid,
                paid_by="mpesa_working" if attempt.leg is Leg.REVERSAL else "mpesa_utility",
                owner=attempt.shortcode, provider_key=key, at=at,
            )  # fmt: skip
            transaction.need_attention("refunded_twice", at=at)

    def dead(self, transaction: Deposit, attempt: MpesaRequest, code: str, *, at: datetime) -> None:
        transaction.need_attention(f"refund_refused:{code}", at=at)

    def denied(self, transaction: Deposit, attempt: MpesaRequest, *, at: datetime) -> None:
        self.ledger.undo_deposit_refunded(transaction.id, at=at)
        transaction.deny_refund(at=at)


@dataclass(frozen=True)
class Reversal(Refund):
    """M-Pesa takes the payment back."""

    leg: ClassVar[Leg] = Leg.REVERSAL


@dataclass(frozen=True)
class B2cRefund(Refund):
    """A payment of ours to the phone that paid."""

    leg: ClassVar[Leg] = Leg.B2C_REFUND


# --- step 1: the customer's command; and what drives the steps --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateDeposit:
    """A customer accepts a quote. `intent` is what a retry repeats."""

    id: TransactionId
    user_id: UserId
    quote_id: QuoteId
    key: IdempotencyKey
    at: datetime

    @property
    def intent(self) -> dict[str, Any]:
        """The customer's intent only: nothing that changes between a request and its retry."""
        return {"quote_id": str(self.quote_id)}


@dataclass(frozen=True, kw_only=True)
class DepositSaga(TransactionSaga[Deposit]):
    """Deposits: the command, and the steps that bring each one to its end."""

    type: ClassVar[TransactionType] = TransactionType.DEPOSIT
    payments: ClassVar[frozenset[Leg]] = frozenset({Leg.STK_PUSH, Leg.REVERSAL, Leg.B2C_REFUND})

    quotes: Quotes
    limits: Limits
    keys: IdempotencyKeys
    lies_in_suspense: Callable[[str], bool] = lambda name: True  # in the caller's unit of work
    was_returned: Callable[[str], bool] = lambda name: False  # likewise: what lay there went back to where it came from

    def create(self, command: CreateDeposit, answer: Callable[[Deposit], str]) -> tuple[str, bool]:
        """Step 1. The first `answer` to this key, which commits with the effect; and whether this is a repeat of it.

        Raises `QuoteExpired`, `QuoteNotFound`, `QuoteUsed`, `LimitExceeded`, `GivenBackTooOften`, `KycRequired`,
        `PhoneNotVerified`, `DerivLoginMissing`, `DerivLoginLost`, `AccountFrozen`, `FloatTooLow`,
        `IdempotencyKeyReused`, `IdempotencyInFlight`.
        """
        with self.unit_of_work():
            if self.keys.claim(command.key, command.intent, result=command.id) == command.id:
                transaction = self._accept(command)
                text = answer(transaction)
                self.transactions.save_many([transaction])
                self.keys.answer(command.key, text)
                self.reservations.reserve(transaction.agent, transaction.id, transaction.payout, at=command.at)
                return text, False
            return self.keys.answer_of(command.key), True

    def _accept(self, command: CreateDeposit) -> Deposit:
        customer = self.users.customer(command.user_id)
        phone, login = own_phone(customer), usable_login(customer, by_token=False)
        quote = self.quotes.accept(
            command.quote_id, command.user_id, TransactionType.DEPOSIT, command.id, at=command.at
        )
        moved = self.limits.check(command.user_id, customer.tier, self.type, quote.you_send, at=command.at)
        return Deposit.create(
            command.id,
            user_id=command.user_id,
            quote_id=quote.id,
            amount=quote.you_send,
            rate=quote.rate,
            phone=phone,
            login=login,
            agent=self.deriv.agent_for(login.platform),
            login_checked_at=customer.deriv_checked_at,
            behind=moved.unfinished,
            at=command.at,
        )

    # --- what the providers' books show later -----------------------------------------------------------------------

    def reverted(self, id: TransactionId, entry: str) -> None:
        """Deriv took the proven credit `entry` back. Once more: no effect.

        Raises `TransactionNotFound`, `NothingTakenBack`.
        """
        with self.unit_of_work():
            transaction = self._one_whole(id)
            TakenBack(self.ledger).credit(transaction, entry, at=self.clock())
            self.save([transaction], ())

    def payment_reversed(self, id: TransactionId, receipt: str, amount: Money, movement: str = "") -> None:
        """M-Pesa took the proven payment `receipt` back, by what its book calls `movement`. Once more: no effect.

        Raises `TransactionNotFound`, `NothingTakenBack`.
        """
        with self.unit_of_work():
            transaction, reversal = self._one_whole(id), Reversal(self.ledger, self.timing)
            TakenBack(self.ledger, self.lies_in_suspense, self.was_returned).payment(
                transaction, receipt, amount, reversal, movement=movement, at=self.clock()
            )
            self.save([transaction], ())

    def _one_whole(self, id: TransactionId) -> Deposit:
        found = self.whole([id])
        if not found:
            raise TransactionNotFound(f"no such {self.type}")
        return found[0]

    def shown(self, aggregate: Deposit, transfer: DerivTransfer, entries: Sequence[str], *, at: datetime) -> None:
        self._credit.booked(aggregate, transfer, entries, at=at)

    # --- what the runner asks ---------------------------------------------------------------------------------------

    def float_of(self, aggregate: Deposit) -> tuple[str, Money]:
        return aggregate.agent, aggregate.payout

    def frees_float(self, aggregate: Deposit) -> bool:
        back = S.REFUND_PENDING  # what goes back is no longer sent, also while a person looks at it
        has_ended = aggregate.status in FINAL or back in {aggregate.status, aggregate.attention_from}
        return has_ended or bool(aggregate.deriv_transfer_id)

    def attach(self, aggregates: Sequence[Deposit], asked: set[UUID], answers: Sequence[Answer]) -> None:
        by_mpesa = {a.call.aggregate_id for a in answers if asks_about(a, MpesaRequest)}
        by_deriv = {a.call.aggregate_id for a in answers if asks_about(a, DerivTransfer)}
        back = Outflow.GIVE_BACK
        self.attach_mpesa([t for t in aggregates if t.status in ASKS_MPESA or t.id in by_mpesa or t.outflow is back],
                          answers)  # fmt: skip
        self.attach_deriv([t for t in aggregates if t.status in ASKS_DERIV or t.id in by_deriv or t.outflow is back],
                          answers)  # fmt: skip
        if new := [t for t in aggregates if t.status is S.CREATED]:
            busy = set(self.mpesa.busy_phones({t.phone for t in new}))
            for transaction in new:
                transaction.prompt_busy = transaction.phone in busy
                busy.add(transaction.phone)

    def next_step(self, aggregate: Deposit, *, at: datetime) -> Step[Any, Any, Any] | None:
        transaction, timing = aggregate, self.timing
        due = transaction.next_step_at is not None and transaction.next_step_at <= at
        may_leave = transaction.hold is None
        match transaction.status:
            case S.CREATED if due or transaction.attempts == 0:
                if not self._may_be_paid_in_time(transaction, at):
                    return Expire()
                checked = transaction.login_checked_at
                if checked is None or at - checked > timedelta(seconds=timing.login_fresh_s):
                    return CheckLogin(self.deriv, timing)
                return AskForPayment(self.mpesa, timing)
            case S.AWAITING_MPESA | S.FAILED | S.EXPIRED:
                if step := self._ask_mpesa(transaction, due, at=at):
                    return step
            case S.MPESA_CONFIRMED if due and may_leave:
                return SendCredit(self.deriv, self._credit, timing)
            case S.DERIV_TRANSFER_SENT if due:
                if not ready_for_credit(transaction, Leg.DERIV_CREDIT):
                    return AskDeriv(self.deriv, self._credit, timing)
                return SendCredit(self.deriv, self._credit, timing) if may_leave else None
            case S.REFUND_PENDING | S.REFUNDED | S.NEEDS_ATTENTION if transaction.outflow is Outflow.GIVE_BACK:
                # decided in this turn, on rows that were read without them: it is due, and the next look has them
                return self._give_back(transaction, due) if transaction.knows_payments else None
            case S.NEEDS_ATTENTION:
                if step := self._ask_mpesa(transaction, due, at=at):
                    return step
        return Rest() if due and transaction.status in AT_REST else None

    def _may_be_paid_in_time(self, transaction: Deposit, at: datetime) -> bool:
        """Whether a prompt sent now ends while the rate holds: what is paid later could only be given back."""
        return transaction.rate.holds(at + self.timing.of(self.timing.prompt_s))

    def _ask_mpesa(self, transaction: Deposit, due: bool, *, at: datetime) -> Step[Any, Any, Any] | None:
        attempt = transaction.payment
        if attempt is None or transaction.is_paid:
            return None
        claimed = any(attempt.asked_at is None or claim.received_at > attempt.asked_at for claim in attempt.claims)
        take = TakePayment(self.ledger, self.audit, not_there_for=self.timing.of(self.timing.settles_s / 2))
        match attempt.status:
            case RequestStatus.NOT_SENT if claimed:  # then it was sent after all: never again
                return FindPayment(self.mpesa, take, self.timing)
            case RequestStatus.NOT_SENT if due and transaction.status is S.AWAITING_MPESA:
                in_time = self._may_be_paid_in_time(transaction, at)
                return AskForPayment(self.mpesa, self.timing) if in_time else Expire()
            case RequestStatus.SENDING if due:
                return FindPayment(self.mpesa, take, self.timing)
            case RequestStatus.UNKNOWN | RequestStatus.CLOSED if due or claimed:
                return FindPayment(self.mpesa, take, self.timing)
            case RequestStatus.ACCEPTED | RequestStatus.REFUSED if due or claimed:
                late = at - attempt.created_at > self.timing.of(self.timing.pull_from_s)
                in_turn = late and transaction.attempts % 2 == 1  # both are asked: the query, then the book
                if transaction.status is not S.AWAITING_MPESA:  # what the query said is known: the book was asked for
                    in_turn = all(claim.result_code != "0" for claim in attempt.claims)
                book = due and (attempt.code == CONTRADICTORY or in_turn)
                book = book or not attempt.checkout_request_id  # nothing to query by
                step: type[ConfirmPayment | FindPayment] = FindPayment if book else ConfirmPayment
                return step(self.mpesa, take, self.timing)
        return None

    def _give_back(self, transaction: Deposit, due: bool) -> Step[Any, Any, Any] | None:
        """A reversal, or the refund by B2C that a person allowed once it was refused."""
        is_pending = transaction.status is S.REFUND_PENDING and transaction.hold is None
        by_b2c = transaction.refund_by_b2c or bool(transaction.at_mpesa(Leg.B2C_REFUND))
        for leg in (Reversal(self.ledger, self.timing), B2cRefund(self.ledger, self.timing)):
            send = is_pending and by_b2c == isinstance(leg, B2cRefund)
            if send and due and isinstance(leg, Reversal) and not leg.about(transaction):
                return FindReceipt(self.mpesa, self.timing)
            step = payment_step(self.mpesa, leg, transaction, self.timing, due=due, send=send)
            if step is not None and not isinstance(step, Rest):
                return step
        return Rest() if due and transaction.status in AT_REST else None

    @property
    def _credit(self) -> DepositCredit:
        return DepositCredit(self.deriv, self.ledger)


def asks_about(answer: Answer, kind: type) -> bool:
    """Whether the call was, or was about, a request of this kind."""
    request = answer.call.request
    return isinstance(request.request if isinstance(request, Question) else request, kind)


@dataclass(frozen=True)
class Expire(Step[Deposit, None, None]):
    """The rate's lock ran out before anything left: ends without a call."""

    def intend(self, transaction: Deposit, *, at: datetime) -> None:
        if transaction.payment is not None:
            transaction.payment.status = RequestStatus.CLOSED
            transaction.change(transaction.payment)
        transaction.expire(at=at)

    def call(self, request: None, *, give_up_at: float) -> None: ...

    def conclude(self, transaction: Deposit, request: None, outcome: None, *, at: datetime) -> None: ...


ASKS_MPESA = frozenset({S.AWAITING_MPESA, S.FAILED, S.EXPIRED, S.REFUND_PENDING, S.REFUNDED, S.NEEDS_ATTENTION})
ASKS_DERIV = frozenset({S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.REFUND_PENDING, S.REFUNDED, S.NEEDS_ATTENTION})
AT_REST = FINAL | {S.NEEDS_ATTENTION}  # nothing of theirs goes on by a timer, unless a step set it
