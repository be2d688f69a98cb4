"""The simulator by itself: as strict as the contract, and speaking as the contract's schemas say."""

import json
from decimal import Decimal

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK
from websockets.sync.client import connect

from deriv_integration.simulator.server import DerivSimulator
from deriv_integration.tests.callers import SCHEMAS, Client, a_client, against_schema
from deriv_integration.tests.fixtures import AGENT, a_transfer, send
from shared_kernel.domain.money import Currency, Money
from shared_kernel.simulator import serving

TRANSFER = {"paymentagent_transfer": 1, "amount": 10.25, "currency": "USD", "transfer_to": "CR100001"}


@pytest.fixture
def agent(deriv_simulator):
    with a_client(deriv_simulator.address, "demo-agent-token") as client:
        yield client


@pytest.fixture
def stranger(deriv_simulator):
    with a_client(deriv_simulator.address) as client:
        yield client


@pytest.mark.parametrize(
    "request_",
    [
        {"ping": 1},
        {"time": 1},
        {"website_status": 1},
        {"website_status": 1, "subscribe": 1},
        {"balance": 1},
        {"balance": 1, "subscribe": 1},
        {"statement": 1},
        {"statement": 1, "description": 1, "limit": 5},
        {"transaction": 1, "subscribe": 1},
        TRANSFER,
        {**TRANSFER, "dry_run": 1},
        {**TRANSFER, "amount": 10_000_000},
        {"forget": "c84a793b-8a87-7999-ce10-9b22f7ceead3"},
        {"forget_all": "transaction"},
        {"forget_all": ["balance", "transaction"]},
        {"authorize": "demo-agent-token"},
        {"authorize": "wrong"},
        {"logout": 1},
    ],
)
def test_requests_and_answers_fit_the_schemas(agent, request_):
    call = next(iter(request_))
    against_schema(call, "send", request_)

    answer = agent.ask(**request_, req_id=7, passthrough={"a": 1})

    against_schema(call, "receive", answer)
    assert answer["msg_type"] == call
    assert (answer["req_id"], answer["passthrough"]) == (7, {"a": 1})
    assert (call in answer) is not ("error" in answer)


def test_what_the_adapter_sends_fits_the_schemas(adapter, deriv_simulator, monkeypatch):
    requests = []
    answer = deriv_simulator.simulator.v3.answer

    async def listening(session, message):
        requests.append(json.loads(message["text"]))
        await answer(session, message)

    monkeypatch.setattr(deriv_simulator.simulator.v3, "answer", listening)
    transfer = a_transfer(10_10)
    adapter.check_login(transfer.login, AGENT, Money(10_10, Currency.USD))
    send(adapter, transfer)
    adapter.find(transfer)
    adapter.find(a_transfer())
    adapter.identify("jane-token")

    calls = (
        [next(key for key in request if (SCHEMAS / key).is_dir()) for request in requests] if SCHEMAS.exists() else []
    )
    for call, request in zip(calls, requests, strict=False):
        against_schema(call, "send", request)
    sent = next(request for request in requests if "description" in request and "amount" in request)
    assert sent["description"] == f"PP {transfer.reference}"
    assert len({request["req_id"] for request in requests[:-1]}) == len(requests) - 1


def test_pushes_fit_the_schemas_and_tell_of_each_movement(agent, deriv_simulator):
    agent.ask(transaction=1, subscribe=1, req_id=3)
    agent.ws.send(json.dumps(TRANSFER))
    heard = [agent.heard(), agent.heard()]

    push = next(message for message in heard if message["msg_type"] == "transaction")
    against_schema("transaction", "receive", push)
    assert push["transaction"]["amount"] == -10.25
    assert push["transaction"]["action"] == "withdrawal"
    assert push["req_id"] == 3


def test_statement_texts_and_ids_are_those_of_the_contract(agent, deriv_simulator):
    done = agent.ask(**TRANSFER, description="PP ABC")
    ours = agent.ask(statement=1, description=1)["statement"]["transactions"][0]
    with a_client(deriv_simulator.address, "jane-token") as jane:
        theirs = jane.ask(statement=1, description=1)["statement"]["transactions"][0]

    assert done["transaction_id"] == ours["transaction_id"] != theirs["transaction_id"]
    assert ours["longcode"] == theirs["longcode"]
    assert ours["longcode"].startswith(
        f"Transfer from Payment Agent PenPay ({AGENT}) to CR100001. Transaction reference: "
    )
    assert ours["longcode"].endswith("GMT. Agent note: PP ABC")
    assert (ours["action_type"], ours["amount"]) == ("withdrawal", -10.25)
    assert (theirs["action_type"], theirs["amount"]) == ("deposit", 10.25)


