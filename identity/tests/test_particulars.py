"""A customer's particulars in clear: asked for by one of staff, approved by another, and shown once."""

from typing import Any
from uuid import UUID

import pytest
import time_machine
from django.db import DatabaseError, IntegrityError, transaction
from django.test import Client

from identity.facade import particulars
from identity.models import ParticularsReveal, User
from identity.tests.factories import PASSWORD, a_customer
from identity.tests.test_kyc_admin import staff
from shared_kernel.domain.four_eyes import AlreadyUsed, ConsentExpired, NotApproved, ReasonMissing, SamePerson
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in

pytestmark = pytest.mark.django_db
WHY = "a letter of the court"


@pytest.fixture
def customer() -> User:
    return User.objects.get(pk=a_customer(password=PASSWORD).id)


def address(what: str, customer: User) -> str:
    return f"/admin/identity/particularsreveal/{what}/{customer.pk}/"


def in_clear(customer: User) -> list[str]:
    return [customer.phone, customer.email, customer.profile.full_name, customer.deriv_login.account]


def shown(answer: Any, customer: User) -> list[str]:
    return [text for text in in_clear(customer) if text in answer.content.decode()]


def two() -> tuple[Client, Client]:
    return staff("compliance officer")[0], staff("compliance manager")[0]


def test_they_are_shown_once_to_who_asked_when_another_one_approved(customer):
    officer, manager = two()

    assert shown(officer.post(address("ask", customer), {"why": WHY}, follow=True), customer) == []
    row = ParticularsReveal.objects.get()
    assert b"second person" in officer.post(address("take", customer)).content
    assert manager.post(f"/admin/identity/particularsreveal/{row.pk}/approve/").status_code == 302
    assert b"ask for them first" in manager.post(address("take", customer)).content
    answer = officer.post(address("take", customer))

    assert shown(answer, customer) == in_clear(customer)
    assert "no-store" in answer.headers["Cache-Control"]
    first, second = (
        f"staff:{User.objects.get(username=name).pk}" for name in ("complianceofficer", "compliancemanager")
    )
    told = {each.action: each for each in AuditLog.objects.filter(target_id=str(customer.pk), why=WHY)}
    assert set(told) == {"user.reveal_asked", "user.reveal_approved", "user.revealed"}
    assert told["user.revealed"].details == {"reveal": str(row.pk), "by": first, "approved_by": second}
    assert (told["user.reveal_asked"].actor, told["user.reveal_approved"].actor) == (first, second)
    again = officer.post(address("take", customer))
    assert b"good for once" in again.content
    assert shown(again, customer) == []


def test_nothing_is_shown_unless_the_audit_log_knows(customer, monkeypatch):
    officer, manager = two()
    officer.post(address("ask", customer), {"why": WHY})
    manager.post(f"/admin/identity/particularsreveal/{ParticularsReveal.objects.get().pk}/approve/")

    def full(*_: Any) -> None:
        raise DatabaseError("disk full")

    monkeypatch.setattr(type(particulars.audit), "append", full)
    with pytest.raises(DatabaseError):
        officer.post(address("take", customer))

    assert ParticularsReveal.objects.get().used_at is None


def test_without_a_reason_nothing_is_asked(customer):
    answer = staff("compliance officer")[0].post(address("ask", customer), {"why": "  "})

    assert b"required" in answer.content
    with pytest.raises(ReasonMissing):
        particulars.ask(UUID(str(customer.pk)), by="staff:1", why=" ")
    assert not ParticularsReveal.objects.exists()


def test_nobody_is_two_people_in_service_page_and_database(customer):
    boss = User.objects.create_superuser("boss", "boss@example.org", "a long enough password")
    client = signed_in(boss)
    client.post(address("ask", customer), {"why": WHY})
    row = ParticularsReveal.objects.get()

    assert (
        b"somebody else has to approve" in client.post(f"/admin/identity/particularsreveal/{row.pk}/approve/").content
    )
    with pytest.raises(SamePerson):
        particulars.approve(row.pk, by=row.by)
    with pytest.raises(IntegrityError), transaction.atomic():
        ParticularsReveal.objects.filter(pk=row.pk).update(approved_by=row.by)
    for change in ({"why": "another"}, {"user_id": boss.pk}):
        with pytest.raises(DatabaseError), transaction.atomic():
            ParticularsReveal.objects.filter(pk=row.pk).update(**change)
    with pytest.raises(NotApproved):
        particulars.take(customer.pk, by=row.by)


def test_an_approval_is_good_for_a_day_and_once(customer):
    asked = particulars.ask(customer.pk, by="staff:1", why=WHY)
    particulars.approve(asked.id, by="staff:2")

    with time_machine.travel(asked.expires_at), pytest.raises(ConsentExpired):
        particulars.take(customer.pk, by="staff:1")
    particulars.take(customer.pk, by="staff:1")
    with pytest.raises(AlreadyUsed):
        particulars.take(customer.pk, by="staff:1")


@pytest.mark.parametrize("group", ["support", "finance", "ops", "auditor"])
def test_nobody_else_may_ask_approve_or_take(customer, group):
    row = particulars.ask(customer.pk, by="staff:1", why=WHY)
    client = staff(group)[0]

    for url in (
        address("ask", customer),
        address("take", customer),
        f"/admin/identity/particularsreveal/{row.id}/approve/",
    ):
        assert client.post(url, {"why": WHY}).status_code == 403


def test_of_staff_and_of_nobody_nothing_is_asked():
    client, member = staff("compliance officer")

    assert b"no such customer" in client.post(address("ask", member), {"why": WHY}).content
    assert not ParticularsReveal.objects.exists()
