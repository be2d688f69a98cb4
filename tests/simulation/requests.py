"""The providers' requests in memory: `mpesa_requests`, `mpesa_callbacks`, `deriv_transfers` and who is stopped.

They keep and refuse what the tables do, above all by the rules of fences and of what is done for good.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from mpesa_integration.domain.balance import BalanceQuestion
from mpesa_integration.domain.callback import RESULT_OF, Attempt, Balance, CallbackKind, MpesaCallback, Verdict
from mpesa_integration.domain.ports import CallbackRepeated
from mpesa_integration.domain.request import (
    OPEN,
    OUTFLOWS,
    Digest,
    OutflowOpen,
    PromptOpen,
    callback_token,
    token_hash,
)
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.domain.requests import DerivTransfer, Leg, MpesaClaim, MpesaRequest, RequestStatus as R
from tests.simulation.rows import ConstraintBroken
from tests.simulation.store import Store, StoredAudit, clone

NAMES_NEW_MONEY = {CallbackKind.STK, CallbackKind.B2C, CallbackKind.CONFIRMATION}
SAID = {Verdict.AGREES, Verdict.DISAGREES}
MAY_BE_SENT = {R.SENDING, R.NOT_SENT}
DERIV_OUTFLOWS = {Leg.DERIV_CREDIT, Leg.DERIV_CREDIT_BACK}


class Table:
    """Rows by id, and the ids of each Transaction in the order in which they were made."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.rows, self.by_transaction = store, store.table(name), store.table(f"{name}.transaction_id")

    def of(self, transaction: TransactionId) -> list[Any]:
        return [self.rows[id] for id in self.by_transaction.get(transaction, ())]

    def add(self, row: Any) -> None:
        if row.id in self.rows:
            raise ConstraintBroken("id is unique")
        others = self.of(row.transaction_id)
        if any((other.leg, other.attempt) == (row.leg, row.attempt) for other in others):
            raise ConstraintBroken("Transaction, leg and attempt are unique")
        ids = self.by_transaction.get(row.transaction_id, ())
        self.store.put(self.by_transaction, row.transaction_id, (*ids, row.id))
        self.change(row)

    def change(self, row: Any) -> None:
        self.store.put(self.rows, row.id, row)
        self.store.touched.add(row.transaction_id)


