"""A Withdrawal: USD leaves the customer's Deriv login, KES reaches their own verified M-Pesa."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from payments.domain.transaction import FINAL, HEAD_START, Outflow, S, Transaction, TransactionType
from shared_kernel.domain.events import TransactionCreated, Transition
from shared_kernel.domain.identifiers import DerivTransferId, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import LockedRate, Money
from shared_kernel.domain.requests import DerivLogin, DerivTransfer, Leg, MpesaRequest


@dataclass(eq=False, kw_only=True)
class Withdrawal(Transaction):
    """`amount` in USD, `payout` in KES, rounded down to the shilling.

    Rate and payout are the quote's until the debit is proven; then they are locked, at today's rate if the quote's no
    longer holds and today's still pays `min_payout`.
    """

    type: ClassVar[TransactionType] = TransactionType.WITHDRAWAL

    credit_back_id: DerivTransferId | None = None  # the entry in the agent's book by which it went back
    ordered_while_waiting: bool = False  # from a session that may not order much yet: what it has ordered is summed
    token: str = field(
        default="", repr=False
    )  # the customer's at Deriv, while the debit needs it; stored with the login
    stopped: Callable[[], str] = field(default=str, repr=False)  # why its customer is paid nothing now, under lock

    @classmethod
    def create(
        cls,
        id: TransactionId,
        *,
        user_id: UserId,
        quote_id: QuoteId,
        amount: Money,
        rate: LockedRate,
        min_payout: Money,
        phone: Phone,
        login: DerivLogin,
        agent: str,
        at: datetime,
        behind: int = 0,
        ordered_while_waiting: bool = False,
    ) -> "Withdrawal":
        """Step 1: accepted, nothing asked of a provider but the one-time code."""
        withdrawal = cls(
            id=id,
            user_id=user_id,
            quote_id=quote_id,
            amount=amount,
            payout=rate.sell(amount),
            rate=rate,
            min_payout=min_payout,
            phone=phone,
            login=login,
            agent=agent,
            behind=behind,
            ordered_while_waiting=ordered_while_waiting,
            created_at=at,
            updated_at=at,
            next_step_at=at + HEAD_START,
            expected_by=at + timedelta(minutes=5),
            touched=True,
        )
        withdrawal.transitions.append(Transition("", S.CREATED, at))
        withdrawal.record(
            TransactionCreated(
                transaction_id=id, user_id=user_id, type=cls.type, amount=amount, quote_id=quote_id, occurred_at=at
            )
        )
        return withdrawal

    # --- what stands --------------------------------------------------------------------------------------------

    @property
    def debit(self) -> DerivTransfer | None:
        """The attempt to debit the login: there is one, for the code is used up with it."""
        debits = self.at_deriv(Leg.DERIV_DEBIT)
        return debits[-1] if debits else None

    @property
    def payouts(self) -> list[MpesaRequest]:
        """The attempts to pay out."""
        return self.at_mpesa(Leg.B2C_PAYOUT)

    # --- verbs --------------------------------------------------------------------------------------------------

    def send_debit(self, debit: DerivTransfer, *, until: datetime, at: datetime) -> None:
        """Step 2: the intent; `until` its outcome is awaited from this sender."""
        if self.status is not S.DERIV_DEBIT_SENT:
            self._move_to(S.DERIV_DEBIT_SENT, at=at)
        self.sends(debit, until=until, at=at)

    def code_expired(self, *, at: datetime) -> None:
        """The one-time code ran out before it was used: surely nothing was debited."""
        self._end(
            S.EXPIRED,
            "code_expired",
            "The one-time code ran out before Deriv could be asked. Nothing was debited. Please ask for a new code.",
            at=at,
        )

    def debited(self, entry: DerivTransferId, *, at: datetime) -> None:
        """Step 2, proven from the agent's own book; also where it had failed or expired by then."""
        self.deriv_transfer_id, self.confirmed_at = entry, at
        self.failure_code = self.failure_detail = ""
        self._move_to(S.DERIV_DEBITED, at=at)
        self._again(at, at=at)

    def lock_rate(self, rate: LockedRate, payout: Money, *, at: datetime) -> None:
        """Step 3: at this rate it is paid out, whenever that succeeds."""
        self.reserve_again = self.payout < payout
        self.rate, self.payout = rate, payout
        self._move_to(S.RATE_LOCKED, at=at)
        self._again(at, at=at)

    def disburse(self, payout: MpesaRequest, *, until: datetime, at: datetime) -> None:
        """Step 4: the intent of a payout. Raises `OtherWayOpen` once it is credited back."""
        self.choose(Outflow.PAYOUT, at=at)
        if self.status is not S.MPESA_DISBURSING:
            self._move_to(S.MPESA_DISBURSING, at=at)
        self.sends(payout, until=until, at=at)

    def pay_later(self, until: datetime, *, why: str, at: datetime) -> None:
        """The payout is proven dead by our own fault: it is paid once our side is mended, the float stays reserved."""
        self._move_to(S.RATE_LOCKED, at=at, why=why)
        self._again(until, at=at)
        self._show(f"payout_waits:{why}", at)

    def complete(self, receipt: str, *, confirm_at: datetime | None, at: datetime) -> None:
        """Step 5: paid out. `confirm_at` is when M-Pesa is asked about a success that was only claimed."""
        self.mpesa_receipt = receipt
        self._completed(at=at)
        self.next_step_at = confirm_at

    def deny(self, *, at: datetime) -> None:
        """A payout booked on a claim was not made, by M-Pesa's proof: shown to a person, and payable again."""
        self.mpesa_receipt = ""
        self.reserve_again = True
        self.need_attention("payout_denied", at=at)
        self.attention_from = S.MPESA_DISBURSING

    def credit_back(self, code: str, detail: str, *, at: datetime) -> None:
        """What was debited goes back to the login. Raises `OtherWayOpen` while it may have been paid out."""
        self.choose(Outflow.GIVE_BACK, at=at)
        self._move_to(S.CREDIT_BACK_PENDING, at=at, why=code)
        self.failure_code, self.failure_detail = code[:64], detail[:255]
        self._again(at, at=at)
        self._show(f"credit_back:{code}", at)

    def never_debited(self, *, at: datetime) -> None:
        """Deriv took its debit back before anything was made of it."""
        self.confirmed_at = self.deriv_transfer_id = None
        self.fail("deriv_reverted", "Deriv took the withdrawal back. Ask for a new code.", at=at)

    def login_unbound(self, *, at: datetime) -> None:
        """The login's token is gone before Deriv was asked: surely nothing was debited."""
        detail = "Your Deriv account is no longer bound. Nothing was debited. Bind it again, and ask for a new code."
        self._end(S.EXPIRED, "login_unbound", detail, at=at)

    def credited_back(self, entry: DerivTransferId, *, at: datetime) -> None:
        """Deriv has proven the credit-back."""
        self.credit_back_id = entry
        self._end(S.REVERSED, self.failure_code, self.failure_detail, at=at)

    @property
    def was_final(self) -> bool:
        """Whether it had ended before the present verb."""
        return (self.attention_from or self.status) in FINAL
