"""Showing once more that it is the customer: a code of their authenticator or, where none is in use, one by SMS."""

from base64 import b32encode
from dataclasses import dataclass, field
from datetime import datetime

from identity.application.codes import Codes
from identity.application.door import Door
from identity.application.notices import Notices, proven_channels
from identity.domain.notice import NoticeKind
from identity.domain.ports import SessionRepository, SignedIn, TotpRepository, UserRepository
from identity.domain.session import SessionEnded
from identity.domain.totp import TotpAlreadyEnrolled, TotpFactor, TotpLocked, TotpNotFound, TotpUse
from identity.domain.user import User
from identity.domain.verification import NoOpenCode, Purpose, WrongCode
from shared_kernel.domain.errors import Conflict, DomainError
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.ports import Clock, UnitOfWork


class NothingVerified(Conflict):
    """There is neither a verified phone nor a verified address to which a code could go."""


class AuthenticatorInUse(Conflict):
    """The code is the authenticator's: none is sent, for whoever stole the SIM would read it."""

    def __init__(self) -> None:
        super().__init__(
            "an authenticator is in use, so no code is sent: give the one that it shows now as `code`; if you have "
            "lost it, ask support"
        )


@dataclass(frozen=True)
class SecondFactor:
    """What is beside the password: a code of the authenticator that is in use; where none is, a code that was sent."""

    codes: Codes
    totps: TotpRepository
    notices: Notices

    def authenticator_of(self, user: UserId) -> TotpFactor | None:
        """The one in use. While there is one, no code is to be sent, for none is taken."""
        factor = self.totps.get(user)
        return factor if factor is not None and factor.confirmed_at is not None else None

    def submit(self, user: User, purpose: Purpose, code: str, *, asker: str, at: datetime) -> DomainError | None:
        """Joins the caller's unit of work, which saves `user` and commits the try. None: the code is right."""
        if factor := self.authenticator_of(user.id):
            use = TotpUse.SIGN_IN if purpose is Purpose.NEW_DEVICE else TotpUse.STEP_UP
            refusal = factor.submit(code, use, at=at)
            self.totps.save(factor)
            if isinstance(refusal, WrongCode) and not refusal.extra["tries_left"]:
                user.note("totp.locked", at=at, use=use)
                self.notices.tell(user, NoticeKind.TOTP_LOCKED, proven_channels(user))
            return refusal
        sent = self.codes.submit(user.id, purpose, code, asker=asker, at=at)
        return sent if isinstance(sent, DomainError) else None


@dataclass(frozen=True)
class Enrolment:
    """What an authenticator app is given, once."""

    secret: str = field(repr=False)  # base32

    @property
    def uri(self) -> str:
        """For a QR code (Google's key URI format). It names nobody."""
        return f"otpauth://totp/PenPay?secret={self.secret}&issuer=PenPay&algorithm=SHA1&digits=6&period=30"


@dataclass(frozen=True)
class StepUp:
    """The use cases of stepping up, and of the authenticator that does it without an SMS."""

    users: UserRepository
    sessions: SessionRepository
    second: SecondFactor
    notices: Notices
    unit_of_work: UnitOfWork
    clock: Clock
    door: Door

    def send_code(self, who: SignedIn) -> datetime:
        """To the verified phone; without one, to the verified address. Until when it is good.

        Raises `AuthenticatorInUse`, `NothingVerified`, `CodesAskedTooOften`, `SmsUnavailable`, `EmailUnavailable`,
        `TooManyRequests`.
        """
        self.door.may_ask_for_code(who.id)
        with self.unit_of_work():
            channels = proven_channels(self.users.get(who.id))
            if self.second.authenticator_of(who.id):
                raise AuthenticatorInUse
            if not channels:
                raise NothingVerified("verify your phone number first: POST me/phone-verification")
            codes, asker = self.second.codes, str(who.session_id)
            code = codes.make(who.id, Purpose.STEP_UP, channels[0], asker=asker, at=self.clock())
        return self.second.codes.send(code)

    def confirm(self, who: SignedIn, code: str) -> None:
        """The session is stepped up from now on. Raises `WrongCode`, `NoOpenCode`, `TotpLocked`, `SessionEnded`."""
        at = self.clock()
        with self.unit_of_work():
            user = self.users.get(who.id)
            session = self.sessions.get(who.session_id)
            if session is None or session.ended_at is not None or session.token_epoch != user.token_epoch:
                raise SessionEnded("sign in again")
            refusal = self.second.submit(user, Purpose.STEP_UP, code, asker=str(who.session_id), at=at)
            if refusal is None:
                session.stepped_up_at = at
                self.sessions.save(session)
                user.note("user.stepped_up", at=at, session=str(session.id))
            elif is_a_try(refusal):
                user.note("user.step_up_refused", at=at, why=refusal.code)
            self.users.save(user)
        if refusal is not None:
            raise refusal

    def enrol_totp(self, user_id: UserId) -> Enrolment:
        """A new secret, instead of one without a first code. Raises `TotpAlreadyEnrolled`, `AccountFrozen`."""
        at, secret = self.clock(), self.second.codes.secrets.totp_secret()
        with self.unit_of_work():
            user = self.users.get(user_id)
            user.may_change()
            if (known := self.second.totps.get(user_id)) and known.confirmed_at is not None:
                raise TotpAlreadyEnrolled("an authenticator is in use: remove it first")
            self.second.totps.save(TotpFactor(user_id=user_id, secret=secret, created_at=at))
            user.note("totp.enrolled", at=at)
            self.users.save(user)
        return Enrolment(b32encode(secret).decode())

    def confirm_totp(self, user_id: UserId, code: str) -> None:
        """The authenticator counts from now on. Raises `TotpNotFound`, `WrongCode`, `TotpLocked`, `AccountFrozen`."""
        at = self.clock()
        with self.unit_of_work():
            user, factor = self.users.get(user_id), self.second.totps.get(user_id)
            user.may_change()
            if factor is None or not factor.waits(at=at):
                raise TotpNotFound(
                    "no authenticator waits for its first code, which comes within ten minutes: POST me/totp first"
                )
            refusal = factor.submit(code, TotpUse.STEP_UP, at=at)
            if refusal is None:
                factor.confirmed_at = at
                self._tell(user, NoticeKind.TOTP_ADDED, at=at)
            elif is_a_try(refusal):
                user.note("totp.refused", at=at, why=refusal.code)
            self.second.totps.save(factor)
            self.users.save(user)
        if refusal is not None:
            raise refusal

    def remove_totp(self, user_id: UserId) -> None:
        """Its secret is forgotten. Raises `TotpNotFound`, `AccountFrozen`."""
        with self.unit_of_work():
            user = self.users.get(user_id)
            user.may_change()
            if self.second.totps.get(user_id) is None:
                raise TotpNotFound("no authenticator is enrolled")
            self.second.totps.remove(user_id)
            self._tell(user, NoticeKind.TOTP_REMOVED, at=self.clock())
            self.users.save(user)

    def _tell(self, user: User, kind: NoticeKind, *, at: datetime) -> None:
        user.note(kind.replace("_", ".", 1), at=at)
        self.notices.tell(user, kind, proven_channels(user))


def is_a_try(refusal: DomainError) -> bool:
    """Whether a code was looked at. Where none is, no row says so: a session could fill the audit log with them."""
    return not isinstance(refusal, NoOpenCode | TotpLocked)
