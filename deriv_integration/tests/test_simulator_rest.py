"""The simulated REST API when Deriv does nothing wrong: envelopes, patterns, refusals, codes, wallets."""

from datetime import UTC, datetime, timedelta

import pytest

from deriv_integration.simulator.server import DerivSimulator
from deriv_integration.tests.callers import Caller, a_rest_deriv, code_of, wait_until
from shared_kernel.simulator import serving

AGENTS = "/payment-agents/v1"


@pytest.fixture
def deriv():
    """Withdrawals take a moment."""
    with a_rest_deriv(pending_s=0.05) as served:
        yield served


@pytest.fixture
def agent(deriv):
    return Caller(deriv.address, "demo-rest-agent-token")


@pytest.fixture
def jane(deriv):
    return Caller(deriv.address, "jane-token")


@pytest.fixture
def code(deriv, jane):
    """A good one for 5.00, as Jane finds it in her mail."""
    assert jane.ask_code().status_code == 200
    return deriv.last_code("jane")


def moved(deriv):
    return [(m["from"], m["to"], m["amount"], m["reference"], m["status"]) for m in deriv.control.books()]


PAID = [("7001", "jane", "10.25", "t1", "complete")]
WITHDRAWN = [("jane", "7001", "5.00", "w1", "complete")]


# --- envelopes, tokens, limits ----------------------------------------------------------------------------------------


def test_payment_calls_answer_with_data_errors_and_metadata(agent):
    done, refused = agent.transfer().json(), agent.transfer().json()

    assert set(done) == set(refused) == {"data", "errors", "metadata"}
    assert done["errors"] == []
    assert (refused["data"], refused["errors"][0]["status"]) == ({}, 400)
    assert isinstance(refused["errors"][0]["detail"]["message"], str)
    assert (done["metadata"]["endpoint"], done["metadata"]["method"]) == (f"{AGENTS}/transfer", "POST")


def test_wallet_calls_answer_with_data_or_errors_alone(agent):
    wrong = agent.get("/wallet/v1/transactions/payment_agent", per_page=5)

    assert set(agent.get("/wallet/v1/wallets").json()) <= {"data", "links"}
    assert wrong.status_code == 400
    assert set(wrong.json()) == {"errors"}
    assert set(wrong.json()["errors"][0]) == {"status", "code", "message"}


def test_links_are_missing_at_times(agent):
    seen = {"links" in agent.get("/wallet/v1/transactions/payment_agent").json() for _ in range(20)}

    assert seen == {True, False}


def test_timing_comes_in_either_unit(agent):
    assert {agent.get(f"{AGENTS}/agents/me").json()["metadata"]["timing"] for _ in range(20)} == {0.038, 38}


@pytest.mark.parametrize("token", ["wrong", "demo-agent-token"])
def test_a_token_that_is_unknown_here_is_answered_401(deriv, token):
    answer = Caller(deriv.address, token).transfer()

    assert (answer.status_code, code_of(answer)) == (401, "Unauthorized")
    assert moved(deriv) == []


def test_without_an_app_id_or_a_token_it_is_401(deriv, agent):
    anonymous = Caller(deriv.address, "demo-rest-agent-token", app_id="").transfer()
    del agent.http.headers["Authorization"]

    assert anonymous.status_code == agent.transfer().status_code == 401
    assert moved(deriv) == []


def test_a_token_without_the_scope_is_answered_403(deriv, agent):
    deriv._customers({"nickname": "jane", "token": "narrow", "scopes": ["payment"]})
    narrow = Caller(deriv.address, "narrow")

    assert narrow.get("/wallet/v1/wallets").status_code == 200
    answer = narrow.get("/account/v1/nickname")
    assert (answer.status_code, code_of(answer)) == (403, "InputError")
    assert agent.get("/account/v1/nickname").status_code == 403


