"""Keeping the tokens of bound Deriv logins fresh, one refresh at a time, and noticing when Deriv takes them no more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from identity.application.notices import Notices, proven_channels
from identity.domain.deriv_token import REFRESH_TAKES, DerivToken
from identity.domain.notice import NoticeKind
from identity.domain.ports import DerivGrant, DerivGrants, DerivTokenRepository, UserRepository
from identity.domain.user import User, UserNotFound
from shared_kernel.domain.errors import Unavailable, Unprocessable
from shared_kernel.domain.events import DerivTokenWasRefused, Event
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import Clock, UnitOfWork


class DerivTokenBusy(Unavailable):
    """Another request is just having the token refreshed."""


@dataclass(frozen=True)
class DerivTokens:
    """The use cases of a bound login's token; whether money may move by it, the directory says."""

    users: UserRepository
    tokens: DerivTokenRepository
    grants: DerivGrants
    notices: Notices
    unit_of_work: UnitOfWork
    clock: Clock

    def keep_fresh(self, user_id: UserId) -> None:
        """Before the customer's token is used: has Deriv give another one if this one soon runs out.

        Calls Deriv, outside of any unit of work, and never twice at once for one login. A refusal makes the login lost.
        Where nothing is known of the outcome and the token still lasts, it serves. Raises `DerivTokenBusy`,
        `DerivUnavailable`.
        """
        token = self.tokens.get(user_id)
        if token is None or not token.is_due(at=self.clock()):  # most: nothing is locked for them
            return
        claimed = self._claim(user_id)
        if claimed is None:
            return
        asked_at = self.clock()
        try:
            grant = self.grants.refresh(claimed.refresh_token)
        except Unprocessable as refused:
            self._conclude(user_id, claimed, None, refused.code, asked_at)
        except Unavailable:
            self._let_go(user_id, claimed)
            if not _lasts(claimed, at=self.clock()):
                raise
        else:
            self._conclude(user_id, claimed, grant, "", asked_at)

    def refused(self, user_id: UserId, sent_at: datetime) -> None:
        """Deriv refused a call that went with the customer's token at `sent_at`; once more: no effect."""
        at = self.clock()
        with self.unit_of_work():
            try:
                user = self.users.get(user_id)
            except UserNotFound:
                return
            token = self.tokens.get(user_id)
            if token is None or not user.is_active:
                return
            if token.refused(sent_at=sent_at, at=at):
                self._tell(user, token, "refused", at=at)
            self.tokens.save(token)

    def follow(self, events: Sequence[Event]) -> None:
        """Follows `DerivTokenWasRefused`."""
        for event in events:
            if isinstance(event, DerivTokenWasRefused):
                self.refused(event.user_id, event.sent_at)

    def _claim(self, user_id: UserId) -> DerivToken | None:
        """Under lock: whoever gets it is the only one who asks Deriv. Raises `DerivTokenBusy`."""
        at = self.clock()
        with self.unit_of_work():
            user, token = self.users.get(user_id), self.tokens.get(user_id)
            if token is None or not token.is_due(at=at) or not user.is_active or user.frozen_at is not None:
                return None
            if token.refreshing_until is not None and token.refreshing_until > at:
                if _lasts(token, at=at):
                    return None
                raise DerivTokenBusy("your sign-in at Deriv is just being renewed: repeat the request", retry_after=2)
            token.refreshing_until = at + REFRESH_TAKES
            self.tokens.save(token)
            return token

    def _conclude(
        self, user_id: UserId, claimed: DerivToken, grant: DerivGrant | None, why: str, asked_at: datetime
    ) -> None:
        at = self.clock()
        with self.unit_of_work():
            user, token = self.users.get(user_id), self._still(user_id, claimed)
            if token is None:
                return
            if grant is None:
                token.lose(at=at)
                self._tell(user, token, why, at=at)
            else:
                ends = asked_at + timedelta(seconds=grant.expires_in_s)
                token.renew(grant.token, grant.refresh_token, expires_at=ends, at=at)
                user.note("deriv_login.refreshed", at=at, deriv_login=str(token.login_id))
                self.users.save(user)
            self.tokens.save(token)

    def _let_go(self, user_id: UserId, claimed: DerivToken) -> None:
        """Nothing is known: the next use tries again."""
        with self.unit_of_work():
            self.users.get(user_id)
            if token := self._still(user_id, claimed):
                token.refreshing_until = None
                self.tokens.save(token)

    def _still(self, user_id: UserId, claimed: DerivToken) -> DerivToken | None:
        """The login's token, unless it was bound anew, unbound or refreshed by others meanwhile."""
        token = self.tokens.get(user_id)
        same = token is not None and token.login_id == claimed.login_id and token.bound_at == claimed.bound_at
        return token if token is not None and same and token.refresh_token == claimed.refresh_token else None

    def _tell(self, user: User, token: DerivToken, why: str, *, at: datetime) -> None:
        user.note("deriv_login.lost", at=at, why=why, deriv_login=str(token.login_id))
        self.notices.tell(user, NoticeKind.DERIV_LOGIN_LOST, proven_channels(user))
        self.users.save(user)


def _lasts(token: DerivToken, *, at: datetime) -> bool:
    return token.expires_at is None or token.expires_at > at
