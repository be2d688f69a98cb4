"""Orphan money: what the providers' books show and no Transaction explains, found by reading them."""

import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import httpx
import pytest

from deriv_integration.facade import deriv
from mpesa_integration.facade import mpesa
from payments import models
from payments.application.recovery import RecoveryIncomplete
from payments.domain.transaction import TransactionStatus as S, TransactionType
from payments.facade import deposits, recovery, transactions, verify_statuses
from payments.tests.factories import AGENT, SHORTCODE, a_float, a_stored_deposit, kes, usd
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.identifiers import TransactionId
from shared_kernel.domain.outcome import Accepted, Unreadable
from shared_kernel.domain.requests import Leg, RequestStatus
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.facade import ledger, trial_balance, verify_ledger

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def find(mpesa_simulator, deriv_at_simulator):
    """A run an hour from now, when whatever moved has settled."""
    a_float()
    later = replace(recovery, clock=lambda: now() + timedelta(hours=1))
    return later.find_orphans


def pays_the_paybill(simulator, shillings, reference):
    """A customer who types our paybill's number and any reference."""
    phone = simulator.set_customer("254708374149")
    order = {"phone": "254708374149", "amount": str(shillings), "reference": reference}
    httpx.post(f"{simulator.base_url}/_control/payments", json=order).raise_for_status()
    return phone


def suspense(currency):
    rows = [row for row in trial_balance() if (row.kind, row.currency) == ("suspense", currency)]
    return sum(row.credit - row.debit for row in rows)


def prompted(deposit):
    """The prompt of a deposit as M-Pesa accepted and the customer paid it, stored as accepted."""
    prompt = mpesa.new_request(deposit.id, Leg.STK_PUSH, 1, deposit.phone, deposit.amount, at=now())
    with unit_of_work():
        mpesa.record([prompt])
    outcome = mpesa.send(prompt, give_up_at=time.monotonic() + 60)
    assert isinstance(outcome, Accepted)
    with unit_of_work():
        [stored] = mpesa.requests_of([deposit.id], [(prompt, outcome)])[deposit.id]
    time.sleep(0.3)  # the customer types the PIN
    return stored


def status_of(deposit):
    return models.Transaction.objects.get(pk=deposit.id).status


def test_a_payment_under_no_reference_of_ours_goes_into_suspense_once_and_has_an_owner(find, mpesa_simulator):
    pays_the_paybill(mpesa_simulator, 700, "school fees")

    first, second = find(), find()

    assert (first["suspense"], second["suspense"]) == (1, 0)
    orphan = models.OrphanMovement.objects.get()
    assert (orphan.provider, orphan.amount, orphan.currency, orphan.owner) == ("mpesa", 700_00, "KES", "finance")
    assert suspense("KES") == 700_00
    assert AuditLog.objects.filter(action="orphan.found", target_id=str(orphan.id)).count() == 1
    assert not verify_ledger(lambda *_: None).findings


def test_a_payment_that_the_query_alone_had_proven_gets_its_receipt_and_is_no_orphan(find, mpesa_simulator):
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    prompt = prompted(deposit)
    prompt.status = RequestStatus.DONE
    with unit_of_work():
        mpesa.save([prompt])

    told = find()

    assert told["suspense"] == told["woken"] == 0
    with unit_of_work():
        assert len(mpesa.requests_of([deposit.id])[deposit.id][0].receipt) == 10


def test_a_second_payment_under_one_reference_goes_into_suspense_with_its_transaction_named(find, mpesa_simulator):
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    prompt = prompted(deposit)
    prompt.status = RequestStatus.DONE
    with unit_of_work():
        mpesa.save([prompt])
    find()
    pays_the_paybill(mpesa_simulator, 1300, prompt.reference)

    assert find()["suspense"] == 1
    assert models.OrphanMovement.objects.get().transaction_id == deposit.id


