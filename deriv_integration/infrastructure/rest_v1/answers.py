"""What an answer of Deriv's REST API means for the money: the error table as data. Source: contract, 1.3 and 1.7.

Whatever is not surely yes or no is `Unknown`. A code counts on a 4xx alone: what fails with 5xx may have been done.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deriv_integration.domain.transfer import Verdict
from deriv_integration.infrastructure.rest_v1.client import Answer
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.requests import Leg

REFUSED, WAITS, UNKNOWN = Verdict.REFUSED, Verdict.WAITS, Verdict.UNKNOWN
UNDECIDED = frozenset({"requested", "pending"})
FAILED = frozenset({"rejected", "failed"})
RATE_LIMITED_S = 15


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a code says about the money. `retry_after_s` and `alert` go with `WAITS`."""

    verdict: Verdict
    reason: str = ""
    retry_after_s: int = 0
    alert: bool = False


NOT_CREDITABLE = Meaning(REFUSED, "Deriv does not let this account be credited. Ask Deriv's support.")
COUNTRY = Meaning(REFUSED, "Deriv does not let us serve accounts of this country.")
LIMITS = Meaning(REFUSED, "The amount is outside of what Deriv allows for one payment.")
OURS = Meaning(WAITS, retry_after_s=300, alert=True)
TOMORROW = Meaning(WAITS, retry_after_s=3600, alert=True)
DETAILS = Meaning(REFUSED, "Deriv did not accept the details of this payment.")
LOOK_UP = Meaning(UNKNOWN)
RATE = Meaning(WAITS, retry_after_s=RATE_LIMITED_S)

TRANSFER: Mapping[str, Meaning] = {
    "RequestIDUsed": LOOK_UP,
    "InvalidRequestIDFormat": OURS,
    "WalletFundsInsufficient": OURS,  # our float is low
    "NicknameNotFound": Meaning(REFUSED, "Deriv does not know this account."),
    "NoClientWallet": NOT_CREDITABLE,
    "WalletDisabled": NOT_CREDITABLE,
    "DepositDisabled": NOT_CREDITABLE,
    "ClientDepositDisabled": NOT_CREDITABLE,
    "ClientCountryUnsupported": COUNTRY,
    "AgentSelfTransfer": NOT_CREDITABLE,
    "TransferToAgentNotAllowed": NOT_CREDITABLE,
    "AgentIDNotFound": OURS,
    "AgentIDInvalid": OURS,
    "AgentInactive": OURS,
    "AgentWithdrawDisabled": OURS,
    "AgentCurrencyUnsupported": OURS,
    "TransferAgentCurrencyUnsupported": OURS,
    "WithdrawalAmountMinimum": LIMITS,
    "WithdrawalAmountMaximum": LIMITS,
    "DailyTransferCountLimit": TOMORROW,
    "DailyTransferAmountLimit": TOMORROW,
    "InvalidAmount": DETAILS,
    "InvalidCurrency": DETAILS,
    "InputError": DETAILS,
    "RateLimit": RATE,
}

CODE_BAD = Meaning(REFUSED, "The code was wrong, has expired or was used before. Ask for a new one.")
TOO_MANY_WRONG = Meaning(REFUSED, "Too many wrong codes. Wait a while, then ask for a new one.")
DAILY = Meaning(REFUSED, "This would pass Deriv's limit for your withdrawals of one day. Try again tomorrow.")
LOCKED = Meaning(REFUSED, "Deriv has locked withdrawals of your account. Ask Deriv's support.")
NOT_TO_US = Meaning(REFUSED, "Deriv can't pay to us at the moment.")

