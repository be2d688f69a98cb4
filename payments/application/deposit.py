"""The deposit saga, from the customer's command to the ledger, its steps in their order from top to bottom.

What a step may find, and what happens then, is the deposit's tables in `docs/architecture.md`. Nothing here is
guessed: an answer that is not known is asked about (`ConfirmPayment`, `FindPayment`, `AskDeriv`), never repeated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar, assert_never
from uuid import UUID

from payments.application.quotes import Quotes
from payments.domain.limits import KycRequired, Limits
from payments.domain.ports import (
    DerivGateway,
    FloatReservations,
    LedgerGateway,
    MpesaGateway,
    TransactionRepository,
    UserDirectory,
)
from payments.domain.transaction import (
    FINAL,
    Transaction,
    TransactionNotFound,
    TransactionStatus,
    TransactionStatus as S,
    TransactionType,
)
from shared_kernel.application.runner import Answer, Call, Runner, Step
from shared_kernel.domain.errors import Conflict, Forbidden
from shared_kernel.domain.events import Event
from shared_kernel.domain.identifiers import DerivTransferId, IdempotencyKey, QuoteId, RequestId, TransactionId, UserId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Done,
    Found,
    Lookup,
    NotSent,
    Outcome,
    Refused,
    Unknown,
    Unreadable,
)
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdempotencyKeys, SideBySide, UnitOfWork
from shared_kernel.domain.requests import (
    SEND_WINDOW,
    DerivTransfer,
    Leg,
    MpesaClaim,
    MpesaPayment,
    MpesaRequest,
    ProviderRequest,
    RequestStatus,
)


class PhoneNotVerified(Forbidden):
    """Money moves only from a verified phone."""


class AccountFrozen(Forbidden):
    """Nothing moves for now."""


class DerivLoginMissing(Conflict):
    """No Deriv login is bound, or its name is not the customer's."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a saga waits, in seconds; `scale` shortens everything for tests and demos, and is 1 in production."""

    prompt_s: int = 180  # longest that a prompt stays open on a phone
    queries_s: tuple[int, ...] = (15, 25, 40, 60, 90, 120, 180)  # after the prompt was accepted
    query_every_s: int = 300
    pull_from_s: int = 3600  # M-Pesa's own book is read, too, once the queries have not settled it for so long
    pull_gap_s: int = 900  # between two readings that count, and before the first
    pending_until_s: int = 24 * 3600
    pull_until_s: int = 47 * 3600  # M-Pesa's book reaches back 48 hours
    answer_s: int = 35  # longest call
    late_commit_s: int = 600  # Deriv may still book that long after its answer was due
    deriv_asks_s: tuple[int, ...] = (5, 10, 20, 30, 60, 120, 300)
    deriv_until_s: int = 6 * 3600
    retries_s: tuple[int, ...] = (2, 5, 10, 30, 60, 300)
    give_back_after_s: int = 24 * 3600
    login_fresh_s: int = 900
    scale: float = 1.0

    def of(self, seconds: float) -> timedelta:
        """`seconds` as this run counts them."""
        return timedelta(seconds=seconds * self.scale)

    def nth(self, delays: Sequence[int], n: int) -> timedelta:
        """The n-th delay (from 0); the last one from then on."""
        return self.of(delays[min(n, len(delays) - 1)])


CONTRADICTORY = "claims_disagree"  # an attempt's code: callbacks and query contradict each other, the book decides
MOST_TRANSFERS = 3  # attempts at Deriv, each proven dead before the next; then the money goes back

AnyStep: TypeAlias = Step[Transaction, Any, Any]
P = TypeVar("P", bound=ProviderRequest)


@dataclass(frozen=True, slots=True)
class Question:
    """A read about `request`; `asked_at` is when the asking began, so that an absence is dated before the reading."""

    request: Any
    asked_at: datetime


def own(requests: Sequence[P], id: RequestId) -> P:
    """The request as it is stored now."""
    return next(request for request in requests if request.id == id)


# --- step 2: ask Deriv about the login, then the customer for the payment --------------------------------------------


