"""The sagas on ports in memory: a world with its own time and providers' books, for tests that need no database.

What is stored is copied in and out, and a unit of work that fails leaves nothing behind: as with the real ones.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Generic, TypeVar
from uuid import UUID

from payments.application.deposit import DepositSaga
from payments.application.saga import Timing, TransactionSaga
from payments.application.withdrawal import WithdrawalSaga, least_of
from payments.domain.deposit import Deposit
from payments.domain.eligibility import OwnVerifiedPhone
from payments.domain.ports import RateStale
from payments.domain.transaction import Transaction, TransactionType
from payments.domain.withdrawal import Withdrawal
from shared_kernel.domain.identifiers import IdempotencyKey, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, Leg, RequestStatus
from tests.in_memory_book import InMemoryBook
from tests.in_memory_deriv import InMemoryDeriv
from tests.in_memory_mpesa import FEE, InMemoryMpesa
from tests.in_memory_world import (
    BEGIN,
    Crash,
    InMemoryAudit,
    InMemoryReservations,
    InMemoryTransactions,
    InMemoryUsers,
    OneByOne,
    World,
)
from wallet.application.posting import Posting

__all__ = [
    "BEGIN",
    "CUSTOMER",
    "FEE",
    "Bench",
    "Crash",
    "InMemoryAudit",
    "InMemoryDeriv",
    "InMemoryLedger",
    "InMemoryMpesa",
    "InMemoryRates",
    "InMemoryReservations",
    "InMemoryTransactions",
    "InMemoryUsers",
    "OneByOne",
    "SagaBench",
    "WithdrawalBench",
    "World",
    "claimed_key",
]

CUSTOMER = UserId(UUID(int=77))
AGENT = "CR900001"
MID, BUYS, SELLS = Decimal("129.5"), Decimal("131.9605"), Decimal("127.0395")
T = TypeVar("T", bound=Transaction)


class InMemoryLedger(Posting):
    """The wallet's own journals over a book in memory; a float is never short."""

    def __init__(self, world: World) -> None:
        book = InMemoryBook(world)
        super().__init__(book=book, new_id=book.new_id)

    def deriv_balance(self, agent: str) -> Money:
        return Money(10**9, Currency.USD)

    def mpesa_balance(self, shortcode: str) -> Money:
        return Money(10**11, Currency.KES)


@dataclass
class InMemoryRates:
    """Today's rate, or none that is valid."""

    rate: Decimal | None = SELLS

    def lock(self, type: TransactionType, *, at: datetime) -> LockedRate:
        if self.rate is None:
            raise RateStale("no valid rate")
        return a_rate(self.rate, at=at)


def a_rate(rate: Decimal, *, at: datetime, holds: timedelta = timedelta(minutes=30)) -> LockedRate:
    return LockedRate(Currency.USD, Currency.KES, MID, rate, "test", at, at + holds)


@dataclass
class SagaBench(Generic[T]):
    """A saga over a world, with its providers at hand."""

    world: World = field(default_factory=World)
    timing: Timing = field(default_factory=Timing)
    crash_point: Callable[[str], None] = lambda where: None
    mpesa: InMemoryMpesa = field(init=False)
    deriv: InMemoryDeriv = field(init=False)
    ledger: InMemoryLedger = field(init=False)
    users: InMemoryUsers = field(init=False)

    def __post_init__(self) -> None:
        self.mpesa, self.deriv = InMemoryMpesa(self.world), InMemoryDeriv(self.world)
        self.ledger, self.users = InMemoryLedger(self.world), InMemoryUsers(self.world)

    @property
    def saga(self) -> TransactionSaga[Any]:
        raise NotImplementedError

    @property
    def ports(self) -> dict[str, Any]:
        """What both sagas are made of."""
        return {
            "transactions": InMemoryTransactions(self.world),
            "quotes": None,
            "limits": None,
            "keys": None,
            "users": self.users,
            "mpesa": self.mpesa,
            "deriv": self.deriv,
            "ledger": self.ledger,
            "reservations": InMemoryReservations(self.world),
            "audit": InMemoryAudit(self.world),
            "unit_of_work": self.world.unit_of_work,
            "side_by_side": OneByOne(),
            "clock": self.world.clock,
            "timing": self.timing,
            "crash_point": self.crash_point,
        }

    def drive(self, *transactions: Transaction) -> None:
        """An event, or the sweeper, looks at these; a process that dies is followed by one that does not."""
        try:
            self.saga.drive([transaction.id for transaction in transactions])
        except Crash:
            self.crash_point = lambda where: None

    def now(self, transaction: Transaction) -> Any:
        """The Transaction as it is stored, its requests attached."""
        stored = copy.deepcopy(self.world.transactions[transaction.id])
        stored.payments = [r for r in self.world.prompts.values() if r.transaction_id == transaction.id]
        stored.transfers = [r for r in self.world.transfers.values() if r.transaction_id == transaction.id]
        return stored

    def sweep(self, transaction: Transaction, *, until: timedelta, stop: Callable[[Any], bool] | None = None) -> None:
        """Lets time pass: the sweeper looks whenever the row says so, for at most `until`.

        What stays due although it was looked at is looked at once more by each sweep; here the sweep ends with it.
        """
        end, idle = self.world.now + until, 0
        while idle < 2:
            row = self.world.transactions[transaction.id]
            due = row.next_step_at
            if due is None or due > end or (stop and stop(self.now(transaction))):
                return
            self.world.now = max(self.world.now, due)
            self.drive(transaction)
            idle = idle + 1 if self.world.transactions[transaction.id].version == row.version else 0

    def resume(self, transaction: Transaction) -> None:
        """A person sends it back, and the sweeper looks."""
        self.saga.resume(transaction.id, why="looked into it")
        self.drive(transaction)


