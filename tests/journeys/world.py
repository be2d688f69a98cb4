"""A whole PenPay as real processes, on servers of its own that may be killed, and what can be asked of it."""

import json
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import MySQLdb
from MySQLdb.constants import ER

from penpay.stack import HOST, QUEUES, Stack
from tests.journeys.books import MOVED, at_providers, in_ledger

CSRF = "journey0000000000000000000000000"
SCALE = "0.03"  # every wait of the sagas, so that half an hour is under a minute
FINAL = {"COMPLETED", "FAILED", "REJECTED", "EXPIRED", "REFUNDED", "REVERSED", "NEEDS_ATTENTION"}
PROVIDERS = ("mpesa", "deriv_ws")  # whose control sides there are: Deriv's two faces have one
AGENTS = ("CR900001", "7001")
MAKE_PEOPLE = """
from tests.journeys.people import people_as_json
print(people_as_json({count}, shillings={shillings}, platform={platform!r}))
"""


@dataclass
class World:
    """Servers, processes, and what can be asked of them."""

    mariadb: Any  # bin/_servers.MariaDB and Redis, which are no part of the importable tree
    redis: Any
    stack: Stack
    texts: Path  # the file that PenPay's SMS go to
    ids: list[str] = field(default_factory=list)

    # --- customers ----------------------------------------------------------------------------------------------------

    def people(
        self,
        count: int,
        *,
        shillings: int = 1300,
        prompt_s: float = 0.2,
        platform: str = "ws_v3",
        balance: str = "0.00",
        at_mpesa: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Customers who may pay, signed in, known to both providers; with a quote of a deposit.

        `balance` is what they have at Deriv, `at_mpesa` what their phones do otherwise than pay and receive.
        """
        code = MAKE_PEOPLE.format(count=count, shillings=shillings, platform=platform)
        made: list[dict[str, Any]] = json.loads(self.stack.manage("shell", "--no-imports", "-v", "0", "-c", code))
        phones = [
            {"phone": one["phone"], "behaviour": "pay", "delay_s": prompt_s} | dict(at_mpesa or {}) for one in made
        ]
        self.stack.control("mpesa", "customers", phones)
        self.stack.control("deriv_ws", "customers", [one["at_deriv"] | {"balance": balance} for one in made])
        return made

    def post(
        self, person: Mapping[str, Any], path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """An unsafe request of this customer's browser."""
        cookies = {"Cookie": f"penpay_access={person['access']}; csrftoken={CSRF}", "X-CSRFToken": CSRF}
        return httpx.post(
            f"{self.stack.url}/api/v1/{path}", json=body, headers={**cookies, **(headers or {})}, timeout=30
        )

    def deposit(self, person: Mapping[str, Any], key: str | None = None) -> str:
        """The id of a new deposit of this customer."""
        return self._accepted(self.post(person, "deposits", {"quote_id": person["quote"]}, keyed(key)))

    def withdrawal(self, person: Mapping[str, Any], dollars: str = "10.00", key: str | None = None) -> str:
        """The id of a new withdrawal: the customer takes a quote, reads the code in their mail, and sends both."""
        asked = {"type": "withdrawal", "amount": {"amount": dollars, "currency": "USD"}}
        quote = self.post(person, "quotes", asked)
        assert quote.status_code == 201, quote.text
        quote_id = quote.json()["id"]
        sent = self.post(person, "withdrawals/verification", {"quote_id": quote_id})
        assert sent.status_code == 202, sent.text
        self.steps_up(person)
        body = {"quote_id": quote_id, "verification_code": self.code(person)}
        return self._accepted(self.post(person, "withdrawals", body, keyed(key)))

    def code(self, person: Mapping[str, Any]) -> str:
        """The newest one-time code that Deriv sent this customer."""
        codes = self.stack.control("deriv_ws", f"codes?customer={person['account']}", method="GET")
        return str(codes[-1]["code"])

    def steps_up(self, person: Mapping[str, Any]) -> None:
        """The customer shows with the code of an SMS that it is them, as an order of a withdrawal needs it."""
        sent = self.post(person, "auth/step-up", {})
        assert sent.status_code == 202, sent.text
        answer = self.post(person, "auth/step-up", {"code": self.sms_code(person)})
        assert answer.status_code == 204, answer.text

    def sms_code(self, person: Mapping[str, Any]) -> str:
        """The newest code that PenPay sent to this customer's phone."""
        texts = [json.loads(line) for line in self.texts.read_text().splitlines()]
        text = next(text["text"] for text in reversed(texts) if text["phone"] == person["phone"])
        return str(text.split("code: ")[1][:6])

    def _accepted(self, answer: httpx.Response) -> str:
        assert answer.status_code == 202, answer.text
        id: str = answer.json()["transaction"]["id"]
        self.ids.append(id)
        return id

    # --- what became of it --------------------------------------------------------------------------------------------

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Straight from the database, on a connection of its own; again, where a worker's locks were in the way."""
        server = {"host": HOST, "port": self.mariadb.port, "user": "penpay_owner", "password": self.mariadb.password}
        while True:
            with MySQLdb.connect(database="penpay", **server) as connection:
                cursor = connection.cursor()
                try:
                    cursor.execute(sql, parameters)
                except MySQLdb.OperationalError as error:
                    if error.args[0] != ER.LOCK_DEADLOCK:  # which undid all of it
                        raise
                    continue
                connection.commit()
                return list(cursor.fetchall())

    def status(self, id: str) -> str:
        """Of one Transaction."""
        return str(self.rows("SELECT status FROM transactions WHERE id = %s", raw(id))[0][0])

    def entries_of(self, id: str) -> int:
        """How many ledger entries a Transaction has."""
        [(count,)] = self.rows("SELECT COUNT(*) FROM ledger_entries WHERE transaction_id = %s", raw(id))
        return int(count)

    def wait(self, condition: Callable[[], bool], why: str, most_s: float = 120) -> None:
        """Until it holds."""
        until = time.monotonic() + most_s
        while not condition():
            assert time.monotonic() < until, f"{why}\n{self.told()}"
            time.sleep(0.1)

    def wait_for_ends(self, ids: Sequence[str], most_s: float = 240) -> dict[str, str]:
        """The statuses, once all are final or before a person."""
        self.wait(lambda: all(self.status(id) in FINAL for id in ids), "not all ended", most_s)
        return {id: self.status(id) for id in ids}

    def a_day_passes(self, most_s: float = 120) -> None:
        """What was booked on a claim is asked about, as it is within the day: then M-Pesa's charges are known, too.

        A payout that M-Pesa, or a debit that Deriv does not know for a day goes before a person.
        """
        self.rows(
            "UPDATE deriv_transfers SET created_at = created_at - INTERVAL 1 DAY "
            "WHERE leg = 'deriv_debit' AND status = 'unknown'"
        )
        self.rows(
            "UPDATE mpesa_requests SET created_at = created_at - INTERVAL 1 DAY "
            "WHERE leg = 'b2c_payout' AND status IN ('sending', 'unknown', 'accepted')"
        )
        asked = "'MPESA_DISBURSING', 'DERIV_DEBIT_SENT'"
        waiting = f"(status = 'COMPLETED' AND next_step_at IS NOT NULL) OR status IN ({asked})"
        due = "UPDATE transactions SET next_step_at = UTC_TIMESTAMP(6), turn_at = UTC_TIMESTAMP(6) WHERE "
        later = "next_step_at > UTC_TIMESTAMP(6) + INTERVAL 5 MINUTE"  # what is booked meanwhile has its day before it
        self.rows(f"{due} {waiting}")
        found = f"SELECT 1 FROM transactions WHERE {waiting} LIMIT 1"

        def is_done() -> bool:
            self.rows(f"{due} ({waiting}) AND {later}")
            return not self.rows(found)

        self.wait(is_done, "not all payouts were confirmed", most_s)

    def told(self) -> str:
        """What is known when something goes wrong."""
        statuses = self.rows("SELECT type, status, failure_code, COUNT(*) FROM transactions GROUP BY 1, 2, 3")
        return f"{statuses}\n" + "\n".join(f"{name}: {self.stack.tail(name, 1500)}" for name in self.stack.processes)

    # --- books --------------------------------------------------------------------------------------------------------

    def provider_books(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Every movement of money that M-Pesa, and that Deriv, believes happened."""
        mpesa, deriv = (self.stack.control(provider, "books", method="GET") for provider in PROVIDERS)
        return mpesa, deriv

    def difference(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Accounts of which provider and ledger do not say the same, with what both say, in minor units."""
        theirs, ours = at_providers(*self.provider_books(), AGENTS), in_ledger(self.rows(MOVED))
        both = {account: (theirs.get(account, 0), ours.get(account, 0)) for account in theirs.keys() | ours.keys()}
        return {account: amounts for account, amounts in both.items() if amounts[0] != amounts[1]}

    def verify_ledger(self) -> str:
        """What `verify_ledger` finds; empty: nothing."""
        try:
            self.stack.manage("verify_ledger", "--json")
        except subprocess.CalledProcessError as found:
            return f"{found.stdout}{found.stderr}"
        return ""

    def books_agree(self) -> None:
        """Every movement at the providers is in the ledger, account by account, to the cent, and the other way."""
        self.a_day_passes()
        assert self.difference() == {}, self.told()
        assert self.verify_ledger() == ""

    # --- faults -------------------------------------------------------------------------------------------------------

    def arm(self, provider: str, **fault: Any) -> None:
        """A fault of a simulator, as its control side takes it."""
        self.stack.control(provider, "faults", fault)

    def calm(self) -> None:
        """No fault is armed any more."""
        for provider in PROVIDERS:
            self.stack.control(provider, "faults", method="DELETE")

    def flush_redis(self) -> None:
        """The broker and what Redis keeps beside it are empty."""
        import redis

        with redis.Redis(port=self.redis.port) as client:
            client.flushall()


@contextmanager
def a_world(
    home: Path,
    mariadb: Any,
    redis: Any,
    environment: Mapping[str, str],
    queues: Sequence[str] = (QUEUES,),
    seed: int = 0,
    worker_options: Sequence[str] = ("--pool=solo",),
) -> Iterator[World]:
    """All processes on these two servers, which are running; they end with the block."""
    settings = {
        "APP_ENV": "testing",
        "DATABASE_URL": mariadb.url("penpay"),
        "MIGRATION_DATABASE_URL": mariadb.url("penpay_owner"),
        "REDIS_URL": redis.url(0),
        "CELERY_BROKER_URL": redis.url(1),
        "SAGA_TIME_SCALE": SCALE,
        "JWT_ACCESS_TTL": "7200",
        "RATE_LIMITS": "*=1000000",  # everybody comes from one address, and pays as often as it takes
        "SMS_URL": f"file://{(home / 'sms.jsonl').resolve()}",
        **environment,
    }
    with Stack(settings, home / "logs", queues=queues, limits=False, seed=seed, worker_options=worker_options) as stack:
        stack.manage("migrate", "--verbosity", "0")
        stack.manage("create_demo_data", "--json")
        stack.start()
        yield World(mariadb, redis, stack, home / "sms.jsonl")


def keyed(key: str | None) -> dict[str, str]:
    """The header that makes a repetition harmless."""
    return {"Idempotency-Key": key or secrets.token_hex(16)}


def raw(id: str) -> bytes:
    """An id as the database holds it."""
    return bytes.fromhex(id.replace("-", ""))
