"""What an answer of Deriv v3 means: the error table as data. Source: Deriv contract, sections 2.3, 2.5 and 2.6.

Whatever is not surely yes or no is `Unknown`. The texts are the English ones; each rule holds a short stable fragment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deriv_integration.domain.transfer import Verdict
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown

REFUSED, WAITS, UNKNOWN = Verdict.REFUSED, Verdict.WAITS, Verdict.UNKNOWN
TRANSFER_ERROR = "PaymentAgentTransferError"
WITHDRAW_ERROR = "PaymentAgentWithdrawError"
TOKEN_LOST = frozenset({"AuthorizationRequired", "InvalidToken"})  # the session must log in again


@dataclass(frozen=True, slots=True)
class Rule:
    """An error by its code (`ASK_*`: all that begin so) and a fragment (lower case) of its text.

    `retry_after_s` and `alert` go with `WAITS`.
    """

    code: str
    fragment: str
    verdict: Verdict
    reason: str = ""
    retry_after_s: int = 0
    alert: bool = False

    def fits(self, code: str, folded: str) -> bool:
        """Whether it is about this error."""
        named = code.startswith(self.code[:-1]) if self.code.endswith("*") else code == self.code
        return named and self.fragment in folded


NOT_CREDITABLE = "Deriv does not let this account be credited. Ask Deriv's support, or use another Deriv account."

# the first that fits counts; what fits none is unknown
ALWAYS = (
    Rule("WrongResponse", "", UNKNOWN),
    Rule("RequestTimeout", "", UNKNOWN),
    Rule("CallError", "", UNKNOWN),
    Rule("OutputValidationFailed", "", UNKNOWN),  # it ran
    Rule("InternalServerError", "", UNKNOWN),
)
RULES = (
    *ALWAYS,
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

CODE_BAD = "The code was wrong, has expired or was used before. Ask for a new one."
LOCKED = "Deriv has locked withdrawals of your account. Ask Deriv's support."
OWN_DETAILS = "Deriv needs you to complete your details or documents first."
LIMITS = "The amount is outside of what Deriv allows for one withdrawal."
DAILY = "This would pass Deriv's limit for your withdrawals of one day. Try again tomorrow."
# A customer's withdrawal and its code. The first attempt uses the code up, whatever becomes of it: what Deriv's
# business rules refuse never waits, for the same code can't go again.
WITHDRAWAL_RULES = (
    *ALWAYS,
    Rule("RateLimit", "", WAITS, retry_after_s=60),
    Rule("InvalidAppID", "", WAITS, retry_after_s=300, alert=True),
    Rule("UnrecognisedRequest", "", WAITS, retry_after_s=300, alert=True),
    Rule("AuthorizationRequired", "", REFUSED, "Deriv no longer accepts your token. Bind your Deriv login again."),
    Rule("PermissionDenied", "", REFUSED, "Your Deriv token does not allow payments. Make one that does."),
    Rule("InputValidationFailed", "", REFUSED, "Deriv did not accept the details of this withdrawal."),
    Rule("InvalidToken", "", REFUSED, CODE_BAD),
    Rule("InvalidEmail", "", REFUSED, CODE_BAD),
    Rule("DisabledClient", "", REFUSED, LOCKED),
    Rule("AccountDisabled", "", REFUSED, LOCKED),
    Rule("SelfExclusion", "", REFUSED, "You have excluded yourself at Deriv."),
    Rule("FinancialAssessmentRequired", "", REFUSED, "Deriv needs your financial assessment first."),
    Rule("PaymentAgentJustification", "", REFUSED, "Deriv wants to know why you withdraw by a payment agent: tell it."),
    Rule("PaymentAgentJustificationAdded", "", REFUSED, "Deriv is still looking at the reason that you gave."),
    Rule("PaymentAgentWithdrawSameMethod", "", REFUSED, "Deriv wants you to withdraw the way you deposited."),
    Rule("PaymentAgentUseOtherMethod", "", REFUSED, "Deriv wants you to withdraw in another way."),
    Rule("PaymentAgentZeroDeposits", "", REFUSED, "Deriv allows no withdrawal before a first deposit."),
    Rule("PaymentAgentVirtualClient", "", REFUSED, "A demo account can't withdraw."),
    Rule("ASK_*", "", REFUSED, OWN_DETAILS),
    Rule(WITHDRAW_ERROR, "an error occurred whilst processing", UNKNOWN),
    Rule(WITHDRAW_ERROR, "request too frequent", UNKNOWN),  # evidence that an earlier one was booked
    Rule(WITHDRAW_ERROR, "balance is insufficient", REFUSED, "Your Deriv balance is too low for this amount."),
    Rule(WITHDRAW_ERROR, "exceeded the maximum allowable", REFUSED, DAILY),
    Rule(WITHDRAW_ERROR, "maximum withdrawal limit", REFUSED, DAILY),
    Rule(WITHDRAW_ERROR, "minimum is", REFUSED, LIMITS),
    Rule(WITHDRAW_ERROR, "maximum is", REFUSED, LIMITS),
    Rule(WITHDRAW_ERROR, "does not exist", REFUSED, "Deriv can't pay to us at the moment."),
    Rule(WITHDRAW_ERROR, "temporarily disabled", REFUSED, "Deriv has paused withdrawals by payment agents."),
    Rule(WITHDRAW_ERROR, "temporarily unavailable", REFUSED, "Deriv has paused withdrawals by payment agents."),
    Rule(WITHDRAW_ERROR, "not the default account currency", REFUSED, "The Deriv account is not kept in US dollars."),
    Rule(WITHDRAW_ERROR, "cashier is locked", REFUSED, LOCKED),
    Rule(WITHDRAW_ERROR, "account is disabled", REFUSED, LOCKED),
    Rule(WITHDRAW_ERROR, "documents have expired", REFUSED, OWN_DETAILS),
    Rule(WITHDRAW_ERROR, "profile is incomplete", REFUSED, OWN_DETAILS),
    Rule(WITHDRAW_ERROR, "not authorized", REFUSED, LOCKED),
    Rule(WITHDRAW_ERROR, "not allowed", REFUSED, LOCKED),
    Rule(WITHDRAW_ERROR, "resident country", REFUSED, "Deriv does not let us serve accounts of this country."),
    Rule(WITHDRAW_ERROR, "country of residence", REFUSED, "Deriv does not let us serve accounts of this country."),
)


def error_of(answer: Mapping[str, Any]) -> tuple[str, str] | None:
    """The error's code and text, or None when the answer has none. A malformed error gives empty texts."""
    if "error" not in answer:
        return None
    error = answer["error"] if isinstance(answer["error"], dict) else {}
    code, text = error.get("code"), error.get("message")
    return code if isinstance(code, str) else "", text if isinstance(text, str) else ""


