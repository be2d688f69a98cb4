"""Evidence with personal data in clear: one person asks for it, another one approves, and it is given once."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from shared_kernel.domain.errors import Forbidden
from shared_kernel.domain.four_eyes import Consent

LASTS = timedelta(hours=24)  # from when it was asked for until the file is made


class RevealNotAsked(Forbidden):
    """Nobody was asked to approve that this person sees it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reveal(Consent):
    """That whoever asked gets one file with personal data in clear, about this Transaction."""

    transaction_id: UUID
