"""The REST adapter: what its idempotency key, its status call and the agent's wallet make of every way to fail."""

import json
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deriv_integration.domain.transfer import CodeTooSoon, DerivTokenRefused, DerivUnavailable, WithdrawalRefused
from deriv_integration.infrastructure.rest_v1 import answers, client, wallet
from deriv_integration.infrastructure.rest_v1.adapter import Rest
from deriv_integration.infrastructure.rest_v1.client import AgentCredential
from deriv_integration.tests.fixtures import REST_AGENT, a_rest, a_transfer, send
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Dead,
    Done,
    Found,
    NotSent,
    Pending,
    Refused,
    Unknown,
    Unreadable,
)
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, Leg
from shared_kernel.simulator import Answer, JsonApp, free_port, serving

JANE = DerivLogin(DerivPlatform.REST, "jane")
TOKEN = "jane-rest-token"


def a_credit(amount=10_25, **over):
    return a_transfer(amount, platform=DerivPlatform.REST, **over)


def a_debit(deriv_simulator, rest, amount=10_25, **over):
    rest.request_code(JANE, TOKEN, REST_AGENT, Money(amount, Currency.USD))
    code = deriv_simulator.simulator.last_code("jane")
    return a_credit(amount, leg=Leg.DERIV_DEBIT, **{"verification_code": code, "token": TOKEN, **over})


def arm(deriv_simulator, fault, call="transfer", **options):
    deriv_simulator.arm(fault, call, platform="rest", **options)


def eventually(look, kind, within_s=5.0):
    until = time.monotonic() + within_s
    while not isinstance(found := look(), kind) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def moved(deriv_simulator):
    return [movement["amount"] for movement in deriv_simulator.simulator.control.books()]


# --- credits ----------------------------------------------------------------------------------------------------------


def test_the_same_request_sent_twice_moves_once_and_says_that_the_first_arrived(rest, deriv_simulator):
    transfer = a_credit()
    done = send(rest, transfer)

    again = send(rest, transfer)

    assert again == Unknown("RequestIDUsed", again.answer)
    assert rest.find(transfer) == Found((done.reference,), (transfer.amount,))
    assert moved(deriv_simulator) == ["10.25"]


def test_another_attempt_is_another_request(rest, deriv_simulator):
    first = a_credit()
    second = a_credit(transaction=first.transaction_id, attempt=2)

    assert first.reference != second.reference
    assert isinstance(send(rest, first), Done)
    assert isinstance(rest.find(second), Absent)
    assert moved(deriv_simulator) == ["10.25"]


def test_a_request_that_never_arrived_may_go_again_under_its_own_id(rest, deriv_simulator):
    arm(deriv_simulator, "request_timeout_before", count=1)
    transfer = a_credit()

    assert isinstance(send(rest, transfer), Unknown)
    assert rest.find(transfer) == Absent(proven=False, repeatable=True)
    assert isinstance(send(rest, transfer), Done)
    assert moved(deriv_simulator) == ["10.25"]


def test_a_late_commit_and_the_repeated_request_move_once(rest, deriv_simulator):
    arm(deriv_simulator, "late_commit", after_s=0.4, count=1)
    transfer = a_credit()

    first = send(rest, transfer)
    early = rest.find(transfer)
    found = eventually(lambda: rest.find(transfer), Found)
    again = send(rest, transfer)

    assert isinstance(first, Unknown)
    assert early == Absent(proven=False, repeatable=True)
    assert isinstance(found, Found)
    assert again.code == "RequestIDUsed"
    assert moved(deriv_simulator) == ["10.25"]


def test_a_pending_credit_is_accepted_pending_and_at_last_found(rest, deriv_simulator):
    arm(deriv_simulator, "pending", after_s=0.5, count=1)
    transfer = a_credit()

    outcome, at_first = send(rest, transfer), rest.find(transfer)
    found = eventually(lambda: rest.find(transfer), Found)

    assert isinstance(outcome, Accepted)
    assert at_first == Pending()
    assert isinstance(found, Found)


