"""The pages on which two people decide about a Transaction that stands before them, from proposal to effect."""

from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse

from identity.tests.factories import a_customer
from mpesa_integration.facade import mpesa
from payments import models
from payments.domain.transaction import TransactionStatus as S
from payments.facade import SAGAS, withdrawals
from payments.tests.factories import SHORTCODE, a_float, a_stored_deposit, a_stored_withdrawal
from payments.tests.withdrawing import a_payout_float
from shared_kernel.domain.requests import Leg, RequestStatus
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.facade import ledger, trial_balance

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()
OTHER, PHONE, ACCOUNT = "254700000001", "254712345678", "CR100001"
LIST = reverse("admin:payments_transaction_changelist")


@pytest.fixture(autouse=True)
def _floats(mpesa_simulator, settings):
    settings.DERIV_AGENTS = []
    a_float()
    a_payout_float()


class Staff(Client):
    """A browser, and as whom audit rows know who sits before it."""

    who = ""


def member(group, number=0, **over):
    name = f"{group.replace(' ', '')}{number}"
    user = User.objects.create_staff(name, f"{name}@example.org", "a long enough password", group)
    User.objects.filter(pk=user.pk).update(**over)
    client = Staff(headers={"Host": "localhost"})
    client.force_login(User.objects.get(pk=user.pk))
    client.who = f"staff:{user.pk}"
    return client


def shown_to_people(transaction, reason="payment_unknown", **over):
    """It stands before a person; `over` are attributes to change before."""
    saga: Any = SAGAS[transaction.type]
    with unit_of_work():
        [read] = saga.whole([transaction.id])
        for name, value in over.items():
            setattr(read, name, value)
        read.need_attention(reason, at=now())
        saga.save([read], ())
    return transaction


def attempt(transaction, leg, status=RequestStatus.UNKNOWN, *, age=timedelta(days=1), amount=None, **over):
    """One at M-Pesa that was sent and ended like that."""
    asked = amount or (transaction.payout if leg is Leg.B2C_PAYOUT else transaction.amount)
    made = mpesa.new_request(transaction.id, leg, 1, transaction.phone, asked, at=now() - age)
    with unit_of_work():
        mpesa.record([made])
        made.status = status
        for name, value in over.items():
            setattr(made, name, value)
        mpesa.save([made])
    return made


def an_unknown_payout(**given):
    withdrawal = a_stored_withdrawal(S.MPESA_DISBURSING, **given)
    payout = attempt(withdrawal, Leg.B2C_PAYOUT)
    return shown_to_people(withdrawal), payout


def a_withdrawal_that_waits(**given):
    return shown_to_people(a_stored_withdrawal(S.RATE_LOCKED, **given), "payout_refused:2028")


def case_of(transaction):
    return reverse("admin:payments_proposal_case", args=[transaction.id])


def decide_page(id):
    return reverse("admin:payments_proposal_decide", args=[id])


def row_of(transaction):
    return models.Transaction.objects.get(pk=transaction.id)


def text_of(answer):
    return unescape(answer.content.decode())


def post(client, url, *, seen=None, **given):
    """As a browser does it: the page first, for the version that it shows."""
    page = client.get(url)
    version = page.context["version"] if page.context and seen is None else seen
    return client.post(url, {"seen": version, **given})


def propose(client, transaction, decision, **given):
    return post(client, case_of(transaction), decision=str(decision), **{"why": "seen in the portal", **given})


def decided(one, other, transaction, decision, **given):
    """Proposed by one and approved by the other."""
    done = propose(one, transaction, decision, **given)
    assert done.status_code == 302, text_of(done)
    proposal = models.Proposal.objects.order_by("-id").first()
    approved = post(other, decide_page(proposal.id), decision="approve")
    assert approved.status_code == 302, text_of(approved)
    proposal.refresh_from_db()
    assert (proposal.by, proposal.approved_by) == (one.who, other.who)
    return proposal


def held(kind, currency="KES"):
    rows = [row for row in trial_balance() if (row.kind, row.currency) == (kind, currency)]
    return sum(row.debit - row.credit for row in rows)


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


def attempts_of(transaction):
    with unit_of_work():
        [read] = SAGAS[transaction.type].whole([transaction.id])
    return [(str(r.leg), str(r.status)) for r in read.payments if r.leg is not Leg.STATUS_QUERY]


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
