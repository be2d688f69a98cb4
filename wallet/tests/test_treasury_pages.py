"""Treasury's pages: two people who are signed in, each with the right to do what they do, and nobody else."""

from html import unescape
from threading import Event, Thread

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.urls import reverse

from shared_kernel.domain.money import Currency
from shared_kernel.infrastructure.persistence import unit_of_work
from shared_kernel.models import AuditLog
from shared_kernel.tests.staff import signed_in
from wallet.domain.treasury import Kind
from wallet.facade import AccountKind, house, ledger, treasury_movements
from wallet.models import LedgerEntry, TreasuryMovement
from wallet.tests.factories import kes
from wallet.tests.treasuring import B2C, a_command, approved, owing, proposed, today

pytestmark = pytest.mark.django_db(transaction=True)
PROPOSE = reverse("admin:wallet_treasurymovement_propose")
RIGHTS = {"view": "view_treasurymovement", "propose": "propose_treasurymovement", "approve": "approve_treasurymovement"}


def somebody(name, *rights, superuser=False):
    user = get_user_model().objects.create_superuser(name, f"{name}@example.org", "a long enough password")
    if not superuser:
        user.is_superuser = False
        user.save()
        user.user_permissions.set(Permission.objects.filter(codename__in=[RIGHTS[right] for right in rights]))
    return signed_in(user)


def who(client):
    return f"staff:{client.session['_auth_user_id']}"


def act(id, action):
    return reverse(f"admin:wallet_treasurymovement_{action}", args=[id])


def page(id):
    return reverse("admin:wallet_treasurymovement_change", args=[id])


def a_form(**over):
    given = {
        "kind": "settlement", "amount": "5000.00", "currency": "KES", "source": f"mpesa_utility:{B2C}", "target": "",
        "customer": "", "got": "", "reference": "UKM0000001", "day": today().isoformat(), "why": "swept to the bank",
    }  # fmt: skip
    return given | over


def an_arrival(**over):
    return {"reference": "FT26/1", "day": today().isoformat(), "arrived": "4970.00", "charge": "30.00"} | over


def approve(client, id):
    """As a person does: what is on the page goes back with it."""
    seen = client.get(act(id, "approve")).context["form"].initial["as_seen"]
    return client.post(act(id, "approve"), {"as_seen": seen})


def test_two_people_take_a_settlement_from_proposal_to_arrival():
    mary, john = somebody("mary", "view", "propose"), somebody("john", "view", "propose", "approve")

    answer = mary.post(PROPOSE, a_form())
    row = TreasuryMovement.objects.get()
    assert (answer.status_code, answer.headers["Location"]) == (302, page(row.id))
    shown = unescape(john.get(act(row.id, "approve")).content.decode())
    assert "mpesa_utility 600992" in shown
    assert "cash_in_transit KES" in shown
    assert "5000.00 KES" in shown
    assert "swept to the bank" in shown
    assert approve(john, row.id).status_code == 302
    assert "in transit: 5000.00 KES" in john.get(reverse("admin:wallet_treasurymovement_changelist")).content.decode()
    assert john.post(act(row.id, "arrived"), an_arrival()).status_code == 302
    assert b"somebody else has to approve" in approve(john, row.id).content
    jane = somebody("jane", "approve")
    assert approve(jane, row.id).status_code == 302

    shown = john.get(page(row.id)).content.decode()
    assert "mpesa_fees" in shown
    assert "bank:KES:FT26/1" in shown
    row.refresh_from_db()
    assert (row.status, row.by, row.approved_by, row.arrival_by, row.arrival_approved_by) == (
        "arrived", who(mary), who(john), who(john), who(jane),
    )  # fmt: skip
    rows = AuditLog.objects.filter(target_id=str(row.id)).order_by("seq")
    assert [r.actor for r in rows] == [who(mary), who(john), who(john), who(jane)]
    assert ledger.balance(house(AccountKind.BANK, Currency.KES)) == kes(4970)


