"""One authorised, multiplexed, kept-alive socket to Deriv v3 for a process and a credential.

Calls of many threads share it: each waits for the answer with its own `req_id`, until its own deadline. A keeper thread
connects, logs in, pings and connects again; a reader thread hands answers out. Frames are never logged.
Source: Deriv contract, sections 2.1, 5 and 6.2.
"""

import json
import logging
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.protocol import State
from websockets.sync.client import ClientConnection, connect

from deriv_integration.infrastructure.ws_v3.answers import TOKEN_LOST, error_of

log = logging.getLogger(__name__)

# at DEBUG the library writes whole frames, tokens and all: its logger belongs to nobody's configuration
quiet = logging.Logger("deriv_integration.websockets", logging.WARNING)  # noqa: LOG001
quiet.parent = log

Message = Mapping[str, Any]
MAX_FRAME = 8 * 1024 * 1024  # a statement of 999 entries is far smaller


class NotWritten(Exception):
    """The call surely did not leave."""

    def __init__(self, code: str, retry_after_s: int = 0, *, alert: bool = False) -> None:
        super().__init__(code)
        self.code, self.retry_after_s, self.alert = code, retry_after_s, alert


class AnswerLost(Exception):
    """The call may have left, and no answer came: `timeout` or `socket_lost`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, and its raw text for the evidence."""

    message: dict[str, Any]
    raw: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds, as the contract proposes them."""

    answer: float = 30.0  # then a call's outcome is unknown
    connect: float = 5.0  # how long a caller waits for a socket
    handshake: float = 10.0
    ping_every: float = 30.0  # the server closes after 120 without traffic
    pong: float = 5.0
    backoff_least: float = 1.0
    backoff_most: float = 30.0
    refused: float = 30.0  # until a refused log-in is tried again


@dataclass(frozen=True, slots=True)
class Credential:
    """An agent's: its login id, and the token that moves its money."""

    loginid: str
    token: str = field(repr=False)
    currency: str = "USD"


def encode(request: Message) -> str:
    """JSON with a `Decimal` as an exact number: no binary float comes near an amount."""
    return "{" + ",".join(f"{json.dumps(key)}:{_encoded(value)}" for key, value in request.items()) + "}"


def _encoded(value: Any) -> str:
    if isinstance(value, Mapping):
        return encode(value)
    return f"{value:f}" if isinstance(value, Decimal) else json.dumps(value)


def decode(text: str | bytes) -> dict[str, Any]:
    """Raises `ValueError` for anything but a JSON object; numbers with a point are exact."""
    try:
        message = json.loads(text, parse_float=Decimal, parse_constant=_no_constant)
    except (RecursionError, InvalidOperation):
        raise ValueError("nested too deep, or a number out of range") from None
    if not isinstance(message, dict):
        raise ValueError("not an object")
    return message


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def dial(url: str, timing: Timing) -> ClientConnection:
    """An open socket. Raises one of `UNREACHABLE`."""
    return connect(
        url,
        open_timeout=timing.handshake,
        close_timeout=1,
        ping_interval=None,  # the application's own ping counts against the idle close
        compression=None,
        max_size=MAX_FRAME,
        max_queue=None,
        proxy=None,
        user_agent_header="PenPay",
        logger=quiet,
        legacy=True,
    )


UNREACHABLE = (OSError, WebSocketException, TimeoutError, EOFError)


