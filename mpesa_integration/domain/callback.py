"""What an STK callback says, and whether it can be about the attempt whose URL it came to: a claim, never a proof."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from mpesa_integration.domain import wire
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money

RECEIPT = re.compile(r"[A-Z0-9]{10}")


class CallbackKind(StrEnum):
    """The `kind` in a callback's URL. B2C, status, reversal, balance and C2B have kinds of their own."""

    STK = "s"


class Verdict(StrEnum):
    """What we made of a callback when it came."""

    AGREES = "agrees"  # its ids and amount are the attempt's, as far as both are known
    DISAGREES = "disagrees"
    UNREADABLE = "unreadable"
    NO_ATTEMPT = "no_attempt"  # its token is none of ours


@dataclass(frozen=True, slots=True)
class StkClaim:
    """The readable part of an STK callback. `amount` and `receipt` only on success, and only when well formed."""

    merchant_request_id: str
    checkout_request_id: str = field(repr=False)
    result_code: str
    amount: Money | None = None
    receipt: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a callback is held against: the attempt that its token names.

    `receipt_taken`: another attempt has the receipt; `seen`: the very same body came before.
    """

    id: RequestId
    transaction_id: TransactionId
    amount: Money
    merchant_request_id: str
    checkout_request_id: str = field(repr=False)
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
    claim: StkClaim | None
    verdict: Verdict


def read_stk(body: bytes) -> StkClaim | None:
    """None for what can't be read as an STK callback: another shape, a key twice, no ids, no code."""
    envelope = (wire.read_object(body) or {}).get("Body")
    callback = envelope.get("stkCallback") if isinstance(envelope, dict) else None
    if not isinstance(callback, dict):
        return None
    merchant, checkout = wire.id_of(callback.get("MerchantRequestID")), wire.id_of(callback.get("CheckoutRequestID"))
    code = wire.code_of(callback.get("ResultCode"))
    if not code or not checkout:
        return None
    if code != "0":
        return StkClaim(merchant, checkout, code)
    metadata = callback.get("CallbackMetadata")
    items = {
        item["Name"]: item.get("Value")
        for item in wire.items_of(metadata.get("Item") if isinstance(metadata, dict) else None)
        if isinstance(item.get("Name"), str)
    }
    receipt = wire.id_of(items.get("MpesaReceiptNumber"))
    return StkClaim(
        merchant, checkout, code, wire.kes_of(items.get("Amount")), receipt if RECEIPT.fullmatch(receipt) else ""
    )


def judge(claim: StkClaim | None, attempt: Attempt | None) -> Verdict:
    """Holds a claim against the attempt; a success must also name the amount asked for and a receipt never seen."""
    if attempt is None:
        return Verdict.NO_ATTEMPT
    if claim is None:
        return Verdict.UNREADABLE
    ids = (
        (claim.checkout_request_id, attempt.checkout_request_id),
        (claim.merchant_request_id, attempt.merchant_request_id),
        (claim.receipt, attempt.receipt),
    )
    if any(said and known and said != known for said, known in ids):
        return Verdict.DISAGREES
    if claim.result_code == "0" and (claim.amount != attempt.amount or not claim.receipt or attempt.receipt_taken):
        return Verdict.DISAGREES
    return Verdict.AGREES
