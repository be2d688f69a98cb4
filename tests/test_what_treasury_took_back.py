"""What treasury booked wrongly and took back is booked by whoever it belongs to: under the next key of its movement."""

import pytest

from payments import models
from payments.application.deposit import TakePayment
from payments.application.withdrawal import take_debit
from payments.domain.reconciliation import Resolution
from payments.domain.suspense import SettlementKind as K
from payments.domain.transaction import TransactionStatus as S
from payments.facade import breaks, deposits, recovery, withdrawals
from payments.tests.factories import AGENT, SHORTCODE, a_float, a_stored_deposit, a_stored_withdrawal, kes, usd
from payments.tests.test_recovery import status_of, suspense as lying
from payments.tests.test_statements import YESTERDAY, a_statement, found, give  # noqa: F401
from payments.tests.test_suspense import in_order, names, orphan, out, prompted, settle
from shared_kernel.domain.requests import MpesaPayment, RequestStatus
from shared_kernel.infrastructure.persistence import now, unit_of_work
from wallet.domain.ledger import ProviderKeyUsed
from wallet.domain.treasury import Kind
from wallet.facade import ledger, mpesa_working, treasury_movements, verify_ledger
from wallet.models import LedgerEntry
from wallet.tests.treasuring import JOHN, MARY, approved, arrived, owing

pytestmark = pytest.mark.django_db(transaction=True)
RECEIPT = "UKX0000003"
KEY = f"mpesa:{SHORTCODE}:{RECEIPT}"
DAY = YESTERDAY.date()


@pytest.fixture(autouse=True)
def _float(settings):
    settings.MPESA_SHORTCODE = SHORTCODE
    a_float()


def taken_back(id):
    reversal = treasury_movements.propose_reversal(id, by=MARY, why="it was a customer's").id
    treasury_movements.approve(reversal, by=JOHN)


def recovered_wrongly(receipt=RECEIPT):
    """A customer's payment, booked as what another one owed, and taken back."""
    source = f"customer_receivable:{owing(kes(1300))}"
    place = {"source": source, "target": f"mpesa_working:{SHORTCODE}"}
    taken_back(approved(Kind.RECEIVABLE_RECOVERED, amount=kes(1300), reference=receipt, day=DAY, **place))


def payment(receipt=RECEIPT, shillings=1300):
    return MpesaPayment(receipt, "", kes(shillings), now() - recovery.settles_in * 10)


def proven(payments):
    """A deposit that M-Pesa's book proves by these payments."""
    deposit = a_stored_deposit(S.CREATED)
    prompted(deposit, RequestStatus.ACCEPTED)
    with unit_of_work():
        [whole] = deposits.whole([deposit.id])
        whole.status = S.AWAITING_MPESA
        whole.touched = True
        assert whole.payment is not None
        TakePayment(ledger, deposits.audit).take(whole, whole.payment, payments, at=now())
        deposits.save([whole], ())
    return deposit


def keyed(key):
    return list(LedgerEntry.objects.filter(provider_key=key).values_list("purpose", flat=True))


def books_are_sound():
    """But for the Transaction of whoever owes something: there is none."""
    return not verify_ledger(lambda *_: None).findings


def hourly(*payments):
    return recovery._payments([], SHORTCODE, payments, now())


def test_a_deposit_takes_its_payment_and_nobody_takes_it_again():
    recovered_wrongly()

    deposit = proven([payment()])

    assert status_of(deposit) == S.MPESA_CONFIRMED
    assert keyed(KEY) == ["receivable_recovered"]
    assert keyed(f"{KEY}:2") == ["deposit_received"]
    assert hourly(payment()) == 0
    with unit_of_work():
        assert ledger.posted([KEY]) == {KEY}
        assert ledger.balance(mpesa_working(SHORTCODE)) == kes(1300)
    with pytest.raises(ProviderKeyUsed), unit_of_work():
        ledger.post_suspense_in("mpesa_working", SHORTCODE, kes(1300), provider_key=KEY, at=now())
    with pytest.raises(ProviderKeyUsed):
        recovered_wrongly()
    assert books_are_sound()


def test_the_hourly_run_takes_it_into_suspense_where_people_settle_it_by_its_plain_name():
    recovered_wrongly()

    assert hourly(payment()) == 1
    assert hourly(payment()) == 0

    assert keyed(f"{KEY}:2") == ["suspense_in"]
    assert names() == [KEY]
    deposit = a_stored_deposit(S.FAILED)
    prompted(deposit)
    settle(KEY, K.MATCHED, transaction=deposit.id)
    assert names() == []
    assert models.OrphanMovement.objects.get().settled_at is not None
    assert status_of(deposit) in {S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT}
    assert lying("KES") == 0
    assert books_are_sound()


def test_it_proves_the_return_of_what_left_and_treasury_takes_it_from_suspense():
    taken_back(arrived(approved(Kind.TOP_UP_AGENT, amount=usd(10)), reference="9009"))
    left = orphan(out(usd(10)), "9001")
    orphan(usd(10), "9009")
    assert keyed(f"deriv:{AGENT}:9009:2") == ["suspense_in"]
    arrived(approved(Kind.TOP_UP_AGENT, amount=usd(10)), reference="9009")
    assert names() == [left]

    taken_back(arrived(approved(Kind.TOP_UP_AGENT, amount=usd(5)), reference="9010"))
    back = orphan(usd(5), "9010")
    left_5 = orphan(out(usd(5)), "9002")
    settle(left_5, K.RECOVERED, movement="9010")

    assert back not in names()
    assert names() == [left]
    assert in_order()


def test_a_break_goes_into_suspense_by_two_people_and_is_matched(give):  # noqa: F811
    recovered_wrongly()
    text = a_statement((RECEIPT, "Pay Bill", 1300), account="Working Account", shortcode=SHORTCODE)
    assert found(give(text)[1]) == {"missing_here": 1}
    row = models.ReconciliationBreak.objects.get(status="open")
    breaks.resolve(row.id, Resolution.INTO_SUSPENSE, by="staff:1", why="nobody's")

    breaks.approve(row.id, by="staff:2")

    assert names() == [KEY]
    assert keyed(f"{KEY}:2") == ["suspense_in"]
    assert found(give(text + "\n")[1]) == {"matched": 1}


def test_what_a_saga_booked_anew_is_matched_in_the_statement(give):  # noqa: F811
    recovered_wrongly()
    proven([payment()])

    text = a_statement((RECEIPT, "Pay Bill", 1300), account="Working Account", shortcode=SHORTCODE)

    assert found(give(text)[1]) == {"matched": 1}


def test_a_debit_is_posted():
    taken_back(arrived(approved(Kind.TOP_UP_AGENT, amount=usd(10)), reference="9009"))
    withdrawal = a_stored_withdrawal(S.CREATED, cents=10_00)

    with unit_of_work():
        [whole] = withdrawals.whole([withdrawal.id])
        whole.status = S.DERIV_DEBIT_SENT
        assert whole.debit is not None
        take_debit(ledger, whole, whole.debit, ["9009"], at=now())
        withdrawals.save([whole], ())

    assert status_of(withdrawal) == S.DERIV_DEBITED
    assert keyed(f"deriv:{AGENT}:9009:2") == ["withdrawal_debited"]


def test_it_is_not_booked_anew_without_end():
    for _ in range(4):
        recovered_wrongly()

    with pytest.raises(ProviderKeyUsed):
        hourly(payment())
