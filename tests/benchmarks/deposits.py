"""Deposits through everything."""

from collections.abc import Sequence

from penpay.stack import Stack
from tests.benchmarks import rounds
from tests.benchmarks.people import Person, at_the_providers, people


def prepare(stack: Stack, count: int) -> list[Person]:
    """Customers here and at the providers."""
    everybody = people(count)
    introduce(stack, everybody, balance="0.00")
    return everybody


def introduce(stack: Stack, everybody: Sequence[Person], *, balance: str) -> None:
    """The providers get to know them."""
    phones, accounts = at_the_providers(everybody, balance=balance)
    for start in range(0, len(everybody), 500):
        stack.control("mpesa", "customers", phones[start : start + 500])
        stack.control("deriv_ws", "customers", accounts[start : start + 500])


def run(stack: Stack, everybody: Sequence[Person], *, per_s: float = 0.0, most_s: float = 120) -> rounds.Round:
    """As `rounds.run`."""
    orders = [rounds.Order(one, "deposits", {"quote_id": one.quote}) for one in everybody]
    return rounds.run(stack, orders, per_s=per_s, most_s=most_s)
