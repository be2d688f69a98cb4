"""Exact money: minor units and a currency, never a float, never mixed."""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from enum import StrEnum

from shared_kernel.domain.errors import Unprocessable

MAX_MINOR_UNITS = 10**15  # ten trillion shillings: far above every limit, far below what a BIGINT column holds


class InvalidAmount(Unprocessable):
    """Not an amount of that currency."""


class CurrencyMismatch(Unprocessable):
    """Two currencies in one sum."""


class NegativeMargin(Unprocessable):
    """A rate that would pay the customer more than the middle rate."""


class Currency(StrEnum):
    """ISO 4217 code; both have two decimal places."""

    KES = "KES"
    USD = "USD"

    @property
    def digits(self) -> int:
        """Decimal places of one unit."""
        return 2


@dataclass(frozen=True, slots=True, order=False)
class Money:
    """An exact amount: `amount` counts minor units (cents), never a float; it may be negative (a difference)."""

    amount: int
    currency: Currency

    def __post_init__(self) -> None:
        if type(self.amount) is not int:
            raise InvalidAmount(f"an amount counts minor units as an int, not as {type(self.amount).__name__}")
        if abs(self.amount) > MAX_MINOR_UNITS:
            raise InvalidAmount("the amount is out of range")

    @classmethod
    def parse(cls, text: str, currency: Currency) -> "Money":
        """`"1300.00"` to 130000 minor units.

        Raises `InvalidAmount` for anything but plain digits with at most two decimals.
        """
        whole, point, fraction = text.partition(".") if isinstance(text, str) else ("", "", "")
        sign = -1 if whole.startswith("-") else 1
        whole = whole.removeprefix("-")
        plain = whole.isascii() and whole.isdigit() and len(whole) <= 14
        exact = not point or (fraction.isascii() and fraction.isdigit() and len(fraction) <= currency.digits)
        if not (plain and exact):
            raise InvalidAmount(f"write the amount with at most {currency.digits} decimals, as in '1300.00'")
        return cls(sign * int(whole + fraction.ljust(currency.digits, "0")), currency)

    @classmethod
    def of_decimal(cls, value: Decimal, currency: Currency) -> "Money":
        """Exact conversion of whole units. Raises `InvalidAmount` when `value` has more digits than the currency."""
        if not value.is_finite() or value.adjusted() > 15:  # 1E+999999999 would take for ever to write out
            raise InvalidAmount("the amount is out of range")
        minor = value.scaleb(currency.digits)
        if minor != minor.to_integral_value():
            raise InvalidAmount(f"{value} has more decimals than {currency}")
        return cls(int(minor), currency)

    @property
    def decimal(self) -> Decimal:
        """Whole units, as in `Decimal("1300.00")`."""
        return Decimal(self.amount).scaleb(-self.currency.digits)

    def __str__(self) -> str:
        return f"{self.decimal:.{self.currency.digits}f} {self.currency}"

    def _same(self, other: "Money") -> None:
        if other.currency is not self.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency} don't mix")

    def __add__(self, other: "Money") -> "Money":
        """Raises `CurrencyMismatch`: KES + USD has no meaning."""
        self._same(other)
        return Money(self.amount + other.amount, self.currency)

    def __sub__(self, other: "Money") -> "Money":
        """Raises `CurrencyMismatch`."""
        self._same(other)
        return Money(self.amount - other.amount, self.currency)

    def __lt__(self, other: "Money") -> bool:
        """Raises `CurrencyMismatch`."""
        self._same(other)
        return self.amount < other.amount

    def __le__(self, other: "Money") -> bool:
        """Raises `CurrencyMismatch`."""
        self._same(other)
        return self.amount <= other.amount

    def __bool__(self) -> bool:
        return self.amount != 0


@dataclass(frozen=True, slots=True)
class DepositSplit:
    """Where a deposit's shillings go, in KES cents: `fx + margin + rounding` is the amount paid, exactly."""

    fx: Money
    margin: Money
    rounding: Money


@dataclass(frozen=True, slots=True)
class WithdrawalSplit:
    """What a withdrawal's dollars are worth, in KES cents: `fx` at mid is `payout + margin + rounding`, exactly.

    `payout` is whole shillings, all that M-Pesa moves.
    """

    fx: Money
    payout: Money
    margin: Money
    rounding: Money


@dataclass(frozen=True, slots=True)
class LockedRate:
    """What one `base` (USD) costs in `quote` (KES):
    `mid` in the market, `rate` for this customer (above mid for a deposit, below it for a withdrawal); held until
    `expires_at`.
    """

    base: Currency
    quote: Currency
    mid: Decimal
    rate: Decimal
    source: str
    locked_at: datetime
    expires_at: datetime

    def __post_init__(self) -> None:
        if self.base is self.quote:
            raise CurrencyMismatch("a rate is between two currencies")
        if self.mid <= 0 or self.rate <= 0:
            raise InvalidAmount("a rate is positive")

    def holds(self, at: datetime) -> bool:
        """Whether the lock is still good at `at`."""
        return at < self.expires_at

    def buy(self, paid: Money) -> Money:
        """A deposit: `paid` KES buys USD, rounded down to the cent. Raises `CurrencyMismatch`."""
        if paid.currency is not self.quote:
            raise CurrencyMismatch(f"{self.quote} is paid at this rate, not {paid.currency}")
        return Money(int((Decimal(paid.amount) / self.rate).to_integral_value(ROUND_FLOOR)), self.base)

    def split_deposit(self, paid: Money) -> DepositSplit:
        """The journal's parts for a deposit of `paid`: FX position at mid (half up), margin up to the customer's rate
        (up), the rest.

        Raises `NegativeMargin` when the customer's rate is better than mid.
        """
        bought = Decimal(self.buy(paid).amount)
        fx = int((bought * self.mid).to_integral_value(ROUND_HALF_UP))
        margin = int((bought * self.rate).to_integral_value(ROUND_CEILING)) - fx
        if margin < 0:
            raise NegativeMargin("the customer's rate is below the middle rate")
        parts = (fx, margin, paid.amount - fx - margin)
        return DepositSplit(*(Money(part, self.quote) for part in parts))

    def sell(self, sent: Money) -> Money:
        """A withdrawal: `sent` USD gives KES, rounded down to the whole shilling; none for less than one.

        Raises `CurrencyMismatch`.
        """
        shilling = 10**self.quote.digits
        return Money(self._worth(sent, self.rate) // shilling * shilling, self.quote)

    def split_withdrawal(self, sent: Money) -> WithdrawalSplit:
        """The journal's parts for a withdrawal of `sent`: FX position at mid (down), the payout in whole shillings,
        rounding what of the customer's rate (down to the cent) is no whole shilling, margin the rest.

        Raises `NegativeMargin` when the customer's rate is better than mid, `CurrencyMismatch`.
        """
        if self.rate > self.mid:
            raise NegativeMargin("the customer's rate is above the middle rate")
        fx, cost, payout = self._worth(sent, self.mid), self._worth(sent, self.rate), self.sell(sent)
        parts = (fx, payout.amount, fx - cost, cost - payout.amount)
        return WithdrawalSplit(*(Money(part, self.quote) for part in parts))

    def _worth(self, sent: Money, rate: Decimal) -> int:
        """KES cents, rounded down. A product in integers: a Decimal's is cut to 28 digits, which may round it up."""
        if sent.currency is not self.base:
            raise CurrencyMismatch(f"{self.base} is sold at this rate, not {sent.currency}")
        numerator, denominator = rate.as_integer_ratio()
        return sent.amount * numerator // denominator
