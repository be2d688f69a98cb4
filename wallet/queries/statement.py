"""A customer's statement: what is held for them on its way, less what they owe. Amounts are minor units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from wallet.queries.sql import MOST, as_time, as_uuid, literal, marks, select, stored

_HELD, _OWED = "customer_in_transit", "customer_receivable"
_CHANGES = " UNION ALL ".join(
    "SELECT e.journal_id, e.currency, e.purpose, e.transaction_id, e.recorded_at, e.effective_at, e.seq, "  # noqa: S608
    f"{sign}e.amount AS change_by FROM ledger_accounts a JOIN ledger_entries e "
    f"ON e.{side}_account_id = a.id AND e.currency = a.currency "
    f"WHERE a.owner = %s AND a.kind IN ('{_HELD}', '{_OWED}') AND e.recorded_at >= %s AND e.recorded_at < %s"
    for side, sign in (("credit", ""), ("debit", "-"))
)
_NET = (
    "SELECT journal_id, currency, purpose, transaction_id, recorded_at, effective_at, MAX(seq) AS line, "  # noqa: S608
    f"SUM(change_by) AS net FROM ({_CHANGES}) AS changes "
    "GROUP BY journal_id, currency, purpose, transaction_id, recorded_at, effective_at HAVING SUM(change_by) <> 0"
)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_EXCHANGING = (
    "deposit_sent",
    "deposit_sent_undone",
    "withdrawal_exchanged",
    "withdrawal_exchanged_undone",
)  # the purposes whose journals have both currencies

Place = tuple[datetime, int]  # a line's `at` and `seq`: statements are in this order


@dataclass(frozen=True, slots=True)
class CustomerBalance:
    """What PenPay holds for a customer on its way, and what the customer owes; neither is below zero."""

    currency: str
    in_transit: int
    owed: int


@dataclass(frozen=True, slots=True)
class StatementTotal:
    """One currency of a statement. A balance is what is held less what is owed, so it may be below zero.

    `carried` is the balance after the line that a page follows; the opening balance on the first page.
    """

    currency: str
    opening: int
    money_in: int
    money_out: int
    carried: int

    @property
    def closing(self) -> int:
        """What the lines make of the opening balance."""
        return self.opening + self.money_in - self.money_out


@dataclass(frozen=True, slots=True)
class StatementLine:
    """What one journal changed in one currency. `at` is when it was booked, `value_at` when it happened.

    `exchanged` is the other currency's amount and name where money was exchanged.
    """

    seq: int
    at: datetime
    value_at: datetime
    purpose: str
    transaction_id: UUID | None
    currency: str
    change: int
    balance: int
    exchanged: tuple[int, str] | None


def customer_balances(owner: str) -> list[CustomerBalance]:
    """What is held for and owed by a customer (their id), for each currency that they ever had."""
    rows = select(
        "SELECT a.currency, SUM(CASE WHEN a.kind = %s THEN b.credit_balance ELSE 0 END), "
        "SUM(CASE WHEN a.kind = %s THEN -b.credit_balance ELSE 0 END) "
        "FROM ledger_accounts a JOIN ledger_balances b ON b.account_id = a.id "
        "WHERE a.owner = %s AND a.kind IN (%s, %s) GROUP BY a.currency ORDER BY a.currency",
        [_HELD, _OWED, owner, _HELD, _OWED],
    )
    return [CustomerBalance(currency, int(held), int(owed)) for currency, held, owed in rows]


def statement_totals(
    owner: str, start: datetime, end: datetime, currencies: Sequence[str], *, after: Place | None = None
) -> list[StatementTotal]:
    """A customer's opening balance and what went in and out from `start` to before `end`; one SELECT.

    By the time of booking, which never lies in the past: a statement of a time that has passed does not change.
    """
    at, seq = after or (start, -1)
    rows = select(
        "SELECT currency, SUM(CASE WHEN recorded_at < %s THEN net ELSE 0 END), "  # noqa: S608
        "SUM(CASE WHEN recorded_at >= %s AND net > 0 THEN net ELSE 0 END), "
        "SUM(CASE WHEN recorded_at >= %s AND net < 0 THEN -net ELSE 0 END), "
        "SUM(CASE WHEN recorded_at < %s OR (recorded_at = %s AND line <= %s) THEN net ELSE 0 END) "
        f"FROM ({_NET}) AS nets GROUP BY currency",
        [*map(stored, (start, start, start, at, at)), seq, *_of(owner, _EVER, end)],
    )
    found = {currency: StatementTotal(currency, *map(int, sums)) for currency, *sums in rows}
    return [found.get(currency, StatementTotal(currency, 0, 0, 0, 0)) for currency in currencies]


def statement_lines(
    owner: str, start: datetime, end: datetime, carried: Mapping[str, int], *, after: Place | None = None, limit: int
) -> list[StatementLine]:
    """Up to `limit` lines in the currencies of `carried`, oldest first, after the place of the last page's last line.

    `carried` are the balances before them. Two SELECTs.
    """
    at, seq = after or (start, -1)
    rows = select(
        f"{_NET} AND (recorded_at > %s OR (recorded_at = %s AND MAX(seq) > %s)) AND currency IN ({marks(carried)}) "
        "ORDER BY recorded_at, line LIMIT %s",
        [*_of(owner, at, end), stored(at), stored(at), seq, *carried, min(limit, MOST)],
    )
    exchanged = _exchanged([as_uuid(row[3]) for row in rows if row[3] and row[2] in _EXCHANGING])
    balances, lines = dict(carried), []
    for row in rows:
        balances[row[1]] += int(row[7])
        lines.append(_line(row, balances[row[1]], exchanged))
    return lines


def _line(row: tuple[Any, ...], balance: int, exchanged: Mapping[UUID, list[tuple[int, str]]]) -> StatementLine:
    journal, currency, purpose, transaction, recorded, effective, seq, net = row
    return StatementLine(
        seq=seq,
        at=as_time(recorded),
        value_at=as_time(effective),
        purpose=purpose,
        transaction_id=None if transaction is None else as_uuid(transaction),
        currency=currency,
        change=int(net),
        balance=balance,
        exchanged=next((one for one in exchanged.get(as_uuid(journal), []) if one[1] != currency), None),
    )


def _exchanged(transactions: Sequence[UUID]) -> dict[UUID, list[tuple[int, str]]]:
    """By journal: what it moved for the customer in each currency (margin and rounding belong to the house)."""
    if not transactions:
        return {}
    rows = select(
        "SELECT e.journal_id, SUM(e.amount), e.currency FROM ledger_entries e "  # noqa: S608
        "JOIN ledger_accounts d ON d.id = e.debit_account_id JOIN ledger_accounts c ON c.id = e.credit_account_id "
        f"WHERE e.transaction_id IN ({', '.join(sorted({literal(id) for id in transactions}))}) "
        f"AND e.purpose IN ({marks(_EXCHANGING)}) "
        f"AND (d.kind IN ('{_HELD}', 'deriv_agent') OR c.kind IN ('{_HELD}', 'deriv_agent')) "
        "GROUP BY e.journal_id, e.currency",
        [*_EXCHANGING],
    )
    found: dict[UUID, list[tuple[int, str]]] = {}
    for journal, amount, currency in rows:
        found.setdefault(as_uuid(journal), []).append((int(amount), currency))
    return found


def _of(owner: str, start: datetime, end: datetime) -> list[Any]:
    """The parameters of `_NET`."""
    return [owner, stored(start), stored(end)] * 2
