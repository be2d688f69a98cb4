"""Whose a phone number or an address is: theirs who proved it; what nobody proved is kept for nobody for long."""

from dataclasses import dataclass
from datetime import datetime

from identity.application.notices import Notices, proven_channels
from identity.domain.notice import NoticeKind
from identity.domain.ports import SessionRepository, UserRepository, VerificationRepository
from identity.domain.user import User
from identity.domain.verification import Target


@dataclass(frozen=True)
class UnprovenContacts:
    """Takes contacts from accounts that never proved them."""

    users: UserRepository
    sessions: SessionRepository
    verifications: VerificationRepository
    notices: Notices

    def free(self, *contacts: Target, to_proof: bool, at: datetime) -> None:
        """Joins the unit of work that gives them to somebody else, and is undone with it.

        What may not be taken stays, and the unique index refuses the other. Locks the holders, in one order.
        """
        holders = {holder for contact in contacts if (holder := self.users.holder_of(contact))}
        for holder in sorted(holders):
            user = self.users.get(holder)
            lost = [contact for contact in contacts if user.may_lose(contact, to_proof=to_proof, at=at)]
            if lost:
                self._take(user, lost, why="proven by another" if to_proof else "registered by another", at=at)

    def _take(self, user: User, lost: list[Target], *, why: str, at: datetime) -> None:
        for contact in lost:
            user.lose(contact, at=at, why=why)
        if not user.is_active:
            self.sessions.end_all(user.id, at=at, by="contact_lost")
        self.verifications.close_all(user.id)
        self.notices.tell(user, NoticeKind.CONTACT_LOST, proven_channels(user))
        self.users.save(user)
