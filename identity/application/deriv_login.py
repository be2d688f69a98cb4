"""Binding a Deriv account: Deriv is asked whose the token is, and one account is one customer's."""

from dataclasses import dataclass, field
from datetime import datetime

from identity.domain.ports import DerivAuthorizationRepository, DerivIdentity, UserRepository
from identity.domain.user import DerivBinding, DerivLoginTaken, DerivLoginUnsuitable, DerivNameMismatch
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork
from shared_kernel.domain.requests import DerivPlatform


@dataclass(frozen=True, kw_only=True)
class BindDerivLogin:
    """A customer shows a token of their Deriv account; one that they signed in for has an end, and may be refreshed."""

    user_id: UserId
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
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    ids: IdSource

    def bind(self, command: BindDerivLogin) -> DerivBinding:
        """Calls Deriv, outside of any unit of work. Raises `DerivTokenRefused`, `DerivUnavailable`,
        `DerivPlatformUnsupported`, `DerivLoginUnsuitable`, `DerivNameMismatch`, `DerivLoginTaken`, `AccountFrozen`, and
        `UserNotFound` if the account has ended meanwhile.
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
                user.bind_deriv(binding, is_virtual=told.is_virtual)
                self.authorizations.remove(user.id)
                self.users.save(user)
        except (DerivLoginUnsuitable, DerivNameMismatch, DerivLoginTaken) as refused:
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
            self.authorizations.remove(user.id)
            self.users.save(user)
