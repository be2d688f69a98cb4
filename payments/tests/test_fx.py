"""The FX position: by hand, and that realised and unrealised together are always all there is."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given, strategies as st

from payments.facade import treasury
from payments.tests.factories import todays_rate
from shared_kernel.domain.fx import FxPosition
from shared_kernel.domain.money import Currency, Money
from wallet.facade import AccountKind, fx_turnover, house, ledger
from wallet.tests.books import InDatabase, Of
from wallet.tests.factories import AT, kes

MID = Decimal("130.00")
cents = st.integers(0, 10**12)


@dataclass(frozen=True)
class Turnover:
    bought: int = 0
    paid: int = 0
    sold: int = 0
    received: int = 0
    taken: int = 0
    booked: int = 0


def shillings(amount):
    return Money(round(amount * 100), Currency.KES)


def test_dollars_sold_and_not_bought_back_lose_when_the_dollar_rises():
    position = FxPosition.of(Turnover(sold=1000_00, received=129_100_00), MID)

    assert (position.open, position.cost, position.average) == (
        Money(-1000_00, Currency.USD),
        shillings(129_100),
        Decimal("129.1000"),
    )
    assert (position.realised, position.unrealised) == (shillings(0), shillings(-900))


def test_dollars_bought_and_still_held_gain_when_the_dollar_rises():
    position = FxPosition.of(Turnover(bought=1000_00, paid=129_100_00), MID)

    assert (position.open, position.unrealised) == (Money(1000_00, Currency.USD), shillings(900))


def test_what_came_both_ways_is_realised_at_the_averages_of_both():
    position = FxPosition.of(Turnover(sold=1000_00, received=131_000_00, bought=400_00, paid=51_600_00), MID)

    assert position.realised == shillings(400 * (131 - 129))
    assert position.unrealised == shillings(600 * (131 - 130))


def test_what_was_booked_is_told_apart_from_what_is_still_in_the_position():
    position = FxPosition.of(
        Turnover(sold=100_00, received=13_100_00, bought=100_00, paid=13_000_00, taken=60_00, booked=60_00), MID
    )

    assert (position.realised, position.booked, position.unbooked) == (shillings(100), shillings(60), shillings(40))
    assert (position.open, position.average) == (Money(0, Currency.USD), None)


def test_without_a_rate_nothing_is_valued():
    position = FxPosition.of(Turnover(sold=100_00, received=13_100_00), None)

    assert (position.value, position.unrealised) == (None, None)


@given(cents, cents, cents, cents, st.decimals("0.01", "999", places=8))
def test_realised_and_unrealised_are_all_there_is(bought, paid, sold, received, mid):
    turnover = Turnover(bought, paid if bought else 0, sold, received if sold else 0)

    position = FxPosition.of(turnover, mid)

    worth = int((abs(bought - sold) * mid).to_integral_value(ROUND_HALF_UP)) * (1 if bought >= sold else -1)
    total = turnover.received - turnover.paid + worth
    assert position.realised.amount + position.unrealised.amount == total


@pytest.mark.django_db
def test_the_turnover_is_what_the_journals_exchanged_without_what_was_undone():
    books = InDatabase()
    Of(books).do("received", "sent")
    Of(books).do("received", "sent", "sent_undone")
    Of(books).do("debited", "exchanged", "paid")
    Of(books).do("debited", "exchanged", "exchange_undone")

    turnover = fx_turnover()

    # 9.91 USD at 129.10 are 1279.381, half up; 10 USD at 129.10 are 1291.00
    assert (turnover.sold, turnover.received, turnover.bought, turnover.paid) == (991, 127938, 1000, 129100)
    balances = {c: ledger.balance(house(AccountKind.FX_POSITION, c)).amount for c in Currency}
    assert balances[Currency.USD] == turnover.sold - turnover.bought
    assert balances[Currency.KES] == turnover.paid + turnover.booked - turnover.received


@pytest.mark.django_db
def test_a_gain_that_was_booked_is_no_exchange():
    books = InDatabase()
    Of(books).do("received", "sent")
    line = (house(AccountKind.FX_POSITION, Currency.KES), house(AccountKind.FX_GAIN_LOSS, Currency.KES), kes(5))
    with books.unit_of_work():
        ledger._post("fx_gain", [line], None, "one", at=AT)

    turnover = fx_turnover()

    assert (turnover.received, turnover.taken, turnover.booked) == (127938, 500, 500)


@pytest.mark.django_db
def test_the_position_is_valued_at_the_rate_that_is_valid_now():
    Of(InDatabase()).do("debited", "exchanged", "paid")
    rate = todays_rate(mid=Decimal("130.50"))

    assert treasury.fx_position(at=rate.valid_from).unrealised == kes("14.00")
    assert treasury.fx_position(at=rate.valid_until).mid is None
