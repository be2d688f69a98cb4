"""The withdrawal saga against the rows of its two tables up to the payout, on ports in memory."""

from datetime import timedelta

import pytest

from payments.domain.transaction import TransactionStatus as S
from payments.tests.withdrawals import LONG, books_agree, debited, in_transit, nothing_moved, paid, statuses
from shared_kernel.domain.events import AttentionNeeded, TransactionCompleted
from shared_kernel.domain.outcome import Absent, Accepted, Dead, Found, NotSent, Pending, Refused, Unknown, Unreadable
from shared_kernel.domain.requests import DerivLogin, DerivPlatform, DerivTransfer, Leg, RequestStatus
from tests.in_memory import CUSTOMER, WithdrawalBench


@pytest.fixture
def bench() -> WithdrawalBench:
    return WithdrawalBench()


# --- the way it should go ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("platform", list(DerivPlatform))
def test_a_withdrawal_completes_and_its_entries_balance_to_the_cent(platform: DerivPlatform) -> None:
    bench = WithdrawalBench(platform=platform)
    withdrawal = bench.withdrawal()

    bench.drive(withdrawal)

    ended = bench.now(withdrawal)
    assert ended.status is S.COMPLETED
    assert statuses(bench) == [
        "CREATED", "DERIV_DEBIT_SENT", "DERIV_DEBITED", "RATE_LOCKED", "MPESA_DISBURSING", "COMPLETED",
    ]  # fmt: skip
    assert books_agree(bench)
    assert in_transit(bench) == (0, 0)
    assert -bench.world.balance("fx usd") == 10_00
    assert bench.world.balance("utility") == -1270_00
    assert [type(e) for e in bench.world.events].count(TransactionCompleted) == 1
    assert not bench.world.reserved


def test_the_one_time_code_and_the_token_are_used_once_and_kept_by_nobody() -> None:
    bench = WithdrawalBench()
    withdrawal = bench.withdrawal()

    bench.drive(withdrawal)

    [sent] = bench.deriv.sent
    assert (sent.verification_code, sent.token) == ("123456", "a1-token")
    assert not bench.now(withdrawal).transfers[0].verification_code
    assert not any(transfer.token for transfer in bench.world.transfers.values())


def test_a_rest_debit_that_is_pending_is_waited_for_and_proven_by_the_agents_wallet_alone() -> None:
    bench = WithdrawalBench(platform=DerivPlatform.REST)
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [Accepted()]
    bench.deriv.lookups = [Pending()] * 6
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=1))
    assert bench.now(withdrawal).status is S.DERIV_DEBIT_SENT
    assert nothing_moved(bench)
    assert {transfer.token for transfer in bench.deriv.asked} == {"a1-token"}  # for the status call, while it lives

    bench.deriv.debits_login(bench.deriv.sent[0])
    bench.deriv.lookups = []
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert len(bench.deriv.sent) == 1
    assert books_agree(bench)


# --- what goes wrong with the debit -----------------------------------------------------------------------


@pytest.mark.parametrize("code", ["InvalidToken", "WithdrawalLimitExceeded", "InsufficientBalance"])
def test_a_refused_debit_fails_with_nothing_moved(bench: WithdrawalBench, code: str) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [Refused(code, "Deriv says no.")]

    bench.drive(withdrawal)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code, ended.failure_detail) == (S.FAILED, code, "Deriv says no.")
    assert nothing_moved(bench)
    assert not bench.world.reserved
    assert not ended.transfers[0].verification_code


def test_an_unknown_debit_is_never_sent_again_and_goes_on_once_the_agents_book_shows_it(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [bench.deriv.debits_in_silence]
    bench.deriv.lookups = [Absent(proven=False), Unreadable("down"), Absent(proven=True)]  # too early to be worth much

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert len(bench.deriv.sent) == 1
    assert books_agree(bench)


def test_an_unknown_debit_fails_only_after_its_absence_is_proven_past_the_latest_commit(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [Unknown("timeout")]

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=10))
    assert bench.now(withdrawal).status is S.DERIV_DEBIT_SENT
    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.FAILED, "deriv_not_debited")
    assert bench.world.now - withdrawal.created_at > timedelta(minutes=10)
    assert len(bench.deriv.sent) == 1


def test_a_debit_that_deriv_itself_calls_failed_is_failed_at_once(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers, bench.deriv.lookups = [Accepted()], [Pending(), Dead("failed")]

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=1))

    assert (bench.now(withdrawal).status, bench.now(withdrawal).failure_code) == (S.FAILED, "failed")
    assert nothing_moved(bench)


