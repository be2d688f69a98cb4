"""Finance's reports: in the back-office for two groups, by command, and as XLSX that nothing runs."""

import csv
import io
import json
import re
import zipfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given, strategies as st

from identity.models import User
from identity.tests.factories import a_customer
from payments.models import BalanceDrift, FloatAccount, ProviderBalance
from payments.tests.factories import todays_rate
from penpay import finance, finance_pages
from shared_kernel.facade import new_id, now
from shared_kernel.infrastructure.spreadsheets import csv_line, neutral, write_workbook
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in
from wallet.facade import account, accounts, history_with_balances, whole_history
from wallet.models import LedgerAccount, LedgerBalance
from wallet.tests.factories import AGENT, SHORTCODE
from wallet.tests.test_statement import Day

pytestmark = pytest.mark.django_db
PAGES = ["trial-balance", "accounts", "fx-position", "float-positions"]
NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _today():
    with time_machine.travel(NOON, tick=False):
        yield


def staff(*groups):
    """Signed in."""
    name = "-".join(("staff", *groups))
    user = User.objects.create_superuser(name, f"{name}@example.org", "a long enough password")
    User.objects.filter(pk=user.pk).update(is_superuser=False)
    user.groups.set([Group.objects.get_or_create(name=name)[0] for name in groups])
    return signed_in(user)


def a_busy_day():
    day = Day()
    day.book("received", "sent")
    day.book("debited", "exchanged", "paid")
    return day


def an_account(kind, owner="", currency=""):
    [found] = accounts(kinds=[kind], owner=owner, currency=currency)
    return found


def sheet(content: bytes) -> list[list[str]]:
    """All cells as text, from the file itself."""
    with zipfile.ZipFile(io.BytesIO(content)) as book:
        assert not [name for name in book.namelist() if "external" in name.lower()]
        xml = book.read("xl/worksheets/sheet1.xml").decode()
        assert "<f>" not in xml, "a formula"
    rows = re.findall(r"<row [^>]*?(?:/>|>(.*?)</row>)", xml, re.DOTALL)
    cell = r"<c [^>]*>(?:<is><t[^>]*>(.*?)</t></is>|<v>(.*?)</v>)</c>"
    return [[unescape(text or number) for text, number in re.findall(cell, row, re.DOTALL)] for row in rows]


# who may see it


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("group", ["finance", "auditor"])
def test_finance_and_auditors_read_every_report(path, group):
    a_busy_day()

    answer = staff(group).get(f"/admin/finance/{path}/")

    assert answer.status_code == 200
    assert b"Nothing to show" not in answer.content


@pytest.mark.parametrize("path", [*PAGES, "account"])
def test_other_staff_customers_and_strangers_read_none(path):
    a_busy_day()
    customer = Client(headers={"Host": "localhost"})
    customer.force_login(a_customer().row)

    assert staff("support", "ops").get(f"/admin/finance/{path}/").status_code == 403
    for client in (customer, Client(headers={"Host": "localhost"})):
        answer = client.get(f"/admin/finance/{path}/")
        assert (answer.status_code, answer.headers["Location"].split("?")[0]) == (302, "/admin/login/")


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_the_reports_can_only_be_read(path, method):
    assert getattr(staff("finance"), method)(f"/admin/finance/{path}/").status_code == 405


def test_the_first_page_of_the_back_office_leads_to_them_who_may_see_them():
    assert b"/admin/finance/trial-balance/" in staff("finance").get("/admin/").content
    assert b"/admin/finance/" not in staff("support").get("/admin/").content


# what they say


def test_the_trial_balance_adds_up_in_each_currency():
    a_busy_day()

    report = finance.trial_balance_report()

    totals: dict[Any, Any] = {row[1]: row[3:] for row in report.rows if row[0] == "total"}
    assert set(totals) == {"KES", "USD"}
    assert all(debit == credit > 0 for debit, credit in totals.values())
    assert report.wrong == ""


