"""For the simulator's own tests: a client with a token, a place that hears callbacks, well-formed requests."""

import json
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509 import load_pem_x509_certificate

from mpesa_integration.simulator.initiator import CERTIFICATE
from shared_kernel.simulator import Answer, JsonApp, Request, serving

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "mpesa" / "samples"
EAT = timezone(timedelta(hours=3))
PHONE = "254705912645"
B2C, STATUS, BALANCE = (
    "/mpesa/b2c/v3/paymentrequest",
    "/mpesa/transactionstatus/v1/query",
    "/mpesa/accountbalance/v1/query",
)
REVERSAL, PUSH, PULL = "/mpesa/reversal/v1/request", "/mpesa/stkpush/v1/processrequest", "/pulltransactions/v1/query"
REGISTER, SIMULATE = "/mpesa/c2b/v2/registerurl", "/mpesa/c2b/v2/simulate"

needs_contract = pytest.mark.skipif(not SAMPLES.exists(), reason="the contract is not beside this checkout")


def sample(name):
    return json.loads((SAMPLES / name).read_text())


def shape(value):
    """The keys of a message, to any depth; lists by their first element."""
    match value:
        case dict():
            return {key: shape(inner) for key, inner in value.items()}
        case [first, *_]:
            return [shape(first)]
        case _:
            return ""


def until(true: Callable[[], Any], most_s: float = 5) -> Any:
    """What `true` returns once it is; fails when it never is."""
    end = time.monotonic() + most_s
    while not (found := true()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)
    return found


@dataclass
class Sink:
    """Hears callbacks under a path of its own: (path, body) in their order; `says` is the answer by path."""

    base_url: str
    heard: list[tuple[str, Any]] = field(default_factory=list)
    says: dict[str, Any] = field(default_factory=dict)

    def url(self, path: str) -> str:
        return f"{self.base_url}{path}"

    def at(self, path: str) -> list[Any]:
        """What came to `path`."""
        return [body for place, body in list(self.heard) if place == path]

    def result(self, path: str, number: int = 1) -> dict[str, Any]:
        """The result that came to `path` as the `number`th, once it is there."""
        return until(lambda: self.at(path)[number - 1 : number])[0]["Result"]


SINKS: dict[str, Sink] = {}
OPEN = ExitStack()  # until the run ends
TLS = ssl.create_default_context()  # made once: it takes longer than a test


async def _hear(request: Request) -> Answer:
    _, whose, path = request.path.split("/", 2)
    if (sink := SINKS.get(whose)) is None:
        return Answer(b"", 404)
    sink.heard.append((f"/{path}", json.loads(request.body)))
    return Answer.json(sink.says.get(f"/{path}", {"ResultCode": 0, "ResultDesc": "Accepted"}))


@cache
def _listening() -> str:
    """One server for all tests of a run: starting one for each would take most of their time."""
    return f"http://{OPEN.enter_context(serving(JsonApp({}, _hear)))}"


@contextmanager
def listening() -> Iterator[Sink]:
    """A sink of its own for one test."""
    whose = uuid4().hex
    SINKS[whose] = Sink(f"{_listening()}/{whose}")
    try:
        yield SINKS[whose]
    finally:
        del SINKS[whose]


def parameters(result: dict[str, Any]) -> dict[str, Any]:
    """A result's parameters by their keys; of a repeated key the last."""
    listed = result["ResultParameters"]["ResultParameter"]
    return {one["Key"]: one.get("Value") for one in (listed if isinstance(listed, list) else [listed])}


