"""The budgets: over Redis, and on this process's own share while Redis is gone."""

import logging
import os
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from redis.exceptions import RedisError

from shared_kernel.domain.budgets import UNNAMED, Lane, Permits
from shared_kernel.infrastructure.budget_buckets import RedisBuckets, connect
from shared_kernel.infrastructure.budget_hand import SharedHand
from shared_kernel.infrastructure.budget_share import OwnShare
from shared_kernel.infrastructure.reach import Reach

log = logging.getLogger(__name__)

GOOD_FOR_S = 2.0  # a hand's permits: budget_buckets.lua counts on calls that follow their grant by about this at most
LONGEST_PAUSE_S = 900.0  # whatever a provider's answer says: it may be misread, and payouts must not stop for a day
MONEY_PART = 0.75  # what reads certainly leave

T = TypeVar("T")


@dataclass
class SharedBudgets:
    """`Budgets` of the domain. `rates` in calls a minute by lane, None for no limit: such a lane asks nobody.

    A lane that `rates` does not name has `UNNAMED`.
    """

    rates: Mapping[Lane, int | None]
    redis_url: str = field(repr=False)  # may hold a password
    shares: int = 8
    monotonic: Callable[[], float] = time.monotonic
    buckets: RedisBuckets | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        limited = {lane: rate for lane, rate in self.rates.items() if rate is not None}
        if self.buckets is None and self.redis_url:
            self.buckets = RedisBuckets(limited, connect(self.redis_url))
        self._reach = Reach(self.monotonic)
        self._share = OwnShare(limited, self.shares, alone=self.buckets is None, clock=self.monotonic)
        os.register_at_fork(after_in_child=self._begin_anew)

    def hand(self, wanted: Mapping[Lane, tuple[int, int]], *, from_queue: bool = False) -> SharedHand:
        good_until = self.monotonic() + GOOD_FOR_S
        asked = {lane: wish for lane, wish in wanted.items() if self._limited(lane) and any(wish)}
        id = secrets.token_hex(8)
        granted, buckets = self._ask(
            lambda redis: (redis.take(id, asked, from_queue=from_queue), redis),
            lambda share: (share.take(asked, from_queue=from_queue), None),
        ) if asked else ({}, None)  # fmt: skip

        def give_back(held: Mapping[Lane, Permits], unused: Mapping[Lane, Permits]) -> None:
            if buckets is None:
                self._share.give_back(unused)
            else:
                self._ask(lambda redis: redis.give_back(id, held, unused), lambda share: None)

        return SharedHand(
            granted,
            self._limited,
            give_back=give_back,
            good_until=good_until,
            monotonic=self.monotonic,
        )

    def penalise(self, lane: Lane, seconds: float) -> None:
        if self._limited(lane):
            pause = min(max(seconds, 1.0), LONGEST_PAUSE_S)
            self._ask(lambda redis: redis.penalise(lane, pause), lambda share: share.penalise(lane, pause))

    def queue(self, lane: Lane, on: bool) -> None:
        if self._limited(lane):
            self._ask(lambda redis: redis.queue(lane, on), lambda share: share.queue(lane, on))

    def wait_s(self, lane: Lane, ahead: int) -> float:
        if not self._limited(lane):
            return 0.0
        paused, tokens, per_second = self._ask(lambda redis: redis.look(lane), lambda share: share.look(lane))
        return paused + max(0.0, ahead + 1 - tokens) / (per_second * MONEY_PART)

    def _limited(self, lane: Lane) -> bool:
        return self.rates.get(lane, UNNAMED) is not None

    def _ask(self, redis: Callable[[RedisBuckets], T], share: Callable[[OwnShare], T]) -> T:
        """Redis, unless it is gone or rests; one thread at a time finds out whether it is back."""
        if self.buckets is not None and self._reach.may_ask():
            try:
                self._rejoin(self.buckets)
                return redis(self.buckets)
            except (RedisError, OSError) as error:
                if self._reach.lost():
                    log.warning("budgets_on_own_share: Redis cannot be asked (%s)", type(error).__name__)
        return share(self._share)

    def _rejoin(self, buckets: RedisBuckets) -> None:
        if not self._reach.away:
            return
        buckets.rejoin(self._share.taken())
        self._share.forget()
        if self._reach.back():
            log.warning("budgets_shared_again: Redis answers")

    def _begin_anew(self) -> None:
        """A forked child: its parent's locks may be held by threads that it has not."""
        self._share = OwnShare(self._share.rates, self.shares, alone=self.buckets is None, clock=self.monotonic)
