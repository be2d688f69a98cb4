"""The simulator held against the contract's samples, and as strict as the provider: over HTTP, without our adapter."""

import json
from base64 import b64encode
from datetime import timedelta, timezone
from pathlib import Path

import httpx
import pytest

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "mpesa" / "samples"
EAT = timezone(timedelta(hours=3))
PHONE = "254708374149"
PUSH, QUERY, PULL = "/mpesa/stkpush/v1/processrequest", "/mpesa/stkpushquery/v1/query", "/pulltransactions/v1/query"

needs_contract = pytest.mark.skipif(not SAMPLES.exists(), reason="the contract is not beside this checkout")


@pytest.fixture
def http(mpesa_simulator):
    with httpx.Client(base_url=mpesa_simulator.base_url) as client:
        client.headers["Authorization"] = f"Bearer {token(client, mpesa_simulator)}"
        yield client


def token(client, simulator):
    answer = client.get(
        "/oauth/v1/generate?grant_type=client_credentials", auth=(simulator.consumer_key, simulator.consumer_secret)
    )
    return answer.json()["access_token"]


def signed(simulator, at=None, **body):
    stamp = (at or simulator.clock().astimezone(EAT)).strftime("%Y%m%d%H%M%S")
    password = b64encode(f"{simulator.shortcode}{simulator.passkey}{stamp}".encode()).decode()
    return {"BusinessShortCode": simulator.shortcode, "Password": password, "Timestamp": stamp, **body}


def a_push(simulator, **changes):
    body = signed(
        simulator,
        TransactionType="CustomerPayBillOnline",
        Amount="1500",
        PartyA=PHONE,
        PartyB=simulator.shortcode,
        PhoneNumber=PHONE,
        CallBackURL="https://pay.example.co.ke/cb/s/3f9c1a7be04d4f0f9a1b2c3d4e5f6071",
        AccountReference="PPD7K2M9QX4A",
        TransactionDesc="Deposit",
    )
    return {name: value for name, value in (body | changes).items() if value is not None}


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


@needs_contract
def test_the_contracts_own_push_is_taken_but_for_its_shortcode_and_its_time(http, mpesa_simulator):
    body = sample("stk_push_request.json")

    answer = http.post(PUSH, json=body | signed(mpesa_simulator, PartyB=mpesa_simulator.shortcode))

    assert answer.status_code == 200
    assert shape(answer.json()) == shape(sample("stk_push_response.json"))
    assert answer.json()["ResponseCode"] == sample("stk_push_response.json")["ResponseCode"]


@needs_contract
def test_what_the_simulator_answers_has_the_samples_shape(http, mpesa_simulator):
    mpesa_simulator.pending_form = "4999"
    mpesa_simulator.set_customer(PHONE, "pay", delay_s=0.3)
    accepted = http.post(PUSH, json=a_push(mpesa_simulator)).json()
    ask = signed(mpesa_simulator, CheckoutRequestID=accepted["CheckoutRequestID"])

    pending = http.post(QUERY, json=ask)
    mpesa_simulator.pending_form = "error"
    pending_error = http.post(QUERY, json=ask)
    busy = http.post(PUSH, json=a_push(mpesa_simulator))
    while http.post(QUERY, json=ask).status_code != 200:
        pass
    paid = http.post(QUERY, json=ask)

    assert shape(pending.json()) == shape(sample("stk_query_response_pending_4999.json"))
    assert pending.json()["ResultCode"] == "4999"
    assert (pending_error.status_code, pending_error.json()["errorCode"]) == (500, "500.001.1001")
    assert pending_error.json()["errorMessage"] == sample("stk_query_error_pending.json")["errorMessage"]
    assert (busy.status_code, busy.json()["errorMessage"]) == (
        500,
        sample("stk_push_error_subscriber_locked.json")["errorMessage"],
    )
    assert paid.json()["ResultCode"] == sample("stk_query_response_success.json")["ResultCode"]

    now = mpesa_simulator.clock().astimezone(EAT)
    window = {"ShortCode": mpesa_simulator.shortcode, "StartDate": f"{now - timedelta(days=1):%Y-%m-%d %H:%M:%S}"}
    window |= {"EndDate": f"{now + timedelta(hours=4):%Y-%m-%d %H:%M:%S}", "OffSetValue": "0"}
    assert shape(http.post(PULL, json=window).json()) == shape(sample("pull_query_response.json"))
    assert shape(http.request("GET", PULL, json=window).json()) == shape(sample("pull_query_response.json"))
    empty = http.post(PULL, json=window | {"OffSetValue": "1"}).json()
    assert (shape(empty), empty["ResponseCode"]) == (shape(sample("pull_query_response_empty.json")), "1001")


