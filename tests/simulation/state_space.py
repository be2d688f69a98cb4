"""Every reachable state of one Transaction, by walking: whatever each call answers, whatever happens in between.

Times are made coarse, so that the states are few; what the provider really did is a part of the state. A state is
restored, one event happens in all the ways in which it can, and each state that comes of it is walked from in turn.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from payments.application.deposit import DepositSaga
from payments.application.saga import Timing
from payments.application.withdrawal import WithdrawalSaga
from payments.domain.deposit import Deposit
from payments.domain.transaction import FINAL, Transaction, TransactionStatus as S
from payments.domain.withdrawal import Withdrawal
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.identifiers import Phone, QuoteId, RequestId, TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Dead,
    Done,
    Found,
    Lookup,
    NotSent,
    Outcome,
    Refused,
    Unknown,
    Unreadable,
)
from shared_kernel.domain.requests import (
    SEND_WINDOW,
    Blame,
    DerivLogin,
    DerivPlatform,
    DerivTransfer,
    Leg,
    MpesaClaim,
    MpesaPayment,
    MpesaRequest,
    RequestStatus as R,
)
from tests.simulation.ledger import Ledger
from tests.simulation.requests import MpesaRows, TransferRows
from tests.simulation.rows import Reservations, Transactions
from tests.simulation.schedule import BEGIN, Crash
from tests.simulation.store import Store, StoredAudit, StoredOutbox

HOUR = 3600
COARSE = Timing(
    queries_s=(300,), query_every_s=9 * HOUR, pull_from_s=HOUR, pull_gap_s=9 * HOUR, deriv_asks_s=(2 * HOUR,),
    status_asks_s=(7 * HOUR,), retries_s=(600, 13 * HOUR), repeat_after_s=60,
)  # fmt: skip
ID = TransactionId(UUID(int=7))


class TwoEffects(AssertionError):
    """Money left twice, or without having come."""


@dataclass(frozen=True)
class Truth:
    """What the providers have really done, and may still do."""

    paid: bool = False  # the customer's M-Pesa payment
    prompt: str = ""  # `open`, `paid`, `dead`
    debited: bool = False
    out: tuple[str, ...] = ()  # the legs by which money left
    late: tuple[RequestId, ...] = ()  # Deriv may still book these
    made: tuple[RequestId, ...] = ()  # what took effect, by attempt
    declined: tuple[tuple[RequestId, Blame], ...] = ()
    waiting: tuple[RequestId, ...] = ()  # M-Pesa has these and has not decided
    lies: int = 0  # callbacks that said something of their own accord

    def moves(self, leg: Leg, id: RequestId) -> "Truth":
        came = self.paid or self.debited
        if self.out or not came:
            raise TwoEffects(f"{leg} after {self.out or 'nothing'}")
        return replace(self, out=(*self.out, str(leg)), made=(*self.made, id))


@dataclass
class Choices:
    """Answers that are diced elsewhere: here each is taken in turn."""

    taken: tuple[int, ...] = ()
    at: int = 0
    widths: list[int] = field(default_factory=list)
    quiet: bool = False

    def one_of(self, many: Sequence[Any]) -> Any:
        """The first is what a healthy provider does."""
        if self.quiet:
            return many[0]
        number = self.taken[self.at] if self.at < len(self.taken) else 0
        self.widths.append(len(many))
        self.at += 1
        return many[number]

    def others(self) -> Iterator[tuple[int, ...]]:
        """What was not taken, after what was: one thing goes wrong in an event, the next one in the next."""
        if any(self.taken):
            return
        path = [*self.taken, *[0] * (len(self.widths) - len(self.taken))]
        for place in range(len(self.taken), len(self.widths)):
            for other in range(1, self.widths[place]):
                yield (*path[:place], other)


@dataclass
class World:
    """One Transaction and its providers, which can be put back to any state."""

    saga_type: type[Any]
    platform: DerivPlatform
    store: Store = field(default_factory=Store)
    truth: Truth = field(default_factory=Truth)
    now: float = 0.0
    choices: Choices = field(default_factory=Choices)

    def __post_init__(self) -> None:
        audit, outbox = StoredAudit(self.store), StoredOutbox(self.store)
        self.mpesa_rows = MpesaRows(self.store, lambda label, value: f"{label}{value}".encode().hex()[:64].ljust(64))
        self.transfer_rows = TransferRows(self.store)
        self.ledger = Ledger(self.store)
        unused: Any = None
        shared: dict[str, Any] = {
            "transactions": Transactions(self.store, outbox, audit), "quotes": unused, "limits": unused, "users": self,
            "mpesa": self, "deriv": DerivOf(self), "ledger": self.ledger, "keys": unused, "audit": audit,
            "reservations": Reservations(self.store, self), "unit_of_work": self.store.unit_of_work,  # type: ignore[arg-type]
            "side_by_side": self, "clock": self.clock, "timing": COARSE, "crash_point": self.crash_point,
        }  # fmt: skip
        if self.saga_type is WithdrawalSaga:
            shared |= {
                "rates": self,
                "policy": unused,
                "sessions": unused,
                "codes": unused,
                "payout_account": lambda: "mpesa:600000",
            }
        self.saga = self.saga_type(**shared)

    # --- what the saga asks besides the providers ---------------------------------------------------------------------

    def clock(self) -> Any:
        return BEGIN + timedelta(seconds=self.now)

    def map(self, call: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        return [call(item) for item in items]

    def crash_point(self, where: str) -> None:
        # before a commit nothing was kept, and before the call is after the commit
        if where in {"after commit", "after call"} and self.choices.one_of((False, True)):
            raise Crash(where)

    def deriv_tokens(self, logins: Any) -> Any:
        return dict.fromkeys(logins, "token")

    def frozen(self, users: Any) -> set[Any]:
        return set()

    def lock(self, type: Any, *, at: Any) -> LockedRate:
        return a_rate(at)

    def deriv_balance(self, agent: str) -> Money:
        return Money(10**9, Currency.USD)

    def mpesa_balance(self, shortcode: str) -> Money:
        return Money(10**9, Currency.KES)

    # --- M-Pesa: rows -------------------------------------------------------------------------------------------------

    def requests_of(self, transactions: Any, outcomes: Any = ()) -> Any:
        from mpesa_integration.domain.request import conclude

        found = self.mpesa_rows.of(transactions)
        rows = {row.id: row for attempts in found.values() for row in attempts}
        for request, outcome in outcomes:
            conclude(rows[request.id], outcome, fence=request.fence, at=self.clock())
            self.mpesa_rows.conclude([rows[request.id]], [""])
        return found

    def record(self, requests: Sequence[MpesaRequest]) -> None:
        self.mpesa_rows.add([request for request in requests if request.fence == 1])
        self.mpesa_rows.send_again([request for request in requests if request.fence > 1])

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        self.mpesa_rows.save(requests)

    def busy_phones(self, phones: Any) -> set[Any]:
        return set()

    def new_request(
        self, transaction: Any, leg: Leg, attempt: int, phone: Phone, amount: Money, *, at: Any, about: str = "",
        shortcode: str = "",
    ) -> MpesaRequest:  # fmt: skip
        return MpesaRequest(
            id=RequestId(self.store.new_id()), transaction_id=transaction, leg=leg, attempt=attempt,
            reference=f"{leg}{attempt}", amount=amount, send_before=at + SEND_WINDOW, created_at=at, phone=phone,
            shortcode=shortcode or "1", about=about,
        )  # fmt: skip

    def claim(self, id: RequestId, claim: MpesaClaim) -> None:
        claims = self.store.table("mpesa_callbacks.request_id")
        claims[id] = (*claims.get(id, ()), claim)

    # --- M-Pesa: calls ------------------------------------------------------------------------------------------------

    def send(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        assert not self.store.is_open
        match request.leg:
            case Leg.STK_PUSH:
                return self._push(request)
            case Leg.STATUS_QUERY:
                return self._status(request)
            case Leg.REVERSAL:
                return self._reverse(request)
        return self._pay(request)

    def _push(self, request: MpesaRequest) -> Outcome:
        what = self.choices.one_of(("taken", "lost", "silent", "no", "wait"))
        if what in {"taken", "silent"}:
            self.truth = replace(self.truth, prompt="open")
        answers: dict[str, Outcome] = {
            "taken": Accepted({"CheckoutRequestID": "ws"}), "no": Refused("400"), "wait": NotSent("busy"),
        }  # fmt: skip
        return answers.get(what, Unknown("timeout"))

    def query(self, request: MpesaRequest) -> Outcome:
        assert not self.store.is_open
        if self.truth.prompt == "open":  # nobody answers for ever: it is paid, or it ends
            self.prompt_ends(self.choices.one_of((True, False)))
        if self.choices.one_of((False, True)):
            return Unknown("503")
        return Done("") if self.truth.prompt == "paid" else Refused("1037")

    def prompt_ends(self, paid: bool) -> None:
        self.truth = replace(self.truth, prompt="paid" if paid else "dead", paid=paid or self.truth.paid)

    def payments(self, request: MpesaRequest) -> Any:
        assert not self.store.is_open
        if self.truth.prompt == "open":
            self.prompt_ends(self.choices.one_of((True, False)))
        if self.choices.one_of((False, True)):
            return Unreadable("503")
        payment = MpesaPayment("UKM0000001", request.reference, request.amount, BEGIN)
        return [payment] if self.truth.prompt == "paid" else []

    def _pay(self, request: MpesaRequest) -> Outcome:
        if request.id in self.truth.made or request.id in dict(self.truth.declined):
            return Unknown("duplicate")
        what = self.choices.one_of(("paid", "silent", "declined", "ours", "lost", "no", "wait"))
        if what in {"paid", "silent"}:
            self.truth = self.truth.moves(request.leg, request.id)
        if what in {"declined", "ours"}:
            blame = Blame.RECIPIENT if what == "declined" else Blame.FLOAT
            self.truth = replace(self.truth, declined=(*self.truth.declined, (request.id, blame)))
        answers: dict[str, Outcome] = {"no": Refused("400"), "wait": NotSent("busy"), "lost": Unknown("timeout"),
                                       "silent": Unknown("timeout")}  # fmt: skip
        return answers.get(what, Accepted({"ConversationID": "AG"}))

    def _status(self, query: MpesaRequest) -> Outcome:
        if not self.choices.one_of((True, False)):
            return Unknown("timeout")
        about = next(row for row in self.mpesa_rows.table.rows.values() if row.reference == query.about)
        if about.id in self.truth.made:
            self.claim(
                query.id, MpesaClaim("0", self.clock(), about.amount, f"UKB{about.id.int:07d}", fate="Completed")
            )
        elif about.id in dict(self.truth.declined):
            self.claim(about.id, MpesaClaim("2040", self.clock(), blame=dict(self.truth.declined)[about.id]))
            self.claim(query.id, MpesaClaim("0", self.clock(), about.amount, fate="Declined"))
        else:
            self.claim(query.id, MpesaClaim("2032", self.clock()))
        return Accepted({"ConversationID": "AG"})

    def _reverse(self, request: MpesaRequest) -> Outcome:
        what = self.choices.one_of(("made", "silent", "declined", "lost", "no", "wait"))
        if what in {"made", "silent"}:
            again = request.id in self.truth.made
            if not again:
                self.truth = self.truth.moves(request.leg, request.id)
            if what == "made":
                self.claim(request.id, MpesaClaim("R000001" if again else "0", self.clock(), request.amount))
        if what == "declined":
            self.claim(request.id, MpesaClaim("R000001" if request.id in self.truth.made else "1", self.clock()))
        answers: dict[str, Outcome] = {"no": Refused("400"), "wait": NotSent("busy"), "lost": Unknown("timeout"),
                                       "silent": Unknown("timeout")}  # fmt: skip
        return answers.get(what, Accepted({"ConversationID": "AG"}))

    # --- the beginning, and time --------------------------------------------------------------------------------------

    def begin(self) -> None:
        """As the command leaves it."""
        at, login = self.clock(), DerivLogin(self.platform, "jane")
        about: dict[str, Any] = {
            "user_id": UserId(UUID(int=8)), "quote_id": QuoteId(UUID(int=9)), "phone": Phone("254712345678"),
            "login": login, "agent": "1", "at": at,
        }  # fmt: skip
        row: Transaction
        if self.saga_type is DepositSaga:
            amount, rate = Money(1300_00, Currency.KES), a_rate(at, sells=False)
            row = Deposit.create(ID, amount=amount, rate=rate, login_checked_at=None, **about)
        else:
            amount, rate = Money(10_00, Currency.USD), a_rate(at)
            row = Withdrawal.create(ID, amount=amount, rate=rate, min_payout=Money(1, Currency.KES), **about)
        with self.store.unit_of_work():
            self.saga.transactions.save_many([row])
            if isinstance(row, Withdrawal):
                debit = self.saga.deriv.new_transfer(ID, Leg.DERIV_DEBIT, 1, login, "1", row.amount, at=at)
                debit.status, debit.verification_code = R.NOT_SENT, "123456"
                self.transfer_rows.record([debit])
            account, reserved = self.saga.float_of(row)
            self.saga.reservations.reserve(account, ID, reserved, at=at)

    @property
    def row(self) -> Transaction:
        row: Transaction = self.store.table("transactions")[ID]
        return row

    def attempts(self) -> list[Any]:
        return [*self.mpesa_rows.table.of(ID), *self.transfer_rows.table.of(ID)]

    def drive(self) -> None:
        """A worker looks at it; whoever dies is followed by one that does not."""
        try:
            self.saga.drive([ID])
        except Crash:
            pass
        except StepsFailed as failed:
            raise failed.errors[ID] from None

    def due(self) -> bool:
        """Time passes until something is due; Deriv books late what it still will, or never."""
        if self.row.next_step_at is None:
            return False
        self.now = max(self.now + 1, (self.row.next_step_at - BEGIN).total_seconds())
        for id in self.truth.late:
            transfer = self.transfer_rows.table.rows[id]
            if self.clock() >= transfer.send_before + timedelta(seconds=600):
                self.late(id, self.choices.one_of((False, True)))
        self.drive()
        return True

    def late(self, id: RequestId, booked: bool) -> None:
        self.truth = replace(self.truth, late=tuple(other for other in self.truth.late if other != id))
        if booked:
            self.book(self.transfer_rows.table.rows[id])

    def book(self, transfer: DerivTransfer) -> None:
        if transfer.leg is Leg.DERIV_DEBIT:
            if self.truth.debited:
                raise TwoEffects("debited twice")
            self.truth = replace(self.truth, debited=True, made=(*self.truth.made, transfer.id))
        else:
            self.truth = self.truth.moves(transfer.leg, transfer.id)


@dataclass(frozen=True)
class DerivOf:
    """Deriv's port and the provider behind it."""

    world: World

    def transfers_of(self, transactions: Any) -> Any:
        return self.world.transfer_rows.transfers_of(transactions)

    def record(self, transfers: Any) -> None:
        self.world.transfer_rows.record(transfers)

    def record_outcomes(self, outcomes: Any) -> None:
        self.world.transfer_rows.record_outcomes(outcomes, at=self.world.clock())

    def save(self, transfers: Any) -> None:
        self.world.transfer_rows.save(transfers)

    def freeze(self, agent: str, why: str) -> None:
        raise TwoEffects(why)

    def agent_names(self) -> list[str]:
        return ["1"]

    def new_transfer(
        self, transaction: Any, leg: Leg, attempt: int, login: DerivLogin, agent: str, amount: Money, *, at: Any
    ) -> DerivTransfer:
        of = f"{leg}{attempt}" if login.platform is DerivPlatform.REST else str(leg)
        return DerivTransfer(
            id=RequestId(self.world.store.new_id()), transaction_id=transaction, leg=leg, attempt=attempt,
            reference=of, amount=amount, send_before=at + timedelta(seconds=60), created_at=at, login=login,
            agent=agent,
        )  # fmt: skip

    def check_login(self, login: DerivLogin, agent: str, amount: Money) -> Outcome:
        assert not self.world.store.is_open
        answers: tuple[Outcome, ...] = (Done("J"), Refused("disabled"), Unknown("timeout"))
        outcome: Outcome = self.world.choices.one_of(answers)
        return outcome

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        world = self.world
        assert not world.store.is_open
        is_known = transfer.id in (*world.truth.made, *world.truth.late)
        if is_known and transfer.login.platform is DerivPlatform.REST:
            return Unknown("RequestIDUsed")
        what = world.choices.one_of(("booked", "silent", "late", "lost", "no", "wait"))
        if what in {"booked", "silent"}:
            world.book(transfer)
        if what == "late":
            world.truth = replace(world.truth, late=(*world.truth.late, transfer.id))
        done: Outcome = Accepted() if transfer.leg is Leg.DERIV_DEBIT else Done(f"9{transfer.id.int}")
        answers: dict[str, Outcome] = {"booked": done, "no": Refused("disabled"), "wait": NotSent("float_low")}
        return answers.get(what, Unknown("timeout"))

    def find(self, transfer: DerivTransfer) -> Lookup:
        world = self.world
        assert not world.store.is_open
        if world.choices.one_of((False, True)):
            return Unreadable("timeout")
        is_rest = transfer.login.platform is DerivPlatform.REST
        same = [t for t in world.attempts() if t.leg is transfer.leg and (not is_rest or t.id == transfer.id)]
        if found := tuple(f"9{t.id.int}" for t in same if t.id in world.truth.made):
            return Found(found, (transfer.amount,) * len(found))
        if not is_rest:
            return Absent(proven=True)
        if transfer.leg is Leg.DERIV_DEBIT and transfer.id not in world.truth.late:
            return Dead("failed")
        return Absent(proven=False, repeatable=transfer.leg is not Leg.DERIV_DEBIT)


