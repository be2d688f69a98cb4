"""The pages on which two people decide about a Transaction that stands before them, from proposal to effect."""

from datetime import timedelta

import pytest
from django.urls import reverse

from identity.tests.factories import a_customer
from payments import models
from payments.domain.transaction import TransactionStatus as S
from payments.tests.decision_pages import (
    ACCOUNT,
    LIST,
    OTHER,
    PHONE,
    a_withdrawal_that_waits,
    an_unknown_payout,
    attempt,
    attempts_of,
    case_of,
    decide_page,
    decided,
    held,
    member,
    post,
    propose,
    row_of,
    shown_to_people,
    text_of,
)
from payments.tests.factories import SHORTCODE, a_stored_deposit, a_stored_withdrawal
from shared_kernel.domain.requests import Leg, RequestStatus
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("floats")]


# --- each decision, from the page to the effect -----------------------------------------------------------------------


def test_a_payout_that_took_effect_is_completed_with_its_receipt():
    withdrawal, payout = an_unknown_payout()
    one, other = member("ops"), member("finance")
    before = held("mpesa_utility")

    decided(one, other, withdrawal, f"took_effect:{payout.id}", reference="UKB0000009")

    row = row_of(withdrawal)
    assert (row.status, row.mpesa_receipt) == (S.COMPLETED, "UKB0000009")
    assert before - held("mpesa_utility") == withdrawal.payout.amount
    told = AuditLog.objects.filter(target_id=str(withdrawal.id), action__contains="decision").order_by("seq")
    assert [(record.action.partition("_")[2], record.actor) for record in told] == [
        ("proposed", one.who), ("approved", other.who),
    ]  # fmt: skip


def test_what_m_pesa_moved_may_be_another_amount():
    withdrawal, payout = an_unknown_payout()

    decided(
        member("ops"), member("finance"), withdrawal, f"took_effect:{payout.id}", reference="UKB0000009",
        amount="1200.00",
    )  # fmt: skip

    assert row_of(withdrawal).failure_code == "paid_another_amount"
    assert models.Proposal.objects.get().amount == 1200_00


def test_a_payout_that_had_no_effect_is_paid_once_more_after_it_is_sent_on():
    withdrawal, payout = an_unknown_payout(user=a_customer(phone=PHONE).id)
    one = member("ops")

    decided(one, member("finance"), withdrawal, f"had_no_effect:{payout.id}")
    assert row_of(withdrawal).status == S.NEEDS_ATTENTION
    assert attempts_of(withdrawal) == [("b2c_payout", "closed")]
    sent = one.post(reverse("admin:payments_proposal_resume", args=[withdrawal.id]), {"why": "judged, pay it"})

    assert sent.status_code == 302
    assert row_of(withdrawal).status in {S.MPESA_DISBURSING, S.COMPLETED}
    assert len(attempts_of(withdrawal)) == 2


def test_a_withdrawal_is_given_back():
    withdrawal = a_withdrawal_that_waits()

    decided(member("ops"), member("compliance manager"), withdrawal, "give_back")

    assert row_of(withdrawal).status == S.CREDIT_BACK_PENDING
    assert held("customer_in_transit", "USD") == -withdrawal.amount.amount  # the exchange was undone


def test_a_deposit_is_refunded_by_b2c_once_its_reversal_is_judged_dead():
    deposit = a_stored_deposit(S.REFUND_PENDING)
    attempt(deposit, Leg.STK_PUSH, RequestStatus.DONE, receipt="UKB0000001", shortcode=SHORTCODE)
    reversal = attempt(deposit, Leg.REVERSAL)
    shown_to_people(deposit)
    one, other = member("ops"), member("finance")

    assert "refund_by_b2c" not in text_of(one.get(case_of(deposit)))
    decided(one, other, deposit, f"had_no_effect:{reversal.id}")
    decided(one, other, deposit, "refund_by_b2c")

    assert row_of(deposit).refund_by_b2c
    assert "b2c_refund" in [leg for leg, _ in attempts_of(deposit)]


