"""Limits against guessing and flooding: how often something may be tried in a while, by whom; the port of the limiter.

A *rate limit* allows `most` tries in any `per_s` seconds. A *counter* is one rate limit for one somebody: a user, a
phone, an address, or everybody together. A request that several counters touch is counted by all of them or by none.

Time is cut into slices of a twelfth of `per_s`, and a counter holds how many tries fell into each. A slice counts until
all of it is older than `per_s`: so no window, wherever it begins, ever sees more than `most`, and what is full frees up
to a twelfth of `per_s` late, never early. `rate_limits.lua` does the same in Redis.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor
from typing import Protocol

from shared_kernel.domain.errors import TooManyRequests

SLICES = 12
SITES = 16  # networks of one site's size (/48) that IPv6 lets count apart; one subscriber may hold all 65,536 of them


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `most` tries in any `per_s` seconds."""

    most: int
    per_s: int

    def slice_at(self, at: float) -> int:
        """The number of the slice that holds this moment (seconds since 1970)."""
        return floor(at * SLICES / self.per_s)

    def counted(self, slices: Mapping[int, int], at: float) -> dict[int, int]:
        """Those of the slices that still count, the oldest first."""
        oldest = self.slice_at(at) - SLICES
        return {number: slices[number] for number in sorted(slices) if number >= oldest and slices[number] > 0}

    def wait_s(self, slices: Mapping[int, int], at: float) -> float:
        """In how many seconds one more try is allowed; 0.0: it is now."""
        counted = self.counted(slices, at)
        excess = sum(counted.values()) + 1 - self.most
        for number, tries in counted.items():
            if excess <= 0:
                break
            excess -= tries
            if excess <= 0:
                return (number + 1 + SLICES) * self.per_s / SLICES - at
        return 0.0


@dataclass(frozen=True, slots=True)
class Counter:
    """The rate limit `limit` (a name in `settings.RATE_LIMITS`) for `of`; empty: for everybody together.

    `of` may be personal: what is stored of it is an HMAC. `times` as much is allowed to it, as to a larger network.
    """

    limit: str
    of: str = ""
    times: int = 1


class Limiter(Protocol):
    """Counts tries for all processes. None of it is for inside a unit of work: it asks another server, or commits.

    None raises because that server is gone: the database holds the counters then.
    """

    def take(self, *counters: Counter) -> None:
        """One try on each. Raises `TooManyRequests`, with `retry_after`, when one is full: then none has counted it.

        The first refusal of a counter in its while leaves an audit row, `rate_limit.reached`.
        """

    def give_back(self, *counters: Counter) -> None:
        """What was taken a moment ago was no try after all. Where that fails it stays counted, with a line in the log:
        what was done stands.
        """

    def forget(self, *counters: Counter) -> None:
        """These begin anew, as after a right password; where that fails as in `give_back`."""


def refusal(wait_s: float) -> TooManyRequests:
    """What is told to whoever is refused: how long, and never which counter, for that would tell of others."""
    seconds = max(1, -int(-wait_s // 1))
    return TooManyRequests(f"too many requests: wait {seconds} seconds, then try again", retry_after=seconds)


def counters_of_address(limit: str, address: str) -> list[Counter]:
    """What an address counts as: an IPv6 one as its /64, for whoever has one of these has all, and with `SITES` times
    as much as its /48, for whoever has one of those has 65,536 of the former; any other as itself.
    """
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return [Counter(limit, address)]
    if known.version == 4:
        return [Counter(limit, str(known))]
    network, site = (str(ipaddress.ip_network((known, length), strict=False)) for length in (64, 48))
    return [Counter(limit, network), Counter(limit, site, SITES)]
