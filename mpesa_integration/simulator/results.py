"""Requests that are answered twice: accepted at once, and told later as a `Result` to a URL.

B2C, Transaction Status, Reversal and Account Balance share this: the initiator's credential, the two URLs, the envelope
and how badly it is spelt, the time-out notice.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeAlias

from mpesa_integration.simulator.callbacks import Heard
from mpesa_integration.simulator.core import AFTER, ON_RESULT, Core
from mpesa_integration.simulator.customers import PAID
from mpesa_integration.simulator.delivery import Delivery, heard
from mpesa_integration.simulator.gateway import Gateway, Nothing, Struck
from shared_kernel.simulator import Answer

Parameters: TypeAlias = tuple[tuple[str, Any], ...]

DRIFTS = ("none", "old_keys", "repeated_key", "texts")
OLD_KEYS = {
    "FinalisedTime": "FinalizedTime",
    "ConversationID": "Conversation ID",
    "OriginatorConversationID": "Originator Conversation ID",
}
TIMED_OUT = "The service request has timed out."
INTERNAL_URL = "https://internalapi.safaricom.co.ke/mpesa/results/v1/submit"


@dataclass(frozen=True, slots=True)
class Result:
    """How a request ended. A parameter whose value is None has none on the wire."""

    code: int | str = 0
    text: str = PAID
    parameters: Parameters = ()


@dataclass(slots=True, eq=False, kw_only=True)
class Job:
    """One request that was accepted. `refused`: what the initiator's credential led to."""

    call: str
    originator_id: str
    conversation_id: str
    receipt: str
    result_url: str
    timeout_url: str
    occasion: str | None = None  # echoed by Transaction Status
    refused: tuple[int, str] | None = None
    faults: Struck = field(default_factory=dict)
    called_back: Heard | None = None

    @property
    def forced(self) -> Result | None:
        """The result that a fault wants."""
        wanted = self.faults.get("result_with")
        return None if wanted is None else Result(wanted.get("code", 17), str(wanted.get("text", "Forced.")))


@dataclass
class Results:
    """Accepts, and tells results."""

    core: Core
    gateway: Gateway
    delivery: Delivery
    notices: int = 0

    def job(self, call: str, body: Mapping[str, Any], about: Mapping[str, Any], **given: Any) -> Job:
        """Takes a well-formed request in: ids, the faults that strike it, the look at its credential."""
        core = self.core
        return Job(
            call=call,
            originator_id=given.get("originator_id") or core.gateway_id(),
            conversation_id=core.conversation_id(),
            receipt=given.get("receipt") or f"{core.receipt_prefix(core.clock())}0000000",
            result_url=body["ResultURL"],
            timeout_url=body["QueueTimeOutURL"],
            occasion=given.get("occasion"),
            refused=core.initiator.refusal(
                body.get("InitiatorName") or body.get("Initiator"),
                body["SecurityCredential"],
                {core.initiator_name: core.initiator_password},
                allowed=call in core.initiator_roles,
            ),
            faults=core.faults.take(call, AFTER | ON_RESULT, **about) if core.faults.armed else {},
        )

    async def accept(self, job: Job, conclude: Callable[[Job], None]) -> Answer | None:
        """Has `conclude` run in a while, or at once when the callback comes before the answer; answers."""
        if "callback_before_answer" in job.faults:
            job.called_back = heard()
            conclude(job)
            await asyncio.wait({job.called_back}, timeout=30)
        else:
            self._schedule(job, conclude)
        if (answer := self.gateway.after(job.faults)) is not Nothing.STRUCK:
            return answer
        return Answer.json(
            {
                "ConversationID": job.conversation_id,
                "OriginatorConversationID": job.originator_id,
                "ResponseCode": "0",
                "ResponseDescription": "Accept the service request successfully.",
            }
        )

    def _schedule(self, job: Job, conclude: Callable[[Job], None]) -> None:
        wait = self.core.result_s
        if "pending_long" in job.faults and job.call != "status":  # a status query tells of what is pending, at once
            wait = float(job.faults["pending_long"].get("after_s", 5))
        if "timeout_then_success" in job.faults:
            self.core.later(wait, lambda: self.notice(job))
            wait += float(job.faults["timeout_then_success"].get("after_s", 1))
        self.core.later(wait, lambda: conclude(job))

    def tell(self, job: Job, result: Result) -> None:
        """Sends the result to its URL, as the faults let it."""
        if "queue_timeout" in job.faults:
            self.notice(job)
            return
        if "out_of_order" in job.faults:
            self.notice(job)
        self.delivery.send(job.result_url, self.envelope(job, result), job.faults, job.called_back)

    def forge(self, job: Job, result: Result, *, knows_ids: bool = True) -> None:
        """A result that M-Pesa never sent; who does not know the request's ids makes some up."""
        body = self.envelope(job, result, (job.originator_id, job.conversation_id) if knows_ids else None)
        self.delivery.forge(job.result_url, body, job.called_back)

    def notice(self, job: Job) -> None:
        """The time-out notice to QueueTimeOutURL: no word about the money. Its two shapes are assumptions."""
        self.notices += 1
        form = self.core.timeout_form
        if form == "enveloped" or (form == "both" and self.notices % 2 == 0):
            self.core.callbacks.post(job.timeout_url, self.envelope(job, Result(1, TIMED_OUT)), self.core.callback_s)
            return
        flat = {
            "OriginatorConversationID": job.originator_id,
            "ConversationID": job.conversation_id,
            "ResultCode": 1,
            "ResultDesc": TIMED_OUT,
        }
        self.core.callbacks.post(job.timeout_url, Answer.json(flat).body, self.core.callback_s)

    def envelope(self, job: Job, result: Result, ids: tuple[str, str] | None = ("", "")) -> bytes:
        """The `Result` body, spelt as `drift` says; `ids` None makes some up."""
        core = self.core
        originator_id, conversation_id = ids or (core.gateway_id(), core.conversation_id())
        drift = core.random.choice(DRIFTS) if core.drift == "mixed" else core.drift
        said: dict[str, Any] = {
            "ResultType": "0" if drift == "texts" else 0,
            "ResultCode": str(result.code) if drift == "texts" else result.code,
            "ResultDesc": result.text,
            "OriginatorConversationID": originator_id or job.originator_id,
            "ConversationID": conversation_id or job.conversation_id,
            "TransactionID": job.receipt,
        }
        if result.parameters:
            said["ResultParameters"] = {"ResultParameter": _parameters(result.parameters, drift)}
        item = {"Key": "QueueTimeoutURL", "Value": INTERNAL_URL}
        if job.occasion is not None:
            item = {"Key": "Occasion", "Value": job.occasion}
        said["ReferenceData"] = {"ReferenceItem": [item] if drift == "texts" else item}
        return Answer.json({"Result": said}).body


def _parameters(parameters: Parameters, drift: str) -> list[dict[str, Any]] | dict[str, Any]:
    """As a list, or the bare object where there is one only."""
    spelt = [_parameter(key, value, drift) for key, value in parameters]
    return spelt[0] if len(spelt) == 1 else spelt


def _parameter(key: str, value: Any, drift: str) -> dict[str, Any]:
    if drift == "old_keys":
        key = OLD_KEYS.get(key, key)
        value = int(value) if isinstance(value, str) and value.isdigit() else value
    elif drift == "repeated_key" and key == "CreditPartyName":
        key = "DebitPartyName"
    elif drift == "texts" and isinstance(value, int | Decimal):
        value = f"{value:.2f}" if isinstance(value, Decimal) else str(value)
    return {"Key": key} if value is None else {"Key": key, "Value": value}
