"""Deriv's one-time codes for withdrawals, simulated; `/_control/codes` is the customer's mailbox.

v3: 8 word characters, for an e-mail address and a purpose, good for an hour. REST: 6 digits, bound to customer, agent,
amount and currency. Either is used up by the first attempt that names it, also by one that then fails.
"""

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any

from deriv_integration.simulator.books import REST, WS_V3, Account, decimal

WRONG_BEFORE_LOCK = 5


class TooSoon(Exception):
    """The customer has to wait until `next_request_at` for another code."""

    def __init__(self, next_request_at: datetime) -> None:
        super().__init__("too soon")
        self.next_request_at = next_request_at


@dataclass(eq=False, kw_only=True)
class Code:
    """One code that was sent. `agent`, `amount` (cents) and `currency` are empty on v3."""

    value: str = field(repr=False)
    face: str
    customer: Account
    purpose: str
    sent_at: datetime
    expires_at: datetime
    agent: int = 0
    amount: int = 0
    currency: str = ""
    used: bool = False
    replaced: bool = False

    def public(self) -> dict[str, Any]:
        """As the customer's mail shows it."""
        bound = {"agent": self.agent, "amount": decimal(self.amount), "currency": self.currency} if self.agent else {}
        return {
            "code": self.value,
            "platform": self.face,
            "loginid": self.customer.loginid,
            "nickname": self.customer.nickname,
            "email": self.customer.email,
            "purpose": self.purpose,
            "sent_at": self.sent_at,
            "expires_at": self.expires_at,
            "used": self.used or self.replaced,
            **bound,
        }


@dataclass
class Codes:
    """All codes ever sent, oldest first."""

    clock: Callable[[], datetime]
    random: Random
    mail_ttl_s: float = 3600
    ttl_s: float = 600
    pause_s: float = 60  # between two codes for one customer, on REST
    sent: list[Code] = field(default_factory=list)
    sent_to: dict[str, list[Code]] = field(default_factory=dict, repr=False)
    by_value: dict[tuple[str, str], list[Code]] = field(default_factory=dict, repr=False)
    wrong: dict[str, list[datetime]] = field(default_factory=dict)

    def mail(self, customer: Account, purpose: str) -> Code:
        """v3's, by `verify_email`."""
        value = "".join(self.random.choices(string.ascii_letters + string.digits, k=8))
        return self._send(customer, WS_V3, purpose, value, self.mail_ttl_s)

    def send(self, customer: Account, agent: int, amount: int, currency: str) -> tuple[Code, datetime]:
        """REST's, and when the next one may be asked for; an earlier one stops working. Raises `TooSoon`."""
        earlier = [code for code in self.sent_to.get(customer.key, []) if code.face == REST]
        if earlier and earlier[-1].sent_at + timedelta(seconds=self.pause_s) > self.clock():
            raise TooSoon(earlier[-1].sent_at + timedelta(seconds=self.pause_s))
        for code in earlier:
            code.replaced = True
        code = self._send(customer, REST, "withdraw", f"{self.random.randrange(10**6):06d}", self.ttl_s)
        code.agent, code.amount, code.currency = agent, amount, currency
        return code, code.sent_at + timedelta(seconds=self.pause_s)

    def spend_mailed(self, customer: Account, value: str) -> bool:
        """Uses a v3 code up; whether it was good."""
        code = self._find(WS_V3, value, customer)
        if code is None:
            return False
        good = self._is_good(code) and code.purpose == "paymentagent_withdraw"
        code.used = True
        return good

    def spend(self, customer: Account, value: str, agent: int, amount: int, currency: str) -> str:
        """Uses a REST code up: Deriv's error code, or empty where it was good for exactly this withdrawal."""
        now = self.clock()
        wrong = [at for at in self.wrong.get(customer.key, []) if now - at < timedelta(minutes=10)]
        if len(wrong) >= WRONG_BEFORE_LOCK:
            return "OtpValidationRateLimitExceeded"
        code = self._find(REST, value, customer)
        if code is None or not self._is_good(code):
            self.wrong[customer.key] = [*wrong, now]
            return "InvalidOTP"
        code.used = True
        if (code.agent, code.amount, code.currency) != (agent, amount, currency):
            return "OTPValidationFailed"
        return ""

    def of(self, key: str) -> list[Code]:
        """A customer's codes, by login id, nickname or e-mail address; everybody's for an empty key."""
        return [
            code
            for code in self.sent
            if not key or key in {code.customer.loginid, code.customer.nickname, code.customer.email}
        ]

    def _send(self, customer: Account, face: str, purpose: str, value: str, ttl_s: float) -> Code:
        now = self.clock()
        expires_at = now + timedelta(seconds=ttl_s)
        code = Code(value=value, face=face, customer=customer, purpose=purpose, sent_at=now, expires_at=expires_at)
        self.sent.append(code)
        self.sent_to.setdefault(customer.key, []).append(code)
        self.by_value.setdefault((face, value), []).append(code)
        return code

    def _find(self, face: str, value: str, customer: Account) -> Code | None:
        """The newest of that value. On v3 it belongs to the e-mail address, which several accounts may share."""
        for code in reversed(self.by_value.get((face, value), [])):
            if code.customer is customer or (face == WS_V3 and code.customer.email == customer.email):
                return code
        return None

    def _is_good(self, code: Code) -> bool:
        return not code.used and not code.replaced and self.clock() < code.expires_at
