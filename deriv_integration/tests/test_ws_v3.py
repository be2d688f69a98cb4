"""The adapter against the simulator, over a real socket."""

import asyncio
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.request import Request, urlopen
from uuid import UUID

import pytest

from deriv_integration.domain.transfer import DerivTokenRefused, DerivUnavailable, InsideTransaction, WithdrawalRefused
from deriv_integration.infrastructure.ws_v3.adapter import WsV3
from deriv_integration.infrastructure.ws_v3.link import Credential, Timing
from deriv_integration.tests.fixtures import AGENT, QUICK, a_transfer, send
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Absent, Accepted, Done, Found, NotSent, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, Leg
from shared_kernel.simulator import free_port

JANE = DerivLogin(DerivPlatform.WS_V3, "CR100001")
TEN = Money(10_00, Currency.USD)


def wait_until(true, within_s=5.0):
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.01)


# --- the good way -----------------------------------------------------------------------------------------------------


def test_a_transfer_credits_the_customer_once_and_brings_derivs_id(adapter, deriv_simulator):
    transfer = a_transfer(10_25)

    outcome = send(adapter, transfer)

    (moved,) = deriv_simulator.simulator.books.movements
    assert isinstance(outcome, Done)
    assert outcome.reference == moved["id"]
    assert (moved["from"], moved["to"], moved["amount"]) == (AGENT, "CR100001", "10.25")
    assert moved["reference"] == f"PP {transfer.reference}"
    assert deriv_simulator.received() == [10_25]


def test_a_login_check_tells_the_name_and_moves_nothing(adapter, deriv_simulator):
    outcome = adapter.check_login(JANE, AGENT, TEN)

    assert isinstance(outcome, Done)
    assert outcome.reference == "JANE DOE"
    assert deriv_simulator.received() == []


def test_a_login_that_may_not_be_credited_is_refused_before_anything_moves(adapter, deriv_simulator):
    deriv_simulator.customer(status=["disabled"])

    assert isinstance(adapter.check_login(JANE, AGENT, TEN), Refused)
    assert isinstance(adapter.check_login(replace(JANE, account="CR424242"), AGENT, TEN), Refused)
    assert isinstance(adapter.check_login(replace(JANE, account="not a login"), AGENT, TEN), Refused)
    assert isinstance(adapter.check_login(JANE, AGENT, Money(5_000_00, Currency.USD)), Refused)
    assert deriv_simulator.received() == []


def test_a_dry_run_during_a_timeout_teaches_nothing(adapter, deriv_simulator):
    deriv_simulator.arm("wrong_response_before")

    assert isinstance(adapter.check_login(JANE, AGENT, TEN), Unknown)


def test_answers_that_overtake_each_other_find_their_callers(adapter, deriv_simulator):
    deriv_simulator.simulator.latency_s = (0.0, 0.05)
    transfers = [a_transfer(1_00 + number) for number in range(40)]

    with ThreadPoolExecutor(20) as threads:
        outcomes = list(threads.map(lambda transfer: send(adapter, transfer), transfers))

    by_id = {moved["id"]: moved for moved in deriv_simulator.simulator.books.movements}
    assert all(
        by_id[outcome.reference]["reference"] == f"PP {transfer.reference}"
        for transfer, outcome in zip(transfers, outcomes, strict=True)
    )


def test_sixty_four_callers_share_the_socket_and_none_waits_for_anothers_answer(adapter_of, deriv_simulator):
    """Deriv answers nobody before all of them have asked. How fast that is, is for bin/bench to say."""
    adapter = adapter_of(Timing())
    send(adapter, a_transfer())
    asked, everybody = [], asyncio.Event()

    async def delay():
        asked.append(1)
        if len(asked) == 64:
            everybody.set()
        await everybody.wait()

    deriv_simulator.simulator.latency_s, deriv_simulator.simulator.delay = (0.01, 0.012), delay
    with ThreadPoolExecutor(64) as threads:
        outcomes = list(threads.map(lambda _: send(adapter, a_transfer()), range(64)))

    assert all(isinstance(outcome, Done) for outcome in outcomes)


# --- lost, late, dropped ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "credited"),
    [
        ("lost_answer_before_effect", []),
        ("lost_answer_after_effect", [10_25]),
        ("drop_socket_before_effect", []),
        ("drop_socket_after_effect", [10_25]),
        ("wrong_response_before", []),
        ("wrong_response_after", [10_25]),
        ("request_timeout_before", []),
        ("request_timeout_after", [10_25]),
        ("missing_transaction_id", [10_25]),
        ("dry_run_value", []),
    ],
)
def test_what_is_not_surely_yes_or_no_is_unknown_and_the_statement_decides(adapter, deriv_simulator, fault, credited):
    send(adapter, a_transfer(1_00))  # an older entry
    deriv_simulator.arm(fault, count=1)
    transfer = a_transfer(10_25)

    outcome = send(adapter, transfer)
    found = adapter.find(transfer)

    assert isinstance(outcome, Unknown)
    assert deriv_simulator.received() == [1_00, *credited]
    if credited:
        (reference,) = found.references
        assert reference == deriv_simulator.simulator.books.movements[-1]["id"]
        assert found.amounts == (transfer.amount,)
    else:
        assert found == Absent(proven=True)


