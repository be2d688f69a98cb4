"""A Deposit: KES leaves the customer's M-Pesa, USD reaches their Deriv login."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from payments.domain.transaction import FINAL, HEAD_START, OtherWayOpen, Outflow, S, Transaction, TransactionType
from shared_kernel.domain.events import TransactionCreated, Transition
from shared_kernel.domain.identifiers import DerivTransferId, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import LockedRate, Money
from shared_kernel.domain.requests import DerivLogin, DerivTransfer, Leg, MpesaRequest


@dataclass(eq=False, kw_only=True)
class Deposit(Transaction):
    """`amount` in KES, `payout` in USD, rounded down to the cent."""

    type: ClassVar[TransactionType] = TransactionType.DEPOSIT

    paid: Money | None = None  # what M-Pesa has proven, which may be another amount than was asked for
    refund_by_b2c: bool = False  # two persons allowed it after the reversal was refused for good
    prompt_busy: bool = False  # another prompt is open on this phone

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
        behind: int = 0,
    ) -> "Deposit":
        """Step 1: accepted, nothing asked of a provider."""
        deposit = cls(
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
            behind=behind,
            created_at=at,
            updated_at=at,
            next_step_at=at + HEAD_START,
            expected_by=at + timedelta(minutes=5),
            touched=True,
        )
        deposit.transitions.append(Transition("", S.CREATED, at))
        deposit.record(
            TransactionCreated(
                transaction_id=id,
                user_id=user_id,
                type=cls.type,
                amount=amount,
                quote_id=quote_id,
                occurred_at=at,
            )
        )
        return deposit

    # --- what stands --------------------------------------------------------------------------------------------

    @property
    def prompts(self) -> list[MpesaRequest]:
        """The attempts to be paid."""
        return self.at_mpesa(Leg.STK_PUSH)

    @property
    def payment(self) -> MpesaRequest | None:
        """The newest attempt to be paid."""
        return self.prompts[-1] if self.prompts else None

    @property
    def credits(self) -> list[DerivTransfer]:
        """The attempts to pay Deriv."""
        return self.at_deriv(Leg.DERIV_CREDIT)

    @property
    def transfer(self) -> DerivTransfer | None:
        """The newest attempt to pay Deriv."""
        return self.credits[-1] if self.credits else None

    @property
    def open_transfers(self) -> list[DerivTransfer]:
        """Attempts to pay Deriv whose money may have moved, or still may."""
        return [transfer for transfer in self.credits if transfer.status.may_take_effect]

    @property
    def refundable(self) -> Money:
        """What goes back by itself: what was paid, up to what was asked for; the rest lies in suspense."""
        return min(self.paid or self.amount, self.amount)

    # --- verbs --------------------------------------------------------------------------------------------------

    def login_is_good(self, *, at: datetime) -> None:
        """Deriv says that the login may be credited."""
        self.login_checked_at = at
        self._again(at, at=at)

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
        self.sends(request, until=until, at=at)

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

    def send_to_deriv(self, transfer: DerivTransfer, *, until: datetime, at: datetime) -> None:
        """Step 4: the intent; `until` its outcome is awaited from this sender. Raises `OtherWayOpen`."""
        self.choose(Outflow.PAYOUT, at=at)
        if self.status is not S.DERIV_TRANSFER_SENT:
            self._move_to(S.DERIV_TRANSFER_SENT, at=at)
        self.sends(transfer, until=until, at=at)

    def complete(self, transfer: DerivTransferId, *, at: datetime) -> None:
        """Step 5: Deriv has credited the login. Raises `IllegalTransition` unless a transfer was sent."""
        self.deriv_transfer_id = transfer
        self._completed(at=at)

    def give_back(self, code: str, detail: str, *, at: datetime) -> None:
        """The paid money goes back. Raises `OtherWayOpen` while Deriv may have been paid."""
        self.choose(Outflow.GIVE_BACK, at=at)
        self._move_to(S.REFUND_PENDING, at=at, why=code)
        self.failure_code, self.failure_detail = code[:64], detail[:255]
        self._again(at, at=at)
        self._show(f"refund_pending:{code}", at)

    def allow_refund_by_b2c(self, *, at: datetime) -> None:
        """Two persons saw that the reversal is refused for good and the payment stands. Raises `OtherWayOpen`."""
        if any(not reversal.status.is_dead for reversal in self.at_mpesa(Leg.REVERSAL)):
            raise OtherWayOpen(f"{self.id}: the reversal may still take effect: its verdict comes first")
        self.refund_by_b2c = True
        self._touch(at)

    def refunded(self, receipt: str, *, at: datetime, confirm_at: datetime | None = None) -> None:
        """It went back. `confirm_at` is when M-Pesa is asked about a success that was only claimed."""
        self.mpesa_receipt = receipt
        self._end(S.REFUNDED, self.failure_code, self.failure_detail, at=at)
        self.next_step_at = confirm_at

    def credit_reverted(self, *, at: datetime) -> None:
        """Deriv took back what it had credited: before a person, and from there on its way to a refund."""
        self.deriv_transfer_id = None
        self.need_attention("deriv_reverted", at=at)

    def choose_refund(self, *, at: datetime) -> None:
        """What a person looks at goes back once they send it on. Raises `OtherWayOpen` while Deriv may be paid."""
        self.choose(Outflow.GIVE_BACK, at=at)
        self.attention_from = S.REFUND_PENDING

    def deny_refund(self, *, at: datetime) -> None:
        """A refund booked on a claim was not made, by M-Pesa's proof: shown to a person, and to be made again."""
        self.mpesa_receipt = ""
        self.need_attention("refund_denied", at=at)
        self.attention_from = S.REFUND_PENDING
