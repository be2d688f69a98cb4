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

REVERTED = "reverted"  # the code of what took effect, and was taken back by the provider later
SEND_WINDOW = timedelta(seconds=10)  # from the intent's commit to the writing: a worker that slept longer gives up


class Leg(StrEnum):
    """Which movement of a Transaction a request is for."""

    STK_PUSH = "stk_push"  # customer's M-Pesa to our shortcode
    DERIV_CREDIT = "deriv_credit"  # our agent account to the customer's Deriv login
    DERIV_DEBIT = "deriv_debit"  # the customer's Deriv login to our agent account, with the customer's one-time code
    B2C_PAYOUT = "b2c_payout"  # our shortcode to the customer's M-Pesa
    REVERSAL = "reversal"  # a give-back: M-Pesa takes a deposit's payment back to the payer
    B2C_REFUND = "b2c_refund"  # a give-back of a deposit where a reversal is refused for good
    DERIV_CREDIT_BACK = "deriv_credit_back"  # a give-back: our agent account to the login that was debited
    STATUS_QUERY = "status_query"  # asks M-Pesa what became of another request; answered by callback, moves nothing
    ACCOUNT_BALANCE = "account_balance"  # asks M-Pesa for a shortcode's balances; of no Transaction

    @property
    def is_give_back(self) -> bool:
        """Whether it returns what the customer gave."""
        return self in {Leg.REVERSAL, Leg.B2C_REFUND, Leg.DERIV_CREDIT_BACK}

    @property
    def is_outgoing(self) -> bool:
        """Whether money leaves us by it: payouts and give-backs."""
        return self.is_give_back or self in {Leg.DERIV_CREDIT, Leg.B2C_PAYOUT}


class RequestStatus(StrEnum):
    """Where one attempt stands."""

    SENDING = "sending"  # the intent is committed; until its outcome is, the outcome is unknown
    NOT_SENT = "not_sent"  # surely without effect: the same attempt may go again
    ACCEPTED = "accepted"  # the provider tells its end later
    UNKNOWN = "unknown"  # may have taken effect: only asking helps
    REPEATABLE = "repeatable"  # may have taken effect, but the provider's own guard makes the very same one harmless
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
        return self in {
            RequestStatus.SENDING,
            RequestStatus.ACCEPTED,
            RequestStatus.UNKNOWN,
            RequestStatus.REPEATABLE,
        }


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
    was_unknown: bool = False  # some sending of it had no known outcome: a refusal of a later one proves nothing


class Blame(StrEnum):
    """Whose matter a failure of a payout is, by the provider's code; empty for a success or an unknown code."""

    RECIPIENT = "recipient"  # the recipient or the amount: the money goes back
    FLOAT = "float"  # our account is too low: wait, and fill it
    CREDENTIAL = "credential"  # our initiator: every call with it stops until a person resumes them
    OURS = "ours"  # a defect of ours: a person looks
    NONE = ""


@dataclass(frozen=True, slots=True)
class MpesaClaim:
    """What an unsigned callback says about an attempt: a claim, never a proof. `amount` and `receipt` on success only.

    On a `STATUS_QUERY` it is the answer to a question of our own, which came to a fresh URL that the query alone knows:
    where it `agrees` it is the proof for the request that was asked about, whose amount it tells. `result_code` then
    says whether the question was answered at all, `fate` what became of the payment, by M-Pesa's words.
    """

    result_code: str
    received_at: datetime
    amount: Money | None = None
    receipt: str = field(default="", repr=False)
    agrees: bool = True  # its ids, and but for an answer its amount, are those of the attempt, as far as both are known
    blame: Blame = Blame.NONE
    fate: str = ""  # `Completed`, `Declined`, `Cancelled`, `Expired`; `Initiated`, `Authorized`, ...: not final
    fee: Money | None = None  # what M-Pesa charged us for it, as far as it is said

    @property
    def is_dead(self) -> bool:
        """By a status query: the payment that was asked about was not made and never will be."""
        return self.agrees and self.result_code == "0" and self.fate in {"Declined", "Cancelled", "Expired"}

    @property
    def is_done(self) -> bool:
        """By a status query: the payment that was asked about was made."""
        return self.agrees and self.result_code == "0" and self.fate == "Completed"


@dataclass(kw_only=True, eq=False)
class MpesaRequest(ProviderRequest):
    """A request on `shortcode`, with or for `phone`; `reference` is unique for ever.

    `reference` is what M-Pesa carries: the AccountReference of an STK push (12 characters), the
    OriginatorConversationID of a B2C payment (32); of the others it is our own name for them. `about` is what a
    reversal (the receipt) or a status query (the receipt, or the OriginatorConversationID) is about. M-Pesa's own ids
    are known once it accepted. `claims` are what its callbacks said, oldest first.
    """

    phone: Phone
    shortcode: str
    about: str = ""
    merchant_request_id: str = ""
    checkout_request_id: str = field(default="", repr=False)
    conversation_id: str = ""
    receipt: str = ""  # proven by Pull or Transaction Status; for B2C also as claimed by its success
    claims: list[MpesaClaim] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class DerivTransfer(ProviderRequest):
    """A transfer between the agent credential named `agent` and `login`; `reference` stands in the provider's book.

    `provider_transaction_id` is the id of the entry in the *agent's* book. A debit carries the customer's one-time
    code, kept encrypted and wiped with the outcome or when it expires, and while it is being sent the customer's token,
    which is stored nowhere here.
    """

    login: DerivLogin
    agent: str
    provider_transaction_id: str = ""
    verification_code: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class CodeSent:
    """Deriv sent the customer a one-time code: good until `expires_at`; another one not before `next_request_at`."""

    expires_at: datetime
    next_request_at: datetime


@dataclass(frozen=True, slots=True)
class AgentEntry:
    """One entry of an agent credential's own book at Deriv: what moved, whether or not we asked for it.

    `amount` is signed: above zero it came in. `reference` is ours as far as the entry names it, else empty; a customer
    may have written somebody else's. `status` is Deriv's word (`complete`, `pending`, `reverted`, ...); v3's statement
    holds what is complete only. `counterpart` is a login id on `ws_v3`, Deriv's client id on `rest`, or empty.
    `reverses` is the entry that this one takes back, where the book says so.
    """

    id: str
    at: datetime
    amount: Money
    status: str
    reference: str = ""
    counterpart: str = field(default="", repr=False)
    reverses: str = ""


@dataclass(frozen=True, slots=True)
class MpesaPayment:
    """A payment that our own M-Pesa book (Pull) shows: `reference` as the payer's side gave it, `receipt` unique."""

    receipt: str
    reference: str
    amount: Money
    paid_at: datetime
