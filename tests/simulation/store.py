"""Rows that commit together: one unit of work at a time, with an undo log, as a database would keep them.

Rows are never changed in place: whoever writes puts a new object, so that taking back is putting the old one.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

from shared_kernel.domain.events import Event
from shared_kernel.domain.ports import AuditRecord

T = TypeVar("T")
ABSENT: Any = object()


class DatabaseGone(Exception):
    """The connection broke: nothing was kept, or (at the commit) nobody knows."""


def clone(row: T) -> T:
    """A copy that shares its values: rows hold nothing that changes in place."""
    new: T = object.__new__(type(row))
    new.__dict__.update(row.__dict__)
    return new


@dataclass
class Store:
    """What is stored, and what the unit of work that is open has changed."""

    tables: dict[str, dict[Any, Any]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)  # the outbox
    audit: list[AuditRecord] = field(default_factory=list)
    touched: set[UUID] = field(default_factory=set)  # Transactions of which this unit of work wrote something
    at_end: dict[str, Callable[[], None]] = field(default_factory=dict)
    is_open: bool = False
    before_commit: Callable[[], None] = lambda: None  # may raise: then nothing is kept
    after_commit: Callable[[list[Event]], None] = lambda events: None
    answered: Callable[[], None] = lambda: None  # may raise: it is kept, and whoever committed does not know
    last_id: int = 0
    _undo: list[tuple[dict[Any, Any], Any, Any]] = field(default_factory=list)
    _marks: tuple[int, int] = (0, 0)

    def table(self, name: str) -> dict[Any, Any]:
        """Rows by key."""
        return self.tables.setdefault(name, {})

    def put(self, table: dict[Any, Any], key: Any, row: Any) -> None:
        """Inserts or replaces."""
        assert self.is_open, "something was written outside of a unit of work"
        self._undo.append((table, key, table.get(key, ABSENT)))
        table[key] = row

    def new_id(self) -> UUID:
        """Unlike UUIDv7 it tells nothing of the time, and is the same in each run of a seed."""
        self.last_id += 1
        return UUID(int=self.last_id)

    def unit_of_work(self) -> AbstractContextManager[None]:
        """One at a time: what runs in between never sees half of one."""
        return _Unit(self)

    def begin(self) -> None:
        assert not self.is_open, "a unit of work was opened inside another one"
        self.is_open = True
        self._undo.clear()
        self.touched.clear()
        self._marks = len(self.events), len(self.audit)

    def finish(self, failed: bool) -> None:
        if not failed:
            try:
                for write in self.at_end.values():
                    write()
                self.before_commit()
            except BaseException:
                self._roll_back()
                raise
        else:
            self._roll_back()
            return
        self.is_open = False
        self.at_end.clear()
        self.after_commit(self.events[self._marks[0] :])
        self.answered()

    def _roll_back(self) -> None:
        for table, key, old in reversed(self._undo):
            if old is ABSENT:
                del table[key]
            else:
                table[key] = old
        del self.events[self._marks[0] :], self.audit[self._marks[1] :]
        self.is_open = False
        self.at_end.clear()


class _Unit(AbstractContextManager[None]):
    __slots__ = ("store",)

    def __init__(self, store: Store) -> None:
        self.store = store

    def __enter__(self) -> None:
        self.store.begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.store.finish(failed=kind is not None)


@dataclass(frozen=True)
class StoredAudit:
    """The audit log."""

    store: Store

    def append(self, records: Any) -> None:
        assert self.store.is_open
        self.store.audit += records


@dataclass(frozen=True)
class StoredOutbox:
    """The outbox: told to the relay once the unit of work is committed."""

    store: Store

    def append(self, events: Any) -> None:
        assert self.store.is_open
        self.store.events += events
