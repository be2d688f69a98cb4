"""manage.py rebuild_balances: the kept balances made anew from the entries, while postings go on."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.progress import Progress

from shared_kernel.management.base import Report, StaffCommand
from wallet.facade import Rebuilt, rebuild_balances


class Command(StaffCommand):
    """Each account that differed leaves an audit row. Exit 1: kept and rebuilt differed; somebody must find out why."""

    help = "Compares every kept balance with its entries and corrects what differs; nothing has to be stopped for it."
    changes = True

    def report(self, options: dict[str, Any]) -> Report:
        with Progress(console=Console(stderr=True), transient=True, disable=options["json"]) as bar:
            task = bar.add_task("accounts", total=None)
            rebuilt = rebuild_balances(
                dry_run=options["dry_run"],
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        data = asdict(rebuilt) | {"ok": not rebuilt.differed, "dry_run": options["dry_run"]}
        return Report(data, list(_lines(rebuilt, options["dry_run"])), wrong=bool(rebuilt.differed))


def _lines(rebuilt: Rebuilt, dry_run: bool) -> Iterator[str]:
    verb = "would be corrected" if dry_run else "corrected"
    yield f"{rebuilt.accounts} accounts, {rebuilt.differed} differed"
    for one in rebuilt.named:
        if not one.impossible:
            yield f"{one.name}: {one.kept} was kept, {one.entries} is what its entries make: {verb}"
    for one in rebuilt.impossible:
        yield (
            f"{one.name}: its entries make {one.entries}, and an in-transit account is never below zero: left as it "
            f"is, with {one.kept}. verify_ledger tells what else is wrong; put it right by new entries"
        )
    if rebuilt.differed > len(rebuilt.named):
        yield f"and {rebuilt.differed - len(rebuilt.named)} more, each in the audit log"
