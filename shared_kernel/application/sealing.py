"""Rows are sealed in order, behind the backs of those who write them; and whoever changed one afterwards is found.

`Sealing` makes Seals. A Seal is committed first and anchored next: a crash in between leaves one Seal that the anchor
does not know, which the next run looks at again and anchors. Nothing else is ever mended: where database and anchor
differ in another way, sealing stops until a person has looked. `ChainCheck` finds the first row that is wrong.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from typing import TypeAlias

from shared_kernel.domain.ports import Clock, IdSource, Leases, UnitOfWork
from shared_kernel.domain.seals import (
    BEFORE_ALL,
    GENESIS,
    MARK_BYTES,
    Anchor,
    AnchorBroken,
    Anchored,
    AnchorOutOfReach,
    NewStart,
    RowsStillOpen,
    Seal,
    SealBook,
    SealNotFound,
    SealsContradictAnchor,
    SealTaken,
    Unsealed,
    first_wrong,
    marks_in,
    seq_of,
)

log = logging.getLogger(__name__)

ROWS = 1000  # of a Seal, at most: what cannot be told within a rewritten chain
SEALS_AT_ONCE = 20  # that a check reads, with their rows
LEASE = timedelta(minutes=2)
READINGS = 5  # of database and anchor, while others seal between the two
LATE = timedelta(hours=1)  # rows that wait longer for their Seal, or a Seal for its anchor: nobody is sealing

Progress: TypeAlias = Callable[[str, int, int], None]
"""Chain, seals done, seals in all."""

Fault: TypeAlias = tuple[str, str]
"""A row, and what is wrong with it."""


@dataclass(frozen=True)
class Sealing:
    """Makes the Seals of every chain. Any number may run: one works on a chain, the others leave at once."""

    book: SealBook
    anchor: Anchor
    leases: Leases
    unit_of_work: UnitOfWork
    new_id: IdSource
    clock: Clock

    def horizon(self, chain: str) -> int:
        """Up to where the rows can be sealed once every statement that is running now has stored its row.

        A seq is given out when a row is about to be stored, in rising order. So whoever will still store one below the
        highest that is committed now has it already, and is between those two moments: wait some seconds, then `seal`.
        """
        return self.book.last_seq(chain)

    def seal(self, chain: str, up_to: int) -> int:
        """Seals what is not sealed yet up to a `horizon`; how many Seals were made.

        Raises `SealsContradictAnchor`, `AnchorBroken`, `AnchorOutOfReach`.
        """
        lease, holder = f"sealing.{chain}", str(self.new_id())
        if not self.leases.acquire(lease, holder, LEASE):
            return 0
        try:
            made, head = 0, self._anchored_head(chain)
            while seal := self._next(chain, head, up_to):
                alone = self._anchor(seal)
                made, head = made + 1, seal
                if not alone or not self.leases.acquire(lease, holder, LEASE):  # prolonged
                    break
        finally:
            self.leases.release(lease, holder)
        return made

    def _next(self, chain: str, head: Seal | None, up_to: int) -> Seal | None:
        """Stores the next Seal; None if there is no row to seal, or another worker holds one."""
        after = head.last_seq if head else BEFORE_ALL
        try:
            with self.unit_of_work():
                marks = self.book.settled(chain, after=after, up_to=up_to, most=ROWS)
                if not marks:
                    return None
                seal = Seal.over(marks, head, chain=chain, layout=self.book.newest_layout(chain), at=self.clock())
                self.book.add(seal)
        except (RowsStillOpen, SealTaken) as another:
            log.info("sealing_put_off", extra={"chain": chain, "reason": another.code})
            return None
        return seal

    def head(self, chain: str) -> tuple[Seal | None, bool]:
        """The last Seal, and whether a crash has kept it from the anchor, which agrees with it but for that.

        Raises `SealsContradictAnchor`, `AnchorBroken`, `AnchorOutOfReach`.
        """
        seen: tuple[object, object] | None = None
        for _ in range(READINGS):
            head, known = self.book.head(chain), self.anchor.head(chain)
            if tip(head) == tip(known):
                return head, False
            if head is not None and head.number == tip(known)[0] + 1:
                before = self.book.seal(chain, head.number - 1)
                if tip(before) == tip(known) and not self._fault(head, before):
                    return head, True
            if seen == (tip(head), tip(known)):
                break
            seen = tip(head), tip(known)  # two readings of two places: another worker may have sealed between them
        raise SealsContradictAnchor(
            f"{chain}: the database ends with seal {tip(head)[0]}, the anchor with seal {tip(known)[0]}, and one does"
            " not follow from the other; nothing is sealed until this is explained: run verify_ledger and verify_audit,"
            " and continue_anchor once it is"
        )

    def _anchored_head(self, chain: str) -> Seal | None:
        """The last Seal, once the anchor agrees. Anchors the one that a crash has left. Raises as `head`."""
        head, is_late = self.head(chain)
        while head and is_late:
            if self._anchor(head):
                log.warning("seal_anchored_late", extra={"chain": chain, "number": head.number})
                break
            head, is_late = self.head(chain)
        return head

    def _anchor(self, seal: Seal) -> bool:
        """Anchors a Seal; False if others, whose lease ran out or whose Seal it is, did so before and have gone on.

        Raises `SealsContradictAnchor`, `AnchorBroken`, `AnchorOutOfReach`.
        """
        try:
            self.anchor.append(seal)
        except SealsContradictAnchor:
            line = self.anchor.find(seal.chain, [seal.number]).get(seal.number)
            if line is None or (line.number, line.hash) != (seal.number, seal.hash):
                raise
            return False
        return True

    def _fault(self, seal: Seal, before: Seal | None) -> str:
        """What is wrong with a Seal or its rows; empty if nothing is."""
        if fault := seal.fault_after(before):
            return fault
        wrong = wrong_row(self.book, [seal], before)
        return wrong[1] if wrong else ""


@dataclass
class ChainReport:
    """What was looked at. `faults` begins with the first row that is wrong."""

    chain: str
    from_seal: int
    seals: int = 0
    rows: int = 0
    unsealed: Unsealed = field(default_factory=lambda: Unsealed(0))
    unanchored: int = 0
    new_starts: list[NewStart] = field(default_factory=list)  # where the anchor was begun anew: told for ever
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class SealedRows:
    """Some rows under one Seal: `wrong` says what is wrong with them or with the Seal, `anchor` what stands there."""

    seal: Seal
    seqs: list[int]
    wrong: str
    anchor: str


@dataclass(frozen=True)
class ChainCheck:
    """Holds rows, Seals and anchor against each other, in constant memory, while rows are written and sealed."""

    book: SealBook
    anchor: Anchor
    clock: Clock

    def anchored(self, chain: str) -> int:
        """The number of the last anchored Seal: to be asked before a snapshot of the database is opened.

        0 if there is none, or if the anchor is broken, which `check` will tell.
        """
        try:
            return tip(self.anchor.head(chain))[0]
        except AnchorBroken:
            return 0

    def check(
        self, chain: str, *, from_seal: int = 1, anchored: int | None = None, progress: Progress = lambda *_: None
    ) -> ChainReport:
        """Looks at the Seals from `from_seal` on, at their rows, and at every line of the anchor.

        `anchored` is what `anchored` said before the database's snapshot: Seals made since then are not missed.
        Raises `SealNotFound` when the chain has not come that far.
        """
        must_be = self.anchored(chain) if anchored is None else anchored
        head = self.book.head(chain)
        last = max(must_be, tip(head)[0])
        if from_seal - 1 > last:
            raise SealNotFound(f"{chain} ends with seal {last}: there is none to start from before seal {from_seal}")
        walk = _Walk(self.book, chain, ChainReport(chain, from_seal), self.anchor.lines(chain), progress)
        if walk.start(from_seal - 1) and walk.to(head):
            walk.end(must_be, late=self.clock() - LATE)
        walk.read_on()
        return walk.report

    def look(self, chain: str, seals: Mapping[int, int]) -> list[SealedRows]:
        """These rows (seq to the number of its Seal), each Seal with its own. In a fixed number of SELECTs."""
        numbers = sorted(set(seals.values()))
        found = self.book.numbered(chain, {near for number in numbers for near in (number - 1, number) if near})
        layouts = {found[number].layout for number in numbers if number in found}
        marks = {layout: self.book.marks_of(chain, layout, sorted(seals)) for layout in layouts}
        anchored = self._anchored_as(chain, numbers)
        told = []
        for number in numbers:
            if (seal := found.get(number)) is not None:
                seqs = sorted(seq for seq, of in seals.items() if of == number)
                wrong = seal.fault_after(found.get(number - 1)) or _wrong_among(seqs, seal, marks[seal.layout])
                told.append(SealedRows(seal, seqs, wrong, anchored(seal)))
        return told

    def _anchored_as(self, chain: str, numbers: Sequence[int]) -> Callable[[Seal], str]:
        try:
            lines = self.anchor.find(chain, numbers)
        except (AnchorBroken, AnchorOutOfReach) as unread:
            kind = "is not within reach here" if isinstance(unread, AnchorOutOfReach) else unread.detail
            return lambda seal: f"not looked at: the anchor {kind}"

        def told(seal: Seal) -> str:
            if (line := lines.get(seal.number)) is None:
                return "not anchored yet"
            if line.number != seal.number:
                return f"by seal {line.number}, from which the anchor was begun anew at {line.at:%Y-%m-%d %H:%M:%S}"
            sound = line.hash == seal.hash
            return f"anchored at {line.at:%Y-%m-%d %H:%M:%S}" if sound else "the anchor has another hash"

        return told


@dataclass
class _Walk:
    """One pass over a chain beside its anchor. Its steps say whether all was sound so far."""

    book: SealBook
    chain: str
    report: ChainReport
    lines: Iterator[Anchored]
    progress: Progress
    before: Seal | None = None
    line: Anchored | None = None
    read: bool = False  # the anchor, to its end or to where it is broken
    broken: bool = False
    begun_at: int = 0  # the Seal from which the anchor was begun anew; it vouches for those before

    def start(self, number: int) -> bool:
        """The Seal before the first that is looked at: it must be the anchored one."""
        if not number:
            return True
        if (seal := self.book.seal(self.chain, number)) is None:
            return self._wrong(self._missing(number))
        self.before = seal
        return self._wrong(self._against_anchor(seal))

    def to(self, head: Seal | None) -> bool:
        """Every Seal up to `head`, and its rows."""
        while head is not None and tip(self.before)[0] < head.number:
            page = self.book.seals(self.chain, after=tip(self.before)[0], up_to=head.number, most=SEALS_AT_ONCE)
            start = self.before
            sound, fault = self._sound(page)
            if wrong := wrong_row(self.book, sound, start):
                return self._wrong((f"{self.chain} {wrong[0]}", wrong[1]))
            self.report.seals += len(sound)
            self.report.rows += sum(seal.row_count for seal in sound)
            self.progress(self.chain, tip(self.before)[0], head.number)
            if fault or not page:
                return self._wrong(fault or self._missing(tip(start)[0] + 1))
        return True

    def end(self, must_be: int, *, late: datetime) -> bool:
        """What stands behind the last Seal: nothing that was anchored, and no row that waits for long."""
        number, last_seq = (self.before.number, self.before.last_seq) if self.before else (0, BEFORE_ALL)
        if must_be > number:
            return self._wrong(self._missing(number + 1, self._line(number + 1)))
        waiting = 0 if self.broken else self.report.unanchored
        if waiting > 1 or (waiting and self.before is not None and self.before.sealed_at < late):
            first = number - waiting + 1
            lost = "there is no anchor: put it back from its copy" if first == 1 else "the anchor ends before them"
            return self._wrong((f"seals {self.chain} {first}", f"seals {first} to {number} are not anchored: {lost}"))
        self.report.unsealed = unsealed = self.book.unsealed(self.chain, after=last_seq)
        if unsealed.since and unsealed.since < late:
            since = f"not sealed since {unsealed.since:%Y-%m-%d %H:%M:%S}: is the sealing task running?"
            return self._wrong((f"{self.chain} {unsealed.first_seq}", since))
        return True

    def read_on(self) -> None:
        """The rest of the anchor: each line must be as it was written."""
        while not self.read:
            self._next_line()

    def _sound(self, page: Sequence[Seal]) -> tuple[list[Seal], Fault | None]:
        """The Seals before the first that is wrong, and what is wrong with that one."""
        sound: list[Seal] = []
        for seal in page:
            if seal.number != tip(self.before)[0] + 1:
                return sound, self._missing(tip(self.before)[0] + 1)
            if fault := seal.fault_after(self.before):
                return sound, (_name(seal), fault)
            if differs := self._against_anchor(seal):
                return sound, differs
            sound.append(seal)
            self.before = seal
        return sound, None

    def _against_anchor(self, seal: Seal) -> Fault | None:
        line = self._line(seal.number)
        if line is None:
            self.report.unanchored += seal.number > self.begun_at
        elif line.hash != seal.hash:
            return _name(seal), "the anchor has another hash: the seal, and so maybe its rows, was written anew"
        return None

    def _missing(self, number: int, line: Anchored | None = None) -> Fault:
        told = f": it was anchored at {line.at:%Y-%m-%d %H:%M:%S} for rows up to {line.last_seq}" if line else ""
        return f"seals {self.chain} {number}", f"it is not there any more{told}"

    def _line(self, number: int) -> Anchored | None:
        while not self.read and tip(self.line)[0] < number:
            self._next_line()
        return self.line if self.line and self.line.number == number else None

    def _next_line(self) -> None:
        try:
            line = next(self.lines, None)
        except AnchorBroken as broken:
            self.broken, line = True, None
            self._wrong((f"anchor {self.chain}", broken.detail))
        self.read = line is None
        self.line = line or self.line
        if line and line.new_starts:
            self.report.new_starts, self.begun_at = list(line.new_starts), line.number

    def _wrong(self, fault: Fault | None) -> bool:
        """Keeps the fault; whether there was none."""
        self.report.faults += [fault] if fault else []
        return fault is None


def _wrong_among(seqs: Sequence[int], seal: Seal, now: Mapping[int, bytes]) -> str:
    """What is wrong with the first of these rows that is not as this Seal has it."""
    was = {seq_of(mark): mark for mark in marks_in(seal.marks)}
    wrong = first_wrong([was[seq] for seq in seqs if seq in was], [now[seq] for seq in seqs if seq in now])
    return f"row {wrong[0]}: {wrong[1]}" if wrong else ""


def wrong_row(book: SealBook, seals: Sequence[Seal], before: Seal | None) -> tuple[int, str] | None:
    """The first row, by seq, that is not as these Seals, sound ones in a row, have it; and what is wrong with it."""
    after = before.last_seq if before else BEFORE_ALL
    for layout, group in groupby(seals, key=lambda seal: seal.layout):
        run = list(group)
        sealed = b"".join(seal.marks for seal in run)
        most = len(sealed) // MARK_BYTES + 1  # however many were inserted
        found = book.marks(run[0].chain, layout, after=after, up_to=run[-1].last_seq, most=most)
        if b"".join(found) != sealed:
            return first_wrong(marks_in(sealed), found)
        after = run[-1].last_seq
    return None


def tip(of: Seal | Anchored | None) -> tuple[int, str]:
    """Number and hash of the last one; of none at all 0 and `GENESIS`."""
    return (of.number, of.hash) if of else (0, GENESIS)


def _name(seal: Seal) -> str:
    return f"seals {seal.chain} {seal.number} (rows {seal.first_seq} to {seal.last_seq})"
