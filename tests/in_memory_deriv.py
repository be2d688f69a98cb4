"""Deriv in memory: the sagas' port over rows of the world, with the agent's own book behind it, on either platform."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
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
from shared_kernel.domain.requests import (
    REVERTED,
    SEND_WINDOW,
    DerivLogin,
    DerivPlatform,
    DerivTransfer,
    Leg,
    RequestStatus,
)
from tests.in_memory_world import World

MARKS = {Leg.DERIV_CREDIT: "PP", Leg.DERIV_DEBIT: "W", Leg.DERIV_CREDIT_BACK: "B"}
MAY_BE_SENT = {RequestStatus.SENDING, RequestStatus.NOT_SENT}


def outcome_met(row: DerivTransfer, outcome: Outcome, *, fence: int, at: datetime) -> None:
    """What an outcome makes of its row: the integration does the same in SQL."""
    if row.status is RequestStatus.DONE and not isinstance(outcome, Done):
        return
    if row.status is RequestStatus.CLOSED and not isinstance(outcome, Done):
        return
    if isinstance(outcome, Refused | NotSent) and fence != row.fence:
        return
    match outcome:
        case Done(reference):
            row.status, row.code, row.provider_transaction_id = RequestStatus.DONE, "", reference
        case Accepted():
            row.status, row.code = RequestStatus.ACCEPTED, ""
        case Unknown(code):
            row.status, row.code, row.was_unknown = RequestStatus.UNKNOWN, code, True
        case Refused(code):
            row.status, row.code = RequestStatus.UNKNOWN if row.was_unknown else RequestStatus.REFUSED, code
        case NotSent(code):
            row.status, row.code = RequestStatus.UNKNOWN if row.was_unknown else RequestStatus.NOT_SENT, code
    if not isinstance(outcome, NotSent):
        row.verification_code = ""
    row.outcome_at = at


@dataclass
class InMemoryDeriv:
    """The Deriv port and the agent's own book: `answers` are given to the next transfers, then they are booked."""

    world: World
    answers: list[Outcome | Callable[[DerivTransfer], Outcome]] = field(default_factory=list)
    login_answers: list[Outcome] = field(default_factory=list)
    book: list[tuple[str, Money, str]] = field(default_factory=list)  # what left: reference, amount, Deriv's id
    debits: list[tuple[str, Money, str]] = field(default_factory=list)  # what came in, by the same
    sent: list[DerivTransfer] = field(default_factory=list)
    asked: list[DerivTransfer] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    chain_is_whole: bool = True
    is_down: bool = False  # its book can't be read

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        assert self.world.open
        found: dict[TransactionId, list[DerivTransfer]] = {}
        for transfer in self.world.transfers.values():
            if transfer.transaction_id in transactions:
                found.setdefault(transfer.transaction_id, []).append(copy.deepcopy(transfer))
        return found

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        assert self.world.open
        for transfer in transfers:
            known = self.world.transfers.get(transfer.id)
            row = self.world.transfers[transfer.id] = copy.deepcopy(transfer)
            row.token = ""  # is stored nowhere here
            if known:
                row.was_unknown = known.was_unknown or known.status.may_take_effect

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]]) -> None:
        assert self.world.open
        for transfer, outcome in outcomes:
            row = self.world.transfers[transfer.id] = copy.copy(self.world.transfers[transfer.id])
            outcome_met(row, outcome, fence=transfer.fence, at=self.world.now)

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        assert self.world.open
        for transfer in transfers:
            if self.world.transfers[transfer.id].status is RequestStatus.DONE and transfer.code != REVERTED:
                continue  # `decided` never overwrites what is done
            row = self.world.transfers[transfer.id] = copy.deepcopy(transfer)
            row.token = ""
            row.was_unknown = row.was_unknown or row.status is RequestStatus.UNKNOWN
            if row.status not in MAY_BE_SENT:
                row.verification_code = ""

    def freeze(self, agent: str, why: str) -> None:
        self.world.frozen[agent] = why

    def agent_names(self) -> list[str]:
        return ["CR900001"]

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
        reference = f"{MARKS[leg]}{transaction.int:09d}"
        return DerivTransfer(
            id=RequestId(self.world.new_id()),
            transaction_id=transaction,
            leg=leg,
            attempt=attempt,
            reference=f"{reference}-{attempt}" if login.platform is DerivPlatform.REST else reference,
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
        if self.answers:
            answer = self.answers.pop(0)
        else:
            answer = self.debits_login if transfer.leg is Leg.DERIV_DEBIT else self.books
        return answer(transfer) if callable(answer) else answer

    def find(self, transfer: DerivTransfer) -> Lookup:
        assert not self.world.open, "Deriv was called inside a unit of work"
        self.asked.append(copy.deepcopy(transfer))
        if self.lookups:
            return self.lookups.pop(0)
        if self.is_down:
            return Unreadable("down")
        found = self._entries_of(transfer)
        if found:
            return Found(found)
        if transfer.login.platform is DerivPlatform.REST:
            return Absent(proven=False, repeatable=transfer.leg is not Leg.DERIV_DEBIT)
        return Absent(proven=self.chain_is_whole)

    def _entries_of(self, transfer: DerivTransfer) -> tuple[str, ...]:
        book = self.debits if transfer.leg is Leg.DERIV_DEBIT else self.book
        return tuple(
            id for reference, amount, id in book if (reference, amount) == (transfer.reference, transfer.amount)
        )

    # --- what the provider does ---------------------------------------------------------------------------------

    def books(self, transfer: DerivTransfer) -> Outcome:
        """It takes effect and says so; on REST, the very same request once more has no second effect."""
        if transfer.login.platform is DerivPlatform.REST and (known := self._entries_of(transfer)):
            return Done(known[0])
        self.book.append((transfer.reference, transfer.amount, str(9_000 + len(self.book))))
        return Done(self.book[-1][2])

    def books_in_silence(self, transfer: DerivTransfer) -> Outcome:
        """It takes effect, and the answer is lost."""
        self.books(transfer)
        return Unknown("timeout")

    def debits_login(self, transfer: DerivTransfer) -> Outcome:
        """The login is debited; only the agent's book proves it."""
        assert transfer.token, "a debit needs the customer's token"
        assert transfer.verification_code, "a debit needs the one-time code"
        self.debits.append((transfer.reference, transfer.amount, str(7_000 + len(self.debits))))
        return Accepted()

    def debits_in_silence(self, transfer: DerivTransfer) -> Outcome:
        """The login is debited, and the answer is lost."""
        self.debits_login(transfer)
        return Unknown("timeout")