def a_rate(at: Any, *, sells: bool = True) -> LockedRate:
    rate = Decimal(127) if sells else Decimal("131.9605")
    return LockedRate(Currency.USD, Currency.KES, Decimal("129.5"), rate, "t", at, at + timedelta(minutes=30))


# --- walking ----------------------------------------------------------------------------------------------------------

Key = tuple[Any, ...]


@dataclass
class State:
    """A snapshot: rows never change in place, so that tables are copied and rows are not."""

    tables: dict[str, dict[Any, Any]]
    truth: Truth
    now: float
    last_id: int
    path: tuple[str, ...] = ()


@dataclass
class Walk:
    """All states that can be reached from the beginning. A lie may meet the truth, before it and after it; of several
    lies on one path there are many times as many states.
    """

    saga_type: type[Any]
    platform: DerivPlatform
    most_lies: int = 1
    seen: dict[Key, State] = field(default_factory=dict)
    statuses: set[str] = field(default_factory=set)
    edges: int = 0

    def __post_init__(self) -> None:
        self.world = World(self.saga_type, self.platform)
        self.world.begin()
        self.waiting: deque[State] = deque()

    def all(self) -> None:
        self._meet(self._snapshot(("created",)))
        while self.waiting:
            state = self.waiting.popleft()
            for name, event in self._events(state):
                self._every_way(state, name, event)
            self._must_end(state)

    # --- one state ----------------------------------------------------------------------------------------------------

    def _events(self, state: State) -> list[tuple[str, Callable[[], None]]]:
        self._restore(state)
        world = self.world
        events: list[tuple[str, Callable[[], None]]] = [("a wake", world.drive), ("time", self._time)]
        events += [(f"late {id.int}", lambda id=id: world.late(id, True)) for id in world.truth.late]  # type: ignore[misc]
        if world.row.status is S.NEEDS_ATTENTION:
            events.append(("a person", self._person))
        if any(transfer.verification_code for transfer in world.transfer_rows.table.of(ID)):
            events.append(("the code's age", self._wipe))
        for request in world.mpesa_rows.table.of(ID):
            is_newest = request.attempt == max(r.attempt for r in world.mpesa_rows.table.of(ID) if r.leg is request.leg)
            is_settled = request.leg is Leg.STK_PUSH and world.row.is_paid  # nothing that is said of it is read
            if request.leg is Leg.STATUS_QUERY or is_settled or not is_newest:
                continue
            if world.truth.lies < self.most_lies:
                events.append((f"a lie on {request.leg}", lambda r=request: self._lie(r, "0")))  # type: ignore[misc]
                events.append((f"a denial on {request.leg}", lambda r=request: self._lie(r, "1032")))  # type: ignore[misc]
        return events

    def _time(self) -> None:
        """Until something changes: waiting for the same, with the same answers, is one state."""
        before, first = key_of(self.world), self.world.choices
        self.world.due()
        for _ in range(60):
            if key_of(self.world) != before:
                break
            self.world.choices = Choices((*first.taken, *[0] * (len(first.widths) - len(first.taken))))
            if not self.world.due():
                break
        self.world.choices = first

    def _person(self) -> None:
        with self.world.store.unit_of_work():
            row = self.world.saga.one(ID)
            refused = row.failure_code.startswith("refund_refused")
            if refused and all(r.status.is_dead for r in row.at_mpesa(Leg.REVERSAL)):
                row.allow_refund_by_b2c(at=self.world.clock())
                self.world.saga.save([row], ())
        self.world.saga.resume(ID, why="looked at")

    def _wipe(self) -> None:
        """A code that waited for long is wiped, as by beat."""
        with self.world.store.unit_of_work():
            self.world.transfer_rows.wipe_codes(self.world.clock() + timedelta(seconds=1))

    def _lie(self, request: MpesaRequest, code: str) -> None:
        self.world.now += 1
        self.world.truth = replace(self.world.truth, lies=self.world.truth.lies + 1)
        amount, receipt = request.amount if code == "0" else None, f"UKF{request.id.int:07d}"
        self.world.claim(request.id, MpesaClaim(code, self.world.clock(), amount, receipt if code == "0" else ""))
        self.world.drive()

    def _every_way(self, state: State, name: str, event: Callable[[], None]) -> None:
        paths: list[tuple[int, ...]] = [()]
        while paths:
            self._restore(state)
            self.world.choices = Choices(paths.pop())
            try:
                event()
            except Exception as error:
                story = " > ".join((*state.path, f"{name} {self.world.choices.taken}"))
                raise AssertionError(f"{self.saga_type.__name__} {self.platform}: {error!r} after {story}") from error
            paths += self.world.choices.others()
            self.edges += 1  # and what one turn passed through counts too
            self.statuses |= {r.after for r in self.world.store.audit if r.action == "transaction.status"}
            self._meet(self._snapshot((*state.path, f"{name} {self.world.choices.taken}: {self.world.row.status}")))

    def _must_end(self, state: State) -> None:
        """With healthy providers, and nobody lying, it ends, or is before a person, by its timers alone."""
        self._restore(state)
        self.world.choices = Choices(quiet=True)
        for _ in range(200):
            row = self.world.row
            if row.next_step_at is None:
                break
            self.world.due()
        row = self.world.row
        if row.status not in FINAL and row.status is not S.NEEDS_ATTENTION:
            raise AssertionError(f"{row.status} has no way to an end: {' > '.join(state.path)}")

    # --- states -------------------------------------------------------------------------------------------------------

    def _meet(self, state: State) -> None:
        key = key_of(self.world)
        if key not in self.seen:
            self.seen[key] = state
            self.statuses.add(str(self.world.row.status))
            self.waiting.append(state)

    def _snapshot(self, path: tuple[str, ...]) -> State:
        store = self.world.store
        tables = {name: dict(rows) for name, rows in store.tables.items()}
        return State(tables, self.world.truth, self.world.now, store.last_id, path)

    def _restore(self, state: State) -> None:
        store = self.world.store
        for name, rows in store.tables.items():
            rows.clear()
            rows.update(state.tables.get(name, {}))
        del store.events[:], store.audit[:]
        self.world.truth, self.world.now, store.last_id = state.truth, state.now, state.last_id


