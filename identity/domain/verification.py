"""One-time codes: five minutes, five tries, one open at a time for each purpose, and not too many of them.

A code is good for one purpose, one target (the phone or address that it was sent to) and one asker (a session, a
device): its HMAC covers all of them, so that a code of one is a wrong code for every other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

from identity.domain.contact import Email
from shared_kernel.domain.errors import Conflict, DomainError, TooManyRequests, Unprocessable
from shared_kernel.domain.identifiers import Phone, UserId

TTL = timedelta(minutes=5)
TRIES = 5
MOST = ((3, timedelta(minutes=10)), (10, timedelta(days=1)))  # codes of a purpose (and asker: `APART`) in a while

Target: TypeAlias = Phone | Email


class Purpose(StrEnum):
    """What a code allows, once."""

    PROVE_PHONE = "prove_phone"
    PROVE_EMAIL = "prove_email"
    NEW_PHONE = "new_phone"
    NEW_EMAIL = "new_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - no password
    STEP_UP = "step_up"
    NEW_DEVICE = "new_device"


APART = frozenset({Purpose.RESET_PASSWORD})
"""Purposes that anybody may ask for: each asker has an open code, tries and `MOST` of its own, for else strangers would
use up those of a device that is known.
"""


class Channel(StrEnum):
    """How a text reaches a customer."""

    SMS = "sms"
    EMAIL = "email"

    @classmethod
    def of(cls, target: Target) -> "Channel":
        """The one that reaches this phone or address."""
        return cls.SMS if isinstance(target, Phone) else cls.EMAIL


CHANNELS: dict[Purpose, tuple[Channel, ...]] = {
    Purpose.PROVE_PHONE: (Channel.SMS,),
    Purpose.PROVE_EMAIL: (Channel.EMAIL,),
    Purpose.NEW_PHONE: (Channel.SMS,),
    Purpose.NEW_EMAIL: (Channel.EMAIL,),
    Purpose.RESET_PASSWORD: (Channel.SMS, Channel.EMAIL),
    Purpose.STEP_UP: (Channel.SMS, Channel.EMAIL),
    Purpose.NEW_DEVICE: (Channel.SMS,),
}
"""The channels that codes of a purpose go by."""


class WrongCode(Unprocessable):
    """Not the code that was sent; `extra["tries_left"]`."""


class NoOpenCode(Conflict):
    """No code is open: none was asked for, or it is used up, too old, or was tried too often."""


class CodesAskedTooOften(TooManyRequests):
    """Each code costs a message and gives a guesser five tries."""


@dataclass(kw_only=True, eq=False)
class OneTimeCode:
    """A code that was sent to `target`; only its HMAC is known."""

    id: UUID
    user_id: UserId
    purpose: Purpose
    target: Target
    asker: str = ""  # where the askers of a purpose are `APART`
    code_hash: str = field(repr=False)
    created_at: datetime
    expires_at: datetime
    attempts: int = 0
    consumed_at: datetime | None = None
    is_open: bool = True

    def submit(self, right: bool, *, at: datetime) -> DomainError | None:
        """Counts a try. The refusal, if it is refused, as a value: the try is to be stored all the same."""
        if not self.is_open or at >= self.expires_at:
            self.is_open = False
            return NoOpenCode("no code is open: ask for a new one")
        self.attempts += 1
        if right:
            self.consumed_at, self.is_open = at, False
            return None
        self.is_open = self.attempts < TRIES
        left = TRIES - self.attempts
        hint = f"{left} tries are left" if left else "ask for a new one"
        return WrongCode(f"this is not the code that was sent: {hint}", tries_left=left)


def refuse_too_many(sent: Sequence[datetime], *, at: datetime) -> None:
    """Raises `CodesAskedTooOften` when another code would be one too many; `sent` holds when codes were sent."""
    for most, while_ in MOST:
        recent = sorted(when for when in sent if when > at - while_)
        if len(recent) >= most:
            wait = (recent[-most] + while_ - at).total_seconds()
            raise CodesAskedTooOften("too many codes were asked for: wait, then ask again", retry_after=int(wait) + 1)
