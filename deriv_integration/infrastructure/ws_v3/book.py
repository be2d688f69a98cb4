"""An agent's own statement on v3: what it shows of one transfer, and all that it shows.

Source: Deriv contract, sections 2.4 and 6.2.
"""

import logging
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
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
MOST_KNOWN = 5 * PAGE  # entries that are kept in memory, some 4 MB
READINGS = (False, True, True)  # whether anew: a busy account moves between statement and balance, so it has two tries
SKEW = timedelta(seconds=120)  # how far Deriv's clock may be from ours
NOTE = "PP "  # what our descriptions begin with
REVERSAL = re.compile(r"Reversal of ([0-9]{1,20})")  # assumed: no sample of an entry that takes another one back


class Unusable(Exception):
    """A read that was answered with an error, or is longer than we read."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def note_of(reference: str) -> str:
    """The description of a transfer, by which the statement shows it."""
    return f"{NOTE}{reference}"


@dataclass(frozen=True, slots=True)
class Reading:
    """All entries from `since` (epoch seconds) on, newest first; the last is the one before them, if there is any.

    `balance` is the account's right after; None where older entries were known from an earlier reading.
    """

    since: int
    entries: Sequence[Entry]
    balance: Decimal | None = None

    def proves(self, since: int) -> bool:
        """Whether none is missing: each balance follows from the one before, from before `since` to the one now."""
        return self.balance is not None and self.is_unbroken(since, self.balance)

    def is_unbroken(self, since: int, balance: Decimal) -> bool:
        """Whether each balance follows from the one before, from before `since` up to this one."""
        for number, entry in enumerate(self.entries):
            if entry.time < since:
                return unbroken(self.entries[: number + 1], balance)
        starts = opening(self.entries)
        return unbroken(self.entries, balance) and (balance if starts is None else starts) == 0


NOTHING = Reading(sys.maxsize, ())


@dataclass(slots=True)
class Round:
    """The questions that one reading answers: those that were there when it began."""

    since: int = sys.maxsize
    anew: bool = False
    answer: Future[Reading] = field(default_factory=Future)


class Book:
    """The statement of one agent, as this process reads it.

    A look-up needs all entries since before its transfer, and at volume that is thousands, of calls that Deriv counts.
    So one reading answers all questions that waited when it began. To find an entry, what was read is kept, and only
    its end is read again; that there is none is said by a reading of the whole alone.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self._known = NOTHING
        self._gathering = Round()
        self._gate = threading.Lock()  # of the round that still takes questions
        self._turn = threading.Lock()  # one reading at a time

    def look_up(self, transfer: DerivTransfer) -> Lookup:
        """All entries of this transfer's reference since before the first attempt, or none.

        `Absent(proven=True)`: each balance follows from the one before, from an entry older than the sending up to the
        account's balance now, and nothing among them could be this transfer. Raises `READ_ERRORS`.
        """
        since = int((sent_at(transfer) - SKEW).timestamp())
        incoming = transfer.leg is Leg.DERIV_DEBIT
        sought = Sought(note_of(transfer.reference), transfer.login.account, transfer.amount.decimal, incoming)
        for anew in READINGS:
            read = self._read_since(since, anew=anew)
            entries = [entry for entry in read.entries if entry.time >= since]
            found = [entry for entry in entries if sought.is_in(entry)]
            if found:
                return Found(tuple(str(entry.id) for entry in found), (transfer.amount,) * len(found))
            if any(sought.may_be_in(entry) for entry in entries):
                log.error("Deriv's statement of %s may hold %s", transfer.agent, transfer.reference)
                break
            if read.proves(since):
                return Absent(proven=True)
        return Absent(proven=False)

    def entries(self, since: datetime, currency: str) -> list[AgentEntry]:
        """Every entry since then, newest first. Raises `READ_ERRORS`."""
        start = int(since.timestamp())
        complete_since, entries = self._pages(start)
        if complete_since > start:
            raise Unusable("statement_too_long")
        return [_public(entry, Currency(currency)) for entry in entries]

    def balance(self, currency: str) -> Money:
        """What the account holds now. Raises `READ_ERRORS`."""
        try:
            return Money.of_decimal(self._balance(currency), Currency(currency))
        except InvalidAmount:
            raise Malformed("balance") from None

    def _read_since(self, since: int, *, anew: bool) -> Reading:
        """A reading at least since then, that began after this question. Raises `READ_ERRORS`."""
        with self._gate:
            mine = self._gathering
            mine.since = min(mine.since, since)
            mine.anew = mine.anew or anew
        with self._turn:
            if not mine.answer.done():
                with self._gate:
                    self._gathering = Round()
                try:
                    mine.answer.set_result(self._read(mine.since, anew=mine.anew))
                except READ_ERRORS as failed:
                    mine.answer.set_exception(failed)
        read = mine.answer.result()
        if read.since > since:
            raise Unusable("statement_too_long")
        return read

    def _read(self, since: int, *, anew: bool) -> Reading:
        known, self._known = self._known, NOTHING  # an error on the way leaves nothing that is not sure
        read = None if anew or known.since > since else self._continued(known)
        if read is None:
            read = self._whole(since)
            if not read.entries or not read.is_unbroken(read.since, read.entries[0].balance_after):
                return read
        self._known = read
        if len(read.entries) > MOST_KNOWN:
            self._known = Reading(read.entries[MOST_KNOWN - 1].time + 1, read.entries[:MOST_KNOWN])
        return read

    def _continued(self, known: Reading) -> Reading | None:
        """What is known and what came after it; None where the statement does not go on from there."""
        newest = known.entries[0]
        _, end = self._pages(newest.time)
        newer = end[: end.index(newest)] if newest in end else []
        if newest not in end or (newer and not unbroken([*newer, newest], newer[0].balance_after)):
            return None
        return Reading(known.since, [*newer, *known.entries])

    def _whole(self, since: int) -> Reading:
        complete_since, entries = self._pages(since)
        balance = self._balance()
        before = {"statement": 1, "description": 1, "date_to": complete_since - 1, "limit": 1}
        return Reading(complete_since, [*entries, *parse_page(good(self.link.read(before).message))], balance)

    def _pages(self, since: int) -> tuple[int, list[Entry]]:
        """Page by page, newest first, as far back as we read: from when on all are there, and they."""
        entries: list[Entry] = []
        for page in range(MOST_PAGES):
            request = {"statement": 1, "description": 1, "date_from": since, "limit": PAGE, "offset": page * PAGE}
            read = parse_page(good(self.link.read(request).message))
            entries += read
            if len(read) < PAGE:
                return since, distinct(entries)
        return entries[-1].time + 1, distinct(entries)

    def _balance(self, currency: str = "") -> Decimal:
        told = good(self.link.read({"balance": 1}).message).get("balance")
        balance = told if isinstance(told, dict) else {}
        amount = balance.get("balance")
        if currency and balance.get("currency") != currency:
            raise Malformed("balance in another currency")
        if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
            raise Malformed("balance")
        return Decimal(amount)


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
        reverses=taken_back[1] if (taken_back := REVERSAL.fullmatch(entry.longcode)) else "",
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


def good(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer of a read. Raises `Unusable` for an error."""
    error = error_of(answer)
    if error is not None:
        raise Unusable(error[0][:64] or "no_code")
    return answer
