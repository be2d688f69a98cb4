"""The rows of payments on the real database: what comes back, who waits for whom, what is never shared."""

from collections import Counter
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from payments import models
from payments.domain.deposit import Deposit
from payments.domain.quote import Quote
from payments.domain.transaction import TransactionStatus as S, TransactionType
from payments.facade import deposits, quotes, transactions
from payments.infrastructure.persistence.limits import DjangoLimitBook
from payments.infrastructure.persistence.quotes import DjangoQuoteBook
from payments.infrastructure.persistence.reservations import DjangoFloatReservations, FloatTooLow
from payments.infrastructure.persistence.transactions import VersionConflict
from payments.tests.factories import AGENT, CHOSEN, a_deposit, a_float, a_quote, a_rate, a_stored_deposit, kes, usd
from shared_kernel.domain.identifiers import DerivTransferId, Phone, QuoteId, TransactionId, UserId
from shared_kernel.domain.money import MAX_MINOR_UNITS, Currency, LockedRate, Money
from shared_kernel.domain.requests import DerivLogin, DerivPlatform
from shared_kernel.infrastructure.encryption import blind_index
from shared_kernel.infrastructure.persistence import new_id, now, unit_of_work
from shared_kernel.models import AuditLog, DomainEvent
from wallet.facade import ledger
from wallet.tests.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)
one_writer = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer at a time")
DEPOSIT = TransactionType.DEPOSIT
NOT_STORED = {
    "payments", "transfers", "knows_payments", "prompt_busy", "touched", "changed", "reserve_again", "notes", "events",
    "transitions",
}  # fmt: skip
STORED = [f.name for f in fields(Deposit) if f.name.lstrip("_") not in NOT_STORED]

times = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  UTC by timezones
rates = st.decimals(Decimal("0.01"), Decimal(1_000_000), places=8)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=60)


def state(transaction):
    """What of it is stored."""
    return {name: getattr(transaction, name) for name in STORED}


def stored(id, type=DEPOSIT):
    with unit_of_work():
        found = transactions.get_many([id], type)
    return found[0] if found else None


def save(*some):
    with unit_of_work():
        transactions.save_many(some)


# --- transactions -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    amount=st.integers(1, MAX_MINOR_UNITS), mid=rates, rate=rates, at=times, later=times, status=st.sampled_from(S),
    source=st.sampled_from(S), detail=texts, code=st.text("abc_:019", max_size=64), attempts=st.integers(0, 2**31),
)  # fmt: skip
def test_what_was_saved_is_read_back_equal(amount, mid, rate, at, later, status, source, detail, code, attempts):
    locked = LockedRate(Currency.USD, Currency.KES, mid, rate, "table:1", at, later)
    assume(0 < amount / rate < MAX_MINOR_UNITS and locked.buy(Money(amount, Currency.KES)).amount > 0)
    new = a_deposit(at=at, rate=locked, amount=Money(amount, Currency.KES))
    new.payout = locked.buy(new.amount)
    save(new)
    read = stored(new.id)
    assert state(read) == state(new)

    read.status, read.attention_from, read.failure_code, read.failure_detail = status, source, code, detail
    read.outflow = CHOSEN.get(status, read.outflow)
    read.updated_at = read.next_step_at = read.confirmed_at = read.login_checked_at = read.expected_by = later
    read.attempts, read.deriv_transfer_id = attempts, DerivTransferId("9000")
    with unit_of_work():
        transactions.get_many([read.id], DEPOSIT)
        transactions.save_many([read])

    assert state(stored(new.id)) == state(read)


def test_a_time_is_read_back_to_the_microsecond():
    at = datetime(2026, 11, 22, 14, 30, 59, 999_999, UTC)
    deposit = a_deposit(at=at)
    save(deposit)

    assert stored(deposit.id).created_at == at


def test_a_known_row_keeps_what_was_frozen_when_it_was_created():
    deposit = a_deposit()
    save(deposit)
    before: dict[str, Any] = dict(models.Transaction.objects.filter(pk=deposit.id).values().get())

    with unit_of_work():
        [read] = transactions.get_many([deposit.id], DEPOSIT)
        read.user_id, read.quote_id = UserId(new_id()), QuoteId(new_id())
        read.created_at += timedelta(days=1)
        transactions.save_many([read])

    after: dict[str, Any] = dict(models.Transaction.objects.filter(pk=deposit.id).values().get())
    assert {name for name in before if before[name] != after[name]} <= {"version", "phone", "deriv_account"}


