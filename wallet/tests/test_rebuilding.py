"""Kept balances are made anew from the entries while postings go on, and are equal afterwards."""

import json
import random
import threading
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.db import connection

from shared_kernel.infrastructure.persistence import unit_of_work
from shared_kernel.models import AuditLog
from shared_kernel.tests.users import by_owner
from wallet.facade import ledger, rebuild_balances, verify_ledger
from wallet.infrastructure import rebuilding
from wallet.infrastructure.persistence import forget_accounts
from wallet.models import LedgerBalance
from wallet.tests.factories import (
    DERIV,
    MPESA,
    a_customer,
    a_deposit,
    a_received_deposit,
    held,
    kes,
    post,
    receive,
    send,
    usd,
)
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)
side_by_side = pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")


@pytest.fixture(autouse=True)
def _no_account_is_known():
    forget_accounts()


def sent_deposit():
    deposit, customer = a_received_deposit(kes(1300))
    post(lambda: send(deposit, customer, kes(1300)))
    return customer


def spoil(account, by=7):
    """Somebody changes what is kept."""
    run(f"UPDATE ledger_balances SET credit_balance = credit_balance + {by} WHERE account_id = X'{account.id.hex}'")


def stray(account):
    run(f"INSERT INTO ledger_balances (account_id, slot, credit_balance) VALUES (X'{account.id.hex}', 5, 900)")


