"""One round of Transactions through everything: POSTs over HTTP, then waiting for the last one to be final."""

import http.client
import json
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from django.db import connection

from penpay.stack import HOST, Stack
from tests.benchmarks.people import Person
from tests.benchmarks.world import rows

CSRF = "bench0000000000000000000000000ab"
CLIENTS = 8


@dataclass(frozen=True)
class Order:
    """One POST of somebody."""

    person: Person
    path: str
    body: Mapping[str, str]


@dataclass(frozen=True)
class Round:
    """One round. Times in seconds."""

    count: int
    took_s: float
    accepted_s: float
    callback_to_end_ms: tuple[float, float]  # p50, p99

    @property
    def per_s(self) -> float:
        """Transactions a second."""
        return self.count / self.took_s


def run(stack: Stack, orders: Sequence[Order], *, per_s: float = 0.0, most_s: float = 120) -> Round:
    """All of them at once, or `per_s` each second; ends when the last one is final.

    Raises `AssertionError` if one did not complete.
    """
    began_at = time.time()
    began = time.perf_counter()
    parts = [orders[n::CLIENTS] for n in range(CLIENTS)]
    threads = [
        threading.Thread(target=_client, args=(stack.port, part, CLIENTS / per_s if per_s else 0.0, n / CLIENTS))
        for n, part in enumerate(parts)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    accepted = time.perf_counter() - began
    while completed(began_at) < len(orders):
        assert time.perf_counter() - began < most_s, f"after {most_s} s: {by_status(began_at)}\n{late(began_at)}"
        time.sleep(0.05)
    took = time.perf_counter() - began
    return Round(len(orders), took, accepted, callback_to_end(began_at))


def _client(port: int, part: Sequence[Order], every_s: float, phase: float) -> None:
    began = time.perf_counter()
    with closing(http.client.HTTPConnection(HOST, port, timeout=60)) as api:
        for number, order in enumerate(part):
            if every_s:
                time.sleep(max(0.0, began + (number + phase) * every_s - time.perf_counter()))
            post(api, order)


def post(api: http.client.HTTPConnection, order: Order) -> None:
    """Raises `AssertionError` unless it is accepted."""
    one = order.person
    headers = {
        "Content-Type": "application/json",
        "Cookie": f"penpay_access={one.access}; csrftoken={CSRF}",
        "X-CSRFToken": CSRF,
        "Idempotency-Key": one.quote,
    }
    api.request("POST", f"/api/v1/{order.path}", json.dumps(order.body), headers)
    answer = api.getresponse()
    text = answer.read()
    assert answer.status == 202, text


def completed(since: float) -> int:
    """How many of those created since then are completed."""
    sql = "SELECT COUNT(*) FROM transactions WHERE status = 'COMPLETED' AND created_at >= FROM_UNIXTIME(%s)"
    return int(rows(sql, since)[0][0])


def by_status(since: float) -> dict[str, int]:
    """How many stand where."""
    return dict(
        rows("SELECT status, COUNT(*) FROM transactions WHERE created_at >= FROM_UNIXTIME(%s) GROUP BY 1", since)
    )


def late(since: float, most: int = 5) -> str:
    """All that is stored of some that have not completed: what to look at when a round does not end."""
    told = []
    ids = "SELECT id FROM transactions WHERE status <> 'COMPLETED' AND created_at >= FROM_UNIXTIME(%s) LIMIT %s"
    requests = "(SELECT id FROM mpesa_requests WHERE transaction_id = %s)"
    for (id,) in rows(ids, since, most):
        for table, which in (
            ("transactions", "id = %s"), ("mpesa_requests", "transaction_id = %s"),
            ("deriv_transfers", "transaction_id = %s"), ("mpesa_callbacks", f"request_id IN {requests}"),
            ("domain_events", "aggregate_id = %s"),
        ):  # fmt: skip
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM {table} WHERE {which}", [id])  # names from here
                names = [column[0] for column in cursor.description]
                told += [f"{table}: {dict(zip(names, row, strict=True))}" for row in cursor.fetchall()]
    return "\n".join(told)


def callback_to_end(since: float) -> tuple[float, float]:
    """p50 and p99 of the time from the callback's receipt to `COMPLETED`, in ms."""
    found = rows(
        "SELECT TIMESTAMPDIFF(MICROSECOND, c.received_at, t.updated_at) / 1000.0 FROM transactions t "
        "JOIN mpesa_requests r ON r.transaction_id = t.id JOIN mpesa_callbacks c ON c.request_id = r.id "
        "WHERE t.status = 'COMPLETED' AND t.created_at >= FROM_UNIXTIME(%s)",
        since,
    )
    times = sorted(float(row[0]) for row in found)
    return (statistics.median(times), times[int(len(times) * 0.99) - 1]) if times else (0.0, 0.0)
