"""Suspense settled by two people: matched, returned, recovered, written off; never by a word alone, never twice."""

import json
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.urls import reverse

from mpesa_integration.facade import mpesa
from payments import models
from payments.application.deposit import TakePayment
from payments.domain.orphan import Orphan, Provider
from payments.domain.reconciliation import NothingToPost, Resolution
from payments.domain.suspense import (
    ItemNotFound,
    NotProven,
    ReasonMissing,
    SagaRefuses,
    SamePerson,
    SettlementClosed,
    SettlementKind as K,
    SettlementOpen,
    WrongWay,
)
from payments.domain.transaction import TransactionStatus as S
from payments.facade import Settle, breaks, deposits, recovery, suspense, verify_statuses
from payments.infrastructure.persistence.suspense import open_items
from payments.tests.factories import AGENT, SHORTCODE, a_float, a_stored_deposit, a_stored_withdrawal, kes, usd
from payments.tests.test_breaks import a_break, somebody
from payments.tests.test_recovery import status_of, suspense as lying
from payments.tests.test_wiring import an_insert_fails
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.requests import Leg, MpesaPayment, RequestStatus
from shared_kernel.infrastructure.append_only import append_only_tables
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog
from wallet.facade import (
    customer_receivable,
    deriv_agent,
    ledger,
    mpesa_working,
    trial_balance,
    verify_ledger,
)
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)
one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")


@pytest.fixture(autouse=True)
def _float(settings):
    settings.MPESA_SHORTCODE = SHORTCODE
    a_float()


def orphan(amount, movement, *, account=None, at=None):
    """In suspense, as the hourly run puts it there; its name."""
    provider = Provider.MPESA if amount.currency == "KES" else Provider.DERIV
    at = at or now() - timedelta(hours=2)
    account = account or (SHORTCODE if provider is Provider.MPESA else AGENT)
    found = Orphan(new_id(), provider, account, movement, amount, at, now())
    with unit_of_work():
        recovery._into_suspense([found], now())
    return found.provider_key


def out(amount):
    return Money(-amount.amount, amount.currency)


def settle(name, kind, **more):
    """Mary proposes, John approves."""
    suspense.approve(propose(name, kind, **more), by="staff:john")


def propose(name, kind, **more):
    return suspense.propose(Settle(name=name, kind=kind, **{"by": "staff:mary", "why": "seen in the portal", **more}))


def prompted(deposit, status=RequestStatus.CLOSED, **over):
    """An attempt to be paid that was sent and ended like that."""
    prompt = mpesa.new_request(deposit.id, Leg.STK_PUSH, 1, deposit.phone, deposit.amount, at=now())
    with unit_of_work():
        mpesa.record([prompt])
        prompt.status = status
        for name, value in over.items():
            setattr(prompt, name, value)
        mpesa.save([prompt])
    return prompt


def losses(currency):
    return sum(row.debit - row.credit for row in trial_balance() if (row.kind, row.currency) == ("losses", currency))


def in_order():
    return not verify_ledger(lambda *_: None).findings and not list(verify_statuses())


def names():
    return [item.name for item in suspense.page()]


# --- matched ----------------------------------------------------------------------------------------------------------


def test_an_orphan_that_was_a_failed_deposits_payment_re_opens_it_as_late_proof_does():
    deposit = a_stored_deposit(S.FAILED)
    prompt = prompted(deposit)
    name = orphan(deposit.amount, "SKX0000001")

    settle(name, K.MATCHED, transaction=deposit.id)

    assert status_of(deposit) in {S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT}
    assert lying("KES") == 0
    with unit_of_work():
        [read] = mpesa.requests_of([deposit.id])[deposit.id]
        assert ledger.balance(mpesa_working(SHORTCODE)) == deposit.amount
    assert (read.id, read.status, read.receipt) == (prompt.id, RequestStatus.DONE, "SKX0000001")
    assert models.OrphanMovement.objects.get().settled_at is not None
    assert names() == []
    assert in_order()


