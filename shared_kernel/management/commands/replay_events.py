"""manage.py replay_events: publishes events again. Consumers are idempotent, so that it does no harm."""

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError

from shared_kernel.domain.events import Event
from shared_kernel.domain.ports import Selection
from shared_kernel.facade import dead_letters
from shared_kernel.management.base import Report, StaffCommand, argument


class Command(StaffCommand):
    help = (
        "Publishes events again, to all their subscribers: the given one, or all that match. Parked events stay parked."
    )
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("--event", metavar="ID")
        parser.add_argument("--since", metavar="T", help="RFC 3339, UTC where no offset is given")
        parser.add_argument("--until", metavar="T", help="the first moment that is left out")
        parser.add_argument("--type", metavar="T", help="such as TransactionCreated")

    def report(self, options: dict[str, Any]) -> Report:
        selected, dry_run = _selection(options), options["dry_run"]
        if dry_run:
            count = dead_letters.outbox.count(selected)
        else:
            count = 0
            for count in dead_letters.replay(selected):
                if not options["json"]:
                    self.stderr.write(f"{count} events")
        missing = bool(selected.id and not count)
        told = f"{count} events {'would be ' if dry_run else ''}published again"
        return Report(
            {"replayed": count, "dry_run": dry_run},
            ["no such event, or it is parked (`dead_letters retry`)" if missing else told],
            wrong=missing,
        )


def _selection(given: dict[str, Any]) -> Selection:
    id, kind, since, until = given["event"], given["type"], given["since"], given["until"]
    if not (id or kind or since or until):
        raise CommandError("say which events: --event, --type, --since, --until")
    if kind and kind not in Event.types:
        raise CommandError(f"--type: there is no event {kind!r}; one of {', '.join(sorted(Event.types))}")
    return Selection(
        id=argument(UUID, id, "--event") if id else None,
        type=kind or "",
        since=argument(_moment, since, "--since") if since else None,
        until=argument(_moment, until, "--until") if until else None,
    )


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