@needs_contract
def test_its_callbacks_have_the_samples_shape(http, mpesa_simulator):
    mpesa_simulator.plain_http = True
    url = "http://127.0.0.1:9/cb/s/3f9c1a7be04d4f0f9a1b2c3d4e5f6071"
    http.post(PUSH, json=a_push(mpesa_simulator, CallBackURL=url))
    mpesa_simulator.set_customer("254711000001", "cancel")
    http.post(PUSH, json=a_push(mpesa_simulator, CallBackURL=url, PhoneNumber="254711000001", PartyA="254711000001"))
    while len(mpesa_simulator.callbacks.answered) < 2:
        pass

    bodies = [json.loads(body) for _, body in mpesa_simulator.callbacks.answered]
    paid, cancelled = sorted(bodies, key=lambda body: body["Body"]["stkCallback"]["ResultCode"])
    assert shape(paid) == shape(sample("stk_callback_success_0_with_balance.json"))
    names = {item["Name"] for item in paid["Body"]["stkCallback"]["CallbackMetadata"]["Item"]}
    known = sample("stk_callback_success_0_with_balance.json")["Body"]["stkCallback"]["CallbackMetadata"]["Item"]
    assert names == {item["Name"] for item in known}
    assert shape(cancelled) == shape(sample("stk_callback_failure_1032.json"))
    assert cancelled["Body"]["stkCallback"]["ResultDesc"] == "Request cancelled by user"


@pytest.mark.parametrize(
    "wrong",
    [
        {"Amount": "0"},
        {"Amount": "-5"},
        {"Amount": "1500.00"},
        {"Amount": 1500.5},
        {"Amount": "250001"},
        {"Amount": True},
        {"Amount": None, "amount": "1500"},
        {"PhoneNumber": "0708374149"},
        {"PhoneNumber": "+254708374149"},
        {"PhoneNumber": 254708374149},
        {"PartyA": None},
        {"PartyB": "600000"},
        {"TransactionType": "CustomerPaybillOnline"},
        {"CallBackURL": "http://pay.example.co.ke/cb"},
        {"CallBackURL": "https://pay.example.co.ke/mpesa/cb"},
        {"CallBackURL": None, "CallbackURL": "https://pay.example.co.ke/cb"},
        {"AccountReference": "PPD7K2M9QX4AB"},
        {"AccountReference": "PPD#7"},
        {"TransactionDesc": None},
        {"TransactionDesc": "Deposit to Deriv"},
        {"Timestamp": "20210628092408"},
        {"Timestamp": 20210628092408},
        {"Password": None},
        {"BusinessShortCode": 174379},
        {"BusinessShortCode": None, "Shortcode": "174379"},
    ],
    ids=str,
)
def test_a_wrong_field_is_refused_and_no_prompt_is_shown(http, mpesa_simulator, wrong):
    answer = http.post(PUSH, json=a_push(mpesa_simulator, **wrong))

    assert (answer.status_code, answer.json()["errorCode"]) == (400, "400.002.02")
    assert mpesa_simulator.prompts == {}


def test_utc_in_the_timestamp_is_refused(http, mpesa_simulator):
    body = a_push(mpesa_simulator) | signed(mpesa_simulator, at=mpesa_simulator.clock())

    assert "Timestamp" in http.post(PUSH, json=body).json()["errorMessage"]


@pytest.mark.parametrize("call", [PUSH, QUERY])
def test_wrong_passkey_and_unknown_shortcode_are_told_apart(http, mpesa_simulator, call):
    passkey = http.post(call, json=a_push(mpesa_simulator, Password="eA=="))
    merchant = http.post(call, json=a_push(mpesa_simulator, BusinessShortCode="600000"))

    assert (passkey.status_code, passkey.json()["errorMessage"]) == (500, "Wrong credentials")
    assert (merchant.status_code, merchant.json()["errorMessage"]) == (500, "Merchant does not exist")


