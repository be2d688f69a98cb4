"""Treasury movements and the providers' books: what staff booked is matched, whatever was booked when."""

from datetime import timedelta

import pytest

from payments import models
from payments.application.reconciliation import _staffs_keys
from payments.domain.orphan import Provider
from payments.domain.reconciliation import Movement
from payments.facade import explained_orphans
from payments.tests.test_recovery import find, suspense  # noqa: F401
from payments.tests.test_statements import YESTERDAY, a_statement, deriv_statement, found, give  # noqa: F401
from penpay.subscriptions import SUBSCRIPTIONS
from shared_kernel.application.delivery import must_arrive
from shared_kernel.domain.events import Event, SuspenseExplained
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog, DomainEvent
from wallet.domain.ledger import ProviderKeyUsed, keys_of
from wallet.facade import ProposeMovement, TreasuryKind, float_legs_recorded, treasury_movements

pytestmark = pytest.mark.django_db(transaction=True)
PAYBILL, B2C, AGENT = "174379", "600992", "CR900001"
DAY = YESTERDAY.date()


def kes(shillings):
    return Money(shillings * 100, Currency.KES)


def usd(dollars):
    return Money(dollars * 100, Currency.USD)


def propose(kind, amount, reference, **places):
    command = ProposeMovement(kind=kind, amount=amount, reference=reference, day=DAY, why="the advice", **places)
    return treasury_movements.propose(command, by="staff:1").id


def approve(id):
    treasury_movements.approve(id, by="staff:2")
    return id


def arrived(id, amount, reference, charge=0):
    kept = Money(charge * 100, amount.currency)
    treasury_movements.arrive(id, reference=reference, day=DAY, arrived=amount - kept, charge=kept, by="staff:1")
    approve(id)


def settled(receipt, shillings=500):
    place = {"source": f"mpesa_utility:{B2C}"}
    return approve(propose(TreasuryKind.SETTLEMENT, kes(shillings), receipt, **place))


def open_breaks():
    return list(models.ReconciliationBreak.objects.filter(status="open").values_list("kind", "known_as"))


def test_a_settlement_that_is_booked_is_matched_in_m_pesas_statement(give):  # noqa: F811
    settled("UKM0000001")

    code, told = give(a_statement(("UKM0000001", "Organization Settlement", -500)))

    assert (code, found(told)) == (0, {"matched": 1})


def test_one_that_is_not_booked_is_missing_here_until_it_is_and_is_not_booked_twice(give):  # noqa: F811
    text = a_statement(("UKM0000001", "Organization Settlement", -500), ("UKM0000002", "Business Payment", -100))
    code, told = give(text)
    assert (code, found(told)) == (1, {"missing_here": 2})
    assert ("missing_here", "UKM0000001") in open_breaks()

    twice = [propose(TreasuryKind.SETTLEMENT, kes(500), "UKM0000001", source=f"mpesa_utility:{B2C}") for _ in range(2)]
    approve(twice[0])
    with pytest.raises(ProviderKeyUsed):
        approve(twice[1])
    give(text + "\n")  # another file of the same day

    assert open_breaks() == [("missing_here", "UKM0000002")]


def test_another_amount_than_the_statement_shows_is_a_break(give):  # noqa: F811
    settled("UKM0000001", 400)

    code, told = give(a_statement(("UKM0000001", "Organization Settlement", -500)))

    assert (code, found(told)) == (1, {"different_amount": 1})


def test_what_was_reversed_is_missing_here_and_matched_again_once_it_is_booked_anew(give):  # noqa: F811
    wrong = settled("UKM0000001", 400)
    approve(treasury_movements.propose_reversal(wrong, by="staff:1", why="of 500").id)
    text = a_statement(("UKM0000001", "Organization Settlement", -500))
    assert found(give(text)[1]) == {"missing_here": 1}

    settled("UKM0000001", 500)

    code, told = give(text + "\n")
    assert (code, found(told)) == (0, {"matched": 1})