def test_two_people_write_off_what_will_never_arrive_on_the_page_of_its_arrival():
    id, mary, john = approved(), somebody("mary", "view", "propose"), somebody("john", "view", "approve")
    lost = an_arrival(reference="BOARD/7", arrived="0", charge="0", lost="5000.00")

    assert b"will never arrive" in mary.get(act(id, "arrived")).content
    assert "say what of it is lost" in unescape(mary.post(act(id, "arrived"), lost | {"lost": ""}).content.decode())
    assert mary.post(act(id, "arrived"), lost).status_code == 302
    shown = unescape(john.get(act(id, "approve")).content.decode())
    assert "losses" in shown
    assert "lost on the way" in shown
    assert approve(john, id).status_code == 302

    assert ledger.balance(house(AccountKind.LOSSES, Currency.KES)) == kes(5000)
    assert "5000.00 KES" in john.get(page(id)).content.decode()


def test_not_even_a_superuser_approves_their_own():
    boss = somebody("boss", superuser=True)
    boss.post(PROPOSE, a_form())
    row = TreasuryMovement.objects.get()

    answer = approve(boss, row.id)

    assert b"somebody else has to approve" in answer.content
    row.refresh_from_db()
    assert (row.status, LedgerEntry.objects.count()) == ("proposed", 0)


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        ([], set()),
        (["view"], set()),
        (["view", "propose"], {"propose", "adopt", "reject", "arrived", "reverse"}),
        (["view", "approve"], {"approve", "reject"}),
    ],
)
def test_each_page_wants_its_right(rights, allowed):
    client, id = somebody("clerk", *rights), proposed()
    pages = {name: act(id, name) for name in ("adopt", "approve", "reject", "arrived", "reverse")} | {
        "propose": PROPOSE
    }

    for name, address in pages.items():
        expected = 200 if name in allowed else 403
        assert client.get(address).status_code == expected, name
        if expected == 403:
            assert client.post(address, a_form()).status_code == 403, name
    assert TreasuryMovement.objects.get().status == "proposed"
    assert client.get(page(id)).status_code == (200 if "view" in rights else 403)


def test_strangers_are_asked_to_sign_in_and_what_is_not_there_is_not_found():
    id, mary = proposed(), somebody("mary", "view", "propose", "approve")
    stranger = Client(headers={"Host": "localhost"})

    for address in (PROPOSE, act(id, "approve")):
        assert stranger.post(address, {}).status_code == 302
    assert mary.get(act("00000000-0000-0000-0000-000000000001", "approve")).status_code == 404


def test_a_form_without_its_token_is_refused():
    proposed()
    boss = get_user_model().objects.create_superuser("boss", "boss@example.org", "a long enough password")
    strict = signed_in(boss, Client(enforce_csrf_checks=True, headers={"Host": "localhost"}))

    assert strict.post(PROPOSE, a_form()).status_code == 403
    assert TreasuryMovement.objects.count() == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"reference": "nothing"}, "M-Pesa's receipt"),
        ({"amount": "0"}, "above zero"),
        ({"amount": "1.005"}, "2 decimal places"),
        ({"source": ""}, "say which account it goes from"),
        ({"source": "bank"}, "is not what it goes from"),
        ({"why": ""}, "This field is required"),
        ({"currency": "USD"}, "is in KES, not in USD"),
        ({"kind": "receivable_recovered", "customer": "not an id"}, "Enter a valid UUID"),
    ],
)
def test_what_is_wrong_is_told_on_the_form_and_nothing_is_stored(wrong, says):
    answer = somebody("mary", "propose").post(PROPOSE, a_form(**wrong))

    assert answer.status_code == 200
    assert says in unescape(answer.content.decode())
    assert not TreasuryMovement.objects.exists()


