"""Virtual time: one thing happens at a time, in an order that the seed alone decides.

What a worker runs is ordinary blocking code, so that each lives in a thread; but only the one that holds the baton
runs, and it hands it on where it sleeps. Whoever sleeps goes through the calendar itself until its own turn comes.
"""

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Any

BEGIN = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process dies here: nothing below catches it, and nothing after it runs."""


class Halt(BaseException):
    """The run is over: unwinds what still sleeps."""


class Process:
    """One worker's process: its strands die and freeze together."""

    __slots__ = ("dead", "frozen_until", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen_until = 0.0


class Strand:
    """One thread of a process; runs while it holds the baton."""

    __slots__ = ("baton", "job", "process", "thread")

    def __init__(self) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.process = Process("main")
        self.job: Callable[[], None] | None = None
        self.thread: threading.Thread | None = None


class Start:
    """An entry of the calendar: a job begins in a process."""

    __slots__ = ("job", "process")

    def __init__(self, process: Process, job: Callable[[], None]) -> None:
        self.process, self.job = process, job


class Schedule:
    """The clock, the calendar, and the strands. `now` is in seconds since the beginning."""

    def __init__(self) -> None:
        self.now = 0.0
        self.main = Strand()
        self.current = self.main
        self.error: BaseException | None = None
        self._calendar: list[tuple[float, int, Any]] = []
        self._entries = 0
        self._idle: list[Strand] = []
        self._strands: list[Strand] = []
        self._over = False

    def clock(self) -> datetime:
        """The time of day."""
        return BEGIN + timedelta(seconds=self.now)

    def monotonic(self) -> float:
        """Seconds since the beginning."""
        return self.now

    def seconds(self, at: datetime) -> float:
        """`at` in seconds since the beginning."""
        return (at - BEGIN).total_seconds()

    # --- the calendar -------------------------------------------------------------------------------------------------

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        """Happens then; must not sleep."""
        self._enter(self.now + seconds, what)

    def start(self, process: Process, job: Callable[[], None], *, after: float = 0.0) -> None:
        """A job begins then, in a strand of its own; it may sleep."""
        self._enter(self.now + after, Start(process, job))

    def sleep(self, seconds: float) -> None:
        """Time passes for this strand. Raises `Crash` when its process died meanwhile."""
        me = self.current
        until = self.now + seconds
        while True:
            until = max(until, me.process.frozen_until)
            if self._calendar and self._calendar[0][0] <= until:
                self._enter(until, me)
                self._go_on(me)
            else:
                self.now = until
            if me.process.dead:
                raise Crash(me.process.name)
            if me.process.frozen_until <= self.now:
                return

    def side_by_side(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        """Each call in a strand of its own of the same process; the results in the order of `items`."""
        if len(items) == 1:
            return [call(items[0])]
        me, results, left = self.current, [None] * len(items), [len(items)]

        def one(number: int) -> None:
            try:
                if me.process.dead:
                    raise Crash(me.process.name)
                results[number] = call(items[number])
            finally:
                left[0] -= 1
                if not left[0]:
                    self._enter(self.now, me)

        for number in range(len(items)):
            self.start(me.process, lambda number=number: one(number))  # type: ignore[misc]
        self._go_on(me)
        if me.process.dead:
            raise Crash(me.process.name)
        return results

    # --- a run --------------------------------------------------------------------------------------------------------

    def run(self, until: float) -> None:
        """Everything up to then. Raises what a check found."""
        self._enter(until, self.main)
        self._go_on(self.main)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        """Ends every strand."""
        self._over = True
        for strand in self._strands:
            strand.baton.release()
            if strand.thread is not None:
                strand.thread.join()

    def _enter(self, when: float, what: Any) -> None:
        self._entries += 1
        heappush(self._calendar, (when, self._entries, what))

    def _go_on(self, me: Strand, *, idle: bool = False) -> None:
        """Goes through the calendar until it is this strand's turn, or, of an idle one, until it has a job."""
        calendar = self._calendar
        while True:
            when, _, what = heappop(calendar)
            if when > self.now:
                self.now = when
            if what.__class__ is Strand:
                if what is me:
                    self.current = me
                    return
                self._give(what, me, idle)
                return
            if what.__class__ is Start:
                taker = me if idle else self._idle.pop() if self._idle else self._new_strand()
                taker.process, taker.job = what.process, what.job
                if taker is not me:
                    self._give(taker, me, idle)
                self.current = me
                return
            try:
                what()
            except BaseException as error:  # noqa: BLE001  a check found something: the main strand tells it
                self.error = error
                self._give(self.main, me, idle)
                return

    def _give(self, other: Strand, me: Strand, idle: bool) -> None:
        if idle:
            self._idle.append(me)
        if other is not me:
            other.baton.release()
            me.baton.acquire()
        if self._over:
            raise Halt
        self.current = me

    def _new_strand(self) -> Strand:
        strand = Strand()
        strand.thread = threading.Thread(target=self._live, args=(strand,), daemon=True)
        self._strands.append(strand)
        strand.thread.start()
        return strand

    def _live(self, me: Strand) -> None:
        me.baton.acquire()
        try:
            while not self._over:
                self.current = me
                self._work(me)
                self._go_on(me, idle=True)
        except Halt:
            return

    def _work(self, me: Strand) -> None:
        job, me.job = me.job, None
        assert job is not None
        try:
            job()
        except Crash:
            return
        except Halt:
            raise
        except BaseException as error:  # noqa: BLE001  told by the main strand
            self.error = error
            self._give(self.main, me, False)
