"""What two people may decide about a Transaction that stands before them, and what nobody can order."""

from datetime import timedelta
from typing import Any

import pytest

from payments.application.people import Propose
from payments.domain.proposal import (
    AlreadyApproved,
    AlreadyRejected,
    ChangedMeanwhile,
    Decision as D,
    DestinationNotVerified,
    EvidenceMissing,
    EvidenceTaken,
    EvidenceUnreadable,
    NotBeforeAPerson,
    ProposalNotFound,
    ReasonMissing,
    SamePerson,
    VerdictNotNeeded,
    VerdictTooEarly,
)
from payments.domain.transaction import NotHeld, OtherWayOpen, TransactionStatus as S
from payments.tests.deciding import a_customer, decide, people
from payments.tests.withdrawals import LONG, books_agree, debited, in_transit, payout_of
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.identifiers import Phone
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import NotSent, Refused, Unknown
from shared_kernel.domain.requests import Blame, DerivLogin, DerivPlatform, RequestStatus
from tests.in_memory import CUSTOMER, Bench, WithdrawalBench

OTHER = Phone("254700000001")


@pytest.fixture
def deposits() -> Bench:
    return Bench()


@pytest.fixture
def bench() -> WithdrawalBench:
    return WithdrawalBench()


# --- four eyes ----------------------------------------------------------------------------------------------------


def test_a_proposal_changes_nothing_until_somebody_else_approves_it_once(bench: WithdrawalBench) -> None:
    withdrawal = unknown_payout(bench)
    request, who = payout_of(bench, withdrawal), people(bench)
    before = bench.world.transactions[withdrawal.id].version
    asked = Propose(
        transaction_id=withdrawal.id, type=withdrawal.type, decision=D.TOOK_EFFECT, by="mary", why="in the portal",
        request_id=request.id, reference="UKB0000009",
    )  # fmt: skip

    id = who.propose(asked)
    assert bench.world.transactions[withdrawal.id].version == before
    for by in ("mary", ""):
        with pytest.raises(SamePerson):
            who.approve(id, by=by)
    who.approve(id, by="john")
    with pytest.raises(AlreadyApproved):
        who.approve(id, by="jane")

    told = [(r.action, r.why, r.details["by"]) for r in bench.world.audit if "decision" in r.action]
    assert told == [
        ("transaction.decision_proposed", "in the portal", "mary"),
        ("transaction.decision_approved", "in the portal", "john"),
    ]


def test_what_can_not_be_approved_today_is_not_proposed(bench: WithdrawalBench) -> None:
    withdrawal = unknown_payout(bench)
    request, who = payout_of(bench, withdrawal), people(bench)

    def refused(error: type[DomainError], decision: D, **over: Any) -> None:
        given = {"by": "mary", "why": "because", "request_id": request.id, "reference": "UKB0000009", **over}
        with pytest.raises(error):
            who.propose(Propose(transaction_id=withdrawal.id, type=withdrawal.type, decision=decision, **given))

    refused(ReasonMissing, D.TOOK_EFFECT, why="  ")
    refused(EvidenceMissing, D.TOOK_EFFECT, reference=" ")
    refused(VerdictNotNeeded, D.TOOK_EFFECT, request_id=withdrawal.id)
    refused(VerdictNotNeeded, D.HAD_NO_EFFECT, request_id=bench.now(withdrawal).transfers[0].id)
    refused(EvidenceUnreadable, D.TOOK_EFFECT, reference="in the portal")
    for amount in (Money(0, Currency.KES), Money(1200_00, Currency.USD)):
        refused(EvidenceUnreadable, D.TOOK_EFFECT, amount=amount)
    refused(DestinationNotVerified, D.OTHER_PHONE)
    refused(DestinationNotVerified, D.OTHER_LOGIN)
    refused(OtherWayOpen, D.GIVE_BACK)
    refused(OtherWayOpen, D.REFUND_BY_B2C)
    refused(ChangedMeanwhile, D.TOOK_EFFECT, seen=bench.now(withdrawal).version - 1)
    with pytest.raises(ProposalNotFound):
        who.approve(withdrawal.id, by="john")
    assert not bench.world.proposals


def test_people_decide_nothing_about_what_goes_on_by_itself(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)

    with pytest.raises(NotBeforeAPerson):
        decide(bench, withdrawal, D.HAD_NO_EFFECT, payout_of(bench, withdrawal))


