"""One run: build up, break and pay, mend, wait, compare."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from threading import Event, Thread
from typing import Any

from penpay.stack import QUEUES
from tests.chaos import plan
from tests.chaos.customers import Customers
from tests.chaos.damage import Damage
from tests.chaos.story import rows_of, story_of
from tests.chaos.verdict import ALLOWED, Verdict, judge
from tests.journeys.world import FINAL, World, a_world

MOST_STORIES = 10
# What only a person can end is asked about for a day: a payout that M-Pesa does not know, a debit that no wallet shows.
UNDER_WAY = """
SELECT COUNT(*) FROM transactions t WHERE status NOT IN %s AND NOT (status = 'DERIV_DEBIT_SENT' AND EXISTS (
  SELECT 1 FROM deriv_transfers d WHERE d.transaction_id = t.id AND d.platform = 'rest' AND d.status = 'unknown'
  AND d.asked_at > d.send_before + INTERVAL 20 SECOND))
"""
ENDS = (*sorted(FINAL), "MPESA_DISBURSING")
AGENTS = [
    {"platform": "ws_v3", "token": "demo-agent-token", "loginid": "CR900001", "currency": "USD", "rate": 1200},
    {"platform": "rest", "token": "demo-rest-agent-token", "agent_id": 7001, "currency": "USD", "rate": 1200},
]
SETTINGS = {
    "SAGA_TIME_SCALE": "0.02",  # Deriv may book late for twelve seconds, its deadline is seven minutes
    "QUOTE_TTL_S": "3600",  # a customer insists through every fault
    "LOG_LEVEL": "WARNING",
    "MPESA_RATE_PER_MINUTE": "1200",
    "BUDGET_SHARES": "4",
    "DERIV_AGENTS": json.dumps(AGENTS),
}
# What phones do otherwise than pay and be paid: by turns.
PHONES: tuple[dict[str, Any], ...] = (
    {"behaviour": "cancel"},
    {"behaviour": "no_funds"},
    {"receives": "unregistered"},
    {},
    {},
    {},
    {},
    {},
)


@dataclass(frozen=True, slots=True)
class Options:
    """`seconds` of faults; then up to `patience_s` until all has ended."""

    seed: int
    seconds: float
    deposits: int
    withdrawals: int
    workers: int = 2
    patience_s: float = 600


@dataclass
class Chaos:
    """A run on servers that are already there. `say` prints a line."""

    options: Options
    say: Callable[[str], None]

    def run(self, home: Path, mariadb: Any, redis: Any) -> bool:
        """Whether every promise was kept."""
        self.began = time.monotonic()
        with a_world(home, mariadb, redis, SETTINGS, [QUEUES] * self.options.workers, seed=self.options.seed) as world:
            return self._verdict(world, *self._break(world))

    def tell(self, what: str) -> None:
        """A line of the timeline."""
        self.say(f"{time.monotonic() - self.began:7.1f} s  {what}")

    # --- the three parts ----------------------------------------------------------------------------------------------

    def _break(self, world: World) -> tuple[Damage, Customers]:
        options, over = self.options, Event()
        damage, customers = Damage(world, options.seed, self.tell, over), Customers(world, options.seed, over)
        depositing, withdrawing = self._people(world, options.deposits), self._people(world, options.withdrawals)
        planned = plan.blows(options.seed, options.seconds, options.workers)
        self.tell(f"{options.deposits} deposits, {options.withdrawals} withdrawals, {len(planned)} blows to come")
        self.began = time.monotonic()
        asking = Thread(target=customers.run, args=(depositing, withdrawing, options.seconds * 0.9))
        asking.start()
        try:
            damage.run(planned, options.seconds)
            damage.mend()
            self.tell("faults off, everything runs")
            self._wait_for(lambda: not asking.is_alive(), damage, options.patience_s)
        except BaseException:  # Ctrl-C, too: nobody asks any more
            over.set()
            raise
        finally:
            over.set() if asking.is_alive() and time.monotonic() - self.began > options.patience_s else None
            asking.join(60)
        self.tell(f"{len(customers.accepted)} accepted, {customers.repeated} requests were repeated")
        return damage, customers

    def _verdict(self, world: World, damage: Damage, customers: Customers) -> bool:
        self._wait_for(lambda: world.rows(UNDER_WAY, ENDS) == [(0,)], damage, self.options.patience_s)
        self.tell(f"a day passes: {world.rows('SELECT status, COUNT(*) FROM transactions GROUP BY 1')}")
        late = ""
        try:
            world.a_day_passes()
        except AssertionError as error:
            late = str(error).partition("\n")[0]
        rows, movements = rows_of(world), [one for book in world.provider_books() for one in book]
        verdict = judge(rows, movements)
        if late:
            verdict.breaks("", f"promise 9: {late}")
        for account, (theirs, ours) in world.difference().items():
            verdict.breaks("", f"promise 2: {account}: the provider says {theirs}, the ledger {ours}")
        if found := world.verify_ledger():
            verdict.breaks("", f"verify_ledger: {found}")
        self._hold_against_customers(verdict, customers, {row.id for row in rows})
        self._report(verdict, damage, customers)
        for row in [row for row in rows if row.id in verdict.broken][:MOST_STORIES]:
            self.say(story_of(world, row, movements))
        return not verdict.broken

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _people(self, world: World, count: int) -> list[dict[str, Any]]:
        made = []
        for platform, share in (("ws_v3", count - count // 2), ("rest", count // 2)):
            made += world.people(share, platform=platform, balance="100.00", prompt_s=0.5) if share else []
        phones = [{"phone": one["phone"], **does} for one, does in zip(made, cycle(PHONES), strict=False)]
        world.stack.control("mpesa", "customers", phones)
        return made

    def _wait_for(self, condition: Callable[[], bool], damage: Damage, most_s: float) -> None:
        until = time.monotonic() + most_s
        while not condition() and time.monotonic() < until:
            damage.revive()
            time.sleep(1)

    def _hold_against_customers(self, verdict: Verdict, customers: Customers, ids: set[str]) -> None:
        for key in customers.different:
            verdict.breaks("", f"promise 1: two Transactions for one Idempotency-Key: {key}")
        for key, why in (*customers.refused.items(), *customers.unanswered.items()):
            verdict.breaks("", f"a customer got no Transaction: {key}: {why}"[:400])
        if lost := set(customers.accepted.values()) - ids:
            verdict.breaks("", f"promise 6: accepted, and not in the database: {sorted(lost)}")
        if extra := ids - set(customers.accepted.values()):
            verdict.breaks("", f"promise 6: in the database, and accepted for nobody: {sorted(extra)}")

    def _report(self, verdict: Verdict, damage: Damage, customers: Customers) -> None:
        done = ", ".join(f"{count} {kind}" for kind, count in sorted(damage.done.items()))
        self.say(f"\nBroken on purpose: {done}; {damage.round + 1} rounds of faults")
        self.say(f"Ends: {dict(sorted(verdict.ends.items()))}")
        for reason, count in verdict.shown.items():
            self.say(f"Before a person: {count} for {reason} ({ALLOWED.get(reason, 'not explained')})")
        for id, what in verdict.broken.items():
            for one in what:
                self.say(f"BROKEN {id} {one}")
        self.say("Every promise was kept." if not verdict.broken else f"{len(verdict.broken)} broken.")