@pytest.mark.parametrize("end", ["rejected", "failed"])
@pytest.mark.parametrize("leg", [Leg.DERIV_CREDIT, Leg.DERIV_DEBIT])
def test_a_payment_that_deriv_decided_against_is_dead_by_its_own_word(rest, deriv_simulator, end, leg):
    is_debit = leg is Leg.DERIV_DEBIT
    transfer = a_debit(deriv_simulator, rest) if is_debit else a_credit()
    arm(deriv_simulator, end, "withdraw" if is_debit else "transfer", after_s=0.05, count=1)

    outcome = send(rest, transfer)
    found = eventually(lambda: rest.find(transfer), Dead)

    assert isinstance(outcome, Accepted)
    assert isinstance(found, Dead)
    assert moved(deriv_simulator) == []


def test_a_complete_credit_without_an_id_is_accepted_and_its_id_is_read_in_the_wallet(rest, deriv_simulator):
    arm(deriv_simulator, "null_transaction_id", count=1)
    transfer = a_credit()

    outcome = send(rest, transfer)

    (booked,) = deriv_simulator.simulator.control.books()
    assert isinstance(outcome, Accepted)
    assert rest.find(transfer) == Found((booked["agent_entry"],), (transfer.amount,))


def test_a_complete_credit_whose_id_is_shown_nowhere_yet_is_not_called_anything(rest, deriv_simulator):
    arm(deriv_simulator, "null_transaction_id", count=1)
    arm(deriv_simulator, "hidden_in_wallet", count=1)
    transfer = a_credit()
    send(rest, transfer)

    assert rest.find(transfer) == Unreadable("transaction_id_missing")


def test_a_credit_that_the_status_call_does_not_know_yet_is_found_in_the_wallet(rest, deriv_simulator):
    arm(deriv_simulator, "not_found_for", count=1)
    transfer = a_credit()
    done = send(rest, transfer)

    assert rest.find(transfer) == Found((done.reference,), (transfer.amount,))


def test_a_double_booking_shows_both_entries(rest, deriv_simulator):
    arm(deriv_simulator, "double_booking", count=1)
    transfer = a_credit()
    send(rest, transfer)

    assert len(rest.find(transfer).references) == 2


@pytest.mark.parametrize("leg", [Leg.DERIV_CREDIT, Leg.DERIV_DEBIT])
def test_what_was_taken_back_later_is_found_as_reverted(rest, deriv_simulator, leg):
    is_debit = leg is Leg.DERIV_DEBIT
    deriv_simulator.simulator.pending_s = 0.01
    transfer = a_debit(deriv_simulator, rest) if is_debit else a_credit()
    arm(deriv_simulator, "reverted_later", "withdraw" if is_debit else "transfer", after_s=0.3, count=1)
    send(rest, transfer)
    before = eventually(lambda: rest.find(transfer), Found)
    time.sleep(0.4)

    after = rest.find(transfer)
    (entry,) = [one for one in rest.book(REST_AGENT, transfer.created_at - timedelta(hours=1)) if one.reference]

    assert not before.reverted
    assert after == replace(before, reverted=True)
    assert entry.status == "reverted"


def test_a_refusal_that_burnt_its_id_is_dead_and_one_that_did_not_may_be_repeated(rest, deriv_simulator):
    deriv_simulator.customer(status=["deposit_disabled"])
    kept, burnt = a_credit(), a_credit()
    refused = send(rest, kept)
    deriv_simulator.simulator.refusal_burns_request_id = True
    send(rest, burnt)
    deriv_simulator.customer(status=[])

    assert isinstance(refused, Refused)
    assert isinstance(send(rest, kept), Done)
    assert send(rest, burnt).code == "RequestIDUsed"
    assert rest.find(burnt) == Dead("rejected")


def test_a_token_that_ran_out_of_budget_waits_and_reads_are_unreadable(deriv_simulator):
    deriv_simulator.simulator.limits = True
    rest = a_rest(deriv_simulator)
    sent = [send(rest, a_credit(1_00)) for _ in range(61)]

    assert [type(outcome) for outcome in sent[:60]] == [Done] * 60
    assert sent[60] == NotSent("RateLimit", 15, answer=sent[60].answer)
    assert rest.find(a_credit()) == Unreadable("status:RateLimit")
    assert rest.book(REST_AGENT, datetime.now(UTC)) == Unreadable("wallet:RateLimit")


