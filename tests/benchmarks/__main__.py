"""`bin/bench`: what PenPay does in a second, beside what is asked of it and what the machine could do."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import django
import MySQLdb

django.setup()

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from penpay.stack import ROOT, Stack  # noqa: E402
from tests.benchmarks import adapters, callbacks, deposits, floor, relay, statements  # noqa: E402
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
    """One run over one stack."""

    stack: Stack
    quick: bool
    verbose: bool
    figures: list[Figure] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def tell(self, name: str, value: float, unit: str, **more: Any) -> None:
        """Adds a figure, and shows that something goes on."""
        self.figures.append(Figure(name, value, unit, **more))
        sys.stderr.write(f"{name}: {value:.1f} {unit}\n")

    def model(self) -> floor.Model:
        """The rows of a deposit that this stack completed."""
        if not hasattr(self, "_model"):
            deposits.run(self.stack, deposits.prepare(self.stack, 1))
            found = rows("SELECT id FROM transactions WHERE status = 'COMPLETED' ORDER BY id DESC LIMIT 1")
            connection = MySQLdb.connect(**options())
            self._model = floor.model(connection, bytes(found[0][0]))
            connection.close()
        return self._model

    # --- what is measured ---------------------------------------------------------------------------------------------

    def measure_statements(self) -> None:
        """A deposit alone: what it asks of the database, and how soon a step follows its commit."""
        count = 10 if self.quick else 40
        everybody = deposits.prepare(self.stack, count + 2)
        for one in everybody[:2]:  # connections, sockets and the token are there
            deposits.run(self.stack, [one])
        runs = [statements.alone(self.stack, one) for one in everybody[2:]]
        counts = [run.counts for run in runs]
        middle = {name: median(count[name] for count in counts) for name in counts[0]}
        self.tell(
            "statements of a deposit alone", middle["statements"], "", goal="<= 40", met=middle["statements"] <= 40
        )
        self.tell("commits of a deposit alone", middle["commits"], "", goal="<= 8", met=middle["commits"] <= 8, floor=6)
        self.tell("other round trips of it", middle["others"], "", note="SET autocommit, lock_wait_timeout, savepoints")
        if self.verbose:
            for statement in runs[-1].statements:
                sys.stderr.write(f"  {statement.connection:4} {statement.text[:150]}\n")
        waits = [run.wake_ms for run in runs]
        p50 = quantile(waits, 0.5)
        self.tell("commit to next step, idle, p50", p50, "ms", goal="< 30", met=p50 < 30)
        self.tell("commit to next step, idle, p99", quantile(waits, 0.99), "ms", note=f"the largest of {len(waits)}")

    def measure_deposits(self) -> None:
        """End to end, all at once, in turn with the floor; then callback to end at a rate that leaves room."""
        count, rounds = (150, 3) if self.quick else (600, 5)
        known = self.model()
        deposits.run(self.stack, deposits.prepare(self.stack, count // 2))
        ours: list[deposits.Round] = []
        floors: list[float] = []
        ratios: list[float] = []
        spent: list[dict[str, float]] = []
        for _ in range(rounds):
            ours.append(self._round(count, spent))
            quotes = [(bytes.fromhex(one.quote.replace("-", "")), one.id) for one in people(count)]
            with paused(self.stack):
                floors.append(count / floor.run(options(), known, quotes))
            ratios.append(ours[-1].per_s / floors[-1])
        ratio = median(ratios)
        self.tell("deposits end to end", median(r.per_s for r in ours), "/s", floor=median(floors))
        self.tell("  as part of the floor", ratio, "x", goal=">= 0.4", met=ratio >= 0.4,
                  note=f"rounds: {', '.join(f'{one:.2f}' for one in ratios)}")  # fmt: skip
        self.tell("  accepted by the API meanwhile", median(r.count / r.accepted_s for r in ours), "/s")
        self.tell("callback to COMPLETED, all at once, p50", median(r.callback_to_end_ms[0] for r in ours), "ms")
        self.tell("callback to COMPLETED, all at once, p99", median(r.callback_to_end_ms[1] for r in ours), "ms")
        self.notes["cpu_ms_a_deposit"] = {
            name: round(median(one.get(name, 0.0) for one in spent), 2) for name in sorted(spent[0])
        }
        self._moderate()

    def _round(self, count: int, spent: list[dict[str, float]]) -> deposits.Round:
        everybody = deposits.prepare(self.stack, count)
        time.sleep(0.5)
        before = cpu(self.stack)
        done = deposits.run(self.stack, everybody)
        used = cpu(self.stack).since(before)
        spent.append({name: seconds * 1000 / count for name, seconds in used.items()})
        return done

    def _moderate(self) -> None:
        rate, seconds = 10.0, (4 if self.quick else 15)
        everybody = deposits.prepare(self.stack, int(rate * seconds))
        done = deposits.run(self.stack, everybody, per_s=rate)
        p50, p99 = done.callback_to_end_ms
        self.tell(f"callback to COMPLETED, {rate:.0f} deposits/s, p50", p50, "ms")
        self.tell(f"callback to COMPLETED, {rate:.0f} deposits/s, p99", p99, "ms")

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


NAMES = ("deposits", "statements", "relay", "callbacks", "deriv", "http")


def main() -> int:
    """Exit 0 when everything asked for was measured, whatever the figures; 1 when something could not be."""
    parser = argparse.ArgumentParser(prog="bin/bench", description="Measures PenPay. Figures, never a verdict.")
    parser.add_argument("--json", metavar="FILE", help="also write all figures there; - for standard output")
    parser.add_argument("--only", metavar="NAME", action="append", choices=NAMES, help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes, for a look")
    parser.add_argument("--verbose", action="store_true", help="also the statements of a deposit")
    asked = parser.parse_args()
    began, load = time.time(), os.getloadavg()[0]
    with stack(LOGS) as running:
        bench = Bench(running, asked.quick, asked.verbose)
        for name in asked.only or NAMES:
            measure: Callable[[], None] = getattr(bench, f"measure_{name}")
            measure()
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
    if spent := about.get("cpu_ms_a_deposit"):
        parts = ", ".join(f"{name} {ms:.1f}" for name, ms in spent.items())
        console.print(f"CPU ms a deposit: {parts}; {sum(spent.values()):.1f} in all.")


def number(value: float) -> str:
    """As exact as it is worth."""
    return f"{value:.2f}" if value < 10 and value % 1 else f"{value:,.0f}"


__all__ = ["Bench", "Person", "main"]

if __name__ == "__main__":
    sys.exit(main())
