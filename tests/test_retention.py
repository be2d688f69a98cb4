"""What has outlived its retention is deleted, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.contrib.sessions.models import Session as StaffSession
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from identity.facade import account
from identity.models import (
    DerivAuthorization,
    EmailVerification,
    Notice,
    PhoneVerification,
    Profile,
    RefreshToken,
    Session,
    User,
)
from identity.models.kyc import KycDocument, KycSnapshot
from identity.tests.factories import a_customer
from payments.domain.transaction import TransactionStatus as S
from payments.models import Transaction
from penpay.privacy.purging import PAGE
from shared_kernel.facade import new_id
from shared_kernel.models import AuditLog, DomainEvent, IdempotencyKey, RateLimitCounter
from tests.subjects import (
    NAME,
    SEVEN_YEARS,
    a_known_customer,
    assert_forgotten,
    erase,
    run,
    somebody,
)
from wallet.models import LedgerEntry


@pytest.fixture
def known(transactional_db):
    return a_known_customer()


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
    for days in (366, 31, 2):
        EmailVerification(
            user=who.row, purpose=f"p{days}", email=who.email, code_hash="0" * 64, created_at=old(days),
            expires_at=old(days), open=None,
        ).save()  # fmt: skip
        Notice(user=who.row, kind="test", channel="email", created_at=old(days)).save()
    DerivAuthorization(
        user=who.row, session_id=new_id(), platform="rest", state_hash="a" * 64, verifier="v" * 43, created_at=old(2),
        expires_at=old(2),
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
    for days in (2, 0):
        RateLimitCounter.objects.create(key=f"{days}", slices="1:1", expires_at=old(days))
    return who, browser


def test_what_has_outlived_its_retention_goes_and_nothing_else(leftovers, capsys):
    _, browser = leftovers
    kept = set(IdempotencyKey.objects.exclude(scope="event:identity.notify").values_list("scope", flat=True))
    audited, events = AuditLog.objects.count(), DomainEvent.objects.count()

    answer = run(capsys, "purge_expired")

    assert answer["purged"] == {
        "one_time_codes": 2,
        "email_codes": 2,
        "deriv_authorizations": 1,
        "notices": 1,
        "sessions": 2,
        "staff_sessions": 1,
        "idempotency_keys": 1,
        "rate_limit_counters": 1,
        "aml_records": 0,
    }
    assert set(IdempotencyKey.objects.values_list("scope", flat=True)) == kept
    assert RefreshToken.objects.filter(family__isnull=False).count() == 2
    assert StaffSession.objects.get().session_key == "young"
    assert RateLimitCounter.objects.get().key == "0"
    assert browser.is_signed_in()
    assert DomainEvent.objects.count() == events
    assert AuditLog.objects.count() == audited + 8
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


def close(who):
    """As the customer does it; when."""
    account.close(who.id)
    at = User.objects.get(pk=who.id).closed_at
    assert at is not None
    return at


def test_a_closed_account_goes_seven_years_after_its_closing_and_not_a_day_before(known, capsys):
    who, _, _, _ = known
    at = close(who)
    assert User.objects.get(pk=who.id).erase_after == at + SEVEN_YEARS

    with time_machine.travel(at + SEVEN_YEARS - timedelta(days=1), tick=True):
        early = run(capsys, "purge_expired")
    assert (early["purged"]["aml_records"], early["kept_by_law"]) == (0, 1)
    assert Profile.objects.get(pk=who.id).full_name == NAME

    with time_machine.travel(at + SEVEN_YEARS + timedelta(hours=1), tick=True):
        late = run(capsys, "purge_expired")
    assert (late["purged"]["aml_records"], late["kept_by_law"]) == (1, 0)
    assert_forgotten(who)
    user = User.objects.get(pk=who.id)
    assert (user.email, user.password) == ("", "!")
    assert user.restricted_at is not None
    assert user.closed_at == at
    assert AuditLog.objects.filter(action="user.forgotten", target_id=str(who.id)).count() == 1


def test_money_that_moved_after_the_closing_is_what_counts(known, capsys):
    who, _, _, _ = known
    at = close(who)
    moved_at = at + timedelta(days=30)
    Transaction.objects.filter(user_id=who.id).update(updated_at=moved_at)

    with time_machine.travel(at + SEVEN_YEARS + timedelta(hours=1), tick=True):
        assert run(capsys, "purge_expired")["purged"]["aml_records"] == 0
    assert User.objects.get(pk=who.id).erase_after == moved_at + SEVEN_YEARS
    assert AuditLog.objects.filter(action="user.kept_longer", target_id=str(who.id)).count() == 1
    assert Profile.objects.get(pk=who.id).full_name == NAME

    with time_machine.travel(moved_at + SEVEN_YEARS + timedelta(hours=1), tick=True):
        assert run(capsys, "purge_expired")["purged"]["aml_records"] == 1
    assert_forgotten(who)


@pytest.mark.parametrize("tie", [{"frozen_at": timezone.now()}, {}], ids=["under review", "a payment is open"])
def test_who_is_tied_by_then_is_asked_for_again_a_day_later(known, capsys, tie):
    who, _, _, _ = known
    at = close(who)
    if tie:
        User.objects.filter(pk=who.id).update(**tie)
    else:
        Transaction.objects.filter(user_id=who.id).update(status=S.NEEDS_ATTENTION)
    due = at + SEVEN_YEARS + timedelta(hours=1)

    with time_machine.travel(due, tick=False):
        assert run(capsys, "purge_expired")["purged"]["aml_records"] == 0
    assert Profile.objects.get(pk=who.id).full_name == NAME
    assert User.objects.get(pk=who.id).erase_after == due + timedelta(days=1)


def test_who_asks_to_be_forgotten_after_the_closing_is_kept_no_longer_for_it(known, capsys):
    who, _, _, _ = known
    at = close(who)
    with time_machine.travel(at + timedelta(days=100), tick=True):
        erase(capsys, who)
    assert User.objects.get(pk=who.id).erase_after == at + SEVEN_YEARS


def test_whose_identity_documents_cannot_be_deleted_yet_is_not_called_forgotten(known, capsys):
    who, _, _, _ = known
    at = timezone.now()
    document = KycDocument.objects.create(user=who.row, document_index="d" * 64, claimed_at=at)
    KycSnapshot(
        user=who.row, version=1, document=document, full_name=NAME, id_type="national_id", id_country="KE",
        id_number="12345678", id_issued_on=at.date() - timedelta(days=900), id_expires_on=at.date(),
        date_of_birth="1990-04-01", gender="F", nationality="KE", residence="KE", submitted_at=at,
    ).save()  # fmt: skip
    erase(capsys, who)
    with time_machine.travel(datetime.now(UTC) + SEVEN_YEARS - timedelta(days=1), tick=True):
        assert run(capsys, "purge_expired")["documents_overdue"] == 0

    with time_machine.travel(datetime.now(UTC) + SEVEN_YEARS + timedelta(days=1), tick=True):
        looked, late = run(capsys, "purge_expired", "--dry-run"), run(capsys, "purge_expired")

    for answer in (looked, late):
        assert (answer["purged"]["aml_records"], answer["documents_overdue"], answer["kept_by_law"]) == (0, 1, 1)
    assert User.objects.get(pk=who.id).erase_after is not None
    assert not AuditLog.objects.filter(action="user.forgotten").exists()


def test_why_is_not_left_empty(db, capsys):
    who = a_customer()

    assert "--why" in run(capsys, "erase_subject", str(who.id), "--why= ", code=2)["error"]
    with pytest.raises(CommandError):
        call_command("erase_subject", str(who.id))
