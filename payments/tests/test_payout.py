"""A withdrawal's payout against what M-Pesa can do and say: claims, proofs, silence, lies, and what comes late."""

from datetime import timedelta
from itertools import pairwise

import pytest

from payments.application.mpesa_payment import unsettled
from payments.domain.transaction import TransactionStatus as S
from payments.tests.withdrawals import LONG, books_agree, debited, in_transit, paid, payout_of
from shared_kernel.domain.money import Currency, Money
from shared_kernel.domain.outcome import Refused, Unknown
from shared_kernel.domain.requests import Blame, Leg, MpesaClaim, RequestStatus
from tests.in_memory import FEE, WithdrawalBench


@pytest.fixture
def bench() -> WithdrawalBench:
    return WithdrawalBench()


def asked(bench: WithdrawalBench) -> int:
    return len([request for request in bench.mpesa.sent if request.leg is Leg.STATUS_QUERY])


# --- a success --------------------------------------------------------------------------------------------------------


def test_a_success_is_booked_on_the_claim_and_confirmed_within_the_day_with_its_fee(bench: WithdrawalBench) -> None:
    withdrawal = paid(bench)
    assert bench.now(withdrawal).status is S.COMPLETED
    assert not asked(bench)
    assert not bench.world.balance("fees")  # a fee is known by proof alone

    bench.sweep(withdrawal, until=LONG)

    assert asked(bench) == 1
    assert bench.world.now - withdrawal.created_at < timedelta(hours=24)
    assert bench.world.balance("fees") == -bench.world.balance("charges paid") == FEE.amount
    assert (bench.now(withdrawal).status, bench.now(withdrawal).next_step_at) == (S.COMPLETED, None)
    assert payout_of(bench, withdrawal).code == "confirmed"


def test_a_success_proven_at_once_posts_its_fee_and_is_not_asked_about_again(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.pays_out_in_silence]

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert bench.world.balance("fees") == FEE.amount
    assert asked(bench) == 1


def test_a_forged_success_is_denied_shown_to_a_person_reserved_again_and_payable(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    bench.mpesa.refused[payout_of(bench, withdrawal).reference] = Blame.FLOAT
    bench.mpesa.forges(payout_of(bench, withdrawal), fee=Money(99_00, Currency.KES))
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.COMPLETED  # booked on the lie

    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code, ended.attention_from) == (
        S.NEEDS_ATTENTION, "payout_denied", S.MPESA_DISBURSING,
    )  # fmt: skip
    assert books_agree(bench)
    assert bench.world.balance("fees") == 0
    assert in_transit(bench) == (0, 1270_00)
    assert bench.world.reserved
    bench.resume(withdrawal)
    bench.sweep(withdrawal, until=LONG)
    assert bench.now(withdrawal).status is S.COMPLETED
    assert len(bench.mpesa.paid_out) == 1
    assert books_agree(bench)
    assert not bench.world.reserved


def test_a_denied_payout_that_was_made_after_all_is_booked_again(bench: WithdrawalBench) -> None:
    withdrawal = paid(bench)
    reference = payout_of(bench, withdrawal).reference
    bench.mpesa.fates[reference] = "Declined"
    bench.sweep(withdrawal, until=LONG)
    assert bench.now(withdrawal).failure_code == "payout_denied"

    bench.mpesa.fates.clear()  # M-Pesa's own answer was wrong; its success comes once more
    bench.world.tick(seconds=1)
    bench.mpesa.pays_out(payout_of(bench, withdrawal))
    bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)


def test_fifty_callbacks_have_one_effect(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    request = payout_of(bench, withdrawal)

    for _ in range(50):
        bench.mpesa.pays_out(request)
        bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert bench.world.balance("utility") == -1270_00
    assert not asked(bench)


def test_a_callback_before_the_answer_counts_and_the_lost_answer_after_it_changes_nothing(
    bench: WithdrawalBench,
) -> None:
    withdrawal = bench.withdrawal()

    def early(request: object) -> Unknown:
        bench.mpesa.pays_out(request)  # type: ignore[arg-type]
        bench.drive(withdrawal)  # its event is delivered while the answer travels
        return Unknown("timeout")

    bench.mpesa.payouts = [early]
    bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert payout_of(bench, withdrawal).status is RequestStatus.DONE
    assert books_agree(bench)


@pytest.mark.parametrize("shillings", [1200, 1300])
def test_another_amount_that_result_and_answer_tell_is_posted_as_paid_and_comes_before_a_person(
    bench: WithdrawalBench, shillings: int
) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.pays_out_another(Money(shillings * 100, Currency.KES))]

    bench.drive(withdrawal)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "paid_another_amount")
    assert bench.world.balance("utility") == -shillings * 100
    assert bench.world.balance("suspense") == shillings * 100 - 1270_00
    assert in_transit(bench) == (0, 0)
    assert asked(bench) == 1
    assert not bench.world.reserved


