"""The rules of limits, on a book in memory."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from hypothesis import given, strategies as st

from payments.domain.limits import (
    PROVIDER_LEGS,
    KycRequired,
    LimitExceeded,
    LimitRule,
    Limits,
    LimitsMissing,
    Moved,
    WholeShillingsOnly,
)
from payments.domain.transaction import TransactionType
from payments.tests.factories import kes, usd
from shared_kernel.domain.identifiers import UserId
from shared_kernel.domain.money import Currency, CurrencyMismatch, Money
from shared_kernel.domain.rate_limits import RateLimit
from shared_kernel.infrastructure.persistence import new_id

AT = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
OFTEN = {"deposits.user": RateLimit(100, 3600)}
USER, DEPOSIT = UserId(new_id()), TransactionType.DEPOSIT


@dataclass
class Book:
    """What a test puts into it."""

    rows: list[LimitRule] = field(default_factory=list)
    moved_so_far: Moved = field(default_factory=lambda: Moved(kes(0), kes(0)))

    def rules(self, subjects, *, at):
        return {(rule.subject, rule.minimum.currency): rule for rule in self.rows if rule.subject in subjects}

    def standing(self, subject, user, type, currency, *, lately, at):
        return self.rules([subject], at=at).get((subject, currency)), self.moved_so_far

    def ordered_while_waiting(self, user, since):
        return kes(0)


def tier(least=10, most=1_000, day=2_000, month=5_000):
    day, month = (None if sum is None else kes(sum) for sum in (day, month))
    return LimitRule("tier:basic", kes(least), kes(most), day, month)


def providers():
    stk, b2c, deriv = PROVIDER_LEGS
    return [
        LimitRule(stk, kes(1), kes(900)),
        LimitRule(b2c, kes(10), kes(800)),
        LimitRule(deriv, usd(1_00), usd(6_00)),
    ]


def limits(*rules, today=0, this_month=0):
    return Limits(Book([*(rules or [tier()]), *providers()], Moved(kes(today), kes(this_month))), OFTEN)


def check(amount, **given):
    limits(**given).check(USER, "basic", DEPOSIT, amount, at=AT)


def quote(shillings, cents, *rules):
    limits(*rules).check_quote("basic", kes(shillings), usd(cents), at=AT)


@pytest.mark.parametrize("shillings", [10, 11, 999, 1_000])
def test_between_minimum_and_maximum_it_passes(shillings):
    check(kes(shillings))


@pytest.mark.parametrize("shillings", [0, 9, 1_001])
def test_outside_of_them_it_does_not(shillings):
    with pytest.raises(LimitExceeded):
        check(kes(shillings))


@given(today=st.integers(0, 3_000), more=st.integers(10, 1_000), month=st.integers(0, 6_000))
def test_a_day_and_a_month_never_hold_more_than_their_limit(today, more, month):
    fits = today + more <= 2_000 and month + more <= 5_000

    with nullcontext() if fits else pytest.raises(LimitExceeded):
        check(kes(more), today=today, this_month=month)


def test_a_refusal_says_how_much_may_still_be_moved():
    with pytest.raises(LimitExceeded, match=r"700\.00.* today"):
        check(kes(701), today=1_300)


def test_what_is_left_is_never_less_than_nothing():
    rule, left = limits(today=2_500, this_month=9_000).left(USER, "basic", DEPOSIT, at=AT)

    assert (left.today, left.this_month) == (kes(0), kes(0))
    assert rule == tier()


def test_without_a_daily_or_monthly_limit_there_is_no_rest_to_tell():
    _, left = limits(tier(day=None, month=None), today=10**6).left(USER, "basic", DEPOSIT, at=AT)

    assert (left.today, left.this_month) == (None, None)


@pytest.mark.parametrize(
    ("shillings", "cents", "passes"),
    [
        (800, 6_00, True),
        (801, 6_00, False),  # could not be given back by B2C
        (901, 6_00, False),
        (800, 6_01, False),  # Deriv would not take it
        (10, 1_00, True),
        (10, 99, False),
        (9, 1_00, False),
    ],
)
def test_a_quote_must_fit_both_legs_and_the_give_back(shillings, cents, passes):
    if passes:
        quote(shillings, cents)
    else:
        with pytest.raises(LimitExceeded):
            quote(shillings, cents)


@given(st.integers(1, 80_000).filter(lambda cents: cents % 100))
def test_a_quote_is_given_for_whole_shillings_only(cents):
    with pytest.raises(WholeShillingsOnly):
        limits().check_quote("basic", Money(cents, Currency.KES), usd(2_00), at=AT)


@pytest.mark.parametrize("missing", ["tier:basic", *PROVIDER_LEGS])
def test_without_one_of_its_rules_nothing_moves(missing):
    book = Book([rule for rule in [tier(), *providers()] if rule.subject != missing])

    with pytest.raises(LimitsMissing):
        Limits(book, OFTEN).check_quote("basic", kes(100), usd(2_00), at=AT)


def test_a_tier_without_a_rule_moves_nothing_and_is_no_fault_of_the_customer():
    with pytest.raises(LimitsMissing):
        limits().check(USER, "gold", DEPOSIT, kes(100), at=AT)


def test_a_customer_without_a_tier_is_told_to_complete_the_identity_check():
    for refuse in (
        lambda: limits().check_quote("none", kes(100), usd(2_00), at=AT),
        lambda: limits().check(USER, "none", DEPOSIT, kes(100), at=AT),
        lambda: limits().left(USER, "none", DEPOSIT, at=AT),
    ):
        with pytest.raises(KycRequired):
            refuse()


def test_a_rule_is_not_held_against_another_currency():
    with pytest.raises(CurrencyMismatch):
        tier().check_one(usd(100))