class MpesaRows:
    """`mpesa_requests`."""

    def __init__(self, store: Store, digest: Digest) -> None:
        self.store, self.digest = store, digest
        self.table = Table(store, "mpesa_requests")
        self.claims = store.table("mpesa_callbacks.request_id")  # claims by attempt
        self.tokens = store.table("mpesa_requests.callback_hash")
        self.references = store.table("mpesa_requests.reference")
        self.receipts = store.table("mpesa_requests.receipt")
        self.open_phones = store.table("mpesa_requests.open_phone")
        self.open_outflows = store.table("mpesa_requests.open_outflow")

    def of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[MpesaRequest]]:
        assert self.store.is_open
        found = {}
        for id in transactions:
            if rows := self.table.of(id):
                found[id] = [self._fresh(row) for row in rows]
        return found

    def _fresh(self, row: MpesaRequest) -> MpesaRequest:
        request = clone(row)
        request.claims = list(self.claims.get(row.id, ()))
        return request

    def add(self, requests: Sequence[MpesaRequest]) -> None:
        assert self.store.is_open
        for request in requests:
            if request.reference in self.references:
                raise ConstraintBroken("reference is unique")
            self.store.put(self.references, request.reference, request.id)
            kind = RESULT_OF[request.leg]
            for each in (kind,) if kind is CallbackKind.STK else (kind, kind.timeout):
                self.store.put(self.tokens, token_hash(callback_token(self.digest, request.id, each)), request.id)
            self.table.add(clone(request))
            self._open_or_not(request)

    def send_again(self, requests: Sequence[MpesaRequest]) -> None:
        for request in requests:
            row = clone(self.table.rows[request.id])
            row.was_unknown = row.was_unknown or row.status.may_take_effect
            self._update(row, request, "fence", "status", "send_before", "asked_at")

    def conclude(self, requests: Sequence[MpesaRequest], answers: Sequence[str]) -> None:
        columns = ("status", "code", "outcome_at", "was_unknown", "merchant_request_id", "checkout_request_id")
        for request in requests:
            row = clone(self.table.rows[request.id])
            self._update(row, request, *columns, "conversation_id", "receipt")

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        assert self.store.is_open
        columns = ("status", "code", "outcome_at", "was_unknown", "receipt", "asked_at", "absences")
        for request in requests:
            self._update(clone(self.table.rows[request.id]), request, *columns)

    def _update(self, row: MpesaRequest, request: MpesaRequest, *columns: str) -> None:
        for column in columns:
            setattr(row, column, getattr(request, column))
        if row.receipt:
            if self.receipts.get(row.receipt, row.id) != row.id:
                raise ConstraintBroken("receipt is unique")
            self.store.put(self.receipts, row.receipt, row.id)
        self.table.change(row)
        self._open_or_not(row)

    def _open_or_not(self, row: MpesaRequest) -> None:
        if row.leg is Leg.STK_PUSH:
            self._hold(self.open_phones, row.phone.number, row, PromptOpen("this phone has an open M-Pesa request"))
        elif row.leg in OUTFLOWS:
            self._hold(self.open_outflows, row.transaction_id, row, OutflowOpen("money may still leave"))

    def _hold(self, unique: dict[Any, Any], key: Any, row: MpesaRequest, refusal: Exception) -> None:
        holder = unique.get(key)
        if row.status in OPEN:
            if holder is not None and holder != row.id:
                raise refusal
            self.store.put(unique, key, row.id)
        elif holder == row.id:
            self.store.put(unique, key, None)

    def prompts_by(self, references: Sequence[str]) -> dict[str, MpesaRequest]:
        found = {reference: self.table.rows[self.references[reference]] for reference in references
                 if reference in self.references}  # fmt: skip
        return {reference: clone(row) for reference, row in found.items() if row.leg is Leg.STK_PUSH}

    def behind(self, ids: Sequence[RequestId], receipts: Sequence[str]) -> list[MpesaRequest]:
        named = [row for row in self.table.rows.values() if row.id in ids or row.receipt in receipts]
        of = {row.transaction_id for row in named}
        back = [row for row in self.table.rows.values() if row.transaction_id in of and row.leg is Leg.REVERSAL]
        return [clone(row) for row in {row.id: row for row in (*named, *back)}.values()]

    def overdue(self, before: datetime, most: int) -> list[MpesaRequest]:
        rows = [row for row in self.table.rows.values() if row.status.may_take_effect and row.send_before < before]
        return [clone(row) for row in rows if row.leg not in {Leg.STATUS_QUERY, Leg.ACCOUNT_BALANCE}][:most]

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
        raise NotImplementedError("the sagas ask for no explanation")

    def in_flight(self, shortcode: str, made_since: datetime | None) -> tuple[int, int]:
        raise NotImplementedError("the sagas ask for no balance")

    def charged_later(self, shortcode: str, confirmed: str, since: datetime) -> int:
        raise NotImplementedError("the sagas ask for no balance")

    def attach_receipts(self, receipts: Mapping[RequestId, str]) -> None:
        for id, receipt in receipts.items():
            row = clone(self.table.rows[id])
            if not row.receipt:
                row.receipt = receipt
                self._update(row, row, "receipt")

    def busy(self, numbers: Iterable[str]) -> set[str]:
        return {number for number in numbers if self.open_phones.get(number) is not None}

    def ask(self, question: BalanceQuestion) -> None:
        raise NotImplementedError("the sagas ask for no balance")

    def answered(
        self, question: BalanceQuestion, status: R, code: str, conversation_id: str, answer: str, at: datetime
    ) -> None:
        raise NotImplementedError("the sagas ask for no balance")


