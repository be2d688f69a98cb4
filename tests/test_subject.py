"""A customer's data: told whole and in clear, forgotten as far as the law lets, and deleted when its time is over."""

import io
import json
import os
import stat
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.apps import apps
from django.conf import settings
from django.contrib.sessions.models import Session as StaffSession
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from identity.application.erasure import EraseSubject
from identity.facade import erasure, users
from identity.models import Address, DerivLogin, Device, PhoneVerification, Profile, RefreshToken, Session, User
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from mpesa_integration.models import MpesaCallback, MpesaRequest
from payments.domain.transaction import TransactionStatus as S
from payments.models import Transaction
from payments.tests.factories import a_float, a_quote, a_stored_deposit
from penpay.privacy import export as exporting
from penpay.privacy.inventory import INVENTORY
from penpay.privacy.model import NOT_SHOWN, Personal
from penpay.privacy.purging import PAGE
from penpay.privacy.ties import AllTies
from shared_kernel.domain.money import Currency, Money
from shared_kernel.facade import new_id, unit_of_work
from shared_kernel.models import AuditLog, DomainEvent, IdempotencyKey
from wallet.facade import trial_balance
from wallet.models import LedgerEntry
from wallet.tests.factories import a_deposit, receive
from wallet.tests.threads import at_once

SEVEN_YEARS = timedelta(days=settings.RETENTION_DAYS["aml_records"])
NAME, ACCOUNT = "Amina Wanjiru Otieno", "CR7654321"


def run(capsys, *arguments, code=0):
    """What a command answers with --json."""
    capsys.readouterr()
    ended: object = 0
    try:
        call_command(*arguments, "--json")
    except SystemExit as exit:
        ended = exit.code
    assert ended == code
    return json.loads(capsys.readouterr().out)


def somebody(**given):
    """A customer with all that is known of one: signed in, with an address, a code, and a finished deposit."""
    who = a_customer(full_name=NAME, deriv_account=ACCOUNT, password=PASSWORD, **given)
    profile = Profile.objects.get(pk=who.id)
    profile.date_of_birth = "1990-04-01"
    profile.save()
    at = timezone.now()
    Address(user=who.row, line="12 Moi Avenue", town="Kisumu", created_at=at).save()
    PhoneVerification(
        user=who.row,
        purpose="phone",
        phone=who.phone.number,
        code_hash="c" * 64,
        created_at=at,
        expires_at=at,
        open=None,
    ).save()
    browser = Browser()
    assert browser.sign_in(who.email).status_code == 200
    return who, browser


def a_finished_deposit(who):
    a_float()
    deposit = a_stored_deposit(S.COMPLETED, user=who.id)
    Transaction.objects.filter(pk=deposit.id).update(next_step_at=None)
    at = timezone.now()
    request = MpesaRequest(
        id=new_id(), transaction_id=deposit.id, leg="stk_push", attempt=1, reference=new_id().hex, amount=130000,
        currency="KES", phone=who.phone.number, shortcode="174379", callback_hash=new_id().hex, status="done",
        send_before=at, created_at=at, answer="what M-Pesa said", receipt="UKM0000001",
    )  # fmt: skip
    request.save()
    MpesaCallback(
        id=new_id(), request=request, kind="s", received_at=at, last_received_at=at, peer="196.201.214.200",
        sha256="0" * 64, verdict="ok", body="what M-Pesa called back",
    ).save()  # fmt: skip
    a_quote(who.id)
    IdempotencyKey.objects.create(
        scope=f"{who.id}:deposits", key="my-own-key", fingerprint="f", answer="{}", created_at=at
    )
    return deposit


# --- telling ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(transactional_db):
    who, browser = somebody()
    deposit = a_finished_deposit(who)
    other = a_customer(full_name="Somebody Else Entirely")
    a_stored_deposit(S.COMPLETED, user=other.id)
    return who, deposit, other, browser


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


# --- forgetting ------------------------------------------------------------------------------------------------------


