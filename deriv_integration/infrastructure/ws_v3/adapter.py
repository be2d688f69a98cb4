"""Deriv's WebSocket v3 as a payment agent uses it. It has no idempotency key, only the statement.

Source: Deriv contract, sections 2, 3.2 and 6.2.
"""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlencode

from deriv_integration.domain.transfer import DerivAccount, DerivTokenRefused, DerivUnavailable
from deriv_integration.infrastructure.ws_v3.answers import checked, error_of, transferred
from deriv_integration.infrastructure.ws_v3.link import (
    UNREACHABLE,
    AnswerLost,
    Credential,
    Link,
    NotWritten,
    Timing,
    decode,
    dial,
    encode,
)
from deriv_integration.infrastructure.ws_v3.statement import (
    Entry,
    Malformed,
    Sought,
    distinct,
    opening,
    parse_page,
    unbroken,
)
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import Absent, Found, Lookup, NotSent, Outcome, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import DerivLogin, DerivTransfer
from shared_kernel.infrastructure.persistence import in_transaction

log = logging.getLogger(__name__)

TOKEN = re.compile(r"[\w-]{1,128}", re.ASCII)
LOGIN_ID = re.compile(r"[A-Za-z]+[0-9]+")
PAGE = 999
MOST_PAGES = 40
READINGS = 2  # a busy account moves between statement and balance: read again before giving up
SKEW = timedelta(seconds=120)  # how far Deriv's clock may be from ours
REFUSES_TOKEN = {"InvalidToken", "InputValidationFailed", "DisabledClient", "AccountDisabled"}
NOT_A_LOGIN = Refused("invalid_loginid", "This is not a Deriv login id, as in CR123456.")


class InsideTransaction(RuntimeError):
    """A provider is never called while a database transaction is open."""


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
        outside: Callable[[], bool] = lambda: not in_transaction(),
    ) -> None:
        self._url = f"{url}?{urlencode({'app_id': app_id, 'l': 'EN'})}"  # texts are told apart in English
        self._credentials = {credential.loginid: credential for credential in credentials}
        self._timing = timing or Timing()
        self._most_pending = most_pending
        self._spacing = Spacing(equal_spacing_s)
        self._outside = outside
        self._links: dict[tuple[int, str], Link] = {}

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
        return checked(answer.message, login.account, answer.raw)

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        """`paymentagent_transfer`: written once at most, not past `give_up_at`; no clear answer is `Unknown`."""
        self._must_be_outside()
        account = transfer.login.account
        if not LOGIN_ID.fullmatch(account):
            return NOT_A_LOGIN
        request = transfer_request(account, transfer.amount) | {"description": note_of(transfer.reference)}
        try:
            link = self._link(transfer.agent)
            wait_s = self._spacing.wait_s(account, transfer.amount.decimal)
            if wait_s:
                return NotSent("equal_spacing", wait_s)
            answer = link.call(request, give_up_at=give_up_at)
        except NotWritten as refused:
            return NotSent(refused.code, refused.retry_after_s, refused.alert)
        except AnswerLost as lost:
            return Unknown(lost.code)
        return transferred(answer.message, account, answer.raw)

    def find(self, transfer: DerivTransfer) -> Lookup:
        """Reads the agent's statement from before the first attempt: all entries of this reference, or none.

        `Absent(proven=True)`: each balance follows from the one before, from an entry older than the sending up to the
        account's balance now, and nothing among them could be this transfer.
        """
        self._must_be_outside()
        since = int((sent_at(transfer) - SKEW).timestamp())
        sought = Sought(note_of(transfer.reference), transfer.login.account, transfer.amount.decimal)
        try:
            link = self._link(transfer.agent)
            for _ in range(READINGS):
                entries = self._entries_since(link, since)
                found = [entry for entry in entries if sought.is_in(entry)]
                if found:
                    return Found(tuple(str(entry.id) for entry in found), (transfer.amount,) * len(found))
                if any(sought.may_be_in(entry) for entry in entries):
                    log.error("Deriv's statement of %s may hold %s", transfer.agent, transfer.reference)
                    break
                if self._unbroken(link, entries, since):
                    return Absent(proven=True)
            return Absent(proven=False)
        except (NotWritten, AnswerLost) as failed:
            return Unreadable(failed.code)
        except Unusable as failed:
            return Unreadable(failed.code)
        except Malformed as failed:
            return Unreadable(f"statement_malformed: {failed}")

    def identify(self, token: str) -> DerivAccount:
        """`authorize` on a short-lived socket of its own. Raises `DerivTokenRefused`, `DerivUnavailable`."""
        self._must_be_outside()
        if not TOKEN.fullmatch(token):
            raise DerivTokenRefused("this is not a Deriv token: create one in Deriv's settings and paste it whole")
        try:
            ws = dial(self._url, self._timing)
            try:
                ws.send(encode({"authorize": token, "req_id": 1}))
                answer = decode(ws.recv(timeout=self._timing.handshake))
            finally:
                with suppress(*UNREACHABLE):
                    ws.close()
        except (*UNREACHABLE, ValueError):  # from None: nothing of the exchange may surface
            raise DerivUnavailable("Deriv did not answer: try again later") from None
        error = error_of(answer)
        if error is None:
            return account_of(answer.get("authorize"))
        if error[0] in REFUSES_TOKEN:
            raise DerivTokenRefused("Deriv does not accept this token: create a new one and paste it whole")
        raise DerivUnavailable("Deriv can't check the token now: try again later")

    def close(self) -> None:
        """Ends this process's sockets; the next call opens new ones."""
        for key in list(self._links):
            link = self._links.pop(key)
            if key[0] == os.getpid():
                link.close()

    def _link(self, agent: str) -> Link:
        """Raises `NotWritten` for an agent that the settings don't hold."""
        key = (os.getpid(), agent)
        link = self._links.get(key)
        if link is None:
            credential = self._credentials.get(agent)
            if credential is None:
                raise NotWritten("agent_unknown", 300, alert=True)
            for other in [other for other in self._links if other[0] != key[0]]:  # a parent's, before the fork
                self._links.pop(other).abandon()
                self._spacing = Spacing(self._spacing.seconds)  # another thread may have held its lock
            link = Link(self._url, credential, self._timing, most_pending=self._most_pending)
            link = self._links.setdefault(key, link)
        return link

    def _must_be_outside(self) -> None:
        if not self._outside():
            raise InsideTransaction("Deriv is not called while a database transaction is open")

    def _entries_since(self, link: Link, since: int) -> list[Entry]:
        entries: list[Entry] = []
        for page in range(MOST_PAGES):
            request = {"statement": 1, "description": 1, "date_from": since, "limit": PAGE, "offset": page * PAGE}
            read = parse_page(good(link.read(request).message))
            entries += read
            if len(read) < PAGE:
                return distinct(entries)
        raise Unusable("statement_too_long")

    def _unbroken(self, link: Link, entries: list[Entry], since: int) -> bool:
        """Up to the balance now, and back to the last entry before `since` (or the account's first)."""
        balance = good(link.read({"balance": 1}).message).get("balance")
        amount = balance.get("balance") if isinstance(balance, dict) else None
        if isinstance(amount, bool) or not isinstance(amount, int | Decimal):
            raise Malformed("balance")
        before = {"statement": 1, "description": 1, "date_to": since - 1, "limit": 1}
        anchor = parse_page(good(link.read(before).message))
        if any(entry.time >= since for entry in anchor):
            return False
        if not unbroken(entries, Decimal(amount)):
            return False
        starts = opening(entries)
        return (starts if starts is not None else Decimal(amount)) == (anchor[0].balance_after if anchor else 0)