def test_the_destination_that_two_people_chose_is_stored_whole():
    deposit = a_deposit()
    save(deposit)
    login = DerivLogin(DerivPlatform.REST, "jane")

    with unit_of_work():
        [read] = transactions.get_many([deposit.id], DEPOSIT)
        read.redirect(Phone("254700000001"), login, "CR900002", why="the old one is closed", at=now())
        transactions.save_many([read])

    after = stored(deposit.id)
    assert (after.phone, after.login, after.agent) == (Phone("254700000001"), login, "CR900002")
    by_phone = models.Transaction.objects.filter(phone_index=blind_index("transactions.phone", "254700000001"))
    assert [row.pk for row in by_phone] == [deposit.id]


def test_saving_some_leaves_the_others_alone():
    some, other = a_deposit(), a_deposit()
    save(some, other)
    before = state(stored(other.id))

    with unit_of_work():
        [read] = transactions.get_many([some.id], DEPOSIT)
        read.wait(now(), at=now())
        transactions.save_many([read])

    assert state(stored(other.id)) == before


def test_a_stale_version_is_refused_and_nothing_of_it_is_left():
    deposit = a_deposit()
    save(deposit)
    stale = stored(deposit.id)
    with unit_of_work():
        [read] = transactions.get_many([deposit.id], DEPOSIT)
        read.status = S.AWAITING_MPESA
        transactions.save_many([read])
    events, audits = DomainEvent.objects.count(), AuditLog.objects.count()

    stale.reject("late", "late", at=now())
    with pytest.raises(VersionConflict):
        save(stale)

    assert stored(deposit.id).status is S.AWAITING_MPESA
    assert (DomainEvent.objects.count(), AuditLog.objects.count()) == (events, audits)


def test_state_event_and_audit_row_come_in_one_commit():
    deposit = a_deposit()

    save(deposit)

    assert list(DomainEvent.objects.values_list("type", "aggregate_id")) == [("TransactionCreated", deposit.id)]
    rows = AuditLog.objects.values_list("action", "target_id", "before", "after")
    assert list(rows) == [("transaction.status", str(deposit.id), "", "CREATED")]


def test_a_row_that_can_not_be_written_leaves_neither_event_nor_audit_row():
    first = a_deposit()
    save(first)

    with pytest.raises(DatabaseError):
        save(a_deposit(), a_deposit(quote_id=first.quote_id))  # a quote is used once

    assert models.Transaction.objects.count() == DomainEvent.objects.count() == AuditLog.objects.count() == 1


def test_a_group_costs_as_many_statements_as_one():
    def statements(count):
        with CaptureQueriesContext(connection) as seen, unit_of_work():
            transactions.save_many([a_deposit() for _ in range(count)])
        with CaptureQueriesContext(connection) as again, unit_of_work():
            read = transactions.get_many([TransactionId(id) for id in ids()[-count:]], DEPOSIT)
            assert len(read) == count
            transactions.save_many(read)
        return len(seen), len(again)

    assert statements(1) == statements(30)


def ids():
    return list(models.Transaction.objects.order_by("created_at").values_list("id", flat=True))


def test_a_group_is_read_in_id_order_by_one_locking_statement_and_of_its_type_only():
    some = [a_deposit() for _ in range(5)]
    save(*some)
    withdrawal = a_deposit(type=TransactionType.WITHDRAWAL)
    save(withdrawal)
    asked = [*reversed([t.id for t in some]), withdrawal.id, TransactionId(new_id())]

    with unit_of_work(), CaptureQueriesContext(connection) as seen:
        read = transactions.get_many(asked, DEPOSIT)

    assert [t.id for t in read] == sorted(t.id for t in some)
    assert len(seen) == 1
    if connection.vendor == "mysql":
        assert "FOR UPDATE" in seen[0]["sql"]
        assert seen[0]["sql"].index("ORDER BY") < seen[0]["sql"].index("FOR UPDATE")


@one_writer
def test_who_reads_a_row_has_it_alone_until_the_unit_of_work_ends():
    deposit = a_deposit()
    save(deposit)

    def peek():
        with unit_of_work():
            list(models.Transaction.objects.select_for_update(nowait=True).filter(pk=deposit.id))

    with unit_of_work():
        transactions.get_many([deposit.id], DEPOSIT)
        [refused] = at_once(peek)
    assert isinstance(refused, DatabaseError)
    assert at_once(peek) == [None]


