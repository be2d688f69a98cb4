"""manage.py continue_anchor CHAIN: what to do when a chain's seals and their anchor contradict one another.

A command knows only the login it was typed at: what it writes down is a draft, until somebody who is signed in to the
back-office makes it theirs and another one approves it. To begin it then takes no name: both said so.
"""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError
from django.urls import reverse

from shared_kernel.facade import Continuation, Ends, continuing, current_context, now, sealed_tables
from shared_kernel.management.base import Report, StaffCommand


class Command(StaffCommand):
    """Run it to see what is wrong, with --why for a draft, and once more when two people have asked and approved."""

    help = (
        "Says how a chain's seals and their anchor contradict one another. With --why it drafts that the anchor is"
        " begun anew from the last seal; in the back-office one person asks for that and another one approves; then run"
        " it again, where SEAL_ANCHOR is. Every later check tells of it."
    )
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("chain", choices=sealed_tables(), help="the table whose seals they are")
        parser.add_argument("--why", default="", help="what happened, as whoever approves it must know; no secrets")

    def report(self, options: dict[str, Any]) -> Report:
        chain, why, dry_run = options["chain"], options["why"].strip(), options["dry_run"]
        ends = continuing.ends(chain)
        if ends is None:
            return _told(chain, "nothing", [f"{chain}: the seals and their anchor agree, there is nothing to do"])
        newest = continuing.newest(chain)
        asked = newest if newest and newest.ends == ends and (newest.used_at or newest.expires_at > now()) else None
        if asked and asked.approved_by:
            if not dry_run:
                continuing.begin(asked, by=current_context().actor)
            line = f"{'would be' if dry_run else 'is'} begun anew from seal {ends.number}"
            return _told(chain, "nothing" if dry_run else "begun", [f"{chain}: the anchor {line}"], asked, ends)
        if asked and asked.by and why:
            raise CommandError(f"{asked.by} has asked for it already, until {asked.expires_at:%Y-%m-%d %H:%M} UTC")
        lines = [*_ends(chain, ends)]
        if asked and not why:
            return _told(chain, "waits", [*lines, _next(asked)], asked, ends)
        found = continuing.found(chain)
        lines.append(f"found: {found}")
        if why:
            drafted = None if dry_run else continuing.draft(chain, drafted_by=current_context().device, why=why)
            lines += [_next(drafted)] if drafted else []
            return _told(chain, "drafted" if drafted else "nothing", lines, drafted, ends, found)
        lines.append("look for the reason; put the anchor back from its copy if there is one; else draft it with --why")
        return _told(chain, "nothing", lines, None, ends, found)


def _next(asked: Continuation) -> str:
    """What has to be done about it, and where."""
    page = reverse("admin:shared_kernel_anchorcontinuation_change", args=[asked.id])
    if asked.by:
        return f"{asked.by} asks for it: another one approves it at {page}; then run this again"
    return f"drafted: somebody who is signed in asks for it at {page}, and another one approves it; then run this again"


def _ends(chain: str, ends: Ends) -> list[str]:
    read = f"seal {ends.anchor_number}" if ends.anchor_number else "nothing that can be read"
    return [f"{chain}: the database ends with seal {ends.number}, the anchor with {read}, and they do not fit together"]


def _told(
    chain: str,
    did: str,
    lines: list[str],
    asked: Continuation | None = None,
    ends: Ends | None = None,
    found: str = "",
) -> Report:
    ok = ends is None or did == "begun"
    told = {"ok": ok, "chain": chain, "did": did, "ends": asdict(ends) if ends else None}
    told |= {"found": asked.found if asked else found, "asked": asdict(asked) if asked else None}
    return Report(told, lines, wrong=not ok)
