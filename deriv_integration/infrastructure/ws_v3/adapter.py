"""Deriv's WebSocket v3 as a payment agent uses it. It has no idempotency key, only the statement.

Source: Deriv contract, sections 2, 3.2, 3.4 and 6.2.
"""

import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from deriv_integration.domain.transfer import (
    CodeTooSoon,
    DerivAccount,
    DerivTokenRefused,
    DerivUnavailable,
    InsideTransaction,
    WithdrawalRefused,
)
from deriv_integration.infrastructure.ws_v3.answers import (
    WITHDRAWAL_RULES,
    checked,
    error_of,
    failure,
    says_moved,
    transferred,
    withdrawn,
)
from deriv_integration.infrastructure.ws_v3.book import READ_ERRORS, Book, note_of, unreadable
from deriv_integration.infrastructure.ws_v3.customer import (
    BIND_AGAIN,
    MOVED,
    CustomerSession,
    TokenRefused,
    customer_session,
)
from deriv_integration.infrastructure.ws_v3.link import AnswerLost, Credential, Link, NotWritten, Timing
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Lookup, NotSent, Outcome, Refused, Unknown, Unreadable
from shared_kernel.domain.ports import Clock
from shared_kernel.domain.requests import AgentEntry, CodeSent, DerivLogin, DerivTransfer, Leg
from shared_kernel.infrastructure.persistence import in_transaction, now

LOGIN_ID = re.compile(r"[A-Za-z]+[0-9]+")
CODE = re.compile(r"\w{8,128}", re.ASCII)
CODE_TTL = timedelta(hours=1)  # of a mailed code
CODE_PAUSE = timedelta(seconds=60)  # our own, for Deriv names none; `verify_email` has a budget
NOT_A_LOGIN = Refused("invalid_loginid", "This is not a Deriv login id, as in CR123456.")
NOT_A_CODE = Refused("code_malformed", "This is not a code as Deriv mails it. Ask for a new one.")
NO_TOKEN = NotSent("customer_token_missing", 300, alert=True)


