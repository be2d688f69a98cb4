"""A customer forgotten as far as the law lets."""

import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from identity.application.deriv_login import BindDerivLogin
from identity.application.erasure import EraseSubject
from identity.domain.user import UserNotFound
from identity.facade import deriv_logins, erasure, users
from identity.infrastructure.erasure import DjangoPersonalRecords
from identity.models import (
    DerivAuthorization,
    DerivLogin,
    Device,
    EmailVerification,
    Notice,
    PhoneVerification,
    Profile,
    Session,
    TotpFactor,
    User,
)
from identity.tests.clients import Browser
from identity.tests.factories import a_customer
from payments.domain.transaction import TransactionStatus as S
from payments.models import OrphanMovement
from payments.tests.factories import a_float, a_stored_deposit
from penpay.privacy.inventory import INVENTORY
from penpay.privacy.model import Personal
from penpay.privacy.ties import AllTies
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import DerivPlatform
from shared_kernel.facade import new_id, unit_of_work
from shared_kernel.models import AuditLog
from tests.subjects import (
    ACCOUNT,
    NAME,
    SEVEN_YEARS,
    a_known_customer,
    assert_forgotten,
    erase,
    run,
    snapshot_of,
    somebody,
)
from wallet.facade import trial_balance
from wallet.models import LedgerEntry
from wallet.tests.factories import a_deposit, receive
from wallet.tests.threads import at_once


@pytest.fixture
def known(transactional_db):
    return a_known_customer()


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
    assert (login.token, login.refresh_token, login.active_for_id) == ("", "", None)
    assert login.account == ACCOUNT
    for device in Device.objects.filter(user_id=who.id):
        assert (device.name, device.client_id, device.platform, device.secret_hash) == ("", "", "", "")
        assert device.revoked_at is not None
    for model in (PhoneVerification, EmailVerification, TotpFactor, Notice, DerivAuthorization):
        assert not model.objects.filter(user_id=who.id).exists(), model


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


def test_while_money_of_theirs_lies_in_suspense_nothing_is_erased(known, capsys):
    who, deposit, _, _ = known
    at = timezone.now()
    orphan = OrphanMovement(
        id=new_id(), provider="mpesa", account="174379", movement="UKM0000009", amount=5000, currency="KES",
        transaction_id=deposit.id, moved_at=at, found_at=at, owner="finance",
    )  # fmt: skip
    orphan.save()

    assert "suspense" in erase(capsys, who, code=2)["error"]
    OrphanMovement.objects.filter(pk=orphan.pk).update(settled_at=at)
    assert erase(capsys, who)["already"] is False


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


def test_a_binding_that_waits_for_deriv_meanwhile_binds_nothing(transactional_db):
    who, _ = somebody(kyc_status="none", tier="none")

    class ErasesMeanwhile:
        def identify(self, platform, token):
            erasure(AllTies()).erase(EraseSubject(user_id=who.id, why="asked"))
            return SimpleNamespace(account="CR777", currency="USD", full_name=NAME, is_virtual=False)

    command = BindDerivLogin(
        user_id=who.id, session_id=new_id(), platform=next(iter(DerivPlatform)), token="a-late-token"
    )
    with pytest.raises(UserNotFound):
        replace(deriv_logins, deriv=ErasesMeanwhile()).bind(command)

    assert_forgotten(who)
    assert not DerivLogin.objects.filter(user_id=who.id).exclude(active_for=None).exists()


def test_a_token_that_came_late_goes_with_the_rest(known, capsys):
    who, _, _, _ = known
    erase(capsys, who)
    login = DerivLogin.objects.get(user_id=who.id)
    login.token = "a-late-token"
    login.save()

    DjangoPersonalRecords().forget_identity(who.id)

    assert DerivLogin.objects.get(user_id=who.id).token == ""
