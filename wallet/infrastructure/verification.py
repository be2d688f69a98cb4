"""The ledger held against itself: each entry, kept balances against sums of entries, seals, the database's refusals.

Everything is read from one snapshot, while postings go on, in constant memory: the database sums, pages are bounded.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import connection

from shared_kernel.domain.money import Currency
from shared_kernel.facade import chain_check
from shared_kernel.infrastructure import append_only, grants
from wallet import models
from wallet.domain.ledger import Account, AccountKind

PAGE = 20_000
CHAIN = "ledger_entries"

Progress = Callable[[str, int, int], None]  # check, rows done, rows in all

# Which entry is the first that is wrong: by each row alone, by the reversals, and by the pairs of account and currency,
# of which an index has far fewer than there are entries.
_WRONG_ALONE = """
    SELECT seq FROM ledger_entries
    WHERE seq > %s AND seq <= %s AND (amount <= 0 OR debit_account_id = credit_account_id) ORDER BY seq LIMIT 1
"""
_WRONG_REVERSAL = """
    SELECT MIN(e.seq) FROM ledger_entries e LEFT JOIN ledger_entries r ON r.id = e.reverses
    WHERE e.reverses IS NOT NULL AND (r.id IS NULL OR r.seq >= e.seq OR r.amount <> e.amount
        OR r.debit_account_id <> e.credit_account_id OR r.credit_account_id <> e.debit_account_id)
"""
_WRONG_PAIR = """
    SELECT MIN(e.first) FROM (
        SELECT {side}_account_id AS account_id, currency, MIN(seq) AS first FROM ledger_entries
        GROUP BY {side}_account_id, currency
    ) AS e LEFT JOIN ledger_accounts a ON a.id = e.account_id AND a.currency = e.currency WHERE a.id IS NULL
"""
_WRONG_ENTRY = """
    SELECT e.seq, e.reference,
        CASE WHEN e.amount <= 0 THEN 'its amount is not positive'
            WHEN e.debit_account_id = e.credit_account_id THEN 'it is within one account'
            WHEN d.id IS NULL OR c.id IS NULL THEN 'an account of it does not exist'
            WHEN d.currency <> e.currency OR c.currency <> e.currency THEN 'its currency is not its accounts'' currency'
            ELSE 'it does not mirror the entry that it reverses' END
    FROM ledger_entries e
    LEFT JOIN ledger_accounts d ON d.id = e.debit_account_id
    LEFT JOIN ledger_accounts c ON c.id = e.credit_account_id
    WHERE e.seq = %s
"""
_WRONG_BALANCE = """
    SELECT account_id, SUM(kept), SUM(posted) FROM (
        SELECT account_id, SUM(credit_balance) AS kept, 0 AS posted FROM ledger_balances GROUP BY account_id
        UNION ALL SELECT credit_account_id, 0, SUM(amount) FROM ledger_entries GROUP BY credit_account_id
        UNION ALL SELECT debit_account_id, 0, -SUM(amount) FROM ledger_entries GROUP BY debit_account_id
    ) AS sums GROUP BY account_id HAVING SUM(kept) <> SUM(posted) ORDER BY account_id LIMIT 1
"""
_OVERDRAWN = """
    SELECT b.account_id, b.slot, b.credit_balance FROM ledger_balances b JOIN ledger_accounts a ON a.id = b.account_id
    WHERE a.kind = %s AND (b.slot <> 0 OR b.credit_balance < 0) ORDER BY b.account_id, b.slot LIMIT 1
