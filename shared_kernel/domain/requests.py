"""The requests by which money moves at a provider: payments and the integrations both speak them.

One row is one attempt of one leg; everything in it is fixed when the intent is committed, and only the outcome is
added. Tokens and credentials never appear here: an attempt names its credential (`agent`, `shortcode`), the
integration looks it up.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Money

SEND_WINDOW = timedelta(seconds=10)  # from the intent's commit to the writing: a worker that slept longer gives up


class Leg(StrEnum):
    """Which movement of a Transaction a request is for."""

    STK_PUSH = "stk_push"  # customer's M-Pesa to our shortcode
    DERIV_CREDIT = "deriv_credit"  # our agent account to the customer's Deriv login


class RequestStatus(StrEnum):
    """Where one attempt stands."""

    SENDING = "sending"  # the intent is committed; until its outcome is, the outcome is unknown
    NOT_SENT = "not_sent"  # surely without effect: the same attempt may go again
    ACCEPTED = "accepted"  # the provider tells its end later
    UNKNOWN = "unknown"  # may have taken effect: only asking helps
    DONE = "done"  # took effect, proven
    REFUSED = "refused"  # did not take effect, by the provider's own word
    CLOSED = "closed"  # proven without effect by looking into the provider's book

    @property
    def is_dead(self) -> bool:
        """Proven without effect: another attempt, or a give-back, is safe as far as this one goes."""
        return self in {RequestStatus.REFUSED, RequestStatus.CLOSED}

    @property
    def may_take_effect(self) -> bool:
        """Money may still move, or have moved, because of this attempt."""
        return self in {RequestStatus.SENDING, RequestStatus.ACCEPTED, RequestStatus.UNKNOWN}


class DerivPlatform(StrEnum):
    """Which of Deriv's two incompatible APIs a login lives on."""

    WS_V3 = "ws_v3"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class DerivLogin:
    """A customer at Deriv: `account` is the login id on `ws_v3` and the nickname on `rest`; nobody above the
    adapter looks inside.
    """

    platform: DerivPlatform
    account: str = field(repr=False)
    currency: str = "USD"


@dataclass(kw_only=True, eq=False)
class ProviderRequest:
    """One attempt of one leg.

    `fence` counts its sendings: only the newest sender may conclude that nothing was sent.
    """

    id: RequestId
    transaction_id: TransactionId
    leg: Leg
    attempt: int
    reference: str  # what the provider carries for us, and what we search its books for
    amount: Money
    send_before: datetime  # past it a sender gives up without writing
    created_at: datetime
    status: RequestStatus = RequestStatus.SENDING
    fence: int = 1
    code: str = ""  # the provider's last code, in full
    outcome_at: datetime | None = None
    asked_at: datetime | None = None  # the last time that the provider was asked what became of it
    absences: int = 0  # how often in a row its book did not show it


@dataclass(frozen=True, slots=True)
class MpesaClaim:
    """What an unsigned callback says about an attempt:
    a claim, never a proof. `amount` and `receipt` only on success.
    """

    result_code: str
    received_at: datetime
    amount: Money | None = None
    receipt: str = field(default="", repr=False)
    agrees: bool = True  # its ids and amount are those of the attempt, as far as both are known


@dataclass(kw_only=True, eq=False)
class MpesaRequest(ProviderRequest):
    """An STK push to `phone` on `shortcode`; `reference` is the AccountReference (12 characters, unique for ever).

    `checkout_request_id` is known once the provider accepted. `claims` are what its callbacks said, oldest first.
    """

    phone: Phone
    shortcode: str
    merchant_request_id: str = ""
    checkout_request_id: str = field(default="", repr=False)
    receipt: str = ""  # proven by Pull or Transaction Status only
    claims: list[MpesaClaim] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class DerivTransfer(ProviderRequest):
    """A transfer by the agent credential named `agent` to `login`; `reference` stands in the provider's statement."""

    login: DerivLogin
    agent: str
    provider_transaction_id: str = ""


@dataclass(frozen=True, slots=True)
class MpesaPayment:
    """A payment that our own M-Pesa book (Pull) shows: `reference` as the payer's side gave it, `receipt` unique."""

    receipt: str
    reference: str
    amount: Money
    paid_at: datetime