def test_both_sides_of_a_transfer_within_a_shortcode_are_matched_by_its_one_receipt(give):  # noqa: F811
    places = {"source": f"mpesa_working:{B2C}", "target": f"mpesa_utility:{B2C}"}
    id = approve(propose(TreasuryKind.MPESA_TRANSFER, kes(500), "UKM0000001", **places))
    utility = a_statement(("UKM0000001", "Working Account to Utility Account", 500))
    working = a_statement(("UKM0000001", "Working Account to Utility Account", -500), account="Working Account")
    assert found(give(working)[1]) == {"matched": 1}
    assert found(give(utility)[1]) == {"missing_here": 1}

    arrived(id, kes(500), "UKM0000001")

    assert found(give(utility + "\n")[1]) == {"matched": 1}
    assert found(give(working + "\n")[1]) == {"matched": 1}
    assert open_breaks() == []


def test_a_charge_by_itself_is_matched_under_its_receipt(give):  # noqa: F811
    approve(propose(TreasuryKind.MPESA_CHARGE, kes(5), "UKM0000001", source=f"mpesa_charges_paid:{B2C}"))

    charges = a_statement(("UKM0000001", "Organization Settlement Charge", -5), account="Charges Paid Account")

    assert found(give(charges)[1]) == {"matched": 1}


def test_a_top_up_of_an_agent_is_matched_in_derivs_statement_once_it_has_arrived(give):  # noqa: F811
    id = approve(propose(TreasuryKind.TOP_UP_AGENT, usd(250), "FT26/1", target=f"deriv_agent:{AGENT}"))
    text = deriv_statement(("880001", "Deposit", 250))
    assert found(give(text, provider="deriv")[1]) == {"missing_here": 1}

    arrived(id, usd(250), "880001")

    code, told = give(text + "\n", provider="deriv")
    assert (code, found(told)) == (0, {"matched": 1})


def test_an_opening_balance_is_no_movement_that_a_book_could_lack(give):  # noqa: F811
    approve(propose(TreasuryKind.OPENING_BALANCE, kes(10_000), "AUDIT/2026", target=f"mpesa_utility:{B2C}"))
    settled("UKM0000001")

    legs = float_legs_recorded("mpesa_utility", B2C, now() - timedelta(hours=1), now() + timedelta(minutes=1))

    assert [leg.provider_key for leg in legs] == [f"mpesa:{B2C}:UKM0000001"]


def test_as_often_as_treasury_books_anew_reconciliation_looks():
    movement = Movement("UKM0000001", kes(-500), now())
    plain = f"mpesa:{B2C}:UKM0000001"

    looked_for = {plain, *_staffs_keys(Provider.MPESA, B2C, movement)}

    assert looked_for == {*keys_of(plain), *keys_of(f"{plain}:arrived")}
    taken_back = Movement("UKM0000002", kes(500), now(), "", "UKM0000001")
    assert looked_for - {plain} < {*_staffs_keys(Provider.MPESA, B2C, taken_back)}


def orphan():
    return models.OrphanMovement.objects.get()


def deliver():
    """Every event of the outbox, as the relay brings it."""
    stored = DomainEvent.objects.filter(type="SuspenseExplained").order_by("seq")
    explained_orphans.look_again([Event.from_payload(event.type, event.payload) for event in stored])


def test_a_top_up_that_recovery_saw_first_leaves_suspense_and_the_list_of_orphans(
    give,  # noqa: F811
    find,  # noqa: F811
    deriv_at_simulator,
):
    bank = deriv_at_simulator.simulator.bank
    id = approve(propose(TreasuryKind.TOP_UP_AGENT, usd(250), "FT26/1", target=f"deriv_agent:{AGENT}"))
    entry = str(bank.enter(bank.accounts[AGENT], 250_00, "deposit", "Top-up", None).id)
    assert find()["suspense"] == 1

    arrived(id, usd(250), entry)
    deliver()

    assert (suspense("USD"), orphan().settled_at is not None) == (0, True)
    assert find()["suspense"] == 0
    code, told = give(deriv_statement((entry, "Top-up", 250)), provider="deriv")
    assert (code, found(told)) == (0, {"matched": 1})

    approve(treasury_movements.propose_reversal(id, by="staff:1", why="of another bank").id)
    deliver()
    deliver()
    assert (suspense("USD"), orphan().settled_at) == (250_00, None)
    rows = AuditLog.objects.filter(target_id=str(orphan().id)).order_by("seq")
    assert list(rows.values_list("action", flat=True)) == ["orphan.found", "orphan.settled", "orphan.opened_again"]


def test_what_treasury_explained_must_reach_the_list_of_orphans_even_if_the_broker_forgets_it():
    assert must_arrive(SUBSCRIPTIONS[SuspenseExplained])
