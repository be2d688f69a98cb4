"""Taking a lost authenticator away: one of support asks with a reason, another person approves; then it is done."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from shared_kernel.domain.four_eyes import Consent

LASTS = timedelta(hours=24)  # from when it was asked for until it is approved


@dataclass(frozen=True, slots=True, kw_only=True)
class TotpRemoval(Consent):
    """That this customer's authenticator is taken away."""

    user_id: UUID