def erase(capsys, who, *more, code=0):
    return run(capsys, "erase_subject", str(who.id), "--why=DSR 18", *more, code=code)


def snapshot_of(who):
    """All rows of this customer, as stored."""
    return {
        label: [
            {field.attname: row.__dict__[field.attname] for field in row._meta.concrete_fields}
            for row in exporting.rows_of(who.id, apps.get_model(label), entry)
        ]
        for label, entry in INVENTORY.items()
        if isinstance(entry, Personal)
    }


def test_what_no_law_keeps_is_gone_and_the_rest_is_restricted_and_dated(known, capsys):
    who, _, _, _ = known
    before = timezone.now()

    answer = erase(capsys, who)

    user = User.objects.get(pk=who.id)
    assert not user.is_active
    assert user.restricted_at
    assert user.erase_after
    assert before <= user.restricted_at <= timezone.now()
    assert user.erase_after == user.restricted_at + SEVEN_YEARS
    assert answer["kept_until"] == user.erase_after.isoformat()
    assert (user.email, user.email_index, user.phone_index, user.password) == ("", None, None, "!")
    assert user.phone == who.phone.number
    assert Profile.objects.get(pk=who.id).full_name == NAME
    login = DerivLogin.objects.get(user_id=who.id)
    assert (login.token, login.active_for_id) == ("", None)
    assert login.account == ACCOUNT
    for device in Device.objects.filter(user_id=who.id):
        assert (device.name, device.client_id, device.platform, device.secret_hash) == ("", "", "", "")
        assert device.revoked_at is not None
    assert not PhoneVerification.objects.filter(user_id=who.id).exists()


def test_every_column_that_is_kept_until_erased_is_empty_afterwards(known, capsys):
    """By the inventory: a column that gets this retention and is not erased fails here."""
    who, _, _, _ = known
    had = set()

    before = snapshot_of(who)
    erase(capsys, who)
    after = snapshot_of(who)

    for label, entry in INVENTORY.items():
        if not isinstance(entry, Personal):
            continue
        for name, datum in entry.data.items():
            if (datum.kept or entry.kept) == "until_erased":
                had |= {f"{label}.{name}" for row in before[label] if row.get(name)}
                assert all(row[name] in {"", None, "!"} for row in after[label]), f"{label}.{name}"
    assert len(had) > 6


def test_nobody_signs_in_again_and_what_was_open_ends_at_once(known, capsys):
    who, _, _, browser = known
    assert browser.is_signed_in()

    erase(capsys, who)

    assert not browser.is_signed_in()
    assert browser.post("auth/refresh").status_code == 401
    for identifier in (who.email, f"+{who.phone.number}"):
        refused = Browser().sign_in(identifier)
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid_credentials")
    assert not Session.objects.filter(user_id=who.id, ended_at=None).exists()


def test_a_restricted_account_can_not_be_opened_again_by_a_careless_update(known, capsys):
    who, _, _, _ = known
    erase(capsys, who)

    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.filter(pk=who.id).update(is_active=True)


def test_the_ledger_is_as_it_was(known, capsys):
    who, _, _, _ = known
    entries, before = list(LedgerEntry.objects.order_by("seq").values()), trial_balance()

    erase(capsys, who)

    assert list(LedgerEntry.objects.order_by("seq").values()) == entries
    assert trial_balance() == before
    found = run(capsys, "verify_ledger", code=0)
    assert found["ok"]


def test_it_is_audited_once_however_often_it_is_asked_for(known, capsys):
    who, _, _, _ = known

    first, second = erase(capsys, who, "--staff=officer"), erase(capsys, who)

    assert (first["already"], second["already"]) == (False, True)
    assert first["kept_until"] == second["kept_until"]
    [row] = AuditLog.objects.filter(action="user.erased")
    assert (row.target_id, row.actor, row.why) == (str(who.id), "staff:officer", "DSR 18")
    assert who.email not in json.dumps([row.details, row.why])


