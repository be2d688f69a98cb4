"""`resume_initiator --why TEXT`: lets M-Pesa's initiator call again, once its credential is known to be good."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings

from mpesa_integration.facade import mpesa
from shared_kernel.management.base import Report, StaffCommand


class Command(StaffCommand):
    """Exit 1 when it was not stopped."""

    help = "Lets the M-Pesa initiator call again after an error of its credential stopped it, with an audit row."
    changes = True

    def options(self, parser: ArgumentParser) -> None:
        parser.add_argument("--why", required=True, help="for the audit row; no password, no personal data")

    def report(self, options: dict[str, Any]) -> Report:
        name, dry_run = settings.MPESA_INITIATOR_NAME, options["dry_run"]
        was_stopped = mpesa.resume_initiator(options["why"], dry_run=dry_run)
        did = "would be resumed" if dry_run else "resumed"
        line = f"{name}: {did}" if was_stopped else f"{name}: was not stopped"
        return Report(
            {"initiator": name, "was_stopped": was_stopped, "dry_run": dry_run}, [line], wrong=not was_stopped
        )
