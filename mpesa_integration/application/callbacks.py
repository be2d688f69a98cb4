"""M-Pesa's callbacks: stored as they came, held against their attempt, told to its Transaction; none is believed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest

from mpesa_integration.domain.callback import Attempt, CallbackKind, Claim, MpesaCallback, Verdict, judge
from mpesa_integration.domain.codes import is_initiator_error
from mpesa_integration.domain.ports import CallbackRepeated, Initiators, MpesaCallbacks
from mpesa_integration.domain.request import Digest, callback_token, token_hash
from mpesa_integration.domain.results import read
from shared_kernel.domain.events import MpesaCallbackReceived
from shared_kernel.domain.ports import AuditLog, AuditRecord, IdSource, OutboxRepository, UnitOfWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What came to a callback URL."""

    kind: CallbackKind
    token: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: str = field(repr=False)
    peer: str
    at: datetime


@dataclass(frozen=True)
class Callbacks:
    """Each opens its own unit of work."""

    callbacks: MpesaCallbacks
    initiators: Initiators
    outbox: OutboxRepository
    audit: AuditLog
    unit_of_work: UnitOfWork
    new_id: IdSource
    digest: Digest
    shortcodes: Callable[[], Sequence[str]]

    def receive(self, received: Received) -> bool:
        """Stores it; it starts the asking, nothing more. False when the token is none of ours.

        The same body again for the same attempt is counted and has no other effect.
        """
        claim, sum = read(received.kind, received.body), sha256(received.body).hexdigest()
        attempt: Attempt | None = None
        try:
            with self.unit_of_work():
                is_ours, attempt = self._about(received, claim, sum)
                if attempt is None or not attempt.seen:
                    verdict = judge(received.kind, claim, attempt) if is_ours else Verdict.NO_ATTEMPT
                    self._store(self._callback(received, claim, sum, attempt, verdict), attempt)
                    return is_ours
        except CallbackRepeated:  # by another at the same moment
            pass
        with self.unit_of_work():
            assert attempt is not None
            self.callbacks.repeated(attempt, received.kind, sum, received.at)
        return True

    def refuse(self, kind: str, why: str, peer: str, *, at: datetime) -> None:
        """An audit row for a callback that was not let in; the token is in none."""
        with self.unit_of_work():
            details = {"kind": kind[:8], "peer": peer}
            self.audit.append(
                [AuditRecord("mpesa.callback_refused", "mpesa_callback", "", at, why=why, details=details)]
            )

    def _about(self, received: Received, claim: Claim | None, sum: str) -> tuple[bool, Attempt | None]:
        """Whether the token is one of ours, and which attempt it, or a confirmation's reference, names."""
        receipt = claim.receipt if claim else ""
        if not received.kind.is_of_shortcode:
            attempt = self.callbacks.attempt_of(received.kind, token_hash(received.token), sum, receipt)
            return attempt is not None, attempt
        shortcode = self._shortcode_of(received)
        if not shortcode or claim is None:
            return bool(shortcode), None
        return True, self.callbacks.attempt_paid(claim.reference, shortcode, sum, receipt)

    def _shortcode_of(self, received: Received) -> str:
        """The shortcode of ours whose confirmation or validation URL has this token, or nothing."""
        own = {shortcode: callback_token(self.digest, shortcode, received.kind) for shortcode in self.shortcodes()}
        given = received.token.encode()
        return next((code for code, token in own.items() if compare_digest(token.encode(), given)), "")

    def _callback(
        self, received: Received, claim: Claim | None, sum: str, attempt: Attempt | None, verdict: Verdict
    ) -> MpesaCallback:
        return MpesaCallback(
            id=self.new_id(),
            kind=received.kind,
            request_id=attempt.id if attempt else None,
            received_at=received.at,
            peer=received.peer,
            body=received.body,
            headers=received.headers,
            sha256=sum,
            claim=claim,
            verdict=verdict,
        )

    def _store(self, callback: MpesaCallback, attempt: Attempt | None) -> None:
        """The row, and in its commit all that follows from it."""
        self.callbacks.add(callback)
        claim, verdict, at = callback.claim, callback.verdict, callback.received_at
        if attempt is not None and claim is not None:
            if attempt.transaction_id is not None and verdict is not Verdict.NOT_FINAL:
                woken = attempt.transaction_id
                event = MpesaCallbackReceived(
                    transaction_id=woken, request_id=attempt.id, leg=str(attempt.leg), occurred_at=at
                )
                self.outbox.append([event])
            if verdict is Verdict.AGREES and claim.balances:
                self.callbacks.add_balances(attempt, [(self.new_id(), balance) for balance in claim.balances], at)
            if verdict is Verdict.AGREES and is_initiator_error(attempt.leg, claim.result_code):
                self.initiators.stop(f"{attempt.leg} ended with {claim.result_code}", at=at)
        if verdict not in {Verdict.AGREES, Verdict.NOT_FINAL, Verdict.STORED}:
            self._tell(callback, attempt)

    def _tell(self, callback: MpesaCallback, attempt: Attempt | None) -> None:
        transaction = attempt.transaction_id if attempt else None
        action = "mpesa.callback_refused" if callback.verdict is Verdict.NO_ATTEMPT else "mpesa.callback_suspect"
        type, target = ("transaction", str(transaction)) if transaction else ("mpesa_callback", str(callback.id))
        details = {"kind": callback.kind, "peer": callback.peer, "callback": str(callback.id)}
        self.audit.append(
            [AuditRecord(action, type, target, callback.received_at, why=callback.verdict, details=details)]
        )
