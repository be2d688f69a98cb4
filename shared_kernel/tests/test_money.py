from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from shared_kernel.domain.money import (
    MAX_MINOR_UNITS,
    Currency,
    CurrencyMismatch,
    InvalidAmount,
    LockedRate,
    Money,
    NegativeMargin,
)

KES, USD = Currency.KES, Currency.USD
AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
MOST_SHILLINGS = 250_000  # what one M-Pesa payment may carry

currencies = st.sampled_from(Currency)
amounts = st.integers(-MAX_MINOR_UNITS, MAX_MINOR_UNITS)
shillings = st.integers(1, MOST_SHILLINGS)
cents = st.integers(1, 1_000_000)  # of a dollar


@st.composite
def rates(draw):
    """Rates with up to six decimals, the customer's never better than mid."""
    mid = draw(st.decimals("50", "500", places=draw(st.integers(0, 6))))
    margin = draw(st.decimals("0", "50", places=draw(st.integers(0, 6))))
    return a_rate(mid, mid + margin)


@st.composite
def selling_rates(draw):
    """Rates with up to six decimals, the customer's never above mid."""
    mid = draw(st.decimals("50", "500", places=draw(st.integers(0, 6))))
    margin = draw(st.decimals("0", "49", places=draw(st.integers(0, 6))))
    return a_rate(mid, mid - margin)


def a_rate(mid, rate) -> LockedRate:
    return LockedRate(USD, KES, Decimal(mid), Decimal(rate), "test", AT, AT + timedelta(minutes=2))


@given(amounts, currencies)
def test_an_amount_that_is_written_is_read_back_equal(amount, currency):
    money = Money(amount, currency)

    text, written_currency = str(money).split()
    assert (Money.parse(text, currency), written_currency) == (money, currency)
    assert Money.of_decimal(money.decimal, currency) == money


