"""What M-Pesa's codes mean for the money: the one place that decides which class an answer is. The tables are data.

Sources: the contract's section 10 and codes.json. Codes are compared as text; 17 and 2001 mean other things on other
products. A code that nothing here names is UNKNOWN.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from mpesa_integration.domain import wire
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown, Unreadable


class Kind(StrEnum):
    """The class of an answer."""

    SUCCESS = "final-success"  # this attempt moved the money
    FAILURE = "final-failure"  # this attempt moved no money; another one needs a new id
    RETRIABLE = "retriable"  # not accepted: the same request may go again
    PENDING = "pending"  # accepted, not decided
    UNKNOWN = "unknown"  # may have moved money: ask, never repeat


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code means: its class, the customer's words, when to try again, and whether a person should look."""

    kind: Kind
    reason: str = ""
    retry_after_s: int = 0
    alert: bool = False
    is_token: bool = False  # the access token was not good: read it again, refresh it, send once more


OURS = "M-Pesa could not take the payment because of a fault on our side. Nothing was charged."
BUSY = "M-Pesa is busy. Nothing was charged; try again in a few minutes."
UNRECOGNISED = Meaning(Kind.UNKNOWN)
TOKEN = Meaning(Kind.RETRIABLE, is_token=True, retry_after_s=5, alert=True)

STK_RESULTS: dict[str, Meaning] = {
    "0": Meaning(Kind.SUCCESS),
    "1": Meaning(Kind.FAILURE, "Your M-Pesa balance is too low for this amount."),
    "2": Meaning(Kind.FAILURE, "The amount is below M-Pesa's minimum.", alert=True),
    "3": Meaning(Kind.FAILURE, "The amount is above M-Pesa's maximum for one payment."),
    "4": Meaning(Kind.FAILURE, "This would pass your M-Pesa limit for the day."),
    "8": Meaning(Kind.FAILURE, OURS, alert=True),
    "17": Meaning(Kind.FAILURE, "M-Pesa takes the same amount only once in two minutes. Try again then.", 120),
    "26": Meaning(Kind.RETRIABLE, BUSY, 30),
    "1001": Meaning(Kind.FAILURE, "Another M-Pesa request was open on your phone. Try again in a minute.", 60),
    "1019": Meaning(Kind.FAILURE, "The M-Pesa request expired before it was answered."),
    "1025": Meaning(Kind.FAILURE, "M-Pesa could not show the request on your phone. Try again in a minute.", 60),
    "1031": Meaning(Kind.FAILURE, "You cancelled the M-Pesa request."),
    "1032": Meaning(Kind.FAILURE, "The M-Pesa request was cancelled, or not answered in time."),
    "1036": Meaning(Kind.UNKNOWN),
    "1037": Meaning(Kind.FAILURE, "Your phone could not be reached, or the request was not answered in time.", 60),
    "1101": Meaning(Kind.FAILURE, OURS, alert=True),
    "1102": Meaning(Kind.FAILURE, OURS, alert=True),
    "2001": Meaning(Kind.FAILURE, "The M-Pesa PIN was wrong."),
    "2008": Meaning(Kind.FAILURE, "M-Pesa could not check your PIN."),
    "2026": Meaning(Kind.UNKNOWN),
    "2028": Meaning(Kind.FAILURE, OURS, alert=True),
    "4999": Meaning(Kind.PENDING),
    "8006": Meaning(Kind.FAILURE, "Your M-Pesa PIN is locked: call Safaricom on 100 or 200."),
    "9999": Meaning(Kind.UNKNOWN),
    "SFC_IC0003": Meaning(Kind.FAILURE, OURS, alert=True),
    "E3008": Meaning(Kind.FAILURE, "The sandbox takes its own test number only."),
    "100000100": Meaning(Kind.UNKNOWN),
}

# The gateway's errors: code, then the text that must stand in the message ("" for any), first match counts.
GATEWAY: tuple[tuple[str, str, Meaning], ...] = (
    ("400.002.02", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("400.002.05", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("400.003.01", "", TOKEN),
    ("400.003.02", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("400.008.01", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("400.008.02", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("401.002.01", "", TOKEN),
    ("401.003.01", "", TOKEN),
    ("404.001.01", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("404.001.03", "", TOKEN),
    ("404.001.04", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("404.002.01", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("404.003.01", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("405.001", "", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("500.001.1001", "merchant does not exist", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("500.001.1001", "wrong credentials", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("500.001.1001", "unable to lock subscriber", Meaning(Kind.FAILURE, STK_RESULTS["1001"].reason, 60)),
    ("500.001.1001", "being processed", Meaning(Kind.PENDING)),
    ("500.001.1001", "", UNRECOGNISED),
    ("500.002.1001", "", UNRECOGNISED),
    ("500.003.02", "", Meaning(Kind.RETRIABLE, BUSY, 5)),
    ("500.003.03", "", Meaning(Kind.RETRIABLE, BUSY, 60, alert=True)),
    ("500.003.1001", "already registered", Meaning(Kind.FAILURE, OURS, alert=True)),
    ("500.003.1001", "", UNRECOGNISED),
    ("00.002.1001", "", Meaning(Kind.RETRIABLE, BUSY, 60, alert=True)),
)
# Answers without a code of the gateway's.
BY_STATUS: dict[int, Meaning] = {401: TOKEN, 429: Meaning(Kind.RETRIABLE, BUSY, 5)}


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


def gateway_meaning(code: str, message: str) -> Meaning:
    """What an `errorCode` and its `errorMessage` mean: one code has several meanings, so that the text counts."""
    message = message.lower()
    for known, text, meaning in GATEWAY:
        if known == code and text in message:
            return meaning
    return UNRECOGNISED


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
    if (refusal := refusal_of(answer)) is not None:
        code, meaning = refusal
        match meaning.kind:
            case Kind.FAILURE:
                return Refused(code, meaning.reason, answer.text)
            case Kind.RETRIABLE:
                return NotSent(code, meaning.retry_after_s, meaning.alert, answer.text)
            case _:
                return Unknown(code, answer.text)
    body = answer.json or {}
    checkout = wire.id_of(body.get("CheckoutRequestID"))
    response = wire.code_of(body.get("ResponseCode"))
    if response != "0" or not checkout:
        return Unknown(f"ResponseCode {response}".strip(), answer.text)
    merchant = wire.id_of(body.get("MerchantRequestID"))
    return Accepted({"CheckoutRequestID": checkout, "MerchantRequestID": merchant}, answer.text)


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
