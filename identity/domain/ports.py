"""What identity asks of the world: its rows, hashing and tokens, an SMS sender, and Deriv's word on a token."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from identity.domain.contact import Address, Email
from identity.domain.deriv_authorization import DerivAuthorization
from identity.domain.deriv_token import DerivToken
from identity.domain.kyc_snapshot import CleanImage, KycFacts, KycSnapshot, Side
from identity.domain.notice import Notice
from identity.domain.session import RefreshToken, Session, SessionStanding
from identity.domain.staff_sign_in import Factor, StaffMember, Tries
from identity.domain.totp import TotpFactor
from identity.domain.user import User
from identity.domain.verification import OneTimeCode, Purpose
from shared_kernel.domain.errors import TooManyRequests, Unavailable
from shared_kernel.domain.identifiers import DeviceId, Phone, UserId
from shared_kernel.domain.requests import DerivPlatform


class SmsUnavailable(Unavailable):
    """The SMS could not be handed over."""


class TooManyTexts(SmsUnavailable):
    """This phone, or all of them together, had as many texts as may go out in a while; each costs money."""

    status = 429


class EmailUnavailable(Unavailable):
    """The e-mail could not be handed over."""


class TooManyMails(EmailUnavailable):
    """This address, or all of them together, had as many e-mails as may go out in a while."""

    status = 429


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
        """Stores state, devices, Deriv login, new name and address, events and audit rows. Raises `DerivLoginTaken`,
        `ContactTaken`.
        """

    def address_of(self, id: UserId) -> Address | None:
        """The newest one."""

    def had_devices(self, id: UserId) -> bool:
        """Whether the user ever signed in from a device, revoked ones included."""

    def is_device_of(self, identifier: Phone | Email | None, device: UUID, secret_hash: str) -> bool:
        """Whether it is an active device of the customer so named, None: of any; one query, not locked."""

    def has_bound_another(self, id: UserId, platform: DerivPlatform, account: str) -> bool:
        """Whether the user has, or once had, another Deriv account than this one; not locked."""

    def holder_of(self, contact: Phone | Email) -> UserId | None:
        """The customer whose phone number or e-mail address it is, closed ones too; not locked."""

    def is_taken(self, contact: Phone | Email) -> bool:
        """Whether it is somebody's who proved it, or staff's; not locked."""


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

    def open_one(self, user: UserId, purpose: Purpose, asker: str) -> OneTimeCode | None:
        """The one that is open; `asker` is empty but where askers are `APART`, here and below."""

    def made_since(self, user: UserId, purpose: Purpose, asker: str, since: datetime) -> Sequence[datetime]:
        """When codes of this purpose were made."""

    def was_sent_since(self, user: UserId, purpose: Purpose, asker: str, since: datetime) -> bool:
        """Whether one that was made since then has gone out."""

    def forget_unsent(self, user: UserId, purpose: Purpose, asker: str) -> None:
        """As if those had never been made of which nobody knows that they went out."""

    def sent(self, id: UUID, target: Phone | Email, *, at: datetime) -> None:
        """It has gone out. Needs no lock."""

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


class DerivAuthorizationRepository(Protocol):
    """`deriv_authorizations`, one for each customer, under the lock of the users row."""

    def owner_of(self, state_hash: str) -> UserId | None:
        """Whose it is, not locked."""

    def get(self, user: UserId) -> DerivAuthorization | None:
        """The one that was begun last, if it is not over."""

    def save(self, authorization: DerivAuthorization) -> None:
        """Stores it, in place of any other of this customer."""

    def remove(self, user: UserId) -> None:
        """It is over."""


class DerivTokenRepository(Protocol):
    """The tokens in `deriv_logins`; writing needs the lock of the users row."""

    def get(self, user: UserId) -> DerivToken | None:
        """That of the active login. One query."""

    def save(self, token: DerivToken) -> None:
        """Stores what `get` gave, and a token that is new, in one row."""


class NoticeRepository(Protocol):
    """`user_notices`."""

    def add(self, notice: Notice) -> None:
        """Stores one to be sent."""

    def unsent(self, ids: Collection[UUID]) -> Sequence[Notice]:
        """Those of these that were not sent yet. One query."""

    def sent(self, notice: Notice, *, at: datetime) -> None:
        """Remembers that it was sent, and forgets to whom."""


class KycSnapshots(Protocol):
    """`kyc_documents`, `kyc_snapshots` and `kyc_images`, under the lock of the users row."""

    def refusals_since(self, user: UserId, since: datetime, action: str) -> int:
        """How often the audit log says that of this customer."""

    def claim(self, facts: KycFacts, user: UserId, *, at: datetime) -> UserId:
        """Makes the document this customer's unless it is somebody's already: whose it is now, for ever."""

    def versions(self, user: UserId) -> int:
        """How many there are."""

    def add(self, snapshot: KycSnapshot, images: Mapping[Side, CleanImage]) -> None:
        """Stores them, encrypted. The document is claimed already."""


class InvalidImage(Exception):
    """Not an image to keep: `code` in snake_case, `detail` says what to do. Nothing of the content is in it."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


class ImagesBusy(TooManyRequests):
    """All turns for images are taken."""


