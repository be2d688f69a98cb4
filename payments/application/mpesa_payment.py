"""Money that leaves by M-Pesa: a payout or a refund by B2C, and a reversal.

M-Pesa answers by callbacks, which are claims. `read` holds against each other what is known of one attempt; the steps
ask until one thing is proven: about a B2C payment by Transaction Status, whose answer comes to a URL that the query
alone knows; about a reversal by the same reversal once more, which M-Pesa refuses with `R000001` if it was made. A new
OriginatorConversationID exists only after the one before is proven dead.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from typing import Any, ClassVar, assert_never

from payments.application.saga import Timing, own, send_again, sender_gone
from payments.domain.ports import LedgerGateway, MpesaGateway
from payments.domain.transaction import FINAL, Transaction
from shared_kernel.application.runner import Step
from shared_kernel.domain.money import InvalidAmount, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.requests import Blame, Leg, MpesaClaim, MpesaRequest, RequestStatus

MOST_QUERIES = (
    12  # about one attempt: by the timer once it is not awaited, by callbacks in an hour; then a person looks
)
VERDICT = "verdict"  # an attempt's code: two people judged that it had no effect
CONFIRMED = "confirmed"  # a payout's code: M-Pesa has proven what was booked on a claim
REVERSED_BEFORE = "R000001"  # the payment is reversed already: proof, for it answers a reversal of our own


class Reading(Enum):
    """What is known of an attempt, and was not acted upon yet."""

    NOTHING_NEW = auto()
    SUSPECTED = auto()  # a callback says something that has to be asked about
    REFUSED = auto()  # a callback says that a reversal fails: nothing that could be asked proves it
    CLAIMED = auto()  # a callback says that it was paid, as asked
    PROVEN = auto()  # M-Pesa's own answer: it was paid
    DISPROVEN = auto()  # M-Pesa's own answer: it was not paid, and never will be


@dataclass(frozen=True, slots=True)
class Read:
    """A reading and the callback behind it."""

    reading: Reading
    claim: MpesaClaim | None = None


def read(transaction: Transaction, attempt: MpesaRequest) -> Read:
    """Proof first, the newest one; then claims that came after it was last asked about."""
    queries = queries_about(transaction, attempt)
    answers = [claim for query in queries for claim in query.claims]
    own_proof = [c for c in attempt.claims if c.result_code == REVERSED_BEFORE and attempt.leg is Leg.REVERSAL]
    if done := [c for c in answers if c.is_done and _is_told(c.amount, attempt, queries)] or own_proof:
        is_told = attempt.status is RequestStatus.DONE and attempt.code == CONFIRMED
        return Read(Reading.NOTHING_NEW if is_told else Reading.PROVEN, done[-1])
    dead = [claim for claim in answers if claim.is_dead]
    if dead and not attempt.status.is_dead:
        return Read(Reading.DISPROVEN, dead[-1])
    fresh = [c for c in attempt.claims if attempt.asked_at is None or c.received_at > attempt.asked_at]
    if attempt.status is RequestStatus.DONE:  # a repeat of the same outcome has no effect
        fresh = [claim for claim in fresh if claim.result_code != "0" or not claim.agrees]
    if attempt.status.is_dead and attempt.leg is Leg.REVERSAL:  # so has what agrees with a refusal
        fresh = [claim for claim in fresh if claim.result_code == "0"]
    if not fresh:
        return Read(Reading.NOTHING_NEW)
    if attempt.leg is Leg.REVERSAL and fresh[-1].result_code not in {"0", "timeout"}:
        return Read(Reading.REFUSED, fresh[-1])
    may_be_booked = attempt.leg is not Leg.REVERSAL and attempt.status.may_take_effect
    if may_be_booked and (paid := [c for c in fresh if c.result_code == "0" and c.agrees]) and len(paid) == len(fresh):
        return Read(Reading.CLAIMED, paid[-1])
    return Read(Reading.SUSPECTED, fresh[-1])


def _is_told(amount: Money | None, attempt: MpesaRequest, queries: Sequence[MpesaRequest]) -> bool:
    """Whether M-Pesa's answer may be taken at its amount: another one than asked for has to be told twice, by the
    result and an answer, or by two answers. Repeats of one callback do not count.
    """
    told = [r for r in (attempt, *queries) if any(c.result_code == "0" and c.amount == amount for c in r.claims)]
    return amount == attempt.amount or len(told) > 1


def unsettled(transaction: Transaction, attempt: MpesaRequest) -> bool:
    """Whether a success was claimed of a dead attempt after all that M-Pesa, or people, finally said of it.

    About a reversal there is nothing to ask for: a person looked at it once.
    """
    if not attempt.status.is_dead or attempt.leg is Leg.REVERSAL:
        return False
    queries = queries_about(transaction, attempt)
    answers = [claim for query in queries for claim in query.claims]
    final = [c.received_at for c in answers if c.is_dead or (c.is_done and _is_told(c.amount, attempt, queries))]
    if attempt.code == VERDICT and attempt.outcome_at:
        final.append(attempt.outcome_at)
    return any(c.result_code == "0" and all(c.received_at > at for at in final) for c in attempt.claims)


def queries_about(transaction: Transaction, attempt: MpesaRequest) -> list[MpesaRequest]:
    """The status queries that asked about it, oldest first."""
    return [query for query in transaction.at_mpesa(Leg.STATUS_QUERY) if query.about == attempt.reference]


def blame_of(attempt: MpesaRequest) -> Blame:
    """Whose matter the failure of a dead attempt is, by the last thing that M-Pesa said of it."""
    said = [claim.blame for claim in attempt.claims if claim.blame is not Blame.NONE]
    return said[-1] if said else Blame.NONE


def movement_of(attempt: MpesaRequest) -> str:
    """The provider key of what an attempt moved; another one once a booking of it was denied and taken back."""
    again = f":{attempt.absences}" if attempt.absences else ""
    return f"mpesa:{attempt.shortcode}:{attempt.id}{again}"


@dataclass(frozen=True)
class PaymentLeg(ABC):
    """What a saga makes of a payment by M-Pesa: everything here runs inside the runner's unit of work."""

    ledger: LedgerGateway
    timing: Timing
    leg: ClassVar[Leg]

    @abstractmethod
    def amount(self, transaction: Any) -> Money:
        """Whole shillings."""

    def about(self, transaction: Any) -> str:
        """For a reversal, the receipt of the payment."""
        return ""

    @abstractmethod
    def is_under_way(self, transaction: Any) -> bool:
        """Whether the saga awaits this leg now."""

    @abstractmethod
    def may_go(self, transaction: Any, *, at: datetime) -> bool:
        """Read again under lock directly before it is sent; False: something was done about it instead."""

    @abstractmethod
    def sent(self, transaction: Any, request: MpesaRequest, *, until: datetime, at: datetime) -> None:
        """The intent: the status moves with it."""

    @abstractmethod
    def paid(self, transaction: Any, attempt: MpesaRequest, claim: MpesaClaim, *, proven: bool, at: datetime) -> None:
        """It was paid: proven, or booked on a claim; also of an attempt that was given up."""

    @abstractmethod
    def dead(self, transaction: Any, attempt: MpesaRequest, code: str, *, at: datetime) -> None:
        """This attempt is proven dead while it was under way."""

    @abstractmethod
    def denied(self, transaction: Any, attempt: MpesaRequest, *, at: datetime) -> None:
        """It was booked on a claim, and M-Pesa proves that it was not paid."""

    def charged(self, transaction: Any, attempt: MpesaRequest, claim: MpesaClaim, *, at: datetime) -> None:
        """What M-Pesa charged for a payment, known by proof alone: an expense, whatever becomes of the payment."""
        if claim.fee:
            key = f"{movement_of(attempt)}:fee"
            self.ledger.post_mpesa_fee(transaction.id, claim.fee, shortcode=attempt.shortcode, provider_key=key, at=at)

    def confirm_at(self, transaction: Transaction, *, proven: bool, at: datetime) -> datetime | None:
        """When M-Pesa is asked about it again: what was only claimed, and what other attempts may still do."""
        others_open = any(other.status.may_take_effect for other in transaction.at_mpesa(self.leg))
        return None if proven and not others_open else at + self.timing.of(self.timing.confirm_s)


