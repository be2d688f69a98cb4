"""What people decide about a Transaction that its own steps can't settle: one proposes, another one approves."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from payments.domain.transaction import TransactionType
from shared_kernel.domain.errors import Conflict, Forbidden, NotFound, Unprocessable
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.requests import DerivLogin, ProviderRequest


class ProposalNotFound(NotFound):
    """No such proposal."""


class AlreadyApproved(Conflict):
    """It was approved, and carried out, before."""


class AlreadyRejected(Conflict):
    """It was turned down, or taken back, before."""


class SamePerson(Forbidden):
    """Who proposes can't approve."""


class ReasonMissing(Unprocessable):
    """A decision about money says why."""


class EvidenceMissing(Unprocessable):
    """That it took effect is shown by the provider's own reference."""


class EvidenceUnreadable(Unprocessable):
    """Not what that provider's references, or amounts, look like."""


class EvidenceTaken(Conflict):
    """That movement is in the ledger already, as another one."""


class ChangedMeanwhile(Conflict):
    """What it is about is not any more as whoever decides, or proposed it, was shown."""


class NotBeforeAPerson(Conflict):
    """People decide only about a Transaction in NEEDS_ATTENTION, and about a hold: others go on by themselves."""


class VerdictNotNeeded(Conflict):
    """What became of this attempt is proven already, or it is none of this Transaction's."""


class VerdictTooEarly(Conflict):
    """It may still take effect: ask the provider once more, later."""


class DestinationNotVerified(Unprocessable):
    """Money goes only to a verified destination of the same customer, and this is no other one than before."""


class Decision(StrEnum):
    """All that people can order; none of it sends anything whose outcome is open a second time."""

    TOOK_EFFECT = "took_effect"  # a verdict on one attempt, with the provider's reference
    HAD_NO_EFFECT = "had_no_effect"  # a verdict on one attempt
    GIVE_BACK = "give_back"  # instead of paying out; only over proven dead attempts
    REFUND_BY_B2C = "refund_by_b2c"  # a deposit whose reversal is dead
    OTHER_PHONE = "other_phone"  # the customer's verified phone of today
    OTHER_LOGIN = "other_login"  # the customer's bound Deriv login of today
    RELEASE_HOLD = "release_hold"  # whatever its status: what was due while it was held is due again


VERDICTS = frozenset({Decision.TOOK_EFFECT, Decision.HAD_NO_EFFECT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A decision that may be proposed now: of which attempt, or to which destination."""

    decision: Decision
    request: ProviderRequest | None = None
    to: Phone | DerivLogin | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """`by` and `approved_by` are two different people; whoever rejects it may have proposed it. `request_id`,
    `reference` and `amount` (of another amount than was asked for) belong to a verdict; `phone` or `login` is the
    destination as it was verified when it was proposed.
    """

    id: UUID
    transaction_id: TransactionId
    type: TransactionType
    decision: Decision
    by: str
    why: str
    at: datetime
    request_id: RequestId | None = None
    reference: str = field(default="", repr=False)
    amount: Money | None = None
    phone: Phone | None = None
    login: DerivLogin | None = None
    approved_by: str = ""
    approved_at: datetime | None = None
    rejected_by: str = ""
    rejected_at: datetime | None = None


class Proposals(Protocol):
    """The stored proposals; everything joins the caller's unit of work."""

    def add(self, proposal: Proposal) -> None: ...

    def get(self, id: UUID) -> Proposal:
        """Locked. Raises `ProposalNotFound`."""

    def decide(self, proposal: Proposal) -> None:
        """Stores who approved or rejected it, and when."""
