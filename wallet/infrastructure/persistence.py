"""The ledger over the database: what a unit of work posts is written at its end, in two or three statements in all.

1. one INSERT of the entries;
2. one upsert of all balances, by account and slot in order, so that two groups never wait for each other in a ring.
   What is taken from a guarded account counts here as zero: its row is locked, and made if it is not there;
3. if anything is taken, one UPDATE that does it: the database judges the net change and refuses to go below zero.

They are not one statement because an upsert is checked as if it were an insert, and no insert below zero would pass.
"""

import itertools
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from django.db import IntegrityError, connection, transaction
from django.db.models import Count, Exists, OuterRef

from shared_kernel.domain.identifiers import EntryId, JournalId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.ports import Clock, IdSource
from shared_kernel.infrastructure.persistence import current_work
from wallet import models
from wallet.domain.ledger import (
    Account,
    AccountKind,
    AlreadyPosted,
    Entry,
    EntryNotFound,
    InTransitOverdrawn,
    Journal,
    PostedEntry,
    ProviderKeyUsed,
    Side,
    changes,
    keys_of,
    next_key,
    settlements_of,
)

GUARDED_SLOT = 0
HOUSE_SLOTS = 16
REBUILT_SLOT = HOUSE_SLOTS + 1  # no writer's, so that none waits while a correction is made
ROWS_A_STATEMENT = 1000
KNOWN_ACCOUNTS = 100_000  # more than that are forgotten and met again by an INSERT that has no effect

_WORK = "ledger"
_INTO_ENTRIES = (
    "INSERT INTO ledger_entries (id, journal_id, purpose, debit_account_id, credit_account_id, amount, currency, "
    "transaction_id, reference, provider_key, reverses, effective_at, recorded_at) VALUES "
)
_KEY = 4  # where a row of these has its provider key
_INTO_BALANCES = "INSERT INTO ledger_balances (account_id, slot, credit_balance) VALUES "
_ADDED = {
    "mysql": " ON DUPLICATE KEY UPDATE credit_balance = credit_balance + VALUES(credit_balance)",
    "sqlite": " ON CONFLICT (account_id, slot) DO UPDATE SET credit_balance = credit_balance + excluded.credit_balance",
}
_known: set[UUID] = set()  # accounts that are committed
_thread = threading.local()
_seats_taken: set[int] = set()
_seats_lock = threading.Lock()

Row = tuple[Any, ...]
A = TypeVar("A")


@dataclass(frozen=True)
class DjangoLedgerBook:
    """`ledger_accounts`, `ledger_entries` and `ledger_balances`."""

    clock: Clock
    new_id: IdSource

    def append(self, journal: Journal) -> None:
        work = current_work()
        group = work.at_end.setdefault(_WORK, Group(self.clock, self.new_id))
        assert isinstance(group, Group)
        group.journals.append(journal)

    def entries(self, ids: Sequence[EntryId]) -> list[PostedEntry]:
        rows = {
            row.id: to_domain(row)
            for row in models.LedgerEntry.objects.select_related("debit_account", "credit_account").filter(id__in=ids)
        }
        absent = [id for id in ids if id not in rows]
        if absent:
            raise EntryNotFound(f"no ledger entry {absent[0]}")
        return [rows[id] for id in ids]

    def posted(self, provider_keys: Collection[str]) -> set[str]:
        wanted, group = set(provider_keys), _open_group()
        if not wanted:
            return set()
        carried = {key for key, stands in _used(wanted).items() if stands}
        if group:
            carried |= {
                entry.provider_key for journal in group.journals for entry in journal.entries if entry.provider_key
            }
        return {key for key in wanted if not carried.isdisjoint(keys_of(key))}

    def standing(self, transaction: TransactionId, purpose: str) -> list[PostedEntry]:
        unreversed = ~Exists(models.LedgerEntry.objects.filter(reverses=OuterRef("id")))
        posted = models.LedgerEntry.objects.select_related("debit_account", "credit_account")
        rows = list(posted.filter(unreversed, transaction_id=transaction, purpose=purpose).order_by("seq"))
        return [to_domain(row) for row in rows if row.journal_id == rows[-1].journal_id]

    def settlement_of(self, name: str) -> str:
        references = settlements_of(name)
        used = used_settlements(references)
        for reference in references:
            if used.get(reference, True):
                return reference
        raise AlreadyPosted(f"{name} was settled and undone {len(references)} times: look for what is wrong")

    def journals_of(self, transaction: TransactionId, purpose: str) -> int:
        posted = models.LedgerEntry.objects.filter(transaction_id=transaction, purpose=purpose)
        group = _open_group()
        collected = group.journals if group else []
        return posted.values("journal_id").distinct().count() + sum(
            journal.transaction == transaction and journal.purpose == purpose for journal in collected
        )

    def balance(self, account: Account) -> Money:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT COALESCE(SUM(credit_balance), 0) FROM ledger_balances "  # noqa: S608
                f"WHERE account_id = {_literal(account.id)}"
            )
            credits = int(cursor.fetchone()[0])
        group = _open_group()
        if group:
            credits += changes(entry for journal in group.journals for entry in journal.entries).get(account, 0)
        return Money(credits if account.kind.normal_side is Side.CREDIT else -credits, account.currency)


