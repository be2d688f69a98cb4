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
    """What went through the FX position since the last close-out that stands: USD cents `bought` from customers and the
    bank for KES cents `paid`, and `sold` for `received`. What was undone is taken off again; what is undone of before
    was sold or bought back. What that close-out left open is the first of it. `taken` is what left it as gain or loss
    meanwhile, `booked` what did since ever.
    """

    bought: int
    paid: int
    sold: int
    received: int
    taken: int
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


_POSITION = "(SELECT id FROM ledger_accounts WHERE kind = 'fx_position' AND currency = '{}' AND owner = '')"
_LAST_CLOSE_OUT = " UNION ALL ".join(
    "SELECT seq FROM (SELECT e.seq FROM ledger_entries e "  # noqa: S608
    f"WHERE e.{side}_account_id = {_POSITION.format(currency)} AND e.currency = '{currency}' "
    "AND e.purpose = 'fx_close_out_arrived' "
    "AND NOT EXISTS (SELECT 1 FROM ledger_entries r WHERE r.reverses = e.id) ORDER BY e.seq DESC LIMIT 1) AS last"
    for side in ("debit", "credit")
    for currency in ("KES", "USD")
)
# Kept balances and what went through since, in one statement, so that what it began with is their exact difference.
_FX = " UNION ALL ".join(
    f"SELECT '{side}', a.currency, o.kind = 'fx_gain_loss', COALESCE(undone.seq > %s, 0), SUM(e.amount) "  # noqa: S608
    f"FROM ledger_accounts a JOIN ledger_entries e ON e.{side}_account_id = a.id AND e.currency = a.currency "
    f"JOIN ledger_accounts o ON o.id = e.{other}_account_id LEFT JOIN ledger_entries undone ON undone.id = e.reverses "
    "WHERE a.kind = 'fx_position' AND e.seq > %s "
    "GROUP BY a.currency, o.kind = 'fx_gain_loss', COALESCE(undone.seq > %s, 0)"
    for side, other in (("credit", "debit"), ("debit", "credit"))
) + (
    " UNION ALL SELECT a.kind, a.currency, 0, 0, SUM(b.credit_balance) "
    "FROM ledger_accounts a JOIN ledger_balances b ON b.account_id = a.id "
    "WHERE a.kind IN ('fx_position', 'fx_gain_loss') GROUP BY a.kind, a.currency"
)


def fx_turnover() -> FxTurnover:
    """Two SELECTs, which read the entries of the position since its last close-out: a second or two for a million."""
    since = max((int(seq) for (seq,) in select(_LAST_CLOSE_OUT)), default=0)
    sums: Counter[tuple[str, str, bool, bool]] = Counter()
    for side, currency, taken, undone, amount in select(_FX, [since] * 6):
        sums[side, currency, bool(taken), bool(undone)] += int(amount)

    def went(side: str, undoing: str, currency: str) -> int:
        return sums[side, currency, False, False] - sums[undoing, currency, False, True]

    bought, sold = went("credit", "debit", "USD"), went("debit", "credit", "USD")
    paid, received = went("debit", "credit", "KES"), went("credit", "debit", "KES")
    taken = sum((1 if side == "debit" else -1) * amount for (side, _, left, _), amount in sums.items() if left)
    dollars = sums["fx_position", "USD", False, False] - (bought - sold)
    shillings = sums["fx_position", "KES", False, False] - (received - paid - taken)
    held, owed = max(dollars, 0), max(-dollars, 0)
    return FxTurnover(
        bought=bought + held,
        paid=paid - (shillings if held else 0),
        sold=sold + owed,
        received=received + (shillings if owed else 0),
        taken=taken - (0 if dollars else shillings),  # of flat dollars it is no cost: it waits to be booked
        booked=sums["fx_gain_loss", "KES", False, False],
    )
