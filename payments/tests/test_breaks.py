"""What people make of a break: one explains it; what posts is proposed by one and approved by another."""

from dataclasses import replace
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from deriv_integration.facade import deriv
from payments import models, queries
from payments.domain.reconciliation import (
    BANDS,
    BreakNotOpen,
    BreakStatus,
    NothingToPost,
    ReasonMissing,
    Resolution,
    RunsOverlap,
    SamePerson,
)
from payments.domain.transaction import TransactionStatus as S
from payments.facade import breaks, reconciliation
from payments.tests.factories import AGENT, a_float, a_stored_deposit
from payments.tests.test_recovery import suspense
from shared_kernel.domain.requests import Leg
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.facade import ledger, verify_ledger

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _float():
    a_float()


def a_break(**over):
    """Twenty-five dollars that Deriv shows and we lack."""
    given = {
        "id": new_id(), "kind": "missing_here", "provider": "deriv", "account": AGENT, "sub_account": "deriv_agent",
        "known_as": "9001", "movement": "9001", "theirs": 25_00, "currency": "USD", "at": now(), "opened_at": now(),
        "owner": "finance", "status": "open",
    } | over  # fmt: skip
    return models.ReconciliationBreak.objects.create(**given)


def audited(row):
    rows = AuditLog.objects.filter(target_type="reconciliation_break", target_id=str(row.id))
    return list(rows.order_by("seq").values_list("action", flat=True))


def test_one_person_explains_a_break_with_a_reason_and_nothing_is_posted():
    row = a_break(kind="missing_there", theirs=None, ours=-5_00)

    breaks.resolve(row.id, Resolution.EXPLAINED, by="staff:1", why="booked by Deriv a day later")

    row.refresh_from_db()
    assert (row.status, row.resolved_by, row.why) == ("resolved", "staff:1", "booked by Deriv a day later")
    assert audited(row) == ["reconciliation.break_resolved"]
    assert suspense("USD") == 0


@pytest.mark.parametrize("theirs", [25_00, -25_00])
def test_what_posts_waits_for_a_second_person_and_then_lies_in_suspense_with_an_age(theirs):
    row = a_break(theirs=theirs)

    breaks.resolve(row.id, Resolution.INTO_SUSPENSE, by="staff:1", why="a top-up nobody told us of")
    assert suspense("USD") == 0
    with pytest.raises(SamePerson):
        breaks.approve(row.id, by="staff:1")
    assert suspense("USD") == 0
    breaks.approve(row.id, by="staff:2")

    row.refresh_from_db()
    assert (row.status, row.resolved_by, row.approved_by) == ("resolved", "staff:1", "staff:2")
    assert suspense("USD") == theirs
    with unit_of_work():
        assert ledger.posted([f"deriv:{AGENT}:9001"])
    assert queries.suspense_by_age(now(), BANDS) == [("0-1 days", "USD", 1, theirs)]
    assert queries.suspense_by_age(now() + timedelta(days=9), BANDS) == [("8-30 days", "USD", 1, theirs)]
    assert audited(row) == ["reconciliation.break_proposed", "reconciliation.break_approved"]
    assert not verify_ledger(lambda *_: None).findings
    with pytest.raises(BreakNotOpen):
        breaks.approve(row.id, by="staff:3")
    assert suspense("USD") == theirs


def test_what_an_attempt_of_ours_explains_or_may_explain_is_its_sagas_to_post():
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    sent = -deposit.payout.amount
    late = a_break(known_as="9003", movement="9003", theirs=sent)
    breaks.resolve(late.id, Resolution.INTO_SUSPENSE, by="staff:1", why="nobody sent it")
    transfer = deriv.new_transfer(deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, AGENT, deposit.payout, at=now())
    with unit_of_work():
        deriv.record([transfer])
    named = a_break(known_as="9002", movement="9002", theirs=-1, reference=transfer.reference)
    alike = a_break(theirs=sent)

    for row in (named, alike):
        with pytest.raises(NothingToPost, match=str(deposit.id)):
            breaks.resolve(row.id, Resolution.INTO_SUSPENSE, by="staff:1", why="nobody sent it")
    with pytest.raises(NothingToPost, match=str(deposit.id)):
        breaks.approve(late.id, by="staff:2")
    assert suspense("USD") == 0


def test_a_proposal_that_is_rejected_is_open_again_and_says_so():
    row = a_break()
    breaks.resolve(row.id, Resolution.INTO_SUSPENSE, by="staff:1", why="a top-up")

    breaks.reject(row.id, by="staff:2", why="it was a settlement")

    row.refresh_from_db()
    assert (row.status, row.resolution, row.resolved_by) == ("open", "", "")
    assert audited(row) == ["reconciliation.break_proposed", "reconciliation.break_rejected"]
    assert suspense("USD") == 0


