"""What the ledger tells: plain SQL over its tables, bounded, lists by cursor. Amounts are minor units of `currency`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db import connection

MOST = 500

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


@dataclass(frozen=True, slots=True)
class FloatLeg:
    """The side of an entry that is money of ours at a provider: `amount` is above zero when it came in."""

    provider_key: str
    kind: str
    owner: str
    amount: int
    currency: str
    transaction_id: UUID | None
    purpose: str
    effective_at: datetime
    recorded_at: datetime


# What was mirrored without a movement of its own had never moved. One branch for each side, so that each finds its
# account by its key; COALESCE keeps the database from starting at the account, and reading all that it ever had.
_LEGS = " UNION ALL ".join(
    f"""
    SELECT e.seq, e.provider_key, a.kind, a.owner, {sign}e.amount, e.currency, e.transaction_id, e.purpose,
        e.effective_at, e.recorded_at
    FROM ledger_entries e JOIN ledger_accounts a ON a.id = e.{side}_account_id
    LEFT JOIN ledger_entries r ON r.reverses = e.id
    WHERE e.provider_key IS NOT NULL AND (r.id IS NULL OR r.provider_key IS NOT NULL)
        AND COALESCE(a.kind, '') IN ('mpesa_working', 'mpesa_utility', 'mpesa_charges_paid', 'deriv_agent')
        AND {{condition}}
    """  # noqa: S608 - our own names
    for side, sign in (("debit", ""), ("credit", "-"))
)


def float_legs_recorded(kind: str, owner: str, since: datetime, until: datetime) -> list[FloatLeg]:
    """The legs of one account recorded from `since` to before `until`, oldest first: a range of the ids' index, for an
    entry's UUIDv7 tells when it was made, and that is a moment before it was recorded.
    """
    first, last = (f"X'{int(at.timestamp() * 1000):012x}{'0' * 20}'" for at in (since, until))
    return _legs(
        f"e.id >= {first} AND e.id < {last} AND COALESCE(a.kind, '') = %s AND COALESCE(a.owner, '') = %s", [kind, owner]
    )


def float_legs_under(provider_keys: Sequence[str]) -> list[FloatLeg]:
    """The legs with these provider keys, oldest first; a SELECT for each 1,000."""
    found: list[FloatLeg] = []
    for start in range(0, len(provider_keys), 1000):
        part = list(provider_keys[start : start + 1000])
        found += _legs(f"e.provider_key IN ({', '.join(['%s'] * len(part))})", part)
    return found


def _legs(condition: str, parameters: list[Any]) -> list[FloatLeg]:
    rows = _select(f"{_LEGS.format(condition=condition)} ORDER BY 1", [*parameters, *parameters])
    return [
        FloatLeg(key, kind, owner, int(amount), currency, _id_or_plain(of), purpose, *map(_time, times))
        for _, key, kind, owner, amount, currency, of, purpose, *times in rows
    ]


def trial_balance() -> list[BalanceRow]:
    """One row for each kind and currency; for each currency debits and credits are equal."""
    rows = _select(
        "SELECT a.kind, a.currency, COUNT(DISTINCT a.id), SUM(b.credit_balance) FROM ledger_balances b "
        "JOIN ledger_accounts a ON a.id = b.account_id GROUP BY a.currency, a.kind ORDER BY a.currency, a.kind"
    )
    return [
        BalanceRow(kind, currency, accounts, max(-int(credits), 0), max(int(credits), 0))
        for kind, currency, accounts, credits in rows
    ]


def balances_of(owner: str) -> list[AccountBalance]:
    """All accounts of one owner: a user id, a shortcode, an agent."""
    rows = _select(
        "SELECT a.id, a.kind, a.currency, a.owner, COALESCE(SUM(b.credit_balance), 0) FROM ledger_accounts a "
        "LEFT JOIN ledger_balances b ON b.account_id = a.id WHERE a.owner = %s "
        "GROUP BY a.id, a.kind, a.currency, a.owner ORDER BY a.kind, a.currency LIMIT %s",
        [owner, MOST],
    )
    return [
        AccountBalance(_uuid(id), kind, currency, owner, int(credits)) for id, kind, currency, owner, credits in rows
    ]


def entries_of(transaction_id: UUID) -> list[EntryRow]:
    """What a Transaction posted, oldest first."""
    return _entries(f"WHERE e.transaction_id = {_literal(transaction_id)} ORDER BY e.seq LIMIT %s", [MOST])


def account_history(account_id: UUID, *, before: int | None = None, limit: int = 50) -> list[EntryRow]:
    """An account's entries, newest first; `before` is the `seq` of the last row of the page before."""
    limit = min(limit, MOST)
    last = 2**63 - 1 if before is None else before
    account = _literal(account_id)
    both = " UNION ALL ".join(
        f"SELECT * FROM (SELECT seq FROM ledger_entries WHERE {side}_account_id = {account} AND currency = "  # noqa: S608
        f"(SELECT currency FROM ledger_accounts WHERE id = {account}) "
        f"AND seq < %s ORDER BY seq DESC LIMIT %s) AS {side}ed"
        for side in ("debit", "credit")
    )
    return _entries(
        f"JOIN ({both}) AS page ON page.seq = e.seq ORDER BY e.seq DESC LIMIT %s",
        [last, limit, last, limit, limit],
    )


def _entries(where: str, parameters: list[Any]) -> list[EntryRow]:
    rows = _select(_ENTRY + where, parameters)
    return [EntryRow(*map(_id_or_plain, row[:-2]), *map(_time, row[-2:])) for row in rows]


def _select(sql: str, parameters: list[Any] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def _literal(id: UUID) -> str:
    """Bytes in SQL: as a parameter MySQL would read them as text."""
    return f"X'{id.hex}'"


def _uuid(value: bytes) -> UUID:
    return UUID(bytes=bytes(value))


def _id_or_plain(value: Any) -> Any:
    return _uuid(value) if isinstance(value, bytes) else value


def _time(value: datetime | str) -> datetime:
    """Columns hold UTC: MySQL gives a naive datetime, SQLite a text."""
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).replace(tzinfo=UTC)
