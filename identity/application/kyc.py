"""Decisions on a customer's standing. The review of documents comes before them; this is where they take effect."""

from dataclasses import dataclass
from datetime import datetime

from identity.domain.kyc import KycStatus
from identity.domain.ports import UserRepository
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import Clock, UnitOfWork


@dataclass(frozen=True, kw_only=True)
class DecideKyc:
    """`tier` None leaves the tier as it is; `expires_at` is when the decision runs out."""

    user_id: UserId
    status: KycStatus
    tier: str | None = None
    expires_at: datetime | None = None
    why: str = ""
    dry_run: bool = False


@dataclass(frozen=True)
class KycDecisions:
    """The use cases of a customer's standing."""

    users: UserRepository
    unit_of_work: UnitOfWork
    clock: Clock

    def decide(self, command: DecideKyc) -> tuple[str, str]:
        """Standing before and after, as `status tier`. Raises `UserNotFound`, `IllegalKycStep`, `InvalidTier`."""
        with self.unit_of_work():
            user = self.users.get(command.user_id)
            before = f"{user.kyc.status} {user.kyc.tier}"
            user.decide_kyc(
                command.status, tier=command.tier, expires_at=command.expires_at, at=self.clock(), why=command.why
            )
            if not command.dry_run:
                self.users.save(user)
        return before, f"{user.kyc.status} {user.kyc.tier}"