@dataclass(frozen=True)
class CallbackRows:
    """`mpesa_callbacks`."""

    store: Store
    requests: MpesaRows

    def attempt_of(self, kind: CallbackKind, token_hash: str, sha256: str, receipt: str) -> Attempt | None:
        id = self.requests.tokens.get(token_hash)
        row = self.requests.table.rows[id] if id is not None else None
        return self._attempt(kind, row, sha256, receipt) if row and RESULT_OF[row.leg] == kind[0] else None

    def attempt_paid(self, reference: str, shortcode: str, sha256: str, receipt: str) -> Attempt | None:
        id = self.requests.references.get(reference)
        row = self.requests.table.rows[id] if id is not None else None
        fits = row is not None and row.leg is Leg.STK_PUSH and row.shortcode == shortcode
        return self._attempt(CallbackKind.CONFIRMATION, row, sha256, receipt) if fits else None

    def _attempt(self, kind: CallbackKind, row: Any, sha256: str, receipt: str) -> Attempt:
        return Attempt(
            id=row.id,
            transaction_id=row.transaction_id,
            leg=row.leg,
            reference=row.reference,
            about=row.about,
            amount=row.amount,
            shortcode=row.shortcode,
            phone=row.phone if kind is CallbackKind.B2C else None,
            merchant_request_id=row.merchant_request_id,
            checkout_request_id=row.checkout_request_id,
            conversation_id=row.conversation_id,
            receipt=row.receipt,
            receipt_taken=self._taken(kind, row, receipt),
            seen=(row.id, kind, sha256) in self.store.table("mpesa_callbacks"),
        )

    def _taken(self, kind: CallbackKind, row: MpesaRequest, receipt: str) -> bool:
        if not receipt:
            return False
        holder = self.requests.receipts.get(receipt)
        if holder is not None and holder != row.id:
            other = self.requests.table.rows[holder]
            if row.about not in (other.reference, other.receipt):
                return True
        named = self.store.table("mpesa_callbacks.receipt").get((str(kind), receipt), ())
        return kind in NAMES_NEW_MONEY and any(id != row.id for id in named)

    def add(self, callback: MpesaCallback) -> None:
        key = (callback.request_id, callback.kind, callback.sha256)
        rows = self.store.table("mpesa_callbacks")
        if callback.request_id is None:
            return
        if key in rows:
            raise CallbackRepeated("the very same body")
        self.store.put(rows, key, 1)
        claim, id = callback.claim, callback.request_id
        self.store.touched.add(self.requests.table.rows[id].transaction_id)
        if claim is None or callback.verdict not in SAID:
            return
        said = MpesaClaim(
            claim.result_code, callback.received_at, claim.amount, claim.receipt,
            callback.verdict is Verdict.AGREES, claim.blame, claim.fate, claim.fee,
        )  # fmt: skip
        claims = (*self.requests.claims.get(id, ()), said)
        self.store.put(self.requests.claims, id, tuple(sorted(claims, key=lambda claim: claim.received_at)))
        if claim.receipt and callback.verdict is Verdict.AGREES:
            named = self.store.table("mpesa_callbacks.receipt")
            known = (str(callback.kind), claim.receipt)
            self.store.put(named, known, (*named.get(known, ()), id))

    def repeated(self, attempt: Attempt, kind: CallbackKind, sha256: str, at: datetime) -> None:
        rows = self.store.table("mpesa_callbacks")
        self.store.put(rows, (attempt.id, kind, sha256), rows[attempt.id, kind, sha256] + 1)

    def add_balances(self, attempt: Attempt, balances: Sequence[tuple[UUID, Balance]], at: datetime) -> None:
        raise NotImplementedError("the sagas ask for no balance")

    def told(self, questions: Sequence[UUID]) -> Mapping[UUID, tuple[Mapping[str, Money], datetime]]:
        raise NotImplementedError("the sagas ask for no balance")

    def balances(self, shortcode: str) -> Mapping[str, tuple[Money, datetime]]:
        raise NotImplementedError("the sagas ask for no balance")


@dataclass(frozen=True)
class InitiatorRow:
    """`mpesa_initiators`: one API operator."""

    store: Store
    audit: StoredAudit

    def is_stopped(self) -> bool:
        return self.was_stopped()

    def was_stopped(self) -> bool:
        return bool(self.store.table("mpesa_initiators").get("api"))

    def stop(self, why: str, *, at: datetime) -> None:
        self.store.put(self.store.table("mpesa_initiators"), "api", why)
        self.audit.append([AuditRecord("mpesa.initiator_stopped", "mpesa_initiator", "api", at, why=why)])

    def resume(self, why: str, *, at: datetime) -> bool:
        stopped = self.was_stopped()
        self.store.put(self.store.table("mpesa_initiators"), "api", "")
        return stopped


