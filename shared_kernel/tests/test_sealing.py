"""Sealing beside those who write: what commits late, two workers, a crash between seal and anchor."""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from shared_kernel import workers
from shared_kernel.application import sealing as logic
from shared_kernel.domain.ports import AuditRecord
from shared_kernel.domain.seals import SealsContradictAnchor, marks_in, seq_of
from shared_kernel.facade import audit, chain_check, sealing, seals_of_rows, unit_of_work
from shared_kernel.models import AuditLog, Lease
from shared_kernel.tests.tampering import execute, faults, no_refusals, seal, seals_of

pytestmark = pytest.mark.django_db(transaction=True)
needs_many_writers = pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
CHAIN = "audit_logs"


def append(count=1):
    """Commits audit rows; their seqs."""
    known = {row.seq for row in AuditLog.objects.all()}
    with unit_of_work():
        audit.append(AuditRecord("a", "t", str(number), timezone.now()) for number in range(count))
    return sorted({row.seq for row in AuditLog.objects.all()} - known)


def sealed_seqs():
    return [[seq_of(mark) for mark in marks_in(seal.marks)] for seal in seals_of(CHAIN)]


def in_thread(call, *arguments):
    """Its future; the thread has a connection of its own."""

    def run():
        try:
            return call(*arguments)
        finally:
            connection.close()

    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


@contextmanager
def slow_writer(*, rolls_back=False):
    """A transaction that has stored a row and stays open; gives its row's seq and what ends it, and waits for that."""
    stored, go_on, seqs = threading.Event(), threading.Event(), []

    def write():
        with transaction.atomic():
            row = AuditLog.objects.create(action="slow", target_type="t", target_id="1", at=timezone.now())
            seqs.append(row.seq)
            stored.set()
            assert go_on.wait(20)
            transaction.set_rollback(rolls_back)

    future = in_thread(write)
    assert stored.wait(10)
    try:
        yield seqs[0], go_on
    finally:
        go_on.set()
        future.result(20)


def crash_before_anchor(monkeypatch):
    """The next seal is committed, and its worker ends before it is anchored."""

    class Ended(BaseException):
        """As SIGKILL."""

    def end(self, seal):
        raise Ended

    with monkeypatch.context() as patch:
        patch.setattr(type(sealing.anchor), "append", end)
        with pytest.raises(Ended):
            seal(CHAIN)


# --- order ---


@needs_many_writers
def test_a_row_that_commits_late_with_a_lower_seq_is_waited_for_and_sealed_in_its_place():
    append()
    with slow_writer() as (low, go_on):
        [high] = append()
        assert low < high

        sealer = in_thread(seal, CHAIN)
        time.sleep(0.3)
        assert not sealer.done()
        assert sealed_seqs() == []

        go_on.set()
        assert sealer.result(20) == 1

    assert sealed_seqs()[0][-2:] == [low, high]
    assert faults(CHAIN) == []


@needs_many_writers
def test_a_row_that_is_rolled_back_late_leaves_a_hole_and_no_fault():
    with slow_writer(rolls_back=True) as (low, go_on):
        [high] = append()
        sealer = in_thread(seal, CHAIN)
        time.sleep(0.2)
        go_on.set()
        assert sealer.result(20) == 1

    assert sealed_seqs() == [[high]]
    assert low not in sealed_seqs()[0]
    assert faults(CHAIN) == []


@needs_many_writers
def test_behind_a_transaction_that_stays_open_nothing_is_sealed_until_the_next_time(caplog):
    caplog.set_level(logging.INFO)
    with slow_writer() as (low, _):
        [high] = append()

        assert seal(CHAIN) == 0

        assert (seals_of(CHAIN), sealing.anchor.head(CHAIN)) == ([], None)
        assert "sealing_put_off" in caplog.text
    assert seal(CHAIN) == 1
    assert sealed_seqs() == [[low, high]]


@needs_many_writers
def test_rows_above_the_horizon_wait_for_the_next_time():
    known = append(2)
    up_to = sealing.horizon(CHAIN)
    later = append(2)
    with slow_writer() as (last, _):  # above the horizon: nothing to wait for
        assert sealing.seal(CHAIN, up_to) == 1

    assert sealed_seqs() == [known]
    assert seal(CHAIN) == 1
    assert sealed_seqs() == [known, [*later, last]]
    assert faults(CHAIN) == []