def test_a_payment_of_a_deposit_that_had_failed_re_opens_it(find, mpesa_simulator):
    deposit = a_stored_deposit(S.FAILED)
    prompt = prompted(deposit)
    prompt.status, prompt.code = RequestStatus.CLOSED, "payment_not_received"
    with unit_of_work():
        mpesa.save([prompt])

    told = find()

    assert told["woken"] == 1
    assert status_of(deposit) in {S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.COMPLETED, S.REFUND_PENDING}
    with unit_of_work():
        [read] = transactions.get_many([deposit.id], TransactionType.DEPOSIT)
    assert read.is_paid


def test_an_agents_entry_that_is_none_of_ours_goes_into_suspense_whichever_way_it_went(find, deriv_at_simulator):
    bank = deriv_at_simulator.simulator.bank
    bank.enter(bank.accounts[AGENT], 25_00, "deposit", "Top-up", None)
    bank.enter(bank.accounts[AGENT], -5_00, "withdrawal", "Fee", None)

    assert find()["suspense"] == 2
    assert suspense("USD") == 20_00
    assert find()["suspense"] == 0


def test_a_book_that_can_not_be_read_is_told_and_read_next_time(find, mpesa_simulator, settings):
    pays_the_paybill(mpesa_simulator, 700, "school fees")
    settings.MPESA_BASE_URL = "http://127.0.0.1:9"

    assert find()["unreadable"] >= 1
    assert not models.OrphanMovement.objects.exists()
    settings.MPESA_BASE_URL = mpesa_simulator.base_url
    assert find()["suspense"] == 1


def test_what_moved_a_moment_ago_may_still_be_under_way_and_is_left_alone(find, mpesa_simulator):
    pays_the_paybill(mpesa_simulator, 700, "school fees")

    assert recovery.find_orphans()["suspense"] == 0


def test_looking_again_at_nothing_does_nothing():
    deposits.look_again([])


# --- what is posted already, what fails alone, and entries that are one too many --------------------------------------


def enters(simulator, transfer):
    """Deriv books the v3 transfer (once more): the id of the agent's entry."""
    bank = simulator.simulator.bank
    text = (
        f"Transfer from Payment Agent PenPay ({AGENT}) to {transfer.login.account}. Transaction reference: {new_id()}. "
        f"Timestamp: 25-Nov-26 04:00:00 GMT. Agent note: PP {transfer.reference}"
    )
    return str(bank.enter(bank.accounts[AGENT], -transfer.amount.amount, "withdrawal", text, None).id)


def completed(*statuses):
    """A deposit with an attempt for each status; the done one is what completed it."""
    deposit = a_stored_deposit(S.COMPLETED)
    transfers = []
    for number, status in enumerate(statuses, 1):
        transfer = deriv.new_transfer(
            deposit.id, Leg.DERIV_CREDIT, number, deposit.login, AGENT, deposit.payout, at=now()
        )
        with unit_of_work():
            deriv.record([transfer])
        transfer.status = status
        if status is RequestStatus.DONE:
            assert deposit.deriv_transfer_id is not None
            transfer.provider_transaction_id = deposit.deriv_transfer_id
        with unit_of_work():
            deriv.save([transfer])
        transfers.append(transfer)
    return deposit, transfers


def in_order():
    return not verify_ledger(lambda *_: None).findings and not list(verify_statuses())


def test_what_is_in_the_ledger_already_is_no_orphan_and_stops_nothing_after_it(
    find, mpesa_simulator, deriv_at_simulator
):
    pays_the_paybill(mpesa_simulator, 700, "school fees")
    payments = mpesa.received(SHORTCODE, now() - timedelta(hours=1), now() + timedelta(hours=1))
    assert not isinstance(payments, Unreadable)
    [payment] = payments
    bank = deriv_at_simulator.simulator.bank
    entry = bank.enter(bank.accounts[AGENT], -5_00, "withdrawal", "Fee", None)
    paid, sent = f"mpesa:{SHORTCODE}:{payment.receipt}", f"deriv:{AGENT}:{entry.id}"
    with unit_of_work():
        ledger.post_suspense_in("mpesa_working", SHORTCODE, kes(700), provider_key=paid, at=now())
        ledger.post_duplicate_sent(TransactionId(new_id()), usd(5_00), agent=AGENT, provider_key=sent, at=now())
    bank.enter(bank.accounts[AGENT], 25_00, "deposit", "Top-up", None)

    assert find()["suspense"] == 1
    assert models.OrphanMovement.objects.get().amount == 25_00


