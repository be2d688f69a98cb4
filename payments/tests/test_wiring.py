"""The saga as the facade assembles it, on the real database and the simulators' wires: promises 6 and 7 of money."""

import time
from contextlib import contextmanager
from dataclasses import replace

import pytest
from django.apps import apps
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from deriv_integration.facade import deriv
from identity.tests.factories import a_customer
from mpesa_integration.facade import mpesa
from payments import models
from payments.application.deposit import CreateDeposit
from payments.domain.transaction import TransactionStatus as S
from payments.facade import deposits, first_answer, timing, verify_statuses, withdrawals
from payments.tests.factories import a_float, a_quote, a_stored_deposit
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.events import MpesaCallbackReceived
from shared_kernel.domain.identifiers import IdempotencyKey, QuoteId, RequestId, TransactionId
from shared_kernel.domain.outcome import Refused
from shared_kernel.domain.requests import Leg
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog, DomainEvent, IdempotencyKey as KeyRow
from shared_kernel.tests.users import by_owner
from wallet.facade import ledger, mpesa_working, snapshot, verify_ledger
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)
DerivTransfer, MpesaRequest, LedgerEntry = map(
    apps.get_model, ("deriv_integration.DerivTransfer", "mpesa_integration.MpesaRequest", "wallet.LedgerEntry")
)
one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")


class Watched:
    """Makes calls one by one, after `look` has seen the world as it is at that moment."""

    def __init__(self, look):
        self.look, self.calls = look, []

    def map(self, call, items):
        for item in items:
            self.calls.append(type(item.step).__name__)
            self.look(item)
        return [call(item) for item in items]


@pytest.fixture
def saga(mpesa_simulator, deriv_at_simulator):
    """Every wait is a thousandth."""
    a_float()
    return replace(deposits, timing=replace(timing, scale=0.001))


@pytest.fixture
def books(mpesa_simulator, deriv_simulator):
    """What the two providers believe moved, in cents."""

    def read():
        paid = [round(float(movement["amount"]) * 100) for movement in mpesa_simulator.books.movements]
        return paid, deriv_simulator.received()

    return read


def row(deposit):
    return models.Transaction.objects.get(pk=deposit.id)


def bring(saga, deposit, *statuses, within_s=10.0):
    """As the sweeper does it, until one of these statuses is reached."""
    until = time.monotonic() + within_s
    while row(deposit).status not in statuses:
        assert time.monotonic() < until, row(deposit).status
        saga.drive([deposit.id])
        time.sleep(0.01)


def to_the_payment(saga, deposit, mpesa_simulator):
    """The prompt is out and the customer has paid; nothing is known of it here."""
    saga.drive([deposit.id])
    until = time.monotonic() + 5
    while not mpesa_simulator.books.movements:
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.03)  # its timer
    assert row(deposit).status == S.AWAITING_MPESA


def written(id):
    """What the steps of one deposit have left in all tables, but for when it is looked at again."""
    return {
        "status": models.Transaction.objects.values_list("status", "confirmed_at", "deriv_transfer_id").get(pk=id),
        "entries": list(LedgerEntry.objects.filter(transaction_id=id).values_list("seq", flat=True)),
        "events": list(DomainEvent.objects.filter(aggregate_id=id).values_list("seq", flat=True)),
        "audit": list(AuditLog.objects.filter(target_id=str(id)).values_list("seq", flat=True)),
        "prompts": list(MpesaRequest.objects.filter(transaction_id=id).values_list("status", "receipt", "asked_at")),
        "transfers": list(DerivTransfer.objects.filter(transaction_id=id).values_list("status", "code")),
        "reserved": models.FloatReservation.objects.filter(pk=id, released_at=None).count(),
    }


@contextmanager
def an_insert_fails(table, when="1 = 1"):
    """Each INSERT into `table` that meets the condition is refused by the database."""
    if connection.vendor == "mysql":
        refuse = f"FOR EACH ROW IF {when} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'planted'; END IF"
    else:
        refuse = f"WHEN {when} BEGIN SELECT RAISE(ABORT, 'planted'); END"
    by_owner(f"CREATE TRIGGER planted BEFORE INSERT ON {table} {refuse}")
    try:
        yield
    finally:
        by_owner("DROP TRIGGER planted")


# --- the way it should go ---------------------------------------------------------------------------------------------


def test_a_deposit_completes_over_real_wires_and_all_three_books_agree(saga, books):
    deposit = a_stored_deposit()

    bring(saga, deposit, S.COMPLETED)

    assert books() == ([130000], [985])
    assert [entry.purpose for entry in LedgerEntry.objects.filter(transaction_id=deposit.id)].count("deposit_sent") > 1
    with snapshot():
        assert verify_ledger().findings == []
        assert list(verify_statuses()) == []


