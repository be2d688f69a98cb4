"""What both sagas share: their timing, how an attempt goes again, and how Transactions are driven, loaded and saved."""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

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
    Hold,
    Transaction,
    TransactionNotFound,
    TransactionStatus,
    TransactionType,
)
from shared_kernel.application.runner import Answer, Call, Runner, Step, StepsFailed
from shared_kernel.domain.budgets import MPESA_LANE, Budgets, Hand, deriv_lane
from shared_kernel.domain.events import Event
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Found, NotSent
from shared_kernel.domain.ports import AuditLog, Clock, SideBySide, UnitOfWork
from shared_kernel.domain.requests import (
    SEND_WINDOW,
    DerivTransfer,
    Leg,
    MpesaRequest,
    ProviderRequest,
    RequestStatus,
)

log = logging.getLogger(__name__)

RATE_CODES = frozenset({"RateLimit", "HTTP 429", "429", "500.003.02", "500.003.03"})  # too many calls
MOST_FAILURES = 20  # of our own code on one Transaction, with growing pauses; then a person is shown it

P = TypeVar("P", bound=ProviderRequest)
T = TypeVar("T", bound=Transaction)


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
    settles_s: int = 1200  # what moved later than that may still be under way here: no run takes it for an orphan
    answer_s: int = 35  # longest call
    late_commit_s: int = 600  # Deriv may still book that long after its answer was due
    repeat_after_s: int = 60  # where Deriv does not know our key yet
    deriv_asks_s: tuple[int, ...] = (5, 10, 20, 30, 60, 120, 300)
    deriv_until_s: int = 6 * 3600
    status_asks_s: tuple[int, ...] = (60, 180, 600, 1800, 3600)  # Transaction Status after a payout was taken
    status_until_s: int = 24 * 3600
    confirm_s: int = 20 * 3600  # a payout booked on a claim is asked about within the day
    retries_s: tuple[int, ...] = (2, 5, 10, 30, 60, 300)
    give_back_after_s: int = 24 * 3600
    rate_until_s: int = 24 * 3600  # a debited withdrawal waits so long for a valid rate
    login_fresh_s: int = 900
    scale: float = 1.0

    def of(self, seconds: float) -> timedelta:
        """`seconds` as this run counts them."""
        return timedelta(seconds=seconds * self.scale)

    def nth(self, delays: Sequence[int], n: int) -> timedelta:
        """The n-th delay (from 0); the last one from then on."""
        return self.of(delays[min(n, len(delays) - 1)])


@dataclass(frozen=True, slots=True)
class Question:
    """A read about `request`; `asked_at` is when the asking began, so that an absence is dated before the reading."""

    request: Any
    asked_at: datetime


def own(requests: Sequence[P], id: RequestId) -> P:
    """The request as it is stored now."""
    return next(request for request in requests if request.id == id)


def send_again(request: ProviderRequest, *, at: datetime) -> None:
    """The same attempt once more, after it surely had no effect, or where the provider's guard makes it harmless.

    The fence rises, so that a sleeping sender's word is void.
    """
    if request.status not in {RequestStatus.NOT_SENT, RequestStatus.REPEATABLE}:
        raise RuntimeError(f"{request.id} is {request.status}: only what was surely not sent goes again")
    request.was_unknown = request.was_unknown or request.status is RequestStatus.REPEATABLE
    request.status, request.fence, request.send_before = RequestStatus.SENDING, request.fence + 1, at + SEND_WINDOW


def sender_gone(transaction: Transaction, request: ProviderRequest) -> None:
    """Its outcome was not stored in time: whoever sent it died, and it may have left."""
    request.status, request.code, request.was_unknown = RequestStatus.UNKNOWN, "sender_gone", True
    transaction.change(request)


class AtDeriv:
    """A step whose calls are on the budget of the Transaction's agent; all others' are on M-Pesa's."""