def test_a_matched_payment_of_another_amount_goes_before_a_person_and_its_difference_back_into_suspense():
    deposit = a_stored_deposit(S.FAILED)
    prompted(deposit)

    settle(orphan(kes(1500), "SKX0000001"), K.MATCHED, transaction=deposit.id)

    assert status_of(deposit) == S.NEEDS_ATTENTION
    assert lying("KES") == 200_00
    assert names() == [f"{deposit.id}:deposit_excess:difference"]
    assert in_order()


def test_a_debit_that_deriv_shows_without_our_reference_re_opens_its_withdrawal():
    withdrawal = a_stored_withdrawal(S.FAILED)
    from deriv_integration.facade import deriv

    with unit_of_work():
        [debit] = deriv.transfers_of([withdrawal.id])[withdrawal.id]
        debit.status = RequestStatus.CLOSED
        deriv.save([debit])
    name = orphan(withdrawal.amount, "9001")

    settle(name, K.MATCHED, transaction=withdrawal.id)

    assert models.Transaction.objects.get(pk=withdrawal.id).status == S.CREDIT_BACK_PENDING  # it had ended
    assert lying("USD") == 0
    assert in_order()


@pytest.mark.parametrize("case", ["paid", "open", "unasked", "unknown", "other paybill", "other currency", "nobody"])
def test_what_a_saga_cannot_take_is_refused_and_nothing_moves(case):
    status = {"paid": S.MPESA_CONFIRMED, "open": S.AWAITING_MPESA, "unasked": S.EXPIRED}.get(case, S.FAILED)
    deposit = a_stored_deposit(status)
    if case != "unasked":
        prompted(deposit, RequestStatus.ACCEPTED if case == "open" else RequestStatus.CLOSED)
    account = "600000" if case == "other paybill" else None
    name = orphan(usd(10_00) if case == "other currency" else deposit.amount, "SKX0000001", account=account)
    before = lying("KES"), lying("USD")
    id = {"unknown": new_id(), "nobody": None}.get(case, deposit.id)

    with pytest.raises(Exception) as refused:  # noqa: PT011 - which one, is said below
        propose(name, K.MATCHED, transaction=id)

    assert type(refused.value).__name__ == ("TransactionNotFound" if case == "unknown" else "SagaRefuses")
    assert (lying("KES"), lying("USD")) == before
    assert status_of(deposit) == status
    assert not models.SuspenseSettlement.objects.exists()


def test_a_transaction_that_was_paid_between_proposal_and_approval_is_refused_at_the_approval():
    deposit = a_stored_deposit(S.FAILED)
    prompt = prompted(deposit)
    name = orphan(deposit.amount, "SKX0000001")
    id = propose(name, K.MATCHED, transaction=deposit.id)
    with unit_of_work():
        [read] = deposits.whole([deposit.id])
        TakePayment(ledger, deposits.audit).take(read, read.payments[0], [], at=now())
        deposits.save([read], ())

    with pytest.raises(SagaRefuses):
        suspense.approve(id, by="staff:john")

    assert lying("KES") == deposit.amount.amount
    assert names() == [name]
    assert prompt.id


def test_a_known_customers_excess_is_never_matched_to_another_ones_transaction():
    """Whose money it is, is known: only that customer's own Transactions may take it."""
    payer = a_stored_deposit(S.FAILED)
    prompt = prompted(payer)
    with unit_of_work():
        [read] = deposits.whole([payer.id])
        paid = [MpesaPayment(f"SKX000000{n}", prompt.reference, payer.amount, now()) for n in (1, 2)]
        TakePayment(ledger, deposits.audit).take(read, read.payments[0], paid, at=now())
        deposits.save([read], ())
    [item] = suspense.page()
    other = a_stored_deposit(S.FAILED)
    prompted(other)
    assert other.user_id != payer.user_id

    with pytest.raises(SagaRefuses, match="another customer"):
        propose(item.name, K.MATCHED, transaction=other.id)

    own = a_stored_deposit(S.FAILED, user_id=payer.user_id)
    prompted(own)
    settle(item.name, K.MATCHED, transaction=own.id)
    assert lying("KES") == 0


