"""A customer's statement: the period, the words, and lines that lead from the opening to the closing balance."""

import re
from datetime import UTC, date, datetime, timedelta
from inspect import getsource

import pytest
import time_machine
from hypothesis import HealthCheck, given, settings, strategies as st

from shared_kernel.domain.money import Currency, Money
from wallet.application import deposit_journals, suspense_journals, withdrawal_journals
from wallet.domain.statement import (
    WORDS,
    Period,
    PeriodBackwards,
    PeriodInFuture,
    PeriodTooLong,
    description,
)
from wallet.facade import customer_balances, statement_lines, statement_totals
from wallet.tests.books import InDatabase, Of
from wallet.tests.factories import a_customer

NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
BOTH = ["KES", "USD"]


def test_a_day_is_kenyas_and_the_last_one_is_included():
    period = Period.of(date(2026, 11, 1), date(2026, 11, 2), at=NOW)

    assert period == Period(datetime(2026, 10, 31, 21, tzinfo=UTC), datetime(2026, 11, 2, 21, tzinfo=UTC))
    assert period.days == (date(2026, 11, 1), date(2026, 11, 2))


def test_today_is_included_as_far_as_it_has_passed():
    assert Period.of(date(2026, 11, 25), date(2026, 11, 25), at=NOW).end == NOW


def test_a_period_of_which_nothing_is_said_is_of_the_last_thirty_days():
    assert Period.of(None, None, at=NOW) == Period(NOW - timedelta(days=30), NOW)


@pytest.mark.parametrize(
    ("first", "last", "refusal"),
    [
        (date(2026, 11, 26), None, PeriodInFuture),
        (None, date(2026, 11, 26), PeriodInFuture),
        (NOW, None, PeriodInFuture),
        (None, NOW + timedelta(seconds=1), PeriodInFuture),
        (date(2026, 11, 2), date(2026, 11, 1), PeriodBackwards),
        (NOW - timedelta(days=1), NOW - timedelta(days=1), PeriodBackwards),
        (date(2025, 11, 1), date(2026, 11, 2), PeriodTooLong),
        (date(2000, 1, 1), None, PeriodTooLong),
    ],
)
def test_a_period_that_cannot_be_is_refused_with_what_to_do(first, last, refusal):
    with pytest.raises(refusal, match=r"leave|give|exchange|ask"):
        Period.of(first, last, at=NOW)


def test_a_whole_leap_year_fits_into_one_statement():
    assert Period.of(date(2024, 1, 1), date(2024, 12, 31), at=NOW).days == (date(2024, 1, 1), date(2024, 12, 31))


def test_every_purpose_that_touches_a_customers_account_has_words():
    """By their source: whichever journal has a customer's account in its lines."""
    written = set()
    for module in (deposit_journals, withdrawal_journals, suspense_journals):
        for function in re.split(r"\n    def ", getsource(module)):
            if re.search(r"customer_in_transit|customer_receivable|\bheld\b", function):
                written |= set(
                    re.findall(r'_post(?:_standing)?\(\s*"(\w+)"|purpose = "(\w+)" if|else "(\w+_owed)"', function)
                )
    purposes = {name for names in written for name in names if name}

    assert purposes >= {"deposit_received", "deposit_owed", "withdrawal_exchanged", "payout_over", "uncovered"}
    assert purposes - set(WORDS) == set()


def test_words_say_what_was_exchanged_and_a_purpose_without_words_is_a_correction():
    sent = Money(-130000, Currency.KES)

    assert description("deposit_sent", sent, Money(123456, Currency.USD)) == "Sent to your Deriv account: 1,234.56 USD"
    assert description("reversal", sent) == "Correction"


def test_the_customers_words_tell_nobody_off():
    """Whoever is suspected must not read it here."""
    told = " ".join(text for pair in WORDS.values() for text in pair).lower()

    assert not re.search(r"suspen|suspic|aml|launder|fraud|hold\b|review", told)


class Day:
    """Journals of one customer, each booked at its own minute of a day."""

    def __init__(self, customer=None):
        self.customer, self.books, self.minute = customer or a_customer(), InDatabase(), 0
        self.owner = str(self.customer)

    def book(self, *steps, of=None):
        of = of or Of(self.books, self.customer)
        for step in steps:
            self.minute += 1
            with time_machine.travel(self.at(self.minute), tick=False):
                of.do(step)
        return of

    @staticmethod
    def at(minute):
        return datetime(2026, 11, 20, 6, 0, tzinfo=UTC) + timedelta(minutes=minute)

    def totals(self, start, end, after=None, currencies=BOTH):
        return statement_totals(self.owner, self.at(start), self.at(end), currencies, after=after)

    def lines(self, start, end, after=None, limit=100, currencies=BOTH):
        totals = self.totals(start, end, after, currencies)
        carried = {total.currency: total.carried for total in totals}
        return statement_lines(self.owner, self.at(start), self.at(end), carried, after=after, limit=limit)


