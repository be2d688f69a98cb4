"""Statement files: taken as a whole, once, in any encoding and order; or refused as a whole, each bad line named."""

import json
import os
import signal
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
import time_machine
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from mpesa_integration.facade import mpesa
from payments import models
from payments.domain.transaction import TransactionStatus as S
from payments.facade import reconciliation
from payments.tests.factories import AGENT, SHORTCODE, a_float, a_stored_deposit, kes, usd
from payments.tests.test_commands import _url_of_the_test_database
from payments.tests.test_recovery import status_of
from shared_kernel.domain.requests import Leg, RequestStatus
from shared_kernel.infrastructure.persistence import now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.facade import ledger

pytestmark = pytest.mark.django_db(transaction=True)

YESTERDAY = now() + timedelta(hours=3) - timedelta(days=1)
HEADS = (
    "Receipt No.,Completion Time,Initiation Time,Details,Transaction Status,Paid In,Withdrawn,Balance,"
    "Balance Confirmed,Reason Type,Other Party Info,Linked Transaction ID,A/C No."
)


def a_statement(*rows, account="Utility Account", shortcode="600992", more=(), opening=10_000):
    """M-Pesa's form, newest first; a row is (receipt, details, signed shillings[, linked])."""
    lines, balance = [], opening
    for minute, (receipt, details, amount, *linked) in enumerate(rows):
        balance += amount
        at = f"{YESTERDAY:%d-%m-%Y} 10:{minute:02}:00"
        came, left = (f"{amount:,.2f}", "") if amount > 0 else ("", f"{amount:,.2f}")
        lines.append(
            f'{receipt},{at},{at},{details},Completed,"{came}","{left}","{balance:,.2f}",true,,254***,{"".join(linked)},'
        )
    about = [f"Short Code:,{shortcode}", f"Account:,{account}", *more]
    return "\n".join([*about, "", HEADS, *reversed(lines)]) + "\n"


def deriv_statement(*rows, agent=AGENT):
    balance, lines = 1000, []
    for minute, (id, about, dollars) in enumerate(rows):
        balance += dollars
        lines.append(f"{id},{YESTERDAY:%Y-%m-%d} 10:{minute:02}:00,{about},{dollars:.2f},{balance:.2f},USD")
    return "\n".join(
        [f"Login ID,{agent}", "Ref. ID,Transaction time,Description,Credit/Debit,Balance,Currency", *lines, ""]
    )


@pytest.fixture
def give(tmp_path, capsys, settings):
    """Reconciles a file of yesterday: the exit code, and the object that was printed."""
    settings.MPESA_SHORTCODE, settings.MPESA_B2C_SHORTCODE = SHORTCODE, "600992"
    a_float()

    def give(content, *words, provider="mpesa", name="statement.csv", date=None):
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        code: int | str | None = 0
        date = date or YESTERDAY.date().isoformat()
        try:
            call_command("reconcile", provider, "--date", date, "--file", str(file), *words, "--json")
        except SystemExit as ended:
            code = ended.code
        return code, json.loads(capsys.readouterr().out)

    return give


def found(told):
    return {name: number for name, number in told["runs"][0]["counts"].items() if number}


def nothing_was_stored():
    rows = models.ReconciliationRun, models.ReconciliationBreak
    return not any(row.objects.exists() for row in rows) and not AuditLog.objects.filter(
        action__startswith="reconciliation"
    )


# --- taken ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_file_is_read_in_each_encoding(give, codec):
    text = a_statement(("UKM0000001", "Business Payment to Zoë’s phone", -500))

    code, told = give(text.encode(codec))

    assert (code, found(told)) == (1, {"missing_here": 1})
    [one] = models.ReconciliationBreak.objects.all()
    assert (one.theirs, one.currency, one.sub_account, one.account) == (-500_00, "KES", "mpesa_utility", "600992")


def test_a_payout_and_its_charge_under_one_receipt_are_two_movements_and_both_are_matched_by_the_attempt(give):
    a_payout("UKM0000001", kes(500), fee=kes(5))

    assert found(give(a_statement(("UKM0000001", "Business Payment to customer", -500)))[1]) == {"matched": 1}
    charges = a_statement(("UKM0000001", "Business Payment Charge", -5), account="Charges Paid Account")
    assert found(give(charges)[1]) == {"matched": 1}


def a_payout(receipt, amount, *, fee):
    """A payout that was booked, as the ledger and its attempt hold it."""
    deposit = a_stored_deposit(S.CREATED)
    request = mpesa.new_request(deposit.id, Leg.B2C_PAYOUT, 1, deposit.phone, amount, at=now())
    key = f"mpesa:{request.shortcode}:{request.id}"
    with unit_of_work():
        mpesa.record([request])
        request.status, request.receipt = RequestStatus.DONE, receipt
        mpesa.save([request])
        ledger.post_suspense_out("mpesa_utility", request.shortcode, amount, provider_key=key, at=now())
        ledger.post_mpesa_fee(deposit.id, fee, shortcode=request.shortcode, provider_key=f"{key}:fee", at=now())
    return request


