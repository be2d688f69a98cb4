"""The ledger under attacks that keep every sum right: only the chain of seals finds them."""

import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from hypothesis import strategies as st

from shared_kernel.domain.identifiers import EntryId
from shared_kernel.facade import continuing, sealing, unit_of_work
from shared_kernel.tests.chain_attacks import CHANGED, ChainAttacks, ids, texts, times
from shared_kernel.tests.tampering import execute, no_refusals, seal
from wallet.facade import ledger, snapshot, verify_ledger
from wallet.infrastructure.guards import LEDGER_ENTRIES
from wallet.infrastructure.persistence import forget_accounts
from wallet.models import LedgerEntry
from wallet.tests.factories import AT, a_customer, a_deposit, a_received_deposit, kes, post, receive
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)
ID = "X'0192f000000070008000000000000001'"


@pytest.fixture(autouse=True)
def _no_account_is_known():
    forget_accounts()


class TestLedger(ChainAttacks):
    table = LEDGER_ENTRIES
    false = {
        "id": ID,
        "journal_id": ID,
        "purpose": "'DEPOSIT_RECEIVED'",
        "debit_account_id": ID,
        "credit_account_id": ID,
        "amount": "amount + 1",
        "currency": "'kes'",
        "transaction_id": "NULL",
        "reference": "'forged'",
        "provider_key": "NULL",
        "reverses": ID,
        "effective_at": "'2026-01-01 00:00:00'",
        "recorded_at": "'2026-01-01 00:00:00'",
    }
    values = {
        **dict.fromkeys(
            ["id", "journal_id", "debit_account_id", "credit_account_id", "transaction_id", "reverses"], ids
        ),
        **dict.fromkeys(["effective_at", "recorded_at"], times),
        **dict.fromkeys(["purpose", "reference", "provider_key"], texts(32)),
        "amount": st.integers(-(2**63), 2**63 - 1),
        "currency": texts(3),
    }
    unique = {"id": ID, "reference": "'copied'", "provider_key": "'copied'"}

    def append(self, count):
        customer = a_customer()
        post(*[lambda: receive(a_deposit(), customer, kes(7))] * count)


def chain_findings(**how):
    with snapshot() as anchored:
        report = verify_ledger(anchored=anchored, **how)
    return report, [(finding.row, finding.detail) for finding in report.findings if finding.check == "chain"]


def test_verify_ledger_holds_entries_against_their_seals():
    a_received_deposit(kes(5))
    a_received_deposit(kes(5))
    seal("ledger_entries")
    a_received_deposit(kes(5))

    report, found = chain_findings()

    assert (report.findings, found) == ([], [])
    assert "chain" in report.checks
    assert (report.entries, report.seals, report.sealed, report.unsealed, report.unanchored) == (3, 1, 2, 1, 0)


def test_an_edit_that_keeps_every_sum_is_found_by_the_chain_alone():
    a_received_deposit(kes(5))
    seal("ledger_entries")
    seq = LedgerEntry.objects.get().seq

    with no_refusals("ledger_entries"):
        execute(("UPDATE ledger_entries SET transaction_id = NULL",))

    report, found = chain_findings()
    assert len(report.findings) == 1
    assert found == [(f"ledger_entries {seq}", CHANGED)]


@pytest.mark.skipif(connection.vendor == "sqlite", reason="a database in memory lets no second connection write")
def test_what_is_sealed_while_the_ledger_is_read_is_not_missed():
    a_received_deposit(kes(5))
    seal("ledger_entries")

    with snapshot() as anchored:
        at_once(lambda: (a_received_deposit(kes(1)), seal("ledger_entries")))
        report = verify_ledger(anchored=anchored)

    assert (report.findings, report.seals, report.unsealed) == ([], 1, 0)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")
def test_no_posting_waits_for_the_locks_of_a_seal():
    """Not even one that reverses a locked entry."""
    a_received_deposit(kes(5))
    a_received_deposit(kes(5))
    locked = LedgerEntry.objects.latest("seq")

    def post_beside():
        for _ in range(5):
            a_received_deposit(kes(7))

    def reverse():
        post(lambda: ledger.reverse([EntryId(locked.id)], at=AT))

    with unit_of_work():
        last = sealing.horizon("ledger_entries")
        assert len(sealing.book.settled("ledger_entries", after=0, up_to=last, most=100)) == 2
        results = at_once(*[post_beside] * 6, reverse)

    assert results == [None] * 7
    assert LedgerEntry.objects.filter(reverses=locked.id).exists()


@pytest.mark.usefixtures("_payments")
def test_the_command_names_the_first_wrong_entry_and_begins_where_it_is_told(capsys):
    for _ in range(2):
        a_received_deposit(kes(5))
        seal("ledger_entries")
    first = LedgerEntry.objects.order_by("seq").first().seq
    with no_refusals("ledger_entries"):
        execute(("UPDATE ledger_entries SET effective_at = '2026-01-01 00:00:00' WHERE seq = %s", first))

    def found(*words):
        with pytest.raises(SystemExit) as stopped:
            call_command("verify_ledger", "--json", *words)
        assert stopped.value.code == 1  # payments miss the Transactions, too
        return json.loads(capsys.readouterr().out)

    everything, newer = found(), found("--from-seal", "2")

    assert {"check": "chain", "row": f"ledger_entries {first}", "detail": CHANGED} in everything["findings"]
    assert (newer["from_seal"], newer["seals"], newer["sealed"]) == (2, 1, 1)
    assert "chain" not in [finding["check"] for finding in newer["findings"]]


@pytest.mark.usefixtures("_payments")
def test_an_anchor_that_was_begun_anew_is_told_by_the_command_for_ever_and_fails_nothing(capsys, anchor):
    for _ in range(2):
        a_received_deposit(kes(5))
        seal("ledger_entries")
    (anchor / "ledger_entries.seals").unlink()
    asked = continuing.draft("ledger_entries", drafted_by="ops@host", why="the disk was lost")
    continuing.adopt(asked.id, by="staff:1")
    continuing.approve(asked.id, by="staff:2")
    continuing.begin(asked, by="staff:1")

    out = []
    for options in (["--json"], []):
        with pytest.raises(SystemExit):  # this entry's Transaction is nowhere
            call_command("verify_ledger", *options)
        out.append(capsys.readouterr().out)

    told, words = json.loads(out[0]), " ".join(out[1].split())
    [one] = told["new_starts"]
    assert (one["number"], one["why"], one["approved_by"]) == (2, "the disk was lost", "staff:2")
    assert not {"chain", "guards"} & {finding["check"] for finding in told["findings"]}
    assert "the anchor was begun anew from seal 2" in words
    assert "approved by staff:2" in words


@pytest.mark.usefixtures("_payments")
@pytest.mark.parametrize("number", ["0", "x", "7"])
def test_the_command_refuses_a_seal_that_is_not_there(number):
    with pytest.raises(CommandError) as told:
        call_command("verify_ledger", "--from-seal", number)

    assert told.value.returncode == 2


@pytest.fixture
def _payments(settings):
    if "payments" not in settings.INSTALLED_APPS:
        pytest.skip("payments is not installed")