@dataclass(frozen=True)
class SendPayment(Step[Transaction, MpesaRequest, Outcome]):
    """B2C or reversal. The same attempt goes again only if it surely did not leave, or is harmless twice."""

    mpesa: MpesaGateway
    payment: PaymentLeg
    timing: Timing
    calls = 1
    sends_money = True

    def intend(self, transaction: Transaction, *, at: datetime) -> MpesaRequest | None:
        if transaction.has_left:  # promise 1, whatever brought it here
            transaction.need_attention("money_has_left", at=at)
            return None
        if not self.payment.may_go(transaction, at=at):
            return None
        attempts = transaction.at_mpesa(self.payment.leg)
        last = attempts[-1] if attempts else None
        if last is not None and self._waited_too_long(transaction, last, at=at):
            transaction.need_attention("payment_not_sent", at=at)
            return None
        if last is not None and last.status in {RequestStatus.NOT_SENT, RequestStatus.REPEATABLE}:
            send_again(last, at=at)
            request = last
        elif last is not None and not last.status.is_dead:
            raise RuntimeError(f"{transaction.id} has a payment whose outcome is open")  # promise 3
        else:
            try:
                request = self.mpesa.new_request(
                    transaction.id,
                    self.payment.leg,
                    len(attempts) + 1,
                    transaction.phone,
                    self.payment.amount(transaction),
                    at=at,
                    about=self.payment.about(transaction),
                )
            except InvalidAmount:  # what came may be less than M-Pesa pays out
                transaction.need_attention("amount_not_payable", at=at)
                return None
        until = request.send_before + self.timing.of(self.timing.answer_s)
        self.payment.sent(transaction, request, until=until, at=at)
        return request

    def _waited_too_long(self, transaction: Transaction, last: MpesaRequest, *, at: datetime) -> bool:
        """It surely never left, for a day; a person who resumes it has it tried once more."""
        is_old = at - last.created_at > self.timing.of(self.timing.status_until_s)
        return last.status is RequestStatus.NOT_SENT and is_old and transaction.attempts > 0

    def call(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        return self.mpesa.send(request, give_up_at=give_up_at)

    def conclude(self, transaction: Transaction, request: MpesaRequest, outcome: Outcome, *, at: datetime) -> None:
        attempt = own(transaction.payments, request.id)
        if not self.payment.is_under_way(transaction):
            return
        match outcome:
            case Done() | Accepted() | Unknown():
                transaction.wait(at + self.timing.nth(self.timing.status_asks_s, transaction.attempts), at=at)
            case NotSent(retry_after_s=retry_after_s):
                retry = self.timing.nth(self.timing.retries_s, transaction.attempts)
                transaction.wait(at + max(retry, self.timing.of(retry_after_s)), at=at)
            case Refused(code):
                if attempt.status.is_dead:  # the answer to our own call, before anything was queued
                    self.payment.dead(transaction, attempt, code, at=at)
                else:
                    transaction.wait(at + self.timing.nth(self.timing.status_asks_s, 0), at=at)
            case _:
                assert_never(outcome)


@dataclass(frozen=True)
class AskMpesa(Step[Transaction, MpesaRequest, Outcome]):
    """Transaction Status about an attempt: what it answers comes as a callback, and `Settle` acts on it."""

    mpesa: MpesaGateway
    payment: PaymentLeg
    attempt: MpesaRequest
    timing: Timing
    calls = 1

    def intend(self, transaction: Transaction, *, at: datetime) -> MpesaRequest | None:
        attempt = own(transaction.payments, self.attempt.id)
        if attempt.status in {RequestStatus.SENDING, RequestStatus.NOT_SENT}:  # gone, or a claim says that it left
            sender_gone(transaction, attempt)
        asked = len(queries_about(transaction, attempt))
        is_open = self.payment.is_under_way(transaction) and attempt.status.may_take_effect
        enough = self._asked_enough(transaction, attempt, is_open, at=at)
        transaction.asked(attempt, asked_at=at, at=at)  # also where a person is shown it: its claims are no news then
        if enough:
            transaction.need_attention("payment_unknown" if is_open else "payment_contradictory", at=at)
            return None
        if attempt.leg is Leg.REVERSAL:
            self._ask_about_reversal(transaction, attempt, at=at)
            return None
        query = self.mpesa.new_request(
            transaction.id,
            Leg.STATUS_QUERY,
            len(transaction.at_mpesa(Leg.STATUS_QUERY)) + 1,
            attempt.phone,
            attempt.amount,
            at=at,
            about=attempt.reference,
            shortcode=attempt.shortcode,
        )
        until = at + self.timing.nth(self.timing.status_asks_s, asked + 1)
        timer = transaction.next_step_at
        has_other_timer = not is_open and transaction.status not in FINAL and (timer is None or timer > at)
        transaction.asks(query, until=None if has_other_timer else until, at=at)
        return query

    def _asked_enough(self, transaction: Transaction, attempt: MpesaRequest, is_open: bool, *, at: datetime) -> bool:
        """What a callback says anew is always asked about, so many times an hour; the timer asks for so long. A person
        who resumes it has it asked once more.
        """
        queries = queries_about(transaction, attempt)
        if read(transaction, attempt).reading is not Reading.NOTHING_NEW:
            return len([q for q in queries if at - q.created_at < self.timing.of(3600)]) >= MOST_QUERIES
        is_old = at - attempt.created_at > self.timing.of(self.timing.status_until_s)
        return transaction.attempts > 0 and (is_old if is_open else len(queries) >= MOST_QUERIES)

    def _ask_about_reversal(self, transaction: Transaction, attempt: MpesaRequest, *, at: datetime) -> None:
        """The same once more is the question, for M-Pesa reverses a payment once; nobody asks it who does not want it
        reversed, or who may have opened another way back over its death: then a person looks.
        """
        if self.payment.is_under_way(transaction) and not attempt.status.is_dead:
            attempt.status = RequestStatus.REPEATABLE
            transaction.wait(at, at=at)
        else:
            if all(r.status.is_dead for r in transaction.at_mpesa(Leg.B2C_REFUND)):  # else it stays as dead as it was
                attempt.status, attempt.was_unknown = RequestStatus.UNKNOWN, True
            transaction.need_attention("reversal_contradictory", at=at)

    def call(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        return self.mpesa.send(request, give_up_at=give_up_at)

    def conclude(self, transaction: Transaction, request: MpesaRequest, outcome: Outcome, *, at: datetime) -> None:
        """Nothing is learnt from the acceptance; the next question is due by the timer that was set."""


@dataclass(frozen=True)
class Settle(Step[Transaction, None, None]):
    """Acts on what is known of an attempt; calls nobody."""

    payment: PaymentLeg
    attempt: MpesaRequest
    found: Read

    def intend(self, transaction: Transaction, *, at: datetime) -> None:
        attempt, claim = own(transaction.payments, self.attempt.id), self.found.claim
        assert claim is not None
        was = attempt.status
        match self.found.reading:
            case Reading.PROVEN | Reading.CLAIMED:
                proven = self.found.reading is Reading.PROVEN
                attempt.status, attempt.receipt = RequestStatus.DONE, claim.receipt or attempt.receipt
                attempt.code = CONFIRMED if proven else ""
                transaction.asked(attempt, asked_at=claim.received_at, at=at)
                if proven:
                    self.payment.charged(transaction, attempt, claim, at=at)
                if was is RequestStatus.DONE and claim.amount in {None, attempt.amount}:
                    transaction.rest(at=at)
                    return
                if was is RequestStatus.DONE:  # a claim had named the amount that was asked for
                    self.payment.denied(transaction, attempt, at=at)
                    attempt.absences += 1
                self.payment.paid(transaction, attempt, claim, proven=proven, at=at)
            case Reading.DISPROVEN:
                attempt.status, attempt.code = RequestStatus.CLOSED, claim.fate
                transaction.asked(attempt, asked_at=claim.received_at, at=at)
                if was is RequestStatus.DONE:
                    self.payment.denied(transaction, attempt, at=at)
                    attempt.absences += 1
                elif self.payment.is_under_way(transaction):
                    self.payment.dead(transaction, attempt, claim.fate, at=at)
            case _:
                raise RuntimeError(f"{self.found.reading} settles nothing")

    def call(self, request: None, *, give_up_at: float) -> None: ...

    def conclude(self, transaction: Transaction, request: None, outcome: None, *, at: datetime) -> None: ...


@dataclass(frozen=True)
class Show(Step[Transaction, None, None]):
    """A reversal that M-Pesa is said to refuse: a person looks at the payment, and may allow another way."""

    attempt: MpesaRequest
    found: Read

    def intend(self, transaction: Transaction, *, at: datetime) -> None:
        attempt, claim = own(transaction.payments, self.attempt.id), self.found.claim
        assert claim is not None
        attempt.status, attempt.was_unknown = RequestStatus.UNKNOWN, True
        transaction.asked(attempt, asked_at=claim.received_at, at=at)
        transaction.need_attention(f"refund_refused:{claim.result_code}", at=at)

    def call(self, request: None, *, give_up_at: float) -> None: ...

    def conclude(self, transaction: Transaction, request: None, outcome: None, *, at: datetime) -> None: ...


@dataclass(frozen=True)
class Rest(Step[Transaction, None, None]):
    """Whatever was waited for has come: no timer is left."""

    def intend(self, transaction: Transaction, *, at: datetime) -> None:
        transaction.rest(at=at)

    def call(self, request: None, *, give_up_at: float) -> None: ...

    def conclude(self, transaction: Transaction, request: None, outcome: None, *, at: datetime) -> None: ...


def payment_step(
    mpesa: MpesaGateway, payment: PaymentLeg, transaction: Transaction, timing: Timing, *, due: bool, send: bool
) -> Step[Transaction, Any, Any] | None:
    """The next step of a payment by M-Pesa: act on what is known, ask about what is not, or send.

    `send` is whether the saga wants it sent; claims and proofs are looked at in every status. A success is booked on
    the claim only while it is awaited: otherwise something else was made of the money, and M-Pesa is asked first.
    """
    attempts: Sequence[MpesaRequest] = transaction.at_mpesa(payment.leg)
    for attempt in attempts:
        found = read(transaction, attempt)
        is_booked = found.reading is Reading.CLAIMED and payment.is_under_way(transaction)
        if is_booked or found.reading in {Reading.PROVEN, Reading.DISPROVEN}:
            return Settle(payment, attempt, found)
        if found.reading is Reading.REFUSED:
            return Show(attempt, found)
        if found.reading in {Reading.SUSPECTED, Reading.CLAIMED}:
            return AskMpesa(mpesa, payment, attempt, timing)
    if not due:
        return None
    for attempt in attempts:
        is_claimed = attempt.status is RequestStatus.DONE and attempt.code != CONFIRMED
        is_open = attempt.status in {RequestStatus.SENDING, RequestStatus.ACCEPTED, RequestStatus.UNKNOWN}
        if is_claimed or is_open or unsettled(transaction, attempt):
            return AskMpesa(mpesa, payment, attempt, timing)
    return SendPayment(mpesa, payment, timing) if send else None
