"""Many seeds on all cores; a failing one is told as a story."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simulation.checks import name
from tests.simulation.coverage import Cell
from tests.simulation.process import prepare, share
from tests.simulation.run import Line, Result, Simulation, simulate

SHARE = 10  # seeds that a process takes at once


@dataclass
class Findings:
    """What many runs came to."""

    seeds: int = 0
    broken: list[Result] = field(default_factory=list)
    cells: Counter[Cell] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    commits: int = 0

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.cells += result.cells
        self.faults += result.faults
        self.ends += result.ends
        self.commits += result.commits
        if result.broken:
            self.broken.append(result)

    def summary(self) -> str:
        """Figures, and the first broken promises."""
        lines = [
            f"{self.seeds} seeds, {self.ends.total()} Transactions, {self.commits} commits, "
            f"{self.faults.total()} faults, {len(self.broken)} seeds that broke a promise",
            "ends: " + ", ".join(f"{end} {n}" for end, n in self.ends.most_common()),
            "faults: " + ", ".join(f"{fault} {n}" for fault, n in self.faults.most_common()),
        ]
        return "\n".join(lines + [f"seed {r.seed}: {r.broken}" for r in self.broken[:10]])


def each(seeds: Sequence[int]) -> Iterator[Result]:
    """All of them, in no particular order, on every core there is."""
    processes = min(os.cpu_count() or 1, max(1, len(seeds) // SHARE))
    if processes == 1:
        yield from map(simulate, seeds)
        return
    shares = [seeds[start : start + SHARE] for start in range(0, len(seeds), SHARE)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=prepare) as pool:
        for results in pool.map(share, shares):
            yield from results


def run(seeds: Sequence[int], said: Callable[[Result], None] = lambda result: None) -> Findings:
    """Runs them all and adds them up."""
    findings = Findings()
    for result in each(seeds):
        findings.add(result)
        said(result)
    return findings


def first_find(kind: type[Simulation], most: int) -> Result | None:
    """The first seed below `most` at which this variant breaks a promise."""
    for seed in range(most):
        result = simulate(seed, kind)
        if result.broken:
            return result
    return None


def story(seed: int, kind: type[Simulation] = Simulation) -> str:
    """The run told again: of the Transaction that it is about where a promise was broken, else of all."""
    result = simulate(seed, kind, telling=True)
    lines: Sequence[Line] = result.story
    if result.about is not None:
        who = name(result.about)
        lines = [line for line in lines if who in line.what.split() or line.who == "BROKEN" or f"{who}:" in line.what]
    return "\n".join(str(line) for line in lines)
