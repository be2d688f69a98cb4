"""What the simulated REST API does wrong: answers lost before and after the effect, late ones, states that last."""

import httpx
import pytest

from deriv_integration.simulator.server import DerivSimulator
from deriv_integration.tests.callers import Caller, a_rest_deriv, code_of, wait_until
from shared_kernel.simulator import serving

PAID = [("7001", "jane", "10.25", "t1", "complete")]
WITHDRAWN = [("jane", "7001", "5.00", "w1", "complete")]


@pytest.fixture
def deriv():
    """Withdrawals take ten seconds of Deriv's clock."""
    with a_rest_deriv(pending_s=10) as served:
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


def arm(deriv, fault, call="transfer", **options):
    deriv.faults.arm({"call": call, "fault": fault, "count": 1, **options})


@pytest.mark.parametrize(
    ("fault", "status", "booked"),
    [
        ("http_500_before", 500, False),
        ("http_500_after", 500, True),
        ("http_504_before", 504, False),
        ("http_504_after", 504, True),
        ("request_timeout_before", 504, False),
        ("request_timeout_after", 504, True),
        ("wrong_response_before", 502, False),
        ("wrong_response_after", 502, True),
        ("rate_limited", 429, False),
        ("token_superseded", 401, False),
        ("float_low", 400, False),
    ],
)
def test_the_http_status_says_nothing_of_whether_it_was_booked(deriv, agent, fault, status, booked):
    arm(deriv, fault)

    assert agent.transfer().status_code == status
    assert moved(deriv) == (PAID if booked else [])


@pytest.mark.parametrize(
    ("call", "code_"),
    [("transfer", "TransferFailed"), ("withdraw", "WithdrawalFailed"), ("code", "VerificationCodeRequestFailed")],
)
def test_a_500_carries_the_operations_own_code(deriv, agent, jane, code, call, code_):
    deriv.clock.advance(60)
    arm(deriv, "http_500_before", call)
    answer = {"transfer": agent.transfer, "withdraw": lambda: jane.withdraw(code), "code": jane.ask_code}[call]()

    assert (answer.status_code, code_of(answer)) == (500, code_)


@pytest.mark.parametrize("name", ["lost_answer", "drop_socket"])
@pytest.mark.parametrize(("when", "booked"), [("before", False), ("after", True)])
def test_the_connection_may_be_reset_and_the_same_request_id_goes_again_without_harm(deriv, agent, name, when, booked):
    arm(deriv, f"{name}_{when}_effect")
    with pytest.raises(httpx.TransportError):
        agent.transfer()

    again = agent.transfer()
    assert (again.status_code, booked) in {(200, False), (400, True)}
    assert moved(deriv) == PAID


def test_a_withdrawal_whose_answer_was_lost_is_there_with_its_code_used_up(deriv, jane, code):
    arm(deriv, "lost_answer_after_effect", "withdraw")
    with pytest.raises(httpx.TransportError):
        jane.withdraw(code)

    assert jane.status("withdraw", "w1").json()["data"]["status"] == "pending"
    deriv.clock.advance(10)
    assert moved(deriv) == WITHDRAWN
    assert code_of(jane.withdraw(code, "w2")) == "InvalidOTP"


def test_what_timed_out_may_be_booked_later(deriv, agent):
    arm(deriv, "late_commit", after_s=30)

    assert agent.transfer().status_code == 504
    assert code_of(agent.status("transfer", "t1")) == "RequestIDNotFound"
    deriv.clock.advance(30)
    assert agent.status("transfer", "t1").json()["data"]["status"] == "complete"
    assert moved(deriv) == PAID


def test_what_is_booked_late_is_not_booked_twice_when_the_same_id_went_again(deriv, agent):
    arm(deriv, "late_commit", after_s=30)
    agent.transfer()
    assert agent.transfer().status_code == 200

    deriv.clock.advance(30)
    assert moved(deriv) == PAID


