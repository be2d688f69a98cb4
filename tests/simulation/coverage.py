"""Which steps ran, where they were cut off, and when callbacks came: what a run exercised."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from shared_kernel.application.runner import Call, Step
from shared_kernel.domain.requests import MpesaRequest

CRASHES = ("before commit", "after commit", "before call", "after call")
NOWHERE = "ran through"
NEVER, BEFORE, AFTER, TWICE = "never", "before its answer", "after its answer", "again"
WITHOUT_CALL = ("Expire", "LockRate", "Settle b2c_payout", "Settle reversal", "Settle b2c_refund", "Show reversal",
                "Rest")  # fmt: skip
WITH_CALL = (
    "CheckLogin", "AskForPayment", "ConfirmPayment", "FindPayment", "SendCredit deriv_credit", "AskDeriv deriv_credit",
    "FindReceipt", "SendPayment reversal", "SendPayment b2c_refund", "AskMpesa b2c_refund", "DebitDeriv", "AskDebit",
    "SendPayment b2c_payout", "AskMpesa b2c_payout", "SendCredit deriv_credit_back", "AskDeriv deriv_credit_back",
)  # fmt: skip
CALLED_BACK = ("AskForPayment", "SendPayment reversal", "SendPayment b2c_payout", "AskMpesa b2c_payout")
RARE = frozenset(
    {"SendPayment b2c_refund", "AskMpesa b2c_refund", "Settle b2c_refund", "Show reversal", "Rest", "Expire",
     "Settle reversal", "SendCredit deriv_credit_back", "AskDeriv deriv_credit_back", "FindReceipt"}
)  # fmt: skip
Cell = tuple[str, str, str]  # step, where it was cut off, when the callback came (empty: none belongs to it)


def step_name(step: Step[Any, Any, Any]) -> str:
    """The step, and of one that both sagas share the leg."""
    kind = type(step).__name__
    leg = getattr(getattr(step, "credit", None) or getattr(step, "payment", None), "leg", None)
    leg = leg or getattr(getattr(step, "attempt", None), "leg", None)
    return f"{kind} {leg}" if leg else kind


def reachable() -> list[Cell]:
    """Every cell that must not stay empty."""
    cells = [(step, where, "") for step in WITHOUT_CALL for where in (NOWHERE, *CRASHES[:2])]
    cells += [(step, where, "") for step in WITH_CALL for where in (NOWHERE, *CRASHES)]
    for step in CALLED_BACK:
        cells += [(step, where, order) for where in (NOWHERE, "after call") for order in (NEVER, BEFORE, AFTER, TWICE)]
        cells += [(step, where, NEVER) for where in ("after commit", "before call")]  # nobody could call back
    return cells


@dataclass
class Sending:
    """One sending of a request that is answered by callback."""

    step: str
    cut_off: str = NOWHERE
    ended: bool = False
    called_back: list[str] = field(default_factory=list)


@dataclass
class Watch:
    """Collects cells during a run. Turns and calls are those of one process."""

    cells: Counter[Cell] = field(default_factory=Counter)
    turns: dict[str, list[str]] = field(default_factory=dict)  # by process: the steps of its present turn
    calls: dict[str, list[tuple[str, Any]]] = field(default_factory=dict)
    sendings: dict[UUID, list[Sending]] = field(default_factory=dict)

    def turn_begins(self, process: str) -> None:
        """The answers of its calls are being stored."""
        for name, request in self.calls.pop(process, ()):
            self._through(name, request)
        self.turns[process] = []

    def step(self, process: str, step: Step[Any, Any, Any] | None) -> None:
        if step is not None:
            self.turns.setdefault(process, []).append(step_name(step))

    def committing(self, process: str, calls: Sequence[Call]) -> None:
        self.calls[process] = [(step_name(call.step), call.request) for call in calls]

    def committed(self, process: str) -> None:
        for name, request in self.calls.get(process, ()):
            if isinstance(request, MpesaRequest):
                self.sendings.setdefault(request.id, []).append(Sending(name))
        calling = {name for name, _ in self.calls.get(process, ())}
        for name in self.turns.get(process, ()):
            if name not in calling:
                self.cells[name, NOWHERE, ""] += 1

    def is_rare(self, process: str) -> bool:
        """Whether its turn holds a step that few runs come to: cut off more often, so that no cell stays empty."""
        return not RARE.isdisjoint(self.turns.get(process, ()))

    def crashed(self, process: str, where: str) -> None:
        if where == "before commit":
            for name in self.turns.get(process, ()):
                self.cells[name, where, ""] += 1
            return
        calls = self.calls.pop(process, [])
        for name, request in calls:
            self.cells[name, where, ""] += 1
            self._cut_off(request, where)
        if where == "after commit":
            for name in set(self.turns.get(process, ())) - {name for name, _ in calls}:
                self.cells[name, where, ""] += 1

    def _through(self, name: str, request: Any) -> None:
        self.cells[name, NOWHERE, ""] += 1
        if isinstance(request, MpesaRequest) and request.id in self.sendings:
            self.sendings[request.id][-1].ended = True

    def _cut_off(self, request: Any, where: str) -> None:
        if isinstance(request, MpesaRequest) and request.id in self.sendings:
            sending = self.sendings[request.id][-1]
            sending.cut_off, sending.ended = where, True

    def called_back(self, request: UUID) -> None:
        """A callback about it was stored, or repeated."""
        if sendings := self.sendings.get(request):
            sendings[-1].called_back.append(AFTER if sendings[-1].ended else BEFORE)

    def finish(self) -> Counter[Cell]:
        """With the orders of callbacks, which are known at the end only."""
        for sendings in self.sendings.values():
            for sending in sendings:
                for order in set(sending.called_back[:1] or [NEVER]):
                    self.cells[sending.step, sending.cut_off, order] += 1
                if len(sending.called_back) > 1:
                    self.cells[sending.step, sending.cut_off, TWICE] += 1
        self.sendings.clear()
        return self.cells


def table(cells: Mapping[Cell, int]) -> str:
    """For people: a line a step."""
    lines = []
    for step in (*WITH_CALL, *WITHOUT_CALL):
        places = [cells.get((step, where, ""), 0) for where in (NOWHERE, *CRASHES)]
        lines.append(f"{step:30}" + "".join(f"{n:>10}" for n in places))
        if step in CALLED_BACK:
            for where in (NOWHERE, "after call"):
                counts = ", ".join(f"{o} {cells.get((step, where, o), 0)}" for o in (NEVER, BEFORE, AFTER, TWICE))
                lines.append(f"    called back, {where}: {counts}")
    head = f"{'step':30}" + "".join(f"{where:>14}"[-10:].rjust(10) for where in (NOWHERE, *CRASHES))
    return "\n".join([head, *lines])