class TransferRows:
    """`deriv_transfers`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.table = Table(store, "deriv_transfers")
        self.entries = store.table("deriv_transfers.provider_transaction_id")
        self.open_outflows = store.table("deriv_transfers.open_outflow")

    def transfers_of(self, transactions: Sequence[TransactionId]) -> Mapping[TransactionId, list[DerivTransfer]]:
        assert self.store.is_open
        return {id: sorted(map(clone, self.table.of(id)), key=lambda t: (t.leg, t.attempt)) for id in transactions}

    def record(self, transfers: Sequence[DerivTransfer]) -> None:
        assert self.store.is_open
        for transfer in transfers:
            if transfer.fence == 1:
                row = clone(transfer)
                row.token = ""
                self.table.add(row)
                self._open_or_not(row)
                continue
            row = clone(self.table.rows[transfer.id])
            if row.fence < transfer.fence and row.status is not R.DONE:
                row.was_unknown = row.was_unknown or row.status in {R.SENDING, R.UNKNOWN, R.REPEATABLE, R.ACCEPTED}
                row.status, row.fence, row.send_before = transfer.status, transfer.fence, transfer.send_before
                row.outcome_at = None
                self._put(row)

    def record_outcomes(self, outcomes: Sequence[tuple[DerivTransfer, Outcome]], *, at: datetime) -> None:
        assert self.store.is_open
        for transfer, outcome in outcomes:
            row = clone(self.table.rows[transfer.id])
            if self._counts(row, transfer, outcome):
                self._apply(row, outcome, at)
                self._put(row)

    def _counts(self, row: DerivTransfer, transfer: DerivTransfer, outcome: Outcome) -> bool:
        """What is done stays so; what was closed is changed by `Done` alone; only the newest sender may say no."""
        if row.status is R.DONE:
            return False
        if isinstance(outcome, Done):
            return True
        is_newest = row.fence == transfer.fence
        return row.status is not R.CLOSED and (is_newest or isinstance(outcome, Accepted | Unknown))

    def _apply(self, row: DerivTransfer, outcome: Outcome, at: datetime) -> None:
        row.outcome_at, row.provider_transaction_id = at, ""
        match outcome:
            case Done(reference):
                row.status, row.code, row.provider_transaction_id = R.DONE, "", reference
            case Accepted():
                row.status, row.code = R.ACCEPTED, ""
            case Refused(code):
                row.status, row.code = R.UNKNOWN if row.was_unknown else R.REFUSED, code
            case NotSent(code):
                row.status, row.code = R.UNKNOWN if row.was_unknown else R.NOT_SENT, code
            case Unknown(code):
                row.status, row.code, row.was_unknown = R.UNKNOWN, code, True
        if not isinstance(outcome, NotSent):
            row.verification_code = ""

    def save(self, transfers: Sequence[DerivTransfer]) -> None:
        assert self.store.is_open
        for transfer in transfers:
            row = clone(self.table.rows[transfer.id])
            if row.status is R.DONE:
                continue
            row.was_unknown = row.was_unknown or transfer.status is R.UNKNOWN
            row.status, row.code, row.outcome_at = transfer.status, transfer.code, transfer.outcome_at
            row.asked_at, row.absences = transfer.asked_at, transfer.absences
            row.provider_transaction_id = transfer.provider_transaction_id
            if transfer.status not in MAY_BE_SENT:
                row.verification_code = ""
            self._put(row)

    def _put(self, row: DerivTransfer) -> None:
        if row.provider_transaction_id:
            key = (row.agent, row.provider_transaction_id)
            if self.entries.get(key, row.id) != row.id:
                raise ConstraintBroken("an entry of Deriv's belongs to one transfer")
            self.store.put(self.entries, key, row.id)
        self.table.change(row)
        self._open_or_not(row)

    def _open_or_not(self, row: DerivTransfer) -> None:
        if row.leg not in DERIV_OUTFLOWS:
            return
        holder = self.open_outflows.get(row.transaction_id)
        if not (row.status.is_dead or row.status is R.DONE):
            if holder is not None and holder != row.id:
                raise ConstraintBroken("one open outflow at Deriv a Transaction")
            self.store.put(self.open_outflows, row.transaction_id, row.id)
        elif holder == row.id:
            self.store.put(self.open_outflows, row.transaction_id, None)

    def known_entries(self, agent: str, ids: Sequence[str]) -> set[str]:
        return {id for id in ids if (agent, id) in self.entries}

    def transfers_by(self, references: Sequence[str]) -> dict[str, DerivTransfer]:
        rows = sorted(self.table.rows.values(), key=lambda row: row.attempt)
        return {row.reference: clone(row) for row in rows if row.reference in references}

    def in_flight(self, agent: str, made_since: datetime | None) -> tuple[int, int]:
        raise NotImplementedError("the sagas ask for no balance")

    def overdue(self, before: datetime, most: int) -> list[DerivTransfer]:
        rows = [row for row in self.table.rows.values() if row.status.may_take_effect and row.send_before < before]
        return [clone(row) for row in rows][:most]

    def wipe_codes(self, before: datetime) -> int:
        held = [row for row in self.table.rows.values() if row.status in MAY_BE_SENT and row.created_at < before]
        for row in held:
            wiped = clone(row)
            wiped.verification_code = ""
            self.table.change(wiped)
        return len(held)


@dataclass(frozen=True)
class AgentRows:
    """`deriv_agents`: which are frozen, and why."""

    store: Store
    audit: StoredAudit

    def frozen(self, *, at_most_old_s: float = 0.0) -> frozenset[str]:
        return self.frozen_lately()

    def frozen_lately(self) -> frozenset[str]:
        return frozenset(agent for agent, why in self.store.table("deriv_agents").items() if why)

    def freeze(self, agent: str, why: str, *, at: datetime) -> None:
        self.store.put(self.store.table("deriv_agents"), agent, why)
        self.audit.append([AuditRecord("deriv_agent.frozen", "deriv_agent", agent, at, why=why)])
