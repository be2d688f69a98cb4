"""Erasing a customer's data: what the law keeps is restricted and dated, all else goes at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from identity.domain.kyc import KycStatus
from identity.domain.ports import CustomerTies, PersonalRecords, SessionRepository, UserRepository
from identity.domain.user import SubjectStillActive, User, UserNotFound
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, UnitOfWork


@dataclass(frozen=True, kw_only=True)
class EraseSubject:
    """A customer wants to be forgotten; `why` is for the audit log and holds no personal data."""

    user_id: UserId
    why: str
    dry_run: bool = False


@dataclass(frozen=True, kw_only=True)
class Erased:
    """What became of it. `kept_until` None: nothing that tells of the person is kept. `already`: it was done before."""

    user_id: UserId
    restricted_at: datetime
    kept_until: datetime | None
    already: bool = False


@dataclass(frozen=True)
class Erasure:
    """The use cases of forgetting. Accounts of the ledger, its entries and the audit log are never touched."""

    users: UserRepository
    records: PersonalRecords
    sessions: SessionRepository
    ties: CustomerTies
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    kept: timedelta  # from the end of the relationship

    def erase(self, command: EraseSubject) -> Erased:
        """Safe to repeat. Raises `UserNotFound`, also for staff, `SubjectStillActive`, `AccountFrozen`."""
        with self.unit_of_work():
            user, at = self.users.get(command.user_id), self.clock()
            if not self.records.is_customer(user.id):
                raise UserNotFound("no such customer")
            if user.restricted_at is not None:
                return _told(user, user.restricted_at, already=True)
            ties = self.ties.of(user.id)
            if ties.open:
                raise SubjectStillActive(f"settle this first, then erase: {'; '.join(ties.open)}")
            by_law = ties.has_moved_money or user.kyc.status is not KycStatus.NONE
            devices = [device.id for device in user.devices]
            user.restrict(until=at + self.kept if by_law else None, at=at, why=command.why)
            if not command.dry_run:
                self.sessions.end_those_of(devices, at=at, by="erased")
                self.users.save(user)
                self.records.forget_contact(user.id)
                if not by_law:
                    self.records.forget_identity(user.id)
        return _told(user, at)

    def overdue(self) -> int:
        """How many customers the law keeps no longer, and can be forgotten."""
        return self.records.count_overdue(self.clock())

    def waiting(self) -> int:
        """How many it keeps no longer, who are not forgotten: nothing can delete their identity documents yet."""
        return self.records.count_waiting(self.clock())

    def finish(self, most: int) -> int:
        """Forgets the rest of up to `most` of the `overdue` customers; how many."""
        forgotten = 0
        for id in self.records.overdue(self.clock(), most):
            with self.unit_of_work():
                user, at = self.users.get(id), self.clock()
                if user.erase_after is None or user.erase_after > at:
                    continue
                user.erase_after = None
                self.users.save(user)
                self.records.forget_identity(id)
                self.audit.append([AuditRecord("user.forgotten", "user", str(id), at, why="retention ended")])
            forgotten += 1
        return forgotten


def _told(user: User, restricted_at: datetime, *, already: bool = False) -> Erased:
    return Erased(user_id=user.id, restricted_at=restricted_at, kept_until=user.erase_after, already=already)
