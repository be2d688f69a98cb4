"""Reads an agent's v3 statement: which entries are a given transfer, and whether the book has a gap.

A longcode holds text that others wrote (a customer's note, a display name). A note can't hold a colon, so the last
"Agent note:" or "Client note:" is the real one and everything before it is read from there; the client of a withdrawal
stands at the very beginning, before anything that anybody chose.
Source: Deriv contract, sections 2.4, 3.4 and 6.2.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

STAMPED = (
    r"transaction reference: *[0-9a-f-]{36}\.? +"
    r"timestamp: *[0-9]{1,2}-[a-z]{3}-[0-9]{2,4} +[0-9:]{5,8} ?gmt\.? +"
)
PA_TRANSFER = re.compile(
    rf"transfer from payment agent .* to (?P<client>[a-z]+[0-9]+)\.? +{STAMPED}"
    r"agent note: ?(?P<note>[0-9a-z .,'-]*)",
    re.IGNORECASE | re.ASCII,
)
PA_WITHDRAWAL = re.compile(
    rf"transfer from (?P<client>[a-z]+[0-9]+) to payment agent .*?\.? *{STAMPED}"
    r"client note: ?(?P<note>[0-9a-z .,'-]*)",
    re.IGNORECASE | re.ASCII,
)


class Malformed(ValueError):
    """An entry without an id, an amount or a balance: this can't be read as a statement."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the statement; `amount` is signed.

    `note` and `client` are set on a readable payment of an agent's: a transfer to a client, or (`is_withdrawal`) a
    client's withdrawal, whose note the client wrote.
    """

    id: int
    time: int
    amount: Decimal
    balance_after: Decimal
    longcode: str
    client: str
    note: str | None
    is_withdrawal: bool = False

    @classmethod
    def parse(cls, raw: Any) -> "Entry":
        """Raises `Malformed`."""
        if not isinstance(raw, Mapping):
            raise Malformed("entry")
        id, time, longcode = raw.get("transaction_id"), raw.get("transaction_time"), raw.get("longcode", "")
        if type(id) is not int or type(time) is not int:
            raise Malformed("id or time")
        text = " ".join(longcode.split()) if isinstance(longcode, str) else ""
        match = PA_TRANSFER.fullmatch(text) or PA_WITHDRAWAL.fullmatch(text)
        return cls(
            id,
            time,
            _decimal(raw.get("amount")),
            _decimal(raw.get("balance_after")),
            text,
            match["client"].upper() if match else "",
            match["note"].strip() if match else None,
            match is not None and match.re is PA_WITHDRAWAL,
        )


@dataclass(frozen=True, slots=True)
class Sought:
    """The transfer that is looked for: its note as it was sent, the client, its (positive) amount.

    `incoming` is a client's withdrawal to us, else it is our transfer to the client.
    """

    note: str
    account: str
    amount: Decimal
    incoming: bool = False

    def is_in(self, entry: Entry) -> bool:
        """Note, amount, direction and client, each at its place."""
        return (
            entry.note == self.note
            and entry.amount == self._signed
            and entry.is_withdrawal == self.incoming
            and self._is_of_client(entry)
        )

    def may_be_in(self, entry: Entry) -> bool:
        """Money moved that way, and the entry names our reference in another way or can't be read: nothing is proven.

        A readable withdrawal of another client is not ours, whatever its note says: anybody can write a note.
        """
        names_it = self.note.split()[-1] in entry.longcode.upper()
        if entry.amount * self._signed <= 0:
            return False
        if self.incoming and entry.note is not None:
            return names_it and entry.is_withdrawal and self._is_of_client(entry)
        return names_it or (entry.note is None and entry.amount == self._signed)

    @property
    def _signed(self) -> Decimal:
        return self.amount if self.incoming else -self.amount

    def _is_of_client(self, entry: Entry) -> bool:
        return entry.client == self.account.upper()


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