class Wire:
    """One connection's life: its pending calls end with it."""

    def __init__(self, ws: ClientConnection, *, most_pending: int, on_push: Callable[[Message], None]) -> None:
        self.ws = ws
        self.dead = threading.Event()
        self.served = False  # it was of use: the next connection need not wait
        self._most = most_pending
        self._on_push = on_push
        self._pending: dict[int, SimpleQueue[Answer | None]] = {}
        self._table = threading.Lock()
        self._writing = threading.Lock()  # the single writer
        self._numbers = count(1)
        with suppress(OSError):
            ws.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._read, name="deriv-reader", daemon=True).start()

    def call(self, request: Message, *, timeout: float, give_up_at: float | None = None) -> Answer:
        """Writes and waits. Raises `NotWritten` or `AnswerLost`."""
        number = next(self._numbers)
        answers: SimpleQueue[Answer | None] = SimpleQueue()
        text = encode({**request, "req_id": number})
        with self._writing:
            self._enter(number, answers)
            if give_up_at is not None and time.monotonic() >= give_up_at:
                self._forget(number)
                raise NotWritten("send_before")
            if self.ws.protocol.state is not State.OPEN:
                self._forget(number)
                raise NotWritten("not_connected")
            try:
                self.ws.send(text)
            except (ConnectionClosed, OSError):
                self._forget(number)
                raise AnswerLost("socket_lost") from None
        try:
            answer = answers.get(timeout=timeout)
        except Empty:
            self._forget(number)
            raise AnswerLost("timeout") from None
        if answer is None:
            raise AnswerLost("socket_lost")
        return answer

    def _enter(self, number: int, answers: SimpleQueue[Answer | None]) -> None:
        with self._table:
            if self.dead.is_set():
                raise NotWritten("not_connected")
            if len(self._pending) >= self._most:
                raise NotWritten("too_many_calls", 1)
            self._pending[number] = answers

    def _forget(self, number: int) -> None:
        with self._table:
            self._pending.pop(number, None)

    def kill(self) -> None:
        """Ends the connection without a word, also while another thread hangs in a write."""
        with suppress(OSError):
            self.ws.socket.shutdown(socket.SHUT_RDWR)

    def ping(self, timing: Timing) -> bool:
        """Whether the other side still answers; a writer that hangs counts as no."""
        if not self._writing.acquire(timeout=timing.pong):
            return False
        self._writing.release()
        try:
            self.call({"ping": 1}, timeout=timing.pong)
        except AnswerLost:
            return False
        except NotWritten as refused:
            return refused.code == "too_many_calls"
        return True

    def _read(self) -> None:
        try:
            while True:
                self._deliver(self.ws.recv())
        except (ConnectionClosed, OSError):
            pass
        except ValueError:
            log.warning("Deriv sent a frame that is not JSON: the socket is dropped")
        finally:
            with self._table:
                self.dead.set()
                lost = list(self._pending.values())
                self._pending.clear()
            for answers in lost:
                answers.put(None)
            self.kill()

    def _deliver(self, text: str | bytes) -> None:
        message = decode(text)
        number = message.get("req_id")
        with self._table:
            answers = self._pending.pop(number, None) if type(number) is int else None
        if answers is None or message.get("msg_type") == "website_status":
            self._on_push(message)
        if answers is not None:
            answers.put(Answer(message, text if isinstance(text, str) else ""))


