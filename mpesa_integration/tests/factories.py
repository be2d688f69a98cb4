"""Valid attempts and callbacks, with what matters to a test."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from uuid_utils.compat import uuid7

from mpesa_integration.facade import mpesa
from shared_kernel.domain.identifiers import Phone, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted
from shared_kernel.domain.requests import Leg
from shared_kernel.infrastructure.persistence import unit_of_work

server_database = pytest.mark.skipif(
    "sqlite" in settings.DATABASES["default"]["ENGINE"],
    reason="many threads at once: SQLite in memory locks whole tables",
)
PHONE = Phone("254708374149")


def kes(shillings: int) -> Money:
    return Money(shillings * 100, Currency.KES)


AMOUNT = kes(1500)


def a_request(transaction: UUID | None = None, phone: Phone = PHONE, amount: Money = AMOUNT, attempt: int = 1):
    at = datetime.now(UTC)
    return mpesa.new_request(TransactionId(transaction or uuid7()), Leg.STK_PUSH, attempt, phone, amount, at=at)


def a_stored_request(**given):
    request = a_request(**given)
    with unit_of_work():
        mpesa.record([request])
    return request


def stored(request):
    """The attempt as the database has it now."""
    with unit_of_work():
        return next(
            r for r in mpesa.requests_of([request.transaction_id])[request.transaction_id] if r.id == request.id
        )


def conclude(request, outcome):
    with unit_of_work():
        found = mpesa.requests_of([request.transaction_id], [(request, outcome)])[request.transaction_id]
        now = next(r for r in found if r.id == request.id)
    vars(request).update(vars(now))


def a_callback(
    request, code: int | str = 0, receipt: str = "UKV7RT61SV", amount: object = None, **fields: object
) -> bytes:
    callback: dict[str, object] = {
        "MerchantRequestID": request.merchant_request_id or "2654-4b64-97ff-b827b542881d3130",
        "CheckoutRequestID": request.checkout_request_id or "ws_CO_28062021092409117708374149",
        "ResultCode": code,
        "ResultDesc": "as it may be",
    }
    if code in {0, "0"}:
        shillings = request.amount.amount // 100 if amount is None else amount
        items = {"Amount": shillings, "MpesaReceiptNumber": receipt, "TransactionDate": 20210628092425}
        callback["CallbackMetadata"] = {"Item": [{"Name": name, "Value": value} for name, value in items.items()]}
    return json.dumps({"Body": {"stkCallback": callback | fields}}).encode()


def a_leg(leg: Leg, transaction: UUID | None = None, amount: Money = AMOUNT, attempt: int = 1, **given):
    """An attempt of any leg, not stored."""
    at = datetime.now(UTC)
    owner = TransactionId(transaction or uuid7())
    return mpesa.new_request(owner, leg, attempt, given.pop("phone", PHONE), amount, at=at, **given)


def a_stored_leg(leg: Leg, **given):
    request = a_leg(leg, **given)
    with unit_of_work():
        mpesa.record([request])
    return request


def an_accepted_leg(leg: Leg, conversation: str = "AG_20260706_20106e9209f64bebd05b", **given):
    request = a_stored_leg(leg, **given)
    conclude(request, Accepted({"ConversationID": conversation}))
    return request


def parameters(**given: object) -> dict[str, Any]:
    pairs = [{"Key": key, "Value": value} for key, value in given.items()]
    return {"ResultParameters": {"ResultParameter": pairs}}


def a_result(request, code: int | str = 0, **fields: object) -> bytes:
    """A `Result` for an attempt; on success with all that its product says, unless `ResultParameters` are given."""
    result: dict[str, object] = {
        "ResultType": 0,
        "ResultCode": code,
        "ResultDesc": "as it may be",
        "OriginatorConversationID": request.reference if request.leg in PAYS else "1236-7134259-1",
        "ConversationID": request.conversation_id or "AG_20260706_20106e9209f64bebd05b",
        "TransactionID": "SG632NMUAB",
        "ReferenceData": {"ReferenceItem": {"Key": "Occasion"}},
    }
    if code in {0, "0"}:
        result |= parameters(**said(request))
    return json.dumps({"Result": result | fields}).encode()


PAYS = {Leg.B2C_PAYOUT, Leg.B2C_REFUND}


def said(request) -> dict[str, Any]:
    """The parameters of a success."""
    shillings = request.amount.amount // 100
    match request.leg:
        case Leg.STATUS_QUERY:
            is_receipt = len(request.about) == 10
            return {
                "OriginatorConversationID": "5118-111210482-1" if is_receipt else request.about,
                "ReceiptNo": request.about if is_receipt else "SG632NMUAB",
                "TransactionStatus": "Completed",
                "Amount": str(shillings),
                "DebitPartyCharges": "Fee For B2C Payment|KES|5.00",
            }
        case Leg.REVERSAL:
            return {"Amount": shillings, "OriginalTransactionID": request.about, "Charge": "0.00"}
        case _:
            return {
                "TransactionAmount": shillings,
                "TransactionReceipt": "SG632NMUAB",
                "ReceiverPartyPublicName": f"{request.phone.number} - JOHN DOE",
            }