@pytest.mark.parametrize(("fault", "wait_s"), [("pending", 5), ("pending_long", 500)])
def test_a_transfer_may_be_pending_for_a_while(deriv, agent, fault, wait_s):
    arm(deriv, fault, after_s=wait_s)

    assert agent.transfer().json()["data"]["status"] == "pending"
    deriv.clock.advance(wait_s - 2)
    assert agent.status("transfer", "t1").json()["data"] == {"status": "pending", "transaction_id": None}
    deriv.clock.advance(3)
    assert agent.status("transfer", "t1").json()["data"]["status"] == "complete"
    assert moved(deriv) == PAID


def test_a_request_may_be_seen_before_it_is_even_pending(deriv, agent):
    arm(deriv, "pending_long", status="requested")
    agent.transfer()

    assert agent.status("transfer", "t1").json()["data"]["status"] == "requested"
    assert agent.entries()[0]["metadata"]["transaction_status"] == "pending"


def test_what_is_never_final_ends_only_by_order(deriv, jane, code):
    arm(deriv, "never_final", "withdraw")
    jane.withdraw(code)
    deriv.clock.advance(10**6)
    assert jane.status("withdraw", "w1").json()["data"]["status"] == "pending"

    jane.http.post("/_control/payments", json={"request_id": "w1", "status": "failed"})
    assert jane.status("withdraw", "w1").json()["data"]["status"] == "failed"
    assert moved(deriv) == []


@pytest.mark.parametrize(("fault", "shown"), [("rejected", "cancelled"), ("failed", "failed")])
def test_what_was_accepted_may_be_decided_against_and_the_payer_has_it_back(deriv, agent, jane, code, fault, shown):
    arm(deriv, fault, "withdraw")
    assert jane.withdraw(code).json()["data"]["status"] == "pending"
    deriv.clock.advance(10)

    assert jane.status("withdraw", "w1").json()["data"] == {"status": fault, "transaction_id": None}
    assert agent.entries()[0]["metadata"]["transaction_status"] == shown
    assert jane.data("/wallet/v1/wallets")[0]["balances"] == {"USD": "50.00"}
    assert moved(deriv) == []


def test_a_final_state_may_have_no_transaction_id(deriv, agent):
    arm(deriv, "null_transaction_id")

    assert agent.transfer().json()["data"]["transaction_id"] is None
    assert agent.status("transfer", "t1").json()["data"] == {"status": "complete", "transaction_id": None}
    assert agent.entries()[0]["transaction_id"] > 0


def test_a_request_may_not_be_known_for_a_while_and_yet_be_used(deriv, agent):
    arm(deriv, "not_found_for", after_s=90)
    agent.transfer()

    assert code_of(agent.status("transfer", "t1")) == "RequestIDNotFound"
    assert code_of(agent.transfer()) == "RequestIDUsed"
    deriv.clock.advance(90)
    assert agent.status("transfer", "t1").json()["data"]["status"] == "complete"


def test_a_wallet_may_show_a_payment_late(deriv, agent, jane, code):
    arm(deriv, "hidden_in_wallet", "withdraw", after_s=60)
    jane.withdraw(code)
    assert agent.entries(request_id="w1") == []

    deriv.clock.advance(60)
    assert agent.entries(request_id="w1")[0]["metadata"]["transaction_status"] == "complete"


def test_what_is_complete_may_be_reverted_in_the_wallet_while_the_status_call_says_nothing(deriv, agent, jane, code):
    arm(deriv, "reverted_later", "withdraw", after_s=3600)
    jane.withdraw(code)
    deriv.clock.advance(3599)
    assert agent.entries()[0]["metadata"]["transaction_status"] == "complete"
    deriv.clock.advance(1)

    assert agent.entries()[0]["metadata"]["transaction_status"] == "reverted"
    assert jane.status("withdraw", "w1").json()["data"]["status"] == "complete"
    assert moved(deriv) == [(*WITHDRAWN[0][:4], "reverted")]
    assert jane.data("/wallet/v1/wallets")[0]["balances"] == {"USD": "50.00"}


def test_one_request_may_be_booked_twice(deriv, agent):
    arm(deriv, "double_booking")
    agent.transfer()

    assert moved(deriv) == PAID * 2
    assert [entry["request_id"] for entry in agent.entries()] == ["t1", "t1"]


