"""M-Pesa Express: the STK push, what the subscriber does with the prompt, its callback, the STK query."""

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from mpesa_integration.simulator.c2b import C2b
from mpesa_integration.simulator.callbacks import Heard
from mpesa_integration.simulator.core import AFTER, EAT, ON_CALLBACK, ON_QUERY, Core
from mpesa_integration.simulator.customers import BEHAVIOURS, PAID, Customer
from mpesa_integration.simulator.delivery import Delivery, heard
from mpesa_integration.simulator.fields import FREE_TEXT, PHONE, SHORTCODE, is_amount
from mpesa_integration.simulator.gateway import Gateway, Nothing, Struck
from shared_kernel.simulator import Answer, Handler

MOST = 250_000


@dataclass(slots=True, eq=False)
class Prompt:
    """One STK push that was accepted."""

    merchant_request_id: str
    checkout_request_id: str
    phone: str
    amount: Decimal
    reference: str
    callback_url: str
    pushed_at: datetime
    faults: Struck
    result: tuple[int | str, str] | None = None
    receipt: str = ""
    paid_at: datetime | None = None
    called_back: Heard | None = None


@dataclass
class Express:
    """Prompts and their ends."""

    core: Core
    gateway: Gateway
    delivery: Delivery
    c2b: C2b

    def __post_init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """No prompt."""
        self.prompts: dict[str, Prompt] = {}
        self.open: dict[str, Prompt] = {}
        self.paid_lately: dict[tuple[str, Decimal], datetime] = {}
        self.queries = 0

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What it serves."""
        return {
            ("POST", "/mpesa/stkpush/v1/processrequest"): self.gateway.product("stk_push", self._push, self._about),
            ("POST", "/mpesa/stkpushquery/v1/query"): self.gateway.product("stk_query", self._query, self._about),
        }

    def _about(self, body: Mapping[str, Any]) -> dict[str, Any]:
        checkout = body.get("CheckoutRequestID")
        prompt = self.prompts.get(checkout) if isinstance(checkout, str) else None
        if prompt is not None:
            return {"phone": prompt.phone, "reference": prompt.reference}
        return {"phone": body.get("PhoneNumber"), "reference": body.get("AccountReference")}

    async def _push(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self._wrong_push(body)) is not None:
            return refused
        phone, faults = body["PhoneNumber"], self.core.faults
        if self.core.subscriber_lock and phone in self.open:
            text = "Unable to lock subscriber, a transaction is already in process for the current subscriber"
            return self.gateway.error(500, "500.001.1001", text)
        struck = faults.take("stk_push", AFTER | ON_CALLBACK, **self._about(body)) if faults.armed else {}
        prompt = self._prompt(body, struck)
        if "callback_before_answer" in struck:
            prompt.called_back = heard()
            self._decide(prompt)
            await asyncio.wait({prompt.called_back}, timeout=30)
        else:
            self._wait_for_decision(prompt)
        if struck and (answer := self.gateway.after(struck)) is not Nothing.STRUCK:
            return answer
        return Answer.json(
            {
                "MerchantRequestID": prompt.merchant_request_id,
                "CheckoutRequestID": prompt.checkout_request_id,
                "ResponseCode": "0",
                "ResponseDescription": "Success. Request accepted for processing",
                "CustomerMessage": "Success. Request accepted for processing",
            }
        )

    def _wait_for_decision(self, prompt: Prompt) -> None:
        customer = self.core.customers.at(prompt.phone)
        wait = self.core.prompt_s if customer.delay_s is None else customer.delay_s
        wait = self.core.prompt_lifetime_s if customer.behaviour == "ignore" else wait
        if customer.behaviour != "never":
            self.core.later(wait, lambda: self._decide(prompt))

    def _wrong_push(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self._wrong_signature(body)) is not None:
            return refused
        invalid = self.gateway.invalid
        if body.get("TransactionType") not in {"CustomerPayBillOnline", "CustomerBuyGoodsOnline"}:
            return invalid("TransactionType")
        if not is_amount(body.get("Amount")) or int(body["Amount"]) > MOST:
            return invalid("Amount")
        for name in ("PartyA", "PhoneNumber"):
            if not isinstance(body.get(name), str) or not PHONE.fullmatch(body[name]):
                return invalid(name)
        if body.get("PartyB") != self.core.shortcode:
            return invalid("PartyB")
        if not self.gateway.is_callback_url(body.get("CallBackURL")):
            return invalid("CallBackURL")
        reference, text = body.get("AccountReference"), body.get("TransactionDesc")
        if not isinstance(reference, str) or len(reference) > 12 or not FREE_TEXT.fullmatch(reference):
            return invalid("AccountReference")
        if not isinstance(text, str) or len(text) > 13 or not FREE_TEXT.fullmatch(text):
            return invalid("Remarks")
        return None

    def _wrong_signature(self, body: dict[str, Any]) -> Answer | None:
        shortcode, timestamp, password = (body.get(name) for name in ("BusinessShortCode", "Timestamp", "Password"))
        if not isinstance(shortcode, str) or not SHORTCODE.fullmatch(shortcode):
            return self.gateway.invalid("BusinessShortCode")
        if not isinstance(timestamp, str) or not self._is_now(timestamp):
            return self.gateway.invalid("Timestamp")
        if not isinstance(password, str):
            return self.gateway.invalid("Password")
        if shortcode != self.core.shortcode:
            return self.gateway.error(500, "500.001.1001", "Merchant does not exist")
        if password != b64encode(f"{shortcode}{self.core.passkey}{timestamp}".encode()).decode():
            return self.gateway.error(500, "500.001.1001", "Wrong credentials")
        return None

    def _is_now(self, timestamp: str) -> bool:
        try:
            at = datetime.strptime(timestamp, "%Y%m%d%H%M%S").replace(tzinfo=EAT)
        except ValueError:
            return False
        return len(timestamp) == 14 and abs(self.core.clock() - at) < timedelta(minutes=30)

    def _prompt(self, body: dict[str, Any], faults: Struck) -> Prompt:
        at, phone, random = self.core.clock(), body["PhoneNumber"], self.core.random
        checkout = ""
        while not checkout or checkout in self.prompts:
            stamp = at.astimezone(EAT)
            checkout = f"ws_CO_{stamp:%d%m%Y%H%M%S}{stamp.microsecond // 1000:03d}{phone[3:]}"
            at += timedelta(milliseconds=1)
        prompt = Prompt(
            merchant_request_id=f"{random.getrandbits(16):04x}-{random.getrandbits(16):04x}-{random.getrandbits(32):x}",
            checkout_request_id=checkout,
            phone=phone,
            amount=Decimal(str(body["Amount"])),
            reference=body["AccountReference"],
            callback_url=body["CallBackURL"],
            pushed_at=self.core.clock(),
            faults=faults,
        )
        self.prompts[checkout] = self.open[phone] = prompt
        return prompt

    def _decide(self, prompt: Prompt) -> None:
        """The subscriber did something, or did not in time."""
        customer, at = self.core.customers.at(prompt.phone), self.core.clock()
        prompt.result = result = self._decision(prompt, customer, at)
        if self.open.get(prompt.phone) is prompt:
            del self.open[prompt.phone]
        if result[0] == 0:
            self._take_money(prompt, at)
        self._call_back(prompt, result)

    def _decision(self, prompt: Prompt, customer: Customer, at: datetime) -> tuple[int | str, str]:
        if "forged_success" in prompt.faults:
            return BEHAVIOURS["cancel"]
        last = self.paid_lately.get((prompt.phone, prompt.amount), at - timedelta(hours=1))
        if self.core.duplicate_guard and at - last < timedelta(minutes=2):
            return 17, "Rule limited."
        if customer.behaviour == "pay" and customer.balance is not None and customer.balance < prompt.amount:
            return BEHAVIOURS["no_funds"]
        return BEHAVIOURS[customer.behaviour]

    def _take_money(self, prompt: Prompt, at: datetime) -> None:
        wrong = prompt.faults.get("wrong_amount")
        if wrong is not None and wrong.get("in_books"):
            prompt.amount = Decimal(str(wrong.get("amount", prompt.amount + 1)))
        self.paid_lately[(prompt.phone, prompt.amount)] = at
        payment = self.c2b.from_prompt(
            prompt.phone, prompt.amount, prompt.reference, prompt.faults, prompt.checkout_request_id
        )
        prompt.receipt, prompt.paid_at = payment.receipt, payment.initiated_at

    def _call_back(self, prompt: Prompt, result: tuple[int | str, str]) -> None:
        def forge(lie: tuple[int | str, str], receipt: str = "") -> None:
            self.delivery.forge(prompt.callback_url, self._callback(prompt, lie, receipt), prompt.called_back)

        body = self._callback(prompt, result)
        if "forged_failure" in prompt.faults:
            forge(BEHAVIOURS["cancel"])
        if "forged_success" in prompt.faults:
            forge((0, PAID), self.core.receipt(self.core.clock()))
            return
        self.delivery.send(prompt.callback_url, body, prompt.faults, prompt.called_back)

    def _callback(self, prompt: Prompt, result: tuple[int | str, str], receipt: str = "") -> bytes:
        callback: dict[str, Any] = {
            "MerchantRequestID": prompt.merchant_request_id,
            "CheckoutRequestID": prompt.checkout_request_id,
            "ResultCode": result[0],
            "ResultDesc": result[1],
        }
        if result[0] == 0:
            callback["CallbackMetadata"] = {"Item": self._items(prompt, receipt or prompt.receipt)}
        return Answer.json({"Body": {"stkCallback": callback}}).body

    def _items(self, prompt: Prompt, receipt: str) -> list[dict[str, Any]]:
        at = (prompt.paid_at or self.core.clock()).astimezone(EAT)
        amount, wrong = prompt.amount, prompt.faults.get("wrong_amount")
        if wrong is not None:
            amount = Decimal(str(wrong.get("amount", amount + 1)))
        phone = self.core.shown_phone(prompt.phone)
        return [
            {"Name": "Amount", "Value": float(amount)},
            {"Name": "MpesaReceiptNumber", "Value": receipt},
            {"Name": "Balance"},
            {"Name": "TransactionDate", "Value": int(f"{at:%Y%m%d%H%M%S}")},
            {"Name": "PhoneNumber", "Value": phone if self.core.masked else int(phone)},
        ]

    async def _query(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self._wrong_signature(body)) is not None:
            return refused
        checkout, faults = body.get("CheckoutRequestID"), self.core.faults
        prompt = self.prompts.get(checkout) if isinstance(checkout, str) else None
        if prompt is None:
            return self.gateway.invalid("CheckoutRequestID")
        struck = faults.take("stk_query", AFTER | ON_QUERY, **self._about(body)) if faults.armed else {}
        if struck and (answer := self.gateway.after(struck)) is not Nothing.STRUCK:
            return answer
        result = None if "pending_long" in struck else prompt.result
        if result is None:
            self.queries += 1
            if self.core.pending_form == "error" or (self.core.pending_form == "both" and self.queries % 2):
                return self.gateway.error(500, "500.001.1001", "The transaction is being processed")
            result = BEHAVIOURS["never"]
        return Answer.json(
            {
                "ResponseCode": "0",
                "ResponseDescription": "The service request has been accepted successsfully",
                "MerchantRequestID": prompt.merchant_request_id,
                "CheckoutRequestID": prompt.checkout_request_id,
                "ResultCode": str(result[0]),
                "ResultDesc": result[1],
            }
        )
