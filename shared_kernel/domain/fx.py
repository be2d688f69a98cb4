"""The FX position: what exchanges left open between shillings and dollars, and what it has gained.

Customers' exchanges open it; what treasury buys or sells at the bank closes it. Both are valued by one method.
"""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Protocol

from shared_kernel.domain.money import Currency, Money


class FxTurnover(Protocol):
    """What went through the position since the last close-out, in cents; what was undone is taken off again.

    What that close-out left open counts as the first of it, at what it cost.
    """

    @property
    def bought(self) -> int:
        """USD from customers, and from the bank."""

    @property
    def paid(self) -> int:
        """KES for them: customers' at mid."""

    @property
    def sold(self) -> int:
        """USD to customers, and to the bank."""

    @property
    def received(self) -> int:
        """KES for them: customers' at mid."""

    @property
    def taken(self) -> int:
        """KES that left the position meanwhile as gain (above zero) or loss: only where a close-out was undone."""

    @property
    def booked(self) -> int:
        """KES that left it as gain or loss since ever."""


@dataclass(frozen=True, slots=True)
class FxPosition:
    """`open` dollars: above zero held, below zero owed to the market. `cost` is what they were bought for, or fetched.

    By the average cost of a period, which ends with each close-out at the bank: of the dollars that went one way since,
    or lay there from before, as many as came the other way are closed, at the averages of both. What is closed gained
    `unbooked`, and that is still in the position; `booked` is in the gain and loss account, from the close-outs.
    `unrealised` is what the open dollars would gain at `mid`, KES for one USD; None where no rate is valid.
    """

    open: Money
    cost: Money
    unbooked: Money
    booked: Money
    mid: Decimal | None

    @classmethod
    def of(cls, turnover: FxTurnover, mid: Decimal | None) -> "FxPosition":
        """Rounded half up to the cent once, so that realised and unrealised together are exact."""
        open, net = turnover.bought - turnover.sold, turnover.received - turnover.paid - turnover.taken
        held = open >= 0
        dollars, shillings = (turnover.bought, turnover.paid) if held else (turnover.sold, turnover.received)
        cost = (2 * shillings * abs(open) + dollars) // (2 * dollars) if dollars else 0
        return cls(
            open=Money(open, Currency.USD),
            cost=_kes(cost),
            unbooked=_kes(net + (cost if held else -cost)),
            booked=_kes(turnover.booked),
            mid=mid,
        )

    @property
    def average(self) -> Decimal | None:
        """KES for one open dollar, to four decimals; None where nothing is open."""
        return (self.cost.decimal / abs(self.open.decimal)).quantize(Decimal("0.0001")) if self.open else None

    @property
    def value(self) -> Money | None:
        """What the open dollars are worth at `mid`; as `cost`, never below zero."""
        if self.mid is None:
            return None
        return _kes(int((abs(self.open.amount) * self.mid).to_integral_value(ROUND_HALF_UP)))

    @property
    def unrealised(self) -> Money | None:
        """What closing at `mid` would gain."""
        if self.value is None:
            return None
        return self.value - self.cost if self.open.amount >= 0 else self.cost - self.value

    @property
    def realised(self) -> Money:
        """What was closed has gained since ever, whether it is booked or not."""
        return self.booked + self.unbooked


@dataclass(frozen=True, slots=True)
class _After:
    """A turnover with one exchange more."""

    bought: int
    paid: int
    sold: int
    received: int
    taken: int
    booked: int


def result_of(turnover: FxTurnover, given: Money, got: Money) -> Money:
    """What is realised and not booked yet, in KES, once `given` was exchanged for `got` at the bank: above zero a gain.

    So much goes from the position to gain and loss with the exchange; then the position holds the open dollars at their
    average cost, and nothing else. It is what this exchange realised against that cost, and what customers' exchanges
    realised against each other since the last one.
    """
    buys = got.currency is Currency.USD
    dollars, shillings = (got.amount, given.amount) if buys else (given.amount, got.amount)
    after = _After(
        bought=turnover.bought + (dollars if buys else 0),
        paid=turnover.paid + (shillings if buys else 0),
        sold=turnover.sold + (0 if buys else dollars),
        received=turnover.received + (0 if buys else shillings),
        taken=turnover.taken,
        booked=turnover.booked,
    )
    return FxPosition.of(after, None).unbooked


def _kes(cents: int) -> Money:
    return Money(cents, Currency.KES)