def test_a_dead_agents_token_waits_for_a_person(deriv_simulator):
    rest = a_rest(deriv_simulator, token="no-such-token")

    assert send(rest, a_credit()) == NotSent("http_401", 60, True, send(rest, a_credit()).answer)
    assert rest.find(a_credit()) == Unreadable("status:Unauthorized")


def test_nobody_listens_nothing_was_sent():
    rest = Rest(f"http://127.0.0.1:{free_port()}", "1", [AgentCredential(7001, "t")], outside=lambda: True)

    assert send(rest, a_credit()) == NotSent("not_connected", 5)
    assert isinstance(rest.find(a_credit()), Unreadable)
    with pytest.raises(DerivUnavailable):
        rest.identify("token")


def test_an_agent_that_is_not_ours_is_not_used(rest):
    stranger = a_credit(agent="4711")

    assert send(rest, stranger) == NotSent("agent_unknown", 300, alert=True)
    assert rest.find(stranger) == Unreadable("agent_unknown")
    assert rest.book("4711", datetime.now(UTC)) == Unreadable("agent_unknown")
    with pytest.raises(DerivUnavailable):
        rest.request_code(JANE, TOKEN, "4711", Money(10_00, Currency.USD))


def test_an_answer_that_comes_too_late_is_unknown(rest, deriv_simulator, monkeypatch):
    monkeypatch.setattr(client, "TIMEOUT", {**client.TIMEOUT, "read": 0.2})
    arm(deriv_simulator, "slow", after_s=0.6, count=1)
    transfer = a_credit()

    assert send(rest, transfer) == Unknown("timeout")
    time.sleep(0.6)
    assert isinstance(rest.find(transfer), Found)


# --- debits -----------------------------------------------------------------------------------------------------------


def test_a_debit_is_pending_until_the_agents_wallet_shows_it(rest, deriv_simulator):
    deriv_simulator.simulator.pending_s = 0.6
    transfer = a_debit(deriv_simulator, rest)

    outcome, at_first = send(rest, transfer), rest.find(transfer)
    found = eventually(lambda: rest.find(transfer), Found)

    assert isinstance(outcome, Accepted)
    assert at_first == Pending()
    assert isinstance(found, Found)


def test_a_debit_that_the_customers_side_calls_complete_still_waits_for_the_agents_wallet(rest, deriv_simulator):
    deriv_simulator.simulator.pending_s = 0.01
    transfer = a_debit(deriv_simulator, rest)
    arm(deriv_simulator, "hidden_in_wallet", "withdraw", count=1)
    send(rest, transfer)
    time.sleep(0.1)

    assert rest.find(transfer) == Pending()
    deriv_simulator.simulator.clock.advance(31)
    assert isinstance(rest.find(transfer), Found)


def test_a_debit_whose_customers_token_died_is_decided_by_the_wallet_alone(rest, deriv_simulator):
    deriv_simulator.simulator.pending_s = 0.01
    found = a_debit(deriv_simulator, rest)
    send(rest, found)
    lost = a_debit(deriv_simulator, rest, 3_00)
    arm(deriv_simulator, "rejected", "withdraw", count=1, after_s=0.01)
    arm(deriv_simulator, "hidden_in_wallet", "withdraw", count=1)
    send(rest, lost)
    time.sleep(0.1)
    deriv_simulator.customer(rest_token=None)

    assert isinstance(rest.find(found), Found)
    assert rest.find(lost) == Absent(proven=False)


def test_a_repeat_after_a_lost_answer_is_never_taken_for_a_refusal_of_the_first(rest, deriv_simulator):
    deriv_simulator.simulator.pending_s = 0.01
    for code_first, expected in ((False, Unknown), (True, Refused)):
        deriv_simulator.simulator.code_before_request_id = code_first
        transfer = a_debit(deriv_simulator, rest)
        arm(deriv_simulator, "request_timeout_after", "withdraw", count=1)

        assert isinstance(send(rest, transfer), Unknown)
        assert isinstance(send(rest, transfer), expected)  # the row keeps the refusal from counting: test_persistence
        assert isinstance(eventually(lambda sent=transfer: rest.find(sent), Found), Found)


