"""What two people may do when anchor and database no longer fit together: begin the anchor anew, where all see it.

A lost or restored anchor, a restored database and a changed key stop the sealing for good, and so does an attack. Only
people can tell them apart. A command where the anchor is writes down what is found, as a draft; one person who is
signed in makes it theirs, another one approves; then the anchor is begun anew from the last Seal that the database has
now. What stood before is left where it is, and every check tells of that for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from shared_kernel.application.sealing import LEASE, ChainCheck, Sealing, tip
from shared_kernel.domain.errors import Conflict
from shared_kernel.domain.four_eyes import Consent, Consents, ReasonMissing
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, Leases, UnitOfWork
from shared_kernel.domain.seals import AnchorBroken, NewStart, SealsContradictAnchor

LASTS = timedelta(days=3)  # that one may be asked for, approved and begun, counted from when it was drafted


class NothingToContinue(Conflict):
    """Database and anchor agree: sealing goes on by itself."""


class NoDraft(Conflict):
    """Somebody has asked for it already."""


class AnchorChanged(Conflict):
    """Database or anchor are not as they were when it was asked for: look again, and ask anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation(Consent):
    """That the anchor of `chain` is begun anew from the Seal `number` with `hash`; the anchor there ended with
    `anchor_number` and `anchor_hash` (0: with nothing that can be read). `generation` is that of the new one. Without
    `by` it is a draft, of the login and machine `drafted_by`, and nobody's.
    """

    chain: str
    generation: int
    number: int
    hash: str
    anchor_number: int
    anchor_hash: str
    found: str
    drafted_by: str = ""

    @property
    def said_by(self) -> str:
        return self.by or self.drafted_by

    def adopted(self, by: str, at: datetime) -> "Continuation":
        """Asked for by `by`. Raises `NoDraft`, `ConsentExpired`, `ReasonMissing`."""
        if self.by:
            raise NoDraft(f"{self.by} asks for it already")
        if not by:
            raise ReasonMissing("somebody who is known has to ask for it")
        self.must_be_in_time(at)
        return replace(self, by=by)

    @property
    def ends(self) -> "Ends":
        """Where both ended when it was asked for."""
        return Ends(self.number, self.hash, self.anchor_number, self.anchor_hash)


@dataclass(frozen=True, slots=True)
class Ends:
    """The last Seal in the database, and the last one in the anchor: two that do not fit together."""

    number: int
    hash: str
    anchor_number: int
    anchor_hash: str