class Link:
    """Keeps a `Wire` up and logged in, lazily from the first call on."""

    def __init__(self, url: str, credential: Credential, timing: Timing, *, most_pending: int = 256) -> None:
        self._url, self._credential, self._timing, self._most = url, credential, timing, most_pending
        self._state = threading.Condition()
        self._wire: Wire | None = None  # set while logged in
        self._refusal = ""  # why the log-in was refused
        self._next_try = 0.0  # monotonic: when the keeper connects again
        self._site_status = "up"
        self._renew = threading.Event()
        self._keeper: threading.Thread | None = None
        self._current: Wire | None = None  # connected, perhaps not logged in
        self._closed = threading.Event()

    def call(self, request: Message, *, give_up_at: float | None = None) -> Answer:
        """A call whose repetition would have an effect: written at most once. Raises `NotWritten`, `AnswerLost`."""
        wait = self._timing.connect
        until = time.monotonic() + wait if give_up_at is None else min(give_up_at, time.monotonic() + wait)
        wire = self._ready(until)
        if self._site_status != "up":
            raise NotWritten(f"site_{self._site_status}", 60, alert=True)
        return self._answered(wire, wire.call(request, timeout=self._timing.answer, give_up_at=give_up_at))

    def read(self, request: Message) -> Answer:
        """A call that may be repeated, and is, within its deadline, when the socket drops. Raises as `call` does."""
        until = time.monotonic() + self._timing.answer
        while True:
            wire = self._ready(min(until, time.monotonic() + self._timing.connect))
            try:
                answer = wire.call(request, timeout=max(0.0, until - time.monotonic()))
            except AnswerLost as lost:
                if lost.code == "timeout" or time.monotonic() >= until:
                    raise
                wire.dead.wait(1)
            except NotWritten as refused:
                if refused.code != "not_connected" or time.monotonic() >= until:
                    raise
                wire.dead.wait(1)
            else:
                return self._answered(wire, answer)

    def close(self) -> None:
        """Ends the socket and its threads."""
        self._closed.set()
        with self._state:
            wire = self._current
            self._state.notify_all()
        if wire is not None:
            wire.kill()
            wire.dead.wait(2)

    def abandon(self) -> None:
        """After a fork, in the child: lets go of the parent's socket without a word to the server."""
        if self._current is not None:
            with suppress(OSError):
                self._current.ws.socket.close()

    def _answered(self, wire: Wire, answer: Answer) -> Answer:
        wire.served = True
        error = error_of(answer.message)
        if error is not None and error[0] in TOKEN_LOST:
            with self._state:
                if self._wire is wire:
                    self._wire = None  # later callers wait for a new log-in
                self._renew.set()
                self._state.notify_all()
        return answer

    def _ready(self, until: float) -> Wire:
        """The logged-in wire, waited for. Raises `NotWritten`, at once when the next attempt comes too late anyway."""
        with self._state:
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="deriv-keeper", daemon=True)
                self._keeper.start()
            while True:
                now = time.monotonic()
                if self._closed.is_set():
                    raise NotWritten("closed")
                if self._wire is not None and not self._wire.dead.is_set():
                    return self._wire
                if self._refusal:
                    raise NotWritten(self._refusal, int(self._timing.refused), alert=True)
                if now >= until or self._next_try > until:
                    raise NotWritten("not_connected", max(1, int(self._next_try - now) + 1))
                self._state.wait(min(until - now, 0.5))

    def _keep(self) -> None:
        """The keeper's life: connect, log in, ping; when that ends, at once again, then with backoff and jitter."""
        failures = 0
        while not self._closed.is_set():
            try:
                wire = self._connect()
                if wire is not None:
                    self._live(wire)
                    wire.kill()
                    failures = 0 if wire.served else failures
            except Exception:  # a dead keeper would leave every later call unanswered
                log.exception("Deriv's keeper of agent %s stumbled", self._credential.loginid)
            if self._closed.is_set():
                break
            delay = self._backoff(failures)
            failures += 1
            with self._state:
                self._next_try = time.monotonic() + delay
                self._state.notify_all()
            self._closed.wait(delay)

    def _backoff(self, failures: int) -> float:
        if failures == 0:
            return 0.0
        most = min(self._timing.backoff_most, self._timing.backoff_least * 2**failures)
        return random.uniform(self._timing.backoff_least, most)  # noqa: S311 (jitter)

    def _connect(self) -> Wire | None:
        try:
            ws = dial(self._url, self._timing)
        except UNREACHABLE as error:
            log.warning("Deriv cannot be reached for agent %s: %s", self._credential.loginid, type(error).__name__)
            return None
        wire = Wire(ws, most_pending=self._most, on_push=self._pushed)
        with self._state:
            self._current = wire
        return wire

    def _live(self, wire: Wire) -> None:
        """As long as the wire lives: logged in (again when the session lost its token), pinged."""
        while not wire.dead.is_set() and not self._closed.is_set():
            self._renew.clear()
            try:
                refusal = self._log_in(wire)
            except (NotWritten, AnswerLost):
                return
            with self._state:
                self._refusal, self._wire = refusal, None if refusal else wire
                self._state.notify_all()
            if refusal:
                log.error("Deriv refuses agent %s: %s", self._credential.loginid, refusal)
                if wire.dead.wait(self._timing.refused):
                    return
                continue
            self._ping_while_fine(wire)
            with self._state:
                self._wire = None

    def _ping_while_fine(self, wire: Wire) -> None:
        next_ping = time.monotonic() + self._timing.ping_every
        while not (wire.dead.is_set() or self._closed.is_set() or self._renew.is_set()):
            wait = min(0.25, next_ping - time.monotonic())
            if wait > 0:
                wire.dead.wait(wait)
                continue
            if not wire.ping(self._timing):
                log.warning("Deriv's socket of agent %s does not answer a ping: dropped", self._credential.loginid)
                wire.kill()
                return
            wire.served = True
            next_ping = time.monotonic() + self._timing.ping_every

    def _log_in(self, wire: Wire) -> str:
        """Authorises and checks who we are; empty when all is as it should be, else the reason, without any secret."""
        answer = wire.call({"authorize": self._credential.token}, timeout=self._timing.answer).message
        error = error_of(answer)
        if error is not None:
            return f"authorize:{error[0][:40]}"
        refusal = start_check(answer.get("authorize"), self._credential)
        if not refusal:
            # its answer is taken as a push, like the ones that follow
            wire.call({"website_status": 1, "subscribe": 1}, timeout=self._timing.answer)
        return refusal

    def _pushed(self, message: Message) -> None:
        status = message.get("website_status")
        if isinstance(status, dict):
            site = status.get("site_status", "up")
            self._site_status = site if site in {"up", "updating", "down"} else "down"


def start_check(account: Any, credential: Credential) -> str:
    """Why this session may not move money, or an empty text. Source: contract, 2.1 (start checks)."""
    if not isinstance(account, dict):
        return "authorize:unusable_answer"
    scopes = account.get("scopes")
    if not isinstance(scopes, list) or "payments" not in scopes or "read" not in scopes:
        return "scopes_missing"
    if account.get("is_virtual") != 0:
        return "virtual_account"
    if account.get("currency") != credential.currency:
        return "other_currency"
    return "" if account.get("loginid") == credential.loginid else "other_loginid"