def test_where_the_wallet_hides_request_ids_the_customer_must_be_shown_as_the_source(rest, deriv_simulator):
    simulator = deriv_simulator.simulator
    simulator.request_id_in_agents_wallet, simulator.pending_s = False, 0.01
    transfer = a_debit(deriv_simulator, rest)
    send(rest, transfer)
    time.sleep(0.1)

    with_token = rest.find(transfer)
    transfer.token = ""
    without = rest.find(transfer)

    (booked,) = simulator.control.books()
    assert with_token == Found((booked["agent_entry"],), (transfer.amount,))
    assert without == Unreadable("may_be_in_wallet")  # whose it is can't be told without the customer's own word


def test_where_the_wallet_hides_request_ids_anothers_equal_payment_is_never_ours(rest, deriv_simulator):
    simulator = deriv_simulator.simulator
    simulator.request_id_in_agents_wallet, simulator.pending_s = False, 0.01
    deriv_simulator.customer("CR100002", nickname="bob", name="BOB", balance="50.00", rest_token="bob-r")
    rest.request_code(DerivLogin(DerivPlatform.REST, "bob"), "bob-r", REST_AGENT, Money(10_25, Currency.USD))
    bobs = a_credit(leg=Leg.DERIV_DEBIT, account="bob", token="bob-r", verification_code=simulator.last_code("bob"))
    ours = a_debit(deriv_simulator, rest)
    bobs.created_at = ours.created_at
    send(rest, bobs)
    arm(deriv_simulator, "http_500_before", "withdraw", count=1)
    send(rest, ours)
    time.sleep(0.1)

    assert isinstance(rest.find(bobs), Found)
    assert rest.find(ours) == Unreadable("may_be_in_wallet")


def test_where_the_wallet_hides_request_ids_a_rejected_attempt_does_not_take_the_next_ones_entry(rest, deriv_simulator):
    simulator = deriv_simulator.simulator
    simulator.request_id_in_agents_wallet, simulator.pending_s = False, 0.01
    first = a_debit(deriv_simulator, rest)
    arm(deriv_simulator, "rejected", "withdraw", count=1, after_s=0.01)
    send(rest, first)
    second = a_debit(deriv_simulator, rest)
    send(rest, second)
    time.sleep(0.1)

    assert rest.find(first) == Dead("rejected")


def test_a_customer_who_uses_anothers_request_id_proves_nothing_of_another_amount(rest, deriv_simulator):
    deriv_simulator.simulator.pending_s = 0.01
    ours = a_debit(deriv_simulator, rest)
    deriv_simulator.customer("CR100002", nickname="bob", name="BOB", balance="50.00", rest_token="bob-r")
    rest.request_code(DerivLogin(DerivPlatform.REST, "bob"), "bob-r", REST_AGENT, Money(1_00, Currency.USD))
    bobs = a_credit(1_00, leg=Leg.DERIV_DEBIT, account="bob", token="bob-r", reference=ours.reference)
    bobs.verification_code = deriv_simulator.simulator.last_code("bob")
    send(rest, bobs)
    time.sleep(0.1)

    assert rest.find(ours) == Unreadable("other_payment")


def test_a_customer_who_pays_under_anothers_request_id_does_not_pay_for_them(rest, deriv_simulator):
    deriv_simulator.simulator.pending_s = 0.01
    ours = a_debit(deriv_simulator, rest)
    deriv_simulator.customer("CR100002", nickname="bob", name="BOB", balance="50.00", rest_token="bob-r")
    rest.request_code(DerivLogin(DerivPlatform.REST, "bob"), "bob-r", REST_AGENT, ours.amount)
    bobs = a_credit(leg=Leg.DERIV_DEBIT, account="bob", token="bob-r", reference=ours.reference)
    bobs.verification_code = deriv_simulator.simulator.last_code("bob")
    send(rest, bobs)
    time.sleep(0.1)

    assert rest.find(ours) == Unreadable("other_customer")
    assert isinstance(rest.find(bobs), Found)


# --- codes and people -------------------------------------------------------------------------------------------------


