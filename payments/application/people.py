"""What people may do about a Transaction in NEEDS_ATTENTION: verdicts, another way, another destination; by four eyes.

Nobody can order a send: a verdict only says what became of an attempt, and whatever goes out afterwards goes by the
saga's own steps, over attempts that are all proven or judged dead. A later proof counts more than any verdict.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, assert_never
from uuid import UUID

from payments.application.deposit import B2cRefund, Reversal, TakePayment
from payments.application.mpesa_payment import CONFIRMED, VERDICT, PaymentLeg
from payments.application.saga import TransactionSaga
from payments.application.withdrawal import Payout, stands
from payments.domain.deposit import Deposit
from payments.domain.eligibility import PayoutPolicy, own_login
from payments.domain.ports import UserDirectory
from payments.domain.proposal import (
    VERDICTS,
    AlreadyApproved,
    AlreadyRejected,
    ChangedMeanwhile,
    Decision,
    DestinationNotVerified,
    EvidenceMissing,
    EvidenceTaken,
    EvidenceUnreadable,
    NotBeforeAPerson,
    Offer,
    Proposal,
    Proposals,
    ReasonMissing,
    SamePerson,
    VerdictNotNeeded,
    VerdictTooEarly,
)
from payments.domain.transaction import (
    OtherWayOpen,
    Outflow,
    Transaction,
    TransactionNotFound,
    TransactionStatus as S,
    TransactionType,
)
from payments.domain.withdrawal import Withdrawal
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, UnitOfWork
from shared_kernel.domain.requests import (
    DerivTransfer,
    Leg,
    MpesaClaim,
    MpesaPayment,
    MpesaRequest,
    ProviderRequest,
    RequestStatus,
)

GIVEN_BACK = "It could not be carried out. Your money goes back by the way it came."
MPESA_RECEIPT = re.compile(r"[A-Z0-9]{10}")
DERIV_ENTRY = re.compile(r"[A-Za-z0-9_-]{1,32}")
LEGS: dict[Leg, Callable[..., PaymentLeg]] = {
    Leg.B2C_PAYOUT: Payout,
    Leg.B2C_REFUND: B2cRefund,
    Leg.REVERSAL: Reversal,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """`reference` is the provider's own id that shows the effect; `amount` what moved, if not what was asked for.
    `seen` is the Transaction's version that whoever proposes was shown.
    """

    transaction_id: TransactionId
    type: TransactionType
    decision: Decision
    by: str
    why: str
    request_id: RequestId | None = None
    reference: str = field(default="", repr=False)
    amount: Money | None = None
    seen: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What stands before people: the Transaction with all its attempts, and what they may propose about it now."""

    transaction: Deposit | Withdrawal
    offers: tuple[Offer, ...]


