"""What the ledger tells: plain SQL over its tables, bounded, lists by cursor. Amounts are minor units of `currency`."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias
from uuid import UUID

from wallet.queries.sql import MOST, as_time, as_uuid, literal, select, stored

By: TypeAlias = Literal["effective", "recorded"]  # when it took effect at the provider; when we wrote it down

_TIMES = {"effective": "effective_at", "recorded": "recorded_at"}
_ENTRY = (
    "SELECT e.seq, e.id, e.journal_id, e.purpose, d.kind, d.owner, c.kind, c.owner, e.amount, e.currency, "
    "e.transaction_id, e.reference, e.provider_key, e.reverses, e.effective_at, e.recorded_at "
    "FROM ledger_entries e JOIN ledger_accounts d ON d.id = e.debit_account_id "
    "JOIN ledger_accounts c ON c.id = e.credit_account_id "
)


@dataclass(frozen=True, slots=True)
class BalanceRow:
    """Kept balances of one kind and currency: `debit` or `credit` is what is left on that side, the other is 0."""

    kind: str
    currency: str
    accounts: int
    debit: int
    credit: int


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """One account; `credit_balance` is credits minus debits."""

    id: UUID
    kind: str
    currency: str
    owner: str
    credit_balance: int


@dataclass(frozen=True, slots=True)
class EntryRow:
    """One entry with its accounts' names."""

    seq: int
    id: UUID
    journal_id: UUID
    purpose: str
    debit_kind: str
    debit_owner: str
    credit_kind: str
    credit_owner: str
    amount: int
    currency: str
    transaction_id: UUID | None
    reference: str
    provider_key: str | None
    reverses: UUID | None
    effective_at: datetime
    recorded_at: datetime


def trial_balance() -> list[BalanceRow]:
    """One row for each kind and currency; for each currency debits and credits are equal."""
    rows = select(
        "SELECT a.kind, a.currency, COUNT(DISTINCT a.id), SUM(b.credit_balance) FROM ledger_balances b "
        "JOIN ledger_accounts a ON a.id = b.account_id GROUP BY a.currency, a.kind ORDER BY a.currency, a.kind"
    )
    return [_balance_row(*row) for row in rows]


def balances_of(owner: str) -> list[AccountBalance]:
    """All accounts of one owner: a user id, a shortcode, an agent."""
    rows = select(
        "SELECT a.id, a.kind, a.currency, a.owner, COALESCE(SUM(b.credit_balance), 0) FROM ledger_accounts a "
        "LEFT JOIN ledger_balances b ON b.account_id = a.id WHERE a.owner = %s "
        "GROUP BY a.id, a.kind, a.currency, a.owner ORDER BY a.kind, a.currency LIMIT %s",
        [owner, MOST],
    )
    return [_account_balance(*row) for row in rows]


def balance_as_of(account_id: UUID, moment: datetime, *, by: By) -> AccountBalance | None:
    """An account by its entries up to and including `moment`, by one of their two times; None if there is no account.

    Exact once all that was being posted at a recorded `moment` is committed. Raises `ValueError` without a time zone.
    """
    found = _as_of(f"a.id = {literal(account_id)}", moment, by, 1)
    return found[0] if found else None


def balances_as_of(moment: datetime, *, by: By, after: UUID | None = None, limit: int = MOST) -> list[AccountBalance]:
    """As `balance_as_of`, all accounts by id; `after` is the id of the last row of the page before."""
    return _as_of(f"a.id > X'{after.hex if after else ''}'", moment, by, min(limit, MOST))


def trial_balance_as_of(moment: datetime, *, by: By) -> list[BalanceRow]:
    """As `trial_balance`, by the entries up to and including `moment`. Reads all of them: a second for a million."""
    sums = " UNION ALL ".join(
        f"SELECT {side}_account_id AS id, {sign}SUM(amount) AS credits FROM ledger_entries "  # noqa: S608
        f"WHERE {_TIMES[by]} <= %s GROUP BY {side}_account_id"
        for side, sign in (("credit", ""), ("debit", "-"))
    )
    rows = select(
        f"SELECT a.kind, a.currency, COUNT(DISTINCT a.id), SUM(s.credits) FROM ({sums}) AS s "  # noqa: S608
        "JOIN ledger_accounts a ON a.id = s.id GROUP BY a.currency, a.kind ORDER BY a.currency, a.kind",
        [_moment(moment)] * 2,
    )
    return [_balance_row(*row) for row in rows]


def entries_of(transaction_id: UUID) -> list[EntryRow]:
    """What a Transaction posted, oldest first."""
    return _entries(f"WHERE e.transaction_id = {literal(transaction_id)} ORDER BY e.seq LIMIT %s", [MOST])


def account_history(
    account_id: UUID,
    *,
    before: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 50,
) -> list[EntryRow]:
    """An account's entries, newest first; `before` is the `seq` of the last row of the page before.

    Those booked from `since` to before `until`: they are looked for from the newest on.
    """
    limit = min(limit, MOST)
    last = 2**63 - 1 if before is None else before
    bounds = [(f"AND recorded_at {sign} %s ", stored(at)) for sign, at in ((">=", since), ("<", until)) if at]
    account = literal(account_id)
    both = " UNION ALL ".join(
        f"SELECT * FROM (SELECT seq FROM ledger_entries WHERE {side}_account_id = {account} AND currency = "  # noqa: S608
        f"(SELECT currency FROM ledger_accounts WHERE id = {account}) "
        f"AND seq < %s {''.join(bound for bound, _ in bounds)}ORDER BY seq DESC LIMIT %s) AS {side}ed"
        for side in ("debit", "credit")
    )
    return _entries(
        f"JOIN ({both}) AS page ON page.seq = e.seq ORDER BY e.seq DESC LIMIT %s",
        [*[last, *(at for _, at in bounds), limit] * 2, limit],
    )


def _as_of(which: str, moment: datetime, by: By, limit: int) -> list[AccountBalance]:
    credited, debited = (
        f"(SELECT COALESCE(SUM(amount), 0) FROM ledger_entries WHERE {side}_account_id = a.id AND {_TIMES[by]} <= %s)"  # noqa: S608
        for side in ("credit", "debit")
    )
    rows = select(
        f"SELECT a.id, a.kind, a.currency, a.owner, {credited} - {debited} FROM ledger_accounts a "  # noqa: S608
        f"WHERE {which} ORDER BY a.id LIMIT %s",
        [_moment(moment), _moment(moment), limit],
    )
    return [_account_balance(*row) for row in rows]


def _balance_row(kind: str, currency: str, accounts: int, credits: int) -> BalanceRow:
    return BalanceRow(kind, currency, accounts, max(-int(credits), 0), max(int(credits), 0))


def _account_balance(id: bytes, kind: str, currency: str, owner: str, credits: int) -> AccountBalance:
    return AccountBalance(as_uuid(id), kind, currency, owner, int(credits))


def _moment(moment: datetime) -> Any:
    if moment.tzinfo is None:
        raise ValueError("a moment needs its time zone")
    return stored(moment)


def _entries(where: str, parameters: list[Any]) -> list[EntryRow]:
    rows = select(_ENTRY + where, parameters)
    return [EntryRow(*map(_id_or_plain, row[:-2]), *map(as_time, row[-2:])) for row in rows]


def _id_or_plain(value: Any) -> Any:
    return as_uuid(value) if isinstance(value, bytes) else value
