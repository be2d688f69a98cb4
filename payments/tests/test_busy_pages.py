"""Who decides on a page while somebody else holds what it is about: told to try again, and nothing is stored."""

from contextlib import contextmanager
from threading import Event, Thread

import pytest
from django.db import connection
from django.urls import reverse

from payments import models
from payments.domain.suspense import SettlementKind as K
from payments.domain.transaction import TransactionStatus as S
from payments.facade import evidence
from payments.tests.decision_pages import a_withdrawal_that_waits, case_of, decide_page, member, post, propose
from payments.tests.factories import SHORTCODE, a_float, a_stored_deposit, usd
from payments.tests.test_breaks import a_break, somebody
from payments.tests.test_suspense import orphan, out, propose as propose_settlement
from shared_kernel.infrastructure.persistence import unit_of_work
from shared_kernel.models import AuditLog

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="it has no row locks"),
]
AGAIN = b"nothing was stored: try it again"


@pytest.fixture(autouse=True)
def _float(settings):
    settings.MPESA_SHORTCODE = SHORTCODE
    a_float()


@contextmanager
def somebody_else_at(rows):
    """Another connection holds them until the block ends."""
    locked, ended = Event(), Event()

    def hold():
        try:
            with unit_of_work():
                assert list(rows.select_for_update())
                locked.set()
                ended.wait(30)
        finally:
            connection.close()

    other = Thread(target=hold)
    other.start()
    try:
        assert locked.wait(30)
        yield
    finally:
        ended.set()
        other.join()


def audited():
    return AuditLog.objects.count()


def test_of_a_break():
    row, before = a_break(), audited()
    client = somebody("one", "view_reconciliationbreak", "resolve_reconciliationbreak")
    decide = reverse("admin:payments_reconciliationbreak_decide", args=[row.id])
    given = {"decision": "explained", "why": "booked a day later"}

    with somebody_else_at(models.ReconciliationBreak.objects.filter(pk=row.id)):
        answer = client.post(decide, given)

    assert (answer.status_code, AGAIN in answer.content) == (200, True)
    assert b"booked a day later" in answer.content  # what was typed is still there
    row.refresh_from_db()
    assert (row.status, audited()) == ("open", before)
    assert client.post(decide, given).status_code == 302


@pytest.mark.parametrize("decision", ["approve", "reject"])
def test_of_a_settlement_of_suspense(decision):
    id = propose_settlement(orphan(out(usd(5)), "9001"), K.WRITTEN_OFF)
    client, before = somebody("other", "view_suspensesettlement", "approve_suspensesettlement"), audited()
    decide = reverse("admin:payments_suspensesettlement_decide", args=[id])
    given = {"decision": decision, "why": "so"}

    with somebody_else_at(models.SuspenseSettlement.objects.filter(pk=id)):
        answer = client.post(decide, given)

    assert (answer.status_code, AGAIN in answer.content) == (200, True)
    assert (models.SuspenseSettlement.objects.get().status, audited()) == ("proposed", before)
    assert client.post(decide, given).status_code == 302


def test_of_what_is_proposed_about_suspense():
    """The Transaction that it is matched with is just going on."""
    deposit = a_stored_deposit(S.FAILED)
    name = orphan(deposit.amount, "SKX0000001")
    client = somebody("one", "view_suspensesettlement", "propose_suspensesettlement")
    page = f"{reverse('admin:payments_suspensesettlement_propose')}?name={name}"

    with somebody_else_at(models.Transaction.objects.filter(pk=deposit.id)):
        answer = client.post(page, {"kind": "matched", "transaction": deposit.id, "why": "his receipt"})

    assert (answer.status_code, AGAIN in answer.content) == (200, True)
    assert not models.SuspenseSettlement.objects.exists()


def test_of_a_transaction_that_stands_before_people():
    """Its page reads it under its lock: that one can't be shown meanwhile."""
    withdrawal, ops, finance = a_withdrawal_that_waits(), member("ops"), member("finance")
    assert propose(ops, withdrawal, "give_back").status_code == 302
    proposal = models.Proposal.objects.get()

    with somebody_else_at(models.Transaction.objects.filter(pk=withdrawal.id)):
        seen = finance.get(decide_page(proposal.id))
        tried = finance.post(decide_page(proposal.id), {"decision": "approve", "seen": 1})
        held = ops.get(case_of(withdrawal))

    assert [(a.status_code, AGAIN in a.content) for a in (seen, tried, held)] == [(503, True)] * 3
    assert models.Proposal.objects.get().approved_by == ""


def test_of_a_proposal_that_another_one_decides():
    withdrawal, ops, finance = a_withdrawal_that_waits(), member("ops"), member("finance")
    propose(ops, withdrawal, "give_back")
    proposal = models.Proposal.objects.get()

    with somebody_else_at(models.Proposal.objects.filter(pk=proposal.id)):
        answer = post(finance, decide_page(proposal.id), decision="approve")

    assert (answer.status_code, AGAIN in answer.content) == (200, True)
    assert models.Proposal.objects.get().approved_by == ""
    assert post(finance, decide_page(proposal.id), decision="approve").status_code == 302


def test_of_evidence_in_clear():
    deposit, one, other = a_stored_deposit(S.COMPLETED), member("compliance manager"), member("compliance manager", 1)
    asked = evidence.ask(deposit.id, by=one.who, why="court order 12")
    approve, take = f"/admin/payments/reveal/{asked.id}/approve/", f"/admin/payments/reveal/take/{deposit.id}/"

    with somebody_else_at(models.Reveal.objects.filter(pk=asked.id)):
        answer = other.post(approve)
    assert (answer.status_code, AGAIN in answer.content) == (200, True)
    assert other.post(approve).status_code == 302
    with somebody_else_at(models.Reveal.objects.filter(pk=asked.id)):
        answer = one.post(take)
    assert (answer.status_code, AGAIN in answer.content) == (200, True)
    assert "Content-Disposition" in one.post(take).headers
