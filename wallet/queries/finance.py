"""What finance reads: accounts, their history with a running balance, what made the FX position. In minor units."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from wallet.queries.ledger import AccountBalance, EntryRow, account_history
from wallet.queries.sql import MOST, as_uuid, literal, marks, select


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """An entry as one account sees it: `change` of its credit balance, and the `balance` after it."""

    entry: EntryRow
    change: int
    balance: int


@dataclass(frozen=True, slots=True)
class FxTurnover:
    """What went through the FX position since ever: USD cents `bought` from customers and the bank for KES cents
    `paid`, and `sold` for `received`. What was undone is taken off again. `booked` is what left it as gain or loss.
    """

    bought: int
    paid: int
    sold: int
    received: int
    booked: int


def account(id: UUID) -> AccountBalance | None:
    """One account with its balance; None where there is none."""
    return next(iter(_accounts(f"a.id = {literal(id)}", [])), None)


def accounts(*, kinds: Sequence[str] = (), owner: str = "", currency: str = "") -> list[AccountBalance]:
    """Accounts with their balances, by kind, owner and currency; at most `MOST` of them, one SELECT."""
    given = {f"a.kind IN ({marks(kinds)})": kinds, "a.owner = %s": [owner], "a.currency = %s": [currency]}
    wanted = {condition: values for condition, values in given.items() if any(values)}
    return _accounts(" AND ".join(wanted) or "1 = 1", [value for values in wanted.values() for value in values])


def _accounts(where: str, parameters: list[str]) -> list[AccountBalance]:
    rows = select(
        "SELECT a.id, a.kind, a.currency, a.owner, COALESCE(SUM(b.credit_balance), 0) FROM "  # noqa: S608
        f"(SELECT id, kind, currency, owner FROM ledger_accounts a WHERE {where} "
        "ORDER BY kind, owner, currency LIMIT %s) AS a LEFT JOIN ledger_balances b ON b.account_id = a.id "
        "GROUP BY a.id, a.kind, a.currency, a.owner ORDER BY a.kind, a.owner, a.currency",
        [*parameters, MOST],
    )
    return [
        AccountBalance(as_uuid(id), kind, currency, owner, int(credits)) for id, kind, currency, owner, credits in rows
    ]


def history_with_balances(
    there: AccountBalance,
    *,
    before: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 50,
) -> list[HistoryRow]:
    """As `account_history`, each entry with the balance after it, in the order of `seq`.

    It is counted back from the kept one, so that the first page costs the same however long the history is; a later
    one reads all that is newer once. Exact inside the `snapshot` in which `there` was read.
    """
    entries = account_history(there.id, before=before, since=since, until=until, limit=limit)
    if not entries:
        return []
    newest = before is None and until is None
    balance = there.credit_balance - (0 if newest else _changed_since(there.id, entries[0].seq))
    return list(_with_balances(there, entries, balance))


def whole_history(
    there: AccountBalance, *, since: datetime | None = None, until: datetime | None = None
) -> Iterator[HistoryRow]:
    """All of it, newest first, `MOST` rows at a time; the balance is carried, so that each entry is read once.

    Exact inside the `snapshot` in which `there` was read.
    """
    rows = history_with_balances(there, since=since, until=until, limit=MOST)
    while rows:
        yield from rows
        last = rows[-1]
        entries = account_history(there.id, before=last.entry.seq, since=since, until=until, limit=MOST)
        rows = list(_with_balances(there, entries, last.balance - last.change))


def _with_balances(there: AccountBalance, entries: Sequence[EntryRow], balance: int) -> Iterator[HistoryRow]:
    for entry in entries:
        credited = (entry.credit_kind, entry.credit_owner) == (there.kind, there.owner)
        change = entry.amount if credited else -entry.amount
        yield HistoryRow(entry, change, balance)
        balance -= change


def _changed_since(account_id: UUID, seq: int) -> int:
    """By how much the entries after `seq` changed an account's credit balance."""
    account = literal(account_id)
    sides = " UNION ALL ".join(
        f"SELECT {sign}COALESCE(SUM(amount), 0) AS change_by FROM ledger_entries WHERE {side}_account_id = {account} "  # noqa: S608
        f"AND currency = (SELECT currency FROM ledger_accounts WHERE id = {account}) AND seq > %s"
        for side, sign in (("credit", ""), ("debit", "-"))
    )
    [(change,)] = select(f"SELECT SUM(change_by) FROM ({sides}) AS sides", [seq, seq])  # noqa: S608
    return int(change)


_FX = " UNION ALL ".join(
    f"SELECT '{side}', a.currency, o.kind = 'fx_gain_loss', e.reverses IS NOT NULL, SUM(e.amount) "  # noqa: S608
    f"FROM ledger_accounts a JOIN ledger_entries e ON e.{side}_account_id = a.id AND e.currency = a.currency "
    f"JOIN ledger_accounts o ON o.id = e.{other}_account_id "
    "WHERE a.kind = 'fx_position' GROUP BY a.currency, o.kind = 'fx_gain_loss', e.reverses IS NOT NULL"
    for side, other in (("credit", "debit"), ("debit", "credit"))
)


def fx_turnover() -> FxTurnover:
    """One SELECT, which reads all entries of the position: a second or two for a million of them."""
    sums: Counter[tuple[str, str, bool, bool]] = Counter()
    for side, currency, booked, undone, amount in select(_FX):
        sums[side, currency, bool(booked), bool(undone)] += int(amount)

    def went(side: str, undoing: str, currency: str) -> int:
        return sums[side, currency, False, False] - sums[undoing, currency, False, True]

    return FxTurnover(
        bought=went("credit", "debit", "USD"),
        paid=went("debit", "credit", "KES"),
        sold=went("debit", "credit", "USD"),
        received=went("credit", "debit", "KES"),
        booked=sum((1 if side == "debit" else -1) * amount for (side, _, booked, _), amount in sums.items() if booked),
    )
