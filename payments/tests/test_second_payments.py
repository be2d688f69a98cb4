"""A deposit's second payment that people settled, and that M-Pesa takes back afterwards: once, from whom has it."""

from datetime import timedelta

import pytest

from payments import models
from payments.application.deposit import TakePayment
from payments.application.reconciliation import Day
from payments.domain.orphan import Provider
from payments.domain.reconciliation import Book, FloatAccountKind, Movement, NothingToPost, Resolution
from payments.domain.suspense import SettlementKind as K
from payments.domain.transaction import TransactionStatus as S
from payments.facade import breaks, deposits, reconciliation, suspense
from payments.tests.factories import AGENT, SHORTCODE, a_float, a_stored_deposit, kes, usd
from payments.tests.test_breaks import a_break
from payments.tests.test_recovery import status_of, suspense as lying
from payments.tests.test_suspense import in_order, out, prompted, returned, settle
from shared_kernel.domain.money import Currency
from shared_kernel.domain.requests import MpesaPayment
from shared_kernel.infrastructure.persistence import now, unit_of_work
from wallet.facade import customer_receivable, ledger, mpesa_working

pytestmark = pytest.mark.django_db(transaction=True)
FIRST, SECOND, BACK, RETURN = "SKX0000001", "SKX0000002", "SKX0000009", "SKX0000008"


@pytest.fixture(autouse=True)
def _float(settings):
    settings.MPESA_SHORTCODE = SHORTCODE
    a_float()


def paid_twice():
    """The second payment lies in suspense."""
    deposit = a_stored_deposit(S.FAILED)
    prompt = prompted(deposit)
    with unit_of_work():
        [read] = deposits.whole([deposit.id])
        paid = [MpesaPayment(receipt, prompt.reference, deposit.amount, now()) for receipt in (FIRST, SECOND)]
        TakePayment(ledger, deposits.audit).take(read, read.payments[0], paid, at=now())
        deposits.save([read], ())
    return deposit


def reconciled(deposit, *more):
    """M-Pesa's statement shows both payments, that the second one was taken back, and whatever else."""
    at = now()
    lines = [Movement(FIRST, deposit.amount, at), Movement(SECOND, deposit.amount, at), *more]
    lines.append(Movement(BACK, out(deposit.amount), at + timedelta(seconds=2), reverses=SECOND))
    hour = timedelta(hours=1)
    digest = f"{models.ReconciliationRun.objects.count():064}"
    book = Book(Provider.MPESA, SHORTCODE, FloatAccountKind.MPESA_WORKING, at - hour, lines, digest=digest)
    return reconciliation.by_file(book, Day(at - hour, at + hour), "statement.csv")


def owed_by(deposit):
    with unit_of_work():
        return ledger.balance(customer_receivable(deposit.user_id, Currency.KES))


def at_m_pesa():
    with unit_of_work():
        return ledger.balance(mpesa_working(SHORTCODE))


def the_break():
    return models.ReconciliationBreak.objects.get(known_as=f"{SECOND}:reverted")


def test_one_that_was_returned_before_is_owed_by_the_customer_who_has_it_twice():
    deposit = paid_twice()
    settle(f"{deposit.id}:deposit_excess:{SECOND}", K.RETURNED, movement=returned(deposit.amount.amount // 100))
    sent = Movement(RETURN, out(deposit.amount), now() + timedelta(seconds=1))

    for _ in range(2):
        reconciled(deposit, sent)
        assert owed_by(deposit) == deposit.amount
        assert at_m_pesa() == kes(0)  # as M-Pesa has it
    read = models.Transaction.objects.get(pk=deposit.id)
    assert (read.status, read.failure_code) == (S.NEEDS_ATTENTION, "returned_twice")
    assert (lying("KES"), the_break().status) == (0, "matched")
    assert in_order()


def test_one_that_was_matched_is_taken_back_from_the_deposit_that_it_paid():
    deposit = paid_twice()
    other = a_stored_deposit(S.FAILED, user=deposit.user_id)
    prompted(other)
    settle(f"{deposit.id}:deposit_excess:{SECOND}", K.MATCHED, transaction=other.id)
    before, first = at_m_pesa(), status_of(deposit)

    for _ in range(2):
        reconciled(deposit)
        assert at_m_pesa() == before - deposit.amount
    assert (status_of(deposit), lying("KES"), the_break().status) == (first, 0, "matched")
    assert models.Transaction.objects.get(pk=other.id).failure_code == "payment_reversed"
    assert in_order()


def test_one_that_still_lies_in_suspense_is_settled_by_what_took_it_back_and_not_posted_beside_it():
    deposit = paid_twice()
    reconciled(deposit)
    row = the_break()
    assert (row.status, lying("KES"), owed_by(deposit)) == ("open", deposit.amount.amount, kes(0))
    with pytest.raises(NothingToPost, match=f"settle that by {BACK}, as returned"):
        breaks.resolve(row.id, Resolution.INTO_SUSPENSE, by="staff:mary", why="it went back")

    settle(f"{deposit.id}:deposit_excess:{SECOND}", K.RETURNED, movement=BACK)
    reconciled(deposit)

    assert (the_break().status, lying("KES"), owed_by(deposit), at_m_pesa()) == ("matched", 0, kes(0), deposit.amount)
    assert in_order()


def test_what_was_settled_by_the_reversal_itself_at_that_moment_is_not_owed_as_well():
    """The run had compared before two people agreed."""
    deposit = paid_twice()
    reconciled(deposit)
    settle(f"{deposit.id}:deposit_excess:{SECOND}", K.RETURNED, movement=BACK)

    deposits.payment_reversed(deposit.id, SECOND, deposit.amount, BACK)

    assert (owed_by(deposit), at_m_pesa()) == (kes(0), deposit.amount)
    assert suspense.page() == []
    assert in_order()


def test_a_second_booking_at_deriv_is_recovered_by_what_took_it_back():
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    with unit_of_work():
        ledger.post_duplicate_sent(deposit.id, usd(9_85), agent=AGENT, provider_key=f"deriv:{AGENT}:9002", at=now())
    [item] = suspense.page()
    row = a_break(
        kind="reverted", known_as="9002:reverted", movement="9003", theirs=9_85, transaction_id=deposit.id,
        provider_key=f"deriv:{AGENT}:9002",
    )  # fmt: skip

    settle(item.name, K.RECOVERED, movement="9003")

    row.refresh_from_db()
    assert (lying("USD"), row.status) == (0, "matched")
