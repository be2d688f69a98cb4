"""The back-office over all contexts: staff see every record, linked and masked, and change none of them."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.contrib import admin
from django.db import connection, models as db
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from identity.models import User
from identity.tests.factories import ACustomer, a_customer
from shared_kernel.admin import ReadOnlyAdmin, masked
from shared_kernel.facade import EncryptedField, new_id
from shared_kernel.tests.staff import signed_in

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
PHONE, EMAIL, NAME = "254712345678", "wanjiku@example.org", "Wanjiku Muthoni"
ACCOUNT, SECRET = "CR7654321", "canary-in-a-provider-message"
READABLE = [model for model, page in admin.site._registry.items() if isinstance(page, ReadOnlyAdmin)]
TABLES = [model for model in READABLE if model._meta.app_label != "auth"]


def row(label: str, **columns: Any) -> Any:
    return apps.get_model(label).objects.create(**columns)


def a_payment(number: int = 0, who: ACustomer | None = None, **customer: Any) -> SimpleNamespace:
    """A deposit with all that belongs to it, in the tables of all contexts; `number` keeps unique columns apart."""
    given = {"full_name": NAME, "phone": PHONE, "email": EMAIL, "deriv_account": ACCOUNT} | customer
    who = who or a_customer(**given)
    phone, account = given["phone"], given["deriv_account"]
    rate = {"mid": Decimal("129.5"), "rate": Decimal(130), "rate_source": "table"}
    quote = row(
        "payments.Quote", id=new_id(), user_id=who.id, type="deposit", send_amount=130000, send_currency="KES",
        get_amount=1000, get_currency="USD", created_at=NOW, expires_at=NOW, **rate,
    )  # fmt: skip
    payment = row(
        "payments.Transaction", id=new_id(), type="deposit", user_id=who.id, quote_id=quote.id, status="COMPLETED",
        amount=130000, currency="KES", payout_amount=1000, payout_currency="USD", rate_locked_at=NOW,
        rate_expires_at=NOW, phone=phone, phone_index="0" * 64, platform="ws_v3", deriv_account=account,
        deriv_currency="USD", agent="CR900001", created_at=NOW, updated_at=NOW, **rate,
    )  # fmt: skip
    attempt = {"transaction_id": payment.id, "attempt": 1, "status": "done", "send_before": NOW, "created_at": NOW}
    request = row(
        "mpesa_integration.MpesaRequest", id=new_id(), leg="stk_push", reference=f"PP{number}", amount=130000,
        currency="KES", phone=phone, shortcode="174379", callback_hash=f"{number:064}", receipt=f"RCPT{number}",
        answer=SECRET, checkout_request_id=f"ws_CO_{phone}", **attempt,
    )  # fmt: skip
    row(
        "mpesa_integration.MpesaCallback", id=new_id(), request=request, kind="s", received_at=NOW,
        last_received_at=NOW, peer="196.201.214.200", sha256="0" * 64, verdict="stored", amount=130000, body=SECRET,
        headers=SECRET,
    )  # fmt: skip
    row(
        "mpesa_integration.MpesaBalance", id=new_id(), request=request, shortcode="600992", account="Utility Account",
        available=130000, at=NOW,
    )  # fmt: skip
    row("mpesa_integration.MpesaInitiator", name=f"operator{number}", stopped_at=NOW, why="b2c_payout ended with 2001")
    row("mpesa_integration.MpesaToken", id=new_id(), token=SECRET, fetched_at=NOW)
    row(
        "deriv_integration.DerivTransfer", id=new_id(), leg="deriv_credit", reference=f"PP{number}", platform="ws_v3",
        agent="CR900001", account=account, amount=1000, currency="USD", answer=SECRET, **attempt,
    )  # fmt: skip
    row("deriv_integration.DerivAgent", loginid=f"CR90000{number}")
    debit, credit = (
        row("wallet.LedgerAccount", id=new_id(), kind=kind, currency="KES", owner=f"{number}", opened_at=NOW)
        for kind in ("mpesa_working", "customer_in_transit")
    )
    row("wallet.LedgerBalance", account_id=debit.id, slot=1, credit_balance=-130000)
    row(
        "wallet.LedgerEntry", id=new_id(), journal_id=new_id(), purpose="deposit_received", debit_account=debit,
        credit_account=credit, amount=130000, currency="KES", transaction_id=payment.id, reference=f"ref-{number}",
        effective_at=NOW, recorded_at=NOW,
    )  # fmt: skip
    row(
        "wallet.TreasuryMovement", id=new_id(), kind="settlement", status="proposed", amount=130000, currency="KES",
        source_kind="mpesa_working", source_owner="174379", target_kind="bank", reference=f"UKM{number:07}", day=NOW,
        why="swept", by="staff:1", at=NOW,
    )  # fmt: skip
    row(
        "shared_kernel.DomainEvent", id=new_id(), type="TransactionCreated", aggregate_id=payment.id, occurred_at=NOW,
        payload={"transaction_id": str(payment.id)},
    )  # fmt: skip
    row(
        "shared_kernel.AuditLog", action="transaction.status", target_type="transaction", target_id=str(payment.id),
        before="CREATED", after="AWAITING_MPESA", actor=f"user:{who.id}", at=NOW,
    )  # fmt: skip
    row(
        "shared_kernel.AnchorContinuation", id=new_id(), by="staff:1", why="lost", at=NOW, expires_at=NOW, chain="c",
        generation=2, number=1, hash="0" * 64, anchor_number=0, anchor_hash="0" * 64, found="there is no anchor",
    )  # fmt: skip
    row("identity.TotpRemoval", id=new_id(), by="staff:1", why="lost", at=NOW, expires_at=NOW, user_id=who.id)
    row(
        "payments.Reveal", id=new_id(), by="staff:1", why="court order", at=NOW, expires_at=NOW,
        transaction_id=payment.id,
    )  # fmt: skip
    row(
        "payments.Proposal", id=new_id(), transaction_id=payment.id, type="deposit", decision="other_phone",
        by="staff:1", why="asked", at=NOW, phone=phone, deriv_account=account, reference=SECRET,
    )  # fmt: skip
    row("payments.FloatAccount", account=f"deriv:CR{number}")
    row(
        "payments.FloatReservation", transaction_id=payment.id, account=f"deriv:CR{number}", amount=1000, created_at=NOW
    )
    row(
        "payments.ExchangeRate", mid=Decimal("129.5"), margin_bps=40, valid_from=NOW, valid_until=NOW, set_by="a",
        approved_by="b",
    )  # fmt: skip
    movement = {"provider": "deriv", "account": "CR900001", "movement": f"90{number}", "currency": "USD"}
    row(
        "payments.OrphanMovement", id=new_id(), amount=500, reference=ACCOUNT, transaction_id=payment.id, moved_at=NOW,
        found_at=NOW, owner="finance", **movement,
    )  # fmt: skip
    row(
        "payments.ReconciliationBreak", id=new_id(), kind="missing_here", sub_account="deriv_agent",
        known_as=f"90{number}", theirs=500, transaction_id=payment.id, at=NOW, opened_at=NOW, owner="finance",
        status="open", **movement,
    )  # fmt: skip
    row(
        "payments.ReconciliationRun", id=new_id(), provider="deriv", account="CR900001", sub_account="deriv_agent",
        since=NOW, until=NOW, read_since=NOW, source="api", at=NOW, by="system", unchecked=0, opened=1, closed=0,
        still_open=1, matched=0, missing_here=1, missing_there=0, different_amount=0, reverted=0,
    )  # fmt: skip
    row(
        "payments.SuspenseSettlement", id=new_id(), item=f"deriv:CR900001:90{number}", kind="written_off", amount=-500,
        currency="USD", by="staff:1", why="lost", at=NOW, status="proposed",
    )  # fmt: skip
    ours = {"provider": "deriv", "account": "CR900001", "sub_account": "deriv_agent", "currency": "USD"}
    row(
        "payments.ProviderBalance", id=new_id(), asked_at=NOW, ledger=1000, coming=0, going=0, amount=500, as_of=NOW,
        **ours,
    )  # fmt: skip
    row(
        "payments.BalanceDrift", id=new_id(), since=NOW, difference=-500, unexplained=-500, seen_at=NOW, looks=2, **ours
    )
    document = row("identity.KycDocument", id=new_id(), user=who.row, document_index=f"{number:064}", claimed_at=NOW)
    row(
        "identity.KycSnapshot", id=new_id(), user=who.row, version=1, document=document, full_name=given["full_name"],
        id_type="national_id", id_country="KE", id_number=SECRET, id_issued_on="2020-01-01", id_expires_on="2030-01-01",
        date_of_birth=SECRET, gender=SECRET, nationality="KE", residence="KE", kra_pin=SECRET, submitted_at=NOW,
    )  # fmt: skip
    row(
        "identity.ParticularsReveal", id=new_id(), by="staff:1", why="asked", at=NOW, expires_at=NOW, user_id=who.row.pk
    )
    device = row(
        "identity.Device", id=new_id(), user=who.row, client_id="c", name="Phone", platform="android",
        secret_hash="5" * 64, slot=2, created_at=NOW, last_seen_at=NOW,
    )  # fmt: skip
    row("identity.Session", id=new_id(), user=who.row, device=device, token_epoch=0, created_at=NOW, expires_at=NOW)
    return SimpleNamespace(payment=payment, who=who, request=request, entry_account=debit)


@pytest.fixture
def staff() -> Client:
    return signed_in(User.objects.create_superuser("boss", "boss@example.org", "a long enough password"))


def listing(model: type[db.Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def page(record: db.Model | None) -> str:
    assert record is not None
    return reverse(f"admin:{record._meta.app_label}_{record._meta.model_name}_change", args=[record.pk])


def test_every_page_of_the_back_office_is_read_only():
    assert [model for model, found in admin.site._registry.items() if not isinstance(found, ReadOnlyAdmin)] == []


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_staff_read_the_list_and_each_record(staff, model):
    a_payment()
    record = model._default_manager.first()

    assert staff.get(listing(model)).status_code == 200
    assert staff.get(page(record)).status_code == 200


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_every_attempt_to_change_a_record_is_refused(staff, model):
    a_payment()
    record = model._default_manager.first()
    before = list(model._default_manager.values())
    change = page(record)
    delete = {"action": "delete_selected", "_selected_action": [str(record.pk)], "post": "yes"}

    attempts = [
        staff.post(listing(model), delete),
        staff.post(listing(model), {"_save": "Save"}),
        staff.get(listing(model) + "add/"),
        staff.post(listing(model) + "add/", {}),
        staff.post(change, {"_save": "Save", "status": "COMPLETED", "is_superuser": "on"}),
        staff.put(change),
        staff.get(change.replace("/change/", "/delete/")),
        staff.post(change.replace("/change/", "/delete/"), {"post": "yes"}),
    ]

    assert [response.status_code for response in attempts] == [403] * len(attempts)
    assert list(model._default_manager.values()) == before


def test_personal_data_and_provider_messages_never_reach_a_page(staff):
    a_payment()

    for model in TABLES:
        for url in (listing(model), page(model._default_manager.first())):
            text = unescape(staff.get(url).content.decode())
            for private in (PHONE, PHONE[3:], EMAIL, NAME, ACCOUNT, SECRET):
                assert private not in text, f"{private} on {url}"


def test_no_page_shows_a_column_that_is_encrypted(staff, rf):
    for model, shown in admin.site._registry.items():
        sealed = {field.name for field in model._meta.fields if isinstance(field, EncryptedField)}
        request = rf.get("/")
        request.user = User(is_superuser=True, is_active=True)
        assert not sealed & set(shown.get_fields(request)), model
        assert not sealed & set(shown.get_list_display(request)), model


@pytest.mark.parametrize("model", TABLES, ids=lambda model: model.__name__)
def test_a_list_takes_as_many_queries_for_many_rows_as_for_one(staff, model):
    a_payment()
    staff.get(listing(model))  # content types are read once
    with CaptureQueriesContext(
        connection,
    ) as one:
        staff.get(listing(model))
    for number in range(1, 4):
        a_payment(number, phone=f"25471000000{number}", email=f"c{number}@example.org", deriv_account=f"CR{number:07}")

    with CaptureQueriesContext(connection) as many:
        staff.get(listing(model))

    assert len(many) == len(one)
    assert not any(re.match(r"SELECT COUNT\(\*\) AS .__count. FROM .\w+.$", query["sql"]) for query in many)


def test_a_transaction_leads_to_all_that_belongs_to_it_and_back(staff):
    found = a_payment()
    a_payment(1, phone="254710000001", email="c1@example.org", deriv_account="CR0000001")
    back = page(found.payment)
    text = staff.get(back).content.decode()
    links = [unescape(url) for url in re.findall(r'href="(/admin/[a-z_]+/[a-z]+/\?[^"]+)"', text)]

    assert "AWAITING_MPESA" in text
    assert "TransactionCreated" in text
    assert {url.split("/")[3] for url in links} >= {
        "mpesarequest", "derivtransfer", "ledgerentry", "domainevent", "auditlog", "floatreservation",
    }  # fmt: skip
    for url in links:
        rows = staff.get(url)
        assert rows.status_code == 200, url
        assert b"1 result" in rows.content or b"\n1 " in rows.content, url
        assert back in rows.content.decode(), url


def test_the_history_of_a_record_is_its_audit_log(staff):
    found = a_payment()

    answer = staff.get(page(found.payment).replace("/change/", "/history/"), follow=True)

    assert answer.status_code == 200
    assert str(found.payment.id) in answer.redirect_chain[0][0]
    assert answer.context["cl"].result_count == 1


@pytest.mark.parametrize(
    ("text", "keep", "shown"),
    [("254712345678", 4, "2547***5678"), ("CR7654321", 2, "CR***21"), ("CR1", 2, "***"), ("", 2, "")],
)
def test_personal_data_is_shown_by_its_ends_only(text, keep, shown):
    assert masked(text, keep=keep) == shown


def test_a_record_is_found_by_its_id_or_reference_and_nothing_by_nonsense(staff):
    found = a_payment()
    for model, term in (
        ("payments.Transaction", str(found.payment.id)),
        ("payments.Transaction", str(found.who.id)),
        ("mpesa_integration.MpesaRequest", "RCPT0"),
        ("wallet.LedgerEntry", "ref-0"),
        ("shared_kernel.AuditLog", str(found.payment.id)),
        ("identity.User", found.who.row.username),
    ):
        url = listing(apps.get_model(model))
        assert staff.get(url, {"q": term}).context["cl"].result_count == 1, (model, term)
        assert staff.get(url, {"q": "'; DROP TABLE users"}).context["cl"].result_count == 0, model


def test_the_sum_of_an_accounts_slots_is_its_balance(staff):
    found = a_payment()
    row("wallet.LedgerBalance", account_id=found.entry_account.id, slot=2, credit_balance=-5)

    assert "-1300.05 KES" in staff.get(page(found.entry_account)).content.decode()


def test_customers_do_not_sign_in_to_the_back_office():
    customer = a_customer(password="a long enough password")
    client = Client(headers={"Host": "localhost"})

    for name in (customer.row.username, customer.email, customer.phone.number):
        answer = client.post("/admin/login/", {"username": name, "password": "a long enough password"})
        assert answer.status_code == 200
        assert b"errornote" in answer.content
    client.force_login(customer.row)
    assert client.get("/admin/").status_code == 302


def test_staff_without_permission_and_strangers_see_nothing():
    a_payment()
    nobody = User.objects.create_superuser("clerk", "clerk@example.org", "a long enough password")
    User.objects.filter(pk=nobody.pk).update(is_superuser=False)
    clerk, stranger = signed_in(nobody), Client(headers={"Host": "localhost"})

    for model in TABLES:
        assert clerk.get(listing(model)).status_code == 403
        assert clerk.get(page(model._default_manager.first())).status_code == 403
        assert stranger.get(listing(model)).status_code == 302