def test_a_late_commit_after_a_timeout_is_found_once_it_is_booked(adapter, deriv_simulator):
    deriv_simulator.arm("request_timeout_late_commit", after_s=0.4)
    transfer = a_transfer()

    outcome = send(adapter, transfer)
    at_first = adapter.find(transfer)
    wait_until(deriv_simulator.received)
    later = adapter.find(transfer)

    assert outcome == Unknown("RequestTimeout", outcome.answer)
    assert at_first == Absent(proven=True)  # true at that moment: what it is worth depends on when it was asked
    assert isinstance(later, Found)


def test_calls_in_flight_become_unknown_when_the_socket_drops_and_the_next_ones_use_a_new_one(adapter, deriv_simulator):
    send(adapter, a_transfer(1_00))
    deriv_simulator.simulator.latency_s = (0.3, 0.3)
    deriv_simulator.arm("drop_socket_before_effect", transfer_to="CR100001", count=1)
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: send(adapter, a_transfer(2_00)), range(8)))
    deriv_simulator.simulator.latency_s = (0.0, 0.0)

    after = send(adapter, a_transfer(3_00))

    assert {type(outcome) for outcome in outcomes} == {Unknown}
    assert {outcome.code for outcome in outcomes} == {"socket_lost"}
    assert isinstance(after, Done)
    assert deriv_simulator.simulator.calls_seen["authorize"] == 2  # logged in again before anything else


def test_a_read_is_repeated_when_the_socket_drops(adapter, deriv_simulator):
    transfer = a_transfer()
    send(adapter, transfer)
    deriv_simulator.arm("drop_socket_before_effect", call="statement", count=1)
    deriv_simulator.arm("drop_socket_after_effect", call="paymentagent_transfer", count=1)

    assert isinstance(adapter.check_login(JANE, AGENT, TEN), Done)
    assert isinstance(adapter.find(transfer), Found)


def test_an_answer_that_comes_after_the_deadline_is_nobodys(adapter_of, deriv_simulator):
    adapter = adapter_of(replace(QUICK, answer=0.2))
    deriv_simulator.arm("slow", after_s=0.5, count=1)

    late = send(adapter, a_transfer(1_00))
    time.sleep(0.5)
    next_one = send(adapter, a_transfer(2_00))

    assert late == Unknown("timeout")
    assert isinstance(next_one, Done)
    assert deriv_simulator.received() == [1_00, 2_00]


def test_past_its_moment_a_sender_writes_nothing(adapter, deriv_simulator):
    send(adapter, a_transfer(1_00))

    outcome = adapter.send(a_transfer(2_00), give_up_at=time.monotonic() - 0.001)

    assert isinstance(outcome, NotSent)
    assert deriv_simulator.received() == [1_00]


def test_a_sender_held_up_by_the_single_writer_checks_its_moment_again(adapter, deriv_simulator):
    send(adapter, a_transfer(1_00))
    wire = adapter._link(AGENT)._wire
    outcomes = []

    with wire._writing:
        waiting = threading.Thread(target=lambda: outcomes.append(send(adapter, a_transfer(2_00), within_s=0.2)))
        waiting.start()
        time.sleep(0.4)
    waiting.join()

    assert outcomes == [NotSent("send_before")]
    assert deriv_simulator.received() == [1_00]


def test_with_deriv_down_nothing_is_sent_and_it_comes_back_by_itself(adapter, deriv_simulator):
    send(adapter, a_transfer(1_00))
    deriv_simulator.arm("down", call="connect")
    wait_until(lambda: not deriv_simulator.simulator.sessions)
    wait_until(lambda: isinstance(adapter.find(a_transfer(2_00)), Unreadable))  # our end has noticed, too

    down = send(adapter, a_transfer(2_00), within_s=0.3)
    lookup = adapter.find(a_transfer(2_00))
    deriv_simulator.simulator.faults.clear()
    wait_until(lambda: isinstance(send(adapter, a_transfer(3_00)), Done))

    assert isinstance(down, NotSent)
    assert down.retry_after_s >= 1
    assert isinstance(lookup, Unreadable)
    assert deriv_simulator.received() == [1_00, 3_00]


@pytest.mark.parametrize("url", ["ws://127.0.0.1:{port}/websockets/v3", "http://127.0.0.1/", "ws://"])
def test_nobody_there_is_not_sent(url):
    adapter = WsV3(
        url.format(port=free_port()),
        "1089",
        [Credential(AGENT, "token")],
        timing=replace(QUICK, connect=0.3),
        outside=lambda: True,
    )

    assert send(adapter, a_transfer()).code == "not_connected"
    assert adapter.check_login(JANE, AGENT, TEN).code == "not_connected"
    with pytest.raises(DerivUnavailable):
        adapter.identify("token")
    adapter.close()


