"""Withdrawals at the simulated v3: codes, refusals, both sides of the statement, faults, moved customers."""

import json

import pytest
from websockets.exceptions import ConnectionClosed

from deriv_integration.simulator.rules import ASK_FIRST
from deriv_integration.simulator.server import DerivSimulator
from deriv_integration.tests.callers import Caller, Client, a_client, against_schema, code_of, wait_until
from deriv_integration.tests.fixtures import AGENT
from shared_kernel.simulator import serving

MAIL = {"verify_email": "jane@example.com", "type": "paymentagent_withdraw"}
WITHDRAW = {
    "paymentagent_withdraw": 1,
    "amount": 10.25,
    "currency": "USD",
    "paymentagent_loginid": AGENT,
    "description": "PP ABC",
}
TRANSFER = {"paymentagent_transfer": 1, "amount": 10.25, "currency": "USD", "transfer_to": "CR100001"}


@pytest.fixture
def jane(deriv_simulator):
    with a_client(deriv_simulator.address, "jane-token") as client:
        yield client


@pytest.fixture
def agent(deriv_simulator):
    with a_client(deriv_simulator.address, "demo-agent-token") as client:
        yield client


@pytest.fixture
def code(jane, deriv_simulator):
    """A good one, as Jane finds it in her mail."""
    jane.ask(**MAIL)
    return deriv_simulator.simulator.last_code("CR100001")


def moved(deriv_simulator):
    return [(m["from"], m["to"], m["amount"], m["status"]) for m in deriv_simulator.simulator.control.books()]


PAID = [("CR100001", AGENT, "10.25", "complete")]


@pytest.mark.parametrize(
    "request_",
    [
        MAIL,
        {**MAIL, "url_parameters": {"pa_amount": 10.25, "pa_currency": "USD", "pa_loginid": AGENT}},
        {**MAIL, "verify_email": "nobody@example.com"},
        {**WITHDRAW, "verification_code": "goodcode"},
        {**WITHDRAW, "verification_code": "goodcode", "dry_run": 1},
        {"paymentagent_withdraw_justification": 1, "message": "why not"},
        {"paymentagent_list": "ke"},
        {"paymentagent_list": "ke", "currency": "USD"},
    ],
)
def test_requests_and_answers_fit_the_schemas(jane, request_):
    call = next(iter(request_))
    against_schema(call, "send", request_)

    answer = jane.ask(**request_, req_id=7, passthrough={"a": 1})

    against_schema(call, "receive", answer)
    assert (answer["msg_type"], answer["req_id"]) == (call, 7)
    assert (call in answer) is not ("error" in answer)


def test_the_code_that_was_mailed_moves_the_money_and_the_answer_fits_the_schema(jane, code, deriv_simulator):
    done = jane.ask(**WITHDRAW, verification_code=code)

    against_schema("paymentagent_withdraw", "receive", done)
    assert (done["paymentagent_withdraw"], done["paymentagent_name"]) == (1, "PenPay")
    assert code not in json.dumps(done)
    assert moved(deriv_simulator) == PAID
    assert jane.ask(balance=1)["balance"]["balance"] == 39.75


def test_both_sides_see_it_under_ids_of_their_own_with_the_customers_note(jane, agent, code):
    done = jane.ask(**WITHDRAW, verification_code=code)
    theirs = jane.ask(statement=1, description=1)["statement"]["transactions"][0]
    ours = agent.ask(statement=1, description=1, action_type="deposit")["statement"]["transactions"][0]

    assert done["transaction_id"] == theirs["transaction_id"] != ours["transaction_id"]
    assert (theirs["action_type"], theirs["amount"]) == ("withdrawal", -10.25)
    assert (ours["action_type"], ours["amount"]) == ("deposit", 10.25)
    assert ours["longcode"] == theirs["longcode"]
    assert ours["longcode"].startswith(
        f"Transfer from CR100001 to Payment Agent PenPay ({AGENT}) Transaction reference: "
    )
    assert ours["longcode"].endswith("GMT. Client note: PP ABC")