def test_a_payout_goes_to_the_customers_other_verified_phone():
    withdrawal = a_withdrawal_that_waits(user=a_customer(phone=OTHER).id)

    proposal = decided(member("ops"), member("finance"), withdrawal, "other_phone")

    assert row_of(withdrawal).phone == OTHER
    assert proposal.phone == OTHER


def test_a_credit_back_goes_to_the_login_that_the_customer_has_bound_since():
    customer = a_customer(phone=PHONE)
    withdrawal = a_withdrawal_that_waits(user=customer.id)

    decided(member("ops"), member("finance"), withdrawal, "other_login")

    assert row_of(withdrawal).deriv_account == customer.deriv_login.account


# --- what the page shows and offers -----------------------------------------------------------------------------------


def test_the_page_shows_what_is_known_with_personal_data_masked_and_offers_what_people_would_take():
    withdrawal, payout = an_unknown_payout(user=a_customer(phone=OTHER).id)
    ops = member("ops")

    text = text_of(ops.get(case_of(withdrawal)))

    assert "payment_unknown" in text
    assert "b2c_payout 1" in text
    for offered in (f"took_effect:{payout.id}", f"had_no_effect:{payout.id}"):
        assert f'value="{offered}"' in text
    for not_safe in ('value="give_back"', 'value="other_phone"', 'value="other_login"', 'value="refund_by_b2c"'):
        assert not_safe not in text  # money may have gone already
    for private in (PHONE, PHONE[3:], OTHER, ACCOUNT):
        assert private not in text
    assert case_of(withdrawal) in text_of(ops.get(reverse("admin:payments_transaction_change", args=[withdrawal.id])))


def test_what_goes_on_by_itself_offers_nothing_and_what_has_ended_has_no_link():
    withdrawal, ended = a_stored_withdrawal(S.RATE_LOCKED), a_stored_deposit(S.COMPLETED)
    ops = member("ops")

    assert case_of(ended) not in text_of(ops.get(reverse("admin:payments_transaction_change", args=[ended.id])))
    assert "It stands before nobody" in text_of(ops.get(case_of(withdrawal)))
    assert "can't be decided any more" in text_of(propose(ops, withdrawal, "give_back"))
    assert not models.Proposal.objects.exists()


def test_transactions_are_listed_by_why_they_wait_and_for_how_long():
    one, old = a_withdrawal_that_waits(), a_withdrawal_that_waits()
    unknown, _ = an_unknown_payout()
    a_stored_withdrawal(S.RATE_LOCKED)
    models.Transaction.objects.filter(pk=old.id).update(updated_at=now() - timedelta(days=10))
    ops = member("ops")

    def listed(**asked):
        return {row.pk for row in ops.get(LIST, asked).context["cl"].result_list}

    assert "payout_refused:2028 (2)" in text_of(ops.get(LIST))
    assert listed(reason="payout_refused:2028") == {one.id, old.id}
    assert listed(reason="nonsense") == set()
    assert listed(age="0-1 days") == {one.id, unknown.id}
    assert listed(age="8-30 days") == {old.id}
    assert listed(age="8-30 days", reason="payout_refused:2028") == {old.id}


def test_what_waits_for_a_second_person_is_listed():
    one, finance = member("ops"), member("finance")
    propose(one, a_withdrawal_that_waits(), "give_back")
    turned_down = a_withdrawal_that_waits()
    propose(one, turned_down, "give_back")
    [first, second] = models.Proposal.objects.order_by("id")
    post(finance, decide_page(second.id), decision="reject", why="he was paid")
    proposals = reverse("admin:payments_proposal_changelist")

    def listed(name):
        return {row.pk for row in finance.get(proposals, {"decided": name}).context["cl"].result_list}

    assert listed("waits") == {first.pk}
    assert listed("rejected") == {second.pk}
    assert listed("approved") == set()
    assert decide_page(first.id) in text_of(finance.get(reverse("admin:payments_proposal_change", args=[first.id])))
    history = finance.get(reverse("admin:payments_proposal_history", args=[first.id]))
    assert str(first.transaction_id) in history["Location"]