def test_backoff_begins_at_once_then_grows_to_thirty_seconds_with_jitter(adapter_of):
    link = adapter_of(Timing())._link(AGENT)

    assert link._backoff(0) == 0
    assert all(1 <= link._backoff(1) <= 2 for _ in range(50))
    assert all(1 <= link._backoff(20) <= 30 for _ in range(50))
    assert len({link._backoff(20) for _ in range(50)}) > 40


def test_a_socket_that_no_longer_answers_a_ping_is_given_up(adapter_of, deriv_simulator):
    adapter = adapter_of(replace(QUICK, ping_every=0.1, pong=0.2, answer=3.0))
    send(adapter, a_transfer(1_00))
    deriv_simulator.arm("lost_answer_before_effect", call="*", count=2)  # the transfer's, then the ping's

    begun = time.monotonic()
    outcome = send(adapter, a_transfer(2_00))

    assert outcome == Unknown("socket_lost")
    assert time.monotonic() - begun < 2
    assert isinstance(send(adapter, a_transfer(3_00)), Done)


def test_pings_keep_the_socket_past_the_idle_close(adapter_of, deriv_simulator):
    deriv_simulator.simulator.idle_s = 0.5
    adapter = adapter_of(replace(QUICK, ping_every=0.1))

    send(adapter, a_transfer(1_00))
    time.sleep(1.2)
    outcome = send(adapter, a_transfer(2_00))

    assert isinstance(outcome, Done)
    assert deriv_simulator.simulator.calls_seen["authorize"] == 1


def test_the_table_of_pending_calls_is_bounded(adapter_of, deriv_simulator):
    adapter = adapter_of(most_pending=3)
    send(adapter, a_transfer(1_00))
    deriv_simulator.simulator.latency_s = (0.2, 0.2)

    with ThreadPoolExecutor(6) as threads:
        outcomes = list(threads.map(lambda _: send(adapter, a_transfer(2_00)), range(6)))

    assert sum(isinstance(outcome, Done) for outcome in outcomes) == 3
    assert [outcome for outcome in outcomes if isinstance(outcome, NotSent)] == [NotSent("too_many_calls", 1)] * 3


def test_a_frame_that_is_no_json_drops_the_socket_and_leaves_the_call_unknown(adapter, deriv_simulator, monkeypatch):
    send(adapter, a_transfer(1_00))

    async def garbage(session, message):
        await session.send({"type": "websocket.send", "text": "<html>" + "[" * 1000})

    answer = deriv_simulator.simulator.v3.answer
    monkeypatch.setattr(deriv_simulator.simulator.v3, "answer", garbage)
    outcome = send(adapter, a_transfer(2_00))
    monkeypatch.setattr(deriv_simulator.simulator.v3, "answer", answer)

    assert outcome == Unknown("socket_lost")
    assert isinstance(send(adapter, a_transfer(3_00)), Done)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected"),
    [("disabled", Refused), ("cashier_locked", Refused), ("documents_expired", Refused), ("not_allowed", Refused)],
)
def test_a_customers_obstacle_is_a_refusal_in_the_customers_words(adapter, deriv_simulator, status, expected):
    deriv_simulator.customer(status=[status])

    outcome = send(adapter, a_transfer())

    assert isinstance(outcome, expected)
    assert outcome.reason
    assert "CR100001" not in outcome.reason
    assert deriv_simulator.received() == []


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"status": ["unauthorized"]}, "not authorized"),
        ({"status": ["temporarily_disabled"]}, "temporarily disabled"),
        ({"status": ["withdrawal_limit"]}, "maximum withdrawal limit"),
        ({"daily_count": 0}, "exceeded the maximum allowable"),
        ({"daily_amount": 1_00}, "exceeded the maximum allowable transfer"),
    ],
)
def test_the_agents_own_obstacle_waits(adapter, deriv_simulator, order, code):
    deriv_simulator.customer(AGENT, **order)

    outcome = send(adapter, a_transfer())

    assert isinstance(outcome, NotSent)
    assert code in outcome.code
    assert outcome.retry_after_s > 0
    assert deriv_simulator.received() == []


def test_a_low_float_waits_and_alarms(adapter, deriv_simulator):
    deriv_simulator.arm("float_low", count=1)

    outcome = send(adapter, a_transfer())

    assert isinstance(outcome, NotSent)
    assert outcome.alert
    assert isinstance(send(adapter, a_transfer()), Done)


def test_derivs_rate_limit_waits(adapter, deriv_simulator):
    deriv_simulator.arm("rate_limited", count=1)

    outcome = send(adapter, a_transfer())

    assert isinstance(outcome, NotSent)
    assert (outcome.code, outcome.retry_after_s, outcome.alert) == ("RateLimit", 60, False)
    assert deriv_simulator.received() == []


def test_an_empty_float_waits_until_it_is_filled(adapter, deriv_simulator):
    deriv_simulator.customer(AGENT, deposit="-99995.00")

    low = send(adapter, a_transfer(10_00))
    deriv_simulator.customer(AGENT, deposit="100.00")
    filled = send(adapter, a_transfer(10_00))

    assert isinstance(low, NotSent)
    assert "balance is insufficient" in low.code
    assert isinstance(filled, Done)


