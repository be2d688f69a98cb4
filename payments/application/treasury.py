"""What finance asks of our own money: where it stands, and what it has gained."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from payments.domain.ports import RateSource, RateStale
from payments.domain.transaction import TransactionType
from shared_kernel.domain.fx import FxPosition, FxTurnover


@dataclass(frozen=True)
class Treasury:
    """Reads only; `turnover` is the ledger's."""

    turnover: Callable[[], FxTurnover]
    rates: RateSource

    def fx_position(self, *, at: datetime) -> FxPosition:
        """At the middle rate that is valid at `at`, or without one."""
        return FxPosition.of(self.turnover(), self._mid(at))

    def _mid(self, at: datetime) -> Decimal | None:
        try:
            return self.rates.lock(TransactionType.DEPOSIT, at=at).mid
        except RateStale:
            return None
