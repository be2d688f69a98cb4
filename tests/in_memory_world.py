"""What commits together in memory, under a clock that only a test moves; it refuses what the database refuses."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from payments.domain.deposit import Deposit
from payments.domain.proposal import Proposal, ProposalNotFound
from payments.domain.transaction import Outflow, Transaction, TransactionStatus as S, TransactionType
from payments.domain.withdrawal import Withdrawal
from shared_kernel.domain.events import Event
from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import Money
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.domain.requests import DerivLogin, DerivTransfer, MpesaRequest

BEGIN = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
GIVEN_BACK = {S.REFUND_PENDING, S.REFUNDED, S.CREDIT_BACK_PENDING, S.REVERSED}
PAID_OUT = {S.DERIV_TRANSFER_SENT, S.MPESA_DISBURSING}


class Crash(BaseException):
    """The process dies here: nothing below catches it, and nothing after it runs."""


@dataclass
class World:
    """State that commits together, a clock that only a test moves, and what the providers believe."""

    now: datetime = BEGIN
    transactions: dict[UUID, Transaction] = field(default_factory=dict)
    prompts: dict[UUID, MpesaRequest] = field(default_factory=dict)
    transfers: dict[UUID, DerivTransfer] = field(default_factory=dict)
    entries: list[tuple[str, str, Money, str, UUID]] = field(default_factory=list)  # debit, credit, amount, key, about
    events: list[Event] = field(default_factory=list)
    audit: list[AuditRecord] = field(default_factory=list)
    reserved: dict[UUID, Money] = field(default_factory=dict)
    reserved_at: dict[UUID, str] = field(default_factory=dict)  # by which account
    frozen: dict[str, str] = field(default_factory=dict)
    proposals: dict[UUID, Proposal] = field(default_factory=dict)
    open: bool = False
    at_end: dict[str, Callable[[], None]] = field(default_factory=dict)  # runs before the unit of work is committed
    last_id: int = 0

    STORED = (
        "transactions", "prompts", "transfers", "entries", "events", "audit", "reserved", "reserved_at", "frozen",
        "proposals",
    )  # fmt: skip

    def clock(self) -> datetime:
        return self.now

    def tick(self, **units: float) -> None:
        self.now += timedelta(**units)

    def new_id(self) -> UUID:
        self.last_id += 1
        return UUID(int=self.last_id)

    @contextmanager
    def unit_of_work(self) -> Iterator[None]:
        assert not self.open, "a unit of work was opened inside another one"
        before = {name: copy.copy(getattr(self, name)) for name in self.STORED}  # rows are replaced, never changed
        self.open = True
        try:
            yield
            for write in self.at_end.values():
                write()
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        finally:
            self.open = False
            self.at_end.clear()

    def balance(self, account: str) -> int:
        """Debits minus credits, in minor units."""
        return sum(e[2].amount for e in self.entries if e[0] == account) - sum(
            e[2].amount for e in self.entries if e[1] == account
        )


@dataclass
class InMemoryTransactions:
    world: World

    def get_many(self, ids: Sequence[TransactionId], type: TransactionType) -> list[Any]:
        assert self.world.open
        found = [copy.deepcopy(self.world.transactions[id]) for id in sorted(ids) if id in self.world.transactions]
        for transaction in found:
            transaction.payments, transaction.transfers, transaction.changed, transaction.notes = [], [], [], []
            transaction.touched = transaction.reserve_again = transaction.knows_payments = False
            if isinstance(transaction, Deposit):
                transaction.prompt_busy = False
            if isinstance(transaction, Withdrawal):
                transaction.token, transaction.stopped = "", str
        return [transaction for transaction in found if transaction.type is type]

    def save_many(self, transactions: Sequence[Transaction]) -> None:
        assert self.world.open
        for transaction in transactions:
            chosen = {**dict.fromkeys(GIVEN_BACK, Outflow.GIVE_BACK), **dict.fromkeys(PAID_OUT, Outflow.PAYOUT)}
            assert transaction.outflow is chosen.get(transaction.status, transaction.outflow), "a check of the table"
            transaction.version += 1
            self.world.events += transaction.pull_events()
            self.world.audit += [
                AuditRecord("transaction.status", "transaction", str(transaction.id), t.at, t.before, t.after, t.why)
                for t in transaction.pull_transitions()
            ]
            self.world.transactions[transaction.id] = copy.deepcopy(transaction)


@dataclass
class InMemoryReservations:
    world: World

    def reserve(
        self, account: str, transaction: TransactionId, amount: Money, *, at: datetime, beyond: bool = False
    ) -> None:
        assert self.world.open
        if not (beyond and transaction in self.world.reserved):  # it has kept the one it had
            self.world.reserved[transaction], self.world.reserved_at[transaction] = amount, account

    def release(self, transactions: Sequence[TransactionId], *, at: datetime) -> None:
        assert self.world.open
        for transaction in transactions:
            self.world.reserved.pop(transaction, None)


@dataclass
class InMemoryAudit:
    world: World

    def append(self, records: Iterable[AuditRecord]) -> None:
        assert self.world.open
        self.world.audit += records


@dataclass
class InMemoryUsers:
    """The customers as the sagas ask for them: tokens of bound logins, and who is frozen."""

    world: World
    tokens: dict[UserId, tuple[DerivLogin, str]] = field(default_factory=dict)
    frozen_users: set[UserId] = field(default_factory=set)
    customers: dict[UserId, Any] = field(default_factory=dict)

    def customer(self, user: UserId) -> Any:
        assert self.world.open
        return self.customers[user]

    def deriv_tokens(self, logins: Mapping[UserId, DerivLogin]) -> Mapping[UserId, str]:
        assert self.world.open
        bound = {user: self.tokens[user] for user in logins if user in self.tokens}
        return {user: token for user, (login, token) in bound.items() if login == logins[user]}

    def frozen(self, users: Iterable[UserId]) -> set[UserId]:
        assert self.world.open
        return self.frozen_users & set(users)


@dataclass
class InMemoryProposals:
    world: World

    def add(self, proposal: Proposal) -> None:
        assert self.world.open
        self.world.proposals[proposal.id] = proposal

    def get(self, id: UUID) -> Proposal:
        assert self.world.open
        if id not in self.world.proposals:
            raise ProposalNotFound(f"no proposal {id}")
        return self.world.proposals[id]

    def decide(self, proposal: Proposal) -> None:
        assert self.world.open
        self.world.proposals[proposal.id] = proposal


class OneByOne:
    """Calls in their order."""

    def map(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return [call(item) for item in items]