def test_a_revoked_token_stops_at_once(deriv, jane):
    deriv._customers({"nickname": "jane", "token": None})

    assert jane.get("/wallet/v1/wallets").status_code == 401


def test_sixty_requests_a_minute_and_a_token_are_served_and_the_next_refused():
    simulator = DerivSimulator()
    with serving(simulator.app) as address:
        agent = Caller(address, "demo-rest-agent-token")
        answers = [agent.status("transfer", "none").status_code for _ in range(61)]
        refused = agent.transfer()
        simulator.clock.advance(60)
        later = agent.status("transfer", "none")

    assert answers == [400] * 60 + [429]
    assert (refused.status_code, code_of(refused)) == (429, "RateLimit")
    assert later.status_code == 400


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("DELETE", f"{AGENTS}/transfer"), ("GET", "/wallet/v1/x")]
)
def test_what_does_not_exist_is_404(agent, method, path):
    assert agent.http.request(method, path).status_code == 404


# --- transfers --------------------------------------------------------------------------------------------------------


def test_a_transfer_is_complete_in_the_first_answer(deriv, agent):
    done = agent.transfer(notes="PP ABC").json()["data"]

    assert done["status"] == "complete"
    assert (done["client_real_name"], done["client_is_agent"]) == (None, False)
    assert moved(deriv) == PAID
    assert agent.status("transfer", "t1").json()["data"] == {
        "status": "complete",
        "transaction_id": done["transaction_id"],
    }


def test_a_request_id_pays_once_whatever_comes_with_it(deriv, agent):
    agent.transfer()
    again = [agent.transfer(), agent.transfer(amount="3.00"), agent.transfer(to_nickname="nobody")]

    assert [code_of(answer) for answer in again] == ["RequestIDUsed"] * 3
    assert moved(deriv) == PAID


def test_without_a_request_id_every_call_pays(deriv, agent):
    assert [agent.transfer(request_id=None).status_code for _ in range(2)] == [200, 200]
    assert len(moved(deriv)) == 2


def test_request_ids_are_each_callers_own_and_each_operations_own(deriv, agent, jane, code):
    deriv._customers({"agent_id": 7002, "name": "OTHER", "balance": "100.00", "token": "other"})
    agent.transfer("same")

    assert Caller(deriv.address, "other").transfer("same").status_code == 200
    assert jane.withdraw(code, "same").status_code == 200


def test_a_dry_run_checks_everything_and_moves_nothing(deriv, agent):
    agent.transfer()
    dry = agent.transfer(dry_run=True)

    assert dry.json()["data"]["status"] == "dry_run_ok"
    assert dry.json()["data"]["transaction_id"] is None
    assert code_of(agent.transfer("t2", dry_run=True, to_nickname="nobody")) == "NicknameNotFound"
    assert code_of(agent.status("transfer", "t2")) == "RequestIDNotFound"
    assert moved(deriv) == PAID


def test_the_real_name_is_told_only_when_the_customer_agreed(agent, jane):
    before = agent.transfer(dry_run=True).json()["data"]["client_real_name"]
    settings = jane.http.patch(f"{AGENTS}/clients/me", json={"data": {"show_real_name": True}}).json()["data"]

    assert before is None
    assert settings == {"deposit_enabled": True, "withdraw_enabled": True, "show_real_name": True}
    assert agent.transfer(dry_run=True).json()["data"]["client_real_name"] == "JANE DOE"