def test_a_quick_second_transfer_of_the_same_kind_is_looked_up_not_repeated(adapter, deriv_simulator):
    deriv_simulator.simulator.bank.duplicate_guard_s = 2.0
    first, second = a_transfer(10_00), a_transfer(10_00)

    done = send(adapter, first)
    guarded = send(adapter, second)

    assert isinstance(done, Done)
    assert isinstance(guarded, Unknown)
    assert "request too frequent" in guarded.code
    assert adapter.find(second) == Absent(proven=True)


def test_equal_transfers_are_spaced_and_others_are_not_held_up(adapter_of, deriv_simulator):
    deriv_simulator.customer("CR100002", name="JOHN ROE")
    adapter = adapter_of(equal_spacing_s=2.0)

    outcomes = [
        send(adapter, a_transfer(10_00)),
        send(adapter, a_transfer(10_00)),
        send(adapter, a_transfer(10_01)),
        send(adapter, a_transfer(10_00, account="CR100002")),
    ]

    assert outcomes[1] == NotSent("equal_spacing", 2)
    assert [type(outcome) for outcome in outcomes] == [Done, NotSent, Done, Done]
    assert deriv_simulator.received() == [10_00, 10_01]


# --- the session ------------------------------------------------------------------------------------------------------


def test_a_superseded_token_stops_money_with_an_alarm_until_a_good_one_is_there(adapter, deriv_simulator):
    send(adapter, a_transfer(1_00))
    deriv_simulator.arm("token_superseded", count=1)

    first = send(adapter, a_transfer(2_00))
    wait_until(lambda: getattr(send(adapter, a_transfer(2_00)), "code", "") == "authorize:InvalidToken")
    deriv_simulator.customer(AGENT, token="demo-agent-token")
    wait_until(lambda: isinstance(send(adapter, a_transfer(3_00)), Done))

    assert isinstance(first, NotSent)
    assert first.alert
    assert deriv_simulator.received() == [1_00, 3_00]


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({"token": "other"}, "authorize:InvalidToken"),
        ({"token": "demo-agent-token", "scopes": ["read"]}, "scopes_missing"),
        ({"token": "demo-agent-token", "scopes": ["payments"]}, "scopes_missing"),
        ({"is_virtual": True}, "virtual_account"),
        ({"currency": "EUR"}, "other_currency"),
    ],
)
def test_a_session_that_is_not_what_it_should_be_sends_nothing(adapter, deriv_simulator, order, code):
    deriv_simulator.customer(AGENT, **order)

    outcome = send(adapter, a_transfer())

    assert isinstance(outcome, NotSent)
    assert outcome.code == code
    assert outcome.alert
    assert deriv_simulator.simulator.calls_seen.get("paymentagent_transfer", 0) == 0


def test_a_token_of_another_account_sends_nothing(adapter_of, deriv_simulator):
    adapter = adapter_of(token="jane-token")

    assert send(adapter, a_transfer()).code == "other_loginid"
    assert deriv_simulator.received() == []


def test_an_agent_without_a_credential_sends_nothing(adapter):
    assert send(adapter, a_transfer(agent="CR1")) == NotSent("agent_unknown", 300, alert=True)
    assert adapter.find(a_transfer(agent="CR1")) == Unreadable("agent_unknown")


@pytest.mark.parametrize(("fault", "status"), [("updating", "updating"), ("site_down", "down")])
def test_during_maintenance_no_money_is_sent_but_books_are_read(adapter, deriv_simulator, fault, status):
    transfer = a_transfer(1_00)
    send(adapter, transfer)
    deriv_simulator.arm(fault, call="website_status")
    wait_until(lambda: adapter._link(AGENT)._site_status == status)

    outcome = send(adapter, a_transfer(2_00))
    found = adapter.find(transfer)
    deriv_simulator.simulator.faults.clear()
    wait_until(lambda: adapter._link(AGENT)._site_status == "up")

    assert outcome == NotSent(f"site_{status}", 60, alert=True)
    assert isinstance(found, Found)
    assert isinstance(send(adapter, a_transfer(3_00)), Done)


def test_deriv_is_never_called_inside_a_database_transaction(adapter_of, deriv_simulator):
    adapter = adapter_of(outside=lambda: False)

    for call in (
        lambda: send(adapter, a_transfer()),
        lambda: adapter.find(a_transfer()),
        lambda: adapter.check_login(JANE, AGENT, TEN),
        lambda: adapter.identify("jane-token"),
    ):
        with pytest.raises(InsideTransaction):
            call()
    assert deriv_simulator.simulator.calls_seen == {}


def test_after_a_fork_parent_and_child_each_have_their_own_socket(adapter, deriv_simulator):
    send(adapter, a_transfer(1_00))

    child = os.fork()
    if child == 0:  # never raise here: the child is a copy of the whole test run
        code = 1
        try:
            code = 0 if isinstance(send(adapter, a_transfer(2_00)), Done) else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    after = send(adapter, a_transfer(3_00))

    assert os.waitstatus_to_exitcode(status) == 0
    assert isinstance(after, Done)
    assert deriv_simulator.received() == [1_00, 2_00, 3_00]
    assert deriv_simulator.simulator.calls_seen["authorize"] == 2


