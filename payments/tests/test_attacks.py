"""Attempts to make a deposit pay twice, lose money, guess, or stall; each was found by reading against the promises."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from payments.application.deriv_credit import MOST_TRANSFERS
from payments.domain.transaction import FINAL, Transaction, TransactionStatus as S
from shared_kernel.application.runner import StepsFailed
from shared_kernel.domain.outcome import (
    Absent,
    Accepted,
    Done,
    Found,
    Lookup,
    NotSent,
    Outcome,
    Refused,
    Unknown,
    Unreadable,
)
from shared_kernel.domain.requests import DerivTransfer, MpesaPayment, MpesaRequest, RequestStatus
from tests.in_memory import Bench, Crash

LONG = timedelta(hours=60)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def reference_of(bench: Bench, deposit: Transaction) -> str:
    return bench.now(deposit).payments[0].reference


def pays(bench: Bench, deposit: Transaction) -> None:
    bench.mpesa.pays(reference_of(bench, deposit), deposit.amount)


# --- two workers on one deposit -------------------------------------------------------------------------------------


def test_a_second_worker_whose_query_comes_back_later_disturbs_nothing(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.world.tick(seconds=8)
    pays(bench, deposit)
    bench.mpesa.calls_back(deposit.id)
    ask, slow = bench.mpesa.query, [True]

    def query(request: MpesaRequest) -> Outcome:
        answer = ask(request)
        if slow and slow.pop():  # while this one's answer travels, another worker does it all
            bench.drive(deposit)
        return answer

    bench.mpesa.query = query  # type: ignore[method-assign]
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED
    assert len(bench.deriv.sent) == 1


def test_a_second_worker_does_not_put_off_a_transfer_that_is_under_way(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.world.tick(seconds=8)
    pays(bench, deposit)
    bench.mpesa.calls_back(deposit.id)
    bench.deriv.answers = [Unknown("timeout")]
    ask, slow = bench.mpesa.payments, [True]

    def payments(request: MpesaRequest) -> Sequence[MpesaPayment] | Unreadable:
        answer = ask(request)
        if slow and slow.pop():
            bench.drive(deposit)
        return answer

    bench.mpesa.payments = payments  # type: ignore[method-assign]
    prompt = next(iter(bench.world.prompts.values()))
    prompt.status = RequestStatus.UNKNOWN
    bench.drive(deposit)

    left = bench.now(deposit)
    assert left.status is S.DERIV_TRANSFER_SENT
    assert left.next_step_at is not None
    assert left.next_step_at - bench.world.now == bench.timing.nth(bench.timing.deriv_asks_s, 0)


# --- absences ---------------------------------------------------------------------------------------------------------


def test_a_prompt_that_went_out_late_is_not_closed_by_two_readings_in_one_minute(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [NotSent("connect", retry_after_s=1600), Unknown("timeout")]
    bench.drive(deposit)
    bench.sweep(deposit, until=timedelta(seconds=1610), stop=lambda t: len(bench.mpesa.pushed) == 2)
    assert len(bench.mpesa.pushed) == 2  # only now was the customer asked

    for _ in range(3):
        bench.world.tick(seconds=80)
        bench.mpesa.calls_back(deposit.id, code="1037")  # a claim, whoever made it
        bench.drive(deposit)

    assert bench.now(deposit).status is S.AWAITING_MPESA


def test_two_readings_count_only_a_quarter_of_an_hour_apart_also_after_the_book_was_down(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers, bench.mpesa.book_is_down = [Unknown("timeout")], True
    bench.drive(deposit)
    bench.sweep(deposit, until=timedelta(hours=2))

    bench.mpesa.book_is_down = False
    for _ in range(3):
        bench.world.tick(seconds=1)
        bench.mpesa.calls_back(deposit.id, code="1037")
        bench.drive(deposit)

    assert bench.now(deposit).status is S.AWAITING_MPESA
    bench.sweep(deposit, until=timedelta(minutes=40))
    assert bench.now(deposit).status is S.FAILED


# --- late proof -----------------------------------------------------------------------------------------------------


def failed(bench: Bench) -> Transaction:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.settled[reference_of(bench, deposit)] = Refused("1037")
    bench.sweep(deposit, until=timedelta(minutes=1))
    assert bench.now(deposit).status is S.FAILED
    return deposit


@pytest.mark.parametrize("down", [False, True])
def test_a_payment_proven_by_the_query_alone_after_the_failure_is_never_dropped(bench: Bench, down: bool) -> None:
    deposit = failed(bench)
    bench.world.tick(minutes=1)
    pays(bench, deposit)
    [late], bench.mpesa.book, bench.mpesa.book_is_down = bench.mpesa.book, [], down  # the book lags behind

    bench.mpesa.calls_back(deposit.id, agrees=False)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert bench.mpesa.busy_phones([deposit.phone]) == set()

    bench.mpesa.book, bench.mpesa.book_is_down = [late], False
    bench.saga.resume(deposit.id, why="asked M-Pesa")
    bench.drive(deposit)
    assert bench.now(deposit).status is S.COMPLETED


def test_a_success_that_the_query_denies_fails_only_once_the_book_was_read_twice(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.mpesa.settled[reference_of(bench, deposit)] = Refused("1037")

    bench.mpesa.calls_back(deposit.id, code="0")
    bench.drive(deposit)
    assert bench.now(deposit).status is S.AWAITING_MPESA
    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.FAILED
    assert bench.world.now - deposit.created_at >= timedelta(minutes=30)
    assert any(record.action == "mpesa.claim_contradicts_proof" for record in bench.world.audit)
    assert not bench.world.entries


def test_a_success_that_comes_after_the_failure_and_that_the_query_denies_comes_before_a_person(bench: Bench) -> None:
    deposit = failed(bench)

    bench.world.tick(seconds=1)
    bench.mpesa.calls_back(deposit.id, code="0")
    bench.drive(deposit)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    assert bench.mpesa.busy_phones([deposit.phone]) == set()


def test_a_success_that_the_query_denies_and_the_book_shows_is_credited(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    pays(bench, deposit)
    bench.mpesa.settled[reference_of(bench, deposit)] = Refused("1037")

    bench.mpesa.calls_back(deposit.id, code="0")
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED


def test_a_late_success_that_m_pesa_can_not_be_asked_about_at_once_is_asked_about_again(bench: Bench) -> None:
    deposit = failed(bench)
    bench.world.tick(hours=20)
    pays(bench, deposit)
    bench.mpesa.settled[reference_of(bench, deposit)] = Unknown("503")
    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)
    assert bench.now(deposit).status is S.FAILED

    bench.mpesa.settled[reference_of(bench, deposit)] = Done("")
    bench.sweep(deposit, until=timedelta(minutes=10))

    assert bench.now(deposit).is_paid


def test_a_late_success_that_m_pesa_can_not_be_asked_about_for_an_hour_comes_before_a_person(bench: Bench) -> None:
    deposit = failed(bench)
    bench.world.tick(seconds=1)
    bench.mpesa.settled[reference_of(bench, deposit)] = Unknown("503")
    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    bench.sweep(deposit, until=LONG)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION


def test_a_late_failure_of_a_failed_prompt_starts_no_asking_without_end(bench: Bench) -> None:
    deposit = failed(bench)
    bench.world.tick(seconds=1)
    bench.mpesa.settled[reference_of(bench, deposit)] = Unknown("503")
    bench.mpesa.calls_back(deposit.id, code="1032")
    bench.drive(deposit)

    assert (bench.now(deposit).status, bench.now(deposit).next_step_at) == (S.FAILED, None)


def test_a_payment_of_a_prompt_that_was_refused_at_the_door_is_looked_for_in_the_book(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Refused("500.001.1001")]
    bench.mpesa.query = lambda request: Unknown("no_checkout_request_id")  # type: ignore[method-assign]
    bench.drive(deposit)
    assert bench.now(deposit).status is S.FAILED

    pays(bench, deposit)
    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    assert bench.now(deposit).status is S.COMPLETED


def test_a_success_after_the_failure_that_the_book_does_not_show_yet_comes_before_a_person(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [Unknown("timeout")]
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.FAILED

    bench.world.tick(seconds=5)
    bench.mpesa.calls_back(deposit.id)
    bench.drive(deposit)

    assert bench.now(deposit).status is S.NEEDS_ATTENTION


def test_a_prompt_that_somebody_answered_is_not_sent_once_more(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [NotSent("500.003.02")]
    bench.drive(deposit)
    pays(bench, deposit)
    bench.mpesa.calls_back(deposit.id)

    bench.sweep(deposit, until=LONG)

    assert len(bench.mpesa.pushed) == 1
    assert bench.now(deposit).status is S.COMPLETED


def test_nobody_is_asked_for_a_payment_that_could_only_be_given_back(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.mpesa.answers = [NotSent("connect", retry_after_s=1700)]

    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)

    assert len(bench.mpesa.pushed) == 1  # surely not sent; and half a minute is too short for a PIN
    assert bench.now(deposit).status is S.EXPIRED


# --- stalls -----------------------------------------------------------------------------------------------------------


def test_a_prompt_whose_query_was_down_for_hours_still_fails_by_the_query_and_frees_the_phone(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    reference = reference_of(bench, deposit)
    bench.mpesa.settled[reference] = Unknown("503")
    bench.sweep(deposit, until=timedelta(hours=3))
    bench.mpesa.settled[reference] = Refused("1032")

    bench.sweep(deposit, until=timedelta(hours=1))

    assert bench.now(deposit).status is S.FAILED
    assert bench.mpesa.busy_phones([deposit.phone]) == set()


def test_a_prompt_shown_to_a_person_is_asked_about_both_ways_when_it_is_resumed(bench: Bench) -> None:
    deposit = bench.deposit()
    bench.drive(deposit)
    bench.sweep(deposit, until=LONG)
    assert bench.now(deposit).status is S.NEEDS_ATTENTION
    asked: list[Any] = []
    ask, read = bench.mpesa.query, bench.mpesa.payments
    bench.mpesa.query = lambda request: (asked.append("query"), ask(request))[1]  # type: ignore[func-returns-value,method-assign]
    bench.mpesa.payments = lambda request: (asked.append("book"), read(request))[1]  # type: ignore[func-returns-value,method-assign]

    bench.saga.resume(deposit.id, why="asked M-Pesa")
    bench.drive(deposit)

    assert asked == ["query", "book"]
    assert bench.now(deposit).status is S.NEEDS_ATTENTION


# --- many workers, in any order -------------------------------------------------------------------------------------


@dataclass
class Storm:
    """One deposit, providers that answer as they like, and other workers that step in at every call and commit."""

    seed: int
    bench: Bench = field(default_factory=Bench)
    depth: int = 0
    quiet: bool = False
    prompts: int = 0  # how often the customer's phone showed one
    paid: bool = False
    late: list[tuple[datetime, DerivTransfer]] = field(default_factory=list)  # Deriv books these by then
    failures: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)
        self.bench.mpesa.send = self.push  # type: ignore[method-assign]
        self.bench.mpesa.query = self.query  # type: ignore[method-assign]
        self.bench.mpesa.payments = self.payments  # type: ignore[method-assign]
        self.bench.deriv.send = self.transfer  # type: ignore[method-assign]
        self.bench.deriv.find = self.find  # type: ignore[method-assign]
        self.deposit = self.bench.deposit()
        self.pays_at_all, self.deriv_troubles = self.dice.random() < 0.8, self.dice.choice([0.0, 0.5, 0.9])

    def chance(self, of: float) -> bool:
        return not self.quiet and self.dice.random() < of

    # --- the others -------------------------------------------------------------------------------------------------

    def meanwhile(self) -> None:
        """What happens while a call is on its way."""
        if self.depth > 2:
            return
        self.depth += 1
        for _ in range(self.dice.choice([0, 0, 1, 2, 3]) if not self.quiet else 0):
            self.anything()
        self.depth -= 1

    def anything(self) -> None:
        self.dice.choice(
            [self.another_worker] * 3 + [self.customer_pays] * 2 + [self.callback] * 2 + [self.time_passes]
        )()

    def another_worker(self) -> None:
        if self.chance(0.15):
            after = self.dice.randrange(1, 6)
            self.bench.crash_point = crash_after(after)
        self.drive()

    def drive(self) -> None:
        try:
            self.bench.drive(self.deposit)
        except StepsFailed as failed:
            self.failures.append(repr(failed.__cause__))

    def time_passes(self) -> None:
        self.bench.world.tick(seconds=self.dice.choice([0.5, 1, 1, 2, 2, 3, 3, 9, 11, 15, 50, 400]))

    def callback(self) -> None:
        if self.prompts:
            self.bench.mpesa.calls_back(
                self.deposit.id, code=self.dice.choice(["0", "1032"]), agrees=self.dice.random() < 0.8
            )

    def customer_pays(self) -> None:
        if self.prompts and not self.paid and self.pays_at_all:
            self.paid = True
            self.bench.mpesa.pays(f"REF{self.deposit.id.int:09d}", self.deposit.amount)

    # --- M-Pesa -------------------------------------------------------------------------------------------------------

    def push(self, request: MpesaRequest, *, give_up_at: float) -> Outcome:
        self.meanwhile()
        if self.bench.world.now >= request.send_before:
            return NotSent("send_before_passed")
        if self.chance(0.2):
            answers: list[Outcome] = [NotSent("500.003.02"), Unknown("timeout"), Refused("400.002.02")]
            return self.dice.choice(answers)
        self.prompts += 1
        self.meanwhile()
        return Unknown("timeout") if self.chance(0.2) else Accepted({"CheckoutRequestID": "ws_CO_1"})

    def query(self, request: MpesaRequest) -> Outcome:
        self.meanwhile()
        answer: Outcome = Done("") if self.paid else Accepted()
        if not self.paid and self.bench.world.now - request.created_at > timedelta(minutes=3):
            self.pays_at_all = False  # the prompt is gone
            answer = Refused("1037")
        self.meanwhile()
        answers: list[Outcome] = [answer, Unknown("503"), NotSent("busy")]
        return self.dice.choice(answers) if self.chance(0.3) else answer

    def payments(self, request: MpesaRequest) -> Sequence[MpesaPayment] | Unreadable:
        self.meanwhile()
        shown = list(self.bench.mpesa.book)
        self.meanwhile()
        return Unreadable("503") if self.chance(0.3) else shown

    # --- Deriv --------------------------------------------------------------------------------------------------------

    def transfer(self, transfer: DerivTransfer, *, give_up_at: float) -> Outcome:
        self.meanwhile()
        if self.bench.world.now >= transfer.send_before:
            return NotSent("send_before")
        if self.dice.random() < self.deriv_troubles:
            kind = self.dice.choice(["no", "wait", "lost", "silent", "late"])
            if kind == "silent":
                self.bench.deriv.books(transfer)
            if kind == "late":
                self.late.append((self.bench.world.now + timedelta(seconds=self.dice.randrange(1, 600)), transfer))
            self.meanwhile()
            answers: dict[str, Outcome] = {"no": Refused("disabled"), "wait": NotSent("float_low")}
            return answers.get(kind, Unknown("timeout"))
        done = self.bench.deriv.books(transfer)
        self.meanwhile()
        return done

    def find(self, transfer: DerivTransfer) -> Lookup:
        self.meanwhile()
        self.books_what_is_late()
        found = tuple(id for _, _, id in self.bench.deriv.book)
        self.meanwhile()
        if self.dice.random() < self.deriv_troubles / 2:
            nothing: list[Lookup] = [Unreadable("down"), Absent(proven=False)]
            return self.dice.choice(nothing)
        return Found(found) if found else Absent(proven=True)

    def books_what_is_late(self) -> None:
        for by, late in [entry for entry in self.late if entry[0] <= self.bench.world.now]:
            self.late.remove((by, late))
            self.bench.deriv.books(late)

    # --- a run --------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        for _ in range(self.dice.randrange(2, 12)):
            self.anything()
        self.quiet, self.bench.crash_point = True, lambda where: None
        self.bench.world.tick(seconds=1)
        if self.paid:  # the true callback comes in the end
            self.bench.mpesa.calls_back(self.deposit.id)
        self.drive()
        end = self.bench.world.now + timedelta(hours=60)
        while (due := self.bench.now(self.deposit).next_step_at) and due <= end:
            self.bench.world.now = max(self.bench.world.now, due)
            before = self.bench.world.transactions[self.deposit.id].version
            self.drive()
            if self.bench.world.transactions[self.deposit.id].version == before:
                break
        self.bench.world.tick(hours=1)
        self.books_what_is_late()


def crash_after(n: int) -> Callable[[str], None]:
    left = [n]

    def point(where: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash(where)

    return point


@pytest.mark.parametrize("part", range(4))
def test_whatever_happens_in_whatever_order_nothing_is_paid_twice_lost_or_forgotten(part: int) -> None:
    for seed in range(part * 100, part * 100 + 100):
        storm = Storm(seed)
        storm.run()
        bench, ended = storm.bench, storm.bench.now(storm.deposit)
        story = f"seed {seed}: {ended.status} {ended.failure_code}"
        assert not storm.failures, f"{story}: {storm.failures}"
        assert len(bench.deriv.book) <= 1, story
        assert len(ended.transfers) <= MOST_TRANSFERS, story
        assert -bench.world.balance("deriv") == sum(amount.amount for _, amount, _ in bench.deriv.book), story
        assert bench.world.balance("mpesa") == (storm.deposit.amount.amount if storm.paid else 0), story
        assert ended.status in FINAL | {S.REFUND_PENDING, S.NEEDS_ATTENTION}, story
        if bench.deriv.book:
            assert ended.status is S.COMPLETED, story
        if storm.paid:
            assert ended.status in {S.COMPLETED, S.REFUND_PENDING, S.NEEDS_ATTENTION}, story
        if ended.status in FINAL | {S.REFUND_PENDING}:
            assert not bench.world.reserved, story
