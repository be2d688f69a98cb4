"""Kept balances made anew from the entries, while postings go on.

A posting commits its entries and the balances that they change together. So by how much a kept balance differs from its
entries, both read in one statement and thus at one moment of the database, no posting changes. The difference can be
added later, whatever was posted meanwhile, and nothing is locked while entries are summed.

Two rebuilds at once would add it twice. So a correction is looked at once more inside its own transaction, whose lock
on the corrected slot makes the second one wait for the first: what is not equal then is rolled back and read anew.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import DatabaseError, IntegrityError, connection

from shared_kernel.domain.ports import AuditRecord
from shared_kernel.infrastructure.persistence import DjangoAuditLog, lock_lost, now, unit_of_work
from wallet.domain.ledger import AccountKind
from wallet.infrastructure.persistence import REBUILT_SLOT, change_balances

PAGE = 1000
TRIES = 5
MOST_NAMED = 100  # differences that are named; all are corrected, counted and audited

Progress = Callable[[int, int], None]  # accounts done, accounts in all

_GUARDED = f"a.kind = '{AccountKind.CUSTOMER_IN_TRANSIT}'"
# A guarded account's money is in slot 0 and nowhere else: what lies in other slots is not kept, but stray.
_COMPARED = f"""
    SELECT a.id, a.kind, a.owner, a.currency, {_GUARDED},
        COALESCE((SELECT SUM(credit_balance) FROM ledger_balances WHERE account_id = a.id
            AND (slot = 0 OR NOT {_GUARDED})), 0),
        (SELECT COUNT(*) FROM ledger_balances WHERE account_id = a.id AND slot <> 0 AND {_GUARDED}),
        (SELECT COALESCE(SUM(amount), 0) FROM ledger_entries WHERE credit_account_id = a.id)
            - (SELECT COALESCE(SUM(amount), 0) FROM ledger_entries WHERE debit_account_id = a.id)
    FROM ledger_accounts a WHERE {{which}} ORDER BY a.id LIMIT {PAGE}
"""  # noqa: S608 - our own names


@dataclass(frozen=True, slots=True)
class Difference:
    """Of an account, between its kept balance and what its entries make; both are credits minus debits."""

    account: UUID
    name: str
    guarded: bool
    kept: int
    stray: int  # rows of a guarded account outside of its slot
    entries: int

    @property
    def is_one(self) -> bool:
        """Whether there is any: of each account that is looked at it is asked."""
        return self.kept != self.entries or self.stray > 0

    @property
    def impossible(self) -> bool:
        """Whether the entries leave a customer's in-transit account below zero, which no balance may say."""
        return self.guarded and self.entries < 0

    @classmethod
    def of(cls, id: bytes, kind: str, owner: str, currency: str, guarded: int, *amounts: int) -> "Difference":
        name = " ".join(part for part in (kind, owner, currency) if part)
        return cls(UUID(bytes=bytes(id)), name, bool(guarded), *map(int, amounts))


@dataclass
class Rebuilt:
    """How many accounts were looked at, how many differed, the first of them, and those that can't be put right."""

    accounts: int = 0
    differed: int = 0
    named: list[Difference] = field(default_factory=list)
    impossible: list[Difference] = field(default_factory=list)


class _Moved(Exception):
    """Somebody else corrected, or damaged, the same accounts meanwhile."""


def rebuild_balances(*, dry_run: bool = False, progress: Progress = lambda *_: None) -> Rebuilt:
    """Looks at every account and corrects its kept balance, with an audit row for each; `dry_run` only looks.

    Raises `DatabaseError`, with what was corrected until then kept; a repeat goes on from there.
    """
    rebuilt, in_all = Rebuilt(), int(_rows("SELECT COUNT(*) FROM ledger_accounts")[0][0])
    for page in _pages():
        rebuilt.accounts += len(page)
        wrong = [account for account in page if account.is_one]
        rebuilt.differed += len(wrong)
        rebuilt.named += wrong[: MOST_NAMED - len(rebuilt.named)]
        if wrong and not dry_run:
            wrong = _corrected(wrong)
        impossible = [account for account in wrong if account.impossible]
        rebuilt.impossible += impossible[: MOST_NAMED - len(rebuilt.impossible)]
        progress(min(rebuilt.accounts, in_all), in_all)
    return rebuilt


def _pages() -> Iterator[list[Difference]]:
    after = ""
    while page := _compared(f"a.id > X'{after}'"):
        yield page
        after = page[-1].account.hex


def _corrected(wrong: Sequence[Difference]) -> list[Difference]:
    """Corrects what can be; what is left then. Gives way to others, and reads anew what they changed."""
    for _ in range(TRIES):
        possible = [account for account in wrong if not account.impossible]
        if not possible:
            return list(wrong)
        try:
            _correct(possible)
        except (_Moved, IntegrityError):
            pass
        except DatabaseError as error:
            if not lock_lost(error):
                raise
        wrong = _differing(wrong)
        if not wrong:
            return []
    raise DatabaseError(f"{len(wrong)} balances were changed by others, time and again: {wrong[0].name}")


def _correct(wrong: Sequence[Difference]) -> None:
    """In one transaction: the differences into their slots, and an audit row each. Raises `_Moved`."""
    with unit_of_work():
        if strays := [account for account in wrong if account.stray]:
            _execute(f"DELETE FROM ledger_balances WHERE slot <> 0 AND account_id IN ({_ids(strays)})")  # noqa: S608
        change_balances([(a.account, a.guarded, a.entries - a.kept) for a in wrong], REBUILT_SLOT)
        if _differing(wrong):
            raise _Moved
        DjangoAuditLog().append(_record(account) for account in wrong)


def _record(of: Difference) -> AuditRecord:
    return AuditRecord(
        "ledger.balance_rebuilt",
        "ledger_account",
        str(of.account),
        now(),
        before=str(of.kept),
        after=str(of.entries),
        why="the kept balance was not what the entries make",
        details={"rows_outside_of_its_slot": of.stray},
    )


def _differing(accounts: Sequence[Difference]) -> list[Difference]:
    return [account for account in _compared(f"a.id IN ({_ids(accounts)})") if account.is_one]


def _compared(which: str) -> list[Difference]:
    return [Difference.of(*row) for row in _rows(_COMPARED.format(which=which))]


def _ids(accounts: Sequence[Difference]) -> str:
    return ", ".join(f"X'{account.account.hex}'" for account in accounts)


def _rows(sql: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def _execute(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)
