"""M-Pesa in memory: the sagas' port over rows of the world, with the provider behind it. Attempts change by the
integration's own rule.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from mpesa_integration.domain.request import OPEN, OUTFLOWS, OutflowOpen, PromptOpen, conclude, shillings
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Done, Outcome, Unknown, Unreadable
from shared_kernel.domain.requests import (
    SEND_WINDOW,
    Blame,
    Leg,
    MpesaClaim,
    MpesaPayment,
    MpesaRequest,
    RequestStatus,
)
from tests.in_memory_world import World

FEE = Money(5_00, Currency.KES)


@dataclass
class InMemoryMpesa:
    """The M-Pesa port and the provider behind it: `answers` are given to the next pushes, then they are accepted."""

    world: World
    answers: list[Outcome | Callable[[MpesaRequest], Outcome]] = field(default_factory=list)
    pushed: list[MpesaRequest] = field(default_factory=list)
    book: list[MpesaPayment] = field(default_factory=list)  # what Pull shows
    settled: dict[str, Outcome] = field(default_factory=dict)  # by reference: what the query says
    book_is_down: bool = False
    queried: int = 0
    sent: list[MpesaRequest] = field(default_factory=list)  # all but prompts
    payouts: list[Outcome | Callable[[MpesaRequest], Outcome]] = field(default_factory=list)  # B2C's next answers
    reversals: list[Outcome | Callable[[MpesaRequest], Outcome]] = field(default_factory=list)
    paid_out: dict[str, Money] = field(default_factory=dict)  # by OriginatorConversationID
    refused: dict[str, Blame] = field(default_factory=dict)  # by the same: declined, and whose matter it is
    reversed: set[str] = field(default_factory=set)  # receipts
    fates: dict[str, str] = field(default_factory=dict)  # by reference: what a status query says whatever is true
    is_silent: bool = False  # no result callback comes
    status_is_down: bool = False  # a status query is taken and never answered

    def requests_of(
        self, transactions: Sequence[TransactionId], outcomes: Sequence[tuple[MpesaRequest, Outcome]] = ()
    ) -> Mapping[TransactionId, list[MpesaRequest]]:
        assert self.world.open
        for request, outcome in outcomes:
            row = self.world.prompts[request.id] = copy.copy(self.world.prompts[request.id])
            conclude(row, outcome, fence=request.fence, at=self.world.now)
        found: dict[TransactionId, list[MpesaRequest]] = {}
        for request in self.world.prompts.values():
            if request.transaction_id in transactions:
                found.setdefault(request.transaction_id, []).append(copy.deepcopy(request))
        return found

    def record(self, requests: Sequence[MpesaRequest]) -> None:
        assert self.world.open
        for request in requests:
            others = [r for r in self.world.prompts.values() if r.id != request.id and r.status in OPEN]
            if any(r.leg is request.leg is Leg.STK_PUSH and r.phone == request.phone for r in others):
                raise PromptOpen("another prompt is open on this phone")
            flows = [r for r in others if r.leg in OUTFLOWS and r.transaction_id == request.transaction_id]
            if request.leg in OUTFLOWS and flows:
                raise OutflowOpen("another attempt of this Transaction is open")
            known = self.world.prompts.get(request.id)
            self.world.prompts[request.id] = copy.deepcopy(request)
            if known:
                unsettled = known.status in {RequestStatus.SENDING, RequestStatus.UNKNOWN}
                self.world.prompts[request.id].was_unknown = known.was_unknown or unsettled
            self.world.prompts[request.id].claims = known.claims if known else []

    def save(self, requests: Sequence[MpesaRequest]) -> None:
        assert self.world.open
        for request in requests:
            claims = self.world.prompts[request.id].claims
            self.world.prompts[request.id] = copy.deepcopy(request)
            self.world.prompts[request.id].claims = claims

    def busy_phones(self, phones: Iterable[Phone]) -> set[Phone]:
        busy = {r.phone for r in self.world.prompts.values() if r.leg is Leg.STK_PUSH and r.status in OPEN}
        return busy & set(phones)

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
        shillings(amount, leg)
        return MpesaRequest(
            id=RequestId(self.world.new_id()),
            transaction_id=transaction,
            leg=leg,
            attempt=attempt,
            reference=f"REF{transaction.int:09d}" if leg is Leg.STK_PUSH else f"{leg}-{transaction.int}-{attempt}",
            about=about,
            amount=amount,
            send_before=at + SEND_WINDOW,
            created_at=at,
            phone=phone,
            shortcode="174379",
        )

    def send(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        assert not self.world.open, "M-Pesa was called inside a unit of work"
        if request.leg is not Leg.STK_PUSH:
            return self._send(request)
        self.pushed.append(copy.deepcopy(request))
        answer = self.answers.pop(0) if self.answers else Accepted({"CheckoutRequestID": f"ws_CO_{request.reference}"})
        return answer(request) if callable(answer) else answer

    def _send(self, request: MpesaRequest) -> Outcome:
        self.sent.append(copy.deepcopy(request))
        match request.leg:
            case Leg.STATUS_QUERY:
                self._tell_state(request)
                return Accepted({"ConversationID": f"AG_{request.reference}"})
            case Leg.REVERSAL:
                answer = self.reversals.pop(0) if self.reversals else self.reverses
            case _:
                answer = self.payouts.pop(0) if self.payouts else self.pays_out
        return answer(request) if callable(answer) else answer

    def _tell_state(self, query: MpesaRequest) -> None:
        if self.status_is_down:
            return
        paid = self.paid_out.get(query.about)
        said = self.fates.get(query.about) or (
            "Completed" if paid else "Declined" if query.about in self.refused else ""
        )
        if said == "Completed":
            amount = paid or query.amount
            receipt = self.receipt_of(query.about)
            claim = MpesaClaim("0", self.world.now, amount, receipt, fate=said, fee=FEE)
        elif said:
            claim = MpesaClaim("0", self.world.now, fate=said)
        else:
            claim = MpesaClaim("2032", self.world.now)
        self.world.prompts[query.id].claims.append(claim)

    def receipt_of(self, reference: str) -> str:
        """M-Pesa's own id of a payment by us."""
        return f"UKB{[*self.paid_out, reference].index(reference) + 1:07d}"

    # --- what the provider does with money that leaves ------------------------------------------------------------

    def pays_out(self, request: MpesaRequest) -> Outcome:
        """It takes effect, and the result callback comes."""
        self.paid_out[request.reference] = request.amount
        self.tells(
            request, MpesaClaim("0", self.world.now, request.amount, self.receipt_of(request.reference), fee=FEE)
        )
        return Accepted({"ConversationID": f"AG_{request.reference}"})

    def pays_out_in_silence(self, request: MpesaRequest) -> Outcome:
        """It takes effect, and neither answer nor callback comes."""
        self.paid_out[request.reference] = request.amount
        return Unknown("timeout")

    def pays_out_another(self, amount: Money) -> Callable[[MpesaRequest], Outcome]:
        """It takes effect with another amount, and says so: by its callback, which disagrees, and by status answers."""

        def answer(request: MpesaRequest) -> Outcome:
            self.paid_out[request.reference] = amount
            self.tells(request, MpesaClaim("0", self.world.now, amount, self.receipt_of(request.reference), False))
            return Accepted({"ConversationID": f"AG_{request.reference}"})

        return answer

    def takes(self, request: MpesaRequest) -> Outcome:
        """It is queued, and nothing is heard of it."""
        return Accepted({"ConversationID": f"AG_{request.reference}"})

    def times_out(self, request: MpesaRequest) -> Outcome:
        """It is queued, and the time-out notice comes: it may still be paid."""
        self.tells(request, MpesaClaim("timeout", self.world.now))
        return self.takes(request)

    def declines(self, blame: Blame, code: str = "2040") -> Callable[[MpesaRequest], Outcome]:
        """It is taken, and then fails."""

        def answer(request: MpesaRequest) -> Outcome:
            self.refused[request.reference] = blame
            self.tells(request, MpesaClaim(code, self.world.now, blame=blame))
            return Accepted({"ConversationID": f"AG_{request.reference}"})

        return answer

    def reverses(self, request: MpesaRequest) -> Outcome:
        """The payment goes back; a second time it is refused with R000001."""
        code = "R000001" if request.about in self.reversed else "0"
        self.reversed.add(request.about)
        self.tells(request, MpesaClaim(code, self.world.now, request.amount if code == "0" else None))
        return self.takes(request)

    def reverses_in_silence(self, request: MpesaRequest) -> Outcome:
        """The payment goes back, and neither answer nor callback comes."""
        self.reversed.add(request.about)
        return Unknown("timeout")

    def refuses_reversal(self, request: MpesaRequest) -> Outcome:
        """It is taken, and then fails for good."""
        self.tells(request, MpesaClaim("R000002", self.world.now, blame=Blame.OURS))
        return self.takes(request)

    def tells(self, request: MpesaRequest, claim: MpesaClaim) -> None:
        """A callback comes to the request's own URL."""
        if not self.is_silent:
            self.world.prompts[request.id].claims.append(claim)

    def forges(
        self, request: MpesaRequest, code: str = "0", *, fee: Money | None = None, blame: Blame = Blame.NONE
    ) -> None:
        """Somebody who knows the URL claims something of it."""
        amount, receipt = (request.amount, "UKF0000001") if code == "0" else (None, "")
        claim = MpesaClaim(code, self.world.now, amount, receipt, fee=fee, blame=blame)
        self.world.prompts[request.id].claims.append(claim)

    # --- what the provider does with money that comes -------------------------------------------------------------

    def query(self, request: MpesaRequest) -> Outcome:
        assert not self.world.open, "M-Pesa was called inside a unit of work"
        self.queried += 1
        return self.settled.get(request.reference, Accepted())

    def payments(self, request: MpesaRequest) -> Sequence[MpesaPayment] | Unreadable:
        assert not self.world.open, "M-Pesa was called inside a unit of work"
        if self.book_is_down:
            return Unreadable("503")
        return [payment for payment in self.book if payment.reference == request.reference]

    def pays(self, reference: str, amount: Money, receipt: str = "UKM0000001") -> None:
        """The customer types the PIN."""
        self.settled[reference] = Done("")
        self.book.append(MpesaPayment(receipt, reference, amount, self.world.now))

    def calls_back(self, transaction: UUID, *, code: str = "0", agrees: bool = True) -> None:
        """A callback arrives on the attempt's own URL: true or not."""
        for request in self.world.prompts.values():
            if request.transaction_id == transaction and request.leg is Leg.STK_PUSH:
                request.claims.append(MpesaClaim(code, self.world.now, request.amount, "UKM0000001", agrees))