def test_a_payout_booked_on_a_lie_and_proven_of_another_amount_is_posted_anew(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    told = Money(1200_00, Currency.KES)
    bench.mpesa.paid_out[payout_of(bench, withdrawal).reference] = told
    bench.mpesa.forges(payout_of(bench, withdrawal))
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.COMPLETED

    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "paid_another_amount")
    assert bench.world.balance("utility") == -told.amount
    assert bench.world.balance("suspense") == -70_00
    assert in_transit(bench) == (0, 0)
    assert bench.world.balance("fees") == FEE.amount
    assert ended.next_step_at is None


def test_an_answer_of_another_amount_does_not_settle_what_is_claimed_of_a_dead_payout(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.OURS)]
    bench.drive(withdrawal)
    dead = payout_of(bench, withdrawal)
    assert dead.status.is_dead
    bench.world.tick(minutes=1)
    bench.mpesa.forges(dead)
    bench.world.tick(minutes=1)
    other = Money(1200_00, Currency.KES)
    query = bench.now(withdrawal).at_mpesa(Leg.STATUS_QUERY)[-1]
    query.claims.append(MpesaClaim("0", bench.world.now, other, "UKB0000009", fate="Completed"))

    assert unsettled(bench.now(withdrawal), payout_of(bench, withdrawal))


def test_another_amount_that_one_answer_alone_tells_is_asked_about_again_and_a_repeat_of_it_is_no_second_one(
    bench: WithdrawalBench,
) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.pays_out_in_silence]
    bench.drive(withdrawal)
    told = bench.mpesa.paid_out[payout_of(bench, withdrawal).reference]
    bench.mpesa.paid_out[payout_of(bench, withdrawal).reference] = told + Money(1_00, Currency.KES)
    bench.sweep(withdrawal, until=LONG, stop=lambda _: asked(bench) == 1)
    query = bench.now(withdrawal).at_mpesa(Leg.STATUS_QUERY)[-1]
    query.claims.append(query.claims[-1])
    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.MPESA_DISBURSING
    bench.mpesa.paid_out[payout_of(bench, withdrawal).reference] = told

    bench.sweep(withdrawal, until=LONG, stop=lambda _: asked(bench) == 2)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)


@pytest.mark.parametrize(("shillings", "suspense"), [(1200, -70_00), (1300, 30_00)])
def test_another_amount_that_is_proven_is_posted_with_the_difference_in_suspense(
    bench: WithdrawalBench, shillings: int, suspense: int
) -> None:
    withdrawal = debited(bench)
    amount = Money(shillings * 100, Currency.KES)
    bench.mpesa.paid_out[payout_of(bench, withdrawal).reference] = amount
    bench.mpesa.tells(payout_of(bench, withdrawal), MpesaClaim("0", bench.world.now, amount, "UKB0000001"))

    bench.drive(withdrawal)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "paid_another_amount")
    assert books_agree(bench)
    assert in_transit(bench) == (0, 0)
    assert bench.world.balance("suspense") == suspense
    assert not bench.world.reserved  # what left is posted: a reservation would count it twice


# --- a failure --------------------------------------------------------------------------------------------------------


def test_a_failure_by_the_recipient_goes_back_once_proven_with_the_exchange_mirrored(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.RECIPIENT)]

    bench.drive(withdrawal)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.REVERSED, "Declined")
    assert asked(bench) == 1
    assert books_agree(bench)
    assert in_transit(bench) == (0, 0)
    for account in ("fx usd", "fx kes", "margin", "rounding"):
        assert bench.world.balance(account) == 0
    assert [transfer.amount for transfer in bench.deriv.sent if transfer.leg is Leg.DERIV_CREDIT_BACK] == [
        withdrawal.amount
    ]
    assert not bench.world.reserved


@pytest.mark.parametrize("blame", list(Blame))
def test_a_forged_failure_gives_nothing_back_and_opens_no_second_payout(bench: WithdrawalBench, blame: Blame) -> None:
    withdrawal = debited(bench)
    request = payout_of(bench, withdrawal)
    bench.mpesa.paid_out[request.reference] = request.amount

    bench.mpesa.forges(request, "2040", blame=blame)
    bench.drive(withdrawal)

    assert bench.now(withdrawal).status is S.COMPLETED  # Transaction Status says so
    assert len(bench.now(withdrawal).payouts) == 1
    assert not bench.deriv.book


@pytest.mark.parametrize("blame", list(Blame))
def test_a_failure_that_can_not_be_proven_waits_and_comes_before_a_person(bench: WithdrawalBench, blame: Blame) -> None:
    withdrawal = debited(bench)
    bench.mpesa.status_is_down = True

    bench.mpesa.forges(payout_of(bench, withdrawal), "2040", blame=blame)
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "payment_unknown")
    assert len(ended.payouts) == 1
    assert not bench.deriv.book
    assert bench.world.reserved