def test_an_account_that_fails_is_told_at_the_end_and_the_others_are_read(find, mpesa_simulator, deriv_at_simulator):
    pays_the_paybill(mpesa_simulator, 700, "school fees")
    bank = deriv_at_simulator.simulator.bank
    bank.enter(bank.accounts[AGENT], 25_00, "deposit", "Top-up", None)
    broken = replace(
        recovery, clock=lambda: now() + timedelta(hours=1), shortcodes=lambda: [SHORTCODE],
        mpesa=SimpleNamespace(received=mpesa.received),
    )  # fmt: skip

    with pytest.raises(RecoveryIncomplete) as failed:
        broken.find_orphans()

    assert (failed.value.told["failed"], failed.value.told["suspense"]) == (1, 1)
    assert models.OrphanMovement.objects.get().provider == "deriv"


def test_a_woken_transaction_that_fails_is_told_at_the_end_and_the_agents_are_read(
    find, mpesa_simulator, deriv_at_simulator
):
    deposit = a_stored_deposit(S.FAILED)
    prompt = prompted(deposit)
    prompt.status, prompt.code = RequestStatus.CLOSED, "payment_not_received"
    with unit_of_work():
        mpesa.save([prompt])
    bank = deriv_at_simulator.simulator.bank
    bank.enter(bank.accounts[AGENT], 25_00, "deposit", "Top-up", None)

    class Poisoned:
        def look_again(self, ids):
            if ids:
                raise StepsFailed({id: ValueError("poison") for id in ids})

    broken = replace(recovery, clock=lambda: now() + timedelta(hours=1), sagas=[Poisoned()])
    with pytest.raises(RecoveryIncomplete) as failed:
        broken.find_orphans()

    assert failed.value.told == {"woken": 1, "suspense": 1, "unreadable": failed.value.told["unreadable"], "failed": 1}


@pytest.mark.parametrize("earlier", [(RequestStatus.CLOSED,), ()])
def test_a_second_entry_of_a_completed_deposit_freezes_the_agent_and_comes_before_a_person(
    find, deriv_at_simulator, earlier
):
    deposit, transfers = completed(*earlier, RequestStatus.DONE)
    entry = enters(deriv_at_simulator, transfers[0])

    told = [find(), find()]

    assert [(t["woken"], t["suspense"], t["failed"]) for t in told] == [(1, 0, 0), (0, 0, 0)]
    assert status_of(deposit) == S.NEEDS_ATTENTION
    assert AGENT in deriv.agents.frozen()
    assert suspense("USD") == -deposit.payout.amount
    with unit_of_work():
        [first, *_] = deriv.transfers_of([deposit.id])[deposit.id]
        assert ledger.posted([f"deriv:{AGENT}:{entry}"])
    assert first.status is RequestStatus.DONE
    assert first.provider_transaction_id == (entry if earlier else deposit.deriv_transfer_id)
    assert in_order()


def test_an_entry_that_no_saga_took_for_a_day_goes_into_suspense(find, deriv_at_simulator, monkeypatch):
    deposit, [transfer] = completed(RequestStatus.DONE)
    enters(deriv_at_simulator, transfer)
    monkeypatch.setattr(type(deriv), "find", lambda self, transfer: Unreadable("down"))

    assert (find()["suspense"], status_of(deposit)) == (0, S.COMPLETED)
    assert models.Transaction.objects.get(pk=deposit.id).next_step_at is None  # nothing is left to drive
    late = replace(recovery, clock=lambda: now() + timedelta(hours=26))
    assert late.find_orphans()["suspense"] == 1
    assert models.OrphanMovement.objects.get().transaction_id == deposit.id
