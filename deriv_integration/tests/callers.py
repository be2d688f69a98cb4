"""Plain callers of the simulated Deriv, for its own tests: a socket and an HTTP client that know no adapter."""

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from jsonschema import Draft4Validator
from websockets.sync.client import connect

from deriv_integration.simulator.server import DerivSimulator
from shared_kernel.simulator import serving

SCHEMAS = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "deriv" / "ws_v3"


def against_schema(call, side, message):
    """Fails where a message breaks the contract's schema; skips where the schemas are not there."""
    path = SCHEMAS / call / f"{side}.json"
    if not path.exists():
        pytest.skip("the contract's schemas are not here")
    Draft4Validator(json.loads(path.read_text())).validate(message)


@dataclass
class ServedRest(DerivSimulator):
    """A simulator that is being served at `address`."""

    address: str = ""


@contextmanager
def a_rest_deriv(**options):
    """Without the limit of 60 a minute; Jane has 50 dollars at REST, and a token."""
    simulator = ServedRest(limits=False, **options)
    simulator._customers({"nickname": "jane", "name": "JANE DOE", "balance": "50.00", "token": "jane-token"})
    with serving(simulator.app) as address:
        simulator.address = address
        yield simulator


class Client:
    """Somebody on a v3 socket."""

    def __init__(self, ws):
        self.ws = ws

    def ask(self, timeout=3, **request):
        self.ws.send(json.dumps(request))
        return json.loads(self.ws.recv(timeout=timeout))

    def error(self, **request):
        return self.ask(**request)["error"]

    def heard(self, timeout=3):
        return json.loads(self.ws.recv(timeout=timeout))


@contextmanager
def a_client(address, token=None, query="?app_id=1089&l=EN"):
    """A socket to `address`, logged in where a token is given."""
    with connect(f"ws://{address}/websockets/v3{query}", proxy=None) as ws:
        client = Client(ws)
        if token:
            assert "error" not in client.ask(authorize=token)
        yield client


class Caller:
    """Somebody with a token of the REST API."""

    def __init__(self, address, token, app_id="1089"):
        headers = {"Authorization": f"Bearer {token}", "Deriv-App-ID": app_id}
        self.http = httpx.Client(base_url=f"http://{address}", headers=headers, trust_env=False)

    def get(self, path, **params):
        return self.http.get(path, params=params)

    def data(self, path, **params):
        answer = self.get(path, **params)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def post(self, path, **data):
        return self.http.post(path, json={"data": data})

    def transfer(self, request_id="t1", **over):
        body = {"to_nickname": "jane", "amount": "10.25", "currency": "USD", "request_id": request_id, **over}
        return self.post("/payment-agents/v1/transfer", **{k: v for k, v in body.items() if v is not None})

    def ask_code(self, **over):
        body = {"agent_id": 7001, "amount": "5.00", "currency": "USD", **over}
        return self.post("/payment-agents/v1/withdraw/verification_code", **body)

    def withdraw(self, code, request_id="w1", **over):
        body = {"agent_id": 7001, "amount": "5.00", "currency": "USD", "verification_code": code, **over}
        return self.post("/payment-agents/v1/withdraw", **body, request_id=request_id)

    def status(self, kind, request_id):
        return self.get(f"/payment-agents/v1/{kind}/{request_id}")

    def entries(self, wallet="payment_agent", **params):
        """What a wallet shows of payments through agents, newest first."""
        shown = self.data(f"/wallet/v1/transactions/{wallet}", **params)["transactions"]
        return [entry for entry in shown if entry["channel"] == "payment_agent"]


def code_of(answer):
    """The error code of an answer, whatever its family."""
    return answer.json()["errors"][0]["code"]


def wait_until(true, most_s=3.0):
    """Returns when it is true. Raises `AssertionError` when it does not become so."""
    until = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)
