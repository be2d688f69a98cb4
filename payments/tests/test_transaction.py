"""A deposit's life: which status may follow which, and that no order of what happens ever pays twice."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given, settings, strategies as st

from payments.domain.transaction import (
    FINAL,
    NEXT,
    UNPAID,
    IllegalTransition,
    NothingToResume,
    TransactionStatus as S,
)
from payments.tests.factories import a_deposit, a_rate, a_withdrawal
from shared_kernel.domain.events import AttentionNeeded, TransactionCompleted, TransactionCreated, TransactionEnded
from shared_kernel.domain.identifiers import DerivTransferId
from shared_kernel.domain.money import Money
from shared_kernel.domain.outcome import NotSent, Refused, Unknown
from tests.in_memory import Bench, Crash

AT = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
LATER = AT + timedelta(minutes=1)

# The life cycle a second time, as it was agreed on: a change of `NEXT` is a change here, and meant.
ALLOWED = {
    S.CREATED: "AWAITING_MPESA REJECTED EXPIRED NEEDS_ATTENTION",
    S.UNDER_REVIEW: "CREATED REJECTED EXPIRED",
    S.AWAITING_MPESA: "MPESA_CONFIRMED REFUND_PENDING FAILED EXPIRED NEEDS_ATTENTION",
    S.MPESA_CONFIRMED: "DERIV_TRANSFER_SENT REFUND_PENDING REFUNDED NEEDS_ATTENTION",
    S.DERIV_TRANSFER_SENT: "COMPLETED REFUND_PENDING NEEDS_ATTENTION",
    S.COMPLETED: "NEEDS_ATTENTION",
    S.REJECTED: "",
    S.EXPIRED: "MPESA_CONFIRMED REFUND_PENDING NEEDS_ATTENTION",
    S.FAILED: "MPESA_CONFIRMED REFUND_PENDING NEEDS_ATTENTION",
    S.REFUND_PENDING: "COMPLETED REFUNDED NEEDS_ATTENTION",
    S.REFUNDED: "NEEDS_ATTENTION",
    S.NEEDS_ATTENTION: "CREATED AWAITING_MPESA MPESA_CONFIRMED DERIV_TRANSFER_SENT COMPLETED EXPIRED FAILED "
    "REFUND_PENDING REFUNDED",
}
WITHDRAWN = {
    S.CREATED: "DERIV_DEBIT_SENT REJECTED EXPIRED NEEDS_ATTENTION",
    S.UNDER_REVIEW: "CREATED REJECTED EXPIRED",
    S.DERIV_DEBIT_SENT: "DERIV_DEBITED FAILED EXPIRED NEEDS_ATTENTION",
    S.DERIV_DEBITED: "RATE_LOCKED CREDIT_BACK_PENDING FAILED NEEDS_ATTENTION",
    S.RATE_LOCKED: "MPESA_DISBURSING COMPLETED CREDIT_BACK_PENDING NEEDS_ATTENTION",
    S.MPESA_DISBURSING: "COMPLETED RATE_LOCKED CREDIT_BACK_PENDING NEEDS_ATTENTION",
    S.COMPLETED: "NEEDS_ATTENTION",
    S.REJECTED: "",
    S.EXPIRED: "DERIV_DEBITED NEEDS_ATTENTION",
    S.FAILED: "DERIV_DEBITED NEEDS_ATTENTION",
    S.CREDIT_BACK_PENDING: "REVERSED COMPLETED NEEDS_ATTENTION",
    S.REVERSED: "NEEDS_ATTENTION",
    S.NEEDS_ATTENTION: "CREATED DERIV_DEBIT_SENT DERIV_DEBITED RATE_LOCKED MPESA_DISBURSING COMPLETED EXPIRED FAILED "
    "CREDIT_BACK_PENDING REVERSED",
}
LIVES = {a_deposit: ALLOWED, a_withdrawal: WITHDRAWN}
EACH = [(a_new, status) for a_new, life in LIVES.items() for status in life]


def in_status(status, a_new=a_deposit, **over):
    deposit = a_new(at=AT, status=status, **over)
    deposit.pull_events()
    deposit.pull_transitions()
    deposit.touched = False
    return deposit


VERBS = {
    S.REJECTED: lambda deposit: deposit.reject("code", "detail", at=LATER),
    S.EXPIRED: lambda deposit: deposit.expire(at=LATER),
    S.MPESA_CONFIRMED: lambda deposit: deposit.confirm(at=LATER),
    S.FAILED: lambda deposit: deposit.fail("1032", "detail", at=LATER),
    S.COMPLETED: lambda deposit: deposit.complete(DerivTransferId("9000"), at=LATER),
    S.REFUND_PENDING: lambda deposit: deposit.give_back("code", "detail", at=LATER),
    S.NEEDS_ATTENTION: lambda deposit: deposit.need_attention("reason", at=LATER),
}


# --- the life cycle ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a_new", "before"), EACH)
@pytest.mark.parametrize("after", S)
def test_a_status_follows_another_only_where_the_life_cycle_says_so(a_new, before, after):
    deposit = in_status(before, a_new)

    if after in LIVES[a_new][before].split():
        deposit._move_to(after, at=LATER)
        [step] = deposit.pull_transitions()
        assert (step.before, step.after, step.at) == (before, after, LATER)
        assert (deposit.status, deposit.updated_at, deposit.touched) == (after, LATER, True)
    else:
        with pytest.raises(IllegalTransition):
            deposit._move_to(after, at=LATER)
        assert deposit.status is before


@pytest.mark.parametrize(("before", "verb"), list(product(ALLOWED, VERBS)))
def test_a_verb_out_of_place_is_refused_and_leaves_no_event_and_no_line_of_history(before, verb):
    deposit = in_status(before)
    if verb is before is S.NEEDS_ATTENTION or verb in ALLOWED[before].split():
        VERBS[verb](deposit)
        assert deposit.status is verb
    else:
        with pytest.raises(IllegalTransition):
            VERBS[verb](deposit)
        assert (deposit.status, deposit.pull_transitions(), deposit.pull_events()) == (before, [], [])


def test_every_status_leads_to_an_end_or_before_a_person():
    def reachable(table, status, seen):
        for after in table[status] - seen:
            seen |= {after} | reachable(table, after, seen | {after})
        return seen

    for table in NEXT.values():
        for status in set(table) - FINAL:
            assert reachable(table, status, set()) & FINAL


@pytest.mark.parametrize(("a_new", "status"), [(a, s) for a, s in EACH if "NEEDS_ATTENTION" in LIVES[a][s].split()])
def test_whatever_comes_before_a_person_can_be_sent_back(a_new, status):
    deposit = in_status(status, a_new)
    deposit.need_attention("looked at", at=LATER)
    assert deposit.attention_from is status

    deposit.resume(why="asked the customer", at=LATER)

    assert (deposit.status, deposit.attention_from, deposit.failure_code) == (status, None, "")
    assert deposit.pull_transitions()[-1].why == "asked the customer"
    assert (deposit.next_step_at, deposit.attempts) == (LATER, 0)


@pytest.mark.parametrize("status", [s for s in ALLOWED if s is not S.NEEDS_ATTENTION])
def test_only_what_needs_attention_is_resumed(status):
    with pytest.raises(NothingToResume):
        in_status(status).resume(why="", at=LATER)


def test_a_second_reason_for_attention_keeps_where_it_came_from_and_tells_again():
    deposit = in_status(S.DERIV_TRANSFER_SENT)

    deposit.need_attention("transfer_unknown", at=LATER)
    deposit.need_attention("credited_twice", at=LATER)

    assert (deposit.attention_from, deposit.failure_code) == (S.DERIV_TRANSFER_SENT, "credited_twice")
    assert [event.reason for event in deposit.pull_events()] == ["transfer_unknown", "credited_twice"]
    assert len(deposit.pull_transitions()) == 1


@pytest.mark.parametrize(("status", "again"), [(S.AWAITING_MPESA, False), (S.FAILED, True), (S.EXPIRED, True)])
@pytest.mark.parametrize("shown", [False, True])
def test_a_late_payment_reserves_its_payout_again_if_it_had_been_released(status, again, shown):
    deposit = in_status(status)
    if shown:
        deposit.need_attention("payment_contradictory", at=LATER)

    deposit.confirm(at=LATER)

    assert (deposit.status, deposit.reserve_again) == (S.MPESA_CONFIRMED, again)
    assert deposit.attention_from is None


def test_a_payment_after_the_rate_s_end_is_never_converted():
    deposit = in_status(S.FAILED, rate=a_rate(at=AT, holds=timedelta(seconds=60)))

    deposit.confirm(at=LATER)

    assert (deposit.status, deposit.failure_code, deposit.is_paid) == (S.REFUND_PENDING, "rate_expired", True)


@pytest.mark.parametrize("verb", [S.REJECTED, S.EXPIRED, S.NEEDS_ATTENTION])
def test_what_ended_or_came_before_a_person_has_no_next_step(verb):
    deposit = in_status(S.CREATED)
    assert deposit.next_step_at is not None

    VERBS[verb](deposit)

    assert deposit.next_step_at is None


def test_each_change_tells_what_followers_need():
    created = a_deposit(at=AT)
    completed, failed = in_status(S.DERIV_TRANSFER_SENT), in_status(S.AWAITING_MPESA)
    completed.complete(DerivTransferId("9000"), at=LATER)
    failed.fail("1032", "", at=LATER)
    shown = in_status(S.CREATED)
    shown.need_attention("reason", at=LATER)

    told = [deposit.pull_events() for deposit in (created, completed, failed, shown)]

    assert [[type(event) for event in some] for some in told] == [
        [TransactionCreated], [TransactionCompleted], [TransactionEnded], [AttentionNeeded],
    ]  # fmt: skip
    assert told[1][0].payout == completed.payout
    assert (told[2][0].status, told[2][0].reason) == ("FAILED", "1032")


def test_waiting_moves_what_the_customer_is_told_to_expect():
    deposit = in_status(S.DERIV_TRANSFER_SENT)
    late = deposit.expected_by + timedelta(hours=1)

    deposit.wait(LATER, at=AT)
    assert deposit.expected_by == AT + timedelta(minutes=5)
    deposit.wait(late, at=AT)

    assert deposit.expected_by > late
    assert deposit.attempts == 2


def test_unpaid_and_final_are_what_they_say():
    paid = {S.MPESA_CONFIRMED, S.DERIV_TRANSFER_SENT, S.COMPLETED, S.REFUND_PENDING, S.REFUNDED, S.NEEDS_ATTENTION}
    debited = {S.DERIV_DEBITED, S.RATE_LOCKED, S.MPESA_DISBURSING, S.CREDIT_BACK_PENDING, S.REVERSED}
    reopened = {S.NEEDS_ATTENTION, S.MPESA_CONFIRMED, S.REFUND_PENDING, S.DERIV_DEBITED}

    assert UNPAID | paid | debited == set(S)
    assert all(not table[status] - reopened for table in NEXT.values() for status in FINAL & set(table))


# --- any order of what happens ----------------------------------------------------------------------------------------


class Story:
    """One or two deposits on one phone, with everything that may happen to them, in the order that it is told."""

    def __init__(self, pushes, transfers, crash, count):
        self.bench, self.late, self.paid, self.not_shown = Bench(), [], set(), set()
        self.deposits = [self.bench.deposit() for _ in range(count)]
        self.bench.mpesa.answers = [self._push(kind) for kind in pushes]
        self.bench.deriv.answers = [self._transfer(kind) for kind in transfers]
        self.left, self.bench.crash_point = crash, self._crash

    def _crash(self, where):
        self.left -= 1
        if self.left == 0:
            raise Crash(where)

    def _push(self, kind):
        answer = {"lost": Unknown("timeout"), "not_sent": NotSent("connect"), "refused": Refused("500.001.1001")}[kind]

        def push(request):
            if kind != "lost":
                self.not_shown.add((request.id, request.fence))
            return answer

        return push

    def _transfer(self, kind):
        def times_out(transfer):
            self.late.append(transfer)
            return Unknown("timeout")

        return {
            "silent": self.bench.deriv.books_in_silence, "late": times_out, "not_sent": NotSent("connect"),
            "refused": Refused("PaymentAgentTransferError"), "done": self.bench.deriv.books,
        }[kind]  # fmt: skip

    def drive(self):
        self.bench.drive(*self.deposits)

    def pay(self):
        """The customer types the PIN at the first prompt that reached the phone."""
        for push in self.bench.mpesa.pushed:
            if push.reference not in self.paid and (push.id, push.fence) not in self.not_shown:
                self.paid.add(push.reference)
                self.bench.mpesa.pays(push.reference, push.amount, f"UKM{len(self.paid):07}")
                return

    def cancel(self):
        for push in self.bench.mpesa.pushed:
            self.bench.mpesa.settled.setdefault(push.reference, Refused("1032"))

    def callback(self, code="0", agrees=True):
        self.bench.world.tick(seconds=1)
        for deposit in self.deposits:
            self.bench.mpesa.calls_back(deposit.id, code=code, agrees=agrees)

    def forge(self):
        self.callback("1032")

    def mismatch(self):
        self.callback(agrees=False)

    def deriv_books_late(self):
        for transfer in self.late:
            if self.bench.world.now - transfer.created_at < timedelta(minutes=10):
                self.bench.deriv.books(transfer)
        self.late = []

    def wait(self, minutes=1):
        self.bench.world.tick(minutes=minutes)
        self.drive()

    def wait_long(self):
        self.wait(40)

    def sweep(self):
        for deposit in self.deposits:
            self.bench.sweep(deposit, until=timedelta(minutes=5))

    def ends(self):
        """Nothing crashes any more; the last callbacks come; everything has its time."""
        self.bench.mpesa.answers, self.bench.crash_point = [], lambda where: None
        for _ in range(2):
            for deposit in self.deposits:
                self.bench.sweep(deposit, until=timedelta(hours=60))
            self.callback()
            self.drive()


HAPPENINGS = [
    "drive",
    "pay",
    "cancel",
    "callback",
    "forge",
    "mismatch",
    "deriv_books_late",
    "wait",
    "wait_long",
    "sweep",
]


def pays_once_and_books_agree(story):
    world, bench = story.bench.world, story.bench
    for deposit in story.deposits:
        transfers = [transfer for transfer in world.transfers.values() if transfer.transaction_id == deposit.id]
        references = {transfer.reference for transfer in transfers}
        assert sum(reference in references for reference, *_ in bench.deriv.book) <= 1
    for account, sign, movements in (
        ("mpesa", 1, [payment.amount for payment in bench.mpesa.book]),
        ("deriv", -1, [amount for _, amount, _ in bench.deriv.book]),
    ):
        posted, moved = sign * world.balance(account), sum(amount.amount for amount in movements)
        assert posted <= moved  # nothing is posted that did not move


@settings(max_examples=50, deadline=None)
@given(
    start=st.sampled_from([[], ["drive", "pay", "callback", "drive"]]),
    happenings=st.lists(st.sampled_from(HAPPENINGS), max_size=20),
    pushes=st.lists(st.sampled_from(["lost", "not_sent", "refused"]), max_size=2),
    transfers=st.lists(st.sampled_from(["silent", "late", "not_sent", "refused", "done"]), max_size=4),
    crash=st.integers(0, 40),
    count=st.integers(1, 2),
)
def test_in_any_order_and_repetition_a_deposit_is_paid_out_at_most_once_and_ends_with_books_that_agree(
    start, happenings, pushes, transfers, crash, count
):
    story = Story(pushes, transfers, crash, count)
    for happening in start + happenings:
        getattr(story, happening)()
        pays_once_and_books_agree(story)

    story.ends()

    pays_once_and_books_agree(story)
    world, bench = story.bench.world, story.bench
    kept = [payment for payment in bench.mpesa.book if payment.receipt not in bench.mpesa.reversed]
    assert world.balance("mpesa") == sum(payment.amount.amount for payment in kept)
    assert world.balance("deriv") == -sum(amount.amount for _, amount, _ in bench.deriv.book)
    waiting = Money(0, story.deposits[0].amount.currency)
    for deposit in map(bench.now, story.deposits):
        assert deposit.status in FINAL | {S.REFUND_PENDING, S.NEEDS_ATTENTION}
        paid = deposit.payments and deposit.payments[0].reference in story.paid
        assert deposit.is_paid == bool(paid)
        if deposit.is_paid and deposit.status is not S.COMPLETED:
            assert deposit.status in {S.REFUND_PENDING, S.REFUNDED, S.NEEDS_ATTENTION}
            if deposit.status is not S.REFUNDED:
                waiting += deposit.amount
        if deposit.status in FINAL:
            assert deposit.id not in world.reserved
    assert -world.balance("in-transit") == waiting.amount
