"""The REST face of the simulated Deriv: its routes, who may call them, in what order a call is judged.

Source: Deriv contract, section 1.
"""

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from deriv_integration.simulator.books import REST, Account
from deriv_integration.simulator.faults import Struck, seconds
from deriv_integration.simulator.oauth import OAuthServer
from deriv_integration.simulator.rest_answers import (
    PAYMENTS,
    TRADING,
    WALLET,
    Good,
    NotJson,
    Reset,
    RestRefusal,
    bad,
    good,
    page_of,
)
from deriv_integration.simulator.rest_payments import RestPayments
from deriv_integration.simulator.rest_reads import RestReads
from deriv_integration.simulator.world import World
from shared_kernel.simulator import Answer, Request

Handler: TypeAlias = Callable[[Account, Request, str, Struck], Good]
A_MINUTE = 60
WALLETS = "main|p2p|partner|payment_agent"
OWN_500 = {
    "transfer": "TransferFailed", "withdraw": "WithdrawalFailed", "code": "VerificationCodeRequestFailed",
    "wallet": "WalletLookupFailed", "account": "NicknameLookupFailed",
}  # fmt: skip
STATUSES = {"request_timeout": 504, "http_504": 504, "wrong_response": 502}


@dataclass(frozen=True)
class Route:
    """A call: `call` is what faults name it, `scope` what the token needs."""

    method: str
    path: re.Pattern[str]
    call: str
    handler: Handler
    family: str = PAYMENTS
    scope: str = "payment"


