"""The rows on a real database: what counts from whom, and what the database itself refuses."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from deriv_integration import models
from deriv_integration.infrastructure.persistence import DjangoAgentRegistry, DjangoTransferRepository
from deriv_integration.tests.fixtures import a_transfer
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Accepted, Done, NotSent, Refused, Unknown
from shared_kernel.domain.requests import REVERTED, DerivPlatform, Leg, RequestStatus
from shared_kernel.infrastructure.persistence import DjangoAuditLog, unit_of_work
from shared_kernel.models import AuditLog

pytestmark = pytest.mark.django_db(transaction=True)

AT = datetime(2026, 11, 22, 13, 0, tzinfo=UTC)
repository = DjangoTransferRepository()


def stored(*transfers):
    with unit_of_work():
        repository.record(transfers)
    return transfers[0]


def told(transfer, outcome, *, fence=None):
    transfer.fence = fence or transfer.fence
    with unit_of_work():
        repository.record_outcomes([(transfer, outcome)], at=AT)
    return read(transfer)


def read(transfer):
    return next(
        t for t in repository.transfers_of([transfer.transaction_id])[transfer.transaction_id] if t.id == transfer.id
    )


def sent_again(transfer):
    """As after a sending that surely had no effect."""
    told(transfer, NotSent("not_connected"))
    transfer.fence += 1
    transfer.status = RequestStatus.SENDING
    transfer.send_before += timedelta(minutes=1)
    return stored(transfer)


FIELDS = (
    "id", "transaction_id", "leg", "attempt", "reference", "amount", "send_before", "created_at", "status", "fence",
    "code", "outcome_at", "asked_at", "absences", "login", "agent", "provider_transaction_id", "was_unknown",
    "verification_code",
)  # fmt: skip


def test_what_was_recorded_is_read_back_equal():
    transfer = stored(a_transfer(10_25, leg=Leg.DERIV_DEBIT, verification_code="Abc12345"))

    again = read(transfer)

    assert {name: getattr(again, name) for name in FIELDS} == {name: getattr(transfer, name) for name in FIELDS}


def test_attempts_come_oldest_first_and_a_transaction_without_any_has_none():
    second = a_transfer(attempt=2)
    first = a_transfer(transaction=second.transaction_id, status=RequestStatus.CLOSED)
    other = a_transfer()
    stored(second, first)

    found = repository.transfers_of([first.transaction_id, other.transaction_id])

    assert [transfer.attempt for transfer in found[first.transaction_id]] == [1, 2]
    assert found[other.transaction_id] == []


def test_the_destination_and_the_raw_answer_are_not_readable_in_the_table():
    transfer = stored(a_transfer(leg=Leg.DERIV_DEBIT, verification_code="Abc12345"))
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM deriv_transfers")
        assert "Abc12345" not in str(cursor.fetchone())
    told(transfer, Done("1", '{"client_to_full_name": "JANE DOE"}'))

    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM deriv_transfers")
        row = str(cursor.fetchone())

    assert "CR100001" not in row
    assert "JANE" not in row
    assert models.DerivTransfer.objects.get().answer == '{"client_to_full_name": "JANE DOE"}'


@pytest.mark.parametrize(
    ("outcome", "status", "code", "reference"),
    [
        (Done("10867502911"), RequestStatus.DONE, "", "10867502911"),
        (Accepted(), RequestStatus.ACCEPTED, "", ""),
        (Refused("does not exist"), RequestStatus.REFUSED, "does not exist", ""),
        (Unknown("timeout"), RequestStatus.UNKNOWN, "timeout", ""),
        (NotSent("RateLimit", 60), RequestStatus.NOT_SENT, "RateLimit", ""),
        (Unknown("x" * 500), RequestStatus.UNKNOWN, "x" * 128, ""),
    ],
)
def test_an_outcome_is_stored(outcome, status, code, reference):
    after = told(stored(a_transfer()), outcome)

    assert (after.status, after.code, after.provider_transaction_id) == (status, code, reference)
    assert after.outcome_at == AT


@pytest.mark.parametrize("late", [NotSent("send_before"), Refused("does not exist")])
def test_an_older_sender_cannot_say_that_nothing_was_sent(late):
    transfer = sent_again(stored(a_transfer()))

    assert told(transfer, late, fence=1).status is RequestStatus.SENDING
    assert told(transfer, late, fence=2).status in {RequestStatus.NOT_SENT, RequestStatus.REFUSED}


@pytest.mark.parametrize("late", [Done("7"), Unknown("timeout")])
def test_an_older_sender_that_reached_deriv_counts(late):
    transfer = sent_again(stored(a_transfer()))
    told(transfer, NotSent("not_connected"))

    assert told(transfer, late, fence=1).status in {RequestStatus.DONE, RequestStatus.UNKNOWN}


@pytest.mark.parametrize("later", [Refused("no"), Unknown("timeout"), NotSent("x"), Accepted(), Done("8")])
def test_what_is_done_stays_done(later):
    transfer = stored(a_transfer())
    told(transfer, Done("7", "proof"))

    after = told(transfer, later)
    transfer.status, transfer.provider_transaction_id = RequestStatus.CLOSED, ""
    with unit_of_work():
        repository.save([transfer])
    sent_again(transfer)
    again = read(transfer)

    assert (after.status, after.provider_transaction_id) == (RequestStatus.DONE, "7")
    assert (again.status, again.provider_transaction_id) == (RequestStatus.DONE, "7")
    assert models.DerivTransfer.objects.get().answer == "proof"


def test_only_what_deriv_took_back_is_no_longer_done():
    transfer = stored(a_transfer())
    done = told(transfer, Done("7"))
    done.status, done.code = RequestStatus.CLOSED, "verdict"
    with unit_of_work():
        repository.save([done])
    assert read(transfer).status is RequestStatus.DONE

    done.code = REVERTED
    with unit_of_work():
        repository.save([done])
    after = read(transfer)
    assert (after.status, after.code, after.provider_transaction_id) == (RequestStatus.CLOSED, REVERTED, "7")


def test_a_proven_absence_yields_to_a_proof_alone():
    transfer = stored(a_transfer())
    transfer.status, transfer.absences, transfer.asked_at = RequestStatus.CLOSED, 3, AT
    with unit_of_work():
        repository.save([transfer])

    assert told(transfer, Unknown("timeout")).status is RequestStatus.CLOSED
    assert told(transfer, NotSent("x")).status is RequestStatus.CLOSED
    done = told(transfer, Done("7"))
    assert (done.status, done.absences, done.asked_at) == (RequestStatus.DONE, 3, AT)


def test_sending_again_keeps_what_is_fixed_and_an_older_intent_changes_nothing():
    transfer = stored(a_transfer(10_25))
    sent_again(transfer)
    transfer.amount = Money(99, Currency.USD)
    transfer.agent = "CR1"
    sent_again(transfer)
    newest = read(transfer)
    transfer.fence = 2
    stored(transfer)

    assert (newest.fence, newest.amount.amount, newest.agent) == (3, 10_25, "CR900001")
    assert read(transfer).fence == 3


def test_one_of_derivs_ids_proves_one_transfer_only():
    first, second = a_transfer(), a_transfer()
    stored(first, second)
    told(first, Done("7"))

    with pytest.raises(IntegrityError):
        told(second, Done("7"))

    assert read(first).status is RequestStatus.DONE
    assert read(second).status is RequestStatus.SENDING


def test_two_agents_may_hold_entries_of_one_id():
    first, second = a_transfer(), a_transfer(agent="CR900002")
    stored(first, second)

    assert told(first, Done("7")).provider_transaction_id == "7"
    assert told(second, Done("7")).provider_transaction_id == "7"


# --- what was left open -----------------------------------------------------------------------------------------------


def test_a_refusal_after_an_unknown_sending_leaves_the_attempt_unknown_with_the_code():
    transfer = stored(a_transfer(platform=DerivPlatform.REST))
    told(transfer, Unknown("timeout"))
    transfer.fence = 2
    stored(transfer)

    after = told(transfer, Refused("NicknameNotFound"))

    assert (after.status, after.code, after.was_unknown) == (RequestStatus.UNKNOWN, "NicknameNotFound", True)


def test_a_refusal_after_a_sending_that_never_told_its_end_leaves_the_attempt_unknown():
    transfer = stored(a_transfer())
    transfer.fence = 2  # the first sender died: its row was still `sending`
    stored(transfer)

    assert told(transfer, Refused("does not exist")).status is RequestStatus.UNKNOWN


def test_a_refusal_after_sendings_that_surely_had_no_effect_is_one():
    transfer = sent_again(sent_again(stored(a_transfer())))

    after = told(transfer, Refused("does not exist"))

    assert (after.status, after.was_unknown) == (RequestStatus.REFUSED, False)


def test_an_attempt_that_a_person_or_a_timer_called_unknown_stays_marked():
    transfer = stored(a_transfer())
    transfer.status = RequestStatus.UNKNOWN
    with unit_of_work():
        repository.save([transfer])
    transfer.status = RequestStatus.CLOSED
    with unit_of_work():
        repository.save([transfer])

    assert read(transfer).was_unknown
    assert read(transfer).status is RequestStatus.CLOSED


@pytest.mark.parametrize("outcome", [Done("7"), Accepted(), Refused("no"), Unknown("timeout")])
def test_a_code_is_wiped_in_the_commit_of_its_outcome(outcome):
    transfer = stored(a_transfer(leg=Leg.DERIV_DEBIT, verification_code="Abc12345"))

    assert told(transfer, outcome).verification_code == ""
    assert models.DerivTransfer.objects.get().verification_code == ""


def test_a_code_that_was_never_sent_is_kept_for_the_same_attempt():
    transfer = sent_again(stored(a_transfer(leg=Leg.DERIV_DEBIT, verification_code="Abc12345")))

    assert read(transfer).verification_code == "Abc12345"
    assert told(transfer, NotSent("rate")).verification_code == "Abc12345"


def test_a_group_with_and_without_codes_wipes_only_what_is_decided():
    kept, gone, none = (
        a_transfer(leg=Leg.DERIV_DEBIT, verification_code=code) for code in ("11111111", "22222222", "")
    )
    stored(kept, gone, none)

    with unit_of_work():
        repository.record_outcomes([(kept, NotSent("x")), (gone, Accepted()), (none, Accepted())], at=AT)

    assert [read(transfer).verification_code for transfer in (kept, gone, none)] == ["11111111", "", ""]


def test_expired_codes_are_wiped_and_younger_ones_are_not():
    old = a_transfer(leg=Leg.DERIV_DEBIT, verification_code="11111111", created_at=AT - timedelta(hours=1, seconds=1))
    young = a_transfer(leg=Leg.DERIV_DEBIT, verification_code="22222222", created_at=AT)
    stored(old, young)

    with unit_of_work():
        wiped = repository.wipe_codes(AT - timedelta(hours=1))

    assert wiped == 1
    assert (read(old).verification_code, read(young).verification_code) == ("", "22222222")


def test_a_decided_attempt_keeps_no_code():
    transfer = stored(a_transfer(leg=Leg.DERIV_DEBIT, verification_code="11111111"))
    transfer.status = RequestStatus.UNKNOWN
    with unit_of_work():
        repository.save([transfer])

    assert read(transfer).verification_code == ""


# --- one open way out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((Leg.DERIV_CREDIT, 1), (Leg.DERIV_CREDIT, 2)),
        ((Leg.DERIV_CREDIT, 1), (Leg.DERIV_CREDIT_BACK, 1)),
        ((Leg.DERIV_CREDIT_BACK, 1), (Leg.DERIV_CREDIT_BACK, 2)),
    ],
)
def test_the_database_refuses_a_second_way_out_while_one_is_open(first, second):
    one = a_transfer(leg=first[0], attempt=first[1])
    other = a_transfer(leg=second[0], attempt=second[1], transaction=one.transaction_id)
    stored(one)
    for open_still in (Unknown("timeout"), Accepted(), NotSent("x")):
        told(one, open_still)
        with pytest.raises(IntegrityError):
            stored(other)

    told(one, Refused("no"))  # of a sending after an unknown one: still open
    with pytest.raises(IntegrityError):
        stored(other)
    one.status = RequestStatus.CLOSED
    with unit_of_work():
        repository.save([one])

    stored(other)
    assert models.DerivTransfer.objects.count() == 2


def test_a_debit_is_no_way_out():
    debit = a_transfer(leg=Leg.DERIV_DEBIT)
    back = a_transfer(leg=Leg.DERIV_CREDIT_BACK, transaction=debit.transaction_id)

    stored(debit, back)

    assert models.DerivTransfer.objects.filter(open_outflow=None).count() == 1


def test_a_late_success_beside_another_open_way_out_is_stored():
    first = a_transfer()
    second = a_transfer(attempt=2, transaction=first.transaction_id)
    first.status = RequestStatus.CLOSED
    stored(first, second)

    assert told(first, Done("7")).status is RequestStatus.DONE


def test_the_same_attempt_is_not_recorded_twice():
    transfer = stored(a_transfer())

    with pytest.raises(IntegrityError):
        stored(a_transfer(transaction=transfer.transaction_id))

    assert models.DerivTransfer.objects.count() == 1


def test_the_database_refuses_a_transfer_of_nothing():
    with pytest.raises(IntegrityError):
        stored(a_transfer(0))


def test_a_group_of_mixed_outcomes_is_one_statement():
    transfers = [a_transfer(1_00 + number) for number in range(20)]
    stored(*transfers)
    outcomes = [Done(str(1000 + n)) if n % 2 else Refused(f"code {n}", answer=f"raw {n}") for n in range(20)]

    with (
        unit_of_work(),
        CaptureQueriesContext(
            connection,
        ) as queries,
    ):
        repository.record_outcomes(list(zip(transfers, outcomes, strict=True)), at=AT)

    assert len(queries) == 1
    for number, transfer in enumerate(transfers):
        row = read(transfer)
        assert (row.provider_transaction_id, row.code) == (
            (str(1000 + number), "") if number % 2 else ("", f"code {number}")
        )


def test_a_group_is_recorded_saved_and_read_in_one_statement_each():
    transfers = [a_transfer() for _ in range(20)]

    with unit_of_work(), CaptureQueriesContext(connection) as queries:
        repository.record(transfers)
        for number, transfer in enumerate(transfers):
            transfer.absences = number
        repository.save(transfers)
        repository.save([])
        repository.record_outcomes([], at=AT)
        found = repository.transfers_of([transfer.transaction_id for transfer in transfers])

    assert len(queries) == 3
    assert sorted(found[transfer.transaction_id][0].absences for transfer in transfers) == list(range(20))


def test_a_frozen_agent_is_known_audited_once_and_keeps_its_reason():
    registry = DjangoAgentRegistry(DjangoAuditLog())
    with unit_of_work():
        registry.freeze("CR900001", "booked twice", at=AT)
    with unit_of_work():
        registry.freeze("CR900001", "again", at=AT + timedelta(hours=1))

    row = models.DerivAgent.objects.get()
    assert (row.frozen_at, row.frozen_why) == (AT, "booked twice")
    assert registry.frozen() == registry.frozen_lately() == {"CR900001"}
    assert DjangoAgentRegistry(DjangoAuditLog()).frozen() == {"CR900001"}
    assert [(record.action, record.target_id, record.after) for record in AuditLog.objects.all()] == [
        ("deriv_agent.frozen", "CR900001", "frozen")
    ]


def test_an_agent_that_nobody_froze_is_in_use():
    registry = DjangoAgentRegistry(DjangoAuditLog())
    models.DerivAgent.objects.create(loginid="CR900001")

    assert registry.frozen() == frozenset()