def test_a_trial_balance_that_does_not_add_up_says_so(run):
    a_busy_day()
    LedgerBalance.objects.filter(account_id=an_account("mpesa_working").id).update(credit_balance=0)

    code, told = run("trial_balance")

    assert (code, told["wrong"]) == (1, "KES: debits and credits differ by 1300.00")
    assert "differ by 1300.00" in staff("finance").get("/admin/finance/trial-balance/").content.decode()


def test_a_trial_balance_of_the_past_is_made_of_what_was_booked_until_then(run):
    day = Day()
    day.book("received", "sent")

    _, told = run("trial_balance", "--as-of", day.at(1).isoformat())
    page = staff("finance").get("/admin/finance/trial-balance/?day=2026-11-19").content.decode()

    assert [(row["kind"], row["debit"], row["credit"]) for row in told["rows"]] == [
        ("customer_in_transit", "0.00", "1300.00"),
        ("mpesa_working", "1300.00", "0.00"),
        ("total", "1300.00", "1300.00"),
    ]
    assert told["facts"]["as_of"] == "2026-11-20T06:01:00Z"
    assert "Nothing to show" in page


def test_a_history_has_the_balance_after_each_entry_and_pages_go_on_exactly():
    day = a_busy_day()
    for _ in range(3):
        day.book("received", "sent")
    working = an_account("mpesa_working")

    whole = list(whole_history(working))
    paged, before = [], None
    while page := history_with_balances(working, before=before, limit=2):
        paged += page
        before = page[-1].entry.seq

    assert paged == whole
    assert [row.balance for row in whole] == [-520000, -390000, -260000, -130000]
    assert whole[0].balance == account(working.id).credit_balance


def test_a_history_of_a_period_has_the_balances_of_its_time():
    day = Day()
    for _ in range(4):
        day.book("received")
    working = an_account("mpesa_working")

    rows = list(whole_history(working, since=day.at(2), until=day.at(4)))

    assert [(row.balance, row.entry.recorded_at) for row in rows] == [(-390000, day.at(3)), (-260000, day.at(2))]
    assert rows == history_with_balances(working, since=day.at(2), until=day.at(4))


def test_floats_show_what_the_provider_said_last_and_since_when_they_drift():
    a_busy_day()
    ours = {"provider": "deriv", "account": AGENT, "sub_account": "deriv_agent", "currency": "USD"}
    for hours, held in ((3, 900), (1, 500), (72, 100)):
        at = now() - timedelta(hours=hours)
        ProviderBalance.objects.create(
            id=new_id(), asked_at=at, as_of=at, ledger=1000, coming=0, going=0, amount=held, **ours
        )
    since = now() - timedelta(minutes=20)
    BalanceDrift.objects.create(
        id=new_id(), since=since, looks=2, difference=-500, unexplained=-500, seen_at=at, alerted_at=at, **ours
    )

    report = finance.floats_report()

    rows: Any = report.rows
    [seen] = [row[6:] for row in rows if row[1] == AGENT]
    assert (seen[0], seen[2], seen[3]) == (Decimal("5.00"), Decimal("-5.00"), since)
    assert now() - seen[1] < timedelta(hours=2)
    assert f"does not agree with the provider: deriv_agent {AGENT}" in report.wrong
    assert json.dumps(report.json())


@pytest.mark.parametrize("more", [-1, 1])
def test_a_list_of_more_accounts_than_a_page_holds_is_cut_and_says_so(more):
    count = finance.MOST_ACCOUNTS + more
    LedgerAccount.objects.bulk_create(
        LedgerAccount(
            id=uuid4(), kind="customer_in_transit", currency="KES", owner=f"{number:04}", opened_at=timezone.now()
        )
        for number in range(count)
    )

    report = finance.accounts_report(kind="customer_in_transit")
    page = unescape(staff("finance").get("/admin/finance/accounts/?kind=customer_in_transit").content.decode())

    rows = list(report.rows)
    assert [row[1] for row in rows] == [f"{number:04}" for number in range(min(count, 500))]
    assert len(report.accounts) == len(rows)
    note = "500 accounts: narrow it by kind, owner or currency"
    assert (("Only the first", note) in report.facts) is (note in page) is (more > 0)
    [one] = finance.accounts_report(kind="customer_in_transit", owner=f"{count - 1:04}").rows  # narrowed, all are found
    assert one[1] == f"{count - 1:04}"