def test_a_debit_that_was_taken_back_before_it_was_seen_fails_with_nothing_posted(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers, bench.deriv.lookups = [Accepted()], [Found(("7000",), reverted=True)]

    bench.drive(withdrawal)

    assert (bench.now(withdrawal).status, bench.now(withdrawal).failure_code) == (S.FAILED, "reverted")
    assert not bench.world.entries


def test_a_debit_that_stays_unknown_comes_before_a_person_and_keeps_its_float(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers, bench.deriv.is_down = [Unknown("timeout")], True

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    assert len(bench.deriv.sent) == 1
    assert bench.world.reserved
    bench.deriv.is_down = False
    bench.resume(withdrawal)
    assert bench.now(withdrawal).status is S.FAILED  # by now its absence is proven


def test_a_debit_that_surely_did_not_leave_goes_again_with_the_same_code(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [NotSent("connect"), NotSent("rate", retry_after_s=20)]

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=2))

    assert bench.now(withdrawal).status is S.COMPLETED
    assert [(sent.fence, sent.verification_code) for sent in bench.deriv.sent] == [
        (fence, "123456") for fence in (2, 3, 4)
    ]
    assert len(bench.deriv.debits) == 1


def test_a_refusal_after_a_sender_was_lost_is_looked_up_and_no_failure(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [NotSent("connect")]
    bench.drive(withdrawal)
    row = bench.world.transfers[bench.now(withdrawal).transfers[0].id]
    row.was_unknown = True  # some sending of it had no known outcome
    bench.deriv.debits_login(bench.world.transfers[row.id].__class__(**{**vars(row), "token": "t"}))
    bench.deriv.answers = [Refused("InvalidToken", "The code is used up.")]

    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)


def test_a_code_that_ran_out_before_deriv_could_be_asked_expires_with_nothing_debited(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [NotSent("connect")] * 1000
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(hours=1))
    assert bench.now(withdrawal).status is S.DERIV_DEBIT_SENT

    bench.world.transfers[bench.now(withdrawal).transfers[0].id].verification_code = ""  # wiped within the hour
    bench.sweep(withdrawal, until=LONG)

    assert (bench.now(withdrawal).status, bench.now(withdrawal).failure_code) == (S.EXPIRED, "code_expired")
    assert nothing_moved(bench)
    assert not bench.world.reserved


def test_a_login_that_was_unbound_meanwhile_ends_it_with_nothing_debited(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.users.tokens.clear()

    bench.drive(withdrawal)

    assert (bench.now(withdrawal).status, bench.now(withdrawal).failure_code) == (S.EXPIRED, "login_unbound")
    assert not bench.deriv.sent
    assert not bench.world.reserved


@pytest.mark.parametrize("bound", ["CR100001", "CR100002"])
def test_a_login_is_debited_with_its_own_token_only(bench: WithdrawalBench, bound: str) -> None:
    """The customer bound another login between two withdrawals."""
    old, new = bench.withdrawal(account="CR100001"), bench.withdrawal(account="CR100002")
    bench.users.tokens[CUSTOMER] = (DerivLogin(DerivPlatform.WS_V3, bound), "token of the one that is bound")

    bench.drive(old, new)

    assert {sent.login.account for sent in bench.deriv.sent} == {bound}
    ended = {bench.now(w).login.account: bench.now(w).status for w in (old, new)}
    assert ended.pop(bound) is S.COMPLETED
    assert [*ended.values()] == [S.EXPIRED]


def test_a_debit_proven_after_the_failure_is_posted_and_goes_back(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [Unknown("timeout")]
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)
    assert bench.now(withdrawal).status is S.FAILED
    bench.deriv.debits_login(bench.deriv.sent[0])

    for _ in range(2):  # the recovery of orphans sees it in the agent's book, and sees it again
        bench.saga.look_again([withdrawal.id])

    assert bench.now(withdrawal).status is S.REVERSED
    assert books_agree(bench)
    assert in_transit(bench) == (0, 0)
    assert not bench.mpesa.paid_out


def test_a_failed_debit_that_is_looked_for_in_vain_is_asked_about_once_and_rests(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [Unknown("timeout")]
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)
    asked = len(bench.deriv.asked)

    bench.saga.look_again([withdrawal.id])

    assert len(bench.deriv.asked) <= asked + 2
    assert (bench.now(withdrawal).status, bench.now(withdrawal).next_step_at) == (S.FAILED, None)


def test_a_debit_that_turns_up_while_a_person_looks_goes_on(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers, bench.deriv.is_down = [bench.deriv.debits_in_silence], True
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)
    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    bench.deriv.is_down = False

    bench.saga.look_again([withdrawal.id])

    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)


def test_two_entries_for_one_debit_are_both_posted_and_come_before_a_person(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()

    def debits_twice(transfer: DerivTransfer) -> Unknown:
        bench.deriv.debits_login(transfer)
        bench.deriv.debits_login(transfer)
        return Unknown("dropped")

    bench.deriv.answers = [debits_twice]
    bench.drive(withdrawal)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.attention_from) == (S.NEEDS_ATTENTION, S.DERIV_DEBITED)
    assert books_agree(bench)
    assert -bench.world.balance("suspense usd") == withdrawal.amount.amount
    assert not bench.mpesa.sent


def test_two_entries_for_a_debit_that_had_failed_go_back_and_are_never_paid_out(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.deriv.answers = [Unknown("timeout")]
    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)
    for _ in range(2):
        bench.deriv.debits_login(bench.deriv.sent[0])

    bench.saga.look_again([withdrawal.id])
    assert bench.now(withdrawal).status is S.NEEDS_ATTENTION
    bench.resume(withdrawal)

    assert bench.now(withdrawal).status is S.REVERSED
    assert not bench.mpesa.sent
    assert books_agree(bench)


# --- between the debit and the payout ---------------------------------------------------------------------------------


def test_an_account_frozen_between_debit_and_payout_is_not_paid_and_comes_before_a_person(
    bench: WithdrawalBench,
) -> None:
    withdrawal = bench.withdrawal()
    bench.users.frozen_users.add(CUSTOMER)

    bench.drive(withdrawal)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code, ended.attention_from) == (
        S.NEEDS_ATTENTION,
        "account_frozen",
        S.RATE_LOCKED,
    )
    assert not bench.mpesa.sent
    assert bench.world.reserved
    bench.users.frozen_users.clear()
    bench.resume(withdrawal)
    assert bench.now(withdrawal).status is S.COMPLETED