@one_writer
def test_groups_asked_for_in_opposite_order_never_block_each_other():
    some = [a_deposit() for _ in range(20)]
    save(*some)
    up = [t.id for t in some]

    def turn(order):
        for _ in range(10):
            with unit_of_work():
                read = transactions.get_many(order, DEPOSIT)
                for transaction in read:
                    transaction.wait(now(), at=now())
                transactions.save_many(read)

    assert at_once(*[lambda order=order: turn(order) for order in (up, up[::-1], up, up[::-1])]) == [None] * 4
    assert {t.attempts for t in map(stored, up)} == {40}


# --- the dispatcher's pick --------------------------------------------------------------------------------------------


def due(status, *, seconds_ago=1, **over):
    deposit = a_deposit(status=status, next_step_at=now() - timedelta(seconds=seconds_ago), **over)
    save(deposit)
    return deposit.id


def claim(most=100, at=None):
    """What the sweeper gets, lane by lane, `most` of each."""
    lease, at = timedelta(seconds=60), at or now()
    return [
        id
        for lane in sorted(transactions.lanes())
        for id in transactions.claim_due(lane, at=at, lease=lease, most=most)
    ]


def test_money_in_an_unknown_state_comes_first_then_what_is_paid_then_the_oldest():
    created, young = due(S.CREATED, seconds_ago=900), due(S.AWAITING_MPESA, seconds_ago=1)
    old, paid = due(S.AWAITING_MPESA, seconds_ago=60), due(S.MPESA_CONFIRMED)
    sent = due(S.DERIV_TRANSFER_SENT)

    assert claim() == [sent, paid, old, young, created]


def test_a_customer_s_next_one_waits_behind_those_of_others_that_came_meanwhile():
    first = due(S.CREATED, seconds_ago=60)
    flood = [due(S.CREATED, seconds_ago=50, behind=n) for n in (1, 2)]
    other = due(S.CREATED, seconds_ago=40)

    assert claim() == [first, other, *flood]


def test_fewer_than_wanted_are_the_most_urgent_ones():
    due(S.MPESA_CONFIRMED)
    sent = due(S.DERIV_TRANSFER_SENT)

    assert claim(most=1) == [sent]


@pytest.mark.parametrize(
    "status", [S.COMPLETED, S.FAILED, S.EXPIRED, S.REJECTED, S.REFUND_PENDING, S.NEEDS_ATTENTION, S.REFUNDED]
)
def test_what_has_nothing_left_to_do_by_itself_is_never_picked(status):
    save(a_deposit(status=status, next_step_at=None))

    assert claim() == []


def test_what_has_ended_and_is_looked_at_once_more_comes_last():
    ended, created = due(S.COMPLETED, seconds_ago=900), due(S.CREATED)

    assert claim() == [created, ended]


def test_what_has_ended_is_due_at_its_own_time_however_many_its_customer_had():
    ended = due(S.COMPLETED, behind=5)

    assert claim() == [ended]


@one_writer
def test_what_has_ended_and_waits_for_its_next_look_costs_the_sweeper_nothing():
    waiting = [a_deposit(status=S.COMPLETED, next_step_at=now() + timedelta(hours=20)) for _ in range(300)]
    save(*waiting)
    created = due(S.CREATED)
    with connection.cursor() as cursor:  # the server chooses its way by counts that it else renews at some later time
        cursor.execute("ANALYZE TABLE transactions")
        cursor.fetchall()
    before = rows_read()

    found = transactions.claim_due("mpesa", at=now(), lease=timedelta(seconds=60), most=100)

    assert list(found) == [created]
    assert rows_read() - before < 100  # the question about it reads some, too


def rows_read():
    """How many rows this connection has read, by the server's count."""
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(count) for _, count in cursor.fetchall())


def test_what_is_not_due_yet_is_not_picked():
    save(a_deposit(next_step_at=now() + timedelta(seconds=30)), a_deposit(next_step_at=None))

    assert claim() == []


def test_a_leased_row_is_picked_again_only_when_the_lease_has_run_out():
    id, at = due(S.CREATED), now()

    assert claim(at=at) == [id]
    assert claim(at=at + timedelta(seconds=59)) == []
    assert claim(at=at + timedelta(seconds=60)) == [id]


def test_a_step_that_was_saved_ends_the_lease():
    id = due(S.CREATED)
    claim()

    with unit_of_work():
        [read] = transactions.get_many([id], DEPOSIT)
        read.wait(now() - timedelta(seconds=1), at=now())
        transactions.save_many([read])

    assert claim() == [id]


@one_writer
def test_sweepers_at_the_same_moment_never_share_a_row():
    all_due = {due(S.CREATED) for _ in range(40)}

    claimed = at_once(*[lambda: claim(most=10)] * 6)
    rest = claim()

    times = Counter(id for some in [*claimed, rest] for id in some)
    assert set(times) == all_due
    assert set(times.values()) == {1}


