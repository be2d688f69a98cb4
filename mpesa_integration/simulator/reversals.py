"""Reversal: a deposit's payment goes back to its payer, once. B2C can't be reversed."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any

from mpesa_integration.simulator.accounts import Payment
from mpesa_integration.simulator.core import EAT, Core
from mpesa_integration.simulator.fields import RECEIPT, Rule, is_amount, is_credential, matching, one_of, optional, text
from mpesa_integration.simulator.gateway import Gateway
from mpesa_integration.simulator.results import Job, Result, Results
from shared_kernel.simulator import Answer, Handler

ALREADY = Result("R000001", "The transaction has already been reversed.")
INVALID = Result("R000002", "The OriginalTransactionID is invalid.")
FUNDS_LOW = Result(1, "The balance is insufficient for the transaction.")


@dataclass
class Reversals:
    """Takes deposits back. A partial one is refused as `R000002` (assumption: the contract names no code for it)."""

    core: Core
    gateway: Gateway
    results: Results

    def routes(self) -> dict[tuple[str, str], Handler]:
        """What it serves."""
        return {("POST", "/mpesa/reversal/v1/request"): self.gateway.product("reversal", self._reverse, self._about)}

    def _rules(self) -> dict[str, Rule]:
        return {
            "Initiator": text(1, 50),
            "SecurityCredential": is_credential,
            "CommandID": one_of("TransactionReversal"),
            "TransactionID": matching(RECEIPT),
            "Amount": is_amount,
            "ReceiverParty": one_of(self.core.shortcode, self.core.b2c_shortcode),
            "RecieverIdentifierType": one_of("11"),
            "ResultURL": self.gateway.is_callback_url,
            "QueueTimeOutURL": self.gateway.is_callback_url,
            "Remarks": text(2, 100),
            "Occasion": optional(text(1, 100)),
        }

    def _about(self, body: Mapping[str, Any]) -> dict[str, Any]:
        original = self.core.accounts.by_receipt.get(str(body.get("TransactionID")))
        return {"phone": original and original.phone, "reference": body.get("TransactionID")}

    async def _reverse(self, body: dict[str, Any]) -> Answer | None:
        if (refused := self.gateway.wrong(body, self._rules())) is not None:
            return refused
        job = self.results.job("reversal", body, self._about(body))
        return await self.results.accept(job, partial(self._conclude, body))

    def _conclude(self, body: Mapping[str, Any], job: Job) -> None:
        original = self._original(body)
        refused = self._refusal(original, body, job)
        if "forged_failure" in job.faults:
            self.results.forge(job, INVALID)
        if original is None or refused is not None:
            if "forged_success" in job.faults and original is not None:
                self.results.forge(job, self._done(original))
            self.results.tell(job, refused or INVALID)
            return
        job.receipt, at = self.core.receipt(self.core.clock()), self.core.clock()
        account = f"{original.shortcode}/{self.core.deposits_to}"
        self.core.accounts.take_back(original, job.receipt, account, at, self.core.reversed_fate)
        self.core.accounts.keep(self._record(original, job))
        self.results.tell(job, self._done(original))

    def _original(self, body: Mapping[str, Any]) -> Payment | None:
        """The deposit that is meant, if our shortcode received it."""
        original = self.core.accounts.by_receipt.get(body["TransactionID"])
        ours = original is not None and original.shortcode == body["ReceiverParty"]
        return original if ours and original is not None and original.kind == "c2b" else None

    def _refusal(self, original: Payment | None, body: Mapping[str, Any], job: Job) -> Result | None:
        if job.refused is not None:
            return Result(*job.refused)
        if original is not None and original.reversed_by:
            return ALREADY
        if job.forced is not None:
            return job.forced
        if original is None or Decimal(str(body["Amount"])) != original.amount:
            return INVALID
        short = self.core.accounts.of(original.shortcode, self.core.deposits_to) < original.amount
        return FUNDS_LOW if short or "forged_success" in job.faults else None

    def _record(self, original: Payment, job: Job) -> Payment:
        now = self.core.clock()
        return Payment(
            kind="reversal",
            receipt=job.receipt,
            originator_id=job.originator_id,
            conversation_id=job.conversation_id,
            phone=original.phone,
            shortcode=original.shortcode,
            amount=original.amount,
            reference=original.receipt,
            initiated_at=now,
            finalised_at=now,
            fate="Completed",
        )

    def _done(self, original: Payment) -> Result:
        held = self.core.accounts.of(original.shortcode, self.core.deposits_to)
        kind = self.core.deposits_to.replace("_", " ").title()
        return Result(
            parameters=(
                ("DebitAccountBalance", f"{kind} Account|KES|{held:.2f}|{held:.2f}|0.00|0.00"),
                ("Amount", original.amount),
                ("TransCompletedTime", int(f"{self.core.clock().astimezone(EAT):%Y%m%d%H%M%S}")),
                ("OriginalTransactionID", original.receipt),
                ("Charge", Decimal(0)),
                ("CreditPartyPublicName", self.core.public_name(original.phone)),
                ("DebitPartyPublicName", f"{original.shortcode} - PenPay"),
            )
        )
