"""manage.py finance_report REPORT: trial balance, accounts, an account's history, FX position, float positions."""

import os
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TextColumn
from rich.table import Table

from penpay.finance import (
    Report as Finances,
    accounts_report,
    export,
    floats_report,
    fx_report,
    history_report,
    note_export,
    trial_balance_report,
)
from penpay.finance_pages import shown
from shared_kernel.domain.money import Currency
from shared_kernel.facade import Cell, SheetFull, now
from shared_kernel.management.base import Report, StaffCommand, argument
from wallet.facade import AccountKind, account, snapshot

REPORTS = ("trial_balance", "accounts", "account", "fx_position", "float_positions")
MOST = 499  # rows of one page; --xlsx has no pages


class Command(StaffCommand):
    help = (
        "Where the money stands, from the ledger. Exit code 1: debits and credits differ, or a float has less than"
        " nothing available. With --xlsx all rows are written to a file that was not there before."
    )

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("which", choices=REPORTS, metavar="REPORT", help=" · ".join(REPORTS))
        parser.add_argument("--currency", choices=list(Currency), default="", help="trial_balance, accounts")
        parser.add_argument("--as-of", metavar="TIME", help="trial_balance: by what was booked up to then; else now")
        parser.add_argument("--kind", choices=list(AccountKind), default="", help="accounts")
        parser.add_argument("--owner", default="", help="accounts: a shortcode, an agent, a user id")
        parser.add_argument("--account", metavar="ID", help="account: whose history")
        parser.add_argument("--since", metavar="TIME", help="account: booked then or later, as in 2026-11-01T00:00:00Z")
        parser.add_argument("--until", metavar="TIME", help="account: booked before")
        parser.add_argument("--before", metavar="SEQ", help="account: the page after one that ended with SEQ (`next`)")
        parser.add_argument("--limit", default="50", help=f"account: rows of a page, up to {MOST}")
        parser.add_argument("--xlsx", metavar="FILE", help="write all rows there")

    def report(self, options: dict[str, Any]) -> Report:
        with snapshot():
            finances = _asked(options)
            if not options["xlsx"]:
                return _printed(replace(finances, rows=list(finances.rows)))
            path = Path(options["xlsx"])
            rows = _written(finances, path, quiet=options["json"])
        note_export(finances, rows)
        data = {"report": finances.name, "file": str(path), "rows": rows, "wrong": finances.wrong}
        return Report(data, [f"{finances.title}: {rows} rows in {path}"], wrong=bool(finances.wrong))


def _asked(options: dict[str, Any]) -> Finances:
    which, currency = options["which"], str(options["currency"])
    if which == "trial_balance":
        return trial_balance_report(currency=currency, as_of=_past(options["as_of"]))
    if which == "accounts":
        return accounts_report(kind=str(options["kind"]), owner=options["owner"], currency=currency)
    if which == "account":
        return _history(options)
    return fx_report() if which == "fx_position" else floats_report()


def _past(text: str | None) -> datetime | None:
    as_of = argument(_time, text, "--as-of") if text else None
    if as_of and as_of > now():
        raise CommandError("--as-of is in the future: leave it out for the balances now")
    return as_of


def _history(options: dict[str, Any]) -> Finances:
    if not options["account"]:
        raise CommandError("give --account: the id, as `finance_report accounts --json` lists it")
    found = account(argument(UUID, options["account"], "--account"))
    if found is None:
        raise CommandError(f"there is no account {options['account']}")
    since, until = (
        argument(_time, options[name], f"--{name}") if options[name] else None for name in ("since", "until")
    )
    if since and until and since >= until:
        raise CommandError("--since has to be before --until")
    if options["xlsx"]:
        return history_report(found, since=since, until=until)
    before = argument(int, options["before"], "--before") if options["before"] else None
    limit = argument(int, options["limit"], "--limit")
    if not 1 <= limit <= MOST:
        raise CommandError(f"--limit is 1 to {MOST}; --xlsx writes all rows")
    return history_report(found, since=since, until=until, before=before, limit=limit)


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def _printed(finances: Finances) -> Report:
    table = Table(title=finances.title)
    for column, head in enumerate(finances.heads):
        numbers = any(isinstance(row[column], Decimal | int) for row in finances.rows)
        table.add_column(head, justify="right" if numbers else "left")
    for row in finances.rows:
        table.add_row(*map(escape, map(shown, row)))
    out = StringIO()
    console = Console(file=out, width=200)
    console.print(table)
    facts = [f"{name}: {shown(value)}" for name, value in finances.facts]
    more = [f"more with --before {finances.next}"] if finances.next else []
    lines = [*out.getvalue().splitlines(), *facts, *more, *([finances.wrong] if finances.wrong else [])]
    data = finances.json()
    ids = [str(id) for id in finances.accounts]
    data["rows"] = [row | {"account": id} for row, id in zip(data["rows"], ids, strict=True)] if ids else data["rows"]
    return Report(data, lines, wrong=bool(finances.wrong))


def _written(finances: Finances, path: Path, *, quiet: bool) -> int:
    """Under another name first, so that a file of that name is always whole. Raises `CommandError`."""
    if path.exists():
        raise CommandError(f"{path} is there already: name a new file")
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as refused:
        raise CommandError(f"cannot write to {path.parent}: {refused.strerror}") from refused
    try:
        with os.fdopen(handle, "wb") as file:
            rows = export(replace(finances, rows=_watched(finances.rows, quiet=quiet)), file)
        Path(name).rename(path)
    except (OSError, SheetFull) as failed:
        raise CommandError(f"cannot write {path}: {failed}") from failed
    finally:
        Path(name).unlink(missing_ok=True)
    return rows


def _watched(rows: Iterable[Sequence[Cell]], *, quiet: bool) -> Iterator[Sequence[Cell]]:
    """Tells on standard error how many there were so far."""
    columns = (TextColumn("{task.completed:,} rows"),)
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bar:
        task = bar.add_task("rows", total=None)
        for row in rows:
            yield row
            bar.advance(task)