@dataclass
class Spacing:
    """Keeps transfers of equal recipient and amount apart: Deriv takes a quick second one for a repetition."""

    seconds: float
    _last: dict[tuple[str, Decimal], float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wait_s(self, recipient: str, amount: Decimal) -> int:
        """0 and the place is taken, or the seconds until it is free."""
        if self.seconds <= 0:
            return 0
        now, key = time.monotonic(), (recipient.upper(), amount)
        with self._lock:
            left = self._last.get(key, -math.inf) + self.seconds - now
            if left > 0:
                return math.ceil(left)
            if len(self._last) > 4096:
                self._last = {key: at for key, at in self._last.items() if at + self.seconds > now}
            self._last[key] = now
        return 0


class WsV3:
    """A `DerivApi` over one socket for each agent credential and process, opened by the first call that needs it."""

    def __init__(
        self,
        url: str,
        app_id: str,
        credentials: Sequence[Credential],
        *,
        equal_spacing_s: float = 0.0,
        timing: Timing | None = None,
        most_pending: int = 256,
        clock: Clock = now,
        outside: Callable[[], bool] = lambda: not in_transaction(),
    ) -> None:
        self._url = f"{url}?{urlencode({'app_id': app_id, 'l': 'EN'})}"  # texts are told apart in English
        self._credentials = {credential.loginid: credential for credential in credentials}
        self._timing = timing or Timing()
        self._most_pending = most_pending
        self._spacing = Spacing(equal_spacing_s)
        self._clock = clock
        self._outside = outside
        self._books: dict[tuple[int, str], Book] = {}

    @property
    def agents(self) -> Sequence[str]:
        """Login ids of the agent credentials."""
        return list(self._credentials)

    def check_login(self, login: DerivLogin, agent: str, amount: Money) -> Outcome:
        """`paymentagent_transfer` with `dry_run`: `Done(full name)`; runs every check of Deriv's and moves nothing."""
        self._must_be_outside()
        if not LOGIN_ID.fullmatch(login.account):
            return NOT_A_LOGIN
        request = transfer_request(login.account, amount) | {"dry_run": 1}
        try:
            answer = self._link(agent).read(request)
        except NotWritten as refused:
            return NotSent(refused.code, refused.retry_after_s, refused.alert)
        except AnswerLost as lost:
            return Unknown(lost.code)
        error = error_of(answer.message)
        if error is not None and says_moved(*error):
            return Refused("login_moved", MOVED, answer.raw)
        return checked(answer.message, login.account, answer.raw)

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        """`paymentagent_transfer`, or for a debit the customer's `paymentagent_withdraw`.

        Written once at most, not past `give_up_at`; no clear answer is `Unknown`. A debit is `Accepted` at best.
        """
        self._must_be_outside()
        if not LOGIN_ID.fullmatch(transfer.login.account):
            return NOT_A_LOGIN
        try:
            if transfer.leg is Leg.DERIV_DEBIT:
                return self._debit(transfer, give_up_at)
            return self._credit(transfer, give_up_at)
        except NotWritten as refused:
            return NotSent(refused.code, refused.retry_after_s, refused.alert)
        except AnswerLost as lost:
            return Unknown(lost.code)

    def find(self, transfer: DerivTransfer) -> Lookup:
        """Reads the agent's statement from before the first attempt: all entries of this reference, or none.

        `Absent(proven=True)`: each balance follows from the one before, from an entry older than the sending up to the
        account's balance now, and nothing among them could be this transfer. A debit is found by its own client at the
        fixed place, note and amount; the note alone is anybody's.
        """
        self._must_be_outside()
        try:
            return self._book(transfer.agent).look_up(transfer)
        except READ_ERRORS as failed:
            return unreadable(failed)

    def book(self, agent: str, since: datetime) -> Sequence[AgentEntry] | Unreadable:
        """The agent's statement since then, newest first; what was taken back shows as an entry of its own."""
        self._must_be_outside()
        try:
            return self._book(agent).entries(since, self._credentials[agent].currency)
        except READ_ERRORS as failed:
            return unreadable(failed)

    def balance(self, agent: str) -> Money | Unreadable:
        """`balance`, on the agent's own socket."""
        self._must_be_outside()
        try:
            return self._book(agent).balance(self._credentials[agent].currency)
        except READ_ERRORS as failed:
            return unreadable(failed)

    def identify(self, token: str) -> DerivAccount:
        """`authorize` on a short-lived socket of its own. Raises `DerivTokenRefused`, `DerivUnavailable`."""
        self._must_be_outside()
        with self._session(token) as session:
            return session.account

    def request_code(self, login: DerivLogin, token: str, agent: str, amount: Money) -> CodeSent:
        """`verify_email` to the address that `authorize` names. Good for an hour and one attempt.

        Raises `DerivTokenRefused`, `DerivUnavailable`, `WithdrawalRefused`, `CodeTooSoon`.
        """
        self._must_be_outside()
        asked_at = self._clock()
        with self._session(token) as session:
            unlike = session.unlike(login)
            if unlike is not None:
                raise WithdrawalRefused(unlike.reason, provider_code=unlike.code)
            answer = session.call(code_request(session.email, agent, amount)).message
        error = error_of(answer)
        if error is not None:
            raise self._refusal(*error)
        if answer.get("verify_email") != 1:
            raise DerivUnavailable("Deriv did not send the code: try again later")
        return CodeSent(expires_at=asked_at + CODE_TTL, next_request_at=asked_at + CODE_PAUSE)

    def close(self) -> None:
        """Ends this process's sockets; the next call opens new ones."""
        for key in list(self._books):
            book = self._books.pop(key)
            if key[0] == os.getpid():
                book.link.close()

    def _link(self, agent: str) -> Link:
        """Raises `NotWritten` for an agent that the settings don't hold."""
        return self._book(agent).link

    def _book(self, agent: str) -> Book:
        """Raises `NotWritten` for an agent that the settings don't hold."""
        key = (os.getpid(), agent)
        book = self._books.get(key)
        if book is None:
            credential = self._credentials.get(agent)
            if credential is None:
                raise NotWritten("agent_unknown", 300, alert=True)
            for other in [other for other in self._books if other[0] != key[0]]:  # a parent's, before the fork
                self._books.pop(other).link.abandon()
                self._spacing = Spacing(self._spacing.seconds)  # another thread may have held its lock
            link = Link(self._url, credential, self._timing, most_pending=self._most_pending)
            book = self._books.setdefault(key, Book(link))
        return book

    def _must_be_outside(self) -> None:
        if not self._outside():
            raise InsideTransaction("Deriv is not called while a database transaction is open")

    def _credit(self, transfer: DerivTransfer, give_up_at: float) -> Outcome:
        account = transfer.login.account
        request = transfer_request(account, transfer.amount) | {"description": note_of(transfer.reference)}
        link = self._link(transfer.agent)
        wait_s = self._spacing.wait_s(account, transfer.amount.decimal)
        if wait_s:
            return NotSent("equal_spacing", wait_s)
        answer = link.call(request, give_up_at=give_up_at)
        return transferred(answer.message, account, answer.raw)

    def _debit(self, transfer: DerivTransfer, give_up_at: float) -> Outcome:
        if not CODE.fullmatch(transfer.verification_code):
            return NOT_A_CODE
        if not transfer.token:
            return NO_TOKEN
        request = withdrawal_request(transfer)
        try:
            with customer_session(self._url, transfer.token, self._timing) as session:
                unlike = session.unlike(transfer.login)
                if unlike is not None:
                    return unlike
                answer = session.call(request, give_up_at=give_up_at)
        except TokenRefused as refused:
            return refused.outcome
        return withdrawn(answer.message, answer.raw)

    @contextmanager
    def _session(self, token: str) -> Iterator[CustomerSession]:
        """For errands that move nothing. Raises `DerivTokenRefused`, `DerivUnavailable`."""
        try:
            with customer_session(self._url, token, self._timing) as session:
                yield session
        except TokenRefused as refused:
            moved = refused.code == "login_moved"
            raise DerivTokenRefused(MOVED if moved else BIND_AGAIN, reason=refused.code) from None
        except (NotWritten, AnswerLost):  # from None: nothing of the exchange may surface
            raise DerivUnavailable("Deriv did not answer: try again later") from None

    def _refusal(self, code: str, text: str) -> DomainError:
        """Why no code was sent."""
        if code == "RateLimit":
            at = self._clock()
            return CodeTooSoon(at + CODE_PAUSE, at=at)
        outcome = failure(code, text, "", WITHDRAWAL_RULES)
        if says_moved(code, text):
            return DerivTokenRefused(MOVED, reason="login_moved")
        if isinstance(outcome, Refused):
            return WithdrawalRefused(outcome.reason, provider_code=outcome.code)
        return DerivUnavailable("Deriv can't send the code now: try again later")


def transfer_request(account: str, amount: Money) -> dict[str, Any]:
    """The fields that a dry run and a transfer share; the amount is an exact JSON number with two decimals."""
    return {
        "paymentagent_transfer": 1,
        "amount": amount.decimal,
        "currency": str(amount.currency),
        "transfer_to": account,
    }


def withdrawal_request(transfer: DerivTransfer) -> dict[str, Any]:
    """A customer's withdrawal to the agent; our reference is the note by which the agent's statement shows it."""
    return {
        "paymentagent_withdraw": 1,
        "amount": transfer.amount.decimal,
        "currency": str(transfer.amount.currency),
        "paymentagent_loginid": transfer.agent,
        "verification_code": transfer.verification_code,
        "description": note_of(transfer.reference),
    }


def code_request(email: str, agent: str, amount: Money) -> dict[str, Any]:
    """The mail with a withdrawal's one-time code; the parameters only end up in the mail's link."""
    about = {"pa_amount": amount.decimal, "pa_currency": str(amount.currency), "pa_loginid": agent}
    return {"verify_email": email, "type": "paymentagent_withdraw", "url_parameters": about}
