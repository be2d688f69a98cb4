"""Domain events and the aggregate that raises them: what happened, in the past tense, told through the outbox.

An event carries ids and amounts, never personal data: it is stored in clear, kept for ever, and travels through the
broker.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, get_type_hints
from uuid import UUID

from shared_kernel.domain.identifiers import QuoteId, RequestId, TransactionId, UserId
from shared_kernel.domain.money import Currency, Money


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to one aggregate. Subclasses name its id in `aggregate` and add what followers need."""

    types: ClassVar[dict[str, type["Event"]]] = {}
    aggregate: ClassVar[str] = ""  # the field that holds the aggregate's id

    occurred_at: datetime

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Event.types[cls.__name__] = cls

    @property
    def aggregate_id(self) -> UUID:
        """The id of the aggregate: events of one aggregate are published in order."""
        id: UUID = getattr(self, self.aggregate)
        return id

    def to_payload(self) -> dict[str, Any]:
        """JSON-ready fields: ids as text, times as RFC 3339, money as minor units and currency."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @staticmethod
    def from_payload(type_name: str, payload: dict[str, Any]) -> "Event":
        """The event that `to_payload` described; fields that this version does not know are left out.

        Raises `KeyError` for an unknown type.
        """
        cls = Event.types[type_name]
        hints = get_type_hints(cls)
        return cls(**{f.name: _typed(payload[f.name], hints[f.name]) for f in fields(cls) if f.name in payload})


def _plain(value: Any) -> Any:
    match value:
        case Money():
            return {"amount": value.amount, "currency": str(value.currency)}
        case UUID() | datetime():
            return str(value) if isinstance(value, UUID) else value.isoformat()
        case _:
            return value


def _typed(value: Any, hint: Any) -> Any:
    base = getattr(hint, "__supertype__", hint)
    if base is UUID:
        return UUID(value)
    if base is datetime:
        return datetime.fromisoformat(value)
    if base is Money:
        return Money(value["amount"], Currency(value["currency"]))
    return value


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of status: it becomes the audit row, and the customer's timeline."""

    before: str
    after: str
    at: datetime
    why: str = ""


@dataclass(eq=False, kw_only=True)
class Aggregate:
    """Collects what its verbs recorded; the repository takes it in the commit of the state."""

    events: list[Event] = field(default_factory=list, init=False, repr=False)
    transitions: list[Transition] = field(default_factory=list, init=False, repr=False)

    def record(self, event: Event) -> None:
        """Adds an event; called where the change is made."""
        self.events.append(event)

    def pull_events(self) -> list[Event]:
        """Hands over the events recorded since the last call."""
        events, self.events = self.events, []
        return events

    def pull_transitions(self) -> list[Transition]:
        """Hands over the changes of status since the last call."""
        transitions, self.transitions = self.transitions, []
        return transitions


@dataclass(frozen=True, kw_only=True)
class UserRegistered(Event):
    """A person signed up."""

    aggregate = "user_id"
    user_id: UserId


@dataclass(frozen=True, kw_only=True)
class PasswordResetAsked(Event):
    """Somebody asked for a code to set a customer's password anew: `device:<id>` of theirs, or a stranger."""

    aggregate = "user_id"
    user_id: UserId
    asker: str = ""  # a stranger, or an event of before it was told


@dataclass(frozen=True, kw_only=True)
class DerivTokenWasRefused(Event):
    """Deriv refused a call that went with a customer's own token, which it had by `sent_at`."""

    aggregate = "user_id"
    user_id: UserId
    sent_at: datetime


@dataclass(frozen=True, kw_only=True)
class NoticeDue(Event):
    """A customer is to be told of a change of their account."""

    aggregate = "user_id"
    user_id: UserId
    notice_id: UUID


@dataclass(frozen=True, kw_only=True)
class TransactionCreated(Event):
    """A customer's command was accepted; nothing was asked of a provider yet."""

    aggregate = "transaction_id"
    transaction_id: TransactionId
    user_id: UserId
    type: str
    amount: Money
    quote_id: QuoteId


@dataclass(frozen=True, kw_only=True)
class MpesaCallbackReceived(Event):
    """M-Pesa's callback for an attempt was stored: a claim, to be asked about. `leg` is the attempt's, if told."""

    aggregate = "transaction_id"
    transaction_id: TransactionId
    request_id: RequestId
    leg: str = ""  # "" in events of before it was told


@dataclass(frozen=True, kw_only=True)
class SuspenseExplained(Event):
    """A treasury movement took what lay in suspense under `provider_key`, or was reversed: the ledger says which."""

    aggregate = "movement_id"
    movement_id: UUID
    provider_key: str


@dataclass(frozen=True, kw_only=True)
class TransactionCompleted(Event):
    """Both legs are proven and posted."""

    aggregate = "transaction_id"
    transaction_id: TransactionId
    user_id: UserId
    type: str
    amount: Money
    payout: Money


@dataclass(frozen=True, kw_only=True)
class TransactionEnded(Event):
    """It ended otherwise: rejected, expired, failed or refunded; `status` and `reason` say how."""

    aggregate = "transaction_id"
    transaction_id: TransactionId
    user_id: UserId
    type: str
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AttentionNeeded(Event):
    """The saga's own steps ran out, or a proof contradicts another: a person is shown it."""

    aggregate = "transaction_id"
    transaction_id: TransactionId
    user_id: UserId
    reason: str
