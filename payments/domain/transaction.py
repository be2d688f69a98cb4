"""Transaction, here a Deposit: KES leaves the customer's M-Pesa, USD reaches their Deriv login.

Its state is its row and its provider requests, and nothing else. Every verb takes the time; which verb comes when is
the saga's business (`application/deposit.py`), what a verb may do is said here.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from shared_kernel.domain.errors import Conflict, NotFound
from shared_kernel.domain.events import (
    Aggregate,
    AttentionNeeded,
    TransactionCompleted,
    TransactionCreated,
    TransactionEnded,
    Transition,
)
from shared_kernel.domain.identifiers import DerivTransferId, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import LockedRate, Money
from shared_kernel.domain.requests import DerivLogin, DerivTransfer, MpesaRequest, ProviderRequest

HEAD_START = timedelta(seconds=8)  # the event's: the sweeper takes a new Transaction only if its event got lost
STEP_VERSION = 1  # of the step table that a new Transaction follows; a change of the table comes with a new number


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
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"
    REFUND_PENDING = "REFUND_PENDING"
    REFUNDED = "REFUNDED"
    NEEDS_ATTENTION = "NEEDS_ATTENTION"


S = TransactionStatus

# Late proof re-opens: a payment may turn up after FAILED or EXPIRED, a transfer after REFUND_PENDING (no give-back
# was sent yet).
NEXT: dict[TransactionStatus, frozenset[TransactionStatus]] = {
    S.CREATED: frozenset({S.AWAITING_MPESA, S.REJECTED, S.EXPIRED, S.NEEDS_ATTENTION}),
    S.UNDER_REVIEW: frozenset({S.CREATED, S.REJECTED, S.EXPIRED}),
    S.AWAITING_MPESA: frozenset({S.MPESA_CONFIRMED, S.REFUND_PENDING, S.FAILED, S.EXPIRED, S.NEEDS_ATTENTION}),
    S.MPESA_CONFIRMED: frozenset({S.DERIV_TRANSFER_SENT, S.REFUND_PENDING, S.NEEDS_ATTENTION}),
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
}
FINAL = frozenset({S.COMPLETED, S.REJECTED, S.EXPIRED, S.FAILED, S.REFUNDED})
UNPAID = frozenset({S.CREATED, S.UNDER_REVIEW, S.AWAITING_MPESA, S.REJECTED, S.EXPIRED, S.FAILED})


class IllegalTransition(Conflict):
    """The life cycle has no such step from here."""


class TransactionNotFound(NotFound):
    """No such Transaction, or somebody else's."""


class NothingToResume(Conflict):
    """Only a Transaction in NEEDS_ATTENTION can be resumed."""


