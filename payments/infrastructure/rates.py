"""The staff's rate table as the source of rates."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from payments import models
from payments.domain.ports import RateStale
from payments.domain.transaction import TransactionType
from shared_kernel.domain.errors import Conflict, Unprocessable
from shared_kernel.domain.money import Currency, LockedRate
from shared_kernel.domain.ports import AuditLog, AuditRecord, UnitOfWork


class SamePerson(Conflict):
    """A rate is set by one person and approved by another."""


class InvalidRate(Unprocessable):
    """Not positive, or valid for no time."""


@dataclass(frozen=True)
class RateTable:
    """`exchange_rates`: the newest row that has begun counts, if it is still valid."""

    audit: AuditLog
    unit_of_work: UnitOfWork

    def lock(self, type: TransactionType, *, at: datetime) -> LockedRate:
        row = models.ExchangeRate.objects.filter(valid_from__lte=at).order_by("-valid_from", "-id").first()
        if row is None or row.valid_until <= at:
            raise RateStale("there is no valid exchange rate right now: please try again later")
        margin = row.margin_bps if type is TransactionType.DEPOSIT else -row.margin_bps
        rate = (row.mid * (10_000 + margin) / 10_000).quantize(Decimal("0.00000001"))
        return LockedRate(Currency.USD, Currency.KES, row.mid, rate, f"table:{row.id}", at, row.valid_until)

    def set_rate(
        self,
        mid: Decimal,
        margin_bps: int,
        *,
        valid_from: datetime,
        valid_until: datetime,
        set_by: str,
        approved_by: str,
    ) -> None:
        """A new rate; older rows stay. `mid` is KES for one USD. Raises `SamePerson`, `InvalidRate`."""
        if set_by == approved_by:
            raise SamePerson("somebody else has to approve the rate")
        if mid <= 0 or margin_bps < 0 or valid_until <= valid_from:
            raise InvalidRate("a rate is positive, its margin is not negative, and it ends after it begins")
        record = AuditRecord(
            "rate.set",
            "rate",
            valid_from.isoformat(),
            valid_from,
            details={"mid": str(mid), "margin_bps": margin_bps, "set_by": set_by, "approved_by": approved_by},
        )
        with self.unit_of_work():
            row = models.ExchangeRate(
                mid=mid,
                margin_bps=margin_bps,
                valid_from=valid_from,
                valid_until=valid_until,
                set_by=set_by,
                approved_by=approved_by,
            )
            models.ExchangeRate.objects.bulk_create([row])
            self.audit.append([record])