# --- returned, recovered ----------------------------------------------------------------------------------------------


def test_money_is_returned_by_the_opposite_movement_that_a_run_found_and_the_two_settle_each_other():
    name = orphan(usd(25_00), "9001")
    back = orphan(out(usd(25_00)), "9002", at=now() - timedelta(hours=1))

    settle(name, K.RETURNED, movement="9002")

    assert lying("USD") == 0
    assert names() == []
    assert not models.OrphanMovement.objects.filter(settled_at=None).exists()
    assert AuditLog.objects.filter(target_type="orphan", action="orphan.settled").count() == 2
    for one in (name, back):
        with pytest.raises(ItemNotFound):
            propose(one, K.RETURNED if one == name else K.WRITTEN_OFF, movement="9002")
    assert in_order()


def test_money_is_returned_by_a_break_which_is_posted_and_closed_with_it():
    name = orphan(usd(25_00), "9001")
    row = a_break(known_as="9002", movement="9002", theirs=-25_00)

    settle(name, K.RETURNED, movement="9002")

    row.refresh_from_db()
    assert (row.status, row.provider_key) == ("matched", f"deriv:{AGENT}:9002")
    assert lying("USD") == 0
    with unit_of_work():
        assert ledger.balance(deriv_agent(AGENT)) == usd(100_000_00)
        assert ledger.posted([f"deriv:{AGENT}:9002"])
    assert in_order()


def test_a_reversal_in_the_portal_returns_just_the_payment_that_it_takes_back():
    ours, other = orphan(kes(700), "SKX0000001"), orphan(kes(700), "SKX0000002")
    row = a_break(
        kind="reverted", provider="mpesa", account=SHORTCODE, sub_account="mpesa_working", movement="SKX0000009",
        known_as="SKX0000001:reverted", theirs=-700_00, ours=None, currency="KES", provider_key=ours,
    )  # fmt: skip

    with pytest.raises(NotProven, match="another payment"):
        propose(other, K.RETURNED, movement="SKX0000009")
    settle(ours, K.RETURNED, movement="SKX0000009")

    row.refresh_from_db()
    assert (row.status, row.provider_key) == ("matched", f"mpesa:{SHORTCODE}:SKX0000009")
    assert lying("KES") == 700_00
    assert names() == [other]


def test_a_second_payment_under_one_reference_lies_there_by_its_receipt_and_can_be_returned():
    deposit = a_stored_deposit(S.FAILED)
    prompt = prompted(deposit)
    with unit_of_work():
        [read] = deposits.whole([deposit.id])
        paid = [MpesaPayment(f"SKX000000{n}", prompt.reference, deposit.amount, now()) for n in (1, 2)]
        TakePayment(ledger, deposits.audit).take(read, read.payments[0], paid, at=now())
        deposits.save([read], ())
    [item] = suspense.page()
    assert (item.movement, item.transaction, item.amount) == ("SKX0000002", deposit.id, deposit.amount)
    a_break(
        kind="reverted", provider="mpesa", account=SHORTCODE, sub_account="mpesa_working", movement="SKX0000009",
        known_as="SKX0000002:reverted", theirs=-deposit.amount.amount, currency="KES",
        provider_key=f"mpesa:{SHORTCODE}:SKX0000002",
    )  # fmt: skip

    settle(item.name, K.RETURNED, movement="SKX0000009")

    assert (lying("KES"), names()) == (0, [])
    assert in_order()


