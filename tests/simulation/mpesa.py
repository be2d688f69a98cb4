"""M-Pesa, simulated: prompts, payouts, reversals, status by callback, its own book; and the adapter that calls it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import MpesaPayment, MpesaRequest
from tests.simulation import messages
from tests.simulation.books import LATE, Books, Movement
from tests.simulation.faults import Dice, Network
from tests.simulation.schedule import Schedule
from wallet.domain.ledger import Account, mpesa_charges_paid, mpesa_utility, mpesa_working

FEE = 13_00
PULL_LAG_S = 500.0  # a payment is in the book by then
DECLINES = ("2040", "2040", "8", "SFC_IC0003", "1", "24", "2001")  # whose matter they are differs
NOT_DECIDED = "100000001"  # a result that decides nothing


@dataclass
class Prompt:
    """An STK push on a phone."""

    request: MpesaRequest
    path: str
    checkout_request_id: str
    merchant_request_id: str
    code: str = ""  # empty while it is open
    told_from: float = 0.0  # until then the query says that it is being processed
    receipt: str = ""


@dataclass
class Payout:
    """A B2C payment, by its OriginatorConversationID."""

    request: MpesaRequest
    result: str
    timeout: str
    conversation_id: str
    status: str = "Initiated"
    amount: int = 0
    receipt: str = ""


@dataclass
class Received:
    """What the shortcode got: a line of the book."""

    payment: MpesaPayment
    transaction: TransactionId
    request: RequestId
    visible_from: float
    reversed: bool = False


@dataclass
class Provider:
    """The provider: what arrives here is carried out, or refused, once."""

    schedule: Schedule
    dice: Dice
    books: Books
    call_back: Callable[[str, str, bytes, bool], None]  # kind, path, body, whether it surely comes
    confirm_path: str = ""
    prompts: dict[str, Prompt] = field(default_factory=dict)  # by CheckoutRequestID
    on_phone: dict[Phone, Prompt] = field(default_factory=dict)
    payouts: dict[str, Payout] = field(default_factory=dict)
    received: dict[str, Received] = field(default_factory=dict)  # by receipt
    last: int = 0

    def number(self) -> int:
        self.last += 1
        return self.last

    def receipt(self) -> str:
        return f"U{self.number():09d}"

    # --- prompts ------------------------------------------------------------------------------------------------------

    def push(self, request: MpesaRequest, path: str) -> Outcome:
        """One prompt a phone; the customer does something with it within two minutes."""
        if request.phone in self.on_phone or self.dice.happens("refuses"):
            self.books.settled(request.id)
            return Refused("500.001.1001", "Another M-Pesa request was open on your phone.")
        number = self.number()
        prompt = Prompt(request, path, f"ws_CO_{number}", f"mr-{number}")
        self.prompts[prompt.checkout_request_id] = self.on_phone[request.phone] = prompt
        decides = self.dice.random.choice(("0",) * 9 + ("1032", "1", "2001", "1037"))
        after = self.dice.between(60, 110) if decides == "1037" else self.dice.between(0.3, 50)
        self.schedule.after(after, lambda: self._settle(prompt, decides))
        self._forge_prompt(prompt)
        return Accepted({"CheckoutRequestID": prompt.checkout_request_id, "MerchantRequestID": f"mr-{number}"})

    def _settle(self, prompt: Prompt, code: str) -> None:
        prompt.code = code
        prompt.told_from = self.schedule.now + (self.dice.between(5, 900) if self.dice.happens("lag") else 0.0)
        if self.on_phone.get(prompt.request.phone) is prompt:
            del self.on_phone[prompt.request.phone]
        if code == "0":
            prompt.receipt = self._take(prompt.request, prompt.request.amount, prompt.request.reference)
        elif code == "1037" and self.dice.happens("late"):  # the phone answers after all
            self.schedule.after(self.dice.between(30, 1200), lambda: self._pay_late(prompt))
            return
        self.books.settled(prompt.request.id)
        self.call_back("s", prompt.path, messages.stk(prompt, code), False)

    def _pay_late(self, prompt: Prompt) -> None:
        """Told for certain, if late: nothing but the callback would tell it to us."""
        prompt.code, prompt.receipt = (
            "0",
            self._take(prompt.request, prompt.request.amount, prompt.request.reference, LATE),
        )
        self.books.settled(prompt.request.id)
        self.call_back("s", prompt.path, messages.stk(prompt, "0"), True)

    def _take(self, request: MpesaRequest, amount: Money, reference: str, about: str = "") -> str:
        receipt, lag = self.receipt(), self.dice.between(5, PULL_LAG_S) if self.dice.happens("lag") else 0.0
        payment = MpesaPayment(receipt, reference, amount, self.schedule.clock())
        self.received[receipt] = Received(payment, request.transaction_id, request.id, self.schedule.now + lag)
        self._move(mpesa_working(request.shortcode), amount.amount, request, receipt, about=about)
        return receipt

    def pays_by_hand(self, request: MpesaRequest) -> None:
        """The prompt never came, and the customer pays to the same reference from the phone's menu."""
        amount = request.amount
        if self.dice.chance(0.5):
            amount = Money(amount.amount + self.dice.random.choice((-100_00, 50_00)), Currency.KES)
        receipt = self._take(request, amount, request.reference)
        body = messages.confirmation(receipt, amount, request.reference, request.shortcode)
        self.call_back("c", self.confirm_path, body, False)

    def query(self, request: MpesaRequest) -> Outcome:
        prompt = self.prompts.get(request.checkout_request_id)
        if prompt is None:
            return Unknown("500.001.1001")
        if not prompt.code or self.schedule.now < prompt.told_from:
            return Accepted()
        return Done("") if prompt.code == "0" else Refused(prompt.code, "It was not paid.")

    def pull(self, request: MpesaRequest, at: datetime) -> list[MpesaPayment]:
        now = self.schedule.now
        return [
            row.payment
            for row in self.received.values()
            if row.payment.reference == request.reference
            and row.visible_from <= now
            and at - row.payment.paid_at < timedelta(hours=48)
        ]

    def _forge_prompt(self, prompt: Prompt) -> None:
        if self.dice.happens("forged"):
            code = self.dice.random.choice(("0", "0", "1032"))
            lie = Prompt(prompt.request, prompt.path, prompt.checkout_request_id, prompt.merchant_request_id)
            lie.receipt = f"F{self.number():09d}"
            if self.dice.chance(0.4):
                lie.checkout_request_id = f"ws_CO_F{self.number()}"
            self._forge("s", prompt.path, messages.stk(lie, code))

    def _forge(self, kind: str, path: str, body: bytes) -> None:
        after = self.dice.between(0.1, 60) if self.dice.chance(0.7) else self.dice.between(60, 100_000)
        self.schedule.after(after, lambda: self.call_back(kind, path, body, False))

    # --- payouts ------------------------------------------------------------------------------------------------------

    def pay(self, request: MpesaRequest, result: str, timeout: str) -> Outcome:
        """Queued; an OriginatorConversationID is taken once."""
        if request.reference in self.payouts:
            self.books.settled(request.id)
            return Unknown("500.002.1001")
        if self.dice.happens("refuses"):
            self.books.settled(request.id)
            return Refused("400.002.02", "Invalid.")
        payout = Payout(request, result, timeout, f"AG_{self.number()}")
        self.payouts[request.reference] = payout
        is_slow = self.dice.happens("pending")
        after = self.dice.between(60, 20_000) if is_slow else self.dice.between(0.3, 20)
        if is_slow and self.dice.chance(0.3):
            body = messages.payout(payout, self.dice.random.choice((NOT_DECIDED, "26")))
            self.schedule.after(after / 2, lambda: self.call_back("b", result, body, False))
        self.schedule.after(after, lambda: self._decide(payout))
        self._forge_payout(payout)
        return Accepted({"ConversationID": payout.conversation_id})

    def _decide(self, payout: Payout) -> None:
        request, account = payout.request, mpesa_utility(payout.request.shortcode)
        self.books.settled(request.id)
        too_low = self.books.balances.get(account, 0) < request.amount.amount
        if too_low or self.dice.happens("declines"):
            code = "1" if too_low else self.dice.random.choice(DECLINES)
            payout.status = "Declined"
            self.call_back("b", payout.result, messages.payout(payout, code), False)
            return
        more = 100_00 if self.dice.happens("other_amount") else 0
        payout.status, payout.amount, payout.receipt = "Completed", request.amount.amount + more, self.receipt()
        self._move(account, -payout.amount, request, payout.receipt)
        self._move(mpesa_charges_paid(request.shortcode), -FEE, request, f"{payout.receipt}F", is_fee=True)
        if self.dice.happens("pending"):
            self.call_back("bt", payout.timeout, messages.timeout(payout.conversation_id), False)
        self.call_back("b", payout.result, messages.payout(payout, "0"), False)

    def _forge_payout(self, payout: Payout) -> None:
        if self.dice.happens("forged"):
            code = self.dice.random.choice(("0", "0", "2040", "1"))
            lie = Payout(payout.request, payout.result, payout.timeout, payout.conversation_id)
            lie.amount, lie.receipt = payout.request.amount.amount, f"F{self.number():09d}"
            self._forge("b", payout.result, messages.payout(lie, code, fee=self.dice.random.choice((0, FEE, 99_00))))

    def ask_status(self, request: MpesaRequest, result: str, timeout: str) -> Outcome:
        """Answered by callback, as it stands then."""
        self.books.settled(request.id)
        conversation = f"AG_{self.number()}"

        def tell() -> None:
            payout = self.payouts.get(request.about)
            body = messages.status(payout, request, conversation, FEE)
            self.call_back("t", result, body, False)

        self.schedule.after(self.dice.between(0.2, 20), tell)
        return Accepted({"ConversationID": conversation})

    # --- reversals ----------------------------------------------------------------------------------------------------

    def reverse(self, request: MpesaRequest, result: str, timeout: str) -> Outcome:
        """Once a payment; another one is refused with R000001."""
        if self.dice.happens("no_reversal") and self.dice.chance(0.6):
            self.books.settled(request.id)
            return Refused("400.002.02", "Invalid.")
        conversation = f"AG_{self.number()}"
        is_slow = self.dice.happens("pending")
        after = self.dice.between(60, 20_000) if is_slow else self.dice.between(0.3, 20)
        self.schedule.after(after, lambda: self._decide_reversal(request, result, conversation))
        if self.dice.happens("forged"):
            lie = messages.reversal(request, f"F{self.number():09d}", conversation, self.dice.random.choice(("0", "1")))
            self._forge("r", result, lie)
        return Accepted({"ConversationID": conversation})

    def _decide_reversal(self, request: MpesaRequest, result: str, conversation: str) -> None:
        self.books.settled(request.id)
        row, receipt = self.received.get(request.about), self.receipt()
        if row is not None and row.reversed:
            code = "R000001"
        elif row is None or row.payment.amount != request.amount:  # no part of a payment is reversed
            code = "R000002"
        elif self.dice.happens("no_reversal"):
            code = self.dice.random.choice(("1", "2006"))
        else:
            code, row.reversed = "0", True
            self._move(mpesa_working(request.shortcode), -row.payment.amount.amount, request, receipt)
        self.call_back("r", result, messages.reversal(request, receipt, conversation, code), False)

    def _move(
        self,
        account: Account,
        delta: int,
        request: MpesaRequest,
        receipt: str,
        *,
        is_fee: bool = False,
        about: str = "",
    ) -> None:
        now, transaction = self.schedule.now, request.transaction_id
        self.books.move(
            Movement(receipt, account, delta, transaction, request.leg, request.id, now, is_fee=is_fee, about=about)
        )


