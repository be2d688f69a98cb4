"""Binding a Deriv account by signing in there: begun by a session, brought back by Deriv, finished by that session."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from identity.application.deriv_login import BindDerivLogin, DerivLogins
from identity.domain.deriv_authorization import TTL, DerivAuthorization, DerivAuthorizationNotOpen
from identity.domain.ports import DerivAuthorizationRepository, DerivGrants, Secrets, SignedIn, UserRepository
from identity.domain.user import DerivBinding, DerivLoginUnsuitable, User
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, UnitOfWork
from shared_kernel.domain.requests import DerivPlatform

CANNOT = "the Deriv login can't be changed now"


@dataclass(frozen=True)
class Begun:
    """Where the customer signs in at Deriv, and until when."""

    url: str = field(repr=False)  # the state is in it
    expires_at: datetime


@dataclass(frozen=True)
class DerivAuthorizations:
    """The use cases of signing in at Deriv. On `rest` alone: v3 gives tokens in clear, in a redirect (ADR 0030)."""

    users: UserRepository
    authorizations: DerivAuthorizationRepository
    grants: DerivGrants
    logins: DerivLogins
    secrets: Secrets
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock

    def begin(self, who: SignedIn) -> Begun:
        """A new one ends the one before. Raises `DerivPlatformUnsupported`, `AccountFrozen`, `UserNotFound`."""
        state, verifier, at = self.secrets.token(), self.secrets.token(), self.clock()
        url = self.grants.url(state, verifier)
        begun = DerivAuthorization(
            user_id=who.id,
            session_id=who.session_id,
            platform=DerivPlatform.REST,
            state_hash=self.secrets.fingerprint(state),
            verifier=verifier,
            created_at=at,
            expires_at=at + TTL,
        )
        with self.unit_of_work():
            user = self.users.get(who.id)
            user.may_change(CANNOT)
            self.authorizations.save(begun)
            user.note("deriv_authorization.begun", at=at, session=str(who.session_id))
            self.users.save(user)
        return Begun(url, begun.expires_at)

    def came_back(self, state: str, code: str) -> None:
        """Deriv's redirect brought `code`: bound to the customer by the state alone, once, and to nobody yet otherwise.

        Calls nobody. Raises `DerivAuthorizationNotOpen`, `AccountFrozen`.
        """
        at = self.clock()
        with self.unit_of_work():
            user, waiting = self._waiting(state)
            user.may_change(CANNOT)
            waiting.came_back(self._hash(waiting, code), at=at)
            self.authorizations.save(waiting)
            user.note("deriv_authorization.came_back", at=at)
            self.users.save(user)

    def denied(self, state: str, why: str) -> None:
        """Deriv's redirect brought an error instead: it is over. Raises `DerivAuthorizationNotOpen`."""
        at = self.clock()
        with self.unit_of_work():
            user, waiting = self._waiting(state)
            if waiting.returned_at is not None or at >= waiting.expires_at:
                raise DerivAuthorizationNotOpen
            self.authorizations.remove(user.id)
            user.note("deriv_authorization.denied", at=at, why=why)
            self.users.save(user)

    def complete(self, who: SignedIn, platform: DerivPlatform, code: str) -> DerivBinding:
        """The session that began hands the code over: exchanged, and bound as a token is.

        Calls Deriv, outside of any unit of work. It is over whatever Deriv says, for a code is good once. Raises
        `DerivAuthorizationNotOpen`, `WrongDerivCode`, `DerivGrantRefused`, `DerivScopesMissing`, and what
        `DerivLogins.bind` does.
        """
        if platform is not DerivPlatform.REST:
            raise DerivLoginUnsuitable("on ws_v3 Deriv gives no code that could be exchanged: post a token instead")
        waiting = self._taken(who, code)
        asked_at = self.clock()
        try:
            grant = self.grants.exchange(code, waiting.verifier)
        except DomainError as refused:
            with self.unit_of_work():
                why = AuditRecord("deriv_login.refused", "user", str(who.id), asked_at, why=refused.code)
                self.audit.append([why])
            raise
        return self.logins.bind(
            BindDerivLogin(
                user_id=who.id,
                session_id=who.session_id,
                platform=platform,
                token=grant.token,
                refresh_token=grant.refresh_token,
                expires_at=asked_at + timedelta(seconds=grant.expires_in_s),
            )
        )

    def _taken(self, who: SignedIn, code: str) -> DerivAuthorization:
        """The one that waits, which is over now."""
        at = self.clock()
        with self.unit_of_work():
            user, waiting = self.users.get(who.id), self.authorizations.get(who.id)
            user.may_change(CANNOT)
            if waiting is None:
                raise DerivAuthorizationNotOpen
            right = self.secrets.same(waiting.code_hash, self._hash(waiting, code))
            refusal = waiting.submit(who.session_id, right, at=at)
            if refusal is None:
                self.authorizations.remove(user.id)
            else:
                self.authorizations.save(waiting)
                user.note("deriv_authorization.refused", at=at, why=refusal.code)
            self.users.save(user)
        if refusal is not None:
            raise refusal
        return waiting

    def _waiting(self, state: str) -> tuple[User, DerivAuthorization]:
        """By its state, under the lock of its customer's row. Raises `DerivAuthorizationNotOpen`."""
        hash = self.secrets.fingerprint(state)
        owner = self.authorizations.owner_of(hash)
        if owner is None:
            raise DerivAuthorizationNotOpen
        user, waiting = self.users.get(owner), self.authorizations.get(owner)
        if waiting is None or not self.secrets.same(waiting.state_hash, hash):  # another one took its place meanwhile
            raise DerivAuthorizationNotOpen
        return user, waiting

    def _hash(self, waiting: DerivAuthorization, code: str) -> str:
        return self.secrets.code_fingerprint(waiting.user_id, waiting.state_hash, code)
