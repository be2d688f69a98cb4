"""`verify_ledger` finds each thing that raw SQL without triggers can break, and names its first row."""

import json

import pytest
from django.core.management import call_command
from django.db import connection

from shared_kernel.infrastructure import append_only
from shared_kernel.tests.users import by_owner
from wallet.facade import entries_of, snapshot, verify_ledger
from wallet.infrastructure import verification
from wallet.infrastructure.persistence import forget_accounts
from wallet.models import LedgerEntry
from wallet.tests.factories import DERIV, MPESA, a_received_deposit, held, kes, post, send
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def broken():
    """Runs SQL past every refusal, and puts the refusals back."""
    forget_accounts()

    def run(*statements):
        append_only.remove()
        by_owner(*(sql.replace("%s", "{}").format(*map(literal, values)) for sql, *values in statements), off=True)
        append_only.install()

    return run


def literal(value):
    return f"X'{value.hex()}'" if isinstance(value, bytes) else value


def findings():
    with snapshot():
        return [(finding.check, finding.row, finding.detail) for finding in verify_ledger().findings]


def a_sent_deposit():
    deposit, customer = a_received_deposit(kes(1300))
    post(lambda: send(deposit, customer, kes(1300)))
    return deposit, customer


def test_a_sound_ledger_has_no_findings_and_is_counted():
    forget_accounts()
    a_sent_deposit()

    with snapshot():
        report = verify_ledger()

    assert report.findings == []
    assert (report.entries, report.accounts) == (5, 7)


def test_a_changed_amount_is_found_by_the_balance(broken):
    deposit, customer = a_sent_deposit()
    seq = entries_of(deposit)[0].seq

    broken(("UPDATE ledger_entries SET amount = amount + 1 WHERE seq = %s", seq))

    first = min(MPESA, held(customer), key=lambda account: account.id)
    detail = "-130000 is kept, the entries make -130001" if first == MPESA else "0 is kept, the entries make 1"
    assert findings() == [("balances", f"ledger_balances {first.id}", detail)]


def test_a_deleted_entry_is_found_by_the_balance(broken):
    a_sent_deposit()

    broken(("DELETE FROM ledger_entries WHERE amount = 991",))

    assert [check for check, _, _ in findings()] == ["balances"]


def test_a_changed_balance_is_found_twice(broken):
    a_sent_deposit()

    broken(("UPDATE ledger_balances SET credit_balance = credit_balance + 7 WHERE account_id = %s", DERIV.id.bytes))

    assert findings() == [
        ("balances", f"ledger_balances {DERIV.id}", "998 is kept, the entries make 991"),
        ("trial_balance", "currency USD", "all balances together are 7 and not 0"),
    ]


def test_an_entry_whose_currency_is_not_its_accounts_is_found(broken):
    deposit, _ = a_sent_deposit()
    first = entries_of(deposit)[0]

    broken(("UPDATE ledger_entries SET currency = 'USD' WHERE seq = %s", first.seq))

    assert findings() == [
        ("entries", f"ledger_entries {first.seq} ({first.reference})", "its currency is not its accounts' currency")
    ]


def test_an_amount_below_zero_is_found(broken):
    deposit, _ = a_sent_deposit()
    last = entries_of(deposit)[-1]

    broken(("UPDATE ledger_entries SET amount = -amount WHERE seq = %s", last.seq))

    assert ("entries", f"ledger_entries {last.seq} ({last.reference})", "its amount is not positive") in findings()


def test_a_reversal_that_does_not_mirror_is_found(broken):
    deposit, _ = a_sent_deposit()
    first, second, *_ = entries_of(deposit)

    broken(("UPDATE ledger_entries SET reverses = %s WHERE seq = %s", first.id.bytes, second.seq))

    assert [(check, row) for check, row, _ in findings()] == [
        ("entries", f"ledger_entries {second.seq} ({second.reference})")
    ]


def test_the_first_wrong_entry_is_named_over_many_pages(broken, monkeypatch):
    monkeypatch.setattr(verification, "PAGE", 2)
    wrong = entries_of(a_sent_deposit()[0])[3]
    a_sent_deposit()

    broken(("UPDATE ledger_entries SET amount = 0 WHERE seq >= %s", wrong.seq))

    assert findings()[0][1] == f"ledger_entries {wrong.seq} ({wrong.reference})"


def test_an_in_transit_balance_below_zero_is_found(broken):
    _, customer = a_sent_deposit()
    account = held(customer)

    broken(
        ("UPDATE ledger_balances SET credit_balance = -5 WHERE account_id = %s", account.id.bytes),
        ("UPDATE ledger_balances SET credit_balance = credit_balance + 5 WHERE account_id = %s", MPESA.id.bytes),
    )

    assert ("in_transit", f"ledger_balances {account.id} slot 0", "it holds -5") in findings()


def test_an_in_transit_balance_outside_the_guarded_slot_is_found(broken):
    _, customer = a_sent_deposit()

    broken(("UPDATE ledger_balances SET slot = 3 WHERE account_id = %s", held(customer).id.bytes))

    assert [check for check, _, _ in findings()] == ["in_transit"]


def test_a_renamed_account_is_found(broken):
    a_sent_deposit()

    broken(("UPDATE ledger_accounts SET owner = 'mine' WHERE id = %s", DERIV.id.bytes))

    assert findings() == [("accounts", f"ledger_accounts {DERIV.id}", "deriv_agent USD mine is not its name")]


@pytest.mark.skipif(connection.vendor == "sqlite", reason="a database in memory lets no second connection write")
def test_a_snapshot_does_not_see_what_is_posted_meanwhile():
    forget_accounts()
    a_sent_deposit()
    with snapshot():
        before = verify_ledger()
        at_once(lambda: a_received_deposit(kes(1)))
        after = verify_ledger()

    assert (before.entries, before.findings) == (after.entries, after.findings) == (5, [])
    assert LedgerEntry.objects.count() == 6


@pytest.mark.usefixtures("_payments")
def test_the_command_says_so_by_its_exit_code_and_json(broken, capsys):
    call_command("verify_ledger", "--json")
    assert json.loads(capsys.readouterr().out)["ok"] is True
    a_sent_deposit()  # of a Transaction that does not exist: payments' checks name it, too

    broken(("DELETE FROM ledger_entries WHERE amount = 991",))

    with pytest.raises(SystemExit) as stopped:
        call_command("verify_ledger", "--json")
    assert stopped.value.code == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert "balances" in [finding["check"] for finding in found["findings"]]


@pytest.fixture
def _payments(settings):
    if "payments" not in settings.INSTALLED_APPS:
        pytest.skip("payments is not installed")
