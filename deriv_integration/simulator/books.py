"""Deriv's books, simulated: accounts on either face, what each of them was told of its money, and every payment.

Amounts count cents. One payment has an entry with an id of its own on each side, on both faces. The texts of statement
entries are Deriv's (contract, 2.4).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from shared_kernel.simulator import Books

WS_V3, REST = "ws_v3", "rest"
TRANSFER, WITHDRAWAL = "transfer", "withdrawal"


class TooManyDecimals(ValueError):
    """More decimals than the currency has."""


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


@dataclass(eq=False)
class Account:
    """Somebody at Deriv: on v3 under `loginid`, on REST under `nickname` (an agent also under `agent_id`).

    `tokens` (v3) and `rest_tokens` map each token to its scopes: none is good on the other face. `status` is what is
    wrong with the account, or what Deriv asks of its owner first. `least`, `most` and the daily caps are an agent's, in
    cents; `daily_withdrawals` is a customer's.
    """

    loginid: str
    name: str
    nickname: str = ""
    email: str = ""
    currency: str = "USD"
    residence: str = "ke"
    is_virtual: bool = False
    is_agent: bool = False
    agent_id: int | None = None
    tokens: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)
    rest_tokens: dict[str, frozenset[str]] = field(default_factory=dict, repr=False)
    status: set[str] = field(default_factory=set)
    moved: str = ""  # taken from v3 to REST: what its v3 calls then get, an error's code or `disconnect`
    show_real_name: bool = False
    least: int = 1_00
    most: int = 2_000_00
    daily_count: int = 1_000_000
    daily_amount: int = 10**12
    daily_withdrawals: int = 20
    user_id: int = 0
    client_id: str = ""  # `external_reference_id`
    balance: int = 0
    entries: list[Entry] = field(default_factory=list)  # oldest first
    payments: list["Payment"] = field(default_factory=list, repr=False)  # oldest first

    @property
    def key(self) -> str:
        """What the books and the control side know it by."""
        return self.loginid or (self.nickname if self.agent_id is None else str(self.agent_id))

    def called(self, face: str) -> str:
        """Its name on one face."""
        if face == WS_V3:
            return self.loginid or self.key
        return str(self.agent_id) if self.agent_id is not None else self.nickname or self.key


@dataclass(eq=False, kw_only=True)
class Payment:
    """One payment between a customer and an agent. The payer's side is booked when it is accepted.

    `status` goes from `requested` or `pending` to `complete`, `rejected` or `failed`; from `complete` to `reverted`.
    """

    kind: str
    face: str
    payer: Account
    payee: Account
    amount: int
    note: str
    at: datetime
    payer_entry: int
    payee_entry: int
    text: str = ""
    app_id: int | None = None
    request_id: str = ""
    status: str = "requested"
    visible_at: datetime  # when the status call knows it
    in_wallet_at: datetime  # when the wallets show it
    shows_id: bool = True
    movement: dict[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether Deriv has not decided yet."""
        return self.status in {"requested", "pending"}


def number(cents: int) -> float | int:
    """Cents as the JSON number that Deriv writes."""
    return cents // 100 if cents % 100 == 0 else cents / 100


def decimal(cents: int) -> str:
    """Cents as a decimal string."""
    return f"{Decimal(cents).scaleb(-2):.2f}"


def cents_of(value: Any) -> int:
    """A decimal number or string in cents. Raises `TooManyDecimals`."""
    scaled = Decimal(value).scaleb(2)
    if scaled != scaled.to_integral_value():
        raise TooManyDecimals(str(value))
    return int(scaled)


OPENED = timedelta(days=30)


