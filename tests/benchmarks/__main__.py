"""`bin/bench`: what PenPay does in a second, beside what is asked of it and what the machine could do."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import django
import MySQLdb

django.setup()

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from penpay.stack import ROOT, Stack  # noqa: E402
from tests.benchmarks import (  # noqa: E402
    adapters,
    callbacks,
    deposits,
    drain,
    floor,
    ledger,
    memory,
    relay,
    rounds,
    sessions,
    statements,
    withdrawals,
)
from tests.benchmarks.floor_deposit import DepositWriter  # noqa: E402
from tests.benchmarks.floor_withdrawal import WithdrawalWriter  # noqa: E402
from tests.benchmarks.people import Person, people  # noqa: E402
from tests.benchmarks.world import GUARDS_OFF, cpu, options, paused, quantile, rows, stack  # noqa: E402

LOGS = ROOT / ".local" / "bench"


@dataclass(frozen=True)
class Figure:
    """One measured thing. `goal` is a bound as text, `met` whether it holds; `floor` is what stands beside it."""

    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None
    floor: float | None = None
    note: str = ""


@dataclass
class Bench:
    """One run. `stack` is there for all measurements but those that are `ALONE`."""

    quick: bool
    verbose: bool
    stack: Stack = field(init=False)
    figures: list[Figure] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)
    _models: dict[str, floor.Model] = field(default_factory=dict)

    def tell(self, name: str, value: float, unit: str, **more: Any) -> None:
        """Adds a figure, and shows that something goes on."""
        self.figures.append(Figure(name, value, unit, **more))
        sys.stderr.write(f"{name}: {value:.1f} {unit}\n")

    def model(self, kind: str = "deposit") -> floor.Model:
        """The rows of a Transaction of this kind that this stack completed."""
        if kind not in self._models:
            if kind == "deposit":
                deposits.run(self.stack, deposits.prepare(self.stack, 1))
            else:
                rounds.run(self.stack, withdrawals.prepare(self.stack, 1))
            time.sleep(1)  # the relay's mark on its last events
            last = "SELECT id FROM transactions WHERE type = %s AND status = 'COMPLETED' ORDER BY id DESC LIMIT 1"
            with closing(MySQLdb.connect(**options())) as connection:
                self._models[kind] = floor.model(connection, bytes(rows(last, kind)[0][0]))
        return self._models[kind]

    def measure(self, names: Sequence[str]) -> None:
        """Each of these."""
        for name in names:
            getattr(self, f"measure_{name}")()

    # --- what is measured ---------------------------------------------------------------------------------------------

    def measure_statements(self) -> None:
        """A deposit alone, and a withdrawal: what each asks of the database, and how soon a step follows its commit."""
        count = 10 if self.quick else 40
        everybody = deposits.prepare(self.stack, count + 2)
        self._alone("deposit", [partial(deposits.run, self.stack, [one]) for one in everybody], floor=6, goals=(40, 8))
        orders = withdrawals.prepare(self.stack, count + 2)
        self._alone("withdrawal", [partial(rounds.run, self.stack, [one]) for one in orders], floor=7, goals=None)

    def _alone(
        self, kind: str, each: Sequence[Callable[[], Any]], *, floor: int, goals: tuple[int, int] | None
    ) -> None:
        for run in each[:2]:  # connections, sockets and the token are there
            run()
        runs = [statements.alone(run) for run in each[2:]]
        counts = [run.counts for run in runs]
        middle = {name: median(count[name] for count in counts) for name in counts[0]}
        for name, most, least in (("statements", goals and goals[0], None), ("commits", goals and goals[1], floor)):
            bound = {"goal": f"<= {most}", "met": middle[name] <= most} if most else {}
            self.tell(f"{name} of a {kind} alone", middle[name], "", floor=least, **bound)
        self.tell(
            "  other round trips of it", middle["others"], "", note="SET autocommit, lock_wait_timeout, savepoints"
        )
        if self.verbose:
            for statement in runs[-1].statements:
                sys.stderr.write(f"  {statement.connection:4} {statement.text[:150]}\n")
        waits = [run.wake_ms for run in runs]
        p50 = quantile(waits, 0.5)
        self.tell(f"commit to next step of a {kind}, idle, p50", p50, "ms", goal="< 30", met=p50 < 30)
        self.tell(
            f"commit to next step of a {kind}, idle, p99", quantile(waits, 0.99), "ms",
            note=f"the largest of {len(waits)}",
        )  # fmt: skip

    def measure_deposits(self) -> None:
        """End to end, all at once, in turn with the floor; then callback to end at a rate that leaves room."""

        def prepare(count: int) -> Callable[..., rounds.Round]:
            return partial(deposits.run, self.stack, deposits.prepare(self.stack, count))

        self._end_to_end("deposit", prepare, DepositWriter, {"goal": 0.4})

    def measure_withdrawals(self) -> None:
        """As `measure_deposits`; the codes are asked for before what is timed."""

        def prepare(count: int) -> Callable[..., rounds.Round]:
            return partial(rounds.run, self.stack, withdrawals.prepare(self.stack, count))

        self._end_to_end("withdrawal", prepare, WithdrawalWriter, {}, dollars=withdrawals.DOLLARS)

    def _end_to_end(
        self,
        kind: str,
        prepare: Callable[[int], Callable[..., rounds.Round]],
        writer: type[floor.Writer],
        goal: dict[str, float],
        dollars: int = 0,
    ) -> None:
        count, times = (150, 3) if self.quick else (600, 5)
        known = self.model(kind)
        prepare(count // 2)()
        ours: list[rounds.Round] = []
        floors: list[float] = []
        spent: list[dict[str, float]] = []
        for _ in range(times):
            ours.append(self._round(count, prepare(count), spent))
            quotes = [(bytes.fromhex(one.quote.replace("-", "")), one.id) for one in people(count, dollars=dollars)]
            with paused(self.stack):
                floors.append(count / floor.run(options(), known, writer, quotes))
        ratios = [our.per_s / least for our, least in zip(ours, floors, strict=True)]
        ratio = median(ratios)
        bound = {"goal": f">= {goal['goal']}", "met": ratio >= goal["goal"]} if goal else {}
        self.tell(f"{kind}s end to end", median(r.per_s for r in ours), "/s", floor=median(floors))
        self.tell("  as part of the floor", ratio, "x", note=f"rounds: {', '.join(f'{one:.2f}' for one in ratios)}",
                  **bound)  # fmt: skip
        self.tell("  accepted by the API meanwhile", median(r.count / r.accepted_s for r in ours), "/s")
        for place, name in enumerate(("p50", "p99")):
            self.tell(f"{kind}: callback to COMPLETED, all at once, {name}",
                      median(r.callback_to_end_ms[place] for r in ours), "ms")  # fmt: skip
        self.notes[f"cpu_ms_a_{kind}"] = {
            name: round(median(one.get(name, 0.0) for one in spent), 2) for name in sorted(spent[0])
        }
        rate, seconds = 10.0, (4 if self.quick else 15)
        done = prepare(int(rate * seconds))(per_s=rate)
        for name, took in zip(("p50", "p99"), done.callback_to_end_ms, strict=True):
            self.tell(f"{kind}: callback to COMPLETED, {rate:.0f} a second, {name}", took, "ms")

    def _round(self, count: int, run: Callable[[], rounds.Round], spent: list[dict[str, float]]) -> rounds.Round:
        time.sleep(0.5)
        before = cpu(self.stack)
        done = run()
        used = cpu(self.stack).since(before)
        spent.append({name: seconds * 1000 / count for name, seconds in used.items()})
        return done

    def measure_relay(self) -> None:
        """One relay that empties the outbox; the workers stand still."""
        count, rounds = (5_000, 3) if self.quick else (20_000, 3)
        with paused(self.stack):
            relay.per_s(1000)
            ours, floors = [], []
            for _ in range(rounds):
                ours.append(relay.per_s(count))
                floors.append(relay.floor_per_s(count))
        got = median(ours)
        self.tell("events through the relay", got, "/s", goal=">= 10000", met=got >= 10_000, floor=median(floors))

    def measure_callbacks(self) -> None:
        """Callbacks through gunicorn; the workers stand still, so that only storing and answering is timed."""
        count, rounds = (300, 3) if self.quick else (1500, 3)
        known = self.model()
        ours: list[callbacks.Answered] = []
        floors: list[callbacks.Answered] = []
        with paused(self.stack, spared=("api",)):
            callbacks.answered(self.stack, callbacks.attempts(100))
            for _ in range(rounds):
                ours.append(callbacks.answered(self.stack, callbacks.attempts(count)))
                floors.append(callbacks.floor(known, callbacks.attempts(count)))
            rows("UPDATE domain_events SET published_at = NOW(6) WHERE published_at IS NULL")
            relay.forget()
        rate, p99 = median(one.per_s for one in ours), median(one.p99_ms for one in ours)
        self.tell("callbacks stored and answered", rate, "/s", goal=">= 300", met=rate >= 300,
                  floor=median(one.per_s for one in floors))  # fmt: skip
        self.tell(f"  p99, {callbacks.SENDERS} at once", p99, "ms", goal="< 50", met=p99 < 50,
                  floor=median(one.p99_ms for one in floors))  # fmt: skip

    def measure_deriv(self) -> None:
        """Transfers on one socket."""
        everybody = deposits.prepare(self.stack, 64)
        count = 256 if self.quick else 1024
        with paused(self.stack, spared=("simulators",)):
            for latency_s in (0.02, 0.0):
                pairs = [adapters.deriv(self.stack, everybody, count, latency_s) for _ in range(1 if self.quick else 3)]
                one, many = median(p[0] for p in pairs), median(p[1] for p in pairs)
                ratio = median(p[1] / p[0] for p in pairs)
                after = f"Deriv takes {latency_s * 1000:.0f} ms"
                self.tell(
                    f"Deriv calls, {adapters.IN_FLIGHT} in flight, {after}", many, "/s", note=f"one by one {one:.0f}/s"
                )
                goal = (
                    {"goal": ">= 5", "met": ratio >= 5}
                    if latency_s
                    else {"note": "both ends share this machine's cores"}
                )
                self.tell("  as part of one after another", ratio, "x", **goal)

    def measure_http(self) -> None:
        """STK queries with kept connections."""
        count = 300 if self.quick else 1500
        with paused(self.stack, spared=("simulators",)):
            one = median(adapters.daraja(self.stack, count // 2, 1) for _ in range(3))
            many = median(adapters.daraja(self.stack, count, 32) for _ in range(3))
            bare = median(adapters.bare_http(self.stack, count // 2) for _ in range(3))
        self.tell("M-Pesa calls, one after another", one, "/s", floor=bare, note="floor: httpx alone, kept connection")
        self.tell("M-Pesa calls, 32 side by side", many, "/s", note="the simulator shares the cores")

    def measure_memory(self) -> None:
        """What each process keeps of 10,000 Transactions. A worker that is warm keeps nothing of one."""
        waves = 12 if self.quick else 40
        for name, sizes in memory.run(self.stack, waves).items():
            first, last = sizes.slopes
            note = f"first quarter {first:,.0f}; {sizes.after[0] >> 20} MiB, then {sizes.after[-1] >> 20} MiB"
            self.tell(f"memory of {name}, last quarter, a Transaction", last, "bytes", note=note)
        self.notes["transactions_for_memory"] = waves * memory.WAVE

    def measure_drain(self) -> None:
        """10,000 paid deposits that wait for Deriv, against the budget of one agent; on a stack of its own."""
        size = drain.QUICK if self.quick else drain.FULL
        with drain.budgeted(LOGS / "drain", size) as budgeted:
            done = drain.run(budgeted, size)
        about = f"{size.count} deposits, {size.a_minute} calls a minute, {done.took_s:.0f} s"
        used = 100 * done.used
        self.tell(
            "drain: budget used after the first burst", used, "%", goal="95 to 100", met=95 <= used <= 100, note=about
        )
        self.tell("  calls that Deriv refused", done.refused, "", goal="0", met=not done.refused)
        self.tell("  transfers sent more than once", done.again, "", goal="0", met=not done.again)
        one, flood = done.longest["one deposit"], done.longest["the flood"]
        self.tell("  longest wait, one-deposit customers", one, "s", goal="< half of the flood's", met=one < flood / 2,
                  note=f"{size.singles} of them, whose deposits came last")  # fmt: skip
        self.tell("  longest wait, customers with several", done.longest["several"], "s", note=f"{size.each} each")
        self.tell("  longest wait, the flood", flood, "s", note=f"{size.flood} deposits of one customer")

    def measure_ledger(self) -> None:
        """Postings and reads of the ledger alone, on databases of its own."""
        for figure in ledger.figures(self.quick):
            self.tell(**figure)

    def measure_sessions(self) -> None:
        """Who asks, per request; and deposits while sign-ins flood in, on a stack with the limits of production."""
        with sessions.attacked(LOGS / "sessions") as attacked:
            cost = sessions.overhead(sessions.prepare(attacked, 1)[0], 300 if self.quick else 1500)
            self.tell("authenticated request, beyond the page's own work", cost.ms, "ms", goal="<= 3", met=cost.ms <= 3,
                      floor=cost.floor_ms, note="token, session, device, rate limits")  # fmt: skip
            more = cost.queries - cost.floor_queries
            self.tell("  queries of it", more, "", goal="<= 2", met=more <= 2, floor=cost.floor_queries)
            rate, seconds, turns, tries = 20.0, 3, (3 if self.quick else 12), 100.0
            sessions.accepting(attacked, sessions.prepare(attacked, int(rate * 3)), rate)
            everybody = sessions.prepare(attacked, 2 * turns * int(rate * seconds))
            parts = [everybody[n :: 2 * turns] for n in range(2 * turns)]
            quiet, loud, statuses = list[float](), list[float](), dict[str, int]()
            with paused(attacked, spared=("api",)):
                for turn in range(turns):  # short ones, so that whatever else the machine does meets both
                    quiet += sessions.accepting(attacked, parts[2 * turn], rate)
                    with sessions.flood(attacked, tries, statuses):
                        loud += sessions.accepting(attacked, parts[2 * turn + 1], rate)
        ratio = quantile(loud, 0.99) / quantile(quiet, 0.99)
        about = f"{rate:.0f} a second, {len(quiet)} in all; workers stand still"
        self.tell("deposits accepted, quiet, p50", median(quiet), "ms", note=about)
        self.tell("  p99", quantile(quiet, 0.99), "ms")
        answers = ", ".join(f"{many} x {status}" for status, many in sorted(statuses.items()))
        self.tell("deposits accepted, while sign-ins flood in, p50", median(loud), "ms",
                  note=f"{tries:.0f} sign-ins a second from 1000 addresses: {answers}")  # fmt: skip
        self.tell("  p99", quantile(loud, 0.99), "ms")
        self.tell("  as part of the quiet p99", ratio, "x", goal="< 2", met=ratio < 2)


NAMES = ("deposits", "withdrawals", "statements", "relay", "callbacks", "deriv", "http", "memory", "drain", "ledger",
         "sessions")  # fmt: skip
ALONE = ("drain", "ledger", "sessions")  # on a stack or databases of their own, once the shared stack has ended


def main() -> int:
    """Exit 0 when everything asked for was measured, whatever the figures; 1 when something could not be."""
    parser = argparse.ArgumentParser(prog="bin/bench", description="Measures PenPay. Figures, never a verdict.")
    parser.add_argument("--json", metavar="FILE", help="also write all figures there; - for standard output")
    parser.add_argument("--only", metavar="NAME", action="append", choices=NAMES, help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--verbose", action="store_true", help="also the statements of a deposit")
    asked = parser.parse_args()
    began, load = time.time(), os.getloadavg()[0]
    bench, names = Bench(asked.quick, asked.verbose), asked.only or NAMES
    if shared := [name for name in names if name not in ALONE]:
        with stack(LOGS) as running:
            bench.stack = running
            bench.measure(shared)
    bench.measure([name for name in names if name in ALONE])
    about = {
        "cores": os.cpu_count(),
        "load_before": round(load, 1),
        "took_s": round(time.time() - began, 1),
        "guards_off": list(GUARDS_OFF),
        "innodb_flush_log_at_trx_commit": 1,
        **bench.notes,
    }
    if asked.json:
        text = json.dumps({"about": about, "figures": [asdict(figure) for figure in bench.figures]}, indent=1)
        sys.stdout.write(text + "\n") if asked.json == "-" else Path(asked.json).write_text(text + "\n")
    if asked.json != "-":
        show(bench.figures, about)
    return 0


def show(figures: Sequence[Figure], about: dict[str, Any]) -> None:
    """The table."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    table = Table()
    for column in ("", "measured", "goal", "", "floor", "note"):
        table.add_column(column, justify="right" if column in {"measured", "floor"} else "left")
    for figure in figures:
        met = "" if figure.met is None else "met" if figure.met else "MISSED"
        beside = "" if figure.floor is None else number(figure.floor)
        table.add_row(
            figure.name, f"{number(figure.value)} {figure.unit}".strip(), figure.goal, met, beside, figure.note
        )
    console.print(table)
    console.print(f"{about['cores']} cores, load {about['load_before']} before it began, took {about['took_s']} s.")
    console.print("MariaDB, innodb_flush_log_at_trx_commit=1. Off in the simulators: " + "; ".join(GUARDS_OFF) + ".")
    for kind in ("deposit", "withdrawal"):
        if spent := about.get(f"cpu_ms_a_{kind}"):
            parts = ", ".join(f"{name} {ms:.1f}" for name, ms in spent.items())
            console.print(f"CPU ms a {kind}: {parts}; {sum(spent.values()):.1f} in all.")


def number(value: float) -> str:
    """As exact as it is worth."""
    return f"{value:.2f}" if value < 10 and value % 1 else f"{value:,.0f}"


__all__ = ["Bench", "Person", "main"]

if __name__ == "__main__":
    sys.exit(main())
