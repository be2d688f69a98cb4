"""Deriv's books, simulated: accounts, their statements, and the rules by which a payment agent's transfer is refused.

Amounts count cents. The texts of refusals and of statement entries are Deriv's (contract, 2.4 and 2.5).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count, islice
from random import Random
from typing import Any
from uuid import UUID

from shared_kernel.simulator import Books

TRANSFER_ERROR = "PaymentAgentTransferError"
STATUS_TEXTS = {  # a customer's status -> why nobody may send money to them
    "disabled": "You cannot transfer to account {loginid}, as their account is disabled.",
    "cashier_locked": "You cannot transfer to account {loginid}, as their cashier is locked.",
    "documents_expired": "You cannot transfer to account {loginid}, as their verification documents have expired.",
    "profile_incomplete": "You cannot transfer to account {loginid}, as their profile is incomplete.",
    "not_allowed": "Payment agent transfers are not allowed for the specified accounts.",
}
AGENT_TEXTS = {  # an agent's own status
    "disabled": "Your account is disabled.",
    "cashier_locked": "Your cashier is locked.",
    "unauthorized": "You are not authorized for transfers via payment agents.",
    "temporarily_disabled": "Payment agent transfers are temporarily disabled.",
    "withdrawal_limit": "You have reached the maximum withdrawal limit. Please contact customer support.",
}


class Refusal(Exception):
    """Deriv says no: an error code and its text."""

    def __init__(self, message: str, code: str = TRANSFER_ERROR, **details: Any) -> None:
        super().__init__(message)
        self.error: dict[str, Any] = {"code": code, "message": message}
        if details:
            self.error["details"] = details


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a statement; `amount` is signed."""

    id: int
    at: datetime
    amount: int
    balance_after: int
    action_type: str
    longcode: str
    app_id: int | None

    def public(self, *, described: bool) -> dict[str, Any]:
        """As `statement` shows it."""
        shown = {
            "action_type": self.action_type,
            "amount": number(self.amount),
            "app_id": self.app_id,
            "balance_after": number(self.balance_after),
            "contract_id": None,
            "payout": None,
            "reference_id": None,
            "transaction_id": self.id,
            "transaction_time": int(self.at.timestamp()),
        }
        return {**shown, "longcode": self.longcode, "shortcode": None} if described else shown


@dataclass
class Account:
    """A login at Deriv. `tokens` maps each API token to its scopes; an agent has limits in cents and daily caps."""

    loginid: str
    name: str
    nickname: str = ""
    email: str = ""
    currency: str = "USD"
    residence: str = "ke"
    is_virtual: bool = False
    is_agent: bool = False
    tokens: dict[str, frozenset[str]] = field(default_factory=dict)
    status: set[str] = field(default_factory=set)
    least: int = 1_00
    most: int = 2_000_00
    daily_count: int = 1_000_000
    daily_amount: int = 10**12
    user_id: int = 0
    balance: int = 0
    entries: list[Entry] = field(default_factory=list)  # oldest first


def number(cents: int) -> float | int:
    """Cents as the JSON number that Deriv writes."""
    return cents // 100 if cents % 100 == 0 else cents / 100


def cents_of(value: Any) -> int:
    """A JSON amount in cents. Raises `Refusal` for more than two decimals."""
    scaled = Decimal(value).scaleb(2)
    if scaled != scaled.to_integral_value():
        raise Refusal("Invalid amount. Amount provided can not have more than 2 decimal places.")
    return int(scaled)