def test_a_dry_run_says_the_same_and_changes_nothing(known, capsys):
    who, _, _, browser = known
    before = snapshot_of(who)

    answer = erase(capsys, who, "--dry-run")

    assert answer["dry_run"]
    assert answer["kept_until"]
    assert browser.is_signed_in()
    assert not AuditLog.objects.filter(action="user.erased").exists()
    after = snapshot_of(who)
    assert {label: rows for label, rows in after.items() if rows != before[label]}.keys() <= {"identity.Device"}


OPEN = [S.CREATED, S.AWAITING_MPESA, S.MPESA_CONFIRMED, S.NEEDS_ATTENTION, S.REFUND_PENDING]


@pytest.mark.parametrize("status", OPEN)
def test_while_a_transaction_is_open_nothing_is_erased(transactional_db, capsys, status):
    who, browser = somebody()
    a_float()
    a_stored_deposit(status, user=who.id)

    answer = erase(capsys, who, code=2)

    assert "not finished" in answer["error"]
    assert browser.is_signed_in()
    assert User.objects.get(pk=who.id).email == who.email


def test_while_money_is_on_its_way_or_owed_nothing_is_erased(transactional_db, capsys):
    who, browser = somebody()
    with unit_of_work():
        receive(a_deposit(), who.id, Money(130000, Currency.KES))

    assert "on its way" in erase(capsys, who, code=2)["error"]
    assert browser.is_signed_in()


def test_an_account_under_review_is_not_erased(transactional_db, capsys):
    who, _ = somebody()
    User.objects.filter(pk=who.id).update(frozen_at=timezone.now())

    assert "under review" in erase(capsys, who, code=2)["error"]
    assert User.objects.get(pk=who.id).email == who.email


def test_of_a_customer_who_never_proved_nor_moved_anything_nothing_is_kept(transactional_db, capsys):
    who, _ = somebody(kyc_status="none", tier="none")

    answer = erase(capsys, who)

    assert answer["kept_until"] is None
    assert_forgotten(who)
    again = a_customer(phone=who.phone.number, email=who.email, full_name=NAME, deriv_account=ACCOUNT)
    assert again.id != who.id


def assert_forgotten(who):
    user, profile = User.objects.get(pk=who.id), Profile.objects.get(pk=who.id)
    assert (user.phone, user.email, profile.full_name, profile.date_of_birth) == ("", "", "", "")
    assert not Address.objects.filter(user_id=who.id).exists()
    for login in DerivLogin.objects.filter(user_id=who.id):
        assert (login.account, login.full_name, login.token) == ("", "", "")


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
def test_no_deposit_begins_between_the_look_and_the_erasure(transactional_db):
    """What a deposit begins with, the customer under lock, waits for the erasure, and then finds a closed account."""
    who, _ = somebody()
    looked, found = threading.Event(), []

    class Slow(AllTies):
        def of(self, user):
            ties = super().of(user)
            looked.set()
            time.sleep(0.5)
            return ties

    def begin_a_deposit():
        looked.wait(10)
        with unit_of_work():
            found.append(users.customer(who.id).is_frozen)

    results = at_once(lambda: erasure(Slow()).erase(EraseSubject(user_id=who.id, why="asked")), begin_a_deposit)

    assert not [result for result in results if isinstance(result, Exception)]
    assert found == [True]


# --- purging ---------------------------------------------------------------------------------------------------------


def old(days):
    return timezone.now() - timedelta(days=days)


