"""manage.py verify_ledger: is the ledger sound, and does it agree with every Transaction's status?"""

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from payments.facade import verify_statuses
from wallet.facade import snapshot, verify_ledger


class Command(BaseCommand):
    help = "Checks the ledger: entries, balances, in-transit accounts, the database's refusals, Transactions' statuses."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="one JSON object on standard output, nothing else there"
        )

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            with Progress(console=Console(stderr=True), transient=True, disable=options["json"]) as bar, snapshot():
                found = _verify(bar)
        except DatabaseError as failed:
            raise CommandError(f"cannot read the ledger: {failed}", returncode=2) from failed
        if options["json"]:
            self.stdout.write(json.dumps(found))
        else:
            _show(found)
        if found["findings"]:
            sys.exit(1)


def _verify(bar: Progress) -> dict[str, Any]:
    task = bar.add_task("ledger", total=None)
    report = verify_ledger(lambda check, done, total: bar.update(task, description=check, completed=done, total=total))
    found = asdict(report)
    found["checks"] += ["statuses", "on_the_way", "reservations"]
    found["findings"] += [asdict(finding) for finding in verify_statuses()]
    return {"ok": not found["findings"], **found}


def _show(found: dict[str, Any]) -> None:
    wrong = {finding["check"] for finding in found["findings"]}
    table = Table("check", "result", title=f"{found['entries']} entries, {found['accounts']} accounts")
    for check in found["checks"]:
        table.add_row(check, "[red]wrong[/red]" if check in wrong else "ok")
    console = Console()
    console.print(table)
    for finding in found["findings"]:
        console.print(f"{finding['check']}: {finding['row']}: {finding['detail']}", style="red", markup=False)
