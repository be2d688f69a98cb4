"""A process's own safe share of each budget, for as long as Redis cannot be asked: smaller, but never without limit."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock

from shared_kernel.domain.budgets import UNNAMED, Lane, Permits

WINDOW_S = 62.0  # as in budget_buckets.lua: the provider's minute, and how much later one call may follow its grant
HOLD_S = 60.0
RISE_A_MINUTE = 0.05
LOWEST = 0.125
SAME_S = 5.0
QUEUED_S = 5.0


@dataclass(slots=True)
class _Bucket:
    """One lane's share, `rate` whole calls a minute; in no minute more than that, its content included."""

    rate: int
    at: float
    tokens: float
    reads: float = 0.0
    paused: float = 0.0
    factor: float = 1.0
    refused: float = float("-inf")
    queued: float = 0.0
    taken: deque[tuple[float, int]] = field(default_factory=deque)  # when, how many: of the last minute

    @property
    def burst(self) -> float:
        return min(self.rate, max(2.0, self.rate / 20))

    @property
    def per_second(self) -> float:
        """Less than the rate by the burst: together they fill the minute."""
        return (self.rate - self.burst + 1) / WINDOW_S

    def factor_at(self, now: float) -> float:
        return min(1.0, self.factor + max(0.0, now - self.refused - HOLD_S) / 60 * RISE_A_MINUTE)

    def fill(self, now: float) -> None:
        more = max(0.0, now - max(self.at, self.paused)) * self.per_second * self.factor_at(now)
        self.at = max(now, self.at)
        self.tokens = min(self.burst, self.tokens + more)
        self.reads = min(max(1.0, self.burst / 4), self.reads + more / 4)
        while self.taken and self.taken[0][0] <= self.at - WINDOW_S:
            self.taken.popleft()

    def take(self, money: int, reads: int) -> Permits:
        """Reads first, up to their quarter; beyond it only from a bucket that money leaves more than half full."""
        free = max(0, int(self.tokens))
        sure = min(reads, free, int(self.reads))
        paid = min(money, free - sure)
        asked = sure + max(0, min(reads - sure, int(self.tokens - sure - paid - self.burst / 2)))
        self.tokens -= paid + asked
        self.reads -= sure
        if paid + asked:
            self.taken.append((self.at, paid + asked))
        return Permits(paid, asked)


@dataclass
class OwnShare:
    """Buckets in this process's memory, for all of its threads.

    `shares` is how many processes divide a rate, at least 1 a minute each. They begin in debt, for what went before is
    not known, unless the process is `alone`, without any Redis.
    """

    rates: Mapping[Lane, int]
    shares: int
    alone: bool = False
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[Lane, _Bucket] = field(default_factory=dict, init=False, repr=False)
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    def take(self, wanted: Mapping[Lane, tuple[int, int]], *, from_queue: bool) -> dict[Lane, Permits]:
        with self._lock:
            return {lane: self._take(lane, money, reads, from_queue) for lane, (money, reads) in wanted.items()}

    def _take(self, lane: Lane, money: int, reads: int, from_queue: bool) -> Permits:
        bucket = self._filled(lane)
        if bucket.paused > bucket.at or (bucket.queued > bucket.at and not from_queue):
            return Permits(0, 0)
        return bucket.take(money, reads)

    def give_back(self, unused: Mapping[Lane, Permits]) -> None:
        with self._lock:
            for lane, (money, reads) in unused.items():
                bucket = self._filled(lane)
                bucket.tokens = min(bucket.burst, bucket.tokens + money + reads)
                bucket.reads = min(max(1.0, bucket.burst / 4), bucket.reads + reads)

    def penalise(self, lane: Lane, seconds: float) -> None:
        with self._lock:
            bucket = self._filled(lane)
            if bucket.at >= max(bucket.paused, bucket.refused + SAME_S):
                bucket.factor, bucket.refused = max(LOWEST, bucket.factor_at(bucket.at) / 2), bucket.at
            bucket.paused = max(bucket.paused, bucket.at + seconds)
            bucket.tokens, bucket.reads = min(0.0, bucket.tokens), 0.0

    def queue(self, lane: Lane, on: bool) -> None:
        with self._lock:
            bucket = self._filled(lane)
            bucket.queued = bucket.at + QUEUED_S if on else 0.0

    def look(self, lane: Lane) -> tuple[float, float, float]:
        """Seconds of pause left, permits in the bucket (or, below 0, owed), permits a second."""
        with self._lock:
            bucket = self._filled(lane)
            per_second = bucket.per_second * bucket.factor_at(bucket.at)
            return max(0.0, bucket.paused - bucket.at), bucket.tokens, per_second

    def taken(self) -> dict[Lane, list[tuple[float, int]]]:
        """What was taken in the last minute, as (age in seconds, permits), for the budget that all workers share."""
        with self._lock:
            buckets = {lane: self._filled(lane) for lane in self._buckets}
            return {lane: [(b.at - at, permits) for at, permits in b.taken] for lane, b in buckets.items()}

    def forget(self) -> None:
        """The next use begins in debt again."""
        with self._lock:
            self._buckets.clear()

    def _filled(self, lane: Lane) -> _Bucket:
        now = self.clock()
        bucket = self._buckets.get(lane)
        if bucket is None:
            bucket = _Bucket(max(1, self.rates.get(lane, UNNAMED) // self.shares), at=now, tokens=0.0)
            bucket.tokens = bucket.burst if self.alone else -bucket.burst
            bucket.reads = 1.0 if self.alone else 0.0
            self._buckets[lane] = bucket
        bucket.fill(now)
        return bucket