def test_what_is_refused_changes_nothing():
    here, there = a_break(), a_break(kind="missing_there", theirs=None, ours=5_00, known_as="9002")

    with pytest.raises(ReasonMissing):
        breaks.resolve(here.id, Resolution.EXPLAINED, by="staff:1", why=" ")
    with pytest.raises(NothingToPost):
        breaks.resolve(there.id, Resolution.INTO_SUSPENSE, by="staff:1", why="why not")
    with pytest.raises(BreakNotOpen):
        breaks.approve(here.id, by="staff:2")

    rows = models.ReconciliationBreak.objects.values_list("status", flat=True)
    assert set(rows) == {"open"}
    assert not audited(here)
    assert not audited(there)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "proposed", "resolution": "into_suspense", "resolved_by": "a", "why": "b", "approved_by": "a"},
        {"status": "resolved", "resolution": "into_suspense", "resolved_by": "a", "why": "b"},
        {"status": "resolved", "resolution": "explained", "resolved_by": "a"},
        {"status": "resolved", "resolution": "explained", "why": "b"},
    ],
)
def test_the_database_itself_refuses_one_person_and_no_reason(wrong):
    with pytest.raises(IntegrityError), transaction.atomic():
        a_break(**wrong)


def test_the_database_itself_refuses_a_second_break_for_one_difference():
    a_break()

    with pytest.raises(IntegrityError), transaction.atomic():
        a_break()


def test_a_run_that_meets_another_one_over_the_same_difference_says_so_and_stores_nothing():
    row = a_break()
    with unit_of_work():
        twin = replace(reconciliation.breaks.get(row.id), id=new_id())

    with pytest.raises(RunsOverlap), unit_of_work():
        reconciliation.breaks.add([twin])

    assert models.ReconciliationBreak.objects.get().id == row.id


# --- in the back-office -----------------------------------------------------------------------------------------------


def somebody(name, *permissions):
    user = get_user_model().objects.create_superuser(name, f"{name}@example.org", "a long enough password")
    user.is_superuser = False
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client(headers={"Host": "localhost"})
    client.force_login(user)
    return client


def test_two_people_of_finance_decide_on_the_breaks_own_page():
    row = a_break()
    see, *rights = "view_reconciliationbreak", "resolve_reconciliationbreak", "approve_reconciliationbreak"
    one, other, reader = somebody("one", see, *rights), somebody("other", see, *rights), somebody("reader", see)
    page = reverse("admin:payments_reconciliationbreak_change", args=[row.id])
    decide = reverse("admin:payments_reconciliationbreak_decide", args=[row.id])

    assert decide in one.get(page).content.decode()
    assert reader.get(decide).status_code == 403
    assert reader.post(decide, {"decision": "explained", "why": "so"}).status_code == 403
    assert b"say who you are and why" in one.post(decide, {"decision": "into_suspense", "why": ""}).content
    assert one.post(decide, {"decision": "into_suspense", "why": "a top-up"}).status_code == 302
    assert b"somebody else has to approve" in one.post(decide, {"decision": "approve"}).content
    assert suspense("USD") == 0
    assert other.post(decide, {"decision": "approve"}).status_code == 302

    row.refresh_from_db()
    assert (row.status, suspense("USD")) == (BreakStatus.RESOLVED, 25_00)
    assert row.resolved_by != row.approved_by
    rows = AuditLog.objects.filter(target_id=str(row.id)).values_list("actor", flat=True)
    assert set(rows) == {row.resolved_by, row.approved_by}


def test_each_decision_takes_its_own_right_and_changing_rows_is_none():
    row = a_break()
    see, resolve, approve = "view_reconciliationbreak", "resolve_reconciliationbreak", "approve_reconciliationbreak"
    maker, checker = somebody("maker", see, resolve), somebody("checker", see, approve)
    changer = somebody("changer", see, "change_reconciliationbreak")
    decide = reverse("admin:payments_reconciliationbreak_decide", args=[row.id])
    propose = {"decision": "into_suspense", "why": "a top-up"}

    assert [client.post(decide, propose).status_code for client in (changer, checker)] == [403, 403]
    assert maker.post(decide, propose).status_code == 302
    for decision in ("approve", "reject"):
        asked = {"decision": decision, "why": "so"}
        assert [client.post(decide, asked).status_code for client in (changer, maker)] == [403, 403]
    assert suspense("USD") == 0
    assert checker.post(decide, {"decision": "approve"}).status_code == 302
    assert suspense("USD") == 25_00


def test_a_superuser_is_one_person_too():
    row = a_break()
    boss = get_user_model().objects.create_superuser("boss", "boss@example.org", "a long enough password")
    client = Client(headers={"Host": "localhost"})
    client.force_login(boss)
    decide = reverse("admin:payments_reconciliationbreak_decide", args=[row.id])

    assert client.post(decide, {"decision": "into_suspense", "why": "a top-up"}).status_code == 302
    assert b"somebody else has to approve" in client.post(decide, {"decision": "approve"}).content

    row.refresh_from_db()
    assert (row.status, suspense("USD")) == (BreakStatus.PROPOSED, 0)


def test_the_list_of_orphans_tells_the_sum_of_each_age():
    row = a_break()
    breaks.resolve(row.id, Resolution.INTO_SUSPENSE, by="staff:1", why="a top-up")
    breaks.approve(row.id, by="staff:2")
    client = somebody("auditor", "view_orphanmovement")
    listing = reverse("admin:payments_orphanmovement_changelist")

    assert "0-1 days: 1 (25.00 USD)" in client.get(listing).content.decode()
    assert "1 orphan" in client.get(listing, {"age": "0-1 days"}).content.decode()
    assert "0 orphan" in client.get(listing, {"age": "2-7 days"}).content.decode()
