"""The stores of payments in memory, which keep and refuse what the tables do."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from payments.domain.deposit import Deposit
from payments.domain.ports import LedgerGateway
from payments.domain.quote import Quote
from payments.domain.transaction import Outflow, Transaction, TransactionStatus as S, TransactionType
from payments.domain.withdrawal import Withdrawal
from payments.infrastructure.persistence.reservations import FloatTooLow
from payments.infrastructure.persistence.transactions import ENDED, PRIORITY, VersionConflict, lane_of
from shared_kernel.domain.identifiers import IdempotencyKey, QuoteId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.ports import transition_records
from tests.simulation.store import Store, StoredAudit, StoredOutbox, clone

GIVEN_BACK = frozenset({S.REFUND_PENDING, S.REFUNDED, S.CREDIT_BACK_PENDING, S.REVERSED})
PAID_OUT = frozenset({S.DERIV_TRANSFER_SENT, S.MPESA_DISBURSING})
BEHIND = timedelta(seconds=30)


class ConstraintBroken(Exception):
    """The database refuses such a row."""


@dataclass(frozen=True)
class Transactions:
    """`transactions`, with the outbox and the audit log."""

    store: Store
    outbox: StoredOutbox
    audit: StoredAudit

    def get_many(self, ids: Sequence[TransactionId], type: TransactionType) -> list[Any]:
        assert self.store.is_open
        rows = self.store.table("transactions")
        return [self._fresh(rows[id]) for id in sorted(set(ids)) if id in rows and rows[id].type is type]

    def save_many(self, transactions: Sequence[Transaction]) -> None:
        assert self.store.is_open
        rows, quotes = self.store.table("transactions"), self.store.table("transactions.quote_id")
        for transaction in transactions:
            known = rows.get(transaction.id)
            if (known.version if known else 0) != transaction.version:
                raise VersionConflict("a Transaction changed although it was locked")
            if known is None and transaction.quote_id in quotes:
                raise ConstraintBroken("quote_id is unique")
            transaction.version += 1
            refuse_unchosen(transaction)
            row = clone(transaction)
            row.failure_code, row.failure_detail = row.failure_code[:64], row.failure_detail[:255]
            self.store.put(rows, transaction.id, row)
            self.store.put(quotes, transaction.quote_id, transaction.id)
            self.store.put(self.store.table("leases"), transaction.id, None)
            self.store.touched.add(transaction.id)
            self.outbox.append(transaction.pull_events())
            self.audit.append(transition_records("transaction", transaction.id, transaction.pull_transitions()))
            row.events, row.transitions = [], []

    def claim_due(
        self, lane: str, *, at: datetime, lease: timedelta, most: int
    ) -> dict[TransactionId, TransactionType]:
        """Due rows by priority, then by turn, leased for `lease`; in a unit of work of its own."""
        leases = self.store.table("leases")
        due = [
            row
            for row in self.store.table("transactions").values()
            if row.next_step_at is not None
            and row.next_step_at <= at
            and lane_of(row) == lane
            and (leases.get(row.id) is None or leases[row.id] <= at)
        ]
        if not due:
            return {}
        due.sort(key=lambda row: (PRIORITY.get(row.status, ENDED), row.next_step_at + row.behind * BEHIND))
        with self.store.unit_of_work():
            for row in due[:most]:
                self.store.put(leases, row.id, at + lease)
        return {row.id: row.type for row in due[:most]}

    def lanes(self) -> list[str]:
        """Those that anything unfinished waits for."""
        rows = self.store.table("transactions").values()
        return sorted({lane_of(row) for row in rows if row.next_step_at is not None})

    def next_due(self) -> datetime | None:
        """When the sweeper has something to do."""
        leases = self.store.table("leases")
        due = [
            max(row.next_step_at, leases.get(row.id) or row.next_step_at)
            for row in self.store.table("transactions").values()
            if row.next_step_at is not None
        ]
        return min(due, default=None)

    def _fresh(self, row: Any) -> Any:
        """As `to_domain` gives it: with the columns only."""
        transaction = clone(row)
        transaction.payments, transaction.transfers, transaction.changed, transaction.notes = [], [], [], []
        transaction.events, transaction.transitions = [], []
        transaction.touched = transaction.reserve_again = transaction.knows_payments = False
        if isinstance(transaction, Deposit):
            transaction.prompt_busy = False
        elif isinstance(transaction, Withdrawal):
            transaction.token, transaction.stopped = "", str
        return transaction


def refuse_unchosen(transaction: Transaction) -> None:
    """The choice of promise 1, held by the database as well."""
    if transaction.status in GIVEN_BACK and transaction.outflow is not Outflow.GIVE_BACK:
        raise ConstraintBroken("transactions_given_back")
    if transaction.status in PAID_OUT and transaction.outflow is not Outflow.PAYOUT:
        raise ConstraintBroken("transactions_paid_out")


@dataclass(frozen=True)
class Reservations:
    """`float_accounts` and `float_reservations`: account, amount and whether it is still kept, by Transaction."""

    store: Store
    ledger: LedgerGateway

    def reserve(
        self, account: str, transaction: TransactionId, amount: Money, *, at: datetime, beyond: bool = False
    ) -> None:
        assert self.store.is_open
        rows = self.store.table("reservations")
        held = rows.get(transaction)
        if beyond and held is not None and held[2]:
            return
        if held is not None and not beyond:
            raise ConstraintBroken("a reservation is there already")
        reserved = sum(row[1].amount for row in rows.values() if row[2] and row[0] == account) + amount.amount
        if not beyond and self._balance(account).amount < reserved:
            raise FloatTooLow("this amount is not possible right now: please try again later")
        kept = (account, amount, True) if held is None else (held[0], held[1], True)  # as the row was
        self.store.put(rows, transaction, kept)

    def release(self, transactions: Sequence[TransactionId], *, at: datetime) -> None:
        assert self.store.is_open
        rows = self.store.table("reservations")
        for transaction in transactions:
            held = rows.get(transaction)
            if held is not None and held[2]:
                self.store.put(rows, transaction, (held[0], held[1], False))

    def _balance(self, account: str) -> Money:
        shortcode = account.removeprefix("mpesa:")
        return self.ledger.deriv_balance(account) if shortcode == account else self.ledger.mpesa_balance(shortcode)


@dataclass(frozen=True)
class QuoteRows:
    """`quotes`."""

    store: Store

    def add(self, quote: Quote) -> None:
        self.store.put(self.store.table("quotes"), quote.id, quote)

    def take(self, id: QuoteId, transaction: TransactionId | None) -> Quote | None:
        quote: Quote | None = self.store.table("quotes").get(id)
        if quote is not None and quote.transaction_id is None and transaction is not None:
            self.store.put(self.store.table("quotes"), id, changed(quote, transaction_id=transaction))
        return quote

    def name_agent(self, id: QuoteId, agent: str) -> None:
        quotes = self.store.table("quotes")
        self.store.put(quotes, id, changed(quotes[id], agent=agent))


def changed(quote: Quote, **values: Any) -> Quote:
    known = {name: getattr(quote, name) for name in Quote.__slots__}
    return Quote(**(known | values))


class KeyReused(Exception):
    """The same key for another intent."""


@dataclass(frozen=True)
class Keys:
    """`idempotency_keys`."""

    store: Store

    def claim(self, key: IdempotencyKey, intent: dict[str, Any], *, result: UUID) -> UUID:
        rows = self.store.table("keys")
        known = rows.get(key)
        if known is None:
            self.store.put(rows, key, (intent, result, ""))
            return result
        if known[0] != intent:
            raise KeyReused(key.key)
        first: UUID = known[1]
        return first

    def answer(self, key: IdempotencyKey, answer: str) -> None:
        rows = self.store.table("keys")
        intent, result, _ = rows[key]
        self.store.put(rows, key, (intent, result, answer))

    def answer_of(self, key: IdempotencyKey) -> str:
        return str(self.store.table("keys")[key][2])

    def consume(self, step: str, events: Sequence[UUID]) -> set[UUID]:
        rows = self.store.table("consumed")
        fresh = {event for event in events if (step, event) not in rows}
        for event in sorted(fresh):
            self.store.put(rows, (step, event), True)
        return fresh
