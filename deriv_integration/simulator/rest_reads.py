"""What the simulated REST API lets its callers read: wallets and their entries, agents, own settings.

Source: Deriv contract, 1.3 and 1.6.
"""

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from deriv_integration.simulator.books import REST, WITHDRAWAL, Account, Entry, Payment, decimal
from deriv_integration.simulator.faults import Struck
from deriv_integration.simulator.rest_answers import Good, RestRefusal, data_of
from deriv_integration.simulator.world import World
from shared_kernel.simulator import Request

FILTERS = {"request_id", "transaction_currency", "start_date_time", "end_date_time", "per_page", "page_cursor"}
IN_WALLET = {"requested": "pending", "rejected": "cancelled"}  # the wallet has other words for some
NEVER, ALWAYS = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass
class RestReads:
    """One method a call: caller, request, what the path named, the faults that strike. They raise `RestRefusal`."""

    world: World

    def wallets(self, caller: Account, request: Request, _: str, struck: Struck) -> Good:
        """`GET /wallet/v1/wallets`: an agent's money is in its `payment_agent` wallet, a customer's in `main`."""
        if set(request.params()) - {"conversion_currency", "start_date_time", "end_date_time"}:
            raise RestRefusal("InputError")
        held = wallet_of(caller)
        amounts = {held: caller.balance} | ({"main": 0} if held != "main" else {})
        return Good(
            [
                {"wallet_id": wallet_id(caller, type), "type": type, "balances": {caller.currency: decimal(amount)}}
                for type, amount in amounts.items()
            ],
            {} if "missing_links" in struck or self.world.random.random() < 0.5 else {"self": request.path},
        )

    def transactions(self, caller: Account, request: Request, wallet: str, struck: Struck) -> Good:
        """`GET /wallet/v1/transactions/{wallet}`, newest first. `links` is sometimes missing where nothing follows."""
        asked = filters_of(request)
        start, end = moment(asked.get("start_date_time")), moment(asked.get("end_date_time"))
        per_page, offset = asked["per_page"], asked.get("offset", 0)
        found = self._entries(caller, wallet, start or NEVER, end or ALWAYS)
        entries = (
            entry
            for entry in found
            if asked.get("request_id") in {None, entry["request_id"]}
            and asked.get("transaction_currency") in {None, entry["metadata"]["transaction_currency"]}
        )
        page = list(islice(entries, offset, offset + per_page))
        is_last = next(entries, None) is None
        links = {
            "self": link(request, asked, offset),
            "next": None if is_last else link(request, asked, offset + per_page),
            "prev": None if not offset else link(request, asked, max(offset - per_page, 0)),
            "first": link(request, asked, 0),
        }
        if "missing_links" in struck or (is_last and self.world.random.random() < 0.5):
            links = {}
        span = {"start_date_time": start and iso(start), "end_date_time": end and iso(end)}
        return Good({"transactions": page, **span}, links)

    def agents(self, caller: Account, request: Request, _: str, struck: Struck) -> Good:
        """`GET /payment-agents/v1/agents`."""
        asked = request.params()
        if not re.fullmatch(r"[A-Z_]{1,18}", asked.get("currency", "")):
            raise RestRefusal("InvalidCurrency")
        country = asked.get("country")
        return Good(
            [
                listed(agent)
                for agent in self._agents()
                if agent.currency == asked["currency"] and country in {None, agent.residence}
            ]
        )

    def agent(self, caller: Account, request: Request, id: str, struck: Struck) -> Good:
        """`GET /payment-agents/v1/agents/{id}`: the own profile for `me`, with what only its owner sees."""
        if (id != "me" and not id.isascii()) or (id != "me" and not id.isdecimal()):
            raise RestRefusal("InvalidAgentID")
        agent = caller if id == "me" else self.world.bank.agent(int(id))
        if agent is None or agent.agent_id is None:
            raise RestRefusal("AgentNotFound", 404)
        limits = {"currency": agent.currency, "deposit_commission": 0, "withdrawal_commission": 0, **limits_of(agent)}
        own = {}
        if agent is caller:
            works = not agent.status
            own = dict.fromkeys(("deposit_enabled", "withdraw_enabled", "cashier_withdraw", "transfer_to_pa"), works)
        return Good({**listed(agent), "currencies": [limits], **own})

    def statistics(self, caller: Account, request: Request, _: str, struck: Struck) -> Good:
        """`GET /payment-agents/v1/agent-statistics`."""
        agents = list(self._agents())
        return Good(
            {
                "available_countries": sorted({agent.residence for agent in agents}),
                "available_currencies": sorted({agent.currency for agent in agents}),
            }
        )

    def client(self, caller: Account, request: Request, _: str, struck: Struck) -> Good:
        """`GET` and `PATCH /payment-agents/v1/clients/me`."""
        if request.method == "PATCH":
            data = data_of(request)
            if set(data) != {"show_real_name"} or not isinstance(data["show_real_name"], bool):
                raise RestRefusal("InputError")
            caller.show_real_name = data["show_real_name"]
        return Good(
            {
                "deposit_enabled": not {"deposit_disabled", "disabled", "cashier_locked"} & caller.status,
                "withdraw_enabled": not {"withdrawal_locked", "disabled", "cashier_locked"} & caller.status,
                "show_real_name": caller.show_real_name,
            }
        )

    def nickname(self, caller: Account, request: Request, _: str, struck: Struck) -> Good:
        """`GET /account/v1/nickname`."""
        return Good({"nickname": caller.nickname, "external_reference_id": caller.client_id})

    def migration(self, caller: Account, request: Request, _: str, struck: Struck) -> Good:
        """`GET /trading/v1/options/legacy/migration-status`."""
        return Good({"status": "complete" if caller.moved else "not_applicable"})

    def _agents(self) -> Iterator[Account]:
        return (account for account in self.world.bank.accounts.values() if account.agent_id is not None)

    def _entries(self, caller: Account, wallet: str, start: datetime, end: datetime) -> Iterator[dict[str, Any]]:
        """All that a wallet shows of that time, newest first."""
        if wallet != wallet_of(caller):
            return
        now, hidden = self.world.clock(), self.world.hidden_from(caller, REST)
        deposits = (entry for entry in reversed(caller.entries) if entry.longcode == "Deposit")
        lines: Iterable[Entry | Payment] = merge(reversed(caller.payments), deposits, key=age, reverse=True)
        for one in lines:
            if one.at < start:
                return
            if one.at > end:
                continue
            if isinstance(one, Entry):
                yield of_deposit(one, caller)
            elif one.in_wallet_at <= now and own_entry(one, caller) not in hidden:
                yield self._of_payment(one, caller)

    def _of_payment(self, payment: Payment, caller: Account) -> dict[str, Any]:
        request_id, own = payment.request_id, own_entry(payment, caller)
        if payment.kind == WITHDRAWAL and caller is payment.payee and not self.world.request_id_in_agents_wallet:
            request_id = ""
        return {
            "request_id": request_id or str(uuid5(NAMESPACE_URL, str(own))),
            "transaction_id": own,
            "timestamp": iso(payment.at),
            "category": "deposit" if caller is payment.payee else "withdrawal",
            "channel": "payment_agent",
            "metadata": {
                **amounts(payment.amount, payment.payer.currency, IN_WALLET.get(payment.status, payment.status)),
                "source_client_id": payment.payer.client_id,
                "source_wallet_type": wallet_of(payment.payer),
                "destination_client_id": payment.payee.client_id,
                "destination_wallet_type": wallet_of(payment.payee),
            },
        }


