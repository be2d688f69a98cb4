"""The sagas' ports in memory: a world with its own time and its own providers' books, for tests that need no database.

What is stored is copied in and out, and a unit of work that fails leaves nothing behind: as with the real ones.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from payments.application.deposit import DepositSaga, Timing
from payments.domain.transaction import Transaction, TransactionType
from shared_kernel.domain.errors import Conflict
from shared_kernel.domain.events import Event
from shared_kernel.domain.identifiers import IdempotencyKey, Phone, QuoteId, RequestId, TransactionId, UserId
from shared_kernel.domain.money import Currency, DepositSplit, LockedRate, Money
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Done,
    Found,
    Lookup,
    NotSent,
    Outcome,
    Refused,
    Unknown,
    Unreadable,
)
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.domain.requests import (
    SEND_WINDOW,
    DerivLogin,
    DerivPlatform,
    DerivTransfer,
    Leg,
    MpesaClaim,
    MpesaPayment,
    MpesaRequest,
    RequestStatus,
)

BEGIN = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process dies here: nothing below catches it, and nothing after it runs."""


class PromptOpen(Conflict):
    """As the M-Pesa integration's."""


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
    frozen: dict[str, str] = field(default_factory=dict)
    open: bool = False
    last_id: int = 0

    STORED = ("transactions", "prompts", "transfers", "entries", "events", "audit", "reserved", "frozen")

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
        before = {name: copy.deepcopy(getattr(self, name)) for name in self.STORED}
        self.open = True
        try:
            yield
        except BaseException:
            for name, value in before.items():
                setattr(self, name, value)
            raise
        finally:
            self.open = False

    def balance(self, account: str) -> int:
        """Debits minus credits, in minor units."""
        return sum(e[2].amount for e in self.entries if e[0] == account) - sum(
            e[2].amount for e in self.entries if e[1] == account
        )


@dataclass
class InMemoryTransactions:
    world: World

    def get_many(self, ids: Sequence[TransactionId], type: TransactionType) -> list[Transaction]:
        assert self.world.open
        found = [copy.deepcopy(self.world.transactions[id]) for id in sorted(ids) if id in self.world.transactions]
        for transaction in found:
            transaction.payments, transaction.transfers, transaction.changed = [], [], []
            transaction.touched = transaction.prompt_busy = transaction.reserve_again = False
        return [transaction for transaction in found if transaction.type is type]

    def save_many(self, transactions: Sequence[Transaction]) -> None:
        assert self.world.open
        for transaction in transactions:
            transaction.version += 1
            self.world.events += transaction.pull_events()
            self.world.audit += [
                AuditRecord("transaction.status", "transaction", str(transaction.id), t.at, t.before, t.after, t.why)
                for t in transaction.pull_transitions()
            ]
            self.world.transactions[transaction.id] = copy.deepcopy(transaction)


def answered(request: Any, outcome: Outcome, *, at: datetime, fence: int) -> None:
    """What an outcome makes of its request's row, by the rule of fences."""
    if request.status in {RequestStatus.DONE, RequestStatus.CLOSED} and not isinstance(outcome, Done):
        return
    match outcome:
        case Done():
            request.status = RequestStatus.DONE
        case Accepted():
            request.status = RequestStatus.ACCEPTED
        case Unknown(code):
            request.status, request.code = RequestStatus.UNKNOWN, code
        case Refused(code) if fence == request.fence:
            request.status, request.code = RequestStatus.REFUSED, code
        case NotSent(code) if fence == request.fence:
            request.status, request.code = RequestStatus.NOT_SENT, code
    request.outcome_at = at