def test_the_books_name_the_movement_once_and_the_agents_entry(jane, agent, code, deriv_simulator):
    jane.ask(**WITHDRAW, verification_code=code)

    (movement,) = deriv_simulator.simulator.control.books()
    ours = agent.ask(statement=1, limit=1)["statement"]["transactions"][0]
    assert movement["reference"] == "PP ABC"
    assert (movement["kind"], movement["platform"]) == ("withdrawal", "ws_v3")
    assert movement["agent_entry"] == str(ours["transaction_id"]) != movement["id"]


def test_a_dry_run_neither_checks_the_code_nor_uses_it_up(jane, code, deriv_simulator):
    wrong = jane.ask(**WITHDRAW, verification_code="anything", dry_run=1)
    right = jane.ask(**WITHDRAW, verification_code=code, dry_run=1)

    assert wrong["paymentagent_withdraw"] == right["paymentagent_withdraw"] == 2
    assert "transaction_id" not in right
    assert moved(deriv_simulator) == []
    assert jane.ask(**WITHDRAW, verification_code=code)["paymentagent_withdraw"] == 1


def test_a_code_is_good_once(jane, code, deriv_simulator):
    jane.ask(**WITHDRAW, verification_code=code)

    assert jane.error(**WITHDRAW, verification_code=code)["code"] == "InvalidToken"
    assert moved(deriv_simulator) == PAID


def test_an_attempt_that_fails_uses_the_code_up(jane, code, deriv_simulator):
    assert "insufficient" in jane.error(**{**WITHDRAW, "amount": 50.01}, verification_code=code)["message"]

    assert jane.error(**WITHDRAW, verification_code=code)["code"] == "InvalidToken"
    assert moved(deriv_simulator) == []


def test_what_the_gateway_refuses_leaves_the_code_good(jane, code, deriv_simulator):
    assert jane.error(**{**WITHDRAW, "amount": "1"}, verification_code=code)["code"] == "InputValidationFailed"
    deriv_simulator.arm("rate_limited", call="paymentagent_withdraw", count=1)
    assert jane.error(**WITHDRAW, verification_code=code)["code"] == "RateLimit"

    assert jane.ask(**WITHDRAW, verification_code=code)["paymentagent_withdraw"] == 1


def test_wrong_expired_foreign_and_other_codes_are_refused(jane, code, deriv_simulator):
    simulator = deriv_simulator.simulator
    deriv_simulator.customer("CR100002", name="JOHN ROE", token="john-token", balance="50.00")
    jane.ask(verify_email="jane@example.com", type="reset_password")
    other_purpose = simulator.last_code("CR100001")
    with a_client(deriv_simulator.address, "john-token") as john:
        foreign = john.error(**WITHDRAW, verification_code=code)
    refused = [jane.error(**WITHDRAW, verification_code=tried) for tried in ("aaaaaaaa", other_purpose)]
    simulator.clock.advance(3600)
    expired = jane.error(**WITHDRAW, verification_code=code)

    assert {error["code"] for error in (foreign, *refused, expired)} == {"InvalidToken"}
    assert moved(deriv_simulator) == []


@pytest.mark.parametrize(
    ("change", "code_"),
    [
        ({"verification_code": "short"}, "InputValidationFailed"),
        ({"verification_code": None}, "InputValidationFailed"),
        ({"paymentagent_loginid": None}, "InputValidationFailed"),
        ({"description": "PP: ABC"}, "InputValidationFailed"),
        ({"transfer_to": "CR1"}, "InputValidationFailed"),
        ({"amount": 10.255}, "PaymentAgentWithdrawError"),
        ({"amount": 0.5}, "PaymentAgentWithdrawError"),
        ({"amount": 0}, "PaymentAgentWithdrawError"),
        ({"amount": -5}, "PaymentAgentWithdrawError"),
        ({"amount": 50.01}, "PaymentAgentWithdrawError"),
        ({"currency": "EUR"}, "PaymentAgentWithdrawError"),
        ({"paymentagent_loginid": "CR424242"}, "PaymentAgentWithdrawError"),
        ({"paymentagent_loginid": "CR100001"}, "PaymentAgentWithdrawError"),
    ],
)
def test_a_wrong_withdrawal_is_refused_and_moves_nothing(jane, code, deriv_simulator, change, code_):
    request = {**WITHDRAW, "verification_code": code, **change}
    request = {key: value for key, value in request.items() if value is not None}

    assert jane.error(**request)["code"] == code_
    assert moved(deriv_simulator) == []