def key_of(world: World) -> Key:
    """What tells states apart: status and choice, the attempts, what is claimed, what is true; ages in steps."""
    row, age = world.row, world.now
    by_leg: dict[Leg, list[Any]] = {}
    for request in world.attempts():
        if request.leg is not Leg.STATUS_QUERY and not (request.leg is Leg.STK_PUSH and row.is_paid):
            by_leg.setdefault(request.leg, []).append(attempt_of(world, request))
    # of older attempts, which are dead or done, only what kinds there are; how many matters up to Deriv's three
    attempts = tuple((leg, min(len(a), 3), a[-1], frozenset(a[:-1])) for leg, a in sorted(by_leg.items()))
    true = (world.truth.prompt, world.truth.debited, world.truth.out, world.truth.lies)
    steps = tuple(age > limit for limit in (1800, 24 * HOUR))
    return (row.status, row.attention_from, row.outflow, row.next_step_at is None, attempts, true, steps)


def attempt_of(world: World, request: Any) -> Key:
    """What stands in its row, and what is true of it; of what is settled only what may still stir it."""
    truth = world.truth
    true = (request.id in truth.late, request.id in truth.made, dict(truth.declined).get(request.id))
    claims = world.mpesa_rows.claims.get(request.id, ())
    fresh = frozenset(c.result_code for c in claims if request.asked_at is None or c.received_at > request.asked_at)
    said = frozenset(c.result_code for c in claims)
    if request.status.is_dead or request.status is R.DONE:
        return (request.status, request.code == "confirmed", fresh, "0" in said, *true)
    has_code = bool(getattr(request, "verification_code", ""))
    return (request.status, request.was_unknown, min(request.absences, 2), fresh, said, has_code, *true)
