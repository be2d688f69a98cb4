"""v3's words for what stands in a payment's way. Source: Deriv contract, 2.5."""

from deriv_integration.simulator.calls import TRANSFER_ERROR, Refusal
from deriv_integration.simulator.rules import Obstacle

WITHDRAW_ERROR = "PaymentAgentWithdrawError"
TEXTS = {
    "agent_disabled": "Your account is disabled.",
    "agent_cashier_locked": "Your cashier is locked.",
    "agent_unauthorized": "You are not authorized for transfers via payment agents.",
    "agent_temporarily_disabled": "Payment agent transfers are temporarily disabled.",
    "agent_withdrawal_limit": "You have reached the maximum withdrawal limit. Please contact customer support.",
    "agent_cannot_receive": "Payment agent transfers are temporarily unavailable for {to}.",
    "currency": "You cannot perform this action, as {currency} is not the default account currency {own}.",
    "no_such_client": "Login ID ({to}) does not exist.",
    "no_such_agent": "The payment agent account {to} does not exist.",
    "same_account": "Payment agent transfers are not allowed within the same account.",
    "client_currency": "You cannot perform this action, as {currency} is not the default account currency for payment "
    "agent transfers to {to}.",
    "client_disabled": "You cannot transfer to account {to}, as their account is disabled.",
    "client_cashier_locked": "You cannot transfer to account {to}, as their cashier is locked.",
    "client_documents_expired": "You cannot transfer to account {to}, as their verification documents have expired.",
    "client_profile_incomplete": "You cannot transfer to account {to}, as their profile is incomplete.",
    "client_not_allowed": "Payment agent transfers are not allowed for the specified accounts.",
    "client_no_wallet": "You cannot transfer to account {to}, as their account is disabled.",
    "client_deposit_disabled": "You cannot transfer to account {to}, as their cashier is locked.",
    "own_disabled": "Your account is disabled.",
    "own_cashier_locked": "Your cashier is locked.",
    "own_withdrawal_locked": "Your cashier is locked. Withdrawals are not allowed.",
    "own_documents_expired": "Your verification documents have expired.",
    "own_not_allowed": "Payment agent withdrawals are not allowed for your account.",
    "country": "You cannot transfer to a client in a different country of residence.",
    "below_least": "Invalid amount. Minimum is {least}, maximum is {most}.",
    "above_most": "Invalid amount. Minimum is {least}, maximum is {most}.",
    "daily_count": "Payment agent {kind} have exceeded the maximum allowable transactions for today.",
    "daily_amount": "Payment agent {kind} have exceeded the maximum allowable transfer amount for today.",
    "funds": "Your account balance is insufficient for this transaction.",
    "too_frequent": "Request too frequent. Please try again later.",
    "decimals": "Invalid amount. Amount provided can not have more than 2 decimal places.",
}


def refusal(obstacle: Obstacle, call: str) -> Refusal:
    """The obstacle as v3 answers it to that call."""
    if obstacle.reason == "ask_first":
        return Refusal(obstacle.facts["text"], obstacle.facts["code"])
    code = TRANSFER_ERROR if call == "paymentagent_transfer" else WITHDRAW_ERROR
    return Refusal(TEXTS[obstacle.reason].format(**obstacle.facts), code)