def test_neither_tokens_nor_frames_are_logged(adapter, deriv_simulator, caplog):
    with caplog.at_level(logging.DEBUG):
        adapter.identify("jane-token")
        send(adapter, a_transfer())
        deriv_simulator.arm("token_superseded", count=1)
        send(adapter, a_transfer())
        wait_until(lambda: "InvalidToken" in caplog.text)

    for secret in ("jane-token", "demo-agent-token", "JANE", "CR100001"):
        assert secret not in caplog.text


# --- whose token ------------------------------------------------------------------------------------------------------


def test_a_customers_token_tells_whose_it_is(adapter):
    account = adapter.identify("jane-token")

    assert (account.account, account.currency, account.full_name) == ("CR100001", "USD", "JANE DOE")
    assert account.scopes == {"read", "payments"}
    assert not account.is_virtual
    assert "JANE" not in repr(account)


@pytest.mark.parametrize("token", ["wrong", "", "with space", "ü", "x" * 129, "jane-token\n"])
def test_a_token_that_deriv_does_not_know_is_refused_without_repeating_it(adapter, token):
    with pytest.raises(DerivTokenRefused) as refused:
        adapter.identify(token)

    assert not token or token not in refused.value.detail


@pytest.mark.parametrize("fault", ["lost_answer_before_effect", "drop_socket_before_effect", "rate_limited"])
def test_a_token_that_cannot_be_checked_now_is_not_refused(adapter_of, deriv_simulator, fault):
    deriv_simulator.arm(fault, call="authorize", count=1)
    adapter = adapter_of(replace(QUICK, handshake=0.3))

    with pytest.raises(DerivUnavailable):
        adapter.identify("jane-token")


# --- the statement ----------------------------------------------------------------------------------------------------


def test_two_bookings_of_one_transfer_are_both_found(adapter, deriv_simulator):
    deriv_simulator.arm("double_booking", count=1)
    transfer = a_transfer()

    outcome = send(adapter, transfer)
    found = adapter.find(transfer)

    assert isinstance(outcome, Done)
    assert len(found.references) == 2
    assert outcome.reference in found.references
    assert deriv_simulator.received() == [10_25, 10_25]


def test_a_gap_in_the_book_proves_nothing(adapter, deriv_simulator):
    deriv_simulator.arm("lost_answer_after_effect", count=1)
    transfer = a_transfer()
    send(adapter, transfer)
    deriv_simulator.arm("statement_gap", call="statement")

    hidden = adapter.find(transfer)
    send(adapter, a_transfer(2_00))
    deriv_simulator.simulator.faults.clear()

    assert hidden == Absent(proven=False)
    assert isinstance(adapter.find(transfer), Found)


def test_a_gap_where_the_reading_begins_proves_nothing(adapter, deriv_simulator):
    simulator = deriv_simulator.simulator
    simulator.clock.advance(600)
    transfer = a_transfer(created_at=simulator.clock())
    absent = adapter.find(transfer)  # nothing since: the last entry before stands for the chain
    deriv_simulator.arm("lost_answer_after_effect", count=1)
    send(adapter, transfer)
    simulator.bank.withdraw(simulator.bank.accounts["CR100001"], simulator.bank.accounts[AGENT], 1_00, "thanks")
    deriv_simulator.arm("statement_gap", call="statement")

    hidden = adapter.find(transfer)
    simulator.faults.clear()

    assert absent == Absent(proven=True)
    assert hidden == Absent(proven=False)
    assert isinstance(adapter.find(transfer), Found)


def test_customers_notes_with_our_reference_are_not_taken_for_our_transfer(adapter, deriv_simulator):
    bank = deriv_simulator.simulator.bank
    jane, agent = bank.accounts["CR100001"], bank.accounts[AGENT]
    transfer = a_transfer(10_00)
    note = f"Agent note: PP {transfer.reference}"
    bank.withdraw(jane, agent, 10_00, note)
    bank.enter(jane, 10_00, "deposit", "refill", None)
    bank.withdraw(jane, agent, 10_00, f"x to CR100001. Transaction reference: y. Timestamp: z. {note}")

    assert adapter.find(transfer) == Absent(proven=True)


def test_another_customer_or_amount_under_our_reference_is_no_match_and_no_proof(adapter, deriv_simulator):
    deriv_simulator.customer("CR100002", name="JOHN ROE")
    transfer = a_transfer(10_00)
    twin = a_transfer(10_00, account="CR100002", transaction=transfer.transaction_id)
    send(adapter, twin)

    assert adapter.find(transfer) == Absent(proven=False)


def test_equal_amounts_in_the_same_second_are_told_apart(adapter):
    first, second = a_transfer(10_00), a_transfer(10_00)

    outcomes = send(adapter, first), send(adapter, second)

    assert adapter.find(first).references == (outcomes[0].reference,)
    assert adapter.find(second).references == (outcomes[1].reference,)


