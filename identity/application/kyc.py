"""Documents that customers submit, and decisions on their standing. The review stands between the two."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from identity.domain.kyc import Kyc, KycStatus
from identity.domain.kyc_snapshot import (
    CleanImage,
    IdentityDocumentTaken,
    KycDataRefused,
    KycFacts,
    Side,
    day_in_kenya,
    refuse_too_many_refusals,
)
from identity.domain.ports import ImageCleaner, InvalidImage, KycSnapshots, UserRepository
from identity.domain.user import User
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork

DAY = timedelta(days=1)
TAKEN, BAD_IMAGES = "user.kyc_refused", "user.kyc_images_refused"  # audit actions, which are counted as well


@dataclass(frozen=True, kw_only=True)
class SubmitKyc:
    """`images` as they were sent."""

    user_id: UserId
    facts: KycFacts
    images: Mapping[Side, bytes] = field(repr=False)


@dataclass(frozen=True)
class KycSubmissions:
    """What customers submit, and who looks at it."""

    users: UserRepository
    snapshots: KycSnapshots
    images: ImageCleaner
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource

    def submit(self, command: SubmitKyc) -> Kyc:
        """The customer's standing from now on. Images are read before the unit of work that stores them, and only for
        somebody who may submit.

        Raises `KycDataRefused`, `AccountFrozen`, `PhoneNotVerified`, `KycUnderReview`, `IdentityDocumentTaken`,
        `TooManyKycRefusals`, `ImagesBusy`, `UserNotFound`.
        """
        at = self.clock()
        facts = command.facts.checked(day_in_kenya(at))
        with self.unit_of_work():
            self._may_submit(command.user_id, at=at)
        try:
            images = self._cleaned(command.images)
        except KycDataRefused as refused:
            codes = ", ".join(f"{error['field']} {error['code']}" for error in refused.extra["errors"])
            with self.unit_of_work():
                self.audit.append([AuditRecord(BAD_IMAGES, "user", str(command.user_id), at, why=codes)])
            raise
        with self.unit_of_work():
            user = self._may_submit(command.user_id, at=at)
            owner = self.snapshots.claim(facts, user.id, at=at)
            if owner == user.id:
                version = self.snapshots.versions(user.id) + 1
                self.snapshots.add(user.submit_kyc(facts, id=self.ids(), version=version, at=at), images)
            else:
                user.note(TAKEN, at=at, why="the document is another account's", owner=str(owner))
            self.users.save(user)
        if owner != user.id:
            raise IdentityDocumentTaken(
                "this document can't be used for your account: look the number over; if it is yours, write to support"
            )
        return user.kyc

    def looked_at(self, snapshot: UUID, user: UUID, *, why: str) -> None:
        """Staff are about to see a submission in clear: told in the audit log first."""
        with self.unit_of_work():
            self.audit.append(
                [AuditRecord("kyc.seen", "user", str(user), self.clock(), why=why, details={"snapshot": str(snapshot)})]
            )

    def _may_submit(self, id: UserId, *, at: datetime) -> User:
        user = self.users.get(id)
        user.refuse_kyc()
        refuse_too_many_refusals(
            *(self.snapshots.refusals_since(id, at - DAY, action) for action in (TAKEN, BAD_IMAGES))
        )
        return user

    def _cleaned(self, images: Mapping[Side, bytes]) -> dict[Side, CleanImage]:
        cleaned, errors = {}, []
        for side, raw in images.items():
            try:
                cleaned[side] = self.images.clean(raw)
            except InvalidImage as refused:
                errors.append((str(side), refused.code, refused.detail))
        if errors:
            raise KycDataRefused(*errors)
        return cleaned


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