@dataclass
class InMemoryMpesa:
    """The M-Pesa port and the provider behind it: `answers` are given to the next pushes, then they are accepted."""

    world: World
    answers: list[Outcome | Callable[[MpesaRequest], Outcome]] = field(default_factory=list)
    pushed: list[MpesaRequest] = field(default_factory=list)
    book: list[MpesaPayment] = field(default_factory=list)  # what Pull shows
    settled: dict[str, Outcome] = field(default_factory=dict)  # by reference: what the query says
    book_is_down: bool = False
    queried: int = 0

    def requests_of(
        self, transactions: Sequence[TransactionId], outcomes: Sequence[tuple[MpesaRequest, Outcome]] = ()
    ) -> Mapping[TransactionId, list[MpesaRequest]]:
        assert self.world.open
        for request, outcome in outcomes:
            row = self.world.prompts[request.id]
            answered(row, outcome, at=self.world.now, fence=request.fence)
            if isinstance(outcome, Accepted):
                row.checkout_request_id = outcome.references.get("CheckoutRequestID", "")
        found: dict[TransactionId, list[MpesaRequest]] = {}
        for request in self.world.prompts.values():
            if request.transaction_id in transactions:
                found.setdefault(request.transaction_id, []).append(copy.deepcopy(request))
        return found

    def record(self, requests: Sequence[MpesaRequest]) -> None:
        assert self.world.open
        for request in requests:
            others = [r for r in self.world.prompts.values() if r.id != request.id and r.phone == request.phone]
            if any(not (r.status.is_dead or r.status is RequestStatus.DONE) for r in others):
                raise PromptOpen("another prompt is open on this phone")
            self.world.prompts[request.id] = copy.deepcopy(request)

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        assert self.world.open
        for request in requests:
            claims = self.world.prompts[request.id].claims
            self.world.prompts[request.id] = copy.deepcopy(request)
            self.world.prompts[request.id].claims = claims

    def busy_phones(self, phones: Iterable[Phone]) -> set[Phone]:
        busy = {
            r.phone for r in self.world.prompts.values() if not (r.status.is_dead or r.status is RequestStatus.DONE)
        }
        return busy & set(phones)

    def new_request(
        self,
        transaction: TransactionId,
        leg: Leg,
        attempt: int,
        phone: Phone,
        amount: Money,
        *,
        at: datetime,
        about: str = "",
        shortcode: str = "",
    ) -> MpesaRequest:
        return MpesaRequest(
            id=RequestId(self.world.new_id()),
            transaction_id=transaction,
            leg=leg,
            attempt=attempt,
            reference=f"REF{transaction.int:09d}",
            amount=amount,
            send_before=at + SEND_WINDOW,
            created_at=at,
            phone=phone,
            shortcode="174379",
        )

    def send(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        assert not self.world.open, "M-Pesa was called inside a unit of work"
        self.pushed.append(copy.deepcopy(request))
        answer = self.answers.pop(0) if self.answers else Accepted({"CheckoutRequestID": f"ws_CO_{request.reference}"})
        return answer(request) if callable(answer) else answer

    def query(self, request: MpesaRequest) -> Outcome:
        assert not self.world.open, "M-Pesa was called inside a unit of work"
        self.queried += 1
        return self.settled.get(request.reference, Accepted())

    def payments(self, request: MpesaRequest) -> Sequence[MpesaPayment] | Unreadable:
        assert not self.world.open, "M-Pesa was called inside a unit of work"
        if self.book_is_down:
            return Unreadable("503")
        return [payment for payment in self.book if payment.reference == request.reference]

    # --- what the provider does ---------------------------------------------------------------------------------

    def pays(self, reference: str, amount: Money, receipt: str = "UKM0000001") -> None:
        """The customer types the PIN."""
        self.settled[reference] = Done("")
        self.book.append(MpesaPayment(receipt, reference, amount, self.world.now))

    def calls_back(self, transaction: UUID, *, code: str = "0", agrees: bool = True) -> None:
        """A callback arrives on the attempt's own URL: true or not."""
        for request in self.world.prompts.values():
            if request.transaction_id == transaction:
                request.claims.append(MpesaClaim(code, self.world.now, request.amount, "UKM0000001", agrees))


@dataclass
class InMemoryDeriv:
    """The Deriv port and the agent's own book: `answers` are given to the next transfers, then they are booked."""

    world: World
    answers: list[Outcome | Callable[[DerivTransfer], Outcome]] = field(default_factory=list)
    login_answers: list[Outcome] = field(default_factory=list)
    book: list[tuple[str, Money, str]] = field(default_factory=list)  # reference, amount, Deriv's transaction id
    sent: list[DerivTransfer] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    chain_is_whole: bool = True

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        assert self.world.open
        found: dict[TransactionId, list[DerivTransfer]] = {}
        for transfer in self.world.transfers.values():
            if transfer.transaction_id in transactions:
                found.setdefault(transfer.transaction_id, []).append(copy.deepcopy(transfer))
        return found

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        assert self.world.open
        self.world.transfers.update({transfer.id: copy.deepcopy(transfer) for transfer in transfers})

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]]) -> None:
        assert self.world.open
        for transfer, outcome in outcomes:
            row = self.world.transfers[transfer.id]
            answered(row, outcome, at=self.world.now, fence=transfer.fence)
            if isinstance(outcome, Done):
                row.provider_transaction_id = outcome.reference

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        self.record(transfers)

    def freeze(self, agent: str, why: str) -> None:
        self.world.frozen[agent] = why

    def agent_for(self, platform: DerivPlatform) -> str:
        return "CR900001"

    def new_transfer(
        self,
        transaction: TransactionId,
        leg: Leg,
        attempt: int,
        login: DerivLogin,
        agent: str,
        amount: Money,
        *,
        at: datetime,
    ) -> DerivTransfer:
        return DerivTransfer(
            id=RequestId(self.world.new_id()),
            transaction_id=transaction,
            leg=leg,
            attempt=attempt,
            reference=f"PP{transaction.int:09d}",
            amount=amount,
            send_before=at + SEND_WINDOW,
            created_at=at,
            login=login,
            agent=agent,
        )

    def check_login(self, login: DerivLogin, agent: str, amount: Money) -> Outcome:
        assert not self.world.open, "Deriv was called inside a unit of work"
        return self.login_answers.pop(0) if self.login_answers else Done("JANE DOE")

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        assert not self.world.open, "Deriv was called inside a unit of work"
        self.sent.append(copy.deepcopy(transfer))
        answer = self.answers.pop(0) if self.answers else self.books
        return answer(transfer) if callable(answer) else answer

    def find(self, transfer: DerivTransfer) -> Lookup:
        assert not self.world.open, "Deriv was called inside a unit of work"
        if self.lookups:
            return self.lookups.pop(0)
        found = tuple(
            id for reference, amount, id in self.book if (reference, amount) == (transfer.reference, transfer.amount)
        )
        return Found(found) if found else Absent(proven=self.chain_is_whole)

    # --- what the provider does ---------------------------------------------------------------------------------

    def books(self, transfer: DerivTransfer) -> Outcome:
        """It takes effect and says so."""
        self.book.append((transfer.reference, transfer.amount, str(9_000 + len(self.book))))
        return Done(self.book[-1][2])

    def books_in_silence(self, transfer: DerivTransfer) -> Outcome:
        """It takes effect, and the answer is lost."""
        self.books(transfer)
        return Unknown("timeout")