def test_what_changed_since_it_was_looked_at_is_not_approved_unseen():
    john, id = somebody("john", "approve"), approved()
    treasury_movements.arrive(id, reference="FT26/1", day=today(), arrived=kes(5000), charge=kes(0), by="staff:1")
    seen = john.get(act(id, "approve")).context["form"].initial["as_seen"]
    treasury_movements.reject(id, by="staff:1", why="no")
    treasury_movements.arrive(id, reference="FT26/1", day=today(), arrived=kes(1), charge=kes(4999), by="staff:1")

    answer = john.post(act(id, "approve"), {"as_seen": seen})

    assert b"look at it again" in answer.content
    assert TreasuryMovement.objects.get().status == "arriving"


def test_why_an_approval_would_be_refused_is_told_before_it_is_tried():
    john, booked = somebody("john", "approve"), proposed(reference="UKM0000001")
    again = proposed(reference="UKM0000001")
    approve(john, booked)

    assert "in the ledger already" in john.get(act(again, "approve")).content.decode()
    assert approve(john, again).status_code == 200
    assert TreasuryMovement.objects.get(pk=again).status == "proposed"


@pytest.mark.skipif(connection.vendor == "sqlite", reason="it has no row locks")
def test_whoever_comes_while_somebody_else_decides_is_told_to_try_again():
    john, id, locked, tried = somebody("john", "approve"), proposed(), Event(), Event()
    seen = john.get(act(id, "approve")).context["form"].initial["as_seen"]

    def decide():
        with unit_of_work():
            treasury_movements.movements.get(id)
            locked.set()
            tried.wait(30)
        connection.close()

    other = Thread(target=decide)
    other.start()
    locked.wait(30)
    try:
        answer = john.post(act(id, "approve"), {"as_seen": seen})
    finally:
        tried.set()
        other.join()

    assert b"somebody else is deciding" in answer.content
    assert approve(john, id).status_code == 302


def test_a_draft_is_made_ones_own_on_its_page():
    id = treasury_movements.propose(a_command(), by="", drafted_by="ops@host").id
    mary = somebody("mary", "view", "propose")
    assert act(id, "adopt") in mary.get(page(id)).content.decode()
    assert act(id, "approve") not in mary.get(page(id)).content.decode()

    assert mary.post(act(id, "adopt")).status_code == 302

    assert TreasuryMovement.objects.get().by == who(mary)


def test_a_receivable_a_close_out_a_rejection_and_a_reversal_by_page():
    mary, john = somebody("mary", "propose"), somebody("john", "approve")
    customer = owing(kes(1271))
    owed = {"kind": "receivable_written_off", "customer": customer, "source": "", "amount": "1271"}
    mary.post(PROPOSE, a_form(**owed, reference="BOARD/7"))
    mary.post(PROPOSE, a_form(kind="fx_close_out", source="", amount="77400", got="600", reference="FX1"))
    written_off, deal = TreasuryMovement.objects.order_by("id")

    assert "129.0000" in unescape(john.get(act(deal.id, "approve")).content.decode())
    assert john.post(act(deal.id, "reject"), {"why": "of last week"}).status_code == 302
    assert approve(john, written_off.id).status_code == 302
    assert mary.post(act(written_off.id, "reverse"), {"why": "he paid"}).status_code == 302
    reversal = TreasuryMovement.objects.get(reverses=written_off.id)
    assert "losses" in unescape(john.get(act(reversal.id, "approve")).content.decode())
    assert approve(john, reversal.id).status_code == 302

    written_off.refresh_from_db()
    deal.refresh_from_db()
    assert (deal.status, deal.closed_why, written_off.status) == ("rejected", "of last week", "reversed")
    assert ledger.balance(house(AccountKind.LOSSES, Currency.KES)) == kes(0)


def test_the_list_tells_the_age_of_what_waits_and_filters_by_status():
    client, waiting, sent = somebody("auditor", "view"), proposed(Kind.BANK_CHARGE), approved()
    listing = reverse("admin:wallet_treasurymovement_changelist")

    assert str(waiting) in client.get(listing, {"status": "proposed"}).content.decode()
    assert str(sent) not in client.get(listing, {"status": "proposed"}).content.decode()
    assert PROPOSE not in client.get(listing).content.decode()
    assert PROPOSE in somebody("mary", "view", "propose").get(listing).content.decode()