# --- promise 7: nothing of the database is open while a provider is called ------------------------------------------


@one_writer
def test_when_a_provider_is_called_no_transaction_is_open_and_the_intent_is_there_for_all_to_see(saga):
    def look(call):
        assert not connection.in_atomic_block
        request = call.request
        if hasattr(request, "send_before"):
            kind = MpesaRequest if hasattr(request, "phone") else DerivTransfer
            rows = kind.objects.filter(pk=request.id)
            [seen] = at_once(lambda: list(rows.values_list("status", "transaction_id")))
            assert seen == [("sending", call.aggregate_id)]
            waiting = models.Transaction.objects.filter(pk=call.aggregate_id).select_for_update(nowait=True)
            assert at_once(lambda: locked(waiting)) == [1]  # nobody holds it

    def locked(query):
        with unit_of_work():
            return len(query)

    watched = Watched(look)
    deposit = a_stored_deposit(login_checked_at=None)

    bring(replace(saga, side_by_side=watched), deposit, S.COMPLETED)

    assert list(dict.fromkeys(watched.calls)) == ["CheckLogin", "AskForPayment", "ConfirmPayment", "SendCredit"]


def a_prompt(deposit):
    request = mpesa.new_request(deposit.id, Leg.STK_PUSH, 1, deposit.phone, deposit.amount, at=now())
    request.checkout_request_id = "ws_CO_1"
    return request


def a_transfer(deposit):
    return deriv.new_transfer(deposit.id, Leg.DERIV_CREDIT, 1, deposit.login, deposit.agent, deposit.payout, at=now())


CALLS = {
    "push": lambda deposit: mpesa.send(a_prompt(deposit), give_up_at=time.monotonic() + 60),
    "query": lambda deposit: mpesa.query(a_prompt(deposit)),
    "pull": lambda deposit: mpesa.payments(a_prompt(deposit)),
    "check_login": lambda deposit: deriv.check_login(deposit.login, deposit.agent, deposit.payout),
    "transfer": lambda deposit: deriv.send(a_transfer(deposit), give_up_at=time.monotonic() + 60),
    "find": lambda deposit: deriv.find(a_transfer(deposit)),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_provider_refuses_to_be_called_inside_a_transaction(saga, books, call):
    deposit = a_stored_deposit()

    with pytest.raises(RuntimeError), unit_of_work():
        CALLS[call](deposit)

    assert books() == ([], [])


def test_a_unit_of_work_is_never_opened_inside_another():
    with pytest.raises(RuntimeError), unit_of_work(), unit_of_work():
        pass


# --- who follows an event ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leg", "follows"),
    [
        ("stk_push", {deposits.type}),
        ("reversal", {deposits.type}),
        ("b2c_refund", {deposits.type}),
        ("b2c_payout", {withdrawals.type}),
        ("status_query", {deposits.type, withdrawals.type}),
        ("", {deposits.type, withdrawals.type}),
    ],
)
def test_a_callback_is_read_for_by_the_saga_whose_leg_it_is_of(django_assert_num_queries, leg, follows):
    event = MpesaCallbackReceived(
        transaction_id=TransactionId(new_id()), request_id=RequestId(new_id()), leg=leg, occurred_at=now()
    )

    for saga in (deposits, withdrawals):
        if saga.type in follows:
            with CaptureQueriesContext(connection) as asked:
                saga.advance([event])
            assert any("transactions" in query["sql"] for query in asked)
        else:
            with django_assert_num_queries(0):
                saga.advance([event])


def test_every_leg_at_mpesa_has_a_saga_that_follows_it():
    others = {Leg.DERIV_CREDIT, Leg.DERIV_DEBIT, Leg.DERIV_CREDIT_BACK, Leg.STATUS_QUERY, Leg.ACCOUNT_BALANCE}

    assert deposits.payments | withdrawals.payments == set(Leg) - others


# --- promise 6: a step's state, event, entries and audit row commit together ------------------------------------------


@pytest.mark.parametrize(
    "table", ["transactions", "domain_events", "audit_logs", "float_reservations", "float_accounts", "idempotency_keys"]
)
def test_of_a_command_whose_row_can_not_be_written_nothing_is_left(saga, table):
    customer = a_customer()
    quote = a_quote(customer.id)
    command = CreateDeposit(
        TransactionId(new_id()), customer.id, QuoteId(quote.id), IdempotencyKey("test", str(new_id())), now()
    )

    with an_insert_fails(table), pytest.raises(DatabaseError):
        saga.create(command, first_answer)

    assert not models.Transaction.objects.exists()
    assert not models.FloatReservation.objects.exists()
    assert not KeyRow.objects.exists()
    assert not DomainEvent.objects.exists()
    assert not AuditLog.objects.filter(target_type="transaction").exists()
    quote.refresh_from_db()
    assert quote.transaction_id is None
    saga.create(command, first_answer)  # the same command, once the database takes it
    assert models.Transaction.objects.get().pk == command.id