def test_the_newest_outgoing_entry_may_be_missing_as_long_as_it_is_armed(deriv, agent):
    agent.transfer()
    deriv.faults.arm({"call": "wallet", "fault": "statement_gap"})
    assert agent.entries() == []

    deriv.faults.clear()
    assert len(agent.entries()) == 1


@pytest.mark.parametrize("fault", ["wrong_response_before", "http_504_before", "http_500_before", "rate_limited"])
def test_books_may_be_unreadable(deriv, agent, fault):
    arm(deriv, fault, "wallet")
    arm(deriv, fault, "status")

    assert agent.get("/wallet/v1/wallets").status_code >= 429
    assert agent.status("transfer", "t1").status_code >= 429


def test_links_may_be_missing_where_pages_follow(deriv, agent):
    for number in range(101):
        agent.transfer(f"t{number}", amount="1.00")
    arm(deriv, "missing_links", "wallet")

    assert "links" not in agent.get("/wallet/v1/transactions/payment_agent").json()


def test_deriv_may_be_down(deriv, agent):
    deriv.faults.arm({"fault": "down"})
    assert agent.transfer().status_code == 503

    deriv.faults.clear()
    assert agent.transfer().status_code == 200
    assert moved(deriv) == PAID


def test_any_error_can_be_ordered_with_or_without_its_effect(deriv, agent):
    arm(deriv, "error", code="Whatever", status=418, message="tea")
    before = agent.transfer()
    arm(deriv, "error_after", code="Odd")
    after = agent.transfer()

    assert (before.status_code, code_of(before)) == (418, "Whatever")
    assert (after.status_code, code_of(after)) == (500, "Odd")
    assert moved(deriv) == PAID


def test_a_slow_answer_holds_up_nobody_else(deriv, agent, jane):
    arm(deriv, "slow", after_s=0.5)
    with pytest.raises(httpx.ReadTimeout):
        agent.http.post(
            "/payment-agents/v1/transfer",
            json={"data": {"to_nickname": "jane", "amount": "10.25", "currency": "USD", "request_id": "t1"}},
            timeout=0.1,
        )
    assert jane.get("/wallet/v1/wallets").status_code == 200
    wait_until(lambda: moved(deriv) == PAID)


@pytest.mark.parametrize("narrow", [{"request_id": "t2"}, {"transfer_to": "john"}, {"platform": "ws_v3"}])
def test_a_fault_strikes_only_the_call_that_it_was_armed_for(deriv, agent, narrow):
    arm(deriv, "http_500_before", **narrow)

    assert agent.transfer().status_code == 200


def test_a_fault_armed_for_one_request_id_strikes_it_in_body_and_path(deriv, agent):
    deriv.faults.arm({"fault": "http_500_before", "request_id": "t1"})

    assert agent.transfer().status_code == agent.status("transfer", "t1").status_code == 500
    assert agent.transfer("t2").status_code == 200


def test_the_control_side_serves_faults_books_settings_and_reset(deriv, agent):
    control = agent.http
    control.post(
        "/_control/faults", json={"call": "transfer", "fault": "http_500_after", "platform": "rest", "count": 1}
    )
    failed = agent.transfer()
    settings = control.post("/_control/settings", json={"pending_s": 1, "propagation_s": 9, "limits": True})
    books = control.get("/_control/books").json()
    control.post("/_control/reset")

    assert failed.status_code == 500
    assert (settings.status_code, deriv.propagation_s) == (200, 9)
    assert [movement["request_id"] for movement in books] == ["t1"]
    assert control.get("/_control/books").json() == []
    assert agent.transfer().json()["errors"][0]["code"] == "NicknameNotFound"
    assert control.post("/_control/faults", json={"fault": "down", "platform": "smtp"}).status_code == 400


def test_the_same_seed_fails_in_the_same_way():
    def run():
        simulator = DerivSimulator(limits=False, seed=7)
        simulator._customers({"nickname": "jane", "name": "JANE", "token": "jane-token"})
        simulator.faults.arm({"call": "transfer", "fault": "http_500_after", "probability": 0.5})
        with serving(simulator.app) as address:
            agent = Caller(address, "demo-rest-agent-token")
            return [agent.transfer(f"t{number}").status_code for number in range(12)]

    first = run()
    assert first == run()
    assert set(first) == {200, 500}