@pytest.mark.parametrize("asked", sorted(ASK_FIRST))
def test_what_deriv_asks_of_the_customer_first_comes_before_the_code_and_before_the_money(
    jane, code, deriv_simulator, asked
):
    deriv_simulator.customer(behaviours=[asked])

    assert jane.error(**MAIL)["code"] == asked
    assert jane.error(**WITHDRAW, verification_code=code)["code"] == asked
    assert moved(deriv_simulator) == []


@pytest.mark.parametrize("status", ["disabled", "cashier_locked", "withdrawal_locked", "documents_expired"])
def test_a_customer_who_may_not_withdraw_is_refused(jane, code, deriv_simulator, status):
    deriv_simulator.customer(status=[status])

    assert jane.error(**WITHDRAW, verification_code=code)["code"] == "PaymentAgentWithdrawError"
    assert moved(deriv_simulator) == []


def test_a_justification_is_taken_once_and_then_deriv_decides(jane, deriv_simulator):
    deriv_simulator.customer(behaviours=["PaymentAgentJustification"])
    justify = {"paymentagent_withdraw_justification": 1, "message": "my bank is slow"}

    assert jane.ask(**justify)["paymentagent_withdraw_justification"] == 1
    assert jane.error(**justify)["code"] == "JustificationAlreadySubmitted"
    assert jane.error(**MAIL)["code"] == "PaymentAgentJustificationAdded"
    deriv_simulator.customer(behaviours=[])
    assert jane.ask(**MAIL)["verify_email"] == 1


def test_a_withdrawal_needs_the_customers_own_payments_scope(deriv_simulator):
    deriv_simulator.customer("CR7", name="X", token="reader", scopes=["read"])
    request = {**WITHDRAW, "verification_code": "goodcode"}

    with a_client(deriv_simulator.address) as stranger:
        assert stranger.error(**request)["code"] == "AuthorizationRequired"
    with a_client(deriv_simulator.address, "reader") as reader:
        assert reader.error(**request)["code"] == "PermissionDenied"


def test_asking_for_a_code_needs_no_login_and_tells_no_stranger_who_is_a_customer(deriv_simulator):
    with a_client(deriv_simulator.address) as stranger:
        known, unknown = stranger.ask(**MAIL), stranger.ask(**{**MAIL, "verify_email": "nobody@example.com"})

    assert known["verify_email"] == unknown["verify_email"] == 1
    assert len(deriv_simulator.simulator.codes.of("")) == 1


def test_the_daily_cap_of_a_customer_binds(jane, deriv_simulator):
    deriv_simulator.customer(daily_withdrawals=1)
    answers = []
    for _ in range(2):
        jane.ask(**MAIL)
        code = deriv_simulator.simulator.last_code("jane")
        answers.append(jane.ask(**WITHDRAW, verification_code=code))

    assert "exceeded the maximum allowable transactions" in answers[1]["error"]["message"]
    assert moved(deriv_simulator) == PAID


def test_the_customers_mail_can_be_read_on_the_control_side(jane, code, deriv_simulator):
    jane.ask(**WITHDRAW, verification_code=code)
    control = Caller(deriv_simulator.address, "nobody")

    (mail,) = control.get("/_control/codes", customer="CR100001").json()

    assert (mail["code"], mail["platform"], mail["used"]) == (code, "ws_v3", True)
    assert control.get("/_control/codes", customer="CR5").json() == []


def test_guards_and_the_budget_of_codes_are_on_by_default():
    simulator = DerivSimulator()
    simulator._customers({"loginid": "CR100001", "name": "JANE", "balance": "90.00", "token": "jane-token"})
    with serving(simulator.app) as address, a_client(address, "jane-token") as jane:
        mail = {**MAIL, "verify_email": "cr100001@example.com"}
        answers = []
        for _ in range(2):
            jane.ask(**mail)
            answers.append(jane.ask(**WITHDRAW, verification_code=simulator.last_code("CR100001")))
        codes = [jane.ask(**mail).get("error", {}).get("code") for _ in range(9)]

    assert answers[0]["paymentagent_withdraw"] == 1
    assert "Request too frequent" in answers[1]["error"]["message"]
    assert codes == [None] * 8 + ["RateLimit"]


