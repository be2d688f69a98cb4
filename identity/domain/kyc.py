"""What is known of a customer by law: KYC status and tier, the PEP status, and when two names are the same person's."""

import unicodedata
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shared_kernel.domain.errors import Conflict, Unprocessable


class KycStatus(StrEnum):
    """Where a customer's identity check stands; money moves only while it is `verified`."""

    NONE = "none"
    SUBMITTED = "submitted"
    VERIFIED = "verified"
    REJECTED = "rejected"
    EXPIRED = "expired"


class PepStatus(StrEnum):
    """Whether the customer is a politically exposed person."""

    UNKNOWN = "unknown"
    NO = "no"
    PENDING = "pending"  # found, and not approved by a second person yet
    APPROVED = "approved"


NEXT: dict[KycStatus, frozenset[KycStatus]] = {
    KycStatus.NONE: frozenset({KycStatus.SUBMITTED, KycStatus.VERIFIED}),
    KycStatus.SUBMITTED: frozenset({KycStatus.VERIFIED, KycStatus.REJECTED}),
    KycStatus.VERIFIED: frozenset({KycStatus.SUBMITTED, KycStatus.VERIFIED, KycStatus.REJECTED, KycStatus.EXPIRED}),
    KycStatus.REJECTED: frozenset({KycStatus.SUBMITTED, KycStatus.VERIFIED}),
    KycStatus.EXPIRED: frozenset({KycStatus.SUBMITTED, KycStatus.VERIFIED}),
}


class IllegalKycStep(Conflict):
    """The identity check does not go from this status to that one."""


class InvalidTier(Unprocessable):
    """Not a tier: lower-case letters, digits and underscores, at most 16."""


@dataclass(frozen=True, slots=True)
class Kyc:
    """A customer's standing: `tier` chooses the limits; both dates are of the present status."""

    status: KycStatus = KycStatus.NONE
    tier: str = "none"
    status_at: datetime | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        if not (self.tier.isascii() and self.tier.replace("_", "").isalnum() and self.tier == self.tier.lower()):
            raise InvalidTier("a tier is written in lower-case letters, digits and underscores")
        if len(self.tier) > 16:
            raise InvalidTier("a tier has at most 16 characters")

    def to(self, status: KycStatus, *, tier: str | None, at: datetime, expires_at: datetime | None = None) -> "Kyc":
        """The standing after a decision. Raises `IllegalKycStep`, `InvalidTier`."""
        if status not in NEXT[self.status]:
            raise IllegalKycStep(f"a KYC status does not go from {self.status} to {status}")
        return Kyc(status, self.tier if tier is None else tier, at, expires_at)


def name_words(name: str) -> frozenset[str]:
    """The words of a name without accents, case and punctuation, as names are compared."""
    plain = unicodedata.normalize("NFKD", name).casefold()
    letters = "".join(c for c in plain if not unicodedata.combining(c) and c not in "'’`-.")
    return frozenset(word for word in "".join(c if c.isalnum() else " " for c in letters).split() if word)


def same_person(known: str, told: str) -> bool:
    """Whether two full names fit one person: one holds all words of the other, which are two at least."""
    ours, theirs = name_words(known), name_words(told)
    return len(ours & theirs) >= 2 and (ours <= theirs or theirs <= ours)