@dataclass
class InMemoryLedger:
    """Entries by account name; a provider key is used once."""

    world: World

    def _post(self, debit: str, credit: str, amount: Money, key: str, about: UUID) -> None:
        assert self.world.open
        if not amount:
            return
        assert amount.amount > 0
        assert key == "" or key not in {entry[3] for entry in self.world.entries}, f"{key} was posted before"
        self.world.entries.append((debit, credit, amount, key, about))

    def post_deposit_received(
        self, deposit: TransactionId, customer: UserId, paid: Money, *, shortcode: str, provider_key: str, at: datetime
    ) -> None:
        self._post("mpesa", "in-transit", paid, provider_key, deposit)

    def post_excess(self, deposit: TransactionId, customer: UserId, excess: Money, *, at: datetime) -> None:
        self._post("in-transit", "suspense", excess, "", deposit)

    def post_deposit_sent(
        self,
        deposit: TransactionId,
        customer: UserId,
        split: DepositSplit,
        sent: Money,
        *,
        agent: str,
        provider_key: str,
        at: datetime,
    ) -> None:
        self._post("in-transit", "fx kes", split.fx, "", deposit)
        self._post("in-transit", "margin", split.margin, "", deposit)
        self._post("in-transit", "rounding", split.rounding, "", deposit)
        self._post("fx usd", "deriv", sent, provider_key, deposit)

    def post_duplicate_sent(
        self, deposit: TransactionId, sent: Money, *, agent: str, provider_key: str, at: datetime
    ) -> None:
        self._post("suspense usd", "deriv", sent, provider_key, deposit)

    def deriv_balance(self, agent: str) -> Money:
        return Money(10**9, Currency.USD)


