"""A sign-in and its refresh tokens: each is used once and replaced; a second use ends them all."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from shared_kernel.domain.errors import Conflict, Forbidden, Unauthenticated
from shared_kernel.domain.identifiers import DeviceId, UserId

LONGEST_SESSION = timedelta(days=30)  # however often it is refreshed
STEP_UP_FRESH = timedelta(minutes=5)
PASSWORD_TRIES = 5


class SessionEnded(Unauthenticated):
    """Not signed in, or not any more."""


class RefreshTokenReused(Unauthenticated):
    """A spent refresh token came again: somebody else may hold it, so its whole session ended."""


class RefreshInFlight(Conflict):
    """The same token was sent twice at the same moment: the other request turns it over."""


class StepUpRequired(Forbidden):
    """This needs a code that came a moment ago: the password, or a stolen session, is not enough."""


class DeviceTooNew(Forbidden):
    """Large payouts, or small ones that come to as much, have to wait until this device, and the phone that is paid,
    have been known for a while; `extra["may_at"]`.
    """


@dataclass(frozen=True, slots=True)
class SessionStanding:
    """What a payout depends on: when the session stepped up, and since when its device is known, if it is not the
    account's first, or the phone number, if it was changed, or support took an authenticator away: the latest of these.
    """

    stepped_up_at: datetime | None
    new_since: datetime | None


def must_be_stepped_up(stepped_up_at: datetime | None, *, at: datetime) -> None:
    """Raises `StepUpRequired` unless the session was stepped up in the last five minutes."""
    if stepped_up_at is None or not stepped_up_at <= at < stepped_up_at + STEP_UP_FRESH:
        raise StepUpRequired(
            "confirm that it is you first: POST auth/step-up with an empty body sends you a code, "
            'POST auth/step-up {"code": ...} takes it, or only one of your authenticator if one is in use; then repeat '
            "this request"
        )


@dataclass(kw_only=True, eq=False)
class RefreshToken:
    """One token of a session; `hash` is its SHA-256."""

    id: UUID
    hash: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    replaced_by: UUID | None = None


@dataclass(kw_only=True, eq=False)
class Session:
    """One sign-in on one device. `tokens` are those that this unit of work has to do with, not all."""

    id: UUID
    user_id: UserId
    device_id: DeviceId
    token_epoch: int
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None
    ended_by: str = ""
    stepped_up_at: datetime | None = None
    password_tries: int = 0  # of the old password, since it was last right
    tokens: list[RefreshToken] = field(default_factory=list)

    @classmethod
    def begin(cls, id: UUID, user: UserId, device: DeviceId, token_epoch: int, *, at: datetime) -> "Session":
        """A new sign-in; `issue` gives it its first token."""
        return cls(
            id=id,
            user_id=user,
            device_id=device,
            token_epoch=token_epoch,
            created_at=at,
            expires_at=at + LONGEST_SESSION,
        )

    def issue(self, id: UUID, hash: str, ttl: timedelta, *, at: datetime) -> RefreshToken:
        """A token that is good for `ttl`, at most for as long as the session."""
        token = RefreshToken(id=id, hash=hash, created_at=at, expires_at=min(at + ttl, self.expires_at))
        self.tokens.append(token)
        return token

    def spend(self, token: RefreshToken, *, at: datetime, arrived_at: datetime) -> Unauthenticated | Conflict | None:
        """Uses `token` up. A refusal is a value, because what it changes here is to be stored all the same.

        A token that was spent before this request arrived ends the session (RFC 9700, 4.14.2); one that was spent while
        this request waited for its lock is an honest double submit, of which one succeeds.
        """
        if self.ended_at is not None or at >= min(token.expires_at, self.expires_at):
            return SessionEnded("sign in again")
        if token.used_at is None:
            token.used_at = at
            return None
        if arrived_at < token.used_at:
            return RefreshInFlight("the same refresh token is just being turned over: use the new cookies")
        self.end(at=at, by="refresh_reused")
        return RefreshTokenReused("this refresh token was used before, so the session was ended: sign in again")

    def try_password(self, *, at: datetime) -> bool:
        """Counts a try of the old password before it is looked at; the sixth ends the session, and is none."""
        self.password_tries += 1
        if self.password_tries > PASSWORD_TRIES:
            self.end(at=at, by="password_guessed")
        return self.ended_at is None

    def untry_password(self) -> None:
        """The try that was counted could not be looked at."""
        self.password_tries = max(self.password_tries - 1, 0)

    def end(self, *, at: datetime, by: str) -> None:
        """Its access and refresh tokens stop at once; ending twice has no effect."""
        if self.ended_at is None:
            self.ended_at, self.ended_by = at, by