@pytest.mark.parametrize("proof", ["nothing", "another amount", "earlier", "an attempt's", "already taken"])
def test_a_persons_word_returns_nothing(proof):
    name = orphan(usd(25_00), "9001")
    match proof:
        case "another amount":
            orphan(out(usd(24_00)), "9002")
        case "earlier":
            orphan(out(usd(25_00)), "9002", at=now() - timedelta(days=1))
        case "an attempt's":
            deposit = a_stored_deposit(S.MPESA_CONFIRMED)
            from deriv_integration.facade import deriv

            sent = deriv.new_transfer(deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, AGENT, usd(25_00), at=now())
            with unit_of_work():
                deriv.record([sent])
            a_break(known_as="9002", movement="9002", theirs=-25_00)
        case "already taken":
            orphan(out(usd(25_00)), "9002")
            settle(orphan(usd(25_00), "9000"), K.RETURNED, movement="9002")
    before = lying("USD")

    with pytest.raises((NotProven, NothingToPost)):
        propose(name, K.RETURNED, movement="9002")
    with pytest.raises(NotProven):
        propose(name, K.RETURNED)

    assert lying("USD") == before
    assert name in names()


def test_a_returned_difference_that_m_pesa_takes_back_with_the_whole_payment_is_owed_by_the_customer():
    deposit = a_stored_deposit(S.FAILED)
    prompted(deposit)
    settle(orphan(kes(1500), "SKX0000001"), K.MATCHED, transaction=deposit.id)
    settle(f"{deposit.id}:deposit_excess:difference", K.RETURNED, movement=returned(200))

    deposits.payment_reversed(deposit.id, "SKX0000001", kes(1500))

    assert status_of(deposit) == S.NEEDS_ATTENTION
    assert lying("KES") == 0
    with unit_of_work():
        owed = ledger.balance(customer_receivable(deposit.user_id, Currency.KES))
        assert ledger.balance(mpesa_working(SHORTCODE)) == kes(-200)
    assert owed == kes(200)
    assert in_order()


def returned(shillings):
    """The portal paid as much to somebody, as the statement shows."""
    row = a_break(
        provider="mpesa", account=SHORTCODE, sub_account="mpesa_working", movement="SKX0000008", known_as="SKX0000008",
        theirs=-shillings * 100, currency="KES", at=now() + timedelta(seconds=1),
    )  # fmt: skip
    return row.movement


def test_of_movements_with_one_receipt_in_both_our_books_the_one_that_fits_is_the_proof(settings):
    settings.MPESA_B2C_SHORTCODE = "600992"
    orphan(kes(500), "SKX0000050", account="600992")  # the other side of the same transfer
    came = orphan(kes(500), "SKX0000051")
    left = orphan(out(kes(500)), "SKX0000050")

    settle(came, K.RETURNED, movement="SKX0000050")

    assert models.SuspenseSettlement.objects.get().proof == left
    assert names() == ["mpesa:600992:SKX0000050"]
    assert in_order()


def test_an_outflow_is_recovered_by_the_movement_that_brought_it_back():
    name = orphan(out(usd(5_00)), "9001")
    a_break(known_as="9002", movement="9002", theirs=5_00)

    settle(name, K.RECOVERED, movement="9002")

    assert (lying("USD"), losses("USD"), names()) == (0, 0, [])
    with unit_of_work():
        assert ledger.balance(deriv_agent(AGENT)) == usd(100_000_00)


def test_an_outflow_is_written_off_by_two_people():
    name = orphan(out(usd(5_00)), "9001")

    settle(name, K.WRITTEN_OFF)

    assert (lying("USD"), losses("USD"), names()) == (0, 5_00, [])
    assert in_order()
    with pytest.raises(ItemNotFound):
        propose(name, K.WRITTEN_OFF)


@pytest.mark.parametrize(("amount", "kinds"), [(5_00, [K.RECOVERED, K.WRITTEN_OFF]), (-5_00, [K.MATCHED, K.RETURNED])])
def test_each_way_has_its_own_settlements(amount, kinds):
    name = orphan(usd(amount), "9001")

    for kind in kinds:
        with pytest.raises(WrongWay):
            propose(name, kind, movement="9002", transaction=new_id())


