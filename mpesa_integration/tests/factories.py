"""Valid attempts and callbacks, with what matters to a test."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest
from django.conf import settings
from uuid_utils.compat import uuid7

from mpesa_integration.facade import mpesa
from shared_kernel.domain.identifiers import Phone, TransactionId
from shared_kernel.domain.money import Currency, Money
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
        [now] = mpesa.requests_of([request.transaction_id], [(request, outcome)])[request.transaction_id]
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