def test_a_statement_is_filtered_newest_first_and_paged(agent):
    for cents in (100, 200, 300):
        agent.ask(**{**TRANSFER, "amount": cents / 100})

    pages = [agent.ask(statement=1, limit=2, offset=offset)["statement"] for offset in (0, 2, 4)]
    withdrawals = agent.ask(statement=1, action_type="withdrawal")["statement"]
    later = agent.ask(statement=1, date_from=4_000_000_000)["statement"]

    assert [[entry["amount"] for entry in page["transactions"]] for page in pages] == [[-3, -2], [-1, 100000], []]
    assert withdrawals["count"] == 3
    assert later["transactions"] == []
    assert "longcode" not in pages[0]["transactions"][0]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"unknown": 1}, "InputValidationFailed"),
        ({"amount": "10.25"}, "InputValidationFailed"),
        ({"amount": True}, "InputValidationFailed"),
        ({"transfer_to": "100001"}, "InputValidationFailed"),
        ({"transfer_to": None}, "InputValidationFailed"),
        ({"description": "PP: ABC"}, "InputValidationFailed"),
        ({"description": "x" * 251}, "InputValidationFailed"),
        ({"dry_run": 2}, "InputValidationFailed"),
        ({"paymentagent_transfer": "1"}, "InputValidationFailed"),
        ({"req_id": "7"}, "InputValidationFailed"),
        ({"amount": 10.255}, "PaymentAgentTransferError"),
        ({"amount": 0.5}, "PaymentAgentTransferError"),
        ({"amount": 0}, "PaymentAgentTransferError"),
        ({"amount": -5}, "PaymentAgentTransferError"),
        ({"amount": 2000.01}, "PaymentAgentTransferError"),
        ({"currency": "EUR"}, "PaymentAgentTransferError"),
        ({"transfer_to": "CR424242"}, "PaymentAgentTransferError"),
        ({"transfer_to": AGENT}, "PaymentAgentTransferError"),
    ],
)
def test_a_wrong_transfer_is_refused_and_moves_nothing(agent, deriv_simulator, change, code):
    request = {key: value for key, value in {**TRANSFER, **change}.items() if value is not None}

    assert agent.error(**request)["code"] == code
    assert deriv_simulator.received() == []


@pytest.mark.parametrize(
    ("order", "text"),
    [
        ({"status": ["disabled"]}, "account is disabled"),
        ({"status": ["cashier_locked"]}, "cashier is locked"),
        ({"status": ["documents_expired"]}, "documents have expired"),
        ({"status": ["profile_incomplete"]}, "profile is incomplete"),
        ({"residence": "tz"}, "country of residence"),
        ({"currency": "EUR"}, "not the default account currency"),
    ],
)
def test_customers_who_may_not_be_credited_are_refused_by_name_of_the_obstacle(agent, deriv_simulator, order, text):
    deriv_simulator.customer(**order)

    assert text in agent.error(**TRANSFER)["message"]
    assert text in agent.error(**TRANSFER, dry_run=1)["message"]
    assert deriv_simulator.received() == []


def test_the_float_and_the_daily_caps_bind(agent, deriv_simulator):
    deriv_simulator.customer(AGENT, daily_count=2, daily_amount=100_00, most=1_000_000_00)

    assert "maximum allowable transfer amount" in agent.error(**{**TRANSFER, "amount": 100.01})["message"]
    agent.ask(**TRANSFER)
    agent.ask(**TRANSFER)
    assert "maximum allowable transactions" in agent.error(**TRANSFER)["message"]
    deriv_simulator.customer(AGENT, daily_count=9, daily_amount=10**12)
    assert "balance is insufficient" in agent.error(**{**TRANSFER, "amount": 100_000})["message"]


def test_who_is_not_logged_in_or_lacks_the_scope_is_refused(stranger, deriv_simulator):
    deriv_simulator.customer("CR7", name="X", token="reader", scopes=["read"])

    assert stranger.error(**TRANSFER)["code"] == "AuthorizationRequired"
    assert stranger.error(statement=1)["code"] == "AuthorizationRequired"
    stranger.ask(authorize="reader")
    refused = stranger.error(**TRANSFER)
    assert refused["code"] == "PermissionDenied"
    assert "payments" in refused["message"]
    stranger.ask(logout=1)
    assert stranger.error(balance=1)["code"] == "AuthorizationRequired"


def test_a_customer_is_no_agent(deriv_simulator):
    deriv_simulator.customer("CR8", name="X")
    with a_client(deriv_simulator.address, "jane-token") as jane:
        assert "not authorized" in jane.error(**{**TRANSFER, "transfer_to": "CR8"})["message"]


def test_tokens_are_masked_and_the_rest_comes_back_in_clear(stranger):
    answer = stranger.ask(authorize="demo-agent-token")

    assert answer["echo_req"] == {"authorize": "<not shown>"}
    assert "demo-agent-token" not in json.dumps(answer)


@pytest.mark.parametrize("call", ["buy", "residence_list", ""])
def test_other_calls_are_not_recognised(agent, call):
    assert agent.error(**{call: 1})["code"] == "UnrecognisedRequest"


