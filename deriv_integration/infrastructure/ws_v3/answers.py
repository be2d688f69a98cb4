"""What an answer of Deriv v3 means: the error table as data. Source: Deriv contract, sections 2.3, 2.5 and 2.6.

Whatever is not surely yes or no is `Unknown`. The texts are the English ones; each rule holds a short stable fragment.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from shared_kernel.domain.outcome import Done, NotSent, Outcome, Refused, Unknown


class Verdict(Enum):
    """What an error says about the money."""

    REFUSED = "refused"  # surely not executed, and never will be for this recipient and amount
    WAITS = "waits"  # surely not executed; our side's trouble, or one that passes
    UNKNOWN = "unknown"  # may have been executed: look it up


REFUSED, WAITS, UNKNOWN = Verdict.REFUSED, Verdict.WAITS, Verdict.UNKNOWN
TRANSFER_ERROR = "PaymentAgentTransferError"
TOKEN_LOST = frozenset({"AuthorizationRequired", "InvalidToken"})  # the session must log in again


@dataclass(frozen=True, slots=True)
class Rule:
    """An error by its code and a fragment (lower case) of its text. `retry_after_s` and `alert` go with `WAITS`."""

    code: str
    fragment: str
    verdict: Verdict
    reason: str = ""
    retry_after_s: int = 0
    alert: bool = False


NOT_CREDITABLE = "Deriv does not let this account be credited. Ask Deriv's support, or use another Deriv account."

# the first that fits counts; what fits none is unknown
RULES = (
    Rule("WrongResponse", "", UNKNOWN),
    Rule("RequestTimeout", "", UNKNOWN),
    Rule("CallError", "", UNKNOWN),
    Rule("OutputValidationFailed", "", UNKNOWN),  # it ran
    Rule("InternalServerError", "", UNKNOWN),
    Rule("RateLimit", "", WAITS, retry_after_s=60),
    Rule("AuthorizationRequired", "", WAITS, retry_after_s=5, alert=True),
    Rule("InvalidToken", "", WAITS, retry_after_s=30, alert=True),
    Rule("PermissionDenied", "", WAITS, retry_after_s=300, alert=True),
    Rule("InvalidAppID", "", WAITS, retry_after_s=300, alert=True),
    Rule("UnrecognisedRequest", "", WAITS, retry_after_s=300, alert=True),  # v3 is being switched off
    Rule("DisabledClient", "", WAITS, retry_after_s=300, alert=True),  # the account that calls: ours
    Rule("AccountDisabled", "", WAITS, retry_after_s=300, alert=True),
    Rule("ASK_FIX_DETAILS", "", WAITS, retry_after_s=300, alert=True),  # our profile
    Rule("InputValidationFailed", "", REFUSED, "Deriv did not accept the details of this transfer."),
    # texts that leave the outcome open come before all that would close it
    Rule(TRANSFER_ERROR, "an error occurred whilst processing", UNKNOWN),
    Rule(TRANSFER_ERROR, "request too frequent", UNKNOWN),  # evidence that an earlier one was booked
    Rule(TRANSFER_ERROR, "balance is insufficient", WAITS, retry_after_s=300, alert=True),
    Rule(TRANSFER_ERROR, "exceeded the maximum allowable transfer", WAITS, retry_after_s=3600, alert=True),
    Rule(TRANSFER_ERROR, "exceeded the maximum allowable", WAITS, retry_after_s=3600, alert=True),
    Rule(TRANSFER_ERROR, "maximum withdrawal limit", WAITS, retry_after_s=3600, alert=True),
    Rule(TRANSFER_ERROR, "temporarily disabled", WAITS, retry_after_s=300),
    Rule(TRANSFER_ERROR, "temporarily unavailable", WAITS, retry_after_s=300),
    Rule(TRANSFER_ERROR, "your cashier is locked", WAITS, retry_after_s=300, alert=True),
    Rule(TRANSFER_ERROR, "your account is disabled", WAITS, retry_after_s=300, alert=True),
    Rule(TRANSFER_ERROR, "your profile is incomplete", WAITS, retry_after_s=300, alert=True),
    Rule(TRANSFER_ERROR, "your identity documents have expired", WAITS, retry_after_s=300, alert=True),
    Rule(TRANSFER_ERROR, "not authorized", WAITS, retry_after_s=300, alert=True),
    Rule(TRANSFER_ERROR, "minimum is", REFUSED, "The amount is outside of what Deriv allows for one transfer."),
    Rule(TRANSFER_ERROR, "maximum is", REFUSED, "The amount is outside of what Deriv allows for one transfer."),
    Rule(TRANSFER_ERROR, "does not exist", REFUSED, "Deriv does not know this account."),
    Rule(TRANSFER_ERROR, "not the default account currency", REFUSED, "The Deriv account is not kept in US dollars."),
    Rule(TRANSFER_ERROR, "cashier is locked", REFUSED, NOT_CREDITABLE),
    Rule(TRANSFER_ERROR, "account is disabled", REFUSED, NOT_CREDITABLE),
    Rule(TRANSFER_ERROR, "documents have expired", REFUSED, NOT_CREDITABLE),
    Rule(TRANSFER_ERROR, "profile is incomplete", REFUSED, NOT_CREDITABLE),
    Rule(TRANSFER_ERROR, "not allowed", REFUSED, NOT_CREDITABLE),
    Rule(TRANSFER_ERROR, "resident country", REFUSED, "Deriv does not let us serve accounts of this country."),
    Rule(TRANSFER_ERROR, "country of residence", REFUSED, "Deriv does not let us serve accounts of this country."),
)


def error_of(answer: Mapping[str, Any]) -> tuple[str, str] | None:
    """The error's code and text, or None when the answer has none. A malformed error gives empty texts."""
    if "error" not in answer:
        return None
    error = answer["error"] if isinstance(answer["error"], dict) else {}
    code, text = error.get("code"), error.get("message")
    return code if isinstance(code, str) else "", text if isinstance(text, str) else ""