@pytest.fixture
def leftovers(transactional_db):
    who, browser = somebody()
    session = Session.objects.get(user_id=who.id)
    for days, ended in ((400, 399), (400, None), (5, 4)):
        one = Session.objects.create(
            user=who.row, device=session.device, token_epoch=0, created_at=old(days), expires_at=old(days - 30),
            ended_at=old(ended) if ended else None,
        )  # fmt: skip
        RefreshToken.objects.create(
            family=one, hash=new_id().hex, created_at=old(days), expires_at=old(days - 7), used_at=old(days)
        )
    for days in (400, 31, 2):
        PhoneVerification(
            user=who.row, purpose=f"p{days}", phone=who.phone.number, code_hash="0" * 64, created_at=old(days),
            expires_at=old(days), open=None,
        ).save()  # fmt: skip
    keys = {
        f"{who.id}:deposits": 4000,
        f"{who.id}:withdrawals": 4000,
        "event:payments.advance": 4000,
        "event:wallet.post": 4000,
        "event:identity.notify": 366,
        "event:identity.young": 300,
        "treasury": 4000,
    }
    for scope, days in keys.items():
        IdempotencyKey.objects.create(scope=scope, key="k", fingerprint="", created_at=old(days))
    StaffSession.objects.create(session_key="old", session_data="", expire_date=old(40))
    StaffSession.objects.create(session_key="young", session_data="", expire_date=old(-1))
    return who, browser


def test_what_has_outlived_its_retention_goes_and_nothing_else(leftovers, capsys):
    _, browser = leftovers
    kept = set(IdempotencyKey.objects.exclude(scope="event:identity.notify").values_list("scope", flat=True))
    audited, events = AuditLog.objects.count(), DomainEvent.objects.count()

    answer = run(capsys, "purge_expired")

    assert answer["purged"] == {
        "one_time_codes": 2,
        "sessions": 2,
        "staff_sessions": 1,
        "idempotency_keys": 1,
        "aml_records": 0,
    }
    assert set(IdempotencyKey.objects.values_list("scope", flat=True)) == kept
    assert RefreshToken.objects.filter(family__isnull=False).count() == 2
    assert StaffSession.objects.get().session_key == "young"
    assert browser.is_signed_in()
    assert DomainEvent.objects.count() == events
    assert AuditLog.objects.count() == audited + 4
    assert run(capsys, "purge_expired")["purged"]["sessions"] == 0


def test_a_dry_run_of_the_purge_counts_the_same_and_deletes_nothing(leftovers, capsys):
    wanted = run(capsys, "purge_expired", "--dry-run")["purged"]

    assert Session.objects.count() == 4
    assert run(capsys, "purge_expired")["purged"] == wanted


def test_many_go_in_batches_with_an_audit_row_each(db, capsys):
    IdempotencyKey.objects.bulk_create(
        IdempotencyKey(scope="event:identity.notify", key=str(number), fingerprint="", created_at=old(400))
        for number in range(PAGE + 1)
    )

    assert run(capsys, "purge_expired")["purged"]["idempotency_keys"] == PAGE + 1
    rows = AuditLog.objects.filter(action="retention.purged", target_id="idempotency_keys").order_by("seq")
    assert [row.details["rows"] for row in rows] == [PAGE, 1]


def test_what_the_law_keeps_goes_after_seven_years_and_not_a_day_before(known, capsys):
    who, _, _, _ = known
    erase(capsys, who)
    entries = LedgerEntry.objects.count()

    with time_machine.travel(datetime.now(UTC) + SEVEN_YEARS - timedelta(days=1), tick=True):
        early = run(capsys, "purge_expired")
    assert (early["purged"]["aml_records"], early["kept_by_law"]) == (0, 1)
    assert Profile.objects.get(pk=who.id).full_name == NAME

    with time_machine.travel(datetime.now(UTC) + SEVEN_YEARS + timedelta(days=1), tick=True):
        late = run(capsys, "purge_expired")
    assert (late["purged"]["aml_records"], late["kept_by_law"]) == (1, 0)
    assert_forgotten(who)
    assert AuditLog.objects.filter(action="user.forgotten", target_id=str(who.id)).count() == 1
    assert LedgerEntry.objects.count() == entries
    assert User.objects.get(pk=who.id).restricted_at is not None


def test_why_is_not_left_empty(db, capsys):
    who = a_customer()

    assert "--why" in run(capsys, "erase_subject", str(who.id), "--why= ", code=2)["error"]
    with pytest.raises(CommandError):
        call_command("erase_subject", str(who.id))