@dataclass
class Bank:
    """All accounts of one Deriv. `watch` is told of each new entry."""

    clock: Callable[[], datetime]
    books: Books
    random: Random = field(default_factory=lambda: Random(0))
    duplicate_guard_s: float = 2.0
    watch: Callable[[Account, Entry], None] = lambda account, entry: None
    accounts: dict[str, Account] = field(default_factory=dict)
    nicknames: dict[str, Account] = field(default_factory=dict)
    by_token: dict[str, Account] = field(default_factory=dict)
    by_rest_token: dict[str, Account] = field(default_factory=dict)
    by_entry: dict[int, Payment] = field(default_factory=dict)
    ids: "count[int]" = field(default_factory=lambda: count(10_867_502_908, 3))
    users: "count[int]" = field(default_factory=lambda: count(5_100_001))
    booked: dict[tuple[str, str, int], datetime] = field(default_factory=dict)  # for the duplicate guard
    today: dict[tuple[str, str], list[int]] = field(default_factory=dict)

    def open(self, account: Account, balance: int) -> Account:
        """Adds an account; its first balance is booked as a deposit of a month ago."""
        account.user_id, account.client_id = next(self.users), account.client_id or self.uuid()
        account.email = account.email or f"{account.key.lower()}@example.com"
        self.accounts[account.key] = account
        self.name(account, account.nickname)
        self.by_token |= dict.fromkeys(account.tokens, account)
        self.by_rest_token |= dict.fromkeys(account.rest_tokens, account)
        if balance:
            self.enter(account, balance, "deposit", "Deposit", None, at=self.clock() - OPENED)
        return account

    def name(self, account: Account, nickname: str) -> None:
        """Gives the account its nickname; nobody else's stays reachable under it."""
        if self.nicknames.get(account.nickname) is account:
            del self.nicknames[account.nickname]
        account.nickname = nickname
        if nickname:
            self.nicknames[nickname] = account

    def login(self, loginid: str) -> Account | None:
        """The account of that login id on v3."""
        account = self.accounts.get(loginid)
        return account if account is not None and account.loginid == loginid else None

    def agent(self, agent_id: int) -> Account | None:
        """The agent of that id on REST."""
        return next((account for account in self.accounts.values() if account.agent_id == agent_id), None)

    def allow(self, account: Account, token: str, scopes: frozenset[str], face: str = WS_V3) -> None:
        """Gives the account a token on one face; the ones it had there stop working."""
        self.forbid(account, face)
        own, everybody = self._tokens(account, face)
        own[token], everybody[token] = scopes, account

    def forbid(self, account: Account, face: str = WS_V3) -> None:
        """Revokes all tokens that the account has on one face."""
        own, everybody = self._tokens(account, face)
        for token in own:
            everybody.pop(token, None)
        own.clear()

    def enter(
        self,
        account: Account,
        amount: int,
        action_type: str,
        text: str,
        app_id: int | None,
        id: int | None = None,
        at: datetime | None = None,
    ) -> Entry:
        """Books one line of one account's statement, under `id` or the next one."""
        account.balance += amount
        entry = Entry(id or next(self.ids), at or self.clock(), amount, account.balance, action_type, text, app_id)
        account.entries.append(entry)
        self.watch(account, entry)
        return entry

    def accept(
        self, kind: str, face: str, payer: Account, payee: Account, amount: int, note: str, *,
        app_id: int | None = None, request_id: str = "",
    ) -> Payment:  # fmt: skip
        """Takes a payment that passed every check: the payer has paid, the payee has nothing yet."""
        now = self.clock()
        payment = Payment(
            kind=kind, face=face, payer=payer, payee=payee, amount=amount, note=note, at=now, app_id=app_id,
            payer_entry=next(self.ids), payee_entry=next(self.ids), request_id=request_id, visible_at=now,
            in_wallet_at=now,
        )  # fmt: skip
        payment.text = self._text(payment)
        self.by_entry |= {payment.payer_entry: payment, payment.payee_entry: payment}
        payer.payments.append(payment)
        payee.payments.append(payment)
        sent = self.today.setdefault(self._day(payer, kind), [0, 0])
        sent[0] += 1
        sent[1] += amount
        self.enter(payer, -amount, "withdrawal", payment.text, app_id, payment.payer_entry)
        return payment

    def settle(self, payment: Payment, status: str = "complete") -> None:
        """Decides an open payment: the payee gets it, or the payer has it back."""
        if not payment.is_open:
            return
        payment.status = status
        if status == "complete":
            self.enter(payment.payee, payment.amount, "deposit", payment.text, payment.app_id, payment.payee_entry)
            self._move(payment)
        else:
            self.enter(payment.payer, payment.amount, "adjustment", f"Return of {payment.payer_entry}", None)

    def pay(self, kind: str, payer: Account, payee: Account, amount: int, note: str, app_id: int | None) -> Payment:
        """A payment as v3 makes it: both sides at once."""
        payment = self.accept(kind, WS_V3, payer, payee, amount, note, app_id=app_id)
        self.settle(payment)
        return payment

    def withdraw(self, client: Account, agent: Account, amount: int, note: str) -> Payment:
        """A customer's payment to the agent on v3, with the note that the customer wrote."""
        return self.pay(WITHDRAWAL, client, agent, amount, note, None)

    def revert(self, payment: Payment) -> None:
        """Takes a complete payment back, by adjustments on both sides."""
        if payment.status != "complete":
            return
        payment.status = "reverted"
        self.enter(payment.payer, payment.amount, "adjustment", f"Reversal of {payment.payer_entry}", None)
        self.enter(payment.payee, -payment.amount, "adjustment", f"Reversal of {payment.payee_entry}", None)
        payment.movement |= {"status": "reverted", "reverted_at": self.clock().isoformat()}

    def sent_today(self, account: Account, kind: str) -> tuple[int, int]:
        """How many payments of that kind the account made today, and how much they were."""
        times, amount = self.today.get(self._day(account, kind), [0, 0])
        return times, amount

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

    def uuid(self) -> str:
        """A new one, by the seed."""
        return str(UUID(int=self.random.getrandbits(128), version=4))

    def _text(self, payment: Payment) -> str:
        payer, payee = payment.payer.called(payment.face), payment.payee.called(payment.face)
        if payment.kind == TRANSFER:
            return (
                f"Transfer from Payment Agent {payment.payer.name} ({payer}) to {payee}. "
                f"Transaction reference: {self.uuid()}. Timestamp: {stamp(payment.at)}. Agent note: {payment.note}"
            )
        return (
            f"Transfer from {payer} to Payment Agent {payment.payee.name} ({payee}) "
            f"Transaction reference: {self.uuid()} Timestamp: {stamp(payment.at)}. Client note: {payment.note}"
        )

    def _move(self, payment: Payment) -> None:
        source, target = payment.payer.called(payment.face), payment.payee.called(payment.face)
        value, reference = Decimal(payment.amount).scaleb(-2), payment.request_id or payment.note
        self.books.enter(
            str(payment.payer_entry), reference, source, target, value, payment.payer.currency, self.clock(),
            request_id=payment.request_id, note=payment.note, kind=payment.kind, platform=payment.face,
            agent_entry=str(payment.payer_entry if payment.kind == TRANSFER else payment.payee_entry),
            payee_entry=str(payment.payee_entry), status="complete",
        )  # fmt: skip
        payment.movement = self.books.movements[-1]

    def _day(self, account: Account, kind: str) -> tuple[str, str]:
        return f"{account.key} {kind}", self.clock().date().isoformat()

    def _tokens(self, account: Account, face: str) -> tuple[dict[str, frozenset[str]], dict[str, Account]]:
        return (account.tokens, self.by_token) if face == WS_V3 else (account.rest_tokens, self.by_rest_token)


def stamp(at: datetime) -> str:
    """A time as statement texts write it: `22-Nov-26 13:05:09GMT`."""
    return f"{at:%d-%b-%y %H:%M:%S}GMT"
