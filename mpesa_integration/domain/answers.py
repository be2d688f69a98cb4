"""What the answer to a call means for the money, by the tables of `codes`. What is not surely yes or no is Unknown."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mpesa_integration.domain import wire
from mpesa_integration.domain.codes import (
    BY_STATUS,
    IN_INITIATORS_NAME,
    STK_RESULTS,
    TOKEN,
    UNRECOGNISED,
    Kind,
    Meaning,
    gateway_meaning,
    is_initiator_error,
)
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import Leg


class Failure(StrEnum):
    """How a call ended without an answer."""

    NOT_CONNECTED = "not_connected"  # DNS, refused, TLS: nothing was sent
    TOO_LATE = "send_before_passed"  # we gave up before writing
    NO_TOKEN = "no_token"  # noqa: S105 - the product call was never made
    NO_ANSWER = "no_answer"  # timed out, reset, or the answer could not be read: it may have been processed


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back from a call: an HTTP status and a body, or how it failed (`status` 0)."""

    status: int
    text: str = field(default="", repr=False)
    json: dict[str, Any] | None = field(default=None, repr=False)  # the body, when it is a JSON object
    failure: Failure | None = None
    detail: str = ""  # for `failure`: what exactly, never a URL or a body

    @classmethod
    def of(cls, status: int, text: str) -> "Answer":
        """An answer that came; its body is read once."""
        return cls(status, text, wire.read_object(text))


def refusal_of(answer: Answer) -> tuple[str, Meaning] | None:
    """The code and meaning of an answer that is no acceptance; None when the body is no error of the gateway's."""
    body = answer.json
    if body is not None and (code := wire.code_of(body.get("errorCode"))):
        meaning = gateway_meaning(code, wire.text_of(body.get("errorMessage")))
        if meaning is not UNRECOGNISED or answer.status not in BY_STATUS:
            return code, meaning
    if answer.status in BY_STATUS:
        return f"HTTP {answer.status}", BY_STATUS[answer.status]
    if answer.status != 200 or body is None:
        return f"HTTP {answer.status}" + ("" if body is not None or not answer.text else " not JSON"), UNRECOGNISED
    return None


def without_answer(answer: Answer) -> Outcome | None:
    """The outcome of a call that got no answer; None when it got one."""
    match answer.failure:
        case None:
            return None
        case Failure.NO_ANSWER:
            return Unknown(answer.detail or answer.failure)
        case Failure.NO_TOKEN:
            return NotSent(answer.detail or answer.failure, TOKEN.retry_after_s, alert=True)
        case Failure.NOT_CONNECTED:
            return NotSent(answer.failure, 5)
        case Failure.TOO_LATE:
            return NotSent(answer.failure)


def push_outcome(answer: Answer) -> Outcome:
    """What an STK push's answer means. `Accepted` carries `MerchantRequestID` and `CheckoutRequestID`."""
    if (outcome := without_answer(answer)) is not None:
        return outcome
    if (outcome := _refused(answer)) is not None:
        return outcome
    body = answer.json or {}
    checkout = wire.id_of(body.get("CheckoutRequestID"))
    response = wire.code_of(body.get("ResponseCode"))
    if response != "0" or not checkout:
        return Unknown(f"ResponseCode {response}".strip(), answer.text)
    merchant = wire.id_of(body.get("MerchantRequestID"))
    return Accepted({"CheckoutRequestID": checkout, "MerchantRequestID": merchant}, answer.text)


def _refused(answer: Answer) -> Outcome | None:
    """The outcome of a call that moves money and was not accepted; None when the body is no error."""
    if (refusal := refusal_of(answer)) is None:
        return None
    code, meaning = refusal
    match meaning.kind:
        case Kind.FAILURE:
            return Refused(code, meaning.reason, answer.text)
        case Kind.RETRIABLE:
            return NotSent(code, meaning.retry_after_s, meaning.alert, answer.text)
        case _:
            return Unknown(code, answer.text)


