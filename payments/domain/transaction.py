"""Transaction: what a Deposit and a Withdrawal have in common, and the life cycle of both as one table.

Its state is its row and its provider requests, and nothing else. Every verb takes the time; which verb comes when is
the sagas' business (`application/`), what a verb may do is said here, in `deposit.py` and in `withdrawal.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from shared_kernel.domain.errors import Conflict, NotFound
from shared_kernel.domain.events import Aggregate, AttentionNeeded, TransactionCompleted, TransactionEnded, Transition
from shared_kernel.domain.identifiers import DerivTransferId, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import LockedRate, Money
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.domain.requests import (
    DerivLogin,
    DerivTransfer,
    Leg,
    MpesaRequest,
    ProviderRequest,
    RequestStatus,
)

HEAD_START = timedelta(seconds=8)  # the event's: the sweeper takes a new Transaction only if its event got lost
STEP_VERSION = 2  # of the step table that a new Transaction follows; a change of the table comes with a new number


class TransactionType(StrEnum):
    """Which of the two main jobs."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"


class TransactionStatus(StrEnum):
    """Where a Transaction stands; `NEXT` says where it can go."""

    CREATED = "CREATED"
    UNDER_REVIEW = "UNDER_REVIEW"
    AWAITING_MPESA = "AWAITING_MPESA"
    MPESA_CONFIRMED = "MPESA_CONFIRMED"
    DERIV_TRANSFER_SENT = "DERIV_TRANSFER_SENT"
    REFUND_PENDING = "REFUND_PENDING"
    REFUNDED = "REFUNDED"
    DERIV_DEBIT_SENT = "DERIV_DEBIT_SENT"
    DERIV_DEBITED = "DERIV_DEBITED"
    RATE_LOCKED = "RATE_LOCKED"
    MPESA_DISBURSING = "MPESA_DISBURSING"
    CREDIT_BACK_PENDING = "CREDIT_BACK_PENDING"
    REVERSED = "REVERSED"
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"
    NEEDS_ATTENTION = "NEEDS_ATTENTION"


S = TransactionStatus

# Late proof re-opens: a payment may turn up after FAILED or EXPIRED, and what was booked may be taken back.
NEXT: dict[TransactionType, dict[TransactionStatus, frozenset[TransactionStatus]]] = {
    TransactionType.DEPOSIT: {
        S.CREATED: frozenset({S.AWAITING_MPESA, S.REJECTED, S.EXPIRED, S.NEEDS_ATTENTION}),
        S.UNDER_REVIEW: frozenset({S.CREATED, S.REJECTED, S.EXPIRED}),
        S.AWAITING_MPESA: frozenset({S.MPESA_CONFIRMED, S.REFUND_PENDING, S.FAILED, S.EXPIRED, S.NEEDS_ATTENTION}),
        S.MPESA_CONFIRMED: frozenset({S.DERIV_TRANSFER_SENT, S.REFUND_PENDING, S.REFUNDED, S.NEEDS_ATTENTION}),
        S.DERIV_TRANSFER_SENT: frozenset({S.COMPLETED, S.REFUND_PENDING, S.NEEDS_ATTENTION}),
        S.COMPLETED: frozenset({S.NEEDS_ATTENTION}),
        S.REJECTED: frozenset(),
        S.EXPIRED: frozenset({S.MPESA_CONFIRMED, S.REFUND_PENDING, S.NEEDS_ATTENTION}),
        S.FAILED: frozenset({S.MPESA_CONFIRMED, S.REFUND_PENDING, S.NEEDS_ATTENTION}),
        S.REFUND_PENDING: frozenset({S.COMPLETED, S.REFUNDED, S.NEEDS_ATTENTION}),
        S.REFUNDED: frozenset({S.NEEDS_ATTENTION}),
        S.NEEDS_ATTENTION: frozenset(
            {
                S.CREATED,
                S.AWAITING_MPESA,
                S.MPESA_CONFIRMED,
                S.DERIV_TRANSFER_SENT,
                S.COMPLETED,
                S.EXPIRED,
                S.FAILED,
                S.REFUND_PENDING,
                S.REFUNDED,
            }
        ),
    },
    TransactionType.WITHDRAWAL: {
        S.CREATED: frozenset({S.DERIV_DEBIT_SENT, S.REJECTED, S.EXPIRED, S.NEEDS_ATTENTION}),
        S.UNDER_REVIEW: frozenset({S.CREATED, S.REJECTED, S.EXPIRED}),
        S.DERIV_DEBIT_SENT: frozenset({S.DERIV_DEBITED, S.FAILED, S.EXPIRED, S.NEEDS_ATTENTION}),
        S.DERIV_DEBITED: frozenset({S.RATE_LOCKED, S.CREDIT_BACK_PENDING, S.FAILED, S.NEEDS_ATTENTION}),
        S.RATE_LOCKED: frozenset({S.MPESA_DISBURSING, S.COMPLETED, S.CREDIT_BACK_PENDING, S.NEEDS_ATTENTION}),
        S.MPESA_DISBURSING: frozenset({S.COMPLETED, S.RATE_LOCKED, S.CREDIT_BACK_PENDING, S.NEEDS_ATTENTION}),
        S.COMPLETED: frozenset({S.NEEDS_ATTENTION}),
        S.REJECTED: frozenset(),
        S.EXPIRED: frozenset({S.DERIV_DEBITED, S.NEEDS_ATTENTION}),
        S.FAILED: frozenset({S.DERIV_DEBITED, S.NEEDS_ATTENTION}),
        S.CREDIT_BACK_PENDING: frozenset({S.REVERSED, S.COMPLETED, S.NEEDS_ATTENTION}),
        S.REVERSED: frozenset({S.NEEDS_ATTENTION}),
        S.NEEDS_ATTENTION: frozenset(
            {
                S.CREATED,
                S.DERIV_DEBIT_SENT,
                S.DERIV_DEBITED,
                S.RATE_LOCKED,
                S.MPESA_DISBURSING,
                S.COMPLETED,
                S.EXPIRED,
                S.FAILED,
                S.CREDIT_BACK_PENDING,
                S.REVERSED,
            }
        ),
    },
}
FINAL = frozenset({S.COMPLETED, S.REJECTED, S.EXPIRED, S.FAILED, S.REFUNDED, S.REVERSED})
UNPAID = frozenset({S.CREATED, S.UNDER_REVIEW, S.AWAITING_MPESA, S.DERIV_DEBIT_SENT, S.REJECTED, S.EXPIRED, S.FAILED})