@pytest.mark.parametrize(
    ("change", "code_"),
    [
        ({"amount": 10.25}, "InvalidAmount"),
        ({"amount": "010.25"}, "InvalidAmount"),
        ({"amount": "10."}, "InvalidAmount"),
        ({"amount": "-1.00"}, "InvalidAmount"),
        ({"amount": "0.00"}, "InvalidAmount"),
        ({"amount": "1e3"}, "InvalidAmount"),
        ({"amount": "10.255"}, "InvalidAmount"),
        ({"amount": "10.25\n"}, "InvalidAmount"),
        ({"currency": "usd"}, "InvalidCurrency"),
        ({"currency": "EUR"}, "AgentCurrencyUnsupported"),
        ({"request_id": "a b"}, "InvalidRequestIDFormat"),
        ({"request_id": ""}, "InvalidRequestIDFormat"),
        ({"request_id": "x" * 129}, "InvalidRequestIDFormat"),
        ({"request_id": "é"}, "InvalidRequestIDFormat"),
        ({"to_nickname": None}, "InputError"),
        ({"to_nickname": 5}, "InputError"),
        ({"dry_run": 1}, "InputError"),
        ({"unknown": 1}, "InputError"),
        ({"to_nickname": "nobody"}, "NicknameNotFound"),
        ({"to_nickname": "penpay-7001"}, "AgentSelfTransfer"),
        ({"amount": "0.99"}, "WithdrawalAmountMinimum"),
        ({"amount": "2000.01"}, "WithdrawalAmountMaximum"),
    ],
)
def test_a_wrong_transfer_is_refused_and_moves_nothing(deriv, agent, change, code_):
    answer = agent.transfer(**change)

    assert (answer.status_code, code_of(answer)) == (400, code_)
    assert moved(deriv) == []


@pytest.mark.parametrize(
    ("who", "order", "code_"),
    [
        ({"nickname": "jane"}, {"status": ["no_wallet"]}, "NoClientWallet"),
        ({"nickname": "jane"}, {"status": ["disabled"]}, "WalletDisabled"),
        ({"nickname": "jane"}, {"status": ["deposit_disabled"]}, "ClientDepositDisabled"),
        ({"nickname": "jane"}, {"residence": "tz"}, "ClientCountryUnsupported"),
        ({"nickname": "jane"}, {"currency": "EUR"}, "TransferAgentCurrencyUnsupported"),
        ({"agent_id": 7001}, {"status": ["disabled"]}, "AgentInactive"),
        ({"agent_id": 7001}, {"status": ["temporarily_disabled"]}, "AgentWithdrawDisabled"),
        ({"agent_id": 7001}, {"daily_count": 0}, "DailyTransferCountLimit"),
        ({"agent_id": 7001}, {"daily_amount": 10_00}, "DailyTransferAmountLimit"),
        ({"agent_id": 7001}, {"deposit": "-99995.00"}, "WalletFundsInsufficient"),
    ],
)
def test_what_stands_in_the_way_of_a_transfer_has_a_code_of_its_own(deriv, agent, who, order, code_):
    deriv._customers({**who, **order})

    assert code_of(agent.transfer()) == code_of(agent.transfer(dry_run=True)) == code_
    assert moved(deriv) == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"data": 1}', b'{"data": {}, "more": 1}', b"[" * 100_000])
def test_a_body_that_is_none_is_refused(agent, body):
    answer = agent.http.post(f"{AGENTS}/transfer", content=body, headers={"Content-Type": "application/json"})

    assert (answer.status_code, code_of(answer)) == (400, "InputError")


def test_a_refusal_leaves_the_request_id_free_or_uses_it_up_as_deriv_is_set(deriv, agent):
    agent.transfer(to_nickname="nobody")
    assert agent.transfer().status_code == 200

    deriv.refusal_burns_request_id = True
    agent.transfer("t2", to_nickname="nobody")
    assert code_of(agent.transfer("t2")) == "RequestIDUsed"
    assert agent.status("transfer", "t2").json()["data"] == {"status": "rejected", "transaction_id": None}


def test_a_customer_is_no_agent(jane, deriv):
    assert code_of(jane.transfer(to_nickname="penpay-7001")) == "AgentIDNotFound"
    assert moved(deriv) == []


# --- status -----------------------------------------------------------------------------------------------------------