def test_a_double_booking_at_deriv_can_be_written_off_with_its_transaction_named():
    deposit = a_stored_deposit(S.COMPLETED)
    with unit_of_work():
        ledger.post_duplicate_sent(deposit.id, usd(9_85), agent=AGENT, provider_key=f"deriv:{AGENT}:9001", at=now())
    [item] = suspense.page()

    settle(item.name, K.WRITTEN_OFF)

    assert (item.transaction, losses("USD"), names()) == (deposit.id, 9_85, [])


def test_a_difference_beside_a_payment_that_is_only_claimed_waits_for_its_proof():
    withdrawal = a_stored_withdrawal(S.RATE_LOCKED)
    payout = mpesa.new_request(withdrawal.id, Leg.B2C_PAYOUT, 1, withdrawal.phone, withdrawal.payout, at=now())
    with unit_of_work():
        mpesa.record([payout])
        payout.status = RequestStatus.DONE
        mpesa.save([payout])
        paid = Money(withdrawal.payout.amount + 70_00, withdrawal.payout.currency)
        ledger.post_difference(withdrawal.id, withdrawal.user_id, due=withdrawal.payout, paid=paid, at=now())
    [item] = suspense.page()

    with pytest.raises(SagaRefuses, match="not confirmed"):
        propose(item.name, K.WRITTEN_OFF)
    payout.code = "confirmed"
    with unit_of_work():
        mpesa.save([payout])
    settle(item.name, K.WRITTEN_OFF)

    assert losses("KES") == 70_00


@one_writer
@pytest.mark.parametrize("condition", ["1 = 1", "e.seq > 0", f"e.provider_key IN ('deriv:{AGENT}:9001')"])
def test_whether_an_item_was_settled_is_looked_up_by_its_reference_and_reads_no_ledger(condition):
    for n in range(40):
        name = orphan(out(usd(5_00)), f"90{n:02}")
        if n % 2:
            settle(name, K.WRITTEN_OFF)

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {open_items(condition)} ORDER BY i.seq LIMIT 100")
        columns = [column[0] for column in cursor.description]
        plan = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]

    read = {row["table"]: (row["type"], row["key"]) for row in plan}
    assert {read[f"d{n}"] for n in range(4)} == {("eq_ref", "ledger_entry_reference")}
    assert {read[f"u{n}"] for n in range(4)} == {("eq_ref", "ledger_entry_reverses")}
    assert len(suspense.page()) == 20


# --- a loss that came back --------------------------------------------------------------------------------------------


def written_off(cents=25_00, movement="9001", **more):
    """An outflow that was written off; its name."""
    name = orphan(out(usd(cents)), movement, **more)
    settle(name, K.WRITTEN_OFF)
    return name


def test_what_was_written_off_and_came_back_is_no_loss_any_more():
    lost = written_off()
    back = orphan(usd(25_00), "9100", at=now())

    id = propose(back, K.LOSS_RECOVERED, lost=lost)
    assert losses("USD") == 25_00
    with pytest.raises(SamePerson):
        suspense.approve(id, by="staff:mary")
    suspense.approve(id, by="staff:john")

    assert (losses("USD"), lying("USD"), names()) == (0, 0, [])
    assert in_order()
    assert not models.OrphanMovement.objects.filter(settled_at=None).exists()
    told = AuditLog.objects.filter(action="suspense.settlement_approved").order_by("-seq").first()
    assert told.details["lost"] == lost
    again = orphan(usd(25_00), "9101", at=now())
    with pytest.raises(SettlementOpen):
        propose(again, K.LOSS_RECOVERED, lost=lost)


