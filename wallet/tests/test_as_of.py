"""Balances as of any moment, by both times, against a model in plain Python: journals, reversals, damage, seals."""

import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings, strategies as st

from shared_kernel.domain.identifiers import EntryId, JournalId
from shared_kernel.domain.money import Currency, Money
from shared_kernel.infrastructure.persistence import new_id, unit_of_work
from shared_kernel.tests.reset import reset_database
from shared_kernel.tests.tampering import seal
from wallet.application.posting import Posting
from wallet.domain.ledger import Account, AccountKind, AlreadyPosted, Entry, InTransitOverdrawn, Journal, Side
from wallet.facade import balance_as_of, balances_as_of, ledger, rebuild_balances, trial_balance_as_of, verify_ledger
from wallet.infrastructure.persistence import DjangoLedgerBook, forget_accounts
from wallet.models import LedgerEntry
from wallet.queries.ledger import By
from wallet.tests.factories import AT, DERIV, MPESA, SUSPENSE, a_received_deposit, held, kes, post, send

pytestmark = pytest.mark.django_db(transaction=True)
KINDS = [AccountKind.MPESA_WORKING, AccountKind.SUSPENSE, AccountKind.FX_POSITION, AccountKind.CUSTOMER_IN_TRANSIT]
names = st.tuples(st.sampled_from(KINDS), st.sampled_from(["", "a"]))
moves = st.tuples(st.sampled_from(Currency), names, names, st.integers(1, 1000)).filter(lambda m: m[1] != m[2])
BOTH: tuple[By, By] = ("effective", "recorded")
minutes = st.integers(0, 9)
posts = st.tuples(st.just("post"), minutes, st.lists(moves, min_size=1, max_size=3))
reversals = st.tuples(st.just("reverse"), minutes, st.integers(0, 20))
damages = st.tuples(st.just("spoil"), st.integers(0, 20), st.integers(-500, 500).filter(bool))
rebuilds = st.tuples(st.just("rebuild"), st.just(0), st.just(0))
seals = st.tuples(st.just("seal"), st.just(0), st.just(0))


@pytest.fixture(autouse=True)
def _no_account_is_known():
    forget_accounts()


@dataclass
class Model:
    """All entries that were kept: effective, recorded, entry."""

    entries: list[tuple[datetime, datetime, EntryId, Entry]] = field(default_factory=list)
    reversed: set[EntryId] = field(default_factory=set)
    now: datetime = AT

    def balances(self, until=None, by=0) -> dict[Account, int]:
        """Credits minus debits; `by` is 0 for effective, 1 for recorded."""
        sums: dict[Account, int] = {}
        for entry in (one[3] for one in self.entries if until is None or one[by] <= until):
            sums[entry.debit] = sums.get(entry.debit, 0) - entry.amount.amount
            sums[entry.credit] = sums.get(entry.credit, 0) + entry.amount.amount
        return sums

    def overdraws(self, entries) -> bool:
        after = self.balances()
        for entry in entries:
            after[entry.debit] = after.get(entry.debit, 0) - entry.amount.amount
            after[entry.credit] = after.get(entry.credit, 0) + entry.amount.amount
        return any(sum < 0 and not account.kind.may_be_overdrawn for account, sum in after.items())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(posts, posts, reversals, damages, rebuilds, seals), max_size=12), st.data())
def test_journals_reversals_rebuilds_and_balances_as_of_any_moment_agree_with_a_model(anchor, steps, data):
    reset_database()
    shutil.rmtree(anchor, ignore_errors=True)
    forget_accounts()
    model, spoilt = Model(), False
    mine = Posting(book=DjangoLedgerBook(clock=lambda: model.now, new_id=new_id), new_id=new_id)
    for verb, number, what in steps:
        model.now += timedelta(minutes=1)
        at = AT + timedelta(minutes=number)
        if verb == "rebuild":
            assert bool(rebuild_balances().differed) == spoilt
            spoilt = False
        elif verb == "seal":
            seal("ledger_entries")
        elif verb == "spoil" and not spoilt:
            spoilt = spoil(model, number, what)
        elif verb == "post" and not spoilt:
            post_all(model, mine, [entry(move) for move in what], at)
        elif verb == "reverse" and not spoilt:
            reverse(model, mine, what, at)
    if spoilt:
        rebuild_balances()

    until = AT + timedelta(minutes=data.draw(st.integers(-1, 15), label="until"))
    for by, name in enumerate(BOTH):
        expected = {account.id: sum for account, sum in model.balances(until, by).items()}
        told = {row.id: row.credit_balance for row in balances_as_of(until, by=name)}
        assert {id: sum for id, sum in told.items() if sum} == {id: sum for id, sum in expected.items() if sum}
        assert all(balance_as_of(id, until, by=name).credit_balance == sum for id, sum in told.items())
        assert sum(int(row.debit - row.credit) for row in trial_balance_as_of(until, by=name)) == 0
    for account, credits in model.balances().items():
        assert ledger.balance(account).amount == (1 if account.kind.normal_side is Side.CREDIT else -1) * credits
    seal("ledger_entries")
    assert verify_ledger().findings == []