def test_what_went_on_between_proposal_and_approval_is_not_decided_upon(bench: WithdrawalBench) -> None:
    withdrawal = unknown_payout(bench)
    asked = Propose(
        transaction_id=withdrawal.id, type=withdrawal.type, decision=D.HAD_NO_EFFECT, by="mary", why="not in the book",
        request_id=payout_of(bench, withdrawal).id,
    )  # fmt: skip
    id = people(bench).propose(asked)
    bench.world.tick(seconds=1)
    bench.mpesa.pays_out(payout_of(bench, withdrawal))
    bench.drive(withdrawal)

    with pytest.raises(NotBeforeAPerson):
        people(bench).approve(id, by="john")
    assert bench.now(withdrawal).status is S.COMPLETED


def test_a_proposal_that_was_turned_down_is_never_carried_out(bench: WithdrawalBench) -> None:
    withdrawal, who = recipient_unknown(bench), people(bench)
    given = {"transaction_id": withdrawal.id, "type": withdrawal.type, "by": "mary", "why": "he asked"}
    id = who.propose(Propose(decision=D.GIVE_BACK, **given))

    for by, why in (("", "no"), ("john", " ")):
        with pytest.raises(ReasonMissing):
            who.reject(id, by=by, why=why)
    who.reject(id, by="john", why="he was paid")
    for again in (lambda: who.approve(id, by="john"), lambda: who.reject(id, by="mary", why="mine")):
        with pytest.raises(AlreadyRejected):
            again()

    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    [told] = [r for r in bench.world.audit if r.action == "transaction.decision_rejected"]
    assert (told.why, told.details["by"]) == ("he was paid", "john")
    other = who.propose(Propose(decision=D.GIVE_BACK, **given))
    who.approve(other, by="john")
    with pytest.raises(AlreadyApproved):
        who.reject(other, by="john", why="too late")


def test_what_was_proposed_about_another_state_is_not_approved(bench: WithdrawalBench) -> None:
    withdrawal, who = unknown_payout(bench), people(bench)
    given = {"transaction_id": withdrawal.id, "type": withdrawal.type, "by": "mary", "why": "seen"}
    payout = payout_of(bench, withdrawal)
    verdict = who.propose(Propose(decision=D.HAD_NO_EFFECT, request_id=payout.id, **given))
    bench.world.tick(seconds=1)
    decide(bench, withdrawal, D.HAD_NO_EFFECT, payout)
    back = who.propose(Propose(decision=D.GIVE_BACK, **given))
    bench.saga.hold(withdrawal.id, owner="mary", why="law")
    release = who.propose(Propose(decision=D.RELEASE_HOLD, **given))
    bench.world.tick(seconds=1)
    bench.saga.release(withdrawal.id, why="a mistake")
    bench.saga.hold(withdrawal.id, owner="mary", why="another law")

    for stale in (verdict, back, release):
        with pytest.raises(ChangedMeanwhile):
            who.approve(stale, by="john")
    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    assert bench.now(withdrawal).hold is not None


def test_what_is_offered_is_what_a_proposal_of_it_would_be_taken_for(bench: WithdrawalBench) -> None:
    withdrawal, who = unknown_payout(bench), people(bench)
    bench.users.customers[CUSTOMER] = a_customer(phone=OTHER)
    payout = payout_of(bench, withdrawal)

    def offered() -> set[Any]:
        case = who.case(withdrawal.type, withdrawal.id)
        return {(o.decision, o.request and o.request.id) for o in case.offers}

    assert offered() == {(D.TOOK_EFFECT, payout.id), (D.HAD_NO_EFFECT, payout.id)}
    before = bench.world.transactions[withdrawal.id].version
    decide(bench, withdrawal, D.HAD_NO_EFFECT, payout)
    assert offered() == {(D.TOOK_EFFECT, payout.id), (D.GIVE_BACK, None), (D.OTHER_PHONE, None)}
    assert bench.world.transactions[withdrawal.id].version == before + 1  # looking changes nothing
    bench.saga.hold(withdrawal.id, owner="mary", why="law")
    assert (D.RELEASE_HOLD, None) in offered()
    shown = who.case(withdrawal.type, withdrawal.id).transaction
    assert (shown.phone, shown.hold is None, shown.status) == (withdrawal.phone, False, S.NEEDS_ATTENTION)  # as it is
    decide(bench, withdrawal, D.RELEASE_HOLD)
    bench.resume(withdrawal)
    assert offered() == set()
    with pytest.raises(NotHeld):
        decide(bench, withdrawal, D.RELEASE_HOLD)