@dataclass
class InMemoryReservations:
    world: World

    def reserve(
        self, account: str, transaction: TransactionId, amount: Money, *, at: datetime, beyond: bool = False
    ) -> None:
        assert self.world.open
        self.world.reserved[transaction] = amount

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


class OneByOne:
    """Calls in their order."""

    def map(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return [call(item) for item in items]


@dataclass
class Bench:
    """A deposit saga over a world, with its providers at hand."""

    world: World = field(default_factory=World)
    timing: Timing = field(default_factory=Timing)
    crash_point: Callable[[str], None] = lambda where: None

    def __post_init__(self) -> None:
        self.mpesa, self.deriv, self.ledger = (
            InMemoryMpesa(self.world),
            InMemoryDeriv(self.world),
            InMemoryLedger(self.world),
        )

    @property
    def saga(self) -> DepositSaga:
        unused: Any = None
        return DepositSaga(
            transactions=InMemoryTransactions(self.world),
            quotes=unused,
            limits=unused,
            users=unused,
            mpesa=self.mpesa,
            deriv=self.deriv,
            ledger=self.ledger,
            reservations=InMemoryReservations(self.world),
            keys=unused,
            audit=InMemoryAudit(self.world),
            unit_of_work=self.world.unit_of_work,
            side_by_side=OneByOne(),
            clock=self.world.clock,
            timing=self.timing,
            crash_point=self.crash_point,
        )

    def deposit(self, *, shillings: int = 1300, phone: str = "254712345678", checked: bool = True) -> Transaction:
        """A created deposit, as the command leaves it."""
        at = self.world.now
        rate = LockedRate(
            Currency.USD, Currency.KES, Decimal("129.5"), Decimal("131.9605"), "test", at, at + timedelta(minutes=30)
        )
        transaction = Transaction.create(
            TransactionId(self.world.new_id()),
            user_id=UserId(UUID(int=77)),
            quote_id=QuoteId(self.world.new_id()),
            amount=Money(shillings * 100, Currency.KES),
            rate=rate,
            phone=Phone(phone),
            login=DerivLogin(DerivPlatform.WS_V3, "CR100001"),
            agent="CR900001",
            login_checked_at=at if checked else None,
            at=at,
        )
        with self.world.unit_of_work():
            InMemoryTransactions(self.world).save_many([transaction])
            InMemoryReservations(self.world).reserve("CR900001", transaction.id, transaction.payout, at=at)
        return transaction

    def drive(self, *transactions: Transaction) -> None:
        """An event, or the sweeper, looks at these; a process that dies is followed by one that does not."""
        try:
            self.saga.drive([transaction.id for transaction in transactions])
        except Crash:
            self.crash_point = lambda where: None

    def now(self, transaction: Transaction) -> Transaction:
        """The Transaction as it is stored, its requests attached."""
        stored = copy.deepcopy(self.world.transactions[transaction.id])
        stored.payments = [r for r in self.world.prompts.values() if r.transaction_id == transaction.id]
        stored.transfers = [r for r in self.world.transfers.values() if r.transaction_id == transaction.id]
        return stored

    def sweep(
        self, transaction: Transaction, *, until: timedelta, stop: Callable[[Transaction], bool] | None = None
    ) -> None:
        """Lets time pass: the sweeper looks whenever the row says so, for at most `until`."""
        end = self.world.now + until
        while True:
            due = self.world.transactions[transaction.id].next_step_at
            if due is None or due > end or (stop and stop(self.now(transaction))):
                return
            self.world.now = max(self.world.now, due)
            self.drive(transaction)


def claimed_key(user: UserId) -> IdempotencyKey:
    """A key in the scope of deposits."""
    return IdempotencyKey(f"{user}:deposits", "key")
