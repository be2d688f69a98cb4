"""The one budget of all workers, in Redis: one script (`budget_buckets.lua`), one round trip a question."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.retry import Retry

from shared_kernel.domain.budgets import UNNAMED, Lane, Permits
from shared_kernel.infrastructure.budget_share import WINDOW_S

SCRIPT = Path(__file__).with_suffix(".lua").read_text()
TIMEOUT_S = 0.1


@dataclass(frozen=True)
class RedisBuckets:
    """The one budget of all workers. Every method is one round trip, and raises `RedisError` when there is none.

    `clock` replaces the server's time, for tests alone.
    """

    rates: Mapping[Lane, int]
    client: Redis
    prefix: str = "penpay:budget:"
    clock: Callable[[], float] | None = None

    def take(
        self, hand: str, wanted: Mapping[Lane, tuple[int, int]], *, from_queue: bool = False
    ) -> dict[Lane, Permits]:
        asked = {lane: (money, reads, hand, int(from_queue)) for lane, (money, reads) in wanted.items()}
        granted = self._run("take", asked)
        return {lane: Permits(int(money), int(reads)) for lane, (money, reads) in zip(wanted, granted, strict=True)}

    def give_back(self, hand: str, granted: Mapping[Lane, Permits], unused: Mapping[Lane, Permits]) -> None:
        self._run(
            "give_back",
            {lane: (hand, sum(granted[lane]), sum(rest), rest.reads) for lane, rest in unused.items()},
        )

    def penalise(self, lane: Lane, seconds: float) -> None:
        self._run("penalise", {lane: (seconds,)})

    def queue(self, lane: Lane, on: bool) -> None:
        self._run("queue", {lane: (int(on),)})

    def rejoin(self, taken: Mapping[Lane, list[tuple[float, int]]]) -> None:
        """Counts what this process took from its own share while Redis was gone, as (age in seconds, permits).

        Writes in any case: a server that answers and refuses to write is still gone.
        """
        told = dict.fromkeys(self.rates, ("",))
        for lane, grants in taken.items():
            told[lane] = ("".join(f"{secrets.token_hex(8)}@{age:.3f}:{permits}," for age, permits in grants),)
        self._run("rejoin", told)

    def look(self, lane: Lane) -> tuple[float, float, float]:
        """Seconds of pause left, permits in the bucket (or, below 0, owed), permits a second."""
        [(paused, tokens, factor)] = self._run("look", {lane: ()})
        return float(paused), float(tokens), self.rates.get(lane, UNNAMED) * float(factor) / WINDOW_S

    def _run(self, deed: str, lanes: Mapping[Lane, tuple[Any, ...]]) -> list[list[Any]]:
        keys = [f"{self.prefix}{{{lane}}}:{part}" for lane in lanes for part in ("state", "grants")]
        at = "" if self.clock is None else repr(self.clock())
        arguments = [value for lane, given in lanes.items() for value in (self.rates.get(lane, UNNAMED), *given)]
        answer: list[list[Any]] = self.client.register_script(SCRIPT)(keys, [deed, at, *arguments])
        return answer


def connect(url: str) -> Redis:
    """A client that gives up fast. A kept connection that died is made anew once; a late answer is not asked again."""
    once = Retry(NoBackoff(), 1, supported_errors=(Disconnected,))
    return Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=once)
