"""What staff see of a customer in clear, who agreed to it, and that the audit log knows before anybody sees it."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from identity.domain.particulars import LASTS, ParticularsNotAsked, ParticularsReveal
from identity.domain.ports import KnownCustomers
from identity.domain.user import UserNotFound
from shared_kernel.domain.four_eyes import Consents
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork


@dataclass(frozen=True)
class Particulars:
    """The use cases of staff who have to know a customer's particulars."""

    users: KnownCustomers
    reveals: Consents[ParticularsReveal]
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource

    def ask(self, user: UUID, *, by: str, why: str) -> ParticularsReveal:
        """`by` as in audit rows. Raises `UserNotFound`, also for staff, and `ReasonMissing`."""
        if self.users.known(str(user)) is None:
            raise UserNotFound("no such customer")
        at = self.clock()
        asked = ParticularsReveal(
            id=self.ids(), by=by, why=why.strip()[:255], at=at, expires_at=at + LASTS, user_id=user
        )
        with self.unit_of_work():
            self.reveals.add(asked)
            self._note("user.reveal_asked", asked, by, at)
        return asked

    def approve(self, reveal: UUID, *, by: str) -> None:
        """Another person agrees. Raises `ConsentNotFound`, `SamePerson`, `AlreadyApproved`, `ConsentExpired`."""
        with self.unit_of_work():
            at = self.clock()
            approved = self.reveals.get(reveal).approved(by, at)
            self.reveals.save(approved)
            self._note("user.reveal_approved", approved, by, at)

    def take(self, user: UUID, *, by: str) -> None:
        """Whoever asked is about to see them, once.

        Raises `ParticularsNotAsked`, `NotApproved`, `AlreadyUsed`, `ConsentExpired`.
        """
        with self.unit_of_work():
            at = self.clock()
            newest = self.reveals.newest(user_id=user, by=by)
            if newest is None:
                raise ParticularsNotAsked("ask for them first, with a reason; then a second person approves it")
            used = self.reveals.get(newest.id).used(at)
            self.reveals.save(used)
            self._note("user.revealed", used, by, at)

    def _note(self, action: str, asked: ParticularsReveal, who: str, at: datetime) -> None:
        details = {"reveal": str(asked.id), "by": who}
        if asked.approved_by:
            details["approved_by"] = asked.approved_by
        self.audit.append([AuditRecord(action, "user", str(asked.user_id), at, why=asked.why, details=details)])
