"""The staff's rate table as the source of rates."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from payments import models
from shared_kernel.domain.errors import Unavailable
from shared_kernel.domain.money import Currency, LockedRate


class RateStale(Unavailable):
    """The newest rate is no longer valid: no new quotes until staff set one."""


@dataclass(frozen=True)
class RateTable:
    """`exchange_rates`: the newest row that has begun counts, if it is still valid."""

    def lock(self, *, at: datetime) -> LockedRate:
        row = models.ExchangeRate.objects.filter(valid_from__lte=at).order_by("-valid_from", "-id").first()
        if row is None or row.valid_until <= at:
            raise RateStale("there is no valid exchange rate right now: please try again later")
        rate = (row.mid * (10_000 + row.margin_bps) / 10_000).quantize(Decimal("0.00000001"))
        return LockedRate(Currency.USD, Currency.KES, row.mid, rate, f"table:{row.id}", at, row.valid_until)
