"""Who may not decide about a Transaction on its pages, and what the pages refuse."""

import pytest
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse

from payments import models
from payments.domain.transaction import TransactionStatus as S
from payments.facade import withdrawals
from payments.tests.decision_pages import (
    a_withdrawal_that_waits,
    an_unknown_payout,
    attempt,
    case_of,
    decide_page,
    member,
    post,
    propose,
    row_of,
    shown_to_people,
    text_of,
)
from payments.tests.factories import a_stored_withdrawal
from shared_kernel.domain.requests import Leg, RequestStatus
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.facade import ledger

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("floats")]


# --- who may, and what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["support", "auditor"])
def test_who_has_no_right_sees_no_page_and_does_nothing(group):
    withdrawal = a_withdrawal_that_waits()
    propose(member("ops"), withdrawal, "give_back")
    id, reader = models.Proposal.objects.get().id, member(group)

    for url in (case_of(withdrawal), decide_page(id)):
        assert reader.get(url).status_code == 403
        assert reader.post(url, {"decision": "give_back", "why": "so", "seen": "1"}).status_code == 403
    for alone in ("resume", "hold"):
        url = reverse(f"admin:payments_proposal_{alone}", args=[withdrawal.id])
        assert reader.post(url, {"why": "so"}).status_code == 403
    assert Client(headers={"Host": "localhost"}).get(case_of(withdrawal)).status_code == 302
    assert models.Proposal.objects.count() == 1
    assert row_of(withdrawal).status == S.NEEDS_ATTENTION


def test_ops_propose_and_do_not_approve_and_the_compliance_manager_the_other_way_round():
    withdrawal = a_withdrawal_that_waits()
    ops, manager = member("ops"), member("compliance manager")

    propose(ops, withdrawal, "give_back")
    id = models.Proposal.objects.get().id

    assert ops.get(decide_page(id)).status_code == 403
    assert ops.post(decide_page(id), {"decision": "approve"}).status_code == 403
    assert 'value="give_back"' not in text_of(manager.get(case_of(withdrawal)))
    assert propose(manager, withdrawal, "give_back").status_code == 403
    assert manager.get(decide_page(id)).status_code == 200
    assert models.Proposal.objects.count() == 1


@pytest.mark.parametrize("superuser", [False, True])
def test_nobody_approves_what_they_proposed(superuser):
    withdrawal = a_withdrawal_that_waits()
    finance = member("finance", is_superuser=superuser)
    propose(finance, withdrawal, "give_back")

    refused = post(finance, decide_page(models.Proposal.objects.get().id), decision="approve")

    assert "somebody else has to approve" in text_of(refused)
    assert row_of(withdrawal).status == S.NEEDS_ATTENTION
    assert models.Proposal.objects.get().approved_by == ""


def test_a_proposal_is_turned_down_with_a_reason_or_taken_back_and_decided_once():
    withdrawal = a_withdrawal_that_waits()
    finance, other = member("finance"), member("finance", 2)
    propose(finance, withdrawal, "give_back")
    page = decide_page(models.Proposal.objects.get().id)

    assert "say who you are and why" in text_of(post(other, page, decision="reject", why="  "))
    assert post(finance, page, decision="reject", why="a mistake of mine").status_code == 302
    assert "turned it down before" in text_of(post(other, page, decision="approve"))

    row = models.Proposal.objects.get()
    assert (row.approved_by, row.rejected_by) == ("", finance.who)
    [told] = AuditLog.objects.filter(action="transaction.decision_rejected")
    assert (told.target_id, told.actor, told.why) == (str(withdrawal.id), finance.who, "a mistake of mine")
    assert row_of(withdrawal).status == S.NEEDS_ATTENTION
    with pytest.raises(IntegrityError):
        models.Proposal.objects.filter(pk=row.pk).update(approved_by="staff:x")