@dataclass(frozen=True)
class Adapter:
    """`Daraja` over the simulated network."""

    provider: Provider
    network: Network

    def push(self, request: MpesaRequest, callback_path: str, *, give_up_at: float) -> Outcome:
        return self._send(request, lambda: self.provider.push(request, callback_path), give_up_at, 50)

    def pay(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        return self._send(request, lambda: self.provider.pay(request, result, timeout), give_up_at, 4000)

    def reverse(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        return self._send(request, lambda: self.provider.reverse(request, result, timeout), give_up_at, 4000)

    def ask_status(self, request: MpesaRequest, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        return self._send(request, lambda: self.provider.ask_status(request, result, timeout), give_up_at, 4000)

    def _send(self, request: MpesaRequest, arrive: Callable[[], Outcome], give_up_at: float, late_s: float) -> Outcome:
        outcome: Outcome = self.network.send(request, arrive, give_up_at=give_up_at, most_late_s=late_s)
        return outcome

    def query(self, request: MpesaRequest) -> Outcome:
        said = self.network.ask(lambda: self.provider.query(request))
        return said if said is not None else self.provider.dice.random.choice((Unknown("503"), NotSent("busy", 5)))

    def payments(self, request: MpesaRequest, *, at: datetime) -> Sequence[MpesaPayment] | Unreadable:
        said = self.network.ask(lambda: self.provider.pull(request, at))
        return Unreadable("503") if said is None else said

    def ask_balance(self, shortcode: str, result: str, timeout: str, *, give_up_at: float) -> Outcome:
        raise NotImplementedError("the sagas ask for no balance")

    def received(self, shortcode: str, since: datetime, until: datetime, *, at: datetime) -> Any:
        raise NotImplementedError("the sagas don't look for orphans")

    def register(self, shortcode: str, confirmation: str, validation: str) -> Outcome:
        raise NotImplementedError("the sagas register nothing")