class Outflow(StrEnum):
    """Which way the money leaves us: the choice of promise 1, made once, changed only over proven dead attempts."""

    NONE = ""
    PAYOUT = "payout"
    GIVE_BACK = "give_back"


class IllegalTransition(Conflict):
    """The life cycle has no such step from here."""


class OtherWayOpen(Conflict):
    """Money may still leave, or has left, the other way: payout and give-back exclude each other."""


class TransactionNotFound(NotFound):
    """No such Transaction, or somebody else's."""


class NothingToResume(Conflict):
    """Only a Transaction in NEEDS_ATTENTION can be resumed."""


class AlreadyHeld(Conflict):
    """It is held already."""


class NotHeld(Conflict):
    """There is no hold to release."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Stops every outgoing leg, give-backs and deadlines included. `owner` answers for it; `why` is for staff only."""

    owner: str
    why: str
    since: datetime


@dataclass(eq=False, kw_only=True)
class Transaction(Aggregate):
    """`amount` is what the customer sends, `payout` what they get; `rate` is locked.

    Everything above `status` is frozen when it is created, but a withdrawal's rate and payout. `next_step_at` is when
    the sweeper looks at it again (None: nothing is left to do by itself), `attempts` counts the tries of the present
    step, `payments` and `transfers` are its requests at M-Pesa and at Deriv, of all legs, oldest first.
    """

    type: ClassVar[TransactionType]

    id: TransactionId
    user_id: UserId
    quote_id: QuoteId
    amount: Money
    payout: Money
    rate: LockedRate
    phone: Phone
    login: DerivLogin
    agent: str
    created_at: datetime
    step_version: int = STEP_VERSION
    min_payout: Money | None = None

    status: TransactionStatus = S.CREATED
    updated_at: datetime
    version: int = 0
    next_step_at: datetime | None = None
    behind: int = 0  # how many unfinished ones the customer had: it waits for a budget that much longer
    attempts: int = 0
    failures: int = 0  # of our own code in a row
    login_checked_at: datetime | None = None
    confirmed_at: datetime | None = None  # when the customer's money was proven to have come
    expected_by: datetime | None = None
    failure_code: str = ""
    failure_detail: str = ""
    attention_from: TransactionStatus | None = None
    deriv_transfer_id: DerivTransferId | None = None  # the entry in the agent's book
    mpesa_receipt: str = ""  # of what M-Pesa paid out
    outflow: Outflow = Outflow.NONE
    hold: Hold | None = None

    payments: list[MpesaRequest] = field(default_factory=list)
    transfers: list[DerivTransfer] = field(default_factory=list)
    knows_payments: bool = False  # its requests at M-Pesa are attached
    touched: bool = False  # a verb ran: there is something to save
    changed: list[ProviderRequest] = field(default_factory=list)  # requests that a verb changed
    reserve_again: bool = False  # re-opened after its reservation was released
    notes: list[AuditRecord] = field(default_factory=list)  # for the audit log, besides the changes of status

    # --- what stands --------------------------------------------------------------------------------------------

    def at_mpesa(self, *legs: Leg) -> list[MpesaRequest]:
        """Its attempts of these legs at M-Pesa, oldest first."""
        return [request for request in self.payments if request.leg in legs]

    def at_deriv(self, *legs: Leg) -> list[DerivTransfer]:
        """Its attempts of these legs at Deriv, oldest first."""
        return [transfer for transfer in self.transfers if transfer.leg in legs]

    @property
    def outgoing(self) -> list[ProviderRequest]:
        """The attempts by which money leaves us, payouts and give-backs."""
        return [request for request in (*self.payments, *self.transfers) if request.leg.is_outgoing]

    @property
    def has_left(self) -> bool:
        """Whether some attempt of either way took effect: then nothing more may leave."""
        return any(request.status is RequestStatus.DONE for request in self.outgoing)

    @property
    def is_paid(self) -> bool:
        """Whether the customer's own leg is proven (and posted)."""
        return self.confirmed_at is not None

    # --- verbs --------------------------------------------------------------------------------------------------

    def choose(self, way: Outflow, *, at: datetime) -> None:
        """Payout or give-back. Raises `OtherWayOpen` unless every attempt of the other way is proven dead.

        An attempt that surely was not sent is closed with it. Its requests must be attached. Asked again at each
        intent: what was chosen may have been overtaken by a late proof of the other way.
        """
        others = [r for r in self.outgoing if r.leg.is_give_back is not (way is Outflow.GIVE_BACK)]
        for request in others:
            if request.status is RequestStatus.NOT_SENT:
                request.status, request.outcome_at = RequestStatus.CLOSED, at
                self.change(request)
        if any(not request.status.is_dead for request in others):
            raise OtherWayOpen(f"{self.id}: money may have left by {self.outflow}, so that {way} is not safe")
        self.outflow = way
        self._touch(at)

    def reject(self, code: str, detail: str, *, at: datetime) -> None:
        """Before anything was asked of the customer or of Deriv."""
        self._end(S.REJECTED, code, detail, at=at)

    def fail(self, code: str, detail: str, *, at: datetime) -> None:
        """The provider's own word: nothing was taken. Stays open to late proof."""
        self._end(S.FAILED, code, detail, at=at)

    def need_attention(self, reason: str, *, at: datetime) -> None:
        """The saga's own steps ran out, or proofs contradict: a person is shown it. Remembers where it came from."""
        if self.status is not S.NEEDS_ATTENTION:
            self.attention_from = self.status
            self._move_to(S.NEEDS_ATTENTION, at=at, why=reason)
        self.failure_code = reason[:64]
        self.next_step_at = None
        self._touch(at)
        self._show(reason, at)

    def resume(self, *, why: str, at: datetime) -> None:
        """A person sends it back to where it came from. Raises `NothingToResume`."""
        if self.status is not S.NEEDS_ATTENTION or self.attention_from is None:
            raise NothingToResume(f"{self.id} is {self.status}: only a Transaction in NEEDS_ATTENTION can be resumed")
        self._move_to(self.attention_from, at=at, why=why)
        self.failure_code = ""
        self._again(at, at=at)

    def redirect(self, phone: Phone, login: DerivLogin, agent: str, *, why: str, at: datetime) -> None:
        """Two people chose another destination of the same customer. Raises `OtherWayOpen` unless nothing is out.

        An attempt that surely was not sent is closed, for its destination is fixed.
        """
        for request in self.outgoing:
            if request.status is RequestStatus.NOT_SENT:
                request.status, request.outcome_at = RequestStatus.CLOSED, at
                self.change(request)
        if any(not request.status.is_dead for request in self.outgoing):
            raise OtherWayOpen(f"{self.id}: money may have gone to the destination that it had")
        self.phone, self.login, self.agent = phone, login, agent
        self._note("transaction.redirected", why, at)

    def hold_back(self, hold: Hold, *, at: datetime) -> None:
        """AML or law: nothing leaves until it is released. Raises `AlreadyHeld`."""
        if self.hold is not None:
            raise AlreadyHeld(f"{self.id} is held by {self.hold.owner}")
        self.hold = hold
        self._note("transaction.held", hold.why, at, owner=hold.owner)

    def release_hold(self, *, why: str, at: datetime) -> None:
        """What was due while it was held is due now. Raises `NotHeld`."""
        if self.hold is None:
            raise NotHeld(f"{self.id} is not held")
        self._note("transaction.released", why, at, owner=self.hold.owner)
        self.hold = None
        if self.next_step_at is not None:
            self._again(at, at=at)

    def wait(self, until: datetime, *, at: datetime) -> None:
        """Nothing new: looked at again `until` then."""
        self.attempts += 1
        self.next_step_at = until
        if self.expected_by and self.expected_by < until:
            self.expected_by = until + timedelta(minutes=1)
        self._touch(at)

    def queue(self, *, at: datetime, expected_by: datetime | None = None) -> None:
        """The provider's budget has no room: stays due, and is picked from the table by its turn, which it keeps."""
        self.next_step_at = min(self.next_step_at or at, at)
        if expected_by and (self.expected_by is None or self.expected_by < expected_by):
            self.expected_by = expected_by
        self._touch(at)

    def step_failed(self, until: datetime, *, at: datetime) -> None:
        """Our own code raised, and nothing of the step was kept: looked at again `until` then."""
        self.failures += 1
        self.next_step_at = until
        self._touch(at)

    def sends(self, request: ProviderRequest, *, until: datetime, at: datetime) -> None:
        """An attempt goes out with this commit, for the first time or again; `until` its outcome is awaited."""
        mine: list[MpesaRequest] | list[DerivTransfer] = (
            self.payments if isinstance(request, MpesaRequest) else self.transfers
        )
        if request not in mine:
            mine.append(request)  # type: ignore[arg-type]
            self.attempts = 0
        self.next_step_at = until
        self._touch(at)

    def asks(self, query: MpesaRequest, *, until: datetime | None, at: datetime) -> None:
        """A status query goes out; `until` its answer is awaited, where no other timer has to stay as it is."""
        self.payments.append(query)
        self.attempts += 1
        self.next_step_at = until or self.next_step_at
        self._touch(at)

    def look_again(self, *, at: datetime) -> None:
        """A provider's book shows money of this one: its next step is due, also where it had ended."""
        self._again(at, at=at)

    def rest(self, *, at: datetime) -> None:
        """Nothing is left to do by itself."""
        self.next_step_at = None
        self._touch(at)

    def asked(self, request: ProviderRequest, *, asked_at: datetime, at: datetime) -> None:
        """The provider was asked what became of `request`; `asked_at` is when the asking began."""
        request.asked_at = asked_at
        self.change(request)
        self._touch(at)

    def change(self, request: ProviderRequest) -> None:
        """`request` was decided upon and has to be stored with the Transaction."""
        if request not in self.changed:
            self.changed.append(request)

    def pull_notes(self) -> list[AuditRecord]:
        """Hands over the notes since the last call."""
        notes, self.notes = self.notes, []
        return notes

    # --- helpers ------------------------------------------------------------------------------------------------

    def _completed(self, *, at: datetime) -> None:
        self._move_to(S.COMPLETED, at=at)
        self.next_step_at = None
        self.failure_code = self.failure_detail = ""
        self.record(
            TransactionCompleted(
                transaction_id=self.id,
                user_id=self.user_id,
                type=self.type,
                amount=self.amount,
                payout=self.payout,
                occurred_at=at,
            )
        )

    def _end(self, status: TransactionStatus, code: str, detail: str, *, at: datetime) -> None:
        self._move_to(status, at=at, why=code)
        self.failure_code, self.failure_detail = code[:64], detail[:255]
        self.next_step_at = None
        self.record(
            TransactionEnded(
                transaction_id=self.id, user_id=self.user_id, type=self.type, status=status, reason=code, occurred_at=at
            )
        )

    def _show(self, reason: str, at: datetime) -> None:
        self.record(AttentionNeeded(transaction_id=self.id, user_id=self.user_id, reason=reason[:64], occurred_at=at))

    def _note(self, action: str, why: str, at: datetime, **details: str) -> None:
        self.notes.append(AuditRecord(action, "transaction", str(self.id), at, why=why, details=dict(details)))
        self._touch(at)

    def _again(self, when: datetime, *, at: datetime) -> None:
        self.attempts = 0
        self.next_step_at = when
        self._touch(at)

    def _move_to(self, status: TransactionStatus, *, at: datetime, why: str = "") -> None:
        if status not in NEXT[self.type].get(self.status, frozenset()):
            raise IllegalTransition(f"{self.id}: {self.status} to {status}")
        self.transitions.append(Transition(self.status, status, at, why))
        if self.status is S.NEEDS_ATTENTION:
            self.attention_from = None
        self.status = status
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.touched = True


def newest(requests: Sequence[ProviderRequest] | Iterable[ProviderRequest]) -> ProviderRequest | None:
    """The last attempt, if there is one."""
    return max(requests, key=lambda request: request.attempt, default=None)