def test_a_movement_that_is_booked_proves_nothing_else(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers, bench.deriv.is_down = [Unknown("timeout")], True
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)
    [debit] = bench.now(withdrawal).transfers
    with bench.world.unit_of_work():
        bench.saga.ledger.post_suspense_in(
            "deriv_agent", debit.agent, debit.amount, provider_key=f"deriv:{debit.agent}:7000", at=bench.world.now
        )

    with pytest.raises(EvidenceTaken):
        decide(bench, withdrawal, D.TOOK_EFFECT, debit, reference="7000")
    with pytest.raises(EvidenceUnreadable):
        decide(bench, withdrawal, D.TOOK_EFFECT, debit, reference="7001", amount=Money(1_00, Currency.USD))


# --- verdicts on a withdrawal's attempts ----------------------------------------------------------------------------


def unknown_payout(bench: WithdrawalBench) -> Any:
    withdrawal = debited(bench)
    bench.sweep(withdrawal, until=LONG)
    assert bench.now(withdrawal).failure_code == "payment_unknown"
    return withdrawal


def test_a_payout_judged_to_have_taken_effect_completes(bench: WithdrawalBench) -> None:
    withdrawal = unknown_payout(bench)
    bench.mpesa.paid_out[payout_of(bench, withdrawal).reference] = withdrawal.payout

    assert decide(bench, withdrawal, D.TOOK_EFFECT, payout_of(bench, withdrawal), reference="UKB0000009") is S.COMPLETED

    ended = bench.now(withdrawal)
    assert (ended.mpesa_receipt, ended.next_step_at) == ("UKB0000009", None)
    assert books_agree(bench)
    assert in_transit(bench) == (0, 0)
    assert not bench.world.reserved


def test_a_payout_judged_to_have_paid_another_amount_is_posted_as_it_was(bench: WithdrawalBench) -> None:
    withdrawal = unknown_payout(bench)
    paid = bench.mpesa.paid_out[payout_of(bench, withdrawal).reference] = Money(1200_00, Currency.KES)

    decide(bench, withdrawal, D.TOOK_EFFECT, payout_of(bench, withdrawal), reference="UKB0000009", amount=paid)

    assert bench.now(withdrawal).failure_code == "paid_another_amount"
    assert books_agree(bench)
    assert bench.world.balance("suspense") == -70_00


@pytest.mark.parametrize("claimed", [False, True])
def test_a_payout_judged_dead_is_paid_by_a_new_id_once_it_is_sent_on(bench: WithdrawalBench, claimed: bool) -> None:
    withdrawal = unknown_payout(bench)
    if claimed:  # a lie that nobody can disprove
        bench.world.tick(seconds=1)
        bench.mpesa.forges(payout_of(bench, withdrawal))
        bench.drive(withdrawal)
        bench.world.tick(seconds=1)

    assert decide(bench, withdrawal, D.HAD_NO_EFFECT, payout_of(bench, withdrawal)) is S.NEEDS_ATTENTION
    assert len(bench.now(withdrawal).payouts) == 1
    bench.resume(withdrawal)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert [payout.status for payout in bench.now(withdrawal).payouts] == [RequestStatus.CLOSED, RequestStatus.DONE]


def test_a_later_proof_re_opens_what_was_judged_dead_and_given_back(bench: WithdrawalBench) -> None:
    withdrawal = unknown_payout(bench)
    decide(bench, withdrawal, D.HAD_NO_EFFECT, payout_of(bench, withdrawal))
    decide(bench, withdrawal, D.GIVE_BACK)
    assert bench.now(withdrawal).status is S.REVERSED
    assert in_transit(bench) == (0, 0)

    bench.world.tick(seconds=1)
    bench.mpesa.pays_out(payout_of(bench, withdrawal))
    bench.drive(withdrawal)

    assert bench.now(withdrawal).failure_code == "paid_and_credited_back"
    assert bench.world.balance("receivable") == 1270_00
    assert books_agree(bench)


def test_nothing_goes_back_over_an_attempt_whose_outcome_is_open(bench: WithdrawalBench) -> None:
    withdrawal = unknown_payout(bench)

    with pytest.raises(OtherWayOpen):
        decide(bench, withdrawal, D.GIVE_BACK)
    bench.world.prompts[payout_of(bench, withdrawal).id].send_before = bench.world.now
    with pytest.raises(VerdictTooEarly):
        decide(bench, withdrawal, D.HAD_NO_EFFECT, payout_of(bench, withdrawal))
    assert not bench.deriv.book


