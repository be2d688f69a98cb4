"""What a worker keeps in memory over many Transactions: its resident size after each wave of them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from penpay.stack import Stack
from tests.benchmarks import deposits, rounds, withdrawals

NAMES = ("api", "worker0", "worker1")
WAVE = 250  # one in five is a withdrawal


@dataclass(frozen=True)
class Sizes:
    """One process: resident bytes after each wave."""

    after: Sequence[int]

    @property
    def slopes(self) -> tuple[float, float]:
        """Bytes a Transaction, over the first and the last quarter of the run."""
        quarter = max(2, len(self.after) // 4)
        return slope(self.after[:quarter]), slope(self.after[-quarter:])


def slope(sizes: Sequence[int]) -> float:
    """Bytes a Transaction by least squares, the waves being `WAVE` each."""
    middle, mean = (len(sizes) - 1) / 2, sum(sizes) / len(sizes)
    rise = sum((place - middle) * (size - mean) for place, size in enumerate(sizes))
    return rise / sum((place - middle) ** 2 for place in range(len(sizes))) / WAVE


def run(stack: Stack, waves: int) -> dict[str, Sizes]:
    """Waves of Transactions through everything; the sizes of the stack's processes after each."""
    found: dict[str, list[int]] = {name: [] for name in NAMES}
    for _ in range(waves):
        orders = withdrawals.prepare(stack, WAVE // 5)
        everybody = deposits.prepare(stack, WAVE - len(orders))
        orders += [rounds.Order(one, "deposits", {"quote_id": one.quote}) for one in everybody]
        rounds.run(stack, orders)
        time.sleep(0.2)
        for name in NAMES:
            found[name].append(resident(stack.processes[name].pid))
    return {name: Sizes(sizes) for name, sizes in found.items()}


def resident(pid: int) -> int:
    """Bytes of a process and of its children, such as gunicorn's workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(own.split()[1]) * 1024 + sum(resident(int(child)) for child in children)
