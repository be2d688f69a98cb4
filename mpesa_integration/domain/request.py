"""An attempt's life: its names, and what an outcome makes of it."""

from base64 import b32encode
from collections.abc import Callable
from datetime import datetime
from hashlib import sha256
from typing import TypeAlias

from shared_kernel.domain.errors import Conflict
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Currency, InvalidAmount, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.requests import Leg, MpesaRequest, RequestStatus

Digest: TypeAlias = Callable[[str, str], str]
"""A keyed hash (64 hex digits) of a value; the label before it separates uses."""

LEAST_SHILLINGS, MOST_SHILLINGS = 1, 250_000  # STK push, the contract's section 14
HOLDS_PHONE = frozenset(RequestStatus) - {RequestStatus.DONE, RequestStatus.REFUSED, RequestStatus.CLOSED}


class PromptOpen(Conflict):
    """The phone has an open prompt: M-Pesa shows one at a time, and so do we."""


def account_reference(digest: Digest, transaction: TransactionId, leg: Leg, attempt: int) -> str:
    """12 characters of A-Z and 2-7 that the payer sees and Pull repeats: one for each attempt, not to be guessed."""
    return b32encode(bytes.fromhex(digest("mpesa.reference", f"{transaction}|{leg}|{attempt}"))).decode()[:12]


def callback_token(digest: Digest, id: RequestId) -> str:
    """The secret part of the attempt's callback URL: 160 bits in hex. The same attempt sent again has the same URL."""
    return digest("mpesa.callback", str(id))[:40]


def token_hash(token: str) -> str:
    """What is stored of a callback token, and looked for."""
    return sha256(token.encode()).hexdigest()


def shillings(amount: Money) -> int:
    """Whole shillings. Raises `InvalidAmount` for cents, another currency, or what one STK push can't move."""
    if amount.currency is not Currency.KES or amount.amount % 100:
        raise InvalidAmount("M-Pesa moves whole shillings")
    if not LEAST_SHILLINGS <= amount.amount // 100 <= MOST_SHILLINGS:
        raise InvalidAmount(f"M-Pesa moves {LEAST_SHILLINGS} to {MOST_SHILLINGS} shillings at a time")
    return amount.amount // 100


def conclude(request: MpesaRequest, outcome: Outcome, *, fence: int, at: datetime) -> None:
    """Applies the outcome that the sending with `fence` met to the attempt as it is now.

    That it took effect, was taken, or may have been counts whoever says so. That it had no effect counts only from the
    newest sending, while nothing says more. What is closed, refused or done stays so, except for a proof of success.
    """
    before = request.status
    match outcome:
        case Done(reference):
            request.status = RequestStatus.DONE
            request.receipt = request.receipt or reference
        case Accepted(references):
            request.checkout_request_id = request.checkout_request_id or references.get("CheckoutRequestID", "")
            request.merchant_request_id = request.merchant_request_id or references.get("MerchantRequestID", "")
            if before in {RequestStatus.SENDING, RequestStatus.NOT_SENT, RequestStatus.UNKNOWN}:
                request.status = RequestStatus.ACCEPTED
        case Unknown(code):
            stale = (
                fence != request.fence and before is RequestStatus.REFUSED
            )  # an earlier sending may have got through
            if stale or before in {RequestStatus.SENDING, RequestStatus.NOT_SENT, RequestStatus.UNKNOWN}:
                request.status, request.code = RequestStatus.UNKNOWN, code
        case Refused(code):
            if fence == request.fence and before in HOLDS_PHONE:
                request.status, request.code = RequestStatus.REFUSED, code
        case NotSent(code):
            if fence == request.fence and before in {RequestStatus.SENDING, RequestStatus.UNKNOWN}:
                request.status, request.code = RequestStatus.NOT_SENT, code
    if request.status is not before:
        request.outcome_at = at
