"""What takes two people: one asks for it with a reason, another one approves, and it is done once, in time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, Self, TypeVar
from uuid import UUID

from shared_kernel.domain.errors import Conflict, Forbidden, NotFound, Unprocessable


class ConsentNotFound(NotFound):
    """Nobody asked for this."""


class SamePerson(Forbidden):
    """Who asks can't approve."""


class ReasonMissing(Unprocessable):
    """Whoever approves it, and the audit log, need to know who asks and why."""


class StillADraft(Conflict):
    """A command wrote it down: nobody who is known has asked for it yet."""


class NotApproved(Conflict):
    """Nobody else has approved it yet."""


class AlreadyApproved(Conflict):
    """It was approved before."""


class AlreadyUsed(Conflict):
    """An approval is good for once."""


class ConsentExpired(Conflict):
    """It was asked for too long ago: ask anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """`by` and `approved_by` are actors as audit rows name them (`staff:<id>`), and two different ones.

    A kind that has drafts (`said_by`) has no `by` until somebody who is signed in makes it theirs.
    """

    id: UUID
    by: str
    why: str
    at: datetime
    expires_at: datetime
    approved_by: str = ""
    approved_at: datetime | None = None
    used_at: datetime | None = None

    def __post_init__(self) -> None:
        """Raises `ReasonMissing`, `SamePerson`."""
        if not self.said_by or not self.why.strip():
            raise ReasonMissing("say who you are and why, for whoever approves it and for the audit")
        if self.approved_by and not self.by:
            raise StillADraft("it is a draft: somebody who is signed in has to make it theirs first")
        if self.approved_by == self.by != "":
            raise SamePerson("somebody else has to approve what you ask for")

    @property
    def said_by(self) -> str:
        """Whose words it is so far."""
        return self.by

    def approved(self, by: str, at: datetime) -> Self:
        """Raises `AlreadyApproved`, `ConsentExpired`, `StillADraft`, `SamePerson`."""
        if self.approved_by:
            raise AlreadyApproved(f"{self.approved_by} approved it before")
        self.must_be_in_time(at)
        if not by:
            raise SamePerson("somebody who is known has to approve it")
        return replace(self, approved_by=by, approved_at=at)

    def used(self, at: datetime) -> Self:
        """Raises `NotApproved`, `AlreadyUsed`, `ConsentExpired`."""
        if not self.approved_by:
            raise NotApproved("a second person has to approve it first, in the back-office")
        if self.used_at is not None:
            raise AlreadyUsed("it was used before, and is good for once: ask anew")
        self.must_be_in_time(at)
        return replace(self, used_at=at)

    def must_be_in_time(self, at: datetime) -> None:
        """Raises `ConsentExpired`."""
        if at >= self.expires_at:
            raise ConsentExpired(f"it was good until {self.expires_at:%Y-%m-%d %H:%M} UTC: ask anew")


C = TypeVar("C", bound=Consent)


class Consents(Protocol[C]):
    """Stored Consents of one kind; everything joins the caller's unit of work."""

    def add(self, consent: C) -> None: ...

    def get(self, id: UUID) -> C:
        """Locked. Raises `ConsentNotFound`."""

    def newest(self, **about: object) -> C | None:
        """The last one that was asked for among those with these fields; not locked."""

    def used(self, **about: object) -> Sequence[C]:
        """Those with these fields that were used, in the order in which they were asked for; not locked."""

    def save(self, consent: C) -> None:
        """Stores whose it is, who approved it, and that it was used."""