# --- sending on -------------------------------------------------------------------------------------------------------


def test_ops_send_on_what_waits_with_a_reason_and_only_while_it_waits():
    withdrawal = a_withdrawal_that_waits(user=a_customer(phone=PHONE).id)
    ops = member("ops")
    resume = reverse("admin:payments_proposal_resume", args=[withdrawal.id])

    assert "This field is required" in text_of(ops.post(resume, {"why": ""}))
    assert ops.post(resume, {"why": "the float is full again"}).status_code == 302
    assert row_of(withdrawal).status != S.NEEDS_ATTENTION
    assert "only a Transaction in NEEDS_ATTENTION" in text_of(ops.post(resume, {"why": "once more"}))

    told = AuditLog.objects.get(target_id=str(withdrawal.id), before=S.NEEDS_ATTENTION, after=S.RATE_LOCKED)
    assert (told.actor, told.why) == (ops.who, "the float is full again")


# --- holds ------------------------------------------------------------------------------------------------------------


def test_an_officer_holds_whatever_its_status_and_two_people_release_it():
    withdrawal = a_stored_withdrawal(S.RATE_LOCKED, user=a_customer(phone=PHONE).id)
    officer, manager = member("compliance officer"), member("compliance manager")
    hold = reverse("admin:payments_proposal_hold", args=[withdrawal.id])
    page = reverse("admin:payments_transaction_change", args=[withdrawal.id])

    assert case_of(withdrawal) in text_of(officer.get(page))
    assert "This field is required" in text_of(officer.post(hold, {"why": " "}))
    assert officer.post(hold, {"why": "court order"}).status_code == 302
    assert "is held by" in text_of(officer.post(hold, {"why": "once more"}))
    row = row_of(withdrawal)
    assert (row.held_by, row.held_why, row.status) == (officer.who, "court order", S.RATE_LOCKED)
    told = AuditLog.objects.get(target_id=str(withdrawal.id), action="transaction.held")
    assert (told.actor, told.why) == (officer.who, "court order")

    decided(officer, manager, withdrawal, "release_hold", why="the court is content")

    assert row_of(withdrawal).held_by == ""
    told = AuditLog.objects.get(target_id=str(withdrawal.id), action="transaction.released")
    assert (told.actor, told.why) == (manager.who, "the court is content")
    assert row_of(withdrawal).status in {S.MPESA_DISBURSING, S.COMPLETED}  # what was due went on


def test_neither_one_person_nor_finance_nor_ops_release_a_hold():
    withdrawal = a_withdrawal_that_waits()
    officer, manager = member("compliance officer"), member("compliance manager")
    ops, finance = member("ops"), member("finance")
    officer.post(reverse("admin:payments_proposal_hold", args=[withdrawal.id]), {"why": "court order"})

    text = text_of(ops.get(case_of(withdrawal)))
    assert officer.who in text
    assert "court order" not in text  # why is for compliance
    assert propose(ops, withdrawal, "release_hold").status_code == 403
    assert ops.post(reverse("admin:payments_proposal_hold", args=[withdrawal.id]), {"why": "so"}).status_code == 403
    assert propose(manager, withdrawal, "release_hold").status_code == 302
    decide = decide_page(models.Proposal.objects.get().id)
    for client in (ops, finance, officer):
        assert client.post(decide, {"decision": "approve", "seen": "1"}).status_code == 403
    assert "somebody else has to approve" in text_of(post(manager, decide, decision="approve"))
    assert row_of(withdrawal).held_by == officer.who


def test_what_is_not_held_is_not_released():
    withdrawal = a_withdrawal_that_waits()

    assert "can't be decided any more" in text_of(propose(member("compliance officer"), withdrawal, "release_hold"))