@dataclass(frozen=True)
class CheckLogin(Step[Transaction, Question, Outcome]):
    """CREATED: before the customer is charged, Deriv is asked whether the login may be credited."""

    deriv: DerivGateway
    timing: Timing

    def intend(self, transaction: Transaction, *, at: datetime) -> Question:
        return Question((transaction.login, transaction.agent, transaction.payout), at)

    def call(self, request: Question, *, give_up_at: float) -> Outcome:
        return self.deriv.check_login(*request.request)

    def conclude(self, transaction: Transaction, request: Question, outcome: Outcome, *, at: datetime) -> None:
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
class AskForPayment(Step[Transaction, MpesaRequest, Outcome]):
    """CREATED to AWAITING_MPESA: the STK push; one open prompt a phone, later deposits wait in CREATED."""

    mpesa: MpesaGateway
    timing: Timing
    sends_money = True

    def intend(self, transaction: Transaction, *, at: datetime) -> MpesaRequest | None:
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

    def conclude(self, transaction: Transaction, request: MpesaRequest, outcome: Outcome, *, at: datetime) -> None:
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


# --- step 3: a claim or a timer, then proof --------------------------------------------------------------------------


@dataclass(frozen=True)
class TakePayment:
    """What proof of a payment does: posted for what was proven; anything but the asked amount goes before a person."""

    ledger: LedgerGateway
    audit: AuditLog

    def take(
        self, transaction: Transaction, request: MpesaRequest, payments: Sequence[MpesaPayment], *, at: datetime
    ) -> None:
        """`payments` are the book's rows, empty when the STK query alone proves it (then the amount is the one
        asked for).
        """
        request.status = RequestStatus.DONE
        transaction.change(request)
        paid = payments[0].amount if payments else request.amount
        if payments:
            request.receipt = payments[0].receipt
        self._post(transaction, request, paid, f"mpesa:{request.shortcode}:{request.id}", at=at)
        for extra in payments[1:]:
            self._post(transaction, request, extra.amount, f"mpesa:{request.shortcode}:{extra.receipt}", at=at)
            self.ledger.post_excess(transaction.id, transaction.user_id, extra.amount, at=at)
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
        self, transaction: Transaction, request: MpesaRequest, contradicted: Sequence[MpesaClaim], *, at: datetime
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

    def _post(self, transaction: Transaction, request: MpesaRequest, paid: Money, key: str, *, at: datetime) -> None:
        self.ledger.post_deposit_received(
            transaction.id, transaction.user_id, paid, shortcode=request.shortcode, provider_key=key, at=at
        )


@dataclass(frozen=True)
class ConfirmPayment(Step[Transaction, Question, Outcome]):
    """AWAITING_MPESA to MPESA_CONFIRMED:
    M-Pesa is asked whether the prompt was paid. A callback only starts the asking.
    """

    mpesa: MpesaGateway
    payment: TakePayment
    timing: Timing

    def intend(self, transaction: Transaction, *, at: datetime) -> Question:
        return Question(transaction.payment, at)

    def call(self, request: Question, *, give_up_at: float) -> Outcome:
        return self.mpesa.query(request.request)

    def conclude(self, transaction: Transaction, request: Question, outcome: Outcome, *, at: datetime) -> None:
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

    def _wait(self, transaction: Transaction, attempt: MpesaRequest, *, at: datetime) -> None:
        if transaction.status is not S.AWAITING_MPESA:
            return  # a late claim about an ended attempt: asked, and nothing learnt
        waited = at - attempt.created_at
        if waited > self.timing.of(self.timing.pull_from_s):  # the book is next
            transaction.wait(at, at=at)
            return
        later = [s for s in self.timing.queries_s if self.timing.of(s) > waited]
        until = (
            attempt.created_at + self.timing.of(later[0]) if later else at + self.timing.of(self.timing.query_every_s)
        )
        transaction.wait(until, at=at)


