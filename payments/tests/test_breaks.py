"""What people make of a break: one explains it; what posts is proposed by one and approved by another."""

import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import IntegrityError, connection, transaction
from django.urls import reverse

from deriv_integration.facade import deriv
from mpesa_integration.facade import mpesa
from payments import models, queries
from payments.application.deposit import TakePayment
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
from payments.facade import (
    Settle,
    SettlementKind,
    breaks,
    deposits,
    reconciliation,
    suspense as suspense_of_people,
    verify_statuses,
)
from payments.tests.factories import AGENT, SHORTCODE, a_float, a_stored_deposit, a_stored_withdrawal, kes
from payments.tests.test_recovery import suspense
from shared_kernel.domain.requests import Leg, MpesaPayment, RequestStatus
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in
from wallet.facade import ledger, verify_ledger
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)
one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
LedgerEntry, MpesaCallback = map(apps.get_model, ("wallet.LedgerEntry", "mpesa_integration.MpesaCallback"))


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
    return signed_in(user)


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
    client = signed_in(boss)
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


# --- the same money, posted by a saga at this very moment -------------------------------------------------------------


def paid_here(shillings=1300, **over):
    """What M-Pesa shows came in, and we lack; the file tells no reference."""
    given = {
        "provider": "mpesa", "account": SHORTCODE, "sub_account": "mpesa_working", "known_as": "SKX0000001",
        "movement": "SKX0000001", "theirs": shillings * 100, "currency": "KES",
    }  # fmt: skip
    row = a_break(**given | over)
    models.ReconciliationBreak.objects.filter(pk=row.pk).update(
        status="proposed", resolution="into_suspense", resolved_by="staff:1", why="nobody's"
    )
    return row


def asked_to_pay(deposit, status=RequestStatus.ACCEPTED):
    prompt = mpesa.new_request(deposit.id, Leg.STK_PUSH, 1, deposit.phone, deposit.amount, at=now())
    with unit_of_work():
        mpesa.record([prompt])
        prompt.status = status
        mpesa.save([prompt])
    return prompt


def take(deposit, *payments, before_the_end=lambda: None):
    """The saga's step concludes that the deposit was paid."""
    with unit_of_work():
        [read] = deposits.whole([deposit.id])
        if not read.is_paid:
            TakePayment(ledger, deposits.audit).take(read, read.payments[0], payments, at=now())
            deposits.save([read], ())
        before_the_end()


def received():
    """How often, and as what, this payment is in the ledger."""
    rows = LedgerEntry.objects.filter(purpose__in=["deposit_received", "suspense_in"])
    return sorted(rows.values_list("purpose", flat=True))


def test_a_payment_that_the_query_alone_had_proven_is_not_posted_into_suspense_as_well():
    deposit = a_stored_deposit(S.AWAITING_MPESA)
    asked_to_pay(deposit)
    row = paid_here()
    take(deposit)  # no receipt is known yet

    with pytest.raises(NothingToPost, match=str(deposit.id)):
        breaks.approve(row.id, by="staff:2")

    assert received() == ["deposit_received"]


def test_a_payment_whose_receipt_a_callback_claims_is_not_posted_into_suspense():
    deposit = a_stored_deposit(S.FAILED)
    prompt = asked_to_pay(deposit, RequestStatus.CLOSED)
    a_claim(prompt, "SKX0000001")
    row = paid_here()

    with pytest.raises(NothingToPost, match=str(deposit.id)):
        breaks.approve(row.id, by="staff:2")


