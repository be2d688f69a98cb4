"""The payment calls of the simulated REST API: transfer, withdrawal, their status, the one-time code.

Source: Deriv contract, 1.3 to 1.5.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from deriv_integration.simulator.books import REST, TRANSFER, WITHDRAWAL, Account, Payment, TooManyDecimals, cents_of
from deriv_integration.simulator.codes import TooSoon
from deriv_integration.simulator.faults import Struck, seconds
from deriv_integration.simulator.rest_answers import Good, RestRefusal, data_of, refusal
from deriv_integration.simulator.rules import Obstacle, check_transfer, check_withdrawal
from deriv_integration.simulator.world import World
from shared_kernel.simulator import Request

AMOUNT = re.compile(r"(?:0|[1-9]\d{0,13})(?:\.\d{1,18})?", re.ASCII)
CURRENCY = re.compile(r"[A-Z_]{1,18}")
REQUEST_ID = re.compile(r"[\w\-]{1,128}", re.ASCII)
CODE = re.compile(r"[0-9]{6}", re.ASCII)


@dataclass
class RestPayments:
    """One method a call: caller, request, what the path named, the faults that strike. They raise `RestRefusal`."""

    world: World

    def transfer(self, agent: Account, request: Request, _: str, struck: Struck) -> Good:
        """`POST /payment-agents/v1/transfer`."""
        data = fields(data_of(request), {"to_nickname", "amount", "currency"}, {"notes", "request_id", "dry_run"})
        amount, currency, request_id = money_of(data)
        is_dry, to = boolean(data, "dry_run"), text(data, "to_nickname")
        if not is_dry:
            self._claim(agent, TRANSFER, request_id)
        client = self._client(to)

        def check() -> Account:
            if "float_low" in struck:
                raise Obstacle("funds")
            return check_transfer(self.world.bank, agent, client, to, amount, currency)

        client = self._checked("transfer", agent, TRANSFER, request_id if not is_dry else "", check)
        told = {
            "client_real_name": client.name if client.show_real_name else None,
            "client_is_agent": client.agent_id is not None,
        }
        if is_dry:
            return Good({"status": "dry_run_ok", "transaction_id": None, **told})
        payment = self._accept(TRANSFER, agent, client, amount, data, request_id, struck)
        return Good({**state_of(payment, payment.payer_entry), **told})

    def withdraw(self, client: Account, request: Request, _: str, struck: Struck) -> Good:
        """`POST /payment-agents/v1/withdraw`: the code is used up first, whatever comes then."""
        needed = {"agent_id", "amount", "currency", "verification_code"}
        data = fields(data_of(request), needed, {"request_id", "notes"})
        amount, currency, request_id = money_of(data)
        agent_id, code = agent_id_of(data), data["verification_code"]
        if not isinstance(code, str) or not CODE.fullmatch(code):
            raise RestRefusal("VerificationCodeFormatInvalid")
        if not self.world.code_before_request_id:
            self._claim(client, WITHDRAWAL, request_id)
        if wrong := self.world.codes.spend(client, code, agent_id, amount, currency):
            self._burn(client, WITHDRAWAL, request_id)
            raise RestRefusal(wrong)
        self._claim(client, WITHDRAWAL, request_id)

        def check() -> Account:
            agent = self.world.bank.agent(agent_id)
            return check_withdrawal(self.world.bank, client, agent, str(agent_id), amount, currency)

        agent = self._checked("withdraw", client, WITHDRAWAL, request_id, check)
        payment = self._accept(WITHDRAWAL, client, agent, amount, data, request_id, struck)
        return Good(state_of(payment, payment.payer_entry))

    def transfer_status(self, caller: Account, _: Request, request_id: str, struck: Struck) -> Good:
        """`GET /payment-agents/v1/transfer/{request_id}`, for the agent or the receiving customer."""
        payment = self.world.requests.get((caller.key, TRANSFER, request_id)) or next(
            (p for p in caller.payments if p.request_id == request_id and p.kind == TRANSFER), None
        )
        return self._status(payment, request_id, caller)

    def withdraw_status(self, caller: Account, _: Request, request_id: str, struck: Struck) -> Good:
        """`GET /payment-agents/v1/withdraw/{request_id}`, for the same customer."""
        return self._status(self.world.requests.get((caller.key, WITHDRAWAL, request_id)), request_id, caller)

    def code(self, client: Account, request: Request, _: str, struck: Struck) -> Good:
        """`POST /payment-agents/v1/withdraw/verification_code`."""
        data = fields(data_of(request), {"agent_id", "amount", "currency"}, set())
        amount, currency, _id = money_of(data)
        agent_id = agent_id_of(data)
        if self.world.bank.agent(agent_id) is None:
            raise RestRefusal("InvalidAgentID")
        try:
            sent, next_at = self.world.codes.send(client, agent_id, amount, currency)
        except TooSoon as soon:
            next_at = soon.next_request_at
            raise RestRefusal("OtpRateLimitExceeded", next_request_at=int(next_at.timestamp())) from None
        return Good(
            {
                "message": "We've sent a code to your e-mail address.",
                "next_request_at": int(next_at.timestamp()),
                "expires_at": int(sent.expires_at.timestamp()),
            }
        )

    def _client(self, nickname: str) -> Account | None:
        return self.world.bank.nicknames.get(nickname)

    def _claim(self, caller: Account, kind: str, request_id: str) -> None:
        if request_id and (caller.key, kind, request_id) in self.world.requests:
            raise RestRefusal("RequestIDUsed")

    def _checked(self, call: str, caller: Account, kind: str, request_id: str, check: Callable[[], Account]) -> Account:
        try:
            return check()
        except Obstacle as obstacle:
            self._burn(caller, kind, request_id)
            raise refusal(obstacle, call) from None

    def _burn(self, caller: Account, kind: str, request_id: str) -> None:
        """A refusal that uses its `request_id` up leaves a request that was rejected, where Deriv is set to do so."""
        if not self.world.refusal_burns_request_id or not request_id:
            return
        now = self.world.clock()
        self.world.requests.setdefault(
            (caller.key, kind, request_id),
            Payment(
                kind=kind, face=REST, payer=caller, payee=caller, amount=0, note="", at=now, payer_entry=0,
                payee_entry=0, request_id=request_id, status="rejected", visible_at=now, in_wallet_at=now,
                shows_id=False,
            ),
        )  # fmt: skip

    def _accept(
        self, kind: str, payer: Account, payee: Account, amount: int, data: dict[str, Any], request_id: str,
        struck: Struck,
    ) -> Payment:  # fmt: skip
        notes = text(data, "notes") if "notes" in data else ""
        payment = self.world.bank.accept(kind, REST, payer, payee, amount, notes, request_id=request_id)
        if request_id:
            self.world.requests[payer.key, kind, request_id] = payment
        hidden_s = seconds(struck, "not_found_for", 30) if "not_found_for" in struck else self.world.propagation_s
        payment.visible_at += timedelta(seconds=hidden_s)
        if "hidden_in_wallet" in struck:
            payment.in_wallet_at += timedelta(seconds=seconds(struck, "hidden_in_wallet", 30))
        self._decide(payment, struck)
        if "double_booking" in struck:
            again = self.world.bank.accept(kind, REST, payer, payee, amount, notes, request_id=request_id)
            self.world.bank.settle(again)
        self.world.follow_up(payment, struck)
        return payment

    def _decide(self, payment: Payment, struck: Struck) -> None:
        """Now, later, or never; a withdrawal is never decided in the first answer."""
        end = next((status for status in ("rejected", "failed") if status in struck), "complete")
        wait_s: float | None = self.world.pending_s if payment.kind == WITHDRAWAL else None
        if end in struck:
            wait_s = seconds(struck, end, self.world.pending_s)
        for fault, usual_s in (("pending", 1), ("pending_long", 30)):
            if fault in struck:
                wait_s = seconds(struck, fault, usual_s)
        if "never_final" not in struck and wait_s is None:
            self.world.bank.settle(payment, end)
            return
        payment.status = str(struck.get("pending_long", {}).get("status", "pending"))
        if "never_final" not in struck and wait_s is not None:
            self.world.agenda.after(wait_s, lambda: self.world.bank.settle(payment, end))

    def _status(self, payment: Payment | None, request_id: str, caller: Account) -> Good:
        if not REQUEST_ID.fullmatch(request_id):
            raise RestRefusal("InvalidRequestIDFormat")
        if payment is None or payment.visible_at > self.world.clock():
            raise RestRefusal("RequestIDNotFound")
        own = payment.payer_entry if caller is payment.payer else payment.payee_entry
        return Good(state_of(payment, own))


def state_of(payment: Payment, entry: int) -> dict[str, Any]:
    """Status and transaction id, as every payment call tells them. A reversal shows in the wallet alone."""
    status = "complete" if payment.status == "reverted" else payment.status
    return {"status": status, "transaction_id": entry if payment.shows_id and status == "complete" else None}


def fields(data: dict[str, Any], needed: set[str], optional: set[str]) -> dict[str, Any]:
    """The data, with all that is needed and nothing unknown. Raises `RestRefusal`."""
    if missing := needed - data.keys():
        raise RestRefusal("InputError", message=f"Missing: {', '.join(sorted(missing))}.")
    if unknown := data.keys() - needed - optional:
        raise RestRefusal("InputError", message=f"Not allowed: {', '.join(sorted(unknown))}.")
    return data


def money_of(data: dict[str, Any]) -> tuple[int, str, str]:
    """Amount in cents, currency, and the request id or an empty text. Raises `RestRefusal`."""
    amount, currency, request_id = data["amount"], data["currency"], data.get("request_id")
    if not isinstance(amount, str) or not AMOUNT.fullmatch(amount):
        raise RestRefusal("InvalidAmount")
    if not isinstance(currency, str) or not CURRENCY.fullmatch(currency):
        raise RestRefusal("InvalidCurrency")
    if request_id is not None and (not isinstance(request_id, str) or not REQUEST_ID.fullmatch(request_id)):
        raise RestRefusal("InvalidRequestIDFormat")
    try:
        cents = cents_of(amount)
    except TooManyDecimals:
        raise RestRefusal("InvalidAmount") from None
    if not cents:
        raise RestRefusal("InvalidAmount")
    return cents, currency, request_id or ""


def agent_id_of(data: dict[str, Any]) -> int:
    """The agent's id. Raises `RestRefusal` (`InvalidAgentID`)."""
    agent_id = data["agent_id"]
    if type(agent_id) is not int or agent_id < 1:
        raise RestRefusal("InvalidAgentID")
    return agent_id


def text(data: dict[str, Any], name: str) -> str:
    """A field that must be a string. Raises `RestRefusal` (`InputError`)."""
    if not isinstance(data[name], str):
        raise RestRefusal("InputError", message=f"{name} must be a string.")
    value: str = data[name]
    return value


def boolean(data: dict[str, Any], name: str) -> bool:
    """A field that must be a boolean, false when it is left out. Raises `RestRefusal` (`InputError`)."""
    if not isinstance(data.get(name, False), bool):
        raise RestRefusal("InputError", message=f"{name} must be a boolean.")
    return bool(data.get(name, False))