@dataclass
class Rest:
    """All of the REST API; `answer` takes one request."""

    world: World
    spent: dict[str, list[datetime]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.oauth = OAuthServer(self.world)
        pay, read = RestPayments(self.world), RestReads(self.world)
        agents = r"/payment-agents/v1"
        self.routes = [
            route("POST", f"{agents}/transfer", "transfer", pay.transfer),
            route("GET", f"{agents}/transfer/([^/]+)", "status", pay.transfer_status),
            route("POST", f"{agents}/withdraw", "withdraw", pay.withdraw),
            route("POST", f"{agents}/withdraw/verification_code", "code", pay.code),
            route("GET", f"{agents}/withdraw/([^/]+)", "status", pay.withdraw_status),
            route("GET", f"{agents}/agents", "agents", read.agents),
            route("GET", f"{agents}/agents/([^/]+)", "agents", read.agent),
            route("GET", f"{agents}/agent-statistics", "agents", read.statistics),
            route("GET", f"{agents}/clients/me", "account", read.client),
            route("PATCH", f"{agents}/clients/me", "account", read.client),
            route("GET", "/account/v1/nickname", "account", read.nickname, scope="account_manage"),
            route("GET", "/wallet/v1/wallets", "wallet", read.wallets, WALLET),
            route("GET", f"/wallet/v1/transactions/({WALLETS})", "wallet", read.transactions, WALLET),
            route("GET", "/trading/v1/options/legacy/migration-status", "account", read.migration, TRADING, "trade"),
        ]  # fmt: skip

    async def answer(self, request: Request) -> Answer | None:
        """The answer, or None where the connection is reset."""
        if request.path.startswith("/oauth2/"):
            return await self.oauth.answer(request)
        found = self._find(request)
        timing = self.world.random.choice([0.038, 38])  # seconds in one text of Deriv's, milliseconds in another
        if found is None:
            family = WALLET if request.path.startswith("/wallet/") else PAYMENTS
            return bad(family, request, RestRefusal("NotFound", 404), timing)
        asked, named = found
        try:
            return good(asked.family, request, await self._respond(asked, request, named), timing)
        except RestRefusal as refused:
            return bad(asked.family, request, refused, timing)
        except NotJson as page:
            return page_of(page.status)
        except Reset:
            return None

    def _find(self, request: Request) -> tuple[Route, str] | None:
        for asked in self.routes:
            match = asked.path.fullmatch(request.path)
            if match and asked.method == request.method:
                return asked, match.group(1) if match.groups() else ""
        return None

    async def _respond(self, asked: Route, request: Request, named: str) -> Good:
        """Raises `RestRefusal`, `NotJson`, `Reset`."""
        seen = f"rest {asked.call}"
        self.world.calls_seen[seen] = self.world.calls_seen.get(seen, 0) + 1
        await self.world.delay()
        token = request.headers.get(b"authorization", b"").decode("latin-1").removeprefix("Bearer ")
        caller = self.world.bank.by_rest_token.get(token)
        struck = self.world.strike(asked.call, REST, about(caller, request, named))
        if "slow" in struck:
            await asyncio.sleep(seconds(struck, "slow", 1))
        self.world.agenda.catch_up()
        caller = self._admit(asked, request, caller, token, struck)
        self._fail_before(asked, request, named, caller, struck)
        found = asked.handler(caller, request, named, struck)
        self._fail_after(asked, struck)
        return found

    def _admit(self, asked: Route, request: Request, caller: Account | None, token: str, struck: Struck) -> Account:
        if self.world.faults.is_armed("down", REST):
            raise NotJson(503)
        if caller is not None and "token_superseded" in struck:
            self.world.bank.forbid(caller, REST)
            caller = None
        if caller is None:
            raise RestRefusal("Unauthorized", 401, "The token is missing, wrong or expired.")
        if not request.headers.get(b"deriv-app-id"):
            raise RestRefusal("Unauthorized", 401, "Deriv-App-ID is missing.")
        if "rate_limited" in struck:
            raise RestRefusal("RateLimit", 429)
        self._spend(token)
        if asked.scope not in caller.rest_tokens[token]:
            raise RestRefusal("InputError", 403, f"The token lacks the scope {asked.scope}.")
        return caller

    def _spend(self, token: str) -> None:
        """60 requests in any minute, by token. A refused one costs nothing."""
        if not self.world.limits:
            return
        now = self.world.clock()
        spent = [at for at in self.spent.get(token, []) if now - at < timedelta(seconds=A_MINUTE)]
        self.spent[token] = spent
        if len(spent) >= A_MINUTE:
            raise RestRefusal("RateLimit", 429)
        spent.append(now)

    def _fail_before(self, asked: Route, request: Request, named: str, caller: Account, struck: Struck) -> None:
        if "error" in struck:
            told = struck["error"]
            raise RestRefusal(str(told.get("code", "")), int(told.get("status", 400)), str(told.get("message", "")))
        if "late_commit" in struck:
            wait_s = seconds(struck, "late_commit", 3)
            rest = {name: options for name, options in struck.items() if name != "late_commit"}
            self.world.agenda.after(wait_s, lambda: self._commit_late(asked, caller, request, named, rest))
            raise NotJson(504)
        if {"lost_answer_before_effect", "drop_socket_before_effect"} & struck.keys():
            raise Reset
        self._fail_unsettled(asked, struck, "before")

    def _fail_after(self, asked: Route, struck: Struck) -> None:
        if {"lost_answer_after_effect", "drop_socket_after_effect"} & struck.keys():
            raise Reset
        if "error_after" in struck:
            told = struck["error_after"]
            raise RestRefusal(str(told.get("code", "")), int(told.get("status", 500)), str(told.get("message", "")))
        self._fail_unsettled(asked, struck, "after")

    def _fail_unsettled(self, asked: Route, struck: Struck, when: str) -> None:
        if f"http_500_{when}" in struck:
            raise RestRefusal(OWN_500.get(asked.call, "InternalError"), 500)
        for name, status in STATUSES.items():
            if f"{name}_{when}" in struck:
                raise NotJson(status)

    def _commit_late(self, asked: Route, caller: Account, request: Request, named: str, struck: Struck) -> None:
        with suppress(RestRefusal):
            asked.handler(caller, request, named, struck)


def route(method: str, path: str, call: str, handler: Handler, family: str = PAYMENTS, scope: str = "payment") -> Route:
    """A `Route` from the text of its path."""
    return Route(method, re.compile(path), call, handler, family, scope)


def about(caller: Account | None, request: Request, named: str) -> dict[str, object]:
    """What a fault can be narrowed down by: the caller, and what path or body name."""
    told: dict[str, object] = {"loginid": caller.key if caller else "", "request_id": named}
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        data = request.json()["data"]
        told |= {"request_id": data.get("request_id"), "transfer_to": data.get("to_nickname")}
    return told
