"""The v3 face of the simulated Deriv: its sockets, in what order a call is judged, its streams and maintenance."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs

from deriv_integration.simulator.books import WS_V3, Account, Entry, number
from deriv_integration.simulator.calls import BUDGETS, SPECS, Budgets, Refusal, call_of, validate
from deriv_integration.simulator.faults import UNSETTLED, Struck, seconds
from deriv_integration.simulator.rules import Obstacle
from deriv_integration.simulator.v3_calls import V3Calls, refuse_moved
from deriv_integration.simulator.v3_session import Dropped, Session, Unanswered, balance_of, head_of
from deriv_integration.simulator.v3_texts import refusal
from deriv_integration.simulator.world import World
from shared_kernel.simulator import Receive, Scope, Send

CODES = dict(zip(UNSETTLED, ("WrongResponse", "RequestTimeout", "InternalServerError", "RequestTimeout"), strict=True))
UNSETTLED_TEXT = "Sorry, an error occurred while processing your request."


@dataclass
class V3:
    """Every socket of one Deriv. `answer` takes one frame."""

    world: World
    sessions: set[Session] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.calls = V3Calls(self.world)
        self.loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.renew()
        self.world.watchers.append(self._push)
        self.world.faults.changed = self._faults_changed

    def renew(self) -> None:
        """Full call budgets."""
        limits = dict(BUDGETS)
        if most := self.world.calls_a_minute:
            limits["general"] = (most, 60 * most)
        self.budgets = Budgets(self.world.clock, limits if self.world.limits else None)

    # --- the socket ---------------------------------------------------------------------------------------------------

    async def websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, from its handshake on. Returning without a close frame drops it."""
        self.loop = asyncio.get_running_loop()
        await receive()
        if "down" in self.world.strike("connect", WS_V3, {}):
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        app_id = parse_qs(scope["query_string"].decode("latin-1")).get("app_id", [""])[0]
        session = Session(send, int(app_id) if app_id.isdecimal() else 0, heard_at=self.loop.time())
        if not session.app_id:
            error = {"code": "InvalidAppID", "message": "Your app_id is invalid."}
            await session.say({"echo_req": {}, "msg_type": "error", "error": error})
            await send({"type": "websocket.close", "code": 1000})
            return
        await self._serve(session, receive)

    async def _serve(self, session: Session, receive: Receive) -> None:
        loop = asyncio.get_running_loop()
        self.sessions.add(session)
        reader = loop.create_task(self._read(session, receive))
        dropped = loop.create_task(session.gone.wait())
        idle = loop.create_task(self._close_when_idle(session))
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
            if self.world.latency_s[1] or self.world.faults.is_armed("slow", WS_V3):
                self._spawn(self._answer_later(session, message))
            else:
                await self.answer(session, message)

    async def _answer_later(self, session: Session, message: Mapping[str, Any]) -> None:
        await self.world.delay()
        await self.answer(session, message)

    async def _close_when_idle(self, session: Session) -> None:
        loop = asyncio.get_running_loop()
        while (left := session.heard_at + self.world.idle_s - loop.time()) > 0:
            await asyncio.sleep(left)
        with suppress(Exception):
            await session.send({"type": "websocket.close", "code": 1000})
        session.gone.set()

    # --- one call -----------------------------------------------------------------------------------------------------

    async def answer(self, session: Session, message: Mapping[str, Any]) -> None:
        """Answers one frame, or drops the socket, or is silent."""
        try:
            ask = json.loads(message.get("text") or "", parse_float=Decimal)
        except (ValueError, RecursionError):
            ask = None
        if not isinstance(ask, dict):
            error = {"code": "BadRequest", "message": "Bad request."}
            await session.say({"echo_req": {}, "msg_type": "error", "error": error})
            return
        call = call_of(ask)
        try:
            body = await self._respond(session, call, ask)
        except Refusal as refused:
            body = {"error": refused.error}
        except Obstacle as obstacle:
            body = {"error": refusal(obstacle, call).error}
        except Dropped:
            session.gone.set()
            return
        except Unanswered:
            return
        await session.say({**head_of(ask, call or "error"), **body})

    async def _respond(self, session: Session, call: str, ask: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's body. Raises `Refusal`, `Obstacle`, `Dropped`, `Unanswered`."""
        if not call:
            raise Refusal("Unrecognised request.", "UnrecognisedRequest")
        self.world.calls_seen[call] = self.world.calls_seen.get(call, 0) + 1
        loginid = session.account.loginid if session.account else ""
        about = {"loginid": loginid, "transfer_to": ask.get("transfer_to"), "req_id": ask.get("req_id")}
        struck = self.world.strike(call, WS_V3, about)
        if "slow" in struck:
            await asyncio.sleep(seconds(struck, "slow", 1))
        self.world.agenda.catch_up()
        validate(call, ask)
        if "rate_limited" in struck:
            raise Refusal(f"You have reached the rate limit for {call}.", "RateLimit")
        self.budgets.spend(loginid or f"connection {id(session)}", call)
        self._admit(session, call, struck)
        self._fail_before(session, call, ask, struck)
        if "dry_run_value" in struck:
            return {call: 2}
        body = self.calls.handler(call)(session, ask)
        self._fail_after(session, body, struck)
        return body

    def _admit(self, session: Session, call: str, struck: Struck) -> None:
        needed = SPECS[call].scopes
        account = session.account
        if account is not None and "token_superseded" in struck:
            self.world.bank.forbid(account)
        if account is not None and call not in {"ping", "time"}:
            refuse_moved(account)
        if account is not None and session.scopes not in account.tokens.values():
            session.account = None
            raise Refusal("The token is invalid.", "InvalidToken")
        if needed is None:
            return
        if account is None:
            raise Refusal("Please log in.", "AuthorizationRequired")
        if not needed & session.scopes:
            raise Refusal(f"Permission denied, requires {' or '.join(sorted(needed))} scope(s).", "PermissionDenied")

    def _fail_before(self, session: Session, call: str, ask: Mapping[str, Any], struck: Struck) -> None:
        if "error" in struck:
            raise Refusal(str(struck["error"].get("message", "")), str(struck["error"].get("code", "")))
        if "float_low" in struck:
            raise Obstacle("funds")
        if "lost_answer_before_effect" in struck:
            raise Unanswered
        if "drop_socket_before_effect" in struck:
            raise Dropped
        if "late_commit" in struck:
            ghost = Session(session.send, session.app_id, session.account, session.scopes)
            self.world.agenda.after(seconds(struck, "late_commit", 3), lambda: self._commit_late(ghost, call, ask))
            raise Refusal(UNSETTLED_TEXT, "RequestTimeout")
        for name, code in CODES.items():
            if f"{name}_before" in struck:
                raise Refusal(UNSETTLED_TEXT, code)

    def _fail_after(self, session: Session, body: dict[str, Any], struck: Struck) -> None:
        payment = self.world.bank.by_entry.get(body.get("transaction_id", 0))
        if payment is not None:
            if "double_booking" in struck:
                again = (payment.kind, payment.payer, payment.payee, payment.amount, payment.note, payment.app_id)
                self.world.bank.pay(*again)
            self.world.follow_up(payment, struck)
            if not payment.shows_id:
                del body["transaction_id"]
        if "lost_answer_after_effect" in struck:
            raise Unanswered
        if "drop_socket_after_effect" in struck:
            raise Dropped
        if "error_after" in struck:
            told = struck["error_after"]
            raise Refusal(str(told.get("message", UNSETTLED_TEXT)), str(told.get("code", "OutputValidationFailed")))
        for name, code in CODES.items():
            if f"{name}_after" in struck:
                raise Refusal(UNSETTLED_TEXT, code)

    def _commit_late(self, ghost: Session, call: str, ask: Mapping[str, Any]) -> None:
        with suppress(Refusal, Obstacle, Dropped):
            self.calls.handler(call)(ghost, ask)

    # --- streams, maintenance -----------------------------------------------------------------------------------------

    def _push(self, account: Account, entry: Entry) -> None:
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

    def _faults_changed(self) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._show_faults)

    def _show_faults(self) -> None:
        if self.world.faults.is_armed("down", WS_V3):
            self._drop_all()
        status = self.calls.site()
        for session in self.sessions:
            if "website_status" in session.streams:
                self._spawn(session.say({**session.streams["website_status"][1], "website_status": status}))
        if self.world.faults.is_armed("updating", WS_V3):
            assert self.loop is not None
            self.loop.call_later(self.world.faults.option("updating", "after_s", 60), self._drop_for_update)

    def _drop_for_update(self) -> None:
        if self.world.faults.is_armed("updating", WS_V3):
            self._drop_all()

    def _drop_all(self) -> None:
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
