"""Seals: a table's rows chained in order by hashes, so that whoever changes one later is found.

A Seal holds a Mark of each of its rows (the row's seq and the hash of all its columns) and the hash of the Seal before
it. The bytes that are hashed are JSON arrays in ASCII without spaces, so that another program can make them again: the
rules are in `docs/adr/0016-rows-are-sealed-in-batches.md`.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import pairwise, zip_longest
from typing import Any, Protocol, TypeAlias

from shared_kernel.domain.errors import Conflict, NotFound, Unavailable

GENESIS = "0" * 64  # stands where the first Seal of a chain needs the hash of one before it
BEFORE_ALL = -(2**63)  # a seq below every row's, also below those that nobody should have inserted
SEQ_BYTES, MARK_BYTES = 8, 40

Layout: TypeAlias = Sequence[tuple[str, str]]
"""Columns in the order in which they are hashed, each with its kind; the first is `seq`. Never changed once used."""


class SealTaken(Conflict):
    """Another worker has stored a Seal of that number."""


class RowsStillOpen(Conflict):
    """A transaction that is still open holds a row that would be sealed."""


class SealsContradictAnchor(Conflict):
    """The database's Seals are not those that were anchored: nothing is sealed until a person has looked."""


class AnchorBroken(Conflict):
    """A line of the anchor is not as it was written, or was written with another key."""


class AnchorOutOfReach(Unavailable):
    """The anchor can't be read or written now."""


class SealNotFound(NotFound):
    """The chain has no Seal of that number."""


class LayoutUnknown(Conflict):
    """A Seal's layout is not one that this version knows."""


@dataclass(frozen=True, slots=True)
class Seal:
    """`marks` holds the Mark of each row: 8 bytes seq (big-endian, signed), 32 bytes SHA-256; `hash` is hexadecimal."""

    chain: str  # the table's name
    number: int  # from 1, without a gap
    layout: int
    first_seq: int
    last_seq: int
    row_count: int
    marks: bytes
    sealed_at: datetime
    hash: str

    @classmethod
    def over(cls, marks: Sequence[bytes], before: "Seal | None", *, chain: str, layout: int, at: datetime) -> "Seal":
        """The Seal of these rows, at least one, that follows `before`."""
        number = before.number + 1 if before else 1
        first, last = seq_of(marks[0]), seq_of(marks[-1])
        seal = cls(chain, number, layout, first, last, len(marks), b"".join(marks), at, "")
        return cls(chain, number, layout, first, last, len(marks), seal.marks, at, seal.hash_after(before))

    def hash_after(self, before: "Seal | None") -> str:
        """The hash that this Seal must have behind `before`."""
        fields = [
            "penpay seal 1", self.chain, self.number, before.hash if before else GENESIS, self.layout, self.first_seq,
            self.last_seq, self.row_count, sha256(self.marks).hexdigest(), _in_utc(self.sealed_at),
        ]  # fmt: skip
        return sha256(_encode(fields).encode()).hexdigest()

    def fault_after(self, before: "Seal | None") -> str:
        """What is wrong with this Seal behind `before`; empty if nothing is."""
        expected = before.number + 1 if before else 1
        if self.number != expected:
            return f"it is where seal {expected} should be"
        if self.hash != self.hash_after(before):
            return "its hash is not that of its content and of the seal before it"
        seqs = [seq_of(mark) for mark in marks_in(self.marks)]
        limits = (seqs[0], seqs[-1], len(seqs)) if seqs else ()
        if limits != (self.first_seq, self.last_seq, self.row_count) or len(self.marks) % MARK_BYTES:
            return "its marks are not those of the rows that it names"
        rising = all(one < next for one, next in pairwise(seqs))
        return "" if rising and (before is None or before.last_seq < seqs[0]) else "its rows are not in order"


@dataclass(frozen=True, slots=True)
class NewStart:
    """That an anchor was begun anew, from the Seal `number` on: what stood in the one before (`anchor_number`, 0 for
    nothing that could be read), what was found, and who wanted it and why. It is told for ever.
    """

    generation: int  # of the new anchor: the first one, which nobody began anew, is 1
    number: int
    anchor_number: int
    found: str
    by: str
    approved_by: str
    why: str
    at: str  # RFC 3339

    def __str__(self) -> str:
        ended = f"ended with seal {self.anchor_number}" if self.anchor_number else "could not be read"
        return (
            f"the anchor was begun anew from seal {self.number} at {self.at}, where the one before {ended}:"
            f" {self.why} ({self.found}); by {self.by}, approved by {self.approved_by}"
        )


@dataclass(frozen=True, slots=True)
class Anchored:
    """What the anchor says of one Seal. The first line of one that was begun anew has all the `new_starts` so far."""

    number: int
    last_seq: int
    hash: str
    at: datetime
    new_starts: tuple[NewStart, ...] = ()


@dataclass(frozen=True, slots=True)
class Unsealed:
    """The rows behind the last Seal: how many, and the first of them with its time, if there is one."""

    count: int
    first_seq: int | None = None
    since: datetime | None = None


