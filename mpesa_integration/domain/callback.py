"""What a callback claims, and whether it can be about the attempt whose URL it came to: a claim, never a proof."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.requests import Blame, Leg

TIMED_OUT = "timeout"  # the result code of a time-out notice: M-Pesa's queue gave up, which decides nothing


class CallbackKind(StrEnum):
    """The `kind` in a callback's URL. A call's result and its time-out notice come to different URLs."""

    STK = "s"
    B2C = "b"
    B2C_TIMEOUT = "bt"
    STATUS = "t"
    STATUS_TIMEOUT = "tt"
    REVERSAL = "r"
    REVERSAL_TIMEOUT = "rt"
    BALANCE = "a"
    BALANCE_TIMEOUT = "at"
    CONFIRMATION = "c"  # C2B: something was paid to a shortcode
    VALIDATION = "v"  # C2B: something is about to be

    @property
    def is_timeout(self) -> bool:
        """A notice that the call timed out in M-Pesa's queue; a result may still follow."""
        return len(self) == 2

    @property
    def is_of_shortcode(self) -> bool:
        """Its URL belongs to a shortcode, not to an attempt."""
        return self in {CallbackKind.CONFIRMATION, CallbackKind.VALIDATION}

    @property
    def timeout(self) -> "CallbackKind":
        """The kind of a result's time-out notice."""
        return CallbackKind(f"{self}t")


RESULT_OF = {
    Leg.STK_PUSH: CallbackKind.STK,
    Leg.B2C_PAYOUT: CallbackKind.B2C,
    Leg.B2C_REFUND: CallbackKind.B2C,
    Leg.REVERSAL: CallbackKind.REVERSAL,
    Leg.STATUS_QUERY: CallbackKind.STATUS,
    Leg.ACCOUNT_BALANCE: CallbackKind.BALANCE,
}
"""By leg, where its result comes."""


class Verdict(StrEnum):
    """What we made of a callback when it came."""

    AGREES = "agrees"  # its ids and amount are the attempt's, as far as both are known
    DISAGREES = "disagrees"
    UNREADABLE = "unreadable"
    NOT_FINAL = "not_final"  # M-Pesa says that more follows
    NO_ATTEMPT = "no_attempt"  # its token is none of ours
    UNMATCHED = "unmatched"  # a confirmation whose reference is no attempt's
    STORED = "stored"  # nothing is made of it


@dataclass(frozen=True, slots=True)
class Balance:
    """What M-Pesa says that one account of a shortcode holds; below zero on Charges Paid."""

    account: str
    available: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The readable part of a callback. What is not said, or not well formed, is None or empty.

    `amount` and `receipt` only on success; `about` are the ids of the payment that an answer speaks of (its
    OriginatorConversationID, its receipt); `receiver` is the number paid to, unless masked.
    """

    result_code: str
    amount: Money | None = None
    receipt: str = field(default="", repr=False)
    merchant_request_id: str = ""
    checkout_request_id: str = field(default="", repr=False)
    originator_conversation_id: str = ""
    conversation_id: str = ""
    about: frozenset[str] = field(default=frozenset(), repr=False)
    receiver: Phone | None = None
    reference: str = ""
    shortcode: str = ""
    fate: str = ""
    fee: Money | None = None
    blame: Blame = Blame.NONE
    balances: tuple[Balance, ...] = ()
    more_follows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What a callback is held against: the attempt that its token names, or a confirmation's reference.

    `phone` only where the receiver is compared; `receipt_taken`: another payment has the receipt; `seen`: the very same
    body came before.
    """

    id: RequestId
    transaction_id: TransactionId | None
    leg: Leg
    reference: str
    about: str
    amount: Money
    shortcode: str
    phone: Phone | None
    merchant_request_id: str
    checkout_request_id: str = field(repr=False)
    conversation_id: str
    receipt: str = field(repr=False)
    receipt_taken: bool
    seen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MpesaCallback:
    """A callback as it is stored: everything that came, and what we made of it."""

    id: UUID
    kind: CallbackKind
    request_id: RequestId | None
    received_at: datetime
    peer: str
    body: bytes = field(repr=False)
    headers: str = field(repr=False)
    sha256: str
    claim: Claim | None
    verdict: Verdict


def judge(kind: CallbackKind, claim: Claim | None, attempt: Attempt | None) -> Verdict:
    """Holds a claim against the attempt: every id that both know must be the same, and a success must be its own."""
    if kind is CallbackKind.VALIDATION:
        return Verdict.STORED
    if attempt is None and not (kind is CallbackKind.CONFIRMATION and claim is None):
        return Verdict.UNMATCHED if kind is CallbackKind.CONFIRMATION else Verdict.NO_ATTEMPT
    if claim is None or attempt is None:
        return Verdict.UNREADABLE
    if claim.more_follows:
        return Verdict.NOT_FINAL
    if any(said and known and said != known for said, known in _ids(kind, claim, attempt)):
        return Verdict.DISAGREES
    if claim.result_code == "0" and not _is_its_own(kind, claim, attempt):
        return Verdict.DISAGREES
    return Verdict.AGREES


def _ids(kind: CallbackKind, claim: Claim, attempt: Attempt) -> Iterable[tuple[str, str]]:
    """Pairs of what is said and what is known. A question's OriginatorConversationID is the gateway's: not known."""
    paid_out = kind in {CallbackKind.B2C, CallbackKind.B2C_TIMEOUT}
    return (
        (claim.checkout_request_id, attempt.checkout_request_id),
        (claim.merchant_request_id, attempt.merchant_request_id),
        (claim.conversation_id, attempt.conversation_id),
        (claim.originator_conversation_id, attempt.reference if paid_out else ""),
        (claim.receipt, attempt.receipt),
        (claim.shortcode, attempt.shortcode),
    )


def _is_its_own(kind: CallbackKind, claim: Claim, attempt: Attempt) -> bool:
    """Whether a success is the attempt's: its amount, and a receipt that nothing else has."""
    same_amount, new_receipt = claim.amount == attempt.amount, bool(claim.receipt) and not attempt.receipt_taken
    match kind:
        case CallbackKind.STATUS:
            if claim.fate == "Completed":  # at whatever amount: the saga takes another one by what else is told
                return attempt.about in claim.about and new_receipt and claim.amount is not None
            return bool(claim.fate) and attempt.about in claim.about and same_amount
        case CallbackKind.REVERSAL:
            same = not claim.about or attempt.about in claim.about
            return same and (claim.amount is None or same_amount)
        case CallbackKind.BALANCE:
            return True
        case CallbackKind.B2C:
            return same_amount and new_receipt and (claim.receiver is None or claim.receiver == attempt.phone)
        case _:
            return same_amount and new_receipt