# --- reservations -----------------------------------------------------------------------------------------------------

reservations = DjangoFloatReservations(ledger)


def reserve(cents, *, id=None, beyond=False):
    with unit_of_work():
        reservations.reserve(AGENT, TransactionId(id or new_id()), usd(cents), at=now(), beyond=beyond)


def release(*some):
    with unit_of_work():
        reservations.release([TransactionId(id) for id in some], at=now())


def reserved():
    kept = models.FloatAccount.objects.filter(pk=AGENT).values_list("reserved", flat=True).first() or 0
    rows = models.FloatReservation.objects.filter(account=AGENT, released_at=None).values_list("amount", flat=True)
    assert kept == sum(rows)
    return kept


def test_no_more_is_promised_than_the_ledger_says_there_is():
    a_float(100)
    reserve(99_99)
    reserve(1)

    with pytest.raises(FloatTooLow):
        reserve(1)

    assert reserved() == 100_00
    assert models.FloatReservation.objects.count() == 2


def test_an_account_without_a_balance_promises_nothing_and_leaves_no_row():
    with pytest.raises(FloatTooLow):
        reserve(1)

    assert not models.FloatAccount.objects.exists()
    assert not models.FloatReservation.objects.exists()


@one_writer
def test_of_many_at_the_same_moment_only_as_many_get_money_as_there_is():
    a_float(100)

    ended = at_once(*[lambda: reserve(30_00)] * 10)

    assert Counter(type(one).__name__ for one in ended) == {"NoneType": 3, "FloatTooLow": 7}
    assert reserved() == 90_00


def test_what_is_released_can_be_promised_again_and_a_second_release_has_no_effect():
    a_float(100)
    first, second = new_id(), new_id()
    reserve(60_00, id=first)
    reserve(40_00, id=second)

    release(first)
    release(first, new_id())
    assert reserved() == 40_00
    release(second, first)

    assert reserved() == 0
    reserve(100_00)


@one_writer
def test_released_by_many_at_the_same_moment_it_is_given_back_once():
    a_float(100)
    some = [new_id() for _ in range(4)]
    for id in some:
        reserve(25_00, id=id)

    assert at_once(lambda: release(*some), lambda: release(*some[::-1]), lambda: release(*some[:2])) == [None] * 3
    assert reserved() == 0


def test_money_that_has_come_in_is_promised_beyond_the_balance_and_counted_once():
    id = new_id()

    reserve(50_00, id=id, beyond=True)
    reserve(50_00, id=id, beyond=True)

    assert reserved() == 50_00
    release(id)
    assert reserved() == 0
    reserve(50_00, id=id, beyond=True)
    assert reserved() == 50_00


def test_what_is_promised_anew_is_promised_by_the_account_and_for_the_amount_of_now():
    a_float(100)
    id = new_id()
    reserve(40_00, id=id)
    release(id)

    with unit_of_work():
        reservations.reserve("CR900002", TransactionId(id), usd(50_00), at=now(), beyond=True)

    assert reserved() == 0
    assert models.FloatAccount.objects.get(pk="CR900002").reserved == 50_00
    release(id)
    assert models.FloatAccount.objects.get(pk="CR900002").reserved == 0


# --- quotes -----------------------------------------------------------------------------------------------------------

book = DjangoQuoteBook()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(send=st.integers(1, MAX_MINOR_UNITS), get=st.integers(1, MAX_MINOR_UNITS), mid=rates, rate=rates, at=times)
def test_a_quote_is_read_back_as_it_was_offered(send, get, mid, rate, at):
    until = at + timedelta(minutes=2)
    locked = LockedRate(Currency.USD, Currency.KES, mid, rate, "table:1", at, until)
    you_send, you_get = Money(send, Currency.KES), Money(get, Currency.USD)
    offered = Quote(QuoteId(new_id()), UserId(new_id()), DEPOSIT, you_send, you_get, locked, at, until)
    with unit_of_work():
        book.add(offered)

    with unit_of_work():
        taken = book.take(offered.id, TransactionId(new_id()))

    assert taken == offered


def test_a_quote_is_taken_once_and_then_says_by_whom():
    quote, first = a_quote(new_id()), TransactionId(new_id())

    with unit_of_work():
        assert book.take(QuoteId(quote.id), first).transaction_id is None
    with unit_of_work():
        assert book.take(QuoteId(quote.id), TransactionId(new_id())).transaction_id == first

    assert models.Quote.objects.get().transaction_id == first


