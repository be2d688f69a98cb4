"""Support takes a lost authenticator away: one asks, another person approves, over the pages of the back-office."""

from base64 import b32decode
from datetime import timedelta
from functools import partial

import pytest
import time_machine
from django.db import DatabaseError, IntegrityError, connection, transaction

from identity import models
from identity.domain.totp import STEP_S, TotpNotFound, totp
from identity.domain.totp_removal import LASTS
from identity.domain.user import AccountFrozen, UserNotFound
from identity.facade import payout_sessions, step_up, totp_removals
from identity.tests.clients import Browser
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.test_races import at_once
from shared_kernel.domain.four_eyes import AlreadyApproved, ConsentExpired, ReasonMissing, SamePerson
from shared_kernel.domain.identifiers import UserId
from shared_kernel.infrastructure.persistence import new_id, now
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in as staff_signed_in

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("sms")]
WHY = "called back at the verified number"


@pytest.fixture
def secret(customer) -> bytes:
    """Of an authenticator that is in use."""
    secret = b32decode(step_up.enrol_totp(customer.id).secret)
    step_up.confirm_totp(customer.id, totp(secret, int(now().timestamp()) // STEP_S - 1))
    models.Notice.objects.update(sent_at=now())  # that it was added
    return secret


def a_member(name: str, *groups: str):
    return models.User.objects.create_staff(name, f"{name}@example.org", PASSWORD, *groups)


def ask(browser, customer, why=WHY):
    return browser.post(f"/admin/identity/totpremoval/ask/{customer.id}/", {"why": why})


def approve(browser, removal):
    return browser.post(f"/admin/identity/totpremoval/{removal.pk}/approve/")


def test_one_asks_another_approves_and_it_is_gone_with_all_sessions_and_told(customer, signed_in, secret, told, sms):
    support, manager = a_member("mary", "support"), a_member("otieno", "compliance manager")
    page = staff_signed_in(support).get(f"/admin/identity/user/{customer.id}/change/").content.decode()
    assert f"/admin/identity/totpremoval/ask/{customer.id}/" in page

    assert ask(staff_signed_in(support), customer).status_code == 302
    removal = models.TotpRemoval.objects.get()
    assert models.TotpFactor.objects.exists()
    assert signed_in.is_signed_in()
    assert approve(staff_signed_in(manager), removal).status_code == 302

    assert not models.TotpFactor.objects.exists()
    assert not signed_in.is_signed_in()
    assert {to for to, text in told() if "support removed the authenticator" in text} == {
        customer.phone.number, customer.email,
    }  # fmt: skip
    removal.refresh_from_db()
    assert (removal.by, removal.approved_by) == (f"staff:{support.pk}", f"staff:{manager.pk}")
    assert removal.used_at is not None
    rows = {row.action: row for row in AuditLog.objects.filter(target_id=str(customer.id), action__contains="remov")}
    asked, approved = rows["totp.removal_asked"], rows["totp.removal_approved"]
    assert (asked.actor, asked.why, asked.details["removal"]) == (f"staff:{support.pk}", WHY, str(removal.pk))
    assert (approved.actor, approved.details["by"]) == (f"staff:{manager.pk}", f"staff:{manager.pk}")
    assert AuditLog.objects.filter(action="totp.taken_away", target_id=str(customer.id)).count() == 1
    sms.clear()
    assert Browser().enrol(customer.email, device="another").status_code == 200  # by SMS again


def test_payouts_wait_afterwards_as_after_a_change_of_phone(customer, signed_in, secret):
    models.Device.objects.update(created_at=now() - timedelta(days=400))
    asked = totp_removals.ask(customer.id, by="staff:1", why=WHY)
    before = now()
    totp_removals.approve(asked.id, by="staff:2")
    again = Browser()
    again.cookies["penpay_device"] = signed_in.cookies["penpay_device"].value
    assert again.sign_in(customer.email).status_code == 200

    session = models.Session.objects.get(ended_at=None)
    standing = payout_sessions.sessions.standing(session.pk)
    assert standing.new_since is not None
    assert before <= standing.new_since <= now()


@pytest.mark.parametrize("group", ["compliance officer", "compliance manager", "finance", "ops", "auditor"])
def test_only_support_asks(customer, secret, group):
    assert ask(staff_signed_in(a_member("mary", group)), customer).status_code == 403
    assert not models.TotpRemoval.objects.exists()


@pytest.mark.parametrize("group", ["support", "compliance officer", "finance", "ops", "auditor"])
def test_only_a_compliance_manager_approves(customer, secret, group):
    totp_removals.ask(customer.id, by="staff:1", why=WHY)
    assert approve(staff_signed_in(a_member("mary", group)), models.TotpRemoval.objects.get()).status_code == 403
    assert models.TotpFactor.objects.exists()


def test_nobody_is_two_people_not_even_with_every_right(customer, secret):
    boss = staff_signed_in(a_member("boss", "support", "compliance manager"))
    ask(boss, customer)
    removal = models.TotpRemoval.objects.get()

    assert "somebody else has to approve" in approve(boss, removal).content.decode()

    with pytest.raises(SamePerson):
        totp_removals.approve(removal.pk, by=removal.by)
    with pytest.raises((IntegrityError, DatabaseError)), transaction.atomic():
        models.TotpRemoval.objects.filter(pk=removal.pk).update(approved_by=removal.by, approved_at=now())
    assert models.TotpFactor.objects.exists()
    assert not AuditLog.objects.filter(action="totp.removal_approved").exists()


def test_an_approval_is_good_once_and_for_a_day(customer, secret):
    asked = totp_removals.ask(customer.id, by="staff:1", why=WHY)
    with time_machine.travel(now() + LASTS), pytest.raises(ConsentExpired):
        totp_removals.approve(asked.id, by="staff:2")
    assert models.TotpFactor.objects.exists()

    totp_removals.approve(asked.id, by="staff:2")
    with pytest.raises(AlreadyApproved):
        totp_removals.approve(asked.id, by="staff:3")


def test_there_has_to_be_a_reason_and_an_authenticator_of_a_customer(customer, secret):
    with pytest.raises(ReasonMissing):
        totp_removals.ask(customer.id, by="staff:1", why="  ")
    with pytest.raises(TotpNotFound):
        totp_removals.ask(a_customer().id, by="staff:1", why=WHY)
    with pytest.raises(UserNotFound):
        totp_removals.ask(UserId(new_id()), by="staff:1", why=WHY)
    assert not models.TotpRemoval.objects.exists()


@pytest.mark.parametrize(
    ("change", "refusal"), [({"frozen_at": now()}, AccountFrozen), ({"is_active": False}, UserNotFound)]
)
def test_what_changed_since_it_was_asked_for_counts(customer, secret, change, refusal):
    asked = totp_removals.ask(customer.id, by="staff:1", why=WHY)
    models.User.objects.filter(pk=customer.id).update(**change)

    for refused in (
        lambda: totp_removals.approve(asked.id, by="staff:2"),
        lambda: totp_removals.ask(customer.id, by="staff:1", why=WHY),
    ):
        with pytest.raises(refusal):
            refused()

    assert models.TotpFactor.objects.exists()
    assert models.TotpRemoval.objects.get().approved_by == ""


def test_the_customer_has_removed_it_meanwhile(customer, secret):
    asked = totp_removals.ask(customer.id, by="staff:1", why=WHY)
    step_up.remove_totp(customer.id)
    with pytest.raises(TotpNotFound):
        totp_removals.approve(asked.id, by="staff:2")
    assert models.User.objects.get(pk=customer.id).totp_removed_at is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
def test_of_approvals_at_the_same_moment_one_removes_it(customer, secret):
    asked = totp_removals.ask(customer.id, by="staff:1", why=WHY)

    results = at_once([partial(totp_removals.approve, asked.id, by=f"staff:{n}") for n in range(2, 6)])

    assert [result for result in results if not isinstance(result, Exception)] == [None]
    assert {type(result) for result in results if isinstance(result, Exception)} == {AlreadyApproved}
    assert AuditLog.objects.filter(action="totp.taken_away").count() == 1
    assert models.Notice.objects.filter(kind="totp_taken_away").count() == 2