# The first attempt may have used the code up, whatever became of it: what business rules refuse does not wait.
WITHDRAWAL: Mapping[str, Meaning] = {
    "RequestIDUsed": LOOK_UP,
    "InvalidRequestIDFormat": DETAILS,
    "WalletFundsInsufficient": Meaning(REFUSED, "Your Deriv balance is too low for this amount."),
    "WithdrawalAmountMinimum": LIMITS,
    "WithdrawalAmountMaximum": LIMITS,
    "DailyWithdrawalCountLimit": DAILY,
    "DailyWithdrawalAmountLimit": DAILY,
    "ClientWithdrawDisabled": LOCKED,
    "ClientCountryUnsupported": COUNTRY,
    "NoClientWallet": LOCKED,
    "WalletDisabled": LOCKED,
    "AgentDepositDisabled": NOT_TO_US,
    "AgentSelfWithdraw": NOT_TO_US,
    "InvalidAgentID": NOT_TO_US,
    "AgentIDNotFound": NOT_TO_US,
    "AgentIDInvalid": NOT_TO_US,
    "AgentInactive": NOT_TO_US,
    "AgentCurrencyUnsupported": NOT_TO_US,
    "VerificationCodeFormatInvalid": CODE_BAD,
    "InvalidOTP": CODE_BAD,
    "OTPValidationFailed": CODE_BAD,
    "OtpValidationRateLimitExceeded": TOO_MANY_WRONG,
    "InvalidAmount": DETAILS,
    "InvalidCurrency": DETAILS,
    "InputError": DETAILS,
    "RateLimit": RATE,
}
OUR_TOKEN = Meaning(WAITS, retry_after_s=60, alert=True)
THEIR_TOKEN = Meaning(REFUSED, "Deriv no longer accepts your token. Bind your Deriv login again.")


def moved(answer: Answer, leg: Leg) -> Outcome:
    """What `POST transfer` or `POST withdraw` says. A withdrawal is never `Done`: the agent's wallet proves it."""
    if not answer.is_good:
        return failure(answer, leg)
    status, id = said(answer)
    if status in FAILED:
        return Refused(status, "Deriv did not carry this payment out.", answer.text)
    if status in UNDECIDED or (status == "complete" and (leg is Leg.DERIV_DEBIT or not id)):
        return Accepted({"transaction_id": id} if id else {}, answer.text)
    if status == "complete":
        return Done(id, answer.text)
    return Unknown("dry_run_answer" if status == "dry_run_ok" else "unusable_answer", answer.text)


def said(answer: Answer) -> tuple[str, str]:
    """A good answer's status, and Deriv's transaction id where it tells one; empty for what can't be read."""
    data = answer.data
    if not isinstance(data, dict):
        return "", ""
    status, id = data.get("status"), data.get("transaction_id")
    return status if isinstance(status, str) else "", str(id) if type(id) is int and id > 0 else ""


def checked(answer: Answer) -> Outcome:
    """What a dry run says: `Done(full name)`; the name is empty unless the customer shows it."""
    if not answer.is_good:
        return failure(answer, Leg.DERIV_CREDIT)
    status, id = said(answer)
    if status != "dry_run_ok" or id:
        return Unknown("unusable_answer", answer.text)
    name = answer.data.get("client_real_name")
    return Done(name if isinstance(name, str) else "", answer.text)


def failure(answer: Answer, leg: Leg) -> Refused | NotSent | Unknown:
    """The outcome that an answer without a success means."""
    code, meaning = meaning_of(answer, leg)
    match meaning.verdict:
        case Verdict.REFUSED:
            return Refused(code, meaning.reason, answer.text)
        case Verdict.WAITS:
            return NotSent(code, meaning.retry_after_s, meaning.alert, answer.text)
        case Verdict.UNKNOWN:
            return Unknown(code, answer.text)


def meaning_of(answer: Answer, leg: Leg) -> tuple[str, Meaning]:
    """The code that counts, and what it says. Of several errors each must be known, and one that is open wins."""
    is_debit = leg is Leg.DERIV_DEBIT
    if answer.status in {401, 403}:
        return f"http_{answer.status}", THEIR_TOKEN if is_debit else OUR_TOKEN
    if answer.status == 429:
        return answer.code, RATE
    if not 400 <= answer.status < 500 or not answer.problems:
        return answer.code, LOOK_UP
    table = WITHDRAWAL if is_debit else TRANSFER
    meanings = [(problem.code or answer.code, table.get(problem.code, LOOK_UP)) for problem in answer.problems]
    return next((one for one in meanings if one[1].verdict is UNKNOWN), meanings[0])


def seconds_of(value: Any) -> int | None:
    """An epoch time in seconds; None for anything else."""
    return value if type(value) is int and 0 < value < 10**11 else None
