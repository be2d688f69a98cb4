"""A customer's balances and statement over REST: their own alone, in three formats, and what is refused."""

import csv
import io
import re
import threading
import zlib
from base64 import a85decode
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from payments.tests.test_api import Caller, one_writer
from shared_kernel.domain.money import Currency, Money
from wallet import api
from wallet.domain.statement import Holder, Line, Period, Total
from wallet.infrastructure.statement_pdf import statement_pdf
from wallet.tests.books import InDatabase, Of
from wallet.tests.test_statement import Day

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
NOVEMBER = "from=2026-11-01&to=2026-11-25"


@pytest.fixture(autouse=True)
def _today():
    with time_machine.travel(NOW, tick=False):
        yield


def a_caller(*steps, **customer):
    """Signed in, with a journal a minute on the 20th, from nine in the morning in Kenya."""
    caller = Caller(**customer)
    Day(caller.id).book(*steps)
    return caller


def statement(caller, query=NOVEMBER):
    return caller.get(f"wallet/statement?{query}")


def drawn(pdf: bytes) -> list[tuple[float, str]]:
    """How high above the bottom of its page each text is drawn, in the order of drawing."""
    parts = re.findall(rb"/ASCII85Decode /FlateDecode \].*?stream\r?\n(.*?)endstream", pdf, re.DOTALL)
    page = b"".join(zlib.decompress(a85decode(b"<~" + part.strip(), adobe=True)) for part in parts).decode("latin-1")
    return [(float(y), text) for y, text in re.findall(r"1 0 0 1 \S+ (\S+) Tm \((.*?)\) Tj", page)]


def text_of(pdf: bytes) -> str:
    return "\n".join(text for _, text in drawn(pdf))


def test_balances_tell_what_is_on_its_way_and_what_is_owed_in_each_currency():
    caller = a_caller("received", "debited")

    answer = caller.get("wallet/balances")

    assert answer.status_code == 200
    zero = {"amount": "0.00", "currency": "KES"}
    assert answer.json() == {
        "items": [
            {
                "currency": "KES", "in_transit": {"amount": "1300.00", "currency": "KES"}, "owed": zero,
                "balance": {"amount": "1300.00", "currency": "KES"},
            },
            {
                "currency": "USD", "in_transit": {"amount": "10.00", "currency": "USD"},
                "owed": {"amount": "0.00", "currency": "USD"}, "balance": {"amount": "10.00", "currency": "USD"},
            },
        ],
        "next": None,
    }  # fmt: skip


def test_the_balance_of_who_owes_is_below_zero():
    caller = a_caller("received", "sent", "deposit_owed")

    kes, _ = caller.get("wallet/balances").json()["items"]

    assert (kes["in_transit"]["amount"], kes["owed"]["amount"], kes["balance"]["amount"]) == (
        "0.00",
        "1300.00",
        "-1300.00",
    )


def test_a_statement_has_opening_and_closing_balances_and_a_line_for_each_movement():
    caller = a_caller("received", "sent")

    answer = statement(caller)

    assert answer.status_code == 200
    told = answer.json()
    assert (told["from"], told["to"], told["next"]) == ("2026-10-31T21:00:00Z", "2026-11-25T09:00:00Z", None)
    sums = {"opening": "0.00", "money_in": "1300.00", "money_out": "1300.00", "closing": "0.00"}
    assert told["totals"][0] == {"currency": "KES"} | {
        name: {"amount": amount, "currency": "KES"} for name, amount in sums.items()
    }
    received, sent = told["items"]
    assert received["description"] == "Received from M-Pesa"
    assert (received["at"], received["value_at"]) == ("2026-11-20T06:01:00Z", "2026-11-02T09:30:00Z")
    assert (received["money_in"], received["money_out"]) == ({"amount": "1300.00", "currency": "KES"}, None)
    assert (sent["money_in"], sent["money_out"]) == (None, {"amount": "1300.00", "currency": "KES"})
    assert (received["balance"]["amount"], sent["balance"]["amount"]) == ("1300.00", "0.00")
    assert received["transaction_id"] == sent["transaction_id"]


def test_pages_go_on_where_the_last_one_ended_with_the_balance_that_it_led_to():
    caller = a_caller("received", "sent", "debited")
    Day(caller.id).book("received")

    whole, paged = statement(caller).json(), []
    query: str | None = f"{NOVEMBER}&limit=1"
    while query:
        page = statement(caller, query).json()
        assert page["totals"] == whole["totals"]
        assert len(page["items"]) == 1
        paged += page["items"]
        query = f"limit=1&cursor={page['next']}" if page["next"] else None

    assert paged == whole["items"]
    assert len(paged) == 4