@dataclass(frozen=True, kw_only=True)
class TransactionSaga(ABC, Generic[T]):
    """The steps that bring each Transaction of one type to its end. Subclasses say which step a state asks for."""

    type: ClassVar[TransactionType]
    payments: ClassVar[frozenset[Leg]]  # its legs at M-Pesa

    transactions: TransactionRepository
    users: UserDirectory
    mpesa: MpesaGateway
    deriv: DerivGateway
    ledger: LedgerGateway
    reservations: FloatReservations
    audit: AuditLog
    unit_of_work: UnitOfWork
    side_by_side: SideBySide
    clock: Clock
    timing: Timing = Timing()
    budgets: Budgets | None = None  # None: no provider's budget is kept
    from_queue: bool = False
    monotonic: Callable[[], float] = time.monotonic
    crash_point: Callable[[str], None] = field(default=lambda where: None)

    # --- what a type of Transaction says of itself ------------------------------------------------------------------

    @abstractmethod
    def next_step(self, aggregate: T, *, at: datetime) -> Step[T, Any, Any] | None:
        """The step that the state asks for: this is the saga's table."""

    @abstractmethod
    def float_of(self, aggregate: T) -> tuple[str, Money]:
        """The float account that it is paid out of, and how much is reserved there."""

    @abstractmethod
    def frees_float(self, aggregate: T) -> bool:
        """Whether its outgoing leg ended or is proven dead."""

    @abstractmethod
    def shown(self, aggregate: T, transfer: DerivTransfer, entries: Sequence[str], *, at: datetime) -> None:
        """The agent's own book shows `entries` of an attempt that is not done, whatever was thought of it."""

    @abstractmethod
    def attach(self, aggregates: Sequence[T], asked: set[UUID], answers: Sequence[Answer]) -> None:
        """Stores what became of calls and attaches the requests that the states ask for; `asked` have answers."""

    # --- driving ----------------------------------------------------------------------------------------------------

    def advance(self, events: Sequence[Event]) -> None:
        """A subscriber: the events only say that it is worth looking now; the rows say what to do."""
        if ids := [event.aggregate_id for event in events if self._may_follow(event)]:
            self.drive(ids)

    def _may_follow(self, event: Event) -> bool:
        """Whether it may be about a Transaction of this type: what the event can't tell, the row does."""
        leg = getattr(event, "leg", "")
        known_by_leg = leg and leg != Leg.STATUS_QUERY
        return leg in self.payments if known_by_leg else getattr(event, "type", self.type) == self.type

    def drive(self, ids: Sequence[UUID], *, from_queue: bool = False) -> None:
        """Brings those of this type as far as they can go now. Raises `StepsFailed`.

        `from_queue` is for the sweeper: what an event woke does not overtake what waits in the table for a budget.
        """
        saga = replace(self, from_queue=from_queue) if from_queue is not self.from_queue else self
        Runner(
            saga, self.unit_of_work, self.side_by_side, self.clock, self.monotonic, crash_point=self.crash_point
        ).advance(ids)

    def resume(self, id: TransactionId, *, why: str) -> TransactionStatus:
        """A person sends it back to where it came from; answers that status. What is due then is `drive`'s.

        Raises `TransactionNotFound`, `NothingToResume`.
        """
        with self.unit_of_work():
            transaction = self.one(id)
            transaction.resume(why=why, at=self.clock())
            self.save([transaction], ())
            return transaction.status

    def hold(self, id: TransactionId, *, owner: str, why: str) -> None:
        """AML or law: nothing leaves until `release`. Raises `TransactionNotFound`, `AlreadyHeld`."""
        with self.unit_of_work():
            transaction, at = self.one(id), self.clock()
            transaction.hold_back(Hold(owner, why, at), at=at)
            self.save([transaction], ())

    def release(self, id: TransactionId, *, why: str) -> None:
        """What was due is due now. Raises `TransactionNotFound`, `NotHeld`."""
        with self.unit_of_work():
            transaction = self.one(id)
            transaction.release_hold(why=why, at=self.clock())
            self.save([transaction], ())

    def look_again(self, ids: Sequence[TransactionId]) -> None:
        """Those of this type ask their providers once more, whatever their status: one's book shows their money.

        Deriv is asked here about every attempt, for no step asks about one that is closed or done; M-Pesa by the steps.
        Raises `StepsFailed` after everyone had their turn: a poisonous one harms itself alone.
        """
        errors: dict[UUID, Exception] = {}
        for id in ids:
            try:
                self._look_again(id)
            except StepsFailed as failed:  # logged, and put off or shown to a person
                errors |= failed.errors
            except Exception as error:
                log.exception("%s could not be looked at again", id)
                errors[id] = error
        if errors:
            raise StepsFailed(errors) from next(iter(errors.values()))

    def _look_again(self, id: TransactionId) -> None:
        with self.unit_of_work():
            asked = [t for one in self.whole([id]) for t in one.transfers if is_looked_for(t)]
        shown = {transfer.id: self.deriv.find(transfer) for transfer in asked}
        with self.unit_of_work():
            at, found = self.clock(), self.whole([id])
            for transaction in found:
                transaction.look_again(at=at)
                for transfer in [t for t in transaction.transfers if is_looked_for(t)]:
                    match shown.get(transfer.id):
                        case Found(references, reverted=False) if fresh := self._not_posted(transfer, references):
                            self.shown(transaction, transfer, fresh, at=at)
                if transaction.status in FINAL and self.next_step(transaction, at=at) is None:
                    transaction.rest(at=at)
            self.save(found, ())
        self.drive([transaction.id for transaction in found])

    def _not_posted(self, transfer: DerivTransfer, entries: Sequence[str]) -> list[str]:
        """Attempts that share a reference are shown the same entries: each is taken once."""
        keys = {entry: f"deriv:{transfer.agent}:{entry}" for entry in entries}
        posted = self.ledger.posted(keys.values())
        return [entry for entry in keys if keys[entry] not in posted]

    def whole(self, ids: Sequence[UUID]) -> list[T]:
        """Locked, with all their requests; joins the caller's unit of work."""
        found = self.load(ids, ())
        self.attach_mpesa(found, ())
        self.attach_deriv(found, ())
        return found

    def one(self, id: TransactionId) -> T:
        """Locked, with what its state asks for attached; joins the caller's unit of work. Raises
        `TransactionNotFound`.
        """
        found = self.load([id], ())
        if not found:
            raise TransactionNotFound(f"no such {self.type}")
        return found[0]

    # --- what the runner asks ---------------------------------------------------------------------------------------

    @contextmanager
    def permits(self, most: int) -> Iterator[Callable[[Step[T, Any, Any], T], bool]]:
        if self.budgets is None:
            yield lambda step, transaction: True
            return
        wanted = dict.fromkeys((MPESA_LANE, *map(deriv_lane, self.deriv.agent_names())), (most, 3 * most))
        with self.budgets.hand(wanted, from_queue=self.from_queue) as hand:
            yield lambda step, transaction: self._permit(hand, step, transaction)

    def _permit(self, hand: Hand, step: Step[T, Any, Any], transaction: T) -> bool:
        """What a look-up needs beyond the reads' share comes from the rest: money in an unknown state goes first."""
        lane = MPESA_LANE
        if isinstance(step, AtDeriv):
            if transaction.agent not in self.deriv.agent_names():  # the adapter says so, without a call
                return True
            lane = deriv_lane(transaction.agent)
        reads = 0 if step.sends_money else min(step.calls, hand.left(lane, reads=True))
        if hand.left(lane) < step.calls - reads:
            transaction.queue(at=self.clock())
            return False
        return all(hand.take(lane, reads=number < reads) for number in range(step.calls))

    def refused_for_rate(self, answers: Sequence[Answer]) -> None:
        if self.budgets is None:
            return
        for answer in answers:
            outcome, request = answer.outcome, answer.call.request
            if isinstance(outcome, NotSent) and outcome.code.partition(":")[0] in RATE_CODES:
                agent = getattr(request, "agent", "")
                self.budgets.penalise(deriv_lane(agent) if agent else MPESA_LANE, outcome.retry_after_s)

    def id_of(self, aggregate: T) -> UUID:
        return aggregate.id

    def load(self, ids: Sequence[UUID], answers: Sequence[Answer]) -> list[T]:
        found: Any = self.transactions.get_many([TransactionId(id) for id in ids], self.type)
        if found:
            self.attach(found, {answer.call.aggregate_id for answer in answers}, answers)
        return list(found)

    def attach_mpesa(self, aggregates: Sequence[T], answers: Sequence[Answer]) -> None:
        """Every M-Pesa request of these, with the outcomes of what was sent; one SELECT."""
        if not aggregates:
            return
        found = self.mpesa.requests_of([t.id for t in aggregates], outcomes_of(MpesaRequest, answers))
        for transaction in aggregates:
            transaction.payments = list(found.get(transaction.id, ()))
            transaction.knows_payments = True

    def attach_deriv(self, aggregates: Sequence[T], answers: Sequence[Answer]) -> None:
        """Every Deriv transfer of these, with the outcomes of what was sent; one UPDATE and one SELECT."""
        if outcomes := outcomes_of(DerivTransfer, answers):
            self.deriv.record_outcomes(outcomes)
        if not aggregates:
            return
        found = self.deriv.transfers_of([t.id for t in aggregates])
        for transaction in aggregates:
            transaction.transfers = list(found.get(transaction.id, ()))

    def save(self, aggregates: Sequence[T], calls: Sequence[Call]) -> None:
        if owing := self.ledger.newly_owing():
            self.users.frozen(owing)  # whoever pays them out holds this lock too: either sees the other's commit
        touched = [t for t in aggregates if t.touched]
        for transaction in touched:
            transaction.failures = 0
        self.transactions.save_many(touched)
        self._save_requests(touched, calls)
        for transaction in touched:
            if transaction.reserve_again:
                account, amount = self.float_of(transaction)
                self.reservations.reserve(account, transaction.id, amount, at=transaction.updated_at, beyond=True)
            if notes := transaction.pull_notes():
                self.audit.append(notes)
        if ended := [t.id for t in touched if self.frees_float(t)]:
            self.reservations.release(ended, at=self.clock())

    def _save_requests(self, touched: Sequence[T], calls: Sequence[Call]) -> None:
        intended = {id(call.request) for call in calls}
        changed = [request for t in touched for request in t.changed if id(request) not in intended]
        # what was closed first: the database holds one open outflow a Transaction
        if asked := [request for request in changed if isinstance(request, MpesaRequest)]:
            self.mpesa.save(asked)
        if looked := [request for request in changed if isinstance(request, DerivTransfer)]:
            self.deriv.save(looked)
        if sent := [call.request for call in calls if isinstance(call.request, MpesaRequest)]:
            self.mpesa.record(sent)
        if transfers := [call.request for call in calls if isinstance(call.request, DerivTransfer)]:
            self.deriv.record(transfers)

    def step_failed(self, id: UUID, error: Exception, *, at: datetime) -> None:
        with self.unit_of_work():
            for transaction in self.transactions.get_many([TransactionId(id)], self.type):
                if transaction.status in FINAL or transaction.next_step_at is None:
                    continue
                if transaction.failures >= MOST_FAILURES:
                    transaction.need_attention(f"step_failed:{type(error).__name__}", at=at)
                else:
                    again = at + self.timing.nth(self.timing.retries_s, transaction.failures)
                    transaction.step_failed(again, at=at)
                self.transactions.save_many([transaction])


def is_looked_for(transfer: DerivTransfer) -> bool:
    """Whether Deriv's book may show more of it than we know: a credit that is done may have been booked twice."""
    if transfer.status is RequestStatus.DONE:
        return transfer.leg is not Leg.DERIV_DEBIT  # a second debit belongs to nobody yet: suspense
    return transfer.status is not RequestStatus.NOT_SENT


def outcomes_of(kind: type[P], answers: Sequence[Answer]) -> list[tuple[P, Any]]:
    """The answers to calls that carried out requests of this kind, as their gateway stores them."""
    return [(answer.call.request, answer.outcome) for answer in answers if isinstance(answer.call.request, kind)]