def test_floats_show_what_is_there_what_is_promised_and_what_is_left():
    a_busy_day()
    FloatAccount.objects.create(account=AGENT, reserved=300)
    FloatAccount.objects.create(account=f"mpesa:{SHORTCODE}", reserved=10000)

    rows = {(row[0], row[1]): row[3:6] for row in finance.floats_report().rows}

    assert rows["deriv_agent", AGENT] == (Decimal("0.09"), Decimal("3.00"), Decimal("-2.91"))
    assert rows["mpesa_working", SHORTCODE] == (Decimal("1300.00"), Decimal("0.00"), Decimal("1300.00"))
    assert rows["mpesa_utility", SHORTCODE] == (Decimal("-1271.00"), Decimal("100.00"), Decimal("-1371.00"))
    assert "less than nothing is available" in finance.floats_report().wrong


def test_a_report_takes_as_many_queries_for_many_accounts_as_for_few():
    Day().book("received")
    with CaptureQueriesContext(connection) as few:
        list(finance.accounts_report().rows), list(finance.floats_report().rows)
    for _ in range(5):
        Day().book("received", "sent")

    with CaptureQueriesContext(connection) as many:
        list(finance.accounts_report().rows), list(finance.floats_report().rows)

    assert len(many) == len(few)


# pages


def test_accounts_are_filtered_and_lead_to_their_history():
    a_busy_day()
    client = staff("finance")

    listed = client.get("/admin/finance/accounts/?kind=mpesa_working&currency=KES").content.decode()
    [link] = re.findall(r'href="(/admin/finance/account/[^"]+)"', listed)
    history = client.get(link).content.decode()

    assert "deriv_agent</td>" not in listed
    assert "deposit_received" in history
    assert "1,300.00" in history


def test_a_long_history_has_pages():
    day = Day()
    for _ in range(53):
        day.book("received")
    client = staff("finance")
    address = f"/admin/finance/account/?account={an_account('mpesa_working').id}"

    first = client.get(address).content.decode()
    [older] = re.findall(r'href="([^"]+)">older', first)
    second = client.get(f"/admin/finance/account/{unescape(older)}").content.decode()

    assert first.count('title="deposit_received"') == 50
    assert second.count('title="deposit_received"') == 3
    assert ">older" not in second
    assert ">newest" in second


@pytest.mark.parametrize(
    ("query", "status", "told"),
    [
        ("accounts/?currency=EUR", 400, "Select a valid choice"),
        ("trial-balance/?day=2026-11-25", 400, "not over"),
        ("trial-balance/?day=soon", 400, "valid date"),
        ("accounts/?kind=wallet", 400, "Select a valid choice"),
        ("account/", 400, "This field is required"),
        ("account/?account=nonsense", 400, "valid UUID"),
        ("account/?account=01a20386-4e42-7775-a593-374a55958792", 404, ""),
        ("account/?account=01a20386-4e42-7775-a593-374a55958792&since=2026-11-02&until=2026-11-01", 400, "exchange"),
        ("account/?account=01a20386-4e42-7775-a593-374a55958792&before=x", 400, "whole number"),
        ("account/?account=01a20386-4e42-7775-a593-374a55958792&until=9999-12-31", 404, ""),
        ("account/?account=01a20386-4e42-7775-a593-374a55958792&since=0001-01-01", 404, ""),
    ],
)
def test_a_filter_that_cannot_be_is_told(query, status, told):
    answer = staff("finance").get(f"/admin/finance/{query}")

    assert answer.status_code == status
    assert told in answer.content.decode()