@dataclass(frozen=True, kw_only=True)
class People:
    """Shows, proposes, approves and rejects."""

    sagas: Mapping[TransactionType, TransactionSaga[Any]]
    proposals: Proposals
    users: UserDirectory
    policy: PayoutPolicy
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource

    def case(self, type: TransactionType, id: TransactionId) -> Case:
        """Without offers unless it stands before people, or is held. Raises `TransactionNotFound`."""
        with self.unit_of_work():
            transaction, at = self._found(type, id), self.clock()
            return Case(transaction=transaction, offers=tuple(self._offers(transaction, at=at)))

    def propose(self, command: Propose) -> UUID:
        """Changes nothing yet. Raises what `approve` would raise for it today."""
        if not command.why.strip():
            raise ReasonMissing("say why, for whoever approves it and for the audit")
        with self.unit_of_work():
            transaction = self._before_people(command.type, command.transaction_id, command.decision, command.seen)
            at = self.clock()
            proposal = Proposal(
                id=self.new_id(),
                transaction_id=command.transaction_id,
                type=command.type,
                decision=command.decision,
                by=command.by[:64],
                why=command.why.strip()[:255],
                at=at,
                request_id=command.request_id,
                reference=command.reference.strip(),
                amount=command.amount,
            )
            proposal = self._with_destination(proposal, transaction, at=at)
            self._try(transaction, proposal, at=at)
            self.proposals.add(proposal)
            self._tell("transaction.decision_proposed", proposal, proposal.by, at)
        return proposal.id

    def approve(self, id: UUID, *, by: str, seen: int | None = None) -> S:
        """Another person agrees: it is carried out, and what is due then is driven. Answers the status. `seen` is the
        Transaction's version that they were shown.

        Raises `ProposalNotFound`, `SamePerson`, `AlreadyApproved`, `AlreadyRejected`, `ChangedMeanwhile`,
        `NotBeforeAPerson`, `VerdictNotNeeded`, `VerdictTooEarly`, `EvidenceMissing`, `EvidenceUnreadable`,
        `EvidenceTaken`, `DestinationNotVerified`, `OtherWayOpen`, `NotHeld`; `StepsFailed` if what is due then failed:
        it is approved all the same.
        """
        with self.unit_of_work():
            proposal, at = self._open(id), self.clock()
            if not by or by == proposal.by:
                raise SamePerson("somebody else has to approve what you propose")
            transaction = self._before_people(proposal.type, proposal.transaction_id, proposal.decision, seen)
            self._must_stand(transaction, proposal)
            self._carry_out(transaction, proposal, at=at)
            self.proposals.decide(replace(proposal, approved_by=by[:64], approved_at=at))
            self._tell("transaction.decision_approved", proposal, by, at)
            self.sagas[proposal.type].save([transaction], ())
        self.sagas[proposal.type].drive([proposal.transaction_id])
        return S(transaction.status)

    def reject(self, id: UUID, *, by: str, why: str) -> None:
        """A proposal is turned down, or taken back by who made it: the Transaction stands as before.

        Raises `ProposalNotFound`, `AlreadyApproved`, `AlreadyRejected`, `ReasonMissing`.
        """
        if not by or not why.strip():
            raise ReasonMissing("say who you are and why, for whoever proposed it and for the audit")
        with self.unit_of_work():
            proposal, at = self._open(id), self.clock()
            self.proposals.decide(replace(proposal, rejected_by=by[:64], rejected_at=at))
            self._tell("transaction.decision_rejected", replace(proposal, why=why.strip()[:255]), by, at)

    def _open(self, id: UUID) -> Proposal:
        proposal = self.proposals.get(id)
        if proposal.approved_by:
            raise AlreadyApproved(f"{proposal.approved_by} approved it before")
        if proposal.rejected_by:
            raise AlreadyRejected(f"{proposal.rejected_by} turned it down before: propose it anew")
        return proposal

    def _found(self, type: TransactionType, id: TransactionId) -> Any:
        found = self.sagas[type].whole([id])
        if not found:
            raise TransactionNotFound(f"no such {type}")
        return found[0]

    def _before_people(self, type: TransactionType, id: TransactionId, decision: Decision, seen: int | None) -> Any:
        found = self._found(type, id)
        if decision is Decision.RELEASE_HOLD:  # whatever goes on beside it
            return found
        if found.status is not S.NEEDS_ATTENTION:
            raise NotBeforeAPerson(f"{id} is {found.status}: it goes on by itself")
        if seen not in {None, found.version}:
            raise ChangedMeanwhile(f"{id} has changed since you were shown it: look at it again, then decide")
        return found

    def _must_stand(self, transaction: Deposit | Withdrawal, proposal: Proposal) -> None:
        """What it was proposed about has not changed since. Raises `ChangedMeanwhile`."""
        changed = [transaction.updated_at]
        if proposal.decision is Decision.RELEASE_HOLD:
            changed = [transaction.hold.since] if transaction.hold else []
        elif proposal.decision in VERDICTS:  # of its own attempt, whatever became of others
            judged = [r for r in (*transaction.payments, *transaction.transfers) if r.id == proposal.request_id]
            changed = [at for request in judged for at in (request.asked_at, request.outcome_at) if at]
        if any(at > proposal.at for at in changed):
            raise ChangedMeanwhile("it has changed since this was proposed: reject this, and propose it anew")

    def _tell(self, action: str, proposal: Proposal, who: str, at: datetime) -> None:
        details = {"proposal": str(proposal.id), "decision": str(proposal.decision), "by": who}
        if proposal.request_id:
            details |= {"request": str(proposal.request_id), "reference": proposal.reference}
        self.audit.append(
            [AuditRecord(action, "transaction", str(proposal.transaction_id), at, why=proposal.why, details=details)]
        )

    # --- what may be decided ------------------------------------------------------------------------------------------

    def _offers(self, transaction: Deposit | Withdrawal, *, at: datetime) -> Iterator[Offer]:
        """Each decision that `propose` would take; of "took effect" the reference is still to be given."""
        attempts = (*transaction.payments, *transaction.transfers)
        possible = Decision if transaction.status is S.NEEDS_ATTENTION else (Decision.RELEASE_HOLD,)
        subjects = {decision: attempts if decision in VERDICTS else (None,) for decision in possible}
        for decision, request in [(d, request) for d, several in subjects.items() for request in several]:
            asked = Proposal(
                id=transaction.id, transaction_id=transaction.id, type=transaction.type, decision=decision, by="",
                why="", at=at, request_id=request.id if request else None,
            )  # fmt: skip
            try:
                asked = self._with_destination(asked, transaction, at=at)
                if decision in VERDICTS:
                    self._judged(transaction, asked, at=at)
                else:
                    self._try(transaction, asked, at=at)
            except DomainError:
                continue
            yield Offer(decision=decision, request=request, to=asked.phone or asked.login)

    def _try(self, transaction: Deposit | Withdrawal, proposal: Proposal, *, at: datetime) -> None:
        """Raises what carrying it out would raise today, and changes nothing."""
        trial = deepcopy(transaction)
        match proposal.decision:
            case Decision.TOOK_EFFECT:
                self._must_be_evidence(trial, self._judged(trial, proposal, at=at), proposal)
            case Decision.HAD_NO_EFFECT:
                self._judged(trial, proposal, at=at)
            case Decision.GIVE_BACK:
                self._choose_give_back(trial, at=at)
            case Decision.REFUND_BY_B2C:
                self._refund_by_b2c(trial, proposal, at=at)
            case Decision.OTHER_PHONE | Decision.OTHER_LOGIN:
                self._redirect(trial, proposal, at=at)
            case Decision.RELEASE_HOLD:
                trial.release_hold(why=proposal.why, at=at)
            case _:
                assert_never(proposal.decision)

    def _carry_out(self, transaction: Any, proposal: Proposal, *, at: datetime) -> None:
        match proposal.decision:
            case Decision.TOOK_EFFECT:
                self._took_effect(transaction, proposal, at=at)
            case Decision.HAD_NO_EFFECT:
                self._had_no_effect(transaction, self._judged(transaction, proposal, at=at), at=at)
            case Decision.GIVE_BACK:
                self._give_back(transaction, at=at)
            case Decision.REFUND_BY_B2C:
                self._refund_by_b2c(transaction, proposal, at=at)
            case Decision.OTHER_PHONE | Decision.OTHER_LOGIN:
                if self._with_destination(proposal, transaction, at=at) != proposal:
                    raise DestinationNotVerified("the customer's verified destination has changed: propose it anew")
                moved = self._redirect(transaction, proposal, at=at)
                if moved and isinstance(transaction, Deposit):  # it is paid out of the other agent's float now
                    self.sagas[proposal.type].reservations.release([transaction.id], at=at)
                    transaction.reserve_again = True
            case Decision.RELEASE_HOLD:
                transaction.release_hold(why=proposal.why, at=at)
            case _:
                assert_never(proposal.decision)

    # --- verdicts -----------------------------------------------------------------------------------------------------

    def _judged(self, transaction: Transaction, proposal: Proposal, *, at: datetime) -> ProviderRequest:
        """The attempt, if a verdict on it is needed and possible."""
        requests = [r for r in (*transaction.payments, *transaction.transfers) if r.id == proposal.request_id]
        if not requests or requests[0].leg is Leg.STATUS_QUERY:
            raise VerdictNotNeeded("this Transaction has no such attempt")
        request, timing = requests[0], self.sagas[proposal.type].timing
        if proposal.decision is Decision.TOOK_EFFECT:
            if request.status is RequestStatus.DONE:
                raise VerdictNotNeeded("it took effect: that is known")
            return request
        is_claimed = request.status is RequestStatus.DONE and request.leg in LEGS and request.code != CONFIRMED
        if request.status.is_dead or (request.status is RequestStatus.DONE and not is_claimed):
            raise VerdictNotNeeded(f"it is {request.status}: that is proven")
        if at < request.send_before + timing.of(timing.answer_s + timing.late_commit_s):
            raise VerdictTooEarly("it may still take effect")
        return request

    def _must_be_evidence(self, transaction: Transaction, request: ProviderRequest, proposal: Proposal) -> None:
        """What shows the effect looks like it, and shows nothing that is booked already."""
        reference = proposal.reference
        amount = request.amount if proposal.amount is None else proposal.amount
        if not reference:
            raise EvidenceMissing("give the provider's own reference")
        if isinstance(request, DerivTransfer):
            if not DERIV_ENTRY.fullmatch(reference):
                raise EvidenceUnreadable("give the id of the entry in the agent's book: letters and digits")
            if amount != request.amount:
                raise EvidenceUnreadable(f"an entry of another amount than {request.amount} is not this attempt's")
            key = f"deriv:{request.agent}:{reference}"
        else:
            assert isinstance(request, MpesaRequest)
            if not MPESA_RECEIPT.fullmatch(reference):
                raise EvidenceUnreadable("give M-Pesa's receipt: ten capital letters and digits")
            if amount.currency is not request.amount.currency or amount.amount <= 0:
                raise EvidenceUnreadable(f"M-Pesa moves an amount above zero in {request.amount.currency}")
            if request.leg is Leg.STK_PUSH:  # `TakePayment` looks for itself
                return
            key = f"mpesa:{request.shortcode}:{reference}"
        if self.sagas[transaction.type].ledger.posted([key]):
            raise EvidenceTaken(f"{reference} is in the ledger already: what lies in suspense is settled from there")

    def _took_effect(self, transaction: Any, proposal: Proposal, *, at: datetime) -> None:
        request, saga = self._judged(transaction, proposal, at=at), self.sagas[proposal.type]
        self._must_be_evidence(transaction, request, proposal)
        if isinstance(request, DerivTransfer):
            saga.shown(transaction, request, [proposal.reference], at=at)
        elif isinstance(request, MpesaRequest) and request.leg is Leg.STK_PUSH:
            payment = MpesaPayment(proposal.reference, request.reference, proposal.amount or request.amount, at)
            TakePayment(saga.ledger, saga.audit).take(transaction, request, [payment], at=at)
            if not transaction.is_paid:
                raise VerdictNotNeeded("this payment lies in suspense: match it to this Transaction from there")
        elif isinstance(request, MpesaRequest):
            request.status, request.code, request.receipt = RequestStatus.DONE, CONFIRMED, proposal.reference
            transaction.asked(request, asked_at=at, at=at)
            claim = MpesaClaim("0", at, proposal.amount or request.amount, proposal.reference)
            self._leg(saga, request).paid(transaction, request, claim, proven=True, at=at)

    def _had_no_effect(self, transaction: Any, request: ProviderRequest, *, at: datetime) -> None:
        """The Transaction stays before a person, who sends it on; only what nothing is left to do for fails."""
        was_booked = request.status is RequestStatus.DONE
        request.status, request.code, request.outcome_at = RequestStatus.CLOSED, VERDICT, at
        transaction.asked(request, asked_at=at, at=at)
        if was_booked and isinstance(request, MpesaRequest):
            self._leg(self.sagas[transaction.type], request).denied(transaction, request, at=at)
            request.absences += 1
        elif request.leg in {Leg.STK_PUSH, Leg.DERIV_DEBIT} and not transaction.is_paid:
            transaction.fail("not_received", "The payment was not made. Nothing was charged.", at=at)

    def _leg(self, saga: TransactionSaga[Any], request: MpesaRequest) -> PaymentLeg:
        return LEGS[request.leg](saga.ledger, saga.timing)

    # --- another way, another destination ---------------------------------------------------------------------------

    def _give_back(self, transaction: Deposit | Withdrawal, *, at: datetime) -> None:
        was = transaction.attention_from
        self._choose_give_back(transaction, at=at)
        if isinstance(transaction, Deposit):
            transaction.give_back("given_back", GIVEN_BACK, at=at)
        elif stands(transaction, at=at):
            if was in {S.RATE_LOCKED, S.MPESA_DISBURSING}:
                self.sagas[transaction.type].ledger.undo_exchange(transaction.id, at=at)
            transaction.credit_back("given_back", GIVEN_BACK, at=at)

    def _choose_give_back(self, transaction: Deposit | Withdrawal, *, at: datetime) -> None:
        if not transaction.is_paid:
            raise NotBeforeAPerson("nothing was received that could be given back")
        transaction.choose(Outflow.GIVE_BACK, at=at)

    def _refund_by_b2c(self, transaction: Any, proposal: Proposal, *, at: datetime) -> None:
        if not isinstance(transaction, Deposit) or transaction.attention_from is not S.REFUND_PENDING:
            raise OtherWayOpen("only a deposit that is to be given back is refunded by B2C")
        prompt = transaction.payment
        if not transaction.at_mpesa(Leg.REVERSAL) and prompt is not None and prompt.receipt:
            raise OtherWayOpen("the reversal comes first")
        transaction.allow_refund_by_b2c(at=at)
        transaction.resume(why=proposal.why, at=at)

    def _with_destination(self, proposal: Proposal, transaction: Transaction, *, at: datetime) -> Proposal:
        """With the customer's verified destination of now; of other decisions there is none."""
        if proposal.decision is Decision.OTHER_PHONE:
            phone = self.policy.payout_phone(self.users.customer(transaction.user_id), at=at)
            if phone == transaction.phone:
                raise DestinationNotVerified("the customer has verified no other phone")
            return replace(proposal, phone=phone)
        if proposal.decision is Decision.OTHER_LOGIN:
            login = own_login(self.users.customer(transaction.user_id))
            if login == transaction.login:
                raise DestinationNotVerified("the customer has bound no other Deriv account")
            return replace(proposal, login=login)
        return proposal

    def _redirect(self, transaction: Transaction, proposal: Proposal, *, at: datetime) -> bool:
        """Whether it moved to another agent."""
        login, saga = proposal.login or transaction.login, self.sagas[proposal.type]
        moved = login.platform is not transaction.login.platform
        agent = saga.deriv.agent_for(login.platform) if moved else transaction.agent
        transaction.redirect(proposal.phone or transaction.phone, login, agent, why=proposal.why, at=at)
        return moved