def test_only_who_it_concerns_sees_a_transfer(deriv, agent, jane):
    deriv._customers({"nickname": "john", "token": "john-token"})
    agent.transfer()

    assert jane.status("transfer", "t1").json()["data"]["status"] == "complete"
    assert code_of(Caller(deriv.address, "john-token").status("transfer", "t1")) == "RequestIDNotFound"
    assert code_of(agent.status("withdraw", "t1")) == "RequestIDNotFound"


def test_only_the_customer_sees_a_withdrawal(agent, jane, code):
    jane.withdraw(code)

    assert jane.status("withdraw", "w1").status_code == 200
    assert code_of(agent.status("withdraw", "w1")) == "RequestIDNotFound"


def test_a_request_id_that_breaks_the_pattern_is_told_apart_from_an_unknown_one(agent):
    assert code_of(agent.status("transfer", "a%20b")) == "InvalidRequestIDFormat"
    assert code_of(agent.status("transfer", "unknown")) == "RequestIDNotFound"


def test_a_new_request_is_not_known_at_once_where_deriv_takes_its_time(deriv, agent):
    deriv.propagation_s = 20
    agent.transfer()

    assert code_of(agent.status("transfer", "t1")) == "RequestIDNotFound"
    assert code_of(agent.transfer()) == "RequestIDUsed"
    deriv.clock.advance(20)
    assert agent.status("transfer", "t1").json()["data"]["status"] == "complete"


# --- codes and withdrawals --------------------------------------------------------------------------------------------


def test_a_withdrawal_starts_pending_and_completes_later(deriv, agent, jane, code):
    first = jane.withdraw(code, notes="thanks").json()["data"]
    in_wallet = agent.entries()[0]["metadata"]["transaction_status"]
    wait_until(lambda: jane.status("withdraw", "w1").json()["data"]["status"] == "complete")

    assert first == {"status": "pending", "transaction_id": None}
    assert in_wallet == "pending"
    assert jane.status("withdraw", "w1").json()["data"]["transaction_id"] == jane.entries("main")[0]["transaction_id"]
    assert moved(deriv) == WITHDRAWN


def test_a_pending_withdrawal_has_left_the_customer_and_not_reached_the_agent(deriv, agent, jane, code):
    deriv.pending_s = 1000
    jane.withdraw(code)

    assert jane.data("/wallet/v1/wallets")[0]["balances"] == {"USD": "45.00"}
    assert agent.data("/wallet/v1/wallets")[0]["balances"] == {"USD": "100000.00"}
    assert moved(deriv) == []


def test_a_code_says_how_long_it_is_good_and_when_the_next_may_come(deriv, jane):
    deriv.codes.pause_s = 60
    now = deriv.clock().timestamp()
    sent = jane.ask_code().json()["data"]
    soon = jane.ask_code().json()["errors"][0]

    assert now < sent["next_request_at"] < sent["expires_at"]
    assert soon["code"] == "OtpRateLimitExceeded"
    assert soon["detail"]["next_request_at"] == sent["next_request_at"]
    assert len(deriv.last_code("jane")) == 6


def test_the_next_code_ends_the_one_before(deriv, jane):
    jane.ask_code()
    first = deriv.last_code("jane")
    deriv.clock.advance(60)
    assert jane.ask_code().status_code == 200

    assert code_of(jane.withdraw(first)) == "InvalidOTP"
    assert jane.withdraw(deriv.last_code("jane"), "w2").status_code == 200


@pytest.mark.parametrize("change", [{"amount": "5.01"}, {"agent_id": 7002}, {"currency": "EUR"}])
def test_a_code_is_bound_to_agent_amount_and_currency_and_used_up_by_trying_another(deriv, jane, code, change):
    deriv._customers({"agent_id": 7002, "name": "OTHER", "token": "other"})

    assert code_of(jane.withdraw(code, **change)) == "OTPValidationFailed"
    assert code_of(jane.withdraw(code)) == "InvalidOTP"
    assert moved(deriv) == []