"""
_UNBALANCED = """
    SELECT a.currency, SUM(b.credit_balance) FROM ledger_balances b JOIN ledger_accounts a ON a.id = b.account_id
    GROUP BY a.currency HAVING SUM(b.credit_balance) <> 0 ORDER BY a.currency LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: which check found it, the first row that shows it, and what is wrong with it."""

    check: str
    row: str
    detail: str


@dataclass
class Report:
    """What was looked at and what was found; the ledger is sound if `findings` is empty."""

    entries: int = 0
    accounts: int = 0
    from_seal: int = 1
    seals: int = 0
    sealed: int = 0  # entries under these seals
    unsealed: int = 0
    unanchored: int = 0
    new_starts: list[Any] = field(default_factory=list)  # where the anchor was begun anew: told for ever
    checks: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@contextmanager
def snapshot() -> Iterator[int]:
    """Reads inside see one moment of the database and hold up no writer. Inside a transaction it changes nothing.

    Gives the number of the last seal that was anchored before: the snapshot must have it.
    """
    anchored = chain_check.anchored(CHAIN)
    if connection.in_atomic_block:
        yield anchored
        return
    if connection.vendor == "mysql":
        _execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        _execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    else:
        _execute("BEGIN DEFERRED")
    try:
        yield anchored
    finally:
        _execute("COMMIT")


def verify_ledger(progress: Progress = lambda *_: None, *, from_seal: int = 1, anchored: int | None = None) -> Report:
    """Runs every check inside a `snapshot`, which gives `anchored`. Each check that fails names its first wrong row.

    The chain is looked at from `from_seal` on. Raises `SealNotFound` when it has not come that far.
    """
    report = Report(from_seal=from_seal)
    for name, check in CHECKS.items():
        report.checks.append(name)
        report.findings += [Finding(name, row, detail) for row, detail in check(report, progress)]
    report.checks.append("chain")
    report.findings += [Finding("chain", row, detail) for row, detail in _chain(report, anchored, progress)]
    return report


Faults = Iterator[tuple[str, str]]


def _guards(report: Report, progress: Progress) -> Faults:
    """Triggers, composite keys, uniqueness and checks are there as they should be."""
    with append_only.as_owner() as owner, owner.cursor() as cursor:
        for name in append_only.missing(by=owner):
            unseen = name == append_only.UNSEEN_HINT
            detail = name if unseen else "this refusal of the database is missing or altered: run migrate"
            yield "triggers" if unseen else name, detail
        for model in (models.LedgerEntry, models.LedgerAccount, models.LedgerBalance, models.TreasuryMovement):
            there = owner.introspection.get_constraints(cursor, model._meta.db_table)
            for constraint in model._meta.constraints:
                if constraint.name not in there:
                    yield constraint.name, f"this constraint of {model._meta.db_table} is missing"


def _grants(report: Report, progress: Progress) -> Faults:
    """The user that PenPay runs as can change nothing that is kept for ever."""
    for right in grants.too_wide():
        yield right, "the runtime user has this right and must not: migrate, which takes it away or says who can"


def _entries(report: Report, progress: Progress) -> Faults:
    """Each entry moves a positive amount between two accounts of its currency; a reversal mirrors its entry."""
    last, report.entries = _row("SELECT COALESCE(MAX(seq), 0), COUNT(*) FROM ledger_entries")
    firsts = [_row(_WRONG_REVERSAL)[0], *(_row(_WRONG_PAIR.format(side=side))[0] for side in ("debit", "credit"))]
    for start in range(0, last, PAGE):
        wrong = _row(_WRONG_ALONE, start, start + PAGE)
        progress("entries", min(start + PAGE, last), last)
        if wrong:
            firsts.append(wrong[0])
            break
    if found := [seq for seq in firsts if seq is not None]:
        seq, reference, detail = _row(_WRONG_ENTRY, min(found))
        yield f"ledger_entries {seq} ({reference})", str(detail)


def _accounts(report: Report, progress: Progress) -> Faults:
    """Each account's id is the one that its name gives."""
    after = ""
    while True:
        page = _rows(
            "SELECT id, kind, currency, owner FROM ledger_accounts "  # noqa: S608
            f"WHERE id > X'{after}' ORDER BY id LIMIT %s",
            PAGE,
        )
        for id, kind, currency, owner in page:
            if _derived_id(kind, currency, owner) != bytes(id):
                yield f"ledger_accounts {UUID(bytes=bytes(id))}", f"{kind} {currency} {owner} is not its name"
                return
        report.accounts += len(page)
        if len(page) < PAGE:
            return
        after = bytes(page[-1][0]).hex()


def _balances(report: Report, progress: Progress) -> Faults:
    """The kept balance of each account is the sum of its entries."""
    if wrong := _row(_WRONG_BALANCE):
        yield f"ledger_balances {UUID(bytes=bytes(wrong[0]))}", f"{wrong[1]} is kept, the entries make {wrong[2]}"


def _in_transit(report: Report, progress: Progress) -> Faults:
    """No customer's in-transit account is below zero, and each is in the slot where the database sees to that."""
    if wrong := _row(_OVERDRAWN, AccountKind.CUSTOMER_IN_TRANSIT):
        yield f"ledger_balances {UUID(bytes=bytes(wrong[0]))} slot {wrong[1]}", f"it holds {wrong[2]}"


def _trial_balance(report: Report, progress: Progress) -> Faults:
    """For each currency all balances together are zero."""
    if wrong := _row(_UNBALANCED):
        yield f"currency {wrong[0]}", f"all balances together are {wrong[1]} and not 0"


def _chain(report: Report, anchored: int | None, progress: Progress) -> Faults:
    """Every sealed entry is as it was sealed, and the seals are those that are anchored outside of the database."""
    chain = chain_check.check(CHAIN, from_seal=report.from_seal, anchored=anchored, progress=progress)
    report.seals, report.sealed, report.unanchored = chain.seals, chain.rows, chain.unanchored
    report.unsealed, report.new_starts = chain.unsealed.count, chain.new_starts
    yield from chain.faults


CHECKS: dict[str, Callable[[Report, Progress], Faults]] = {
    "guards": _guards,
    "grants": _grants,
    "entries": _entries,
    "accounts": _accounts,
    "balances": _balances,
    "in_transit": _in_transit,
    "trial_balance": _trial_balance,
}


def _derived_id(kind: str, currency: str, owner: str) -> bytes | None:
    try:
        return Account(AccountKind(kind), Currency(currency), owner).id.bytes
    except ValueError:  # no such kind or currency
        return None


def _row(sql: str, *parameters: Any) -> Any:
    return next(iter(_rows(sql, *parameters)), None)


def _rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def _execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