def test_a_long_statement_is_read_page_by_page(adapter, deriv_simulator, monkeypatch):
    monkeypatch.setattr("deriv_integration.infrastructure.ws_v3.book.PAGE", 7)
    transfer = a_transfer()
    done = send(adapter, transfer)
    for _ in range(20):
        send(adapter, a_transfer(1_00))

    assert adapter.find(transfer).references == (done.reference,)
    assert adapter.find(a_transfer()) == Absent(proven=True)


@pytest.fixture
def pages(deriv_simulator, monkeypatch):
    """What the statement calls asked for, and how many entries each was given."""
    asked, statement = [], deriv_simulator.simulator.bank.statement

    def counted(*arguments, **options):
        entries = list(statement(*arguments, **options))
        asked.append(len(entries))
        return entries

    monkeypatch.setattr(deriv_simulator.simulator.bank, "statement", counted)
    return asked


def test_questions_that_come_together_share_one_reading(adapter, deriv_simulator, pages):
    deriv_simulator.simulator.latency_s = (0.05, 0.05)
    transfers = [a_transfer(1_00 + number) for number in range(40)]
    with ThreadPoolExecutor(40) as threads:
        list(threads.map(lambda transfer: send(adapter, transfer), transfers))
        found = list(threads.map(adapter.find, transfers))

    assert [len(one.references) for one in found] == [1] * 40
    assert len({one.references for one in found}) == 40
    assert len(pages) < 10


def test_what_was_read_is_not_read_again(adapter, deriv_simulator, pages):
    transfers = [a_transfer() for _ in range(30)]
    for transfer in transfers:
        send(adapter, transfer)
    deriv_simulator.simulator.clock.advance(2)  # the second of the newest entry is read again
    send(adapter, a_transfer())
    adapter.find(transfers[0])
    del pages[:]

    assert all(len(adapter.find(transfer).references) == 1 for transfer in transfers)
    assert pages == [1] * 30


def test_that_there_is_none_is_never_said_from_memory(adapter, deriv_simulator):
    """Two entries that cancel each other out turn up in the middle: no balance tells."""
    simulator, entries = deriv_simulator.simulator, deriv_simulator.simulator.bank.accounts[AGENT].entries
    transfer = a_transfer(3_00)
    send(adapter, a_transfer(1_00))
    send(adapter, transfer)
    simulator.bank.withdraw(simulator.bank.accounts["CR100001"], simulator.bank.accounts[AGENT], 3_00, "thanks")
    hidden, entries[-2:] = entries[-2:], []
    assert adapter.find(transfer) == Absent(proven=True)  # as far as anybody can see
    send(adapter, a_transfer(4_00))
    assert adapter.find(transfer) == Absent(proven=True)
    entries[-1:-1] = hidden

    assert isinstance(adapter.find(transfer), Found)


def test_no_question_is_answered_by_a_reading_that_had_begun(adapter, deriv_simulator):
    adapter.find(a_transfer())
    deriv_simulator.simulator.latency_s = (0.3, 0.3)
    with ThreadPoolExecutor(2) as threads:
        early = threads.submit(adapter.find, a_transfer())
        time.sleep(0.1)
        deriv_simulator.simulator.latency_s = (0.0, 0.0)
        transfer = a_transfer()
        send(adapter, transfer)
        deriv_simulator.simulator.latency_s = (0.3, 0.3)
        late = threads.submit(adapter.find, transfer)

        assert isinstance(late.result(), Found)
        assert isinstance(early.result(), Absent)


def test_a_book_that_does_not_go_on_from_what_is_known_is_read_anew(adapter, deriv_simulator):
    entries = deriv_simulator.simulator.bank.accounts[AGENT].entries
    transfer, other = a_transfer(3_00), a_transfer(2_00)
    send(adapter, other)
    send(adapter, transfer)
    hidden = entries.pop()
    assert isinstance(adapter.find(other), Found)
    send(adapter, a_transfer(4_00))
    assert adapter.find(transfer) == Absent(proven=False)  # its place is empty: the balances tell
    entries[-1:-1] = [hidden]

    assert isinstance(adapter.find(transfer), Found)


def test_one_old_question_does_not_fail_the_others(adapter, deriv_simulator, monkeypatch):
    monkeypatch.setattr("deriv_integration.infrastructure.ws_v3.book.PAGE", 3)
    monkeypatch.setattr("deriv_integration.infrastructure.ws_v3.book.MOST_PAGES", 4)
    for _ in range(20):
        send(adapter, a_transfer())
    deriv_simulator.simulator.clock.advance(600)
    fresh = a_transfer(created_at=deriv_simulator.simulator.clock())
    send(adapter, fresh)
    old = a_transfer()
    deriv_simulator.simulator.latency_s = (0.1, 0.1)
    with ThreadPoolExecutor(3) as threads:
        threads.submit(adapter.find, fresh)
        time.sleep(0.05)
        answers = [threads.submit(adapter.find, one) for one in (old, fresh)]

        assert answers[0].result() == Unreadable("statement_too_long")
        assert isinstance(answers[1].result(), Found)


