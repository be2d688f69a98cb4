"""A customer's particulars in clear: one of staff asks for them, another one approves, and they are shown once."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from shared_kernel.domain.errors import Forbidden
from shared_kernel.domain.four_eyes import Consent

LASTS = timedelta(hours=24)  # from when it was asked for until they are shown


class ParticularsNotAsked(Forbidden):
    """Nobody was asked to approve that this person sees them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticularsReveal(Consent):
    """That whoever asked is shown this customer's phone, address, names and Deriv account in clear."""

    user_id: UUID
