"""An agent's own statement on v3: what it shows of one transfer, and all that it shows.

Source: Deriv contract, sections 2.4 and 6.2.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from deriv_integration.infrastructure.ws_v3.answers import error_of
from deriv_integration.infrastructure.ws_v3.link import AnswerLost, Link, NotWritten
from deriv_integration.infrastructure.ws_v3.statement import (
    Entry,
    Malformed,
    Sought,
    distinct,
    opening,
    parse_page,
    unbroken,
)
from shared_kernel.domain.money import Currency, InvalidAmount, Money
from shared_kernel.domain.outcome import Absent, Found, Lookup, Unreadable
from shared_kernel.domain.requests import AgentEntry, DerivTransfer, Leg

log = logging.getLogger(__name__)

PAGE = 999
MOST_PAGES = 40
READINGS = 2  # a busy account moves between statement and balance: read again before giving up
SKEW = timedelta(seconds=120)  # how far Deriv's clock may be from ours
NOTE = "PP "  # what our descriptions begin with


class Unusable(Exception):
    """A read that was answered with an error, or is longer than we read."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def note_of(reference: str) -> str:
    """The description of a transfer, by which the statement shows it."""
    return f"{NOTE}{reference}"


def look_up(link: Link, transfer: DerivTransfer) -> Lookup:
    """All entries of this transfer's reference since before the first attempt, or none.

    `Absent(proven=True)`: each balance follows from the one before, from an entry older than the sending up to the
    account's balance now, and nothing among them could be this transfer. Raises what `read_errors` takes.
    """
    since = int((sent_at(transfer) - SKEW).timestamp())
    incoming = transfer.leg is Leg.DERIV_DEBIT
    sought = Sought(note_of(transfer.reference), transfer.login.account, transfer.amount.decimal, incoming)
    for _ in range(READINGS):
        entries = entries_since(link, since)
        found = [entry for entry in entries if sought.is_in(entry)]
        if found:
            return Found(tuple(str(entry.id) for entry in found), (transfer.amount,) * len(found))
        if any(sought.may_be_in(entry) for entry in entries):
            log.error("Deriv's statement of %s may hold %s", transfer.agent, transfer.reference)
            break
        if _is_unbroken(link, entries, since):
            return Absent(proven=True)
    return Absent(proven=False)


def agent_entries(link: Link, since: datetime, currency: str) -> list[AgentEntry]:
    """Every entry since then, newest first. Raises what `read_errors` takes."""
    return [_public(entry, Currency(currency)) for entry in entries_since(link, int(since.timestamp()))]


def _public(entry: Entry, currency: Currency) -> AgentEntry:
    try:
        amount = Money.of_decimal(entry.amount, currency)
    except InvalidAmount:
        raise Malformed("amount") from None
    note = entry.note or ""
    return AgentEntry(
        id=str(entry.id),
        at=datetime.fromtimestamp(entry.time, tz=UTC),
        amount=amount,
        status="complete",
        reference=note.removeprefix(NOTE) if note.startswith(NOTE) else "",
        counterpart=entry.client,
    )


def unreadable(error: Exception) -> Unreadable:
    """What a failed reading is: `NotWritten`, `AnswerLost`, `Unusable` or `Malformed`."""
    if isinstance(error, NotWritten | AnswerLost | Unusable):
        return Unreadable(error.code)
    return Unreadable(f"statement_malformed: {error}")


READ_ERRORS = (NotWritten, AnswerLost, Unusable, Malformed)


def sent_at(transfer: DerivTransfer) -> datetime:
    """When the first attempt with this reference may have left: later ones look back to the Transaction's birth."""
    if transfer.attempt == 1 or transfer.transaction_id.version != 7:
        return transfer.created_at
    born = datetime.fromtimestamp((transfer.transaction_id.int >> 80) / 1000, tz=UTC)
    return min(transfer.created_at, born)


def entries_since(link: Link, since: int) -> list[Entry]:
    """Page by page, newest first; `since` in epoch seconds. Raises `Unusable` for a book longer than we read."""
    entries: list[Entry] = []
    for page in range(MOST_PAGES):
        request = {"statement": 1, "description": 1, "date_from": since, "limit": PAGE, "offset": page * PAGE}
        read = parse_page(good(link.read(request).message))
        entries += read
        if len(read) < PAGE:
            return distinct(entries)
    raise Unusable("statement_too_long")


def good(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer of a read. Raises `Unusable` for an error."""
    error = error_of(answer)
    if error is not None:
        raise Unusable(error[0][:64] or "no_code")
    return answer


def _is_unbroken(link: Link, entries: Sequence[Entry], since: int) -> bool:
    """Up to the balance now, and back to the last entry before `since` (or the account's first)."""
    balance = good(link.read({"balance": 1}).message).get("balance")
    amount = balance.get("balance") if isinstance(balance, dict) else None
    if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
        raise Malformed("balance")
    before = {"statement": 1, "description": 1, "date_to": since - 1, "limit": 1}
    anchor = parse_page(good(link.read(before).message))
    if any(entry.time >= since for entry in anchor):
        return False
    if not unbroken(entries, Decimal(amount)):
        return False
    starts = opening(entries)
    return (starts if starts is not None else Decimal(amount)) == (anchor[0].balance_after if anchor else 0)
