"""How the simulated REST API words its answers: envelopes by family, refusals by code.

Source: Deriv contract, 1.2 and 1.7.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deriv_integration.simulator.rules import Obstacle
from shared_kernel.simulator import Answer, Request

PAYMENTS, WALLET, TRADING = "payments", "wallet", "trading"
TRANSFER_CODES = {
    "agent_unauthorized": "AgentIDNotFound",
    "agent_disabled": "AgentInactive",
    "agent_cashier_locked": "AgentWithdrawDisabled",
    "agent_temporarily_disabled": "AgentWithdrawDisabled",
    "agent_withdrawal_limit": "AgentWithdrawDisabled",
    "currency": "AgentCurrencyUnsupported",
    "no_such_client": "NicknameNotFound",
    "same_account": "AgentSelfTransfer",
    "client_currency": "TransferAgentCurrencyUnsupported",
    "client_disabled": "WalletDisabled",
    "client_cashier_locked": "WalletDisabled",
    "client_documents_expired": "ClientDepositDisabled",
    "client_profile_incomplete": "ClientDepositDisabled",
    "client_not_allowed": "TransferToAgentNotAllowed",
    "client_no_wallet": "NoClientWallet",
    "client_deposit_disabled": "ClientDepositDisabled",
    "country": "ClientCountryUnsupported",
    "below_least": "WithdrawalAmountMinimum",
    "above_most": "WithdrawalAmountMaximum",
    "daily_count": "DailyTransferCountLimit",
    "daily_amount": "DailyTransferAmountLimit",
    "funds": "WalletFundsInsufficient",
}
WITHDRAW_CODES = {
    **TRANSFER_CODES,
    "ask_first": "ClientWithdrawDisabled",
    "own_disabled": "ClientWithdrawDisabled",
    "own_cashier_locked": "ClientWithdrawDisabled",
    "own_withdrawal_locked": "ClientWithdrawDisabled",
    "own_documents_expired": "ClientWithdrawDisabled",
    "own_not_allowed": "ClientWithdrawDisabled",
    "no_such_agent": "InvalidAgentID",
    "agent_cannot_receive": "AgentDepositDisabled",
    "same_account": "AgentSelfWithdraw",
    "daily_count": "DailyWithdrawalCountLimit",
    "daily_amount": "DailyWithdrawalAmountLimit",
}


class RestRefusal(Exception):
    """Deriv says no: HTTP status, code, and what else `detail` carries."""

    def __init__(self, code: str, status: int = 400, message: str = "", **detail: Any) -> None:
        super().__init__(code)
        self.code = code
        self.status = status
        self.message = message or f"The request was refused: {code}."
        self.detail = detail


class NotJson(Exception):
    """A gateway in between answers, with a page and no JSON."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class Reset(Exception):
    """The connection ends without an answer."""


@dataclass(frozen=True)
class Good:
    """What a handler found; `links` are a wallet page's."""

    data: Any
    links: Mapping[str, Any] = field(default_factory=dict)


def refusal(obstacle: Obstacle, call: str) -> RestRefusal:
    """The obstacle as REST answers it to that call."""
    codes = TRANSFER_CODES if call == "transfer" else WITHDRAW_CODES
    return RestRefusal(codes[obstacle.reason])


def good(family: str, request: Request, found: Good, timing: float) -> Answer:
    """A 200 in the family's envelope."""
    if family == WALLET:
        return Answer.json({"data": found.data, **({"links": found.links} if found.links else {})})
    if family == TRADING:
        return Answer.json({"data": found.data, "meta": _metadata(request, timing)})
    return Answer.json({"data": found.data, "errors": [], "metadata": _metadata(request, timing)})


def bad(family: str, request: Request, refused: RestRefusal, timing: float) -> Answer:
    """An error in the family's envelope."""
    error = {"status": refused.status, "code": refused.code}
    if family == WALLET:
        return Answer.json({"errors": [error | {"message": refused.message}]}, refused.status)
    if family == TRADING:
        body = {"errors": [error | {"message": refused.message}], "meta": _metadata(request, timing)}
        return Answer.json(body, refused.status)
    error["detail"] = {"message": refused.message, **refused.detail}
    return Answer.json({"data": {}, "errors": [error], "metadata": _metadata(request, timing)}, refused.status)


def page_of(status: int) -> Answer:
    """What a gateway says that got no answer itself."""
    return Answer(f"<html><h1>{status}</h1></html>".encode(), status, b"text/html")


def data_of(request: Request) -> dict[str, Any]:
    """The `data` of a payment-agent body. Raises `RestRefusal` (`InputError`)."""
    if request.headers.get(b"content-type", b"").split(b";")[0].strip() != b"application/json":
        raise RestRefusal("InputError", message="Content-Type must be application/json.")
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict) or set(body) != {"data"} or not isinstance(body["data"], dict):
        raise RestRefusal("InputError", message="The body must be an object with data.")
    return body["data"]


def _metadata(request: Request, timing: float) -> dict[str, Any]:
    return {"endpoint": request.path, "method": request.method, "timing": timing}
