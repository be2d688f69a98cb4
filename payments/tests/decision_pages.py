"""What tests of the decision pages need: staff at their browsers, what stands before them, and how they decide."""

from datetime import timedelta
from html import unescape
from typing import Any

from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse

from mpesa_integration.facade import mpesa
from payments import models
from payments.domain.transaction import TransactionStatus as S
from payments.facade import SAGAS
from payments.tests.factories import a_stored_withdrawal
from shared_kernel.domain.requests import Leg, RequestStatus
from shared_kernel.infrastructure.persistence import now, unit_of_work
from shared_kernel.tests.staff import signed_in
from wallet.facade import trial_balance

User = get_user_model()
OTHER, PHONE, ACCOUNT = "254700000001", "254712345678", "CR100001"
LIST = reverse("admin:payments_transaction_changelist")


class Staff(Client):
    """A browser, and as whom audit rows know who sits before it."""

    who = ""


def member(group, number=0, **over):
    name = f"{group.replace(' ', '')}{number}"
    user = User.objects.create_staff(name, f"{name}@example.org", "a long enough password", group)
    User.objects.filter(pk=user.pk).update(**over)
    client = Staff(headers={"Host": "localhost"})
    signed_in(User.objects.get(pk=user.pk), client)
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


def attempts_of(transaction):
    with unit_of_work():
        [read] = SAGAS[transaction.type].whole([transaction.id])
    return [(str(r.leg), str(r.status)) for r in read.payments if r.leg is not Leg.STATUS_QUERY]