def test_a_code_is_bound_to_agent_and_amount_and_a_second_one_has_to_wait(rest, deriv_simulator):
    deriv_simulator.simulator.codes.pause_s = 60
    sent = rest.request_code(JANE, TOKEN, REST_AGENT, Money(10_25, Currency.USD))
    code = deriv_simulator.simulator.last_code("jane")

    with pytest.raises(CodeTooSoon) as raised:
        rest.request_code(JANE, TOKEN, REST_AGENT, Money(10_25, Currency.USD))
    other = send(rest, a_credit(10_24, leg=Leg.DERIV_DEBIT, token=TOKEN, verification_code=code))

    assert raised.value.when == sent.next_request_at
    assert 0 < raised.value.extra["retry_after"] <= 60
    assert other.code == "OTPValidationFailed"
    assert moved(deriv_simulator) == []


def test_derivs_reason_against_a_code_is_told_in_words(rest, deriv_simulator):
    arm(deriv_simulator, "error", "code", code="ClientWithdrawDisabled", count=1)

    with pytest.raises(WithdrawalRefused) as raised:
        rest.request_code(JANE, TOKEN, REST_AGENT, Money(10_25, Currency.USD))

    assert raised.value.provider_code == "ClientWithdrawDisabled"
    assert "locked" in raised.value.detail


def test_a_name_is_told_only_where_the_customer_shows_it(rest, deriv_simulator):
    hidden = rest.identify(TOKEN)
    deriv_simulator.simulator.bank.accounts["CR100001"].show_real_name = True
    shown = rest.identify(TOKEN)

    assert (hidden.account, hidden.full_name) == ("jane", "")
    assert shown.full_name == "JANE DOE"
    assert "JANE" not in repr(shown)
    assert moved(deriv_simulator) == []


@pytest.mark.parametrize("scopes", [["payment"], ["account_manage"], []])
def test_a_token_that_lacks_a_scope_is_refused(rest, deriv_simulator, scopes):
    deriv_simulator.customer(rest_token="thin", rest_scopes=scopes)

    with pytest.raises(DerivTokenRefused):
        rest.identify("thin")


# --- what the wallet and the wire may hold ----------------------------------------------------------------------------


def test_a_long_wallet_is_read_page_by_page_with_links_or_not_at_all(rest, deriv_simulator, monkeypatch):
    monkeypatch.setattr(wallet, "PAGE", 100)
    begun = datetime.now(UTC)
    transfers = [a_credit(1_00 + number) for number in range(230)]
    for transfer in transfers:
        send(rest, transfer)

    book = rest.book(REST_AGENT, begun - timedelta(minutes=1))
    assert [entry.reference for entry in book if entry.reference] == [t.reference for t in reversed(transfers)]
    assert rest.find(transfers[0]).references == (book[-2 if len(book) > 230 else -1].id,)
    arm(deriv_simulator, "missing_links", "wallet")
    assert rest.book(REST_AGENT, begun - timedelta(minutes=1)) == Unreadable("wallet_links_missing")
    assert isinstance(rest.find(transfers[0]), Found)  # one entry: no page follows


@contextmanager
def answering(*answers):
    """A server that gives these answers in turn, the last one for ever; and what it was asked."""
    asked, left = [], list(answers)

    async def answer(request):
        asked.append((request.method, request.path, request.query, dict(request.headers), request.body))
        return left.pop(0) if len(left) > 1 else left[0]

    with serving(JsonApp({}, answer)) as address:
        yield Rest(f"http://{address}", "app-1", [AgentCredential(7001, "t0ken")], outside=lambda: True), asked


def good(data, **more):
    return Answer.json({"data": data, "errors": [], "metadata": {"timing": 38}, **more})


def test_what_is_written_is_what_the_contract_asks():
    with answering(good({"status": "complete", "transaction_id": 5})) as (rest, asked):
        transfer = a_credit(1_00)
        assert send(rest, transfer).reference == "5"

    (method, path, _, headers, body), *_ = asked
    assert (method, path) == ("POST", "/payment-agents/v1/transfer")
    assert (headers[b"authorization"], headers[b"deriv-app-id"]) == (b"Bearer t0ken", b"app-1")
    assert json.loads(body) == {
        "data": {"to_nickname": "jane", "amount": "1.00", "currency": "USD", "request_id": transfer.reference}
    }


