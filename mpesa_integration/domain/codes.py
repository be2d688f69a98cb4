"""What M-Pesa's codes mean for the money: the one place that decides which class a code is. The tables are data.

Sources: the contract's section 10 and codes.json. Codes are compared as text, and each product has a table of its own:
1, 11, 17 and 2001 mean other things on other products. A code that nothing here names is UNKNOWN.
"""

from dataclasses import dataclass
from enum import StrEnum

from shared_kernel.domain.requests import Blame, Leg


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

B2C_RESULTS: dict[str, tuple[Kind, Blame]] = {
    "0": (Kind.SUCCESS, Blame.NONE),
    "1": (Kind.FAILURE, Blame.FLOAT),
    "2": (Kind.FAILURE, Blame.RECIPIENT),
    "3": (Kind.FAILURE, Blame.RECIPIENT),
    "4": (Kind.FAILURE, Blame.RECIPIENT),
    "8": (Kind.FAILURE, Blame.RECIPIENT),
    "11": (Kind.FAILURE, Blame.CREDENTIAL),
    "15": (Kind.UNKNOWN, Blame.NONE),  # the core knows this id: the first request decides
    "17": (Kind.UNKNOWN, Blame.NONE),
    "18": (Kind.FAILURE, Blame.CREDENTIAL),
    "19": (Kind.UNKNOWN, Blame.NONE),
    "20": (Kind.FAILURE, Blame.CREDENTIAL),
    "21": (Kind.FAILURE, Blame.CREDENTIAL),
    "22": (Kind.FAILURE, Blame.CREDENTIAL),
    "24": (Kind.FAILURE, Blame.OURS),
    "25": (Kind.FAILURE, Blame.OURS),
    "26": (Kind.UNKNOWN, Blame.NONE),
    "29": (Kind.FAILURE, Blame.OURS),
    "2001": (Kind.FAILURE, Blame.CREDENTIAL),
    "2006": (Kind.FAILURE, Blame.CREDENTIAL),
    "2028": (Kind.FAILURE, Blame.CREDENTIAL),
    "2040": (Kind.FAILURE, Blame.RECIPIENT),
    "8006": (Kind.FAILURE, Blame.CREDENTIAL),
    "SFC_IC0003": (Kind.FAILURE, Blame.RECIPIENT),
    "100000000": (Kind.UNKNOWN, Blame.NONE),  # kept to be sent again: money may still move
    "100000001": (Kind.UNKNOWN, Blame.NONE),
    "100000002": (Kind.UNKNOWN, Blame.NONE),
    "100000004": (Kind.UNKNOWN, Blame.NONE),
    "100000005": (Kind.FAILURE, Blame.OURS),
    "100000007": (Kind.UNKNOWN, Blame.NONE),
    "100000009": (Kind.UNKNOWN, Blame.NONE),
    "100000010": (Kind.FAILURE, Blame.OURS),
    "100000011": (Kind.UNKNOWN, Blame.NONE),
}
REVERSAL_RESULTS: dict[str, tuple[Kind, Blame]] = {
    "0": (Kind.SUCCESS, Blame.NONE),
    "1": (Kind.FAILURE, Blame.FLOAT),
    "11": (Kind.FAILURE, Blame.CREDENTIAL),
    "21": (Kind.FAILURE, Blame.CREDENTIAL),
    "2001": (Kind.FAILURE, Blame.CREDENTIAL),
    "2006": (Kind.FAILURE, Blame.CREDENTIAL),
    "2028": (Kind.FAILURE, Blame.CREDENTIAL),
    "8006": (Kind.FAILURE, Blame.CREDENTIAL),
    "R000001": (Kind.FAILURE, Blame.NONE),  # this one moved nothing, for the payment was reversed before
    "R000002": (Kind.FAILURE, Blame.OURS),
}
# What a call in the initiator's name may meet: the first one stops them all, for repetition locks the credential.
INITIATOR_ERRORS = frozenset({"2001", "18", "20", "21", "22", "8006", "11", "2006", "2028"})
IN_INITIATORS_NAME = frozenset({Leg.B2C_PAYOUT, Leg.B2C_REFUND, Leg.REVERSAL, Leg.STATUS_QUERY, Leg.ACCOUNT_BALANCE})

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


def result_of(leg: Leg, code: str) -> tuple[Kind, Blame]:
    """What a result's code means on the product of `leg`, and whose matter it is.

    On a status query or a balance it is about the question alone, which moves nothing.
    """
    if leg in {Leg.B2C_PAYOUT, Leg.B2C_REFUND} and code in B2C_RESULTS:
        return B2C_RESULTS[code]
    if leg is Leg.REVERSAL and code in REVERSAL_RESULTS:
        return REVERSAL_RESULTS[code]
    return Kind.UNKNOWN, Blame.CREDENTIAL if is_initiator_error(leg, code) else Blame.NONE


def is_initiator_error(leg: Leg, code: str) -> bool:
    """Whether it says that the initiator's credential or rights are not good."""
    return leg in IN_INITIATORS_NAME and code in INITIATOR_ERRORS


def gateway_meaning(code: str, message: str) -> Meaning:
    """What an `errorCode` and its `errorMessage` mean: one code has several meanings, so that the text counts."""
    message = message.lower()
    for known, text, meaning in GATEWAY:
        if known == code and text in message:
            return meaning
    return UNRECOGNISED
