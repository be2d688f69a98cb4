"""Deriv, simulated: both of its platforms over their own books, and an adapter for each.

v3 has no key that makes a repetition harmless: what arrives twice is booked twice, and a commit may come ten minutes
late. REST carries each `request_id` out once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from deriv_integration.domain.transfer import DerivAccount, DerivUnavailable
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Dead,
    Done,
    Found,
    Lookup,
    NotSent,
    Outcome,
    Pending,
    Refused,
    Unknown,
    Unreadable,
)
from shared_kernel.domain.requests import CodeSent, DerivLogin, DerivTransfer, Leg
from tests.simulation.books import Books, Movement
from tests.simulation.faults import Dice, Network
from tests.simulation.schedule import Schedule
from wallet.domain.ledger import deriv_agent

LATE_COMMIT_S = 595.0  # the known limit of v3: what is booked later than ten minutes is excluded by construction
CODE_GOOD_S = 3600.0


@dataclass
class Entry:
    """A line in an agent's book."""

    id: str
    agent: str
    reference: str
    account: str
    amount: int  # signed: above zero it came in
    visible_from: float
    taken_back: bool = False


@dataclass
class Asked:
    """What REST remembers of a `request_id`."""

    status: str
    visible_from: float
    entry: Entry | None = None


@dataclass
class Provider:
    """Agents' books, customers' accounts, codes."""

    schedule: Schedule
    dice: Dice
    books: Books
    clients: dict[str, int] = field(default_factory=dict)  # balance by login
    entries: dict[str, list[Entry]] = field(default_factory=dict)  # by agent
    asked: dict[str, Asked] = field(default_factory=dict)  # REST, by request id
    codes: dict[str, tuple[str, str, int, float]] = field(default_factory=dict)  # code: login, agent, amount, until
    last: int = 0

    # --- money --------------------------------------------------------------------------------------------------------

    def v3(self, transfer: DerivTransfer) -> Outcome:
        """Carried out whenever it arrives."""
        refusal = self._refusal(transfer)
        self.books.settled(transfer.id)
        if refusal is not None:
            return refusal
        entry = self._book(transfer)
        return Accepted() if transfer.leg is Leg.DERIV_DEBIT else Done(entry.id)

    def rest(self, transfer: DerivTransfer) -> Outcome:
        """Carried out once for each `request_id`."""
        if transfer.reference in self.asked:
            self.books.settled(transfer.id)
            return Unknown("RequestIDUsed")
        refusal = self._refusal(transfer)
        if refusal is not None:
            self.books.settled(transfer.id)
            return refusal
        known = Asked("pending", self.schedule.now + self._lag(50))
        self.asked[transfer.reference] = known
        if self.dice.happens("pending"):
            self.schedule.after(self.dice.between(5, 3000), lambda: self._decide(transfer, known))
            return Accepted()
        self._carry_out(transfer, known)
        assert known.entry is not None
        return Accepted() if transfer.leg is Leg.DERIV_DEBIT else Done(known.entry.id)

    def _decide(self, transfer: DerivTransfer, known: Asked) -> None:
        if self.dice.happens("no_credit"):
            known.status = "failed"
            self.books.settled(transfer.id)
            return
        if self.dice.happens("taken_back"):
            known.status, known.entry = "complete", self._book(transfer, taken_back=True)
            self.books.settled(transfer.id)
            return
        self._carry_out(transfer, known)

    def _carry_out(self, transfer: DerivTransfer, known: Asked) -> None:
        known.status, known.entry = "complete", self._book(transfer)
        self.books.settled(transfer.id)

    def _refusal(self, transfer: DerivTransfer) -> Outcome | None:
        """What Deriv refuses before it does anything."""
        if transfer.leg is Leg.DERIV_DEBIT:
            code = self.codes.pop(transfer.verification_code, None)
            wanted = (transfer.login.account, transfer.agent, transfer.amount.amount)
            if code is None or code[:3] != wanted or code[3] < self.schedule.now:
                return Refused("InvalidOTP", "The code was wrong, has expired or was used before.")
            if self.clients.get(transfer.login.account, 0) < transfer.amount.amount:
                return Refused("WalletFundsInsufficient", "Your Deriv balance is too low.")
        elif self.books.balances.get(deriv_agent(transfer.agent), 0) < transfer.amount.amount:
            return NotSent("WalletFundsInsufficient", 300, alert=True)
        if self.dice.happens("refuses" if transfer.leg is Leg.DERIV_DEBIT else "no_credit"):
            return Refused("ClientDepositDisabled", "Deriv does not let this account be credited.")
        return None

    def _book(self, transfer: DerivTransfer, *, taken_back: bool = False) -> Entry:
        self.last += 1
        sign = 1 if transfer.leg is Leg.DERIV_DEBIT else -1
        amount = sign * transfer.amount.amount
        entry = Entry(
            str(90_000_000 + self.last), transfer.agent, transfer.reference, transfer.login.account, amount,
            self.schedule.now + self._lag(120), taken_back,
        )  # fmt: skip
        self.entries.setdefault(transfer.agent, []).append(entry)
        if not taken_back:
            self.clients[transfer.login.account] = self.clients.get(transfer.login.account, 0) - amount
        self.books.move(
            Movement(
                entry.id, deriv_agent(transfer.agent), 0 if taken_back else amount, transfer.transaction_id,
                transfer.leg, transfer.id, self.schedule.now, taken_back=taken_back,
            )
        )  # fmt: skip
        return entry

    def _lag(self, most: float) -> float:
        return self.dice.between(1, most) if self.dice.happens("lag") else 0.0

    # --- looking up ---------------------------------------------------------------------------------------------------

    def statement(self, transfer: DerivTransfer) -> Lookup:
        """v3: every entry of the reference; an absence is proven while nothing is missing in the chain of balances."""
        now, wanted = self.schedule.now, transfer.amount.amount
        amount = wanted if transfer.leg is Leg.DERIV_DEBIT else -wanted
        book = self.entries.get(transfer.agent, [])
        shown = [entry for entry in book if entry.visible_from <= now]
        mine = (transfer.reference, transfer.login.account, amount)
        if found := tuple(e.id for e in shown if (e.reference, e.account, e.amount) == mine):
            return Found(found, (transfer.amount,) * len(found))
        return Absent(proven=len(shown) == len(book) and not self.dice.happens("lag"))

    def status(self, transfer: DerivTransfer) -> Lookup:
        """REST: by `request_id`, and the agent's wallet; a debit counts when the wallet shows it."""
        known, now, is_debit = self.asked.get(transfer.reference), self.schedule.now, transfer.leg is Leg.DERIV_DEBIT
        if known is None or now < known.visible_from:
            return Absent(proven=False, repeatable=not is_debit)
        if known.status == "failed":
            return Dead("failed")
        entry = known.entry
        if entry is None or (entry.visible_from > now and is_debit):
            return Pending()
        return Found((entry.id,), (transfer.amount,), reverted=entry.taken_back)

    # --- codes --------------------------------------------------------------------------------------------------------

    def send_code(self, login: DerivLogin, agent: str, amount: Money) -> str:
        """The customer reads it in their mail."""
        self.last += 1
        code = f"{self.last:06d}"
        self.codes[code] = (login.account, agent, amount.amount, self.schedule.now + CODE_GOOD_S)
        return code