def test_a_row_stored_between_horizon_and_seal_below_the_horizon_is_sealed_with_the_others():
    """A statement that had its seq and not yet its row when the horizon was read."""
    one, two, three = append(3)
    with no_refusals(CHAIN):
        execute(("DELETE FROM audit_logs WHERE seq = %s", two))
    up_to = sealing.horizon(CHAIN)
    AuditLog(seq=two, action="stalled", target_type="t", target_id="1", at=timezone.now()).save(force_insert=True)

    sealing.seal(CHAIN, up_to)

    assert sealed_seqs() == [[one, two, three]]
    assert faults(CHAIN) == []


@needs_many_writers
def test_many_who_write_at_random_while_it_is_sealed_and_checked_never_make_a_fault(monkeypatch):
    monkeypatch.setattr(logic, "ROWS", 7)
    until = time.monotonic() + 4

    def write(number):
        while time.monotonic() < until:
            with transaction.atomic():
                for _ in range(number + 1):
                    AuditLog.objects.create(action="a", target_type="t", target_id="1", at=timezone.now())
                    time.sleep(0.002 * number)
                transaction.set_rollback(number == 2)

    writers = [in_thread(write, number) for number in range(5)]
    while time.monotonic() < until:
        up_to = sealing.horizon(CHAIN)
        time.sleep(0.05)  # what the workers' seconds are for
        sealing.seal(CHAIN, up_to)
        assert faults(CHAIN) == []
    for writer in writers:
        writer.result(20)
    seal(CHAIN)

    assert [seq for seqs in sealed_seqs() for seq in seqs] == list(
        AuditLog.objects.order_by("seq").values_list("seq", flat=True)
    )
    assert len(seals_of(CHAIN)) > 5


def test_the_seal_of_a_row_is_told_for_those_that_have_one():
    rows = append(2)
    seal(CHAIN)
    rows += append(2)
    seal(CHAIN)
    rows += append()
    first, second = seals_of(CHAIN)

    assert seals_of_rows(CHAIN, [*rows, rows[-1] + 9]) == {
        **dict.fromkeys(rows[:2], (1, first.hash)),
        **dict.fromkeys(rows[2:4], (2, second.hash)),
    }
    assert seals_of_rows(CHAIN, []) == {}


# --- who seals ---


def test_nothing_to_seal_makes_no_seal(anchor):
    assert seal(CHAIN) == 0
    append()
    assert (seal(CHAIN), seal(CHAIN)) == (1, 0)
    assert len((anchor / "audit_logs.seals").read_text().splitlines()) == 1


def test_many_rows_are_sealed_in_bounded_seals_each_anchored(monkeypatch):
    monkeypatch.setattr(logic, "ROWS", 3)
    seqs = append(8)

    assert seal(CHAIN) == 3

    assert sealed_seqs() == [seqs[:3], seqs[3:6], seqs[6:]]
    assert [line.hash for line in sealing.anchor.lines(CHAIN)] == [seal.hash for seal in seals_of(CHAIN)]
    assert chain_check.check(CHAIN).rows == 8


def test_while_another_worker_has_the_lease_nothing_is_done():
    append()
    assert sealing.leases.acquire("sealing.audit_logs", "another", timedelta(minutes=1))

    assert seal(CHAIN) == 0

    sealing.leases.release("sealing.audit_logs", "another")
    assert seal(CHAIN) == 1
    assert Lease.objects.get(name="sealing.audit_logs").holder == ""


@needs_many_writers
@pytest.mark.parametrize("lease_holds", [True, False])
def test_of_many_workers_at_once_one_makes_each_seal(lease_holds, monkeypatch):
    """Also if the lease runs out under a worker that was frozen: the number of a seal is unique."""
    monkeypatch.setattr(logic, "ROWS", 2)
    append(9)
    if not lease_holds:
        monkeypatch.setattr(type(sealing.leases), "acquire", lambda *_: True)

    workers_ = [in_thread(seal, CHAIN) for _ in range(6)]
    made = [worker.result(30) for worker in workers_]
    seal(CHAIN)

    assert sum(made) <= 5
    assert [seal.number for seal in seals_of(CHAIN)] == [1, 2, 3, 4, 5]
    assert [line.number for line in sealing.anchor.lines(CHAIN)] == [1, 2, 3, 4, 5]
    assert faults(CHAIN) == []


def test_a_seal_that_another_worker_makes_between_two_readings_contradicts_nothing(monkeypatch):
    append(2)
    seal(CHAIN)
    append(2)
    read, others = type(sealing.book).head, [seal]

    def head(book, chain):
        found = read(book, chain)
        if others:
            others.pop()(chain)
        return found

    monkeypatch.setattr(type(sealing.book), "head", head)

    found, is_late = sealing.head(CHAIN)

    assert (found.number, is_late) == (2, False)