def used_settlements(references: Sequence[str]) -> dict[str, bool]:
    """Those that a journal has: whether it stands; one SELECT."""
    undone = Exists(models.LedgerEntry.objects.filter(reverses=OuterRef("id")))
    first = models.LedgerEntry.objects.filter(reference__in=[f"{reference}:1" for reference in references])
    rows = first.annotate(stands=~undone).values_list("reference", "stands")
    return {reference.removesuffix(":1"): stands for reference, stands in rows}


def to_domain(row: models.LedgerEntry) -> PostedEntry:
    entry = Entry(
        _account(row.debit_account),
        _account(row.credit_account),
        Money(row.amount, Currency(row.currency)),
        row.provider_key,
        None if row.reverses is None else EntryId(row.reverses),
    )
    of = None if row.transaction_id is None else TransactionId(row.transaction_id)
    return PostedEntry(EntryId(row.id), row.reference, entry, of)


def forget_accounts() -> None:
    """For tests that empty the tables: the accounts that this process knows are there no more."""
    _known.clear()


@dataclass
class Group:
    """The journals of one unit of work; called at its end, it writes them."""

    clock: Clock
    new_id: IdSource
    journals: list[Journal] = field(default_factory=list)

    def __call__(self) -> None:
        entries = [entry for journal in self.journals for entry in journal.entries]
        if not entries:
            return
        now = self.clock()
        changed = changes(entries)
        self._open_accounts(changed, now)
        with _refusals():
            self._insert_entries(now)
            change_balances([(a.id, not a.kind.may_be_overdrawn, change) for a, change in changed.items()], _own_slot())

    def _open_accounts(self, accounts: dict[Account, int], now: datetime) -> None:
        """Makes those that this process does not know yet; one that is there already is left as it is."""
        unknown = sorted((account for account in accounts if account.id not in _known), key=lambda account: account.id)
        if not unknown:
            return
        rows = [
            models.LedgerAccount(id=a.id, kind=a.kind, currency=a.currency, owner=a.owner, opened_at=now)
            for a in unknown
        ]
        models.LedgerAccount.objects.bulk_create(rows, ignore_conflicts=True)
        transaction.on_commit(lambda: _remember([account.id for account in unknown]))

    def _insert_entries(self, now: datetime) -> None:
        recorded = connection.ops.adapt_datetimefield_value(now)
        references = self._references()
        rows: list[Row] = []
        for journal in self.journals:
            effective = connection.ops.adapt_datetimefield_value(journal.at)
            id, transaction_id = _literal(journal.id), _literal(journal.transaction)
            for number, entry in enumerate(journal.entries, 1):
                rows.append(
                    (
                        f"({_literal(self.new_id())}, {id}, %s, {_literal(entry.debit.id)}, "
                        f"{_literal(entry.credit.id)}, {entry.amount.amount}, %s, {transaction_id}, %s, %s, "
                        f"{_literal(entry.reverses)}, %s, %s)",
                        journal.purpose,
                        entry.amount.currency.value,
                        f"{references[journal.id]}:{number}",
                        entry.provider_key,
                        effective,
                        recorded,
                    )
                )
        for some in _parts(rows):
            _insert_keyed(some)

    def _references(self) -> dict[JournalId, str]:
        """Each journal's; one that may happen again has the count of its undoings in it, read for all at once."""
        undone = self._undone()
        references = {}
        for journal in self.journals:
            of = (journal.transaction, journal.undoing)
            references[journal.id] = f"{journal.reference}:{1 + undone[of]}" if journal.undoing else journal.reference
            undone[journal.transaction, journal.purpose] += 1
        return references

    def _undone(self) -> Counter[tuple[UUID | None, str]]:
        repeatable = [journal for journal in self.journals if journal.undoing]
        if not repeatable:
            return Counter()
        rows = (
            models.LedgerEntry.objects.filter(
                transaction_id__in={journal.transaction for journal in repeatable},
                purpose__in={journal.undoing for journal in repeatable},
            )
            .values_list("transaction_id", "purpose")
            .annotate(Count("journal_id", distinct=True))
        )
        return Counter({(of, purpose): journals for of, purpose, journals in rows})


