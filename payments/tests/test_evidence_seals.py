"""What evidence tells of the seals over its rows, and of the differences that reconciliation found."""

import shutil
from typing import Any

import pytest

from payments.domain.reconciliation import Resolution
from payments.domain.transaction import TransactionStatus as S
from payments.facade import breaks
from payments.tests.factories import a_stored_deposit
from payments.tests.test_breaks import a_break
from payments.tests.test_evidence import happened, in_order, server, told
from payments.tests.told import PHONE, Story, a_caller, a_told_deposit
from shared_kernel.facade import continuing, seals_of_rows
from shared_kernel.infrastructure.persistence import now
from shared_kernel.models import AuditLog
from shared_kernel.tests.tampering import execute, no_refusals, rewrite, seal

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("open_for_business")]


def sections_of(deposit: Any) -> dict[str, Any]:
    return told(Story(deposit.id, None, {}))  # type: ignore[arg-type]


@server
def test_the_seals_over_each_row_are_told_with_their_check_and_their_anchor(anchor):
    story = a_told_deposit(a_caller())
    seal("ledger_entries")
    seal("audit_logs")

    sections = told(story)

    [entries, audit] = sections["seals"]
    assert (entries["table"], audit["table"]) == ("ledger_entries", "audit_logs")
    seqs = [row["seq"] for row in sections["entries"]]
    assert entries["rows"] == f"{seqs[0]}-{seqs[-1]}"
    assert entries["check"] == audit["check"] == "as sealed"
    assert entries["hash"] == seals_of_rows("ledger_entries", seqs)[seqs[0]][1]
    assert entries["anchor"].startswith("anchored at ")
    assert audit["anchor"].startswith("anchored at ")

    shutil.rmtree(anchor)

    assert {row["anchor"] for row in told(story)["seals"] if row["seal"] != "none"} == {
        "not looked at: the anchor is not within reach here"
    }


def test_rows_without_a_seal_are_told_as_that():
    deposit = a_stored_deposit(S.COMPLETED)
    AuditLog.objects.create(action="a", target_type="transaction", target_id=str(deposit.id), at=now())

    rows = sections_of(deposit)["seals"]

    assert [row["table"] for row in rows] == ["ledger_entries", "audit_logs"]
    assert {(row["seal"], row["check"]) for row in rows} == {("none", "not sealed yet")}


@server
def test_a_row_that_was_changed_after_it_was_sealed_is_told_and_so_is_a_seal_made_anew():
    story = a_told_deposit(a_caller())
    seal("ledger_entries")
    first = told(story)["entries"][0]["seq"]

    with no_refusals("ledger_entries"):
        execute(("UPDATE ledger_entries SET reference = 'other' WHERE seq = %s", first))
        changed = told(story)["seals"][0]
        rewrite("ledger_entries", 1)
        anew = told(story)["seals"][0]

    assert changed["check"] == f"row {first}: it is not as it was sealed"
    assert (anew["check"], anew["anchor"]) == ("as sealed", "the anchor has another hash")


def test_a_seal_of_before_the_anchor_was_begun_anew_says_so(anchor):
    deposit = a_stored_deposit(S.COMPLETED)
    for _ in range(3):
        AuditLog.objects.create(action="a", target_type="transaction", target_id=str(deposit.id), at=now())
        seal("audit_logs")
    shutil.rmtree(anchor)
    asked = continuing.draft("audit_logs", drafted_by="ops@host", why="lost")
    continuing.adopt(asked.id, by="staff:1")
    continuing.approve(asked.id, by="staff:2")
    continuing.begin(asked, by="staff:1")

    of_audit = [row for row in sections_of(deposit)["seals"] if row["table"] == "audit_logs"]
    first, second, third = [row["anchor"] for row in of_audit]

    assert first.startswith("by seal 3, from which the anchor was begun anew at ")
    assert second == first
    assert third.startswith("anchored at ")


def test_its_breaks_are_told_with_what_became_of_them():
    deposit = a_stored_deposit(S.COMPLETED)
    found = a_break(transaction_id=deposit.id, kind="missing_there", theirs=None, ours=-5_00)
    a_break(known_as="9009", movement="9009")  # of nobody
    breaks.resolve(found.id, Resolution.EXPLAINED, by="staff:1", why=f"booked late, {PHONE} called")

    sections = sections_of(deposit)

    [row] = sections["breaks"]
    assert (row["kind"], row["theirs"], row["ours"], row["status"]) == ("missing_there", "", "-5.00 USD", "resolved")
    assert (row["resolved_by"], PHONE in row["why"]) == ("staff:1", False)
    assert in_order(happened(sections), "break missing_there: theirs nothing, ours -5.00 USD", "is resolved")
    assert "reconciliation.break_resolved" in {row["action"] for row in sections["audit"]}
