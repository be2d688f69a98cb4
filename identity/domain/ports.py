"""What identity asks of the world: its rows, hashing and tokens, an SMS sender, and Deriv's word on a token."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from identity.domain.notice import Notice
from identity.domain.session import RefreshToken, Session, SessionStanding
from identity.domain.totp import TotpFactor
from identity.domain.user import Email, User
from identity.domain.verification import OneTimeCode, Purpose
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.identifiers import DeviceId, Phone, UserId
from shared_kernel.domain.requests import DerivPlatform


class SmsUnavailable(Unavailable):
    """The SMS could not be handed over."""


class EmailUnavailable(Unavailable):
    """The e-mail could not be handed over."""


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says: who, in which session, on which device."""

    user_id: UUID
    session_id: UUID
    device_id: UUID


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Somebody whose access token and session are good; what a view has as `request.user`."""

    id: UserId
    device_id: DeviceId
    session_id: UUID
    stepped_up_at: datetime | None = None
    is_authenticated: bool = True
    is_active: bool = True
    is_staff: bool = False  # staff rights come with the staff site's own sign-in only

    @property
    def pk(self) -> UserId:
        """The same as `id`, by Django's name."""
        return self.id


class UserRepository(Protocol):
    """`users` and what hangs on it. The lock of the users row guards all that is one user's."""

    def get(self, id: UserId) -> User:
        """Locked for the rest of the unit of work. Raises `UserNotFound`."""

    def password_of(self, identifier: Phone | Email) -> tuple[UserId, str] | None:
        """The user and the password's hash, not locked; None for nobody, a closed account or staff."""

    def add(self, user: User) -> None:
        """Stores a new user. Raises `AlreadyRegistered`."""

    def save(self, user: User) -> None:
        """Stores state, devices, Deriv login, events and audit rows. Raises `DerivLoginTaken`, `ContactTaken`."""

    def had_devices(self, id: UserId) -> bool:
        """Whether the user ever signed in from a device, revoked ones included."""

    def is_taken(self, contact: Phone | Email) -> bool:
        """Whether a phone number or e-mail address is an account's; not locked."""


class SessionRepository(Protocol):
    """`sessions` and `refresh_tokens`; writing needs the lock of the users row."""

    def alive(self, claims: AccessClaims, *, at: datetime) -> SignedIn | None:
        """Whose session it is, if it is good: not ended, device and account active, epoch unchanged. One query."""

    def standing(self, id: UUID) -> SessionStanding:
        """What a payout from it depends on, not locked. One query. Raises `SessionEnded`."""

    def owner_of_token(self, hash: str) -> UserId | None:
        """Whose refresh token it is, not locked."""

    def of_token(self, hash: str) -> tuple[Session, RefreshToken] | None:
        """The session of a refresh token, locked."""

    def get(self, id: UUID) -> Session | None:
        """The session, locked, without tokens."""

    def save(self, session: Session) -> None:
        """Stores the session and the tokens that it holds."""

    def end_those_of(self, devices: Collection[DeviceId], *, at: datetime, by: str) -> None:
        """Ends the sessions of these devices."""

    def end_all(self, user: UserId, *, but: UUID | None = None, at: datetime, by: str) -> None:
        """Ends the user's sessions, all `but` this one."""


class VerificationRepository(Protocol):
    """`user_phone_verification` and `user_email_verification`, under the lock of the users row."""

    def open_one(self, user: UserId, purpose: Purpose) -> OneTimeCode | None:
        """The one that is open."""

    def sent_since(self, user: UserId, purpose: Purpose, since: datetime) -> Sequence[datetime]:
        """When codes of this purpose were sent."""

    def save(self, code: OneTimeCode) -> None:
        """Stores it."""

    def close_all(self, user: UserId) -> None:
        """No code of this user is open any more, of whatever purpose."""


class TotpRepository(Protocol):
    """`totp_factors`, under the lock of the users row."""

    def get(self, user: UserId) -> TotpFactor | None:
        """The authenticator, whether its first code has come or not."""

    def save(self, factor: TotpFactor) -> None:
        """Stores it; one that was enrolled anew takes the place of the one before."""

    def remove(self, user: UserId) -> None:
        """Forgets the secret."""


class NoticeRepository(Protocol):
    """`user_notices`."""

    def add(self, notice: Notice) -> None:
        """Stores one to be sent."""

    def unsent(self, ids: Collection[UUID]) -> Sequence[Notice]:
        """Those of these that were not sent yet. One query."""

    def sent(self, notice: Notice, *, at: datetime) -> None:
        """Remembers that it was sent, and forgets to whom."""


class Passwords(Protocol):
    """Slow hashing, a few at a time."""

    def hash(self, password: str) -> str:
        """Raises `SignInBusy`."""

    def matches(self, password: str, encoded: str | None) -> bool:
        """False for None, after as long as it takes for a hash. Raises `SignInBusy`."""

    def refuse_weak(self, password: str, known: Collection[str]) -> None:
        """Raises `WeakPassword`, also for one made of `known`, what the account says of its owner."""


class AccessTokens(Protocol):
    """Short-lived tokens that only we can make."""

    def issue(self, claims: AccessClaims, *, at: datetime) -> str:
        """A token for `JWT_ACCESS_TTL` seconds."""

    def read(self, token: str) -> AccessClaims | None:
        """None for whatever we did not issue, for this use, or that is too old."""


class Secrets(Protocol):
    """Randomness, and what is stored of it."""

    def token(self) -> str:
        """256 bits, fit for a cookie."""

    def code(self) -> str:
        """Six digits."""

    def totp_secret(self) -> bytes:
        """160 bits, as RFC 4226 wants them."""

    def fingerprint(self, token: str) -> str:
        """What is stored of a token: 64 hex digits."""

    def code_fingerprint(self, id: UUID, bound_to: str, code: str) -> str:
        """What is stored of a code, keyed, for six digits are soon tried: 64 hex digits. `bound_to` is in it."""

    def same(self, a: str, b: str) -> bool:
        """Compared in constant time."""


class SmsSender(Protocol):
    """Hands texts to whoever carries them. Never called in a unit of work."""

    def send(self, phone: Phone, text: str) -> None:
        """Raises `SmsUnavailable`. Never logs the text."""


class EmailSender(Protocol):
    """Hands e-mails to whoever carries them. Never called in a unit of work."""

    def send(self, email: Email, subject: str, text: str) -> None:
        """Raises `EmailUnavailable`. Never logs the text."""


class DerivAccount(Protocol):
    """Whom a Deriv token belongs to, by Deriv's own word."""

    @property
    def account(self) -> str: ...
    @property
    def currency(self) -> str: ...
    @property
    def full_name(self) -> str: ...
    @property
    def is_virtual(self) -> bool: ...


class DerivIdentity(Protocol):
    """Deriv, as far as identity asks."""

    def identify(self, platform: DerivPlatform, token: str) -> DerivAccount:
        """Calls out. Raises `DerivTokenRefused`, `DerivUnavailable`, `DerivPlatformUnsupported`. Keeps no token."""