def entry(move) -> Entry:
    currency, debit, credit, amount = move
    accounts = [Account(kind, currency, owner) for kind, owner in (debit, credit)]
    return Entry(accounts[0], accounts[1], Money(amount, currency))


def post_all(model, mine, entries, at):
    id = JournalId(new_id())
    refused = InTransitOverdrawn if model.overdraws(entries) else None
    attempt(lambda: mine.book.append(Journal(id, "test", str(id), tuple(entries), at)), refused)
    keep(model, at, entries, refused)


def reverse(model, mine, number, at):
    if not model.entries:
        return
    _, _, id, known = model.entries[number % len(model.entries)]
    back = [Entry(known.credit, known.debit, known.amount, reverses=id)]
    refused = AlreadyPosted if id in model.reversed else InTransitOverdrawn if model.overdraws(back) else None
    attempt(lambda: mine.reverse([id], at=at), refused)
    if refused is None:
        model.reversed.add(id)
    keep(model, at, back, refused)


def attempt(write, refused):
    def run():
        with unit_of_work():
            write()

    if refused is None:
        run()
    else:
        with pytest.raises(refused):
            run()


def keep(model, at, entries, refused):
    if refused is None:
        ids = LedgerEntry.objects.order_by("-seq").values_list("id", flat=True)[: len(entries)]
        model.entries += [(at, model.now, EntryId(id), one) for id, one in zip(reversed(ids), entries, strict=True)]


def spoil(model, number, by) -> bool:
    """Whether a kept balance is now another one; never below zero where the database refuses that."""
    accounts = sorted(model.balances(), key=lambda account: account.id)
    if not accounts:
        return False
    account = accounts[number % len(accounts)]
    if not account.kind.may_be_overdrawn:
        by = abs(by)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE ledger_balances SET credit_balance = credit_balance + {by} WHERE account_id = X'{account.id.hex}'"
        )
        return cursor.rowcount > 0


def test_the_moment_itself_counts_and_the_two_times_are_told_apart():
    a_received_deposit(kes(1300))  # effective at AT, recorded now

    before = AT - timedelta(microseconds=1)
    assert balance_as_of(MPESA.id, AT, by="effective").credit_balance == -1300_00
    assert balance_as_of(MPESA.id, before, by="effective").credit_balance == 0
    assert balance_as_of(MPESA.id, datetime(2020, 1, 1, tzinfo=UTC), by="recorded").credit_balance == 0
    assert balance_as_of(MPESA.id, datetime.now(UTC), by="recorded").credit_balance == -1300_00


def test_all_accounts_come_by_pages():
    deposit, customer = a_received_deposit(kes(1300))
    post(lambda: send(deposit, customer, kes(1300)))

    pages, after = [], None
    while page := balances_as_of(AT, by="effective", after=after, limit=3):
        pages.append(page)
        after = page[-1].id

    assert [len(page) for page in pages] == [3, 3, 1]
    rows = {row.id: row for page in pages for row in page}
    assert (rows[DERIV.id].kind, rows[DERIV.id].owner, rows[DERIV.id].credit_balance) == (
        "deriv_agent",
        "CR900001",
        991,
    )
    assert rows[held(customer).id].credit_balance == 0


def test_an_account_that_is_not_there_has_no_balance_and_a_moment_needs_its_time_zone():
    assert balance_as_of(SUSPENSE.id, AT, by="effective") is None
    with pytest.raises(ValueError, match="time zone"):
        balance_as_of(SUSPENSE.id, datetime(2026, 1, 1), by="effective")  # noqa: DTZ001 - that is the point


@pytest.mark.skipif(connection.vendor == "sqlite", reason="another EXPLAIN")
@pytest.mark.parametrize("by", BOTH)
def test_balances_as_of_a_moment_are_read_from_their_indexes_alone(by):
    a_received_deposit(kes(1))
    with CaptureQueriesContext(connection) as asked:
        balance_as_of(MPESA.id, AT, by=by)
    sql = asked[0]["sql"]

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        names = [column[0] for column in cursor.description]
        plan = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    reads = {row["key"]: row["Extra"] for row in plan if row["table"] == "ledger_entries"}
    assert set(reads) == {"ledger_debited_at", "ledger_credited_at"}
    assert all("Using index" in extra for extra in reads.values())
