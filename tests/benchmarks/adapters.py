"""The adapters' calls against the simulators: side by side, and one after another over the same connection."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
from django.conf import settings

from deriv_integration.infrastructure.ws_v3.adapter import WsV3
from deriv_integration.infrastructure.ws_v3.link import Credential
from mpesa_integration.infrastructure.daraja import DarajaAccount, DarajaClient
from mpesa_integration.infrastructure.persistence import DjangoTokens
from mpesa_integration.infrastructure.tokens import SharedToken
from penpay.stack import HOST, Stack
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Done
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, DerivTransfer, Leg, MpesaRequest, RequestStatus
from shared_kernel.infrastructure.coordination import DjangoLeases
from shared_kernel.infrastructure.persistence import new_id, now
from tests.benchmarks.people import Person

IN_FLIGHT = 64
CENT = Money(100, Currency.USD)


def calls_per_s(call: Callable[[Any], Any], items: Sequence[Any], at_once: int) -> float:
    """Calls a second with so many in flight. Raises `AssertionError` if one was not answered as it should be."""
    if at_once == 1:
        began = time.perf_counter()
        outcomes = [call(item) for item in items]
        took = time.perf_counter() - began
    else:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(call, items[:at_once]))  # threads and their connections are there
            began = time.perf_counter()
            outcomes = list(pool.map(call, items[at_once:]))
            took = time.perf_counter() - began
    assert all(isinstance(outcome, Done | Accepted) for outcome in outcomes), outcomes[0]
    return len(outcomes) / took


def ws_v3(stack: Stack) -> WsV3:
    """One socket to the simulated Deriv, as a worker has."""
    agents = [Credential(a["loginid"], a["token"], "USD") for a in settings.DERIV_AGENTS if a["platform"] == "ws_v3"]
    return WsV3(f"ws://{HOST}:{stack.simulators['deriv_ws']}/websockets/v3", "1089", agents)


def transfers(everybody: Sequence[Person], count: int) -> list[DerivTransfer]:
    """Transfers of a dollar."""
    at = now()
    return [
        DerivTransfer(
            id=RequestId(new_id()), transaction_id=TransactionId(new_id()), leg=Leg.DERIV_CREDIT, attempt=1,
            reference=new_id().hex, amount=CENT, send_before=at + timedelta(minutes=5), created_at=at,
            login=DerivLogin(DerivPlatform.WS_V3, everybody[n % len(everybody)].account),
            agent=settings.DERIV_AGENTS[0]["loginid"],
        )
        for n in range(count)
    ]  # fmt: skip


def deriv(stack: Stack, everybody: Sequence[Person], count: int, latency_s: float) -> tuple[float, float]:
    """Transfers a second: one after another, and 64 in flight, on the same socket. Deriv takes `latency_s` for each."""
    stack.control("deriv_ws", "settings", {"latency_s": [latency_s, latency_s]})
    api = ws_v3(stack)

    def call(transfer: DerivTransfer) -> Any:
        return api.send(transfer, give_up_at=time.monotonic() + 30)

    try:
        call(transfers(everybody, 1)[0])
        one = calls_per_s(call, transfers(everybody, max(20, count // 5)), 1)
        many = calls_per_s(call, transfers(everybody, count + IN_FLIGHT), IN_FLIGHT)
    finally:
        api.close()
        stack.control("deriv_ws", "settings", {"latency_s": [0, 0]})
    return one, many


def daraja(stack: Stack, count: int, at_once: int) -> float:
    """STK queries a second of the adapter, with kept connections. Waits for no callback: it asks about paid prompts."""
    url = f"http://{HOST}:{stack.simulators['mpesa']}"
    client = DarajaClient(lambda: account(url), SharedToken(DjangoTokens(), DjangoLeases(), now), now)
    asked = prompts(stack, client)
    return calls_per_s(client.query, [asked[n % len(asked)] for n in range(count + at_once)], at_once)


def account(url: str) -> DarajaAccount:
    """The simulator's."""
    return DarajaAccount(
        url, settings.MPESA_CONSUMER_KEY, settings.MPESA_CONSUMER_SECRET, settings.MPESA_PASSKEY, "http://127.0.0.1:9"
    )


def prompts(stack: Stack, client: DarajaClient) -> list[MpesaRequest]:
    """Four accepted prompts whose customer answers never: they stay as they are."""
    at, made = now(), []
    for number in range(4):
        phone = Phone(f"2541{int(time.time() * 10) % 10**7:07d}{number}")
        stack.control("mpesa", "customers", {"phone": phone.number, "behaviour": "never"})
        request = MpesaRequest(
            id=RequestId(new_id()), transaction_id=TransactionId(new_id()), leg=Leg.STK_PUSH, attempt=1,
            reference=new_id().hex[-12:].upper(), amount=Money(130000, Currency.KES),
            send_before=at + timedelta(minutes=1), created_at=at, phone=phone, shortcode=settings.MPESA_SHORTCODE,
        )  # fmt: skip
        outcome = client.push(request, "/cb/s/bench", give_up_at=time.monotonic() + 10)
        assert isinstance(outcome, Accepted), outcome
        request.status = RequestStatus.ACCEPTED
        request.checkout_request_id = outcome.references["CheckoutRequestID"]
        request.merchant_request_id = outcome.references["MerchantRequestID"]
        made.append(request)
    return made


def bare_http(stack: Stack, count: int) -> float:
    """The floor of a call: the simulator's quickest answer (405) over one kept httpx connection."""
    url = f"http://{HOST}:{stack.simulators['mpesa']}/mpesa/stkpush/v1/processrequest"
    with httpx.Client() as http:
        http.get(url)
        began = time.perf_counter()
        for _ in range(count):
            http.get(url)
        return count / (time.perf_counter() - began)
