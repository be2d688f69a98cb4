"""manage.py dead_letters list|show|retry|discard: events that were parked after their retries."""

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from shared_kernel.facade import dead_letters, event, parked_events
from shared_kernel.management.base import Report, StaffCommand, argument

MOST = 1000  # that `list` shows


class Command(StaffCommand):
    help = "Events that were parked after their retries: list them, show one, retry or discard some."
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["list", "show", "retry", "discard"])
        parser.add_argument("events", nargs="*", metavar="EVENT", help="ids of events; retry also takes `all`")
        parser.add_argument("--reason", default="", help="why an event is discarded: kept in the audit log")

    def report(self, options: dict[str, Any]) -> Report:
        action, events, reason = options["action"], options["events"], options["reason"].strip()
        if action == "list":
            return _list()
        if action == "discard" and not reason:
            raise CommandError("discard needs --reason: it stays in the audit log")
        everything = action == "retry" and events == ["all"]
        ids = (
            [row["id"] for row in parked_events(MOST)] if everything else [argument(UUID, id, "EVENT") for id in events]
        )
        if not ids and not everything:
            raise CommandError(f"{action} needs the id of an event (`dead_letters list` shows them)")
        return _show(ids) if action == "show" else _change(action, ids, reason, dry_run=options["dry_run"])


def _list() -> Report:
    found = parked_events(MOST)
    lines = [f"{row['id']}  {row['type']}  {row['parked_at']:%Y-%m-%d %H:%M:%S}  {row['error']}" for row in found]
    return Report({"dead_letters": found}, lines or ["no event is parked"])


def _show(ids: list[UUID]) -> Report:
    found = {id: row for id in ids if (row := event(id))}
    missing = [str(id) for id in ids if id not in found]
    lines = [f"{name}: {value}" for row in found.values() for name, value in row.items()]
    return Report(
        {"events": list(found.values()), "not_found": missing},
        [*lines, *(f"{id}: no such event" for id in missing)],
        wrong=bool(missing),
    )


def _change(action: str, ids: list[UUID], reason: str, *, dry_run: bool) -> Report:
    if dry_run:
        rows = {id: event(id) for id in ids}
        changed = [
            id
            for id, row in rows.items()
            if row and row["parked_at"] and (action == "retry" or not row["discarded_at"])
        ]
    else:
        changed = dead_letters.retry(ids) if action == "retry" else dead_letters.discard(ids, reason)
    done = {"retry": "retried", "discard": "discarded"}[action]
    left = [str(id) for id in ids if id not in changed]
    would = "would be " if dry_run else ""
    return Report(
        {done: [str(id) for id in changed], "not_parked": left, "dry_run": dry_run},
        [*(f"{id}: {would}{done}" for id in changed), *(f"{id}: is not parked" for id in left)],
        wrong=bool(left),
    )
