"""Binding a Deriv account: Deriv is asked whose the token is, and one account is one customer's."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from identity.application.notices import Notices, proven_channels
from identity.application.payout_sessions import PayoutSessions
from identity.domain.notice import NoticeKind
from identity.domain.ports import DerivAuthorizationRepository, DerivIdentity, UserRepository
from identity.domain.session import DeviceTooNew
from identity.domain.user import DerivBinding, DerivLoginTaken, DerivLoginUnsuitable, DerivNameMismatch
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork
from shared_kernel.domain.requests import DerivPlatform


@dataclass(frozen=True, kw_only=True)
class BindDerivLogin:
    """A customer shows a token of their Deriv account; one that they signed in for has an end, and may be refreshed."""

    user_id: UserId
    session_id: UUID
    platform: DerivPlatform
    token: str = field(repr=False)
    refresh_token: str = field(repr=False, default="")
    expires_at: datetime | None = None


@dataclass(frozen=True)
class DerivLogins:
    """The use cases of a customer's Deriv login."""

    users: UserRepository
    authorizations: DerivAuthorizationRepository
    deriv: DerivIdentity
    sessions: PayoutSessions
    notices: Notices
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource

    def bind(self, command: BindDerivLogin) -> DerivBinding:
        """Calls Deriv, outside of any unit of work. Raises `DerivTokenRefused`, `DerivUnavailable`,
        `DerivPlatformUnsupported`, `DerivLoginUnsuitable`, `DerivNameMismatch`, `DerivLoginTaken`, `AccountFrozen`, and
        `UserNotFound` if the account has ended meanwhile. Who had another account before is told by notices, and
        `DeviceTooNew` to a session that has to wait for large payouts: deposits would go to a thief's account as well.
        """
        told = self.deriv.identify(command.platform, command.token)
        at = self.clock()
        binding = DerivBinding(
            id=self.ids(),
            platform=command.platform,
            account=told.account,
            currency=told.currency,
            full_name=told.full_name,
            name_matches=False,
            token=command.token,
            refresh_token=command.refresh_token,
            expires_at=command.expires_at,
            bound_at=at,
            checked_at=at,
        )
        try:
            with self.unit_of_work():
                user = self.users.get(command.user_id)
                before = user.deriv_login
                user.bind_deriv(binding, is_virtual=told.is_virtual)
                if self.users.has_bound_another(user.id, binding.platform, binding.account):
                    self.sessions.may_redirect(command.session_id, at=at)
                if before is None or (before.platform, before.account) != (binding.platform, binding.account):
                    self.notices.tell(user, NoticeKind.DERIV_LOGIN_BOUND, proven_channels(user))
                self.authorizations.remove(user.id)
                self.users.save(user)
        except (DerivLoginUnsuitable, DerivNameMismatch, DerivLoginTaken, DeviceTooNew) as refused:
            with self.unit_of_work():
                self.audit.append(
                    [AuditRecord("deriv_login.refused", "user", str(command.user_id), at, why=refused.code)]
                )
            raise
        return binding

    def unbind(self, user_id: UserId) -> None:
        """Forgets the tokens, and a sign-in at Deriv that was begun.

        Raises `DerivLoginNotFound`, `AccountFrozen`, `UserNotFound`.
        """
        with self.unit_of_work():
            user = self.users.get(user_id)
            user.unbind_deriv(at=self.clock())
            self.notices.tell(user, NoticeKind.DERIV_LOGIN_UNBOUND, proven_channels(user))
            self.authorizations.remove(user.id)
            self.users.save(user)
