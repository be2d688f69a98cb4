"""Valid things to post."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from shared_kernel.domain.identifiers import TransactionId, UserId
from shared_kernel.domain.money import Currency, LockedRate, Money
from shared_kernel.infrastructure.persistence import new_id, unit_of_work
from wallet.domain.ledger import AccountKind
from wallet.facade import customer_in_transit, customer_receivable, deriv_agent, house, ledger, mpesa_working

AT = datetime(2026, 11, 2, 9, 30, tzinfo=UTC)
SHORTCODE, AGENT = "174379", "CR900001"
MPESA, DERIV = mpesa_working(SHORTCODE), deriv_agent(AGENT)
SUSPENSE = house(AccountKind.SUSPENSE, Currency.KES)


def kes(shillings) -> Money:
    return Money.of_decimal(Decimal(shillings), Currency.KES)


def usd(dollars) -> Money:
    return Money.of_decimal(Decimal(dollars), Currency.USD)


def a_rate(mid="129.10", rate="131.05") -> LockedRate:
    until = AT + timedelta(minutes=30)
    return LockedRate(Currency.USD, Currency.KES, Decimal(mid), Decimal(rate), "test", AT, until)


def a_selling_rate(mid="129.10", rate="127.15") -> LockedRate:
    return a_rate(mid, rate)


def a_customer() -> UserId:
    return UserId(new_id())


def a_deposit() -> TransactionId:
    return TransactionId(new_id())


def held(customer):
    return customer_in_transit(customer, Currency.KES)


def held_usd(customer):
    return customer_in_transit(customer, Currency.USD)


def owed(customer):
    return customer_receivable(customer, Currency.KES)


def receive(deposit, customer, paid, *, key=""):
    """Posts in the caller's unit of work."""
    key = key or f"mpesa:{SHORTCODE}:{deposit}"
    ledger.post_deposit_received(deposit, customer, paid, shortcode=SHORTCODE, provider_key=key, at=AT)


def send(deposit, customer, paid, *, rate=None, key=""):
    """Posts in the caller's unit of work."""
    rate = rate or a_rate()
    ledger.post_deposit_sent(
        deposit,
        customer,
        rate.split_deposit(paid),
        rate.buy(paid),
        agent=AGENT,
        provider_key=key or f"deriv:{AGENT}:{deposit}",
        at=AT,
    )


def post(*steps):
    """One unit of work of several steps."""
    with unit_of_work():
        for step in steps:
            step()


def a_received_deposit(paid):
    """A committed one: its id and its customer."""
    deposit, customer = a_deposit(), a_customer()
    with unit_of_work():
        receive(deposit, customer, paid)
    return deposit, customer
