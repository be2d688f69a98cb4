"""manage.py reconcile mpesa|deriv --date D [--file F]: a provider's book of a day is held against the ledger."""

from argparse import ArgumentParser
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from rich.console import Console
from rich.progress import Progress

from payments.facade import Provider, Report, Result, read_statement, reconciliation
from shared_kernel.domain.errors import DomainError
from shared_kernel.management.base import Report as Told, StaffCommand, argument

WIDTH = 18


class Command(StaffCommand):
    """Exit code 1: there are breaks. What one account's book can't tell stops no other account."""

    help = "Holds a provider's book of one day (in Nairobi) against the ledger; each difference becomes a break."
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("provider", help="mpesa or deriv")
        parser.add_argument("--date", required=True, help="the day, as in 2026-11-24")
        parser.add_argument("--file", help="a statement as CSV instead of the provider's API")
        parser.add_argument("--account", default="", help="one shortcode or agent; without it all, or the file's own")

    def report(self, options: dict[str, Any]) -> Told:
        provider = argument(Provider, options["provider"], "PROVIDER (mpesa or deriv)")
        day = reconciliation.day(argument(date.fromisoformat, options["date"], "--date"))
        file, account, dry_run = options["file"], options["account"], options["dry_run"]
        reports, failed = [], {}
        if file:
            book = read_statement(Path(file), provider, account=account, since=day.since, until=day.until)
            reports = [reconciliation.by_file(book, day, Path(file).name, dry_run=dry_run)]
        else:
            for name in _shown([account] if account else reconciliation.readable(provider), quiet=options["json"]):
                try:
                    reports.append(reconciliation.by_api(provider, name, day, dry_run=dry_run))
                except DomainError as error:
                    failed[name] = str(error)
        if failed and not reports:
            raise CommandError("; ".join(failed.values()))
        wrong = bool(failed) or any(report.still_open for report in reports)
        told = {"provider": str(provider), "date": options["date"], "dry_run": dry_run, "ok": not wrong}
        return Told(
            {**told, "runs": [_json(report) for report in reports], "failed": failed},
            [*_table(reports), *(f"not reconciled: {why}" for why in failed.values())],
            wrong=wrong,
        )


def _shown(accounts: Any, *, quiet: bool) -> Iterator[str]:
    """Each account, with progress on standard error."""
    with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar:
        yield from bar.track(accounts, description="reading the books")


def _json(report: Report) -> dict[str, Any]:
    return {
        "account": report.account,
        "sub_account": str(report.sub_account),
        "from": report.since.isoformat(),
        "to": report.until.isoformat(),
        "read_from": report.read_since.isoformat(),
        "source": report.source,
        "counts": dict(report.counts),
        "unchecked": report.unchecked,
        "opened": report.opened,
        "closed": report.closed,
        "open": report.still_open,
        "repeated": report.repeated,
        "report": str(report.id),
    }


def _table(reports: list[Report]) -> Iterator[str]:
    heads = [*(str(result) for result in Result), "unchecked", "opened", "closed", "open"]
    for report in reports:
        yield f"{report.provider} {report.account} {report.sub_account}, {report.source}: " + (
            "the same file as before, nothing changed" if report.repeated else f"{report.since} to {report.until}"
        )
        values = [*report.counts.values(), report.unchecked, report.opened, report.closed, report.still_open]
        for head, value in zip(heads, values, strict=True):
            yield f"  {head.replace('_', ' '):<{WIDTH}}{value:>8}"