@pytest.mark.parametrize(
    "answer",
    [
        Answer(b"", 200),
        Answer(b"<html>fine</html>", 200),
        Answer(b"[]", 200),
        Answer(b'{"data": {"status": "complete", "status": "failed", "transaction_id": 5}}', 200),
        Answer(b'{"data": {"status": "complete", "transaction_id": NaN}}', 200),
        Answer(b"[" * 100_000, 200),
        good({}),
        good([]),
        good({"status": "done"}),
        good({"status": "dry_run_ok", "transaction_id": None}),
        good({"status": ["complete"], "transaction_id": 5}),
        Answer.json({"data": {"status": "complete", "transaction_id": 5}, "errors": [{"code": "NicknameNotFound"}]}),
        Answer.json({"data": {}, "errors": [{"code": "NicknameNotFound"}]}, 500),
        Answer.json({"data": {}, "errors": []}, 400),
        Answer.json({"errors": "NicknameNotFound"}, 400),
        Answer.json({"errors": [{"code": ["NicknameNotFound"]}]}, 400),
        Answer.json({"errors": [{"code": "SomethingNew"}]}, 400),
        Answer.json({"errors": [{"code": "NicknameNotFound"}, {"code": "SomethingNew"}]}, 400),
        Answer.json({"errors": [{"code": "RequestIDUsed"}, {"code": "NicknameNotFound"}]}, 400),
        Answer(b"moved", 302, headers=((b"location", b"http://127.0.0.1:9/"),)),
        Answer(b"", 404),
        Answer(b"", 502),
        Answer(b"", 504),
        Answer(b" " * (5 * 1024 * 1024), 200),
        None,
    ],
)
def test_whatever_is_not_surely_yes_or_no_is_unknown_for_money_and_unreadable_for_a_look_up(answer):
    with answering(answer) as (rest, asked):
        assert isinstance(send(rest, a_credit()), Unknown)
        assert isinstance(rest.find(a_credit()), Unreadable)
        assert isinstance(rest.check_login(JANE, REST_AGENT, Money(1_00, Currency.USD)), Unknown) or b"dry_run_ok" in (
            answer.body
        )
        assert all(path.startswith(("/payment-agents/", "/wallet/")) for _, path, *_ in asked)


CONTRACT = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "deriv" / "README.md"
SAYS_NO = {  # the contract's table, 1.7: by call, what surely was not executed and never will be
    "transfer": "NicknameNotFound NoClientWallet WalletDisabled DepositDisabled ClientDepositDisabled "
    "AgentSelfTransfer ClientCountryUnsupported TransferToAgentNotAllowed WithdrawalAmountMinimum "
    "WithdrawalAmountMaximum InvalidAmount InvalidCurrency InputError",
    "withdraw": "WalletFundsInsufficient WithdrawalAmountMinimum WithdrawalAmountMaximum DailyWithdrawalCountLimit "
    "DailyWithdrawalAmountLimit ClientWithdrawDisabled AgentDepositDisabled AgentSelfWithdraw InvalidAgentID "
    "VerificationCodeFormatInvalid InvalidOTP OTPValidationFailed OtpValidationRateLimitExceeded InvalidAmount "
    "InvalidCurrency InputError InvalidRequestIDFormat",
}
WAITS = {  # surely not executed, and our own trouble
    "transfer": "WalletFundsInsufficient AgentIDNotFound AgentIDInvalid AgentInactive AgentWithdrawDisabled "
    "AgentCurrencyUnsupported TransferAgentCurrencyUnsupported DailyTransferCountLimit DailyTransferAmountLimit "
    "InvalidRequestIDFormat",
}
OPEN = {
    "transfer": "RequestIDUsed TransferFailed WithdrawalFailed InvalidOTP Whatever",
    "withdraw": "RequestIDUsed WithdrawalFailed NicknameNotFound DailyTransferCountLimit Whatever",
}
TABLE = [
    (call, code, kind)
    for table, kind in ((SAYS_NO, Refused), (WAITS, NotSent), (OPEN, Unknown))
    for call, codes in table.items()
    for code in codes.split()
]


