"""A credit at Deriv: a deposit's payout and a withdrawal's credit-back are one kind of leg, with other consequences."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, assert_never

from payments.application.saga import AtDeriv, Question, Timing, own, send_again, sender_gone
from payments.domain.ports import DerivGateway
from payments.domain.transaction import Transaction
from shared_kernel.application.runner import Step
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Dead,
    Done,
    Found,
    Lookup,
    NotSent,
    Outcome,
    Pending,
    Refused,
    Unknown,
    Unreadable,
)
from shared_kernel.domain.requests import DerivTransfer, Leg, RequestStatus

MOST_TRANSFERS = 3  # attempts at Deriv, each proven dead before the next


class CreditLeg(ABC):
    """What a saga makes of a credit: everything here runs inside the runner's unit of work."""

    leg: ClassVar[Leg]

    @abstractmethod
    def amount(self, transaction: Any) -> Money:
        """What is credited, in the login's currency."""

    @abstractmethod
    def is_too_late(self, transaction: Any, timing: Timing, *, at: datetime) -> bool:
        """Whether Deriv was tried for long enough; asked only where surely nothing is on its way."""

    def may_go(self, transaction: Any, *, at: datetime) -> bool:
        """Looked at once more directly before it is sent; False: something was done about it instead."""
        return True

    @abstractmethod
    def is_under_way(self, transaction: Any) -> bool:
        """Whether the saga awaits this leg now."""

    @abstractmethod
    def sent(self, transaction: Any, transfer: DerivTransfer, *, until: datetime, at: datetime) -> None:
        """The intent: the status moves with it."""

    @abstractmethod
    def booked(self, transaction: Any, transfer: DerivTransfer, references: Sequence[str], *, at: datetime) -> None:
        """Proven, with the ids of the entries in the agent's book: more than one is a double booking."""

    @abstractmethod
    def refused(self, transaction: Any, code: str, reason: str, *, at: datetime) -> None:
        """Every attempt is proven dead, and another one would not help."""

    @abstractmethod
    def unreachable(self, transaction: Any, *, at: datetime) -> None:
        """Deriv could not be reached for too long, and surely nothing was sent."""


@dataclass(frozen=True)
class SendCredit(AtDeriv, Step[Transaction, DerivTransfer, Outcome]):
    """The transfer by the agent. An attempt whose outcome is open is never followed by another one."""

    deriv: DerivGateway
    credit: CreditLeg
    timing: Timing
    calls = 1
    sends_money = True

    def intend(self, transaction: Transaction, *, at: datetime) -> DerivTransfer | None:
        if transaction.has_left:  # promise 1, whatever brought it here
            transaction.need_attention("money_has_left", at=at)
            return None
        if not self.credit.may_go(transaction, at=at):
            return None
        attempts = transaction.at_deriv(self.credit.leg)
        last = attempts[-1] if attempts else None
        again = last is not None and last.status in {RequestStatus.NOT_SENT, RequestStatus.REPEATABLE}
        repeats = last is not None and last.status is RequestStatus.REPEATABLE
        if any(attempt.status.may_take_effect and not (again and attempt is last) for attempt in attempts):
            raise RuntimeError(f"{transaction.id} has a transfer whose outcome is open")  # promise 3
        if not repeats and self.credit.is_too_late(transaction, self.timing, at=at):
            self.credit.unreachable(transaction, at=at)
            return None
        if again:
            assert last is not None
            send_again(last, at=at)
            transfer = last
        else:
            transfer = self.deriv.new_transfer(
                transaction.id,
                self.credit.leg,
                len(attempts) + 1,
                transaction.login,
                transaction.agent,
                self.credit.amount(transaction),
                at=at,
            )
        until = transfer.send_before + self.timing.of(self.timing.answer_s)
        self.credit.sent(transaction, transfer, until=until, at=at)
        return transfer

    def call(self, request: DerivTransfer, *, give_up_at: float) -> Outcome:
        return self.deriv.send(request, give_up_at=give_up_at)

    def conclude(self, transaction: Transaction, request: DerivTransfer, outcome: Outcome, *, at: datetime) -> None:
        transfer = own(transaction.transfers, request.id)
        if isinstance(outcome, Done):  # proof: also for one who was given up as lost
            self.credit.booked(transaction, transfer, [outcome.reference], at=at)
            return
        if not self.credit.is_under_way(transaction):
            return
        match outcome:
            case Accepted() | Unknown():
                transaction.wait(at + self.timing.nth(self.timing.deriv_asks_s, 0), at=at)
            case NotSent(retry_after_s=retry_after_s):
                retry = self.timing.nth(self.timing.retries_s, transaction.attempts)
                transaction.wait(at + max(retry, self.timing.of(retry_after_s)), at=at)
            case Refused(code, reason):
                if any(t.status.may_take_effect for t in transaction.at_deriv(self.credit.leg)):
                    # it speaks only for itself: an earlier attempt, or an earlier sending of this one, may be booked
                    transaction.wait(at + self.timing.nth(self.timing.deriv_asks_s, 0), at=at)
                else:
                    self.credit.refused(transaction, code, reason, at=at)
            case _:
                assert_never(outcome)


