"""What the two faces of the simulated Deriv share: books, codes, faults, time, and what is still to come."""

import asyncio
import heapq
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from random import Random
from typing import Any

from deriv_integration.simulator.books import Account, Bank, Entry, Payment, cents_of
from deriv_integration.simulator.calls import SPECS
from deriv_integration.simulator.codes import Codes
from deriv_integration.simulator.faults import CALLS, FAULTS, GENERIC, MATCHERS, DerivFaults, Struck, seconds
from shared_kernel.simulator import Books, SimulatedClock


@dataclass
class Agenda:
    """What happens later by the provider's clock: moving the clock ahead makes it happen at the next call."""

    clock: Callable[[], datetime]
    due: list[tuple[datetime, int, Callable[[], Any]]] = field(default_factory=list)
    order: "count[int]" = field(default_factory=count)

    def after(self, wait_s: float, act: Callable[[], Any]) -> None:
        """`act` may raise nothing."""
        heapq.heappush(self.due, (self.clock() + timedelta(seconds=wait_s), next(self.order), act))
        self._wake(wait_s)

    def catch_up(self) -> None:
        """Does what is due by now, in its order."""
        while self.due and self.due[0][0] <= self.clock():
            heapq.heappop(self.due)[2]()
        if self.due:
            self._wake((self.due[0][0] - self.clock()).total_seconds())

    def _wake(self, wait_s: float) -> None:
        with suppress(RuntimeError):  # outside of the loop the next call catches up
            asyncio.get_running_loop().call_later(max(wait_s, 0) + 0.001, self.catch_up)


@dataclass
class World:
    """One Deriv. `agents` maps login ids to v3 tokens, `rest_agents` agent ids to REST tokens, `oauth_clients`
    client ids to their redirect URIs. `token_ttl_s` is how long a token by OAuth lasts.

    `latency_s` is a span from which each call's delay is drawn, so that answers overtake each other. `pending_s` is how
    long a REST withdrawal takes, `propagation_s` how long the status calls don't know a new request. `calls_a_minute`
    is what each v3 login may make while `limits` are on, 0 what Deriv publishes.
    """

    agents: Mapping[str, str] = field(default_factory=lambda: {"CR900001": "demo-agent-token"}, repr=False)
    rest_agents: Mapping[str, str] = field(default_factory=lambda: {"7001": "demo-rest-agent-token"}, repr=False)
    oauth_clients: dict[str, tuple[str, ...]] = field(
        default_factory=lambda: {"demo-client": ("http://127.0.0.1:8000/oauth/deriv/return",)}
    )
    agent_float: str = "100000.00"
    limits: bool = True
    calls_a_minute: int = 0
    duplicate_guard_s: float = 2.0
    latency_s: tuple[float, float] = (0.0, 0.0)
    idle_s: float = 120.0
    pending_s: float = 0.2
    propagation_s: float = 0.0
    token_ttl_s: float = field(default=3600.0, repr=False)  # no name with "token" in it is shown
    gives_refresh_tokens: bool = field(default=True, repr=False)
    refusal_burns_request_id: bool = False  # whether a 400 uses a request_id up: not documented
    code_before_request_id: bool = False  # whether a repeated withdrawal fails by its used-up code
    request_id_in_agents_wallet: bool = True  # whether the agent sees the customer's request_id: not documented
    seed: int = 0
    clock: SimulatedClock = field(default_factory=SimulatedClock)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.ids = count(10_867_502_908 + 3 * self.seed, 3)  # of entries: never given again, whatever is forgotten
        self.books = Books()
        self.agenda = Agenda(self.clock)
        self.calls_seen: dict[str, int] = {}
        self.watchers: list[Callable[[Account, Entry], None]] = []
        calls = CALLS | frozenset(GENERIC) | frozenset(SPECS)
        self.faults = DerivFaults(calls, FAULTS, MATCHERS, Random(self.seed))

    def begin(self) -> None:
        """Forgets accounts, money, codes and faults; opens the agents anew."""
        self.books.movements.clear()
        self.agenda.due.clear()
        self.bank = Bank(
            self.clock, self.books, Random(self.seed), self.duplicate_guard_s, watch=self._entered, ids=self.ids
        )
        self.codes = Codes(self.clock, Random(self.seed + 1), pause_s=60 if self.limits else 0)
        self.requests: dict[tuple[str, str, str], Payment] = {}  # caller, operation, request_id
        self.faults.clear()
        for loginid, token in self.agents.items():
            agent = Account(loginid, "PenPay", email="agent@example.com", is_agent=True)
            agent.tokens[token] = frozenset({"read", "payments"})
            self.bank.open(agent, cents_of(self.agent_float))
        for agent_id, token in self.rest_agents.items():
            agent = Account("", "PenPay", nickname=f"penpay-{agent_id}", is_agent=True, agent_id=int(agent_id))
            agent.rest_tokens[token] = frozenset({"payment"})
            self.bank.open(agent, cents_of(self.agent_float))

    async def delay(self) -> None:
        """The time that a call takes."""
        low, high = self.latency_s
        if high:
            await asyncio.sleep(self.random.uniform(low, high))

    def strike(self, call: str, face: str, about: Mapping[str, Any]) -> Struck:
        """The faults that strike a call of one face, by its own name (v3) or the generic one."""
        return self.faults.take(GENERIC.get(call, call), platform=face, **about)

    def follow_up(self, payment: Payment, struck: Struck) -> None:
        """What the faults make of a payment later on."""
        if "reverted_later" in struck:
            self.agenda.after(seconds(struck, "reverted_later", 3), lambda: self.bank.revert(payment))
        if "null_transaction_id" in struck:
            payment.shows_id = False

    def hidden_from(self, account: Account, face: str) -> frozenset[int]:
        """The entries that statement and wallet leave out now."""
        if not self.faults.is_armed("statement_gap", face):
            return frozenset()
        return frozenset([entry.id for entry in account.entries if entry.amount < 0][-1:])

    def _entered(self, account: Account, entry: Entry) -> None:
        for watcher in self.watchers:
            watcher(account, entry)
