"""Offers: what they promise, and that each is taken once, by its customer, in time."""

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, strategies as st

from payments.application.quotes import AmountTooSmall, CreateQuote, Quotes, WrongCurrency
from payments.domain.limits import LimitExceeded, Limits
from payments.domain.quote import QuoteExpired, QuoteNotFound, QuoteUsed
from payments.domain.transaction import TransactionType
from payments.tests.factories import a_rate, kes, usd
from shared_kernel.domain.identifiers import QuoteId, TransactionId, UserId
from shared_kernel.domain.money import NegativeMargin
from shared_kernel.infrastructure.persistence import new_id

AT = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
TTL, LOCK = timedelta(minutes=2), timedelta(minutes=30)
USER, DEPOSIT = UserId(new_id()), TransactionType.DEPOSIT
CUSTOMER = SimpleNamespace(tier="standard", deriv_login_state="active")


@dataclass
class Book:
    """Quotes in memory."""

    rows: dict[Any, Any] = field(default_factory=dict)

    def add(self, quote):
        self.rows[quote.id] = quote

    def name_agent(self, id, agent):
        self.rows[id] = replace(self.rows[id], agent=agent)

    def take(self, id, transaction):
        quote = self.rows.get(id)
        if quote and quote.transaction_id is None:
            self.rows[id] = replace(quote, transaction_id=transaction)
        return quote


@dataclass
class World:
    """Quotes over ports of this test: `most` is the only limit, `rate` today's."""

    book: Book = field(default_factory=Book)
    rate: dict[str, Any] = field(default_factory=dict)
    most: int = 10**9

    @property
    def quotes(self):
        def check_quote(tier, amount, gets, *, at):
            if amount.amount > self.most:
                raise LimitExceeded("too much")

        return Quotes(
            book=self.book,
            rates=SimpleNamespace(lock=lambda type, *, at: a_rate(at=at, **self.rate)),
            limits=cast("Limits", SimpleNamespace(check_quote=check_quote)),
            users=cast("Any", SimpleNamespace(customer=lambda user: CUSTOMER)),
            unit_of_work=nullcontext,
            ttl=TTL,
            lock=LOCK,
        )

    def offer(self, amount=None, type=DEPOSIT):
        return self.quotes.create(CreateQuote(QuoteId(new_id()), USER, type, amount or kes(1300), AT))

    def accept(self, quote, *, user=USER, type=DEPOSIT, after=timedelta(0)):
        return self.quotes.accept(quote.id, user, type, TransactionId(new_id()), at=AT + after)


@pytest.fixture
def world() -> World:
    return World()


@given(shillings=st.integers(3, 250_000), mid=st.integers(80, 200), margin=st.integers(0, 500))
def test_an_offer_never_promises_a_cent_more_than_the_payment_buys(shillings, mid, margin):
    rate = (Decimal(mid) * (10_000 + margin) / 10_000).quantize(Decimal("0.00000001"))
    offer = World(rate={"mid": Decimal(mid), "rate": rate}).offer(kes(shillings))

    bought = Decimal(offer.you_get.amount)
    assert bought * rate <= shillings * 100 < (bought + 1) * rate
    assert offer.margin == rate - mid
    split = offer.rate.split_deposit(offer.you_send)
    assert split.fx.amount + split.margin.amount + split.rounding.amount == shillings * 100


def test_an_offer_is_stored_as_it_was_told_and_ends_after_its_time(world):
    offer = world.offer()

    assert world.book.rows == {offer.id: offer}
    assert (offer.expires_at - AT, offer.transaction_id) == (TTL, None)


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ({"amount": usd(1_000)}, WrongCurrency),
        ({"type": TransactionType.WITHDRAWAL}, WrongCurrency),
        ({"amount": kes(1)}, AmountTooSmall),
    ],
)
def test_what_can_not_be_offered_is_refused_and_not_stored(order, error):
    world = World(rate={"rate": Decimal(200)})

    with pytest.raises(error):
        world.offer(**order)

    assert not world.book.rows


def test_what_the_limits_refuse_is_not_stored(world):
    world.most = 100

    with pytest.raises(LimitExceeded):
        world.offer()

    assert not world.book.rows


def test_a_rate_below_the_middle_one_is_never_offered(world):
    world.rate = {"rate": Decimal(120)}

    with pytest.raises(NegativeMargin):
        world.offer()

    assert not world.book.rows


def test_the_accepted_rate_is_the_one_that_was_offered_and_holds_from_then_on(world):
    offer = world.offer()
    world.rate = {"rate": Decimal(150)}  # meanwhile

    accepted = world.accept(offer, after=timedelta(seconds=90))

    assert (accepted.rate.rate, accepted.you_get) == (offer.rate.rate, offer.you_get)
    assert accepted.rate.expires_at == AT + timedelta(seconds=90) + LOCK


def test_an_offer_is_taken_once(world):
    offer = world.offer()
    world.accept(offer)

    with pytest.raises(QuoteUsed):
        world.accept(offer)


@pytest.mark.parametrize(
    ("after", "error"), [(TTL - timedelta(microseconds=1), None), (TTL, QuoteExpired), (TTL * 2, QuoteExpired)]
)
def test_an_offer_ends_to_the_microsecond(world, after, error):
    offer = world.offer()

    if error is None:
        world.accept(offer, after=after)
    else:
        with pytest.raises(error):
            world.accept(offer, after=after)


@pytest.mark.parametrize("how", [{"user": UserId(new_id())}, {"type": TransactionType.WITHDRAWAL}])
def test_an_offer_is_for_one_customer_and_one_type(world, how):
    with pytest.raises(QuoteNotFound):
        world.accept(world.offer(), **how)
