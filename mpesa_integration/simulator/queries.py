"""Transaction Status and Account Balance: questions that move nothing and are answered by a result of their own."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from mpesa_integration.simulator.accounts import KINDS, Payment
from mpesa_integration.simulator.core import EAT, Core
from mpesa_integration.simulator.fields import (
    ORIGINATOR_ID,
    RECEIPT,
    Rule,
    is_credential,
    matching,
    one_of,
    optional,
    text,
)
from mpesa_integration.simulator.gateway import Gateway
from mpesa_integration.simulator.results import Job, Parameters, Result, Results
from shared_kernel.simulator import Answer, Handler

NOT_FOUND = Result(1, "The transaction could not be found.")  # an assumption: the contract's sample
UNSETTLED = {"Initiated", "Authorized", "Pending Authorized"}
REASONS = {
    "b2c": "Business Payment to Customer via API",
    "c2b": "Pay Bill Online",
    "reversal": "Transaction Reversal via API",
}


@dataclass
class Queries:
    """What an organisation may ask."""

    core: Core
    gateway: Gateway
    results: Results

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What it serves."""
        return {
            ("POST", "/mpesa/transactionstatus/v1/query"): self.gateway.product("status", self._status, about),
            ("POST", "/mpesa/accountbalance/v1/query"): self.gateway.product("balance", self._balance),
        }

    def _rules(self, command: str) -> dict[str, Rule]:
        return {
            "Initiator": text(1, 50),
            "SecurityCredential": is_credential,
            "CommandID": one_of(command),
            "PartyA": one_of(self.core.shortcode, self.core.b2c_shortcode),
            "IdentifierType": one_of("4"),
            "Remarks": text(1, 100),
            "QueueTimeOutURL": self.gateway.is_callback_url,
            "ResultURL": self.gateway.is_callback_url,
        }

    async def _status(self, body: dict[str, Any]) -> Answer | None:
        rules = self._rules("TransactionStatusQuery") | {
            "TransactionID": optional(matching(RECEIPT)),
            "OriginalConversationID": optional(matching(ORIGINATOR_ID)),
            "Occasion": optional(text(1, 100)),
        }
        if (refused := self.gateway.wrong(body, rules)) is not None:
            return refused
        if not body.get("TransactionID") and not body.get("OriginalConversationID"):
            return self.gateway.invalid("TransactionID")
        job = self.results.job("status", body, about(body), occasion=body.get("Occasion") or "")
        return await self.results.accept(job, partial(self._tell_status, body))

    def _tell_status(self, body: Mapping[str, Any], job: Job) -> None:
        payment = self._payment(body)
        if payment is not None and job.refused is None:
            for fault, fate in (("forged_failure", "Declined"), ("forged_success", "Completed")):
                if fault in job.faults:  # a forger who learnt the URL, not the question's ids
                    lie = Result(parameters=self._facts(payment, job, fate))
                    self.results.forge(job, lie, knows_ids=bool(job.faults[fault].get("knows_ids")))
        self.results.tell(job, self._status_of(payment, job))

    def _status_of(self, payment: Payment | None, job: Job) -> Result:
        if job.refused is not None:
            return Result(*job.refused)
        if job.forced is not None:
            return job.forced
        if payment is None:
            return NOT_FOUND
        return Result(parameters=self._facts(payment, job, payment.fate))

    def _payment(self, body: Mapping[str, Any]) -> Payment | None:
        """By receipt, else by our id; only the asking shortcode's own."""
        accounts = self.core.accounts
        if body.get("TransactionID"):
            payment = accounts.by_receipt.get(body["TransactionID"])
        else:
            payment = accounts.by_id.get(body["OriginalConversationID"])
        return payment if payment is not None and payment.shortcode == body["PartyA"] else None

    def _facts(self, payment: Payment, job: Job, fate: str) -> Parameters:
        if (long := job.faults.get("pending_long")) is not None:
            fate = long.get("fate", "Pending Authorized")
        amount = payment.amount + 1 if "wrong_amount" in job.faults else payment.amount
        ours, theirs = f"{payment.shortcode} - PenPay", self.core.public_name(payment.phone)
        from_us = payment.kind != "c2b"
        settled = () if fate in UNSETTLED else (("FinalisedTime", _stamp(payment.finalised_at or self.core.clock())),)
        return (
            ("DebitPartyName", ours if from_us else theirs),
            ("CreditPartyName", theirs if from_us else ours),
            ("OriginatorConversationID", payment.originator_id),
            ("InitiatedTime", _stamp(payment.initiated_at)),
            ("DebitAccountType", "Utility Account" if from_us else "MMF Account For Customer"),
            ("DebitPartyCharges", f"Fee For B2C Payment|KES|{payment.fee:.2f}" if payment.fee else None),
            ("TransactionReason", None),
            ("ReasonType", REASONS[payment.kind]),
            ("TransactionStatus", fate),
            *settled,
            ("Amount", f"{amount:f}"),
            ("ConversationID", payment.conversation_id),
            ("ReceiptNo", payment.receipt),
        )

    async def _balance(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self.gateway.wrong(body, self._rules("AccountBalance"))) is not None:
            return refused
        return await self.results.accept(self.results.job("balance", body, {}), partial(self._tell_balance, body))

    def _tell_balance(self, body: Mapping[str, Any], job: Job) -> None:
        completed = ("BOCompletedTime", _stamp(self.core.clock()))
        if job.refused is not None:  # the one result that fails and has a parameter: a bare object, a number
            self.results.tell(job, Result(*job.refused, parameters=(("BOCompletedTime", int(completed[1])),)))
            return
        names = (kind.replace("_", " ").title() for kind in KINDS)
        held = [self.core.accounts.of(body["PartyA"], kind) for kind in KINDS]
        records = "&".join(
            f"{name.replace('Settlement', 'Organization Settlement')} Account|KES|{sum:.2f}|{sum:.2f}|0.00|0.00"
            for name, sum in zip(names, held, strict=True)
        )
        answer = Result(parameters=(("AccountBalance", records), completed))
        self.results.tell(job, job.forced or answer)


def about(body: Mapping[str, Any]) -> dict[str, Any]:
    """Which payment a status query is about, for faults."""
    return {"reference": body.get("TransactionID") or body.get("OriginalConversationID")}


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(EAT):%Y%m%d%H%M%S}"
