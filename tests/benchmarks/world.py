"""PenPay as processes on the bench's private servers, and what the measurements ask of them."""

import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import MySQLdb
from django.conf import settings
from django.db import connection
from environ import Env

from penpay.stack import Stack

# One process for the steps; relay and sweeper have one of their own, so that their statements and time can be told
# apart. Two API processes were measured a quarter faster than one with as many threads.
QUEUES = ("relay,sweep,default", "steps")
API = {"api_processes": 2, "api_threads": 8, "api_timeout_s": 3600}  # `paused` lets them stand for minutes
GUARDS_OFF = ("M-Pesa: rate limit 20/s", "M-Pesa: duplicate guard", "Deriv: call budgets", "Deriv: duplicate guard 2 s")
PASSED_ON = (
    "APP_ENV", "DJANGO_SETTINGS_MODULE", "DATABASE_URL", "MIGRATION_DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL",
    "JWT_ACCESS_TTL", "LOG_LEVEL", "MPESA_RATE_PER_MINUTE", "RATE_LIMITS", "SEAL_ANCHOR",
)  # fmt: skip


def environment() -> dict[str, str]:
    """What the processes of a stack are given of ours."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


@contextmanager
def stack(logs: Path, *, also: Mapping[str, str] | None = None, **options: Any) -> Iterator[Stack]:
    """Simulators without limits, API, workers and beat; the database is migrated and has its demo data.

    `also` is what its processes are given besides our own settings.
    """
    with Stack(environment() | dict(also or {}), logs, **{"limits": False, "queues": QUEUES, **API, **options}) as made:
        made.manage("migrate", "--verbosity", "0")
        made.manage("create_demo_data", "--float", "10000000.00", "--json")
        made.start()
        yield made


def options() -> dict[str, Any]:
    """How the driver alone connects to the same database."""
    known = settings.DATABASES["default"]
    return {
        "host": known["HOST"], "port": int(known["PORT"]), "user": known["USER"], "password": known["PASSWORD"],
        "database": known["NAME"], "charset": "utf8mb4",
        "init_command": "SET SESSION sql_mode='STRICT_ALL_TABLES', SESSION tx_isolation='READ-COMMITTED'",
    }  # fmt: skip


@contextmanager
def paused(of: Stack, spared: Sequence[str] = ()) -> Iterator[None]:
    """Its processes stand still: they neither work on what the other contender writes nor take its time."""
    time.sleep(1)  # what is in hand ends
    groups = [process.pid for name, process in of.processes.items() if name not in spared]
    for _ in range(100):
        _signal(groups, signal.SIGSTOP)
        time.sleep(0.2)  # the server's list is as old as a tenth of a second
        if not _open_transactions():
            break
        _signal(groups, signal.SIGCONT)  # a standing process must hold no lock
        time.sleep(0.05)
    else:
        raise AssertionError("there is no moment without an open transaction")
    try:
        yield
    finally:
        _signal(groups, signal.SIGCONT)


def _signal(groups: Sequence[int], number: signal.Signals) -> None:
    for group in groups:
        os.killpg(group, number)


def _open_transactions() -> int:
    """Of everybody, which only the owner may see."""
    owner = Env.db_url_config(os.environ["MIGRATION_DATABASE_URL"])
    with closing(
        MySQLdb.connect(host=owner["HOST"], port=int(owner["PORT"]), user=owner["USER"], password=owner["PASSWORD"])
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT COUNT(*) FROM information_schema.innodb_trx")
        return int(cursor.fetchone()[0])


def rows(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """What the database answers."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return list(cursor.fetchall()) if cursor.description else []


def wait(condition: Callable[[], bool], why: str, most_s: float = 60, nap_s: float = 0.02) -> None:
    """Until it holds. Raises `AssertionError`."""
    until = time.monotonic() + most_s
    while not condition():
        assert time.monotonic() < until, why
        time.sleep(nap_s)


def quantile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else float("nan")


def median(values: Sequence[float]) -> float:
    """Of several rounds."""
    return statistics.median(values)


@dataclass(frozen=True)
class Spent:
    """CPU seconds of processes, by what they are."""

    by_name: dict[str, float]

    def since(self, before: "Spent") -> dict[str, float]:
        """What was used since then."""
        return {name: used - before.by_name.get(name, 0.0) for name, used in self.by_name.items()}


def cpu(of: Stack) -> Spent:
    """CPU seconds of the stack's processes and their children, of the servers, and of this process."""
    names = {process.pid: name for name, process in of.processes.items()} | {os.getpid(): "clients"}
    tick, found = os.sysconf("SC_CLK_TCK"), dict.fromkeys([*names.values(), "mariadb", "redis"], 0.0)
    parent = _ancestor()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            program = (entry / "comm").read_text().strip()
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        pid, above = int(entry.name), int(fields[1])
        name = names.get(pid) or names.get(above)
        if above == parent and program in {"mariadbd", "redis-server"}:
            name = program.removesuffix("d").removesuffix("-server")
        if name:
            found[name] += (int(fields[11]) + int(fields[12])) / tick
    return Spent(found)


def _ancestor() -> int:
    """bin/bench, which started the servers and us."""
    return os.getppid()
