"""Where the counters of the rate limits are: in Redis by one script, or in the table `rate_limit_counters`."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from django.db import OperationalError, connection, transaction
from redis import Redis

from shared_kernel import models
from shared_kernel.domain.rate_limits import SLICES, Counter, RateLimit
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import lock_lost

SCRIPT = (Path(__file__).parent / "rate_limits.lua").read_text()
TRIES = 3  # of a transaction that lost a lock

T = TypeVar("T")


class Asked(NamedTuple):
    """A counter, under a key that tells nobody of whom it is, and its limit."""

    key: str  # 64 hex digits
    name: str
    limit: RateLimit

    @classmethod
    def of(cls, counter: Counter, limit: RateLimit) -> "Asked":
        """Its key is an HMAC by `PII_INDEX_KEY`: phones and addresses are few enough to try them all otherwise."""
        allowed = RateLimit(limit.most * counter.times, limit.per_s)
        return cls(blind_index("rate_limit", f"{counter.limit}|{counter.of}"), counter.limit, allowed)


class Verdict(NamedTuple):
    """`wait_s` is 0.0 when the try was counted; `news` are the full counters that were not told of in their while."""

    wait_s: float
    news: list[Asked]


@dataclass(frozen=True)
class RedisStore:
    """Each method is one round trip, and raises `RedisError` when there is none.

    `clock` replaces the server's time, for tests alone.
    """

    client: Redis
    prefix: str = "penpay:rate:"
    clock: Callable[[], float] | None = None

    def take(self, asked: Sequence[Asked]) -> Verdict:
        wait, *news = self._run("take", asked)
        return Verdict(float(wait or 0), [asked[int(place) - 1] for place in news])

    def give_back(self, asked: Sequence[Asked]) -> None:
        self._run("give_back", asked)

    def forget(self, asked: Sequence[Asked]) -> None:
        self._run("forget", asked)

    def _run(self, deed: str, asked: Sequence[Asked]) -> list[Any]:
        keys = [f"{self.prefix}{one.name}:{one.key}" for one in asked]
        numbers = [number for one in asked for number in (one.limit.most, one.limit.per_s)]
        at = "" if self.clock is None else repr(self.clock())
        answer: list[Any] = self.client.register_script(SCRIPT)(keys, [deed, at, *numbers])
        return answer


@dataclass(frozen=True)
class DatabaseStore:
    """A row a counter, locked in the order of their keys. Each method commits on its own.

    Measured by the hosts' clocks: a slice must be long against the difference between them (NTP: well below a second).
    """

    clock: Callable[[], float] = time.time

    def take(self, asked: Sequence[Asked]) -> Verdict:
        """Raises `OperationalError` where the locks are lost again and again: 503, and nothing was counted."""
        return _again(lambda: self._take(asked))

    def _take(self, asked: Sequence[Asked]) -> Verdict:
        at, rows = self.clock(), self._locked(asked)
        slices = {one.key: _read(rows[one.key].slices) for one in asked}
        waits = {one.key: one.limit.wait_s(slices[one.key], at) for one in asked}
        full = [one for one in asked if waits[one.key] > 0]
        if not full:
            for one in asked:
                counted, this = one.limit.counted(slices[one.key], at), one.limit.slice_at(at)
                rows[one.key].slices = _written(counted | {this: counted.get(this, 0) + 1})
            _save(rows.values(), "slices")
            return Verdict(0.0, [])
        news = [one for one in full if rows[one.key].told_until <= at]
        for one in news:
            rows[one.key].told_until = at + one.limit.per_s
        _save([rows[one.key] for one in news], "told_until")
        return Verdict(max(waits.values()), news)

    def give_back(self, asked: Sequence[Asked]) -> None:
        _again(lambda: self._give_back(asked))

    def _give_back(self, asked: Sequence[Asked]) -> None:
        at, rows = self.clock(), self._locked(asked)
        for one in asked:
            slices, this = _read(rows[one.key].slices), one.limit.slice_at(at)
            last = next((number for number in (this, this - 1) if slices.get(number)), None)
            if last is not None:
                rows[one.key].slices = _written(slices | {last: slices[last] - 1})
        _save(rows.values(), "slices")

    def forget(self, asked: Sequence[Asked]) -> None:
        _again(lambda: models.RateLimitCounter.objects.filter(key__in=[one.key for one in asked]).delete())

    def _locked(self, asked: Sequence[Asked]) -> dict[str, models.RateLimitCounter]:
        """Made where they are missing: an upsert locks what it finds at once, where INSERT IGNORE would share it."""
        at = self.clock()
        new = [
            models.RateLimitCounter(
                key=one.key,
                expires_at=datetime.fromtimestamp(at + one.limit.per_s * (1 + 2 / SLICES), UTC),
            )
            for one in sorted(asked)
        ]
        aimed = connection.features.supports_update_conflicts_with_target
        models.RateLimitCounter.objects.bulk_create(
            new, update_conflicts=True, update_fields=["expires_at"], unique_fields=["key"] if aimed else None
        )
        rows = models.RateLimitCounter.objects.select_for_update().filter(key__in=[one.key for one in asked])
        return {row.key: row for row in rows.order_by("key")}


def _save(rows: Collection[models.RateLimitCounter], column: str) -> None:
    """One UPDATE."""
    models.RateLimitCounter.objects.bulk_update(rows, [column])


def _again(work: Callable[[], T]) -> T:
    for attempt in range(1, TRIES + 1):
        try:
            with transaction.atomic():
                return work()
        except OperationalError as error:
            if attempt == TRIES or connection.in_atomic_block or not lock_lost(error):
                raise
    raise AssertionError("the last attempt returned or raised")


def _read(text: str) -> dict[int, int]:
    """`number:tries number:tries`."""
    pairs = (part.split(":") for part in text.split())
    return {int(number): int(tries) for number, tries in pairs}


def _written(slices: dict[int, int]) -> str:
    return " ".join(f"{number}:{tries}" for number, tries in slices.items())
