"""M-Pesa for the sagas: attempts with their outcomes and claims, the calls, and the callbacks that come in."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from mpesa_integration.domain.callback import Attempt, CallbackKind, MpesaCallback, StkClaim, Verdict, judge, read_stk
from mpesa_integration.domain.ports import CallbackRepeated, Daraja, MpesaCallbacks, MpesaRequests
from mpesa_integration.domain.request import Digest, account_reference, callback_token, conclude, shillings, token_hash
from shared_kernel.domain.events import MpesaCallbackReceived
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Outcome, Unknown, Unreadable
from shared_kernel.domain.ports import AuditLog, AuditRecord, Clock, IdSource, OutboxRepository, UnitOfWork
from shared_kernel.domain.requests import SEND_WINDOW, Leg, MpesaPayment, MpesaRequest


@dataclass(frozen=True)
class Mpesa:
    """What stores joins the caller's unit of work; what calls must run outside of one."""

    requests: MpesaRequests
    callbacks: MpesaCallbacks
    daraja: Daraja
    outbox: OutboxRepository
    audit: AuditLog
    unit_of_work: UnitOfWork
    clock: Clock
    new_id: IdSource
    digest: Digest
    shortcode: Callable[[], str]

    def requests_of(
        self, transactions: Sequence[TransactionId], outcomes: Sequence[tuple[MpesaRequest, Outcome]] = ()
    ) -> Mapping[TransactionId, list[MpesaRequest]]:
        """All attempts of each Transaction, oldest first, with what callbacks claimed; one SELECT.

        `outcomes` are what became of sendings: held against the rows as they are now, and stored, raw answers
        encrypted, by one UPDATE; the attempts answered here follow them. The caller holds the Transactions' locks:
        nobody else writes their attempts.
        """
        found = self.requests.of(transactions)
        if outcomes:
            at = self.clock()
            rows = {row.id: row for attempts in found.values() for row in attempts}
            met = [(rows[request.id], request.fence, outcome) for request, outcome in outcomes if request.id in rows]
            for row, fence, outcome in met:
                conclude(row, outcome, fence=fence, at=at)
            self.requests.conclude([row for row, _, _ in met], [outcome.answer for _, _, outcome in met])
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
        """A new attempt on our shortcode, not stored yet. Raises `InvalidAmount` for what an STK push can't move."""
        shillings(amount)
        return MpesaRequest(
            id=RequestId(self.new_id()),
            transaction_id=transaction,
            leg=leg,
            attempt=attempt,
            reference=account_reference(self.digest, transaction, leg, attempt),
            about=about,
            amount=amount,
            send_before=at + SEND_WINDOW,
            created_at=at,
            phone=phone,
            shortcode=shortcode or self.shortcode(),
        )

    def record(self, requests: Sequence[MpesaRequest]) -> None:
        """Stores intents: new attempts (one INSERT), or known ones with a higher fence. Raises `PromptOpen`."""
        if new := [request for request in requests if request.fence == 1]:
            self.requests.add(new)
        if again := [request for request in requests if request.fence > 1]:
            self.requests.send_again(again)

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        """Stores what the saga decided about attempts: status, code, receipt, asked_at, absences; one statement."""
        self.requests.save(requests)

    def busy_phones(self, phones: Iterable[Phone]) -> set[Phone]:
        """Those with an open prompt: they must wait."""
        return {Phone(number) for number in self.requests.busy({phone.number for phone in phones})}

    def send(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        """STK push, answered at the attempt's own URL. Past `give_up_at` (monotonic clock) nothing is written."""
        path = f"/cb/{CallbackKind.STK}/{callback_token(self.digest, request.id)}"
        return self.daraja.push(request, path, give_up_at=give_up_at)

    def query(self, request: MpesaRequest) -> Outcome:
        """STK query. `Unknown` without a call while M-Pesa's own id of the attempt is not known."""
        if not request.checkout_request_id:
            return Unknown("no_checkout_request_id")
        return self.daraja.query(request)

    def payments(self, request: MpesaRequest) -> Sequence[MpesaPayment] | Unreadable:
        """Pull: what our shortcode received under this attempt's reference since it was made, 48 hours back at most."""
        return self.daraja.payments(request, at=self.clock())

    def receive_callback(
        self, kind: CallbackKind, token: str, body: bytes, headers: str, peer: str, *, at: datetime
    ) -> bool:
        """Stores what came to a callback URL; it starts the asking, nothing more. False when the token is none of ours.

        The same body again is counted and has no other effect. Opens its own unit of work.
        """
        claim, sum = read_stk(body), sha256(body).hexdigest()
        try:
            with self.unit_of_work():
                attempt = self.callbacks.attempt_of(token_hash(token), sum, claim.receipt if claim else "")
                if attempt is None or not attempt.seen:
                    self._store(kind, claim, attempt, body, sum, headers, peer, at)
                    return attempt is not None
        except CallbackRepeated:  # by another at the same moment
            pass
        with self.unit_of_work():
            assert attempt is not None
            self.callbacks.repeated(attempt, sum, at)
        return True

    def refuse_callback(self, kind: str, why: str, peer: str, *, at: datetime) -> None:
        """An audit row for a callback that was not let in; the token is in none. Opens its own unit of work."""
        with self.unit_of_work():
            details = {"kind": kind[:8], "peer": peer}
            self.audit.append(
                [AuditRecord("mpesa.callback_refused", "mpesa_callback", "", at, why=why, details=details)]
            )

    def _store(
        self,
        kind: CallbackKind,
        claim: StkClaim | None,
        attempt: Attempt | None,
        body: bytes,
        sum: str,
        headers: str,
        peer: str,
        at: datetime,
    ) -> None:
        verdict = judge(claim, attempt)
        callback = MpesaCallback(
            id=self.new_id(),
            kind=kind,
            request_id=attempt.id if attempt else None,
            received_at=at,
            peer=peer,
            body=body,
            headers=headers,
            sha256=sum,
            claim=claim,
            verdict=verdict,
        )
        self.callbacks.add(callback)
        if attempt is not None and claim is not None:
            event = MpesaCallbackReceived(transaction_id=attempt.transaction_id, request_id=attempt.id, occurred_at=at)
            self.outbox.append([event])
        if verdict is not Verdict.AGREES:
            target = str(attempt.transaction_id) if attempt else ""
            details = {"kind": kind, "peer": peer, "callback": str(callback.id)}
            action = "mpesa.callback_refused" if attempt is None else "mpesa.callback_suspect"
            type = "transaction" if attempt else "mpesa_callback"
            self.audit.append([AuditRecord(action, type, target, at, why=verdict, details=details)])
