"""What writes to the ledger in the benchmark: PenPay's own posting and the same by hand, in processes that stay."""

import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import Any, Self
from uuid import UUID, uuid5

import MySQLdb
from django.db import connection

from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from tests.benchmarks.world import options
from wallet.domain.ledger import AccountKind
from wallet.facade import customer_in_transit, house, ledger, mpesa_utility, mpesa_working
from wallet.infrastructure.persistence import forget_accounts

PROCESSES, GROUP, PAIRS = 4, 500, 16
DEPOSITS_EACH = 100  # of one customer, however many there are
SHORTCODE, AGENT, PAID = "174379", "CR900001", Money(1300_00, Currency.KES)
CUSTOMERS = UUID("7e1c0e5e-3f6b-5c0c-9d6c-0a4d6f0b7a11")
_INTO = (
    "INSERT INTO ledger_entries (id, journal_id, purpose, debit_account_id, credit_account_id, amount, currency, "
    "transaction_id, reference, provider_key, reverses, effective_at, recorded_at) VALUES "
)
_BALANCES = "INSERT INTO ledger_balances (account_id, slot, credit_balance) VALUES "
_ADDED = " ON DUPLICATE KEY UPDATE credit_balance = credit_balance + VALUES(credit_balance)"


def customer(number: int, world: str = "") -> UserId:
    """The same one whenever it is asked for."""
    return UserId(uuid5(CUSTOMERS, f"{world}{number}"))


# --- PenPay's own -----------------------------------------------------------------------------------------------------


def _received(number: int, which: Iterable[int]) -> None:
    at = now()
    for n in which:
        deposit = TransactionId(new_id())
        ledger.post_deposit_received(
            deposit, customer(number * 1000 + n % 50), PAID, shortcode=SHORTCODE, provider_key=f"mpesa:{deposit}", at=at
        )


def alone(number: int, count: int) -> None:
    """A journal, a commit."""
    for n in range(count):
        with unit_of_work():
            _received(number, [n])


def grouped(number: int, count: int) -> None:
    """`GROUP` journals, a commit."""
    for _ in range(0, count, GROUP):
        with unit_of_work():
            _received(number, range(GROUP))


def hot(number: int, count: int) -> None:
    """Everybody between the same two house accounts."""
    for _ in range(count):
        with unit_of_work():
            _between(mpesa_working("hot"), house(AccountKind.OWNERS_FUNDING, Currency.KES))


def spread(number: int, count: int) -> None:
    """Each posting between two house accounts of this process, another pair than the last time."""
    for n in range(count):
        with unit_of_work():
            own = f"{number}-{n % PAIRS}"
            _between(mpesa_working(own), mpesa_utility(own))


def _between(debit: Any, credit: Any) -> None:
    ledger._post("bench", [(debit, credit, PAID)], None, str(new_id()), at=now())


def grow(number: int, count: int, database: str) -> None:
    """Whole deposits (received and sent) in groups: `count` of them, each customer having `DEPOSITS_EACH`."""
    with connection.cursor() as cursor:
        cursor.execute(f"USE {database}")
    forget_accounts()
    at = now()
    rate = _rate(at)
    for start in range(0, count, GROUP // 5):
        with unit_of_work():
            for n in range(start, min(start + GROUP // 5, count)):
                _deposit(customer(number * 1_000_000 + n // DEPOSITS_EACH, database), rate, at)


def _deposit(who: UserId, rate: LockedRate, at: datetime) -> None:
    deposit = TransactionId(new_id())
    key = f"mpesa:{SHORTCODE}:{deposit}"
    ledger.post_deposit_received(deposit, who, PAID, shortcode=SHORTCODE, provider_key=key, at=at)
    split, bought = rate.split_deposit(PAID), rate.buy(PAID)
    ledger.post_deposit_sent(deposit, who, split, bought, agent=AGENT, provider_key=f"deriv:{deposit}", at=at)


def _rate(at: datetime) -> LockedRate:
    mid, rate = Decimal("129.10"), Decimal("131.05")
    return LockedRate(Currency.USD, Currency.KES, mid, rate, "bench", at, at + timedelta(days=1))


# --- by hand ----------------------------------------------------------------------------------------------------------


@cache
def _hand() -> Any:
    return MySQLdb.connect(**options())


def by_hand(number: int, count: int) -> None:
    """The rows and commits of `alone`: entry, both balances, commit."""
    for n in range(count):
        _write(number, [n])


def by_hand_grouped(number: int, count: int) -> None:
    """Those of `grouped`."""
    for start in range(0, count, GROUP):
        _write(number, range(start, start + GROUP))


def _write(number: int, which: Sequence[int]) -> None:
    cursor, at = _hand().cursor(), datetime.now(UTC).replace(tzinfo=None)
    entries: list[Any] = []
    changes: dict[bytes, tuple[int, int]] = {}
    working = mpesa_working(SHORTCODE).id.bytes
    for n in which:
        held = customer_in_transit(customer(number * 1000 + n % 50), Currency.KES).id.bytes
        entries += _entry(working, held, at)
        for account, slot, change in ((working, number + 1, -PAID.amount), (held, 0, PAID.amount)):
            changes[account] = (slot, changes.get(account, (slot, 0))[1] + change)
    rows = ", ".join(["(" + ", ".join(["%s"] * 13) + ")"] * len(which))
    cursor.execute(_INTO + rows, entries)
    balances = [value for account, (slot, change) in sorted(changes.items()) for value in (account, slot, change)]
    cursor.execute(_BALANCES + ", ".join(["(%s, %s, %s)"] * len(changes)) + _ADDED, balances)
    _hand().commit()


def _entry(debit: bytes, credit: bytes, at: datetime) -> list[Any]:
    deposit = new_id()
    key = f"mpesa:{deposit}"
    return [
        new_id().bytes, new_id().bytes, "deposit_received", debit, credit, PAID.amount, "KES", deposit.bytes,
        f"{deposit}:deposit_received:{key}:1", key, None, at, at,
    ]  # fmt: skip


# --- the processes ----------------------------------------------------------------------------------------------------

JOBS: dict[str, Callable[..., None]] = {
    job.__name__: job for job in (alone, grouped, hot, spread, by_hand, by_hand_grouped, grow)
}


@dataclass
class Crew:
    """`PROCESSES` of them, which wait for jobs; ends with the block."""

    _each: list[tuple[Any, Any]] = field(default_factory=list)

    def __enter__(self) -> Self:
        context = multiprocessing.get_context("spawn")
        for number in range(PROCESSES):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(number, theirs), daemon=True)
            process.start()
            self._each.append((process, ours))
        return self

    def __exit__(self, *_: object) -> None:
        for process, pipe in self._each:
            pipe.send(None)
            process.join(30)

    def per_s(self, job: str, count: int, *more: Any) -> float:
        """Journals (of `grow`: deposits) a second, `count` of them in all. Raises `RuntimeError`."""
        for _, pipe in self._each:
            pipe.send((job, count // PROCESSES, more))
        began = time.perf_counter()
        told = [pipe.recv() for _, pipe in self._each]
        took = time.perf_counter() - began
        if failed := [error for error in told if error]:
            raise RuntimeError(f"{job}: {failed[0]}")
        return count / took


def _serve(number: int, pipe: Any) -> None:
    while order := pipe.recv():
        job, count, more = order
        try:
            JOBS[job](number, count, *more)
        except Exception as error:  # noqa: BLE001 - told to whoever gave the order
            pipe.send(f"{type(error).__name__}: {error}")
        else:
            pipe.send("")
    connection.close()
    with closing(_hand()):
        pass
