"""A whole PenPay as real processes, on servers of its own that a test may kill."""

import json
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import MySQLdb
import pytest

from penpay.stack import HOST, ROOT, Stack

sys.path.insert(0, str(ROOT / "bin"))
from _servers import MariaDB, Redis, free_port, missing_programs

CSRF = "journey0000000000000000000000000"
SCALE = "0.03"  # every wait of the sagas, so that half an hour is under a minute
FINAL = {"COMPLETED", "FAILED", "REJECTED", "EXPIRED", "REFUND_PENDING", "NEEDS_ATTENTION"}
MAKE_PEOPLE = """
import dataclasses, json
from tests.benchmarks.people import at_the_providers, people
made = people({count}, shillings={shillings})
print(json.dumps([[dataclasses.asdict(one) for one in made], *at_the_providers(made, prompt_s={prompt_s})]))
"""


@dataclass
class World:
    """Servers, processes, and what can be asked of them."""

    mariadb: MariaDB
    redis: Redis
    stack: Stack
    ids: list[str] = field(default_factory=list)

    def people(self, count: int, *, shillings: int = 1300, prompt_s: float = 0.2) -> list[dict[str, str]]:
        """Customers who may deposit, signed in, known to both providers."""
        code = MAKE_PEOPLE.format(count=count, shillings=shillings, prompt_s=prompt_s)
        made, phones, accounts = json.loads(self.stack.manage("shell", "--no-imports", "-v", "0", "-c", code))
        self.stack.control("mpesa", "customers", phones)
        self.stack.control("deriv_ws", "customers", accounts)
        return list(made)

    def post(
        self, person: Mapping[str, str], path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """An unsafe request of this customer's browser."""
        cookies = {"Cookie": f"penpay_access={person['access']}; csrftoken={CSRF}", "X-CSRFToken": CSRF}
        return httpx.post(
            f"{self.stack.url}/api/v1/{path}", json=body, headers={**cookies, **(headers or {})}, timeout=30
        )

    def deposit(self, person: Mapping[str, str], key: str | None = None) -> str:
        """The id of a new deposit of this customer."""
        key = key or secrets.token_hex(16)
        answer = self.post(person, "deposits", {"quote_id": person["quote"]}, {"Idempotency-Key": key})
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["transaction"]["id"]
        self.ids.append(id)
        return id

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Straight from the database, on a connection of its own."""
        with MySQLdb.connect(
            host=HOST, port=self.mariadb.port, user="penpay_owner", password=self.mariadb.password, database="penpay"
        ) as connection:
            cursor = connection.cursor()
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def status(self, id: str) -> str:
        """Of one Transaction."""
        return str(self.rows("SELECT status FROM transactions WHERE id = %s", bytes.fromhex(id.replace("-", "")))[0][0])

    def wait(self, condition: Callable[[], bool], why: str, most_s: float = 120) -> None:
        """Until it holds."""
        until = time.monotonic() + most_s
        while not condition():
            assert time.monotonic() < until, f"{why}\n{self.told()}"
            time.sleep(0.1)

    def wait_for_ends(self, ids: Sequence[str], most_s: float = 240) -> dict[str, str]:
        """The statuses, once all are final."""
        self.wait(lambda: all(self.status(id) in FINAL for id in ids), "not all deposits ended", most_s)
        return {id: self.status(id) for id in ids}

    def told(self) -> str:
        """What is known when something goes wrong."""
        statuses = self.rows("SELECT status, failure_code, COUNT(*) FROM transactions GROUP BY 1, 2")
        return f"{statuses}\n" + "\n".join(f"{name}: {self.stack.tail(name, 1500)}" for name in self.stack.processes)

    def books_agree(self) -> None:
        """Every movement at the providers is in the ledger, to the cent, and the other way round."""
        for provider, kind, sign in (("mpesa", "mpesa_working", -1), ("deriv_ws", "deriv_agent", 1)):
            movements = self.stack.control(provider, "books", method="GET")
            moved = sum(round(float(movement["amount"]) * 100) for movement in movements)
            [(posted,)] = self.rows(
                "SELECT COALESCE(SUM(b.credit_balance), 0) FROM ledger_balances b JOIN ledger_accounts a "
                "ON a.id = b.account_id WHERE a.kind = %s",
                kind,
            )
            [(opening,)] = self.rows(
                "SELECT COALESCE(SUM(e.amount), 0) FROM ledger_entries e JOIN ledger_accounts a "
                "ON a.id = e.debit_account_id WHERE a.kind = %s AND e.purpose = 'opening'",
                kind,
            )
            assert sign * int(posted) + sign * int(opening) == moved, (provider, int(posted), int(opening), moved)
        self.stack.manage("verify_ledger", "--json")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Fresh servers and processes for one module."""
    if missing_programs():
        pytest.skip("mariadbd and redis-server are needed")
    home = tmp_path_factory.mktemp("journey")
    mariadb = MariaDB(home / "mariadb", free_port(), password=secrets.token_urlsafe(12))
    redis = Redis(home / "redis", free_port())
    mariadb.start()
    redis.start()
    environment = {
        "APP_ENV": "testing",
        "DATABASE_URL": mariadb.url("penpay"),
        "MIGRATION_DATABASE_URL": mariadb.url("penpay_owner"),
        "REDIS_URL": redis.url(0),
        "CELERY_BROKER_URL": redis.url(1),
        "SAGA_TIME_SCALE": SCALE,
        "JWT_ACCESS_TTL": "7200",
        "CRASH_POINT": "tests.journeys.crash.point",
    }
    with Stack(environment, Path(home / "logs"), limits=False) as stack:
        try:
            stack.manage("migrate", "--verbosity", "0")
            stack.manage("create_demo_data", "--json")
            stack.start()
            yield World(mariadb, redis, stack)
        finally:
            stack.stop()
            redis.stop()
            mariadb.stop()


@pytest.fixture(autouse=True)
def calm(request: pytest.FixtureRequest) -> None:
    """Each test begins without faults."""
    if "world" in request.fixturenames:
        here: World = request.getfixturevalue("world")
        for provider in ("mpesa", "deriv_ws"):
            here.stack.control(provider, "faults", method="DELETE")


def with_crash(stack: Stack, at: int) -> None:
    """Starts the worker so that it dies at that crash point; 0 lets it live."""
    before, stack.environment = stack.environment, {**stack.environment, "CRASH_AT": str(at)}
    stack.start_worker(0)
    stack.environment = before
