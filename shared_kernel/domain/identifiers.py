"""Typed identifiers (UUIDv7, ordered by time) and the phone number, which identifies an M-Pesa customer."""

import re
from dataclasses import dataclass
from typing import NewType
from uuid import UUID

from shared_kernel.domain.errors import Unprocessable

UserId = NewType("UserId", UUID)
DeviceId = NewType("DeviceId", UUID)
QuoteId = NewType("QuoteId", UUID)
TransactionId = NewType("TransactionId", UUID)
RequestId = NewType("RequestId", UUID)
EventId = NewType("EventId", UUID)
JournalId = NewType("JournalId", UUID)
EntryId = NewType("EntryId", UUID)
DerivTransferId = NewType("DerivTransferId", str)  # Deriv's own transaction id: an integer on the wire, text here

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,128}")


class InvalidIdempotencyKey(Unprocessable):
    """Not 1 to 128 visible ASCII characters."""


class InvalidPhone(Unprocessable):
    """Not a Kenyan mobile number."""


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What a client repeats so that a retry has one effect: unique within `scope` (user and route)."""

    scope: str
    key: str

    def __post_init__(self) -> None:
        if not IDEMPOTENCY_KEY.fullmatch(self.key):
            raise InvalidIdempotencyKey("Idempotency-Key is 1 to 128 visible ASCII characters, such as a UUID")


@dataclass(frozen=True, slots=True)
class Phone:
    """A Kenyan mobile number as M-Pesa writes it:
    `number` is 2547XXXXXXXX or 2541XXXXXXXX. `str` and `repr` are masked.
    """

    number: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"254[17][0-9]{8}", self.number):
            raise InvalidPhone("give a Kenyan mobile number, as in +254712345678 or 0712345678")

    @classmethod
    def parse(cls, text: str) -> "Phone":
        """Takes +254…, 254…, 07…, 01…, 7…, 1…, with spaces and hyphens.

        Raises `InvalidPhone`; ported numbers are never refused.
        """
        digits = re.sub(r"[ \-()]", "", text) if isinstance(text, str) and len(text) <= 24 else ""
        local = re.fullmatch(r"(?:\+?254|0)?([17][0-9]{8})", digits, re.ASCII)
        return cls("254" + local[1] if local else "")

    def __str__(self) -> str:
        return f"+{self.number[:4]}****{self.number[-4:]}"

    def __repr__(self) -> str:
        return f"Phone({self})"