# --- what Deriv does wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code_", "booked"),
    [
        ("wrong_response_before", "WrongResponse", False),
        ("wrong_response_after", "WrongResponse", True),
        ("request_timeout_before", "RequestTimeout", False),
        ("request_timeout_after", "RequestTimeout", True),
        ("http_500_before", "InternalServerError", False),
        ("http_500_after", "InternalServerError", True),
        ("error_after", "OutputValidationFailed", True),
        ("rate_limited", "RateLimit", False),
        ("float_low", "PaymentAgentWithdrawError", False),
        ("token_superseded", "InvalidToken", False),
    ],
)
def test_an_error_says_nothing_of_whether_it_was_booked(jane, code, deriv_simulator, fault, code_, booked):
    deriv_simulator.arm(fault, call="withdraw", count=1)

    assert jane.error(**WITHDRAW, verification_code=code)["code"] == code_
    assert moved(deriv_simulator) == (PAID if booked else [])


@pytest.mark.parametrize(("when", "booked"), [("before", False), ("after", True)])
def test_an_answer_may_never_come_and_a_socket_may_drop(jane, code, deriv_simulator, when, booked):
    deriv_simulator.arm(f"lost_answer_{when}_effect", call="withdraw", count=1)
    with pytest.raises(TimeoutError):
        jane.ask(timeout=0.2, **WITHDRAW, verification_code=code)
    assert moved(deriv_simulator) == (PAID if booked else [])
    deriv_simulator.arm(f"drop_socket_{when}_effect", call="verify_email", count=1)
    with pytest.raises(ConnectionClosed) as ended:
        jane.ask(**MAIL)

    assert ended.value.rcvd is None
    assert len(deriv_simulator.simulator.codes.of("jane")) == 1 + booked


@pytest.mark.parametrize("fault", ["late_commit", "request_timeout_late_commit"])
def test_a_time_out_may_be_booked_later(jane, code, deriv_simulator, fault):
    deriv_simulator.arm(fault, call="paymentagent_withdraw", count=1, after_s=60)

    assert jane.error(**WITHDRAW, verification_code=code)["code"] == "RequestTimeout"
    assert moved(deriv_simulator) == []
    deriv_simulator.simulator.clock.advance(60)
    assert moved(deriv_simulator) == PAID


def test_what_was_taken_back_stands_in_the_books_once_as_reverted(jane, agent, code, deriv_simulator):
    deriv_simulator.arm("reverted_later", call="withdraw", count=1, after_s=0.05)
    jane.ask(**WITHDRAW, verification_code=code)
    wait_until(lambda: moved(deriv_simulator) == [(*PAID[0][:3], "reverted")])

    ours = agent.ask(statement=1, limit=2)["statement"]["transactions"]
    assert [(entry["action_type"], entry["amount"]) for entry in ours] == [("adjustment", -10.25), ("deposit", 10.25)]
    assert jane.ask(balance=1)["balance"]["balance"] == 50


def test_a_payment_can_be_taken_back_by_order_however_late(jane, code, deriv_simulator):
    id = jane.ask(**WITHDRAW, verification_code=code)["transaction_id"]
    control = Caller(deriv_simulator.address, "nobody")

    answer = control.http.post("/_control/payments", json={"id": id, "status": "reverted"})

    assert answer.json() == [{"id": str(id), "status": "reverted"}]
    assert moved(deriv_simulator) == [(*PAID[0][:3], "reverted")]
    assert control.http.post("/_control/payments", json={"id": 1, "status": "reverted"}).status_code == 400


def test_maintenance_is_announced_and_then_the_socket_drops(jane, deriv_simulator):
    jane.ask(website_status=1, subscribe=1)
    deriv_simulator.arm("updating", call="website_status", after_s=0.05)

    assert jane.heard()["website_status"]["site_status"] == "updating"
    with pytest.raises(ConnectionClosed):
        jane.heard()


