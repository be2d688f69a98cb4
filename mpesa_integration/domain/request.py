"""An attempt's life: its names, and what an outcome makes of it."""

from base64 import b32encode
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import TypeAlias

from mpesa_integration.domain.callback import CallbackKind
from shared_kernel.domain.errors import Conflict
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Currency, InvalidAmount, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.requests import Leg, MpesaRequest, RequestStatus

Digest: TypeAlias = Callable[[str, str], str]
"""A keyed hash (64 hex digits) of a value; the label before it separates uses."""

LIMITS = dict.fromkeys((Leg.B2C_PAYOUT, Leg.B2C_REFUND), (10, 250000))  # shillings; the contract's section 14
STK_LIMITS = (1, 250_000)
OPEN = frozenset(RequestStatus) - {RequestStatus.DONE, RequestStatus.REFUSED, RequestStatus.CLOSED}
OUTFLOWS = frozenset({Leg.B2C_PAYOUT, Leg.B2C_REFUND, Leg.REVERSAL})


class PromptOpen(Conflict):
    """The phone has an open prompt: M-Pesa shows one at a time, and so do we."""


class OutflowOpen(Conflict):
    """Another attempt by which money leaves for this Transaction is neither proven dead nor done."""


class ReceiptTaken(Conflict):
    """M-Pesa gives each payment a receipt of its own, and another attempt has this one."""


def reference_of(digest: Digest, transaction: TransactionId, leg: Leg, attempt: int) -> str:
    """One for each attempt, unique for ever and not to be guessed.

    For an STK push 12 characters of A-Z and 2-7 that the payer sees and Pull repeats; for all others 32 hex digits: the
    OriginatorConversationID of a B2C payment, our own name for the rest.
    """
    keyed = digest("mpesa.reference", f"{transaction}|{leg}|{attempt}")
    return b32encode(bytes.fromhex(keyed)).decode()[:12] if leg is Leg.STK_PUSH else keyed[:32]


def callback_token(digest: Digest, owner: RequestId | str, kind: CallbackKind = CallbackKind.STK) -> str:
    """The secret part of a callback URL: 160 bits in hex, another one for each kind.

    `owner` is the attempt, which has the same URLs when it is sent again, or for a confirmation the shortcode.
    """
    return digest("mpesa.callback" if kind is CallbackKind.STK else f"mpesa.callback.{kind}", str(owner))[:40]


def callback_path(digest: Digest, owner: RequestId | str, kind: CallbackKind) -> str:
    """Where M-Pesa calls back, below our public base URL."""
    return f"/cb/{kind}/{callback_token(digest, owner, kind)}"


def token_hash(token: str) -> str:
    """What is stored of a callback token, and looked for."""
    return sha256(token.encode()).hexdigest()


def shillings(amount: Money, leg: Leg = Leg.STK_PUSH) -> int:
    """Whole shillings. Raises `InvalidAmount` for cents, another currency, or what one such payment can't move."""
    if amount.currency is not Currency.KES or amount.amount % 100:
        raise InvalidAmount("M-Pesa moves whole shillings")
    least, most = LIMITS.get(leg, STK_LIMITS)
    if not least <= amount.amount // 100 <= most:
        raise InvalidAmount(f"M-Pesa moves {least} to {most} shillings at a time")
    return amount.amount // 100


def conclude(request: MpesaRequest, outcome: Outcome, *, fence: int, at: datetime) -> None:
    """Applies the outcome that the sending with `fence` met to the attempt as it is now.

    That it took effect, was taken, or may have been counts whoever says so. That it had no effect counts only from the
    newest sending, while nothing says more; and after a sending without a known outcome it speaks for itself alone: the
    attempt stays unknown. What is closed, refused or done stays so, except for a proof of success.
    """
    before, is_newest = request.status, fence == request.fence
    match outcome:
        case Done(reference):
            request.status = RequestStatus.DONE
            request.receipt = request.receipt or reference
        case Accepted(references):
            request.checkout_request_id = request.checkout_request_id or references.get("CheckoutRequestID", "")
            request.merchant_request_id = request.merchant_request_id or references.get("MerchantRequestID", "")
            request.conversation_id = request.conversation_id or references.get("ConversationID", "")
            if before in {RequestStatus.SENDING, RequestStatus.NOT_SENT, RequestStatus.UNKNOWN}:
                request.status = RequestStatus.ACCEPTED
        case Unknown(code):
            request.was_unknown = True
            stale = not is_newest and before is RequestStatus.REFUSED  # an earlier sending may have got through
            if stale or before in {RequestStatus.SENDING, RequestStatus.NOT_SENT, RequestStatus.UNKNOWN}:
                request.status, request.code = RequestStatus.UNKNOWN, code
        case Refused(code):
            taken = before is RequestStatus.ACCEPTED and (request.was_unknown or request.leg in OUTFLOWS)
            if is_newest and before in OPEN and not taken:
                known = RequestStatus.UNKNOWN if request.was_unknown else RequestStatus.REFUSED
                request.status, request.code = known, code
        case NotSent(code):
            if is_newest and before in {RequestStatus.SENDING, RequestStatus.UNKNOWN}:
                known = RequestStatus.UNKNOWN if request.was_unknown else RequestStatus.NOT_SENT
                request.status, request.code = known, code
    if request.status is not before:
        request.outcome_at = at