def test_a_form_a_broken_body_a_wrong_path_and_a_wrong_method_are_refused(http, mpesa_simulator):
    body = a_push(mpesa_simulator)

    assert http.post(PUSH, data=body).status_code == 400
    assert (
        http.post(PUSH, content="{", headers={"Content-Type": "application/json"}).json()["errorCode"] == "400.002.05"
    )
    assert http.post(PUSH, content="[" * 9999, headers={"Content-Type": "application/json"}).status_code == 400
    assert http.get(PUSH).json()["errorCode"] == "405.001"
    assert http.post("/mpesa/stkpush/v2/processrequest", json=body).json()["errorCode"] == "404.001.01"
    assert http.post(QUERY, json=signed(mpesa_simulator, CheckoutRequestID="ws_CO_1")).status_code == 400
    assert mpesa_simulator.prompts == {}


def test_a_new_token_ends_the_one_before_and_an_old_one_ends_by_itself(http, mpesa_simulator):
    body = a_push(mpesa_simulator)
    second = {"Authorization": f"Bearer {token(http, mpesa_simulator)}"}

    first = http.post(PUSH, json=body)
    assert first.json()["errorCode"] in {"404.001.03", "401.002.01"}
    assert http.post(PUSH, json=body, headers=second).status_code == 200
    mpesa_simulator.clock.advance(3600)
    assert http.post(PUSH, json=a_push(mpesa_simulator), headers=second).json()["errorCode"] in {
        "404.001.03",
        "401.002.01",
    }


def test_a_wrong_secret_is_an_empty_400_and_other_mistakes_have_codes(mpesa_simulator):
    with httpx.Client(base_url=mpesa_simulator.base_url) as client:
        path = "/oauth/v1/generate?grant_type=client_credentials"
        wrong = client.get(path, auth=(mpesa_simulator.consumer_key, "wrong"))
        assert (wrong.status_code, wrong.content) == (400, b"")
        assert client.get(path).json()["errorCode"] == "400.008.01"
        assert client.get("/oauth/v1/generate").json()["errorCode"] == "400.008.02"


def test_the_control_side_refuses_what_it_does_not_know_and_is_absent_in_production(mpesa_simulator, monkeypatch):
    from mpesa_integration.simulator.server import MpesaSimulator

    with httpx.Client(base_url=mpesa_simulator.base_url) as client:
        assert client.post("/_control/faults", json={"call": "b2c", "fault": "nonsense"}).status_code == 400
        assert (
            client.post(
                "/_control/faults", json={"call": "stk_push", "fault": "waf_html", "probability": 2}
            ).status_code
            == 400
        )
        assert client.post("/_control/customers", json={"phone": PHONE, "behaviour": "dance"}).status_code == 400
        assert client.post("/_control/customers", json=[{"phone": PHONE, "behaviour": "cancel"}]).json() == {
            "customers": 1
        }
        assert client.post("/_control/faults", json={"call": "stk_push", "fault": "waf_html", "count": 2}).json() == {
            "armed": 1
        }
        assert client.delete("/_control/faults").json() == {"armed": 0}
        assert client.get("/_control/books").json() == []
    monkeypatch.setenv("APP_ENV", "production")
    assert not [path for _, path in MpesaSimulator().app.routes if path.startswith("/_control")]


def test_the_same_seed_strikes_the_same_calls(mpesa_simulator):
    from mpesa_integration.simulator.server import MpesaSimulator

    def struck():
        simulator = MpesaSimulator(seed=7)
        simulator.faults.arm({"call": "stk_push", "fault": "waf_html", "probability": 0.3})
        return [bool(simulator.faults.take("stk_push")) for _ in range(50)]

    first = struck()
    assert first == struck()
    assert 5 < sum(first) < 25


def test_a_fault_can_be_meant_for_one_phone(http, mpesa_simulator):
    mpesa_simulator.faults.arm({"call": "stk_push", "fault": "waf_html", "phone": "254711000001"})

    assert http.post(PUSH, json=a_push(mpesa_simulator)).status_code == 200
    assert http.post(PUSH, json=a_push(mpesa_simulator, PhoneNumber="254711000001")).status_code == 503


def test_money_that_is_not_there_is_not_paid_and_what_is_paid_is_gone(http, mpesa_simulator):
    mpesa_simulator.set_customer(PHONE, balance="2000", delay_s=0)

    for amount in ("1500", "501", "500"):
        accepted = http.post(PUSH, json=a_push(mpesa_simulator, Amount=amount)).json()
        while mpesa_simulator.prompts[accepted["CheckoutRequestID"]].result is None:
            pass

    assert [movement["amount"] for movement in mpesa_simulator.books.movements] == ["1500.00", "500.00"]
    assert len({movement["id"] for movement in mpesa_simulator.books.movements}) == 2
