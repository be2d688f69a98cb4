"""What others read of Deriv: every attempt of one Transaction, as it is stored. A one-time code is never read."""

from typing import Any
from uuid import UUID

from deriv_integration import models
from shared_kernel.infrastructure.encryption import legible

_TRANSFER = (
    "id", "leg", "attempt", "reference", "platform", "agent", "amount", "currency", "status", "code", "fence",
    "was_unknown", "absences", "created_at", "send_before", "outcome_at", "asked_at", "provider_transaction_id",
)  # fmt: skip


def transfers_of(transaction_id: UUID) -> list[dict[str, Any]]:
    """The attempts of a Transaction, oldest first; amounts in minor units. Account and answer are in clear."""
    rows = models.DerivTransfer.objects.filter(transaction_id=transaction_id).defer("verification_code")
    return [
        {**{name: getattr(row, name) for name in _TRANSFER}, **{n: legible(row, n) for n in ("account", "answer")}}
        for row in rows.order_by("created_at", "id")
    ]