def failure(code: str, text: str, raw: str) -> Refused | NotSent | Unknown:
    """The outcome that an error means. Its code names the fragment, never the whole text (it may name people)."""
    folded = " ".join(text.lower().split())
    rule = next((rule for rule in RULES if rule.code == code and rule.fragment in folded), None)
    if rule is None:
        return Unknown(code[:64] or "no_code", raw)
    name = f"{code}: {rule.fragment}" if rule.fragment else code
    match rule.verdict:
        case Verdict.REFUSED:
            return Refused(name, rule.reason, raw)
        case Verdict.WAITS:
            return NotSent(name, rule.retry_after_s, rule.alert, raw)
        case Verdict.UNKNOWN:
            return Unknown(name, raw)


def transferred(answer: Mapping[str, Any], account: str, raw: str) -> Outcome:
    """What `paymentagent_transfer` says: done only with exactly 1, an id and the recipient that was meant."""
    error = error_of(answer)
    if error is not None:
        return failure(*error, raw)
    value, id, to = (answer.get(key) for key in ("paymentagent_transfer", "transaction_id", "client_to_loginid"))
    if type(value) is not int or value != 1:
        return Unknown("dry_run_answer" if value == 2 else "unusable_answer", raw)
    if type(id) is not int or id <= 0:
        return Unknown("transaction_id_missing", raw)
    if isinstance(to, str) and to.upper() != account.upper():
        return Unknown("other_recipient", raw)
    return Done(str(id), raw)


def checked(answer: Mapping[str, Any], account: str, raw: str) -> Outcome:
    """What a dry run says: `Done(full name)` only with exactly 2 and the recipient that was meant."""
    error = error_of(answer)
    if error is not None:
        return failure(*error, raw)
    value, name, to = (answer.get(key) for key in ("paymentagent_transfer", "client_to_full_name", "client_to_loginid"))
    if type(value) is not int or value != 2 or "transaction_id" in answer:
        return Unknown("unusable_answer", raw)
    if not isinstance(name, str) or (isinstance(to, str) and to.upper() != account.upper()):
        return Unknown("unusable_answer", raw)
    return Done(name, raw)