@pytest.mark.parametrize("table", ["ledger_entries", "audit_logs", "deriv_transfers", "ledger_balances"])
def test_of_a_payment_s_proof_that_can_not_be_written_nothing_is_left_and_nothing_is_sent(
    saga, books, mpesa_simulator, table
):
    deposit = a_stored_deposit()
    to_the_payment(saga, deposit, mpesa_simulator)
    before = written(deposit.id)

    with an_insert_fails(table), pytest.raises(StepsFailed):
        saga.drive([deposit.id])

    assert written(deposit.id) == before
    assert books() == ([130000], [])
    bring(saga, deposit, S.COMPLETED)
    assert books() == ([130000], [985])


def test_a_payment_that_is_in_the_ledger_already_is_not_posted_again_and_nothing_of_the_step_is_left(
    saga, books, mpesa_simulator
):
    deposit = a_stored_deposit()
    to_the_payment(saga, deposit, mpesa_simulator)
    request = MpesaRequest.objects.get(transaction_id=deposit.id)
    key = f"mpesa:{request.shortcode}:{RequestId(request.id)}"
    with unit_of_work():
        ledger.post_opening(
            mpesa_working(request.shortcode), deposit.amount, reference="by hand", at=now(), provider_key=key
        )
    before = written(deposit.id)

    with pytest.raises(StepsFailed) as failed:
        saga.drive([deposit.id])

    assert [type(error).__name__ for error in failed.value.errors.values()] == ["ProviderKeyUsed"]
    assert written(deposit.id) == before
    assert books() == ([130000], [])
    assert row(deposit).attempts > 0  # put off, by a commit of its own


@pytest.mark.parametrize(
    ("table", "when"),
    [
        ("domain_events", "NEW.type = 'TransactionCompleted'"),
        ("audit_logs", "NEW.`after` = 'COMPLETED'"),
        ("ledger_entries", "NEW.purpose = 'deposit_sent'"),
    ],
)
def test_a_transfer_whose_end_can_not_be_written_is_found_in_deriv_s_book_and_not_sent_again(
    saga, books, mpesa_simulator, table, when
):
    deposit = a_stored_deposit()
    to_the_payment(saga, deposit, mpesa_simulator)

    with an_insert_fails(table, when), pytest.raises(StepsFailed):
        saga.drive([deposit.id])

    left = written(deposit.id)
    assert (left["status"][0], len(left["entries"]), left["reserved"]) == (S.DERIV_TRANSFER_SENT, 1, 1)
    assert left["transfers"] == [("sending", "")]
    assert books() == ([130000], [985])  # the money did move
    bring(saga, deposit, S.COMPLETED)
    assert books() == ([130000], [985])
    with snapshot():
        assert list(verify_statuses()) == []


def test_a_group_in_which_one_can_not_be_written_leaves_the_others_to_go_on(saga, mpesa_simulator):
    poisoned, good = a_stored_deposit(), a_stored_deposit(phone=type(a_stored_deposit().phone)("254712345679"))
    when = f"NEW.transaction_id = X'{poisoned.id.hex}'"

    with an_insert_fails("mpesa_requests", when), pytest.raises(StepsFailed) as failed:
        saga.drive([poisoned.id, good.id])

    assert set(failed.value.errors) == {poisoned.id}
    assert (row(poisoned).status, row(good).status) == (S.CREATED, S.AWAITING_MPESA)
    assert row(poisoned).next_step_at > row(poisoned).created_at
    assert not MpesaRequest.objects.filter(transaction_id=poisoned.id).exists()


def test_an_outcome_and_what_it_makes_true_are_one_commit(saga, mpesa_simulator):
    deposit = a_stored_deposit()
    mpesa_simulator.set_customer(deposit.phone.number, behaviour="cancel")

    bring(saga, deposit, S.FAILED)

    request = MpesaRequest.objects.get(transaction_id=deposit.id)
    assert (request.status, request.code, row(deposit).failure_code) == ("refused", "1032", "1032")
    assert (request.open_phone, written(deposit.id)["reserved"]) == (None, 0)
    assert isinstance(mpesa.query(saga_request(saga, deposit)), Refused)


def saga_request(saga, deposit):
    with unit_of_work():
        return saga.mpesa.requests_of([deposit.id])[deposit.id][0]