def queued_outcome(answer: Answer, originator_conversation_id: str = "") -> Outcome:
    """What the answer to a call in the initiator's name means: B2C, reversal, status query, balance.

    `Accepted` carries `ConversationID`: queued, its end comes by callback. `originator_conversation_id` is ours, where
    the call carries one: an answer about another says nothing. That ours is known already (500.002.1001) is Unknown.
    """
    if (outcome := without_answer(answer)) is not None:
        return outcome
    if (outcome := _refused(answer)) is not None:
        return outcome
    body = answer.json or {}
    conversation, originator = wire.id_of(body.get("ConversationID")), wire.id_of(body.get("OriginatorConversationID"))
    response = wire.code_of(body.get("ResponseCode"))
    if response != "0" or not conversation:
        return Unknown(f"ResponseCode {response}".strip(), answer.text)
    if originator_conversation_id and originator != originator_conversation_id:
        return Unknown("another_request", answer.text)
    return Accepted({"ConversationID": conversation}, answer.text)


def registered_outcome(answer: Answer) -> Outcome:
    """What the answer to a C2B registration means; `Done` on `ResponseCode` 0. It moves nothing and may be repeated."""
    if (outcome := without_answer(answer)) is not None:
        return outcome
    if (outcome := _refused(answer)) is not None:
        return outcome
    response = wire.code_of((answer.json or {}).get("ResponseCode"))
    return Done("", answer.text) if response == "0" else Unknown(f"ResponseCode {response}".strip(), answer.text)


def initiator_error_of(leg: Leg, outcome: Outcome) -> str:
    """The code by which an answer says that the initiator's credential is not good; empty when it says no such thing.

    The gateway has no code for it: an invalid initiator or credential is a field that it names in the text.
    """
    if leg not in IN_INITIATORS_NAME or isinstance(outcome, Accepted | Done):
        return ""
    body = wire.read_object(outcome.answer) or {}
    said = wire.code_of(body.get("ResponseCode")) or wire.code_of(body.get("errorCode"))
    if is_initiator_error(leg, said):
        return said
    text = wire.text_of(body.get("errorMessage")).lower()
    names_it = "initiator" in text or "securitycredential" in text.replace(" ", "")
    return said if names_it and isinstance(outcome, Refused) else ""


def query_outcome(answer: Answer, checkout_request_id: str, merchant_request_id: str = "") -> Outcome:
    """What an STK query's answer says of the attempt; an answer about another attempt says nothing.

    `Done` paid, `Accepted` not decided (both forms), `Refused` moved nothing; `Unknown` and `NotSent`: nothing learnt.
    """
    if (outcome := without_answer(answer)) is not None:
        return outcome
    if (refusal := refusal_of(answer)) is not None:
        code, meaning = refusal
        match meaning.kind:
            case Kind.PENDING:
                return Accepted(answer=answer.text)
            case Kind.RETRIABLE:
                return NotSent(code, meaning.retry_after_s, meaning.alert, answer.text)
            case _:
                return Unknown(code, answer.text)
    body = answer.json or {}
    response, result = wire.code_of(body.get("ResponseCode")), wire.code_of(body.get("ResultCode"))
    if response != "0" or not result:
        return Unknown(f"ResponseCode {response}".strip(), answer.text)
    meaning = STK_RESULTS.get(result, UNRECOGNISED)
    merchant = wire.id_of(body.get("MerchantRequestID"))
    same = body.get("CheckoutRequestID") == checkout_request_id
    same = same and (not merchant or not merchant_request_id or merchant == merchant_request_id)
    if not same and meaning.kind in {Kind.SUCCESS, Kind.FAILURE}:
        return Unknown("another_request", answer.text)
    match meaning.kind:
        case Kind.SUCCESS:
            return Done("", answer.text)
        case Kind.FAILURE:
            return Refused(result, meaning.reason, answer.text)
        case Kind.PENDING:
            return Accepted(answer=answer.text)
        case Kind.RETRIABLE:
            return NotSent(result, meaning.retry_after_s, meaning.alert, answer.text)
        case Kind.UNKNOWN:
            return Unknown(result, answer.text)


def pull_rows(answer: Answer) -> list[dict[str, Any]] | Unreadable:
    """The rows of one page of Pull; empty when there are no more."""
    if answer.failure is not None:
        return Unreadable(answer.detail or answer.failure)
    if (refusal := refusal_of(answer)) is not None:
        return Unreadable(refusal[0])
    body = answer.json or {}
    code = wire.code_of(body.get("ResponseCode"))
    if code == "1001":
        return []
    rows = body.get("Response")
    if code != "1000" or not isinstance(rows, list | dict):
        return Unreadable(f"ResponseCode {code}".strip())
    return [row for page in (rows if isinstance(rows, list) else [rows]) for row in wire.items_of(page)]