@pytest.mark.parametrize(
    "case", ["nothing named", "unknown", "still there", "recovered", "another amount", "earlier", "an excess"]
)
def test_only_a_loss_that_is_named_and_was_written_off_by_just_that_amount_is_recovered(case):
    amount = usd(24_00) if case == "another amount" else usd(25_00)
    lost = f"deriv:{AGENT}:9001"
    match case:
        case "still there":
            orphan(out(usd(25_00)), "9001")
        case "recovered":
            a_break(known_as="9002", movement="9002", theirs=25_00)
            settle(orphan(out(usd(25_00)), "9001"), K.RECOVERED, movement="9002")
        case "nothing named":
            lost = ""
        case "another amount" | "earlier":
            written_off()
    name = orphan(amount, "9100", at=now() - timedelta(days=1) if case == "earlier" else now())
    if case == "an excess":
        lost = written_off()
        deposit = a_stored_deposit(S.FAILED)
        prompted(deposit)
        settle(orphan(kes(1500), "SKX0000001"), K.MATCHED, transaction=deposit.id)
        name = f"{deposit.id}:deposit_excess:difference"
    before = losses("USD")

    with pytest.raises(NotProven):
        propose(name, K.LOSS_RECOVERED, lost=lost)

    assert losses("USD") == before
    assert name in names()


def test_what_left_is_no_recovered_loss():
    lost = written_off()
    with pytest.raises(WrongWay):
        propose(orphan(out(usd(25_00)), "9100"), K.LOSS_RECOVERED, lost=lost)


def test_money_taken_back_after_its_payment_left_suspense_is_posted_there_and_recovers_the_loss():
    lost = written_off()
    row = a_break(kind="reverted", known_as="9001:reverted", movement="9100", theirs=25_00, provider_key=lost)

    breaks.resolve(row.id, Resolution.INTO_SUSPENSE, by="staff:mary", why="it came back after all")
    breaks.approve(row.id, by="staff:john")

    with unit_of_work():
        assert ledger.balance(deriv_agent(AGENT)) == usd(100_000_00)  # as Deriv has it
    assert names() == [f"deriv:{AGENT}:9100"]
    settle(f"deriv:{AGENT}:9100", K.LOSS_RECOVERED, lost=lost)
    assert (losses("USD"), lying("USD")) == (0, 0)
    assert in_order()


@pytest.mark.parametrize("case", ["lies there", "never there", "a Transaction's"])
def test_money_taken_back_that_suspense_or_a_saga_settles_is_not_posted_beside_it(case):
    name = orphan(usd(25_00), "9001") if case == "lies there" else f"deriv:{AGENT}:9001"
    of = a_stored_deposit(S.COMPLETED).id if case == "a Transaction's" else None
    if of:
        written_off()
    row = a_break(
        kind="reverted", known_as="9001:reverted", movement="9100", theirs=-25_00, provider_key=name, transaction_id=of
    )

    with pytest.raises(NothingToPost):
        breaks.resolve(row.id, Resolution.INTO_SUSPENSE, by="staff:mary", why="it went back")


# --- two people, once -------------------------------------------------------------------------------------------------


def test_who_proposes_cannot_approve_and_each_step_has_an_audit_row():
    name = orphan(out(usd(5_00)), "9001")
    id = propose(name, K.WRITTEN_OFF)

    for same in ("staff:mary", ""):
        with pytest.raises(SamePerson):
            suspense.approve(id, by=same)
    assert lying("USD") == -5_00
    with pytest.raises(SettlementOpen):
        propose(name, K.WRITTEN_OFF)
    suspense.reject(id, by="staff:john", why="ask Deriv first")
    with pytest.raises(SettlementClosed):
        suspense.approve(id, by="staff:john")
    again = propose(name, K.WRITTEN_OFF)
    suspense.approve(again, by="staff:john")
    with pytest.raises(SettlementClosed):
        suspense.approve(again, by="staff:john")
    with pytest.raises(ReasonMissing):
        propose(name, K.WRITTEN_OFF, why=" ")

    assert losses("USD") == 5_00
    told = AuditLog.objects.filter(target_type="suspense_settlement").order_by("seq").values_list("action", flat=True)
    assert [action.removeprefix("suspense.settlement_") for action in told] == [
        "proposed", "rejected", "proposed", "approved",
    ]  # fmt: skip


