"""One seed, one run: customers, workers, a sweeper and staff over PenPay's own sagas, under faults; then without."""

import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from random import Random
from typing import Any
from uuid import UUID

from deriv_integration.application.deriv import Deriv
from mpesa_integration.application.callbacks import Callbacks, Received
from mpesa_integration.application.mpesa import Mpesa
from mpesa_integration.domain.callback import CallbackKind
from mpesa_integration.domain.request import callback_path, token_hash
from payments.application.deposit import CreateDeposit, DepositSaga
from payments.application.quotes import CreateQuote, Quotes
from payments.application.withdrawal import CreateWithdrawal, RequestCode, WithdrawalSaga
from payments.domain.eligibility import OwnVerifiedPhone
from payments.domain.limits import Limits
from payments.domain.transaction import FINAL, TransactionStatus as S, TransactionType
from shared_kernel.application.runner import Answer, Call, Step, StepsFailed
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.events import Event, MpesaCallbackReceived, TransactionCreated
from shared_kernel.domain.identifiers import IdempotencyKey, JournalId, QuoteId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import DerivPlatform, Leg
from tests.simulation import deriv as deriv_side, mpesa as mpesa_side
from tests.simulation.books import Books, Movement
from tests.simulation.checks import Broken, Promises, name
from tests.simulation.coverage import Cell, Watch, step_name
from tests.simulation.faults import Dice, Network
from tests.simulation.ledger import Ledger
from tests.simulation.people import OFTEN, Customer, Customers, Rates, Wide
from tests.simulation.requests import AgentRows, CallbackRows, InitiatorRow, MpesaRows, TransferRows
from tests.simulation.rows import Keys, QuoteRows, Reservations, Transactions
from tests.simulation.schedule import Crash, Process, Schedule
from tests.simulation.store import DatabaseGone, Store, StoredAudit, StoredOutbox
from wallet.domain.ledger import (
    Account,
    AccountKind,
    Entry,
    Journal,
    customer_receivable,
    deriv_agent,
    house,
    mpesa_charges_paid,
    mpesa_utility,
)

HOUR = 3600.0
PAYBILL, PAYOUTS = "174379", "600000"
AGENTS = {DerivPlatform.WS_V3: ("CR900001", "CR900002"), DerivPlatform.REST: ("9001", "9002")}
WORKERS = 4
LEASE = timedelta(seconds=60)