def test_what_is_known_stays_bounded(adapter, monkeypatch):
    monkeypatch.setattr("deriv_integration.infrastructure.ws_v3.book.MOST_KNOWN", 5)
    transfers = [a_transfer() for _ in range(20)]
    for transfer in transfers:
        send(adapter, transfer)
        assert isinstance(adapter.find(transfer), Found)

    [book] = adapter._books.values()
    assert len(book._known.entries) == 5
    assert all(isinstance(adapter.find(transfer), Found) for transfer in transfers)


def test_a_later_attempt_also_finds_what_an_earlier_one_left(adapter, deriv_simulator):
    begun = time.time_ns() // 1_000_000 - 600_000
    transaction = UUID(int=(begun << 80) | (7 << 76) | (2 << 62) | 4711)
    first = a_transfer(transaction=transaction)
    deriv_simulator.arm("lost_answer_after_effect", count=1)
    send(adapter, first)
    deriv_simulator.simulator.clock.advance(400)

    second = a_transfer(transaction=transaction, attempt=2)
    second.created_at += timedelta(seconds=400)

    assert second.reference == first.reference
    assert isinstance(adapter.find(second), Found)


def test_a_book_that_cannot_be_read_says_so(adapter, deriv_simulator):
    transfer = a_transfer()
    for fault, code in (("rate_limited", "RateLimit"), ("wrong_response_before", "WrongResponse")):
        deriv_simulator.arm(fault, call="statement", count=1)
        assert adapter.find(transfer) == Unreadable(code)
    deriv_simulator.arm("lost_answer_before_effect", call="statement", count=1)
    assert adapter.find(transfer) == Unreadable("timeout")


def test_the_control_side_works_over_http(deriv_simulator, adapter):
    body = b'{"call": "paymentagent_transfer", "fault": "lost_answer_after_effect", "count": 1}'
    urlopen(Request(f"http://{deriv_simulator.address}/_control/faults", data=body, method="POST")).close()

    assert send(adapter, a_transfer()) == Unknown("timeout")


# --- a customer's withdrawal, and the customers that Deriv moves ------------------------------------------------------


def a_debit(adapter, deriv_simulator, amount=10_25, **over):
    """With a code that was just mailed."""
    adapter.request_code(JANE, "jane-token", AGENT, Money(amount, Currency.USD))
    over = {"verification_code": deriv_simulator.simulator.last_code("CR100001"), "token": "jane-token", **over}
    return a_transfer(amount, leg=Leg.DERIV_DEBIT, **over)


def test_a_withdrawal_carries_our_reference_and_its_exact_amount(adapter, deriv_simulator):
    transfer = a_debit(adapter, deriv_simulator, 10_10)

    outcome = send(adapter, transfer)

    (moved,) = deriv_simulator.simulator.books.movements
    assert isinstance(outcome, Accepted)
    assert (moved["from"], moved["to"], moved["amount"]) == ("CR100001", AGENT, "10.10")
    assert moved["reference"] == f"PP {transfer.reference}"


def test_a_dry_runs_answer_is_no_withdrawal(adapter, deriv_simulator):
    transfer = a_debit(adapter, deriv_simulator)
    deriv_simulator.arm("dry_run_value", "withdraw", count=1)

    assert send(adapter, transfer).code == "dry_run_answer"
    assert adapter.find(transfer) == Absent(proven=True)


def test_a_withdrawal_that_never_was_is_proven_absent_by_the_chain_and_a_gap_forbids_it(adapter, deriv_simulator):
    send(adapter, a_transfer(1_00))
    transfer = a_debit(adapter, deriv_simulator)
    deriv_simulator.arm("request_timeout_before", "withdraw", count=1)
    send(adapter, transfer)

    assert adapter.find(transfer) == Absent(proven=True)
    deriv_simulator.arm("statement_gap", "statement")
    assert adapter.find(transfer) == Absent(proven=False)


def test_a_hostile_customers_note_neither_proves_nor_hides_anothers_withdrawal(adapter, deriv_simulator):
    deriv_simulator.customer("CR100002", name="MALLORY", balance="90.00", token="mallory")
    bank = deriv_simulator.simulator.bank
    ours = a_debit(adapter, deriv_simulator)
    deriv_simulator.arm("request_timeout_before", "withdraw", count=1)
    send(adapter, ours)
    bank.accounts[AGENT].name = f"PenPay Client note: PP {ours.reference}"

    for note in (f"PP {ours.reference}", f"Transaction reference: x Client note: PP {ours.reference}"):
        bank.withdraw(bank.accounts["CR100002"], bank.accounts[AGENT], 10_25, note)
    hostile = adapter.find(ours)
    bank.withdraw(bank.accounts["CR100001"], bank.accounts[AGENT], 10_25, f"PP {ours.reference}")
    honest = adapter.find(ours)

    assert isinstance(hostile, Absent)
    assert len(honest.references) == 1


