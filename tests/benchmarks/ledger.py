"""The ledger, on databases of its own: postings beside hand-written SQL and beside django-hordak; what a million
entries change for a balance, a page of a statement, and `verify_ledger`.

Run by `bin/bench` in a process of its own, for its database is another: it prints its figures as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import django
import MySQLdb
from environ import Env

django.setup()

from django.db import connection  # noqa: E402

from penpay.stack import ROOT  # noqa: E402
from shared_kernel.domain.money import Currency  # noqa: E402
from tests.benchmarks.ledger_work import GROUP, PROCESSES, SHORTCODE, Crew, customer  # noqa: E402
from wallet.facade import account_history, customer_in_transit, ledger, mpesa_working, snapshot, verify_ledger  # noqa: E402

SMALL, LARGE, PEER = "bench_ledger_small", "bench_ledger_large", "bench_ledger_hordak"
HORDAK = ("django-hordak==2.0.0", "mysqlclient>=2.3.1,<2.4")
HOME = ROOT / ".local" / "bench" / "hordak"
ENTRIES_A_DEPOSIT = 5
OWN_CHECKS = {"entries", "accounts", "balances", "in_transit", "trial_balance"}


@dataclass(frozen=True)
class Size:
    """`posts` one by one and `grouped` in groups, in each of `rounds`; entries in the small and the large ledger."""

    posts: int
    grouped: int
    rounds: int
    small: int
    large: int
    reads: int


FULL = Size(posts=2_000, grouped=20_000, rounds=5, small=10_000, large=1_000_000, reads=300)
QUICK = Size(posts=400, grouped=4_000, rounds=3, small=2_000, large=60_000, reads=100)


def figures(quick: bool) -> list[dict[str, Any]]:
    """Runs the benchmark in a process of its own; what it measured, as `Figure` takes it. Called by `bin/bench`."""
    owner = os.environ["MIGRATION_DATABASE_URL"].rpartition("/")[0]
    _create(owner)
    environment = os.environ | {"DATABASE_URL": f"{owner}/{LARGE}", "MIGRATION_DATABASE_URL": f"{owner}/{LARGE}"}
    command = [sys.executable, "-m", "tests.benchmarks.ledger", *(["--quick"] if quick else [])]
    done = subprocess.run(command, env=environment, cwd=ROOT, stdout=subprocess.PIPE, check=True, text=True)
    measured: list[dict[str, Any]] = json.loads(done.stdout)
    return measured


def _create(owner: str) -> None:
    """The three databases, empty; ours are migrated."""
    known = Env.db_url_config(f"{owner}/mysql")
    who = {"host": known["HOST"], "port": int(known["PORT"]), "user": known["USER"], "password": known["PASSWORD"]}
    with MySQLdb.connect(**who) as server:
        for name in (SMALL, LARGE, PEER):
            server.cursor().execute(f"DROP DATABASE IF EXISTS {name}")
            server.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    for name in (SMALL, LARGE):
        given = os.environ | {"DATABASE_URL": f"{owner}/{name}", "MIGRATION_DATABASE_URL": f"{owner}/{name}"}
        subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], env=given, cwd=ROOT, check=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--verify", metavar="DATABASE", help="only this, of that database")
    asked = parser.parse_args()
    if asked.verify:
        found: Any = _verified(asked.verify)
    else:
        size = QUICK if asked.quick else FULL
        with Crew() as crew:
            found = [*_postings(crew, size), *_sizes(crew, size)]
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


# --- postings ---------------------------------------------------------------------------------------------------------


def _postings(crew: Crew, size: Size) -> Iterator[dict[str, Any]]:
    """Contenders in turn, each round beginning with another one, for what goes before leaves its pages to be flushed.

    The first round is for warming up; PenPay's postings begin it, for they open the accounts of those by hand.
    """
    hordak = Hordak()
    plan: dict[str, Callable[[], float]] = {
        name: lambda name=name, count=count: crew.per_s(name, count)  # type: ignore[misc]
        for name, count in {
            "alone": size.posts, "by_hand": size.posts, "hot": size.posts, "spread": size.posts,
            "grouped": size.grouped, "by_hand_grouped": size.grouped,
        }.items()
    }  # fmt: skip
    if not hordak.missing:
        plan["hordak"] = lambda: hordak.per_s(size.posts)
    seen: dict[str, list[float]] = {name: [] for name in plan}
    for turn in range(size.rounds + 1):
        names = list(plan)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            rate = plan[name]()
            if turn:
                seen[name].append(rate)
            sys.stderr.write(f"  round {turn}: {name} {rate:,.0f}/s\n")
    yield from _told(seen, hordak.missing)


def _told(seen: dict[str, list[float]], missing: str) -> Iterator[dict[str, Any]]:
    middle = {name: median(rates) for name, rates in seen.items()}

    def part(of: str, whole: str, least: float) -> dict[str, Any]:
        each = [one / other for one, other in zip(seen[of], seen[whole], strict=True)]
        rounds = ", ".join(f"{one:.2f}" for one in each)
        return {"value": median(each), "unit": "x", "goal": f">= {least:g}", "met": median(each) >= least,
                "note": f"rounds: {rounds}"}  # fmt: skip

    about = f"{PROCESSES} processes"
    yield {"name": "postings, each its own commit", "value": middle["alone"], "unit": "/s", "floor": middle["by_hand"],
           "note": about}  # fmt: skip
    yield {"name": "  as part of the floor", **part("alone", "by_hand", 0.6)}
    yield {"name": f"postings, {GROUP} a commit", "value": middle["grouped"], "unit": "/s",
           "floor": middle["by_hand_grouped"], "note": about}  # fmt: skip
    if missing:
        yield {"name": "django-hordak: skipped", "value": 0.0, "unit": "", "note": missing}
    else:
        yield {"name": "django-hordak, transfer_to", "value": middle["hordak"], "unit": "/s", "note": about}
        yield {"name": "  postings beside it, each its own commit", **part("alone", "hordak", 3)}
        yield {"name": f"  postings beside it, {GROUP} a commit", **part("grouped", "hordak", 40)}
    yield {"name": "postings on the same two house accounts", "value": middle["hot"], "unit": "/s"}
    yield {"name": "  as part of spread ones", **part("hot", "spread", 0.7)}


class Hordak:
    """The peer in its environment; `missing` says why it cannot be had."""

    def __init__(self) -> None:
        self.missing = self._install() or self._run("prepare")[0]

    def per_s(self, count: int) -> float:
        failed, out = self._run("post", str(count), str(PROCESSES))
        if failed:
            raise RuntimeError(f"hordak: {failed}")
        return count / float(json.loads(out))

    def _install(self) -> str:
        if (HOME / "ready").exists():
            return ""
        steps = ([sys.executable, "-m", "venv", str(HOME)],
                 [str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet", *HORDAK])  # fmt: skip
        for step in steps:
            try:
                done = subprocess.run(step, capture_output=True, text=True, timeout=600)
            except (OSError, subprocess.TimeoutExpired) as error:
                return f"its environment could not be made: {type(error).__name__}"
            if done.returncode:
                return f"it could not be installed: {_last_line(done.stderr)}"
        (HOME / "ready").touch()
        return ""

    def _run(self, *words: str) -> tuple[str, str]:
        known = connection.settings_dict
        peer = {"ENGINE": "django.db.backends.mysql", "NAME": PEER} | {
            name: str(known[name]) for name in ("HOST", "PORT", "USER", "PASSWORD")
        }
        environment = {"PEER_DATABASE": json.dumps(peer), "PATH": os.environ.get("PATH", "")}
        script = Path(__file__).with_name("ledger_peer.py")
        command = [str(HOME / "bin" / "python"), str(script), *words]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=HOME)
        return (_last_line(done.stderr) or "it ended badly") if done.returncode else "", done.stdout


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2][:150]


# --- what a large ledger changes --------------------------------------------------------------------------------------


def _sizes(crew: Crew, size: Size) -> Iterator[dict[str, Any]]:
    began = time.perf_counter()
    grown = {SMALL: _grown(crew, SMALL, size.small), LARGE: _grown(crew, LARGE, size.large)}
    sys.stderr.write(f"  both ledgers are there after {time.perf_counter() - began:.0f} s\n")
    yield from _reads(size, grown)
    yield from _verifying(grown)


def _grown(crew: Crew, database: str, entries: int) -> int:
    """Adds what is missing to that many entries, about; how many there are."""
    lacking = entries - _count(database)
    if lacking > 0:
        crew.per_s("grow", max(lacking // ENTRIES_A_DEPOSIT, PROCESSES), database)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE ledger_entries, ledger_balances, ledger_accounts")
    return _count(database)


def _count(database: str) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"USE {database}")
        cursor.execute("SELECT COUNT(*) FROM ledger_entries")
        return int(cursor.fetchone()[0])


def _reads(size: Size, grown: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Each kind of read in both ledgers, in turn."""
    working = mpesa_working(SHORTCODE)

    def held(database: str) -> Any:
        return customer_in_transit(customer(0, database), Currency.KES)

    kinds: dict[str, tuple[float, Callable[[str], Any]]] = {
        "a balance of the house": (1.2, lambda _: ledger.balance(working)),
        "a customer's balance": (1.2, lambda database: ledger.balance(held(database))),
        "a page of a house account": (1.5, lambda _: account_history(working.id)),
        "a customer's page": (1.5, lambda database: account_history(held(database).id)),
    }
    for name, (most, read) in kinds.items():
        turns = [{at: _took_us(at, read, size.reads) for at in (SMALL, LARGE)} for _ in range(size.rounds + 1)][1:]
        ratio = median(turn[LARGE] / turn[SMALL] for turn in turns)
        us = {at: median(turn[at] for turn in turns) for at in (SMALL, LARGE)}
        yield {"name": f"{name}, {grown[LARGE]:,} entries", "value": us[LARGE], "unit": "µs", "floor": us[SMALL],
               "note": f"floor: {grown[SMALL]:,} entries"}  # fmt: skip
        yield {"name": "  as part of the floor", "value": ratio, "unit": "x", "goal": f"<= {most:g}",
               "met": ratio <= most}  # fmt: skip


