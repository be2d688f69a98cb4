"""Time-based one-time passwords (RFC 6238) of a customer's authenticator app, and the tries that they are given."""

import hmac
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from identity.domain.verification import TRIES, WrongCode
from shared_kernel.domain.errors import Conflict, DomainError, NotFound, TooManyRequests
from shared_kernel.domain.identifiers import UserId

STEP_S = 30
DIGITS = 6
DRIFT = 1  # steps that an authenticator's clock may be off, either way
LOCK, LONGEST_LOCK = timedelta(minutes=15), timedelta(hours=8)  # after five wrong codes; each lock twice the one before
FORGOTTEN = timedelta(days=1)  # after the last wrong code, with all locks before it
FIRST_CODE = timedelta(minutes=10)  # that an enrolled authenticator waits for it


class TotpAlreadyEnrolled(Conflict):
    """An authenticator is in use: it is removed before another one is enrolled."""


class TotpNotFound(NotFound):
    """No authenticator is enrolled, or none that waits for its first code."""


class TotpLocked(TooManyRequests):
    """Too many wrong codes in a row."""


def totp(secret: bytes, counter: int, *, digits: int = DIGITS) -> str:
    """The code of one time step (RFC 4226, 5.3, with HMAC-SHA-1, which is what authenticator apps speak)."""
    mac = hmac.digest(secret, counter.to_bytes(8, "big"), "sha1")
    start = mac[-1] & 0x0F
    number = int.from_bytes(mac[start : start + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**digits:0{digits}d}"


def counter_of(secret: bytes, code: str, *, at: datetime, after: int) -> int | None:
    """The step that `code` belongs to, among those about now that are later than `after`; None for a wrong one.

    Takes as long for a wrong code as for a right one.
    """
    now, found = int(at.timestamp()) // STEP_S, None
    for counter in range(now - DRIFT, now + DRIFT + 1):
        if hmac.compare_digest(totp(secret, counter).encode(), code.encode()) and counter > after:
            found = counter
    return found


class TotpUse(StrEnum):
    """What a code is given for. The tries are counted apart: whoever only knows the password, and guesses at a new
    device's sign-in, must not lock the customer's own step-ups.
    """

    SIGN_IN = "sign_in"
    STEP_UP = "step_up"


@dataclass(frozen=True, slots=True)
class TotpTries:
    """Wrong codes in a row, and the locks that they led to; forgotten by a right one, or by a day without any."""

    failures: int = 0
    locks: int = 0
    failed_at: datetime | None = None
    locked_until: datetime | None = None

    def lately(self, *, at: datetime) -> "TotpTries":
        """What of it still counts."""
        return TotpTries() if self.failed_at is not None and at >= self.failed_at + FORGOTTEN else self

    def is_locked(self, *, at: datetime) -> bool:
        """Whether no code is taken, not even a right one."""
        return self.locked_until is not None and at < self.locked_until

    def failed(self, *, at: datetime) -> "TotpTries":
        """One more; the fifth locks for 15 minutes, then for 30, 60 and so on."""
        if self.failures + 1 < TRIES:
            return TotpTries(self.failures + 1, self.locks, at)
        wait = min(LOCK * 2 ** min(self.locks, 10), LONGEST_LOCK)
        return TotpTries(0, self.locks + 1, at, at + wait)


@dataclass(kw_only=True, eq=False)
class TotpFactor:
    """A customer's authenticator; it counts once its first code has come. `last_counter` keeps a code to one use."""

    user_id: UserId
    secret: bytes = field(repr=False)
    created_at: datetime
    confirmed_at: datetime | None = None
    last_counter: int = 0
    tries: dict[TotpUse, TotpTries] = field(default_factory=dict)

    def waits(self, *, at: datetime) -> bool:
        """Whether its first code is still to come, and may."""
        return self.confirmed_at is None and at < self.created_at + FIRST_CODE

    def submit(self, code: str, use: TotpUse, *, at: datetime) -> DomainError | None:
        """The refusal, if it is refused, as a value: the try is to be stored all the same. The code whose refusal
        leaves no try has locked this use.
        """
        tries = self.tries.get(use, TotpTries()).lately(at=at)
        if tries.locked_until is not None and tries.is_locked(at=at):
            wait = int((tries.locked_until - at).total_seconds()) + 1
            return TotpLocked("too many wrong codes: wait, then try again", retry_after=wait)
        counter = counter_of(self.secret, code, at=at, after=self.last_counter)
        if counter is not None:
            self.last_counter, self.tries[use] = counter, TotpTries()
            return None
        self.tries[use] = failed = tries.failed(at=at)
        left = 0 if failed.is_locked(at=at) else TRIES - failed.failures
        return WrongCode("this is not the code that your authenticator shows now", tries_left=left)