@pytest.mark.parametrize("blame", [Blame.FLOAT, Blame.CREDENTIAL])
def test_a_failure_on_our_side_queues_with_the_float_reserved_and_pays_by_a_new_id(
    bench: WithdrawalBench, blame: Blame
) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(blame, "1")]

    bench.drive(withdrawal)
    assert bench.now(withdrawal).status is S.RATE_LOCKED
    assert bench.world.reserved
    bench.sweep(withdrawal, until=timedelta(hours=1))

    first, second = bench.now(withdrawal).payouts
    assert (first.status, second.status) == (RequestStatus.CLOSED, RequestStatus.DONE)
    assert first.reference != second.reference
    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)


def test_a_float_that_stays_too_low_for_a_day_comes_before_a_person(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.FLOAT, "1") for _ in range(1000)]

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "payout_waits:float")
    assert bench.world.reserved
    bench.mpesa.payouts = []
    bench.resume(withdrawal)
    assert bench.now(withdrawal).status is S.COMPLETED
    assert len(bench.mpesa.paid_out) == 1


def test_a_failure_of_unknown_blame_comes_before_a_person_with_the_float_reserved(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [bench.mpesa.declines(Blame.NONE, "9876")]

    bench.drive(withdrawal)

    assert bench.now(withdrawal).failure_code == "payout_refused:Declined"
    assert in_transit(bench) == (0, 1270_00)
    assert bench.world.reserved


def test_a_refusal_at_the_gateway_comes_before_a_person_and_nothing_goes_back_by_itself(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [Refused("400.002.02")]

    bench.drive(withdrawal)

    assert bench.now(withdrawal).failure_code == "payout_refused:400.002.02"
    assert not bench.deriv.book


# --- unknown ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["pays_out_in_silence", "takes", "times_out", "lost", "duplicate"])
def test_an_unknown_payout_is_asked_about_at_widening_intervals_and_shown_after_a_day(
    bench: WithdrawalBench, how: str
) -> None:
    """Nothing is found for it: `not found` is unknown."""
    withdrawal = bench.withdrawal()
    lost = {"lost": Unknown("timeout"), "duplicate": Unknown("500.002.1001")}
    bench.mpesa.payouts = [lost[how] if how in lost else getattr(bench.mpesa, how)]
    bench.mpesa.status_is_down = how == "pays_out_in_silence"

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "payment_unknown")
    assert timedelta(hours=24) < bench.world.now - withdrawal.created_at < timedelta(hours=26)
    assert len(ended.payouts) == 1
    assert not bench.deriv.book
    assert bench.world.reserved
    at = [request.created_at for request in bench.mpesa.sent if request.leg is Leg.STATUS_QUERY]
    gaps = [(later - sooner).total_seconds() for sooner, later in pairwise(at)]
    assert gaps == sorted(gaps)
    assert gaps[-1] == 3600
    assert len(gaps) < 40


@pytest.mark.parametrize("how", ["takes", "times_out", "lost"])
def test_an_unknown_payout_that_was_made_completes_by_transaction_status(bench: WithdrawalBench, how: str) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [Unknown("timeout") if how == "lost" else getattr(bench.mpesa, how)]
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=20))
    assert bench.now(withdrawal).status is S.MPESA_DISBURSING

    bench.mpesa.paid_out[payout_of(bench, withdrawal).reference] = withdrawal.payout
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)
    assert len(bench.now(withdrawal).payouts) == 1


@pytest.mark.parametrize("fate", ["Initiated", "Authorized", "Pending"])
def test_a_fate_that_is_not_final_proves_nothing(bench: WithdrawalBench, fate: str) -> None:
    withdrawal = debited(bench)
    bench.mpesa.fates[payout_of(bench, withdrawal).reference] = fate

    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).failure_code == "payment_unknown"


@pytest.mark.parametrize("fate", ["Declined", "Cancelled", "Expired"])
def test_a_new_id_exists_only_after_the_old_one_is_proven_dead(bench: WithdrawalBench, fate: str) -> None:
    withdrawal = debited(bench)
    bench.mpesa.forges(payout_of(bench, withdrawal), "1", blame=Blame.FLOAT)
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(hours=2))
    assert len(bench.now(withdrawal).payouts) == 1

    bench.mpesa.fates[payout_of(bench, withdrawal).reference] = fate
    bench.sweep(withdrawal, until=LONG)

    assert [payout.code for payout in bench.now(withdrawal).payouts] == [fate, "confirmed"]
    assert bench.now(withdrawal).status is S.COMPLETED


def test_a_person_who_resumes_an_unknown_payout_has_it_asked_about_and_not_sent(bench: WithdrawalBench) -> None:
    withdrawal = debited(bench)
    bench.sweep(withdrawal, until=LONG)
    before = asked(bench)

    bench.resume(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).failure_code == "payment_unknown"
    assert asked(bench) == before + 1
    assert len([r for r in bench.mpesa.sent if r.leg is Leg.B2C_PAYOUT]) == 1