def _took_us(database: str, read: Callable[[str], Any], times: int) -> float:
    with connection.cursor() as cursor:
        cursor.execute(f"USE {database}")
    each = []
    for _ in range(times):
        began = time.perf_counter()
        read(database)
        each.append((time.perf_counter() - began) * 1e6)
    return median(each)


def _verifying(grown: dict[str, int]) -> Iterator[dict[str, Any]]:
    """In a process each, so that its memory is its own."""
    peaks: dict[str, float] = {}
    rates: dict[str, float] = {}
    for database in (SMALL, LARGE):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.ledger", "--verify", database],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        out = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"verify_ledger of {database} ended with {process.returncode}")
        peaks[database], rates[database] = used.ru_maxrss / 1024, grown[database] / json.loads(out)["took_s"]
    yield {"name": f"verify_ledger, {grown[LARGE]:,} entries", "value": rates[LARGE], "unit": "entries/s",
           "goal": ">= 100000", "met": rates[LARGE] >= 100_000}  # fmt: skip
    ratio = peaks[LARGE] / peaks[SMALL]
    yield {"name": "  its peak of memory", "value": peaks[LARGE], "unit": "MiB", "floor": peaks[SMALL],
           "goal": "<= 1.1 x floor", "met": ratio <= 1.1, "note": f"floor: {grown[SMALL]:,} entries"}  # fmt: skip


def _verified(database: str) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"USE {database}")
    began = time.perf_counter()
    with snapshot():
        report = verify_ledger()
    took = time.perf_counter() - began
    wrong = [finding for finding in report.findings if finding.check in OWN_CHECKS]
    assert not wrong, wrong  # grants are another's: here the owner runs
    return {"took_s": took, "entries": report.entries}


if __name__ == "__main__":
    sys.exit(main())