class Unusable(Exception):
    """A read that was answered with an error, or is longer than we read."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def note_of(reference: str) -> str:
    """The description of a transfer, by which the statement shows it."""
    return f"PP {reference}"


def transfer_request(account: str, amount: Money) -> dict[str, Any]:
    """The fields that a dry run and a transfer share; the amount is an exact JSON number with two decimals."""
    return {
        "paymentagent_transfer": 1,
        "amount": amount.decimal,
        "currency": str(amount.currency),
        "transfer_to": account,
    }


def good(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """The answer of a read. Raises `Unusable` for an error."""
    error = error_of(answer)
    if error is not None:
        raise Unusable(error[0][:64] or "no_code")
    return answer


def sent_at(transfer: DerivTransfer) -> datetime:
    """When the first attempt with this reference may have left: later ones look back to the Transaction's birth."""
    if transfer.attempt == 1 or transfer.transaction_id.version != 7:
        return transfer.created_at
    born = datetime.fromtimestamp((transfer.transaction_id.int >> 80) / 1000, tz=UTC)
    return min(transfer.created_at, born)


def account_of(account: Any) -> DerivAccount:
    """`authorize`'s answer. Raises `DerivUnavailable` when it can't be used."""
    if isinstance(account, dict):
        loginid, currency, name = (account.get(key) for key in ("loginid", "currency", "fullname"))
        scopes, virtual = account.get("scopes"), account.get("is_virtual")
        texts = isinstance(loginid, str) and isinstance(currency, str) and isinstance(name, str)
        if texts and isinstance(scopes, list) and virtual in {0, 1}:
            return DerivAccount(
                account=str(loginid),
                currency=str(currency),
                full_name=str(name),
                scopes=frozenset(scope for scope in scopes if isinstance(scope, str)),
                is_virtual=bool(virtual),
            )
    raise DerivUnavailable("Deriv's answer can't be used: try again later")