def test_a_quote_that_is_not_there_is_none():
    with unit_of_work():
        assert book.take(QuoteId(new_id()), TransactionId(new_id())) is None


@one_writer
def test_a_quote_that_many_take_at_the_same_moment_is_one_s():
    quote = a_quote(new_id())

    def take():
        with unit_of_work():
            return book.take(QuoteId(quote.id), TransactionId(new_id())).transaction_id is None

    assert sorted(at_once(*[take] * 8)) == [False] * 7 + [True]


# --- limits -----------------------------------------------------------------------------------------------------------

limit_book = DjangoLimitBook()
NOON = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)  # in Nairobi


def test_the_newest_rule_that_has_begun_counts():
    for days, most in ((-2, 500), (-1, 400), (1, 300)):
        models.LimitRule.objects.create(
            subject="tier:test", currency="KES", minimum=1, maximum=most, valid_from=NOON + timedelta(days=days)
        )

    rules = limit_book.rules(["tier:test"], at=NOON)

    standing, _ = limit_book.standing("tier:test", UserId(new_id()), DEPOSIT, Currency.KES, lately=NOON, at=NOON)

    assert rules["tier:test", Currency.KES].maximum.amount == 400
    assert standing == rules["tier:test", Currency.KES]


def test_a_tier_without_a_rule_has_none():
    rule, moved = limit_book.standing("tier:none", UserId(new_id()), DEPOSIT, Currency.KES, lately=NOON, at=NOON)

    assert (rule, moved.today, moved.this_month) == (None, kes(0), kes(0))


@pytest.mark.parametrize(
    ("at", "today", "this_month"),
    [
        (NOON, 1, 1),
        (datetime(2026, 11, 19, 21, 0, tzinfo=UTC), 1, 1),  # midnight in Nairobi
        (datetime(2026, 11, 19, 20, 59, 59, 999_999, UTC), 0, 1),
        (datetime(2026, 10, 31, 21, 0, tzinfo=UTC), 0, 1),  # the first of November in Nairobi
        (datetime(2026, 10, 31, 20, 59, tzinfo=UTC), 0, 0),
    ],
)
def test_days_and_months_are_those_of_nairobi(at, today, this_month):
    user = UserId(new_id())
    save(a_deposit(user=user, at=at, shillings=700))

    _, moved = limit_book.standing("tier:test", user, DEPOSIT, Currency.KES, lately=NOON, at=NOON)

    assert (moved.today, moved.this_month) == (kes(700 * today), kes(700 * this_month))


@pytest.mark.parametrize("status", S)
def test_what_ended_unpaid_is_not_counted_and_all_else_is(status):
    user = UserId(new_id())
    save(a_deposit(user=user, at=NOON, status=status), a_deposit(at=NOON))

    moved = limit_book.standing("tier:test", user, DEPOSIT, Currency.KES, lately=NOON, at=NOON)[1].today

    assert moved == kes(0 if status in {S.REJECTED, S.EXPIRED, S.FAILED} else 1300)


# --- together ---------------------------------------------------------------------------------------------------------


def test_a_late_payment_s_reservation_is_taken_again_in_the_commit_that_confirms_it():
    a_float(1)  # too low for it
    with unit_of_work():
        deposit = a_deposit(status=S.FAILED)
        transactions.save_many([deposit])
    assert reserved() == 0

    with unit_of_work():
        [read] = transactions.get_many([deposit.id], DEPOSIT)
        read.confirm(at=now())
        deposits.save([read], ())

    assert (stored(deposit.id).status, reserved()) == (S.MPESA_CONFIRMED, deposit.payout.amount)


def test_an_ended_deposit_gives_its_reservation_back_in_the_same_commit():
    a_float()
    deposit = a_stored_deposit(S.COMPLETED)

    assert reserved() == 0
    assert models.FloatReservation.objects.get(pk=deposit.id).released_at is not None


def test_the_rate_of_an_accepted_quote_is_locked_anew_from_that_moment():
    user, at = UserId(new_id()), now()
    quote = a_quote(user)

    with unit_of_work():
        taken = quotes.accept(QuoteId(quote.id), user, DEPOSIT, TransactionId(new_id()), at=at)

    assert taken.rate.rate == a_rate(at=at).rate
    assert taken.rate.expires_at == at + quotes.lock


def test_ids_are_sixteen_bytes():
    deposit = a_deposit(id=UUID(int=7))
    save(deposit)

    assert stored(deposit.id).id == UUID(int=7)