def test_a_page_is_read_by_a_bounded_number_of_queries():
    caller = a_caller("received", "sent")
    statement(caller)
    with CaptureQueriesContext(connection) as few:
        statement(caller)
    day = Day(caller.id)
    for _ in range(5):
        day.book("received", "sent", "debited", "exchanged", "paid")

    with CaptureQueriesContext(connection) as many:
        assert len(statement(caller, f"{NOVEMBER}&limit=100").json()["items"]) == 32

    assert len(many) == len(few)


def test_one_currency_may_be_asked_for():
    caller = a_caller("received", "debited")

    told = statement(caller, f"{NOVEMBER}&currency=USD").json()

    assert [total["currency"] for total in told["totals"]] == ["USD"]
    assert [line["currency"] for line in told["items"]] == ["USD"]


def test_csv_streams_the_statement_with_its_balances_as_numbers(monkeypatch):
    monkeypatch.setattr(api, "AT_ONCE", 2)
    caller = a_caller("received", "sent", "deposit_owed")

    answer = statement(caller, f"{NOVEMBER}&format=csv")

    assert answer.status_code == 200
    assert answer.streaming
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Disposition"].endswith('"penpay-statement-2026-11-01-to-2026-11-25.csv"')
    rows = list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode())))
    assert [(row["description"][:15], row["money_in"], row["money_out"], row["balance"]) for row in rows] == [
        ("Opening balance", "", "", "0.00"),
        ("Opening balance", "", "", "0.00"),
        ("Received from M", "1300.00", "", "1300.00"),
        ("Sent to your De", "", "1300.00", "0.00"),
        ("Payment taken b", "", "1300.00", "-1300.00"),
        ("Closing balance", "", "", "-1300.00"),
        ("Closing balance", "", "", "0.00"),
    ]
    assert {row["currency"] for row in rows} == {"KES", "USD"}


def test_the_pdf_names_the_customer_masked_the_period_and_each_line():
    caller = a_caller("received", "sent", full_name="Wanjiku Muthoni Kamau", phone="254712345678")

    answer = statement(caller, f"{NOVEMBER}&format=pdf")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/pdf"
    assert answer.content.startswith(b"%PDF")
    text = text_of(answer.content)
    for shown in (
        "Wanjiku M. K.", "+2547****5678", str(caller.id), "1 November 2026 to 25 November 2026", "Opening balance",
        "Received from M-Pesa", "Sent to your Deriv account: 9.91 USD", "20 Nov 2026", "09:01", "1,300.00",
        "Page 1 of 1",
    ):  # fmt: skip
        assert shown in text.replace("\\", ""), shown
    for hidden in ("Muthoni", "Kamau", "254712345678", "0712345678"):
        assert hidden not in text


def test_a_pdf_of_more_lines_than_it_holds_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(api, "MOST_PRINTED", 2)
    caller = a_caller("received", "sent", "debited")

    answer = statement(caller, f"{NOVEMBER}&format=pdf")

    assert (answer.status_code, answer.json()["code"]) == (422, "statement_too_long")
    assert "format=csv" in answer.json()["detail"]


def test_a_statement_of_nothing_is_a_statement():
    caller = a_caller()

    assert statement(caller).json()["items"] == []
    assert "No money moved in this period." in text_of(statement(caller, f"{NOVEMBER}&format=pdf").content)
    assert len(b"".join(statement(caller, f"{NOVEMBER}&format=csv").streaming_content).splitlines()) == 5


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("from=2026-11-26", 422, "period_in_future"),
        ("to=2026-11-26", 422, "period_in_future"),
        ("from=2026-11-02&to=2026-11-01", 422, "period_backwards"),
        ("from=2025-01-01&to=2026-11-01", 422, "period_too_long"),
        ("limit=0", 400, "invalid_limit"),
        ("cursor=forged", 400, "invalid_cursor"),
    ],
)
def test_a_period_or_page_that_cannot_be_is_refused(query, status, code):
    answer = statement(a_caller(), query)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("format=xml", "format", "invalid_choice"),
        ("currency=EUR", "currency", "invalid_choice"),
        ("from=yesterday", "from", "invalid_time"),
        ("from=2026-02-30", "from", "invalid_time"),
        ("from=2026-11-01T00:00:00", "from", "invalid_time"),
        ("to=99999999999999999999", "to", "invalid_time"),
        ("from=0001-01-01", "from", "invalid_time"),
        ("from=2026-11-01T00:00:00%2B99:00", "from", "invalid_time"),
        ("user_id=01a20386-4e42-7775-a593-374a55958792", "user_id", "unknown_field"),
        ("format=csv&limit=5", "", "json_only"),
        ("format=pdf&cursor=x", "", "json_only"),
    ],
)
def test_what_is_not_understood_is_named_with_what_to_write(query, field, code):
    answer = statement(a_caller(), query)

    assert answer.status_code == 400
    assert [(error["field"], error["code"]) for error in answer.json()["errors"]] == [(field, code)]
    assert answer.json()["errors"][0]["detail"]