@dataclass(frozen=True)
class Adapter:
    """`DerivApi` of one platform over the simulated network."""

    provider: Provider
    network: Network
    agents: Sequence[str]
    carry_out: Callable[[DerivTransfer], Outcome]
    look_up: Callable[[DerivTransfer], Lookup]
    mail: dict[tuple[str, int], str]  # the newest code, by login and amount

    def check_login(self, login: DerivLogin, agent: str, amount: Money) -> Outcome:
        said = self.network.ask(lambda: self.provider.dice.happens("refuses"))
        if said is None:
            return self.provider.dice.random.choice((Unknown("timeout"), NotSent("not_connected", 5)))
        return Refused("ClientDepositDisabled", "Deriv does not let this account be credited.") if said else Done("J")

    def send(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        carry = lambda: self.carry_out(transfer)  # noqa: E731
        outcome: Outcome = self.network.send(transfer, carry, give_up_at=give_up_at, most_late_s=LATE_COMMIT_S)
        return outcome

    def find(self, transfer: DerivTransfer) -> Lookup:
        said = self.network.ask(lambda: self.look_up(transfer))
        return Unreadable("timeout") if said is None else said

    def request_code(self, login: DerivLogin, token: str, agent: str, amount: Money) -> CodeSent:
        code = self.network.ask(lambda: self.provider.send_code(login, agent, amount))
        at = self.provider.schedule.clock()
        if code is None:
            raise DerivUnavailable("try again later")
        self.mail[login.account, amount.amount] = code
        return CodeSent(at + timedelta(seconds=CODE_GOOD_S), at + timedelta(seconds=60))

    def book(self, agent: str, since: datetime) -> Any:
        raise NotImplementedError("the sagas don't look for orphans")

    def identify(self, token: str) -> DerivAccount:
        raise NotImplementedError("nobody binds a login here")
