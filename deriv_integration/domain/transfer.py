"""What a transfer at Deriv is made of, on whichever platform, and what can be wrong before one is made."""

from base64 import b32encode
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from math import ceil

from shared_kernel.domain.errors import TooManyRequests, Unavailable, Unprocessable
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.requests import DerivPlatform, Leg


class DerivUnavailable(Unavailable):
    """Deriv can't be reached, or no agent credential may be used now."""


class DerivTokenRefused(Unprocessable):
    """Deriv does not accept this token."""


class DerivGrantRefused(Unprocessable):
    """Deriv does not take this authorization code, or this refresh token, any more."""


class DerivScopesMissing(Unprocessable):
    """The customer, or Deriv, has not allowed all that PenPay needs."""


class InsideTransaction(RuntimeError):
    """A provider is never called while a database transaction is open."""


class DerivPlatformUnsupported(Unprocessable):
    """No adapter for this platform."""


class WithdrawalRefused(Unprocessable):
    """Deriv does not let this customer withdraw this: `detail` is its reason in the customer's words.

    `provider_code` is Deriv's code, in full.
    """

    def __init__(self, detail: str, *, provider_code: str) -> None:
        super().__init__(detail)
        self.provider_code = provider_code


class CodeTooSoon(TooManyRequests):
    """Deriv sends the next one-time code not before `when`."""

    def __init__(self, when: datetime, *, at: datetime) -> None:
        wait_s = max(1, ceil((when - at).total_seconds()))
        super().__init__(
            f"Deriv has just sent you a code: use it, or ask for another one in {wait_s} seconds",
            retry_after=wait_s,
            next_request_at=when.isoformat(),
        )
        self.when = when


class Verdict(Enum):
    """What an error says about the money."""

    REFUSED = "refused"  # surely not executed, and never will be for this recipient and amount
    WAITS = "waits"  # surely not executed; our side's trouble, or one that passes
    UNKNOWN = "unknown"  # may have been executed: look it up


@dataclass(frozen=True, slots=True)
class DerivAccount:
    """Whom a token belongs to, by Deriv's own word. `account` is the login id on `ws_v3`, the nickname on `rest`.

    `full_name` is empty where Deriv does not tell it (on `rest` unless the customer has opted in): then nobody has
    shown that the account is the customer's own, and a check of the name must fail.
    """

    account: str = field(repr=False)
    currency: str
    full_name: str = field(repr=False)
    scopes: frozenset[str]
    is_virtual: bool


@dataclass(frozen=True, slots=True)
class DerivGrant:
    """What Deriv's token endpoint gives for a code or a refresh token. `refresh_token` is empty where none came."""

    token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_s: int


OURS = "pp-"  # how our request ids begin
MARKS = {Leg.DERIV_CREDIT: "D", Leg.DERIV_DEBIT: "W", Leg.DERIV_CREDIT_BACK: "B"}


def reference_of(transaction: TransactionId, leg: Leg) -> str:
    """What Deriv's statement carries for this leg: 27 characters of A-Z and 2-7, the same for each attempt.

    v3 has no idempotency key: only a search for the one reference of all attempts sees a late commit of an earlier one.
    """
    return MARKS[leg] + b32encode(transaction.bytes).decode().rstrip("=")


def request_id_of(transaction: TransactionId, leg: Leg, attempt: int) -> str:
    """The REST API's idempotency key of one attempt, of at most 40 characters; Deriv takes `^[\\w-]{1,128}$`."""
    return f"{OURS}{reference_of(transaction, leg)}-{attempt}"


def reference_on(platform: DerivPlatform, transaction: TransactionId, leg: Leg, attempt: int) -> str:
    """The reference of an attempt: one for all of a leg's attempts on v3, one for each on REST."""
    if platform is DerivPlatform.REST:
        return request_id_of(transaction, leg, attempt)
    return reference_of(transaction, leg)