def age(line: Entry | Payment) -> datetime:
    """What a wallet is sorted by."""
    return line.at


def own_entry(payment: Payment, caller: Account) -> int:
    """The id of the caller's side of a payment."""
    return payment.payer_entry if caller is payment.payer else payment.payee_entry


def of_deposit(entry: Entry, account: Account) -> dict[str, Any]:
    """Money from outside of Deriv, as the wallet shows it."""
    return {
        "request_id": str(uuid5(NAMESPACE_URL, str(entry.id))),
        "transaction_id": entry.id,
        "timestamp": iso(entry.at),
        "category": "deposit" if entry.amount > 0 else "withdrawal",
        "channel": "cashier",
        "metadata": amounts(abs(entry.amount), account.currency, "complete"),
    }


def amounts(cents: int, currency: str, status: str) -> dict[str, str]:
    """Gross is net: neither API deducts a commission."""
    return {
        "transaction_status": status,
        "transaction_gross_amount": decimal(cents),
        "transaction_net_amount": decimal(cents),
        "transaction_currency": currency,
    }


def listed(agent: Account) -> dict[str, Any]:
    """As the list of agents shows one."""
    return {
        "id": agent.agent_id,
        "name": agent.name,
        "nickname": agent.nickname,
        "is_listed": True,
        "countries": [agent.residence],
        "payment_methods": ["M-Pesa"],
        "phone_numbers": ["+254700000000"],
        "email": agent.email,
        "urls": ["https://example.com"],
        "deposit_commission": 0,
        "withdrawal_commission": 0,
        **limits_of(agent),
        "created_at": 1_700_000_000_000,
    }


