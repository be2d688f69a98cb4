"""A statement as CSV: a line for each opening balance, each line of the statement, each closing balance."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal

from shared_kernel.domain.money import Money
from shared_kernel.infrastructure.spreadsheets import csv_line
from wallet.domain.statement import Line, Period, Total

HEADS = ("time", "value_time", "currency", "description", "transaction", "money_in", "money_out", "balance")


def statement_csv(period: Period, totals: Sequence[Total], lines: Iterable[Line]) -> Iterator[str]:
    """In parts, as `lines` come; times are UTC. The closing balances are those that the lines led to.

    Without them it was cut off.
    """
    yield csv_line(HEADS)
    balances = {total.currency: total.opening for total in totals}
    for total in totals:
        yield _balance("Opening balance", period.start, total.opening)
    for line in lines:
        balances[line.balance.currency] = line.balance
        yield csv_line(
            (
                _time(line.at), _time(line.value_at), line.change.currency, line.description,
                str(line.transaction or ""), _decimal(line.money_in), _decimal(line.money_out),
                _decimal(line.balance),
            )
        )  # fmt: skip
    for balance in balances.values():
        yield _balance("Closing balance", period.end, balance)


def _balance(name: str, at: datetime, balance: Money) -> str:
    return csv_line((_time(at), None, balance.currency, name, None, None, None, _decimal(balance)))


def _decimal(money: Money | None) -> Decimal | None:
    return None if money is None else money.decimal


def _time(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
