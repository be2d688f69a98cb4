"""manage.py purge_expired: deletes what has outlived its retention."""

from typing import Any

from rich.console import Console
from rich.progress import Progress

from penpay.privacy.purging import documents_overdue, kept_by_law, purges
from shared_kernel.management.base import Report, StaffCommand


class Command(StaffCommand):
    help = (
        "Deletes, in batches, what settings.RETENTION_DAYS no longer keeps: one-time codes, ended sessions with their"
        " refresh tokens, idempotency keys of events, counters of rate limits, and the rest of erased or closed"
        " customers whom the law keeps no longer."
        " Never ledger, audit log, money's keys. Run it daily; it may be stopped at any time."
    )
    changes = True

    def report(self, options: dict[str, Any]) -> Report:
        dry_run, counts = options["dry_run"], {}
        with Progress(console=Console(stderr=True), transient=True, disable=options["json"]) as bar:
            for purge in purges():
                found = counts[purge.name] = purge.count()
                task = bar.add_task(purge.name, total=found)
                if not dry_run:
                    counts[purge.name] = 0
                    while some := purge.purge_some():
                        counts[purge.name] += some
                        bar.update(task, completed=counts[purge.name])
        kept, waiting = kept_by_law(), documents_overdue()
        lines = [f"{name}: {count} {'would go' if dry_run else 'gone'}" for name, count in counts.items()]
        lines.append(f"kept by law: {kept} erased or closed customers")
        lines.append(f"of these overdue, for their identity documents can't be deleted yet: {waiting}")
        told = {"purged": counts, "kept_by_law": kept, "documents_overdue": waiting, "dry_run": dry_run}
        return Report(told, lines)