@dataclass(frozen=True)
class Continuing:
    """Drafts, asks, approves and begins."""

    sealing: Sealing
    check: ChainCheck
    asked: Consents[Continuation]
    audit: AuditLog
    leases: Leases
    unit_of_work: UnitOfWork
    new_id: IdSource
    clock: Clock

    def ends(self, chain: str) -> Ends | None:
        """Where database and anchor end, if they contradict one another. Raises `AnchorOutOfReach`."""
        try:
            self.sealing.head(chain)
            return None
        except SealsContradictAnchor:
            known = self.sealing.anchor.head(chain)
        except AnchorBroken:
            known = None
        return Ends(*tip(self.sealing.book.head(chain)), *tip(known))

    def found(self, chain: str) -> str:
        """The first things that are wrong with a chain whose ends contradict, in one line."""
        faults = self.check.check(chain).faults
        return ("; ".join(f"{row}: {detail}" for row, detail in faults[:2]) or "the anchor ends elsewhere")[:255]

    def newest(self, chain: str) -> Continuation | None:
        """The last one that was drafted."""
        return self.asked.newest(chain=chain)

    def draft(self, chain: str, *, drafted_by: str, why: str) -> Continuation:
        """Stores what was found, and why the anchor is to be begun anew: nobody's request, until somebody adopts it.

        Raises `NothingToContinue`, `ReasonMissing`, `AnchorOutOfReach`.
        """
        ends, at = self.ends(chain), self.clock()
        if ends is None:
            raise NothingToContinue(f"the seals of {chain} and their anchor agree: sealing goes on by itself")
        before = [self.sealing.anchor.generation(chain), *(one.generation for one in self.asked.used(chain=chain))]
        asked = Continuation(
            id=self.new_id(), by="", drafted_by=drafted_by[:64], why=why.strip()[:255], at=at, expires_at=at + LASTS,
            chain=chain, generation=max(before) + 1, number=ends.number, hash=ends.hash,
            anchor_number=ends.anchor_number, anchor_hash=ends.anchor_hash, found=self.found(chain),
        )  # fmt: skip
        with self.unit_of_work():
            self.asked.add(asked)
            self._tell("anchor.continuation_drafted", asked, drafted_by, at)
        return asked

    def adopt(self, id: UUID, *, by: str) -> None:
        """Who has looked at a draft asks for what it says. Raises `ConsentNotFound`, `NoDraft`, `ConsentExpired`."""
        with self.unit_of_work():
            at = self.clock()
            asked = self.asked.get(id).adopted(by, at)
            self.asked.save(asked)
            self._tell("anchor.continuation_asked", asked, by, at)

    def approve(self, id: UUID, *, by: str) -> None:
        """Another person agrees. Nothing is begun yet: that takes somebody at the machine where the anchor is.

        Raises `ConsentNotFound`, `StillADraft`, `SamePerson`, `AlreadyApproved`, `ConsentExpired`.
        """
        with self.unit_of_work():
            at = self.clock()
            asked = self.asked.get(id).approved(by, at)
            self.asked.save(asked)
            self._tell("anchor.continuation_approved", asked, by, at)

    def begin(self, asked: Continuation, *, by: str) -> None:
        """Begins the approved anchor. The audit row is there first, so after a crash it may be called again.

        Raises `NotApproved`, `AlreadyUsed`, `ConsentExpired`, `AnchorChanged`, `AnchorOutOfReach`.
        """
        lease, holder = f"sealing.{asked.chain}", str(self.new_id())
        if not self.leases.acquire(lease, holder, LEASE):
            raise AnchorChanged(f"{asked.chain} is being worked on at this moment: run it again in a minute")
        try:
            self._begin(asked.id, by)
        finally:
            self.leases.release(lease, holder)

    def _begin(self, id: UUID, by: str) -> None:
        with self.unit_of_work():
            asked, at = self.asked.get(id), self.clock()
            fits = self.ends(asked.chain) == asked.ends
            if not fits or asked.used_at is None:
                asked = asked.used(at)  # told first: that it is not approved, or was used before
                if not fits:
                    raise AnchorChanged(f"{asked.chain} is not as it was then: look again, and ask anew")
                self.asked.save(asked)
                self._tell("anchor.continued", asked, by, at)
        head = self.sealing.book.seal(asked.chain, asked.number) if asked.number else None
        self.sealing.anchor.begin(asked.chain, head, self._new_starts(asked.chain))

    def _new_starts(self, chain: str) -> Sequence[NewStart]:
        """All of this chain so far: those that the database knows, and those that it lost and the anchor knows."""
        try:
            there = next(self.sealing.anchor.lines(chain), None)
        except AnchorBroken:
            there = None
        known = {one.generation: one for one in (there.new_starts if there else ())}
        known |= {one.generation: _new_start(one) for one in self.asked.used(chain=chain)}
        return [known[generation] for generation in sorted(known)]

    def _tell(self, action: str, asked: Continuation, who: str, at: datetime) -> None:
        details = {"by": who, "asked": str(asked.id), "generation": asked.generation, "found": asked.found}
        details |= {"drafted_by": asked.drafted_by, "asked_by": asked.by}
        details |= {"from_seal": asked.number, "hash": asked.hash, "anchor_ended_with": asked.anchor_number}
        self.audit.append([AuditRecord(action, "anchor", asked.chain, at, why=asked.why, details=details)])


def _new_start(asked: Continuation) -> NewStart:
    assert asked.used_at is not None
    return NewStart(
        generation=asked.generation, number=asked.number, anchor_number=asked.anchor_number, found=asked.found,
        by=asked.by, approved_by=asked.approved_by, why=asked.why, at=asked.used_at.astimezone(UTC).isoformat(),
    )  # fmt: skip
