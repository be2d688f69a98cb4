"""`staff_access unlock|reset_factor NAME --why TEXT`: help for staff who can't sign in, with its audit row."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from identity.facade import staff_sign_in
from shared_kernel.management.base import CANNOT_RUN, Report, StaffCommand


class Command(StaffCommand):
    """`reset_factor` ends their sessions; their next sign-in, by password, enrols a new factor: see who it is first."""

    help = "Forgets wrong tries (unlock), or takes away a lost second factor (reset_factor), of a member of staff."
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("what", choices=["unlock", "reset_factor"])
        parser.add_argument("name", help="their staff name or e-mail address")
        parser.add_argument("--why", default="", help="for the audit row; no personal data")

    def report(self, options: dict[str, Any]) -> Report:
        what, name, why = options["what"], options["name"], options["why"].strip()
        if not why:
            raise CommandError("say with --why how you know that it is them", returncode=CANNOT_RUN)
        done = getattr(staff_sign_in, what)(name, why=why, dry_run=options["dry_run"])
        told = {"staff": done.name, "what": what, "dry_run": options["dry_run"]}
        return Report(told, [f"{done.name}: {'would be' if options['dry_run'] else 'is'} done: {what}"])
