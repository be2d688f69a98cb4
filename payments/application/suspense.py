"""What people make of suspense: one proposes, another one approves.

Nothing is settled by a person's word alone: money that was returned, or came back, is named by the provider's own id of
the movement, which a book that we read must show, at exactly the opposite amount. It is either in suspense itself,
because a run found it first, and then the two settle each other; or it is a break, and is posted. Money that was a
Transaction's after all goes to its saga by the way that late proof takes.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, assert_never
from uuid import UUID

from payments.application.breaks import FLOATS, Breaks, provider_key
from payments.application.deposit import TakePayment
from payments.application.mpesa_payment import CONFIRMED
from payments.application.reconciliation import told
from payments.application.saga import TransactionSaga
from payments.application.withdrawal import take_debit
from payments.domain.deposit import Deposit
from payments.domain.orphan import Provider
from payments.domain.ports import LedgerGateway
from payments.domain.reconciliation import SKEW, Break, BreakKind, BreakStatus, FloatAccountKind, NothingToPost
from payments.domain.suspense import (
    CAME_IN,
    DIFFERENCES,
    LOSS,
    ORPHANS,
    PROVEN,
    ItemNotFound,
    NotProven,
    ReasonMissing,
    SagaRefuses,
    SamePerson,
    Settlement,
    SettlementClosed,
    SettlementKind,
    SettlementOpen,
    SettlementStatus,
    SuspenseBook,
    SuspenseItem,
    WrongWay,
    keys_of,
    opposite,
)
from payments.domain.transaction import TransactionNotFound, TransactionStatus as S, TransactionType
from payments.domain.withdrawal import Withdrawal
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork
from shared_kernel.domain.requests import MpesaPayment, RequestStatus

MOST = 100  # of one page
TAKES_LATE_PROOF = {S.FAILED, S.EXPIRED, S.NEEDS_ATTENTION}
BREAK = "break:"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """What one person wants to become of the item `name`: `transaction` belongs to a match, `movement`, the provider's
    own id, to what proves that it went back or came back; `lost`, the name of what was written off, to a loss that this
    recovers.
    """

    name: str
    kind: SettlementKind
    by: str
    why: str
    transaction: TransactionId | None = None
    movement: str = ""
    lost: str = ""


@dataclass(frozen=True, kw_only=True)
class Suspense:
    """Lists, proposes, approves and rejects."""

    book: SuspenseBook
    breaks: Breaks
    sagas: Mapping[TransactionType, TransactionSaga[Any]]
    accounts: Callable[[Provider], Sequence[str]]
    ledger: LedgerGateway
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource

    def page(self, *, after: int = 0, most: int = MOST) -> list[SuspenseItem]:
        """What lies there, the oldest first, from after the item with that `seq`."""
        with self.unit_of_work():
            return self.book.page(after=after, most=min(most, MOST))

    def item(self, name: str) -> SuspenseItem:
        """Raises `ItemNotFound`."""
        with self.unit_of_work():
            return self._item(name)

    def settlement(self, id: UUID) -> Settlement:
        """Raises `SettlementNotFound`."""
        with self.unit_of_work():
            return self.book.get(id)

    def propose(self, command: Settle) -> UUID:
        """Changes nothing of the money yet. Raises what `approve` would raise for it today, `SettlementOpen` and
        `ReasonMissing`.
        """
        if not command.by or not command.why.strip():
            raise ReasonMissing("say who you are and why, for whoever approves it and for the audit")
        with self.unit_of_work():
            item, at = self._item(command.name), self.clock()
            if item.settlement is not None:
                raise SettlementOpen(f"settlement {item.settlement} waits for a decision about it")
            settlement = Settlement(
                id=self.new_id(),
                item=item.name,
                kind=command.kind,
                amount=item.amount,
                by=command.by[:64],
                why=command.why.strip()[:255],
                at=at,
                transaction=command.transaction,
                movement=command.movement.strip(),
                proof=f"{LOSS}{command.lost.strip()}" if command.kind is SettlementKind.LOSS_RECOVERED else "",
            )
            settlement = self._checked(settlement, item)
            self.book.add(settlement)
            self._tell("proposed", settlement, at)
        return settlement.id

    def approve(self, id: UUID, *, by: str) -> bool:
        """Another person agrees: it is posted, and a matched Transaction goes on. False: that Transaction failed at its
        next step, which changes nothing of what was decided, and it goes on by itself later.

        Raises `SettlementNotFound`, `SettlementClosed`, `SamePerson`, `ItemNotFound`, `WrongWay`, `NotProven`,
        `NothingToPost`, `SagaRefuses`, `TransactionNotFound`.
        """
        with self.unit_of_work():
            settlement, at = self._open(id), self.clock()
            if not by or by == settlement.by:
                raise SamePerson("somebody else has to approve what you propose")
            item = self._item(settlement.item)
            if item.transaction:  # what its own steps do with it waits, or was before
                self._locked(item.transaction)
                item = self._item(settlement.item)
            woken = self._carry_out(self._checked(settlement, item), item, at)
            decided = replace(settlement, status=SettlementStatus.APPROVED, decided_by=by[:64], decided_at=at)
            settled = self.book.decide(decided)
            self._tell("approved", decided, at)
            why = f"settlement {decided.id}"
            self.audit.append(AuditRecord("orphan.settled", "orphan", str(id), at, why=why) for id in settled)
        return woken is None or self._goes_on(woken)

    def _goes_on(self, woken: Deposit | Withdrawal) -> bool:
        try:
            self.sagas[woken.type].drive([woken.id])
        except Exception:  # it is stored, and due: the sweeper takes it up, or a person is shown it
            log.exception("%s was matched and could not go on", woken.id)
            return False
        return True

    def reject(self, id: UUID, *, by: str, why: str) -> None:
        """A proposal is turned down, or taken back: it lies there as before.

        Raises `SettlementNotFound`, `SettlementClosed`, `ReasonMissing`.
        """
        if not by or not why.strip():
            raise ReasonMissing("say who you are and why, for the audit")
        with self.unit_of_work():
            settlement, at = self._open(id), self.clock()
            decided = replace(settlement, status=SettlementStatus.REJECTED, decided_by=by[:64], decided_at=at)
            self.book.decide(decided)
            self._tell("rejected", replace(decided, why=why.strip()[:255]), at)

    # --- what is asked before anything is stored ----------------------------------------------------------------------

    def _item(self, name: str) -> SuspenseItem:
        found = self.book.items([name])
        if not found:
            raise ItemNotFound(f"nothing lies in suspense by the name {name}, or it was settled")
        return found[0]

    def _open(self, id: UUID) -> Settlement:
        settlement = self.book.get(id)
        if settlement.status is not SettlementStatus.PROPOSED:
            raise SettlementClosed(f"it was {settlement.status} by {settlement.decided_by}")
        return settlement

    def _checked(self, settlement: Settlement, item: SuspenseItem) -> Settlement:
        """With its proof, and nothing that its kind has no use for."""
        came_in = item.amount.amount > 0
        if (settlement.kind in CAME_IN) is not came_in:
            raise WrongWay(f"{item.name} {'came in' if came_in else 'left'}: it can't be {settlement.kind}")
        self._must_be_final(item)
        if settlement.kind in PROVEN:
            if not settlement.movement:
                raise NotProven("give the provider's own id of the movement that proves it")
            return replace(
                settlement, proof=self._proof_of(item, settlement.movement, settlement.proof), transaction=None
            )
        if settlement.kind is SettlementKind.MATCHED:
            self._taker(item, settlement.transaction)
            return replace(settlement, movement="")
        if settlement.kind is SettlementKind.LOSS_RECOVERED:
            self._must_be_lost(item, settlement.lost)
        return replace(settlement, movement="", transaction=None)

    def _must_be_lost(self, item: SuspenseItem, name: str) -> None:
        """What nobody lost is no gain of ours: money whose payer is unknown stays in suspense. Raises `NotProven`."""
        lost = self.book.lost(name) if name else None
        if lost is None:
            raise NotProven("give the name of what was written off: nothing was by this one")
        if item.purpose not in ORPHANS:
            raise NotProven("this is a customer's money: it can only be returned, or matched")
        if (lost.amount, lost.moved_at - SKEW > item.moved_at) != (item.amount, False):
            raise NotProven(f"{name} was {lost.amount} that left at {lost.moved_at:%Y-%m-%d %H:%M}: this is not it")

    def _must_be_final(self, item: SuspenseItem) -> None:
        """A difference beside a payment that was booked on a claim goes with a wrong claim. Raises `SagaRefuses`."""
        if item.purpose not in DIFFERENCES or item.transaction is None:
            return
        paid = [r for r in self._locked(item.transaction).outgoing if r.status is RequestStatus.DONE]
        if any(request.code != CONFIRMED for request in paid):
            raise SagaRefuses("M-Pesa has not confirmed that payment yet: settle the difference once it has")

    def _proof_of(self, item: SuspenseItem, movement: str, proposed: str) -> str:
        """The name of the opposite item, or the break, that holds it; just the one that was `proposed`, if one was. One
        id may stand in the books of two accounts of ours: the one that fits counts.

        Raises `NotProven`, `NothingToPost`.
        """
        refused: NotProven | NothingToPost | None = None
        for name, fits in self._shown_as(item, movement):
            if proposed not in {"", name}:
                continue
            try:
                fits()
            except (NotProven, NothingToPost) as error:
                refused = refused or error
            else:
                return name
        if refused is not None:
            raise refused
        if proposed:
            raise NotProven("what was proposed as its proof is not to be had any more: propose it anew")
        raise NotProven(
            f"no book that was read shows {movement}: wait for the hourly reading, or reconcile that day with the "
            "provider's statement file, and name it as the book does"
        )

    def _shown_as(self, item: SuspenseItem, movement: str) -> Iterator[tuple[str, Callable[[], None]]]:
        """What holds that movement, in suspense or as a break, each with what raises if it proves nothing here."""
        keys = keys_of(item.provider, self.accounts(item.provider), movement)
        for found in self.book.items(keys):
            yield found.name, partial(_must_fit, item, movement, found.amount, found.moved_at)
        for shown in self.breaks.breaks.shown(item.provider, movement):
            if shown.kind in {BreakKind.MISSING_HERE, BreakKind.REVERTED} and shown.sub_account in FLOATS:
                yield f"{BREAK}{shown.id}", partial(self._must_prove, item, movement, shown)

    def _must_prove(self, item: SuspenseItem, movement: str, shown: Break) -> None:
        """Raises `NotProven`, `NothingToPost`."""
        _must_fit(item, movement, shown.theirs, shown.at)
        if shown.kind is BreakKind.MISSING_HERE:
            self.breaks.must_be_nobodys(shown)
        elif shown.known_as != f"{item.movement}:reverted" or item.account not in {"", shown.account}:
            raise NotProven(f"{movement} takes back another payment than this one")

    # --- what it does -------------------------------------------------------------------------------------------------

    def _carry_out(self, settlement: Settlement, item: SuspenseItem, at: datetime) -> Any:
        """The Transaction that goes on by it, if one does."""
        match settlement.kind:
            case SettlementKind.MATCHED:
                return self._match(item, self._taker(item, settlement.transaction), at)
            case SettlementKind.RETURNED | SettlementKind.RECOVERED:
                if settlement.proof.startswith(BREAK):
                    self._post(settlement, item, UUID(settlement.proof.removeprefix(BREAK)), at)
                else:
                    names = item.name, settlement.proof
                    came_in, left = names if item.amount.amount > 0 else names[::-1]
                    amount = Money(abs(item.amount.amount), item.amount.currency)
                    self.ledger.post_suspense_paired(came_in, left, amount, at=at)
            case SettlementKind.WRITTEN_OFF:
                self.ledger.post_suspense_written_off(
                    opposite(item.amount), orphan=item.name, at=at, transaction=_own(item)
                )
            case SettlementKind.LOSS_RECOVERED:
                self.ledger.post_suspense_loss_recovered(item.amount, orphan=item.name, at=at)
            case _:
                assert_never(settlement.kind)
        return None

    def _post(self, settlement: Settlement, item: SuspenseItem, id: UUID, at: datetime) -> None:
        """The movement that proves it was not in the ledger: its break closes with it."""
        found = self.breaks.breaks.get(id)
        if found.status is not BreakStatus.OPEN:
            raise NotProven(f"the break of {settlement.movement} is {found.status} by now: propose it anew")
        amount = Money(abs(item.amount.amount), item.amount.currency)
        post = self.ledger.post_suspense_returned
        if settlement.kind is SettlementKind.RECOVERED:
            post = self.ledger.post_suspense_recovered
        key = provider_key(found)  # by the movement's own id, as the hourly run knows it
        post(
            FLOATS[FloatAccountKind(found.sub_account)], found.account, amount, orphan=item.name, provider_key=key,
            at=found.at, transaction=_own(item),
        )  # fmt: skip
        closed = replace(found, status=BreakStatus.MATCHED, closed_at=at, provider_key=key)
        self.breaks.breaks.save([closed])
        self.audit.append(
            [replace(told("reconciliation.break_matched", closed, at), why=f"settlement {settlement.id}")]
        )

    def _locked(self, id: TransactionId) -> Any:
        """With its requests. Raises `TransactionNotFound`."""
        for saga in self.sagas.values():
            if found := saga.whole([id]):
                return found[0]
        raise TransactionNotFound(f"there is no Transaction {id}")

    def _taker(self, item: SuspenseItem, id: TransactionId | None) -> Deposit | Withdrawal:
        """The Transaction, if its saga can take this money as late proof. Raises `SagaRefuses`."""
        if id is None:
            raise SagaRefuses("name the Transaction that it belongs to")
        if not item.movement or ":" in item.movement:
            raise SagaRefuses("this is no whole payment: it can only be returned")
        found: Deposit | Withdrawal = self._locked(id)
        if found.is_paid:
            raise SagaRefuses(f"{id} was paid by another payment: this one has to be returned")
        if found.status not in TAKES_LATE_PROOF:
            raise SagaRefuses(f"{id} is {found.status}: see how its own attempt ends first")
        if item.purpose not in ORPHANS and item.transaction and self._locked(item.transaction).user_id != found.user_id:
            raise SagaRefuses(f"{item.transaction} was paid too much, and {id} is another customer's: return it")
        if refused := _no_deposits(item, found) if isinstance(found, Deposit) else _no_withdrawals(item, found):
            raise SagaRefuses(refused)
        return found

    def _match(self, item: SuspenseItem, found: Deposit | Withdrawal, at: datetime) -> Deposit | Withdrawal:
        saga = self.sagas[found.type]
        if isinstance(found, Deposit):
            assert found.payment is not None
            payment = MpesaPayment(item.movement, found.payment.reference, item.amount, item.moved_at)
            TakePayment(self.ledger, self.audit, item.name).take(found, found.payment, [payment], at=at)
        else:
            assert found.debit is not None
            take_debit(self.ledger, found, found.debit, [item.movement], at=at, suspense=item.name)
        saga.save([found], ())
        return found

    def _tell(self, what: str, settlement: Settlement, at: datetime) -> None:
        details = {"item": settlement.item, "kind": str(settlement.kind), "amount": str(settlement.amount)}
        details |= {"proposed_by": settlement.by, "decided_by": settlement.decided_by}
        details |= {"movement": settlement.movement, "lost": settlement.lost}
        if settlement.transaction:
            details["transaction"] = str(settlement.transaction)
        record = AuditRecord(
            f"suspense.settlement_{what}", "suspense_settlement", str(settlement.id), at,
            after=str(settlement.status), why=settlement.why,
            details={name: value for name, value in details.items() if value},
        )  # fmt: skip
        self.audit.append([record])


def _must_fit(item: SuspenseItem, movement: str, moved: Money | None, moved_at: datetime) -> None:
    """Raises `NotProven` unless it is the opposite of the whole item, and not from before it."""
    if moved != opposite(item.amount):
        raise NotProven(f"{movement} did not move {opposite(item.amount)}: only the whole amount settles it")
    if moved_at < item.moved_at - SKEW:
        raise NotProven(f"{movement} was before what it is to settle")


def _no_deposits(item: SuspenseItem, deposit: Deposit) -> str:
    """Why it can't be a deposit's payment; empty if it can."""
    prompt = deposit.payment
    if item.provider is not Provider.MPESA:
        return "a deposit is paid by M-Pesa"
    if prompt is None:
        return f"{deposit.id} never asked for a payment: this one has to be returned"
    if item.account not in {"", prompt.shortcode}:
        return f"{deposit.id} is paid to {prompt.shortcode}, and this came to {item.account}"
    if prompt.status is RequestStatus.DONE:
        return f"the prompt of {deposit.id} was paid by another payment"
    return ""


def _no_withdrawals(item: SuspenseItem, withdrawal: Withdrawal) -> str:
    """Why it can't be a withdrawal's debit; empty if it can."""
    debit = withdrawal.debit
    if item.provider is not Provider.DERIV:
        return "a withdrawal is debited at Deriv"
    if debit is None or debit.status in {RequestStatus.NOT_SENT, RequestStatus.DONE}:
        return f"the debit of {withdrawal.id} was not sent, or is another one"
    if debit.agent != item.account or withdrawal.amount != item.amount:
        return f"{withdrawal.id} takes {withdrawal.amount} by agent {debit.agent}, and nothing else"
    return ""


def _own(item: SuspenseItem) -> TransactionId | None:
    """Whose journal it was; an orphan that only carries a reference is nobody's."""
    return None if item.purpose in ORPHANS else item.transaction
