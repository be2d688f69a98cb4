"""What stands in a payment's way at Deriv, the same on both faces; each face has its own words for it.

`status` of an account holds the names of `OBSTACLES`, or of what Deriv asks its owner to do first (`ASK_FIRST`).
"""

from typing import Any

from deriv_integration.simulator.books import TRANSFER, WITHDRAWAL, Account, Bank

OBSTACLES = (
    "disabled", "cashier_locked", "documents_expired", "profile_incomplete", "not_allowed", "no_wallet",
    "deposit_disabled", "withdrawal_locked",
)  # fmt: skip
AGENT_OBSTACLES = (
    "disabled", "cashier_locked", "unauthorized", "temporarily_disabled", "withdrawal_limit",
)  # fmt: skip
ASK_FIRST = {  # v3's codes: raised by `verify_email` and `paymentagent_withdraw`
    "PaymentAgentJustification": "Please explain why you want to withdraw through a payment agent.",
    "PaymentAgentJustificationAdded": "Your request is being reviewed.",
    "PaymentAgentWithdrawSameMethod": "Please withdraw by the method that you deposited with.",
    "PaymentAgentUseOtherMethod": "Please use another withdrawal method.",
    "PaymentAgentZeroDeposits": "You cannot withdraw through a payment agent without a deposit.",
    "PaymentAgentVirtualClient": "Virtual accounts cannot withdraw.",
    "SelfExclusion": "You have excluded yourself.",
    "FinancialAssessmentRequired": "Please complete the financial assessment.",
    "ASK_AUTHENTICATE": "Please authenticate your account.",
    "ASK_FIX_DETAILS": "Please complete your personal details.",
}


class Obstacle(Exception):
    """Deriv says no for this reason. `facts` fill the words of a face."""

    def __init__(self, reason: str, **facts: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.facts = facts


def check_transfer(bank: Bank, agent: Account, client: Account | None, to: str, amount: int, currency: str) -> Account:
    """Every check of an agent's transfer; the recipient. Raises `Obstacle`."""
    if not agent.is_agent:
        raise Obstacle("agent_unauthorized")
    _look(agent, AGENT_OBSTACLES, "agent")
    if currency != agent.currency:
        raise Obstacle("currency", currency=currency, own=agent.currency)
    if client is None:
        raise Obstacle("no_such_client", to=to)
    if client is agent:
        raise Obstacle("same_account")
    if client.currency != currency:
        raise Obstacle("client_currency", currency=currency, to=to)
    if client.moved and not client.called("rest") == to:
        raise Obstacle("client_disabled", to=to)
    _look(client, OBSTACLES[:-1], "client", to=to)
    if client.residence != agent.residence:
        raise Obstacle("country")
    _within_limits(agent, amount)
    _within_day(bank, agent, TRANSFER, amount, agent.daily_count, agent.daily_amount)
    if amount > agent.balance:
        raise Obstacle("funds")
    return client


def check_customer(client: Account) -> None:
    """Whether the customer may withdraw through an agent at all. Raises `Obstacle`."""
    for code, text in ASK_FIRST.items():
        if code in client.status:
            raise Obstacle("ask_first", code=code, text=text)
    _look(client, ("disabled", "cashier_locked", "withdrawal_locked", "documents_expired", "not_allowed"), "own")


def check_withdrawal(
    bank: Bank, client: Account, agent: Account | None, to: str, amount: int, currency: str
) -> Account:
    """Every check of a customer's withdrawal but the one-time code; the agent. Raises `Obstacle`."""
    check_customer(client)
    if agent is None or not agent.is_agent:
        raise Obstacle("no_such_agent", to=to)
    if agent is client:
        raise Obstacle("same_account")
    if {"disabled", "cashier_locked", "unauthorized", "temporarily_disabled", "deposit_disabled"} & agent.status:
        raise Obstacle("agent_cannot_receive", to=to)
    if currency != client.currency or currency != agent.currency:
        raise Obstacle("currency", currency=currency, own=client.currency)
    if client.residence != agent.residence:
        raise Obstacle("country")
    _within_limits(agent, amount)
    _within_day(bank, client, WITHDRAWAL, amount, client.daily_withdrawals, client.daily_amount)
    if amount > client.balance:
        raise Obstacle("funds")
    return agent


def _look(account: Account, obstacles: tuple[str, ...], whose: str, **facts: Any) -> None:
    for status in obstacles:
        if status in account.status:
            raise Obstacle(f"{whose}_{status}", **facts)


def _within_limits(agent: Account, amount: int) -> None:
    limits = {"least": f"{agent.least / 100:.2f}", "most": f"{agent.most / 100:.2f}"}
    if amount < agent.least:
        raise Obstacle("below_least", **limits)
    if amount > agent.most:
        raise Obstacle("above_most", **limits)


def _within_day(bank: Bank, payer: Account, kind: str, amount: int, times: int, most: int) -> None:
    sent = bank.sent_today(payer, kind)
    if sent[0] + 1 > times:
        raise Obstacle("daily_count", kind=f"{kind}s")
    if sent[1] + amount > most:
        raise Obstacle("daily_amount", kind=f"{kind}s")
