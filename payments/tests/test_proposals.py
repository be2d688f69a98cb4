"""Decisions of two people as rows, and what the database itself refuses of them."""

from dataclasses import replace
from uuid import UUID

import pytest
from django.db import IntegrityError, connection

from payments import models
from payments.application.people import Propose
from payments.domain.proposal import AlreadyApproved, Decision, Proposal, ProposalNotFound, SamePerson
from payments.domain.transaction import TransactionStatus as S, TransactionType
from payments.facade import people, withdrawals
from payments.infrastructure.persistence.proposals import DjangoProposals
from payments.tests.factories import a_float, a_stored_withdrawal, kes
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.requests import DerivLogin, DerivPlatform
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db(transaction=True)

stored = DjangoProposals()


def a_proposal(**over: object) -> Proposal:
    given = {
        "id": new_id(),
        "transaction_id": TransactionId(new_id()),
        "type": TransactionType.DEPOSIT,
        "decision": Decision.TOOK_EFFECT,
        "by": "mary",
        "why": "seen in the portal",
        "at": now(),
    }
    return Proposal(**{**given, **over})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"request_id": RequestId(UUID(int=7)), "reference": "UKB0000009", "amount": kes(1200)},
        {"decision": Decision.OTHER_PHONE, "phone": Phone("254700000001")},
        {"decision": Decision.OTHER_LOGIN, "login": DerivLogin(DerivPlatform.REST, "bob", "USD")},
    ],
)
def test_a_proposal_is_read_as_it_was_made(over):
    proposal = a_proposal(**over)
    with unit_of_work():
        stored.add(proposal)

    with unit_of_work():
        assert stored.get(proposal.id) == proposal
        stored.decide(replace(proposal, approved_by="john", approved_at=proposal.at))
        assert stored.get(proposal.id).approved_by == "john"


def test_where_money_would_go_and_what_shows_it_is_not_readable_in_the_row():
    login = DerivLogin(DerivPlatform.REST, "bob-at-deriv", "USD")
    proposal = a_proposal(reference="UKB0000009", phone=Phone("254700000001"), login=login)
    with unit_of_work():
        stored.add(proposal)

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM proposals")
        row = str(cursor.fetchall())
    assert not [secret for secret in ("UKB0000009", "254700000001", "bob-at-deriv") if secret in row]


def test_there_is_no_proposal_of_an_unknown_id():
    with pytest.raises(ProposalNotFound), unit_of_work():
        stored.get(new_id())


@pytest.mark.parametrize("change", [{"approved_by": "mary"}, {"by": ""}, {"why": ""}])
def test_the_database_itself_wants_two_people_and_a_reason(change):
    proposal = a_proposal()
    with unit_of_work():
        stored.add(proposal)

    with pytest.raises(IntegrityError):
        models.Proposal.objects.filter(pk=proposal.id).update(**change)


def test_what_mary_proposes_and_john_approves_is_carried_out_on_the_stored_rows():
    a_float()
    withdrawal = a_stored_withdrawal(S.RATE_LOCKED)
    with unit_of_work():
        [read] = withdrawals.whole([withdrawal.id])
        read.need_attention("payout_refused", at=now())
        withdrawals.save([read], ())
    asked = Propose(
        transaction_id=withdrawal.id,
        type=withdrawal.type,
        decision=Decision.GIVE_BACK,
        by="mary",
        why="he asked for it",
    )
    id = people.propose(asked)

    with pytest.raises(SamePerson):
        people.approve(id, by="mary")
    assert people.approve(id, by="john") is S.CREDIT_BACK_PENDING
    with pytest.raises(AlreadyApproved):
        people.approve(id, by="jane")

    assert models.Transaction.objects.get(pk=withdrawal.id).status == S.CREDIT_BACK_PENDING
    assert models.Proposal.objects.get(pk=id).approved_by == "john"
    told = AuditLog.objects.filter(target_id=str(withdrawal.id), action__contains="decision").order_by("seq")
    assert [row.action for row in told] == ["transaction.decision_proposed", "transaction.decision_approved"]