class SealBook(Protocol):
    """The chains' rows and Seals, in the database."""

    def newest_layout(self, chain: str) -> int:
        """By which new rows are marked."""

    def last_seq(self, chain: str) -> int:
        """The highest seq among the committed rows."""

    def settled(self, chain: str, *, after: int, up_to: int, most: int) -> list[bytes]:
        """The Marks of the next rows, by the newest layout. Waits for the transactions that have one of them open.

        Raises `RowsStillOpen` when they take too long.
        """

    def marks(self, chain: str, layout: int, *, after: int, up_to: int, most: int) -> list[bytes]:
        """The Marks of the rows as they are now. Raises `LayoutUnknown`."""

    def unsealed(self, chain: str, *, after: int) -> Unsealed:
        """The rows behind `after`."""

    def head(self, chain: str) -> Seal | None:
        """The last Seal."""

    def seal(self, chain: str, number: int) -> Seal | None:
        """One Seal."""

    def seals(self, chain: str, *, after: int, up_to: int, most: int) -> list[Seal]:
        """Seals by number, those after `after`."""

    def numbered(self, chain: str, numbers: Collection[int]) -> dict[int, Seal]:
        """Those of these Seals that are there; one SELECT."""

    def marks_of(self, chain: str, layout: int, seqs: Collection[int]) -> dict[int, bytes]:
        """The Marks of these rows as they are now; those that are gone are left out. One SELECT."""

    def add(self, seal: Seal) -> None:
        """Stores it in the caller's unit of work. Raises `SealTaken`."""


class Anchor(Protocol):
    """Where each Seal's hash is kept outside of the database. Each call may raise `AnchorOutOfReach`."""

    def head(self, chain: str) -> Anchored | None:
        """The last one. Raises `AnchorBroken`."""

    def append(self, seal: Seal) -> None:
        """Keeps it, durably; the same once more is harmless. Raises `SealsContradictAnchor` for another, or a gap."""

    def lines(self, chain: str) -> Iterator[Anchored]:
        """All, from the first on. Raises `AnchorBroken`."""

    def find(self, chain: str, numbers: Collection[int]) -> dict[int, Anchored]:
        """The lines of these Seals, without reading all: a Seal of before a new start has the line of that. Those that
        are not anchored are left out. Raises `AnchorBroken`, also `AnchorOutOfReach` where there is no anchor at all.
        """

    def generation(self, chain: str) -> int:
        """Which one this is, however much of it can be read: 1 is the first, and where there is none."""

    def begin(self, chain: str, head: Seal | None, new_starts: Sequence[NewStart]) -> None:
        """Durably begins the next anchor, of the last new start's generation, with `head` (None: before all Seals).

        The one before is left as it is. The same once more is harmless. Raises `SealsContradictAnchor`.
        """


def mark(values: Sequence[Any]) -> bytes:
    """The Mark of a row; `values` as the kinds of its columns give them, its seq first."""
    seq: int = values[0]
    try:
        content = _encode(values)
    except (TypeError, ValueError):  # something that the column could not hold when the row was written
        content = _encode([value if isinstance(value, str | int | None) else _strange(value) for value in values])
    return seq.to_bytes(SEQ_BYTES, "big", signed=True) + sha256(content.encode()).digest()


def seq_of(mark: bytes) -> int:
    """The row's seq."""
    return int.from_bytes(mark[:SEQ_BYTES], "big", signed=True)


def marks_in(packed: bytes) -> list[bytes]:
    """A Seal's Marks one by one."""
    return [packed[start : start + MARK_BYTES] for start in range(0, len(packed), MARK_BYTES)]


def first_wrong(sealed: Iterable[bytes], found: Iterable[bytes]) -> tuple[int, str] | None:
    """The first row, by seq, that is not as it was sealed, and what is wrong with it. Both in the order of seq."""
    for was, now in zip_longest(sealed, found):
        if was is None or (now is not None and seq_of(now) < seq_of(was)):
            return seq_of(now), "it was inserted after the rows around it had been sealed"
        if now is None or seq_of(was) < seq_of(now):
            return seq_of(was), "it was sealed, and is not there any more"
        if was != now:
            return seq_of(was), "it is not as it was sealed"
    return None


def moment(value: Any) -> Any:
    """A time as `2026-11-02 09:30:00.000000`, in UTC; texts without an offset are in UTC."""
    if value is None or (isinstance(value, str) and len(value) == 26):
        return value
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return _strange(value)
    return _in_utc(at if at.tzinfo else at.replace(tzinfo=UTC))


def raw(value: Any) -> Any:
    """Bytes in hexadecimal."""
    return value.hex() if isinstance(value, bytes) else None if value is None else _strange(value)


def document(value: Any) -> Any:
    """A JSON document as text with its keys sorted, for databases keep neither their order nor the spaces."""
    if value is None:
        return None
    try:
        return _sorted(json.loads(value, object_pairs_hook=_without_repetition))
    except (TypeError, ValueError, RecursionError):
        return _strange(value)


KINDS: dict[str, Callable[[Any], Any] | None] = {"plain": None, "moment": moment, "raw": raw, "document": document}
"""How a column's value is put, as its driver gives it; `plain` (numbers and texts) stays as it is."""


def _in_utc(at: datetime) -> str:
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known = dict(pairs)
    if len(known) < len(pairs):
        raise ValueError("a key is there twice")
    return known


def _strange(value: Any) -> list[str]:
    """A value that a sound row never holds; a list, so that it equals no other value."""
    return [type(value).__name__, ascii(value)]


_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
_sorted = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode
