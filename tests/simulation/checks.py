"""The promises, held against the providers' own books: after each commit, after each movement, and at the end."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from payments.application.mpesa_payment import CONFIRMED
from payments.domain.transaction import FINAL, Transaction, TransactionStatus as S
from shared_kernel.domain.events import TransactionCompleted, TransactionCreated
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.requests import Leg, ProviderRequest, RequestStatus as R
from tests.simulation.books import LATE, Books, Movement
from tests.simulation.ledger import Book, trial_balance
from tests.simulation.requests import Table
from tests.simulation.store import Store
from wallet.domain.ledger import Account, AccountKind, PostedEntry

INFLOWS = frozenset({Leg.STK_PUSH, Leg.DERIV_DEBIT})
PAYOUTS = frozenset({Leg.DERIV_CREDIT, Leg.B2C_PAYOUT})
ON_CLAIM = frozenset({Leg.B2C_PAYOUT, Leg.B2C_REFUND})  # what may be booked before it is proven


class Broken(BaseException):
    """A promise was broken. `promise` is its number in the list of ten; 0 is a step that raised.

    No `Exception`: what handles a step's errors must not take it for one.
    """

    def __init__(self, promise: int, what: str, transaction: UUID | None = None) -> None:
        super().__init__(f"promise {promise}: {what}" + (f" ({name(transaction)})" if transaction else ""))
        self.promise = promise
        self.transaction = transaction


def name(id: UUID) -> str:
    """A Transaction in a story."""
    return f"T{id.int}"


@dataclass
class Promises:
    """Looks at rows, ledger and books; changes nothing."""

    store: Store
    books: Books
    book: Book
    mpesa: Table
    deriv: Table
    is_over: bool = False
    statuses: dict[UUID, str] = field(default_factory=dict)  # by the audit log
    completions: dict[UUID, int] = field(default_factory=dict)  # by the audit log, less those that events told
    created: set[UUID] = field(default_factory=set)  # by the events
    seen_audit: int = 0
    seen_events: int = 0
    entries: int = 0
    owing: set[str] = field(default_factory=set)  # customers, before this commit
    sent: set[tuple[UUID, int]] = field(default_factory=set)  # payouts, each time that one went out

    # --- a movement at a provider -------------------------------------------------------------------------------------

    def moved(self, movement: Movement) -> None:
        """Promise 1, the moment that it is broken; then whether our rows allow for it."""
        id = movement.transaction
        real = [m for m in self.books.of(id) if not m.taken_back and not m.is_fee]
        out = [m for m in real if m.leg not in INFLOWS]
        if len(out) > 1:
            raise Broken(1, f"money left twice: {', '.join(m.leg for m in out)}", id)
        if out and len(out) == len(real):
            raise Broken(1, f"{out[0].leg} of money that never came", id)
        if sum(m.leg is Leg.DERIV_DEBIT for m in real) > 1:
            raise Broken(1, "the customer was debited twice", id)
        self._in_step(id)

    # --- a commit -----------------------------------------------------------------------------------------------------

    def committed(self) -> None:
        """Everything that the commit touched."""
        self._read_logs()
        for id in self.store.touched:
            row = self.store.table("transactions").get(id)
            if row is None:
                raise Broken(6, "something is stored of a Transaction that is not", id)
            self._state_and_event(row)
            self._in_step(row.id)
            self._attempts(row)
        if len(self.book.by_entry) != self.entries:
            self.entries = len(self.book.by_entry)
            if any(trial_balance(self.book).values()):
                raise Broken(4, f"the trial balance is {trial_balance(self.book)}")
            self._never_below_zero()
            kept = self.book.credits.items()
            self.owing = {a.owner for a, credits in kept if a.kind is AccountKind.CUSTOMER_RECEIVABLE and credits < 0}

    def _read_logs(self) -> None:
        for record in self.store.audit[self.seen_audit :]:
            if record.action != "transaction.status":
                continue
            id = UUID(record.target_id)
            if record.before != self.statuses.get(id, ""):
                raise Broken(10, f"the audit log goes on from {record.before}", id)
            self.statuses[id] = record.after
            if record.after == S.COMPLETED and record.before != S.NEEDS_ATTENTION:
                self.completions[id] = self.completions.get(id, 0) + 1
        for event in self.store.events[self.seen_events :]:
            if isinstance(event, TransactionCompleted):
                self.completions[event.transaction_id] = self.completions.get(event.transaction_id, 0) - 1
            elif isinstance(event, TransactionCreated):
                self.created.add(event.transaction_id)
        self.seen_audit, self.seen_events = len(self.store.audit), len(self.store.events)

    def _state_and_event(self, row: Transaction) -> None:
        if self.statuses.get(row.id) != row.status:
            raise Broken(10, f"it is {row.status}, the audit log says {self.statuses.get(row.id)}", row.id)
        if self.completions.get(row.id, 0) > 0 or row.id not in self.created:
            raise Broken(6, "the state is stored without its event", row.id)
        if row.status is not S.NEEDS_ATTENTION and row.status not in FINAL and row.next_step_at is None:
            raise Broken(9, f"it is {row.status}, and nothing will ever look at it", row.id)

    def _attempts(self, row: Transaction) -> None:
        for request in self.requests_of(row.id):
            if request.leg is Leg.B2C_PAYOUT and request.status is R.SENDING:
                if (request.id, request.fence) not in self.sent and str(row.user_id) in self.owing:
                    raise Broken(2, "a payout is sent to a customer who owes", row.id)
                self.sent.add((request.id, request.fence))
            is_under_way = self.books.under_way.get(request.id, 0) > 0
            by_word = request.leg is Leg.STK_PUSH and request.status is R.REFUSED
            if request.status.is_dead and is_under_way and not by_word:
                raise Broken(3, f"{request.leg} {request.attempt} is {request.status}, but may still be made", row.id)
            if request.leg in PAYOUTS and request.status.may_take_effect and row.status is not S.NEEDS_ATTENTION:
                kept = self.store.table("reservations").get(row.id)
                if kept is None or not kept[2]:
                    raise Broken(2, f"{request.leg} is {request.status}, and its float is not reserved", row.id)

    def _never_below_zero(self) -> None:
        for account, credits in self.book.credits.items():
            if credits < 0 and account.kind is AccountKind.CUSTOMER_IN_TRANSIT:
                raise Broken(4, f"{account} is {credits}")

    # --- ledger and books ---------------------------------------------------------------------------------------------

    def requests_of(self, id: TransactionId) -> list[Any]:
        return [*self.mpesa.of(id), *self.deriv.of(id)]

    def _in_step(self, id: TransactionId) -> None:
        """What moved is posted, or an attempt or a person still allows for it; what is posted has moved."""
        row = self.store.table("transactions").get(id)
        if row is None:
            raise Broken(3, "a provider moved money of a Transaction that is not stored", id)
        for movement in self.books.of(id):
            if not movement.taken_back and self.posting_of(movement) is None:
                self._explain(row, movement)
        for posted in self.postings_of(id):
            self._must_have_moved(row, posted)

    def posting_of(self, movement: Movement) -> PostedEntry | None:
        """The entry of the ledger that stands for it."""
        for key in keys_of(movement):
            posted: PostedEntry | None = self.book.keys.get(key)
            if posted is None or posted.id in self.book.reversals:
                continue
            entry = posted.entry
            account, other = (entry.debit, entry.credit) if movement.delta > 0 else (entry.credit, entry.debit)
            if account == movement.account and entry.amount.amount == abs(movement.delta) and other != account:
                return posted
        return None

    def _explain(self, row: Transaction, movement: Movement) -> None:
        if row.status is S.NEEDS_ATTENTION:
            return
        request = self._request(row.id, movement)
        what = f"{movement.leg}{' fee' if movement.is_fee else ''} of {movement.delta} moved"
        if self.is_over or request is None:
            raise Broken(2, f"{what}, is not posted, and nobody will know: it is {row.status}", row.id)
        if movement.is_fee:
            if request.status is R.DONE and request.code == CONFIRMED:
                raise Broken(2, f"{what} and is not posted", row.id)
            return
        if movement.leg is Leg.STK_PUSH:
            is_late = request.status is R.REFUSED and movement.about == LATE
            if is_late or (request.status.may_take_effect and not row.is_paid):
                return
        elif request.status.may_take_effect or _is_booked_on_claim(request):
            return
        raise Broken(3, f"{what}, but its attempt is {request.status}", row.id)

    def _request(self, id: TransactionId, movement: Movement) -> ProviderRequest | None:
        return next((r for r in self.requests_of(id) if r.id == movement.request), None)

    def postings_of(self, id: TransactionId) -> Iterator[PostedEntry]:
        """The float legs that stand, by the ledger."""
        for written in self.book.journals.get(id, ()):
            for posted in written.posted:
                if posted.entry.provider_key and posted.id not in self.book.reversals:
                    yield posted

    def _must_have_moved(self, row: Transaction, posted: PostedEntry) -> None:
        key = posted.entry.provider_key
        for movement in self.books.of(row.id):
            if key in keys_of(movement) and not movement.taken_back and self.posting_of(movement) is posted:
                return
        claimed = self._booked_on_claim(row.id, key or "")
        if not claimed or (self.is_over and row.status is not S.NEEDS_ATTENTION):
            raise Broken(2, f"{posted.reference} of {posted.entry.amount} is posted, and no provider's book", row.id)

    def _booked_on_claim(self, id: TransactionId, key: str) -> bool:
        for request in self.mpesa.of(id):
            if request.leg in ON_CLAIM and key in _again(f"mpesa:{request.shortcode}:{request.id}"):
                return _is_booked_on_claim(request)
        return False

    # --- the end ------------------------------------------------------------------------------------------------------

    def ended(self) -> None:
        """Promise 9 for each, then promise 2 to the cent over all accounts."""
        self.is_over = True
        open_to_a_person = set()
        for row in self.store.table("transactions").values():
            if row.status is S.NEEDS_ATTENTION:
                open_to_a_person.add(row.id)
                if not row.failure_code:
                    raise Broken(9, "a person is shown it without a reason", row.id)
            elif row.status not in FINAL:
                raise Broken(9, f"it never ended: {row.status}", row.id)
            elif self.store.table("reservations")[row.id][2]:
                raise Broken(9, f"it is {row.status} and keeps its reservation", row.id)
            self._in_step(row.id)
        self._to_the_cent(open_to_a_person)

    def _to_the_cent(self, open_to_a_person: set[UUID]) -> None:
        differs: dict[Account, int] = {}
        for id in sorted(open_to_a_person):
            transaction = TransactionId(id)
            for movement in self.books.of(transaction):
                if not movement.taken_back and self.posting_of(movement) is None:
                    differs[movement.account] = differs.get(movement.account, 0) - movement.delta
            matched = [self.posting_of(m) for m in self.books.of(transaction)]
            for posted in self.postings_of(transaction):
                if posted not in matched:
                    entry = posted.entry
                    differs[entry.debit] = differs.get(entry.debit, 0) + entry.amount.amount
                    differs[entry.credit] = differs.get(entry.credit, 0) - entry.amount.amount
        for account, there in sorted(self.books.balances.items(), key=lambda item: str(item[0])):
            here = -self.book.credits.get(account, 0)
            if here - there != differs.get(account, 0):
                raise Broken(2, f"{account}: the ledger says {here}, the provider {there}")
        self._nothing_hangs({self.store.table("transactions")[id].user_id for id in open_to_a_person})

    def _nothing_hangs(self, with_a_person: set[UUID]) -> None:
        for account, credits in sorted(self.book.credits.items(), key=lambda item: str(item[0])):
            if account.kind is AccountKind.CUSTOMER_IN_TRANSIT and credits and UUID(account.owner) not in with_a_person:
                raise Broken(2, f"{credits} hang in {account}")


def _is_booked_on_claim(request: ProviderRequest) -> bool:
    """M-Pesa is still to be asked: until then the amount, too, is only claimed."""
    return request.leg in ON_CLAIM and request.status is R.DONE and request.code != CONFIRMED


def keys_of(movement: Movement) -> tuple[str, ...]:
    """By which keys the ledger may have it."""
    account = movement.account
    if account.kind is AccountKind.DERIV_AGENT:
        return (f"deriv:{account.owner}:{movement.id}",)
    own = f"mpesa:{account.owner}:{movement.request}"
    return (f"{own}:fee",) if movement.is_fee else (*_again(own), f"mpesa:{account.owner}:{movement.id}")


def _again(key: str) -> tuple[str, ...]:
    """An attempt's key, and those that it has once a booking of it was denied: see `movement_of`."""
    return (key, *(f"{key}:{number}" for number in range(1, 5)))