def test_lines_in_another_order_are_the_same_file_to_us(give):
    rows = [(f"UKM000000{n}", "Business Payment", -100 * n) for n in range(1, 6)]
    lines = a_statement(*rows).splitlines()
    shuffled = [*lines[:4], lines[6], lines[4], lines[8], lines[5], lines[7]]

    assert found(give("\n".join(shuffled) + "\n")[1]) == {"missing_here": 5}


def test_the_same_file_a_second_time_changes_nothing(give):
    text = a_statement(("UKM0000001", "Business Payment", -500))
    first = give(text)
    before = [list(row.objects.values()) for row in (models.ReconciliationRun, models.ReconciliationBreak)]
    audited = AuditLog.objects.count()

    second = give(text, name="again.csv")

    assert (first[0], second[0]) == (1, 1)
    assert (second[1]["runs"][0]["repeated"], found(second[1])) == (True, found(first[1]))
    assert [list(row.objects.values()) for row in (models.ReconciliationRun, models.ReconciliationBreak)] == before
    assert AuditLog.objects.count() == audited


def test_the_same_file_is_read_again_once_more_of_its_day_has_settled(give):
    """Given at noon it is held against the morning; what is later waits, and is looked at when the file comes again."""
    text = a_statement(("UKM0000001", "Business Payment", -500), ("UKM0000002", "Business Payment", -700))
    half_past_the_first = datetime.fromisoformat(f"{YESTERDAY:%Y-%m-%d}T10:00:30+03:00") + reconciliation.settles_in
    told = []
    for later in (timedelta(), timedelta(), timedelta(minutes=5), timedelta(minutes=5), timedelta(hours=20)):
        with time_machine.travel(half_past_the_first + later, tick=False):
            told.append(give(text)[1]["runs"][0])

    assert [run["repeated"] for run in told] == [False, True, False, True, False]
    assert [run["counts"]["missing_here"] for run in told] == [1, 1, 2, 2, 2]
    assert [run["opened"] for run in told] == [1, 1, 1, 1, 0]
    assert [run["open"] for run in told] == [1, 1, 2, 2, 2]
    assert models.ReconciliationRun.objects.count() == 3
    assert sorted(models.ReconciliationBreak.objects.values_list("known_as", flat=True)) == ["UKM0000001", "UKM0000002"]


def a_paid_deposit():
    """Of 1,300 shillings, by the receipt UKM0000001."""
    deposit = a_stored_deposit(S.CREATED)
    prompt = mpesa.new_request(deposit.id, Leg.STK_PUSH, 1, deposit.phone, deposit.amount, at=now())
    with unit_of_work():
        mpesa.record([prompt])
        prompt.status, prompt.receipt = RequestStatus.DONE, "UKM0000001"
        mpesa.save([prompt])
        ledger.post_deposit_received(
            deposit.id, deposit.user_id, deposit.amount, shortcode=SHORTCODE,
            provider_key=f"mpesa:{SHORTCODE}:{prompt.id}", at=now(),
        )  # fmt: skip
        models.Transaction.objects.filter(pk=deposit.id).update(
            status=S.MPESA_CONFIRMED, next_step_at=None, confirmed_at=now()
        )
    return deposit


def test_a_payment_that_m_pesa_takes_back_is_reverted_and_posted_by_its_saga(give):
    deposit = a_paid_deposit()
    rows = ("UKM0000001", "Pay Bill", 1300), ("UKM0000002", "Pay Bill Reversal", -1300, "UKM0000001")
    text = a_statement(*rows, account="Working Account", shortcode=SHORTCODE)

    code, told = give(text)

    assert (code, found(told)) == (1, {"matched": 1, "reverted": 1})
    assert status_of(deposit) == S.REFUNDED
    code, told = give(text + "\n", name="again.csv")  # another file, as far as its bytes go
    assert (code, found(told)) == (0, {"matched": 2})


@pytest.mark.parametrize(("details", "shillings"), [("Pay Bill Reversal", -500), ("Reversal Charge", -5)])
def test_neither_a_part_nor_a_charge_takes_a_payment_back(give, details, shillings):
    deposit = a_paid_deposit()
    rows = ("UKM0000001", "Pay Bill", 1300), ("UKM0000002", details, shillings, "UKM0000001")

    code, told = give(a_statement(*rows, account="Working Account", shortcode=SHORTCODE))

    assert (code, found(told)) == (1, {"matched": 1, "missing_here": 1})
    assert status_of(deposit) == S.MPESA_CONFIRMED


def test_a_payment_that_came_and_went_and_was_never_ours_is_no_difference(give):
    rows = ("UKM0000001", "Pay Bill", 700), ("UKM0000002", "Pay Bill Reversal", -700, "UKM0000001")

    code, told = give(a_statement(*rows, account="Working Account", shortcode=SHORTCODE))

    assert (code, found(told)) == (0, {})


