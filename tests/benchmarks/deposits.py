"""Deposits a second through everything, beside their floor: the same rows in the same commits by hand-written SQL."""

import http.client
import json
import statistics
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from django.db import connection

from penpay.stack import HOST, Stack
from tests.benchmarks.people import Person, at_the_providers, people

CSRF = "bench0000000000000000000000000ab"
CLIENTS = 8


@dataclass(frozen=True)
class Round:
    """One round of deposits. Times in seconds."""

    count: int
    took_s: float
    accepted_s: float
    callback_to_end_ms: tuple[float, float]  # p50, p99

    @property
    def per_s(self) -> float:
        """Deposits a second."""
        return self.count / self.took_s


def prepare(stack: Stack, count: int) -> list[Person]:
    """Customers here and at the providers."""
    everybody = people(count)
    phones, accounts = at_the_providers(everybody)
    for start in range(0, count, 500):
        stack.control("mpesa", "customers", phones[start : start + 500])
        stack.control("deriv_ws", "customers", accounts[start : start + 500])
    return everybody


def run(stack: Stack, everybody: Sequence[Person], *, per_s: float = 0.0, most_s: float = 120) -> Round:
    """All of them deposit at once, or `per_s` each second; ends when the last one is final.

    Raises `AssertionError` if one did not complete.
    """
    began_at = time.time()
    began = time.perf_counter()
    parts = [everybody[n::CLIENTS] for n in range(CLIENTS)]
    threads = [
        threading.Thread(target=_client, args=(stack.port, part, CLIENTS / per_s if per_s else 0.0, n / CLIENTS))
        for n, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = time.perf_counter() - began
    quotes = {one.quote for one in everybody}
    while completed(began_at) < len(quotes):
        assert time.perf_counter() - began < most_s, f"after {most_s} s: {by_status(began_at)}"
        time.sleep(0.05)
    took = time.perf_counter() - began
    return Round(len(everybody), took, accepted, callback_to_end(began_at))


def _client(port: int, part: Sequence[Person], every_s: float, phase: float) -> None:
    began = time.perf_counter()
    with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as api:
        for number, one in enumerate(part):
            if every_s:
                time.sleep(max(0.0, began + (number + phase) * every_s - time.perf_counter()))
            body = json.dumps({"quote_id": one.quote})
            headers = {
                "Content-Type": "application/json",
                "Cookie": f"penpay_access={one.access}; csrftoken={CSRF}",
                "X-CSRFToken": CSRF,
                "Idempotency-Key": one.quote,
            }
            api.request("POST", "/api/v1/deposits", body, headers)
            answer = api.getresponse()
            text = answer.read()
            assert answer.status == 202, text


def _rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return list(cursor.fetchall())


def completed(since: float) -> int:
    """How many of the deposits created since then are completed."""
    sql = "SELECT COUNT(*) FROM transactions WHERE status = 'COMPLETED' AND created_at >= FROM_UNIXTIME(%s)"
    return int(_rows(sql, since)[0][0])


def by_status(since: float) -> dict[str, int]:
    """How many stand where."""
    return dict(
        _rows("SELECT status, COUNT(*) FROM transactions WHERE created_at >= FROM_UNIXTIME(%s) GROUP BY 1", since)
    )


def callback_to_end(since: float) -> tuple[float, float]:
    """p50 and p99 of the time from the callback's receipt to `COMPLETED`, in ms."""
    rows = _rows(
        "SELECT TIMESTAMPDIFF(MICROSECOND, c.received_at, t.updated_at) / 1000.0 FROM transactions t "
        "JOIN mpesa_requests r ON r.transaction_id = t.id JOIN mpesa_callbacks c ON c.request_id = r.id "
        "WHERE t.status = 'COMPLETED' AND t.created_at >= FROM_UNIXTIME(%s)",
        since,
    )
    times = sorted(float(row[0]) for row in rows)
    return (statistics.median(times), times[int(len(times) * 0.99) - 1]) if times else (0.0, 0.0)