def test_wrong_foreign_and_expired_codes_are_refused(deriv, jane, code):
    deriv._customers({"nickname": "john", "token": "john-token", "balance": "50.00"})
    wrong = f"{(int(code) + 1) % 10**6:06d}"

    refused = [jane.withdraw(wrong), Caller(deriv.address, "john-token").withdraw(code)]
    deriv.clock.advance(600)
    refused.append(jane.withdraw(code))

    assert [code_of(answer) for answer in refused] == ["InvalidOTP"] * 3
    assert moved(deriv) == []


@pytest.mark.parametrize("form", ["12345", "1234567", "abcdef", 123456, "١٢٣٤٥٦"])
def test_a_code_that_is_not_six_digits_is_refused_without_a_look(jane, form):
    assert code_of(jane.withdraw(form)) == "VerificationCodeFormatInvalid"


def test_after_five_wrong_codes_the_good_one_is_not_looked_at_either(deriv, jane, code):
    for _ in range(5):
        jane.withdraw(f"{(int(code) + 1) % 10**6:06d}")

    assert code_of(jane.withdraw(code)) == "OtpValidationRateLimitExceeded"
    assert moved(deriv) == []


def test_a_repeated_withdrawal_fails_by_its_request_id_or_by_its_code_as_deriv_is_set(deriv, jane, code):
    jane.withdraw(code)
    assert code_of(jane.withdraw(code)) == "RequestIDUsed"

    deriv.code_before_request_id = True
    assert code_of(jane.withdraw(code)) == "InvalidOTP"


@pytest.mark.parametrize(
    ("who", "order", "code_"),
    [
        ({"nickname": "jane"}, {"behaviours": ["withdrawal_locked"]}, "ClientWithdrawDisabled"),
        ({"nickname": "jane"}, {"behaviours": ["PaymentAgentJustification"]}, "ClientWithdrawDisabled"),
        ({"nickname": "jane"}, {"daily_withdrawals": 0}, "DailyWithdrawalCountLimit"),
        ({"nickname": "jane"}, {"daily_amount": 4_99}, "DailyWithdrawalAmountLimit"),
        ({"nickname": "jane"}, {"deposit": "-46.00"}, "WalletFundsInsufficient"),
        ({"agent_id": 7001}, {"status": ["deposit_disabled"]}, "AgentDepositDisabled"),
        ({"agent_id": 7001}, {"least": 5_01}, "WithdrawalAmountMinimum"),
        ({"agent_id": 7001}, {"most": 4_99}, "WithdrawalAmountMaximum"),
    ],
)
def test_what_stands_in_the_way_of_a_withdrawal_has_a_code_of_its_own(deriv, jane, code, who, order, code_):
    deriv._customers({**who, **order})

    assert code_of(jane.withdraw(code)) == code_
    assert code_of(jane.withdraw(code)) == "InvalidOTP"  # used up by the attempt that failed
    assert moved(deriv) == []


@pytest.mark.parametrize("agent_id", [0, -1, "7001", True, 4242])
def test_an_agent_that_is_none_gets_no_code_sent(jane, deriv, agent_id):
    assert code_of(jane.ask_code(agent_id=agent_id)) == "InvalidAgentID"
    assert deriv.last_code("jane") == ""


def test_an_agent_cannot_withdraw_to_itself(deriv, agent):
    agent.ask_code()

    assert code_of(agent.withdraw(deriv.last_code("penpay-7001"))) == "AgentSelfWithdraw"


# --- what can be read -------------------------------------------------------------------------------------------------


def test_both_wallets_show_a_payment_under_ids_of_their_own(agent, jane):
    agent.transfer()
    (ours,), (theirs,) = agent.entries(), jane.entries("main")
    profile = jane.data("/account/v1/nickname")

    assert ours["transaction_id"] != theirs["transaction_id"]
    assert (ours["category"], theirs["category"]) == ("withdrawal", "deposit")
    assert ours["request_id"] == "t1"
    assert ours["metadata"]["destination_client_id"] == profile["external_reference_id"]
    assert ours["metadata"]["transaction_net_amount"] == "10.25"
    assert profile["nickname"] == "jane"


