"""What a transfer at Deriv is made of, on whichever platform, and what can be wrong before one is made."""

from base64 import b32encode
from dataclasses import dataclass, field

from shared_kernel.domain.errors import Unavailable, Unprocessable
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.requests import Leg


class DerivUnavailable(Unavailable):
    """Deriv can't be reached, or no agent credential may be used now."""


class DerivTokenRefused(Unprocessable):
    """Deriv does not accept this token."""


class DerivPlatformUnsupported(Unprocessable):
    """No adapter for this platform."""


@dataclass(frozen=True, slots=True)
class DerivAccount:
    """Whom a token belongs to, by Deriv's own word. `account` is the login id on `ws_v3`, the nickname on `rest`."""

    account: str = field(repr=False)
    currency: str
    full_name: str = field(repr=False)
    scopes: frozenset[str]
    is_virtual: bool


MARKS = {Leg.DERIV_CREDIT: "D", Leg.DERIV_DEBIT: "W", Leg.DERIV_CREDIT_BACK: "B"}


def reference_of(transaction: TransactionId, leg: Leg) -> str:
    """What Deriv's statement carries for this leg: 27 characters of A-Z and 2-7, the same for each attempt.

    v3 has no idempotency key: only a search for the one reference of all attempts sees a late commit of an earlier one.
    """
    return MARKS[leg] + b32encode(transaction.bytes).decode().rstrip("=")