def test_a_payout_that_surely_did_not_leave_is_not_sent_again_to_a_frozen_account(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [NotSent("connect")]
    bench.drive(withdrawal)
    bench.users.frozen_users.add(CUSTOMER)

    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).failure_code == "account_frozen"
    assert len([r for r in bench.mpesa.sent if r.leg is Leg.B2C_PAYOUT]) == 1


def test_a_payout_that_surely_did_not_leave_goes_again_under_the_same_id(bench: WithdrawalBench) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [NotSent("connect"), NotSent("500.003.02", retry_after_s=30)]

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=timedelta(minutes=2))

    sent = [r for r in bench.mpesa.sent if r.leg is Leg.B2C_PAYOUT]
    assert [request.fence for request in sent] == [1, 2, 3]
    assert len({request.reference for request in sent}) == 1
    assert bench.now(withdrawal).status is S.COMPLETED


@pytest.mark.parametrize("code", ["connect", "initiator_stopped"])
def test_a_payout_that_can_not_leave_for_a_day_comes_before_a_person(bench: WithdrawalBench, code: str) -> None:
    withdrawal = bench.withdrawal()
    bench.mpesa.payouts = [NotSent(code, retry_after_s=300)] * 1000

    bench.drive(withdrawal)
    bench.sweep(withdrawal, until=LONG)

    ended = bench.now(withdrawal)
    assert (ended.status, ended.failure_code) == (S.NEEDS_ATTENTION, "payment_not_sent")
    assert bench.world.reserved
    bench.mpesa.payouts = []
    bench.resume(withdrawal)  # the initiator was let again
    assert bench.now(withdrawal).status is S.COMPLETED
    assert len(bench.mpesa.paid_out) == 1


def test_a_debit_and_a_payout_are_seen_by_the_sweeper_alone(bench: WithdrawalBench) -> None:
    """No event is ever delivered, no callback ever comes."""
    withdrawal, bench.mpesa.is_silent = bench.withdrawal(), True

    bench.sweep(withdrawal, until=LONG)

    assert bench.now(withdrawal).status is S.COMPLETED
    assert books_agree(bench)


def test_debited_and_paid_are_what_the_other_tests_take_them_for(bench: WithdrawalBench) -> None:
    first, second = debited(bench), paid(bench)

    assert bench.now(first).payouts[0].status is RequestStatus.ACCEPTED
    assert bench.now(second).status is S.COMPLETED
    assert not any(isinstance(event, AttentionNeeded) for event in bench.world.events)