class ImageCleaner(Protocol):
    """Reads what anybody may have sent, and writes it anew."""

    def clean(self, raw: bytes) -> CleanImage:
        """Only the pixels, as JPEG. Raises `InvalidImage`, `ImagesBusy`. Slow: never called in a unit of work."""


@dataclass(frozen=True, slots=True)
class Ties:
    """What still ties a customer to PenPay by the other contexts: each of `open`, in words, forbids an erasure.

    `last_moved_at` is when the last of their Transactions changed.
    """

    open: tuple[str, ...] = ()
    has_moved_money: bool = False
    last_moved_at: datetime | None = None


class CustomerTies(Protocol):
    """The other contexts, asked about one customer."""

    def of(self, user: UserId) -> Ties:
        """In the caller's unit of work, under the lock of the users row, without which nothing new begins."""


class PersonalRecords(Protocol):
    """What identity holds of a customer's person, under the lock of the users row."""

    def is_customer(self, user: UserId) -> bool:
        """Not staff, and not nobody."""

    def forget_contact(self, user: UserId) -> None:
        """What no law keeps: e-mail address, both look-ups, devices' names and secrets, codes."""

    def forget_identity(self, user: UserId) -> None:
        """The rest: phone, name, date of birth, addresses, Deriv accounts. Nothing tells whose rows they were."""

    def count_overdue(self, at: datetime) -> int:
        """How many erased or closed ones the law keeps no longer, without those who wait."""

    def count_waiting(self, at: datetime) -> int:
        """How many the law keeps no longer, but whose identity documents are in append-only rows."""

    def overdue(self, at: datetime, most: int) -> Sequence[UserId]:
        """Up to `most` of those whom `count_overdue` counts, not locked."""

    def restricted(self) -> int:
        """How many erased or closed ones the law still keeps something of."""


class Passwords(Protocol):
    """Slow hashing, a few at a time."""

    def hash(self, password: str, *, known: bool = False) -> str:
        """Raises `SignInBusy`. `known` as in `matches`."""

    def matches(self, password: str, encoded: str | None, *, known: bool = False) -> bool:
        """False for None, after as long as it takes for a hash. Raises `SignInBusy`.

        `known`: they come with a session or a device of this customer, and have turns that strangers can't take up.
        """

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

    def recovery_code(self) -> str:
        """80 bits, as sixteen capitals and digits."""

    def recovery_fingerprint(self, factor: UUID, code: str) -> str:
        """What is stored of a recovery code, keyed: 64 hex digits."""


class StaffDirectory(Protocol):
    """Who of staff there is."""

    def named(self, name: str) -> StaffMember | None:
        """By staff name or e-mail address, in lower case; None for nobody, customers and who is not active any more."""


class FactorRepository(Protocol):
    """`staff_factors` and `staff_recovery_codes`; one factor each."""

    def of(self, user: UserId) -> Factor | None:
        """Under the lock of the users row."""

    def confirmed(self, user: UserId) -> UUID | None:
        """The id of the confirmed factor, not locked. One query."""

    def save(self, factor: Factor) -> None:
        """What changes of it: when it was confirmed, and its last code."""

    def replace(self, factor: Factor) -> None:
        """In place of any other of this user; its recovery codes go with it."""

    def remove(self, user: UserId) -> None:
        """The factor and its recovery codes."""

    def replace_recovery_codes(self, factor: UUID, hashes: Sequence[str]) -> None:
        """All that there were are void."""

    def spend_recovery_code(self, factor: UUID, hash: str, *, at: datetime) -> bool:
        """Whether it was one that is left; then it is used up."""


class SignInTries(Protocol):
    """`staff_sign_in_tries`, by key (`account:<id>`); a key stands there as its HMAC."""

    def of(self, keys: Sequence[str], *, at: datetime) -> Mapping[str, Tries]:
        """Each locked until the unit of work ends; one that was not there has no try."""

    def save(self, tries: Mapping[str, Tries]) -> None:
        """Stores the counts of keys that `of` gave."""

    def forget(self, keys: Sequence[str]) -> None:
        """As if nobody had tried."""


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


class KnownCustomers(Protocol):
    """Who is a customer."""

    def known(self, text: str) -> UserId | None:
        """The customer with this id, phone number or e-mail address, not locked; nobody of staff."""


class DerivGrant(Protocol):
    """What Deriv gives for a code or a refresh token. `refresh_token` is empty where none came."""

    @property
    def token(self) -> str: ...
    @property
    def refresh_token(self) -> str: ...
    @property
    def expires_in_s(self) -> int: ...


class DerivGrants(Protocol):
    """Signing in at Deriv (OAuth 2.0 with PKCE). All but `url` calls out, and never in a unit of work."""

    def url(self, state: str, verifier: str) -> str:
        """Where the customer signs in. Raises `DerivPlatformUnsupported`."""

    def exchange(self, code: str, verifier: str) -> DerivGrant:
        """Once. Raises `DerivGrantRefused`, `DerivScopesMissing`, `DerivUnavailable`."""

    def refresh(self, refresh_token: str) -> DerivGrant:
        """Raises an `Unprocessable`, which is final, or an `Unavailable`, which says nothing."""
