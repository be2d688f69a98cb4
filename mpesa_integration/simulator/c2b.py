"""Payments that come in, by prompt or straight to the paybill: their books, C2B's registered URLs, confirmations."""

import asyncio
import json
from bisect import insort
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

from mpesa_integration.simulator.accounts import Payment
from mpesa_integration.simulator.core import AFTER, EAT, ON_CALLBACK, Core
from mpesa_integration.simulator.delivery import Delivery, heard
from mpesa_integration.simulator.fields import PHONE, Rule, is_amount, matching, one_of, text
from mpesa_integration.simulator.gateway import Gateway, Nothing, Struck
from shared_kernel.simulator import Answer, Handler


@dataclass(frozen=True, slots=True)
class Registration:
    """Where a shortcode's payments are told. v1 hashes the payer's number, v2 masks it."""

    version: int
    response_type: str
    confirmation_url: str
    validation_url: str


@dataclass
class C2b:
    """The paybill's incoming side."""

    core: Core
    gateway: Gateway
    delivery: Delivery

    def __post_init__(self) -> None:
        self.running: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive
        self.forget()

    def forget(self) -> None:
        """No payment, no URL."""
        self.paid: list[tuple[datetime, str, Payment]] = []  # by time, for Pull
        self.registered: dict[str, Registration] = {}

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What it serves, in both versions. `simulate` is of the sandbox alone."""

        def about(body: Mapping[str, Any]) -> dict[str, Any]:
            return {"phone": body.get("Msisdn"), "reference": body.get("BillRefNumber")}

        def register(version: int) -> Handler:
            async def handler(body: dict[str, Any]) -> Answer | None:
                return self._register(version, body)

            return self.gateway.product("c2b", handler)

        return {
            ("POST", "/mpesa/c2b/v1/registerurl"): register(1),
            ("POST", "/mpesa/c2b/v2/registerurl"): register(2),
            ("POST", "/mpesa/c2b/v1/simulate"): self.gateway.product("c2b", self._simulate, about),
            ("POST", "/mpesa/c2b/v2/simulate"): self.gateway.product("c2b", self._simulate, about),
        }

    def _register(self, version: int, body: dict[str, Any]) -> Answer | None:
        rules: dict[str, Rule] = {
            "ShortCode": one_of(self.core.shortcode, self.core.b2c_shortcode),
            "ResponseType": one_of("Completed", "Cancelled"),
            "ConfirmationURL": self.gateway.is_callback_url,
            "ValidationURL": self.gateway.is_callback_url,
        }
        if (refused := self.gateway.wrong(body, rules)) is not None:
            return refused
        if body["ShortCode"] in self.registered:
            return self.gateway.error(500, "500.003.1001", "Urls are already registered.")
        self.registered[body["ShortCode"]] = Registration(
            version, body["ResponseType"], body["ConfirmationURL"], body["ValidationURL"]
        )
        return self._accepted({}, "Success")

    async def _simulate(self, body: dict[str, Any]) -> Answer | None:
        rules: dict[str, Rule] = {
            "ShortCode": one_of(self.core.shortcode, self.core.b2c_shortcode),
            "CommandID": one_of("CustomerPayBillOnline"),
            "Amount": is_amount,
            "Msisdn": matching(PHONE),
            "BillRefNumber": text(1, 20),
        }
        if (refused := self.gateway.wrong(body, rules)) is not None:
            return refused
        self.pay(body["Msisdn"], body["Amount"], body["BillRefNumber"], body["ShortCode"])
        return self._accepted(
            {"phone": body["Msisdn"], "reference": body["BillRefNumber"]}, "Accept the service request successfully."
        )

    def _accepted(self, about: dict[str, Any], said: str) -> Answer | None:
        struck = self.core.faults.take("c2b", AFTER, **about) if about else {}
        if (answer := self.gateway.after(struck)) is not Nothing.STRUCK:
            return answer
        id = self.core.random.getrandbits(128)
        return Answer.json({"OriginatorCoversationID": f"{id:032x}", "ResponseCode": "0", "ResponseDescription": said})

    def pay(self, phone: str, amount: Any, reference: str, shortcode: str = "") -> None:
        """A customer pays the paybill from the phone's menu, with any reference. Raises `ValueError`."""
        if not isinstance(phone, str) or not PHONE.fullmatch(phone) or not is_amount(amount):
            raise ValueError("phone is 2547XXXXXXXX or 2541XXXXXXXX, amount whole shillings")
        task = asyncio.ensure_future(
            self._take_in(phone, Decimal(str(amount)), str(reference), shortcode or self.core.shortcode)
        )
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def _take_in(self, phone: str, amount: Decimal, reference: str, shortcode: str) -> None:
        resets = self.core.resets
        payment = self._payment(phone, amount, reference, shortcode)
        if await self._is_welcome(payment) and self.core.resets == resets:
            self.receive(payment, {}, kind="c2b")

    async def _is_welcome(self, payment: Payment) -> bool:
        """What the validation URL says; when it does not answer in time, what was registered for that case."""
        registered = self.registered.get(payment.shortcode)
        if not self.core.validation or registered is None:
            return True
        done = heard()
        body = self._notice(payment, registered, balance="")
        self.core.callbacks.post(registered.validation_url, body, 0, done)
        await asyncio.wait({done}, timeout=self.core.validation_s)
        try:
            return str(json.loads(done.result()[1])["ResultCode"]) == "0"
        except (asyncio.InvalidStateError, ValueError, LookupError, TypeError):
            return registered.response_type == "Completed"

    def from_prompt(self, phone: str, amount: Decimal, reference: str, faults: Struck, checkout: str) -> Payment:
        """An STK push that was paid: booked, and confirmed like any payment to the paybill."""
        payment = self._payment(phone, amount, reference, self.core.shortcode)
        self.receive(payment, faults, kind="stk", checkout_request_id=checkout)
        return payment

    def _payment(self, phone: str, amount: Decimal, reference: str, shortcode: str) -> Payment:
        now = self.core.clock()
        return Payment(
            kind="c2b",
            receipt=self.core.receipt(now),
            originator_id=self.core.gateway_id(),
            conversation_id=self.core.conversation_id(),
            phone=phone,
            shortcode=shortcode,
            amount=amount,
            reference=reference,
            initiated_at=now,
            finalised_at=now,
            fate="Completed",
        )

    def receive(self, payment: Payment, faults: Struck, **more: Any) -> None:
        """The money comes in: books, Pull's row, the confirmation; and goes again where M-Pesa reverses it later."""
        core, at = self.core, payment.initiated_at
        core.accounts.keep(payment)
        insort(self.paid, (at, payment.receipt, payment))
        account = f"{payment.shortcode}/{core.deposits_to}"
        core.accounts.move(payment.receipt, payment.reference, payment.phone, account, payment.amount, at, **more)
        about = {"phone": payment.phone, "reference": payment.reference}
        told = core.faults.take("c2b", ON_CALLBACK, **about) if core.faults.armed else {}
        self._confirm(payment, told)
        reverted = faults.get("reverted_later", told.get("reverted_later"))
        if reverted is not None:
            core.later(float(reverted.get("after_s", 1)), lambda: self._take_back(payment))

    def _take_back(self, payment: Payment) -> None:
        """M-Pesa reverses a payment by itself: nobody is told."""
        if not payment.reversed_by:
            at, account = self.core.clock(), f"{payment.shortcode}/{self.core.deposits_to}"
            self.core.accounts.take_back(payment, self.core.receipt(at), account, at, self.core.reversed_fate)

    def _confirm(self, payment: Payment, faults: Struck) -> None:
        registered = self.registered.get(payment.shortcode)
        if registered is None:
            return
        url, shown = registered.confirmation_url, payment
        if "forged_success" in faults:  # a payment that never was
            lie = replace(payment, receipt=self.core.receipt(payment.initiated_at), amount=payment.amount * 10)
            self.delivery.forge(url, self._notice(lie, registered))
        if (wrong := faults.get("wrong_amount")) is not None:
            shown = replace(payment, amount=Decimal(str(wrong.get("amount", payment.amount + 1))))
        self.delivery.send(url, self._notice(shown, registered), faults)

    def _notice(self, payment: Payment, registered: Registration, balance: str | None = None) -> bytes:
        phone = payment.phone
        hidden = sha256(phone.encode()).hexdigest() if registered.version == 1 else f"{phone[:4]} ***** {phone[-3:]}"
        held = self.core.accounts.of(payment.shortcode, self.core.deposits_to)
        said = {
            "TransactionType": "Pay Bill",
            "TransID": payment.receipt,
            "TransTime": f"{payment.initiated_at.astimezone(EAT):%Y%m%d%H%M%S}",
            "TransAmount": f"{payment.amount:.2f}",
            "BusinessShortCode": payment.shortcode,
            "BillRefNumber": payment.reference,
            "InvoiceNumber": "",
            "OrgAccountBalance": f"{held:.2f}" if balance is None else balance,
            "ThirdPartyTransID": "",
            "MSISDN": hidden,
            "FirstName": self.core.customers.at(phone).name.split(" ")[0],
            "MiddleName": "",
            "LastName": "",
        }
        return Answer.json(said).body