def test_a_code_for_a_customer_whom_deriv_asks_for_something_first_is_refused_with_derivs_reason(
    adapter, deriv_simulator
):
    deriv_simulator.customer(status=["PaymentAgentJustification"])

    with pytest.raises(WithdrawalRefused) as raised:
        adapter.request_code(JANE, "jane-token", AGENT, TEN)

    assert raised.value.provider_code == "PaymentAgentJustification"
    assert "why" in raised.value.detail


def test_a_token_without_payments_gets_no_code_and_moves_nothing(adapter, deriv_simulator):
    transfer = a_debit(adapter, deriv_simulator)
    deriv_simulator.customer(token="reads-only", scopes=["read"])
    transfer.token = "reads-only"

    assert send(adapter, transfer).code == "scopes_missing"
    with pytest.raises(WithdrawalRefused):
        adapter.request_code(JANE, "reads-only", AGENT, TEN)
    assert deriv_simulator.simulator.books.movements == []


@pytest.mark.parametrize("fault", ["drop_socket_before_effect", "lost_answer_before_effect", "wrong_response_before"])
def test_what_fails_at_the_log_in_never_reached_the_money(adapter, deriv_simulator, fault):
    transfer = a_debit(adapter, deriv_simulator)
    deriv_simulator.arm(fault, "authorize", loginid="", count=1)

    outcome = send(adapter, transfer)

    assert isinstance(outcome, NotSent)
    assert isinstance(send(adapter, transfer), Accepted)  # its code is still good


@pytest.mark.parametrize(
    ("moved", "kind", "code", "credited"),
    [
        (True, Refused, "authorize:DisabledClient", Refused),
        ("AccountMigrated", Refused, "login_moved", Refused),
        ("disconnect", NotSent, "authorize:socket_lost", Unknown),
    ],
)
def test_a_customer_moved_to_the_new_platform_in_mid_flight_gets_a_clear_code_and_loses_nothing(
    adapter, deriv_simulator, moved, kind, code, credited
):
    transfer = a_debit(adapter, deriv_simulator)
    sent = a_transfer(1_00)
    send(adapter, sent)
    deriv_simulator.customer(moved=moved)

    outcome = send(adapter, transfer)
    credit = a_transfer(2_00)
    credit_outcome = send(adapter, credit)

    assert isinstance(outcome, kind)
    assert outcome.code == code
    assert isinstance(credit_outcome, credited)
    assert not isinstance(adapter.check_login(JANE, AGENT, TEN), Done)
    assert isinstance(adapter.find(sent), Found)  # what went before is still in the agent's book
    assert adapter.find(transfer) == adapter.find(credit) == Absent(proven=True)
    with pytest.raises((DerivTokenRefused, DerivUnavailable)):
        adapter.request_code(JANE, "jane-token", AGENT, TEN)
    assert [movement["amount"] for movement in deriv_simulator.simulator.books.movements] == ["1.00"]


def test_the_agents_book_shows_what_nobody_asked_for_and_what_was_taken_back(adapter, deriv_simulator):
    bank, begun = deriv_simulator.simulator.bank, datetime.now(UTC) - timedelta(seconds=1)
    bank.withdraw(bank.accounts["CR100001"], bank.accounts[AGENT], 3_00, "hello")
    deriv_simulator.arm("reverted_later", after_s=0.05, count=1)
    send(adapter, a_transfer(2_00))
    wait_until(lambda: len(adapter.book(AGENT, begun)) == 3)

    book = adapter.book(AGENT, begun)

    assert [(entry.amount.amount, entry.counterpart, bool(entry.reference)) for entry in book] == [
        (2_00, "", False),
        (-2_00, "CR100001", True),
        (3_00, "CR100001", False),
    ]
    assert adapter.book("CR1", begun) == Unreadable("agent_unknown")
    deriv_simulator.arm("error", "statement", code="RateLimit", message="")
    assert adapter.book(AGENT, begun) == Unreadable("RateLimit")


def test_two_agents_have_a_socket_and_a_book_each(deriv_simulator):
    deriv_simulator.customer("CR900002", name="PenPay 2", is_agent=True, balance="500.00", token="second-agent")
    credentials = [Credential(AGENT, "demo-agent-token"), Credential("CR900002", "second-agent")]
    adapter = WsV3(deriv_simulator.url, "1089", credentials, timing=QUICK, outside=lambda: True)
    first, second = a_transfer(1_00), a_transfer(2_00, agent="CR900002")

    outcomes = [send(adapter, first), send(adapter, second)]

    assert adapter.agents == [AGENT, "CR900002"]
    assert [adapter.find(t).references for t in (first, second)] == [(outcome.reference,) for outcome in outcomes]
    assert [moved["from"] for moved in deriv_simulator.simulator.books.movements] == [AGENT, "CR900002"]
    adapter.close()


def test_a_customers_session_leaves_no_thread_and_no_socket_behind(adapter, deriv_simulator):
    send(adapter, a_transfer(1_00))
    before = threading.active_count()

    for _ in range(5):
        send(adapter, a_debit(adapter, deriv_simulator, 1_00))

    wait_until(lambda: threading.active_count() <= before)
    wait_until(lambda: len(deriv_simulator.simulator.sessions) == 1)  # the agent's