@given(st.lists(amounts.map(lambda a: a // 1000), max_size=20), currencies)
def test_sums_are_exact(parts, currency):
    total = Money(0, currency)
    for part in parts:
        total = total + Money(part, currency)

    assert total.amount == sum(parts)


@pytest.mark.parametrize(
    "text",
    ["", ".", "1.", ".5", "1.234", "1e3", "1_000", "1,000", " 1", "1 ", "+1", "--1", "-", "٣", "1.٣", "NaN", "Infinity",
     "0x10", "1.2.3", "9" * 14, "9" * 15, "9" * 400, None, 1, 1.5],
)  # fmt: skip
def test_what_is_not_a_plain_amount_is_refused(text):
    with pytest.raises(InvalidAmount):
        Money.parse(text, KES)


@pytest.mark.parametrize(
    ("text", "minor"), [("1", 100), ("1.5", 150), ("1300.00", 130000), ("-0.01", -1), ("007", 700)]
)
def test_a_plain_amount_is_read(text, minor):
    assert Money.parse(text, KES) == Money(minor, KES)


@pytest.mark.parametrize("amount", [1.0, "1", True, None, Decimal(1), MAX_MINOR_UNITS + 1, -MAX_MINOR_UNITS - 1])
def test_minor_units_are_a_whole_number_in_range(amount):
    with pytest.raises(InvalidAmount):
        Money(amount, KES)


@pytest.mark.parametrize("value", ["0.001", "1.005", "NaN", "Infinity"])
def test_more_digits_than_the_currency_has_are_refused(value):
    with pytest.raises(InvalidAmount):
        Money.of_decimal(Decimal(value), USD)


@pytest.mark.parametrize(
    "mix", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a < b, lambda a, b: a <= b, lambda a, b: a > b]
)
def test_currencies_do_not_mix(mix):
    with pytest.raises(CurrencyMismatch):
        mix(Money(1, KES), Money(1, USD))


def test_equal_amounts_of_two_currencies_are_not_equal():
    assert Money(1, KES) != Money(1, USD)


@given(shillings, rates())
def test_a_deposits_parts_are_what_was_paid_exactly(paid, rate):
    money = Money(paid * 100, KES)

    split = rate.split_deposit(money)

    assert split.fx + split.margin + split.rounding == money
    assert min(split.fx.amount, split.margin.amount, split.rounding.amount) >= 0


@given(shillings, rates())
def test_a_deposits_parts_follow_the_formula_in_exact_fractions(paid, rate):
    money = Money(paid * 100, KES)
    mid, price = Fraction(rate.mid), Fraction(rate.rate)

    bought, split = rate.buy(money), rate.split_deposit(money)

    assert bought == Money(Fraction(money.amount) // price, USD)
    cost = bought.amount * price
    assert split.fx.amount == (bought.amount * mid + Fraction(1, 2)) // 1
    assert split.margin.amount == -(-cost // 1) - split.fx.amount
    assert split.rounding.amount < price


@given(shillings, rates())
def test_a_customer_never_gets_more_than_was_paid_for(paid, rate):
    bought = rate.buy(Money(paid * 100, KES))

    assert bought.amount * Fraction(rate.rate) <= paid * 100 < (bought.amount + 1) * Fraction(rate.rate)


def test_a_deposit_of_the_example():
    split = a_rate("129.10", "131.05").split_deposit(Money(130_000, KES))

    assert (split.fx.amount, split.margin.amount, split.rounding.amount) == (127_938, 1_933, 129)


def test_a_customers_rate_better_than_mid_is_refused():
    with pytest.raises(NegativeMargin):
        a_rate("131", "129").split_deposit(Money(130_000, KES))


@given(cents, selling_rates())
def test_a_withdrawals_parts_are_what_the_fx_position_gives_exactly(sent, rate):
    split = rate.split_withdrawal(Money(sent, USD))

    assert split.payout + split.margin + split.rounding == split.fx
    assert min(split.payout.amount, split.margin.amount, split.rounding.amount) >= 0


@given(cents, selling_rates())
def test_a_withdrawals_parts_follow_the_formula_in_exact_fractions(sent, rate):
    mid, price = Fraction(rate.mid), Fraction(rate.rate)

    split = rate.split_withdrawal(Money(sent, USD))

    assert split.fx.amount == sent * mid // 1
    assert split.payout.amount == sent * price // 100 * 100
    assert split.rounding.amount == sent * price // 1 - split.payout.amount
    assert split.rounding.amount < 100


@given(cents, selling_rates())
def test_a_payout_is_whole_shillings_and_never_more_than_was_sold(sent, rate):
    payout = rate.sell(Money(sent, USD))

    assert payout == rate.split_withdrawal(Money(sent, USD)).payout
    assert payout.amount % 100 == 0
    assert payout.amount <= sent * Fraction(rate.rate) < payout.amount + 100


@given(cents, selling_rates(), shillings)
def test_more_dollars_never_give_fewer_shillings(sent, rate, more):
    assert rate.sell(Money(sent, USD)) <= rate.sell(Money(sent + more, USD))


def test_a_payout_is_rounded_down_where_a_decimal_of_28_digits_would_be_rounded_up():
    rate = a_rate("1", "0." + "9" * 30)

    assert rate.split_withdrawal(Money(MAX_MINOR_UNITS - 1, USD)).margin == Money(1, KES)


def test_a_withdrawal_of_the_example():
    """10.00 USD at 127.15 (mid 129.10): worth 1291.00, sold for 1271.50, of which 1271 are whole shillings."""
    split = a_rate("129.10", "127.15").split_withdrawal(Money(1_000, USD))

    assert (split.fx.amount, split.payout.amount) == (129_100, 127_100)
    assert (split.margin.amount, split.rounding.amount) == (1_950, 50)


def test_a_withdrawal_of_less_than_a_shilling_pays_nothing():
    assert a_rate("129", "99").sell(Money(1, USD)) == Money(0, KES)


@pytest.mark.parametrize("rate", ["131", "129.000001"])
def test_a_rate_above_mid_is_refused_for_a_withdrawal_even_where_no_cent_shows_it(rate):
    with pytest.raises(NegativeMargin):
        a_rate("129", rate).split_withdrawal(Money(1, USD))


@pytest.mark.parametrize("sell", [LockedRate.sell, LockedRate.split_withdrawal])
def test_only_the_base_currency_is_sold_at_a_rate(sell):
    with pytest.raises(CurrencyMismatch):
        sell(a_rate("129", "127"), Money(100, KES))


def test_only_the_quote_currency_is_paid_at_a_rate():
    with pytest.raises(CurrencyMismatch):
        a_rate("129", "131").buy(Money(100, USD))


@pytest.mark.parametrize(("mid", "rate"), [("0", "1"), ("1", "0"), ("-1", "1")])
def test_a_rate_is_positive(mid, rate):
    with pytest.raises(InvalidAmount):
        a_rate(mid, rate)


def test_a_rate_is_between_two_currencies():
    with pytest.raises(CurrencyMismatch):
        LockedRate(USD, USD, Decimal(1), Decimal(1), "test", AT, AT)


def test_a_rate_holds_until_it_expires():
    rate = a_rate("129", "131")

    assert rate.holds(rate.expires_at - timedelta(microseconds=1))
    assert not rate.holds(rate.expires_at)
