"""What a process of its own does: Django first, whose tables some stores share names with, then runs.

Nothing here may be imported from the simulation before `prepare` ran.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.run import Result


def prepare() -> None:
    """Loads Django's apps, once a process."""
    import django

    django.setup()


def share(seeds: Sequence[int]) -> "list[Result]":
    """A run of each seed."""
    from tests.simulation.run import simulate

    return [simulate(seed) for seed in seeds]


def find(variant: str, most: int) -> "Result | None":
    """The first seed below `most` at which this broken variant is found out."""
    from tests.simulation.many import first_find
    from tests.simulation.variants import VARIANTS

    return first_find(VARIANTS[variant], most)
