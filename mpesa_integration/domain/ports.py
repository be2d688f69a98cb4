"""What this context asks of the world: its two stores, and Daraja."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from mpesa_integration.domain.callback import Attempt, MpesaCallback
from shared_kernel.domain.errors import Conflict
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.outcome import Outcome, Unreadable
from shared_kernel.domain.requests import MpesaPayment, MpesaRequest


class CallbackRepeated(Conflict):
    """The very same body was stored for this attempt meanwhile."""


class MpesaRequests(Protocol):
    """The attempts' rows. Everything joins the caller's unit of work."""

    def of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[MpesaRequest]]:
        """All attempts of each Transaction, oldest first, with their claims; one SELECT."""

    def add(self, requests: Sequence[MpesaRequest]) -> None:
        """One INSERT. Raises `PromptOpen`."""

    def send_again(self, requests: Sequence[MpesaRequest]) -> None:
        """Fence, status, `send_before`: one statement."""

    def conclude(self, requests: Sequence[MpesaRequest], answers: Sequence[str]) -> None:
        """Status, code, the provider's ids and raw answers: one statement."""

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        """Status, code, receipt, asked_at, absences: one statement."""

    def busy(self, numbers: Iterable[str]) -> set[str]:
        """Which of these phone numbers have an open prompt."""


class MpesaCallbacks(Protocol):
    """The callbacks' rows, in the caller's unit of work."""

    def attempt_of(self, callback_hash: str, sha256: str, receipt: str) -> Attempt | None:
        """The attempt whose token has this hash; one SELECT, nothing locked."""

    def add(self, callback: MpesaCallback) -> None:
        """One INSERT. Raises `CallbackRepeated`: the unit of work is lost then."""

    def repeated(self, attempt: Attempt, sha256: str, at: datetime) -> None:
        """Counts the same body once more."""


class Daraja(Protocol):
    """The provider. Every call raises `RuntimeError` inside a unit of work."""

    def push(self, request: MpesaRequest, callback_path: str, *, give_up_at: float) -> Outcome:
        """`callback_path` is added to our public base URL."""

    def query(self, request: MpesaRequest) -> Outcome:
        """By `checkout_request_id`, which must be known."""

    def payments(self, request: MpesaRequest, *, at: datetime) -> Sequence[MpesaPayment] | Unreadable:
        """Pull, by reference."""