def failure(code: str, text: str, raw: str, rules: Sequence[Rule] = RULES) -> Refused | NotSent | Unknown:
    """The outcome that an error means. Its code names the fragment, never the whole text (it may name people)."""
    folded = " ".join(text.lower().split())
    rule = next((rule for rule in rules if rule.fits(code, folded)), None)
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


def withdrawn(answer: Mapping[str, Any], raw: str) -> Outcome:
    """What `paymentagent_withdraw` says: `Accepted` with exactly 1; the proof is the agent's own statement.

    The id that it tells is the customer's entry's, not ours.
    """
    error = error_of(answer)
    if error is not None:
        return failure(*error, raw, WITHDRAWAL_RULES)
    value, id = answer.get("paymentagent_withdraw"), answer.get("transaction_id")
    if type(value) is not int or value != 1:
        return Unknown("dry_run_answer" if value == 2 else "unusable_answer", raw)
    return Accepted({"customer_transaction_id": str(id)} if type(id) is int else {}, raw)


def says_moved(code: str, text: str) -> bool:
    """Whether Deriv says that it moved this customer to the new platform, where v3 does not reach.

    How it says so is not documented (contract, 0: only that the app stops working for them): an assumption, and used
    for calls that move nothing alone.
    """
    folded = f"{code} {text}".lower()
    return "migrated" in folded or "has been moved" in folded