def test_no_personal_data_is_on_a_page():
    customer = a_customer(full_name="Wanjiku Muthoni", phone="254712345678", email="wanjiku@example.org")
    Day(customer.id).book("received", "sent")
    client = staff("auditor")

    for path in PAGES:
        text = client.get(f"/admin/finance/{path}/").content.decode()
        assert not re.search(r"Wanjiku|712345678|example\.org", text), path


# XLSX


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_exported_and_an_audit_row_says_by_whom(path):
    a_busy_day()
    todays_rate()

    answer = staff("finance").get(f"/admin/finance/{path}/?export=xlsx")

    rows = sheet(b"".join(answer.streaming_content))
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="penpay-')
    [note] = AuditLog.objects.filter(action="finance.exported")
    assert note.actor == f"staff:{User.objects.get(is_staff=True).pk}"
    assert note.target_id == path.replace("-", "_")
    facts = len(note.details) - 2  # beside `title` and `rows`
    assert note.details["rows"] == len(rows) - facts - 1


def test_an_exported_history_has_all_entries_and_numbers_that_can_be_added():
    day = Day()
    for _ in range(53):
        day.book("received")
    address = f"/admin/finance/account/?account={an_account('mpesa_working').id}&export=xlsx"

    rows = sheet(b"".join(staff("finance").get(address).streaming_content))

    entries = [row for row in rows if "deposit_received" in row]
    assert len(entries) == 53
    assert [row[4] for row in entries] == [f"{1300 * n}.00" for n in range(53, 0, -1)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", PAGES)
def test_over_real_commits_a_report_is_read_and_its_export_noted(path, tmp_path, run):
    a_busy_day()
    client = staff("finance")

    assert client.get(f"/admin/finance/{path}/").status_code == 200
    assert sheet(b"".join(client.get(f"/admin/finance/{path}/?export=xlsx").streaming_content))
    run(path.replace("-", "_"), "--xlsx", tmp_path / "report.xlsx")

    actors = AuditLog.objects.filter(action="finance.exported").order_by("seq").values_list("actor", flat=True)
    assert list(actors) == [f"staff:{User.objects.get(is_staff=True).pk}", "system:command:finance_report"]


def test_more_rows_than_a_page_exports_are_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(finance_pages, "MOST_EXPORTED", 2)
    Day().book("received", "sent")
    address = f"/admin/finance/account/?account={an_account('customer_in_transit').id}&export=xlsx"

    answer = staff("finance").get(address)

    assert answer.status_code == 422
    assert "manage.py finance_report" in answer.content.decode()
    assert not AuditLog.objects.filter(action="finance.exported").exists()


@given(st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", " =", "\x00="]), st.text())
def test_no_text_begins_like_a_formula(start, rest):
    assert neutral(start + rest).startswith("'")


@pytest.mark.parametrize("text", ["", "QAB12CD3EF", "Sent to your Deriv account: 9.91 USD", "a=b", "'quoted"])
def test_plain_text_stays_as_it_is(text):
    assert neutral(text) == text


def test_csv_neutralises_texts_and_leaves_numbers_alone():
    [row] = csv.reader(io.StringIO(csv_line(['=HYPERLINK("http://x")', Decimal("-5.00"), None, "a,b\nc"])))

    assert row == ['\'=HYPERLINK("http://x")', "-5.00", "", "a,b\nc"]


def test_xlsx_holds_texts_numbers_and_times_and_no_formula_and_no_link():
    file = io.BytesIO()
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "http://example.org", "12"]

    rows: list[Any] = [texts, [Decimal("-1.25"), 7, NOON]]

    count = write_workbook(file, "A title of much more than thirty-one letters", [("Fact", "=2")], ["head"] * 7, rows)

    cells = sheet(file.getvalue())
    assert count == 2
    assert ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\t=1", "http://example.org", "12"] in cells
    assert any(row[:2] == ["-1.25", "7"] for row in cells)
    assert b"hyperlink" not in file.getvalue()


# the command


@pytest.fixture
def run(capsys):
    """Its exit code, and the object that it printed."""

    def run(*words):
        code: int | str | None = 0
        try:
            call_command("finance_report", *map(str, words), "--json")
        except SystemExit as ended:
            code = ended.code
        return code, json.loads(capsys.readouterr().out)

    return run


def test_the_command_tells_the_trial_balance(run):
    a_busy_day()

    code, told = run("trial_balance", "--currency", "USD")

    assert code == 0
    assert {row["currency"] for row in told["rows"]} == {"USD"}
    assert told["rows"][-1]["debit"] == told["rows"][-1]["credit"] == "0.09"
    assert told["facts"]["as_of"] == "2026-11-25T12:00:00Z"


def test_the_command_lists_accounts_and_pages_a_history(run):
    a_busy_day()
    _, listed = run("accounts", "--kind", "customer_in_transit", "--currency", "KES")
    id = listed["rows"][0]["account"]

    code, first = run("account", "--account", id, "--limit", 2)
    _, rest = run("account", "--account", id, "--before", first["next"], "--limit", 499)

    assert code == 0
    assert [row["balance"] for row in first["rows"] + rest["rows"]][-1] == "1300.00"
    assert first["rows"][0]["balance"] == "0.00"
    assert rest["next"] is None


def test_the_command_says_where_less_than_nothing_is_available(run):
    a_busy_day()
    FloatAccount.objects.create(account=AGENT, reserved=300)

    code, told = run("float_positions")

    assert code == 1
    assert AGENT in told["wrong"]


def test_the_command_tells_the_fx_position_with_and_without_a_rate(run):
    a_busy_day()

    _, without = run("fx_position")
    todays_rate(mid=Decimal("130"))
    _, with_rate = run("fx_position")

    assert "no exchange rate" in without["facts"]["note"]
    assert {row["figure"]: row["amount"] for row in with_rate["rows"]}["middle rate now"] == "130"
    assert {row["figure"]: row["amount"] for row in without["rows"]}["unrealised gain or loss"] is None


def test_for_people_the_command_prints_a_table(capsys):
    a_busy_day()

    call_command("finance_report", "trial_balance")

    assert "Trial balance" in capsys.readouterr().out


def test_the_command_writes_all_rows_to_a_new_file_and_notes_it(run, tmp_path):
    day = Day()
    for _ in range(60):
        day.book("received")
    file = tmp_path / "history.xlsx"

    code, told = run("account", "--account", an_account("mpesa_working").id, "--xlsx", file)

    assert (code, told["rows"]) == (0, 60)
    assert len([row for row in sheet(file.read_bytes()) if "deposit_received" in row]) == 60
    assert AuditLog.objects.get(action="finance.exported").details["rows"] == 60
    assert [path.name for path in tmp_path.iterdir()] == ["history.xlsx"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["account"], "--account"),
        (["account", "--account", "nonsense"], "--account"),
        (["account", "--account", "01a20386-4e42-7775-a593-374a55958792"], "there is no account"),
        (["account", "--account", "{id}", "--limit", "0"], "--limit"),
        (["account", "--account", "{id}", "--since", "soon"], "--since"),
        (["account", "--account", "{id}", "--since", "2026-11-02", "--until", "2026-11-01"], "--since"),
        (["trial_balance", "--as-of", "2026-11-26"], "--as-of is in the future"),
        (["trial_balance", "--as-of", "soon"], "--as-of"),
        (["trial_balance", "--xlsx", "/nowhere/at/all.xlsx"], "cannot write"),
        (["trial_balance", "--xlsx", "{file}"], "already"),
    ],
)
def test_the_command_says_what_it_cannot_do_and_leaves_nothing(run, tmp_path, words, told):
    Day().book("received")
    (tmp_path / "there.xlsx").write_text("kept")
    given = {"id": an_account("mpesa_working").id, "file": tmp_path / "there.xlsx"}

    code, answer = run(*(word.format(**given) for word in words))

    assert code == 2
    assert told in answer["error"]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["kept"]
    assert not AuditLog.objects.filter(action="finance.exported").exists()


def test_an_unknown_report_is_refused():
    with pytest.raises(CommandError, match="invalid choice"):
        call_command("finance_report", "everything")
