"""Deriv's WebSocket v3 as a real server over simulated books, with its refusals, its guards and its ways to fail.

Faults (`POST /_control/faults`): `FAULTS`; call is a v3 call or `connect`, `transfer_to` and `loginid` narrow one
down.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any
from urllib.parse import parse_qs
from uuid import UUID

from deriv_integration.simulator.books import Account, Bank, Entry, Refusal, cents_of, number, page
from deriv_integration.simulator.calls import SENSITIVE, SPECS, Budgets, call_of, validate
from shared_kernel.simulator import (
    Answer,
    Books,
    Faults,
    Handler,
    JsonApp,
    Receive,
    Request,
    Scope,
    Send,
    SimulatedClock,
    control_routes,
)

FAULTS = frozenset(
    {
        "lost_answer_before_effect",
        "lost_answer_after_effect",
        "drop_socket_before_effect",
        "drop_socket_after_effect",
        "wrong_response_before",
        "wrong_response_after",
        "request_timeout_before",
        "request_timeout_after",
        "request_timeout_late_commit",  # books after `after_s` (3)
        "rate_limited",
        "float_low",
        "error",  # answers `code` and `message`, without effect
        "dry_run_value",  # answers 2 to a transfer that was meant, without effect
        "missing_transaction_id",
        "double_booking",
        "statement_gap",  # the statement leaves out the account's newest outgoing entry, as long as it is armed
        "token_superseded",  # the session's login is gone, and the token with it
        "reverted_later",  # takes a transfer back after `after_s` (3)
        "down",  # closes every socket and refuses new ones
        "updating",  # website_status; sockets drop after `after_s` (60)
        "site_down",
        "slow",  # answers after `after_s` (1), others are not held up
    }
)
UNSETTLED = {"wrong_response": "WrongResponse", "request_timeout": "RequestTimeout"}
UNSETTLED_TEXT = "Sorry, an error occurred while processing your request."
USD_CONFIG = {
    "fractional_digits": 2,
    "is_deposit_suspended": 0,
    "is_suspended": 0,
    "is_withdrawal_suspended": 0,
    "name": "US Dollar",
    "stake_default": 10,
    "transfer_between_accounts": {"fees": {}, "limits": {"min": 0.01}},
    "type": "fiat",
}


class Dropped(Exception):
    """The connection ends here, without a close frame."""


class Unanswered(Exception):
    """No answer is ever sent to this call."""


@dataclass
class DerivFaults(Faults):
    """Faults of which some show at once, on the sockets that are open."""

    changed: Callable[[], None] = lambda: None

    def arm(self, order: Mapping[str, Any]) -> None:
        super().arm(order)
        self.changed()

    def clear(self) -> None:
        super().clear()
        self.changed()

    def is_armed(self, fault: str) -> bool:
        """Whether it waits, for any call."""
        return any(armed.fault == fault for armed in self.armed)

    def option(self, fault: str, name: str, default: float) -> float:
        """An option of a fault that is armed."""
        return float(next((a.options.get(name, default) for a in self.armed if a.fault == fault), default))


@dataclass(eq=False)
class Session:
    """One socket: who is logged in on it, what it subscribed to."""

    send: Send
    app_id: int
    account: Account | None = None
    scopes: frozenset[str] = frozenset()
    streams: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)  # name -> (id, head of each push)
    heard_at: float = 0.0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def say(self, message: Mapping[str, Any]) -> None:
        if not self.gone.is_set():
            with suppress(Exception):  # the other side may have left meanwhile
                await self.send({"type": "websocket.send", "text": json.dumps(message, default=plain)})


@dataclass
class DerivSimulator:
    """One Deriv: its books, its sockets, its control side. `app` is what a server runs.

    `latency_s` is a span from which each call's delay is drawn, so that answers overtake each other.
    `agents` maps login ids to tokens.
    """

    agents: Mapping[str, str] = field(default_factory=lambda: {"CR900001": "demo-agent-token"})
    agent_float: str = "100000.00"
    limits: bool = True
    duplicate_guard_s: float = 2.0
    latency_s: tuple[float, float] = (0.0, 0.0)
    idle_s: float = 120.0
    seed: int = 0
    clock: SimulatedClock = field(default_factory=SimulatedClock)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.books = Books()
        self.faults = DerivFaults(
            frozenset(SPECS) | {"connect"},
            FAULTS,
            frozenset({"transfer_to", "loginid"}),
            Random(self.seed),
            changed=self._faults_changed,
        )
        self.sessions: set[Session] = set()
        self.calls_seen: dict[str, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.reset()
        self._handlers: dict[str, Callable[[Session, Mapping[str, Any]], dict[str, Any]]] = {
            "authorize": self._authorize,
            "balance": self._balance,
            "statement": self._statement,
            "paymentagent_transfer": self._transfer,
            "transaction": self._transaction,
            "ping": lambda session, request: {"ping": "pong"},
            "time": lambda session, request: {"time": int(self.clock().timestamp())},
            "website_status": self._website_status,
            "forget": self._forget,
            "forget_all": self._forget_all,
            "logout": self._logout,
        }

    def reset(self) -> None:
        """Forgets accounts, money and faults; opens the agents anew."""
        self.books.movements.clear()
        self.bank = Bank(
            self.clock, self.books, Random(self.seed), self.duplicate_guard_s, watch=self._push_transaction
        )
        self.budgets = Budgets(self.clock) if self.limits else Budgets(self.clock, None)
        self.faults.clear()
        for loginid, token in self.agents.items():
            agent = Account(loginid, "PenPay", nickname="penpay", email="agent@example.com", is_agent=True)
            agent.tokens[token] = frozenset({"read", "payments"})
            self.bank.open(agent, cents_of(self.agent_float))

    @property
    def app(self) -> JsonApp:
        """The ASGI application: the socket, and the control side over HTTP."""
        routes: dict[tuple[str, str], Handler] = control_routes(
            self.faults, self.books, self.clock, customers=self._customers, reset=self.reset
        )
        if routes:
            routes["POST", "/_control/settings"] = self._settings

        async def unknown(_: Request) -> Answer:
            return Answer.json({"error": "not found"}, 404)

        return JsonApp(routes, unknown, self.websocket)

    # --- the socket ---------------------------------------------------------------------------------------------------

    async def websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, from its handshake on. Returning without a close frame drops it."""
        self._loop = asyncio.get_running_loop()
        await receive()
        if "down" in self.faults.take("connect"):
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        app_id = parse_qs(scope["query_string"].decode("latin-1")).get("app_id", [""])[0]
        session = Session(send, int(app_id) if app_id.isdecimal() else 0, heard_at=self._loop.time())
        if not session.app_id:
            error = {"code": "InvalidAppID", "message": "Your app_id is invalid."}
            await session.say({"echo_req": {}, "msg_type": "error", "error": error})
            await send({"type": "websocket.close", "code": 1000})
            return
        self.sessions.add(session)
        reader = self._loop.create_task(self._read(session, receive))
        dropped = self._loop.create_task(session.gone.wait())
        idle = self._loop.create_task(self._close_when_idle(session))
        try:
            await asyncio.wait({reader, dropped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            session.gone.set()
            self.sessions.discard(session)
            for task in (reader, dropped, idle):
                task.cancel()

    async def _read(self, session: Session, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        while (message := await receive())["type"] == "websocket.receive":
            session.heard_at = loop.time()
            low, high = self.latency_s
            delay = self.random.uniform(low, high) if high else 0.0
            if delay or self.faults.is_armed("slow"):
                self._spawn(self._answer_later(session, message, delay))
            else:
                await self._answer(session, message)

    async def _answer_later(self, session: Session, message: Mapping[str, Any], delay: float) -> None:
        await asyncio.sleep(delay)
        await self._answer(session, message)

    async def _close_when_idle(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        while (left := session.heard_at + self.idle_s - loop.time()) > 0:
            await asyncio.sleep(left)
        with suppress(Exception):
            await session.send({"type": "websocket.close", "code": 1000})
        session.gone.set()

    async def _answer(self, session: Session, message: Mapping[str, Any]) -> None:
        try:
            request = json.loads(message.get("text") or "", parse_float=Decimal)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            error = {"code": "BadRequest", "message": "Bad request."}
            await session.say({"echo_req": {}, "msg_type": "error", "error": error})
            return
        call = call_of(request)
        head: dict[str, Any] = {"echo_req": masked(request), "msg_type": call or "error"}
        head |= {key: request[key] for key in ("req_id", "passthrough") if key in request}
        try:
            body = await self._respond(session, call, request)
        except Refusal as refusal:
            body = {"error": refusal.error}
        except Dropped:
            session.gone.set()
            return
        except Unanswered:
            return
        await session.say({**head, **body})

    async def _respond(self, session: Session, call: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's body. Raises `Refusal`, `Dropped`, `Unanswered`."""
        if not call:
            raise Refusal("Unrecognised request.", "UnrecognisedRequest")
        self.calls_seen[call] = self.calls_seen.get(call, 0) + 1
        loginid = session.account.loginid if session.account else ""
        struck = self.faults.take(call, loginid=loginid, transfer_to=request.get("transfer_to"))
        if "slow" in struck:
            await asyncio.sleep(float(struck["slow"].get("after_s", 1)))
        validate(call, request)
        if "rate_limited" in struck:
            raise Refusal(f"You have reached the rate limit for {call}.", "RateLimit")
        self.budgets.spend(loginid or f"connection {id(session)}", call)
        self._admit(session, call, struck)
        if not struck:
            return self._handlers[call](session, request)
        self._fail_before(session, call, request, struck)
        if "dry_run_value" in struck:
            return {"paymentagent_transfer": 2}
        body = self._handlers[call](session, request)
        self._fail_after(session, request, body, struck)
        return body

    def _admit(self, session: Session, call: str, struck: Mapping[str, Any]) -> None:
        needed = SPECS[call].scopes
        account = session.account
        if account is not None and "token_superseded" in struck:
            self.bank.forbid(account)
        if account is not None and session.scopes not in account.tokens.values():
            session.account = None
            raise Refusal("The token is invalid.", "InvalidToken")
        if needed is None:
            return
        if account is None:
            raise Refusal("Please log in.", "AuthorizationRequired")
        if not needed & session.scopes:
            raise Refusal(f"Permission denied, requires {' or '.join(sorted(needed))} scope(s).", "PermissionDenied")

    def _fail_before(
        self, session: Session, call: str, request: Mapping[str, Any], struck: Mapping[str, Mapping[str, Any]]
    ) -> None:
        if "error" in struck:
            raise Refusal(str(struck["error"].get("message", "")), str(struck["error"].get("code", "")))
        if "float_low" in struck:
            raise Refusal("Your account balance is insufficient for this transaction.")
        if "lost_answer_before_effect" in struck:
            raise Unanswered
        if "drop_socket_before_effect" in struck:
            raise Dropped
        if "request_timeout_late_commit" in struck:
            after_s = float(struck["request_timeout_late_commit"].get("after_s", 3))
            ghost = Session(session.send, session.app_id, session.account, session.scopes)
            asyncio.get_running_loop().call_later(after_s, self._commit_late, ghost, call, request)
            raise Refusal(UNSETTLED_TEXT, "RequestTimeout")
        for name, code in UNSETTLED.items():
            if f"{name}_before" in struck:
                raise Refusal(UNSETTLED_TEXT, code)

    def _fail_after(
        self,
        session: Session,
        request: Mapping[str, Any],
        body: dict[str, Any],
        struck: Mapping[str, Mapping[str, Any]],
    ) -> None:
        booked = "transaction_id" in body and session.account is not None
        if booked and "double_booking" in struck:
            self._book_again(session, request)
        if booked and "reverted_later" in struck:
            after_s = float(struck["reverted_later"].get("after_s", 3))
            asyncio.get_running_loop().call_later(after_s, self._revert, session.account, request, body)
        if "missing_transaction_id" in struck:
            body.pop("transaction_id", None)
        if "lost_answer_after_effect" in struck:
            raise Unanswered
        if "drop_socket_after_effect" in struck:
            raise Dropped
        for name, code in UNSETTLED.items():
            if f"{name}_after" in struck:
                raise Refusal(UNSETTLED_TEXT, code)

    def _commit_late(self, ghost: Session, call: str, request: Mapping[str, Any]) -> None:
        with suppress(Refusal):
            self._handlers[call](ghost, request)

    def _book_again(self, session: Session, request: Mapping[str, Any]) -> None:
        assert session.account is not None
        client = self.bank.accounts[request["transfer_to"].upper()]
        self.bank.booked.clear()
        note = request.get("description", "")
        self.bank.transfer(session.account, client, cents_of(request["amount"]), note, session.app_id)

    def _revert(self, agent: Account | None, request: Mapping[str, Any], body: Mapping[str, Any]) -> None:
        assert agent is not None
        entry = next(entry for entry in agent.entries if entry.id == body["transaction_id"])
        self.bank.revert(agent, self.bank.accounts[request["transfer_to"].upper()], entry)

    # --- the calls ----------------------------------------------------------------------------------------------------

    def _authorize(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        account = self.bank.by_token.get(request["authorize"])
        session.account = None
        if account is None:
            raise Refusal("The token is invalid.", "InvalidToken")
        if "disabled" in account.status:
            raise Refusal("This account is unavailable.", "DisabledClient")
        session.account, session.scopes = account, account.tokens[request["authorize"]]
        return {
            "authorize": {
                "account_list": [
                    {
                        "currency": account.currency,
                        "is_disabled": 0,
                        "is_virtual": int(account.is_virtual),
                        "landing_company_name": "svg",
                        "loginid": account.loginid,
                    }
                ],
                "balance": number(account.balance),
                "country": account.residence,
                "currency": account.currency,
                "email": account.email,
                "fullname": account.name,
                "is_virtual": int(account.is_virtual),
                "landing_company_fullname": "Deriv (SVG) LLC",
                "landing_company_name": "svg",
                "local_currencies": {"KES": {"fractional_digits": 2}},
                "loginid": account.loginid,
                "preferred_language": "EN",
                "scopes": sorted(session.scopes),
                "upgradeable_landing_companies": [],
                "user_id": account.user_id,
            }
        }

    def _transfer(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        agent = self._logged_in(session)
        amount = cents_of(request["amount"])
        client = self.bank.check_transfer(agent, request["transfer_to"].upper(), amount, request["currency"].upper())
        told = {"client_to_full_name": client.name, "client_to_loginid": client.loginid}
        if request.get("dry_run") == 1:
            return {"paymentagent_transfer": 2, **told}
        entry = self.bank.transfer(agent, client, amount, request.get("description", ""), session.app_id)
        return {"paymentagent_transfer": 1, **told, "transaction_id": entry.id}

    def _statement(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        account = self._logged_in(session)
        hidden: frozenset[int] = frozenset()
        if self.faults.is_armed("statement_gap"):
            hidden = frozenset([entry.id for entry in account.entries if entry.amount < 0][-1:])
        entries = self.bank.statement(
            account,
            action_type=request.get("action_type"),
            since=request.get("date_from", 0),
            until=request.get("date_to", 9_999_999_999),
            hidden=hidden,
        )
        shown = [
            entry.public(described=request.get("description") == 1)
            for entry in page(entries, request.get("offset", 0), int(request.get("limit", 100)))
        ]
        return {"statement": {"count": len(shown), "transactions": shown}}

    def _balance(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        account = self._logged_in(session)
        body: dict[str, Any] = {"balance": balance_of(account)}
        if request.get("subscribe") == 1:
            body["subscription"] = {"id": self._subscribe(session, "balance", request)}
            body["balance"]["id"] = body["subscription"]["id"]
        return body

    def _transaction(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        self._logged_in(session)
        id = self._subscribe(session, "transaction", request)
        return {"transaction": {"id": id}, "subscription": {"id": id}}

    def _website_status(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = {"website_status": self._site()}
        if request.get("subscribe") == 1:
            body["subscription"] = {"id": self._subscribe(session, "website_status", request)}
        return body

    def _forget(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        known = [name for name, (id, _) in session.streams.items() if id == request["forget"]]
        for name in known:
            del session.streams[name]
        return {"forget": len(known)}

    def _forget_all(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        kinds = request["forget_all"] if isinstance(request["forget_all"], list) else [request["forget_all"]]
        return {"forget_all": [session.streams.pop(kind)[0] for kind in kinds if kind in session.streams]}

    def _logout(self, session: Session, request: Mapping[str, Any]) -> dict[str, Any]:
        session.account, session.scopes = None, frozenset()
        session.streams.clear()
        return {"logout": 1}

    @staticmethod
    def _logged_in(session: Session) -> Account:
        assert session.account is not None  # _admit saw to it
        return session.account

    # --- streams, maintenance -----------------------------------------------------------------------------------------

    def _subscribe(self, session: Session, name: str, request: Mapping[str, Any]) -> str:
        if name in session.streams:
            raise Refusal(f"You are already subscribed to {name}.", "AlreadySubscribed")
        id = str(UUID(int=self.random.getrandbits(128), version=4))
        head = {"echo_req": masked(request), "msg_type": name, "subscription": {"id": id}}
        head |= {key: request[key] for key in ("req_id", "passthrough") if key in request}
        session.streams[name] = (id, head)
        return id

    def _push_transaction(self, account: Account, entry: Entry) -> None:
        for session in self.sessions:
            if session.account is not account or not session.streams:
                continue
            if "transaction" in session.streams:
                id, head = session.streams["transaction"]
                told = {
                    "action": entry.action_type,
                    "amount": number(entry.amount),
                    "balance": number(entry.balance_after),
                    "currency": account.currency,
                    "id": id,
                    "transaction_id": entry.id,
                    "transaction_time": int(entry.at.timestamp()),
                }
                self._spawn(session.say({**head, "transaction": told}))
            if "balance" in session.streams:
                id, head = session.streams["balance"]
                self._spawn(session.say({**head, "balance": {**balance_of(account), "id": id}}))

    def _site(self) -> dict[str, Any]:
        status = (
            "updating" if self.faults.is_armed("updating") else "down" if self.faults.is_armed("site_down") else "up"
        )
        minutely, hourly = (180, 14_400)
        general = {"applies_to": "general", "hourly": hourly, "minutely": minutely}
        slow = {"applies_to": "statement", "hourly": 1_500, "minutely": 25}
        return {
            "api_call_limits": {
                "max_proposal_subscription": {"applies_to": "subscribing to proposal", "max": 5},
                "max_requestes_general": general,
                "max_requests_outcome": slow,
                "max_requests_pricing": slow,
            },
            "clients_country": "ke",
            "currencies_config": {"USD": USD_CONFIG},
            "site_status": status,
            "supported_languages": ["EN"],
        }

    def _faults_changed(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._show_faults)

    def _show_faults(self) -> None:
        if self.faults.is_armed("down"):
            for session in self.sessions:
                session.gone.set()
        status = self._site()
        for session in self.sessions:
            if "website_status" in session.streams:
                self._spawn(session.say({**session.streams["website_status"][1], "website_status": status}))
        if self.faults.is_armed("updating"):
            assert self._loop is not None
            self._loop.call_later(self.faults.option("updating", "after_s", 60), self._drop_for_update)

    def _drop_for_update(self) -> None:
        if self.faults.is_armed("updating"):
            for session in self.sessions:
                session.gone.set()

    def _spawn(self, work: Any) -> None:
        try:
            task = asyncio.get_running_loop().create_task(work)
        except RuntimeError:  # books changed from outside of the loop: nobody is told
            work.close()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- the control side ---------------------------------------------------------------------------------------------

    def _customers(self, body: Any) -> Any:
        """Opens or changes accounts: `{"loginid", "name", "nickname", "balance", "token", "scopes", "status", ...}`.

        `balance` (a decimal string) counts only when the account is opened; `deposit` tops it up; a new `token`
        replaces the old ones, null revokes them. A list of such is taken as well.
        """
        answers = []
        for order in body if isinstance(body, list) else [body]:
            loginid = str(order["loginid"])
            account = self.bank.accounts.get(loginid)
            if account is None:
                account = self.bank.open(Account(loginid, ""), cents_of(str(order.get("balance", "0"))))
            for name in ("name", "nickname", "email", "currency", "residence", "is_virtual", "is_agent"):
                setattr(account, name, order.get(name, getattr(account, name)))
            for name in ("least", "most", "daily_count", "daily_amount"):  # an agent's limits, in cents
                setattr(account, name, int(order.get(name, getattr(account, name))))
            account.status = set(order.get("status", account.status))
            if "deposit" in order:
                self.bank.enter(account, cents_of(str(order["deposit"])), "deposit", "Deposit", None)
            if "token" in order:
                self.bank.forbid(account)
                if order["token"] is not None:
                    scopes = frozenset(order.get("scopes", ["read", "payments"]))
                    self.bank.allow(account, str(order["token"]), scopes)
            answers.append({"loginid": loginid, "balance": f"{account.balance / 100:.2f}"})
        return answers

    async def _settings(self, request: Request) -> Answer:
        """`{"limits": bool, "duplicate_guard_s": n, "latency_s": [low, high], "idle_s": n}`, each optional."""
        try:
            body = request.json()
            if "limits" in body:
                self.limits = bool(body["limits"])
                self.budgets = Budgets(self.clock) if self.limits else Budgets(self.clock, None)
            if "duplicate_guard_s" in body:
                self.duplicate_guard_s = self.bank.duplicate_guard_s = float(body["duplicate_guard_s"])
            if "latency_s" in body:
                low, high = body["latency_s"]
                self.latency_s = (float(low), float(high))
            self.idle_s = float(body.get("idle_s", self.idle_s))
        except (ValueError, TypeError) as error:
            return Answer.json({"error": str(error)}, 400)
        return Answer.json({})


def masked(request: Mapping[str, Any]) -> dict[str, Any]:
    """`echo_req`: what is sensitive is not shown."""
    return {key: "<not shown>" if key in SENSITIVE else value for key, value in request.items()}


def balance_of(account: Account) -> dict[str, Any]:
    """As `balance` shows it."""
    return {"balance": number(account.balance), "currency": account.currency, "loginid": account.loginid}


def plain(value: Any) -> Any:
    """Amounts that came in as exact decimals go out as numbers."""
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(type(value).__name__)