def test_a_transaction_that_changed_after_the_page_was_shown_is_not_decided_about():
    withdrawal = a_withdrawal_that_waits()
    ops, finance = member("ops"), member("finance")
    seen = ops.get(case_of(withdrawal)).context["version"]
    shown_to_people(withdrawal, "something_new")

    refused = propose(ops, withdrawal, "give_back", seen=seen)
    assert "has changed since you were shown it" in text_of(refused)
    assert f'name="seen" value="{row_of(withdrawal).version}"' in text_of(refused)
    assert propose(ops, withdrawal, "give_back").status_code == 302
    page = decide_page(models.Proposal.objects.get().id)
    seen = finance.get(page).context["version"]
    shown_to_people(withdrawal, "something_newer")
    assert "has changed since you were shown it" in text_of(post(finance, page, seen=seen, decision="approve"))
    assert "has changed since this was proposed" in text_of(post(finance, page, decision="approve"))
    assert row_of(withdrawal).status == S.NEEDS_ATTENTION


def test_a_transaction_that_went_on_before_the_approval_is_refused_with_its_status():
    withdrawal = a_withdrawal_that_waits()
    ops, finance = member("ops"), member("finance")
    propose(ops, withdrawal, "give_back")
    with unit_of_work():
        [read] = withdrawals.whole([withdrawal.id])
        read.resume(why="found", at=now())
        withdrawals.save([read], ())

    refused = post(finance, decide_page(models.Proposal.objects.get().id), decision="approve")

    assert "is RATE_LOCKED: it goes on by itself" in text_of(refused)
    assert models.Proposal.objects.get().approved_by == ""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "give the provider's own reference"),
        ({"reference": "254712345678"}, "ten capital letters and digits"),
        ({"reference": "ukb0000009"}, "ten capital letters and digits"),
        ({"reference": "UKB0000009", "amount": "0"}, "greater than or equal to 0.01"),
        ({"reference": "UKB0000009", "amount": "-5"}, "greater than or equal to 0.01"),
        ({"reference": "UKB0000009", "amount": "1.005"}, "2 decimal places"),
        ({"reference": "UKB0000009", "amount": "NaN"}, "Enter a number"),
        ({"reference": "UKB0000009", "why": "x" * 300}, "at most 255"),
        ({"reference": "UKB0000009", "why": " "}, "This field is required"),
        ({"reference": "X" * 99}, "at most 32"),
        ({"reference": "UKB\0"}, "Null characters"),
        ({"reference": "UKB0000009", "seen": "x"}, "has changed since"),
        ({"reference": "UKB0000009", "seen": "9" * 40}, "has changed since"),
        ({"reference": "UKB0000009", "decision": "blow_up"}, "can't be decided any more"),
    ],
)
def test_odd_input_is_told_and_changes_nothing(given, told):
    withdrawal, payout = an_unknown_payout()

    answer = propose(member("ops"), withdrawal, **{"decision": f"took_effect:{payout.id}", **given})

    assert answer.status_code == 200
    assert told in text_of(answer)
    assert not models.Proposal.objects.exists()


def test_pages_of_what_is_not_there_are_not_found():
    ops, finance, nobody = member("ops"), member("finance"), new_id()
    resume = reverse("admin:payments_proposal_resume", args=[nobody])

    assert ops.get(reverse("admin:payments_proposal_case", args=[nobody])).status_code == 404
    assert ops.post(resume, {"why": "so"}).status_code == 404
    assert ops.get(resume).status_code == 405
    assert finance.get(decide_page(nobody)).status_code == 404
    assert finance.get(reverse("admin:payments_proposal_history", args=["nonsense"])).status_code == 404


def test_a_receipt_of_another_attempt_and_a_movement_that_is_booked_show_nothing():
    withdrawal, payout = an_unknown_payout()
    attempt(a_stored_withdrawal(S.MPESA_DISBURSING), Leg.B2C_PAYOUT, RequestStatus.DONE, receipt="UKB0000007")
    ops, finance = member("ops"), member("finance")
    shortcode = payout.shortcode
    with unit_of_work():
        ledger.post_suspense_out(
            "mpesa_utility", shortcode, withdrawal.payout, provider_key=f"mpesa:{shortcode}:UKB0000008", at=now()
        )
    booked = propose(ops, withdrawal, f"took_effect:{payout.id}", reference="UKB0000008")
    assert "is in the ledger already" in text_of(booked)

    propose(ops, withdrawal, f"took_effect:{payout.id}", reference="UKB0000007")
    refused = post(finance, decide_page(models.Proposal.objects.get().id), decision="approve")

    assert "another attempt has this receipt" in text_of(refused)
    assert row_of(withdrawal).status == S.NEEDS_ATTENTION
