"""A customer's data told: whole, in clear, and nothing of another's."""

import io
import json
import os
import stat

import pytest
from django.apps import apps
from django.db import connection
from django.test.utils import CaptureQueriesContext

from identity.models import DerivLogin, User
from identity.tests.factories import a_customer
from payments.models import Transaction
from payments.tests.factories import a_quote
from penpay.privacy import export as exporting
from penpay.privacy.inventory import INVENTORY
from penpay.privacy.model import NOT_SHOWN, Personal
from shared_kernel.facade import new_id
from shared_kernel.models import AuditLog
from tests.subjects import (
    ACCOUNT,
    NAME,
    a_known_customer,
    run,
)


@pytest.fixture
def known(transactional_db):
    return a_known_customer()


def test_the_document_holds_everything_of_this_customer_in_clear_and_nothing_of_another(known, capsys):
    who, deposit, other, _ = known

    document = run(capsys, "export_subject", str(who.id))

    tables = {name: table["rows"] for name, table in document["tables"].items()}
    assert document["subject"] == str(who.id)
    assert tables["users"][0]["phone"] == who.phone.number
    assert tables["users"][0]["email"] == who.email
    assert tables["user_profile"][0] == {"full_name": NAME, "date_of_birth": "1990-04-01"}
    assert tables["user_address"][0]["line"] == "12 Moi Avenue"
    assert tables["deriv_logins"][0]["account"] == ACCOUNT
    assert tables["devices"][0]["name"] == "Amina's phone"
    assert [row["id"] for row in tables["transactions"]] == [str(deposit.id)]
    assert tables["mpesa_requests"][0]["answer"] == "what M-Pesa said"
    assert tables["mpesa_callbacks"][0]["body"] == "what M-Pesa called back"
    assert tables["idempotency_keys"][0]["key"] == "my-own-key"
    assert len(tables["ledger_entries"]) >= 2
    assert {row["actor"] for row in tables["audit_logs"]} <= {f"user:{who.id}"}
    text = json.dumps(document)
    assert not any(secret in text for secret in (str(other.id), other.phone.number, other.full_name))


def test_every_personal_table_with_a_row_of_the_customer_is_told(known, capsys):
    """By the columns that name them, past the inventory's paths."""
    who, deposit, _, _ = known

    document = run(capsys, "export_subject", str(who.id))

    for label, entry in INVENTORY.items():
        model = apps.get_model(label)
        names = {field.attname for field in model._meta.concrete_fields}
        mine = {"user_id": who.id} if "user_id" in names else {"transaction_id": deposit.id}
        by_accounts = label == "wallet.LedgerEntry"  # an entry between two of our own accounts is not the customer's
        if set(mine) <= names and isinstance(entry, Personal) and not by_accounts:
            stored = model._default_manager.filter(**mine).count()
            assert len(document["tables"][model._meta.db_table]["rows"]) == stored, label


def test_neither_secrets_nor_what_may_not_be_told_is_in_it(known, capsys):
    who, deposit, _, _ = known
    Transaction.objects.filter(pk=deposit.id).update(held_why="suspected of structuring", held_by="staff:1")
    login, user = DerivLogin.objects.get(user_id=who.id), User.objects.get(pk=who.id)

    text = json.dumps(run(capsys, "export_subject", str(who.id)))

    for secret in (login.token, user.password, user.phone_index, "structuring", "c" * 64):
        assert secret not in text
    for label, entry in INVENTORY.items():
        if isinstance(entry, Personal):
            hidden = {name for name, datum in entry.data.items() if datum.kind in NOT_SHOWN}
            table = json.loads(text)["tables"][apps.get_model(label)._meta.db_table]
            assert not any(hidden & set(row) for row in table["rows"])


def test_the_file_is_its_owners_alone_is_whole_and_replaces_nothing(known, tmp_path, capsys):
    who, _, _, _ = known
    path = tmp_path / "amina.json"
    before = os.umask(0)
    try:
        answer = run(capsys, "export_subject", str(who.id), f"--out={path}")
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["tables"]["users"]["rows"][0]["email"] == who.email
    assert answer["rows"]["users"] == 1
    assert who.email not in json.dumps(answer)
    assert [file.name for file in tmp_path.iterdir()] == ["amina.json"]
    assert "is there already" in run(capsys, "export_subject", str(who.id), f"--out={path}", code=2)["error"]


def test_who_took_it_is_in_the_audit_log_before_it_is_read(known, capsys, monkeypatch):
    who, _, _, _ = known
    monkeypatch.setattr(exporting, "rows_of", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run(capsys, "export_subject", str(who.id), "--why=DSR 17", "--staff=officer")

    [row] = AuditLog.objects.filter(action="subject.exported")
    assert (row.target_id, row.actor, row.why) == (str(who.id), "staff:officer", "DSR 17")


def test_a_page_at_a_time_however_much_there_is(known, monkeypatch):
    who, _, _, _ = known
    for _ in range(5):
        a_quote(who.id)
    monkeypatch.setattr(exporting, "PAGE", 2)

    with CaptureQueriesContext(connection) as asked:
        rows = exporting.export(who.id, io.StringIO().write)

    assert rows["quotes"] == 6
    assert all(" LIMIT 2" in query["sql"] for query in asked)


def test_a_text_that_no_key_opens_is_told_as_such_and_the_rest_is_given(known, capsys, settings):
    who, _, _, _ = known
    settings.PII_KEYS = f"another:{'ab' * 32}"

    document = run(capsys, "export_subject", str(who.id))

    assert document["tables"]["users"]["rows"][0]["email"] == "[cannot be decrypted]"


@pytest.mark.parametrize("command", [("export_subject",), ("erase_subject", "--why=asked")])
def test_nobody_and_staff_are_no_subjects(db, capsys, command):
    staff = User.objects.create_superuser("boss", "boss@example.org", "a long enough password")

    for given in (str(staff.id), str(new_id()), "no id"):
        assert "no such customer" in run(capsys, command[0], given, *command[1:], code=2)["error"]


def test_the_customer_may_be_named_by_phone_on_standard_input(db, capsys, monkeypatch):
    who = a_customer()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"+{who.phone.number}\n"))

    assert run(capsys, "export_subject", "-")["subject"] == str(who.id)