@pytest.mark.parametrize("shown", [True, False], ids=["by the book", "by the query"])
def test_what_lies_in_suspense_is_not_posted_by_a_saga_that_proves_it_later(shown):
    deposit = a_stored_deposit(S.FAILED)
    prompt = asked_to_pay(deposit, RequestStatus.CLOSED)
    breaks.approve(paid_here().id, by="staff:2")
    a_claim(prompt, "SKX0000001")

    take(deposit, *([MpesaPayment("SKX0000001", prompt.reference, deposit.amount, now())] if shown else []))

    row = models.Transaction.objects.get(pk=deposit.id)
    assert (row.status, row.failure_code) == (S.NEEDS_ATTENTION, "payment_in_suspense")
    assert received() == ["suspense_in"]
    assert not list(verify_statuses())
    suspended = f"mpesa:{SHORTCODE}:SKX0000001"
    asked = Settle(name=suspended, kind=SettlementKind.MATCHED, by="staff:1", why="its own", transaction=deposit.id)
    suspense_of_people.approve(suspense_of_people.propose(asked), by="staff:2")
    assert suspense("KES") == 0
    assert models.Transaction.objects.get(pk=deposit.id).status in {S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT}


@pytest.mark.parametrize(
    ("status", "shillings", "explains"),
    [("accepted", 1270, True), ("accepted", 1200, True), ("closed", 1270, True), ("closed", 1200, False)],
)
def test_a_payout_that_may_have_left_is_its_sagas_to_post(settings, status, shillings, explains):
    withdrawal = a_stored_withdrawal(S.RATE_LOCKED)
    payout = mpesa.new_request(withdrawal.id, Leg.B2C_PAYOUT, 1, withdrawal.phone, withdrawal.payout, at=now())
    with unit_of_work():
        mpesa.record([payout])
        payout.status = RequestStatus(status)
        mpesa.save([payout])
    row = paid_here(-shillings, account=payout.shortcode, sub_account="mpesa_utility")
    if explains:
        with pytest.raises(NothingToPost, match=str(withdrawal.id)):
            breaks.approve(row.id, by="staff:2")
    else:
        breaks.approve(row.id, by="staff:2")

    assert suspense("KES") == (0 if explains else -shillings * 100)


@one_writer
@pytest.mark.parametrize(
    ("paid", "shown"), [(1300, True), (1500, True), (1300, False)], ids=["book", "another amount", "query"]
)
@pytest.mark.parametrize("first", ["saga", "person"])
def test_a_saga_and_a_person_who_post_the_same_payment_at_once_post_it_once(paid, shown, first):
    """Two connections: each has done all but its commit when the other one begins."""
    deposit = a_stored_deposit(S.AWAITING_MPESA)
    prompt = asked_to_pay(deposit)
    if not shown:
        a_claim(prompt, "SKX0000001")
    row = paid_here(paid)
    payments = [MpesaPayment("SKX0000001", prompt.reference, kes(paid), now())] if shown else []
    inside, other_began = threading.Event(), threading.Event()

    def hold():
        inside.set()
        other_began.wait(5)
        time.sleep(0.3)  # the other one has come to where it would post

    def saga():
        if first == "person":
            inside.wait(5)
            other_began.set()
        take(deposit, *payments, before_the_end=hold if first == "saga" else lambda: None)
        return "posted"

    def person():
        slow = breaks if first == "saga" else replace(breaks, audit=Slow(breaks.audit, hold))
        if first == "saga":
            inside.wait(5)
            other_began.set()
        try:
            slow.approve(row.id, by="staff:2")
        finally:
            inside.set()
        return "posted"

    at_once(saga, person)

    assert len(received()) == 1


class Slow:
    """An audit log that keeps the unit of work open."""

    def __init__(self, audit, wait):
        self.audit, self.wait = audit, wait

    def append(self, records):
        self.audit.append(records)
        self.wait()


def a_claim(prompt, receipt):
    """A callback that says that it was paid."""
    MpesaCallback.objects.create(
        id=new_id(), kind="s", request_id=prompt.id, received_at=now(), last_received_at=now(), peer="127.0.0.1",
        body="{}", headers={}, sha256=receipt * 6, result_code="0", receipt=receipt, amount=prompt.amount.amount,
        verdict="agrees",
    )  # fmt: skip