@pytest.mark.parametrize(("call", "code", "kind"), TABLE)
def test_each_code_means_what_the_contract_says(call, code, kind):
    leg = Leg.DERIV_DEBIT if call == "withdraw" else Leg.DERIV_CREDIT
    text = json.dumps({"data": {}, "errors": [{"status": 400, "code": code, "detail": {"message": "x"}}]})
    answer = client.Answer(400, text, client.read_object(text))

    outcome = answers.moved(answer, leg)
    failed = answers.moved(replace(answer, status=500), leg)

    assert isinstance(outcome, kind)
    assert (outcome.code, outcome.answer) == (code, text)
    assert kind is not Refused or outcome.reason
    assert isinstance(failed, Unknown)


@pytest.mark.skipif(not CONTRACT.exists(), reason="the contract is not beside this checkout")
def test_every_code_of_the_contracts_table_is_classed():
    rows = CONTRACT.read_text().split("### 1.7")[1].split("## 2.")[0].splitlines()
    named = {code for row in rows if row.startswith("| `") for code in re.findall("`([A-Za-z]+)`", row.split("|")[1])}
    open_ones = {code for code in named if code.endswith("Failed") and code != "OTPValidationFailed"}
    elsewhere = {"RequestIDNotFound", "OtpRateLimitExceeded", "AgentNotFound"}  # of calls that move nothing

    assert named
    assert named - open_ones - elsewhere <= {*answers.TRANSFER, *answers.WITHDRAWAL}


@pytest.mark.parametrize(
    "error",
    [
        {"errors": [{"status": 400, "code": "NicknameNotFound", "message": "x"}]},
        {"errors": [{"status": 400, "code": "NicknameNotFound", "message": "x"}], "meta": {}},
        {
            "data": {},
            "errors": [{"status": 400, "code": "NicknameNotFound", "detail": {"message": "x"}}],
            "metadata": {},
        },
    ],
)
def test_an_error_is_read_in_each_of_the_three_families(error):
    with answering(Answer.json(error, 400)) as (rest, _):
        assert send(rest, a_credit()).code == "NicknameNotFound"
        assert isinstance(send(rest, a_credit()), Refused)


@pytest.mark.parametrize("id", [None, 0, -5, "5", True, 5.5])
def test_a_complete_credit_needs_a_real_id_to_be_done(id):
    with answering(good({"status": "complete", "transaction_id": id})) as (rest, _):
        assert isinstance(send(rest, a_credit()), Accepted)


NOT_FOUND = Answer.json({"data": {}, "errors": [{"status": 400, "code": "RequestIDNotFound", "detail": {}}]}, 400)


def an_entry(**over):
    about = {
        "transaction_status": "complete",
        "transaction_gross_amount": "10.25",
        "transaction_net_amount": "10.25",
        "transaction_currency": "USD",
        "destination_client_id": "jane",
    }
    raw: dict[str, object] = {
        "request_id": None,
        "transaction_id": 7,
        "timestamp": datetime.now(UTC).isoformat(),
        "category": "withdrawal",
    }
    raw |= {"channel": "payment_agent", "metadata": about}
    for name, value in over.items():
        (about if name in about else raw)[name] = value
    return raw


def a_page(*entries, **more):
    return Answer.json({"data": {"transactions": list(entries)}, **more})


