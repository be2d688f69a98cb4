"""The control side of the simulated Deriv: customers and agents, the customer's mail, the books, settings."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deriv_integration.simulator.books import REST, WS_V3, Account, cents_of, decimal
from deriv_integration.simulator.world import World
from shared_kernel.simulator import Answer, Handler, Request, control_routes

TEXTS = ("name", "email", "currency", "residence", "is_virtual", "is_agent", "show_real_name", "client_id")
COUNTS = ("least", "most", "daily_count", "daily_amount", "daily_withdrawals")
V3_SCOPES, REST_SCOPES = ("read", "payments"), ("payment", "account_manage")
NUMBERS = ("idle_s", "pending_s", "propagation_s", "token_ttl_s")
SWITCHES = ("refusal_burns_request_id", "code_before_request_id", "request_id_in_agents_wallet", "gives_refresh_tokens")


@dataclass
class Control:
    """`reset` forgets all but the settings; `renew` gives everybody a full call budget."""

    world: World
    reset: Callable[[], None]
    renew: Callable[[], None]
    refused: Callable[[], int]

    def routes(self) -> dict[tuple[str, str], Handler]:
        """Empty in production."""
        world = self.world
        routes = control_routes(world.faults, world.books, world.clock, customers=self.customers, reset=self.reset)
        if not routes:
            return {}
        return {
            **routes,
            ("GET", "/_control/books"): answering(lambda _: self.books()),
            ("GET", "/_control/calls"): answering(lambda _: self.calls()),
            ("POST", "/_control/payments"): answering(self.decide),
            ("GET", "/_control/codes"): answering(self.codes),
            ("POST", "/_control/settings"): answering(self.settings),
            ("POST", "/_control/clients"): answering(self.clients),
        }

    def books(self) -> list[dict[str, Any]]:
        """Every movement of money once, oldest first."""
        self.world.agenda.catch_up()
        return self.world.books.movements

    def calls(self) -> dict[str, Any]:
        """How many calls of each name came, and how many on v3 were refused for their number since it was set."""
        return {"seen": self.world.calls_seen, "refused": self.refused()}

    def codes(self, request: Request) -> list[dict[str, Any]]:
        """The one-time codes that a customer got, oldest first: `?customer=` login id, nickname or e-mail address."""
        return [code.public() for code in self.world.codes.of(request.params().get("customer", ""))]

    def decide(self, request: Request) -> list[dict[str, str]]:
        """`{"request_id" or "id", "status"}`: decides an open payment, or takes a complete one back (`reverted`).

        `id` is a transaction id of either side.
        """
        order, bank = request.json(), self.world.bank
        if order["status"] not in {"complete", "rejected", "failed", "reverted"}:
            raise ValueError("status is complete, rejected, failed or reverted")
        if "id" in order:
            chosen = {bank.by_entry[int(order["id"])]}
        else:
            chosen = {payment for payment in bank.by_entry.values() if payment.request_id == order["request_id"]}
        for payment in chosen:
            if order["status"] == "reverted":
                bank.revert(payment)
            else:
                bank.settle(payment, order["status"])
        return [{"id": str(payment.payer_entry), "status": payment.status} for payment in chosen]

    def customers(self, body: Any) -> list[dict[str, Any]]:
        """Opens or changes accounts, one or a list of them:

        `{"loginid" and/or "nickname", "agent_id", "name", "balance", "deposit", "token", "scopes", "rest_token",
        "rest_scopes", "email", "residence", "currency", "status" or "behaviours": [...], "moved", ...}`. `balance` (a
        decimal string) counts only when the account is opened; `deposit` tops it up. A new token replaces those that
        the account had on that face, null revokes them; `token` is v3's, unless there is no login id. `moved`: true,
        `disconnect` or the code that v3 calls get from now on; it needs a nickname, given here or before.
        """
        return [self._customer(order) for order in (body if isinstance(body, list) else [body])]

    def settings(self, request: Request) -> dict[str, Any]:
        """`{"limits", "duplicate_guard_s", "latency_s": [low, high], ...}`, each optional; names as in `World`."""
        body, world = request.json(), self.world
        world.calls_a_minute = int(body.get("calls_a_minute", world.calls_a_minute))
        world.limits = bool(body.get("limits", world.limits))
        if {"limits", "calls_a_minute"} & body.keys():
            self.renew()
        if "duplicate_guard_s" in body:
            world.duplicate_guard_s = world.bank.duplicate_guard_s = float(body["duplicate_guard_s"])
        if "latency_s" in body:
            low, high = body["latency_s"]
            world.latency_s = (float(low), float(high))
        for name in NUMBERS:
            setattr(world, name, float(body.get(name, getattr(world, name))))
        for name in SWITCHES:
            setattr(world, name, bool(body.get(name, getattr(world, name))))
        return {}

    def clients(self, request: Request) -> dict[str, list[str]]:
        """`{"client_id", "redirect_uris": [...]}`: registers an OAuth client, or gives it other redirect URIs."""
        order = request.json()
        self.world.oauth_clients[str(order["client_id"])] = tuple(str(uri) for uri in order["redirect_uris"])
        return {client: list(uris) for client, uris in self.world.oauth_clients.items()}

    def _customer(self, order: Mapping[str, Any]) -> dict[str, Any]:
        account = self._known(order) or self._opened(order)
        for name in TEXTS:
            setattr(account, name, order.get(name, getattr(account, name)))
        for name in COUNTS:
            setattr(account, name, int(order.get(name, getattr(account, name))))
        account.status = set(order.get("behaviours", order.get("status", account.status)))
        if "nickname" in order:
            self.world.bank.name(account, str(order["nickname"]))
        if "deposit" in order:
            self.world.bank.enter(account, cents_of(str(order["deposit"])), "deposit", "Deposit", None)
        self._tokens(account, order)
        if "moved" in order:
            self._move(account, order["moved"])
        return {
            "loginid": account.loginid,
            "nickname": account.nickname,
            "external_reference_id": account.client_id,
            "balance": decimal(account.balance),
        }

    def _known(self, order: Mapping[str, Any]) -> Account | None:
        bank = self.world.bank
        if "loginid" in order:
            return bank.accounts.get(str(order["loginid"]))
        if "agent_id" in order:
            return bank.agent(int(order["agent_id"]))
        return bank.nicknames.get(str(order["nickname"]))

    def _opened(self, order: Mapping[str, Any]) -> Account:
        agent_id = int(order["agent_id"]) if "agent_id" in order else None
        account = Account(str(order.get("loginid", "")), "", nickname=str(order.get("nickname", "")), agent_id=agent_id)
        account.is_agent = agent_id is not None
        return self.world.bank.open(account, cents_of(str(order.get("balance", "0"))))

    def _tokens(self, account: Account, order: Mapping[str, Any]) -> None:
        own = WS_V3 if account.loginid else REST
        for name, face, usual in (("token", own, "scopes"), ("rest_token", REST, "rest_scopes")):
            if name not in order:
                continue
            self.world.bank.forbid(account, face)
            if order[name] is not None:
                scopes = order.get(usual, V3_SCOPES if face == WS_V3 else REST_SCOPES)
                self.world.bank.allow(account, str(order[name]), frozenset(scopes), face)

    def _move(self, account: Account, moved: Any) -> None:
        if moved and not account.nickname:
            raise ValueError("who is moved to the new API needs a nickname")
        account.moved = ("DisabledClient" if moved is True else str(moved)) if moved else ""


def answering(act: Callable[[Request], Any]) -> Callable[[Request], Awaitable[Answer]]:
    """A handler that answers what `act` returns, and 400 for what it can't read."""

    async def handler(request: Request) -> Answer:
        try:
            return Answer.json(act(request))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return Answer.json({"error": str(error)}, 400)

    return handler
