"""The deposit saga against every row of its two tables, on ports in memory."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from payments.application.deposit import DepositCredit
from payments.application.deriv_credit import SendCredit
from payments.domain.transaction import Transaction, TransactionStatus as S
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.events import AttentionNeeded, TransactionCompleted
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Absent, Done, Found, NotSent, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import MpesaPayment, RequestStatus
from tests.in_memory import Bench, Crash, InMemoryTransactions

LONG = timedelta(hours=60)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def paid_and_claimed(bench: Bench, deposit: Transaction) -> None:
    """The prompt goes out, the customer pays, the callback comes."""
    bench.drive(deposit)
    bench.world.tick(seconds=8)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)
    bench.mpesa.calls_back(deposit.id)


def nothing_moved(bench: Bench) -> bool:
    return not bench.world.entries and not bench.deriv.book


def books_agree(bench: Bench) -> bool:
    """The ledger's float legs are what the providers' books say, and no money hangs in the customer's in-transit."""
    book = bench.mpesa.book
    mpesa = sum(payment.amount.amount for payment in book if payment.receipt not in bench.mpesa.reversed)
    deriv = sum(amount.amount for _, amount, _ in bench.deriv.book)
    return bench.world.balance("mpesa") == mpesa and bench.world.balance("deriv") == -deriv


# --- the way it should go -------------------------------------------------------------------------------------------


def test_a_paid_deposit_completes_and_its_entries_balance_to_the_cent(bench: Bench) -> None:
    deposit = bench.deposit()

    paid_and_claimed(bench, deposit)
    bench.drive(deposit)

    ended = bench.now(deposit)
    assert ended.status is S.COMPLETED
    assert [t.after for t in bench.world.audit if t.action == "transaction.status"] == [
        "CREATED", "AWAITING_MPESA", "MPESA_CONFIRMED", "DERIV_TRANSFER_SENT", "COMPLETED",
    ]  # fmt: skip
    assert books_agree(bench)
    assert bench.world.balance("in-transit") == 0
    assert bench.world.balance("fx usd") == deposit.payout.amount == 985
    assert [type(e) for e in bench.world.events].count(TransactionCompleted) == 1
    assert not bench.world.reserved


def test_a_callback_alone_moves_nothing(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)

    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    assert bench.now(deposit).status is S.AWAITING_MPESA
    assert nothing_moved(bench)
    assert bench.mpesa.queried == 1


def test_without_a_callback_the_timer_asks_and_the_deposit_completes(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)

    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    assert bench.world.now - deposit.created_at == timedelta(seconds=15)


def test_fifty_callbacks_have_one_effect(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)

    for _ in range(50):
        bench.mpesa.calls_back(deposit.id)
        bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED
    assert len(bench.deriv.book) == 1
    assert books_agree(bench)


def test_a_stale_login_is_asked_about_before_the_customer_is_charged(bench: Bench) -> None:
    deposit = bench.deposit(checked=False)
    bench.deriv.login_answers = [Refused("PaymentAgentTransferError", "Your Deriv account cannot be credited.")]

    bench.drive(deposit)

    assert bench.now(deposit).status is S.REJECTED
    assert not bench.mpesa.pushed
    assert not bench.world.reserved


def test_a_login_that_deriv_can_not_be_asked_about_is_asked_again_and_nobody_is_charged(bench: Bench) -> None:
    deposit = bench.deposit(checked=False)
    bench.deriv.login_answers = [Unknown("timeout"), NotSent("down")]

    bench.drive(deposit)
    assert bench.now(deposit).status is S.CREATED
    assert not bench.mpesa.pushed
    bench.sweep(deposit, until=timedelta(minutes=1), stop=lambda t: t.status is S.AWAITING_MPESA)

    assert bench.now(deposit).status is S.AWAITING_MPESA


def test_while_deriv_stays_silent_about_the_login_the_deposit_expires_uncharged(bench: Bench) -> None:
    deposit = bench.deposit(checked=False)
    bench.deriv.login_answers = [Unknown("timeout")] * 100

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.EXPIRED
    assert not bench.mpesa.pushed


def test_a_second_deposit_on_one_phone_waits_for_the_first_prompt_to_close(bench: Bench) -> None:
    first, second = bench.deposit(), bench.deposit()

    bench.drive(first, second)
    assert [bench.now(d).status for d in (first, second)] == [S.AWAITING_MPESA, S.CREATED]
    bench.mpesa.settled[bench.now(first).payments[0].reference] = Refused("1032", "You cancelled the request.")
    bench.mpesa.calls_back(first.id, code="1032")
    bench.drive(first)
    bench.sweep(second, until=timedelta(minutes=1), stop=lambda t: t.status is S.AWAITING_MPESA)

    assert bench.now(first).status is S.FAILED
    assert bench.now(second).status is S.AWAITING_MPESA