@dataclass
class Bank:
    """All accounts of one Deriv. `watch` is told of each new entry."""

    clock: Callable[[], datetime]
    books: Books
    random: Random = field(default_factory=lambda: Random(0))
    duplicate_guard_s: float = 2.0
    watch: Callable[[Account, Entry], None] = lambda account, entry: None
    accounts: dict[str, Account] = field(default_factory=dict)
    by_token: dict[str, Account] = field(default_factory=dict)
    ids: "count[int]" = field(default_factory=lambda: count(10_867_502_908, 3))
    users: "count[int]" = field(default_factory=lambda: count(5_100_001))
    booked: dict[tuple[str, str, int], datetime] = field(default_factory=dict)
    today: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def open(self, account: Account, balance: int) -> Account:
        """Adds an account; its first balance is booked as a deposit."""
        account.user_id = next(self.users)
        self.accounts[account.loginid] = account
        for token in account.tokens:
            self.by_token[token] = account
        if balance:
            self.enter(account, balance, "deposit", "Deposit", None)
        return account

    def allow(self, account: Account, token: str, scopes: frozenset[str]) -> None:
        """Gives the account a token; the ones it had stop working."""
        self.forbid(account)
        account.tokens[token] = scopes
        self.by_token[token] = account

    def forbid(self, account: Account) -> None:
        """Revokes all tokens of the account."""
        for token in account.tokens:
            self.by_token.pop(token, None)
        account.tokens = {}

    def enter(self, account: Account, amount: int, action_type: str, longcode: str, app_id: int | None) -> Entry:
        """Books one line of one account's statement."""
        account.balance += amount
        entry = Entry(next(self.ids), self.clock(), amount, account.balance, action_type, longcode, app_id)
        account.entries.append(entry)
        self.watch(account, entry)
        return entry

    def check_transfer(self, agent: Account, to: str, amount: int, currency: str) -> Account:
        """Every business check of a transfer; the recipient. Raises `Refusal`."""
        client = self.accounts.get(to)
        if not agent.is_agent:
            raise Refusal(AGENT_TEXTS["unauthorized"])
        for status, text in AGENT_TEXTS.items():
            if status in agent.status:
                raise Refusal(text)
        if currency != agent.currency:
            raise Refusal(
                f"You cannot perform this action, as {currency} is not the default account currency {agent.currency}."
            )
        if client is None:
            raise Refusal(f"Login ID ({to}) does not exist.")
        if client is agent:
            raise Refusal("Payment agent transfers are not allowed within the same account.")
        if client.currency != currency:
            raise Refusal(
                f"You cannot perform this action, as {currency} is not the default account currency for "
                f"payment agent transfers to {to}."
            )
        for status, text in STATUS_TEXTS.items():
            if status in client.status:
                raise Refusal(text.format(loginid=to))
        if client.residence != agent.residence:
            raise Refusal("You cannot transfer to a client in a different country of residence.")
        if not agent.least <= amount <= agent.most:
            raise Refusal(f"Invalid amount. Minimum is {agent.least / 100:.2f}, maximum is {agent.most / 100:.2f}.")
        sent = self.today.get((agent.loginid, self._day()), [0, 0])
        if sent[0] + 1 > agent.daily_count:
            raise Refusal("Payment agent transfers have exceeded the maximum allowable transactions for today.")
        if sent[1] + amount > agent.daily_amount:
            raise Refusal("Payment agent transfers have exceeded the maximum allowable transfer amount for today.")
        if amount > agent.balance:
            raise Refusal("Your account balance is insufficient for this transaction.")
        return client

    def transfer(self, agent: Account, client: Account, amount: int, note: str, app_id: int | None) -> Entry:
        """Books both sides; the agent's entry. Raises `Refusal` for a repetition within the guard's window."""
        now, key = self.clock(), (agent.loginid, client.loginid, amount)
        if self.duplicate_guard_s:
            last = self.booked.get(key)
            if last is not None and now - last < timedelta(seconds=self.duplicate_guard_s):
                raise Refusal("Request too frequent. Please try again later.")
            self.booked[key] = now
        text = (
            f"Transfer from Payment Agent {agent.name} ({agent.loginid}) to {client.loginid}. "
            f"Transaction reference: {self._uuid()}. Timestamp: {stamp(now)}. Agent note: {note}"
        )
        ours = self.enter(agent, -amount, "withdrawal", text, app_id)
        self.enter(client, amount, "deposit", text, app_id)
        sent = self.today.setdefault((agent.loginid, self._day()), [0, 0])
        sent[0] += 1
        sent[1] += amount
        self._move(ours, note, agent, client, amount)
        return ours

    def withdraw(self, client: Account, agent: Account, amount: int, note: str) -> Entry:
        """Books a customer's payment to the agent, with the note that the customer wrote; the customer's entry."""
        now = self.clock()
        text = (
            f"Transfer from {client.loginid} to Payment Agent {agent.name} ({agent.loginid}) "
            f"Transaction reference: {self._uuid()} Timestamp: {stamp(now)}. Client note: {note}"
        )
        theirs = self.enter(client, -amount, "withdrawal", text, None)
        self.enter(agent, amount, "deposit", text, None)
        self._move(theirs, note, client, agent, amount)
        return theirs

    def revert(self, agent: Account, client: Account, entry: Entry) -> None:
        """Takes a transfer back, by adjustments on both sides."""
        self.enter(agent, -entry.amount, "adjustment", f"Reversal of {entry.id}", None)
        self.enter(client, entry.amount, "adjustment", f"Reversal of {entry.id}", None)
        self._move(agent.entries[-1], f"reversal of {entry.id}", client, agent, -entry.amount)

    def statement(
        self, account: Account, *, action_type: str | None, since: int, until: int, hidden: frozenset[int]
    ) -> Iterable[Entry]:
        """The entries of a time span (epoch seconds, both included), newest first."""
        for entry in reversed(account.entries):
            time = int(entry.at.timestamp())
            if time < since:
                return
            if time <= until and entry.id not in hidden and action_type in {None, entry.action_type}:
                yield entry

    def _move(self, entry: Entry, note: str, source: Account, target: Account, amount: int) -> None:
        value = Decimal(amount).scaleb(-2)
        self.books.enter(str(entry.id), note, source.loginid, target.loginid, value, source.currency, entry.at)

    def _day(self) -> str:
        return self.clock().date().isoformat()

    def _uuid(self) -> str:
        return str(UUID(int=self.random.getrandbits(128), version=4))


def stamp(at: datetime) -> str:
    """A time as statement texts write it: `22-Nov-26 13:05:09GMT`."""
    return f"{at:%d-%b-%y %H:%M:%S}GMT"


def page(entries: Iterable[Entry], offset: int, limit: int) -> list[Entry]:
    """One page of a statement."""
    return list(islice(entries, offset, offset + limit))