def test_the_agent_may_not_see_the_customers_request_id(deriv, agent, jane, code):
    deriv.request_id_in_agents_wallet = False
    jane.withdraw(code)

    assert agent.entries()[0]["request_id"] != "w1"
    assert jane.entries("main")[0]["request_id"] == "w1"


def test_a_wallet_is_read_page_by_page_newest_first(agent):
    for number in range(101):
        agent.transfer(f"t{number}", amount="1.00")
    first = agent.get("/wallet/v1/transactions/payment_agent").json()
    second = agent.http.get(first["links"]["next"]).json()

    seen = [entry["request_id"] for page in (first, second) for entry in page["data"]["transactions"]]
    assert len(first["data"]["transactions"]) == 100
    assert seen[:101] == [f"t{number}" for number in reversed(range(101))]
    assert "next" not in second.get("links", {}) or second["links"]["next"] is None


def test_a_wallet_is_filtered(deriv, agent):
    agent.transfer("t1")
    deriv.clock.advance(100)
    agent.transfer("t2")
    middle = deriv.clock() - timedelta(seconds=50)

    assert [entry["request_id"] for entry in agent.entries(request_id="t1")] == ["t1"]
    assert [entry["request_id"] for entry in agent.entries(start_date_time=middle.isoformat())] == ["t2"]
    assert [entry["request_id"] for entry in agent.entries(end_date_time=int(middle.timestamp()))] == ["t1"]
    assert agent.entries(transaction_currency="EUR") == agent.entries("main") == []


@pytest.mark.parametrize(
    "query",
    [{"per_page": "99"}, {"per_page": "x"}, {"page_cursor": "?"}, {"start_date_time": "soon"}, {"unknown": "1"},
     {"transaction_currency": "usd"}],
)  # fmt: skip
def test_a_wrong_filter_is_refused(agent, query):
    assert agent.get("/wallet/v1/transactions/payment_agent", **query).status_code == 400


def test_money_from_outside_has_a_channel_of_its_own(jane):
    (entry,) = jane.data("/wallet/v1/transactions/main")["transactions"]

    assert (entry["channel"], entry["category"]) == ("cashier", "deposit")
    assert datetime.fromisoformat(entry["timestamp"]) <= datetime.now(UTC)


def test_agents_are_listed_and_the_own_profile_says_more(agent, jane):
    (listed,) = jane.data(f"{AGENTS}/agents", currency="USD", country="ke")
    own, seen = agent.data(f"{AGENTS}/agents/me"), jane.data(f"{AGENTS}/agents/7001")

    assert listed["id"] == own["id"] == 7001
    assert (own["withdrawal_minimum"], own["withdrawal_maximum"]) == ("1.00", "2000.00")
    assert own["currencies"][0]["currency"] == "USD"
    assert own["deposit_enabled"] is True
    assert "deposit_enabled" not in seen
    assert jane.data(f"{AGENTS}/agents", currency="USD", country="tz") == []
    assert jane.data(f"{AGENTS}/agent-statistics") == {"available_countries": ["ke"], "available_currencies": ["USD"]}


def test_an_unknown_agent_is_404_and_a_wrong_id_400(jane):
    assert jane.get(f"{AGENTS}/agents/4242").status_code == jane.get(f"{AGENTS}/agents/me").status_code == 404
    assert code_of(jane.get(f"{AGENTS}/agents/x1")) == "InvalidAgentID"


def test_tokens_and_codes_are_in_no_repr(deriv, code):
    told = repr(deriv) + repr(deriv.codes) + repr(deriv.bank.accounts)

    assert "token" not in told.replace("tokens", "")
    assert code not in told
