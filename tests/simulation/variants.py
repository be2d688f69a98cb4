"""PenPay, broken on purpose, one rule at a time: each variant must be found out, or the simulation proves nothing."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from mpesa_integration.application import mpesa as mpesa_application
from mpesa_integration.domain import callback as callback_rules, request as request_rules
from payments.application import mpesa_payment
from payments.application.deposit import AskForPayment, ConfirmPayment, DepositSaga, Refund
from payments.application.deriv_credit import AskDeriv, SendCredit
from payments.application.mpesa_payment import Read, Reading
from payments.application.withdrawal import Payout
from payments.domain.deposit import Deposit
from payments.domain.transaction import Outflow, Transaction
from shared_kernel.domain.outcome import Done, Lookup, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.requests import DerivTransfer, Leg, MpesaClaim, MpesaRequest, RequestStatus as R
from tests.simulation import deriv as deriv_side
from tests.simulation.faults import Network
from tests.simulation.ledger import Ledger
from tests.simulation.requests import MpesaRows, TransferRows
from tests.simulation.run import AGENTS, PAYBILL, Result, Simulation, digest
from tests.simulation.store import StoredAudit, StoredOutbox, clone

Patch = tuple[Any, str, Any]


class Broken(Simulation):
    """Runs with `patches`: object, name and what stands there instead."""

    patches: Sequence[Patch] = ()

    def __init__(self, seed: int, *, telling: bool = False) -> None:
        self.stack = ExitStack()
        for target, name, instead in self.patches:
            self.stack.enter_context(patch.object(target, name, instead))
        try:
            super().__init__(seed, telling=telling)
        except BaseException:
            self.stack.close()
            raise

    def play(self) -> Result:
        with self.stack:
            return super().play()


def answering(instead: Callable[[Unknown], Outcome]) -> Any:
    """Deriv's adapter, which makes something else of an unknown outcome."""
    send = deriv_side.Adapter.send

    def answer(self: deriv_side.Adapter, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        outcome = send(self, transfer, give_up_at=give_up_at)
        return instead(outcome) if isinstance(outcome, Unknown) else outcome

    return answer


class BlindRepeatOnUnknown(Broken):
    """What is not known is sent again."""

    patches = [(deriv_side.Adapter, "send", answering(lambda unknown: NotSent(unknown.code)))]


class TimeOutTakenForFailure(Broken):
    """No answer is a no."""

    patches = [(deriv_side.Adapter, "send", answering(lambda unknown: Refused(unknown.code)))]


class OutboxInItsOwnCommit(Broken):
    """Events are stored after the state, by a commit that may never come."""

    def _build_penpay(self) -> None:
        super()._build_penpay()
        told = self.store.after_commit
        later: list[Any] = []
        self.stack.enter_context(patch.object(StoredOutbox, "append", lambda outbox, events: later.extend(events)))

        def commit(events: Any) -> None:
            told(events)
            if later and not self.dice.chance(0.01):
                self.store.events += later
            later.clear()

        self.store.after_commit = commit


class NoKeyOnCallbacks(Broken):
    """A callback acts each time that it comes."""

    came = 0

    def _post(self, kind: str, path: str, body: bytes, surely: bool) -> None:
        super()._post(kind, path, body, surely)
        for request in list(self.mpesa_rows.table.rows.values()) if kind == "s" else ():
            if b'"ResultCode": 0' in body and request.checkout_request_id.encode() in body and request.receipt == "":
                row = self.store.table("transactions")[request.transaction_id]
                self.came += 1
                key = f"mpesa:{PAYBILL}:{request.id}:{self.came}"
                with self.store.unit_of_work():
                    self.ledger.post_deposit_received(
                        row.id,
                        row.user_id,
                        request.amount,
                        shortcode=PAYBILL,
                        provider_key=key,
                        at=self.schedule.clock(),
                    )
                return


def _claims_close(transaction: Transaction, attempt: MpesaRequest) -> Read:
    found = READ(transaction, attempt)
    is_no = found.claim is not None and found.claim.result_code not in {"0", "timeout"}
    if found.reading is Reading.SUSPECTED and is_no and attempt.leg is Leg.B2C_PAYOUT:
        return Read(Reading.DISPROVEN, found.claim)
    return found


READ = mpesa_payment.read


class NewIdOnAClaim(Broken):
    """A callback that says that a payout failed is believed: it is credited back, or goes out under a new id."""

    patches = [(mpesa_payment, "read", _claims_close)]


def _allow(deposit: Deposit, *, at: Any) -> None:
    deposit.refund_by_b2c = True
    deposit._touch(at)


def _goes(refund: Refund, transaction: Deposit, *, at: Any) -> bool:
    transaction.choose(Outflow.GIVE_BACK, at=at)
    return True


class RefundByTwoWays(Broken):
    """A refund by B2C while the reversal may still be made, and a step and a table that allow it."""

    patches = [
        (Deposit, "allow_refund_by_b2c", _allow),
        (Refund, "may_go", _goes),
        (MpesaRows, "_hold", lambda *_: None),
    ]


class RefusalOfARepeat(Broken):
    """A refusal of the repeat is taken for a refusal of the first: Deriv's."""

    def _request_rows(self) -> tuple[MpesaRows, TransferRows]:
        class Rows(TransferRows):
            def _apply(self, row: DerivTransfer, outcome: Outcome, at: Any) -> None:
                super()._apply(row, outcome, at)
                if isinstance(outcome, Refused):
                    row.status = R.REFUSED

        mpesa, _ = super()._request_rows()
        return mpesa, Rows(self.store)


class RefusalOfARepeatedReversal(Broken):
    """The same at M-Pesa, as it was: what goes again forgets that the first had been taken."""

    def _request_rows(self) -> tuple[MpesaRows, TransferRows]:
        class Rows(MpesaRows):
            def send_again(self, requests: Sequence[MpesaRequest]) -> None:
                for request in requests:
                    row = clone(self.table.rows[request.id])
                    row.was_unknown = row.was_unknown or row.status in {R.SENDING, R.UNKNOWN}
                    self._update(row, request, "fence", "status", "send_before")

        _, deriv = super()._request_rows()
        return Rows(self.store, digest), deriv


def _newest(request: MpesaRequest, outcome: Outcome, *, fence: int, at: Any) -> None:
    APPLY(request, outcome, fence=request.fence, at=at)


APPLY = request_rules.conclude


class NoFencing(Broken):
    """Whoever sent an attempt may say that nothing was sent, also after it went again."""

    patches = [(mpesa_application, "conclude", _newest)]

    def _request_rows(self) -> tuple[MpesaRows, TransferRows]:
        class Rows(TransferRows):
            def record_outcomes(self, outcomes: Any, *, at: Any) -> None:
                newest = [(replace(t, fence=self.table.rows[t.id].fence), outcome) for t, outcome in outcomes]
                super().record_outcomes(newest, at=at)

        mpesa, _ = super()._request_rows()
        return mpesa, Rows(self.store)


def _other_agent(adapter: deriv_side.Adapter, transfer: DerivTransfer) -> Lookup:
    others = [agent for agent in AGENTS[transfer.login.platform] if agent != transfer.agent]
    return FIND(adapter, replace(transfer, agent=others[0]))


FIND = deriv_side.Adapter.find


class CredentialChangedBetweenAttempts(Broken):
    """What became of a transfer is looked up in another agent's book."""

    patches = [(deriv_side.Adapter, "find", _other_agent)]


class ProviderKeyNotUnique(Broken):
    """The ledger's key is made anew for each posting, so that it names no movement."""

    def _build_penpay(self) -> None:
        super()._build_penpay()
        post, posted = Ledger.post_deposit_received, [0]

        def post_received(ledger: Ledger, *about: Any, provider_key: str, **more: Any) -> None:
            posted[0] += 1
            post(ledger, *about, provider_key=f"{provider_key}:{posted[0]}", **more)

        self.stack.enter_context(patch.object(Ledger, "post_deposit_received", post_received))


def _choose(transaction: Transaction, way: Outflow, *, at: Any) -> None:
    transaction.outflow = way
    transaction._touch(at)


def _gives_back(step: SendCredit, transaction: Any, request: DerivTransfer, outcome: Any, *, at: Any) -> None:
    if isinstance(outcome, Unknown) and step.credit.leg is Leg.DERIV_CREDIT and step.credit.is_under_way(transaction):
        step.credit.refused(transaction, outcome.code, "", at=at)
        return
    CONCLUDE(step, transaction, request, outcome, at=at)


CONCLUDE = SendCredit.conclude


class GiveBackWithoutTheChoice(Broken):
    """A step that gives back too early, and no choice that stops it."""

    patches = [(Transaction, "choose", _choose), (SendCredit, "conclude", _gives_back)]


def _frees(saga: DepositSaga, deposit: Deposit) -> bool:
    return FREES(saga, deposit) or any(transfer.status is R.UNKNOWN for transfer in deposit.transfers)


FREES = DepositSaga.frees_float


class ReservationReleasedOnUnknown(Broken):
    """A transfer without a known outcome gives its float back."""

    patches = [(DepositSaga, "frees_float", _frees)]


class AbsenceBelievedTooEarly(Broken):
    """The statement is believed before Deriv's time for a late commit is over."""

    patches = [(AskDeriv, "_settled_at", lambda step, transfer: transfer.created_at)]


def _paid_as_asked(leg: Payout, transaction: Any, attempt: Any, claim: MpesaClaim, *, proven: bool, at: Any) -> None:
    PAID(leg, transaction, attempt, replace(claim, amount=attempt.amount), proven=proven, at=at)


def _own_whatever_the_amount(kind: Any, claim: Any, attempt: Any) -> bool:
    return OWN(kind, replace(claim, amount=attempt.amount), attempt)


PAID, OWN = Payout.paid, callback_rules._is_its_own


class StatusBelievedForAnotherAmount(Broken):
    """Transaction Status answers for another amount, and is taken for the payout's own."""

    patches = [(callback_rules, "_is_its_own", _own_whatever_the_amount), (Payout, "paid", _paid_as_asked)]


def _believes(step: ConfirmPayment, request: Any, *, give_up_at: float) -> Outcome:
    claimed = any(claim.result_code == "0" and claim.agrees for claim in request.request.claims)
    return Done("") if claimed else CONFIRM(step, request, give_up_at=give_up_at)


CONFIRM = ConfirmPayment.call


class ClaimTakenForProof(Broken):
    """A callback that says that a prompt was paid is believed."""

    patches = [(ConfirmPayment, "call", _believes)]


def _sends_late(network: Network, request: Any, arrive: Any, *, give_up_at: float, most_late_s: float) -> Any:
    return SEND(network, request, arrive, give_up_at=float("inf"), most_late_s=most_late_s)


SEND = Network.send


class SenderNeverGivesUp(Broken):
    """Who slept before it wrote writes all the same."""

    patches = [(Network, "send", _sends_late)]


def _calls_inside(step: AskForPayment, transaction: Deposit, *, at: Any) -> Any:
    request = INTEND(step, transaction, at=at)
    if request is not None:
        step.mpesa.query(replace(request, checkout_request_id="ws_CO_0"))
    return request


INTEND = AskForPayment.intend


class CallInsideAUnitOfWork(Broken):
    """A provider is asked while rows are locked."""

    patches = [(AskForPayment, "intend", _calls_inside)]


class NoAuditRow(Broken):
    """One change of status in twenty is not told."""

    def _build_penpay(self) -> None:
        super()._build_penpay()
        append = StoredAudit.append

        def forget(audit: StoredAudit, records: Any) -> None:
            append(audit, [record for record in records if not self.dice.chance(0.05)])

        self.stack.enter_context(patch.object(StoredAudit, "append", forget))


def _forgets(transaction: Transaction, until: Any, *, at: Any) -> None:
    WAIT(transaction, until, at=at)
    if transaction.attempts > 5:
        transaction.next_step_at = None


WAIT = Transaction.wait


class NoTimer(Broken):
    """After some waiting nobody looks any more."""

    patches = [(Transaction, "wait", _forgets)]


class PaysWhoOwes(Broken):
    """A payout leaves although the customer owes."""

    patches = [(Ledger, "owing", lambda self, customers: set()), (Ledger, "newly_owing", lambda self: set())]


VARIANTS: dict[str, type[Simulation]] = {
    kind.__name__: kind
    for kind in (
        BlindRepeatOnUnknown, TimeOutTakenForFailure, OutboxInItsOwnCommit, NoKeyOnCallbacks, NewIdOnAClaim,
        RefundByTwoWays, RefusalOfARepeat, RefusalOfARepeatedReversal, NoFencing, CredentialChangedBetweenAttempts,
        ProviderKeyNotUnique, GiveBackWithoutTheChoice, ReservationReleasedOnUnknown, AbsenceBelievedTooEarly,
        StatusBelievedForAnotherAmount, ClaimTakenForProof, SenderNeverGivesUp, CallInsideAUnitOfWork, NoAuditRow,
        NoTimer, PaysWhoOwes,
    )
}  # fmt: skip
