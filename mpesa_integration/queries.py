"""What others read of M-Pesa: every attempt and every message of one Transaction, as they are stored, in clear."""

from typing import Any
from uuid import UUID

from mpesa_integration import models
from shared_kernel.infrastructure.encryption import legible

_REQUEST = (
    "id", "leg", "attempt", "reference", "about", "amount", "currency", "shortcode", "status", "code", "fence",
    "was_unknown", "absences", "created_at", "send_before", "outcome_at", "asked_at", "merchant_request_id",
    "conversation_id", "receipt",
)  # fmt: skip
_CALLBACK = (
    "id", "request_id", "kind", "received_at", "last_received_at", "times", "peer", "sha256", "verdict", "result_code",
    "amount", "fee", "receipt", "fate", "blame",
)  # fmt: skip


def requests_of(transaction_id: UUID) -> list[dict[str, Any]]:
    """The attempts of a Transaction, oldest first; amounts in minor units. Phone, ids and answers are in clear."""
    rows = models.MpesaRequest.objects.filter(transaction_id=transaction_id).order_by("created_at", "id")
    sealed = ("phone", "checkout_request_id", "answer")
    return [{**{name: getattr(row, name) for name in _REQUEST}, **{n: legible(row, n) for n in sealed}} for row in rows]


def callbacks_of(transaction_id: UUID) -> list[dict[str, Any]]:
    """All that came to the callback URLs of a Transaction's attempts, oldest first; header and body are in clear."""
    rows = models.MpesaCallback.objects.filter(request__transaction_id=transaction_id).order_by("received_at", "id")
    sealed = ("headers", "body")
    return [
        {**{name: getattr(row, name) for name in _CALLBACK}, **{n: legible(row, n) for n in sealed}} for row in rows
    ]
