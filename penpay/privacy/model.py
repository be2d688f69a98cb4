"""The words of the data inventory: what is known of whom, why, for how long, and how its rows are found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What sort of personal data a column holds."""

    CONTACT = "contact"
    IDENTITY = "identity"
    ACCOUNT = "account"  # where somebody's money is
    MONEY = "money"  # what they moved, when, and what became of it
    CONDUCT = "conduct"  # what they did with PenPay, and from where
    DEVICE = "device"
    STANDING = "standing"  # by law
    MESSAGE = "message"  # raw, of a provider
    INDEX = "index"  # by which a value is found; tells nothing without its key
    SECRET = "secret"  # a credential or its hash  # noqa: S105 - the name of a kind
    GUARDED = "guarded"  # what a duty forbids to tell its subject (tipping off), or what tells of staff


NOT_SHOWN = frozenset({Kind.INDEX, Kind.SECRET, Kind.GUARDED})
"""What `export_subject` leaves out."""


class By(StrEnum):
    """How a row says whose it is."""

    USER = "user"  # the customer's id
    TEXT = "text"  # the same, as text
    PREFIX = "prefix"  # a text that begins with the id
    TRANSACTION = "transaction"  # a Transaction of theirs
    TRANSACTION_TEXT = "transaction_text"


@dataclass(frozen=True, slots=True)
class Path:
    """A look-up that leads to a customer's rows. `fixed` narrows it; `{user}` in its values is the customer's id."""

    lookup: str
    by: By = By.USER
    fixed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Datum:
    """One column of personal data; without a purpose or retention of its own it has its record's."""

    kind: Kind
    why: str = ""
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Personal:
    """A table that tells of customers. `data` and `other` name each of its columns once; `other` tells of nobody."""

    why: str
    kept: str  # a key of `KEPT`
    of: tuple[Path, ...]
    data: Mapping[str, Datum]
    other: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OfStaff:
    """A table whose only natural persons are staff, by their ids: what it is for."""

    why: str


@dataclass(frozen=True, slots=True)
class Impersonal:
    """A table that tells of no natural person: what it is for."""

    why: str


Entry = Personal | OfStaff | Impersonal

KEPT = {
    "aml_records": "{days} days after the end of the relationship (anti-money-laundering law); "
    "longer for whoever submitted identity documents, which nothing deletes yet",
    "until_erased": "until the customer asks for its erasure",
    "one_time_codes": "{days} days after they ran out",
    "email_codes": "{days} days after they ran out",
    "deriv_authorizations": "{days} days after they ran out; sooner once they are over",
    "notices": "{days} days",
    "sessions": "{days} days after they ended",
    "idempotency_keys": "{days} days for those of events; those of money for ever",
    "rate_limit_counters": "{days} days after the last of their tries counted",
    "for_ever": "for ever: append-only, and it names people by their ids alone",
}
"""Each way in which something is kept; `{days}` are those of `settings.RETENTION_DAYS` under the same name."""


def kinds(kind: Kind, *names: str, why: str = "", kept: str = "") -> dict[str, Datum]:
    """Several columns of one kind."""
    return dict.fromkeys(names, Datum(kind, why, kept))