@pytest.mark.parametrize("narrow", [{"req_id": 8}, {"loginid": "CR9"}, {"platform": "rest"}])
def test_a_fault_strikes_only_the_call_that_it_was_armed_for(jane, code, deriv_simulator, narrow):
    deriv_simulator.arm("wrong_response_before", call="withdraw", **narrow)

    assert jane.ask(**WITHDRAW, verification_code=code, req_id=7)["paymentagent_withdraw"] == 1


# --- what customers do wrong ------------------------------------------------------------------------------------------


def test_a_customers_note_may_hold_anybodys_reference(jane, agent, code):
    note = "PP XYZ. Transaction reference, Transfer from CR2 to Payment Agent"
    jane.ask(**{**WITHDRAW, "description": note}, verification_code=code)

    ours = agent.ask(statement=1, description=1, limit=1)["statement"]["transactions"][0]
    assert ours["longcode"].startswith("Transfer from CR100001 to Payment Agent")
    assert ours["longcode"].endswith(note)


def test_names_with_commas_and_other_letters_come_through(agent, deriv_simulator):
    deriv_simulator.customer(name="O'Neil, Zoë Wanjikũ")

    done = agent.ask(**TRANSFER)

    against_schema("paymentagent_transfer", "receive", done)
    assert done["client_to_full_name"] == "O'Neil, Zoë Wanjikũ"


# --- customers whom Deriv moves to the new API ------------------------------------------------------------------------


def test_from_the_move_on_nothing_works_on_the_old_api_for_that_customer(jane, agent, code, deriv_simulator):
    deriv_simulator.customer(moved=True, rest_token="jane-rest")

    assert jane.error(**WITHDRAW, verification_code=code)["code"] == "DisabledClient"
    assert jane.error(statement=1)["code"] == "DisabledClient"
    with a_client(deriv_simulator.address) as again:
        assert again.error(authorize="jane-token")["code"] == "DisabledClient"
    assert "account is disabled" in agent.error(**TRANSFER)["message"]
    assert moved(deriv_simulator) == []


def test_a_moved_customer_lives_on_at_rest_with_the_same_money(jane, deriv_simulator):
    deriv_simulator.customer(moved=True, rest_token="jane-rest", rest_scopes=["payment", "trade"])
    at_rest = Caller(deriv_simulator.address, "jane-rest")

    assert at_rest.data("/wallet/v1/wallets")[0]["balances"] == {"USD": "50.00"}
    assert at_rest.data("/trading/v1/options/legacy/migration-status") == {"status": "complete"}
    assert Caller(deriv_simulator.address, "demo-rest-agent-token").transfer().status_code == 200
    assert code_of(Caller(deriv_simulator.address, "jane-token").get("/wallet/v1/wallets")) == "Unauthorized"


def test_the_old_api_may_also_just_hang_up_on_a_moved_customer(jane, agent, deriv_simulator):
    deriv_simulator.customer(moved="disconnect")

    for client, request in ((jane, {"balance": 1}), (agent, TRANSFER)):
        with pytest.raises(ConnectionClosed):
            client.ask(**request)
    assert moved(deriv_simulator) == []


def test_the_code_of_the_refusal_can_be_chosen_and_the_move_undone(jane, deriv_simulator):
    deriv_simulator.customer(moved="InvalidToken")
    assert jane.error(balance=1)["code"] == "InvalidToken"

    deriv_simulator.customer(moved=False)
    assert jane.ask(balance=1)["balance"]["balance"] == 50


def test_nobody_is_moved_without_a_nickname(deriv_simulator):
    with pytest.raises(ValueError, match="nickname"):
        deriv_simulator.customer("CR100009", moved=True)


def test_a_nickname_is_no_login_id(agent, deriv_simulator):
    deriv_simulator.simulator._customers({"nickname": "ABC1", "name": "X"})

    assert "does not exist" in agent.error(**{**TRANSFER, "transfer_to": "ABC1"})["message"]


def test_each_face_can_be_served_alone():
    simulator = DerivSimulator()
    with serving(simulator.ws_app) as sockets:
        assert Caller(sockets, "demo-rest-agent-token").get("/wallet/v1/wallets").status_code == 404
        with a_client(sockets) as stranger:
            assert isinstance(stranger, Client)