@pytest.mark.parametrize(
    ("over", "expected"),
    [
        ({}, Found(("7",), (Money(10_25, Currency.USD),))),
        ({"transaction_net_amount": "10.250000"}, Found(("7",), (Money(10_25, Currency.USD),))),
        ({"timestamp": lambda: int(time.time())}, Found(("7",), (Money(10_25, Currency.USD),))),
        ({"timestamp": lambda: int(time.time() * 1000)}, Found(("7",), (Money(10_25, Currency.USD),))),
        ({"transaction_status": "reverted"}, Found(("7",), (Money(10_25, Currency.USD),), reverted=True)),
        ({"transaction_status": "processing"}, Pending()),
        ({"transaction_status": "brand_new"}, Pending()),
        ({"transaction_status": "cancelled"}, Dead("wallet_cancelled")),
        ({"destination_client_id": "somebody"}, Unreadable("may_be_in_wallet")),
        ({"destination_client_id": None}, Unreadable("may_be_in_wallet")),
        ({"category": "deposit"}, Absent(proven=False, repeatable=True)),
        ({"channel": "cashier"}, Absent(proven=False, repeatable=True)),
        ({"transaction_net_amount": "10.24"}, Absent(proven=False, repeatable=True)),
        ({"request_id": "pp-DANOTHERONEOFOURS-1"}, Absent(proven=False, repeatable=True)),
        ({"timestamp": "2020-01-01T00:00:00Z"}, Absent(proven=False, repeatable=True)),
        ({"transaction_net_amount": "10.255"}, Unreadable("wallet_amount_malformed")),
        ({"transaction_net_amount": 10.25}, Unreadable("wallet_amount_malformed")),
        ({"transaction_net_amount": "-10.25"}, Unreadable("wallet_amount_malformed")),
        ({"transaction_currency": "BTC"}, Unreadable("wallet_amount_malformed")),
        ({"transaction_id": "7"}, Unreadable("wallet_entry_malformed")),
        ({"category": "transfer"}, Unreadable("wallet_entry_malformed")),
        ({"metadata": None}, Unreadable("wallet_entry_malformed")),
        ({"timestamp": "yesterday"}, Unreadable("wallet_time_malformed")),
        ({"timestamp": True}, Unreadable("wallet_time_malformed")),
        ({"timestamp": 10**30}, Unreadable("wallet_time_malformed")),
    ],
)
def test_an_entry_without_our_id_counts_by_direction_amount_counterpart_and_time(over, expected):
    over = {name: value() if callable(value) else value for name, value in over.items()}  # now, not at collection
    with answering(NOT_FOUND, a_page(), a_page(an_entry(**over))) as (rest, _):
        assert rest.find(a_credit()) == expected


@pytest.mark.parametrize("data", [{}, [], {"status": None}, {"status": "done"}, {"status": "dry_run_ok"}])
def test_a_status_that_cannot_be_read_is_no_absence_even_beside_an_empty_wallet(data):
    with answering(good(data), a_page()) as (rest, _):
        assert isinstance(rest.find(a_credit()), Unreadable)


def test_two_entries_that_both_fit_are_not_told_apart_by_a_guess():
    with answering(NOT_FOUND, a_page(), a_page(an_entry(), an_entry(transaction_id=8))) as (rest, _):
        assert rest.find(a_credit()) == Unreadable("may_be_in_wallet")


def test_the_wallet_outranks_a_status_call_that_denies():
    transfer = a_credit()
    denied = good({"status": "failed", "transaction_id": None})
    with answering(denied, a_page(an_entry(request_id=transfer.reference))) as (rest, _):
        assert rest.find(transfer) == Found(("7",), (transfer.amount,))
    with answering(denied, Answer(b"", 504)) as (rest, _):
        assert isinstance(rest.find(transfer), Unreadable)  # not dead while the book can't be read


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("http://evil.example/steal?page_cursor=abc", ["page_cursor=abc"]),
        ("/wallet/v1/transactions/payment_agent?page_cursor=abc", ["page_cursor=abc"]),
        ("abc", ["page_cursor=abc"]),
        (None, []),
        ("", []),
    ],
)
def test_of_a_link_only_the_cursor_is_followed_and_always_to_deriv(link, expected):
    first = a_page(an_entry(), links={"next": link})
    with answering(first, a_page(links={"next": None})) as (rest, asked):
        book = rest.book(REST_AGENT, datetime.now(UTC) - timedelta(hours=1))

    assert [entry.id for entry in book] == ["7"]
    assert [query for _, _, query, *_ in asked[1:]] == expected


@pytest.mark.parametrize("link", ["http://x/y", 5, ["abc"]])
def test_a_link_that_cannot_be_read_makes_the_book_unreadable(link):
    with answering(a_page(an_entry(), links={"next": link})) as (rest, _):
        assert rest.book(REST_AGENT, datetime.now(UTC)) == Unreadable("wallet_links_malformed")


def test_a_connection_that_dies_in_mid_answer_is_unknown():
    server = socket.create_server(("127.0.0.1", 0))

    def half_an_answer():
        taken, _ = server.accept()
        taken.recv(65536)
        taken.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
        taken.close()

    threading.Thread(target=half_an_answer, daemon=True).start()
    rest = Rest(f"http://127.0.0.1:{server.getsockname()[1]}", "1", [AgentCredential(7001, "t")], outside=lambda: True)

    assert isinstance(send(rest, a_credit()), Unknown)
    server.close()
