"""Erasing a customer's data: what the law keeps is restricted and dated, all else goes at once."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from identity.domain.kyc import KycStatus
from identity.domain.ports import CustomerTies, PersonalRecords, SessionRepository, UserRepository
from identity.domain.user import SubjectStillActive, User, UserNotFound
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, UnitOfWork

ENDED = "retention ended"
ASKED_AGAIN = timedelta(days=1)  # whether somebody who was kept longer is still tied


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
            ended = user.closed_at or at
            by_law = ties.has_moved_money or user.kyc.status is not KycStatus.NONE
            devices = [device.id for device in user.devices]
            until = max(ended, ties.last_moved_at or ended) + self.kept
            user.restrict(until=until if by_law else None, at=at, why=command.why)
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
        """Forgets the rest of up to `most` of the `overdue` customers; how many. Who is still tied, or under review, or
        whose money moved later, is dated anew.
        """
        forgotten = 0
        for id in self.records.overdue(self.clock(), most):
            with self.unit_of_work():
                user, at = self.users.get(id), self.clock()
                if user.erase_after is None or user.erase_after > at:
                    continue
                forgotten += self._forget(user, user.erase_after, at=at)
        return forgotten

    def _forget(self, user: User, due: datetime, *, at: datetime) -> bool:
        """Whether it was done."""
        ties = self.ties.of(user.id)
        if ties.last_moved_at is not None:
            due = max(due, ties.last_moved_at + self.kept)
        if ties.open or user.frozen_at is not None:
            due = max(due, at + ASKED_AGAIN)
        if due > at:
            user.erase_after = due
            user.note("user.kept_longer", at=at, kept_until=due.date().isoformat())
            self.users.save(user)
            return False
        if user.restricted_at is None:  # a closed account, whose customer never asked to be forgotten
            devices = [device.id for device in user.devices]
            user.restrict(until=None, at=at, why=ENDED)
            self.sessions.end_those_of(devices, at=at, by="erased")
            self.users.save(user)
            self.records.forget_contact(user.id)
        user.erase_after = None
        self.users.save(user)
        self.records.forget_identity(user.id)
        self.audit.append([AuditRecord("user.forgotten", "user", str(user.id), at, why=ENDED)])
        return True


def _told(user: User, restricted_at: datetime, *, already: bool = False) -> Erased:
    return Erased(user_id=user.id, restricted_at=restricted_at, kept_until=user.erase_after, already=already)