class Caller:
    """Calls the simulator as an organisation does: its token, its credential, its URLs at the sink."""

    def __init__(self, simulator, http, sink):
        self.simulator, self.http, self.sink = simulator, http, sink
        self.take_token()

    def take_token(self):
        key = (self.simulator.consumer_key, self.simulator.consumer_secret)
        answer = self.http.get("/oauth/v1/generate?grant_type=client_credentials", auth=key)
        self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def credential(self, password=None):
        key = load_pem_x509_certificate(CERTIFICATE.read_bytes()).public_key()
        secret = self.simulator.initiator_password if password is None else password
        return b64encode(key.encrypt(secret.encode(), PKCS1v15())).decode()

    def post(self, path, body, **changes):
        """`changes` replace fields; None takes one away."""
        return self.http.post(path, json={k: v for k, v in (body | changes).items() if v is not None})

    def control(self, what, body, method="POST"):
        return self.http.request(method, f"/_control/{what}", json=body)

    def arm(self, call, fault, **more):
        self.control("faults", {"call": call, "fault": fault, **more}).raise_for_status()

    def books(self):
        return self.http.get("/_control/books").json()

    def urls(self, kind):
        return {"ResultURL": self.sink.url(f"/cb/{kind}"), "QueueTimeOutURL": self.sink.url(f"/cb/{kind}t")}

    def a_payout(self, id=None):
        return {
            "OriginatorConversationID": id or uuid4().hex,
            "InitiatorName": self.simulator.initiator_name,
            "SecurityCredential": self.credential(),
            "CommandID": "BusinessPayment",
            "Amount": "1500",
            "PartyA": self.simulator.b2c_shortcode,
            "PartyB": PHONE,
            "Remarks": "Withdrawal",
            "Occassion": "PPW7K2M9QX4A",
        } | self.urls("b")

    def pay(self, id=None, **changes):
        return self.post(B2C, self.a_payout(id), **changes)

    def by_initiator(self, command, kind):
        return {
            "Initiator": self.simulator.initiator_name,
            "SecurityCredential": self.credential(),
            "CommandID": command,
            "Remarks": "OK",
        } | self.urls(kind)

    def a_status_query(self, **about):
        party = {"PartyA": self.simulator.b2c_shortcode, "IdentifierType": "4", "Occasion": "OK"}
        return self.by_initiator("TransactionStatusQuery", "t") | party | about

    def ask(self, **about):
        return self.post(STATUS, self.a_status_query(), **about)

    def fate(self, **about):
        """What Transaction Status says now: the word, or the code of a query that failed."""
        before = len(self.sink.at("/cb/t"))
        assert self.ask(**about).status_code == 200
        result = self.sink.result("/cb/t", before + 1)
        return parameters(result)["TransactionStatus"] if str(result["ResultCode"]) == "0" else result["ResultCode"]

    def deposit(self, amount="1500", phone=PHONE, reference="PPD7K2M9QX4A", **faults):
        """An STK payment that was made: its receipt."""
        stamp = self.simulator.clock().astimezone(EAT).strftime("%Y%m%d%H%M%S")
        password = f"{self.simulator.shortcode}{self.simulator.passkey}{stamp}"
        before = len(self.simulator.paid)
        body = {
            "BusinessShortCode": self.simulator.shortcode,
            "Password": b64encode(password.encode()).decode(),
            "Timestamp": stamp,
            "TransactionType": "CustomerPayBillOnline",
            "Amount": amount,
            "PartyA": phone,
            "PartyB": self.simulator.shortcode,
            "PhoneNumber": phone,
            "CallBackURL": self.sink.url("/cb/s"),
            "AccountReference": reference,
            "TransactionDesc": "Deposit",
        }
        self.http.post(PUSH, json=body).raise_for_status()
        return until(lambda: self.simulator.paid[before:])[0][1]

    def a_reversal(self, receipt):
        return self.by_initiator("TransactionReversal", "r") | {
            "TransactionID": receipt,
            "Amount": "1500",
            "ReceiverParty": self.simulator.shortcode,
            "RecieverIdentifierType": "11",
        }

    def reverse(self, receipt, **changes):
        return self.post(REVERSAL, self.a_reversal(receipt), **changes)

    def a_balance_query(self):
        return self.by_initiator("AccountBalance", "a") | {
            "PartyA": self.simulator.b2c_shortcode,
            "IdentifierType": "4",
        }

    def register(self, path=REGISTER, **changes):
        body = {
            "ShortCode": self.simulator.shortcode,
            "ResponseType": "Completed",
            "ConfirmationURL": self.sink.url("/cb/c"),
            "ValidationURL": self.sink.url("/cb/v"),
        }
        return self.post(path, body, **changes)


@contextmanager
def calling(simulator) -> Iterator[Caller]:
    """A caller of `simulator`, whose results are spelt as the newest samples."""
    simulator.drift = "none"
    with listening() as sink, httpx.Client(base_url=simulator.base_url, verify=TLS) as http:
        yield Caller(simulator, http, sink)