def test_a_payout_that_was_booked_on_a_claim_can_be_judged_not_made(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    bench.mpesa.status_is_down = True
    bench.mpesa.forges(payout_of(bench, withdrawal))
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(days=5))
    assert bench.now(withdrawal).failure_code == "payment_contradictory"

    decide(bench, withdrawal, D.HAD_NO_EFFECT, payout_of(bench, withdrawal))
    assert in_transit(bench) == (0, 1270_00)
    assert bench.world.reserved
    bench.resume(withdrawal)

    assert len(bench.mpesa.paid_out) == 1
    assert books_agree(bench)


@pytest.mark.parametrize("effect", [False, True])
def test_a_debit_that_deriv_can_not_tell_about_is_judged(bench: WithdrawalBench, effect: bool) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers, bench.deriv.is_down = [bench.deriv.debits_in_silence if effect else Unknown("timeout")], True
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)
    [debit] = bench.now(withdrawal).transfers

    decide(bench, withdrawal, D.TOOK_EFFECT if effect else D.HAD_NO_EFFECT, debit, reference="7000" if effect else "")

    assert bench.now(withdrawal).status is (S.COMPLETED if effect else S.FAILED)
    assert books_agree(bench)


# --- another destination --------------------------------------------------------------------------------------------


def recipient_unknown(bench: WithdrawalBench) -> Any:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.OURS, "2028")]
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    return withdrawal


def test_another_verified_phone_of_the_same_customer_gets_the_payout(bench: WithdrawalBench) -> None:
    withdrawal = recipient_unknown(bench)
    bench.users.customers[CUSTOMER] = a_customer(phone=OTHER)

    decide(bench, withdrawal, D.OTHER_PHONE)
    assert len(bench.now(withdrawal).payouts) == 1
    bench.resume(withdrawal)

    assert bench.now(withdrawal).payouts[-1].phone == OTHER
    assert bench.now(withdrawal).status is S.COMPLETED
    assert any(record.action == "transaction.redirected" for record in bench.world.audit)


def test_a_destination_that_changed_after_it_was_proposed_is_not_taken(bench: WithdrawalBench) -> None:
    withdrawal = recipient_unknown(bench)
    bench.users.customers[CUSTOMER] = a_customer(phone=OTHER)
    asked = Propose(transaction_id=withdrawal.id, type=withdrawal.type, decision=D.OTHER_PHONE, by="mary", why="asked")
    id = people(bench).propose(asked)

    bench.users.customers[CUSTOMER] = a_customer(phone=Phone("254700000002"))
    with pytest.raises(DestinationNotVerified):
        people(bench).approve(id, by="john")


def test_no_other_destination_while_money_may_have_gone_to_the_first(bench: WithdrawalBench) -> None:
    withdrawal = unknown_payout(bench)
    bench.users.customers[CUSTOMER] = a_customer(phone=OTHER)

    with pytest.raises(OtherWayOpen):
        decide(bench, withdrawal, D.OTHER_PHONE)
    assert bench.now(withdrawal).phone != OTHER


def test_a_credit_back_goes_to_the_login_that_people_chose(bench: WithdrawalBench) -> None:
    """The login that was debited is closed; the customer has bound another one."""
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    bench.deriv.answers = [bench.deriv.debits_login, Refused("AccountDisabled")]
    bench.drive(withdrawal)
    assert bench.now(withdrawal).failure_code == "credit_back_refused:AccountDisabled"
    login = DerivLogin(DerivPlatform.REST, "jane")
    bench.users.customers[CUSTOMER] = a_customer(deriv_login=login)

    decide(bench, withdrawal, D.OTHER_LOGIN)
    bench.resume(withdrawal)

    assert bench.now(withdrawal).status is S.REVERSED
    assert bench.deriv.sent[-1].login == login
    assert books_agree(bench)


def test_a_decision_under_a_hold_sends_nothing(bench: WithdrawalBench) -> None:
    withdrawal = recipient_unknown(bench)
    bench.saga.hold(withdrawal.id, owner="mary", why="law")

    decide(bench, withdrawal, D.GIVE_BACK)
    bench.world.tick(days=3)
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.CREDIT_BACK_PENDING
    assert not bench.deriv.book

    bench.saga.release(withdrawal.id, why="done")
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.REVERSED


def test_a_credit_back_that_was_not_sent_for_a_day_is_tried_again_when_it_is_resumed(
    bench: WithdrawalBench,
) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]
    bench.deriv.answers = [bench.deriv.debits_login, *[NotSent("connect", retry_after_s=600)] * 1000]
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)
    assert bench.now(withdrawal).failure_code == "credit_back_not_sent"

    bench.deriv.answers = []
    bench.resume(withdrawal)

    assert bench.now(withdrawal).status is S.REVERSED
    assert books_agree(bench)
