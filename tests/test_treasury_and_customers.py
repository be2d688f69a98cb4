"""Treasury books nothing that a customer's Transaction explains, under whatever key its saga has booked it."""

import pytest

from deriv_integration.facade import deriv
from mpesa_integration.facade import mpesa
from payments.domain.transaction import TransactionStatus as S
from payments.tests.factories import AGENT, SHORTCODE, a_float, a_stored_deposit, kes, usd
from payments.tests.test_suspense import prompted
from shared_kernel.domain.requests import Leg, RequestStatus
from shared_kernel.infrastructure.persistence import now, unit_of_work
from wallet.domain.treasury import Kind, MovementExplained
from wallet.facade import ledger, mpesa_working, treasury_movements
from wallet.tests.treasuring import JOHN, approved, owing, proposed, seen

pytestmark = pytest.mark.django_db(transaction=True)
RECEIPT = "UKX0000001"


@pytest.fixture(autouse=True)
def _float(settings):
    settings.MPESA_SHORTCODE = SHORTCODE
    a_float()


def recovered(shillings=1300, receipt=RECEIPT):
    """Proposed: a payment as what a customer owed."""
    place = {"source": f"customer_receivable:{owing(kes(shillings))}", "target": f"mpesa_working:{SHORTCODE}"}
    return proposed(Kind.RECEIVABLE_RECOVERED, amount=kes(shillings), reference=receipt, **place)


def paid_deposit(receipt=None):
    """Proven by the query alone, so that its payment is booked under its attempt's id."""
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    prompt = prompted(deposit, RequestStatus.DONE)
    if receipt:
        with unit_of_work():
            mpesa.attach_receipts({prompt.id: receipt})
    return deposit


@pytest.mark.parametrize("receipt", [RECEIPT, None])
def test_a_payment_that_a_saga_booked_under_its_attempts_id_is_neither_proposed_nor_approved(receipt):
    before = recovered()
    deposit = paid_deposit(receipt)

    with pytest.raises(MovementExplained, match=str(deposit.id)):
        recovered()
    with pytest.raises(MovementExplained, match=str(deposit.id)):
        treasury_movements.approve(before, by=JOHN)
    with pytest.raises(MovementExplained):
        treasury_movements.preview(before)

    with unit_of_work():
        assert ledger.balance(mpesa_working(SHORTCODE)) == deposit.amount


def test_another_payment_of_another_amount_is_treasurys():
    paid_deposit()

    treasury_movements.approve(recovered(1200), by=JOHN)
    paid_deposit("UKX0000008")
    with pytest.raises(MovementExplained):  # by its receipt
        recovered(1200, "UKX0000008")


def test_an_open_payout_stops_a_settlement_of_its_own_amount_alone():
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    payout = mpesa.new_request(deposit.id, Leg.B2C_PAYOUT, 1, deposit.phone, kes(700), at=now(), shortcode=SHORTCODE)
    with unit_of_work():
        mpesa.record([payout])

    approved(Kind.SETTLEMENT, source=f"mpesa_working:{SHORTCODE}", amount=kes(5000))
    with pytest.raises(MovementExplained, match=str(deposit.id)):
        proposed(Kind.SETTLEMENT, source=f"mpesa_working:{SHORTCODE}", amount=kes(700))


def test_an_open_transfer_at_deriv_may_be_what_was_seen_to_arrive():
    top_up = approved(Kind.TOP_UP_AGENT, amount=usd(10))
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    debit = deriv.new_transfer(deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, AGENT, usd(10), at=now())
    with unit_of_work():
        deriv.record([debit])

    with pytest.raises(MovementExplained, match=str(deposit.id)):
        seen(top_up, reference="9009")