# --- what goes wrong at M-Pesa --------------------------------------------------------------------------------------


def test_a_cancelled_prompt_fails_only_once_the_query_agrees(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)

    bench.mpesa.calls_back(deposit.id, code="1032")
    bench.drive(deposit)
    assert bench.now(deposit).status is S.AWAITING_MPESA  # the query still says pending
    bench.mpesa.settled[bench.now(deposit).payments[0].reference] = Refused("1032", "You cancelled the request.")
    bench.sweep(deposit, until=timedelta(minutes=1))

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code, ended.failure_detail) == (S.FAILED, "1032", "You cancelled the request.")
    assert nothing_moved(bench)
    assert not bench.world.reserved


def test_a_forged_failure_against_a_paid_prompt_changes_nothing_but_the_audit(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)

    bench.mpesa.calls_back(deposit.id, code="1032")
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED
    assert any(record.action == "mpesa.claim_contradicts_proof" for record in bench.world.audit)


def test_a_prompt_that_surely_never_left_goes_again_under_the_same_reference(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [NotSent("connect"), NotSent("500.003.02")]

    bench.drive(deposit)
    bench.sweep(deposit, until=timedelta(seconds=10))

    assert len({(push.id, push.reference) for push in bench.mpesa.pushed}) == 1
    assert [push.fence for push in bench.mpesa.pushed] == [1, 2, 3]
    assert bench.now(deposit).payments[0].status is RequestStatus.ACCEPTED


def test_while_m_pesa_can_not_be_reached_the_deposit_expires_uncharged(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [NotSent("connect")] * 200

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.EXPIRED
    assert not bench.world.reserved


def test_a_prompt_that_m_pesa_refuses_fails_with_nothing_moved(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Refused("500.001.1001", "Another request is open on your phone.")]

    bench.drive(deposit)

    assert bench.now(deposit).status is S.FAILED
    assert nothing_moved(bench)


def test_a_lost_answer_is_never_sent_again(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Unknown("timeout")]

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert len(bench.mpesa.pushed) == 1


def test_a_lost_answer_whose_payment_the_book_shows_completes(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Unknown("timeout")]
    bench.drive(deposit)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)

    bench.mpesa.calls_back(deposit.id)  # at the attempt's own URL: starts the asking
    bench.drive(deposit)

    ended = bench.now(deposit)
    assert ended.status is S.COMPLETED
    assert ended.payments[0].receipt == "UKM0000001"
    assert bench.mpesa.queried == 0  # an id learnt from a callback proves nothing
    assert books_agree(bench)


def test_a_lost_answer_closes_after_two_readings_of_the_book_a_quarter_of_an_hour_apart(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Unknown("timeout")]
    bench.drive(deposit)

    bench.mpesa.calls_back(deposit.id)  # asked early: does not count
    bench.drive(deposit)
    bench.sweep(deposit, until=timedelta(minutes=29))
    assert bench.now(deposit).status is S.AWAITING_MPESA
    bench.sweep(deposit, until=LONG)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code) == (S.FAILED, "payment_not_received")
    assert bench.world.now - deposit.created_at >= timedelta(minutes=30)


def test_a_lost_answer_whose_book_stays_unreadable_comes_before_a_person_within_48_hours(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Unknown("timeout")]
    bench.mpesa.book_is_down = True

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert bench.world.now - deposit.created_at < timedelta(hours=48)


def test_a_payment_that_turns_up_after_the_failure_is_posted_and_given_back_once_the_rate_is_old(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    reference = bench.now(deposit).payments[0].reference
    bench.mpesa.settled[reference] = Refused("1037", "The request was not answered in time.")
    bench.sweep(deposit, until=timedelta(minutes=1))
    assert bench.now(deposit).status is S.FAILED

    bench.world.tick(hours=24)
    bench.mpesa.pays(reference, deposit.amount)
    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_code) == (S.REFUNDED, "rate_expired")
    assert books_agree(bench)
    assert not bench.deriv.book


