"""The limiter: counters in Redis, and in the database while Redis cannot be asked."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from django.db import DatabaseError
from redis.exceptions import RedisError

from shared_kernel.domain.ports import AuditRecord
from shared_kernel.domain.rate_limits import Counter, RateLimit, refusal
from shared_kernel.infrastructure.budget_buckets import connect
from shared_kernel.infrastructure.persistence import DjangoAuditLog, in_unit_of_work, now, unit_of_work
from shared_kernel.infrastructure.rate_limit_stores import Asked, DatabaseStore, RedisStore
from shared_kernel.infrastructure.reach import Reach

log = logging.getLogger(__name__)

TOLD = Counter("audit.all")  # whoever has many addresses fills no audit log with refusals either

T = TypeVar("T")


@dataclass
class SharedLimiter:
    """`Limiter` of the domain. `limits` by name: `settings.RATE_LIMITS`.

    Redis that is gone costs a request 100 ms, and for three seconds none asks again. The database's counters begin
    anew then, and those in Redis go on when it is back: neither knows of the other's tries.
    """

    limits: Mapping[str, RateLimit]
    redis_url: str = field(repr=False)  # may hold a password
    redis: RedisStore | None = field(default=None, repr=False)
    database: DatabaseStore = field(default_factory=DatabaseStore, repr=False)
    reach: Reach = field(default_factory=Reach, repr=False)

    def __post_init__(self) -> None:
        if self.redis is None and self.redis_url:
            self.redis = RedisStore(connect(self.redis_url))

    def take(self, *counters: Counter) -> None:
        asked = self._asked(counters)
        verdict = self._ask(lambda store: store.take(asked))
        if verdict.wait_s > 0:
            self._tell(verdict.news)
            raise refusal(verdict.wait_s)

    def give_back(self, *counters: Counter) -> None:
        asked = self._asked(counters)
        self._change(lambda store: store.give_back(asked))

    def forget(self, *counters: Counter) -> None:
        asked = self._asked(counters)
        self._change(lambda store: store.forget(asked))

    def _change(self, change: Callable[["RedisStore | DatabaseStore"], None]) -> None:
        """It comes after what was tried, whose answer it must not hide."""
        try:
            self._ask(change)
        except DatabaseError as error:
            log.warning("rate_limit_not_changed: %s", type(error).__name__)

    def _asked(self, counters: Sequence[Counter]) -> list[Asked]:
        if in_unit_of_work():
            raise RuntimeError("a limiter asks another server, or commits on its own: outside of the unit of work")
        return [Asked.of(counter, self.limits[counter.limit]) for counter in dict.fromkeys(counters)]

    def _ask(self, question: Callable[["RedisStore | DatabaseStore"], T]) -> T:
        if self.redis is not None and self.reach.may_ask():
            try:
                answer = question(self.redis)
            except (RedisError, OSError) as error:
                if self.reach.lost():
                    log.warning("rate_limits_in_database: Redis cannot be asked (%s)", type(error).__name__)
            else:
                if self.reach.back():
                    log.warning("rate_limits_in_redis_again")
                return answer
        return question(self.database)

    def _tell(self, news: Sequence[Asked]) -> None:
        """Once a counter and while, and not without end. A refusal stands whether it can be told of or not."""
        told = self._asked([TOLD])
        for one in news:
            log.warning("rate_limit_reached", extra={"limit": one.name})
            try:
                if self._ask(lambda store: store.take(told)).wait_s > 0:
                    return
                with unit_of_work():
                    record = AuditRecord("rate_limit.reached", "rate_limit", one.name, now(), details=vars_of(one))
                    DjangoAuditLog().append([record])
            except DatabaseError as error:
                log.warning("rate_limit_not_told: %s", type(error).__name__)


def vars_of(one: Asked) -> dict[str, int]:
    """What the audit row says beside the limit's name."""
    return {"most": one.limit.most, "per_s": one.limit.per_s}
