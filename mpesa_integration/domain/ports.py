"""What this context asks of the world: its stores, and Daraja."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from mpesa_integration.domain.balance import BalanceQuestion
from mpesa_integration.domain.callback import Attempt, Balance, CallbackKind, MpesaCallback
from shared_kernel.domain.errors import Conflict
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Outcome, Unreadable
from shared_kernel.domain.requests import MpesaPayment, MpesaRequest, RequestStatus


class CallbackRepeated(Conflict):
    """The very same body was stored for this attempt meanwhile."""


class MpesaRequests(Protocol):
    """The attempts' rows. Everything joins the caller's unit of work."""

    def of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[MpesaRequest]]:
        """All attempts of each Transaction, oldest first, with their claims; one SELECT."""

    def behind(self, ids: Sequence[RequestId], receipts: Sequence[str]) -> list[MpesaRequest]:
        """Those with these ids or these receipts, and the reversals of their Transactions; without claims."""

    def may_explain(
        self,
        shortcode: str,
        receipt: str,
        reference: str,
        amount: Money,
        moved_at: datetime,
        *,
        other_amounts: bool = True,
    ) -> list[MpesaRequest]:
        """Those that a movement may be the effect of, as `Mpesa.may_explain` says; without claims; one SELECT."""

    def overdue(self, before: datetime, most: int) -> list[MpesaRequest]:
        """The oldest ones made before then that move money and whose outcome is open; without claims; one SELECT."""

    def in_flight(self, shortcode: str, made_since: datetime | None) -> tuple[int, int]:
        """Cents coming and going by attempts whose outcome is open, or by all made since then; one SELECT."""

    def charged_later(self, shortcode: str, confirmed: str, since: datetime) -> int:
        """How many payouts sent since then are open, or done without the code `confirmed`; one SELECT."""

    def prompts_by(self, references: Sequence[str]) -> dict[str, MpesaRequest]:
        """STK pushes by AccountReference, without claims; one SELECT."""

    def attach_receipts(self, receipts: Mapping[RequestId, str]) -> None:
        """To attempts that have none; one UPDATE."""

    def add(self, requests: Sequence[MpesaRequest]) -> None:
        """One INSERT. Raises `PromptOpen`, `OutflowOpen`."""

    def send_again(self, requests: Sequence[MpesaRequest]) -> None:
        """Fence, status, `send_before`, `asked_at`; unless it surely was not sent before, it `was_unknown` from now."""

    def conclude(self, requests: Sequence[MpesaRequest], answers: Sequence[str]) -> None:
        """Status, code, the provider's ids and raw answers: one statement."""

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        """Status, code, receipt, asked_at, absences, was_unknown: one statement."""

    def ask(self, question: BalanceQuestion) -> None:
        """The intent of a balance query: one INSERT."""

    def answered(
        self,
        question: BalanceQuestion,
        status: RequestStatus,
        code: str,
        conversation_id: str,
        answer: str,
        at: datetime,
    ) -> None:
        """Its outcome: one UPDATE."""

    def busy(self, numbers: Iterable[str]) -> set[str]:
        """Which of these phone numbers have an open prompt."""


class MpesaCallbacks(Protocol):
    """The callbacks' rows, in the caller's unit of work."""

    def attempt_of(self, kind: CallbackKind, token_hash: str, sha256: str, receipt: str) -> Attempt | None:
        """The attempt whose token for `kind` has this hash; one SELECT, nothing locked."""

    def attempt_paid(self, reference: str, shortcode: str, sha256: str, receipt: str) -> Attempt | None:
        """The STK push on `shortcode` with this AccountReference; one SELECT, nothing locked."""

    def add(self, callback: MpesaCallback) -> None:
        """One INSERT. Raises `CallbackRepeated`: the unit of work is lost then."""

    def repeated(self, attempt: Attempt, kind: CallbackKind, sha256: str, at: datetime) -> None:
        """Counts the same body once more."""

    def add_balances(self, attempt: Attempt, balances: Sequence[tuple[UUID, Balance]], at: datetime) -> None:
        """What a balance query was answered: one INSERT."""

    def told(self, questions: Sequence[UUID]) -> Mapping[UUID, tuple[Mapping[str, Money], datetime]]:
        """What was answered to each question, by account, and when; one SELECT."""

    def balances(self, shortcode: str) -> Mapping[str, tuple[Money, datetime]]:
        """By account, what the newest answer said, and when it came."""


class Initiators(Protocol):
    """The API operator that the settings name: stopped or in use. All but `was_stopped` joins the unit of work."""

    def is_stopped(self) -> bool:
        """Asks the rows."""

    def was_stopped(self) -> bool:
        """What `is_stopped` last said in this process: for a sender, who must not touch the database."""

    def stop(self, why: str, *, at: datetime) -> None:
        """Until a person resumes it; with an audit row. Stopping twice has no effect."""

    def resume(self, why: str, *, at: datetime) -> bool:
        """With an audit row; False when it was not stopped."""


class Daraja(Protocol):
    """The provider. Every call raises `RuntimeError` inside a unit of work.

    `result` and `timeout` are the paths of our callback URLs, which are added to our public base URL; past `give_up_at`
    (monotonic clock) nothing is written.
    """

    def push(self, request: MpesaRequest, callback_path: str, *, give_up_at: float) -> Outcome:
        """STK push."""

    def pay(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        """B2C, under `request.reference`."""

    def reverse(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        """Reversal of the payment with the receipt `request.about`."""

    def ask_status(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        """Transaction Status of `request.about`."""

    def ask_balance(self, shortcode: str, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        """Account Balance."""

    def register(self, shortcode: str, confirmation: str, validation: str) -> Outcome:
        """C2B v2: where the shortcode's payments are told."""

    def query(self, request: MpesaRequest) -> Outcome:
        """By `checkout_request_id`, which must be known."""

    def payments(self, request: MpesaRequest, *, at: datetime) -> Sequence[MpesaPayment] | Unreadable:
        """Pull, by reference."""

    def received(
        self, shortcode: str, since: datetime, until: datetime, *, at: datetime
    ) -> Sequence[MpesaPayment] | Unreadable:
        """Pull, all of a window."""
