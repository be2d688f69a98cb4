"""A customer as other contexts see one."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from shared_kernel.domain.identifiers import Phone, UserId
from shared_kernel.domain.requests import DerivLogin


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer:
    """Read under the lock of the users row."""

    id: UserId
    phone: Phone | None  # the verified one
    kyc_status: str
    tier: str
    is_frozen: bool
    deriv_login: DerivLogin | None
    deriv_name_matches: bool
    deriv_login_state: str  # of `DerivLoginState`; `active` without a login
    deriv_checked_at: datetime | None
    reveal_name: Callable[[], str] = field(repr=False)

    @property
    def full_name(self) -> str:
        """Decrypted when it is asked for."""
        return self.reveal_name()
