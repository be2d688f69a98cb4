"""B2C v3: our shortcode pays a customer. Result to ResultURL, time-out notice to QueueTimeOutURL."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from mpesa_integration.simulator.accounts import SAFARICOM, Payment, fee
from mpesa_integration.simulator.core import EAT, Core
from mpesa_integration.simulator.customers import RECEIVING
from mpesa_integration.simulator.fields import (
    ORIGINATOR_ID,
    PHONE,
    Rule,
    is_amount,
    is_credential,
    matching,
    one_of,
    optional,
    text,
)
from mpesa_integration.simulator.gateway import Gateway
from mpesa_integration.simulator.results import Job, Result, Results
from shared_kernel.simulator import Answer, Handler

LEAST, MOST = Decimal(10), Decimal(250_000)
DAY_LIMIT, WALLET_LIMIT = Decimal(500_000), Decimal(500_000)
FLOAT_LOW = (1, "The balance is insufficient for the transaction.", "Declined")
TOO_LITTLE = (2, "Declined due to limit rule", "Declined")
TOO_MUCH = (3, "Declined due to limit rule", "Declined")


@dataclass
class Payouts:
    """Pays customers from the utility account, once for each OriginatorConversationID."""

    core: Core
    gateway: Gateway
    results: Results

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What it serves. v1 is not: it has no duplicate guard, and nobody here may use it."""
        return {("POST", "/mpesa/b2c/v3/paymentrequest"): self.gateway.product("b2c", self._pay, about)}

    def _rules(self) -> dict[str, Rule]:
        return {
            "OriginatorConversationID": matching(ORIGINATOR_ID),
            "InitiatorName": text(1, 50),
            "SecurityCredential": is_credential,
            "CommandID": one_of("BusinessPayment", "SalaryPayment", "PromotionPayment"),
            "Amount": is_amount,
            "PartyA": one_of(self.core.b2c_shortcode),
            "PartyB": matching(PHONE),
            "Remarks": text(2, 100),
            "QueueTimeOutURL": self.gateway.is_callback_url,
            "ResultURL": self.gateway.is_callback_url,
            "Occassion": optional(text(1, 100)),
        }

    async def _pay(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self.gateway.wrong(body, self._rules())) is not None:
            return refused
        if body["OriginatorConversationID"] in self.core.accounts.by_id:
            return self.gateway.error(500, "500.002.1001", "Duplicate OriginatorConversationID.")
        core, at = self.core, self.core.clock()
        receipt = core.receipt(at)  # a failure has one, too: it proves nothing
        job = self.results.job(
            "b2c", body, about(body), originator_id=body["OriginatorConversationID"], receipt=receipt
        )
        payment = Payment(
            kind="b2c",
            receipt=receipt,
            originator_id=job.originator_id,
            conversation_id=job.conversation_id,
            phone=body["PartyB"],
            shortcode=body["PartyA"],
            amount=Decimal(str(body["Amount"])),
            reference=job.originator_id,
            initiated_at=at,
        )
        core.accounts.keep(payment)
        return await self.results.accept(job, partial(self._conclude, payment))

    def _conclude(self, payment: Payment, job: Job) -> None:
        faults = job.faults
        if (late := faults.get("failure_then_late_success")) is not None:
            failure = Result(late.get("code", 2040), str(late.get("text", RECEIVING["unregistered"][1])))
            self._finish_late(payment, job, failure, late.get("fate", "Authorized"), late.get("after_s", 1))
            return
        if "queue_timeout" in faults and (fate := faults["queue_timeout"].get("fate", "Expired")) != "Completed":
            payment.fate, payment.finalised_at = fate, self.core.clock()
            self.results.notice(job)
            return
        code, said, fate = self._outcome(payment, job)
        if code == 100000000:  # cached at the core: M-Pesa sends it again by itself
            delay = self.core.customers.at(payment.phone).delay_s
            self._finish_late(payment, job, Result(code, said), fate, 5 if delay is None else delay)
            return
        self._finish(payment, job, Result(code, said), fate)

    def _finish_late(self, payment: Payment, job: Job, failure: Result, fate: str, after_s: Any) -> None:
        payment.fate = fate
        self.results.tell(job, failure)
        self.core.later(float(after_s), lambda: self._finish(payment, job, Result(), "Completed"))

    def _finish(self, payment: Payment, job: Job, result: Result, fate: str) -> None:
        """The end of a payment: money, fate, and the result unless it has no words."""
        payment.fate = fate
        if fate == "Completed":
            self._move(payment, job)
            result = self._paid(payment, job)
        if fate in {"Completed", "Declined", "Cancelled", "Expired"}:
            payment.finalised_at = self.core.clock()
        if not result.text:
            return
        lie = job.faults.get("forged_failure")
        if lie is not None and lie.get("when", "before") == "before":
            self._forge_failure(job, lie)
        if "forged_success" in job.faults:
            self.results.forge(job, self._paid(payment, job))
        self.results.tell(job, result)
        if lie is not None and lie.get("when") == "after":
            self.core.later(float(lie.get("after_s", 0.2)), lambda: self._forge_failure(job, lie))

    def _forge_failure(self, job: Job, lie: Mapping[str, Any]) -> None:
        code, said, _ = RECEIVING["unregistered"]
        self.results.forge(job, Result(lie.get("code", code), str(lie.get("text", said))))

    def _outcome(self, payment: Payment, job: Job) -> tuple[int | str, str, str]:
        """Code, text and fate, by what the core looks at: initiator, amount, recipient, limits, float."""
        if job.refused is not None:
            return *job.refused, "Declined"
        if job.forced is not None:
            return job.forced.code, job.forced.text, job.faults["result_with"].get("fate", "Declined")
        if not LEAST <= payment.amount <= MOST:
            return TOO_LITTLE if payment.amount < LEAST else TOO_MUCH
        if "forged_success" in job.faults:
            return RECEIVING["unregistered"]
        receives = self.core.customers.at(payment.phone).receives
        if receives == "ok":
            receives = self._limited(payment)
        if receives == "ok" and self.core.accounts.of(payment.shortcode, "utility") < payment.amount:
            return FLOAT_LOW
        return RECEIVING[receives]

    def _limited(self, payment: Payment) -> str:
        if not self.core.customer_limits:
            return "ok"
        customer, today = self.core.customers.at(payment.phone), self.core.clock().astimezone(EAT).date()
        if customer.received.get(today, Decimal(0)) + payment.amount > DAY_LIMIT:
            return "over_day"
        if customer.balance is not None and customer.balance + payment.amount > WALLET_LIMIT:
            return "over_wallet"
        return "ok"

    def _move(self, payment: Payment, job: Job) -> None:
        """The payment and its charge, from two accounts of the shortcode."""
        wrong, core, at = job.faults.get("wrong_amount"), self.core, self.core.clock()
        if wrong is not None and wrong.get("in_books"):
            payment.amount = _wrong(payment, wrong)
        payment.fee = fee(payment.amount)
        day, received = at.astimezone(EAT).date(), core.customers.at(payment.phone).received
        received[day] = received.get(day, Decimal(0)) + payment.amount
        known, ours = {"kind": "b2c", "conversation_id": payment.conversation_id}, payment.shortcode
        core.accounts.move(
            payment.receipt, payment.reference, f"{ours}/utility", payment.phone, payment.amount, at, **known
        )
        if payment.fee:
            charges, id = f"{ours}/charges_paid", f"{payment.receipt}-fee"
            core.accounts.move(id, payment.receipt, charges, SAFARICOM, payment.fee, at, kind="fee")

    def _paid(self, payment: Payment, job: Job) -> Result:
        """Success in the words of the contract; the time is text with dots here, and only here."""
        core, ours = self.core, payment.shortcode
        at = (payment.finalised_at or core.clock()).astimezone(EAT)
        wrong = job.faults.get("wrong_amount")
        amount = payment.amount if wrong is None or wrong.get("in_books") else _wrong(payment, wrong)
        return Result(
            parameters=(
                ("TransactionAmount", amount),
                ("TransactionReceipt", payment.receipt),
                ("ReceiverPartyPublicName", core.public_name(payment.phone)),
                ("TransactionCompletedDateTime", f"{at:%d.%m.%Y %H:%M:%S}"),
                ("B2CUtilityAccountAvailableFunds", core.accounts.of(ours, "utility")),
                ("B2CWorkingAccountAvailableFunds", core.accounts.of(ours, "working")),
                ("B2CRecipientIsRegisteredCustomer", "Y"),
                ("B2CChargesPaidAccountAvailableFunds", core.accounts.of(ours, "charges_paid")),
            )
        )


def about(body: Mapping[str, Any]) -> dict[str, Any]:
    """Whom a payout concerns, for faults."""
    return {"phone": body.get("PartyB"), "reference": body.get("OriginatorConversationID")}


def _wrong(payment: Payment, fault: Mapping[str, Any]) -> Decimal:
    return Decimal(str(fault.get("amount", payment.amount + 1)))
