"""M-Pesa for the sagas: attempts with their outcomes and claims, the calls, balances and what a shortcode received."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from mpesa_integration.domain.answers import initiator_error_of
from mpesa_integration.domain.balance import BalanceQuestion
from mpesa_integration.domain.callback import RESULT_OF, CallbackKind
from mpesa_integration.domain.codes import IN_INITIATORS_NAME
from mpesa_integration.domain.ports import Daraja, Initiators, MpesaCallbacks, MpesaRequests
from mpesa_integration.domain.request import Digest, callback_path, conclude, reference_of, shillings
from mpesa_integration.domain.results import RECEIPT
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown, Unreadable
from shared_kernel.domain.ports import Clock, IdSource, UnitOfWork
from shared_kernel.domain.requests import SEND_WINDOW, Leg, MpesaPayment, MpesaRequest, RequestStatus

STOPPED = NotSent("initiator_stopped", 300, alert=True)
STATUS_OF = {
    Done: RequestStatus.DONE,
    Accepted: RequestStatus.ACCEPTED,
    Refused: RequestStatus.REFUSED,
    Unknown: RequestStatus.UNKNOWN,
    NotSent: RequestStatus.NOT_SENT,
}


@dataclass(frozen=True)
class Mpesa:
    """What stores joins the caller's unit of work; what calls must run outside of one."""

    requests: MpesaRequests
    callbacks: MpesaCallbacks
    initiators: Initiators
    daraja: Daraja
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource
    digest: Digest
    shortcode: Callable[[], str]
    b2c_shortcode: Callable[[], str]

    def requests_of(
        self, transactions: Sequence[TransactionId], outcomes: Sequence[tuple[MpesaRequest, Outcome]] = ()
    ) -> Mapping[TransactionId, list[MpesaRequest]]:
        """All attempts of each Transaction, oldest first, with what callbacks claimed; one SELECT.

        `outcomes` are what became of sendings: held against the rows as they are now, and stored, raw answers
        encrypted, by one UPDATE; the attempts answered here follow them. The caller holds the Transactions' locks:
        nobody else writes their attempts. The first error of the initiator's credential stops the initiator.
        """
        found = self.requests.of(transactions)
        if outcomes:
            at = self.clock()
            rows = {row.id: row for attempts in found.values() for row in attempts}
            met = [(rows[request.id], request.fence, outcome) for request, outcome in outcomes if request.id in rows]
            for row, fence, outcome in met:
                conclude(row, outcome, fence=fence, at=at)
            self.requests.conclude([row for row, _, _ in met], [outcome.answer for _, _, outcome in met])
            for row, _, outcome in met:
                self._heed(row.leg, outcome, at=at)
        return found

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
        """A new attempt, not stored yet. Raises `InvalidAmount` for what one such call can't move.

        Without `shortcode` it is the one that is paid to for an STK push, for a reversal and for a status query about a
        receipt, else the one that pays out. A status query carries the amount of what it is about.
        """
        shillings(amount, leg)
        pays_out = leg in {Leg.B2C_PAYOUT, Leg.B2C_REFUND}
        pays_out = pays_out or (leg is Leg.STATUS_QUERY and not RECEIPT.fullmatch(about))
        return MpesaRequest(
            id=RequestId(self.new_id()),
            transaction_id=transaction,
            leg=leg,
            attempt=attempt,
            reference=reference_of(self.digest, transaction, leg, attempt),
            about=about,
            amount=amount,
            send_before=at + SEND_WINDOW,
            created_at=at,
            phone=phone,
            shortcode=shortcode or (self.b2c_shortcode() if pays_out else self.shortcode()),
        )

    def record(self, requests: Sequence[MpesaRequest]) -> None:
        """Stores intents: new attempts (one INSERT), or known ones with a higher fence.

        Learns whether the initiator is stopped before any of them is sent. Raises `PromptOpen`, `OutflowOpen`.
        """
        if new := [request for request in requests if request.fence == 1]:
            self.requests.add(new)
        if again := [request for request in requests if request.fence > 1]:
            self.requests.send_again(again)
        if any(request.leg in IN_INITIATORS_NAME for request in requests):
            self.initiators.is_stopped()

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        """Stores what the saga decided about attempts: status, code, receipt, asked_at, absences; one statement."""
        self.requests.save(requests)

    def busy_phones(self, phones: Iterable[Phone]) -> set[Phone]:
        """Those with an open prompt: they must wait."""
        return {Phone(number) for number in self.requests.busy({phone.number for phone in phones})}

    def send(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        """Carries the attempt out, answered at its own URLs. Past `give_up_at` (monotonic clock) nothing is written."""
        kind = RESULT_OF[request.leg]
        result = callback_path(self.digest, request.id, kind)
        if kind is CallbackKind.STK:
            return self.daraja.push(request, result, give_up_at=give_up_at)
        if self.initiators.was_stopped():
            return STOPPED
        timeout = callback_path(self.digest, request.id, kind.timeout)
        match kind:
            case CallbackKind.B2C:
                return self.daraja.pay(request, result, timeout, give_up_at=give_up_at)
            case CallbackKind.REVERSAL:
                return self.daraja.reverse(request, result, timeout, give_up_at=give_up_at)
            case CallbackKind.STATUS:
                return self.daraja.ask_status(request, result, timeout, give_up_at=give_up_at)
            case _:
                raise ValueError(f"{request.leg} is no leg of a Transaction at M-Pesa")

    def query(self, request: MpesaRequest) -> Outcome:
        """STK query. `Unknown` without a call while M-Pesa's own id of the attempt is not known."""
        if not request.checkout_request_id:
            return Unknown("no_checkout_request_id")
        return self.daraja.query(request)

    def payments(self, request: MpesaRequest) -> Sequence[MpesaPayment] | Unreadable:
        """Pull: what our shortcode received under this attempt's reference since it was made, 48 hours back at most."""
        return self.daraja.payments(request, at=self.clock())

    def received(self, shortcode: str, since: datetime, until: datetime) -> Sequence[MpesaPayment] | Unreadable:
        """Pull: all that `shortcode` received between the two, 48 hours back at most; for money that nobody knows.

        Some hours before `since` are read as well, for the time zone of Pull's clock is not proven.
        """
        return self.daraja.received(shortcode, since, until, at=self.clock())

    def prompts_by(self, references: Sequence[str]) -> dict[str, MpesaRequest]:
        """The prompts with these AccountReferences; one SELECT in the caller's unit of work."""
        return self.requests.prompts_by(references)

    def behind(self, ids: Sequence[RequestId], receipts: Sequence[str]) -> list[MpesaRequest]:
        """The attempts with these ids or these receipts, and the reversals of their Transactions; without claims.

        In the caller's unit of work; three SELECTs for each 1,000.
        """
        return self.requests.behind(ids, receipts)

    def may_explain(
        self,
        shortcode: str,
        receipt: str,
        reference: str,
        amount: Money,
        moved_at: datetime,
        *,
        other_amounts: bool = True,
    ) -> list[MpesaRequest]:
        """The attempts that a movement of `shortcode` may be the effect of; `amount` is signed, above zero it came in.

        Those that M-Pesa named it to, or claims it of; those of its AccountReference; and such as have no receipt: for
        a payment that came in those of this very amount that are open or proven; for one that left any whose end is
        open, for M-Pesa may have paid another amount, and those of this amount that were given up, for people to judge.
        Without `other_amounts` open ones count with this very amount alone.
        One SELECT, so that an attempt that ends at this moment is seen as it was or as it is.
        """
        return self.requests.may_explain(shortcode, receipt, reference, amount, moved_at, other_amounts=other_amounts)

    def overdue(self, before: datetime, most: int) -> list[MpesaRequest]:
        """The oldest attempts made before then that move money and whose outcome is open; one SELECT."""
        return self.requests.overdue(before, most)

    def attach_receipts(self, receipts: Mapping[RequestId, str]) -> None:
        """To prompts that were proven without one; in the caller's unit of work."""
        self.requests.attach_receipts(receipts)

    def ask_balance(self, shortcode: str, *, id: RequestId | None = None) -> Outcome:
        """Has M-Pesa tell the balances of `shortcode` by callback (`balances`, or `told` by the question's `id`).

        Opens its own units of work.
        """
        at, id = self.clock(), id or RequestId(self.new_id())
        reference = self.digest("mpesa.reference", f"{id}|{Leg.ACCOUNT_BALANCE}")[:32]
        question = BalanceQuestion(id, reference, shortcode, at + SEND_WINDOW, at)
        give_up_at = time.monotonic() + SEND_WINDOW.total_seconds()
        with self.unit_of_work():
            self.requests.ask(question)
            is_stopped = self.initiators.is_stopped()
        result = callback_path(self.digest, id, CallbackKind.BALANCE)
        timeout = callback_path(self.digest, id, CallbackKind.BALANCE_TIMEOUT)
        outcome = STOPPED if is_stopped else self.daraja.ask_balance(shortcode, result, timeout, give_up_at=give_up_at)
        conversation = outcome.references.get("ConversationID", "") if isinstance(outcome, Accepted) else ""
        code = "" if isinstance(outcome, Accepted | Done) else outcome.code
        with self.unit_of_work():
            told_at = self.clock()
            self.requests.answered(question, STATUS_OF[type(outcome)], code, conversation, outcome.answer, told_at)
            self._heed(Leg.ACCOUNT_BALANCE, outcome, at=told_at)
        return outcome

    def balances(self, shortcode: str) -> Mapping[str, tuple[Money, datetime]]:
        """By account (`Utility Account`, ...), what M-Pesa's newest answer said was available, and when it came."""
        return self.callbacks.balances(shortcode)

    def told(self, questions: Sequence[UUID]) -> Mapping[UUID, tuple[Mapping[str, Money], datetime]]:
        """What M-Pesa answered to these questions by now, by account, and when that came; one SELECT."""
        return self.callbacks.told(questions)

    def in_flight(self, shortcode: str, *, made_since: datetime | None = None) -> tuple[int, int]:
        """Cents that may be coming to `shortcode` and going from it and are not booked here: by attempts whose outcome
        is open, or, with `made_since`, by all attempts made since then. One SELECT in the caller's unit of work.
        """
        return self.requests.in_flight(shortcode, made_since)

    def charged_later(self, shortcode: str, confirmed: str, since: datetime) -> int:
        """How many payouts of `shortcode` sent since then are open, or not yet `confirmed` (their code): M-Pesa has not
        told what it charges for them. One SELECT in the caller's unit of work.
        """
        return self.requests.charged_later(shortcode, confirmed, since)

    def register_urls(self, shortcode: str) -> Outcome:
        """Tells M-Pesa where to confirm what `shortcode` receives; in production it takes this once. Calls out."""
        confirmation = callback_path(self.digest, shortcode, CallbackKind.CONFIRMATION)
        validation = callback_path(self.digest, shortcode, CallbackKind.VALIDATION)
        return self.daraja.register(shortcode, confirmation, validation)

    def resume_initiator(self, why: str, *, dry_run: bool = False) -> bool:
        """Lets the initiator call again; False when it was not stopped. Opens its own unit of work."""
        with self.unit_of_work():
            return self.initiators.is_stopped() if dry_run else self.initiators.resume(why, at=self.clock())

    def _heed(self, leg: Leg, outcome: Outcome, *, at: datetime) -> None:
        if code := initiator_error_of(leg, outcome):
            self.initiators.stop(f"{leg} was answered {code}", at=at)
