"""Support takes a lost authenticator away: two people, as for all that opens an account to somebody."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from identity.application.account import Account
from identity.application.notices import proven_channels
from identity.domain.notice import NoticeKind
from identity.domain.totp import TotpNotFound
from identity.domain.totp_removal import LASTS, TotpRemoval
from identity.domain.user import User
from shared_kernel.domain.four_eyes import Consents
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import IdSource


@dataclass(frozen=True)
class TotpRemovals:
    """The use cases of staff; `by` is an actor as audit rows name them (`staff:<id>`)."""

    removals: Consents[TotpRemoval]
    account: Account
    ids: IdSource

    def ask(self, user_id: UserId, *, by: str, why: str) -> TotpRemoval:
        """Asks for it. Raises `UserNotFound`, `AccountFrozen`, `TotpNotFound`, `ReasonMissing`."""
        with self.account.unit_of_work():
            user, at = self._with_authenticator(user_id), self.account.clock()
            asked = TotpRemoval(
                id=self.ids(), by=by, why=why.strip()[:255], at=at, expires_at=at + LASTS, user_id=user_id
            )
            self.removals.add(asked)
            self._note(user, "totp.removal_asked", asked, by, at)
            self.account.users.save(user)
        return asked

    def approve(self, removal: UUID, *, by: str) -> None:
        """Another person agrees, and it is done: all sessions end, the verified channels are told, payouts wait.

        Raises `ConsentNotFound`, `SamePerson`, `AlreadyApproved`, `ConsentExpired`, `UserNotFound`, `AccountFrozen`,
        `TotpNotFound`.
        """
        with self.account.unit_of_work():
            at = self.account.clock()
            done = self.removals.get(removal).approved(by, at).used(at)
            self.removals.save(done)
            user = self._with_authenticator(UserId(done.user_id))
            self._note(user, "totp.removal_approved", done, by, at)
            user.lose_authenticator(at=at, removal=done.id)
            self.account.totps.remove(user.id)
            self.account.changed(user, NoticeKind.TOTP_TAKEN_AWAY, proven_channels(user), keep=None)

    def _with_authenticator(self, user_id: UserId) -> User:
        """Locked."""
        user, factor = self.account.users.get(user_id), self.account.totps.get(user_id)
        user.may_change("its authenticator can't be removed now")
        if factor is None or factor.confirmed_at is None:
            raise TotpNotFound("this customer has no authenticator in use")
        return user

    def _note(self, user: User, action: str, asked: TotpRemoval, by: str, at: datetime) -> None:
        user.note(action, at=at, why=asked.why, removal=str(asked.id), by=by)