def test_a_payment_that_turns_up_after_the_failure_completes_while_the_rate_holds(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    reference = bench.now(deposit).payments[0].reference
    bench.mpesa.settled[reference] = Refused("1032")
    bench.sweep(deposit, until=timedelta(minutes=1))

    bench.world.tick(seconds=20)
    bench.mpesa.pays(reference, deposit.amount)
    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED
    assert books_agree(bench)
    assert not bench.world.reserved


def test_a_callback_that_names_another_amount_sends_us_to_the_book(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)

    bench.mpesa.calls_back(deposit.id, agrees=False)
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED
    assert bench.now(deposit).payments[0].receipt == "UKM0000001"


@pytest.mark.parametrize(("paid", "suspense"), [(1000, 0), (1500, 200)])
def test_another_amount_is_posted_as_proven_and_shown_to_a_person(bench: Bench, paid: int, suspense: int) -> None:
    deposit = bench.deposit(shillings=1300)
    bench.drive(deposit)
    bench.mpesa.pays(bench.now(deposit).payments[0].reference, Money(paid * 100, Currency.KES))

    bench.mpesa.calls_back(deposit.id, agrees=False)
    bench.drive(deposit)

    ended = bench.now(deposit)
    assert (ended.status, ended.attention_from) == (S.NEEDS_ATTENTION, S.REFUND_PENDING)
    assert books_agree(bench)
    assert -bench.world.balance("suspense") == suspense * 100
    assert not bench.deriv.sent
    assert not bench.world.reserved


def test_a_second_payment_under_one_reference_goes_to_suspense_and_before_a_person(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Unknown("timeout")]
    bench.drive(deposit)
    reference = bench.now(deposit).payments[0].reference
    bench.mpesa.pays(reference, deposit.amount)
    bench.mpesa.book.append(MpesaPayment("UKM0000002", reference, deposit.amount, bench.world.now))

    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert books_agree(bench)
    assert -bench.world.balance("suspense") == deposit.amount.amount


def test_a_query_that_stays_pending_for_a_day_comes_before_a_person(bench: Bench) -> None:
    deposit = bench.deposit()

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert any(isinstance(event, AttentionNeeded) for event in bench.world.events)


# --- what goes wrong at Deriv ---------------------------------------------------------------------------------------


def test_a_refusal_for_good_waits_for_the_give_back_with_the_money_in_transit(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [Refused("PaymentAgentTransferError", "Your Deriv account is disabled.")]

    bench.drive(deposit)

    ended = bench.now(deposit)
    assert (ended.status, ended.failure_detail) == (S.REFUND_PENDING, "Your Deriv account is disabled.")
    assert -bench.world.balance("in-transit") == deposit.amount.amount
    assert not bench.world.reserved


def test_an_unknown_transfer_that_took_effect_is_found_and_never_sent_again(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [bench.deriv.books_in_silence]

    bench.drive(deposit)
    assert bench.now(deposit).status is S.DERIV_TRANSFER_SENT
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    assert len(bench.deriv.sent) == 1
    assert books_agree(bench)


def test_an_unknown_transfer_that_had_no_effect_goes_again_only_after_its_absence_is_proven(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [Unknown("timeout")]

    bench.drive(deposit)
    sent_at = bench.world.now
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    first, second = bench.now(deposit).transfers
    assert (first.status, second.status) == (RequestStatus.CLOSED, RequestStatus.DONE)
    assert second.created_at - sent_at > timedelta(minutes=10)
    assert first.reference == second.reference
    assert books_agree(bench)


def test_a_late_commit_after_a_time_out_is_found_and_not_paid_again(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [Unknown("RequestTimeout")]
    bench.drive(deposit)
    transfer = bench.now(deposit).transfers[0]

    bench.sweep(deposit, until=timedelta(minutes=5))  # absent so far, which is worth nothing yet
    bench.deriv.books(transfer)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    assert len(bench.deriv.sent) == 1
    assert books_agree(bench)


def test_without_an_unbroken_chain_a_person_decides_and_nothing_is_sent_again(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers, bench.deriv.chain_is_whole = [Unknown("timeout")], False

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert len(bench.deriv.sent) == 1
    assert bench.world.reserved  # an unknown outcome keeps its reservation


def test_a_book_that_can_not_be_read_is_no_absence(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers, bench.deriv.lookups = [Unknown("timeout")], [Unreadable("down")] * 1000

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert len(bench.deriv.sent) == 1


def test_the_money_goes_back_after_three_transfers_proven_dead(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [Unknown("timeout")] * 3

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert bench.mpesa.reversed
    assert books_agree(bench)
    assert all(transfer.status.is_dead for transfer in bench.now(deposit).transfers)


def test_deriv_down_waits_and_completes_when_it_is_back(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [NotSent("connect")] * 5

    bench.drive(deposit)
    expected_by = bench.now(deposit).expected_by
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.COMPLETED
    assert len({transfer.id for transfer in bench.deriv.sent}) == 1  # one attempt, sent when it could be
    assert expected_by is not None
    assert books_agree(bench)


def test_deriv_down_past_the_deadline_gives_back_what_surely_was_not_sent(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [NotSent("float_low", retry_after_s=60)] * 10_000

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.REFUNDED
    assert bench.mpesa.reversed
    assert books_agree(bench)
    assert not bench.deriv.book


def test_two_entries_for_one_reference_freeze_the_credential_and_are_both_posted(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)

    def books_twice(transfer: object) -> Unknown:
        bench.deriv.books(transfer)  # type: ignore[arg-type]
        bench.deriv.books(transfer)  # type: ignore[arg-type]
        return Unknown("dropped")

    bench.deriv.answers = [books_twice]
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert "CR900001" in bench.world.frozen
    assert books_agree(bench)
    assert not bench.world.reserved


def test_a_sender_that_was_given_up_as_lost_may_still_bring_the_proof(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [Unknown("timeout")]
    bench.deriv.lookups = [Absent(proven=False)] * 1000
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.NEEDS_ATTENTION

    step = bench.saga.next_step  # the sleeping sender's call comes back at last: Done
    transfer = bench.now(deposit).transfers[0]
    bench.deriv.books(transfer)
    with bench.world.unit_of_work():
        [row] = InMemoryTransactions(bench.world).get_many([deposit.id], deposit.type)
        row.transfers = bench.now(deposit).transfers
        credit = DepositCredit(bench.deriv, bench.ledger)
        credit.booked(row, row.transfers[0], ["9000"], at=bench.world.now)
        bench.saga.save([row], [])

    assert step is not None
    assert bench.now(deposit).status is S.COMPLETED
    assert books_agree(bench)


# --- crashes ----------------------------------------------------------------------------------------------------------


def crash_at(n: int) -> Callable[[str], None]:
    count = 0

    def point(where: str) -> None:
        nonlocal count
        count += 1
        if count == n:
            raise Crash(where)

    return point


@pytest.mark.parametrize("n", range(1, 25))
@pytest.mark.parametrize("in_silence", [False, True])
def test_a_crash_at_any_point_pays_once_and_the_deposit_still_ends(n: int, in_silence: bool) -> None:
    bench = Bench()
    deposit = bench.deposit()
    bench.crash_point = crash_at(n)
    if in_silence:
        bench.deriv.answers = [bench.deriv.books_in_silence]

    for _ in range(3):  # the event is delivered more than once; the customer pays as soon as the prompt is out
        bench.drive(deposit)
        bench.world.tick(seconds=8)
        if bench.mpesa.pushed and not bench.mpesa.book:
            bench.mpesa.pays(bench.mpesa.pushed[0].reference, deposit.amount)
            bench.mpesa.calls_back(deposit.id)
    bench.sweep(deposit, until=LONG)

    ended = bench.now(deposit)
    if bench.mpesa.pushed:
        assert ended.status is S.COMPLETED
        assert len(bench.deriv.book) == 1
    else:  # it died before the prompt could leave: the book shows nothing, twice
        assert ended.status is S.FAILED
    assert books_agree(bench)


def test_a_poisoned_deposit_harms_itself_alone_and_comes_before_a_person(bench: Bench) -> None:
    good, bad = bench.deposit(phone="254712345678"), bench.deposit(phone="254712345679")
    bench.drive(good, bad)
    for deposit in (good, bad):
        bench.mpesa.pays(bench.now(deposit).payments[0].reference, deposit.amount)
        bench.mpesa.calls_back(deposit.id)
    received = bench.ledger.post_deposit_received

    def poisoned(deposit: object, *args: object, **kwargs: object) -> None:
        if deposit == bad.id:
            raise ValueError("poison")
        received(deposit, *args, **kwargs)  # type: ignore[arg-type]

    bench.ledger.post_deposit_received = poisoned  # type: ignore[method-assign]
    with pytest.raises(StepsFailed):
        bench.drive(good, bad)
    assert bench.now(good).status is S.COMPLETED
    assert bench.now(bad).status is S.AWAITING_MPESA
    for _ in range(30):
        bench.world.tick(minutes=10)
        try:
            bench.drive(bad)
        except StepsFailed:
            continue

    assert bench.now(bad).status is S.NEEDS_ATTENTION
    assert -bench.world.balance("in-transit") == 0


def test_found_by_the_timer_while_the_sender_sleeps_is_not_paid_twice_when_it_wakes(bench: Bench) -> None:
    deposit = bench.deposit()
    paid_and_claimed(bench, deposit)
    bench.deriv.answers = [bench.deriv.books_in_silence]
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.COMPLETED

    transfer = bench.now(deposit).transfers[0]
    with bench.world.unit_of_work():
        [row] = InMemoryTransactions(bench.world).get_many([deposit.id], deposit.type)
        row.transfers = [transfer]
        step = SendCredit(bench.deriv, DepositCredit(bench.deriv, bench.ledger), bench.timing)
        step.conclude(row, transfer, Done(transfer.provider_transaction_id), at=bench.world.now)

    assert bench.now(deposit).status is S.COMPLETED
    assert books_agree(bench)
    assert Found((transfer.provider_transaction_id,)) == bench.deriv.find(transfer)