def _insert_keyed(rows: Sequence[Row]) -> None:
    """One INSERT. Only if the database refuses a provider key, its successors are looked up, and it is tried once more:
    what is not refused costs nothing, and what others write at this moment is refused as before.
    """
    try:
        _insert(_INTO_ENTRIES, rows)
    except IntegrityError as refused:
        if "provider_key" not in str(refused):
            raise
        used = _used({row[_KEY] for row in rows if row[_KEY]})
        renamed = [(*row[:_KEY], row[_KEY] and next_key(row[_KEY], used), *row[_KEY + 1 :]) for row in rows]
        _insert(_INTO_ENTRIES, renamed)


def _used(provider_keys: Collection[str]) -> dict[str, bool]:
    """Those of their `keys_of` that an entry carries: whether it stands, or was undone as never moved; one SELECT."""
    undone = Exists(models.LedgerEntry.objects.filter(reverses=OuterRef("id"), provider_key=None))
    rows = models.LedgerEntry.objects.filter(provider_key__in={one for key in provider_keys for one in keys_of(key)})
    return {str(key): stands for key, stands in rows.annotate(stands=~undone).values_list("provider_key", "stands")}


def change_balances(changed: Iterable[tuple[UUID, bool, int]], slot: int) -> None:
    """Adds to kept balances: account, whether it is guarded, by how much; house accounts' in `slot`.

    Literals throughout: ids and whole numbers, nothing that came from outside.
    """
    rows, taken = [], []
    for account, guarded, change in sorted(changed):
        id = _literal(account)
        if change and not guarded:
            rows.append((f"({id}, {slot}, {change})",))
        elif change:
            rows.append((f"({id}, {GUARDED_SLOT}, {max(change, 0)})",))
            if change < 0:
                taken.append((id, change))
    _insert(_INTO_BALANCES, rows, _ADDED[connection.vendor])
    for some in _parts(taken):
        cases = " ".join(f"WHEN {id} THEN {change}" for id, change in some)
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE ledger_balances SET credit_balance = credit_balance + CASE account_id {cases} END "  # noqa: S608
                f"WHERE slot = {GUARDED_SLOT} AND account_id IN ({', '.join(id for id, _ in some)})"
            )


def _own_slot() -> int:
    """The slot of house accounts that this thread writes: neighbouring threads and processes have different ones."""
    if not hasattr(_thread, "seat"):
        _thread.seat = Seat()
    return 1 + (os.getpid() + int(_thread.seat.number)) % HOUSE_SLOTS


class Seat:
    """The lowest number that no other living thread of this process has; given back when the thread ends."""

    def __init__(self) -> None:
        with _seats_lock:
            self.number = next(number for number in itertools.count() if number not in _seats_taken)
            _seats_taken.add(self.number)

    def __del__(self) -> None:
        _seats_taken.discard(self.number)


def _insert(start: str, rows: Sequence[Row], end: str = "") -> None:
    """Each row is its values in SQL, then the parameters in them."""
    for some in _parts(rows):
        with connection.cursor() as cursor:
            cursor.execute(
                start + ", ".join(row[0] for row in some) + end,
                list(itertools.chain.from_iterable(row[1:] for row in some)),
            )


def _literal(id: UUID | None) -> str:
    """Bytes in SQL; a parameter would be read as text by MySQL, and is slower."""
    return "NULL" if id is None else f"X'{id.hex}'"


def _parts(rows: Sequence[A]) -> list[Sequence[A]]:
    return [rows[start : start + ROWS_A_STATEMENT] for start in range(0, len(rows), ROWS_A_STATEMENT)]


@contextmanager
def _refusals() -> Iterator[None]:
    """The database's refusals in the domain's words."""
    try:
        yield
    except IntegrityError as refused:
        told = str(refused)
        if "in_transit_covered" in told:
            raise InTransitOverdrawn("more would leave a customer's in-transit account than is in it") from refused
        if "provider_key" in told:
            raise ProviderKeyUsed("this movement at the provider is in the ledger already") from refused
        if "reference" in told or "reverses" in told:
            raise AlreadyPosted("this step is in the ledger already") from refused
        raise


def _remember(accounts: list[UUID]) -> None:
    if len(_known) > KNOWN_ACCOUNTS:
        _known.clear()
    _known.update(accounts)


def _open_group() -> "Group | None":
    try:
        group = current_work().at_end.get(_WORK)
    except RuntimeError:  # no unit of work is open
        return None
    assert group is None or isinstance(group, Group)
    return group


def _account(row: models.LedgerAccount) -> Account:
    return Account(AccountKind(row.kind), Currency(row.currency), row.owner)
