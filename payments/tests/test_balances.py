"""The watch over the providers' balances, on the real simulators: what drifts is told once, what is in flight never."""

import logging
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection

from deriv_integration.facade import deriv
from deriv_integration.tests.fixtures import REST_AGENT
from mpesa_integration.facade import mpesa
from payments import models, queries
from payments.domain.transaction import TransactionStatus as S
from payments.facade import balances, recovery
from payments.tests.factories import AGENT, SHORTCODE, a_stored_deposit, kes, usd
from payments.tests.test_recovery import pays_the_paybill
from payments.workers import look_at_balances, take_balances
from shared_kernel.domain.requests import Leg
from shared_kernel.infrastructure.budgets import SharedBudgets
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.facade import deriv_agent, ledger, mpesa_utility, mpesa_working

pytestmark = pytest.mark.django_db(transaction=True)
server_database = pytest.mark.skipif(connection.vendor == "sqlite", reason="callbacks come on threads of their own")
HELD = 100_000_00  # of each agent, by the simulator


@pytest.fixture
def at_providers(mpesa_simulator, deriv_at_simulator, live_server, settings):
    """Both providers hold what the ledger says, and M-Pesa's callbacks come."""
    settings.MPESA_CALLBACK_BASE_URL = live_server.url
    mpesa_simulator.deposits_to = "working"
    held = {name: int(amount * 100) for name, amount in mpesa_simulator.accounts.balances.items() if amount}
    with unit_of_work():
        for agent in (AGENT, REST_AGENT):
            ledger.post_opening(deriv_agent(agent), usd(HELD), reference=f"test:{agent}", at=now())
        for name, amount in held.items():
            shortcode, _, kind = name.partition("/")
            account = {"working": mpesa_working, "utility": mpesa_utility}[kind](shortcode)
            ledger.post_opening(account, kes(amount // 100), reference=f"test:{name}", at=now())
    return mpesa_simulator, deriv_at_simulator


def look():
    """One look, with all that M-Pesa answers to it."""
    told = look_at_balances()
    until = time.monotonic() + 10
    while models.ProviderBalance.objects.filter(as_of=None).exists() and time.monotonic() < until:
        time.sleep(0.05)
        take_balances()
    return told


def takes_out(served, cents, agent=AGENT):
    """A movement at Deriv that is none of ours."""
    bank = served.simulator.bank
    account = bank.accounts.get(agent) or bank.agent(int(agent))
    bank.enter(account, -cents, "withdrawal", "Fee", None)


def alerts(caplog):
    return [record.message for record in caplog.records if record.message.startswith("balance_drift")]


def drifts():
    rows = models.BalanceDrift.objects.order_by("pk")
    return [(row.account, row.looks, row.unexplained, row.over_at is not None) for row in rows]


@server_database
def test_each_look_stores_what_every_account_holds_at_its_provider_and_nothing_drifts(at_providers, caplog):
    told = [look(), look()]

    assert [(t["asked"], t["left"], t["open"]) for t in told] == [(4, 0, 0)] * 2
    rows = models.ProviderBalance.objects.exclude(as_of=None)
    seen = {(row.account, row.sub_account): (row.amount, row.ledger) for row in rows}
    assert rows.count() == 2 * len(seen)
    assert {account for account, _ in seen} == {AGENT, REST_AGENT, SHORTCODE, "600992"}
    assert seen[AGENT, "deriv_agent"] == seen[REST_AGENT, "deriv_agent"] == (HELD, HELD)
    assert all(theirs == ours for theirs, ours in seen.values())
    assert (drifts(), alerts(caplog)) == ([], [])


@server_database
@pytest.mark.parametrize("agent", [AGENT, REST_AGENT])
def test_a_drift_is_told_at_the_second_look_once_and_once_more_when_it_is_over(at_providers, caplog, agent):
    takes_out(at_providers[1], 5_00, agent)
    look()
    assert (drifts(), alerts(caplog)) == ([(agent, 1, -5_00, False)], [])

    for _ in range(3):
        look()

    assert (drifts(), alerts(caplog)) == ([(agent, 4, -5_00, False)], ["balance_drift"])
    [position] = [p for p in queries.float_positions() if p.account.owner == agent]
    assert (position.seen, position.difference) == (HELD - 5_00, -5_00)
    assert position.drifts_since == models.BalanceDrift.objects.get().since
    with unit_of_work():
        ledger.post_suspense_out("deriv_agent", agent, usd(5_00), provider_key=f"deriv:{agent}:{new_id()}", at=now())
    look()
    assert (drifts(), alerts(caplog)) == ([(agent, 4, 0, True)], ["balance_drift", "balance_drift_over"])
    told = AuditLog.objects.filter(target_type="balance_drift").order_by("seq").values_list("action", flat=True)
    assert list(told) == ["balance.drifts", "balance.drift_over"]
    [position] = [p for p in queries.float_positions() if p.account.owner == agent]
    assert (position.difference, position.drifts_since) == (0, None)


@server_database
def test_a_drift_of_one_look_is_told_to_nobody(at_providers, caplog):
    takes_out(at_providers[1], 5_00)
    look()
    with unit_of_work():
        ledger.post_suspense_out("deriv_agent", AGENT, usd(5_00), provider_key=f"deriv:{AGENT}:1", at=now())

    look()

    assert (drifts(), alerts(caplog)) == ([(AGENT, 1, 0, True)], [])
    assert not AuditLog.objects.filter(target_type="balance_drift").exists()


@server_database
def test_a_drift_that_comes_back_is_another_one(at_providers, caplog):
    for amount in (5_00, 7_00):
        takes_out(at_providers[1], amount)
        look(), look()
        with unit_of_work():
            ledger.post_suspense_out(
                "deriv_agent", AGENT, usd(amount), provider_key=f"deriv:{AGENT}:{new_id()}", at=now()
            )
        look()

    assert len(drifts()) == 2
    assert alerts(caplog) == ["balance_drift", "balance_drift_over"] * 2


@server_database
def test_money_on_a_paybill_that_nobody_knows_of_drifts_until_it_lies_in_suspense(at_providers, caplog):
    pays_the_paybill(at_providers[0], 700, "school fees")
    look(), look()
    assert drifts() == [(SHORTCODE, 2, 700_00, False)]

    replace(recovery, clock=lambda: now() + timedelta(hours=1)).find_orphans()
    look()

    assert drifts() == [(SHORTCODE, 2, 0, True)]
    assert alerts(caplog) == ["balance_drift", "balance_drift_over"]


def sent(deposit, **over):
    """The intent of a credit, its outcome open; and Deriv has booked it."""
    transfer = deriv.new_transfer(deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, AGENT, deposit.payout, at=now())
    with unit_of_work():
        deriv.record([transfer])
    return transfer


@server_database
@pytest.mark.parametrize("booked", [True, False])
def test_what_is_in_flight_is_no_drift_whether_deriv_has_booked_it_or_not(at_providers, caplog, booked):
    transfer = sent(a_stored_deposit(S.MPESA_CONFIRMED))
    if booked:
        deriv.send(transfer, give_up_at=time.monotonic() + 5)

    look(), look(), look()

    assert [drift for drift in drifts() if drift[0] == AGENT] == []
    assert "balance_drift" not in [r.message for r in caplog.records if getattr(r, "account", "") == AGENT]


@server_database
def test_more_than_what_is_in_flight_is_a_drift_of_just_the_rest(at_providers):
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    sent(deposit)
    takes_out(at_providers[1], deposit.payout.amount + 5_00)

    look(), look()

    assert (AGENT, 2, -5_00, False) in drifts()


@server_database
def test_what_is_sent_while_the_provider_answers_is_in_flight(at_providers):
    """The ledger is read before, the balance after Deriv has booked it."""
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)

    class Meanwhile:
        def __getattr__(self, name):
            return getattr(deriv, name)

        def balance(self, agent):
            if agent == AGENT and not models.BalanceDrift.objects.exists():
                deriv.send(sent(deposit), give_up_at=time.monotonic() + 5)
            return deriv.balance(agent)

    replace(balances, deriv=Meanwhile()).look()

    [row] = models.ProviderBalance.objects.filter(account=AGENT)
    assert (row.amount, row.ledger, row.going) == (HELD - deposit.payout.amount, HELD, deposit.payout.amount)
    assert [drift for drift in drifts() if drift[0] == AGENT] == []


@server_database
def test_a_prompt_that_was_paid_and_is_not_proven_is_no_drift(at_providers, caplog):
    deposit = a_stored_deposit(S.AWAITING_MPESA)
    prompt = mpesa.new_request(deposit.id, Leg.STK_PUSH, 1, deposit.phone, deposit.amount, at=now())
    with unit_of_work():
        mpesa.record([prompt])
    mpesa.send(prompt, give_up_at=time.monotonic() + 5)
    time.sleep(0.3)  # the customer types the PIN
    assert at_providers[0].accounts.of(SHORTCODE, "working") == 1300

    look(), look()

    assert (drifts(), alerts(caplog)) == ([], [])


@pytest.mark.parametrize("where", ["mpesa", "deriv"])
def test_a_provider_that_cannot_be_read_is_told_and_the_others_are_seen(
    mpesa_simulator, deriv_at_simulator, settings, caplog, where
):
    caplog.set_level(logging.WARNING)
    if where == "mpesa":
        settings.MPESA_BASE_URL = "http://127.0.0.1:9"
    else:
        deriv_at_simulator.arm("down", "connect")
        deriv_at_simulator.arm("http_500_before", "wallet")

    told = look_at_balances()

    assert told["left"] == 2
    assert [r.message for r in caplog.records].count("balance_not_readable") == 2
    seen = models.ProviderBalance.objects.exclude(as_of=None).values_list("provider", flat=True)
    assert where not in seen


def test_a_question_that_no_callback_answers_is_told_at_the_next_look(mpesa_simulator, deriv_at_simulator, caplog):
    look_at_balances()
    assert "balance_not_readable" not in [r.message for r in caplog.records]

    look_at_balances()

    unread = [(r.account, r.code) for r in caplog.records if r.message == "balance_not_readable"]
    assert unread == [(SHORTCODE, "no_answer"), ("600992", "no_answer")]


def test_without_room_among_the_reads_an_account_waits_for_the_next_look(mpesa_simulator, deriv_at_simulator):
    lanes = ("mpesa", f"deriv:{AGENT}", f"deriv:{REST_AGENT}")
    none = SharedBudgets(dict.fromkeys(lanes, 1), "")
    with none.hand(dict.fromkeys(lanes, (9, 9)), from_queue=True) as hand:
        assert all(hand.take(lane, reads=True) or hand.take(lane) for lane in lanes)

    told = replace(balances, budgets=none).look()

    assert (told["asked"], told["left"]) == (0, 4)
    assert not models.ProviderBalance.objects.exists()


@server_database
def test_an_answer_without_one_account_of_a_group_is_no_drift_and_ends_none(at_providers, caplog):
    """Working and utility account are held against the ledger as one: what moved between them is on neither alone."""
    pays_the_paybill(at_providers[0], 700, "school fees")
    look(), look()
    assert drifts() == [(SHORTCODE, 2, 700_00, False)]

    class Partly:
        def __getattr__(self, name):
            return getattr(mpesa, name)

        def told(self, questions):
            answers = mpesa.told(questions).items()
            return {
                id: ({name: held for name, held in accounts.items() if name != "Utility Account"}, at)
                for id, (accounts, at) in answers
            }

    partly, before = replace(balances, mpesa=Partly()), models.ProviderBalance.objects.exclude(as_of=None).count()
    partly.look()
    until = time.monotonic() + 10
    while models.ProviderBalance.objects.exclude(as_of=None).count() < before + 6 and time.monotonic() < until:
        time.sleep(0.05)
        partly.take()

    assert drifts() == [(SHORTCODE, 2, 700_00, False)]
    assert ("balance_not_readable", "incomplete") in [(r.message, getattr(r, "code", "")) for r in caplog.records]


def a_drift(**over):
    given = {
        "id": new_id(), "provider": "deriv", "account": "CR900", "sub_account": "deriv_agent", "currency": "USD",
        "since": now(), "looks": 3, "difference": -5_00, "unexplained": -5_00, "seen_at": now(), "alerted_at": now(),
    } | over  # fmt: skip
    given["open_as"] = f"{given['provider']}:{given['account']}:{given['sub_account']}"
    return models.BalanceDrift.objects.create(**given)


def test_a_drift_of_what_is_watched_no_longer_is_over_with_an_audit_row(mpesa_simulator, deriv_at_simulator, caplog):
    caplog.set_level(logging.WARNING)
    gone = a_drift()
    half = a_drift(provider="mpesa", account=SHORTCODE, sub_account="mpesa_working", currency="KES", alerted_at=None)
    ours = a_drift(provider="mpesa", account=SHORTCODE, sub_account="mpesa_working+mpesa_utility", currency="KES")

    look_at_balances()

    for row in (gone, half, ours):
        row.refresh_from_db()
    assert (gone.open_as, half.open_as, ours.over_at) == (None, None, None)
    assert gone.over_at == half.over_at is not None
    assert (gone.difference, gone.unexplained) == (-5_00, -5_00)  # nobody saw it go
    told = AuditLog.objects.filter(target_type="balance_drift").order_by("seq")
    assert {(row.action, row.target_id) for row in told} == {
        ("balance.drift_over", str(gone.id)), ("balance.drift_over", str(half.id))
    }  # fmt: skip
    assert {row.why for row in told} == {"watched no longer"}
    assert alerts(caplog) == ["balance_drift_over"]