@pytest.mark.parametrize("crashed", [True, False])
def test_a_seal_that_others_anchor_first_and_go_on_from_contradicts_nothing(monkeypatch, crashed):
    """The lease ran out under a worker between a seal and its anchor."""
    monkeypatch.setattr(logic, "ROWS", 2)
    monkeypatch.setattr(type(sealing.leases), "acquire", lambda *_: True)
    append(2)
    seal(CHAIN)
    append(2)
    if crashed:
        crash_before_anchor(monkeypatch)
    append(2)
    anchor, others = type(sealing.anchor).append, [seal]

    def last(self, one):
        if others:
            others.pop()(CHAIN)
        anchor(self, one)

    monkeypatch.setattr(type(sealing.anchor), "append", last)

    seal(CHAIN)

    assert (
        [seal.number for seal in seals_of(CHAIN)] == [line.number for line in sealing.anchor.lines(CHAIN)] == [1, 2, 3]
    )
    assert faults(CHAIN) == []


# --- crashes ---


@pytest.mark.parametrize("before", [0, 1, 2])
def test_a_crash_between_seal_and_anchor_is_no_fault_and_heals_by_itself(monkeypatch, before):
    for _ in range(before):
        append(2)
        seal(CHAIN)
    append(2)
    crash_before_anchor(monkeypatch)

    report = chain_check.check(CHAIN)
    assert (report.faults, report.unanchored) == ([], 1)

    append()
    assert seal(CHAIN) == 1
    report = chain_check.check(CHAIN)
    assert (report.faults, report.unanchored, report.seals) == ([], 0, before + 2)


def test_a_seal_that_is_never_anchored_is_told_in_time(monkeypatch):
    append(2)
    seal(CHAIN)
    append(2)
    crash_before_anchor(monkeypatch)

    tomorrow = replace(chain_check, clock=lambda: timezone.now() + timedelta(days=1))

    assert tomorrow.check(CHAIN).faults == [
        ("seals audit_logs 2", "seals 2 to 2 are not anchored: the anchor ends before them")
    ]


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE audit_logs SET actor = 'me' WHERE target_id = '1'",
        "DELETE FROM audit_logs WHERE target_id = '1'",
        "UPDATE seals SET row_count = 1 WHERE number = 2",
        "UPDATE seals SET hash = UPPER(hash) WHERE number = 1",
        "DELETE FROM seals WHERE number = 1",
        "UPDATE seals SET number = 3 WHERE number = 2",
    ],
)
def test_what_was_changed_between_crash_and_healing_is_not_anchored(monkeypatch, attack):
    append(2)
    seal(CHAIN)
    append(2)
    crash_before_anchor(monkeypatch)
    anchored = sealing.anchor.head(CHAIN)

    with no_refusals(CHAIN):
        execute((attack,))

    with pytest.raises(SealsContradictAnchor):
        seal(CHAIN)
    assert sealing.anchor.head(CHAIN) == anchored
    assert faults(CHAIN) != []


def test_rows_that_nobody_seals_are_told_in_time():
    append(2)
    seal(CHAIN)
    [first, _] = append(2)

    later = replace(chain_check, clock=lambda: timezone.now() + logic.LATE + timedelta(minutes=1))

    [(row, detail)] = later.check(CHAIN).faults
    assert row == f"audit_logs {first}"
    assert detail.startswith("not sealed since ")
    assert faults(CHAIN) == []


# --- the tasks ---


def test_beat_has_every_chain_sealed_up_to_where_it_was_some_seconds_ago(monkeypatch):
    sent = []
    monkeypatch.setattr(workers.seal_rows, "apply_async", lambda **how: sent.append(how))
    known = append(2)

    workers.find_unsealed()
    append(3)
    for how in sent:
        workers.seal_rows(**how["kwargs"])

    assert {how["kwargs"]["chain"] for how in sent} == {"audit_logs", "ledger_entries"}
    assert all(how["countdown"] == workers.SETTLED_AFTER_S for how in sent)
    assert sealed_seqs() == [known]


def test_a_contradiction_is_logged_for_staff_and_nothing_is_sealed(caplog, anchor):
    append(2)
    seal(CHAIN)
    append(2)
    seal(CHAIN)
    append(2)
    (anchor / "audit_logs.seals").unlink()

    workers.seal_rows(chain=CHAIN, up_to=sealing.horizon(CHAIN))

    [record] = [record for record in caplog.records if record.message == "sealing_refused"]
    assert record.levelname == "ERROR"
    assert "verify_audit" in record.reason
    assert len(seals_of(CHAIN)) == 2