def a_row(**over):
    given = {
        "id": new_id(), "item": "deriv:x:1", "kind": "written_off", "amount": -5_00, "currency": "USD", "by": "a",
        "why": "b", "at": now(), "status": "proposed",
    } | over  # fmt: skip
    return models.SuspenseSettlement.objects.create(**given)


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "approved", "decided_by": "a"},
        {"status": "approved"},
        {"by": ""},
        {"why": ""},
        {"kind": "returned"},
        {"kind": "recovered", "movement": "9002"},
        {"kind": "matched"},
        {"kind": "loss_recovered", "amount": 5_00},
    ],
)
def test_the_database_itself_refuses_one_person_no_reason_no_proof(wrong):
    with pytest.raises(IntegrityError), transaction.atomic():
        a_row(**wrong)


@pytest.mark.parametrize(
    "changed",
    [
        {"by": "staff:somebody"}, {"item": "deriv:x:2"}, {"kind": "returned", "movement": "9", "proof": "deriv:x:9"},
        {"amount": 1}, {"why": "another reason"}, {"transaction_id": new_id()},
    ],
)  # fmt: skip
def test_what_was_proposed_never_changes_and_is_never_deleted(changed):
    row = a_row()

    with pytest.raises(DatabaseError), transaction.atomic():
        models.SuspenseSettlement.objects.filter(pk=row.pk).update(**changed)
    with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM suspense_settlements")


def test_every_column_of_a_settlement_is_fixed_or_tells_what_was_decided():
    """A column that is added must be put on one side or the other."""
    columns = {field.column for field in models.SuspenseSettlement._meta.concrete_fields}

    assert columns - set(append_only_tables()["suspense_settlements"]) == {
        "id", "item", "kind", "amount", "currency", "transaction_id", "movement", "proof", "by", "why", "at",
    }  # fmt: skip


def test_the_database_itself_refuses_a_name_in_two_settlements():
    models.SuspenseClaim.objects.create(name="deriv:x:1", settlement=a_row())

    with pytest.raises(IntegrityError), transaction.atomic():
        models.SuspenseClaim.objects.create(name="deriv:x:1", settlement=a_row())


@one_writer
def test_of_two_people_who_approve_at_once_one_posts():
    name = orphan(out(usd(5_00)), "9001")
    id = propose(name, K.WRITTEN_OFF)

    def approve(who):
        try:
            suspense.approve(id, by=who)
        except SettlementClosed:
            return "closed"
        return "posted"

    done = at_once(lambda: approve("staff:john"), lambda: approve("staff:anne"))

    assert sorted(done) == ["closed", "posted"]
    assert losses("USD") == 5_00


@one_writer
def test_two_items_that_would_prove_each_other_are_settled_once():
    came, left = orphan(usd(25_00), "9001"), orphan(out(usd(25_00)), "9002")

    def go(name, kind, movement):
        try:
            settle(name, kind, movement=movement)
        except (SettlementOpen, ItemNotFound, NotProven):
            return "refused"
        return "settled"

    done = at_once(lambda: go(came, K.RETURNED, "9002"), lambda: go(left, K.RECOVERED, "9001"))

    assert sorted(done) == ["refused", "settled"]
    assert models.SuspenseSettlement.objects.filter(status="approved").count() == 1


# --- in the back-office, and for ops ----------------------------------------------------------------------------------


