"""A simulated Deriv, served for real, and the adapter that talks to it. Loaded as a pytest plugin."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import pytest

from deriv_integration.domain.transfer import reference_on
from deriv_integration.infrastructure.oauth import OAuth
from deriv_integration.infrastructure.rest_v1.adapter import Rest
from deriv_integration.infrastructure.rest_v1.client import AgentCredential, RestClient
from deriv_integration.infrastructure.ws_v3.adapter import WsV3
from deriv_integration.infrastructure.ws_v3.link import Credential, Timing
from deriv_integration.simulator.books import Account
from deriv_integration.simulator.server import DerivSimulator
from shared_kernel.domain.identifiers import RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Outcome
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, DerivTransfer, Leg
from shared_kernel.simulator import serving

AGENT, REST_AGENT = "CR900001", "7001"
QUICK = Timing(answer=1.0, connect=2.0, handshake=2.0, backoff_least=0.05, backoff_most=0.2, refused=0.2)
numbers = itertools.count(1)


@dataclass
class ServedDeriv:
    """`simulator` in a thread of its own, at `url`."""

    simulator: DerivSimulator
    address: str

    @property
    def url(self) -> str:
        return f"ws://{self.address}/websockets/v3"

    @property
    def rest_url(self) -> str:
        return f"http://{self.address}"

    def arm(self, fault: str, call: str = "paymentagent_transfer", **options: object) -> None:
        """As `POST /_control/faults` does."""
        self.simulator.faults.arm({"call": call, "fault": fault, **options})

    def customer(self, loginid: str = "CR100001", **order: object) -> None:
        """As `POST /_control/customers` does."""
        self.simulator._customers({"loginid": loginid, **order})

    def received(self, loginid: str = "CR100001") -> list[int]:
        """What this customer was credited, in cents, oldest first."""
        return [entry.amount for entry in self.simulator.bank.accounts[loginid].entries if entry.longcode != "Deposit"]


@pytest.fixture
def deriv_simulator() -> Iterator[ServedDeriv]:
    """Deriv with one agent and one customer; without rate limits and without the duplicate guard."""
    simulator = DerivSimulator(limits=False, duplicate_guard_s=0)
    customer = Account("CR100001", "JANE DOE", nickname="jane", email="jane@example.com")
    customer.tokens["jane-token"] = frozenset({"read", "payments"})
    customer.rest_tokens["jane-rest-token"] = frozenset({"payment", "account_manage"})
    simulator.bank.open(customer, 50_00)
    with serving(simulator.app) as address:
        yield ServedDeriv(simulator, address)


@pytest.fixture
def adapter_of(deriv_simulator: ServedDeriv) -> Iterator[Callable[..., WsV3]]:
    """Makes adapters at the simulator, and closes them."""
    made: list[WsV3] = []

    def make(
        timing: Timing = QUICK, *, token: str = "demo-agent-token", loginid: str = AGENT, **options: object
    ) -> WsV3:
        options.setdefault("outside", lambda: True)
        credential = Credential(loginid, token)
        made.append(WsV3(deriv_simulator.url, "1089", [credential], timing=timing, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for adapter in made:
        adapter.close()


@pytest.fixture
def adapter(adapter_of: Callable[..., WsV3]) -> WsV3:
    """An adapter with short deadlines."""
    return adapter_of()


@pytest.fixture
def rest(deriv_simulator: ServedDeriv) -> Rest:
    """A REST adapter at the simulator."""
    return a_rest(deriv_simulator)


def a_rest(deriv_simulator: ServedDeriv, token: str = "demo-rest-agent-token", agent: str = REST_AGENT) -> Rest:
    credential = AgentCredential(int(agent), token)
    return Rest(deriv_simulator.rest_url, "app-1", [credential], outside=lambda: True)


def an_oauth(deriv_simulator: ServedDeriv) -> OAuth:
    """Our client at the simulator, as the settings outside production name it."""
    at, back = f"{deriv_simulator.rest_url}/oauth2", "http://127.0.0.1:8000/oauth/deriv/return"
    return OAuth("demo-client", f"{at}/auth", f"{at}/token", back, outside=lambda: True)


@pytest.fixture
def deriv_at_simulator(deriv_simulator: ServedDeriv, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedDeriv]:
    """The facade's own adapter talks to the simulator: for journeys."""
    from deriv_integration import facade

    facade.ws_v3.close()  # a socket that another test wanted elsewhere
    monkeypatch.setattr(facade.ws_v3, "_url", f"{deriv_simulator.url}?app_id=1089&l=EN")
    monkeypatch.setattr(facade.rest, "_client", RestClient(deriv_simulator.rest_url, "app-1"))
    for name, own in vars(an_oauth(deriv_simulator)).items():
        if name != "_outside":
            monkeypatch.setattr(facade.oauth, name, own)
    yield deriv_simulator
    facade.ws_v3.close()


def a_transfer(
    amount: int = 10_25,
    *,
    account: str = "",
    agent: str = "",
    transaction: UUID | None = None,
    platform: DerivPlatform = DerivPlatform.WS_V3,
    leg: Leg = Leg.DERIV_CREDIT,
    attempt: int = 1,
    **over: object,
) -> DerivTransfer:
    """A new attempt of its own Transaction; `amount` in cents."""
    number, on_rest = next(numbers), platform is DerivPlatform.REST
    own = TransactionId(transaction or UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0000 + number))
    at = datetime.now(UTC)
    transfer = DerivTransfer(
        id=RequestId(UUID(int=0x0190_0000_0000_7000_9000_0000_0000_0000 + number)),
        transaction_id=own,
        leg=leg,
        attempt=attempt,
        reference=reference_on(platform, own, leg, attempt),
        amount=Money(amount, Currency.USD),
        send_before=at,
        created_at=at,
        login=DerivLogin(platform, account or ("jane" if on_rest else "CR100001")),
        agent=agent or (REST_AGENT if on_rest else AGENT),
    )
    for name, value in over.items():
        setattr(transfer, name, value)
    return transfer


def send(adapter: WsV3 | Rest, transfer: DerivTransfer, *, within_s: float = 5.0) -> Outcome:
    """Sends it, giving up writing after `within_s`."""
    return adapter.send(transfer, give_up_at=time.monotonic() + within_s)
