"""How staff sign in: a password, then a second factor (TOTP by RFC 6238, or a recovery code), with few tries.

Tries are counted before they are judged, so that many at once are no more than a few. A browser in which a member of
staff has signed in before has a count of its own: what strangers try elsewhere does not shut it out.
"""

import hashlib
import hmac
import re
from base64 import b32decode, b32encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from urllib.parse import quote, urlencode
from uuid import UUID

from identity.domain.credentials import InvalidCredentials
from identity.domain.totp import DIGITS, DRIFT, STEP_S, totp
from shared_kernel.domain.errors import Conflict, Forbidden, TooManyRequests
from shared_kernel.domain.identifiers import UserId

SECRET_BYTES = 20  # as long as the HMAC, as RFC 4226 recommends
RECOVERY_CODES = 10
MOST_TRIES, LOCKED_FOR = 5, timedelta(minutes=15)
BETWEEN_STEPS = timedelta(minutes=10)  # from the password to the second factor or the end of enrolment
IDLE, LONGEST = timedelta(minutes=15), timedelta(hours=8)


class WrongFactor(InvalidCredentials):
    """Not the code of this moment, one that was used before, or no recovery code that is left."""


class SignInLocked(TooManyRequests):
    """Too many tries for this name or from this address; the same for names that nobody has."""


class FactorMissing(Forbidden):
    """A second factor has to be enrolled first."""


class FactorConfirmed(Conflict):
    """There is a second factor already; who lost it asks an operator (`manage.py staff_access`)."""


def new_secret(random: bytes) -> str:
    """A TOTP secret in base32, from `SECRET_BYTES` random ones."""
    return b32encode(random).decode()


def code_of(secret: str, step: int) -> str:
    """The code of a time step (RFC 6238, HMAC-SHA-1, six digits). Raises `ValueError` for what is no base32."""
    return totp(b32decode(secret), step)


def step_at(at: datetime) -> int:
    """The time step of a moment."""
    return int(at.timestamp()) // STEP_S


def otpauth_uri(secret: str, account: str) -> str:
    """What an authenticator app takes, as a link or a QR code."""
    label = quote(f"PenPay:{account}", safe="")
    return f"otpauth://totp/{label}?{urlencode({'secret': secret, 'issuer': 'PenPay', 'digits': DIGITS})}"


def normal(code: str) -> str:
    """Without what people put in between, and in capitals."""
    return re.sub(r"[\s-]", "", code).upper()


def shown(recovery_code: str) -> str:
    """In groups of four."""
    return "-".join(recovery_code[start : start + 4] for start in range(0, len(recovery_code), 4))


@dataclass(kw_only=True, eq=False)
class Factor:
    """A member of staff's authenticator. It counts from the first code that was given (`confirmed_at`)."""

    id: UUID
    user_id: UserId
    secret: str = field(repr=False)
    created_at: datetime
    confirmed_at: datetime | None = None
    last_step: int = 0  # of the newest code that was used: none is taken twice, and none that is older

    def takes(self, code: str, *, at: datetime) -> bool:
        """Whether it is the code of now; then it is spent. All that could fit are compared, in constant time."""
        now, given = step_at(at), normal(code).encode()
        fits = [
            step
            for step in range(now - DRIFT, now + DRIFT + 1)
            if hmac.compare_digest(code_of(self.secret, step).encode(), given)
        ]
        fresh = [step for step in fits if step > self.last_step]
        if not fresh:
            return False
        self.last_step = max(fresh)
        return True


@dataclass(frozen=True, kw_only=True)
class StaffMember:
    """Somebody of staff, as the sign-in knows them."""

    id: UserId
    name: str
    password_hash: str = field(repr=False)


@dataclass(kw_only=True)
class Tries:
    """How often somebody tried lately, under one key; forgotten `LOCKED_FOR` after the last one."""

    count: int
    last_at: datetime

    def locked_until(self, at: datetime) -> datetime | None:
        """Until when no try is taken; None while one is. A refused try does not prolong it."""
        over = self.last_at + LOCKED_FOR
        return over if self.count >= MOST_TRIES and at < over else None

    def add(self, at: datetime) -> None:
        """One more, counted before it is judged."""
        self.count = 1 if at >= self.last_at + LOCKED_FOR else self.count + 1
        self.last_at = at

    def give_back(self) -> None:
        """It was a good one."""
        self.count = max(0, self.count - 1)


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where somebody sits: the peer's address; and of a browser that they signed in with before, its own name."""

    address: str
    browser: str = ""

    def counted_under(self, member: StaffMember | None, given: str) -> Sequence[str]:
        """The keys that a try counts under, in one order everywhere. `given` is the name that was typed."""
        if member and self.browser:
            return [f"browser:{member.id}:{self.browser}"]
        account = f"account:{member.id}" if member else f"name:{hashlib.sha256(given.encode()).hexdigest()}"
        return sorted([account, f"address:{self.address}"])