def test_two_people_of_finance_settle_it_on_pages_of_their_own():
    name = orphan(out(usd(5_00)), "9001")
    who = "view_suspensesettlement", "propose_suspensesettlement", "approve_suspensesettlement", "view_orphanmovement"
    one, other, reader = somebody("one", *who), somebody("other", *who), somebody("reader", who[0], who[-1])
    orphans = reverse("admin:payments_orphanmovement_changelist")
    propose_page = f"{reverse('admin:payments_suspensesettlement_propose')}?name={name}"

    lists = reader.get(reverse("admin:payments_suspensesettlement_lying")).content.decode()
    assert name in lists
    assert "0-1 days" in lists
    assert "finance" in lists
    assert "propose/?name=deriv" in one.get(orphans).content.decode()
    assert reader.get(propose_page).status_code == 403
    assert reader.post(propose_page, {"kind": "written_off", "why": "so"}).status_code == 403
    assert one.get(f"{propose_page}9").status_code == 404
    assert b"written off" in one.get(propose_page).content
    refused = one.post(propose_page, {"kind": "recovered", "why": "it came", "movement": "9002"})
    assert b"no book that was read shows 9002" in refused.content
    done = one.post(propose_page, {"kind": "written_off", "why": "nobody has it"})
    assert done.status_code == 302
    row = models.SuspenseSettlement.objects.get()
    decide = reverse("admin:payments_suspensesettlement_decide", args=[row.id])
    assert decide in one.get(done["Location"]).content.decode()
    assert reader.post(decide, {"decision": "approve"}).status_code == 403
    assert b"somebody else has to approve" in one.post(decide, {"decision": "approve"}).content
    assert losses("USD") == 0
    assert other.post(decide, {"decision": "approve"}).status_code == 302

    row.refresh_from_db()
    assert (row.status, losses("USD")) == ("approved", 5_00)
    actors = AuditLog.objects.filter(target_type="suspense_settlement").values_list("actor", flat=True)
    assert set(actors) == {row.by, row.decided_by}
    assert "propose/?name" not in one.get(orphans).content.decode()


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one user does everything there")
def test_a_match_is_shown_as_done_where_its_transaction_fails_at_its_next_step():
    """The decision is stored: the Transaction goes on by the sweeper, and nobody is asked to decide again."""
    deposit = a_stored_deposit(S.FAILED)
    prompted(deposit)
    id = propose(orphan(deposit.amount, "SKX0000001"), K.MATCHED, transaction=deposit.id)
    other = somebody("other", "view_suspensesettlement", "approve_suspensesettlement")
    decide = reverse("admin:payments_suspensesettlement_decide", args=[id])

    with an_insert_fails("deriv_transfers"):
        answer = other.post(decide, {"decision": "approve"}, follow=True)

    assert answer.status_code == 200
    assert b"goes on by itself" in answer.content
    assert models.SuspenseSettlement.objects.get().status == "approved"
    assert status_of(deposit) in {S.MPESA_CONFIRMED, S.NEEDS_ATTENTION}
    assert (lying("KES"), names()) == (0, [])
    assert in_order()


def test_the_command_lists_what_lies_there_with_its_age_and_owner(capsys):
    deposit = a_stored_deposit(S.MPESA_CONFIRMED)
    code, empty = listed(capsys)
    assert (code, empty["items"]) == (0, [])
    name = orphan(usd(25_00), "9001")
    with unit_of_work():
        ledger.post_duplicate_sent(deposit.id, usd(9_85), agent=AGENT, provider_key=f"deriv:{AGENT}:9002", at=now())
    id = propose(name, K.RETURNED, movement="9003") if a_break(movement="9003", theirs=-25_00) else None

    code, told = listed(capsys)

    assert code == 1
    assert [(i["as"], i["amount"], i["owner"], i["age"]) for i in told["items"]] == [
        ("suspense_in", "25.00", "finance", "0-1 days"),
        ("duplicate_sent", "-9.85", "finance", "0-1 days"),
    ]
    assert [i["settlement"] for i in told["items"]] == [str(id), None]
    assert told["items"][1]["transaction"] == str(deposit.id)
    assert (told["sums"], told["complete"]) == ({"USD": "15.15"}, True)
    with pytest.raises(SystemExit):
        call_command("suspense", "list")
    assert "25.00 USD" in capsys.readouterr().out


def listed(capsys):
    """The exit code, and the one object on standard output."""
    capsys.readouterr()
    try:
        call_command("suspense", "list", "--json")
    except SystemExit as ended:
        return ended.code, json.loads(capsys.readouterr().out)
    return 0, json.loads(capsys.readouterr().out)