def test_the_cursor_of_another_list_is_refused():
    caller = a_caller("received", "sent")
    cursor = statement(caller, f"{NOVEMBER}&limit=1").json()["next"]

    assert caller.get(f"transactions?cursor={cursor}").json()["code"] == "invalid_cursor"


def test_another_customers_cursor_shows_their_own_account_only():
    theirs, mine = a_caller("received", "sent"), a_caller("debited")
    cursor = statement(theirs, f"{NOVEMBER}&limit=1").json()["next"]

    told = statement(mine, f"cursor={cursor}").json()

    assert {line["description"] for line in told["items"]} <= {"Received from your Deriv account"}


@pytest.mark.parametrize("query", ["format=json", "format=csv", "format=pdf"])
def test_a_customer_sees_nothing_of_another_one(query):
    theirs, mine = a_caller("received", "sent", full_name="Juma Otieno Odhiambo"), a_caller()
    told = statement(theirs, f"{NOVEMBER}").json()["items"][0]["transaction_id"]

    answer = statement(mine, f"{NOVEMBER}&{query}")

    content = b"".join(answer.streaming_content) if answer.streaming else answer.content
    text = text_of(content) if "pdf" in query else content.decode()
    assert not re.search(rf"1,?300|{told}|Juma|{theirs.id}", text)


@pytest.mark.parametrize("path", ["wallet/balances", "wallet/statement", "wallet/statement?format=pdf"])
def test_nobody_signed_in_is_refused(path):
    answer = Client().get(f"/api/v1/{path}")

    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["wallet/balances", "wallet/statement"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_only_reading_is_possible(path, method):
    caller = a_caller("received")
    token = {"X-CSRFToken": caller.browser.cookies["csrftoken"].value}

    answer = caller.browser.http.generic(method, f"/api/v1/{path}", "{}", "application/json", headers=token)

    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


def lines_of(count):
    at = datetime(2026, 11, 1, tzinfo=UTC)
    for number in range(count):
        money = Money(100, Currency.KES)
        yield Line(at + timedelta(minutes=number), at, "Received", None, money, Money(100 * (number + 1), Currency.KES))


@pytest.mark.parametrize("count", [0, 1, 20, 24, 25, 26, 27, 28, 29, 30, 31, 32, 60, 200])
def test_every_line_is_printed_once_and_pages_are_counted(count):
    total = Total(Money(0, Currency.KES), Money(100 * count, Currency.KES), Money(0, Currency.KES))
    period = Period(NOW - timedelta(days=30), NOW)

    pdf = statement_pdf(Holder("Ŵanjiku", "", "1"), period, [total], list(lines_of(count)), issued_at=NOW)

    text = text_of(pdf)
    pages = len(re.findall(r"/Type /Page\b[^s]", pdf.decode("latin-1")))
    assert text.count("Received") == count
    assert re.findall(r"Page (\d+) of (\d+)", text) == [(str(n), str(pages)) for n in range(1, pages + 1)]
    assert text.count("Totals and closing balance") == 1
    assert all(y > 66 for y, shown in drawn(pdf) if shown in {"Received", "Totals and closing balance"})


@one_writer
@pytest.mark.django_db(transaction=True)
def test_a_page_is_of_one_moment_while_the_customers_journals_are_committed(monkeypatch):
    """Totals, lines and balances agree on every page, although each is read by a SELECT of its own."""
    monkeypatch.setattr(api, "now", lambda: NOW + timedelta(hours=1))  # what is posted meanwhile is included
    caller, stop, seen = Caller(), threading.Event(), 0

    def post():
        with closing(connection):
            while not stop.is_set():
                Of(InDatabase(), caller.id).do("received", "debited")

    with ThreadPoolExecutor(1) as pool:
        posting = pool.submit(post)
        try:
            for _ in range(40):
                told = statement(caller, "limit=100").json()
                if told["next"] is None:
                    seen += len(told["items"])
                    assert_agree(told)
            assert statement(caller, "format=pdf").status_code == 200
        finally:
            stop.set()
        posting.result()
    assert seen > 10


def assert_agree(told):
    for total in told["totals"]:
        lines = [line for line in told["items"] if line["currency"] == total["currency"]]
        assert (lines[-1]["balance"] if lines else total["opening"]) == total["closing"]
        money_in = sum(Decimal(line["money_in"]["amount"]) for line in lines if line["money_in"])
        assert Decimal(total["money_in"]["amount"]) == money_in