@dataclass(frozen=True)
class FindPayment(Step[Transaction, Question, Sequence[MpesaPayment] | Unreadable | Unknown]):
    """AWAITING_MPESA, when the prompt's answer was lost or the query does not settle it:
    M-Pesa's own book (Pull) is read.
    """

    mpesa: MpesaGateway
    payment: TakePayment
    timing: Timing

    def intend(self, transaction: Transaction, *, at: datetime) -> Question:
        attempt = transaction.payments[-1]
        if attempt.status in {RequestStatus.SENDING, RequestStatus.NOT_SENT}:  # its sender is gone, or was wrong
            gone = attempt.status is RequestStatus.SENDING
            attempt.status, attempt.code = RequestStatus.UNKNOWN, "sender_gone" if gone else "claimed"
            transaction.change(attempt)
            transaction.wait(at + self.timing.of(self.timing.answer_s), at=at)
        return Question(attempt, at)

    def call(self, request: Question, *, give_up_at: float) -> Sequence[MpesaPayment] | Unreadable:
        return self.mpesa.payments(request.request)

    def conclude(
        self,
        transaction: Transaction,
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

    def _wait_or_show(self, transaction: Transaction, attempt: MpesaRequest, *, at: datetime) -> None:
        if transaction.status is not S.AWAITING_MPESA:
            # no timer runs any more: a person has to look at a success that the book does not show (yet)
            if attempt.code == CONTRADICTORY or any(claim.result_code == "0" for claim in attempt.claims):
                transaction.need_attention("payment_contradictory", at=at)
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
class Credit:
    """What proof of a Deriv transfer does."""

    deriv: DerivGateway
    ledger: LedgerGateway

    def book(
        self, transaction: Transaction, transfer: DerivTransfer, references: Sequence[str], *, at: datetime
    ) -> None:
        """Completes with the first reference; any other one is a double booking:
        posted, the credential frozen, shown.
        """
        known = transaction.deriv_transfer_id
        fresh = [reference for reference in dict.fromkeys(references) if reference != known]
        if known is None and fresh:
            first = fresh.pop(0)
            if (transfer.status, transfer.provider_transaction_id) != (RequestStatus.DONE, first):
                transfer.status, transfer.provider_transaction_id = RequestStatus.DONE, first
                transaction.change(transfer)
            transaction.complete(DerivTransferId(first), at=at)
            self.ledger.post_deposit_sent(
                transaction.id,
                transaction.user_id,
                transaction.rate.split_deposit(transaction.amount),
                transaction.payout,
                agent=transfer.agent,
                provider_key=f"deriv:{transfer.agent}:{first}",
                at=at,
            )
        for second in fresh:
            self.ledger.post_duplicate_sent(
                transaction.id,
                transaction.payout,
                agent=transfer.agent,
                provider_key=f"deriv:{transfer.agent}:{second}",
                at=at,
            )
        if fresh:
            self.deriv.freeze(transfer.agent, f"{transaction.id} was booked more than once")
            transaction.need_attention("credited_twice", at=at)


@dataclass(frozen=True)
class SendToDeriv(Step[Transaction, DerivTransfer, Outcome]):
    """MPESA_CONFIRMED to DERIV_TRANSFER_SENT; then COMPLETED, REFUND_PENDING, or asking."""

    deriv: DerivGateway
    credit: Credit
    timing: Timing
    sends_money = True

    def intend(self, transaction: Transaction, *, at: datetime) -> DerivTransfer | None:
        if transaction.open_transfers:  # promise 3: never again while an earlier one may have taken effect
            raise RuntimeError(f"{transaction.id} has a transfer whose outcome is open")
        transfer = transaction.transfer
        if transfer is not None and transfer.status is RequestStatus.NOT_SENT:
            if transaction.confirmed_at and at > transaction.confirmed_at + self.timing.of(
                self.timing.give_back_after_s
            ):
                transaction.give_back("deriv_unavailable", "Deriv could not be reached. You will be refunded.", at=at)
                return None
            send_again(transfer, at=at)
        else:
            transfer = self.deriv.new_transfer(
                transaction.id,
                Leg.DERIV_CREDIT,
                len(transaction.transfers) + 1,
                transaction.login,
                transaction.agent,
                transaction.payout,
                at=at,
            )
        transaction.send_to_deriv(transfer, until=transfer.send_before + self.timing.of(self.timing.answer_s), at=at)
        return transfer

    def call(self, request: DerivTransfer, *, give_up_at: float) -> Outcome:
        return self.deriv.send(request, give_up_at=give_up_at)

    def conclude(self, transaction: Transaction, request: DerivTransfer, outcome: Outcome, *, at: datetime) -> None:
        transfer = own(transaction.transfers, request.id)
        if isinstance(outcome, Done):  # proof: also for one who was given up as lost
            self.credit.book(transaction, transfer, [outcome.reference], at=at)
            return
        if transaction.status is not S.DERIV_TRANSFER_SENT:
            return
        match outcome:
            case Accepted() | Unknown():
                transaction.wait(at + self.timing.nth(self.timing.deriv_asks_s, 0), at=at)
            case NotSent(retry_after_s=retry_after_s):
                retry = self.timing.nth(self.timing.retries_s, transaction.attempts)
                transaction.wait(at + max(retry, self.timing.of(retry_after_s)), at=at)
            case Refused(code, reason):
                if transaction.open_transfers:  # it speaks only for itself
                    transaction.wait(at + self.timing.nth(self.timing.deriv_asks_s, 0), at=at)
                else:
                    transaction.give_back(code, reason or "Deriv refused the deposit. You will be refunded.", at=at)
            case _:
                assert_never(outcome)


@dataclass(frozen=True)
class AskDeriv(Step[Transaction, Question, Lookup | Unknown]):
    """DERIV_TRANSFER_SENT with an unknown outcome:
    the agent's own book is read; only a proven absence allows another attempt.
    """

    deriv: DerivGateway
    credit: Credit
    timing: Timing

    def intend(self, transaction: Transaction, *, at: datetime) -> Question:
        transfer = transaction.open_transfers[0]
        if transfer.status is RequestStatus.SENDING:  # its sender is gone
            transfer.status, transfer.code = RequestStatus.UNKNOWN, "sender_gone"
            transaction.change(transfer)
            transaction.wait(at + self.timing.of(self.timing.answer_s), at=at)
        return Question(transfer, at)

    def call(self, request: Question, *, give_up_at: float) -> Lookup:
        return self.deriv.find(request.request)

    def conclude(self, transaction: Transaction, request: Question, outcome: Lookup | Unknown, *, at: datetime) -> None:
        transfer = own(transaction.transfers, request.request.id)
        if isinstance(outcome, Found):
            self.credit.book(transaction, transfer, outcome.references, at=at)
            return
        if transaction.status is not S.DERIV_TRANSFER_SENT or not transfer.status.may_take_effect:
            return
        transaction.asked(transfer, asked_at=request.asked_at, at=at)
        settled_at = transfer.send_before + self.timing.of(self.timing.answer_s + self.timing.late_commit_s)
        if outcome == Absent(proven=True) and request.asked_at >= settled_at:
            transfer.status, transfer.absences = RequestStatus.CLOSED, transfer.absences + 1
            if transaction.open_transfers or len(transaction.transfers) < MOST_TRANSFERS:
                transaction.wait(at, at=at)
            else:
                transaction.give_back(
                    "deriv_not_credited", "Deriv did not credit the deposit. You will be refunded.", at=at
                )
        elif at - transfer.created_at > self.timing.of(self.timing.deriv_until_s):
            transaction.need_attention("transfer_unknown", at=at)
        else:
            transaction.wait(at + self.timing.nth(self.timing.deriv_asks_s, transaction.attempts), at=at)


def send_again(request: ProviderRequest, *, at: datetime) -> None:
    """The same attempt once more, after it surely had no effect:
    the fence rises, so that a sleeping sender's word is void.
    """
    if request.status is not RequestStatus.NOT_SENT:
        raise RuntimeError(f"{request.id} is {request.status}: only what was surely not sent goes again")
    request.status, request.fence, request.send_before = RequestStatus.SENDING, request.fence + 1, at + SEND_WINDOW


# --- step 1: the customer's command; and what drives the steps ------------------------------------------------------


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


@dataclass(frozen=True)
class DepositSaga:
    """Deposits: the command, and the steps that bring each one to its end."""

    transactions: TransactionRepository
    quotes: Quotes
    limits: Limits
    users: UserDirectory
    mpesa: MpesaGateway
    deriv: DerivGateway
    ledger: LedgerGateway
    reservations: FloatReservations
    keys: IdempotencyKeys
    audit: AuditLog
    unit_of_work: UnitOfWork
    side_by_side: SideBySide
    clock: Clock
    timing: Timing = Timing()
    crash_point: Callable[[str], None] = field(default=lambda where: None)

    def create(self, command: CreateDeposit, answer: Callable[[Transaction], str]) -> tuple[str, bool]:
        """Step 1. The first `answer` to this key, which commits with the effect; and whether this is a repeat of it.

        Raises `QuoteExpired`, `QuoteNotFound`, `QuoteUsed`, `LimitExceeded`, `KycRequired`, `PhoneNotVerified`,
        `DerivLoginMissing`, `AccountFrozen`, `FloatTooLow`, `IdempotencyKeyReused`, `IdempotencyInFlight`.
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

    def _accept(self, command: CreateDeposit) -> Transaction:
        customer = self.users.customer(command.user_id)
        if customer.is_frozen:
            raise AccountFrozen("deposits are stopped for this account: please contact support")
        if customer.phone is None:
            raise PhoneNotVerified("verify your phone number first")
        if customer.kyc_status != "verified":
            raise KycRequired("complete the identity check first")
        if customer.deriv_login is None or not customer.deriv_name_matches:
            raise DerivLoginMissing("bind a Deriv account that is in your own name first")
        quote = self.quotes.accept(
            command.quote_id, command.user_id, TransactionType.DEPOSIT, command.id, at=command.at
        )
        self.limits.check(command.user_id, customer.tier, TransactionType.DEPOSIT, quote.you_send, at=command.at)
        return Transaction.create(
            command.id,
            user_id=command.user_id,
            quote_id=quote.id,
            amount=quote.you_send,
            rate=quote.rate,
            phone=customer.phone,
            login=customer.deriv_login,
            agent=self.deriv.agent_for(customer.deriv_login.platform),
            login_checked_at=customer.deriv_checked_at,
            at=command.at,
        )

    def advance(self, events: Sequence[Event]) -> None:
        """A subscriber: the events only say that it is worth looking now; the rows say what to do."""
        self.drive([event.aggregate_id for event in events])

    def drive(self, ids: Sequence[UUID]) -> None:
        """Brings these deposits as far as they can go now. Raises `StepsFailed`."""
        runner = Runner(self, self.unit_of_work, self.side_by_side, self.clock, crash_point=self.crash_point)
        runner.advance(ids)

    def resume(self, id: TransactionId, *, why: str) -> TransactionStatus:
        """A person sends it back to where it came from; answers that status. What is due then is `drive`'s.

        Raises `TransactionNotFound`, `NothingToResume`.
        """
        with self.unit_of_work():
            found = self.load([id], ())
            if not found:
                raise TransactionNotFound("no such deposit")
            [transaction] = found
            transaction.resume(why=why, at=self.clock())
            self.save([transaction], ())
            return transaction.status

    # --- what the runner asks ---------------------------------------------------------------------------------------

    def id_of(self, aggregate: Transaction) -> UUID:
        return aggregate.id

    def load(self, ids: Sequence[UUID], answers: Sequence[Answer]) -> list[Transaction]:
        transactions = self.transactions.get_many([TransactionId(id) for id in ids], TransactionType.DEPOSIT)
        self.deriv.record_outcomes(outcomes_of(SendToDeriv, answers))
        mpesa = (AskForPayment, ConfirmPayment, FindPayment)
        asked = {answer.call.aggregate_id for answer in answers if isinstance(answer.call.step, mpesa)}
        prompts = [t for t in transactions if t.status in ASKS_MPESA or t.id in asked]
        if prompts:
            payments = self.mpesa.requests_of([t.id for t in prompts], outcomes_of(AskForPayment, answers))
            for transaction in prompts:
                transaction.payments = list(payments.get(transaction.id, ()))
        looked = {
            answer.call.aggregate_id for answer in answers if isinstance(answer.call.step, (SendToDeriv, AskDeriv))
        }
        sent = [t for t in transactions if t.status in ASKS_DERIV or t.id in looked]
        if sent:
            transfers = self.deriv.transfers_of([t.id for t in sent])
            for transaction in sent:
                transaction.transfers = list(transfers.get(transaction.id, ()))
        new = [t for t in transactions if t.status is S.CREATED]
        if new:
            busy = set(self.mpesa.busy_phones({t.phone for t in new}))
            for transaction in new:
                transaction.prompt_busy = transaction.phone in busy
                busy.add(transaction.phone)
        return transactions

    def next_step(self, transaction: Transaction, *, at: datetime) -> AnyStep | None:
        """The step that the state asks for: this is the saga's table."""
        timing, due = self.timing, transaction.next_step_at is not None and transaction.next_step_at <= at
        match transaction.status:
            case S.CREATED if due or transaction.attempts == 0:
                if not self._may_be_paid_in_time(transaction, at):
                    return Expire()
                checked = transaction.login_checked_at
                if checked is None or at - checked > timedelta(seconds=timing.login_fresh_s):
                    return CheckLogin(self.deriv, timing)
                return AskForPayment(self.mpesa, timing)
            case S.AWAITING_MPESA | S.FAILED | S.EXPIRED | S.NEEDS_ATTENTION:
                return self._ask_mpesa(transaction, due, at=at)
            case S.MPESA_CONFIRMED if due:
                return SendToDeriv(self.deriv, self._credit, timing)
            case S.DERIV_TRANSFER_SENT if due:
                if transaction.open_transfers:
                    return AskDeriv(self.deriv, self._credit, timing)
                return SendToDeriv(self.deriv, self._credit, timing)
        return None

    def _may_be_paid_in_time(self, transaction: Transaction, at: datetime) -> bool:
        """Whether a prompt sent now ends while the rate holds: what is paid later could only be given back."""
        return transaction.rate.holds(at + self.timing.of(self.timing.prompt_s))

    def _ask_mpesa(self, transaction: Transaction, due: bool, *, at: datetime) -> AnyStep | None:
        attempt = transaction.payment
        if attempt is None or transaction.is_paid:
            return None
        claimed = any(attempt.asked_at is None or claim.received_at > attempt.asked_at for claim in attempt.claims)
        take = TakePayment(self.ledger, self.audit)
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
                book = due and (attempt.code == CONTRADICTORY or in_turn)
                book = book or not attempt.checkout_request_id  # nothing to query by
                step: type[ConfirmPayment | FindPayment] = FindPayment if book else ConfirmPayment
                return step(self.mpesa, take, self.timing)
        return None

    @property
    def _credit(self) -> Credit:
        return Credit(self.deriv, self.ledger)

    def save(self, transactions: Sequence[Transaction], calls: Sequence[Call]) -> None:
        touched = [t for t in transactions if t.touched]
        for transaction in touched:
            transaction.failures = 0
        self.transactions.save_many(touched)
        intended = {id(call.request) for call in calls}
        prompts = [call.request for call in calls if isinstance(call.step, AskForPayment)]
        transfers = [call.request for call in calls if isinstance(call.step, SendToDeriv)]
        changed = [request for t in touched for request in t.changed if id(request) not in intended]
        if prompts:
            self.mpesa.record(prompts)
        if transfers:
            self.deriv.record(transfers)
        if asked := [request for request in changed if isinstance(request, MpesaRequest)]:
            self.mpesa.save(asked)
        if looked := [request for request in changed if isinstance(request, DerivTransfer)]:
            self.deriv.save(looked)
        for transaction in touched:
            if transaction.reserve_again:
                self.reservations.reserve(
                    transaction.agent, transaction.id, transaction.payout, at=transaction.updated_at, beyond=True
                )
        back = S.REFUND_PENDING  # what goes back is no longer sent, also while a person looks at it
        ended = [
            t.id for t in touched if t.status in FINAL or back in {t.status, t.attention_from} or t.deriv_transfer_id
        ]
        if ended:
            self.reservations.release(ended, at=self.clock())

    def step_failed(self, id: UUID, error: Exception, *, at: datetime) -> None:
        with self.unit_of_work():
            for transaction in self.transactions.get_many([TransactionId(id)], TransactionType.DEPOSIT):
                if transaction.status in FINAL or transaction.next_step_at is None:
                    continue
                if transaction.failures >= MOST_FAILURES:
                    transaction.need_attention(f"step_failed:{type(error).__name__}", at=at)
                else:
                    again = at + self.timing.nth(self.timing.retries_s, transaction.failures)
                    transaction.step_failed(again, at=at)
                self.transactions.save_many([transaction])


@dataclass(frozen=True)
class Expire(Step[Transaction, None, None]):
    """The rate's lock ran out before anything left: ends without a call."""

    def intend(self, transaction: Transaction, *, at: datetime) -> None:
        if transaction.payment is not None:
            transaction.payment.status = RequestStatus.CLOSED
            transaction.change(transaction.payment)
        transaction.expire(at=at)

    def call(self, request: None, *, give_up_at: float) -> None: ...

    def conclude(self, transaction: Transaction, request: None, outcome: None, *, at: datetime) -> None: ...


MOST_FAILURES = 20  # of our own code on one Transaction, with growing pauses; then a person is shown it
ASKS_MPESA = frozenset({S.AWAITING_MPESA, S.FAILED, S.EXPIRED, S.NEEDS_ATTENTION})
ASKS_DERIV = frozenset({S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.REFUND_PENDING, S.NEEDS_ATTENTION})


def outcomes_of(step: type[AnyStep], answers: Sequence[Answer]) -> list[tuple[Any, Outcome]]:
    """The answers to calls of one kind of step, as its gateway stores them."""
    return [(answer.call.request, answer.outcome) for answer in answers if isinstance(answer.call.step, step)]
