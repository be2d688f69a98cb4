"""A backlog against Deriv's budget: how much of it the sweeper uses, what Deriv refuses, who waits how long."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings

from penpay.stack import Stack
from tests.benchmarks import deposits
from tests.benchmarks.backlog import Waiting, fill
from tests.benchmarks.world import paused, rows, stack, wait

BURST = 20  # a budget that rested begins with this part of a minute's calls at once


@dataclass(frozen=True)
class Size:
    """`a_minute` is what Deriv grants; one customer has `flood` deposits, some have `each`, and some one.

    More wait than a minute grants, for only then does Deriv refuse a sweeper that is too fast.
    """

    a_minute: int
    flood: int
    several: int
    each: int
    singles: int

    @property
    def count(self) -> int:
        """How many deposits wait."""
        return self.flood + self.several * self.each + self.singles


FULL = Size(a_minute=6_000, flood=4_000, several=200, each=25, singles=1_000)
QUICK = Size(a_minute=1_500, flood=900, several=50, each=10, singles=300)


@dataclass(frozen=True)
class Drained:
    """What became of it. Times in seconds from when the backlog was due."""

    took_s: float
    used: float  # of the budget, from the end of the first burst to the last transfer
    refused: int  # calls, by Deriv
    again: int  # transfers that were sent more than once
    longest: dict[str, float]  # waits, by the kind of customer


@contextmanager
def budgeted(logs: Path, size: Size) -> Iterator[Stack]:
    """A stack whose agent on v3 has that budget, here and at the simulated Deriv; the sweeper has its own process."""
    agents = [
        {name: value for name, value in agent.items() if name != "name"}
        | {"rate": size.a_minute if agent["platform"] == "ws_v3" else 0}
        for agent in settings.DERIV_AGENTS
    ]
    queues = ("relay,default", "sweep", "steps")
    with stack(logs, also={"DERIV_AGENTS": json.dumps(agents)}, queues=queues, api_processes=1) as made:
        made.control("deriv_ws", "settings", {"limits": True, "calls_a_minute": size.a_minute})
        made.control("deriv_ws", "customers", {"loginid": "CR900001", "deposit": "1000000.00"})
        yield made


def run(of: Stack, size: Size) -> Drained:
    """Makes the backlog while everything stands still, lets go, and waits for its end. Raises `AssertionError`."""
    people = deposits.prepare(of, 2 + size.several + size.singles)
    pattern, flooding = people[0], people[1]
    deposits.run(of, [pattern])
    [[id]] = rows("SELECT id FROM transactions WHERE quote_id = %s", bytes.fromhex(pattern.quote.replace("-", "")))
    several, singles = people[2 : 2 + size.several], people[2 + size.several :]
    waiting = [Waiting(flooding, size.flood), *(Waiting(one, size.each) for one in several),
               *(Waiting(one, 1) for one in singles)]  # fmt: skip
    with paused(of, spared=("simulators",)):
        before = of.control("deriv_ws", "calls", method="GET")["refused"]
        [[started]] = rows("SELECT NOW(6)")
        fill(UUID(bytes=bytes(id)), waiting, due_in=timedelta(minutes=-30))
        rows("UPDATE transactions SET leased_until = NULL")
        [[began]] = rows("SELECT NOW(6)")
    most_s = 60 + 3 * 60 * size.count / size.a_minute
    try:
        wait(lambda: not _waiting(), "the backlog did not end", most_s, nap_s=0.5)
    except AssertionError as slow:
        slow.add_note(f"waiting: {_waiting()}")
        raise
    try:
        of.manage("verify_ledger", "--json")
    except subprocess.CalledProcessError as wrong:
        raise AssertionError(wrong.stdout) from wrong
    return _drained(of, size, started, began, before, flooding.id)


def _waiting() -> list[tuple[Any, ...]]:
    """What is not at its end: status, what is known of its transfers, how many, the first and the last next step."""
    return rows(
        "SELECT t.status, d.status, d.code, COUNT(*), MIN(t.next_step_at), MAX(t.next_step_at), NOW(6) "
        "FROM transactions t LEFT JOIN deriv_transfers d ON d.transaction_id = t.id "
        "WHERE t.status = 'MPESA_CONFIRMED' OR t.status = 'DERIV_TRANSFER_SENT' GROUP BY 1, 2, 3"
    )


def _drained(of: Stack, size: Size, started: datetime, began: datetime, before: int, flooding: str) -> Drained:
    ended = rows(
        "SELECT t.user_id, COUNT(*), MAX(TIMESTAMPDIFF(MICROSECOND, %s, t.updated_at)) / 1000000.0 FROM transactions t "
        "WHERE t.status = 'COMPLETED' AND t.updated_at >= %s GROUP BY 1", began, began,
    )  # fmt: skip
    assert sum(count for _, count, _ in ended) == size.count, f"{sum(c for _, c, _ in ended)} of {size.count} completed"
    [[again]] = rows("SELECT COUNT(*) FROM deriv_transfers WHERE created_at >= %s AND fence > 1", started)
    flood = bytes.fromhex(flooding.replace("-", ""))
    longest = {
        "one deposit": max(float(last) for user, count, last in ended if count == 1),
        "several": max(float(last) for user, count, last in ended if count > 1 and bytes(user) != flood),
        "the flood": max(float(last) for user, _, last in ended if bytes(user) == flood),
    }
    sent = [datetime.fromisoformat(movement["at"]).timestamp() for movement in _movements(of, size.count)]
    refused = of.control("deriv_ws", "calls", method="GET")["refused"] - before
    return Drained(max(longest.values()), _used(sent, size.a_minute), refused, int(again), longest)


def _movements(of: Stack, count: int) -> Sequence[dict[str, str]]:
    """The transfers in Deriv's own book, without the first deposit's."""
    movements: list[dict[str, str]] = of.control("deriv_ws", "books", method="GET")
    return movements[-count:]


def _used(sent: Sequence[float], a_minute: int) -> float:
    """The part of the budget that the transfers are after the first burst, which a rested budget gives on top."""
    first = a_minute // BURST
    return (len(sent) - first) / ((sent[-1] - sent[first - 1]) * a_minute / 60)