def limits_of(agent: Account) -> dict[str, str]:
    """An agent's limits for one payment, either way."""
    return {"withdrawal_minimum": decimal(agent.least), "withdrawal_maximum": decimal(agent.most)}


def wallet_of(account: Account) -> str:
    """The wallet that payments through agents use."""
    return "main" if account.agent_id is None else "payment_agent"


def wallet_id(account: Account, type: str) -> str:
    """The same one for as long as the account lives."""
    return str(uuid5(NAMESPACE_URL, f"{account.client_id} {type}"))


def filters_of(request: Request) -> dict[str, Any]:
    """What was asked for; a cursor holds it all, and what stands beside it is ignored. Raises `RestRefusal`."""
    asked: dict[str, Any] = dict(request.params())
    if set(asked) - FILTERS:
        raise RestRefusal("InputError", message="unknown filter")
    if "page_cursor" in asked:
        try:
            held: dict[str, Any] = json.loads(urlsafe_b64decode(asked["page_cursor"]))
            per_page, offset = int(held["per_page"]), int(held["offset"])
            if min(per_page, offset) < 0:
                raise ValueError
            return {**held, "per_page": per_page, "offset": offset}
        except (ValueError, TypeError, KeyError):
            raise RestRefusal("InputError", message="page_cursor") from None
    per_page = asked.get("per_page", "100")
    if not per_page.isdecimal() or not 100 <= int(per_page) <= 1000:
        raise RestRefusal("InputError", message="per_page must be between 100 and 1000")
    if not CURRENCY.fullmatch(asked.get("transaction_currency", "USD")):
        raise RestRefusal("InputError", message="transaction_currency")
    return {**asked, "per_page": int(per_page)}


def moment(text: str | None) -> datetime | None:
    """A time in ISO 8601 or epoch seconds. Raises `RestRefusal`."""
    if text is None:
        return None
    try:
        if text.isdecimal():
            return datetime.fromtimestamp(int(text), UTC)
        at = datetime.fromisoformat(text)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise RestRefusal("InputError", message="a time that is none") from None


def iso(at: datetime) -> str:
    """As the API writes times."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def link(request: Request, asked: dict[str, Any], offset: int) -> str:
    """The address of a page; it holds the cursor and nothing else."""
    cursor = urlsafe_b64encode(json.dumps({**asked, "offset": offset}).encode()).decode()
    return f"{request.path}?page_cursor={cursor}"
