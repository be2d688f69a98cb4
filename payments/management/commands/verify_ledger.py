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
from shared_kernel.domain.errors import DomainError
from shared_kernel.domain.seals import NewStart
from shared_kernel.management.base import argument, seal_number
from wallet.facade import snapshot, verify_ledger


class Command(BaseCommand):
    help = (
        "Checks the ledger: entries, balances, in-transit accounts, the database's refusals, the chain of seals and its"
        " anchor, Transactions' statuses."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="one JSON object on standard output, nothing else there"
        )

        parser.add_argument("--from-seal", default="1", metavar="N", help="hold entries against their seals from N on")

    def handle(self, *_: Any, **options: Any) -> None:
        from_seal = argument(seal_number, options["from_seal"], "--from-seal")
        try:
            quiet = options["json"]
            with Progress(console=Console(stderr=True), transient=True, disable=quiet) as bar, snapshot() as anchored:
                found = _verify(bar, from_seal, anchored)
        except DomainError as refused:
            raise CommandError(refused.detail, returncode=2) from refused
        except DatabaseError as failed:
            raise CommandError(f"cannot read the ledger: {failed}", returncode=2) from failed
        if options["json"]:
            self.stdout.write(json.dumps(found))
        else:
            _show(found)
        if found["findings"]:
            sys.exit(1)


def _verify(bar: Progress, from_seal: int, anchored: int) -> dict[str, Any]:
    task = bar.add_task("ledger", total=None)

    def progress(check: str, done: int, total: int) -> None:
        bar.update(task, description=check, completed=done, total=total)

    report = verify_ledger(progress, from_seal=from_seal, anchored=anchored)
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
    console.print(f"{found['sealed']} entries held against their seals, {found['unsealed']} not sealed yet")
    for one in found["new_starts"]:
        console.print(str(NewStart(**one)), markup=False)
    for finding in found["findings"]:
        console.print(f"{finding['check']}: {finding['row']}: {finding['detail']}", style="red", markup=False)