def run(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


def findings():
    return [finding.check for finding in verify_ledger().findings]


def test_what_is_right_is_left_alone():
    sent_deposit()
    before = list(LedgerBalance.objects.order_by("account_id", "slot").values_list("slot", "credit_balance"))

    rebuilt = rebuild_balances()

    assert (rebuilt.accounts, rebuilt.differed) == (7, 0)
    assert list(LedgerBalance.objects.order_by("account_id", "slot").values_list("slot", "credit_balance")) == before
    assert AuditLog.objects.count() == 0


@pytest.mark.parametrize(
    "damage",
    [
        lambda customer: spoil(DERIV),
        lambda customer: spoil(held(customer)),
        lambda customer: run("DELETE FROM ledger_balances"),
        lambda customer: run("UPDATE ledger_balances SET credit_balance = 0"),
        lambda customer: run(f"UPDATE ledger_balances SET slot = 3 WHERE account_id = X'{held(customer).id.hex}'"),
        lambda customer: stray(held(customer)),
    ],
    ids=["house", "customer", "all gone", "all zero", "in another slot", "twice"],
)
def test_whatever_was_done_to_kept_balances_is_undone_from_the_entries(damage):
    customer = sent_deposit()
    a_received_deposit(kes(5))
    receive_more(customer)
    damage(customer)
    assert findings() != []

    rebuilt = rebuild_balances()

    assert rebuilt.differed > 0
    assert findings() == []
    assert ledger.balance(held(customer)) == kes(40)
    assert ledger.balance(MPESA) == kes(1345)
    assert rebuild_balances().differed == 0


def receive_more(customer):
    post(lambda: receive(a_deposit(), customer, kes(40)))


def test_each_correction_is_audited_with_what_was_kept_and_what_it_is_now():
    sent_deposit()
    spoil(DERIV)

    rebuild_balances()

    row = AuditLog.objects.get()
    assert (row.action, row.target_id, row.before, row.after) == (
        "ledger.balance_rebuilt", str(DERIV.id), "998", "991",
    )  # fmt: skip


def test_a_dry_run_finds_and_changes_nothing():
    sent_deposit()
    spoil(DERIV)

    rebuilt = rebuild_balances(dry_run=True)

    assert [(one.name, one.kept, one.entries) for one in rebuilt.named] == [("deriv_agent CR900001 USD", 998, 991)]
    assert findings() == ["balances", "trial_balance"]
    assert AuditLog.objects.count() == 0


def test_entries_that_overdraw_a_customer_are_told_and_all_else_is_put_right():
    customer = sent_deposit()
    spoil(DERIV)
    by_owner(*forged_debit(customer))

    rebuilt = rebuild_balances()

    assert [(one.name, one.entries) for one in rebuilt.impossible] == [(str(held(customer)), -500)]
    assert ledger.balance(DERIV) == usd(Decimal("-9.91"))
    assert findings() == ["balances", "trial_balance"]


def forged_debit(customer):
    return [
        "INSERT INTO ledger_entries (id, journal_id, purpose, debit_account_id, credit_account_id, amount, currency, "
        "reference, effective_at, recorded_at) "
        f"VALUES (X'{'a' * 32}', X'{'b' * 32}', 'forged', X'{held(customer).id.hex}', X'{MPESA.id.hex}', 500, 'KES', "
        "'forged:1', '2026-11-02 09:30:00', '2026-11-02 09:30:00')"
    ]


@side_by_side
def test_what_is_posted_between_looking_and_correcting_is_kept(monkeypatch):
    customer = sent_deposit()
    spoil(MPESA)
    spoil(held(customer))
    correct = rebuilding._correct

    def correct_later(wrong):
        assert at_once(lambda: receive_more(customer), lambda: a_received_deposit(kes(3)))[0] is None
        correct(wrong)

    monkeypatch.setattr(rebuilding, "_correct", correct_later)
    rebuilt = rebuild_balances()

    assert rebuilt.differed == 2
    assert findings() == []
    assert ledger.balance(MPESA) == kes(1343)


@side_by_side
def test_a_posting_that_is_not_committed_yet_neither_waits_nor_is_counted():
    """A unit of work is open with everything written; the rebuild corrects another slot of the same account."""
    a_received_deposit(kes(1))
    spoil(MPESA)

    with unit_of_work():
        receive(a_deposit(), a_customer(), kes(1))
        from shared_kernel.infrastructure.persistence import current_work

        for step in list(current_work().at_end.values()):
            step()
        current_work().at_end.clear()
        [rebuilt] = at_once(rebuild_balances)
        assert rebuilt.differed == 1

    assert findings() == []


@side_by_side
def test_two_rebuilds_at_once_correct_once(monkeypatch):
    _, customer = a_received_deposit(kes(1300))
    spoil(MPESA)
    spoil(held(customer), by=-7)
    correct, both = rebuilding._correct, threading.Barrier(2)
    seen = threading.local()

    def correct_together(wrong):
        if not hasattr(seen, "once"):
            seen.once = both.wait(timeout=30)  # each has read the same differences
        correct(wrong)

    monkeypatch.setattr(rebuilding, "_correct", correct_together)
    results = at_once(rebuild_balances, rebuild_balances)

    assert [result.differed for result in results] == [2, 2]
    assert findings() == []
    assert AuditLog.objects.count() == 2


@side_by_side
def test_balances_are_equal_after_rebuilds_and_damage_while_eight_threads_post():
    customers = [a_customer() for _ in range(20)]
    with unit_of_work():
        for customer in customers:
            receive(a_deposit(), customer, kes(10_000))
    sent_deposit()
    over = threading.Event()

    def write(seed):
        order, written = random.Random(seed), 0
        while not over.is_set():
            with unit_of_work():
                for customer in order.sample(customers, 5):
                    if order.random() < 0.5:
                        receive(a_deposit(), customer, kes(order.randint(1, 50)))
                    else:
                        send(a_deposit(), customer, kes(order.randint(10, 50)))
            written += 1
        return written

    def damage_and_rebuild():
        try:
            return [one_round(number) for number in range(6)]
        finally:
            over.set()

    def one_round(number):
        for account in (MPESA, DERIV, held(customers[number])):
            spoil(account, by=10_000_000)
        if number == 3:
            run(f"DELETE FROM ledger_balances WHERE account_id = X'{MPESA.id.hex}'")
        return rebuild_balances().differed

    differed, *written = at_once(damage_and_rebuild, *[lambda seed=seed: write(seed) for seed in range(8)])

    assert differed == [3] * 6
    assert all(isinstance(count, int) and count > 0 for count in written), written
    assert findings() == []


def test_the_command_says_what_it_did_by_its_exit_code_and_json(capsys):
    sent_deposit()
    call_command("rebuild_balances", "--json")
    assert json.loads(capsys.readouterr().out) | {"ok": True, "accounts": 7} == json.loads(
        json.dumps({"accounts": 7, "differed": 0, "named": [], "impossible": [], "ok": True, "dry_run": False})
    )
    spoil(DERIV)

    for options, told in ((["--dry-run"], True), ([], False)):
        with pytest.raises(SystemExit) as stopped:
            call_command("rebuild_balances", "--json", *options)
        found = json.loads(capsys.readouterr().out)
        assert stopped.value.code == 1
        assert (found["ok"], found["dry_run"], found["differed"]) == (False, told, 1)
        assert found["named"][0]["account"] == str(DERIV.id)

    call_command("rebuild_balances")
    assert capsys.readouterr().out == "7 accounts, 0 differed\n"
    assert AuditLog.objects.get().actor == "system:command:rebuild_balances"