@pytest.mark.django_db
def test_a_withdrawal_is_four_lines_in_two_currencies():
    day = Day()
    of = day.book("debited", "exchanged", "paid")

    lines = day.lines(0, 10)

    shown = [(line.purpose, line.currency, line.change, line.balance, line.exchanged) for line in lines]
    assert sorted(shown[1:3]) == [
        ("withdrawal_exchanged", "KES", 127100, 127100, (1000, "USD")),
        ("withdrawal_exchanged", "USD", -1000, 0, (127100, "KES")),
    ]
    assert shown[0] == ("withdrawal_debited", "USD", 1000, 1000, None)
    assert shown[3] == ("withdrawal_paid", "KES", -127100, 0, None)
    assert {line.transaction_id for line in lines} == {of.id}
    assert [line.at for line in lines] == [day.at(1), day.at(2), day.at(2), day.at(3)]


@pytest.mark.django_db
def test_a_deposit_that_went_to_deriv_is_one_line_with_the_dollars_that_it_bought():
    day = Day()
    day.book("received", "sent")

    *_, sent = day.lines(0, 10)

    assert (sent.change, sent.balance, sent.exchanged) == (-130000, 0, (991, "USD"))


@pytest.mark.django_db
def test_what_came_before_is_the_opening_balance_and_what_came_after_is_not_there():
    day = Day()
    day.book("received")
    day.book("received")
    day.book("received")

    kes, usd = day.totals(2, 3)

    assert (kes.opening, kes.money_in, kes.money_out, kes.closing) == (130000, 130000, 0, 260000)
    assert (usd.opening, usd.closing) == (0, 0)
    assert [line.balance for line in day.lines(2, 3)] == [260000]


@pytest.mark.django_db
def test_what_the_customer_owes_makes_the_balance_negative():
    day = Day()
    day.book("received", "sent", "deposit_owed")

    [balance] = customer_balances(day.owner)

    assert (balance.currency, balance.in_transit, balance.owed) == ("KES", 0, 130000)
    assert [line.balance for line in day.lines(0, 10)] == [130000, 0, -130000]
    assert day.totals(0, 10)[0].closing == -130000


@pytest.mark.django_db
def test_another_customers_journals_are_never_there():
    mine, theirs = Day(), Day()
    theirs.book("received", "sent")
    mine.book("debited")

    assert [line.purpose for line in mine.lines(0, 10)] == ["withdrawal_debited"]
    assert customer_balances(str(a_customer())) == []


@pytest.mark.django_db
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.sampled_from(
            [
                ("received", "sent"), ("received",), ("debited", "exchanged", "paid"), ("debited", "exchanged"),
                ("received", "sent", "sent_undone", "reversed_by_us"), ("debited", "credited_back"),
                ("debited", "exchanged", "exchange_undone"), ("received", "sent", "deposit_owed"),
            ]
        ),
        max_size=5,
    ),
    st.integers(0, 12),
    st.integers(1, 12),
    st.integers(1, 4),
)  # fmt: skip
def test_pages_of_any_size_are_the_statement_and_its_lines_lead_to_its_closing_balance(stories, start, length, limit):
    day = Day()
    for story in stories:
        day.book(*story)
    end = start + length

    whole, paged, after = day.lines(start, end), [], None
    while page := day.lines(start, end, after, limit):
        paged += page
        after = page[-1].at, page[-1].seq

    assert paged == whole
    for total in day.totals(start, end):
        changes = [line.change for line in whole if line.currency == total.currency]
        balances = [line.balance for line in whole if line.currency == total.currency]
        assert total.money_in == sum(change for change in changes if change > 0)
        assert total.money_out == -sum(change for change in changes if change < 0)
        assert balances == [total.opening + sum(changes[: n + 1]) for n in range(len(changes))]
        assert (balances or [total.opening])[-1] == total.closing
    kept = {row.currency: row.in_transit - row.owed for row in customer_balances(day.owner)}
    assert {t.currency: t.closing for t in day.totals(0, 60)} == {"KES": 0, "USD": 0} | kept
