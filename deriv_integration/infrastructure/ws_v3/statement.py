"""Reads an agent's v3 statement: which entries are a given transfer, and whether the book has a gap.

A longcode holds text that others wrote (a customer's note, a display name). Our own note can't hold a colon, so the
last "Agent note:" is the real one and everything before it is read from there.
Source: Deriv contract, sections 2.4 and 6.2.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

PA_TRANSFER = re.compile(
    r"transfer from payment agent .* to (?P<client>[a-z]+[0-9]+)\.? +"
    r"transaction reference: *[0-9a-f-]{36}\.? +"
    r"timestamp: *[0-9]{1,2}-[a-z]{3}-[0-9]{2,4} +[0-9:]{5,8} ?gmt\.? +"
    r"agent note: ?(?P<note>[0-9a-z .,'-]*)",
    re.IGNORECASE,
)


class Malformed(ValueError):
    """An entry without an id, an amount or a balance: this can't be read as a statement."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the statement; `amount` is signed, `note` and `client` are set on a readable transfer of ours."""

    id: int
    time: int
    amount: Decimal
    balance_after: Decimal
    longcode: str
    client: str
    note: str | None

    @classmethod
    def parse(cls, raw: Any) -> "Entry":
        """Raises `Malformed`."""
        if not isinstance(raw, Mapping):
            raise Malformed("entry")
        id, time, longcode = raw.get("transaction_id"), raw.get("transaction_time"), raw.get("longcode", "")
        if type(id) is not int or type(time) is not int:
            raise Malformed("id or time")
        text = " ".join(longcode.split()) if isinstance(longcode, str) else ""
        match = PA_TRANSFER.fullmatch(text)
        return cls(
            id,
            time,
            _decimal(raw.get("amount")),
            _decimal(raw.get("balance_after")),
            text,
            match["client"].upper() if match else "",
            match["note"].strip() if match else None,
        )


@dataclass(frozen=True, slots=True)
class Sought:
    """The transfer that is looked for: its note as it was sent, its recipient, its (positive) amount."""

    note: str
    account: str
    amount: Decimal

    def is_in(self, entry: Entry) -> bool:
        """Note, amount and recipient, each at its place."""
        return entry.note == self.note and entry.amount == -self.amount and entry.client == self.account.upper()

    def may_be_in(self, entry: Entry) -> bool:
        """Money left, and the entry names our reference in another way or can't be read: nothing is proven."""
        names_it = self.note.split()[-1] in entry.longcode.upper()
        return entry.amount < 0 and (names_it or (entry.note is None and entry.amount == -self.amount))


def parse_page(answer: Mapping[str, Any]) -> list[Entry]:
    """A `statement` answer's entries, newest first. Raises `Malformed`."""
    statement = answer.get("statement")
    entries = statement.get("transactions") if isinstance(statement, Mapping) else None
    if not isinstance(entries, list):
        raise Malformed("statement")
    return [Entry.parse(raw) for raw in entries]


def distinct(entries: Iterable[Entry]) -> list[Entry]:
    """Pages overlap when the book grows meanwhile: each entry once, in the order given."""
    return list({entry.id: entry for entry in entries}.values())


def unbroken(entries: Sequence[Entry], balance: Decimal) -> bool:
    """Whether each balance follows from the one before (newest first) and the newest is the account's `balance`."""
    after = balance
    for entry in entries:
        if entry.balance_after != after:
            return False
        after = entry.balance_after - entry.amount
    return True


def opening(entries: Sequence[Entry]) -> Decimal | None:
    """The balance before the oldest entry; None without entries."""
    return entries[-1].balance_after - entries[-1].amount if entries else None


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Malformed("amount")
    return Decimal(value)
