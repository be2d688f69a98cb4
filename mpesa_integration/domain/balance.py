"""The question about a shortcode's balances: of no Transaction, answered by callback."""

from dataclasses import dataclass
from datetime import datetime

from shared_kernel.domain.identifiers import RequestId


@dataclass(frozen=True, slots=True)
class BalanceQuestion:
    """One Account Balance query; `reference` is our own name for it, past `send_before` nothing is written."""

    id: RequestId
    reference: str
    shortcode: str
    send_before: datetime
    created_at: datetime