class Bench(SagaBench[Deposit]):
    """A deposit saga over a world."""

    @property
    def saga(self) -> DepositSaga:
        return DepositSaga(**self.ports)

    def deposit(self, *, shillings: int = 1300, phone: str = "254712345678", checked: bool = True,
                platform: DerivPlatform = DerivPlatform.WS_V3) -> Deposit:  # fmt: skip
        """A created deposit, as the command leaves it."""
        at = self.world.now
        transaction = Deposit.create(
            TransactionId(self.world.new_id()),
            user_id=CUSTOMER,
            quote_id=QuoteId(self.world.new_id()),
            amount=Money(shillings * 100, Currency.KES),
            rate=a_rate(BUYS, at=at),
            phone=Phone(phone),
            login=DerivLogin(platform, "CR100001"),
            agent=AGENT,
            login_checked_at=at if checked else None,
            at=at,
        )
        with self.world.unit_of_work():
            InMemoryTransactions(self.world).save_many([transaction])
            InMemoryReservations(self.world).reserve(AGENT, transaction.id, transaction.payout, at=at)
        return transaction


@dataclass
class WithdrawalBench(SagaBench[Withdrawal]):
    """A withdrawal saga over a world."""

    platform: DerivPlatform = DerivPlatform.WS_V3
    rates: InMemoryRates = field(default_factory=InMemoryRates)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.users.tokens[CUSTOMER] = (DerivLogin(self.platform, "CR100001"), "a1-token")

    @property
    def saga(self) -> WithdrawalSaga:
        unused: Any = None
        return WithdrawalSaga(
            **self.ports,
            rates=self.rates,
            policy=OwnVerifiedPhone(),
            sessions=unused,
            codes=unused,
            payout_account=lambda: "mpesa:600997",
        )

    def withdrawal(self, *, cents: int = 10_00, account: str = "CR100001") -> Withdrawal:
        """A created withdrawal, as the command leaves it: its debit not sent yet."""
        at = self.world.now
        rate = a_rate(SELLS, at=at)
        login = DerivLogin(self.platform, account)
        transaction = Withdrawal.create(
            TransactionId(self.world.new_id()),
            user_id=CUSTOMER,
            quote_id=QuoteId(self.world.new_id()),
            amount=Money(cents, Currency.USD),
            rate=rate,
            min_payout=least_of(rate.sell(Money(cents, Currency.USD))),
            phone=Phone("254712345678"),
            login=login,
            agent=AGENT,
            at=at,
        )
        debit = self.deriv.new_transfer(transaction.id, Leg.DERIV_DEBIT, 1, login, AGENT, transaction.amount, at=at)
        debit.status, debit.verification_code = RequestStatus.NOT_SENT, "123456"
        with self.world.unit_of_work():
            InMemoryTransactions(self.world).save_many([transaction])
            self.deriv.record([debit])
            account_, amount = self.saga.float_of(transaction)
            InMemoryReservations(self.world).reserve(account_, transaction.id, amount, at=at)
        return transaction


def claimed_key(user: UserId) -> IdempotencyKey:
    """A key in the scope of deposits."""
    return IdempotencyKey(f"{user}:deposits", "key")
