"""A customer's own session on v3: a short-lived socket, logged in with the customer's token, ended after one errand.

The token and the one-time code leave by the socket alone: they stand in no message, log or exception.
Source: Deriv contract, sections 2.1, 2.3 and 3.4.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from deriv_integration.domain.transfer import DerivAccount
from deriv_integration.infrastructure.ws_v3.answers import error_of, says_moved
from deriv_integration.infrastructure.ws_v3.link import UNREACHABLE, Answer, AnswerLost, NotWritten, Timing, Wire, dial
from shared_kernel.domain.outcome import Refused
from shared_kernel.domain.requests import DerivLogin

TOKEN = re.compile(r"[\w-]{1,128}", re.ASCII)
REFUSES_TOKEN = {"InvalidToken", "InputValidationFailed", "DisabledClient", "AccountDisabled"}
MOVED = "Deriv has moved your account to its new platform. Bind your Deriv login again, on the new one."
BIND_AGAIN = "Deriv no longer accepts your token. Bind your Deriv login again."


class TokenRefused(Exception):
    """Deriv refuses the token: `code` is its own, or `login_moved`. Nothing but the log-in was asked."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code

    @property
    def outcome(self) -> Refused:
        """As the outcome of a call that was never made."""
        moved = self.code == "login_moved"
        return Refused(self.code if moved else f"authorize:{self.code}", MOVED if moved else BIND_AGAIN)


@dataclass(frozen=True)
class CustomerSession:
    """An open session of `account`; `email` is where Deriv sends the codes."""

    account: DerivAccount
    email: str = field(repr=False)
    wire: Wire = field(repr=False)
    timeout_s: float

    def call(self, request: dict[str, Any], *, give_up_at: float | None = None) -> Answer:
        """Written at most once, never past `give_up_at`. Raises `NotWritten`, `AnswerLost`."""
        return self.wire.call(request, timeout=self.timeout_s, give_up_at=give_up_at)

    def unlike(self, login: DerivLogin) -> Refused | None:
        """Why this session may not withdraw for `login`; None when it is that login's, and may."""
        if self.account.account.upper() != login.account.upper():
            return Refused("other_loginid", "This token is for another Deriv login. Bind the right one.")
        if self.account.is_virtual or self.account.currency != login.currency:
            return Refused("other_currency", f"This Deriv login is not a real one in {login.currency}.")
        if "payments" not in self.account.scopes:
            return Refused("scopes_missing", "Your Deriv token does not allow payments. Make one that does.")
        return None


@contextmanager
def customer_session(url: str, token: str, timing: Timing) -> Iterator[CustomerSession]:
    """Raises `TokenRefused`; `NotWritten` when Deriv can't be reached or does not answer the log-in."""
    if not TOKEN.fullmatch(token):
        raise TokenRefused("token_malformed")
    try:
        ws = dial(url, timing)
    except UNREACHABLE:
        raise NotWritten("not_connected", 5) from None
    wire = Wire(ws, most_pending=2, on_push=lambda _: None)
    try:
        yield _logged_in(wire, token, timing)
    finally:
        with suppress(*UNREACHABLE):
            ws.close()
        wire.kill()


def _logged_in(wire: Wire, token: str, timing: Timing) -> CustomerSession:
    try:
        answer = wire.call({"authorize": token}, timeout=timing.handshake).message
    except AnswerLost as lost:  # the log-in moves nothing: whatever should follow was not written
        raise NotWritten(f"authorize:{lost.code}", 5) from None
    error = error_of(answer)
    if error is None:
        return _session_of(answer.get("authorize"), wire, timing)
    if says_moved(*error):
        raise TokenRefused("login_moved")
    if error[0] in REFUSES_TOKEN:
        raise TokenRefused(error[0])
    raise NotWritten(f"authorize:{error[0][:40]}", 30)


def _session_of(account: Any, wire: Wire, timing: Timing) -> CustomerSession:
    """From `authorize`'s answer. Raises `NotWritten` when it can't be used."""
    if isinstance(account, dict):
        loginid, currency, name = (account.get(key) for key in ("loginid", "currency", "fullname"))
        scopes, virtual, email = (account.get(key) for key in ("scopes", "is_virtual", "email"))
        texts = isinstance(loginid, str) and isinstance(currency, str) and isinstance(name, str)
        if texts and isinstance(scopes, list) and virtual in (0, 1):
            known = DerivAccount(
                account=str(loginid),
                currency=str(currency),
                full_name=str(name),
                scopes=frozenset(scope for scope in scopes if isinstance(scope, str)),
                is_virtual=bool(virtual),
            )
            return CustomerSession(known, email if isinstance(email, str) else "", wire, timing.answer)
    raise NotWritten("authorize:unusable_answer", 60)