@dataclass(eq=False, kw_only=True)
class Transaction(Aggregate):
    """A Deposit. `amount` is what the customer pays (KES), `payout` what they get (USD); `rate` is locked.

    Everything above `status` is frozen when it is created. `next_step_at` is when the sweeper looks at it again
    (None: nothing is left to do by itself), `attempts` counts the tries of the present step, `payments` and
    `transfers` its provider requests.
    """

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
    type: TransactionType = TransactionType.DEPOSIT
    step_version: int = STEP_VERSION

    status: TransactionStatus = S.CREATED
    updated_at: datetime
    version: int = 0
    next_step_at: datetime | None = None
    attempts: int = 0
    failures: int = 0  # of our own code in a row
    login_checked_at: datetime | None = None
    confirmed_at: datetime | None = None
    expected_by: datetime | None = None
    failure_code: str = ""
    failure_detail: str = ""
    attention_from: TransactionStatus | None = None
    deriv_transfer_id: DerivTransferId | None = None

    payments: list[MpesaRequest] = field(default_factory=list)
    transfers: list[DerivTransfer] = field(default_factory=list)
    prompt_busy: bool = False  # another prompt is open on this phone
    touched: bool = False  # a verb ran: there is something to save
    changed: list[ProviderRequest] = field(default_factory=list)  # requests that a verb changed
    reserve_again: bool = False  # re-opened after its reservation was released

    @classmethod
    def create(
        cls,
        id: TransactionId,
        *,
        user_id: UserId,
        quote_id: QuoteId,
        amount: Money,
        rate: LockedRate,
        phone: Phone,
        login: DerivLogin,
        agent: str,
        login_checked_at: datetime | None,
        at: datetime,
    ) -> "Transaction":
        """Step 1: accepted, nothing asked of a provider.

        `payout` follows from the locked rate, rounded down to the cent.
        """
        transaction = cls(
            id=id,
            user_id=user_id,
            quote_id=quote_id,
            amount=amount,
            payout=rate.buy(amount),
            rate=rate,
            phone=phone,
            login=login,
            agent=agent,
            login_checked_at=login_checked_at,
            created_at=at,
            updated_at=at,
            next_step_at=at + HEAD_START,
            expected_by=at + timedelta(minutes=5),
            touched=True,
        )
        transaction.transitions.append(Transition("", S.CREATED, at))
        transaction.record(
            TransactionCreated(
                transaction_id=id,
                user_id=user_id,
                type=transaction.type,
                amount=amount,
                quote_id=quote_id,
                occurred_at=at,
            )
        )
        return transaction

    # --- what stands --------------------------------------------------------------------------------------------

    @property
    def payment(self) -> MpesaRequest | None:
        """The newest attempt to be paid."""
        return self.payments[-1] if self.payments else None

    @property
    def transfer(self) -> DerivTransfer | None:
        """The newest attempt to pay Deriv."""
        return self.transfers[-1] if self.transfers else None

    @property
    def open_transfers(self) -> list[DerivTransfer]:
        """Attempts whose money may have moved, or still may."""
        return [transfer for transfer in self.transfers if transfer.status.may_take_effect]

    @property
    def is_paid(self) -> bool:
        """Whether M-Pesa has proven the payment (and it is posted)."""
        return self.confirmed_at is not None

    # --- verbs --------------------------------------------------------------------------------------------------

    def login_is_good(self, *, at: datetime) -> None:
        """Deriv says that the login may be credited."""
        self.login_checked_at = at
        self._again(at, at=at)

    def reject(self, code: str, detail: str, *, at: datetime) -> None:
        """Before anything was asked of the customer."""
        self._end(S.REJECTED, code, detail, at=at)

    def expire(self, *, at: datetime) -> None:
        """The rate's lock ran out, and surely nobody was charged."""
        self._end(
            S.EXPIRED,
            "quote_expired",
            "The rate was no longer valid. Nothing was charged. Please ask for a new quote.",
            at=at,
        )

    def ask_for_payment(self, request: MpesaRequest, *, until: datetime, at: datetime) -> None:
        """Step 2: the prompt goes out with `request`; `until` its outcome is awaited from this sender."""
        if self.status is not S.AWAITING_MPESA:
            self._move_to(S.AWAITING_MPESA, at=at)
        if request not in self.payments:
            self.payments.append(request)
            self.attempts = 0
        self.next_step_at = until
        self._touch(at)

    def confirm(self, *, at: datetime) -> None:
        """Step 3: the payment is proven.

        Without a rate that still holds it is given back, never converted at the old one.
        """
        self.confirmed_at = at
        self.failure_code = self.failure_detail = ""
        if self.rate.holds(at):
            self.reserve_again = (self.attention_from or self.status) in FINAL
            self._move_to(S.MPESA_CONFIRMED, at=at)
            self._again(at, at=at)
        else:
            self.give_back("rate_expired", "The payment came after the rate had expired. It will be refunded.", at=at)

    def fail(self, code: str, detail: str, *, at: datetime) -> None:
        """M-Pesa's own word: nothing was paid. Stays open to late proof."""
        self._end(S.FAILED, code, detail, at=at)

    def send_to_deriv(self, transfer: DerivTransfer, *, until: datetime, at: datetime) -> None:
        """Step 4: the intent; `until` its outcome is awaited from this sender."""
        if self.status is not S.DERIV_TRANSFER_SENT:
            self._move_to(S.DERIV_TRANSFER_SENT, at=at)
        if transfer not in self.transfers:
            self.transfers.append(transfer)
            self.attempts = 0
        self.next_step_at = until
        self._touch(at)

    def complete(self, transfer: DerivTransferId, *, at: datetime) -> None:
        """Step 5: Deriv has credited the login. Raises `IllegalTransition` unless a transfer was sent."""
        self._move_to(S.COMPLETED, at=at)
        self.deriv_transfer_id = transfer
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

    def give_back(self, code: str, detail: str, *, at: datetime) -> None:
        """The paid money has to go back: waits in REFUND_PENDING for a give-back, and is shown to a person."""
        self._move_to(S.REFUND_PENDING, at=at, why=code)
        self.failure_code, self.failure_detail = code, detail
        self.next_step_at = None
        reason = f"refund_pending:{code}"[:64]
        self.record(AttentionNeeded(transaction_id=self.id, user_id=self.user_id, reason=reason, occurred_at=at))

    def need_attention(self, reason: str, *, at: datetime) -> None:
        """The saga's own steps ran out, or proofs contradict: a person is shown it. Remembers where it came from."""
        if self.status is not S.NEEDS_ATTENTION:
            self.attention_from = self.status
            self._move_to(S.NEEDS_ATTENTION, at=at, why=reason)
        self.failure_code = reason
        self.next_step_at = None
        self._touch(at)
        self.record(AttentionNeeded(transaction_id=self.id, user_id=self.user_id, reason=reason, occurred_at=at))

    def resume(self, *, why: str, at: datetime) -> None:
        """A person sends it back to where it came from. Raises `NothingToResume`."""
        if self.status is not S.NEEDS_ATTENTION or self.attention_from is None:
            raise NothingToResume(f"{self.id} is {self.status}: only a Transaction in NEEDS_ATTENTION can be resumed")
        self._move_to(self.attention_from, at=at, why=why)
        self.failure_code = ""
        self._again(at, at=at)

    def wait(self, until: datetime, *, at: datetime) -> None:
        """Nothing new: looked at again `until` then."""
        self.attempts += 1
        self.next_step_at = until
        if self.expected_by and self.expected_by < until:
            self.expected_by = until + timedelta(minutes=1)
        self._touch(at)

    def step_failed(self, until: datetime, *, at: datetime) -> None:
        """Our own code raised, and nothing of the step was kept: looked at again `until` then."""
        self.failures += 1
        self.next_step_at = until
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

    # --- helpers ------------------------------------------------------------------------------------------------

    def _end(self, status: TransactionStatus, code: str, detail: str, *, at: datetime) -> None:
        self._move_to(status, at=at, why=code)
        self.failure_code, self.failure_detail = code, detail
        self.next_step_at = None
        self.record(
            TransactionEnded(
                transaction_id=self.id, user_id=self.user_id, type=self.type, status=status, reason=code, occurred_at=at
            )
        )

    def _again(self, when: datetime, *, at: datetime) -> None:
        self.attempts = 0
        self.next_step_at = when
        self._touch(at)

    def _move_to(self, status: TransactionStatus, *, at: datetime, why: str = "") -> None:
        if status not in NEXT[self.status]:
            raise IllegalTransition(f"{self.id}: {self.status} to {status}")
        self.transitions.append(Transition(self.status, status, at, why))
        if self.status is S.NEEDS_ATTENTION:
            self.attention_from = None
        self.status = status
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.touched = True
