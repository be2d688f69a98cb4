"""Runs saga steps in groups: intents of a whole group in one commit, calls side by side, outcomes in the next commit.

A step is written for one aggregate. A *turn* is one unit of work: it concludes the calls that came back and intends
the next ones, so that a step's conclusion and its successor's intent share a commit. Between turns nothing of the
database is open.
"""

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from shared_kernel.domain.outcome import Unknown
from shared_kernel.domain.ports import Clock, SideBySide, UnitOfWork

log = logging.getLogger(__name__)

MOST_TURNS = 12  # a saga has fewer steps in a row than this; more is a loop

A = TypeVar("A")  # the aggregate
R = TypeVar("R")  # what is handed from intend to call to conclude
O = TypeVar("O")  # noqa: E741  what the call answers


class Step(ABC, Generic[A, R, O]):
    """One step of a saga. `intend` and `conclude` run inside a unit of work, `call` never does."""

    sends_money = False  # else it only asks
    calls = 0  # how many of its provider's budget it uses; 0: it calls nobody, or on the customer's own account

    @abstractmethod
    def intend(self, aggregate: A, *, at: datetime) -> R | None:
        """Decides; what it returns is called. None: nothing to call (the aggregate may have changed all the same)."""

    @abstractmethod
    def call(self, request: R, *, give_up_at: float) -> O:
        """Asks the provider. A call that moves money checks `give_up_at` (monotonic clock) directly before it
        writes.
        """

    @abstractmethod
    def conclude(self, aggregate: A, request: R, outcome: O, *, at: datetime) -> None:
        """Applies what the provider said to the aggregate as it is now, which may be further than when it was
        intended.
        """


@dataclass(frozen=True, slots=True)
class Call:
    """A committed intent, about to be carried out."""

    aggregate_id: UUID
    step: Step[Any, Any, Any]
    request: Any
    give_up_at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """A call and what came of it."""

    call: Call
    outcome: Any


class Saga(Protocol[A]):
    """What the runner drives."""

    def load(self, ids: Sequence[UUID], answers: Sequence[Answer]) -> list[A]:
        """Locks the aggregates in id order, stores the outcomes in the requests' own rows, and attaches those
        requests.
        """

    def id_of(self, aggregate: A) -> UUID: ...

    def next_step(self, aggregate: A, *, at: datetime) -> Step[A, Any, Any] | None:
        """The step that the state asks for now, or None."""

    def permits(self, most: int) -> AbstractContextManager[Callable[[Step[A, Any, Any], A], bool]]:
        """Permits of the providers' budgets for a turn of `most` aggregates, taken before its unit of work.

        The callable takes what one step needs; False: there is no room, and the aggregate was put into the queue.
        """

    def refused_for_rate(self, answers: Sequence[Answer]) -> None:
        """Slows down where a provider said so; outside of any unit of work."""

    def save(self, aggregates: Sequence[A], calls: Sequence[Call]) -> None:
        """Stores what changed, and the intents of `calls`."""

    def step_failed(self, id: UUID, error: Exception, *, at: datetime) -> None:
        """A step of this one aggregate raised:
        opens its own unit of work to put the aggregate off or before a person.
        """


class StepsFailed(Exception):
    """Some aggregates' steps raised; the others went on. `errors` by aggregate id."""

    def __init__(self, errors: dict[UUID, Exception]) -> None:
        super().__init__(", ".join(f"{id}: {type(error).__name__}" for id, error in errors.items()))
        self.errors = errors


@dataclass(frozen=True)
class Runner(Generic[A]):
    """Brings aggregates as far as they can go now."""

    saga: Saga[A]
    unit_of_work: UnitOfWork
    side_by_side: SideBySide
    clock: Clock
    monotonic: Callable[[], float] = time.monotonic
    crash_point: Callable[[str], None] = field(default=lambda where: None)  # tests and simulations stop the world here

    def advance(self, ids: Sequence[UUID]) -> None:
        """Runs turns until no step is due. Raises `StepsFailed` after everything that could be done was done."""
        errors: dict[UUID, Exception] = {}
        answers: list[Answer] = []
        due: list[UUID] = sorted(set(ids))
        for _ in range(MOST_TURNS):
            calls = self._turns(due, answers, errors)
            if not calls:
                break
            self.crash_point("before call")
            outcomes = self.side_by_side.map(self._call, calls)
            self.crash_point("after call")
            answers = [Answer(call, outcome) for call, outcome in zip(calls, outcomes, strict=True)]
            self.saga.refused_for_rate(answers)
            due = sorted({call.aggregate_id for call in calls})
        if errors:
            raise StepsFailed(errors) from next(iter(errors.values()))

    def _turns(self, ids: list[UUID], answers: list[Answer], errors: dict[UUID, Exception]) -> list[Call]:
        """One turn for the group; if it fails, one each, so that a poisonous one harms itself alone."""
        try:
            return self._turn(ids, answers)
        except Exception as error:  # noqa: BLE001  logged and told for each one below
            if len(ids) > 1:
                log.warning("a group of %d is redone one by one: %s", len(ids), type(error).__name__)
            calls = []
            for id in ids:
                try:
                    calls += self._turn([id], [answer for answer in answers if answer.call.aggregate_id == id])
                except Exception as own_error:
                    log.exception("a step of %s failed", id)
                    errors[id] = own_error
                    self._put_off(id, own_error)
            return calls

    def _put_off(self, id: UUID, error: Exception) -> None:
        try:
            self.saga.step_failed(id, error, at=self.clock())
        except Exception:  # the others of the group still have their turn; this one's lease runs out
            log.exception("%s could not be put off", id)

    def _turn(self, ids: list[UUID], answers: list[Answer]) -> list[Call]:
        by_id: dict[UUID, list[Answer]] = {}
        for answer in answers:
            by_id.setdefault(answer.call.aggregate_id, []).append(answer)
        calls: list[Call] = []
        started = self.monotonic()
        with self.saga.permits(len(ids)) as permit, self.unit_of_work():
            at = self.clock()
            aggregates = self.saga.load(ids, answers)
            for aggregate in aggregates:
                id = self.saga.id_of(aggregate)
                for answer in by_id.get(id, ()):
                    answer.call.step.conclude(aggregate, answer.call.request, answer.outcome, at=at)
                intent = self._intend(aggregate, permit, at=at)
                if intent is not None:
                    step, request = intent
                    send_before = getattr(request, "send_before", None)
                    window = (send_before - at).total_seconds() if send_before else 60.0
                    calls.append(Call(id, step, request, started + window))
            self.saga.save(aggregates, calls)
            self.crash_point("before commit")
        self.crash_point("after commit")
        return calls

    def _intend(
        self, aggregate: A, permit: Callable[[Step[A, Any, Any], A], bool], *, at: datetime
    ) -> tuple[Step[A, Any, Any], Any] | None:
        """The next step and what it will call; a step that only decides is followed by the one that its decision
        asks for.
        """
        for _ in range(MOST_TURNS):
            step = self.saga.next_step(aggregate, at=at)
            if step is None or (step.calls and not permit(step, aggregate)):
                return None
            request = step.intend(aggregate, at=at)
            if request is not None:
                return step, request
        raise RuntimeError(f"{self.saga.id_of(aggregate)} decides in a circle")

    @staticmethod
    def _call(call: Call) -> Any:
        try:
            return call.step.call(call.request, give_up_at=call.give_up_at)
        except Exception as error:  # whatever broke, the provider may have been reached
            log.exception("%s could not be called", type(call.step).__name__)
            return Unknown(f"internal:{type(error).__name__}")