@pytest.mark.parametrize("text", ["", "x", "[]", "[" * 100_000, '{"ping": 1'])
def test_what_is_no_json_object_is_answered_and_harms_nobody(agent, text):
    agent.ws.send(text)

    assert "error" in agent.heard()
    assert agent.ask(ping=1)["ping"] == "pong"


def test_an_app_id_is_needed(deriv_simulator):
    with a_client(deriv_simulator.address, query="") as client:
        assert client.heard()["error"]["code"] == "InvalidAppID"
        with pytest.raises(ConnectionClosed):
            client.heard()


def test_streams_are_given_once_and_forgotten_by_id(agent):
    first = agent.ask(balance=1, subscribe=1)
    again = agent.error(balance=1, subscribe=1)

    assert again["code"] == "AlreadySubscribed"
    assert agent.ask(forget=first["subscription"]["id"])["forget"] == 1
    assert agent.ask(forget=first["subscription"]["id"])["forget"] == 0


def test_an_idle_socket_is_closed(deriv_simulator):
    deriv_simulator.simulator.idle_s = 0.2
    with a_client(deriv_simulator.address) as client, pytest.raises(ConnectionClosedOK):
        client.heard()


def test_a_dropped_socket_ends_without_a_close_frame(agent, deriv_simulator):
    deriv_simulator.arm("drop_socket_after_effect")

    with pytest.raises(ConnectionClosed) as ended:
        agent.ask(**TRANSFER)

    assert ended.value.rcvd is None
    assert deriv_simulator.received() == [10_25]


def test_rate_limits_and_the_duplicate_guard_are_on_by_default():
    simulator = DerivSimulator()
    simulator._customers({"loginid": "CR100001", "name": "JANE DOE"})
    with serving(simulator.app) as address, connect(f"ws://{address}/?app_id=1", proxy=None) as ws:
        client = Client(ws)
        client.ask(authorize="demo-agent-token")
        first, second = client.ask(**TRANSFER), client.error(**TRANSFER)
        simulator.clock.advance(3)
        third = client.ask(**TRANSFER)
        statements = [client.ask(statement=1, limit=1) for _ in range(26)]
        pings = [client.ask(ping=1) for _ in range(200)]

    assert first["paymentagent_transfer"] == third["paymentagent_transfer"] == 1
    assert "Request too frequent" in second["message"]
    assert [answer.get("error", {}).get("code") for answer in statements][-2:] == [None, "RateLimit"]
    assert all(ping["ping"] == "pong" for ping in pings)


def test_the_control_side_grants_a_number_of_calls_and_counts_what_it_refuses():
    simulator = DerivSimulator(limits=False)
    with serving(simulator.app) as address, connect(f"ws://{address}/?app_id=1", proxy=None) as ws:
        client, control = Client(ws), f"http://{address}/_control"
        httpx.post(f"{control}/settings", json={"limits": True, "calls_a_minute": 3}).raise_for_status()
        client.ask(authorize="demo-agent-token")

        answers = [client.ask(balance=1) for _ in range(5)]
        told = httpx.get(f"{control}/calls").json()

    assert [answer.get("error", {}).get("code") for answer in answers] == [None, None, None, "RateLimit", "RateLimit"]
    assert told == {"seen": {"authorize": 1, "balance": 5}, "refused": 2}


def test_what_was_booked_can_be_taken_back_later(agent, deriv_simulator):
    deriv_simulator.arm("reverted_later", after_s=0.05)
    agent.ask(transaction=1, subscribe=1)
    agent.ws.send(json.dumps(TRANSFER))
    heard = [agent.heard() for _ in range(3)]

    actions = [message["transaction"]["action"] for message in heard if "action" in message.get("transaction", {})]
    assert actions == ["withdrawal", "adjustment"]
    assert deriv_simulator.received() == [10_25, -10_25]
    assert agent.ask(balance=1)["balance"]["balance"] == 100000


def test_the_books_balance_whatever_happened(agent, deriv_simulator):
    deriv_simulator.arm("double_booking", count=1)
    deriv_simulator.arm("wrong_response_after", probability=0.5)
    for _ in range(20):
        agent.ask(**TRANSFER)

    accounts = deriv_simulator.simulator.bank.accounts.values()
    assert sum(account.balance for account in accounts) == 2 * 100_000_00 + 50_00
    for account in accounts:
        assert account.balance == sum(entry.amount for entry in account.entries)
    moved = sum(Decimal(movement["amount"]) for movement in deriv_simulator.simulator.books.movements)
    assert moved == Decimal("10.25") * 21


@pytest.mark.parametrize(
    "order",
    [
        {"fault": "no_such_fault"},
        {"call": "no_such_call", "fault": "down"},
        {"fault": "down", "count": 0},
        {"fault": "down", "probability": 2},
    ],
)
def test_a_fault_that_does_not_exist_cannot_be_armed(deriv_simulator, order):
    with pytest.raises(ValueError, match=r"is|are"):
        deriv_simulator.simulator.faults.arm(order)