def test_a_statement_of_derivs_is_held_against_the_agents_account(give):
    with unit_of_work():
        ledger.post_suspense_out("deriv_agent", AGENT, usd(10_00), provider_key=f"deriv:{AGENT}:9001", at=now())

    code, told = give(deriv_statement((9001, "Transfer", -10), (9002, "Deposit", 5)), provider="deriv")

    assert (code, found(told)) == (1, {"matched": 1, "missing_here": 1})
    assert models.ReconciliationBreak.objects.get().known_as == "9002"


# --- refused ----------------------------------------------------------------------------------------------------------


GOOD = [(f"UKM000000{n}", "Business Payment", -100) for n in range(1, 6)]


def changed(number, old, new):
    lines = a_statement(*GOOD).splitlines()
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new)
    return "\n".join(lines) + "\n"


def without(number):
    lines = a_statement(*GOOD).splitlines()
    return "\n".join([*lines[: number - 1], *lines[number:]]) + "\n"


def twice(number):
    lines = a_statement(*GOOD).splitlines()
    return "\n".join([*lines[:number], *lines[number - 1 :]]) + "\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no line with the heads"),
        ("hello\n", "no line with the heads"),
        (a_statement(*GOOD)[:-20], "line 9: it ends in the middle"),
        (changed(6, "true,,", "true,"), "line 6: it has 12 columns and not 13"),
        (changed(6, "100.00", "1OO.00"), "line 6: its withdrawn is no number"),
        (changed(6, "100.00", "100.005"), "line 6: "),
        (changed(6, "UKM", "#"), "line 6: its id is not one"),
        (changed(6, YESTERDAY.strftime("%d-%m-%Y"), "31-02-2026"), "line 6: its time is not understood"),
        (changed(6, f"{YESTERDAY:%d-%m-%Y} 10", "01-01-0001 01"), "line 6: "),
        (changed(6, "-100.00", "-9e9999999"), "line 6: "),
        (changed(6, "-100.00", "-900.00"), "no line ends with the balance"),
        (without(6), "line 5: no line ends with the balance"),
        (twice(6), "line 7: it repeats line 6"),
        (a_statement(*GOOD, more=["Opening Balance:,10000.00", "Closing Balance:,9400.00"]), "come to -500"),
        (a_statement(*GOOD, account="Savings"), "its account 'Savings' is none of"),
        (a_statement(*GOOD, shortcode="999999"), "999999 is no shortcode of ours"),
        (a_statement(*GOOD).encode("utf-16")[:-1], "encoding"),
        (a_statement(*GOOD).replace("Utility", "\x81").encode("latin-1"), "encoding"),
        (a_statement(*GOOD).replace("UKM0000001", '"UKM0000001'), "it is no CSV"),
    ],
    ids=range(19),
)
def test_a_bad_file_is_refused_as_a_whole_and_says_where(give, content, says):
    code, told = give(content)

    assert code == 2
    assert says in told["error"]
    assert nothing_was_stored()


def test_each_bad_line_is_named_at_once(give):
    text = changed(6, "100.00", "1OO.00").replace("UKM0000001", "#1")

    _, told = give(text)

    assert "line 6: " in told["error"]
    assert "line 9: " in told["error"]


def test_another_currency_another_account_and_another_day_are_refused(give):
    deriv = deriv_statement((9001, "Transfer", -10))

    assert "its currency 'EUR' is not USD" in give(deriv.replace("USD", "EUR"), provider="deriv")[1]["error"]
    assert f"is of account {AGENT}" in give(deriv, "--account", "7001", provider="deriv")[1]["error"]
    assert "nothing in it is of the day" in give(deriv, provider="deriv", date="2026-01-05")[1]["error"]
    nameless = deriv.replace(f"Login ID,{AGENT}\n", "")
    assert "give --account" in give(nameless, provider="deriv")[1]["error"]
    assert nothing_was_stored()


# --- killed -----------------------------------------------------------------------------------------------------------

KILLED = """
import os, signal, django
django.setup()
from django.core.management import call_command
from payments.infrastructure.persistence.reconciliation import DjangoBreakBook
DjangoBreakBook.report = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
call_command("reconcile", "deriv", "--date", {date!r}, "--file", {file!r})
"""


@pytest.mark.skipif(connection.vendor == "sqlite", reason="another process does not see a database in memory")
def test_a_run_that_is_killed_before_its_commit_left_nothing_and_the_next_one_does_all(give, tmp_path):
    text, file = deriv_statement((9001, "Transfer", -10)), tmp_path / "killed.csv"
    file.write_text(text)
    script = KILLED.format(date=YESTERDAY.date().isoformat(), file=str(file))
    environment = os.environ | {"DATABASE_URL": _url_of_the_test_database(), "LOG_LEVEL": "ERROR"}

    killed = subprocess.run([sys.executable, "-c", script], cwd=settings.BASE_DIR, env=environment, timeout=60)

    assert killed.returncode == -signal.SIGKILL
    assert nothing_was_stored()
    code, told = give(text, provider="deriv")
    assert (code, found(told)) == (1, {"missing_here": 1})
