"""The evidence of one Transaction as a document: sections of rows, a SHA-256 over each, and one over the whole.

Bytes that are hashed: JSON with sorted keys, no blanks, ASCII only, in which every value is an object, a list, a text,
a whole number, a truth value or null. Whoever has the document can compute them again with any JSON library.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any, Protocol
from uuid import UUID

from shared_kernel.domain.errors import Unprocessable
from shared_kernel.domain.identifiers import TransactionId

FORMAT, VERSION = "penpay-evidence", 2
UNDERSTOOD = {1, 2}  # 2 has the sections of seals and breaks; all are hashed alike
TOLD = "evidence.told"  # the audit row of whoever was told
Row = dict[str, Any]


class NotEvidence(Unprocessable):
    """This is no evidence document, or none of a version that is understood here."""


@dataclass(frozen=True, kw_only=True)
class Records:
    """What is stored about one Transaction, in clear, as plain rows: amounts in minor units, times in UTC."""

    transaction: Row = field(repr=False)
    quote: Row
    customer: Row = field(repr=False)
    device: Row
    mpesa: Sequence[Row] = field(repr=False)
    callbacks: Sequence[Row] = field(repr=False)
    deriv: Sequence[Row] = field(repr=False)
    events: Sequence[Row]
    entries: Sequence[Row]
    proposals: Sequence[Row] = field(repr=False)
    reservations: Sequence[Row]
    orphans: Sequence[Row] = field(repr=False)
    breaks: Sequence[Row]
    audit: Sequence[Row]
    seals: Sequence[Row]


class Archive(Protocol):
    """Where the records are."""

    def records(self, id: TransactionId) -> Records | None:
        """All of one moment. None: no such Transaction."""

    def hashes_told(self, id: UUID) -> set[str]:
        """The SHA-256 of every document that was made of it, from the audit log."""

    def is_there(self, id: TransactionId) -> bool:
        """Whether there is such a Transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Who was told the story, when, and why; `approved_by` where personal data is in clear."""

    at: datetime
    by: str
    why: str = ""
    approved_by: str = ""

    @property
    def in_clear(self) -> bool:
        return bool(self.approved_by)


def document(transaction_id: UUID, told: Told, sections: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The whole of it, JSON-ready, with its hashes."""
    rows: dict[str, Any] = {name: json_ready(list(rows)) for name, rows in sections.items()}
    made: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "transaction": str(transaction_id),
        "made_at": json_ready(told.at),
        "made_by": told.by,
        "personal_data": "in clear" if told.in_clear else "masked",
        "why": told.why,
        "approved_by": told.approved_by,
        "sections": {name: {"rows": found, "sha256": digest(found)} for name, found in rows.items()},
    }
    return made | {"sha256": digest(_signed(made))}


def faults(made: Mapping[str, Any]) -> Iterator[str]:
    """What of a document does not fit its hashes. Raises `NotEvidence` for what is no such document."""
    try:
        if made["format"] != FORMAT or made["version"] not in UNDERSTOOD:
            raise NotEvidence(f"this is {made['format']} {made['version']}, not {FORMAT} up to {VERSION}")
        wrong = [name for name, one in made["sections"].items() if digest(one["rows"]) != one["sha256"]]
        whole = digest(_signed(made)) == made["sha256"]
    except (KeyError, TypeError, AttributeError) as missing:
        raise NotEvidence("this is no evidence document: a part of it is missing") from missing
    yield from (f"section {name} was altered: it does not have its SHA-256" for name in wrong)
    if not whole:
        yield "the document was altered: it does not have its SHA-256"


def _signed(made: Mapping[str, Any]) -> dict[str, Any]:
    """What the hash of the whole is over: its head, and the hashes of its sections."""
    head = {name: value for name, value in made.items() if name not in {"sections", "sha256"}}
    return head | {"sections": {name: one["sha256"] for name, one in made["sections"].items()}}


def digest(value: Any) -> str:
    """SHA-256 in hex of the canonical bytes."""
    return sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()).hexdigest()


def json_ready(value: Any) -> Any:
    """Times as RFC 3339 in UTC, ids and decimals as text; a float, which has no one form, as text, too."""
    match value:
        case Mapping():
            return {str(key): json_ready(inner) for key, inner in value.items()}
        case list() | tuple():
            return [json_ready(inner) for inner in value]
        case datetime() | date():
            return value.isoformat().replace("+00:00", "Z")
        case Decimal():
            return f"{value.normalize():f}"
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)