def digest(label: str, value: str) -> str:
    return sha256(f"{label}|{value}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Line:
    """One moment of a run's story."""

    at: float
    who: str
    what: str

    def __str__(self) -> str:
        day, rest = divmod(self.at, 24 * HOUR)
        hours, rest = divmod(rest, HOUR)
        minutes, seconds = divmod(rest, 60)
        return f"{day:.0f}d {hours:02.0f}:{minutes:02.0f}:{seconds:06.3f}  {self.who:10} {self.what}"


@dataclass
class Result:
    """What a run came to. `broken` is empty when every promise was kept."""

    seed: int
    broken: str = ""
    promise: int = -1
    about: UUID | None = None
    cells: Counter[Cell] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    story: list[Line] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class WatchedDeposits(DepositSaga):
    """The saga as it is; what it does is noted."""

    run: "Simulation"

    def load(self, ids: Sequence[UUID], answers: Sequence[Answer]) -> Any:
        self.run.turn_begins(answers)
        return super().load(ids, answers)

    def next_step(self, aggregate: Any, *, at: Any) -> Step[Any, Any, Any] | None:
        return self.run.step(aggregate, super().next_step(aggregate, at=at))

    def save(self, aggregates: Any, calls: Sequence[Call]) -> None:
        super().save(aggregates, calls)
        self.run.saving(calls)


@dataclass(frozen=True, kw_only=True)
class WatchedWithdrawals(WithdrawalSaga):
    """The saga as it is; what it does is noted."""

    run: "Simulation"

    def load(self, ids: Sequence[UUID], answers: Sequence[Answer]) -> Any:
        self.run.turn_begins(answers)
        return super().load(ids, answers)

    def next_step(self, aggregate: Any, *, at: Any) -> Step[Any, Any, Any] | None:
        return self.run.step(aggregate, super().next_step(aggregate, at=at))

    def save(self, aggregates: Any, calls: Sequence[Call]) -> None:
        super().save(aggregates, calls)
        self.run.saving(calls)


class Simulation:
    """The world of one seed. Broken variants are subclasses that build one part of it differently."""

    def __init__(self, seed: int, *, telling: bool = False) -> None:
        logging.disable(logging.CRITICAL)
        self.seed, self.telling = seed, telling
        self.story: list[Line] = []
        self.dice = Dice(seed)
        self.schedule = Schedule()
        self.store = Store()
        self.watch = Watch()
        self.commits = 0
        self.people = Customers.of(self.dice.random.choice((5, 7, 9)))
        self.quiet = self.is_posting = False
        self.lots = Random(f"who owes {seed}")  # its own, so that nothing else of the run hangs on it
        self._build_providers()
        self._build_penpay()
        self._workers()

    # --- assembly -----------------------------------------------------------------------------------------------------

    def _build_providers(self) -> None:
        self.books = Books()
        self.network = Network(self.schedule, self.dice, self.books, lambda: self.store.is_open)
        self.network.written, self.network.lost = self._written, self._lost
        self.mpesa_provider = mpesa_side.Provider(self.schedule, self.dice, self.books, self._call_back)
        self.mpesa_provider.confirm_path = callback_path(digest, PAYBILL, CallbackKind.CONFIRMATION)
        self.deriv_provider = deriv_side.Provider(self.schedule, self.dice, self.books)
        for customer in self.people.by_id.values():
            assert customer.deriv_login is not None
            self.deriv_provider.clients[customer.deriv_login.account] = 5_000_00
        self.mail: dict[tuple[str, int], str] = {}

    def _build_penpay(self) -> None:
        store, clock = self.store, self.schedule.clock
        self.audit, self.outbox = StoredAudit(store), StoredOutbox(store)
        self.transactions = Transactions(store, self.outbox, self.audit)
        self.mpesa_rows, self.transfer_rows = self._request_rows()
        initiators = InitiatorRow(store, self.audit)
        callback_rows = CallbackRows(store, self.mpesa_rows)
        self.mpesa = Mpesa(
            requests=self.mpesa_rows, callbacks=callback_rows, initiators=initiators, daraja=self._daraja(),
            unit_of_work=store.unit_of_work, clock=clock, new_id=store.new_id, digest=digest,
            shortcode=lambda: PAYBILL, b2c_shortcode=lambda: PAYOUTS,
        )  # fmt: skip
        self.callbacks = Callbacks(
            callbacks=callback_rows, initiators=initiators, outbox=self.outbox, audit=self.audit,
            unit_of_work=store.unit_of_work, new_id=store.new_id, digest=digest, shortcodes=lambda: [PAYBILL],
        )  # fmt: skip
        self.initiators, self.agents = initiators, AgentRows(store, self.audit)
        self.deriv = self._deriv()
        self.ledger = Ledger(store)
        self.reservations = Reservations(store, self.ledger)
        self.rates, limits, keys = Rates(self.dice), Limits(Wide(), OFTEN), Keys(store)
        self.quotes = Quotes(
            book=QuoteRows(store), rates=self.rates, limits=limits, users=self.people,
            unit_of_work=store.unit_of_work, ttl=timedelta(seconds=120), lock=timedelta(minutes=30),
        )  # fmt: skip
        shared: dict[str, Any] = {
            "transactions": self.transactions, "quotes": self.quotes, "limits": limits, "users": self.people,
            "mpesa": self.mpesa, "deriv": self.deriv, "ledger": self.ledger, "reservations": self.reservations,
            "keys": keys, "audit": self.audit, "unit_of_work": store.unit_of_work, "side_by_side": SideBySide(self),
            "clock": clock, "monotonic": self.schedule.monotonic, "crash_point": self._crash_point, "run": self,
        }  # fmt: skip
        self.deposits = WatchedDeposits(**shared)
        self.withdrawals = WatchedWithdrawals(
            **shared, rates=self.rates, policy=OwnVerifiedPhone(), sessions=AnySession(), codes=self.deriv,
            payout_account=lambda: f"mpesa:{PAYOUTS}",
        )  # fmt: skip
        self.promises = Promises(
            store, self.books, self.ledger.book, self.mpesa_rows.table, self.transfer_rows.table  # type: ignore[arg-type]
        )  # fmt: skip
        self.books.moved = self._moved
        self._open()
        store.before_commit, store.after_commit, store.answered = self._before_commit, self._committed, self._answered

    def _request_rows(self) -> tuple[MpesaRows, TransferRows]:
        return MpesaRows(self.store, digest), TransferRows(self.store)

    def _daraja(self) -> mpesa_side.Adapter:
        return mpesa_side.Adapter(self.mpesa_provider, self.network)

    def _deriv(self) -> Deriv:
        provider = self.deriv_provider
        v3 = deriv_side.Adapter(
            provider, self.network, AGENTS[DerivPlatform.WS_V3], provider.v3, provider.statement, self.mail
        )
        rest = deriv_side.Adapter(
            provider, self.network, AGENTS[DerivPlatform.REST], provider.rest, provider.status, self.mail
        )
        platforms: dict[DerivPlatform, Any] = {DerivPlatform.WS_V3: v3, DerivPlatform.REST: rest}
        return Deriv(self.transfer_rows, self.agents, platforms, self.schedule.clock, self.store.new_id)

    def _open(self) -> None:
        """What we have at the providers in the beginning."""
        at = self.schedule.clock()
        with self.store.unit_of_work():
            for account in [deriv_agent(agent) for agents in AGENTS.values() for agent in agents]:
                self._fund(Money(20_000_00, Currency.USD), account, at)
            self._fund(Money(900_000_00, Currency.KES), mpesa_utility(PAYOUTS), at)
            self._fund(Money(1_000_00, Currency.KES), mpesa_charges_paid(PAYOUTS), at)

    def _fund(self, amount: Money, account: Any, at: Any) -> None:
        self.books.open(account, amount)
        self.ledger.post_opening(account, amount, reference=str(account), at=at, source=AccountKind.OPENING_BALANCES)

    # --- hooks of the store and of the runner -------------------------------------------------------------------------

    def tell(self, who: str, what: str) -> None:
        if self.telling:
            self.story.append(Line(self.schedule.now, who, what))

    @property
    def process(self) -> Process:
        return self.schedule.current.process

    @property
    def who(self) -> str:
        return "callback" if self.is_posting else self.process.name

    def turn_begins(self, answers: Sequence[Answer]) -> None:
        self.watch.turn_begins(self.process.name)
        if self.telling:
            for answer in answers:
                self.tell(self.process.name, f"{name(answer.call.aggregate_id)} {short(answer.outcome)} is known")

    def step(self, aggregate: Any, step: Step[Any, Any, Any] | None) -> Step[Any, Any, Any] | None:
        self.watch.step(self.process.name, step)
        if step is not None and self.telling:
            self.tell(self.process.name, f"{name(aggregate.id)} {aggregate.status}: {step_name(step)}")
        return step

    def saving(self, calls: Sequence[Call]) -> None:
        self.watch.committing(self.process.name, calls)

    def _crash_point(self, where: str) -> None:
        process = self.process
        if where == "after commit":
            self.watch.committed(process.name)
        if self.dice.happens("crash", 8.0 if self.watch.is_rare(process.name) else 1.0):
            process.dead = True
            self.watch.crashed(process.name, where)
            self.tell(process.name, f"dies {where}")
            raise Crash(where)
        if where == "before commit":
            return
        if where != "before call" and self.dice.happens("freeze") and self.dice.chance(0.3):
            pause = self.dice.pause()
            self.tell(process.name, f"sleeps {pause:.0f} s {where}")
            self.schedule.sleep(pause)
        elif self.dice.chance(0.3):
            self.schedule.sleep(self.dice.between(0.0, 0.4))

    def _before_commit(self) -> None:
        if self.dice.happens("database"):
            self.tell(self.process.name, "the database refuses the commit")
            raise DatabaseGone("nothing was kept")

    def _answered(self) -> None:
        if self.dice.happens("commit_unknown"):
            self.tell(self.process.name, "the commit holds, its answer is lost")
            if not self.is_posting:
                self.schedule.sleep(self.dice.between(1, 60))
            raise DatabaseGone("nobody knows whether it was kept")

    def _committed(self, events: list[Event]) -> None:
        self.commits += 1
        if self.telling:
            for id in sorted(self.store.touched):
                self._tell_row(id)
        self.promises.committed()
        for event in events:
            self._publish(event)
        self._plan_sweep()

    def _tell_row(self, id: UUID) -> None:
        row = self.store.table("transactions").get(id)
        if row is None:
            return
        attempts = ", ".join(f"{r.leg} {r.attempt}.{r.fence} {r.status}" for r in self.promises.requests_of(row.id))
        due = f"{self.schedule.seconds(row.next_step_at) - self.schedule.now:.0f} s" if row.next_step_at else "never"
        why = f" {row.failure_code}" if row.failure_code else ""
        self.tell(self.who, f"{name(id)} is {row.status}{why} [{attempts}] due in {due}")

    def _moved(self, movement: Movement) -> None:
        account = f"{movement.account.kind} {movement.account.owner}"
        self.tell("PROVIDER", f"{name(movement.transaction)} {movement.leg}: {movement.delta:+} on {account}")
        self.promises.moved(movement)

    def _written(self, request: Any) -> None:
        if self.schedule.clock() >= request.send_before:
            raise Broken(3, f"{request.leg} was written after its time", request.transaction_id)
        self.tell(self.process.name, f"{name(request.transaction_id)} writes {request.leg} {request.attempt}")

    def _lost(self, request: Any) -> None:
        if request.leg is Leg.STK_PUSH and self.dice.chance(0.3):
            after = self.dice.between(40, 300)
            self.schedule.after(after, lambda: self.mpesa_provider.pays_by_hand(request))

    # --- events, workers, the sweeper ---------------------------------------------------------------------------------

    def _workers(self) -> None:
        self.idle = deque(f"worker-{number}" for number in range(1, WORKERS + 1))
        self.waiting: deque[tuple[str, Callable[[], None], Callable[[], None]]] = deque()
        self.sweep_at = float("inf")
        self.sweeps = 0
        self.batches: dict[TransactionType, list[Event]] = {}

    def job(self, label: str, work: Callable[[], None], failed: Callable[[], None] = lambda: None) -> None:
        """Runs in the next worker that is free; `failed` when it died or raised."""
        if not self.idle:
            self.waiting.append((label, work, failed))
            return
        process = Process(self.idle.popleft())
        self.schedule.start(process, lambda: self._work(process, label, work, failed))

    def _work(self, process: Process, label: str, work: Callable[[], None], failed: Callable[[], None]) -> None:
        try:
            self.attempt(work)
        except Crash:
            failed()
            self.schedule.after(self.dice.between(0.5, 15), lambda: self._free(process.name))
        except (DatabaseGone, StepsFailed):
            failed()
            self._free(process.name)
        else:
            self._free(process.name)

    def attempt(self, work: Callable[[], None]) -> None:
        """What a step raises is a finding, unless it was the database."""
        try:
            work()
        except StepsFailed as steps:
            for id, error in steps.errors.items():
                if not isinstance(error, DatabaseGone):
                    raise Broken(0, f"a step raised {type(error).__name__}: {error}", id) from error
            raise

    def _free(self, worker: str) -> None:
        self.watch.calls.pop(worker, None)
        self.idle.append(worker)
        if self.waiting:
            self.job(*self.waiting.popleft())

    def saga_of(self, id: UUID) -> Any:
        row = self.store.table("transactions")[id]
        return self.deposits if row.type is TransactionType.DEPOSIT else self.withdrawals

    def _publish(self, event: Event) -> None:
        """A wake may be lost; what lasts is published again until it was delivered."""
        if not isinstance(event, TransactionCreated | MpesaCallbackReceived):
            return
        lasts = isinstance(event, MpesaCallbackReceived)
        if self.dice.happens("event_lost"):
            if lasts:
                self.schedule.after(self.dice.between(60, 1800), lambda: self._deliver(event))
            return
        late = self.dice.happens("event_late")
        delay = self.dice.between(5, 6000) if late else self.dice.between(0.01, 0.5)
        self.schedule.after(delay, lambda: self._deliver(event))
        if self.dice.happens("event_again"):
            self.schedule.after(self.dice.between(0.01, 3000), lambda: self._deliver(event))

    def _deliver(self, event: Event) -> None:
        """Alone, or with those that come within the next moment."""
        type = self.saga_of(event.aggregate_id).type
        if type in self.batches:
            self.batches[type].append(event)
        elif self.dice.chance(0.4):
            self.batches[type] = [event]
            self.schedule.after(0.5, lambda: self._take(self.batches.pop(type)))
        else:
            self._take([event])

    def _take(self, events: list[Event]) -> None:
        saga = self.saga_of(events[0].aggregate_id)
        self.job("event", lambda: saga.advance(events), failed=lambda: self._again(events))

    def _again(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, MpesaCallbackReceived):
                self.schedule.after(self.dice.between(10, 600), partial(self._deliver, event))

    def _plan_sweep(self) -> None:
        due = self.transactions.next_due()
        if due is None or self.sweep_at <= max(self.schedule.now, self.schedule.seconds(due)):
            return
        wait = self.dice.between(5, 90) if self.dice.happens("event_late") else self.dice.between(0.05, 1.5)
        at = max(self.schedule.now, self.schedule.seconds(due)) + wait
        if at < self.sweep_at:
            self.sweep_at = at
            self.schedule.after(at - self.schedule.now, lambda: self._sweep(at))

    def _sweep(self, planned: float) -> None:
        if planned != self.sweep_at:
            return  # an earlier one took its place
        self.sweep_at = float("inf")
        if self.sweeps < 2:
            self.sweeps += 1
            self.job("sweep", self._sweep_once, failed=self._swept)
        else:
            self.schedule.after(1.0, self._plan_sweep)

    def _sweep_once(self) -> None:
        most = self.dice.random.choice((1, 2, 5, 100))
        for lane in self.transactions.lanes():
            found = self.transactions.claim_due(lane, at=self.schedule.clock(), lease=LEASE, most=most)
            for saga in (self.deposits, self.withdrawals):
                if ids := [id for id in found if found[id] is saga.type]:
                    self.attempt(lambda saga=saga, ids=ids: saga.drive(ids, from_queue=True))  # type: ignore[misc]
        self._swept()

    def _swept(self) -> None:
        self.sweeps -= 1
        self._plan_sweep()

    # --- callbacks ----------------------------------------------------------------------------------------------------

    def _call_back(self, kind: str, path: str, body: bytes, surely: bool) -> None:
        if not surely and self.dice.happens("callback_lost"):
            return
        late = self.dice.happens("callback_late")
        delay = self.dice.between(10, 90_000) if late else self.dice.between(0.02, 2)
        self.schedule.after(delay, lambda: self._post(kind, path, body, surely))
        if self.dice.happens("callback_again"):
            for _ in range(self.dice.random.choice((1, 1, 3))):
                self.schedule.after(delay + self.dice.between(0, 200), lambda: self._post(kind, path, body, surely))

    def _post(self, kind: str, path: str, body: bytes, surely: bool) -> None:
        token = path.rsplit("/", 1)[1]
        received = Received(
            kind=CallbackKind(kind), token=token, body=body, headers="", peer="", at=self.schedule.clock()
        )
        request = self.mpesa_rows.tokens.get(token_hash(token))
        self.is_posting = True  # in no worker: nothing of it sleeps
        try:
            self.callbacks.receive(received)
        except DatabaseGone:  # answered 500: M-Pesa may come again
            if surely or self.dice.chance(0.5):
                self.schedule.after(30, lambda: self._post(kind, path, body, surely))
            return
        finally:
            self.is_posting = False
        if request is not None:
            self.watch.called_back(request)
            self.tell("callback", f"{kind} for {name(self.mpesa_rows.table.rows[request].transaction_id)}: {body!r}")

    # --- customers and staff ------------------------------------------------------------------------------------------

    def _customers_come(self) -> None:
        for number in range(self.dice.random.randrange(20, 29)):
            at = self.dice.between(0, 2 * HOUR) if self.dice.chance(0.8) else self.dice.between(0, 12 * HOUR)
            customer = self.dice.random.choice(list(self.people.by_id.values()))
            is_deposit = self.dice.chance(0.5)
            for _ in range(2 if self.dice.chance(0.1) else 1):  # a second click is the same command
                again = partial(self._come, f"key-{number}", customer, is_deposit)
                self.schedule.after(at + self.dice.between(0, 3), again)

    def _come(self, key: str, customer: Customer, is_deposit: bool) -> None:
        visit = Visit(self, key, customer, is_deposit)
        self.schedule.start(Process(f"client {key}"), visit.happen)

    def _staff(self) -> None:
        """Looks every few hours: resumes, holds, releases, freezes."""
        rows = list(self.store.table("transactions").values())
        for row in rows:
            if row.status is S.NEEDS_ATTENTION and self.dice.chance(0.4):
                self._resume(row.id)
            elif row.hold is not None and (self.quiet or self.dice.chance(0.4)):
                self._act(partial(self.saga_of(row.id).release, row.id, why="looked at"))
            elif not self.quiet and row.status not in FINAL and row.hold is None and self.dice.chance(0.03):
                self._act(partial(self.saga_of(row.id).hold, row.id, owner="aml", why="looks odd"))
        for customer in self.people.by_id.values():
            customer.is_frozen = not self.quiet and self.dice.chance(0.03)
            if not self.quiet and self.dice.chance(0.02):
                customer.token = ""
        if self.initiators.was_stopped() and (self.quiet or self.dice.chance(0.5)):
            self._act(partial(self._in_unit, lambda: self.initiators.resume("rotated", at=self.schedule.clock())))
        self._act(partial(self._in_unit, self._debts))
        if self.quiet:
            for agent in self.agents.frozen_lately():
                self.store.table("deriv_agents").pop(agent)

    def _resume(self, id: TransactionId) -> None:
        def act() -> None:
            saga = self.saga_of(id)
            with self.store.unit_of_work():
                row = saga.one(id)
                if row.failure_code.startswith("refund_refused"):
                    try:
                        row.allow_refund_by_b2c(at=self.schedule.clock())
                    except DomainError:
                        return
                    saga.save([row], ())
            saga.resume(id, why="looked at")

        self._act(act)

    def _debts(self) -> None:
        """Customers come to owe, and what they owe comes in by the bank; in the end all of it."""
        for customer in self.people.by_id.values():
            for currency in Currency:
                owed, bank = customer_receivable(customer.id, currency), house(AccountKind.BANK, currency)
                balance = self.ledger.balance(owed)
                if balance.amount > 0 and (self.quiet or self.lots.random() < 0.5):
                    self._move(bank, owed, balance)
                elif not self.quiet and self.lots.random() < 0.03:
                    self._move(owed, bank, Money(5_00, currency))

    def _move(self, debit: Account, credit: Account, amount: Money) -> None:
        id, at = self.ledger.new_id(), self.schedule.clock()
        self.ledger.book.append(
            Journal(JournalId(id), "treasury", f"treasury:{id}", (Entry(debit, credit, amount),), at)
        )

    def _in_unit(self, what: Callable[[], Any]) -> None:
        with self.store.unit_of_work():
            what()

    def _act(self, what: Callable[[], Any]) -> None:
        def act() -> None:
            try:
                what()
            except (DomainError, DatabaseGone) as error:
                self.tell("staff", f"could not: {error}")

        self.schedule.start(Process("staff"), act)

    # --- a run --------------------------------------------------------------------------------------------------------

    def play(self) -> Result:
        """The whole of it; what broke stands in the result."""
        result = Result(self.seed)
        try:
            self._play()
        except Broken as broken:
            result.broken, result.promise, result.about = str(broken), broken.promise, broken.transaction
            self.tell("BROKEN", str(broken))
        finally:
            self.schedule.close()
        result.cells, result.faults, result.commits = self.watch.finish(), self.dice.happened, self.commits
        result.ends = Counter(str(row.status) for row in self.store.table("transactions").values())
        result.story = self.story
        return result

    def _play(self) -> None:
        self._customers_come()
        stormy = self.dice.between(14, 40)
        for hour in range(1, int(stormy), 2):
            self.schedule.after(hour * HOUR, self._staff)
        self.schedule.run(stormy * HOUR)
        self.dice.weather.clear()
        self.quiet = True
        self.tell("", "faults are off")
        for day in range(4):
            self.schedule.run(self.schedule.now + 30 * HOUR)
            if day < 2:
                self._staff()
        self._plan_sweep()
        self.schedule.run(self.schedule.now + 50 * HOUR)
        self.promises.ended()


@dataclass
class Visit:
    """One customer's command, from the quote to the answer."""

    run: Simulation
    key: str
    customer: Customer
    is_deposit: bool

    def happen(self) -> None:
        for _ in range(3):  # a client that got no answer asks again, with the same key
            try:
                self._ask()
                return
            except (DatabaseGone, Crash):
                self.run.schedule.sleep(2.0)
            except DomainError as refused:
                self.run.tell(self.key, f"is refused: {refused}")
                return

    def _ask(self) -> None:
        run, dice = self.run, self.run.dice
        known = run.store.table("visits").get(self.key)
        if known is None:
            type = TransactionType.DEPOSIT if self.is_deposit else TransactionType.WITHDRAWAL
            most = dice.random.choice((200, 5_000))
            amount = (
                Money(dice.random.randrange(100, most) * 100, Currency.KES)
                if self.is_deposit
                else Money(dice.random.randrange(200, 10_000), Currency.USD)
            )
            at = run.schedule.clock()
            quote = run.quotes.create(CreateQuote(QuoteId(run.store.new_id()), self.customer.id, type, amount, at))
            known = (quote.id, amount)
            run.store.table("visits")[self.key] = known
            run.schedule.sleep(dice.between(0.5, 5))
            if not self.is_deposit:
                run.withdrawals.request_code(RequestCode(self.customer.id, quote.id, run.schedule.clock(), SESSION))
                run.schedule.sleep(dice.between(1, 40))
        self._create(*known)

    def _create(self, quote: QuoteId, amount: Money) -> None:
        run, at, id = self.run, self.run.schedule.clock(), TransactionId(self.run.store.new_id())
        key = IdempotencyKey(str(self.customer.id), self.key)
        if self.is_deposit:
            run.deposits.create(CreateDeposit(id, self.customer.id, quote, key, at), lambda t: "{}")
            return
        assert self.customer.deriv_login is not None
        code = run.mail.get((self.customer.deriv_login.account, amount.amount), "000000")
        run.withdrawals.create(
            CreateWithdrawal(id, self.customer.id, quote, code, None, key, at, SESSION), lambda t: "{}"
        )


class AnySession:
    """Who may order payouts from where is identity's matter, and no part of this run."""

    def may_ask(self, session: UUID, amount: Money, ordered: Callable[[datetime], Money], *, at: datetime) -> None:
        pass

    def may_order(self, session: UUID, amount: Money, ordered: Callable[[datetime], Money], *, at: datetime) -> bool:
        return False


SESSION = UUID(int=0)


@dataclass(frozen=True)
class SideBySide:
    """Each call of a group in a strand of its own."""

    run: Simulation

    def map(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return self.run.schedule.side_by_side(call, items)


def short(outcome: Any) -> str:
    return repr(outcome)[:120]


def simulate(seed: int, kind: type[Simulation] = Simulation, *, telling: bool = False) -> Result:
    """One run."""
    return kind(seed, telling=telling).play()
