"""The simulation's stores keep and refuse what the tables keep and refuse, or the simulation would prove nothing."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from deriv_integration.infrastructure.persistence import DjangoTransferRepository
from mpesa_integration.domain.request import OutflowOpen, PromptOpen
from mpesa_integration.infrastructure.persistence import DjangoMpesaRequests
from payments.domain.transaction import Outflow, TransactionStatus as S, TransactionType
from payments.facade import transactions as django_transactions
from payments.infrastructure.persistence.reservations import DjangoFloatReservations, FloatTooLow
from payments.infrastructure.persistence.transactions import VersionConflict
from shared_kernel.domain.identifiers import Phone, RequestId, TransactionId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Outcome, Refused, Unknown
from shared_kernel.domain.requests import (
    DerivLogin,
    DerivPlatform,
    DerivTransfer,
    Leg,
    MpesaRequest,
    RequestStatus as R,
)
from shared_kernel.infrastructure.persistence import new_id, unit_of_work
from tests.in_memory import Bench
from tests.simulation.requests import MpesaRows, TransferRows
from tests.simulation.rows import Reservations, Transactions
from tests.simulation.run import digest
from tests.simulation.store import Store, StoredAudit, StoredOutbox

pytestmark = pytest.mark.django_db(transaction=True)
AT = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
OUTCOMES: list[Outcome] = [Done("900"), Accepted({"ConversationID": "AG_1"}), Refused("no"), Unknown("timeout"),
                           NotSent("busy")]  # fmt: skip


@dataclass
class Twin:
    """A store and how its units of work are opened."""

    rows: Any
    unit_of_work: Callable[[], Any]


@pytest.fixture(params=["tables", "in memory"])
def mpesa(request: pytest.FixtureRequest) -> Twin:
    store = Store()
    return Twin(DjangoMpesaRequests(), unit_of_work) if request.param == "tables" else Twin(
        MpesaRows(store, digest), store.unit_of_work
    )  # fmt: skip


@pytest.fixture(params=["tables", "in memory"])
def deriv(request: pytest.FixtureRequest) -> Twin:
    store = Store()
    return Twin(DjangoTransferRepository(), unit_of_work) if request.param == "tables" else Twin(
        TransferRows(store), store.unit_of_work
    )  # fmt: skip


# --- mpesa_requests ---------------------------------------------------------------------------------------------------


def a_request(leg: Leg, transaction: TransactionId, *, attempt: int = 1, phone: str = "254712345678") -> MpesaRequest:
    id = RequestId(new_id())
    return MpesaRequest(
        id=id, transaction_id=transaction, leg=leg, attempt=attempt, reference=id.hex[20:],
        amount=Money(100_00, Currency.KES), send_before=AT, created_at=AT, phone=Phone(phone), shortcode="174379",
    )  # fmt: skip


def stored(mpesa: Twin, request: MpesaRequest) -> MpesaRequest:
    with mpesa.unit_of_work():
        return next(
            row for row in mpesa.rows.of([request.transaction_id])[request.transaction_id] if row.id == request.id
        )


@pytest.mark.parametrize("before", [R.NOT_SENT, R.SENDING, R.UNKNOWN, R.ACCEPTED, R.REPEATABLE])
def test_an_attempt_that_goes_again_remembers_that_an_earlier_sending_may_have_taken_effect(mpesa: Twin, before: R):
    request = a_request(Leg.REVERSAL, TransactionId(new_id()))
    with mpesa.unit_of_work():
        mpesa.rows.add([request])
        mpesa.rows.save([replace(request, status=before)])

    again = replace(
        stored(mpesa, request), status=R.SENDING, fence=2, send_before=AT + timedelta(seconds=9), asked_at=AT
    )
    with mpesa.unit_of_work():
        mpesa.rows.send_again([again])

    row = stored(mpesa, request)
    assert (row.status, row.fence, row.send_before) == (R.SENDING, 2, again.send_before)
    assert row.was_unknown == (before is not R.NOT_SENT)
    assert row.asked_at == AT  # what was known by then is not asked about once more


def test_a_phone_has_one_open_prompt_and_a_transaction_one_open_outflow(mpesa: Twin):
    first, transaction = a_request(Leg.STK_PUSH, TransactionId(new_id())), TransactionId(new_id())
    with mpesa.unit_of_work():
        mpesa.rows.add([first, a_request(Leg.REVERSAL, transaction)])

    assert in_unit(mpesa, lambda: mpesa.rows.busy([first.phone.number, "254700000000"])) == {first.phone.number}
    with pytest.raises(PromptOpen), mpesa.unit_of_work():
        mpesa.rows.add([a_request(Leg.STK_PUSH, TransactionId(new_id()))])
    with pytest.raises(OutflowOpen), mpesa.unit_of_work():
        mpesa.rows.add([a_request(Leg.B2C_REFUND, transaction)])
    with mpesa.unit_of_work():
        mpesa.rows.save([replace(first, status=R.CLOSED)])
    with mpesa.unit_of_work():
        mpesa.rows.add([a_request(Leg.STK_PUSH, TransactionId(new_id()))])


def test_attempts_come_back_in_the_order_in_which_they_were_made(mpesa: Twin):
    transaction = TransactionId(new_id())
    made = [a_request(leg, transaction, attempt=n) for leg, n in
            [(Leg.STK_PUSH, 1), (Leg.STATUS_QUERY, 1), (Leg.REVERSAL, 1), (Leg.STATUS_QUERY, 2)]]  # fmt: skip
    for request in made:
        with mpesa.unit_of_work():
            mpesa.rows.add([request])

    with mpesa.unit_of_work():
        assert [row.id for row in mpesa.rows.of([transaction])[transaction]] == [request.id for request in made]


def in_unit(twin: Twin, what: Callable[[], Any]) -> Any:
    with twin.unit_of_work():
        return what()


# --- deriv_transfers --------------------------------------------------------------------------------------------------


def a_transfer(**values: Any) -> DerivTransfer:
    id, transaction = RequestId(new_id()), TransactionId(new_id())
    known: dict[str, Any] = {
        "id": id, "transaction_id": transaction, "leg": Leg.DERIV_CREDIT, "attempt": 1, "reference": id.hex, "amount":
        Money(10_00, Currency.USD), "send_before": AT, "created_at": AT, "agent": "1",
        "login": DerivLogin(DerivPlatform.REST, "jane"),
    }  # fmt: skip
    return DerivTransfer(**known | values)


def test_what_an_outcome_makes_of_a_transfer_depends_alike_on_its_status_its_fence_and_what_was_unknown():
    differ = []
    for before, outcome, fence, was_unknown in product(R, OUTCOMES, (1, 2), (False, True)):
        told = []
        for twin in (Twin(DjangoTransferRepository(), unit_of_work), _in_memory()):
            transfer = a_transfer(verification_code="123456")
            with twin.unit_of_work():
                twin.rows.record([transfer])
                twin.rows.record([replace(transfer, fence=2, status=R.SENDING)])
            held = replace(transfer, fence=2, status=before, was_unknown=was_unknown)
            own = Done(f"{int(transfer.id) % 10**9}") if isinstance(outcome, Done) else outcome
            with twin.unit_of_work():
                twin.rows.save([held])
                twin.rows.record_outcomes([(replace(transfer, fence=fence), own)], at=AT)
                [row] = twin.rows.transfers_of([transfer.transaction_id])[transfer.transaction_id]
            told.append(
                (row.status, row.code, row.was_unknown, bool(row.provider_transaction_id), row.verification_code)
            )
        if told[0] != told[1]:
            differ.append((before, outcome, fence, was_unknown, *told))
    assert not differ


def _in_memory() -> Twin:
    store = Store()
    return Twin(TransferRows(store), store.unit_of_work)


@pytest.mark.parametrize("before", [R.NOT_SENT, R.SENDING, R.UNKNOWN, R.ACCEPTED, R.REPEATABLE])
def test_a_transfer_that_goes_again_remembers_that_an_earlier_sending_may_have_taken_effect(deriv: Twin, before: R):
    transfer = a_transfer()
    with deriv.unit_of_work():
        deriv.rows.record([transfer])
        deriv.rows.save([replace(transfer, status=before)])
        deriv.rows.record([replace(transfer, fence=2, status=R.SENDING)])
        [row] = deriv.rows.transfers_of([transfer.transaction_id])[transfer.transaction_id]

    assert (row.status, row.fence, row.was_unknown) == (R.SENDING, 2, before is not R.NOT_SENT)


def test_a_second_open_transfer_of_one_transaction_and_an_entry_that_another_has_are_refused(deriv: Twin):
    first, other = a_transfer(), a_transfer()
    with deriv.unit_of_work():
        deriv.rows.record([first, other])

    with pytest.raises(Exception), deriv.unit_of_work():  # noqa: B017, PT011  whichever way a database says it
        deriv.rows.record([a_transfer(transaction_id=first.transaction_id, attempt=2)])
    with deriv.unit_of_work():
        deriv.rows.record_outcomes([(first, Done("77"))], at=AT)
    with pytest.raises(Exception), deriv.unit_of_work():  # noqa: B017, PT011
        deriv.rows.record_outcomes([(other, Done("77"))], at=AT)


# --- transactions and reservations ------------------------------------------------------------------------------------


@pytest.fixture(params=["tables", "in memory"])
def transactions(request: pytest.FixtureRequest) -> Iterator[Twin]:
    if request.param == "tables":
        yield Twin(django_transactions, unit_of_work)
    else:
        store = Store()
        yield Twin(Transactions(store, StoredOutbox(store), StoredAudit(store)), store.unit_of_work)


def a_deposit() -> Any:
    bench = Bench()
    deposit = bench.deposit()
    deposit.id, deposit.quote_id, deposit.version, deposit.user_id = new_id(), new_id(), 0, new_id()  # type: ignore[assignment]
    return deposit


def test_a_transaction_comes_back_as_it_was_saved_without_what_only_a_step_knows(transactions: Twin):
    deposit = a_deposit()
    deposit.failure_code, deposit.prompt_busy, deposit.outflow = "x" * 64, True, Outflow.PAYOUT
    deposit.status = S.DERIV_TRANSFER_SENT
    with transactions.unit_of_work():
        transactions.rows.save_many([deposit])

    with transactions.unit_of_work():
        [found] = transactions.rows.get_many([deposit.id], TransactionType.DEPOSIT)
        assert transactions.rows.get_many([deposit.id], TransactionType.WITHDRAWAL) == []

    same = ("id", "user_id", "amount", "payout", "rate", "phone", "login", "agent", "status", "next_step_at", "version",
            "failure_code", "outflow", "created_at", "attempts")  # fmt: skip
    assert [getattr(found, name) for name in same] == [getattr(deposit, name) for name in same]
    assert (found.payments, found.transfers, found.prompt_busy, found.touched) == ([], [], False, False)


def test_a_stale_version_a_second_use_of_a_quote_and_an_unchosen_outflow_are_refused(transactions: Twin):
    deposit = a_deposit()
    with transactions.unit_of_work():
        transactions.rows.save_many([deposit])

    stale = a_deposit()
    stale.id, stale.version = deposit.id, deposit.version + 3
    with pytest.raises(VersionConflict), transactions.unit_of_work():
        transactions.rows.save_many([stale])
    again = a_deposit()
    again.quote_id = deposit.quote_id
    unchosen = a_deposit()
    unchosen.status = S.REFUND_PENDING
    for refused in (again, unchosen):
        with pytest.raises(Exception), transactions.unit_of_work():  # noqa: B017, PT011
            transactions.rows.save_many([refused])


def test_the_sweeper_is_handed_what_is_due_once_until_its_lease_runs_out(transactions: Twin):
    due, later = a_deposit(), a_deposit()
    later.next_step_at = due.next_step_at + timedelta(hours=1)
    with transactions.unit_of_work():
        transactions.rows.save_many([due, later])
    lane, at = transactions.rows.lanes()[0], due.next_step_at
    lease = timedelta(seconds=60)

    assert transactions.rows.claim_due(lane, at=at, lease=lease, most=9) == {due.id: TransactionType.DEPOSIT}
    assert transactions.rows.claim_due(lane, at=at + lease / 2, lease=lease, most=9) == {}
    assert list(transactions.rows.claim_due(lane, at=at + lease, lease=lease, most=9)) == [due.id]


class Funded:
    """A ledger in which every float holds 100."""

    def deriv_balance(self, agent: str) -> Money:
        return Money(100, Currency.USD)

    def mpesa_balance(self, shortcode: str) -> Money:
        return Money(100, Currency.KES)


@pytest.mark.parametrize("where", ["tables", "in memory"])
def test_reservations_are_kept_within_the_float_until_they_are_released(where: str):
    store, funded = Store(), Funded()
    unit: Callable[[], Any] = unit_of_work if where == "tables" else store.unit_of_work
    rows: Any = DjangoFloatReservations(funded) if where == "tables" else Reservations(store, funded)  # type: ignore[arg-type]
    first, second = TransactionId(new_id()), TransactionId(new_id())
    agent = f"agent-{first.hex[:8]}"
    sixty = Money(60, Currency.USD)
    with unit():
        rows.reserve(agent, first, sixty, at=AT)

    with pytest.raises(FloatTooLow), unit():
        rows.reserve(agent, second, sixty, at=AT)
    with unit():
        rows.reserve(agent, second, sixty, at=AT, beyond=True)
        rows.release([first], at=AT)
        rows.release([first], at=AT)
        rows.reserve(agent, second, sixty, at=AT, beyond=True)  # it has kept the one it had
    with pytest.raises(FloatTooLow), unit():
        rows.reserve(agent, TransactionId(new_id()), Money(41, Currency.USD), at=AT)
    with unit():
        rows.reserve(agent, TransactionId(new_id()), Money(40, Currency.USD), at=AT)