@dataclass(frozen=True)
class AskDeriv(AtDeriv, Step[Transaction, Question, Lookup | Unknown]):
    """A transfer with an unknown outcome: Deriv is asked; only a proven absence, or its own word, allows another."""

    deriv: DerivGateway
    credit: CreditLeg
    timing: Timing
    calls = 2  # the status or a page of the book, and the proof

    def intend(self, transaction: Transaction, *, at: datetime) -> Question:
        transfer = next(t for t in transaction.at_deriv(self.credit.leg) if t.status.may_take_effect)
        if transfer.status is RequestStatus.SENDING:
            sender_gone(transaction, transfer)
            transaction.wait(at + self.timing.of(self.timing.answer_s), at=at)
        return Question(transfer, at)

    def call(self, request: Question, *, give_up_at: float) -> Lookup:
        return self.deriv.find(request.request)

    def conclude(self, transaction: Transaction, request: Question, outcome: Lookup | Unknown, *, at: datetime) -> None:
        transfer = own(transaction.transfers, request.request.id)
        if isinstance(outcome, Found) and not outcome.reverted:
            self.credit.booked(transaction, transfer, outcome.references, at=at)
            return
        if not self.credit.is_under_way(transaction) or not transfer.status.may_take_effect:
            return
        transaction.asked(transfer, asked_at=request.asked_at, at=at)
        # a person who resumes it has it sent the same once more
        is_old = at - transfer.created_at > self.timing.of(self.timing.deriv_until_s)
        may_repeat = request.asked_at >= self._repeatable_at(transfer) and not (is_old and transaction.attempts)
        match outcome:
            case Dead(code):
                self._closed(transaction, transfer, code, may_try_again=False, at=at)
            case Found():  # booked and taken back before it was seen: nothing was posted, nothing is booked
                self._closed(transaction, transfer, "reverted", may_try_again=True, at=at)
            case Absent(proven=True) if request.asked_at >= self._settled_at(transfer):
                transfer.absences += 1
                self._closed(transaction, transfer, "deriv_not_credited", may_try_again=True, at=at)
            case Absent(repeatable=True) if may_repeat:
                transfer.status = RequestStatus.REPEATABLE
                transaction.wait(at, at=at)
            case Absent() | Pending() | Unreadable() | Unknown():
                if is_old:
                    transaction.need_attention("transfer_unknown", at=at)
                else:
                    transaction.wait(at + self.timing.nth(self.timing.deriv_asks_s, transaction.attempts), at=at)
            case _:
                assert_never(outcome)

    def _closed(
        self, transaction: Transaction, transfer: DerivTransfer, code: str, *, may_try_again: bool, at: datetime
    ) -> None:
        transfer.status = RequestStatus.CLOSED
        attempts = transaction.at_deriv(self.credit.leg)
        is_open = any(attempt.status.may_take_effect for attempt in attempts)
        if is_open or (may_try_again and len(attempts) < MOST_TRANSFERS):
            transaction.wait(at, at=at)
        else:
            self.credit.refused(transaction, code, "", at=at)

    def _settled_at(self, transfer: DerivTransfer) -> datetime:
        return transfer.send_before + self.timing.of(self.timing.answer_s + self.timing.late_commit_s)

    def _repeatable_at(self, transfer: DerivTransfer) -> datetime:
        return transfer.send_before + self.timing.of(self.timing.repeat_after_s)


def ready_for_credit(transaction: Transaction, leg: Leg) -> bool:
    """Whether the next step of this leg sends (a first time, or again), and not asks."""
    open_ones = [attempt for attempt in transaction.at_deriv(leg) if attempt.status.may_take_effect]
    return not open_ones or all(attempt.status is RequestStatus.REPEATABLE for attempt in open_ones)
