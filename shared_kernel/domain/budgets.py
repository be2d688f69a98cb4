"""How many calls a minute a provider allows a credential, shared by all workers: the port of the budgets.

A *lane* is one budget. A *permit* is the right to one call on it. Permits are taken before the intent of a call is
committed, never after: outside of the unit of work as a `Hand`, from which single ones are taken inside of it.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeAlias

Lane: TypeAlias = str
"""`mpesa`, or `deriv:<agent>`."""

MPESA_LANE: Lane = "mpesa"  # one consumer key, so one budget for every product

UNNAMED = 1  # calls a minute of a lane that the settings do not name: a mistake neither floods nor stops for ever


def deriv_lane(agent: str) -> Lane:
    """The budget of an agent credential, by the name under which `DerivTransfer.agent` has it."""
    return f"deriv:{agent}"


class Permits(NamedTuple):
    """How many calls that move money, and how many that only ask (queries, look-ups, Pull, statements)."""

    money: int
    reads: int


class Hand(AbstractContextManager["Hand"], Protocol):
    """The permits that one worker holds for one group of steps; for one thread. Leaving its block gives back the rest.

    All but entering and `give_back` is pure memory, safe inside a unit of work. What is not taken within
    `good_for_s` of the asking is no longer handed out.
    """

    def left(self, lane: Lane, *, reads: bool = False) -> int:
        """How many permits can still be taken; a large number where the lane has no limit."""

    def take(self, lane: Lane, *, reads: bool = False) -> bool:
        """Takes one permit; False when none is left: the call must not be made."""

    def put_back(self, lane: Lane, *, reads: bool = False) -> None:
        """Takes back a `take` whose call was surely not made, e.g. as its unit of work was rolled back."""

    def give_back(self) -> None:
        """Returns what is left to all workers, in one round trip at most; best effort. The hand is empty afterwards."""


class Budgets(Protocol):
    """The budgets of all lanes. Every method may ask another server: none is for inside a unit of work.

    None raises because that server is gone, and none blocks for longer than its time-out of 100 ms.
    """

    def hand(self, wanted: Mapping[Lane, tuple[int, int]], *, from_queue: bool = False) -> Hand:
        """Up to so many permits of each lane, as (money, reads), at once.

        Reads have a quarter of a lane for certain and beyond it only what money leaves. A lane that is queued gives
        nothing unless `from_queue`.
        """

    def penalise(self, lane: Lane, seconds: float) -> None:
        """The provider refused a call for its rate: nobody gets a permit for `seconds`, then half, slowly more."""

    def queue(self, lane: Lane, on: bool) -> None:
        """Whether rows wait in the table for this lane, so that nobody overtakes them. Holds a few seconds."""

    def wait_s(self, lane: Lane, ahead: int) -> float:
        """In how many seconds a money call gets its permit that `ahead` others wait before."""
