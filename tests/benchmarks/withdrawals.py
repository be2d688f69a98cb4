"""Withdrawals through everything, by customers on v3 who have their one-time code already."""

import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from penpay.stack import HOST, Stack
from tests.benchmarks import rounds
from tests.benchmarks.deposits import introduce
from tests.benchmarks.people import Person, people, step_up

DOLLARS = 5


def prepare(stack: Stack, count: int) -> list[rounds.Order]:
    """Customers here and at the providers, with a code each, which Deriv mailed them by PenPay's own request."""
    stack.control("mpesa", "settings", {"result_s": 0})  # M-Pesa's own time is no matter of ours
    everybody = people(count, dollars=DOLLARS)
    introduce(stack, everybody, balance="100.00")
    with ThreadPoolExecutor(rounds.CLIENTS) as pool:
        list(
            pool.map(
                lambda part: _ask(stack.port, part), [everybody[n :: rounds.CLIENTS] for n in range(rounds.CLIENTS)]
            )
        )
        orders = list(pool.map(lambda one: _order(stack, one), everybody))
    step_up(everybody)
    return orders


def _ask(port: int, part: Sequence[Person]) -> None:
    with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as api:
        for one in part:
            rounds.post(api, rounds.Order(one, "withdrawals/verification", {"quote_id": one.quote}))


def _order(stack: Stack, one: Person) -> rounds.Order:
    code = stack.control("deriv_ws", f"codes?customer={one.account}", method="GET")[-1]["code"]
    return rounds.Order(one, "withdrawals", {"quote_id": one.quote, "verification_code": code})
